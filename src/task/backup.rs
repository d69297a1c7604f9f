//! The backup task: a compressed, proved, restorable pg_dump in a store.
//!
//! What an interruption leaves behind: an upload that was never finished, objects without a manifest, a scratch
//! database. None of it is a set, and the next run's sweep removes it.
//!
//! What is hidden from the documentation is for `fuzz/`.

#[doc(hidden)]
pub mod blocks;
pub mod choices;
pub mod compress;
mod counts;
mod dump;
pub mod facts;
mod foreign_key;
pub mod guard;
pub mod keep;
mod lacks;
pub mod latest;
mod left_out;
#[doc(hidden)]
pub mod lex;
mod load;
pub mod loss;
pub mod manifest;
pub mod markers;
#[doc(hidden)]
pub mod members;
pub mod new_database;
#[doc(hidden)]
pub mod own_bytes;
mod patterns;
#[doc(hidden)]
pub mod pg_dumps;
pub mod plan;
mod proof;
mod properties;
pub mod prune;
mod psql_reads;
pub mod read_back;
pub mod readiness;
mod refusal;
pub mod restore;
#[doc(hidden)]
pub mod rewrite;
mod rows_end;
#[doc(hidden)]
pub mod scan;
pub mod scratch;
#[doc(hidden)]
pub mod script;
pub mod series;
mod session;
pub mod set;
pub mod standby;
pub mod stream;
pub mod sweep;
#[doc(hidden)]
pub mod tokens;
pub mod verdict;
pub mod verify;
mod waiters;
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

use self::guard::Asked;
use self::markers::RunMarker;
use self::series::{Identity, Series};
use self::set::{Set, SetName};
use self::verdict::Bytes;
use self::verify::Verified;
use crate::client_tools::Tools;
use crate::config::Config;
use crate::fault;
use crate::job::{Checker, Job};
use crate::pg;
use crate::process_identity::ProcessIdentity;
use crate::report::{Report, Unfinished};
use crate::store::{Store, lease};
use crate::task::{RunContext, Task, Work};
use crate::units::{self, Span};

/// Sets of which nothing is known that a run reads before it prunes. Each costs the reading of a dump; the next run goes on.
const CHECKS_IN_A_RUN: usize = 3;

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
    pub filters: manifest::Filters,
    pub lock_wait_timeout: Span,
    /// The dump ends when somebody has to wait behind its locks.
    pub give_way: bool,
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
    /// true ends the dump, as skipped, when a session waits for more than 5 s behind its locks, as a migration does; default false: a
    /// warning names it.
    #[serde(default)]
    pub give_way: bool,
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
        filters: manifest::Filters {
            schemas: written.schemas,
            exclude_tables: written.exclude_tables,
            exclude_table_data: written.exclude_table_data,
        },
        lock_wait_timeout: written.lock_wait_timeout.unwrap_or(Span(Duration::from_secs(60))),
        give_way: written.give_way,
    })
}

