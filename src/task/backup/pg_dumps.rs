//! Recognizes the statements that a plain dump of pg_dump can hold. All others are refused: a dump from a store is untrusted input, and no
//! backup ever wrote `ALTER ROLE app SUPERUSER`, `COPY t FROM PROGRAM 'x'` or `DO`.
//!
//! It is a first barrier, with lists of statements that pg_dump writes (pg_dump.c of 14 to 18, without --create and --clean). Code that a
//! dump may hold still runs: functions in defaults, indexes and materialized views. Against that, a role without special rights and a
//! signed manifest help (docs/explanation/trust.md).

use super::own_bytes;
use super::tokens::{Kind, Statement};

/// Settings at the head of a dump, and before tables.
const SETTINGS: [&str; 16] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "client_encoding",
    "standard_conforming_strings",
    "escape_string_warning",
    "check_function_bodies",
    "xmloption",
    "client_min_messages",
    "row_security",
    "default_tablespace",
    "default_table_access_method",
    "default_with_oids",
    "default_toast_compression",
    "quote_all_identifiers",
];

/// The limit for a statement that is not UTF-8: it is held several times over. No name or default is as long; values are in COPY.
const OWN_BYTES_MOST: usize = 16 << 20;

/// Words that may stand between CREATE and the kind of an object.
const BEFORE_KINDS: [&str; 11] = [
    "OR",
    "REPLACE",
    "UNLOGGED",
    "UNIQUE",
    "TRUSTED",
    "PROCEDURAL",
    "DEFAULT",
    "CONSTRAINT",
    "MATERIALIZED",
    "FOREIGN",
    "RECURSIVE",
];

/// Kinds of objects inside a database, by their first word, after BEFORE_KINDS.
const KINDS: [&str; 33] = [
    "ACCESS",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "COLUMN",
    "CONVERSION",
    "DATA",
    "DOMAIN",
    "EVENT",
    "EXTENSION",
    "FUNCTION",
    "INDEX",
    "LANGUAGE",
    "LARGE",
    "OPERATOR",
    "POLICY",
    "PRIVILEGES",
    "PROCEDURE",
    "PUBLICATION",
    "ROUTINE",
    "RULE",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT",
    "TRANSFORM",
    "TRIGGER",
    "TYPE",
    "VIEW",
    // COMMENT ON CONSTRAINT name ON table.
    "CONSTRAINT",
];

/// Functions of pg_catalog that a dump calls with its own SELECT.
const CALLED: [&str; 8] = [
    "setval",
    "lo_create",
    "lo_open",
    "lowrite",
    "lo_close",
    "pg_restore_relation_stats",
    "pg_restore_attribute_stats",
    "pg_restore_extended_stats",
];

/// Returns whether pg_dump writes this statement (without its semicolon, and with pg_dump's spelling: a restore decides by its first
/// words). `COPY … FROM stdin` is not covered here.
pub fn writes(statement: &Statement) -> bool {
    let says = |words: &[&str]| statement.spells(0, words);
    match () {
        // It has more tokens than any statement of pg_dump.
        () if statement.is_cut || may_be_several(statement) => false,
        () if says(&["SET", "SESSION", "AUTHORIZATION"]) => statement.tokens.len() == 4,
        () if says(&["SET"]) => sets(statement),
        () if says(&["RESET", "SESSION", "AUTHORIZATION"]) => statement.tokens.len() == 3,
        () if says(&["BEGIN"]) || says(&["COMMIT"]) => statement.tokens.len() == 1,
        () if says(&["CREATE"]) => creates(statement),
        () if says(&["ALTER", "SUBSCRIPTION"]) => statement.spells(3, &["OWNER", "TO"]),
        () if says(&["ALTER", "USER", "MAPPING"]) => false,
        () if says(&["ALTER"]) => kind_at(statement, 1).is_some() && !gives_to_the_session(statement),
        () if says(&["COMMENT", "ON"]) => kind_at(statement, 2).is_some(),
        () if says(&["SECURITY", "LABEL", "FOR"]) => statement.spells(4, &["ON"]) && kind_at(statement, 5).is_some(),
        // Without ON it is membership in a role.
        () if says(&["GRANT"]) || says(&["REVOKE"]) => {
            statement.find(&["ON"]).is_some_and(|on| kind_at(statement, on + 1).is_some())
        }
        () if says(&["REFRESH", "MATERIALIZED", "VIEW"]) => true,
        () if says(&["SELECT"]) => calls(statement),
        () => false,
    }
}

