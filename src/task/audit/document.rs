//! The result of an audit: stored as `audit.json`, compared with the next one, and rendered as text, Markdown and HTML.

use std::fmt;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::baseline::Baseline;
use super::usage::Usage;
use crate::base::bounds::{self, Bounded};

/// The version of the stored document. A program that meets a newer one refuses it rather than guess.
pub const FORMAT: u32 = 1;

/// Most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Critical,
    High,
    Medium,
    Low,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    pub format: u32,
    pub pgtend_version: String,
    pub job: String,
    /// Its name in the configuration.
    pub database: String,
    /// `user@host:port/database`.
    pub server: String,
    pub server_version: String,
    pub in_recovery: bool,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub statistics_since: Option<DateTime<Utc>>,
    /// In the order of the list.
    pub checks: Vec<Outcome>,
    /// Most urgent first.
    pub findings: Vec<Finding>,
    /// Findings of the last audit whose check could not be made this time: neither found nor resolved.
    #[serde(default)]
    pub not_seen: Vec<Finding>,
    /// Findings of the last audit that are gone.
    #[serde(default)]
    pub resolved: Vec<Finding>,
    /// The time of the last audit that this one was compared with.
    pub previous: Option<DateTime<Utc>>,
    /// Waivers that have expired, or fit nothing.
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(default)]
    pub top_queries: Vec<TopQuery>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// How much indexes and large tables were used.
    #[serde(default)]
    pub usage: Usage,
    /// Checks that the job leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turned_off: Vec<String>,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub check: String,
    pub state: State,
    /// The reason why the result is unknown, or what failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    pub findings: usize,
    pub elapsed_seconds: f64,
    /// The findings beyond those that are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// How many there are; at least so many, where they were not all read.
    pub findings: usize,
    /// The level that the most urgent of them may have.
    pub level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    Findings,
    /// A missing privilege, the age of the statistics or a replica makes the answer unknown.
    Unknown,
    Failed,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Findings => "findings",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// `check:identity`; the same from one audit to the next.
    pub key: String,
    pub check: String,
    pub level: Level,
    pub title: String,
    /// Quoted as in SQL.
    pub object: String,
    pub issue: String,
    pub impact: String,
    #[serde(default)]
    pub evidence: Map<String, Value>,
    pub fix: Fix,
    /// None: there was no earlier audit to compare with.
    pub change: Option<Change>,
    /// The first audit that found it.
    pub since: DateTime<Utc>,
    pub waiver: Option<Waiver>,
    /// The sentence that says which convention of the schema its object follows: one decision, and not one for each object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convention: Option<String>,
    /// The size of its table. None: it is of no table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
}

/// The size and use of a table with its partitions. The first fields count most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Weight {
    pub bytes: i64,
    pub rows: i64,
    /// Scans and changed rows since the statistics began.
    pub calls: i64,
}

impl Finding {
    /// Returns its key without the check, which tells apart two findings about one object.
    pub fn name(&self) -> &str {
        self.key.strip_prefix(&self.check).and_then(|rest| rest.strip_prefix(':')).unwrap_or(&self.object)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fix {
    pub words: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// A job file for jobs/, without `database` and `schedule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// SQL that `schema_file` lacks and should contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What a person has to decide first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decide: Option<String>,
    /// SQL in which `<THAT>` is left open: as it stands, the server refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    pub lock: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    New,
    Unchanged,
}

/// `waive = [{ key = "…", reason = "…", until = 2027-01-31 }]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// A key as in a report; a `*` at its end matches any ending.
    pub key: String,
    pub reason: String,
    /// The last day on which it holds, in UTC.
    pub until: NaiveDate,
}

impl Waiver {
    pub fn fits(&self, key: &str) -> bool {
        match self.key.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => key == self.key,
        }
    }
}

/// A statement of pg_stat_statements, as it was at this audit.
#[derive(Clone, Debug, Serialize, Deserialize, sqlx::FromRow)]
pub struct TopQuery {
    pub query_id: String,
    pub query: String,
    pub calls: i64,
    pub total_seconds: f64,
    pub mean_milliseconds: f64,
    pub rows: i64,
    /// By its text, a replica could run it.
    #[serde(default)]
    pub reads_only: bool,
}

/// Counts of findings that are neither waived nor resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counts {
    pub critical: usize,
    pub high: usize,
    pub medium: usize,
    pub low: usize,
    pub new: usize,
    pub resolved: usize,
    pub unchanged: usize,
    pub waived: usize,
    /// Checks whose result is unknown.
    pub unknown: usize,
    pub failed: usize,
}