impl Work for Backup {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let state = plan::State::read(self, run).await?;
        Ok(plan::decide(state, self, run))
    }

    async fn apply(&self, run: &RunContext<'_>, mut plan: Plan) -> Result<Report> {
        let store = open_store(run, &self.store).await?;
        let has_ledger = run.run_id.is_some();
        let seen = guard::look(&store, run.database, &run.job.name, has_ledger).await;
        // What earlier runs left may be what fills the disk: first. Trouble with it is no reason for no backup.
        let mut warnings = run.or_cancelled(async { Ok(self.sweep(&store, &plan, run).await) }).await?;
        let marker = RunMarker {
            process: ProcessIdentity::own(),
            nonce: uuid::Uuid::new_v4().to_string(),
            run: run.run_id,
            identity: plan.identity.clone(),
            started_at: Utc::now(),
        };
        plan.name = run.or_cancelled(markers::claim(&store, &plan.name, &marker)).await?;
        plan.set = plan.name.to_string();
        let (mut set, not_held) = dump::write_set(&store, &plan, self, run).await?;
        let mut report = report_on(&set, &store, &plan);
        plan.deletes_nothing.extend(not_held);

        let refusal = match self.verify {
            Verify::None => None,
            Verify::Checksum => {
                run.or_cancelled(verify::by_checksum(&store, &mut set, &run.progress)).await?;
                None
            }
            Verify::Restore => {
                let verified = self.verify_by_restore(&store, &mut set, &plan, run).await?;
                warnings.extend(verified.warnings);
                verified.refusal
            }
        };
        report.fact("bytes", set.verification.verdict().name());
        report.fact("verified", set.verification.in_words());
        if let Some(keep) = &self.keep {
            let pruning = self.prune(&store, &plan, keep, seen.as_ref(), run);
            let pruned = run.or_cancelled(async { Ok(pruning.await) }).await?;
            match pruned {
                Ok(pruned) => {
                    if !pruned.sets.is_empty() {
                        report.summary += &format!("; pruned {}", pruned.sets.len());
                    }
                    report.fact("pruned_sets", pruned.sets);
                    warnings.extend(pruned.warnings);
                }
                Err(error) => warnings.push(format!("not pruned: {}", fault::in_a_line(&error))),
            }
        }
        report.warnings.extend(warnings);
        match refusal {
            None => Ok(report),
            // The set is there and its bytes are proved; what was asked for is not.
            Some(refusal) => Err(Unfinished {
                kind: refusal.kind,
                message: format!(
                    "set {} is made and its bytes are intact, but it was not restored for a proof: {}",
                    set.name, refusal.message
                ),
                report,
            }
            .into()),
        }
    }
}

impl Backup {
    /// Returns what did not work.
    async fn sweep(&self, store: &Store, plan: &Plan, run: &RunContext<'_>) -> Vec<String> {
        let mut warnings = self.sweep_scratch_databases(plan, run).await;
        if !plan.deletes_nothing.is_empty() {
            warnings.extend(plan.deletes_nothing.iter().map(|doubt| format!("nothing in the store is swept or pruned: {doubt}")));
            return warnings;
        }
        // Asked for only when there is something that may be swept by now.
        if plan.sweep.store.is_empty() && plan.sweep.store.left.iter().all(|left| left.for_ever) {
            return warnings;
        }
        let (database, job) = (run.database, run.job.name.as_str());
        match guard::ask(store, database, job, run.run_id.is_some(), None).await {
            Asked::Refused(why) => warnings.push(format!("what earlier runs left stays this time: {why}")),
            Asked::Granted(mut guard) => {
                let folder = set::folder(database, job);
                let swept = sweep::apply(store, &folder, plan.identity.as_ref(), &mut guard).await;
                guard.release().await;
                match swept {
                    Ok(undeletable) => warnings.extend(undeletable),
                    Err(error) => {
                        warnings.push(format!("what earlier runs left could not be swept: {}", fault::in_a_line(&error)))
                    }
                }
            }
        }
        warnings
    }

    async fn sweep_scratch_databases(&self, plan: &Plan, run: &RunContext<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if plan.sweep.scratch_databases.is_empty() {
            return warnings;
        }
        let settings = match self.scratch_settings(run) {
            Ok(settings) => settings,
            Err(error) => return vec![format!("scratch databases of earlier runs stay: {}", fault::in_a_line(&error))],
        };
        for database in &plan.sweep.scratch_databases {
            tracing::info!("dropping the scratch database of a run without an end: {database}");
            warnings.extend(scratch::drop_or_warn(&settings, database, None).await);
        }
        warnings
    }

    async fn prune(
        &self,
        store: &Store,
        plan: &Plan,
        keep: &Keep,
        seen: Option<&lease::Seen>,
        run: &RunContext<'_>,
    ) -> Result<prune::Pruned> {
        let (database, job) = (run.database, run.job.name.as_str());
        if !plan.deletes_nothing.is_empty() {
            return Ok(prune::Pruned::default());
        }
        let mut guard = match guard::ask(store, database, job, run.run_id.is_some(), seen).await {
            Asked::Granted(guard) => guard,
            Asked::Refused(why) => anyhow::bail!("{why}"),
        };
        let rules = prune::Rules {
            keep,
            zone: run.job.timezone,
            now: Utc::now(),
            identity: plan.identity.as_ref(),
            series: &plan.series,
            own: Some(&plan.name),
            has_schedule: run.job.schedule.is_some(),
        };
        let checks_most = if self.verify == Verify::None { 0 } else { CHECKS_IN_A_RUN };
        let pruned = prune::apply(store, &set::folder(database, job), &rules, &mut guard, checks_most, &run.progress).await;
        guard.release().await;
        pruned
    }

