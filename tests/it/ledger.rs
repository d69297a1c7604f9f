//! The run history: a row before the work and its end after it, one run of a job at a time, and what becomes of
//! runs that nobody ended.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually, quoted};

/// Sleeps until somebody stops it.
const SLEEP: &str = "SELECT pg_sleep(600)";

/// Database, ledger and one job `slow` that sleeps.
fn sleeper(server: &Server, database: &str) -> Scenario {
    Scenario::with_database(server, database).ledger().sql_job("slow", "", &[SLEEP])
}

/// `[databases.app]` and, for the ledger, `[databases.history]`.
fn apart(server: &Server, database: &str, ledger_url: &str) -> Scenario {
    Scenario::with_database(server, database)
        .config(&format!("[databases.history]\nurl = {}\n[ledger]\ndatabase = \"history\"\n", quoted(ledger_url)))
}

/// Ends the server process that holds the advisory lock of that name.
#[track_caller]
fn terminate_holder(server: &Server, database: &str, lock: &str) {
    let ended = server.sql(
        database,
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('{lock}', 0)"
        ),
    );
    assert_eq!(ended, "t", "one process holds `{lock}`");
}

#[test]
fn a_run_has_its_row_before_it_acts_and_its_end_after_on_every_version() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let look = "CREATE TABLE seen AS SELECT job, outcome, finished_at, locked_at IS NOT NULL AS locked, pid FROM pgtend.runs";
        let scenario = Scenario::with_database(server, &database).ledger().sql_job("looks", "", &[look]);
        scenario.run(&["run-job", "looks"]).succeeded().prints(&["looks on app: succeeded", "(run 1)"]);
        let seen = server.sql(&database, "SELECT job, outcome IS NULL, finished_at IS NULL, locked FROM seen");
        assert_eq!(seen, "looks|t|t|t", "{major}");
        let row = server.sql(
            &database,
            "SELECT r.job, database, task, trigger, attempt, r.outcome, error IS NULL, r.finished_at >= started_at,
                    report ->> 'summary', r.pid = seen.pid, progress IS NULL FROM pgtend.runs r, seen",
        );
        assert_eq!(row, "looks|app|sql|manual|1|succeeded|t|t|1 statement, 1 row|t|t", "{major}");
        assert_eq!(scenario.runs(&["looks", "--outcome", "succeeded", "--database", "app"]).len(), 1, "{major}");
    }
}

#[test]
fn a_failure_is_in_the_history_with_its_words() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("broken", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "broken"]).exited(1).says(&["division by zero"]);
    let runs = scenario.runs(&[]);
    assert_eq!(runs[0]["outcome"], "failed");
    assert!(runs[0]["error"].as_str().unwrap().contains("division by zero"), "{runs:?}");
    assert!(runs[0]["finished_at"].is_string());
}

#[test]
fn runs_are_listed_by_job_outcome_and_database_and_shown_in_full() {
    let server = server(18);
    let (database, other) = (server.new_database(), server.new_database());
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.other]\nurl = {}\n", quoted(&server.url(&other))))
        .ledger()
        .job("both", "databases = [\"app\", \"other\"]\n[sql]\nstatements = [\"SELECT generate_series(1, 7)\"]\n")
        .sql_job("broken", "", &["SELECT 1/0"]);

    scenario.run(&["runs"]).succeeded().says(&["no matching runs"]);
    scenario.run(&["run-job", "both"]).succeeded();
    scenario.run(&["run-job", "broken"]).exited(1);

    assert_eq!(scenario.runs(&[]).len(), 3);
    let of_job = scenario.runs(&["both"]);
    assert_eq!([&of_job[0]["database"], &of_job[1]["database"]], ["app", "other"]);
    let failed = scenario.runs(&["--outcome", "failed"]);
    assert_eq!((failed.len(), &failed[0]["job"]), (1, &"broken".into()));
    assert_eq!(scenario.runs(&["--database", "other"]).len(), 1);
    assert_eq!(scenario.runs(&["--limit", "1"])[0]["job"], "broken", "the newest first");
    assert_eq!(scenario.runs(&["both", "--outcome", "failed"]).len(), 0);
    scenario.run(&["runs", "--outcome", "fine"]).exited(64).says(&["timed_out"]);

    scenario.run(&["runs"]).succeeded().prints(&["RUN", "OUTCOME", "succeeded", "1 statement, 7 rows", "division by zero"]);
    scenario.run(&["runs", "show", "1"]).succeeded().prints(&[
        "run 1: both on app",
        "manual",
        "1 statement, 7 rows",
        "\"rows\": 7",
    ]);
    let shown = scenario.json(&["runs", "show", "3"]);
    assert_eq!((&shown["run"]["job"], &shown["run"]["outcome"]), (&"broken".into(), &"failed".into()));
    scenario.run(&["runs", "show", "99"]).exited(1).says(&["no run 99"]);
}

