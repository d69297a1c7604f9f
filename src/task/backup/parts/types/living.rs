//! The types that columns of the living database have.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::decide::{Attributes, Made, Type, Types};
use crate::task::backup::parts::names::Name;

/// Types inside of types are followed so deep.
const DEEPEST: usize = 100;

#[derive(sqlx::FromRow)]
struct Found {
    schema: String,
    name: String,
    /// `pg_type.typtype`, or `e` of an extension and `l` with labels.
    kind: String,
    of: Option<String>,
    attributes: Vec<String>,
    types: Vec<String>,
}

/// The columns of a table with their types; none where there is no such table.
pub async fn columns(connection: &mut PgConnection, table: &Name) -> Result<Attributes> {
    let columns = sqlx::query_as(
        "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    );
    Ok(columns.bind(&table.schema).bind(&table.name).fetch_all(connection).await?)
}

/// What the types in these texts are made of, and the types in those, here or in the set.
pub async fn types<'a>(connection: &mut PgConnection, of_set: &Types, texts: impl Iterator<Item = &'a str>) -> Result<Types> {
    let name = |text: &str| Type::of(text).name_of_user();
    let mut open: BTreeSet<Name> = texts.filter_map(name).collect();
    let (mut types, mut asked) = (Types::new(), BTreeSet::new());
    for _ in 0..DEEPEST {
        open.retain(|name| !asked.contains(name));
        if open.is_empty() {
            return Ok(types);
        }
        let found = made(connection, &open).await?;
        let inside = found.values().chain(open.iter().filter_map(|name| of_set.get(name))).flat_map(Made::texts);
        let next: BTreeSet<Name> = inside.filter_map(name).collect();
        asked.append(&mut open);
        types.extend(found);
        open = next;
    }
    anyhow::bail!("the types of columns are nested more than {DEEPEST} deep")
}

async fn made(connection: &mut PgConnection, names: &BTreeSet<Name>) -> Result<Types> {
    let schemas: Vec<&str> = names.iter().map(|name| name.schema.as_str()).collect();
    let names: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let found: Vec<Found> = sqlx::query_as(include_str!("living.sql")).bind(&schemas).bind(&names).fetch_all(connection).await?;
    let in_parts = |Found { schema, name, kind, of, attributes, types }: Found| {
        let made = match (kind.as_str(), of) {
            ("e", _) => Made::OfExtension,
            ("l", _) => Made::Labels,
            ("c", _) => Made::Attributes(attributes.into_iter().zip(types).collect()),
            ("d", Some(base)) => Made::Domain(base),
            ("r" | "m", Some(subtype)) => Made::Range(subtype),
            _ => Made::Other,
        };
        (Name { schema, name }, made)
    };
    Ok(found.into_iter().map(in_parts).collect())
}
