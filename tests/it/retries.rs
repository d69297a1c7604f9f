//! Further attempts after a failure that may pass, and what a run waits for or is refused without.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually, quoted};

/// Counts the calls of `attempt()`, and fails in the first two.
const FAILS_TWICE: &str = "CREATE SEQUENCE tries;
    CREATE FUNCTION attempt() RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE n bigint := nextval('tries');
    BEGIN
        IF n <= 2 THEN RAISE EXCEPTION 'attempt % fails', n; END IF;
        RETURN n;
    END $$";

/// id, trigger, attempt, first attempt, outcome of each run.
fn rows(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT id, trigger, attempt, retry_of, outcome FROM pgtend.runs ORDER BY id")
}

#[test]
fn a_run_that_fails_is_tried_again_after_growing_pauses() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, FAILS_TWICE);
    let scenario = Scenario::with_database(server, &database).ledger().sql_job(
        "flaky",
        "retries = 3\nretry_delay = \"500ms\"",
        &["SELECT attempt()"],
    );
    let started = Instant::now();
    scenario.run(&["run-job", "flaky"]).succeeded().says(&["attempt 1 fails", "attempt 2 fails", "next attempt in"]);
    assert!(started.elapsed() >= Duration::from_millis(1500), "0.5 s and 1 s");
    assert_eq!(rows(server, &database), "1|manual|1||failed\n2|retry|2|1|failed\n3|retry|3|1|succeeded");
    scenario.run(&["runs", "flaky"]).succeeded().prints(&["retry 2 of run 1"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pgtend.runs WHERE retry_at IS NOT NULL"), "0");
}

#[test]
fn retries_end_and_the_last_failure_is_the_exit_code() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job(
        "broken",
        "retries = 1\nretry_delay = \"100ms\"",
        &["SELECT 1/0"],
    );
    let output = scenario.run(&["run-job", "broken"]).exited(1);
    assert_eq!(output.stderr.matches("broken on app: failed").count(), 2, "{}", output.stderr);
    assert_eq!(rows(server, &database), "1|manual|1||failed\n2|retry|2|1|failed");
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("weak_{database}");
    server.sql(
        &database,
        &format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {database} TO {role}; CREATE TABLE secret ()"),
    );
    let retries = "retries = 3\nretry_delay = \"100ms\"";
    let scenario = Scenario::with_url(server, &server.url_as(&role, &database))
        .ledger()
        .sql_job("forbidden", retries, &["SELECT FROM secret"])
        .sql_job("slow", &format!("{retries}\ntimeout = \"500ms\""), &["SELECT pg_sleep(600)"]);
    scenario.run(&["run-job", "forbidden"]).exited(77).says(&["permission denied for table secret"]);
    scenario.run(&["run-job", "slow"]).exited(1).says(&["timed out"]);
    assert_eq!(rows(server, &database), "1|manual|1||failed\n2|manual|1||timed_out");
}

#[test]
fn a_signal_ends_the_wait_for_the_next_attempt() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job(
        "broken",
        "retries = 3\nretry_delay = \"10m\"",
        &["SELECT 1/0"],
    );
    let run = scenario.start(&["run-job", "broken"]);
    eventually("it failed", || {
        server.psql(&database, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'failed'") == Ok("1".to_owned())
    });
    assert!(scenario.runs(&[])[0]["retry_at"].is_string());
    run.signal(Signal::TERM);
    run.wait().exited(1);
    assert_eq!(rows(server, &database), "1|manual|1||failed");
}

#[test]
fn without_a_ledger_retries_work_too() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, FAILS_TWICE);
    let scenario = Scenario::with_database(server, &database).sql_job(
        "flaky",
        "retries = 2\nretry_delay = \"100ms\"",
        &["SELECT attempt()"],
    );
    let output = scenario.run(&["run-job", "flaky", "--json"]).succeeded();
    let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    let attempts: Vec<_> = json["runs"].as_array().unwrap().iter().map(|run| (&run["attempt"], &run["outcome"])).collect();
    assert_eq!(attempts, [(&1.into(), &"failed".into()), (&2.into(), &"failed".into()), (&3.into(), &"succeeded".into())]);
}

