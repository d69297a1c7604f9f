//! What several documents have, and what is printed where a command fails.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::base::toml_file::Mistake;
use crate::run::standing::fleets;

/// An object that docs/reference/formats.md or docs/audit.md describes.
pub type Described = Map<String, Value>;

/// What a command prints that failed before it had printed anything else; mistakes in files are told one by one.
#[derive(Serialize, JsonSchema)]
pub struct Failure<'a> {
    pub error: Error<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Mistake<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Error<'a> {
    /// What failed, and why, on one line.
    pub message: &'a str,
    /// `usage`, `configuration`, `unreachable`, `permission`, `busy`, `not_now`, `unknown`, `timed_out`, `cancelled`, or `failed` for everything else.
    pub kind: &'static str,
    pub exit_code: u8,
    /// What to do, where the message does not say it.
    pub hint: Option<&'a str>,
}

/// How a job with patterns stands on all of its databases.
#[derive(Serialize, JsonSchema)]
pub struct Fleet<'a> {
    pub job: &'a str,
    /// What stands in its file: `tenant_*`.
    pub patterns: &'a str,
    pub databases: usize,
    pub well: usize,
    pub failed: usize,
    /// Late, and not failed.
    pub late: usize,
    /// Of a backup job: a run succeeded, and no set that counts is in its stores. `jobs` asks no store: this and the next three are 0 there.
    pub without_backup: usize,
    /// The newest set does not count, or may be of another database.
    pub in_doubt: usize,
    /// No job that backs it up runs by itself.
    pub not_renewed: usize,
    /// No store could be asked, or not in time.
    pub by_ledger: usize,
    /// Without a success yet, and none of these.
    pub waiting: usize,
    /// The oldest of the last successes.
    pub oldest_success_at: Option<DateTime<Utc>>,
    pub oldest_success_on: Option<&'a str>,
}

impl<'a> From<&'a fleets::Fleet> for Fleet<'a> {
    fn from(fleet: &'a fleets::Fleet) -> Self {
        let oldest = fleet.oldest_success.as_ref();
        Self {
            job: &fleet.job,
            patterns: &fleet.patterns,
            databases: fleet.databases,
            well: fleet.well,
            failed: fleet.failed,
            late: fleet.late,
            without_backup: fleet.without_backup,
            in_doubt: fleet.in_doubt,
            not_renewed: fleet.not_renewed,
            by_ledger: fleet.by_ledger,
            waiting: fleet.waiting,
            oldest_success_at: oldest.map(|(at, _)| *at),
            oldest_success_on: oldest.map(|(_, database)| database.as_str()),
        }
    }
}

/// A store that could not be read.
#[derive(Serialize, JsonSchema)]
pub struct UnreadStore<'a> {
    pub store: &'a str,
    pub reason: Cow<'a, str>,
}