#[test]
fn jobs_lists_how_each_went_last_and_when_it_last_succeeded() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("sometimes", "", &["SELECT 1 / (SELECT count(*) FROM pg_class WHERE relname = 'there')"])
        .sql_job("never", "", &["SELECT 1"]);
    server.sql(&database, "CREATE TABLE there ()");
    scenario.run(&["run-job", "sometimes"]).succeeded();
    server.sql(&database, "DROP TABLE there");
    scenario.run(&["run-job", "sometimes"]).exited(1);

    scenario.run(&["jobs"]).succeeded().prints(&["LAST RUN", "LAST SUCCESS", "failed", " ago"]);
    let jobs = scenario.json(&["jobs"]);
    assert_eq!(jobs["jobs"][0]["last"].as_array().unwrap().len(), 0, "{jobs}");
    let last = &jobs["jobs"][1]["last"][0];
    assert_eq!((&last["database"], &last["run"], &last["outcome"]), (&"app".into(), &2.into(), &"failed".into()));
    assert!(last["last_success_at"].is_string(), "{jobs}");
}

#[test]
fn those_who_only_look_make_no_ledger() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("acts", "", &["SELECT 1"])
        .backup_job("local", "")
        .job("quarterly", "database = 'app'\n[audit]\nfail_on = 'never'\n");
    let is_there = || server.sql(&database, "SELECT to_regnamespace('pgtend') IS NOT NULL");
    for arguments in [
        &["jobs"][..],
        &["check"],
        &["check", "--connect"],
        &["audit", "--database", "app", "--fail-on", "never"],
        &["run-job", "quarterly", "--dry-run"],
    ] {
        let said = scenario.run(arguments).succeeded();
        assert_eq!(is_there(), "f", "{arguments:?}");
        assert!(!said.stderr.contains("no history"), "{said:?}");
        assert!(!arguments.contains(&"--connect") || said.stdout.contains("the first run makes the schema"), "{said:?}");
    }
    scenario.run(&["run-job", "acts"]).succeeded();
    scenario.run(&["check", "--connect"]).succeeded().prints(&["schema `pgtend` is in place"]);
    assert_eq!(scenario.json(&["jobs"])["jobs"][0]["last"][0]["outcome"], "succeeded");
}

#[test]
fn check_says_that_a_role_may_not_make_the_ledger() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("poor_{database}");
    server.sql(&database, &format!("CREATE ROLE {role} LOGIN"));
    let scenario = Scenario::with_url(server, &server.url_as(&role, &database)).ledger().sql_job("acts", "", &["SELECT 1"]);
    scenario.run(&["check", "--connect"]).exited(77).prints(&["GRANT CREATE on the database", "pgtend grants"]);
}

