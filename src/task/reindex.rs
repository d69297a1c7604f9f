//! `[reindex]`: indexes of a table that are invalid or bloated are built anew, CONCURRENTLY.
//!
//! What an interruption leaves behind: an invalid `…_ccnew` or `…_ccold`, which every insert maintains. The next run drops it.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Spanned;

use crate::concurrently::{self, Ended, Remains};
use crate::fault::{self, Kind};
use crate::governor::{Go, Governor};
use crate::job::Checker;
use crate::pg::{self, qualified};
use crate::report::{Report, Unfinished};
use crate::task::vector_index::check_owner;
use crate::task::vector_index::names::{base_of_reindex, is_beside, is_cut};
use crate::task::vector_index::state::{connect, tables};
use crate::task::{RunContext, Work};
use crate::units::{self, Size};

/// A b-tree that is filled at random settles at about 70 %: below that, a build is soon undone.
const BLOAT_ABOVE: f64 = 0.4;
const LARGER_THAN: Size = Size(10 << 20);
/// An index that grew by less since it was built is as it has to be, whatever the estimate says.
const GROWN: f64 = 1.3;

/// `[reindex]`, resolved.
#[derive(Clone, Debug)]
pub struct Reindex {
    pub table: String,
    indexes: Vec<String>,
    bloat_above: f64,
    larger_than: Size,
    maintenance_work_mem: Option<Size>,
    parallel_workers: Option<u32>,
}

/// `[reindex]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// As in SQL: `public.execution_logs`, `"Odd Name"`. A partitioned one: its partitions.
    pub table: String,
    /// Only these, by name; default: all of the table.
    #[serde(default)]
    pub indexes: Vec<String>,
    /// Share of a b-tree that is empty beyond its fill factor, by estimate; default 0.4.
    #[schemars(with = "Option<f64>")]
    pub bloat_above: Option<Spanned<f64>>,
    /// Smaller ones are rebuilt only when they are invalid; default 10 MiB.
    pub larger_than: Option<Size>,
    /// Of the session that builds; default: the server's.
    pub maintenance_work_mem: Option<Size>,
    /// max_parallel_maintenance_workers of the session that builds; default: the server's.
    pub parallel_workers: Option<u32>,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Reindex> {
    if let Some(share) = written.bloat_above.as_ref().filter(|share| !(0.0..1.0).contains(share.get_ref())) {
        checker.problem(share, format!("`bloat_above = {}`", share.get_ref()), "a share: 0.4 is 40 %".to_owned());
    }
    Some(Reindex {
        table: written.table,
        indexes: written.indexes,
        bloat_above: written.bloat_above.map_or(BLOAT_ABOVE, Spanned::into_inner),
        larger_than: written.larger_than.unwrap_or(LARGER_THAN),
        maintenance_work_mem: written.maintenance_work_mem,
        parallel_workers: written.parallel_workers,
    })
}

#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Index {
    oid: i64,
    schema: String,
    name: String,
    method: String,
    is_valid: bool,
    is_exclusion: bool,
    bytes: i64,
    rows: f64,
    expected_bytes: Option<f64>,
}

