//! The backup task: a compressed, proved, restorable pg_dump in a store.
//!
//! An interruption leaves an unfinished upload, objects without a manifest, a scratch database, or the folder of a throwaway server. None of it
//! is a set, and the next run's sweep removes it.
//!
//! Items that are hidden from the documentation are for `fuzz/`.

pub mod choices;
pub mod choose;
mod context;
mod counts;
mod dump;
mod entry;
mod expect;
pub mod facts;
mod foreign_key;
pub mod guard;
pub mod identity;
pub mod keep;
mod keys;
mod lacks;
pub mod latest;
mod left_out;
#[doc(hidden)]
pub mod lex;
mod load;
pub mod loss;
pub mod manifest;
pub mod manual;
pub mod markers;
pub mod new_database;
mod often;
#[doc(hidden)]
pub mod own_bytes;
mod own_server;
mod patterns;
#[doc(hidden)]
pub mod pg_dumps;
pub mod place;
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
pub mod rules;
#[doc(hidden)]
pub mod scan;
pub mod scratch;
#[doc(hidden)]
pub mod script;
pub mod series;
mod session;
pub mod set;
pub mod set_name;
pub mod standby;
pub mod stream;
pub mod sweep;
#[doc(hidden)]
pub mod tokens;
pub mod verdict;
pub mod verify;
mod waiters;
mod why;

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
pub use context::tools_for;
pub use keep::Keep;
pub use keys::{Backup, Scratch, Verify, Written, resolve};
pub use plan::Plan;

use self::guard::Asked;
use self::markers::RunMarker;
use self::place::Place;
use self::restore::Refusal;
use self::series::Series;
use self::set::Set;
use self::verdict::Bytes;
use self::verify::{Proof, Verified, Where};
use crate::base::fault::Kind;
use crate::base::process_identity::ProcessIdentity;
use crate::base::units;
use crate::config::Config;
use crate::ledger::report::{Report, Unfinished};
pub use crate::members::compress::Compression;
use crate::pg::{failure, throwaway};
use crate::store::{Store, key, lease};
use crate::task::backup::identity::Identity;
use crate::task::foreign_code;
use crate::work::{Does, Other, RestoresOn, RunContext, Work};

/// The number of unread sets that a run reads before it prunes. Each costs reading a dump; the next run continues.
const CHECKS_IN_A_RUN: usize = 3;

impl Work for Backup {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let state = plan::State::read(self, run).await?;
        Ok(plan::decide(state, self, run))
    }

    async fn apply(&self, run: &RunContext<'_>, mut plan: Plan) -> Result<Report> {
        let store = Store::named(run.config, &self.store).await?;
        let has_ledger = run.run_id.is_some();
        let seen = guard::look(&store, run.database, run.job.name, has_ledger).await;
        // The sweep comes first, as leftovers of earlier runs may fill the disk. A failed sweep does not prevent the backup.
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

        let refusal = match plan.verify {
            Verify::None => None,
            Verify::Checksum => {
                set.verification.sets_since_restore = Some(plan.sets_since_restore);
                run.or_cancelled(verify::by_checksum(&store, &mut set, &run.progress)).await?;
                None
            }
            Verify::Restore => {
                set.verification.sets_since_restore = Some(plan.sets_since_restore);
                let verified = self.verify_by_restore(&store, &mut set, &plan, run).await?;
                if verified.is_restored {
                    report.fact("restored_in", verified.place.clone());
                }
                if verified.is_restored && !verified.not_tried.is_empty() {
                    report.fact("not_tried", verified.not_tried.to_vec());
                }
                if let Some(seconds) = verified.restore_seconds {
                    report.fact("restore_seconds", seconds);
                    let took = units::duration(Duration::from_secs_f64(seconds));
                    report.summary += &format!("; restored in {} in {took}", verified.place);
                }
                warnings.extend(verified.warnings);
                let what = match verified.is_restored {
                    true => "the check of the restored copy failed",
                    false => "the verification by restore failed",
                };
                verified.refusal.map(|refusal| (refusal, what))
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
                Err(error) => warnings.push(format!("not pruned: {}", failure::in_a_line(&error))),
            }
        }
        report.warnings.extend(warnings);
        match refusal {
            None => Ok(report),
            // The set exists and its bytes are proved, but the requested restore failed, or the check of its copy.
            Some((refusal, what)) => {
                let message = format!("set {} was made and its bytes are intact, but {what}: {}", set.name, refusal.message);
                Err(Unfinished::error(refusal.kind, message, report))
            }
        }
    }
}

