//! kill -9 at random moments of each phase of retention and partitions (`make campaigns`: twenty-one), with clients on the same table, on 15,
//! 16 and 18; and servers that crash. No row is lost, none is there twice, and the run after the last kill finishes the work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::support::pgbench::Pgbench;
use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually, times};

/// On each of three versions: 21 for each phase, 6 in `make test`.
fn kills() -> u32 {
    times(7)
}

/// A phase of a job on a table in use.
struct Phase<'a> {
    server: &'a Server,
    database: &'a str,
    scenario: &'a Scenario,
    arguments: &'a [&'a str],
    /// Work for the run that follows.
    prepare: &'a dyn Fn(u32),
    /// No row is lost and none is there twice, with what the store holds.
    check: &'a dyn Fn(&str),
}

impl Phase<'_> {
    /// Runs it once undisturbed, for the time it takes; then kills it at moments of that time, and lets the last run finish.
    fn killed_at_random_moments(&self, clients: Option<Pgbench>) {
        let mut random = seeded();
        (self.prepare)(0);
        let started = Instant::now();
        self.finish();
        let undisturbed = started.elapsed();
        (self.check)("undisturbed");
        let (mut hits, mut turn) = (0, 0);
        while hits < kills() {
            turn += 1;
            assert!(turn <= 4 * kills(), "only {hits} of {turn} kills met a run, which takes {undisturbed:?}");
            (self.prepare)(turn);
            let mut running = self.scenario.start(self.arguments);
            let moment = undisturbed.mul_f64(random.random_range(0.0..1.0));
            std::thread::sleep(moment);
            hits += u32::from(running.is_running());
            running.kill();
            self.let_go();
            (self.check)(&format!("killed after {moment:?} of {undisturbed:?} (kill {hits})"));
        }
        self.finish();
        (self.check)("finished");
        if let Some(clients) = clients {
            let met = clients.stop();
            assert!(met.longest < Duration::from_secs(3), "{met:?}");
        }
    }

    fn finish(&self) {
        finish(self.scenario, self.arguments);
    }

    /// A server process of a killed run ends when it notices; until then it goes on with its statement.
    fn let_go(&self) {
        let sessions =
            format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = '{}'", self.database);
        eventually("the server let go of it", || self.server.sql("postgres", &sessions) == "0");
    }
}

/// By PGTEND_TEST_SEED, or by the clock.
pub fn seeded() -> TestRng {
    let by_clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed: u64 = std::env::var("PGTEND_TEST_SEED").map_or_else(|_| by_clock(), |seed| seed.parse().unwrap());
    // Shown when the test fails.
    println!("PGTEND_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Busy is no failure: a client may hold what it needs.
pub fn finish(scenario: &Scenario, arguments: &[&str]) {
    let started = Instant::now();
    loop {
        let output = scenario.run(arguments);
        // A conversion may have been killed after its last commit.
        if output.code == Some(0) || output.stderr.contains("is already partitioned: there is nothing to convert") {
            return;
        }
        assert!(output.code == Some(75) && started.elapsed() < Duration::from_secs(30), "{output:?}");
    }
}

/// A table beside which each id that was ever inserted is noted, in the same transaction.
pub const NOTED: &str = "
    CREATE TABLE ever (id bigint PRIMARY KEY, kind text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ever VALUES (new.id, new.kind); RETURN new; END $$;
    CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT now(), kind text, n int DEFAULT 0) PARTITION BY RANGE (at);
    CREATE TRIGGER note AFTER INSERT ON logs FOR EACH ROW EXECUTE FUNCTION note();
    CREATE INDEX ON logs (at); CREATE INDEX ON logs (id);
    DO $$ BEGIN EXECUTE format('CREATE TABLE logs_now PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',
       date_trunc('month', now()), date_trunc('month', now() + interval '40 days')); END $$;";

/// Inserts, updates and selects by clients of an application; each updates rows of its own, so that they never deadlock among themselves.
const CLIENTS: &str = "INSERT INTO logs (kind) VALUES ('new') RETURNING id \\gset
    UPDATE logs SET n = n + 1 WHERE id = :id;
    SELECT count(*) FROM logs WHERE at > now() - interval '1 hour';\n";

fn noted(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, NOTED);
    database
}

/// Every id that was noted is in `present` or in `elsewhere`, and in `present` at most once.
#[track_caller]
pub fn nothing_is_lost(server: &Server, database: &str, present: &str, elsewhere: &BTreeSet<i64>, when: &str) {
    let twice = server.sql(database, &format!("SELECT id, count(*) FROM ({present}) p GROUP BY id HAVING count(*) > 1 LIMIT 5"));
    assert_eq!(twice, "", "twice in the database, {when}");
    let missing = server.sql(database, &format!("SELECT id FROM ever EXCEPT SELECT id FROM ({present}) p"));
    let lost: Vec<_> = missing.lines().map(|id| id.parse::<i64>().unwrap()).filter(|id| !elsewhere.contains(id)).collect();
    assert!(lost.is_empty(), "{} rows are lost, {when}: {lost:?}", lost.len());
}

/// `logs`, and what was detached from it and carries our mark.
fn logs_and_detached(server: &Server, database: &str) -> String {
    let detached = "SELECT objoid::regclass FROM pg_description WHERE classoid = 'pg_class'::regclass AND description LIKE '%pgtend-partition: {%'
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = objoid AND NOT inhdetachpending)";
    let detached = server.sql(database, detached);
    let all = ["logs"].into_iter().chain(detached.lines());
    all.map(|table| format!("SELECT id FROM {table}")).collect::<Vec<_>>().join(" UNION ALL ")
}

