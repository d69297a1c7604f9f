//! Jobs, runs and what they found.

use schemars::JsonSchema;

use super::common::{Described, Fleet, Gone, Moment};

/// `jobs`
#[derive(JsonSchema)]
pub struct Jobs {
    jobs: Vec<Job>,
    broken: Vec<Broken>,
    /// Databases that went from their servers in the last 30 days.
    gone: Vec<Gone>,
}

#[derive(JsonSchema)]
struct Job {
    job: String,
    description: Option<String>,
    task: String,
    databases: Vec<String>,
    enabled: bool,
    schedule: Option<String>,
    timezone: String,
    next_run_at: Option<Moment>,
    timeout_seconds: Option<u64>,
    /// On each database that it ran on; of a job with patterns, only with --all.
    last: Vec<LastRun>,
    /// The patterns in `databases`, if it has some.
    patterns: Option<String>,
    /// How it stands, if it has patterns; null with --all.
    fleet: Option<Fleet>,
}

#[derive(JsonSchema)]
struct LastRun {
    database: String,
    run: i64,
    outcome: Option<Outcome>,
    started_at: Moment,
    last_success_at: Option<Moment>,
    /// It is under way, skipped or cancelled, and the run before it that proves something did not succeed.
    failed_before: bool,
}

#[derive(JsonSchema)]
struct Broken {
    job: String,
    file: String,
    reasons: Vec<String>,
}

/// How a run ended; null while it is under way.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Outcome {
    Succeeded,
    Skipped,
    Failed,
    TimedOut,
    Cancelled,
    Crashed,
}

/// What ran just now: one run for each database.
#[derive(JsonSchema)]
pub struct Ended {
    runs: Vec<EndedRun>,
}

#[derive(JsonSchema)]
struct EndedRun {
    /// Its number in the ledger.
    id: Option<i64>,
    job: String,
    database: String,
    trigger: String,
    #[schemars(skip_serializing_if = "Option::is_none")]
    scheduled_for: Option<Moment>,
    attempt: u32,
    started_at: Moment,
    finished_at: Moment,
    outcome: Outcome,
    /// Of a dry run.
    #[schemars(skip_serializing_if = "Option::is_none")]
    plan: Option<serde_json::Value>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    report: Option<Report>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(JsonSchema)]
struct Report {
    /// One line for people.
    summary: String,
    /// Counts and names; keys carry their unit. docs/reference/tasks has those of each task.
    facts: Described,
    /// What to look at although the run succeeded.
    warnings: Vec<String>,
    /// What it did in which order; only the ledger has it.
    #[schemars(skip_serializing_if = "Option::is_none")]
    story: Option<Story>,
}

#[derive(JsonSchema)]
struct Story {
    /// Who asked for the run on a page.
    #[schemars(skip_serializing_if = "Option::is_none")]
    asked_by: Option<String>,
    /// As a dry run prints it. The statements of [sql] are not kept.
    #[schemars(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    steps: Vec<StoryStep>,
    /// The last lines that it logged.
    #[schemars(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<StoryLine>,
}

#[derive(JsonSchema)]
struct StoryStep {
    phase: String,
    /// Since the run began.
    after_seconds: f64,
    /// Absent where the run ended first.
    #[schemars(skip_serializing_if = "Option::is_none")]
    elapsed_seconds: Option<f64>,
    bytes: u64,
    /// How it ended, or what it did last.
    #[schemars(skip_serializing_if = "Option::is_none")]
    said: Option<String>,
}

#[derive(JsonSchema)]
struct StoryLine {
    at: Moment,
    level: String,
    text: String,
}

/// `runs`
#[derive(JsonSchema)]
pub struct Runs {
    runs: Vec<Recorded>,
}

/// `runs show`
#[derive(JsonSchema)]
pub struct Run {
    run: Recorded,
}

/// A run in the ledger; with `runs --follow` one in each line.
#[derive(JsonSchema)]
pub struct Recorded {
    id: i64,
    job: String,
    database: String,
    task: String,
    trigger: String,
    scheduled_for: Option<Moment>,
    attempt: u32,
    retry_of: Option<i64>,
    started_at: Moment,
    heartbeat_at: Moment,
    progress: Option<Progress>,
    finished_at: Option<Moment>,
    outcome: Option<Outcome>,
    report: Option<Report>,
    error: Option<String>,
    /// The end of what its tools said.
    stderr: Option<String>,
    retry_at: Option<Moment>,
    host: String,
    pid: i64,
    version: String,
}

#[derive(JsonSchema)]
struct Progress {
    phase: String,
    done_bytes: u64,
    total_bytes: Option<u64>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// `logs`
#[derive(JsonSchema)]
pub struct Logs {
    run: i64,
    job: String,
    database: String,
    outcome: Option<Outcome>,
    /// The last 200 lines that it logged.
    lines: Vec<StoryLine>,
    stderr: Option<String>,
    warnings: Vec<String>,
    error: Option<String>,
}

/// `archives list`
#[derive(JsonSchema)]
pub struct Archives {
    batches: Vec<Batch>,
    /// Without a valid signature.
    not_ours: Vec<Unsigned>,
    broken: Vec<BrokenBatch>,
    /// Of runs that ended before their batch was complete.
    pending: Vec<Pending>,
}

#[derive(JsonSchema)]
struct Batch {
    store: String,
    batch: String,
    identity: Option<String>,
    /// Nobody here knows the names in `manifest`, which are empty.
    sealed: bool,
    /// As docs/reference/formats.md has it.
    manifest: Described,
    signature: String,
}

#[derive(JsonSchema)]
struct Unsigned {
    store: String,
    batch: String,
    signature: Option<String>,
}

#[derive(JsonSchema)]
struct BrokenBatch {
    store: String,
    key: String,
    reason: String,
}

#[derive(JsonSchema)]
struct Pending {
    store: String,
    batch: String,
    /// null where its file cannot be read.
    rows: Option<u64>,
    counts: bool,
}

/// `audit`
#[derive(JsonSchema)]
pub struct Audit {
    counts: Counts,
    groups: Vec<Group>,
    /// As docs/audit.md has it.
    audit: Described,
}

#[derive(JsonSchema)]
struct Counts {
    critical: u64,
    high: u64,
    medium: u64,
    low: u64,
    new: u64,
    resolved: u64,
    unchanged: u64,
    waived: u64,
    /// Checks whose result is unknown.
    unknown: u64,
    failed: u64,
}

#[derive(JsonSchema)]
struct Group {
    level: Level,
    check: String,
    title: String,
    convention: Option<String>,
    findings: u64,
    new: u64,
    /// The key of its largest finding.
    largest: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Level {
    Critical,
    High,
    Medium,
    Low,
}

/// `audit explain`: all checks, or one.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Explain {
    All { checks: Vec<Check> },
    One(Check),
}

#[derive(JsonSchema)]
pub struct Check {
    id: String,
    level: Level,
    title: String,
    categories: Vec<String>,
    why: String,
    fix: String,
    lock: String,
    cannot_show: Option<String>,
}

/// `pgtend notify test`, and `pgtend notify digest NAME`: what was sent where.
#[derive(JsonSchema)]
pub struct Sent {
    /// NAME of [notify.NAME].
    name: String,
    /// What the service said.
    answer: String,
}

/// `pgtend notify digest`
#[derive(JsonSchema)]
pub struct Digest {
    title: String,
    /// "good", "warning" or "bad".
    severity: String,
    lines: Vec<String>,
}
