//! Where one stands, and what is looked at before anything runs.

use schemars::JsonSchema;

use super::common::{Fleet, Gone, Moment};

/// `pgtend` alone: where one stands, and what comes next.
#[derive(JsonSchema)]
pub struct Standing {
    /// The configuration.
    file: String,
    /// It is there, and has no mistakes.
    configured: bool,
    mistakes: u64,
    stores: u64,
    jobs: u64,
    /// Jobs that are skipped: their files have mistakes.
    broken: Vec<String>,
    databases: Vec<BackedUp>,
    late: Vec<Late>,
    failed: Vec<FailedLast>,
    /// Jobs with patterns in `databases`.
    fleets: Vec<Fleet>,
    /// In the last 30 days.
    gone: Vec<Gone>,
    /// Databases of servers that have something of their own, and that no job backs up.
    uncovered: Vec<String>,
    /// Databases that servers have and that their patterns take, and on which no job can run.
    left_out: Vec<LeftOutOfServer>,
    /// Messages that nobody got, by places.
    untold: Vec<Untold>,
    /// What did not answer: stores and the ledger, each with the reason.
    unread: Vec<String>,
    next: Step,
}

#[derive(JsonSchema)]
struct Untold {
    /// The name of [notify.NAME].
    place: String,
    /// The configuration has it.
    configured: bool,
    /// false: they wait for a place that the configuration does not have.
    given_up: bool,
    messages: u64,
    /// When the first of them came.
    since: Moment,
    /// Why the last try failed.
    error: Option<String>,
    /// All of it in words, with what to do.
    said: String,
}

#[derive(JsonSchema)]
struct BackedUp {
    database: String,
    /// The job that backs up all of it.
    job: Option<String>,
    /// The newest set that counts.
    newest: Option<Newest>,
    /// Why that is not known for certain.
    unsure: Option<String>,
    /// Why the ledger was not asked, which may know of a newer set that is lost and of a late job.
    unasked: Option<String>,
    /// Why that job does not run by itself.
    idle: Option<String>,
    /// The newest set that is newer than that and does not count.
    lost: Option<Lost>,
    /// Stores of its backup jobs that were not read, and may have a newer set; without a backup job, any store.
    unread: Vec<String>,
    /// Stores of the newest set's job without a copy of it that counts.
    missing_in: Vec<String>,
}

#[derive(JsonSchema)]
struct LeftOutOfServer {
    database: String,
    why: String,
    since: Moment,
}

#[derive(JsonSchema)]
struct Newest {
    set: String,
    store: String,
    began_at: Moment,
    age_seconds: u64,
    restored_at: Option<Moment>,
    /// Who refused the last restore of it, when and why.
    refused_by: Option<String>,
}

#[derive(JsonSchema)]
struct Lost {
    set: String,
    /// null where no store has it.
    store: Option<String>,
    why: String,
    /// Who refused it for its data, when and why, where that is the reason.
    refused_by: Option<String>,
}

#[derive(JsonSchema)]
struct Late {
    job: String,
    database: String,
    tick: Moment,
    last_success_at: Option<Moment>,
}

#[derive(JsonSchema)]
struct FailedLast {
    run: i64,
    job: String,
    database: String,
    at: Moment,
    outcome: String,
    error: String,
}

#[derive(JsonSchema)]
struct Step {
    command: String,
    why: String,
}

/// `init`
#[derive(JsonSchema)]
pub struct Init {
    /// What was looked at.
    about: String,
    databases: Vec<LookedAt>,
    /// Other programs that do some of this already.
    runs_already: Vec<String>,
    /// False with --dry-run.
    written: bool,
    files: Vec<NewFile>,
    left_out: Vec<LeftOut>,
    /// Lines for a configuration that is there.
    to_add: Option<String>,
    /// What has to be done before the first run.
    to_do: Vec<String>,
    /// Commands.
    next: Vec<String>,
}

#[derive(JsonSchema)]
struct LookedAt {
    name: String,
    size_bytes: Option<u64>,
    extensions: Vec<String>,
}

#[derive(JsonSchema)]
struct NewFile {
    path: String,
    about: String,
    text: String,
}

#[derive(JsonSchema)]
struct LeftOut {
    what: String,
    why: String,
}

/// `check`
#[derive(JsonSchema)]
pub struct Check {
    jobs: u64,
    problems: Vec<String>,
    warnings: Vec<String>,
    /// With --connect.
    connections: Vec<Tried>,
}

#[derive(JsonSchema)]
struct Tried {
    what: String,
    ok: bool,
    detail: String,
}

/// `doctor`
#[derive(JsonSchema)]
pub struct Doctor {
    /// What fails comes first.
    findings: Vec<Finding>,
}

#[derive(JsonSchema)]
struct Finding {
    what: String,
    state: State,
    said: String,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum State {
    Failed,
    Warning,
    Ok,
}
