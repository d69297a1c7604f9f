//! The table of a job: whether it is supported, and which tables below it the job manages.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::pg::table::{TableName, with_schema};
use crate::pg::views::as_compressed;
use crate::pg::{self, identifier};
use crate::task::partition::key::Key;
use crate::task::partition::keys::Partition;
use crate::task::partition::skipped::SkippedTable;

#[derive(sqlx::FromRow)]
struct Found {
    oid: i64,
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    strategy: Option<String>,
    key_columns: Option<i16>,
    key: Option<String>,
    key_column: Option<String>,
    key_type: Option<String>,
    owner: String,
    is_owner: bool,
    may_create: bool,
}

/// Returns the table and its key, if it is partitioned by range of the job's column and the role may change it.
pub(super) async fn changeable(connection: &mut PgConnection, partition: &Partition) -> Result<(TableName, Key)> {
    let found = find(connection, &partition.table).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    let key = key_of(&found, &table, partition)?;
    may(connection, &found, &table).await?;
    Ok((table, key))
}

/// Returns the same for reading only, whoever owns the table.
pub(super) async fn readable(connection: &mut PgConnection, partition: &Partition) -> Result<(TableName, Key)> {
    let found = find(connection, &partition.table).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    let key = key_of(&found, &table, partition)?;
    Ok((table, key))
}

/// Returns the tables that a job manages: its own table or, if that is partitioned by something else, all tables below it that are
/// partitioned by range of the column.
pub async fn parents(connection: &mut PgConnection, partition: &Partition) -> Result<Vec<TableName>> {
    let found = find(connection, &partition.table).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    let is_by_the_column = found.strategy.as_deref() == Some("r") && found.key_column.as_ref() == Some(&partition.column);
    if found.kind != "p" || is_by_the_column && found.key_columns == Some(1) {
        return Ok(vec![table]);
    }
    let below: Vec<(i64, String, String)> = sqlx::query_as(
        "WITH RECURSIVE tree AS (
             SELECT $1::bigint::oid AS oid, false AS is_tended
             UNION ALL
             -- Below such a table, bounds are those of its own partition key.
             SELECT i.inhrelid, coalesce(p.partstrat = 'r' AND p.partnatts = 1 AND a.attname = $2, false)
             FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
             LEFT JOIN pg_partitioned_table p ON p.partrelid = i.inhrelid
             LEFT JOIN pg_attribute a ON a.attrelid = i.inhrelid AND a.attnum = p.partattrs[0] AND a.attnum > 0
             WHERE NOT t.is_tended)
         SELECT c.oid::bigint, n.nspname::text, c.relname::text
         FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.is_tended ORDER BY 2, 3",
    )
    .bind(table.oid)
    .bind(&partition.column)
    .fetch_all(connection)
    .await
    .map_err(pg::in_its_own_words)?;
    // If there is none, the check of the table itself tells why.
    if below.is_empty() {
        return Ok(vec![table]);
    }
    Ok(below.into_iter().map(|(oid, schema, name)| TableName { oid, schema, name }).collect())
}

