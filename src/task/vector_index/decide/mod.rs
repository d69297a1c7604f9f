//! Decides what to do and why: pure. First from the measurement of today's index, then from the candidates, then from the measurement of
//! the new index.

mod accept;
mod after_tuning;
mod stays;

use std::time::Duration;

pub use accept::{Refusal, accept, rival};
pub use after_tuning::after_tuning;
use serde::Serialize;
pub use stays::{is_read_whole, of_a_small_table, of_present, was_declined};

use super::candidates::{Candidate, Spec};
use super::curve::Curve;
use super::found::{Found, WORTH_IT};
use super::kind::Method;
use super::measure;
use crate::base::units;

/// Lists are lopsided when nine of ten searches with one probe read no more than this many times the pages of an average list.
/// Measured on clustered data: 1.0 for an index built with its rows there, 6.8 for one that was built on an empty table.
const LOPSIDED: f64 = 3.0;
/// A search that needs more than this part of all lists: 62 of 100 in an index built on an empty table, 3 of 100 when it was built with its
/// rows (20,000 × 128). Random vectors need as many, which one comparison shows.
const MANY_LISTS: u32 = 4;
/// Growth since the build from which on the centres, learnt from the rows of that time, are outdated.
const GROWN: f64 = 2.0;
/// Values of ef_construction that are tried beside 64. Of 20,391 chunks of text, 128 found 0.953 where 64 found 0.919, at the same size.
const DENSER: [u32; 2] = [128, 200];
/// Values of m that are tried where the densest build with m = 16 still needs a high setting, or misses the target.
const WIDER: [u32; 2] = [24, 32];
/// An hnsw index that needs more than this many times its lowest setting may be too thin.
const HIGH_EF_SEARCH: u32 = 2;

/// The target of the job.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// True if the job names lists, m or ef_construction: then the new index has to be no worse, and otherwise better.
    pub is_given: bool,
    /// None: to be found by a search.
    pub lists: Option<u32>,
    pub m: Option<u32>,
    pub ef_construction: Option<u32>,
    pub target: f64,
    pub exact_below: u64,
    pub sets_the_setting: bool,
    /// The value that other indexes need of the shared setting; 0: none.
    pub others_setting: u32,
    /// The same for the method of the present index, where the job asks for another one.
    pub others_of_present: u32,
    /// The lowest setting that searches may have.
    pub min_setting: u32,
    /// Longest time for one measurement's exact searches, in milliseconds.
    pub measure_ms: f64,
}

/// Returns the parameters from the job; pgvector's own defaults otherwise, of which the second is at least twice the first.
pub fn hnsw(m: Option<u32>, ef_construction: Option<u32>) -> Spec {
    let m = m.unwrap_or(16);
    Spec::Hnsw { m, ef_construction: ef_construction.unwrap_or(64.max(2 * m)) }
}

/// Returns the graphs to try, those that are built most quickly first: the job's, or denser and denser ones. More connections make an index larger and
/// every search slower; a denser build makes neither.
pub fn graphs(m: Option<u32>, ef_construction: Option<u32>) -> Vec<Spec> {
    let Spec::Hnsw { m: of_all, ef_construction: first } = hnsw(m, ef_construction) else { return Vec::new() };
    let mut all = vec![first];
    if ef_construction.is_none() {
        all.extend(DENSER.into_iter().filter(|denser| *denser > first));
    }
    all.into_iter().map(|ef_construction| Spec::Hnsw { m: of_all, ef_construction }).collect()
}

/// Returns wider graphs to try where the best of [`graphs`] is slow: more connections, which make an index larger and each step of a search longer, and find with
/// fewer steps. None where the job names m or ef_construction, or the best needs little.
pub fn wider(best: &Candidate, m: Option<u32>, ef_construction: Option<u32>, min_setting: u32) -> Vec<Spec> {
    let is_slow = !best.reached || best.found.setting > HIGH_EF_SEARCH * min_setting;
    match (m, ef_construction) {
        (None, None) if is_slow => WIDER.map(|m| Spec::Hnsw { m, ef_construction: 200 }).into(),
        _ => Vec::new(),
    }
}

