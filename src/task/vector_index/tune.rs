//! Finds the number of lists by building candidates on a copy and searching them: on clustered data, neither a rule for lists nor one for
//! probes is near the best (docs/benchmarks.md).
//!
//! The copy is a temporary table, so that no application's plan sees a candidate, and nothing is left when the connection ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::candidates::{Candidate, Spec, Tuning};
use super::decide::{hnsw, lists_by_rule};
use super::keys::VectorIndex;
use super::kind::Method;
use super::measure::{self, Sample, Searched};
use super::search::{Found, Searcher, Stopped};
use super::state::Table;
use super::{memory, setting};
use crate::base::progress::Phase;
use crate::base::units;
use crate::live::governor::{Go, Governor};
use crate::live::indexes::connect;
use crate::pg::{self, qualified};
use crate::work::RunContext;

/// The factor between candidates; two steps are a decade: 100, 316, 1000.
const STEP: f64 = 3.162;
/// Candidates that are nearer to each other cost the same within some percent.
const NEAR: f64 = 1.9;
/// The limit of different numbers of lists, and of builds with one of them.
const NUMBERS_AT_MOST: usize = 9;
const BUILDS_OF_ONE: usize = 3;
/// The time in builds of the index where the job sets none, but no less than the next constant.
const BUILDS: u32 = 3;
const AT_LEAST: Duration = Duration::from_secs(60);
const COPY: &str = "pg_temp.pgtend_copy";

pub struct Tuner<'a> {
    pub run: &'a RunContext<'a>,
    pub job: &'a VectorIndex,
    pub table: &'a Table,
    pub extension: &'a str,
    /// The setting of applications today.
    pub setting: u32,
    /// The present number of lists: the search starts there.
    pub lists: Option<u32>,
    /// Builds only this one, to the end, instead of searching.
    pub only: Option<Spec>,
    /// Queries on the table whose exact answers are known.
    pub sample: &'a Sample,
}

