//! `archives`: rows that left their tables, and how they come back.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use super::output::{self, print};
use crate::archive::{self, BatchName, Broken, Manifest};
use crate::config::Config;
use crate::fault::{Fault, Kind};
use crate::job::{self, Job};
use crate::pg;
use crate::store::Store;
use crate::store::sign::Signature;
use crate::task::backup::set;
use crate::task::foreign_code;
use crate::terminal::say;
use crate::units;

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
        for (store_name, Broken { key, reason, .. }) in &self.broken {
            tracing::warn!("passed by: {key} in {store_name}: {reason}");
        }
    }
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let config = global.load_config()?;
    match command {
        Command::List { filter, unsigned_ok } => list(global, &config, filter, *unsigned_ok).await,
        Command::Restore { filter, batch, to, table, dry_run, unsigned_ok } => {
            let mut all = find(&config, filter, *unsigned_ok).await?;
            if let Some(batch) = batch {
                let is_meant = |name: &BatchName| name.to_string() == *batch;
                all.found.retain(|found| is_meant(&found.batch.0));
                all.not_ours.retain(|found| is_meant(&found.batch.0));
                all.broken.retain(|(_, broken)| broken.key.starts_with(batch.as_str()));
            }
            all.say_the_rest();
            anyhow::ensure!(!all.found.is_empty(), "there are no such batches; `pgtend archives list` shows what there is");
            let trusts = Trusts::read(global, &config);
            restore(global, &config, &trusts, &all.found, to.as_deref(), table.as_deref(), *dry_run).await?;
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

/// Which jobs have `trust_owners = false`.
struct Trusts(Vec<Job>);

impl Trusts {
    /// Jobs that cannot be read are no reason to keep rows away in an emergency.
    fn read(global: &Global, config: &Config) -> Self {
        let mut problems = Vec::new();
        let jobs = job::load_dir(&global.jobs_dir(), config, &mut problems);
        if !problems.is_empty() {
            tracing::warn!("not all jobs can be read (`pgtend check` says why): `trust_owners = false` of theirs is not known");
        }
        Self(jobs)
    }

    fn owners_of(&self, job: &str) -> bool {
        self.0.iter().filter(|known| known.name == job).all(|known| known.limits.trust_owners)
    }
}

async fn restore(
    global: &Global,
    config: &Config,
    trusts: &Trusts,
    found: &[Found],
    to: Option<&str>,
    table: Option<&str>,
    dry_run: bool,
) -> Result<()> {
    let progress = global.progress();
    let mut rows = 0;
    let mut warned = BTreeSet::new();
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
        let settings = pg::Settings::resolve_owner(configured)?;
        // Triggers, defaults and checks of the table run in it.
        let connecting = settings.connect_for(pg::Purpose::Application);
        let mut connection = connecting.await.with_context(|| format!("database `{database}`"))?;
        let table = archive::target(&mut connection, &table).await.with_context(|| name.to_string())?;
        let foreign = foreign_code::warnings_of_inserts(&settings, &table, trusts.owners_of(&manifest.job)).await;
        for warning in foreign.with_context(|| name.to_string())? {
            if warned.insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
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
    Ok(())
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
        // Of what cannot be read only its place is known.
        let broken = listing.broken.into_iter().filter(|broken| {
            let mut parts = broken.key.split('/').map(set::decode);
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
