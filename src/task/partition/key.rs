//! Partition keys: how a position becomes a bound in SQL, and how a bound that the server shows is read. Pure.

use anyhow::Result;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::calendar::Every;
use crate::base::fault::{Fault, Kind};
use crate::pg;

const DAY_MICROSECONDS: i64 = 86_400_000_000;
/// The number of bits of a uuid below its timestamp.
const UUID_LOW_BITS: u32 = 80;

/// How a partition without a lower end is shown.
pub const NO_LOWER_END: &str = "the beginning";

/// The unit of an integer key, counted since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Epoch {
    Seconds,
    Milliseconds,
    Microseconds,
}

impl Epoch {
    /// Returns its word in the keys of a job.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
        }
    }

    fn microseconds(self) -> i64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Milliseconds => 1000,
            Self::Microseconds => 1,
        }
    }
}

/// The type of a key, as far as bounds go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    TimestampTz,
    /// Wall-clock time in the job's zone, without daylight saving time.
    Timestamp,
    Date,
    Epoch {
        epoch: Epoch,
        largest: i64,
    },
    /// Version 7: its first 48 bits are milliseconds since 1970.
    Uuid,
    Number {
        largest: i64,
    },
}

/// One end of a partition's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    Min,
    At(i64),
    Max,
}

/// Returns the SQL condition that the uuid holds a time. One of another version has one by chance, between the years 1970 and 10889.
pub fn is_version_7(column: &str) -> String {
    format!("pg_catalog.substr({column}::pg_catalog.text, 15, 1) OPERATOR(pg_catalog.=) '7'")
}

impl Key {
    /// Returns SQL that rows meet whose key is no time although its type could hold one at any place.
    pub fn is_no_time(self, column: &str) -> Option<String> {
        (self == Self::Uuid).then(|| format!("NOT ({})", is_version_7(column)))
    }

