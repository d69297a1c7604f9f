//! `pgtend serve`: what starts, when, in which order, how often, and how it ends.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use crate::support::postgres::server;
use crate::support::serve::{Serving, asked, becomes, free_port, history, hours_ago, long_known, reaches, sql_job, with_ledger};
use crate::support::{Scenario, eventually};

const EVERY_SECOND: &str = "schedule = \"* * * * * *\"";

#[test]
fn serve_needs_a_ledger_and_says_how_to_get_one() {
    let server = server(18);
    let scenario = Scenario::with_database(server, "postgres");
    scenario.run(&["serve"]).exited(78).says(&["needs a ledger", "[ledger] database = \"NAME\"", "config.toml"]);
}

#[test]
fn a_port_in_use_is_named() {
    let port = free_port();
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (scenario, _) = with_ledger(server(18));
    let scenario = scenario.config(&format!("[serve]\nlisten = \"127.0.0.1:{port}\"\n"));
    scenario.run(&["serve"]).exited(1).says(&[&format!("cannot listen on 127.0.0.1:{port}"), "[serve] listen", "in use"]);
}

#[test]
fn jobs_run_at_their_ticks_and_every_tick_has_one_row() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, "CREATE TABLE ran (at timestamptz DEFAULT clock_timestamp())");
    let scenario = scenario
        .job("often", &sql_job("schedule = \"*/1 * * * * *\"", &["INSERT INTO ran DEFAULT VALUES"]))
        .job("by-hand", &sql_job("", &["INSERT INTO ran DEFAULT VALUES"]));
    let _serving = Serving::ready(&scenario, "");

    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", 4);

    let odd =
        "SELECT count(*) FROM pgtend.runs WHERE trigger <> 'schedule' OR scheduled_for IS NULL OR started_at < scheduled_for
               OR scheduled_for <> date_trunc('second', scheduled_for) OR attempt <> 1 OR job <> 'often'";
    assert_eq!(asked(server, &database, odd), "0", "{}", history(server, &database));
    let ticks = "SELECT count(*) = extract(epoch FROM max(scheduled_for) - min(scheduled_for)) + 1 FROM pgtend.runs";
    // One that is still to come closes the gap.
    becomes(server, &database, ticks, "t");
}

#[test]
fn a_run_that_finds_its_job_busy_is_skipped_and_says_who_holds_it() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("slow", &sql_job(EVERY_SECOND, &["SELECT pg_sleep(2.5)"]));
    let serving = Serving::ready(&scenario, "");

    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'skipped'", 2);

    let reason = asked(server, &database, "SELECT error FROM pgtend.runs WHERE outcome = 'skipped' ORDER BY id LIMIT 1");
    assert!(reason.contains("job `slow` is already running on `app`: its lock is held by server process "), "{reason}");
    assert!(serving.metric("pgtend_job_runs_total{job=\"slow\",database=\"app\",outcome=\"skipped\"}").unwrap() >= 1.0);
    serving.logs("skipped: job `slow` is already running");
}

#[test]
fn a_reload_picks_up_a_new_job_and_drops_a_deleted_one_whose_run_ends_normally() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("old", &sql_job(EVERY_SECOND, &["SELECT pg_sleep(5)"]));
    let serving = Serving::ready(&scenario, "");
    becomes(server, &database, "SELECT 'yes' FROM pgtend.runs WHERE locked_at IS NOT NULL LIMIT 1", "yes");

    std::fs::remove_file(scenario.path("jobs/old.toml")).unwrap();
    let scenario = scenario.job("new", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    serving.reload();

    serving.logs("configuration reloaded: 1 job");
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'new' AND outcome = 'succeeded'", 1);
    // By now the old job has no ticks any more: the same look brought the new one.
    let last = asked(server, &database, "SELECT max(scheduled_for) FROM pgtend.runs WHERE job = 'old'");
    becomes(server, &database, "SELECT outcome FROM pgtend.runs WHERE job = 'old' ORDER BY id LIMIT 1", "succeeded");
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'new' AND outcome = 'succeeded'", 4);
    assert_eq!(asked(server, &database, "SELECT max(scheduled_for) FROM pgtend.runs WHERE job = 'old'"), last);
    assert_eq!(serving.json("/api/jobs")["jobs"].as_array().unwrap().len(), 1);
    eventually("metrics forget the job", || !serving.get("/metrics").body.contains("job=\"old\""));
    drop(scenario);
}

