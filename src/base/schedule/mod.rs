//! Cron expressions in a time zone.
//!
//! croner computes the ticks; only this file and its folder name it.

mod field;
mod meant;
mod pattern;
mod read;
mod why;
mod zone;

use std::fmt;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;
pub use zone::Zone;

/// Five cron fields, six with leading seconds, or a nickname such as `@daily`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = pattern::of_schedules(), "examples" = ["0 2 * * *", "@daily"]))]
pub struct Schedule {
    text: String,
    cron: croner::Cron,
    /// True when both hour and minute are given: such a tick keeps its time of day when clocks change.
    is_fixed_time: bool,
    notes: Vec<String>,
}

/// The windows that are searched for the last tick, from a minute to more than eight years: 29 February can be that far away
/// (1896 to 1904).
const WINDOWS: [TimeDelta; 9] = [
    TimeDelta::seconds(10),
    TimeDelta::minutes(2),
    TimeDelta::minutes(30),
    TimeDelta::hours(5),
    TimeDelta::days(2),
    TimeDelta::days(10),
    TimeDelta::days(70),
    TimeDelta::days(500),
    TimeDelta::days(3300),
];

/// The most ticks in one step of a search: the seconds of some hours, one by one.
const TICKS_LOOKED_AT: usize = 20_000;

impl Schedule {
    /// Returns the first tick after `after`, in the job's zone, by Vixie cron's rules (cron(8) of Debian): when clocks go
    /// forward, fixed times in the gap come right after it; when they go back, fixed times come once, the first time. Schedules
    /// with `*` as hour or minute follow wall-clock time both times.
    /// Returns `None` when there is none within croner's horizon.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Tz>> {
        if !self.is_fixed_time {
            return self.cron.find_next_occurrence(&after.with_timezone(&zone), false).ok();
        }
        // croner drops the tick in the gap of `30 2,3 * * *` (4.0.3). So here it only computes on a calendar without gaps, and
        // its ticks are put on the zone's clock afterwards.
        let mut on_the_wall = wall_clock_start(after, zone).and_utc();
        for _ in 0..TICKS_LOOKED_AT {
            on_the_wall = self.cron.find_next_occurrence(&on_the_wall, false).ok()?;
            let tick = first_instant(on_the_wall.naive_utc(), zone)?;
            if tick > after {
                return Some(tick);
            }
        }
        None
    }

    /// Returns the last tick at or before `until`. It searches forward, so that both directions know the same ticks.
    pub fn last_until(&self, until: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let first_in = |window: &TimeDelta| {
            self.next_after(until - *window, zone).map(|tick| tick.with_timezone(&Utc)).filter(|tick| *tick <= until)
        };
        let mut last = WINDOWS.iter().find_map(first_in)?;
        for _ in 0..TICKS_LOOKED_AT {
            match self.next_after(last, zone).map(|tick| tick.with_timezone(&Utc)) {
                Some(tick) if tick <= until => last = tick,
                _ => break,
            }
        }
        Some(last)
    }

    /// Returns the schedule in English: "At 02:00".
    pub fn in_words(&self) -> String {
        let words = self.cron.describe().trim_end_matches('.').to_owned();
        // croner has no words for LW (4.0.3).
        let is_last_weekday = self.day_field().split(',').any(|part| part.eq_ignore_ascii_case("LW"));
        match is_last_weekday {
            true => words.replace("the last day of the month", "the last day of the month from Monday to Friday"),
            false => words,
        }
    }

    /// Returns what the schedule means where that is probably not meant.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the fields as croner read them.
    pub fn cron(&self) -> &croner::Cron {
        &self.cron
    }

    fn day_field(&self) -> &str {
        self.text.split_whitespace().rev().nth(2).unwrap_or_default()
    }

    /// Returns whether ticks may differ in their seconds.
    pub fn has_seconds(&self) -> bool {
        self.text.split_whitespace().count() == 6
    }
}

/// Returns wall-clock time at `after`; near a clock change, early enough that no tick which the change moves is missed.
fn wall_clock_start(after: DateTime<Utc>, zone: Tz) -> NaiveDateTime {
    let near = TimeDelta::hours(4);
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let wall = after.with_timezone(&zone).naive_local();
    if offset(after - near) == offset(after + near) { wall } else { wall - near }
}

