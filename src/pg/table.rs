//! Tables, as jobs name them and as the server knows them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::schemas::hold_schema_of;
use super::{identifier, literal, qualified};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableName {
    pub oid: i64,
    pub schema: String,
    pub name: String,
}

impl TableName {
    pub fn sql(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Formats the name for people: quoted only where SQL needs it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let plain = |name: &str| {
            let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_plain { name.to_owned() } else { identifier(name) }
        };
        write!(f, "{}.{}", plain(&self.schema), plain(&self.name))
    }
}

/// Adds the schema: the session has no search_path, so a name without a schema means one in `public`.
pub fn with_schema(table: &str) -> String {
    let mut is_quoted = false;
    let has_dot = table.chars().any(|c| {
        is_quoted ^= c == '"';
        c == '.' && !is_quoted
    });
    if has_dot { table.to_owned() } else { format!("public.{table}") }
}

/// A table as it was when it was searched for foreign code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// With its schema, as in SQL.
    pub name: String,
    pub oid: i64,
    /// The oid of its owner; None where that was not looked at.
    pub owner: Option<i64>,
    /// The code that was attached to it; None where that was not looked at.
    pub code: Option<Attached>,
    /// The code that was attached to each table in its tree: itself, partitions, and the table behind the view of a `[compress]` job.
    pub tree: Arc<HashMap<i64, Attached>>,
}

/// Triggers, rules and referring tables of a table, each as one word ([`ATTACHED`]).
pub type Attached = Vec<String>;

impl Checked {
    pub fn of(table: &TableName) -> Self {
        Self::named(table.sql(), table.oid)
    }

    /// Returns a table whose code was not searched for.
    pub fn named(name: String, oid: i64) -> Self {
        Self { name, oid, owner: None, code: None, tree: Arc::default() }
    }

    /// Returns the table with the code that a search of `checked` found there, in one of their trees; as it is where none of them has it.
    pub fn as_in(mut self, checked: &[Self]) -> Self {
        if self.code.is_none() {
            self.code = checked.iter().find_map(|checked| checked.tree.get(&self.oid)).cloned();
        }
        self
    }
}

/// SQL: a word for each trigger, rule and referring table of the table `$table` (SQL of an oid), each of which brings code when it is added.
/// Triggers that are disabled do not count until they are enabled, and those that the server makes for keys go by the table that refers. A word
/// says what the object does, as CREATE OR REPLACE keeps its oid. A literal, as a query has to be one.
macro_rules! attached {
    ($table:literal) => {
        concat!(
            "SELECT pg_catalog.concat_ws('/', 'trigger', g.oid, g.tgenabled, g.tgfoid, g.tgtype,
                 pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(g.tgqual::pg_catalog.text, 'UTF8')), 'hex')) AS word
             FROM pg_catalog.pg_trigger g WHERE g.tgrelid OPERATOR(pg_catalog.=) ",
            $table,
            " AND g.tgenabled OPERATOR(pg_catalog.<>) 'D' AND (NOT g.tgisinternal OR g.tgparentid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND g.tgconstraint OPERATOR(pg_catalog.=) 0::pg_catalog.oid)
             UNION ALL
             SELECT pg_catalog.concat_ws('/', 'rule', w.oid, w.ev_enabled, w.ev_type, w.is_instead,
                 pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat(w.ev_qual::pg_catalog.text, w.ev_action::pg_catalog.text), 'UTF8')), 'hex'))
             FROM pg_catalog.pg_rewrite w WHERE w.ev_class OPERATOR(pg_catalog.=) ",
            $table,
            " AND w.ev_enabled OPERATOR(pg_catalog.<>) 'D' AND w.rulename OPERATOR(pg_catalog.<>) '_RETURN'::pg_catalog.name
             UNION ALL
             SELECT pg_catalog.concat_ws('/', 'key', k.conrelid)
             FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_constraint k ON k.oid OPERATOR(pg_catalog.=) g.tgconstraint
             WHERE k.contype OPERATOR(pg_catalog.=) 'f' AND k.confrelid OPERATOR(pg_catalog.=) g.tgrelid AND g.tgrelid OPERATOR(pg_catalog.=) ",
            $table
        )
    };
}