/// First columns of the rows in the store, by stock tools: also of batches of which only the server knows whether they count.
fn stored_ids(scenario: &Scenario) -> BTreeSet<i64> {
    let mut ids = BTreeSet::new();
    for object in scenario.files("store").into_iter().filter(|file| file.ends_with(".sql.gz")) {
        let text =
            std::process::Command::new("gunzip").arg("-c").arg(scenario.path(&format!("store/{object}"))).output().unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        let rows = text.lines().skip_while(|line| !line.starts_with("COPY")).skip(1).take_while(|line| *line != "\\.");
        ids.extend(rows.map(|row| row.split('\t').next().unwrap().parse::<i64>().unwrap()));
    }
    ids
}

/// At the end: each id once, in the table or in the archive as `archives restore` reads it.
#[track_caller]
pub fn table_and_archive_are_all(server: &Server, database: &str, scenario: &Scenario) {
    server.sql(database, "DROP TABLE IF EXISTS back; CREATE TABLE back (LIKE logs)");
    scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded();
    let all = "SELECT id FROM logs UNION ALL SELECT id FROM back";
    nothing_is_lost(server, database, all, &BTreeSet::new(), "at the end");
    assert!(!scenario.files("store").iter().any(|file| file.ends_with(".pending.json") || file.ends_with(".partial")));
}

/// Three partitions.
fn months_that_are_over(server: &Server, database: &str, turn: u32) {
    let sql = format!(
        "SET TimeZone = 'UTC';
         DO $$ DECLARE month timestamptz; BEGIN
           FOR month IN SELECT make_timestamptz(1990 + {turn}, m, 1, 0, 0, 0) FROM generate_series(1, 3) m LOOP
             EXECUTE format('CREATE TABLE %I (LIKE logs)', 'logs_p' || to_char(month, 'YYYY_MM'));
             EXECUTE format('ALTER TABLE logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
               'logs_p' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
             INSERT INTO logs (at, kind) SELECT month + n * interval '1 minute', 'old' FROM generate_series(1, 100) n;
           END LOOP;
         END $$"
    );
    server.sql(database, &sql);
}

/// Rows of four months that have no partition yet.
fn strays(server: &Server, database: &str, turn: u32) {
    let sql = format!(
        "INSERT INTO logs (at, kind) SELECT make_timestamptz(1990 + {turn}, m, 2, 0, 0, 0) + n * interval '1 minute', 'stray'
         FROM generate_series(1, 4) m, generate_series(1, 200) n"
    );
    server.sql(database, &sql);
}

const UNATTACHED: &str = "SELECT count(*) FROM pg_class WHERE relname LIKE 'logs\\_%' AND relkind = 'r' AND NOT relispartition";

#[test]
fn partitions_made_ahead_are_whole_or_not_there() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = noted(server);
        let scenario = Scenario::logs(server, &database, "every = \"month\"\npremake = 20");
        let clients = Pgbench::start(server, &database, 2, 60, CLIENTS);
        Phase {
            server,
            database: &database,
            scenario: &scenario,
            arguments: &["run-job", "tend"],
            prepare: &|_| {
                let sql = "SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits WHERE inhparent = 'logs'::regclass
                           AND inhrelid <> 'logs_now'::regclass ORDER BY 1 LIMIT 20 \\gexec";
                server.sql(&database, sql);
            },
            check: &|when| {
                nothing_is_lost(server, &database, "SELECT id FROM logs", &BTreeSet::new(), when);
                assert_eq!(server.sql(&database, UNATTACHED), "0", "a table that is no partition is left, {when}");
            },
        }
        .killed_at_random_moments(Some(clients));
        assert_eq!(server.sql(&database, "SELECT count(*) > 18 FROM pg_inherits WHERE inhparent = 'logs'::regclass"), "t");
    }
}

