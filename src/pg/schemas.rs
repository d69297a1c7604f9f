//! Names of schemas that stay as they are while a transaction goes by them. PostgreSQL has no lock on such a name, but ALTER SCHEMA … RENAME and DROP
//! SCHEMA change the schema's row in pg_namespace, and wait for whoever holds it (tested on 14 to 18). What a role may do in the schema is no part of its
//! key: CREATE, GRANT and ALTER SCHEMA … OWNER do not wait. Only a superuser may hold rows of a catalog.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::{execute, fetch_text, sql_state};
use crate::base::fault::{Fault, Kind};

/// How long a row is waited for that another session changes.
const LOCK_TIMEOUT: &str = "10s";

/// A schema as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Schema {
    pub oid: i64,
    pub name: String,
}

/// Schemas whose names a transaction goes by.
#[derive(Debug, Default)]
pub struct Held {
    schemas: Vec<Schema>,
    /// No other session can change these names before the transaction ends.
    is_exact: bool,
}

/// Reads the schemas of users; only those of these names, if there are any.
pub async fn living(connection: &mut PgConnection, names: Option<&[String]>) -> Result<Vec<Schema>> {
    let sql = "SELECT oid::bigint AS oid, nspname::pg_catalog.text AS name FROM pg_catalog.pg_namespace
               WHERE NOT pg_catalog.starts_with(nspname::pg_catalog.text, 'pg_') AND nspname OPERATOR(pg_catalog.<>) 'information_schema'
                 AND ($1::pg_catalog.text[] IS NULL OR nspname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]))
               ORDER BY oid";
    Ok(sqlx::query_as(sql).bind(names).fetch_all(connection).await?)
}

/// Holds the names until the transaction of this session ends; a role that may not do that learns whether they are right ([`Held::prove`]). An error where
/// one of them means another schema by now, or another session is about to change it.
pub async fn hold(connection: &mut PgConnection, schemas: Vec<Schema>) -> Result<Held> {
    let is_superuser = fetch_text(connection, "SELECT pg_catalog.current_setting('is_superuser')".to_owned()).await?;
    let held = Held { schemas, is_exact: is_superuser.as_deref() == Some("on") };
    if held.is_exact && !held.schemas.is_empty() {
        let before = fetch_text(connection, "SHOW lock_timeout".to_owned()).await?.unwrap_or_default();
        super::set(connection, "lock_timeout", LOCK_TIMEOUT).await?;
        let oids: Vec<String> = held.schemas.iter().map(|schema| schema.oid.to_string()).collect();
        let sql = format!(
            "SELECT FROM pg_catalog.pg_namespace WHERE oid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]) ORDER BY oid FOR KEY SHARE",
            oids.join(",")
        );
        match execute(connection, sql).await {
            Err(error) if sql_state(&error).as_deref() == Some("55P03") => {
                let names: Vec<&str> = held.schemas.iter().map(|schema| schema.name.as_str()).collect();
                let message = format!(
                    "another session renames or drops one of the schemas {}, and has not ended its transaction in {LOCK_TIMEOUT}: try again when it has",
                    names.join(", ")
                );
                return Err(error.context(Fault::new(Kind::Busy, message)));
            }
            held => held?,
        }
        super::set(connection, "lock_timeout", &before).await?;
    }
    held.prove(connection).await?;
    Ok(held)
}

impl Held {
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Fails where one of the names means another schema by now.
    pub async fn prove(&self, connection: &mut PgConnection) -> Result<()> {
        if self.schemas.is_empty() {
            return Ok(());
        }
        let (oids, names): (Vec<i64>, Vec<&str>) = self.schemas.iter().map(|schema| (schema.oid, schema.name.as_str())).unzip();
        let sql = "SELECT w.name
                   FROM ROWS FROM (pg_catalog.unnest($1::bigint[]), pg_catalog.unnest($2::pg_catalog.text[])) w(oid, name)
                   WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n
                                     WHERE n.oid OPERATOR(pg_catalog.=) w.oid::pg_catalog.oid AND n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) w.name)
                   LIMIT 1";
        let other: Option<String> = sqlx::query_scalar(sql)
            .bind(oids)
            .bind(names)
            .fetch_optional(connection)
            .await
            .context("cannot compare the names of schemas")?;
        match other {
            None => Ok(()),
            Some(name) => anyhow::bail!(
                "the schema {name} was renamed or dropped since this transaction looked at it, and its name may be another schema's: nothing was changed"
            ),
        }
    }
}

/// SQL of a block: holds the name of the schema that the table `oid` is in, if the session's role may. For sessions with any search_path.
pub fn hold_schema_of(oid: i64) -> String {
    format!(
        "IF pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on' THEN
             PERFORM FROM pg_catalog.pg_namespace WHERE oid OPERATOR(pg_catalog.=)
                 (SELECT c.relnamespace FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid) FOR KEY SHARE;
         END IF; "
    )
}

/// SQL of a block: holds the names of these schemas, by their oids, if the session's role may. For sessions with any search_path.
pub fn hold_schemas(oids: &[i64]) -> String {
    let oids: Vec<String> = oids.iter().map(i64::to_string).collect();
    format!(
        "IF pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on' THEN
             PERFORM FROM pg_catalog.pg_namespace WHERE oid OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.oid[]) ORDER BY oid FOR KEY SHARE;
         END IF; ",
        oids.join(",")
    )
}
