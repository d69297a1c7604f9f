//! Which statements a plain dump of pg_dump can hold. All others are refused: a dump that comes from a store is input, and
//! `ALTER ROLE app SUPERUSER`, `COPY t TO PROGRAM 'x'` or `DO` in it is nothing that a backup ever wrote.
//!
//! It is a first fence. What a dump holds by right runs as well: functions, in defaults, indexes and materialized views.
//! Against those helps a role without rights of its own, and a signed manifest (docs/operations.md).

use super::tokens::{Kind, Statement};

/// Objects outside of the database that is dumped, which only pg_dumpall writes.
const OF_THE_CLUSTER: [&str; 6] = ["DATABASE", "ROLE", "USER", "GROUP", "TABLESPACE", "SYSTEM"];

/// Functions of pg_catalog that a dump calls in a SELECT of its own (pg_dump.c of 14 to 18).
const CALLED: [&str; 9] = [
    "set_config",
    "setval",
    "lo_create",
    "lo_open",
    "lowrite",
    "lo_close",
    "pg_restore_relation_stats",
    "pg_restore_attribute_stats",
    "pg_restore_extended_stats",
];

/// `text`: one statement without its semicolon; `COPY … FROM stdin` is none of them.
pub fn writes(text: &str) -> bool {
    let first = text.split([' ', '\n', '\t']).next().unwrap_or_default();
    match first {
        // Taken out of our transaction elsewhere.
        "BEGIN" | "COMMIT" | "SET" | "COMMENT" | "SECURITY" => true,
        "CREATE" | "ALTER" => {
            let mut words = text.split([' ', '\n', '\t']).skip(1).map(str::to_ascii_uppercase);
            let (second, third) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            !OF_THE_CLUSTER.contains(&&*second) || (second == "USER" && third == "MAPPING")
        }
        // Without ON it is membership in a role.
        "GRANT" | "REVOKE" => Statement::of(text).find(&["ON"]).is_some(),
        // After the grants of a role that grants on: it was SET before.
        "RESET" => text == "RESET SESSION AUTHORIZATION",
        "REFRESH" => text.starts_with("REFRESH MATERIALIZED VIEW "),
        "SELECT" => is_a_call(text),
        _ => false,
    }
}

/// `SELECT pg_catalog.setval('s', 1, true)`, with nothing in it that is called beside that function.
fn is_a_call(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("SELECT pg_catalog.").or_else(|| text.strip_prefix("SELECT * FROM pg_catalog.")) else {
        return false;
    };
    let Some((function, arguments)) = rest.split_once('(') else { return false };
    if !CALLED.contains(&function) {
        return false;
    }
    // A piece of a large object is long, and of one string.
    if let Some(bytes) = arguments.strip_prefix("0, '\\x").and_then(|rest| rest.strip_suffix("')")) {
        return bytes.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let statement = Statement::of(arguments);
    let opens = |index: usize| statement.is_symbol(index + 1, b'(');
    // `lo_create(t.loid) FROM (VALUES ('16400'), ('16401')) AS t (loid)`
    let may_open = |index: usize| ["FROM", "VALUES", "AS", "t"].iter().any(|word| statement.says(index, &[word]));
    (0..statement.tokens.len()).all(|index| match statement.tokens[index].kind {
        Kind::Word => !opens(index) || may_open(index),
        Kind::Quoted => false,
        Kind::String => true,
        Kind::Symbol(symbol) => matches!(symbol, b'(' | b')' | b',' | b':' | b'-' | b'.' | b'[' | b']'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_dump_writes_is_known() {
        for text in [
            "SET statement_timeout = 0",
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "SELECT pg_catalog.setval('public.s', 1, true)",
            "SELECT pg_catalog.setval('public.s', -5, false)",
            "SELECT pg_catalog.setval('public.\"it''s\"', 1, true)",
            "SELECT pg_catalog.lo_create('16400')",
            "SELECT pg_catalog.lo_create(t.loid) FROM (VALUES ('16400'), ('16401')) AS t (loid)",
            "SELECT pg_catalog.lo_open('16400', 131072)",
            "SELECT pg_catalog.lowrite(0, '\\x00ff')",
            "SELECT pg_catalog.lo_close(0)",
            "SELECT * FROM pg_catalog.pg_restore_relation_stats(\n\t'version', '180004'::integer,\n\t'relpages', '1'::integer,\n\t'reltuples', '-1'::real\n)",
            "SELECT * FROM pg_catalog.pg_restore_attribute_stats(\n\t'most_common_vals', '{\"a(b)\"}'::text,\n\t'most_common_freqs', '{0.5}'::real[]\n)",
            "CREATE TABLE public.role (a integer)",
            "CREATE USER MAPPING FOR PUBLIC SERVER s",
            "CREATE FUNCTION s.f() RETURNS void LANGUAGE sql AS $$ DROP TABLE t $$",
            "ALTER TABLE public.t OWNER TO app",
            "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO PUBLIC",
            "GRANT ALL ON SCHEMA public TO PUBLIC",
            "COMMENT ON EXTENSION vector IS 'x'",
            "REFRESH MATERIALIZED VIEW public.m",
            "RESET SESSION AUTHORIZATION",
            "BEGIN",
        ] {
            assert!(writes(text), "{text}");
        }
    }

    #[test]
    fn what_it_never_writes_is_not_run() {
        for text in [
            "DO $$BEGIN END$$",
            "COPY public.t FROM PROGRAM 'id'",
            "COPY public.t TO '/tmp/x'",
            "copy public.t from program 'id'",
            "ALTER ROLE app SUPERUSER",
            "ALTER\nUSER app SUPERUSER",
            "CREATE ROLE app SUPERUSER",
            "ALTER SYSTEM SET archive_command = 'id'",
            "ALTER DATABASE app OWNER TO app",
            "CREATE TABLESPACE t LOCATION '/tmp'",
            "GRANT postgres TO app",
            "GRANT \"ON\" TO app",
            "DROP TABLE public.t",
            "SELECT public.f()",
            "SELECT pg_catalog.setval('public.s', public.f())",
            "SELECT pg_catalog.setval('public.s', \"f\"())",
            "SELECT pg_catalog.setval('public.s', (SELECT 1 FROM f ()))",
            "SELECT pg_catalog.set_config('session_replication_role', 'replica' || f(1), false)",
            "SELECT pg_catalog.pg_read_file('/etc/passwd')",
            "SELECT pg_catalog.lowrite(0, '\\x00' || f(x))",
            "CALL p()",
            "LOAD 'x'",
            "DELETE FROM t",
            "TRUNCATE t",
            "VACUUM",
            "RESET ALL",
            "EXECUTE p",
            "WITH x AS (SELECT f()) SELECT 1",
            "",
        ] {
            assert!(!writes(text), "{text}");
        }
    }
}
