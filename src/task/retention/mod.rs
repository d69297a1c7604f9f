//! `[retention]`: deletes expired rows in small batches, optionally archiving and verifying each batch first.
//!
//! The server's clock in the deleting transaction decides which rows are old enough; this host's clock must agree with it. A method that is
//! refused is not replaced with another one: the run ends.
//!
//! An interruption leaves in the table only rows that were not yet deleted, as each batch is a transaction, and in the archive a batch of
//! which the server knows whether it committed (see `archive`).

mod batch;
mod conditions;
mod consent;
pub mod context;
mod decide;
mod delete;
mod delete_tree;
mod entry;
mod estimate;
mod facts;
mod key;
mod keys;
mod left;
mod pick;
mod plan;
mod references;
mod size;
pub mod state;
mod tree;
mod whole;

use anyhow::{Context as _, Result};
use chrono_tz::Tz;
pub use keys::{Method, Retention, Sentinels, Subscribers, Written, resolve};
pub use plan::Plan;

use self::key::Key;
use self::left::RemainingRows;
use crate::archive::Archive;
use crate::base::fault::{Fault, Kind};
use crate::base::units::{self, Span};
use crate::ledger::report::{Report, Unfinished};
use crate::live::governor::{self, Go, Governor};
use crate::live::session;
use crate::pg;
use crate::pg::table::with_schema;
use crate::store::Store;
use crate::task::partition::Partition;
use crate::work::{RunContext, Work};

impl Work for Retention {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        match state::make(self, run).await {
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

    fn refusal(&self, _run: &RunContext<'_>, plan: &Plan) -> Option<anyhow::Error> {
        plan.asks.as_ref().map(|asks| Fault::new(Kind::Deferred, asks.clone()).into())
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        if let Some(refusal) = self.refusal(run, &plan) {
            return Err(refusal);
        }
        let mut plan = plan;
        let mut consented = plan.consent.note(run).await?;
        let mut report = match plan.whole.take() {
            Some(whole) => {
                let partitions = self.partitions(&plan.table, plan.age).context("whole partitions need an age")?;
                partitions.apply(run, whole).await?
            }
            None => Report::default(),
        };
        report.facts.append(&mut consented.facts);
        let partitions_summary = std::mem::take(&mut report.summary);
        let archive = self.archive(run).await?;
        if let Some(archive) = &archive {
            recover(run, archive, &mut report).await?;
        }
        let mut connection = connect(run, &plan).await?;
        let mut governor =
            run.or_cancelled(Governor::start(run, run.job.limits, plan.parts.first().map(|part| part.oid))).await?;
        let phase = run.progress.phase("delete", None);
        let mut done = delete::Done::default();
        let mut stopped = None;
        for part in &plan.parts {
            let work = context::Work { retention: self, plan: &plan, part, archive: archive.as_ref(), run, phase: &phase };
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
        let left = run.or_cancelled(RemainingRows::count(&mut connection, &plan)).await?;
        match &left {
            Some(left) => left.report(&mut report, &plan),
            None => report.fact("rows_left", serde_json::Value::Null),
        }
        if let Some(measured) = &plan.measured {
            report.fact("size", serde_json::to_value(measured)?);
        }
        report.summary = summary(self, &plan, &done, stopped.as_deref(), left.as_ref());
        if !partitions_summary.is_empty() {
            report.summary = format!("{partitions_summary}; {}", report.summary);
        }
        if let Some(reason) = &stopped
            && done.batches == 0
            && (governor.is_strained() || done.is_locked)
        {
            // This is not a success: the table would grow for months while runs report it.
            let message = format!("nothing was deleted: {reason}");
            let kind = if done.is_locked { Kind::Busy } else { Kind::Deferred };
            return Err(Unfinished::error(Some(kind), message, report));
        }
        if let Some(reason) = stopped {
            report.warnings.push(format!("stopped for now: {reason}; the next run continues"));
            report.fact("stopped", reason);
        }
        Ok(report)
    }
}

/// Completes or removes batches of killed runs, and finds rows that came back from the archive.
async fn recover(run: &RunContext<'_>, archive: &Archive, report: &mut Report) -> Result<()> {
    let mut connection = run.or_cancelled(run.settings.connect()).await?;
    let recovered = run.or_cancelled(archive.recover(&mut connection)).await?;
    if recovered.completed + recovered.discarded > 0 {
        report.fact("recovered_batches", recovered.completed);
        report.fact("discarded_batches", recovered.discarded);
    }
    report.warnings.extend(recovered.left);
    run.or_cancelled(archive.look_for_what_came_back(&mut connection, &run.progress)).await
}

/// Opens the session that deletes: triggers run in it, and nothing else does.
async fn connect(run: &RunContext<'_>, plan: &Plan) -> Result<sqlx::PgConnection> {
    let mut connection = run.or_cancelled(run.settings.connect_for(pg::Purpose::Rows)).await?;
    // Rows that a policy hides would stay unseen, and the policy's functions would run with our rights: an error instead.
    pg::set(&mut connection, "row_security", "off").await?;
    pg::commit_durably(&mut connection).await?;
    let parts: Vec<i64> = plan.parts.iter().map(|part| part.oid).collect();
    run.or_cancelled(session::exclude_jobs_of_partitions(&run.settings, &mut connection, &parts)).await?;
    // A parallel count at the end would take every processor from the application.
    pg::set(&mut connection, "max_parallel_workers_per_gather", "0").await?;
    Ok(connection)
}

impl Retention {
    /// Returns a [partition] job that drops whole partitions of at least this age.
    fn partitions(&self, table: &str, age: Option<Span>) -> Option<Partition> {
        let retiring = Partition::retiring(table, &self.column, age?, self.archive.clone());
        Some(Partition { epoch: self.epoch, ..retiring })
    }

