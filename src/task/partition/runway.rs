//! How far ahead the partitions of a table cover its rows.

use chrono::{DateTime, Utc};

use super::calendar::Every;

/// The range that partitions cover from the current time (or number) on, up to the first gap.
pub struct Runway {
    /// None if no partition covers new rows.
    pub until: Option<String>,
    /// `until` as an instant; None for number keys, and if there is no end.
    pub until_instant: Option<DateTime<Utc>>,
    /// True if at least one whole period beyond the current one is covered.
    pub is_covered: bool,
}

impl Runway {
    pub fn in_words(&self) -> String {
        self.until.as_ref().map_or_else(|| "no partition covers new rows".to_owned(), |until| format!("covered until {until}"))
    }

    /// Describes the consequence of a runway that is too short.
    pub fn short_in_words(every: Every) -> String {
        format!(
            "partitions cover less than one period ({every}) ahead: rows beyond them are refused, or go to the default partition"
        )
    }
}
