//! `pgtend backups fetch`: the rows of one table out of a set.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::find::{Filter, Found, Which, find};
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::toml_file::did_you_mean;
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::cli::signals::or_cancelled;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::part;
use crate::task::backup::parts::names;
use crate::task::backup::rows_out::{Format, RowsOut};
use crate::task::backup::scan::TableData;

#[derive(Debug, Args)]
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
    /// Write to this file, which appears, or is replaced, only when all rows are proved; default: stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub async fn run(global: &Global, arguments: &Arguments, cancel: &CancellationToken) -> Result<ExitCode> {
    let Arguments { set: wanted, filter, which, table, format, output } = arguments;
    if global.json && output.is_none() {
        return Err(Fault::new(
            Kind::Configuration,
            "--json prints a summary on stdout: write the rows to a file with --output FILE",
        )
        .into());
    }
    let config = global.load_config()?;
    let found = or_cancelled(cancel, find(&config, wanted, filter, &which.choice())).await?;
    let blocks = blocks_of(&found.set.manifest, table)?;
    let rows: u64 = blocks.iter().map(|block| block.rows).sum();
    let name = format!("{}.{}", blocks[0].schema, blocks[0].name);
    let (file, out): (_, Box<dyn Write + Send>) = match output {
        Some(path) => {
            let file = temporary(path)?;
            let out = io::BufWriter::new(file.reopen()?);
            (Some((path, file)), Box::new(out))
        }
        None => (None, Box::new(io::BufWriter::new(io::stdout()))),
    };
    let progress = global.progress();
    let phase = progress.phase("fetch", None);
    let fetched = or_cancelled(cancel, fetch(&found, &blocks, *format, out, rows, &phase)).await;
    let read_bytes = fetched.with_context(|| match output {
        Some(_) => format!("the rows of {name} were not fetched, and no file was written"),
        None => format!("what was written of {name} is not all of its rows: do not use it"),
    })?;
    let said = format!(
        "{} of {name} from {} ({} read of {})",
        units::plural(rows, "row"),
        found.set.name,
        units::bytes(read_bytes),
        units::bytes(found.set.manifest.dump.bytes)
    );
    phase.done(&said);
    let Some((path, file)) = file else {
        say(&format!("pgtend: {said}"));
        return Ok(ExitCode::SUCCESS);
    };
    file.as_file().sync_all()?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    print(&match global.json {
        true => format!(
            "{:#}\n",
            json!({ "set": found.set.name.to_string(), "table": name, "rows": rows, "file": path, "read_bytes": read_bytes, "dump_bytes": found.set.manifest.dump.bytes })
        ),
        false => format!("{}: {said}\n", path.display()),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the bytes of the object that were read.
async fn fetch(
    found: &Found,
    blocks: &[&TableData],
    format: Format,
    out: Box<dyn Write + Send>,
    rows: u64,
    phase: &crate::base::progress::Phase,
) -> Result<u64> {
    let table = (blocks[0].schema.clone(), blocks[0].name.clone());
    let into = RowsOut::new(&found.set, table, format, out)?;
    let (read_bytes, into) =
        part::read(&found.store, &found.set, blocks.iter().map(|block| part::range(block)), phase, into, RowsOut::feed).await?;
    into.finish(rows)?;
    Ok(read_bytes)
}

/// A file beside `path`, which is gone unless it gets that name.
fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".pgtend-fetch-").tempfile_in(folder);
    file.with_context(|| format!("cannot write in the folder {}", folder.display()))
}

/// The blocks of the table that is meant; at least one.
fn blocks_of<'a>(manifest: &'a Manifest, wanted: &str) -> Result<Vec<&'a TableData>> {
    let is_meant = |schema: &str, name: &str| names::is_called(wanted, schema, name);
    let blocks: Vec<&TableData> = manifest.tables.iter().filter(|table| is_meant(&table.schema, &table.name)).collect();
    let refused = |message: String| Err(Fault::new(Kind::Configuration, message).into());
    let Some(first) = blocks.first() else {
        let partitions =
            manifest.server.partitions.iter().filter(|partition| is_meant(&partition.root_schema, &partition.root_name));
        let partitions: Vec<String> = partitions.map(|partition| format!("{}.{}", partition.schema, partition.name)).collect();
        if !partitions.is_empty() {
            return refused(format!("`{wanted}` is partitioned: its rows are in {}; fetch each", partitions.join(", ")));
        }
        let names: Vec<String> = manifest.tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        let hint = did_you_mean(wanted, names.iter().map(String::as_str));
        return refused(format!(
            "the set has no rows of a table `{wanted}`; {}",
            hint.unwrap_or_else(|| "`pgtend backups show` lists its tables".to_owned())
        ));
    };
    if blocks.iter().any(|block| (&block.schema, &block.name) != (&first.schema, &first.name)) {
        return refused(format!("`{wanted}` can be several tables of the set: write the name as in SQL, with double quotes"));
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
