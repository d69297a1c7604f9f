//! Who is told how a run went: pings, the webhook, node_exporter's textfile, traces. None of them ever fails a job.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::{Manners, Recorder};
use crate::support::postgres::server;
use crate::support::{Scenario, eventually, quoted};

const PINGED: &str = "ping_url_env = \"PING_URL\"";

/// A job `pinged` of one statement, whose pings go to `recorder`.
fn pinged(database: &str, recorder: &Recorder, statement: &str) -> Scenario {
    Scenario::with_database(server(18), database).ledger().env("PING_URL", &recorder.url("/ping/c0ffee")).sql_job(
        "pinged",
        PINGED,
        &[statement],
    )
}

fn rid(target: &str) -> &str {
    target.split("rid=").nth(1).unwrap_or_else(|| panic!("no rid in {target}"))
}

#[test]
fn a_run_pings_its_start_and_its_success_with_one_id() {
    let database = server(18).new_database();
    // Its start must not arrive after its end, and this run is shorter than a ping.
    let recorder = Recorder::start(Manners::Dawdles("/start"));
    let scenario = pinged(&database, &recorder, "SELECT 1");
    scenario.run(&["run-job", "pinged"]).succeeded();
    assert_eq!(recorder.paths(), ["GET /ping/c0ffee/start", "GET /ping/c0ffee"]);
    let asked = recorder.asked();
    assert_eq!(rid(&asked[0].target), rid(&asked[1].target));
    assert_eq!(rid(&asked[0].target).len(), 36, "a UUID");
    scenario.run(&["run-job", "pinged"]).succeeded();
    assert_ne!(rid(&recorder.asked()[2].target), rid(&asked[0].target), "another run, another id");
}

#[test]
fn a_failure_is_pinged_and_a_dry_run_is_not() {
    let database = server(18).new_database();
    let recorder = Recorder::start(Manners::Answers);
    let scenario = pinged(&database, &recorder, "SELECT 1/0");
    scenario.run(&["run-job", "pinged", "--dry-run"]).succeeded();
    assert_eq!(recorder.paths(), [""; 0]);
    scenario.run(&["run-job", "pinged"]).exited(1);
    assert_eq!(recorder.paths(), ["GET /ping/c0ffee/start", "GET /ping/c0ffee/fail"]);
}

#[test]
fn busy_is_not_pinged_and_a_cancelled_run_is_a_failure() {
    let server = server(18);
    let database = server.new_database();
    let recorder = Recorder::start(Manners::Answers);
    let scenario = pinged(&database, &recorder, "SELECT pg_sleep(600)");
    let first = scenario.start(&["run-job", "pinged"]);
    eventually("it sleeps", || server.sleeps(&database));
    scenario.run(&["run-job", "pinged"]).exited(75);
    eventually("its start is pinged", || recorder.paths() == ["GET /ping/c0ffee/start"]);
    first.signal(Signal::TERM);
    first.wait().exited(143);
    assert_eq!(recorder.paths(), ["GET /ping/c0ffee/start", "GET /ping/c0ffee/fail"]);
}

#[test]
fn only_the_last_attempt_says_how_it_went() {
    let server = server(18);
    let database = server.new_database();
    let recorder = Recorder::start(Manners::Answers);
    server.sql(&database, "CREATE SEQUENCE tries START 0 MINVALUE 0");
    let scenario = pinged(&database, &recorder, "SELECT 1 / nextval('tries')")
        .config(&format!("[notify]\nwebhook_url = {}\n", quoted(&recorder.url("/hook"))))
        .sql_job("pinged", &format!("{PINGED}\nretries = 1\nretry_delay = \"1s\""), &["SELECT 1 / nextval('tries')"]);
    scenario.run(&["run-job", "pinged"]).succeeded();
    let mut paths = recorder.paths();
    paths.sort();
    // That it failed first is told as a recovery.
    assert_eq!(paths, ["GET /ping/c0ffee", "GET /ping/c0ffee/start", "GET /ping/c0ffee/start", "POST /hook"]);
}

