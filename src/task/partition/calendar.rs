//! Periods and their names: pure.
//!
//! A **position** is a key's value as a number: microseconds since 1970 in UTC for points in time, the number itself for number keys. Keys
//! without a zone (`timestamp`, `date`) are wall-clock time without daylight saving time. Periods are half-open and leave no gaps:
//! pg_partman left an hour without a partition when clocks changed (#334), and its bounds moved with the client's zone (#373).

use std::fmt;

use chrono::{
    DateTime, Datelike as _, Days, LocalResult, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone as _, Timelike as _, Utc,
};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// PostgreSQL's limit for a name, in bytes (NAMEDATALEN - 1).
pub const NAME_BYTES: usize = 63;
const HOUR_MICROSECONDS: i64 = 3_600_000_000;
/// The most calendar steps in one search. A zone that skipped a day needs two; no zone has needed more.
const STEPS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Hours of UTC: an hour of a zone occurs twice, or not at all, when its clocks change.
    Hour,
    Day,
    /// From Monday, as in ISO 8601.
    Week,
    Month,
    Quarter,
    Year,
}

/// The size of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Every {
    /// "hour", "day", "week", "month", "quarter" or "year".
    Unit(Unit),
    /// This many numbers, for an identity column or another number key.
    Step(#[schemars(range(min = 1))] u32),
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unit(unit) => f.write_str(unit.name()),
            Self::Step(step) => write!(f, "{step} numbers"),
        }
    }
}

/// A period includes `from`, and ends before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Period {
    pub from: i64,
    pub to: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    pub every: Every,
    pub zone: Tz,
}

impl Calendar {
    /// Returns the period that contains `position`; None outside the years 1 to 9998.
    pub fn period_at(&self, position: i64) -> Option<Period> {
        match self.every {
            Every::Step(step) => {
                let from = position.div_euclid(i64::from(step)).checked_mul(i64::from(step))?;
                Some(Period { from, to: from.checked_add(i64::from(step))? })
            }
            Every::Unit(Unit::Hour) => {
                instant(position)?;
                let from = position.div_euclid(HOUR_MICROSECONDS) * HOUR_MICROSECONDS;
                Some(Period { from, to: from + HOUR_MICROSECONDS })
            }
            Every::Unit(unit) => self.days_at(unit, position).map(|(_, period)| period),
        }
    }

    /// Searches by the bounds, not by the local date of `position`: in St. John's, clocks went back from 00:01 to 23:01 of the day before,
    /// so that a date occurred twice.
    fn days_at(&self, unit: Unit, position: i64) -> Option<(NaiveDate, Period)> {
        let date = instant(position)?.with_timezone(&self.zone).date_naive();
        let mut first = unit.first_day(date.checked_add_days(Days::new(2))?)?;
        let mut steps = STEPS;
        while start_of(first, self.zone)? > position {
            first = unit.first_day(first.pred_opt()?)?;
            steps = steps.checked_sub(1)?;
        }
        let from = start_of(first, self.zone)?;
        let mut next = unit.next(first)?;
        // Samoa had no 2011-12-30: that day is empty and is not a period.
        while start_of(next, self.zone)? <= from {
            next = unit.next(next)?;
            steps = steps.checked_sub(1)?;
        }
        Some((first, Period { from, to: start_of(next, self.zone)? }))
    }

    pub fn after(&self, period: Period) -> Option<Period> {
        self.period_at(period.to)
    }

