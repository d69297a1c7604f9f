//! `backups restore --merge` among triggers, collations, operators and constraints of others: what was asked happens, or nothing does.

use crate::support::postgres::{Server, server};
use crate::support::{Output, Scenario};

fn with_set(server: &Server, sql: &str) -> (Scenario, String) {
    let database = server.new_database();
    server.sql(&database, sql);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    (scenario, database)
}

fn merge(scenario: &Scenario, table: &str, more: &[&str]) -> Output {
    scenario.run(&[&["backups", "restore", "latest", "--into", "app", "--table", table, "--merge"], more].concat())
}

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old ' || i FROM generate_series(1, 100) i;";

#[test]
fn triggers_see_the_rows_alone_that_are_put_back() {
    let server = server(18);
    let (scenario, database) = with_set(
        server,
        &format!(
            "{TABLE} CREATE TABLE seen (id int);
             CREATE FUNCTION upsert() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO public.seen VALUES (NEW.id); DELETE FROM public.t WHERE id = NEW.id; RETURN NEW; END'"
        ),
    );
    let trigger = "CREATE TRIGGER upsert BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION upsert()";
    server.sql(&database, &format!("UPDATE t SET v = 'new ' || id; DELETE FROM t WHERE id = 42; {trigger}"));
    merge(&scenario, "t", &["insert-missing"]).succeeded().prints(&["1 inserted", "99 left"]);
    let state = "SELECT (SELECT count(*) FROM t WHERE v LIKE 'new%'), (SELECT string_agg(id::text, ',') FROM seen)";
    assert_eq!(server.sql(&database, state), "99|42");
    server.sql(&database, "DELETE FROM t WHERE id = 43; TRUNCATE seen; UPDATE t SET v = 'old ' || id WHERE id <> 7");
    merge(&scenario, "t", &["replace", "--yes"]).succeeded().prints(&["1 inserted", "1 replaced", "98 left"]);
    assert_eq!(
        server.sql(&database, "SELECT (SELECT count(*) FROM t WHERE v LIKE 'old%'), (SELECT max(id) FROM seen)"),
        "100|43"
    );
}

#[test]
fn strangers_operators_on_the_search_path_do_not_run() {
    let server = server(18);
    let (scenario, database) = with_set(server, TABLE);
    let operators: String = ["=", "<>", "~=~", ">", ">="]
        .map(|name| format!("CREATE OPERATOR theirs.{name} (LEFTARG = text, RIGHTARG = text, FUNCTION = theirs.f); CREATE OPERATOR theirs.{name} (LEFTARG = record, RIGHTARG = record, FUNCTION = theirs.r);"))
        .concat();
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA theirs; CREATE FUNCTION theirs.f(text, text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''stranger''; END';
             CREATE FUNCTION theirs.r(record, record) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''stranger''; END'; {operators}
             UPDATE t SET v = 'damaged' WHERE id <= 5; DELETE FROM t WHERE id = 9; ALTER DATABASE {database} SET search_path = theirs, public, pg_catalog"
        ),
    );
    merge(&scenario, "t", &["replace", "--yes"]).succeeded().prints(&["1 inserted", "5 replaced", "94 left"]);
    let count = "SELECT count(*) FROM public.t WHERE v OPERATOR(pg_catalog.=) ('old ' || id)";
    assert_eq!(server.sql(&database, count), "100");
}