#[test]
fn the_webhook_hears_of_failures_and_of_the_recovery() {
    let server = server(18);
    let database = server.new_database();
    let recorder = Recorder::start(Manners::Answers);
    let scenario = Scenario::with_database(server, &database).ledger().config("[notify]\nwebhook_url_file = \"hook\"\n").sql_job(
        "watched",
        "",
        &["SELECT 1 / (SELECT count(*) FROM pg_class WHERE relname = 'there')"],
    );
    std::fs::write(scenario.path("hook"), recorder.url("/hook/c0ffee") + "\n").unwrap();
    let told = || {
        let bodies = recorder.asked().into_iter().map(|asked| serde_json::from_slice::<Value>(&asked.body).unwrap());
        bodies.collect::<Vec<_>>()
    };

    scenario.run(&["run-job", "watched"]).exited(1);
    assert_eq!(recorder.paths(), ["POST /hook/c0ffee"]);
    let failure = &told()[0];
    for (key, value) in [("event", "failure"), ("job", "watched"), ("database", "app"), ("outcome", "failed")] {
        assert_eq!(failure[key], value, "{failure}");
    }
    assert_eq!((&failure["run"], &failure["attempt"]), (&1.into(), &1.into()));
    assert!(failure["text"].as_str().unwrap().contains("division by zero"), "{failure}");
    assert!(failure["error"].as_str().unwrap().contains("division by zero") && failure["started_at"].is_string(), "{failure}");

    server.sql(&database, "CREATE TABLE there ()");
    scenario.run(&["run-job", "watched"]).succeeded();
    let recovery = &told()[1];
    assert_eq!(
        (&recovery["event"], &recovery["outcome"], &recovery["run"]),
        (&"recovery".into(), &"succeeded".into(), &2.into())
    );
    // A success after a success is no news.
    scenario.run(&["run-job", "watched"]).succeeded();
    assert_eq!(told().len(), 2);
}

#[test]
fn a_run_that_is_refused_is_a_failure_to_its_monitors() {
    let server = server(18);
    let database = server.new_database();
    let recorder = Recorder::start(Manners::Answers);
    let scenario = pinged(&database, &recorder, "SELECT 1")
        .config(&format!("[notify]\nwebhook_url = {}\n", quoted(&recorder.url("/hook"))))
        .sql_job("pinged", &format!("{PINGED}\nrequire_backup_within = \"1h\""), &["SELECT 1"]);
    scenario.run(&["run-job", "pinged"]).exited(75);
    let mut asked = recorder.asked();
    asked.sort_by_key(|asked| asked.method.clone());
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[1].target.contains("/fail"), "{asked:?}");
    let told: Value = serde_json::from_slice(&asked[2].body).unwrap();
    assert_eq!((&told["event"], &told["outcome"]), (&"skipped".into(), &"skipped".into()));
    assert!(told["text"].as_str().unwrap().contains("no verified backup"), "{told}");
}

#[test]
fn a_password_reaches_neither_history_nor_monitors() {
    let server = server(18);
    let database = server.new_database();
    let recorder = Recorder::start(Manners::Answers);
    let url = |database: &str| server.url(database).replace("postgres@", "postgres:c0ffee@");
    let scenario = Scenario::with_url(server, &url(&database))
        .ledger()
        .config(&format!("[databases.gone]\nurl = {}\n", quoted(&url("no_such_database"))))
        .config(&format!("[notify]\nwebhook_url = {}\n[metrics]\ntextfile_dir = \".\"\n", quoted(&recorder.url("/hook"))))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &recorder.url(""))
        .job("lost", "database = \"gone\"\n[sql]\nstatements = [\"SELECT 1\"]\n")
        .sql_job("broken", "", &["SELECT 1/0"]);
    for (job, code) in [("lost", 78), ("broken", 1)] {
        let output = scenario.run(&["run-job", job, "--log", "trace"]).exited(code);
        assert!(!output.stderr.contains("c0ffee") && !output.stdout.contains("c0ffee"), "{output:?}");
        let textfile = std::fs::read_to_string(scenario.path(&format!("pgtend_{job}.prom"))).unwrap();
        assert!(!textfile.contains("c0ffee"), "{textfile}");
    }
    let rows = server.sql(&database, "SELECT r::text FROM pgtend.runs r");
    assert!(rows.contains("no_such_database") && rows.contains("division by zero") && !rows.contains("c0ffee"), "{rows}");
    assert_eq!(recorder.asked().len(), 4, "two webhooks, two traces");
    for asked in recorder.asked() {
        assert!(!String::from_utf8_lossy(&asked.body).contains("c0ffee"), "{asked:?}");
    }
}

