//! The backup task: a compressed, proved, restorable pg_dump in a store.
//!
//! An interruption leaves an unfinished upload, objects without a manifest, a scratch database, or the folder of a throwaway server. None of it
//! is a set, and the next run's sweep removes it.
//!
//! Items that are hidden from the documentation are for `fuzz/`.

pub mod adopt;
pub mod adopted;
mod advice;
mod amcheck;
mod by_superuser;
pub mod certificate;
pub mod change;
pub mod choices;
pub mod choose;
mod context;
mod copy_names;
mod counts;
mod csv;
mod dump;
mod entry;
pub mod existing_database;
pub mod expect;
pub mod facts;
mod foreign_key;
pub mod gains;
pub mod gate;
pub mod guard;
pub mod how_proved;
pub mod identity;
pub mod keep;
mod keys;
mod lacks;
pub mod latest;
mod left_out;
#[doc(hidden)]
pub mod lex;
pub mod load;
pub mod locked;
pub mod loss;
pub mod manifest;
pub mod manual;
pub mod markers;
mod named;
pub mod new_database;
mod newest;
mod often;
#[doc(hidden)]
pub mod own_bytes;
mod own_server;
pub mod part;
pub mod parts;
mod patterns;
mod pg_dump;
#[doc(hidden)]
pub mod pg_dumps;
pub mod place;
pub mod plan;
mod proof;
pub mod properties;
mod prove;
pub mod prune;
mod psql_reads;
pub mod read_back;
pub mod readiness;
mod refusal;
pub mod restore;
#[doc(hidden)]
pub mod rewrite;
mod rows_end;
pub mod rows_out;
pub mod rules;
mod said;
#[doc(hidden)]
pub mod scan;
pub mod scratch;
#[doc(hidden)]
pub mod script;
mod search_path;
pub mod series;
mod server_context;
mod session;
pub mod sessions;
pub mod set;
pub mod set_name;
pub mod shown;
mod since;
pub mod standby;
mod state;
pub mod stream;
mod superuser;
pub mod sweep;
#[doc(hidden)]
pub mod tokens;
mod vector_indexes;
pub mod verdict;
pub mod verify;
mod waiters;
pub mod warnings;
mod why;
mod wide;

use std::time::Duration;

use anyhow::Result;
use chrono::Utc;
pub use context::tools_for;
pub use keep::Keep;
pub use keys::{Backup, Scratch, Verify, Written, resolve};
pub use newest::{identity_of, newest_verified};
pub use plan::Plan;

use self::guard::Asked;
use self::markers::RunMarker;
use self::set::Set;
use crate::base::process_identity::ProcessIdentity;
use crate::base::units;
use crate::ledger::report::{Report, Unfinished};
pub use crate::members::compress::Compression;
use crate::pg::{failure, throwaway};
use crate::store::{Store, key, lease};
use crate::work::{RunContext, Work};

/// The number of unread sets that a run reads before it prunes. Each costs reading a dump; the next run continues.
const CHECKS_IN_A_RUN: usize = 3;

impl Work for Backup {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let state = state::State::read(self, run).await?;
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
                if let Some(why) = set.verification.not_decoded() {
                    report.summary += &format!("; read back and hashed, not decoded: {why}");
                }
                None
            }
            Verify::Restore => {
                set.verification.sets_since_restore = Some(plan.sets_since_restore);
                let verified = prove::by_restore(self, &store, &mut set, &plan, run).await?;
                report_proof(&mut report, &verified);
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
        let mut readers = guard::Readers::of(ledger, database, job).await?;
        readers.keep_out().await?;
        readers.let_in().await?;
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
        let pruned =
            prune::apply(store, &key::folder(database, job), &rules, (&mut guard, &mut readers), checks_most, &run.progress)
                .await;
        guard.release().await;
        pruned
    }
}

/// Adds what a proof by restore has found.
fn report_proof(report: &mut Report, verified: &verify::Verified) {
    if verified.is_restored {
        report.fact("restored_in", verified.place.clone());
    }
    if verified.is_restored && !verified.by_superuser.is_empty() {
        report.fact("by_superuser", serde_json::json!(verified.by_superuser));
    }
    if let Some(checked) = &verified.amcheck {
        report.fact("amcheck", serde_json::json!({ "tables": checked.tables, "indexes": checked.indexes }));
    }
    if verified.is_restored && !verified.not_tried.is_empty() {
        report.fact("not_tried", verified.not_tried.clone());
    }
    if let Some(seconds) = verified.restore_seconds {
        report.fact("restore_seconds", seconds);
        let took = units::duration(Duration::from_secs_f64(seconds));
        let by = verified.sessions.filter(|sessions| *sessions > 1);
        let without = if verified.without_vector_indexes { ", without vector indexes" } else { "" };
        let by_sessions = by.map(|sessions| format!(" by {sessions} sessions")).unwrap_or_default();
        report.summary += &format!("; restored in {} in {took}{by_sessions}{without}", verified.place);
        if let Some(sessions) = by {
            report.fact("restore_sessions", sessions);
        }
    }
}

fn report_on(set: &Set, store: &Store, plan: &Plan) -> Report {
    let manifest = &set.manifest;
    let mut report = Report { warnings: manifest.warnings.clone(), ..Report::default() };
    report.summary = format!(
        "{}: {}, {}, {} in {}",
        store.location(&set.name.key(&manifest.dump.object)),
        units::plural(manifest.table_count(), "table"),
        units::plural(manifest.rows(), "row"),
        units::bytes(manifest.dump.bytes),
        units::duration(Duration::from_secs_f64(manifest.dump.elapsed_seconds))
    );
    report.fact("set", set.name.to_string());
    report.fact("location", store.location(&set.name.key(&manifest.dump.object)));
    report.fact("dump_bytes", manifest.dump.bytes);
    report.fact("uncompressed_bytes", manifest.dump.uncompressed_bytes);
    report.fact("dump_seconds", manifest.dump.elapsed_seconds);
    report.fact("encrypted", set.is_encrypted());
    report.fact("tables", manifest.table_count());
    report.fact("rows", manifest.rows());
    report.fact("pg_dump", plan.tools.version.clone());
    if let Some(age) = plan.last_good_age_seconds {
        report.fact("last_good_set_age_seconds", age);
    }
    report
}
