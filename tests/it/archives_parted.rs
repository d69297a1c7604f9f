//! Batches that come back in part, beside others, or not at all: what is in the way is named, and keeps no other from coming back.

use crate::archives::{ALL, also, batches, scenario_in};
use crate::retention::{logs, scenario};
use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually};

/// A job of its own for a table with a column `at`.
fn retains(scenario: Scenario, job: &str, table: &str, more: &str) -> Scenario {
    scenario.job(
        job,
        &format!("database = 'app'\n[retention]\ntable = 'public.{table}'\ncolumn = 'at'\nolder_than = '10d'\narchive = 'local'\n{more}\n"),
    )
}

/// A table of 1,000 logs, 760 of which have left into an archive; and what they all were before.
fn archived(server: &Server) -> (String, String, Scenario) {
    let database = logs(server, 1000);
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    (database, before, scenario)
}

fn waits_for(server: &Server, database: &str, table: &str) {
    let sql = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    eventually("it waits for the table", || server.sql(database, &sql) == "1");
}

#[test]
fn restores_into_two_databases_at_once_are_both_recorded() {
    let server = server(18);
    let [database, other] = [1000, 1].map(|count| logs(server, count));
    for database in [&database, &other] {
        server.sql(database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    }
    server.sql(&other, "TRUNCATE logs");
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'").config(&also("app2", server, &other));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let locked = server.session(&other, "BEGIN; LOCK TABLE logs");
    let waiting = scenario.start(&["archives", "restore", "--to", "app2"]);
    waits_for(server, &other, "logs");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    drop(locked);
    waiting.wait().succeeded().prints(&["760 rows put back"]);
    for to in [&[][..], &["--to", "app2"]] {
        scenario.run(&[&["archives", "restore"], to].concat()).succeeded().prints(&["0 rows put back", "1 batch already back"]);
    }
    assert_eq!(server.sql(&database, ALL), before);
    assert_eq!(server.sql(&other, "SELECT count(*) FROM logs"), "760");
}

#[test]
fn rows_that_leave_while_others_are_put_back_elsewhere_can_come_back() {
    let server = server(18);
    let [database, other] = [1000, 1].map(|count| logs(server, count));
    server.sql(&other, "TRUNCATE logs");
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'").config(&also("app2", server, &other));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["archives", "restore"]).succeeded();
    let locked = server.session(&other, "BEGIN; LOCK TABLE logs");
    let waiting = scenario.start(&["archives", "restore", "--to", "app2"]);
    waits_for(server, &other, "logs");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    drop(locked);
    waiting.wait().succeeded();
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    assert_eq!(server.sql(&database, ALL), before);
}

#[test]
fn parts_of_a_batch_leave_and_come_back_as_often_as_they_like() {
    let server = server(18);
    let (database, before, mut scenario) = archived(server);
    scenario.run(&["archives", "restore", "--key", "id=7,8"]).succeeded().prints(&["2 rows put back"]);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["758 rows put back"]);
    for last in [100, 200, 760] {
        scenario = scenario_in(scenario, &format!("archive = 'local'\nwhere = \"id <= {last}\""));
        scenario.run(&["run-job", "old-logs"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), (1001 - last).to_string());
        let rest = match last {
            200 => {
                scenario.run(&["archives", "restore", "--key", "id=9"]).succeeded().prints(&["1 row put back"]);
                199
            }
            all => all,
        };
        scenario.run(&["archives", "restore"]).succeeded().prints(&[&format!("{rest} rows put back from 1 ")]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back", "1 batch already back"]);
        assert_eq!(server.sql(&database, ALL), before, "after {last} had left");
        assert_eq!(batches(&scenario).len(), 1);
    }
}

#[test]
fn a_batch_that_refers_to_a_later_one_comes_back_after_it() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE node (id int PRIMARY KEY, parent int REFERENCES node, at timestamptz); CREATE INDEX ON node (parent); CREATE INDEX ON node (at);
         INSERT INTO node VALUES (1, NULL, now() - interval '200 d'), (2, 1, now() - interval '199 d'), (3, 1, now() - interval '1 d');
         INSERT INTO node SELECT 100 + g, NULL, now() FROM generate_series(1, 100) g;
         CREATE TABLE ord (id int PRIMARY KEY, at timestamptz); CREATE INDEX ON ord (at);
         CREATE TABLE line (id int PRIMARY KEY, ord int REFERENCES ord DEFERRABLE INITIALLY DEFERRED, at timestamptz);
         CREATE INDEX ON line (ord); CREATE INDEX ON line (at);
         INSERT INTO ord SELECT g, now() - interval '20 d' * (g % 2) FROM generate_series(1, 40) g;
         INSERT INTO line SELECT id, id, at FROM ord",
    );
    let scenario = retains(Scenario::with_database(server, &database), "nodes", "node", "");
    let scenario = retains(retains(scenario, "a-child", "line", ""), "b-parent", "ord", "");
    scenario.run(&["run-job", "nodes"]).succeeded();
    server.sql(&database, "UPDATE node SET at = at - interval '100 d' WHERE id = 3");
    scenario.run(&["run-job", "nodes"]).succeeded();
    scenario.run(&["run-job", "a-child"]).succeeded();
    scenario.run(&["run-job", "b-parent"]).succeeded();
    let counts = "SELECT (SELECT count(*) FROM node), (SELECT count(*) FROM line), (SELECT count(*) FROM ord)";
    assert_eq!(server.sql(&database, counts), "100|20|20");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["43 rows put back from 4 "]);
    assert_eq!(server.sql(&database, counts), "103|40|40");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back", "4 batches already back"]);
}

