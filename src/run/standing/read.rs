//! Asks stores, databases and the ledger, each for a bounded time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use super::database::{OfDatabase, Unasked};
use super::found::{self, OfServers, as_written};
use super::history::{History, one_by_one};
use super::late::{self, Known, Late};
use super::left;
use super::say::{Configured, Failed, Standing, Unread};
use super::stores::{Opened, in_time, lose, of_database, opened, skip};
use crate::config::Config;
use crate::ledger::FailedLast;
use crate::pg::failure;
use crate::run::covered::is_made_from_backups;
use crate::run::job::{Folder, Job};
use crate::run::scheduler::planner::Ticks;
use crate::run::scheduler::{How, Stands};
use crate::task::backup::gate::NotAsked;

/// So many databases are asked at once.
const AT_ONCE: usize = 16;

pub async fn all(file: String, config: &Config, folder: &Folder, now: DateTime<Utc>) -> Standing {
    let jobs = &folder.jobs.iter().map(|job| as_written(config, job)).collect::<Vec<_>>();
    let (stores, answers, history) =
        tokio::join!(opened(config), found::asked(config), in_time("the ledger", History::read(config, folder, jobs, now)));
    let mut standing = Standing {
        file,
        configured: Configured::Yes { stores: config.stores.len(), jobs: jobs.len() },
        broken: folder.broken.iter().map(|broken| broken.job.clone()).collect(),
        servers: config.servers.len(),
        has_ledger: config.ledger.is_some(),
        ..Standing::default()
    };
    let mut unasked = None;
    let History { known, failed, stands, proved, found, left_out, gone, untold, ledger } = history.unwrap_or_else(|error| {
        let why = failure::in_a_line(&error);
        unasked = Some(Unasked { since: None, why: why.clone() });
        standing.unread.push(Unread { what: "ledger".to_owned(), why });
        History::default()
    });
    let asking = found::of_servers((config, jobs), &stores, answers, (found, left_out), (ledger.as_ref(), now), found::PATIENCE);
    let ((databases, mut unread), of_servers) = tokio::join!(of_databases(config, jobs, &stores, &known), asking);
    standing.databases = databases;
    for database in &mut standing.databases {
        lose(database, jobs, &proved);
        skip(database, &folder.broken);
        database.unasked.clone_from(&unasked);
    }
    standing.late = late(config, jobs, &standing.databases, &known, now);
    add_broken(&mut standing, stands, now);
    standing.untold = untold;
    standing.failed = failed.into_iter().map(failed_last).collect();
    standing.is_scheduled = !known.since.is_empty();
    let OfServers { at: _, databases: _, fleets, uncovered, excluded, by_schemas, left_out, unread: silent, unread_stores } =
        of_servers;
    (standing.fleets, standing.uncovered, standing.left_out, standing.gone) = (fleets, uncovered, left_out, gone);
    standing.excluded = excluded;
    if unasked.is_some() {
        // Of jobs that back up nothing, only the ledger knows how they stand.
        standing.fleets.retain(|fleet| fleet.is_backup);
    }
    standing.left = left::of(config, jobs, &stores, &folder.broken, &standing.uncovered).await;
    standing.databases.iter_mut().for_each(|database| database.by_schemas = by_schemas.contains(&database.name));
    standing.by_schemas = by_schemas;
    standing.unread.extend(silent);
    for (store, why) in unread_stores {
        unread.entry(store).or_insert(why);
    }
    standing.unread.extend(unread.into_iter().map(|(store, why)| Unread { what: format!("store {store}"), why }));
    standing
}

/// Looks for the backups of all databases that need some, and names the stores that were not read for one of them, each with the reason.
async fn of_databases(
    config: &Config,
    jobs: &[Job],
    stores: &Opened,
    known: &Known,
) -> (Vec<OfDatabase>, BTreeMap<String, String>) {
    let has_succeeded = |job: &str, database: &str| known.successes.contains_key(&(job.to_owned(), database.to_owned()));
    let names = to_back_up(config, jobs, has_succeeded);
    let asking = futures_util::stream::iter(names.into_iter().map(|name| of_database(config, jobs, stores, name)));
    let asked: Vec<_> = asking.buffered(AT_ONCE).collect().await;
    let mut unread = BTreeMap::new();
    for (name, store) in stores {
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
    (databases, unread)
}

/// The databases that should have a backup, and are looked at each by itself. `has_succeeded`: a job on a database, ever.
pub fn to_back_up<'a>(config: &'a Config, jobs: &'a [Job], has_succeeded: impl Fn(&str, &str) -> bool) -> BTreeSet<&'a String> {
    // Each once: 200 jobs name the same 50 databases.
    let mut named: BTreeSet<&String> =
        jobs.iter().flat_map(|job| one_by_one(config, job)).chain(config.databases.keys()).collect();
    named.retain(|name| !is_made_from_backups(jobs, name, |job| has_succeeded(job, name)));
    named
}

fn late(config: &Config, jobs: &[Job], databases: &[OfDatabase], known: &Known, now: DateTime<Utc>) -> Vec<Late> {
    let mut late = Vec::new();
    let by_name: HashMap<&str, &OfDatabase> = databases.iter().map(|of| (of.name.as_str(), of)).collect();
    for job in jobs {
        let mut ticks = Ticks::of(job);
        for database in one_by_one(config, job) {
            let of = by_name.get(database.as_str()).copied();
            let last_success_at = late::last_success(&(job.name.clone(), database.clone()), of, known, now);
            if let Some(tick) = late::by_ledger(&mut ticks, job, (database, of), known, now) {
                let (job, database) = (job.name.clone(), database.clone());
                late.push(Late { job, database, tick, last_success_at, is_by_sets: false, is_broken: false });
            }
        }
    }
    let by_sets = late::all_by_sets(jobs, databases, known, now);
    let is_said = |by_set: &Late| late.iter().any(|late| late.job == by_set.job && late.database == by_set.database);
    let by_sets: Vec<Late> = by_sets.into_iter().filter(|by_set| !is_said(by_set)).collect();
    late.extend(by_sets);
    late
}

/// How the jobs stand whose files have mistakes.
fn add_broken(standing: &mut Standing, stands: Vec<Stands>, now: DateTime<Utc>) {
    for stands in stands {
        match (stands.how, stands.in_words(now)) {
            (How::Late { tick }, _) => standing.late.push(Late {
                job: stands.job,
                database: stands.database,
                tick,
                last_success_at: stands.last_success_at,
                is_by_sets: false,
                is_broken: true,
            }),
            (_, Some(said)) => standing.stands.push((stands.job, said)),
            (_, None) => {}
        }
    }
}

fn failed_last(run: FailedLast) -> Failed {
    Failed {
        run: run.id,
        at: run.at,
        outcome: run.outcome.0.map_or_else(String::new, |outcome| outcome.in_words()),
        error: run.error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default().to_owned(),
        job: run.job,
        database: run.database,
    }
}
