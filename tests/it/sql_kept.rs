//! Whether a run of somebody's statements says what was kept of them, and that it does not do twice what may have been done.

use crate::support::postgres::{MAJORS, Server, server};
use crate::support::proxy::Proxy;
use crate::support::serve::sql_job;
use crate::support::{Scenario, eventually, quoted};

const ONE: &str = "transaction = \"one\"\n";
const REPEATABLE: &str = "repeatable = true\n";

/// Database `app` through a way that can be cut, and the ledger on another.
fn through(proxy: &Proxy, server: &Server, database: &str) -> Scenario {
    Scenario::with_url(server, &proxy.url(database))
        .config(&format!("[databases.history]\nurl = {}\n[ledger]\ndatabase = \"history\"\n", quoted(&server.url(database))))
}

/// A trigger that makes each COMMIT of an INSERT into `ran` take some seconds.
const SLOW_COMMIT: &str = "CREATE TABLE ran (i int);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ran DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()";

#[test]
fn a_transaction_that_is_open_at_the_end_is_a_failure_that_says_so_on_every_version() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (i int)");
        let scenario = Scenario::with_database(server, &database)
            .sql_job("open", "", &["INSERT INTO t VALUES (1)", "BEGIN; INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)"])
            .sql_job("ends", "", &["BEGIN", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "INSERT INTO t VALUES (4)", "COMMIT"])
            .sql_job("begins", "", &["INSERT INTO t VALUES (5)", "START TRANSACTION"]);
        let said = scenario.run(&["run-job", "open"]).exited(1);
        said.says(&[
            "the transaction that statement 2 of 3 began is still open at the end, and is rolled back",
            "the statement before it remains committed (1 row). End it with COMMIT",
        ]);
        assert_eq!(server.sql(&database, "SELECT array_agg(i) FROM t"), "{1}", "{major}");
        scenario.run(&["run-job", "ends"]).succeeded();
        scenario.run(&["run-job", "begins"]).exited(1).says(&["statement 2 of 2 began"]);
        assert_eq!(server.sql(&database, "SELECT array_agg(i ORDER BY i) FROM t"), "{1,4,5}", "{major}");
    }
}

#[test]
fn a_transaction_that_a_statement_ends_is_not_all_or_nothing_and_the_run_says_so() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let one = |statements: &[&str]| sql_job("", statements) + ONE;
    let insert = "INSERT INTO t VALUES (1)";
    for (name, ends) in [("commits", "COMMIT"), ("again", "COMMIT; BEGIN"), ("chains", "COMMIT AND CHAIN"), ("rolls", "ROLLBACK")]
    {
        server.sql(&database, "TRUNCATE t");
        let scenario = Scenario::with_database(server, &database).job(name, &one(&[insert, ends, insert]));
        let said = scenario.run(&["run-job", name]).exited(1);
        let kept = if ends == "ROLLBACK" { "0" } else { "1" };
        let stays = match ends {
            "COMMIT; BEGIN" => {
                "everything up to its command 1 of 2 (COMMIT) remains committed (1 row); everything after that is rolled back"
            }
            "ROLLBACK" => "nothing is committed",
            _ => "everything up to its end remains committed (1 row)",
        };
        said.says(&["statement 2 of 3 ended the transaction of the job", "transaction = \"one\" does not hold", ends, stays]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), kept, "{ends}");
    }
    let scenario = Scenario::with_database(server, &database).job("fails", &one(&[insert, "COMMIT; SELECT 1/0", insert])).job(
        "may",
        &one(&["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "RESET ALL", insert, "SAVEPOINT s", "ROLLBACK TO s", insert]),
    );
    let said = scenario.run(&["run-job", "fails"]).exited(1).says(&[
        "statement 2 of 3 failed at its command 2 of 2 (SELECT 1/0); it ended the transaction of the job itself; everything up to its \
         command 1 of 2 (COMMIT) remains committed (1 row); everything after that is rolled back",
    ]);
    assert!(!said.stderr.contains("before it is rolled back"), "{}", said.stderr);
    server.sql(&database, "TRUNCATE t");
    scenario.run(&["run-job", "may"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "2");
}

#[test]
fn what_the_statements_rolled_back_themselves_is_not_said_to_be_kept() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (i int)");
        let rows = "INSERT INTO t SELECT generate_series(1, 3)";
        for (name, statements, kept, rolled_back) in [
            ("text", vec!["INSERT INTO t VALUES (1); ROLLBACK".to_owned()], 0, 1),
            ("on", vec![format!("{rows}; ROLLBACK; INSERT INTO t VALUES (1)")], 1, 3),
            ("list", vec!["BEGIN".to_owned(), rows.to_owned(), "ABORT".to_owned(), "INSERT INTO t VALUES (1)".to_owned()], 1, 3),
            (
                "point",
                vec![format!("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; {rows}; ROLLBACK TO SAVEPOINT a; COMMIT")],
                1,
                3,
            ),
        ] {
            server.sql(&database, "TRUNCATE t");
            let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
            let scenario = Scenario::with_database(server, &database).sql_job(name, "", &statements);
            let report = scenario.json(&["run-job", name]);
            let report = &report["runs"][0]["report"];
            assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), kept.to_string(), "{name} on {major}");
            assert_eq!(
                (report["facts"]["rows"].as_i64(), report["facts"]["rows_rolled_back"].as_i64()),
                (Some(kept), Some(rolled_back)),
                "{report:#}"
            );
            let summary = report["summary"].as_str().unwrap();
            assert!(
                summary.contains(&format!("{rolled_back} row")) && summary.contains("rolled back by the statements themselves"),
                "{summary}"
            );
            assert!(report["warnings"][0].as_str().unwrap().contains("rolled back what they did"), "{report:#}");
        }
    }
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let statements = ["INSERT INTO t VALUES (1)", "SAVEPOINT s", "INSERT INTO t VALUES (2), (3)", "ROLLBACK TO s"];
    let scenario = Scenario::with_database(server, &database).job("one", &(sql_job("", &statements) + ONE));
    scenario.run(&["run-job", "one"]).succeeded().prints(&["4 statements, 1 row; 2 rows rolled back"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "1");
}

