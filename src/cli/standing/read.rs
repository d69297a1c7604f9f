//! Asks stores, databases and the ledger, each for a bounded time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use super::say::{Backup, Configured, Failed, Late, Lost, OfDatabase, Standing};
use crate::base::fault::{Fault, Kind};
use crate::base::units::Span;
use crate::cli::covered::{is_backed_up_by, is_made_from_backups};
use crate::cli::filter::Filter;
use crate::cli::fleets::{self, Fleet};
use crate::config::Config;
use crate::ledger::{Gone, Key, Ledger, Row};
use crate::pg::failure;
use crate::run::fleet;
use crate::run::job::{Folder, Job};
use crate::run::scheduler::planner;
use crate::store::{Store, key};
use crate::task::backup::Backup as BackupTask;
use crate::task::backup::gate::{self, Question};
use crate::task::backup::manifest::Filters;
use crate::task::backup::set;
use crate::task::backup::verdict::Bytes;
use crate::task::backup::whose::Whose;

/// What a person waits for one source.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many databases are asked at once.
const AT_ONCE: usize = 16;

/// Any set, however old: 10,000 years.
const EVER: Span = Span(Duration::from_secs(10_000 * 365 * 86_400));

pub async fn all(file: String, config: &Config, folder: &Folder, now: DateTime<Utc>) -> Standing {
    let jobs = &folder.jobs;
    let named = jobs.iter().flat_map(|job| one_by_one(config, job)).chain(config.databases.keys());
    let to_back_up: BTreeSet<&String> = named.filter(|name| !is_made_from_backups(jobs, name)).collect();
    let databases = futures_util::stream::iter(to_back_up.into_iter().map(|name| of_database(config, jobs, name)));
    let databases = databases.buffered(AT_ONCE).collect::<Vec<_>>();
    let (databases, history) = tokio::join!(databases, in_time("the ledger", history(config, jobs, now)));
    let mut standing = Standing {
        file,
        configured: Configured::Yes { stores: config.stores.len(), jobs: jobs.len() },
        broken: folder.broken.iter().map(|broken| broken.job.clone()).collect(),
        databases,
        servers: config.servers.len(),
        has_ledger: config.ledger.is_some(),
        ..Standing::default()
    };
    let mut known_since = HashMap::new();
    match history {
        Ok(Some(history)) => {
            standing.late = late(config, jobs, &history, now);
            standing.failed = failed(history.rows);
            standing.is_scheduled = !history.known_since.is_empty();
            standing.fleets = history.fleets;
            standing.gone = history.gone;
            known_since = history.known_since;
        }
        Ok(None) => {}
        Err(error) => standing.unread.push(failure::in_a_line(&error)),
    }
    let by_sets = late_by_sets(jobs, &standing.databases, &known_since, now);
    standing.late.extend(by_sets);
    standing
}

/// Returns the databases of a job that are looked at each by itself; of those that patterns found on servers, it is counted how they stand.
fn one_by_one<'j>(config: &'j Config, job: &'j Job) -> impl Iterator<Item = &'j String> {
    job.databases.iter().filter(|name| job.chosen.is_none() || config.databases.contains_key(*name))
}

/// Says why a job does not run by itself.
fn idle(job: &Job) -> Option<&'static str> {
    match (job.enabled, &job.schedule) {
        (false, _) => Some("is disabled"),
        (true, None) => Some("has no schedule"),
        (true, Some(_)) => None,
    }
}

async fn in_time<T>(what: &str, asking: impl Future<Output = Result<T>>) -> Result<T> {
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    answered.unwrap_or_else(|_| {
        Err(Fault::new(Kind::Unreachable, format!("{what} did not answer in {} s", PATIENCE.as_secs())).into())
    })
}

