//! Tasks that touch live tables ask the governor before each step whether to go on or to stop for now. While the database is
//! under strain, it waits with its answer; while commits of others take longer than allowed, steps get smaller and rests longer.
//!
//! Limits that it cannot see (a view that the role may not read) are not enforced, and the report says so.

mod load;
mod pace;
mod probe;
mod strain;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
pub use load::Steps;
use load::{Throttle, Verdict, Window};
pub use pace::{Pace, is_lock_trouble, lock_timeout_for, with_lock_holders};
use probe::Prober;
use serde_json::json;
use sqlx::PgConnection;
use strain::{AUTOVACUUM, Signals, signals, strain};

use crate::base::progress::Progress;
use crate::base::units;
use crate::config::limits::Limits;
use crate::ledger::report::Report;
use crate::pg;
use crate::work::RunContext;

/// The interval at which it reads signals; steps are shorter.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const WAIT_STEP: Duration = Duration::from_secs(1);
/// The interval at which it looks for sessions that wait for the run.
const BLOCKED_EVERY: Duration = Duration::from_millis(100);
/// The observations of this time are one measurement.
const WINDOW: Duration = Duration::from_secs(5);
/// The length of a rest in which it learns how long commits take without the run, while others are active.
const IDLE_REST: Duration = Duration::from_millis(1200);
const IDLE_EVERY: Duration = Duration::from_secs(20);
/// Another session must be active at this many looks of [`LOOK_EVERY`] in a row.
const LOOKS_IN_A_ROW: u32 = 4;
/// The longest rest between pieces of work that take minutes.
const LONGEST_BETWEEN: Duration = Duration::from_secs(60);
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The governor's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Go {
    On,
    /// The task should stop for this run, for this reason.
    Stop(String),
}

pub struct Governor {
    connection: PgConnection,
    settings: pg::Settings,
    progress: Progress,
    limits: Limits,
    table: Option<i64>,
    started: Instant,
    looked: Option<Instant>,
    waits: BTreeMap<&'static str, Waited>,
    /// Observations that belong into the report.
    remarks: BTreeMap<&'static str, String>,
    autovacuum_waited: Duration,
    blocked: u64,
    /// True when WAL is archived, and the role may see how far.
    sees_archiving: bool,
    others: OtherSessions,
    /// The task's progress now, and when it began.
    reached: Option<(f64, f64)>,
}

/// The facts about sessions beside the run, and the resulting throttle.
struct OtherSessions {
    /// True when the task can make its steps smaller.
    is_in_batches: bool,
    /// `None` until another session is seen active: a run that is alone costs only its looks.
    prober: Option<Prober>,
    seen_at: Option<Instant>,
    is_first_look: bool,
    looks_in_a_row: u32,
    throttle: Throttle,
    idle: Option<Window>,
    idle_at: Option<Instant>,
    window_began: Instant,
    last: Option<Window>,
    /// The smallest batches and the longest rests so far, and how long the run was slowed down. `None` before a window has ended:
    /// nothing was measured.
    slowest: Option<Throttle>,
    slowed: Duration,
    said_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waited {
    times: u32,
    time: Duration,
}

impl Governor {
    /// Starts the governor. `table` is the OID of the table that the run works on. Its connection is separate, so that it can
    /// look while a step runs.
    pub async fn start(run: &RunContext<'_>, limits: &Limits, table: Option<i64>) -> Result<Self> {
        let mut connection = run.settings.connect().await.context("the governor's connection")?;
        // This is asked first: a function that may not be called fails the whole statement that contains it.
        let sees_archiving = sqlx::query_scalar(
            "SELECT current_setting('archive_mode') <> 'off' AND has_function_privilege('pg_ls_archive_statusdir()', 'EXECUTE')",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(Self {
            connection,
            settings: run.settings.clone(),
            progress: run.progress.clone(),
            sees_archiving,
            limits: limits.clone(),
            table,
            started: Instant::now(),
            looked: None,
            waits: BTreeMap::new(),
            remarks: BTreeMap::new(),
            autovacuum_waited: Duration::ZERO,
            blocked: 0,
            others: OtherSessions::new(),
            reached: None,
        })
    }

    /// Returns when a step may start, or when no more should in this run.
    pub async fn go(&mut self) -> Result<Go> {
        if let Some(over) = self.run_for_is_over() {
            return Ok(over);
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(Go::On);
        }
        let mut waited = Duration::ZERO;
        loop {
            let mut signals = signals(&mut self.connection, self.table).await?;
            if self.sees_archiving {
                let backlog = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
                signals.archive_backlog = Some(sqlx::query_scalar(backlog).fetch_one(&mut self.connection).await?);
            }
            self.looked = Some(Instant::now());
            self.remark(&signals);
            let Some((what, why)) = strain(&signals, &self.limits, self.autovacuum_waited) else {
                self.adjust_to_others(signals.others > 0).await;
                return Ok(Go::On);
            };
            if let Some(over) = self.run_for_is_over() {
                return Ok(over);
            }
            if waited >= self.limits.max_wait.0 {
                return Ok(Go::Stop(format!("waited {} for {why}", units::duration(waited))));
            }
            if waited.is_zero() {
                tracing::info!("waiting: {why}");
                self.waits.entry(what).or_default().times += 1;
            }
            tokio::time::sleep(WAIT_STEP).await;
            waited += WAIT_STEP;
            self.waits.entry(what).or_default().time += WAIT_STEP;
            if what == AUTOVACUUM {
                self.autovacuum_waited += WAIT_STEP;
            }
        }
    }

    /// Runs `work`, and counts the sessions that wait for the locks of server process `pid` meanwhile. If there are any, steps
    /// should be smaller.
    pub async fn watch<T>(&mut self, pid: i32, work: impl Future<Output = T>) -> (T, u64) {
        if !self.others.is_in_batches {
            self.others.is_in_batches = true;
            // The sessions beside it are read before the second batch.
            self.looked = None;
        }
        tokio::pin!(work);
        let mut blocked = 0;
        loop {
            tokio::select! {
                result = &mut work => {
                    self.blocked += blocked;
                    return (result, blocked);
                }
                () = tokio::time::sleep(BLOCKED_EVERY) => {}
            }
            // Only the many sessions in a lock's queue are asked who blocks them: pg_blocking_pids takes a heavy lock.
            let count = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND $1 = ANY (pg_blocking_pids(pid))",
            )
            .bind(pid)
            .fetch_one(&mut self.connection);
            // If it is dropped during a query, the answer is read before the next one (sqlx-postgres, wait_until_ready).
            tokio::select! {
                biased;
                count = count => blocked = blocked.max(count.unwrap_or(0) as u64),
                result = &mut work => {
                    self.blocked += blocked;
                    self.looked = None;
                    return (result, blocked);
                }
            }
        }
    }

