use super::*;

fn writes(text: &str) -> bool {
    super::writes(&Statement::of(text))
}

const WRITTEN: &[&str] = &[
    "SET statement_timeout = 0",
    "SET default_tablespace = ''",
    "SET client_encoding = 'UTF8'",
    "SET client_encoding = 'SQL_ASCII'",
    "SET client_encoding = 'WIN1252'",
    "SET client_encoding = 'ISO_8859_5'",
    "SET client_encoding = 'LATIN10'",
    "SET standard_conforming_strings = off",
    "SET SESSION AUTHORIZATION \"We ird\"",
    "RESET SESSION AUTHORIZATION",
    "SELECT pg_catalog.set_config('search_path', '', false)",
    "SELECT pg_catalog.setval('public.s', 1, true)",
    "SELECT pg_catalog.setval('public.s', -5, false)",
    "SELECT pg_catalog.setval('public.\"it''s\"', 1, true)",
    "SELECT pg_catalog.lo_create('16400')",
    "SELECT pg_catalog.lo_create(t.loid) FROM (VALUES ('16400')) AS t (loid)",
    "SELECT pg_catalog.lo_create(t.loid) FROM (VALUES\n('16400'),\n('16401')) AS t (loid)",
    "SELECT pg_catalog.lo_open('16400', 131072)",
    "SELECT pg_catalog.lowrite(0, '\\x00ff')",
    "SELECT pg_catalog.lo_close(0)",
    "SELECT * FROM pg_catalog.pg_restore_relation_stats(\n\t'version', '180004'::integer,\n\t'relpages', '1'::integer,\n\t'reltuples', '-1'::real\n)",
    "SELECT * FROM pg_catalog.pg_restore_attribute_stats(\n\t'most_common_vals', '{\"a(b)\"}'::text,\n\t'most_common_freqs', '{0.5}'::real[]\n)",
    "CREATE SCHEMA s",
    "CREATE TABLE public.role (a integer, \"AS\" text)",
    "CREATE UNLOGGED TABLE s.t (a integer)",
    "CREATE FOREIGN TABLE s.t (a integer) SERVER x",
    "CREATE UNIQUE INDEX i ON s.t USING btree (a)",
    "CREATE OR REPLACE VIEW s.v AS SELECT 1",
    "CREATE MATERIALIZED VIEW s.m AS\n SELECT 1 AS x\n  WITH NO DATA",
    "CREATE OR REPLACE PROCEDURAL LANGUAGE plperl",
    "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
    "CREATE DEFAULT CONVERSION s.c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE SERVER s FOREIGN DATA WRAPPER w",
    "CREATE USER MAPPING FOR PUBLIC SERVER s",
    "CREATE TEXT SEARCH DICTIONARY s.d (TEMPLATE = pg_catalog.simple)",
    "CREATE ACCESS METHOD m TYPE INDEX HANDLER bthandler",
    "CREATE OPERATOR CLASS s.o FOR TYPE int USING btree AS STORAGE int",
    "CREATE CAST (s.a AS s.b) WITH FUNCTION f(s.a)",
    "CREATE TRANSFORM FOR s.a LANGUAGE plperl (FROM SQL WITH FUNCTION f(internal))",
    "CREATE RULE r AS ON INSERT TO s.t DO INSTEAD NOTHING",
    "CREATE POLICY p ON s.t",
    "CREATE STATISTICS s.x ON a, b FROM s.t",
    "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false, slot_name = 's')",
    "CREATE FUNCTION s.f() RETURNS void LANGUAGE sql AS $$ DROP TABLE t $$",
    "CREATE FUNCTION s.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END",
    "CREATE RULE r AS ON INSERT TO s.t DO ALSO (SELECT 1; SELECT 2)",
    "ALTER TABLE public.t OWNER TO app",
    "ALTER TABLE ONLY public.t ADD CONSTRAINT c CHECK (a > 0)",
    "ALTER MATERIALIZED VIEW s.m OWNER TO app",
    "ALTER FOREIGN DATA WRAPPER w OWNER TO app",
    "ALTER PROCEDURAL LANGUAGE plperl OWNER TO app",
    "ALTER LARGE OBJECT 16400 OWNER TO app",
    "ALTER SUBSCRIPTION s OWNER TO app",
    "ALTER EVENT TRIGGER e ENABLE ALWAYS",
    "ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO PUBLIC",
    "GRANT ALL ON SCHEMA public TO PUBLIC",
    "GRANT SELECT(a),UPDATE(\"ON\") ON TABLE s.t TO app",
    "GRANT ALL ON FOREIGN SERVER s TO app",
    "REVOKE ALL ON FUNCTION s.f() FROM PUBLIC",
    "COMMENT ON EXTENSION vector IS 'x'",
    "COMMENT ON CONSTRAINT c ON DOMAIN s.d IS 'x'",
    "COMMENT ON MATERIALIZED VIEW s.m IS 'x'",
    "SECURITY LABEL FOR provider ON TABLE s.t IS 'x'",
    "SECURITY LABEL FOR \"pro vider\" ON COLUMN s.t.a IS 'x'",
    "REFRESH MATERIALIZED VIEW public.m",
    "BEGIN",
];