async fn of_database(config: &Config, jobs: &[Job], name: &str) -> OfDatabase {
    let of_it = || jobs.iter().filter(|job| is_backed_up_by(job, name));
    let found = of_it().find(|job| idle(job).is_none()).or_else(|| of_it().next());
    let (job, idle) = (found.map(|job| job.name.clone()), found.and_then(idle));
    if config.stores.is_empty() {
        return OfDatabase { name: name.to_owned(), job, idle, backup: Ok(None), lost: None, unsure: None };
    }
    let mut lost = None;
    let (backup, unsure) = match in_time("the database or a store", newest(config, jobs, name)).await {
        Ok((backup, newer, by_name)) => {
            lost = newer;
            (Ok(backup), by_name)
        }
        // Without the server nobody knows whose sets these are, and this is when one wants to know that there is one.
        Err(error) => {
            let why = failure::in_a_line(&error);
            match in_time("a store", newest_by_name(config, name)).await {
                Ok(Some(backup)) => (Ok(Some(backup)), Some(why)),
                Ok(None) | Err(_) => (Err(why), None),
            }
        }
    };
    OfDatabase { name: name.to_owned(), job, idle, backup, lost, unsure }
}

/// The newest set that would count before a deployment, a newer one that is lost, and why that set is the database's by its name alone: another cluster may
/// have a database of that name.
async fn newest(config: &Config, jobs: &[Job], database: &str) -> Result<(Option<Backup>, Option<Lost>, Option<String>)> {
    let stores_of = |job: &Job| Some(job.task.as_a::<BackupTask>()?.stores().map(|kept| kept.store.clone()).collect());
    let mut question = Question {
        database,
        job: None,
        store: None,
        stores_of: jobs.iter().filter_map(|job| Some((job.name.clone(), stores_of(job)?))).collect::<BTreeMap<_, _>>(),
        filters: Filters::default(),
        whose: Whose::Own { by_name: false },
        within: EVER,
        restored: false,
        without_vector_indexes: Vec::new(),
    };
    let mut answer = gate::ask(config, Filter::everything().opened(config).await?, &question).await?;
    let mut unsure = None;
    if answer.newest.is_none() {
        question.whose = Whose::Own { by_name: true };
        answer = gate::ask(config, Filter::everything().opened(config).await?, &question).await?;
        unsure = answer.newest.as_ref().map(|_| "its server or this one could not be told (pgtend grants)".to_owned());
    }
    let newest = answer.newest.map(|newest| Backup {
        set: newest.set,
        store: newest.store,
        began_at: newest.began_at,
        restored_at: newest.restored_at,
        refused_by: newest.refused_by,
    });
    // A copy of the set that counts may be lost, too: that set is there.
    let is_other = |set: &str| newest.as_ref().is_none_or(|newest| newest.set != set);
    let lost = answer.passed_over.into_iter().find(|seen| seen.is_lost() && is_other(&seen.set));
    let lost = lost.map(|seen| {
        let (why, refused_by) = (seen.why_not.unwrap_or_default(), seen.refused_by);
        Lost { set: seen.set, store: seen.store, why, refused_by }
    });
    Ok((newest, lost, unsure))
}