#[test]
fn a_failure_inside_a_transaction_of_the_list_says_that_it_is_rolled_back() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let statements =
        ["INSERT INTO t VALUES (1)", "BEGIN; INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)", "SELECT 1/0", "COMMIT"];
    let scenario = Scenario::with_database(server, &database).sql_job("fails", "", &statements);
    let said = scenario.run(&["run-job", "fails"]).exited(1);
    said.says(&["the transaction that statement 2 began is rolled back; the statement before it remains committed (1 row)"]);
    assert_eq!(server.sql(&database, "SELECT array_agg(i) FROM t"), "{1}");
}

#[test]
fn a_commit_without_an_answer_is_unknown_and_repeated_only_where_the_job_allows() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, SLOW_COMMIT);
    let proxy = Proxy::start(server);
    let keys = "retries = 3\nretry_delay = \"200ms\"";
    let insert = ["INSERT INTO ran VALUES (1)"];
    let scenario = through(&proxy, server, &database)
        .job("one", &(sql_job(keys, &insert) + ONE))
        .job("each", &sql_job(keys, &insert))
        .job("again", &(sql_job(keys, &insert) + ONE + REPEATABLE));
    let run_and_cut = |job: &str| {
        eventually("the one before is over", || !server.sleeps(&database));
        let run = scenario.start(&["run-job", job]);
        eventually("it commits", || server.sleeps(&database));
        proxy.cut();
        run
    };
    let outcomes = |job: &str| {
        server.sql(&database, &format!("SELECT string_agg(outcome, ',' ORDER BY id) FROM pgtend.runs WHERE job = '{job}'"))
    };

    let said = run_and_cut("one").wait().exited(1);
    said.says(&["COMMIT was sent, and the connection ended without an answer", "is not known", "it is not tried again"]);
    assert_eq!(outcomes("one"), "failed");
    let said = run_and_cut("each").wait().exited(1);
    said.says(&["statement 1 of 1 was sent", "whether it was committed is not known"]);
    assert_eq!(outcomes("each"), "failed");
    run_and_cut("again").wait().succeeded().says(&["next attempt in"]);
    assert_eq!(outcomes("again"), "failed,succeeded");
    // What nobody knew: a server that finds in time that its client is gone rolls back.
    let rows: u32 = server.sql(&database, "SELECT count(*) FROM ran").parse().unwrap();
    assert!((1..=4).contains(&rows), "{rows}");
}

#[test]
fn what_was_sent_is_not_sent_again_by_the_retries_that_nobody_asked_for() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE ran (i int)");
    let keys = "schedule = \"* * * * *\"\nretry_delay = \"100ms\"";
    let statements = ["INSERT INTO ran VALUES (1)", "SELECT pg_sleep(600)"];
    let scenario = Scenario::with_database(server, &database).ledger().job("once", &sql_job(keys, &statements));
    let run = scenario.start(&["run-job", "once", "--scheduled"]);
    eventually("it sleeps", || server.sleeps(&database));
    let sleepers = format!("FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'PgSleep'");
    server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {sleepers}"));
    run.wait().exited(69).says(&[
        "statement 2 of 2 failed",
        "the statement before it remains committed (1 row)",
        "terminating connection",
    ]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "1");
    assert_eq!(server.sql(&database, "SELECT string_agg(outcome, ','), count(retry_at) FROM pgtend.runs"), "failed|0");

    // Nothing was sent: the default holds.
    let away = Scenario::with_url(server, "postgres://postgres@127.0.0.1:1/x")
        .config(&format!("[databases.history]\nurl = {}\n[ledger]\ndatabase = \"history\"\n", quoted(&server.url(&database))))
        .job("away", &sql_job(keys, &statements));
    let mut run = away.start(&["run-job", "away", "--scheduled"]);
    eventually("it is tried again", || {
        server.sql(&database, "SELECT count(*) > 1 FROM pgtend.runs WHERE job = 'away' AND outcome = 'failed'") == "t"
    });
    assert!(run.is_running());
    run.kill();
}

