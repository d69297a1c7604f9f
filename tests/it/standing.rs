//! `pgtend` alone: where one stands, and what comes next, whatever does not answer.

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually, quoted};

/// A backup job that runs by itself.
fn nightly(scenario: Scenario, above: &str, more: &str) -> Scenario {
    let job = format!("database = \"app\"\nschedule = \"0 2 * * *\"\n{above}\n[backup]\nstore = \"local\"\n{more}\n");
    scenario.job("nightly", &job)
}

fn standing(scenario: &Scenario) -> Value {
    scenario.json(&[])
}

#[test]
fn without_a_configuration_the_next_step_is_init_and_with_mistakes_it_is_check() {
    let scenario = Scenario::empty();
    scenario.run(&[]).succeeded().prints(&["There is no configuration", "Next: pgtend init"]);
    assert_eq!(standing(&scenario)["configured"], false);
    let scenario = scenario.config("[databases.app]\nulr = 'x'\n[stores.local]\n");
    scenario.run(&[]).succeeded().prints(&["2 mistakes", "Next: pgtend check "]);
    assert_eq!(standing(&scenario)["mistakes"], 2);
}

#[test]
fn from_the_first_backup_to_a_failure_the_next_step_is_said() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database).ledger();
    scenario.run(&[]).succeeded().prints(&["none, and no job makes one", "Next: pgtend init"]);
    let scenario = nightly(scenario, "", "verify = \"restore\"\nscratch = \"same\"");
    scenario.run(&[]).succeeded().prints(&["none yet", "Next: pgtend run-job nightly "]);
    // It only looks: no ledger was made.
    assert_eq!(server.sql(&database, "SELECT to_regnamespace('pgtend') IS NULL"), "t");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    scenario.run(&[]).succeeded().prints(&["ago, restored on 20", &set, "Next: pgtend serve"]);
    let found = standing(&scenario);
    assert_eq!(found["databases"][0]["newest"]["set"], Value::from(set), "{found:#}");
    let scenario = scenario.sql_job("breaks", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "breaks"]).exited(1);
    let run = standing(&scenario)["failed"][0]["run"].as_i64().unwrap();
    let next = format!("Next: pgtend runs show {run} ");
    scenario.run(&[]).succeeded().prints(&["Failed last:", "breaks on app", "division by zero", &next]);
    let scenario = scenario.job("mistaken", "x = 1");
    scenario.run(&[]).succeeded().prints(&["Skipped, with mistakes", "mistaken", "Next: pgtend check "]);
}

#[test]
fn a_job_whose_tick_passed_without_a_success_is_late() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database).ledger().backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    // A scheduler has known it for two years, and it has not succeeded since yesterday.
    let scenario = scenario.sql_job("stats", "schedule = '0 0 * * *'\nlate_after = '1m'", &["SELECT 1"]);
    scenario.run(&["run-job", "stats"]).succeeded();
    server.sql(
        &database,
        "UPDATE pgtend.runs SET finished_at = now() - interval '3 days', started_at = now() - interval '3 days';
         INSERT INTO pgtend.schedules (job, database, schedule, known_since) VALUES ('stats', 'app', '0 0 * * * UTC', now() - interval '2 years')",
    );
    scenario.run(&[]).succeeded().prints(&[
        "Late:",
        "stats on app: no success for its tick of",
        "its last success was 3 d",
        "Next: pgtend serve",
    ]);
    assert_eq!(standing(&scenario)["late"][0]["job"], "stats");
}

#[test]
fn a_server_that_is_gone_hides_no_backup_and_is_no_error() {
    let mut own = Server::start(18);
    own.sql("postgres", "CREATE DATABASE app");
    let scenario = Scenario::with_database(&own, "app").ledger().backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    own.crash();
    let said = scenario.run(&[]).succeeded();
    said.prints(&[&set, "by its name alone", "cannot connect", "Without an answer:", "Next: pgtend check --connect"]);
}

#[test]
fn what_never_answers_is_said_after_some_seconds() {
    // It accepts connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = quoted(&format!("postgres://nobody@127.0.0.1:{port}/app?sslmode=disable"));
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = {url}\n[databases.other]\nurl = {url}\n[stores.local]\npath = 'store'\n"))
        .ledger()
        .backup_job("local", "");
    let started = std::time::Instant::now();
    scenario.run(&[]).succeeded().prints(&["did not answer in 5 s", "the ledger did not answer", "Next: pgtend init"]);
    // A connection alone may take 20 s, and there are three: it takes 10 s at the most, and a busy machine has ten times as long.
    assert!(started.elapsed().as_secs() < 100, "{:?}", started.elapsed());
}