const NEVER_WRITTEN: &[&str] = &[
    "DO $$BEGIN END$$",
    "COPY public.t FROM PROGRAM 'id'",
    "ALTER ROLE app SUPERUSER",
    "ALTER  ROLE app SUPERUSER",
    "ALTER \rROLE app SUPERUSER",
    "ALTER\n\n\tUSER app SUPERUSER",
    "alter role app superuser",
    "CREATE  ROLE app SUPERUSER",
    "CREATE OR REPLACE ROLE app",
    "ALTER FUNCTION s.f() OWNER TO CURRENT_USER",
    "ALTER TABLE s.t OWNER TO session_user",
    "ALTER SYSTEM SET archive_command = 'id'",
    "ALTER DATABASE app OWNER TO app",
    "ALTER USER MAPPING FOR app SERVER s",
    "CREATE DATABASE d",
    "CREATE TABLESPACE t LOCATION '/tmp'",
    "CREATE TEMPORARY TABLE t (a int)",
    "CREATE TABLE s.t AS SELECT pg_read_file('/etc/passwd')",
    "CREATE TABLE s.t (a) AS SELECT 1",
    "CREATE MATERIALIZED VIEW s.m AS SELECT f()",
    "CREATE SCHEMA x CREATE TABLE y (a int)",
    "CREATE SCHEMA x AUTHORIZATION y",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = true)",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false, connect = true)",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
    "ALTER SUBSCRIPTION s ENABLE",
    "ALTER SUBSCRIPTION s SET (slot_name = 'orig')",
    "GRANT postgres TO app",
    "GRANT \"ON\" TO app",
    "GRANT SET ON PARAMETER archive_command TO app",
    "GRANT CREATE ON DATABASE postgres TO app",
    "REVOKE CONNECT ON DATABASE app FROM PUBLIC",
    "GRANT CREATE ON TABLESPACE pg_default TO app",
    "COMMENT ON ROLE app IS 'x'",
    "COMMENT ON DATABASE app IS 'x'",
    "SECURITY LABEL ON ROLE app IS 'x'",
    "SECURITY LABEL FOR p ON DATABASE app IS 'x'",
    "SET session_replication_role = replica",
    "SET event_triggers = on",
    "SET local_preload_libraries = 'x'",
    "SET LOCAL row_security = off",
    // Found with fuzz/: the lexer would read strings otherwise than the server.
    "create event trigger e ON ddl_command_end EXECUTE FUNCTION f()",
    "CREATE EVENT  TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
    "CREATE EVENT TRIGGER\te ON ddl_command_end EXECUTE FUNCTION f()",
    "CREATE event TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
    "alter table public.t OWNER TO app",
    "CREATE SUBSCRIPTION\ts CONNECTION 'host=x' PUBLICATION p WITH (connect = false)",
    "SELECT pg_catalog.lo_create('1') $a$ open",
    "SET standard_conforming_strings=off",
    "SET  standard_conforming_strings = off",
    "SET standard_conforming_strings = 'off'",
    "SET standard_conforming_strings = false",
    "set standard_conforming_strings = off",
    "SET client_encoding = 'SJIS'",
    "SET client_encoding = 'WIN949'",
    "SET client_encoding = sjis",
    "SET client_encoding = 'UTF8', 'SJIS'",
    "SET loc\u{212a}_timeout = 0",
    // Several for the server, where it makes them of their bytes.
    "COMMENT ON TABLE s.t IS 'x'; ALTER ROLE app SUPERUSER",
    "CREATE FUNCTION s.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 case; END; ALTER ROLE app SUPERUSER; SELECT '\u{10ff00}' end",
    "SET ROLE app",
    "RESET ALL",
    "DROP TABLE public.t",
    "SELECT public.f()",
    "SELECT pg_catalog.setval('public.s', public.f())",
    "SELECT pg_catalog.setval('public.s', public.t())",
    "SELECT pg_catalog.setval('public.s', \"f\"())",
    "SELECT pg_catalog.setval('public.s', 1) FROM public.evil",
    "SELECT pg_catalog.setval('public.s', (SELECT 1 FROM f ()))",
    "SELECT pg_catalog.lo_create(t.loid) FROM (VALUES ('1'), (f())) AS t (loid)",
    "SELECT pg_catalog.lo_create(t.loid) FROM public.evil AS t (loid)",
    "SELECT pg_catalog.set_config('session_replication_role', 'replica', false)",
    "SELECT pg_catalog.set_config('search_path', f(1), false)",
    "SELECT pg_catalog.pg_read_file('/etc/passwd')",
    "SELECT pg_catalog.lowrite(0, '\\x00' || f(x))",
    "CALL p()",
    "LOAD 'x'",
    "DELETE FROM t",
    "VACUUM",
    "EXECUTE p",
    "WITH x AS (SELECT f()) SELECT 1",
    "",
];

#[test]
fn what_pg_dump_writes_is_known() {
    for text in WRITTEN {
        assert!(writes(text), "{text}");
    }
}

#[test]
fn what_it_never_writes_is_not_run() {
    for text in NEVER_WRITTEN {
        assert!(!writes(text), "{text}");
    }
    assert!(!writes(&format!("COMMENT ON TABLE s.t IS {}", "()".repeat(3 << 20))), "more tokens than a statement has");
}

#[test]
fn rows_go_into_tables_of_users_and_come_from_the_dump() {
    for text in [
        "COPY public.t (a, \"b c\") FROM stdin",
        "COPY \"S\".\"t\"\"x\" (a) FROM stdin",
        "COPY public.t FROM stdin",
        "COPY public.t () FROM stdin",
    ] {
        assert!(copies(text), "{text}");
    }
    for text in [
        "COPY public.c FROM PROGRAM 'id' WHERE stdin IS DISTINCT FROM stdin",
        "COPY pg_catalog.pg_auth_members (oid) FROM stdin",
        "COPY information_schema.sql_features (a) FROM stdin",
        "COPY pg_toast.x (a) FROM stdin",
        "COPY t (a) FROM stdin",
        "COPY public.t (a) FROM stdin WHERE f() FROM stdin",
        "COPY public.t (a, f()) FROM stdin",
        "COPY (SELECT 1) FROM stdin",
    ] {
        assert!(!copies(text), "{text}");
    }
}
