//! Retention of tables of every kind, and beside others who hold them: 15, 16 and 18.

use std::io::Write as _;
use std::process::{Child, Stdio};

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Output, Scenario, eventually};

/// 100 rows, one a day back from now; id 1 is of today. Without any index.
const LOGS: &str = "CREATE TABLE logs (id int, at timestamptz, body text);
    INSERT INTO logs SELECT i, now() - make_interval(days => i - 1), 'body ' || i FROM generate_series(1, 100) i;";

const ALL: &str = "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l";

fn job(scenario: Scenario, more: &str) -> Scenario {
    scenario.job(
        "old",
        &format!("database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'at'\nolder_than = '50d'\n{more}\n[limits]\nlock_timeout = '20ms'\n"),
    )
}

fn retain(server: &Server, database: &str, more: &str) -> Output {
    job(Scenario::with_database(server, database), more).run(&["run-job", "old"])
}

/// psql that has run `sql` and stays in its transaction.
fn holder(server: &Server, database: &str, sql: &str) -> Child {
    let mut psql = server.tool("psql", database).args(["-XqAt"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    psql.stdin.as_mut().unwrap().write_all(format!("BEGIN ISOLATION LEVEL REPEATABLE READ;\n{sql};\n").as_bytes()).unwrap();
    let idle = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'idle in transaction' AND query LIKE '{}%'",
        &sql[..6]
    );
    eventually("it holds on", || server.sql("postgres", &idle) == "1");
    psql
}

fn end(mut psql: Child, sql: &str) -> String {
    psql.stdin.take().unwrap().write_all(format!("{sql};\nCOMMIT;\n").as_bytes()).unwrap();
    String::from_utf8(psql.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_long_reader_sees_all_its_rows_and_stops_nothing() {
    for major in SOME_MAJORS {
        let server = server(major);
        for archive in ["vacuum = true", "archive = 'local'"] {
            let database = server.new_database();
            server.sql(&database, LOGS);
            let reader = holder(server, &database, "SELECT count(*) FROM logs");
            retain(server, &database, archive).succeeded().prints(&["50 rows"]);
            assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "50|50");
            assert_eq!(end(reader, "SELECT count(*) FROM logs"), "100\n100\n", "on {major}");
        }
    }
}

#[test]
fn a_table_that_somebody_has_locked_is_left_for_the_next_run_which_says_who() {
    for major in SOME_MAJORS {
        let server = server(major);
        // One keeps rows from being deleted, the other from being read.
        for (mode, shown, archive) in [
            ("SHARE", "ShareLock", ""),
            ("SHARE", "ShareLock", "archive = 'local'"),
            ("ACCESS EXCLUSIVE", "AccessExclusiveLock", ""),
        ] {
            let database = server.new_database();
            server.sql(&database, LOGS);
            let locker = holder(server, &database, &format!("LOCK TABLE logs IN {mode} MODE"));
            let said = format!("has {shown} on");
            retain(server, &database, archive).exited(75).says(&["skipped", "is locked: server process", &said]);
            end(locker, "SELECT 1");
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "100");
            retain(server, &database, "").succeeded();
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "50", "on {major}");
        }
    }
}

#[test]
fn a_table_without_any_index_is_walked_through() {
    for major in SOME_MAJORS {
        let server = server(major);
        for archive in ["", "archive = 'local'"] {
            let database = server.new_database();
            server.sql(&database, LOGS);
            let before = server.sql(&database, ALL);
            let scenario = job(Scenario::with_database(server, &database), archive);
            scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&["no index begins with the column"]);
            scenario.run(&["run-job", "old"]).succeeded().prints(&["50 rows"]);
            assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "50|50", "on {major}");
            if !archive.is_empty() {
                scenario.run(&["archives", "restore"]).succeeded();
                assert_eq!(server.sql(&database, ALL), before);
            }
        }
    }
}

#[test]
fn generated_identity_quoted_and_dropped_columns_come_back_as_they_were() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (gone int, \"I d\"\"\" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, dropped text DEFAULT 'x',
               at timestamptz, \"select\" text, twice text GENERATED ALWAYS AS (\"select\" || \"select\") STORED, n int GENERATED BY DEFAULT AS IDENTITY);
             ALTER TABLE logs DROP COLUMN gone; CREATE INDEX ON logs (at);
             INSERT INTO logs (at, \"select\") SELECT now() - make_interval(days => i), E'tab\\t, \\\\. and NULL' || i FROM generate_series(0, 99) i;
             INSERT INTO logs (at, \"select\") VALUES (now() - interval '90 days', NULL); ALTER TABLE logs DROP COLUMN dropped",
        );
        let before = server.sql(&database, ALL);
        for method in ["blocks", "index"] {
            let scenario = job(Scenario::with_database(server, &database), &format!("archive = 'local'\nmethod = '{method}'"));
            scenario.run(&["run-job", "old"]).succeeded().prints(&["51 rows"]);
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "50");
            scenario.run(&["archives", "restore"]).succeeded();
            assert_eq!(server.sql(&database, ALL), before, "{method} on {major}");
        }
    }
}

#[test]
fn row_security_that_hides_rows_is_refused_and_one_that_does_not_is_no_trouble() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let role = format!("retains_{database}");
        server.sql(
            &database,
            &format!(
                "{LOGS} CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON logs TO {role};
                 ALTER TABLE logs ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON logs USING (id % 2 = 0)"
            ),
        );
        let as_role =
            || job(Scenario::with_url(server, &server.url_as(&role, &database)), "archive = 'local'").run(&["run-job", "old"]);
        as_role().exited(77).says(&["row security hides rows"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "100");
        // Its owner is not subject to it, unless it is forced.
        server.sql(&database, &format!("ALTER TABLE logs OWNER TO {role}; ALTER TABLE logs FORCE ROW LEVEL SECURITY"));
        as_role().exited(77).says(&["row security hides rows"]);
        server.sql(&database, "ALTER TABLE logs NO FORCE ROW LEVEL SECURITY");
        as_role().succeeded().prints(&["50 rows"]);
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "50|50", "on {major}");
        server.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

#[test]
fn rows_that_others_refer_to_go_stay_or_are_refused_as_the_foreign_key_says() {
    for major in SOME_MAJORS {
        let server = server(major);
        for (action, archive, code, says, left) in [
            ("ON DELETE CASCADE", "", 0, "", "50|50|50"),
            ("ON DELETE CASCADE", "archive = 'local'", 78, "those rows would not be archived", "100|100|100"),
            ("ON DELETE SET NULL", "", 0, "", "50|100|50"),
            ("ON DELETE SET NULL", "archive = 'local'", 78, "those rows would not be archived", "100|100|100"),
            ("ON DELETE NO ACTION", "", 0, "50 rows by details_log_id_fkey of public.details", "100|100|100"),
        ] {
            let database = server.new_database();
            server.sql(
                &database,
                &format!(
                    "{LOGS} ALTER TABLE logs ADD PRIMARY KEY (id); CREATE TABLE details (log_id int REFERENCES logs {action});
                     INSERT INTO details SELECT id FROM logs"
                ),
            );
            retain(server, &database, "").exited(78).says(&["has no index on its own columns", "CREATE INDEX CONCURRENTLY"]);
            server.sql(&database, "CREATE INDEX ON details (log_id)");
            retain(server, &database, archive).exited(code).says(&[says]);
            let counts = "SELECT (SELECT count(*) FROM logs), count(*), count(log_id) FROM details";
            assert_eq!(server.sql(&database, counts), left, "{action} {archive} on {major}");
        }
    }
}