#[test]
fn a_batch_whose_parents_are_gone_is_named_with_the_foreign_key_and_stops_no_other() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE ord (id int PRIMARY KEY, at timestamptz);
         CREATE TABLE line (id int PRIMARY KEY, ord int CONSTRAINT line_of REFERENCES ord, at timestamptz);
         CREATE INDEX ON line (ord); CREATE INDEX ON line (at); CREATE TABLE note (id int PRIMARY KEY, at timestamptz); CREATE INDEX ON note (at);
         INSERT INTO ord SELECT g, now() FROM generate_series(1, 40) g;
         INSERT INTO line SELECT id, id, at - interval '20 d' * (id % 2) FROM ord;
         INSERT INTO note SELECT id, at - interval '20 d' * (id % 2) FROM ord",
    );
    let scenario = retains(Scenario::with_database(server, &database), "a-line", "line", "");
    let scenario = retains(scenario, "b-note", "note", "");
    scenario.run(&["run-job", "a-line"]).succeeded();
    scenario.run(&["run-job", "b-note"]).succeeded();
    server.sql(&database, "DELETE FROM ord WHERE id = 7");
    scenario.run(&["archives", "restore"]).exited(1).prints(&["20 rows put back from 1 "]).says(&[
        "1 batch not put back",
        "app/a-line/archive/",
        "line_of",
        "--into TABLE",
    ]);
    assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM line), (SELECT count(*) FROM note)"), "20|40");
    server.sql(&database, "INSERT INTO ord VALUES (7, now())");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["20 rows put back from 1 "]);
}

#[test]
fn rows_whose_unique_value_another_row_has_are_named_and_not_counted_as_back() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(&database, "ALTER TABLE logs ADD COLUMN email text UNIQUE; UPDATE logs SET email = 'u' || id");
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["archives", "restore"]).succeeded();
    // All but this row leave again, so that the batch is there in part.
    server.sql(&database, "UPDATE logs SET status = 'changed' WHERE id = 7");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    server.sql(&database, "INSERT INTO logs (created_at, email) VALUES (now(), 'u1'), (now(), 'u2')");
    for _ in 0..2 {
        let said = scenario.run(&["archives", "restore"]).exited(1);
        said.says(&["1 batch not put back", "logs_email_key", "nothing was put back"]);
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "244", "the changed row and the two new ones");
    server.sql(&database, "DELETE FROM logs WHERE email IN ('u1', 'u2')");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["759 rows put back from 1 "]);
    assert_eq!(server.sql(&database, "SELECT count(*), count(*) FILTER (WHERE status = 'changed') FROM logs"), "1001|1");
}

#[test]
fn a_row_that_is_missing_stays_missing_in_the_record_when_another_comes_back() {
    let server = server(18);
    let (database, before, scenario) = archived(server);
    scenario.run(&["archives", "restore"]).succeeded();
    let scenario = scenario_in(scenario, "archive = 'local'\nwhere = \"id = 9\"");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    // One row left with the job, another by hand, and the latter comes back.
    server.sql(&database, "DELETE FROM logs WHERE id = 8");
    scenario.run(&["archives", "restore", "--key", "id=8"]).succeeded().prints(&["1 row put back"]);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["1 row put back"]);
    assert_eq!(server.sql(&database, ALL), before);
}

