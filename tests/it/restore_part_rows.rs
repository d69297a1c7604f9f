//! `backups restore` of rows of a part beside what else happens in the database: all of it, or nothing, and the truth about it.

use crate::restore_part::{definitions, restore, with_set};
use crate::support::postgres::server;
use crate::support::proxy::Proxy;
use crate::support::{Scenario, eventually};

#[test]
fn a_part_is_restored_as_a_whole_and_goes_on_after_no_error() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let scenario = with_set(server, &database, "");
    let all = definitions(server, &database, &[]);
    for more in [
        &["--table", "t"][..],
        &["--schema", "public"],
        &["--table", "t", "--data-only"],
        &["--table", "t", "--as", "u"],
        &["--table", "t", "--merge", "insert-missing"],
        &["--table", "t", "--dry-run"],
    ] {
        let refused = restore(&scenario, &[more, &["--on-error", "continue"]].concat()).exited(78);
        refused.says(&["--on-error continue", "all of a part or nothing"]);
    }
    assert_eq!(definitions(server, &database, &[]), all);
    // And nobody is told to.
    server.sql(&database, "DROP TABLE t; CREATE TYPE t AS ENUM ()");
    let refused = restore(&scenario, &["--table", "t"]);
    assert!(
        refused.code != Some(0) && !refused.stderr.contains("--on-error") && !refused.stderr.contains("--without"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("source's rows"), "{}", refused.stderr);
}

#[test]
fn only_rows_go_into_no_partitioned_table_that_has_rows() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TYPE shade AS ENUM ('red', 'green', 'blue'); CREATE TABLE k (s shade) PARTITION BY HASH (s);
         CREATE TABLE k_0 PARTITION OF k FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE k_1 PARTITION OF k FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO k VALUES ('red'), ('green'), ('blue')",
    );
    let scenario = with_set(server, &database, "");
    for more in [&["--dry-run"][..], &[]] {
        restore(&scenario, &[&["--table", "k", "--data-only"], more].concat()).exited(78).says(&["public.k has rows", "--as"]);
    }
    server.sql(&database, "TRUNCATE k");
    restore(&scenario, &["--table", "k", "--data-only"]).succeeded().prints(&["public.k: 3 rows"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM k"), "3");
}

#[test]
fn only_rows_go_into_no_table_that_another_session_fills_meanwhile() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 5)");
        let scenario = with_set(server, &database, "");
        server.sql(&database, "TRUNCATE t");
        let other = server.session(&database, "BEGIN; INSERT INTO public.t VALUES (100)");
        let run = scenario.start(&["backups", "restore", "latest", "--into", "app", "--table", "t", "--data-only"]);
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '{database}') AND relation IS NOT NULL"
        );
        eventually("the restore waits for the other session", || server.sql("postgres", &waits) != "0");
        other.ends_with("COMMIT");
        run.wait().exited(1).says(&["has rows, and --data-only", "is unchanged"]);
        assert_eq!(server.sql(&database, "SELECT string_agg(id::text, ',') FROM t"), "100");
    }
}

#[test]
fn of_a_commit_whose_answer_is_lost_nobody_says_what_it_did() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE gone (id int PRIMARY KEY); CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE merged (id int PRIMARY KEY);
         INSERT INTO gone VALUES (1); INSERT INTO empty VALUES (1); INSERT INTO merged VALUES (1)",
    );
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE gone; TRUNCATE empty; TRUNCATE merged");
    let proxy = Proxy::start_losing_commits(server);
    for (table, how) in [("gone", &[][..]), ("empty", &["--data-only"]), ("merged", &["--merge", "insert-missing"])] {
        let url = proxy.url(&database);
        let arguments = [&["backups", "restore", "latest", "--into", &url, "--table", table], how].concat();
        let output = scenario.run(&arguments);
        assert_ne!(output.code, Some(0));
        let output = output.says(&["it is not known whether", "look at"]);
        for lie in ["unchanged", "no part of", "no rows of", "nothing was"] {
            assert!(!output.stderr.contains(lie), "{table}: {}", output.stderr);
        }
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "1");
    }
}

/// Rows whose numbers come from sequences of every kind, with a sequence behind that is not theirs.
const NUMBERED: &str = "
CREATE TABLE renamed (id serial PRIMARY KEY, v int); INSERT INTO renamed (v) SELECT generate_series(1, 50);
CREATE SEQUENCE shared; CREATE TABLE sharing (id int PRIMARY KEY DEFAULT nextval('shared'), v int); INSERT INTO sharing (v) SELECT generate_series(1, 50);
CREATE TABLE falling (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1) PRIMARY KEY, v int); INSERT INTO falling (v) SELECT generate_series(1, 50);
CREATE TABLE exact (id numeric PRIMARY KEY DEFAULT nextval('shared'), v int); INSERT INTO exact SELECT i, i FROM generate_series(101, 150) i;
CREATE TABLE parts (id int PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, v int) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (1000);
INSERT INTO parts (v) SELECT generate_series(1, 50);
";

