//! Who keeps VACUUM from freeing the old forms of values. Until they end, a run would let the table grow that it is to make smaller.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use super::waiting::Waiting;
use crate::base::progress::Phase;
use crate::base::units;
use crate::live::governor::Go;
use crate::pg;
use crate::work::RunContext;

/// Returns the next transaction number: rows that are written later stay until every snapshot has passed it.
pub async fn now(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::xid::text").fetch_one(connection).await?)
}

/// Waits up to `max_wait` for those who keep rows that were replaced since `since`. Stops the run, and names them, if they do not end.
pub async fn wait(
    run: &RunContext<'_>,
    connection: &mut PgConnection,
    (since, dead_bytes): (&str, u64),
    max_wait: Duration,
    phase: &Phase,
) -> Result<Go> {
    let mut waiting = Waiting::new(run, phase, max_wait);
    loop {
        let Some(who) = run.or_cancelled(holders(connection, since)).await? else { return Ok(Go::On) };
        if !waiting.goes_on(&who).await? {
            return Ok(Go::Stop(remark(&who, dead_bytes)));
        }
    }
}

/// Says who keeps the space of old forms from being used again.
pub fn remark(who: &str, dead_bytes: u64) -> String {
    format!("VACUUM cannot free {} of old forms yet, because of {who}", units::bytes(dead_bytes))
}

/// Returns the sessions, prepared transactions and replication slots that keep rows which were replaced since `since`, the oldest first; None if there
/// are none. A role without pg_monitor sees only sessions of its own roles.
pub async fn holders(connection: &mut PgConnection, since: &str) -> Result<Option<String>> {
    let holders: Vec<String> = sqlx::query_scalar(concat!(
        "SELECT who FROM (
             SELECT greatest(age(a.backend_xmin), age(a.backend_xid)) AS age, ",
        pg::session_in_words!(
            "a",
            "', in its transaction since ' || to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z'"
        ),
        " AS who
             FROM pg_stat_activity a
             WHERE a.pid <> pg_backend_pid() AND (a.datname = current_database() AND a.usesysid IS NOT NULL OR a.backend_type = 'walsender')
               AND a.pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
             UNION ALL
             SELECT age(p.transaction), format('the prepared transaction %L since %sZ', p.gid, to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
             FROM pg_prepared_xacts p WHERE p.database = current_database()
             UNION ALL
             SELECT age(s.xmin), format('the replication slot %I', s.slot_name) FROM pg_replication_slots s
             WHERE s.xmin IS NOT NULL AND NOT s.active) held
         WHERE age >= age($1::text::xid) ORDER BY age DESC LIMIT 3"
    ))
    .bind(since)
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    Ok((!holders.is_empty()).then(|| holders.join("; ")))
}
