//! Where one stands: whether each database has a backup that counts, what is late, what failed, and the next step. `read` asks, what is here is pure.
//! `pgtend` alone, `pgtend doctor` and the status page judge by it.

pub mod read;

use chrono::{DateTime, Utc};

use crate::base::shell::word;
use crate::base::units;
use crate::task::backup::gate::Measured;

#[derive(Debug, Default)]
pub struct Standing {
    pub file: String,
    pub configured: Configured,
    /// Jobs whose files have mistakes.
    pub broken: Vec<String>,
    pub databases: Vec<OfDatabase>,
    pub late: Vec<Late>,
    pub failed: Vec<Failed>,
    pub has_ledger: bool,
    /// A scheduler has seen the jobs.
    pub is_scheduled: bool,
    /// What did not answer, besides.
    pub unread: Vec<String>,
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
#[derive(Clone, Debug)]
pub struct Backup {
    pub set: String,
    pub store: String,
    pub began_at: DateTime<Utc>,
    pub restored_at: Option<DateTime<Utc>>,
    /// The stores that have a copy of it that counts.
    pub stores: Vec<String>,
    /// How long a restore takes, as the last one of a set that counts has shown.
    pub measured: Option<Measured>,
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
}

/// A set that cannot be relied upon: it is damaged, cannot be read, or is dated in the future.
#[derive(Clone, Debug)]
pub struct Lost {
    pub set: String,
    pub store: String,
    pub why: String,
}

#[derive(Debug)]
pub struct Late {
    pub job: String,
    pub database: String,
    pub tick: DateTime<Utc>,
    pub last_success_at: Option<DateTime<Utc>>,
    /// The ledger knows nothing of its schedule, and the success is the newest set.
    pub is_by_sets: bool,
}

#[derive(Debug)]
pub struct Failed {
    pub run: i64,
    pub job: String,
    pub database: String,
    pub at: DateTime<Utc>,
    pub outcome: String,
    pub error: String,
}

/// A command, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        if !self.late.is_empty() {
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

    /// Returns what a person should look at, each with what it is about.
    pub fn attention(&self, now: DateTime<Utc>) -> Vec<(String, String)> {
        let not_backed_up = self.databases.iter().filter(|database| !database.is_well());
        let backups = not_backed_up.map(|database| {
            let needs_a_run = !matches!(database.backup, Ok(Some(_))) || database.lost.is_some();
            let job = database.job.as_ref().filter(|_| needs_a_run);
            let job = job.map(|job| format!(": pgtend run-job {}", word(job))).unwrap_or_default();
            (format!("backup of {}", database.name), format!("{}{job}", database.backup_in_words(now)))
        });
        let failed = self
            .failed
            .iter()
            .map(|failed| (format!("job {}", failed.job), format!("{}: pgtend runs show {}", failed.in_words(now), failed.run)));
        let late = self.late.iter().map(|late| {
            let what_to_do = "is `pgtend serve` running, or are the timers?";
            (format!("job {}", late.job), format!("{}: {what_to_do}", late.in_words(now)))
        });
        let unread = self.unread.iter().map(|said| ("ledger".to_owned(), said.clone()));
        backups.chain(failed).chain(late).chain(unread).collect()
    }
}

impl OfDatabase {
    /// Returns whether nothing about its backup needs a person.
    pub fn is_well(&self) -> bool {
        matches!(self.backup, Ok(Some(_))) && self.wrongs().is_empty()
    }

    /// Says what its newest backup is, and what is wrong with that.
    pub fn backup_in_words(&self, now: DateTime<Utc>) -> String {
        let said = match &self.backup {
            Ok(Some(backup)) => format!("{} ago, {}", units::age(backup.began_at, now), backup.proved_in_words()),
            Ok(None) if self.lost.is_some() => "none".to_owned(),
            Ok(None) if self.job.is_some() => "none yet".to_owned(),
            Ok(None) => "none, and no job makes one".to_owned(),
            Err(why) => format!("unknown: {why}"),
        };
        let unsure = self.unsure.as_ref().map(|why| format!(", by its name alone: {why}"));
        let others = self.lost_in_words().into_iter().chain(self.idle_in_words()).map(|wrong| format!("; {wrong}"));
        [said].into_iter().chain(unsure).chain(others).collect()
    }

    /// Says what is wrong with a backup that is there, one thing a sentence.
    pub fn wrongs(&self) -> Vec<String> {
        let unsure = self.unsure.as_ref().map(|why| format!("whose backup it is could not be asked: {why}"));
        unsure.into_iter().chain(self.lost_in_words()).chain(self.idle_in_words()).collect()
    }

    fn lost_in_words(&self) -> Option<String> {
        let Lost { set, store, why } = self.lost.as_ref()?;
        let newest = if matches!(self.backup, Ok(Some(_))) { "a newer one" } else { "the newest" };
        Some(format!("{newest}, {set} in {store}, does not count: {why}"))
    }

    fn idle_in_words(&self) -> Option<String> {
        let (job, why) = self.job.as_ref().zip(self.idle)?;
        Some(format!("its job {job} {why}"))
    }
}

impl Backup {
    /// Says what was done to prove it.
    pub fn proved_in_words(&self) -> String {
        let on = |at: DateTime<Utc>| format!("restored on {}", at.format("%Y-%m-%d"));
        self.restored_at.map_or("read back, not restored".to_owned(), on)
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
