//! What is said of databases that servers were found to have: nothing is safe that no store has, that nobody renews, or that nobody can work on.

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, with_ledger};
use crate::support::{Scenario, eventually, quoted};

const NIGHTLY: &str = "databases = \"tenant_*\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\nkeep = { last = 3 }\nverify = \"checksum\"\n";

/// Three databases with a row each, which a fleet's job has backed up, and that of the ledger, which has a job of its own.
fn three_tenants(fleet: &Server) -> (Scenario, String) {
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_a", "tenant_b", "tenant_c"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
        fleet.sql(name, "CREATE TABLE t AS SELECT 1 AS i");
    }
    let scenario = scenario
        .config(&format!("[servers.main]\nurl = {}\ndatabases = \"tenant_*\"\n", quoted(&fleet.url("postgres"))))
        .job("nightly", NIGHTLY)
        .job("own", "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n");
    for job in ["nightly", "own"] {
        scenario.run(&["run-job", job]).succeeded();
    }
    scenario.run(&["notify", "digest"]).succeeded().prints(&["digest: all 4 databases are safe", "3 of 3 well"]);
    (scenario, ledger)
}

fn fleet_of(scenario: &Scenario) -> Value {
    scenario.json(&[])["fleets"][0].clone()
}

#[test]
fn a_fleet_whose_sets_are_gone_or_damaged_is_not_safe() {
    let fleet = Server::start(18);
    let (scenario, _) = three_tenants(&fleet);
    std::fs::rename(scenario.path("store/main.tenant_a"), scenario.path("tenant_a")).unwrap();
    let gone = "2 of 3 well, 1 without a backup that counts (main.tenant_a: the newest, main.tenant_a/nightly/";
    scenario.run(&["notify", "digest"]).succeeded().prints(&[
        "digest: 1 of 4 databases NOT safe",
        "🔴 nightly on tenant_*",
        gone,
    ]);
    scenario.run(&[]).succeeded().prints(&[gone, "Next: pgtend run-job nightly "]);
    scenario.run(&["doctor"]).prints(&["backup of tenant_*", gone]);
    std::fs::rename(scenario.path("tenant_a"), scenario.path("store/main.tenant_a")).unwrap();
    // The newest of another is damaged.
    let sets = scenario.sets();
    let set = sets.iter().find(|set| set.starts_with("main.tenant_b/")).unwrap();
    let dump = scenario.path(&format!("store/{set}/dump.sql.gz"));
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    scenario.run(&["backups", "verify", set]);
    let damaged = format!(
        "1 without a backup that counts (main.tenant_b: the newest, {set} in local, does not count: its bytes are damaged)"
    );
    scenario.run(&["notify", "digest"]).succeeded().prints(&["1 of 4 databases NOT safe", &damaged]);
    // A newer set that counts: what is lost is history.
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["notify", "digest"]).succeeded().prints(&["all 4 databases are safe"]);
    // A store that is away says nothing of any of them.
    std::fs::rename(scenario.path("store"), scenario.path("away")).unwrap();
    scenario.run(&["notify", "digest"]).succeeded().prints(&["NOT safe", "3 known by the ledger alone"]);
    assert_eq!(fleet_of(&scenario)["by_ledger"], 3);
}

#[test]
fn a_fleet_that_nobody_renews_is_not_safe() {
    let fleet = Server::start(18);
    let (scenario, ledger) = three_tenants(&fleet);
    let scenario = scenario.job("nightly", &format!("enabled = false\n{NIGHTLY}"));
    scenario.run(&["notify", "digest"]).succeeded().prints(&["3 of 4 databases NOT safe", "3 whose job is disabled"]);
    scenario.run(&[]).succeeded().prints(&["0 of 3 well, 3 whose job is disabled", "Next: pgtend jobs "]);
    let scenario = scenario
        .job("nightly", NIGHTLY.split_once("schedule = \"0 2 * * *\"\n").map(|(a, b)| format!("{a}{b}")).as_deref().unwrap());
    scenario.run(&["notify", "digest"]).succeeded().prints(&["3 of 4 databases NOT safe", "3 whose job has no schedule"]);
    // Timers ran it, and no scheduler knows it.
    let scenario = scenario.job("nightly", NIGHTLY);
    server(18).sql(
        &ledger,
        "UPDATE pgtend.runs SET started_at = started_at - interval '90 days', finished_at = finished_at - interval '90 days' WHERE job = 'nightly'",
    );
    scenario.run(&["jobs"]).succeeded().prints(&["0 of 3 well, 3 late"]);
    // The sets are of today: the ledger is old, and not the backups.
    scenario.run(&["notify", "digest"]).succeeded().prints(&["all 4 databases are safe", "3 of 3 well"]);
    let folders =
        ["tenant_a", "tenant_b", "tenant_c"].map(|name| (scenario.path(&format!("store/main.{name}")), scenario.path(name)));
    folders.iter().for_each(|(there, away)| std::fs::rename(there, away).unwrap());
    scenario.run(&["notify", "digest"]).succeeded().prints(&["3 of 4 databases NOT safe", "0 of 3 well, 3 late"]);
    folders.iter().for_each(|(there, away)| std::fs::rename(away, there).unwrap());
    // Its file is gone, and the server stays.
    std::fs::remove_file(scenario.path("jobs/nightly.toml")).unwrap();
    let none = "main.tenant_a, main.tenant_b, main.tenant_c: no job makes another backup, as job nightly is gone; the oldest of their newest sets is ";
    scenario.run(&["notify", "digest"]).succeeded().prints(&["3 of 4 databases NOT safe", none]);
    scenario.run(&[]).succeeded().prints(&[none, "Next: pgtend jobs --all "]);
    scenario.run(&["doctor"]).prints(&[none]);
    // What has nothing of its own needs none.
    fleet.sql("tenant_c", "DROP TABLE t");
    scenario
        .run(&["notify", "digest"])
        .succeeded()
        .prints(&["2 of 3 databases NOT safe", "main.tenant_a, main.tenant_b: no job makes another backup"]);
    // Their sets are gone, too.
    std::fs::remove_dir_all(scenario.path("store")).unwrap();
    std::fs::create_dir(scenario.path("store")).unwrap();
    scenario.run(&[]).succeeded().prints(&["main.tenant_a, main.tenant_b: no backup, and no job makes one"]);
}

