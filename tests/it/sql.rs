//! The user's own statements: what is reported of them, and what a failure leaves.

use rustix::process::Signal;

use crate::support::postgres::{SOME_MAJORS, server};
use crate::support::{Scenario, eventually};

#[test]
fn statements_run_in_order_with_their_rows_in_the_report_on_every_version() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let scenario = Scenario::with_database(server, &database).sql_job(
            "several",
            "",
            &[
                "CREATE TABLE t (i int)",
                "INSERT INTO t SELECT generate_series(1, 1200)",
                "DELETE FROM t WHERE i > 1000",
                "SELECT FROM t",
                "ANALYZE t",
            ],
        );
        let ran = scenario.json(&["run-job", "several"]);
        let report = &ran["runs"][0]["report"];
        assert_eq!(report["summary"], "5 statements, 2,400 rows", "{major}: {ran}");
        let statements = report["facts"]["statements"].as_array().unwrap();
        let rows: Vec<u64> = statements.iter().map(|statement| statement["rows"].as_u64().unwrap()).collect();
        // CREATE TABLE and ANALYZE count nothing.
        assert_eq!(rows, [0, 1200, 200, 1000, 0], "{major}: {ran}");
        assert_eq!(statements[1]["statement"], "INSERT INTO t SELECT generate_series(1, 1200)");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "1000");
    }
}

#[test]
fn notices_and_warnings_are_in_the_report() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job(
        "talks",
        "",
        &["DROP TABLE IF EXISTS missing", "DO $$ BEGIN RAISE WARNING 'look at %', 'this'; RAISE NOTICE 'all is well'; END $$"],
    );
    let ran = scenario.json(&["run-job", "talks"]);
    let report = &ran["runs"][0]["report"];
    assert_eq!(report["warnings"], serde_json::json!(["look at this"]), "{ran}");
    assert_eq!(
        report["facts"]["notices"],
        serde_json::json!(["table \"missing\" does not exist, skipping", "all is well"]),
        "{ran}"
    );
    scenario.run(&["run-job", "talks"]).succeeded().says(&["WARN", "look at this"]);
    scenario.run(&["runs", "show", "1"]).succeeded().prints(&["warning", "look at this", "all is well"]);
}

#[test]
fn each_keeps_what_was_done_before_a_failure_and_one_rolls_it_back() {
    let server = server(18);
    let database = server.new_database();
    let statements = "statements = [\"CREATE TABLE IF NOT EXISTS kept (i int)\", \"INSERT INTO kept VALUES (1)\", \"INSERT INTO kept\\n  VALUES ('two')\", \"INSERT INTO kept VALUES (3)\"]";
    let scenario = Scenario::with_database(server, &database)
        .job("each", &format!("database = \"app\"\n[sql]\n{statements}\n"))
        .job("one", &format!("database = \"app\"\n[sql]\ntransaction = \"one\"\n{statements}\n"));
    scenario.run(&["run-job", "one"]).exited(1).says(&[
        "statement 3 of 4 failed",
        "everything before it is rolled back",
        "INSERT INTO kept VALUES ('two')",
        "invalid input syntax for type integer",
    ]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('kept') IS NULL"), "t");
    scenario
        .run(&["run-job", "each"])
        .exited(1)
        .says(&["statement 3 of 4 failed", "the 2 statements before it remain committed (1 row)"]);
    assert_eq!(server.sql(&database, "SELECT array_agg(i) FROM kept"), "{1}");
}

#[test]
fn one_transaction_that_goes_well_is_committed() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).job(
        "one",
        "database = \"app\"\n[sql]\ntransaction = \"one\"\nstatements = [\"CREATE TABLE t AS SELECT txid_current() AS id\", \"INSERT INTO t SELECT txid_current()\"]\n",
    );
    scenario.run(&["run-job", "one"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT id) FROM t"), "2|1");
}

#[test]
fn a_commit_that_fails_is_a_failure() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    let scenario = Scenario::with_database(server, &database).job(
        "late",
        "database = \"app\"\n[sql]\ntransaction = \"one\"\nstatements = [\"INSERT INTO t VALUES (1)\", \"INSERT INTO t VALUES (1)\"]\n",
    );
    scenario.run(&["run-job", "late"]).exited(1).says(&["cannot commit; everything is rolled back", "duplicate key"]);
}

#[test]
fn vacuum_runs_where_each_statement_is_by_itself() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let scenario =
        Scenario::with_database(server, &database).sql_job("each", "", &["VACUUM (ANALYZE) t", "REINDEX TABLE CONCURRENTLY t"]);
    scenario.run(&["run-job", "each"]).succeeded();
    let one = "database = \"app\"\n[sql]\ntransaction = \"one\"\nstatements = [\"ANALYZE t\", \"VACUUM t\"]\n";
    let checked = scenario.job("one", one).run(&["check"]).exited(78);
    checked.says(&["cannot run inside a transaction", "transaction = \"each\"", "jobs/one.toml:4"]);
}

