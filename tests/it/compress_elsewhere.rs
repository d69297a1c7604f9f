//! How an undo looks through tables of others for values that need a dictionary: it sees them, and runs no code of theirs.

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::support::scripts::{job, of_5_kb};

const UNDO: [&str; 4] = ["compress", "undo", "scripts", "--drop-dictionaries"];
const DICTIONARIES: &str = "SELECT proname FROM pg_proc WHERE proname LIKE 'pgtend\\_dictionary%' ORDER BY oid";

/// A table with a dictionary, and its job, which trusts no owners.
fn with_a_dictionary(server: &Server) -> (String, Scenario, String) {
    let database = of_5_kb(server, 300);
    let scenario =
        Scenario::with_database(server, &database).job("scripts", &job("dictionary = true\n[limits]\ntrust_owners = false"));
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let name = server.sql(&database, DICTIONARIES);
    assert!(name.starts_with("pgtend_dictionary_"), "{name}");
    (database, scenario, name)
}

fn dry_run() -> Vec<&'static str> {
    [&UNDO[..], &["--dry-run"]].concat()
}

#[test]
fn code_in_another_table_with_bytes_does_not_run_when_an_undo_looks_through_it() {
    for major in [15, 18] {
        let server = server(major);
        let (database, scenario, name) = with_a_dictionary(server);
        let stranger = format!("stranger_{database}");
        // Both functions are harmless while the index and the statistics are made. The planner computes f(1), a constant.
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {stranger}; CREATE SCHEMA s AUTHORIZATION {stranger}; SET ROLE {stranger}; CREATE TABLE s.files (id int, b bytea); INSERT INTO s.files VALUES (1, '\\x00');
                 CREATE FUNCTION s.f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
                 CREATE INDEX ON s.files ((id + s.f(1))); CREATE STATISTICS s.of_files ON (id + s.f(2)) FROM s.files;
                 CREATE FUNCTION s.g() RETURNS void LANGUAGE plpgsql VOLATILE AS $$ BEGIN
                     IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN EXECUTE 'ALTER ROLE {stranger} SUPERUSER'; END IF; END $$;
                 CREATE OR REPLACE FUNCTION s.f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM s.g(); RETURN $1; END $$"
            ),
        );
        let is_superuser = || server.sql("postgres", &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{stranger}'"));
        let drop = format!("DROP FUNCTION IF EXISTS \"public\".\"{name}\"(bytea)");
        scenario.run(&dry_run()).succeeded().prints(&[&drop]);
        assert_eq!(is_superuser(), "f", "on {major}");
        // It was looked at all the same.
        let value = server.sql(&database, "SELECT content_gz FROM scripts_stored WHERE id = 1");
        server.sql(&database, &format!("SET ROLE {stranger}; INSERT INTO s.files VALUES (2, '{value}')"));
        scenario.run(&dry_run()).succeeded().prints(&["values of s.files.b need one", &name]);
        server.sql(&database, "TRUNCATE s.files");
        scenario.run(&UNDO).succeeded();
        assert_eq!((is_superuser(), server.sql(&database, DICTIONARIES)), ("f".to_owned(), String::new()), "on {major}");
        // The trap is one.
        server.sql(&database, "SELECT count(*) FROM s.files WHERE id > 3");
        assert_eq!(is_superuser(), "t", "on {major}");
        server.sql(&database, &format!("DROP OWNED BY {stranger}; DROP ROLE {stranger}"));
    }
}

#[test]
fn dictionaries_stay_where_copy_cannot_read_what_may_need_them() {
    let server = server(15);
    let (database, scenario, name) = with_a_dictionary(server);
    for (make, drop) in [
        ("CREATE MATERIALIZED VIEW copied AS SELECT '\\x00'::bytea AS b", "DROP MATERIALIZED VIEW copied"),
        ("CREATE TABLE copied (a int, b bytea GENERATED ALWAYS AS ('\\x00') STORED)", "DROP TABLE copied"),
    ] {
        server.sql(&database, make);
        let says = ["dictionaries stay", "values of public.copied.b may need one, which could not be seen", &name];
        scenario.run(&dry_run()).succeeded().prints(&says);
        server.sql(&database, drop);
    }
    scenario.run(&UNDO).succeeded();
    assert_eq!(server.sql(&database, DICTIONARIES), "");
}

#[test]
fn the_dictionary_of_an_earlier_undo_is_named_by_a_later_one_that_drops_its_own() {
    let server = server(18);
    let (database, scenario, first) = with_a_dictionary(server);
    scenario.run(&UNDO[..3]).succeeded();
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, DICTIONARIES).lines().count(), 2);
    scenario.run(&UNDO).succeeded().says(&["dictionaries that no table names stay", &first, "DROP FUNCTION"]);
    assert_eq!(server.sql(&database, DICTIONARIES), first, "it may be needed by rows that nobody knows of");
}
