//! The one path of every run: lock, timeout, cancellation, outcome. `run-job` takes it; the scheduler will.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fault::{self, Fault, Kind};
use crate::job::Job;
use crate::pg;
use crate::progress::Progress;
use crate::report::{Outcome, Run};
use crate::task::{self, Driven, Mode, RunContext};

/// What a cancelled run has for its clean-up: aborting an upload, dropping a scratch database.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// What runs share.
pub struct Context<'a> {
    pub config: &'a Config,
    pub progress: Progress,
    /// Cancelled by SIGTERM and SIGINT.
    pub cancel: CancellationToken,
}

/// What is left to say about a run: its record, the error as code reads it, and a dry run's plan as text.
pub struct Ended {
    pub run: Run,
    pub error: Option<anyhow::Error>,
    pub plan: Option<String>,
}

/// Runs `job` on each of its databases in turn. One that fails does not stop the others; a cancellation does.
pub async fn run_job(context: &Context<'_>, job: &Job, mode: Mode) -> Vec<Ended> {
    let mut ended = Vec::new();
    for database in &job.databases {
        if context.cancel.is_cancelled() {
            break;
        }
        ended.push(run_on(context, job, database, mode).await);
    }
    ended
}

async fn run_on(context: &Context<'_>, job: &Job, database: &str, mode: Mode) -> Ended {
    let started_at = Utc::now();
    let result = locked_and_timed(context, job, database, mode).await;
    let mut run = Run {
        job: job.name.clone(),
        database: database.to_owned(),
        started_at,
        finished_at: Utc::now(),
        outcome: Outcome::Succeeded,
        plan: None,
        report: None,
        error: None,
    };
    match result {
        Ok(Driven::Planned { text, json }) => {
            run.plan = Some(json);
            Ended { run, error: None, plan: Some(text) }
        }
        Ok(Driven::Applied(report)) => {
            run.report = Some(report);
            Ended { run, error: None, plan: None }
        }
        Err(error) => {
            run.outcome = match fault::kind_of(&error) {
                Some(Kind::Busy) => Outcome::Skipped,
                Some(Kind::TimedOut) => Outcome::TimedOut,
                Some(Kind::Cancelled) => Outcome::Cancelled,
                _ => Outcome::Failed,
            };
            run.error = Some(format!("{error:#}"));
            Ended { run, error: Some(error), plan: None }
        }
    }
}

async fn locked_and_timed(context: &Context<'_>, job: &Job, database: &str, mode: Mode) -> Result<Driven> {
    let configured =
        context.config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = pg::Settings::resolve(configured).with_context(|| format!("database `{database}`"))?;
    // Its own token: this run's timeout must not cancel the next one.
    let cancel = context.cancel.child_token();
    let run = RunContext { config: context.config, job, database, settings, progress: context.progress, cancel, now: Utc::now() };

    // Held by a connection of its own until the run ends, so that two runs never take each other's upload for
    // a leftover. A dry run writes nothing, not even a lock.
    let _lock = match mode {
        Mode::DryRun => None,
        Mode::Apply => Some(run.or_cancelled(lock(&run)).await?),
    };

    let work = task::drive(&job.task, &run, mode);
    tokio::pin!(work);
    let timeout = job.timeout.map(|timeout| timeout.0);
    let timed_out = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let stopped_by = tokio::select! {
        result = &mut work => return result,
        () = timed_out => Fault::new(Kind::TimedOut, format!("the job's timeout of {} passed", job.timeout.map(|t| t.to_string()).unwrap_or_default())),
        () = context.cancel.cancelled() => Fault::new(Kind::Cancelled, "cancelled by a signal"),
    };
    run.cancel.cancel();
    match tokio::time::timeout(CLEAN_UP_TIMEOUT, work).await {
        // It came to its end in the same moment: then that is what happened.
        Ok(Ok(driven)) => Ok(driven),
        Ok(Err(error)) if fault::kind_of(&error) == Some(Kind::Cancelled) => Err(stopped_by.into()),
        Ok(Err(error)) => Err(error.context(stopped_by)),
        Err(_) => {
            Err(anyhow::anyhow!("its clean-up took more than {} s and was given up", CLEAN_UP_TIMEOUT.as_secs())
                .context(stopped_by))
        }
    }
}

async fn lock(run: &RunContext<'_>) -> Result<sqlx::PgConnection> {
    let mut connection = run.settings.connect().await.with_context(|| format!("database `{}`", run.database))?;
    let name = format!("pgtend job {}/{}", run.database, run.job.name);
    if pg::try_lock(&mut connection, &name).await? {
        return Ok(connection);
    }
    let holder = pg::lock_holder(&mut connection, &name).await?.unwrap_or_else(|| "somebody who has just ended".to_owned());
    Err(Fault::new(
        Kind::Busy,
        format!("job `{}` is already running on `{}`: its lock is held by {holder}", run.job.name, run.database),
    )
    .into())
}
