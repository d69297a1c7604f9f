//! The data of the status page and `/api/jobs`: the configured jobs, and their records in the ledger.

mod fleets;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

pub use self::fleets::FleetStatus;
use crate::base::progress::PhaseState;
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{Gone, Key, LeftOut, Past, Row, Untold};
use crate::run::job::{Broken, Job};
use crate::run::notify::untold;
use crate::run::scheduler::{Stands, planner};

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
    pub gone: Vec<Gone>,
    /// Databases that servers have and that patterns take, and on which no job can run.
    pub left_out: Vec<LeftOut>,
    /// Databases of servers that have something of their own, and that no job backs up, as far as that was read.
    pub uncovered: Vec<String>,
    /// Servers that do not say which databases they have, and databases that do not say which schemas, each in a sentence.
    pub silent: Vec<String>,
    /// The stores are being asked how the databases of servers stand, and have not said it yet.
    #[serde(skip)]
    pub is_asking: bool,
    /// Messages that nobody got, by places.
    #[serde(serialize_with = "as_json")]
    pub untold: Vec<Untold>,
    /// The newest first, at most 20.
    pub failures: Vec<RunStatus>,
}

fn as_json<S: Serializer>(untold: &[Untold], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(untold.iter().map(untold::Shown::from))
}

#[derive(Clone, Debug, Serialize)]
pub struct BrokenStatus {
    pub job: String,
    pub file: String,
    pub reasons: Vec<String>,
    /// Whether it is late, a sentence for each database; empty while it runs on as before.
    pub stands: Vec<String>,
}

