//! Rows that go back into tables in use: into the tables that were looked at, and beside no job that deletes or moves their rows.

use crate::support::owners::{LOGS, RETENTION, beside};
use crate::support::postgres::{Server, server};
use crate::support::{Running, Scenario, eventually};

const DATA_ONLY: [&str; 1] = ["--data-only"];
const MERGE: [&str; 2] = ["--merge", "insert-missing"];

/// With a set of `logs`, which is empty since.
fn emptied(server: &Server, database: &str, table: &str) -> Scenario {
    let scenario = Scenario::with_database(server, database)
        .backup_job("local", "")
        .job("old", &format!("database = 'app'\n{RETENTION}"))
        .job("parts", "database = 'app'\n[partition]\ntable = 'public.parted'\ncolumn = 'at'\nevery = 'month'\npremake = 1\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(database, &format!("TRUNCATE {table}"));
    scenario
}

/// A restore into `table` that waits for its lock, as long as `holder` keeps it.
fn waiting(server: &Server, database: &str, scenario: &Scenario, table: &str, how: &[&str]) -> Running {
    let run = scenario.start(&[&["backups", "restore", "latest", "--into", "app", "--table", table], how].concat());
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '{database}') AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock')"
    );
    eventually("the restore waits for the table", || server.sql("postgres", &waits) != "0");
    run
}

#[test]
fn code_that_comes_between_the_look_and_the_lock_does_not_run_for_rows_that_come_back() {
    for (major, how) in [(15, &DATA_ONLY[..]), (18, &DATA_ONLY), (18, &MERGE)] {
        let server = server(major);
        let (database, alice) = beside(server, LOGS);
        server.sql(&database, &format!("GRANT ALL ON logs TO {alice}"));
        let scenario = emptied(server, &database, "logs");
        for (code, says) in [
            (
                format!(
                    "SET ROLE {alice}; CREATE TRIGGER zz BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION {alice}.on_row()"
                ),
                "was added to",
            ),
            (
                format!("DROP TRIGGER zz ON logs; GRANT CREATE ON SCHEMA public TO {alice}; ALTER TABLE logs OWNER TO {alice}"),
                "has another owner now",
            ),
        ] {
            let holder = server.session(&database, "BEGIN; LOCK TABLE public.logs IN SHARE ROW EXCLUSIVE MODE");
            let run = waiting(server, &database, &scenario, "logs", how);
            holder.ends_with(&format!("{code}; COMMIT"));
            run.wait().exited(1).says(&[says]);
            assert_eq!(
                server.sql(&database, "SELECT (SELECT count(*) FROM ran), (SELECT count(*) FROM logs)"),
                "0|0",
                "{major} {how:?}"
            );
        }
        // Code that was there before is named, and runs: the owner is trusted.
        let owners =
            format!("SET ROLE {alice}; CREATE TRIGGER mine BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION {alice}.on_row()");
        server.sql(&database, &owners);
        let arguments = [&["backups", "restore", "latest", "--into", "app", "--table", "logs"], how].concat();
        scenario.run(&arguments).succeeded().says(&["trigger mine of public.logs"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "50");
    }
}

#[test]
fn no_job_deletes_or_moves_rows_of_a_table_into_which_others_come_back() {
    let server = server(18);
    for (table, job, how) in
        [("logs", "old", &DATA_ONLY[..]), ("logs", "old", &MERGE), ("parted_1", "parts", &DATA_ONLY), ("parted", "parts", &MERGE)]
    {
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "{LOGS}; CREATE TABLE parted (id int, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
                 CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
                 INSERT INTO parted SELECT i, '2020-01-05' FROM generate_series(1, 50) i"
            ),
        );
        let scenario = emptied(server, &database, table);
        let holder = server.session(&database, &format!("BEGIN; LOCK TABLE public.{table} IN SHARE ROW EXCLUSIVE MODE"));
        let run = waiting(server, &database, &scenario, table, how);
        let beside = scenario.run(&["run-job", job, "--yes"]);
        // A [partition] job that cannot create the partitions of the next rows has failed.
        beside.exited_with_one_of(&[75, 1]).says(&["another job of pgtend works on public."]);
        holder.ends_with("COMMIT");
        run.wait().succeeded();
        scenario.run(&["run-job", job, "--yes"]).succeeded();
    }
}

#[test]
fn a_restore_into_a_table_waits_for_no_job_that_works_on_it_and_names_it() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, LOGS);
    let scenario = emptied(server, &database, "logs");
    server.sql(&database, "INSERT INTO logs SELECT i, now() - interval '1 year' FROM generate_series(51, 60) i");
    let holder = server.session(&database, "BEGIN; LOCK TABLE public.logs IN SHARE ROW EXCLUSIVE MODE");
    let job = scenario.start(&["run-job", "old", "--yes"]);
    let locked = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = '{database}')"
    );
    eventually("the job has the table", || server.sql("postgres", &locked) != "0");
    let merge = ["backups", "restore", "latest", "--into", "app", "--table", "logs", "--merge", "insert-missing"];
    scenario.run(&merge).exited(75).says(&["another job of pgtend works on public.logs", "no rows of"]);
    holder.ends_with("COMMIT");
    job.wait().succeeded();
    scenario.run(&merge).succeeded().prints(&["50 inserted"]);
}