impl Backup {
    /// Returns the warnings of the sweep.
    async fn sweep(&self, store: &Store, plan: &Plan, run: &RunContext<'_>) -> Vec<String> {
        let mut warnings = self.sweep_scratch_databases(plan, run).await;
        for folder in &plan.sweep.throwaway_folders {
            tracing::info!("removing the throwaway server of an interrupted run: {}", folder.display());
            let path = folder.clone();
            let removed = tokio::task::spawn_blocking(move || throwaway::remove_leftover(&path)).await;
            let failed = removed.map_err(anyhow::Error::from).flatten().err();
            warnings.extend(failed.map(|error| failure::in_a_line(&error)));
        }
        if !plan.deletes_nothing.is_empty() {
            warnings.extend(plan.deletes_nothing.iter().map(|doubt| format!("nothing in the store is swept or pruned: {doubt}")));
            return warnings;
        }
        // The guard is taken only when something may be ready for a sweep.
        if plan.sweep.store.is_empty() && plan.sweep.store.left.iter().all(|left| left.for_ever) {
            return warnings;
        }
        let (database, job) = (run.database, run.job.name);
        match guard::ask(store, database, job, run.run_id.is_some(), None).await {
            Asked::Refused(why) => warnings.push(format!("leftovers of earlier runs were not swept: {why}")),
            Asked::Granted(mut guard) => {
                let folder = key::folder(database, job);
                let swept = sweep::apply(store, &folder, plan.identity.as_ref(), &mut guard).await;
                guard.release().await;
                match swept {
                    Ok(undeletable) => warnings.extend(undeletable),
                    Err(error) => {
                        warnings.push(format!("leftovers of earlier runs could not be swept: {}", failure::in_a_line(&error)))
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
        let settings = plan.place.scratch_settings(&run.settings);
        for database in &plan.sweep.scratch_databases {
            tracing::info!("dropping the scratch database of an interrupted run: {database}");
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
    ) -> Result<rules::Pruned> {
        let (database, job) = (run.database, run.job.name);
        if !plan.deletes_nothing.is_empty() {
            return Ok(rules::Pruned::default());
        }
        let ledger = run.ledger.filter(|_| run.run_id.is_some());
        let _no_reader = guard::without_readers(ledger, database, job).await?;
        let mut guard = match guard::ask(store, database, job, ledger.is_some(), seen).await {
            Asked::Granted(guard) => guard,
            Asked::Refused(why) => anyhow::bail!("{why}"),
        };
        let rules = rules::Rules {
            keep,
            zone: run.job.timezone,
            now: Utc::now(),
            identity: plan.identity.as_ref(),
            series: &plan.series,
            own: Some(&plan.name),
            has_schedule: run.job.has_schedule,
        };
        let checks_most = if plan.verify == Verify::None { 0 } else { CHECKS_IN_A_RUN };
        let pruned = prune::apply(store, &key::folder(database, job), &rules, &mut guard, checks_most, &run.progress).await;
        guard.release().await;
        pruned
    }

    async fn verify_by_restore(&self, store: &Store, set: &mut Set, plan: &Plan, run: &RunContext<'_>) -> Result<Verified> {
        let place = match plan.sweep.throwaway_folders.is_empty() {
            true => plan.place.clone(),
            // The folders that were swept since may have filled the disk when the place was chosen.
            false => self.choose_again(plan, run).await,
        };
        let settings = place.scratch_settings(&run.settings);
        let scratch = Where::Scratch { settings: &settings, name: plan.scratch_name.clone() };
        let host = match &place {
            Place::NotAsked | Place::Source { .. } | Place::Elsewhere(_) => {
                return self.restore_with_rights(&scratch, &place.restores_on(), store, set, run).await;
            }
            Place::Nowhere { kind, message } => {
                let refusal = Refusal { kind: Some(*kind), sql_state: None, message: message.clone() };
                return refused(refusal, store, set, run).await;
            }
            Place::OwnServer(host) => host,
        };
        let mut verified = self.restore_at(&Where::OwnServer(host), store, set, run).await?;
        // Once a statement of the dump has run there, its refusal is the verdict: what failed without rights is not tried with more.
        if self.scratch == Scratch::Auto
            && !verified.has_begun
            && let Some(refusal) = verified.refusal.take()
        {
            let warning = format!(
                "no PostgreSQL server of its own could be prepared for set {}, so the scratch database is on the source's server \
                 (scratch = \"same\" does that without trying the other first): {}",
                set.name, refusal.message
            );
            tracing::warn!("{warning}");
            let mut warnings = std::mem::take(&mut verified.warnings);
            warnings.push(warning);
            let on = RestoresOn::Source { why: Some(refusal.message) };
            verified = self.restore_with_rights(&scratch, &on, store, set, run).await?;
            verified.warnings.splice(0..0, warnings);
        }
        Ok(verified)
    }

    /// Restores on a server that stays, unless code in the dump would run there as a superuser while the job does not trust its owners. The run
    /// has asked that before, but the place may be another one since.
    async fn restore_with_rights(
        &self,
        place: &Where<'_>,
        on: &RestoresOn,
        store: &Store,
        set: &mut Set,
        run: &RunContext<'_>,
    ) -> Result<Verified> {
        let asked = foreign_code::check_restore(&run.settings, on, run.job.limits.trust_owners);
        match run.or_cancelled(asked).await {
            Ok(warnings) => {
                let mut verified = self.restore_at(place, store, set, run).await?;
                verified.warnings.extend(warnings);
                Ok(verified)
            }
            Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => Err(error),
            Err(error) => refused(verify::refusal_of(&error), store, set, run).await,
        }
    }

    async fn restore_at(&self, place: &Where<'_>, store: &Store, set: &mut Set, run: &RunContext<'_>) -> Result<Verified> {
        let proof = Proof { place, expect: &self.expect, cancel: &run.cancel };
        verify::by_restore(store, set, &proof, &run.progress).await
    }

    async fn choose_again(&self, plan: &Plan, run: &RunContext<'_>) -> Place {
        let choosing = async {
            let mut connection = run.settings.connect().await?;
            choose::place(self, run.config, &plan.server, &mut connection).await
        };
        choosing.await.unwrap_or_else(|error: anyhow::Error| {
            tracing::debug!("{error:#}");
            plan.place.clone()
        })
    }
}

/// The bytes are verified although the set is not restored.
async fn refused(refusal: Refusal, store: &Store, set: &mut Set, run: &RunContext<'_>) -> Result<Verified> {
    run.or_cancelled(verify::by_checksum(store, set, &run.progress)).await?;
    Ok(Verified { refusal: Some(refusal), ..Verified::default() })
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

/// The time of the newest intact set of `database`, among all backup jobs for it. A set with filters is not a backup of the database, and a
/// set of another server under the same names does not count; a store or a server that cannot be read is an error, neither "no backup" nor
/// a backup.
pub async fn newest_verified(config: &Config, others: &[Other], database: &str) -> Result<Option<DateTime<Utc>>> {
    let mut newest = None;
    let mut own: Option<Option<Identity>> = None;
    let now = Utc::now();
    for job in others.iter().filter(|job| job.runs_on(database)) {
        let Does::Backup { store } = &job.does else { continue };
        let own = match &own {
            Some(own) => own,
            None => own.insert(identity_of(config, database).await?),
        };
        let store = Store::named(config, store).await?;
        let listing = set::list(&store, &key::folder(database, &job.name)).await?;
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

/// The identity of a configured database; None where its role may not read the system identifier.
pub async fn identity_of(config: &Config, database: &str) -> Result<Option<Identity>> {
    let configured = config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = configured.settings().with_context(|| format!("database `{database}`"))?;
    let mut connection = settings.connect().await.with_context(|| format!("database `{database}`"))?;
    Ok(Identity::of(&facts::server(&mut connection, &settings).await?))
}
