//! The places that the rules of `keep` have, and the sets that take them, newest first. Pure.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many sets to keep: the newest `last`, and the newest of each of the given number of days, ISO weeks, months and years that have one.
/// Days without a set do not use up places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("not" = nothing()))]
pub struct Keep {
    /// The newest sets, however old.
    #[schemars(example = 3)]
    pub last: u32,
    /// The newest set of each of so many days that have one.
    #[schemars(example = 7)]
    pub daily: u32,
    /// The newest set of each of so many ISO weeks.
    #[schemars(example = 4)]
    pub weekly: u32,
    /// The newest set of each of so many months.
    #[schemars(example = 12)]
    pub monthly: u32,
    /// The newest set of each of so many years.
    #[schemars(example = 5)]
    pub yearly: u32,
}

/// Rules that keep nothing, for the JSON Schema.
fn nothing() -> serde_json::Value {
    let zero = || serde_json::json!({ "const": 0 });
    serde_json::json!({ "properties": { "last": zero(), "daily": zero(), "weekly": zero(), "monthly": zero(), "yearly": zero() } })
}

impl Keep {
    /// The days for which a set may stay by the rules that count in time; 0 where none does.
    pub fn longest_days(&self) -> u32 {
        let [weeks, months, years] =
            [(self.weekly, 7), (self.monthly, 31), (self.yearly, 366)].map(|(count, days)| u32::saturating_mul(count, days));
        self.daily.max(weeks).max(months).max(years)
    }

    pub fn keeps_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A place of the rules that a set takes.
pub struct Place {
    /// "last 1 of 3", "daily 2026-11-23", …
    pub reason: String,
    rule: &'static str,
    count: u32,
}

/// No store locks for longer.
const YEARS_100_IN_DAYS: u32 = 36_500;

impl Place {
    /// When so many further periods are over. None of a rule that counts sets, and while the period goes on: a newer set may take the place yet.
    pub fn kept_until(&self, taken_at: DateTime<Tz>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (taken, today) = (taken_at.date_naive(), now.with_timezone(&taken_at.timezone()).date_naive());
        let (days, is_over) = match self.rule {
            "daily" => (1, taken < today),
            "weekly" => {
                (7, (taken.iso_week().year(), taken.iso_week().week()) < (today.iso_week().year(), today.iso_week().week()))
            }
            "monthly" => (31, (taken.year(), taken.month()) < (today.year(), today.month())),
            "yearly" => (366, taken.year() < today.year()),
            _ => return None,
        };
        let days = self.count.saturating_mul(days).min(YEARS_100_IN_DAYS);
        is_over.then(|| taken_at.with_timezone(&Utc) + TimeDelta::days(i64::from(days)))
    }
}

/// The longest of the rules that keep a set taken then: "weekly", "monthly" or "yearly". None where one for days or for a number of sets keeps it, too, or
/// where a newer set may take its place yet.
pub fn long_rule(places: &[Place], taken_at: DateTime<Tz>, now: DateTime<Utc>) -> Option<&'static str> {
    let is_short = |place: &Place| matches!(place.rule, "last" | "daily");
    if places.iter().any(is_short) {
        return None;
    }
    let certain = places.iter().filter(|place| place.kept_until(taken_at, now).is_some());
    certain.map(|place| place.rule).max_by_key(|rule| ["weekly", "monthly", "yearly"].iter().position(|one| one == rule))
}

/// The rules, and the places that are taken.
pub struct Rules<'a> {
    keep: &'a Keep,
    filled_last: u32,
    days: BTreeSet<String>,
    weeks: BTreeSet<String>,
    months: BTreeSet<String>,
    years: BTreeSet<String>,
}

impl<'a> Rules<'a> {
    pub fn new(keep: &'a Keep) -> Self {
        Self {
            keep,
            filled_last: 0,
            days: BTreeSet::new(),
            weeks: BTreeSet::new(),
            months: BTreeSet::new(),
            years: BTreeSet::new(),
        }
    }

    /// The free places that the next set, going back in time, takes: the reasons why it is kept.
    pub fn fill(&mut self, taken_at: DateTime<Tz>) -> Vec<Place> {
        let mut places = Vec::new();
        self.filled_last += 1;
        if self.filled_last <= self.keep.last {
            let reason = format!("last {} of {}", self.filled_last, self.keep.last);
            places.push(Place { reason, rule: "last", count: self.keep.last });
        }
        for (rule, count, period, periods) in self.periods(taken_at) {
            if periods.len() < count as usize && periods.insert(period.clone()) {
                places.push(Place { reason: format!("{rule} {period}"), rule, count });
            }
        }
        places
    }

    /// The same for a set that does not take places from others.
    pub fn would_fill(&mut self, taken_at: DateTime<Tz>) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.filled_last < self.keep.last {
            reasons.push(format!("last {} of {}", self.filled_last + 1, self.keep.last));
        }
        for (rule, count, period, periods) in self.periods(taken_at) {
            if periods.len() < count as usize && !periods.contains(&period) {
                reasons.push(format!("{rule} {period}"));
            }
        }
        reasons
    }

    fn periods(&mut self, taken_at: DateTime<Tz>) -> [(&'static str, u32, String, &mut BTreeSet<String>); 4] {
        let week = taken_at.iso_week();
        [
            ("daily", self.keep.daily, taken_at.format("%Y-%m-%d").to_string(), &mut self.days),
            ("weekly", self.keep.weekly, format!("{}-W{:02}", week.year(), week.week()), &mut self.weeks),
            ("monthly", self.keep.monthly, taken_at.format("%Y-%m").to_string(), &mut self.months),
            ("yearly", self.keep.yearly, taken_at.format("%Y").to_string(), &mut self.years),
        ]
    }
}
