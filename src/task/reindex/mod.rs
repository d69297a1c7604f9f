//! `[reindex]`: rebuilds indexes of a table that are invalid or bloated, or those of a database that another version of a collation
//! concerns, CONCURRENTLY.
//!
//! An interruption leaves an invalid `…_ccnew` or `…_ccold`, which every insert maintains. The next run drops it.

mod collations;
mod decide;
mod entry;
mod keys;
mod plan;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
pub use decide::{Action, Index, Step};
use decide::{Known, decide};
pub use keys::{Reindex, Scope, Written, resolve};
pub use plan::Plan;
use plan::has_no;
use serde_json::{Value, json};

use crate::base::fault::Kind;
use crate::base::units;
use crate::ledger::report::{Failure, Report, Unfinished};
use crate::live::concurrently::{self, Ended, InvalidIndexes};
use crate::live::governor::{Go, Governor};
use crate::live::indexes::names::{base_of_reindex, is_cut};
use crate::live::indexes::{check_owner, connect, tables};
use crate::pg::{self, failure};
use crate::work::{RunContext, Work};

impl Work for Reindex {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut connection = connect(run).await?;
        let known = known(run);
        let mut steps = Vec::new();
        let table = match &self.scope {
            Scope::Table(table) => table,
            Scope::Collations => {
                let (steps, refresh) = collations::plan(&mut connection, &known).await?;
                return Ok(Plan { table: "all tables".to_owned(), steps, missing: Vec::new(), refresh });
            }
        };
        for oid in tables(&mut connection, table).await?.0 {
            let found: Vec<Index> = sqlx::query_as(include_str!("indexes.sql"))
                .bind(oid)
                .fetch_all(&mut connection)
                .await
                .map_err(pg::in_its_own_words)
                .with_context(|| format!("indexes of {table}"))?;
            let names: Vec<String> = found.iter().map(|index| index.name.clone()).collect();
            for index in found {
                let (action, reason) = decide(self, &index, &names, known.when_new.get(&index.sql()).copied());
                steps.push(Step { index, table_oid: oid, action, reason, version: None });
            }
        }
        let missing = self.indexes.iter().filter(|name| !steps.iter().any(|step| step.index.name == **name)).cloned().collect();
        Ok(Plan { table: table.clone(), steps, missing, refresh: Vec::new() })
    }

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        (!plan.missing.is_empty()).then(|| has_no(&plan.table, &plan.missing).into())
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        if let Some(refusal) = self.refusal(run, &plan) {
            return Err(refusal);
        }
        let planned = plan.steps.iter().map(|step| step.index.oid).collect();
        let mut done = Done { known: known(run), planned, ..Done::default() };
        let mut governor =
            run.or_cancelled(Governor::start(run, run.job.limits, plan.steps.first().map(|step| step.table_oid))).await?;
        let mut connection = run.or_cancelled(run.settings.connect()).await?;
        for step in plan.steps.iter().filter(|step| step.action != Action::Leave) {
            if let Go::Stop(reason) = run.or_cancelled(governor.go()).await? {
                let message = format!("{} and the indexes after it were not rebuilt: {reason}", step.index.sql());
                done.failures.push((Some(Kind::Deferred), message));
                break;
            }
            self.take(run, &mut connection, step, &mut done).await?;
        }
        let (mut refreshed, mut left) = (Vec::new(), Vec::new());
        if done.failures.is_empty() && !plan.refresh.is_empty() {
            (refreshed, left) = run.or_cancelled(collations::refresh(&mut connection, &plan.refresh, &done.known)).await?;
        }
        if left.is_empty() && !refreshed.is_empty() {
            done.known.rebuilt.clear();
        }
        run.progress.set_cursor(Some(serde_json::to_value(&done.known)?));
        let mut report = self.report(&plan, done.rebuilt, done.dropped);
        report.warnings.extend(left);
        if !plan.refresh.is_empty() {
            report.summary +=
                &format!("; refreshed: {}", if refreshed.is_empty() { "nothing".to_owned() } else { refreshed.join(", ") });
            report.fact("refreshed", refreshed);
        }
        governor.report(&mut report);
        Unfinished::of(&done.failures, report)
    }
}

/// The results of the steps so far.
#[derive(Default)]
struct Done {
    rebuilt: Vec<Value>,
    dropped: Vec<String>,
    failures: Vec<Failure>,
    known: Known,
    /// The oids of the indexes as they were before.
    planned: BTreeSet<i64>,
}

