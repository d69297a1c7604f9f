//! `pgtend backups fetch`: the rows of one table out of a set.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::find::{Filter, Found, Which};
use super::nearness::{judge, on_the_first_good, that_open};
use super::rows_file::RowsFile;
use super::thaw::{Thawing, find_readable};
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::toml_file::did_you_mean;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::parts_of_sets as printed;
use crate::cli::signals::or_cancelled;
use crate::pg::qualified;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::part;
use crate::task::backup::parts::names;
use crate::task::backup::rows_out::{Format, RowsOut};
use crate::task::backup::scan::TableData;
use crate::task::backup::tokens::Statement;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups fetch latest --table public.users --output users.sql
  pgtend backups fetch latest --table public.users --format csv >users.csv")]
pub struct Arguments {
    /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
    set: String,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    which: Which,
    /// The table, as `backups show` names it or as in SQL; without a schema, one in `public`
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: String,
    #[arg(long, value_enum, default_value = "sql")]
    format: Format,
    /// Write COPY into this table instead, named as in SQL
    #[arg(long = "as", value_name = "SCHEMA.TABLE")]
    copied_as: Option<String>,
    /// Write to this file, which appears, or is replaced, only when all rows are proved; a device or pipe gets them as they come; default: stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    thawing: Thawing,
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let Arguments { set: wanted, filter, which, table, format, copied_as, output, thawing } = arguments;
    let copied_as = copied_as.as_deref().map(|name| in_sql(name, *format)).transpose()?;
    let file = RowsFile::of(output.as_deref())?;
    if global.json && matches!(file, RowsFile::Stdout) {
        return Err(refused("--json prints a summary on stdout: write the rows to a file with --output FILE"));
    }
    let config = global.load_config()?;
    let choice = which.choice();
    let finding = find_readable(global, &config, wanted, filter, (&choice, thawing));
    let copies = or_cancelled(cancel, finding).await?;
    let mut copies = or_cancelled(cancel, that_open(copies)).await?;
    let Some(first) = copies.first() else { anyhow::bail!("there is no copy") };
    blocks_of(&first.set.manifest, table)?;
    if file.shows_rows_as_they_come() {
        // What was shown of one copy cannot be taken back.
        copies.truncate(1);
    }
    let progress = global.progress();
    let phase = progress.phase("fetch", None);
    let fetched = on_the_first_good(&copies, async |found| {
        let blocks = blocks_of(&found.set.manifest, table)?;
        let out = or_cancelled(cancel, file.open()).await?;
        let (rows, name) = rows_and_name(&blocks);
        let fetched = or_cancelled(cancel, fetch(found, &blocks, (*format, copied_as.clone()), out, rows, &phase)).await;
        let read_bytes = fetched.with_context(|| match file.shows_rows_as_they_come() {
            false => format!("the rows of {name} were not fetched, and no file was written"),
            true => format!("what was written of {name} is not all of its rows: do not use it"),
        })?;
        Ok((found.set.name.to_string(), found.store_name.clone(), found.set.manifest.dump.bytes, rows, name, read_bytes))
    });
    let fetched = fetched.await?;
    let (set, store, dump_bytes, rows, name, read_bytes) = fetched.done;
    let read = format!("{} read of {}", units::bytes(read_bytes), units::bytes(dump_bytes));
    let said = format!("{} of {name} from {set} ({read})", units::plural(rows, "row"));
    phase.done(&said);
    let (RowsFile::File { .. } | RowsFile::Device(_), Some(path)) = (&file, output) else {
        say(&format!("pgtend: {said}"));
        return Ok(ExitCode::SUCCESS);
    };
    file.finish()?;
    let file = path.display().to_string();
    match global.json {
        true => print_json(&printed::Fetch { set: &set, store: &store, table: &name, rows, file, read_bytes, dump_bytes })?,
        false => print(&format!("{file}: {said}\n"))?,
    }
    judge(&fetched.passed_over, &progress, cancel).await;
    Ok(ExitCode::SUCCESS)
}

