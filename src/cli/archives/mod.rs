//! `archives`: rows that left their tables, and how they come back.

mod restore;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use super::output::{self, print};
use crate::archive::{self, BatchName, Broken, Manifest};
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::units;
use crate::config::Config;
use crate::pg;
use crate::store::Store;
use crate::store::key;
use crate::store::sign::Signature;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the batches
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also batches without a signature of their store's key (sign_key_file, sign_key_env)
        #[arg(long)]
        unsigned_ok: bool,
    },
    /// Put rows back, once: each batch whole or not at all, oldest first. The archive stays as it is
    Restore {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        wanted: restore::Wanted,
        /// Also batches without a signature of their store's key (sign_key_file, sign_key_env): whoever can write to the store may
        /// have made them
        #[arg(long)]
        unsigned_ok: bool,
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
    /// None: it is ours.
    signature: Option<Signature>,
}

/// What a look through the stores has shown.
#[derive(Default)]
struct All {
    found: Vec<Found>,
    not_ours: Vec<Found>,
    /// With the store's name.
    broken: Vec<(String, Broken)>,
    /// Whose rows are in a later batch.
    replaced: Vec<String>,
}

impl All {
    /// How many batches there are, or may be, beside those that were found. A folder that cannot be looked into may have some when
    /// others of its series were found; of other folders nobody knows whose they are.
    fn lacks(&self) -> usize {
        let is_of_a_series = |key: &str| {
            let folder = format!("{key}/");
            key.split('/').count() > 2 || self.found.iter().any(|found| found.batch.0.object().starts_with(&folder))
        };
        self.broken.iter().filter(|(_, broken)| broken.may_have_rows && is_of_a_series(&broken.key)).count()
    }

    /// For whoever must know that there is more than what is listed.
    fn say_the_rest(&self) {
        for Found { store_name, batch, signature, .. } in &self.not_ours {
            let why = signature.map(Signature::in_words).unwrap_or_default();
            tracing::warn!("passed by: {} in {store_name} is not ours: {why}; --unsigned-ok takes it all the same", batch.0);
        }
        for name in &self.replaced {
            tracing::info!("passed by: {name}: a later batch has its rows, as they were when they left");
        }
        for (store_name, Broken { key, reason, .. }) in &self.broken {
            tracing::warn!("passed by: {key} in {store_name}: {reason}");
        }
    }
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let config = global.load_config()?;
    match command {
        Command::List { filter, unsigned_ok } => list(global, &config, filter, *unsigned_ok).await,
        Command::Restore { filter, wanted, unsigned_ok } => {
            let mut all = find(&config, filter, *unsigned_ok).await?;
            if let Some(batch) = &wanted.batch {
                let is_meant = |name: &BatchName| name.to_string() == *batch;
                all.found.retain(|found| is_meant(&found.batch.0));
                all.not_ours.retain(|found| is_meant(&found.batch.0));
                all.broken.retain(|(_, broken)| broken.key.starts_with(batch.as_str()));
            }
            all.say_the_rest();
            anyhow::ensure!(!all.found.is_empty(), "there are no such batches; `pgtend archives list` shows what there is");
            restore::run(global, &config, &all.found, wanted, *unsigned_ok).await?;
            let lost = all.lacks();
            anyhow::ensure!(
                lost == 0,
                "what could be read is done, and {lost} parts of the archive could not be: they are named above"
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(global: &Global, config: &Config, filter: &Filter, unsigned_ok: bool) -> Result<ExitCode> {
    let all = find(config, filter, unsigned_ok).await?;
    let found = &all.found;
    if global.json {
        let rows: Vec<_> = found
            .iter()
            .map(|found| {
                let asked = if found.store.has_sign_key() { Signature::Valid } else { Signature::NotAsked };
                let signature = found.signature.unwrap_or(asked);
                json!({ "store": found.store_name, "batch": found.batch.0.to_string(), "manifest": found.batch.1, "signature": signature })
            })
            .collect();
        let not_ours = all
            .not_ours
            .iter()
            .map(|found| json!({ "store": found.store_name, "batch": found.batch.0.to_string(), "signature": found.signature }));
        let broken =
            all.broken.iter().map(|(store, broken)| json!({ "store": store, "key": broken.key, "reason": broken.reason }));
        let (not_ours, broken): (Vec<_>, Vec<_>) = (not_ours.collect(), broken.collect());
        print(&format!("{:#}\n", json!({ "batches": rows, "not_ours": not_ours, "broken": broken })))?;
        return Ok(ExitCode::SUCCESS);
    }
    all.say_the_rest();
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
            match found.signature {
                Some(signature) => format!("{} ({})", manifest.reason, signature.in_short()),
                None => manifest.reason.clone(),
            },
        ]
    });
    print(&output::table(&["STORE", "BATCH", "TABLE", "ROWS", "SIZE", "WHY"], rows))?;
    Ok(ExitCode::SUCCESS)
}

async fn find(config: &Config, filter: &Filter, unsigned_ok: bool) -> Result<All> {
    if let Some(name) = filter.store.as_ref().filter(|name| !config.stores.contains_key(*name)) {
        return Err(Fault::new(Kind::Configuration, format!("the configuration has no store `{name}`")).into());
    }
    let mut all = All::default();
    for (store_name, configured) in
        config.stores.iter().filter(|(name, _)| filter.store.as_ref().is_none_or(|only| only == *name))
    {
        let store = Store::open(configured).await?;
        if !store.is_there() {
            continue;
        }
        let listing = archive::list(&store, "").await.with_context(|| format!("store `{store_name}`"))?;
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let ours = listing.batches.into_iter().map(|batch| (batch, None));
        let not_ours = listing.not_ours.into_iter().map(|(name, manifest, signature)| ((name, manifest), Some(signature)));
        for (batch, signature) in ours.chain(not_ours) {
            if is(&filter.database, &batch.1.database) && is(&filter.job, &batch.1.job) {
                let found = Found { store_name: store_name.clone(), store: store.clone(), batch, signature };
                let list = if signature.is_none() || unsigned_ok { &mut all.found } else { &mut all.not_ours };
                list.push(found);
            }
        }
        all.replaced.extend(listing.replaced.iter().map(ToString::to_string));
        // Of what cannot be read only its place is known.
        let broken = listing.broken.into_iter().filter(|broken| {
            let mut parts = broken.key.split('/').map(key::decode);
            let mut fits = |wanted: &Option<String>| match parts.next() {
                Some(Ok(name)) => is(wanted, &name),
                Some(Err(_)) => wanted.is_none(),
                None => true,
            };
            fits(&filter.database) && fits(&filter.job)
        });
        all.broken.extend(broken.map(|broken| (store_name.clone(), broken)));
    }
    all.found.sort_by(|a, b| (&a.store_name, &a.batch.0).cmp(&(&b.store_name, &b.batch.0)));
    Ok(all)
}
