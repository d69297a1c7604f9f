//! The audit on databases that it was not made for: no false alarm, and no fix that hurts.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::{audit, by_default, decided, findings, keys, state};
use crate::support::Scenario;
use crate::support::postgres::{MAJORS, WITH_PGVECTOR, server};

fn finding<'a>(audit: &'a Value, key: &str) -> &'a Value {
    let found = audit["findings"].as_array().unwrap().iter().find(|finding| finding["key"] == key);
    found.unwrap_or_else(|| panic!("no {key} in {:#?}", keys(audit)))
}

fn of_check(audit: &Value, check: &str) -> BTreeSet<String> {
    keys(audit).into_iter().filter(|key| key.split(':').next() == Some(check)).collect()
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[test]
fn orders_are_no_log_and_a_restored_database_is_not_judged_by_its_statistics() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE orders (id bigint PRIMARY KEY, created_at timestamptz);
         CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint REFERENCES orders ON DELETE RESTRICT);
         CREATE TABLE payments (id bigint PRIMARY KEY, created_at timestamptz);
         CREATE TABLE \"Access.log\" (id bigint PRIMARY KEY, \"createdAt\" timestamptz);
         INSERT INTO orders SELECT i, now() FROM generate_series(1, 12000) i;
         INSERT INTO payments SELECT i, now() FROM generate_series(1, 12000) i;
         INSERT INTO \"Access.log\" SELECT i, now() FROM generate_series(1, 12000) i;
         ANALYZE",
    );
    let scenario = Scenario::with_database(server, &database);
    let now = audit(&scenario);
    assert_eq!(of_check(&now, "append-only-unbounded"), set(&["append-only-unbounded:public.\"Access.log\""]));
    let outcome = now["checks"].as_array().unwrap().iter().find(|outcome| outcome["check"] == "append-only-unbounded").unwrap();
    assert!(outcome["reasons"][0].as_str().unwrap().contains("public.payments may be a log"), "{outcome}");
    // The column as it is, and an archive: rows that go are somewhere.
    let job = findings(&now).into_iter().find(|finding| finding["check"] == "append-only-unbounded").unwrap();
    let job = job["fix"]["job"].as_str().unwrap().to_owned();
    assert!(job.contains("column = \"createdAt\"") && job.contains("archive = \"local\""), "{job}");
    let scenario = scenario.job("fix", &format!("database = \"app\"\n{job}"));
    scenario.run(&["run-job", "fix", "--dry-run"]).succeeded();
    assert_eq!(of_check(&audit(&scenario), "append-only-unbounded"), set(&[]), "the job covers it");
}

