//! What is most urgent and largest is looked at first; what was cut, not looked at or not known is said, and lets no audit pass.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::{audit, findings, in_state, keys, state};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

fn look(scenario: &Scenario, check: &str) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone()
}

fn reasons(audit: &Value, check: &str) -> String {
    let outcomes = audit["checks"].as_array().unwrap();
    outcomes.iter().find(|outcome| outcome["check"] == check).unwrap()["reasons"].to_string()
}

fn noise(server: &Server, database: &str, number: usize) {
    server.sql(
        database,
        &format!(
            "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE noise (id int PRIMARY KEY);
             DO $$ BEGIN FOR i IN 1..{number} LOOP EXECUTE format('CREATE TRIGGER t%s BEFORE INSERT ON noise FOR EACH ROW EXECUTE FUNCTION act()', i); END LOOP; END $$;
             ALTER TABLE noise DISABLE TRIGGER USER"
        ),
    );
}

#[test]
fn a_thousand_small_findings_do_not_hide_a_critical_one() {
    let server = server(18);
    let database = server.trusted_database();
    noise(server, &database, 1100);
    server.sql(
        &database,
        "CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r SELECT generate_series(1, 3000); CREATE TABLE k (id int PRIMARY KEY, r int CONSTRAINT of_r REFERENCES r ON DELETE CASCADE);
         INSERT INTO k SELECT i, i FROM generate_series(1, 3000) i; ALTER TABLE k DISABLE TRIGGER ALL; ANALYZE",
    );
    let scenario = Scenario::with_database(server, &database);
    scenario
        .run(&["audit", "--database", "app", "--check", "trigger-disabled"])
        .exited(1)
        .says(&["trigger-disabled:public.k of_r"]);
    let found = look(&scenario, "trigger-disabled");
    assert_eq!(findings(&found).len(), 1000);
    assert_eq!(findings(&found)[0]["key"], "trigger-disabled:public.k of_r");
    assert_eq!(found["checks"][0]["cut"], serde_json::json!({ "findings": 101, "level": "low" }));
    assert!(reasons(&found, "trigger-disabled").contains("101 findings more, low at most"), "{found:#}");
}

#[test]
fn what_is_cut_counts_for_fail_on_as_what_it_may_be() {
    let server = server(18);
    let database = server.trusted_database();
    noise(server, &database, 1010);
    let job = |more: &str| format!("database = 'app'\n[audit]\nfail_on = 'high'\nprofile = 'strict'\n{more}\n");
    // All that are listed are waived by their names; those that are cut are not.
    let waivers = |keys: &BTreeSet<String>| {
        let waivers: Vec<String> =
            keys.iter().map(|key| format!("{{ key = '{key}', reason = 'known', until = 2999-01-01 }}")).collect();
        format!("waive = [{}]", waivers.join(", "))
    };
    let scenario = Scenario::with_database(server, &database).job("quarterly", &job(""));
    let listed = keys(&look(&scenario, "trigger-disabled"));
    assert_eq!(listed.len(), 1000);
    let arguments = ["audit", "--database", "app", "--check", "trigger-disabled"];
    let scenario = scenario.job("quarterly", &job(&waivers(&listed)));
    scenario.run(&arguments).exited(1).says(&["more than 0 findings high", "trigger-disabled that are not listed"]);
    let of_all = waivers(&BTreeSet::from(["trigger-disabled:*".to_owned()]));
    scenario.job("quarterly", &job(&of_all)).run(&arguments).succeeded();
}

