//! Holds and copies: a store that was away in the night of a loss, a store that is new, a person who holds while one is away; and two names of one place.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::copies::{in_store, listed, run, small_database, two_folders};
use crate::copies_used::damage;
use crate::support::postgres::{Server, server};
use crate::support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use crate::support::{Scenario, quoted};

/// A database with a table `u` that will be lost.
fn database_with_u(server: &Server) -> String {
    let database = small_database(server);
    server.sql(&database, "CREATE TABLE u AS SELECT * FROM t");
    database
}

fn is_held(scenario: &Scenario, store: &str, set: &str) -> bool {
    let listed = scenario.json(&["backups", "list", "--store", store]);
    let sets = listed["sets"].as_array().unwrap();
    let of_set: Vec<&Value> = sets.iter().filter(|of| of["set"] == set).collect();
    assert_eq!(of_set.len(), 1, "{set} is gone from {store}: {listed:#}");
    !of_set[0]["held"].as_array().unwrap().is_empty()
}

fn rename(scenario: &Scenario, from: &str, to: &str) {
    std::fs::rename(scenario.path(from), scenario.path(to)).unwrap();
}

#[test]
fn a_store_that_was_away_in_the_night_of_a_loss_keeps_the_last_set_before_it() {
    let server = server(18);
    let database = database_with_u(server);
    let scenario = two_folders(server, &database, "keep = { last = 1 }");
    run(&scenario).succeeded();
    let last = listed(&scenario)[0].0.clone();
    rename(&scenario, "offsite", "away");
    server.sql(&database, "DROP TABLE u");
    run(&scenario).exited(69).says(&["pgtend backups copy", "--to offsite"]);
    rename(&scenario, "away", "offsite");
    scenario.run(&["backups", "copy", "latest", "--to", "offsite"]).succeeded();
    scenario.run(&["backups", "list"]).succeeded().prints(&["held until", "in local"]);
    assert!(is_held(&scenario, "local", &last) && !is_held(&scenario, "offsite", &last));

    // A person's prune and a run respect what the other store holds.
    scenario.run(&["backups", "prune", "--dry-run"]).succeeded();
    scenario.run(&["backups", "prune"]).succeeded();
    assert!(!is_held(&scenario, "offsite", &last), "it is there");
    run(&scenario).succeeded();
    assert!(is_held(&scenario, "local", &last) && is_held(&scenario, "offsite", &last));
    run(&scenario).succeeded();
    assert!(is_held(&scenario, "local", &last) && is_held(&scenario, "offsite", &last));

    // Once accepted, it goes everywhere, and no store brings the hold back.
    scenario.run(&["backups", "accept", &last]).succeeded();
    run(&scenario).succeeded();
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (1, 1));
}

#[test]
fn what_is_copied_into_a_new_store_in_the_night_of_a_loss_is_held_there() {
    let server = server(18);
    let database = database_with_u(server);
    let scenario = two_folders(server, &database, "keep = { last = 2 }");
    run(&scenario).succeeded();
    let last = listed(&scenario)[0].0.clone();
    std::fs::remove_dir_all(scenario.path("store")).unwrap();
    std::fs::create_dir(scenario.path("store")).unwrap();
    std::fs::write(scenario.path("store/.pgtend-store.json"), "").unwrap();
    server.sql(&database, "DROP TABLE u");
    run(&scenario).succeeded().prints(&["copied 1 set that local lacked"]);
    assert!(is_held(&scenario, "local", &last) && is_held(&scenario, "offsite", &last));
    let id = std::fs::read_to_string(scenario.path("store/.pgtend-store.json")).unwrap();
    assert!(id.contains("\"id\""), "the empty one got an id: {id}");
    for _ in 0..2 {
        run(&scenario).succeeded();
    }
    assert!(is_held(&scenario, "local", &last) && is_held(&scenario, "offsite", &last));
}

