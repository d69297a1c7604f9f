//! Doing no harm: what a run does when others are at work beside it, and who waits behind a dump.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::pgbench::Pgbench;
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

const ROWS: u32 = 60_000;

/// A table of old rows, and a job that deletes them in small batches.
fn old_rows(server: &Server, rows: u32, limits: &str) -> (Scenario, String) {
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE TABLE logs (id int PRIMARY KEY, at timestamptz NOT NULL, message text);
             INSERT INTO logs SELECT g, now() - interval '1 year', repeat('x', 200) FROM generate_series(1, {rows}) g;
             CREATE TABLE app (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO app SELECT generate_series(1, 100)"
        ),
    );
    let job = format!(
        "database = \"app\"\n[retention]\ntable = \"public.logs\"\ncolumn = \"at\"\nolder_than = \"90d\"\nmethod = \"index\"\n[limits]\n{limits}\n"
    );
    server.sql(&database, "CREATE INDEX ON logs (at)");
    (Scenario::with_database(server, &database).job("retention", &job), database)
}

const APPLICATION: &str = "\\set id random(1, 100)\nUPDATE app SET n = n + 1 WHERE id = :id;\n";

fn facts(ran: &Value) -> &Value {
    &ran["runs"][0]["report"]["facts"]
}

#[test]
fn with_nobody_beside_it_a_run_makes_no_probes() {
    // Of its own: tests that run meanwhile are others.
    let server = Server::start(18);
    let (scenario, _) = old_rows(&server, ROWS, "");
    let ran = scenario.json(&["run-job", "retention", "--yes"]);
    assert_eq!(facts(&ran)["rows_deleted"], ROWS, "{ran}");
    assert_eq!(facts(&ran)["beside_others"], Value::Null, "{ran}");
}

#[test]
fn a_run_goes_slowly_while_commits_of_an_application_take_longer() {
    let server = Server::start(18);
    let rows = 150_000;
    let (scenario, database) = old_rows(&server, rows, "batch_time = \"16ms\"\npause = \"60ms\"");
    let application = Pgbench::start(&server, &database, 2, 100, APPLICATION);
    let run = scenario.start(&["run-job", "retention", "--yes", "--json"]);
    let left = || server.sql(&database, "SELECT count(*) FROM logs").parse::<u32>().unwrap();
    eventually("it deletes", || left() < rows);
    // Commits of all wait for a standby that does not exist, now and then: a disk that is too slow for what is asked of it.
    for _ in 0..4 {
        if left() == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1500));
        server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        server.sql("postgres", "SELECT pg_reload_conf()");
        std::thread::sleep(std::time::Duration::from_millis(700));
        server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
        server.sql("postgres", "SELECT pg_reload_conf()");
    }
    let output = run.wait().succeeded();
    application.stop();
    let ran: Value = serde_json::from_str(&output.stdout).unwrap();
    let beside = &facts(&ran)["beside_others"];
    assert_eq!(facts(&ran)["rows_deleted"], rows, "{ran}");
    assert!(beside["probes"].as_u64().unwrap() > 5, "{beside}");
    assert!(beside["idle_ms"]["median"].as_f64().unwrap() > 0.0, "{beside}");
    // It begins with an eighth.
    assert!(beside["smallest_batch"].as_f64().unwrap() < 0.125, "{beside}");
    assert!(beside["slowed_seconds"].as_f64().unwrap() > 0.0, "{beside}");
}

