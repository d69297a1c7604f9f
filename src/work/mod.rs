//! The base of every task: the context of a run, and what a task must be able to do.

mod entry;
pub mod membership;
mod others;
pub mod touched;

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
pub use entry::{Entry, RestoresOn};
pub use membership::Memberships;
pub use others::{Does, Other};
use serde::Serialize;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
pub use touched::Touched;

use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::config::Config;
use crate::config::limits::Limits;
use crate::ledger::Ledger;
use crate::ledger::report::Report;
use crate::pg;
use crate::pg::table::{Checked, with_schema};

/// The database of a server to which everyone connects who creates, renames or drops others.
const BESIDE: &str = "postgres";

/// The trait of every task: `plan` reads, and calls a pure `decide` of its own; `apply` acts on the plan.
pub trait Work {
    /// The plan, which a dry run prints as it is.
    type Plan: Display + Serialize;

    /// False where the plan may hold secrets of the job's file, as statements do: it is not kept with the run.
    const PLAN_IS_KEPT: bool = true;

    fn plan(&self, run: &RunContext) -> impl Future<Output = Result<Self::Plan>>;

    /// Returns why `apply` would fail with this plan: a dry run shows the plan, and ends with this error.
    fn refusal(&self, _run: &RunContext, _plan: &Self::Plan) -> Option<anyhow::Error> {
        None
    }

    /// Acts on the plan. When `run.cancel` stops it, it leaves nothing half-done and returns the error of
    /// [`RunContext::or_cancelled`].
    fn apply(&self, run: &RunContext, plan: Self::Plan) -> impl Future<Output = Result<Report>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    DryRun,
    Apply,
}

/// The facts about its job that a task may know.
#[derive(Clone, Copy, Debug)]
pub struct JobFacts<'a> {
    pub name: &'a str,
    pub timezone: Tz,
    pub limits: &'a Limits,
    pub has_schedule: bool,
    /// See [`Entry::RENAMES_DATABASE`].
    pub renames_database: bool,
    pub timeout: Option<Duration>,
}

/// The context of a run of a job on one database.
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
    /// The run's number in the ledger; `None` without a ledger, and in a dry run.
    pub run_id: Option<i64>,
    pub ledger: Option<&'a Ledger>,
    /// True when a person started it although the job has a schedule.
    pub by_hand: bool,
    /// The place at which the last run stopped ([`Progress::set_cursor`]), if this one can continue from there.
    pub resume: Option<serde_json::Value>,
    /// The tables of the job as they were when the run looked for foreign code in them: it works on these and on no others.
    pub checked: OnceLock<Vec<Checked>>,
}

impl RunContext<'_> {
    /// Returns the tables that were checked; none before the search for foreign code.
    pub fn checked(&self) -> &[Checked] {
        self.checked.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns an error if a plan is about another table than the one that was checked, because its name means another table since.
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

    /// Does the same by the name of a table as a job has it. A table that does not exist is reported by the task itself.
    pub async fn is_checked_by_name(&self, connection: &mut PgConnection, table: &str) -> Result<()> {
        let oid: Option<i64> = sqlx::query_scalar("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid::bigint")
            .bind(with_schema(table))
            .fetch_one(connection)
            .await?;
        oid.map_or(Ok(()), |oid| self.is_checked(oid))
    }

    /// Returns how sessions connect that last as long as the run: to its database, or to another one of the server if the task renames it.
    pub fn lasting_settings(&self) -> pg::Settings {
        if self.job.renames_database { self.settings.with_database(BESIDE) } else { self.settings.clone() }
    }

    /// Waits for `work`, or returns the error of a cancelled run as soon as it is cancelled. `work` is dropped then: the caller
    /// cleans up what it left behind.
    pub async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled").into()),
        }
    }

    /// Cancels the statement of one of our server processes if the run was cancelled: dropping its connection stops neither a
    /// statement that waits for a lock nor the queue behind it.
    pub async fn stop_if_cancelled(&self, pid: i32) {
        if self.cancel.is_cancelled()
            && let Err(error) = pg::cancel_backend(&self.settings, pid).await
        {
            tracing::warn!("cannot cancel the statement of server process {pid}: {error:#}");
        }
    }
}

/// The name of the lock that a run of a job holds in the database that it works on.
pub fn lock_name(database: &str, job: &str) -> String {
    format!("pgtend job {database}/{job}")
}

/// The result of driving a task: the plan alone, or the report.
pub enum Driven {
    Planned { text: String, json: serde_json::Value, refusal: Option<anyhow::Error> },
    Applied(Report),
}
