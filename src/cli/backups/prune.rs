//! `pgtend backups prune`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::cli::run_job;
use crate::ledger::report::Run;
use crate::pg::failure;
use crate::run::job::Job;
use crate::run::runner;
use crate::task::Manual;
use crate::task::backup::keep::Decision;
use crate::task::backup::manual::Prune;
use crate::task::backup::{Backup, InStore};
use crate::work::Mode;

/// On the way of the jobs' runs: under their locks, with a row of its own for each job and database.
pub async fn run(global: &Global, only: Option<&str>, dry_run: bool, cancel: CancellationToken) -> Result<ExitCode> {
    let (config, folder) = global.load_found(!dry_run).await?;
    if let Some(name) = only {
        global.find_job(&folder, name)?;
    }
    let context = run_job::context_of_jobs(global, config, folder.jobs, cancel)?;
    let mode = if dry_run { Mode::DryRun } else { Mode::Apply };
    let (mut decisions, mut refused) = (Vec::new(), Vec::new());
    let mut failed = Vec::new();
    for job in context.jobs.iter().filter(|job| only.is_none_or(|name| name == job.name)) {
        for (work, in_store) in prunes_of(job) {
            for database in &job.databases {
                if context.cancel.is_cancelled() {
                    return Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into());
                }
                let Some(ended) = runner::run_manual(&context, job, &work, database, mode).await else { continue };
                for warning in ended.run.report.iter().flat_map(|report| &report.warnings) {
                    tracing::warn!("{warning}");
                }
                decisions.extend(
                    decisions_of(&ended.run)?.into_iter().map(|decision| (work.work.store.clone(), in_store.clone(), decision)),
                );
                if let Some(error) = ended.error {
                    let not =
                        NotPruned { database, job: &job.name, store: work.work.store.clone(), in_store: in_store.clone(), error };
                    match failure::kind_of(&not.error) {
                        Some(Kind::Busy | Kind::Deferred) => refused.push(not),
                        _ => failed.push(not),
                    }
                }
            }
        }
    }
    context.notifier.drain().await;
    if global.json {
        let sets = decisions.iter().map(|(store, _, decision)| printed::Decision { decision, store });
        print_json(&printed::Prune {
            dry_run,
            sets: sets.collect(),
            refused: refused.iter().map(NotPruned::as_json).collect(),
            failed: failed.iter().map(NotPruned::as_json).collect(),
        })?;
    } else if decisions.is_empty() && refused.is_empty() && failed.is_empty() {
        print("no sets of a job with `keep`\n")?;
    } else {
        print(&decisions.iter().map(|(_, in_store, decision)| format!("{decision}{in_store}\n")).collect::<String>())?;
    }
    match (failed.len(), refused.is_empty()) {
        (0, true) => Ok(ExitCode::SUCCESS),
        (0, false) => Err(Fault::new(Kind::Deferred, format!("not pruned: {}", in_a_line(&refused))).into()),
        (1, true) => Err(failed.remove(0).into_error()),
        _ => {
            let kind = failed.first().and_then(|first| failure::kind_of(&first.error));
            failed.extend(refused);
            let message = format!("not pruned: {}", in_a_line(&failed));
            Err(kind.map_or_else(|| anyhow::anyhow!(message.clone()), |kind| Fault::new(kind, message.clone()).into()))
        }
    }
}

/// A job on a database whose sets were not pruned.
struct NotPruned<'a> {
    database: &'a str,
    job: &'a str,
    store: String,
    /// " in STORE", where the job has several.
    in_store: String,
    error: anyhow::Error,
}

impl NotPruned<'_> {
    fn as_json(&self) -> printed::NotPruned<'_> {
        let Self { database, job, store, error, .. } = self;
        printed::NotPruned { database, job, store, reason: failure::in_a_line(error) }
    }

    fn into_error(self) -> anyhow::Error {
        self.error.context(format!("{}/{}{}", self.database, self.job, self.in_store))
    }
}

fn in_a_line(all: &[NotPruned<'_>]) -> String {
    let each = all.iter().map(|not| format!("{}/{}{}: {}", not.database, not.job, not.in_store, failure::in_a_line(&not.error)));
    each.collect::<Vec<_>>().join("; ")
}

/// The work in each store of a job that has a rule there, with " in STORE" where there are several.
fn prunes_of(job: &Job) -> Vec<(Manual<Prune>, String)> {
    let Some(backup) = job.task.as_a::<Backup>() else { return Vec::new() };
    let prune = |kept: &InStore| {
        let others = backup.stores().filter(|other| other.store != kept.store).cloned().collect();
        let work = Prune { store: kept.store.clone(), others, keep: kept.keep?, verify: backup.verify };
        let in_store = if backup.copies.is_empty() { String::new() } else { format!(" in {}", kept.store) };
        Some((Manual { command: "backups prune", task: job.task.clone(), work }, in_store))
    };
    backup.stores().filter_map(prune).collect()
}

/// Those of the plan, or of the report.
fn decisions_of(run: &Run) -> Result<Vec<Decision>> {
    let planned = run.plan.as_ref().and_then(|plan| plan.get("sets"));
    let done = run.report.as_ref().and_then(|report| report.facts.get("sets"));
    Ok(serde_json::from_value(planned.or(done).cloned().unwrap_or(Value::Array(Vec::new())))?)
}