#[test]
fn a_run_that_ended_before_anything_was_measured_reports_no_smallest_batch() {
    let server = Server::start(18);
    let (scenario, database) = old_rows(&server, 5000, "batch_time = \"16ms\"");
    let mut at_work = server.tool("psql", &database);
    let mut at_work = at_work.args(["-Xqc", "SELECT pg_sleep(600)"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("a session is at work", || server.sleeps(&database));
    let started = std::time::Instant::now();
    let ran = scenario.json(&["run-job", "retention", "--yes"]);
    at_work.kill().unwrap();
    at_work.wait().unwrap();
    let beside = &facts(&ran)["beside_others"];
    assert!(beside.is_object(), "{ran}");
    // A machine that is so busy that the run took longer than a window has measured something.
    if started.elapsed() < std::time::Duration::from_secs(5) {
        for name in ["smallest_batch", "longest_rest", "slowed_seconds"] {
            assert_eq!(beside.get(name), None, "{beside}");
        }
    }
}

#[test]
fn a_run_that_may_make_no_probes_looks_at_who_waits_and_works_all_the_same() {
    let server = Server::start(18);
    let (scenario, database) = old_rows(&server, ROWS, "batch_time = \"16ms\"\npause = \"5ms\"");
    let (off, other) = old_rows(&server, ROWS, "batch_time = \"16ms\"\npause = \"5ms\"\nmax_slowdown = 0");
    for database in [&database, &other] {
        let role = format!("deleter_{database}");
        server.sql(
            database,
            &format!(
                "DO $$ DECLARE f regprocedure; BEGIN
                     FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP
                         EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
                     END LOOP;
                 END $$;
                 CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON logs TO {role}"
            ),
        );
    }
    let application = Pgbench::start(&server, &database, 2, 100, APPLICATION);
    for (scenario, database, probes) in [(&scenario, &database, Value::from(0)), (&off, &other, Value::Null)] {
        let url = server.url_as(&format!("deleter_{database}"), database);
        std::fs::write(scenario.path("other.toml"), format!("[databases.app]\nurl = '{url}'\n[stores.local]\npath = 'store'\n"))
            .unwrap();
        let ran = scenario.json(&["--config", "other.toml", "run-job", "retention", "--yes"]);
        assert_eq!(facts(&ran)["rows_deleted"], ROWS, "{ran}");
        assert_eq!(facts(&ran)["beside_others"]["probes"], probes, "{ran}");
    }
    application.stop();
}

#[test]
fn a_window_of_time_ends_the_run_with_how_far_it_came_and_when_it_will_be_through() {
    let server = server(18);
    let (scenario, database) =
        old_rows(server, ROWS, "batch_time = \"1ms\"\npause = \"100ms\"\nrun_for = \"2s\"\nmax_slowdown = 0");
    let job = std::fs::read_to_string(scenario.path("jobs/retention.toml")).unwrap().replace("\"index\"", "\"blocks\"");
    let scenario = scenario.job("retention", &job).ledger();
    let ran = scenario.json(&["run-job", "retention", "--yes"]);
    let stopped = facts(&ran)["stopped"].as_str().unwrap_or_else(|| panic!("{ran}"));
    assert!(stopped.starts_with("run_for (2s) is over: ") && stopped.contains(" % after 2 s; about "), "{stopped}");
    assert!(stopped.contains("at this pace"), "{stopped}");
    assert_ne!(server.sql(&database, "SELECT count(*) FROM logs"), "0");
}

#[test]
fn a_slowdown_that_makes_no_sense_is_refused() {
    for limit in ["0.5", "-1", "nan"] {
        let (scenario, _) = old_rows(server(18), 1, &format!("max_slowdown = {limit}"));
        scenario.run(&["check"]).exited(78).says(&["max_slowdown", "set 1 or more (commits may take this many times"]);
    }
}

/// A dump that takes some seconds, and holds its locks all the time.
fn slow_dump(server: &Server, keys: &str) -> (Scenario, String) {
    let database = server.new_database();
    // Does not fit into pipes.
    server.sql(&database, "CREATE TABLE t AS SELECT g AS i, repeat(md5(g::text), 30) AS x FROM generate_series(1, 20000) g");
    let scenario = Scenario::with_database(server, &database).backup_job("local", keys);
    std::fs::create_dir(scenario.path("tools")).unwrap();
    for tool in ["pg_dump", "pg_dumpall", "psql"] {
        let real = server.bin_dir.join(tool);
        let slow = if tool == "pg_dump" { " | (sleep 12; cat)" } else { "" };
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*) exec {real} \"$@\" ;; esac\n{real} \"$@\"{slow}\n",
            real = real.display()
        );
        std::fs::write(scenario.path(&format!("tools/{tool}")), script).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(scenario.path(&format!("tools/{tool}")), executable).unwrap();
    }
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let bin_dir = format!("'{}'", server.bin_dir.display());
    std::fs::write(scenario.path("slow.toml"), config.replace(&bin_dir, "'tools'")).unwrap();
    (scenario, database)
}