/// The newest intact set of that name in any store that answers.
async fn newest_by_name(config: &Config, database: &str) -> Result<Option<Backup>> {
    let now = Utc::now();
    let mut newest: Option<Backup> = None;
    let mut failed = None;
    for (name, configured) in &config.stores {
        let listing = async { set::list(&Store::open(configured).await?, &format!("{}/", key::encode(database))).await };
        match listing.await.with_context(|| format!("store `{name}`")) {
            Ok(listing) => {
                let counts = listing.sets.into_iter().filter(|set| {
                    set.verification.verdict() == Bytes::Intact && set.manifest.filters.are_none() && !set.is_from_the_future(now)
                });
                let found = counts.map(|set| Backup {
                    set: set.name.to_string(),
                    store: name.clone(),
                    began_at: set.manifest.started_at,
                    restored_at: set.verification.restored_at(),
                    refused_by: gate::refused_last_by(&set),
                });
                newest = newest.into_iter().chain(found).max_by_key(|set| set.began_at);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match (newest, failed) {
        (None, Some(error)) => Err(error),
        (newest, _) => Ok(newest),
    }
}

/// What the ledger says of the jobs.
struct History {
    rows: Vec<Row>,
    successes: HashMap<Key, DateTime<Utc>>,
    known_since: HashMap<Key, DateTime<Utc>>,
    fleets: Vec<Fleet>,
    gone: Vec<Gone>,
}

async fn history(config: &Config, jobs: &[Job], now: DateTime<Utc>) -> Result<Option<History>> {
    let Some(ledger) = Ledger::to_read(config).await? else { return Ok(None) };
    let keys: Vec<Key> =
        jobs.iter().flat_map(|job| one_by_one(config, job).map(|database| (job.name.clone(), database.clone()))).collect();
    // Servers are not asked: what they had when a run last asked them is enough for an overview.
    let mut counted = fleet::remembered(config, &ledger).await.given_to(jobs, config);
    counted.retain(|job| job.chosen.is_some());
    for job in &mut counted {
        job.databases.retain(|name| !config.databases.contains_key(name));
    }
    // One that has entries alone is shown with them.
    counted.retain(|job| {
        !job.databases.is_empty()
            || !jobs.iter().any(|other| other.name == job.name && one_by_one(config, other).next().is_some())
    });
    let gone = fleet::gone(config, &ledger).await?;
    Ok(Some(History {
        fleets: fleets::count(Some(&ledger), &counted, now).await?,
        gone,
        rows: ledger.last_runs(&keys, 1).await?,
        successes: ledger.last_successes(&keys).await?,
        known_since: ledger.known_since().await?,
    }))
}

fn late(config: &Config, jobs: &[Job], history: &History, now: DateTime<Utc>) -> Vec<Late> {
    let pairs = jobs.iter().flat_map(|job| one_by_one(config, job).map(move |database| (job, database)));
    let late = pairs.filter_map(|(job, database)| {
        let key = (job.name.clone(), database.clone());
        let success = history.successes.get(&key).copied();
        let since = planner::late_since(job, planner::jitter(job, database), *history.known_since.get(&key)?, success, now)?;
        Some(Late { job: job.name.clone(), database: database.clone(), tick: since, last_success_at: success, is_by_sets: false })
    });
    late.collect()
}

/// Backup jobs of which the ledger knows no schedule, or where there is no ledger: the newest set is older than the last tick whose grace is over.
fn late_by_sets(
    jobs: &[Job],
    databases: &[OfDatabase],
    known_since: &HashMap<Key, DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Vec<Late> {
    let mut late = Vec::new();
    for OfDatabase { name, backup, .. } in databases {
        let Ok(Some(Backup { began_at, .. })) = backup else { continue };
        let is_unknown = |job: &&Job| !known_since.contains_key(&(job.name.clone(), name.clone()));
        for job in jobs.iter().filter(|job| is_backed_up_by(job, name)).filter(is_unknown) {
            let jitter = planner::jitter(job, name);
            if let Some(tick) = planner::late_since(job, jitter, DateTime::<Utc>::MIN_UTC, Some(*began_at), now) {
                let (job, database) = (job.name.clone(), name.clone());
                late.push(Late { job, database, tick, last_success_at: Some(*began_at), is_by_sets: true });
            }
        }
    }
    late
}

fn failed(rows: Vec<Row>) -> Vec<Failed> {
    let needs_attention = |row: &Row| row.outcome.0.is_some_and(|outcome| outcome.needs_attention());
    rows.into_iter()
        .filter(needs_attention)
        .map(|row| Failed {
            run: row.id,
            at: row.finished_at.unwrap_or(row.started_at),
            outcome: row.outcome.0.map_or_else(String::new, |outcome| outcome.in_words()),
            error: row.error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default().to_owned(),
            job: row.job,
            database: row.database,
        })
        .collect()
}
