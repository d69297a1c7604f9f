//! `jobs` lists the configured jobs, when they run next, and how they went last.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::runs as printed;
use crate::base::units;
use crate::config::Config;
use crate::ledger::report::{Outcome, Report};
use crate::ledger::{FailedLast, Gone, Key, Ledger, LeftOut, Row};
use crate::run::fleet;
use crate::run::job::{Folder, Job};
use crate::run::scheduler::planner::Ticks;
use crate::run::standing::fleets::{self, Fleet};
use crate::run::standing::late::Known;

/// More databases that went, or are left out, are counted only.
const GONE_LISTED: usize = 10;

/// `all` lists each database of jobs with patterns.
pub async fn run(global: &Global, all: bool) -> Result<ExitCode> {
    let (config, folder) = global.load_found(false).await?;
    let now = Utc::now();
    // Configured jobs are worth showing even without their history.
    let history = match history(&config, &folder.jobs, all, now).await {
        Ok(history) => history,
        Err(error) => {
            tracing::warn!("no history: {error:#}");
            let fleets = if all { Vec::new() } else { fleets::count(&folder.jobs, &Known::default(), None, now) };
            History { fleets, ..History::default() }
        }
    };
    match global.json {
        true => print_json(&as_json(&folder, &history, now))?,
        false => print(&as_table(&folder.jobs, &history, now))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the history, where there is one: a list makes no ledger.
async fn history(config: &Config, jobs: &[Job], all: bool, now: DateTime<Utc>) -> Result<History> {
    let ledger = Ledger::to_read(config).await?;
    let fleets = match &ledger {
        _ if all => Vec::new(),
        Some(ledger) => fleets::count(jobs, &Known::of_fleets(ledger, jobs).await?, None, now),
        None => fleets::count(jobs, &Known::default(), None, now),
    };
    let mut history = match &ledger {
        Some(ledger) => {
            let alone: Vec<&Job> = jobs.iter().filter(|job| !fleets.iter().any(|fleet| fleet.job == job.name)).collect();
            History::read(ledger, &alone).await?
        }
        None => History::default(),
    };
    if let Some(ledger) = &ledger {
        history.gone = fleet::gone(config, jobs, ledger).await?;
        history.left_out = fleet::left_out(config, jobs, ledger).await?;
    }
    Ok(History { fleets, ..history })
}

fn as_json<'a>(folder: &'a Folder, history: &'a History, now: DateTime<Utc>) -> printed::Jobs<'a> {
    let broken =
        folder.broken.iter().map(|broken| printed::Broken { job: &broken.job, file: &broken.file, reasons: broken.reasons() });
    let jobs = folder.jobs.iter().map(|job| job_as_json(job, history, now)).collect();
    printed::Jobs { jobs, broken: broken.collect(), gone: &history.gone, left_out: &history.left_out }
}

fn job_as_json<'a>(job: &'a Job, history: &'a History, now: DateTime<Utc>) -> printed::Job<'a> {
    let next = soonest(job, now).map(|(next, _)| next);
    let last = job.databases.iter().filter_map(|database| history.of(job, database)).map(|last| printed::LastRun {
        database: &last.row.database,
        run: last.row.id,
        outcome: last.row.outcome,
        started_at: last.row.started_at,
        last_success_at: last.success_at,
        failed_before: last.failed_before(),
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
        patterns: job.chosen.as_ref().map(ToString::to_string),
        fleet: history.fleet(job),
    }
}

fn as_table(jobs: &[Job], history: &History, now: DateTime<Utc>) -> String {
    let rows = jobs.iter().flat_map(|job| match history.fleet(job) {
        Some(fleet) => vec![row_of_fleet(job, fleet, now)],
        None => rows_of(job, history, now),
    });
    let headings = ["JOB", "TASK", "DATABASE", "SCHEDULE", "NEXT RUN", "LAST RUN", "LAST SUCCESS", "DESCRIPTION"];
    let mut text = output::table(&headings, rows);
    for left_out in history.left_out.iter().take(GONE_LISTED) {
        text += &format!("{}\n", fleets::left_out_in_words(left_out));
    }
    if history.left_out.len() > GONE_LISTED {
        text += &format!("and {} more databases are left out\n", history.left_out.len() - GONE_LISTED);
    }
    for gone in history.gone.iter().take(GONE_LISTED) {
        text += &format!("{} is gone since {}; its sets are kept\n", gone.database, gone.gone_at.format("%Y-%m-%d %H:%M UTC"));
    }
    if history.gone.len() > GONE_LISTED {
        text += &format!("and {} more databases are gone\n", history.gone.len() - GONE_LISTED);
    }
    text
}

/// One line, however many databases a job with patterns has.
fn row_of_fleet(job: &Job, fleet: &Fleet, now: DateTime<Utc>) -> Vec<String> {
    let (schedule, next) = schedule_and_next(job, soonest(job, now).map_or("", |(_, database)| database), now);
    let oldest = fleet.oldest_success();
    vec![
        job.name.clone(),
        job.task.kind().to_owned(),
        format!("{}: {}", fleet.patterns, units::plural(fleet.databases, job.has_runs_for())),
        schedule,
        next,
        fleet.in_words(),
        oldest.map_or_else(String::new, |(at, database)| format!("oldest: {} ago, {database}", units::age(at, now))),
        job.description_for(&fleet.patterns).unwrap_or_default(),
    ]
}

fn rows_of(job: &Job, history: &History, now: DateTime<Utc>) -> Vec<Vec<String>> {
    let of_database = job.databases.iter().map(|database| {
        let (schedule, next) = schedule_and_next(job, database, now);
        let (outcome, success) = match history.of(job, database) {
            Some(last) => {
                (last_run(last), last.success_at.map_or("never".to_owned(), |at| format!("{} ago", units::age(at, now))))
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
            job.description_for(database).unwrap_or_default(),
        ]
    });
    of_database.collect()
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

/// Formats the outcome: "succeeded", "succeeded, covered until 2027-02-01", or "running; failed before".
fn last_run(last: &Last) -> String {
    let outcome = last.row.outcome.0.map_or("running".to_owned(), Outcome::in_words);
    if last.failed_before() {
        return format!("{outcome}; failed before");
    }
    match last.row.report.as_ref().and_then(Report::covered_until) {
        Some(until) => format!("{outcome}, covered until {}", until.format("%Y-%m-%d")),
        None => outcome,
    }
}

fn next_run(job: &Job, database: &str, now: DateTime<Utc>) -> Option<DateTime<chrono_tz::Tz>> {
    Ticks::of(job).next_start(database, now)
}

/// Returns the next run of all databases, and which database it is on.
fn soonest(job: &Job, now: DateTime<Utc>) -> Option<(DateTime<chrono_tz::Tz>, &str)> {
    let mut ticks = Ticks::of(job);
    let starts = job.databases.iter().filter_map(|database| Some((ticks.next_start(database, now)?, database.as_str())));
    starts.min()
}

/// The last run of each job on each database.
#[derive(Default)]
struct History {
    last: HashMap<Key, Last>,
    /// Jobs with patterns, which have one line each.
    fleets: Vec<Fleet>,
    gone: Vec<Gone>,
    left_out: Vec<LeftOut>,
}

struct Last {
    row: Row,
    success_at: Option<DateTime<Utc>>,
    /// The last run that proves something did not succeed.
    has_failed: bool,
}

impl Last {
    /// Returns whether this run proves nothing, and the last one that proves something did not succeed.
    fn failed_before(&self) -> bool {
        self.has_failed && self.row.outcome.0.is_none_or(|outcome| !outcome.proves_something())
    }
}

impl History {
    fn of(&self, job: &Job, database: &str) -> Option<&Last> {
        self.last.get(&(job.name.clone(), database.to_owned()))
    }

    fn fleet(&self, job: &Job) -> Option<&Fleet> {
        self.fleets.iter().find(|fleet| fleet.job == job.name)
    }

    async fn read(ledger: &Ledger, jobs: &[&Job]) -> Result<Self> {
        let keys: Vec<Key> =
            jobs.iter().flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect();
        let mut successes = ledger.last_successes(&keys).await?;
        let failed: HashSet<Key> = ledger.failed_last(&keys).await?.iter().map(FailedLast::key).collect();
        let rows = ledger.last_of_jobs(&keys).await?;
        let last = rows.into_iter().map(|row| {
            let key = (row.job.clone(), row.database.clone());
            let success_at = successes.remove(&key);
            let has_failed = failed.contains(&key);
            (key, Last { row, success_at, has_failed })
        });
        Ok(Self { last: last.collect(), ..Self::default() })
    }
}
