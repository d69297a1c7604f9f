//! `pgtend serve` when things break: the ledger says what happened, and what is due runs when it can.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, becomes, history, hours_ago, long_known, reaches, sql_job, with_ledger};
use crate::support::{Scenario, eventually, faketime, quoted};

const EVERY_SECOND: &str = "schedule = \"* * * * * *\"";

/// Its first run hangs, the others do not.
const HANGS_ONCE: [&str; 2] =
    ["INSERT INTO tries DEFAULT VALUES", "SELECT pg_sleep(CASE count(*) WHEN 1 THEN 100 ELSE 0 END) FROM tries"];

/// In `[sql]`: what was sent may be sent again, though nobody knows whether it was done.
const REPEATABLE: &str = "repeatable = true\n";

const FAILS_ONCE: [&str; 2] = ["INSERT INTO tries DEFAULT VALUES", "SELECT 1 / (count(*) - 1) FROM tries"];

const TRIES: &str = "CREATE TABLE tries (at timestamptz DEFAULT clock_timestamp())";

const LOCKED: &str = "SELECT 'yes' FROM pgtend.runs WHERE locked_at IS NOT NULL LIMIT 1";

/// A database of the second server, with its ledger on the first.
fn with_ledger_elsewhere(ledger: &Server, target: &Server) -> (Scenario, String, String) {
    let (history, database) = (ledger.new_database(), target.new_database());
    let url = quoted(&ledger.url(&history));
    let scenario = Scenario::with_database(target, &database)
        .config(&format!("[databases.history]\nurl = {url}\n[ledger]\ndatabase = \"history\"\n"));
    (scenario, history, database)
}

#[test]
fn a_run_whose_scheduler_was_killed_is_marked_and_the_next_tick_runs() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, TRIES);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("[notify]\nwebhook_url = \"http://{}/hook\"\n", listener.local_addr().unwrap());
    let scenario = scenario.config(&hook).job("work", &sql_job(EVERY_SECOND, &HANGS_ONCE));
    let told = std::thread::spawn(move || first_post_of(&listener, "crashed"));
    let mut serving = Serving::ready(&scenario, "");
    becomes(server, &database, LOCKED, "yes");
    becomes(server, &database, "SELECT count(*) FROM tries", "1");
    let pid = serving.pid();

    serving.kill();
    let serving = serving.again(&scenario);
    serving.is_ready();

    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", 2);
    let first = asked(server, &database, "SELECT outcome, error, finished_at IS NOT NULL FROM pgtend.runs ORDER BY id LIMIT 1");
    assert!(first.starts_with("crashed|the process died without reporting a result: pid "), "{first}");
    assert!(first.contains(&format!("pid {pid} on ")) && first.ends_with("|t"), "{first}");
    serving.logs("crashed: the process died without reporting a result");
    let crashed = "pgtend_job_runs_total{job=\"work\",database=\"app\",outcome=\"crashed\"}";
    assert_eq!(serving.metric(crashed), Some(1.0));
    let told = told.join().unwrap();
    assert!(told.contains("\"event\":\"failure\"") && told.contains(&format!("pid {pid} on ")), "{told}");
}

/// Answers what is posted, until a text is in it; returns that.
fn first_post_of(listener: &TcpListener, text: &str) -> String {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut post = String::new();
        let mut buffer = [0; 4096];
        // The body is a JSON object, and the last of the request.
        while !post.ends_with('}') {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => post += &String::from_utf8_lossy(&buffer[..count]),
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        if post.contains(text) {
            return post;
        }
    }
}

