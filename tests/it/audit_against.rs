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
fn a_subscription_that_is_disabled_here_alone_is_found_and_its_password_is_nowhere() {
    let (here, there) = (server(18), server(16));
    let (app, staging) = (here.new_database(), there.new_database());
    let news = "CREATE SUBSCRIPTION news CONNECTION 'host=127.0.0.1 port=1 password=hidden' PUBLICATION one WITH (connect = false, slot_name = 'news', streaming = off)";
    for (server, database) in [(here, &app), (there, &staging)] {
        server.sql(database, news);
    }
    there.sql(&staging, "UPDATE pg_subscription SET subenabled = true WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())");
    let url = there.url_as("postgres", &staging);
    let scenario =
        Scenario::with_database(here, &app).config(&format!("[databases.staging]\nurl = \"{url}\"\n")).job("quarterly", JOB);
    let found = drift(&scenario);
    assert_eq!(keys(&found), BTreeSet::from(["schema-drift:subscription news".to_owned()]), "{found:#}");
    let finding = &found["findings"][0];
    assert_eq!(
        (finding["level"].as_str(), finding["fix"]["sql"].as_str()),
        (Some("high"), Some("ALTER SUBSCRIPTION news ENABLE;"))
    );
    assert!(!found.to_string().contains("hidden"));
    for (server, database) in [(here, &app), (there, &staging)] {
        server.sql(database, "ALTER SUBSCRIPTION news DISABLE");
        server.sql(database, "ALTER SUBSCRIPTION news SET (slot_name = NONE); DROP SUBSCRIPTION news");
    }
}

#[test]
fn check_connect_reads_the_other_database_and_says_what_an_audit_would_miss() {
    let (here, there) = (server(18), server(15));
    let (app, staging) = (here.new_database(), there.new_database());
    there.sql(&staging, "CREATE TABLE animals (id int PRIMARY KEY)");
    let with = |url: &str| {
        let config = format!("[databases.staging]\nurl = \"{url}\"\n");
        Scenario::with_database(here, &app).config(&config).job("quarterly", JOB)
    };
    with(&there.url_as("postgres", &staging))
        .run(&["check", "--connect"])
        .succeeded()
        .prints(&["compares with database staging (PostgreSQL 15", "objects)"]);
    let gone = "postgres://postgres@127.0.0.1:1/staging?connect_timeout=2";
    with(gone).run(&["check", "--connect"]).exited(69).prints(&["privileges for quarterly", "against = \"staging\""]);
    // A database compared with itself would never differ, nor with the server's other address.
    let itself = with(&here.url_as("postgres", &app));
    itself.run(&["check", "--connect"]).exited(78).prints(&["leads to the audited database itself"]);
    let found = drift(&itself);
    assert_eq!(found["checks"][0]["state"], "unknown", "{found:#}");
    // Who may not connect there is told so before the first audit.
    there.sql(&staging, "CREATE ROLE shut_out LOGIN");
    there.sql("postgres", &format!("REVOKE CONNECT ON DATABASE {staging} FROM PUBLIC"));
    let refused = with(&there.url_as("shut_out", &staging));
    refused.run(&["check", "--connect"]).exited(77).prints(&["against = \"staging\""]);
    there.sql("postgres", "DROP ROLE shut_out");
}

#[test]
fn check_connect_finds_a_schema_file_that_is_not_there_and_a_scratch_server_where_nothing_may_be_created() {
    let (here, there) = (server(18), server(16));
    let app = here.new_database();
    let job = "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n";
    let scenario = Scenario::with_database(here, &app).job("quarterly", job);
    scenario.run(&["check", "--connect"]).exited(78).prints(&["schema.sql does not exist"]);
    std::fs::write(scenario.path("schema.sql"), "CREATE TABLE t (id int);").unwrap();
    scenario.run(&["check", "--connect"]).succeeded().prints(&["compares with", "schema.sql"]);
    let role = format!("plain_{app}");
    there.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let config = format!("[databases.other]\nurl = \"{}\"\n", there.url_as(&role, "postgres"));
    let scenario = Scenario::with_database(here, &app).config(&config).job("quarterly", &format!("{job}scratch = 'other'\n"));
    std::fs::write(scenario.path("schema.sql"), "CREATE TABLE t (id int);").unwrap();
    scenario.run(&["check", "--connect"]).exited(77).prints(&["scratch = \"other\": the role may not create databases there"]);
    there.sql("postgres", &format!("ALTER ROLE {role} CREATEDB"));
    scenario.run(&["check", "--connect"]).succeeded().prints(&["loaded on database other's server (PostgreSQL 16"]);
    there.sql("postgres", &format!("DROP ROLE {role}"));
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
