//! The arguments of `archives restore`: which rows go back, and into which table.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap::Args;

use super::super::find::Found;
use crate::archive::Manifest;
use crate::archive::filter::{Filter, Key, Range};
use crate::base::fault::{Fault, Kind};
use crate::pg;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this batch, named as `list` shows it
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
    /// The configured database to restore into [default: the one that the rows came from]
    #[arg(long, value_name = "NAME")]
    pub to: Option<String>,
    /// Only rows of this table, written as in SQL
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// The table to restore into, written as in SQL [default: the one that the rows came from]
    #[arg(long, value_name = "TABLE")]
    pub into: Option<String>,
    /// Only rows from this time range, as FROM..TO without TO itself; either end may be left out
    #[arg(long, value_name = "FROM..TO")]
    time: Option<String>,
    /// The column that --time refers to [default: the one by which the job archived]
    #[arg(long, value_name = "COLUMN", requires = "time")]
    time_column: Option<String>,
    /// Only rows with this value; when --key is given several times, all must match
    #[arg(long = "key", value_name = "COLUMN=VALUE[,VALUE]")]
    keys: Vec<String>,
    /// Only rows of this database, as `list --json` and messages name it: SYSTEM_IDENTIFIER/DATABASE, or the first part alone
    #[arg(long, value_name = "IDENTITY")]
    pub from: Option<String>,
    /// Also when a folder has rows of several databases or servers
    #[arg(long, conflicts_with = "from")]
    pub any: bool,
    /// Also put back batches that are already back, according to the record beside them
    #[arg(long)]
    pub again: bool,
    /// Print what would be restored where; write nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Arguments {
    /// Returns the filter for the rows of this batch that are to go back.
    pub fn filter(&self, manifest: &Manifest) -> Result<Filter> {
        let filter = Filter {
            time: self.time.as_ref().map(|text| self.range(text, manifest)).transpose()?,
            keys: self.keys.iter().map(|text| key(text)).collect::<Result<_>>()?,
            sealed: None,
        };
        filter.check()?;
        let columns = filter.time.iter().map(|time| &time.column).chain(filter.keys.iter().map(|key| &key.column));
        for column in columns {
            let has = manifest.columns.contains(column);
            anyhow::ensure!(has, usage(format!("{} has no column {column}", table_of(manifest))));
        }
        Ok(filter)
    }

    /// Reads `--time FROM..TO`.
    fn range(&self, text: &str, manifest: &Manifest) -> Result<Range> {
        let (from, to) = text
            .split_once("..")
            .with_context(|| usage(format!("`--time {text}`: write FROM..TO, as 2026-01-01..2026-02-01")))?;
        let side = |side: &str| (!side.trim().is_empty()).then(|| side.trim().to_owned());
        let column = self.time_column.clone().or_else(|| manifest.time_column.clone()).with_context(|| {
            usage("the batch does not record which column holds its time: name it with --time-column".to_owned())
        })?;
        let (from, to) = (side(from), side(to));
        if from.is_none() && to.is_none() {
            return Err(usage("`--time ..` has no limits: name FROM, TO or both".to_owned()).into());
        }
        Ok(Range { column, from, to })
    }

    /// Returns the batches that hold rows of the table with `--table`. Without any, `--into` may be what is meant: rows of another table
    /// never go there by themselves.
    pub(super) fn choose<'a>(&self, found: &'a [Found]) -> Result<Vec<&'a Found>> {
        let Some(table) = &self.table else { return Ok(found.iter().collect()) };
        let chosen: Vec<&Found> = found.iter().filter(|found| is_of(&found.batch.1, table)).collect();
        if chosen.is_empty() {
            let tables: BTreeSet<String> = found.iter().map(|found| table_of(&found.batch.1)).collect();
            let message = format!(
                "no batch holds rows of {table}, but of {}: --into {table} puts rows of other tables there",
                tables.into_iter().collect::<Vec<_>>().join(", ")
            );
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(chosen)
    }
}

/// Reads `--key COLUMN=VALUE[,VALUE]`.
fn key(text: &str) -> Result<Key> {
    let (column, values) = text
        .split_once('=')
        .filter(|(column, values)| !column.is_empty() && !values.is_empty())
        .with_context(|| usage(format!("`--key {text}`: write COLUMN=VALUE")))?;
    Ok(Key { column: column.to_owned(), values: values.split(',').map(str::to_owned).collect() })
}

fn usage(message: String) -> Fault {
    Fault::new(Kind::Configuration, message)
}

/// Returns the table whose rows the batch holds, as in SQL.
pub fn table_of(manifest: &Manifest) -> String {
    pg::qualified(&manifest.schema, &manifest.table)
}

/// Says whether `text`, written as in SQL, names the batch's table.
fn is_of(manifest: &Manifest, text: &str) -> bool {
    let plain = |name: &str| {
        if name == name.to_lowercase() { vec![name.to_owned(), pg::identifier(name)] } else { vec![pg::identifier(name)] }
    };
    let tables = plain(&manifest.table);
    let schemas = plain(&manifest.schema);
    let with_schema = schemas.iter().flat_map(|schema| tables.iter().map(move |table| format!("{schema}.{table}")));
    let is_public = manifest.schema == "public";
    with_schema.chain(tables.iter().filter(|_| is_public).cloned()).any(|name| name == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Source;

    #[test]
    fn a_table_is_known_by_each_of_its_names() {
        let source = |schema: &str, table: &str| Source {
            schema: schema.to_owned(),
            table: table.to_owned(),
            columns: Vec::new(),
            queries: Vec::new(),
            steps: None,
        };
        let manifest = |schema, table| Manifest::new("job", "app", &source(schema, table), "");
        for (schema, table, text, expected) in [
            ("public", "logs", "public.logs", true),
            ("public", "logs", "logs", true),
            ("public", "logs", "\"public\".\"logs\"", true),
            ("other", "logs", "logs", false),
            ("public", "Logs", "public.Logs", false),
            ("public", "Logs", "public.\"Logs\"", true),
            ("public", "logs", "public.back", false),
        ] {
            assert_eq!(is_of(&manifest(schema, table), text), expected, "{schema} {table} {text}");
        }
    }
}
