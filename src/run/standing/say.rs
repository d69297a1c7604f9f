//! Where one stands, in words, and the next step: pure.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::database::{Lost, OfDatabase, Unasked};
use super::fleets::{self, Fleet};
use super::late::Late;
use super::left::{self, Left};
use crate::base::fault;
use crate::base::shell::word;
use crate::base::units;
use crate::config::places;
use crate::ledger::{Gone, LeftOut, Untold};
use crate::run::notify::untold;
use crate::task::backup::gate::InTheClear;

#[derive(Debug, Default)]
pub struct Standing {
    pub file: String,
    pub configured: Configured,
    /// Jobs whose files have mistakes.
    pub broken: Vec<String>,
    /// How those of them stand that are not in `late`, each in a sentence.
    pub stands: Vec<(String, String)>,
    pub databases: Vec<OfDatabase>,
    pub late: Vec<Late>,
    pub failed: Vec<Failed>,
    /// Jobs with patterns, and databases that went from their servers: their databases are counted, and not in `databases`.
    pub fleets: Vec<Fleet>,
    pub gone: Vec<Gone>,
    /// Databases of servers that have something of their own, and that no job backs up.
    pub uncovered: Vec<String>,
    /// How many databases of servers a person left out, of which nothing is asked.
    pub excluded: usize,
    /// Those of them whose sets are still there.
    pub left: Vec<Left>,
    /// Databases whose schemas jobs back up one by one.
    pub by_schemas: BTreeSet<String>,
    /// Databases that servers have and that patterns take, and on which nobody can work.
    pub left_out: Vec<LeftOut>,
    /// Messages that nobody got.
    pub untold: Vec<Untold>,
    /// [servers.NAME] of the configuration.
    pub servers: usize,
    pub has_ledger: bool,
    /// A scheduler has seen the jobs.
    pub is_scheduled: bool,
    /// What could not be read: stores, and the ledger.
    pub unread: Vec<Unread>,
}

/// A source that did not answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub what: String,
    pub why: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub enum Configured {
    #[default]
    No,
    WithMistakes(usize),
    Yes {
        stores: usize,
        jobs: usize,
    },
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Failed {
    pub run: i64,
    pub job: String,
    pub database: String,
    pub at: DateTime<Utc>,
    pub outcome: String,
    pub error: String,
}

/// A command, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Step {
    pub command: String,
    pub why: &'static str,
}

impl Standing {
    /// Returns the one step that helps most now.
    pub fn next(&self) -> Step {
        let step = |command: &str, why| Step { command: command.to_owned(), why };
        match self.configured {
            Configured::No => return step("pgtend init", "looks at a server, and writes a configuration and jobs that fit"),
            Configured::WithMistakes(_) => return step("pgtend check", "shows each mistake at its place"),
            Configured::Yes { .. } => {}
        }
        if !self.broken.is_empty() {
            return step("pgtend check", "shows what is wrong with the jobs that are skipped");
        }
        let without_job = || self.databases.iter().filter(|database| database.job.is_none());
        if without_job().any(|database| !matches!(database.backup, Ok(Some(_))) && database.in_part.is_empty()) {
            return step("pgtend init", "adds a backup job for the databases that have none");
        }
        if without_job().next().is_some() {
            return step(
                "pgtend jobs",
                "shows the jobs that are there: none backs up all of some databases, or none does any more",
            );
        }
        if let Some(set) = self.databases.iter().find_map(OfDatabase::refused) {
            let command = format!("pgtend backups show {}", word(set));
            return Step { command, why: "shows which server refused the newest backup, and why" };
        }
        let without = self.databases.iter().find(|database| matches!(database.backup, Ok(None)));
        if let Some((OfDatabase { name, .. }, job)) = without.and_then(|database| Some((database, database.job.as_ref()?))) {
            let command = match self.databases.len() {
                1 => format!("pgtend run-job {}", word(job)),
                _ => format!("pgtend run-job {} --database {}", word(job), word(name)),
            };
            return Step { command, why: "makes a backup and proves it" };
        }
        let lost = self.databases.iter().find(|database| database.lost.is_some());
        if let Some((OfDatabase { name, .. }, job)) = lost.and_then(|database| Some((database, database.job.as_ref()?))) {
            let command = format!("pgtend run-job {} --database {}", word(job), word(name));
            return Step { command, why: "makes another backup in place of the newest, which is lost" };
        }
        if let Some(failed) = self.failed.first() {
            return Step { command: format!("pgtend runs show {}", failed.run), why: "shows why the last run failed" };
        }
        if !self.unread.is_empty() || self.databases.iter().any(|database| database.backup.is_err() || database.unsure.is_some())
        {
            return step("pgtend check --connect", "says what does not answer, and what to do");
        }
        let without = self.fleets.iter().find(|fleet| fleet.needs_a_run());
        if let Some(fleet) = without {
            let command = format!("pgtend run-job {}", word(&fleet.job));
            return Step { command, why: "makes backups of its databases: some have none that counts" };
        }
        if self.fleets.iter().any(|fleet| fleet.failed > 0) {
            return step("pgtend runs --outcome failed", "shows why runs on some databases failed");
        }
        if self.fleets.iter().any(|fleet| fleet.in_doubt > 0) {
            return step(
                "pgtend backups list",
                "shows the sets of all databases: the newest of some do not count, or not in each store",
            );
        }
        if !self.left_out.is_empty() {
            return step("pgtend check --connect", "says which databases of servers are left out, and why");
        }
        if !self.uncovered.is_empty() {
            return step("pgtend jobs --all", "shows which databases have jobs: some have no backup job");
        }
        if !self.late.is_empty() || self.fleets.iter().any(|fleet| fleet.late > 0) {
            return step("pgtend serve", "runs what is due: is it running, or are the timers?");
        }
        if let Some(Untold { target, .. }) = self.untold.iter().find(|untold| untold.is_configured) {
            let command = format!("pgtend notify test {}", word(target));
            return Step { command, why: "says whether the service takes messages, of which nobody got some" };
        }
        let is_idle = |fleet: &Fleet| fleet.not_renewed > 0 || fleet.is_backup && fleet.idle.is_some() && fleet.not_well() > 0;
        if self.databases.iter().any(|database| database.idle.is_some()) || self.fleets.iter().any(is_idle) {
            return step("pgtend jobs", "shows the backup jobs that never run by themselves: disabled, or without a schedule");
        }
        match (self.has_ledger, self.is_scheduled) {
            (false, _) => step("pgtend jobs", "shows what runs when; no backup is late, and without [ledger] no more is known"),
            (true, false) => step("pgtend serve", "runs the jobs on their schedules; or `pgtend render systemd`"),
            _ => step("pgtend jobs", "shows what runs when; nothing needs attention now"),
        }
    }

