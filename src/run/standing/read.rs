//! Asks stores, databases and the ledger, each for a bounded time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use super::fleets::{self, Fleet};
use super::say::{Backup, Configured, Failed, Late, Lost, OfDatabase, Standing, Unread};
use crate::base::fault::{Fault, Kind};
use crate::base::units::Span;
use crate::config::Config;
use crate::ledger::report::{self, Report};
use crate::ledger::{Gone, Key, Ledger, Row};
use crate::pg::failure;
use crate::run::covered::{is_backed_up_by, is_made_from_backups, is_only_scratch};
use crate::run::fleet;
use crate::run::job::{Folder, Job};
use crate::run::scheduler::planner;
use crate::store::Store;
use crate::task::backup::Backup as BackupTask;
use crate::task::backup::copies::several::ensure_answers;
use crate::task::backup::existing_database::objects_in;
use crate::task::backup::gate::{Answer, Looked, Measured, NotAsked, Question, Seen};
use crate::task::backup::manifest::Filters;
use crate::task::backup::whose::{Theirs, Whose};

/// What a person waits for one source.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many databases are asked at once.
const AT_ONCE: usize = 16;

/// Any set, however old: 10,000 years.
const EVER: Span = Span(Duration::from_secs(10_000 * 365 * 86_400));

pub async fn all(file: String, config: &Config, folder: &Folder, now: DateTime<Utc>) -> Standing {
    let jobs = &folder.jobs;
    let ((databases, unread), history) =
        tokio::join!(of_databases(config, jobs), in_time("the ledger", history(config, jobs, now)));
    let mut standing = Standing {
        file,
        configured: Configured::Yes { stores: config.stores.len(), jobs: jobs.len() },
        broken: folder.broken.iter().map(|broken| broken.job.clone()).collect(),
        databases,
        servers: config.servers.len(),
        has_ledger: config.ledger.is_some(),
        unread,
        ..Standing::default()
    };
    let mut known_since = HashMap::new();
    match history {
        Ok(Some(history)) => {
            standing.late = late(config, jobs, &history, now);
            for database in &mut standing.databases {
                lose(database, jobs, &history.proved);
            }
            standing.failed = failed(history.rows);
            standing.is_scheduled = !history.known_since.is_empty();
            standing.fleets = history.fleets;
            standing.gone = history.gone;
            known_since = history.known_since;
        }
        Ok(None) => {}
        Err(error) => standing.unread.push(Unread { what: "ledger".to_owned(), why: failure::in_a_line(&error) }),
    }
    let by_sets = late_by_sets(jobs, &standing.databases, &known_since, now);
    standing.late.extend(by_sets);
    standing
}

/// Looks for the backups of all databases that need some, and names the stores that were not read for one of them.
async fn of_databases(config: &Config, jobs: &[Job]) -> (Vec<OfDatabase>, Vec<Unread>) {
    let stores = opened(config).await;
    let asking =
        futures_util::stream::iter(to_back_up(config, jobs).into_iter().map(|name| of_database(config, jobs, &stores, name)));
    let asked: Vec<_> = asking.buffered(AT_ONCE).collect().await;
    let mut unread = BTreeMap::new();
    for (name, store) in &stores {
        if let Err(why) = store {
            unread.insert(name.clone(), format!("store `{name}` cannot be read: {why}"));
        }
    }
    let mut databases = Vec::new();
    for (database, not_read) in asked.into_iter().filter(|(database, _)| !database.needs_none) {
        databases.push(database);
        for NotAsked { store, reason } in not_read {
            unread.entry(store).or_insert(reason);
        }
    }
    (databases, unread.into_iter().map(|(store, why)| Unread { what: format!("store {store}"), why }).collect())
}