#[test]
fn rows_that_a_trigger_keeps_out_are_not_counted_as_back() {
    for major in SOME_MAJORS {
        let server = server(major);
        let (database, before, scenario) = archived(server);
        server.sql(
            &database,
            "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN new.id % 2 = 0 THEN new END; END $$;
             CREATE TRIGGER odd BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION odd()",
        );
        scenario.run(&["archives", "restore"]).exited(1).says(&["took 380 of the 760 rows", "a trigger", "nothing was put back"]);
        scenario.run(&["archives", "restore", "--key", "id=1,2,3,4"]).exited(1).says(&["took 2 of the 4 rows"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241", "on {major}");
        scenario.run(&["archives", "restore", "--key", "id=2,4"]).succeeded().prints(&["2 rows put back"]);
        scenario.run(&["archives", "restore"]).exited(1).says(&["took 378 of the 758 rows"]);
        server.sql(&database, "DROP TRIGGER odd ON logs");
        scenario.run(&["archives", "restore"]).succeeded().prints(&["758 rows put back"]);
        assert_eq!(server.sql(&database, ALL), before, "on {major}");
    }
}

#[test]
fn rules_of_the_table_fire_for_no_row_that_comes_back_filtered_or_not() {
    let server = server(18);
    let (database, before, scenario) = archived(server);
    server.sql(
        &database,
        "CREATE TABLE seen (id bigint); CREATE RULE a AS ON INSERT TO logs DO ALSO INSERT INTO seen VALUES (new.id);
         CREATE RULE b AS ON INSERT TO logs DO INSTEAD NOTHING",
    );
    scenario.run(&["archives", "restore", "--key", "id=7,8"]).succeeded().prints(&["2 rows put back"]);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["758 rows put back"]);
    assert_eq!(server.sql(&database, ALL), before);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM seen"), "0");
}

#[test]
fn a_filter_by_now_means_the_same_time_at_the_next_restore() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz, due timestamptz, day date); CREATE INDEX ON logs (created_at);
         INSERT INTO logs SELECT g, now() - interval '20 d' + g * interval '1 s', now() + (g - 30) * interval '1 s' , now() FROM generate_series(1, 60) g;
         INSERT INTO logs SELECT 100 + g, now() FROM generate_series(1, 60) g",
    );
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["archives", "restore", "--time", "..now", "--time-column", "due"]).succeeded();
    let first: u32 = server.sql(&database, "SELECT count(*) FROM logs WHERE id <= 60").parse().unwrap();
    assert!(first >= 29, "{first}");
    eventually("another second passed", || {
        server.sql(&database, &format!("SELECT count(*) FROM logs WHERE id = {first} AND now() > due + interval '3 s'")) == "1"
    });
    // At midnight there may be none of today.
    scenario.run(&["archives", "restore", "--key", "day=today"]).succeeded();
    let record = scenario.files("store").into_iter().find(|file| file.ends_with(".restored.json")).unwrap();
    let record = std::fs::read_to_string(scenario.path("store").join(record)).unwrap();
    assert!(record.contains("due") && record.contains("day"), "{record}");
    assert!(!record.contains("\"now\"") && !record.contains("\"today\""), "{record}");
    scenario.run(&["archives", "restore"]).succeeded();
    assert_eq!(server.sql(&database, ALL), before);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back"]);
    assert_eq!(server.sql(&database, ALL), before);
}

#[test]
fn rows_of_other_tables_go_only_where_into_sends_them() {
    let server = server(18);
    let database = logs(server, 1000);
    server.sql(&database, "CREATE TABLE other (LIKE logs INCLUDING ALL)");
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    for into in [&[][..], &["--into", "public.other"], &["--dry-run"]] {
        let arguments = [&["archives", "restore", "--table", "public.other"], into].concat();
        scenario.run(&arguments).exited(78).says(&[
            "no batch holds rows of public.other",
            "\"public\".\"logs\"",
            "--into public.other",
        ]);
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM other"), "0");
    scenario.run(&["archives", "restore", "--into", "public.other"]).succeeded().prints(&["760 rows put back"]);
}
