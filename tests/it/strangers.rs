//! What strangers at the pages can do: take connections and descriptors, ask by other names, read what is not theirs. None of it
//! stops a backup.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::support::http::{Manners, Recorder};
use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, sql_job, with_ledger};
use crate::support::{Scenario, quoted};

/// What a system gives a process by default: macOS, and many a unit file.
const DESCRIPTORS: u64 = 256;

/// Waits for what the server sends on such a connection, and for its end.
fn rest_of(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection is still open: {error}"),
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A connection on which this was sent. Tests hold more of them than some systems let a process have.
fn connect(serving: &Serving, sent: &str) -> TcpStream {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let connected = TcpStream::connect(("127.0.0.1", serving.port));
    let mut stream = connected.unwrap_or_else(|error| panic!("{error}: {}", serving.log()));
    // It may have been closed already.
    let _ = stream.write_all(sent.as_bytes());
    stream
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn descriptors(serving: &Serving) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", serving.pid())).unwrap().count()
}

#[test]
fn half_a_request_on_370_connections_stops_neither_backups_nor_health_checks() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i");
    let scenario = scenario.job("nightly", "schedule = \"*/2 * * * * *\"\ndatabase = \"app\"\n[backup]\nstore = \"local\"\n");
    let serving = Serving::ready(&scenario, "");
    let pid = Pid::from_raw(serving.pid() as i32);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) }).unwrap();

    let half = || connect(&serving, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let mut held: Vec<TcpStream> = (0..370).map(|_| half()).collect();
    let before = asked(server, &database, "SELECT coalesce(max(id), 0) FROM pgtend.runs");

    let runs = format!("SELECT count(*) FROM pgtend.runs WHERE id > {before} AND outcome IN ('succeeded', 'failed')");
    while asked(server, &database, &runs).parse::<u64>().unwrap() < 3 {
        // What was closed is opened again.
        held.drain(..40);
        held.extend((0..40).map(|_| half()));
        let answer = serving.try_get("/healthz").unwrap_or_else(|| panic!("no answer to a health check: {}", serving.log()));
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        assert!(descriptors(&serving) < 200, "{} descriptors", descriptors(&serving));
        std::thread::sleep(Duration::from_millis(100));
    }
    let failed = asked(server, &database, "SELECT job, error FROM pgtend.runs WHERE outcome NOT IN ('succeeded', 'skipped')");
    assert_eq!(failed, "", "{}", serving.log());
    assert!(!serving.log().contains("Too many open files"), "{}", serving.log());
}

