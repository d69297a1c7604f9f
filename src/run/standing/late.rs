//! Which jobs are late: by the ledger, and backups also by their sets, as a ledger may be new, and a set may be gone. Pure.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::database::{Backup, OfDatabase};
use crate::base::units;
use crate::ledger::Key;
use crate::pg::clock;
use crate::run::covered::is_backed_up_by;
use crate::run::job::Job;
use crate::run::scheduler::planner::{self, Ticks};
use crate::task::backup::set_name::SetName;

#[derive(Debug, Serialize, JsonSchema)]
pub struct Late {
    pub job: String,
    pub database: String,
    pub tick: DateTime<Utc>,
    pub last_success_at: Option<DateTime<Utc>>,
    /// The ledger knows nothing of its schedule, and the success is the newest set.
    #[serde(skip)]
    pub is_by_sets: bool,
    /// Its file has mistakes, so that it cannot run; its schedule is the one that it had before.
    #[serde(skip)]
    pub is_broken: bool,
}

/// What the ledger says of jobs on databases.
#[derive(Debug, Default)]
pub struct Known {
    pub successes: HashMap<Key, DateTime<Utc>>,
    /// Of which the last run that proves something failed.
    pub failed: HashSet<Key>,
    /// Since when a scheduler knows their schedules. Timers run jobs without one.
    pub since: HashMap<Key, DateTime<Utc>>,
}

impl Late {
    pub fn in_words(&self, now: DateTime<Utc>) -> String {
        let last = self.last_success_at.map_or("it never succeeded".to_owned(), |at| match self.is_by_sets {
            true => format!("the newest set is {} old", units::age(at, now)),
            false => format!("its last success was {} ago", units::age(at, now)),
        });
        format!(
            "{} on {}: no success for its tick of {}; {last}",
            self.job,
            self.database,
            self.tick.format("%Y-%m-%d %H:%M UTC")
        )
    }
}

/// Says why a job does not run by itself.
pub fn idle(job: &Job) -> Option<&'static str> {
    match (job.enabled, &job.schedule) {
        (false, _) => Some("is disabled"),
        (true, None) => Some("has no schedule"),
        (true, Some(_)) => None,
    }
}

/// The tick for which a success of a job is overdue. Where no scheduler knows the job, its last success and its schedule say that; one that never succeeded
/// may be new. `of`: what the stores hold of the database, where they were asked.
pub fn by_ledger(
    ticks: &mut Ticks<'_>,
    job: &Job,
    (database, of): (&str, Option<&OfDatabase>),
    known: &Known,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let key = (job.name.clone(), database.to_owned());
    let (jitter, success) = (planner::jitter(job, database), last_success(&key, of, known, now));
    match known.since.get(&key) {
        Some(since) => ticks.late_since(jitter, *since, success, now),
        // Of a job that the ledger does not know at all, its sets say it.
        None => known.successes.get(&key).and_then(|_| ticks.overdue_since(jitter, None, success?, now)),
    }
}

/// When a job last succeeded on a database: by the ledger, or by the newest set that counts, if the job made it, as a ledger may be of yesterday. What is dated
/// after `now` counts for nothing: a clock was wrong.
pub fn last_success(key: &Key, of: Option<&OfDatabase>, known: &Known, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let backup = of.and_then(|of| of.backup.as_ref().ok()?.as_ref()).filter(|backup| made_by(backup).as_ref() == Some(&key.0));
    let both = known.successes.get(key).copied().into_iter().chain(backup.map(|backup| backup.began_at));
    both.filter(|at| *at <= now + clock::APART).max()
}

/// The job that made a set.
fn made_by(backup: &Backup) -> Option<String> {
    backup.set.parse::<SetName>().ok().map(|set| set.job)
}

/// The tick for which a newer set of a database is overdue.
pub fn by_set(
    ticks: &mut Ticks<'_>,
    (job, jobs): (&Job, &[Job]),
    OfDatabase { name, backup, unread, .. }: &OfDatabase,
    known: &Known,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let Ok(Some(backup)) = backup else { return None };
    // A newer set may be there.
    if !unread.is_empty() {
        return None;
    }
    let key = (job.name.clone(), name.clone());
    let since = known.since.get(&key).copied();
    let is_anothers =
        made_by(backup).is_some_and(|by| by != job.name && jobs.iter().any(|job| job.name == by && is_backed_up_by(job, name)));
    // The other job is judged by it; of this one, whose sets may be deleted earlier, the ledger knows more.
    if is_anothers && since.is_some() {
        return None;
    }
    let tick = ticks.overdue_since(planner::jitter(job, name), since, backup.began_at, now)?;
    // A set that began before the tick may be that of a run that ended after it.
    last_success(&key, None, known, now).is_none_or(|at| at < tick).then_some(tick)
}

