//! The way back from a compressed table: what an undo waits for, what stands in its way, and other encodings.

use crate::support::postgres::server;
use crate::support::scripts::{BODY, Client, HASHES, TABLE, job, of_5_kb, scenario};
use crate::support::{Scenario, eventually};

#[test]
fn restored_in_another_encoding_it_reads_the_same_and_is_undone_first() {
    let server = server(18);
    let (source, restored) = (format!("latin_{}", server.new_database()), server.empty_database());
    server.sql("postgres", &format!("CREATE DATABASE {source} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"));
    // Its bytes are good UTF-8, too, and another text.
    let text = "INSERT INTO scripts (content) SELECT (SELECT string_agg('Ã¼ber ' || md5((i * 999 + j)::text), '') FROM generate_series(1, 80) j) FROM generate_series(1, 20) i";
    server.sql(&source, &format!("{TABLE} {text}; ANALYZE scripts"));
    let hashes = server.sql(&source, HASHES);
    let of_source = scenario(server, &source, "");
    of_source.run(&["compress", "install", "scripts"]).succeeded();
    of_source.run(&["run-job", "scripts"]).succeeded();
    server.sql(&source, "CREATE MATERIALIZED VIEW sizes AS SELECT id, md5(content) FROM scripts");
    let dump = server.tool("pg_dump", &source).output().unwrap();
    server.sql(&restored, &String::from_utf8_lossy(&dump.stdout));
    assert_eq!(server.sql(&restored, "SELECT getdatabaseencoding()"), "UTF8");
    assert_eq!(server.sql(&restored, HASHES), hashes);
    assert_eq!(server.sql(&restored, "SELECT count(*), count(md5) FROM sizes"), "20|20");

    let scenario = scenario(server, &restored, "");
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["LATIN1", "UTF8", "undo"]);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    assert_eq!(server.sql(&restored, HASHES), hashes, "brought up to date, it decodes as before");
    server.sql(&restored, "UPDATE scripts SET title = 'x'");
    scenario.run(&["compress", "undo", "scripts"]).exited(78).says(&["materialized view public.sizes", "--keep-view"]);
    server.sql(&restored, "DROP MATERIALIZED VIEW sizes");
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&restored, HASHES), hashes);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&restored, HASHES), hashes);
    assert_eq!(server.sql(&restored, "SELECT count(content_gz) FROM scripts_stored"), "20");
}

#[test]
fn bodies_that_become_much_larger_as_text_come_back_too() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TABLE);
    server.sql(&database, "ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; INSERT INTO scripts (content) SELECT repeat(chr(64 + i), 999999) FROM generate_series(1, 8) i; ANALYZE scripts");
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 8, "{report:#}");
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn a_transaction_with_an_old_look_at_the_rows_reads_its_text_and_undo_waits_for_it() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 19);
        let hashes = server.sql(&database, HASHES);
        let scenario = scenario(server, &database, "[limits]\nlock_timeout = '500ms'\nmax_wait = '2s'");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        // It has not touched the table: no lock of its own keeps the view.
        let mut old = Client::of(server, &database);
        old.ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        scenario.run(&["compress", "undo", "scripts"]).exited(75).says(&["server process", "all text of", "run undo again"]);
        assert_eq!(
            server.sql(
                &database,
                "SELECT relkind, (SELECT count(content_gz) FROM scripts_stored) FROM pg_class WHERE relname = 'scripts'"
            ),
            "v|0"
        );
        assert_eq!(old.ask(HASHES), hashes, "on {major}");
        old.ask("COMMIT");
        // The same with one that ends while undo waits, and with those that are no reason to wait.
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let scenario = scenario.job("scripts", &job("[limits]\nlock_timeout = '500ms'\nmax_wait = '60s'"));
        old.ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        let mut idle = Client::of(server, &database);
        idle.ask("BEGIN; SELECT 1");
        let mut writing = Client::of(server, &database);
        writing.ask("CREATE TABLE other (id int); BEGIN; INSERT INTO other VALUES (1)");
        let running = scenario.start(&["compress", "undo", "scripts"]);
        eventually("all is text", || {
            server.sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_plain' AND convalidated") == "1"
        });
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert_eq!(old.ask(HASHES), hashes, "on {major}");
        old.ask("COMMIT");
        running.wait().exited(0);
        assert_eq!(idle.ask(HASHES), hashes);
        assert_eq!(server.sql(&database, HASHES), hashes);
    }
}