/// The current state.
#[derive(Clone, Debug, Default)]
pub struct Current {
    pub vectors: f64,
    pub exact_ms: f64,
    pub index: Option<Index>,
}

#[derive(Clone, Debug)]
pub struct Index {
    pub method: Option<Method>,
    pub is_valid: bool,
    pub lists_in_catalog: Option<u32>,
    pub lists_in_fact: Option<u32>,
    pub m: u32,
    pub ef_construction: u32,
    /// True if pgtend built it, so that its lists come from the rows of that time.
    pub is_built_by_pgtend: bool,
    /// Rows when pgtend built it, or when it compared its number of lists with others.
    pub rows_then: Option<f64>,
    /// True if pgtend has tried other numbers of lists.
    pub tuned: bool,
    pub skew: Option<f64>,
    /// Measured at the application's setting.
    pub now: Option<Found>,
    /// Measured at the lowest setting that reaches the target, or at the highest one.
    pub least: Option<(bool, Found)>,
    /// What was found at these and at other settings: for the report.
    pub curve: Curve,
    /// A build that was no better than this index and is not repeated: its parameters, and the number of rows then.
    pub declined: Option<(Spec, f64)>,
    /// The reason why it could not be measured.
    pub unmeasured: Option<String>,
    /// True if the planner prefers an index that an interrupted run built.
    pub is_behind_a_new_one: bool,
}

impl Index {
    /// Returns whether pgtend neither built it nor compared it with others.
    fn is_unknown(&self) -> bool {
        !self.is_built_by_pgtend && !self.tuned
    }

