//! What of a part the target has already.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::names::Name;
use super::subject::{Class, Object};
use crate::pg::{self, literal};

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

/// The first of these tables that has a row. Rows of a partitioned one are in its partitions; those of tables that inherit are not its own.
pub async fn first_with_rows(connection: &mut PgConnection, tables: impl Iterator<Item = &Name>) -> Result<Option<Name>> {
    for table in tables {
        let kind = format!(
            "SELECT relkind::pg_catalog.text FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass({})",
            literal(&table.sql())
        );
        let only = if pg::fetch_text(connection, kind).await?.as_deref() == Some("p") { "" } else { "ONLY " };
        let query = format!("SELECT EXISTS (SELECT FROM {only}{})::pg_catalog.text", table.sql());
        if pg::fetch_text(connection, query).await?.as_deref() == Some("true") {
            return Ok(Some(table.clone()));
        }
    }
    Ok(None)
}
