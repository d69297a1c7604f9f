//! Does the scheduler's work that needs the ledger: new schedules, retries, crashed runs, late jobs, old history.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::planner::Ticks;
use super::{Away, Entry, How, LEDGER_PAUSE, Scheduler, Stands, broken, lock, log_end, planner};
use crate::ledger::{FailedLast, Key, Trigger, report};
use crate::pg::failure;
use crate::run::job::Job;
use crate::run::notify::{self, Late};
use crate::run::runner::{self, Context};
use crate::work::Mode;

const RETRIES_EVERY: Duration = Duration::from_secs(2);
const CRASHED_EVERY: Duration = Duration::from_secs(10);
const OLD_RETRIES_EVERY: Duration = Duration::from_secs(600);
const LATE_EVERY: Duration = Duration::from_secs(20);
const PROOFS_EVERY: Duration = Duration::from_secs(20);
/// Reports of 10,000 databases are read; those of this process's runs are known at once.
const PROOFS_OF_FLEETS_EVERY: Duration = Duration::from_secs(600);
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

impl Scheduler {
    /// Does the work that needs the ledger and no clock: schedules, retries, crashed runs, late jobs, old history.
    pub(super) async fn maintenance_tick(self: Arc<Self>) {
        let mut known_generation = 0;
        // `None` until the ledger is asked.
        let mut answers = None;
        let mut due: HashMap<&str, Instant> = HashMap::new();
        let mut is_due = |what: &'static str, every: Duration| {
            let now = Instant::now();
            let next = due.entry(what).or_insert(now);
            let is_due = *next <= now;
            if is_due {
                *next = now + every;
            }
            is_due
        };
        loop {
            let generation = self.generation.load(Ordering::SeqCst);
            let context = self.context();
            let result = async {
                if generation != known_generation {
                    self.load_known_jobs(&context).await?;
                    known_generation = generation;
                }
                if is_due("crashed", CRASHED_EVERY) {
                    self.mark_crashed(&context).await?;
                }
                if is_due("old retries", OLD_RETRIES_EVERY) {
                    self.give_up_old_retries(&context).await?;
                }
                if is_due("late", LATE_EVERY) {
                    self.look_for_late(&context).await?;
                }
                if is_due("proofs", PROOFS_EVERY) {
                    self.look_for_proofs(&context, |job| job.chosen.is_none()).await?;
                }
                if is_due("proofs of fleets", PROOFS_OF_FLEETS_EVERY) {
                    self.look_for_proofs(&context, |job| job.chosen.is_some()).await?;
                }
                // It takes seconds where there are many rows: those who ask whether jobs will run need not wait for it.
                if answers == Some(true) && is_due("prune", PRUNE_EVERY) {
                    let pruned = self.ledger.prune().await?;
                    self.ledger.prune_messages().await?;
                    tracing::debug!(pruned, "history pruned");
                }
                context.notifier.deliver_waiting();
                self.start_retries(&context).await
            };
            let result = result.await;
            self.has_asked.store(true, Ordering::Relaxed);
            context.metrics.ledger_up(result.is_ok());
            context.metrics.pool_use(self.ledger.pool_use());
            self.note_answer(result.as_ref().err());
            match &result {
                Err(error) if answers != Some(false) => {
                    tracing::error!("the ledger is unreachable; due jobs wait for it: {error:#}");
                }
                Ok(()) if answers != Some(true) => tracing::info!("the ledger is reachable"),
                _ => {}
            }
            answers = Some(result.is_ok());
            if let Err(error) = &result {
                context.metrics.error(failure::kind_of(error));
            }
            tokio::time::sleep(if result.is_ok() { RETRIES_EVERY } else { LEDGER_PAUSE }).await;
        }
    }

    fn note_answer(&self, error: Option<&anyhow::Error>) {
        let mut away = lock(&self.away);
        let since = away.as_ref().map_or_else(Utc::now, |away| away.since);
        *away = error.map(|error| Away { since, why: format!("{error:#}") });
    }

    /// Builds the entries of a new configuration.
    async fn load_known_jobs(&self, context: &Context) -> Result<()> {
        let schedules: Vec<(Key, String)> = context
            .jobs
            .iter()
            .flat_map(|job| {
                let text = match &job.schedule {
                    Some(schedule) if job.enabled => broken::written(schedule, job.timezone),
                    // A job that is enabled again counts as new: it missed nothing meanwhile.
                    _ => broken::NO_SCHEDULE.to_owned(),
                };
                job.databases.iter().map(move |database| ((job.name.clone(), database.clone()), text.clone()))
            })
            .collect();
        let known = self.ledger.known_jobs(&schedules).await?;
        let mut before: HashMap<Key, Entry> =
            lock(&self.entries).drain(..).map(|entry| ((entry.job.name.clone(), entry.database.clone()), entry)).collect();
        let jobs: HashMap<&str, Arc<Job>> = context.jobs.iter().map(|job| (job.name.as_str(), Arc::new(job.clone()))).collect();
        let mut ticks: HashMap<&str, Ticks<'_>> = jobs.iter().map(|(name, job)| (*name, Ticks::of(job))).collect();
        let mut entries = Vec::with_capacity(known.len());
        for row in known {
            let Some(job) = jobs.get(row.job.as_str()) else { continue };
            if let Some(at) = row.last_success_at {
                context.metrics.last_success(&row.job, &row.database, at.timestamp_millis() as f64 / 1000.0);
            }
            let old = before.remove(&(row.job.clone(), row.database.clone()));
            let mut entry = Entry {
                jitter: planner::jitter(job, &row.database),
                // Some ticks of this process may not have reached the ledger yet.
                done_until: row.known_since.max(row.last_tick.unwrap_or(DateTime::UNIX_EPOCH)),
                next_due_at: None,
                known_since: row.known_since,
                is_late: old.as_ref().is_some_and(|old| old.is_late),
                last_success_at: row.last_success_at,
                has_failed: old.as_ref().is_some_and(|old| old.has_failed),
                latest: old.as_ref().map(|old| Arc::clone(&old.latest)).unwrap_or_default(),
                job: Arc::clone(job),
                database: row.database,
            };
            if let Some(old) = old.filter(|old| {
                old.job.schedule.as_ref().map(ToString::to_string) == job.schedule.as_ref().map(ToString::to_string)
            }) {
                entry.done_until = entry.done_until.max(old.done_until);
            }
            if let Some(ticks) = ticks.get_mut(entry.job.name.as_str()) {
                entry.plan_by(ticks);
            }
            let next = entry.next_due_at.map_or(0.0, |at| at.timestamp() as f64);
            context.metrics.next_run(&entry.job.name, &entry.database, next);
            entries.push(entry);
        }
        for (job, database) in before.into_keys() {
            context.metrics.forget(&job, &database);
        }
        *lock(&self.entries) = entries;
        self.remember_facts(context).await?;
        self.has_entries.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Sets the facts of the last runs, which may be another process's: sizes of backups, reach of partitions.
    async fn remember_facts(&self, context: &Context) -> Result<()> {
        let jobs = context.jobs.iter().filter(|job| job.task.has_metrics());
        let keys: Vec<Key> =
            jobs.flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect();
        for row in self.ledger.last_runs(&keys, 1).await? {
            if let Some(report) = &row.report {
                context.metrics.facts(&row.job, &row.database, report);
            }
        }
        Ok(())
    }

    /// Sets when the newest proved set of each backup job began, also by another process.
    async fn look_for_proofs(&self, context: &Context, is_meant: impl Fn(&Job) -> bool) -> Result<()> {
        let jobs = context.jobs.iter().filter(|job| job.task.makes_dumps() && is_meant(job));
        let keys: Vec<Key> =
            jobs.flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let proofs = self.ledger.last_with_fact(&keys, report::PROVED, Utc::now() + TimeDelta::days(1)).await?;
        for key in &keys {
            // Reports of earlier versions do not say when the set began.
            let began_at = proofs.get(key).map(|(ended_at, report)| report.proved_set_began_at().unwrap_or(*ended_at));
            context.metrics.proved(&key.0, &key.1, began_at);
        }
        Ok(())
    }

    async fn mark_crashed(&self, context: &Context) -> Result<()> {
        for row in self.ledger.mark_crashed().await? {
            if let Some(job) = context.jobs.iter().find(|job| job.name == row.job) {
                runner::crashed(context, job, row).await;
            }
        }
        Ok(())
    }

    async fn give_up_old_retries(&self, context: &Context) -> Result<()> {
        let jobs: Vec<&str> = context.jobs.iter().map(|job| job.name.as_str()).collect();
        for row in self.ledger.give_up_old_retries(&jobs).await? {
            if let Some(job) = context.jobs.iter().find(|job| job.name == row.job) {
                runner::given_up(context, job, vec![row]).await;
            }
        }
        Ok(())
    }

    async fn start_retries(self: &Arc<Self>, context: &Context) -> Result<()> {
        for retry in self.ledger.due_retries().await? {
            let Some(job) = context.jobs.iter().find(|job| job.name == retry.job) else { continue };
            if !job.enabled || !job.databases.contains(&retry.database) {
                continue;
            }
            if !lock(&self.retrying).insert((retry.first, retry.attempt)) {
                continue;
            }
            let trigger = Trigger::Retry { first: retry.first, attempt: retry.attempt as u32 };
            let (this, context) = (Arc::clone(self), context.clone());
            self.tracker.spawn(async move {
                let Some(job) = context.jobs.iter().find(|job| job.name == retry.job) else { return };
                let slot = tokio::select! {
                    slot = this.slot(&context.config, &retry.database) => slot,
                    () = this.stop.cancelled() => return,
                };
                // Another scheduler may have taken it: the ledger accepts one row.
                let ended = runner::run_once(&context, job, &retry.database, &trigger, Mode::Apply).await;
                if let Some(ended) = ended {
                    log_end(&ended);
                }
                lock(&this.retrying).remove(&(retry.first, retry.attempt));
                drop(slot);
            });
        }
        Ok(())
    }

    async fn look_for_late(&self, context: &Context) -> Result<()> {
        let keys: Vec<Key> = lock(&self.entries).iter().map(|entry| (entry.job.name.clone(), entry.database.clone())).collect();
        let successes = self.ledger.last_successes(&keys).await?;
        let of_fleets = |(name, _): &&Key| context.jobs.iter().any(|job| job.chosen.is_some() && job.name == *name);
        let of_fleets: Vec<Key> = keys.iter().filter(of_fleets).cloned().collect();
        let failed = if of_fleets.is_empty() { Vec::new() } else { self.ledger.failed_last(&of_fleets).await? };
        let failed: HashSet<Key> = failed.iter().map(FailedLast::key).collect();
        let mut all = self.note_late(context, &successes, &failed);
        all.extend(self.look_at_empty(context, &successes));
        all.extend(self.look_at_broken(context).await?);
        let late = all.iter().filter(|job| job.due_at.is_some()).cloned().collect();
        context.notifier.late(late, &all).await
    }

    /// Looks how the jobs stand that cannot run: a restart does not end being late. One that an edit broke runs on as before until then.
    async fn look_at_broken(&self, context: &Context) -> Result<Vec<Late>> {
        let all = self.broken();
        let broken: Vec<_> = all.iter().filter(|broken| !context.jobs.iter().any(|job| job.name == broken.job)).collect();
        let names: Vec<&str> = broken.iter().map(|broken| broken.job.as_str()).collect();
        let known = if names.is_empty() { Vec::new() } else { self.ledger.last_known(&names).await? };
        let stands = broken::stands(&broken, &known, &context.config, Utc::now());
        let before = std::mem::replace(&mut *lock(&self.stands), stands.clone());
        let is_late = |stands: &Stands| matches!(stands.how, How::Late { .. });
        let is_of = |stands: &Stands, other: &Stands| stands.job == other.job && stands.database == other.database;
        for was in before.iter().filter(|was| is_late(was) && !stands.iter().any(|now| is_of(now, was))) {
            let is_planned = |entry: &Entry| entry.job.name == was.job && entry.database == was.database;
            if !lock(&self.entries).iter().any(is_planned) {
                context.metrics.forget(&was.job, &was.database);
            }
        }
        let told = stands.into_iter().filter(|now| !now.database.is_empty()).map(|now| {
            let due_at = if let How::Late { tick } = now.how { Some(tick) } else { None };
            context.metrics.late(&now.job, &now.database, due_at.is_some());
            if let Some(tick) = due_at.filter(|_| !before.iter().any(|was| is_of(was, &now) && is_late(was))) {
                tracing::error!(
                    job = now.job,
                    database = now.database,
                    "late: no success for its tick of {tick}, and its file has mistakes"
                );
            }
            let notify =
                broken.iter().find(|broken| broken.job == now.job).and_then(|broken| broken.legible.as_ref()?.notify.clone());
            Late {
                key: (now.job, now.database),
                is_of_fleet: true,
                notify,
                due_at,
                last_success_at: now.last_success_at,
                why: None,
            }
        });
        Ok(told.collect())
    }

    /// Notes which jobs are late, and which of those with patterns have failed, in the log and in the metrics. Returns all of them.
    fn note_late(&self, context: &Context, successes: &HashMap<Key, DateTime<Utc>>, failed: &HashSet<Key>) -> Vec<Late> {
        let now = Utc::now();
        let (mut all, mut new) = (Vec::new(), Vec::new());
        let mut ticks: HashMap<&str, Ticks<'_>> = context.jobs.iter().map(|job| (job.name.as_str(), Ticks::of(job))).collect();
        for entry in lock(&self.entries).iter_mut() {
            let (name, database) = (&entry.job.name, &entry.database);
            let key = (name.clone(), database.clone());
            let last_success_at = successes.get(&key).copied();
            let due_at = ticks
                .get_mut(name.as_str())
                .and_then(|ticks| ticks.late_since(entry.jitter, entry.known_since, last_success_at, now));
            let late = Late {
                key: key.clone(),
                is_of_fleet: entry.job.chosen.is_some(),
                notify: entry.job.notify.clone(),
                due_at,
                last_success_at,
                why: None,
            };
            if due_at.is_some() && !entry.is_late {
                new.push(late.clone());
            }
            all.push(late);
            entry.is_late = due_at.is_some();
            entry.last_success_at = last_success_at;
            entry.has_failed = failed.contains(&key);
            context.metrics.late(name, database, entry.is_late);
            context.metrics.failed(name, database, entry.has_failed);
            // This includes runs on other hosts.
            if let Some(at) = last_success_at {
                context.metrics.last_success(name, database, at.timestamp_millis() as f64 / 1000.0);
            }
            context.metrics.next_run(name, database, entry.next_due_at.map_or(0.0, |at| at.timestamp() as f64));
        }
        for Late { key: (job, database), due_at, .. } in notify::in_one(new) {
            if let Some(tick) = due_at {
                tracing::error!(job, database, "late: no success for its tick of {tick}");
            }
        }
        all
    }
}
