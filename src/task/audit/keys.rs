//! `[audit]`: the keys of a job, as written and resolved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Spanned;

use super::checks;
use super::checks::CHECKS;
use super::document::{Level, Waiver};
use crate::base::toml_file::did_you_mean;
use crate::base::units::Span;
use crate::config::checker::Checker;

/// Two years of quarterly audits.
const KEEP: u32 = 8;

/// Long enough to include a month's end and its reports.
const STATISTICS_AGE: Span = Span(Duration::from_secs(30 * 86_400));

const BACKUP_WITHIN: Span = Span(Duration::from_secs(7 * 86_400));

/// A session that a pool leaves idle for this long is not needed at the moment.
const IDLE_AFTER: Span = Span(Duration::from_secs(600));

const CHECK_TIMEOUT: Span = Span(Duration::from_secs(10));
const AUDIT_TIMEOUT: Span = Span(Duration::from_secs(600));

/// `[audit]`, resolved.
#[derive(Clone, Debug)]
pub struct Audit {
    pub store: Option<String>,
    pub schema_file: Option<PathBuf>,
    pub scratch: Option<String>,
    /// The [databases] entry that the schema is compared with, in the place of `schema_file`.
    pub against: Option<String>,
    /// None: findings do not fail the run.
    pub fail_on: Option<Level>,
    pub waive: Vec<Waiver>,
    pub keep: usize,
    pub statistics_age: Duration,
    pub backup_within: Span,
    pub check_timeout: Duration,
    pub audit_timeout: Duration,
    pub idle_after: Duration,
    pub profile: Profile,
    /// By the ID of the check.
    pub checks: BTreeMap<String, CheckSetting>,
}

/// How findings of conventions and of small tables count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What follows a convention of its schema is one line, and low; so are findings of small tables, where harm grows with the table.
    #[default]
    Application,
    /// Each object counts by itself, as its check says.
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckSetting {
    Off,
    Low,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            store: None,
            schema_file: None,
            scratch: None,
            against: None,
            fail_on: Some(Level::Critical),
            waive: Vec::new(),
            keep: KEEP as usize,
            statistics_age: STATISTICS_AGE.0,
            backup_within: BACKUP_WITHIN,
            check_timeout: CHECK_TIMEOUT.0,
            audit_timeout: AUDIT_TIMEOUT.0,
            idle_after: IDLE_AFTER.0,
            profile: Profile::default(),
            checks: BTreeMap::new(),
        }
    }
}

/// `[audit]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The store for reports as JSON, Markdown and HTML; the next audit is compared with the last one there.
    #[schemars(with = "Option<String>", example = &"local")]
    pub store: Option<Spanned<String>>,
    /// SQL that creates the intended schema (pg_dump --schema-only): drift against it is reported. Relative to the job's file.
    #[schemars(with = "Option<PathBuf>", example = &"schema.sql")]
    pub schema_file: Option<Spanned<PathBuf>>,
    /// The [databases] entry on whose server `schema_file` is loaded into a temporary database; default: the database's own server.
    #[schemars(with = "Option<String>")]
    pub scratch: Option<Spanned<String>>,
    /// A [databases] entry: drift against it is reported, in the place of `schema_file`. It is only read.
    #[schemars(with = "Option<String>")]
    pub against: Option<Spanned<String>>,
    /// The run fails when it finds something of at least this priority; default "critical".
    pub fail_on: Option<FailOn>,
    /// Findings that are accepted and do not count: `{ key = "…", reason = "…", until = 2027-01-31 }`.
    #[schemars(example = json!([{ "key": "fk-unindexed:public.orders(user_id)", "reason": "it is small" }]))]
    #[serde(default)]
    pub waive: Vec<WrittenWaiver>,
    /// The number of audits kept in the store; default 8.
    #[schemars(with = "Option<u32>", range(min = 1), example = 8)]
    pub keep: Option<Spanned<u32>>,
    /// An index counts as unused if statistics at least this old show no use of it; default 30 days.
    pub statistics_age: Option<Span>,
    /// The newest verified backup may be at most this old; default 7 days.
    pub backup_within: Option<Span>,
    /// Longest time for one check; what it has not looked at by then is unknown; default 10 s.
    pub check_timeout: Option<Span>,
    /// Longest time for all checks; those that were not made by then are unknown; default 10 min.
    pub audit_timeout: Option<Span>,
    /// Sessions of a pool that have been idle for longer than this are reported, as are those that idle in a transaction, and prepared transactions that are older; default 10 min.
    pub idle_after: Option<Span>,
    /// "application": findings that follow a convention of their schema, and those of small tables, are low; "strict": each object counts by
    /// itself; default "application".
    pub profile: Option<Profile>,
    /// Checks that are not run ("off") or whose findings are low ("low"): `{ "comments-missing" = "off" }`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, CheckSetting>", example = json!({ "comments-missing": "off" }))]
    pub checks: BTreeMap<String, Spanned<CheckSetting>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    Critical,
    High,
    Medium,
    Low,
    Never,
}

