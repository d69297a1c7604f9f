//! Several runners, and what stands between them: limits over all of them, locks of the dead and of strangers, a ledger that takes no
//! rows.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, becomes, history, hours_ago, long_known, sql_job, with_ledger};
use crate::support::{Scenario, eventually, faketime, quoted};

#[test]
fn no_more_runs_on_a_database_than_it_allows_whoever_starts_them() {
    let server = server(18);
    let database = server.new_database();
    let url = |database: &str| quoted(&server.url(database));
    // One for each: two runs of a job on one database exclude each other.
    let (a, b) = (server.new_database(), server.new_database());
    let mut scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.one]\nurl = {}\nmax_concurrent = 1\n", url(&database)))
        .config(&format!("[databases.a]\nurl = {}\nmax_concurrent = 2\ngroup = \"host\"\n", url(&a)))
        .config(&format!("[databases.b]\nurl = {}\nmax_concurrent = 2\ngroup = \"host\"\n", url(&b)))
        .ledger();
    let schedule = hours_ago();
    let names: Vec<String> = (0..8).map(|number| format!("j{number}")).collect();
    for name in &names {
        let job = format!(
            "databases = [\"one\", \"a\", \"b\"]\nschedule = \"{schedule}\"\n[sql]\nstatements = [\"SELECT pg_sleep(0.4)\"]\n"
        );
        scenario = scenario.job(name, &job);
    }
    scenario.run(&["runs"]).succeeded();
    for (name, on) in names.iter().flat_map(|name| ["one", "a", "b"].map(|on| (name, on))) {
        server.sql(
            &database,
            &format!("INSERT INTO pgtend.schedules VALUES ('{name}', '{on}', '{schedule} UTC', now() - interval '3 days')"),
        );
    }
    let (_first, _second) = (Serving::ready(&scenario, "max_concurrent = 16"), Serving::ready(&scenario, "max_concurrent = 16"));
    becomes(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", "24");

    let at_once = |databases: &str| {
        format!(
            "WITH r AS (SELECT * FROM pgtend.runs WHERE database IN ({databases}))
             SELECT max((SELECT count(*) FROM r b WHERE b.locked_at <= a.locked_at AND b.finished_at > a.locked_at)) FROM r a"
        )
    };
    assert_eq!(asked(server, &database, &at_once("'one'")), "1", "{}", history(server, &database));
    assert_eq!(asked(server, &database, &at_once("'a', 'b'")), "2", "{}", history(server, &database));
}

#[test]
fn a_run_that_waits_for_its_place_says_for_whom_and_takes_it_when_it_is_free() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .config(&format!(
            "[databases.one]\nurl = {}\nmax_concurrent = 1\n[ledger]\ndatabase = \"one\"\n",
            quoted(&server.url(&database))
        ))
        .job("first", "database = \"one\"\n[sql]\nstatements = [\"SELECT pg_sleep(600)\"]\n")
        .job("second", "database = \"one\"\ntimeout = \"30s\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    let first = scenario.start(&["run-job", "first"]);
    eventually("the first sleeps", || server.sleeps(&database));
    let before = server.sql(&database, "SELECT clock_timestamp()");
    let second = scenario.start(&["run-job", "second"]);
    // It asks for its own locks, then each second whether a place is free, and says for whom it waits after the first refusal.
    let mut asked_at = BTreeSet::new();
    eventually("the second has asked for a place several times", || {
        asked_at.insert(server.sql(
            &database,
            &format!(
                "SELECT max(query_start) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'
                     AND query LIKE '%pg_try_advisory_lock%' AND backend_start > '{before}'"
            ),
        ));
        asked_at.len() > 5
    });
    first.kill();
    second.wait().succeeded().says(&["waits until fewer than 1 run on database `one` (max_concurrent), as server process"]);
}

#[test]
fn max_concurrent_of_a_database_needs_a_ledger() {
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = 'postgres://x@localhost/app'\nmax_concurrent = 0\n[databases.b]\nurl = 'postgres://x@localhost/b'\ngroup = 'x'\n")
        .sql_job("a", "", &["SELECT 1"]);
    scenario.run(&["check"]).exited(78).says(&["needs a [ledger]", "`max_concurrent = 0`", "`group` without `max_concurrent`"]);
}