impl Counts {
    pub fn of_level(&self, level: Level) -> usize {
        match level {
            Level::Critical => self.critical,
            Level::High => self.high,
            Level::Medium => self.medium,
            Level::Low => self.low,
        }
    }
}

impl Bounded for Document {
    fn check(&self) -> Result<()> {
        bounds::time("started_at", self.started_at)?;
        bounds::time("finished_at", self.finished_at)?;
        self.statistics_since.into_iter().try_for_each(|at| bounds::time("statistics_since", at))?;
        self.previous.into_iter().try_for_each(|at| bounds::time("previous", at))?;
        self.baseline.iter().filter_map(|baseline| baseline.since).try_for_each(|at| bounds::time("since", at))?;
        let findings = self.findings.iter().chain(&self.not_seen).chain(&self.resolved);
        findings.map(|finding| finding.since).try_for_each(|since| bounds::time("since", since))?;
        let (indexes, tables) = (self.usage.indexes.values(), self.usage.tables.values());
        indexes.map(|used| used.unused_since).try_for_each(|since| bounds::time("unused_since", since))?;
        tables.map(|scanned| scanned.at).try_for_each(|at| bounds::time("at", at))?;
        self.usage.growth.values().map(|grown| grown.since).try_for_each(|since| bounds::time("since", since))?;
        self.checks.iter().try_for_each(|outcome| bounds::seconds("elapsed_seconds", outcome.elapsed_seconds))
    }
}

impl Document {
    /// Findings that are not waived.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.waiver.is_none())
    }

    pub fn counts(&self) -> Counts {
        let of_level = |level| self.open().filter(|finding| finding.level == level).count();
        let changed = |change| self.open().filter(|finding| finding.change == Some(change)).count();
        let in_state = |state| self.checks.iter().filter(|outcome| outcome.state == state).count();
        Counts {
            critical: of_level(Level::Critical),
            high: of_level(Level::High),
            medium: of_level(Level::Medium),
            low: of_level(Level::Low),
            new: changed(Change::New),
            resolved: self.resolved.len(),
            unchanged: changed(Change::Unchanged),
            waived: self.findings.len() - self.open().count(),
            // A check with findings may have objects that it could not judge: it names them, but the check is not unknown.
            unknown: in_state(State::Unknown),
            failed: in_state(State::Failed),
        }
    }

    /// Returns "2 critical, 1 high", or "nothing".
    pub fn in_short(&self) -> String {
        let counts = self.counts();
        let levels: Vec<String> = Level::ALL
            .into_iter()
            .filter(|level| counts.of_level(*level) > 0)
            .map(|level| format!("{} {level}", counts.of_level(level)))
            .collect();
        let mut text = if levels.is_empty() { "no findings".to_owned() } else { levels.join(", ") };
        if self.previous.is_some() {
            text += &format!("; {} new, {} resolved since the last audit", counts.new, counts.resolved);
        }
        for (number, what) in [(counts.waived, "waived"), (counts.unknown, "unknown"), (counts.failed, "failed")] {
            if number > 0 {
                let noun = if what == "waived" { String::new() } else { format!(" check{}", if number == 1 { "" } else { "s" }) };
                text += &format!("; {number}{noun} {what}");
            }
        }
        text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A finding of the check before the colon.
    pub fn finding(key: &str, level: Level) -> Finding {
        let check = key.split(':').next().unwrap_or_default();
        Finding {
            key: key.to_owned(),
            check: check.to_owned(),
            level,
            title: format!("title of {check}"),
            object: key.to_owned(),
            issue: String::new(),
            impact: String::new(),
            evidence: Map::new(),
            fix: Fix::default(),
            change: None,
            since: day(2),
            waiver: None,
            convention: None,
            weight: None,
        }
    }

    pub fn day(day: u32) -> DateTime<Utc> {
        format!("2026-11-{day:02}T00:00:00Z").parse().unwrap()
    }

    pub fn document(findings: Vec<Finding>) -> Document {
        Document {
            format: FORMAT,
            pgtend_version: String::new(),
            job: "audit".to_owned(),
            database: "app".to_owned(),
            server: String::new(),
            server_version: String::new(),
            in_recovery: false,
            started_at: day(2),
            finished_at: day(2),
            statistics_since: None,
            checks: Vec::new(),
            findings,
            not_seen: Vec::new(),
            resolved: Vec::new(),
            previous: None,
            notes: Vec::new(),
            top_queries: Vec::new(),
            baseline: None,
            usage: Usage::default(),
            turned_off: Vec::new(),
        }
    }
}
