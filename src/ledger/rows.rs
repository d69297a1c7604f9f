//! The rows of runs as they are written and read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;

use crate::base::progress;
use crate::base::story::Story;
use crate::ledger::report::{Outcome, Report};

/// The schedule of a job as a scheduler last knew it, and its last success.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LastKnown {
    pub job: String,
    pub database: String,
    /// With its time zone; none where no scheduler knew it.
    pub schedule: Option<String>,
    pub known_since: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
}

/// A run that is about to start.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    pub job: &'a str,
    pub database: &'a str,
    /// The kind of the task, or a manual command: "partition convert".
    pub task: &'a str,
    pub trigger: &'a Trigger,
    /// Attempts that remain after the first, in case the process dies.
    pub retries: u32,
}

/// The reason why a run started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    Manual,
    /// Somebody asked for it on a page, and wrote this as the name.
    Asked {
        by: String,
    },
    Schedule {
        tick: DateTime<Utc>,
    },
    /// A tick that was missed.
    CatchUp {
        tick: DateTime<Utc>,
    },
    /// `attempt` counts from 1, so the first retry is attempt 2.
    Retry {
        first: i64,
        attempt: u32,
    },
}

impl Trigger {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Manual | Self::Asked { .. } => "manual",
            Self::Schedule { .. } => "schedule",
            Self::CatchUp { .. } => "catch-up",
            Self::Retry { .. } => "retry",
        }
    }

    pub fn tick(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Schedule { tick } | Self::CatchUp { tick } => Some(*tick),
            Self::Manual | Self::Asked { .. } | Self::Retry { .. } => None,
        }
    }

    /// Returns whether a person started it, who knows of it.
    pub fn is_manual(&self) -> bool {
        matches!(self, Self::Manual | Self::Asked { .. })
    }

    pub fn asked_by(&self) -> Option<&str> {
        match self {
            Self::Asked { by } => Some(by),
            _ => None,
        }
    }

    pub fn attempt(&self) -> u32 {
        match self {
            Self::Retry { attempt, .. } => *attempt,
            _ => 1,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct End<'a> {
    pub outcome: Option<Outcome>,
    pub report: Option<&'a Report>,
    pub error: Option<&'a str>,
    pub stderr: &'a str,
    pub retry_in: Option<Duration>,
    /// Where the next run continues.
    pub cursor: Option<serde_json::Value>,
    /// What the run did in which order, which the ledger adds to the report.
    pub story: Story,
}

/// A run in the ledger: a row of the history.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize, JsonSchema)]
pub struct Row {
    pub id: i64,
    pub job: String,
    pub database: String,
    pub task: String,
    pub trigger: String,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub attempt: i32,
    pub retry_of: Option<i64>,
    pub started_at: DateTime<Utc>,
    pub heartbeat_at: DateTime<Utc>,
    #[sqlx(json(nullable))]
    pub progress: Option<progress::PhaseState>,
    pub finished_at: Option<DateTime<Utc>>,
    #[sqlx(try_from = "Option<String>")]
    pub outcome: MaybeOutcome,
    #[sqlx(json(nullable))]
    pub report: Option<Report>,
    pub error: Option<String>,
    /// The end of what its tools said.
    pub stderr: Option<String>,
    pub retry_at: Option<DateTime<Utc>>,
    pub host: String,
    pub pid: i32,
    pub version: String,
}

/// `None` while the run is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, JsonSchema)]
#[serde(transparent)]
pub struct MaybeOutcome(pub Option<Outcome>);

impl TryFrom<Option<String>> for MaybeOutcome {
    type Error = String;

    fn try_from(text: Option<String>) -> Result<Self, String> {
        text.map(|text| text.parse()).transpose().map(Self)
    }
}

/// A crashed or failed run that may be tried again.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Attempt {
    pub job: String,
    pub database: String,
    pub first: i64,
    pub attempt: i32,
}

/// The names of a job and of a database.
pub type Key = (String, String);

/// The planner's knowledge of a job on a database. Manual commands, whose `task` has a space, are no runs of the job.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct KnownJob {
    pub job: String,
    pub database: String,
    pub known_since: DateTime<Utc>,
    pub last_tick: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
}
