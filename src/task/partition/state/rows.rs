//! The highest key there is, or will be next.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::pg::table::TableName;
use crate::pg::{self, identifier};
use crate::task::partition::key::Key;

/// Of the column's sequence: numbers are handed out before their rows are there.
pub(super) async fn of_sequence(connection: &mut PgConnection, table: &TableName, column: &str) -> Result<Option<i64>> {
    // By its dependency: pg_get_serial_sequence fails for a name that is no column's.
    Ok(sqlx::query_scalar(
        "SELECT max(pg_sequence_last_value(s.oid)) FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE s.relkind = 'S' AND d.deptype IN ('a', 'i') AND d.refobjid = $1::bigint::oid AND a.attname = $2",
    )
    .bind(table.oid)
    .bind(column)
    .fetch_one(connection)
    .await?)
}

/// The highest key of all rows. The text has a name of its own: ORDER BY would mean it otherwise, and 900 is more than 2501.
pub(super) async fn of_rows(connection: &mut PgConnection, table: &TableName, column: &str, key: Key) -> Result<Option<i64>> {
    let name = identifier(column);
    let sql = format!(
        "SELECT {name}::text AS \"shown as text\" FROM {} WHERE {name} IS NOT NULL ORDER BY {name} DESC LIMIT 1",
        table.sql()
    );
    let Some(text) = pg::fetch_text(connection, sql).await? else { return Ok(None) };
    let position = key.position(&text).with_context(|| {
        Fault::new(
            Kind::Configuration,
            format!("{table} has a key that no calendar holds: {column} = {text}; correct that row first"),
        )
    });
    position.map(Some)
}

/// The highest key there is, or will be next.
pub async fn highest(connection: &mut PgConnection, table: &TableName, column: &str, key: Key) -> Result<i64> {
    let rows = of_rows(connection, table, column, key).await?;
    if key.is_time() {
        return Ok(rows.unwrap_or(i64::MIN));
    }
    Ok(rows.max(of_sequence(connection, table, column).await?).unwrap_or(0))
}
