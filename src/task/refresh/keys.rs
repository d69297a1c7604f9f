//! `[refresh]`: the keys of a job, as written and resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::base::units::Span;
use crate::config::checker::Checker;
use crate::task::backup::sessions::SESSIONS_MOST;
use crate::task::sql;

const KEEP_OLD: Span = Span(Duration::from_secs(7 * 86_400));

/// Long enough for a page or a job of an application to end.
const WAIT: Span = Span(Duration::from_secs(60));

/// `[refresh]`, resolved.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// The job whose sets are restored, by its name.
    pub from: String,
    /// The database of that job and its store, by their names in the configuration that made the sets; None: as the job has them here.
    pub from_database: Option<String>,
    pub store: Option<String>,
    pub sets: Sets,
    pub max_age: Option<Span>,
    /// The user's statements, which run in the copy before anyone sees it: first these, then those of the file.
    pub after: Vec<String>,
    pub after_file: Option<PathBuf>,
    /// Queries that must be true in the copy after that.
    pub expect: Vec<String>,
    /// The search_path of both; None: that of the source.
    pub search_path: Option<String>,
    /// False: a drill. The copy is removed.
    pub swap: bool,
    pub keep_old: Span,
    /// True: a copy that was restored and then failed stays for a look, closed, for as long as an old database.
    pub keep_failed: bool,
    /// How long the swap waits for sessions in the target.
    pub wait: Span,
    /// True: sessions that are still there then are terminated.
    pub terminate: bool,
    pub create_roles: bool,
    pub no_owner: bool,
    pub role_map: BTreeMap<String, String>,
    /// In place of the source's.
    pub encoding: Option<String>,
    pub locale: Option<String>,
    /// How many sessions restore; None: by default.
    pub sessions: Option<usize>,
}

