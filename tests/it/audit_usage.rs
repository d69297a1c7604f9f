//! What earlier audits saw of the use of indexes and tables.

use serde_json::Value;

use crate::audit::{keys, state};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

const JOB: &str = "database = 'app'\n[audit]\nstatistics_age = '2d'\nfail_on = 'never'\n";
const UNUSED: &str = "unused-index:public.t_word";

/// A table whose index was used before the first audit.
fn once_used(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY, word text); CREATE INDEX t_word ON t (word); INSERT INTO t SELECT i, i::text FROM generate_series(1, 2000) i; ANALYZE t",
    );
    use_it(server, &database);
    database
}

fn use_it(server: &Server, database: &str) {
    server.sql(database, "SET enable_seqscan = off; SELECT count(*) FROM t WHERE word = '7'; SELECT pg_stat_force_next_flush()");
}

fn unused(scenario: &Scenario) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", "unused-index", "--fail-on", "never"])["audit"].clone()
}

/// Makes the stored audits older, by as many days.
fn age(scenario: &Scenario, days: i64) {
    let folder = scenario.path("store/app/quarterly/audit");
    for entry in std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
    {
        let mut document: Value = serde_json::from_slice(&std::fs::read(&entry).unwrap()).unwrap();
        let then = |time: &Value| {
            let time: chrono::DateTime<chrono::Utc> = time.as_str().unwrap().parse().unwrap();
            Value::String((time - chrono::TimeDelta::days(days)).to_rfc3339())
        };
        document["started_at"] = then(&document["started_at"]);
        for used in document["usage"]["indexes"].as_object_mut().unwrap().values_mut() {
            used["unused_since"] = then(&used["unused_since"]);
        }
        for scanned in document["usage"]["tables"].as_object_mut().unwrap().values_mut() {
            scanned["at"] = then(&scanned["at"]);
        }
        for grown in document["usage"]["growth"].as_object_mut().unwrap().values_mut() {
            grown["since"] = then(&grown["since"]);
        }
        std::fs::write(&entry, serde_json::to_vec(&document).unwrap()).unwrap();
    }
}

/// The statistics began long before the audits. The server's own word cannot be made older.
fn without_a_reset(server: &Server, database: &str) {
    assert_eq!(
        server.sql(
            database,
            "SELECT stats_reset IS NULL OR stats_reset < now() FROM pg_stat_database WHERE datname = current_database()"
        ),
        "t"
    );
}

#[test]
fn an_index_that_was_used_once_is_found_when_no_audit_has_seen_a_use_for_long() {
    let server = server(17);
    let database = once_used(server);
    without_a_reset(server, &database);
    let scenario =
        Scenario::with_database(server, &database).job("quarterly", &JOB.replace("[audit]", "[audit]\nstore = 'local'"));
    scenario.run(&["run-job", "quarterly"]).succeeded();
    let first = unused(&scenario);
    assert_eq!(keys(&first).len(), 0, "it was just seen: {first:#}");
    age(&scenario, 3);
    let second = unused(&scenario);
    assert_eq!(keys(&second), [UNUSED.to_owned()].into(), "{second:#}");
    let finding = &second["findings"][0];
    assert_eq!((&finding["evidence"]["audits"], &finding["evidence"]["scans"]), (&2.into(), &1.into()), "{finding:#}");
    assert!(finding["issue"].as_str().unwrap().contains("(3 days, 2 audits)"), "{finding:#}");
    // One use ends it, and an index that was made meanwhile is not called unused.
    use_it(server, &database);
    server.sql(&database, "CREATE INDEX t_new ON t (word, id)");
    assert_eq!(keys(&unused(&scenario)).len(), 0);
}

#[test]
fn growth_from_one_audit_to_the_next_is_evidence_before_the_statistics_are_old_enough() {
    let server = server(16);
    let database = server.new_database();
    // Three tables that were restored yesterday: each row was only inserted. By their names, none is a log.
    server.sql(
        &database,
        "CREATE TABLE deliveries (id int PRIMARY KEY, created_at timestamptz); CREATE TABLE carts (id int PRIMARY KEY, created_at timestamptz, note text);
         CREATE TABLE stations (id int PRIMARY KEY, created_at timestamptz);
         INSERT INTO deliveries SELECT i, now() FROM generate_series(1, 20000) i; INSERT INTO carts SELECT i, now() FROM generate_series(1, 20000) i; INSERT INTO stations SELECT i, now() FROM generate_series(1, 20000) i;
         CREATE TABLE people (id int PRIMARY KEY); CREATE TABLE profiles (id int PRIMARY KEY, person_id int NOT NULL REFERENCES people ON DELETE CASCADE); CREATE INDEX ON profiles (person_id);
         INSERT INTO people SELECT generate_series(1, 2000); INSERT INTO profiles SELECT i, i FROM generate_series(1, 1500) i; ANALYZE",
    );
    let job = JOB.replace("[audit]", "[audit]\nstore = 'local'").replace("2d", "20d");
    let scenario = Scenario::with_database(server, &database).job("quarterly", &job);
    let look =
        |check: &str| scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone();
    scenario.run(&["run-job", "quarterly"]).succeeded();
    let first = look("append-only-unbounded");
    assert_eq!((keys(&first).len(), state(&first, "append-only-unbounded")), (0, "unknown"), "{first:#}");
    age(&scenario, 30);
    // One grows, one is worked on, one stays as it is.
    server.sql(
        &database,
        "INSERT INTO deliveries SELECT i, now() FROM generate_series(20001, 30000) i; UPDATE carts SET note = 'x' WHERE id % 3 = 0; INSERT INTO profiles SELECT i, i FROM generate_series(1501, 2000) i; ANALYZE; SELECT pg_stat_force_next_flush()",
    );
    let second = look("append-only-unbounded");
    assert_eq!(keys(&second), ["append-only-unbounded:public.deliveries".to_owned()].into(), "{second:#}");
    let finding = &second["findings"][0];
    assert!(
        finding["issue"]
            .as_str()
            .unwrap()
            .contains("(30 days, 2 audits) it grew from 20000 to 30000 rows, and 0 were changed or deleted"),
        "{finding:#}"
    );
    let relation = look("one-to-one-not-unique");
    let issue = relation["findings"][0]["issue"].as_str().unwrap();
    assert!(issue.contains("(2 audits) the table grew from 1500 to 2000 rows, and no person_id came twice"), "{issue}");
}

#[test]
fn without_a_store_the_ledger_remembers_how_much_indexes_were_used() {
    let server = server(18);
    let database = once_used(server);
    let scenario = Scenario::with_database(server, &database)
        .config("[ledger]\ndatabase = \"app\"\n")
        .job("quarterly", &JOB.replace("2d", "1s"));
    scenario.run(&["run-job", "quarterly"]).succeeded();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let second = unused(&scenario);
    assert_eq!(keys(&second), [UNUSED.to_owned()].into(), "{second:#}");
    server.sql(&database, "SELECT pg_stat_reset()");
    let reset = unused(&scenario);
    assert!(state(&reset, "unused-index") == "unknown" || reset["findings"][0]["evidence"]["audits"] == 1, "{reset:#}");
}