/// Returns whether it makes the restoring role the owner, as `OWNER TO CURRENT_USER` does; pg_dump quotes a role of that name.
fn gives_to_the_session(statement: &Statement) -> bool {
    let role = statement.find_last(&["OWNER", "TO"]).map(|at| at + 2);
    role.is_some_and(|at| ["CURRENT_USER", "CURRENT_ROLE", "SESSION_USER"].iter().any(|word| statement.says(at, &[word])))
}

/// Returns whether there is a semicolon outside quotes and parentheses. Only function bodies have one, and there a word that looks like
/// `case` or `end` to us may be a name to the server: it takes one statement at a time from us, except where it builds the statement from
/// its bytes.
fn may_be_several(statement: &Statement) -> bool {
    let has_semicolon = statement.tokens.iter().any(|token| token.kind == Kind::Symbol(b';') && token.depth == 0);
    let kind = if statement.says(1, &["OR", "REPLACE"]) { 3 } else { 1 };
    let is_routine =
        statement.says(0, &["CREATE"]) && (statement.says(kind, &["FUNCTION"]) || statement.says(kind, &["PROCEDURE"]));
    let is_made_of_bytes = own_bytes::has_some(statement.text);
    has_semicolon && (!is_routine || is_made_of_bytes) || is_made_of_bytes && statement.text.len() > OWN_BYTES_MOST
}

fn sets(statement: &Statement) -> bool {
    let Some(name) = statement.name(1).filter(|_| statement.is_symbol(2, b'=')) else { return false };
    let value = statement.tokens.get(3).map(|token| statement.raw(token)).unwrap_or_default();
    match name.as_str() {
        // Only in the form that the lexer knows: from there on the lexer reads strings accordingly.
        "standard_conforming_strings" => {
            let text = statement.text;
            matches!(text, "SET standard_conforming_strings = on" | "SET standard_conforming_strings = off")
        }
        "client_encoding" => statement.tokens.len() == 4 && is_of_servers(value.trim_matches('\'')),
        name => SETTINGS.contains(&name),
    }
}

/// Returns whether a database can have this encoding, where an ASCII byte always stands for itself. In client-only encodings such as SJIS
/// it may be the second half of a letter: something that looks like a quote or a backslash. pg_dump writes those only when told to.
fn is_of_servers(encoding: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match encoding {
        "SQL_ASCII" | "UTF8" | "UNICODE" | "MULE_INTERNAL" | "KOI8R" | "KOI8U" | "WIN866" | "WIN874" => true,
        "EUC_JP" | "EUC_CN" | "EUC_KR" | "EUC_TW" | "EUC_JIS_2004" => true,
        _ => ["LATIN", "WIN125", "ISO_8859_"].iter().any(|start| encoding.strip_prefix(start).is_some_and(is_number)),
    }
}

/// Returns whether it is `COPY schema.table (columns) FROM stdin` into a user's table: a row of pg_auth_members could make a superuser.
pub fn copies(text: &str) -> bool {
    let statement = Statement::of(text);
    let Some((Some(schema), _, mut at)) = statement.qualified(1) else { return false };
    if statement.is_cut || !statement.says(0, &["COPY"]) || is_of_the_system(&schema) {
        return false;
    }
    if statement.is_symbol(at, b'(') {
        at += 1;
        while statement.name(at).is_some() && statement.is_symbol(at + 1, b',') {
            at += 2;
        }
        // A table without columns has no list, or an empty one.
        at += usize::from(statement.name(at).is_some());
        if !statement.is_symbol(at, b')') {
            return false;
        }
        at += 1;
    }
    statement.says(at, &["FROM", "stdin"]) && statement.tokens.len() == at + 2
}

