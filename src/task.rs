//! The kinds of work, and the one way that each of them is driven: plan, decide, apply.

pub mod audit;
pub mod backup;
pub mod compress;
pub mod foreign_code;
pub mod partition;
pub mod reindex;
pub mod retention;
pub mod sql;
pub mod vector_index;

use std::fmt::Display;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fault::{Fault, Kind};
use crate::job::Job;
use crate::ledger::Ledger;
use crate::pg;
use crate::progress::Progress;
use crate::report::{Report, Unfinished};

#[derive(Clone, Debug)]
pub enum Task {
    Audit(audit::Audit),
    Backup(backup::Backup),
    Compress(compress::Compress),
    Partition(partition::Partition),
    Reindex(reindex::Reindex),
    Retention(retention::Retention),
    Sql(sql::Sql),
    VectorIndex(vector_index::VectorIndex),
}

impl Task {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Audit(_) => "audit",
            Self::Backup(_) => "backup",
            Self::Compress(_) => "compress",
            Self::Partition(_) => "partition",
            Self::Reindex(_) => "reindex",
            Self::Retention(_) => "retention",
            Self::Sql(_) => "sql",
            Self::VectorIndex(_) => "vector_index",
        }
    }
}

impl Task {
    /// A run whose process died midway may be done again: all tasks of pgtend's own look at what is there, and go on. Statements of
    /// others do as their job says.
    pub fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Sql(sql) if !sql.is_repeatable())
    }
}

/// What every task is: `plan` reads, and calls a pure `decide` of its own; `apply` acts on the plan.
pub trait Work {
    /// Shown as it stands by a dry run.
    type Plan: Display + Serialize;

    fn plan(&self, run: &RunContext) -> impl Future<Output = Result<Self::Plan>>;

    /// Why `apply` would do nothing of it: a dry run shows the plan, and ends with this.
    fn refusal(&self, _plan: &Self::Plan) -> Option<anyhow::Error> {
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

/// What a run of a job on one database has at hand.
pub struct RunContext<'a> {
    pub config: &'a Config,
    /// All jobs: some tasks ask about others.
    pub jobs: &'a [Job],
    pub job: &'a Job,
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
}

/// What came of it: the plan alone, or the report.
pub enum Driven {
    Planned { text: String, json: serde_json::Value, refusal: Option<anyhow::Error> },
    Applied(Report),
}

/// What the runner runs: a job's task, or what a command does by hand in the job's name.
pub trait Drive {
    /// In the ledger's column `task`.
    fn kind(&self) -> &'static str;

    fn drive(&self, run: &RunContext, mode: Mode) -> impl Future<Output = Result<Driven>>;
}

impl Drive for Task {
    fn kind(&self) -> &'static str {
        self.kind()
    }

    /// Boxed: a task's future holds all that it does, and would be copied from stack to stack as often as it is passed
    /// on. Without this, an unoptimized build overflows a worker's 2 MiB.
    async fn drive(&self, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
        // What a mistake of ours does to the others is tested with a mistake; release builds have no such switch.
        if cfg!(debug_assertions) && std::env::var("PGTEND_TEST_PANIC").is_ok_and(|job| job == run.job.name) {
            panic!("asked for by PGTEND_TEST_PANIC");
        }
        match self {
            Self::Audit(audit) => Box::pin(drive_work(audit, run, mode)).await,
            Self::Backup(backup) => Box::pin(drive_work(backup, run, mode)).await,
            Self::Compress(compress) => Box::pin(drive_work(compress, run, mode)).await,
            Self::Partition(partition) => Box::pin(drive_work(partition, run, mode)).await,
            Self::Reindex(reindex) => Box::pin(drive_work(reindex, run, mode)).await,
            Self::Retention(retention) => Box::pin(drive_work(retention, run, mode)).await,
            Self::Sql(sql) => Box::pin(drive_work(sql, run, mode)).await,
            Self::VectorIndex(vector_index) => Box::pin(drive_work(vector_index, run, mode)).await,
        }
    }
}

/// A command's work. `command` is "partition convert" and the like: with a space, so that the ledger tells it from the
/// runs of the job itself.
pub struct ByHand<W> {
    pub command: &'static str,
    pub work: W,
}

impl<W: Work> Drive for ByHand<W> {
    fn kind(&self) -> &'static str {
        self.command
    }

    async fn drive(&self, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
        Box::pin(drive_work(&self.work, run, mode)).await
    }
}

/// The only place where a dry run differs from a real one.
async fn drive_work<W: Work>(work: &W, run: &RunContext<'_>, mode: Mode) -> Result<Driven> {
    // Before the plan, whose queries run some of it.
    let foreign_code = run.or_cancelled(foreign_code::warnings(&run.settings, run.job)).await?;
    let plan = run.or_cancelled(work.plan(run)).await?;
    match mode {
        Mode::DryRun => {
            let (mut text, mut json) = (plan.to_string(), serde_json::to_value(&plan)?);
            if !foreign_code.is_empty() {
                text.extend(foreign_code.iter().map(|line| format!("  WARNING: {line}\n")));
                if let Some(fields) = json.as_object_mut() {
                    fields.insert("foreign_code".to_owned(), foreign_code.into());
                }
            }
            Ok(Driven::Planned { text, json, refusal: work.refusal(&plan) })
        }
        Mode::Apply => {
            tracing::debug!("plan:\n{plan}");
            let mut applied = work.apply(run, plan).await;
            match &mut applied {
                Ok(report) => report.warnings.extend(foreign_code),
                Err(error) => {
                    if let Some(unfinished) = error.downcast_mut::<Unfinished>() {
                        unfinished.report.warnings.extend(foreign_code);
                    }
                }
            }
            Ok(Driven::Applied(applied?))
        }
    }
}
