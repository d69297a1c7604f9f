//! Runs CREATE INDEX, REINDEX and DROP INDEX, each CONCURRENTLY: they work for hours under a lock that allows reads and writes,
//! and wait for every transaction that is older.
//!
//! A lock_timeout would cancel a build of hours at its very end, and leave an invalid index that every insert maintains. So only
//! the first lock has one, enforced by a second connection that observes; waits for old transactions are limited by
//! [`Limits::max_wait`], and the transaction that is waited for is named.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::config::limits::Limits;
use crate::pg;
use crate::work::RunContext;

/// The pause between two looks at a build.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS_AT_BUILDERS: u32 = 10;
/// The pause between two attempts to get the first lock.
const PAUSE: Duration = Duration::from_millis(500);
/// The time that a cancelled statement has to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for dropping what a cancelled build left, while a person waits for the end of the program.
const SWEEP_MILLISECONDS: &str = "5000";

pub struct Work<'a> {
    pub statement: String,
    /// Settings of the session: memory, parallel workers.
    pub settings: Vec<(&'static str, String)>,
    /// The phase in the run's progress.
    pub phase: &'a Phase,
    /// The expected size of the result, for a bar.
    pub expected_bytes: u64,
    /// The remains that it leaves when it is stopped.
    pub leaves: InvalidIndexes<'a>,
}

/// Invalid indexes of a table whose names show that a statement of ours began them.
#[derive(Clone, Copy)]
pub struct InvalidIndexes<'a> {
    /// The table's OID.
    pub table: i64,
    pub is_ours: &'a (dyn Fn(&str) -> bool + Send + Sync),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// It was given up; the text names who blocked it.
    Blocked(String),
}

/// The server's view of a build's progress.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
struct Look {
    phase: Option<String>,
    blocks_done: i64,
    blocks_total: i64,
    tuples_done: i64,
    tuples_total: i64,
    /// It waits for a lock that these sessions hold.
    blockers: Vec<String>,
    /// It waits for the end of a transaction, which comes after the first lock. DROP INDEX reports no phase.
    is_for_a_transaction: bool,
}

impl Look {
    fn share(&self) -> Option<f64> {
        let of = |done: i64, total: i64| (total > 0).then(|| (done as f64 / total as f64).clamp(0.0, 1.0));
        of(self.tuples_done, self.tuples_total).or(of(self.blocks_done, self.blocks_total))
    }

    /// Returns whether it is in the phase in which a build spends its time and counts.
    fn is_at_work(&self) -> bool {
        self.phase.as_deref().is_some_and(|phase| phase.starts_with("building index"))
    }
}

/// Runs on a separate connection, which has loaded nothing: ALTER INDEX and the like need stronger locks in a session that has
/// loaded pgvector.
pub async fn run(run: &RunContext<'_>, limits: &Limits, work: Work<'_>) -> Result<Ended> {
    let started = Instant::now();
    loop {
        let blocked = match once(run, limits, &work).await? {
            Attempt::Done => return Ok(Ended::Done),
            Attempt::GaveUp(who) => return Ok(Ended::Blocked(who)),
            Attempt::NoLock(who) => who,
        };
        if started.elapsed() >= limits.max_wait.0 {
            return Ok(Ended::Blocked(blocked));
        }
        // The build may have got its lock in the moment when it was cancelled: its remains would block it.
        run.or_cancelled(sweep(&run.settings, &work.leaves)).await?;
        run.or_cancelled(async {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        })
        .await?;
    }
}