#[test]
fn a_statement_that_outlives_its_killed_scheduler_keeps_the_next_run_out() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, TRIES);
    // A second one at the same time would find the first at work.
    let alone =
        "DO $$ BEGIN IF 1 < (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
                 AND query LIKE '%FROM tries%') THEN RAISE 'not alone'; END IF; END $$";
    let scenario = scenario.job("work", &sql_job(EVERY_SECOND, &[HANGS_ONCE[0], alone, HANGS_ONCE[1]]));
    let mut serving = Serving::ready(&scenario, "");
    becomes(
        server,
        &database,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'",
        "1",
    );

    serving.kill();
    let _serving = serving.again(&scenario);

    // The server sees within seconds that nobody waits for the statement.
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", 2);
    assert_eq!(
        asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'failed'"),
        "0",
        "{}",
        history(server, &database)
    );
    // Of two ticks that come at once on a busy machine, one finds the other at work.
    let first = asked(server, &database, "SELECT outcome FROM pgtend.runs WHERE outcome <> 'skipped' ORDER BY id LIMIT 1");
    assert_eq!(first, "crashed", "{}", history(server, &database));
}

#[test]
fn a_killed_run_that_has_retries_is_tried_again_without_a_tick() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, TRIES);
    let schedule = hours_ago();
    let job = sql_job(&format!("schedule = \"{schedule}\"\nretries = 1"), &HANGS_ONCE) + REPEATABLE;
    let scenario = scenario.job("work", &job);
    long_known(&scenario, server, &database, &schedule, &["work"]);
    let mut serving = Serving::ready(&scenario, "");
    becomes(server, &database, LOCKED, "yes");
    becomes(server, &database, "SELECT count(*) FROM tries", "1");

    serving.kill();
    // So that nobody has to wait for it to look dead.
    server.sql(&database, "UPDATE pgtend.runs SET heartbeat_at = heartbeat_at - interval '1 min' WHERE outcome IS NULL");
    let serving = serving.again(&scenario);

    serving.logs("crashed: the process died without reporting a result");
    let runs = "SELECT string_agg(concat_ws(' ', trigger, attempt, outcome), ', ' ORDER BY id) FROM pgtend.runs";
    becomes(server, &database, runs, "catch-up 1 crashed, retry 2 succeeded");
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE retry_at IS NOT NULL"), "0");
}

#[test]
fn without_its_ledger_serve_stays_up_and_runs_what_is_due_when_it_is_back() {
    let mut ledger = Server::start(18);
    let (scenario, runs, _database) = with_ledger_elsewhere(&ledger, server(16));
    let schedule = hours_ago();
    let scenario = scenario.job("daily", &sql_job(&format!("schedule = \"{schedule}\""), &["SELECT 1"]));
    long_known(&scenario, &ledger, &runs, &schedule, &["daily"]);
    ledger.crash();

    let serving = Serving::start(&scenario, "");
    serving.logs("the ledger is unreachable");
    eventually("the ledger is called away", || serving.metric("pgtend_ledger_up") == Some(0.0));
    assert_eq!(serving.get("/healthz").status, 200);
    let ready = serving.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "the ledger is unreachable\n"));
    let page = serving.get("/").body;
    assert!(page.contains("The ledger cannot be read") && page.contains("The state of the jobs is unknown"), "{page}");
    let listed = serving.json("/api/jobs");
    assert!(listed["ledger_error"].is_string() && listed["jobs"][0]["job"] == "daily", "{listed}");
    assert_eq!(serving.get("/api/runs").status, 503);

    ledger.start_again();
    becomes(&ledger, &runs, "SELECT trigger, outcome FROM pgtend.runs", "catch-up|succeeded");
    serving.is_ready();
    assert_eq!(serving.metric("pgtend_ledger_up"), Some(1.0));
    serving.logs("the ledger is reachable");
    eventually("the page is calm again", || {
        let page = serving.get("/").body;
        !["The ledger cannot be read", "The state of the jobs is unknown", "needs attention"]
            .iter()
            .any(|text| page.contains(text))
    });
}

