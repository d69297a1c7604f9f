//! A conversion as statements, as people and machines read it.

use std::fmt;

use serde::Serialize;

use crate::pg::table::TableName;
use crate::pg::{self, identifier};

#[derive(Debug, Serialize)]
pub struct Conversion {
    pub table: TableName,
    /// What the table is called when it is a partition.
    pub partition: String,
    pub bound: String,
    /// One by one, each in a transaction of its own.
    pub before: Vec<Statement>,
    /// All in one transaction.
    pub swap: Vec<Statement>,
    /// Undo what stands in `before`; run when something fails.
    pub rollback: Vec<Statement>,
    pub notes: Vec<String>,
    /// What stood around the table when it was looked at ([`super::meanwhile`]).
    #[serde(skip)]
    pub surroundings: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    pub sql: String,
    /// On the table, and what it keeps others from.
    pub lock: &'static str,
    /// It may take as long as reading the whole table, and refuses to run in a transaction or keeps nobody waiting.
    pub takes_long: bool,
}

impl Statement {
    pub fn new(sql: String, lock: &'static str) -> Self {
        Self { sql, lock, takes_long: false }
    }

    pub fn long(sql: String, lock: &'static str) -> Self {
        Self { sql, lock, takes_long: true }
    }
}

pub const EXCLUSIVE: &str = "ACCESS EXCLUSIVE, for a moment";
pub const SHARED: &str = "SHARE UPDATE EXCLUSIVE: reads and writes go on";
pub const NONE: &str = "none that it did not have";

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(
            f,
            "{} becomes {}, a partition of a new table {} up to {}",
            self.table,
            identifier(&self.partition),
            self.table,
            self.bound
        )?;
        writeln!(f, "\nFirst, one by one:")?;
        list(f, &self.before)?;
        writeln!(f, "\nThen in one transaction, under ACCESS EXCLUSIVE:")?;
        list(f, &self.swap)?;
        writeln!(f, "\nIf any of it fails:")?;
        list(f, &self.rollback)?;
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter, statements: &[Statement]) -> fmt::Result {
    for statement in statements {
        writeln!(
            f,
            "  {};\n    {}",
            statement.sql,
            pg::comment(&format!(
                "{}{}",
                statement.lock,
                if statement.takes_long { "; takes as long as the table is large" } else { "" }
            ))
        )?;
    }
    Ok(())
}
