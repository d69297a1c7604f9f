//! Whole databases, byte for byte: every kind of object, hostile values, PSScript's own schema.
//!
//! What `pg_dump --create` says of a database before is what it says of the restored one. The same fixtures come back whole with
//! pg_dump and psql alone: what does not with pgtend is a fault of pgtend.

use crate::support::Scenario;
use crate::support::postgres::{MAJORS, Server, WITH_PGVECTOR, server};

pub const KINDS: &str = include_str!("fixtures/round_trip/kinds.sql");
pub const VALUES: &str = include_str!("fixtures/round_trip/values.sql");
pub const PSSCRIPT: &str = include_str!("fixtures/round_trip/psscript.sql");

/// A database with a name of its own, which stands in no fixture, with a space and a capital in it.
pub fn new_database(server: &Server, of: &str) -> String {
    let name = format!("Rt {of}");
    server.sql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0"));
    server.drop_with_test(&name);
    name
}

/// `pg_dump`, without the database's name and the token of newer versions; the rows of each COPY are in the order of their text,
/// since a table has none.
pub fn dumped(server: &Server, database: &str, arguments: &[&str]) -> Vec<String> {
    let output = server.tool("pg_dump", database).args(arguments).arg("--no-sync").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap().replace(database, "DATABASE");
    let mut lines = Vec::new();
    let mut rows: Option<Vec<String>> = None;
    for line in dump.split('\n').filter(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ")) {
        match &mut rows {
            Some(those) if line == "\\." => {
                those.sort();
                lines.append(those);
                lines.push(line.to_owned());
                rows = None;
            }
            Some(those) => those.push(line.to_owned()),
            None => {
                lines.push(line.to_owned());
                if line.ends_with(") FROM stdin;") {
                    rows = Some(Vec::new());
                }
            }
        }
    }
    lines.extend(rows.into_iter().flatten());
    lines
}

/// Shows the first lines that differ: a dump is too long for a message.
#[track_caller]
pub fn is_the_same(before: &[String], after: &[String], what: &str) {
    let Some(at) = (0..before.len().max(after.len())).find(|at| before.get(*at) != after.get(*at)) else { return };
    let part = |dump: &[String]| {
        let lines = dump.iter().skip(at.saturating_sub(8)).take(20);
        lines.map(|line| line.chars().take(200).collect::<String>()).collect::<Vec<_>>().join("\n")
    };
    panic!("{what} is not what it was; line {at} of the dump, before:\n{}\n--- after:\n{}", part(before), part(after));
}

/// Backs up, verifies, restores with `--create` and into an empty database, and compares both with what was.
/// `arguments`: of the pg_dump that compares.
fn comes_back(server: &Server, database: &str, arguments: &[&str]) -> (String, String) {
    let scenario = Scenario::with_database(server, database).backup_job("local", "verify = \"restore\"");
    scenario.run(&["run-job", "nightly"]).succeeded();

    let created = format!("{database} created");
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&created), "--create"]).succeeded();
    let with_create = [arguments, &["--create"]].concat();
    is_the_same(&dumped(server, database, &with_create), &dumped(server, &created, &with_create), &created);

    let empty = format!("{database} empty");
    server.sql("postgres", &format!("CREATE DATABASE \"{empty}\" TEMPLATE template0"));
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&empty)]).succeeded();
    is_the_same(&dumped(server, database, arguments), &dumped(server, &empty, arguments), &empty);
    (created, empty)
}

fn every_kind_of_object_and_every_value_comes_back(major: u32) {
    let server = server(major);
    let database = new_database(server, "kinds");
    server.sql(&database, VALUES);
    server.sql(&database, KINDS);
    // Which partition a row is in depends on the OIDs of an enum's values: these are compared as one table.
    let (created, empty) = comes_back(server, &database, &["--exclude-table-data=kinds.by_hash_*"]);
    let rows = |database: &str| server.sql(database, "SELECT m, v FROM kinds.by_hash ORDER BY v");
    assert_eq!(rows(&created), rows(&database), "{major}");
    assert_eq!(rows(&empty), rows(&database), "{major}");
    for name in [&database, &created, &empty] {
        server.sql("postgres", &format!("DROP DATABASE \"{name}\""));
    }
}

