//! Reads the rows to be changed, a page at a time in the order of the key.

use anyhow::Result;
use sqlx::{PgConnection, Row as _};

use super::super::table::{Key, Table};
use crate::pg::{self, identifier};
use crate::work::RunContext;

/// The number of rows that one statement reads. Their values are not fetched: TOAST pointers have the sizes.
const PAGE_ROWS: i64 = 2_000;

/// A row to be changed, as it was when it was read.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: Vec<String>,
    pub ctid: String,
    pub xmin: String,
    pub bytes: u64,
}

/// The expressions over the table by which a walk chooses its rows.
pub struct Selection {
    /// It is true for rows to be changed.
    pub condition: String,
    /// The bytes of its value in memory.
    pub bytes: String,
    /// It is true for rows that are left out only because they are too large.
    pub too_large: String,
}

/// The rows of a page that are to be changed.
#[derive(Default)]
pub struct Page {
    pub rows: Vec<Row>,
    /// The key of the page's last row, to be changed or not; `None` when there are no more rows.
    pub last: Option<Vec<String>>,
    pub too_large: u64,
}

impl Page {
    /// Reads the page after one key, up to another.
    pub async fn read(
        connection: &mut PgConnection,
        (table, key): (&Table, &Key),
        selection: &Selection,
        after: Option<&[String]>,
        until: Option<&[String]>,
    ) -> Result<Self> {
        let order = columns_of(table, key).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "WITH page AS MATERIALIZED (
                SELECT {texts} AS key, ctid::text AS ctid, xmin::text AS xmin, row_number() OVER (ORDER BY {order}) AS number,
                       CASE WHEN {condition} THEN ({bytes})::bigint END AS bytes, {too_large} AS too_large
                FROM ONLY {table} WHERE {after} AND {until} ORDER BY {order} LIMIT {PAGE_ROWS})
             SELECT key, ctid, xmin, bytes, (SELECT count(*) FROM page WHERE too_large) AS too_large
             FROM page WHERE bytes IS NOT NULL OR number = (SELECT max(number) FROM page) ORDER BY number",
            texts = as_texts(key),
            condition = selection.condition,
            bytes = selection.bytes,
            too_large = selection.too_large,
            table = table.sql(),
            after = after.map_or("$1::text[] IS NULL".to_owned(), |_| compared(key, ">", "$1")),
            until = until.map_or("$2::text[] IS NULL".to_owned(), |_| compared(key, "<=", "$2")),
        );
        let rows = pg::query(sql).bind(after).bind(until).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
        let mut page = Self::default();
        for row in rows {
            let key: Vec<String> = row.try_get("key")?;
            page.last = Some(key.clone());
            page.too_large = row.try_get::<i64, _>("too_large")? as u64;
            if let Some(bytes) = row.try_get::<Option<i64>, _>("bytes")? {
                page.rows.push(Row { key, ctid: row.try_get("ctid")?, xmin: row.try_get("xmin")?, bytes: bytes as u64 });
            }
        }
        Ok(page)
    }
}

/// Returns the last key of the table.
pub async fn last_key(connection: &mut PgConnection, table: &Table, key: &Key) -> Result<Option<Vec<String>>> {
    let order = columns_of(table, key).map(|column| format!("{column} DESC")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT {} FROM ONLY {} ORDER BY {order} LIMIT 1", as_texts(key), table.sql());
    match pg::query(sql).fetch_optional(connection).await.map_err(pg::in_its_own_words)? {
        Some(row) => Ok(Some(row.try_get(0)?)),
        None => Ok(None),
    }
}

/// Returns the key at which the last run stopped.
pub fn place(run: &RunContext<'_>, table: &Table) -> Option<Vec<String>> {
    let key = table.key.as_ref()?;
    let cursor = run.resume.as_ref().filter(|cursor| cursor["table"].as_i64() == Some(table.oid))?;
    let place: Vec<String> = serde_json::from_value(cursor["key"].clone()).ok()?;
    (place.len() == key.columns.len()).then_some(place)
}

/// The columns of the key with the name of their table: a bare name after ORDER BY is first looked up among the columns that the query
/// returns, so a column named `key` would be sorted as the array of texts.
fn columns_of(table: &Table, key: &Key) -> impl Iterator<Item = String> {
    key.columns.iter().map(move |column| format!("{}.{}", table.sql(), identifier(column)))
}

fn as_texts(key: &Key) -> String {
    let columns = key.columns.iter().map(|column| format!("{}::text", identifier(column))).collect::<Vec<_>>().join(", ");
    format!("ARRAY[{columns}]")
}

/// Compares the key with a bound array of texts.
fn compared(key: &Key, operator: &str, bound: &str) -> String {
    let columns = key.columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
    let values: Vec<String> =
        (1..).zip(&key.types).map(|(number, kind)| format!("({bound}::text[])[{number}]::{kind}")).collect();
    match key.columns.len() {
        1 => format!("{columns} OPERATOR(pg_catalog.{operator}) {}", values.join(", ")),
        _ => format!("ROW({columns}) OPERATOR(pg_catalog.{operator}) ROW({})", values.join(", ")),
    }
}
