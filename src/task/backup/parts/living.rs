//! The living table that rows are put back into. Its queries run where the application's names are found, so that every name and operator is qualified.

use anyhow::Result;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::names::Name;
use crate::base::fault::{Fault, Kind};
use crate::pg::{Operator, identifier};

/// The rows of the set, until those that are wanted are put back. No other table has this name.
pub const ASIDE: &str = "pg_temp.\"pgtend rows that come back\"";

/// A table with what decides about rows that come back.
#[derive(Debug)]
pub struct Living {
    pub name: Name,
    pub oid: i64,
    pub is_partitioned: bool,
    pub columns: Vec<Column>,
    /// Enabled triggers that fire on INSERT or on UPDATE, those of partitions included.
    pub triggers: Vec<Trigger>,
}

#[derive(Debug, sqlx::FromRow)]
pub struct Column {
    pub name: String,
    pub is_generated: bool,
    pub is_identity_always: bool,
    pub is_not_null: bool,
}

#[derive(Debug, sqlx::FromRow)]
pub struct Trigger {
    pub name: String,
    pub on_insert: bool,
    pub on_update: bool,
}

/// The columns that tell rows apart, with the operators that compare them.
#[derive(Debug)]
pub struct Key(pub Vec<(String, Operator)>);

/// Reads the table; refuses one that does not exist, that is no table, or whose rules would change what is put back.
pub async fn read(connection: &mut PgConnection, name: &Name) -> Result<Living> {
    let refused = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    let found: Option<(i64, String)> = sqlx::query_as(
        "SELECT c.oid::bigint, c.relkind::pg_catalog.text FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         WHERE n.nspname OPERATOR(pg_catalog.=) $1::pg_catalog.name AND c.relname OPERATOR(pg_catalog.=) $2::pg_catalog.name",
    )
    .bind(&name.schema)
    .bind(&name.name)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((oid, kind)) = found else {
        return refused(format!("{name} does not exist here: leave out --merge to restore it with its definition"));
    };
    if !matches!(kind.as_str(), "r" | "p") {
        return refused(format!("{name} is no table here, so that no rows can be put back into it"));
    }
    let rules: Vec<String> = sqlx::query_scalar(
        "SELECT rulename::pg_catalog.text FROM pg_catalog.pg_rewrite WHERE ev_class OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid
         AND ev_type OPERATOR(pg_catalog.=) ANY (ARRAY['2', '3']::pg_catalog.\"char\"[]) AND ev_enabled OPERATOR(pg_catalog.<>) 'D' LIMIT 5",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    if !rules.is_empty() {
        return refused(format!(
            "{name} has rules on INSERT or UPDATE ({}), which would do something else with the rows: disable them (ALTER TABLE … DISABLE RULE …), or \
             restore beside with --as",
            rules.join(", ")
        ));
    }
    let columns = sqlx::query_as(
        "SELECT attname::pg_catalog.text AS name, attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\" AS is_generated,
                attidentity OPERATOR(pg_catalog.=) 'a' AS is_identity_always, attnotnull AS is_not_null
         FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid
          AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped ORDER BY attnum",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    // INSERT is 4, and UPDATE 16 of tgtype.
    let triggers = sqlx::query_as(
        "SELECT tgname::pg_catalog.text AS name, pg_catalog.bool_or(tgtype OPERATOR(pg_catalog.&) 4::pg_catalog.int2 OPERATOR(pg_catalog.<>) 0) AS on_insert,
                pg_catalog.bool_or(tgtype OPERATOR(pg_catalog.&) 16::pg_catalog.int2 OPERATOR(pg_catalog.<>) 0) AS on_update
         FROM pg_catalog.pg_trigger
         WHERE NOT tgisinternal AND tgenabled OPERATOR(pg_catalog.=) ANY (ARRAY['O', 'A']::pg_catalog.\"char\"[])
           AND (tgtype OPERATOR(pg_catalog.&) 20::pg_catalog.int2) OPERATOR(pg_catalog.<>) 0
           AND (tgrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid
                OR tgrelid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1::bigint::pg_catalog.oid::pg_catalog.regclass) t)))
         GROUP BY 1 ORDER BY 1",
    )
    .bind(oid)
    .fetch_all(&mut *connection)
    .await?;
    Ok(Living { name: name.clone(), oid, is_partitioned: kind == "p", columns, triggers })
}

impl Living {
    /// Reads by which columns rows are recognized, among `columns`.
    pub async fn key(&self, connection: &mut PgConnection, columns: &[String]) -> Result<Key> {
        let key: Vec<(String, Json<Operator>)> =
            sqlx::query_as(include_str!("key.sql")).bind(self.oid).bind(columns).fetch_all(connection).await?;
        if key.is_empty() {
            let message = format!(
                "{} has no primary key, and no unique index over columns that are NOT NULL (neither deferrable nor partial, and in their collations), by which its rows could \
                 be recognized: restore beside with --as, and compare",
                self.name
            );
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(Key(key.into_iter().map(|(column, operator)| (column, operator.0)).collect()))
    }

    /// Returns whether the column takes no values in UPDATE.
    pub fn is_fixed(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name && column.is_identity_always)
    }

    /// The table for statements that read or change it: its partitions belong to it, and tables that inherit do not.
    pub fn only(&self) -> String {
        format!("{}{}", if self.is_partitioned { "" } else { "ONLY " }, self.name.sql())
    }
}

impl Key {
    /// Returns whether the column is one of it.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(column, _)| column == name)
    }

    /// Its columns, quoted.
    pub fn columns(&self) -> Vec<String> {
        self.0.iter().map(|(column, _)| identifier(column)).collect()
    }

    /// SQL that is true of a row `living` and the row `aside` of the same key.
    pub fn is_same(&self) -> String {
        let compare = |(column, operator): &(String, Operator)| {
            let column = identifier(column);
            operator.of(&format!("living.{column}"), &format!("aside.{column}"))
        };
        self.0.iter().map(compare).collect::<Vec<_>>().join(" AND ")
    }
}
