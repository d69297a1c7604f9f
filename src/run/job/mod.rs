//! `jobs/NAME.toml`: a file has one job, and its stem is the job's name.

mod folder;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use folder::Loaded;
pub use folder::{Broken, Folder, load_dir};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;

use crate::base::schedule::{Schedule, Zone};
use crate::base::toml_file::{self, Problem, Source};
use crate::base::units::Span;
use crate::config::checker::Checker;
use crate::config::limits::{self, Limits};
use crate::config::{self, Config};
use crate::task::{self, Task};
use crate::work::Other;

/// A resolved job: every name that it uses exists.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub path: PathBuf,
    pub description: Option<String>,
    pub schedule: Option<Schedule>,
    pub timezone: Tz,
    /// The databases' names in the configuration; the job has one run for each.
    pub databases: Vec<String>,
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
    /// Limits for tasks that touch live tables.
    pub limits: Limits,
    pub task: Task,
}

/// What happens to ticks that were missed.
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
const LATE_AFTER: Duration = Duration::from_secs(3600);

impl Job {
    /// Returns the facts that tasks of other jobs may ask for.
    pub fn in_short(&self) -> Other {
        Other { name: self.name.clone(), databases: self.databases.clone(), enabled: self.enabled, does: self.task.does() }
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
            limits: limits::Written::default().into(),
            task,
        }
    }
}

/// jobs/NAME.toml as written: keys that every job has, and one table that names the task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "pgtend job (jobs/NAME.toml)")]
pub struct Written {
    pub description: Option<String>,
    /// Five cron fields, six with leading seconds, or @daily and the like; a job without a schedule is only run by hand.
    pub schedule: Option<Schedule>,
    /// The time zone's IANA name; default UTC.
    pub timezone: Option<Zone>,
    /// The name of a configured database.
    #[schemars(with = "Option<String>")]
    pub database: Option<Spanned<String>>,
    /// Several databases, with one run for each.
    #[schemars(with = "Option<Vec<String>>")]
    pub databases: Option<Spanned<Vec<Spanned<String>>>>,
    /// The run is cancelled after this time; no limit by default.
    pub timeout: Option<Span>,
    /// false: the job is only run by hand; default true.
    pub enabled: Option<bool>,
    /// What happens to ticks that were missed (host down, ledger down): "once" (default) runs the latest, "skip" none.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// A missed tick older than this is not caught up; default 24 h.
    pub catch_up_within: Option<Span>,
    /// Spreads jobs with the same schedule: each starts up to this much later, always by the same amount.
    pub jitter: Option<Span>,
    /// Further attempts of a run that failed for a reason that may pass (not: privileges, configuration, timeout);
    /// at most 20; default 0, but 5 for scheduled runs whose database is unreachable.
    #[schemars(with = "Option<u32>")]
    pub retries: Option<Spanned<u32>>,
    /// The pause before the first retry; it doubles for each further one, up to an hour; default 1 min.
    pub retry_delay: Option<Span>,
    /// Jobs whose run of the same tick must have succeeded first; without `schedule`, this job takes the schedule of the first.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub after: Vec<Spanned<String>>,
    /// Skips the run when the database has no verified backup set younger than this.
    pub require_backup_within: Option<Span>,
    /// The job is late when it has had no success this long after a tick; default its timeout, or 1 h.
    pub late_after: Option<Span>,
    /// A healthchecks-style URL: a run's start goes to URL/start, its success to the URL itself, its failure to URL/fail.
    #[schemars(with = "Option<String>")]
    pub ping_url: Option<Spanned<String>>,
    /// The environment variable that holds the URL.
    #[schemars(with = "Option<String>")]
    pub ping_url_env: Option<Spanned<String>>,
    /// The file that holds the URL; relative to the job's file.
    #[schemars(with = "Option<PathBuf>")]
    pub ping_url_file: Option<Spanned<PathBuf>>,
    /// How much a task that touches live tables may demand from the server: [compress], [partition], [retention].
    #[schemars(with = "Option<limits::Written>")]
    pub limits: Option<Spanned<limits::Written>>,
    pub audit: Option<task::audit::Written>,
    pub backup: Option<task::backup::Written>,
    pub compress: Option<task::compress::Written>,
    pub partition: Option<task::partition::Written>,
    pub reindex: Option<task::reindex::Written>,
    pub retention: Option<task::retention::Written>,
    pub sql: Option<task::sql::Written>,
    pub vector_index: Option<task::vector_index::Written>,
}

fn load_file(path: &Path, config: &Config, problems: &mut Vec<Problem>) -> Option<Loaded> {
    let name = path.file_stem()?.to_string_lossy().into_owned();
    if !name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) || name.starts_with(['-', '.']) {
        let hint = "a job is named after its file: letters, digits, `-`, `_` and `.`".to_owned();
        problems.push(Problem::with_file(path, format!("`{name}` cannot be a job's name"), Some(hint)));
        return None;
    }
    // Opening a pipe would block, and all other jobs with it.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let hint = Some("a job must be a regular file".to_owned());
        problems.push(Problem::with_file(path, "this is a pipe, a socket or a device, and is not read", hint));
        return None;
    }
    let source = match Source::read(path) {
        Ok(source) => source,
        Err(error) => {
            problems.push(Problem::with_file(path, format!("cannot read the job: {error}"), None));
            return None;
        }
    };
    let before = problems.len();
    let written: Written = toml_file::parse(&source, problems)?;
    let mut checker = Checker {
        source: &source,
        config,
        folder: path.parent().unwrap_or(Path::new(".")),
        damaged: problems.len() > before,
        problems,
    };
    let databases = checker.databases(written.database, written.databases);
    let ping_url = config::Secret {
        key: "ping_url",
        of: "the job",
        literal: written.ping_url,
        env: written.ping_url_env,
        file: written.ping_url_file,
    };
    let ping_url = checker.http_url(ping_url, path.parent().unwrap_or(Path::new(".")));
    if let Some(retries) = written.retries.as_ref().filter(|retries| *retries.get_ref() > 20) {
        checker.problem(retries, format!("`retries = {}`", retries.get_ref()), "0 to 20".to_owned());
    }
    let task = Task::resolve(
        task::Written {
            audit: written.audit,
            backup: written.backup,
            compress: written.compress,
            partition: written.partition,
            reindex: written.reindex,
            retention: written.retention,
            sql: written.sql,
            vector_index: written.vector_index,
        },
        &mut checker,
    );
    let limits = Task::limits(task.as_ref(), written.limits, &mut checker);
    let job = Job {
        name,
        path: path.to_owned(),
        description: written.description,
        schedule: written.schedule,
        timezone: written.timezone.map_or(Tz::UTC, |zone| zone.0),
        databases,
        timeout: written.timeout,
        enabled: written.enabled.unwrap_or(true),
        catch_up: written.catch_up,
        catch_up_within: written.catch_up_within.map_or(CATCH_UP_WITHIN, |span| span.0),
        jitter: written.jitter.map(|span| span.0),
        retries: written.retries.map(Spanned::into_inner),
        retry_delay: written.retry_delay.map_or(RETRY_DELAY, |span| span.0),
        after: Vec::new(),
        require_backup_within: written.require_backup_within,
        late_after: written.late_after.or(written.timeout).map_or(LATE_AFTER, |span| span.0),
        ping_url,
        limits,
        task: task?,
    };
    Some(Loaded { job, source, after: written.after })
}