#[test]
fn partitions_are_one_finding_whether_declared_inherited_or_all_default() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE old (id bigint, at timestamp);
             DO $$ BEGIN FOR i IN 1..30 LOOP EXECUTE format('CREATE TABLE old_%s (CHECK (id >= 0)) INHERITS (old)', i); EXECUTE format('INSERT INTO old_%s SELECT 1, now() FROM generate_series(1, 50)', i); END LOOP; END $$;
             CREATE TABLE caught (at date NOT NULL, \"Day.1\" int PRIMARY KEY) PARTITION BY RANGE (\"Day.1\");
             CREATE TABLE all_default (\"At\" timestamptz PRIMARY KEY) PARTITION BY RANGE (\"At\");
             CREATE TABLE all_default_d PARTITION OF all_default DEFAULT;
             CREATE TABLE daily (at timestamptz PRIMARY KEY, n int) PARTITION BY RANGE (at);
             CREATE TABLE daily_d PARTITION OF daily DEFAULT;
             CREATE TABLE daily_1 PARTITION OF daily FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-01-02 00:00+00');
             CREATE TABLE daily_2 PARTITION OF daily FOR VALUES FROM ('2099-01-02 00:00+00') TO ('2099-01-03 00:00+00');
             INSERT INTO daily VALUES ('2026-03-01', 1);
             INSERT INTO all_default VALUES (now());
             CREATE TABLE quiet (at date, n int) PARTITION BY LIST (n);
             DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE TABLE quiet_%s PARTITION OF quiet FOR VALUES IN (%1$s)', i); EXECUTE format('ALTER TABLE quiet_%s SET (autovacuum_enabled = off)', i); EXECUTE format('INSERT INTO quiet SELECT now(), %s FROM generate_series(1, 1500)', i); END LOOP; END $$;
             ANALYZE",
        );
        let now = audit(&Scenario::with_database(server, &database));
        assert_eq!(
            of_check(&now, "no-primary-key"),
            set(&["no-primary-key:public.old", "no-primary-key:public.quiet"]),
            "on {major}"
        );
        assert_eq!(of_check(&now, "timestamp-without-zone"), set(&["timestamp-without-zone:public.old"]));
        assert_eq!(of_check(&now, "autovacuum-behind"), set(&["autovacuum-behind:public.quiet"]));
        assert_eq!(of_check(&now, "partition-runway"), set(&[]), "what a default partition takes does not fail");
        let job = |table: &str| {
            finding(&now, &format!("default-partition-rows:public.{table}"))["fix"]["job"].as_str().unwrap().to_owned()
        };
        assert!(job("daily_d").contains("every = \"day\""), "{}", job("daily_d"));
        assert!(job("all_default_d").contains("column = \"At\""), "{}", job("all_default_d"));
        server.sql(&database, finding(&now, "autovacuum-behind:public.quiet")["fix"]["sql"].as_str().unwrap());
        server.sql(&database, &decided(finding(&now, "timestamp-without-zone:public.old")).unwrap());
        assert_eq!(server.sql(&database, "SELECT count(*) FROM old"), "1500");
    }
}

#[test]
fn an_index_that_stands_in_for_one_that_is_used_is_not_called_unused_as_well() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, at timestamptz); INSERT INTO t SELECT i, i, i FROM generate_series(1, 2000) i;
         CREATE INDEX short ON t (a); CREATE INDEX fine ON t USING brin (at) WITH (pages_per_range = 4); CREATE INDEX rough ON t USING brin (at); ANALYZE t",
    );
    server.sql(&database, "SET enable_seqscan = off; SELECT FROM t WHERE a = 7; SELECT pg_stat_force_next_flush()");
    server.sql(&database, "CREATE INDEX long ON t (a, b)");
    let used = server.sql(&database, "SELECT string_agg(indexrelname, ',') FROM pg_stat_user_indexes WHERE idx_scan > 0");
    assert_eq!(used, "short");
    let scenario = Scenario::with_database(server, &database).job("audit", "database = 'app'\n[audit]\nstatistics_age = '1ms'\n");
    let now = keys(&audit(&scenario));
    assert!(now.contains("overlapping-index:public.short") && !now.contains("unused-index:public.long"), "{now:#?}");
    assert!(!now.iter().any(|key| key.starts_with("duplicate-index")), "brin indexes of other ranges are others: {now:#?}");
}

#[test]
fn a_time_in_utc_means_the_same_moment_after_the_fix_and_what_is_in_the_way_is_named() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY, made timestamp(3) DEFAULT timezone('utc', now()), seen timestamp);
         INSERT INTO t (id, seen) VALUES (1, '2026-01-01 12:00');
         CREATE VIEW recent AS SELECT seen FROM t; CREATE INDEX by_day ON t (date_trunc('day', seen)); ANALYZE",
    );
    let scenario = Scenario::with_database(server, &database);
    let now = audit(&scenario);
    let sql = decided(finding(&now, "timestamp-without-zone:public.t")).unwrap();
    assert!(sql.contains("recent") && sql.contains("by_day"), "{sql}");
    server.sql(&database, "DROP VIEW recent; DROP INDEX by_day");
    server.sql(&database, &sql);
    server.sql(&database, "SET TimeZone = 'Asia/Tokyo'; INSERT INTO t (id) VALUES (2)");
    let right = "SELECT (SELECT made > now() - interval '1 h' AND made <= now() FROM t WHERE id = 2) AND (SELECT seen = '2026-01-01 12:00+00' FROM t WHERE id = 1) AND format_type(atttypid, atttypmod) = 'timestamp(3) with time zone' FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'made'";
    assert_eq!(server.sql(&database, right), "t");
}

