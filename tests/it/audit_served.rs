//! Whether an index serves a foreign key: the catalog and the planner judge together, and each alone where the other cannot.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::{findings, keys, state};
use crate::support::Scenario;
use crate::support::postgres::{MAJORS, server};

const CHECK: &str = "fk-unindexed";

fn look(scenario: &Scenario) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", CHECK, "--fail-on", "never"])["audit"].clone()
}

fn of(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("{CHECK}:public.{name}")).collect()
}

const TARGETS: &str = "CREATE TABLE users (id int PRIMARY KEY, code text UNIQUE, price numeric UNIQUE);
    CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b));";

/// A table with a key of that column, and one index.
fn with_index(table: &str, index: &str) -> String {
    format!("CREATE TABLE {table} (id int, user_id int REFERENCES users, kind text, n int); CREATE INDEX ON {table} {index};")
}

#[test]
fn an_index_serves_a_foreign_key_where_the_planner_uses_it_and_a_key_column_leads_it() {
    let served = [
        ("plain", "(user_id)"),
        ("hashed", "USING hash (user_id)"),
        ("wider", "(user_id, n)"),
        ("of_all_that_refer", "(user_id) WHERE user_id IS NOT NULL"),
        ("of_all_that_refer_and_more", "(user_id, n) WHERE user_id IS NOT NULL OR n > 7"),
    ];
    let unserved = [
        ("of_some", "(user_id) WHERE kind = 'x'"),
        ("of_positive", "(user_id) WHERE user_id > 0"),
        ("of_none", "(user_id) WHERE user_id IS NULL"),
        ("ranges", "USING brin (user_id)"),
        ("second", "(n, user_id)"),
        ("another", "(n)"),
        ("computed", "((user_id + 1))"),
    ];
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        let tables: String = served.iter().chain(&unserved).map(|(table, index)| with_index(table, index)).collect();
        server.sql(
            &database,
            &format!(
                "{TARGETS}{tables}
                 CREATE TABLE both_ways (a int, b int, FOREIGN KEY (a, b) REFERENCES pairs); CREATE INDEX ON both_ways (b, a);
                 CREATE TABLE both_set (a int, b int, FOREIGN KEY (a, b) REFERENCES pairs); CREATE INDEX ON both_set (a, b) WHERE b IS NOT NULL AND a IS NOT NULL;
                 CREATE TABLE both_bare (a int, b int, FOREIGN KEY (a, b) REFERENCES pairs);
                 CREATE TABLE pattern (code text REFERENCES users (code)); CREATE INDEX ON pattern (code text_pattern_ops);
                 CREATE TABLE short (code varchar(9) REFERENCES users (code)); CREATE INDEX ON short (code);
                 CREATE TABLE sorted (code text REFERENCES users (code)); CREATE INDEX ON sorted (code COLLATE \"C\");
                 CREATE TABLE priced (price int REFERENCES users (price)); CREATE INDEX ON priced (price);
                 CREATE TABLE big (user_id bigint REFERENCES users); CREATE INDEX ON big (user_id) WHERE user_id IS NOT NULL;
                 CREATE TABLE \"Od\"\"d; t\" (\"u i\" int REFERENCES users); CREATE INDEX ON \"Od\"\"d; t\" (\"u i\") WHERE \"u i\" IS NOT NULL;
                 INSERT INTO of_some SELECT i FROM generate_series(1, 2000) i; ANALYZE"
            ),
        );
        let scenario = Scenario::with_database(server, &database);
        let now = look(&scenario);
        let mut expected = of(&["both_bare(a, b)", "sorted(code)", "priced(price)"]);
        expected.extend(of(&unserved.map(|(table, _)| format!("{table}(user_id)")).each_ref().map(String::as_str)));
        assert_eq!(keys(&now), expected, "on {major}");
        assert_eq!(now["checks"][0]["reasons"], Value::Null, "the planner answered for all: {now:#}");

        for finding in findings(&now) {
            let key = finding["key"].as_str().unwrap();
            match finding["fix"]["sql"].as_str() {
                Some(sql) => drop(server.sql(&database, sql)),
                // No index of the column can serve: the types differ.
                None => assert!(key.contains("priced") && finding["issue"].as_str().unwrap().contains("one type"), "{finding:#}"),
            }
        }
        assert_eq!(keys(&look(&scenario)), of(&["priced(price)"]), "each fix ended its finding, on {major}");
    }
}