#[test]
fn a_connection_that_sends_half_a_request_or_rests_after_one_is_closed() {
    let (scenario, _) = with_ledger(server(18));
    let serving = Serving::ready(&scenario, "");
    let started = Instant::now();
    let silent = connect(&serving, "");
    let half = connect(&serving, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let resting = connect(&serving, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let drips = connect(&serving, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n");
    let mut writes = drips.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        // A byte now and then does not keep it open.
        while started.elapsed() < Duration::from_secs(50) && writes.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
    });

    assert_eq!(rest_of(silent), "");
    rest_of(half);
    let answer = rest_of(resting);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok\n"), "{answer}");
    rest_of(drips);
    dripping.join().unwrap();
}

#[test]
fn a_reader_that_reads_nothing_loses_its_place_to_one_who_asks() {
    let (scenario, _) = with_ledger(server(18));
    // Fifty pages of this size are more than sockets buffer.
    let scenario = (0..200).fold(scenario, |scenario, number| scenario.job(&format!("j{number}"), &sql_job("", &["SELECT 1"])));
    let serving = Serving::ready(&scenario, "");
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    let held: Vec<TcpStream> = (0..150).map(|_| connect(&serving, &requests)).collect();
    for _ in 0..20 {
        assert_eq!(serving.get("/healthz").status, 200);
    }
    assert!(descriptors(&serving) < 150, "{}", descriptors(&serving));
    drop(held);
}

#[test]
fn a_process_that_is_started_with_few_descriptors_takes_all_that_it_may_have() {
    let (scenario, _) = with_ledger(server(18));
    let serving = Serving::start_by(&scenario, "", |command| {
        let program = std::mem::replace(command, Command::new("sh"));
        command.args(["-c", "ulimit -Sn 256; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.current_dir(program.get_current_dir().unwrap());
    });
    serving.is_ready();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", serving.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], "256");
}

#[test]
fn a_page_under_a_name_that_is_not_ours_is_refused_and_says_what_to_configure() {
    let (scenario, _) = with_ledger(server(18));
    let serving = Serving::ready(&scenario, "hosts = [\"DB1.example.com\"]");
    let ask =
        |path: &str, host: &str| rest_of(connect(&serving, &format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n")));
    for path in ["/", "/metrics", "/api/jobs", "/api/runs", "/api/runs/1"] {
        for host in
            ["Host: evil.example\r\n", "Host: localhost.evil.example:9187\r\n", "", "Host: localhost\r\nHost: evil.example\r\n"]
        {
            let answer = ask(path, host);
            assert_eq!(status_of(&answer), "421", "{path} {host}: {answer}");
            assert!(answer.contains("hosts = [\"NAME\"] in [serve]") && answer.contains("token_file"), "{answer}");
        }
        for host in ["localhost", "127.0.0.1:9187", "[::1]", "db1.example.com:80"] {
            let answer = ask(path, &format!("Host: {host}\r\n"));
            assert!(["200", "404"].contains(&status_of(&answer)), "{path} {host}: {answer}");
        }
    }
    // A target with another name than the Host.
    assert_eq!(status_of(&ask("http://evil.example/metrics", "Host: localhost\r\n")), "421");
    // Who checks health may know us by any name: there is nothing to read.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status_of(&ask(path, "Host: evil.example\r\n")), "200");
    }
    drop(serving);

    // A token does as well, and needs no names.
    std::fs::write(scenario.path("token"), "s3cret").unwrap();
    let serving = Serving::ready(&scenario, "token_file = \"token\"");
    let asked = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nAuthorization: Bearer s3cret\r\n\r\n";
    assert_eq!(status_of(&rest_of(connect(&serving, asked))), "200");
}

#[test]
fn a_name_of_a_host_is_no_url() {
    for wrong in ["https://db1.example.com", "db1:9187", ""] {
        let scenario = Scenario::empty().config(&format!("[serve]\nhosts = [{wrong:?}]\n"));
        scenario.run(&["check"]).exited(78).says(&["is not a host name", "write the name without scheme and port"]);
    }
}

/// A value of a row that is nobody's business but the database's.
const SECRET: &str = "ada@example.com";

/// A job whose statement breaks a key, with that value in the server's DETAIL.
fn breaks_a_key(server: &Server) -> (Scenario, String) {
    let (scenario, database) = with_ledger(server);
    server.sql(&database, &format!("CREATE TABLE t (mail text PRIMARY KEY); INSERT INTO t VALUES ('{SECRET}')"));
    (scenario.job("breaks", &sql_job("", &["INSERT INTO t SELECT mail FROM t"])), database)
}

#[test]
fn lists_have_neither_reports_nor_what_tools_said() {
    let server = server(18);
    let (scenario, database) = breaks_a_key(server);
    server.sql(&database, "CREATE TABLE kept (i int)");
    let scenario = scenario.job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(
        &database,
        "UPDATE pgtend.runs SET stderr = 'said by a tool', report = jsonb_set(report, '{warnings}', '[\"a warning\"]')",
    );
    let serving = Serving::ready(&scenario, "");

    let runs = serving.json("/api/runs");
    let run = &runs["runs"][0];
    assert_eq!((&run["job"], &run["outcome"]), (&"nightly".into(), &"succeeded".into()));
    assert!(run["summary"].as_str().unwrap().contains("dump.sql.gz"), "{run}");
    for list in ["/api/runs", "/api/jobs"] {
        let list = serving.get(list).body;
        for left_out in ["report", "stderr", "said by a tool", "a warning", "facts"] {
            assert!(!list.contains(left_out), "{left_out}: {list}");
        }
    }
    let detail = serving.json(&format!("/api/runs/{}", run["id"]));
    assert_eq!(detail["run"]["stderr"], "said by a tool");
    assert_eq!(detail["run"]["report"]["warnings"][0], "a warning");
    assert!(detail["run"]["report"]["facts"]["rows"].is_number(), "{detail}");
}

#[test]
fn webhook_and_span_of_a_failure_have_no_values_of_rows() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = breaks_a_key(server);
    let scenario = scenario
        .config(&format!("[notify]\nwebhook_url = {}\n", quoted(&recorder.url("/hook"))))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &recorder.url(""))
        .job("reads", &sql_job(&format!("ping_url = {}", quoted(&recorder.url("/ping"))), &["SELECT mail::int FROM t"]));
    for job in ["breaks", "reads"] {
        scenario.run(&["run-job", job]).exited(1);
    }
    // Whoever may read the ledger sees it all.
    let ledger = asked(server, &database, "SELECT string_agg(error, ' ' ORDER BY id) FROM pgtend.runs");
    assert_eq!(ledger.matches(SECRET).count(), 2, "{ledger}");

    let told = recorder.asked();
    let paths = recorder.paths();
    for path in ["POST /hook", "POST /v1/traces", "GET /ping/fail"] {
        assert!(paths.iter().any(|asked| asked == path), "{path}: {paths:?}");
    }
    for asked in &told {
        let text = format!("{} {}", asked.target, String::from_utf8_lossy(&asked.body));
        assert!(!text.contains("ada"), "{text}");
    }
    let hooks: Vec<String> = told
        .iter()
        .filter(|asked| asked.target == "/hook")
        .map(|asked| String::from_utf8_lossy(&asked.body).into_owned())
        .collect();
    assert!(hooks[0].contains("duplicate key") && hooks[0].contains("values of rows are left out (SQLSTATE 23505)"), "{hooks:?}");
    assert!(hooks[1].contains("invalid input syntax for type integer") && hooks[1].contains("22P02"), "{hooks:?}");
}

#[test]
fn a_monitor_that_sends_us_elsewhere_is_not_followed_and_named() {
    let database = server(18).new_database();
    let elsewhere = Recorder::start(Manners::Answers);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        // Another port is another server.
        let monitor = Recorder::start(Manners::Redirects(status, elsewhere.url("/stolen").leak()));
        let scenario = Scenario::with_database(server(18), &database)
            .config(&format!("[notify]\nwebhook_url = {}\n", quoted(&monitor.url("/hook/c0ffee"))))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &monitor.url(""))
            .sql_job("sent", &format!("ping_url = {}", quoted(&monitor.url("/ping/c0ffee"))), &["SELECT 1/0"]);
        let output = scenario.run(&["run-job", "sent"]).exited(1);
        let to = elsewhere.url("");
        for what in ["webhook", "ping of job `sent`"] {
            let line = output.stderr.lines().find(|line| line.contains(what) && line.contains("was not delivered"));
            let line = line.unwrap_or_else(|| panic!("{what}: {}", output.stderr));
            assert!(line.contains(&format!("HTTP {}: it redirects to {to}", &status[..3])), "{line}");
        }
        assert!(!output.stderr.contains("c0ffee") && !output.stderr.contains("stolen"), "{}", output.stderr);
    }
    assert_eq!(elsewhere.paths(), [""; 0]);
}