async fn find(connection: &mut PgConnection, table: &str) -> Result<Found> {
    let found: Option<Found> = sqlx::query_as(
        "SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
                c.relpersistence::text AS persistence, p.partstrat::text AS strategy, p.partnatts AS key_columns,
                -- pg_get_partkeydef waits for locks on the table, and is needed for expressions alone.
                CASE WHEN p.partnatts = 1 AND a.attname IS NOT NULL
                     THEN format('%s (%I)', CASE p.partstrat WHEN 'r' THEN 'RANGE' WHEN 'l' THEN 'LIST' ELSE 'HASH' END, a.attname)
                     ELSE pg_get_partkeydef(c.oid) END AS key, a.attname::text AS key_column,
                format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS key_type,
                pg_get_userbyid(c.relowner)::text AS owner, pg_has_role(c.relowner, 'USAGE') AS is_owner,
                has_schema_privilege(n.oid, 'CREATE') AS may_create
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0] AND a.attnum > 0
         LEFT JOIN pg_type t ON t.oid = a.atttypid
         WHERE c.oid = to_regclass($1)",
    )
    .bind(with_schema(table))
    .fetch_optional(&mut *connection)
    .await
    .map_err(pg::in_its_own_words)
    .map_err(|error| {
        // syntax_error, invalid_name: these come from to_regclass, which parses its argument as SQL. Any other error concerns the server.
        let is_no_name = pg::sql_state(&error).is_some_and(|state| ["42601", "42602"].contains(&state.as_str()));
        match is_no_name {
            true => error.context(Fault::new(Kind::Configuration, format!("`table = '{table}'` is not a table name"))),
            false => error,
        }
    })?;
    if let Some(view) = found.as_ref().filter(|found| found.kind == "v")
        && let Some(compressed) = as_compressed(connection, view.oid).await?
    {
        return Err(Fault::new(Kind::Configuration, format!("{compressed}, which is not partitioned")).into());
    }
    found.with_context(|| {
        let hint = "write it as in SQL: schema.table, and names with capitals or dots in double quotes";
        Fault::new(Kind::Configuration, format!("there is no table {table}; {hint}"))
    })
}

/// Checks whether a run could start: the table, its key, and the role's privileges.
pub async fn check(connection: &mut PgConnection, partition: &Partition) -> Result<String> {
    let (mut said, mut left) = (Vec::new(), Vec::new());
    let parents = parents(connection, partition).await?;
    let is_alone = parents.len() == 1;
    for parent in parents {
        match changeable(connection, &Partition { table: parent.sql(), ..partition.clone() }).await {
            Ok((table, _)) => said.push(format!("owns {table}, and may create tables in its schema")),
            Err(error) if is_alone => return Err(error),
            Err(error) => left.push(SkippedTable::of(parent, error)?),
        }
    }
    match left.is_empty() {
        true => Ok(said.join("; ")),
        false => Err(SkippedTable::all(&left)),
    }
}

fn key_of(found: &Found, table: &TableName, partition: &Partition) -> Result<Key> {
    let refuse = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    let column = &partition.column;
    match (found.kind.as_str(), found.strategy.as_deref()) {
        ("p", Some("r")) => {}
        ("r", _) => {
            return refuse(format!(
                "{table} is not partitioned: `pgtend partition convert JOB --dry-run` shows how to convert it while it is in use"
            ));
        }
        ("p", _) => {
            return refuse(format!(
                "{table} is partitioned by {}: only RANGE partitioning is supported, and no partition below it is partitioned by range of \
                 {}",
                found.key.as_deref().unwrap_or("?"),
                identifier(column)
            ));
        }
        _ => return refuse(format!("{table} is not a table")),
    }
    if found.persistence == "t" {
        return refuse(format!("{table} is a temporary table"));
    }
    let key = found.key.as_deref().unwrap_or("?");
    if found.key_columns != Some(1) {
        return refuse(format!("{table} is partitioned by {key}: a partition key of several columns is not supported"));
    }
    match &found.key_column {
        None => refuse(format!("{table} is partitioned by {key}: an expression as partition key is not supported")),
        Some(actual) if actual != column => {
            refuse(format!("{table} is partitioned by column {actual}, not by `column = \"{column}\"`"))
        }
        Some(_) => Key::of(column, found.key_type.as_deref().unwrap_or("?"), partition.every, partition.epoch),
    }
}

async fn may(connection: &mut PgConnection, found: &Found, table: &TableName) -> Result<()> {
    let role: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(connection).await?;
    let refuse = |message: String| Err(Fault::new(Kind::Permission, message).into());
    if !found.is_owner {
        let (owner, role) = (identifier(&found.owner), identifier(&role));
        return refuse(format!("only its owner {owner} may change {table}: GRANT {owner} TO {role}"));
    }
    if !found.may_create {
        let (schema, role) = (identifier(&found.schema), identifier(&role));
        return refuse(format!("partitions are created in the schema of {table}: GRANT CREATE ON SCHEMA {schema} TO {role}"));
    }
    Ok(())
}