#[test]
fn many_processes_at_once_make_the_schema_once() {
    let server = server(18);
    let database = server.new_database();
    let mut scenario = Scenario::with_database(server, &database).ledger();
    let names: Vec<String> = (0..6).map(|number| format!("job{number}")).collect();
    for name in &names {
        scenario = scenario.sql_job(name, "", &["SELECT 1"]);
    }
    let running: Vec<_> = names.iter().map(|name| scenario.start(&["run-job", name])).collect();
    for running in running {
        running.wait().succeeded();
    }
    assert_eq!(server.sql(&database, "SELECT array_agg(version) FROM pgtend.format"), "{4}");
    assert_eq!(scenario.runs(&["--outcome", "succeeded"]).len(), 6);
}

#[test]
fn a_ledger_of_an_earlier_version_keeps_its_runs_and_gets_what_is_new() {
    let server = server(18);
    for (version, undo) in [
        (1, "DROP TABLE pgtend.messages, pgtend.told, pgtend.servers, pgtend.databases"),
        (2, "DROP TABLE pgtend.servers, pgtend.databases"),
        (3, "ALTER TABLE pgtend.databases DROP COLUMN left_out, DROP COLUMN left_out_at"),
    ] {
        let database = server.new_database();
        let scenario = Scenario::with_database(server, &database).ledger().sql_job("acts", "", &["SELECT 1"]);
        scenario.run(&["run-job", "acts"]).succeeded();
        server.sql(&database, &format!("{undo}; UPDATE pgtend.format SET version = {version}"));
        scenario.run(&["run-job", "acts"]).succeeded();
        let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'pgtend'::regnamespace AND relkind = 'r'";
        assert_eq!(server.sql(&database, tables), "databases format messages runs schedules servers told");
        assert_eq!(
            server.sql(&database, "SELECT (SELECT version FROM pgtend.format), (SELECT count(*) FROM pgtend.runs)"),
            "4|2"
        );
    }
}

#[test]
fn a_schema_of_a_newer_version_is_refused() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("acts", "", &["CREATE TABLE acted ()"]);
    scenario.run(&["runs"]).succeeded();
    server.sql(&database, "UPDATE pgtend.format SET version = 99");
    for arguments in [&["run-job", "acts"][..], &["runs"]] {
        scenario.run(arguments).exited(78).says(&["version 99", "newer pgtend", "upgrade"]);
    }
    assert_eq!(server.sql(&database, "SELECT to_regclass('acted') IS NULL, (SELECT count(*) FROM pgtend.runs)"), "t|0");
}

#[test]
fn a_role_that_may_not_create_the_schema_is_told_what_to_do() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("poor_{database}");
    server.sql(&database, &format!("CREATE ROLE {role} LOGIN"));
    let scenario = Scenario::with_url(server, &server.url_as(&role, &database)).ledger().sql_job("acts", "", &["SELECT 1"]);
    scenario.run(&["run-job", "acts"]).exited(77).says(&["permission denied", "CREATE on the database", "pgtend grants"]);
    // A schema that is given to it is enough.
    server.sql(&database, &format!("CREATE SCHEMA pgtend AUTHORIZATION {role}"));
    scenario.run(&["run-job", "acts"]).succeeded();
}

#[test]
fn a_ledger_that_is_away_lets_nothing_start() {
    let server = server(18);
    let database = server.new_database();
    let scenario =
        apart(server, &database, "postgres://nobody@127.0.0.1:1/history").sql_job("acts", "", &["CREATE TABLE acted ()"]);
    let started = Instant::now();
    scenario.run(&["run-job", "acts"]).exited(69).says(&["not started", "ledger", "127.0.0.1:1", "refused"]);
    scenario.run(&["runs"]).exited(69).says(&["127.0.0.1:1", "refused"]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('acted') IS NULL"), "t");
    // What is configured is listed all the same, and a dry run needs no history.
    scenario.run(&["jobs"]).succeeded().prints(&["acts"]).says(&["no history", "refused"]);
    scenario.run(&["run-job", "acts", "--dry-run"]).succeeded();
    assert!(started.elapsed() < Duration::from_secs(15), "nobody waits for a server that refuses: {:?}", started.elapsed());
}

#[test]
fn without_a_ledger_a_run_works_and_says_that_it_leaves_no_history() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).sql_job("acts", "", &["CREATE TABLE acted ()"]);
    scenario.run(&["run-job", "acts"]).succeeded().says(&["no [ledger] is configured"]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('acted') IS NULL, to_regnamespace('pgtend') IS NULL"), "f|t");
    scenario.run(&["runs"]).exited(78).says(&["no [ledger]", "database = "]);
}

