//! Asks the stores for the backups of a database, and judges it by what they hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::database::{Anothers, Backup, Lost, OfDatabase};
use super::late::idle;
use crate::base::fault::{Fault, Kind};
use crate::base::units::Span;
use crate::config::Config;
use crate::ledger::Key;
use crate::pg::failure;
use crate::run::covered::{backed_up_in_part_by, is_backed_up_by, is_only_scratch};
use crate::run::job::{Broken, Job};
use crate::store::{Listed, Store};
use crate::task::backup::Backup as BackupTask;
use crate::task::backup::copies::several::ensure_answers;
use crate::task::backup::existing_database::{is_empty_but_for_runs, objects_in};
use crate::task::backup::gate::{Answer, Bounds, Looked, Measured, NotAsked, Question, Seen};
use crate::task::backup::manifest::Filters;
use crate::task::backup::set_name::SetName;
use crate::task::backup::whose::{Theirs, Whose};

/// All stores, each with its name, or with the reason why it does not answer.
pub type Opened = Vec<(String, Result<Store, String>)>;

/// Why a job does not run whose file has mistakes.
pub const SKIPPED: &str = "is skipped: there are mistakes in its file";

/// A backup job that made the newest set of a database, and that is skipped as its file has mistakes, makes no other one.
pub fn skip(database: &mut OfDatabase, broken: &[Broken]) {
    let Ok(Some(backup)) = &database.backup else { return };
    let Ok(set) = backup.set.parse::<SetName>() else { return };
    if database.job.is_none() && broken.iter().any(|broken| broken.job == set.job) {
        (database.job, database.idle) = (Some(set.job), Some(SKIPPED));
    }
}

/// The newest set that each backup job has proved: when it began, and its name.
pub type Proofs = HashMap<Key, (DateTime<Utc>, String)>;

/// What a person waits for one source.
const PATIENCE: Duration = Duration::from_secs(5);

/// Any set, however old: 10,000 years.
const EVER: Span = Span(Duration::from_secs(10_000 * 365 * 86_400));

pub(super) async fn in_time<T>(what: &str, asking: impl Future<Output = Result<T>>) -> Result<T> {
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    answered.unwrap_or_else(|_| {
        Err(Fault::new(Kind::Unreachable, format!("{what} did not answer in {} s", PATIENCE.as_secs())).into())
    })
}

