//! The plan of a reindex, as people read it.

use std::fmt;

use serde::Serialize;

use super::collations::Refresh;
use super::decide::{Action, Step};
use crate::base::fault::{self, Kind};

#[derive(Debug, Serialize)]
pub struct Plan {
    /// Or that they are of all tables.
    pub(super) table: String,
    pub(super) steps: Vec<Step>,
    pub(super) missing: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) refresh: Vec<Refresh>,
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
        for refresh in &self.refresh {
            match &refresh.stays {
                None => writeln!(f, "  refresh {}: version {} to {}", refresh.what, refresh.recorded, refresh.actual)?,
                Some(why) => writeln!(f, "  leave version {} of {}: {why}", refresh.recorded, refresh.what)?,
            }
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
