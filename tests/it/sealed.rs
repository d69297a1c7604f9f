//! Manifests whose names only a key opens (`seal_manifest`).

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::encryption::age_key;
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, quoted};

/// What no object of the store may say.
const NAME: &str = "zwetschgen";

fn with_names(server: &Server) -> String {
    let database = server.new_database();
    let role = format!("{NAME}_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role}; CREATE TABLE {NAME}_rows AS SELECT i FROM generate_series(1, 2000) i; CREATE TABLE {NAME}_more AS SELECT 1 AS i;
             ALTER TABLE {NAME}_more OWNER TO {role}; COMMENT ON DATABASE {database} IS '{NAME}'"
        ),
    );
    database
}

/// The store `sealed`; with a key, its host opens what it writes.
fn scenario(server: &Server, database: &str) -> (Scenario, String) {
    let scenario = Scenario::with_database(server, database);
    let public = age_key(&scenario, "key");
    let store = format!("[stores.sealed]\npath = \"sealed\"\nencrypt_to = [{}]\nseal_manifest = true\n", quoted(&public));
    let scenario = scenario.config(&store).backup_job("sealed", "keep = { last = 2 }");
    (scenario, store)
}

fn with_key(scenario: Scenario, store: &str) -> Scenario {
    let path = scenario.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, text.replace(store, &format!("{store}identity_file = \"key\"\n"))).unwrap();
    scenario
}

/// Nothing in the store says the name. Compressed rows do not either, and are encrypted besides.
#[track_caller]
fn says_nothing(scenario: &Scenario) {
    let folder = scenario.path("sealed");
    let files = scenario.files("sealed");
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let bytes = std::fs::read(folder.join(&file)).unwrap();
        assert!(!bytes.windows(NAME.len()).any(|part| part == NAME.as_bytes()), "{file}: {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn without_a_key_a_sealed_set_is_listed_verified_copied_required_and_pruned_and_names_nothing() {
    let server = server(18);
    let (scenario, _) = scenario(server, &with_names(server));
    scenario.run(&["run-job", "nightly"]).succeeded();
    says_nothing(&scenario);
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "list"]).succeeded().prints(&["sealed", "encrypted"]);
    let listed = scenario.json(&["backups", "list"])["sets"][0].clone();
    assert_eq!((&listed["sealed"], &listed["tables"]), (&true.into(), &Value::Null), "{listed:#}");
    scenario.run(&["backups", "show", &set]).succeeded().prints(&["its tables are sealed"]);
    scenario.run(&["backups", "verify", &set]).succeeded().prints(&["its SHA-256 match", "not decoded here"]);
    scenario.run(&["backups", "certificate", &set]).succeeded().prints(&["tables whose names and rows are sealed"]);
    scenario.run(&["backups", "require", "--database", "app", "--within", "1h"]).succeeded();
    scenario.run(&["backups", "diff", &set, &set]).exited(78).says(&["are sealed"]);
    let table = format!("{NAME}_rows");
    scenario.run(&["backups", "fetch", &set, "--table", &table]).exited(78).says(&["is sealed", "Its recipients are"]);
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert_eq!(scenario.sets().len(), 2, "one was pruned");
    let newest = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "copy", &newest, "--to", "local"]).succeeded();
    let manifest = |store: &str| std::fs::read(scenario.path(&format!("{store}/{newest}/manifest.json"))).unwrap();
    assert!(manifest("store") == manifest("sealed"), "a copy stays sealed");
    assert_eq!(scenario.sets().len(), 2, "they are one set");
    let said = scenario.run(&["check"]).succeeded();
    assert!((said.stdout + &said.stderr).contains("seals manifests, and this host has no key"));
    says_nothing(&scenario);
}

