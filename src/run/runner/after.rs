//! `after`: a tick waits for the runs of other jobs, and is skipped when one of them does not succeed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::Config;
use crate::ledger::Row;
use crate::ledger::report::Outcome;
use crate::run::job::Job;
use crate::run::runner::Context;

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Thousands of ticks of a job with patterns may wait at once: together they ask the ledger this often, and each more seldom.
const LOOKS_PER_SECOND: u32 = 200;
static WAITING: AtomicU32 = AtomicU32::new(0);
/// No run takes longer than this: a tick that waits longer was forgotten.
const WAIT_LIMIT: Duration = Duration::from_secs(48 * 3600);

/// Returns when all predecessors of this tick have succeeded. An error of [`Kind::Deferred`] is the reason to skip it. Without a
/// ledger their state is unknown, and the tick does not wait.
pub async fn wait(context: &Context, job: &Job, database: &str, tick: DateTime<Utc>) -> Result<()> {
    let Some(ledger) = &context.ledger else { return Ok(()) };
    let _waiting = Waiting::begins();
    for name in &job.after {
        let before =
            context.jobs.iter().find(|other| other.name == *name).with_context(|| format!("job `{name}` no longer exists"))?;
        let databases = awaited(&context.config, &before.databases, database);
        let Some(its_tick) = before.schedule.as_ref().and_then(|schedule| schedule.last_until(tick, before.timezone)) else {
            continue;
        };
        for database in databases {
            let started = tokio::time::Instant::now();
            loop {
                let row = ledger.tick(name, database, its_tick).await?;
                match decide(before, database, row.as_ref(), started.elapsed()) {
                    Decision::Go => break,
                    Decision::Wait => tokio::time::sleep(Waiting::pause()).await,
                    Decision::Skip(reason) => return Err(Fault::new(Kind::Deferred, reason).into()),
                }
            }
        }
    }
    Ok(())
}

/// Returns the places of another job whose runs are waited for: the same one, if it runs there, else those of the same database, else all.
fn awaited<'d>(config: &Config, others: &'d [String], place: &str) -> Vec<&'d String> {
    let database = config.database_of(place);
    let same: Vec<&String> = others.iter().filter(|other| *other == place).collect();
    let near: Vec<&String> = others.iter().filter(|other| config.database_of(other) == database).collect();
    let all = || others.iter().collect();
    [same, near].into_iter().find(|some| !some.is_empty()).unwrap_or_else(all)
}

/// A tick that waits; it counts until it is dropped.
struct Waiting;

impl Waiting {
    fn begins() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }

    fn pause() -> Duration {
        LOOK_EVERY.max(Duration::from_secs(1) * WAITING.load(Ordering::Relaxed) / LOOKS_PER_SECOND)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Go,
    Wait,
    Skip(String),
}

fn decide(before: &Job, database: &str, row: Option<&Row>, waited: Duration) -> Decision {
    let who = format!("job `{}` on `{database}`", before.name);
    let Some(row) = row else {
        let grace = before.late_after + before.jitter.unwrap_or_default();
        return match before.enabled {
            false => Decision::Skip(format!("it runs after {who}, which is not enabled")),
            true if waited < grace => Decision::Wait,
            true => Decision::Skip(format!("it runs after {who}, which did not start in {}", units::duration(grace))),
        };
    };
    match row.outcome.0 {
        Some(Outcome::Succeeded) => Decision::Go,
        None if waited < WAIT_LIMIT => Decision::Wait,
        None => Decision::Skip(format!("it runs after {who}, whose run {} does not end", row.id)),
        Some(_) if row.retry_at.is_some() && waited < WAIT_LIMIT => Decision::Wait,
        Some(outcome) => Decision::Skip(format!("it runs after {who}, whose run {} {}", row.id, outcome.as_verb())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_waits_for_its_own_run_or_for_those_of_its_database_or_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "[databases.app]\n[databases.shop]\n").unwrap();
        let config = crate::config::load(&path, &mut Vec::new()).unwrap();
        let others = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (before, place, expected) in [
            (&["app", "shop"][..], "app", &["app"][..]),
            (&["app:a", "app:b", "shop:a"], "app:a", &["app:a"]),
            (&["app", "shop"], "app:a", &["app"]),
            (&["app:a", "app:b", "shop:a"], "app", &["app:a", "app:b"]),
            (&["app:a", "app:b"], "shop", &["app:a", "app:b"]),
        ] {
            assert_eq!(awaited(&config, &others(before), place), expected, "{place}");
        }
    }
}