#[test]
fn of_two_runs_of_a_job_at_once_one_is_skipped_and_says_who_has_the_lock() {
    let server = server(18);
    let database = server.new_database();
    let scenario = sleeper(server, &database).sql_job("other", "", &["SELECT 1"]);
    let first = scenario.start(&["run-job", "slow"]);
    eventually("the first sleeps", || server.sleeps(&database));

    scenario.run(&["run-job", "slow"]).exited(75).says(&["already running", "held by server process", "pgtend"]);
    scenario.run(&["run-job", "other"]).succeeded();
    let runs = scenario.runs(&["slow"]);
    assert_eq!((&runs[0]["outcome"], &runs[1]["outcome"]), (&serde_json::Value::Null, &"skipped".into()));
    assert!(runs[1]["error"].as_str().unwrap().contains("its lock is held by server process"), "{runs:?}");
    scenario.run(&["runs", "slow"]).succeeded().prints(&["running", "skipped"]);

    first.signal(Signal::TERM);
    first.wait().exited(143).says(&["cancelled"]);
    assert_eq!(scenario.runs(&["slow"])[0]["outcome"], "cancelled");
    eventually("the statement is cancelled in the server", || !server.sleeps(&database));
}

#[test]
fn runs_without_a_common_ledger_exclude_each_other_through_the_target() {
    let server = server(18);
    let (database, history) = (server.new_database(), server.new_database());
    let with = apart(server, &database, &server.url(&history)).sql_job("slow", "", &[SLEEP]);
    let without = Scenario::with_database(server, &database).sql_job("slow", "", &["SELECT 1"]);
    let first = with.start(&["run-job", "slow"]);
    eventually("the first sleeps", || server.sleeps(&database));
    without.run(&["run-job", "slow"]).exited(75).says(&["already running"]);
    first.signal(Signal::INT);
    first.wait().exited(143);
    without.run(&["run-job", "slow"]).succeeded();
}

#[test]
fn a_killed_run_is_called_crashed_by_the_next_run_of_its_job() {
    let server = server(18);
    let database = server.new_database();
    let scenario = sleeper(server, &database);
    let first = scenario.start(&["run-job", "slow"]);
    eventually("it sleeps", || server.sleeps(&database));
    let pid = first.pid();
    first.kill();
    let started = Instant::now();
    let scenario = scenario.sql_job("slow", "", &["SELECT 1"]);
    eventually("its lock is free", || scenario.run(&["run-job", "slow"]).code == Some(0));
    assert!(started.elapsed() < Duration::from_secs(14), "before its heartbeat is stale");
    let outcomes = server.sql(
        &database,
        "SELECT outcome, error, finished_at = heartbeat_at FROM pgtend.runs WHERE outcome <> 'skipped' ORDER BY id",
    );
    let (crashed, next) = outcomes.split_once('\n').unwrap();
    assert!(crashed.starts_with(&format!("crashed|the process died without reporting a result: pid {pid} on ")), "{crashed}");
    assert!(crashed.ends_with("|t") && next.starts_with("succeeded"), "{outcomes}");
    eventually("nobody works for the dead", || !server.sleeps(&database));
}

