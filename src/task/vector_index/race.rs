//! Builds a candidate on the copy and searches it, with a few queries first.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::PgConnection;

use super::budget::Budget;
use super::candidates::{Candidate, Spec, Tuning};
use super::curve::Curve;
use super::decide::{self, Current};
use super::effort::Effort;
use super::keys::VectorIndex;
use super::measure::Sample;
use super::pairs::{self, ByIndex, Pairs, Rival, Side};
use super::plan::Part;
use super::search::{Searcher, Stopped};
use super::state::Table;
use super::target::SearchTarget;
use crate::base::units;
use crate::live::governor::Governor;
use crate::pg::{self, qualified};
use crate::work::RunContext;

/// The queries of the first look at a candidate, and how many times as much as the best one it must not read.
const FEW: usize = 100;
const HOPELESS: f64 = 1.6;
/// The time for searches by a candidate and by what is there in turns.
const TIME_FOR_PAIRS: Duration = Duration::from_millis(300);

pub const COPY: &str = "pg_temp.pgtend_copy";
const CANDIDATE: &str = "pgtend_candidate";
/// The best graph, beside the best lists.
const GRAPH: &str = "pgtend_graph";

pub struct Tuner<'a> {
    pub run: &'a RunContext<'a>,
    pub job: &'a VectorIndex,
    pub table: &'a Table,
    /// What is there, which candidates are compared with.
    pub current: &'a Current,
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

impl<'a> Tuner<'a> {
    /// Without a number of lists to start from.
    pub fn of(run: &'a RunContext<'a>, job: &'a VectorIndex, part: &'a Part, extension: &'a str) -> Self {
        let Part { table, current, setting, sample, .. } = part;
        Self { run, job, table, current, extension, setting: *setting, lists: None, only: None, sample }
    }
}

/// The connection and the copy on which candidates are built and searched.
pub struct TuningCopy<'a> {
    pub connection: &'a mut PgConnection,
    /// The copy.
    pub searched: SearchTarget,
    pub sample: Sample,
    pub rows: u64,
    pub budget: Budget,
    /// The backend of the connection.
    pub pid: i32,
    pub governor: &'a mut Governor,
}

/// What was measured before a candidate.
#[derive(Clone, Copy)]
pub struct Known {
    /// What a search by the best one of the same method reads: [`Candidate::work`].
    pub best_work: Option<f64>,
    /// The recall of hnsw at its lowest setting, where that is above the target.
    pub recall_of_hnsw: Option<f64>,
}

/// The end of an attempt to build a candidate and search it.
pub enum Attempt {
    Measured(Box<Candidate>),
    /// The time or the number of searches was used up, or the machine is under strain.
    Stopped(Stopped),
}

