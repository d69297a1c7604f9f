//! Decides which way a statement of a dump goes in a restore by several sessions. Pure.
//!
//! The lexed statement decides, never the comment above it, and only where it has exactly the shape that pg_dump writes: all else is run by the
//! main session when the others have nothing more to do.

use crate::pg::qualified;
use crate::task::backup::own_bytes;
use crate::task::backup::tokens::{Kind, Statement};

/// A longer statement runs in the main session: those that wait for a session are held in memory.
const LONGEST_BYTES: usize = 16 << 10;

/// Access methods whose builds make do with the memory that they get. Those of extensions may fail: an ivfflat or hnsw index wants its lists or its graph
/// in maintenance_work_mem.
const BUILT_IN_METHODS: [&str; 6] = ["btree", "hash", "gin", "gist", "spgist", "brin"];

#[derive(Debug, PartialEq)]
pub enum Way {
    /// A setting of this name, which all sessions need. It runs in the main session, whatever the others do.
    Setting(String),
    /// The main session runs it, whatever the others do.
    Beside,
    /// Any session runs it.
    Build(Build),
    /// The main session runs it when all before it is done; nothing after it begins before it is done.
    Alone,
}

/// An index or a constraint.
#[derive(Debug, PartialEq)]
pub struct Build {
    pub what: What,
    /// Names as SQL has them. A foreign key has two.
    pub tables: Vec<String>,
    /// It needs all the memory of a restore.
    pub needs_memory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Index,
    /// PRIMARY KEY, UNIQUE, EXCLUDE.
    Constraint,
    ForeignKey,
}

/// `text`: a statement that pg_dump writes (`pg_dumps::writes`), without its semicolon.
pub fn of(text: &str) -> Way {
    if let Some(setting) = setting(text) {
        return Way::Setting(setting);
    }
    // What large objects and sequences get has nothing to do with rows of tables.
    let is_beside = matches!(text, "BEGIN" | "COMMIT")
        || ["setval", "lo_create", "lo_open", "lowrite", "lo_close"].iter().any(|function| {
            text.strip_prefix("SELECT pg_catalog.")
                .is_some_and(|rest| rest.strip_prefix(function).is_some_and(|rest| rest.starts_with('(')))
        });
    if is_beside {
        return Way::Beside;
    }
    match build(text) {
        Some(build) => Way::Build(build),
        None => Way::Alone,
    }
}

/// The name of what a statement sets for its session.
fn setting(text: &str) -> Option<String> {
    if text.starts_with("SELECT pg_catalog.set_config('search_path'") {
        return Some("search_path".to_owned());
    }
    if !text.starts_with("SET ") && !text.starts_with("RESET ") {
        return None;
    }
    let statement = Statement::of(text);
    if ["SET", "RESET"].iter().any(|word| statement.spells(0, &[word, "SESSION", "AUTHORIZATION"])) {
        return Some("session authorization".to_owned());
    }
    (statement.spells(0, &["SET"]) && statement.is_symbol(2, b'=')).then(|| statement.name(1)).flatten()
}

fn build(text: &str) -> Option<Build> {
    if text.len() > LONGEST_BYTES || own_bytes::has_some(text) {
        return None;
    }
    if text.starts_with("CREATE INDEX ") || text.starts_with("CREATE UNIQUE INDEX ") {
        return index(&Statement::whole(text));
    }
    if text.starts_with("ALTER TABLE ") {
        return constraint(&Statement::whole(text));
    }
    None
}

/// `CREATE UNIQUE INDEX i ON ONLY s.t USING btree (…) …`
fn index(statement: &Statement) -> Option<Build> {
    let name = if statement.spells(0, &["CREATE", "UNIQUE", "INDEX"]) { 3 } else { 2 };
    statement.name(name)?;
    statement.spells(name + 1, &["ON"]).then_some(())?;
    let at = name + 2 + usize::from(statement.spells(name + 2, &["ONLY"]) && !statement.is_symbol(name + 3, b'.'));
    let (table, at) = table(statement, at)?;
    statement.says(at, &["USING"]).then_some(())?;
    let method = statement.name(at + 1)?;
    (statement.is_symbol(at + 2, b'(') && !may_run_code(statement, at)).then_some(())?;
    Some(Build { what: What::Index, tables: vec![table], needs_memory: !BUILT_IN_METHODS.contains(&method.as_str()) })
}

