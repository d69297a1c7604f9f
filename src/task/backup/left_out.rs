//! The objects of an extension that is left out. A dump marks none of them as such: it grants on an extension's functions,
//! comments on its tables and fills them, as on those that it makes itself.

use std::collections::HashSet;

use super::script::Entry;

/// The objects that the dump makes by a CREATE of its own, whether that succeeded or not: no extension's.
#[derive(Debug, Default)]
pub struct Made(HashSet<(Option<String>, String)>);

impl Made {
    /// Remembers what `entry` makes.
    pub fn remember(&mut self, entry: &Entry) {
        self.0.insert((entry.schema.clone(), entry.name.clone()));
    }

    /// Whether the dump makes the object that `entry` speaks of. On a like name of another kind the answer is yes, too.
    pub fn has(&self, entry: &Entry) -> bool {
        let has = |name: &str| self.0.contains(&(entry.schema.clone(), name.to_owned()));
        // `TABLE DATA` is called as its table; `ACL`, `COMMENT` and `SECURITY LABEL` as `TABLE t`, `FUNCTION f(integer)`,
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
        let entry = |kind: &str, name: &str| Entry { kind: kind.into(), name: name.into(), schema: Some("s".into()) };
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
