//! Transactions that the user's statements prepare: every run that leaves one names it.

use rustix::process::Signal;

use crate::support::postgres::{SOME_MAJORS, Server};
use crate::support::proxy::Proxy;
use crate::support::serve::sql_job;
use crate::support::{Scenario, eventually};

const ONE: &str = "transaction = \"one\"\n";

#[test]
fn a_prepared_transaction_is_kept_when_committed_and_named_when_left() {
    for major in SOME_MAJORS {
        let server = Server::start_with(major, &["max_prepared_transactions=5"]);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (i int)");
        let prepare = "BEGIN; INSERT INTO t VALUES (1), (2); PREPARE TRANSACTION 'it''s'";
        let (commit, roll_back) = ("COMMIT PREPARED 'it''s'", "ROLLBACK PREPARED 'it''s'");
        let rows = || server.sql(&database, "SELECT count(*) FROM t");
        let scenario = Scenario::with_database(&server, &database)
            .ledger()
            .sql_job("left", "", &["INSERT INTO t VALUES (0)", prepare])
            .sql_job("commits", "", &[prepare, commit])
            .sql_job("rolls-back", "", &[prepare, roll_back])
            .sql_job("of-another", "", &[commit])
            .sql_job("fails", "", &[prepare, "SELECT 1/0"])
            .sql_job("fails-in-it", "", &[&format!("{prepare}; SELECT 1/0")])
            .job("one", &(sql_job("", &["INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'it''s'"]) + ONE));
        let named = |rows: &str| {
            format!(
                "prepared transaction 'it''s' holds {rows}: neither committed nor rolled back until COMMIT PREPARED 'it''s' or ROLLBACK \
                 PREPARED 'it''s'"
            )
        };

        let said = scenario.run(&["run-job", "left"]).exited(1);
        said.says(&["leave a transaction behind", &named("2 rows"), "it keeps its locks"]);
        let kept = "SELECT report -> 'facts' ->> 'rows' || ' ' || (report -> 'facts' ->> 'prepared_transactions') FROM pgtend.runs WHERE job = 'left'";
        assert_eq!(server.sql(&database, kept), r#"1 [{"name": "it's", "rows": 2}]"#, "on {major}");
        assert_eq!(rows(), "1", "on {major}");
        scenario.run(&["run-job", "of-another"]).succeeded().prints(&["1 statement, 0 rows"]);
        assert_eq!(rows(), "3", "on {major}");

        scenario.run(&["run-job", "commits"]).succeeded().prints(&["2 statements, 2 rows"]);
        assert_eq!(rows(), "5", "on {major}");
        let report = scenario.json(&["run-job", "rolls-back"]);
        let facts = &report["runs"][0]["report"]["facts"];
        assert_eq!((facts["rows"].as_u64(), facts["rows_rolled_back"].as_u64()), (Some(0), Some(2)), "{report:#}");
        assert_eq!(rows(), "5", "on {major}");

        for (job, held) in [("fails", "2 rows"), ("fails-in-it", "2 rows"), ("one", "1 row")] {
            scenario.run(&["run-job", job]).exited(1).says(&[&named(held)]);
            server.sql(&database, roll_back);
            assert_eq!(rows(), "5", "{job} on {major}");
        }
        let checked = scenario.job("never", &(sql_job("", &[commit]) + ONE)).run(&["check"]).exited(78);
        checked.says(&["cannot run inside a transaction"]);
    }
}

#[test]
fn a_run_that_is_stopped_or_cut_off_names_what_its_text_has_prepared() {
    for major in SOME_MAJORS {
        let server = Server::start_with(major, &["max_prepared_transactions=5"]);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (i int)");
        let text = ["BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left'; SELECT pg_sleep(600)"];
        let left = "prepared transaction 'left' is left behind: neither committed nor rolled back until COMMIT PREPARED 'left' or ROLLBACK \
                    PREPARED 'left'";
        let scenario =
            Scenario::with_database(&server, &database).sql_job("each", "", &text).job("one", &(sql_job("", &text) + ONE));
        let roll_back = || server.sql(&database, "ROLLBACK PREPARED 'left'");
        for job in ["each", "one"] {
            let run = scenario.start(&["run-job", job]);
            eventually("it sleeps", || server.sleeps(&database));
            run.signal(Signal::TERM);
            run.wait().exited(143).says(&[left, "was asked to stop"]);
            roll_back();
        }
        let run = scenario.start(&["run-job", "each"]);
        eventually("it sleeps", || server.sleeps(&database));
        let sleepers = format!("FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'");
        server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {sleepers}"));
        // Before it ends, the server sends the answers that it had held back.
        run.wait().exited(69).says(&[
            "prepared transaction 'left' holds 1 row",
            "ROLLBACK PREPARED 'left'",
            "terminating connection",
        ]);
        roll_back();

        let proxy = Proxy::start(&server);
        let scenario = Scenario::with_url(&server, &proxy.url(&database)).sql_job("cut", "", &text);
        let run = scenario.start(&["run-job", "cut"]);
        eventually("it sleeps", || server.sleeps(&database));
        proxy.cut();
        run.wait().exited(1).says(&[left, "the connection ended without an answer"]);
        roll_back();
    }
}

#[test]
fn a_run_that_does_not_reach_the_server_again_says_where_to_look_for_what_it_prepared() {
    let server = Server::start_with(18, &["max_prepared_transactions=5"]);
    let database = server.new_database();
    let text = ["BEGIN; PREPARE TRANSACTION 'x'; SELECT pg_sleep(600)"];
    let proxy = Proxy::start(&server);
    let scenario = Scenario::with_url(&server, &proxy.url(&database)).sql_job("cut", "", &text);
    let run = scenario.start(&["run-job", "cut"]);
    eventually("it sleeps", || server.sleeps(&database));
    proxy.close();
    run.wait().exited(1).says(&[
        "prepared transaction 'x' may be left behind: look for it in pg_prepared_xacts, and end it with COMMIT PREPARED 'x' or ROLLBACK \
         PREPARED 'x'",
    ]);
}

#[test]
fn a_prepared_transaction_is_named_as_the_server_names_it_however_it_was_written() {
    let server = Server::start_with(18, &["max_prepared_transactions=5"]);
    let database = server.new_database();
    for (written, name) in [
        (r"U&'d\0061t\+000061'", "data"),
        (r"U&'d!0061t!0061' UESCAPE '!'", "data"),
        (r"E'a\x62\143\u0064\''", "abcd'"),
        (r"E'\xc3\xa9'", "é"),
    ] {
        let quoted = format!("'{}'", name.replace('\'', "''"));
        let scenario = Scenario::with_database(&server, &database)
            .sql_job("leaves", "", &["BEGIN", "CREATE TABLE u ()", &format!("PREPARE TRANSACTION {written}")])
            .sql_job("ends", "", &[&format!("BEGIN; PREPARE TRANSACTION {written}"), &format!("ROLLBACK PREPARED {quoted}")]);
        scenario.run(&["run-job", "leaves"]).exited(1).says(&[&format!("prepared transaction {quoted} holds 0 rows")]);
        assert_eq!(server.sql(&database, "SELECT gid FROM pg_prepared_xacts"), name, "{written}");
        server.sql(&database, &format!("ROLLBACK PREPARED {quoted}"));
        scenario.run(&["run-job", "ends"]).succeeded();
    }
}

#[test]
fn outside_of_a_transaction_nothing_is_prepared_and_the_run_says_so() {
    for major in SOME_MAJORS {
        let server = Server::start_with(major, &["max_prepared_transactions=5"]);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (i int)");
        let scenario = Scenario::with_database(&server, &database)
            .sql_job("nothing", "", &["INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'x'"])
            .sql_job("implicit", "", &["INSERT INTO t VALUES (2); PREPARE TRANSACTION 'x'"]);
        let report = scenario.json(&["run-job", "nothing"]);
        let report = &report["runs"][0]["report"];
        assert_eq!(report["summary"], "2 statements, 1 row", "{report:#}");
        let warnings: Vec<&str> = report["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert!(
            warnings.contains(&"PREPARE TRANSACTION 'x' prepared nothing, because no transaction was open: begin one with BEGIN"),
            "{warnings:?}"
        );
        let there = "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM pg_prepared_xacts)";
        assert_eq!(server.sql(&database, there), "1|0", "on {major}");
        // The commands of one text are a transaction.
        scenario.run(&["run-job", "implicit"]).exited(1).says(&["prepared transaction 'x' holds 1 row"]);
        assert_eq!(server.sql(&database, there), "1|1", "on {major}");
    }
}

#[test]
fn a_commit_before_a_prepared_transaction_is_named_when_the_text_fails() {
    let server = Server::start_with(18, &["max_prepared_transactions=5"]);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let text = "INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'x'; SELECT 1/0";
    Scenario::with_database(&server, &database).sql_job("fails", "", &[text]).run(&["run-job", "fails"]).exited(1).says(&[
        "everything up to its command 2 of 5 (COMMIT) remains committed (1 row); everything after that is rolled back or prepared",
        "prepared transaction 'x' holds 1 row",
    ]);
    assert_eq!(server.sql(&database, "SELECT array_agg(i) FROM t"), "{1}");
}
