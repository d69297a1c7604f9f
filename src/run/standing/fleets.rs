//! Jobs with patterns, counted: how many of their databases are well, failed, late, or without a backup that counts.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::database::OfDatabase;
use super::late::{self, Known};
use super::safety::Safety;
use crate::base::shell::word;
use crate::base::units;
use crate::ledger::{Gone, LeftOut};
use crate::run::covered::backs_up_all;
use crate::run::health::Health;
use crate::run::job::Job;
use crate::run::scheduler::planner::Ticks;

/// More names in one line would hide the rest.
const NAMED: usize = 5;

/// So many of a job's databases that are not well are named on the page.
const NAMED_OF_FLEET: usize = 20;

/// How a job with patterns stands. Each database is counted once, under the first of these that holds.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Fleet {
    pub job: String,
    /// What stands in its file: `tenant_*`.
    pub patterns: String,
    /// It backs up all of each database, or of each schema.
    #[serde(skip)]
    pub is_backup: bool,
    /// What it counts are schemas.
    #[serde(skip)]
    pub is_of_schemas: bool,
    /// Why it does not run by itself.
    #[serde(skip)]
    pub idle: Option<&'static str>,
    pub databases: usize,
    pub well: usize,
    pub failed: usize,
    pub late: usize,
    /// Of a backup job: no set that counts is in its stores, although a run succeeded. `jobs` asks no store: this and the next three are 0 there.
    pub without_backup: usize,
    /// Its newest set does not count, may be of another database, or has no copy in a store of its job; or a store was not read, which may have a newer one.
    pub in_doubt: usize,
    /// No job that backs it up runs by itself.
    pub not_renewed: usize,
    /// No store could be asked, or not in time: a run succeeded, and that is all.
    pub by_ledger: usize,
    /// Without a success yet.
    pub waiting: usize,
    /// What is wrong with the first of those whose sets are.
    #[serde(skip)]
    pub example: Option<String>,
    /// The first of those that are not well.
    #[serde(skip)]
    pub named: Vec<String>,
    /// The oldest of the last successes, and of which database.
    pub oldest_success_at: Option<DateTime<Utc>>,
    pub oldest_success_on: Option<String>,
}

/// How a job stands on one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Failed,
    Late,
    WithoutBackup,
    InDoubt,
    NotRenewed,
    ByLedger,
    Well,
    Waiting,
}

/// Counts the databases of each job with patterns. `judged`: what the stores hold of each database that could be asked about; without it, only the ledger is
/// asked. Pure.
pub fn count(jobs: &[Job], known: &Known, judged: Option<&HashMap<String, OfDatabase>>, now: DateTime<Utc>) -> Vec<Fleet> {
    jobs.iter().filter(|job| job.chosen.is_some()).map(|job| of_job((job, jobs), known, judged, now)).collect()
}

fn of_job((job, jobs): (&Job, &[Job]), known: &Known, judged: Option<&HashMap<String, OfDatabase>>, now: DateTime<Utc>) -> Fleet {
    let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
    let (name, is_backup, idle, databases) = (job.name.clone(), backs_up_all(job), late::idle(job), job.databases.len());
    let is_of_schemas = job.has_schemas();
    let mut fleet = Fleet { job: name, patterns, is_backup, is_of_schemas, idle, databases, ..Fleet::default() };
    let mut ticks = Ticks::of(job);
    for database in &job.databases {
        let key = (job.name.clone(), database.clone());
        let success = known.successes.get(&key).copied();
        let of_stores = judged.filter(|_| is_backup).map(|judged| judged.get(database));
        let is_late = late::by_ledger(&mut ticks, job, (database, of_stores.flatten()), known, now).is_some()
            || of_stores.flatten().is_some_and(|of| late::by_set(&mut ticks, (job, jobs), of, known, now).is_some());
        let state = match Health::of(known.failed.contains(&key), is_late, success.is_some()) {
            Health::Failed => State::Failed,
            Health::Late => State::Late,
            Health::Well | Health::Waiting => by_stores(of_stores, success.is_some()),
        };
        if matches!(state, State::WithoutBackup | State::InDoubt) && fleet.example.is_none() {
            // That a server does not answer is said once, and not of each of its databases.
            let of = of_stores.flatten().filter(|of| of.unsure.is_none());
            fleet.example = of.map(|of| format!("{database}: {}", of.wrongs_in_short()));
        }
        if state != State::Well && fleet.named.len() < NAMED_OF_FLEET {
            fleet.named.push(database.clone());
        }
        fleet.add(state);
        if let Some(at) = success.filter(|at| fleet.oldest_success_at.is_none_or(|oldest| *at < oldest)) {
            (fleet.oldest_success_at, fleet.oldest_success_on) = (Some(at), Some(database.clone()));
        }
    }
    fleet
}

