//! Decides what to do and why: pure. First from the measurement of today's index, then from the candidates, then from the measurement of
//! the new index.

use std::time::Duration;

use serde::Serialize;

use super::candidates::{Candidate, Tuning};
use super::kind::Method;
use super::measure;
use super::search::Found;
use crate::base::units;
use crate::task::vector_index::candidates::Spec;

/// Lists are lopsided when nine of ten searches with one probe read no more than this many times the pages of an average list.
/// Measured on clustered data: 1.0 for an index built with its rows there, 6.8 for one that was built on an empty table.
const LOPSIDED: f64 = 3.0;
/// A search that needs more than this part of all lists: 62 of 100 in an index built on an empty table, 3 of 100 when it was built with its
/// rows (20,000 × 128). Random vectors need as many, which one comparison shows.
const MANY_LISTS: u32 = 4;
/// Growth since the build from which on the centres, learnt from the rows of that time, are outdated.
const GROWN: f64 = 2.0;
/// Another number of lists must reduce the time to this share to be worth a build.
const WORTH_IT: f64 = 0.85;
/// Recall that may be lost at a setting that stays fixed.
const RECALL_TO_LOSE: f64 = 0.01;

/// The target of the job.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub method: Method,
    /// None: to be found by a search.
    pub lists: Option<u32>,
    pub m: Option<u32>,
    pub ef_construction: Option<u32>,
    pub target: f64,
    pub exact_below: u64,
    pub sets_the_setting: bool,
    /// The value that other indexes need of the shared setting; 0: none.
    pub others_setting: u32,
    /// Longest time for one measurement's exact searches, in milliseconds.
    pub measure_ms: f64,
}

/// The parameters from the job; pgvector's own defaults otherwise, of which the second is at least twice the first.
pub fn hnsw(m: Option<u32>, ef_construction: Option<u32>) -> Spec {
    let m = m.unwrap_or(16);
    Spec::Hnsw { m, ef_construction: ef_construction.unwrap_or(64.max(2 * m)) }
}

/// The current state.
#[derive(Clone, Debug, Default)]
pub struct Today {
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
    /// Whether pgtend built it, so that its lists come from the rows of that time.
    pub is_built_by_pgtend: bool,
    /// Rows when pgtend built it, or when it compared its number of lists with others.
    pub rows_then: Option<f64>,
    /// Whether pgtend has tried other numbers of lists.
    pub tuned: bool,
    pub skew: Option<f64>,
    /// Measured at the application's setting.
    pub now: Option<Found>,
    /// Measured at the lowest setting that reaches the target, or at the highest one.
    pub least: Option<(bool, Found)>,
    /// Why it could not be measured.
    pub unmeasured: Option<String>,
    /// Whether the planner prefers an index that an interrupted run built.
    pub is_behind_a_new_one: bool,
}

