//! Jobs, runs and what they found.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::common::Described;
use crate::archive::Manifest;
use crate::base::story::Line;
use crate::ledger::report::Run;
use crate::ledger::{Gone, LeftOut, MaybeOutcome, Row};
use crate::run::notify::message::Message;
use crate::run::standing::fleets::Fleet;
use crate::store::sign::Signature;
use crate::task::audit::checks;
use crate::task::audit::document::{Counts, Document, Level};
use crate::task::audit::groups::Counted;

/// `jobs`
#[derive(Serialize, JsonSchema)]
pub struct Jobs<'a> {
    pub jobs: Vec<Job<'a>>,
    pub broken: Vec<Broken<'a>>,
    /// Databases that went from their servers in the last 30 days.
    pub gone: &'a [Gone],
    /// Databases that servers have and that patterns take, and on which no job can run.
    pub left_out: &'a [LeftOut],
}

#[derive(Serialize, JsonSchema)]
pub struct Job<'a> {
    pub job: &'a str,
    pub description: Option<&'a str>,
    pub task: &'static str,
    pub databases: &'a [String],
    pub enabled: bool,
    pub schedule: Option<String>,
    pub timezone: &'static str,
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub next_run_at: Option<String>,
    pub timeout_seconds: Option<u64>,
    /// On each database that it ran on; of a job with patterns, only with --all.
    pub last: Vec<LastRun<'a>>,
    /// The patterns in `databases`, if it has some.
    pub patterns: Option<String>,
    /// How it stands, if it has patterns; null with --all.
    pub fleet: Option<&'a Fleet>,
}

#[derive(Serialize, JsonSchema)]
pub struct LastRun<'a> {
    pub database: &'a str,
    pub run: i64,
    pub outcome: MaybeOutcome,
    pub started_at: DateTime<Utc>,
    pub last_success_at: Option<DateTime<Utc>>,
    /// It is under way, skipped or cancelled, and the run before it that proves something did not succeed.
    pub failed_before: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct Broken<'a> {
    pub job: &'a str,
    pub file: &'a str,
    pub reasons: Vec<String>,
}

/// What ran just now: one run for each database, and for each retry.
#[derive(Serialize, JsonSchema)]
pub struct Ended<'a> {
    pub runs: Vec<&'a Run>,
}

/// `runs`
#[derive(Serialize, JsonSchema)]
pub struct Runs {
    pub runs: Vec<Row>,
}

/// `runs show`
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    pub run: Row,
}

/// `logs`
#[derive(Serialize, JsonSchema)]
pub struct Logs<'a> {
    pub run: i64,
    pub job: &'a str,
    pub database: &'a str,
    pub outcome: MaybeOutcome,
    /// The last 200 lines that it logged.
    pub lines: &'a [Line],
    pub stderr: Option<&'a str>,
    pub warnings: &'a [String],
    pub error: Option<&'a str>,
}

/// `archives list`
#[derive(Serialize, JsonSchema)]
pub struct Archives<'a> {
    pub batches: Vec<Batch<'a>>,
    /// Without a valid signature.
    pub not_ours: Vec<Unsigned<'a>>,
    pub broken: Vec<BrokenBatch<'a>>,
    /// Of runs that ended before their batch was complete.
    pub pending: Vec<PendingBatch<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub struct Batch<'a> {
    pub store: &'a str,
    pub batch: String,
    pub identity: Option<String>,
    /// Nobody here knows the names in `manifest`, which are empty.
    pub sealed: bool,
    /// As docs/reference/formats.md has it.
    #[schemars(with = "Described")]
    pub manifest: Manifest,
    pub signature: Signature,
}

#[derive(Serialize, JsonSchema)]
pub struct Unsigned<'a> {
    pub store: &'a str,
    pub batch: String,
    pub signature: Option<Signature>,
}

#[derive(Serialize, JsonSchema)]
pub struct BrokenBatch<'a> {
    pub store: &'a str,
    pub key: &'a str,
    pub reason: &'a str,
}

#[derive(Serialize, JsonSchema)]
pub struct PendingBatch<'a> {
    pub store: &'a str,
    pub batch: String,
    /// null where its file cannot be read.
    pub rows: Option<u64>,
    pub counts: bool,
}

/// `archives restore`
#[derive(Serialize, JsonSchema)]
pub struct PutBack<'a> {
    /// Then it says what would be done.
    pub dry_run: bool,
    /// That were put back.
    pub rows: u64,
    pub batches: &'a [EndedBatch],
}

/// A batch, and what became of it.
#[derive(Serialize, JsonSchema)]
pub struct EndedBatch {
    pub store: String,
    pub batch: String,
    /// That archived its rows.
    pub job: String,
    /// Where its rows go.
    pub database: String,
    /// As in SQL.
    pub table: String,
    pub outcome: BatchOutcome,
    /// That were put back, or are back already; null where that is not known.
    pub rows: Option<u64>,
    /// Why nothing was put back; null where it was.
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchOutcome {
    PutBack,
    AlreadyBack,
    /// Its rows never left, as the server was set back.
    NeverLeft,
    /// Another batch has its rows, as they were when they left the table.
    Replaced,
    Refused,
}

/// `audit`
#[derive(Serialize, JsonSchema)]
pub struct Audit<'a> {
    pub counts: Counts,
    pub groups: Vec<Counted<'a>>,
    /// As docs/audit.md has it.
    #[schemars(with = "Described")]
    pub audit: &'a Document,
}

/// `audit explain`: all checks, or one.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Explain {
    All { checks: Vec<Check> },
    One(Check),
}

#[derive(Serialize, JsonSchema)]
pub struct Check {
    id: &'static str,
    level: Level,
    title: &'static str,
    categories: &'static [&'static str],
    why: &'static str,
    fix: &'static str,
    lock: &'static str,
    cannot_show: Option<&'static str>,
}

impl From<&'static checks::Check> for Check {
    fn from(check: &'static checks::Check) -> Self {
        let checks::Check { id, level, title, categories, why, fix, lock, query: _ } = *check;
        Self { id, level, title, categories, why, fix, lock, cannot_show: checks::cannot_show(id) }
    }
}

/// `notify digest`: what it says, or with a NAME, that it was sent.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Digest<'a> {
    Now(&'a Message),
    Sent(Sent<'a>),
}

/// `notify test`, and `notify digest NAME`: what was sent where.
#[derive(Serialize, JsonSchema)]
pub struct Sent<'a> {
    /// NAME of [notify.NAME].
    pub name: &'a str,
    /// What the service said.
    pub answer: &'a str,
}