/// The slow one: a heartbeat is stale after 15 s.
#[test]
fn a_killed_run_is_called_crashed_by_whoever_looks_when_its_heartbeat_is_stale() {
    let server = server(18);
    let database = server.new_database();
    let scenario = sleeper(server, &database);
    let (killed, alive) = (scenario.start(&["run-job", "slow"]), scenario.path("jobs/alive.toml"));
    std::fs::copy(scenario.path("jobs/slow.toml"), alive).unwrap();
    let alive = scenario.start(&["run-job", "alive"]);
    let both = || {
        server
            .sql(&database, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'")
    };
    eventually("both sleep", || both() == "2");
    killed.kill();
    assert_eq!(scenario.runs(&["--outcome", "crashed"]).len(), 0, "it may yet come back");
    eventually("its heartbeat is stale", || scenario.runs(&["slow", "--outcome", "crashed"]).len() == 1);
    let looked =
        server.sql(&database, "SELECT clock_timestamp() - heartbeat_at > interval '15 s' FROM pgtend.runs WHERE job = 'slow'");
    assert_eq!(looked, "t");
    // A run that is alive goes on.
    assert!(scenario.runs(&["alive"])[0]["outcome"].is_null());
    alive.signal(Signal::TERM);
    alive.wait().exited(143);
    assert_eq!(scenario.runs(&["alive"])[0]["outcome"], "cancelled");
}

/// The slow one: a heartbeat is stale after 15 s.
#[test]
fn a_backup_of_the_ledgers_own_database_has_not_crashed_in_the_restored_one() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = server.empty_database();
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy)]).succeeded();
    let open = server.sql(&copy, "SELECT job, outcome IS NULL, progress -> 'ledger' ->> 'database' <> '' FROM pgtend.runs");
    assert_eq!(open, "nightly|t|t", "the dump has the row of its own run");

    let restored = Scenario::with_database(server, &copy).ledger();
    eventually("its heartbeat is stale", || !restored.runs(&["nightly"])[0]["outcome"].is_null());
    let run = &restored.runs(&["nightly"])[0];
    assert_eq!(run["outcome"], "cancelled", "{run}");
    assert!(
        run["error"].as_str().unwrap().starts_with("this ledger was restored or copied while the run was under way"),
        "{run}"
    );
    assert!(run["retry_at"].is_null(), "{run}");
}

#[test]
fn a_run_that_loses_its_lock_in_the_ledger_stops_and_says_so() {
    let server = server(18);
    let database = server.new_database();
    let scenario = sleeper(server, &database);
    let run = scenario.start(&["run-job", "slow"]);
    eventually("it sleeps", || server.sleeps(&database));
    terminate_holder(server, &database, "pgtend run app/slow");
    run.wait().exited(69).says(&["its lock was lost"]);
    eventually("the statement is cancelled in the server", || !server.sleeps(&database));
    let runs = scenario.runs(&[]);
    assert_eq!(runs[0]["outcome"], "failed");
    assert!(runs[0]["error"].as_str().unwrap().contains("its lock was lost"), "{runs:?}");
}

#[test]
fn a_run_that_loses_its_lock_in_the_target_stops_and_says_so() {
    let server = server(18);
    let (database, history) = (server.new_database(), server.new_database());
    let scenario = apart(server, &database, &server.url(&history)).sql_job("slow", "", &[SLEEP]);
    let run = scenario.start(&["run-job", "slow"]);
    eventually("it sleeps", || server.sleeps(&database));
    terminate_holder(server, &database, "pgtend job app/slow");
    run.wait().exited(69).says(&["its lock was lost"]);
    eventually("the statement is cancelled in the server", || !server.sleeps(&database));
    let runs = scenario.runs(&[]);
    assert_eq!(runs[0]["outcome"], "failed");
    assert!(runs[0]["error"].as_str().unwrap().contains("its lock was lost"), "{runs:?}");
}

#[test]
fn the_end_of_a_run_is_written_when_the_ledger_is_back() {
    let server = server(18);
    let database = server.new_database();
    let mut history = Server::start(18);
    let scenario = apart(server, &database, &history.url("postgres")).sql_job("slow", "", &[SLEEP]);
    let run = scenario.start(&["run-job", "slow"]);
    eventually("it sleeps", || server.sleeps(&database));
    history.crash();
    eventually("it notices, and stops its statement", || !server.sleeps(&database));
    history.start_again();
    run.wait().exited(69).says(&["its lock was lost", "trying again"]);
    let runs = scenario.runs(&[]);
    assert_eq!((runs.len(), &runs[0]["outcome"]), (1, &"failed".into()));
}

