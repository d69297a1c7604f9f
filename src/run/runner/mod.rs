//! The one path of every run: ledger row, locks, timeout, cancellation, heartbeat, outcome, pings. `run-job` and the scheduler
//! both take it.

pub mod after;
pub mod claim;
mod context;
mod end;
mod locks;
mod places;
mod retry;

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Utc;
pub use context::Context;
use end::finish;
pub use end::{crashed, given_up};
use futures_util::FutureExt as _;
use locks::Locks;
use retry::retry_delay;
pub use retry::{max_retries, pause_after};
use tracing::{Instrument as _, field};

use crate::base::fault::{self, Fault, Kind};
use crate::base::progress::Progress;
use crate::base::story::Story;
use crate::base::{telemetry, tool_output, units};
use crate::ledger::report::{Ended, Outcome, Run, Unfinished};
use crate::ledger::{End, NewRun, Trigger};
use crate::pg::failure;
use crate::run::job::Job;
use crate::task::{self, Drive, Manual};
use crate::work::{Driven, JobFacts, Mode, RunContext, Work};

/// A cancelled run has this long to clean up: abort an upload, drop a scratch database.
pub const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `job` on `database`, and repeats it while its retries allow that. Each attempt waits for a `turn` and gives it back at its end: what nobody can reach
/// holds up no other database while it pauses, and a retry comes behind those that wait for their first attempt. Returns nothing when that tick already has a
/// run, and when all was cancelled before.
pub async fn run_with_retries<T>(
    context: &Context,
    job: &Job,
    database: &str,
    trigger: Trigger,
    mode: Mode,
    turn: impl AsyncFn() -> T,
) -> Vec<Ended> {
    let mut attempts: Vec<Ended> = Vec::new();
    let mut trigger = trigger;
    loop {
        let taken = turn().await;
        if context.cancel.is_cancelled() {
            if let Some(last) = attempts.last() {
                context.notifier.given_up(job, &last.run).await;
            }
            break;
        }
        // On the heap once it begins: thousands of them wait for their turns.
        let Some(ended) = Box::pin(run_once(context, job, database, &trigger, mode)).await else { break };
        drop(taken);
        let (first, retry_in) = (attempts.first().map_or(ended.run.id, |first| first.run.id), ended.retry_in);
        let attempt = trigger.attempt() + 1;
        attempts.push(ended);
        let Some(delay) = retry_in else { break };
        let said = attempts.last().and_then(|ended| ended.run.error.clone()).unwrap_or_default();
        tracing::warn!(job = job.name, database, attempt, "next attempt in {}: {said}", units::duration(delay));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = context.cancel.cancelled() => {
                // No attempt of this process follows. Nobody knows whether another process makes one.
                if let Some(last) = attempts.last() {
                    context.notifier.given_up(job, &last.run).await;
                }
                break;
            }
        }
        trigger = Trigger::Retry { first: first.unwrap_or_default(), attempt };
    }
    attempts
}

/// Makes one attempt. Returns `None` when that tick, or that attempt, already has a run.
pub async fn run_once(context: &Context, job: &Job, database: &str, trigger: &Trigger, mode: Mode) -> Option<Ended> {
    run(context, job, &job.task, database, trigger, mode).await
}

/// Runs a command on behalf of a job, along the same path: with a row of its own, and under the job's locks. It is not retried,
/// monitors do not count its end as a success of the job, and only its user ends it early.
pub async fn run_manual<W: Work>(context: &Context, job: &Job, work: &Manual<W>, database: &str, mode: Mode) -> Option<Ended> {
    let job = Job { retries: Some(0), timeout: None, ping_url: None, ..job.clone() };
    run(context, &job, work, database, &Trigger::Manual, mode).await
}

async fn run(context: &Context, job: &Job, work: &impl Drive, database: &str, trigger: &Trigger, mode: Mode) -> Option<Ended> {
    let span = tracing::info_span!(
        target: telemetry::TARGET, "run", job = job.name, database, task = work.kind(), trigger = trigger.name(),
        run = field::Empty, outcome = field::Empty, error = field::Empty, otel.status_code = field::Empty
    );
    let ended = attempt(context, job, work, database, trigger, mode).instrument(span.clone()).await?;
    if ended.run.outcome.needs_attention() {
        span.record("otel.status_code", "ERROR");
    }
    let error = ended.run.error.as_deref().map(fault::without_values);
    span.record("run", ended.run.id).record("outcome", ended.run.outcome.name()).record("error", error);
    Some(ended)
}