impl Index {
    fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    fn bloat(&self) -> Option<f64> {
        Some((1.0 - self.expected_bytes? / self.bytes.max(1) as f64).clamp(0.0, 1.0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Rebuild,
    /// Left by a stopped REINDEX.
    Drop,
    Leave,
}

#[derive(Debug, Serialize)]
pub struct Step {
    #[serde(flatten)]
    index: Index,
    table_oid: i64,
    action: Action,
    reason: String,
}

#[derive(Debug, Serialize)]
pub struct Plan {
    table: String,
    steps: Vec<Step>,
    missing: Vec<String>,
}

/// What the last run knew: bytes of an index when it was new, by its qualified name.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Known {
    when_new: BTreeMap<String, i64>,
}

impl Work for Reindex {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut connection = connect(run).await?;
        let known = known(run);
        let mut steps = Vec::new();
        for oid in tables(&mut connection, &self.table).await?.0 {
            let found: Vec<Index> = sqlx::query_as(include_str!("reindex/indexes.sql"))
                .bind(oid)
                .fetch_all(&mut connection)
                .await
                .map_err(pg::in_its_own_words)
                .with_context(|| format!("indexes of {}", self.table))?;
            let names: Vec<String> = found.iter().map(|index| index.name.clone()).collect();
            for index in found {
                let (action, reason) = decide(self, &index, &names, known.when_new.get(&index.sql()).copied());
                steps.push(Step { index, table_oid: oid, action, reason });
            }
        }
        let missing = self.indexes.iter().filter(|name| !steps.iter().any(|step| step.index.name == **name)).cloned().collect();
        Ok(Plan { table: self.table.clone(), steps, missing })
    }

    fn refusal(&self, plan: &Plan) -> Option<anyhow::Error> {
        (!plan.missing.is_empty()).then(|| has_no(&plan.table, &plan.missing).into())
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        if let Some(refusal) = self.refusal(&plan) {
            return Err(refusal);
        }
        let limits = &run.job.limits;
        let mut report = Report::default();
        let (mut rebuilt, mut dropped, mut failures) = (Vec::new(), Vec::new(), Vec::<(Option<Kind>, String)>::new());
        let mut known = known(run);
        let mut governor = run.or_cancelled(Governor::start(run, limits, plan.steps.first().map(|step| step.table_oid))).await?;
        let mut connection = run.or_cancelled(run.settings.connect()).await?;
        for step in plan.steps.iter().filter(|step| step.action != Action::Leave) {
            let name = step.index.sql();
            if let Go::Stop(reason) = run.or_cancelled(governor.go()).await? {
                failures.push((Some(Kind::NotNow), format!("{name} and what comes after it: {reason}")));
                break;
            }
            // What is invalid may be half-way: then it is somebody's work, and no wreck.
            if (step.action == Action::Drop || !step.index.is_valid)
                && let Some(who) = run.or_cancelled(concurrently::builder(&mut connection, step.table_oid)).await?
            {
                failures.push((Some(Kind::NotNow), format!("{name} is left alone: {who} is building or vacuuming there")));
                continue;
            }
            let phase = run.progress.phase("reindex", Some(step.index.bytes.max(0) as u64));
            let statement = match step.action {
                Action::Drop => format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"),
                _ => format!("REINDEX INDEX CONCURRENTLY {name}"),
            };
            let expected_bytes = step.index.expected_bytes.unwrap_or(step.index.bytes as f64) as u64;
            let is_ours = |name: &str| base_of_reindex(name).is_some_and(|base| is_cut(base, &step.index.name));
            let leaves = Remains { table: step.table_oid, is_ours: &is_ours };
            let work = concurrently::Work { statement, settings: self.settings(), phase: &phase, expected_bytes, leaves };
            match concurrently::run(run, limits, work).await {
                Ok(Ended::Done) if step.action == Action::Drop => dropped.push(step.index.name.clone()),
                Ok(Ended::Done) => {
                    let bytes = size(&mut connection, step).await?;
                    phase.done(&format!("{} to {}", step.index.name, units::bytes(bytes.max(0) as u64)));
                    known.when_new.insert(name.clone(), bytes);
                    rebuilt.push(
                        json!({ "index": name, "reason": step.reason, "bytes_before": step.index.bytes, "bytes_after": bytes }),
                    );
                }
                Ok(Ended::Blocked(who)) => {
                    clean_up(run, step, &leaves).await;
                    failures.push((Some(Kind::NotNow), format!("{name} was given up, and is as it was: {who}")));
                }
                Err(error) if fault::kind_of(&error) == Some(Kind::Cancelled) => {
                    clean_up(run, step, &leaves).await;
                    return Err(error);
                }
                Err(error) => {
                    clean_up(run, step, &leaves).await;
                    failures.push((fault::kind_of(&error), format!("{name}: {}", fault::in_a_line(&error))));
                }
            }
        }
        run.progress.set_cursor(Some(serde_json::to_value(&known)?));
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
        governor.report(&mut report);
        if failures.is_empty() {
            return Ok(report);
        }
        let kind = failures.iter().map(|(kind, _)| *kind).find(|kind| *kind != Some(Kind::NotNow)).unwrap_or(Some(Kind::NotNow));
        let message = failures.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ");
        Err(Unfinished { kind, message, report }.into())
    }
}

impl Reindex {
    /// Whether the role may do it, and what is named is there, for `check --connect`.
    pub async fn check(&self, connection: &mut sqlx::PgConnection) -> Result<String> {
        check_owner(connection, &self.table).await?;
        let oids = tables(connection, &self.table).await?.0;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid::bigint = ANY ($1)",
        )
        .bind(oids)
        .fetch_all(connection)
        .await?;
        let missing: Vec<String> = self.indexes.iter().filter(|name| !names.contains(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(has_no(&self.table, &missing).into());
        }
        Ok(format!("owns {} and may rebuild its indexes", self.table))
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

fn has_no(table: &str, indexes: &[String]) -> fault::Fault {
    fault::Fault::new(Kind::Configuration, format!("{table} has no index {}", indexes.join(", ")))
}

/// Pure.
fn decide(job: &Reindex, index: &Index, names: &[String], when_new: Option<i64>) -> (Action, String) {
    let leave = |reason: String| (Action::Leave, reason);
    if let (false, Some(base)) = (index.is_valid, base_of_reindex(&index.name)) {
        return match names.iter().any(|name| is_cut(base, name)) {
            true => (Action::Drop, format!("left by a REINDEX of {base} that was stopped")),
            false => leave("invalid, and not of an index of this table".to_owned()),
        };
    }
    if !index.is_valid && is_beside(&index.name) {
        return leave("half-way between two indexes of a [vector_index] job, whose next run sees to it".to_owned());
    }
    if !job.indexes.is_empty() && !job.indexes.contains(&index.name) {
        return leave("not among `indexes`".to_owned());
    }
    if index.is_exclusion {
        return leave("PostgreSQL rebuilds the index of an exclusion constraint only while nobody writes".to_owned());
    }
    if !index.is_valid {
        return (Action::Rebuild, "invalid: no query uses it, and every insert maintains it".to_owned());
    }
    let Some(bloat) = index.bloat() else {
        return leave(match index.method.as_str() {
            "btree" => "its bloat is unknown: ANALYZE the table".to_owned(),
            method => format!("no estimate for {method}"),
        });
    };
    let share = format!("{:.0} % of {} are empty by estimate", bloat * 100.0, units::bytes(index.bytes.max(0) as u64));
    if bloat <= job.bloat_above {
        return leave(format!("{share}, no more than {:.0} %", job.bloat_above * 100.0));
    }
    if (index.bytes.max(0) as u64) < job.larger_than.0 {
        return leave(format!("{share}, but it is small (larger_than {})", job.larger_than));
    }
    if let Some(when_new) = when_new.filter(|when_new| (index.bytes as f64) < *when_new as f64 * GROWN) {
        return leave(format!("{share}, but it was as large when it was new ({})", units::bytes(when_new.max(0) as u64)));
    }
    (Action::Rebuild, share)
}

async fn size(connection: &mut sqlx::PgConnection, step: &Step) -> Result<i64> {
    // REINDEX gives the name to another oid.
    let bytes: Option<i64> =
        sqlx::query_scalar("SELECT pg_relation_size(to_regclass($1))").bind(step.index.sql()).fetch_one(connection).await?;
    Ok(bytes.unwrap_or(0))
}

async fn clean_up(run: &RunContext<'_>, step: &Step, left: &Remains<'_>) {
    if let Err(error) = concurrently::sweep(&run.settings, left).await {
        tracing::warn!("what is left of {} is for the next run to drop: {}", step.index.sql(), fault::in_a_line(&error));
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "Indexes of {}:", self.table)?;
        for step in &self.steps {
            let what = match step.action {
                Action::Rebuild => "rebuild",
                Action::Drop => "drop",
                Action::Leave => "leave",
            };
            writeln!(f, "  {what} {} ({}): {}", step.index.sql(), step.index.method, step.reason)?;
        }
        if !self.missing.is_empty() {
            writeln!(f, "  {}", has_no(&self.table, &self.missing))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Reindex {
        Reindex {
            table: "t".to_owned(),
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
        assert!(action == Action::Leave && reason.contains("no more than 40 %"), "{reason}");
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
        assert_eq!(decide(&job(), &index("i_ccnew", 9e6), &names, None).0, Action::Leave, "valid: somebody's");
    }
}
