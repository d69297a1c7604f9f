//! Counts how often indexes and large tables were used, and tells the checks what changed since the last audit.

use anyhow::Result;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::context::{AuditContext, begin, end};
use super::document::Document;
use super::probe::reason_unknown;
use super::usage::{Counter, carried, is_reset};
use crate::pg;

/// The setting by which the queries of the checks read it (JSON). It is of this session alone.
const SETTING: &str = "pgtend.usage";

/// The counters of indexes of tables with 1,000 rows, and of tables of 16 MiB; the rows of tables that have 100: the largest.
const COUNTERS: &str = "
    (SELECT 'index' AS kind, format('%I.%I', n.nspname, c.relname) AS name,
            CASE c.relkind WHEN 'I' THEN (SELECT coalesce(sum(pg_stat_get_numscans(h.inhrelid)), 0)::bigint FROM pg_inherits h WHERE h.inhparent = c.oid) ELSE pg_stat_get_numscans(c.oid) END AS scans, 0::bigint AS rows
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT i.indisunique AND i.indisvalid AND NOT c.relispartition AND (t.relkind = 'p' OR t.reltuples >= 1000) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\\_%'
     ORDER BY c.relpages DESC, 2 LIMIT 3000)
    UNION ALL
    (SELECT 'table', format('%I.%I', n.nspname, c.relname), pg_stat_get_numscans(c.oid), pg_stat_get_tuples_returned(c.oid)
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpages::bigint * current_setting('block_size')::bigint >= 16777216 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\\_%'
     ORDER BY c.relpages DESC, 2 LIMIT 1000)
    UNION ALL
    (SELECT 'growth', format('%I.%I', n.nspname, c.relname), pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid), c.reltuples::bigint
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND NOT c.relispartition AND c.reltuples >= 100 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgtend') AND n.nspname NOT LIKE 'pg\\_%'
     ORDER BY c.reltuples DESC, 2 LIMIT 1000)";

/// When the counters began; where they were never reset, since when the server runs at least.
const BEGAN: &str = "SELECT coalesce(pg_stat_get_db_stat_reset_time(oid), pg_postmaster_start_time()) FROM pg_database WHERE datname = current_database()";

/// Counts, compares with the last audit, and tells the session, whose checks ask for it.
pub async fn look(connection: &mut PgConnection, context: &AuditContext<'_>, document: &mut Document) -> Result<()> {
    // Whatever the database or the role has set there is not ours.
    tell(connection, "").await?;
    begin(connection, context).await?;
    let counters = pg::fetch_all_as::<Counter>(connection, COUNTERS.to_owned()).await;
    end(connection).await?;
    let counters = match counters {
        Ok(counters) => counters,
        Err(error) => match reason_unknown(&error, context.audit.check_timeout) {
            Some(reason) => {
                document
                    .notes
                    .push(format!("how much indexes and tables are used is not compared with the last audit: {reason}"));
                return Ok(());
            }
            None => return Err(error.context("while reading how much indexes are used")),
        },
    };
    let began: DateTime<Utc> = sqlx::query_scalar(BEGAN).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words)?;
    document.usage = carried(counters, context.before, document.statistics_since, began, context.now);
    let mut known = document.usage.clone();
    known.tables = context
        .before
        .filter(|before| !is_reset(document.statistics_since, before))
        .map(|before| before.usage.tables.clone())
        .unwrap_or_default();
    tell(connection, &serde_json::to_string(&known)?).await
}

async fn tell(connection: &mut PgConnection, value: &str) -> Result<()> {
    sqlx::query("SELECT set_config($1, $2, false) /* pgtend */")
        .bind(SETTING)
        .bind(value)
        .execute(connection)
        .await
        .map_err(pg::in_its_own_words)?;
    Ok(())
}