    /// Returns whether it has waited for something.
    pub fn is_strained(&self) -> bool {
        !self.waits.is_empty()
    }

    /// Returns how long to rest after a batch that took `batch`, and was intended to take `target`.
    pub fn pause_after(&self, batch: Duration, target: Duration) -> Duration {
        let rest = self.others.throttle.rest_after(batch, target);
        match self.limits.pause {
            Some(pause) if self.others.throttle == Throttle::FULL => pause.0,
            Some(pause) => rest.max(pause.0),
            None => rest,
        }
    }

    /// Returns how a batch that takes seconds is done in steps; `None`: at once, as no other session is active. Before the first look,
    /// others may be.
    pub fn steps(&self) -> Option<Steps> {
        let throttle = if self.others.is_in_batches { self.others.throttle } else { Throttle::START };
        let is_considerate = self.limits.max_slowdown > 0.0 && throttle != Throttle::FULL;
        is_considerate.then(|| Steps::new(throttle, self.limits.batch_time.0))
    }

    /// Returns the rest between long pieces of work, each complete in itself: it rests only while others are active.
    pub fn rest_between(&self, piece: Duration) -> Duration {
        if self.others.throttle == Throttle::FULL {
            return Duration::ZERO;
        }
        self.others.throttle.rest_after(piece, piece).min(LONGEST_BETWEEN)
    }

    /// Returns how long a batch may take of its intended time, out of consideration for other sessions.
    pub fn scaled(&self, batch_time: Duration) -> Duration {
        self.others.throttle.of(batch_time)
    }

    /// Sets the task's progress, from 0 to 1.
    pub fn reached(&mut self, share: f64) {
        let from = self.reached.map_or(share, |(from, _)| from);
        self.reached = Some((from, share));
    }

    fn run_for_is_over(&self) -> Option<Go> {
        let limit = self.limits.run_for.filter(|limit| self.started.elapsed() >= limit.0)?;
        let pace = self.pace_in_words().map(|pace| format!(": {pace}")).unwrap_or_default();
        Some(Go::Stop(format!("run_for ({limit}) is over{pace}")))
    }

    /// Describes how far it came, and when it will finish.
    fn pace_in_words(&self) -> Option<String> {
        let of_phase = || {
            let now = self.progress.now()?;
            let total = now.total_bytes.filter(|total| *total > 0)?;
            Some((0.0, now.done_bytes as f64 / total as f64))
        };
        let (from, share) = self.reached.or_else(of_phase)?;
        load::pace_in_words(from, share, self.started.elapsed(), self.limits.run_for.map(|limit| limit.0))
    }