#[test]
fn history_is_pruned_but_for_the_last_runs_and_the_last_success() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).config("[serve]\nlisten = \"127.0.0.1:0\"\n").ledger().sql_job(
        "old",
        "",
        &["SELECT 1"],
    );
    scenario.run(&["runs"]).succeeded();
    server.sql(
        &database,
        "INSERT INTO pgtend.runs (job, database, task, trigger, started_at, heartbeat_at, finished_at, outcome, host, pid, version)
         SELECT job, 'app', 'sql', 'manual', t, t, t, CASE WHEN i IN (2, 3) THEN 'succeeded' ELSE 'failed' END, 'h', 1, '0'
         FROM generate_series(1, 50) i, (VALUES ('old'), ('removed')) AS j (job),
              LATERAL (SELECT now() - interval '500 days' + i * interval '1 hour') AS a (t) ORDER BY i;
         INSERT INTO pgtend.runs (job, database, task, trigger, started_at, outcome, host, pid, version)
         SELECT 'young', 'app', 'sql', 'manual', now() - interval '300 days', 'failed', 'h', 1, '0' FROM generate_series(1, 30)",
    );
    let serve = scenario.start(&["serve"]);
    let kept = || {
        server.sql(
            &database,
            "SELECT job, count(*), count(*) FILTER (WHERE outcome = 'succeeded') FROM pgtend.runs GROUP BY 1 ORDER BY 1",
        )
    };
    eventually("it is pruned", || kept() == "old|21|1\nremoved|21|1\nyoung|30|0");
    let success = server.sql(
        &database,
        "SELECT count(*) FROM pgtend.runs a WHERE job = 'old' AND outcome = 'succeeded'
         AND started_at < now() - interval '499 days 20 hours'",
    );
    assert_eq!(success, "1");
    serve.signal(Signal::TERM);
    serve.wait().succeeded();
}

#[test]
fn a_run_that_takes_longer_than_its_timeout_is_stopped() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("slow", "timeout = \"1s\"", &[SLEEP]);
    scenario.run(&["run-job", "slow"]).exited(1).says(&["timed out", "timeout of 1s"]);
    assert_eq!(scenario.runs(&[])[0]["outcome"], "timed_out");
    eventually("the statement is cancelled in the server", || !server.sleeps(&database));
}

#[test]
fn a_tick_runs_once_whoever_comes() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE ran (at timestamptz DEFAULT now())");
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("yearly", "schedule = \"@yearly\"\ncatch_up_within = \"1000d\"", &["INSERT INTO ran DEFAULT VALUES"])
        .sql_job("long-ago", "schedule = \"0 0 1 1 *\"\ncatch_up_within = \"1s\"", &["SELECT 1/0"])
        .sql_job("not-again", "schedule = \"0 0 1 1 *\"\ncatch_up = \"skip\"", &["SELECT 1/0"])
        .sql_job("unscheduled", "", &["SELECT 1"]);
    let started: Vec<_> = (0..3).map(|_| scenario.start(&["run-job", "yearly", "--scheduled"])).collect();
    let ended: Vec<_> = started.into_iter().map(|run| run.wait().succeeded()).collect();
    let said = ended.iter().filter(|output| output.stderr.contains("already has a run")).count();
    assert_eq!((said, server.sql(&database, "SELECT count(*) FROM ran")), (2, "1".to_owned()));
    scenario.run(&["run-job", "yearly", "--scheduled"]).succeeded().says(&["already has a run", "nothing to do"]);
    let runs = scenario.runs(&[]);
    assert_eq!((runs.len(), &runs[0]["trigger"]), (1, &"catch-up".into()));
    assert!(runs[0]["scheduled_for"].as_str().unwrap().contains("-01-01T00:00:00"), "{runs:?}");
    // By hand it runs as often as somebody wants.
    scenario.run(&["run-job", "yearly"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "2");
    scenario.run(&["run-job", "unscheduled", "--scheduled"]).exited(78).says(&["no `schedule`"]);
    // A timer catches up no more than `serve` does.
    scenario.run(&["run-job", "long-ago", "--scheduled"]).succeeded().says(&["catch_up_within", "nothing to do"]);
    scenario.run(&["run-job", "not-again", "--scheduled"]).succeeded().says(&["catch_up", "nothing to do"]);
}

