//! Reads what pages show from the ledger, once in some seconds however many people look.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use anyhow::Result;
use chrono::{DateTime, Utc};
use tokio::task::block_in_place;

use super::site::{Seen, Site};
use crate::ledger::{self, Began, Gone, Key, Ledger, LeftOut, Row, Untold};
use crate::run::fleet;
use crate::run::job::Job;
use crate::run::runner::Context;
use crate::run::scheduler::{Away, Fleet, NotAnswering};
use crate::run::standing::Unasked;
use crate::web::choice::Choice;
use crate::web::safety::DatabaseStatus;
use crate::web::status::{self, AuditStatus, BrokenStatus, FleetStatus, JobStatus, Known, RunStatus, Status};
use crate::web::timeline;

/// The failures that are read, of which some may be of jobs that are no more.
const FAILURES_READ: i64 = 60;
const FAILURES: usize = 20;

/// The reports that are read whole for the status page: audits with their findings, and partitions. A job's own page reads its own.
const REPORTS_READ: usize = 200;

/// The most runs under way that `/api/jobs` shows of jobs with patterns.
const UNDER_WAY: i64 = 200;

/// All jobs with their last runs, for the pages: few columns, so that 10,000 jobs on databases are read in a moment.
pub async fn seen(site: &Site) -> Arc<Seen> {
    site.seen.get(read_seen(site)).await
}

/// All jobs with up to 30 runs of each, for `/api/jobs`.
pub async fn status(site: &Site) -> Arc<Status> {
    site.status.get(read_status(site)).await
}

async fn read_seen(site: &Site) -> Seen {
    let (context, fleets, now) = (site.scheduler.context(), site.scheduler.fleets(), Utc::now());
    let (read, ledger_error) = match read_last(site, &context, &fleets, now).await {
        Ok(read) => (read, None),
        Err(error) => {
            let shown = shown(&context.jobs, &fleets, &[]);
            (LastRead { shown, ..LastRead::default() }, Some(format!("{error:#}")))
        }
    };
    block_in_place(|| {
        let is_asking = site.safe.is_asking(&context);
        let LastRead { shown, runs, known, failures, reports, began, gone, left_out, untold } = read;
        let mut jobs = status::of_jobs(&shown, runs, &known, now);
        add_reports(&mut jobs, reports);
        let is_configured = |row: &Row| context.jobs.iter().any(|job| job.name == row.job && job.runs_on(&row.database));
        let failures = failures.into_iter().filter(is_configured).map(RunStatus::from).take(FAILURES).collect();
        let (fleets, uncovered) = judged(site, &context, fleets);
        let timeline = timeline::of(&shown, &jobs, &fleets, &began, now);
        let status =
            Status { jobs, failures, fleets, gone, left_out, uncovered, is_asking, untold, ..whole(site, ledger_error, now) };
        Seen { status, timeline }
    })
}

#[derive(Default)]
struct LastRead {
    /// The jobs with the databases that are shown each by itself.
    shown: Vec<Job>,
    runs: Vec<RunStatus>,
    known: Known,
    failures: Vec<Row>,
    reports: Vec<Row>,
    began: Vec<Began>,
    gone: Vec<Gone>,
    left_out: Vec<LeftOut>,
    untold: Vec<Untold>,
}

/// One query after another: the runs need connections, too.
async fn read_last(site: &Site, context: &Context, fleets: &[Fleet], now: DateTime<Utc>) -> Result<LastRead> {
    let ledger = reachable(site)?;
    let running = ledger.runs_under_way().await?;
    let under_way: Vec<Key> = running.iter().map(|row| (row.job.clone(), row.database.clone())).collect();
    let shown = shown(&context.jobs, fleets, &under_way);
    let keys = status::keys(&shown);
    let past = ledger.latest(&keys).await?;
    let past = past.into_iter().filter_map(|past| Some(RunStatus::of_past(key_of(&keys, past.key)?, past)));
    let leaves_reports = shown.iter().filter(|job| matches!(job.task.kind(), "audit" | "partition")).cloned().collect::<Vec<_>>();
    let mut reported = status::keys(&leaves_reports);
    reported.truncate(REPORTS_READ);
    let (gone, left_out) = gone_and_left_out(context, ledger).await?;
    Ok(LastRead {
        runs: running.into_iter().map(RunStatus::from).chain(past).collect(),
        known: known(site, ledger.last_successes(&keys).await?),
        failures: ledger.last_failures(FAILURES_READ).await?,
        reports: if reported.is_empty() { Vec::new() } else { ledger.last_reports(&reported, 1).await? },
        began: ledger.began_since(timeline::since(now), timeline::SLOT_SECONDS).await?,
        gone,
        left_out,
        untold: ledger.untold_messages(&context.config.notify.names().collect::<Vec<_>>()).await?,
        shown,
    })
}

