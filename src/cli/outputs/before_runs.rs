//! Where one stands, and what is looked at before anything runs.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::doctor::finding::Finding;
use crate::cli::init::decide;
use crate::cli::init::facts::ShownDatabase;
use crate::ledger::{Gone, LeftOut};
use crate::run::notify::untold::Shown as Untold;
use crate::run::standing::fleets::Fleet;
use crate::run::standing::{Backup, Failed, Late, Lost, Step};

/// `pgtend` alone: where one stands, and what comes next.
#[derive(Serialize, JsonSchema)]
pub struct Standing<'a> {
    /// The configuration.
    pub file: &'a str,
    /// It is there, and has no mistakes.
    pub configured: bool,
    pub mistakes: usize,
    pub stores: usize,
    pub jobs: usize,
    /// Jobs that are skipped: their files have mistakes.
    pub broken: &'a [String],
    pub databases: Vec<BackedUp<'a>>,
    pub late: &'a [Late],
    pub failed: &'a [Failed],
    /// Jobs with patterns in `databases`.
    pub fleets: &'a [Fleet],
    /// In the last 30 days.
    pub gone: &'a [Gone],
    /// Databases of servers that have something of their own, and that no job backs up.
    pub uncovered: &'a [String],
    /// Databases that servers have and that their patterns take, and on which no job can run.
    pub left_out: &'a [LeftOut],
    /// Messages that nobody got, by places.
    pub untold: Vec<Untold<'a>>,
    /// What did not answer: stores and the ledger, each with the reason.
    pub unread: Vec<&'a str>,
    pub next: Step,
}

#[derive(Serialize, JsonSchema)]
pub struct BackedUp<'a> {
    pub database: &'a str,
    /// The job that backs up all of it.
    pub job: Option<&'a str>,
    /// The newest set that counts.
    pub newest: Option<NewestBackup<'a>>,
    /// Why that is not known for certain.
    pub unsure: Option<&'a str>,
    /// Why the ledger was not asked, which may know of a newer set that is lost and of a late job.
    pub unasked: Option<&'a str>,
    /// Why that job does not run by itself.
    pub idle: Option<&'static str>,
    /// The newest set that is newer than that and does not count.
    pub lost: Option<&'a Lost>,
    /// Stores of its backup jobs that were not read, and may have a newer set; without a backup job, any store.
    pub unread: &'a [String],
    /// Stores of the newest set's job without a copy of it that counts.
    pub missing_in: &'a [String],
}

#[derive(Serialize, JsonSchema)]
pub struct NewestBackup<'a> {
    #[serde(flatten)]
    pub backup: &'a Backup,
    pub age_seconds: u64,
}

/// `init`
#[derive(Serialize, JsonSchema)]
pub struct Init<'a> {
    /// What was looked at.
    pub about: &'a str,
    pub databases: &'a [ShownDatabase],
    /// Other programs that do some of this already.
    pub runs_already: &'a [String],
    /// False with --dry-run.
    pub written: bool,
    pub files: Vec<NewFile<'a>>,
    pub left_out: &'a [decide::LeftOut],
    /// Lines for a configuration that is there.
    pub to_add: Option<&'a str>,
    /// What has to be done before the first run.
    pub to_do: &'a [String],
    /// Commands.
    pub next: &'a [String],
}

#[derive(Serialize, JsonSchema)]
pub struct NewFile<'a> {
    pub path: String,
    pub about: &'a str,
    pub text: &'a str,
}

/// `check`
#[derive(Serialize, JsonSchema)]
pub struct Check<'a> {
    pub jobs: usize,
    pub problems: Vec<String>,
    pub warnings: &'a [String],
    /// With --connect.
    pub connections: Vec<Tried>,
}

#[derive(Serialize, JsonSchema)]
pub struct Tried {
    pub what: String,
    pub ok: bool,
    pub detail: String,
}

/// `doctor`
#[derive(Serialize, JsonSchema)]
pub struct Doctor<'a> {
    /// What fails comes first.
    pub findings: &'a [Finding],
}
