//! Drift between two databases that live.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::keys;
use crate::support::Scenario;
use crate::support::postgres::server;

const JOB: &str = "database = 'app'\n[audit]\nagainst = 'staging'\n";

fn drift(scenario: &Scenario) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", "schema-drift", "--fail-on", "never"])["audit"].clone()
}

#[test]
fn what_differs_from_another_database_is_reported_both_ways_and_only_read() {
    let (here, there) = (server(18), server(16));
    let (app, staging) = (here.new_database(), there.new_database());
    let zoo = "CREATE TABLE animals (id int PRIMARY KEY, name text NOT NULL); CREATE INDEX animals_name ON animals (name); CREATE VIEW names AS SELECT name FROM animals;";
    here.sql(&app, zoo);
    there.sql(&staging, zoo);
    let url = there.url_as("postgres", &staging);
    let scenario =
        Scenario::with_database(here, &app).config(&format!("[databases.staging]\nurl = \"{url}\"\n")).job("quarterly", JOB);
    assert_eq!(keys(&drift(&scenario)), BTreeSet::new());
    there.sql(&staging, "CREATE TABLE only_there (id int PRIMARY KEY); ALTER TABLE animals ADD COLUMN legs int; ALTER INDEX animals_name RENAME TO by_name");
    here.sql(&app, "CREATE TABLE only_here (id int PRIMARY KEY); ALTER TABLE animals ALTER name DROP NOT NULL");
    let found = drift(&scenario);
    let expected = [
        "column public.animals.legs",
        "column public.animals.name",
        "index public.animals_name",
        "index public.by_name",
        "table public.only_here",
        "table public.only_there",
    ];
    let planted: BTreeSet<String> = expected.iter().map(|name| format!("schema-drift:{name}")).collect();
    let ours: BTreeSet<String> = keys(&found).into_iter().filter(|key| !key.contains("constraint ")).collect();
    assert_eq!(ours, planted, "{found:#}");
    for finding in found["findings"].as_array().unwrap() {
        assert!(finding["issue"].as_str().unwrap().contains("database `staging`"), "{finding:#}");
        assert!(finding["fix"]["file"].is_null(), "there is no file: {finding:#}");
        let is_here = finding["key"].as_str().unwrap().ends_with("only_here");
        assert_eq!(
            finding["fix"]["decide"].is_string(),
            is_here || finding["key"].as_str().unwrap().ends_with("animals_name"),
            "{finding:#}"
        );
    }
    for name in ["only_there", "animals.legs"] {
        let finding = found["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["key"].as_str().unwrap().ends_with(name))
            .unwrap();
        here.sql(&app, finding["fix"]["sql"].as_str().unwrap());
    }
    let left = keys(&drift(&scenario));
    assert!(!left.iter().any(|key| key.ends_with("only_there") || key.ends_with("legs")), "{left:?}");
}

#[test]
fn another_database_that_cannot_be_reached_is_unknown_and_a_name_that_is_none_is_refused() {
    let server = server(18);
    let database = server.new_database();
    let url = "postgres://postgres@127.0.0.1:1/staging?connect_timeout=2";
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.staging]\nurl = \"{url}\"\n"))
        .job("quarterly", JOB);
    let found = drift(&scenario);
    assert_eq!(found["checks"][0]["state"], "unknown", "{found:#}");
    assert!(found["checks"][0]["reasons"][0].as_str().unwrap().contains("database `staging` cannot be reached"), "{found:#}");
    let scenario = Scenario::with_database(server, &database).job("quarterly", JOB);
    scenario.run(&["check"]).exited(78).says(&["staging"]);
    let scenario = Scenario::with_database(server, &database)
        .job("quarterly", &JOB.replace("'staging'", "'app'\nschema_file = 'schema.sql'"));
    scenario.run(&["check"]).exited(78).says(&["takes the place of"]);
}
