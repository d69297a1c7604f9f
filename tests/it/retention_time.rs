//! What is old, and who says so: clocks, values that are no times, the first run, keys of every type.

use serde_json::Value;

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Output, Scenario, eventually, faketime};

fn retention(scenario: Scenario, column: &str, more: &str) -> Scenario {
    scenario.job(
        "old",
        &format!("database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = '{column}'\nolder_than = '90d'\n{more}\n"),
    )
}

fn job(server: &Server, database: &str, column: &str, more: &str) -> Scenario {
    retention(Scenario::with_database(server, database), column, more)
}

fn facts(report: &Value) -> &Value {
    &report["runs"][0]["report"]["facts"]
}

/// On a host whose clock is a year ahead.
fn a_year_ahead(scenario: &Scenario, arguments: &[&str]) -> Output {
    let mut command = scenario.command(arguments);
    command.env("LD_PRELOAD", faketime()).env("FAKETIME", "+366d").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let output = command.output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_host_a_year_ahead_deletes_nothing_and_takes_no_other_way() {
    let server = server(18);
    for partitioned in [false, true] {
        let database = server.new_database();
        let by = if partitioned { "PARTITION BY RANGE (at)" } else { "" };
        server.sql(&database, &format!("CREATE TABLE logs (id bigint, at timestamptz NOT NULL) {by}"));
        if partitioned {
            server.sql(
                &database,
                "SELECT format('CREATE TABLE logs_%s PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', i, d, d + interval '30 days')
                 FROM (SELECT i, date_trunc('day', now()) - make_interval(days => 150 - 30 * i) AS d FROM generate_series(0, 6) i) w \\gexec",
            );
        }
        server.sql(&database, "INSERT INTO logs SELECT i, now() - make_interval(days => i) FROM generate_series(0, 149) i");
        let scenario = job(server, &database, "at", "archive = 'local'");
        for arguments in [&["run-job", "old", "--yes"][..], &["run-job", "old", "--dry-run"]] {
            a_year_ahead(&scenario, arguments)
                .exited(78)
                .says(&["the clocks of this host and of the database server are", "set the clocks first"]);
        }
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "150");
        scenario.run(&["run-job", "old"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "90|89");
        a_year_ahead(&scenario, &["archives", "restore"]).exited(78).says(&["the clocks of this host"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "90");
        if partitioned {
            let tend = "database = 'app'\n[partition]\ntable = 'public.logs'\ncolumn = 'at'\nevery = 'week'\nretain = '31d'\ngrace = '0s'\n";
            let scenario = scenario.job("tend", tend);
            let attached =
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'logs'::regclass AND inhrelid::regclass::text ~ '^logs_\\d$'";
            let before = server.sql(&database, attached);
            a_year_ahead(&scenario, &["run-job", "tend"]).exited(78).says(&["would be retired, but the clocks of this host"]);
            assert_eq!(server.sql(&database, attached), before);
        }
    }
}

#[test]
fn values_that_mean_never_stay_and_are_counted_and_named() {
    for (major, (method, archive)) in SOME_MAJORS.into_iter().zip([("index", ""), ("blocks", ""), ("index", "archive = 'local'")])
    {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (id int, at timestamptz NOT NULL DEFAULT '0001-01-01 00:00:00+00'); CREATE INDEX ON logs (at);
             INSERT INTO logs SELECT i FROM generate_series(1, 10000) i;
             INSERT INTO logs VALUES (0, '-infinity'), (0, '0044-03-15 BC'), (0, '1970-01-01 00:00:01+00'), (0, '1900-01-01'), (0, 'infinity');
             INSERT INTO logs SELECT -i, now() - make_interval(days => i) FROM generate_series(1, 200) i; ANALYZE logs",
        );
        let scenario = job(server, &database, "at", &format!("method = '{method}'\n{archive}"));
        scenario
            .run(&["run-job", "old", "--dry-run"])
            .succeeded()
            .prints(&["is not a time: 0001-01-01 00:00:00+00 (10,000 rows)"]);
        let report = scenario.json(&["run-job", "old"]);
        assert_eq!(
            (
                facts(&report)["rows_deleted"].as_u64(),
                facts(&report)["rows_left"].as_u64(),
                facts(&report)["sentinels_left"].as_u64()
            ),
            (Some(111), Some(0), Some(10_004)),
            "{method} on {major}: {report:#}"
        );
        assert_eq!(facts(&report)["sentinel_values"]["0001-01-01 00:00:00+00"].as_u64(), Some(10_000), "{report:#}");
        assert!(
            report["runs"][0]["report"]["summary"]
                .as_str()
                .unwrap()
                .contains("10,004 rows stay because their \"at\" is not a time: 0001-01-01")
        );
        assert_eq!(server.sql(&database, "SELECT count(*), min(id) FROM logs"), "10094|-89");
        let meant = job(server, &database, "at", &format!("method = '{method}'\n{archive}\nsentinels = 'delete'"));
        meant.run(&["run-job", "old"]).exited(75).says(&["about 99 %", "--yes"]);
        meant.run(&["run-job", "old", "--yes"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*), max(at) FROM logs"), "90|infinity", "{method} on {major}");
    }
}

#[test]
fn a_partition_with_values_that_mean_never_is_emptied_of_the_others() {
    let server = server(16);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id int, at timestamp NOT NULL) PARTITION BY RANGE (at);
         CREATE TABLE logs_first PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2001-01-01');
         CREATE TABLE logs_second PARTITION OF logs FOR VALUES FROM ('2001-01-01') TO ('2002-01-01');
         CREATE TABLE logs_rest PARTITION OF logs FOR VALUES FROM ('2002-01-01') TO (MAXVALUE);
         INSERT INTO logs VALUES (1, '-infinity'), (2, '0001-01-01'), (3, '2000-05-05'), (4, '2001-05-05'), (5, now()), (6, now()), (7, now())",
    );
    let scenario = job(server, &database, "at", "");
    scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&[
        "public.logs_first is emptied row by row and is not dropped: rows whose \"at\" is not a time stay",
        "detach public.logs_second",
        "\"at\" has no time zone and is read as UTC",
    ]);
    scenario.run(&["run-job", "old"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT string_agg(id::text, ',' ORDER BY id) FROM logs"), "1,2,5,6,7");
    assert_eq!(
        server.sql(&database, "SELECT to_regclass('logs_first') IS NOT NULL, to_regclass('logs_second') IS NOT NULL"),
        "t|f"
    );
}

#[test]
fn a_first_run_that_takes_nearly_all_asks_once() {
    let server = server(18);
    let database = server.new_database();
    let fill = "INSERT INTO logs SELECT i, now() - make_interval(days => i) FROM generate_series(1, 2000) i";
    server.sql(&database, &format!("CREATE TABLE logs (id int, at timestamptz); {fill}"));
    let without = job(server, &database, "at", "");
    for _ in 0..2 {
        let asks = ["would delete about 96 %", "pgtend run-job old --database app --yes"];
        without.run(&["run-job", "old"]).exited(75).says(&["skipped"]).says(&asks);
        without.run(&["run-job", "old", "--dry-run"]).exited(75).says(&asks).prints(&["needs consent"]);
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "2000");
    let scenario = job(server, &database, "at", "").ledger();
    scenario.run(&["run-job", "old"]).exited(75);
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "89");
    server.sql(&database, fill);
    scenario.run(&["run-job", "old"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "178");
    // Another rule is another question.
    let scenario = retention(scenario, "at", "where = 'id < 5000'");
    server.sql(&database, &format!("{fill}; {fill}"));
    scenario.run(&["run-job", "old"]).exited(75).says(&["its first run"]);
    let outcomes = server.sql(&database, "SELECT string_agg(outcome, ',' ORDER BY id) FROM pgtend.runs");
    assert_eq!(outcomes, "skipped,succeeded,succeeded,skipped");
}

#[test]
fn a_run_beyond_the_newest_row_asks_once_although_it_is_not_the_first() {
    let server = server(16);
    for index in ["", "CREATE INDEX ON logs (at)"] {
        let database = server.new_database();
        server.sql(
            &database,
            &format!("CREATE TABLE logs (id int, at timestamptz); {index};
                      INSERT INTO logs SELECT i, now() - make_interval(days => i) FROM generate_series(1, 120) i; INSERT INTO logs VALUES (0, NULL), (0, 'infinity')"),
        );
        let scenario = job(server, &database, "at", "").ledger();
        scenario.run(&["run-job", "old"]).succeeded();
        server.sql(&database, "UPDATE logs SET at = at - interval '1 year' WHERE id > 0");
        scenario.run(&["run-job", "old"]).exited(75).says(&["its cut-off is later than the newest row", "--yes"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "91");
        scenario.run(&["run-job", "old", "--yes"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "2");
        // Nothing goes: nothing is asked.
        scenario.run(&["run-job", "old"]).succeeded();
        server.sql(&database, "INSERT INTO logs VALUES (1, now() - interval '1 year')");
        scenario.run(&["run-job", "old"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "2");
    }
}

#[test]
fn a_run_that_was_agreed_to_and_killed_is_not_asked_for_again() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id int, at timestamptz); INSERT INTO logs SELECT i, now() - make_interval(hours => i) FROM generate_series(1, 60000) i",
    );
    let scenario = job(server, &database, "at", "[limits]\nbatch_time = '1ms'\npause = '300ms'").ledger();
    let running = scenario.start(&["run-job", "old", "--yes"]);
    eventually("it deletes", || server.sql(&database, "SELECT count(*) < 60000 FROM logs") == "t");
    running.kill();
    let scenario = retention(scenario, "at", "");
    eventually("the lock of the killed run is free", || scenario.run(&["run-job", "old"]).code == Some(0));
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE at < now() - interval '90d 1h'"), "0");
}

/// SQL of a ULID of `at`.
const ULID: &str =
    "(SELECT string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((ms >> (5 * d)) & 31)::int + 1, 1), '' ORDER BY d DESC)
                     FROM generate_series(0, 9) d) || upper(substr(md5(i::text), 1, 16))";
const UUID: &str = "(lpad(to_hex(ms), 12, '0') || '7' || substr(md5(i::text), 1, 3) || '8' || substr(md5(i::text), 1, 15))::uuid";

#[test]
fn keys_of_every_type_say_how_old_a_row_is() {
    let server = server(15);
    for (type_name, value, keys, index, odd) in [
        ("event_time", "at", "", "CREATE INDEX ON logs (key)", ""),
        ("bigint", "ms", "epoch = 'milliseconds'", "CREATE INDEX ON logs (key)", ", (-1, 0)"),
        ("int", "ms / 1000", "epoch = 'seconds'", "", ", (-1, 0)"),
        ("event_number", "ms * 1000", "epoch = 'microseconds'", "CREATE INDEX ON logs (key)", ""),
        ("uuid", UUID, "", "CREATE INDEX ON logs (key)", ", (-1, '01234567-89ab-4def-8123-456789abcdef')"),
        (
            "text",
            ULID,
            "",
            "CREATE INDEX ON logs (key COLLATE \"C\")",
            ", (-1, '0'), (-1, ''), (-1, '00000000000000000000000000')",
        ),
        ("varchar(26)", ULID, "", "CREATE INDEX ON logs (key)", ""),
        ("char(26)", ULID, "", "", ""),
    ] {
        for archive in ["", "archive = 'local'"] {
            let database = server.new_database();
            server.sql(
                &database,
                &format!(
                    "CREATE DOMAIN event_base AS timestamptz; CREATE DOMAIN event_time AS event_base; CREATE DOMAIN event_number AS bigint CHECK (value > 0);
                     CREATE TABLE logs (id int, key {type_name}); {index};
                     INSERT INTO logs SELECT i, {value} FROM (SELECT i, at, (extract(epoch FROM at) * 1000)::bigint AS ms
                       FROM (SELECT i, now() - make_interval(days => i) AS at FROM generate_series(1, 500) i) d) t;
                     INSERT INTO logs VALUES (-1, NULL) {odd}; ANALYZE logs"
                ),
            );
            let before = server.sql(&database, "SELECT count(*) FROM logs WHERE id < 0");
            let with = format!(
                "{keys}\n{archive}\nmethod = '{}'",
                if index.is_empty() || type_name.starts_with("varchar") { "blocks" } else { "index" }
            );
            let scenario = job(server, &database, "key", &with);
            scenario.run(&["run-job", "old"]).succeeded();
            let left = server.sql(&database, "SELECT count(*), max(id) FROM logs WHERE id > 0");
            assert!(left == "89|89" || left == "90|90", "{type_name} {archive}: {left}");
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE id < 0"), before, "{type_name}");
            if !archive.is_empty() {
                scenario.run(&["archives", "restore"]).succeeded();
                assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE id > 0"), "500");
            }
        }
    }
}

#[test]
fn columns_that_say_nothing_of_an_age_are_refused() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (number bigint, random uuid, words text, at timestamptz);
         INSERT INTO logs SELECT i, '01234567-89ab-4def-8123-456789abcdef', 'word', now() FROM generate_series(1, 10) i",
    );
    for (column, more, says) in [
        ("number", "", "epoch = \"seconds\""),
        ("random", "", "no uuids of version 7"),
        ("words", "", "no ULIDs"),
        ("at", "epoch = 'seconds'", "`epoch` is only for integer columns"),
    ] {
        job(server, &database, column, more).run(&["run-job", "old"]).exited(78).says(&[says]);
    }
    job(server, &database, "at", "sentinels = 'maybe'").run(&["check"]).exited(78).says(&["unknown value `maybe`"]);
}

