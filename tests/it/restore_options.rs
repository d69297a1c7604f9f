//! `backups restore` goes as far as it is told, and each refusal names the option that gets past it.

use crate::support::postgres::{MAJORS, Server, server};
use crate::support::{Output, Scenario};

/// A set of a database made by this SQL.
fn set_of(server: &Server, sql: &str) -> (Scenario, String) {
    set_in(server, server.new_database(), sql)
}

fn set_in(server: &Server, database: String, sql: &str) -> (Scenario, String) {
    server.sql(&database, sql);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    (scenario, database)
}

fn restore(scenario: &Scenario, url: &str, more: &[&str]) -> Output {
    scenario.run(&[&["backups", "restore", "latest", "--into", url], more].concat())
}

/// Into a new database, and into an existing one; the names of both.
fn both_ways<'a>(server: &Server, name: &'a str) -> [(String, &'a [&'a str]); 2] {
    [(format!("{name}_copy"), &["--create"]), (server.empty_database(), &[])]
}

#[test]
fn a_foreign_key_that_the_source_breaks_is_explained_and_restored_not_valid() {
    for major in MAJORS {
        let server = server(major);
        let (scenario, database) = set_of(
            server,
            "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p);
             SET session_replication_role = replica; INSERT INTO p VALUES (1); INSERT INTO c VALUES (1, 99), (2, 1), (3, 98), (4, NULL);",
        );
        let keys = "SELECT conname, convalidated FROM pg_constraint WHERE contype = 'f'";
        for (more, code) in [(&["--without", "CONSTRAINT", "c_p_fkey"][..], 0), (&["--on-error", "continue"], 1)] {
            let name = format!("{database}_{code}");
            for (copy, create) in both_ways(server, &name) {
                restore(&scenario, &server.url(&copy), create).exited(1).says(&[
                    "SQLSTATE 23503",
                    "The source's rows violate",
                    "2 rows of public.c reference no row of public.p",
                    "SELECT c.* FROM ONLY public.c c WHERE c.p IS NOT NULL AND NOT EXISTS (SELECT FROM public.p p WHERE p.id = c.p)",
                    "--without CONSTRAINT c_p_fkey",
                    "--on-error continue",
                ]);
                let restored = restore(&scenario, &server.url(&copy), &[create, more].concat()).exited(code);
                match code {
                    0 => restored.says(&["FK CONSTRAINT c c_p_fkey in schema public: added NOT VALID"]),
                    _ => restored.prints(&[
                        "except for 1 statement:",
                        "1. ",
                        "c_p_fkey",
                        "2 rows of public.c",
                        "It was added NOT VALID",
                    ]),
                };
                assert_eq!(server.sql(&copy, keys), "c_p_fkey|f", "{major}");
                assert_eq!(server.sql(&copy, "SELECT count(*) FROM c"), "4");
            }
        }
    }
}

#[test]
fn a_function_that_names_things_without_schema_is_named_with_its_cure() {
    for major in MAJORS {
        let server = server(major);
        // Its search_path is in what the error advises.
        let (scenario, database) = set_in(
            server,
            server.trusted_database(),
            "CREATE FUNCTION helper(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(t) $$;
             CREATE FUNCTION slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN helper(t); END$$;
             CREATE TABLE q (name text, s text GENERATED ALWAYS AS (public.slug(name)) STORED);
             INSERT INTO q (name) VALUES ('Ä');",
        );
        for (copy, create) in both_ways(server, &database) {
            restore(&scenario, &server.url(&copy), create).exited(1).says(&[
                "SQLSTATE 42883",
                "public.slug(text)",
                "ALTER FUNCTION public.slug(text) SET search_path",
                "--search-path public",
            ]);
            restore(&scenario, &server.url(&copy), &[create, &["--search-path", "public"]].concat()).succeeded();
            assert_eq!(server.sql(&copy, "SELECT count(*) FROM q"), "1");
        }
    }
}

