//! Tables, as jobs name them and as the server knows them.

use std::fmt;

use serde::Serialize;

use super::{identifier, qualified};

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
