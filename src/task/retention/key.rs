//! The column that says how old a row is: which types are supported, and how a time becomes a value to compare with.

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDateTime, Offset as _, SubsecRound as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use sqlx::PgConnection;

use super::keys::Retention;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, identifier, literal};
use crate::task::partition::Epoch;
use crate::task::partition::key::is_version_7;

/// 1970-01-02: a day after the Unix epoch, so that the epoch lies before it in every time zone. Values below it mean "never" or "unknown":
/// '-infinity', the year 1 of ORMs, 1900, 1970-01-01.
const FIRST_REAL_SECOND: i64 = 86_400;
/// The number of values that are sampled to tell whether uuids are version 7, and whether text holds ULIDs.
const SAMPLED: usize = 1000;
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const ULID: &str = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    TimestampTz,
    /// Wall-clock time in the job's time zone.
    Timestamp,
    Date,
    Epoch(Epoch),
    /// Version 7: its first 48 bits are milliseconds since 1970.
    Uuid,
    /// Text of 26 characters, the first ten of which are milliseconds since 1970.
    Ulid,
}

/// Returns the earliest wall-clock time at or after `at`: on an autumn night an hour occurs twice, and a value in that hour is treated as belonging
/// to the second pass.
fn earliest_wall_clock(at: DateTime<Utc>, zone: Tz) -> NaiveDateTime {
    // This is longer than any clock was ever set back at once (except for the days when a zone moved across the date line).
    const LOOKED_AT_SECONDS: i64 = 6 * 3600;
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc();
    let wall = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local();
    let second = at.trunc_subsecs(0);
    let later = |seconds: i64| second + TimeDelta::seconds(seconds);
    if offset(later(LOOKED_AT_SECONDS)) >= offset(at) {
        return wall(at);
    }
    let (mut before, mut after) = (0, LOOKED_AT_SECONDS);
    while after - before > 1 {
        let middle = (before + after) / 2;
        if offset(later(middle)) == offset(at) { before = middle } else { after = middle }
    }
    wall(at).min(wall(later(after)))
}

impl Key {
    /// `type_name`: the type under all domains, without modifiers, as format_type writes it.
    pub fn of(retention: &Retention, table: &str, type_name: &str) -> Result<Self> {
        let column = &retention.column;
        let refuse = |message: String| Err(Fault::new(Kind::Configuration, message).into());
        match (type_name, retention.epoch) {
            ("smallint" | "integer" | "bigint", Some(epoch)) => Ok(Self::Epoch(epoch)),
            (_, Some(_)) => refuse(format!("`epoch` is only for integer columns, and {table}.{column} is of type {type_name}")),
            ("timestamp with time zone", _) => Ok(Self::TimestampTz),
            ("timestamp without time zone", _) => Ok(Self::Timestamp),
            ("date", _) => Ok(Self::Date),
            ("uuid", _) => Ok(Self::Uuid),
            ("text" | "character varying" | "character", _) => Ok(Self::Ulid),
            ("smallint" | "integer" | "bigint", None) => refuse(format!(
                "{table}.{column} is of type {type_name}: set its unit, counted since 1970: epoch = \"seconds\", \"milliseconds\" or \"microseconds\""
            )),
            _ => refuse(format!(
                "{table}.{column} is of type {type_name}: retention supports timestamptz, timestamp, date, an integer with `epoch`, uuids of \
                 version 7 and ULIDs"
            )),
        }
    }

    /// Returns whether the type holds wall-clock time, without a time zone.
    pub fn is_wall_clock(self) -> bool {
        matches!(self, Self::Timestamp | Self::Date)
    }

