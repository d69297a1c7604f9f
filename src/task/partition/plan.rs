//! The plan of a run, for people and machines.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::calendar::Period;
use super::key::{Key, NO_LOWER_END};
use super::mark::Mark;
use super::runway::Runway;
use super::skipped::{self, SkippedTable};
use super::state::found::Counted;
use crate::base::fault::Kind;
use crate::base::units;
use crate::pg::table::TableName;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub table: TableName,
    pub column: String,
    #[serde(skip)]
    pub key: Key,
    #[serde(skip)]
    pub major: u32,
    pub steps: Vec<Planned>,
    /// Steps that are due but refused: the run fails with these after it has done everything else.
    pub refusals: Vec<String>,
    /// True if one of the refusals is that the clocks of host and server differ.
    #[serde(skip)]
    pub clocks_apart: bool,
    /// Notes for people.
    pub notes: Vec<String>,
    /// Warnings that come with the steps.
    pub warnings: Vec<String>,
    /// RFC 3339 (or a number): rows up to there have their partition. None if no partition covers new rows.
    pub covered_until: Option<String>,
    /// `covered_until` as an instant; None for number keys, and if there is no end.
    pub covered_until_instant: Option<DateTime<Utc>>,
    /// True if at least one whole period beyond the current one is covered.
    pub is_covered: bool,
    pub partitions: usize,
    pub default_rows: Counted,
    #[serde(skip)]
    pub default: Option<TableName>,
    /// True if new partitions also get what the newest one has and the parent lacks.
    #[serde(skip)]
    pub is_like_newest: bool,
    #[serde(skip)]
    pub grace: std::time::Duration,
    /// A partition that has such rows is not dropped.
    #[serde(skip)]
    pub rows_that_stay: Option<RowsThatStay>,
    /// The time of the plan, by the server's clock.
    #[serde(skip)]
    pub at: DateTime<Utc>,
    /// The position of new rows.
    #[serde(skip)]
    pub now: i64,
    /// The plans of further tables below the job's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Plan>,
    /// Tables below the job's own that are left as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<SkippedTable>,
}

/// Rows that go with no partition, although its time is over.
#[derive(Clone, Debug)]
pub struct RowsThatStay {
    /// SQL that they meet.
    pub condition: String,
    /// They are only in partitions that begin before this bound, as bounds are shown; None: in any.
    pub before: Option<&'static str>,
}

impl RowsThatStay {
    pub fn may_be_in(&self, mark: &Mark) -> bool {
        self.before.is_none_or(|before| mark.from == NO_LOWER_END || mark.from.as_str() < before)
    }
}

#[derive(Debug, Serialize)]
pub struct Planned {
    #[serde(flatten)]
    pub step: Step,
    pub reason: String,
}

#[derive(Debug, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Finishes a detach that was left in its second phase.
    Finalise {
        partition: TableName,
    },
    Create(New),
    /// Marks, then detaches.
    Retire {
        partition: TableName,
        how: Detach,
        #[serde(skip)]
        mark: Mark,
    },
    /// Records the detach of a table whose run was killed before it did.
    Confirm {
        table: TableName,
        #[serde(skip)]
        mark: Mark,
    },
    /// Removes the mark of a partition that is not past its retention: `retain` was changed.
    Keep {
        partition: TableName,
        #[serde(skip)]
        mark: Mark,
    },
    /// Archives the rows of a table that an earlier run detached.
    Archive {
        table: TableName,
        #[serde(skip)]
        mark: Mark,
    },
    Drop {
        table: TableName,
        #[serde(skip)]
        mark: Mark,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Detach {
    /// SHARE UPDATE EXCLUSIVE: reads and writes go on.
    Concurrently,
    /// ACCESS EXCLUSIVE on the table, for a moment.
    Plainly,
}

/// A partition to create; if `range` is None, the default partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct New {
    pub name: String,
    #[serde(skip)]
    pub range: Option<Period>,
    /// True if rows of its range are moved out of the default partition in the same transaction.
    pub moves_rows: bool,
    /// An older partition, whose storage parameters it gets.
    #[serde(skip)]
    pub model: Option<i64>,
}

impl Plan {
    /// Returns the oids of partitions that are detached and dropped.
    pub fn retired(&self) -> impl Iterator<Item = i64> {
        self.all().flat_map(|plan| &plan.steps).filter_map(|planned| match &planned.step {
            Step::Retire { partition, .. } | Step::Finalise { partition } => Some(partition.oid),
            _ => None,
        })
    }

    /// Returns the runway before the run.
    pub fn runway(&self) -> Runway {
        Runway { until: self.covered_until.clone(), until_instant: self.covered_until_instant, is_covered: self.is_covered }
    }

    /// Returns this plan and those of further tables.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Finalise { partition } => write!(f, "finish the detach of {partition}"),
            Self::Create(new) => write!(f, "create {}", new.name),
            Self::Retire { partition, how: Detach::Concurrently, .. } => write!(f, "detach {partition} concurrently"),
            Self::Retire { partition, how: Detach::Plainly, .. } => write!(f, "detach {partition}"),
            Self::Confirm { table, .. } => write!(f, "record that {table} is detached"),
            Self::Keep { partition, .. } => write!(f, "keep {partition}"),
            Self::Archive { table, .. } => write!(f, "archive {table}"),
            Self::Drop { table, .. } => write!(f, "drop {table}"),
        }
    }
}

impl Plan {
    /// Returns what a run with this plan leaves undone, as its failure.
    pub fn failure(&self) -> Option<anyhow::Error> {
        let plans: Vec<&Self> = std::iter::once(self).chain(&self.others).collect();
        let refused = plans.iter().filter(|plan| !plan.refusals.is_empty());
        let kinds =
            refused.map(|plan| plan.clocks_apart.then_some(Kind::Configuration)).chain(self.left.iter().map(|left| left.kind));
        let kind = skipped::worst(kinds)?;
        let (first, others): (Vec<&SkippedTable>, Vec<&SkippedTable>) = self.left.iter().partition(|left| left.has_no_runway);
        let refused = plans.iter().flat_map(|plan| plan.refusals.iter().cloned());
        let reasons =
            first.into_iter().map(SkippedTable::in_words).chain(refused).chain(others.into_iter().map(SkippedTable::in_words));
        Some(skipped::error(kind, format!("not done: {}", reasons.collect::<Vec<_>>().join("; "))))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{}, partitioned by {}: {}", self.table, self.column, units::plural(self.partitions, "partition"))?;
        match &self.covered_until {
            Some(until) => writeln!(f, "  covered until {until}")?,
            None => writeln!(f, "  no partition covers new rows")?,
        }
        if self.steps.is_empty() {
            writeln!(f, "  nothing to do")?;
        }
        for (index, planned) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {}: {}", index + 1, planned.step, planned.reason)?;
        }
        for refusal in &self.refusals {
            writeln!(f, "  refused: {refusal}")?;
        }
        for note in self.warnings.iter().chain(&self.notes) {
            writeln!(f, "  note: {note}")?;
        }
        self.others.iter().try_for_each(|other| write!(f, "{other}"))?;
        self.left.iter().try_for_each(|left| writeln!(f, "{}\n  refused: {}", left.table, left.reason))
    }
}
