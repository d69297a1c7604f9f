//! What of a part the target has already.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::names::Name;
use super::subject::{Class, Object};
use crate::pg;

/// Objects of the target.
#[derive(Debug, Default)]
pub struct Existing {
    /// Names that an object of any class has.
    pub names: BTreeSet<Name>,
    /// With the owners of each: functions of one name may have several.
    objects: BTreeMap<Object, BTreeSet<String>>,
}

impl Existing {
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.keys()
    }

    pub fn has(&self, object: &Object) -> bool {
        self.objects.contains_key(object)
    }

    pub fn owners(&self, object: &Object) -> impl Iterator<Item = &str> {
        self.objects.get(object).into_iter().flatten().map(String::as_str)
    }
}

/// Reads which of these names the database has.
pub async fn existing(connection: &mut PgConnection, names: &BTreeSet<Name>) -> Result<Existing> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let asked: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let found: Vec<(String, String, String, Option<String>)> =
        sqlx::query_as(include_str!("existing.sql")).bind(&schemas).bind(&asked).fetch_all(connection).await?;
    let mut existing = Existing::default();
    for (schema, name, class, owner) in found {
        let name = Name { schema, name };
        let object = Object { class: Class::named(&class), name: name.clone() };
        existing.objects.entry(object).or_default().extend(owner);
        existing.names.insert(name);
    }
    Ok(existing)
}

/// The extensions that the database has.
pub async fn extensions(connection: &mut PgConnection) -> Result<BTreeSet<String>> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT extname::pg_catalog.text FROM pg_catalog.pg_extension").fetch_all(connection).await?;
    Ok(names.into_iter().collect())
}

/// The first of these tables that has a row.
pub async fn first_with_rows(connection: &mut PgConnection, tables: impl Iterator<Item = &Name>) -> Result<Option<Name>> {
    for table in tables {
        let query = format!("SELECT EXISTS (SELECT FROM ONLY {})::pg_catalog.text", table.sql());
        if pg::fetch_text(connection, query).await?.as_deref() == Some("true") {
            return Ok(Some(table.clone()));
        }
    }
    Ok(None)
}

/// Those of these sequences whose numbers grow.
pub async fn ascending(connection: &mut PgConnection, sequences: &BTreeSet<Name>) -> Result<BTreeSet<Name>> {
    let schemas: Vec<&str> = sequences.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = sequences.iter().map(|name| name.name.as_str()).collect();
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT w.schema, w.name
         FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) w(schema, name)
         JOIN pg_catalog.pg_sequences s ON s.schemaname = w.schema AND s.sequencename = w.name AND s.increment_by > 0",
    )
    .bind(&schemas)
    .bind(&names)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(|(schema, name)| Name { schema, name }).collect())
}

/// The sequences that columns of these tables own.
pub async fn owned_sequences(connection: &mut PgConnection, tables: &[Name]) -> Result<BTreeSet<Name>> {
    let tables: Vec<String> = tables.iter().map(Name::sql).collect();
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::pg_catalog.text, s.relname::pg_catalog.text
         FROM pg_catalog.unnest($1::pg_catalog.text[]) w(name)
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = pg_catalog.to_regclass(w.name)
          AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
         JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
         JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace",
    )
    .bind(&tables)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(|(schema, name)| Name { schema, name }).collect())
}
