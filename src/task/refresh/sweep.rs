//! Removes what earlier runs left or kept. The caller holds the lock of the target, so that no other refresh is at work on it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::decide::{self, Drops, ToDrop};
use super::keys::Refresh;
use super::mark::{self, What};
use super::state::{self, Made};
use crate::ledger::report::Report;
use crate::pg::{self, failure, identifier};
use crate::task::backup::scratch;
use crate::work::RunContext;

/// Longer than a server takes to see that a client is gone.
const DEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Drops leftovers of killed runs, and old databases whose time is over. What cannot be dropped is a warning, and stays for the next run.
pub async fn sweep(server: &mut PgConnection, run: &RunContext<'_>, keys: &Refresh, report: &mut Report) -> Result<()> {
    let target = run.settings.database();
    // What was killed before it had its mark.
    let unmarked = scratch::scratch_leftovers(server, &mark::prefix(target)).await?;
    // The plan has looked before the lock was taken.
    let made = without_dead_sessions(server, target).await?;
    let (target_oid, clock) = (state::oid(server, target).await?, state::clock(server).await?);
    let Drops { drops, notes } = decide::drops(&made, target_oid, keys, clock);
    report.warnings.extend(notes);
    let mut dropped = Vec::new();
    for name in unmarked {
        match scratch::drop_scratch(server, &run.settings, &name, None).await {
            Ok(()) => dropped.push(name),
            Err(error) => report.warnings.push(stays(&name, &error)),
        }
    }
    for drop in drops {
        match drop_one(server, run, &drop).await {
            Ok(()) => {
                tracing::info!("dropped {drop}");
                dropped.push(drop.name);
            }
            Err(error) => report.warnings.push(stays(&drop.name, &error)),
        }
    }
    if !dropped.is_empty() {
        report.fact("dropped_databases", dropped);
    }
    Ok(())
}

/// The databases with a mark of this target. The session of a killed run in its copy ends some seconds after it.
async fn without_dead_sessions(server: &mut PgConnection, target: &str) -> Result<Vec<Made>> {
    let started = Instant::now();
    loop {
        let made = state::made(server, target).await?;
        let is_at_work = made.iter().any(|made| made.mark.what == What::Copy && made.sessions_of_pgtend > 0);
        if !is_at_work || started.elapsed() > DEAD_TIMEOUT {
            return Ok(made);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn stays(name: &str, error: &anyhow::Error) -> String {
    format!("database {name} stays, and the next run tries again: {}", failure::in_a_line(error))
}

/// Nobody can be at work in a copy; an old database is not dropped under someone who has connected since.
async fn drop_one(server: &mut PgConnection, run: &RunContext<'_>, drop: &ToDrop) -> Result<()> {
    if drop.what != What::Old {
        return scratch::drop_scratch(server, &run.settings, &drop.name, Some(drop.oid)).await;
    }
    anyhow::ensure!(state::oid(server, &drop.name).await? == Some(drop.oid), "it is another database by now");
    pg::execute(server, format!("DROP DATABASE {}", identifier(&drop.name))).await
}