/// Stops or continues a server process: it is busy, or it is not.
fn signal(pid: &str, signal: &str) {
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[test]
fn a_killed_run_that_is_restarted_at_once_waits_for_its_lock_and_is_not_busy() {
    let server = server(18);
    for with_ledger in [true, false] {
        let database = server.new_database();
        let scenario = Scenario::with_database(server, &database);
        let scenario = if with_ledger { scenario.ledger() } else { scenario };
        let scenario = scenario.sql_job("slow", "", &["SELECT pg_sleep(600)"]);
        let first = scenario.start(&["run-job", "slow"]);
        eventually("it sleeps", || server.sleeps(&database));
        let holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('pgtend job app/slow', 0)";
        let holder = server.sql(&database, holder);
        // A server that is too busy to see that its client is gone.
        signal(&holder, "-STOP");
        first.kill();
        let scenario = scenario.sql_job("slow", "", &["SELECT 1"]);
        let mut second = scenario.start(&["run-job", "slow"]);
        let waits =
            format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE '%connected since%'");
        eventually("it asks who holds the lock", || server.sql("postgres", &waits) == "t" || !second.is_running());
        assert!(second.is_running(), "it waits");
        signal(&holder, "-CONT");
        second.wait().succeeded();
    }
}

#[test]
fn a_lock_that_a_stranger_holds_is_named_and_free_when_he_ends() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("nightly", "", &["SELECT 1"]);
    let stranger = server.session(&database, "SELECT pg_advisory_lock(hashtextextended('pgtend job app/nightly', 0))");
    scenario.run(&["run-job", "nightly"]).exited(75).says(&[
        "already running",
        "held by server process",
        "psql",
        "connected since",
    ]);
    assert_eq!(server.sql(&database, "SELECT outcome FROM pgtend.runs"), "skipped");
    drop(stranger);
    eventually("it runs again", || scenario.run(&["run-job", "nightly"]).code == Some(0));
}

#[test]
fn a_ledger_in_recovery_is_unreachable_and_says_so() {
    let primary = Server::start(18);
    let database = primary.new_database();
    let scenario = Scenario::with_database(&primary, &database).ledger().sql_job("a", "", &["SELECT 1"]);
    scenario.run(&["run-job", "a"]).succeeded();
    let standby = primary.standby();
    standby.catches_up(&primary);
    let scenario = Scenario::with_database(&primary, &database)
        .config(&format!("[databases.history]\nurl = {}\n[ledger]\ndatabase = \"history\"\n", quoted(&standby.url(&database))))
        .sql_job("a", "", &["CREATE TABLE never ()"]);
    scenario.run(&["run-job", "a"]).exited(69).says(&["ledger", "it is a standby, which is read-only"]);
    assert_eq!(primary.sql(&database, "SELECT to_regclass('never') IS NULL"), "t");
}

#[test]
fn a_ledger_that_somebody_made_read_only_midway_takes_the_end_all_the_same() {
    let server = server(18);
    let (history, database) = (server.new_database(), server.new_database());
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.history]\nurl = {}\n[ledger]\ndatabase = \"history\"\n", quoted(&server.url(&history))))
        .sql_job("a", "", &["SELECT pg_sleep(2)"]);
    let run = scenario.start(&["run-job", "a"]);
    eventually("it sleeps", || server.sleeps(&database));
    server.sql("postgres", &format!("ALTER DATABASE {history} SET default_transaction_read_only = on"));
    // What is idle there is the pool's; the lock's connection is left alone, or the run would have to stop.
    let pool = format!(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE datname = '{history}'
         AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory')"
    );
    server.sql("postgres", &pool);
    run.wait().succeeded();
    assert_eq!(server.sql(&history, "SELECT outcome FROM pgtend.runs"), "succeeded");
}

#[test]
fn the_hour_that_comes_twice_has_one_run_of_a_cron_job_that_kubernetes_starts_twice() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job(
        "nightly",
        &sql_job("schedule = \"0 2 * * *\"\ntimezone = \"Europe/Berlin\"\ncatch_up_within = \"12h\"", &["SELECT 1"]),
    );
    long_known(&scenario, server, &database, "0 2 * * *", &[]);
    for at in ["2026-10-25 00:00:05", "2026-10-25 01:00:05"] {
        let mut command = scenario.command(&["run-job", "nightly", "--scheduled"]);
        command.env("LD_PRELOAD", faketime()).env("FAKETIME", format!("@{at}")).env("TZ", "UTC");
        let output = command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").output().unwrap();
        assert!(output.status.success(), "{at}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(
        server.sql(&database, "SELECT count(*), min(scheduled_for AT TIME ZONE 'UTC') FROM pgtend.runs"),
        "1|2026-10-25 00:00:00"
    );
}
