//! Writes and reports ends of runs: also of those whose process is gone, and of those whose next attempt does not come.

use std::time::Duration;

use super::context::Context;
use crate::ledger::report::{Ended, Outcome, Run};
use crate::ledger::{self, End, Ledger};
use crate::pg::failure;
use crate::run::job::Job;

/// A run's end waits this long for an unreachable ledger: otherwise the row would say "crashed".
const FINISH_TIMEOUT: Duration = Duration::from_secs(600);
/// The limit for an unreachable ledger once the process was asked to stop.
const FINISH_TIMEOUT_STOPPING: Duration = Duration::from_secs(15);

/// Reports the end of a run whose process is gone, as another process found out.
pub async fn crashed(context: &Context, job: &Job, row: ledger::Row) {
    let error = row.error.as_deref().unwrap_or_default();
    tracing::error!(job = row.job, database = row.database, run = row.id, "crashed: {error}");
    let (task, retry_in) = (row.task.clone(), row.retry_at.map(|_| Duration::ZERO));
    let run = run_of(row, Outcome::Crashed);
    context.metrics.ended(&run, None);
    context.notifier.ended(job, &task, &Ended { run, error: None, plan: None, retry_in });
}

/// Reports runs whose next attempt does not come.
pub async fn given_up(context: &Context, job: &Job, rows: Vec<ledger::Row>) {
    for row in rows {
        let Some(outcome) = row.outcome.0 else { continue };
        tracing::warn!(job = row.job, database = row.database, run = row.id, "no further attempt of run {} follows", row.id);
        context.notifier.given_up(job, &run_of(row, outcome)).await;
    }
}

fn run_of(row: ledger::Row, outcome: Outcome) -> Run {
    Run {
        id: Some(row.id),
        job: row.job,
        database: row.database,
        trigger: row.trigger,
        scheduled_for: row.scheduled_for,
        attempt: row.attempt as u32,
        started_at: row.started_at,
        finished_at: row.finished_at.unwrap_or(row.heartbeat_at),
        outcome,
        plan: None,
        report: None,
        error: row.error,
    }
}

/// Writes the end of a run, and waits for a ledger that is away.
pub async fn finish(context: &Context, ledger: &Ledger, id: i64, end: &End<'_>) {
    let started = tokio::time::Instant::now();
    let mut pause = Duration::from_secs(1);
    while let Err(error) = ledger.finish(id, end).await {
        let limit = if context.cancel.is_cancelled() { FINISH_TIMEOUT_STOPPING } else { FINISH_TIMEOUT };
        context.metrics.error(failure::kind_of(&error));
        if started.elapsed() >= limit {
            tracing::error!(
                run = id,
                "could not write the end of run {id} to the ledger, which will mark it as crashed: {error:#}"
            );
            return;
        }
        tracing::warn!(run = id, "cannot write the end of run {id} to the ledger; trying again: {error:#}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