#[test]
fn a_statement_does_not_wait_long_for_a_lock() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE taken ()");
    let mut holder = server.tool("psql", &database);
    holder.args(["-Xqc", "BEGIN", "-c", "LOCK TABLE taken", "-c", "SELECT pg_sleep(600)"]);
    let mut holder = holder.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    eventually("somebody has the lock", || server.sleeps(&database));
    let scenario = Scenario::with_database(server, &database).job(
        "waits",
        "database = \"app\"\n[sql]\nlock_timeout = \"200ms\"\nstatements = [\"SELECT 1\", \"ALTER TABLE taken ADD x int\"]\n",
    );
    let output = scenario.run(&["run-job", "waits"]);
    server.sql(
        "postgres",
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'"
        ),
    );
    holder.wait().unwrap();
    output.exited(1).says(&["statement 2 of 2 failed", "ALTER TABLE taken", "lock timeout"]);
}

#[test]
fn a_statement_that_takes_too_long_fails() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .job("slow", "database = \"app\"\n[sql]\nstatement_timeout = \"300ms\"\nstatements = [\"SELECT pg_sleep(600)\"]\n");
    scenario.run(&["run-job", "slow"]).exited(1).says(&["statement 1 of 1 failed", "pg_sleep", "statement timeout"]);
    eventually("it ended in the server too", || !server.sleeps(&database));
}

#[test]
fn a_dry_run_lists_the_statements_and_runs_none() {
    let server = server(18);
    let database = server.new_database();
    let scenario =
        Scenario::with_database(server, &database).ledger().sql_job("acts", "", &["CREATE TABLE a ()", "CREATE TABLE\n  b ()"]);
    scenario.run(&["run-job", "acts", "--dry-run"]).succeeded().prints(&[
        "Would run on postgres@",
        "PostgreSQL 18",
        "1. CREATE TABLE a ()",
        "2. CREATE TABLE",
        "statement_timeout 1h, lock_timeout 5s",
    ]);
    let json = scenario.json(&["run-job", "acts", "--dry-run"]);
    assert_eq!(json["runs"][0]["plan"]["statements"][0], "CREATE TABLE a ()");
    let there =
        server.sql(&database, "SELECT to_regclass('a') IS NULL, to_regclass('b') IS NULL, to_regnamespace('pgtend') IS NULL");
    assert_eq!(there, "t|t|t", "not even the ledger is written");
}

#[test]
fn a_cancelled_run_stops_its_statement_in_the_server_and_rolls_back() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).job(
        "one",
        "database = \"app\"\n[sql]\ntransaction = \"one\"\nstatements = [\"CREATE TABLE t ()\", \"SELECT pg_sleep(600)\"]\n",
    );
    let run = scenario.start(&["run-job", "one"]);
    eventually("it sleeps", || server.sleeps(&database));
    run.signal(Signal::TERM);
    run.wait().exited(143).says(&["cancelled"]);
    eventually("the statement ended", || !server.sleeps(&database));
    eventually("its transaction is rolled back", || {
        server.sql(&database, "SELECT to_regclass('t') IS NULL") == "t"
            && server.sql("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")) == "0"
    });
}

#[test]
fn a_cancelled_run_ends_when_its_statement_has() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).sql_job(
        "tidies",
        "",
        &["DO $$ BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(1.5); END $$"],
    );
    let run = scenario.start(&["run-job", "tidies"]);
    eventually("it sleeps", || server.sleeps(&database));
    run.signal(Signal::TERM);
    run.wait().exited(143);
    assert!(!server.sleeps(&database), "the next run would find it at work");
}

#[test]
fn a_server_that_ends_the_connection_is_unreachable_and_says_why() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).sql_job("slow", "", &["SELECT pg_sleep(600)"]);
    let run = scenario.start(&["run-job", "slow"]);
    eventually("it sleeps", || server.sleeps(&database));
    server.sql(
        "postgres",
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'"
        ),
    );
    run.wait().exited(69).says(&["statement 1 of 1 failed", "terminating connection due to administrator command"]);
}

#[test]
fn check_refuses_what_is_no_statement_and_two_tasks_in_a_file() {
    let scenario = Scenario::with_database(server(18), "postgres")
        .sql_job("empty", "", &["SELECT 1", "  ; ", ""])
        .sql_job("none", "", &[])
        .job("both", "database = \"app\"\n[sql]\nstatements = [\"SELECT 1\"]\n[backup]\nstore = \"local\"\n")
        .job("odd", "database = \"app\"\n[sql]\nstatements = [\"SELECT 1\"]\ntransaction = \"some\"\nlock_timeout = \"soon\"\n");
    let checked = scenario.run(&["check"]).exited(78);
    assert_eq!(checked.stderr.matches("an empty statement").count(), 2, "{}", checked.stderr);
    checked.says(&[
        "jobs/empty.toml:4:26",
        "`statements` is empty",
        "more than one task: [backup] and [sql]",
        "unknown value `some`",
        "`soon` is not a length of time",
    ]);
}
