//! The plan of a conversion: its statements, for people and machines.

use std::fmt;

use serde::Serialize;

use crate::pg::table::TableName;
use crate::pg::{self, identifier};
use crate::task::bound::Bound;

#[derive(Debug, Serialize)]
pub struct Conversion {
    pub table: TableName,
    /// The table's name once it is a partition.
    pub partition: String,
    pub bound: String,
    /// Statements before the swap, each in a transaction of its own.
    pub before: Vec<Statement>,
    /// The statements of the swap, all in one transaction.
    pub swap: Vec<Statement>,
    /// Statements that undo those in `before`, run when something fails.
    pub rollback: Vec<Statement>,
    pub notes: Vec<String>,
    /// The table's surroundings when the plan was made ([`super::meanwhile`]).
    #[serde(skip)]
    pub surroundings: String,
    /// What the objects are bound to that the swap makes again.
    #[serde(skip)]
    pub texts: Bound,
}

#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    pub sql: String,
    /// The lock on the table, and how it affects other sessions.
    pub lock: &'static str,
    /// True if it may take as long as reading the whole table. It cannot run in a transaction, or makes no session wait.
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
pub const NONE: &str = "no lock beyond those already held";

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
        writeln!(f, "\nIf a step fails:")?;
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
                if statement.takes_long { "; takes longer the larger the table is" } else { "" }
            ))
        )?;
    }
    Ok(())
}
