//! Whose sets are whose, which of them go, and which one is the latest.

use std::sync::atomic::Ordering::Relaxed;

use pgtend::task::backup::manifest::{self, Manifest};
use serde_json::{Value, json};

use crate::support::postgres::{Server, server};
use crate::support::s3::S3Server;
use crate::support::{Scenario, eventually, faketime, quoted};

const TABLE: &str = "CREATE TABLE t AS SELECT i, md5(i::text) AS body FROM generate_series(1, 2000) i";

fn scenario(server: &Server, keys: &str) -> (Scenario, String) {
    let database = server.new_database();
    server.sql(&database, TABLE);
    (Scenario::with_database(server, &database).backup_job("local", keys), database)
}

/// The newest set, once more, as if made then; with another manifest where `change` makes one. Nobody has read it back.
fn copy(scenario: &Scenario, time: &str, change: impl FnOnce(&mut Manifest)) -> String {
    let from = scenario.path(&format!("store/{}", scenario.sets().last().unwrap()));
    let name = format!("app/nightly/{time}");
    let to = scenario.path(&format!("store/{name}"));
    std::fs::create_dir_all(&to).unwrap();
    for file in [scenario.object("dump.sql.gz"), scenario.object("globals.sql.gz")] {
        std::fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
    let mut manifest = manifest::from_json(&std::fs::read(from.join("manifest.json")).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(to.join("manifest.json"), manifest::to_json(&manifest).unwrap()).unwrap();
    scenario.also_in_the_second_store("store");
    name
}

fn is_intact(scenario: &Scenario, set: &str) {
    let text =
        r#"{"bytes":{"verdict":"intact","checked_at":"2026-01-01T00:00:00Z","problems":[],"elapsed_seconds":1.0},"restores":[]}"#;
    std::fs::write(scenario.path(&format!("store/{set}/verification.json")), text).unwrap();
    scenario.also_in_the_second_store("store");
}

fn listed(scenario: &Scenario, set: &str) -> Value {
    let list = scenario.json(&["backups", "list"]);
    list["sets"].as_array().unwrap().iter().find(|listed| listed["set"] == set).cloned().unwrap_or(Value::Null)
}

#[test]
fn thirteen_sets_that_nobody_read_stay_when_the_newest_is_verified_by_hand() {
    let (scenario, _) = scenario(server(18), "verify = \"none\"\nkeep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    for day in 1..=12 {
        copy(&scenario, &format!("2026-01-{day:02}T02-00-00Z"), |_| ());
    }
    scenario.run(&["backups", "verify", "latest"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["have not been read back"]);
    assert_eq!(scenario.sets().len(), 14);
    // By hand they are read, and then the rule holds.
    scenario.run(&["backups", "prune", "--dry-run"]).succeeded().prints(&["check", "its bytes are read before it is deleted"]);
    assert_eq!(scenario.sets().len(), 14);
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
pub fn a_clock_that_was_ahead_costs_no_set_and_is_said_everywhere() {
    let server = server(18);
    let (scenario, database) = scenario(server, "keep = { last = 2 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    for day in 1..=3 {
        let ahead = copy(&scenario, &format!("2031-01-0{day}T02-00-00Z"), |_| ());
        is_intact(&scenario, &ahead);
    }
    let run = scenario.run(&["run-job", "nightly"]).succeeded().says(&["2031-01-03T02-00-00Z is dated in the future"]);
    assert!(!run.stderr.contains("pruned"), "{}", run.stderr);
    let sets = scenario.sets();
    assert_eq!(sets.len(), 5, "this night's is there, and so are all others: {sets:?}");
    // The age of a set from the future would stay at 0.
    eventually("the last set is tonight's", || {
        let list = scenario.run(&["backups", "list"]).succeeded().says(&["is dated in the future"]);
        !list.stdout.contains("set is 0.0 s old")
    });
    assert_eq!(listed(&scenario, "app/nightly/2031-01-01T02-00-00Z")["from_the_future"], true);

    let tonight = sets.iter().rfind(|set| !set.contains("2031")).unwrap();
    // Which clock was wrong, that one's or this one's, a person has to say.
    let target = server.url(&format!("{database}_from_now"));
    let restore = ["backups", "restore", "latest", "--into", &target, "--create"];
    scenario.run(&restore).exited(78).says(&["2031-01-03T02-00-00Z", "is dated in the future", tonight]);
    scenario.run(&[&restore[..], &["--older-ok"]].concat()).succeeded().prints(&[tonight]);
    scenario.run(&["backups", "verify", "latest", "--any"]).succeeded().prints(&["2031-01-03T02-00-00Z"]);
    // Two more nights: the rule counts what is from before now.
    scenario.run(&["run-job", "nightly"]).succeeded();
    let left: Vec<String> = scenario.sets().into_iter().filter(|set| !set.contains("2031")).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(tonight), "{left:?}");
}

#[test]
fn a_server_whose_clock_differs_stops_no_backup_and_lets_nothing_go() {
    let (scenario, _) = scenario(server(18), "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let ahead = scenario
        .command(&["run-job", "nightly"])
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME", "+400d")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ahead.stderr).into_owned();
    assert!(ahead.status.success() && said.contains("clocks of this host and of the database server differ by"), "{said}");
    assert_eq!(scenario.sets().len(), 2, "nothing was pruned by that clock");
}

/// Production's configuration, copied to staging: the same names and the same store, another server.
pub fn copied_configuration(production: &Scenario, staging: &Server, database: &str) -> Scenario {
    let store = production.path("store").display().to_string();
    Scenario::empty()
        .config(&format!("[databases.app]\nurl = {}\n", quoted(&staging.url(database))))
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&staging.bin_dir.display().to_string())))
        .config(&format!("[stores.local]\npath = {}\n", quoted(&store)))
        .backup_job("local", "keep = { last = 1 }")
}

#[test]
fn staging_with_productions_configuration_takes_nothing_of_productions() {
    let (first, second) = (server(18), server(16));
    let (production, database) = scenario(first, "keep = { last = 1 }");
    production.run(&["run-job", "nightly"]).succeeded();
    let of_production = production.sets().pop().unwrap();
    // What a killed run of production has left, and may still be at.
    let at_work = production.path("store/app/nightly/2026-01-01T02-00-00Z");
    std::fs::create_dir_all(&at_work).unwrap();
    let identity = listed(&production, &of_production)["identity"].as_str().unwrap().to_owned();
    let (system_identifier, _) = identity.split_once('/').unwrap();
    let run = format!(
        r#"{{"process":{{"host":"db1"}},"run":1,"identity":{{"system_identifier":"{system_identifier}","database":"{database}"}},"started_at":"2026-01-01T02:00:00Z"}}"#
    );
    std::fs::write(at_work.join("run.json"), run).unwrap();
    std::fs::write(at_work.join("dump.sql.gz"), "half").unwrap();

    second.sql("postgres", &format!("CREATE DATABASE {database}"));
    second.sql(&database, TABLE);
    let staging = copied_configuration(&production, second, &database);
    for _ in 0..2 {
        staging.run(&["run-job", "nightly"]).succeeded().says(&[
            "sets of another server here",
            &format!("pgtend backups accept --identity {identity} --database app --job nightly"),
        ]);
    }
    let sets = production.sets();
    assert!(sets.contains(&of_production) && sets.len() == 2, "staging's rule counts staging's: {sets:?}");
    assert!(at_work.join("dump.sql.gz").exists(), "production's upload goes on");
    staging.run(&["backups", "prune"]).succeeded();
    assert!(production.sets().contains(&of_production));

    // Whose each is can be seen, and how old the newest of each is.
    let list = production.run(&["backups", "list"]).succeeded().prints(&["OF SERVER/DATABASE", &identity]);
    let lines: Vec<&str> = list.stdout.lines().filter(|line| line.starts_with("The last intact set of app/nightly (")).collect();
    assert!(lines.len() == 2 && lines.iter().any(|line| line.contains(&identity)), "{}", list.stdout);

    // Nobody guesses which one a restore means, and least of all from where it goes to.
    let target = format!("either_{}", std::process::id());
    let refused = production.run(&["backups", "restore", "latest", "--into", &first.url(&target), "--create"]).exited(78);
    assert!(refused.stderr.contains(&format!("latest --from '{identity}'")), "{}", refused.stderr);
    production
        .run(&["backups", "restore", "latest", "--from", &identity, "--into", &first.url(&target), "--create"])
        .succeeded()
        .prints(&[&of_production]);

    // Production says that it carries on: that gives nobody anything.
    production
        .run(&["backups", "accept", "--identity", &identity])
        .succeeded()
        .prints(&["accepted 1 set of", "may be ahead of its present WAL position"]);
    staging.run(&["run-job", "nightly"]).succeeded();
    staging.run(&["backups", "prune"]).succeeded();
    assert!(production.sets().contains(&of_production));
    production.run(&["backups", "restore", "latest", "--into", &first.url("nowhere"), "--create"]).exited(78).says(&["--from"]);

    // Accepted by another server, they are one series.
    staging.run(&["backups", "accept", "--identity", &identity]).succeeded().prints(&["1 set of", "now belong to the series of"]);
    staging.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(production.sets().len(), 1, "one is kept of all");
}

#[test]
fn accepting_an_old_server_takes_the_sets_of_the_last_database_of_that_name() {
    let (old, new) = (server(18), server(16));
    let (first, database) = scenario(old, "keep = { last = 1 }");
    first.run(&["run-job", "nightly"]).succeeded();
    let good = first.sets().remove(0);
    old.sql("postgres", &format!("DROP DATABASE {database}"));
    old.sql("postgres", &format!("CREATE DATABASE {database}"));
    old.sql(&database, "CREATE TABLE t AS SELECT i, random()::text AS body FROM generate_series(1, 2000) i");
    for _ in 0..2 {
        first.run(&["run-job", "nightly"]).succeeded().says(&["1 set here, the newest of them", &good]);
    }
    let identity = listed(&first, &good)["identity"].as_str().unwrap().to_owned();
    new.sql("postgres", &format!("CREATE DATABASE {database}"));
    new.sql(&database, TABLE);
    let second = copied_configuration(&first, new, &database);
    second
        .run(&["run-job", "nightly"])
        .succeeded()
        .says(&["sets of another server here", "of the 2 databases that had that name"]);
    let accept = ["backups", "accept", "--identity", &identity];
    second.run(&accept).succeeded().prints(&["1 set of", "now belong", "1 set of another database", &format!("--of {good}")]);
    second.run(&["run-job", "nightly"]).succeeded();
    let now = first.sets();
    assert!(now.len() == 2 && now.contains(&good), "nothing of the earlier database is pruned: {now:?}");
    second.run(&[&accept[..], &["--of", &good]].concat()).succeeded().prints(&["1 set of", "now belong"]);
    second.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(first.sets().len(), 1, "a person said that they are one");
    second.run(&[&accept[..], &["--of", &good]].concat()).exited(78).says(&["is no set of"]);
}

#[test]
fn a_server_that_is_behind_its_own_sets_deletes_nothing_until_it_is_accepted() {
    let (scenario, _) = scenario(server(18), "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    // A copy of the data directory went on elsewhere, and backs up under the same names.
    let ahead = copy(&scenario, "2026-02-01T02-00-00Z", |manifest| manifest.server.lsn = Some("FFFF/0".into()));
    is_intact(&scenario, &ahead);
    let run = scenario.run(&["run-job", "nightly"]).succeeded().says(&["later point of the same write-ahead log", &ahead]);
    assert_eq!(scenario.sets().len(), 3);
    let identity = listed(&scenario, &ahead)["identity"].as_str().unwrap().to_owned();
    assert!(run.stderr.contains(&format!("pgtend backups accept --identity {identity}")), "{}", run.stderr);
    scenario.run(&["backups", "accept", "--identity", &identity]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn a_listing_without_a_manifest_sweeps_nothing() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "keep = { last = 5 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let before = s3.objects();
    for hidden in ["manifest.json", "verification.json", "json"] {
        *s3.quirks().hides.lock().unwrap() = Some(hidden.to_owned());
        scenario.run(&["run-job", "nightly"]).succeeded();
        *s3.quirks().hides.lock().unwrap() = None;
        let after = s3.objects();
        assert!(before.iter().all(|object| after.contains(object)), "{hidden}: {after:?}");
    }
    assert_eq!(scenario.sets().len(), 4);
}

#[test]
pub fn a_dump_that_lost_a_table_holds_the_set_before_it() {
    let server = server(18);
    let (scenario, database) = scenario(server, "keep = { last = 1 }");
    server.sql(&database, "CREATE TABLE precious AS SELECT 1 AS x");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let before = scenario.sets().pop().unwrap();
    server.sql(&database, "DROP TABLE precious");
    let run = scenario.run(&["run-job", "nightly"]).succeeded().says(&["lacks 1 table that the last one had: public.precious"]);
    let after = scenario.sets().pop().unwrap();
    assert!(run.stderr.contains(&format!("pgtend backups accept '{after}'")), "{}", run.stderr);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let sets = scenario.sets();
    assert!(sets.contains(&before) && sets.len() == 2, "the rest is pruned as usual: {sets:?}");
    scenario.run(&["backups", "list"]).succeeded().prints(&["held until"]);
    // Also when that one is gone by now.
    assert!(!sets.contains(&after));
    scenario.run(&["backups", "accept", &after]).succeeded().prints(&[&before, "no longer held"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn accepting_a_loss_ends_the_hold() {
    let server = server(18);
    let (scenario, database) = scenario(server, "keep = { last = 2 }");
    server.sql(&database, "CREATE TABLE old_news AS SELECT 1 AS x");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let before = scenario.sets().pop().unwrap();
    server.sql(&database, "DROP TABLE old_news");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let after = scenario.sets().pop().unwrap();
    let accepted = scenario.json(&["backups", "accept", &after]);
    assert_eq!(accepted["released"], json!([{ "set": before, "store": "local" }]), "{accepted:#}");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!scenario.sets().contains(&before));
}

#[test]
fn partitions_whose_time_was_over_are_no_loss() {
    let server = server(18);
    let (scenario, database) = scenario(server, "keep = { last = 1 }");
    server.sql(
        &database,
        "CREATE TABLE ev (at date, x int) PARTITION BY RANGE (at);
         CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
         CREATE TABLE ev_new PARTITION OF ev FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    );
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(&database, "DROP TABLE ev_old");
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!run.stderr.contains("lacks"), "{}", run.stderr);
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn a_held_set_stays_until_it_is_released() {
    let (scenario, _) = scenario(server(18), "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let held = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "hold", &held, "--until", "2020-01-01"]).exited(64).says(&["is in the past"]);
    scenario.run(&["backups", "hold", &held, "--until", "2099-01-01", "--reason", "before the migration"]).succeeded();
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert!(scenario.sets().contains(&held));
    scenario.run(&["backups", "prune", "--dry-run"]).succeeded().prints(&["held until 2099-01-0", "before the migration"]);
    scenario.run(&["backups", "release", &held]).succeeded().prints(&["no longer held (before the migration)"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!scenario.sets().contains(&held));
}

#[test]
fn a_set_made_by_hand_takes_no_scheduled_ones_place() {
    let (scenario, _) = scenario(server(18), "");
    let scenario = scenario
        .job("nightly", "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\nkeep = { last = 1 }\n");
    scenario.run(&["run-job", "nightly", "--scheduled"]).succeeded();
    let scheduled = scenario.sets().pop().unwrap();
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert!(scenario.sets().contains(&scheduled), "{:?}", scenario.sets());
    assert_eq!(listed(&scenario, scenario.sets().last().unwrap())["by_hand"], true);
    scenario.run(&["backups", "list"]).succeeded().prints(&["by hand"]);
}

#[test]
fn restore_latest_says_which_newer_set_it_would_pass_by_and_stops() {
    let server = server(18);
    let (scenario, _) = scenario(server, "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let good = scenario.sets().pop().unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let bad = scenario.sets().pop().unwrap();
    let dump = scenario.path(&format!("store/{bad}/{}", scenario.object("dump.sql.gz")));
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    scenario.also_in_the_second_store("store");
    scenario.run(&["backups", "verify", &bad]).exited(1).says(&["is damaged"]);
    let target = server.url(&format!("older_{}", std::process::id()));
    let restore = ["backups", "restore", "latest", "--into", &target, "--create"];
    scenario.run(&restore).exited(78).says(&[&good, &bad, "its bytes are damaged", "--older-ok"]);
    scenario.run(&[&restore[..], &["--older-ok"]].concat()).succeeded().prints(&[&good]);

    // One that cannot be read at all is passed by no less.
    std::fs::write(scenario.path(&format!("store/{bad}/manifest.json")), "{").unwrap();
    scenario.also_in_the_second_store("store");
    scenario.run(&restore).exited(78).says(&[&bad, "--older-ok"]);
}

#[test]
fn a_partial_set_never_comes_before_a_whole_one() {
    let server = server(18);
    let (scenario, database) = scenario(server, "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let whole = scenario.sets().pop().unwrap();
    server.sql(&database, "CREATE SCHEMA s; CREATE TABLE s.t (x int)");
    let scenario = scenario.backup_job("local", "schemas = [\"s\"]");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let partial = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "list"]).succeeded().prints(&["partial"]);
    let target = server.url(&format!("whole_{}", std::process::id()));
    let restore = ["backups", "restore", "latest", "--into", &target, "--create"];
    scenario.run(&restore).exited(78).says(&[&partial, "it holds a part of the database"]);
    scenario.run(&[&restore[..], &["--older-ok"]].concat()).succeeded().prints(&[&whole]);
}

#[test]
fn credentials_that_may_not_delete_make_backups_and_warn() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "keep = { last = 1 }");
    s3.quirks().refuses_deletes.store(true, Relaxed);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["cannot be deleted"]);
    assert_eq!(scenario.sets().len(), 2);
    s3.quirks().refuses_deletes.store(false, Relaxed);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn a_set_whose_dump_alone_is_held_stays_a_set() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let first = scenario.sets()[0].clone();
    *s3.quirks().keeps.lock().unwrap() = Some(format!("/{}", scenario.object("dump.sql.gz")));
    scenario.run(&["run-job", "nightly"]).succeeded().says(&[&first, "its dump cannot be deleted, so the whole set stays"]);
    assert!(scenario.sets().contains(&first), "{:?}", scenario.sets());
    scenario.run(&["backups", "verify", &first]).succeeded();
    assert!(!s3.objects().iter().any(|key| key.ends_with("deleting.json")), "{:?}", s3.objects());
    *s3.quirks().keeps.lock().unwrap() = None;
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
pub fn a_deletion_that_was_killed_left_a_set_or_what_the_next_run_sweeps() {
    let (scenario, _) = scenario(server(18), "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let from = scenario.path(&format!("store/{}", scenario.sets()[0]));
    let run: serde_json::Value = serde_json::from_slice(&std::fs::read(from.join("run.json")).unwrap()).unwrap();
    let mark =
        serde_json::json!({ "process": run["process"], "identity": null, "reasons": [], "started_at": "2026-01-03T02:00:00Z" });
    // Killed before its dump went, and after.
    for (day, has_dump) in [(1, true), (2, false)] {
        let name = copy(&scenario, &format!("2026-01-0{day}T02-00-00Z"), |_| ());
        std::fs::write(scenario.path(&format!("store/{name}/deleting.json")), mark.to_string()).unwrap();
        if !has_dump {
            std::fs::remove_file(scenario.path(&format!("store/{name}/{}", scenario.object("dump.sql.gz")))).unwrap();
        }
    }
    scenario.also_in_the_second_store("store");
    let with_dump = "app/nightly/2026-01-01T02-00-00Z";
    let listed = scenario.sets();
    assert!(listed.iter().any(|name| name == with_dump) && !listed.iter().any(|name| name.contains("2026-01-02")), "{listed:?}");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["backups", "verify", with_dump]).succeeded();
    let left = scenario.files("store");
    assert!(!left.iter().any(|file| file.contains("2026-01-02")), "{left:?}");
}

#[test]
fn a_leftover_that_cannot_be_deleted_keeps_no_other_one() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let from = s3.file_of(&format!("test/{}", scenario.sets()[0]));
    // What two killed deletions leave.
    let process =
        serde_json::from_slice::<serde_json::Value>(&std::fs::read(from.join("run.json")).unwrap()).unwrap()["process"].clone();
    for day in 1..=2 {
        let to = s3.file_of(&format!("test/app/nightly/2026-01-0{day}T02-00-00Z"));
        std::fs::create_dir_all(&to).unwrap();
        let dump = scenario.object("dump.sql.gz");
        std::fs::copy(from.join(&dump), to.join(&dump)).unwrap();
        let mark =
            serde_json::json!({ "process": process, "identity": null, "reasons": [], "started_at": "2026-01-03T02:00:00Z" });
        std::fs::write(to.join("deleting.json"), mark.to_string()).unwrap();
    }
    *s3.quirks().keeps.lock().unwrap() = Some("2026-01-01T02-00-00Z/dump".to_owned());
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["2026-01-01T02-00-00Z/dump.sql.gz", "cannot be deleted"]);
    let left: Vec<String> = s3.objects().into_iter().filter(|key| key.contains("2026-01-0")).collect();
    assert_eq!(left.len(), 2, "the mark stays with what it is about: {left:?}");
    assert!(left.iter().all(|key| key.contains("2026-01-01")), "{left:?}");
}
