//! `pgtend backups`: everything about sets that exist. It needs the store and no job, so that it works on a new host
//! after a disaster; only `prune` asks the jobs how many sets to keep.

mod list;
mod prune;
mod restore;
mod verify;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{Global, cancelled_by_signals};
use crate::client_tools;
use crate::config::{self, Config};
use crate::fault::{Fault, Kind};
use crate::pg::{self, Server};
use crate::store::Store;
use crate::task::backup::keep::Proof;
use crate::task::backup::set::{self, Set, SetName};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List sets, oldest first
    List {
        #[command(flatten)]
        filter: Filter,
    },
    /// Prove that a set is what its manifest says
    Verify {
        /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
        set: String,
        #[command(flatten)]
        filter: Filter,
        /// Restore it into a scratch database on this server: a database of the configuration, or a URL
        #[arg(long, value_name = "DATABASE")]
        restore_on: Option<String>,
    },
    /// Restore a set into a database
    Restore(restore::Arguments),
    /// Delete the sets that the jobs' `keep` no longer keeps
    Prune {
        /// Only of this job
        #[arg(long)]
        job: Option<String>,
        /// Print what would be kept and deleted, and why; delete nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct Filter {
    /// Only in this store
    #[arg(long)]
    store: Option<String>,
    /// Only of this database
    #[arg(long)]
    database: Option<String>,
    /// Only of this job
    #[arg(long)]
    job: Option<String>,
}

/// A set and the store that has it.
struct Found {
    store_name: String,
    store: Store,
    set: Set,
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let cancel = cancelled_by_signals()?;
    let work = async {
        match command {
            Command::List { filter } => list::run(global, filter).await,
            Command::Verify { set, filter, restore_on } => verify::run(global, set, filter, restore_on.as_deref()).await,
            Command::Restore(arguments) => restore::run(global, arguments).await,
            Command::Prune { job, dry_run } => prune::run(global, job.as_deref(), *dry_run).await,
        }
    };
    tokio::select! {
        result = work => result,
        // psql is killed with its group. A new database is left under its scratch name, and the next restore to the
        // same name drops it; in an existing one the transaction rolls back.
        () = cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into()),
    }
}

impl Filter {
    fn matches(&self, name: &SetName) -> bool {
        self.database.as_ref().is_none_or(|database| *database == name.database)
            && self.job.as_ref().is_none_or(|job| *job == name.job)
    }
}

async fn stores(config: &Config, filter: &Filter) -> Result<Vec<(String, Store)>> {
    if let Some(name) = filter.store.as_ref().filter(|name| !config.stores.contains_key(*name)) {
        let names = config.stores.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Fault::new(Kind::Configuration, format!("the configuration has no store `{name}`; it has: {names}")).into());
    }
    let mut stores = Vec::new();
    for (name, configured) in config.stores.iter().filter(|(name, _)| filter.store.as_ref().is_none_or(|wanted| wanted == *name))
    {
        stores.push((name.clone(), Store::open(configured).await.with_context(|| format!("store `{name}`"))?));
    }
    Ok(stores)
}

/// The one set that is meant. `latest` is the newest; with `prefer_verified` the newest verified one, if there is any.
async fn find(config: &Config, wanted: &str, filter: &Filter, prefer_verified: bool) -> Result<Found> {
    let mut candidates = Vec::new();
    let mut reasons = Vec::new();
    for (store_name, store) in stores(config, filter).await? {
        let listing = set::list(&store, "").await?;
        let meant = |name: &SetName| {
            filter.matches(name)
                && (wanted == "latest"
                    || wanted.parse::<SetName>().is_ok_and(|full| full == *name)
                    || set::parse_time(wanted) == Some(name.taken_at))
        };
        reasons.extend(
            listing
                .unreadable
                .iter()
                .filter(|(name, _)| meant(name))
                .map(|(name, reason)| format!("{name} cannot be restored: {reason}")),
        );
        for set in listing.sets.into_iter().filter(|set| meant(&set.name)) {
            candidates.push(Found { store_name: store_name.clone(), store: store.clone(), set });
        }
    }
    let series = |found: &Found| (found.set.name.database.clone(), found.set.name.job.clone());
    let mut distinct: Vec<_> = candidates.iter().map(series).collect();
    distinct.sort();
    distinct.dedup();
    if distinct.len() > 1 {
        let list = distinct.iter().map(|(database, job)| format!("{database}/{job}")).collect::<Vec<_>>().join(", ");
        return Err(Fault::new(
            Kind::Configuration,
            format!("`{wanted}` could be of {list}: say which with --database and --job"),
        )
        .into());
    }
    if prefer_verified && wanted == "latest" && candidates.iter().any(|found| found.set.verification.proof() == Proof::Verified) {
        candidates.retain(|found| found.set.verification.proof() == Proof::Verified);
    }
    let chosen = candidates.into_iter().max_by_key(|found| found.set.name.taken_at);
    chosen.with_context(|| {
        let detail = if reasons.is_empty() { "`pgtend backups list` shows what there is".to_owned() } else { reasons.join("; ") };
        Fault::new(Kind::Configuration, format!("no set `{wanted}`: {detail}"))
    })
}

/// A database of the configuration, or a URL without a password.
fn settings_of(config: &Config, target: &str) -> Result<pg::Settings> {
    if let Some(database) = config.databases.get(target) {
        return pg::Settings::resolve(database);
    }
    if !target.contains("://") {
        let names = config.databases.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Fault::new(
            Kind::Configuration,
            format!("`{target}` is neither a URL nor a database of the configuration ({names})"),
        )
        .into());
    }
    anyhow::ensure!(
        !pg::Settings::has_password(target),
        Fault::new(
            Kind::Configuration,
            "a password in an argument can be read by every user of this host: use PGPASSWORD or ~/.pgpass"
        )
    );
    pg::Settings::resolve(&config::Database { url: Some(target.to_owned().into()) })
}

/// psql for the target.
async fn tools_for(config: &Config, connection: &mut sqlx::PgConnection) -> Result<client_tools::Tools> {
    let server = Server::of(connection).await?;
    client_tools::find_for_restore(config.tools.bin_dir.as_deref(), server.major()).await
}
