//! Runs a job on several databases: one after the other, but those that patterns chose by as many at once as their servers allow.

use anyhow::Result;
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::ledger::Trigger;
use crate::ledger::report::Ended;
use crate::run::job::Job;
use crate::run::runner;
use crate::run::turns::Turns;
use crate::work::Mode;

/// Returns the attempts on each database that was begun, in the order of `databases`; none where a tick has a run already. `say` hears of each as it ends.
pub async fn run<'d>(
    context: &runner::Context,
    job: &Job,
    databases: &'d [String],
    trigger: &Trigger,
    mode: Mode,
    say: impl Fn(&Ended) -> Result<()>,
) -> Result<Vec<(&'d String, Vec<Ended>)>> {
    let is_fleet = job.chosen.is_some() && databases.len() > 1;
    // Bars of several runs would mix.
    let progress = if is_fleet { Progress::logged() } else { context.progress.clone() };
    let context = runner::Context { progress, ..context.clone() };
    let (turns, one) = (Turns::default(), Semaphore::new(1));
    let (context, turns, one) = (&context, &turns, &one);
    let waiting = databases.iter().enumerate().map(|(place, database)| async move {
        let turn = async || {
            let turn = if is_fleet { turns.take(&context.config, database).await } else { None };
            // A database without a limit has the turn of one that runs alone.
            let alone = if turn.is_none() { one.acquire().await.ok() } else { None };
            (turn, alone)
        };
        (place, on(context, job, database, trigger, mode, turn).await)
    });
    let mut ending = futures_util::stream::iter(waiting).buffer_unordered(if is_fleet { databases.len() } else { 1 });
    let mut all = Vec::new();
    while let Some(ended) = ending.next().await {
        let (place, Some(attempts)) = ended else { continue };
        for ended in &attempts {
            say(ended)?;
        }
        all.push((place, attempts));
    }
    all.sort_by_key(|(place, _)| *place);
    Ok(all.into_iter().map(|(place, attempts)| (&databases[place], attempts)).collect())
}

/// None where all was cancelled before it began.
async fn on<T>(
    context: &runner::Context,
    job: &Job,
    database: &str,
    trigger: &Trigger,
    mode: Mode,
    turn: impl AsyncFn() -> T,
) -> Option<Vec<Ended>> {
    if context.cancel.is_cancelled() {
        return None;
    }
    if let Some(tick) = trigger.tick() {
        // Without a turn: the run before it may take long.
        let waited = tokio::select! {
            waited = runner::after::wait(context, job, database, tick) => waited,
            () = context.cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled while waiting for other jobs").into()),
        };
        if let Err(reason) = waited {
            let skipped = runner::skip(context, job, database, trigger, reason).await;
            if let Some(skipped) = &skipped {
                context.notifier.ended(job, job.task.kind(), skipped);
            }
            return Some(skipped.into_iter().collect());
        }
    }
    let attempts = runner::run_with_retries(context, job, database, trigger.clone(), mode, turn).await;
    if attempts.is_empty() && context.cancel.is_cancelled() {
        return None;
    }
    // A run that the ledger refused never reached the point where it notifies others.
    if let [only] = attempts.as_slice()
        && context.ledger.is_some()
        && only.run.id.is_none()
        && mode == Mode::Apply
    {
        context.notifier.ended(job, job.task.kind(), only);
    }
    Some(attempts)
}
