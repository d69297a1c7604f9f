//! A refresh that is killed at each of its steps: the name always has a whole database, and the next run repairs.

use rustix::process::Signal;

use crate::refresh::{Stage, stage};
use crate::refresh_strangers::is_waiting;
use crate::support::eventually;
use crate::support::postgres::Server;

/// The steps at which something sleeps while a role of this name exists.
const SLOW: &str = "slow";

fn set_slow(server: &Server, is_slow: bool) {
    server.sql(
        "postgres",
        &format!("DROP ROLE IF EXISTS {SLOW}; {}", if is_slow { format!("CREATE ROLE {SLOW}") } else { String::new() }),
    );
}

fn sleeping(what: &str) -> String {
    format!("SELECT {what} FROM pg_sleep(CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = '{SLOW}') THEN 60 ELSE 0 END)")
}

fn server() -> Server {
    Server::start_with(18, &["max_prepared_transactions=5"])
}

/// Whether a refresh is renaming the database at this moment.
fn is_renaming(server: &Server) -> bool {
    server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'ALTER DATABASE%RENAME TO%' AND pid <> pg_backend_pid()") != "0"
}

fn sleeps_in_a_copy(server: &Server, stage: &Stage) -> bool {
    stage.copies(server).iter().any(|copy| server.sleeps(copy))
}

/// Stops a run when `is_there`, and looks at what is left; then runs it again.
fn stopped(server: &Server, stage: &Stage, signal: Signal, is_there: impl Fn() -> bool, clear: impl Fn()) {
    let mut running = stage.scenario.start(&["run-job", "refresh"]);
    eventually("the run has come to that step", || {
        assert!(running.is_running(), "it has ended before");
        is_there()
    });
    running.signal(signal);
    let output = running.wait();
    // The server may be at its last statement.
    eventually("the database can be read", || server.psql(&stage.staging, "SELECT 1").is_ok());
    assert_eq!(server.sql(&stage.staging, "SELECT x FROM of_staging"), "1", "{}", output.stderr);
    assert_eq!(stage.old(server), Vec::<String>::new());
    clear();
    if signal != Signal::KILL {
        assert_eq!(stage.copies(server), Vec::<String>::new(), "{}", output.stderr);
    } else {
        assert_eq!(stage.copies(server).len(), 1);
    }
    let report = stage.facts("refresh");
    if signal == Signal::KILL {
        assert_eq!(report["facts"]["dropped_databases"].as_array().map(Vec::len), Some(1), "{report:#}");
    }
    assert_eq!(stage.copies(server), Vec::<String>::new());
    assert_eq!(stage.old(server).len(), 1);
    assert_eq!(server.sql(&stage.staging, "SELECT count(*) FROM users"), "3");
}

#[test]
fn a_run_that_is_stopped_while_it_restores_leaves_the_database_and_the_next_one_repairs() {
    let server = server();
    for signal in [Signal::KILL, Signal::TERM] {
        let stage = stage(&server, &server, "");
        server.sql(
            &stage.source,
            &format!("CREATE FUNCTION slowly(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_catalog.pg_sleep(CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{SLOW}') THEN 60 ELSE 0 END); RETURN i; END $$;
             CREATE INDEX ON users (slowly(id))"),
        );
        std::thread::sleep(std::time::Duration::from_millis(1100));
        stage.scenario.run(&["run-job", "nightly"]).succeeded();
        set_slow(&server, true);
        stopped(&server, &stage, signal, || sleeps_in_a_copy(&server, &stage), || set_slow(&server, false));
    }
}

#[test]
fn a_run_that_is_stopped_in_the_users_sql_leaves_the_database_and_the_next_one_repairs() {
    let server = server();
    for signal in [Signal::KILL, Signal::TERM] {
        for keys in [format!("after = [\"{}\"]", sleeping("1")), format!("expect = [\"{}\"]", sleeping("true"))] {
            let stage = stage(&server, &server, &keys);
            let app = format!("app_{}", stage.staging);
            server.sql("postgres", &format!("CREATE ROLE {app} LOGIN; GRANT CONNECT ON DATABASE {} TO {app}", stage.staging));
            set_slow(&server, true);
            let is_there = || {
                if !sleeps_in_a_copy(&server, &stage) {
                    return false;
                }
                // Nobody else sees it.
                let copy = stage.copies(&server).remove(0);
                let mut psql = server.tool("psql", &copy);
                let seen = psql.args(["-XqAt", "-c", "SELECT 1", &server.url_as(&app, &copy)]).output().unwrap();
                assert!(!seen.status.success());
                true
            };
            stopped(&server, &stage, signal, is_there, || set_slow(&server, false));
        }
    }
}

#[test]
fn a_run_that_is_stopped_while_it_waits_or_renames_leaves_the_database_and_the_next_one_repairs() {
    let server = server();
    for signal in [Signal::KILL, Signal::TERM] {
        // It waits for a session.
        let stage_1 = stage(&server, &server, "terminate = true\nwait = \"60s\"");
        let session = server.session(&stage_1.staging, "SELECT 1");
        let waits = || is_waiting(&server, &stage_1.staging);
        let session = std::cell::RefCell::new(Some(session));
        stopped(&server, &stage_1, signal, waits, || drop(session.take()));

        // It is in the transaction that renames, which a prepared transaction keeps waiting.
        let stage_2 = stage(&server, &server, "");
        let prepared = format!("p_{}", stage_2.staging);
        server.sql(&stage_2.staging, &format!("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION '{prepared}'"));
        let clear = || {
            // A signal does not interrupt it.
            eventually("nothing is renaming", || !is_renaming(&server));
            server.sql(&stage_2.staging, &format!("ROLLBACK PREPARED '{prepared}'"));
        };
        stopped(&server, &stage_2, signal, || is_renaming(&server), clear);
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_leaves_a_whole_database_under_the_name() {
    let server = server();
    let stage = stage(
        &server,
        &server,
        "terminate = true\nwait = \"1ms\"\nkeep_old = \"1s\"\nafter = [\"UPDATE users SET email = 'masked'\"]",
    );
    let Stage { staging, .. } = &stage;
    let started = std::time::Instant::now();
    stage.facts("refresh");
    let whole = started.elapsed();
    for part in 0..12 {
        let running = stage.scenario.start(&["run-job", "refresh"]);
        std::thread::sleep(whole * part / 10);
        running.kill();
        eventually("the database can be read", || server.psql(staging, "SELECT 1").is_ok());
        assert_eq!(server.sql(staging, "SELECT count(*) FROM users WHERE email = 'masked'"), "3", "part {part}");
    }
    stage.facts("refresh");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    stage.facts("refresh");
    assert_eq!(stage.copies(&server), Vec::<String>::new());
    assert_eq!(stage.old(&server).len(), 1);
}
