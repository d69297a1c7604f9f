//! `pgtend backups`: everything about sets that exist. It needs the store and no job, so that it works on a new host
//! after a disaster; only `prune` asks the jobs how many sets to keep.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, print};
use super::{Global, cancelled_by_signals};
use crate::client_tools;
use crate::config::{self, Config};
use crate::fault::{Fault, Kind};
use crate::pg::{self, Server};
use crate::store::Store;
use crate::task::Task;
use crate::task::backup::keep::{self, Proof};
use crate::task::backup::set::{self, Set, SetName};
use crate::task::backup::{self, restore, verify};
use crate::units;

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
    Restore {
        /// DATABASE/JOB/TIME as listed, TIME alone, or `latest` (the newest verified one)
        set: String,
        #[command(flatten)]
        filter: Filter,
        /// Where to: a URL, or a database of the configuration. No password in a URL here: arguments are readable by
        /// every user of the host; use PGPASSWORD or ~/.pgpass
        #[arg(long, value_name = "URL")]
        into: String,
        /// Make the database; it gets its name only when the restore is complete
        #[arg(long)]
        create: bool,
        /// Make the roles that the target lacks, without login
        #[arg(long)]
        create_roles: bool,
    },
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
            Command::List { filter } => list(global, filter).await,
            Command::Verify { set, filter, restore_on } => verify(global, set, filter, restore_on.as_deref()).await,
            Command::Restore { set, filter, into, create, create_roles } => {
                restore(global, set, filter, into, *create, *create_roles).await
            }
            Command::Prune { job, dry_run } => prune(global, job.as_deref(), *dry_run).await,
        }
    };
    tokio::select! {
        result = work => result,
        // psql is killed with its group. A new database is left under its scratch name, and the next restore to the
        // same name drops it; in an existing one the transaction rolls back.
        () = cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into()),
    }
}

