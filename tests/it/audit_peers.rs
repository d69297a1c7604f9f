//! Faults that other tools find: each is planted, found, and ended by its fix.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::audit::{audit, findings, in_state, keys, state};
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

const FIXTURE: &str = include_str!("fixtures/audit_peers.sql");

/// What is found in the fixture on every version.
const PLANTED: [&str; 23] = [
    "duplicate-index:public.days_1_again",
    "fk-duplicate:public.calls again",
    "fk-duplicate:public.visits cascades",
    "fk-orphans:public.books on_shelf",
    "fk-partly-null:public.books on_shelf",
    "fk-type-mismatch:public.payments paid_by",
    "index-function-search-path:public.plain(text)",
    "index-mostly-null:public.tasks_failed_on",
    "key-near-end:public.imported.id",
    "overlapping-index:public.days_1_id",
    "public-can-create:public",
    "replication-role-replica:role app",
    "row-security-by-view:public.all_accounts",
    "row-security-no-policy:public.secrets",
    "row-security-not-forced:public.tenants",
    "row-security-off:public.notes",
    "trigger-disabled:public.bills of_customer",
    "trigger-disabled:public.counted count_it",
    "trigger-disabled:public.parts_1 count_part",
    "type-discouraged:public char(n)",
    "type-discouraged:public json",
    "type-discouraged:public money",
    "unlogged-rows:public.balances",
];
/// A person decides: there is no SQL that looks ready.
const DECIDED_BY_PEOPLE: [&str; 4] = [
    "fk-duplicate:public.visits cascades",
    "fk-orphans:public.books on_shelf",
    "fk-partly-null:public.books on_shelf",
    "row-security-no-policy:public.secrets",
];
const WITH_TRGM: [u32; 3] = [14, 15, 17];

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn fix(finding: &Value) -> &str {
    finding["fix"]["sql"].as_str().unwrap_or_else(|| panic!("it has no SQL: {finding:#}"))
}

pub fn every_planted_fault_is_found_and_ended_by_its_fix(major: u32) {
    let server = Server::start(major);
    let database = server.trusted_database();
    server.sql("postgres", &format!("CREATE ROLE app LOGIN; CREATE ROLE reader; ALTER ROLE app IN DATABASE {database} SET session_replication_role = replica"));
    server.sql(&database, FIXTURE);
    let scenario = Scenario::with_database(&server, &database);
    let found = audit(&scenario);
    assert_eq!(in_state(&found, "failed"), [""; 0], "{found:#}");
    let mut planted = set(&PLANTED);
    if WITH_TRGM.contains(&major) {
        planted.insert("extension-outdated:pg_trgm".to_owned());
    }
    assert_eq!(keys(&found), planted, "on {major}");
    let decided = DECIDED_BY_PEOPLE.len() + usize::from(major < 15);
    let mut before = keys(&found);
    let mut ended = BTreeSet::new();
    for finding in findings(&found) {
        let key = finding["key"].as_str().unwrap().to_owned();
        let is_decided = DECIDED_BY_PEOPLE.contains(&key.as_str()) || major < 15 && key.starts_with("row-security-by-view");
        assert_eq!(finding["fix"]["sql"].is_null(), is_decided, "{finding:#}");
        if !is_decided {
            server.psql(&database, fix(&finding)).unwrap_or_else(|error| panic!("{key}: {error}\n{}", fix(&finding)));
            ended.insert(key.clone());
        }
        // One by one on the newest version; together on the others.
        if !is_decided && (major == 18 || ended.len() == planted.len() - decided) {
            let after = keys(&audit(&scenario));
            let stayed: Vec<&String> = after.intersection(&ended).collect();
            assert!(stayed.is_empty(), "{stayed:?} are still there");
            let begun: Vec<&String> = after.difference(&before).collect();
            assert!(begun.is_empty(), "{key}, or one before it: its fix began {begun:?}");
            before = after;
        }
    }
    assert_eq!(ended.len(), planted.len() - decided);
    // The query of the evidence is the one that lists all rows.
    let orphans = findings(&found).into_iter().find(|finding| finding["check"] == "fk-orphans").unwrap();
    assert_eq!(orphans["evidence"]["measured"], "1 of 502 sampled rows");
    let rows = server.sql(&database, orphans["evidence"]["whole"].as_str().unwrap());
    assert_eq!(rows, "502|1|999");
    server.sql(
        &database,
        "DELETE FROM books WHERE id > 500; CREATE POLICY all_see ON secrets USING (true); ALTER TABLE visits DROP CONSTRAINT restricts; REVOKE ALL ON all_accounts FROM reader",
    );
    assert_eq!(keys(&audit(&scenario)), set(&[]), "on {major}");
}

