//! The plan: which rows would be deleted, how, and what else that triggers.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::conditions::Conditions;
use super::key::Key;
use super::keys::Method;
use super::references::{Kept, Reference};
use super::size::Measured;
use super::tree::Tree;
use crate::base::units::{self, Span};
use crate::config::limits::Limits;
use crate::task::consent::Consent;
use crate::task::partition;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub table: String,
    /// The cut-off by the server's clock; None where age does not matter.
    pub cutoff: Option<DateTime<Utc>>,
    /// "older than 90d".
    pub which: String,
    /// The table, or its partitions.
    pub parts: Vec<Part>,
    /// Whole partitions that are dropped before rows of the others are deleted.
    pub whole: Option<partition::Plan>,
    pub rows_to_go: u64,
    /// Set with `max_size`.
    pub measured: Option<Measured>,
    pub references: Vec<Reference>,
    #[serde(skip)]
    pub tree: Tree,
    pub triggers: Vec<String>,
    pub notes: Vec<String>,
    /// The question that a person must answer first.
    pub asks: Option<String>,
    #[serde(skip)]
    pub consent: Consent,
    #[serde(skip)]
    pub column: String,
    #[serde(skip)]
    pub key: Key,
    /// A value that is smaller than any key that goes, as text.
    #[serde(skip)]
    pub start: String,
    /// SQL: the clock of the deleting transaction agrees.
    #[serde(skip)]
    pub gate: String,
    /// The age at which whole partitions are dropped.
    #[serde(skip)]
    pub age: Option<Span>,
    /// The server's clock.
    #[serde(skip)]
    pub now: DateTime<Utc>,
    pub(super) archive: Option<String>,
    pub(super) limits: Limits,
}

/// A table that rows are deleted from.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    pub oid: i64,
    /// Quoted.
    pub name: String,
    pub schema: String,
    pub relation: String,
    pub blocks: i64,
    pub bytes: i64,
    pub rows: u64,
    pub rows_to_go: u64,
    /// Index or blocks.
    pub method: Method,
    pub reason: String,
    #[serde(skip)]
    pub kept: Kept,
    #[serde(skip)]
    pub conditions: Conditions,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let how = if self.archive.is_some() { "archive and delete" } else { "delete" };
        writeln!(
            f,
            "Would {how} about {} of {} {}{}",
            units::plural(self.rows_to_go, "row"),
            self.table,
            self.which,
            self.cutoff.map(|cutoff| cutoff.format(" (%Y-%m-%d %H:%M:%S UTC)").to_string()).unwrap_or_default()
        )?;
        for step in self.whole.iter().flat_map(|whole| &whole.steps) {
            writeln!(f, "  {}: {}", step.step, step.reason)?;
        }
        for part in &self.parts {
            let size = units::bytes(part.bytes as u64);
            let method = if part.method == Method::Index { "through the index" } else { "block range by block range" };
            writeln!(
                f,
                "  {}: about {} of {} ({size}), {method} ({})",
                part.name,
                units::count(part.rows_to_go),
                units::plural(part.rows, "row"),
                part.reason
            )?;
        }
        if let Some(store) = &self.archive {
            writeln!(f, "  archive: each batch is written to store {store} and read back before its rows are deleted")?;
        }
        for reference in &self.references {
            let goes_first = self.tree.branches.iter().any(|branch| branch.oid == reference.referencing_oid);
            let what = match reference.action.as_str() {
                _ if goes_first => "its rows that reference these go first (cascade)",
                "c" => "its rows that reference these are deleted too (ON DELETE CASCADE)",
                "n" => "its columns become NULL (ON DELETE SET NULL)",
                "d" => "its columns become their defaults (ON DELETE SET DEFAULT)",
                _ => "rows that it references stay",
            };
            writeln!(f, "  foreign key {} of {}: {what}", reference.name, reference.referencing)?;
        }
        if !self.tree.is_empty() {
            let tables: Vec<String> = self.tree.branches.iter().map(super::tree::TreeTable::sql).collect();
            writeln!(f, "  rows that go in the same transaction as the rows that they reference: {}", tables.join(", "))?;
        }
        for trigger in &self.triggers {
            writeln!(f, "  trigger that fires: {trigger}")?;
        }
        writeln!(f, "  {}", self.limits)?;
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        if let Some(asks) = &self.asks {
            writeln!(f, "  needs consent: {asks}")?;
        }
        Ok(())
    }
}
