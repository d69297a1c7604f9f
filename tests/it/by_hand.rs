//! What a person does by hand to the work of a job: under its locks, with a row in the ledger, refused in a dry run as in earnest.

use serde_json::Value;

use crate::retention;
use crate::support::Scenario;
use crate::support::postgres::{Server, Session, server};

/// Holds an advisory lock of pgtend's.
fn holding(server: &Server, database: &str, name: &str, function: &str) -> Session {
    server.session(database, &format!("SELECT {function}(hashtextextended('{name}', 0))"))
}

fn last_row(scenario: &Scenario) -> Value {
    scenario.runs(&[]).pop().unwrap()
}

#[test]
fn a_prune_by_hand_takes_turns_with_the_runs_of_its_job_and_is_in_the_ledger() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "").ledger();
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let scenario = scenario.backup_job("local", "keep = { last = 1 }");
    for (lock, says) in [("pgtend run app/nightly", "already running"), ("pgtend job app/nightly", "already running")] {
        let _held = holding(server, &database, lock, "pg_advisory_lock");
        let refused = scenario.run(&["backups", "prune"]).exited(75).says(&["not pruned", says]);
        assert_eq!(refused.stdout, "");
        let refused = scenario.run(&["backups", "prune", "--json"]).exited(75);
        let refused: Value = serde_json::from_str(&refused.stdout).unwrap();
        assert_eq!((&refused["refused"][0]["job"], &refused["sets"]), (&"nightly".into(), &Value::Array(vec![])), "{refused:#}");
        assert_eq!(scenario.sets().len(), 3);
        assert_eq!((&last_row(&scenario)["task"], &last_row(&scenario)["outcome"]), (&"backups prune".into(), &"skipped".into()));
    }
    {
        let _reading = holding(server, &database, "pgtend sets app/nightly", "pg_advisory_lock_shared");
        scenario
            .run(&["backups", "prune"])
            .exited(75)
            .says(&["not pruned", "a restore reads sets of app/nightly: server process"]);
        assert_eq!(scenario.sets().len(), 3);
    }
    let pruned = scenario.json(&["backups", "prune"]);
    assert_eq!(pruned["sets"].as_array().unwrap().len(), 3, "{pruned:#}");
    assert_eq!(scenario.sets().len(), 1);
    let row = last_row(&scenario);
    assert_eq!(
        (&row["task"], &row["trigger"], &row["outcome"]),
        (&"backups prune".into(), &"manual".into(), &"succeeded".into())
    );
    assert_eq!(row["report"]["facts"]["pruned_sets"].as_array().unwrap().len(), 2, "{row:#}");
    // How the job does is said by its own runs.
    let jobs = scenario.json(&["jobs"]).to_string();
    assert!(!jobs.contains("backups prune"), "{jobs}");
}

#[test]
fn rows_come_back_while_no_run_of_their_job_and_no_partition_job_is_at_their_table() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'").ledger();
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let rows = || server.sql(&database, "SELECT count(*) FROM logs");
    assert_eq!(rows(), "241");
    {
        let _running = holding(server, &database, "pgtend job app/old-logs", "pg_advisory_lock");
        scenario.run(&["archives", "restore"]).exited(75).says(&["old-logs", "already running", "server process"]);
    }
    let oid = server.sql(&database, "SELECT 'logs'::regclass::oid");
    {
        let _moving = holding(server, &database, &format!("pgtend table {oid}"), "pg_advisory_lock");
        for more in [&["--dry-run"][..], &[]] {
            let restored = scenario.run(&[&["archives", "restore"], more].concat()).exited(75);
            restored.says(&["another job of pgtend works on public.logs"]);
        }
    }
    assert_eq!(rows(), "241");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    assert_eq!(rows(), "1001");
    let row = last_row(&scenario);
    assert_eq!(
        (&row["task"], &row["job"], &row["outcome"]),
        (&"archives restore".into(), &"old-logs".into(), &"succeeded".into())
    );
    assert_eq!(row["report"]["facts"]["rows_put_back"].as_u64(), Some(760), "{row:#}");
    scenario.run(&["runs"]).succeeded().prints(&["TASK", "archives restore", "retention"]);
    scenario.run(&["archives", "restore", "--dry-run"]).succeeded().prints(&["has been back in", "would skip it"]);
}

