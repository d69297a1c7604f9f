//! Tests that try to lose the last good copy of a set: the other one is damaged, lost, unread, away, or has only that name.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::backup_faults::always;
use crate::copies::{in_store, listed, run, small_database, two_folders};
use crate::copies_used::damage;
use crate::gates::{REQUIRE, require};
use crate::support::postgres::server;
use crate::support::s3::{Fault, Rule, S3Server};
use crate::support::{Scenario, eventually};

const FEWER_IN_LOCAL: &str = "keep = { last = 2 }\nkeep_in.offsite = { last = 50 }";

fn job(stores: &str, more: &str) -> String {
    format!("database = \"app\"\n[backup]\nstore = {stores}\n{more}\n")
}

fn has(scenario: &Scenario, store: &str, set: &str) -> bool {
    in_store(scenario, store).contains(&(set.to_owned(), "intact".to_owned()))
}

fn rename(scenario: &Scenario, from: &str, to: &str) {
    std::fs::rename(scenario.path(from), scenario.path(to)).unwrap();
}

/// Runs the job twice. Returns the older set, which `local` would let go in the third run.
fn two_sets(scenario: &Scenario) -> String {
    for _ in 0..2 {
        run(scenario).succeeded();
    }
    let sets = listed(scenario);
    assert_eq!((sets.len(), sets.iter().all(|(_, stores)| stores.len() == 2)), (2, true), "{sets:?}");
    sets.into_iter().map(|(set, _)| set).min().unwrap()
}

#[test]
fn a_good_copy_stays_while_the_other_one_is_damaged_and_goes_when_that_was_mended() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), FEWER_IN_LOCAL);
    let set = two_sets(&scenario);
    damage(&scenario.path(&format!("offsite/{set}/dump.sql.gz")));
    scenario.run(&["backups", "verify", &set, "--store", "offsite"]).exited(1);
    let copy = format!("pgtend backups copy {set} --to offsite");
    run(&scenario).succeeded().says(&["for offsite", "the copy there is damaged", &copy]);
    scenario.run(&["backups", "prune"]).succeeded().says(&["the copy there is damaged", &copy]);
    assert!(has(&scenario, "local", &set) && !has(&scenario, "offsite", &set));
    scenario.run(&["backups", "copy", &set, "--to", "offsite"]).succeeded();
    run(&scenario).succeeded();
    assert!(!has(&scenario, "local", &set) && has(&scenario, "offsite", &set), "now offsite has it");
}

#[test]
fn a_good_copy_stays_whatever_part_of_the_other_one_is_lost() {
    let server = server(18);
    let database = small_database(server);
    type Lose<'a> = (&'a str, &'a dyn Fn(&std::path::Path));
    let lose: [Lose<'_>; 5] = [
        ("the dump", &|folder| std::fs::remove_file(folder.join("dump.sql.gz")).unwrap()),
        ("the end of the dump", &|folder| {
            std::fs::OpenOptions::new().write(true).open(folder.join("dump.sql.gz")).unwrap().set_len(100).unwrap();
        }),
        ("a bit of the manifest", &|folder| damage(&folder.join("manifest.json"))),
        ("the globals", &|folder| std::fs::remove_file(folder.join("globals.sql.gz")).unwrap()),
        ("the verdict", &|folder| std::fs::remove_file(folder.join("verification.json")).unwrap()),
    ];
    for (what, lose) in lose {
        let scenario = two_folders(server, &database, FEWER_IN_LOCAL);
        let set = two_sets(&scenario);
        lose(&scenario.path(&format!("offsite/{set}")));
        run(&scenario).succeeded().says(&["for offsite", "not known to have a good copy", &set]);
        assert!(has(&scenario, "local", &set), "{what} is lost");
        scenario.run(&["backups", "copy", &set, "--to", "offsite"]).succeeded();
        run(&scenario).succeeded();
        assert!(!has(&scenario, "local", &set) && has(&scenario, "offsite", &set), "{what} was mended");
    }
}

