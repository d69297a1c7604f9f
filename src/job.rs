//! `jobs/NAME.toml`: one job a file; the stem is its name.

mod folder;

pub use folder::{Broken, Folder, load_dir};

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;

use crate::config::{self, Config};
use crate::governor::{self, Limits};
use crate::schedule::{Schedule, Zone};
use crate::task::{self, Task};
use crate::toml_file::{self, Problem, Source, did_you_mean};
use crate::units::Span;

use folder::Loaded;

/// A job, resolved: every name it uses exists.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub path: PathBuf,
    pub description: Option<String>,
    pub schedule: Option<Schedule>,
    pub timezone: Tz,
    /// Names in the configuration; one run for each.
    pub databases: Vec<String>,
    pub timeout: Option<Span>,
    /// False: no tick runs it; by hand it runs.
    pub enabled: bool,
    pub catch_up: CatchUp,
    /// A missed tick older than this is not caught up.
    pub catch_up_within: Duration,
    /// Each job waits for a part of this that is its own, and always the same.
    pub jitter: Option<Duration>,
    /// Further attempts of a run that failed for a reason that may pass; where it is not said, only a scheduled
    /// run of an unreachable database has some.
    pub retries: Option<u32>,
    /// Before the first retry; doubled for each further one.
    pub retry_delay: Duration,
    /// Jobs whose run of the same tick must have ended well before this one starts.
    pub after: Vec<String>,
    /// Without a verified set that young the run is skipped.
    pub require_backup_within: Option<Span>,
    /// So long after its tick a job without success is late; default its timeout, or an hour.
    pub late_after: Duration,
    pub ping_url: Option<SecretString>,
    /// For tasks that touch live tables.
    pub limits: Limits,
    pub task: Task,
}

/// What becomes of ticks that nobody was there to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// The latest of them runs, once.
    #[default]
    Once,
    /// They are left out.
    Skip,
}

/// A missed nightly run is worth catching up until the next night.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(24 * 3600);
const RETRY_DELAY: Duration = Duration::from_secs(60);
const LATE_AFTER: Duration = Duration::from_secs(3600);

impl Job {
    /// The first tick after `after`, in the job's zone; none for a job without a schedule.
    pub fn next_tick(&self, after: DateTime<Utc>) -> Option<DateTime<Tz>> {
        self.schedule.as_ref()?.next_after(after, self.timezone)
    }
}

#[cfg(test)]
impl Job {
    /// With every default, on database `app`.
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
            limits: governor::Written::default().into(),
            task,
        }
    }
}

/// jobs/NAME.toml as written: what every job has, and one table that names the task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "pgtend job (jobs/NAME.toml)")]
pub struct Written {
    pub description: Option<String>,
    /// Five cron fields, six with leading seconds, or @daily and the like; without it, the job runs by hand only.
    pub schedule: Option<Schedule>,
    /// IANA name; default UTC.
    pub timezone: Option<Zone>,
    /// A database of the configuration.
    #[schemars(with = "Option<String>")]
    pub database: Option<Spanned<String>>,
    /// Several: one run for each.
    #[schemars(with = "Option<Vec<String>>")]
    pub databases: Option<Spanned<Vec<Spanned<String>>>>,
    /// The run is cancelled after this long; default none.
    pub timeout: Option<Span>,
    /// false: runs by hand only; default true.
    pub enabled: Option<bool>,
    /// What becomes of ticks that were missed (host down, ledger down): "once" (default) runs the latest, "skip" none.
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
    /// Before the first retry; doubled for each further one, up to an hour; default 1 min.
    pub retry_delay: Option<Span>,
    /// Jobs whose run of the same tick must have ended well first; without `schedule`, this job takes the first's.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub after: Vec<Spanned<String>>,
    /// Skips the run when the database has no verified backup set that young.
    pub require_backup_within: Option<Span>,
    /// The job is late when it has no success this long after a tick; default its timeout, or 1 h.
    pub late_after: Option<Span>,
    /// A healthchecks-style URL: gets /start, then itself or /fail.
    #[schemars(with = "Option<String>")]
    pub ping_url: Option<Spanned<String>>,
    /// The environment variable that holds it.
    #[schemars(with = "Option<String>")]
    pub ping_url_env: Option<Spanned<String>>,
    /// The file that holds it; relative to the job's file.
    #[schemars(with = "Option<PathBuf>")]
    pub ping_url_file: Option<Spanned<PathBuf>>,
    /// How much a task that touches live tables may ask of the server: [compress], [partition], [retention].
    #[schemars(with = "Option<governor::Written>")]
    pub limits: Option<Spanned<governor::Written>>,
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
        let hint = "a job's name is its file's: letters, digits, `-`, `_` and `.`".to_owned();
        problems.push(Problem::with_file(path, format!("`{name}` cannot be a job's name"), Some(hint)));
        return None;
    }
    // A pipe would be waited for, and all other jobs with it.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let hint = Some("a job is an ordinary file".to_owned());
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
    let task = checker.task(WrittenTask {
        audit: written.audit,
        backup: written.backup,
        compress: written.compress,
        partition: written.partition,
        reindex: written.reindex,
        retention: written.retention,
        sql: written.sql,
        vector_index: written.vector_index,
    });
    let limits = checker.limits(written.limits, task.as_ref());
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