#[test]
fn a_reload_of_bad_files_keeps_what_was_good_and_says_so() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("good", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    let serving = Serving::ready(&scenario, "");
    assert_eq!(serving.metric("pgtend_config_last_reload_successful"), Some(1.0));

    let scenario = scenario.job("bad", "schedul = \"* * * * *\"\ndatabase = \"app\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    serving.reload();

    serving.logs("job `bad` is skipped, and the other jobs go on");
    serving.logs("schedul");
    assert_eq!(serving.metric("pgtend_config_last_reload_successful"), Some(0.0));
    eventually("the page says so", || serving.get("/").body.contains("1 job is skipped"));
    let rows = asked(server, &database, "SELECT count(*) FROM pgtend.runs").parse::<u64>().unwrap();
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", rows + 2);

    std::fs::remove_file(scenario.path("jobs/bad.toml")).unwrap();
    serving.reload();
    assert_eq!(serving.metric("pgtend_config_last_reload_successful"), Some(1.0));
    eventually("the page is calm again", || !serving.get("/").body.contains("left out"));

    // A mistake in the configuration itself is another matter.
    serving.configure("[databases.app]\nurll = 'x'\n");
    serving.reload();
    serving.logs("the new configuration has mistakes; the old one stays in effect");
    assert_eq!(serving.metric("pgtend_config_last_reload_successful"), Some(0.0));
    eventually("the page says so", || serving.get("/").body.contains("The new configuration was refused"));
    let rows = asked(server, &database, "SELECT count(*) FROM pgtend.runs").parse::<u64>().unwrap();
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", rows + 2);
}

#[test]
fn sigterm_lets_a_run_end_by_itself() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("work", &sql_job(EVERY_SECOND, &["SELECT pg_sleep(3)"]));
    let mut serving = Serving::ready(&scenario, "drain_timeout = \"40s\"");
    becomes(server, &database, "SELECT 'yes' FROM pgtend.runs WHERE locked_at IS NOT NULL LIMIT 1", "yes");

    serving.signal(Signal::TERM);
    serving.logs("stopping: no further ticks start");
    let ready = serving.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "stopping\n"));
    assert_eq!(serving.get("/healthz").status, 200);

    assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    serving.logs("stopped");
    let outcomes =
        asked(server, &database, "SELECT DISTINCT coalesce(outcome, 'none') FROM pgtend.runs WHERE locked_at IS NOT NULL");
    assert_eq!(outcomes, "succeeded", "{}", history(server, &database));
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome IS NULL"), "0");
}

#[test]
fn sigterm_cancels_a_run_that_takes_longer_than_the_drain() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("work", &sql_job(EVERY_SECOND, &["SELECT pg_sleep(100)"]));
    let mut serving = Serving::ready(&scenario, "drain_timeout = \"1s\"");
    becomes(server, &database, "SELECT 'yes' FROM pgtend.runs WHERE locked_at IS NOT NULL LIMIT 1", "yes");

    let asked_at = Instant::now();
    assert_eq!(serving.terminate(), Some(0), "{}", serving.log());

    assert!(asked_at.elapsed() < Duration::from_secs(40), "{:?}", asked_at.elapsed());
    let end = "SELECT outcome, error FROM pgtend.runs WHERE locked_at IS NOT NULL";
    let end = asked(server, &database, end);
    assert!(end.starts_with("cancelled|cancelled by a signal: statement 1 of 1 was asked to stop"), "{end}");
    becomes(server, &database, SLEEPERS, "0");
}

