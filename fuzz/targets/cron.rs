//! Schedules: the next tick is the first one after now that the fields name, and what is rendered for systemd and Kubernetes ticks at
//! the same moments.

#![no_main]

use chrono::{DateTime, Datelike as _, Days, NaiveDateTime, NaiveTime, Timelike as _, Utc};
use chrono_tz::Tz;
use libfuzzer_sys::fuzz_target;
use pgtend::base::schedule::Schedule;
use pgtend::cli::render::cron::{self, Fields};
use pgtend::cli::render::kubernetes::{CronJob, Options, kubernetes};
use pgtend::cli::render::systemd::{Timer, systemd};

/// Of them, the strangest: half an hour's change, a day that was skipped, no change at all.
const ZONES: [Tz; 6] =
    [Tz::UTC, Tz::Europe__Paris, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Pacific__Apia, Tz::Africa__Casablanca];

/// A 29th of February may stay away for eight years, and one that is a Monday for forty.
const DAYS_LOOKED_AT: u64 = 15_000;

fuzz_target!(|input: &[u8]| {
    let [zone, a, b, c, d, text @ ..] = input else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let zone = ZONES[usize::from(*zone) % ZONES.len()];
    let after = DateTime::from_timestamp(i64::from(u32::from_be_bytes([*a, *b, *c, *d])), 0).expect("a time");
    let _ = cron::fields(text);
    let Ok(schedule) = Schedule::try_from(text.to_owned()) else { return };
    let _ = (schedule.in_words(), schedule.to_string(), schedule.has_seconds());
    ticks_rise(&schedule, after, zone);

    let next = next_in_utc(&schedule, after);
    let timer = Timer {
        job: "job",
        schedule: text,
        timezone: "UTC",
        jitter_seconds: None,
        description: Some(text),
        enabled: true,
        catch_up: true,
    };
    let cron_job = CronJob {
        has_patterns: false,
        job: "job",
        database: "app",
        only_database: true,
        schedule: text,
        timezone: "UTC",
        timeout_seconds: None,
        description: Some(text),
        enabled: true,
        catch_up_within_seconds: 3600,
        may_run_again: true,
    };
    let units = systemd(&[timer]);
    let documents = kubernetes(&[cron_job], &Options { image: "pgtend", namespace: None });
    let Ok(fields) = cron::fields(text) else {
        assert!(units.is_err() && documents.is_err(), "{text} is rendered without being read");
        return;
    };
    let times = Times::of_fields(&fields);
    assert_eq!(next, first(&times, after), "`{text}` after {after}");
    let unit = &units.expect("a timer has seconds, days and weekdays")[0].1;
    let calendar: Vec<Times> = unit.lines().filter_map(|line| line.strip_prefix("OnCalendar=")).map(Times::of_calendar).collect();
    assert_eq!(next, first(&calendar, after), "`{text}` after {after} by systemd: {unit}");
    if let Ok(documents) = documents {
        let line = documents.lines().find_map(|line| line.strip_prefix("  schedule: ")).expect("a schedule");
        let rendered = Schedule::try_from(line.trim_matches('"').to_owned()).unwrap_or_else(|error| panic!("`{text}`: {error}"));
        assert_eq!(next, next_in_utc(&rendered, after), "`{text}` after {after} by Kubernetes: {line}");
        assert_eq!(line.split(' ').count(), 5, "{line}");
    } else {
        let has_seconds = fields.seconds != [0];
        assert!(has_seconds || fields.day_and_weekday, "`{text}` could be a CronJob");
    }
});

fn ticks_rise(schedule: &Schedule, after: DateTime<Utc>, zone: Tz) {
    let Some(next) = schedule.next_after(after, zone).map(|tick| tick.with_timezone(&Utc)) else { return };
    assert!(next > after, "{schedule} in {zone}: {next} is not after {after}");
    if let Some(second) = schedule.next_after(next, zone).map(|tick| tick.with_timezone(&Utc)) {
        assert!(second > next, "{schedule} in {zone}: {second} is not after {next}");
    }
    assert_eq!(schedule.last_until(next, zone), Some(next), "{schedule} in {zone}");
}

fn next_in_utc(schedule: &Schedule, after: DateTime<Utc>) -> Option<NaiveDateTime> {
    let next = schedule.next_after(after, Tz::UTC)?.naive_utc();
    (next.date() <= last_day(after)).then_some(next)
}