#[test]
fn every_planted_fault_is_found_and_ended_by_its_fix_on_14() {
    every_planted_fault_is_found_and_ended_by_its_fix(14);
}

#[test]
fn every_planted_fault_is_found_and_ended_by_its_fix_on_18() {
    every_planted_fault_is_found_and_ended_by_its_fix(18);
}

/// The answer of one check.
fn look(scenario: &Scenario, check: &str) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone()
}

#[test]
fn orphans_are_looked_for_in_both_tables_by_the_rules_for_each() {
    let server = server(18);
    let database = server.new_database();
    let (owner, reads) = (format!("owner_{database}"), format!("reads_{database}"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; CREATE ROLE {reads} LOGIN;
             CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE bills (id int PRIMARY KEY, customer_id int REFERENCES customers ON DELETE RESTRICT);
             CREATE INDEX ON bills (customer_id); INSERT INTO customers VALUES (1); INSERT INTO bills VALUES (1, 1);
             SET session_replication_role = replica; INSERT INTO bills SELECT i, 7 FROM generate_series(2, 9000) i; ANALYZE"
        ),
    );
    let scenario = Scenario::with_database(server, &database);
    assert_eq!(
        keys(&look(&scenario, "fk-orphans")),
        set(&["fk-orphans:public.bills bills_customer_id_fkey"]),
        "of 9,000 rows, a sample"
    );
    // Without a right on one of them nothing is known.
    let reader = Scenario::with_url(server, &server.url_as(&reads, &database));
    server.sql(&database, &format!("GRANT SELECT ON bills TO {reads}"));
    assert_eq!(state(&look(&reader, "fk-orphans"), "fk-orphans"), "unknown");
    server.sql(&database, &format!("GRANT SELECT ON customers TO {reads}"));
    assert_eq!(state(&look(&reader, "fk-orphans"), "fk-orphans"), "findings");
    // A superuser does not read what another role may put code into, on either side.
    server.sql(&database, &format!("ALTER TABLE customers OWNER TO {owner}"));
    let refused = look(&scenario, "fk-orphans");
    assert_eq!(state(&refused, "fk-orphans"), "unknown", "{refused:#}");
    assert!(refused["checks"][0]["reasons"][0].as_str().unwrap().contains("public.customers is not read"), "{refused:#}");
}

#[test]
fn another_version_of_a_collation_is_found_with_its_indexes_and_ended_in_order() {
    for major in [15, 17, 18] {
        let server = server(major);
        let database = server.new_database();
        let made = match major {
            15 => "CREATE COLLATION german (provider = icu, locale = 'de')",
            _ => "CREATE COLLATION german (provider = builtin, locale = 'C.UTF-8')",
        };
        server.sql(
            &database,
            &format!("{made}; CREATE TABLE t (id int PRIMARY KEY, name text COLLATE german, \"Other\" text); CREATE UNIQUE INDEX t_name ON t (name); CREATE INDEX t_other ON t (\"Other\")"),
        );
        let scenario = Scenario::with_database(server, &database);
        assert_eq!(state(&look(&scenario, "collation-version"), "collation-version"), "ok");
        server.sql(&database, "UPDATE pg_collation SET collversion = '0' WHERE collname = 'german'");
        let found = look(&scenario, "collation-version");
        assert_eq!(keys(&found), set(&["collation-version:collation public.german"]), "on {major}");
        let sql = fix(&found["findings"][0]).to_owned();
        assert!(sql.find("REINDEX INDEX CONCURRENTLY public.t_name").unwrap() < sql.find("REFRESH VERSION").unwrap(), "{sql}");
        server.sql(&database, &sql);
        assert_eq!(state(&look(&scenario, "collation-version"), "collation-version"), "ok");
    }
}

#[test]
fn an_index_that_has_a_collation_inside_its_type_is_found_by_the_version() {
    let server = server(15);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE COLLATION german (provider = icu, locale = 'de'); CREATE TYPE address AS (street text COLLATE german, number int); CREATE TYPE words AS RANGE (subtype = text, collation = german);
         CREATE COLLATION unused (provider = icu, locale = 'fr');
         CREATE FUNCTION even(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 % 2 = 0';
         CREATE TABLE t (id int PRIMARY KEY, a address, r words, d jsonb); CREATE INDEX t_a ON t (a); CREATE INDEX t_r ON t (r); CREATE INDEX t_d ON t (d); CREATE INDEX t_even ON t (id) WHERE even(id);
         UPDATE pg_collation SET collversion = '0' WHERE collname IN ('german', 'unused')",
    );
    let scenario = Scenario::with_database(server, &database);
    let found = look(&scenario, "collation-version");
    assert_eq!(keys(&found), set(&["collation-version:collation public.german"]));
    let sql = fix(&found["findings"][0]).to_owned();
    // A function may compare as it likes.
    assert!(["t_a", "t_r", "t_even"].iter().all(|index| sql.contains(&format!("CONCURRENTLY public.{index};"))), "{sql}");
    assert!(!sql.contains("t_d;") && !sql.contains("t_pkey"), "{sql}");
    server.sql(&database, &sql);
    assert_eq!(state(&look(&scenario, "collation-version"), "collation-version"), "ok");
}

