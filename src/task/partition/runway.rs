//! How far the partitions of a table reach.

use chrono::{DateTime, Utc};

use super::calendar::Every;

/// A table's partitions from now on, up to the first gap.
pub struct Runway {
    /// None: rows of now have no partition.
    pub until: Option<String>,
    pub until_instant: Option<DateTime<Utc>>,
    /// At least one whole period beyond the current one.
    pub is_covered: bool,
}

impl Runway {
    pub fn in_words(&self) -> String {
        self.until.as_ref().map_or_else(|| "nothing is covered now".to_owned(), |until| format!("covered until {until}"))
    }

    /// What follows from less than one period.
    pub fn is_short(every: Every) -> String {
        format!("that is less than one period ({every}) ahead, and rows beyond it will be refused or go to the default partition")
    }
}