/// `of_stores`: none where only the ledger is asked; none within, where the stores did not answer in time.
fn by_stores(of_stores: Option<Option<&OfDatabase>>, has_succeeded: bool) -> State {
    match of_stores {
        None if has_succeeded => State::Well,
        None => State::Waiting,
        Some(None) => State::ByLedger,
        Some(Some(of)) => match of.safety(false) {
            Safety::Safe => State::Well,
            Safety::Unsafe if of.lost.is_none() && !has_succeeded => State::Waiting,
            Safety::Unsafe => State::WithoutBackup,
            _ if of.backup.is_err() => State::ByLedger,
            _ if of.idle.is_some() && !of.is_in_doubt() => State::NotRenewed,
            _ => State::InDoubt,
        },
    }
}

/// The lines about databases of servers that no job backs up, that nobody can work on, or that went.
pub fn of_servers(uncovered: Vec<String>, left_out: &[LeftOut], gone: &[Gone]) -> Vec<String> {
    let of_gone =
        |gone: &Gone| format!("{} is gone since {}; its sets are kept", gone.database, gone.gone_at.format("%Y-%m-%d %H:%M UTC"));
    uncovered.into_iter().chain(left_out.iter().map(left_out_in_words)).chain(gone.iter().map(of_gone)).collect()
}

/// Returns `main.a, main.b: no backup, and no job makes one`, and the same of those whose schemas are backed up one by one.
pub fn uncovered_in_words(databases: &[String], by_schemas: &BTreeSet<String>) -> Vec<String> {
    let (in_part, not): (Vec<_>, Vec<_>) = databases.iter().cloned().partition(|name| by_schemas.contains(name));
    let of = |names: Vec<String>, said| (!names.is_empty()).then(|| format!("{}: {said}", some_of(names.into_iter())));
    let not = of(not, "no backup, and no job makes one");
    let in_part = of(in_part, "no backup of all of it, and no job makes one: its schemas are backed up one by one");
    not.into_iter().chain(in_part).collect()
}

pub fn left_out_in_words(LeftOut { database, why, since }: &LeftOut) -> String {
    format!("{database} is left out since {}, so no job runs there: {why}", since.format("%Y-%m-%d %H:%M UTC"))
}

pub fn some_of(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    names.join(", ") + &if more > 0 { format!(" and {} more", units::count(more as u64)) } else { String::new() }
}

impl Fleet {
    fn add(&mut self, state: State) {
        *match state {
            State::Failed => &mut self.failed,
            State::Late => &mut self.late,
            State::WithoutBackup => &mut self.without_backup,
            State::InDoubt => &mut self.in_doubt,
            State::NotRenewed => &mut self.not_renewed,
            State::ByLedger => &mut self.by_ledger,
            State::Well => &mut self.well,
            State::Waiting => &mut self.waiting,
        } += 1;
    }

    /// Returns the oldest of the last successes, and the database that it is of.
    pub fn oldest_success(&self) -> Option<(DateTime<Utc>, &str)> {
        self.oldest_success_at.zip(self.oldest_success_on.as_deref())
    }

    /// Returns whether a person should look at it.
    pub fn needs_attention(&self) -> bool {
        let waiting = if self.is_backup { self.waiting } else { 0 };
        self.failed + self.late + self.without_proof() + waiting > 0 || self.databases == 0
    }

