//! Foreign code in living objects that a restored part of a set uses: functions, types and operators that its expressions call, tables that its foreign
//! keys refer to, tables that it inherits from, and the schemas of all these.

use anyhow::Result;

use super::found::ForeignCode;
use super::judge::judge;
use super::look;
use crate::pg::{self, Settings, qualified};
use crate::work::touched::Touched;

const SEARCH: &str =
    concat!("WITH RECURSIVE ", include_str!("../rights.sql"), include_str!("living.sql"), include_str!("owners.sql"));

/// A living object.
pub struct Used<'a> {
    /// "relation", "type", "routine", "operator" or "other".
    pub class: &'a str,
    pub schema: &'a str,
    pub name: &'a str,
    /// Only rows are looked up in it, for a foreign key.
    pub is_referred: bool,
}

/// Returns other owners' code that may run with more rights than theirs when a part is restored that uses these objects, and goes into these schemas or
/// names them, each piece in a sentence. It is an error where the job trusts no owners.
pub async fn check_part(settings: &Settings, used: &[Used<'_>], schemas: &[&str], trust_owners: bool) -> Result<Vec<String>> {
    let (tables, others): (Vec<&Used>, Vec<&Used>) = used.iter().partition(|used| used.class == "relation");
    let mut found: Vec<ForeignCode> = Vec::new();
    for Used { schema, name, is_referred, .. } in tables_among(settings, &tables).await? {
        let table = qualified(schema, name);
        found.extend(look(settings, &Touched::new(&table, 0, &[], !is_referred)).await?.1);
    }
    let column = |of: fn(&Used) -> String| others.iter().map(|used| of(used)).collect::<Vec<_>>();
    let mut connection = settings.connect().await?;
    let living: Vec<ForeignCode> = sqlx::query_as(SEARCH)
        .bind(column(|used| used.class.to_owned()))
        .bind(column(|used| used.schema.to_owned()))
        .bind(column(|used| used.name.to_owned()))
        .bind(schemas)
        .fetch_all(&mut connection)
        .await
        .map_err(pg::in_its_own_words)?;
    found.extend(living);
    judge(ForeignCode::once(found), trust_owners)
}

/// Those that hold rows or show them: sequences have no code.
async fn tables_among<'a>(settings: &Settings, relations: &[&'a Used<'a>]) -> Result<Vec<&'a Used<'a>>> {
    if relations.is_empty() {
        return Ok(Vec::new());
    }
    let (schemas, names): (Vec<&str>, Vec<&str>) = relations.iter().map(|used| (used.schema, used.name)).unzip();
    let mut connection = settings.connect().await?;
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT n.nspname::text, c.relname::text
         FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) w(schema, name)
         JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
    )
    .bind(schemas)
    .bind(names)
    .fetch_all(&mut connection)
    .await?;
    let is_found = |used: &&&Used| found.iter().any(|(schema, name)| schema == used.schema && name == used.name);
    Ok(relations.iter().filter(is_found).copied().collect())
}
