//! An object of a schema and its facts, as the SQL beside this file reads them.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use regex_lite::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::pg;

/// The query for all objects: its parts are lists of one kind of object each.
pub const QUERY: &str = concat!(
    include_str!("begin.sql"),
    include_str!("types.sql"),
    include_str!("tables.sql"),
    include_str!("others.sql"),
    include_str!("end.sql"),
);

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Object {
    /// Objects can be created in this order.
    pub rank: u32,
    pub kind: String,
    pub name: String,
    /// The table that it belongs to: a finding about the table covers it.
    pub parent: Option<String>,
    /// As in GRANT, after the privileges.
    pub granted: Option<String>,
    /// It comes and goes with another object: only its differences are reported.
    pub is_inner: bool,
    pub facts: BTreeMap<String, Value>,
    /// None: no function of PostgreSQL's writes this statement.
    pub create: Option<String>,
    /// The statement that gives an object of this name one of these facts.
    pub sets: BTreeMap<String, Option<String>>,
}

/// What no statement changes.
pub const ORDER: &str = "order of columns";

/// Which facts are compared: a file of `pg_dump --no-owner --no-privileges` says nothing about owners and rights.
#[derive(Debug, Default)]
pub struct Scope {
    pub owners: bool,
    pub grants: bool,
    /// Whether a subscription is enabled: in a file that pg_dump wrote, none is.
    pub enabled_subscriptions: bool,
    /// Tables whose partitions a [partition] job makes and retires.
    pub partitioned_by_jobs: HashSet<String>,
}

impl Scope {
    pub fn of_file(text: &str) -> Self {
        let upper = text.to_ascii_uppercase();
        let owners = ["OWNER TO ", "AUTHORIZATION ", "SET ROLE "].iter().any(|words| upper.contains(words));
        let is_grant =
            |line: &str| ["GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES "].iter().any(|words| line.starts_with(words));
        // A dump with owners has the rights, too, if there are any.
        let grants = owners || upper.lines().any(|line| is_grant(line.trim_start()));
        Self { owners, grants, ..Self::default() }
    }

    pub fn has(&self, object: &Object, fact: &str) -> bool {
        match fact {
            "owner" => self.owners,
            "grants" => self.grants,
            "bound" | "parents" if self.is_made_by_job(object) => false,
            "enabled" if object.kind == "subscription" => self.enabled_subscriptions,
            _ => true,
        }
    }

    pub fn has_object(&self, object: &Object) -> bool {
        object.kind != "default privileges" || self.grants
    }

    pub fn is_made_by_job(&self, object: &Object) -> bool {
        object.kind == "partition" && object.parent.as_ref().is_some_and(|root| self.partitioned_by_jobs.contains(root))
    }
}

impl Object {
    pub fn fact(&self, name: &str) -> &Value {
        self.facts.get(name).unwrap_or(&Value::Null)
    }

    /// Returns the names of the facts that differ, the type of a column first.
    pub fn differing<'a>(&'a self, other: &'a Object, scope: &Scope) -> Vec<&'a str> {
        let names: std::collections::BTreeSet<&str> = self.facts.keys().chain(other.facts.keys()).map(String::as_str).collect();
        let differs = |name: &&str| match *name {
            ORDER => !is_in_order(self.fact(name), other.fact(name)),
            name => !means_the_same(self.fact(name), other.fact(name)),
        };
        let mut names: Vec<&str> = names.into_iter().filter(|name| scope.has(self, name)).filter(differs).collect();
        names.sort_by_key(|name| *name != "type");
        names
    }

    /// Returns its own statement, or None where a person has to write it.
    pub fn creating(&self, scope: &Scope) -> Option<String> {
        let mut statements = vec![self.create.clone()?];
        statements.extend(self.setting(scope));
        Some(statements.join("\n"))
    }

    /// Returns the statements for what a CREATE statement leaves out.
    pub fn setting(&self, scope: &Scope) -> Vec<String> {
        let is_set = |fact: &str| match self.fact(fact) {
            Value::Null => false,
            value => fact != "replica identity" || value != "DEFAULT",
        };
        let facts = [
            "owner",
            "owned by",
            "storage",
            "compression",
            "statistics",
            "target",
            "replica identity",
            "comment",
            "comments of checks",
        ];
        let facts = facts.into_iter().filter(|fact| scope.has(self, fact) && is_set(fact));
        let mut statements: Vec<String> = facts.filter_map(|fact| self.sets.get(fact)?.clone()).collect();
        if let (true, Some(granted)) = (scope.grants, &self.granted) {
            let at_first: &[&str] = match granted.split(' ').nth(1) {
                Some("ROUTINE") => &["EXECUTE TO PUBLIC"],
                Some("TYPE" | "LANGUAGE") => &["USAGE TO PUBLIC"],
                _ => &[],
            };
            statements.extend(granting(granted, &entries(self.fact("grants")), at_first).unwrap_or_default());
        }
        statements
    }
}