impl BrokenStatus {
    pub fn of(broken: &Broken, stands: &[Stands], now: DateTime<Utc>) -> Self {
        let own = stands.iter().filter(|stands| stands.job == broken.job);
        let stands = own.filter_map(|stands| stands.in_words(now)).collect();
        Self { job: broken.job.clone(), file: broken.file.clone(), reasons: broken.reasons(), stands }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// Its databases are chosen by patterns, and of those only some are here: `FleetStatus` counts all.
    #[serde(skip)]
    pub is_of_fleet: bool,
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
    /// Reads the facts of an audit's run.
    pub fn of(facts: &Map<String, Value>, at: DateTime<Utc>) -> Option<Self> {
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

/// The name under which jobs stand together: a job `nightly@tenant_7` of a fleet is one of `nightly`.
pub fn group(job: &str) -> &str {
    job.split_once('@').map_or(job, |(template, _)| template)
}

/// The jobs on their databases, in the order of the files.
pub fn keys(jobs: &[Job]) -> Vec<Key> {
    jobs.iter().flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect()
}

/// What is known of jobs besides their runs.
#[derive(Default)]
pub struct Known {
    pub successes: HashMap<Key, DateTime<Utc>>,
    pub late: HashSet<Key>,
    /// When each is due next; what is not in it is computed, which takes a while for thousands.
    pub next: HashMap<Key, DateTime<Utc>>,
}

/// Combines `jobs` with the ledger's last runs of each, the newest first.
pub fn of_jobs(jobs: &[Job], runs: Vec<RunStatus>, known: &Known, now: DateTime<Utc>) -> Vec<JobStatus> {
    let mut history: HashMap<Key, Vec<RunStatus>> = HashMap::new();
    for run in runs {
        history.entry((run.job.clone(), run.database.clone())).or_default().push(run);
    }
    let words = jobs.iter().map(|job| {
        let schedule = job.schedule.as_ref().map(ToString::to_string);
        (job, schedule, job.schedule.as_ref().map(|schedule| schedule.in_words()))
    });
    let pairs = words.flat_map(|(job, schedule, in_words)| {
        job.databases.iter().map(move |database| (job, database, schedule.clone(), in_words.clone()))
    });
    pairs
        .map(|(job, database, schedule, schedule_in_words)| {
            let key = (job.name.clone(), database.clone());
            let runs = history.remove(&key).unwrap_or_default();
            let (mut running, mut ended): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.outcome.is_none());
            ended.reverse();
            JobStatus {
                is_of_fleet: job.chosen.is_some(),
                job: job.name.clone(),
                database: database.clone(),
                task: job.task.kind(),
                description: job.description_for(database),
                enabled: job.enabled,
                schedule,
                schedule_in_words,
                timezone: job.timezone.name().to_owned(),
                next_run_at: next_run_at(job, database, known.next.get(&key), now),
                late: known.late.contains(&key),
                last_success_at: known.successes.get(&key).copied(),
                running: running.pop(),
                runway: ended.iter().rev().find_map(|run| run.covered_until).map(runway_in_words),
                audit: ended.iter().rev().find_map(|run| run.audit.clone()),
                history: ended,
            }
        })
        .collect()
}

pub fn runway_in_words(until: DateTime<Utc>) -> String {
    format!("covered until {}", until.format("%Y-%m-%d %H:%M UTC"))
}

fn next_run_at(job: &Job, database: &str, known: Option<&DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Tz>> {
    if !job.enabled {
        return None;
    }
    if let Some(next) = known.filter(|next| **next > now) {
        return Some(next.with_timezone(&job.timezone));
    }
    let jitter = planner::jitter(job, database);
    Some(job.next_tick(now - jitter)? + jitter)
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

impl RunStatus {
    /// A run that has ended, of that job, from few columns.
    pub fn of_past((job, database): &Key, past: Past) -> Self {
        let warnings = past.warnings.and_then(|warnings| match warnings.0 {
            Value::Array(warnings) => Some(warnings.iter().map(|warning| warning.as_str().unwrap_or("?").to_owned()).collect()),
            _ => None,
        });
        Self {
            id: past.id,
            job: job.clone(),
            database: database.clone(),
            trigger: past.trigger,
            scheduled_for: None,
            started_at: past.started_at,
            finished_at: past.finished_at,
            outcome: past.outcome.0,
            summary: None,
            error: past.error,
            stderr: None,
            host: String::new(),
            progress: None,
            size_bytes: past.dump_bytes.and_then(|bytes| bytes.0.as_u64()),
            audit: None,
            covered_until: None,
            warnings: warnings.unwrap_or_default(),
        }
    }
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

#[cfg(test)]
pub mod tests {
    use chrono::{TimeDelta, TimeZone as _};

    use super::*;

    pub fn well(name: &str) -> JobStatus {
        job(name, "app", &[Outcome::Succeeded; 3])
    }

    pub fn job(name: &str, database: &str, outcomes: &[Outcome]) -> JobStatus {
        let history: Vec<_> = (1..).zip(outcomes).map(|(id, outcome)| run(id, name, database, *outcome)).collect();
        JobStatus {
            is_of_fleet: false,
            job: name.to_owned(),
            database: database.to_owned(),
            task: "backup",
            description: None,
            enabled: true,
            schedule: Some("0 2 * * *".to_owned()),
            schedule_in_words: Some("At 02:00".to_owned()),
            timezone: "Europe/Berlin".to_owned(),
            next_run_at: Some((now() + TimeDelta::hours(3)).with_timezone(&chrono_tz::Europe::Berlin)),
            late: false,
            last_success_at: history
                .iter()
                .rev()
                .find(|run| run.outcome == Some(Outcome::Succeeded))
                .and_then(|run| run.finished_at),
            running: None,
            history,
            runway: None,
            audit: None,
        }
    }

    pub fn run(id: i64, job: &str, database: &str, outcome: Outcome) -> RunStatus {
        let started_at = now() - TimeDelta::days(40) + TimeDelta::days(id);
        RunStatus {
            id,
            job: job.to_owned(),
            database: database.to_owned(),
            trigger: "schedule".to_owned(),
            scheduled_for: Some(started_at),
            started_at,
            finished_at: Some(started_at + TimeDelta::milliseconds(4200 + id * 100)),
            outcome: Some(outcome),
            summary: None,
            error: None,
            stderr: None,
            host: "db1".to_owned(),
            progress: None,
            audit: None,
            covered_until: None,
            size_bytes: (outcome == Outcome::Succeeded).then_some(134_200_000 + id as u64 * 1_000_000),
            warnings: Vec::new(),
        }
    }

    pub fn status(jobs: Vec<JobStatus>) -> Status {
        Status {
            now: now(),
            version: "0.1.0",
            host: "db1".to_owned(),
            started_at: now() - TimeDelta::hours(83),
            ledger_error: None,
            configuration_error: None,
            broken: Vec::new(),
            draining: false,
            jobs,
            fleets: Vec::new(),
            gone: Vec::new(),
            left_out: Vec::new(),
            uncovered: Vec::new(),
            silent: Vec::new(),
            is_asking: false,
            untold: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 23, 21, 5, 40).unwrap()
    }
}
