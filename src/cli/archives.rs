//! `archives`: rows that left their tables, and how they come back.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use super::output::{self, print};
use crate::archive::{self, BatchName, Manifest};
use crate::config::Config;
use crate::fault::{Fault, Kind};
use crate::pg;
use crate::store::Store;
use crate::terminal::say;
use crate::units;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the batches
    List {
        #[command(flatten)]
        filter: Filter,
    },
    /// Put rows back: each batch whole or not at all, oldest first. The archive stays as it is
    Restore {
        #[command(flatten)]
        filter: Filter,
        /// Only this batch, as `list` shows it
        #[arg(long, value_name = "NAME")]
        batch: Option<String>,
        /// The database they go to, by its name in the configuration [default: where they came from]
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
        /// The table they go to, as in SQL [default: where they came from]
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
        /// Say what would be put where; write nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct Filter {
    /// Only in this store
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// Only from this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Only of this job
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
}

struct Found {
    store_name: String,
    store: Store,
    batch: (BatchName, Manifest),
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let config = global.load_config()?;
    match command {
        Command::List { filter } => list(global, &config, filter).await,
        Command::Restore { filter, batch, to, table, dry_run } => {
            let mut found = find(&config, filter).await?;
            if let Some(batch) = batch {
                found.retain(|found| found.batch.0.to_string() == *batch);
            }
            anyhow::ensure!(!found.is_empty(), "there are no such batches; `pgtend archives list` shows what there is");
            restore(global, &config, &found, to.as_deref(), table.as_deref(), *dry_run).await
        }
    }
}

async fn list(global: &Global, config: &Config, filter: &Filter) -> Result<ExitCode> {
    let found = find(config, filter).await?;
    if global.json {
        let rows: Vec<_> = found
            .iter()
            .map(|found| json!({ "store": found.store_name, "batch": found.batch.0.to_string(), "manifest": found.batch.1 }))
            .collect();
        print(&format!("{:#}\n", json!({ "batches": rows })))?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        say("no archived rows");
        return Ok(ExitCode::SUCCESS);
    }
    let rows = found.iter().map(|found| {
        let (name, manifest) = &found.batch;
        vec![
            found.store_name.clone(),
            name.to_string(),
            pg::qualified(&manifest.schema, &manifest.table),
            units::count(manifest.exported.rows),
            units::bytes(manifest.exported.bytes),
            manifest.reason.clone(),
        ]
    });
    print(&output::table(&["STORE", "BATCH", "TABLE", "ROWS", "SIZE", "WHY"], rows))?;
    Ok(ExitCode::SUCCESS)
}

async fn restore(
    global: &Global,
    config: &Config,
    found: &[Found],
    to: Option<&str>,
    table: Option<&str>,
    dry_run: bool,
) -> Result<ExitCode> {
    let progress = global.progress();
    let mut rows = 0;
    for Found { store, batch, .. } in found {
        let (name, manifest) = batch;
        let database = to.unwrap_or(&manifest.database);
        let table = table.map(str::to_owned).unwrap_or_else(|| pg::qualified(&manifest.schema, &manifest.table));
        if dry_run {
            print(&format!(
                "would put {} of {name} into {table} on {database}\n",
                units::plural(manifest.exported.rows as usize, "row")
            ))?;
            continue;
        }
        let configured = config.databases.get(database).with_context(|| {
            Fault::new(Kind::Configuration, format!("the configuration has no database `{database}`; name one with --to"))
        })?;
        let settings = pg::Settings::resolve(configured)?;
        let mut connection = settings.connect().await.with_context(|| format!("database `{database}`"))?;
        let phase = progress.phase("restore", Some(manifest.exported.bytes));
        let restored = archive::restore(store, batch, &mut connection, &table, &phase)
            .await
            .with_context(|| format!("{} of the batches before it back; this one changed nothing", units::plural(rows, "row")))?;
        phase.done(&format!("{} into {table}", units::plural(restored as usize, "row")));
        rows += restored;
    }
    if !dry_run {
        print(&format!(
            "{} put back from {}\n",
            units::plural(rows as usize, "row"),
            units::plural(found.len(), "archive object")
        ))?;
        if table.is_none() {
            say(
                "they are as old as they were: the job that archived them takes them again at its next run, unless you change it",
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(config: &Config, filter: &Filter) -> Result<Vec<Found>> {
    if let Some(name) = filter.store.as_ref().filter(|name| !config.stores.contains_key(*name)) {
        return Err(Fault::new(Kind::Configuration, format!("the configuration has no store `{name}`")).into());
    }
    let mut found = Vec::new();
    for (store_name, configured) in
        config.stores.iter().filter(|(name, _)| filter.store.as_ref().is_none_or(|only| only == *name))
    {
        let store = Store::open(configured).await?;
        if !store.is_there() {
            continue;
        }
        for batch in archive::list(&store, "").await.with_context(|| format!("store `{store_name}`"))? {
            let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
            if is(&filter.database, &batch.1.database) && is(&filter.job, &batch.1.job) {
                found.push(Found { store_name: store_name.clone(), store: store.clone(), batch });
            }
        }
    }
    Ok(found)
}
