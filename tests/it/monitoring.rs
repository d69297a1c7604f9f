//! The files in monitoring/: alerts by promtool, and each query of the dashboard on a real Prometheus that scrapes `serve`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::http::get;
use crate::support::postgres::server;
use crate::support::serve::{Serving, free_port, sql_job};
use crate::support::{Scenario, ends_with_tests, eventually};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring").join(name)
}

fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(file(""));
    let output = ends_with_tests(&mut command).output().expect("promtool is installed (scripts/setup)");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should_and_not_else() {
    let said = promtool(&["check", "rules", "prometheus-rules.yml"]);
    assert!(said.contains("14 rules found"), "{said}");
    promtool(&["test", "rules", "prometheus-rules.test.yml", "prometheus-rules-days.test.yml"]);
}

#[test]
fn every_alert_has_a_test() {
    let alerts = |names: &[&str], key: &str| -> BTreeSet<String> {
        let texts = names.iter().map(|name| std::fs::read_to_string(file(name)).unwrap());
        let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.iter().filter_map(|line| Some(line.split_once(key)?.1.trim().to_owned())).collect()
    };
    let rules = alerts(&["prometheus-rules.yml"], "- alert: ");
    assert!(rules.len() > 5, "{rules:?}");
    assert_eq!(rules, alerts(&["prometheus-rules.test.yml", "prometheus-rules-days.test.yml"], "alertname: "));
}

/// Dropped, it ends.
struct Prometheus {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// It scrapes a port of this host each second, and evaluates our rules.
    fn start(scraped: u16) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{}]\nscrape_configs:\n  - job_name: pgtend\n    honor_labels: true\n    static_configs: [{{ targets: [\"127.0.0.1:{scraped}\"] }}]\n",
            file("prometheus-rules.yml").display()
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let command = ends_with_tests(&mut command).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        let process = command.spawn().expect("prometheus is installed (scripts/setup)");
        let started = Self { process, port, _folder: folder };
        eventually("prometheus is ready", || get(port, "/-/ready").is_some_and(|answer| answer.contains("200 OK")));
        started
    }

    /// The result of a query at this moment.
    fn query(&self, query: &str) -> Value {
        let encoded: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = get(self.port, &format!("/api/v1/query?query={encoded}")).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{query}: {error}: {answer}"));
        assert_eq!(json["status"], "success", "{query}: {json}");
        json["data"]["result"].clone()
    }

    fn has_data(&self, query: &str) -> bool {
        self.query(query).as_array().is_some_and(|series| !series.is_empty())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The queries of all panels, with Grafana's variables filled in, each with its panel.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id each");
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().unwrap() {
            let query = ["$job", "$database"]
                .iter()
                .fold(target["expr"].as_str().unwrap().to_owned(), |query, name| query.replace(name, ".*"));
            let query = query.replace("$__rate_interval", "1m").replace("$__range", "5m");
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[test]
fn each_query_of_the_dashboard_has_data_on_a_real_prometheus() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL);
         INSERT INTO logs (created_at) SELECT now() - make_interval(days => i) FROM generate_series(1, 40) i; ANALYZE logs;
         CREATE TABLE parted (at timestamptz NOT NULL) PARTITION BY RANGE (at)",
    );
    // Each runs again and again while it is watched, or was run once.
    let often = "schedule = \"*/5 * * * * *\"\n";
    let servers =
        format!("[servers.main]\nurl = {}\ndatabases = \"of_no_tenant_*\"\n", crate::support::quoted(&server.url("postgres")));
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .config(&servers)
        .job("fleet", "databases = \"main.of_no_tenant_*\"\n[sql]\nstatements = [\"SELECT 1\"]\n")
        .job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\nverify = \"restore\"\nscratch = \"same\"\nkeep = { last = 2 }\n")
        .job("stats", &sql_job(often, &["SELECT 1"]))
        .job("audit", "database = \"app\"\n[audit]\nstore = \"local\"\n")
        .job("old-logs", &format!("database = \"app\"\n{often}[retention]\ntable = \"public.logs\"\ncolumn = \"created_at\"\nolder_than = \"30d\"\narchive = \"local\"\n"))
        .job("parts", "database = \"app\"\n[partition]\ntable = \"public.parted\"\ncolumn = \"at\"\nevery = \"month\"\npremake = 2\n");
    for job in ["nightly", "parts", "audit"] {
        scenario.run(&["run-job", job]).succeeded();
    }
    // A first run that would leave little asks for consent.
    scenario.run(&["run-job", "old-logs", "--yes"]).succeeded();
    let serving = Serving::ready(&scenario, "");
    let prometheus = Prometheus::start(serving.port);
    eventually("the proofs are known", || prometheus.has_data("pgtend_backup_age_seconds < 3600"));
    server.sql(&database, "INSERT INTO logs (created_at) SELECT now() - interval '35 days' FROM generate_series(1, 3)");
    let queries = queries();
    assert!(queries.len() > 20, "{queries:?}");
    for (panel, query) in &queries {
        eventually(&format!("panel `{panel}` has data by {query}"), || prometheus.has_data(query));
    }
    // What the rules ask for is there, too: a misspelt name would never fire.
    let rules = std::fs::read_to_string(file("prometheus-rules.yml")).unwrap();
    let names: BTreeSet<&str> = rules
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("pgtend_"))
        .collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        eventually(&format!("there is {name}"), || prometheus.has_data(name));
    }
    let safe = prometheus.query("time() - max(pgtend_backup_proved_timestamp_seconds)");
    let age: f64 = safe[0]["value"][1].as_str().unwrap().parse().unwrap();
    assert!((0.0..3600.0).contains(&age), "{safe}");
    assert_eq!(prometheus.query("max(pgtend_backup_proved_sets)")[0]["value"][1], "1");
    assert!(prometheus.has_data("max(pgtend_archived_rows_total) >= 3"), "{}", prometheus.query("pgtend_archived_rows_total"));
    assert!(!prometheus.has_data("ALERTS{alertname=\"PgtendBackupTooOld\"}"), "{}", prometheus.query("ALERTS"));
}

#[test]
fn a_backup_job_without_a_proof_has_an_infinite_age() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().backup_job("local", "verify = \"none\"");
    let serving = Serving::ready(&scenario, "");
    let age = "pgtend_backup_age_seconds{job=\"nightly\",database=\"app\"}";
    let proved = "pgtend_backup_proved_timestamp_seconds{job=\"nightly\",database=\"app\"}";
    eventually("the age is known", || serving.metric(age) == Some(f64::INFINITY));
    assert_eq!(serving.metric(proved), Some(0.0));
    // A set that nobody has read back proves nothing.
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(serving.metric(age), Some(f64::INFINITY));
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    eventually("another process' proof is known", || serving.metric(age).is_some_and(|age| age < 600.0));
    assert!(serving.metric(proved).unwrap() > 1.7e9);
}