    /// Returns the suffix that a partition's name adds to its table's: `p2026_11`.
    pub fn suffix(&self, period: Period) -> String {
        match self.every {
            Every::Step(_) if period.from < 0 => format!("pm{}", period.from.unsigned_abs()),
            Every::Step(_) => format!("p{}", period.from),
            Every::Unit(Unit::Hour) => {
                let start = DateTime::from_timestamp_micros(period.from).unwrap_or_default();
                format!("p{:04}_{:02}_{:02}_{:02}", start.year(), start.month(), start.day(), start.hour())
            }
            Every::Unit(unit) => {
                let first = self.days_at(unit, period.from).map(|(first, _)| first).unwrap_or_default();
                unit.suffix(first)
            }
        }
    }
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    fn first_day(self, date: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Hour | Self::Day => Some(date),
            Self::Week => date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into())),
            Self::Month => date.with_day(1),
            Self::Quarter => NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1),
            Self::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1),
        }
    }

    fn next(self, first: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Hour | Self::Day => first.succ_opt(),
            Self::Week => first.checked_add_days(Days::new(7)),
            Self::Month => first.checked_add_months(Months::new(1)),
            Self::Quarter => first.checked_add_months(Months::new(3)),
            Self::Year => first.checked_add_months(Months::new(12)),
        }
    }

    fn suffix(self, first: NaiveDate) -> String {
        match self {
            Self::Hour | Self::Day => format!("p{:04}_{:02}_{:02}", first.year(), first.month(), first.day()),
            Self::Week => format!("p{:04}w{:02}", first.iso_week().year(), first.iso_week().week()),
            Self::Month => format!("p{:04}_{:02}", first.year(), first.month()),
            Self::Quarter => format!("p{:04}q{}", first.year(), first.month0() / 3 + 1),
            Self::Year => format!("p{:04}", first.year()),
        }
    }
}

/// Returns the instant, if its year is one that every key type and its text form can hold.
fn instant(position: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(position).filter(|instant| (1..9999).contains(&instant.year()))
}

/// Returns the first instant of a date in a zone: the first midnight if there are two, or the end of the gap if midnight is skipped.
fn start_of(date: NaiveDate, zone: Tz) -> Option<i64> {
    let midnight = date.and_time(NaiveTime::MIN);
    match zone.from_local_datetime(&midnight) {
        LocalResult::Single(start) | LocalResult::Ambiguous(start, _) => Some(start.timestamp_micros()),
        LocalResult::None => {
            // Offsets lie between -15 h and +15 h, so that the gap lies between these two.
            let (mut before, mut after) = (-30 * 3600, 30 * 3600);
            let reads_later =
                |seconds: i64| zone.from_utc_datetime(&(midnight + TimeDelta::seconds(seconds))).naive_local() >= midnight;
            while after - before > 1 {
                let middle = before + (after - before) / 2;
                if reads_later(middle) { after = middle } else { before = middle }
            }
            Some((midnight + TimeDelta::seconds(after)).and_utc().timestamp_micros())
        }
    }
}

