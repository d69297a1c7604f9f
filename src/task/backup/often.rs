//! How often sets are verified, and how.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike as _, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer};

/// A frequency. Days, weeks (ISO) and months are those of the job's time zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Often {
    #[default]
    Always,
    Never,
    Daily,
    Weekly,
    Monthly,
    /// One of this many sets.
    Every(u32),
}

/// How a job verifies its sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HowOften {
    pub checksum: Often,
    pub restore: Often,
}

impl Default for HowOften {
    fn default() -> Self {
        Self { checksum: Often::Always, restore: Often::Never }
    }
}

impl Often {
    /// Returns whether it is due at `now`. `last` is the time when it was last done; None means never. `sets` is the number of sets since,
    /// including the one that is being made.
    pub fn is_due(self, last: Option<DateTime<Utc>>, sets: u32, now: DateTime<Utc>, zone: Tz) -> bool {
        let Some(last) = last else { return self != Self::Never };
        let (last, now) = (last.with_timezone(&zone).date_naive(), now.with_timezone(&zone).date_naive());
        match self {
            Self::Always => true,
            Self::Never => false,
            // The times are compared for equality only: after a clock was set back, it must not stay undone for ever.
            Self::Daily => last != now,
            Self::Weekly => last.iso_week() != now.iso_week(),
            Self::Monthly => (last.year(), last.month()) != (now.year(), now.month()),
            Self::Every(count) => sets >= count,
        }
    }
}

impl FromStr for Often {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let every = || {
            let number = text.strip_prefix("every ")?;
            let digits = number.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
            let is_ordinal = matches!(&number[digits.len()..], "st" | "nd" | "rd" | "th");
            digits.parse::<u32>().ok().filter(|count| is_ordinal && *count > 0)
        };
        match text {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            "daily" => Ok(Self::Daily),
            "weekly" => Ok(Self::Weekly),
            "monthly" => Ok(Self::Monthly),
            _ => every().map(Self::Every).ok_or_else(|| {
                format!(
                    "`{text}` is not a frequency; use \"always\", \"never\", \"daily\", \"weekly\", \"monthly\", or \"every 7th\""
                )
            }),
        }
    }
}

impl fmt::Display for Often {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Never => f.write_str("never"),
            Self::Daily => f.write_str("daily"),
            Self::Weekly => f.write_str("weekly"),
            Self::Monthly => f.write_str("monthly"),
            Self::Every(count) => {
                let ending = match (count % 10, count % 100) {
                    (1, ten) if ten != 11 => "st",
                    (2, ten) if ten != 12 => "nd",
                    (3, ten) if ten != 13 => "rd",
                    _ => "th",
                };
                write!(f, "every {count}{ending} set")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Often {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_is_a_week_of_the_calendar_in_the_jobs_zone() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let due = |often: &str, last: &str, sets: u32, now: &str| {
            often.parse::<Often>().unwrap().is_due(Some(at(last)), sets, at(now), chrono_tz::Europe::Berlin)
        };
        // 2026-11-29 is a Sunday; in Berlin its 23:30Z is Monday.
        assert!(!due("weekly", "2026-11-23T02:00:00Z", 9, "2026-11-29T02:00:00Z"));
        assert!(due("weekly", "2026-11-23T02:00:00Z", 1, "2026-11-29T23:30:00Z"));
        assert!(due("weekly", "2025-12-01T02:00:00Z", 1, "2026-12-01T02:00:00Z"), "the same week of another year");
        assert!(!due("daily", "2026-11-23T02:00:00Z", 1, "2026-11-23T20:00:00Z"));
        assert!(due("monthly", "2026-11-30T02:00:00Z", 1, "2026-12-01T02:00:00Z"));
        assert!(!due("every 7th", "2026-11-01T02:00:00Z", 6, "2026-11-07T02:00:00Z"));
        assert!(due("every 7th", "2026-11-01T02:00:00Z", 7, "2026-11-08T02:00:00Z"));
        assert!(due("always", "2026-11-01T02:00:00Z", 1, "2026-11-01T02:00:00Z"));
        assert!(!due("never", "2026-11-01T02:00:00Z", 99, "2027-11-01T02:00:00Z"));
    }

    #[test]
    fn what_was_never_done_is_due_unless_it_never_is() {
        let now = Utc::now();
        for (often, expected) in [("weekly", true), ("every 3rd", true), ("always", true), ("never", false)] {
            assert_eq!(often.parse::<Often>().unwrap().is_due(None, 1, now, Tz::UTC), expected, "{often}");
        }
    }

    #[test]
    fn an_ordinal_is_read_as_people_write_it() {
        for (text, expected) in [
            ("every 7th", Some(Often::Every(7))),
            ("every 1st", Some(Often::Every(1))),
            ("every 22nd", Some(Often::Every(22))),
            ("every 0th", None),
            ("every 7", None),
            ("every seventh", None),
            ("hourly", None),
        ] {
            assert_eq!(text.parse::<Often>().ok(), expected, "{text}");
        }
        assert_eq!(Often::Every(22).to_string(), "every 22nd set");
        assert_eq!(Often::Every(11).to_string(), "every 11th set");
    }
}
