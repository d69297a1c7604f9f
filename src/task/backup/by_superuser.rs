//! The statements of a dump that a superuser runs in a server of its own, since the role that restores may not. Pure.
//!
//! The superuser must never run code of the dump. So each statement here, in exactly the form in which pg_dump writes it, executes no function that
//! the dump made: it has no expression, and no literal but the text of a comment, an option or a list of commands, since reading one as a value of
//! the dump's type runs the CHECK of a domain. Event triggers come after all others: from then on, code of the dump could run in the superuser's
//! session.

use super::own_bytes;
use super::tokens::{Kind, Statement};

/// The time when the superuser runs a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At its place in the dump: later statements need it.
    AtOnce,
    /// When all else is restored and counted: until then, all objects belong to the role that restores.
    AtTheEnd,
    /// After all others.
    Last,
}

/// A statement for the superuser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub when: When,
    /// The name under which the report counts it; None for a comment and the like.
    pub counts: Option<&'static str>,
}

/// Objects whose owner is changed by their name alone.
const OWNED: [&[&str]; 19] = [
    &["COLLATION"],
    &["CONVERSION"],
    &["DOMAIN"],
    &["FOREIGN", "TABLE"],
    &["LANGUAGE"],
    &["LARGE", "OBJECT"],
    &["MATERIALIZED", "VIEW"],
    &["PROCEDURAL", "LANGUAGE"],
    &["PUBLICATION"],
    &["SCHEMA"],
    &["SEQUENCE"],
    &["SERVER"],
    &["STATISTICS"],
    &["TABLE"],
    &["TEXT", "SEARCH", "CONFIGURATION"],
    &["TEXT", "SEARCH", "DICTIONARY"],
    &["TYPE"],
    &["VIEW"],
    &["INDEX"],
];

/// Returns the superuser's turn for a statement that pg_dump writes (`pg_dumps::writes`); None if the role that restores runs it.
pub fn turn(statement: &Statement) -> Option<Turn> {
    // The server would build these from their bytes by EXECUTE, which runs several statements.
    if own_bytes::has_some(statement.text) {
        return None;
    }
    let says = |words: &[&str]| statement.spells(0, words);
    let turn = |when, counts| Some(Turn { when, counts });
    match () {
        () if says(&["CREATE", "OPERATOR", "CLASS"]) && is_of_indexes(statement) => turn(When::AtOnce, Some("operator classes")),
        () if (says(&["CREATE", "OPERATOR", "FAMILY"]) || adds_to_family(statement)) && is_of_indexes(statement) => {
            turn(When::AtOnce, Some("operator families"))
        }
        () if makes_wrapper(statement) => turn(When::AtOnce, Some("foreign-data wrappers")),
        () if ["CLASS", "FAMILY"].iter().any(|kind| says(&["COMMENT", "ON", "OPERATOR", kind])) => turn(When::AtOnce, None),
        () if says(&["COMMENT", "ON", "FOREIGN", "DATA", "WRAPPER"]) => turn(When::AtOnce, None),
        () if publishes_all_tables(statement) => turn(When::AtTheEnd, Some("publications")),
        () if changes_owner(statement) => turn(When::AtTheEnd, Some("owners")),
        () if adds_to_publication(statement) || says(&["COMMENT", "ON", "PUBLICATION"]) => turn(When::AtTheEnd, None),
        () if (says(&["GRANT"]) || says(&["REVOKE"])) && has_names_only(statement) => turn(When::AtTheEnd, Some("grants")),
        () if says(&["ALTER", "DEFAULT", "PRIVILEGES"]) && has_names_only(statement) => {
            turn(When::AtTheEnd, Some("default privileges"))
        }
        () if says(&["SET", "SESSION", "AUTHORIZATION"]) || says(&["RESET", "SESSION", "AUTHORIZATION"]) => {
            turn(When::AtTheEnd, None)
        }
        () if says(&["CREATE", "EVENT", "TRIGGER"]) => turn(When::Last, Some("event triggers")),
        // Their owner must be a superuser, and no role of the dump is one here.
        () if says(&["ALTER", "EVENT", "TRIGGER"]) && !statement.says(4, &["OWNER", "TO"]) => turn(When::Last, None),
        () if says(&["COMMENT", "ON", "EVENT", "TRIGGER"]) => turn(When::Last, None),
        () => None,
    }
}