#[test]
fn a_partitioned_table_needs_an_index_on_every_partition() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        let parted = |table: &str| {
            format!(
                "CREATE TABLE {table} (n int, gone int, user_id int REFERENCES users) PARTITION BY LIST (n); ALTER TABLE {table} DROP COLUMN gone;
                 CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES IN (1);
                 CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES IN (2) PARTITION BY LIST (user_id);
                 CREATE TABLE {table}_2_7 PARTITION OF {table}_2 FOR VALUES IN (7);
                 CREATE TABLE {table}_3 (user_id int, n int NOT NULL); ALTER TABLE {table} ATTACH PARTITION {table}_3 FOR VALUES IN (3);"
            )
        };
        server.sql(
            &database,
            &format!(
                "{TARGETS}{}{}{}{}
                 CREATE INDEX ON whole (user_id);
                 CREATE INDEX ON each_1 (user_id); CREATE INDEX ON each_2_7 (user_id) WHERE user_id IS NOT NULL; CREATE INDEX ON each_3 (user_id, n);
                 CREATE INDEX ON partly_1 (user_id); CREATE INDEX ON partly_3 (user_id) WHERE n = 3;",
                parted("whole"),
                parted("each"),
                parted("partly"),
                parted("bare"),
            ),
        );
        let scenario = Scenario::with_database(server, &database);
        let now = look(&scenario);
        assert_eq!(keys(&now), of(&["partly(user_id)", "bare(user_id)"]), "on {major}");
        let some = findings(&now).into_iter().find(|finding| finding["object"] == "public.partly").unwrap();
        let issue = some["issue"].as_str().unwrap();
        assert!(issue.contains("2 of 3 partitions have none: public.partly_2_7, public.partly_3."), "{issue}");
        for finding in findings(&now) {
            for statement in finding["fix"]["sql"].as_str().unwrap().lines() {
                server.sql(&database, statement);
            }
        }
        assert_eq!(keys(&look(&scenario)), BTreeSet::new(), "on {major}");
    }
}

#[test]
fn without_rights_on_a_table_the_catalog_alone_judges_and_that_is_said() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("none_{database}");
    let tables = [
        ("plain", "(user_id)"),
        ("of_all_that_refer", "(user_id) WHERE user_id IS NOT NULL"),
        ("of_some", "(user_id) WHERE n = 1"),
    ];
    let tables: String = tables.iter().map(|(table, index)| with_index(table, index)).collect();
    server.sql(&database, &format!("CREATE ROLE {role} LOGIN; {TARGETS}{tables}"));
    let now = look(&Scenario::with_url(server, &server.url_as(&role, &database)));
    assert_eq!(keys(&now), of(&["of_some(user_id)"]), "{now:#}");
    let issue = findings(&now)[0]["issue"].as_str().unwrap().to_owned();
    assert!(issue.contains("The catalog alone says so: no privilege to read it"), "{issue}");
    let reasons = now["checks"][0]["reasons"].to_string();
    assert!(reasons.contains("public.of_some was judged by the catalog alone") && !reasons.contains("public.plain"), "{reasons}");
    // What is served by the catalog alone is not called ok.
    server.sql(&database, "DROP TABLE of_some");
    let now = look(&Scenario::with_url(server, &server.url_as(&role, &database)));
    assert_eq!(state(&now, CHECK), "unknown", "{now:#}");
}

#[test]
fn a_table_that_is_locked_is_judged_by_the_catalog_alone() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, &format!("{TARGETS}{}", with_index("of_some", "(user_id) WHERE user_id > 0")));
    let holder = server.session(&database, "BEGIN; LOCK TABLE of_some IN ACCESS EXCLUSIVE MODE");
    let now = look(&Scenario::with_database(server, &database));
    drop(holder);
    assert_eq!(state(&now, CHECK), "unknown", "reading the index's condition waits for the lock, too: {now:#}");
}
