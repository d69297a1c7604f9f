//! Builds the new index beside the old one, or in place for a partition's index, and measures it.

use std::time::Instant;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::Worker;
use crate::base::fault::Kind;
use crate::base::progress::Phase;
use crate::ledger::report::Failure;
use crate::live::concurrently::{self, Ended};
use crate::live::indexes::{self, names};
use crate::live::session::{Attempt, Session};
use crate::pg::{self, failure, identifier, literal, qualified};
use crate::task::vector_index::built::Declined;
use crate::task::vector_index::candidates::Spec;
use crate::task::vector_index::decide::{self, Refusal, recall_in_words};
use crate::task::vector_index::found::Found;
use crate::task::vector_index::kind::Method;
use crate::task::vector_index::measure::Sample;
use crate::task::vector_index::memory::Memory;
use crate::task::vector_index::search::{Searcher, Stopped};
use crate::task::vector_index::tune::Tuner;
use crate::task::vector_index::{memory, queries, state};

/// The measurement of a new index.
pub(super) struct Measured {
    /// True if the target is reached.
    pub(super) reached: bool,
    /// At the lowest setting that reaches the target, or at the highest one.
    pub(super) found: Found,
    pub(super) at_todays_setting: Found,
}

/// The end of an attempt to measure a new index.
pub(super) enum Measurement {
    Done(Measured),
    /// It cannot be measured, for this reason.
    Impossible(String),
}

/// The end of a step before a build.
enum Step<T> {
    Done(T),
    /// Nothing is built in this run.
    Failed(Failure),
}

