//! Judges the databases that servers have, and schemas that are tenants, by the sets in the stores of their jobs. A store is asked for many of them at once, and of each only the
//! newest sets are read: the others where these do not count.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};

use super::database::OfDatabase;
use super::servers::Servers;
use super::stores::{self, Opened, Sought, in_time};
use crate::config::{Config, servers};
use crate::run::covered::is_backed_up_by;
use crate::run::job::Job;
use crate::store::{Listed, key};
use crate::task::backup::gate::NotAsked;
use crate::task::backup::manifest::Filters;

/// So many databases are judged at once.
const AT_ONCE: usize = 32;

/// So many are listed together. With two sets each, that is a page of a bucket's list.
const LISTED_TOGETHER: usize = 64;

/// So many such listings go on at once.
const LISTINGS_AT_ONCE: usize = 4;

/// So many databases without a backup job are asked whether they have anything of their own.
const ASKED_FOR_TABLES: usize = 64;

/// The database that every server has, and that may be there to connect to alone.
const CONNECTS_TO: &str = "postgres";

/// What stores, by their names, list in the folder of a database.
type ByStore = HashMap<String, Listed>;

/// The databases that were found, judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Those that a job backs up, and of which all could be asked in time.
    pub databases: HashMap<String, OfDatabase>,
    pub uncovered: Vec<String>,
    /// How many the configuration leaves out, but for a `postgres` that has nothing of its own.
    pub excluded: usize,
    pub unread: BTreeMap<String, String>,
}

/// Judges all databases that count, but those that jobs name: they are judged each by itself; and all schemas that have jobs. `jobs`: with what was found.
/// `patience`: so long stores are asked.
pub(super) async fn judge(config: &Config, jobs: &[Job], stores: &Opened, servers: &Servers, patience: Duration) -> Judged {
    let entries = servers.found.with_entries(config).into_iter().map(|(name, _)| name);
    let named = jobs.iter().filter(|job| job.chosen.is_none()).flat_map(|job| job.databases.iter().cloned());
    let others: HashSet<String> = entries.chain(named).collect();
    let names = servers.found.databases(config).filter(|name| !others.contains(name));
    let is_covered = |name: &String| jobs.iter().any(|job| is_backed_up_by(job, name));
    let (covered, without): (Vec<String>, Vec<String>) = names.partition(is_covered);
    let schemas = jobs.iter().filter(|job| job.has_schemas()).flat_map(|job| &job.databases).filter(|place| is_covered(place));
    let covered: BTreeSet<String> = covered.into_iter().chain(schemas.cloned()).collect();
    let covered: Vec<String> = covered.into_iter().collect();
    let (uncovered, (hidden, excluded)) = tokio::join!(uncovered(config, without), excluded(config, jobs, &servers.excluded));
    let uncovered = uncovered.into_iter().chain(hidden).collect();
    let mut judged = Judged { uncovered, excluded, ..Judged::default() };
    let chunks: Vec<Vec<String>> = covered.chunks(LISTED_TOGETHER).map(<[String]>::to_vec).collect();
    let listing = chunks.into_iter().map(|names| listed_together(jobs, stores, names, patience / 2));
    let listed = stream::iter(listing).buffer_unordered(LISTINGS_AT_ONCE).flat_map(stream::iter);
    let judging = listed.map(|(name, listed)| of_found((config, jobs), stores, servers, name, listed));
    let in_time = judging.buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(patience));
    let mut in_time = std::pin::pin!(in_time);
    while let Some((database, not_read)) = in_time.next().await {
        for NotAsked { store, reason } in not_read {
            judged.unread.entry(store).or_insert(reason);
        }
        judged.databases.insert(database.name.clone(), database);
    }
    judged
}