/// Returns whether the statement has no literal. It must be visible as a whole: text inside three parentheses has no tokens.
fn has_names_only(statement: &Statement) -> bool {
    statement.tokens.iter().all(|token| token.kind != Kind::String && !(token.kind == Kind::Symbol(b'(') && token.depth > 1))
}

/// Returns whether an operator class or family is of an access method that calls functions with values: `support_functions.sql` says which
/// functions it may have. Other methods hand over addresses.
fn is_of_indexes(statement: &Statement) -> bool {
    let using = statement.find(&["USING"]);
    let method = using.and_then(|at| statement.name(at + 1));
    has_names_only(statement) && method.is_some_and(|method| matches!(method.as_str(), "btree" | "hash"))
}

/// `CREATE PUBLICATION p FOR ALL TABLES WITH (…)`: the role that restores makes the others.
fn publishes_all_tables(statement: &Statement) -> bool {
    statement.spells(0, &["CREATE", "PUBLICATION"])
        && statement.spells(3, &["FOR", "ALL", "TABLES"])
        && (statement.tokens.len() == 6 || statement.says(6, &["WITH"]) && is_group(statement, 7, statement.tokens.len()))
}

/// `ALTER PUBLICATION p ADD TABLES IN SCHEMA s`, or `… ADD TABLE ONLY s.t (a, b)`. A filter is an expression: the role that restores, who owns
/// the table and the publication until the end, adds a table with one.
fn adds_to_publication(statement: &Statement) -> bool {
    let length = statement.tokens.len();
    let is_of_a_schema = statement.spells(3, &["ADD", "TABLES", "IN", "SCHEMA"]) && length == 8;
    let after_table = statement.spells(3, &["ADD", "TABLE", "ONLY"]).then(|| statement.qualified(6)).flatten();
    let is_of_a_table = after_table.is_some_and(|(_, _, end)| end == length || is_group(statement, end, length));
    statement.spells(0, &["ALTER", "PUBLICATION"]) && has_names_only(statement) && (is_of_a_schema || is_of_a_table)
}

/// `ALTER OPERATOR FAMILY f USING btree ADD …`
fn adds_to_family(statement: &Statement) -> bool {
    let after_name = statement.qualified(3).map(|(_, _, at)| at);
    statement.spells(0, &["ALTER", "OPERATOR", "FAMILY"])
        && after_name.is_some_and(|at| statement.says(at, &["USING"]) && statement.says(at + 2, &["ADD"]))
}

/// `CREATE FOREIGN DATA WRAPPER w OPTIONS (…)`. A validator would be called at once, and a handler might let a foreign table read files.
fn makes_wrapper(statement: &Statement) -> bool {
    statement.spells(0, &["CREATE", "FOREIGN", "DATA", "WRAPPER"])
        && statement.name(4).is_some()
        && (statement.tokens.len() == 5 || statement.says(5, &["OPTIONS"]) && is_group(statement, 6, statement.tokens.len()))
}

/// The name of the foreign-data wrapper that a statement of the superuser's creates.
pub fn wrapper(text: &str) -> Option<String> {
    let statement = Statement::of(text);
    makes_wrapper(&statement).then(|| statement.name(4)).flatten()
}

