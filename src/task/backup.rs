//! The backup task: a compressed, proved, restorable pg_dump in a store.
//!
//! What an interruption leaves behind: an upload that was never finished, objects without a manifest, a scratch
//! database. None of it is a set, and the next run's sweep removes it.

pub mod keep;
mod session;
pub mod set;

pub mod choices;
pub mod compress;
mod counts;
mod dump;
pub mod facts;
mod foreign_key;
mod lacks;
mod lex;
mod load;
mod members;
pub mod new_database;
mod plan;
mod properties;
pub mod read_back;
pub mod readiness;
mod refusal;
pub mod restore;
mod rewrite;
mod scan;
pub mod scratch;
mod script;
pub mod stream;
mod tokens;
pub mod verify;
mod why;

pub use compress::Compression;
pub use keep::Keep;
pub use plan::Plan;
pub use verify::Verify;

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use self::set::{Set, SetName};
use crate::client_tools::Tools;
use crate::config::Config;
use crate::job::{Checker, Job};
use crate::pg;
use crate::report::Report;
use crate::store::Store;
use crate::task::{RunContext, Task, Work};
use crate::units::{self, Span};

/// `[backup]`, resolved.
#[derive(Clone, Debug)]
pub struct Backup {
    pub store: String,
    pub keep: Option<Keep>,
    pub verify: Verify,
    /// The server for scratch databases; the source's own when None.
    pub scratch: Option<String>,
    pub compression: Compression,
    pub level: i32,
    pub threads: usize,
    pub filters: set::Filters,
    pub lock_wait_timeout: Span,
}

/// `[backup]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// A store of the configuration.
    #[schemars(with = "String")]
    pub store: Option<Spanned<String>>,
    /// Which sets stay; without it, all of them.
    #[schemars(with = "Option<Keep>")]
    pub keep: Option<Spanned<Keep>>,
    #[serde(default)]
    pub verify: Verify,
    /// With verify = "restore": the database of the configuration on whose server the scratch database is made.
    #[schemars(with = "Option<String>")]
    pub scratch: Option<Spanned<String>>,
    #[serde(default)]
    pub compression: Compression,
    /// gzip 1 to 12, default 4; zstd 1 to 19, default 3.
    #[schemars(with = "Option<i32>")]
    pub level: Option<Spanned<i32>>,
    /// Compressing threads; default: the processors of the host, 4 at the most.
    #[schemars(with = "Option<usize>")]
    pub threads: Option<Spanned<usize>>,
    /// Only these schemas (pg_dump's patterns).
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Tables left out (pg_dump's patterns).
    #[serde(default)]
    pub exclude_tables: Vec<String>,
    /// Tables of which only the definition is dumped (pg_dump's patterns).
    #[serde(default)]
    pub exclude_table_data: Vec<String>,
    /// How long pg_dump waits for a table that somebody has locked; default 60s.
    pub lock_wait_timeout: Option<Span>,
}

/// Resolves the names and limits of a job's `[backup]`.
pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Backup> {
    let store = match &written.store {
        Some(store) => checker.known("store", store).then(|| store.get_ref().clone()),
        None => {
            checker.missing("[backup] has no store", "add store = \"NAME\", with [stores.NAME] in the configuration");
            None
        }
    };
    if let Some(keep) = written.keep.as_ref().filter(|keep| keep.get_ref().keeps_nothing()) {
        checker.problem(keep, "`keep` keeps nothing", "keep at least one set, or leave `keep` out to keep all".to_owned());
    }
    if let Some(scratch) = &written.scratch {
        checker.known("database", scratch);
        if written.verify != Verify::Restore {
            checker.problem(
                scratch,
                "`scratch` without verify = \"restore\"",
                "only a restore needs a scratch database".to_owned(),
            );
        }
    }
    let highest = written.compression.highest_level();
    if let Some(level) = written.level.as_ref().filter(|level| !(1..=highest).contains(level.get_ref())) {
        checker.problem(
            level,
            format!("level {} does not exist", level.get_ref()),
            format!("1 to {highest} for this compression"),
        );
    }
    if let Some(threads) = written.threads.as_ref().filter(|threads| !(1..=64).contains(threads.get_ref())) {
        checker.problem(threads, format!("`threads = {}`", threads.get_ref()), "1 to 64".to_owned());
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Some(Backup {
        store: store?,
        keep: written.keep.map(Spanned::into_inner),
        verify: written.verify,
        scratch: written.scratch.map(Spanned::into_inner),
        compression: written.compression,
        level: written.level.map_or(written.compression.default_level(), Spanned::into_inner),
        threads: written.threads.map_or(processors.min(4), Spanned::into_inner),
        filters: set::Filters {
            schemas: written.schemas,
            exclude_tables: written.exclude_tables,
            exclude_table_data: written.exclude_table_data,
        },
        lock_wait_timeout: written.lock_wait_timeout.unwrap_or(Span(Duration::from_secs(60))),
    })
}

impl Work for Backup {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let state = plan::State::read(self, run).await?;
        Ok(plan::decide(state, self, run))
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        let store = open_store(run, &self.store).await?;
        run.or_cancelled(plan::sweep(&store, &plan, self, run)).await?;
        let mut set = dump::write_set(&store, &plan, self, run).await?;
        let mut report = report_on(&set, &store, &plan);

        match self.verify {
            Verify::None => {}
            Verify::Checksum => run.or_cancelled(verify::by_checksum(&store, &mut set, &run.progress)).await?,
            Verify::Restore => report.warnings.extend(self.verify_by_restore(&store, &mut set, &plan, run).await?),
        }
        report.fact("verified", set.verification.in_words());

        if let Some(keep) = &self.keep {
            let pruned = run.or_cancelled(prune(&store, run.database, &run.job.name, keep, run.job.timezone)).await?;
            if !pruned.is_empty() {
                report.summary += &format!("; pruned {}", pruned.len());
            }
            report.fact("pruned_sets", pruned);
        }
        Ok(report)
    }
}