    /// What may be told to others: without values of rows, which errors of servers have.
    pub fn without_values(mut self) -> Self {
        let tell = |text: &mut String| *text = fault::without_values(text);
        self.failed.iter_mut().for_each(|failed| tell(&mut failed.error));
        self.unread.iter_mut().for_each(|unread| tell(&mut unread.why));
        self.untold.iter_mut().filter_map(|untold| untold.error.as_mut()).for_each(tell);
        self.fleets.iter_mut().filter_map(|fleet| fleet.example.as_mut()).for_each(tell);
        for OfDatabase { backup, lost, unsure, unasked, .. } in &mut self.databases {
            unasked.iter_mut().for_each(|unasked| tell(&mut unasked.why));
            match backup {
                Ok(Some(backup)) => backup.refused_by.iter_mut().for_each(tell),
                Ok(None) => {}
                Err(why) => tell(why),
            }
            unsure.iter_mut().for_each(tell);
            if let Some(Lost { why, refused_by, .. }) = lost {
                tell(why);
                refused_by.iter_mut().for_each(tell);
            }
        }
        self
    }

    /// Returns what a person should look at, each with what it is about.
    pub fn attention(&self, now: DateTime<Utc>) -> Vec<(String, String)> {
        let not_backed_up = self.databases.iter().filter(|database| {
            let is_sure =
                database.unsure.is_none() && database.lost.is_none() && database.idle.is_none() && database.job.is_some();
            !matches!(database.backup, Ok(Some(_))) || !is_sure || database.refused().is_some()
        });
        let backups = not_backed_up.map(|database| {
            // A person may say first that another database's sets are this one's.
            let needs_a_run = !matches!(database.backup, Ok(Some(_))) && database.anothers.is_empty() || database.lost.is_some();
            let command = match (database.refused(), &database.job) {
                (Some(set), _) => format!(": pgtend backups show {}", word(set)),
                (None, Some(job)) if needs_a_run => format!(": pgtend run-job {}", word(job)),
                (None, _) => String::new(),
            };
            (format!("backup of {}", database.name), format!("{}{command}", self.backup_in_words(database, now)))
        });
        let failed = self
            .failed
            .iter()
            .map(|failed| (format!("job {}", failed.job), format!("{}: pgtend runs show {}", failed.in_words(now), failed.run)));
        let late = self.late.iter().map(|late| {
            let what_to_do = match late.is_broken {
                true => "its file has mistakes: pgtend check",
                false => "is `pgtend serve` running, or are the timers?",
            };
            (format!("job {}", late.job), format!("{}: {what_to_do}", late.in_words(now)))
        });
        let fleets = self.fleets.iter().filter(|fleet| fleet.needs_attention()).map(Fleet::attention);
        let unread = self.unread.iter().map(|unread| (unread.what.clone(), unread.why.clone()));
        let exposed = self.databases.iter().flat_map(|database| &database.in_the_clear).map(|InTheClear { store, set, objects }| {
            let said = format!(
                "{set} is encrypted, and {} beside it is not: `pgtend backups copy {} --to {}` from another store removes it, else delete it",
                objects.join(", "),
                word(set),
                word(store)
            );
            (format!("store {store}"), said)
        });
        let missing = self.databases.iter().flat_map(|database| {
            let newest = database.backup.as_ref().ok().and_then(Option::as_ref);
            let set = newest.map(|newest| newest.set.as_str()).unwrap_or_default();
            database.missing_in.iter().map(move |store| {
                let said =
                    format!("no copy of {set} that counts is in {store}: pgtend backups copy {} --to {}", word(set), word(store));
                (format!("store {store}"), said)
            })
        });
        let of_servers = self.of_servers(now).into_iter().map(|said| ("backup of databases of servers".to_owned(), said));
        let untold = self.untold.iter().map(|untold| (untold::about(untold), untold::in_words(untold)));
        let others = failed.chain(late).chain(fleets).chain(unread).chain(untold).chain(missing).chain(exposed);
        backups.chain(of_servers).chain(others).collect()
    }