#[test]
fn an_index_that_a_newer_server_builds_under_its_own_search_path_is_left_out() {
    let (source, target) = (server(16), server(18));
    let (scenario, database) = set_in(
        source,
        source.trusted_database(),
        "CREATE FUNCTION helper(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(t) $$;
         CREATE FUNCTION slug(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN helper(t); END$$;
         CREATE TABLE q AS SELECT 'Ä' AS name; CREATE INDEX by_slug ON q (slug(name));",
    );
    for (copy, create) in both_ways(source, &database) {
        restore(&scenario, &source.url(&copy), create).exited(1).says(&["--search-path public", "--without INDEX by_slug"]);
        restore(&scenario, &source.url(&copy), &[create, &["--search-path", "public"]].concat()).succeeded();
    }
    for (copy, create) in both_ways(target, &database) {
        let more = [create, &["--search-path", "public"]].concat();
        restore(&scenario, &target.url(&copy), &more).exited(1).says(&[
            "ALTER FUNCTION public.slug(text)",
            "17 and newer",
            "--without INDEX by_slug",
        ]);
        restore(&scenario, &target.url(&copy), &[&more[..], &["--without", "INDEX", "by_slug"]].concat()).succeeded();
    }
}

#[test]
fn an_index_or_a_constraint_is_left_out_by_its_name() {
    let server = server(18);
    let (scenario, database) = set_of(
        server,
        "CREATE FUNCTION strict_now() RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
         CREATE TABLE t (a int, b int, CONSTRAINT odd CHECK (strict_now()), CONSTRAINT fine CHECK (a > 0)); INSERT INTO t VALUES (1, 2), (1, 3);
         CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN IF current_setting('application_name') <> 'psql' THEN RAISE 'not here'; END IF; RETURN $1; END$$;
         CREATE INDEX picky ON t (fails(a)); COMMENT ON INDEX picky IS 'x'; ALTER TABLE t CLUSTER ON picky; CREATE INDEX easy ON t (b);
         CREATE OR REPLACE FUNCTION strict_now() RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT false $$;",
    );
    for (copy, create) in both_ways(server, &database) {
        let url = server.url(&copy);
        restore(&scenario, &url, create).exited(1).says(&["SQLSTATE 23514", "TABLE DATA t", "--without CONSTRAINT odd"]);
        let odd = [create, &["--without", "CONSTRAINT", "odd"]].concat();
        restore(&scenario, &url, &odd).exited(1).says(&["SQLSTATE P0001", "--without INDEX picky"]);
        let both = [&odd[..], &["--without", "index", "public.picky", "--without", "INDEX", "none_such"]].concat();
        restore(&scenario, &url, &both)
            .succeeded()
            .says(&["--without INDEX none_such: the dump has no object of that name", "left out: INDEX picky"]);
        assert_eq!(server.sql(&copy, "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass"), "fine");
        assert_eq!(server.sql(&copy, "SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 't'::regclass"), "easy");
    }
    restore(&scenario, &server.url("nowhere"), &["--create", "--without", "TABLE", "t"])
        .exited(78)
        .says(&["CONSTRAINT, INDEX or EXTENSION"]);
}

#[test]
fn a_missing_tablespace_is_said_before_anything_is_written() {
    let (source, target) = (server(16), server(18));
    source.sql("postgres", "SET allow_in_place_tablespaces = on; CREATE TABLESPACE \"Fast 16\" LOCATION ''");
    let (scenario, database) = set_of(
        source,
        "SET default_tablespace = \"Fast 16\"; CREATE TABLE t (x int PRIMARY KEY); INSERT INTO t VALUES (1); \
         CREATE TABLE parted (x int) PARTITION BY LIST (x); SET default_tablespace = ''; CREATE INDEX ON t (x)",
    );
    for (copy, create) in both_ways(target, &database) {
        let url = target.url(&copy);
        restore(&scenario, &url, create).exited(78).says(&["lacks tablespaces", "Fast 16", "--no-tablespaces"]);
        restore(&scenario, &url, &[create, &["--no-tablespaces"]].concat()).succeeded();
        assert_eq!(target.sql(&copy, "SELECT count(*) FROM t"), "1");
    }
    let scenario = scenario.config(&format!("[databases.other]\nurl = '{}'\n", target.url("postgres")));
    scenario.run(&["backups", "verify", "latest", "--restore-on", "other"]).succeeded();
    restore(&scenario, &source.url(&format!("{database}_here")), &["--create"]).succeeded();
    let where_is = "SELECT spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE relname = 't'";
    assert_eq!(source.sql(&format!("{database}_here"), where_is), "Fast 16");
}

#[test]
fn owners_and_grants_go_to_the_roles_that_are_there() {
    let (source, target) = (server(18), server(16));
    let database = source.new_database();
    source.sql(
        &database,
        "CREATE ROLE old_owner; CREATE ROLE old_reader; CREATE SCHEMA s; ALTER SCHEMA s OWNER TO old_owner; \
         CREATE TABLE s.t (x int); ALTER TABLE s.t OWNER TO old_owner; GRANT SELECT ON s.t TO old_reader; \
         ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.t TO old_reader USING (true); \
         ALTER DEFAULT PRIVILEGES FOR ROLE old_owner IN SCHEMA s GRANT SELECT ON TABLES TO old_reader",
    );
    let scenario = Scenario::with_database(source, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    target.sql("postgres", "CREATE ROLE \"new owner\"; CREATE ROLE new_reader");
    for (copy, create) in both_ways(target, &database) {
        let url = target.url(&copy);
        restore(&scenario, &url, create).exited(78).says(&[
            "old_owner",
            "old_reader",
            "--create-roles",
            "--role-map OLD=NEW",
            "--no-owner",
        ]);
        restore(
            &scenario,
            &url,
            &[create, &["--role-map", "old_owner=new owner", "--role-map", "old_reader=new_reader"]].concat(),
        )
        .succeeded();
        let seen = "SELECT (SELECT relowner::regrole FROM pg_class WHERE oid = 's.t'::regclass), \
             has_table_privilege('new_reader', 's.t', 'SELECT'), (SELECT polroles::regrole[] FROM pg_policy), \
             (SELECT defaclrole::regrole FROM pg_default_acl)";
        assert_eq!(target.sql(&copy, seen), "\"new owner\"|t|{new_reader}|\"new owner\"");
    }
    // Whose it was does not matter; who has grants still does.
    let (scenario, database) = set_of(source, "CREATE TABLE t (x int); ALTER TABLE t OWNER TO old_owner");
    for (copy, create) in both_ways(target, &database) {
        restore(&scenario, &target.url(&copy), &[create, &["--no-owner"]].concat())
            .exited(77)
            .says(&["old_owner (to postgres, which is a superuser)", "--trust-owners"]);
        restore(&scenario, &target.url(&copy), &[create, &["--no-owner", "--trust-owners"]].concat()).succeeded();
        assert_eq!(target.sql(&copy, "SELECT relowner::regrole FROM pg_class WHERE oid = 't'::regclass"), "postgres");
    }
}

#[test]
fn an_extension_is_left_out_with_what_hangs_on_it() {
    // The Debian server has no pgvector.
    let (source, target) = (server(18), server(15));
    let (scenario, database) = set_of(
        source,
        "CREATE EXTENSION vector; CREATE TABLE t AS SELECT 1 AS x; COMMENT ON EXTENSION vector IS 'mine'; \
         REVOKE EXECUTE ON FUNCTION vector_dims(vector) FROM PUBLIC; GRANT EXECUTE ON FUNCTION vector_dims(vector) TO postgres",
    );
    for (copy, create) in both_ways(target, &database) {
        let url = target.url(&copy);
        restore(&scenario, &url, create).exited(78).says(&["vector", "--without EXTENSION"]);
        restore(&scenario, &url, &[create, &["--without", "EXTENSION", "vector"]].concat())
            .succeeded()
            .says(&["left out: EXTENSION vector"]);
        assert_eq!(target.sql(&copy, "SELECT count(*) FROM t"), "1");
    }
}

#[test]
fn an_extension_that_is_left_out_excuses_nothing_that_is_not_its_own() {
    let (source, target) = (server(18), server(15));
    source.sql("postgres", "CREATE ROLE ext_reader");
    let (scenario, database) = set_of(
        source,
        "CREATE EXTENSION vector; CREATE TABLE t AS SELECT 1 AS x; GRANT SELECT ON t TO ext_reader;
         CREATE TABLE embedded (e vector(2)); INSERT INTO embedded VALUES ('[1,2]')",
    );
    for (copy, create) in both_ways(target, &database) {
        // --no-owner asks for no roles beforehand: the grant is met midway.
        let leave = ["--without", "EXTENSION", "vector", "--no-owner", "--trust-owners", "--on-error", "continue"];
        let said = restore(&scenario, &target.url(&copy), &[create, &leave].concat()).exited(1);
        for failed in ["ext_reader", "TABLE embedded in schema public", "TABLE DATA embedded"] {
            assert!(said.stdout.contains(failed), "{failed}: {}", said.stdout);
        }
        assert!(!said.stderr.contains("because its extension is"), "{}", said.stderr);
        assert_eq!(target.sql(&copy, "SELECT count(*) FROM t"), "1");
    }
}

#[test]
fn rows_of_a_table_that_could_not_be_made_are_never_taken_for_statements() {
    let (source, target) = (server(18), server(15));
    let (scenario, database) = set_of(
        source,
        "CREATE EXTENSION vector; CREATE TABLE embedded (t text, e vector(2)); CREATE TABLE plain (x text); \
         INSERT INTO plain VALUES ('kept'); \
         INSERT INTO embedded VALUES ('; CREATE TABLE public.pwned (); --', '[1,2]'), (E'\\\\! touch pwned', '[1,2]'), ('COMMIT;', '[1,2]')",
    );
    for (copy, create) in both_ways(target, &database) {
        let more = [create, &["--without", "EXTENSION", "vector", "--on-error", "continue"]].concat();
        restore(&scenario, &target.url(&copy), &more).exited(1).prints(&["except for", "TABLE embedded in schema public"]);
        assert_eq!(target.sql(&copy, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "plain");
        assert_eq!(target.sql(&copy, "SELECT x FROM plain"), "kept");
    }
    assert!(!scenario.path("pwned").exists());
}

#[test]
fn with_on_error_continue_all_that_failed_is_listed_and_the_rest_is_there() {
    let server = server(18);
    let (scenario, database) = set_of(
        server,
        "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN IF current_setting('application_name') <> 'psql' THEN RAISE 'not here'; END IF; RETURN $1; END$$;
         CREATE TABLE a AS SELECT 1 AS x; CREATE INDEX a1 ON a (fails(x)); CREATE INDEX a2 ON a (fails(-x)); CREATE INDEX a3 ON a (x);
         SELECT lo_from_bytea(0, 'x'); CREATE MATERIALIZED VIEW m AS SELECT fails(x) FROM a;",
    );
    for (copy, create) in both_ways(server, &database) {
        restore(&scenario, &server.url(&copy), &[create, &["--on-error", "continue"]].concat()).exited(1).prints(&[
            "except for 3 statements",
            "INDEX a1",
            "INDEX a2",
            "MATERIALIZED VIEW DATA m",
        ]);
        assert_eq!(
            server.sql(&copy, "SELECT count(*), (SELECT count(*) FROM pg_largeobject_metadata), to_regclass('a3') FROM a"),
            "1|1|a3"
        );
    }
    let json = scenario.run(&[
        "backups",
        "restore",
        "latest",
        "--into",
        &server.url(&format!("{database}_json")),
        "--create",
        "--on-error",
        "continue",
        "--json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json.exited(1).stdout).unwrap();
    assert_eq!((json["failed_count"].as_u64(), json["failed"].as_array().map(Vec::len)), (Some(3), Some(3)));
}
