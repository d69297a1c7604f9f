//! Retention: what leaves a table, what stays, and that nothing is lost on the way.

use std::time::{Duration, Instant};

use proptest::prelude::RngExt as _;
use proptest::test_runner::TestRng;

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually, quoted};

/// `count` rows, one an hour back from now; id 1 is the oldest.
const LOGS: &str = "
    CREATE TABLE logs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        gone int, created_at timestamptz, status text, parameters jsonb,
        doubled bigint GENERATED ALWAYS AS (length(status) * 2) STORED);
    ALTER TABLE logs DROP COLUMN gone;
    INSERT INTO logs (created_at, status, parameters)
    SELECT now() - make_interval(hours => :count - i), (ARRAY['ok', 'failed'])[1 + i % 2], jsonb_build_object('n', i, 'text', E'line\\n\\\\tab\\t')
    FROM generate_series(1, :count) i;
    INSERT INTO logs (created_at, status) VALUES (NULL, 'without a time');
";

pub fn logs(server: &Server, count: u32) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        &format!("\\set count {count}\n{LOGS}; CREATE INDEX logs_created_at ON logs (created_at); ANALYZE logs;"),
    );
    database
}

pub fn scenario(server: &Server, database: &str, more: &str) -> Scenario {
    Scenario::with_database(server, database).job(
        "old-logs",
        &format!("database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '10d'\n{more}\n"),
    )
}

#[test]
fn old_rows_leave_and_young_ones_and_those_without_a_time_stay_on_15_16_and_18() {
    for major in SOME_MAJORS {
        for method in ["index", "blocks"] {
            let server = server(major);
            let database = logs(server, 1000);
            let report =
                scenario(server, &database, &format!("method = '{method}'\nvacuum = true")).json(&["run-job", "old-logs"]);
            let facts = &report["runs"][0]["report"]["facts"];
            assert_eq!(
                (facts["rows_deleted"].as_u64(), facts["rows_left"].as_u64()),
                (Some(760), Some(0)),
                "{major} {method}: {report:#}"
            );
            assert_eq!(server.sql(&database, "SELECT count(*), count(created_at), min(id) FROM logs"), "241|240|761");
        }
    }
}

#[test]
fn the_method_follows_the_share_that_goes_and_the_plan_says_why() {
    let server = server(18);
    let database = logs(server, 1000);
    scenario(server, &database, "").run(&["run-job", "old-logs", "--dry-run"]).succeeded().prints(&[
        "Would delete about 7",
        "block range by block range",
        "one walk over the table is cheaper",
    ]);
    let small = logs(server, 260);
    scenario(server, &small, "")
        .run(&["run-job", "old-logs", "--dry-run"])
        .succeeded()
        .prints(&["through the index", "logs_created_at"]);
    server.sql(&small, "DROP INDEX logs_created_at");
    scenario(server, &small, "")
        .run(&["run-job", "old-logs", "--dry-run"])
        .succeeded()
        .prints(&["no index begins with the column"]);
    assert_eq!(server.sql(&small, "SELECT count(*) FROM logs"), "261", "a dry run deletes nothing");
}

#[test]
fn a_condition_narrows_what_goes_and_a_wrong_one_deletes_nothing() {
    let server = server(18);
    let database = logs(server, 1000);
    scenario(server, &database, "where = \"status = 'ok' -- the good ones\"").run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(
        server.sql(&database, "SELECT count(*) FROM logs WHERE created_at < now() - interval '10d' AND status = 'failed'"),
        "380"
    );
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "621");
    scenario(server, &database, "where = \"colour = 'red'\"").run(&["run-job", "old-logs"]).exited(1).says(&["where", "colour"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "621");
}

