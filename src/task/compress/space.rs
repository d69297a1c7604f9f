//! Reports the size of a table, and the bytes that a rewrite would return to the system: batches and VACUUM free space only for new rows.

use anyhow::Result;
use sqlx::{PgConnection, Row as _};

use super::table::{self, Table};
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg;

/// TOAST stores chunks of about 2,000 bytes, each with an overhead of some 50 bytes.
const TOAST_OVERHEAD: f64 = 1.03;
/// Smaller values are stored in the row.
const INLINE_BYTES: u32 = 2_000;

pub async fn report(connection: &mut PgConnection, table: &Table, report: &mut Report) -> Result<()> {
    table::prepare(connection).await?;
    pg::set(connection, "statement_timeout", "30000").await?;
    let gz = if table.view.is_some() { table.gz() } else { "NULL::bytea".to_owned() };
    let (content, name) = (table.content(), table.sql());
    let sql = format!(
        "SELECT coalesce(sum(size) FILTER (WHERE size > {INLINE_BYTES}), 0)::bigint, count(*) FILTER (WHERE is_compressed),
                count(*) FILTER (WHERE size > {INLINE_BYTES} AND NOT is_compressed)
         FROM (SELECT pg_column_size({gz})::bigint AS size, true AS is_compressed FROM ONLY {name} WHERE {gz} IS NOT NULL
               UNION ALL SELECT pg_column_size({content})::bigint, false FROM ONLY {name} WHERE {content} IS NOT NULL) sizes"
    );
    let row = match pg::query(sql).fetch_one(&mut *connection).await.map_err(pg::in_its_own_words) {
        Ok(row) => row,
        // For a table that takes longer to read, these facts are not worth the time.
        Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => return Ok(()),
        Err(error) => return Err(error),
    };
    let live = row.try_get::<i64, _>(0)? as f64 * TOAST_OVERHEAD;
    let toast: i64 = sqlx::query_scalar(
        "SELECT CASE WHEN reltoastrelid = 0 THEN 0 ELSE pg_relation_size(reltoastrelid) END::bigint FROM pg_class WHERE oid = $1::bigint::oid",
    )
    .bind(table.oid)
    .fetch_one(&mut *connection)
    .await?;
    let total: i64 = sqlx::query_scalar("SELECT pg_total_relation_size($1::bigint::oid)::bigint")
        .bind(table.oid)
        .fetch_one(connection)
        .await?;
    let returns = (toast as f64 - live).max(0.0) as u64;
    report.fact("table_bytes", total);
    if table.view.is_some() {
        report.fact("bodies_compressed", row.try_get::<i64, _>(1)?);
        report.fact("bodies_plain", row.try_get::<i64, _>(2)?);
    }
    report.fact("rewrite_returns_bytes", returns);
    report.fact("rewrite_command", format!("VACUUM FULL {name}"));
    if returns > 1_000_000 {
        report.fact(
            "rewrite",
            format!(
                "VACUUM FULL {name} (which blocks reads) or pg_repack -t '{name}' would return about {} to the system; without it, new rows use the space",
                units::bytes(returns)
            ),
        );
    }
    Ok(())
}
