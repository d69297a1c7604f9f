//! What a task stands on: what a run has at hand, and what a task must be able to do.

mod others;

use std::fmt::Display;
use std::sync::OnceLock;

use anyhow::Result;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
pub use others::{Does, Other};
use serde::Serialize;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::config::Config;
use crate::config::limits::Limits;
use crate::ledger::Ledger;
use crate::ledger::report::Report;
use crate::pg;
use crate::pg::table::{Checked, with_schema};

/// What every task is: `plan` reads, and calls a pure `decide` of its own; `apply` acts on the plan.
pub trait Work {
    /// Shown as it stands by a dry run.
    type Plan: Display + Serialize;

    fn plan(&self, run: &RunContext) -> impl Future<Output = Result<Self::Plan>>;

    /// Why `apply` would fail with this plan: a dry run shows the plan, and ends with this.
    fn refusal(&self, _run: &RunContext, _plan: &Self::Plan) -> Option<anyhow::Error> {
        None
    }

    /// Asked to stop by `run.cancel`, it leaves nothing half-done and returns the error of [`RunContext::or_cancelled`].
    fn apply(&self, run: &RunContext, plan: Self::Plan) -> impl Future<Output = Result<Report>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    DryRun,
    Apply,
}

/// What a task may know of its job.
#[derive(Clone, Copy, Debug)]
pub struct JobFacts<'a> {
    pub name: &'a str,
    pub timezone: Tz,
    pub limits: &'a Limits,
    pub has_schedule: bool,
}

/// What a run of a job on one database has at hand.
pub struct RunContext<'a> {
    pub config: &'a Config,
    pub job: JobFacts<'a>,
    /// All jobs of the configuration: some tasks ask about others.
    pub others: &'a [Other],
    /// The database's name in the configuration.
    pub database: &'a str,
    pub settings: pg::Settings,
    pub progress: Progress,
    pub cancel: CancellationToken,
    pub now: DateTime<Utc>,
    /// Its number in the ledger; None without a ledger, and in a dry run.
    pub run_id: Option<i64>,
    pub ledger: Option<&'a Ledger>,
    /// A person started it although the job has a schedule.
    pub by_hand: bool,
    /// Where the last run stopped ([`Progress::set_cursor`]), if it left something to go on with.
    pub resume: Option<serde_json::Value>,
    /// The tables of the job as they were when it was looked whose code they hold: what is done is done to these.
    pub checked: OnceLock<Vec<Checked>>,
}

impl RunContext<'_> {
    pub fn checked(&self) -> &[Checked] {
        self.checked.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// An error where a plan is about another table than the one that was checked: somebody gave its name away in between.
    pub fn is_checked(&self, table: i64) -> Result<()> {
        match self.checked() {
            [] => Ok(()),
            checked if checked.iter().any(|checked| checked.oid == table) => Ok(()),
            [first, ..] => {
                let message = format!("{} is another table than the one that this run checked: run it again", first.name);
                Err(Fault::new(Kind::Configuration, message).into())
            }
        }
    }

    /// The same, by the name of a table as a job has it. A table that is not there is for the task to say.
    pub async fn is_checked_by_name(&self, connection: &mut PgConnection, table: &str) -> Result<()> {
        let oid: Option<i64> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint")
            .bind(with_schema(table))
            .fetch_one(connection)
            .await?;
        oid.map_or(Ok(()), |oid| self.is_checked(oid))
    }

    /// `work`, or the error of a cancelled run as soon as it is one. `work` is dropped then: what it must not
    /// leave behind is cleaned up by the caller.
    pub async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled").into()),
        }
    }

    /// Cancels the statement of a server process of ours where the run was cancelled: dropping its connection does not stop a statement
    /// that waits for a lock, and whoever waits behind it.
    pub async fn stop_if_cancelled(&self, pid: i32) {
        if self.cancel.is_cancelled()
            && let Err(error) = pg::cancel_backend(&self.settings, pid).await
        {
            tracing::warn!("cannot cancel the statement of server process {pid}: {error:#}");
        }
    }
}

/// What came of it: the plan alone, or the report.
pub enum Driven {
    Planned { text: String, json: serde_json::Value, refusal: Option<anyhow::Error> },
    Applied(Report),
}