#[test]
fn partitions_by_epoch_and_by_uuid_go_whole() {
    let server = server(18);
    for (key, keys, value) in [("bigint", "epoch = 'milliseconds'", "ms"), ("uuid", "", UUID)] {
        let database = server.new_database();
        let bound = |sql: &str| match key {
            "bigint" => format!("({sql})"),
            _ => format!("(lpad(to_hex({sql}), 12, '0') || repeat('0', 20))::uuid"),
        };
        let (from, to) = (
            bound("(extract(epoch FROM d) * 1000)::bigint"),
            bound("(extract(epoch FROM d + interval '30 days') * 1000)::bigint"),
        );
        server.sql(
            &database,
            &format!(
                "CREATE TABLE logs (id int, key {key} NOT NULL) PARTITION BY RANGE (key);
                 SELECT format('CREATE TABLE logs_%s PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', i, {from}, {to})
                 FROM (SELECT i, date_trunc('day', now()) - make_interval(days => 180 - 30 * i) AS d FROM generate_series(0, 7) i) w \\gexec
                 INSERT INTO logs SELECT i, {value} FROM (SELECT i, (extract(epoch FROM now() - make_interval(days => i)) * 1000)::bigint AS ms FROM generate_series(0, 170) i) t"
            ),
        );
        let report = job(server, &database, "key", keys).json(&["run-job", "old"]);
        assert!(facts(&report)["dropped"].as_array().is_some_and(|dropped| dropped.len() >= 2), "{key}: {report:#}");
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "90|89", "{key}");
    }
}

