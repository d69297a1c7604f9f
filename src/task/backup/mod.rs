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
pub mod compare_rows;
mod connection_limit;
mod context;
pub mod copies;
mod copy_names;
mod counts;
mod csv;
mod difference;
mod dump;
mod entry;
pub mod existing_database;
pub mod expect;
pub mod facts;
mod foreign_key;
mod found;
pub mod gains;
pub mod gate;
pub mod guard;
pub mod how_proved;
pub mod identity;
mod in_run;
pub mod keep;
mod keys;
pub mod lacks;
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
mod needed;
pub mod new_database;
mod newest;
pub mod of_store;
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
mod relock;
pub mod restore;
mod restore_check;
#[doc(hidden)]
pub mod rewrite;
pub mod row_sum;
mod row_sums;
mod rows_end;
pub mod rows_out;
mod rule_places;
pub mod rules;
mod said;
#[doc(hidden)]
pub mod scan;
pub mod scratch;
#[doc(hidden)]
pub mod script;
mod sealed;
mod search_path;
pub mod series;
mod server_context;
mod session;
pub mod sessions;
pub mod set;
pub mod set_name;
pub mod shown;
mod since;
pub mod stamp;
pub mod standby;
mod state;
pub mod stream;
mod superuser;
pub mod sweep;
mod tagged;
#[doc(hidden)]
pub mod tokens;
mod vector_indexes;
pub mod verdict;
pub mod verify;
mod waiters;
pub mod warnings;
pub mod whose;
mod why;
mod wide;

use std::time::Duration;

use anyhow::Result;
use chrono::Utc;
pub use context::tools_for;
pub use keep::Keep;
pub use keys::{Backup, InStore, Scratch, Verify, Written, resolve};
pub use newest::{OfJob, newest_verified, to_accept_for};
pub use plan::Plan;

use self::copies::mend;
use self::copies::target::{self, Target};
use self::markers::RunMarker;
use self::verdict::Bytes;
use crate::base::process_identity::ProcessIdentity;
use crate::base::subtask;
use crate::base::units;
use crate::ledger::report::{Report, Unfinished, with_result};
pub use crate::members::compress::Compression;
use crate::pg::{failure, throwaway};
use crate::work::{RunContext, Work};

impl Work for Backup {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let state = state::State::read(self, run).await?;
        Ok(plan::decide(state, self, run))
    }

    async fn apply(&self, run: &RunContext<'_>, mut plan: Plan) -> Result<Report> {
        let mut targets = Target::all(&plan, run).await?;
        // The sweep comes first, as leftovers of earlier runs may fill the disk. A failed sweep does not prevent the backup.
        let mut warnings = run.or_cancelled(async { Ok(sweep_host(&plan, run).await) }).await?;
        for target in &targets {
            warnings.extend(run.or_cancelled(async { Ok(in_run::sweep(target, &plan, run).await) }).await?);
        }
        let marker = RunMarker {
            process: ProcessIdentity::own(),
            nonce: uuid::Uuid::new_v4().to_string(),
            run: run.run_id,
            identity: plan.identity.clone(),
            started_at: Utc::now(),
            completed_at: None,
        };
        run.or_cancelled(target::claim(&mut targets, &mut plan, &marker)).await?;
        dump::write_set(&mut targets, &plan, &marker, self, run).await?;
        let verified = in_run::verify(self, &mut targets, &plan, run).await?;
        warnings.extend(mend::mend(&mut targets, run).await?);
        warnings.extend(run.or_cancelled(async { Ok(mend::before_pruning(&mut targets, &plan, run).await) }).await?);
        for target in targets.iter_mut().filter(|target| target.is_good()) {
            let pruning = in_run::prune(target, &plan, run);
            let pruned = run.or_cancelled(async { Ok(pruning.await) }).await?;
            match pruned {
                Ok(pruned) => {
                    target.pruned = pruned.sets;
                    let is_intact = target.set.as_ref().is_some_and(|set| set.verification.verdict() == Bytes::Intact);
                    target.intact_sets = pruned.intact_sets.unwrap_or(target.intact_sets + usize::from(is_intact));
                    warnings.extend(pruned.warnings);
                }
                Err(error) => warnings.push(format!("not pruned: {}", failure::in_a_line(&error))),
            }
        }
        let mut failures = target::failures(&targets, &plan);
        let Some(main) = targets.iter().find(|target| target.is_good()) else {
            return Unfinished::of(&failures, Report { warnings, ..Report::default() });
        };
        let mut report = report_on(main, &plan);
        let mut is_refused = false;
        if let Some(verified) = verified {
            let tables = main.set.as_ref().map_or(0, |set| set.manifest.table_count() as u64);
            report_proof(&mut report, &verified, tables);
            warnings.extend(verified.warnings);
            let what = match verified.is_restored {
                true => "the check of the restored copy failed",
                false => "the verification by restore failed",
            };
            // The set exists and its bytes are proved, but the requested restore failed, or the check of its copy.
            let refused = verified.refusal.map(|refusal| {
                let message = format!("set {} was made and its bytes are intact, but {what}: {}", plan.name, refusal.message);
                (refusal.kind, message)
            });
            is_refused = refused.is_some();
            failures.splice(0..0, refused);
        }
        report_targets(&mut report, &targets);
        // What the set has lost against the one before is found in the stores that have one before.
        for manifest in targets.iter().filter_map(|target| Some(&target.set.as_ref()?.manifest)) {
            let others: Vec<String> =
                manifest.warnings.iter().filter(|warning| !report.warnings.contains(*warning)).cloned().collect();
            report.warnings.extend(others);
        }
        report.warnings.extend(warnings);
        let ended = Unfinished::of(&failures, report);
        // A store that lacks the set gets it by the next run: another attempt would make another set.
        if is_refused { ended } else { ended.map_err(with_result) }
    }
}