/// Opens all stores, and asks each whether it answers. One that does not has the reason in its place, and is not waited for again.
pub async fn opened(config: &Config) -> Opened {
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
pub async fn of_database(config: &Config, jobs: &[Job], stores: &Opened, name: &str) -> (OfDatabase, Vec<NotAsked>) {
    let mut without = unasked(jobs, name);
    without.needs_none = is_only_scratch(jobs, name) && in_time("it", is_empty(config, name)).await.unwrap_or_default();
    if without.needs_none || stores.is_empty() {
        return (without, Vec::new());
    }
    // Without the server nobody knows whose these sets are, and this is when one wants to know that there is one.
    let theirs = in_time("the database", Theirs::of(config, name, &Whose::Own { by_name: false })).await;
    let sought = Sought {
        theirs: theirs.map_err(|error| failure::in_a_line(&error)),
        filters: Filters::default(),
        sets_of_a_job: usize::MAX,
        listed: HashMap::new(),
    };
    judged(jobs, stores, &without, sought).await
}

/// Which sets count.
pub(super) struct Sought {
    /// Whose they are, or why that could not be asked.
    pub theirs: Result<Theirs, String>,
    /// Of a set that is whole: none for a database.
    pub filters: Filters,
    /// So many of the newest are read.
    pub sets_of_a_job: usize,
    /// What stores have just listed in its folder, by their names.
    pub listed: HashMap<String, Listed>,
}

/// A database of which nobody was asked yet.
pub(super) fn unasked(jobs: &[Job], name: &str) -> OfDatabase {
    let of_it = || jobs.iter().filter(|job| is_backed_up_by(job, name));
    let found = of_it().find(|job| idle(job).is_none()).or_else(|| of_it().next());
    let database = OfDatabase::unasked(name, found.map(|job| &*job.name), found.and_then(idle));
    OfDatabase { in_part: backed_up_in_part_by(jobs, name), ..database }
}

/// Judges a database, or a schema of one, by what its stores hold.
pub(super) async fn judged(jobs: &[Job], stores: &Opened, without: &OfDatabase, sought: Sought) -> (OfDatabase, Vec<NotAsked>) {
    let name = without.name.as_str();
    let (answer, unasked, by_name) = newest(jobs, stores, name, sought).await;
    // A store that no backup job of it names matters only where it has none.
    let of_its_jobs = stores_of_its_jobs(jobs, name);
    let matters = |unread: &&NotAsked| of_its_jobs.is_empty() || of_its_jobs.contains(&unread.store);
    let unread: Vec<&NotAsked> = answer.unread.iter().filter(matters).collect();
    let newest = answer.newest.map(|newest| backup_of(newest, answer.stores_of_newest, answer.measured));
    let anothers = |seen: &Seen| Some(Anothers { set: seen.set.clone(), whose: seen.of_another.clone()? });
    let anothers = answer.passed_over.iter().filter_map(anothers).collect();
    // A copy of the set that counts may be lost, too: that set is there.
    let is_other = |set: &str| newest.as_ref().is_none_or(|newest| newest.set != set);
    let lost = answer.passed_over.into_iter().find(|seen| seen.is_lost() && is_other(&seen.set)).map(lost_of);
    let unread_stores: Vec<String> = unread.iter().map(|unread| unread.store.clone()).collect();
    let database = OfDatabase {
        name: name.to_owned(),
        job: without.job.clone(),
        idle: without.idle,
        lost,
        missing_in: newest.as_ref().map(|newest| missing_in(jobs, newest, &unread_stores)).unwrap_or_default(),
        anothers,
        unread: unread_stores,
        in_the_clear: answer.in_the_clear,
        unasked: None,
        needs_none: false,
        by_schemas: false,
        in_part: without.in_part.clone(),
        unsure: newest.as_ref().and(unasked.clone().or(by_name)),
        backup: match (newest, unasked, unread.first()) {
            (Some(newest), ..) => Ok(Some(newest)),
            (None, Some(why), _) => Err(why),
            (None, None, Some(unread)) => Err(unread.reason.clone()),
            (None, None, None) => Ok(None),
        },
    };
    (database, answer.unread)
}

/// The stores of the job that made the newest set that have no copy of it that counts, as far as they were read.
fn missing_in(jobs: &[Job], newest: &Backup, unread: &[String]) -> Vec<String> {
    let Ok(set) = newest.set.parse::<SetName>() else { return Vec::new() };
    let stores = jobs.iter().find(|job| job.name == set.job).and_then(stores_of).unwrap_or_default();
    stores.into_iter().filter(|store| !newest.stores.contains(store) && !unread.contains(store)).collect()
}

pub(super) fn stores_of_its_jobs(jobs: &[Job], name: &str) -> BTreeSet<String> {
    jobs.iter().filter(|job| is_backed_up_by(job, name)).filter_map(stores_of).flatten().collect()
}

/// The newest set that would count before a deployment; why the database could not be asked whose it is; and why it is the database's by its name alone,
/// where that was: another cluster may have a database of that name.
async fn newest(
    jobs: &[Job],
    stores: &Opened,
    database: &str,
    Sought { theirs, filters, sets_of_a_job, listed }: Sought,
) -> (Answer, Option<String>, Option<String>) {
    let question = Question {
        database,
        job: None,
        store: None,
        stores_of: jobs.iter().filter_map(|job| Some((job.name.clone(), stores_of(job)?))).collect::<BTreeMap<_, _>>(),
        filters,
        whose: Whose::Own { by_name: false },
        within: EVER,
        restored: false,
        without_vector_indexes: Vec::new(),
    };
    let (theirs, unasked) = match theirs {
        Ok(theirs) => (theirs, None),
        Err(why) => (Theirs::Unasked, Some(why)),
    };
    let again = |(name, store): &(String, Result<Store, String>)| {
        let store = store.clone().map_err(|why| Fault::new(Kind::Unreachable, why).into());
        (name.clone(), store)
    };
    let stores = stores.iter().map(again).collect();
    let bounds = Bounds { patience: Some(PATIENCE), sets_of_a_job, listed };
    let mut looked = Looked::at(theirs, Utc::now(), stores, &question, bounds).await;
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
pub(super) async fn is_empty(config: &Config, name: &str) -> Result<bool> {
    let database = config.database(name).context("no such database")?;
    Ok(objects_in(&database.settings()?).await? == 0)
}

/// Returns whether one that `init` would leave out has nothing that it would not leave out.
pub(super) async fn is_to_connect_to(config: &Config, name: &str) -> Result<bool> {
    let database = config.database(name).context("no such database")?;
    is_empty_but_for_runs(&mut database.settings()?.connect().await?).await
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
    let known = of_it.filter_map(|job| proved.get(&(job.name.clone(), database.name.clone())));
    // One that is there, and is of the database that had this name before, is not lost.
    let is_seen = |set: &str| database.anothers.iter().any(|anothers| anothers.set == set);
    let Some((began_at, set)) = known.filter(|(_, set)| !is_seen(set)).max() else { return };
    let newest = database.backup.as_ref().ok().and_then(Option::as_ref);
    if newest.is_none_or(|newest| newest.began_at < *began_at) {
        let why = "the ledger has it as proved, and no store has it as a set that counts".to_owned();
        database.lost = Some(Lost { set: set.clone(), store: None, why, refused_by: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::whose::Another;

    #[test]
    fn a_proved_set_that_was_seen_as_that_of_the_database_before_is_not_lost() {
        let at: DateTime<Utc> = "2026-11-24T02:00:01Z".parse().unwrap();
        let set = "app/nightly/2026-11-24T02-00-01Z".to_owned();
        let jobs = [Job::for_tests("nightly", BackupTask::for_tests().into())];
        let proved = Proofs::from([(("nightly".to_owned(), "app".to_owned()), (at, set.clone()))]);
        let lost = |anothers| {
            let mut database = OfDatabase { anothers, ..OfDatabase::for_tests("app", Ok(None)) };
            lose(&mut database, &jobs, &proved);
            database.lost.map(|lost| lost.set)
        };
        assert_eq!(lost(Vec::new()), Some(set.clone()));
        let whose = Another { identity: Some("71/app".to_owned()), is_of_an_earlier_one: true };
        assert_eq!(lost(vec![Anothers { set, whose: whose.clone() }]), None);
        let another = Anothers { set: "app/nightly/2026-11-20T02-00-01Z".to_owned(), whose };
        assert!(lost(vec![another]).is_some(), "it is another one that is there");
    }
}
