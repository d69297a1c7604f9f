//! Tables in use that become partitioned: 15, 16 and 18.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use crate::partition::Clients;
use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually};

/// A table as applications have them: with everything that a conversion has to carry over.
pub fn unpartitioned(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);
         CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int, at timestamptz DEFAULT now(), legacy serial,
           user_id int NOT NULL REFERENCES users, n int CHECK (n >= 0), twice int GENERATED ALWAYS AS (n * 2) STORED, body text);
         ALTER TABLE events DROP COLUMN gone;
         CREATE INDEX events_at ON events (at); CREATE INDEX events_lower ON events (lower(body)) WHERE n > 5;
         INSERT INTO events (at, user_id, n, body) SELECT now() - g * interval '1 minute', 1, g % 10, 'old' FROM generate_series(1, 20000) g;
         CREATE TABLE seen (id bigint); CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (new.id); RETURN new; END $$;
         CREATE TRIGGER seen AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION seen();
         CREATE VIEW recent WITH (security_barrier = true) AS SELECT id, at, body FROM events WHERE at > now() - interval '1 hour';
         COMMENT ON TABLE events IS 'of the shop'; ALTER TABLE events ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON events USING (user_id = 1)",
    );
    database
}

#[test]
fn a_table_in_use_becomes_partitioned_and_the_application_notices_nothing() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        server.sql(&database, &format!("DROP ROLE IF EXISTS c_app_{major}; CREATE ROLE c_app_{major}; GRANT SELECT, INSERT ON events TO c_app_{major}; GRANT USAGE ON SEQUENCE events_id_seq TO c_app_{major}"));
        let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
        scenario.tend().exited(78).says(&["partition convert"]);
        scenario.run(&["partition", "convert", "tend", "--dry-run"]).succeeded().prints(&[
            "VALIDATE CONSTRAINT",
            "CREATE UNIQUE INDEX CONCURRENTLY",
            "ATTACH PARTITION",
            "SHARE UPDATE EXCLUSIVE",
            "If a step fails",
            "ON CONFLICT",
        ]);
        assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'events'"), "r");

        let clients = Clients::start(
            server,
            &database,
            &[
                "INSERT INTO events (user_id, n, body) VALUES (1, 7, 'new'); INSERT INTO events (user_id, n, body) SELECT 1, g, 'new' FROM generate_series(1, 9) g",
                "UPDATE events SET n = n + 1 WHERE id = (SELECT id FROM events WHERE body = 'old' ORDER BY random() LIMIT 1)",
                "SELECT 1 / count(*) FROM recent",
                "DELETE FROM events WHERE at < now() - interval '10 years'",
            ],
        );
        scenario.run(&["partition", "convert", "tend"]).succeeded().prints(&["partitioned by at", "run-job tend"]);
        std::thread::sleep(Duration::from_millis(300));
        let (_, longest) = clients.stop();
        assert!(longest < Duration::from_secs(3), "a client took {longest:?}");

        for (what, sql, expected) in [
            ("no row is lost", "SELECT count(*) FROM events WHERE body = 'old'", "20000"),
            (
                "every insert fired its trigger once",
                "SELECT (SELECT count(*) FROM events WHERE body = 'new') = (SELECT count(*) FROM seen)",
                "t",
            ),
            ("numbers go on", "SELECT max(id) - count(*) FROM events", "0"),
            ("the view reads the new table", "SELECT count(*) > 0 FROM recent WHERE body = 'new'", "t"),
            ("the view keeps its options", "SELECT reloptions FROM pg_class WHERE relname = 'recent'", "{security_barrier=true}"),
            (
                "the key has its name",
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'events_pkey'",
                "PRIMARY KEY (id, at)",
            ),
            (
                "indexes have theirs",
                "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'events'::regclass",
                "events_at events_lower events_pkey",
            ),
            ("nothing of ours is left", "SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_bound'", "0"),
            ("comment", "SELECT obj_description('events'::regclass)", "of the shop"),
            ("row security", "SELECT relrowsecurity FROM pg_class WHERE relname = 'events'", "t"),
            (
                "foreign key",
                "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'events'::regclass AND convalidated",
                "1",
            ),
            ("serial", "SELECT pg_get_serial_sequence('events', 'legacy')", "public.events_legacy_seq"),
            ("identity", "SELECT pg_get_serial_sequence('events', 'id')", "public.events_id_seq"),
        ] {
            assert_eq!(server.sql(&database, sql), expected, "{what} on {major}");
        }
        assert_eq!(server.sql(&database, &format!("SELECT has_sequence_privilege('c_app_{major}', 'events_id_seq', 'USAGE'), has_table_privilege('c_app_{major}', 'events', 'INSERT'), has_table_privilege('c_app_{major}', 'events', 'DELETE')")), "t|t|f");
        scenario.tend().succeeded().prints(&["created 2 partitions"]);
        server.sql(&database, "INSERT INTO events (user_id, n, body, at) SELECT 1, 1, 'later', now() + g * interval '30 days' FROM generate_series(0, 3) g");
        scenario.run(&["partition", "convert", "tend"]).exited(78).says(&["is already partitioned: there is nothing to convert"]);
    }
}