#[test]
fn a_monitor_that_is_away_neither_fails_a_job_nor_holds_it_up() {
    let database = server(18).new_database();
    let (hangs, fails) = (Recorder::start(Manners::Hangs), Recorder::start(Manners::Fails));
    let started = Instant::now();
    let running: Vec<_> = [hangs.url("/c0ffee"), fails.url("/c0ffee"), "http://127.0.0.1:1/c0ffee".to_owned()]
        .iter()
        .enumerate()
        .map(|(number, url)| {
            let job = format!("job{number}");
            let scenario = Scenario::with_database(server(18), &database)
                .config("[notify]\nwebhook_url_env = \"PING_URL\"\n")
                .env("PING_URL", url)
                .sql_job(&job, PINGED, &["SELECT 1"]);
            let run = scenario.start(&["run-job", &job, "--log", "trace"]);
            (scenario, run)
        })
        .collect();
    for (_scenario, run) in running {
        let output = run.wait().succeeded().prints(&["succeeded"]);
        assert!(output.stderr.contains("not delivered") || output.stderr.contains("gave up"), "{}", output.stderr);
        assert!(!output.stderr.contains("c0ffee") && !output.stdout.contains("c0ffee"), "the URL is a secret: {output:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn urls_of_monitors_are_secrets_wherever_they_stand() {
    let database = server(18).new_database();
    let url = "http://127.0.0.1:1/c0ffee";
    let scenario = Scenario::with_database(server(18), &database)
        .ledger()
        .config(&format!("[notify]\nwebhook_url = {}\n", quoted(url)))
        .env("PING_URL", url)
        .sql_job("in-file", &format!("ping_url = {}", quoted(url)), &["SELECT 1/0"])
        .sql_job("beside", "ping_url_file = \"secret\"", &["SELECT 1/0"]);
    std::fs::write(scenario.path("jobs/secret"), url).unwrap();
    for arguments in [
        &["check", "--connect"][..],
        &["run-job", "in-file", "--log", "trace"],
        &["run-job", "beside", "--json"],
        &["jobs", "--json"],
        &["runs", "--json"],
        &["run-job", "in-file", "--dry-run", "--log", "debug"],
    ] {
        let output = scenario.run(arguments);
        assert!(!output.stdout.contains("c0ffee") && !output.stderr.contains("c0ffee"), "{output:?}");
    }
    // Their mistakes are named without them.
    let wrong = scenario
        .config("webhook_url_env = \"PING_URL\"\n")
        .sql_job("in-file", "ping_url = 'htp://c0ffee'", &["SELECT 1"])
        .sql_job("both", &format!("ping_url = {}\nping_url_env = \"PING_URL\"", quoted(url)), &["SELECT 1"])
        .sql_job("beside", "ping_url_file = \"missing\"", &["SELECT 1"]);
    let output = wrong.run(&["check"]).exited(78).says(&[
        "not an HTTP URL",
        "both `ping_url` and",
        "both `webhook_url` and",
        "cannot read",
    ]);
    assert!(!output.stderr.contains("c0ffee"), "{}", output.stderr);
}

#[test]
fn a_url_in_the_wrong_place_is_not_shown_either() {
    for text in [
        "[databases]\napp = \"postgres://u:c0ffee@host/x\"\n",
        "databases = 'postgres://u:c0ffee@host/x'\n",
        "notify = \"http://host/c0ffee\"\n",
        "[databases.app]\nurl = [\"postgres://u:c0ffee@host/x\"]\n",
        "[databases.app]\nurl = postgres://u:c0ffee@host/x\n",
        "[databases.app]\nurl = \"postgres://u:c0ffee@host/x\n",
        "[databases.app]\nurl_env = \"postgres://u:c0ffee@host/x\"\n",
        "[databases.app]\nurl_file = \"postgres://u:c0ffee@host/x\"\n",
        "[databases.app]\nurl = \"postgres://u:c0ffee@host/x\"\nurl_env = \"X\"\n",
        "[notify]\nwebhook_url = { url = \"http://host/c0ffee\" }\n",
    ] {
        for arguments in [&["check"][..], &["check", "--json"]] {
            let output = Scenario::empty().config(text).run(arguments).exited(78).says(&["config.toml"]);
            assert!(!output.stderr.contains("c0ffee") && !output.stdout.contains("c0ffee"), "{output:?}");
        }
    }
}

/// Families with their types, and the values of the series. Panics at what node_exporter's parser refuses.
fn parsed(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let (mut types, mut values, mut done) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", ..] => {}
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                done.insert(std::mem::replace(&mut current, name.to_owned()));
            }
            ["#", ..] => panic!("{line}"),
            _ => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let is_histogram = types[&current] == "histogram";
                let suffixes: &[&str] = if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line} in {current}");
                assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
            }
        }
    }
    (types, values)
}