/// A random uuid lies anywhere, and in a partition without a lower end most of all.
#[test]
fn rows_whose_uuid_is_no_time_stay_in_partitions_too() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let of_time =
            |days: &str| format!("(lpad(to_hex((extract(epoch FROM now() - interval '{days} days') * 1000)::bigint), 12, '0')");
        let bound = server.sql(&database, &format!("SELECT {} || repeat('0', 20))::uuid", of_time("20")));
        server.sql(
            &database,
            &format!(
                "CREATE TABLE ids (id uuid PRIMARY KEY, words text) PARTITION BY RANGE (id);
                 CREATE TABLE ids_old PARTITION OF ids FOR VALUES FROM (MINVALUE) TO ('{bound}');
                 CREATE TABLE ids_new PARTITION OF ids FOR VALUES FROM ('{bound}') TO (MAXVALUE);
                 INSERT INTO ids SELECT {} || '7000800000000000' || lpad(i::text, 4, '0'))::uuid, 'old' FROM generate_series(1, 50) i;
                 INSERT INTO ids SELECT {} || '7000800000000000' || lpad(i::text, 4, '0'))::uuid, 'new' FROM generate_series(1, 50) i;
                 INSERT INTO ids SELECT {} || '4000800000000000' || lpad(i::text, 4, '0'))::uuid, 'random' FROM generate_series(1, 7) i",
                of_time("60"),
                of_time("1"),
                of_time("60")
            ),
        );
        let scenario = Scenario::with_database(server, &database)
            .job("old", "database = 'app'\n[retention]\ntable = 'public.ids'\ncolumn = 'id'\nolder_than = '10d'\n");
        scenario
            .run(&["run-job", "old", "--dry-run"])
            .succeeded()
            .prints(&["ids_old is emptied row by row", "is not a time stay"]);
        scenario.run(&["run-job", "old"]).succeeded();
        let left =
            "SELECT string_agg(words || ' ' || count, ',' ORDER BY words) FROM (SELECT words, count(*) FROM ids GROUP BY 1) w";
        assert_eq!(server.sql(&database, left), "new 50,random 7", "{major}");
    }
}
