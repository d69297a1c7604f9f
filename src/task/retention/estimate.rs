//! Sizes by the planner and the catalog, without counting.

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg;

/// Estimates the number of rows from the planner's statistics: an exact count would read what is read again later.
pub(super) async fn estimate(connection: &mut PgConnection, table: &str, condition: &str) -> Result<u64> {
    let sql = format!("EXPLAIN (FORMAT JSON) SELECT FROM ONLY {table} WHERE {condition}");
    let row = pg::query(sql).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    let plan: serde_json::Value = sqlx::Row::try_get(&row, 0)?;
    Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64).unwrap_or_default() as u64)
}

/// Returns the number of blocks of all partitions together.
pub async fn blocks_below(connection: &mut PgConnection, oid: i64) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "SELECT coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(relid)), 0)::bigint
                OPERATOR(pg_catalog./) pg_catalog.current_setting('block_size')::bigint
         FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid::pg_catalog.regclass)",
    )
    .bind(oid)
    .fetch_one(connection)
    .await?)
}
