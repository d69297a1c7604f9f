//! The plan of a refresh, as people and machines read it.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::copies::SetCopy;
use super::decide::{Refusal, ToDrop};
use crate::base::units::{self, Span};
use crate::task::backup::facts::DatabaseFacts;

#[derive(Debug, Serialize)]
pub struct Plan {
    /// `user@host:port/database`
    pub target: String,
    /// The target's name.
    pub database: String,
    pub server_version: String,
    /// `STORE:DATABASE/JOB`
    pub source: String,
    pub set: Option<ChosenSet>,
    /// The commands of `after` and `after_file`, without the values in them.
    pub after: Vec<String>,
    pub expect: Vec<String>,
    pub swap: bool,
    pub keep_old: Span,
    pub terminate: bool,
    pub wait: Span,
    /// Who can connect to the copy, in words.
    pub who_connects: String,
    /// The databases of earlier runs that are dropped first.
    pub drops: Vec<ToDrop>,
    /// Why others are not.
    pub stays: Vec<String>,
    /// Notes on the sets.
    pub notes: Vec<String>,
    /// Warnings about code that a restore runs.
    pub foreign_code: Vec<String>,
    #[serde(skip)]
    pub refusal: Option<Refusal>,
    /// The commands as they run.
    #[serde(skip)]
    pub statements: Vec<String>,
    /// None with a refusal.
    #[serde(skip)]
    pub work: Option<WorkOn>,
}

/// The set, in short.
#[derive(Clone, Debug, Serialize)]
pub struct ChosenSet {
    pub name: String,
    /// The store whose copy is taken first.
    pub store: String,
    pub taken_at: DateTime<Utc>,
    pub age_seconds: i64,
    /// "intact, restored on …"
    pub state: String,
    pub tables: usize,
    pub rows: u64,
    pub dump_bytes: u64,
    pub sha256: String,
    /// The release that made it.
    pub pgtend_version: String,
}

/// What the run works on.
#[derive(Clone, Debug)]
pub struct WorkOn {
    /// In the order of their use, all of which this host can open: one at least.
    pub copies: Vec<SetCopy>,
    /// The target as the plan saw it.
    pub target: DatabaseFacts,
}

impl ChosenSet {
    pub fn of(copy: &SetCopy, clock: DateTime<Utc>) -> Self {
        let SetCopy { store_name, set, .. } = copy;
        let manifest = &set.manifest;
        Self {
            name: set.name.to_string(),
            store: store_name.clone(),
            taken_at: set.name.taken_at,
            age_seconds: (clock - set.name.taken_at).num_seconds(),
            state: set.verification.in_words(),
            tables: manifest.table_count(),
            rows: manifest.rows(),
            dump_bytes: manifest.dump.bytes,
            sha256: manifest.dump.sha256.clone(),
            pgtend_version: manifest.pgtend_version.clone(),
        }
    }

    /// Its age in words.
    pub fn age(&self) -> String {
        units::duration(std::time::Duration::from_secs(self.age_seconds.max(0).unsigned_abs()))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { database, .. } = self;
        let what = if self.swap { "refresh" } else { "drill the restore of" };
        writeln!(f, "Would {what} {} (PostgreSQL {}) from {}", self.target, self.server_version, self.source)?;
        if let Some(set) = &self.set {
            let (tables, rows) = (units::plural(set.tables, "table"), units::plural(set.rows, "row"));
            writeln!(
                f,
                "  set {}, {} old, {}: {tables}, {rows}, {}",
                set.name,
                set.age(),
                set.state,
                units::bytes(set.dump_bytes)
            )?;
        }
        for drop in &self.drops {
            writeln!(f, "  drops {drop}")?;
        }
        writeln!(f, "  restores it into a new database on that server, to which only {} can connect", self.who_connects)?;
        for (index, statement) in self.after.iter().enumerate() {
            writeln!(f, "  runs {} of {} in it: {statement}", index + 1, self.after.len())?;
        }
        for query in &self.expect {
            writeln!(f, "  expects that this is true then: {query}")?;
        }
        match (self.swap, self.terminate) {
            (false, _) => writeln!(f, "  removes it again: {database} stays as it is")?,
            (true, terminate) => {
                let then = if terminate { "terminates those that are left" } else { "gives up" };
                writeln!(f, "  waits up to {} for sessions in {database}, then {then}", self.wait)?;
                writeln!(
                    f,
                    "  renames {database}, which is kept for {}, and gives its name, owner, grants and settings to the new one",
                    self.keep_old
                )?;
            }
        }
        let warnings = self.foreign_code.iter().map(|line| format!("WARNING: {line}"));
        let notes = self.stays.iter().chain(&self.notes).map(|line| format!("NOTE: {line}"));
        warnings.chain(notes).try_for_each(|line| writeln!(f, "  {line}"))
    }
}