/// Returns `TABLE_SUFFIX` within 63 bytes. A table's name that must be cut gets a hash of itself: otherwise two long names with the same beginning
/// would share names of partitions.
pub fn partition_name(table: &str, suffix: &str) -> String {
    let room = NAME_BYTES.saturating_sub(suffix.len() + 1);
    if table.len() <= room {
        return format!("{table}_{suffix}");
    }
    let hash: String = Sha256::digest(table.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut end = room.saturating_sub(hash.len() + 1);
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{hash}_{suffix}", &table[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNITS: [Unit; 6] = [Unit::Hour, Unit::Day, Unit::Week, Unit::Month, Unit::Quarter, Unit::Year];

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn show(position: i64) -> String {
        instant(position).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }

    /// Returns the period of an instant: its bounds in UTC, and its name.
    fn period(unit: Unit, zone: Tz, text: &str) -> (String, String, String) {
        let calendar = Calendar { every: Every::Unit(unit), zone };
        let period = calendar.period_at(at(text)).unwrap();
        (show(period.from), show(period.to), calendar.suffix(period))
    }

    #[test]
    fn bounds_and_names_are_those_of_the_calendar() {
        use Unit::*;
        for (unit, zone, instant, from, to, name) in [
            (Month, Tz::UTC, "2026-11-23T22:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", "p2026_11"),
            (Month, Tz::Europe__Berlin, "2026-10-31T23:30:00Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z", "p2026_11"),
            (Day, Tz::UTC, "2028-02-29T12:00:00Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z", "p2028_02_29"),
            (Day, Tz::Europe__Berlin, "2027-03-28T12:00:00Z", "2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z", "p2027_03_28"),
            (Day, Tz::Europe__Berlin, "2027-10-31T12:00:00Z", "2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z", "p2027_10_31"),
            (Week, Tz::UTC, "2026-11-23T22:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z", "p2026w48"),
            (Week, Tz::UTC, "2027-01-01T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z", "p2026w53"),
            (Quarter, Tz::UTC, "2026-11-23T22:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z", "p2026q4"),
            (Year, Tz::UTC, "2026-11-23T22:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "p2026"),
            // The hour that occurs twice in Berlin has two partitions with two names.
            (Hour, Tz::Europe__Berlin, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "p2026_10_25_00"),
            (Hour, Tz::Europe__Berlin, "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", "p2026_10_25_01"),
            // Midnight does not exist there on that day, and the day starts at one.
            (Day, Tz::America__Santiago, "2026-09-06T12:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z", "p2026_09_06"),
            // A day that was left out.
            (Day, Tz::Pacific__Apia, "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z", "p2011_12_31"),
            (Day, Tz::Pacific__Apia, "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "p2011_12_29"),
            // 00:01 went back to 23:01 of the day before: the day starts at its first midnight.
            (Day, Tz::America__St_Johns, "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z", "p2010_11_07"),
        ] {
            assert_eq!(
                period(unit, zone, instant),
                (from.to_owned(), to.to_owned(), name.to_owned()),
                "{unit:?} {zone} {instant}"
            );
        }
    }

    #[test]
    fn numbers_are_cut_at_multiples() {
        let calendar = Calendar { every: Every::Step(1000), zone: Tz::UTC };
        let name = |position| calendar.suffix(calendar.period_at(position).unwrap());
        assert_eq!([-1, 0, 999, 1000].map(name), ["pm1000", "p0", "p0", "p1000"]);
        assert_eq!(calendar.period_at(i64::MAX), None);
    }

    #[test]
    fn long_names_are_cut_without_colliding() {
        assert_eq!(partition_name("execution_logs", "p2026_11"), "execution_logs_p2026_11");
        let (one, other) = ("ü".repeat(31), format!("{}x", "ü".repeat(31)));
        let names = [&one, &other].map(|table| partition_name(table, "p2026_11_23_02"));
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() <= NAME_BYTES && name.ends_with("_p2026_11_23_02")), "{names:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// In every zone, at any time: a period holds what it was asked for, gives itself for everything in it, and the
        /// next one starts where it ends, under another name.
        #[test]
        fn periods_leave_no_hole_and_do_not_overlap(
            zone in 0..chrono_tz::TZ_VARIANTS.len(), unit in 0..UNITS.len(),
            seconds in -2_208_988_800_i64..4_102_444_800, inside in 0.0..1.0_f64,
        ) {
            let calendar = Calendar { every: Every::Unit(UNITS[unit]), zone: chrono_tz::TZ_VARIANTS[zone] };
            let position = seconds * 1_000_000 + 1;
            let period = calendar.period_at(position).unwrap();
            prop_assert!(period.from <= position && position < period.to);
            let within = period.from + ((period.to - period.from) as f64 * inside) as i64;
            for same in [period.from, within.min(period.to - 1), period.to - 1] {
                prop_assert_eq!(calendar.period_at(same), Some(period));
            }
            let next = calendar.after(period).unwrap();
            prop_assert_eq!(next.from, period.to);
            prop_assert!(next.to > next.from);
            prop_assert_ne!(calendar.suffix(next), calendar.suffix(period));
            prop_assert_eq!(period.from % 1_000_000, 0);
        }
    }
}
