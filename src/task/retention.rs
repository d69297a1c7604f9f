//! `[retention]`: rows older than a limit leave a table in small batches, archived first where that is asked for.
//!
//! What an interruption leaves behind: nothing in the table but what was not yet deleted, each batch being a
//! transaction; in the archive, a batch of which the server knows whether it counts (see `archive`).

mod delete;
mod plan;

pub use plan::Plan;

use anyhow::{Context as _, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::archive::Archive;
use crate::fault::{Fault, Kind};
use crate::governor::{self, Go, Governor};
use crate::job::Checker;
use crate::pg;
use crate::report::{Report, Unfinished};
use crate::store::Store;
use crate::task::partition::{Partition, with_schema};
use crate::task::{RunContext, Work};
use crate::units::{self, Span};

/// `[retention]`, resolved.
#[derive(Clone, Debug)]
pub struct Retention {
    pub table: String,
    pub column: String,
    pub older_than: Span,
    pub condition: Option<String>,
    pub archive: Option<String>,
    pub method: Method,
    pub vacuum: bool,
}

/// `[retention]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// As in SQL: `public.execution_logs`, `"Odd Name"`.
    pub table: String,
    /// Its time: timestamptz, timestamp or date. Rows where it is NULL stay.
    pub column: String,
    /// Rows leave at this age.
    pub older_than: Span,
    /// An SQL condition that rows must meet besides: "status <> 'running'".
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Rows are written there, and read back, before they are deleted.
    #[schemars(with = "Option<String>")]
    pub archive: Option<Spanned<String>>,
    /// How rows are found: "auto" (default), "index" on the column, or "blocks", one part of the table after another.
    #[serde(default)]
    pub method: Method,
    /// VACUUM the table (not FULL) when rows were deleted; default false: autovacuum comes by itself.
    #[serde(default)]
    pub vacuum: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    #[default]
    Auto,
    Index,
    Blocks,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Retention> {
    if let Some(store) = &written.archive
        && !checker.known("store", store)
    {
        return None;
    }
    Some(Retention {
        table: written.table,
        column: written.column,
        older_than: written.older_than,
        condition: written.condition,
        archive: written.archive.map(Spanned::into_inner),
        method: written.method,
        vacuum: written.vacuum,
    })
}

impl Work for Retention {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        match plan::make(self, run).await {
            Err(error) if governor::is_lock_trouble(&error) => {
                let mut connection = run.settings.connect().await?;
                let table: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
                    .bind(with_schema(&self.table))
                    .fetch_one(&mut connection)
                    .await?;
                let message = delete::locked(&mut connection, &self.table, table.unwrap_or_default(), &error).await?;
                Err(error.context(Fault::new(Kind::Busy, message)))
            }
            other => other,
        }
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        let mut plan = plan;
        let mut report = match plan.whole.take() {
            Some(whole) => self.partitions(&plan.table).apply(run, whole).await?,
            None => Report::default(),
        };
        let partitions_summary = std::mem::take(&mut report.summary);
        let archive = self.archive(run).await?;
        if let Some(archive) = &archive {
            let mut connection = run.or_cancelled(run.settings.connect()).await?;
            let recovered = run.or_cancelled(archive.recover(&mut connection)).await?;
            if recovered.completed + recovered.discarded > 0 {
                report.fact("recovered_batches", recovered.completed);
                report.fact("discarded_batches", recovered.discarded);
            }
            report.warnings.extend(recovered.left);
            run.or_cancelled(archive.look_for_what_came_back(&mut connection, &run.progress)).await?;
        }
        // Triggers run in it: nothing else does.
        let mut connection = run.or_cancelled(run.settings.connect_for(pg::Purpose::Application)).await?;
        // Rows that a policy hides would stay unseen, and its functions would run as us: an error instead.
        pg::set(&mut connection, "row_security", "off").await?;
        pg::commit_durably(&mut connection).await?;
        // The count at the end would take every processor from the application.
        pg::set(&mut connection, "max_parallel_workers_per_gather", "0").await?;
        let mut governor =
            run.or_cancelled(Governor::start(run, &run.job.limits, plan.parts.first().map(|part| part.oid))).await?;
        let phase = run.progress.phase("delete", None);
        let mut done = delete::Done::default();
        let mut stopped = None;
        for part in &plan.parts {
            let work = delete::Work { retention: self, plan: &plan, part, archive: archive.as_ref(), run, phase: &phase };
            if let Go::Stop(reason) = work.all(&mut connection, &mut governor, &mut done).await? {
                stopped = Some(reason);
                break;
            }
        }
        if self.vacuum && done.rows > 0 && stopped.is_none() {
            run.or_cancelled(delete::vacuum(&mut connection, &plan)).await?;
        }
        phase.done(&units::plural(done.rows as usize, "row"));
        done.report(&mut report);
        governor.report(&mut report);
        let left = run.or_cancelled(delete::left(&mut connection, &plan)).await?;
        match left {
            Some(left) => report.fact("rows_left", left),
            None => report.fact("rows_left", serde_json::Value::Null),
        }
        report.summary = summary(self, &plan, &done, stopped.as_deref(), left);
        if !partitions_summary.is_empty() {
            report.summary = format!("{partitions_summary}; {}", report.summary);
        }
        if let Some(reason) = &stopped
            && done.batches == 0
            && (governor.is_strained() || done.is_locked)
        {
            // Not a success: month after month of these, and the table has grown all the time.
            let message = format!("nothing was deleted: {reason}");
            let kind = if done.is_locked { Kind::Busy } else { Kind::NotNow };
            return Err(Unfinished { kind: Some(kind), message, report }.into());
        }
        if let Some(reason) = stopped {
            report.warnings.push(format!("stopped for now: {reason}; the next run goes on"));
            report.fact("stopped", reason);
        }
        Ok(report)
    }
}

impl Retention {
    /// Whole partitions that are too old.
    fn partitions(&self, table: &str) -> Partition {
        Partition::retiring(table, &self.column, self.older_than, self.archive.clone())
    }

    async fn archive(&self, run: &RunContext<'_>) -> Result<Option<Archive>> {
        let Some(name) = &self.archive else { return Ok(None) };
        let configured = run.config.stores.get(name).context("the store is configured")?;
        let store = Store::open(configured).await.with_context(|| format!("store `{name}`"))?;
        Ok(Some(Archive::new(store, run.database, &run.job.name)))
    }
}

fn summary(retention: &Retention, plan: &Plan, done: &delete::Done, stopped: Option<&str>, left: Option<u64>) -> String {
    let mut text = format!(
        "{} {} from {} in {}, older than {}",
        units::plural(done.rows as usize, "row"),
        if retention.archive.is_some() { "archived and deleted" } else { "deleted" },
        plan.table,
        units::plural(done.batches, "batch"),
        retention.older_than
    );
    match (stopped, left) {
        (Some(reason), _) => text += &format!("; stopped for now: {reason}"),
        (None, Some(left @ 1..)) => {
            text += &format!(
                "; {} left for the next run: locked by others, or kept by a trigger",
                units::plural(left as usize, "row")
            )
        }
        _ => {}
    }
    text
}