async fn attempt(
    context: &Context,
    job: &Job,
    work: &impl Drive,
    database: &str,
    trigger: &Trigger,
    mode: Mode,
) -> Option<Ended> {
    let mut run = new_record(job, database, trigger);
    if mode == Mode::DryRun {
        let result = dry(context, job, work, database, trigger).await;
        return Some(concluded(run, result));
    }
    if let Some(ledger) = &context.ledger {
        match ledger.begin(&new_run(job, work.kind(), database, trigger)).await {
            Ok(Some(id)) => {
                run.id = Some(id);
                retry::give_up_earlier(context, ledger, job, &run).await;
            }
            Ok(None) => return None,
            Err(error) => return Some(concluded(run, Err(error.context("not started")))),
        }
    }
    let progress = context.progress.for_a_run();
    let running = context.metrics.started(&job.name, database, progress.clone());
    let working = Box::pin(locked_and_timed(context, job, work, &run, progress.clone()));
    let ((result, locks), captured) = tool_output::capture(working).await;
    drop(running);

    let mut ended = concluded(run, result);
    ended.retry_in = retry_delay(job, trigger, ended.run.outcome, ended.error.as_ref(), context.cancel.is_cancelled());
    if let (Some(ledger), Some(id)) = (&context.ledger, ended.run.id) {
        let end = End {
            outcome: Some(ended.run.outcome),
            report: ended.run.report.as_ref(),
            error: ended.run.error.as_deref(),
            stderr: &captured.stderr,
            retry_in: ended.retry_in,
            cursor: progress.cursor(),
            story: Story { lines: captured.lines, ..progress.story() },
        };
        finish(context, ledger, id, &end).await;
    }
    // The locks go only now: the next holder finds this run's end.
    if let Some(locks) = locks {
        locks.release().await;
    }
    context.metrics.ended(&ended.run, ended.error.as_ref());
    context.notifier.ended(job, work.kind(), &ended);
    Some(ended)
}

/// Records a tick that does not run, and why. Returns `None` when it already has a run.
pub async fn skip(context: &Context, job: &Job, database: &str, trigger: &Trigger, reason: anyhow::Error) -> Option<Ended> {
    let mut run = new_record(job, database, trigger);
    if let Some(ledger) = &context.ledger {
        match ledger.begin(&new_run(job, job.task.kind(), database, trigger)).await {
            Ok(id) => run.id = Some(id?),
            Err(error) => return Some(concluded(run, Err(error.context("not recorded")))),
        }
        retry::give_up_earlier(context, ledger, job, &run).await;
    }
    let ended = concluded(run, Err(reason));
    if let (Some(ledger), Some(id)) = (&context.ledger, ended.run.id) {
        let end = End { outcome: Some(ended.run.outcome), error: ended.run.error.as_deref(), ..End::default() };
        finish(context, ledger, id, &end).await;
    }
    context.metrics.ended(&ended.run, ended.error.as_ref());
    Some(ended)
}

async fn dry(context: &Context, job: &Job, work: &impl Drive, database: &str, trigger: &Trigger) -> Result<Driven> {
    let run = run_context(context, job, database, trigger.name(), None, context.progress.for_a_run())?;
    let driven = caught(work.drive(&run, Mode::DryRun)).await?;
    match (driven, Box::pin(require_backup(context, job, database)).await) {
        (Driven::Planned { text, json, refusal }, Err(error)) => {
            Ok(Driven::Planned { text: format!("Would be skipped: {error:#}\nOtherwise:\n{text}"), json, refusal })
        }
        (driven, _) => Ok(driven),
    }
}

fn new_run<'a>(job: &'a Job, task: &'a str, database: &'a str, trigger: &'a Trigger) -> NewRun<'a> {
    // This is for the process that finds this one dead, and cannot know what it had sent.
    let retries = if job.task.is_repeatable() { job.retries.unwrap_or(0) } else { 0 };
    NewRun { job: &job.name, database, task, trigger, retries }
}

fn new_record(job: &Job, database: &str, trigger: &Trigger) -> Run {
    Run {
        id: None,
        job: job.name.clone(),
        database: database.to_owned(),
        trigger: trigger.name().to_owned(),
        scheduled_for: trigger.tick(),
        attempt: trigger.attempt(),
        started_at: Utc::now(),
        finished_at: Utc::now(),
        outcome: Outcome::Succeeded,
        plan: None,
        report: None,
        error: None,
    }
}

fn run_context<'a>(
    context: &'a Context,
    job: &'a Job,
    database: &'a str,
    trigger: &str,
    run_id: Option<i64>,
    progress: Progress,
) -> Result<RunContext<'a>> {
    let configured =
        context.config.database(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    Ok(RunContext {
        config: &context.config,
        job: JobFacts {
            name: &job.name,
            timezone: job.timezone,
            limits: &job.limits,
            has_schedule: job.schedule.is_some(),
            renames_database: job.task.renames_database(),
            timeout: job.timeout.map(|span| span.0),
        },
        others: &context.others,
        database,
        settings: job.task.settings(&configured).with_context(|| format!("database `{database}`"))?,
        progress,
        // The token is separate, so that this run's timeout does not cancel the next one.
        cancel: context.cancel.child_token(),
        now: Utc::now(),
        run_id,
        ledger: context.ledger.as_deref(),
        by_hand: job.schedule.is_some() && trigger == Trigger::Manual.name(),
        resume: None,
        checked: OnceLock::new(),
    })
}