    /// Returns whether a run makes backups that are missing.
    pub fn needs_a_run(&self) -> bool {
        self.is_backup && self.without_backup + self.waiting > 0 && self.idle.is_none()
    }

    /// Returns how many have succeeded, and are not backed up for all that is known.
    pub fn without_proof(&self) -> usize {
        self.without_backup + self.in_doubt + self.not_renewed + self.by_ledger
    }

    /// Returns what a person should look at, with what it is about.
    pub fn attention(&self) -> (String, String) {
        let about = if self.is_backup { format!("backup of {}", self.patterns) } else { format!("job {}", self.job) };
        let command = match self.needs_a_run() {
            true => format!("pgtend run-job {}", word(&self.job)),
            false => "pgtend jobs --all".to_owned(),
        };
        (about, format!("{} on {}: {}: {command}", self.job, self.patterns, self.in_words()))
    }

    /// Returns how many of its databases are not backed up for all that is known, or have no success yet.
    pub fn not_well(&self) -> usize {
        self.failed + self.late + self.without_proof() + self.waiting
    }

    pub fn line(&self, now: DateTime<Utc>) -> String {
        let oldest = self.oldest_success();
        let oldest = oldest.map(|(at, database)| format!("; the oldest success is {} old, on {database}", units::age(at, now)));
        format!("{} on {}: {}{}", self.job, self.patterns, self.in_words(), oldest.unwrap_or_default())
    }

