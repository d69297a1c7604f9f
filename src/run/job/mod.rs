//! `jobs/NAME.toml`: a file has one job, and its stem is the job's name.

mod chosen;
mod file;
mod folder;
mod schemas;

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
pub use chosen::Chosen;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
pub use file::Written;
pub use folder::{Broken, Folder, load_dir};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::base::fault::{Fault, Kind};
use crate::base::schedule::Schedule;
use crate::base::units::Span;
use crate::config::limits::Limits;
use crate::config::{Config, NamedFile, places, servers};
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
    /// The databases' names in the configuration, or those of places ([`Config::place`]) where the job has `schemas`; the job has one run for each. Of
    /// those that patterns choose, the ones of servers, and the schemas, are there once they were found, and all are in the order of their names.
    pub databases: Vec<String>,
    /// How they are chosen, where patterns do, or where the job has `schemas`.
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
pub const LATE_AFTER: Duration = Duration::from_secs(3600);

impl Job {
    /// Returns the facts that tasks of other jobs may ask for.
    pub fn in_short(&self) -> Other {
        Other { name: self.name.clone(), databases: self.databases.clone(), enabled: self.enabled, does: self.task.does() }
    }

    /// Returns whether it runs on the place of this name: of those that patterns choose, on the ones that were found.
    pub fn runs_on(&self, place: &str) -> bool {
        match self.chosen {
            // There may be tens of thousands.
            Some(_) => self.databases.binary_search_by(|name| name.as_str().cmp(place)).is_ok(),
            None => self.databases.iter().any(|name| name == place),
        }
    }

    /// Returns whether it runs on the place of this name if there is such a one, by the configuration alone: nobody is asked. Nothing that acts may rest on
    /// this.
    pub fn would_run_on(&self, place: &str, config: &Config) -> bool {
        self.runs_on(place) || self.chosen.as_ref().is_some_and(|chosen| chosen.takes(place, config))
    }

    /// Returns its task as a run does it on this place: a backup of one schema is that of this schema alone.
    pub fn task_on(&self, config: &Config, place: &str) -> Cow<'_, Task> {
        let schema = config.place(place).and_then(|place| place.schema.clone());
        let of_schema = schema.and_then(|schema| self.task.of_schema(&schema));
        of_schema.map_or(Cow::Borrowed(&self.task), Cow::Owned)
    }

    /// Returns whether its places are schemas.
    pub fn has_schemas(&self) -> bool {
        self.chosen.as_ref().is_some_and(Chosen::has_schemas)
    }

    /// Returns what it has one run for each of: "database" or "schema".
    pub fn has_runs_for(&self) -> &'static str {
        if self.has_schemas() { "schema" } else { "database" }
    }

    /// Returns the description for the run on one place, by the own names of database and schema, or for all, by what stands in the file.
    pub fn description_for(&self, place: &str) -> Option<String> {
        let (database, schema) = match (self.has_schemas(), places::parts(place)) {
            (true, Some((database, schema))) => (database, schema),
            // As it stands in the file: `app:tenant_*`.
            (true, None) => {
                place.rsplit_once(':').map_or((place, String::new()), |(database, schema)| (database, schema.to_owned()))
            }
            _ => (place, String::new()),
        };
        let own = servers::parts(database).map_or_else(|| database.to_owned(), |(_, own)| own);
        self.description.as_ref().map(|text| text.replace("{database}", &own).replace("{schema}", &schema))
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
