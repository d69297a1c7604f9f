//! `max_size`: the newest rows stay that fit, and a file that does not shrink is no reason to delete again.

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

fn job(server: &Server, database: &str, keys: &str) -> Scenario {
    Scenario::with_database(server, database)
        .job("old", &format!("database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'at'\n{keys}\n"))
}

fn facts(report: &Value) -> &Value {
    &report["runs"][0]["report"]["facts"]
}

/// What the table and its indexes take when nothing in them is free.
fn size(server: &Server, database: &str) -> f64 {
    server.sql(database, "VACUUM FULL ANALYZE logs");
    server.sql(database, "SELECT pg_total_relation_size('logs')").parse().unwrap()
}

/// A row a minute; ids count from the oldest.
fn logs(server: &Server, rows: u32, body: &str) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE TABLE logs (id bigint PRIMARY KEY, at timestamptz, body text);
             INSERT INTO logs SELECT i, now() - make_interval(mins => {rows} - i), {body} FROM generate_series(1, {rows}) i;
             CREATE INDEX ON logs (at); VACUUM ANALYZE logs"
        ),
    );
    database
}

#[test]
fn the_oldest_rows_go_until_the_rest_fits_and_the_next_run_takes_nothing() {
    for (major, method) in [(14, "index"), (18, "blocks")] {
        let server = server(major);
        let database = logs(server, 20_000, "repeat('x', 200 + i % 100)");
        // Rows die and others come: their age says nothing of their place.
        server.sql(&database, "UPDATE logs SET body = body || 'y' WHERE id % 3 = 0; VACUUM logs");
        let scenario = job(server, &database, &format!("max_size = '3MB'\nmethod = '{method}'"));
        scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&[
            "beyond the newest 3.0 MB",
            "rows of \"public\".\"logs\" take about",
            "with indexes and TOAST (all blocks read; files:",
            "more than max_size (3.0 MB): rows from \"at\" = ",
        ]);
        let files = server.sql(&database, "SELECT pg_total_relation_size('logs')");
        let report = scenario.json(&["run-job", "old"]);
        let deleted = facts(&report)["rows_deleted"].as_u64().unwrap();
        assert!((5_000..15_000).contains(&deleted), "{report:#}");
        assert_eq!(server.sql(&database, "SELECT min(id), count(*) FROM logs"), format!("{}|{}", deleted + 1, 20_000 - deleted));
        for vacuum in ["", "VACUUM logs"] {
            server.sql(&database, vacuum);
            let report = scenario.json(&["run-job", "old"]);
            assert_eq!(facts(&report)["rows_deleted"].as_u64(), Some(0), "on {major} {vacuum}: {report:#}");
        }
        assert!(
            server.sql(&database, "SELECT pg_total_relation_size('logs')").parse::<u64>().unwrap() * 10
                >= files.parse::<u64>().unwrap() * 8
        );
        // New rows come into the free space, and push out the oldest.
        server.sql(&database, "INSERT INTO logs SELECT 20000 + i, now() + make_interval(mins => i), repeat('x', 250) FROM generate_series(1, 1000) i");
        let report = scenario.json(&["run-job", "old"]);
        let further = facts(&report)["rows_deleted"].as_u64().unwrap();
        assert!((900..1_100).contains(&further), "{report:#}");
        assert_eq!(server.sql(&database, "SELECT min(id) FROM logs"), (deleted + further + 1).to_string());
        let size = size(server, &database);
        assert!((2.6e6..3.3e6).contains(&size), "{size} on {major}");
    }
}

#[test]
fn of_a_large_table_with_toast_a_part_is_read_and_chance_takes_nothing_more() {
    let server = server(18);
    // 16,000 rows of 800 bytes, every tenth with 20 kB that no compression makes smaller: 12 MB of heap at first, 32 MB of TOAST.
    let database = logs(
        server,
        60_000,
        "CASE WHEN i % 40 = 0 THEN (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 600) j) ELSE repeat('x', 800) END",
    );
    let scenario = job(server, &database, "max_size = '50MB'");
    scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&["from 4,096 of its ", "more than max_size"]);
    let report = scenario.json(&["run-job", "old"]);
    assert!(facts(&report)["rows_deleted"].as_u64().unwrap() > 10_000, "{report:#}");
    for _ in 0..3 {
        server.sql(&database, "VACUUM logs");
        let report = scenario.json(&["run-job", "old"]);
        assert_eq!(facts(&report)["rows_deleted"].as_u64(), Some(0), "{report:#}");
    }
    let size = size(server, &database);
    assert!((45.0e6..55.0e6).contains(&size), "{size}");
}

#[test]
fn rows_that_are_not_old_enough_stay_however_large_the_table_is() {
    let server = server(18);
    let database = logs(server, 20_000, "repeat('x', 200)");
    let scenario = job(server, &database, "max_size = '1MB'\nolder_than = '10d'");
    scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&["older than 10d and beyond the newest 1.0 MB"]);
    scenario.run(&["run-job", "old"]).succeeded();
    // 10 days of minutes.
    let left: u32 = server.sql(&database, "SELECT count(*) FROM logs").parse().unwrap();
    assert!((14_400..14_420).contains(&left), "{left}");
    // And old ones stay while all fit.
    let fits = job(server, &database, "max_size = '1GB'\nolder_than = '1d'");
    fits.run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
    fits.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&["fits in max_size (1.0 GB)"]);
}