impl Tuner<'_> {
    /// Searches for the best number of lists. Between candidates it rests while other sessions are at work, and it ends the search when the
    /// server is under strain for too long.
    pub async fn tune(&self, governor: &mut Governor) -> Result<Tuning> {
        let mut connection = self.run.or_cancelled(connect(self.run)).await?;
        let pid = self.run.or_cancelled(pg::backend_pid(&mut connection)).await?;
        let result = self.run.or_cancelled(self.search(&mut connection, (pid, governor))).await;
        if result.is_err() {
            self.run.stop_if_cancelled(pid).await;
        }
        result.with_context(|| format!("searching for lists for {}", self.table.sql()))
    }

    async fn search(&self, connection: &mut PgConnection, (pid, governor): (i32, &mut Governor)) -> Result<Tuning> {
        let phase = self.run.progress.phase("tune", None);
        let given = self.job.budget.time.map(|time| time.0).filter(|_| self.only.is_none());
        let mut budget = Budget::new(given, self.job.budget.queries, self.is_compared());
        let (searched, share, rows) = self.copy(connection, given).await?;
        budget.copy = budget.started.elapsed();
        budget.share = share;
        let sample = if share >= 1.0 && self.sample.len() >= measure::ENOUGH.min(self.job.recall.queries as usize) {
            self.sample.clone()
        } else {
            let time = given.unwrap_or(AT_LEAST) / 3;
            let mut sample = measure::sample(connection, &searched, self.job.recall.queries, rows as f64).await?;
            measure::find_truth(connection, &searched, &mut sample, self.job.recall.k, time).await?;
            sample
        };
        let mut tuning = Tuning { copied_rows: rows, share, ..Tuning::default() };
        if sample.len() < measure::QUERIES_AT_LEAST && (sample.len() as u64) < rows {
            tuning.ended = "exact searches take too long for the given time".to_owned();
            return Ok(tuning);
        }
        budget.searches = sample.len() as u64;
        let mut ground = Ground { connection, searched, sample, rows, budget, pid, governor };
        self.try_lists(&mut ground, &mut tuning, &phase).await?;
        if self.is_compared() {
            self.try_hnsw(&mut ground, &mut tuning, &phase).await?;
        }
        tuning.budget_seconds = ground.budget.time().as_secs_f64();
        tuning.seconds = ground.budget.started.elapsed().as_secs_f64();
        tuning.searches = ground.budget.searches;
        phase.done(&units::plural(tuning.candidates.len() + usize::from(tuning.hnsw.is_some()), "candidate"));
        Ok(tuning)
    }

    fn is_compared(&self) -> bool {
        self.only.is_none() && self.table.operator_class_of_hnsw.is_some()
    }

    async fn try_lists(&self, ground: &mut Ground<'_>, tuning: &mut Tuning, phase: &Phase) -> Result<()> {
        let most = self.most(ground.rows);
        // The number of lists for the whole table, scaled to its copy.
        let present = self.lists.map(|lists| (f64::from(lists) * tuning.share.sqrt()).round() as u32);
        let mut next = Some(present.unwrap_or(lists_by_rule(ground.rows as f64)).clamp(1, most));
        while let Some(lists) = next.take() {
            let spec = self.only.unwrap_or(Spec::Ivfflat { lists });
            phase.say(&format!("candidate: {spec}"));
            match self.one_of_several(ground, spec, &self.table.operator_class, self.setting).await? {
                Ok(candidate) => tuning.candidates.push(candidate),
                Err(stopped) => {
                    tuning.ended = stopped.to_string();
                    break;
                }
            }
            if self.only.is_some() {
                break;
            }
            let deadline = ground.budget.deadline();
            let proposals = next_candidates(tuning, most);
            next = proposals.iter().copied().find(|lists| Instant::now() + expected_build(tuning, *lists) <= deadline);
            if next.is_none() {
                tuning.ended = match proposals.first() {
                    Some(lists) => format!(
                        "the time is used up: {lists} lists would take about {}",
                        units::duration(expected_build(tuning, *lists))
                    ),
                    None => "the best is between two worse neighbours, and stayed the best when repeated".to_owned(),
                };
            }
        }
        Ok(())
    }

    /// Tries the other method once: its builds vary little, and take long.
    async fn try_hnsw(&self, ground: &mut Ground<'_>, tuning: &mut Tuning, phase: &Phase) -> Result<()> {
        let Some(class) = &self.table.operator_class_of_hnsw else { return Ok(()) };
        let spec = hnsw(self.job.m, self.job.ef_construction);
        let memory = memory::check(self.table, spec, &self.job.memory(), &self.run.settings);
        if let Some(refusal) = memory.refusal {
            tuning.hnsw_ended = Some(refusal);
            return Ok(());
        }
        phase.say(&format!("candidate: {spec}"));
        ground.budget.is_for_both = true;
        let setting = setting::today(ground.connection, Method::Hnsw, self.job.role(), self.extension).await?;
        match self.one_of_several(ground, spec, class, setting).await? {
            Ok(candidate) => tuning.hnsw = Some(candidate),
            Err(stopped) => tuning.hnsw_ended = Some(stopped.to_string()),
        }
        Ok(())
    }

    /// The highest number of lists: each needs a row as its centre, and memory must suffice.
    fn most(&self, rows: u64) -> u32 {
        let mut most = u32::try_from(rows / 10).unwrap_or(u32::MAX).clamp(1, 32_768);
        let allowed = self.job.maintenance_work_mem.map_or(self.table.facts.maintenance_work_mem as u64, |size| size.0);
        let fits = |lists: u32| {
            let spec = Spec::Ivfflat { lists };
            memory::needed(spec, self.table.vectors(), self.table.facts.pages, self.table.value_bytes(), self.table.dimensions)
                <= allowed
        };
        let share = (rows as f64 / self.table.vectors().max(1.0)).clamp(1e-6, 1.0);
        while most > 1 && !fits((f64::from(most) / share.sqrt()) as u32) {
            most = (f64::from(most) / 1.1) as u32;
        }
        most.max(1)
    }

    async fn copy(&self, connection: &mut PgConnection, time: Option<Duration>) -> Result<(Searched, f64, u64)> {
        let vectors = self.table.vectors().max(1.0);
        let whole = vectors * self.table.value.bytes(self.table.dimensions) as f64;
        let limit = self.job.budget.sample.0 as f64;
        let wanted = (limit / whole).min(1.0);
        let sampled = if wanted < 1.0 {
            format!(" TABLESAMPLE {} ({}) REPEATABLE (3)", measure::sampled_by(self.table.facts.rows), wanted * 100.0)
        } else {
            String::new()
        };
        // temp_buffers can be set only before the first temporary table. It should hold the copy and a candidate, but no more than the
        // table itself has in memory: pages that do not fit are read again and again, and more so with few, long lists.
        let room = memory::free(&self.run.settings).map_or(u64::MAX, |free| free / 4);
        let shared: i64 =
            sqlx::query_scalar("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetch_one(&mut *connection).await?;
        let room = room.min((shared as f64 * wanted) as u64);
        let buffers_kilobytes = (((whole.min(limit) * 2.5) as u64).min(room) / 1024).clamp(8192, 1 << 30);
        pg::set(connection, "temp_buffers", &format!("{buffers_kilobytes}kB")).await?;
        self.memory_of_builds(connection).await?;
        if let Some(time) = time {
            pg::set(connection, "statement_timeout", &time.as_millis().to_string()).await?;
        }
        let from = &self.table.searched;
        let predicate = from.predicate.as_ref().map(|predicate| format!(" AND ({predicate})")).unwrap_or_default();
        let sql = format!(
            "CREATE TEMP TABLE pgtend_copy AS SELECT t.ctid AS tid, t.{column}::{column_type} AS v FROM {relation} t{sampled} WHERE t.{column} IS NOT NULL{predicate}",
            column = from.column,
            column_type = from.column_type,
            relation = from.relation,
        );
        let rows = pg::execute_counting(connection, sql).await.map_err(pg::in_its_own_words).context("a temporary copy")?;
        pg::execute(connection, format!("ANALYZE {COPY}")).await?;
        pg::set(connection, "statement_timeout", "0").await?;
        let searched = Searched {
            relation: COPY.to_owned(),
            column: "v".to_owned(),
            tid: "tid",
            key: if self.table.by_halfvec { format!("(t.v{})", from.key_cast) } else { "t.v".to_owned() },
            predicate: None,
            ..from.clone()
        };
        Ok((searched, if wanted < 1.0 { (rows as f64 / vectors).min(1.0) } else { 1.0 }, rows))
    }

    async fn memory_of_builds(&self, connection: &mut PgConnection) -> Result<()> {
        if let Some(size) = self.job.maintenance_work_mem {
            pg::set(connection, "maintenance_work_mem", &format!("{}kB", size.0 / 1024)).await?;
        }
        Ok(())
    }

    /// Builds one of several candidates, after a rest that does not count as time of the search.
    async fn one_of_several(
        &self,
        ground: &mut Ground<'_>,
        spec: Spec,
        operator_class: &str,
        setting: u32,
    ) -> Result<Result<Candidate, Stopped>> {
        let began = Instant::now();
        if let Go::Stop(reason) = ground.governor.go().await? {
            return Ok(Err(Stopped::Strain(reason)));
        }
        if let Some(last) = ground.budget.last_candidate.take() {
            tokio::time::sleep(ground.governor.rest_between(last)).await;
        }
        ground.budget.rested += began.elapsed();
        let candidate = self.candidate(ground, spec, operator_class, setting);
        let began = Instant::now();
        let candidate = candidate.await;
        ground.budget.last_candidate = Some(began.elapsed());
        candidate
    }

    /// Builds a candidate on the copy and searches it. `setting`: the value that applications use.
    async fn candidate(
        &self,
        ground: &mut Ground<'_>,
        spec: Spec,
        operator_class: &str,
        setting: u32,
    ) -> Result<Result<Candidate, Stopped>> {
        // Drops the previous candidate, whatever its result.
        pg::set(ground.connection, "statement_timeout", "0").await?;
        pg::execute(ground.connection, "DROP INDEX IF EXISTS pg_temp.pgtend_candidate".to_owned()).await?;
        let started = Instant::now();
        let left = ground.budget.deadline().saturating_duration_since(started).max(Duration::from_millis(1));
        pg::set(ground.connection, "statement_timeout", &left.as_millis().to_string()).await?;
        let key = ground.searched.key.replacen("t.v", "v", 1);
        let class = qualified(self.extension, operator_class);
        let sql =
            format!("CREATE INDEX pgtend_candidate ON {COPY} USING {} ({key} {class}) WITH ({})", spec.method(), spec.options());
        let (built, _) = ground.governor.watch(ground.pid, pg::execute_counting(ground.connection, sql)).await;
        if let Err(error) = built {
            let error = pg::in_its_own_words(error);
            if pg::sql_state(&error).as_deref() == Some("57014") && !self.run.cancel.is_cancelled() {
                return Ok(Err(Stopped::Time));
            }
            return Err(error.context(format!("a candidate, {spec}, of {}", units::plural(ground.rows, "row"))));
        }
        let build_seconds = started.elapsed().as_secs_f64();
        ground.budget.first_build.get_or_insert(started.elapsed());
        let mut searcher = Searcher {
            connection: &mut *ground.connection,
            searched: &ground.searched,
            sample: &ground.sample,
            k: self.job.recall.k,
            method: spec.method(),
            hidden: None,
            is_hiding: false,
            index: "pgtend_candidate".to_owned(),
            deadline: ground.budget.deadline(),
            searches: ground.budget.searches,
            searches_at_most: ground.budget.searches_at_most,
        };
        let measured = self.measure(&mut searcher, spec, setting).await;
        ground.budget.searches = searcher.searches;
        let (reached, found, at_todays_setting) = match measured {
            Ok(measured) => measured,
            Err(error) => return error.downcast::<Stopped>().map(Err),
        };
        let cost = found.cost.map_or(f64::NAN, |cost| cost.ms);
        tracing::info!("{spec}: recall {:.3} at {} = {}, {cost:.2} ms", found.recall, spec.method().setting(), found.setting);
        Ok(Ok(Candidate { spec, build_seconds, reached, found, at_todays_setting }))
    }

    async fn measure(&self, searcher: &mut Searcher<'_>, spec: Spec, setting: u32) -> Result<(bool, Found, Option<Found>)> {
        let start = match spec {
            Spec::Ivfflat { lists } => f64::from(lists).sqrt() as u32 / 4,
            Spec::Hnsw { .. } => setting,
        };
        let (reached, found) = searcher.least(self.job.recall.target, start.max(1), spec.most()).await?;
        let todays = setting.min(spec.most());
        let at_todays = if todays < found.setting { Some(searcher.recall(todays).await?) } else { None };
        Ok((reached, found, at_todays))
    }
}

