//! The report of a run: the same one becomes the terminal's text, the log line and the JSON.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::fault::{Fault, Kind};
use crate::base::story::Story;

/// The result of a task's `apply`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Value")]
pub struct Report {
    /// One line for people.
    pub summary: String,
    /// Counts and names for machines; keys carry their unit (`dump_bytes`, `elapsed_seconds`). docs/reference/tasks has those of each task.
    pub facts: Map<String, Value>,
    /// Things to look at although the run succeeded.
    pub warnings: Vec<String>,
    /// What the run did in which order; the ledger adds it.
    #[serde(skip_serializing_if = "Story::is_empty")]
    pub story: Story,
}

/// A row that another program wrote into the ledger must not hide other rows.
impl From<Value> for Report {
    fn from(written: Value) -> Self {
        #[derive(Deserialize)]
        struct Written {
            summary: String,
            facts: Map<String, Value>,
            warnings: Vec<String>,
            #[serde(default)]
            story: Value,
        }
        match serde_json::from_value(written) {
            Ok(Written { summary, facts, warnings, story }) => {
                Self { summary, facts, warnings, story: serde_json::from_value(story).unwrap_or_default() }
            }
            Err(error) => {
                Self { warnings: vec![format!("the ledger's report of this run cannot be read: {error}")], ..Self::default() }
            }
        }
    }
}

/// The fact, with its value, by which a backup's report says that the set was read back and is as it was written.
pub const PROVED: (&str, Option<&str>) = ("bytes", Some("intact"));

impl Report {
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Returns the time up to which partitions exist for rows.
    pub fn covered_until(&self) -> Option<DateTime<Utc>> {
        self.facts.get("covered_until")?.as_str()?.parse().ok()
    }

    /// Returns when the set began that the run has made and read back, or restored.
    pub fn proved_set_began_at(&self) -> Option<DateTime<Utc>> {
        let is_intact = self.facts.get(PROVED.0).and_then(Value::as_str) == PROVED.1;
        self.facts.get("set_began_at").filter(|_| is_intact)?.as_str()?.parse().ok()
    }

    pub fn restore_seconds(&self) -> Option<f64> {
        self.facts.get("restore_seconds")?.as_f64()
    }
}

/// A run that did part of its work: the error, and the report of the work done.
#[derive(Debug)]
pub struct Unfinished {
    message: String,
    pub report: Report,
    /// The cause of the error, which has the kind.
    fault: Option<Fault>,
    /// The run's result is there, and another attempt would make another.
    pub has_result: bool,
}

impl Unfinished {
    pub fn error(kind: Option<Kind>, message: String, report: Report) -> anyhow::Error {
        let fault = kind.map(|kind| Fault::new(kind, message.clone()));
        Self { message, report, fault, has_result: false }.into()
    }

    /// Returns the error of a run of several steps, of which some failed; the report if none did. A permanent failure weighs more than one
    /// that may succeed next time.
    pub fn of(failures: &[Failure], report: Report) -> anyhow::Result<Report> {
        if failures.is_empty() {
            return Ok(report);
        }
        let deferred = Some(Kind::Deferred);
        let kind = failures.iter().map(|(kind, _)| *kind).find(|kind| *kind != deferred).unwrap_or(deferred);
        let messages: Vec<&str> = failures.iter().map(|(_, message)| message.as_str()).collect();
        Err(Self::error(kind, messages.join("; "), report))
    }
}

/// Marks the error of a run whose result is there: it is not attempted again.
pub fn with_result(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Unfinished>() {
        Ok(unfinished) => Unfinished { has_result: true, ..unfinished }.into(),
        Err(error) => error,
    }
}

/// The reason why a step of a run did not succeed.
pub type Failure = (Option<Kind>, String);

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unfinished {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.as_ref().map(|fault| fault as _)
    }
}

/// The remains of a run for its callers: its record, the error as code reads it, and a dry run's plan as text.
pub struct Ended {
    pub run: Run,
    pub error: Option<anyhow::Error>,
    pub plan: Option<String>,
    /// Another attempt is due after this time.
    pub retry_in: Option<Duration>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    /// Nothing was done, and the run's `error` says why: busy, or nothing to do.
    Skipped,
    Failed,
    TimedOut,
    Cancelled,
    /// The process died without reporting a result; another one found out.
    Crashed,
}

impl Outcome {
    pub const ALL: [Self; 6] = [Self::Succeeded, Self::Skipped, Self::Failed, Self::TimedOut, Self::Cancelled, Self::Crashed];

    /// Returns the name in the ledger, in metrics and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Crashed => "crashed",
        }
    }

    /// Returns the outcome for people: "timed out".
    pub fn in_words(self) -> String {
        self.name().replace('_', " ")
    }

    /// Returns the outcome as a verb: "run 3 failed", "run 3 was cancelled".
    pub fn as_verb(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Skipped => "was skipped",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Cancelled => "was cancelled",
            Self::Crashed => "crashed",
        }
    }

    /// Returns whether a person should look at it.
    /// Returns whether it says how its job stands: after a skipped or cancelled run, that is what it was before.
    pub fn proves_something(self) -> bool {
        !matches!(self, Self::Skipped | Self::Cancelled)
    }

    pub fn needs_attention(self) -> bool {
        !matches!(self, Self::Succeeded | Self::Skipped)
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|outcome| outcome.name() == text);
        known.ok_or_else(|| format!("`{text}` is not an outcome; the outcomes are: {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One execution of a job on one database.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Run {
    /// The run's number in the ledger; `None` without a ledger.
    pub id: Option<i64>,
    pub job: String,
    pub database: String,
    pub trigger: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_for: Option<DateTime<Utc>>,
    pub attempt: u32,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_none_hides_no_other_row() {
        let mut report = Report { summary: "done".into(), warnings: vec!["w".into()], ..Report::default() };
        report.fact("rows", 3);
        let back: Report = serde_json::from_value(serde_json::to_value(&report).unwrap()).unwrap();
        assert_eq!((back.summary.as_str(), &back.facts, &back.warnings), ("done", &report.facts, &report.warnings));
        for foreign in
            [serde_json::json!(7), serde_json::json!(null), serde_json::json!({ "summary": [] }), serde_json::json!([])]
        {
            let read: Report = serde_json::from_value(foreign.clone()).unwrap();
            assert!(read.warnings[0].contains("cannot be read"), "{foreign}");
        }
    }
}