impl Worker<'_> {
    pub(super) async fn build(&mut self, spec: Option<Spec>, is_built: bool) -> Result<Option<Failure>> {
        let in_place = self.part.table.index.as_ref().filter(|index| index.is_attached).cloned();
        if let Some(spec) = spec.filter(|_| !is_built)
            && let Step::Failed(failure) = self.make(spec, in_place.as_ref()).await?
        {
            return Ok(Some(failure));
        }
        let name = in_place.as_ref().map_or_else(|| self.part.table.new_name(), |index| index.name.clone());
        let measured = self.run.or_cancelled(self.measure_new(&name, in_place.is_none())).await;
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) if error.downcast_ref::<Stopped>().is_some() => {
                Measurement::Impossible(format!("it cannot be measured: {error}"))
            }
            Err(error) => return Err(error),
        };
        let verdict = match measured {
            Measurement::Impossible(reason) => Err(Refusal { reason, is_worse: false }),
            Measurement::Done(Measured { reached, found, at_todays_setting }) => {
                let verdict = decide::accept(&self.part.request, &self.part.current, reached, &found, &at_todays_setting);
                self.report_values.after = Some(found.clone());
                self.report_values.after_at_todays_setting = Some(at_todays_setting);
                verdict.map(|()| found)
            }
        };
        match (verdict, in_place) {
            (Ok(found), None) => self.swap(found).await,
            (Ok(found), Some(index)) => {
                self.comment(&index.schema, &index.name, index.comment.as_deref(), &found, true).await?;
                self.finish(found).await
            }
            (Err(refusal), None) => self.decline(refusal).await,
            (Err(Refusal { reason, .. }), Some(_)) => {
                Ok(Some((None, format!("rebuilt in place, because it is the index of a partition: {reason}"))))
            }
        }
    }

    /// Drops the new index. Where what is there is better, nothing is wrong: the index's comment keeps it in mind, so that the next run does not
    /// build it again.
    async fn decline(&mut self, Refusal { reason, is_worse }: Refusal) -> Result<Option<Failure>> {
        let new = self.part.table.new_name();
        let schema = self.part.table.facts.schema.clone();
        let spec = self.report_values.built.or(self.found);
        let left = self.drop_index(&schema, &new).await?;
        let left = left.map(|who| format!("; it could not be dropped ({who}), the next run will")).unwrap_or_default();
        let index = self.part.table.index.clone().filter(|index| index.is_valid);
        let serves = if index.is_some() { ", and the old index stays in use" } else { "" };
        let message = format!("the new index was built and dropped again{serves}: {reason}{left}");
        if !is_worse {
            return Ok(Some((None, message)));
        }
        self.report_values.warnings.push(message.clone());
        let least = self.part.current.index.as_ref().and_then(|index| index.least.clone());
        let (Some(index), Some((true, least)), Some(spec)) = (index, least, spec) else {
            self.report_values.summary = message;
            return Ok(None);
        };
        self.report_values.declined = Some(Declined { spec, rows: self.part.table.vectors() as u64 });
        self.comment(&index.schema, &index.name, index.comment.as_deref(), &least, false).await?;
        self.keep_present().await?;
        let Some(current) = &self.part.current.index else { return Ok(None) };
        let mut decision = decide::by_setting(&self.part.request, current, &least);
        decision.reasons.insert(0, message);
        let reasons = decision.reasons.join("; ");
        let sets = matches!(decision.action, decide::Action::Set { .. });
        self.report_values.decision = Some(decision);
        if sets {
            return self.set(&reasons).await;
        }
        (self.report_values.after, self.report_values.after_at_todays_setting) = (Some(least), None);
        self.report_values.summary = format!("nothing changed: {reasons}");
        Ok(None)
    }

    /// Makes the index beside the old one, or rebuilds `in_place`.
    async fn make(&mut self, spec: Spec, in_place: Option<&state::Found>) -> Result<Step<()>> {
        let mut memory = memory::check(&self.part.table, spec, &self.job.memory(), &self.run.settings);
        self.report_values.warnings.extend(memory.notes.iter().filter(|note| !note.contains("unknown")).cloned());
        if let Some(refusal) = memory.refusal {
            return Ok(Step::Failed((Some(Kind::Configuration), refusal)));
        }
        if let Some(who) = self.wait_for_prepared().await? {
            let message = format!("nothing was built, because the build would wait for {who}");
            return Ok(Step::Failed((Some(Kind::Deferred), message)));
        }
        let statement = match in_place {
            Some(index) => match self.alter_in_place(index, spec).await? {
                Step::Done(statement) => statement,
                Step::Failed(failure) => return Ok(Step::Failed(failure)),
            },
            None => self.create(spec),
        };
        let expected_bytes = self.part.table.index_bytes();
        let phase = self.run.progress.phase("build", Some(expected_bytes));
        // The build itself runs as the table's owner, but the index that it makes is searched as the login.
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        pg::execute(&mut connection, state::proof(self.extension)).await?;
        drop(connection);
        let mut ended = self.run_build(&statement, &memory, &phase, expected_bytes).await;
        if memory.parallel_workers > 0 && ended.as_ref().is_err_and(memory::is_short_of_shared_memory) {
            // As in a container, whose /dev/shm has 64 MiB unless it is told otherwise.
            self.clean_up().await;
            memory.parallel_workers = 0;
            self.report_values.warnings.push(
                "the server's /dev/shm has no room for a parallel build (maintenance_work_mem is allocated there at once): the index was built by one process"
                    .to_owned(),
            );
            ended = self.run_build(&statement, &memory, &phase, expected_bytes).await;
        }
        match ended {
            Ok(Ended::Done) => phase.done(&spec.to_string()),
            Ok(Ended::Blocked(who)) => {
                self.clean_up().await;
                let message = format!("the build was given up, and the previous state is unchanged: {who}");
                return Ok(Step::Failed((Some(Kind::Deferred), message)));
            }
            Err(error) => {
                if failure::kind_of(&error) != Some(Kind::Cancelled) {
                    self.clean_up().await;
                }
                return Err(error);
            }
        }
        self.report_values.built = Some(spec);
        Ok(Step::Done(()))
    }

    async fn run_build(&self, statement: &str, memory: &Memory, phase: &Phase, expected_bytes: u64) -> Result<Ended> {
        let settings = vec![
            ("maintenance_work_mem", format!("{}kB", memory.maintenance_work_mem_bytes / 1024)),
            ("max_parallel_maintenance_workers", memory.parallel_workers.to_string()),
        ];
        let is_ours = self.remains();
        let leaves = concurrently::InvalidIndexes { table: self.part.table.facts.oid, is_ours: &is_ours };
        let work = concurrently::Work { statement: statement.to_owned(), settings, phase, expected_bytes, leaves };
        concurrently::run(self.run, self.limits, work).await
    }

    fn create(&self, spec: Spec) -> String {
        let table = &self.part.table;
        let key = table.searched.key.replacen("t.", "", 1);
        let space = table.index.as_ref().and_then(|index| index.tablespace.as_ref());
        let space = space.map(|space| format!(" TABLESPACE {}", identifier(space))).unwrap_or_default();
        let predicate = table.searched.predicate.as_ref().map(|predicate| format!(" WHERE {predicate}")).unwrap_or_default();
        format!(
            "CREATE INDEX CONCURRENTLY {} ON {} USING {} ({key} {}) WITH ({}){space}{predicate}",
            identifier(&table.new_name()),
            table.sql(),
            spec.method(),
            qualified(self.extension, &table.operator_class),
            spec.options(),
        )
    }

    /// Sets the parameters of the index, and returns the statement that rebuilds it in place: an index that belongs to one of the
    /// partitioned table can neither be dropped nor replaced by attaching another.
    async fn alter_in_place(&self, index: &state::Found, spec: Spec) -> Result<Step<String>> {
        if index.method != spec.method().name() {
            let message = format!(
                "{} belongs to the index of the partitioned table and cannot become {}: recreate that index manually",
                index.name,
                spec.method()
            );
            return Ok(Step::Failed((Some(Kind::Configuration), message)));
        }
        // A new session: once a session has loaded pgvector, ALTER INDEX … SET asks for ACCESS EXCLUSIVE.
        let mut session =
            self.run.or_cancelled(Session::open(self.run, self.limits.lock_timeout.0, self.limits.max_wait.0)).await?;
        let alter = format!("ALTER INDEX {} SET ({})", index.sql(), spec.options());
        // If the run is interrupted after this, the next run knows the parameters that the index was built with.
        let known = self.part.current.index.as_ref().and_then(|current| current.now.clone()).map(|now| {
            let comment = self.built(&now, false).beside(index.comment.as_deref());
            format!("COMMENT ON INDEX {} IS {}", index.sql(), literal(&comment))
        });
        let statements: Vec<String> = [Some(alter), known].into_iter().flatten().collect();
        match self.run.or_cancelled(session.transaction(&statements, &[self.part.table.facts.oid, index.oid])).await? {
            Attempt::Done(_) => Ok(Step::Done(format!("REINDEX INDEX CONCURRENTLY {}", index.sql()))),
            Attempt::Locked(who) => Ok(Step::Failed((Some(Kind::Deferred), who))),
        }
    }

    /// Names of the indexes that an interrupted build leaves.
    fn remains(&self) -> impl Fn(&str) -> bool + Send + Sync + 'static {
        let in_place = self.part.table.index.as_ref().filter(|index| index.is_attached).map(|index| index.name.clone());
        let new = self.part.table.new_name();
        move |name| match &in_place {
            Some(index) => names::base_of_reindex(name).is_some_and(|base| names::is_cut(base, index)),
            None => name == new,
        }
    }

    /// Cleans up after a build that did not finish.
    pub(super) async fn clean_up(&mut self) {
        let is_ours = self.remains();
        let leaves = concurrently::InvalidIndexes { table: self.part.table.facts.oid, is_ours: &is_ours };
        match concurrently::sweep(&self.run.settings, &leaves).await {
            Ok(dropped) => self.report_values.dropped.extend(dropped),
            Err(error) => tracing::warn!(
                "the leftover of the build could not be dropped, the next run will: {}",
                failure::in_a_line(&error)
            ),
        }
    }

    /// Measures the new index on a connection that cannot see the old one: whether the target is reached, at the lowest setting, at today's
    /// setting.
    pub(super) async fn measure_new(&mut self, name: &str, is_beside: bool) -> Result<Measurement> {
        let mut connection = indexes::connect(self.run).await?;
        let phase = self.run.progress.phase("measure", None);
        phase.say("searches of the new index");
        let table = &self.part.table;
        self.new = sqlx::query_scalar(
            "SELECT i.indexrelid::bigint FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = $1::bigint::oid AND x.relname = $2 AND i.indisvalid",
        )
        .bind(table.facts.oid)
        .bind(name)
        .fetch_optional(&mut connection)
        .await?;
        self.is_by_pgvector(&mut connection).await?;
        let time = self.job.recall.time.0;
        let sample = queries::asked(&mut connection, self.job, self.run, &table.searched, table.vectors(), time * 2 / 3).await?;
        if sample.exact_ms > 0.0 {
            // On a busy machine both take longer, and both are compared.
            self.part.current.as_busy_as(sample.exact_ms);
        }
        // Without an index nothing was asked before.
        self.part.sample.source = sample.source.clone();
        self.part.sample.is_asked = true;
        if !sample.is_enough() {
            return Ok(Measurement::Impossible(format!(
                "it cannot be measured: only {} exact searches finished in {}",
                sample.len(),
                self.job.recall.time
            )));
        }
        // The whole time is granted again: a build is not thrown away because the exact searches were slow.
        let deadline = Instant::now() + time;
        let old = table.index.as_ref().filter(|index| is_beside && index.is_valid).map(|index| index.oid);
        let first = self.search_new(&mut connection, name, None, &sample, deadline).await;
        let measured = match (first, old) {
            (Err(error), Some(old)) if matches!(error.downcast_ref(), Some(Stopped::OtherPlan(_))) => {
                if !self.part.table.facts.is_superuser {
                    return self.measure_on_a_copy().await;
                }
                self.search_new(&mut connection, name, Some(old), &sample, Instant::now() + time).await?
            }
            (measured, _) => measured?,
        };
        phase.done(&recall_in_words(&measured.found));
        Ok(Measurement::Done(measured))
    }

    /// Refuses an index by an operator class that is not pgvector's: its functions would run as the login that searches.
    async fn is_by_pgvector(&self, connection: &mut PgConnection) -> Result<()> {
        let is_foreign: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = $1::bigint::oid AND NOT EXISTS (
                 SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.classid = 'pg_opclass'::regclass AND d.objid = i.indclass[0]
                    AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'vector'))",
        )
        .bind(self.new)
        .fetch_one(connection)
        .await?;
        anyhow::ensure!(!is_foreign, "the operator class of the new index of {} is not pgvector's", self.part.table.sql());
        Ok(())
    }

    async fn search_new(
        &self,
        connection: &mut PgConnection,
        name: &str,
        hidden: Option<i64>,
        sample: &Sample,
        deadline: Instant,
    ) -> Result<Measured> {
        let method = self.part.request.method;
        let mut searcher = Searcher {
            connection,
            searched: &self.part.table.searched,
            sample,
            k: self.job.recall.k,
            method,
            hidden,
            is_hiding: false,
            index: name.to_owned(),
            deadline,
            searches: 0,
            max_searches: u64::MAX,
        };
        let max_setting = match (method, self.report_values.built.or(self.found)) {
            (_, Some(spec)) => spec.max_setting(),
            (Method::Ivfflat, None) => searcher.lists().await?.unwrap_or(32_768),
            (Method::Hnsw, None) => 1000,
        };
        let at_todays_setting = searcher.recall(self.part.setting.min(max_setting)).await?;
        let candidate = self.report_values.tuning.as_ref().and_then(|tuning| match method {
            Method::Ivfflat => tuning.best(),
            Method::Hnsw => tuning.hnsw.as_ref(),
        });
        let tuned = candidate.map(|candidate| candidate.found.setting);
        let start = tuned.unwrap_or(self.part.setting);
        let (reached, found) = searcher.least(self.job.recall.target, start, max_setting).await?;
        searcher.show().await?;
        Ok(Measured { reached, found, at_todays_setting })
    }

    /// Measures the same build on a copy of all vectors, where the planner prefers the old index (it has more lists) and the role may not
    /// hide it.
    async fn measure_on_a_copy(&mut self) -> Result<Measurement> {
        let spec = self.report_values.built.or(self.found).context("an index was built, or found")?;
        let known = self.report_values.tuning.as_ref().filter(|tuning| tuning.share >= 1.0);
        let known = known.and_then(|tuning| match spec {
            Spec::Ivfflat { lists } => tuning.worst(lists).cloned(),
            Spec::Hnsw { .. } => tuning.hnsw.clone(),
        });
        let candidate = match known {
            Some(candidate) => candidate,
            None => {
                let tuner = Tuner {
                    run: self.run,
                    job: self.job,
                    table: &self.part.table,
                    extension: self.extension,
                    setting: self.part.setting,
                    lists: if let Spec::Ivfflat { lists } = spec { Some(lists) } else { None },
                    only: Some(spec),
                    sample: &self.part.sample,
                };
                let tuning = tuner.tune(self.governor).await?;
                match tuning.candidates.into_iter().next() {
                    Some(candidate) if tuning.share >= 1.0 => candidate,
                    _ => {
                        let message = "the planner prefers the old index, and the table is too large to measure a copy of it: run the job as a superuser, or raise `sample` of `budget`";
                        return Ok(Measurement::Impossible(message.to_owned()));
                    }
                }
            }
        };
        self.report_values.is_proved_on_a_copy = true;
        self.report_values.warnings.push(
            "the planner preferred the old index, which only a superuser can hide: the same build was measured on a copy of all vectors, and the new index itself is measured once the old one is gone".to_owned(),
        );
        // None: the setting is higher than needed.
        let at_todays_setting = candidate.at_todays_setting.unwrap_or_else(|| candidate.found.clone());
        Ok(Measurement::Done(Measured { reached: candidate.reached, found: candidate.found, at_todays_setting }))
    }
}