    /// Returns the smallest value of `at`, as SQL of the key's type.
    pub fn at(self, at: DateTime<Utc>, zone: Tz) -> Result<String> {
        let before_all = || Fault::new(Kind::Configuration, format!("{at} is outside the range of the column's type"));
        let milliseconds = || u64::try_from(at.timestamp_millis()).ok().filter(|value| *value < 1 << 48).with_context(before_all);
        let wall = || earliest_wall_clock(at, zone);
        let text = match self {
            Self::TimestampTz => at.format("%Y-%m-%d %H:%M:%S%.f+00").to_string(),
            Self::Timestamp => wall().format("%Y-%m-%d %H:%M:%S%.f").to_string(),
            Self::Date => wall().format("%Y-%m-%d").to_string(),
            Self::Epoch(Epoch::Seconds) => at.timestamp().to_string(),
            Self::Epoch(Epoch::Milliseconds) => at.timestamp_millis().to_string(),
            Self::Epoch(Epoch::Microseconds) => at.timestamp_micros().to_string(),
            Self::Uuid => uuid::Uuid::from_u128(u128::from(milliseconds()?) << 80).to_string(),
            Self::Ulid => ulid(milliseconds()?),
        };
        Ok(format!("{}::{}", literal(&text), self.type_sql()))
    }

    /// Returns the smallest value that is a real time and does not stand for "never".
    pub fn floor(self, zone: Tz) -> Result<String> {
        self.at(DateTime::from_timestamp(FIRST_REAL_SECOND, 0).unwrap_or_default(), zone)
    }

    /// Returns the smaller of a value given as SQL and one given as text, as SQL.
    pub async fn lower(self, connection: &mut PgConnection, value: Option<String>, text: &str) -> Result<String> {
        let other = format!("{}::{}", literal(text), self.type_sql());
        let Some(value) = value else { return Ok(other) };
        let is_lower =
            format!("SELECT ({} OPERATOR(pg_catalog.<) {})::text", self.compared(value.clone()), self.compared(other.clone()));
        Ok(if pg::fetch_text(connection, is_lower).await?.as_deref() == Some("true") { value } else { other })
    }

    /// A value that is smaller than all others, as text.
    pub fn start(self) -> String {
        match self {
            Self::TimestampTz | Self::Timestamp | Self::Date => "-infinity".to_owned(),
            Self::Epoch(_) => i64::MIN.to_string(),
            Self::Uuid => uuid::Uuid::nil().to_string(),
            Self::Ulid => String::new(),
        }
    }

    /// Returns the type's name in our SQL. Keywords of the grammar, which no schema can redefine, are not qualified.
    pub fn type_sql(self) -> &'static str {
        match self {
            Self::TimestampTz => "timestamp with time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::Date => "pg_catalog.date",
            // Operators between integers of different sizes can use an index of either size.
            Self::Epoch(_) => "bigint",
            Self::Uuid => "pg_catalog.uuid",
            Self::Ulid => "pg_catalog.text",
        }
    }

    /// Returns the column as it is compared and sorted.
    pub fn column(self, column: &str) -> String {
        self.compared(identifier(column))
    }

    /// Returns the column of a table that a query names `table`, as it is compared and sorted.
    pub fn column_of(self, table: &str, column: &str) -> String {
        self.compared(format!("{table}.{}", identifier(column)))
    }

    pub fn compared(self, column: String) -> String {
        if self == Self::Ulid { format!("{column}::pg_catalog.text COLLATE pg_catalog.\"C\"") } else { column }
    }

    /// Returns the greatest value of `name` in a query, as text.
    pub fn greatest(self, name: &str) -> String {
        match self {
            // max(uuid) exists since PostgreSQL 18; text of uuids sorts in the same order.
            Self::Uuid | Self::Ulid => format!("pg_catalog.max({name}::pg_catalog.text COLLATE pg_catalog.\"C\")"),
            _ => format!("pg_catalog.max({name})::pg_catalog.text"),
        }
    }

    /// Returns SQL that only values with a time in them satisfy; None where every value of the type is a time.
    pub fn shape(self, column: &str) -> Option<String> {
        self.shape_of(&identifier(column))
    }

    /// Returns SQL that only times in the column of a table satisfy; 'infinity' is none.
    pub fn is_a_time(self, table: &str, column: &str) -> Option<String> {
        let column = format!("{table}.{}", identifier(column));
        match self {
            Self::TimestampTz | Self::Timestamp | Self::Date => Some(format!("{column} OPERATOR(pg_catalog.<) 'infinity'")),
            _ => self.shape_of(&column),
        }
    }

    fn shape_of(self, column: &str) -> Option<String> {
        match self {
            // A random uuid (version 4) would look like a time by chance.
            Self::Uuid => Some(is_version_7(column)),
            Self::Ulid => Some(format!("{column}::pg_catalog.text OPERATOR(pg_catalog.~) '{ULID}'")),
            _ => None,
        }
    }

    /// Refuses a column of uuids or text when no sampled value holds a time.
    pub async fn check(self, connection: &mut PgConnection, table: &str, column: &str, type_name: &str) -> Result<()> {
        let Some(shape) = self.shape(column) else { return Ok(()) };
        let name = identifier(column);
        let sql = format!(
            "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {shape})
             FROM (SELECT {name} FROM {table} WHERE {name} IS NOT NULL LIMIT {SAMPLED}) sampled"
        );
        let counted: Vec<(i64, i64)> = pg::fetch_all_as(connection, sql).await?;
        if counted.first().is_some_and(|(values, times)| *values > 0 && *times == 0) {
            let what = if self == Self::Uuid { "no uuids of version 7" } else { "no ULIDs" };
            let message = format!("{table}.{name} is of type {type_name} and has {what}, so that the age of its rows is unknown");
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(())
    }
}