    /// Says which databases of servers are backed up by no job, or by none that can work there.
    pub fn of_servers(&self, now: DateTime<Utc>) -> Vec<String> {
        let left_out = match &self.left_out[..] {
            [] => None,
            [one] => Some(fleets::left_out_in_words(one)),
            many => {
                let named = fleets::some_of(many.iter().map(|left_out| format!("{} ({})", left_out.database, left_out.why)));
                let count = match many.iter().any(|left_out| places::parts(&left_out.database).is_some()) {
                    true => format!("{} databases and schemas", units::count(many.len() as u64)),
                    false => format!("{} of servers", units::plural(many.len(), "database")),
                };
                Some(format!("{count} are left out, so no job runs there: {named}"))
            }
        };
        self.uncovered_in_words(now).into_iter().chain(left_out).collect()
    }

    /// Says which databases of servers no job backs up.
    pub fn uncovered_in_words(&self, now: DateTime<Utc>) -> Vec<String> {
        let mut without = self.uncovered.clone();
        without.retain(|name| self.left.iter().all(|left| left.database != *name));
        fleets::uncovered_in_words(&without, &self.by_schemas).into_iter().chain(left::in_words(&self.left, now)).collect()
    }

    /// Returns how old the backup of a database is, and what speaks against it.
    pub fn backup_in_words(&self, database: &OfDatabase, now: DateTime<Utc>) -> String {
        let said = match &database.backup {
            Ok(Some(backup)) => format!("{} ago, {}", units::age(backup.began_at, now), backup.proof_in_words()),
            Ok(None) => database.none_in_words(),
            Err(why) => format!("unknown: {why}"),
        };
        let unsure = database.unsure.as_ref().map(|why| format!(", by its name alone: {why}"));
        let unasked = database.unasked.as_ref().map(Unasked::in_words);
        let unrenewed = database.unrenewed_in_words().map(str::to_owned);
        let others = [
            database.lost_in_words(),
            unrenewed,
            database.idle_in_words(),
            database.unread_in_words(),
            database.missing_in_words(),
            unasked,
        ];
        let others = others.into_iter().flatten().map(|wrong| format!("; {wrong}"));
        [said].into_iter().chain(unsure).chain(others).collect()
    }
}