#[test]
fn a_killed_run_of_statements_is_repeated_only_where_the_job_says_that_it_may() {
    let server = server(18);
    let database = server.new_database();
    let (keys, sleep) = ("retries = 2", ["SELECT pg_sleep(600)"]);
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .job("once", &sql_job(keys, &sleep))
        .job("again", &(sql_job(keys, &sleep) + REPEATABLE));
    for job in ["once", "again"] {
        let run = scenario.start(&["run-job", job]);
        eventually("it sleeps", || server.sleeps(&database));
        run.kill();
        eventually("the server ended its statement", || !server.sleeps(&database));
    }
    let retries = server.sql(&database, "SELECT string_agg(job || ' ' || retries, ', ' ORDER BY id) FROM pgtend.runs");
    assert_eq!(retries, "once 0, again 2", "what whoever finds it dead may do");
}

#[test]
fn what_only_psql_can_do_is_refused_by_check() {
    let scenario = Scenario::with_database(server(18), "postgres").sql_job(
        "psql",
        "",
        &[
            "COPY t FROM STDIN",
            "COPY (SELECT 1) TO STDOUT",
            "LISTEN jobs",
            "\\i other.sql",
            "SELECT 'COPY t FROM STDIN \\d'",
            "COPY t FROM '/x'",
        ],
    );
    let checked = scenario.run(&["check"]).exited(78).says(&[
        "jobs/psql.toml:4:15",
        "`COPY … FROM STDIN` waits for rows",
        "`COPY … TO STDOUT` sends rows",
        "`LISTEN` waits for notifications",
        "a command of psql",
        "backslash commands are read by psql",
    ]);
    assert!(checked.stderr.contains("4 mistakes"), "{}", checked.stderr);
}

#[test]
fn what_a_failing_text_has_committed_itself_is_not_said_to_be_rolled_back() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let statements = ["BEGIN; INSERT INTO t VALUES (1)", "COMMIT; SELECT 1/0"];
    let said = Scenario::with_database(server, &database).sql_job("fails", "", &statements).run(&["run-job", "fails"]).exited(1);
    assert!(!said.stderr.contains("began is rolled back"), "{}", said.stderr);
    said.says(&["everything up to its command 1 of 2 (COMMIT) remains committed (1 row)"]);
    assert_eq!(server.sql(&database, "SELECT array_agg(i) FROM t"), "{1}");
}

#[test]
fn a_run_that_is_stopped_in_a_transaction_of_its_own_does_not_say_that_all_stays() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let statements = ["BEGIN", "INSERT INTO t VALUES (1)", "SELECT pg_sleep(600)"];
    let scenario = Scenario::with_database(server, &database).sql_job("slow", "timeout = \"3s\"\n", &statements);
    scenario.run(&["run-job", "slow"]).exited(1).says(&[
        "statement 3 of 3 was asked to stop; the transaction that statement 1 began is rolled back: SELECT pg_sleep(600)",
    ]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "0");
}