/// Resolves the names in one job's file, with each problem at its place.
pub struct Checker<'a> {
    pub source: &'a Source,
    pub config: &'a Config,
    folder: &'a Path,
    /// The file has had mistakes already: a key that is missing may be one of those.
    damaged: bool,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    /// Where the job's file is: other files are named relative to it.
    pub fn folder(&self) -> &Path {
        self.folder
    }

    pub fn problem<T>(&mut self, at: &Spanned<T>, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.problems.push(self.source.problem(Some(at.span()), message, hint.into()));
    }

    pub fn missing(&mut self, message: &str, hint: &str) {
        if !self.damaged {
            self.problems.push(self.source.problem(None, message, Some(hint.to_owned())));
        }
    }

    /// The name of a store or database that the configuration must have.
    pub fn known(&mut self, kind: &str, name: &Spanned<String>) -> bool {
        let names: Vec<&str> = match kind {
            "store" => self.config.stores.keys().map(String::as_str).collect(),
            _ => self.config.databases.keys().map(String::as_str).collect(),
        };
        if names.contains(&name.get_ref().as_str()) {
            return true;
        }
        let hint = did_you_mean(name.get_ref(), names.iter().copied()).unwrap_or_else(|| {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("{} has: {known}; add [{kind}s.{}]", self.config.path.display(), name.get_ref())
        });
        self.problem(name, format!("the configuration has no {kind} `{}`", name.get_ref()), hint);
        false
    }

    fn databases(&mut self, one: Option<Spanned<String>>, several: Option<Spanned<Vec<Spanned<String>>>>) -> Vec<String> {
        let named = match (one, several) {
            (Some(one), None) => vec![one],
            (None, Some(several)) if !several.get_ref().is_empty() => several.into_inner(),
            (None, Some(several)) => {
                self.problem(&several, "`databases` is empty", "name at least one database".to_owned());
                Vec::new()
            }
            (Some(one), Some(_)) => {
                self.problem(&one, "`database` stands beside `databases`", "keep one of them".to_owned());
                Vec::new()
            }
            (None, None) => {
                self.missing("no database", "add database = \"NAME\", with [databases.NAME] in the configuration");
                Vec::new()
            }
        };
        let mut names: Vec<String> = Vec::new();
        for name in named {
            if names.contains(name.get_ref()) {
                self.problem(&name, format!("database `{}` is named twice", name.get_ref()), None);
            } else if self.known("database", &name) {
                names.push(name.into_inner());
            }
        }
        names
    }

    fn http_url(&mut self, secret: config::Secret<'_>, folder: &Path) -> Option<SecretString> {
        let (of, key) = (secret.of, secret.key);
        let (url, place) = secret.read(self.source, folder, self.problems)?;
        config::checked_http_url(url, place, &format!("`{key}` of {of}"), self.source, self.problems)
    }

    /// The one task among the tables that stand in the file.
    fn task(&mut self, written: WrittenTask) -> Option<Task> {
        let WrittenTask { audit, backup, compress, partition, reindex, retention, sql, vector_index } = written;
        let named: Vec<&str> = [
            ("[audit]", audit.is_some()),
            ("[backup]", backup.is_some()),
            ("[compress]", compress.is_some()),
            ("[partition]", partition.is_some()),
            ("[reindex]", reindex.is_some()),
            ("[retention]", retention.is_some()),
            ("[sql]", sql.is_some()),
            ("[vector_index]", vector_index.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| is_there.then_some(name))
        .collect();
        match named.len() {
            0 => self.missing(
                "no task",
                "add a table that says what to do: [audit], [backup], [compress], [partition], [reindex], [retention], [sql] or [vector_index]",
            ),
            1 => {}
            _ => self.missing(&format!("more than one task: {}", named.join(" and ")), "one task a file: make a job of each"),
        }
        let audit = audit.map(|written| task::audit::resolve(written, self).map(Task::Audit));
        let backup = backup.map(|written| task::backup::resolve(written, self).map(Task::Backup));
        let compress = compress.map(|written| task::compress::resolve(written, self).map(Task::Compress));
        let partition = partition.map(|written| task::partition::resolve(written, self).map(Task::Partition));
        let reindex = reindex.map(|written| task::reindex::resolve(written, self).map(Task::Reindex));
        let retention = retention.map(|written| task::retention::resolve(written, self).map(Task::Retention));
        let sql = sql.map(|written| task::sql::resolve(written, self).map(Task::Sql));
        let vector_index = vector_index.map(|written| task::vector_index::resolve(written, self).map(Task::VectorIndex));
        audit.or(backup).or(compress).or(partition).or(reindex).or(retention).or(sql).or(vector_index)?
    }

    fn limits(&mut self, written: Option<Spanned<governor::Written>>, task: Option<&Task>) -> Limits {
        if let (Some(written), Some(Task::Audit(_) | Task::Backup(_) | Task::Sql(_))) = (&written, task) {
            self.problem(
                written,
                "[limits] have no meaning for this task",
                "they bound what [compress], [partition], [reindex], [retention] and [vector_index] ask of the server".to_owned(),
            );
        }
        let written = written.map(Spanned::into_inner).unwrap_or_default();
        if let Some(most) =
            written.max_slowdown.as_ref().filter(|most| *most.get_ref() != 0.0 && !(1.0..=1000.0).contains(most.get_ref()))
        {
            let hint = "1 or more: so many times as long as without the run; 0 turns it off".to_owned();
            self.problem(most, format!("`max_slowdown = {}`", most.get_ref()), hint);
        }
        written.into()
    }
}

/// The tables of a job's file that name its task.
struct WrittenTask {
    audit: Option<task::audit::Written>,
    backup: Option<task::backup::Written>,
    compress: Option<task::compress::Written>,
    partition: Option<task::partition::Written>,
    reindex: Option<task::reindex::Written>,
    retention: Option<task::retention::Written>,
    sql: Option<task::sql::Written>,
    vector_index: Option<task::vector_index::Written>,
}