/// Statements of the sql task that are still at work in this database.
const SLEEPERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
                        AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()";

#[test]
fn a_second_signal_ends_at_once() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("work", &sql_job(EVERY_SECOND, &["SELECT pg_sleep(50)"]));
    let mut serving = Serving::ready(&scenario, "drain_timeout = \"5m\"");
    becomes(server, &database, "SELECT 'yes' FROM pgtend.runs WHERE locked_at IS NOT NULL LIMIT 1", "yes");

    serving.signal(Signal::TERM);
    serving.logs("stopping: no further ticks start");
    serving.signal(Signal::INT);

    assert_eq!(serving.wait(), Some(143));
    serving.logs("second signal: exiting at once");
}

#[test]
fn a_missed_tick_is_caught_up_once_skipped_or_left_as_its_job_says() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let daily = format!("schedule = \"{schedule}\"");
    let scenario = scenario
        .job("once", &sql_job(&daily, &["SELECT 1"]))
        .job("skip", &sql_job(&format!("{daily}\ncatch_up = \"skip\""), &["SELECT 1"]))
        .job("within", &sql_job(&format!("{daily}\ncatch_up_within = \"1h\""), &["SELECT 1"]))
        .job("off", &sql_job(&format!("{daily}\nenabled = false"), &["SELECT 1"]))
        .job("unheard-of", &sql_job(&daily, &["SELECT 1"]));
    long_known(&scenario, server, &database, &schedule, &["once", "skip", "within", "off"]);

    let mut serving = Serving::ready(&scenario, "");
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome IS NOT NULL", 3);
    assert_eq!(serving.terminate(), Some(0));
    // Twice: what was dealt with is not dealt with again.
    let serving = serving.again(&scenario);
    serving.is_ready();
    std::thread::sleep(Duration::from_secs(3));

    let runs = "SELECT job, trigger, outcome, error FROM pgtend.runs ORDER BY job";
    let rows = asked(server, &database, runs);
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows.len(), 3, "{}", history(server, &database));
    assert_eq!(rows[0], "once|catch-up|succeeded|");
    assert!(rows[1].starts_with("skip|catch-up|skipped|missed 2 h") && rows[1].contains("catch_up = \"skip\""), "{}", rows[1]);
    assert!(
        rows[2].starts_with("within|catch-up|skipped|missed 2 h") && rows[2].contains("catch_up_within (1 h 0 min)"),
        "{}",
        rows[2]
    );
    let tick = "SELECT DISTINCT now() - scheduled_for BETWEEN '2 h' AND '3 h 1 min' FROM pgtend.runs";
    assert_eq!(asked(server, &database, tick), "t");
}

#[test]
fn a_job_runs_after_those_it_names_and_not_when_they_failed() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let daily = format!("schedule = \"{schedule}\"");
    let scenario = scenario
        .job("a-last", &sql_job("after = [\"b-first\"]", &["SELECT 1"]))
        .job("b-first", &sql_job(&daily, &["SELECT pg_sleep(1.5)"]))
        .job("c-never", &sql_job("after = [\"d-fails\", \"b-first\"]", &["SELECT 1"]))
        .job("d-fails", &sql_job(&daily, &["SELECT 1/0"]));
    long_known(&scenario, server, &database, &schedule, &["a-last", "b-first", "c-never", "d-fails"]);

    let _serving = Serving::ready(&scenario, "");
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome IS NOT NULL", 4);

    let outcomes = asked(server, &database, "SELECT string_agg(job || ' ' || outcome, ', ' ORDER BY job) FROM pgtend.runs");
    assert_eq!(
        outcomes,
        "a-last succeeded, b-first succeeded, c-never skipped, d-fails failed",
        "{}",
        history(server, &database)
    );
    let order =
        "SELECT a.started_at >= b.finished_at FROM pgtend.runs a, pgtend.runs b WHERE a.job = 'a-last' AND b.job = 'b-first'";
    assert_eq!(asked(server, &database, order), "t", "{}", history(server, &database));
    let ticks = "SELECT count(DISTINCT scheduled_for) FROM pgtend.runs";
    assert_eq!(asked(server, &database, ticks), "1", "{}", history(server, &database));
    let failed = asked(server, &database, "SELECT id FROM pgtend.runs WHERE job = 'd-fails'");
    let reason = asked(server, &database, "SELECT error FROM pgtend.runs WHERE job = 'c-never'");
    assert_eq!(reason, format!("it runs after job `d-fails` on `app`, whose run {failed} failed"));
}

