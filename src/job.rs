//! `jobs/NAME.toml`: one job a file; the stem is its name.

use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::config::Config;
use crate::schedule::{Schedule, Zone};
use crate::task::{self, Task};
use crate::toml_file::{self, Problem, Source, did_you_mean};
use crate::units::Span;

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
    pub task: Task,
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
    pub backup: Option<task::backup::Written>,
}

/// Reads every `*.toml` in `folder`, in the order of their names. Mistakes go to `problems`.
pub fn load_dir(folder: &Path, config: &Config, problems: &mut Vec<Problem>) -> Vec<Job> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let hint = "name the folder with --jobs DIR".to_owned();
            problems.push(Problem::with_file(folder, format!("cannot read the folder of jobs: {error}"), Some(hint)));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| load_file(path, config, problems)).collect()
}

fn load_file(path: &Path, config: &Config, problems: &mut Vec<Problem>) -> Option<Job> {
    let name = path.file_stem()?.to_string_lossy().into_owned();
    if !name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) || name.starts_with(['-', '.']) {
        let hint = "a job's name is its file's: letters, digits, `-`, `_` and `.`".to_owned();
        problems.push(Problem::with_file(path, format!("`{name}` cannot be a job's name"), Some(hint)));
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
    let mut checker = Checker { source: &source, config, damaged: problems.len() > before, problems };
    let databases = checker.databases(written.database, written.databases);
    let task = match written.backup {
        Some(backup) => checker.backup(backup).map(Task::Backup),
        None => {
            checker.missing("no task", "add a table that says what to do: [backup]");
            None
        }
    };
    Some(Job {
        name,
        path: path.to_owned(),
        description: written.description,
        schedule: written.schedule,
        timezone: written.timezone.map_or(Tz::UTC, |zone| zone.0),
        databases,
        timeout: written.timeout,
        task: task?,
    })
}

/// Resolves the names in one job's file, with each problem at its place.
pub struct Checker<'a> {
    pub source: &'a Source,
    pub config: &'a Config,
    /// The file has had mistakes already: a key that is missing may be one of those.
    damaged: bool,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
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

    fn backup(&mut self, written: task::backup::Written) -> Option<task::backup::Backup> {
        task::backup::resolve(written, self)
    }
}
