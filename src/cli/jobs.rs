//! `jobs` lists the configured jobs, when they run next, and how they went last.

use std::collections::HashMap;
use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::json;

use super::global::Global;
use super::output::{self, print};
use crate::base::units;
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{Key, Ledger, Row};
use crate::run::job::Job;
use crate::run::scheduler::planner;

pub async fn run(global: &Global) -> Result<ExitCode> {
    let (config, folder) = global.load()?;
    let jobs = &folder.jobs;
    let now = Utc::now();
    let history = match Ledger::new(&config)? {
        Some(ledger) => match History::read(&ledger, jobs).await {
            Ok(history) => Some(history),
            // Configured jobs are worth showing even without their history.
            Err(error) => {
                tracing::warn!("no history: {error:#}");
                None
            }
        },
        None => None,
    };
    let of =
        |job: &Job, database: &String| history.as_ref().and_then(|history| history.0.get(&(job.name.clone(), database.clone())));
    if global.json {
        let rows: Vec<_> = jobs
            .iter()
            .map(|job| {
                let next = job.databases.iter().filter_map(|database| next_run(job, database, now)).min();
                let last: Vec<_> = job
                    .databases
                    .iter()
                    .filter_map(|database| of(job, database))
                    .map(|last| {
                        json!({
                            "database": last.row.database,
                            "run": last.row.id,
                            "outcome": last.row.outcome,
                            "started_at": last.row.started_at,
                            "last_success_at": last.success_at,
                        })
                    })
                    .collect();
                json!({
                    "job": job.name,
                    "description": job.description,
                    "task": job.task.kind(),
                    "databases": job.databases,
                    "enabled": job.enabled,
                    "schedule": job.schedule.as_ref().map(ToString::to_string),
                    "timezone": job.timezone.name(),
                    "next_run_at": next.map(|next| next.to_rfc3339()),
                    "timeout_seconds": job.timeout.map(|timeout| timeout.0.as_secs()),
                    "last": last,
                })
            })
            .collect();
        let broken: Vec<_> = folder
            .broken
            .iter()
            .map(|broken| json!({ "job": broken.job, "file": broken.file, "reasons": broken.reasons() }))
            .collect();
        print(&format!("{:#}\n", json!({ "jobs": rows, "broken": broken })))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = jobs.iter().flat_map(|job| {
        let of = &of;
        job.databases.iter().map(move |database| {
            let (schedule, next) = match (&job.schedule, next_run(job, database, now)) {
                _ if !job.enabled => ("not enabled".to_owned(), String::new()),
                (Some(schedule), Some(next)) => {
                    let time = if schedule.has_seconds() || job.jitter.is_some() { "%H:%M:%S" } else { "%H:%M" };
                    let local = next.format(&format!("%a %Y-%m-%d {time} %Z")).to_string();
                    let utc = next.with_timezone(&Utc).format(&format!(" ({time} UTC)")).to_string();
                    (schedule.in_words(), if job.timezone == chrono_tz::UTC { local } else { local + &utc })
                }
                (Some(schedule), None) => (schedule.in_words(), "never".to_owned()),
                (None, _) => ("by hand".to_owned(), String::new()),
            };
            let last = of(job, database);
            let (outcome, success) = match last {
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
    print(&output::table(&headings, rows))?;
    Ok(ExitCode::SUCCESS)
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
struct History(HashMap<Key, Last>);

struct Last {
    row: Row,
    success_at: Option<DateTime<Utc>>,
}

impl History {
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