#[test]
fn a_run_whose_server_restarts_is_tried_again_when_it_is_back() {
    let mut server = Server::start(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE restarted AS SELECT false AS is_so");
    // It was sent: without `repeatable` nobody would send it again.
    let job = "database = \"app\"\nretries = 1\nretry_delay = \"100ms\"\n[sql]\nrepeatable = true\n\
               statements = [\"SELECT pg_sleep(CASE WHEN is_so THEN 0 ELSE 600 END) FROM restarted\"]\n";
    let scenario = Scenario::with_database(&server, &database).ledger().job("long", job);
    let run = scenario.start(&["run-job", "long"]);
    eventually("it sleeps", || server.sleeps(&database));
    server.sql(&database, "UPDATE restarted SET is_so = true");
    server.crash();
    server.start_again();
    run.wait().succeeded().says(&["failed", "next attempt in"]);
    // A server that crashed skips some numbers.
    let rows = server.sql(&database, "SELECT trigger, attempt, retry_of, outcome FROM pgtend.runs ORDER BY id");
    assert_eq!(rows, "manual|1||failed\nretry|2|1|succeeded");
}

#[test]
fn check_refuses_an_unknown_predecessor_a_circle_and_too_many_retries() {
    let scenario = Scenario::with_database(server(18), "postgres")
        .sql_job("a", "after = [\"bb\"]\nretries = 21", &["SELECT 1"])
        .sql_job("b", "", &["SELECT 1"]);
    scenario.run(&["check"]).exited(78).says(&[
        "there is no job `bb`",
        "did you mean `b`?",
        "jobs/a.toml:2",
        "`retries = 21`",
        "0 to 20",
    ]);
    let scenario = scenario.sql_job("a", "after = [\"b\"]", &["SELECT 1"]).sql_job("b", "after = [\"a\"]", &["SELECT 1"]);
    scenario.run(&["check"]).exited(78).says(&["waits for itself", "after"]);
    scenario.sql_job("a", "after = [\"a\"]", &["SELECT 1"]).run(&["check"]).exited(78).says(&["waits for itself"]);
}

#[test]
fn a_schedule_is_handed_down_along_after() {
    let scenario = Scenario::with_database(server(18), "postgres")
        .sql_job("c-first", "schedule = \"30 2 * * *\"\ntimezone = \"Asia/Tokyo\"", &["SELECT 1"])
        .sql_job("b-second", "after = [\"c-first\"]", &["SELECT 1"])
        .sql_job("a-third", "after = [\"b-second\"]", &["SELECT 1"])
        .sql_job("d-own", "after = [\"c-first\"]\nschedule = \"@hourly\"", &["SELECT 1"]);
    let json = scenario.json(&["jobs"]);
    let schedules: Vec<_> = json["jobs"].as_array().unwrap().iter().map(|job| (&job["schedule"], &job["timezone"])).collect();
    let tokyo = (&"30 2 * * *".into(), &"Asia/Tokyo".into());
    assert_eq!(schedules, [tokyo, tokyo, tokyo, (&"@hourly".into(), &"UTC".into())]);
}

#[test]
fn a_tick_waits_for_its_predecessors_and_is_skipped_when_one_did_not_succeed() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("good", "schedule = \"@yearly\"\ncatch_up_within = \"1000d\"", &["SELECT pg_sleep(1)"])
        .sql_job("bad", "schedule = \"@yearly\"\ncatch_up_within = \"1000d\"", &["SELECT 1/0"])
        .sql_job("absent", "schedule = \"@yearly\"\ncatch_up_within = \"1000d\"\nlate_after = \"1s\"", &["SELECT 1"])
        .sql_job("off", "schedule = \"@yearly\"\nenabled = false", &["SELECT 1"])
        .sql_job("after-good", "after = [\"good\"]\ncatch_up_within = \"1000d\"", &["SELECT 1"])
        .sql_job("after-bad", "after = [\"good\", \"bad\"]\ncatch_up_within = \"1000d\"", &["SELECT 1"])
        .sql_job("after-absent", "after = [\"absent\"]\ncatch_up_within = \"1000d\"", &["SELECT 1"])
        .sql_job("after-off", "after = [\"off\"]\ncatch_up_within = \"1000d\"", &["SELECT 1"]);
    let waiting = scenario.start(&["run-job", "after-good", "--scheduled"]);
    scenario.run(&["run-job", "good", "--scheduled"]).succeeded();
    waiting.wait().succeeded();
    let order = server.sql(
        &database,
        "SELECT a.started_at >= g.finished_at FROM pgtend.runs a, pgtend.runs g WHERE a.job = 'after-good' AND g.job = 'good'",
    );
    assert_eq!(order, "t");

    scenario.run(&["run-job", "bad", "--scheduled"]).exited(1);
    let bad = "it runs after job `bad` on `app`, whose run 3 failed";
    scenario.run(&["run-job", "after-bad", "--scheduled"]).exited(75).says(&["skipped", bad]);
    scenario.run(&["run-job", "after-absent", "--scheduled"]).exited(75).says(&["skipped", "did not start in 1.0 s"]);
    scenario.run(&["run-job", "after-off", "--scheduled"]).exited(75).says(&["skipped", "not enabled"]);
    let skipped = scenario.runs(&["--outcome", "skipped"]);
    assert_eq!(skipped.len(), 3);
    assert!(skipped[0]["error"].as_str().unwrap().contains(bad), "{skipped:?}");
    // By hand it does not ask.
    scenario.run(&["run-job", "after-bad"]).succeeded();
}