#[test]
fn what_a_trigger_keeps_from_being_replaced_is_an_error_and_what_it_changes_is_said() {
    let server = server(18);
    let (scenario, database) = with_set(server, TABLE);
    let damage = "UPDATE t SET v = 'damaged' WHERE id <= 7;";
    let trigger = |on: &str, body: &str| {
        format!(
            "DROP TRIGGER IF EXISTS x ON t; {damage} CREATE OR REPLACE FUNCTION x() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body}; END';
             CREATE TRIGGER x BEFORE {on} ON t FOR EACH ROW EXECUTE FUNCTION x()"
        )
    };
    for body in ["RETURN NULL", "RETURN OLD"] {
        server.sql(&database, &trigger("UPDATE", body));
        let refused = merge(&scenario, "t", &["replace", "--yes"]).exited(1);
        refused.says(&["nothing was changed", "not replaced: 7 rows, with the key (1)", "trigger"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t WHERE v = 'damaged'"), "7", "{body}");
    }
    // One that has its own word in it, by right.
    server.sql(&database, &trigger("INSERT OR UPDATE", "NEW.v := NEW.v || '' touched''; RETURN NEW"));
    server.sql(&database, "DELETE FROM t WHERE id = 50");
    merge(&scenario, "t", &["replace", "--yes"])
        .succeeded()
        .says(&["other values than in the set: 8 rows"])
        .prints(&["1 inserted", "7 replaced"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t WHERE v = 'old ' || id || ' touched'"), "8");
}

#[test]
fn constraints_that_wait_for_the_commit_are_met_before_the_rows_are_counted() {
    let server = server(18);
    let (scenario, database) = with_set(
        server,
        &format!(
            "{TABLE} CREATE TABLE child (id int PRIMARY KEY REFERENCES t DEFERRABLE INITIALLY DEFERRED); INSERT INTO child SELECT generate_series(1, 9);
             CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.t WHERE id = NEW.id; RETURN NULL; END'"
        ),
    );
    server.sql(&database, "DELETE FROM child WHERE id <= 3; DELETE FROM t WHERE id = 3");
    let refused = merge(&scenario, "child", &["insert-missing"]).exited(1).says(&["child_id_fkey", "nothing was changed"]);
    assert!(!refused.stderr.contains("not known"), "{}", refused.stderr);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM child"), "6");
    server.sql(
        &database,
        "CREATE CONSTRAINT TRIGGER away AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION away()",
    );
    merge(&scenario, "t", &["insert-missing"]).exited(1).says(&["not taken: 1 row, with the key (3)", "nothing was changed"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "99");
}

#[test]
fn a_key_whose_index_has_another_equality_than_its_column_is_none() {
    let server = server(15);
    if server.sql("postgres", "SELECT count(*) > 0 FROM pg_collation WHERE collprovider = 'i'") != "t" {
        return;
    }
    let (scenario, database) = with_set(
        server,
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE finer (name text COLLATE ci NOT NULL, v text); CREATE UNIQUE INDEX ON finer (name COLLATE \"C\"); INSERT INTO finer VALUES ('A', 'set A');
         CREATE TABLE coarser (name text NOT NULL, v text); CREATE UNIQUE INDEX ON coarser (name COLLATE ci); INSERT INTO coarser VALUES ('A', 'set A');
         CREATE TABLE same (name text COLLATE ci PRIMARY KEY, v text); INSERT INTO same VALUES ('A', 'set A'), ('B', 'set B');
         CREATE TABLE plain (name text NOT NULL, v text); CREATE UNIQUE INDEX ON plain (name COLLATE \"C\"); INSERT INTO plain VALUES ('A', 'set A')",
    );
    server.sql(
        &database,
        "INSERT INTO finer VALUES ('a', 'mine'); UPDATE coarser SET name = 'a'; UPDATE same SET name = 'a', v = 'x' WHERE name = 'A'; DELETE FROM plain",
    );
    for table in ["finer", "coarser"] {
        merge(&scenario, table, &["replace", "--yes"]).exited(78).says(&["collation", "--as"]);
    }
    assert_eq!(server.sql(&database, "SELECT string_agg(name || v, ',' ORDER BY v) FROM finer"), "amine,Aset A");
    merge(&scenario, "same", &["replace", "--yes"]).succeeded().prints(&["0 inserted", "1 replaced", "1 left"]);
    merge(&scenario, "plain", &["insert-missing"]).succeeded().prints(&["1 inserted"]);
}

#[test]
fn a_dry_run_counts_the_rows_and_meets_the_errors_that_the_run_would() {
    let server = server(18);
    let (scenario, database) = with_set(server, TABLE);
    server.sql(
        &database,
        "UPDATE t SET v = 'damaged' WHERE id <= 5; DELETE FROM t WHERE id > 90; CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired''; END';
         CREATE TRIGGER no BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let dry = |more: &[&str]| merge(&scenario, "t", &[more, &["--dry-run"]].concat());
    let counts = ["10 would be inserted, 5 replaced, 85 left as they are", "nothing was changed"];
    dry(&["replace"]).succeeded().prints(&counts);
    dry(&["insert-missing", "--where", "id > 85"]).succeeded().prints(&["10 would be inserted, 0 replaced, 5 left"]);
    dry(&["insert-missing", "--where", "no_such = 1"]).exited(78).says(&["no_such"]);
    let arguments = ["backups", "restore", "latest", "--into", "app", "--table", "t", "--merge", "insert-missing", "--dry-run"];
    let seen = scenario.json(&arguments);
    assert_eq!((seen["inserted"].as_u64(), seen["left"].as_u64(), seen["dry_run"].as_bool()), (Some(10), Some(90), Some(true)));
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t WHERE v <> 'damaged'"), "85");
    server.sql(&database, "ALTER TABLE t RENAME v TO w");
    dry(&["insert-missing"]).exited(78).says(&["has no column v"]);
}

#[test]
fn rows_that_moved_to_a_child_are_named_and_sequences_of_domains_move() {
    let server = server(18);
    let (scenario, database) = with_set(
        server,
        &format!(
            "{TABLE} CREATE TABLE heir () INHERITS (t); CREATE DOMAIN whole AS int; CREATE DOMAIN number AS whole; CREATE SEQUENCE s;
             CREATE TABLE numbered (id number PRIMARY KEY DEFAULT nextval('s')); ALTER SEQUENCE s OWNED BY numbered.id;
             INSERT INTO numbered SELECT nextval('s') FROM generate_series(1, 20)"
        ),
    );
    server.sql(
        &database,
        "WITH moved AS (DELETE FROM ONLY t WHERE id <= 3 RETURNING *) INSERT INTO heir SELECT * FROM moved; TRUNCATE numbered RESTART IDENTITY",
    );
    let named = ["3 rows", "inherit"];
    merge(&scenario, "t", &["insert-missing", "--dry-run"]).succeeded().says(&named);
    merge(&scenario, "t", &["insert-missing"]).succeeded().says(&named);
    merge(&scenario, "numbered", &["insert-missing"]).succeeded().says(&["moved forward to 20"]);
    assert_eq!(server.sql(&database, "INSERT INTO numbered DEFAULT VALUES RETURNING id"), "21");
}

#[test]
fn columns_that_would_round_numbers_are_refused() {
    let server = server(18);
    let (scenario, database) = with_set(
        server,
        "CREATE TABLE amounts (id int PRIMARY KEY, amount numeric(12,4), at timestamp); INSERT INTO amounts VALUES (1, 1.2345, '2026-01-01 10:00:00.25'), (2, 1.5, '2026-01-01')",
    );
    server.sql(&database, "ALTER TABLE amounts ALTER at TYPE timestamp(0), ALTER amount TYPE numeric(12,1); DELETE FROM amounts");
    for mode in [&["insert-missing"][..], &["insert-missing", "--dry-run"]] {
        merge(&scenario, "amounts", mode).exited(78).says(&["public.amounts.", "numeric(12,1) here", "--as"]);
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM amounts"), "0");
    server.sql(&database, "ALTER TABLE amounts ALTER amount TYPE numeric(14,6), ALTER at TYPE timestamp");
    merge(&scenario, "amounts", &["insert-missing"]).succeeded().prints(&["2 inserted"]);
    merge(&scenario, "amounts", &["replace", "--yes"]).succeeded().prints(&["0 inserted, 0 replaced, 2 left"]);
}