#[test]
fn with_a_key_a_sealed_set_is_as_good_as_any_and_age_opens_it_alone() {
    let server = server(18);
    let database = with_names(server);
    let (scenario, store) = scenario(server, &database);
    let scenario = with_key(scenario, &store).backup_job("sealed", "verify = \"restore\"");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let listed = scenario.json(&["backups", "list"])["sets"][0].clone();
    assert_eq!((&listed["sealed"], &listed["tables"], &listed["rows"]), (&false.into(), &2.into(), &2001.into()), "{listed:#}");
    let table = format!("{NAME}_rows");
    scenario.run(&["backups", "show", &set]).succeeded().prints(&[&table]);
    scenario.run(&["backups", "fetch", &set, "--table", &table, "--output", "rows"]).succeeded();
    let into = format!("{database}_restored");
    server.drop_with_test(&into);
    // Not the numbers of rows and tables either, of what was restored.
    let verification = std::fs::read_to_string(scenario.path(&format!("sealed/{set}/verification.json"))).unwrap();
    let how = serde_json::from_str::<Value>(&verification).unwrap()["restores"][0]["how"].clone();
    assert_eq!(
        (&how["is_sealed"], &how["rows"], &how["tables"], &how["hashed"]["rows"]),
        (&true.into(), &0.into(), &0.into(), &0.into())
    );
    let certificate = scenario.run(&["backups", "certificate", &set]).succeeded();
    let certificate = certificate.prints(&["has the rows of the manifest; values were hashed there, and are those of the dump"]);
    assert!(!certificate.stdout.contains("0 tables"), "{}", certificate.stdout);
    scenario.run(&["backups", "restore", &set, "--create", "--into", &server.url(&into)]).succeeded();
    assert_eq!(server.sql(&into, &format!("SELECT count(*) FROM {table}")), "2000");

    // A loss is noticed, and what is written about it names nothing.
    server.sql(&database, &format!("DROP TABLE {NAME}_more"));
    scenario.run(&["run-job", "nightly"]).succeeded().says(&[&format!("{NAME}_more"), "is held for 30 days"]);
    says_nothing(&scenario);

    let opened = opened_by_age(&scenario.path("key"), &scenario.path(&format!("sealed/{set}/manifest.json")));
    assert_eq!(opened["tables"].as_array().unwrap().len(), 2, "{opened:#}");
    assert_eq!(opened["tables"][1]["name"], table.as_str());
}

/// What docs/howto/encrypt-backups.md says, with python3 in place of jq.
pub fn opened_by_age(key: &Path, manifest: &Path) -> Value {
    let contents = "import json, sys; print(json.load(open(sys.argv[1]))['sealed']['contents'])";
    let script = format!(
        "set -o pipefail; python3 -c \"{contents}\" '{}' | base64 -d | age -d -i '{}'",
        manifest.display(),
        key.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_set_that_was_not_sealed_is_sealed_on_its_way_into_a_store_that_seals() {
    let server = server(18);
    let (scenario, store) = scenario(server, &with_names(server));
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "copy", &set, "--to", "sealed"]).succeeded();
    says_nothing(&scenario);
    let copies = scenario.json(&["backups", "list"])["sets"][0]["copies"].as_array().unwrap().len();
    assert_eq!((scenario.sets().len(), copies), (1, 2), "they are one set");
    let scenario = with_key(scenario, &store);
    scenario.run(&["backups", "verify", &set, "--store", "sealed"]).succeeded().prints(&["2,001 rows"]);

    // Another sealed part, or none, is not taken for that of the set.
    let manifest = scenario.path(&format!("sealed/{set}/manifest.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("\"contents\": \"", "\"contents\": \"AAAA", 1)).unwrap();
    scenario
        .run(&["backups", "restore", &set, "--store", "sealed", "--into", "app"])
        .exited(78)
        .says(&["it differs from what was written"]);
}

#[test]
fn a_store_that_encrypts_nothing_seals_nothing() {
    let scenario = Scenario::empty().config("[stores.local]\npath = \"store\"\nseal_manifest = true\n");
    let output = scenario.run(&["check"]).exited(78);
    assert!((output.stdout + &output.stderr).contains("`seal_manifest` of store `local`, which encrypts nothing"));
}