#[test]
fn names_that_need_no_quotes_join_tables_and_frameworks_raise_no_alarm() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE ar_internal_metadata (key varchar PRIMARY KEY, updated_at timestamptz);
             CREATE TABLE users (id bigint PRIMARY KEY, \"position\" int, \"time\" time, \"timestamp\" timestamptz, größe int, updated_at timestamptz, deleted_at timestamptz, \"left\" int);
             CREATE TABLE tags (id bigint PRIMARY KEY);
             CREATE TABLE users_tags (user_id bigint REFERENCES users ON DELETE CASCADE, tag_id bigint REFERENCES tags ON DELETE CASCADE, PRIMARY KEY (user_id, tag_id));
             CREATE INDEX ON users_tags (tag_id);
             CREATE TABLE checked (id bigint PRIMARY KEY, user_id bigint);
             INSERT INTO checked VALUES (1, 99);
             ALTER TABLE checked ADD CONSTRAINT checked_user FOREIGN KEY (user_id) REFERENCES users NOT VALID;
             CREATE INDEX ON checked (user_id);",
        );
        let now = audit(&Scenario::with_database(server, &database));
        let expected = [
            "constraint-not-validated:public.checked checked_user",
            "fk-no-on-delete:public.checked checked_user",
            "identifier-needs-quoting:public.users.\"left\"",
            "updated-at-no-trigger:public.users.updated_at",
            "fk-orphans:public.checked checked_user",
        ];
        assert_eq!(keys(&now), &set(&expected) | &by_default(major), "on {major}");
        assert_eq!(finding(&now, expected[3])["level"], "low");
        // A row breaks it: to decide what DELETE does must not need that it is mended first.
        server.sql(&database, &decided(finding(&now, expected[1])).unwrap());
    }
}

#[test]
fn the_same_finding_in_many_schemas_is_one_and_its_sql_ends_all() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "DO $$ BEGIN FOR i IN 1..12 LOOP EXECUTE format('CREATE SCHEMA %1$I; CREATE TABLE %1$I.users (id int PRIMARY KEY); CREATE TABLE %1$I.docs (id int PRIMARY KEY, user_id int REFERENCES %1$I.users ON DELETE CASCADE)', 'tenant.' || i); END LOOP; END $$",
    );
    let scenario = Scenario::with_database(server, &database);
    let now = audit(&scenario);
    assert_eq!(keys(&now), set(&["fk-unindexed:*.docs(user_id)"]));
    let statements = findings(&now)[0]["fix"]["sql"].as_str().unwrap().to_owned();
    for statement in statements.lines() {
        server.sql(&database, statement);
    }
    assert_eq!(keys(&audit(&scenario)), set(&[]));
}

#[test]
fn large_text_is_found_where_it_takes_room_and_a_compress_job_covers_it() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE scripts (id int PRIMARY KEY, note text, \"Content\" text);
         INSERT INTO scripts SELECT i, 'short', (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 700) j) FROM generate_series(1, 1000) i;
         CREATE TABLE few (id int PRIMARY KEY, body text);
         INSERT INTO few SELECT id, \"Content\" FROM scripts LIMIT 20;
         CREATE TABLE short (id int PRIMARY KEY, body text);
         INSERT INTO short SELECT i, md5(i::text) FROM generate_series(1, 3000) i;",
    );
    server.sql(&database, "VACUUM ANALYZE");
    let scenario = Scenario::with_database(server, &database);
    let now = audit(&scenario);
    let key = "large-text-uncompressed:public.scripts.\"Content\"";
    assert_eq!(of_check(&now, "large-text-uncompressed"), set(&[key]));
    let finding = finding(&now, key);
    assert_eq!(finding["level"], "low");
    let job = finding["fix"]["job"].as_str().unwrap();
    let scenario = scenario.job("fix", &format!("database = \"app\"\n{job}"));
    scenario.run(&["check"]).succeeded();
    scenario.run(&["run-job", "fix", "--dry-run"]).prints(&["gzip"]);
    assert_eq!(state(&audit(&scenario), "large-text-uncompressed"), "ok");
}

