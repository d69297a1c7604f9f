//! `jobs/NAME.toml`: a file has one job, and its stem is the job's name.

mod file;
mod folder;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
pub use file::Written;
pub use folder::{Broken, Folder, load_dir};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::base::fault::{Fault, Kind};
use crate::base::pattern::Pattern;
use crate::base::schedule::Schedule;
use crate::base::units::Span;
use crate::config::limits::Limits;
use crate::config::servers::{self, Candidate};
use crate::config::{Config, NamedFile};
use crate::task::Task;
use crate::work::Other;

/// A resolved job: every name that it uses exists.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub path: PathBuf,
    pub description: Option<String>,
    pub schedule: Option<Schedule>,
    pub timezone: Tz,
    /// The databases' names in the configuration; the job has one run for each. Of those that patterns choose, the ones of servers are there once they
    /// were found.
    pub databases: Vec<String>,
    /// How they are chosen, where patterns do.
    pub chosen: Option<Chosen>,
    pub timeout: Option<Span>,
    /// False when no tick runs the job; it can still be run by hand.
    pub enabled: bool,
    pub catch_up: CatchUp,
    /// A missed tick older than this is not caught up.
    pub catch_up_within: Duration,
    /// Each job waits for a fixed part of this that is its own.
    pub jitter: Option<Duration>,
    /// Further attempts of a run that failed for a reason that may pass. If unset, only a scheduled run of an unreachable
    /// database gets some.
    pub retries: Option<u32>,
    /// The pause before the first retry; it doubles for each further one.
    pub retry_delay: Duration,
    /// Jobs whose run of the same tick must have succeeded before this one starts.
    pub after: Vec<String>,
    /// A run without a verified set that is younger than this is skipped.
    pub require_backup_within: Option<Span>,
    /// A job is late when this much time has passed since a tick without a success; default its timeout, or an hour.
    pub late_after: Duration,
    pub ping_url: Option<SecretString>,
    /// The places for messages that are told of it; `None` means all.
    pub notify: Option<Vec<String>>,
    /// Limits for tasks that touch live tables.
    pub limits: Limits,
    /// The files that its keys name.
    pub files: Vec<NamedFile>,
    pub task: Task,
}

/// A job with patterns in `databases` has the databases that they stand for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Those that the file names beside the patterns.
    pub named: Vec<String>,
    pub patterns: Vec<Pattern>,
}

impl Chosen {
    /// Returns those that the file names, and those of the candidates that a pattern stands for, in the order of their names.
    pub fn of<'c>(&self, candidates: impl IntoIterator<Item = &'c Candidate>) -> Vec<String> {
        let taken = candidates.into_iter().filter(|candidate| self.takes(candidate));
        let all: BTreeSet<&String> = self.named.iter().chain(taken.map(|candidate| &candidate.name)).collect();
        all.into_iter().cloned().collect()
    }

    /// Returns whether a pattern may stand for a database of this server.
    pub fn may_be_of(&self, server: &str) -> bool {
        let is_of_it = |pattern: &Pattern| pattern.around_dot().is_none_or(|(before, _)| before.matches(server));
        self.patterns.iter().any(is_of_it)
    }

    /// Returns the patterns that stand for nothing as long as the configuration stays as it is: those with a dot that name no server and no entry.
    pub fn of_nothing(&self, config: &Config) -> Vec<&Pattern> {
        let entries = config.entries();
        let is_of_nothing = |pattern: &&Pattern| {
            let before = pattern.around_dot().map(|(before, _)| before);
            before.is_some_and(|before| !config.servers.keys().any(|server| before.matches(server)))
                && !entries.iter().any(|entry| entry.is_meant_by(pattern))
        };
        self.patterns.iter().filter(is_of_nothing).collect()
    }

    fn takes(&self, candidate: &Candidate) -> bool {
        self.patterns.iter().any(|pattern| candidate.is_meant_by(pattern))
    }

    fn by(named: &[String], patterns: Vec<Pattern>) -> Option<Self> {
        (!patterns.is_empty()).then(|| Self { named: named.to_vec(), patterns })
    }
}

impl fmt::Display for Chosen {
    /// Writes what stands in the file: `tenant_*, shop`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns = self.patterns.iter().map(Pattern::as_str);
        f.write_str(&patterns.chain(self.named.iter().map(String::as_str)).collect::<Vec<_>>().join(", "))
    }
}

/// How missed ticks are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// The latest of them runs, once.
    #[default]
    Once,
    /// They are skipped.
    Skip,
}

/// A missed nightly run is worth catching up until the next night.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(24 * 3600);
const RETRY_DELAY: Duration = Duration::from_secs(60);
/// Databases that patterns choose have owners of their own, whose code a restore may run: one that sleeps would hold a turn of its server for ever.
const TIMEOUT_OF_CHOSEN: Span = Span(Duration::from_secs(6 * 3600));
const LATE_AFTER: Duration = Duration::from_secs(3600);

impl Job {
    /// Returns the facts that tasks of other jobs may ask for.
    pub fn in_short(&self) -> Other {
        Other { name: self.name.clone(), databases: self.databases.clone(), enabled: self.enabled, does: self.task.does() }
    }

    /// Returns whether it runs on the database of this name: of those that patterns choose, on the ones that were found.
    pub fn runs_on(&self, database: &str) -> bool {
        self.databases.iter().any(|name| name == database)
    }

    /// Returns whether it runs on the database of this name if there is such a one, by the configuration alone: no server is asked. Nothing that acts may rest
    /// on this.
    pub fn would_run_on(&self, database: &str, config: &Config) -> bool {
        let is_chosen = |chosen: &Chosen| config.candidate(database).is_some_and(|candidate| chosen.takes(&candidate));
        self.runs_on(database) || self.chosen.as_ref().is_some_and(is_chosen)
    }

    /// Returns the description for the run on one database, by that database's own name.
    pub fn description_for(&self, database: &str) -> Option<String> {
        let own = servers::parts(database).map_or_else(|| database.to_owned(), |(_, own)| own);
        self.description.as_ref().map(|text| text.replace("{database}", &own))
    }

    /// Returns the job's task as a `T`; an error names the job whose task is another one. `kind` is the task's name in files.
    pub fn task_of<T: 'static>(&self, kind: &str) -> Result<&T> {
        self.task.as_a().ok_or_else(|| {
            let message = format!("job `{}` is a [{}] job; this command needs [{kind}]", self.name, self.task.kind());
            Fault::new(Kind::Configuration, message).into()
        })
    }

    /// Returns the first tick after `after`, in the job's zone; none for a job without a schedule.
    pub fn next_tick(&self, after: DateTime<Utc>) -> Option<DateTime<Tz>> {
        self.schedule.as_ref()?.next_after(after, self.timezone)
    }
}

#[cfg(test)]
impl Job {
    /// Returns a job with every default, on database `app`.
    pub fn for_tests(name: &str, task: Task) -> Self {
        Self {
            name: name.to_owned(),
            path: PathBuf::new(),
            description: None,
            schedule: None,
            timezone: Tz::UTC,
            databases: vec!["app".to_owned()],
            chosen: None,
            timeout: None,
            enabled: true,
            catch_up: CatchUp::Once,
            catch_up_within: CATCH_UP_WITHIN,
            jitter: None,
            retries: None,
            retry_delay: RETRY_DELAY,
            after: Vec::new(),
            require_backup_within: None,
            late_after: LATE_AFTER,
            ping_url: None,
            notify: None,
            limits: crate::config::limits::Written::default().into(),
            files: Vec::new(),
            task,
        }
    }
}