/// `ALTER TABLE ONLY s.t ADD CONSTRAINT c …` with nothing more.
fn constraint(statement: &Statement) -> Option<Build> {
    let has_only = statement.spells(0, &["ALTER", "TABLE", "ONLY"]);
    let (first, at) = table(statement, if has_only { 3 } else { 2 })?;
    statement.says(at, &["ADD", "CONSTRAINT"]).then_some(())?;
    statement.name(at + 2)?;
    let has_more = (at..statement.tokens.len()).any(|at| statement.tokens[at].depth == 0 && statement.is_symbol(at, b','));
    if has_more || may_run_code(statement, at) {
        return None;
    }
    let says = |words: &[&str]| statement.says(at + 3, words);
    if says(&["FOREIGN", "KEY"]) {
        let references = statement.find(&["REFERENCES"])?;
        let (second, after) = table(statement, references + 1)?;
        (statement.is_symbol(at + 5, b'(') && statement.is_symbol(after, b'(')).then_some(())?;
        return Some(Build { what: What::ForeignKey, tables: vec![first, second], needs_memory: false });
    }
    let columns = match () {
        () if says(&["PRIMARY", "KEY"]) => at + 5,
        () if says(&["UNIQUE", "NULLS", "NOT", "DISTINCT"]) => at + 7,
        () if says(&["UNIQUE"]) => at + 4,
        () if says(&["EXCLUDE", "USING"])
            && statement.name(at + 5).is_some_and(|name| BUILT_IN_METHODS.contains(&name.as_str())) =>
        {
            at + 6
        }
        () => return None,
    };
    // Without ONLY it would go down to other tables.
    (has_only && statement.is_symbol(columns, b'(')).then(|| Build {
        what: What::Constraint,
        tables: vec![first],
        needs_memory: false,
    })
}

/// A name with its schema, as SQL has it, and the index after it.
fn table(statement: &Statement, at: usize) -> Option<(String, usize)> {
    match statement.qualified(at)? {
        (Some(schema), name, after) => Some((qualified(&schema, &name), after)),
        (None, ..) => None,
    }
}

/// Returns whether it may call what is not PostgreSQL's own, which could wait for a table that another session has: pg_dump names that with its schema.
/// Operator classes and collations do not count. A relation that it names (`'s.i'::regclass`) may be an index that is still to come.
fn may_run_code(statement: &Statement, from: usize) -> bool {
    let is_qualified =
        |at: usize| statement.name(at).is_some() && statement.is_symbol(at + 1, b'.') && statement.name(at + 2).is_some();
    statement.is_cut
        || (from..statement.tokens.len()).any(|at| {
            let calls = is_qualified(at) && statement.is_symbol(at + 3, b'(') && !is_referenced(statement, at);
            let operates = statement.says(at, &["OPERATOR"]) && statement.is_symbol(at + 1, b'(');
            let casts = statement.is_symbol(at, b':') && is_qualified(at + 1);
            // The constant may name an index that another session has not begun to build.
            let names_a_relation = statement.is_symbol(at, b':') && statement.says(at + 1, &["REGCLASS"]);
            calls || operates || casts || names_a_relation
        })
}

