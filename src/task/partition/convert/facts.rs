//! The properties of a table that its successor must have, too.

use anyhow::Result;
use chrono_tz::Tz;
use sqlx::PgConnection;

use super::super::calendar::partition_name;
use super::super::key::Key;
use super::names::{CHECK, NEW_KEY, reach};
use super::objects::{self, Identity, Named, Primary, Sequence, Statistics, Trigger};
use super::{carried, meanwhile, obstacles, source};
use crate::base::fault::{Fault, Kind};
use crate::live::session::Session;
use crate::pg::table::TableName;
use crate::task::partition::column_settings;
use crate::task::partition::keys::Partition;
use crate::task::remade::{self, Views};

pub struct Facts {
    pub table: TableName,
    pub column: String,
    pub key: Key,
    pub is_not_null: bool,
    pub highest: i64,
    pub now: i64,
    pub primary: Option<Primary>,
    /// The name of the index that becomes the primary key.
    pub new_key: String,
    /// True if a killed conversion left its CHECK or its index.
    pub has_leftovers: bool,
    pub foreign_keys: Vec<Named>,
    pub triggers: Vec<Trigger>,
    pub identities: Vec<Identity>,
    pub owned_sequences: Vec<Sequence>,
    /// Views that read it.
    pub views: Views,
    /// Settings of columns, which LIKE does not copy.
    pub column_settings: Vec<column_settings::ColumnSetting>,
    pub statistics: Vec<Statistics>,
    /// Statements that carry over comments and settings of its indexes and constraints.
    pub of_indexes: Vec<String>,
    pub replica_identity: Option<&'static str>,
    /// ` USING … TABLESPACE …`, for future partitions; empty where it is the default.
    pub place: String,
    /// The comment of its row type.
    pub type_comment: Option<String>,
    /// The index that it is clustered on.
    pub clustered_on: Option<String>,
    pub notes: Vec<String>,
}

pub async fn read(partition: &Partition, zone: Tz, session: &mut Session) -> Result<Facts> {
    let connection = &mut session.connection;
    let found = source::find(connection, partition).await?;
    let table = TableName { oid: found.oid, schema: found.schema.clone(), name: found.name.clone() };
    let key = Key::of(&partition.column, found.key_type.as_deref().unwrap_or_default(), partition.every, partition.epoch)?;
    let obstacles = obstacles::read(connection, partition, &found, &table).await?;
    if !obstacles.is_empty() {
        let message = format!("{table} cannot be converted: {}", obstacles.join("; "));
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let (highest, now) = reach(partition, &table, key, zone, connection).await?;
    let new_key = partition_name(&table.name, NEW_KEY);
    Ok(Facts {
        column: partition.column.clone(),
        key,
        is_not_null: found.is_not_null == Some(true),
        highest,
        now,
        primary: objects::primary(connection, &table, &partition.column).await?,
        has_leftovers: sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::bigint::oid AND conname = $2)
                 OR EXISTS (SELECT FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $1::bigint::oid AND relname = $3)",
        )
        .bind(table.oid)
        .bind(CHECK)
        .bind(&new_key)
        .fetch_one(&mut *connection)
        .await?,
        new_key,
        foreign_keys: sqlx::query_as(
            "SELECT conname::text AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
             WHERE conrelid = $1::bigint::oid AND contype = 'f' ORDER BY 1",
        )
        .bind(table.oid)
        .fetch_all(&mut *connection)
        .await?,
        triggers: objects::triggers(connection, &table).await?,
        identities: objects::identities(connection, &table).await?,
        owned_sequences: objects::owned_sequences(connection, &table).await?,
        views: remade::views(connection, table.oid, &[], &meanwhile::TEXTS).await?,
        column_settings: column_settings::read(connection, table.oid).await?,
        statistics: objects::statistics(connection, &table).await?,
        of_indexes: carried::of_indexes_and_constraints(connection, &table).await?,
        replica_identity: match found.replica_identity.as_str() {
            "f" => Some("FULL"),
            "n" => Some("NOTHING"),
            _ => None,
        },
        place: place(connection, &table).await?,
        type_comment: sqlx::query_scalar("SELECT obj_description(reltype, 'pg_type') FROM pg_class WHERE oid = $1::bigint::oid")
            .bind(table.oid)
            .fetch_one(&mut *connection)
            .await?,
        clustered_on: sqlx::query_scalar(
            "SELECT relname::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $1::bigint::oid AND indisclustered",
        )
        .bind(table.oid)
        .fetch_optional(&mut *connection)
        .await?,
        notes: what_changes(connection, &table).await?,
        table,
    })
}

/// Returns where future partitions are stored: where the table is. A partitioned table has an access method since 17; before, that of the
/// newest partition counts.
async fn place(connection: &mut PgConnection, table: &TableName) -> Result<String> {
    let (method, space): (Option<String>, Option<String>) = sqlx::query_as(
        "SELECT (SELECT quote_ident(amname) FROM pg_am WHERE oid = c.relam AND amname <> 'heap' AND current_setting('server_version_num')::int >= 170000),
                (SELECT quote_ident(spcname) FROM pg_tablespace WHERE oid = c.reltablespace)
         FROM pg_class c WHERE c.oid = $1::bigint::oid",
    )
    .bind(table.oid)
    .fetch_one(connection)
    .await?;
    Ok(method.map(|method| format!(" USING {method}")).unwrap_or_default()
        + &space.map(|space| format!(" TABLESPACE {space}")).unwrap_or_default())
}

/// Lists changes that the plan reports, and that are not obstacles.
async fn what_changes(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT format('it is clustered on %I: only its first partition keeps that, because a partitioned table has no CLUSTER ON; new partitions have none',
                       c.relname)
             FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $1::bigint::oid AND indisclustered
         UNION ALL SELECT DISTINCT format('its foreign key %I is disabled by DISABLE TRIGGER: new partitions enforce it', k.conname)
             FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint
             WHERE t.tgrelid = $1::bigint::oid AND t.tgisinternal AND t.tgenabled = 'D' AND k.contype = 'f'
         UNION ALL SELECT 'autovacuum analyzes partitions, but not the partitioned table itself: ANALYZE it afterwards, and from time to time'
         ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}
