//! Archived rows in a store that seals (`seal_manifest`): nothing beside them names their table, and all holds that holds of others.

use crate::archives::{ALL, batches};
use crate::encryption::{age_key, set_keys};
use crate::encryption_archives::{kills_of_archiving_lose_no_row, partitions_go_and_come_back};
use crate::retention::{logs, scenario};
use crate::sealed::opened_by_age;
use crate::support::Scenario;
use crate::support::postgres::server;

/// What no object of the store may say: names of the table's schema and columns, and the table's as JSON has it. The job has a similar name.
const NAMES: [&str; 4] = ["public", "created_at", "status", "\"logs\""];

/// The store seals from now on.
fn seal(scenario: &Scenario) {
    let path = scenario.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text.replacen("path = ", "seal_manifest = true\npath = ", 1)).unwrap();
}

#[track_caller]
fn says_nothing(scenario: &Scenario) {
    for file in scenario.files("store") {
        let bytes = std::fs::read(scenario.path("store").join(&file)).unwrap();
        let said = NAMES.iter().find(|name| bytes.windows(name.len()).any(|part| part == name.as_bytes()));
        assert!(said.is_none(), "{file} has {said:?}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn sealed_rows_name_nothing_and_come_back_with_a_key_once() {
    let server = server(18);
    let database = logs(server, 1000);
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], None);
    seal(&scenario);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    says_nothing(&scenario);
    scenario.run(&["archives", "list"]).succeeded().prints(&["sealed", "760"]);
    let listed = &batches(&scenario)[0];
    assert_eq!((&listed["sealed"], &listed["manifest"]["format"]), (&true.into(), &5.into()), "{listed:#}");
    for command in [&["archives", "restore", "--dry-run"][..], &["archives", "restore"]] {
        scenario.run(command).exited(78).says(&["is encrypted, and cannot be opened here", &public]);
    }
    let batch = listed["batch"].as_str().unwrap().to_owned();
    let opened = opened_by_age(&scenario.path("key"), &scenario.path(&format!("store/{batch}.json")));
    assert_eq!((&opened["table"], &opened["schema"]), (&"logs".into(), &"public".into()), "{opened:#}");

    set_keys(&scenario, &[&public], Some("key"));
    scenario.run(&["archives", "list"]).succeeded().prints(&["\"public\".\"logs\"", "created_at"]);
    scenario.run(&["archives", "restore", "--key", "id=7"]).succeeded().prints(&["1 row put back"]);
    says_nothing(&scenario);
    scenario.run(&["archives", "restore", "--key", "id=7"]).succeeded().prints(&["0 rows put back"]);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["759 rows put back"]);
    for _ in 0..2 {
        assert_eq!(server.sql(&database, ALL), before);
        says_nothing(&scenario);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back", "1 batch already back"]);
        scenario.run(&["run-job", "old-logs"]).succeeded();
        assert_eq!((server.sql(&database, "SELECT count(*) FROM logs"), batches(&scenario).len()), ("241".to_owned(), 1));
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    }
    // Without a key nobody knows which rows came back: they are archived again, and none is lost.
    set_keys(&scenario, &[&public], None);
    scenario.run(&["run-job", "old-logs"]).succeeded().says(&["are archived again", "is encrypted, and cannot be opened here"]);
    assert_eq!(batches(&scenario).len(), 2);
    says_nothing(&scenario);
}

#[test]
fn what_was_restored_of_a_sealed_batch_is_told_by_its_key_alone() {
    let server = server(18);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    let (public, other) = (age_key(&scenario, "key"), age_key(&scenario, "other"));
    set_keys(&scenario, &[&public], Some("key"));
    // Those of earlier releases, and of a store that did not seal, stay readable.
    scenario.run(&["run-job", "old-logs"]).succeeded();
    seal(&scenario);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 archive object"]);
    server.sql(&database, "UPDATE logs SET status = 'changed'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(batches(&scenario).iter().map(|batch| batch["manifest"]["format"].clone()).collect::<Vec<_>>(), [4, 5]);
    let sealed = batches(&scenario)[1]["batch"].as_str().unwrap().to_owned();

    // The filter is sealed for a key that this host does not have: nobody can tell which rows are back.
    set_keys(&scenario, &[&other], Some("key"));
    scenario.run(&["archives", "restore", "--batch", &sealed, "--key", "id=7"]).succeeded().prints(&["1 row put back"]);
    scenario
        .run(&["archives", "restore", "--batch", &sealed])
        .exited(78)
        .says(&["which they are is sealed for a key that is not here", "--again"]);
    scenario
        .run(&["archives", "restore", "--batch", &sealed, "--again", "--key", "id=8"])
        .succeeded()
        .prints(&["1 row put back"]);

    // The names of another batch are not taken for its own.
    set_keys(&scenario, &[&public], Some("key"));
    let manifest = scenario.path(&format!("store/{sealed}.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("\"job\": \"old-logs\"", "\"job\": \"old-rows\"", 1)).unwrap();
    scenario.run(&["archives", "restore", "--batch", &sealed]).exited(1).says(&["its sealed part is of another batch"]);
}

#[test]
fn partitions_go_and_come_back_by_their_number_where_the_name_is_sealed() {
    partitions_go_and_come_back(seal, says_nothing);
}

#[test]
fn killed_at_any_moment_of_sealed_archiving_no_row_is_lost() {
    kills_of_archiving_lose_no_row(seal, says_nothing);
}