#[test]
fn a_ledger_that_crashes_midway_ends_runs_that_lost_their_lock_and_rows_tell_so() {
    let mut ledger = Server::start(18);
    let target = server(16);
    let (scenario, runs, database) = with_ledger_elsewhere(&ledger, target);
    let schedule = hours_ago();
    let scenario = scenario
        .job("often", &sql_job(EVERY_SECOND, &["SELECT 1"]))
        .job("long", &(sql_job(&format!("schedule = \"{schedule}\""), &["SELECT pg_sleep(100)"]) + REPEATABLE));
    long_known(&scenario, &ledger, &runs, &schedule, &["often", "long"]);
    let serving = Serving::ready(&scenario, "");
    becomes(&ledger, &runs, "SELECT 'yes' FROM pgtend.runs WHERE job = 'long' AND locked_at IS NOT NULL", "yes");
    reaches(&ledger, &runs, "SELECT count(*) FROM pgtend.runs WHERE job = 'often' AND outcome = 'succeeded'", 2);

    ledger.crash();
    eventually("serve sees it", || serving.get("/readyz").status == 503);
    ledger.start_again();
    let back = ledger.sql(&runs, "SELECT clock_timestamp()");

    let after =
        format!("SELECT count(*) FROM pgtend.runs WHERE job = 'often' AND outcome = 'succeeded' AND scheduled_for > '{back}'");
    reaches(&ledger, &runs, &after, 2);
    becomes(&ledger, &runs, "SELECT outcome, retry_at > finished_at FROM pgtend.runs WHERE job = 'long'", "failed|t");
    let error = asked(&ledger, &runs, "SELECT error FROM pgtend.runs WHERE job = 'long'");
    assert!(error.contains("its lock was lost"), "{error}");
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active' AND query LIKE 'SELECT pg_sleep%'"
    );
    becomes(target, "postgres", &sleeping, "0");
    assert_eq!(serving.get("/healthz").status, 200);
    // A run that lost its ledger before it took its lock is found dead two minutes later; nobody waits for that here.
    let open = "SELECT count(*) FROM pgtend.runs WHERE outcome IS NULL AND locked_at IS NOT NULL AND heartbeat_at < now() - interval '10 s'";
    becomes(&ledger, &runs, open, "0");
}

#[test]
fn a_database_that_is_away_fails_its_runs_until_a_retry_finds_it() {
    let ledger = server(18);
    let mut target = Server::start(16);
    let (scenario, runs, _) = with_ledger_elsewhere(ledger, &target);
    let schedule = hours_ago();
    let scenario = scenario.job("work", &sql_job(&format!("schedule = \"{schedule}\"\nretry_delay = \"1s\""), &["SELECT 1"]));
    long_known(&scenario, ledger, &runs, &schedule, &["work"]);
    target.crash();

    let serving = Serving::ready(&scenario, "");
    reaches(ledger, &runs, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'failed'", 2);
    target.start_again();
    becomes(ledger, &runs, "SELECT trigger, outcome FROM pgtend.runs ORDER BY id DESC LIMIT 1", "retry|succeeded");

    let failed = asked(ledger, &runs, "SELECT DISTINCT error FROM pgtend.runs WHERE outcome = 'failed'");
    assert!(failed.contains("database `app`") && failed.contains("cannot connect to"), "{failed}");
    let first = "SELECT count(DISTINCT coalesce(retry_of, id)) FROM pgtend.runs";
    assert_eq!(asked(ledger, &runs, first), "1", "all are attempts of one tick: {}", history(ledger, &runs));
    assert!(serving.metric("pgtend_errors_total{kind=\"unreachable\"}").unwrap() >= 2.0);
    assert_eq!(serving.get("/readyz").status, 200);
}

#[test]
fn retries_wait_longer_each_time_and_end() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let keys = format!("schedule = \"{schedule}\"\nretries = 2\nretry_delay = \"1s\"");
    let scenario = scenario.job("broken", &sql_job(&keys, &["SELECT 1/0"]));
    long_known(&scenario, server, &database, &schedule, &["broken"]);
    let _serving = Serving::ready(&scenario, "");

    becomes(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'failed'", "3");

    let attempts =
        "SELECT string_agg(concat_ws(' ', trigger, attempt, retry_of = first.id, scheduled_for IS NOT NULL), ', ' ORDER BY id)
                    FROM pgtend.runs, LATERAL (SELECT min(id) FROM pgtend.runs) AS first (id)";
    let attempts = asked(server, &database, &attempts.replace("ORDER BY id", "ORDER BY runs.id"));
    assert_eq!(attempts, "catch-up 1 t, retry 2 t f, retry 3 t f", "{}", history(server, &database));
    let pauses = "SELECT bool_and(started_at - before >= make_interval(secs => attempt - 1)) FROM
                  (SELECT *, lag(finished_at) OVER (ORDER BY id) AS before FROM pgtend.runs) r WHERE before IS NOT NULL";
    assert_eq!(asked(server, &database, pauses), "t", "1 s, then 2 s: {}", history(server, &database));
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE retry_at IS NOT NULL"), "0");
}

#[test]
fn a_retry_outlives_its_scheduler() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, TRIES);
    let schedule = hours_ago();
    let keys = format!("schedule = \"{schedule}\"\nretries = 1\nretry_delay = \"4s\"");
    let scenario = scenario.job("once-broken", &sql_job(&keys, &FAILS_ONCE));
    long_known(&scenario, server, &database, &schedule, &["once-broken"]);
    let mut serving = Serving::ready(&scenario, "");
    becomes(server, &database, "SELECT outcome FROM pgtend.runs", "failed");

    assert_eq!(serving.terminate(), Some(0));
    let _serving = serving.again(&scenario);

    let runs = "SELECT string_agg(concat_ws(' ', trigger, attempt, outcome), ', ' ORDER BY id) FROM pgtend.runs";
    becomes(server, &database, runs, "catch-up 1 failed, retry 2 succeeded");
}

