//! Recognizes objects of an extension that is left out. A dump does not mark them: it grants on an extension's functions, comments on its
//! tables and fills them like those that it creates itself.

use std::collections::HashSet;

use super::script::Entry;

/// The objects that the dump creates with its own CREATE, whether that succeeded or not: they belong to no extension.
#[derive(Debug, Default)]
pub struct Made(HashSet<(Option<String>, String)>);

impl Made {
    /// Remembers the object that `entry` creates.
    pub fn remember(&mut self, entry: &Entry) {
        self.0.insert((entry.schema.clone(), entry.name.clone()));
    }

    /// Returns whether the dump creates the object that `entry` is about. For the same name of another kind the answer is also yes.
    pub fn has(&self, entry: &Entry) -> bool {
        let has = |name: &str| self.0.contains(&(entry.schema.clone(), name.to_owned()));
        // `TABLE DATA` has the name of its table; `ACL`, `COMMENT` and `SECURITY LABEL` are named like `TABLE t`, `FUNCTION f(integer)`,
        // `COLUMN t.c`, `MATERIALIZED VIEW v`.
        // `COLUMN t.c`, `MATERIALIZED VIEW v`.
        let suffixes = entry.name.match_indices(' ').map(|(at, _)| &entry.name[at + 1..]);
        std::iter::once(entry.name.as_str())
            .chain(suffixes)
            .any(|name| has(name) || name.rsplit_once('.').is_some_and(|(table, _)| has(table)))
    }

    pub fn has_table(&self, schema: &str, name: &str) -> bool {
        self.0.contains(&(Some(schema.to_owned()), name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dump_makes_itself_is_known_by_whatever_speaks_of_it() {
        let entry =
            |kind: &str, name: &str| Entry { kind: kind.into(), name: name.into(), schema: Some("s".into()), is_ours: false };
        let mut made = Made::default();
        made.remember(&entry("TABLE", "t"));
        made.remember(&entry("FUNCTION", "f(integer, text)"));
        for (kind, name, expected) in [
            ("TABLE DATA", "t", true),
            ("ACL", "TABLE t", true),
            ("ACL", "COLUMN t.c", true),
            ("COMMENT", "FUNCTION f(integer, text)", true),
            ("ACL", "FUNCTION f(integer)", false),
            ("TABLE DATA", "job", false),
            ("ACL", "TABLE job", false),
        ] {
            assert_eq!(made.has(&entry(kind, name)), expected, "{kind} {name}");
        }
        assert!(!made.has(&Entry { schema: Some("other".into()), ..entry("TABLE DATA", "t") }));
        assert!(made.has_table("s", "t") && !made.has_table("s", "u"));
    }
}
