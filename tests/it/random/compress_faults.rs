//! No body is lost or changed, whoever writes meanwhile and whenever it is killed.

use std::process::{Child, Stdio};
use std::time::Duration;

use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::support::postgres::{Server, server};
use crate::support::scripts::{HASHES, Scripts, database, job, load, scenario};
use crate::support::{Scenario, eventually, times};

/// What the application wrote, in the same transaction as the write; and an application that writes in every way it can.
const APPLICATION: &str = "
    CREATE TABLE truth AS SELECT id, sha256(convert_to(content, 'UTF8')) AS hash FROM scripts;
    ALTER TABLE truth ADD PRIMARY KEY (id);
    CREATE TABLE stop (now boolean);
    CREATE TABLE turns (what text, done int);
    CREATE PROCEDURE work(seed float8) LANGUAGE plpgsql AS $$
    DECLARE
        this int; body text; kind text; done int := 0; conflicts int := 0; plain text; rows int;
    BEGIN
        PERFORM setseed(seed);
        LOOP
            EXIT WHEN EXISTS (SELECT FROM stop);
            BEGIN
                plain := CASE WHEN to_regclass('scripts_stored') IS NULL THEN 'scripts' ELSE 'scripts_stored' END;
                kind := (ARRAY['insert', 'update', 'update', 'title', 'direct', 'delete', 'append'])[1 + floor(random() * 7)];
                this := (SELECT id FROM truth WHERE id >= floor(random() * (SELECT max(id) FROM truth)) ORDER BY id LIMIT 1);
                body := (SELECT string_agg('Write-Host ' || md5((random() * 100)::int::text), E'\\r\\n') FROM generate_series(1, (random() * 200)::int + 1));
                IF kind = 'insert' THEN
                    INSERT INTO scripts (content) VALUES (body) RETURNING id INTO this;
                    INSERT INTO truth VALUES (this, sha256(convert_to(body, 'UTF8')));
                ELSIF kind = 'delete' THEN
                    DELETE FROM scripts WHERE id = this;
                    IF FOUND THEN DELETE FROM truth WHERE id = this; END IF;
                ELSIF kind = 'title' THEN
                    UPDATE scripts SET title = body WHERE id = this;
                ELSIF kind = 'append' THEN
                    UPDATE scripts SET content = content || '# more' WHERE id = this RETURNING content INTO body;
                    IF FOUND THEN UPDATE truth SET hash = sha256(convert_to(body, 'UTF8')) WHERE id = this; END IF;
                ELSIF kind = 'direct' THEN
                    EXECUTE format('UPDATE %I SET content = $1 WHERE id = $2', plain) USING body, this;
                    GET DIAGNOSTICS rows = ROW_COUNT;
                    IF rows = 1 THEN UPDATE truth SET hash = sha256(convert_to(body, 'UTF8')) WHERE id = this; END IF;
                ELSE
                    UPDATE scripts SET content = body WHERE id = this;
                    IF FOUND THEN UPDATE truth SET hash = sha256(convert_to(body, 'UTF8')) WHERE id = this; END IF;
                END IF;
                done := done + 1;
            EXCEPTION
                WHEN serialization_failure OR deadlock_detected OR undefined_table OR object_not_in_prerequisite_state OR unique_violation THEN conflicts := conflicts + 1;
            END;
            COMMIT;
            PERFORM pg_sleep(0.002);
        END LOOP;
        INSERT INTO turns VALUES ('done', done), ('conflicts', conflicts);
        COMMIT;
    END $$;
";

/// Sessions that write until they are told to stop, or until the test ends.
struct Writers<'a> {
    server: &'a Server,
    database: String,
    sessions: Vec<Child>,
}