#[test]
fn rows_of_retired_partitions_are_in_the_table_or_in_the_archive() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = noted(server);
        let job = |grace: &str| format!("every = \"month\"\nretain = \"92d\"\narchive = \"local\"\ngrace = \"{grace}\"");
        let scenario = Scenario::logs(server, &database, &job("1s"));
        let clients = Pgbench::start(server, &database, 2, 60, CLIENTS);
        Phase {
            server,
            database: &database,
            scenario: &scenario,
            arguments: &["run-job", "tend"],
            prepare: &|turn| months_that_are_over(server, &database, turn),
            check: &|when| {
                let present = logs_and_detached(server, &database);
                nothing_is_lost(server, &database, &present, &stored_ids(&scenario), when);
            },
        }
        .killed_at_random_moments(Some(clients));
        let scenario = scenario.partitions("public.logs", "at", &job("0s"));
        finish(&scenario, &["run-job", "tend"]);
        assert_eq!(server.sql(&database, UNATTACHED), "0");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE kind = 'old'"), "0");
        table_and_archive_are_all(server, &database, &scenario);
    }
}

#[test]
fn rows_of_the_default_partition_are_moved_once() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = noted(server);
        server.sql(&database, "CREATE TABLE logs_default PARTITION OF logs DEFAULT");
        let scenario = Scenario::logs(server, &database, "every = \"month\"");
        let clients = Pgbench::start(
            server,
            &database,
            2,
            60,
            &format!("{CLIENTS} UPDATE logs SET n = n + 1 WHERE id = (SELECT id FROM logs_default LIMIT 1);\n"),
        );
        Phase {
            server,
            database: &database,
            scenario: &scenario,
            arguments: &["run-job", "tend"],
            prepare: &|turn| strays(server, &database, turn),
            check: &|when| {
                nothing_is_lost(server, &database, "SELECT id FROM logs", &BTreeSet::new(), when);
                assert_eq!(server.sql(&database, UNATTACHED), "0", "a table that is no partition is left, {when}");
                let switched_off = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'O'";
                assert_eq!(server.sql(&database, switched_off), "0", "triggers are off, {when}");
            },
        }
        .killed_at_random_moments(Some(clients));
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ONLY logs_default"), "0");
    }
}

/// An unpartitioned `events`; what is in one that is there goes to `kept`.
pub const EVENTS: &str = "
    BEGIN;
    CREATE TABLE IF NOT EXISTS ever (id bigint, kind text);
    CREATE TABLE IF NOT EXISTS kept (id bigint);
    CREATE TABLE IF NOT EXISTS events (id bigint);
    LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
    INSERT INTO kept SELECT id FROM events;
    DROP TABLE events;
    CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ever VALUES (new.id, new.kind); RETURN new; END $$;
    CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY (START WITH :start) PRIMARY KEY, at timestamptz DEFAULT now(), kind text, n int DEFAULT 0);
    CREATE TRIGGER note AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION note();
    INSERT INTO events (at, kind) SELECT now() - i * interval '1 minute', 'old' FROM generate_series(1, 10000) i;
    COMMIT;";

