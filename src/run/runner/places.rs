//! `max_concurrent` of a database limits the runs at once on it, of all jobs and by all runners that share the ledger. Each place
//! is an advisory lock in the ledger's database. The connection that holds the run's own lock holds it as well, so it ends with
//! the run, however that ends. What strangers hold counts for nothing.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg;
use crate::work::RunContext;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns when the run has a place, or needs none. No timeout counts this wait.
pub async fn take(connection: &mut PgConnection, run: &RunContext<'_>) -> Result<()> {
    let Some(configured) = run.config.database(run.database) else { return Ok(()) };
    let Some(places) = configured.max_concurrent else { return Ok(()) };
    let group = configured.group.as_deref();
    let name = |place: u32| match group {
        Some(group) => format!("pgtend place group {group}/{place}"),
        None => format!("pgtend place {}/{place}", run.database),
    };
    let of = group.map_or_else(|| format!("database `{}`", run.database), |group| format!("group `{group}`"));
    let mut is_told = false;
    loop {
        for place in 1..=places {
            if pg::try_lock(connection, &name(place)).await? {
                return Ok(());
            }
        }
        if let Some(stranger) = stranger(connection, &(1..=places).map(name).collect::<Vec<_>>()).await? {
            tracing::warn!(
                job = run.job.name,
                database = run.database,
                "does not wait for a place on {of} (max_concurrent), as {stranger} holds one, which may not write the ledger: this process limits its own runs \
                 alone. End that session, and REVOKE CONNECT ON DATABASE of the ledger FROM PUBLIC"
            );
            return Ok(());
        }
        if !is_told {
            is_told = true;
            let holder =
                pg::lock_holder(connection, &name(1)).await?.map(|holder| format!(", as {holder} does")).unwrap_or_default();
            tracing::warn!(
                job = run.job.name,
                database = run.database,
                "waits until fewer than {places} run on {of} (max_concurrent){holder}"
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns who holds one of these locks and is no runner of this ledger: whoever may connect to its database can take them, and would stop all runs. A runner
/// has this login, or may write runs. A prepared transaction has no session.
async fn stranger(connection: &mut PgConnection, names: &[String]) -> Result<Option<String>> {
    let stranger = sqlx::query_scalar(
        "SELECT coalesce(pg_catalog.format('server process %s of role %s', a.pid, a.usename), 'a prepared transaction')
         FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
         WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted AND l.objsubid OPERATOR(pg_catalog.=) 1
           AND l.database OPERATOR(pg_catalog.=)
               (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
           AND ((l.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) l.objid::pg_catalog.int8) OPERATOR(pg_catalog.=) ANY
               (SELECT pg_catalog.hashtextextended(name, 0) FROM pg_catalog.unnest($1::pg_catalog.text[]) name)
           AND (l.pid IS NULL
                OR (a.usename OPERATOR(pg_catalog.<>) session_user
                    AND NOT coalesce(pg_catalog.has_table_privilege(a.usesysid, 'pgtend.runs', 'INSERT'), false)))
         LIMIT 1",
    );
    stranger.bind(names).fetch_optional(connection).await.map_err(pg::in_its_own_words)
}