#[test]
fn each_job_leaves_a_textfile_for_node_exporter() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .config("[metrics]\ntextfile_dir = \"textfiles\"\n")
        .sql_job("one", "schedule = \"@daily\"", &["SELECT 1 / (SELECT count(*) FROM pg_class WHERE relname = 'there')"])
        .backup_job("local", "");
    std::fs::create_dir(scenario.path("textfiles")).unwrap();
    server.sql(&database, "CREATE TABLE there ()");
    scenario.run(&["run-job", "one"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.files("textfiles"), ["pgtend_nightly.prom", "pgtend_one.prom"], "nothing half-written");

    let read = |job: &str| parsed(&std::fs::read_to_string(scenario.path(&format!("textfiles/pgtend_{job}.prom"))).unwrap());
    let (types, one) = read("one");
    assert_eq!(types["pgtend_job_runs_total"], "counter");
    let last_success = "pgtend_job_last_success_timestamp_seconds{job=\"one\",database=\"app\"}";
    let succeeded_at = one[last_success];
    assert!(succeeded_at > 1.7e9, "{one:?}");
    assert_eq!(one["pgtend_job_runs_total{job=\"one\",database=\"app\",outcome=\"succeeded\"}"], 1.0);
    let (_, nightly) = read("nightly");
    assert!(nightly["pgtend_backup_size_bytes{job=\"nightly\",database=\"app\",stage=\"stored\"}"] > 0.0);
    // node_exporter serves nothing at all when two files have the same series.
    assert!(one.keys().all(|series| !nightly.contains_key(series)), "{one:?}\n{nightly:?}");

    // A failure does not make the last success never.
    server.sql(&database, "DROP TABLE there");
    scenario.run(&["run-job", "one"]).exited(1);
    let (_, one) = read("one");
    assert!((one[last_success] - succeeded_at).abs() < 5.0, "{one:?}");
    assert_eq!(one["pgtend_job_runs_total{job=\"one\",database=\"app\",outcome=\"failed\"}"], 1.0);
}

#[test]
fn a_textfile_that_cannot_be_written_fails_no_job() {
    let database = server(18).new_database();
    let scenario = Scenario::with_database(server(18), &database).config("[metrics]\ntextfile_dir = \"missing\"\n").sql_job(
        "one",
        "",
        &["SELECT 1"],
    );
    scenario.run(&["run-job", "one"]).succeeded().says(&["cannot write the metrics of `one`", "missing"]);
}

#[test]
fn a_run_is_a_span_for_those_who_ask_for_traces() {
    let database = server(18).new_database();
    let recorder = Recorder::start(Manners::Answers);
    let scenario = Scenario::with_database(server(18), &database).sql_job("traced-job", "", &["SELECT 1"]);
    scenario.run(&["run-job", "traced-job"]).succeeded();
    assert_eq!(recorder.paths(), [""; 0], "nobody asked");
    let scenario = scenario.env("OTEL_EXPORTER_OTLP_ENDPOINT", &recorder.url(""));
    scenario.run(&["run-job", "traced-job"]).succeeded();
    assert_eq!(recorder.paths(), ["POST /v1/traces"]);
    let body = recorder.asked().remove(0).body;
    for text in ["traced-job", "pgtend", "succeeded"] {
        assert!(body.windows(text.len()).any(|window| window == text.as_bytes()), "{text}: {}", String::from_utf8_lossy(&body));
    }
    // A collector that is away fails no job, nor does it hold one up.
    let hangs = Recorder::start(Manners::Hangs);
    for endpoint in ["http://127.0.0.1:1", &hangs.url("")] {
        let started = Instant::now();
        Scenario::with_database(server(18), &database)
            .sql_job("traced-job", "", &["SELECT 1"])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .run(&["run-job", "traced-job"])
            .succeeded();
        assert!(started.elapsed() < Duration::from_secs(15), "{endpoint}: {:?}", started.elapsed());
    }
}
