//! What several documents have, and what is printed where a command fails.

use schemars::JsonSchema;
use serde_json::{Map, Value};

/// An object that docs/reference/formats.md or docs/audit.md describes.
pub type Described = Map<String, Value>;

/// A moment, as RFC 3339 has it.
#[derive(JsonSchema)]
#[schemars(inline, extend("format" = "date-time"))]
pub struct Moment(String);

/// What a command prints that failed before it had printed anything else; mistakes in files are told one by one.
#[derive(JsonSchema)]
pub struct Failure {
    error: Error,
    #[schemars(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

#[derive(JsonSchema)]
pub struct Error {
    /// What failed, and why, on one line.
    message: String,
    /// `usage`, `configuration`, `unreachable`, `permission`, `busy`, `not_now`, `unknown`, `timed_out`, `cancelled`, or `failed` for everything else.
    kind: String,
    exit_code: u8,
    /// What to do, where the message does not say it.
    hint: Option<String>,
}

/// A mistake in a file.
#[derive(JsonSchema)]
pub struct Problem {
    file: String,
    /// From 1.
    line: Option<u64>,
    /// From 1.
    column: Option<u64>,
    message: String,
    hint: Option<String>,
}

/// How a job with patterns stands on all of its databases.
#[derive(JsonSchema)]
pub struct Fleet {
    job: String,
    /// What stands in its file: `tenant_*`.
    patterns: String,
    databases: u64,
    well: u64,
    failed: u64,
    /// Late, and not failed.
    late: u64,
    /// Of a backup job: a run succeeded, and no set that counts is in its stores. `jobs` asks no store: this and the next three are 0 there.
    without_backup: u64,
    /// The newest set does not count, or may be of another database.
    in_doubt: u64,
    /// No job that backs it up runs by itself.
    not_renewed: u64,
    /// No store could be asked, or not in time.
    by_ledger: u64,
    /// Without a success yet, and none of these.
    waiting: u64,
    /// The oldest of the last successes.
    oldest_success_at: Option<Moment>,
    oldest_success_on: Option<String>,
}

/// A database that went from its server; its sets stay.
#[derive(JsonSchema)]
pub struct Gone {
    database: String,
    gone_at: Moment,
}

/// A store that could not be read.
#[derive(JsonSchema)]
pub struct UnreadStore {
    store: String,
    reason: String,
}
