//! The mark on a partition that is being retired: a comment of ours. Without it nothing is ever dropped.
//!
//! It is set before the detach, so that no interruption leaves an unknown detached table; it holds the oids of the table and its parent, so
//! that a copy (a restored dump) is not taken for the original.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "pgtend-partition: ";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The number (oid) of the table it was a partition of, and its own.
    pub parent: i64,
    pub table: i64,
    pub stage: Stage,
    /// When it came to this stage.
    pub at: DateTime<Utc>,
    /// Its range, for display.
    pub from: String,
    pub to: String,
    /// The comment that it had before.
    pub comment: Option<String>,
    /// The place of its rows, once they were written and read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archived>,
    /// `FOR VALUES …`, as the server shows it: for ATTACH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<String>,
    /// A trigger of ours refuses changes since it was detached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_guarded: bool,
    /// Its foreign keys to other tables, which were dropped then: ATTACH makes those of its parent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    pub name: String,
    /// `FOREIGN KEY (…) REFERENCES …`.
    pub definition: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Still attached, or detached a moment ago.
    Retiring,
    /// Detached; nothing writes to it through its parent.
    Retired,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    pub key: String,
    pub rows: u64,
    /// A checksum of all its rows, when they were read ([`super::guard::contents`]). None for archives of the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
}

impl Mark {
    /// The mark once the table is detached.
    pub fn retired(&self, at: DateTime<Utc>, foreign_keys: Vec<ForeignKey>) -> Self {
        let mut all = self.foreign_keys.clone();
        all.extend(foreign_keys.into_iter().filter(|key| !self.foreign_keys.contains(key)));
        Self { stage: Stage::Retired, at, is_guarded: true, foreign_keys: all, ..self.clone() }
    }

    /// The comment's text: a sentence for people, a line for us.
    pub fn comment(&self, parent: &str) -> String {
        let what = match self.stage {
            Stage::Retiring => "Being retired",
            Stage::Retired => "Retired",
        };
        let json = serde_json::to_string(self).unwrap_or_default();
        format!(
            "{what} from {parent} by pgtend at {}: rows from {} to {}.\n{PREFIX}{json}",
            self.at.format("%Y-%m-%dT%H:%M:%SZ"),
            self.from,
            self.to
        )
    }

    pub fn read(comment: &str) -> Option<Self> {
        // Its own line: JSON has no line breaks, so that a comment quoted in it starts none.
        let line = comment.lines().next_back()?;
        serde_json::from_str(line.strip_prefix(PREFIX)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_taken_for_one() {
        let mark = Mark {
            parent: 1,
            table: 2,
            stage: Stage::Retired,
            at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            comment: Some("it's \"theirs\"\npgtend-partition: {}".to_owned()),
            archive: None,
            bounds: None,
            is_guarded: false,
            foreign_keys: Vec::new(),
        };
        let text = mark.comment("public.logs");
        assert!(text.starts_with("Retired from public.logs by pgtend at 2027-01-15T08:00:00Z"), "{text}");
        assert_eq!(Mark::read(&text), Some(mark));
        // One of the first release reads as it did, and is written as it was: a drop looks for its very words.
        assert!(!text.contains("is_guarded") && !text.contains("foreign_keys") && !text.contains("bounds"), "{text}");
        assert_eq!(Mark::read("pgtend-partition: retired"), None);
        assert_eq!(Mark::read("logs of the shop"), None);
    }
}
