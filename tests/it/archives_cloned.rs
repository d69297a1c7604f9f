//! Archives of a database and of its copy on the same server (CREATE DATABASE … TEMPLATE): names, store, server and the numbers of tables are the same,
//! and the number of the database alone tells them apart.

use std::path::Path;

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, quoted};

const ALIKE: [&str; 4] = ["--config", "staging.toml", "--jobs", "jobs"];

/// A database whose only old partition is archived and retired, a copy of it in which most of these rows are deleted and the others masked, and the batch.
fn cloned(server: &Server) -> (Scenario, String, String, String) {
    let original = server.new_database();
    server.sql(
        &original,
        "CREATE TABLE ev (id bigint, at timestamptz NOT NULL, what text) PARTITION BY RANGE (at);
         DO $$ DECLARE old date := date_trunc('month', now()) - interval '5 months'; BEGIN
            EXECUTE format('CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM (%L) TO (%L)', old, old + interval '1 month');
            INSERT INTO ev SELECT i, old + interval '1 day', 'row ' || i FROM generate_series(1, 100) i;
         END $$",
    );
    let scenario = Scenario::with_database(server, &original).partitions("public.ev", "at", &keys("1d"));
    scenario.tend().succeeded().prints(&["archived 1 partition"]);
    let first = objects(&scenario).remove(0).split(".sql.gz").next().unwrap().to_owned();
    let copy = server.copy_of(&original);
    let store = quoted(&scenario.path("store").display().to_string());
    let text = format!("[databases.app]\nurl = {}\n[stores.local]\npath = {store}\n", quoted(&server.url(&copy)));
    std::fs::write(scenario.path("staging.toml"), text).unwrap();
    server.sql(
        &copy,
        "ALTER TABLE ev_old DISABLE TRIGGER pgtend_retired; DELETE FROM ev_old WHERE id > 10; UPDATE ev_old SET what = 'masked';
         ALTER TABLE ev_old ENABLE ALWAYS TRIGGER pgtend_retired",
    );
    let job = std::fs::read_to_string(scenario.path("jobs/tend.toml")).unwrap();
    std::fs::write(scenario.path("jobs/tend.toml"), job.replace("\"1d\"", "\"0s\"")).unwrap();
    (scenario, original, copy, first)
}

fn keys(grace: &str) -> String {
    format!("every = \"month\"\nretain = \"60d\"\ngrace = \"{grace}\"\npremake = 1\narchive = \"local\"")
}

fn objects(scenario: &Scenario) -> Vec<String> {
    scenario.files("store").into_iter().filter(|file| file.ends_with(".sql.gz")).collect()
}

fn manifest(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut read: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut read);
    std::fs::write(path, serde_json::to_vec(&read).unwrap()).unwrap();
}

/// The copy archives what it has; of its batch in the place of the original's, as an earlier release made it.
fn says_that_it_replaces(scenario: &Scenario, first: &str) {
    let second = objects(scenario).into_iter().find(|object| !object.starts_with(first)).unwrap();
    let path = scenario.path(&format!("store/{}", second.replace(".sql.gz", ".json")));
    manifest(&path, |manifest| manifest["replaces"] = Value::from(first));
}

#[test]
fn a_batch_of_a_copy_of_the_database_does_not_take_the_place_of_the_original_s() {
    let server = server(18);
    for by_an_earlier_release in [false, true] {
        let (scenario, original, copy, first) = cloned(server);
        scenario.tend().succeeded().prints(&["dropped 1 partition"]);
        scenario.run(&[&ALIKE[..], &["run-job", "tend"]].concat()).succeeded();
        scenario.run(&[&ALIKE[..], &["run-job", "tend"]].concat()).succeeded();
        assert_eq!(server.sql(&copy, "SELECT to_regclass('ev_old') IS NULL"), "t");
        let batches = scenario.json(&["archives", "list"])["batches"].clone();
        let batches = batches.as_array().unwrap();
        assert_eq!(batches.len(), 2, "the original's, and the copy's own: {batches:#?}");
        assert!(batches.iter().all(|batch| batch["replaces"].is_null()), "{batches:#?}");
        if by_an_earlier_release {
            says_that_it_replaces(&scenario, &first);
            assert_eq!(scenario.json(&["archives", "list"])["batches"].as_array().unwrap().len(), 2);
        }
        scenario.run(&["archives", "restore"]).exited(78).says(&["--from", &format!("/{original}"), &format!("/{copy}")]);
        let identity = |database: &str| {
            let identities = batches.iter().map(|batch| batch["identity"].as_str().unwrap());
            identities.into_iter().find(|identity| identity.ends_with(&format!("/{database}"))).unwrap().to_owned()
        };
        let bounds = "DO $$ DECLARE old date := date_trunc('month', now()) - interval '5 months'; BEGIN
            EXECUTE format('CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM (%L) TO (%L)', old, old + interval '1 month'); END $$";
        server.sql(&original, bounds);
        scenario.run(&["archives", "restore", "--from", &identity(&original)]).succeeded().prints(&["100 rows put back from 1 "]);
        assert_eq!(server.sql(&original, "SELECT count(*) FILTER (WHERE what LIKE 'row %'), count(*) FROM ev"), "100|100");
        server.sql(&copy, bounds);
        let own = identity(&copy);
        let own = [&ALIKE[..], &["archives", "restore", "--from", &own]].concat();
        scenario.run(&own).succeeded().prints(&["10 rows put back from 1 "]);
        assert_eq!(server.sql(&copy, "SELECT count(*) FILTER (WHERE what = 'masked'), count(*) FROM ev"), "10|10");
    }
}

/// Batches of earlier releases do not say of which database they are.
#[test]
fn a_batch_that_does_not_say_its_database_is_neither_hidden_nor_guessed_and_in_one_database_all_is_as_before() {
    let server = server(18);
    let (scenario, original, copy, first) = cloned(server);
    scenario.tend().succeeded().prints(&["dropped 1 partition"]);
    scenario.run(&[&ALIKE[..], &["run-job", "tend"]].concat()).succeeded();
    says_that_it_replaces(&scenario, &first);
    manifest(&scenario.path(&format!("store/{first}.json")), |manifest| {
        let fields = manifest.as_object_mut().unwrap();
        fields.remove("origin");
        fields.remove("database_name");
    });
    let listed = scenario.run(&["archives", "list"]).succeeded();
    listed.prints(&[&first]).says(&["nothing shows that both are of one database"]);
    let restored = scenario.run(&["archives", "restore"]);
    restored.exited(1).says(&["nothing shows that both are of one database", &format!("--again --batch {first}")]);
    assert_eq!(server.sql(&original, "SELECT count(*) FROM ev"), "0", "neither is guessed");
    // In the database whose own batch it is, the later one stands for both.
    let bounds = "DO $$ DECLARE old date := date_trunc('month', now()) - interval '5 months'; BEGIN
        EXECUTE format('CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM (%L) TO (%L)', old, old + interval '1 month'); END $$";
    server.sql(&copy, bounds);
    scenario.run(&[&ALIKE[..], &["archives", "restore"]].concat()).succeeded().prints(&["10 rows put back"]);
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM ev"), "10");
}
