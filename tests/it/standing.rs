//! `pgtend` alone: where one stands, and what comes next, whatever does not answer.

use serde_json::Value;

use crate::copies::two_folders;
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

#[test]
fn a_proved_set_that_no_store_has_any_more_is_said_although_its_run_succeeded() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = nightly(Scenario::with_database(server, &database).ledger(), "", "verify = \"checksum\"");
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    scenario.run(&["notify", "digest"]).succeeded().prints(&["the database is safe"]);
    let sets = scenario.sets();
    let (older, newest) = (&sets[0], &sets[1]);
    // A rule of the bucket, or a store that was set back to a snapshot.
    for gone in ["verification.json", "manifest.json", ""] {
        let path = scenario.path(&format!("store/{newest}/{gone}"));
        if gone.is_empty() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        let said = scenario.run(&[]).succeeded().prints(&[older, newest, "does not count", "Next: pgtend run-job nightly "]);
        assert!(!said.stdout.contains("nothing needs attention"), "{gone}: {}", said.stdout);
        scenario.run(&["notify", "digest"]).succeeded().prints(&["NOT safe", newest]);
    }
    assert_eq!(standing(&scenario)["databases"][0]["lost"]["store"], Value::Null);
    // Another one, and all is well.
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["notify", "digest"]).succeeded().prints(&["the database is safe"]);
}

#[test]
fn a_store_that_is_away_is_said_and_no_verdict_is_silent_about_it() {
    let server = server(18);
    let scenario = two_folders(server, &server.trusted_database(), "");
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let sets = scenario.sets();
    let said = scenario.run(&[]).succeeded().prints(&[&sets[1]]);
    assert!(!said.stdout.contains("not read"), "{}", said.stdout);
    // The newest set is in the store alone that is away.
    std::fs::remove_dir_all(scenario.path(&format!("store/{}", sets[1]))).unwrap();
    std::fs::rename(scenario.path("offsite"), scenario.path("away")).unwrap();
    let not_read = "offsite was not read, and may have a newer one";
    let unread = "store `offsite` cannot be read: ";
    scenario.run(&[]).succeeded().prints(&[&sets[0], not_read, "Without an answer:", unread, "Next: pgtend check --connect"]);
    let found = standing(&scenario);
    assert_eq!(found["databases"][0]["unread"], serde_json::json!(["offsite"]), "{found:#}");
    assert!(found["unread"][0].as_str().unwrap().starts_with(unread), "{found:#}");
    let said = scenario.run(&["doctor"]).exited(69).prints(&["store offsite", unread]);
    assert!(!said.stdout.contains("every database has a proved backup"), "{}", said.stdout);
    // Without a set elsewhere, nobody knows whether there is one.
    std::fs::remove_dir_all(scenario.path("store/app")).unwrap();
    let said = scenario.run(&[]).succeeded().prints(&[&format!("unknown: {unread}"), "Next: pgtend check --connect"]);
    assert!(!said.stdout.contains("none yet"), "{}", said.stdout);
    // A job that keeps nothing there says nothing of it.
    let scenario = nightly(scenario, "", "");
    let said = scenario.run(&[]).succeeded().prints(&["none yet", "Without an answer:", unread]);
    assert!(!said.stdout.contains(not_read), "{}", said.stdout);
}

#[test]
fn a_store_that_never_answers_hides_no_backup_in_another() {
    let server = server(18);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = quoted(&format!("http://{}", silent.local_addr().unwrap()));
    let bucket = |name: &str| format!("[stores.{name}]\nbucket = 'b'\nregion = 'us-east-1'\nendpoint = {endpoint}\n");
    let scenario = Scenario::with_database(server, &server.trusted_database())
        .config(&format!("{}{}", bucket("another"), bucket("third")))
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "y");
    let scenario = nightly(scenario, "", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.files("store").into_iter().find_map(|file| Some(file.strip_suffix("/manifest.json")?.to_owned())).unwrap();
    let job = "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = [\"local\", \"another\"]\n";
    let scenario = scenario.job("nightly", job);
    scenario.run(&[]).succeeded().prints(&[
        &set,
        "another was not read, and may have a newer one",
        "store `another` cannot be read: it did not answer in 5 s",
        "store `third` cannot be read: it did not answer in 5 s",
    ]);
}

#[test]
fn a_database_beside_which_others_are_restored_is_shown_unless_it_has_nothing_of_its_own() {
    let server = server(18);
    let (app, beside) = (server.trusted_database(), server.trusted_database());
    let scenario =
        Scenario::with_database(server, &app).config(&format!("[databases.crm]\nurl = {}\n", quoted(&server.url(&beside))));
    let scenario = nightly(scenario, "", "verify = \"restore\"\nscratch = \"crm\"");
    let said = scenario.run(&[]).succeeded().prints(&["Next: pgtend run-job nightly "]);
    assert!(!said.stdout.contains("crm"), "{}", said.stdout);
    server.sql(&beside, "CREATE TABLE customers (id int)");
    scenario.run(&[]).succeeded().prints(&["crm", "none, and no job makes one", "Next: pgtend init "]);
    scenario.run(&["doctor"]).succeeded().prints(&["backup of crm", "none, and no job makes one"]);
    // A job that backs it up is one like any other.
    let job = "database = \"crm\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n";
    let scenario = scenario.job("crm", job);
    scenario.run(&["run-job", "crm"]).succeeded();
    scenario.run(&[]).succeeded().prints(&["crm/crm/"]);
}

#[test]
fn a_backup_of_another_cluster_with_the_same_name_is_not_this_databases() {
    let (one, other) = (server(18), server(15));
    let database = one.trusted_database();
    other.sql("postgres", &format!("CREATE DATABASE {database}"));
    other.drop_with_test(&database);
    let scenario = nightly(Scenario::with_database(one, &database), "", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let path = scenario.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let as_role =
        |role: &str| std::fs::write(&path, config.replace(&one.url(&database), &other.url_as(role, &database))).unwrap();
    as_role("postgres");
    let none = "none of this database: the sets of its name are of another server or database, ";
    let said = scenario.run(&[]).succeeded().prints(&[none, "pgtend backups accept --identity "]);
    assert!(!said.stdout.contains(&set), "{}", said.stdout);
    assert_eq!(standing(&scenario)["databases"][0]["newest"], Value::Null);
    scenario.run(&["doctor"]).prints(&["backup of app", none]);
    // A role that may not ask who the server is knows the name alone, and says so.
    let role = format!("weak_{database}");
    other.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    other.sql(&database, "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM public");
    as_role(&role);
    scenario.run(&[]).succeeded().prints(&[&set, "by its name alone"]);
    assert!(standing(&scenario)["databases"][0]["unsure"].is_string());
    other.sql("postgres", &format!("DROP ROLE {role}"));
}