#[test]
fn sequences_behind_columns_are_past_the_rows_whoever_owns_them() {
    for major in [14, 18] {
        let server = server(major);
        for how in [&["--data-only"][..], &["--merge", "insert-missing"]] {
            let database = server.new_database();
            server.sql(&database, NUMBERED);
            let scenario = with_set(server, &database, "");
            server.sql(
                &database,
                "ALTER TABLE renamed ALTER id DROP DEFAULT; DROP SEQUENCE renamed_id_seq; ALTER TABLE renamed ALTER id ADD GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME numbers);
                 TRUNCATE renamed, sharing, falling, exact, parts RESTART IDENTITY; ALTER SEQUENCE shared RESTART",
            );
            for (table, next) in [("renamed", "51"), ("sharing", "51"), ("falling", "-51"), ("parts", "51"), ("exact", "151")] {
                restore(&scenario, &[&["--table", table], how].concat()).succeeded();
                let insert = format!("INSERT INTO {table} (v) VALUES (0) RETURNING id");
                let number = server.sql(&database, &insert);
                assert!(number == next, "{major} {how:?} {table}: {number}");
            }
        }
        // The table alone was dropped, and the sequence lives, behind.
        let database = server.new_database();
        server.sql(&database, NUMBERED);
        let scenario = with_set(server, &database, "");
        server.sql(&database, "DROP TABLE sharing; ALTER SEQUENCE shared RESTART");
        restore(&scenario, &["--table", "sharing"]).succeeded();
        assert_eq!(server.sql(&database, "INSERT INTO sharing (v) VALUES (0) RETURNING id"), "51", "on {major}");
    }
}

#[test]
fn a_sequence_that_the_login_may_not_move_is_named() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("writer_{database}");
    server.sql(&database, NUMBERED);
    let scenario = with_set(server, &database, "");
    server.sql(
        &database,
        &format!("CREATE ROLE {role} LOGIN; GRANT ALL ON sharing TO {role}; TRUNCATE sharing; ALTER SEQUENCE shared RESTART"),
    );
    let url = server.url_as(&role, &database);
    let into =
        |how: &[&str]| scenario.run(&[&["backups", "restore", "latest", "--into", &url, "--table", "sharing"], how].concat());
    into(&["--data-only"]).succeeded().says(&["public.shared", "public.sharing.id", "may not"]);
    server.sql(&database, "TRUNCATE sharing");
    into(&["--merge", "insert-missing"]).succeeded().says(&["public.shared", "public.sharing.id", "may not"]);
    assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM sharing), is_called FROM shared"), "50|f");
}

#[test]
fn rows_of_what_has_none_are_nothing_to_restore() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s; CREATE MATERIALIZED VIEW m AS SELECT 1 AS x",
    );
    let scenario = with_set(server, &database, "");
    for more in [&["--dry-run"][..], &[]] {
        let none = [&["--data-only", "--table", "v", "--table", "s"], more].concat();
        restore(&scenario, &none).exited(78).says(&["public.v", "public.s", "no rows"]);
    }
    server.sql(&database, "TRUNCATE t; DROP MATERIALIZED VIEW m");
    restore(&scenario, &["--data-only", "--table", "v", "--table", "t"])
        .succeeded()
        .says(&["public.v"])
        .prints(&["public.t: 1 row"]);
    let restored = restore(&scenario, &["--table", "m"]).succeeded().prints(&["materialized view public.m"]);
    assert!(!restored.stdout.contains("0 tables"), "{}", restored.stdout);
}

#[test]
fn a_schema_comes_back_with_its_default_privileges() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        let sql = "CREATE ROLE reader@; CREATE ROLE leaver@; CREATE ROLE keeper@; CREATE SCHEMA hr; CREATE SCHEMA other; CREATE TABLE hr.t (id int);
             ALTER DEFAULT PRIVILEGES IN SCHEMA hr GRANT SELECT ON TABLES TO reader@; ALTER DEFAULT PRIVILEGES FOR ROLE keeper@ IN SCHEMA hr GRANT USAGE ON SEQUENCES TO reader@;
             ALTER DEFAULT PRIVILEGES IN SCHEMA other GRANT SELECT ON TABLES TO reader@;
             CREATE TYPE hr.a AS (x int); CREATE FUNCTION hr.f(hr.a) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE CAST (hr.a AS int) WITH FUNCTION hr.f(hr.a)";
        server.sql(&database, &sql.replace('@', &format!("_{database}")));
        let acl = "SELECT string_agg(d, ', ' ORDER BY d) FROM (SELECT concat_ws(' ', defaclrole::regrole, defaclobjtype, defaclacl) AS d FROM pg_default_acl) x";
        let before = server.sql(&database, acl);
        server.sql(&database, &format!("ALTER DEFAULT PRIVILEGES IN SCHEMA hr GRANT SELECT ON TABLES TO leaver_{database}"));
        let scenario = with_set(server, &database, "");
        server.sql(&database, &format!("DROP SCHEMA hr CASCADE; DROP ROLE leaver_{database}"));
        let restored = restore(&scenario, &["--schema", "hr"]).succeeded();
        restored.says(&["CREATE CAST", "ALTER DEFAULT PRIVILEGES", &format!("leaver_{database}")]);
        assert_eq!(server.sql(&database, acl), before, "on {major}");
    }
}

