//! Keys of objects: the names of databases and jobs, and times, as keys contain them.

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

pub const TIME: &str = "%Y-%m-%dT%H-%M-%SZ";

/// The characters that names keep in a key; all others are percent-encoded, so that no name can leave its place.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Returns a key as a server knows it, below the prefix of the store.
pub fn below(prefix: &str, key: &str) -> String {
    match prefix {
        "" => key.to_owned(),
        prefix => format!("{prefix}/{key}"),
    }
}

/// Returns a server's key as the rest of pgtend knows it; `None` when it is not below the prefix.
pub fn without(prefix: &str, full_key: &str) -> Option<String> {
    match prefix {
        "" => Some(full_key.to_owned()),
        prefix => Some(full_key.strip_prefix(prefix)?.strip_prefix('/')?.to_owned()),
    }
}

/// Returns the folder of all sets of a database: `DATABASE/`.
pub fn folder_of(database: &str) -> String {
    format!("{}/", encode(database))
}

/// Returns the folder of a job's sets on one database: `DATABASE/JOB/`.
pub fn folder(database: &str, job: &str) -> String {
    format!("{}{}/", folder_of(database), encode(job))
}

/// Parses only the form that is written: years of four digits, no signs, no spaces.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let time = NaiveDateTime::parse_from_str(text, TIME).ok()?.and_utc();
    (text.len() == "2026-11-23T02-00-00Z".len() && time.format(TIME).to_string() == text).then_some(time)
}

pub fn encode(name: &str) -> String {
    let encoded = utf8_percent_encode(name, PLAIN).to_string();
    // `.` and `..` as folders would have another meaning.
    if encoded.starts_with('.') { encoded.replacen('.', "%2E", 1) } else { encoded }
}

/// Decodes a name from a key.
pub fn decode(name: &str) -> Result<String> {
    Ok(percent_decode_str(name).decode_utf8().context("a name in a key is not UTF-8")?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_takes_no_key_for_its_own_that_is_beside_its_prefix() {
        for (prefix, full_key, expected) in [
            ("", "x/y", Some("x/y")),
            ("a", "a/x", Some("x")),
            ("a", "ab/x", None),
            ("a", "a", None),
            ("a/b", "a/b/x", Some("x")),
        ] {
            let own = without(prefix, full_key);
            assert_eq!(own.as_deref(), expected, "{prefix} {full_key}");
            assert!(own.is_none_or(|own| below(prefix, &own) == full_key));
        }
    }
}