#[test]
fn a_job_waits_for_the_retries_of_those_it_names() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, "CREATE TABLE tries ()");
    let schedule = hours_ago();
    let keys = format!("schedule = \"{schedule}\"\nretries = 1\nretry_delay = \"2s\"");
    let fails_once = ["INSERT INTO tries DEFAULT VALUES", "SELECT 1 / (count(*) - 1) FROM tries"];
    let scenario =
        scenario.job("first", &sql_job(&keys, &fails_once)).job("second", &sql_job("after = [\"first\"]", &["SELECT 1"]));
    long_known(&scenario, server, &database, &schedule, &["first", "second"]);

    let _serving = Serving::ready(&scenario, "");

    let runs = "SELECT string_agg(concat_ws(' ', job, attempt, outcome), ', ' ORDER BY id) FROM pgtend.runs";
    becomes(server, &database, runs, "first 1 failed, first 2 succeeded, second 1 succeeded");
}

#[test]
fn no_more_runs_at_once_than_allowed() {
    let server = server(18);
    let (mut scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let names: Vec<String> = (0..20).map(|number| format!("j{number}")).collect();
    for name in &names {
        scenario = scenario.job(name, &sql_job(&format!("schedule = \"{schedule}\""), &["SELECT pg_sleep(0.3)"]));
    }
    long_known(&scenario, server, &database, &schedule, &names.iter().map(String::as_str).collect::<Vec<_>>());

    let _serving = Serving::ready(&scenario, "max_concurrent = 2");
    becomes(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", "20");

    let at_once =
        "SELECT max((SELECT count(*) FROM pgtend.runs b WHERE b.started_at <= a.started_at AND b.finished_at > a.started_at))
                   FROM pgtend.runs a";
    assert_eq!(asked(server, &database, at_once), "2", "{}", history(server, &database));
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs"), "20");
}

#[test]
fn jitter_delays_each_job_by_its_own_share_and_the_tick_keeps_its_name() {
    let server = server(18);
    let (mut scenario, database) = with_ledger(server);
    let names = ["a", "b", "c", "d"];
    for name in names {
        scenario = scenario.job(name, &sql_job("schedule = \"*/4 * * * * *\"\njitter = \"3s\"", &["SELECT 1"]));
    }
    let _serving = Serving::ready(&scenario, "");
    let least = "SELECT min(n) FROM (SELECT count(r.id) AS n FROM unnest('{a,b,c,d}'::text[]) AS j LEFT JOIN pgtend.runs r ON job = j GROUP BY j) x";
    reaches(server, &database, least, 2);

    let odd_ticks = "SELECT count(*) FROM pgtend.runs WHERE extract(epoch FROM scheduled_for)::numeric % 4 <> 0";
    assert_eq!(asked(server, &database, odd_ticks), "0", "{}", history(server, &database));
    for name in names {
        let hash = Sha256::digest(format!("{name}/app"));
        let share = f64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX) * 3.0;
        let early = format!(
            "SELECT count(*) FROM pgtend.runs WHERE job = '{name}' AND started_at < scheduled_for + make_interval(secs => {share} - 0.001)"
        );
        assert_eq!(asked(server, &database, &early), "0", "{name} waits {share} s: {}", history(server, &database));
    }
}

#[test]
fn a_run_that_passes_its_timeout_is_stopped_on_the_server_too() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let scenario = scenario.job(
        "slow",
        &sql_job(
            &format!("schedule = \"{schedule}\"\ntimeout = \"1s\"\nretries = 3\nretry_delay = \"1s\""),
            &["SELECT pg_sleep(100)"],
        ),
    );
    long_known(&scenario, server, &database, &schedule, &["slow"]);
    let serving = Serving::ready(&scenario, "");

    becomes(
        server,
        &database,
        "SELECT outcome, split_part(error, ':', 1), retry_at IS NULL FROM pgtend.runs",
        "timed_out|the job's timeout of 1s passed|t",
    );
    becomes(server, &database, SLEEPERS, "0");
    assert_eq!(serving.metric("pgtend_job_runs_total{job=\"slow\",database=\"app\",outcome=\"timed_out\"}"), Some(1.0));
}