/// Drops the remains of a stopped build, within the time that a cancelled run has. Anything that cannot be dropped now stays
/// invalid, and the next run drops it.
pub async fn sweep(settings: &pg::Settings, left: &InvalidIndexes<'_>) -> Result<Vec<String>> {
    let mut connection = settings.connect().await?;
    for attempt in 1.. {
        if builder(&mut connection, left.table).await?.is_none() {
            break;
        }
        // Our own statement returns before it has released its locks.
        if attempt == LOOKS_AT_BUILDERS {
            // The invalid indexes may belong to that other build.
            return Ok(Vec::new());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let invalid: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::text, x.relname::text FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
         WHERE i.indrelid = $1::bigint::oid AND NOT i.indisvalid",
    )
    .bind(left.table)
    .fetch_all(&mut connection)
    .await?;
    pg::set(&mut connection, "statement_timeout", SWEEP_MILLISECONDS).await?;
    let mut dropped = Vec::new();
    for (schema, name) in invalid.into_iter().filter(|(_, name)| (left.is_ours)(name)) {
        pg::execute(&mut connection, format!("DROP INDEX CONCURRENTLY IF EXISTS {}", pg::qualified(&schema, &name))).await?;
        dropped.push(name);
    }
    Ok(dropped)
}

enum Attempt {
    Done,
    /// The build did not begin.
    NoLock(String),
    /// The build began, and was cancelled while it waited.
    GaveUp(String),
}

async fn once(run: &RunContext<'_>, limits: &Limits, work: &Work<'_>) -> Result<Attempt> {
    let mut connection = run.or_cancelled(run.settings.connect()).await?;
    let mut observer = run.or_cancelled(run.settings.connect()).await?;
    let pid = run.or_cancelled(pg::backend_pid(&mut connection)).await?;
    // A lock_timeout or tablespace that the role or the database sets would end the build in its last waits, or put it elsewhere.
    for (name, value) in [("lock_timeout", "0"), ("default_tablespace", "")] {
        pg::set(&mut connection, name, value).await?;
    }
    for (name, value) in &work.settings {
        pg::set(&mut connection, name, value).await?;
    }
    let statement = pg::execute_counting(&mut connection, work.statement.clone());
    tokio::pin!(statement);
    let mut watch = Watch::default();
    let stop = loop {
        tokio::select! {
            biased;
            result = &mut statement => {
                return match result {
                    Ok(_) => Ok(Attempt::Done),
                    // It met another session's DDL, and the server chose this statement.
                    Err(error) if is_deadlock(&error) => Ok(Attempt::NoLock(pg::words_of(&error))),
                    Err(error) => Err(pg::in_its_own_words(error)).with_context(|| format!("cannot run: {}", work.statement)),
                };
            }
            () = run.cancel.cancelled() => break Stop::Cancelled,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // A look that fails is no reason to end hours of work.
        let Ok(look) = look(&mut observer, pid).await else { continue };
        if let Some(stop) = watch.judge(&look, limits, work) {
            break stop;
        }
    };
    pg::cancel_backend(&run.settings, pid).await.context("cancelling")?;
    match (tokio::time::timeout(STOP_TIMEOUT, statement).await, stop) {
        // The build ended in that very moment.
        (Ok(Ok(_)), Stop::NoLock(_) | Stop::GaveUp(_)) => Ok(Attempt::Done),
        (Ok(Err(error)), stop) if is_cancel(&error) => match stop {
            Stop::NoLock(who) => Ok(Attempt::NoLock(who)),
            Stop::GaveUp(who) => Ok(Attempt::GaveUp(who)),
            Stop::Cancelled => Err(Fault::new(Kind::Cancelled, "cancelled").into()),
        },
        (Ok(Err(error)), _) => Err(pg::in_its_own_words(error)),
        (_, Stop::Cancelled) => Err(Fault::new(Kind::Cancelled, "cancelled").into()),
        (Err(_), _) => anyhow::bail!("server process {pid} does not stop: {}", work.statement),
    }
}

enum Stop {
    NoLock(String),
    GaveUp(String),
    Cancelled,
}

#[derive(Default)]
struct Watch {
    waiting_since: Option<Instant>,
    /// True once it has the first lock: the index is being built, or the build waits.
    has_begun: bool,
    named: String,
    building_since: Option<(String, Instant)>,
    done_bytes: u64,
}

impl Watch {
    fn judge(&mut self, look: &Look, limits: &Limits, work: &Work<'_>) -> Option<Stop> {
        self.has_begun = self.has_begun
            || look.is_at_work()
            || look.is_for_a_transaction
            || look.phase.as_deref().is_some_and(|phase| phase.starts_with("waiting"));
        let phase = look.phase.as_deref().unwrap_or("waiting for its lock");
        if look.blockers.is_empty() {
            self.waiting_since = None;
            let said = self.how_far(look, phase);
            work.phase.say(&said);
            // This comes after the words, which say more in a log.
            let bytes = (work.expected_bytes as f64 * look.share().filter(|_| look.is_at_work()).unwrap_or(0.0)) as u64;
            work.phase.advance(bytes.saturating_sub(self.done_bytes));
            self.done_bytes = self.done_bytes.max(bytes);
            return None;
        }
        let waits = self.waiting_since.get_or_insert_with(Instant::now).elapsed();
        let who = look.blockers.join("; ");
        work.phase.say(&format!("{phase}: waiting for {who}"));
        // A short wait is not worth a message.
        if waits > Duration::from_secs(1) && self.named != who {
            tracing::warn!("{phase}: waiting for {who}");
            self.named.clone_from(&who);
        }
        if self.has_begun {
            (waits >= limits.max_wait.0).then(|| Stop::GaveUp(format!("waited {} for {who}", units::duration(waits))))
        } else {
            (waits >= limits.lock_timeout.0).then_some(Stop::NoLock(who))
        }
    }

    fn how_far(&mut self, look: &Look, phase: &str) -> String {
        let (true, Some(share)) = (look.is_at_work(), look.share()) else { return phase.to_owned() };
        // Each phase of a build counts from zero.
        if self.building_since.as_ref().is_none_or(|(of, _)| of != phase) {
            self.building_since = Some((phase.to_owned(), Instant::now()));
        }
        let since = self.building_since.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let left = if share > 0.02 && since > Duration::from_secs(2) {
            format!(", about {} left", units::duration(since.mul_f64((1.0 - share) / share)))
        } else {
            String::new()
        };
        format!("{phase}, {:.0} %{left}", share * 100.0)
    }
}

async fn look(observer: &mut PgConnection, pid: i32) -> Result<Look> {
    Ok(sqlx::query_as(
        concat!(
            "SELECT p.phase, coalesce(p.blocks_done, 0) AS blocks_done, coalesce(p.blocks_total, 0) AS blocks_total,
                coalesce(p.tuples_done, 0) AS tuples_done, coalesce(p.tuples_total, 0) AS tuples_total,
                CASE WHEN a.wait_event_type = 'Lock' THEN ARRAY(
                    SELECT ",
            pg::session_in_words!("b", "', in its transaction since ' || to_char(b.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z'"),
            " FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(a.pid)) ORDER BY b.xact_start LIMIT 3)
                    -- Of a prepared transaction the number of the process is 0.
                    || CASE WHEN 0 = ANY (pg_blocking_pids(a.pid)) THEN ARRAY(
                    SELECT DISTINCT format('prepared transaction %L (%s, since %s): COMMIT PREPARED or ROLLBACK PREPARED ends it', p.gid, p.owner,
                                           to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z')
                    FROM pg_locks w JOIN pg_locks h ON h.pid IS NULL AND h.granted
                         AND (w.locktype = 'transactionid' AND h.locktype = 'transactionid' AND h.transactionid = w.transactionid
                              OR w.locktype = 'virtualxid' AND h.virtualtransaction = w.virtualxid
                              OR w.locktype = 'relation' AND h.locktype = 'relation' AND h.database = w.database AND h.relation = w.relation)
                    JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = h.virtualtransaction
                    JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
                    WHERE w.pid = a.pid AND NOT w.granted LIMIT 3) ELSE '{}' END
                ELSE '{}' END AS blockers,
                coalesce(a.wait_event_type = 'Lock' AND a.wait_event IN ('virtualxid', 'transactionid'), false) AS is_for_a_transaction
         FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p USING (pid) WHERE a.pid = $1"
        ),
    )
    .bind(pid)
    .fetch_optional(observer)
    .await?
    .unwrap_or_default())
}

fn is_cancel(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("57014"))
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("40P01"))
}

/// Returns the holder of a build's lock on the table: nothing may touch its indexes then. Autovacuum gives way.
pub async fn builder(connection: &mut PgConnection, table: i64) -> Result<Option<String>> {
    Ok(sqlx::query_scalar(concat!(
        "SELECT ",
        pg::session_in_words!("a", "NULL"),
        " FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE l.locktype = 'relation' AND l.granted AND l.relation::bigint = $1 AND l.mode = 'ShareUpdateExclusiveLock'
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker' LIMIT 1"
    ))
    .bind(table)
    .fetch_optional(connection)
    .await?)
}