/// Returns whether the name at `at` is that of the table in `REFERENCES s.t(a)`.
fn is_referenced(statement: &Statement, at: usize) -> bool {
    at > 0
        && statement.tokens[at].depth == 0
        && statement.says(at - 1, &["REFERENCES"])
        && statement.tokens[at - 1].kind == Kind::Word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(what: What, tables: &[&str], needs_memory: bool) -> Way {
        let tables = tables.iter().map(|name| format!("\"s\".\"{name}\"")).collect();
        Way::Build(Build { what, tables, needs_memory })
    }

    #[test]
    fn indexes_and_constraints_are_built_by_any_session() {
        for (text, what, tables, needs_memory) in [
            ("CREATE INDEX i ON s.t USING btree (a)", What::Index, &["t"][..], false),
            (
                "CREATE INDEX i ON ONLY s.t USING btree (a, b DESC) INCLUDE (c) WITH (fillfactor='70') WHERE (a > 0)",
                What::Index,
                &["t"],
                false,
            ),
            ("CREATE UNIQUE INDEX i ON s.t USING btree (lower((a)::text))", What::Index, &["t"], false),
            ("CREATE INDEX i ON s.only USING hash (a)", What::Index, &["only"], false),
            ("CREATE INDEX i ON s.t USING gin (to_tsvector('english'::regconfig, a))", What::Index, &["t"], false),
            ("CREATE INDEX \"ON\" ON s.t USING gin (a public.gin_trgm_ops)", What::Index, &["t"], false),
            ("CREATE INDEX i ON s.t USING btree (a COLLATE pg_catalog.\"C\")", What::Index, &["t"], false),
            ("CREATE INDEX i ON s.t USING hnsw (v x.vector_cosine_ops) WITH (m='16')", What::Index, &["t"], true),
            ("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k PRIMARY KEY (a, b)", What::Constraint, &["t"], false),
            (
                "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k UNIQUE (a) INCLUDE (b) DEFERRABLE INITIALLY DEFERRED",
                What::Constraint,
                &["t"],
                false,
            ),
            ("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k UNIQUE NULLS NOT DISTINCT (a)", What::Constraint, &["t"], false),
            (
                "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k EXCLUDE USING gist (a WITH &&, b WITH =) WHERE (c)",
                What::Constraint,
                &["t"],
                false,
            ),
            (
                "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k FOREIGN KEY (a, b) REFERENCES s.u(x, y) ON DELETE CASCADE NOT VALID",
                What::ForeignKey,
                &["t", "u"],
                false,
            ),
            ("ALTER TABLE s.t\n    ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES s.t(x)", What::ForeignKey, &["t", "t"], false),
        ] {
            assert_eq!(of(text), build(what, tables, needs_memory), "{text}");
        }
    }

    #[test]
    fn settings_are_for_all_sessions() {
        for (text, name) in [
            ("SET statement_timeout = 0", "statement_timeout"),
            ("SET default_tablespace = ''", "default_tablespace"),
            ("SET client_encoding = 'UTF8'", "client_encoding"),
            ("SELECT pg_catalog.set_config('search_path', '', false)", "search_path"),
            ("SET SESSION AUTHORIZATION app", "session authorization"),
            ("RESET SESSION AUTHORIZATION", "session authorization"),
        ] {
            assert_eq!(of(text), Way::Setting(name.to_owned()), "{text}");
        }
    }

    #[test]
    fn sequences_and_large_objects_wait_for_nobody() {
        for text in [
            "SELECT pg_catalog.setval('s.q', 1, true)",
            "SELECT pg_catalog.lo_create('16400')",
            "SELECT pg_catalog.lo_open('16400', 131072)",
            "SELECT pg_catalog.lowrite(0, '\\x00')",
            "SELECT pg_catalog.lo_close(0)",
            "BEGIN",
            "COMMIT",
        ] {
            assert_eq!(of(text), Way::Beside, "{text}");
        }
    }

    #[test]
    fn everything_else_waits_for_all_and_all_wait_for_it() {
        let long = format!("CREATE INDEX i ON s.t USING btree (a) WHERE (b <> '{}')", "x".repeat(LONGEST_BYTES));
        for text in [
            // Without a schema, or of another shape.
            "CREATE INDEX i ON t USING btree (a)",
            "CREATE INDEX CONCURRENTLY i ON s.t USING btree (a)",
            "CREATE INDEX IF NOT EXISTS i ON s.t USING btree (a)",
            "CREATE INDEX ON s.t USING btree (a)",
            "CREATE INDEX i ON s.t (a)",
            "create index i ON s.t USING btree (a)",
            // Code of others.
            "CREATE INDEX i ON s.t USING btree (s.f(a))",
            "CREATE INDEX i ON s.t USING btree (((a || (((b))))), ((((s.f(a))))))",
            "CREATE INDEX i ON s.t USING btree (a) WHERE ((s.f(a) > 0))",
            "CREATE INDEX i ON s.t USING btree (((a)::s.d))",
            "CREATE INDEX i ON s.t USING btree (((a OPERATOR(s.+) b)))",
            // An index that may come later.
            "CREATE INDEX i ON s.t USING btree (a) WHERE (a <> ('s.z'::regclass)::oid)",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k EXCLUDE USING gist (s.f(a) WITH &&)",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k EXCLUDE USING gist (a WITH OPERATOR(s.&&))",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k EXCLUDE USING other (a WITH =)",
            // More than one thing, or another one.
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k PRIMARY KEY (a), ADD CONSTRAINT l CHECK (s.f())",
            "ALTER TABLE s.t\n    ADD CONSTRAINT k PRIMARY KEY (a)",
            "ALTER TABLE IF EXISTS ONLY s.t\n    ADD CONSTRAINT k PRIMARY KEY (a)",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k UNIQUE USING INDEX i",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k CHECK ((a > 0))",
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES u(x)",
            "ALTER TABLE ONLY s.t CLUSTER ON i",
            "ALTER TABLE ONLY s.t REPLICA IDENTITY USING INDEX i",
            "ALTER TABLE ONLY s.p ATTACH PARTITION s.t FOR VALUES IN (1)",
            "ALTER INDEX s.i ATTACH PARTITION s.j",
            "ALTER INDEX s.i ALTER COLUMN 1 SET STATISTICS 100",
            "ALTER TABLE s.t ENABLE ROW LEVEL SECURITY",
            "COMMENT ON INDEX s.i IS 'CREATE INDEX i ON s.t USING btree (a)'",
            "CREATE STATISTICS s.x ON a, b FROM s.t",
            "CREATE TRIGGER g AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()",
            "REFRESH MATERIALIZED VIEW s.m",
            "CREATE TABLE s.t (a int)",
            "SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180004'::integer)",
            "SELECT pg_catalog.setvalue('x')",
            "GRANT SELECT ON TABLE s.t TO app",
            "CREATE INDEX i ON s.\u{10ff80} USING btree (a)",
            &long,
        ] {
            assert_eq!(of(text), Way::Alone, "{text}");
        }
    }
}