#[test]
fn each_job_that_is_proposed_is_right_as_it_stands() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, crate::audit::FIXTURE);
        let mut scenario = Scenario::with_database(server, &database);
        let now = audit(&scenario);
        let mut tasks = BTreeSet::new();
        for (number, finding) in findings(&now).iter().enumerate() {
            let Some(job) = finding["fix"]["job"].as_str() else { continue };
            tasks.extend(job.lines().filter(|line| line.starts_with('[')).map(str::to_owned));
            scenario = scenario.job(&format!("fix-{number}"), &format!("database = \"app\"\n{job}"));
        }
        let mut expected = set(&["[compress]", "[partition]", "[reindex]", "[retention]"]);
        if WITH_PGVECTOR.contains(&major) {
            expected.insert("[vector_index]".to_owned());
        }
        assert_eq!(tasks, expected, "on {major}");
        scenario.run(&["check"]).succeeded();
    }
}

#[test]
fn a_run_that_fails_by_fail_on_is_failed_in_the_ledger_with_what_it_found() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE a (x int); INSERT INTO a SELECT generate_series(1, 1000); ANALYZE");
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .job("quarterly", "database = 'app'\n[audit]\nstore = 'local'\nfail_on = 'medium'\n");
    scenario.run(&["run-job", "quarterly"]).exited(1);
    let shown = scenario.json(&["runs", "show", "1"]);
    assert_eq!(shown["run"]["outcome"], "failed", "{shown:#}");
    let report = &shown["run"]["report"];
    assert_eq!(report["facts"]["counts"]["medium"], 1, "{shown:#}");
    let location = report["facts"]["report"].as_str().unwrap();
    assert!(std::path::Path::new(location).exists(), "the report is stored all the same: {location}");
}

#[test]
fn a_store_that_is_away_or_damaged_audits_are_said_and_hide_nothing() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE a (x int); INSERT INTO a VALUES (1); ANALYZE");
    let scenario =
        Scenario::with_database(server, &database).job("quarterly", "database = 'app'\n[audit]\nstore = 'local'\nkeep = 1\n");
    scenario.run(&["run-job", "quarterly"]).succeeded();
    let folder = scenario.path("store/app/quarterly/audit");
    let later = folder.join("2999-01-01T00-00-00Z.json");
    for damaged in ["{", "{\"format\": 99}", ""] {
        std::fs::write(&later, damaged).unwrap();
        let report = scenario.json(&["run-job", "quarterly"])["runs"][0]["report"].clone();
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("cannot be read") && warnings.contains("no audit is deleted"), "{report:#}");
        assert_eq!(report["facts"]["counts"]["unchanged"], 1, "compared with the one before: {report:#}");
        assert_eq!(report["facts"]["pruned_audits"], 0);
    }
    assert!(later.exists());
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "json").count(),
        5
    );
    // A file where the store's folder was.
    std::fs::rename(scenario.path("store"), scenario.path("away")).unwrap();
    std::fs::write(scenario.path("store"), "").unwrap();
    let by_hand = audit(&scenario);
    assert_eq!(keys(&by_hand), set(&["no-primary-key:public.a"]));
    assert!(by_hand["notes"].to_string().contains("not compared with an earlier audit"), "{by_hand:#}");
    scenario.run(&["run-job", "quarterly"]).exited(69).says(&["store"]);
}