/// Returns the number of rows and the table's name.
fn rows_and_name(blocks: &[&TableData]) -> (u64, String) {
    let name = blocks.first().map(|block| format!("{}.{}", block.schema, block.name)).unwrap_or_default();
    (blocks.iter().map(|block| block.rows).sum(), name)
}

/// Returns the bytes of the object that were read.
async fn fetch(
    found: &Found,
    blocks: &[&TableData],
    (format, copied_as): (Format, Option<String>),
    out: Box<dyn Write + Send>,
    rows: u64,
    phase: &crate::base::progress::Phase,
) -> Result<u64> {
    let table = (blocks[0].schema.clone(), blocks[0].name.clone());
    let into = RowsOut::new(&found.set, table, format, out)?.copied_as(copied_as);
    let ranges = blocks.iter().map(|block| part::range(block));
    let (read_bytes, into) = part::read(&found.store, &found.set, ranges, phase, into, RowsOut::feed).await?;
    into.finish(rows)?;
    Ok(read_bytes)
}

fn refused(message: impl Into<String>) -> anyhow::Error {
    Fault::new(Kind::Configuration, message).into()
}

/// The table that `--as` names, for a session without a search_path.
fn in_sql(name: &str, format: Format) -> Result<String> {
    if format == Format::Csv {
        return Err(refused("--as names the table of a COPY, and CSV has none: leave it out"));
    }
    let statement = Statement::of(name);
    match statement.qualified(0) {
        Some((schema, table, end)) if end == statement.tokens.len() => {
            Ok(qualified(schema.as_deref().unwrap_or("public"), &table))
        }
        _ => Err(refused(format!("--as {name} is no table's name as in SQL: write SCHEMA.TABLE, or \"Schema\".\"Table\""))),
    }
}

/// The blocks of the table that is meant; at least one.
fn blocks_of<'a>(manifest: &'a Manifest, wanted: &str) -> Result<Vec<&'a TableData>> {
    let is_meant = |schema: &str, name: &str| names::is_called(wanted, schema, name);
    let blocks: Vec<&TableData> = manifest.tables.iter().filter(|table| is_meant(&table.schema, &table.name)).collect();
    let Some(first) = blocks.first() else {
        let partitions =
            manifest.server.partitions.iter().filter(|partition| is_meant(&partition.root_schema, &partition.root_name));
        let partitions: Vec<String> = partitions.map(|partition| format!("{}.{}", partition.schema, partition.name)).collect();
        if !partitions.is_empty() {
            return Err(refused(format!("`{wanted}` is partitioned: its rows are in {}; fetch each", partitions.join(", "))));
        }
        let names: Vec<String> = manifest.tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        let hint = did_you_mean(wanted, names.iter().map(String::as_str));
        return Err(refused(format!(
            "the set has no rows of a table `{wanted}`; {}",
            hint.unwrap_or_else(|| "`pgtend backups show` lists its tables".to_owned())
        )));
    };
    if blocks.iter().any(|block| (&block.schema, &block.name) != (&first.schema, &first.name)) {
        return Err(refused(format!(
            "`{wanted}` can be several tables of the set: write the name as in SQL, with double quotes"
        )));
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::manifest::tests::manifest;

    #[test]
    fn a_table_is_meant_by_its_name_as_shown_or_as_in_sql() {
        let mut manifest = manifest();
        (manifest.tables[0].schema, manifest.tables[0].name) = ("S x".into(), "a.b".into());
        manifest.tables.push(TableData { schema: "S x.a".into(), name: "b".into(), ..manifest.tables[0].clone() });
        for wanted in ["\"S x\".\"a.b\"", "b", "public.b", "\"public\".\"b\""] {
            assert_eq!(blocks_of(&manifest, wanted).unwrap().len(), 1, "{wanted}");
        }
        assert!(blocks_of(&manifest, "S x.a.b").unwrap_err().to_string().contains("several tables"));
        assert!(blocks_of(&manifest, "public.c").unwrap_err().to_string().contains("did you mean `public.b`?"));
    }
}