/// Returns the lowest ULID of a millisecond.
fn ulid(milliseconds: u64) -> String {
    let digits = (0..10).rev().map(|digit| char::from(CROCKFORD[(milliseconds >> (5 * digit)) as usize & 31]));
    digits.chain(std::iter::repeat_n('0', 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_becomes_the_first_value_of_each_type() {
        let at = DateTime::from_timestamp_millis(1_469_918_176_385).unwrap();
        let zone = Tz::Pacific__Auckland;
        for (key, expected) in [
            (Key::TimestampTz, "E'2016-07-30 22:36:16.385+00'::timestamp with time zone"),
            (Key::Timestamp, "E'2016-07-31 10:36:16.385'::timestamp without time zone"),
            (Key::Date, "E'2016-07-31'::pg_catalog.date"),
            (Key::Epoch(Epoch::Seconds), "E'1469918176'::bigint"),
            (Key::Epoch(Epoch::Microseconds), "E'1469918176385000'::bigint"),
            (Key::Uuid, "E'01563df3-6481-0000-0000-000000000000'::pg_catalog.uuid"),
            // The example of the ULID specification: 01ARYZ6S41 is 1469918176385.
            (Key::Ulid, "E'01ARYZ6S410000000000000000'::pg_catalog.text"),
        ] {
            assert_eq!(key.at(at, zone).unwrap(), expected);
        }
        assert_eq!(Key::Timestamp.floor(Tz::UTC).unwrap(), "E'1970-01-02 00:00:00'::timestamp without time zone");
    }

    #[test]
    fn in_the_hour_that_comes_twice_the_limit_is_its_beginning() {
        let zone: Tz = "Europe/Berlin".parse().unwrap();
        for (at, on_the_wall) in [
            ("2026-10-24T23:59:59Z", "2026-10-25 01:59:59"),
            // First pass: what the second one shows is younger.
            ("2026-10-25T00:58:25.5Z", "2026-10-25 02:00:00"),
            ("2026-10-25T01:30:00Z", "2026-10-25 02:30:00"),
            ("2026-03-29T00:59:00Z", "2026-03-29 01:59:00"),
            ("2026-07-01T00:00:00Z", "2026-07-01 02:00:00"),
        ] {
            let at: DateTime<Utc> = at.parse().unwrap();
            assert_eq!(earliest_wall_clock(at, zone).format("%Y-%m-%d %H:%M:%S").to_string(), on_the_wall, "{at}");
        }
    }
}
