//! Where one stands, in words, and the next step: pure.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::fleets::Fleet;
use crate::base::fault;
use crate::base::shell::word;
use crate::base::units;
use crate::ledger::Gone;
use crate::task::backup::gate::{InTheClear, Measured};

#[derive(Debug, Default)]
pub struct Standing {
    pub file: String,
    pub configured: Configured,
    /// Jobs whose files have mistakes.
    pub broken: Vec<String>,
    pub databases: Vec<OfDatabase>,
    pub late: Vec<Late>,
    pub failed: Vec<Failed>,
    /// Jobs with patterns, and databases that went from their servers: their databases are counted, and not in `databases`.
    pub fleets: Vec<Fleet>,
    pub gone: Vec<Gone>,
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

/// The newest intact backup of a database.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Backup {
    pub set: String,
    pub store: String,
    pub began_at: DateTime<Utc>,
    pub restored_at: Option<DateTime<Utc>>,
    /// Who refused the last restore of it, when and why.
    pub refused_by: Option<String>,
    /// The stores that have a copy of it that counts.
    #[serde(skip)]
    pub stores: Vec<String>,
    /// How long a restore takes, as the last one of a set that counts has shown.
    #[serde(skip)]
    pub measured: Option<Measured>,
}

impl Backup {
    /// Says what was done to prove it.
    pub fn proof_in_words(&self) -> String {
        match (self.restored_at, &self.refused_by) {
            (None, None) => "read back, not restored".to_owned(),
            (None, Some(by)) => format!("not proved: refused by {by}"),
            (Some(at), by) => {
                let since = by.as_ref().map(|by| format!(", and refused since by {by}")).unwrap_or_default();
                format!("restored on {}{since}", at.format("%Y-%m-%d"))
            }
        }
    }
}

#[derive(Debug)]
pub struct OfDatabase {
    pub name: String,
    /// A job that backs up all of it: one that runs by itself, if there is one.
    pub job: Option<String>,
    /// Why that job does not run by itself.
    pub idle: Option<&'static str>,
    /// Or why nobody knows.
    pub backup: Result<Option<Backup>, String>,
    /// The newest set that is newer than the backup and lost.
    pub lost: Option<Lost>,
    /// The backup has the database's name, and its server could not be asked whose it is: why.
    pub unsure: Option<String>,
    /// Stores of its backup jobs that were not read: they may have a newer set. Without a backup job, any store.
    pub unread: Vec<String>,
    /// What stands in the clear beside encrypted sets of it.
    pub in_the_clear: Vec<InTheClear>,
    /// Others are restored beside it, and it has nothing of its own.
    pub needs_none: bool,
}