const HAS_LOCK: &str = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.relation = 't'::regclass AND l.mode = 'AccessShareLock' AND l.granted AND a.query LIKE 'COPY %'";

#[test]
fn who_waits_behind_a_dump_is_named_in_a_warning_and_the_dump_is_whole() {
    let server = server(18);
    let (scenario, database) = slow_dump(server, "");
    let run = scenario.start(&["--config", "slow.toml", "run-job", "nightly", "--json"]);
    eventually("the dump has its lock", || server.sql(&database, HAS_LOCK) == "t");
    let migration = std::thread::spawn({
        let database = database.clone();
        move || crate::support::postgres::server(18).sql(&database, "ALTER TABLE t ADD y int")
    });
    let output = run.wait().succeeded().says(&["waits for AccessExclusiveLock on", "behind the dump", "give_way = true"]);
    migration.join().unwrap();
    let ran: Value = serde_json::from_str(&output.stdout).unwrap();
    let warnings = ran["runs"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("waits for AccessExclusiveLock on") && warnings.contains("psql"), "{warnings}");
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn a_dump_that_gives_way_ends_for_a_migration_and_leaves_nothing() {
    let server = server(18);
    let (scenario, database) = slow_dump(server, "give_way = true");
    let run = scenario.start(&["--config", "slow.toml", "run-job", "nightly"]);
    eventually("the dump has its lock", || server.sql(&database, HAS_LOCK) == "t");
    server.sql(&database, "ALTER TABLE t ADD y int");
    run.wait().exited(75).says(&["gave way after", "waits for AccessExclusiveLock on", "behind the dump"]);
    assert_eq!(scenario.sets().len(), 0);
    assert!(scenario.files("store").is_empty(), "{:?}", scenario.files("store"));
}

#[test]
fn an_archived_batch_is_deleted_in_steps_and_every_row_of_it_comes_back() {
    let server = server(18);
    for (method, of_one_time) in [("index", "i % 1000"), ("index", "0"), ("blocks", "i")] {
        let database = server.new_database();
        let table = format!("logs_of_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, at timestamptz NOT NULL, message text);
                 INSERT INTO {table} SELECT i, '2020-01-01'::timestamptz + make_interval(secs => {of_one_time}), repeat('x', 200)
                 FROM generate_series(1, 3000) i;
                 INSERT INTO {table} SELECT i, now(), 'young' FROM generate_series(3001, 10000) i;
                 CREATE INDEX ON {table} (at); ANALYZE {table};
                 ALTER DATABASE {database} SET log_statement = 'all'"
            ),
        );
        let hash = || server.sql(&database, &format!("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table} t"));
        let before = hash();
        let job = format!(
            "database = 'app'\n[retention]\ntable = 'public.{table}'\ncolumn = 'at'\nolder_than = '90d'\nmethod = '{method}'\narchive = 'local'\n"
        );
        let scenario = Scenario::with_database(server, &database).job("old", &job);
        let ran = scenario.json(&["run-job", "old", "--yes"]);
        assert_eq!(facts(&ran)["rows_deleted"], 3000, "{ran}");
        assert_eq!(facts(&ran)["archived_batches"], 1, "{ran}");
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "7000");
        let steps = server.logged().lines().filter(|line| line.contains("COPY (WITH") && line.contains(&table)).count();
        let expected = if of_one_time == "0" { 1..=1 } else { 5..=20 };
        assert!(expected.contains(&steps), "{method}, {of_one_time}: {steps} statements");
        scenario.run(&["archives", "restore"]).succeeded();
        assert_eq!(hash(), before, "{method}");
    }
}
