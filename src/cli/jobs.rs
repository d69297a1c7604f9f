//! `jobs` lists the configured jobs, when they run next, and how they went last.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::runs as printed;
use crate::base::units;
use crate::config::Config;
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{Key, Ledger, Row};
use crate::run::job::{Folder, Job};
use crate::run::scheduler::planner;

pub async fn run(global: &Global) -> Result<ExitCode> {
    let (config, folder) = global.load()?;
    let jobs = &folder.jobs;
    let now = Utc::now();
    // Configured jobs are worth showing even without their history.
    let history = history(&config, jobs).await.unwrap_or_else(|error| {
        tracing::warn!("no history: {error:#}");
        History::default()
    });
    match global.json {
        true => print_json(&as_json(&folder, &history, now))?,
        false => print(&as_table(jobs, &history, now))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the history, where there is one: a list makes no ledger.
async fn history(config: &Config, jobs: &[Job]) -> Result<History> {
    match Ledger::to_read(config).await? {
        Some(ledger) => History::read(&ledger, jobs).await,
        None => Ok(History::default()),
    }
}

fn as_json<'a>(folder: &'a Folder, history: &'a History, now: DateTime<Utc>) -> printed::Jobs<'a> {
    let broken =
        folder.broken.iter().map(|broken| printed::Broken { job: &broken.job, file: &broken.file, reasons: broken.reasons() });
    printed::Jobs { jobs: folder.jobs.iter().map(|job| job_as_json(job, history, now)).collect(), broken: broken.collect() }
}

fn job_as_json<'a>(job: &'a Job, history: &'a History, now: DateTime<Utc>) -> printed::Job<'a> {
    let next = job.databases.iter().filter_map(|database| next_run(job, database, now)).min();
    let last = job.databases.iter().filter_map(|database| history.of(job, database)).map(|last| printed::LastRun {
        database: &last.row.database,
        run: last.row.id,
        outcome: last.row.outcome,
        started_at: last.row.started_at,
        last_success_at: last.success_at,
    });
    printed::Job {
        job: &job.name,
        description: job.description.as_deref(),
        task: job.task.kind(),
        databases: &job.databases,
        enabled: job.enabled,
        schedule: job.schedule.as_ref().map(ToString::to_string),
        timezone: job.timezone.name(),
        next_run_at: next.map(|next| next.to_rfc3339()),
        timeout_seconds: job.timeout.map(|timeout| timeout.0.as_secs()),
        last: last.collect(),
    }
}

fn as_table(jobs: &[Job], history: &History, now: DateTime<Utc>) -> String {
    let rows = jobs.iter().flat_map(|job| {
        job.databases.iter().map(move |database| {
            let (schedule, next) = schedule_and_next(job, database, now);
            let (outcome, success) = match history.of(job, database) {
                Some(last) => {
                    (last_run(&last.row), last.success_at.map_or("never".to_owned(), |at| format!("{} ago", units::age(at, now))))
                }
                None => (String::new(), String::new()),
            };
            vec![
                job.name.clone(),
                job.task.kind().to_owned(),
                database.clone(),
                schedule,
                next,
                outcome,
                success,
                job.description.clone().unwrap_or_default(),
            ]
        })
    });
    let headings = ["JOB", "TASK", "DATABASE", "SCHEDULE", "NEXT RUN", "LAST RUN", "LAST SUCCESS", "DESCRIPTION"];
    output::table(&headings, rows)
}

/// Formats the schedule, and the next run in the job's time zone and in UTC.
fn schedule_and_next(job: &Job, database: &str, now: DateTime<Utc>) -> (String, String) {
    match (&job.schedule, next_run(job, database, now)) {
        _ if !job.enabled => ("not enabled".to_owned(), String::new()),
        (Some(schedule), Some(next)) => {
            let time = if schedule.has_seconds() || job.jitter.is_some() { "%H:%M:%S" } else { "%H:%M" };
            let local = next.format(&format!("%a %Y-%m-%d {time} %Z")).to_string();
            let utc = next.with_timezone(&Utc).format(&format!(" ({time} UTC)")).to_string();
            (schedule.in_words(), if job.timezone == chrono_tz::UTC { local } else { local + &utc })
        }
        (Some(schedule), None) => (schedule.in_words(), "never".to_owned()),
        (None, _) => ("by hand".to_owned(), String::new()),
    }
}

/// Formats the outcome: "succeeded", or "succeeded, covered until 2027-02-01".
fn last_run(row: &Row) -> String {
    let outcome = row.outcome.0.map_or("running".to_owned(), Outcome::in_words);
    match row.report.as_ref().and_then(Report::covered_until) {
        Some(until) => format!("{outcome}, covered until {}", until.format("%Y-%m-%d")),
        None => outcome,
    }
}

fn next_run(job: &Job, database: &str, now: DateTime<Utc>) -> Option<DateTime<chrono_tz::Tz>> {
    let jitter = planner::jitter(job, database);
    job.next_tick(now - jitter).filter(|_| job.enabled).map(|tick| tick + jitter)
}

/// The last run of each job on each database.
#[derive(Default)]
struct History(HashMap<Key, Last>);

struct Last {
    row: Row,
    success_at: Option<DateTime<Utc>>,
}

impl History {
    fn of(&self, job: &Job, database: &str) -> Option<&Last> {
        self.0.get(&(job.name.clone(), database.to_owned()))
    }

    async fn read(ledger: &Ledger, jobs: &[Job]) -> Result<Self> {
        let keys: Vec<Key> =
            jobs.iter().flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect();
        let mut successes = ledger.last_successes(&keys).await?;
        let rows = ledger.last_runs(&keys, 1).await?;
        Ok(Self(
            rows.into_iter()
                .map(|row| {
                    let key = (row.job.clone(), row.database.clone());
                    let success_at = successes.remove(&key);
                    (key, Last { row, success_at })
                })
                .collect(),
        ))
    }
}