    /// Returns `9,998 of 10,000 well, 1 failed, 1 late`.
    pub fn in_words(&self) -> String {
        let number = |count: usize| units::count(count as u64);
        let not_renewed = format!("whose job {}", self.idle.unwrap_or("does not run by itself"));
        let mut parts = vec![format!("{} of {} well", number(self.well), number(self.databases))];
        for (count, what) in [
            (self.failed, "failed"),
            (self.late, "late"),
            (self.without_backup, "without a backup that counts"),
            (self.in_doubt, "with a backup in doubt"),
            (self.not_renewed, &not_renewed),
            (self.by_ledger, "known by the ledger alone"),
            (self.waiting, "without a success yet"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", number(count)));
            }
        }
        let example = self.example.as_ref().map(|example| format!(" ({example})")).unwrap_or_default();
        parts.join(", ") + &example
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::pattern::Pattern;
    use crate::base::schedule::Schedule;
    use crate::run::job::Chosen;
    use crate::run::standing::{Backup, Lost};

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn nightly() -> Job {
        let chosen = Chosen::by(&[], vec![Pattern::new("tenant_*")], Vec::new());
        let schedule = Some(Schedule::try_from("0 2 * * *".to_owned()).unwrap());
        let databases = vec!["main.tenant_1".to_owned()];
        let task = crate::task::backup::Backup::for_tests().into();
        Job { chosen, schedule, databases, ..Job::for_tests("nightly", task) }
    }

    fn known(success: Option<&str>) -> Known {
        let key = ("nightly".to_owned(), "main.tenant_1".to_owned());
        Known { successes: success.map(|time| (key, at(time))).into_iter().collect(), ..Known::default() }
    }

    fn backup(began_at: &str) -> Backup {
        Backup {
            set: "main.tenant_1/nightly/2026-11-24T02-00-01Z".to_owned(),
            store: "local".to_owned(),
            began_at: at(began_at),
            restored_at: None,
            refused_by: None,
            stores: vec!["local".to_owned()],
            measured: None,
        }
    }

    fn lost() -> Option<Lost> {
        let (set, store) = ("main.tenant_1/nightly/x".to_owned(), Some("local".to_owned()));
        Some(Lost { set, store, why: "its bytes are damaged".to_owned(), refused_by: None })
    }

    /// How the one database of a fleet stands, in words.
    fn said(job: &Job, known: &Known, judged: Option<OfDatabase>) -> String {
        let judged = judged.into_iter().map(|of| (of.name.clone(), of)).collect();
        count(std::slice::from_ref(job), known, Some(&judged), at("24T10:00:00")).remove(0).in_words()
    }

    #[test]
    fn a_database_of_a_fleet_is_well_only_with_a_set_that_counts_and_that_is_renewed() {
        let of = |backup| OfDatabase::for_tests("main.tenant_1", backup);
        let good = || of(Ok(Some(backup("24T02:00:01"))));
        let succeeded = known(Some("24T02:01:00"));
        for (judged, expected) in [
            (Some(good()), "1 of 1 well"),
            (Some(of(Ok(None))), "0 of 1 well, 1 without a backup that counts (main.tenant_1: none)"),
            (Some(OfDatabase { lost: lost(), ..good() }), "0 of 1 well, 1 with a backup in doubt (main.tenant_1: a newer one, "),
            (
                Some(OfDatabase { lost: lost(), ..of(Ok(None)) }),
                "0 of 1 well, 1 without a backup that counts (main.tenant_1: the newest, ",
            ),
            (Some(OfDatabase { unsure: Some("no server".to_owned()), ..good() }), "0 of 1 well, 1 with a backup in doubt"),
            (Some(OfDatabase { idle: Some("is disabled"), ..good() }), "0 of 1 well, 1 whose job does not run by itself"),
            (
                Some(OfDatabase { missing_in: vec!["offsite".to_owned()], ..good() }),
                "0 of 1 well, 1 with a backup in doubt (main.tenant_1: no copy that counts in offsite)",
            ),
            (
                Some(OfDatabase { unread: vec!["offsite".to_owned()], ..good() }),
                "0 of 1 well, 1 with a backup in doubt (main.tenant_1: offsite was not read, and may have a newer one)",
            ),
            (Some(of(Err("no".to_owned()))), "0 of 1 well, 1 known by the ledger alone"),
            (None, "0 of 1 well, 1 known by the ledger alone"),
            (Some(of(Ok(Some(backup("03T02:00:01"))))), "1 of 1 well"),
        ] {
            let said = said(&nightly(), &succeeded, judged);
            assert!(said.starts_with(expected), "{said}, and not {expected}");
        }
        // The ledger is lost, and the sets are there.
        assert_eq!(said(&nightly(), &known(None), Some(good())), "1 of 1 well");
        assert_eq!(said(&nightly(), &known(None), Some(of(Ok(None)))), "0 of 1 well, 1 without a success yet");
    }

    #[test]
    fn a_backup_job_whose_databases_wait_for_their_first_set_needs_a_person_and_another_job_does_not() {
        let fleet = |is_backup, idle| Fleet {
            job: "nightly".to_owned(),
            is_backup,
            idle,
            databases: 3,
            well: 2,
            waiting: 1,
            ..Fleet::default()
        };
        assert!(fleet(true, None).needs_attention() && fleet(true, None).needs_a_run());
        assert!(fleet(true, None).attention().1.ends_with("1 without a success yet: pgtend run-job nightly"));
        let idle = fleet(true, Some("is disabled"));
        assert!(idle.needs_attention() && !idle.needs_a_run());
        assert!(!fleet(false, None).needs_attention() && !fleet(false, None).needs_a_run());
    }

    #[test]
    fn a_fleet_that_timers_ran_is_late_and_so_is_one_whose_sets_are_old() {
        let of = |began_at| Some(OfDatabase::for_tests("main.tenant_1", Ok(Some(backup(began_at)))));
        assert_eq!(said(&nightly(), &known(Some("23T02:01:00")), of("23T02:00:01")), "0 of 1 well, 1 late");
        assert_eq!(said(&nightly(), &known(None), of("03T02:00:01")), "0 of 1 well, 1 late");
        let disabled = Job { enabled: false, ..nightly() };
        let idle = of("03T02:00:01").map(|of| OfDatabase { idle: Some("is disabled"), ..of });
        assert_eq!(said(&disabled, &known(Some("03T02:01:00")), idle), "0 of 1 well, 1 whose job is disabled");
        // A job that backs up nothing is judged by the ledger.
        let task = crate::task::sql::Sql::default().into();
        let sql = Job { task, ..nightly() };
        assert_eq!(said(&sql, &known(Some("24T02:01:00")), None), "1 of 1 well");
        assert_eq!(said(&sql, &known(Some("23T02:01:00")), None), "0 of 1 well, 1 late");
    }
}