    /// Returns the key for a column's type, given as `format_type` writes it, without modifiers.
    pub fn of(column: &str, type_name: &str, every: Every, epoch: Option<Epoch>) -> Result<Self> {
        let refuse = |message: String| Err(Fault::new(Kind::Configuration, message).into());
        let largest = match type_name {
            "smallint" => i64::from(i16::MAX),
            "integer" => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        match (type_name, every, epoch) {
            ("timestamp with time zone", Every::Unit(_), None) => Ok(Self::TimestampTz),
            ("timestamp without time zone", Every::Unit(_), None) => Ok(Self::Timestamp),
            ("date", Every::Unit(super::calendar::Unit::Hour), None) => {
                refuse(format!("column {column} is a date and has no hours: set every = \"day\" or longer"))
            }
            ("date", Every::Unit(_), None) => Ok(Self::Date),
            ("uuid", Every::Unit(_), None) => Ok(Self::Uuid),
            ("smallint" | "integer" | "bigint", Every::Unit(_), Some(epoch)) => Ok(Self::Epoch { epoch, largest }),
            ("smallint" | "integer" | "bigint", Every::Unit(unit), None) => refuse(format!(
                "column {column} is {type_name}, and every = \"{}\" needs its unit, counted since 1970: set epoch = \"seconds\", \
                 \"milliseconds\" or \"microseconds\"; or set every = NUMBER for ranges of numbers",
                unit.name()
            )),
            ("smallint" | "integer" | "bigint" | "numeric", Every::Step(_), None) => Ok(Self::Number { largest }),
            (_, Every::Step(step), _) => {
                refuse(format!("every = {step} is only for number keys without `epoch`; column {column} is {type_name}"))
            }
            (_, _, Some(_)) => refuse(format!("`epoch` is only for integer keys; column {column} is {type_name}")),
            _ => refuse(format!(
                "column {column} is {type_name}, an unsupported key type; supported: timestamptz, timestamp, date, uuid (version 7) and \
                 integers"
            )),
        }
    }

    /// Returns whether positions are wall-clock time in the job's zone rather than UTC.
    pub fn is_wall_clock(self) -> bool {
        matches!(self, Self::Timestamp | Self::Date)
    }

    pub fn is_time(self) -> bool {
        !matches!(self, Self::Number { .. })
    }

    /// Returns the position as SQL: a quoted literal, which takes the type of the column that it is compared with.
    pub fn sql(self, position: i64) -> Result<String> {
        let refuse = || Fault::new(Kind::Configuration, format!("{} does not fit in the key's type", self.show(position)));
        let text = match self {
            Self::TimestampTz => self.clock(position, "%Y-%m-%d %H:%M:%S%.f+00").ok_or_else(refuse)?,
            Self::Timestamp => self.clock(position, "%Y-%m-%d %H:%M:%S%.f").ok_or_else(refuse)?,
            Self::Date => self.clock(position, "%Y-%m-%d").ok_or_else(refuse)?,
            Self::Epoch { epoch, largest } => {
                let number = position.div_euclid(epoch.microseconds());
                if number > largest {
                    return Err(refuse().into());
                }
                number.to_string()
            }
            Self::Uuid => {
                let milliseconds = u64::try_from(position.div_euclid(1000)).ok().filter(|milliseconds| *milliseconds < 1 << 48);
                uuid::Uuid::from_u128(u128::from(milliseconds.ok_or_else(refuse)?) << UUID_LOW_BITS).to_string()
            }
            Self::Number { largest } if position > largest => return Err(refuse().into()),
            Self::Number { .. } => position.to_string(),
        };
        Ok(pg::literal(&text))
    }

    fn clock(self, position: i64, format: &str) -> Option<String> {
        Some(DateTime::from_timestamp_micros(position)?.format(format).to_string())
    }

    /// Formats a position for people and for the report: RFC 3339, without a zone where the key has none.
    pub fn show(self, position: i64) -> String {
        match self {
            Self::Number { .. } => position.to_string(),
            Self::Date => self.clock(position, "%Y-%m-%d").unwrap_or_else(|| position.to_string()),
            Self::Timestamp => self.clock(position, "%Y-%m-%dT%H:%M:%S%.f").unwrap_or_else(|| position.to_string()),
            _ => self.clock(position, "%Y-%m-%dT%H:%M:%S%.fZ").unwrap_or_else(|| position.to_string()),
        }
    }

    pub fn show_bound(self, bound: Bound) -> String {
        match bound {
            Bound::Min => NO_LOWER_END.to_owned(),
            Bound::At(position) => self.show(position),
            Bound::Max => "the end".to_owned(),
        }
    }

    /// Reads a value of the key as the server shows it with TimeZone UTC and DateStyle ISO. A value between two positions counts as the
    /// lower one.
    pub fn position(self, text: &str) -> Option<i64> {
        match self {
            Self::TimestampTz => parse_clock(text.strip_suffix("+00")?),
            Self::Timestamp => parse_clock(text),
            Self::Date => {
                let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
                Some(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros() / DAY_MICROSECONDS * DAY_MICROSECONDS)
            }
            Self::Epoch { epoch, .. } => text.parse::<i64>().ok()?.checked_mul(epoch.microseconds()),
            Self::Uuid => {
                let milliseconds = uuid::Uuid::parse_str(text).ok()?.as_u128() >> UUID_LOW_BITS;
                i64::try_from(milliseconds).ok()?.checked_mul(1000)
            }
            Self::Number { .. } => match text.split_once('.') {
                None => text.parse().ok(),
                Some((whole, _)) => whole.parse::<i64>().ok()?.checked_sub(i64::from(text.starts_with('-'))),
            },
        }
    }

    /// Reads a bound. It must be exactly a position; None otherwise, since a rounded bound would be misjudged.
    fn bound(self, token: &str) -> Option<Bound> {
        match token {
            "MINVALUE" | "-infinity" => return Some(Bound::Min),
            "MAXVALUE" | "infinity" => return Some(Bound::Max),
            _ => {}
        }
        let is_exact = match self {
            Self::Uuid => {
                let low = uuid::Uuid::parse_str(token).ok()?.as_u128() & ((1 << UUID_LOW_BITS) - 1);
                // The lowest of all, or the lowest of version 7: no key of version 7 lies between them.
                low == 0 || low == (0x7000_8000_u128 << 48)
            }
            Self::Number { .. } => !token.contains('.'),
            _ => true,
        };
        if is_exact { self.position(token).map(Bound::At) } else { None }
    }

    /// Reads `FOR VALUES FROM ('…') TO ('…')` as pg_get_expr shows it. Returns None if it is not understood.
    pub fn range(self, shown: &str) -> Option<(Bound, Bound)> {
        let rest = shown.strip_prefix("FOR VALUES FROM (")?;
        let (from, rest) = token(rest)?;
        let (to, rest) = token(rest.strip_prefix(") TO (")?)?;
        if rest != ")" {
            return None;
        }
        Some((self.bound(&from)?, self.bound(&to)?))
    }
}

/// Returns a quoted literal, or a bare word up to the next parenthesis, and the rest of the text.
fn token(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find([')', ','])?;
        return Some((text[..end].to_owned(), &text[end..]));
    };
    // No literal of these types contains a quote.
    let end = quoted.find('\'')?;
    Some((quoted[..end].to_owned(), &quoted[end + 1..]))
}

