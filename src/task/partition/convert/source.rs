//! The table to convert, as the catalogs have it, and what rules it out before anything else is read.

use anyhow::Result;
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::pg::identifier;
use crate::pg::table::with_schema;
use crate::pg::views::as_compressed;
use crate::task::partition::keys::Partition;

#[derive(sqlx::FromRow)]
pub struct Found {
    pub oid: i64,
    pub schema: String,
    pub name: String,
    kind: String,
    pub persistence: String,
    pub is_partition: bool,
    pub key_type: Option<String>,
    pub is_not_null: Option<bool>,
    pub is_generated: Option<bool>,
    pub replica_identity: String,
    owner: String,
    is_owner: bool,
    may_create: bool,
}

/// Finds the job's table.
pub async fn find(connection: &mut PgConnection, partition: &Partition) -> Result<Found> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                c.relpersistence::text AS persistence, c.relispartition AS is_partition, c.relreplident::text AS replica_identity,
                format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS key_type, a.attnotnull AS is_not_null,
                a.attgenerated <> '' AS is_generated, pg_get_userbyid(c.relowner)::text AS owner,
                pg_has_role(c.relowner, 'USAGE') AS is_owner, has_schema_privilege(n.oid, 'CREATE') AS may_create
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_type t ON t.oid = a.atttypid
         WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(&partition.table))
    .bind(&partition.column)
    .fetch_optional(&mut *connection)
    .await?;
    let refuse = |kind, message: String| Err(Fault::new(kind, message).into());
    if let Some(view) = found.as_ref().filter(|found| found.kind == "v")
        && let Some(compressed) = as_compressed(connection, view.oid).await?
    {
        let message = format!(
            "{compressed}: run `pgtend compress undo` of that job, convert, and compress the partitions by method = \"toast\""
        );
        return refuse(Kind::Configuration, message);
    }
    match found {
        None => refuse(Kind::Configuration, format!("there is no table {}", partition.table)),
        Some(found) if found.kind == "p" => {
            refuse(Kind::Configuration, format!("{} is already partitioned: there is nothing to convert", partition.table))
        }
        Some(found) if found.kind != "r" => refuse(Kind::Configuration, format!("{} is not a table", partition.table)),
        Some(found) if found.key_type.is_none() => {
            refuse(Kind::Configuration, format!("{} has no column {}", partition.table, partition.column))
        }
        Some(found) if !found.is_owner || !found.may_create => refuse(
            Kind::Permission,
            format!(
                "only its owner {} may convert {}, and needs CREATE on its schema",
                identifier(&found.owner),
                partition.table
            ),
        ),
        Some(found) => Ok(found),
    }
}
