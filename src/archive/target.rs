//! Checks where rows of an archive may go: a manifest names a table, and its writer chose it.

use anyhow::Result;
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::pg;

/// Returns the table that `table` means in this session (as in SQL), with its schema, quoted. It is an error if there is none, or
/// if it is in one of PostgreSQL's own schemas: a row in `pg_catalog.pg_auth_members` can make a role a superuser.
pub async fn target(connection: &mut PgConnection, table: &str) -> Result<String> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid",
    )
    .bind(table)
    .fetch_optional(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let Some((schema, name)) = found else {
        return Err(Fault::new(Kind::Configuration, format!("there is no table {table}; name one with --into")).into());
    };
    // PostgreSQL reserves such names of schemas: pg_toast and those of temporary tables are among them.
    let is_postgres_own = schema.starts_with("pg_") || schema == "information_schema";
    let table = pg::qualified(&schema, &name);
    if is_postgres_own {
        let message =
            format!("{table} is in a schema of PostgreSQL's own, where archived rows may not go; name a table with --into");
        return Err(Fault::new(Kind::Permission, message).into());
    }
    Ok(table)
}