/// The connection and the copy on which candidates are built and searched.
struct Ground<'a> {
    connection: &'a mut PgConnection,
    /// The copy.
    searched: Searched,
    sample: Sample,
    rows: u64,
    budget: Budget,
    /// The backend of the connection.
    pid: i32,
    governor: &'a mut Governor,
}

struct Budget {
    started: Instant,
    given: Option<Duration>,
    /// Whether both methods share the time: half of it is for lists and half for hnsw; without a given time, each has as much.
    is_compared: bool,
    /// Whether the second half has begun.
    is_for_both: bool,
    copy: Duration,
    share: f64,
    /// The duration of the first build on the copy.
    first_build: Option<Duration>,
    searches: u64,
    searches_at_most: u64,
    /// Time spent resting for other sessions, between candidates.
    rested: Duration,
    /// The duration of the last candidate.
    last_candidate: Option<Duration>,
}

impl Budget {
    fn new(given: Option<Duration>, searches_at_most: u64, is_compared: bool) -> Self {
        Self {
            started: Instant::now(),
            given,
            is_compared,
            is_for_both: false,
            copy: Duration::ZERO,
            share: 1.0,
            first_build: None,
            searches: 0,
            searches_at_most,
            rested: Duration::ZERO,
            last_candidate: None,
        }
    }