#[test]
fn an_undo_that_waits_for_an_old_look_at_the_rows_ends_when_it_is_asked_to() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let mut old = Client::of(server, &database);
    old.ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    let running = scenario.start(&["compress", "undo", "scripts"]);
    eventually("all is text", || {
        server.sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname = 'pgtend_plain' AND convalidated") == "1"
    });
    running.signal(rustix::process::Signal::TERM);
    running.wait().exited(143);
    old.ask("COMMIT");
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
}

#[test]
fn text_that_another_encoding_cannot_hold_is_named_and_holds_up_no_other() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    // Nothing but ASCII in all but one of them.
    server.sql(
        &database,
        &format!("UPDATE scripts SET content = {} || CASE id WHEN 7 THEN '🚀' ELSE '' END", BODY.replace("i *", "id *")),
    );
    let first = scenario(server, &database, "");
    first.run(&["compress", "install", "scripts"]).succeeded();
    first.run(&["run-job", "scripts"]).succeeded();
    let dump = server.tool("pg_dump", &database).output().unwrap();
    let latin = format!("to_latin_{database}");
    server.sql("postgres", &format!("CREATE DATABASE {latin} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"));
    server.sql(&latin, &String::from_utf8(dump.stdout).unwrap());
    let scenario = scenario(server, &latin, "");
    scenario.run(&["compress", "undo", "scripts"]).exited(1).says(&["1 cannot become text", "(id) = (7)", "no equivalent"]);
    assert_eq!(server.sql(&latin, "SELECT count(content), count(content_gz) FROM scripts_stored"), "18|1");
    server.sql(&latin, "UPDATE scripts_stored SET content = 'a rocket' WHERE id = 7");
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&latin, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
}

#[test]
fn what_stands_in_the_way_of_an_undo_is_found_before_a_body_becomes_text() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE scripts (id int PRIMARY KEY, content text NOT NULL, title text);
         INSERT INTO scripts SELECT i, (SELECT string_agg('Get-Item ' || i * j, E'\\n') FROM generate_series(1, 900) j) FROM generate_series(1, 10) i; VACUUM ANALYZE scripts",
    );
    let job = "database = 'app'\n[compress]\ntable = 'scripts'\ncolumn = 'content'\nmethod = 'gzip'\nminimum_gain = 0\n";
    let scenario = Scenario::with_database(server, &database).job("scripts", job);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let refused = |scenario: &Scenario, code: i32, says: &[&str]| {
        scenario.run(&["compress", "undo", "scripts", "--dry-run"]).exited(code).says(says);
        scenario.run(&["compress", "undo", "scripts"]).exited(code).says(says);
        assert_eq!(server.sql(&database, "SELECT count(content_gz) FROM scripts_stored"), "10");
    };
    for (make, says, unmake) in [
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.content_gz IS NULL THEN NEW.title := lower(NEW.title); END IF; RETURN NEW; END';
             CREATE TRIGGER t BEFORE UPDATE ON scripts_stored FOR EACH ROW EXECUTE FUNCTION t()",
            "the function of trigger t, public.t(), names content_gz",
            "DROP TRIGGER t ON scripts_stored; DROP FUNCTION t()",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER t BEFORE UPDATE ON scripts_stored FOR EACH ROW WHEN (NEW.content_gz IS NULL) EXECUTE FUNCTION t()",
            "trigger t on table public.scripts_stored needs content_gz",
            "DROP TRIGGER t ON scripts_stored; DROP FUNCTION t()",
        ),
        (
            "CREATE VIEW packed AS SELECT count(content_sha256) FROM scripts_stored",
            "view public.packed needs content_sha256",
            "DROP VIEW packed",
        ),
    ] {
        server.sql(&database, make);
        refused(&scenario, 78, &[says]);
        server.sql(&database, unmake);
    }
    let writer = format!("writer_{database}");
    server.sql(&database, &format!("CREATE ROLE {writer} LOGIN; GRANT ALL ON scripts, scripts_stored TO {writer}"));
    let as_writer = Scenario::with_url(server, &server.url_as(&writer, &database)).job("scripts", job);
    refused(&as_writer, 77, &["only the owner of"]);
    server.sql(&database, &format!("DROP OWNED BY {writer}; DROP ROLE {writer}"));
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    // What a run refuses, check says first.
    server.sql(&database, "CREATE INDEX by_text ON scripts (md5(content))");
    scenario.run(&["check", "--connect"]).exited(78).prints(&["index by_text is built over the column"]);
}
