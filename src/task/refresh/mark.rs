//! The names and the marks of the databases that a refresh makes. The mark is the comment of a database: it says what the database is, for which
//! target, and which run made it. Only a database with a mark is ever dropped.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The start of every mark.
pub const WORDS: &str = "made by pgtend refresh: ";

/// PostgreSQL cuts longer names (NAMEDATALEN).
const NAME_BYTES: usize = 63;

/// `_before_20261129_021500`
const TIME: &str = "_before_%Y%m%d_%H%M%S";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub what: What,
    /// The name of the database beside which it stands.
    pub target: String,
    pub job: String,
    /// The number of the run in the ledger; None without a ledger.
    pub run: Option<i64>,
    /// When it became this, by the server's clock.
    pub at: DateTime<Utc>,
    /// Of an old one: the oid of the database that took its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<i64>,
    /// Of one that is kept: for how long, in seconds, by the job that kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
    /// Of an old one: the comment that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It is being filled: without a run at work it is what a killed one left.
    Copy,
    /// Its run has failed and was to keep it.
    Failed,
    /// It had the target's name before.
    Old,
}

impl Mark {
    pub fn to_comment(&self) -> String {
        format!("{WORDS}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// None for a comment that is no mark, or of another release that writes it in another way.
    pub fn of_comment(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(WORDS)?).ok()
    }
}

/// Returns the comment that a database had before any mark: who went back to an old database may have left its mark. Each mark is shorter than the one
/// that holds it.
pub fn without_marks(mut comment: Option<String>) -> Option<String> {
    while let Some(mark) = comment.as_deref().and_then(Mark::of_comment) {
        comment = mark.comment;
    }
    comment
}

/// The start of the names of copies for this target; also the name of the lock that their makers hold.
pub fn prefix(target: &str) -> String {
    let digest = hex::encode(Sha256::digest(target));
    format!("pgtend_refresh_{}_", &digest[..12])
}

/// A name that no other copy has.
pub fn copy_name(target: &str, at: DateTime<Utc>) -> String {
    format!("{}{:x}_{}", prefix(target), at.timestamp_millis(), std::process::id())
}

/// `staging_before_20261129_021500`
pub fn old_name(target: &str, at: DateTime<Utc>) -> String {
    let end = at.format(TIME).to_string();
    format!("{}{end}", start_of(target, end.len()))
}

/// Returns whether a database of this name may have that mark: a mark alone, which every owner may write, is not enough.
pub fn fits(name: &str, mark: &Mark) -> bool {
    match mark.what {
        What::Copy | What::Failed => name.starts_with(&prefix(&mark.target)),
        What::Old => name == old_name(&mark.target, mark.at),
    }
}

fn start_of(target: &str, end_bytes: usize) -> &str {
    &target[..target.floor_char_boundary(NAME_BYTES - end_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(what: What) -> Mark {
        let at = "2026-11-29T02:15:00Z".parse().unwrap();
        Mark {
            what,
            target: "staging".into(),
            job: "refresh".into(),
            run: Some(7),
            at,
            replaced_by: None,
            keep_seconds: None,
            comment: None,
        }
    }

    #[test]
    fn a_mark_is_read_as_it_is_written_and_nothing_else_is_one() {
        let old = Mark {
            replaced_by: Some(16_400),
            keep_seconds: Some(3600),
            comment: Some("it's \\ \"mine\"".into()),
            ..mark(What::Old)
        };
        for mark in [old, mark(What::Copy), mark(What::Failed)] {
            assert_eq!(Mark::of_comment(&mark.to_comment()), Some(mark));
        }
        for comment in ["", WORDS, "made by pgtend, dropped when its restore ends", "made by pgtend refresh: {}", "old"] {
            assert_eq!(Mark::of_comment(comment), None, "{comment}");
        }
    }

    #[test]
    fn the_comment_before_all_marks_is_found() {
        let within = |comment: Option<&str>| Mark { comment: comment.map(str::to_owned), ..mark(What::Old) }.to_comment();
        for own in [None, Some("staging of team A")] {
            assert_eq!(without_marks(own.map(str::to_owned)).as_deref(), own);
            assert_eq!(without_marks(Some(within(Some(&within(own))))).as_deref(), own);
        }
    }

    #[test]
    fn names_are_within_the_limit_and_fit_their_marks() {
        let at = mark(What::Old).at;
        assert_eq!(old_name("staging", at), "staging_before_20261129_021500");
        for target in ["staging", &"x".repeat(63), &"ö".repeat(31)] {
            let (copy, old) = (copy_name(target, at), old_name(target, at));
            assert!(copy.len() <= NAME_BYTES && old.len() <= NAME_BYTES, "{copy} {old}");
            let of = |what| Mark { target: target.to_owned(), ..mark(what) };
            assert!(fits(&copy, &of(What::Copy)) && fits(&copy, &of(What::Failed)) && fits(&old, &of(What::Old)));
            assert!(!fits(target, &of(What::Copy)) && !fits(target, &of(What::Old)) && !fits(&old, &of(What::Copy)));
        }
    }
}