#[test]
fn names_of_every_kind_survive_a_conversion() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let (schema, table) = (r#""Sch.é""ma""#, format!("\"T.ä\"\"{}\"", "x".repeat(58)));
        let name = format!("{schema}.{table}");
        server.sql(
            &database,
            &format!(
                r#"CREATE SCHEMA {schema}; CREATE TABLE {name} ("Id" bigserial PRIMARY KEY, "when ""exactly""" timestamp NOT NULL DEFAULT now(), "b'o\dy" text);
                   CREATE INDEX "I'd ""x""" ON {name} ("b'o\dy"); INSERT INTO {name} ("b'o\dy") SELECT 'a' FROM generate_series(1, 100);
                   CREATE VIEW {schema}."V'w" AS SELECT * FROM {name}"#
            ),
        );
        let more = "every = \"month\"\ntimezone = \"Asia/Tokyo\"";
        let scenario = Scenario::with_database(server, &database).partitions(&name, r#"when "exactly""#, more);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        scenario.tend().succeeded();
        server.sql(&database, &format!(r#"INSERT INTO {name} ("b'o\dy") VALUES ('b')"#));
        assert_eq!(server.sql(&database, &format!(r#"SELECT count(*), max("Id") FROM {schema}."V'w""#)), "101|101");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_class WHERE relname = 'I''d \"x\"' AND relkind = 'I'"), "1");
    }
}

#[test]
fn a_conversion_that_is_killed_starts_anew() {
    let server = server(16);
    let database = unpartitioned(server);
    server.sql(&database, "INSERT INTO events (at, user_id, n, body) SELECT now() - g * interval '1 second', 1, g % 10, 'old' FROM generate_series(1, 100000) g");
    let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
    for moment in 0..6_u64 {
        let running = scenario.start(&["partition", "convert", "tend"]);
        std::thread::sleep(Duration::from_millis(60 + moment * 40));
        running.kill();
        eventually("the server let go of it", || {
            server.sql(
                &database,
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = current_database()",
            ) == "0"
        });
        server.sql(&database, "INSERT INTO events (user_id, n, body) VALUES (1, 1, 'between')");
    }
    let last = scenario.run(&["partition", "convert", "tend"]);
    assert!([Some(0), Some(78)].contains(&last.code), "{last:?}");
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'events'"), "p");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM events"), "120006");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
}

#[test]
fn a_conversion_that_cannot_get_its_lock_takes_everything_back() {
    let server = server(15);
    let database = unpartitioned(server);
    let more = "every = \"month\"\nlock_timeout = \"300ms\"\ngive_up_after = \"2s\"";
    let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", more);
    // It waits at the building of the index for this transaction, which then holds its lock through the swap.
    let mut holder = server.tool("psql", &database);
    holder.args(["-Xq", "-c", "BEGIN", "-c", "SELECT count(*) FROM events", "-c", "SELECT pg_sleep(60)"]);
    let mut holder = holder.stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("it is read", || {
        server.sql(&database, "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'AccessShareLock'")
            == "1"
    });
    scenario.run(&["partition", "convert", "tend"]).exited(75).says(&[
        "public.events is locked",
        "AccessShareLock",
        "is as it was",
    ]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_bound'"), "0");
    holder.kill().unwrap();
    holder.wait().unwrap();
    server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()");
    scenario.run(&["partition", "convert", "tend"]).succeeded();
}

#[test]
fn all_that_keeps_a_table_from_being_converted_is_named_at_once() {
    let server = server(18);
    let database = unpartitioned(server);
    server.sql(
        &database,
        "CREATE TABLE notes (event bigint CONSTRAINT \"of event\" REFERENCES events); CREATE UNIQUE INDEX once ON events (legacy);
         CREATE MATERIALIZED VIEW daily AS SELECT count(*) FROM events; CREATE PUBLICATION everything FOR TABLE events;
         CREATE FUNCTION body_of(events) RETURNS text LANGUAGE sql AS 'SELECT $1.body'; UPDATE events SET at = NULL WHERE id = 7;
         ALTER TABLE events ADD CONSTRAINT late CHECK (n < 100) NOT VALID, ADD CONSTRAINT \"for itself\" CHECK (n < 200) NO INHERIT;
         CREATE TRIGGER bulk AFTER UPDATE ON events REFERENCING NEW TABLE AS new FOR EACH ROW EXECUTE FUNCTION seen();
         CREATE VIEW grouped AS SELECT id, body FROM events GROUP BY id",
    );
    let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
    scenario.run(&["partition", "convert", "tend"]).exited(78).says(&[
        "public.notes (\"of event\")",
        "public.once does not contain at",
        "materialized view public.daily",
        "publication everything",
        "function public.body_of",
        "have no \"at\"",
        "becomes NOT NULL",
        "CHECK late is NOT VALID",
        "CHECK \"for itself\" is NO INHERIT",
        "row trigger bulk has transition tables",
        "view public.grouped is grouped by its primary key",
    ]);
}

#[test]
fn what_like_does_not_copy_is_kept_by_a_conversion() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE events (id bigint, at timestamptz, n int, m int, body text, PRIMARY KEY (id) INCLUDE (body) DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO events SELECT g, now(), g, g, 'b' FROM generate_series(1, 100) g;
             ALTER TABLE events ALTER n SET STATISTICS 777, ALTER m SET (n_distinct = -0.5);
             CREATE STATISTICS \"of n\" (dependencies) ON n, m FROM events; ALTER STATISTICS \"of n\" SET STATISTICS 55; COMMENT ON STATISTICS \"of n\" IS 'known';
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
             CREATE TRIGGER note BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION note(); COMMENT ON TRIGGER note ON events IS 'keeps notes';
             COMMENT ON CONSTRAINT events_pkey ON events IS 'by number'; COMMENT ON INDEX events_pkey IS 'small';
             ALTER TABLE events ADD other bigint GENERATED BY DEFAULT AS IDENTITY; COMMENT ON SEQUENCE events_other_seq IS 'numbers'; COMMENT ON COLUMN events.n IS 'a number';
             ALTER TABLE events ADD CONSTRAINT \"few m\" CHECK (m < 1000), ADD CONSTRAINT \"both 'n'\" UNIQUE (at, n) DEFERRABLE INITIALLY DEFERRED;
             COMMENT ON CONSTRAINT \"few m\" ON events IS 'm''s'; COMMENT ON CONSTRAINT \"both 'n'\" ON events IS 'once';
             CREATE INDEX \"by Sum\" ON events (n, (n + m), (n * m)); ALTER INDEX \"by Sum\" ALTER COLUMN 2 SET STATISTICS 333; ALTER INDEX \"by Sum\" ALTER COLUMN 3 SET STATISTICS 444;
             CREATE SCHEMA elsewhere; CREATE STATISTICS elsewhere.sums ON (n + m), at FROM events",
        );
        let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
        scenario.run(&["partition", "convert", "tend", "--dry-run"]).succeeded().prints(&["becomes NOT NULL"]);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        for (what, sql, expected) in [
            (
                "the key",
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype = 'p'",
                "PRIMARY KEY (id, at) INCLUDE (body) DEFERRABLE INITIALLY DEFERRED",
            ),
            ("targets", "SELECT attstattarget FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'n'", "777"),
            (
                "options of columns",
                "SELECT attoptions FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'm'",
                "{n_distinct=-0.5}",
            ),
            (
                "extended statistics",
                "SELECT stxrelid::regclass, stxstattarget, obj_description(oid, 'pg_statistic_ext') FROM pg_statistic_ext WHERE stxname = 'of n'",
                "events|55|known",
            ),
            (
                "comments of triggers",
                "SELECT obj_description(oid, 'pg_trigger') FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgname = 'note'",
                "keeps notes",
            ),
            ("comment of the sequence", "SELECT obj_description('events_other_seq'::regclass, 'pg_class')", "numbers"),
            ("comment of the key's index", "SELECT obj_description('events_pkey'::regclass, 'pg_class')", "small"),
            (
                "comments of constraints",
                "SELECT string_agg(conname || ': ' || obj_description(oid, 'pg_constraint'), ', ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 'events'::regclass",
                "both 'n': once, events_pkey: by number, few m: m's",
            ),
            (
                "comments of columns",
                "SELECT col_description('events'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'n'",
                "a number",
            ),
            (
                "targets of expressions in indexes",
                "SELECT string_agg(attstattarget::text, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '\"by Sum\"'::regclass AND attstattarget > 0",
                "333 444",
            ),
            (
                "statistics in another schema",
                "SELECT stxnamespace::regnamespace, stxrelid::regclass FROM pg_statistic_ext WHERE stxname = 'sums'",
                "elsewhere|events",
            ),
        ] {
            assert_eq!(server.sql(&database, sql), expected, "{what} on {major}");
        }
        server.sql(
            &database,
            "BEGIN; INSERT INTO events SELECT * FROM events WHERE id = 1; DELETE FROM events WHERE id = 1; COMMIT",
        );
    }
}

#[test]
fn a_row_far_ahead_is_named_and_nothing_is_converted() {
    let server = server(18);
    let database = unpartitioned(server);
    server.sql(&database, "INSERT INTO events (at, user_id, n) VALUES ('2327-05-05', 1, 1)");
    let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
    scenario.run(&["partition", "convert", "tend"]).exited(78).says(&["2327-05-05", "more than 10 periods ahead"]);
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'events'"), "r");
}

#[test]
fn a_conversion_has_its_row_in_the_ledger_however_it_ends() {
    let server = server(18);
    let database = unpartitioned(server);
    let more = "every = \"month\"\nlock_timeout = \"300ms\"\ngive_up_after = \"1s\"";
    let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", more).ledger();
    scenario.run(&["partition", "convert", "tend", "--dry-run"]).succeeded();
    assert!(scenario.runs(&[]).is_empty(), "a dry run leaves none");
    scenario.tend().exited(78);

    // A job of that name is running: its lock is taken.
    let mut holder = server.tool("psql", &database);
    let mut holder = holder.args(["-Xq"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut tell = |sql: &str| holder.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
    tell("SELECT pg_advisory_lock(hashtextextended('pgtend job app/tend', 0));\n");
    eventually("the lock is taken", || server.sql(&database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") != "0");
    scenario.run(&["partition", "convert", "tend"]).exited(75).says(&["already running"]);
    tell("SELECT pg_advisory_unlock_all(); BEGIN; LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE;\n");
    let is_locked = "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'ShareUpdateExclusiveLock'";
    eventually("the table is locked", || server.sql(&database, is_locked) == "1");
    scenario.run(&["partition", "convert", "tend"]).exited(75).says(&["public.events is locked", "is as it was"]);
    // Cancelled where it waits for the end of a transaction that is older than its index.
    tell("COMMIT; BEGIN; INSERT INTO events (user_id, n, body) VALUES (1, 1, 'open');\n");
    eventually("the row is there", || server.sql(&database, is_locked) == "0");
    let running = scenario.start(&["partition", "convert", "tend"]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits", || server.sql(&database, waits) == "1");
    running.signal(rustix::process::Signal::TERM);
    running.wait().exited(143).says(&["is as it was"]);
    tell("COMMIT;\n");
    holder.stdin.take();
    holder.wait().unwrap();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_bound'"), "0");

    let shown = scenario.json(&["partition", "convert", "tend"]);
    assert_eq!(shown["runs"][0]["report"]["facts"]["table"], "public.events", "{shown:#}");
    let runs = scenario.runs(&[]);
    let told: Vec<_> =
        runs.iter().map(|run| [&run["task"], &run["trigger"], &run["outcome"]].map(|value| value.as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ["partition", "manual", "failed"],
            ["partition convert", "manual", "skipped"],
            ["partition convert", "manual", "skipped"],
            ["partition convert", "manual", "cancelled"],
            ["partition convert", "manual", "succeeded"],
        ]
    );
    let last_success = || scenario.json(&["jobs"])["jobs"][0]["last"][0]["last_success_at"].clone();
    assert_eq!(last_success(), serde_json::Value::Null, "the job itself never succeeded");
    scenario.tend().succeeded();
    assert!(last_success().is_string());
}

#[test]
fn a_conversion_is_taken_back_while_no_second_partition_has_rows() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
        scenario.run(&["partition", "convert", "tend", "--undo"]).exited(78).says(&["is not partitioned"]);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        scenario.tend().succeeded();
        scenario
            .run(&["partition", "convert", "tend", "--undo", "--dry-run"])
            .succeeded()
            .prints(&["DETACH PARTITION", "DROP TABLE"]);
        server.sql(&database, "INSERT INTO events (user_id, n, body, at) VALUES (1, 1, 'later', now() + interval '65 days')");
        scenario.run(&["partition", "convert", "tend", "--undo"]).exited(78).says(&["has rows, which would be lost"]);
        server.sql(&database, "DELETE FROM events WHERE body = 'later'");

        let clients = Clients::start(
            server,
            &database,
            &["INSERT INTO events (user_id, n, body) VALUES (1, 7, 'new')", "SELECT 1 / count(*) FROM recent"],
        );
        scenario.run(&["partition", "convert", "tend", "--undo"]).succeeded().prints(&["is one table again"]);
        clients.stop();
        for (what, sql, expected) in [
            ("a plain table", "SELECT relkind, relispartition FROM pg_class WHERE oid = 'events'::regclass", "r|f"),
            ("no row is lost", "SELECT count(*) FROM events WHERE body = 'old'", "20000"),
            (
                "every insert fired its trigger once",
                "SELECT (SELECT count(*) FROM events WHERE body = 'new') + 1 = (SELECT count(*) FROM seen)",
                "t",
            ),
            (
                "indexes have their names",
                "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'events'::regclass",
                "events_at events_lower events_pkey",
            ),
            ("serial", "SELECT pg_get_serial_sequence('events', 'legacy')", "public.events_legacy_seq"),
            ("identity", "SELECT pg_get_serial_sequence('events', 'id')", "public.events_id_seq"),
            (
                "no partition is left",
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'events\\_p%' AND relkind IN ('r', 'p')",
                "0",
            ),
            ("foreign key", "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'events'::regclass", "1"),
            ("row security", "SELECT relrowsecurity FROM pg_class WHERE relname = 'events'", "t"),
        ] {
            assert_eq!(server.sql(&database, sql), expected, "{what} on {major}");
        }
        scenario.run(&["partition", "convert", "tend"]).succeeded();
    }
}

#[test]
fn a_conversion_waits_with_its_long_steps_while_the_server_is_under_strain() {
    // Of its own: sessions of other tests are at work, too.
    let server = Server::start(18);
    let database = unpartitioned(&server);
    let limits = "[limits]\nmax_active_sessions = 0\nmax_wait = \"1s\"";
    let scenario =
        Scenario::with_database(&server, &database).partitions("public.events", "at", &format!("every = \"month\"\n{limits}"));
    let mut at_work =
        server.tool("psql", &database).args(["-Xqc", "SELECT pg_sleep(600)"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("a session is at work", || server.sleeps(&database));
    let said = scenario.run(&["partition", "convert", "tend"]).exited(75);
    said.says(&[
        "stopped for now: waited",
        "max_active_sessions",
        "VALIDATE CONSTRAINT",
        "public.events was not converted, and is as it was",
    ]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_bound'"), "0");
    at_work.kill().unwrap();
    at_work.wait().unwrap();
    server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()");
    eventually("it is gone", || !server.sleeps(&database));
    let ran = scenario.json(&["partition", "convert", "tend"]);
    assert!(ran.to_string().contains("\"waits\""), "{ran:#}");
}
