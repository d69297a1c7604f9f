//! Prints the plan: the statements and their limits.

use std::fmt;

use serde::Serialize;

use super::keys::Transaction;
use crate::base::units::Span;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub(super) server: String,
    pub(super) statements: Vec<String>,
    pub(super) transaction: Transaction,
    pub(super) statement_timeout: Span,
    pub(super) lock_timeout: Span,
    pub(super) repeatable: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let how = match self.transaction {
            Transaction::Each => "each by itself: if one fails, the earlier ones remain committed",
            Transaction::One => "in one transaction: all or nothing",
        };
        writeln!(f, "Would run on {}, {how}", self.server)?;
        for (index, statement) in self.statements.iter().enumerate() {
            writeln!(f, "  {}. {}", index + 1, statement.trim().replace('\n', "\n     "))?;
        }
        writeln!(
            f,
            "  statement_timeout {}, lock_timeout {}: a statement that takes longer, or waits longer for a lock, fails",
            self.statement_timeout, self.lock_timeout
        )?;
        match self.repeatable {
            true => writeln!(f, "  repeatable: a run that was lost midway is tried again from the first statement"),
            false => Ok(()),
        }
    }
}