fn is_of_the_system(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

/// The position of the first word of a known kind, from `index` on.
fn kind_at(statement: &Statement, index: usize) -> Option<usize> {
    let is_one_of = |at: usize, words: &[&str]| words.iter().any(|word| statement.spells(at, &[word]));
    let mut at = index;
    while is_one_of(at, &BEFORE_KINDS) && !is_one_of(at, &["CONSTRAINT"]) {
        at += 1;
    }
    // `CREATE CONSTRAINT TRIGGER`, `COMMENT ON CONSTRAINT`.
    if statement.spells(at, &["CONSTRAINT", "TRIGGER"]) {
        at += 1;
    }
    // The next word also decides: EVENT TRIGGER, USER MAPPING.
    let is_spaced = |at: usize| match statement.tokens.get(at) {
        Some(token) => matches!(&statement.text[statement.tokens[at - 1].at.end..token.at.start], "" | " "),
        None => true,
    };
    (is_one_of(at, &KINDS) && is_spaced(at + 1) && is_spaced(at + 2)).then_some(at)
}

fn creates(statement: &Statement) -> bool {
    if statement.says(1, &["USER", "MAPPING", "FOR"]) {
        return true;
    }
    let Some(kind) = kind_at(statement, 1) else { return false };
    let ends = |words: &[&str]| statement.tokens.len().checked_sub(words.len()).is_some_and(|at| statement.says(at, words));
    match () {
        // Elements of a schema would be separate statements.
        () if statement.says(kind, &["SCHEMA"]) => statement.tokens.len() == kind + 2,
        () if statement.says(kind, &["SUBSCRIPTION"]) => does_not_connect(statement),
        // A query would run at once, with our rights.
        () if statement.says(kind - 1, &["MATERIALIZED", "VIEW"]) => ends(&["WITH", "NO", "DATA"]),
        () if statement.says(kind, &["TABLE"]) => statement.find(&["AS"]).is_none(),
        () => true,
    }
}

/// Returns whether a subscription does not connect: pg_dump always writes `connect = false`, and the dump is restored without the publisher.
fn does_not_connect(statement: &Statement) -> bool {
    let mut connects = (0..statement.tokens.len())
        .filter(|at| statement.tokens[*at].depth == 1 && statement.says(*at, &["connect"]) && statement.is_symbol(at + 1, b'='));
    let (Some(at), None) = (connects.next(), connects.next()) else { return false };
    statement.says(at + 2, &["false"])
}

/// Returns whether it is a call like `SELECT pg_catalog.setval('s', 1, true)`: no other function is called, and nothing is read.
fn calls(statement: &Statement) -> bool {
    // `SELECT * FROM pg_catalog.pg_restore_relation_stats(…)`
    let at = if statement.is_symbol(1, b'*') && statement.says(2, &["FROM"]) { 3 } else { 1 };
    if !statement.says(at, &["pg_catalog"]) || !statement.is_symbol(at + 1, b'.') || !statement.is_symbol(at + 3, b'(') {
        return false;
    }
    if statement.says(at + 2, &["set_config"]) {
        let name = statement.tokens.get(at + 4);
        return name.is_some_and(|name| statement.raw(name) == "'search_path'") && has_plain_arguments(statement, at + 4);
    }
    if statement.says(at + 2, &["lo_create"]) && statement.says(at + 4, &["t"]) {
        return creates_several(statement, at + 4);
    }
    CALLED.iter().any(|function| statement.says(at + 2, &[function])) && has_plain_arguments(statement, at + 4)
}

/// Returns whether there are only literals, casts of them and type names, up to a parenthesis that ends the statement.
fn has_plain_arguments(statement: &Statement, from: usize) -> bool {
    let Some(last) = statement.tokens.len().checked_sub(1).filter(|last| *last >= from) else { return false };
    let is_plain = |at: usize| match statement.tokens[at].kind {
        Kind::String => true,
        Kind::Word => !["SELECT", "FROM", "TABLE", "VALUES"].iter().any(|word| statement.says(at, &[word])),
        Kind::Quoted => false,
        Kind::Symbol(symbol) => matches!(symbol, b',' | b':' | b'-' | b'.' | b'[' | b']'),
    };
    statement.is_symbol(last, b')') && (from..last).all(is_plain)
}

/// `t.loid) FROM (VALUES ('16400'), ('16401')) AS t (loid)`: since 17, many large objects are made at once.
fn creates_several(statement: &Statement, from: usize) -> bool {
    let words: Vec<&str> = statement.tokens[from..]
        .iter()
        .map(|token| if token.kind == Kind::String { "'" } else { statement.raw(token) })
        .collect();
    let head = ["t", ".", "loid", ")", "FROM", "(", "VALUES"];
    let tail = [")", "AS", "t", "(", "loid", ")"];
    let Some(values) = words.strip_prefix(&head).and_then(|rest| rest.strip_suffix(&tail)) else { return false };
    values.chunks(4).all(|value| value.starts_with(&["(", "'", ")"]) && matches!(value.get(3), None | Some(&",")))
        && values.last() == Some(&")")
}

#[cfg(test)]
#[path = "pg_dumps_tests.rs"]
mod tests;