impl Backup {
    async fn verify_by_restore(&self, store: &Store, set: &mut Set, plan: &Plan, run: &RunContext<'_>) -> Result<Option<String>> {
        let settings = self.scratch_settings(run)?;
        let scratch =
            verify::Scratch { settings: &settings, tools: &plan.tools, name: plan.scratch_name.clone(), cancel: &run.cancel };
        verify::by_restore(store, set, &scratch, &run.progress).await
    }

    /// The server on which scratch databases are made.
    fn scratch_settings(&self, run: &RunContext<'_>) -> Result<pg::Settings> {
        match &self.scratch {
            None => Ok(run.settings.clone()),
            Some(name) => {
                let database =
                    run.config.databases.get(name).with_context(|| format!("the configuration has no database `{name}`"))?;
                pg::Settings::resolve(database)
            }
        }
    }
}

pub async fn open_store(run: &RunContext<'_>, name: &str) -> Result<Store> {
    let configured = run.config.stores.get(name).with_context(|| format!("the configuration has no store `{name}`"))?;
    Store::open(configured).await.with_context(|| format!("store `{name}`"))
}

fn report_on(set: &Set, store: &Store, plan: &Plan) -> Report {
    let manifest = &set.manifest;
    let mut report = Report { warnings: manifest.warnings.clone(), ..Report::default() };
    report.summary = format!(
        "{}: {}, {} rows, {} in {}",
        store.location(&set.name.key(&manifest.dump.object)),
        units::plural(manifest.tables.len(), "table"),
        units::count(manifest.rows()),
        units::bytes(manifest.dump.bytes),
        units::duration(Duration::from_secs_f64(manifest.dump.elapsed_seconds))
    );
    report.fact("set", set.name.to_string());
    report.fact("location", store.location(&set.name.key(&manifest.dump.object)));
    report.fact("dump_bytes", manifest.dump.bytes);
    report.fact("uncompressed_bytes", manifest.dump.uncompressed_bytes);
    report.fact("dump_seconds", manifest.dump.elapsed_seconds);
    report.fact("tables", manifest.tables.len());
    report.fact("rows", manifest.rows());
    report.fact("pg_dump", plan.tools.version.clone());
    if let Some(age) = plan.last_good_age_seconds {
        report.fact("last_good_set_age_seconds", age);
    }
    report
}

/// Deletes the sets that no rule keeps; returns their names. Lists anew: what was planned may have changed.
pub async fn prune(store: &Store, database: &str, job: &str, keep: &Keep, zone: chrono_tz::Tz) -> Result<Vec<String>> {
    let listing = set::list(store, &set::folder(database, job)).await?;
    let candidates: Vec<_> = listing.sets.iter().map(Set::candidate).collect();
    let mut pruned = Vec::new();
    for decision in keep::decide(&candidates, keep, zone).into_iter().filter(|decision| !decision.keep) {
        let Some(set) = listing.sets.iter().find(|set| set.name.to_string() == decision.name) else { continue };
        tracing::info!(set = decision.name, "pruned: {}", decision.reasons.join(", "));
        set::delete(store, set).await?;
        pruned.push(decision.name);
    }
    Ok(pruned)
}

/// A name that no set has yet: two runs may start within one second.
fn free_name(database: &str, job: &str, taken: &[SetName], now: chrono::DateTime<Utc>) -> SetName {
    let mut name = SetName::new(database, job, now);
    while taken.contains(&name) {
        name.taken_at += chrono::Duration::seconds(1);
    }
    name
}

/// When the newest verified set of `database` was taken, of all backup jobs that name it. A set with filters is
/// not a backup of the database, and a store that cannot be read is an error: no is not said on doubt.
pub async fn newest_verified(config: &Config, jobs: &[Job], database: &str) -> Result<Option<DateTime<Utc>>> {
    let mut newest = None;
    for job in jobs.iter().filter(|job| job.databases.iter().any(|name| name == database)) {
        let Task::Backup(backup) = &job.task else { continue };
        let configured = config.stores.get(&backup.store).context("the job's store is configured")?;
        let store = Store::open(configured).await.with_context(|| format!("store `{}`", backup.store))?;
        let listing = set::list(&store, &set::folder(database, &job.name)).await?;
        let verified = listing
            .sets
            .iter()
            .filter(|set| set.verification.proof() == keep::Proof::Verified && set.manifest.filters.are_none());
        newest = newest.max(verified.map(|set| set.name.taken_at).max());
    }
    Ok(newest)
}

/// The client tools for a server of that major version.
pub async fn tools_for(run: &RunContext<'_>, major: u32) -> Result<Tools> {
    crate::client_tools::find(run.config.tools.bin_dir.as_deref(), major)
        .await
        .with_context(|| format!("database `{}`", run.database))
}
