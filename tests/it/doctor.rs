//! `doctor` finds what is in the way of a run; `logs` and `runs --follow` show runs.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::Scenario;
use crate::support::postgres::{Server, server};

fn findings(scenario: &Scenario, code: i32) -> Vec<(String, String, String)> {
    let output = scenario.run(&["doctor", "--json"]).exited(code);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let rows = json["findings"].as_array().unwrap().iter();
    rows.map(|finding| (text(finding, "state"), text(finding, "what"), text(finding, "said"))).collect()
}

#[track_caller]
fn has(findings: &[(String, String, String)], state: &str, what: &str, said: &str) {
    let found = findings.iter().any(|(one, about, text)| one == state && about == what && text.contains(said));
    assert!(found, "{state} {what}: {said} is not in {findings:#?}");
}

#[test]
fn doctor_finds_nothing_where_a_proved_backup_was_made_and_all_is_private() {
    let server = server(18);
    let database = server.trusted_database();
    let job = "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n";
    let scenario = Scenario::with_database(server, &database).ledger().job("nightly", job);
    scenario.run(&["run-job", "nightly"]).succeeded();
    for file in ["config.toml", "jobs/nightly.toml"] {
        fs::set_permissions(scenario.path(file), Permissions::from_mode(0o644)).unwrap();
    }
    let found = findings(&scenario, 0);
    for (what, said) in [
        ("database app", "PostgreSQL 18"),
        ("versions for PostgreSQL 18", "pg_dump (PostgreSQL) 18"),
        ("room in store local", "are free in"),
        ("files", "are not open to all"),
        ("jobs", "every database has a proved backup"),
        ("ledger", "is in place"),
    ] {
        has(&found, "ok", what, said);
    }
    assert!(found.iter().all(|(state, ..)| state == "ok"), "{found:#?}");
    scenario.run(&["doctor"]).succeeded().prints(&["All is well."]);
}

#[test]
fn doctor_says_what_is_in_the_way_and_puts_it_first() {
    let mut own = Server::start(15);
    own.sql("postgres", "CREATE DATABASE app");
    let scenario = Scenario::with_database(&own, "app").ledger().backup_job("local", "");
    fs::set_permissions(scenario.path("jobs/nightly.toml"), Permissions::from_mode(0o666)).unwrap();
    let found = findings(&scenario, 0);
    has(&found, "warning", "files", "chmod o-w");
    has(&found, "warning", "backup of app", "none yet; its job nightly has no schedule: pgtend run-job nightly");
    scenario.run(&["run-job", "nightly"]).succeeded();
    fs::set_permissions(scenario.path("store"), Permissions::from_mode(0o755)).unwrap();
    let scenario = scenario.sql_job("breaks", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "breaks"]).exited(1);
    let found = findings(&scenario, 0);
    has(&found, "warning", "store local", "chmod 700");
    has(&found, "warning", "job breaks", "division by zero");
    own.crash();
    let found = findings(&scenario, 69);
    assert_eq!(found[0].0, "failed", "{found:#?}");
    has(&found, "failed", "database app", "cannot connect");
    scenario.run(&["doctor"]).exited(69).prints(&["in the way of a run: begin at the top."]);
    // Mistakes in files are those of `check`.
    scenario.job("mistaken", "x = 1").run(&["doctor"]).exited(78).says(&["unknown key `x`"]);
}

#[test]
fn doctor_names_a_password_that_others_may_read_and_not_the_password() {
    let server = server(18);
    let database = server.trusted_database();
    let url = server.url(&database).replace("postgres@", "postgres:hunter2@");
    let scenario = Scenario::with_url(server, &url);
    fs::set_permissions(scenario.path("config.toml"), Permissions::from_mode(0o644)).unwrap();
    let found = findings(&scenario, 0);
    has(&found, "warning", "files", "holds a password and others may read it");
    assert!(!format!("{found:?}").contains("hunter2"));
    fs::set_permissions(scenario.path("config.toml"), Permissions::from_mode(0o600)).unwrap();
    assert!(!findings(&scenario, 0).iter().any(|(_, _, said)| said.contains("holds a password")));
}

#[test]
fn logs_print_what_a_run_said_and_follow_waits_for_its_end() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("breaks", "", &["SELECT 1/0"]).sql_job(
        "waits",
        "",
        &["SELECT pg_advisory_xact_lock(7)"],
    );
    scenario.run(&["run-job", "breaks"]).exited(1);
    let run = scenario.runs(&[])[0]["id"].to_string();
    scenario.run(&["logs", &run]).succeeded().prints(&["breaks on app: failed", "error:", "division by zero"]);
    assert!(scenario.json(&["logs", &run])["error"].as_str().unwrap().contains("division by zero"));
    scenario.run(&["logs", "abc"]).exited(64).says(&["a run has a number"]);
    scenario.run(&["runs", "--limit", "abc"]).exited(64).says(&["from 1 to 10000"]);
    scenario.run(&["logs", "4711"]).exited(1).says(&["has no run 4711"]);
    // One under way ends, and so does the wait for it.
    let holder = server.session(&database, "SELECT pg_advisory_lock(7)");
    let under_way = scenario.start(&["run-job", "waits"]);
    crate::support::eventually("the run is there", || scenario.runs(&[]).len() == 2);
    let run = scenario.runs(&[])[1]["id"].to_string();
    scenario.run(&["logs", &run]).succeeded().prints(&["it is under way"]);
    let waiting = scenario.start(&["logs", &run, "--follow"]);
    holder.ends_with("SELECT pg_advisory_unlock(7)");
    waiting.wait().succeeded().prints(&["waits on app: succeeded"]);
    under_way.wait().succeeded();
}

#[test]
fn runs_that_are_followed_are_told_as_they_start_and_end() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("stats", "", &["SELECT 1"])
        .sql_job("breaks", "", &["SELECT 1/0"])
        .sql_job("waits", "", &["SELECT pg_advisory_xact_lock(8)"]);
    scenario.run(&["run-job", "stats"]).succeeded();
    let mut follow = scenario.command(&["runs", "--follow"]);
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("stats on app: succeeded after"));
    scenario.run(&["run-job", "breaks"]).exited(1);
    // It may have started and ended between two looks.
    let told = lines.find(|line| !line.contains(": started (")).unwrap();
    assert!(told.contains("breaks on app: failed after") && told.contains("division by zero"), "{told}");
    // One that is not among the newest any more when it ends.
    let holder = server.session(&database, "SELECT pg_advisory_lock(8)");
    let under_way = scenario.start(&["run-job", "waits"]);
    lines.find(|line| line.contains("waits on app: started (")).unwrap();
    server.sql(
        &database,
        "INSERT INTO pgtend.runs (job, database, task, trigger, started_at, heartbeat_at, finished_at, outcome, host, pid, version)
         SELECT 'many', 'app', 'sql', 'manual', now(), now(), now(), 'succeeded', 'elsewhere', 1, '1' FROM generate_series(1, 501)",
    );
    lines.find(|line| line.contains("many on app: succeeded")).unwrap();
    holder.ends_with("SELECT pg_advisory_unlock(8)");
    under_way.wait().succeeded();
    lines.find(|line| line.contains("waits on app: succeeded after")).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}