impl Reindex {
    /// Takes one step: rebuilds or drops the index. Only a cancellation is an error; a failure is noted, and the other indexes follow.
    async fn take(&self, run: &RunContext<'_>, connection: &mut sqlx::PgConnection, step: &Step, done: &mut Done) -> Result<()> {
        let name = step.index.sql();
        // An invalid index may still be building: then it is left alone.
        if (step.action == Action::Drop || !step.index.is_valid)
            && let Some(who) = run.or_cancelled(concurrently::builder(connection, step.table_oid)).await?
        {
            let message = format!("{name} was left alone: {who} is building an index or vacuuming on its table");
            done.failures.push((Some(Kind::Deferred), message));
            return Ok(());
        }
        let phase = run.progress.phase("reindex", Some(step.index.bytes.max(0) as u64));
        let statement = match step.action {
            Action::Drop => format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"),
            _ => format!("REINDEX INDEX CONCURRENTLY {name}"),
        };
        let expected_bytes = step.index.expected_bytes.unwrap_or(step.index.bytes as f64) as u64;
        let is_ours = |name: &str| base_of_reindex(name).is_some_and(|base| is_cut(base, &step.index.name));
        let leaves = InvalidIndexes { table: step.table_oid, is_ours: &is_ours };
        let work = concurrently::Work { statement, settings: self.settings(), phase: &phase, expected_bytes, leaves };
        match concurrently::run(run, run.job.limits, work).await {
            Ok(Ended::Done) if step.action == Action::Drop => done.dropped.push(step.index.name.clone()),
            Ok(Ended::Done) => {
                let (oid, bytes) = rebuilt(connection, step).await?;
                phase.done(&format!("{} to {}", step.index.name, units::bytes(bytes.max(0) as u64)));
                done.rebuilt.push(
                    json!({ "index": name, "reason": step.reason, "bytes_before": step.index.bytes, "bytes_after": bytes }),
                );
                // An index with an oid of before was given the name meanwhile.
                if let Some(version) = step.version.as_ref().filter(|_| !done.planned.contains(&oid)) {
                    done.known.rebuilt.insert(oid, version.clone());
                }
                done.known.when_new.insert(name, bytes);
                // What a run that is killed has done, the next one need not do again.
                run.progress.set_cursor(Some(serde_json::to_value(&done.known)?));
            }
            Ok(Ended::Blocked(who)) => {
                clean_up(run, step, &leaves).await;
                let message = format!("the rebuild of {name} was given up, the index is unchanged: {who}");
                done.failures.push((Some(Kind::Deferred), message));
            }
            Err(error) => {
                clean_up(run, step, &leaves).await;
                if failure::kind_of(&error) == Some(Kind::Cancelled) {
                    return Err(error);
                }
                done.failures.push((failure::kind_of(&error), format!("{name}: {}", failure::in_a_line(&error))));
            }
        }
        Ok(())
    }

    fn report(&self, plan: &Plan, rebuilt: Vec<Value>, dropped: Vec<String>) -> Report {
        let mut report = Report::default();
        let named = plan.steps.iter().filter(|step| self.indexes.contains(&step.index.name) && step.index.is_exclusion);
        report.warnings.extend(named.map(|step| format!("{} stays: {}", step.index.sql(), step.reason)));
        let sum = |key: &str| rebuilt.iter().filter_map(|one| one[key].as_i64()).sum::<i64>();
        let (before, after) = (sum("bytes_before"), sum("bytes_after"));
        report.summary = match rebuilt.len() {
            0 => format!("no index of {} needs to be rebuilt", plan.table),
            count => format!(
                "{} of {} rebuilt: {} before, {} now",
                units::plural(count, "index").replace("indexs", "indexes"),
                plan.table,
                units::bytes(before.max(0) as u64),
                units::bytes(after.max(0) as u64)
            ),
        };
        report.fact("bytes_before", before);
        report.fact("bytes_after", after);
        report.fact("rebuilt", rebuilt);
        report.fact("dropped", dropped);
        report
    }

