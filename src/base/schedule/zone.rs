//! The time zones of jobs, and what to write in place of what is none.

use std::str::FromStr;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;

/// An IANA time zone name: `UTC`, `Europe/Berlin`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$", "examples" = ["Europe/Berlin", "UTC"]))]
pub struct Zone(pub Tz);

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Tz::from_str(&name).map(Self).map_err(|_| format!("`{name}` is not an IANA time zone{}", zone_instead(&name)))
    }
}

/// Abbreviations that stand for no place, each with one where they are used.
const ABBREVIATIONS: [(&str, &str); 12] = [
    ("CEST", "Europe/Berlin"),
    ("BST", "Europe/London"),
    ("MSK", "Europe/Moscow"),
    ("EDT", "America/New_York"),
    ("CST", "America/Chicago"),
    ("CDT", "America/Chicago"),
    ("MDT", "America/Denver"),
    ("PST", "America/Los_Angeles"),
    ("PDT", "America/Los_Angeles"),
    ("IST", "Asia/Kolkata"),
    ("JST", "Asia/Tokyo"),
    ("AEST", "Australia/Sydney"),
];

/// What to write in place of a text that names no zone.
fn zone_instead(name: &str) -> String {
    let name = name.trim();
    if let Some(hours) = hours_of_offset(name) {
        // POSIX counts to the west.
        let fixed = if hours == 0 { "UTC".to_owned() } else { format!("Etc/GMT{:+}", -hours) };
        return format!(
            ": it is an offset. Name the place, as \"Europe/Berlin\", whose clocks change, or write \"{fixed}\" for the same offset all year"
        );
    }
    if let Some((_, place)) = ABBREVIATIONS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
        return format!("; name a place with that time, as \"{place}\"");
    }
    let city = name.replace(' ', "_");
    let of_city = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).find(|zone| {
        zone.eq_ignore_ascii_case(&city) || zone.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&city))
    });
    let near = || {
        let likeness = |zone: &Tz| (strsim::jaro_winkler(zone.name(), name), zone.name());
        let nearest = chrono_tz::TZ_VARIANTS.iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
        nearest.filter(|(likeness, _)| *likeness > 0.8).map(|(_, near)| near)
    };
    match of_city.or_else(near) {
        Some(zone) => format!("; did you mean `{zone}`?"),
        None => "; write it like \"Europe/Berlin\" or \"UTC\" (`timedatectl list-timezones` lists them)".to_owned(),
    }
}

/// Reads `+02:00`, `UTC+2` and `CET-1` in whole hours.
fn hours_of_offset(name: &str) -> Option<i32> {
    let sign = name.find(['+', '-'])?;
    let (before, offset) = name.split_at(sign);
    let hours = offset[1..].split(':').next()?;
    let hours: i32 = if hours.len() == 4 { hours[..2].parse().ok()? } else { hours.parse().ok()? };
    let is_zone = before.len() <= 4 && before.chars().all(|letter| letter.is_ascii_alphabetic());
    let base = if before.eq_ignore_ascii_case("CET") { 1 } else { 0 };
    let hours = if offset.starts_with('-') { base - hours } else { base + hours };
    (is_zone && (-12..=14).contains(&hours)).then_some(hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_zone_gets_a_hint() {
        let error = Zone::try_from("Europe/Berln".to_owned()).unwrap_err();
        assert!(error.contains("did you mean `Europe/Berlin`"), "{error}");
        for (name, cure) in [
            ("Berlin", "did you mean `Europe/Berlin`?"),
            ("new york", "did you mean `America/New_York`?"),
            ("+02:00", "\"Etc/GMT-2\""),
            ("UTC-5", "\"Etc/GMT+5\""),
            ("CET+1", "\"Etc/GMT-2\""),
            ("PST", "\"America/Los_Angeles\""),
            ("local", "timedatectl"),
            ("", "timedatectl"),
        ] {
            let said = Zone::try_from(name.to_owned()).unwrap_err();
            assert!(said.contains(cure), "{said}");
        }
        for fixed in ["Etc/GMT-2", "Etc/GMT+5", "America/Los_Angeles"] {
            assert!(Zone::try_from(fixed.to_owned()).is_ok());
        }
    }
}
