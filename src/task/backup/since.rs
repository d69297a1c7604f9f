//! When a series was last restored, for a job that does not restore every set.

use chrono::{DateTime, Utc};

use super::often::Often;
use super::set::Set;

/// The last restore in a series.
pub struct Since {
    pub restored_at: Option<DateTime<Utc>>,
    /// The number of sets since, including the one that is being made.
    pub sets: u32,
}

impl Since {
    /// `sets`: those of the series, oldest first.
    pub fn of<'s>(sets: impl DoubleEndedIterator<Item = &'s Set>) -> Self {
        let (mut listed, mut counted, mut restored_at) = (0, None, None);
        for set in sets.rev() {
            // Sets in between may have been pruned: the newest set records their number.
            counted = counted.or(set.verification.sets_since_restore.map(|sets| sets.saturating_add(listed)));
            restored_at = set.verification.restored_at();
            if restored_at.is_some() {
                break;
            }
            listed += 1;
        }
        Self { restored_at, sets: counted.unwrap_or(0).max(listed).saturating_add(1) }
    }

    pub fn in_words(&self, often: Often) -> String {
        match self.restored_at {
            None => format!("restored {often}; no set was restored yet"),
            Some(at) => format!("restored {often}; last on {}", at.format("%Y-%m-%d %H:%MZ")),
        }
    }
}