    /// The time that the job sets, or else the time of a few builds of the index: they read the whole table, as the copy did. It is unknown
    /// until the first build is done.
    fn time(&self) -> Duration {
        let given = self.given.map(|time| if self.is_compared { time / 2 } else { time });
        let for_lists = given.unwrap_or_else(|| match self.first_build {
            Some(build) => (build.div_f64(self.share.max(1e-6)).max(self.copy) * BUILDS).max(AT_LEAST),
            None => Duration::from_secs(24 * 3600),
        });
        if self.is_for_both { for_lists * 2 } else { for_lists }
    }

    fn deadline(&self) -> Instant {
        self.started + self.time() + self.rested
    }
}

/// Other numbers of lists, the most promising first, because it may take longer than there is time for. At the end, the best is built once
/// more. Pure.
fn next_candidates(tuning: &Tuning, most: u32) -> Vec<u32> {
    let mut next = if tuning.lists().len() < NUMBERS_AT_MOST { next_lists(tuning, most) } else { Vec::new() };
    let best = tuning.best().map(Candidate::lists);
    next.extend(best.filter(|lists| tuning.builds(*lists).count() < BUILDS_OF_ONE));
    next
}

/// Goes downhill in large steps until both neighbours of the best are worse, then between them. The cost over lists has one valley: centres
/// to compare on one side, members on the other. Pure.
fn next_lists(tuning: &Tuning, most: u32) -> Vec<u32> {
    let Some(best) = tuning.best().map(Candidate::lists) else { return Vec::new() };
    let tried = || tuning.candidates.iter().map(Candidate::lists);
    let (lower, upper) = (tried().filter(|lists| *lists < best).max(), tried().filter(|lists| *lists > best).min());
    let scaled = |lists: f64| (lists.round() as u32).clamp(1, most);
    let is_far = |one: u32, other: u32| f64::from(one.max(other)) / f64::from(one.min(other)) > NEAR;
    let between = |other: u32| {
        let lists = scaled((f64::from(best) * f64::from(other)).sqrt());
        (is_far(best, other) && lists != best && lists != other).then_some(lists)
    };
    let up = || Some(scaled(f64::from(best) * STEP)).filter(|lists| is_far(*lists, best));
    let down = || Some(scaled(f64::from(best) / STEP)).filter(|lists| is_far(*lists, best));
    let beyond = match (lower, upper) {
        (_, None) if up().is_some() => up(),
        (None, _) => down(),
        _ => None,
    };
    let inside = upper.and_then(between).into_iter().chain(lower.and_then(between));
    beyond.into_iter().chain(inside).collect()
}