fn parse_clock(text: &str) -> Option<i64> {
    Some(NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::partition::calendar::Unit;

    #[test]
    fn bounds_are_read_as_the_server_shows_them() {
        let number = Key::Number { largest: i64::MAX };
        for (key, shown, expected) in [
            (number, "FOR VALUES FROM ('0') TO ('1000000')", Some((Bound::At(0), Bound::At(1_000_000)))),
            (number, "FOR VALUES FROM (0) TO (10)", Some((Bound::At(0), Bound::At(10)))),
            (number, "FOR VALUES FROM (MINVALUE) TO ('-5')", Some((Bound::Min, Bound::At(-5)))),
            (number, "FOR VALUES FROM ('1.5') TO ('7')", None),
            (number, "FOR VALUES FROM (1, 2) TO (3, 4)", None),
            (number, "FOR VALUES IN (1)", None),
            (
                Key::TimestampTz,
                "FOR VALUES FROM ('1970-01-01 00:00:01+00') TO (MAXVALUE)",
                Some((Bound::At(1_000_000), Bound::Max)),
            ),
            (
                Key::TimestampTz,
                "FOR VALUES FROM ('1970-01-01 00:00:00.5+00') TO ('infinity')",
                Some((Bound::At(500_000), Bound::Max)),
            ),
            (Key::TimestampTz, "FOR VALUES FROM ('1970-01-01 00:00:00+02') TO ('infinity')", None),
            (Key::TimestampTz, "FOR VALUES FROM ('0044-03-15 00:00:00+00 BC') TO ('infinity')", None),
            (
                Key::Date,
                "FOR VALUES FROM ('1970-01-02') TO ('1970-01-03')",
                Some((Bound::At(DAY_MICROSECONDS), Bound::At(2 * DAY_MICROSECONDS))),
            ),
            (
                Key::Uuid,
                "FOR VALUES FROM ('00000000-0001-0000-0000-000000000000') TO ('00000000-0002-7000-8000-000000000000')",
                Some((Bound::At(1000), Bound::At(2000))),
            ),
            (Key::Uuid, "FOR VALUES FROM ('00000000-0001-0000-0000-000000000007') TO (MAXVALUE)", None),
        ] {
            assert_eq!(key.range(shown), expected, "{shown}");
        }
    }

    #[test]
    fn values_between_positions_count_for_the_lower_one() {
        assert_eq!(Key::Number { largest: i64::MAX }.position("-0.5"), Some(-1));
        assert_eq!(Key::Number { largest: i64::MAX }.position("7.9"), Some(7));
    }

    #[test]
    fn a_key_must_fit_its_calendar() {
        let key = |type_name, every, epoch| Key::of("c", type_name, every, epoch).map_err(|error| error.to_string());
        let day = Every::Unit(Unit::Day);
        assert_eq!(key("timestamp with time zone", day, None), Ok(Key::TimestampTz));
        assert!(key("bigint", day, None).unwrap_err().contains("epoch"));
        assert!(key("text", day, None).unwrap_err().contains("text"));
        assert!(key("date", Every::Unit(Unit::Hour), None).unwrap_err().contains("hours"));
        assert!(key("date", Every::Step(5), None).unwrap_err().contains("number keys"));
        assert!(key("date", day, Some(Epoch::Seconds)).unwrap_err().contains("integer keys"));
        let seconds = Key::of("c", "integer", day, Some(Epoch::Seconds)).unwrap();
        assert!(seconds.sql(4_102_444_800_000_000).is_err(), "2100 is more than an integer has seconds for");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0_i64..200_000_000_000, which in 0..6_usize) {
            let key = [
                Key::TimestampTz, Key::Timestamp, Key::Uuid, Key::Number { largest: i64::MAX },
                Key::Epoch { epoch: Epoch::Milliseconds, largest: i64::MAX }, Key::Date,
            ][which];
            let position = if key == Key::Date { seconds / 86_400 * DAY_MICROSECONDS } else { seconds * 1_000_000 };
            let sql = key.sql(position).unwrap();
            let shown = format!("FOR VALUES FROM ({}) TO (MAXVALUE)", sql.strip_prefix('E').unwrap());
            prop_assert_eq!(key.range(&shown), Some((Bound::At(position), Bound::Max)));
        }
    }
}