#[test]
fn a_store_that_sends_us_elsewhere_is_not_followed() {
    let elsewhere = Recorder::start(Manners::Answers);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let store = Recorder::start(Manners::Redirects(status, elsewhere.url("/stolen").leak()));
        let scenario = Scenario::empty()
            .config("[stores.far]\nbucket = \"b\"\nregion = \"us-east-1\"\n")
            .config(&format!("endpoint = {}\n", quoted(&store.url(""))))
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "c0ffee");
        scenario.run(&["check", "--connect"]).exited_with_one_of(&[69, 78]).prints(&["FAILED  store far"]);
        assert!(!store.asked().is_empty());
    }
    assert_eq!(elsewhere.paths(), [""; 0]);
}

#[test]
fn a_monitor_that_moves_within_itself_is_followed_and_a_message_is_never_lost_on_the_way() {
    let database = server(18).new_database();
    for (status, hook_arrives) in [("302 Found", false), ("308 Permanent Redirect", true)] {
        let monitor = Recorder::start(Manners::Moves(status));
        let scenario = Scenario::with_database(server(18), &database)
            .config(&format!("[notify]\nwebhook_url = {}\n", quoted(&monitor.url("/hook"))))
            .sql_job("sent", &format!("ping_url = {}", quoted(&monitor.url("/ping"))), &["SELECT 1/0"]);
        let output = scenario.run(&["run-job", "sent"]).exited(1);
        let asked = monitor.asked();
        assert!(asked.iter().any(|asked| asked.method == "GET" && asked.target.starts_with("/moved/ping/fail")), "{asked:?}");
        let hook = asked.iter().find(|asked| asked.target == "/moved/hook");
        assert_eq!(hook.is_some_and(|hook| hook.method == "POST" && !hook.body.is_empty()), hook_arrives, "{asked:?}");
        // Not delivered is said so; a GET without the message would look delivered.
        assert_eq!(output.stderr.contains("webhook was not delivered: HTTP 302"), !hook_arrives, "{}", output.stderr);
    }
}