    /// Checks that the role owns the table and that the named indexes exist, for `check --connect`.
    async fn may_run(&self, connection: &mut sqlx::PgConnection) -> Result<String> {
        let Scope::Table(table) = &self.scope else {
            let (steps, _) = collations::plan(connection, &Known::default()).await?;
            let indexes = steps.iter().filter(|step| step.action == Action::Rebuild).count();
            return Ok(format!("may rebuild {}", units::plural(indexes, "index").replace("indexs", "indexes")));
        };
        check_owner(connection, table).await?;
        let oids = tables(connection, table).await?.0;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid::bigint = ANY ($1)",
        )
        .bind(oids)
        .fetch_all(connection)
        .await?;
        let missing: Vec<String> = self.indexes.iter().filter(|name| !names.contains(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(has_no(table, &missing).into());
        }
        Ok(format!("owns {table} and may rebuild its indexes"))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let memory = self.maintenance_work_mem.map(|size| ("maintenance_work_mem", format!("{}kB", size.0 / 1024)));
        let workers = self.parallel_workers.map(|workers| ("max_parallel_maintenance_workers", workers.to_string()));
        memory.into_iter().chain(workers).collect()
    }
}

fn known(run: &RunContext<'_>) -> Known {
    run.resume.clone().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

/// Returns the oid and the size in bytes of what has the name now: REINDEX gives it to an index with a new oid.
async fn rebuilt(connection: &mut sqlx::PgConnection, step: &Step) -> Result<(i64, i64)> {
    let found: Option<(i64, i64)> =
        sqlx::query_as("SELECT c.oid::bigint, pg_relation_size(c.oid) FROM pg_class c WHERE c.oid = to_regclass($1)")
            .bind(step.index.sql())
            .fetch_optional(connection)
            .await?;
    Ok(found.unwrap_or((step.index.oid, 0)))
}

async fn clean_up(run: &RunContext<'_>, step: &Step, left: &InvalidIndexes<'_>) {
    if let Err(error) = concurrently::sweep(&run.settings, left).await {
        tracing::warn!(
            "the leftover of {} could not be dropped, the next run will: {}",
            step.index.sql(),
            failure::in_a_line(&error)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Size;

    fn job() -> Reindex {
        Reindex {
            scope: Scope::Table("t".to_owned()),
            indexes: Vec::new(),
            bloat_above: 0.4,
            larger_than: Size(1 << 20),
            maintenance_work_mem: None,
            parallel_workers: None,
        }
    }

    fn index(name: &str, expected_bytes: f64) -> Index {
        Index {
            oid: 1,
            schema: "public".to_owned(),
            name: name.to_owned(),
            method: "btree".to_owned(),
            is_valid: true,
            is_exclusion: false,
            bytes: 10 << 20,
            rows: 1e5,
            expected_bytes: Some(expected_bytes),
        }
    }

    #[test]
    fn what_is_bloated_or_invalid_is_rebuilt_and_the_rest_left_with_a_reason() {
        let names = ["i".to_owned(), "i_ccnew".to_owned()];
        let decided = |job: &Reindex, index: Index, when_new| decide(job, &index, &names, when_new);
        assert_eq!(decided(&job(), index("i", 4e6), None).0, Action::Rebuild);
        let (action, reason) = decided(&job(), index("i", 8e6), None);
        assert!(action == Action::Leave && reason.contains("not above 40 %"), "{reason}");
        assert_eq!(decided(&job(), Index { bytes: 1 << 19, ..index("i", 1.0) }, None).0, Action::Leave);
        assert_eq!(decided(&job(), Index { is_valid: false, ..index("i", 9e6) }, None).0, Action::Rebuild);
        assert_eq!(decided(&job(), Index { is_exclusion: true, ..index("i", 1.0) }, None).0, Action::Leave);
        assert_eq!(decided(&job(), Index { expected_bytes: None, ..index("i", 1.0) }, None).0, Action::Leave);
        assert_eq!(decided(&job(), index("i", 4e6), Some(9 << 20)).0, Action::Leave, "it was as large when new");
        assert_eq!(decided(&Reindex { indexes: vec!["j".to_owned()], ..job() }, index("i", 4e6), None).0, Action::Leave);
    }

    #[test]
    fn leftovers_are_dropped_only_beside_their_index_and_when_invalid() {
        let names = ["i".to_owned(), "i_ccnew".to_owned(), "other_ccnew".to_owned()];
        let left = |name: &str| Index { is_valid: false, ..index(name, 9e6) };
        assert_eq!(decide(&job(), &left("i_ccnew"), &names, None).0, Action::Drop);
        assert_eq!(decide(&job(), &left("other_ccnew"), &names, None).0, Action::Leave);
        assert_eq!(decide(&job(), &index("i_ccnew", 9e6), &names, None).0, Action::Leave, "valid: it may be in use");
    }
}
