//! Waits for old snapshots. A transaction whose snapshot is older than the moment when the last values became text again sees those
//! rows in their compressed form: once the companion columns are dropped, it would read NULL, without any error.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use super::waiting::Waiting;
use crate::base::progress::Phase;
use crate::base::units;
use crate::pg;
use crate::work::RunContext;

/// Returns a transaction number. Snapshots that were taken before have a smaller xmin, or the same one.
pub async fn horizon(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT pg_current_xact_id()::xid::text").fetch_one(connection).await?)
}

#[derive(sqlx::FromRow)]
struct Holder {
    transaction: String,
    who: String,
}

/// Waits, as CREATE INDEX CONCURRENTLY does, until all transactions have ended that may see the database as it was before `horizon`.
/// Only those that run now matter, because later ones begin with a newer snapshot. Returns the sessions that are left after
/// `give_up_after`, or None.
pub async fn wait_for_old_snapshots(
    run: &RunContext<'_>,
    connection: &mut PgConnection,
    horizon: &str,
    give_up_after: Duration,
    phase: &Phase,
) -> Result<Option<String>> {
    let mut waiting = Waiting::new(run, phase, give_up_after);
    let mut left = holders(connection, horizon, None).await?;
    while !left.is_empty() {
        let who = left.iter().map(|holder| holder.who.as_str()).take(3).collect::<Vec<_>>().join("; ");
        if !waiting.goes_on(&who).await? {
            return Ok(Some(format!("waited {} for {who}", units::duration(waiting.elapsed()))));
        }
        let transactions: Vec<String> = left.into_iter().map(|holder| holder.transaction).collect();
        left = holders(connection, horizon, Some(transactions)).await?;
    }
    Ok(None)
}

/// Returns the sessions of this database that hold such snapshots, the oldest first. VACUUM does not count, because it returns no
/// rows; a role that may not see a session's kind recognizes autovacuum by its missing user. Nor does a prepared transaction, which
/// has no snapshot any more.
async fn holders(connection: &mut PgConnection, horizon: &str, among: Option<Vec<String>>) -> Result<Vec<Holder>> {
    sqlx::query_as(concat!(
        "SELECT l.virtualxid AS transaction, ",
        pg::session_in_words!(
            "a",
            "', in its transaction since ' || to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z'"
        ),
        " AS who
         FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock'
         WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
           AND age(a.backend_xmin) >= age($1::text::xid) AND a.pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
           AND ($2::text[] IS NULL OR l.virtualxid = ANY ($2))
         ORDER BY age(a.backend_xmin) DESC"
    ))
    .bind(horizon)
    .bind(among)
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)
}