impl Failed {
    pub fn in_words(&self, now: DateTime<Utc>) -> String {
        format!(
            "{} on {}, run {}: {} {} ago: {}",
            self.job,
            self.database,
            self.run,
            self.outcome,
            units::age(self.at, now),
            self.error
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::standing::{Anothers, Backup};
    use crate::task::backup::whose::Another;

    fn database(backup: Result<Option<Backup>, String>) -> OfDatabase {
        OfDatabase::for_tests("app", backup)
    }

    fn standing(databases: Vec<OfDatabase>) -> Standing {
        Standing {
            configured: Configured::Yes { stores: 1, jobs: 1 },
            databases,
            has_ledger: true,
            is_scheduled: true,
            ..Standing::default()
        }
    }

    fn set() -> Option<Backup> {
        Some(Backup {
            set: "app/nightly/x".to_owned(),
            store: "local".to_owned(),
            began_at: Utc::now(),
            restored_at: None,
            refused_by: None,
            stores: vec!["local".to_owned()],
            measured: None,
        })
    }

    #[test]
    fn the_next_step_is_the_one_that_helps_most() {
        let late = || Late {
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            tick: Utc::now(),
            last_success_at: None,
            is_by_sets: false,
            is_broken: false,
        };
        let failed = || Failed {
            run: 7,
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            at: Utc::now(),
            outcome: "failed".to_owned(),
            error: String::new(),
        };
        let without_job = || OfDatabase { job: None, ..database(Ok(None)) };
        let waiting = |idle| Fleet {
            job: "nightly".to_owned(),
            is_backup: true,
            idle,
            databases: 3,
            well: 2,
            waiting: 1,
            ..Fleet::default()
        };
        let disabled = OfDatabase { idle: Some("is disabled"), ..database(Ok(set())) };
        let newer = |refused_by: Option<&str>| Lost {
            set: "app/nightly/y".to_owned(),
            store: Some("local".to_owned()),
            why: "its bytes are damaged".to_owned(),
            refused_by: refused_by.map(str::to_owned),
        };
        let lost = OfDatabase { lost: Some(newer(None)), ..database(Ok(set())) };
        let unread = Unread { what: "ledger".to_owned(), why: "the ledger did not answer in 5 s".to_owned() };
        let refused = OfDatabase { lost: Some(newer(Some("db:5432 on 2026-11-29: no"))), ..database(Ok(set())) };
        for (standing, expected) in [
            (Standing::default(), "pgtend init"),
            (Standing { configured: Configured::WithMistakes(2), ..Standing::default() }, "pgtend check"),
            (Standing { broken: vec!["x".to_owned()], ..standing(vec![database(Ok(None))]) }, "pgtend check"),
            (standing(vec![without_job()]), "pgtend init"),
            (standing(vec![OfDatabase { in_part: vec!["nightly".to_owned()], ..without_job() }]), "pgtend jobs"),
            (standing(vec![OfDatabase { job: None, ..database(Ok(set())) }]), "pgtend jobs"),
            (Standing { fleets: vec![waiting(None)], ..standing(vec![database(Ok(set()))]) }, "pgtend run-job nightly"),
            (Standing { fleets: vec![waiting(Some("is disabled"))], ..standing(vec![database(Ok(set()))]) }, "pgtend jobs"),
            (standing(vec![database(Ok(None))]), "pgtend run-job nightly"),
            (standing(vec![database(Ok(set())), database(Ok(None))]), "pgtend run-job nightly --database app"),
            (
                Standing { failed: vec![failed()], late: vec![late()], ..standing(vec![database(Ok(set()))]) },
                "pgtend runs show 7",
            ),
            (standing(vec![database(Err("no".to_owned()))]), "pgtend check --connect"),
            (Standing { unread: vec![unread], ..standing(vec![database(Ok(set()))]) }, "pgtend check --connect"),
            (Standing { late: vec![late()], ..standing(vec![database(Ok(set()))]) }, "pgtend serve"),
            (Standing { is_scheduled: false, ..standing(vec![database(Ok(set()))]) }, "pgtend serve"),
            (standing(vec![database(Ok(set()))]), "pgtend jobs"),
            (Standing { is_scheduled: false, ..standing(vec![disabled]) }, "pgtend jobs"),
            (standing(vec![lost]), "pgtend run-job nightly --database app"),
            (standing(vec![refused]), "pgtend backups show app/nightly/y"),
        ] {
            assert_eq!(standing.next().command, expected, "{standing:?}");
            assert!(standing.in_words(Utc::now()).contains(&format!("Next: {expected}")), "{standing:?}");
        }
    }

    #[test]
    fn no_backup_is_called_none_where_a_job_makes_a_part_or_the_sets_are_anothers() {
        let anothers = |is_of_an_earlier_one| Anothers {
            set: "app/nightly/2026-11-30T02-00-00Z".to_owned(),
            whose: Another { identity: Some("71/app".to_owned()), is_of_an_earlier_one },
        };
        let accept = "; if this one was restored from that one, or has replaced it: pgtend backups accept --identity 71/app --database app --job nightly";
        let said = |database: OfDatabase| standing(Vec::new()).backup_in_words(&database, Utc::now());
        let of = |one| OfDatabase { anothers: vec![one], ..database(Ok(None)) };
        let earlier = "none of this database: the sets of its name are of one that was dropped or renamed";
        assert_eq!(said(of(anothers(true))), format!("{earlier}{accept}"));
        let other = "none of this database: the sets of its name are of another server or database, 71/app";
        assert_eq!(said(of(anothers(false))), format!("{other}{accept}"));
        let part = OfDatabase { job: None, in_part: vec!["nightly".to_owned()], ..database(Ok(None)) };
        assert_eq!(said(part), "none of all of it: job nightly backs up a part, as it has filters");
        assert_eq!(said(OfDatabase { job: None, ..database(Ok(None)) }), "none, and no job makes one");
    }
}
