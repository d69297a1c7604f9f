//! A database, with its newest backup, and what speaks against it.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use crate::base::shell::word;
use crate::task::backup::gate::{InTheClear, Measured};
use crate::task::backup::set_name::SetName;
use crate::task::backup::whose::Another;

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

#[derive(Clone, Debug)]
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
    /// Stores of the backup's job without a copy of it that counts.
    pub missing_in: Vec<String>,
    /// Newer sets of this name that are of another database, the newest first.
    pub anothers: Vec<Anothers>,
    /// What stands in the clear beside encrypted sets of it.
    pub in_the_clear: Vec<InTheClear>,
    /// The ledger was not asked, so that only the stores say how it stands.
    pub unasked: Option<Unasked>,
    /// Others are restored beside it, and it has nothing of its own.
    pub needs_none: bool,
    /// Jobs back up its schemas one by one, which is no backup of the database.
    pub by_schemas: bool,
    /// Jobs with filters: each backs up a part of it.
    pub in_part: Vec<String>,
}

/// A set that has this database's name, and is of another. Only a person knows whether this one was restored from that one, or has replaced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anothers {
    pub set: String,
    pub whose: Another,
}

impl Anothers {
    /// Says whose the sets are, and how a person says that they are this database's.
    fn in_words(&self, name: &str) -> String {
        let Another { identity, is_of_an_earlier_one } = &self.whose;
        let whose = match (is_of_an_earlier_one, identity) {
            (true, _) => "one that was dropped or renamed".to_owned(),
            (false, Some(identity)) => format!("another server or database, {identity}"),
            (false, None) => "another server or database".to_owned(),
        };
        let accept = identity.as_ref().zip(self.set.parse::<SetName>().ok()).map(|(identity, set)| {
            let command =
                format!("pgtend backups accept --identity {} --database {} --job {}", word(identity), word(name), word(&set.job));
            format!("; if this one was restored from that one, or has replaced it: {command}")
        });
        format!("the sets of its name are of {whose}{}", accept.unwrap_or_default())
    }
}

/// Why the ledger was not asked, and since when not, where that is known. It alone knows of a proved set that is gone from the stores, and of late jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unasked {
    pub since: Option<DateTime<Utc>>,
    pub why: String,
}

impl Unasked {
    pub fn in_words(&self) -> String {
        let since = self.since.map_or_else(String::new, |since| format!(" since {}", since.format("%Y-%m-%d %H:%M:%S UTC")));
        format!("the ledger was not asked{since}, and may know of a newer backup that is lost and of a late job: {}", self.why)
    }
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

impl OfDatabase {
    /// Says what is wrong with a backup that is there, one thing a sentence. That the ledger was not asked is no fault of the backup.
    pub fn wrongs(&self) -> Vec<String> {
        let unsure = self.unsure.as_ref().map(|why| format!("it is the backup of this database by its name alone: {why}"));
        let refused = self.backup.as_ref().ok().and_then(|backup| backup.as_ref()?.refused_by.as_ref());
        let refused = refused.map(|by| format!("it was refused by {by}"));
        let unrenewed = self.unrenewed_in_words().map(str::to_owned);
        let (lost, idle, unread, missing) =
            (self.lost_in_words(), self.idle_in_words(), self.unread_in_words(), self.missing_in_words());
        let wrongs = [unsure, refused, lost, unrenewed, idle, unread, missing];
        wrongs.into_iter().flatten().collect()
    }

    /// Returns whether something speaks against the backup that is there.
    pub fn is_in_doubt(&self) -> bool {
        self.lost.is_some() || self.unsure.is_some() || self.refused().is_some()
    }

    /// The first thing that is wrong.
    pub fn wrongs_in_short(&self) -> String {
        self.lost_in_words().or_else(|| self.wrongs().into_iter().next()).unwrap_or_else(|| {
            let is_anothers = !self.anothers.is_empty() && matches!(self.backup, Ok(None));
            if is_anothers { self.none_in_words() } else { "none".to_owned() }
        })
    }