/// The code of each table in the tree of $1, as [`Attached`]. Also the keys of referring partitions, which get triggers of their own here when
/// they are detached.
pub const ATTACHED: &str = concat!(
    "WITH RECURSIVE tables AS (
         SELECT $1::bigint::pg_catalog.oid AS oid
         UNION
         SELECT x.oid FROM tables t, LATERAL (
             SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = t.oid
             UNION ALL
             SELECT d.refobjid FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.oid
                 JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 JOIN pg_catalog.pg_class b ON b.oid = d.refobjid AND b.relkind IN ('r', 'p') WHERE v.oid = t.oid AND v.relkind = 'v'
         ) x
     )
     SELECT t.oid::bigint, ARRAY(",
    attached!("t.oid"),
    ") || coalesce(keys.words, '{}')
     FROM tables t LEFT JOIN (
         SELECT c.confrelid, pg_catalog.array_agg(DISTINCT pg_catalog.concat_ws('/', 'key', c.conrelid)) AS words FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' GROUP BY 1
     ) keys ON keys.confrelid = t.oid"
);

/// Returns a statement that fails where one of the names means another table by now, the table has another owner, or code was attached to it since it was
/// searched. Statements go by name, and whoever owns the schema may rename it and put a table of their own in its place; and a role with TRIGGER or
/// REFERENCES may attach code to another's table. It belongs behind the lock of a transaction, before whatever changes the table: a name that is
/// right then still is at the end of the transaction where the role may hold the name of the schema ([`super::schemas`]), and otherwise at the next statement,
/// unless another session changes it in the moment between the two; and CREATE TRIGGER, CREATE RULE and a new key wait for ROW EXCLUSIVE and stronger locks. Every name and operator is qualified, as the session may have the application's
/// search_path. Empty without tables.
pub fn proof<'a>(tables: impl IntoIterator<Item = &'a Checked>) -> String {
    let checks: String =
        tables.into_iter().map(|table| hold_schema_of(table.oid) + &is_the_same(table) + &has_no_new_code(table)).collect();
    if checks.is_empty() { String::new() } else { format!("DO {}", literal(&format!("BEGIN {checks}END"))) }
}

/// Returns a statement that fails where code was attached to one of the tables in these trees since they were searched. It belongs behind locks on them.
/// Empty without tables.
pub fn proof_of_trees<'a>(tables: impl IntoIterator<Item = &'a Checked>) -> String {
    let of_tree = |table: &Checked| -> String {
        let in_tree =
            |(oid, code): (&i64, &Attached)| Checked { code: Some(code.clone()), ..Checked::named(table.name.clone(), *oid) };
        table.tree.iter().map(|one| has_no_new_code(&in_tree(one))).collect()
    };
    let checks: String = tables.into_iter().map(of_tree).collect();
    if checks.is_empty() { String::new() } else { format!("DO {}", literal(&format!("BEGIN {checks}END"))) }
}

fn is_the_same(Checked { name, oid, owner, .. }: &Checked) -> String {
    let owner = owner.map(|owner| format!(" AND relowner OPERATOR(pg_catalog.=) {owner}::pg_catalog.oid")).unwrap_or_default();
    format!(
        "IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass({})::pg_catalog.oid
             AND oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid{owner}) THEN RAISE USING MESSAGE = {}; END IF; ",
        literal(name),
        literal(&format!(
            "{name} is another table than the one that this run checked, or has another owner now: this transaction changes nothing"
        ))
    )
}

fn has_no_new_code(Checked { name, oid, code, .. }: &Checked) -> String {
    let Some(code) = code else { return String::new() };
    let known: Vec<String> = code.iter().map(|word| literal(word)).collect();
    format!(
        "IF EXISTS (SELECT FROM ({}) a WHERE a.word OPERATOR(pg_catalog.<>) ALL (ARRAY[{}]::pg_catalog.text[])) THEN RAISE USING MESSAGE = {}; END IF; ",
        attached!("$table").replace("$table", &format!("{oid}::pg_catalog.oid")),
        known.join(", "),
        literal(&format!(
            "a trigger, a rule or a foreign key was added to {name} since this run checked its code: this transaction changes nothing; run it again"
        ))
    )
}
