//! What a task stands on: what a run has at hand, and what a task must be able to do.

mod entry;
pub mod membership;
mod others;
pub mod touched;

use std::fmt::Display;

use anyhow::Result;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
pub use entry::Entry;
pub use membership::Memberships;
pub use others::{Does, Other};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
pub use touched::Touched;

use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::config::Config;
use crate::config::limits::Limits;
use crate::ledger::Ledger;
use crate::ledger::report::Report;
use crate::pg;

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
}

impl RunContext<'_> {
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