#[test]
fn without_a_ledger_the_newest_set_is_late_by_the_jobs_own_schedule() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = nightly(Scenario::with_database(server, &database), "", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let said = scenario.run(&[]).succeeded().prints(&["Next: pgtend jobs ", "without [ledger] no more is known"]);
    assert!(!said.stdout.contains("Late:"), "{}", said.stdout);
    scenario.run(&["doctor"]).succeeded().prints(&["without [ledger] no more is known"]);
    // The same set, and a schedule whose ticks have passed since.
    let job = "database = \"app\"\nschedule = \"* * * * * *\"\nlate_after = \"1s\"\n[backup]\nstore = \"local\"\n";
    let scenario = scenario.job("nightly", job);
    eventually("the set is late", || standing(&scenario)["late"][0]["job"] == "nightly");
    scenario.run(&[]).succeeded().prints(&["Late:", "the newest set is", "Next: pgtend serve"]);
    scenario.run(&["doctor"]).prints(&["job nightly", "the newest set is"]);
}

#[test]
fn a_backup_job_that_never_runs_by_itself_is_said() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = nightly(Scenario::with_database(server, &database).ledger(), "", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let scenario = nightly(scenario, "enabled = false", "");
    scenario.run(&[]).succeeded().prints(&[
        "its job nightly is disabled",
        "Next: pgtend jobs ",
        "disabled, or without a schedule",
    ]);
    scenario.run(&["doctor"]).prints(&["backup of app", "its job nightly is disabled"]);
    assert_eq!(standing(&scenario)["databases"][0]["idle"], "is disabled");
    let scenario = scenario.backup_job("local", "");
    scenario.run(&[]).succeeded().prints(&["its job nightly has no schedule", "Next: pgtend jobs "]);
    // One that runs is enough.
    let scenario = scenario.job("other", "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n");
    let said = scenario.run(&[]).succeeded();
    assert!(!said.stdout.contains("has no schedule"), "{}", said.stdout);
}

#[test]
fn a_newest_set_that_a_server_refused_is_not_called_proved() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    let restore = "verify = \"restore\"\nscratch = \"same\"\n";
    let scenario = nightly(Scenario::with_database(server, &database).ledger(), "", restore);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let proved = scenario.sets().remove(0);
    scenario.run(&[]).succeeded().prints(&["restored on 20"]);
    // The next is made, and is refused for its data.
    let scenario = nightly(scenario, "", &format!("{restore}expect = [\"SELECT count(*) > 5000 FROM t\"]"));
    scenario.run(&["run-job", "nightly"]).exited(1);
    let refused = scenario.sets().pop().unwrap();
    assert_ne!(refused, proved);
    let next = format!("Next: pgtend backups show {refused} ");
    let said = format!("a newer one, {refused} in local, is not proved: refused by ");
    scenario.run(&[]).succeeded().prints(&[&proved, &said, "are not true there", &next]);
    let found = standing(&scenario);
    assert_eq!(found["databases"][0]["lost"]["set"], Value::from(refused.clone()), "{found:#}");
    assert!(found["databases"][0]["lost"]["refused_by"].as_str().unwrap().contains("are not true there"), "{found:#}");
    scenario.run(&["doctor"]).prints(&[&said, &format!("pgtend backups show {refused}")]);
    // Where a server refused it for something else, it counts as read back, and as no more.
    let other = server.trusted_database();
    let scenario = nightly(Scenario::with_database(server, &other).ledger(), "", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let role = format!("poor_{other}");
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    scenario.run(&["backups", "verify", &set, "--restore-on", &server.url_as(&role, &other)]).exited_with_one_of(&[1, 77]);
    let next = format!("Next: pgtend backups show {set} ");
    scenario.run(&[]).succeeded().prints(&[" ago, not proved: refused by ", &next]);
    server.sql("postgres", &format!("DROP ROLE {role}"));
}

#[test]
fn a_newest_set_that_is_damaged_is_said_and_makes_another_the_next_step() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = nightly(Scenario::with_database(server, &database).ledger(), "", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let dump = scenario.path(&format!("store/{set}/dump.sql.gz"));
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    scenario.run(&["backups", "verify", &set]);
    scenario.run(&[]).succeeded().prints(&["none; the newest, ", &set, "its bytes are damaged", "Next: pgtend run-job nightly "]);
    scenario.run(&["doctor"]).prints(&["backup of app", "its bytes are damaged: pgtend run-job nightly"]);
    assert_eq!(standing(&scenario)["databases"][0]["lost"]["set"], Value::from(set));
    // Once a newer one is there, it is history.
    scenario.run(&["run-job", "nightly"]).succeeded();
    let said = scenario.run(&[]).succeeded().prints(&["Next: pgtend serve"]);
    assert!(!said.stdout.contains("damaged"), "{}", said.stdout);
}
