//! The plan of a reindex, as people read it.

use std::fmt;

use serde::Serialize;

use super::decide::{Action, Step};
use crate::base::fault::{self, Kind};

#[derive(Debug, Serialize)]
pub struct Plan {
    pub(super) table: String,
    pub(super) steps: Vec<Step>,
    pub(super) missing: Vec<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "Indexes of {}:", self.table)?;
        for step in &self.steps {
            let what = match step.action {
                Action::Rebuild => "rebuild",
                Action::Drop => "drop",
                Action::Leave => "leave",
            };
            writeln!(f, "  {what} {} ({}): {}", step.index.sql(), step.index.method, step.reason)?;
        }
        if !self.missing.is_empty() {
            writeln!(f, "  {}", has_no(&self.table, &self.missing))?;
        }
        Ok(())
    }
}

pub(super) fn has_no(table: &str, indexes: &[String]) -> fault::Fault {
    fault::Fault::new(Kind::Configuration, format!("{table} has no index {}", indexes.join(", ")))
}