#[test]
fn two_schedulers_and_people_never_run_a_job_twice_at_once() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    // A second run at the same time would break the key.
    server.sql(&database, "CREATE TABLE working (one int PRIMARY KEY)");
    let statements = ["INSERT INTO working VALUES (1)", "SELECT pg_sleep(0.4)", "DELETE FROM working"];
    let scenario = scenario.job("lonely", &sql_job(EVERY_SECOND, &statements));
    let serving = [Serving::ready(&scenario, ""), Serving::ready(&scenario, "")];

    let until = Instant::now() + Duration::from_secs(5);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while Instant::now() < until {
                    let mut by_hand = scenario.command(&["run-job", "lonely"]);
                    let status = by_hand.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
                    assert!(matches!(status.code(), Some(0 | 75)), "{status}");
                }
            });
        }
    });
    for mut serving in serving {
        assert_eq!(serving.terminate(), Some(0));
    }

    let outcomes = "SELECT string_agg(DISTINCT outcome, ' ' ORDER BY outcome) FROM pgtend.runs";
    assert_eq!(asked(server, &database, outcomes), "skipped succeeded", "{}", history(server, &database));
    let triggers = "SELECT string_agg(DISTINCT trigger, ' ' ORDER BY trigger) FROM pgtend.runs WHERE outcome = 'succeeded'";
    assert!(asked(server, &database, triggers).contains("manual"), "{}", history(server, &database));
    let ticks = "SELECT count(*) = count(DISTINCT scheduled_for)
                 AND count(*) = extract(epoch FROM max(scheduled_for) - min(scheduled_for)) + 1
                 FROM pgtend.runs WHERE trigger = 'schedule'";
    assert_eq!(asked(server, &database, ticks), "t", "one run a tick: {}", history(server, &database));
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome IS NULL"), "0");
}

#[test]
fn a_monitor_that_hangs_delays_no_tick() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    // It accepts (the backlog does) and never answers.
    let monitor = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ping_url = \"http://{}/ping\"", monitor.local_addr().unwrap());
    let scenario = scenario.job("pinged", &sql_job(&format!("{EVERY_SECOND}\n{url}"), &["SELECT 1"]));
    let _serving = Serving::ready(&scenario, "");

    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", 5);

    let ticks = "SELECT count(*) = extract(epoch FROM max(scheduled_for) - min(scheduled_for)) + 1 FROM pgtend.runs";
    // One that is still to come closes the gap.
    becomes(server, &database, ticks, "t");
    // A ping gives up after 10 s: a run that waited for it would be that long, and ticks would be skipped.
    let slow = "SELECT count(*) FROM pgtend.runs WHERE finished_at - scheduled_for > '9 s'";
    assert_eq!(asked(server, &database, slow), "0", "{}", history(server, &database));
    assert!(monitor.accept().is_ok(), "it was asked");
}
