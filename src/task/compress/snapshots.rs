//! Old snapshots. A transaction that looks at the database as it was before the last bodies became text sees those rows in their
//! compressed form, whatever the table looks like by then: with the companion columns gone, it would read NULL, and no error.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::PgConnection;

use crate::base::progress::Phase;
use crate::base::units;
use crate::pg;
use crate::work::RunContext;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A number that every transaction of before has passed, or has not ended yet.
pub async fn horizon(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT pg_current_xact_id()::xid::text").fetch_one(connection).await?)
}

#[derive(sqlx::FromRow)]
struct Holder {
    transaction: String,
    who: String,
}

/// Waits until all transactions are gone that may see the database as it was before `horizon`, as CREATE INDEX CONCURRENTLY does:
/// those that are there now, as later ones begin with a newer look. Returns who is left after `give_up_after`.
pub async fn wait_for_old_snapshots(
    run: &RunContext<'_>,
    connection: &mut PgConnection,
    horizon: &str,
    give_up_after: Duration,
    phase: &Phase,
) -> Result<Option<String>> {
    let started = Instant::now();
    let mut left = holders(connection, horizon, None).await?;
    let mut named = String::new();
    while !left.is_empty() {
        let who = left.iter().map(|holder| holder.who.as_str()).take(3).collect::<Vec<_>>().join("; ");
        if started.elapsed() >= give_up_after {
            return Ok(Some(format!("waited {} for {who}", units::duration(started.elapsed()))));
        }
        phase.say(&format!("waiting for {who}"));
        // A short wait is nobody's business.
        if started.elapsed() > Duration::from_secs(1) && named != who {
            tracing::warn!("waiting for a transaction with an old view of the rows: {who}");
            named = who;
        }
        let pause = async {
            tokio::time::sleep(LOOK_EVERY).await;
            Ok(())
        };
        run.or_cancelled(pause).await?;
        let transactions: Vec<String> = left.into_iter().map(|holder| holder.transaction).collect();
        left = holders(connection, horizon, Some(transactions)).await?;
    }
    Ok(None)
}

/// Of this database, the oldest first. VACUUM reads nothing for anybody; who may not see a session's kind sees that autovacuum has
/// no user. A prepared transaction has a number, and no look at the database any more.
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
