//! What a run did: the same report becomes the terminal's text, the log line and the JSON.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

/// What a task's `apply` did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// One line for people.
    pub summary: String,
    /// Counts and names for machines; keys carry their unit (`dump_bytes`, `elapsed_seconds`).
    pub facts: Map<String, Value>,
    /// What somebody should look at although the run succeeded.
    pub warnings: Vec<String>,
}

impl Report {
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    /// Nothing was done, and the run's `error` says why: busy, or nothing to do.
    Skipped,
    Failed,
    TimedOut,
    Cancelled,
}

/// One execution of a job on one database.
#[derive(Debug, Serialize)]
pub struct Run {
    pub job: String,
    pub database: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub outcome: Outcome,
    /// The plan, for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Run {
    pub fn elapsed(&self) -> Duration {
        (self.finished_at - self.started_at).to_std().unwrap_or_default()
    }
}
