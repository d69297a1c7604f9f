//! What the audit makes of pg_stat_statements: partial indexes for any condition, tried where hypopg is there, and how much of the load only reads.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::{decided, keys, state};
use crate::support::Scenario;
use crate::support::postgres::Server;

const CHECK: &str = "partial-index-candidate";

/// Debian's server has both extensions, if hypopg is installed.
fn with_statements() -> (Server, String) {
    let server = Server::start_with(15, &["shared_preload_libraries=pg_stat_statements"]);
    let database = server.new_database();
    server.sql(&database, "CREATE EXTENSION pg_stat_statements");
    (server, database)
}

/// Few rows are public, of few the job is waiting, half are good; each has as many rows in each of its values.
const SCRIPTS: &str = "CREATE TYPE mood AS ENUM ('sad', 'glad');
     CREATE TABLE scripts (id int PRIMARY KEY, is_public bool NOT NULL, is_old bool NOT NULL, is_good bool NOT NULL, status text NOT NULL, mood mood, title text, checked bool NOT NULL);
     INSERT INTO scripts SELECT i, i % 50 = 0, i % 40 > 0, i % 2 = 0, CASE WHEN i % 30 = 0 THEN 'waiting' ELSE 'done' END, CASE WHEN i % 25 = 0 THEN 'sad' ELSE 'glad' END::mood, repeat('x', 200), i % 50 = 0
     FROM generate_series(1, 20000) i;
     CREATE INDEX scripts_checked ON scripts (id) WHERE checked;
     ANALYZE";

/// Sends statements as often as it takes to be noticed.
fn often(server: &Server, database: &str, statement: &str) {
    server.sql(database, &format!("{statement};\n").repeat(120));
}

fn look(scenario: &Scenario, check: &str) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone()
}

fn set(conditions: &[&str]) -> BTreeSet<String> {
    conditions.iter().map(|condition| format!("{CHECK}:public.scripts{condition}")).collect()
}

fn of<'a>(audit: &'a Value, condition: &str) -> &'a Value {
    let key = format!("{CHECK}:public.scripts{condition}");
    audit["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["key"] == key)
        .unwrap_or_else(|| panic!("no {key}: {audit:#}"))
}

#[test]
fn a_partial_index_is_proposed_for_any_condition_that_few_rows_meet_and_is_said_to_be_untried() {
    let (server, database) = with_statements();
    server.sql(&database, SCRIPTS);
    // The January audit's own example; a boolean by itself, and its opposite; a text and an enum.
    often(&server, &database, "SELECT id FROM scripts WHERE is_public = true ORDER BY id LIMIT 1");
    often(&server, &database, "SELECT id FROM scripts s WHERE NOT s.is_old AND id > 7 LIMIT 1");
    often(&server, &database, "SELECT id FROM scripts WHERE status = 'waiting' LIMIT 1");
    often(&server, &database, "SELECT id FROM scripts WHERE mood = 'sad' LIMIT 1");
    // Half of the rows; one that has such an index; a column that is only read.
    often(&server, &database, "SELECT title FROM scripts WHERE is_good = true LIMIT 1");
    often(&server, &database, "SELECT id FROM scripts WHERE checked = true LIMIT 1");
    let scenario = Scenario::with_database(&server, &database);
    let found = look(&scenario, CHECK);
    assert_eq!(
        keys(&found),
        set(&["(is_public) IS TRUE", "(is_old) IS FALSE", "(status) = a value", "(mood) = a value"]),
        "{found:#}"
    );
    for finding in found["findings"].as_array().unwrap() {
        let issue = finding["issue"].as_str().unwrap();
        assert!(issue.contains("Not tried (hypopg is not installed)") && finding["evidence"]["tried"] == false, "{finding:#}");
        assert!(!issue.contains("waiting") && !issue.contains("sad"), "values of rows stay where they are: {issue}");
    }
    // As it was written there is nothing to decide.
    let written = of(&found, "(is_old) IS FALSE");
    assert_eq!(written["fix"]["sql"], "CREATE INDEX CONCURRENTLY ON public.scripts (id) WHERE NOT is_old;");
    server.sql(&database, written["fix"]["sql"].as_str().unwrap());
    // pg_stat_statements keeps $1: a person says which value it is.
    let compared = of(&found, "(is_public) IS TRUE");
    assert_eq!(compared["evidence"]["share_percent"], 2.0);
    let draft = compared["fix"]["draft"].as_str().unwrap();
    assert_eq!(draft, "CREATE INDEX CONCURRENTLY ON public.scripts (id) WHERE is_public = <VALUE>;");
    assert!(compared["fix"]["sql"].is_null() && server.psql(&database, draft).is_err());
    server.sql(&database, &decided(compared).unwrap());
    assert_eq!(keys(&look(&scenario, CHECK)), set(&["(status) = a value", "(mood) = a value"]));
}

