//! Databases of servers that no job backs up any more, and whose sets are still there: a job's file has mistakes, or is gone.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use super::database::OfDatabase;
use super::fleets::some_of;
use super::stores::{self, Opened, SKIPPED};
use crate::base::units;
use crate::config::Config;
use crate::run::job::{Broken, Job};
use crate::task::backup::set_name::SetName;

/// So many are looked for in the stores.
const LOOKED_FOR: usize = 64;

/// So many at once.
const AT_ONCE: usize = 16;

/// The newest set of such a database, and the job that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub database: String,
    pub began_at: DateTime<Utc>,
    pub job: String,
    /// Why that job makes no other one.
    pub why: &'static str,
}

/// Looks for the sets of the first of these databases.
pub async fn of(config: &Config, jobs: &[Job], stores: &Opened, broken: &[Broken], uncovered: &[String]) -> Vec<Left> {
    let asking = uncovered.iter().take(LOOKED_FOR).map(|name| stores::of_database(config, jobs, stores, name));
    let asked: Vec<_> = futures_util::stream::iter(asking).buffered(AT_ONCE).collect().await;
    asked.into_iter().filter_map(|(database, _)| left(database, jobs, broken)).collect()
}

fn left(database: OfDatabase, jobs: &[Job], broken: &[Broken]) -> Option<Left> {
    let backup = database.backup.ok()??;
    let job = backup.set.parse::<SetName>().ok()?.job;
    let why = match jobs.iter().any(|other| other.name == job) {
        _ if broken.iter().any(|broken| broken.job == job) => SKIPPED,
        true => "does not back up all of it any more",
        false => "is gone",
    };
    Some(Left { database: database.name, began_at: backup.began_at, job, why })
}

/// Returns `main.a: no job makes another backup, as job nightly is gone; its newest set is 2 d 3 h old`, a line for each job.
pub fn in_words(left: &[Left], now: DateTime<Utc>) -> Vec<String> {
    let mut by_job: BTreeMap<(&str, &str), Vec<&Left>> = BTreeMap::new();
    for one in left {
        by_job.entry((&one.job, one.why)).or_default().push(one);
    }
    let line = |((job, why), of_job): ((&str, &str), Vec<&Left>)| {
        let oldest = of_job.iter().map(|left| left.began_at).min().map(|at| units::age(at, now)).unwrap_or_default();
        let newest = if of_job.len() == 1 { "its newest set" } else { "the oldest of their newest sets" };
        let named = some_of(of_job.iter().map(|left| left.database.clone()));
        format!("{named}: no job makes another backup, as job {job} {why}; {newest} is {oldest} old")
    };
    by_job.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::standing::Backup;

    #[test]
    fn the_job_that_made_the_newest_set_is_named_with_why_it_makes_no_other() {
        let at = |text: &str| -> DateTime<Utc> { format!("2026-11-{text}Z").parse().unwrap() };
        let of = |name: &str, job: &str, began_at: &str| {
            let (set, stores) = (format!("{name}/{job}/2026-11-01T00-00-00Z"), vec!["local".to_owned()]);
            let (store, began_at) = ("local".to_owned(), at(began_at));
            let backup = Backup { set, store, began_at, restored_at: None, refused_by: None, stores, measured: None };
            OfDatabase { job: None, ..OfDatabase::for_tests(name, Ok(Some(backup))) }
        };
        let jobs = [Job::for_tests("other", crate::task::sql::Sql::default().into())];
        let all = [
            of("main.a", "nightly", "24T08:00:00"),
            of("main.b", "nightly", "24T09:00:00"),
            of("main.c", "other", "24T09:00:00"),
        ];
        let left: Vec<Left> = all.into_iter().filter_map(|database| left(database, &jobs, &[])).collect();
        assert_eq!(
            in_words(&left, at("24T10:00:00")),
            [
                "main.a, main.b: no job makes another backup, as job nightly is gone; the oldest of their newest sets is 2 h 0 min old",
                "main.c: no job makes another backup, as job other does not back up all of it any more; its newest set is 1 h 0 min old",
            ]
        );
        assert!(super::left(OfDatabase::for_tests("main.d", Ok(None)), &jobs, &[]).is_none());
    }
}
