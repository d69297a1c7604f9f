//! Values that people write with a unit: `2h`, `90d`, `8MiB`.

use std::fmt;
use std::time::Duration;

use chrono::Utc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is longer is a mistake, and beyond what PostgreSQL can count back from now.
const YEARS_MOST: u64 = 1000;

/// A length of time as written in a file: `30s`, `2h`, `90d`, `1h 30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "span", "pattern" = SPAN_PATTERN, "not" = { "pattern": NO_NUMBER }, "examples" = ["30s", "2h", "90d"]))]
pub struct Span(pub Duration);

/// Zero, in any unit.
const NO_NUMBER: &str = "^[^1-9]*$";

/// Numbers with their units (of humantime).
const SPAN_PATTERN: &str = r"^\s*(\d+(\.\d+)?\s*(nanos|nsec|ns|usec|us|µs|msec|ms|seconds?|secs?|sec|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|d|weeks?|wks?|wk|w|months?|M|years?|yrs?|yr|y)\s*)+$";

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: String| format!("`{text}` is not a length of time: {why}");
        let duration = humantime::parse_duration(&text).map_err(|error| wrong(why_not_a_span(text.trim(), &error)))?;
        if duration.is_zero() {
            return Err(wrong("it is zero; write it like \"30s\", \"2h\" or \"90d\"".to_owned()));
        }
        if duration.as_secs() > YEARS_MOST * 366 * 86_400 {
            return Err(wrong(format!("it is more than {YEARS_MOST} years; write it like \"30s\", \"2h\" or \"90d\"")));
        }
        Ok(Self(duration))
    }
}

fn why_not_a_span(text: &str, error: &humantime::DurationError) -> String {
    use humantime::DurationError;
    const FORMS: &str = "write it like \"30s\", \"2h\" or \"90d\"";
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    match error {
        _ if text.is_empty() => format!("it is empty; {FORMS}"),
        _ if text.starts_with(['-', '+', '−']) => format!("it has a sign; {FORMS}"),
        _ if digits == text.len() => {
            format!("the unit is missing; write \"{text}s\", \"{text}m\" (minutes), \"{text}h\" or \"{text}d\"")
        }
        _ if text.contains([':', ',']) => "it is a number with its unit; write it like \"90m\" or \"1h 30m\"".to_owned(),
        DurationError::UnknownUnit { unit, .. } => {
            let all = "the units are ms, s, m (minutes), h, d, weeks, months and years";
            let months = unit.eq_ignore_ascii_case("mo") || unit.eq_ignore_ascii_case("mon");
            let cure = if months { format!("write \"{}months\"", &text[..digits]) } else { FORMS.to_owned() };
            format!("it has no unit `{unit}`: {all}; {cure}")
        }
        DurationError::NumberOverflow => format!("the number is too large; {FORMS}"),
        _ => FORMS.to_owned(),
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    /// Writes `90d` or `1h 30m` as in a file, in days at most, because months and years differ in length.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let parts = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let (mut left, mut text) = (milliseconds, Vec::new());
        for (unit, name) in parts {
            if left >= unit {
                text.push(format!("{}{name}", left / unit));
                left %= unit;
            }
        }
        f.pad(&text.join(" "))
    }
}

/// A number of bytes as written in a file: `8MiB` is 8,388,608 bytes, `8MB` is 8,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "size", "pattern" = r"^\s*\d+(\.\d+)?\s*([kKmMgGtTpPeE]([iI]?[bB])?|[bB])?\s*$", "examples" = ["8MiB", "10KB"]))]
pub struct Size(pub u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("`{text}` is not a size; write it like \"8MiB\" or \"10KB\""))
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.to_string()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&bytes(self.0))
    }
}

/// Bytes per second as written in a file: `50MB/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("format" = "rate", "not" = { "pattern": NO_NUMBER }, "pattern" = r"^\s*\d+(\.\d+)?\s*([kKmMgGtTpPeE]([iI]?[bB])?|[bB])?\s*/s$", "examples" = ["50MB/s", "800KiB/s"]))]
pub struct Rate(pub u64);

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let size = text.strip_suffix("/s").and_then(|size| Size::try_from(size.trim_end().to_owned()).ok());
        match size {
            Some(Size(bytes @ 1..)) => Ok(Self(bytes)),
            _ => Err(format!("`{text}` is not a rate; {}", instead_of_rate(&text))),
        }
    }
}

/// A rate without its second, or in bits.
fn instead_of_rate(text: &str) -> String {
    let forms = "write it like \"50MB/s\" or \"800KiB/s\"".to_owned();
    let lower = text.trim().to_ascii_lowercase();
    let of_bits = |unit: &str| lower.strip_suffix(unit).and_then(|number| number.trim().parse::<f64>().ok());
    let bits = [("gbit/s", 1000.0), ("gbps", 1000.0), ("mbit/s", 1.0), ("mbps", 1.0)];
    if let Some(megabits) = bits.iter().find_map(|(unit, times)| Some(of_bits(unit)? * times)).filter(|bits| *bits > 0.0) {
        return format!("it counts bytes, and 8 bits are one: write \"{}MB/s\"", megabits / 8.0);
    }
    match Size::try_from(text.to_owned()) {
        Ok(Size(1..)) => format!("a rate is per second: write \"{}/s\"", text.trim()),
        _ => forms,
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{}/s", bytes(self.0)))
    }
}

/// Writes `134.2 MB`: decimal units, as disks and object stores are sold and billed.
pub fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).display().si().to_string()
}