#[test]
fn one_of_a_jobs_databases_runs_alone_when_asked() {
    let server = server(18);
    let (database, other) = (server.new_database(), server.new_database());
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.other]\nurl = {}\n[databases.third]\n", quoted(&server.url(&other))))
        .ledger()
        .job("both", "databases = [\"app\", \"other\"]\n[sql]\nstatements = [\"CREATE TABLE IF NOT EXISTS ran ()\"]\n");
    scenario.run(&["run-job", "both", "--database", "other"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT to_regclass('ran') IS NULL"), "t");
    assert_eq!(server.sql(&other, "SELECT to_regclass('ran') IS NULL"), "f");
    scenario.run(&["run-job", "both", "--database", "third"]).exited(78).says(&["does not run on `third`", "app, other"]);
    scenario.run(&["run-job", "both"]).succeeded();
    assert_eq!(scenario.runs(&[]).len(), 3);
}

#[test]
fn a_failure_on_one_database_does_not_keep_a_job_from_the_next() {
    let server = server(18);
    let (database, other) = (server.new_database(), server.new_database());
    server.sql(&other, "CREATE TABLE there ()");
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.other]\nurl = {}\n", quoted(&server.url(&other))))
        .ledger()
        .job("both", "databases = [\"app\", \"other\"]\n[sql]\nstatements = [\"SELECT FROM there\"]\n");
    scenario.run(&["run-job", "both"]).exited(1).says(&["both on app: failed"]).prints(&["both on other: succeeded"]);
    let runs = scenario.runs(&[]);
    assert_eq!([&runs[0]["outcome"], &runs[1]["outcome"]], ["failed", "succeeded"]);
}

#[test]
fn hostile_names_go_through_history_and_metrics_as_they_are() {
    let server = server(18);
    let database = server.new_database();
    let (job, name) = ("größe_日本.v2", "we\"ird 'ü; -- \\x");
    let key = serde_json::to_string(name).unwrap();
    let real = "Real \"näme\"; '";
    server.sql(&database, &format!("CREATE DATABASE \"{}\"", real.replace('"', "\"\"")));
    let scenario = Scenario::empty()
        .config(&format!("[databases.{key}]\nurl = {}\n", quoted(&server.url(real))))
        .config(&format!("[ledger]\ndatabase = {key}\n[metrics]\ntextfile_dir = \".\"\n"))
        .job(job, &format!("database = {key}\n[sql]\nstatements = [\"SELECT 1\"]\n"));
    scenario.run(&["run-job", job]).succeeded().prints(&[name]);
    scenario.run(&["run-job", job]).succeeded();
    let runs = scenario.runs(&[job, "--database", name]);
    assert_eq!((runs.len(), &runs[0]["job"], &runs[0]["database"]), (2, &job.into(), &name.into()));
    scenario.run(&["runs", "show", "1"]).succeeded().prints(&[job, name]);
    scenario.run(&["jobs"]).succeeded().prints(&[job, name, "succeeded"]);
    let metrics = std::fs::read_to_string(scenario.path(&format!("pgtend_{job}.prom"))).unwrap();
    let labels = format!("{{job=\"{job}\",database=\"we\\\"ird 'ü; -- \\\\x\",outcome=\"succeeded\"}} 2\n");
    assert!(metrics.contains(&labels), "{metrics}");
    assert_eq!(metrics.matches("outcome=\"succeeded\"").count(), 1, "{metrics}");
    server.sql("postgres", &format!("DROP DATABASE \"{}\" WITH (FORCE)", real.replace('"', "\"\"")));
}
