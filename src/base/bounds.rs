//! Bounds of what is read from a store. Whoever can write there may have written it: a value that pgtend never writes is refused
//! where it is read, before anything counts, adds or names a file by it.

use anyhow::Result;
use chrono::{DateTime, Utc};

/// What an object's JSON becomes, as far as its types do not say what may be in it.
pub trait Bounded {
    /// An error names the field.
    fn check(&self) -> Result<()>;
}

/// pgtend was not there before; a hold may be until the end of the last year that has four digits.
const TIMES: std::ops::RangeInclusive<i64> = 0..=253_402_300_800;

/// Longer than any run: 30 years.
const SECONDS_MOST: f64 = 1e9;

/// PostgreSQL's names have 63 bytes, unless somebody has built it with another NAMEDATALEN.
const NAME_BYTES: usize = 1024;

pub fn time(what: &str, at: DateTime<Utc>) -> Result<()> {
    anyhow::ensure!(TIMES.contains(&at.timestamp()), "{what} is {at}, and no time from 1970 to 9999");
    Ok(())
}

pub fn seconds(what: &str, seconds: f64) -> Result<()> {
    anyhow::ensure!((0.0..=SECONDS_MOST).contains(&seconds), "{what} is {seconds} seconds");
    Ok(())
}

/// A name in a catalog: anything but NUL. Slashes, dots and newlines are allowed there, and are never part of a path.
pub fn catalog_name(what: &str, name: &str) -> Result<()> {
    let is_one = !name.is_empty() && name.len() <= NAME_BYTES && !name.contains('\0');
    anyhow::ensure!(is_one, "{what} is {}, which no name in PostgreSQL is", shortened(name));
    Ok(())
}

pub fn sha256(what: &str, text: &str) -> Result<()> {
    let is_one = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    anyhow::ensure!(is_one, "{what} is {}, which is no SHA-256", shortened(text));
    Ok(())
}

/// A count or a length that PostgreSQL could say as well, so that a few of them can be added.
pub fn count(what: &str, count: u64) -> Result<()> {
    anyhow::ensure!(i64::try_from(count).is_ok(), "{what} is {count}");
    Ok(())
}

/// For a message: without control characters, and not longer than a line.
pub fn shortened(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    let dots = if start.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", start.escape_debug())
}