#[test]
fn a_text_that_fails_after_a_commit_of_its_own_says_what_stays() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (i int)");
        let three = "INSERT INTO t SELECT generate_series(1, 3)";
        for (name, text, kept, says) in [
            (
                "kept",
                format!("{three}; COMMIT; INSERT INTO t VALUES (4); INSERT INTO t VALUES ('x')"),
                4,
                &[
                    "statement 2 of 3 failed at its command 4 of 4 (INSERT INTO t VALUES ('x'))",
                    "everything up to its command 2 of 4 (COMMIT) remains committed (4 rows); everything after that is rolled back",
                ][..],
            ),
            (
                "rolled",
                format!("{three}; ROLLBACK; INSERT INTO t VALUES ('x')"),
                1,
                &["the statement before it remains committed (1 row); everything after that is rolled back"],
            ),
            (
                "none",
                format!("{three}; INSERT INTO t VALUES ('x'); COMMIT"),
                1,
                &[
                    "failed at its command 2 of 3",
                    "its commands before that are rolled back; the statement before it remains committed (1 row)",
                ],
            ),
            (
                "within",
                "DO $$ BEGIN INSERT INTO t VALUES (7); COMMIT; PERFORM 1/0; END $$".to_owned(),
                2,
                &["it commits while it runs, so that a part of its work may be committed"],
            ),
        ] {
            server.sql(&database, "TRUNCATE t");
            let statements = ["INSERT INTO t VALUES (0)", &text, "INSERT INTO t VALUES (9)"];
            let said =
                Scenario::with_database(server, &database).sql_job(name, "", &statements).run(&["run-job", name]).exited(1);
            assert_eq!(said.stderr.contains("(COMMIT) remains committed"), name == "kept", "{}", said.stderr);
            said.says(says);
            assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), kept.to_string(), "{name} on {major}");
        }
        // In the transaction of the job.
        server.sql(&database, "TRUNCATE t");
        let one = sql_job("", &["INSERT INTO t VALUES (0)", "SELECT 1/0; COMMIT"]) + ONE;
        let scenario = Scenario::with_database(server, &database).job("one", &one);
        scenario.run(&["run-job", "one"]).exited(1).says(&["everything before it is rolled back"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn a_text_with_a_commit_that_is_cancelled_says_that_a_part_may_have_been_kept() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let text = ["INSERT INTO t VALUES (1); COMMIT; SELECT pg_sleep(600)"];
    let scenario = Scenario::with_database(server, &database)
        .sql_job("each", "timeout = \"3s\"\n", &text)
        .job("one", &(sql_job("timeout = \"3s\"\n", &text) + ONE));
    scenario.run(&["run-job", "each"]).exited(1).says(&["it ends its transaction itself, so that a part of it may be committed"]);
    scenario
        .run(&["run-job", "one"])
        .exited(1)
        .says(&["it ends the transaction itself, so that what came before it may be committed"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "2");
}

#[test]
fn a_commit_before_the_transaction_that_fails_is_named_wherever_it_is() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (i int)");
    let (one, two, fails) = ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2), (3)", "SELECT 1/0");
    let begins_twice = format!("BEGIN; {one}; COMMIT; BEGIN; {two}");
    let rolls_back_later = format!("{one}; COMMIT; {two}; ROLLBACK; {fails}");
    let rolled_back = format!("BEGIN; {two}; ROLLBACK");
    for (name, statements, kept, says) in [
        (
            "earlier-text",
            &[begins_twice.as_str(), fails][..],
            1,
            "the transaction that statement 1 began is rolled back; everything up to command 3 of statement 1 (COMMIT) remains committed (1 row)",
        ),
        (
            "open",
            &[one, begins_twice.as_str()],
            2,
            "everything up to command 3 of statement 2 (COMMIT) remains committed (2 rows)",
        ),
        (
            "same-text",
            &[rolls_back_later.as_str()],
            1,
            "everything up to its command 2 of 5 (COMMIT) remains committed (1 row); everything after that is rolled back",
        ),
        ("rolled-back", &[rolled_back.as_str(), fails], 0, "nothing is committed"),
        (
            "between",
            &[one, rolled_back.as_str(), fails],
            1,
            "statement 1 remains committed (1 row); everything after that is rolled back",
        ),
        (
            "before",
            &[rolled_back.as_str(), one, fails],
            1,
            "the 2 statements before it remain committed (1 row), except for what was rolled back or prepared",
        ),
    ] {
        server.sql(&database, "TRUNCATE t");
        let said = Scenario::with_database(server, &database).sql_job(name, "", statements).run(&["run-job", name]).exited(1);
        said.says(&[says]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), kept.to_string(), "{name}");
    }
}

/// The answer to a COMMIT came after a notification, which the client did not expect there.
#[test]
fn a_commit_whose_answer_is_not_understood_is_unknown_and_never_repeated() {
    let server = server(18);
    for (transaction, statements) in [
        (ONE, &["SELECT listens()", "INSERT INTO t VALUES (1)", "NOTIFY jobs"][..]),
        ("", &["SELECT listens()", "INSERT INTO t VALUES (1); NOTIFY jobs"][..]),
    ] {
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE t (i int); CREATE FUNCTION listens() RETURNS void LANGUAGE plpgsql AS $$ BEGIN LISTEN jobs; END $$",
        );
        let scenario = Scenario::with_database(server, &database)
            .ledger()
            .job("notified", &(sql_job("retries = 2\n", statements) + transaction));
        let output = scenario.run(&["run-job", "notified"]);
        assert!(matches!(output.code, Some(code) if code != 0), "{}", output.stderr);
        assert!(output.stderr.contains("its answer was not understood"), "{}", output.stderr);
        assert!(!output.stderr.contains("rolled back"), "{}", output.stderr);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "1", "{transaction}");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pgtend.runs WHERE retry_at IS NOT NULL"), "0", "{transaction}");
    }
}
