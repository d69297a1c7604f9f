//! Bounds of values that are read from a store. Anyone who can write there may have written them: a value that pgtend never
//! writes is refused when it is read, before anything counts it, adds it up or names a file after it.

use anyhow::Result;
use chrono::{DateTime, Utc};

/// A type that an object's JSON becomes, with checks that its types cannot express.
pub trait Bounded {
    /// The error names the field.
    fn check(&self) -> Result<()>;
}

/// The range starts before pgtend existed; a hold may last until the end of the last four-digit year.
const TIMES: std::ops::RangeInclusive<i64> = 0..=253_402_300_800;

/// This is longer than any run: 30 years.
const MAX_SECONDS: f64 = 1e9;

/// PostgreSQL's names have up to 63 bytes, unless a server was built with another NAMEDATALEN.
const NAME_BYTES: usize = 1024;

pub fn time(what: &str, at: DateTime<Utc>) -> Result<()> {
    anyhow::ensure!(TIMES.contains(&at.timestamp()), "{what} is {at}, which is not between 1970 and 9999");
    Ok(())
}

pub fn seconds(what: &str, seconds: f64) -> Result<()> {
    anyhow::ensure!((0.0..=MAX_SECONDS).contains(&seconds), "{what} is {seconds} seconds");
    Ok(())
}

/// Checks a name from a catalog: anything but NUL. Slashes, dots and newlines are allowed, and are never part of a path.
pub fn catalog_name(what: &str, name: &str) -> Result<()> {
    let is_one = !name.is_empty() && name.len() <= NAME_BYTES && !name.contains('\0');
    anyhow::ensure!(is_one, "{what} is {}, which cannot be a name in PostgreSQL", shortened(name));
    Ok(())
}

pub fn sha256(what: &str, text: &str) -> Result<()> {
    let is_one = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    anyhow::ensure!(is_one, "{what} is {}, which is not a SHA-256", shortened(text));
    Ok(())
}

/// Checks that PostgreSQL could return this count or length, so that a few of them can be added up.
pub fn count(what: &str, count: u64) -> Result<()> {
    anyhow::ensure!(i64::try_from(count).is_ok(), "{what} is {count}");
    Ok(())
}

/// Shortens a text for a message: it has no control characters and fits on a line.
pub fn shortened(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    let dots = if start.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", start.escape_debug())
}