/// The expected duration of a build: k-means compares every sampled row with every centre, and there are 50 rows a centre.
fn expected_build(tuning: &Tuning, lists: u32) -> Duration {
    let Some(near) = tuning.candidates.iter().min_by_key(|one| one.lists().abs_diff(lists)) else { return Duration::ZERO };
    Duration::from_secs_f64(near.build_seconds * (f64::from(lists) / f64::from(near.lists())).powf(1.7).max(0.2))
}

#[cfg(test)]
mod tests {
    use super::super::search::Cost;
    use super::*;

    /// As measured on 100,000 × 128: a valley at 316.
    fn search(start: u32, most: u32, affordable: u32, ms: impl Fn(f64) -> f64) -> (Vec<u32>, u32) {
        let mut tuning = Tuning { share: 1.0, ..Tuning::default() };
        let mut next = Some(start);
        for _ in 0..40 {
            let Some(lists) = next else { break };
            let cost = Cost { ms: ms(f64::from(lists)), pages: 1.0, is_planners_choice: true };
            let found = Found { setting: 1, recall: 0.95, margin: 0.01, queries: 100, cost: Some(cost) };
            let spec = Spec::Ivfflat { lists };
            tuning.candidates.push(Candidate { spec, build_seconds: 1.0, reached: true, found, at_todays_setting: None });
            next = next_candidates(&tuning, most).into_iter().find(|lists| *lists <= affordable);
        }
        assert!(next.is_none(), "no end: {:?}", tuning.candidates);
        let best = tuning.best().unwrap().lists();
        assert_eq!(tuning.builds(best).count(), BUILDS_OF_ONE);
        let mut tried: Vec<u32> = tuning.candidates.iter().map(Candidate::lists).collect();
        tried.dedup();
        (tried, best)
    }

    #[test]
    fn a_number_of_lists_that_was_lucky_once_does_not_win() {
        let built = |lists: u32, setting: u32, ms: f64| {
            let cost = Cost { ms, pages: ms * 1000.0, is_planners_choice: true };
            let found = Found { setting, recall: 0.96, margin: 0.01, queries: 1000, cost: Some(cost) };
            Candidate { spec: Spec::Ivfflat { lists }, build_seconds: 1.0, reached: true, found, at_todays_setting: None }
        };
        // As seen on 20,000 × 1536.
        let candidates = [(100, 3, 0.6), (316, 7, 0.65), (32, 1, 0.71), (178, 4, 0.62), (57, 1, 0.5)];
        let mut tuning = Tuning { share: 1.0, ..Tuning::default() };
        tuning.candidates = candidates.map(|(lists, setting, ms)| built(lists, setting, ms)).into();
        assert_eq!(next_candidates(&tuning, 2000), [57]);
        tuning.candidates.push(built(57, 2, 0.9));
        assert_eq!(tuning.best().unwrap().lists(), 100);
        for _ in 0..2 {
            assert_eq!(next_candidates(&tuning, 2000), [100]);
            tuning.candidates.push(built(100, 3, 0.61));
        }
        assert!(next_candidates(&tuning, 2000).is_empty(), "it was the best three times");
        // A build that misses the target rules its number out.
        tuning.candidates.push(Candidate { reached: false, ..built(100, 100, 0.6) });
        assert_ne!(tuning.best().unwrap().lists(), 100);
    }

    #[test]
    fn the_search_goes_downhill_and_ends_beside_the_valley() {
        let ms = |lists: f64| lists / 316.0 + 316.0 / lists;
        for start in [1, 20, 100, 1000, 3000] {
            let (tried, best) = search(start, 32_768, 32_768, ms);
            assert!(ms(f64::from(best)) < 2.0 * 1.1, "from {start}: {best} of {tried:?}");
            assert!(tried.len() <= 13, "{tried:?}");
        }
        assert_eq!(search(100, 120, 120, ms).1, 100);
        // Where the next step up takes too long, what lies between is still tried.
        let (tried, best) = search(100, 32_768, 1000, |lists| lists / 562.0 + 562.0 / lists);
        assert_eq!((tried.as_slice(), best), ([100, 316, 999, 562].as_slice(), 562));
        assert_eq!(search(1, 1, 1, ms), (vec![1], 1));
    }
}