#[test]
fn a_living_database_on_which_nobody_can_work_is_not_gone_and_not_safe_for_as_long_as_that_lasts() {
    let fleet = Server::start(18);
    let (scenario, ledger) = three_tenants(&fleet);
    fleet.sql("postgres", "ALTER DATABASE tenant_b WITH ALLOW_CONNECTIONS false");
    // Nobody ever could work on this one.
    fleet.sql("postgres", "CREATE DATABASE tenant_d WITH ALLOW_CONNECTIONS false");
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(run.stderr.contains("2 databases of server `main` are left out"), "{}", run.stderr);
    server(18)
        .sql(&ledger, "UPDATE pgtend.databases SET left_out_at = left_out_at - interval '60 days' WHERE left_out IS NOT NULL");
    let both = "2 databases of servers are left out, so no job runs there: main.tenant_b (it takes no connections), main.tenant_d (it takes no connections)";
    scenario.run(&["notify", "digest"]).succeeded().prints(&["2 of 5 databases NOT safe", both, "2 of 2 well"]);
    let said = scenario.run(&[]).succeeded().prints(&[
        "main.tenant_b is left out since",
        "main.tenant_d is left out since",
        "Next: pgtend check --connect",
    ]);
    assert!(!said.stdout.contains("gone"), "{}", said.stdout);
    scenario.run(&["doctor"]).prints(&[both]);
    scenario.run(&["jobs"]).succeeded().prints(&["main.tenant_b is left out since", "it takes no connections"]);
    let left_out = scenario.json(&[])["left_out"].clone();
    assert_eq!(
        (&left_out[0]["database"], &left_out[1]["database"]),
        (&Value::from("main.tenant_b"), &Value::from("main.tenant_d"))
    );
    let mut serving = Serving::ready(&scenario, "");
    let left_out = || serving.metric("pgtend_fleet_databases_left_out");
    eventually("the metrics count them", || left_out() == Some(2.0));
    // One that can be worked on again is new, and one that was dropped is gone.
    fleet.sql("postgres", "ALTER DATABASE tenant_b WITH ALLOW_CONNECTIONS true");
    fleet.sql("postgres", "DROP DATABASE tenant_d");
    eventually("the metrics count none", || left_out() == Some(0.0));
    assert_eq!(serving.terminate(), Some(0));
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["notify", "digest"]).succeeded().prints(&["all 4 databases are safe", "3 of 3 well"]);
    assert_eq!(scenario.json(&[])["left_out"], serde_json::json!([]));
    scenario.run(&["jobs"]).succeeded().prints(&["main.tenant_d is gone since"]);
}

#[test]
fn a_server_that_is_away_hides_neither_what_it_had_nor_what_was_left_out() {
    let mut fleet = Server::start(18);
    let (scenario, _) = three_tenants(&fleet);
    fleet.sql("postgres", "ALTER DATABASE tenant_b WITH ALLOW_CONNECTIONS false");
    scenario.run(&["run-job", "nightly"]).succeeded();
    fleet.crash();
    let away = "server `main` does not answer, so the 2 databases that it had count: ";
    let said = scenario.run(&[]).succeeded().prints(&[away, "main.tenant_b is left out since", "with a backup in doubt"]);
    assert!(said.stdout.contains("0 of 2 well"), "{}", said.stdout);
}