/// Returns whether it is `ALTER … OWNER TO role` and nothing else: ALTER TABLE takes several commands, and some of them run functions.
fn changes_owner(statement: &Statement) -> bool {
    let Some(owner_at) = statement.tokens.len().checked_sub(3) else { return false };
    let is_of_names = has_names_only(statement) && statement.name(owner_at + 2).is_some();
    if !statement.spells(0, &["ALTER"]) || !statement.spells(owner_at, &["OWNER", "TO"]) || !is_of_names {
        return false;
    }
    let after = |kind: &[&str]| statement.spells(1, kind).then_some(1 + kind.len());
    let name_ends = |at: usize| statement.qualified(at).map(|(_, _, end)| end);
    let is_by_name = OWNED.iter().any(|kind| after(kind).and_then(name_ends) == Some(owner_at));
    let routine = [&["FUNCTION"][..], &["PROCEDURE"], &["AGGREGATE"]].iter().find_map(|kind| after(kind));
    let of_operators = [&["OPERATOR", "CLASS"][..], &["OPERATOR", "FAMILY"]].iter().find_map(|kind| after(kind));
    is_by_name
        || routine.and_then(name_ends).is_some_and(|end| is_group(statement, end, owner_at))
        || of_operators.and_then(name_ends).is_some_and(|end| statement.says(end, &["USING"]) && end + 2 == owner_at)
        || after(&["OPERATOR"]).is_some_and(|at| is_operator(statement, at, owner_at))
}

/// Returns whether the tokens from `from` up to `to` are one pair of parentheses with its contents.
fn is_group(statement: &Statement, from: usize, to: usize) -> bool {
    to > from + 1
        && statement.is_symbol(from, b'(')
        && statement.is_symbol(to - 1, b')')
        && statement.tokens[from + 1..to - 1].iter().all(|token| token.depth > 0)
}