#[test]
fn destructive_work_waits_for_a_young_verified_backup() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i; CREATE TABLE ran ()");
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .backup_job("local", "")
        .job("partly", "database = \"app\"\n[backup]\nstore = \"local\"\nexclude_tables = [\"public.t\"]\n")
        .sql_job("careful", "require_backup_within = \"1h\"", &["DROP TABLE ran"])
        .sql_job("impatient", "require_backup_within = \"1s\"", &["DROP TABLE ran"]);

    scenario.run(&["run-job", "careful"]).exited(75).says(&[
        "skipped",
        "no verified backup of `app`",
        "run its backup job first",
    ]);
    scenario
        .run(&["run-job", "careful", "--dry-run"])
        .succeeded()
        .prints(&["Would be skipped: there is no verified backup", "DROP TABLE ran"]);
    // A backup of some tables is no backup of the database.
    scenario.run(&["run-job", "partly"]).succeeded();
    scenario.run(&["run-job", "careful"]).exited(75).says(&["no verified backup"]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('ran') IS NULL"), "f");

    scenario.run(&["run-job", "nightly"]).succeeded();
    std::thread::sleep(Duration::from_millis(2100));
    scenario.run(&["run-job", "impatient"]).exited(75).says(&["the newest verified backup of `app` is", "old", "is 1s"]);
    scenario.run(&["run-job", "careful"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT to_regclass('ran') IS NULL"), "t");
    let skipped = scenario.runs(&["careful", "--outcome", "skipped"]);
    assert_eq!(skipped.len(), 2);
    assert!(skipped[0]["error"].as_str().unwrap().contains("no verified backup of `app`"), "{skipped:?}");
}

#[test]
fn a_backup_store_that_cannot_be_read_is_a_failure_not_a_permission() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[stores.away]\nbucket = \"b\"\nregion = \"us-east-1\"\nendpoint = {}\n", quoted("http://127.0.0.1:1")))
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b")
        .backup_job("away", "")
        .sql_job("careful", "require_backup_within = \"1h\"", &["CREATE TABLE ran ()"]);
    let output = scenario.run(&["run-job", "careful"]);
    assert!(matches!(output.code, Some(1 | 69)), "{output:?}");
    output.says(&["cannot tell how old the newest backup is", "s3://b", "127.0.0.1:1"]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('ran') IS NULL"), "t");
}
