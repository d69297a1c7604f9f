//! Jobs with patterns that have no database: a pattern may be wrong, and a server that never answered has none. Nothing of them runs, and nothing fails.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::planner::Ticks;
use super::{NotAnswering, Scheduler, lock};
use crate::ledger::Key;
use crate::run::job::Job;
use crate::run::notify::Late;
use crate::run::runner::Context;

/// A server that starts later than this process answers by then.
const SILENT_FOR: TimeDelta = TimeDelta::minutes(15);

impl Scheduler {
    /// Returns how the jobs with patterns stand that have no database: late when a tick has passed so, or when it is long that a server does not say what it has. Those that have
    /// some are not late for that any more.
    pub(super) fn look_at_empty(&self, context: &Context, successes: &HashMap<Key, DateTime<Utc>>) -> Vec<Late> {
        let (now, silent) = (Utc::now(), self.silent());
        let mut known = lock(&self.empty_since);
        let before = std::mem::take(&mut *known);
        let mut all = Vec::new();
        for job in context.jobs.iter() {
            let Some(chosen) = &job.chosen else { continue };
            let due_at = if job.databases.is_empty() && job.enabled {
                let since = before.get(&job.name).copied().unwrap_or(now);
                known.insert(job.name.clone(), since);
                due(job, since, &silent, now)
            } else {
                None
            };
            context.metrics.late_without_databases(&job.name, due_at.is_some());
            let of_it = successes.iter().filter(|((name, _), _)| *name == job.name).map(|(_, at)| *at);
            let key = (job.name.clone(), chosen.to_string());
            let why = due_at.map(|_| reason(job, &silent));
            if let Some(why) =
                why.as_ref().filter(|_| before.contains_key(&job.name) && lock(&self.late_alone).insert(key.clone()))
            {
                tracing::error!(job = job.name, database = key.1, "late: {why}");
            }
            if due_at.is_none() {
                lock(&self.late_alone).remove(&key);
            }
            all.push(Late { key, is_of_fleet: false, notify: job.notify.clone(), due_at, last_success_at: of_it.max(), why });
        }
        all
    }
}

/// Since when it is late, if it is. Pure.
fn due(job: &Job, since: DateTime<Utc>, silent: &[NotAnswering], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let missed = Ticks::of(job).late_since(std::time::Duration::ZERO, since, None, now);
    let is_scheduled = job.schedule.is_some();
    let unknown = silent.iter().filter(|silent| is_scheduled && silent.may_have_some_of(job)).map(|silent| silent.since).min();
    missed.or_else(|| unknown.filter(|since| now - *since > SILENT_FOR))
}

/// Says why a job has no database. Pure.
fn reason(job: &Job, silent: &[NotAnswering]) -> String {
    let has = format!("it has no {} to run on", job.has_runs_for());
    match silent.iter().find(|silent| silent.may_have_some_of(job)) {
        Some(silent) => format!("{has}: {}", silent.in_words()),
        None => format!("{has}: nothing matches its patterns"),
    }
}
