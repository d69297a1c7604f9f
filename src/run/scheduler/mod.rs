//! The scheduler of `pgtend serve`: every second it looks for due jobs, and starts a run for each.
//!
//! tokio-cron-scheduler is the metronome and nothing else: it has no catch-up, no guard against overlap, fixed
//! offsets for time zones, and loses jobs that are due together (found in its 0.15.1). Only this file names it.
//! The ledger decides who runs a tick, since one row per tick can be written: several schedulers can share it.

mod broken;
mod empty;
mod finding;
mod fleets;
mod maintenance;
pub mod planner;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
pub use broken::{How, Stands, stands};
use chrono::{DateTime, TimeDelta, Utc};
pub use finding::NotAnswering;
pub use fleets::Fleet;
use planner::{Due, Ticks};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_cron_scheduler::{Job as CronJob, JobScheduler};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::Config;
use crate::ledger::report::Ended;
use crate::ledger::{Key, Ledger, Trigger};
use crate::pg::failure;
use crate::run::fleet::Found;
use crate::run::fleet::asked::Asked;
use crate::run::job::{Broken, Job};
use crate::run::runner::{self, Context};
use crate::run::turns::Turns;

/// The metronome's period is a second; should it stop, the scheduler still looks this often.
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The pause between attempts to reach the ledger.
const LEDGER_PAUSE: Duration = Duration::from_secs(2);

/// A wall clock that moves by more than this against the monotonic one was set.
const CLOCK_STEP: TimeDelta = TimeDelta::seconds(5);

/// The state that the scheduler, the pages and the signals share.
pub struct Scheduler {
    /// Replaced as a whole when the configuration is reloaded.
    context: RwLock<Context>,
    ledger: Arc<Ledger>,
    entries: Mutex<Vec<Entry>>,
    /// Counts configurations: entries of an older one are rebuilt.
    generation: AtomicI64,
    slots: Semaphore,
    /// Ticks of a server or a group wait here, so that they take no slots from others while they wait.
    turns: Turns,
    /// What the servers were found to have.
    found: Mutex<Found>,
    /// The servers and databases that do not say what they have, as of the last look.
    silent: Mutex<BTreeMap<Asked, NotAnswering>>,
    /// The jobs with patterns that have no database, and since when this process knows them so.
    empty_since: Mutex<HashMap<String, DateTime<Utc>>>,
    /// Those of them that were called late in the log.
    late_alone: Mutex<HashSet<Key>>,
    /// The first run and the attempt of each retry that waits for a slot.
    retrying: Mutex<HashSet<(i64, i32)>>,
    tracker: TaskTracker,
    /// Cancelled when no further tick may start.
    stop: CancellationToken,
    /// None while the ledger answers.
    away: Mutex<Option<Away>>,
    /// The jobs that are skipped, as their files have mistakes, and how those stand that do not run on as before.
    broken: Mutex<Vec<Broken>>,
    stands: Mutex<Vec<Stands>>,
    /// The time of the last look for due jobs.
    looked_at: Mutex<Instant>,
    has_asked: AtomicBool,
    has_entries: AtomicBool,
}

/// Since when the ledger does not answer, and why.
#[derive(Clone, Debug)]
pub struct Away {
    pub since: DateTime<Utc>,
    pub why: String,
}

/// A job on a database, and how far its schedule has been handled.
#[derive(Clone)]
struct Entry {
    job: Arc<Job>,
    database: String,
    jitter: Duration,
    done_until: DateTime<Utc>,
    /// Kept so that a look costs only a comparison; `None` means never.
    next_due_at: Option<DateTime<Utc>>,
    known_since: DateTime<Utc>,
    is_late: bool,
    /// Of a job with patterns: its last success, and whether it failed after that, as of the last look for late jobs.
    last_success_at: Option<DateTime<Utc>>,
    has_failed: bool,
    /// The latest tick that was started, in seconds since 1970: an older one that still waits gives way.
    latest: Arc<AtomicI64>,
}