#[test]
fn a_hold_reaches_a_copy_that_is_there_already_and_a_release_says_where_it_did_not_come() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "keep = { last = 1 }");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    rename(&scenario, "offsite", "away");
    scenario.run(&["backups", "hold", &set, "--until", "2999-01-01"]).exited(69);
    rename(&scenario, "away", "offsite");
    let copy = |from: &str, to: &str| scenario.run(&["backups", "copy", &set, "--from", from, "--to", to]);
    copy("local", "offsite").succeeded().prints(&["is in offsite already"]);
    assert!(is_held(&scenario, "offsite", &set));
    // It also comes from the copy to the set.
    scenario.run(&["backups", "release", &set, "--store", "local"]).succeeded();
    copy("local", "offsite").succeeded();
    assert!(is_held(&scenario, "local", &set));

    rename(&scenario, "offsite", "away");
    scenario.run(&["backups", "release", &set]).exited(69).says(&["may still be held in store `offsite`"]);
    rename(&scenario, "away", "offsite");
    run(&scenario).succeeded();
    assert!(is_held(&scenario, "local", &set));
    scenario.run(&["backups", "release", &set]).succeeded();
    run(&scenario).succeeded();
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (1, 1));
}

#[test]
fn a_set_that_is_being_deleted_is_not_said_to_be_held_or_copied() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "keep = { last = 5 }");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    let deleting = |host: &str| {
        let marker = serde_json::json!({
            "process": { "host": host, "machine_id": "m", "boot_id": "b", "pid_namespace": "p", "pid": 1, "start_ticks": "1" },
            "identity": null, "reasons": ["no rule keeps it"], "started_at": "2026-11-29T02:00:00Z",
        });
        std::fs::write(scenario.path(&format!("offsite/{set}/deleting.json")), marker.to_string()).unwrap();
    };
    deleting("another");
    let hold = ["backups", "hold", &*set, "--until", "2999-01-01", "--store", "offsite"];
    scenario.run(&hold).exited(75).says(&["is being deleted in offsite"]);
    assert!(!is_held(&scenario, "offsite", &set));
    scenario.run(&["backups", "hold", &set, "--until", "2999-01-01", "--store", "local"]).succeeded();
    scenario.run(&["backups", "copy", &set, "--from", "local", "--to", "offsite"]).exited(75).says(&["may be being deleted"]);

    std::fs::remove_file(scenario.path(&format!("offsite/{set}/deleting.json"))).unwrap();
    scenario.run(&["backups", "copy", &set, "--from", "local", "--to", "offsite"]).succeeded();
    assert!(is_held(&scenario, "offsite", &set));
}

/// Sets are in `local` alone, and the job is then to keep one of them in `other`.
fn with_another_name(scenario: Scenario, stores: [&str; 2]) -> Scenario {
    let [first, other] = stores;
    let only = format!("database = \"app\"\n[backup]\nstore = \"{first}\"\n");
    let scenario = scenario.job("nightly", &only);
    for _ in 0..2 {
        run(&scenario).succeeded();
    }
    let both = format!(
        "database = \"app\"\n[backup]\nstore = [\"{first}\", \"{other}\"]\nkeep = {{ last = 5 }}\nkeep_in.{other} = {{ last = 1 }}\n"
    );
    scenario.job("nightly", &both)
}

const ONE_PLACE: &str = "are one place";

#[test]
fn a_folder_under_two_names_is_refused_by_every_command_and_loses_nothing() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &small_database(server))
        .config("[stores.other]\npath = \"other\"\n[stores.third]\npath = \"third\"\n");
    let scenario = with_another_name(scenario, ["local", "other"]);
    symlink(scenario.path("store"), scenario.path("other")).unwrap();
    let before = scenario.files("store");
    scenario.run(&["check"]).exited(78).prints(&["1 mistake", ONE_PLACE]);
    let checked = scenario.run(&["check", "--connect"]).exited(78);
    assert!(checked.stdout.contains("FAILED") && checked.stdout.contains("stores of nightly"), "{}", checked.stdout);
    for arguments in [
        &["run-job", "nightly"][..],
        &["run-job", "nightly", "--dry-run"],
        &["backups", "prune"],
        &["backups", "prune", "--dry-run"],
        &["backups", "copy", "latest", "--from", "local", "--to", "other"],
    ] {
        scenario.run(arguments).exited(78).says(&[ONE_PLACE]);
    }
    scenario.run(&["backups", "list"]).exited(78).prints(&["app/nightly/"]).says(&[ONE_PLACE]);
    assert_eq!(scenario.files("store"), before);
}

