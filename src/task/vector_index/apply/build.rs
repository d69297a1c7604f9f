//! Builds the new index beside the old one, or in place for a partition's index, and keeps or drops it as its measurement says.

use anyhow::Result;

use super::Worker;
use super::measured::{Measured, Measurement};
use crate::base::fault::Kind;
use crate::base::progress::Phase;
use crate::ledger::report::Failure;
use crate::live::concurrently::{self, Ended};
use crate::live::indexes::{self, names};
use crate::live::session::{Attempt, Session};
use crate::pg::{self, failure, identifier, literal, qualified};
use crate::task::vector_index::built::Declined;
use crate::task::vector_index::candidates::Spec;
use crate::task::vector_index::decide::{self, Refusal};
use crate::task::vector_index::memory::{self, Memory};
use crate::task::vector_index::search::Stopped;
use crate::task::vector_index::state;

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
            Measurement::Done(Measured { reached, found, at_todays_setting, pairs, curve }) => {
                let verdict = decide::accept(&self.part.request, &self.part.current, reached, &found, &at_todays_setting, pairs);
                (self.report_values.pairs, self.report_values.curve) = (pairs, curve);
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
    pub(super) async fn decline(&mut self, Refusal { reason, is_worse }: Refusal) -> Result<Option<Failure>> {
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
                let left = self.left_behind().await?.map_or_else(String::new, |name| {
                    format!(
                        "; {name}, which is invalid and which no search uses, is left and is dropped by the next run that can"
                    )
                });
                let message = format!("the build was given up, and what searches use is unchanged{left}: {who}");
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

    /// Returns the index that a build left and that could not be dropped.
    async fn left_behind(&self) -> Result<Option<String>> {
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let found = sqlx::query_scalar(
            "SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             WHERE i.indrelid = $1::bigint::oid AND x.relname = $2 AND NOT i.indisvalid",
        )
        .bind(self.part.table.facts.oid)
        .bind(self.part.table.new_name())
        .fetch_optional(&mut connection)
        .await?;
        Ok(found)
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
        let key = table.searched.key("");
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
}