/// Returns the first instant at which wall-clock time is this or later.
fn first_instant(wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Tz>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at),
        // In a gap, this is its end, found from the last instant before it. Offsets and gaps are whole seconds, and no zone has
        // ever skipped more than a day (Samoa, 2011).
        LocalResult::None => {
            let (mut before, mut after) = (0, 26 * 3600);
            let exists = |seconds: i64| zone.from_local_datetime(&(wall + TimeDelta::seconds(seconds))).earliest();
            while after - before > 1 {
                let middle = (before + after) / 2;
                if exists(middle).is_some() { after = middle } else { before = middle }
            }
            exists(after)
        }
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let read::Read { cron, is_fixed_time, notes } = read::read(&text)?;
        // `0 0 31 2 *` is valid, but never comes.
        let start = DateTime::<Utc>::from_timestamp(1_704_067_200, 0).unwrap_or_default();
        if cron.find_next_occurrence(&start, false).is_err() {
            return Err(format!("`{text}` never runs: no calendar has such a day. The last day of a month is L: \"0 2 L * *\""));
        }
        Ok(Self { text, cron, is_fixed_time, notes })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod cron_tests;

#[cfg(test)]
mod tests {
    use chrono::{Datelike as _, Timelike as _};
    use proptest::prelude::*;

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
    fn a_day_field_that_begins_with_a_star_is_unrestricted_as_cron_has_it() {
        let next = |text: &str| -> Vec<String> {
            let mut at = Utc.with_ymd_and_hms(2026, 11, 1, 12, 0, 0).unwrap();
            let mut days = Vec::new();
            for _ in 0..4 {
                at = schedule(text).unwrap().next_after(at, Tz::UTC).unwrap().with_timezone(&Utc);
                days.push(at.format("%m-%d").to_string());
            }
            days
        };
        assert_eq!(next("0 0 1-7 * */7"), ["12-06", "01-03", "02-07", "03-07"], "the first Sunday of the month");
        assert_eq!(next("0 0 */100,1-7 * MON"), ["11-02", "12-07", "01-04", "02-01"], "the first Monday");
        assert_eq!(next("0 0 */2 * 1"), ["11-09", "11-23", "12-07", "12-21"], "Mondays with an odd number");
        assert_eq!(next("0 0 1-2 * mon"), ["11-02", "11-09", "11-16", "11-23"], "either is enough");
    }

    #[test]
    fn schedules_are_told_in_words() {
        for (text, words) in [
            ("0 2 * * *", "At 02:00"),
            ("0 0 1-7 * */7", "At 00:00, on day 1-7 (if it is also Sunday)"),
            ("0 0 LW * *", "At 00:00, on the last day of the month from Monday to Friday"),
            ("0 0 L * *", "At 00:00, on the last day of the month"),
            ("0 0 * * 5#2", "At 00:00, on the 2nd Friday of the month"),
            ("0 0 * * 5L", "At 00:00, on the last Friday of the month"),
            ("0 0 15W * *", "At 00:00, on the weekday nearest day 15"),
            ("@midnight", "At 00:00"),
        ] {
            assert_eq!(schedule(text).unwrap().in_words(), words, "{text}");
        }
    }

    #[test]
    fn nonsense_and_impossible_days_are_refused() {
        for text in ["", "0 25 * * *", "daily", "@fortnightly", "* * * *", "0 0 2 * * * 2030", "0 0 9 2 +", "0 0 9 2 + "] {
            assert!(schedule(text).is_err(), "{text}");
        }
        assert!(schedule("0 0 31 2 *").unwrap_err().contains("never runs"));
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

    fn ticks(text: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let (schedule, zone) = (schedule(text).unwrap(), Zone::try_from(zone.to_owned()).unwrap().0);
        let instant = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc);
        let mut ticks = Vec::new();
        let mut at = instant(from);
        while let Some(tick) = schedule.next_after(at, zone).filter(|tick| *tick < instant(until)) {
            ticks.push(tick.format("%d %H:%M %z").to_string());
            at = tick.with_timezone(&Utc);
        }
        ticks
    }

    #[test]
    fn a_fixed_time_in_the_gap_comes_right_after_it() {
        let spring = |text| ticks(text, "Europe/Paris", "2026-03-29T00:00:00+01:00", "2026-03-29T23:00:00+02:00");
        assert_eq!(spring("30 2 * * *"), ["29 03:00 +0200"]);
        // croner alone loses the first of these.
        assert_eq!(spring("30 2,3 * * *"), ["29 03:00 +0200", "29 03:30 +0200"]);
        assert_eq!(spring("15,45 2 * * *"), ["29 03:00 +0200"], "several in the gap are one");
        assert_eq!(
            ticks("30 2 * * *", "America/New_York", "2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"),
            ["08 03:00 -0400"]
        );
        // Half an hour's change.
        assert_eq!(
            ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"),
            ["04 02:30 +1100"]
        );
    }

