//! What happened, as it waits to be told: an end of a run, a job that is late, a digest.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::message::Message;
use crate::base::{fault, units};
use crate::config::notify::On;
use crate::ledger::report::{Outcome, Run};
use crate::ledger::{self, Key};

/// An event, without values of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    pub job: String,
    pub database: String,
    /// `None` for a job that is late, and for a digest.
    pub outcome: Option<Outcome>,
    /// It ended a failure, or being late.
    pub is_recovery: bool,
    /// The job's file has mistakes: the job cannot run. Then there is no database.
    pub is_broken: bool,
    /// The error, or the report's summary.
    pub said: String,
    pub run: Option<i64>,
    pub attempt: u32,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// The tick for which a success is overdue.
    pub due_at: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
    pub host: String,
    /// A digest is told as it is.
    pub digest: Option<Message>,
}

impl Event {
    pub fn of_run(run: &Run) -> Self {
        let error = run.error.as_deref().map(fault::without_values);
        Self {
            job: run.job.clone(),
            database: run.database.clone(),
            outcome: Some(run.outcome),
            said: error.or_else(|| run.report.as_ref().map(|report| report.summary.clone())).unwrap_or_default(),
            run: run.id,
            attempt: run.attempt,
            scheduled_for: run.scheduled_for,
            started_at: Some(run.started_at),
            finished_at: Some(run.finished_at),
            host: ledger::host(),
            ..Self::default()
        }
    }

    /// `why`: no run may come.
    pub fn late(
        job: &str,
        database: &str,
        due_at: DateTime<Utc>,
        last_success_at: Option<DateTime<Utc>>,
        why: Option<&str>,
    ) -> Self {
        let since =
            last_success_at.map_or("it has none".to_owned(), |at| format!("the last one was {} ago", units::age(at, Utc::now())));
        Self {
            job: job.to_owned(),
            database: database.to_owned(),
            said: why.map_or_else(|| format!("no success for its tick of {due_at}; {since}"), fault::without_values),
            due_at: Some(due_at),
            last_success_at,
            host: ledger::host(),
            ..Self::default()
        }
    }

    /// A job that is late no more, by a run that another process made.
    pub fn in_time_again(job: &str, database: &str, succeeded_at: DateTime<Utc>) -> Self {
        Self {
            job: job.to_owned(),
            database: database.to_owned(),
            outcome: Some(Outcome::Succeeded),
            is_recovery: true,
            said: format!("it succeeded at {succeeded_at}"),
            finished_at: Some(succeeded_at),
            last_success_at: Some(succeeded_at),
            host: ledger::host(),
            ..Self::default()
        }
    }

    /// A job that cannot run, and why: the mistakes of its file, in a line.
    pub fn of_broken_file(job: &str, mistakes: &str) -> Self {
        Self {
            job: job.to_owned(),
            outcome: Some(Outcome::Failed),
            is_broken: true,
            said: fault::without_values(mistakes),
            finished_at: Some(Utc::now()),
            host: ledger::host(),
            ..Self::default()
        }
    }

    pub fn of_mended_file(job: &str) -> Self {
        let said = "its file has no mistakes any more".to_owned();
        Self { outcome: Some(Outcome::Succeeded), is_recovery: true, said, ..Self::of_broken_file(job, "") }
    }

    pub fn of_digest(message: Message) -> Self {
        Self { digest: Some(message), finished_at: Some(Utc::now()), host: ledger::host(), ..Self::default() }
    }

    /// Returns the job on its database, as the ledger names it.
    pub fn key(&self) -> Key {
        (self.job.clone(), self.database.clone())
    }

    /// Returns the one of these events that it is.
    pub fn on(&self) -> On {
        match self.outcome {
            None if self.digest.is_some() => On::Digest,
            None => On::Late,
            Some(Outcome::Succeeded) if self.is_recovery => On::Recovery,
            Some(Outcome::Succeeded) => On::Success,
            Some(_) => On::Failure,
        }
    }

    /// Returns whether a place with these keys is told of it: a recovery is a success, too.
    pub fn is_for(&self, on: &[On]) -> bool {
        on.contains(&self.on()) || self.on() == On::Recovery && on.contains(&On::Success)
    }

    /// Returns what became of the job: "failed", "is late".
    pub fn verb(&self) -> &'static str {
        match (self.on(), self.outcome) {
            (On::Recovery, _) if self.is_broken => "can run again",
            (_, _) if self.is_broken => "cannot run",
            (On::Recovery, _) => "is well again",
            (_, Some(outcome)) => outcome.as_verb(),
            (_, None) => "is late",
        }
    }

    /// Returns what became of what: "nightly on app failed".
    pub fn title(&self) -> String {
        format!("{} {}", self.subject(), self.verb())
    }

    /// Returns it in a line: "nightly on app failed: …".
    pub fn in_words(&self) -> String {
        let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
        self.title() + &said
    }

    fn subject(&self) -> String {
        if self.database.is_empty() { self.job.clone() } else { format!("{} on {}", self.job, self.database) }
    }

    /// Returns the document of `webhook_url`.
    pub fn document(&self) -> Value {
        let name = match self.on() {
            On::Late => return self.document_of_late(),
            On::Failure if self.outcome == Some(Outcome::Skipped) => "skipped",
            On::Failure => "failure",
            On::Recovery => "recovery",
            On::Success | On::Digest => "success",
        };
        let outcome =
            if self.is_broken { self.verb().to_owned() } else { self.outcome.map(Outcome::in_words).unwrap_or_default() };
        let error = (self.on() == On::Failure).then_some(&self.said);
        json!({
            "event": name,
            "text": format!("pgtend: {}: {outcome}: {}", self.subject(), self.said),
            "job": self.job,
            "database": self.database,
            "run": self.run,
            "outcome": self.outcome,
            "error": error,
            "attempt": self.attempt,
            "scheduled_for": self.scheduled_for,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "host": self.host,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    fn document_of_late(&self) -> Value {
        json!({
            "event": "late",
            "text": format!("pgtend: {} on {}: late: {}", self.job, self.database, self.said),
            "job": self.job,
            "database": self.database,
            "due_at": self.due_at,
            "last_success_at": self.last_success_at,
            "host": self.host,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}
