//! What a restore of tables out of a set does: the statements that it runs, and the rows that it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;

use super::beside::Renamed;
use super::names::Name;
use super::statements::Statements;
use super::types::Shape;
use super::uses::Uses;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::schemas::Schema;
use crate::task::backup::scan::TableData;
use crate::task::backup::set::Set;
use crate::task::backup::tokens::Statement;
use crate::task::backup::{own_bytes, rewrite};

/// What will be done.
#[derive(Debug)]
pub struct Plan {
    /// The set with a manifest of this part: its tables, under their new names, its roles and tablespaces.
    pub part: Set,
    pub before: Statements,
    /// Tables that live and get rows, as they are.
    pub shapes: Vec<Shape>,
    /// Rows that are read one after the other.
    pub rows: Vec<Vec<TableData>>,
    pub after: Statements,
    pub renamed: Option<Renamed>,
    /// Objects that are made besides the tables, in words.
    pub made: Vec<String>,
    /// Objects that it needs and that are there already.
    pub(super) kept: Vec<String>,
    pub notes: Vec<String>,
    /// What it uses of living objects.
    pub uses: Uses,
    /// The living schemas by whose names it goes.
    pub schemas: Vec<Schema>,
    pub(super) is_data_only: bool,
    /// Of the object, for the definitions.
    pub read_bytes: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (name, rows) in self.tables() {
            writeln!(f, "{name}  {}", units::plural(rows, "row"))?;
        }
        if self.is_data_only {
            writeln!(f, "only rows, by COPY into tables that are there and empty: their triggers fire")?;
        }
        if let Some(Renamed { from, to, .. }) = &self.renamed {
            writeln!(f, "{to} is a copy of {from} without foreign keys, triggers, rules, policies, grants and sequences")?;
        }
        for (what, list) in [("with", &self.made), ("there already, and left as it is", &self.kept)] {
            if !list.is_empty() {
                writeln!(f, "{what}: {}", list.join(", "))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

impl Plan {
    /// The tables with their rows, by name.
    pub fn tables(&self) -> BTreeMap<Name, u64> {
        let mut tables = BTreeMap::new();
        for table in &self.part.manifest.tables {
            *tables.entry(Name::new(&table.schema, &table.name)).or_default() += table.rows;
        }
        tables
    }
}

pub(super) fn refused<T>(message: String) -> Result<T> {
    Err(Fault::new(Kind::Configuration, message).into())
}

/// The set as if it had this part alone.
pub(super) fn part(set: &Set, tables: Vec<TableData>) -> Set {
    let mut part = set.clone();
    part.manifest.tables = tables;
    part.manifest.large_objects = 0;
    part.manifest.server.extensions.clear();
    part
}

/// Leaves only the roles and tablespaces that the statements name.
pub(super) fn name_what_it_needs(plan: &mut Plan) {
    let (mut roles, mut tablespaces) = (BTreeSet::new(), BTreeSet::new());
    for (statement, _) in plan.before.iter().chain(&plan.after) {
        let text = own_bytes::text(statement.clone());
        roles.extend(rewrite::role_names(&text));
        if text.starts_with("SET default_tablespace = ") {
            tablespaces.extend(Statement::of(&text).name(3));
        }
    }
    let server = &mut plan.part.manifest.server;
    server.roles.retain(|role| roles.contains(role));
    server.tablespaces.retain(|tablespace| tablespaces.contains(tablespace));
}