    /// Returns how many of the newest rows of each value of the column stay.
    fn newest(&self) -> Option<(u32, &str)> {
        Some((self.keep_newest?, self.per.as_deref()?))
    }

    /// Describes the rows that go: "older than 90d".
    fn in_words(&self) -> String {
        let age = self.older_than.map(|age| format!("older than {age}"));
        let newest = self.newest().map(|(keep, per)| format!("beyond the newest {keep} of each {per}"));
        let size = self.max_size.map(|size| format!("beyond the newest {size}"));
        age.into_iter().chain(newest).chain(size).collect::<Vec<_>>().join(" and ")
    }

    /// Returns other tables, quoted, whose rows refer to those of the table.
    async fn referring(&self, connection: &mut sqlx::PgConnection) -> Result<Vec<String>> {
        let oid: Option<i64> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint")
            .bind(with_schema(&self.table))
            .fetch_one(&mut *connection)
            .await?;
        let Some(oid) = oid else { return Ok(Vec::new()) };
        Ok(references::referring(&references::load(connection, oid).await?))
    }

    fn keeps_sentinels(&self) -> bool {
        self.sentinels == Sentinels::Keep
    }

    /// Returns the job's rule: every key that says which rows go. A job with another rule counts as a new one: its first run asks for consent.
    fn rule(&self, key: Key, zone: Tz) -> String {
        let mut rule = format!("{}.{} {}", with_schema(&self.table), self.column, self.in_words());
        rule += &match key {
            Key::TimestampTz => String::new(),
            Key::Timestamp => format!(", times without a zone in {zone}"),
            Key::Date => format!(", dates in {zone}"),
            Key::Epoch(epoch) => format!(", numbers of {}", epoch.name()),
            Key::Uuid => ", times in uuids".to_owned(),
            Key::Ulid => ", times in ULIDs".to_owned(),
        };
        if let Some(condition) = &self.condition {
            rule += &format!(" where {condition}");
        }
        if !self.cascade.is_empty() {
            rule += &format!(", cascade to {}", self.cascade.join(", "));
        }
        if !self.keeps_sentinels() {
            rule += ", with sentinels";
        }
        match self.subscribers {
            Some(Subscribers::Delete) => rule += ", at subscribers too",
            Some(Subscribers::Keep) => rule += ", not at subscribers",
            None => {}
        }
        rule
    }

    async fn archive(&self, run: &RunContext<'_>) -> Result<Option<Archive>> {
        let Some(name) = &self.archive else { return Ok(None) };
        let store = Store::named(run.config, name).await?;
        Ok(Some(Archive::new(store, run.database, run.job.name)))
    }
}

fn summary(
    retention: &Retention,
    plan: &Plan,
    done: &delete::Done,
    stopped: Option<&str>,
    left: Option<&RemainingRows>,
) -> String {
    let mut text = format!(
        "{} {} from {} in {}, {}",
        units::plural(done.rows as usize, "row"),
        if retention.archive.is_some() { "archived and deleted" } else { "deleted" },
        plan.table,
        units::plural(done.batches, "batch"),
        retention.in_words()
    );
    match (stopped, left) {
        (Some(reason), _) => text += &format!("; stopped for now: {reason}"),
        (None, Some(left)) => text += &left.in_words(&retention.column),
        _ => {}
    }
    text
}
