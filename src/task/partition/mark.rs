//! The mark on a partition that is being retired: pgtend writes it as the table's comment, and drops no table without it.
//!
//! It is set before the detach, so that no interruption leaves an unknown detached table. It holds the oids of the table and its parent, so
//! that a copy (a restored dump) is not mistaken for the original.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::pg::form::{IDENTIFIER, matches};

const PREFIX: &str = "pgtend-partition: ";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The oids of the parent table and of the partition.
    pub parent: i64,
    pub table: i64,
    pub stage: Stage,
    /// When it reached this stage.
    pub at: DateTime<Utc>,
    /// Its range, for display.
    pub from: String,
    pub to: String,
    /// The table's comment before it was marked.
    pub comment: Option<String>,
    /// The archive of its rows, once they were written and read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archived>,
    /// `FOR VALUES …`, as the server shows it; ATTACH needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<String>,
    /// True if pgtend's trigger has refused changes since the detach.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_guarded: bool,
    /// Its foreign keys to other tables, which were dropped with the detach. ATTACH creates those of the parent again.
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
    /// A checksum of all rows at the time they were read ([`super::guard::contents`]). None for archives of the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
    /// The store that it was written to, by its name in the configuration. None for archives of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The number (oid) of the database that the rows are of: CREATE DATABASE … TEMPLATE copies the mark, and gives the copies of the tables the numbers
    /// of the originals. None for archives of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<i64>,
}

impl Mark {
    /// Returns the mark once the table is detached.
    pub fn retired(&self, at: DateTime<Utc>, foreign_keys: Vec<ForeignKey>) -> Self {
        let mut all = self.foreign_keys.clone();
        all.extend(foreign_keys.into_iter().filter(|key| !self.foreign_keys.contains(key)));
        Self { stage: Stage::Retired, at, is_guarded: true, foreign_keys: all, ..self.clone() }
    }

    /// Returns false if, by the mark, the rows are in no store or in another one. Only the store itself can tell whether they exist.
    pub fn may_be_in(&self, store: &str) -> bool {
        self.archive.as_ref().is_some_and(|archived| archived.store.as_deref().is_none_or(|named| named == store))
    }

    /// Returns the comment's text: a sentence for people, then a line for pgtend.
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
        // The mark is on a line of its own. JSON has no line breaks, so a comment that is quoted in it cannot start such a line.
        let line = comment.lines().next_back()?;
        let mark: Self = serde_json::from_str(line.strip_prefix(PREFIX)?).ok()?;
        mark.is_harmless().then_some(mark)
    }

    /// Returns whether the mark contains no other SQL than what pg_get_constraintdef and pg_get_expr print for a foreign key and for
    /// bounds. The table's owner can write any comment, and people paste SQL from our hints.
    fn is_harmless(&self) -> bool {
        let is_value = |text: &String| !text.contains(|letter: char| letter.is_control() || matches!(letter, '\'' | '\\'));
        [&self.from, &self.to].into_iter().all(is_value)
            && self.foreign_keys.iter().all(|key| is_foreign_key(&key.definition))
            && self.bounds.as_deref().is_none_or(is_bounds)
    }
}

const ACTION: &str = "(?:NO ACTION|RESTRICT|CASCADE|SET NULL|SET DEFAULT)";

fn is_foreign_key(definition: &str) -> bool {
    let (i, a) = (IDENTIFIER, ACTION);
    let columns = format!(r"\((?:PERIOD )?{i}(?:, (?:PERIOD )?{i})*\)");
    matches(
        definition,
        &format!(
            r"FOREIGN KEY {columns} REFERENCES (?:ONLY )?{i}(?:\.{i})?{columns}(?: MATCH FULL)?(?: ON UPDATE {a})?(?: ON DELETE {a}(?: {columns})?)?(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?(?: NOT VALID| NOT ENFORCED)*"
        ),
    )
}

fn is_bounds(text: &str) -> bool {
    let value = "(?:'(?:[^']|'')*'|-?[0-9]+(?:[.][0-9]+)?|MINVALUE|MAXVALUE)";
    let values = format!(r"\({value}(?:, {value})*\)");
    matches(text, &format!("DEFAULT|FOR VALUES FROM {values} TO {values}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_holds_other_sql_than_foreign_keys_and_bounds_is_none() {
        let foreign_keys = [
            ("FOREIGN KEY (a) REFERENCES b(c)", true),
            (
                r#"FOREIGN KEY ("a; b", c1) REFERENCES public."x""y"(id, "Z") MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL (c1) DEFERRABLE INITIALLY DEFERRED NOT VALID"#,
                true,
            ),
            ("FOREIGN KEY (a, PERIOD p) REFERENCES s.t(a, PERIOD p)", true),
            ("CHECK (true); ALTER ROLE mallory SUPERUSER; --", false),
            ("FOREIGN KEY (a) REFERENCES b(c); DROP TABLE t", false),
            ("FOREIGN KEY (a) REFERENCES b(c), ADD CHECK (evil())", false),
            ("FOREIGN KEY (a) REFERENCES b(c)\n\\! id", false),
            ("FOREIGN KEY (a) REFERENCES b(c) ON DELETE CASCADE -- x", false),
        ];
        for (definition, right) in foreign_keys {
            assert_eq!(is_foreign_key(definition), right, "{definition}");
        }
        let bounds = [
            ("FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00')", true),
            ("FOR VALUES FROM (0, MINVALUE) TO (-10, MAXVALUE)", true),
            ("FOR VALUES FROM ('it''s') TO ('z')", true),
            ("DEFAULT", true),
            ("DEFAULT; DROP TABLE t", false),
            ("FOR VALUES FROM ('a') TO ('b'); ALTER ROLE mallory SUPERUSER", false),
            ("FOR VALUES FROM (evil()) TO ('b')", false),
        ];
        for (text, right) in bounds {
            assert_eq!(is_bounds(text), right, "{text}");
        }
        let mark = |definition: &str| {
            format!(
                "x\n{PREFIX}{{\"parent\":1,\"table\":2,\"stage\":\"retired\",\"at\":\"2026-11-01T00:00:00Z\",\"from\":\"a\",\"to\":\"b\",\"comment\":null,\"foreign_keys\":[{{\"name\":\"k\",\"definition\":\"{definition}\"}}]}}"
            )
        };
        assert!(Mark::read(&mark("FOREIGN KEY (a) REFERENCES b(c)")).is_some());
        assert_eq!(Mark::read(&mark("CHECK (true); ALTER ROLE mallory SUPERUSER; --")), None);
    }

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
        let of_an_earlier_release = r#"{"key":"k","rows":1}"#;
        let archived: Archived = serde_json::from_str(of_an_earlier_release).unwrap();
        assert_eq!(archived.database, None);
        assert_eq!(serde_json::to_string(&archived).unwrap(), of_an_earlier_release);
        let text = mark.comment("public.logs");
        assert!(text.starts_with("Retired from public.logs by pgtend at 2027-01-15T08:00:00Z"), "{text}");
        assert_eq!(Mark::read(&text), Some(mark));
        // A mark of the first release is still read, and is written unchanged: a drop compares its exact text.
        assert!(!text.contains("is_guarded") && !text.contains("foreign_keys") && !text.contains("bounds"), "{text}");
        assert_eq!(Mark::read("pgtend-partition: retired"), None);
        assert_eq!(Mark::read("logs of the shop"), None);
    }
}