#[test]
fn with_hypopg_only_an_index_that_the_planner_would_use_is_proposed() {
    let (server, database) = with_statements();
    if server.sql(&database, "SELECT count(*) FROM pg_available_extensions WHERE name = 'hypopg'") == "0" {
        eprintln!("skipped: no hypopg (scripts/setup installs it on Debian 12)");
        return;
    }
    server.sql(&database, SCRIPTS);
    // Of a table that is two pages long, no index is worth its reading.
    server.sql(
        &database,
        "CREATE EXTENSION hypopg; CREATE TABLE short (id smallint PRIMARY KEY, rare bool NOT NULL); INSERT INTO short SELECT i, i % 6 = 0 FROM generate_series(1, 1000) i; ANALYZE short",
    );
    often(&server, &database, "SELECT id FROM scripts WHERE is_public = true ORDER BY id LIMIT 1");
    often(&server, &database, "SELECT id FROM short WHERE rare = true");
    let scenario = Scenario::with_database(&server, &database);
    let found = look(&scenario, CHECK);
    assert_eq!(keys(&found), set(&["(is_public) IS TRUE"]), "{found:#}");
    let finding = of(&found, "(is_public) IS TRUE");
    let issue = finding["issue"].as_str().unwrap();
    assert!(issue.contains("Tried with hypopg: the planner uses the index, at a cost of"), "{issue}");
    let tried = &finding["evidence"]["tried"];
    assert!(tried["cost_with_the_index"].as_f64().unwrap() < tried["cost"].as_f64().unwrap() / 2.0, "{finding:#}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_indexes WHERE tablename = 'scripts'"), "2", "nothing was built");
    // Who may not use it is told so, and has the finding all the same.
    server.sql(&database, "CREATE ROLE sees LOGIN; GRANT pg_monitor, pg_read_all_data TO sees; CREATE SCHEMA apart; ALTER EXTENSION hypopg SET SCHEMA apart; REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA apart FROM PUBLIC");
    let found = look(&Scenario::with_url(&server, &server.url_as("sees", &database)), CHECK);
    assert!(of(&found, "(is_public) IS TRUE")["issue"].as_str().unwrap().contains("Not tried"), "{found:#}");
}

#[test]
fn the_baseline_says_how_much_of_the_load_could_go_to_a_replica_and_has_no_statement_of_the_audit() {
    let (server, database) = with_statements();
    server.sql(&database, SCRIPTS);
    server.sql(
        &database,
        "CREATE TABLE seen (id int PRIMARY KEY, at timestamptz); INSERT INTO seen SELECT 1; CREATE SEQUENCE numbers;
         CREATE FUNCTION note() RETURNS int LANGUAGE sql AS 'UPDATE seen SET at = now() RETURNING id'; CREATE FUNCTION twice(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 2 * $1';
         SELECT pg_stat_statements_reset()",
    );
    let reads = [
        "SELECT count(*) FROM scripts WHERE title LIKE 'y%'",
        "WITH x AS (SELECT 1 AS a) SELECT twice(a) FROM x",
        "SELECT pg_sleep(0.001)",
    ];
    let writes = [
        "UPDATE seen SET at = now()",
        "SELECT * FROM seen FOR UPDATE",
        "SELECT * FROM seen FOR KEY SHARE",
        "SELECT nextval('numbers')",
        "SELECT note()",
        "WITH gone AS (DELETE FROM seen WHERE id = 7 RETURNING id) SELECT count(*) FROM gone",
        "SELECT pg_advisory_xact_lock(7)",
    ];
    for statement in reads.iter().chain(&writes) {
        often(&server, &database, statement);
    }
    let job = "database = 'app'\n[audit]\nstore = 'local'\nfail_on = 'never'\n";
    let scenario = Scenario::with_database(&server, &database).job("quarterly", job);
    // What an audit asks takes more time than what an idle application does.
    for _ in 0..3 {
        scenario.run(&["run-job", "quarterly"]).succeeded();
    }
    let json = scenario.files("store").into_iter().filter(|file| file.ends_with(".json")).max().unwrap();
    let document: Value =
        serde_json::from_str(&std::fs::read_to_string(scenario.path(&format!("store/{json}"))).unwrap()).unwrap();
    let top: Vec<(&str, bool)> = document["top_queries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|query| (query["query"].as_str().unwrap(), query["reads_only"].as_bool().unwrap()))
        .collect();
    assert_eq!(top.iter().filter(|(_, reads_only)| *reads_only).count(), reads.len(), "{top:#?}");
    assert_eq!(top.len(), reads.len() + writes.len(), "others than the application's: {top:#?}");
    let statements = &document["baseline"]["statements"];
    assert_eq!((statements["top"].as_u64(), statements["read_only"].as_u64()), (Some(10), Some(3)), "{statements}");
    let (some, all) = (statements["read_only_seconds"].as_f64().unwrap(), statements["seconds"].as_f64().unwrap());
    assert!(some > 0.1 && some < all, "{statements}");
    assert_eq!(document["baseline"]["work_mem_bytes"], 4 << 20);
    assert!(document["baseline"]["hit_percent"].as_f64().unwrap() > 50.0, "{}", document["baseline"]);
    let lines = [
        "## Baseline",
        "| Statements that only read | 3 of the 10",
        "| Temporary files | 0",
        "| Blocks found in shared\\_buffers |",
    ];
    scenario.run(&["audit", "--database", "app", "--format", "markdown", "--fail-on", "never"]).succeeded().prints(&lines);
    assert_eq!(state(&document, "top-queries"), "ok");
}