fn idle(server: &Server, database: &str, begins: &str) -> std::process::Child {
    use std::io::Write as _;
    let mut psql = server.tool("psql", database);
    psql.env("PGAPPNAME", "web 7").args(["-Xq"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut psql = psql.spawn().unwrap();
    psql.stdin.as_mut().unwrap().write_all(begins.as_bytes()).unwrap();
    psql
}

#[test]
fn sessions_that_idle_in_a_transaction_and_what_holds_back_vacuum_are_named() {
    let server = Server::start_with(18, &["autovacuum_freeze_max_age=100000", "autovacuum=off", "max_prepared_transactions=5"]);
    let database = server.trusted_database();
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY)");
    let scenario = Scenario::with_database(&server, &database).job("quarterly", "database = 'app'\n[audit]\nidle_after = '1s'\n");
    assert_eq!(state(&look(&scenario, "idle-in-transaction"), "idle-in-transaction"), "ok");
    let mut session = idle(&server, &database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t;\n");
    eventually("it idles", || state(&look(&scenario, "idle-in-transaction"), "idle-in-transaction") == "findings");
    assert_eq!(state(&look(&scenario, "xmin-held"), "xmin-held"), "ok", "nothing happened since");
    // A twentieth of autovacuum_freeze_max_age.
    server.sql(
        &database,
        "DO $$ BEGIN FOR i IN 1..6 LOOP FOR j IN 1..1000 LOOP BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; COMMIT; END LOOP; END $$",
    );
    let held = look(&scenario, "xmin-held");
    assert_eq!(keys(&held), set(&["xmin-held:session"]));
    assert!(held["findings"][0]["issue"].as_str().unwrap().contains("of postgres (web 7)"), "{held:#}");
    let found = look(&scenario, "idle-in-transaction");
    assert_eq!(keys(&found), set(&["idle-in-transaction:postgres web N"]));
    assert_eq!(found["findings"][0]["evidence"]["sessions"], 1);
    server.sql(&database, fix(&found["findings"][0]));
    eventually("the session is gone", || state(&look(&scenario, "idle-in-transaction"), "idle-in-transaction") == "ok");
    assert_eq!(state(&look(&scenario, "xmin-held"), "xmin-held"), "ok");
    session.kill().unwrap();
    session.wait().unwrap();

    server.sql(&database, "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'left'");
    server.sql(
        &database,
        "DO $$ BEGIN FOR i IN 1..6 LOOP FOR j IN 1..1000 LOOP BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; COMMIT; END LOOP; END $$",
    );
    let held = look(&scenario, "xmin-held");
    assert_eq!(keys(&held), set(&["xmin-held:prepared transaction left"]));
    server.sql(&database, fix(&held["findings"][0]));
    assert_eq!(state(&look(&scenario, "xmin-held"), "xmin-held"), "ok");
}

#[test]
fn a_server_that_loses_writes_or_trusts_the_network_is_found_where_there_is_something_to_lose() {
    let server = Server::start_with(17, &["fsync=off", "full_page_writes=off"]);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(&server, &database);
    for check in ["durability-off", "checksums-off", "hba-trust"] {
        assert_eq!(state(&look(&scenario, check), check), "ok", "{check} in a small database, on this machine alone");
    }
    server.sql(
        &database,
        "CREATE TABLE t (id int, filler text); INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 100000) i",
    );
    let found = look(&scenario, "durability-off");
    assert_eq!(keys(&found), set(&["durability-off:fsync", "durability-off:full_page_writes"]));
    assert_eq!(found["findings"][0]["level"], "critical");
    assert!(fix(&found["findings"][0]).contains("command line"), "{found:#}");
    assert_eq!(keys(&look(&scenario, "checksums-off")), set(&["checksums-off:data_checksums"]));
    let rules = server.sql("postgres", "SHOW hba_file");
    let before = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("{before}\nhost all all 10.0.0.0/8 trust\nhost all all 127.0.0.0/8 trust\n")).unwrap();
    let found = look(&scenario, "hba-trust");
    assert_eq!(keys(&found), set(&["hba-trust:host all all 10.0.0.0"]), "{found:#}");
    // Only some may read the rules: then it is unknown, and says so.
    server.sql(&database, "CREATE ROLE plain LOGIN");
    let plain = Scenario::with_url(&server, &server.url_as("plain", &database));
    assert_eq!(state(&look(&plain, "hba-trust"), "hba-trust"), "unknown");
}
