//! One file of a job, as written, and as resolved by what it names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::{CATCH_UP_WITHIN, CatchUp, Chosen, Job, LATE_AFTER, RETRY_DELAY, TIMEOUT_OF_CHOSEN};
use crate::base::schedule::{Schedule, Zone};
use crate::base::toml_file::{self, Document, Known, Problem, Read, Source, without_number};
use crate::base::units::Span;
use crate::config::checker::Checker;
use crate::config::{self, Config, Names, habits, limits};
use crate::task::{self, Task};

/// A job, and what can only be checked against the other jobs.
pub struct Loaded {
    pub job: Job,
    pub source: Source,
    pub after: Vec<Spanned<String>>,
    /// What is allowed, and probably not meant.
    pub notes: Vec<String>,
}

/// A file has `database` or `databases`.
fn a_database() -> serde_json::Value {
    serde_json::json!([{ "required": ["database"], "not": { "required": ["databases"] } }, { "required": ["databases"], "not": { "required": ["database"] } }])
}

/// Declares jobs/NAME.toml with a table for each task.
macro_rules! written {
    ($($kind:ident: $Task:ident,)+) => {
        /// jobs/NAME.toml as written: keys that every job has, and one table that names the task.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[schemars(title = "pgtend job (jobs/NAME.toml)", extend("oneOf" = one_task(), "anyOf" = a_database()))]
        pub struct Written {
            /// What the job is for; lists and the page show it, with the database's own name for `{database}`.
            pub description: Option<String>,
            /// Five cron fields, six with leading seconds, or @daily and the like; a job without a schedule is only run by hand.
            pub schedule: Option<Schedule>,
            /// The time zone's IANA name; default UTC.
            pub timezone: Option<Zone>,
            /// The name of a configured database.
            #[schemars(with = "Option<String>", example = &"app")]
            pub database: Option<Spanned<String>>,
            /// Several databases, with one run for each: a list of names and patterns, or one pattern. "tenant_*" stands for all that the
            /// configuration and its servers have, by the database's own name or by its name in the configuration.
            #[schemars(with = "Option<Names>", example = ["app", "other"])]
            pub databases: Option<Spanned<Names>>,
            /// The run is cancelled after this time; no limit by default.
            pub timeout: Option<Span>,
            /// false: the job is only run by hand; default true.
            pub enabled: Option<bool>,
            /// How missed ticks are handled (host down, ledger down): "once" (default) runs the latest, "skip" none.
            #[serde(default)]
            pub catch_up: CatchUp,
            /// A missed tick older than this is not caught up; default 24 h.
            pub catch_up_within: Option<Span>,
            /// Spreads jobs with the same schedule, and the databases of one job: each starts up to this much later, always by the same amount.
            pub jitter: Option<Span>,
            /// Further attempts of a run that failed for a reason that may pass (not: privileges, configuration, timeout);
            /// at most 20; default 0, but 5 for scheduled runs whose database is unreachable.
            #[schemars(with = "Option<u32>", range(max = 20))]
            pub retries: Option<Spanned<u32>>,
            /// The pause before the first retry; it doubles for each further one, up to an hour; default 1 min.
            pub retry_delay: Option<Span>,
            /// Jobs whose run of the same tick must have succeeded first; without `schedule`, this job takes the schedule of the first.
            #[serde(default)]
            #[schemars(with = "Vec<String>", example = ["backup-nightly"])]
            pub after: Vec<Spanned<String>>,
            /// Skips the run when the database has no verified backup set younger than this.
            pub require_backup_within: Option<Span>,
            /// The job is late when it has had no success this long after a tick; default its timeout, or 1 h.
            pub late_after: Option<Span>,
            /// A healthchecks-style URL: a run's start goes to URL/start, its success to the URL itself, its failure to URL/fail.
            #[schemars(with = "Option<String>", regex(pattern = r"^https?://"), example = &"https://hc-ping.com/ID")]
            pub ping_url: Option<Spanned<String>>,
            /// The environment variable that holds the URL.
            #[schemars(with = "Option<String>")]
            pub ping_url_env: Option<Spanned<String>>,
            /// The file that holds the URL; relative to the job's file.
            #[schemars(with = "Option<PathBuf>")]
            pub ping_url_file: Option<Spanned<PathBuf>>,
            /// The places [notify.NAME] that are told of this job, each of what its `on` says; [] for none. Default: all of them.
            #[schemars(with = "Option<Vec<String>>", extend("uniqueItems" = true), example = ["ops"])]
            pub notify: Option<Vec<Spanned<String>>>,
            /// How much a task that touches live tables may demand from the server: [compress], [partition], [retention].
            #[schemars(with = "Option<limits::Written>")]
            pub limits: Option<Spanned<limits::Written>>,
            $(
                #[doc = concat!("The task [", stringify!($kind), "].")]
                pub $kind: Option<task::$kind::Written>,
            )+
        }

        /// A file has one task.
        fn one_task() -> serde_json::Value {
            serde_json::json!([$({ "required": [stringify!($kind)] },)+])
        }

        impl Written {
            /// Takes the tables that name the task.
            fn take_task(&mut self) -> task::Written {
                task::Written { $($kind: self.$kind.take(),)+ }
            }
        }
    };
}

task::each_task!(written);

impl Document for Written {
    fn known() -> &'static Known {
        static KNOWN: OnceLock<Known> = OnceLock::new();
        KNOWN.get_or_init(|| Known::of::<Self>(habits::OF_JOBS, habits::WORDS, "docs/jobs.md"))
    }
}

pub fn load_file(path: &Path, config: &Config, problems: &mut Vec<Problem>) -> Option<Loaded> {
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
            problems.push(Problem::with_file(path, format!("cannot read the job: {}", without_number(&error)), None));
            return None;
        }
    };
    let before = problems.len();
    let Read { value: mut written, notes, .. } = toml_file::parse::<Written>(&source, problems)?;
    let tables = written.take_task();
    let mut checker = Checker {
        source: &source,
        config,
        folder: path.parent().unwrap_or(Path::new(".")),
        damaged: problems.len() > before,
        problems,
        files: Vec::new(),
    };
    let (databases, patterns) = checker.databases(written.database, written.databases);
    let ping_url = config::Secret {
        key: "ping_url",
        of: "the job",
        literal: written.ping_url,
        env: written.ping_url_env,
        file: written.ping_url_file,
    };
    let ping_url = checker.http_url(ping_url);
    if let Some(retries) = written.retries.as_ref().filter(|retries| *retries.get_ref() > 20) {
        checker.problem(retries, format!("`retries = {}` is out of range", retries.get_ref()), "0 to 20: retries = 3".to_owned());
    }
    let notify = written.notify.map(|names| checker.places_for_messages(names));
    let task = Task::resolve(tables, &mut checker);
    let limits = Task::limits(task.as_ref(), written.limits, &mut checker);
    let chosen = Chosen::by(&databases, patterns);
    let databases = match &chosen {
        Some(chosen) => chosen.of(&config.entries()),
        None => databases,
    };
    let job = Job {
        name,
        path: path.to_owned(),
        description: written.description,
        schedule: written.schedule,
        timezone: written.timezone.map_or(Tz::UTC, |zone| zone.0),
        databases,
        timeout: written.timeout.or(chosen.is_some().then_some(TIMEOUT_OF_CHOSEN)),
        chosen,
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
        notify,
        limits,
        files: checker.files,
        task: task?,
    };
    Some(Loaded { job, source, after: written.after, notes })
}