fn new_events(server: &Server, database: &str, turn: u32) {
    server.sql(database, &format!("\\set start {}0000000\n{EVENTS}", turn + 1));
}

fn is_partitioned(server: &Server, database: &str) -> bool {
    server.sql(database, "SELECT relkind FROM pg_class WHERE oid = 'events'::regclass") == "p"
}

#[track_caller]
pub fn converted_or_not(server: &Server, database: &str, when: &str) {
    let present = "SELECT id FROM events UNION ALL SELECT id FROM kept";
    nothing_is_lost(server, database, present, &BTreeSet::new(), when);
    let (left, expected) = match is_partitioned(server, database) {
        true => ("SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_bound'", "0"),
        false => ("SELECT count(*) FROM pg_class WHERE relkind = 'p'", "0"),
    };
    assert_eq!(server.sql(database, left), expected, "{when}");
    assert_eq!(server.sql(database, "SELECT count(*) FROM pg_trigger WHERE tgname = 'note' AND tgparentid = 0"), "1", "{when}");
}

#[test]
fn a_conversion_loses_no_row_and_is_finished_by_the_next() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let scenario = Scenario::with_database(server, &database).partitions("public.events", "at", "every = \"month\"");
        new_events(server, &database, 0);
        let clients = Pgbench::start(
            server,
            &database,
            2,
            60,
            "INSERT INTO events (kind) VALUES ('new') RETURNING id \\gset
             UPDATE events SET n = n + 1 WHERE id = :id;
             SELECT count(*) FROM events WHERE at > now() - interval '1 hour';\n",
        );
        Phase {
            server,
            database: &database,
            scenario: &scenario,
            arguments: &["partition", "convert", "tend"],
            prepare: &|turn| {
                if is_partitioned(server, &database) {
                    new_events(server, &database, turn);
                }
            },
            check: &|when| converted_or_not(server, &database, when),
        }
        .killed_at_random_moments(Some(clients));
        assert!(is_partitioned(server, &database));
    }
}

/// An unpartitioned `logs`.
pub const PLAIN: &str = "
    CREATE TABLE ever (id bigint PRIMARY KEY, kind text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ever VALUES (new.id, new.kind); RETURN new; END $$;
    CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now(), kind text, n int DEFAULT 0);
    CREATE TRIGGER note AFTER INSERT ON logs FOR EACH ROW EXECUTE FUNCTION note();
    CREATE INDEX ON logs (at);";

