//! What is said of a set: what its bytes are, which only reading them says; and which servers took it, or why not.

use hyper::Method;
use serde_json::Value;

use crate::backup_faults::large_database;
use crate::support::Scenario;
use crate::support::postgres::server;
use crate::support::s3::{Fault, Rule, S3Server};

fn only_set(scenario: &Scenario) -> Value {
    scenario.json(&["backups", "list"])["sets"][0].clone()
}

#[test]
fn a_set_that_an_older_server_does_not_take_is_intact_and_stays() {
    let (new, old) = (server(18), server(15));
    let database = new.new_database();
    // Virtual generated columns came with 18.
    new.sql(&database, "CREATE TABLE t (x int, y int GENERATED ALWAYS AS (x * 2) VIRTUAL); INSERT INTO t VALUES (1)");
    let scenario = Scenario::with_database(new, &database).backup_job("local", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let tried = scenario.run(&["backups", "verify", &set, "--restore-on", &old.url("postgres")]);
    tried.exited(1).says(&["are intact, but this server did not accept them"]);
    let listed = only_set(&scenario);
    assert_eq!((&listed["bytes"], &listed["restored"]), (&"intact".into(), &false.into()), "{listed}");
    let refusal = &listed["verification"]["restores"][0];
    assert!(refusal["version"].as_str().unwrap().starts_with("15.") && refusal["refusal"].is_string(), "{refusal}");
    // It stays the latest, fills its place, and is restored where it can be.
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(scenario.sets(), std::slice::from_ref(&set));
    scenario.run(&["backups", "verify", "latest", "--restore-on", &new.url("postgres")]).succeeded();
    assert_eq!(only_set(&scenario)["restored"], true);
}

#[test]
fn a_flipped_bit_in_transit_condemns_no_set() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i, md5(i::text) AS body FROM generate_series(1, 5000) i");
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    let flip = |times| Rule { method: Method::GET, contains: "dump.sql.gz", skip: 0, times, fault: Fault::FlippedBit(2000) };
    s3.break_with(flip(1));
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["the first read differed", "check this host's network and memory"]);
    assert_eq!(only_set(&scenario)["bytes"], "intact");

    // The same bit in both reads is the store's own. What is encrypted has no checksums of what is in it.
    let where_it_differs = if scenario.stores.encrypted { "SHA-256" } else { "CRC-32" };
    s3.heal();
    s3.break_with(flip(2));
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "verify", &set]).exited(1).says(&["is damaged, confirmed by two reads", where_it_differs]);
    assert_eq!(only_set(&scenario)["bytes"], "damaged");

    // Different ones are the line's.
    s3.heal();
    for at in [1000, 3000] {
        s3.break_with(Rule { method: Method::GET, contains: "dump.sql.gz", skip: 0, times: 1, fault: Fault::FlippedBit(at) });
    }
    scenario
        .run(&["backups", "verify", &set])
        .exited(1)
        .says(&["could not be verified", "differ from the manifest and from each other"]);
    s3.heal();
    scenario.run(&["backups", "verify", &set]).succeeded();
    assert_eq!(only_set(&scenario)["bytes"], "intact", "a read that is well takes the verdict back");
}

/// The range of bytes that a message says to hold the first difference, and all that it says about that.
fn first_difference(said: &str) -> (std::ops::Range<u64>, String) {
    let said = said.split("the first difference is in bytes ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let said = said.split([';', '\n']).next().unwrap();
    let mut words = said.split(' ');
    let (from, to) = (words.next().unwrap(), words.nth(1).unwrap());
    (from.parse().unwrap()..to.parse::<u64>().unwrap() + 1, said.to_owned())
}

#[test]
fn every_read_of_a_damaged_dump_names_the_same_place_and_it_is_the_right_one() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &large_database(server)).backup_job("local", "keep = { last = 5 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let dump = scenario.path(&format!("store/{set}/{}", scenario.object("dump.sql.gz")));
    let good = std::fs::read(&dump).unwrap();
    let members = if scenario.stores.encrypted { "of dump.sql.gz.age, in one of members " } else { "of dump.sql.gz, in member " };
    for at in [good.len() / 2, good.len() / 100 * 97] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&dump, bytes).unwrap();
        let mut said = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let verified =
                scenario.run(&["backups", "verify", &set, "--store", "local"]).exited(1).says(&["is damaged", members]);
            assert!(!verified.stderr.contains("uncompressed bytes"), "where decoding ended is chance: {}", verified.stderr);
            said.insert(first_difference(&verified.stderr).1);
        }
        let into = server.url(&server.empty_database());
        let restore = ["backups", "restore", &set, "--store", "local", "--into", &into];
        let restored = scenario.run(&restore).exited(1);
        let (range, words) = first_difference(&restored.stderr);
        said.insert(words);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(range.contains(&(at as u64)) && range.end - range.start <= 1 << 20, "{at} in {range:?}");
    }
}

#[test]
fn a_manifest_that_came_wrong_once_is_read_once_more() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let flip = |times| Rule { method: Method::GET, contains: "manifest.json", skip: 0, times, fault: Fault::FlippedBit(50) };
    s3.break_with(flip(1));
    assert_eq!(scenario.sets().len(), 1);
    s3.break_with(flip(2));
    scenario.run(&["backups", "list"]).succeeded().says(&["cannot be restored"]);
}

#[test]
fn what_the_first_release_called_damaged_is_read_before_it_is_believed() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let first = r#"{"checks":{"restore":{"checked_at":"2026-01-01T00:00:00Z","problems":["it does not restore: FEHLER"],"elapsed_seconds":1.0}}}"#;
    std::fs::write(scenario.path(&format!("store/{set}/verification.json")), first).unwrap();
    scenario.also_in_the_second_store("store");
    assert_eq!(only_set(&scenario)["bytes"], "unknown");
    scenario.run(&["backups", "verify", "latest"]).succeeded();
    assert_eq!(only_set(&scenario)["bytes"], "intact");
}