#[test]
fn a_table_without_statistics_is_as_large_as_its_file() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE TABLE ref (id bigint PRIMARY KEY); INSERT INTO ref SELECT generate_series(1, 3000);
         CREATE TABLE up (id bigint, ref_id bigint CONSTRAINT of_ref REFERENCES ref ON DELETE CASCADE);
         INSERT INTO up SELECT i, i % 3000 + 1 FROM generate_series(1, 30000) i; ALTER TABLE up DISABLE TRIGGER ALL; INSERT INTO up SELECT i, i + 500000 FROM generate_series(30001, 60000) i;
         CREATE TABLE empty (id bigint, ref_id bigint CONSTRAINT of_ref REFERENCES ref ON DELETE CASCADE); ALTER TABLE empty DISABLE TRIGGER ALL; ANALYZE",
    );
    // As after pg_upgrade before 18, in a session that leaves no statistics of its own.
    server.sql(&database, "SELECT pg_stat_reset_single_table_counters('up'::regclass); UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE oid = 'up'::regclass");
    assert_eq!(server.sql(&database, "SELECT pg_stat_get_live_tuples('up'::regclass)"), "0");
    let scenario = Scenario::with_database(server, &database);
    let found = audit(&scenario);
    let level = |key: &str| {
        let found = findings(&found).into_iter().find(|finding| finding["key"] == key);
        found.unwrap_or_else(|| panic!("no {key}"))["level"].as_str().unwrap().to_owned()
    };
    assert_eq!(level("trigger-disabled:public.up of_ref"), "critical");
    assert_eq!(level("trigger-disabled:public.empty of_ref"), "low", "it is known to be empty");
    assert_eq!(level("fk-unindexed:public.up(ref_id)"), "high");
    assert_eq!(level("fk-orphans:public.up of_ref"), "high");
    assert_eq!(level("no-primary-key:public.up"), "medium");
    assert!(
        found["notes"].to_string().contains("1 table without statistics: the rows are estimated from the size"),
        "{:#}",
        found["notes"]
    );
    let weight =
        &findings(&found).into_iter().find(|finding| finding["key"] == "fk-unindexed:public.up(ref_id)").unwrap()["weight"];
    assert_eq!(weight["bytes"].as_i64().unwrap(), server.sql(&database, "SELECT pg_relation_size('up')").parse::<i64>().unwrap());
    // Locked, its size is not known: then it is not called small.
    let mut locker =
        server.tool("psql", &database).args(["-Xqc", "BEGIN; LOCK TABLE empty, up; SELECT pg_sleep(600)"]).spawn().unwrap();
    crate::support::eventually("it holds the lock", || {
        server.sql(
            &database,
            "SELECT count(*) FROM pg_locks WHERE relation = 'up'::regclass AND mode = 'AccessExclusiveLock' AND granted",
        ) == "1"
    });
    let found = look(&scenario, "trigger-disabled");
    server.sql(
        &database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND datname = current_database()",
    );
    locker.wait().unwrap();
    let of_up = findings(&found).into_iter().find(|finding| finding["key"] == "trigger-disabled:public.up of_ref").unwrap();
    assert_eq!(of_up["level"], "critical", "{found:#}");
    assert!(found["notes"].to_string().contains("the size is unknown"), "{:#}", found["notes"]);
}

#[test]
fn a_check_whose_time_is_over_says_what_it_did_not_look_at() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r SELECT generate_series(1, 10);
         DO $$ BEGIN FOR i IN 1..60 LOOP EXECUTE format('CREATE TABLE k%s (id int PRIMARY KEY, r int REFERENCES r ON DELETE CASCADE)', i); EXECUTE format('INSERT INTO k%s SELECT i, 1 FROM generate_series(1, 100 + %1$s) i', i); END LOOP; END $$;
         CREATE TABLE huge (id int PRIMARY KEY, r int CONSTRAINT of_r REFERENCES r ON DELETE CASCADE); SET session_replication_role = replica; INSERT INTO huge SELECT i, 99 FROM generate_series(1, 5000) i; ANALYZE",
    );
    let scenario =
        Scenario::with_database(server, &database).job("quarterly", "database = 'app'\n[audit]\naudit_timeout = '1ms'\n");
    let found = audit(&scenario);
    assert_eq!(
        in_state(&found, "ok").len() + in_state(&found, "findings").len() + in_state(&found, "failed").len(),
        0,
        "{found:#}"
    );
    assert!(reasons(&found, "fk-orphans").contains("audit_timeout"), "{found:#}");
    let scenario = scenario.job("quarterly", "database = 'app'\n[audit]\ncheck_timeout = '2m'\n");
    let found = look(&scenario, "fk-orphans");
    assert_eq!(keys(&found), BTreeSet::from(["fk-orphans:public.huge of_r".to_owned()]));
    // What takes no time at all is over before the first table.
    let scenario = scenario.job("quarterly", "database = 'app'\n[audit]\ncheck_timeout = '1ms'\n");
    let found = look(&scenario, "fk-orphans");
    assert_eq!(state(&found, "fk-orphans"), "unknown", "{found:#}");
    assert!(reasons(&found, "fk-orphans").contains("check_timeout"), "{found:#}");
}