/// `schema.@@ (integer, integer)`
fn is_operator(statement: &Statement, from: usize, to: usize) -> bool {
    let Some(opens) = (from..to).find(|at| statement.is_symbol(*at, b'(')) else { return false };
    statement.name(from).is_some()
        && statement.is_symbol(from + 1, b'.')
        && opens > from + 2
        && statement.tokens[from + 2..opens].iter().all(|token| matches!(token.kind, Kind::Symbol(_)))
        && is_group(statement, opens, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn when(text: &str) -> Option<When> {
        let statement = Statement::of(text);
        assert!(super::super::pg_dumps::writes(&statement), "{text}");
        turn(&statement).map(|turn| turn.when)
    }

    #[test]
    fn owners_and_grants_wait_for_the_end_and_event_triggers_come_last() {
        for text in [
            "ALTER TABLE public.t OWNER TO app",
            "ALTER TABLE public.\"OWNER TO\" OWNER TO \"We ird\"",
            "ALTER FUNCTION s.f(a text, VARIADIC \"b)\" numeric(10,2)[]) OWNER TO app",
            "ALTER FUNCTION s.f() OWNER TO app",
            "ALTER OPERATOR s.@@ (integer, NONE) OWNER TO app",
            "ALTER OPERATOR CLASS s.o USING btree OWNER TO app",
            "ALTER OPERATOR FAMILY s.o USING btree OWNER TO app",
            "ALTER LARGE OBJECT 16400 OWNER TO app",
            "ALTER TEXT SEARCH CONFIGURATION s.c OWNER TO app",
            "GRANT SELECT ON TABLE s.t TO app",
            "REVOKE ALL ON FUNCTION s.f() FROM PUBLIC",
            "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO PUBLIC",
            "SET SESSION AUTHORIZATION app",
            "CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert')",
            "ALTER PUBLICATION p ADD TABLES IN SCHEMA s",
            "ALTER PUBLICATION p ADD TABLE ONLY s.t",
            "ALTER PUBLICATION p ADD TABLE ONLY s.t (a, \"WHERE\")",
        ] {
            assert_eq!(when(text), Some(When::AtTheEnd), "{text}");
        }
        for text in [
            "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
            "ALTER EVENT TRIGGER owner ENABLE ALWAYS",
            "COMMENT ON EVENT TRIGGER e IS 'OWNER TO x'",
        ] {
            assert_eq!(when(text), Some(When::Last), "{text}");
        }
    }

    #[test]
    fn what_later_statements_need_is_made_at_once() {
        for text in [
            "CREATE OPERATOR FAMILY s.f USING btree",
            "ALTER OPERATOR FAMILY s.f USING btree ADD\n    OPERATOR 1 s.<(a,b)",
            "CREATE OPERATOR CLASS s.c\n    FOR TYPE s.t USING btree AS\n    FUNCTION 1 (s.t, s.t) s.cmp(s.t,s.t)",
            "COMMENT ON OPERATOR CLASS s.c USING btree IS 'x'",
            "CREATE FOREIGN DATA WRAPPER w",
            "CREATE FOREIGN DATA WRAPPER w OPTIONS (\n    a 'b'\n)",
        ] {
            assert_eq!(when(text), Some(When::AtOnce), "{text}");
        }
    }

    #[test]
    fn a_statement_that_may_run_code_of_the_dump_is_not_the_superusers() {
        for text in [
            "ALTER TABLE s.t ALTER COLUMN a TYPE int USING s.evil(), OWNER TO app",
            "ALTER TABLE s.t ADD CHECK (s.evil()), OWNER TO app",
            "ALTER TABLE s.t ADD COLUMN a int DEFAULT s.evil(), OWNER TO app",
            "ALTER DOMAIN s.d SET DEFAULT s.evil() OWNER TO app",
            "ALTER FUNCTION s.f(a int) SET x TO (1) OWNER TO app",
            "ALTER FUNCTION s.f(a int) RENAME TO g(b) OWNER TO app",
            "ALTER TABLE s.t OWNER TO app CASCADE",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c CHECK (s.evil())",
            "ALTER EVENT TRIGGER e OWNER TO app",
            "ALTER FOREIGN DATA WRAPPER w OWNER TO app",
            "ALTER SUBSCRIPTION s OWNER TO app",
            "ALTER FUNCTION s.f(a s.t('literal')) OWNER TO app",
            "ALTER FUNCTION s.f(a s.t(((1)))) OWNER TO app",
            "GRANT ALL ON FUNCTION s.f(s.t('literal')) TO app",
            "CREATE OPERATOR CLASS s.c\n    FOR TYPE s.t USING gist AS\n    FUNCTION 1 (s.t, s.t) s.cmp(s.t,s.t)",
            "CREATE OPERATOR FAMILY s.f USING gin",
            // The filter's literal would be read as a value of the dump's type: the CHECK of a domain is code.
            "ALTER PUBLICATION p ADD TABLE ONLY s.t WHERE ((a = '{1}'::s.d[]))",
            "ALTER PUBLICATION p ADD TABLE ONLY s.t (a) WHERE ((a > 1))",
            "ALTER PUBLICATION p ADD TABLE ONLY s.t WHERE (s.evil())",
            "ALTER PUBLICATION p ADD TABLE ONLY s.t, TABLE ONLY s.u WHERE (s.evil())",
            "ALTER PUBLICATION p SET (publish = 'insert')",
            "CREATE PUBLICATION p WITH (publish = 'insert')",
            "CREATE PUBLICATION p FOR TABLE s.t WHERE (s.evil())",
            "CREATE FOREIGN DATA WRAPPER w VALIDATOR s.evil",
            "CREATE FOREIGN DATA WRAPPER w VALIDATOR s.evil OPTIONS (a 'b')",
            "CREATE FOREIGN DATA WRAPPER w HANDLER file_fdw_handler",
            "CREATE FOREIGN DATA WRAPPER w OPTIONS (a 'b') VALIDATOR s.evil",
            "CREATE INDEX i ON s.t USING btree (s.evil(a))",
            "REFRESH MATERIALIZED VIEW s.m",
            "CREATE OPERATOR s.@@ (FUNCTION = s.f, LEFTARG = integer)",
            "CREATE CAST (s.a AS s.b) WITHOUT FUNCTION",
            "CREATE TRIGGER t AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION f()",
        ] {
            assert_eq!(when(text), None, "{text}");
        }
        let of_bytes = own_bytes::text(b"ALTER TABLE s.\"\xff\" OWNER TO app".to_vec());
        assert_eq!(when(&of_bytes), None);
    }
}