impl FailOn {
    pub fn level(self) -> Option<Level> {
        match self {
            Self::Critical => Some(Level::Critical),
            Self::High => Some(Level::High),
            Self::Medium => Some(Level::Medium),
            Self::Low => Some(Level::Low),
            Self::Never => None,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenWaiver {
    /// The key as in the report; a `*` at its end matches any ending.
    #[schemars(with = "String", example = &"fk-unindexed:public.orders(user_id)")]
    pub key: Spanned<String>,
    /// The reason why the finding is accepted.
    pub reason: String,
    /// The last day on which the waiver holds (a TOML date, UTC).
    #[schemars(with = "String", extend("format" = "date"), example = &"2027-01-31")]
    pub until: Spanned<toml::value::Datetime>,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Audit> {
    let default = Audit::default();
    let mut is_right = true;
    if let Some(store) = &written.store {
        is_right &= checker.known("store", store);
    }
    if let Some(scratch) = &written.scratch {
        is_right &= checker.known("database", scratch);
    }
    if let Some(against) = &written.against {
        is_right &= checker.known("database", against);
        if written.schema_file.is_some() || written.scratch.is_some() {
            let hint = "leave out one of them: make two jobs to compare with both";
            checker.problem(against, "`against` takes the place of `schema_file` and `scratch`", hint.to_owned());
            is_right = false;
        }
    }
    if let Some(keep) = written.keep.as_ref().filter(|keep| *keep.get_ref() == 0) {
        checker.problem(
            keep,
            "`keep = 0` would keep no audit",
            "set 1 or more: the next audit is compared with the last one".to_owned(),
        );
        is_right = false;
    }
    let schema_file = written.schema_file.map(|file| checker.file_with_sql("schema_file", file.get_ref()));
    let mut waive = Vec::new();
    for waiver in written.waive {
        match resolve_waiver(waiver, checker) {
            Some(waiver) => waive.push(waiver),
            None => is_right = false,
        }
    }
    let mut checks = BTreeMap::new();
    for (id, setting) in written.checks {
        is_right &= is_known(&id, &setting, checker);
        checks.insert(id, setting.into_inner());
    }
    is_right.then(|| Audit {
        store: written.store.map(Spanned::into_inner),
        schema_file,
        scratch: written.scratch.map(Spanned::into_inner),
        against: written.against.map(Spanned::into_inner),
        fail_on: written.fail_on.map_or(default.fail_on, FailOn::level),
        waive,
        keep: written.keep.map_or(default.keep, |keep| keep.into_inner() as usize),
        statistics_age: written.statistics_age.map_or(default.statistics_age, |age| age.0),
        backup_within: written.backup_within.unwrap_or(default.backup_within),
        check_timeout: written.check_timeout.map_or(default.check_timeout, |timeout| timeout.0),
        audit_timeout: written.audit_timeout.map_or(default.audit_timeout, |timeout| timeout.0),
        idle_after: written.idle_after.map_or(default.idle_after, |after| after.0),
        profile: written.profile.unwrap_or_default(),
        checks,
    })
}

fn is_known<T>(id: &str, at: &Spanned<T>, checker: &mut Checker<'_>) -> bool {
    if checks::find(id).is_some() {
        return true;
    }
    let hint = did_you_mean(id, CHECKS.iter().map(|check| check.id));
    let hint = hint.unwrap_or_else(|| "`pgtend audit explain` lists the checks".to_owned());
    checker.problem(at, format!("there is no check `{id}`"), hint);
    false
}

fn resolve_waiver(written: WrittenWaiver, checker: &mut Checker<'_>) -> Option<Waiver> {
    let key = written.key.get_ref();
    let id = key.split([':', '*']).next().unwrap_or_default();
    if checks::find(id).is_none() {
        let hint = did_you_mean(id, CHECKS.iter().map(|check| check.id));
        let hint = hint.unwrap_or_else(|| {
            "a key begins with its check: \"fk-unindexed:public.orders(user_id)\"; `pgtend audit` shows keys".to_owned()
        });
        checker.problem(&written.key, format!("there is no check `{id}`"), hint);
        return None;
    }
    if !key.contains([':', '*']) {
        checker.problem(&written.key, "this waiver can match no finding", format!("for all findings of the check: \"{key}:*\""));
        return None;
    }
    let date = written.until.get_ref().date.filter(|_| written.until.get_ref().time.is_none());
    let date = date.and_then(|date| NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into()));
    let Some(until) = date else {
        checker.problem(&written.until, "`until` is not a date", "write it without quotes: until = 2027-01-31".to_owned());
        return None;
    };
    Some(Waiver { key: written.key.into_inner(), reason: written.reason, until })
}