impl Scheduler {
    pub fn new(context: Context, ledger: Arc<Ledger>, broken: Vec<Broken>) -> Arc<Self> {
        make_series(&context);
        Arc::new(Self {
            slots: Semaphore::new(context.config.serve.max_concurrent),
            context: RwLock::new(context),
            ledger,
            turns: Turns::default(),
            found: Mutex::default(),
            silent: Mutex::default(),
            empty_since: Mutex::default(),
            late_alone: Mutex::default(),
            entries: Mutex::default(),
            retrying: Mutex::default(),
            generation: AtomicI64::new(1),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            away: Mutex::new(Some(Away { since: Utc::now(), why: "not asked yet".to_owned() })),
            broken: Mutex::new(broken),
            stands: Mutex::default(),
            looked_at: Mutex::new(Instant::now()),
            has_asked: AtomicBool::new(false),
            has_entries: AtomicBool::new(false),
        })
    }

    pub fn context(&self) -> Context {
        self.context.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Returns why the ledger is unreachable, if it is.
    pub fn ledger_error(&self) -> Option<String> {
        self.away().map(|away| away.why)
    }

    /// Returns since when the ledger is unreachable, if it is.
    pub fn away(&self) -> Option<Away> {
        lock(&self.away).clone()
    }

    /// Returns the jobs that are skipped.
    pub fn broken(&self) -> Vec<Broken> {
        lock(&self.broken).clone()
    }

    pub fn set_broken(&self, broken: Vec<Broken>) {
        *lock(&self.broken) = broken;
    }

    /// Returns how the jobs stand that cannot run, as of the last look for late jobs.
    pub fn stands_of_broken(&self) -> Vec<Stands> {
        lock(&self.stands).clone()
    }

    /// Returns whether the ledger was asked at all.
    pub fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// Returns whether the schedules are known, so that due jobs will run.
    pub fn is_planning(&self) -> bool {
        self.has_entries.load(Ordering::Relaxed) && !self.stop.is_cancelled()
    }

    /// Counts runs under way and those that wait for a slot.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Returns the job that is due next, and when.
    pub fn next(&self) -> Option<(String, DateTime<Utc>)> {
        let entries = lock(&self.entries);
        let next = entries.iter().filter_map(|entry| Some((entry.next_due_at?, &entry.job.name))).min();
        next.map(|(at, job)| (job.clone(), at))
    }

    /// Returns when each job is due next on each database, as far as that is known.
    pub fn next_of_all(&self) -> HashMap<Key, DateTime<Utc>> {
        let entries = lock(&self.entries);
        let next =
            entries.iter().filter_map(|entry| Some(((entry.job.name.clone(), entry.database.clone()), entry.next_due_at?)));
        next.collect()
    }

    /// Starts a run of a job that somebody asked for on a page.
    pub fn run_now(self: &Arc<Self>, job: Job, database: String, by: String) {
        let (this, context) = (Arc::clone(self), self.context());
        self.tracker.spawn(async move {
            let slot = tokio::select! {
                slot = this.slot(&context.config, &database) => slot,
                () = this.stop.cancelled() => return,
            };
            let trigger = Trigger::Asked { by };
            if let Some(ended) = runner::run_once(&context, &job, &database, &trigger, crate::work::Mode::Apply).await {
                log_end(&ended);
            }
            drop(slot);
        });
    }

    /// Does something when there is a slot for it, as for a run; a stop waits for its end.
    pub fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        let this = Arc::clone(self);
        self.tracker.spawn(async move {
            let slot = tokio::select! {
                slot = this.slots.acquire() => slot,
                () = this.stop.cancelled() => return,
            };
            work.await;
            drop(slot);
        });
    }

    /// Returns the time since the last look for due jobs.
    pub fn looked(&self) -> Duration {
        lock(&self.looked_at).elapsed()
    }

    /// Returns the jobs that are late, each with its database.
    pub fn late(&self) -> Vec<Key> {
        let entries = lock(&self.entries);
        entries.iter().filter(|entry| entry.is_late).map(|entry| (entry.job.name.clone(), entry.database.clone())).collect()
    }

    /// Replaces the configuration; runs under way keep theirs.
    pub fn replace(&self, new: Context) {
        let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
        *context = new.with_found(&lock(&self.found));
        make_series(&context);
        self.next_generation();
    }

    fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Runs until [`Scheduler::drain`].
    pub async fn run(self: &Arc<Self>) -> Result<()> {
        let beat = Arc::new(Notify::new());
        let mut metronome = metronome(Arc::clone(&beat)).await.context("cannot start the scheduler's clock")?;
        self.find_databases().await;
        let maintenance = tokio::spawn(Arc::clone(self).maintenance_tick());
        let finding = tokio::spawn(Arc::clone(self).finding());
        let started = (Instant::now(), Utc::now());
        let mut drift = TimeDelta::zero();
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = beat.notified() => {}
                () = tokio::time::sleep(MAX_LOOK_INTERVAL) => {}
                () = self.stop.cancelled() => break,
            }
            *lock(&self.looked_at) = Instant::now();
            let now = Utc::now();
            let now_drift = now - started.1 - TimeDelta::from_std(started.0.elapsed()).unwrap_or_default();
            if (now_drift - drift).abs() > CLOCK_STEP {
                tracing::warn!("the clock was set by {} s: recomputing all schedules", (now_drift - drift).num_seconds());
                drift = now_drift;
                self.clock_was_set(now);
            }
            self.look(now);
        }
        maintenance.abort();
        finding.abort();
        // This only stops the metronome: our runs are not its jobs.
        let _ = metronome.shutdown().await;
        Ok(())
    }

    /// Starts no more runs; gives running ones `timeout` to end, then cancels them. `waiting` is called every second.
    pub async fn drain(&self, timeout: Duration, mut waiting: impl FnMut(usize)) {
        self.stop.cancel();
        self.tracker.close();
        let cancel = self.context().cancel;
        let started = Instant::now();
        let limit = timeout + runner::CLEAN_UP_TIMEOUT + Duration::from_secs(30);
        while !self.tracker.is_empty() && started.elapsed() < limit {
            waiting(self.tracker.len());
            if started.elapsed() >= timeout && !cancel.is_cancelled() {
                tracing::warn!("{} still running after {}: cancelling", self.tracker.len(), units::duration(timeout));
                cancel.cancel();
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), self.tracker.wait()).await;
        }
    }

    /// Starts due jobs. While the ledger is away none starts: the tick counts as missed then, and runs once.
    fn look(self: &Arc<Self>, now: DateTime<Utc>) {
        if self.ledger_error().is_some() {
            return;
        }
        let metrics = self.context().metrics;
        let mut entries = lock(&self.entries);
        for entry in entries.iter_mut().filter(|entry| entry.next_due_at.is_some_and(|at| at <= now)) {
            for due in planner::due(&entry.job, entry.jitter, entry.done_until, now) {
                let (trigger, left) = match due {
                    Due::Run(trigger) => (trigger, None),
                    Due::Leave(trigger, reason) => (trigger, Some(reason)),
                };
                if let Some(tick) = trigger.tick() {
                    entry.latest.store(tick.timestamp(), Ordering::SeqCst);
                }
                let (this, entry) = (Arc::clone(self), entry.clone());
                self.tracker.spawn(async move { this.run_tick(entry, trigger, left).await });
            }
            entry.done_until = entry.done_until.max(now - entry.jitter);
            entry.plan_next();
            if let Some(next) = entry.next_due_at {
                metrics.next_run(&entry.job.name, &entry.database, next.timestamp() as f64);
            }
        }
    }

    /// When the clock is set back, schedules start from the new time: the ledger knows which ticks have run.
    fn clock_was_set(&self, now: DateTime<Utc>) {
        for entry in lock(&self.entries).iter_mut() {
            entry.done_until = entry.done_until.min(now);
            entry.plan_next();
        }
    }

    async fn run_tick(&self, entry: Entry, trigger: Trigger, left: Option<String>) {
        let context = self.context();
        let (job, database) = (entry.job.as_ref(), entry.database.as_str());
        let is_left = left.is_some();
        let refused = match (left, trigger.tick()) {
            (Some(reason), _) => Some(Fault::new(Kind::Deferred, reason).into()),
            (None, Some(tick)) => loop {
                let waited = tokio::select! {
                    waited = runner::after::wait(&context, job, database, tick) => waited,
                    // The tick has not begun, so the next scheduler catches it up.
                    () = self.stop.cancelled() => return,
                };
                match waited {
                    Ok(()) => break None,
                    Err(error) if failure::kind_of(&error) == Some(Kind::Deferred) => break Some(error),
                    // The ledger is away; later it says what became of the others.
                    Err(error) => tracing::warn!(job = job.name, database, "cannot look for the runs before this one: {error:#}"),
                }
                tokio::select! {
                    () = tokio::time::sleep(LEDGER_PAUSE) => {}
                    () = self.stop.cancelled() => return,
                }
            },
            (None, None) => None,
        };
        let slot = tokio::select! {
            slot = self.slot(&context.config, database) => slot,
            () = self.stop.cancelled() => return,
        };
        let mut refused = refused;
        loop {
            let is_skip = refused.is_some();
            let ended = match refused.take() {
                Some(reason) => runner::skip(&context, job, database, &trigger, reason).await,
                None => runner::run_once(&context, job, database, &trigger, crate::work::Mode::Apply).await,
            };
            let Some(ended) = ended else { break };
            if ended.run.id.is_some() {
                log_end(&ended);
                // A tick that was skipped on purpose raises no alarm.
                if ended.error.as_ref().and_then(failure::kind_of) == Some(Kind::Deferred) && is_skip && !is_left {
                    context.notifier.ended(job, job.task.kind(), &ended);
                }
                break;
            }
            // The ledger went away in between. A tick that a newer one overtook, or that is too old, stays undone.
            let age = trigger.tick().and_then(|tick| (Utc::now() - tick).to_std().ok()).unwrap_or_default();
            let is_overtaken = trigger.tick().is_some_and(|tick| tick.timestamp() < entry.latest.load(Ordering::SeqCst));
            context.metrics.error(ended.error.as_ref().and_then(failure::kind_of));
            if is_overtaken || age > job.catch_up_within {
                tracing::warn!(job = job.name, database, "given up: {}", ended.run.error.unwrap_or_default());
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(LEDGER_PAUSE) => {}
                () = self.stop.cancelled() => break,
            }
        }
        drop(slot);
    }
}