/// A login that may not switch event triggers off, where they log.
fn logging(server: &crate::support::postgres::Server, database: &str) -> Scenario {
    server.sql(database, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let scenario = with_set(server, database, "");
    server.sql(
        database,
        &format!(
            "CREATE ROLE app_{database} LOGIN; GRANT ALL ON t TO app_{database}; DELETE FROM t; CREATE TABLE ddl (x text); GRANT INSERT ON ddl TO PUBLIC;
             CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.ddl VALUES (tg_tag); END';
             CREATE EVENT TRIGGER ev ON ddl_command_end EXECUTE FUNCTION ev()"
        ),
    );
    scenario
}

#[test]
fn a_dry_run_fires_no_event_trigger_or_says_that_they_fire() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        let scenario = logging(server, &database);
        let dry = ["--table", "t", "--merge", "insert-missing", "--dry-run"];
        restore(&scenario, &dry).succeeded().prints(&["1 would be inserted"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ddl"), "0", "on {major}");
        let url = server.url_as(&format!("app_{database}"), &database);
        let said = scenario.run(&[&["backups", "restore", "latest", "--into", &url], &dry[..]].concat()).succeeded();
        said.says(&["event trigger", "ev"]);
        assert_ne!(server.sql(&database, "SELECT count(*) FROM ddl"), "0");
        server.sql(&database, "DROP EVENT TRIGGER ev");
        let quiet = scenario.run(&[&["backups", "restore", "latest", "--into", &url], &dry[..]].concat()).succeeded();
        assert!(!quiet.stderr.contains("event trigger"), "{}", quiet.stderr);
    }
}

#[test]
fn a_second_unique_constraint_that_is_deferrable_is_in_no_merges_way() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (a int, b int, v text, PRIMARY KEY (a, b)); INSERT INTO t SELECT i, i, 'x' FROM generate_series(1, 5) i",
    );
    let scenario = with_set(server, &database, "");
    server.sql(
        &database,
        "ALTER TABLE t ADD UNIQUE (b, a) DEFERRABLE; DELETE FROM t WHERE a > 3; UPDATE t SET v = 'y' WHERE a = 1",
    );
    restore(&scenario, &["--table", "t", "--merge", "replace", "--yes"]).succeeded().prints(&["2 inserted, 1 replaced, 2 left"]);
}

#[test]
fn a_condition_names_columns_of_the_set_alone() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO t (id, v) SELECT i, 'x' FROM generate_series(1, 5) i");
    let scenario = with_set(server, &database, "");
    server.sql(
        &database,
        "DELETE FROM t; ALTER TABLE t ADD tenant int NOT NULL DEFAULT 1, ADD number serial, ADD twice int GENERATED ALWAYS AS (tenant * 2) STORED",
    );
    let merge = |condition: &str| restore(&scenario, &["--table", "t", "--merge", "insert-missing", "--where", condition]);
    for column in ["tenant", "ctid", "tableoid", "twice", "t.tenant"] {
        let refused = merge(&format!("{column}::text = '1'")).exited(78);
        refused.says(&["--where", column, "id, v"]);
    }
    merge("id = 1 AND t.g = 2 AND t.v = 'x'").succeeded().prints(&["1 inserted"]);
    restore(&scenario, &["--table", "t", "--merge", "insert-missing"]).succeeded().prints(&["4 inserted"]);
    assert_eq!(server.sql(&database, "SELECT count(*), min(tenant), max(twice), max(number) FROM t"), "5|1|2|5");
}

#[test]
fn a_name_that_two_tables_have_is_asked_for_with_quotes() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE SCHEMA s; CREATE TABLE s.c (id int PRIMARY KEY); CREATE TABLE \"s.c\" (id int PRIMARY KEY); INSERT INTO s.c VALUES (1); INSERT INTO \"s.c\" VALUES (1), (2)");
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE s.c, \"s.c\"");
    for how in [&[][..], &["--merge", "insert-missing"], &["--data-only"], &["--as", "x"]] {
        restore(&scenario, &[&["--table", "s.c"], how].concat()).exited(78).says(&["`s.c`", "double quotes"]);
    }
    restore(&scenario, &["--table", "public.\"s.c\""]).succeeded().prints(&["2 rows"]);
    restore(&scenario, &["--table", "\"s\".\"c\""]).succeeded().prints(&["1 row"]);
}