/// Returns the jobs with the databases that the page shows each by itself: of jobs with patterns, those in trouble and those under way.
fn shown(jobs: &[Job], fleets: &[Fleet], under_way: &[Key]) -> Vec<Job> {
    let of_fleet = |fleet: &Fleet| {
        let running = under_way.iter().filter(|(job, _)| *job == fleet.job.name).map(|(_, database)| database);
        let databases: BTreeSet<&String> = fleet.trouble.iter().chain(running).collect();
        Job { databases: databases.into_iter().cloned().collect(), ..(*fleet.job).clone() }
    };
    jobs.iter().filter(|job| job.chosen.is_none()).cloned().chain(fleets.iter().map(of_fleet)).collect()
}

async fn gone_and_left_out(Context { config, jobs, .. }: &Context, ledger: &Ledger) -> Result<(Vec<Gone>, Vec<LeftOut>)> {
    Ok((fleet::gone(config, jobs, ledger).await?, fleet::left_out(config, jobs, ledger).await?))
}

/// The jobs with patterns as the stores say that they stand, as far as that was read, and the databases of servers that no job backs up.
fn judged(site: &Site, context: &Context, fleets: Vec<Fleet>) -> (Vec<FleetStatus>, Vec<String>) {
    let silent = site.scheduler.silent();
    let of = |fleet: Fleet| {
        let unknown = silent.iter().find(|silent| silent.had.is_none() && silent.may_have_some_of(&fleet.job));
        FleetStatus { unknown: unknown.map(NotAnswering::in_words), ..FleetStatus::from(fleet) }
    };
    let mut fleets: Vec<FleetStatus> = fleets.into_iter().map(of).collect();
    let Some(of_servers) = site.safe.of_servers(context) else { return (fleets, Vec::new()) };
    for fleet in &mut fleets {
        if let Some(judged) = of_servers.fleets.iter().find(|judged| judged.job == fleet.job && judged.is_backup) {
            fleet.judge(judged, of_servers.at);
        }
    }
    (fleets, of_servers.uncovered.clone())
}

/// A few jobs with their last runs, for a page about them, and why the ledger did not say them. Then they have none.
pub async fn some(site: &Site, jobs: &[Job]) -> (Vec<JobStatus>, Option<String>) {
    let (keys, now) = (status::keys(jobs), Utc::now());
    let read = async {
        let ledger = reachable(site)?;
        let running = ledger.runs_under_way().await?.into_iter().map(RunStatus::from);
        let past = ledger.past(&keys, status::HISTORY).await?;
        let past = past.into_iter().filter_map(|past| Some(RunStatus::of_past(key_of(&keys, past.key)?, past)));
        Ok::<_, anyhow::Error>((running.chain(past).collect(), known(site, ledger.last_successes(&keys).await?)))
    };
    let ((runs, known), error) = match read.await {
        Ok(read) => (read, None),
        Err(error) => ((Vec::new(), Known::default()), Some(format!("{error:#}"))),
    };
    (block_in_place(|| status::of_jobs(jobs, runs, &known, now)), error)
}

/// Why the ledger was not asked for a page, and since when it was not: the scheduler asks it all the time. `error` is that of the page's own question.
pub fn unasked(site: &Site, error: Option<&str>) -> Option<Unasked> {
    let away = site.scheduler.away().map(|Away { since, why }| Unasked { since: Some(since), why });
    away.or_else(|| Some(Unasked { since: Some(Utc::now()), why: error?.to_owned() }))
}

/// Otherwise, while the ledger is away, every page would wait for its timeout.
pub fn reachable(site: &Site) -> Result<&Ledger> {
    match site.scheduler.ledger_error() {
        Some(error) => anyhow::bail!("{error}"),
        None => Ok(site.scheduler.ledger()),
    }
}

/// Keys are numbered from 1.
fn key_of(keys: &[Key], number: i64) -> Option<&Key> {
    keys.get(usize::try_from(number).ok()?.checked_sub(1)?)
}

fn known(site: &Site, successes: HashMap<Key, DateTime<Utc>>) -> Known {
    Known { successes, late: site.scheduler.late().into_iter().collect(), next: site.scheduler.next_of_all() }
}

fn add_reports(jobs: &mut [JobStatus], reports: Vec<Row>) {
    let mut reports: HashMap<Key, Row> = reports.into_iter().map(|row| ((row.job.clone(), row.database.clone()), row)).collect();
    if reports.is_empty() {
        return;
    }
    for job in jobs {
        if let Some(row) = reports.remove(&(job.job.clone(), job.database.clone())) {
            add_report(job, &row);
        }
    }
}

