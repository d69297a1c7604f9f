//! Finds the number of lists, and how dense a graph has to be, by building candidates on a copy and searching them: on clustered data, neither
//! a rule for lists nor one for probes is near the best (docs/benchmarks.md).
//!
//! The copy is a temporary table, so that no application's plan sees a candidate, and nothing is left when the connection ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::budget::{Budget, MIN_SEARCH_TIME};
use super::candidates::{Candidate, Spec, Tuning, best_graph};
use super::decide::{graphs, lists_by_rule, wider};
use super::keys::VectorIndex;
use super::kind::Method;
use super::measure;
use super::proposals::{expected_build, next_candidates};
use super::race::{Attempt, COPY, Known, Tuner, TuningCopy};
use super::search::Stopped;
use super::target::SearchTarget;
use super::{memory, queries, setting};
use crate::base::progress::Phase;
use crate::base::units;
use crate::live::governor::{Go, Governor};
use crate::live::indexes::connect;
use crate::pg;

/// The time for graphs in builds of the first one.
const GRAPHS: u32 = 5;

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
        let sample =
            if share >= 1.0 && self.sample.is_asked && self.sample.len() >= measure::ENOUGH.min(self.job.recall.queries as usize)
            {
                self.sample.clone()
            } else {
                let time = given.unwrap_or(MIN_SEARCH_TIME) / 3;
                queries::asked(connection, self.job, self.run, &searched, rows as f64, time).await?
            };
        let mut tuning = Tuning { copied_rows: rows, share, ..Tuning::default() };
        if sample.len() < measure::MIN_QUERIES && (sample.len() as u64) < rows {
            tuning.ended = "exact searches take too long for the given time".to_owned();
            return Ok(tuning);
        }
        budget.searches = sample.len() as u64;
        let mut ground = TuningCopy { connection, searched, sample, rows, budget, pid, governor };
        if self.only.is_none() && self.class_of_hnsw().is_some() {
            self.try_graphs(&mut ground, &mut tuning, &phase).await?;
        }
        if self.only.is_some() || self.table.method == Method::Ivfflat {
            self.try_lists(&mut ground, &mut tuning, &phase).await?;
        }
        if self.is_compared() {
            tuning.in_turns = self.graph_against_lists(&mut ground, &tuning).await?;
        }
        tuning.budget_seconds = ground.budget.total().as_secs_f64();
        tuning.seconds = ground.budget.started.elapsed().as_secs_f64();
        tuning.searches = ground.budget.searches;
        phase.done(&units::plural(tuning.candidates.len() + tuning.graphs.len(), "candidate"));
        Ok(tuning)
    }

    fn is_compared(&self) -> bool {
        self.only.is_none() && self.table.operator_class_of_hnsw.is_some()
    }

    pub(super) fn class_of_hnsw(&self) -> Option<&str> {
        match self.table.method {
            Method::Hnsw => Some(&self.table.operator_class),
            Method::Ivfflat => self.table.operator_class_of_hnsw.as_deref(),
        }
    }

    async fn try_lists(&self, ground: &mut TuningCopy<'_>, tuning: &mut Tuning, phase: &Phase) -> Result<()> {
        let max_lists = self.max_lists(ground.rows);
        // The number of lists for the whole table, scaled to its copy.
        let present = self.lists.map(|lists| (f64::from(lists) * tuning.share.sqrt()).round() as u32);
        let mut next = Some(present.unwrap_or(lists_by_rule(ground.rows as f64)).clamp(1, max_lists));
        while let Some(lists) = next.take() {
            let spec = self.only.unwrap_or(Spec::Ivfflat { lists });
            phase.say(&format!("candidate: {spec}"));
            let known = Known { best_work: tuning.best().and_then(Candidate::work), recall_of_hnsw: surplus(tuning, self.job) };
            match self.one_of_several(ground, spec, &self.table.operator_class, (self.setting, known)).await? {
                Attempt::Measured(candidate) => tuning.candidates.push(*candidate),
                Attempt::Stopped(stopped) => {
                    tuning.ended = stopped.to_string();
                    break;
                }
            }
            if self.only.is_some() {
                break;
            }
            // At the end the best graph and the best lists are built once more, to be searched in turns.
            let graph = tuning.hnsw.as_ref().map_or(0.0, |hnsw| hnsw.build_seconds);
            let deadline = ground.budget.deadline().checked_sub(Duration::from_secs_f64(graph)).unwrap_or(Instant::now());
            let proposals = next_candidates(tuning, max_lists);
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

    /// Tries graphs, those that are built most quickly first, while there is time for the next.
    async fn try_graphs(&self, ground: &mut TuningCopy<'_>, tuning: &mut Tuning, phase: &Phase) -> Result<()> {
        let Some(class) = self.class_of_hnsw() else { return Ok(()) };
        let setting = setting::current(ground.connection, Method::Hnsw, self.job.role(), self.extension).await?;
        let began = Instant::now();
        let (m, ef_construction) = (self.job.m, self.job.ef_construction);
        let mut open = graphs(m, ef_construction);
        let mut has_widened = false;
        open.reverse();
        while let Some(spec) = open.pop() {
            let memory = memory::check(self.table, spec, &self.job.memory(), &self.run.settings);
            if let Some(refusal) = memory.refusal {
                tuning.hnsw_ended = Some(refusal);
                break;
            }
            if let Some(first) = tuning.graphs.first().map(|first| Duration::from_secs_f64(first.build_seconds))
                && began.elapsed() + first * 2 > (first * GRAPHS).max(MIN_SEARCH_TIME / 2)
            {
                break;
            }
            phase.say(&format!("candidate: {spec}"));
            let known = Known { best_work: best_graph(&tuning.graphs).and_then(Candidate::work), recall_of_hnsw: None };
            match self.one_of_several(ground, spec, class, (setting, known)).await? {
                Attempt::Measured(candidate) => tuning.graphs.push(*candidate),
                Attempt::Stopped(stopped) => {
                    tuning.hnsw_ended = Some(stopped.to_string());
                    break;
                }
            }
            if open.is_empty() && !has_widened {
                has_widened = true;
                let min_setting = Method::Hnsw.min_setting(self.job.recall.k);
                open = best_graph(&tuning.graphs).map(|best| wider(best, m, ef_construction, min_setting)).unwrap_or_default();
                open.reverse();
            }
        }
        tuning.hnsw = best_graph(&tuning.graphs).cloned();
        if tuning.hnsw.is_some() {
            tuning.hnsw_ended = None;
        }
        ground.budget.graphs = began.elapsed();
        Ok(())
    }

    /// Returns the highest number of lists: each needs a row as its centre, and memory must suffice.
    fn max_lists(&self, rows: u64) -> u32 {
        let mut max_lists = u32::try_from(rows / 10).unwrap_or(u32::MAX).clamp(1, 32_768);
        let allowed = self.job.maintenance_work_mem.map_or(self.table.facts.maintenance_work_mem as u64, |size| size.0);
        let fits = |lists: u32| {
            let spec = Spec::Ivfflat { lists };
            memory::needed(spec, self.table.vectors(), self.table.facts.pages, self.table.value_bytes(), self.table.dimensions)
                <= allowed
        };
        let share = (rows as f64 / self.table.vectors().max(1.0)).clamp(1e-6, 1.0);
        while max_lists > 1 && !fits((f64::from(max_lists) / share.sqrt()) as u32) {
            max_lists = (f64::from(max_lists) / 1.1) as u32;
        }
        max_lists.max(1)
    }

    async fn copy(&self, connection: &mut PgConnection, time: Option<Duration>) -> Result<(SearchTarget, f64, u64)> {
        let vectors = self.table.vectors().max(1.0);
        let whole = vectors * self.table.value.bytes(self.table.dimensions) as f64;
        let limit = self.job.budget.sample.0 as f64;
        let share = (limit / whole).min(1.0);
        let sampled = if share < 1.0 {
            format!(" TABLESAMPLE {} ({}) REPEATABLE (3)", measure::sampled_by(self.table.facts.rows), share * 100.0)
        } else {
            String::new()
        };
        // temp_buffers can be set only before the first temporary table. It should hold the copy and a candidate, but no more than the
        // table itself has in memory: pages that do not fit are read again and again, and more so with few, long lists.
        let room = memory::free(&self.run.settings).map_or(u64::MAX, |free| free / 4);
        let shared: i64 =
            sqlx::query_scalar("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetch_one(&mut *connection).await?;
        let room = room.min((shared as f64 * share) as u64);
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
        pg::execute(connection, from.proof.clone()).await?;
        let rows = pg::execute_counting(connection, sql).await.map_err(pg::in_its_own_words).context("a temporary copy")?;
        pg::execute(connection, format!("ANALYZE {COPY}")).await?;
        pg::set(connection, "statement_timeout", "0").await?;
        // The copy has the dimensions of the index already.
        let searched = from.copied(COPY, self.table.by_halfvec || self.table.by_bits);
        Ok((searched, if share < 1.0 { (rows as f64 / vectors).min(1.0) } else { 1.0 }, rows))
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
        ground: &mut TuningCopy<'_>,
        spec: Spec,
        operator_class: &str,
        at: (u32, Known),
    ) -> Result<Attempt> {
        let began = Instant::now();
        if let Go::Stop(reason) = ground.governor.go().await? {
            return Ok(Attempt::Stopped(Stopped::Strain(reason)));
        }
        if let Some(last) = ground.budget.last_candidate.take() {
            tokio::time::sleep(ground.governor.rest_between(last)).await;
        }
        ground.budget.rested += began.elapsed();
        let candidate = self.candidate(ground, spec, operator_class, at);
        let began = Instant::now();
        let candidate = candidate.await;
        ground.budget.last_candidate = Some(began.elapsed());
        candidate
    }
}

/// Returns what hnsw finds at its lowest setting, if that is more than the target: lists are compared with it at that recall.
fn surplus(tuning: &Tuning, job: &VectorIndex) -> Option<f64> {
    let hnsw = tuning.hnsw.as_ref().filter(|hnsw| hnsw.reached)?;
    let is_lowest = hnsw.found.setting <= Method::Hnsw.min_setting(job.recall.k);
    (is_lowest && hnsw.found.lower > job.recall.target).then_some(hnsw.found.lower)
}