    /// Says why there is no backup.
    pub fn none_in_words(&self) -> String {
        match (&self.job, self.anothers.first()) {
            _ if self.lost.is_some() => "none".to_owned(),
            (_, Some(anothers)) => format!("none of this database: {}{}", anothers.in_words(&self.name), self.no_job_in_words()),
            (Some(_), None) => "none yet".to_owned(),
            (None, None) if self.by_schemas => {
                "none of all of it, and no job makes one: its schemas are backed up one by one".to_owned()
            }
            (None, None) if !self.in_part.is_empty() => {
                let jobs = self.in_part.join(", ");
                match self.in_part.len() {
                    1 => format!("none of all of it: job {jobs} backs up a part, as it has filters"),
                    _ => format!("none of all of it: jobs {jobs} back up a part each, as they have filters"),
                }
            }
            (None, None) => "none, and no job makes one".to_owned(),
        }
    }

    fn no_job_in_words(&self) -> &'static str {
        if self.job.is_none() { "; and no job makes one" } else { "" }
    }

    pub(super) fn missing_in_words(&self) -> Option<String> {
        (!self.missing_in.is_empty()).then(|| format!("no copy that counts in {}", self.missing_in.join(", ")))
    }

    pub(super) fn lost_in_words(&self) -> Option<String> {
        let Lost { set, store, why, refused_by } = self.lost.as_ref()?;
        let newest = if matches!(self.backup, Ok(Some(_))) { "a newer one" } else { "the newest" };
        let place = store.as_ref().map(|store| format!(" in {store}")).unwrap_or_default();
        Some(match refused_by {
            Some(by) => format!("{newest}, {set}{place}, is not proved: refused by {by}"),
            None => format!("{newest}, {set}{place}, does not count: {why}"),
        })
    }

    /// A backup that is there is not for long the newest state of the database.
    pub(super) fn unrenewed_in_words(&self) -> Option<&'static str> {
        (self.job.is_none() && matches!(self.backup, Ok(Some(_)))).then_some("no job makes another one")
    }

    pub(super) fn idle_in_words(&self) -> Option<String> {
        let (job, why) = self.job.as_ref().zip(self.idle)?;
        Some(format!("its job {job} {why}"))
    }

    /// Names the stores that may have a newer backup than the one that was found. Where none was found, the reason for that names them.
    pub(super) fn unread_in_words(&self) -> Option<String> {
        let is_found = matches!(self.backup, Ok(Some(_)));
        let were = if self.unread.len() == 1 { "was" } else { "were" };
        (is_found && !self.unread.is_empty())
            .then(|| format!("{} {were} not read, and may have a newer one", self.unread.join(", ")))
    }

    /// A database of which nobody was asked yet. `job`: that backs it up; `idle`: why that does not run by itself.
    pub(super) fn unasked(name: &str, job: Option<&str>, idle: Option<&'static str>) -> Self {
        Self {
            name: name.to_owned(),
            job: job.map(str::to_owned),
            idle,
            backup: Ok(None),
            lost: None,
            unsure: None,
            unread: Vec::new(),
            missing_in: Vec::new(),
            anothers: Vec::new(),
            in_the_clear: Vec::new(),
            unasked: None,
            needs_none: false,
            by_schemas: false,
            in_part: Vec::new(),
        }
    }

    /// A database that a job backs up, of which nothing else is known.
    #[cfg(test)]
    pub fn for_tests(name: &str, backup: Result<Option<Backup>, String>) -> Self {
        Self { backup, ..Self::unasked(name, Some("nightly"), None) }
    }

    /// The newest set, where a server refused to restore it.
    pub fn refused(&self) -> Option<&str> {
        let newer = self.lost.as_ref().map(|lost| (&lost.set, &lost.refused_by));
        let counts = || self.backup.as_ref().ok()?.as_ref().map(|backup| (&backup.set, &backup.refused_by));
        let (set, refused_by) = newer.or_else(counts)?;
        refused_by.as_ref().map(|_| set.as_str())
    }
}