#[test]
fn archived_rows_come_back_by_psql_alone_or_by_archives_restore() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = logs(server, 1000);
        let all = "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l";
        let before = server.sql(&database, all);
        let scenario = scenario(server, &database, "archive = 'local'");
        scenario.run(&["run-job", "old-logs"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
        let listed = scenario.json(&["archives", "list"]);
        assert_eq!(listed["batches"][0]["manifest"]["rows"].as_u64(), Some(760), "{listed:#}");

        scenario.run(&["archives", "restore", "--dry-run"]).succeeded().prints(&["would put 760 rows"]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
        assert_eq!(server.sql(&database, all), before);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back"]);
        assert_eq!(server.sql(&database, all), before, "once");
        let twice = scenario.run(&["archives", "restore", "--again"]).exited(1);
        assert!(twice.stderr.contains("duplicate key"), "{}", twice.stderr);
        assert_eq!(server.sql(&database, all), before, "all or none");

        server.sql(&database, "DELETE FROM logs WHERE created_at < now() - interval '10d'");
        let object = scenario.files("store").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
        let text = std::process::Command::new("gunzip").arg("-c").arg(scenario.path("store").join(object)).output().unwrap();
        server.sql(&database, &String::from_utf8(text.stdout).unwrap());
        assert_eq!(server.sql(&database, all), before);
    }
}

#[test]
fn a_damaged_archive_puts_nothing_back() {
    let server = server(18);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let object = scenario.files("store").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
    let path = scenario.path("store").join(object);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [flipped, whole[..whole.len() - 1].to_vec(), Vec::new()] {
        std::fs::write(&path, damaged).unwrap();
        scenario.run(&["archives", "restore"]).exited(1).says(&["nothing was put back"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    }
}

/// Each id that was ever inserted, in the table or in the archive, exactly once.
#[track_caller]
pub fn nothing_is_lost_or_twice(server: &Server, database: &str, scenario: &Scenario, inserted: u64) {
    server.sql(database, "DROP TABLE IF EXISTS back; CREATE TABLE back (LIKE logs)");
    let listed = scenario.json(&["archives", "list"]);
    if !listed["batches"].as_array().unwrap().is_empty() {
        scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded();
    }
    let found = server.sql(
        database,
        "SELECT count(*), count(DISTINCT id), min(id), max(id) FROM (SELECT id FROM logs UNION ALL SELECT id FROM back) u",
    );
    assert_eq!(found, format!("{inserted}|{inserted}|1|{inserted}"));
}

#[test]
fn killed_at_any_moment_rows_in_the_table_and_archived_rows_are_all_rows() {
    let server = server(18);
    let database = logs(server, 60_000);
    // Small batches, so that a kill meets every step.
    let scenario = scenario(server, &database, "archive = 'local'\n[limits]\npause = '10ms'");
    let mut random = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for _ in 0..20 {
        let running = scenario.start(&["run-job", "old-logs", "--yes"]);
        std::thread::sleep(Duration::from_millis(random.random_range(20..600)));
        running.kill();
    }
    // A server process of a killed run ends when it notices; until then its transaction is in progress.
    let started = Instant::now();
    loop {
        let output = scenario.run(&["run-job", "old-logs", "--yes"]);
        if output.code == Some(0) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{output:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    nothing_is_lost_or_twice(server, &database, &scenario, 60_001);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE created_at < now() - interval '10d 1h'"), "0");
    let pending = scenario.files("store").into_iter().filter(|file| file.ends_with(".pending.json")).count();
    assert_eq!(pending, 0);
}

#[test]
fn a_server_that_crashes_midway_loses_nothing() {
    let mut server = Server::start(16);
    let database = logs(&server, 60_000);
    let scenario = scenario(&server, &database, "archive = 'local'\n[limits]\npause = '50ms'");
    for _ in 0..3 {
        server.sql(
            &database,
            "INSERT INTO logs (created_at, status) SELECT now() - interval '20 days', 'more' FROM generate_series(1, 20000)",
        );
        let before = scenario.files("store");
        let running = scenario.start(&["run-job", "old-logs", "--yes"]);
        eventually("a batch is on its way", || scenario.files("store").iter().any(|file| !before.contains(file)));
        server.crash();
        running.wait().exited_with_one_of(&[1, 69]);
        server.start_again();
    }
    scenario.run(&["run-job", "old-logs", "--yes"]).succeeded();
    // A crash leaves gaps in the numbers: a sequence is logged ahead.
    server.sql(&database, "CREATE TABLE back (LIKE logs)");
    scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded();
    let all = "SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM logs UNION ALL SELECT id FROM back) u";
    assert_eq!(server.sql(&database, all), "120001|120001");
}

#[test]
fn a_killed_walk_goes_on_where_it_was() {
    let server = server(18);
    let database = logs(server, 60_000);
    let scenario = scenario(server, &database, "method = 'blocks'\n[limits]\npause = '200ms'\nbatch_time = '1ms'").ledger();
    let running = scenario.start(&["run-job", "old-logs", "--yes"]);
    eventually("a heartbeat has noted the place", || {
        server.psql(&database, "SELECT (cursor->>'block')::int > 5 FROM pgtend.runs").is_ok_and(|answer| answer == "t")
    });
    running.kill();
    let scenario = scenario.job(
        "old-logs",
        "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '10d'\nmethod = 'blocks'\n",
    );
    eventually("the lock of the killed run is free", || scenario.run(&["run-job", "old-logs", "--yes"]).code == Some(0));
    let shown = scenario.json(&["runs", "old-logs", "--outcome", "succeeded"]);
    let facts = &shown["runs"][0]["report"]["facts"];
    assert!(facts["resumed_at_block"].as_u64().is_some_and(|block| block > 5), "{shown:#}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    assert_eq!(server.sql(&database, "SELECT cursor FROM pgtend.runs ORDER BY id DESC LIMIT 1"), "");
}

#[test]
fn a_row_that_somebody_holds_stays_and_is_counted() {
    let server = server(18);
    for (method, archive) in [("blocks", ""), ("index", ""), ("blocks", "archive = 'local'"), ("index", "archive = 'local'")] {
        let database = logs(server, 1000);
        let mut holder = server.tool("psql", &database);
        let mut holder = holder.args(["-Xq"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        use std::io::Write as _;
        holder.stdin.as_mut().unwrap().write_all(b"BEGIN; SELECT 1 FROM logs WHERE id IN (3, 500) FOR UPDATE;\n").unwrap();
        eventually("the rows are held", || {
            server.sql(&database, "SELECT count(*) FROM logs WHERE id = 3").as_str() == "1"
                && server.sql(
                    &database,
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()",
                ) == "1"
        });
        let report = scenario(server, &database, &format!("method = '{method}'\n{archive}")).json(&["run-job", "old-logs"]);
        let facts = &report["runs"][0]["report"]["facts"];
        assert_eq!(
            (facts["rows_deleted"].as_u64(), facts["rows_left"].as_u64()),
            (Some(758), Some(2)),
            "{method} {archive}: {report:#}"
        );
        holder.stdin.take();
        holder.wait().unwrap();
        assert_eq!(server.sql(&database, "SELECT string_agg(id::text, ',' ORDER BY id) FROM logs WHERE id < 761"), "3,500");
    }
}

#[test]
fn rows_that_a_trigger_keeps_stay_out_of_the_archive_and_are_counted() {
    let server = server(18);
    for (method, archive) in [("blocks", "archive = 'local'"), ("index", "archive = 'local'"), ("blocks", "")] {
        let database = logs(server, 1000);
        server.sql(
            &database,
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.id % 2 = 0 THEN OLD END; END $$;
             CREATE TRIGGER keep_odd BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION keep();",
        );
        let scenario = scenario(server, &database, &format!("method = '{method}'\n{archive}"));
        scenario.run(&["run-job", "old-logs", "--dry-run"]).succeeded().prints(&["trigger that fires: keep_odd (each row)"]);
        let report = scenario.json(&["run-job", "old-logs"]);
        let facts = &report["runs"][0]["report"]["facts"];
        assert_eq!(
            (facts["rows_deleted"].as_u64(), facts["rows_left"].as_u64()),
            (Some(380), Some(380)),
            "{method} {archive}: {report:#}"
        );
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "621");
        if !archive.is_empty() {
            nothing_is_lost_or_twice(server, &database, &scenario, 1001);
        }
    }
}

#[test]
fn foreign_keys_into_the_table_are_refused_without_an_index_and_shown_with_one() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(
        &database,
        "CREATE TABLE details (log_id bigint REFERENCES logs ON DELETE CASCADE, note text);
         CREATE INDEX ON details (log_id) WHERE note IS NULL;
         INSERT INTO details SELECT id, 'x' FROM logs WHERE id % 10 = 0;",
    );
    let scenario = scenario(server, &database, "");
    scenario.run(&["run-job", "old-logs"]).exited(78).says(&[
        "foreign key details_log_id_fkey of public.details",
        "has no index on its own columns",
        "CREATE INDEX CONCURRENTLY",
    ]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001", "a partial index does not count");
    server.sql(&database, "CREATE INDEX ON details (log_id)");
    scenario.run(&["run-job", "old-logs", "--dry-run"]).succeeded().prints(&["ON DELETE CASCADE"]);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM details"), "24");
}

#[test]
fn hidden_rows_missing_privileges_and_wrong_columns_delete_nothing() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(
        &database,
        "CREATE TABLE events (at bigint); CREATE VIEW seen AS SELECT * FROM logs;
         ALTER TABLE logs ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON logs USING (status = 'ok');
         DROP ROLE IF EXISTS retention_reader; DROP ROLE IF EXISTS retention_writer;
         CREATE ROLE retention_reader LOGIN; CREATE ROLE retention_writer LOGIN;
         GRANT SELECT ON logs TO retention_reader; GRANT SELECT, UPDATE, DELETE ON logs TO retention_writer;",
    );
    let as_role = |role: &str| {
        Scenario::with_url(server, &server.url_as(role, &database))
            .job("old-logs", "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '10d'\n")
    };
    as_role("retention_reader").run(&["run-job", "old-logs"]).exited(77).says(&["DELETE, UPDATE", "GRANT"]);
    as_role("retention_writer").run(&["run-job", "old-logs"]).exited(77).says(&["row security hides rows"]);
    let job = |table: &str, column: &str| {
        let text = format!(
            "database = 'app'\n[retention]\ntable = {}\ncolumn = {}\nolder_than = '10d'\n",
            quoted(table),
            quoted(column)
        );
        Scenario::with_database(server, &database).job("old", &text)
    };
    job("public.nothing", "created_at").run(&["run-job", "old"]).exited(78).says(&["there is no table public.nothing"]);
    job("logs", "createdat").run(&["run-job", "old"]).exited(78).says(&["has no column \"createdat\""]);
    job("logs", "status").run(&["run-job", "old"]).exited(78).says(&["is of type text"]);
    job("seen", "created_at").run(&["run-job", "old"]).exited(78).says(&["is not a table"]);
    job("logs; DROP TABLE logs", "created_at").run(&["run-job", "old"]).exited(78);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001");
    server.sql(
        &database,
        "DROP OWNED BY retention_reader; DROP OWNED BY retention_writer; DROP ROLE retention_reader; DROP ROLE retention_writer",
    );
}

#[test]
fn odd_names_dates_and_local_times_are_no_trouble() {
    let server = server(15);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE SCHEMA \"Ö d.d\"; CREATE TABLE \"Ö d.d\".\"lo\"\"gs; --\" (\"wh en'\" date, \"new\nline\" text, at timestamp);
         INSERT INTO \"Ö d.d\".\"lo\"\"gs; --\" SELECT current_date - i, 'a', localtimestamp - make_interval(days => i) FROM generate_series(0, 99) i;",
    );
    for column in ["wh en'", "at"] {
        let text = format!(
            "database = 'app'\ntimezone = 'Pacific/Auckland'\n[retention]\ntable = '''\"Ö d.d\".\"lo\"\"gs; --\"'''\ncolumn = '''{column}'''\nolder_than = '50d'\narchive = 'local'\n"
        );
        let scenario = Scenario::with_database(server, &database).job("old", &text);
        scenario.run(&["run-job", "old"]).succeeded();
        let left: u32 = server.sql(&database, "SELECT count(*) FROM \"Ö d.d\".\"lo\"\"gs; --\"").parse().unwrap();
        assert!((49..=52).contains(&left), "{left} rows are left by {column}");
        scenario.run(&["archives", "restore"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM \"Ö d.d\".\"lo\"\"gs; --\""), "100");
    }
}

#[test]
fn a_published_table_without_identity_is_refused_before_anything_is_deleted() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(&database, "ALTER TABLE logs REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE logs");
    scenario(server, &database, "").run(&["run-job", "old-logs"]).exited(78).says(&["REPLICA IDENTITY"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001");
}

#[test]
fn it_stops_for_now_when_its_time_is_over_and_goes_on_next_time() {
    let server = server(18);
    let database = logs(server, 60_000);
    let limited =
        scenario(server, &database, "method = 'blocks'\n[limits]\nrun_for = '300ms'\npause = '100ms'\nbatch_time = '1ms'");
    let report = limited.json(&["run-job", "old-logs", "--yes"]);
    let facts = &report["runs"][0]["report"]["facts"];
    assert!(facts["stopped"].as_str().is_some_and(|reason| reason.contains("run_for")), "{report:#}");
    assert!(facts["rows_left"].as_u64().is_some_and(|left| left > 0), "{report:#}");
    scenario(server, &database, "").run(&["run-job", "old-logs", "--yes"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
}

#[test]
fn it_waits_while_more_sessions_are_at_work_than_allowed_and_says_so() {
    let server = Server::start(16);
    let database = logs(&server, 1000);
    let mut busy = server.tool("psql", &database).args(["-Xqc", "SELECT pg_sleep(4)"]).spawn().unwrap();
    eventually("a session is at work", || {
        server.sql(&database, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(4)%' AND state = 'active' AND pid <> pg_backend_pid()") == "1"
    });
    let report = scenario(&server, &database, "[limits]\nmax_active_sessions = 0").json(&["run-job", "old-logs"]);
    let waited = report["runs"][0]["report"]["facts"]["waits"]["active_sessions"]["seconds"].as_f64();
    assert!(waited.is_some_and(|seconds| seconds >= 1.0), "{report:#}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    busy.wait().unwrap();
}

#[test]
fn of_a_partitioned_table_whole_partitions_go_and_rows_of_the_one_at_the_edge() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (id bigint, created_at timestamptz NOT NULL) PARTITION BY RANGE (created_at);
             SELECT format('CREATE TABLE logs_%s PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', i, d, d + interval '7 days')
             FROM (SELECT i, date_trunc('day', now()) - make_interval(days => 42 - 7 * i) AS d FROM generate_series(0, 7) i) w
             \\gexec
             INSERT INTO logs SELECT i, now() - make_interval(days => i) FROM generate_series(0, 40) i;",
        );
        let scenario = scenario(server, &database, "archive = 'local'");
        let plan = scenario.run(&["run-job", "old-logs", "--dry-run"]).succeeded().stdout;
        assert!(plan.contains("detach public.logs_0 concurrently") && plan.contains("logs_4"), "{plan}");
        let report = scenario.json(&["run-job", "old-logs"]);
        let facts = &report["runs"][0]["report"]["facts"];
        assert_eq!(facts["dropped"].as_array().map(Vec::len), Some(4), "{report:#}");
        assert!(facts["rows_deleted"].as_u64().is_some_and(|rows| rows > 0), "{report:#}");
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "10|9");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_class WHERE relname ~ '^logs_' AND relkind = 'r'"), "4");
        server.sql(&database, "CREATE TABLE back (LIKE logs)");
        scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded();
        let all = "SELECT count(*), count(DISTINCT id) FROM (SELECT id FROM logs UNION ALL SELECT id FROM back) u";
        assert_eq!(server.sql(&database, all), "41|41");
    }
}

#[test]
fn with_a_condition_rows_leave_the_partitions_they_are_in() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id bigint, created_at timestamptz NOT NULL) PARTITION BY RANGE (created_at);
         CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
         CREATE TABLE logs_new PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
         INSERT INTO logs SELECT i, '2025-12-20'::timestamptz + make_interval(days => i) FROM generate_series(1, 24) i;
         INSERT INTO logs SELECT 100 + i, now() FROM generate_series(1, 5) i;",
    );
    let scenario = scenario(server, &database, "archive = 'local'\nwhere = 'id > 0'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "5");
    scenario.run(&["archives", "restore"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT id) FROM logs"), "29|29");
}

#[test]
fn a_condition_with_parentheses_that_do_not_match_deletes_nothing() {
    let server = server(18);
    let database = logs(server, 1000);
    for condition in ["status = 'x') OR (status = 'ok'", "true) OR (true", "(status = 'ok'", "status = $1"] {
        let output = scenario(server, &database, &format!("where = \"{condition}\"")).run(&["run-job", "old-logs"]).exited(1);
        assert!(output.stderr.contains("`where` of [retention]"), "{}", output.stderr);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001");
    }
}

#[test]
fn rows_that_would_stay_unseen_or_go_unarchived_are_refused() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(
        &database,
        "CREATE TABLE details (log_id bigint REFERENCES logs ON DELETE CASCADE); CREATE INDEX ON details (log_id)",
    );
    let archived = scenario(server, &database, "archive = 'local'").run(&["run-job", "old-logs"]).exited(78);
    assert!(archived.stderr.contains("those rows would not be archived"), "{}", archived.stderr);
    server.sql(&database, "DROP TABLE details; CREATE TABLE child () INHERITS (logs)");
    scenario(server, &database, "").run(&["run-job", "old-logs"]).exited(78).says(&["tables inherit from public.logs"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001");
    server.sql(&database, "DROP TABLE child");
    let text = "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '300000000d'\n";
    Scenario::with_database(server, &database)
        .job("old-logs", text)
        .run(&["run-job", "old-logs"])
        .exited(78)
        .says(&["jobs/old-logs.toml:5:14", "more than 1000 years"]);
}

#[test]
fn row_security_of_one_partition_is_found_out() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("tends_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE TABLE logs (id bigint, created_at timestamptz NOT NULL) PARTITION BY RANGE (created_at);
             CREATE TABLE logs_all PARTITION OF logs FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
             INSERT INTO logs SELECT i, now() - make_interval(days => i) FROM generate_series(1, 30) i;
             CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON logs, logs_all TO {role};
             ALTER TABLE logs_all ENABLE ROW LEVEL SECURITY"
        ),
    );
    let as_role = Scenario::with_url(server, &server.url_as(&role, &database)).job(
        "old-logs",
        "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '10d'\nwhere = 'id > 0'\n",
    );
    as_role.run(&["run-job", "old-logs"]).exited(77).says(&["row security hides rows of \"public\".\"logs_all\""]);
    // A role that may see neither replication nor archiving gets by.
    server.sql(&database, "ALTER TABLE logs_all DISABLE ROW LEVEL SECURITY");
    as_role.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "9");
    server.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_column_that_comes_while_rows_are_archived_is_archived_too() {
    let server = server(18);
    let database = logs(server, 60_000);
    // By keys, a batch begins with 20,000 rows: three of them.
    let scenario = scenario(server, &database, "archive = 'local'\nmethod = 'index'\n[limits]\npause = '1s'");
    let running = scenario.start(&["run-job", "old-logs", "--yes"]);
    eventually("a batch is archived", || {
        scenario.files("store").iter().any(|file| file.ends_with(".json") && !file.ends_with(".pending.json"))
    });
    server.sql(&database, "ALTER TABLE logs ADD amount int DEFAULT 42");
    running.wait().succeeded();
    nothing_is_lost_or_twice(server, &database, &scenario, 60_001);
    let without = server.sql(&database, "SELECT count(*) FROM back WHERE amount IS NULL").parse::<u64>().unwrap();
    let first = scenario.json(&["archives", "list"])["batches"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|batch| !batch["manifest"]["columns"].as_array().unwrap().contains(&"amount".into()))
        .map(|batch| batch["manifest"]["rows"].as_u64().unwrap())
        .sum::<u64>();
    assert!(first < 59_000 && without == first, "{without} rows without the column, {first} archived before it");
}

#[test]
fn a_run_that_stands_still_midway_keeps_its_batch_whoever_else_comes() {
    let server = server(18);
    let database = logs(server, 60_000);
    let scenario = scenario(server, &database, "archive = 'local'");
    // The same names in another database of the cluster, and the same store.
    let other = logs(server, 10);
    let store = quoted(&scenario.path("store").display().to_string());
    let other = Scenario::empty()
        .config(&format!("[databases.app]\nurl = {}\n[stores.local]\npath = {store}\n", quoted(&server.url(&other))))
        .job("old-logs", "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '10d'\narchive = 'local'\n");
    let running = scenario.start(&["run-job", "old-logs", "--yes"]);
    eventually("a batch is on its way", || scenario.files("store").iter().any(|file| file.ends_with(".pending.json")));
    running.signal(rustix::process::Signal::STOP);
    let passing_by = other.run(&["run-job", "old-logs"]);
    running.signal(rustix::process::Signal::CONT);
    running.wait().succeeded();
    assert!(passing_by.code == Some(0) || passing_by.stderr.contains("in progress"), "{passing_by:?}");
    nothing_is_lost_or_twice(server, &database, &scenario, 60_001);
}