    /// How lopsided its lists are, if they are. Lists that pgtend built with all rows present follow the data: another build would be no
    /// better.
    fn lopsided(&self) -> Option<f64> {
        self.skew.filter(|skew| *skew > LOPSIDED && !self.is_built_by_pgtend)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Action {
    Nothing,
    /// Changing the setting is enough.
    Set {
        setting: u32,
    },
    /// Find the number of lists, then build if it is worth it.
    Tune,
    Build {
        spec: Spec,
    },
    /// Nothing that the job allows reaches the target.
    GiveUp,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    #[serde(flatten)]
    pub action: Action,
    pub reasons: Vec<String>,
}

impl Decision {
    fn new(action: Action, reason: impl Into<String>) -> Self {
        Self { action, reasons: vec![reason.into()] }
    }
}

/// Returns the number of lists by pgvector's rule: the search for lists starts there.
pub fn lists_by_rule(rows: f64) -> u32 {
    let lists = if rows <= 1e6 { rows / 1000.0 } else { rows.sqrt() };
    (lists.round() as u32).clamp(1, 32_768)
}

pub fn decide(request: &Request, current: &Current) -> Decision {
    let mut decision = without_its_cost(request, current);
    let least_ms = current.exact_ms * measure::MIN_QUERIES as f64;
    if matches!(decision.action, Action::Tune | Action::Build { .. }) && least_ms > request.measure_ms {
        // Hours of building would end in an index that could not be swapped in.
        decision.action = Action::GiveUp;
        let [each, least] = [current.exact_ms, least_ms * 1.5].map(|ms| units::duration(Duration::from_secs_f64(ms / 1000.0)));
        decision.reasons.push(format!(
            "not built, because its recall could not be measured: an exact search takes {each}, and {} of them are needed; set `time` of `recall` \
             above {least}",
            measure::MIN_QUERIES
        ));
    }
    decision
}

fn without_its_cost(request: &Request, current: &Current) -> Decision {
    let build = || match (request.method, request.lists) {
        (Method::Hnsw, _) if request.m.is_none() && request.ef_construction.is_none() => Action::Tune,
        (Method::Hnsw, _) => Action::Build { spec: hnsw(request.m, request.ef_construction) },
        (Method::Ivfflat, Some(lists)) => Action::Build { spec: Spec::Ivfflat { lists } },
        (Method::Ivfflat, None) => Action::Tune,
    };
    if current.vectors < 1.0 {
        return Decision::new(Action::Nothing, "there are no vectors to index yet: an index built now would not fit later ones");
    }
    if current.vectors < request.exact_below as f64 {
        return of_a_small_table(request, current);
    }
    let Some(index) = &current.index else {
        let vectors = units::plural(current.vectors as u64, "vector");
        return Decision::new(
            build(),
            format!("there is no index; an exact search of {vectors} takes {:.1} ms", current.exact_ms),
        );
    };
    if !index.is_valid {
        return Decision::new(build(), "the index is invalid: no search uses it, and every insert maintains it");
    }
    if let Some(decision) = was_declined(request, index, current) {
        return decision;
    }
    if index.method != Some(request.method) {
        let present = index.method.map_or("another method", Method::name);
        return Decision::new(build(), format!("the job asks for {}, and the index is {present}", request.method));
    }
    if index.is_behind_a_new_one {
        return Decision::new(build(), "the planner uses the index that an interrupted run built: that one is measured instead");
    }
    if let Some(why) = &index.unmeasured {
        let rebuildable = request.method == Method::Ivfflat;
        return by_what_was_measured(request, index, why, rebuildable.then_some(&build));
    }
    if let Some(decision) = by_parameters(request, index, &build) {
        return decision;
    }
    let Some((reached, least)) = &index.least else {
        return Decision::new(Action::GiveUp, "its recall was not measured");
    };
    if request.method == Method::Ivfflat
        && let Some(reason) = is_outdated(index, current, least)
    {
        return Decision::new(build(), reason);
    }
    if !reached {
        return below_the_target(request, index, least, &build);
    }
    if let Some(decision) = is_read_whole(index, least, current) {
        return decision;
    }
    if let Some(reason) = is_untuned(request, index, least) {
        return Decision::new(Action::Tune, reason);
    }
    by_setting(request, index, least)
}

/// Says why other parameters have to be compared, if they have.
fn is_untuned(request: &Request, index: &Index, least: &Found) -> Option<String> {
    if index.tuned {
        return None;
    }
    match request.method {
        Method::Ivfflat => {
            request.lists.is_none().then(|| "other numbers of lists have not been measured on these vectors yet".to_owned())
        }
        Method::Hnsw => {
            let is_high = least.setting > HIGH_EF_SEARCH * request.min_setting;
            (is_high && !request.is_given).then(|| {
                format!("it takes hnsw.ef_search = {} to reach {}: a denser graph may be faster", least.setting, request.target)
            })
        }
    }
}

/// Says why the lists of the index no longer fit its rows, if they do not.
fn is_outdated(index: &Index, current: &Current, least: &Found) -> Option<String> {
    if let Some(skew) = index.lopsided() {
        return Some(lopsided_in_words(skew));
    }
    if let Some(lists) = index.lists_in_fact.filter(|lists| least.setting > lists / MANY_LISTS && index.is_unknown()) {
        return Some(format!(
            "a search has to read {} of {lists} lists for the target, which is typical of an index that was built with few rows",
            least.setting
        ));
    }
    let rows = index.rows_then.filter(|rows| current.vectors > rows * GROWN)?;
    let then = if index.is_built_by_pgtend { "when it was built" } else { "when its number of lists was compared with others" };
    Some(format!("{} now, {} {then}", units::plural(current.vectors as u64, "vector"), units::count(rows as u64)))
}

/// The index misses the target at its highest setting: another build of ivfflat may reach it, and a denser graph of hnsw.
fn below_the_target(request: &Request, index: &Index, least: &Found, build: &dyn Fn() -> Action) -> Decision {
    let reason = format!("recall is {}, and the target is {}", at_the_highest(request.method, least), request.target);
    if request.method == Method::Ivfflat || !request.is_given && !index.tuned {
        return Decision::new(build(), reason);
    }
    let advice = "raise `m` and `ef_construction` of the job for a denser graph".to_owned();
    Decision { action: Action::GiveUp, reasons: vec![reason, advice] }
}

/// Returns the decision from a measurement that ran out of time: a large index that was built with few rows is so slow that not everything is
/// measured.
fn by_what_was_measured(request: &Request, index: &Index, why: &str, build: Option<&dyn Fn() -> Action>) -> Decision {
    let known = match (index.lopsided(), &index.now) {
        (Some(skew), _) => Some(lopsided_in_words(skew)),
        (None, Some(now)) if now.recall + now.margin < request.target => {
            Some(format!("{} at {} = {}, below {}", recall_in_words(now), request.method.setting(), now.setting, request.target))
        }
        _ => None,
    };
    match (known, build) {
        (Some(known), Some(build)) => {
            Decision { action: build(), reasons: vec![known, format!("the measurement ended early: {why}")] }
        }
        _ => Decision::new(Action::GiveUp, format!("its recall cannot be measured: {why}")),
    }
}

fn lopsided_in_words(skew: f64) -> String {
    format!(
        "its lists are lopsided: a search of one list reads up to {skew:.1} times the pages of an average one, which is typical of an index that was built with few rows"
    )
}

/// Compares the parameters of the job with those that the index was built with.
fn by_parameters(request: &Request, index: &Index, build: &dyn Fn() -> Action) -> Option<Decision> {
    match request.method {
        Method::Ivfflat => {
            let (lists, present) = (request.lists?, index.lists_in_fact.or(index.lists_in_catalog)?);
            if lists == present {
                return None;
            }
            let mut decision = Decision::new(build(), format!("the job asks for {lists} lists, and the index has {present}"));
            if index.lists_in_catalog == Some(lists) {
                decision.reasons.push(format!("the catalog says {lists}, but the index was not rebuilt after ALTER INDEX"));
            }
            Some(decision)
        }
        Method::Hnsw => {
            let differs =
                request.m.is_some_and(|m| m != index.m) || request.ef_construction.is_some_and(|ef| ef != index.ef_construction);
            differs.then(|| {
                let reason = format!(
                    "the index was built with m = {}, ef_construction = {}, and the job asks for others",
                    index.m, index.ef_construction
                );
                Decision::new(build(), reason)
            })
        }
    }
}

/// The index is as it should be; this decides about the setting.
pub fn by_setting(request: &Request, index: &Index, least: &Found) -> Decision {
    let name = request.method.setting();
    let setting = least.setting.max(request.others_setting);
    let Some(now) = &index.now else { return Decision::new(Action::Set { setting }, "the setting is unknown") };
    let measured = format!("recall is {:.3} ± {:.3} at {name} = {}", now.recall, now.margin, now.setting);
    if now.setting == setting {
        let why = if setting > least.setting {
            format!("{measured}; {} is enough for {}, but another index needs it or may", least.setting, request.target)
        } else {
            format!("{measured}, the least that reaches {}", request.target)
        };
        return Decision::new(Action::Nothing, why);
    }
    let reason = if !now.reaches(request.target) {
        let below = if now.recall < request.target { "below" } else { "which is not surely" };
        format!("{measured}, {below} {}; {} reaches it", request.target, least.setting)
    } else if now.setting > setting && is_cheaper(least, now) {
        format!("{measured}; {setting} is enough for {} and cheaper", request.target)
    } else {
        let why = if now.setting < setting { "which is enough" } else { "and a lower one would save little" };
        return Decision::new(Action::Nothing, format!("{measured}, {why}"));
    };
    Decision::new(Action::Set { setting }, reason)
}

fn is_cheaper(one: &Found, than: &Found) -> bool {
    match (one.cost, than.cost) {
        (Some(one), Some(than)) => one.pages < than.pages * WORTH_IT,
        _ => one.setting < than.setting,
    }
}

/// Returns "0.870 at hnsw.ef_search = 1000, its highest".
fn at_the_highest(method: Method, found: &Found) -> String {
    format!("{:.3} ± {:.3} at {} = {}, its highest", found.recall, found.margin, method.setting(), found.setting)
}

pub fn recall_in_words(found: &Found) -> String {
    format!("recall {:.3} ± {:.3}", found.recall, found.margin)
}

#[cfg(test)]
mod tests;