fn concluded(mut run: Run, result: Result<Driven>) -> Ended {
    run.finished_at = Utc::now();
    match result {
        Ok(Driven::Planned { text, json, refusal }) => {
            run.plan = Some(json);
            let ended = match refusal {
                Some(refusal) => concluded(run, Err(refusal)),
                None => Ended { run, error: None, plan: None, retry_in: None },
            };
            Ended { plan: Some(text), ..ended }
        }
        Ok(Driven::Applied(report)) => {
            run.report = Some(report);
            Ended { run, error: None, plan: None, retry_in: None }
        }
        Err(error) => {
            run.outcome = outcome_of(&error);
            run.report = error.downcast_ref::<Unfinished>().map(|unfinished| unfinished.report.clone());
            run.error = Some(failure::in_a_line(&error));
            Ended { run, error: Some(error), plan: None, retry_in: None }
        }
    }
}

fn outcome_of(error: &anyhow::Error) -> Outcome {
    match failure::kind_of(error) {
        Some(Kind::Busy | Kind::Deferred) => Outcome::Skipped,
        Some(Kind::TimedOut) => Outcome::TimedOut,
        Some(Kind::Cancelled) => Outcome::Cancelled,
        _ => Outcome::Failed,
    }
}

/// Runs the task with locks and a timeout. The locks are returned with the result: they are held until the run's end is written.
async fn locked_and_timed(
    context: &Context,
    job: &Job,
    work: &impl Drive,
    record: &Run,
    progress: Progress,
) -> (Result<Driven>, Option<Locks>) {
    let mut run = match run_context(context, job, &record.database, &record.trigger, record.id, progress) {
        Ok(run) => run,
        Err(error) => return (Err(error), None),
    };
    // Separate connections hold them until the run ends, so that two runs never take each other's upload for a leftover.
    let ledger = context.ledger.as_deref().zip(record.id);
    let mut locks = match run.or_cancelled(locks::take(&run, ledger)).await {
        Ok(locks) => locks,
        Err(error) => return (Err(error), None),
    };
    for row in std::mem::take(&mut locks.crashed) {
        // It lost its lock, and reports its own end.
        if ledger.is_some_and(|(ledger, _)| ledger.is_own(row.id)) {
            continue;
        }
        crashed(context, job, row).await;
    }
    context.notifier.started(job, record);
    if let Some((ledger, id)) = ledger {
        run.resume = match ledger.cursor(id).await {
            Ok(cursor) => cursor,
            Err(error) => return (Err(error), Some(locks)),
        };
    }
    let result = timed(context, job, work, &run, &mut locks).await;
    (result, Some(locks))
}

async fn timed(context: &Context, job: &Job, work: &impl Drive, run: &RunContext<'_>, locks: &mut Locks) -> Result<Driven> {
    let work = async {
        Box::pin(require_backup(context, job, run.database)).await?;
        caught(work.drive(run, Mode::Apply)).await
    };
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
        lost = locks.lost(&run.progress) => Fault::new(Kind::Unreachable, format!("cancelled, because its lock was lost and another run may start: {lost:#}")),
    };
    run.cancel.cancel();
    match tokio::time::timeout(CLEAN_UP_TIMEOUT, work).await {
        // The work ended in the same moment: then its result counts.
        Ok(Ok(driven)) => Ok(driven),
        // The error only says that it was cancelled.
        Ok(Err(error)) if failure::kind_of(&error) == Some(Kind::Cancelled) && error.chain().len() == 1 => Err(stopped_by.into()),
        Ok(Err(error)) => Err(error.context(stopped_by)),
        Err(_) => Err(anyhow::anyhow!("its clean-up was abandoned after {} s", CLEAN_UP_TIMEOUT.as_secs()).context(stopped_by)),
    }
}

/// A task that panics has failed; the process and its other runs go on.
async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(anyhow::anyhow!("the task panicked, which is a bug in pgtend: {said}"))
        }
    }
}

/// `require_backup_within`: refuses destructive work on a database whose last proven backup is too old.
async fn require_backup(context: &Context, job: &Job, database: &str) -> Result<()> {
    let Some(within) = job.require_backup_within else { return Ok(()) };
    let cannot_tell = "cannot tell how old the newest backup is";
    let newest = task::backup::newest_verified(&context.config, &context.others, database).await.context(cannot_tell)?;
    let anywhere = newest.anywhere();
    let limit = chrono::TimeDelta::from_std(within.0)?;
    if anywhere.is_some_and(|taken_at| Utc::now() - taken_at <= limit) {
        return Ok(());
    }
    // A store that cannot be read may have a newer one.
    newest.ensure_all_read().context(cannot_tell)?;
    let what = match anywhere {
        Some(taken_at) => format!("the newest verified backup of `{database}` is {} old", units::age(taken_at, Utc::now())),
        None => format!("there is no verified backup of `{database}`"),
    };
    let message = format!("{what}, and `require_backup_within` of job `{}` is {within}: run its backup job first", job.name);
    Err(Fault::new(Kind::Deferred, message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let error = caught::<()>(async { panic!("{} is odd", 7) }).await.unwrap_err();
        assert!(error.to_string().contains("7 is odd"), "{error}");
    }
}