/// `[refresh]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["from"]))]
pub struct Written {
    /// The backup job whose newest set is restored. Where this configuration lacks the job, `store` and `from_database` say where its sets
    /// are.
    #[schemars(example = &"backup-nightly")]
    pub from: Option<String>,
    /// The database of `from`, by its name in the configuration that made the sets; needed if the job has several, or is not in this
    /// configuration.
    pub from_database: Option<String>,
    /// The store with its sets; default: that of the job.
    #[schemars(with = "Option<String>")]
    pub store: Option<Spanned<String>>,
    /// "proved" (default): only a set whose bytes were read back and are intact; "complete": also one that nobody has read, but none that
    /// is damaged.
    #[serde(default)]
    pub sets: Sets,
    /// The set may be at most this old; otherwise the run fails. No limit by default.
    pub max_age: Option<Span>,
    /// SQL that runs in the copy before anyone else can connect to it, such as masking: in this order, in one session.
    #[schemars(with = "Vec<String>", example = ["UPDATE users SET email = id || '@example.org'"])]
    #[serde(default)]
    pub after: Vec<Spanned<String>>,
    /// A file of SQL that runs after that; relative to the job's file.
    pub after_file: Option<PathBuf>,
    /// Queries of one value, which must be true in the copy afterwards: otherwise nothing is swapped.
    #[schemars(with = "Vec<String>", example = ["SELECT count(*) > 0 FROM public.users"])]
    #[serde(default)]
    pub expect: Vec<Spanned<String>>,
    /// The search_path of `after` and `expect`; default: that of the source's database, or "public".
    pub search_path: Option<String>,
    /// false: a drill. The set is restored, changed and checked, and removed again; default true.
    pub swap: Option<bool>,
    /// How long the replaced database is kept, under another name; default 7 days. A later run drops it.
    #[schemars(with = "Option<Span>")]
    pub keep_old: Option<Spanned<Span>>,
    /// true: a copy that was restored, and in which SQL or a query then failed, is kept for `keep_old`, closed to all; default false.
    #[serde(default)]
    pub keep_failed: bool,
    /// How long the swap waits until nobody is connected to the database; default 1 min.
    #[schemars(with = "Option<Span>")]
    pub wait: Option<Spanned<Span>>,
    /// true: sessions that are still connected after `wait` are terminated; default false: then nothing is swapped, and the run is skipped.
    #[schemars(with = "Option<bool>")]
    pub terminate: Option<Spanned<bool>>,
    /// true: roles that the server lacks are created, without LOGIN; default false.
    #[serde(default)]
    pub create_roles: bool,
    /// true: everything belongs to the role that restores; default false.
    #[serde(default)]
    pub no_owner: bool,
    /// Other roles in place of those of the source, as owners and in grants: { app = "staging_app" }.
    #[serde(default)]
    pub role_map: BTreeMap<String, String>,
    /// The encoding of the new database, in place of the source's.
    pub encoding: Option<String>,
    /// Its locale, in place of the source's: a libc locale, "icu:NAME" or "builtin:NAME".
    pub locale: Option<String>,
    /// Number of sessions that restore; default: the processors of the host, at most 4.
    #[schemars(with = "Option<usize>", range(min = 1, max = SESSIONS_MOST), example = 4)]
    pub sessions: Option<Spanned<usize>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sets {
    #[default]
    Proved,
    Complete,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Refresh> {
    if written.from.is_none() {
        checker.missing("[refresh] has no backup job", "add from = \"JOB\", the job whose newest set is restored");
    }
    if let Some(store) = &written.store {
        checker.known("store", store);
    }
    for statement in &written.after {
        if let Some((message, hint)) = sql::refusal(statement.get_ref()) {
            checker.problem(statement, message, hint);
        }
        is_not_empty(statement, "after", "write a statement: \"UPDATE users SET email = id || '@example.org'\"", checker);
    }
    for statement in &written.expect {
        is_not_empty(statement, "expect", "write a query of one value: \"SELECT count(*) > 0 FROM t\"", checker);
    }
    if let Some(sessions) = written.sessions.as_ref().filter(|sessions| !(1..=SESSIONS_MOST).contains(sessions.get_ref())) {
        checker.problem(
            sessions,
            format!("`sessions = {}` is out of range", sessions.get_ref()),
            format!("set 1 to {SESSIONS_MOST}"),
        );
    }
    let swap = written.swap.unwrap_or(true);
    if !swap {
        let hint = || "a drill replaces no database: remove the key, or swap = false".to_owned();
        if let Some(key) = &written.keep_old {
            checker.problem(key, "`keep_old` with swap = false", hint());
        }
        if let Some(key) = &written.wait {
            checker.problem(key, "`wait` with swap = false", hint());
        }
        if let Some(key) = &written.terminate {
            checker.problem(key, "`terminate` with swap = false", hint());
        }
    }
    Some(Refresh {
        from: written.from?,
        from_database: written.from_database,
        store: written.store.map(Spanned::into_inner),
        sets: written.sets,
        max_age: written.max_age,
        after: written.after.into_iter().map(Spanned::into_inner).collect(),
        after_file: written.after_file.map(|file| checker.file_with_sql("after_file", &file)),
        expect: written.expect.into_iter().map(Spanned::into_inner).collect(),
        search_path: written.search_path,
        swap,
        keep_old: written.keep_old.map_or(KEEP_OLD, Spanned::into_inner),
        keep_failed: written.keep_failed,
        wait: written.wait.map_or(WAIT, Spanned::into_inner),
        terminate: written.terminate.is_some_and(Spanned::into_inner),
        create_roles: written.create_roles,
        no_owner: written.no_owner,
        role_map: written.role_map,
        encoding: written.encoding,
        locale: written.locale,
        sessions: written.sessions.map(Spanned::into_inner),
    })
}

fn is_not_empty(statement: &Spanned<String>, key: &str, hint: &str, checker: &mut Checker<'_>) {
    if sql::commands(statement.get_ref()).is_empty() {
        checker.problem(statement, format!("an empty statement in `{key}`"), hint.to_owned());
    }
}