pub fn entries(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns the statements that turn the `found` rights into the `wanted` ones; None for what an owner took from itself.
pub fn granting(granted: &str, wanted: &[&str], found: &[&str]) -> Option<Vec<String>> {
    let mut statements = Vec::new();
    for gone in found.iter().filter(|entry| !wanted.contains(entry)) {
        let (privilege, grantee) = gone.split_once(" TO ")?;
        let grantee = grantee.strip_suffix(" WITH GRANT OPTION").unwrap_or(grantee);
        statements.push(format!("REVOKE {privilege} {granted} FROM {grantee};"));
    }
    for lacking in wanted.iter().filter(|entry| !found.contains(entry)) {
        let (privilege, grantee) = lacking.split_once(" TO ")?;
        statements.push(format!("GRANT {privilege} {granted} TO {grantee};"));
    }
    Some(statements)
}

/// Labels of an enum can be added, not taken away.
pub fn add_labels(wanted: &Object, found: &Object) -> Option<String> {
    let (wanted_labels, found_labels) = (entries(wanted.fact("labels")), entries(found.fact("labels")));
    let kept: Vec<&&str> = wanted_labels.iter().filter(|label| found_labels.contains(label)).collect();
    if kept.len() < found_labels.len() || !kept.iter().zip(&found_labels).all(|(a, b)| *a == b) {
        return None;
    }
    let mut statements = Vec::new();
    for (index, label) in wanted_labels.iter().enumerate().filter(|(_, label)| !found_labels.contains(label)) {
        let place = match index.checked_sub(1) {
            Some(before) => format!("AFTER {}", pg::literal(wanted_labels[before])),
            None => match found_labels.first() {
                Some(first) => format!("BEFORE {}", pg::literal(first)),
                None => String::new(),
            },
        };
        statements.push(format!("ALTER TYPE {} ADD VALUE {} {place};", wanted.name, pg::literal(label)));
    }
    Some(statements.join("\n"))
}

/// Compares the order of the columns that both have: what only one has is a difference by itself.
fn is_in_order(one: &Value, other: &Value) -> bool {
    let (one, other) = (entries(one), entries(other));
    let of_one = one.iter().filter(|name| other.contains(name));
    of_one.eq(other.iter().filter(|name| one.contains(name)))
}

/// Compares two facts. The server writes `status IN ('a', 'b')` of a varchar as `(ARRAY['a'::character varying, …])::text[]`, and once that was read back as
/// `ARRAY[('a'::character varying)::text, …]`: casts between both types, and their parentheses, make no difference where there is an array.
fn means_the_same(one: &Value, other: &Value) -> bool {
    one == other
        || matches!((one.as_str(), other.as_str()), (Some(one), Some(other))
            if one.contains("ARRAY[") && other.contains("ARRAY[") && without_casts(one) == without_casts(other))
}

fn without_casts(text: &str) -> String {
    static STEPS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let steps = [
            (r"::(character varying|text)(\(\d+\))?(\[\])?", ""),
            (r"\(('(?:[^']|'')*')\)", "$1"),
            (r"\((ARRAY\[[^\[\]]*\])\)", "$1"),
            (r"\((ARRAY\[[^\[\]]*\])\)", "$1"),
        ];
        steps.into_iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with))).collect()
    });
    STEPS.iter().fold(text.to_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(fact: &str, value: Value) -> Object {
        Object { name: "mood".to_owned(), facts: BTreeMap::from([(fact.to_owned(), value)]), ..Object::default() }
    }

    #[test]
    fn a_list_of_texts_that_was_read_back_is_the_same_list() {
        let before = json!("CHECK ((st)::text = ANY ((ARRAY['a'::character varying, 'it''s'::character varying])::text[]))");
        let after = json!("CHECK ((st)::text = ANY (ARRAY[('a'::character varying)::text, ('it''s'::character varying)::text]))");
        assert!(means_the_same(&before, &after));
        let another =
            json!("CHECK ((st)::text = ANY (ARRAY[('b'::character varying)::text, ('it''s'::character varying)::text]))");
        assert!(!means_the_same(&before, &another));
        assert!(!means_the_same(&json!("(st)::text = 'a'::text"), &json!("st = 'a'")), "only lists are written in two ways");
    }

    #[test]
    fn the_order_of_columns_is_that_of_those_which_both_have() {
        for (one, other, same) in [
            (json!(["a", "b", "c"]), json!(["a", "c", "b"]), false),
            (json!(["a", "b", "c"]), json!(["a", "new", "c"]), true),
            (json!(["b", "a"]), json!(["a", "b", "new"]), false),
            (Value::Null, json!(["a"]), true),
        ] {
            assert_eq!(is_in_order(&one, &other), same, "{one} {other}");
        }
    }

    #[test]
    fn labels_are_added_at_their_place_and_never_taken_away() {
        let labels = |labels: &[&str]| with("labels", json!(labels));
        let added = add_labels(&labels(&["sad", "ok", "glad"]), &labels(&["sad", "glad"]));
        assert_eq!(added.as_deref(), Some("ALTER TYPE mood ADD VALUE E'ok' AFTER E'sad';"));
        assert_eq!(add_labels(&labels(&["sad"]), &labels(&["sad", "glad"])), None);
    }

    #[test]
    fn rights_are_granted_and_revoked_one_by_one() {
        let statements =
            granting("ON TABLE t", &["SELECT TO a", "INSERT TO b WITH GRANT OPTION"], &["SELECT TO a", "DELETE TO PUBLIC"]);
        let expected = ["REVOKE DELETE ON TABLE t FROM PUBLIC;", "GRANT INSERT ON TABLE t TO b WITH GRANT OPTION;"];
        assert_eq!(statements.unwrap(), expected);
        assert_eq!(granting("ON TABLE t", &["no INSERT for the owner"], &[]), None);
    }

    #[test]
    fn a_file_without_owners_or_rights_says_nothing_about_them() {
        for (text, owners, grants) in [
            ("CREATE TABLE t (id int);", false, false),
            ("CREATE TABLE t (id int);\n  grant select on t to app;", false, true),
            ("ALTER TABLE public.t OWNER TO app;", true, true),
            ("CREATE SCHEMA s AUTHORIZATION app;", true, true),
            ("COMMENT ON TABLE t IS 'we grant nothing';", false, false),
        ] {
            let scope = Scope::of_file(text);
            assert_eq!((scope.owners, scope.grants), (owners, grants), "{text}");
        }
    }
}