/// A set that cannot be relied upon: it is damaged, cannot be read, is dated in the future, or was refused by a server for its data; or it was proved and is
/// gone.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Lost {
    pub set: String,
    /// null where no store has it.
    pub store: Option<String>,
    pub why: String,
    /// Who refused it for its data, when and why, where that is the reason.
    pub refused_by: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Late {
    pub job: String,
    pub database: String,
    pub tick: DateTime<Utc>,
    pub last_success_at: Option<DateTime<Utc>>,
    /// The ledger knows nothing of its schedule, and the success is the newest set.
    #[serde(skip)]
    pub is_by_sets: bool,
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
        if self.databases.iter().any(|database| database.job.is_none()) {
            return step("pgtend init", "adds a backup job for the databases that have none");
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
        if self.fleets.iter().any(|fleet| fleet.failed > 0) {
            return step("pgtend runs --outcome failed", "shows why runs on some databases failed");
        }
        if !self.late.is_empty() || self.fleets.iter().any(|fleet| fleet.late > 0) {
            return step("pgtend serve", "runs what is due: is it running, or are the timers?");
        }
        if self.databases.iter().any(|database| database.idle.is_some()) {
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
        for OfDatabase { backup, lost, unsure, .. } in &mut self.databases {
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
            let is_sure = database.unsure.is_none() && database.lost.is_none() && database.idle.is_none();
            !matches!(database.backup, Ok(Some(_))) || !is_sure || database.refused().is_some()
        });
        let backups = not_backed_up.map(|database| {
            let needs_a_run = !matches!(database.backup, Ok(Some(_))) || database.lost.is_some();
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
            let what_to_do = "is `pgtend serve` running, or are the timers?";
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
        backups.chain(failed).chain(late).chain(fleets).chain(unread).chain(exposed).collect()
    }

    /// Returns how old the backup of a database is, and what speaks against it.
    pub fn backup_in_words(&self, database: &OfDatabase, now: DateTime<Utc>) -> String {
        let said = match (&database.backup, &database.job) {
            (Ok(Some(backup)), _) => {
                format!("{} ago, {}", units::age(backup.began_at, now), backup.proof_in_words())
            }
            (Ok(None), _) if database.lost.is_some() => "none".to_owned(),
            (Ok(None), Some(_)) => "none yet".to_owned(),
            (Ok(None), None) => "none, and no job makes one".to_owned(),
            (Err(why), _) => format!("unknown: {why}"),
        };
        let unsure = database.unsure.as_ref().map(|why| format!(", by its name alone: {why}"));
        let others = [database.lost_in_words(), database.idle_in_words(), database.unread_in_words()];
        let others = others.into_iter().flatten().map(|wrong| format!("; {wrong}"));
        [said].into_iter().chain(unsure).chain(others).collect()
    }
}

impl OfDatabase {
    /// Returns whether nothing about its backup needs a person.
    pub fn is_well(&self) -> bool {
        matches!(self.backup, Ok(Some(_))) && self.wrongs().is_empty()
    }

    /// Says what is wrong with a backup that is there, one thing a sentence.
    pub fn wrongs(&self) -> Vec<String> {
        let unsure = self.unsure.as_ref().map(|why| format!("it is the backup of this database by its name alone: {why}"));
        let refused = self.backup.as_ref().ok().and_then(|backup| backup.as_ref()?.refused_by.as_ref());
        let refused = refused.map(|by| format!("it was refused by {by}"));
        let wrongs = [unsure, refused, self.lost_in_words(), self.idle_in_words(), self.unread_in_words()];
        wrongs.into_iter().flatten().collect()
    }

    fn lost_in_words(&self) -> Option<String> {
        let Lost { set, store, why, refused_by } = self.lost.as_ref()?;
        let newest = if matches!(self.backup, Ok(Some(_))) { "a newer one" } else { "the newest" };
        let place = store.as_ref().map(|store| format!(" in {store}")).unwrap_or_default();
        Some(match refused_by {
            Some(by) => format!("{newest}, {set}{place}, is not proved: refused by {by}"),
            None => format!("{newest}, {set}{place}, does not count: {why}"),
        })
    }

    fn idle_in_words(&self) -> Option<String> {
        let (job, why) = self.job.as_ref().zip(self.idle)?;
        Some(format!("its job {job} {why}"))
    }

    /// Names the stores that may have a newer backup than the one that was found. Where none was found, the reason for that names them.
    fn unread_in_words(&self) -> Option<String> {
        let is_found = matches!(self.backup, Ok(Some(_)));
        let were = if self.unread.len() == 1 { "was" } else { "were" };
        (is_found && !self.unread.is_empty())
            .then(|| format!("{} {were} not read, and may have a newer one", self.unread.join(", ")))
    }

    /// A database that a job backs up, of which nothing else is known.
    #[cfg(test)]
    pub fn for_tests(name: &str, backup: Result<Option<Backup>, String>) -> Self {
        Self {
            name: name.to_owned(),
            job: Some("nightly".to_owned()),
            idle: None,
            backup,
            lost: None,
            unsure: None,
            unread: Vec::new(),
            in_the_clear: Vec::new(),
            needs_none: false,
        }
    }

    /// The newest set, where a server refused to restore it.
    pub fn refused(&self) -> Option<&str> {
        let newer = self.lost.as_ref().map(|lost| (&lost.set, &lost.refused_by));
        let counts = || self.backup.as_ref().ok()?.as_ref().map(|backup| (&backup.set, &backup.refused_by));
        let (set, refused_by) = newer.or_else(counts)?;
        refused_by.as_ref().map(|_| set.as_str())
    }
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
        };
        let failed = || Failed {
            run: 7,
            job: "nightly".to_owned(),
            database: "app".to_owned(),
            at: Utc::now(),
            outcome: "failed".to_owned(),
            error: String::new(),
        };
        let without_job = OfDatabase { job: None, ..database(Ok(None)) };
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
            (standing(vec![without_job]), "pgtend init"),
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
}