impl<'a> Writers<'a> {
    fn start(server: &'a Server, database: &str, count: u32) -> Self {
        let session = |number| {
            let call = format!("CALL work(0.{number})");
            let mut psql = server.tool("psql", database);
            psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", &call]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        Self { server, database: database.to_owned(), sessions: (1..=count).map(session).collect() }
    }

    #[track_caller]
    fn stop(mut self) {
        self.server.sql(&self.database, "INSERT INTO stop VALUES (true)");
        for writer in std::mem::take(&mut self.sessions) {
            let output = writer.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Drop for Writers<'_> {
    /// The server ends a session whose client is gone ([`Server::tool`]).
    fn drop(&mut self) {
        for session in &mut self.sessions {
            let _ = session.kill();
            let _ = session.wait();
        }
    }
}

/// Every body as the application reads it is what it wrote last.
#[track_caller]
fn all_is_true(server: &Server, database: &str) {
    let wrong = server.sql(
        database,
        "SELECT count(*), min(coalesce(s.id, t.id)) FROM scripts s FULL JOIN truth t USING (id)
         WHERE s.id IS NULL OR t.id IS NULL OR sha256(convert_to(s.content, 'UTF8')) IS DISTINCT FROM t.hash",
    );
    assert_eq!(wrong, "0|", "bodies that are not what was written");
}

/// Counts what is committed of bodies that get another form, so that a test knows when a batch is done: `OLD` and `NEW` in `when`.
fn counted(server: &Server, database: &str, table: &str, when: &str) {
    server.sql(
        database,
        &format!(
            "CREATE TABLE changed_forms (at timestamptz DEFAULT now());
             CREATE FUNCTION count_form() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.changed_forms DEFAULT VALUES; RETURN NULL; END';
             CREATE TRIGGER counted AFTER UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION count_form();
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER counted"
        ),
    );
}

/// Starts the job and kills it, each time a random moment after it has committed bodies: never before it did anything. `more` is
/// run before each, so that there is enough to do.
fn killed_at_work(server: &Server, database: &str, scenario: &Scenario, more: &str) {
    let changed = || server.sql(database, "SELECT count(*) FROM changed_forms").parse::<u64>().unwrap();
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for _ in 0..times(20) {
        server.sql(database, more);
        let before = changed();
        let mut running = scenario.start(&["run-job", "scripts"]);
        eventually("bodies are committed", || {
            if !running.is_running() {
                // It came to its end, or the lock of the last one was not free yet.
                running = scenario.start(&["run-job", "scripts"]);
            }
            changed() > before
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        running.kill();
    }
    eventually("the lock of the killed run is free, and the rest is compressed", || {
        scenario.run(&["run-job", "scripts"]).code == Some(0)
    });
}

fn killed_among_writers(major: u32) {
    let server = server(major);
    let database = database(server, 5_000);
    load(server, &database, &[Scripts::new().script(20_000).repeat(1000)]);
    server.sql(&database, APPLICATION);
    let scenario = scenario(server, &database, "smaller_than = '30MB'\n[limits]\nbatch_time = '30ms'\npause = '50ms'").ledger();
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    counted(server, &database, "scripts_stored", "OLD.content_gz IS NULL AND NEW.content_gz IS NOT NULL");
    let writers = Writers::start(server, &database, 3);
    // Writers make enough.
    killed_at_work(server, &database, &scenario, "");
    writers.stop();
    scenario.job("scripts", &job("smaller_than = '30MB'")).run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE pg_column_size(content) > 2000"), "0");
    assert_ne!(server.sql(&database, "SELECT count(content_gz) FROM scripts_stored"), "0");
    let done = server.sql(&database, "SELECT sum(done) FROM turns WHERE what = 'done'").parse::<u32>().unwrap();
    assert!(done > 15 * times(20), "the writers made only {done} changes");
    all_is_true(server, &database);
}

#[test]
fn killed_among_writers_bodies_are_what_was_written_on_18() {
    killed_among_writers(18);
}

#[test]
fn killed_among_writers_bodies_are_what_was_written_on_15() {
    killed_among_writers(15);
}

#[test]
fn killed_among_writers_bodies_that_are_written_anew_are_what_was_written() {
    let server = server(15);
    let database = database(server, 3_000);
    let as_text = "ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; UPDATE scripts SET content = content || ''";
    server.sql(&database, &format!("{as_text}; VACUUM ANALYZE scripts"));
    server.sql(&database, APPLICATION);
    counted(
        server,
        &database,
        "scripts",
        "pg_column_compression(OLD.content) IS NULL AND OLD.content = NEW.content AND OLD.title = NEW.title",
    );
    // What writers write is compressed at once, since the first of the runs.
    let toast = job("compression = 'pglz'\n[limits]\nbatch_time = '20ms'\npause = '200ms'").replace("'gzip'", "'toast'");
    let scenario = Scenario::with_database(server, &database).job("scripts", &toast).ledger();
    let writers = Writers::start(server, &database, 3);
    killed_at_work(server, &database, &scenario, &format!("{as_text} WHERE random() < 0.1"));
    writers.stop();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let done = server.sql(&database, "SELECT sum(done) FROM turns WHERE what = 'done'").parse::<u32>().unwrap();
    assert!(done > 15 * times(20), "the writers made only {done} changes");
    all_is_true(server, &database);
}

#[test]
fn install_and_undo_killed_among_writers_leave_what_the_next_one_finishes() {
    let server = server(18);
    let database = database(server, 600);
    server.sql(&database, APPLICATION);
    let scenario = scenario(server, &database, "[limits]\nbatch_time = '30ms'\nlock_timeout = '500ms'");
    let writers = Writers::start(server, &database, 2);
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for _ in 0..3 {
        for (arguments, longest) in [
            (&["compress", "install", "scripts"][..], 400),
            (&["run-job", "scripts"], 900),
            (&["compress", "undo", "scripts"], 700),
        ] {
            for _ in 0..2 {
                let running = scenario.start(arguments);
                std::thread::sleep(Duration::from_millis(random.random_range(20..longest)));
                running.kill();
            }
            if arguments[1] == "undo" {
                eventually("all is undone", || {
                    scenario.run(arguments).code == Some(0)
                        || server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'") == "r"
                });
            } else {
                eventually("it is done", || scenario.run(arguments).code == Some(0));
            }
        }
    }
    writers.stop();
    all_is_true(server, &database);
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_proc WHERE proname LIKE '%pgtend%'"), "0");
}

#[test]
fn a_server_that_crashes_midway_loses_nothing() {
    let mut server = Server::start(18);
    let database = database(&server, 400);
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(&server, &database, "[limits]\nbatch_time = '20ms'\npause = '30ms'");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    for _ in 0..3 {
        let before = server.sql(&database, "SELECT count(content_gz) FROM scripts_stored");
        let running = scenario.start(&["run-job", "scripts"]);
        eventually("a batch is written", || server.sql(&database, "SELECT count(content_gz) FROM scripts_stored") != before);
        server.crash();
        running.wait().exited_with_one_of(&[1, 69]);
        server.start_again();
        assert_eq!(server.sql(&database, HASHES), hashes);
    }
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn a_killed_run_goes_on_where_it_was_and_comes_back_to_what_is_before() {
    let server = server(18);
    let database = database(server, 400);
    let scenario = scenario(server, &database, "[limits]\nbatch_time = '10ms'\npause = '1500ms'").ledger();
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let running = scenario.start(&["run-job", "scripts"]);
    eventually("a heartbeat has noted the place", || {
        server
            .psql(&database, "SELECT (cursor->'key'->>0)::int > 20 FROM pgtend.runs WHERE task = 'compress'")
            .is_ok_and(|answer| answer == "t")
    });
    running.kill();
    server.sql(&database, "UPDATE scripts SET content = repeat(md5(id::text), 200) WHERE id < 15");
    let scenario = scenario.job("scripts", &job(""));
    eventually("the lock of the killed run is free", || scenario.run(&["run-job", "scripts"]).code == Some(0));
    let shown = scenario.json(&["runs", "scripts", "--outcome", "succeeded"]);
    assert_eq!(shown["runs"][0]["report"]["facts"]["resumed"], true, "{shown:#}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE pg_column_size(content) > 2000"), "0");
    assert_eq!(server.sql(&database, "SELECT cursor FROM pgtend.runs ORDER BY id DESC LIMIT 1"), "");
}

#[test]
fn rows_that_somebody_holds_stay_and_are_counted_and_nobody_waits_for_a_lock_that_is_held() {
    let server = server(18);
    let database = database(server, 20);
    let scenario: Scenario = scenario(server, &database, "[limits]\nlock_timeout = '300ms'\nmax_wait = '1s'");
    let hold = |sql: &str| {
        let mut holder = server.tool("psql", &database).args(["-Xq"]).stdin(Stdio::piped()).spawn().unwrap();
        use std::io::Write as _;
        holder.stdin.as_mut().unwrap().write_all(format!("BEGIN; {sql};\n").as_bytes()).unwrap();
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()";
        eventually("it is held", || server.sql(&database, idle) == "1");
        holder
    };
    let release = |mut holder: std::process::Child| {
        drop(holder.stdin.take());
        holder.wait().unwrap();
    };
    let holder = hold("SELECT count(*) FROM scripts");
    scenario.run(&["compress", "install", "scripts"]).exited(75).says(&["is locked", "nothing was changed"]);
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
    release(holder);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let holder = hold("UPDATE scripts SET title = 'held' WHERE id IN (20, 21)");
    let report = scenario.json(&["run-job", "scripts"]);
    let facts = &report["runs"][0]["report"]["facts"];
    assert_eq!(facts["rows_changed_meanwhile"], 2, "{report:#}");
    release(holder);
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE pg_column_size(content) > 2000"), "0");
}