impl Tuner<'_> {
    /// Builds a candidate on the copy and searches it. `setting`: the value that applications use.
    pub async fn candidate(
        &self,
        ground: &mut TuningCopy<'_>,
        spec: Spec,
        operator_class: &str,
        (setting, known): (u32, Known),
    ) -> Result<Attempt> {
        let started = Instant::now();
        if !self.build(ground, CANDIDATE, spec, operator_class).await? {
            return Ok(Attempt::Stopped(Stopped::Time));
        }
        let build_seconds = started.elapsed().as_secs_f64();
        if spec.method() == self.table.method {
            ground.budget.first_build.get_or_insert(started.elapsed());
        }
        let mut few = ground.sample.clone();
        few.truncate(FEW);
        let mut searcher = Searcher {
            connection: &mut *ground.connection,
            searched: &ground.searched,
            sample: &few,
            k: self.job.recall.k,
            method: spec.method(),
            hidden: None,
            is_hiding: false,
            index: CANDIDATE.to_owned(),
            deadline: ground.budget.deadline(),
            effort: Effort::of(&ground.searched, ground.rows as f64),
            spec,
            searches: ground.budget.searches,
            max_searches: ground.budget.max_searches,
            curve: Curve::default(),
        };
        let measured = self.race(&mut searcher, &ground.sample, spec, setting, known).await;
        ground.budget.searches = searcher.searches;
        let mut candidate = match measured {
            Ok(measured) => measured,
            Err(error) => return error.downcast::<Stopped>().map(Attempt::Stopped),
        };
        candidate.build_seconds = build_seconds;
        if candidate.reached && ground.budget.share >= 1.0 {
            candidate.pairs = self.pairs(ground, &candidate).await?;
        }
        let (found, setting) = (&candidate.found, spec.method().setting());
        let cost = found.cost.map_or(f64::NAN, |cost| cost.ms);
        tracing::info!("{spec}: recall {:.3} at {setting} = {}, {cost:.2} ms", found.recall, found.setting);
        Ok(Attempt::Measured(Box::new(candidate)))
    }

    /// Builds an index on the copy in the place of the one of that name. False: the time is over.
    async fn build(&self, ground: &mut TuningCopy<'_>, name: &str, spec: Spec, operator_class: &str) -> Result<bool> {
        pg::set(ground.connection, "statement_timeout", "0").await?;
        pg::execute(ground.connection, format!("DROP INDEX IF EXISTS pg_temp.{name}")).await?;
        let left = ground.budget.deadline().saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        pg::set(ground.connection, "statement_timeout", &left.as_millis().to_string()).await?;
        let key = ground.searched.key("");
        let class = qualified(self.extension, operator_class);
        let sql = format!("CREATE INDEX {name} ON {COPY} USING {} ({key} {class}) WITH ({})", spec.method(), spec.options());
        pg::execute(ground.connection, ground.searched.proof.clone()).await?;
        let (built, _) = ground.governor.watch(ground.pid, pg::execute_counting(ground.connection, sql)).await;
        let Err(error) = built else { return Ok(true) };
        let error = pg::in_its_own_words(error);
        if pg::sql_state(&error).as_deref() == Some("57014") && !self.run.cancel.is_cancelled() {
            return Ok(false);
        }
        Err(error.context(format!("a candidate, {spec}, of {}", units::plural(ground.rows, "row"))))
    }

    /// Searches by the best graph and by the best lists in turns, at as much recall: no pages compare two methods. Both are built once more for it. None:
    /// one of them misses the target, or the time is over.
    pub async fn graph_against_lists(&self, ground: &mut TuningCopy<'_>, tuning: &Tuning) -> Result<Option<Pairs>> {
        let hnsw = tuning.hnsw.as_ref().filter(|hnsw| hnsw.reached);
        let (Some(hnsw), Some(lists), Some(class)) = (hnsw, tuning.best(), self.class_of_hnsw()) else { return Ok(None) };
        let setting = match &lists.at_recall_of_hnsw {
            Some((false, _)) => return Ok(None),
            Some((true, as_much)) => as_much.setting,
            None => lists.found.setting,
        };
        if !self.build(ground, CANDIDATE, lists.spec, &self.table.operator_class).await?
            || !self.build(ground, GRAPH, hnsw.spec, class).await?
        {
            return Ok(None);
        }
        let by = |name: &str, candidate: &Candidate, setting: u32| ByIndex {
            name: name.to_owned(),
            method: candidate.spec.method(),
            setting,
            hidden: None,
        };
        let (graph, lists) = (by(GRAPH, hnsw, hnsw.found.setting), by(CANDIDATE, lists, setting));
        let side = |index| Side { searched: &ground.searched, index: Some(index) };
        let time = (TIME_FOR_PAIRS, ground.budget.deadline());
        let pairs =
            pairs::measure(ground.connection, &ground.sample, self.job.recall.k, (side(&graph), side(&lists)), time).await?;
        pg::execute(ground.connection, format!("DROP INDEX pg_temp.{GRAPH}")).await?;
        Ok(pairs)
    }

    /// Searches by the candidate and by what is there in turns.
    async fn pairs(&self, ground: &mut TuningCopy<'_>, candidate: &Candidate) -> Result<Option<Pairs>> {
        let method = candidate.spec.method();
        let Some(rival) = decide::rival(self.current, &self.table.index_name, method) else { return Ok(None) };
        let index = ByIndex { name: CANDIDATE.to_owned(), method, setting: candidate.found.setting, hidden: None };
        let new = Side { searched: &ground.searched, index: Some(&index) };
        let present = match &rival {
            Rival::Exact => None,
            Rival::Index(index) => Some(index),
        };
        let present = Side { searched: &self.table.searched, index: present };
        let time = (TIME_FOR_PAIRS, ground.budget.deadline());
        pairs::measure(ground.connection, &ground.sample, self.job.recall.k, (new, present), time).await
    }

    /// Measures a candidate with a few queries first: one that reads far more than the best so far is not worth more.
    async fn race<'s>(
        &self,
        searcher: &mut Searcher<'s>,
        all: &'s Sample,
        spec: Spec,
        setting: u32,
        known: Known,
    ) -> Result<Candidate> {
        if let Some(best_work) = known.best_work {
            let candidate = self.measure(searcher, spec, setting).await?;
            if candidate.work().is_none_or(|work| work > best_work * HOPELESS) && all.len() > FEW {
                return Ok(candidate);
            }
        }
        searcher.sample = all;
        let mut candidate = self.measure(searcher, spec, setting).await?;
        if let Some(recall) = known.recall_of_hnsw.filter(|_| candidate.reached) {
            candidate.at_recall_of_hnsw = Some(searcher.least(recall, candidate.found.setting, spec.max_setting()).await?);
        }
        Ok(candidate)
    }

    async fn measure(&self, searcher: &mut Searcher<'_>, spec: Spec, setting: u32) -> Result<Candidate> {
        let start = match spec {
            Spec::Ivfflat { lists } => f64::from(lists).sqrt() as u32 / 4,
            Spec::Hnsw { .. } => setting,
        };
        let (reached, found) = searcher.least(self.job.recall.target, start.max(1), spec.max_setting()).await?;
        let todays = setting.min(spec.max_setting());
        let at_todays_setting = if todays < found.setting { Some(searcher.recall(todays).await?) } else { None };
        Ok(Candidate { spec, build_seconds: 0.0, reached, found, at_todays_setting, at_recall_of_hnsw: None, pairs: None })
    }
}