#[test]
fn check_warns_of_connections_that_others_can_read() {
    let scenario = Scenario::empty()
        .config("[databases.far]\nurl = \"postgres://u@db.example/x\"\n")
        .config("[databases.clear]\nurl = \"postgres://u@10.0.0.1,localhost/x?sslmode=disable\"\n")
        .config("[databases.safe]\nurl = \"postgres://u@db.example/x?sslmode=verify-full\"\n")
        .config("[databases.asked]\nurl = \"postgres://u@db.example/x?sslmode=require\"\n")
        .config("[databases.here]\nurl = \"postgres://u@localhost/x\"\n")
        .config("[databases.socket]\nurl = \"postgres://u@%2Ftmp/x?sslmode=disable\"\n")
        .config("[stores.far]\nbucket = \"b\"\nregion = \"r\"\nendpoint = \"http://s3.example:9000\"\n")
        .config("[stores.here]\nbucket = \"b\"\nregion = \"r\"\nendpoint = \"http://127.0.0.1:9000\"\n")
        .config("[stores.safe]\nbucket = \"b\"\nregion = \"r\"\nendpoint = \"https://s3.example\"\n")
        .config("[notify]\nwebhook_url = \"http://chat.example/c0ffee\"\n")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318")
        .job("far", "database = \"far\"\nping_url = \"http://hc.example/c0ffee\"\n[sql]\nstatements = [\"SELECT 1\"]\n")
        .job("safe", "database = \"far\"\nping_url = \"https://hc.example/c0ffee\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    let expected = [
        "database `clear`: sslmode=disable to 10.0.0.1:5432: rows travel in the clear",
        "database `far`: sslmode=prefer to db.example:5432: if the server has no TLS",
        "store `far`: its endpoint is http:// to s3.example: backups travel in the clear",
        "webhook of [notify]: it is http:// to chat.example",
        "job `far`: its ping is http:// to hc.example",
        "OTEL_EXPORTER_OTLP_ENDPOINT: it is http:// to collector.example",
    ];
    let output = scenario.run(&["check"]).succeeded();
    let warnings: Vec<&str> = output.stdout.lines().filter_map(|line| line.strip_prefix("WARNING: ")).collect();
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
    assert!(!output.stdout.contains("c0ffee"), "{}", output.stdout);
    let json: serde_json::Value = serde_json::from_str(&scenario.run(&["check", "--json"]).succeeded().stdout).unwrap();
    assert_eq!(json["warnings"].as_array().unwrap().len(), expected.len());
}