impl Scheduler {
    /// Returns when a run on the database may start in this process.
    async fn slot(&self, config: &Config, database: &str) -> Slot<'_> {
        let turn = self.turns.take(config, database).await;
        (turn, self.slots.acquire().await.ok())
    }
}

/// Dropped, it lets the next run start.
type Slot<'s> = (Option<OwnedSemaphorePermit>, Option<SemaphorePermit<'s>>);

impl Entry {
    fn plan_next(&mut self) {
        let job = Arc::clone(&self.job);
        self.plan_by(&mut Ticks::of(&job));
    }

    fn plan_by(&mut self, ticks: &mut Ticks<'_>) {
        let next = ticks.next_after(self.done_until).filter(|_| self.job.enabled);
        self.next_due_at = next.map(|tick| tick.with_timezone(&Utc) + self.jitter);
    }
}

/// Creates the series, from zero, before the ledger is reachable.
fn make_series(context: &Context) {
    for job in context.jobs.iter() {
        context.metrics.patterns(&job.name, job.chosen.as_ref().map(ToString::to_string).as_deref());
        for database in &job.databases {
            context.metrics.job(&job.name, database, job.task.makes_dumps());
        }
    }
}

fn log_end(ended: &Ended) {
    let run = &ended.run;
    let (job, database, id) = (&run.job, &run.database, run.id.unwrap_or_default());
    let elapsed = units::duration(run.elapsed());
    match (&run.error, &run.report) {
        (Some(error), _) if run.outcome.needs_attention() => {
            tracing::error!(job, database, run = id, "{} after {elapsed}: {error}", run.outcome.in_words())
        }
        (Some(reason), _) => tracing::warn!(job, database, run = id, "skipped: {reason}"),
        (None, report) => {
            for warning in report.iter().flat_map(|report| &report.warnings) {
                tracing::warn!(job, database, run = id, "{warning}");
            }
            let summary = report.as_ref().map(|report| report.summary.as_str()).unwrap_or_default();
            tracing::info!(job, database, run = id, "succeeded in {elapsed}: {summary}");
        }
    }
    if let Some(delay) = ended.retry_in {
        tracing::info!(job, database, run = id, "next attempt in {}", units::duration(delay));
    }
}

/// Returns a metronome that beats every second, in UTC.
async fn metronome(beat: Arc<Notify>) -> Result<JobScheduler> {
    let scheduler = JobScheduler::new().await?;
    let job = CronJob::new_async("* * * * * *", move |_, _| {
        let beat = Arc::clone(&beat);
        Box::pin(async move { beat.notify_one() })
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// A thread that panicked while it held a lock left whole values behind: each is replaced at once, never built up in steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