#[test]
fn a_run_makes_a_copy_whole_that_has_lost_its_manifest() {
    let server = server(18);
    let database = small_database(server);
    for lost in [&["manifest.json"][..], &["manifest.json", "verification.json"], &["manifest.json", "globals.sql.gz"]] {
        let scenario = two_folders(server, &database, FEWER_IN_LOCAL);
        let set = two_sets(&scenario);
        for object in lost {
            std::fs::remove_file(scenario.path(&format!("offsite/{set}/{object}"))).unwrap();
        }
        run(&scenario).succeeded().prints(&["copied 1 set that offsite lacked"]);
        assert!(has(&scenario, "offsite", &set), "{lost:?}");
        scenario.run(&["backups", "verify", &set, "--store", "offsite"]).succeeded();
        assert!(!has(&scenario, "local", &set), "{lost:?}: its rule lets it go, as offsite has it");
    }
}

#[test]
fn another_set_of_the_same_name_is_no_copy_of_it() {
    let server = server(18);
    let database = small_database(server);
    let scenario = two_folders(server, &database, FEWER_IN_LOCAL);
    let set = two_sets(&scenario);
    // Made by another job into another store, with other rows, and then brought there by hand.
    server.sql(&database, "INSERT INTO t SELECT 0, 'other'");
    let folder = scenario.path("elsewhere");
    let scenario = scenario.config("[stores.elsewhere]\npath = \"elsewhere\"\n").job("other", &job("\"elsewhere\"", ""));
    scenario.run(&["run-job", "other"]).succeeded();
    let other = std::fs::read_dir(folder.join("app/other")).unwrap().next().unwrap().unwrap().path();
    for object in ["dump.sql.gz", "globals.sql.gz", "manifest.json", "verification.json"] {
        std::fs::copy(other.join(object), scenario.path(&format!("offsite/{set}/{object}"))).unwrap();
    }
    run(&scenario).succeeded().says(&["another set has that name there"]);
    assert!(has(&scenario, "local", &set) && has(&scenario, "offsite", &set), "both stay, and a person chooses");
}

#[test]
fn sets_that_nobody_has_read_reach_a_new_store_before_they_go() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "").job("nightly", &job("\"local\"", "verify = \"none\""));
    for _ in 0..3 {
        run(&scenario).succeeded();
    }
    let before: Vec<String> = in_store(&scenario, "local").into_iter().map(|(set, _)| set).collect();
    let more = "keep = { last = 1 }\nkeep_in.offsite = { last = 50 }";
    let scenario = scenario.job("nightly", &job("[\"local\", \"offsite\"]", more));
    // By hand, all of them are read, and they stay.
    scenario.run(&["backups", "prune"]).succeeded().says(&["for offsite"]);
    for set in &before {
        assert!(has(&scenario, "local", set), "{set}");
    }
    run(&scenario).succeeded().prints(&["copied 3 sets that offsite lacked"]);
    for set in &before {
        assert!(has(&scenario, "offsite", set), "{set}");
    }
    run(&scenario).succeeded();
    assert_eq!(in_store(&scenario, "local").len(), 1, "now its rule lets them go");
}

#[test]
fn a_run_that_reads_old_sets_deletes_none_that_another_store_lacks() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "").job("nightly", &job("\"local\"", "verify = \"none\""));
    for _ in 0..3 {
        run(&scenario).succeeded();
    }
    let more = "keep = { last = 1 }\nkeep_in.offsite = { last = 50 }";
    let scenario = scenario.job("nightly", &job("[\"local\", \"offsite\"]", more));
    let planned = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded();
    assert!(!planned.stdout.contains("delete "), "{}", planned.stdout);
    let before: Vec<String> = in_store(&scenario, "local").into_iter().map(|(set, _)| set).collect();
    run(&scenario).succeeded().says(&["for offsite", "lacks"]);
    for set in &before {
        assert!(has(&scenario, "local", set), "the run has read it, and offsite has not got it: {set}");
    }
    run(&scenario).succeeded().prints(&["copied 3 sets that offsite lacked"]);
    for set in &before {
        assert!(has(&scenario, "offsite", set), "{set}");
    }
}