#[test]
fn of_rows_that_expire_exactly_those_go() {
    for (major, method) in SOME_MAJORS.into_iter().zip(["blocks", "index", "blocks"]) {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, PLAIN);
        let text = format!(
            "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'at'\nolder_than = '10d'\nmethod = '{method}'\n[limits]\nbatch_time = '3ms'\n"
        );
        let scenario = Scenario::with_database(server, &database).job("old-logs", &text).ledger();
        let clients = Pgbench::start(
            server,
            &database,
            2,
            60,
            &format!("{CLIENTS} UPDATE logs SET n = n + 1 WHERE id = (SELECT id FROM logs WHERE kind = 'old' LIMIT 1);\n"),
        );
        Phase {
            server,
            database: &database,
            scenario: &scenario,
            arguments: &["run-job", "old-logs", "--yes"],
            // Young ones among them, so that each batch has both.
            prepare: &|_| {
                let sql = "INSERT INTO logs (at, kind) SELECT now() - CASE i % 3 WHEN 0 THEN interval '9 days' ELSE interval '11 days' END,
                             CASE i % 3 WHEN 0 THEN 'young' ELSE 'old' END FROM generate_series(1, 15000) i";
                server.sql(&database, sql);
            },
            check: &|when| {
                let present = "SELECT id FROM logs UNION ALL SELECT id FROM ever WHERE kind = 'old' AND id NOT IN (SELECT id FROM logs)";
                nothing_is_lost(server, &database, present, &BTreeSet::new(), when);
                let changed = "SELECT count(*) FROM logs JOIN ever USING (id) WHERE logs.kind <> ever.kind";
                assert_eq!(server.sql(&database, changed), "0", "{when}");
            },
        }
        .killed_at_random_moments(Some(clients));
        // A row that a client held at that moment is left for the next run.
        finish(&scenario, &["run-job", "old-logs", "--yes"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE kind = 'old'"), "0", "on {major}");
    }
}

/// A tree: scripts in partitions, and their versions, with ids of one sequence. Triggers note what was ever inserted, and what was deleted.
const TREE: &str = "
    CREATE SEQUENCE ids;
    CREATE TABLE ever (id bigint PRIMARY KEY, kind text);
    CREATE TABLE gone (id bigint PRIMARY KEY);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ever VALUES (new.id, new.kind); RETURN new; END $$;
    CREATE FUNCTION note_gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.gone VALUES (old.id); RETURN old; END $$;
    CREATE TABLE scripts (id bigint DEFAULT nextval('ids'), at timestamptz NOT NULL DEFAULT now(), kind text, n int DEFAULT 0, PRIMARY KEY (id, at))
        PARTITION BY RANGE (at);
    CREATE TABLE scripts_old PARTITION OF scripts FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
    CREATE TABLE scripts_now PARTITION OF scripts FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
    CREATE TABLE versions (id bigint DEFAULT nextval('ids') PRIMARY KEY, script_id bigint, script_at timestamptz, kind text,
        FOREIGN KEY (script_id, script_at) REFERENCES scripts (id, at) ON DELETE CASCADE);
    CREATE INDEX ON versions (script_id, script_at); CREATE INDEX ON scripts (at);
    CREATE TRIGGER note AFTER INSERT ON scripts FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER note AFTER INSERT ON versions FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER note_gone AFTER DELETE ON scripts FOR EACH ROW EXECUTE FUNCTION note_gone();
    CREATE TRIGGER note_gone AFTER DELETE ON versions FOR EACH ROW EXECUTE FUNCTION note_gone();";

#[test]
fn trees_of_rows_that_expire_are_in_their_tables_or_in_the_archive() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, TREE);
        let text = "database = 'app'\n[retention]\ntable = 'public.scripts'\ncolumn = 'at'\nolder_than = '10d'\narchive = 'local'\n\
                    cascade = ['public.versions']\n[limits]\nbatch_time = '3ms'\n";
        let scenario = Scenario::with_database(server, &database).job("old-scripts", text).ledger();
        let clients = Pgbench::start(
            server,
            &database,
            2,
            60,
            "INSERT INTO scripts (kind) VALUES ('new') RETURNING id \\gset
             INSERT INTO versions (script_id, script_at, kind) SELECT id, at, 'new' FROM scripts WHERE id = :id;
             UPDATE scripts SET n = n + 1 WHERE id = :id;\n",
        );
        const PRESENT: &str = "SELECT id FROM scripts UNION ALL SELECT id FROM versions";
        Phase {
            server,
            database: &database,
            scenario: &scenario,
            arguments: &["run-job", "old-scripts", "--yes"],
            prepare: &|turn| {
                let sql = format!(
                    "WITH script AS (INSERT INTO scripts (at, kind)
                         SELECT '2001-01-01'::timestamptz + make_interval(days => 30 * {turn}, mins => i), 'old' FROM generate_series(1, 2000) i
                         RETURNING id, at)
                     INSERT INTO versions (script_id, script_at, kind) SELECT id, at, 'old' FROM script, generate_series(1, 2)"
                );
                server.sql(&database, &sql);
            },
            check: &|when| {
                nothing_is_lost(server, &database, PRESENT, &stored_ids(&scenario), when);
                let both = format!("SELECT count(*) FROM gone WHERE id IN ({PRESENT})");
                assert_eq!(server.sql(&database, &both), "0", "deleted and there, {when}");
                let neither = format!("SELECT count(*) FROM ever WHERE id NOT IN ({PRESENT}) AND id NOT IN (SELECT id FROM gone)");
                assert_eq!(server.sql(&database, &neither), "0", "gone without a trigger, {when}");
            },
        }
        .killed_at_random_moments(Some(clients));
        finish(&scenario, &["run-job", "old-scripts", "--yes"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE kind = 'old'"), "0", "on {major}");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM versions WHERE kind = 'old'"), "0", "on {major}");
        // Each once: the tables are as if nothing had ever left them.
        server.sql(&database, "DROP TRIGGER note ON scripts; DROP TRIGGER note ON versions");
        scenario.run(&["archives", "restore"]).succeeded();
        nothing_is_lost(server, &database, PRESENT, &BTreeSet::new(), "at the end");
        let more = format!("SELECT count(*) FROM ({PRESENT}) p WHERE id NOT IN (SELECT id FROM ever)");
        assert_eq!(server.sql(&database, &more), "0");
        assert!(!scenario.files("store").iter().any(|file| file.ends_with(".pending.json") || file.ends_with(".partial")));
    }
}