    #[test]
    fn a_fixed_time_that_comes_twice_runs_once() {
        assert_eq!(
            ticks("30 2 * * *", "Europe/Paris", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
            ["25 02:30 +0200"]
        );
        assert_eq!(
            ticks("30 1 * * *", "America/New_York", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"),
            ["01 01:30 -0400"]
        );
        assert_eq!(
            ticks("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30"),
            ["05 01:45 +1100"]
        );
    }

    #[test]
    fn an_hourly_job_follows_the_wall_over_both_changes() {
        assert_eq!(
            ticks("0 * * * *", "Europe/Paris", "2026-03-29T00:30:00+01:00", "2026-03-29T04:30:00+02:00"),
            ["29 01:00 +0100", "29 03:00 +0200", "29 04:00 +0200"]
        );
        for hourly in ["0 * * * *", "@hourly", "@Hourly"] {
            assert_eq!(
                ticks(hourly, "Europe/Paris", "2026-10-25T01:30:00+02:00", "2026-10-25T03:30:00+01:00"),
                ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"],
                "{hourly}"
            );
        }
    }

    #[test]
    fn a_day_that_a_zone_skipped_has_no_midnight() {
        // Samoa had no 30 December 2011.
        assert_eq!(
            ticks("0 0 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", "2012-01-01T12:00:00+14:00"),
            ["31 00:00 +1400", "01 00:00 +1400"]
        );
    }

    /// cron(8)'s rules, minute by minute, in the dullest possible way.
    fn expected(
        minutes: &[u32],
        hours: &[u32],
        days: &[u32],
        weekdays: &[u32],
        zone: Tz,
        after: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let (any_minute, any_hour) = (minutes.is_empty(), hours.is_empty());
        let wall_matches = |wall: NaiveDateTime| {
            let day = days.contains(&wall.day());
            let weekday = weekdays.contains(&wall.weekday().num_days_from_sunday());
            let is_day = match (days.is_empty(), weekdays.is_empty()) {
                (true, true) => true,
                (false, true) => day,
                (true, false) => weekday,
                (false, false) => day || weekday,
            };
            (any_minute || minutes.contains(&wall.minute())) && (any_hour || hours.contains(&wall.hour())) && is_day
        };
        let start = after.with_second(0)?.with_nanosecond(0)?;
        (1..60 * 24 * 40).map(|minute| start + TimeDelta::minutes(minute)).find(|at| {
            let wall = at.with_timezone(&zone).naive_local();
            if any_minute || any_hour {
                return wall_matches(wall);
            }
            let is_second_time = matches!(zone.from_local_datetime(&wall), LocalResult::Ambiguous(first, _) if first != *at);
            let minute_before = (*at - TimeDelta::minutes(1)).with_timezone(&zone).naive_local();
            let skipped = (wall - minute_before).num_minutes() - 1;
            let in_the_gap = (0..skipped.max(0)).any(|minute| wall_matches(minute_before + TimeDelta::minutes(minute + 1)));
            (wall_matches(wall) && !is_second_time) || in_the_gap
        })
    }

    fn field(values: &[u32]) -> String {
        if values.is_empty() {
            return "*".to_owned();
        }
        values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn ticks_are_those_of_cron_in_any_zone_at_any_time(
            minutes in proptest::collection::btree_set(0u32..60, 0..4),
            hours in prop_oneof![proptest::collection::btree_set(0u32..5, 0..4), proptest::collection::btree_set(0u32..24, 0..4)],
            days in proptest::collection::btree_set(1u32..29, 0..3),
            weekdays in proptest::collection::btree_set(0u32..7, 0..3),
            zone in proptest::sample::select(vec!["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "UTC", "America/Sao_Paulo"]),
            // Around the changes of 2026, and anywhere.
            start in prop_oneof![
                proptest::sample::select(vec![1_772_928_000i64, 1_774_742_400, 1_775_318_400, 1_791_030_000, 1_792_886_400, 1_793_491_200]),
                1_700_000_000i64..1_900_000_000,
            ],
            offset in 0i64..100_000,
        ) {
            let (minutes, hours): (Vec<_>, Vec<_>) = (minutes.into_iter().collect(), hours.into_iter().collect());
            let (days, weekdays): (Vec<_>, Vec<_>) = (days.into_iter().collect(), weekdays.into_iter().collect());
            let text = format!("{} {} {} * {}", field(&minutes), field(&hours), field(&days), field(&weekdays));
            let zone = Zone::try_from(zone.to_owned()).unwrap().0;
            let after = DateTime::from_timestamp(start + offset, 0).unwrap();
            let schedule = schedule(&text).unwrap();
            let next = schedule.next_after(after, zone).map(|tick| tick.with_timezone(&Utc));
            let expected = expected(&minutes, &hours, &days, &weekdays, zone, after);
            if expected.is_some() {
                prop_assert_eq!(next, expected, "{} in {} after {}", text, zone, after);
            }
            // Both directions know the same ticks.
            if let Some(next) = next {
                prop_assert_eq!(schedule.last_until(next, zone), Some(next));
                let before = schedule.last_until(next - TimeDelta::seconds(1), zone);
                prop_assert!(before.is_none_or(|before| before <= after), "{} in {}: {:?}", text, zone, before);
            }
        }
    }
}