/// The backup jobs that are late on these databases by their sets.
pub fn all_by_sets(jobs: &[Job], databases: &[OfDatabase], known: &Known, now: DateTime<Utc>) -> Vec<Late> {
    let mut late = Vec::new();
    for job in jobs {
        let mut ticks = Ticks::of(job);
        for database in databases.iter().filter(|database| is_backed_up_by(job, &database.name)) {
            if let Some(tick) = by_set(&mut ticks, (job, jobs), database, known, now) {
                let last_success_at = database.backup.as_ref().ok().and_then(|backup| Some(backup.as_ref()?.began_at));
                let (job, database) = (job.name.clone(), database.name.clone());
                late.push(Late { job, database, tick, last_success_at, is_by_sets: true, is_broken: false });
            }
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::schedule::Schedule;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn nightly() -> Job {
        let schedule = Some(Schedule::try_from("0 2 * * *".to_owned()).unwrap());
        Job { schedule, ..Job::for_tests("nightly", crate::task::sql::Sql::default().into()) }
    }

    fn known(success: Option<&str>, since: Option<&str>) -> Known {
        let of_it =
            |time: Option<&str>| time.map(|time| (("nightly".to_owned(), "app".to_owned()), at(time))).into_iter().collect();
        Known { successes: of_it(success), since: of_it(since), ..Known::default() }
    }

    #[test]
    fn a_job_that_timers_run_is_late_by_its_last_success() {
        let job = nightly();
        let late =
            |success, since| by_ledger(&mut Ticks::of(&job), &job, ("app", None), &known(success, since), at("24T10:00:00"));
        assert_eq!(late(Some("24T02:01:00"), None), None);
        assert_eq!(late(Some("23T02:01:00"), None), Some(at("24T02:00:00")));
        assert_eq!(late(None, None), None, "it may be new");
        assert_eq!(late(None, Some("20T00:00:00")), Some(at("24T02:00:00")));
        assert_eq!(late(Some("23T02:01:00"), Some("24T09:00:00")), None, "a scheduler has known it for an hour");
    }

    /// A database whose newest set is of that job.
    fn of(job: &str, began_at: &str) -> OfDatabase {
        let (set, stores) = (format!("app/{job}/2026-11-01T00-00-00Z"), vec!["local".to_owned()]);
        let (store, began_at) = ("local".to_owned(), at(began_at));
        let backup = Backup { set, store, began_at, restored_at: None, refused_by: None, stores, measured: None };
        OfDatabase::for_tests("app", Ok(Some(backup)))
    }

    #[test]
    fn a_set_is_a_success_that_a_ledger_of_yesterday_does_not_know_and_one_of_tomorrow_is_none() {
        let job = nightly();
        let (now, since) = (at("24T10:00:00"), Some("20T00:00:00"));
        let late =
            |success, set: &OfDatabase| by_ledger(&mut Ticks::of(&job), &job, ("app", Some(set)), &known(success, since), now);
        let (fresh, old) = (of("nightly", "24T02:00:01"), of("nightly", "21T02:00:01"));
        assert_eq!(late(Some("21T02:01:00"), &fresh), None);
        assert_eq!(late(None, &fresh), None);
        assert_eq!(late(Some("21T02:01:00"), &old), Some(at("24T02:00:00")));
        assert_eq!(late(Some("21T02:01:00"), &of("hourly", "24T02:00:01")), Some(at("24T02:00:00")), "another job made it");
        assert_eq!(late(Some("28T02:01:00"), &old), Some(at("24T02:00:00")), "a clock was wrong");
        let by_set = by_set(&mut Ticks::of(&job), (&job, &[nightly()]), &old, &known(Some("28T02:01:00"), None), now);
        assert_eq!(by_set, Some(at("24T02:00:00")), "a clock was wrong");
    }

    #[test]
    fn the_newest_set_is_judged_whatever_the_ledger_knows() {
        let job = nightly();
        let late = |database: &OfDatabase, success, since| {
            by_set(&mut Ticks::of(&job), (&job, &[nightly()]), database, &known(success, since), at("24T10:00:00"))
        };
        let (fresh, old) = (of("nightly", "24T02:00:01"), of("nightly", "03T02:00:01"));
        for (database, success, since, expected) in [
            (&fresh, None, None, None),
            (&old, None, None, Some("24T02:00:00")),
            // A scheduler that started just now, and one whose schedule was edited.
            (&old, None, Some("24T09:00:00"), Some("23T02:00:00")),
            (&old, Some("03T02:01:00"), Some("24T09:00:00"), Some("23T02:00:00")),
            (&old, None, Some("20T00:00:00"), Some("24T02:00:00")),
            // It was made by a job of a name that is no more.
            (&of("former", "03T02:00:01"), None, Some("24T09:00:00"), Some("23T02:00:00")),
            // A run that began before the tick, and ended after it.
            (&of("nightly", "24T01:59:00"), Some("24T02:30:00"), Some("20T00:00:00"), None),
        ] {
            assert_eq!(late(database, success, since), expected.map(at), "{database:?} {success:?} {since:?}");
        }
        let unread = OfDatabase { unread: vec!["offsite".to_owned()], ..of("nightly", "03T02:00:01") };
        assert_eq!(late(&unread, None, None), None, "a store that was not read may have a newer one");
    }
}