async fn list(global: &Global, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut rows = Vec::new();
    let mut json_rows = Vec::new();
    let mut broken = Vec::new();
    let mut newest_good = None;
    let now = Utc::now();
    for (store_name, store) in stores(&config, filter).await? {
        if !store.is_there() {
            tracing::warn!("store `{store_name}`: there is no folder {} (yet, or is a disk not mounted?)", store.location(""));
        }
        let listing = set::list(&store, "").await?;
        for set in listing.sets.iter().filter(|set| filter.matches(&set.name)) {
            let manifest = &set.manifest;
            if set.verification.proof() == Proof::Verified {
                newest_good = newest_good.max(Some(set.name.taken_at));
            }
            rows.push(vec![
                set.name.to_string(),
                store_name.clone(),
                units::age(set.name.taken_at, now),
                units::bytes(manifest.dump.bytes),
                units::count(manifest.tables.len() as u64),
                units::count(manifest.rows()),
                set.verification.in_words(),
            ]);
            json_rows.push(json!({
                "set": set.name.to_string(),
                "store": store_name,
                "database": set.name.database,
                "job": set.name.job,
                "taken_at": set.name.taken_at,
                "location": store.location(&set.name.key(&manifest.dump.object)),
                "dump_bytes": manifest.dump.bytes,
                "uncompressed_bytes": manifest.dump.uncompressed_bytes,
                "sha256": manifest.dump.sha256,
                "tables": manifest.tables.len(),
                "rows": manifest.rows(),
                "server_version": manifest.server.version,
                "verification": set.verification,
                "proof": set.verification.proof(),
                "warnings": manifest.warnings,
            }));
        }
        broken.extend(
            listing
                .unreadable
                .into_iter()
                .filter(|(name, _)| filter.matches(name))
                .map(|(name, reason)| (store_name.clone(), name, reason)),
        );
    }
    if global.json {
        let broken: Vec<_> = broken
            .iter()
            .map(|(store, name, reason)| json!({ "store": store, "set": name.to_string(), "reason": reason }))
            .collect();
        print(&format!("{:#}\n", json!({ "sets": json_rows, "unrestorable": broken })))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        print("no sets\n")?;
    } else {
        print(&output::table(&["SET", "STORE", "AGE", "SIZE", "TABLES", "ROWS", "VERIFIED"], rows.into_iter()))?;
        match newest_good {
            Some(at) => print(&format!("\nThe last verified set is {} old.\n", units::age(at, now)))?,
            None => print("\nNo set is verified: `pgtend backups verify latest`.\n")?,
        }
    }
    for (store, name, reason) in broken {
        eprintln!("pgtend: not listed: {name} in {store} cannot be restored: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(global: &Global, wanted: &str, filter: &Filter, restore_on: Option<&str>) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut found = find(&config, wanted, filter, false).await?;
    match restore_on {
        None => verify::by_checksum(&found.store, &mut found.set, &global.progress()).await?,
        Some(target) => {
            let settings = settings_of(&config, target)?;
            let mut connection = restore::maintenance_connection(&settings).await?;
            let tools = tools_for(&config, &mut connection).await?;
            // Not the job's own prefix: its run may be going on.
            let prefix = restore::scratch_prefix(
                &found.set.name.database,
                &format!("{} by hand", found.set.name.job),
                &found.set.manifest.server,
            );
            for leftover in restore::scratch_leftovers(&mut connection, &prefix).await? {
                restore::drop_scratch(&mut connection, &leftover).await?;
            }
            let scratch = verify::Scratch { settings: &settings, tools: &tools, name: format!("{prefix}{}", std::process::id()) };
            verify::by_restore(&found.store, &mut found.set, &scratch, &global.progress()).await?;
        }
    }
    let set = &found.set;
    if global.json {
        print(&format!(
            "{:#}\n",
            json!({ "set": set.name.to_string(), "store": found.store_name, "verification": set.verification, "proof": set.verification.proof() })
        ))?;
    } else {
        let how = if restore_on.is_some() { "restored" } else { "read back" };
        print(&format!(
            "{}: {how}, {} tables and {} rows are as the manifest says\n",
            set.name,
            units::count(set.manifest.tables.len() as u64),
            units::count(set.manifest.rows())
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn restore(
    global: &Global,
    wanted: &str,
    filter: &Filter,
    into: &str,
    create: bool,
    create_roles: bool,
) -> Result<ExitCode> {
    let config = global.load_config()?;
    let settings = settings_of(&config, into)?;
    let found = find(&config, wanted, filter, true).await?;
    let (set, manifest) = (&found.set, &found.set.manifest);
    let mut connection = if create {
        restore::maintenance_connection(&settings).await?
    } else {
        settings.connect().await.context("--create makes a database that does not exist")?
    };
    let tools = tools_for(&config, &mut connection).await?;
    let lacks = restore::prepare_server(&mut connection, set, create_roles).await?;
    drop(connection);
    for note in &lacks.notes {
        tracing::warn!("{note}");
    }
    if !lacks.roles.is_empty() {
        tracing::warn!("made without login: {}", lacks.roles.join(", "));
    }

    let phase = global.progress().phase("restore", Some(manifest.dump.bytes));
    let restored = if create {
        restore::into_new_database(&found.store, set, &settings, &tools, &phase).await?
    } else {
        restore::into_empty_database(&found.store, set, &settings, &tools, &phase).await?
    };
    anyhow::ensure!(
        restored.problems.is_empty(),
        "{} was not restored, and {} is as it was before: {}",
        set.name,
        settings.display(),
        restored.problems.join("; ")
    );
    phase.done(&format!("{} from {}", settings.display(), set.name));
    let (tables, rows) = (manifest.tables.len() as u64, manifest.rows());
    if global.json {
        print(&format!(
            "{:#}\n",
            json!({ "set": set.name.to_string(), "into": settings.display(), "tables": tables, "rows": rows, "elapsed_seconds": phase.elapsed().as_secs_f64() })
        ))?;
    } else {
        print(&format!(
            "{} is restored into {}: {} tables, {} rows, each table counted\n",
            set.name,
            settings.display(),
            units::count(tables),
            units::count(rows)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn prune(global: &Global, only: Option<&str>, dry_run: bool) -> Result<ExitCode> {
    let (config, jobs) = global.load()?;
    if let Some(name) = only {
        global.find_job(&jobs, name)?;
    }
    let mut json_rows = Vec::new();
    let mut text = String::new();
    for job in jobs.iter().filter(|job| only.is_none_or(|name| name == job.name)) {
        let Task::Backup(backup) = &job.task else { continue };
        let Some(keep) = &backup.keep else { continue };
        let store = Store::open(config.stores.get(&backup.store).context("the store is known: the job was checked")?).await?;
        for database in &job.databases {
            let listing = set::list(&store, &set::folder(database, &job.name)).await?;
            let candidates: Vec<_> = listing.sets.iter().map(Set::candidate).collect();
            for decision in keep::decide(&candidates, keep, job.timezone) {
                text += &format!(
                    "{:<8} {}  ({})\n",
                    if decision.keep { "keep" } else { "delete" },
                    decision.name,
                    decision.reasons.join(", ")
                );
                json_rows.push(json!(decision));
            }
            if !dry_run {
                backup::prune(&store, database, &job.name, keep, job.timezone).await?;
            }
        }
    }
    if global.json {
        print(&format!("{:#}\n", json!({ "dry_run": dry_run, "sets": json_rows })))?;
    } else {
        print(if text.is_empty() { "no sets\n" } else { &text })?;
    }
    Ok(ExitCode::SUCCESS)
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
    let parsed = url::Url::parse(target).context("not a database URL")?;
    let has_password = parsed.password().is_some() || parsed.query_pairs().any(|(key, _)| key == "password");
    anyhow::ensure!(
        !has_password,
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
