//! Cron expressions in a time zone.
//!
//! croner computes the ticks; this file is the only one that names it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use schemars::JsonSchema;
use serde::Deserialize;

/// Five cron fields, six with leading seconds, or a nickname such as `@daily`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Schedule {
    text: String,
    cron: croner::Cron,
}

impl Schedule {
    /// The first tick after `after`, in the job's zone. None when there is none within croner's horizon.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Tz>> {
        self.cron.find_next_occurrence(&after.with_timezone(&zone), false).ok()
    }

    /// The last tick at or before `until`.
    pub fn last_until(&self, until: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        self.cron.find_previous_occurrence(&until.with_timezone(&zone), true).ok().map(|tick| tick.with_timezone(&Utc))
    }

    /// The schedule in English: "At 02:00".
    pub fn in_words(&self) -> String {
        self.cron.describe()
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(&text).map_err(|error| {
            format!("`{text}` is not a schedule: {error}; write five cron fields like \"0 2 * * *\", six with seconds, or @daily")
        })?;
        // `0 0 31 2 *` parses, and never comes.
        let start = Utc.with_ymd_and_hms(2024, 1, 1, 0, 0, 0).unwrap();
        if cron.find_next_occurrence(&start, false).is_err() {
            return Err(format!("`{text}` is a schedule that never comes: no calendar has such a day"));
        }
        Ok(Self { text, cron })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An IANA time zone name: `UTC`, `Europe/Berlin`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Zone(pub Tz);

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Tz::from_str(&name).map(Self).map_err(|_| {
            let near = chrono_tz::TZ_VARIANTS
                .iter()
                .map(|zone| (strsim::jaro_winkler(zone.name(), &name), zone.name()))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(likeness, _)| *likeness > 0.8)
                .map(|(_, near)| format!("; did you mean `{near}`?"));
            format!("`{name}` is not an IANA time zone{}", near.unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Result<Schedule, String> {
        Schedule::try_from(text.to_owned())
    }

    #[test]
    fn five_fields_six_fields_and_nicknames_are_schedules() {
        for text in ["0 2 * * *", "30 0 2 * * *", "@daily", "@hourly", "*/5 * * * mon-fri"] {
            schedule(text).unwrap();
        }
    }

    #[test]
    fn nonsense_and_impossible_days_are_refused() {
        for text in ["", "0 25 * * *", "daily", "@fortnightly", "* * * *", "0 0 2 * * * 2030"] {
            assert!(schedule(text).is_err(), "{text}");
        }
        assert!(schedule("0 0 31 2 *").unwrap_err().contains("never comes"));
        assert!(schedule("0 0 29 2 *").is_ok(), "leap days come");
    }

    #[test]
    fn ticks_follow_the_jobs_zone_over_a_clock_change() {
        let zone = Zone::try_from("Europe/Paris".to_owned()).unwrap().0;
        let daily = schedule("0 2 * * *").unwrap();
        let before = Utc.with_ymd_and_hms(2026, 10, 24, 12, 0, 0).unwrap();
        let first = daily.next_after(before, zone).unwrap();
        let second = daily.next_after(first.with_timezone(&Utc), zone).unwrap();
        assert_eq!(first.to_rfc3339(), "2026-10-25T02:00:00+02:00");
        assert_eq!(second.to_rfc3339(), "2026-10-26T02:00:00+01:00");
    }

    #[test]
    fn a_misspelt_zone_gets_a_hint() {
        let error = Zone::try_from("Europe/Berln".to_owned()).unwrap_err();
        assert!(error.contains("did you mean `Europe/Berlin`"), "{error}");
    }
}
