//! Asked by tasks that touch live tables before each step: go on, or stop for now? While the database is under
//! strain, the answer waits.
//!
//! What cannot be seen (a view that the role may not read) is not guarded against, and the report says so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use crate::fault::{self, Fault, Kind};
use crate::pg;
use crate::report::Report;
use crate::task::RunContext;
use crate::task::partition::with_schema;
use crate::units::{self, Size, Span};

/// Signals are asked for this often; steps are shorter.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const WAIT_STEP: Duration = Duration::from_secs(1);
/// Autovacuum on the table may take hours, and goes on beside us: it gets a start.
const AUTOVACUUM_WAIT: Duration = Duration::from_secs(60);
/// Between two looks at who waits for us.
const BLOCKED_EVERY: Duration = Duration::from_millis(100);

/// `[limits]` of a job, resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    pub lock_timeout: Span,
    pub statement_timeout: Span,
    pub batch_time: Span,
    pub pause: Option<Span>,
    pub run_for: Option<Span>,
    pub max_wait: Span,
    pub max_replica_lag: Size,
    pub max_slot_lag: Size,
    pub max_archive_backlog: u32,
    pub max_snapshot_age: Option<Span>,
    pub max_active_sessions: Option<u32>,
    /// Code that an owner put into the table may run with more rights than the owner has (task/foreign_code.rs).
    pub trust_owners: bool,
}

/// `[limits]` as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Longest wait for a lock on a table; default 2 s. Whoever comes after us in the queue waits as long.
    pub lock_timeout: Option<Span>,
    /// Longest time for one batch; default 30 s.
    pub statement_timeout: Option<Span>,
    /// Batches are made as large as fits in this time; default 20 ms.
    pub batch_time: Option<Span>,
    /// Between batches; default: a quarter of what the last one took.
    pub pause: Option<Span>,
    /// The run stops for now after this time; the next goes on where it stopped. Default none.
    pub run_for: Option<Span>,
    /// It stops for now when it had to wait this long for one thing; default 10 min.
    pub max_wait: Option<Span>,
    /// WAL that a replica has yet to replay; default 256 MiB.
    pub max_replica_lag: Option<Size>,
    /// WAL that a replication slot keeps; default 16 GiB.
    pub max_slot_lag: Option<Size>,
    /// WAL files that wait to be archived; default 64.
    pub max_archive_backlog: Option<u32>,
    /// Waits while a transaction is older than this; default none: it is only reported.
    pub max_snapshot_age: Option<Span>,
    /// Waits while more sessions than these are at work; default none.
    pub max_active_sessions: Option<u32>,
    /// false refuses a table with code of an owner (triggers, rules, CHECKs, expressions of indexes) that would run with more rights than that owner
    /// has; default true: a warning names it.
    pub trust_owners: Option<bool>,
}

impl From<Written> for Limits {
    fn from(written: Written) -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            lock_timeout: written.lock_timeout.unwrap_or(seconds(2)),
            statement_timeout: written.statement_timeout.unwrap_or(seconds(30)),
            // While a batch's WAL is on its way to the disk, the application's commits wait. On a disk that takes 150 MB/s,
            // the slowest hundredth of them waited 195 ms with batches of 200 ms, 84 with 20 (benches/retention.py --write-limit).
            batch_time: written.batch_time.unwrap_or(Span(Duration::from_millis(20))),
            pause: written.pause,
            run_for: written.run_for,
            max_wait: written.max_wait.unwrap_or(seconds(600)),
            max_replica_lag: written.max_replica_lag.unwrap_or(Size(256 << 20)),
            max_slot_lag: written.max_slot_lag.unwrap_or(Size(16 << 30)),
            max_archive_backlog: written.max_archive_backlog.unwrap_or(64),
            max_snapshot_age: written.max_snapshot_age,
            max_active_sessions: written.max_active_sessions,
            trust_owners: written.trust_owners.unwrap_or(true),
        }
    }
}

/// The governor's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Go {
    On,
    /// Not in this run; the reason.
    Stop(String),
}

