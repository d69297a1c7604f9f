//! Shared code of tasks that build indexes on tables in use: privileges, tables and names.

pub mod names;

use anyhow::Result;
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::pg;
use crate::pg::table::with_schema;
use crate::pg::views::table_behind;
use crate::work::RunContext;

/// Returns a connection for reading and measuring. A cached plan would not follow a changed setting.
pub async fn connect(run: &RunContext<'_>) -> Result<PgConnection> {
    let mut connection = run.settings.connect().await?;
    let lock_timeout = run.job.limits.lock_timeout.0.as_millis().to_string();
    pg::set(&mut connection, "lock_timeout", &lock_timeout).await?;
    pg::set(&mut connection, "plan_cache_mode", "force_custom_plan").await?;
    Ok(connection)
}

/// Returns the oid of the table or of its partitions; true when it is partitioned. In place of a view of `[compress]`, that is the table behind it.
pub async fn tables(connection: &mut PgConnection, table: &str) -> Result<(Vec<i64>, bool)> {
    let oid: Option<i64> = sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint")
        .bind(with_schema(table))
        .fetch_one(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    let oid = oid.ok_or_else(|| no_table(format!("there is no table {table}")))?;
    let kind: String = sqlx::query_scalar("SELECT relkind::text FROM pg_class WHERE oid = $1::bigint::oid")
        .bind(oid)
        .fetch_one(&mut *connection)
        .await?;
    match kind.as_str() {
        "r" | "m" => Ok((vec![oid], false)),
        "v" => match table_behind(connection, oid).await? {
            Some(behind) => Ok((vec![behind], false)),
            None => Err(no_table(format!("{table} is not a table"))),
        },
        "p" => Ok((
            sqlx::query_scalar(
                "SELECT relid::oid::bigint FROM pg_partition_tree($1::bigint::oid::regclass) JOIN pg_class c ON c.oid = relid
             WHERE isleaf AND c.relkind = 'r' ORDER BY relid::regclass::text",
            )
            .bind(oid)
            .fetch_all(connection)
            .await?,
            true,
        )),
        _ => Err(no_table(format!("{table} is not a table"))),
    }
}

/// Checks the owner: only the owner may create, rename and drop a table's indexes.
pub async fn check_owner(connection: &mut PgConnection, table: &str) -> Result<()> {
    let found: Option<(bool, bool)> = sqlx::query_as(
        "SELECT pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'CREATE') FROM pg_class c WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(table))
    .fetch_optional(connection)
    .await?;
    match found {
        Some((true, true)) => Ok(()),
        Some((false, _)) => {
            let message = format!("only the owner of {table} may change its indexes: GRANT the owner's role TO the role");
            Err(Fault::new(Kind::Permission, message).into())
        }
        Some((true, false)) => {
            let message = format!("the index is created in the schema of {table}: GRANT CREATE ON SCHEMA … TO the role");
            Err(Fault::new(Kind::Permission, message).into())
        }
        None => Err(no_table(format!("there is no table {table}"))),
    }
}

fn no_table(message: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}