/// Removes what earlier runs have left on this host and on the server for scratch databases. Returns warnings.
async fn sweep_host(plan: &Plan, run: &RunContext<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let settings = plan.place.scratch_settings(&run.settings);
    for database in &plan.sweep.scratch_databases {
        tracing::info!("dropping the scratch database of an interrupted run: {database}");
        warnings.extend(scratch::drop_or_warn(&settings, database, None).await);
    }
    for folder in &plan.sweep.throwaway_folders {
        tracing::info!("removing the throwaway server of an interrupted run: {}", folder.display());
        let path = folder.clone();
        let removed = subtask::spawn_blocking_in_span(move || throwaway::remove_leftover(&path)).await;
        let failed = removed.map_err(anyhow::Error::from).flatten().err();
        warnings.extend(failed.map(|error| failure::in_a_line(&error)));
    }
    warnings
}

/// Adds what a proof by restore of so many tables has found.
fn report_proof(report: &mut Report, verified: &verify::Verified, tables: u64) {
    if verified.is_restored {
        report.fact("restored_in", verified.place.clone());
    }
    if verified.is_restored && !verified.by_superuser.is_empty() {
        report.fact("by_superuser", serde_json::json!(verified.by_superuser));
    }
    if let Some(hashed) = verified.hashed.as_ref().filter(|_| verified.is_restored) {
        report.fact("rows_hashed", serde_json::json!(hashed));
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
        let rows = verified.hashed.as_ref().map(|hashed| format!(", {}", hashed.in_words(tables))).unwrap_or_default();
        let by_sessions = by.map(|sessions| format!(" by {sessions} sessions")).unwrap_or_default();
        report.summary += &format!("; restored in {} in {took}{by_sessions}{rows}{without}", verified.place);
        if let Some(sessions) = by {
            report.fact("restore_sessions", sessions);
        }
    }
}

fn report_on(main: &Target, plan: &Plan) -> Report {
    let mut report = Report::default();
    let Some(set) = &main.set else { return report };
    let (store, manifest) = (&main.store, &set.manifest);
    report.warnings.clone_from(&manifest.warnings);
    report.summary = format!(
        "{}: {}, {}, {} in {}",
        store.location(&set.name.key(&manifest.dump.object)),
        units::plural(manifest.table_count(), "table"),
        units::plural(manifest.rows(), "row"),
        units::bytes(manifest.dump.bytes),
        units::duration(Duration::from_secs_f64(manifest.dump.elapsed_seconds))
    );
    if let Some(why) = set.verification.not_decoded() {
        report.summary += &format!("; read back and hashed, not decoded: {why}");
    }
    report.fact("set", set.name.to_string());
    report.fact("set_began_at", manifest.started_at.to_rfc3339());
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
    report.fact("bytes", set.verification.verdict().name());
    report.fact("verified", set.verification.in_words());
    report.fact("intact_sets", main.intact_sets);
    if main.kept.keep.is_some() {
        report.fact("pruned_sets", main.pruned.clone());
    }
    report
}

/// Adds what came of the set in each store, and what else was done there.
fn report_targets(report: &mut Report, targets: &[Target]) {
    let are_several = targets.len() > 1;
    let copies: Vec<&str> = targets.iter().filter(|target| target.is_good()).map(Target::name).collect();
    if are_several {
        report.summary += &format!("; in {}", copies.join(" and "));
        report.fact("stores", targets.iter().map(Target::facts).collect::<Vec<_>>());
    }
    for target in targets {
        let in_it = if are_several { format!(" in {}", target.name()) } else { String::new() };
        if !target.copied.is_empty() {
            let sets = units::plural(target.copied.len(), "set");
            report.summary += &format!("; copied {sets} that {} lacked", target.name());
        }
        if !target.pruned.is_empty() {
            report.summary += &format!("; pruned {}{in_it}", target.pruned.len());
        }
    }
}