    async fn verify_by_restore(&self, store: &Store, set: &mut Set, plan: &Plan, run: &RunContext<'_>) -> Result<Verified> {
        let settings = self.scratch_settings(run)?;
        let scratch = verify::Scratch { settings: &settings, name: plan.scratch_name.clone(), cancel: &run.cancel };
        verify::by_restore(store, set, &scratch, &run.progress).await
    }

    /// The server on which scratch databases are made.
    fn scratch_settings(&self, run: &RunContext<'_>) -> Result<pg::Settings> {
        Ok(self.scratch_elsewhere(run.config)?.unwrap_or_else(|| run.settings.clone()))
    }

    /// The same, where it is not the source's.
    pub fn scratch_elsewhere(&self, config: &Config) -> Result<Option<pg::Settings>> {
        let Some(name) = &self.scratch else { return Ok(None) };
        let database = config.databases.get(name).with_context(|| format!("the configuration has no database `{name}`"))?;
        pg::Settings::resolve(database).map(Some)
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
        "{}: {}, {}, {} in {}",
        store.location(&set.name.key(&manifest.dump.object)),
        units::plural(manifest.tables.len(), "table"),
        units::plural(manifest.rows(), "row"),
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

/// A name that no set has yet: two runs may start within one second.
fn free_name(database: &str, job: &str, taken: &[SetName], now: chrono::DateTime<Utc>) -> SetName {
    let mut name = SetName::new(database, job, now);
    // Nor older than one that had to take a later second: the newest set is the one that was made last.
    while taken.iter().any(|other| (0..=60).contains(&(other.taken_at - name.taken_at).num_seconds())) {
        name.taken_at += chrono::Duration::seconds(1);
    }
    name
}

/// When the newest intact set of `database` was taken, of all backup jobs that name it. A set with filters is not a backup of the
/// database, and one of another server under the same names is none of this one; a store or a server that cannot be asked is an error: no
/// is not said on doubt, and yes neither.
pub async fn newest_verified(config: &Config, jobs: &[Job], database: &str) -> Result<Option<DateTime<Utc>>> {
    let mut newest = None;
    let mut own: Option<Option<Identity>> = None;
    let now = Utc::now();
    for job in jobs.iter().filter(|job| job.databases.iter().any(|name| name == database)) {
        let Task::Backup(backup) = &job.task else { continue };
        let own = match &own {
            Some(own) => own,
            None => own.insert(identity_of(config, database).await?),
        };
        let configured = config.stores.get(&backup.store).context("the job's store is configured")?;
        let store = Store::open(configured).await.with_context(|| format!("store `{}`", backup.store))?;
        let listing = set::list(&store, &set::folder(database, &job.name)).await?;
        if let Some(doubt) = listing.doubt() {
            anyhow::bail!(doubt);
        }
        let (series, _) = Series::read(&store, database, &job.name).await?;
        let verified = listing
            .sets
            .iter()
            .filter(|set| set.verification.verdict() == Bytes::Intact && set.manifest.filters.are_none())
            .filter(|set| !set.is_from_the_future(now) && series.unites(own.as_ref(), set));
        newest = newest.max(verified.map(|set| set.name.taken_at).max());
    }
    Ok(newest)
}

/// Who a configured database is; None where its role may not read the system identifier.
pub async fn identity_of(config: &Config, database: &str) -> Result<Option<Identity>> {
    let configured = config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = pg::Settings::resolve(configured).with_context(|| format!("database `{database}`"))?;
    let mut connection = settings.connect().await.with_context(|| format!("database `{database}`"))?;
    Ok(Identity::of(&facts::server(&mut connection, &settings).await?))
}

/// The client tools for a server of that major version.
pub async fn tools_for(run: &RunContext<'_>, major: u32) -> Result<Tools> {
    crate::client_tools::find(run.config.tools.bin_dir.as_deref(), major)
        .await
        .with_context(|| format!("database `{}`", run.database))
}
