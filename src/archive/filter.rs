//! Selects rows of a batch: by time, by keys.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::base::age_keys::AgeKeys;
use crate::base::bounds;
use crate::members::sealed::Sealed;
use crate::pg::{self, identifier, literal};

/// The most values in one filter: for more, use a table.
const MAX_VALUES: usize = 10_000;

/// A filter whose conditions must all hold. An empty one selects all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Range>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// The filter, which only a key opens. Until then it is one of some rows, and nobody knows of which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// Values from `from` on and before `to`, each as SQL would read it in quotes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub column: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub column: String,
    pub values: Vec<String>,
}

impl Filter {
    pub fn is_all(&self) -> bool {
        self.time.is_none() && self.keys.is_empty() && self.sealed.is_none()
    }

    /// Returns it as it is written to a store with these keys: where that seals, nobody reads its columns and values without a key.
    pub fn into_written(self, keys: &AgeKeys) -> Result<Self> {
        if self.is_all() || self.sealed.is_some() || !keys.seals_manifests || keys.recipients.is_empty() {
            return Ok(self);
        }
        Ok(Self { sealed: Some(Sealed::of(serde_json::to_vec(&self)?, &keys.recipients)?), ..Self::default() })
    }

    /// Opens it, where a key of this host does.
    pub fn opened(self, keys: &Arc<AgeKeys>) -> Result<Self> {
        let Some(contents) = self.sealed.as_ref().map(|sealed| sealed.open(keys)).transpose()?.flatten() else { return Ok(self) };
        let opened: Self = serde_json::from_slice(&contents).context("its sealed filter is none")?;
        opened.check()?;
        Ok(opened)
    }

    /// Returns a condition that is true or false, never NULL.
    pub fn sql(&self) -> String {
        let mut conditions = Vec::new();
        if let Some(Range { column, from, to }) = &self.time {
            let bound = |operator: &str, value: &Option<String>| {
                let value = value.as_ref()?;
                Some(format!("{} OPERATOR(pg_catalog.{operator}) {}", identifier(column), literal(value)))
            };
            conditions.extend([bound(">=", from), bound("<", to)].into_iter().flatten());
        }
        for Key { column, values } in &self.keys {
            // Values are compared one by one: each literal takes the column's type, which an array of them would not.
            let column = identifier(column);
            let is = |value: &String| format!("{column} OPERATOR(pg_catalog.=) {}", literal(value));
            conditions.push(format!("({})", values.iter().map(is).collect::<Vec<_>>().join(" OR ")));
        }
        if conditions.is_empty() { "true".to_owned() } else { format!("coalesce({}, false)", conditions.join(" AND ")) }
    }

    /// Returns the filter with its values as the server reads them now, by the types of the table's columns: later `now` means another time, and a
    /// time without a zone does in a session with another TimeZone.
    pub async fn resolved(&self, connection: &mut PgConnection, table: &str) -> Result<Self> {
        let mut resolved = self.clone();
        if let Some(Range { column, from, to }) = &mut resolved.time {
            let sides: Vec<&mut String> = [from, to].into_iter().flatten().collect();
            resolve(connection, table, column, sides).await?;
        }
        for Key { column, values } in &mut resolved.keys {
            resolve(connection, table, column, values.iter_mut().collect()).await?;
        }
        Ok(resolved)
    }

    pub fn check(&self) -> anyhow::Result<()> {
        let columns = self.time.iter().map(|time| &time.column).chain(self.keys.iter().map(|key| &key.column));
        for column in columns {
            bounds::catalog_name("a column", column)?;
        }
        let values = self.keys.iter().map(|key| key.values.len()).sum::<usize>();
        anyhow::ensure!(values <= MAX_VALUES, "{values} values in one filter are more than {MAX_VALUES}");
        Ok(())
    }
}

/// Replaces each text by the column's value that it stands for.
async fn resolve(connection: &mut PgConnection, table: &str, column: &str, values: Vec<&mut String>) -> Result<()> {
    // A literal takes the type of the other branch, without its length: a cast by the type's name would cut text off.
    let read = |value: &&mut String| format!("pg_catalog.format('%s', CASE WHEN true THEN {} ELSE x END)", literal(value));
    let sql = format!(
        "SELECT pg_catalog.unnest(ARRAY[{}]) FROM (SELECT (SELECT {} FROM {table} LIMIT 0) AS x OFFSET 0) s",
        values.iter().map(read).collect::<Vec<_>>().join(", "),
        identifier(column)
    );
    let texts: Vec<(String,)> =
        pg::fetch_all_as(connection, sql).await.with_context(|| format!("the filter by {column}, as a column of {table}"))?;
    anyhow::ensure!(texts.len() == values.len(), "{} values of {column} were read as {}", values.len(), texts.len());
    for (value, (text,)) in values.into_iter().zip(texts) {
        *value = text;
    }
    Ok(())
}

/// Formats the filter as a person wrote it.
impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut parts = Vec::new();
        if let Some(Range { column, from, to }) = &self.time {
            let of = |value: &Option<String>| value.clone().unwrap_or_default();
            parts.push(format!("{column} {}..{}", of(from), of(to)));
        }
        parts.extend(self.keys.iter().map(|key| format!("{} = {}", key.column, key.values.join(", "))));
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_condition_whatever_is_in_it() {
        assert_eq!(Filter::default().sql(), "true");
        let time = Range { column: "a\"t".to_owned(), from: Some("2026-01-01".to_owned()), to: None };
        let key = Key { column: "id".to_owned(), values: vec!["4'2".to_owned(), "5".to_owned()] };
        let filter = Filter { time: Some(time), keys: vec![key], sealed: None };
        assert_eq!(
            filter.sql(),
            "coalesce(\"a\"\"t\" OPERATOR(pg_catalog.>=) E'2026-01-01' AND (\"id\" OPERATOR(pg_catalog.=) E'4''2' OR \"id\" OPERATOR(pg_catalog.=) E'5'), false)"
        );
    }
}
