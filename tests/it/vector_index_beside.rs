//! Others at work while an index is measured and built: jobs of the same index, migrations, rows that move. Nobody waits for long, and
//! nothing is said that is not so.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::Value;

use crate::support::Scenario;
use crate::support::pgbench::Pgbench;
use crate::support::postgres::{Server, server};
use crate::vector_index::{indexes, items, prefers_indexes, scenario};

const IVFFLAT: &str = "CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 30)";
const QUICK: &str = "recall = { target = 1.0, queries = 100 }\napply_setting = 'database'";

/// Calls `sql` one time after the other until `work` is done. Returns how often.
fn beside(server: &Server, database: &str, sql: &str, work: impl FnOnce()) -> u32 {
    let (turns, is_done) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let said = server.psql(database, sql);
                assert!(said.is_ok(), "{sql}: {said:?}");
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        work();
        is_done.store(true, Ordering::Relaxed);
        other.join().unwrap();
    });
    turns.into_inner()
}

#[test]
fn two_jobs_on_one_index_do_not_meet() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    prefers_indexes(server, &database);
    // Another job, on another host, with another name: what both know is the index.
    let other = server.session(
        &database,
        "SET application_name = 'pgtend/other'; SELECT pg_advisory_lock(hashtextextended(format('pgtend vector_index %s/items_idx', 'items'::regclass::oid::bigint), 0))",
    );
    let job = scenario(server, &database, &format!("lists = 20\n{QUICK}"));
    job.run(&["run-job", "tend"]).exited(75).says(&["pgtend/other", "is working on this index"]);
    assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=30|t");
    drop(other);
    job.run(&["run-job", "tend"]).succeeded();
    assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=20|t");
}

/// With fewer lists than the old index, which the planner prefers: it is hidden from the measurement, by a superuser's UPDATE of
/// pg_index that nobody else ever sees.
#[test]
fn a_migration_waits_for_no_measurement_and_nobody_sees_the_old_index_hidden() {
    let server = server(18);
    let database = items(server, 6000, 16, IVFFLAT);
    prefers_indexes(server, &database);
    let job = scenario(server, &database, "lists = 15\nrecall = { target = 1.0, queries = 1000 }\napply_setting = 'database'");
    // CREATE and DROP INDEX hold it up, as SHARE UPDATE EXCLUSIVE says. No session that searches does, however busy the machine is.
    let migration = "SET lock_timeout = '300ms'; DO $$ BEGIN
        FOR attempt IN 1..3 LOOP
            BEGIN
                ALTER TABLE items ALTER COLUMN id SET STATISTICS 50; ALTER TABLE items SET (autovacuum_enabled = off);
                IF EXISTS (SELECT FROM pg_index WHERE NOT indisvalid AND indexrelid = 'items_idx'::regclass) THEN RAISE 'items_idx is hidden'; END IF;
                RETURN;
            EXCEPTION WHEN lock_not_available THEN
                IF EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                           WHERE l.relation = 'items'::regclass AND l.granted AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
                             AND l.pid <> pg_backend_pid() AND a.query !~* '^ *((create|drop|alter|comment on) +index|do .guard)')
                THEN RAISE 'a search holds it up'; END IF;
                -- A build waits for this transaction in turn.
                IF EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query ~* '^(create|drop) +index') THEN RETURN; END IF;
            END;
        END LOOP; END $$";
    let mut told = Value::Null;
    let turns = beside(server, &database, migration, || {
        let json = job.run(&["run-job", "tend", "--json"]).succeeded();
        told = serde_json::from_str::<Value>(&json.stdout).unwrap()["runs"][0]["report"]["facts"]["tables"][0].clone();
    });
    assert_eq!(
        (&told["swapped"], indexes(server, &database).as_str()),
        (&true.into(), "items_idx|ivfflat|lists=15|t"),
        "{told:#}"
    );
    assert!(turns > 3, "{turns}");
}

#[test]
fn rows_that_move_while_they_are_searched_for_are_not_taken_for_losses() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    let job = scenario(server, &database, "recall = { queries = 1000 }\nprobes = 30");
    let now = |scenario: &Scenario| -> Value {
        let json = scenario.json(&["run-job", "tend", "--dry-run"]);
        json["runs"][0]["plan"]["tables"][0].clone()
    };
    prefers_indexes(server, &database);
    let at_rest = now(&job);
    assert_eq!(at_rest["now"]["recall"], 1.0, "all lists are read: {at_rest:#}");
    // More and more are other versions at other places by then.
    let move_some = "UPDATE items SET id = id WHERE random() < 0.1; SELECT pg_sleep(0.1)";
    let mut moved = Value::Null;
    let turns = beside(server, &database, move_some, || moved = now(&job));
    assert!(turns > 1, "{turns}");
    let recall = moved["now"]["recall"].as_f64();
    let why = moved["decision"]["reasons"].to_string();
    assert!(recall.is_some_and(|recall| recall > 0.999) || why.contains("changed during the measurement"), "{moved:#}");
}

#[test]
fn between_candidates_the_run_looks_at_how_long_commits_of_others_take() {
    let server = Server::start(18);
    let database = items(&server, 4000, 16, IVFFLAT);
    server.sql(
        &database,
        "CREATE TABLE app (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO app SELECT generate_series(1, 100)",
    );
    let application =
        Pgbench::start(&server, &database, 2, 100, "\\set id random(1, 100)\nUPDATE app SET n = n + 1 WHERE id = :id;\n");
    let job = scenario(&server, &database, QUICK);
    let ran = job.json(&["run-job", "tend"]);
    application.stop();
    let facts = &ran["runs"][0]["report"]["facts"];
    assert!(facts["tables"][0]["tuning"]["candidates"].as_array().unwrap().len() > 1, "{facts:#}");
    assert!(facts["beside_others"]["probes"].as_u64().unwrap() > 2, "{facts:#}");
}
