//! The plan of an audit, as people read it.

use std::fmt;

use chrono::Utc;
use serde::Serialize;

use super::document::Level;
use crate::base::units;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub(super) server: String,
    pub(super) checks: usize,
    pub(super) last_audit: Option<chrono::DateTime<Utc>>,
    /// The reports and databases that it writes, and where.
    pub(super) writes: Vec<String>,
    pub(super) waivers: usize,
    pub(super) fail_on: Option<Level>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "Would run {} on {}, each in a READ ONLY transaction", units::plural(self.checks, "check"), self.server)?;
        match self.last_audit {
            Some(at) => writeln!(f, "  compared with the audit of {}", at.format("%Y-%m-%d %H:%M UTC"))?,
            None => writeln!(f, "  not compared: there is no earlier audit")?,
        }
        for line in &self.writes {
            writeln!(f, "  {line}")?;
        }
        if self.waivers > 0 {
            writeln!(f, "  {}", units::plural(self.waivers, "waiver"))?;
        }
        match self.fail_on {
            Some(level) => {
                writeln!(f, "  fails if a finding is {level}{}", if level == Level::Critical { "" } else { " or more" })
            }
            None => writeln!(f, "  does not fail because of findings"),
        }
    }
}