    /// Makes steps smaller, or larger again, by what others experience.
    async fn adjust_to_others(&mut self, others_are_active: bool) {
        if self.limits.max_slowdown <= 0.0 || !self.others.is_in_batches {
            return;
        }
        let now = Instant::now();
        // A monitor that runs an occasional query is not an application. Sessions that are active at the very beginning count as
        // one.
        self.others.looks_in_a_row = if others_are_active { self.others.looks_in_a_row + 1 } else { 0 };
        let is_first = std::mem::replace(&mut self.others.is_first_look, false);
        if others_are_active && (is_first || self.others.looks_in_a_row >= LOOKS_IN_A_ROW) {
            if self.others.seen_at.is_none_or(|at| at.elapsed() > WINDOW) {
                self.others.throttle = Throttle::START;
                self.others.window_began = now;
            }
            self.others.seen_at = Some(now);
        }
        if self.others.seen_at.is_none_or(|at| at.elapsed() > WINDOW) {
            self.others.throttle = Throttle::FULL;
            self.others.window_began = now;
            return;
        }
        if self.others.prober.is_none() {
            self.others.prober = Some(Prober::start(self.settings.clone()));
        }
        if self.others.idle_at.is_none_or(|at| at.elapsed() > IDLE_EVERY) {
            self.learn_idle().await;
        }
        let elapsed = self.others.window_began.elapsed();
        if elapsed < WINDOW {
            return;
        }
        let Some(prober) = &self.others.prober else { return };
        let window = prober.take_work();
        let (throttle, verdict) =
            load::decide(self.others.throttle, &window, self.others.idle.as_ref(), self.limits.max_slowdown);
        if self.others.throttle != Throttle::FULL {
            self.others.slowed += elapsed;
        }
        // The one that the window was worked with counts as well: a run begins with small batches.
        let slowest = self.others.slowest.unwrap_or(Throttle::FULL);
        self.others.slowest = Some(slowest.slower_of(self.others.throttle).slower_of(throttle));
        self.others.throttle = throttle;
        self.others.last = Some(window);
        self.others.window_began = Instant::now();
        self.say(verdict);
    }

    /// Rests, to measure commits without the run.
    async fn learn_idle(&mut self) {
        let Some(prober) = &self.others.prober else { return };
        prober.rest(true);
        tokio::time::sleep(IDLE_REST).await;
        if let Some(idle) = prober.take_idle() {
            self.others.idle = Some(idle);
        }
        prober.rest(false);
        self.others.idle_at = Some(Instant::now());
        // A window measures work only.
        self.others.window_began += IDLE_REST;
    }

    /// Logs from time to time that it is slowed down, and when it will finish.
    fn say(&mut self, verdict: Verdict) {
        if self.others.throttle == Throttle::FULL || self.others.said_at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        self.others.said_at = Some(Instant::now());
        let pace = self.pace_in_words().map(|pace| format!("; {pace}")).unwrap_or_default();
        tracing::info!(
            "slowed down for other sessions ({verdict}): batches of {}{pace}",
            units::duration(self.scaled(self.limits.batch_time.0))
        );
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reports waits by their reason, and other observations.
    pub fn report(&self, report: &mut Report) {
        let waits: serde_json::Map<_, _> = self
            .waits
            .iter()
            .map(|(what, waited)| ((*what).to_owned(), json!({ "times": waited.times, "seconds": waited.time.as_secs_f64() })))
            .collect();
        report.fact("waits", waits);
        report.fact("sessions_blocked", self.blocked);
        if let Some(prober) = &self.others.prober {
            let mut others = json!({
                "probes": prober.count(),
                "idle_ms": self.others.idle.and_then(|idle| idle.commits),
                "commit_ms": self.others.last.and_then(|last| last.commits),
            });
            if let Some(slowest) = self.others.slowest {
                others["slowed_seconds"] = self.others.slowed.as_secs_f64().into();
                others["smallest_batch"] = slowest.batch.into();
                others["longest_rest"] = slowest.rest.into();
            }
            report.fact("beside_others", others);
            report.warnings.extend(prober.why_not());
        }
        report.warnings.extend(self.remarks.values().cloned());
    }

    fn remark(&mut self, signals: &Signals) {
        if signals.hidden {
            self.remarks.insert(
                "hidden",
                "the role cannot see replication and WAL archiving (GRANT pg_monitor): these limits are not enforced".to_owned(),
            );
        }
        if let Some(age) = signals.snapshot_age_seconds.filter(|age| *age > 3600.0) {
            let age = units::duration(Duration::from_secs_f64(age));
            self.remarks
                .insert("snapshot", format!("a transaction has been open for {age}: until it ends, VACUUM cannot free space"));
        }
    }
}

impl OtherSessions {
    fn new() -> Self {
        Self {
            is_in_batches: false,
            prober: None,
            seen_at: None,
            is_first_look: true,
            looks_in_a_row: 0,
            throttle: Throttle::FULL,
            idle: None,
            idle_at: None,
            window_began: Instant::now(),
            last: None,
            slowest: None,
            slowed: Duration::ZERO,
            said_at: None,
        }
    }
}