#[test]
fn a_dry_run_of_a_restore_of_rows_ends_as_the_restore_does() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    for (arguments, code, says) in [
        (["--into", "public.nowhere"], 78, "there is no table"),
        (["--into", "pg_catalog.pg_class"], 77, "a schema of PostgreSQL's own"),
        (["--to", "staging"], 78, "no database `staging`"),
    ] {
        for more in [&["--dry-run"][..], &[]] {
            let all = [&["archives", "restore"], &arguments[..], more].concat();
            let ended = scenario.run(&all).exited(code).says(&[says]);
            assert!(!ended.stdout.contains("would put"), "{all:?}: {}", ended.stdout);
        }
    }
}

#[test]
fn a_restore_is_in_the_ledger_where_there_is_one_and_makes_none_in_its_target() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    // The disaster: the ledger's database is the one that is gone.
    server.sql("postgres", &format!("DROP DATABASE \"{database}\"; "));
    server.sql("postgres", &format!("CREATE DATABASE \"{database}\""));
    let scenario = scenario.ledger();
    scenario.run(&["backups", "restore", "latest", "--into", "app"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT i FROM t"), "1");

    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
    let row = last_row(&scenario);
    assert_eq!((&row["task"], &row["job"], &row["outcome"]), (&"backups restore".into(), &"nightly".into(), &"succeeded".into()));
    server.sql("postgres", &format!("DROP DATABASE \"{copy}\""));
}

#[test]
fn a_restore_waits_until_a_prune_has_deleted_the_set_that_it_is_at() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "").ledger();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let deleting = holding(server, &database, "pgtend sets app/nightly", "pg_advisory_lock");
    let waiting = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()";
    crate::support::eventually("it waits for the prune", || server.sql(&database, waits) == "1");
    drop(deleting);
    let output = waiting.wait().succeeded();
    assert!(!output.stderr.contains("prune"), "{}", output.stderr);
    server.sql("postgres", &format!("DROP DATABASE \"{copy}\""));
}

#[test]
fn a_restore_that_leaves_statements_out_is_failed_in_the_ledger_as_by_its_exit_code() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p);
         SET session_replication_role = replica; INSERT INTO c VALUES (99)",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "").ledger();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let restored = ["backups", "restore", "latest", "--into", &server.url(&copy), "--create", "--on-error", "continue"];
    scenario.run(&restored).exited(1).prints(&["except for 1 statement"]);
    let row = last_row(&scenario);
    assert_eq!((&row["task"], &row["outcome"]), (&"backups restore".into(), &"failed".into()), "{row:#}");
    assert!(row["error"].as_str().unwrap().contains("except for 1 statement"), "{row:#}");
    server.sql("postgres", &format!("DROP DATABASE \"{copy}\""));
}

#[test]
fn a_restore_of_rows_that_is_interrupted_says_what_is_back() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    server.sql(&database, "CREATE TABLE other AS SELECT * FROM logs");
    let scenario = retention::scenario(server, &database, "archive = 'local'").ledger().job(
        "others",
        "database = 'app'\n[retention]\ntable = 'public.other'\ncolumn = 'created_at'\nolder_than = '10d'\narchive = 'local'\nmethod = 'blocks'\n",
    );
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["run-job", "others"]).succeeded();
    let locked = server.session(&database, "BEGIN; LOCK TABLE other");
    let running = scenario.start(&["archives", "restore"]);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'other'::regclass";
    crate::support::eventually("it waits for the second table", || server.sql(&database, waits) == "1");
    running.signal(rustix::process::Signal::INT);
    running.wait().exited(143).says(&["put back so far: 760 rows from 1 batch", "run it again for the rest"]);
    drop(locked);
    let rows = scenario.runs(&["old-logs"]);
    let row = rows.last().unwrap();
    assert_eq!((&row["outcome"], &row["report"]["facts"]["rows_put_back"]), (&"cancelled".into(), &760.into()), "{row:#}");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 ", "1 batch already back"]);
}
