//! `render` prints units and manifests for hosts and clusters that start jobs one by one.

pub mod cron;
pub mod kubernetes;
pub mod systemd;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use self::kubernetes::{CronJob, Options};
use self::systemd::Timer;
use super::global::Global;
use super::output::print;
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::run::job::{CatchUp, Job};
use crate::run::runner;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print timers for pgtend-run-job@.service, one for each scheduled job
    #[command(after_help = "Examples:
  pgtend render systemd
  pgtend render systemd /etc/systemd/system   then: systemctl daemon-reload")]
    Systemd {
        /// Write them to this folder instead of printing them
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
    /// Print CronJobs, one for each scheduled job and database, as YAML
    #[command(after_help = "Examples:
  pgtend render kubernetes --image example.org/pgtend:1 --namespace tending | kubectl apply -f -")]
    Kubernetes {
        /// The container image
        #[arg(long, default_value = "pgtend")]
        image: String,
        #[arg(long)]
        namespace: Option<String>,
    },
}

pub fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let (_, folder) = global.load_all()?;
    let jobs = &folder.jobs;
    let scheduled: Vec<(&Job, String)> = jobs.iter().filter_map(|job| Some((job, job.schedule.as_ref()?.to_string()))).collect();
    for job in jobs.iter().filter(|job| job.schedule.is_none()) {
        tracing::info!("job `{}` has no schedule and is skipped", job.name);
    }
    match command {
        Command::Systemd { folder } => timers(&scheduled, folder.as_deref()),
        Command::Kubernetes { image, namespace } => cron_jobs(&scheduled, &Options { image, namespace: namespace.as_deref() }),
    }
}

fn timers(jobs: &[(&Job, String)], folder: Option<&Path>) -> Result<ExitCode> {
    let timers: Vec<Timer<'_>> = jobs
        .iter()
        .map(|(job, schedule)| Timer {
            job: &job.name,
            schedule,
            timezone: job.timezone.name(),
            jitter_seconds: job.jitter.map(|jitter| jitter.as_secs()),
            description: job.description.as_deref(),
            enabled: job.enabled,
            catch_up: job.catch_up == CatchUp::Once,
        })
        .collect();
    let units = systemd::systemd(&timers).map_err(refused)?;
    for (name, unit) in &units {
        match folder {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                let path = folder.join(name);
                std::fs::write(&path, unit).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => print(&format!("# {name}\n{unit}\n"))?,
        }
    }
    if let Some(folder) = folder {
        say(&format!("wrote {} to {}; next: systemctl daemon-reload, and enable them", units.len(), folder.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn cron_jobs(jobs: &[(&Job, String)], options: &Options<'_>) -> Result<ExitCode> {
    // One for all databases that patterns stand for: which they are shows when it runs.
    let patterns: Vec<Option<Vec<String>>> =
        jobs.iter().map(|(job, _)| job.chosen.as_ref().map(|chosen| vec![chosen.to_string()])).collect();
    let mut cron_jobs = Vec::new();
    for ((job, schedule), patterns) in jobs.iter().zip(&patterns) {
        let databases = patterns.as_ref().unwrap_or(&job.databases);
        for database in databases {
            cron_jobs.push(CronJob {
                job: &job.name,
                database,
                only_database: databases.len() == 1,
                has_patterns: job.chosen.is_some(),
                schedule,
                timezone: job.timezone.name(),
                // `timeout` is for the run on one database; a pod works on all of them.
                timeout_seconds: job.timeout.filter(|_| job.chosen.is_none()).map(|timeout| longest(job, timeout.0).as_secs()),
                description: job.description.as_deref(),
                enabled: job.enabled,
                // A statement that may not run twice is not repeated just to find out whether it did.
                may_run_again: job.task.is_repeatable(),
                catch_up_within_seconds: match job.catch_up {
                    CatchUp::Once => job.catch_up_within.as_secs(),
                    CatchUp::Skip => 0,
                },
            });
        }
    }
    print(&kubernetes::kubernetes(&cron_jobs, options).map_err(refused)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the longest time of all attempts together, since one pod makes all of them.
fn longest(job: &Job, timeout: Duration) -> Duration {
    let retries = runner::max_retries(job);
    let pauses: Duration = (1..=retries).map(|attempt| runner::pause_after(job, attempt)).sum();
    timeout * (job.retries.unwrap_or(0) + 1) + pauses
}

fn refused(reason: String) -> anyhow::Error {
    Fault::new(Kind::Configuration, reason).into()
}
