//! Runs whose process is gone, and retries that nobody starts.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::Ledger;
use super::place::copied;
use super::rows::{Attempt, Row};
use crate::ledger::report::Outcome;

/// A scheduler looks for retries every two seconds: one that is due for this long has none.
const NOBODY_RETRIES_SECONDS: f64 = 60.0;

/// SQL: whether the process of row `r` is gone: the run has no end, no heartbeat for 15 s (120 s before it has its lock), and no session holds its lock.
/// `$own`: the runs of this process, which knows best that they live.
macro_rules! is_dead {
    ($own:literal) => {
        concat!(
            "(r.outcome IS NULL AND r.id <> ALL (",
            $own,
            ") AND r.heartbeat_at < clock_timestamp() - make_interval(secs => CASE WHEN r.locked_at IS NULL THEN 120 ELSE 15 END)
              AND NOT EXISTS (
                  SELECT FROM pg_locks l
                  WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                    AND ((l.classid::bigint << 32) | l.objid::bigint)
                        = hashtextextended('pgtend run ' || r.database || '/' || r.job, 0)))"
        )
    };
}
pub(super) use is_dead;

/// SQL: what is said of such a run.
macro_rules! died {
    () => {
        "format('the process died without reporting a result: pid %s on %s, last seen at %s', r.pid, r.host,
                to_char(r.heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'))"
    };
}
pub(super) use died;

/// SQL: the outcome of such a run, of row `r`, in a ledger that stands at the jsonb `$here`.
macro_rules! outcome_of_dead {
    ($here:literal) => {
        concat!("CASE WHEN ", copied!($here), " THEN 'cancelled' ELSE 'crashed' END")
    };
}
pub(super) use outcome_of_dead;

/// SQL: its error.
macro_rules! error_of_dead {
    ($here:literal) => {
        concat!(
            "CASE WHEN ", copied!($here), " THEN
                 'this ledger was restored or copied while the run was under way: the ledger of its own server says how it ended'
             ELSE ", died!(), " END"
        )
    };
}
pub(super) use error_of_dead;

/// SQL: sets the end of such runs.
macro_rules! crashed {
    ($here:literal) => {
        concat!("outcome = ", outcome_of_dead!($here), ", finished_at = heartbeat_at, error = ", error_of_dead!($here))
    };
}

/// SQL: all runs as they stand, as a table: those whose process is gone have their end, although nobody has written it. Who reads writes nothing: whoever marks
/// such a run tells people of it.
macro_rules! as_they_stand {
    ($own:literal, $here:literal) => {
        concat!(
            "(SELECT r.id, r.job, r.database, r.task, r.trigger, r.scheduled_for, r.attempt, r.retry_of, r.started_at, r.heartbeat_at, r.progress,
                     CASE WHEN d.is_dead THEN r.heartbeat_at ELSE r.finished_at END AS finished_at,
                     CASE WHEN d.is_dead THEN ", outcome_of_dead!($here), " ELSE r.outcome END AS outcome, r.report,
                     CASE WHEN d.is_dead THEN ", error_of_dead!($here), " ELSE r.error END AS error, r.stderr, r.retry_at, r.host, r.pid, r.version
              FROM pgtend.runs r CROSS JOIN LATERAL (SELECT ", is_dead!($own), " AS is_dead) d) r"
        )
    };
}
pub(super) use as_they_stand;

impl Ledger {
    /// Marks the runs whose process is gone, of other processes: no session holds their lock, and there is no heartbeat. Those with attempts left get
    /// one at once. Rows that came with a restored database get an end, too, and are not returned.
    pub async fn mark_crashed(&self) -> Result<Vec<Row>> {
        let place = self.place().await?;
        let own: Vec<i64> = self.own().iter().copied().collect();
        let ended = self.query(
            "look for crashed runs",
            sqlx::query_as(concat!(
                "UPDATE pgtend.runs r SET ",
                crashed!("$1"),
                ", retry_at = CASE WHEN attempt <= retries AND NOT (",
                copied!("$1"),
                ") THEN clock_timestamp() END
                 WHERE ",
                is_dead!("$2"),
                " RETURNING r.*"
            ))
            .bind(place)
            .bind(own)
            .fetch_all(&self.pool),
        );
        Ok(only_crashed(ended.await?))
    }

    /// Takes the retries of earlier runs that will not come: all, as a tick takes their place, or those for which nobody was there. Returns those runs.
    pub async fn give_up_retries(&self, job: &str, database: &str, before: i64, are_all: bool) -> Result<Vec<Row>> {
        self.query(
            "give up retries",
            sqlx::query_as(
                "UPDATE pgtend.runs SET retry_at = NULL
                 WHERE retry_at IS NOT NULL AND job = $1 AND database = $2 AND id < $3
                   AND ($4 OR retry_at < clock_timestamp() - make_interval(secs => $5)) RETURNING *",
            )
            .bind(job)
            .bind(database)
            .bind(before)
            .bind(are_all)
            .bind(NOBODY_RETRIES_SECONDS)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Takes the retries of these jobs that no scheduler has started within a day. Returns those runs.
    pub async fn give_up_old_retries(&self, jobs: &[&str]) -> Result<Vec<Row>> {
        let sql = "UPDATE pgtend.runs SET retry_at = NULL
                   WHERE retry_at <= clock_timestamp() - interval '1 day' AND job = ANY ($1) RETURNING *";
        self.query("give up retries", sqlx::query_as(sql).bind(jobs).fetch_all(&self.pool)).await
    }

    /// Returns the attempts that are due.
    pub async fn due_retries(&self) -> Result<Vec<Attempt>> {
        self.query(
            "look for retries",
            sqlx::query_as(
                "SELECT job, database, coalesce(retry_of, id) AS first, attempt + 1 AS attempt FROM pgtend.runs
                 WHERE retry_at <= clock_timestamp() AND retry_at > clock_timestamp() - interval '1 day'
                 ORDER BY retry_at LIMIT 1000",
            )
            .fetch_all(&self.pool),
        )
        .await
    }
}

/// Must be called on the connection that holds the run's lock: this run is the only one now, so rows of the same job that had the
/// lock before and have no end belong to processes that are gone. Returns those rows.
pub async fn mark_locked(connection: &mut PgConnection, id: i64) -> Result<Vec<Row>> {
    let crashed = sqlx::query_as(concat!(
        "WITH me AS (UPDATE pgtend.runs SET locked_at = clock_timestamp(), heartbeat_at = clock_timestamp()
                     WHERE id = $1 RETURNING job, database, progress)
         UPDATE pgtend.runs r SET ",
        crashed!("(me.progress -> 'ledger')"),
        " FROM me WHERE r.job = me.job AND r.database = me.database AND r.id <> $1 AND r.outcome IS NULL
                   AND r.locked_at IS NOT NULL
         RETURNING r.*"
    ))
    .bind(id)
    .fetch_all(connection)
    .await?;
    Ok(only_crashed(crashed))
}

fn only_crashed(ended: Vec<Row>) -> Vec<Row> {
    ended.into_iter().filter(|row| row.outcome.0 == Some(Outcome::Crashed)).collect()
}
