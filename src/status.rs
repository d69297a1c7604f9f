//! What the status page and `/api/jobs` show: the configured jobs, and what the ledger says of them.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::Value;

use crate::job::Job;
use crate::ledger::{Key, Row};
use crate::progress::Now;
use crate::report::{Outcome, Report};
use crate::scheduler::planner;

/// Runs of each job that are shown.
pub const HISTORY: i64 = 30;
const FAILURES: usize = 20;

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub now: DateTime<Utc>,
    pub version: &'static str,
    pub host: String,
    pub started_at: DateTime<Utc>,
    /// Why the ledger can't be read: jobs then lack history.
    pub ledger_error: Option<String>,
    /// The last reload was refused: the old configuration goes on.
    pub configuration_error: Option<String>,
    pub draining: bool,
    pub jobs: Vec<JobStatus>,
    /// Newest first, at most 20.
    pub failures: Vec<RunStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    pub job: String,
    pub database: String,
    pub task: &'static str,
    pub description: Option<String>,
    pub enabled: bool,
    pub schedule: Option<String>,
    pub schedule_in_words: Option<String>,
    pub timezone: String,
    /// In the job's zone.
    pub next_run_at: Option<DateTime<Tz>>,
    pub late: bool,
    pub last_success_at: Option<DateTime<Utc>>,
    pub running: Option<RunStatus>,
    /// Oldest first, at most 30, ended runs.
    pub history: Vec<RunStatus>,
    pub runway: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct RunStatus {
    pub id: i64,
    pub job: String,
    pub database: String,
    pub trigger: String,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub outcome: Option<Outcome>,
    pub summary: Option<String>,
    pub error: Option<String>,
    pub stderr: Option<String>,
    pub host: String,
    pub progress: Option<Now>,
    pub size_bytes: Option<u64>,
    /// Of partitions.
    pub covered_until: Option<DateTime<Utc>>,
    pub warnings: Vec<String>,
}

/// The state of `jobs` from the ledger's last rows of each, the newest first.
pub fn of_jobs(
    jobs: &[Job],
    rows: Vec<Row>,
    successes: &HashMap<Key, DateTime<Utc>>,
    late: &HashSet<Key>,
    now: DateTime<Utc>,
) -> Vec<JobStatus> {
    let mut history: HashMap<Key, Vec<RunStatus>> = HashMap::new();
    for row in rows {
        history.entry((row.job.clone(), row.database.clone())).or_default().push(row.into());
    }
    let pairs = jobs.iter().flat_map(|job| job.databases.iter().map(move |database| (job, database)));
    pairs
        .map(|(job, database)| {
            let key = (job.name.clone(), database.clone());
            let runs = history.remove(&key).unwrap_or_default();
            let (mut running, mut ended): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.outcome.is_none());
            ended.reverse();
            let jitter = planner::jitter(job, database);
            let next = job.next_tick(now - jitter).filter(|_| job.enabled);
            JobStatus {
                job: job.name.clone(),
                database: database.clone(),
                task: job.task.kind(),
                description: job.description.clone(),
                enabled: job.enabled,
                schedule: job.schedule.as_ref().map(ToString::to_string),
                schedule_in_words: job.schedule.as_ref().map(|schedule| schedule.in_words()),
                timezone: job.timezone.name().to_owned(),
                next_run_at: next.map(|next| next + jitter),
                late: late.contains(&key),
                last_success_at: successes.get(&key).copied(),
                running: running.pop(),
                runway: ended
                    .iter()
                    .rev()
                    .find_map(|run| run.covered_until)
                    .map(|until| format!("covered until {}", until.format("%Y-%m-%d %H:%M UTC"))),
                history: ended,
            }
        })
        .collect()
}

/// The last runs that went wrong, the newest first.
pub fn failures(jobs: &[JobStatus]) -> Vec<RunStatus> {
    let mut failures: Vec<RunStatus> =
        jobs.iter().flat_map(|job| &job.history).filter(|run| run.outcome.is_some_and(Outcome::is_bad)).cloned().collect();
    failures.sort_by_key(|run| std::cmp::Reverse(run.id));
    failures.truncate(FAILURES);
    failures
}

impl From<Row> for RunStatus {
    fn from(row: Row) -> Self {
        let facts = row.report.as_ref().map(|report| &report.facts);
        Self {
            id: row.id,
            trigger: row.trigger,
            scheduled_for: row.scheduled_for,
            started_at: row.started_at,
            finished_at: row.finished_at,
            outcome: row.outcome.0,
            size_bytes: facts.and_then(|facts| facts.get("dump_bytes")).and_then(Value::as_u64),
            covered_until: row.report.as_ref().and_then(Report::covered_until),
            summary: row.report.as_ref().map(|report| report.summary.clone()),
            warnings: row.report.map(|report| report.warnings).unwrap_or_default(),
            error: row.error,
            stderr: row.stderr,
            host: row.host,
            progress: row.progress,
            job: row.job,
            database: row.database,
        }
    }
}
