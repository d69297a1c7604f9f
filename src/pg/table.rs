//! Tables, as jobs name them and as the server knows them.

use std::fmt;

use serde::Serialize;

use super::{identifier, literal, qualified};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableName {
    pub oid: i64,
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Formats the name for people: quoted only where SQL needs it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let plain = |name: &str| {
            let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_plain { name.to_owned() } else { identifier(name) }
        };
        write!(f, "{}.{}", plain(&self.schema), plain(&self.name))
    }
}

/// Adds the schema: the session has no search_path, so a name without a schema means one in `public`.
pub fn with_schema(table: &str) -> String {
    let mut is_quoted = false;
    let has_dot = table.chars().any(|c| {
        is_quoted ^= c == '"';
        c == '.' && !is_quoted
    });
    if has_dot { table.to_owned() } else { format!("public.{table}") }
}

/// A table as it was when it was searched for foreign code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// With its schema, as in SQL.
    pub name: String,
    pub oid: i64,
    /// The oid of its owner; None where that was not looked at.
    pub owner: Option<i64>,
}

impl Checked {
    pub fn of(table: &TableName) -> Self {
        Self { name: table.sql(), oid: table.oid, owner: None }
    }
}

/// A statement that fails where one of the names means another table by now, or the table has another owner. Statements go by name, and whoever
/// owns the schema may rename it and put a table of his own in the place. It belongs behind the lock of a transaction, before whatever changes
/// the table: a name that is right then still is at the next statement, unless somebody changes it in the moment between the two. Every name and
/// operator is qualified, as the session may have the application's search_path. Empty without tables.
pub fn proof<'a>(tables: impl IntoIterator<Item = &'a Checked>) -> String {
    let checks: String = tables
        .into_iter()
        .map(|Checked { name, oid, owner }| {
            let owner = owner.map(|owner| format!(" AND relowner OPERATOR(pg_catalog.=) {owner}::pg_catalog.oid")).unwrap_or_default();
            format!(
                "IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid
                     AND oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid{owner}) THEN RAISE USING MESSAGE = {}; END IF; ",
                literal(name),
                literal(&format!(
                    "{name} is another table than the one that this run checked, or has another owner now: this transaction changes nothing"
                ))
            )
        })
        .collect();
    if checks.is_empty() { String::new() } else { format!("DO {}", literal(&format!("BEGIN {checks}END"))) }
}