#[test]
fn while_a_store_is_away_the_other_keeps_what_its_rules_would_keep() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "keep = { last = 2 }\nkeep_in.offsite = { last = 4 }");
    run(&scenario).succeeded();
    rename(&scenario, "offsite", "away");
    for night in 2..=6 {
        let said = run(&scenario).exited(69);
        assert_eq!(in_store(&scenario, "local").len(), std::cmp::min(night, 4), "as many as the store that is away keeps");
        if night > 2 {
            said.says(&["for offsite", "could not be read", "remove `offsite` from `store` of the job"]);
        }
    }
    scenario.run(&["backups", "prune"]).says(&["for offsite", "remove `offsite` from `store` of the job"]);
    assert_eq!(in_store(&scenario, "local").len(), 4);
    rename(&scenario, "away", "offsite");
    run(&scenario).succeeded().prints(&["copied 3 sets that offsite lacked"]);
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (2, 4));

    // Without that store, the rules of the other one go on.
    rename(&scenario, "offsite", "away");
    for _ in 0..2 {
        run(&scenario).exited(69);
    }
    assert_eq!(in_store(&scenario, "local").len(), 4);
    let scenario = scenario.job("nightly", &job("\"local\"", "keep = { last = 2 }"));
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(in_store(&scenario, "local").len(), 2);
}

#[test]
fn a_prune_by_hand_deletes_nothing_that_a_new_store_lacks() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "").job("nightly", &job("\"local\"", ""));
    for _ in 0..3 {
        run(&scenario).succeeded();
    }
    let more = "keep = { last = 1 }\nkeep_in.offsite = { last = 50 }";
    let scenario = scenario.job("nightly", &job("[\"local\", \"offsite\"]", more));
    let planned =
        scenario.run(&["backups", "prune", "--dry-run"]).succeeded().prints(&["offsite keeps it by its rules, and lacks it"]);
    assert!(!planned.stdout.contains("delete "), "{}", planned.stdout);
    let pruned = scenario.run(&["backups", "prune"]).succeeded();
    pruned.says(&["2 sets stay in", "for offsite", "Runs copy it"]);
    assert_eq!(in_store(&scenario, "local").len(), 3);
    run(&scenario).succeeded().prints(&["copied 3 sets that offsite lacked"]);
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (1, 4));
}