pub struct Governor {
    connection: PgConnection,
    limits: Limits,
    table: Option<i64>,
    started: Instant,
    looked: Option<Instant>,
    waits: BTreeMap<&'static str, Waited>,
    /// Seen, and worth telling.
    remarks: BTreeMap<&'static str, String>,
    autovacuum_waited: Duration,
    blocked: u64,
    /// WAL is archived, and the role may see how far.
    sees_archiving: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waited {
    times: u32,
    time: Duration,
}

/// What the server shows. None: not to this role, or there is nothing of the kind.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
struct Signals {
    replica_lag_bytes: Option<i64>,
    slot_lag_bytes: Option<i64>,
    slot: Option<String>,
    #[sqlx(skip)]
    archive_backlog: Option<i64>,
    autovacuum: bool,
    snapshot_age_seconds: Option<f64>,
    active_sessions: i64,
    hidden: bool,
}

impl Governor {
    /// `table`: the oid of the table that is worked on. Its connection is its own, so that it can look while a step runs.
    pub async fn start(run: &RunContext<'_>, limits: &Limits, table: Option<i64>) -> Result<Self> {
        let mut connection = run.settings.connect().await.context("the governor's connection")?;
        // Asked before: a function that may not be called fails its statement wherever it stands in it.
        let sees_archiving = sqlx::query_scalar(
            "SELECT current_setting('archive_mode') <> 'off' AND has_function_privilege('pg_ls_archive_statusdir()', 'EXECUTE')",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(Self {
            connection,
            sees_archiving,
            limits: limits.clone(),
            table,
            started: Instant::now(),
            looked: None,
            waits: BTreeMap::new(),
            remarks: BTreeMap::new(),
            autovacuum_waited: Duration::ZERO,
            blocked: 0,
        })
    }

    /// Comes back when a step may go, or when no more should in this run.
    pub async fn go(&mut self) -> Result<Go> {
        if let Some(limit) = self.limits.run_for.filter(|limit| self.started.elapsed() >= limit.0) {
            return Ok(Go::Stop(format!("run_for ({limit}) is over")));
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
            let Some((what, why)) = strain(&signals, &self.limits, self.autovacuum_waited) else { return Ok(Go::On) };
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

    /// Does `work`, and counts the sessions that wait for the locks of server process `pid` meanwhile. More than none
    /// is a reason for smaller steps.
    pub async fn watch<T>(&mut self, pid: i32, work: impl Future<Output = T>) -> (T, u64) {
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
            // Only the many sessions of a lock's queue are asked who blocks them: pg_blocking_pids takes a heavy lock.
            let count = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND $1 = ANY (pg_blocking_pids(pid))",
            )
            .bind(pid)
            .fetch_one(&mut self.connection);
            // Dropped half-asked, the answer is read before the next question (sqlx-postgres, wait_until_ready).
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

    /// It has waited for something.
    pub fn is_strained(&self) -> bool {
        !self.waits.is_empty()
    }

    /// How long to rest after a batch that took so long.
    pub fn pause_after(&self, batch: Duration) -> Duration {
        self.limits.pause.map_or(batch / 4, |pause| pause.0)
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits, by what they were for, and what else was seen.
    pub fn report(&self, report: &mut Report) {
        let waits: serde_json::Map<_, _> = self
            .waits
            .iter()
            .map(|(what, waited)| ((*what).to_owned(), json!({ "times": waited.times, "seconds": waited.time.as_secs_f64() })))
            .collect();
        report.fact("waits", waits);
        report.fact("sessions_blocked", self.blocked);
        report.warnings.extend(self.remarks.values().cloned());
    }

    fn remark(&mut self, signals: &Signals) {
        if signals.hidden {
            self.remarks.insert(
                "hidden",
                "the role cannot see replication and WAL archiving (GRANT pg_monitor): they are not guarded against".to_owned(),
            );
        }
        if let Some(age) = signals.snapshot_age_seconds.filter(|age| *age > 3600.0) {
            let age = units::duration(Duration::from_secs_f64(age));
            self.remarks
                .insert("snapshot", format!("a transaction has been open for {age}: until it ends, no space is given back"));
        }
    }
}

const AUTOVACUUM: &str = "autovacuum";

/// Pure: the first reason to wait.
fn strain(signals: &Signals, limits: &Limits, autovacuum_waited: Duration) -> Option<(&'static str, String)> {
    let over = |value: Option<i64>, limit: u64| value.filter(|value| *value > 0 && *value as u64 > limit);
    if let Some(lag) = over(signals.replica_lag_bytes, limits.max_replica_lag.0) {
        return Some((
            "replica_lag",
            format!("a replica is {} behind (max_replica_lag {})", units::bytes(lag as u64), limits.max_replica_lag),
        ));
    }
    if let Some(lag) = over(signals.slot_lag_bytes, limits.max_slot_lag.0) {
        let slot = signals.slot.as_deref().unwrap_or_default();
        return Some((
            "slot_lag",
            format!("replication slot {slot} keeps {} of WAL (max_slot_lag {})", units::bytes(lag as u64), limits.max_slot_lag),
        ));
    }
    if let Some(files) = over(signals.archive_backlog, limits.max_archive_backlog.into()) {
        return Some((
            "archive_backlog",
            format!("{files} WAL files wait to be archived (max_archive_backlog {})", limits.max_archive_backlog),
        ));
    }
    if let (Some(age), Some(limit)) = (signals.snapshot_age_seconds, limits.max_snapshot_age)
        && age > limit.0.as_secs_f64()
    {
        let age = units::duration(Duration::from_secs_f64(age));
        return Some(("snapshot", format!("a transaction has been open for {age} (max_snapshot_age {limit})")));
    }
    if let Some(limit) = limits.max_active_sessions.filter(|limit| signals.active_sessions > i64::from(*limit)) {
        return Some((
            "active_sessions",
            format!("{} sessions are at work (max_active_sessions {limit})", signals.active_sessions),
        ));
    }
    if signals.autovacuum && autovacuum_waited < AUTOVACUUM_WAIT {
        return Some((AUTOVACUUM, "autovacuum works on the table".to_owned()));
    }
    None
}

async fn signals(connection: &mut PgConnection, table: Option<i64>) -> Result<Signals> {
    sqlx::query_as(include_str!("governor.sql"))
        .bind(table)
        .fetch_one(connection)
        .await
        .map_err(pg::in_its_own_words)
        .context("cannot look at the server's state")
}

/// How long to wait for a lock while holding others: half of deadlock_timeout at the most. A client that waits for one of
/// ours while we wait for one of its own looks for a deadlock after that time, finds it, and fails. We let go first.
pub async fn patience(connection: &mut PgConnection, lock_timeout: Duration) -> Result<Duration> {
    let milliseconds: i64 = sqlx::query_scalar("SELECT setting::bigint FROM pg_settings WHERE name = 'deadlock_timeout'")
        .fetch_one(connection)
        .await?;
    Ok(lock_timeout.min(Duration::from_millis((milliseconds / 2).max(1) as u64)))
}

/// lock_not_available, deadlock_detected.
pub fn is_lock_trouble(error: &anyhow::Error) -> bool {
    pg::sql_state(error).is_some_and(|state| matches!(state.as_str(), "55P03" | "40P01"))
}

/// An error that says who holds the lock, where that was it.
pub async fn naming_holders(run: &RunContext<'_>, table: &str, error: anyhow::Error) -> anyhow::Error {
    if !is_lock_trouble(&error) {
        return error;
    }
    let holders = async {
        let mut connection = run.settings.connect().await?;
        let oid: Option<i64> =
            sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint").bind(with_schema(table)).fetch_one(&mut connection).await?;
        pg::lock_holders(&mut connection, &[oid.unwrap_or_default()]).await
    };
    let who = holders.await.ok().filter(|who| !who.is_empty()).unwrap_or_else(|| fault::in_a_line(&error));
    Fault::new(Kind::NotNow, format!("{table} is locked: {who}")).into()
}

/// A batch's size, made to fit a time: half as much when it took twice as long, or when somebody waited for it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    size: f64,
    least: f64,
    most: f64,
}

impl Pace {
    pub fn new(start: u64, least: u64, most: u64) -> Self {
        Self { size: start as f64, least: least as f64, most: most as f64 }
    }

    pub fn size(&self) -> u64 {
        self.size as u64
    }

    pub fn took(&mut self, elapsed: Duration, target: Duration, blocked: u64) {
        let factor = target.as_secs_f64() / elapsed.as_secs_f64().max(0.001);
        let factor = if blocked > 0 { factor.min(0.5) } else { factor };
        self.size = (self.size * factor.clamp(0.25, 1.5)).clamp(self.least, self.most);
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "batches of about {}, lock_timeout {}, statement_timeout {}; waits above {} of replica lag, {} kept by a slot, {} WAL files to archive",
            self.batch_time,
            self.lock_timeout,
            self.statement_timeout,
            self.max_replica_lag,
            self.max_slot_lag,
            self.max_archive_backlog
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_over_its_limit_is_a_reason_to_wait() {
        let limits = Limits {
            max_snapshot_age: Some(Span(Duration::from_secs(60))),
            max_active_sessions: Some(10),
            ..Limits::from(Written::default())
        };
        let reason = |signals: Signals| strain(&signals, &limits, Duration::ZERO).map(|(what, _)| what);
        assert_eq!(reason(Signals::default()), None);
        assert_eq!(reason(Signals { replica_lag_bytes: Some(1 << 30), ..Signals::default() }), Some("replica_lag"));
        assert_eq!(reason(Signals { replica_lag_bytes: Some(1 << 20), ..Signals::default() }), None);
        assert_eq!(reason(Signals { slot_lag_bytes: Some(1 << 40), ..Signals::default() }), Some("slot_lag"));
        assert_eq!(reason(Signals { archive_backlog: Some(65), ..Signals::default() }), Some("archive_backlog"));
        assert_eq!(reason(Signals { snapshot_age_seconds: Some(61.0), ..Signals::default() }), Some("snapshot"));
        assert_eq!(reason(Signals { active_sessions: 11, ..Signals::default() }), Some("active_sessions"));
        let vacuum = Signals { autovacuum: true, ..Signals::default() };
        assert_eq!(reason(vacuum.clone()), Some(AUTOVACUUM));
        assert_eq!(strain(&vacuum, &limits, AUTOVACUUM_WAIT), None, "it had its start");
    }

    #[test]
    fn batches_grow_and_shrink_towards_their_time() {
        let target = Duration::from_millis(200);
        let mut pace = Pace::new(1000, 10, 2000);
        pace.took(Duration::from_millis(100), target, 0);
        assert_eq!(pace.size(), 1500);
        pace.took(Duration::from_millis(1), target, 0);
        assert_eq!(pace.size(), 2000, "no more than the most");
        pace.took(Duration::from_millis(400), target, 0);
        assert_eq!(pace.size(), 1000);
        pace.took(Duration::from_millis(200), target, 3);
        assert_eq!(pace.size(), 500, "somebody waited");
        for _ in 0..20 {
            pace.took(Duration::from_secs(10), target, 0);
        }
        assert_eq!(pace.size(), 10, "no less than the least");
    }
}