#[test]
fn values_that_are_no_time_take_no_place_and_rows_of_one_time_stay_together() {
    let server = server(18);
    let database = logs(server, 5_000, "repeat('x', 200)");
    server.sql(
        &database,
        "INSERT INTO logs SELECT 10000 + i, CASE WHEN i % 2 = 0 THEN 'infinity'::timestamptz END, repeat('x', 200) FROM generate_series(1, 10000) i",
    );
    // The 5,000 that have a time take about 1.5 MB.
    let scenario = job(server, &database, "max_size = '2MB'");
    scenario.run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "15000");
    server.sql(&database, "UPDATE logs SET at = '2026-01-01Z'");
    scenario.run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "15000");
}

#[test]
fn a_first_run_that_would_take_nearly_all_asks_a_person() {
    let server = server(18);
    let database = logs(server, 20_000, "repeat('x', 200)");
    let scenario = job(server, &database, "max_size = '100KB'").ledger();
    scenario.run(&["run-job", "old"]).exited(75).says(&["this is its first run, and it would delete about 9", "--yes"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "20000");
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    scenario.run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
    assert_ne!(server.sql(&database, "SELECT count(*) FROM logs"), "0");
    job(server, &database, "max_size = '0B'").run(&["check"]).exited(78).says(&["`max_size` is zero"]);
}

#[test]
fn of_a_partitioned_table_the_oldest_partitions_go_as_a_whole_and_rows_of_the_next() {
    let server = server(18);
    for (column_type, keys) in [
        ("timestamptz", "archive = 'local'"),
        ("timestamp", ""),
        ("date", ""),
        ("bigint", "epoch = 'milliseconds'"),
        ("uuid", ""),
    ] {
        let database = server.new_database();
        // Bounds and keys at the beginning of a day, in the column's own words.
        let key = |time: &str| match column_type {
            "bigint" => format!("(extract(epoch FROM {time}) * 1000)::bigint"),
            "uuid" => format!(
                "(lpad(to_hex((extract(epoch FROM {time}) * 1000)::bigint), 12, '0') || '7000800000000000' || lpad(to_hex(i), 4, '0'))::uuid"
            ),
            other => format!("({time})::{other}"),
        };
        let bound = |days: &str| match column_type {
            "uuid" => format!("(lpad(to_hex((extract(epoch FROM {days}) * 1000)::bigint), 12, '0') || lpad('', 20, '0'))::uuid"),
            _ => key(days),
        };
        server.sql(
            &database,
            &format!(
                "SET TimeZone = 'UTC'; CREATE TABLE logs (at {column_type} NOT NULL, body text) PARTITION BY RANGE (at);
                 SELECT format('CREATE TABLE logs_%s PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', n, {}, {})
                 FROM generate_series(0, 9) n, LATERAL (SELECT n AS i, date_trunc('day', now()) - make_interval(days => 100 - 10 * n) AS d) w
                 \\gexec
                 INSERT INTO logs SELECT {}, repeat('x', 400)
                 FROM generate_series(0, 9999) i; CREATE INDEX ON logs (at); VACUUM ANALYZE logs",
                bound("d"),
                bound("d + interval '10 days'"),
                key("date_trunc('day', now()) - make_interval(days => 99 - i / 102)")
            ),
        );
        let scenario = job(server, &database, &format!("max_size = '2.2MB'\n{keys}"));
        scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&["public.logs_0", "max_size (2.2 MB)"]);
        let report = scenario.json(&["run-job", "old"]);
        let partitions =
            server.sql(&database, "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relname ~ '^logs_\\d$'");
        assert!(
            !partitions.contains("logs_3") && partitions.contains("logs_6,logs_7,logs_8,logs_9"),
            "{column_type}: {partitions} {report:#}"
        );
        // An autovacuum worker's snapshot keeps rows that are dead for a moment longer.
        eventually("what is left takes about max_size", || {
            let sql = "VACUUM FULL logs; SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('logs')";
            (1.8e6..2.5e6).contains(&server.sql(&database, sql).parse::<f64>().unwrap())
        });
        scenario.run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
        if keys.contains("archive") {
            // Their partitions are gone.
            server.sql(&database, "CREATE TABLE back (LIKE logs)");
            scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded();
            assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM back)"), "10000");
        }
    }
}

#[test]
fn times_far_ahead_push_out_no_row_that_fits() {
    let server = server(18);
    let database = logs(server, 5_000, "repeat('x', 200)");
    server.sql(&database, "INSERT INTO logs SELECT 10000 + i, '9999-12-31Z', repeat('x', 200) FROM generate_series(1, 10000) i");
    // The 5,000 of the past take about 1.5 MB.
    job(server, &database, "max_size = '2MB'").run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "15000");
}
