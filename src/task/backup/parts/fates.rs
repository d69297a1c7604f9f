//! What becomes of each row that was chosen: it is inserted, it replaces another, or it stays aside. And whether that happened.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::living::{ASIDE, Key, Living};
use crate::base::units;
use crate::pg::{self, identifier};

/// The rows of `ASIDE` (their ctid) that are to be written, each with the row that it replaces, as text, or NULL. It goes with the transaction or the session.
pub const FATES: &str = "pg_temp.\"pgtend what becomes of rows\"";

/// As many rows are named in a message.
const NAMED: usize = 5;

/// What the rows are, and how they are compared.
pub struct Rows<'a> {
    pub living: &'a Living,
    pub key: &'a Key,
    /// Those of the set.
    pub columns: &'a [String],
    pub replaces: bool,
}

/// How many rows have which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Those whose key the table lacks.
    pub missing: u64,
    /// Those whose values differ.
    pub changed: u64,
    /// Missing ones whose key a table has that inherits.
    pub inherited: u64,
}

impl Rows<'_> {
    /// The columns that UPDATE writes.
    pub fn replaceable(&self) -> Vec<&String> {
        let is_replaceable = |name: &&String| self.replaces && !self.key.has(name) && !self.living.is_fixed(name);
        self.columns.iter().filter(is_replaceable).collect()
    }

    /// SQL that is true where both rows differ in `columns`, as text and byte by byte: whatever operators others created.
    pub fn differ(columns: &[&String]) -> String {
        format!("{} OPERATOR(pg_catalog.<>) {}", as_text("living", columns), as_text("aside", columns))
    }
}

/// Its values as the server writes them.
fn as_text(table: &str, columns: &[&String]) -> String {
    let list: Vec<String> = columns.iter().map(|name| format!("{table}.{}", identifier(name))).collect();
    format!("ROW({})::pg_catalog.text COLLATE pg_catalog.\"C\"", list.join(", "))
}

/// Compares the chosen rows with the living ones. Writes nothing but its own temporary table.
pub async fn decide(connection: &mut PgConnection, rows: &Rows<'_>) -> Result<Fates> {
    let replaceable = rows.replaceable();
    let (before, is_changed) = match replaceable.is_empty() {
        true => ("''".to_owned(), "false".to_owned()),
        false => (as_text("living", &replaceable), Rows::differ(&replaceable)),
    };
    pg::execute(connection, format!("DROP TABLE IF EXISTS {FATES}")).await?;
    let sql = format!(
        "CREATE TEMPORARY TABLE {FATES} AS
         SELECT aside.ctid AS of_row, CASE WHEN living.tableoid IS NULL THEN NULL ELSE {before} END AS before
         FROM {ASIDE} AS aside LEFT JOIN {} AS living ON {} WHERE living.tableoid IS NULL OR {is_changed}",
        rows.living.only(),
        rows.key.is_same()
    );
    pg::execute(connection, sql).await?;
    pg::execute(connection, format!("ANALYZE {FATES}")).await?;
    let inherited = match rows.living.is_partitioned {
        true => "0".to_owned(),
        false => format!(
            "(SELECT pg_catalog.count(*) FROM {} WHERE fate.before IS NULL AND EXISTS (SELECT FROM {} AS living WHERE {}))",
            joined(),
            rows.living.name.sql(),
            rows.key.is_same()
        ),
    };
    let sql = format!(
        "SELECT pg_catalog.count(*) FILTER (WHERE before IS NULL), pg_catalog.count(before), {inherited}::bigint FROM {FATES}"
    );
    let counts: Vec<(i64, i64, i64)> = pg::fetch_all_as(connection, sql).await?;
    let (missing, changed, inherited) = counts.first().copied().context("the server returned no count of rows")?;
    Ok(Fates { missing: missing as u64, changed: changed as u64, inherited: inherited as u64 })
}

/// The rows that are to be written, each with its fate.
pub fn joined() -> String {
    format!("{ASIDE} AS aside JOIN {FATES} AS fate ON fate.of_row OPERATOR(pg_catalog.=) aside.ctid")
}

/// Reads what was written. An error names rows that are not there, or that are as they were; returned are, in words, those that have other values.
pub async fn prove(connection: &mut PgConnection, rows: &Rows<'_>) -> Result<Vec<String>> {
    let replaceable = rows.replaceable();
    let others: Vec<&String> = rows.columns.iter().filter(|name| !rows.key.has(name)).collect();
    let kept = match replaceable.is_empty() {
        true => "false".to_owned(),
        false => format!("fate.before OPERATOR(pg_catalog.=) {}", as_text("living", &replaceable)),
    };
    let differs = |columns: &[&String]| if columns.is_empty() { "false".to_owned() } else { Rows::differ(columns) };
    let of_key: Vec<String> = rows.key.columns().iter().map(|column| format!("aside.{column}")).collect();
    let sql = format!(
        "WITH found AS (
             SELECT ROW({})::pg_catalog.text AS key,
                    CASE WHEN living.tableoid IS NULL THEN 'gone' WHEN fate.before IS NOT NULL AND {kept} THEN 'kept' ELSE 'other' END AS what
             FROM {} LEFT JOIN {} AS living ON {}
             WHERE living.tableoid IS NULL OR fate.before IS NULL AND {} OR fate.before IS NOT NULL AND {})
         SELECT what, pg_catalog.count(*), (pg_catalog.array_agg(key))[1:{NAMED}] FROM found GROUP BY what",
        of_key.join(", "),
        joined(),
        rows.living.only(),
        rows.key.is_same(),
        differs(&others),
        differs(&replaceable)
    );
    let found: Vec<(String, i64, Vec<String>)> = pg::fetch_all_as(connection, sql).await?;
    let of = |kind: &str| found.iter().find(|(what, ..)| what == kind).map(|(_, count, keys)| in_words(*count as u64, keys));
    if let Some(gone) = of("gone") {
        anyhow::bail!("not taken: {gone}: a trigger of the table keeps them out, or another unique index does");
    }
    if let Some(kept) = of("kept") {
        anyhow::bail!("not replaced: {kept}: a trigger of the table keeps them as they were");
    }
    let note = |other: String| {
        format!("other values than in the set: {other}: a trigger of the table changed them, or another session did")
    };
    Ok(of("other").map(note).into_iter().collect())
}

/// `7 rows, with the key (1), (2), …`
fn in_words(count: u64, keys: &[String]) -> String {
    let more = if count > keys.len() as u64 { ", …" } else { "" };
    format!("{}, with the key {}{more}", units::plural(count, "row"), keys.join(", "))
}