#[test]
fn a_bucket_under_two_names_of_its_server_is_known_by_its_id() {
    let server = server(18);
    let s3 = S3Server::start();
    let other = s3.endpoint().replace("127.0.0.1", "localhost");
    assert_ne!(other, s3.endpoint());
    let alias = format!(
        "[stores.other]\nbucket = \"backups\"\nprefix = \"test\"\nregion = \"us-east-1\"\nendpoint = {}\n[stores.third]\npath = \"third\"\n",
        quoted(&other)
    );
    let scenario = Scenario::with_database(server, &small_database(server))
        .s3(&s3)
        .config(&alias)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let scenario = with_another_name(scenario, ["bucket", "other"]);
    let before = s3.objects();
    assert!(!before.iter().any(|key| key.contains(".pgtend-store")), "one store alone needs no id: {before:?}");
    // Neither has an id yet.
    for arguments in
        [&["backups", "prune"][..], &["run-job", "nightly"], &["backups", "copy", "latest", "--from", "bucket", "--to", "other"]]
    {
        scenario.run(arguments).exited(78).says(&[ONE_PLACE]);
    }
    scenario.run(&["backups", "list"]).exited(78).says(&[ONE_PLACE]);
    scenario.run(&["check", "--connect"]).exited(78);
    let mut after = s3.objects();
    after.retain(|key| key != "test/.pgtend-store.json");
    assert_eq!(after, before);
}

#[test]
fn a_store_that_was_copied_with_its_id_is_another_place() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "");
    run(&scenario).succeeded();
    std::fs::copy(scenario.path("store/.pgtend-store.json"), scenario.path("offsite/.pgtend-store.json")).unwrap();
    run(&scenario).succeeded();
    scenario.run(&["backups", "list"]).succeeded();
    scenario.run(&["check", "--connect"]).succeeded();
    assert_eq!(in_store(&scenario, "offsite").len(), 2);
}

#[test]
fn the_latest_is_not_copied_while_a_store_may_have_a_newer_one() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "")
        .config("[stores.third]\npath = \"third\"\n[stores.none]\npath = \"none\"\n");
    for _ in 0..2 {
        run(&scenario).succeeded();
    }
    let [older, newest] = [0, 1].map(|at| listed(&scenario)[at].0.clone());
    std::fs::remove_dir_all(scenario.path(&format!("offsite/{newest}"))).unwrap();
    let copy = |more: &[&str]| scenario.run(&[&["backups", "copy", "latest", "--to", "third"], more].concat());

    // Its folder is no folder any more.
    rename(&scenario, "store", "away");
    std::fs::write(scenario.path("store"), "").unwrap();
    copy(&[]).exited(69).says(&["which set is the latest is not known", "store `local`", "--older-ok"]);
    std::fs::remove_file(scenario.path("store")).unwrap();
    rename(&scenario, "away", "store");

    damage(&scenario.path(&format!("store/{newest}/dump.sql.gz")));
    scenario.run(&["backups", "verify", &newest, "--store", "local"]).exited(1);
    copy(&[]).exited(78).says(&["which set is the latest is not known", "its bytes are damaged", "--older-ok"]);
    assert_eq!(in_store(&scenario, "third"), []);
    copy(&["--older-ok"]).succeeded().prints(&[&older]);

    // A copy of the newest elsewhere is the latest, whatever the other one is like.
    let scenario = two_folders(server, &small_database(server), "").config("[stores.third]\npath = \"third\"\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    damage(&scenario.path(&format!("store/{set}/dump.sql.gz")));
    scenario.run(&["backups", "verify", &set, "--store", "local"]).exited(1);
    scenario.run(&["backups", "copy", "latest", "--to", "third"]).succeeded().prints(&["copied from offsite to third"]);
}

#[test]
fn the_latest_is_not_copied_while_a_bucket_refuses_this_host() {
    let server = server(18);
    let s3 = S3Server::start();
    let scenario = Scenario::with_database(server, &small_database(server))
        .s3(&s3)
        .config("[stores.third]\npath = \"third\"\n")
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"bucket\"]\n");
    run(&scenario).succeeded();
    let refused = scenario.env("AWS_SECRET_ACCESS_KEY", "rotated");
    let copy = ["backups", "copy", "latest", "--to", "third"];
    refused.run(&copy).exited(77).says(&["which set is the latest is not known", "store `bucket`"]);
    refused.run(&[&copy[..], &["--from", "local"]].concat()).succeeded();
}