#[test]
fn ticks_that_waited_for_their_turn_when_the_scheduler_ended_run_in_the_next_one() {
    let server = server(18);
    let (mut scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let names: Vec<String> = (0..24).map(|number| format!("j{number}")).collect();
    for name in &names {
        let job = sql_job(&format!("schedule = \"{schedule}\"\nretries = 1"), &["SELECT pg_sleep(0.2)"]) + REPEATABLE;
        scenario = scenario.job(name, &job);
    }
    long_known(&scenario, server, &database, &schedule, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let succeeded = "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'";

    let mut serving = Serving::ready(&scenario, "max_concurrent = 1");
    reaches(server, &database, succeeded, 3);
    serving.kill();
    let killed_at: u64 = asked(server, &database, succeeded).parse().unwrap();
    let mut serving = serving.again(&scenario);
    reaches(server, &database, succeeded, killed_at + 3);
    assert_eq!(serving.terminate(), Some(0));
    let ended_at: u64 = asked(server, &database, succeeded).parse().unwrap();
    assert!(ended_at < 24, "this machine is too slow for this test");
    server.sql(&database, "UPDATE pgtend.runs SET heartbeat_at = heartbeat_at - interval '5 min' WHERE outcome IS NULL");
    let _serving = serving.again(&scenario);

    becomes(server, &database, succeeded, "24");
    let others = "SELECT count(*) FROM pgtend.runs WHERE outcome IS DISTINCT FROM 'succeeded' AND outcome <> 'crashed'";
    assert_eq!(asked(server, &database, others), "0", "{}", history(server, &database));
    assert_eq!(asked(server, &database, "SELECT count(DISTINCT job) FROM pgtend.runs WHERE outcome = 'succeeded'"), "24");
}

#[test]
fn a_ledger_that_accepts_and_never_answers_holds_up_neither_health_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = \"postgres://x@{}/x?sslmode=disable\"\n", silent.local_addr().unwrap()))
        .config("[ledger]\ndatabase = \"app\"\n")
        .job("often", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    let mut serving = Serving::start(&scenario, "");
    let (_connection, _) = silent.accept().unwrap();

    let started = Instant::now();
    assert_eq!(serving.get("/healthz").status, 200);
    assert_eq!(serving.get("/readyz").status, 503);
    assert!(serving.get("/").body.contains("The ledger cannot be read"));
    assert_eq!(serving.get("/metrics").status, 200);
    assert_eq!(serving.terminate(), Some(0), "{}", serving.log());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn who_comes_late_to_a_tick_does_not_take_its_retry_away() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, TRIES);
    let schedule = hours_ago();
    let keys = format!("schedule = \"{schedule}\"\nretries = 1\nretry_delay = \"4s\"");
    let scenario = scenario.job("once-broken", &sql_job(&keys, &FAILS_ONCE));
    long_known(&scenario, server, &database, &schedule, &["once-broken"]);
    let _serving = Serving::ready(&scenario, "");
    becomes(server, &database, "SELECT outcome, retry_at IS NOT NULL FROM pgtend.runs", "failed|t");

    // As another scheduler would, whose clock is a little behind.
    scenario.run(&["run-job", "once-broken", "--scheduled"]).succeeded().says(&["already has a run"]);

    let runs = "SELECT string_agg(concat_ws(' ', trigger, attempt, outcome), ', ' ORDER BY id) FROM pgtend.runs";
    becomes(server, &database, runs, "catch-up 1 failed, retry 2 succeeded");
}

