//! `pgtend backups diff`.

use std::process::ExitCode;

use anyhow::Result;

use super::find::{Filter, Which, find};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{self, print, print_json};
use crate::cli::outputs::parts_of_sets as printed;
use crate::task::backup::change::{self, Change};
use crate::task::backup::set::Set;

/// Compares the rows of the tables in two sets, by what their manifests say: no dump is read.
pub async fn run(global: &Global, before: &str, after: &str, filter: &Filter, which: &Which) -> Result<ExitCode> {
    let config = global.load_config()?;
    let before = find(global, &config, before, filter, &which.choice()).await?.set;
    let after = find(global, &config, after, filter, &which.choice()).await?.set;
    ensure_open(&before)?;
    ensure_open(&after)?;
    let changes = change::changes(&before.manifest, &after.manifest);
    if before.manifest.filters != after.manifest.filters {
        tracing::warn!("the two sets were made with different filters (schemas, exclude_tables, exclude_table_data)");
    }
    if global.json {
        let tables = changes.iter().map(|change| printed::Change {
            table: &change.table,
            before: change.before,
            after: change.now,
            change: change.in_a_word(),
        });
        let (before, after) = (before.name.to_string(), after.name.to_string());
        print_json(&printed::Diff { before, after, tables: tables.collect() })?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("before  {}\nafter   {}\n\n", before.name, after.name))?;
    match changes.is_empty() {
        true => print("every table has as many rows in one as in the other\n")?,
        false => print(&output::table(&["TABLE", "BEFORE", "AFTER", "CHANGE"], changes.iter().map(row)))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ensure_open(set: &Set) -> Result<()> {
    let message = || {
        format!("the tables of {} are sealed: compare them on a host with an `identity_file` for one of its recipients", set.name)
    };
    anyhow::ensure!(!set.manifest.names_are_sealed(), Fault::new(Kind::Configuration, message()));
    Ok(())
}

fn row(change: &Change) -> Vec<String> {
    let rows = |rows: Option<u64>| rows.map_or("-".to_owned(), units::count);
    vec![change.table.clone(), rows(change.before), rows(change.now), change.in_a_word().to_owned()]
}