/// The server of a run stops at random moments of it, as if its power went, and comes back.
fn crashed_at_random_moments(
    server: &mut Server,
    scenario: &Scenario,
    arguments: &[&str],
    prepare: &dyn Fn(&Server, u32),
    check: &dyn Fn(&Server, &str),
) {
    let mut random = seeded();
    let finish = || {
        let output = scenario.run(arguments);
        if output.stderr.contains("may have given the number to another after a crash") {
            // What it says is to be done by hand. The rows are in the database: a partition is dropped by a later transaction.
            for file in scenario.files("store") {
                if let Some(batch) = file.strip_suffix(".pending.json") {
                    std::fs::remove_file(scenario.path(&format!("store/{file}"))).unwrap();
                    std::fs::remove_file(scenario.path(&format!("store/{batch}.sql.gz"))).unwrap();
                }
            }
        }
        finish(scenario, arguments);
    };
    prepare(server, 0);
    let started = Instant::now();
    finish();
    let undisturbed = started.elapsed();
    for turn in 1..=2 {
        prepare(server, turn);
        let running = scenario.start(arguments);
        let moment = undisturbed.mul_f64(random.random_range(0.1..1.0));
        std::thread::sleep(moment);
        server.crash();
        running.wait();
        server.start_again();
        check(server, &format!("crashed after {moment:?} of {undisturbed:?}"));
    }
    finish();
    check(server, "finished");
}

#[test]
fn a_server_that_crashes_in_any_phase_of_a_partition_has_every_row_when_it_is_back() {
    // 16 does for retention what these do here: see retention.rs.
    for major in [15, 18] {
        let mut server = Server::start(major);
        let archive = noted(&server);
        let more = "every = \"month\"\nretain = \"92d\"\narchive = \"local\"\ngrace = \"0s\"";
        let scenario = Scenario::logs(&server, &archive, more);
        crashed_at_random_moments(
            &mut server,
            &scenario,
            &["run-job", "tend"],
            &|server, turn| months_that_are_over(server, &archive, turn),
            &|server, when| {
                nothing_is_lost(server, &archive, &logs_and_detached(server, &archive), &stored_ids(&scenario), when);
            },
        );
        assert_eq!(server.sql(&archive, UNATTACHED), "0");
        table_and_archive_are_all(&server, &archive, &scenario);

        let default = noted(&server);
        server.sql(&default, "CREATE TABLE logs_default PARTITION OF logs DEFAULT");
        let scenario = Scenario::logs(&server, &default, "every = \"month\"");
        crashed_at_random_moments(
            &mut server,
            &scenario,
            &["run-job", "tend"],
            &|server, turn| strays(server, &default, turn),
            &|server, when| nothing_is_lost(server, &default, "SELECT id FROM logs", &BTreeSet::new(), when),
        );
        assert_eq!(server.sql(&default, "SELECT count(*) FROM ONLY logs_default"), "0");

        let converted = server.new_database();
        let scenario = Scenario::with_database(&server, &converted).partitions("public.events", "at", "every = \"month\"");
        crashed_at_random_moments(
            &mut server,
            &scenario,
            &["partition", "convert", "tend"],
            &|server, turn| {
                if turn == 0 || is_partitioned(server, &converted) {
                    new_events(server, &converted, turn);
                }
            },
            &|server, when| converted_or_not(server, &converted, when),
        );
        assert!(is_partitioned(&server, &converted));
    }
}