fn last_day(after: DateTime<Utc>) -> chrono::NaiveDate {
    after.date_naive() + Days::new(DAYS_LOOKED_AT)
}

/// Moments by their numbers. All must match.
struct Times {
    seconds: Vec<u32>,
    minutes: Vec<u32>,
    hours: Vec<u32>,
    days: Vec<u32>,
    months: Vec<u32>,
    /// From Sunday.
    weekdays: Vec<u32>,
}

fn all(from: u32, to: u32) -> Vec<u32> {
    (from..=to).collect()
}

impl Times {
    fn of_fields(fields: &Fields) -> Vec<Self> {
        let numbers = |list: &[u16]| list.iter().map(|number| u32::from(*number)).collect::<Vec<u32>>();
        let of = |days: Option<&Vec<u16>>, weekdays: Option<&Vec<u16>>| Self {
            seconds: numbers(&fields.seconds),
            minutes: numbers(&fields.minutes),
            hours: numbers(&fields.hours),
            days: days.map_or(all(1, 31), |days| numbers(days)),
            months: numbers(&fields.months),
            weekdays: weekdays.map_or(all(0, 6), |days| numbers(days)),
        };
        match (&fields.days, &fields.weekdays) {
            (Some(days), Some(weekdays)) if !fields.day_and_weekday => vec![of(Some(days), None), of(None, Some(weekdays))],
            (days, weekdays) => vec![of(days.as_ref(), weekdays.as_ref())],
        }
    }

    /// `Mon..Fri *-*-01..07 09..17:00/15:00 UTC`, by systemd.time(7).
    fn of_calendar(expression: &str) -> Self {
        let mut words: Vec<&str> = expression.split(' ').collect();
        assert_eq!(words.pop(), Some("UTC"));
        let time: Vec<&str> = words.pop().expect("a time").split(':').collect();
        let date: Vec<&str> = words.pop().expect("a date").splitn(3, '-').collect();
        assert_eq!(date[0], "*");
        Self {
            seconds: numbers(time[2], 0, 59),
            minutes: numbers(time[1], 0, 59),
            hours: numbers(time[0], 0, 23),
            days: numbers(date[2], 1, 31),
            months: numbers(date[1], 1, 12),
            weekdays: words.pop().map_or(all(0, 6), weekdays),
        }
    }

    fn is_day(&self, day: NaiveDateTime) -> bool {
        self.months.contains(&day.month())
            && self.days.contains(&day.day())
            && self.weekdays.contains(&day.weekday().num_days_from_sunday())
    }
}

fn numbers(text: &str, min: u32, max: u32) -> Vec<u32> {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    text.split(',')
        .flat_map(|part| {
            let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, number(step)));
            let (from, to) = match range.split_once("..") {
                Some((from, to)) => (number(from), number(to)),
                None if range == "*" => (min, max),
                None if part.contains('/') => (number(range), max),
                None => (number(range), number(range)),
            };
            (from..=to).step_by(step as usize).collect::<Vec<u32>>()
        })
        .collect()
}

fn weekdays(text: &str) -> Vec<u32> {
    const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let number = |name: &str| NAMES.iter().position(|one| *one == name).expect("a weekday");
    let range = |part: &str| match part.split_once("..") {
        Some((from, to)) => number(from)..=number(to),
        None => number(part)..=number(part),
    };
    text.split(',').flat_map(range).map(|day| (day as u32 + 1) % 7).collect()
}

/// Day by day, and on the day second by second: the first moment after `after`.
fn first(times: &[Times], after: DateTime<Utc>) -> Option<NaiveDateTime> {
    times.iter().filter_map(|times| first_of(times, after)).min()
}

fn first_of(times: &Times, after: DateTime<Utc>) -> Option<NaiveDateTime> {
    let mut day = after.date_naive();
    while day <= last_day(after) {
        if times.is_day(day.and_time(NaiveTime::MIN)) {
            let is_first = day == after.date_naive();
            for hour in times.hours.iter().filter(|hour| !is_first || **hour >= after.hour()) {
                for minute in &times.minutes {
                    for second in &times.seconds {
                        let at = day.and_hms_opt(*hour, *minute, *second).expect("a time of day");
                        if at > after.naive_utc() {
                            return Some(at);
                        }
                    }
                }
            }
        }
        day = day + Days::new(1);
    }
    None
}
