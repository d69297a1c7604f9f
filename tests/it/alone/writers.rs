//! An application on the table while jobs work on it, on 15, 16 and 18: pgbench meets no error, and waits for nobody longer
//! than lock_timeout and a second.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::random::kills::{EVENTS, NOTED, PLAIN, converted_or_not, finish, nothing_is_lost, table_and_archive_are_all};
use crate::support::Scenario;
use crate::support::pgbench::{Met, Pgbench};
use crate::support::postgres::{SOME_MAJORS, server};

/// lock_timeout is 2 s where a job does not say.
const LONGEST: Duration = Duration::from_secs(3);

#[track_caller]
fn nobody_waited(met: &Met, what: &str) {
    assert!(met.transactions > 50 && met.longest < LONGEST, "{what}: {met:?}");
}

#[test]
fn clients_on_the_rows_that_retention_deletes_meet_no_error() {
    for major in SOME_MAJORS {
        let server = server(major);
        for (method, archive) in [("blocks", ""), ("index", "archive = 'local'")] {
            let database = server.new_database();
            server.sql(&database, &format!("{PLAIN} ALTER TABLE logs ADD fill text DEFAULT repeat('x', 200)"));
            let expired = "INSERT INTO logs (at, kind) SELECT now() - interval '11 days', 'old' FROM generate_series(1, 30000); ANALYZE logs";
            server.sql(&database, expired);
            // From high to low numbers, as the batches do not go: a circle of locks is possible, and the batch has to give way.
            let clients = Pgbench::start(
                server,
                &database,
                4,
                400,
                "\\set high random(1, 90000)
                 \\set low greatest(1, :high - random(1, 200))
                 BEGIN;
                 UPDATE logs SET n = n + 1 WHERE id = :high;
                 UPDATE logs SET n = n + 1 WHERE id = :low;
                 INSERT INTO logs (kind) VALUES ('new');
                 END;
                 SELECT count(*) FROM logs WHERE at > now() - interval '1 minute';\n",
            );
            let text = format!(
                "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'at'\nolder_than = '10d'\nmethod = '{method}'\n{archive}\n\
                 [limits]\nbatch_time = '3ms'\npause = '20ms'\n"
            );
            let scenario = Scenario::with_database(server, &database).job("old-logs", &text);
            for _ in 0..2 {
                finish(&scenario, &["run-job", "old-logs", "--yes"]);
                server.sql(&database, expired);
            }
            finish(&scenario, &["run-job", "old-logs", "--yes"]);
            nobody_waited(&clients.stop(), &format!("{method} {archive} on {major}"));
            // What a client held is left for the next run.
            finish(&scenario, &["run-job", "old-logs", "--yes"]);
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE kind = 'old'"), "0");
            match archive {
                "" => {
                    let present = "SELECT id FROM logs UNION ALL SELECT id FROM ever WHERE kind = 'old'";
                    nothing_is_lost(server, &database, present, &BTreeSet::new(), "at the end");
                }
                _ => table_and_archive_are_all(server, &database, &scenario),
            }
        }
    }
}

#[test]
fn clients_on_a_table_whose_partitions_come_and_go_meet_no_error() {
    for major in SOME_MAJORS {
        let server = server(major);
        for default in ["", "CREATE TABLE logs_default PARTITION OF logs DEFAULT;"] {
            let database = server.new_database();
            server.sql(
                &database,
                &format!(
                    "SET TimeZone = 'UTC'; {NOTED} {default}
                     DO $$ DECLARE month timestamptz; BEGIN
                       FOR month IN SELECT make_timestamptz(1990, m, 1, 0, 0, 0) FROM generate_series(1, 12) m LOOP
                         EXECUTE format('CREATE TABLE %I PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',
                           'logs_p' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
                       END LOOP;
                     END $$;
                     INSERT INTO logs (at, kind) SELECT make_timestamptz(1990, 1 + i % 12, 2, 0, 0, 0), 'old' FROM generate_series(1, 6000) i"
                ),
            );
            // Also over all partitions, those that go among them.
            let clients = Pgbench::start(
                server,
                &database,
                4,
                200,
                "INSERT INTO logs (kind) VALUES ('new') RETURNING id \\gset
                 UPDATE logs SET n = n + 1 WHERE id = :id;
                 SELECT count(*) FROM logs WHERE at > now() - interval '1 hour';
                 SELECT count(*) FROM logs;\n",
            );
            let more = "every = \"month\"\npremake = 16\nretain = \"92d\"\narchive = \"local\"\ngrace = \"0s\"";
            let scenario = Scenario::logs(server, &database, more);
            finish(&scenario, &["run-job", "tend"]);
            nobody_waited(&clients.stop(), &format!("{default} on {major}"));
            assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE kind = 'old'"), "0");
            table_and_archive_are_all(server, &database, &scenario);
        }
    }
}

#[test]
fn clients_on_a_table_that_becomes_partitioned_meet_no_error() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, &format!("\\set start 1\n{EVENTS}"));
        server.sql(
            &database,
            "INSERT INTO events (at, kind) SELECT now() - i * interval '1 minute', 'old' FROM generate_series(1, 90000) i",
        );
        let clients = Pgbench::start(
            server,
            &database,
            4,
            200,
            "\\set old random(1, 100000)
             INSERT INTO events (kind) VALUES ('new');
             UPDATE events SET n = n + 1 WHERE id = :old;
             SELECT id, at, kind FROM events WHERE id = :old;
             SELECT count(*) FROM events WHERE at > now() - interval '1 minute';\n",
        );
        let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
        finish(&scenario, &["partition", "convert", "tend"]);
        finish(&scenario, &["run-job", "tend"]);
        nobody_waited(&clients.stop(), &format!("on {major}"));
        converted_or_not(server, &database, "at the end");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM events WHERE kind = 'old'"), "100000");
    }
}