/// Writes `4.2 s`, `3 min 20 s` or `2 h 5 min` for people: two units at most.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Returns a warning when another clock said `at` between two moments of this host, and they disagree. Half a minute is
/// tolerated: some clocks return whole seconds, and asking takes a moment.
pub fn clocks_differ(
    whose: &str,
    at: chrono::DateTime<Utc>,
    started: chrono::DateTime<Utc>,
    ended: chrono::DateTime<Utc>,
) -> Option<String> {
    let (off, how) = if at < started { (started - at, "behind") } else { (at - ended, "ahead of") };
    (off > chrono::TimeDelta::seconds(30)).then(|| {
        let off = Span(Duration::from_secs(off.num_seconds().max(0) as u64));
        format!("{whose}'s clock is {off} {how} this host's: set the one that is wrong, and let NTP keep both")
    })
}

/// Writes how long ago `then` was, for people; a time in the future reads as `0.0 s`.
pub fn age(then: chrono::DateTime<Utc>, now: chrono::DateTime<Utc>) -> String {
    duration((now - then).to_std().unwrap_or_default())
}

/// Writes `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes `1 table`, `18 tables`, `0 bodies` or `2 indexes`: the only way to write a count with its noun. A number below 0 is
/// written as 0.
pub fn plural(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or_default();
    if number == 1 {
        return format!("1 {noun}");
    }
    let ends = |ends: &[&str]| ends.iter().any(|end| noun.ends_with(end));
    let vowel_before_y = ends(&["ay", "ey", "oy", "uy"]);
    match noun.strip_suffix('y').filter(|_| !vowel_before_y) {
        Some(stem) => format!("{} {stem}ies", count(number)),
        None => format!("{} {noun}{}", count(number), if ends(&["s", "x", "ch", "sh"]) { "es" } else { "s" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_and_a_slow_answer_is_no_difference() {
        let at = |seconds: i64| chrono::DateTime::<Utc>::from_timestamp(1_000_000 + seconds, 0).unwrap();
        for (said, started, ended, words) in [
            (0, 0, 0, None),
            (-1, 0, 1, None),
            (59, 0, 60, None),
            (-1200, 0, 1, Some("20m behind")),
            (1201, 0, 1, Some("20m ahead of")),
        ] {
            let warning = clocks_differ("the store", at(said), at(started), at(ended));
            assert_eq!(warning.is_some(), words.is_some(), "{warning:?}");
            assert!(warning.unwrap_or_default().contains(words.unwrap_or_default()));
        }
    }

    #[test]
    fn spans_are_read_with_their_unit() {
        let span = |text: &str| Span::try_from(text.to_owned()).map(|span| span.0.as_secs());
        assert_eq!(span("2h"), Ok(7200));
        assert_eq!(span("90d"), Ok(90 * 86_400));
        assert_eq!(span("1h 30m"), Ok(5400));
        assert!(span("2").unwrap_err().contains("2h"));
        assert!(span("0s").unwrap_err().contains("it is zero"));
        for (wrong, cure) in [
            ("30", "write \"30s\", \"30m\" (minutes), \"30h\" or \"30d\""),
            ("3mo", "write \"3months\""),
            ("-1h", "it has a sign"),
            ("", "it is empty"),
            ("1:30", "\"1h 30m\""),
            ("1,5h", "\"90m\""),
            ("3 fortnights", "no unit `fortnights`"),
            ("100000y", "more than 1000 years"),
            ("99999999999999999999999y", "the number is too large"),
        ] {
            let told = span(wrong).unwrap_err();
            assert!(told.contains(cure) && told.contains("is not a length of time"), "{told}");
        }
        assert!(span("soon").is_err());
    }

    #[test]
    fn spans_are_shown_as_they_are_written() {
        for text in ["90d", "1h 30m", "200ms", "2s", "400d 12h"] {
            assert_eq!(Span::try_from(text.to_owned()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn sizes_tell_binary_from_decimal_units() {
        let size = |text: &str| Size::try_from(text.to_owned()).map(|size| size.0);
        assert_eq!(size("10KB"), Ok(10_000));
        assert_eq!(size("8MiB"), Ok(8 << 20));
        assert!(size("big").is_err());
    }

    #[test]
    fn a_rate_has_its_second() {
        let rate = |text: &str| Rate::try_from(text.to_owned()).map(|rate| rate.0);
        assert_eq!(rate("50MB/s"), Ok(50_000_000));
        assert_eq!(rate("1 MiB/s"), Ok(1 << 20));
        for wrong in ["50MB", "50Mbit/s", "0MB/s", "/s", "fast"] {
            assert!(rate(wrong).unwrap_err().contains("MB/s"), "{wrong}");
        }
        assert!(rate("50Mbit/s").unwrap_err().contains("write \"6.25MB/s\""));
        assert!(rate("50MB").unwrap_err().contains("write \"50MB/s\""));
        assert_eq!(Rate(50_000_000).to_string(), "50.0 MB/s");
    }

    #[test]
    fn a_noun_follows_its_number() {
        for (number, noun, expected) in [
            (1, "large object", "1 large object"),
            (0, "table", "0 tables"),
            (1234, "body", "1,234 bodies"),
            (2, "key", "2 keys"),
            (2, "index", "2 indexes"),
            (2, "batch", "2 batches"),
            (-1, "row", "0 rows"),
        ] {
            assert_eq!(plural(number, noun), expected);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