impl Index {
    /// Whether pgtend neither built it nor compared it with others.
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

/// The number of lists by pgvector's rule: the search for lists starts there.
pub fn lists_by_rule(rows: f64) -> u32 {
    let lists = if rows <= 1e6 { rows / 1000.0 } else { rows.sqrt() };
    (lists.round() as u32).clamp(1, 32_768)
}

pub fn decide(wanted: &Wanted, today: &Today) -> Decision {
    let mut decision = without_its_cost(wanted, today);
    let least_ms = today.exact_ms * measure::QUERIES_AT_LEAST as f64;
    if matches!(decision.action, Action::Tune | Action::Build { .. }) && least_ms > wanted.measure_ms {
        // Hours of building would end in an index that could not be swapped in.
        decision.action = Action::GiveUp;
        let [each, least] = [today.exact_ms, least_ms * 1.5].map(|ms| units::duration(Duration::from_secs_f64(ms / 1000.0)));
        decision.reasons.push(format!(
            "not built, because its recall could not be measured: an exact search takes {each}, and {} of them are needed; set `time` of `recall` \
             above {least}",
            measure::QUERIES_AT_LEAST
        ));
    }
    decision
}

fn without_its_cost(wanted: &Wanted, today: &Today) -> Decision {
    let build = || match (wanted.method, wanted.lists) {
        (Method::Hnsw, _) => Action::Build { spec: hnsw(wanted.m, wanted.ef_construction) },
        (Method::Ivfflat, Some(lists)) => Action::Build { spec: Spec::Ivfflat { lists } },
        (Method::Ivfflat, None) => Action::Tune,
    };
    let vectors = units::plural(today.vectors as u64, "vector");
    if today.vectors < 1.0 {
        return Decision::new(Action::Nothing, "there are no vectors to index yet: an index built now would not fit later ones");
    }
    let is_small = today.vectors < wanted.exact_below as f64;
    let Some(index) = &today.index else {
        if is_small {
            let reason = format!(
                "no index is needed: {vectors}, fewer than exact_below ({}); an exact search takes {:.1} ms",
                units::count(wanted.exact_below),
                today.exact_ms
            );
            return Decision::new(Action::Nothing, reason);
        }
        let reason = format!("there is no index; an exact search of {vectors} takes {:.1} ms", today.exact_ms);
        return Decision::new(build(), reason);
    };
    if !index.is_valid {
        return Decision::new(build(), "the index is invalid: no search uses it, and every insert maintains it");
    }
    if index.method != Some(wanted.method) {
        let present = index.method.map_or("another method", Method::name);
        return Decision::new(build(), format!("the job asks for {}, and the index is {present}", wanted.method));
    }
    if index.is_behind_a_new_one {
        return Decision::new(build(), "the planner uses the index that an interrupted run built: that one is measured instead");
    }
    let rebuildable = wanted.method == Method::Ivfflat && !is_small;
    if let Some(why) = &index.unmeasured {
        return by_what_was_measured(wanted, index, why, rebuildable.then_some(&build));
    }
    if let Some(decision) = by_parameters(wanted, index, &build) {
        return decision;
    }
    let Some((reached, least)) = &index.least else {
        return Decision::new(Action::GiveUp, "its recall was not measured");
    };
    if rebuildable && let Some(skew) = index.lopsided() {
        return Decision::new(build(), lopsided_in_words(skew));
    }
    if rebuildable
        && let Some(lists) = index.lists_in_fact.filter(|lists| least.setting > lists / MANY_LISTS && index.is_unknown())
    {
        let reason = format!(
            "a search has to read {} of {lists} lists for the target, which is typical of an index that was built with few rows",
            least.setting
        );
        return Decision::new(build(), reason);
    }
    if rebuildable && let Some(rows) = index.rows_then.filter(|rows| today.vectors > rows * GROWN) {
        let then =
            if index.is_built_by_pgtend { "when it was built" } else { "when its number of lists was compared with others" };
        let reason = format!("{vectors} now, {} {then}", units::count(rows as u64));
        return Decision::new(build(), reason);
    }
    if !reached {
        let reason = format!(
            "recall is {:.3} at {} = {}, its highest, and the target is {}",
            least.recall,
            wanted.method.setting(),
            least.setting,
            wanted.target
        );
        let mut decision = Decision::new(if wanted.method == Method::Hnsw { Action::GiveUp } else { build() }, reason);
        if wanted.method == Method::Hnsw {
            decision.reasons.push("raise `m` and `ef_construction` of the job for a denser graph".to_owned());
        }
        return decision;
    }
    if rebuildable && wanted.lists.is_none() && !index.tuned {
        return Decision::new(Action::Tune, "other numbers of lists have not been measured on these vectors yet");
    }
    by_setting(wanted, index, least)
}

/// The decision from a measurement that ran out of time: a large index that was built with few rows is so slow that not everything is
/// measured.
fn by_what_was_measured(wanted: &Wanted, index: &Index, why: &str, build: Option<&dyn Fn() -> Action>) -> Decision {
    let known = match (index.lopsided(), &index.now) {
        (Some(skew), _) => Some(lopsided_in_words(skew)),
        (None, Some(now)) if now.recall + now.margin < wanted.target => {
            Some(format!("{} at {} = {}, below {}", recall_in_words(now), wanted.method.setting(), now.setting, wanted.target))
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
fn by_parameters(wanted: &Wanted, index: &Index, build: &dyn Fn() -> Action) -> Option<Decision> {
    match wanted.method {
        Method::Ivfflat => {
            let (lists, present) = (wanted.lists?, index.lists_in_fact.or(index.lists_in_catalog)?);
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
                wanted.m.is_some_and(|m| m != index.m) || wanted.ef_construction.is_some_and(|ef| ef != index.ef_construction);
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
fn by_setting(wanted: &Wanted, index: &Index, least: &Found) -> Decision {
    let name = wanted.method.setting();
    let setting = least.setting.max(wanted.others_setting);
    let Some(now) = &index.now else { return Decision::new(Action::Set { setting }, "the setting is unknown") };
    let measured = format!("recall is {:.3} ± {:.3} at {name} = {}", now.recall, now.margin, now.setting);
    if now.setting == setting {
        let why = if setting > least.setting {
            format!("{measured}; {} is enough for {}, but another index needs it", least.setting, wanted.target)
        } else {
            format!("{measured}, the least that reaches {}", wanted.target)
        };
        return Decision::new(Action::Nothing, why);
    }
    let reason = if now.recall < wanted.target {
        format!("{measured}, below {}; {} reaches it", wanted.target, least.setting)
    } else if now.setting > setting && is_cheaper(least, now) {
        format!("{measured}; {setting} is enough for {} and cheaper", wanted.target)
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

/// Decides from the candidates whether a build is worth it.
pub fn after_tuning(wanted: &Wanted, today: &Today, why: Decision, tuning: &Tuning) -> Decision {
    let mut reasons = why.reasons;
    reasons.extend(tuning.hnsw_ended.as_ref().map(|why| format!("hnsw was not compared: {why}")));
    if let Some(hnsw) = &tuning.hnsw {
        let (is_faster, reason) = against_hnsw(hnsw, tuning);
        reasons.push(reason);
        let as_hnsw = Wanted { method: Method::Hnsw, ..wanted.clone() };
        let accepted = match &hnsw.at_todays_setting {
            Some(at_todays) => accept(&as_hnsw, today, true, &hnsw.found, at_todays),
            None => Ok(()),
        };
        match accepted {
            Ok(()) if is_faster => return Decision { action: Action::Build { spec: hnsw.spec }, reasons },
            Err(reason) if is_faster => reasons.push(format!("hnsw is not built: {reason}")),
            _ => {}
        }
    }
    let Some(best) = tuning.best() else {
        reasons.push(match tuning.candidates.len() {
            0 => format!("no candidate was built and measured: {}", tuning.ended),
            _ => format!("no candidate reached {}: {}", wanted.target, tuning.ended),
        });
        let hnsw = if tuning.hnsw.is_none() { "; hnsw may reach it (method = \"auto\" or \"hnsw\")" } else { "" };
        reasons.push(format!("an exact search takes {:.1} ms and finds every neighbour{hnsw}", today.exact_ms));
        return Decision { action: Action::GiveUp, reasons };
    };
    let lists = tuning.scaled(best.lists());
    let cost = best.found.cost.map_or(String::new(), |cost| format!(" in {:.2} ms and {:.0} pages", cost.ms, cost.pages));
    reasons.push(format!(
        "of {}, {} lists are best{}: {} at probes = {}{cost}",
        units::plural(tuning.lists().len(), "number"),
        best.lists(),
        if tuning.share < 1.0 {
            format!(" of {} ({lists} of all)", units::plural(tuning.copied_rows, "row"))
        } else {
            String::new()
        },
        recall_in_words(&best.found),
        best.found.setting,
    ));
    let build = Action::Build { spec: Spec::Ivfflat { lists } };
    if let Some(at_todays) = &best.at_todays_setting
        && let Err(reason) = accept(wanted, today, true, &best.found, at_todays)
    {
        reasons.push(format!("not built: {reason}"));
        return Decision { action: Action::GiveUp, reasons };
    }
    let Some(index) = today.index.as_ref().filter(|index| index.is_valid && index.method == Some(Method::Ivfflat)) else {
        return Decision { action: build, reasons };
    };
    let is_well = index.lopsided().is_none()
        && index.rows_then.is_none_or(|rows| today.vectors <= rows * GROWN)
        && index.least.as_ref().is_some_and(|(reached, _)| *reached);
    let present = index
        .lists_in_fact
        .and_then(|present| tuning.lists().into_iter().find(|lists| tuning.scaled(*lists) == present))
        .and_then(|lists| tuning.worst(lists));
    let as_it_is = index.least.as_ref().and_then(|(_, least)| least.cost);
    // Milliseconds on the copy and on the table cannot be compared; pages can.
    let gain = match (present.and_then(|one| one.found.cost), as_it_is, best.found.cost) {
        (Some(anew), Some(as_it_is), _) if anew.pages < as_it_is.pages * WORTH_IT => {
            let (now, then) = (as_it_is.pages, anew.pages);
            Some(format!("a search reads {now:.0} pages today, and {then:.0} with the same number of lists after a rebuild"))
        }
        (Some(anew), _, Some(best)) if best.ms < anew.ms * WORTH_IT => {
            Some(format!("the present number of lists takes {:.2} ms", anew.ms))
        }
        (None, Some(as_it_is), Some(best)) if best.pages < as_it_is.pages * WORTH_IT => {
            Some(format!("a search reads {:.0} pages today", as_it_is.pages))
        }
        _ => None,
    };
    match (gain, &index.least) {
        (Some(gain), _) => reasons.push(gain),
        (None, Some((_, least))) if is_well => {
            reasons.push("the present number of lists is within 15 % of it: a build would gain too little".to_owned());
            let mut decision = by_setting(wanted, index, least);
            reasons.append(&mut decision.reasons);
            return Decision { action: decision.action, reasons };
        }
        _ => {}
    }
    Decision { action: build, reasons }
}

/// Whether hnsw is worth more than the best ivfflat, and the reason in words. Its build and its inserts take longer, so it must save as
/// much as another number of lists has to.
fn against_hnsw(hnsw: &Candidate, tuning: &Tuning) -> (bool, String) {
    let found = &hnsw.found;
    let Some(ms) = hnsw.ms() else {
        return (false, format!("hnsw has a recall of {:.3} at ef_search = {}, its highest", found.recall, found.setting));
    };
    let measured = format!("hnsw takes {ms:.2} ms at ef_search = {}, {}", found.setting, recall_in_words(found));
    match tuning.best().and_then(|best| Some((best.ms()?, best.lists()))) {
        None => (true, format!("{measured}, and no number of lists reached the target")),
        Some((of_lists, lists)) if ms < of_lists * WORTH_IT => (true, format!("{measured}; {lists} lists take {of_lists:.2} ms")),
        Some((of_lists, lists)) => {
            (false, format!("{measured}; {lists} lists take {of_lists:.2} ms, and a change has to save 15 %"))
        }
    }
}

/// The verdict on a new index that stands beside the old one. The error is the reason why the old one stays.
pub fn accept(wanted: &Wanted, today: &Today, reached: bool, new: &Found, at_the_applications: &Found) -> Result<(), String> {
    if !reached {
        let message = format!(
            "its recall is {:.3} at {} = {}, its highest, below {}",
            new.recall,
            wanted.method.setting(),
            new.setting,
            wanted.target
        );
        return Err(message);
    }
    let Some(old) = today.index.as_ref().filter(|index| index.is_valid) else { return Ok(()) };
    if old.is_behind_a_new_one && !wanted.sets_the_setting && at_the_applications.recall < wanted.target {
        return Err(format!(
            "at {} = {}, which stays fixed, its recall is {:.3}, and the old index could not be measured for comparison",
            wanted.method.setting(),
            at_the_applications.setting,
            at_the_applications.recall,
        ));
    }
    if let Some(now) = &old.now
        && !wanted.sets_the_setting
        && at_the_applications.recall < wanted.target
        && at_the_applications.recall < now.recall - RECALL_TO_LOSE - now.margin.min(at_the_applications.margin)
    {
        return Err(format!(
            "at {name} = {setting}, which stays fixed, its recall is {:.3} and the old index's {:.3}: it needs {name} = {}; \
             set apply_setting = \"database\" in the job, or set {name} in the application and in the job",
            at_the_applications.recall,
            now.recall,
            new.setting,
            name = wanted.method.setting(),
            setting = at_the_applications.setting,
        ));
    }
    Ok(())
}

pub fn recall_in_words(found: &Found) -> String {
    format!("recall {:.3} ± {:.3}", found.recall, found.margin)
}

#[cfg(test)]
mod tests;