/// The databases that should have a backup, and are looked at each by itself.
pub fn to_back_up<'a>(config: &'a Config, jobs: &'a [Job]) -> BTreeSet<&'a String> {
    let named = jobs.iter().flat_map(|job| one_by_one(config, job)).chain(config.databases.keys());
    named.filter(|name| !is_made_from_backups(jobs, name)).collect()
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

/// Opens all stores, and asks each whether it answers. One that does not has the reason in its place, and is not waited for again.
pub async fn opened(config: &Config) -> Vec<(String, Result<Store, String>)> {
    let opening = config.stores.iter().map(|(name, configured)| async move {
        let asking = async {
            let store = Store::open(configured).await?;
            ensure_answers(&store).await?;
            Ok(store)
        };
        (name.clone(), in_time("it", asking).await.map_err(|error| failure::in_a_line(&error)))
    });
    join_all(opening).await
}

/// Looks for the backup of a database in the stores, and says what else is known of it. With the stores that were not read.
pub async fn of_database(
    config: &Config,
    jobs: &[Job],
    stores: &[(String, Result<Store, String>)],
    name: &str,
) -> (OfDatabase, Vec<NotAsked>) {
    let of_it = || jobs.iter().filter(|job| is_backed_up_by(job, name));
    let found = of_it().find(|job| idle(job).is_none()).or_else(|| of_it().next());
    let (job, idle) = (found.map(|job| job.name.clone()), found.and_then(idle));
    let without = OfDatabase {
        name: name.to_owned(),
        job,
        idle,
        backup: Ok(None),
        lost: None,
        unsure: None,
        unread: Vec::new(),
        in_the_clear: Vec::new(),
        needs_none: is_only_scratch(jobs, name) && in_time("it", is_empty(config, name)).await.unwrap_or_default(),
    };
    if without.needs_none {
        return (without, Vec::new());
    }
    if stores.is_empty() {
        return (without, Vec::new());
    }
    let (answer, unasked, by_name) = newest(config, jobs, stores, name).await;
    // A store that no backup job of it names matters only where it has none.
    let of_its_jobs: BTreeSet<String> = of_it().filter_map(stores_of).flatten().collect();
    let matters = |unread: &&NotAsked| of_its_jobs.is_empty() || of_its_jobs.contains(&unread.store);
    let unread: Vec<&NotAsked> = answer.unread.iter().filter(matters).collect();
    let newest = answer.newest.map(|newest| backup_of(newest, answer.stores_of_newest, answer.measured));
    // A copy of the set that counts may be lost, too: that set is there.
    let is_other = |set: &str| newest.as_ref().is_none_or(|newest| newest.set != set);
    let lost = answer.passed_over.into_iter().find(|seen| seen.is_lost() && is_other(&seen.set)).map(lost_of);
    let database = OfDatabase {
        lost,
        unread: unread.iter().map(|unread| unread.store.clone()).collect(),
        in_the_clear: answer.in_the_clear,
        unsure: newest.as_ref().and(unasked.clone().or(by_name)),
        backup: match (newest, unasked, unread.first()) {
            (Some(newest), ..) => Ok(Some(newest)),
            (None, Some(why), _) => Err(why),
            (None, None, Some(unread)) => Err(unread.reason.clone()),
            (None, None, None) => Ok(None),
        },
        ..without
    };
    (database, answer.unread)
}

/// The newest set that would count before a deployment; why the database could not be asked whose it is; and why it is the database's by its name alone,
/// where that was: another cluster may have a database of that name.
async fn newest(
    config: &Config,
    jobs: &[Job],
    stores: &[(String, Result<Store, String>)],
    database: &str,
) -> (Answer, Option<String>, Option<String>) {
    let question = Question {
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
    let host_clock = Utc::now();
    // Without the server nobody knows whose sets these are, and this is when one wants to know that there is one.
    let (theirs, unasked) = match in_time("the database", Theirs::of(config, database, &question.whose)).await {
        Ok(theirs) => (theirs, None),
        Err(error) => (Theirs::Unasked, Some(failure::in_a_line(&error))),
    };
    let again = |(name, store): &(String, Result<Store, String>)| {
        let store = store.clone().map_err(|why| Fault::new(Kind::Unreachable, why).into());
        (name.clone(), store)
    };
    let stores = stores.iter().map(again).collect();
    let mut looked = Looked::at(theirs, host_clock, stores, &question, Some(PATIENCE)).await;
    let answer = looked.as_read(&question);
    if answer.newest.is_some() || unasked.is_some() {
        return (answer, unasked, None);
    }
    looked.theirs.take_names();
    (looked.as_read(&question), None, Some("its server or this one could not be told (pgtend grants)".to_owned()))
}

/// The stores of a backup job.
fn stores_of(job: &Job) -> Option<Vec<String>> {
    Some(job.task.as_a::<BackupTask>()?.stores().map(|kept| kept.store.clone()).collect())
}

/// Returns whether a database has nothing of its own.
async fn is_empty(config: &Config, name: &str) -> Result<bool> {
    let database = config.database(name).context("no such database")?;
    Ok(objects_in(&database.settings()?).await? == 0)
}

fn backup_of(seen: Seen, stores: Vec<String>, measured: Option<Measured>) -> Backup {
    let Seen { set, store, began_at, restored_at, refused_by, .. } = seen;
    Backup { set, store, began_at, restored_at, refused_by, stores, measured }
}

fn lost_of(seen: Seen) -> Lost {
    Lost { set: seen.set, store: Some(seen.store), why: seen.why_not.unwrap_or_default(), refused_by: seen.refused_by }
}

/// A set that a run proved, and that no store has any more, or not as one that counts: the store was set back to a snapshot, a rule of the bucket deleted
/// it, or a part of it is gone. Rules of jobs never delete the newest one that is proved.
pub fn lose(database: &mut OfDatabase, jobs: &[Job], proved: &Proofs) {
    // A store that was not read may have it.
    if database.lost.is_some() || database.needs_none || database.backup.is_err() || !database.unread.is_empty() {
        return;
    }
    let of_it = jobs.iter().filter(|job| is_backed_up_by(job, &database.name));
    let reports = of_it.filter_map(|job| Some(&proved.get(&(job.name.clone(), database.name.clone()))?.1));
    let known = reports.filter_map(|report| Some((report.proved_set_began_at()?, report.facts.get("set")?.as_str()?)));
    let Some((began_at, set)) = known.max() else { return };
    let newest = database.backup.as_ref().ok().and_then(Option::as_ref);
    if newest.is_none_or(|newest| newest.began_at < began_at) {
        let why = "the ledger has it as proved, and no store has it as a set that counts".to_owned();
        database.lost = Some(Lost { set: set.to_owned(), store: None, why, refused_by: None });
    }
}

/// The report of the newest proof of each backup job.
pub type Proofs = HashMap<Key, (DateTime<Utc>, Report)>;

pub async fn proofs(ledger: &Ledger, keys: &[Key], now: DateTime<Utc>) -> Result<Proofs> {
    // A host's clock may be behind the server's.
    ledger.last_with_fact(keys, report::PROVED, now + TimeDelta::days(1)).await
}

/// What the ledger says of the jobs.
struct History {
    rows: Vec<Row>,
    proved: Proofs,
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
    let mut counted = fleet::remembered(&ledger).await.given_to(jobs, config);
    counted.retain(|job| job.chosen.is_some());
    for job in &mut counted {
        job.databases.retain(|name| !config.databases.contains_key(name));
    }
    // One that has entries alone is shown with them.
    counted.retain(|job| {
        !job.databases.is_empty()
            || !jobs.iter().any(|other| other.name == job.name && one_by_one(config, other).next().is_some())
    });
    let gone = fleet::gone(config, jobs, &ledger).await?;
    Ok(Some(History {
        fleets: fleets::count(Some(&ledger), &counted, now).await?,
        gone,
        rows: ledger.last_runs(&keys, 1).await?,
        proved: proofs(&ledger, &keys, now).await?,
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
    for OfDatabase { name, backup, unread, .. } in databases {
        let Ok(Some(Backup { began_at, .. })) = backup else { continue };
        // A newer set may be there.
        if !unread.is_empty() {
            continue;
        }
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