#[test]
fn no_copy_is_made_in_the_place_of_a_run_that_may_still_write_there() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    let folder = scenario.path(&format!("offsite/{set}"));
    // As a run on another host has it, before it has written its dump.
    let marker = std::fs::read(folder.join("run.json")).unwrap();
    let mut marker: Value = serde_json::from_slice(&marker).unwrap();
    marker["process"]["host"] = "another".into();
    marker.as_object_mut().unwrap().remove("completed_at").unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("run.json"), marker.to_string()).unwrap();
    scenario.run(&["backups", "copy", &set, "--to", "offsite"]).exited(75).says(&["may still be written to offsite"]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_backup_that_could_not_write_to_a_store_removes_nothing_that_is_no_longer_its_own() {
    let server = server(18);
    let s3 = S3Server::start();
    let scenario =
        Scenario::with_database(server, &small_database(server)).s3(&s3).job("nightly", &job("[\"local\", \"bucket\"]", ""));
    // Until the globals have failed there, somebody else has the folder.
    let slowly = Fault::Slow(Duration::from_secs(4));
    s3.break_with(Rule { method: Method::PUT, contains: "globals", skip: 0, times: 1, fault: slowly });
    s3.break_with(always(Method::PUT, "manifest.json", Fault::InternalError));
    let running = scenario.start(&["run-job", "nightly"]);
    let marker_of = || s3.objects().into_iter().find(|key| key.ends_with("/run.json"));
    eventually("the run has its folder, and its dump", || {
        marker_of().is_some() && s3.objects().iter().any(|key| key.ends_with("dump.sql.gz"))
    });
    let file = s3.file_of(&marker_of().unwrap());
    let mut marker: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    marker["process"]["pid"] = 1.into();
    std::fs::write(&file, marker.to_string()).unwrap();
    assert_ne!(running.wait().says(&["run.json does not name it any more"]).code, Some(0));
    s3.heal();
    assert!(s3.objects().iter().any(|key| key.ends_with("dump.sql.gz")), "{:?}", s3.objects());
}

#[test]
fn a_refusal_for_the_data_outlives_the_copy_that_has_it() {
    let server = server(18);
    let database = small_database(server);
    server.sql(
        &database,
        "CREATE TABLE z (i int); INSERT INTO z VALUES (1);
         CREATE FUNCTION public.f() RETURNS bool LANGUAGE sql AS 'SELECT count(*) > 0 FROM public.z';
         CREATE TABLE a (i int CHECK (public.f())); INSERT INTO a VALUES (1)",
    );
    for by_hand in [false, true] {
        let scenario = two_folders(server, &database, FEWER_IN_LOCAL);
        let set = two_sets(&scenario);
        rename(&scenario, "offsite", "away");
        scenario.run(&["backups", "verify", &set, "--restore-on", "app"]).exited(1);
        rename(&scenario, "away", "offsite");
        let only_one = "keep = { last = 1 }\nkeep_in.offsite = { last = 50 }";
        let scenario = scenario.job("nightly", &job("[\"local\", \"offsite\"]", only_one));
        match by_hand {
            true => scenario.run(&["backups", "prune"]).succeeded(),
            false => run(&scenario).succeeded(),
        };
        assert!(!has(&scenario, "local", &set) && has(&scenario, "offsite", &set), "{by_hand}");
        // All newer ones are lost, so that the doubted one is the newest.
        for (newer, _) in listed(&scenario).into_iter().filter(|(newer, _)| *newer != set) {
            for store in ["store", "offsite"] {
                let folder = scenario.path(&format!("{store}/{newer}"));
                assert!(!folder.exists() || std::fs::remove_dir_all(&folder).is_ok());
            }
        }
        scenario.run(&REQUIRE).exited(75).says(&[&set, "refused it as the copy in local"]);
        scenario.run(&require(&["--store", "offsite"])).exited(75).says(&["refused it as the copy in local"]);
    }
}

#[test]
fn a_copy_stays_whose_refusal_cannot_be_recorded_beside_the_other_one() {
    let server = server(18);
    let database = small_database(server);
    server.sql(
        &database,
        "CREATE TABLE z (i int); INSERT INTO z VALUES (1);
         CREATE FUNCTION public.f() RETURNS bool LANGUAGE sql AS 'SELECT count(*) > 0 FROM public.z';
         CREATE TABLE a (i int CHECK (public.f())); INSERT INTO a VALUES (1)",
    );
    let s3 = S3Server::start();
    let more = "keep = { last = 1 }\nkeep_in.bucket = { last = 50 }";
    let scenario = Scenario::with_database(server, &database).s3(&s3).job("nightly", &job("[\"local\", \"bucket\"]", more));
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    // Not that of the newer set: its name is not known yet.
    let verdict: &'static str = format!("{}/verification.json", set.rsplit_once('/').unwrap().1).leak();
    s3.break_with(always(Method::PUT, verdict, Fault::InternalError));
    scenario.run(&["backups", "verify", &set, "--store", "local", "--restore-on", "app"]).exited(1);
    run(&scenario).succeeded().says(&["could not be recorded beside its copy in bucket", "stays in"]);
    assert!(has(&scenario, "local", &set), "the bucket has the set, and does not know of the doubt");
    s3.heal();
    run(&scenario).succeeded();
    assert!(!has(&scenario, "local", &set) && has(&scenario, "bucket", &set));
    let there = std::fs::read(s3.file_of(&format!("test/{set}/verification.json"))).unwrap();
    let there: Value = serde_json::from_slice(&there).unwrap();
    let last = there["restores"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["copy_in"], &last["refused_for_its_data"]), (&"local".into(), &true.into()), "{there:#}");
}