/// Adds what only a whole report says: an audit's findings, how far partitions reach.
pub fn add_report(job: &mut JobStatus, row: &Row) {
    let Some(report) = &row.report else { return };
    job.audit = AuditStatus::of(&report.facts, row.finished_at.unwrap_or(row.started_at));
    job.runway = report.covered_until().map(status::runway_in_words);
}

async fn read_status(site: &Site) -> Status {
    let (context, fleets, now) = (site.scheduler.context(), site.scheduler.fleets(), Utc::now());
    let read = async {
        let ledger = reachable(site)?;
        let under_way = if fleets.is_empty() { Vec::new() } else { ledger.under_way(UNDER_WAY).await? };
        let shown = shown(&context.jobs, &fleets, &under_way);
        let keys = status::keys(&shown);
        let rows = ledger.last_runs(&keys, status::HISTORY).await?;
        let untold = ledger.untold_messages(&context.config.notify.names().collect::<Vec<_>>()).await?;
        let known = known(site, ledger.last_successes(&keys).await?);
        let of_servers = gone_and_left_out(&context, ledger).await?;
        Ok::<_, anyhow::Error>((shown, rows, known, of_servers, untold))
    };
    let ((shown, rows, known, (gone, left_out), untold), ledger_error) = match read.await {
        Ok(read) => (read, None),
        Err(error) => {
            let shown = shown(&context.jobs, &fleets, &[]);
            ((shown, Vec::new(), Known::default(), Default::default(), Vec::new()), Some(format!("{error:#}")))
        }
    };
    block_in_place(|| {
        let jobs = status::of_jobs(&shown, rows.into_iter().map(RunStatus::from).collect(), &known, now);
        let (failures, (fleets, uncovered)) = (status::failures(&jobs), judged(site, &context, fleets));
        Status { jobs, failures, fleets, gone, left_out, uncovered, untold, ..whole(site, ledger_error, now) }
    })
}

/// What is known besides the jobs.
fn whole(site: &Site, ledger_error: Option<String>, now: DateTime<Utc>) -> Status {
    let stands = site.scheduler.stands_of_broken();
    Status {
        now,
        version: env!("CARGO_PKG_VERSION"),
        host: ledger::host(),
        started_at: site.started_at,
        ledger_error,
        configuration_error: site.configuration_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        broken: site.scheduler.broken().iter().map(|broken| BrokenStatus::of(broken, &stands, now)).collect(),
        draining: site.stop.is_cancelled(),
        jobs: Vec::new(),
        fleets: Vec::new(),
        gone: Vec::new(),
        left_out: Vec::new(),
        uncovered: Vec::new(),
        silent: site.scheduler.silent().iter().map(NotAnswering::in_words).collect(),
        is_asking: false,
        untold: Vec::new(),
        failures: Vec::new(),
    }
}

/// Gives the rows of a choice their last runs. Without a ledger they stay as they are.
pub async fn with_history(site: &Site, choice: &mut Choice) {
    let keys = choice.keys();
    let Ok(ledger) = reachable(site) else { return };
    if keys.is_empty() {
        return;
    }
    match ledger.past(&keys, status::HISTORY).await {
        Ok(past) => block_in_place(|| {
            choice.rows.iter_mut().for_each(|job| job.history.clear());
            // The newest come first, and a history begins with the oldest.
            for past in past.into_iter().rev() {
                let number = usize::try_from(past.key).unwrap_or_default();
                if let (Some(key), Some(job)) = (key_of(&keys, past.key), choice.rows.get_mut(number.wrapping_sub(1))) {
                    job.history.push(RunStatus::of_past(key, past));
                }
            }
        }),
        Err(error) => tracing::debug!("the page shows the last run of each job only: {error:#}"),
    }
}

/// Whether each database is safe, as far as that was read; what is old is read anew, behind the page.
pub fn safety(site: &Site, jobs: &[JobStatus], away: Option<&Unasked>) -> Vec<DatabaseStatus> {
    let mut backed_up: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
    let mut late: HashMap<&str, Vec<String>> = HashMap::new();
    for job in jobs.iter().filter(|job| job.task == "backup") {
        if let Some(at) = job.last_success_at {
            let newest = backed_up.entry(job.database.clone()).or_insert(at);
            *newest = at.max(*newest);
        }
        if job.late && job.enabled {
            late.entry(&job.database).or_default().push(job.job.clone());
        }
    }
    let has_succeeded = |name: &str, database: &str| {
        jobs.iter().any(|job| job.job == name && job.database == database && job.last_success_at.is_some())
    };
    let mut databases = site.safe.look(&site.scheduler.context(), &backed_up, has_succeeded, site.scheduler.broken(), away);
    for database in &mut databases {
        database.late.extend(late.remove(database.name.as_str()).unwrap_or_default());
        database.late.sort_unstable();
        database.late.dedup();
    }
    databases
}