/// Lists the folders of some databases in all stores of their jobs. What a store could not list so, or not in time, is not there, and is listed one by one.
async fn listed_together(jobs: &[Job], stores: &Opened, names: Vec<String>, patience: Duration) -> Vec<(String, ByStore)> {
    let wanted: BTreeSet<String> = names.iter().flat_map(|name| stores::stores_of_its_jobs(jobs, name)).collect();
    let folders: BTreeSet<String> = names.iter().map(|name| key::folder_of(name)).collect();
    let folders = &folders;
    let asking = stores.iter().filter(|(name, _)| wanted.contains(name)).filter_map(|(name, store)| {
        let store = store.as_ref().ok()?;
        Some(async move {
            let listed = tokio::time::timeout(patience, store.list_many(folders)).await;
            (name, listed.unwrap_or_default())
        })
    });
    let mut listed = join_all(asking).await;
    let of_database = |name: String| {
        let folder = key::folder_of(&name);
        let by_store = listed.iter_mut().filter_map(|(store, listed)| Some(((*store).clone(), listed.remove(&folder)?)));
        let by_store = by_store.collect();
        (name, by_store)
    };
    names.into_iter().map(of_database).collect()
}

async fn of_found(
    (config, jobs): (&Config, &[Job]),
    stores: &Opened,
    servers: &Servers,
    name: String,
    listed: ByStore,
) -> (OfDatabase, Vec<NotAsked>) {
    let of_its_jobs = stores::stores_of_its_jobs(jobs, &name);
    let of_it: Opened = stores.iter().filter(|(store, _)| of_its_jobs.contains(store)).cloned().collect();
    let has_none =
        listed.len() == of_it.len() && listed.values().all(|listed| listed.objects.is_empty() && listed.unread.is_empty());
    let database = stores::unasked(jobs, &name);
    let schema = config.place(&name).and_then(|place| place.schema.clone());
    let filters = schema.map_or_else(Filters::default, |schema| Filters::of_schema(&schema));
    let sought =
        |sets_of_a_job, listed| Sought { theirs: servers.theirs(config, &name), filters: filters.clone(), sets_of_a_job, listed };
    let (found, not_read) = stores::judged(jobs, &of_it, &database, sought(1, listed)).await;
    // An older set counts where the newest one of its job does not, and what may be lost is looked at once more.
    if !has_none && (matches!(found.backup, Ok(None)) || found.lost.is_some()) {
        return stores::judged(jobs, &of_it, &database, sought(usize::MAX, ByStore::new())).await;
    }
    (found, not_read)
}

/// Of those that the configuration leaves out: each `postgres` that has something of its own and that stands as it is in `exclude`, as `init` writes while there is nothing in
/// it; and how many others there are, which a person left out.
async fn excluded(config: &Config, jobs: &[Job], names: &[String]) -> (Vec<String>, usize) {
    let (mut uncovered, mut others) = (Vec::new(), 0);
    for name in names.iter().filter(|name| !jobs.iter().any(|job| is_backed_up_by(job, name))) {
        let of_init = servers::parts(name).filter(|(_, own)| own == CONNECTS_TO);
        let Some(server) = of_init.and_then(|(server, _)| config.servers.get(server)) else {
            others += 1;
            continue;
        };
        match in_time("it", stores::is_to_connect_to(config, name)).await {
            Ok(true) => {}
            Ok(false) if server.exclude.iter().any(|pattern| pattern.as_str() == CONNECTS_TO) => uncovered.push(name.clone()),
            _ => others += 1,
        }
    }
    (uncovered, others)
}

/// Those of them that have something of their own, or could not be asked.
async fn uncovered(config: &Config, names: Vec<String>) -> Vec<String> {
    let asking = names.into_iter().enumerate().map(|(number, name)| async move {
        let is_empty = number < ASKED_FOR_TABLES && in_time("it", stores::is_empty(config, &name)).await.unwrap_or_default();
        (!is_empty).then_some(name)
    });
    stream::iter(asking).buffered(AT_ONCE / 2).filter_map(std::future::ready).collect().await
}
