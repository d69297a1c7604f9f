//! The data of the status page and `/api/jobs`: the configured jobs, and their records in the ledger.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::progress::PhaseState;
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{Key, Row};
use crate::run::job::{Broken, Job};
use crate::run::scheduler::{Fleet, planner};

/// The number of runs shown for each job.
pub const HISTORY: i64 = 30;
const FAILURES: usize = 20;

#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub now: DateTime<Utc>,
    pub version: &'static str,
    pub host: String,
    pub started_at: DateTime<Utc>,
    /// The reason why the ledger can't be read: jobs have no history then.
    pub ledger_error: Option<String>,
    /// The reason why the last reload was refused: the old configuration stays in effect.
    pub configuration_error: Option<String>,
    /// Jobs that are skipped because of mistakes in their files.
    pub broken: Vec<BrokenStatus>,
    pub draining: bool,
    /// Of jobs with patterns in `databases`, only the databases on which they are under way, failed or late.
    pub jobs: Vec<JobStatus>,
    /// The jobs with patterns, however many databases they have.
    pub fleets: Vec<FleetStatus>,
    /// Databases that went from their servers in the last 30 days, the latest first.
    pub gone: Vec<GoneStatus>,
    /// The newest first, at most 20.
    pub failures: Vec<RunStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct FleetStatus {
    pub job: String,
    /// As they stand in the job's file.
    pub patterns: String,
    pub task: &'static str,
    pub description: Option<String>,
    pub enabled: bool,
    pub schedule: Option<String>,
    pub schedule_in_words: Option<String>,
    pub timezone: String,
    /// The soonest on any of its databases, in the job's zone.
    pub next_run_at: Option<DateTime<Tz>>,
    pub databases: usize,
    pub well: usize,
    pub failed: usize,
    /// Late, and not failed.
    pub late: usize,
    /// Without a success yet, and neither failed nor late.
    pub waiting: usize,
    /// The oldest of the last successes, and the database that it is of.
    pub oldest_success_at: Option<DateTime<Utc>>,
    pub oldest_success_on: Option<String>,
}

impl From<Fleet> for FleetStatus {
    fn from(fleet: Fleet) -> Self {
        let job = &fleet.job;
        let (oldest_success_at, oldest_success_on) = fleet.oldest_success.unzip();
        let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
        Self {
            job: job.name.clone(),
            task: job.task.kind(),
            description: job.description_for(&patterns),
            patterns,
            enabled: job.enabled,
            schedule: job.schedule.as_ref().map(ToString::to_string),
            schedule_in_words: job.schedule.as_ref().map(|schedule| schedule.in_words()),
            timezone: job.timezone.name().to_owned(),
            next_run_at: fleet.next_due_at.map(|at| at.with_timezone(&job.timezone)),
            databases: fleet.databases,
            well: fleet.well,
            failed: fleet.failed,
            late: fleet.late,
            waiting: fleet.waiting,
            oldest_success_at,
            oldest_success_on,
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct GoneStatus {
    pub database: String,
    pub gone_at: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize)]
pub struct BrokenStatus {
    pub job: String,
    pub file: String,
    pub reasons: Vec<String>,
}

impl From<&Broken> for BrokenStatus {
    fn from(broken: &Broken) -> Self {
        Self { job: broken.job.clone(), file: broken.file.clone(), reasons: broken.reasons() }
    }
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
    /// The time is in the job's zone.
    pub next_run_at: Option<DateTime<Tz>>,
    pub late: bool,
    pub last_success_at: Option<DateTime<Utc>>,
    pub running: Option<RunStatus>,
    /// Ended runs, the oldest first, at most 30.
    pub history: Vec<RunStatus>,
    pub runway: Option<String>,
    /// The result of the last audit.
    pub audit: Option<AuditStatus>,
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
    /// The tools' output. In JSON only `/api/runs/ID` has it. The same holds for the warnings.
    #[serde(skip)]
    pub stderr: Option<String>,
    pub host: String,
    pub progress: Option<PhaseState>,
    pub size_bytes: Option<u64>,
    /// The result of an audit. `JobStatus` has it once; the runs of the history do not repeat it.
    #[serde(skip)]
    pub audit: Option<AuditStatus>,
    /// Partitions exist for rows up to this time.
    pub covered_until: Option<DateTime<Utc>>,
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// A summary of an audit's report, as its run left it in the ledger.
#[derive(Clone, Debug, Serialize)]
pub struct AuditStatus {
    pub at: DateTime<Utc>,
    pub previous: Option<DateTime<Utc>>,
    pub counts: AuditCounts,
    /// The most urgent findings, at most 50.
    pub findings: Vec<AuditFinding>,
    /// The location of its HTML report.
    pub report: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditCounts {
    pub critical: u64,
    pub high: u64,
    pub medium: u64,
    pub low: u64,
    pub new: u64,
    pub resolved: u64,
    pub waived: u64,
    pub unknown: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditFinding {
    pub key: String,
    pub level: String,
    pub title: String,
    pub object: String,
    pub change: Option<String>,
}

impl AuditStatus {
    fn of(facts: &Map<String, Value>, at: DateTime<Utc>) -> Option<Self> {
        let counts = facts.get("counts").filter(|counts| counts.get("critical").is_some())?;
        Some(Self {
            at,
            previous: facts.get("previous_audit").and_then(Value::as_str).and_then(|at| at.parse().ok()),
            counts: serde_json::from_value(counts.clone()).ok()?,
            findings: serde_json::from_value(facts.get("findings")?.clone()).ok()?,
            report: facts.get("report").and_then(Value::as_str).map(str::to_owned),
        })
    }

    pub fn levels(&self) -> [(&'static str, u64); 4] {
        let counts = &self.counts;
        [("critical", counts.critical), ("high", counts.high), ("medium", counts.medium), ("low", counts.low)]
    }

    /// Counts the findings that matter.
    pub fn open(&self) -> u64 {
        self.levels().iter().map(|(_, number)| number).sum()
    }
}

/// Combines `jobs` with the ledger's last rows of each, the newest first.
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
                description: job.description_for(database),
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
                audit: ended.iter().rev().find_map(|run| run.audit.clone()),
                history: ended,
            }
        })
        .collect()
}

/// Returns the last failed runs, the newest first.
pub fn failures(jobs: &[JobStatus]) -> Vec<RunStatus> {
    let mut failures: Vec<RunStatus> = jobs
        .iter()
        .flat_map(|job| &job.history)
        .filter(|run| run.outcome.is_some_and(Outcome::needs_attention))
        .cloned()
        .collect();
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
            audit: facts.and_then(|facts| AuditStatus::of(facts, row.finished_at.unwrap_or(row.started_at))),
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