#[test]
fn every_kind_of_object_and_every_value_comes_back_on_14() {
    every_kind_of_object_and_every_value_comes_back(14);
}

#[test]
fn every_kind_of_object_and_every_value_comes_back_on_15() {
    every_kind_of_object_and_every_value_comes_back(15);
}

#[test]
fn every_kind_of_object_and_every_value_comes_back_on_16() {
    every_kind_of_object_and_every_value_comes_back(16);
}

#[test]
fn every_kind_of_object_and_every_value_comes_back_on_17() {
    every_kind_of_object_and_every_value_comes_back(17);
}

#[test]
fn every_kind_of_object_and_every_value_comes_back_on_18() {
    every_kind_of_object_and_every_value_comes_back(18);
    assert_eq!(MAJORS, [14, 15, 16, 17, 18], "each has a test of its own here");
}

#[test]
fn psscript_comes_back_with_its_extension_in_a_schema_that_only_its_search_path_names() {
    for major in WITH_PGVECTOR {
        let server = server(major);
        let database = new_database(server, "psscript");
        server.sql(&database, PSSCRIPT);
        let (created, empty) = comes_back(server, &database, &[]);
        let asked = |database: &str| {
            server.sql(database, "SET search_path = public, extensions; SET enable_indexscan = off; SELECT * FROM nearest((SELECT embedding FROM script_embeddings WHERE script_id = 7), 3)")
        };
        assert!(asked(&database).starts_with("7|0"), "{major}: {}", asked(&database));
        assert_eq!(asked(&created), asked(&database), "{major}");
        assert_eq!(asked(&empty), asked(&database), "{major}");
        // The application sets no search_path of its own.
        let of_application = "SELECT count(*) FROM nearest('[1]'::vector(1)) WHERE false";
        let psql = server.tool_without_options("psql", &created).args(["-XqAtc", of_application]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&psql.stdout), "0\n", "{major}: {psql:?}");
    }
}

#[test]
fn a_subscription_is_backed_up_each_night_and_comes_back_without_disturbing_anybody() {
    let server = Server::start_with(18, &["wal_level=logical"]);
    let database = new_database(&server, "subscriber");
    server.sql("postgres", "CREATE DATABASE publisher");
    server.sql("publisher", "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
    // In a transaction that has written nothing.
    server.sql("publisher", "SELECT pg_create_logical_replication_slot('odd', 'pgoutput')");
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE SUBSCRIPTION \"odd; sub\" CONNECTION 'dbname=publisher password=''p w''' PUBLICATION p WITH (connect = false, slot_name = 'odd');
         COMMENT ON SUBSCRIPTION \"odd; sub\" IS 'a subscription'",
    );
    let scenario = Scenario::with_database(&server, &database).backup_job("local", "verify = \"restore\"\nkeep = { last = 2 }");
    // A scratch database with a subscription cannot be dropped: the second night would not begin.
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert_eq!(scenario.sets().len(), 2);
    assert_eq!(server.sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'pgtend%'"), "");
    let slots = || server.sql("postgres", "SELECT slot_name FROM pg_replication_slots");
    assert_eq!(slots(), "odd", "production's slot is there");

    let created = format!("{database} created");
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&created), "--create"]).succeeded();
    // The slot is production's: the copy may have none.
    let without_slot = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().map(|line| line.replace("slot_name = 'odd'", "slot_name = NONE")).collect()
    };
    let before = without_slot(dumped(&server, &database, &["--create"]));
    is_the_same(&before, &without_slot(dumped(&server, &created, &["--create"])), &created);
    assert_eq!(
        server.sql(
            &created,
            "SELECT subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()"
        ),
        "f"
    );
    assert_eq!(slots(), "odd");
}
