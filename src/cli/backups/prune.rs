//! `pgtend backups prune`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::cli::run_job;
use crate::ledger::report::Run;
use crate::pg::failure;
use crate::run::job::Job;
use crate::run::runner;
use crate::task::Manual;
use crate::task::backup::Backup;
use crate::task::backup::keep::Decision;
use crate::task::backup::manual::Prune;
use crate::work::Mode;

/// On the way of the jobs' runs: under their locks, with a row of its own for each job and database.
pub async fn run(global: &Global, only: Option<&str>, dry_run: bool, cancel: CancellationToken) -> Result<ExitCode> {
    let (config, folder) = global.load()?;
    if let Some(name) = only {
        global.find_job(&folder, name)?;
    }
    let context = run_job::context_of_jobs(global, config, folder.jobs, cancel)?;
    let mode = if dry_run { Mode::DryRun } else { Mode::Apply };
    let (mut decisions, mut refused) = (Vec::new(), Vec::new());
    let mut failed = None;
    for job in context.jobs.iter().filter(|job| only.is_none_or(|name| name == job.name)) {
        let Some(work) = prune_of(job) else { continue };
        for database in &job.databases {
            if context.cancel.is_cancelled() {
                return Err(Fault::new(Kind::Cancelled, "cancelled by a signal").into());
            }
            let Some(ended) = runner::run_manual(&context, job, &work, database, mode).await else { continue };
            for warning in ended.run.report.iter().flat_map(|report| &report.warnings) {
                tracing::warn!("{warning}");
            }
            decisions.extend(decisions_of(&ended.run)?);
            if let Some(error) = ended.error {
                let series = format!("{database}/{}", job.name);
                match failure::kind_of(&error) {
                    Some(Kind::Busy | Kind::Deferred) => refused.push(format!("{series}: {}", failure::in_a_line(&error))),
                    _ => failed = failed.or(Some(error.context(series))),
                }
            }
        }
    }
    context.notifier.drain().await;
    if global.json {
        print(&format!("{:#}\n", json!({ "dry_run": dry_run, "sets": decisions })))?;
    } else {
        let text: String = decisions.iter().map(|decision| format!("{decision}\n")).collect();
        print(if text.is_empty() { "no sets of a job with `keep`\n" } else { &text })?;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if refused.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Fault::new(Kind::Deferred, format!("not pruned: {}", refused.join("; "))).into())
}

fn prune_of(job: &Job) -> Option<Manual<Prune>> {
    let backup = job.task.as_a::<Backup>()?;
    let work = Prune { store: backup.store.clone(), keep: backup.keep? };
    Some(Manual { command: "backups prune", task: job.task.clone(), work })
}

/// Those of the plan, or of the report.
fn decisions_of(run: &Run) -> Result<Vec<Decision>> {
    let planned = run.plan.as_ref().and_then(|plan| plan.get("sets"));
    let done = run.report.as_ref().and_then(|report| report.facts.get("sets"));
    Ok(serde_json::from_value(planned.or(done).cloned().unwrap_or(Value::Array(Vec::new())))?)
}