#[test]
fn a_clock_that_is_set_back_or_forward_runs_no_tick_twice_and_goes_on() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("often", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    let offset = scenario.path("offset");
    let set_clock = |text: &str| {
        std::fs::write(scenario.path("offset.new"), text).unwrap();
        std::fs::rename(scenario.path("offset.new"), &offset).unwrap();
    };
    set_clock("+0");
    let mut serving = Serving::start_by(&scenario, "", |command| {
        command
            .env("LD_PRELOAD", faketime())
            .env("FAKETIME_TIMESTAMP_FILE", &offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    serving.is_ready();
    let succeeded = |when: &str| format!("SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded' AND {when}");
    reaches(server, &database, &succeeded("true"), 2);
    let (last, first) =
        (asked(server, &database, "SELECT max(id) FROM pgtend.runs"), "scheduled_for < now() - interval '50 min'");

    set_clock("-3600");
    serving.logs("the clock was set by -3");
    reaches(server, &database, &succeeded(first), 2);
    set_clock("+0");
    eventually("it sees that", || serving.log().matches("the clock was set by ").count() == 2);
    reaches(server, &database, &succeeded(&format!("scheduled_for > now() - interval '50 min' AND id > {last}")), 2);
    // A few seconds back: those ticks are done.
    set_clock("-8");
    eventually("it sees that too", || serving.log().matches("the clock was set by ").count() == 3);
    let behind = asked(server, &database, "SELECT max(id) FROM pgtend.runs");
    reaches(server, &database, &succeeded(&format!("id > {behind}")), 2);

    let twice = "SELECT count(*) FROM (SELECT scheduled_for FROM pgtend.runs GROUP BY 1 HAVING count(*) > 1) t";
    assert_eq!(asked(server, &database, twice), "0");
    assert_eq!(asked(server, &database, "SELECT string_agg(DISTINCT trigger, ' ') FROM pgtend.runs"), "schedule");
    assert_eq!(serving.get("/healthz").status, 200);
    assert_eq!(serving.terminate(), Some(0), "{}", serving.log());
}

#[test]
fn a_task_that_panics_is_a_failed_run_and_the_others_go_on() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario
        .env("PGTEND_TEST_PANIC", "odd")
        .job("odd", &sql_job(EVERY_SECOND, &["SELECT 1"]))
        .job("even", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    let mut serving = Serving::ready(&scenario, "");
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'odd' AND outcome = 'failed'", 2);
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'even' AND outcome = 'succeeded'", 2);
    let error = asked(server, &database, "SELECT error FROM pgtend.runs WHERE job = 'odd' ORDER BY id LIMIT 1");
    assert!(error.contains("the task panicked, which is a bug in pgtend"), "{error}");
    assert_eq!(serving.terminate(), Some(0));
}
