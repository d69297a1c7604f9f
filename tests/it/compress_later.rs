//! What happens to a compressed table after its installation, by others.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::postgres::server;
use crate::support::scripts::{Client, HASHES, TABLE, job, of_5_kb, scenario};
use crate::support::{Scenario, eventually};

#[test]
fn a_view_that_was_dropped_by_accident_is_made_anew_with_all_its_bodies() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 19);
        server.sql(&database, "GRANT SELECT, INSERT ON scripts TO PUBLIC");
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let hashes = server.sql(&database, HASHES);
        let privileges = "SELECT relacl FROM pg_class WHERE relname = 'scripts'";
        let before = server.sql(&database, privileges);
        server.sql(&database, "DROP VIEW scripts");
        for command in [&["run-job", "scripts"][..], &["compress", "undo", "scripts"]] {
            scenario.run(command).exited(78).says(&["was dropped", "compress install scripts"]);
        }
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        assert_eq!(server.sql(&database, privileges), before);
        assert_eq!(
            server.sql(&database, "UPDATE scripts SET title = 'x' WHERE id = 11 RETURNING length(content) > 3000, title"),
            "t|x"
        );
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
    }
}

#[test]
fn a_table_named_without_its_schema_goes_there_and_back_and_no_audit_minds_its_hashes() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = Scenario::with_database(server, &database).job("scripts", &job("").replace("public.scripts", "scripts"));
    let hashes = server.sql(&database, HASHES);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_ne!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE content_gz IS NOT NULL"), "0");
    let audit = scenario.run(&["audit", "--database", "app", "--check", "lookup-unindexed"]);
    assert!(!audit.stdout.contains("content_sha256"), "{}", audit.stdout);
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
    assert_eq!(server.sql(&database, HASHES), hashes);
}

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
fn a_write_through_the_view_touches_its_own_row_only_even_when_the_key_is_gone() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    server.sql(&database, "ALTER TABLE scripts_stored DROP CONSTRAINT scripts_pkey; INSERT INTO scripts_stored (id, title, content) VALUES (15, 'other', 'kept')");
    // Of two rows with one key, a trigger finds either: the write is that row's, or an error.
    let written = ["untitled", "other"].map(|title| {
        server.psql(&database, &format!("UPDATE scripts SET content = 'of {title}' WHERE id = 15 AND title = '{title}'")).is_ok()
    });
    assert_eq!(written.iter().filter(|written| **written).count(), 1);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE id = 15 AND content = 'of ' || title"), "1");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE content LIKE 'of %'"), "1");
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["no primary key"]);
}

#[test]
fn later_row_security_and_a_begun_undo_stop_the_run_until_the_next_install() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let reader = format!("later_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {reader}; GRANT SELECT ON scripts_stored, scripts TO {reader};
             ALTER TABLE scripts_stored ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON scripts_stored USING (id % 2 = 0)"
        ),
    );
    for change in ["SELECT 1", "ALTER TABLE scripts_stored ADD CONSTRAINT pgtend_plain CHECK (content_gz IS NULL) NOT VALID"] {
        server.sql(&database, change);
        scenario.run(&["run-job", "scripts"]).exited(78).says(&["compress install scripts"]);
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let seen = server.sql(&database, &format!("SET ROLE {reader}; SELECT count(*), min(id) FROM scripts"));
        assert_eq!(seen, "9|2");
    }
    // Privileges that readers of the view were given meanwhile stay theirs.
    server.sql(&database, &format!("GRANT DELETE ON scripts TO {reader}"));
    // What was taken from them comes back with the table, and is said: by its right to read the table behind, nobody knows why.
    server.sql(&database, &format!("REVOKE SELECT ON scripts FROM {reader}"));
    let told = format!("REVOKE SELECT ON TABLE \"public\".\"scripts\" FROM {reader}");
    scenario.run(&["compress", "undo", "scripts", "--dry-run"]).succeeded().prints(&[&told]);
    scenario.run(&["compress", "undo", "scripts"]).succeeded().says(&[&told]);
    assert_eq!(server.sql(&database, &format!("SELECT has_table_privilege('{reader}', 'scripts', 'DELETE')")), "t");
}

#[test]
fn a_view_of_somebody_over_the_table_behind_is_not_taken_for_ours() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    server.sql(&database, "CREATE VIEW mine AS SELECT id, content FROM scripts_stored");
    let other = Scenario::with_database(server, &database).job("mine", &job("").replace("public.scripts", "public.mine"));
    for command in [&["run-job", "mine"][..], &["compress", "undo", "mine"], &["compress", "install", "mine"]] {
        other.run(command).exited(78).says(&["not one that"]);
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM mine"), "19");
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
fn a_view_that_is_changed_while_install_waits_for_its_lock_keeps_its_new_definition() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    server.sql(&database, "CREATE VIEW titles AS SELECT id, title FROM scripts");
    let scenario = scenario(server, &database, "[limits]\nlock_timeout = '300ms'\nmax_wait = '60s'");
    let mut holder = server.tool("psql", &database).args(["-Xq"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    input.write_all(b"BEGIN; SELECT count(*) FROM scripts;\n").unwrap();
    let sessions = |state: &str| {
        server.sql(&database, &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {state}"))
    };
    eventually("it is held", || sessions("state = 'idle in transaction'") == "1");
    let running = scenario.start(&["compress", "install", "scripts"]);
    eventually("install waits", || sessions("wait_event_type = 'Lock'") == "1");
    server.sql(&database, "CREATE OR REPLACE VIEW titles AS SELECT id, upper(title) AS title FROM scripts");
    input.write_all(b"COMMIT;\n").unwrap();
    drop(input);
    holder.wait().unwrap();
    running.wait().exited(1).says(&["changed or dropped meanwhile"]);
    assert_eq!(server.sql(&database, "SELECT DISTINCT title FROM titles"), "UNTITLED");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT DISTINCT title FROM titles"), "UNTITLED");
}

/// A body that gzip makes smaller than pglz does, whose text depends on `i`.
const BODY: &str = "(SELECT string_agg('Get-ChildItem ' || md5((i * 999 + j)::text), E'\n') FROM generate_series(1, 100) j)";

#[test]
fn new_bodies_are_compressed_although_those_that_are_left_speak_against_it() {
    let server = server(18);
    let database = of_5_kb(server, 5);
    // Any of 127 characters: hardly smaller by gzip, and not at all by pglz. They are in the sample of every run.
    server.sql(
        &database,
        "INSERT INTO scripts (content) SELECT (SELECT string_agg(chr(1 + floor(random() * 127)::int), '') FROM generate_series(1, 2050) j WHERE i > 0)
         FROM generate_series(1, 400) i; ANALYZE scripts",
    );
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    let report = scenario.json(&["run-job", "scripts"]);
    let facts = |report: &serde_json::Value, name: &str| report["runs"][0]["report"]["facts"][name].as_u64();
    assert_eq!(facts(&report, "rows_compressed"), Some(5), "{report:#}");
    server.sql(&database, &format!("INSERT INTO scripts (content) SELECT {BODY} FROM generate_series(1, 3) i"));
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(facts(&report, "rows_compressed"), Some(3), "{report:#}");
    server.sql(&database, "DELETE FROM scripts WHERE id > 405");
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn bodies_where_no_sample_looks_are_compressed_all_the_same() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    // A row to a block, and three times as many blocks as are looked at.
    server.sql(
        &database,
        "ALTER TABLE scripts ADD padding text; ALTER TABLE scripts ALTER padding SET STORAGE PLAIN;
         INSERT INTO scripts (content, padding) SELECT 'x', repeat('x', 7000) FROM generate_series(1, 12000); ANALYZE scripts",
    );
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    for id in [3_000, 6_000, 9_000] {
        server.sql(&database, &format!("UPDATE scripts SET content = {} WHERE id = {id}", BODY.replace("i *", "id *")));
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 1, "{report:#}");
        let said = scenario.run(&["run-job", "scripts", "--dry-run"]).succeeded().stdout;
        assert!(!said.contains("no value has that size"), "it was not looked at wholly: {said}");
    }
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE pg_column_size(content) > 2000"), "0");
}

#[test]
fn a_toast_run_that_was_stopped_goes_on_with_what_little_is_left() {
    let server = server(15);
    let database = of_5_kb(server, 200);
    server.sql(
        &database,
        "ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; UPDATE scripts SET content = content || ''; VACUUM ANALYZE scripts",
    );
    let hashes = server.sql(&database, HASHES);
    let job = job("compression = 'pglz'").replace("'gzip'", "'toast'") + "[limits]\nbatch_time = '10ms'\npause = '60s'\n";
    let scenario = Scenario::with_database(server, &database).ledger().job("scripts", &job);
    let of_pglz = |database: &str| {
        server
            .sql(database, "SELECT count(*) FILTER (WHERE pg_column_compression(content) = 'pglz') FROM scripts")
            .parse::<u32>()
            .unwrap()
    };
    let running = scenario.start(&["run-job", "scripts"]);
    eventually("a batch is written", || of_pglz(&database) > 0);
    running.kill();
    assert!(of_pglz(&database) < 190);
    // All but three are done, by others: on average nothing is to be won.
    server.sql(&database, "UPDATE scripts SET content = content || '' WHERE id < 198; VACUUM ANALYZE scripts");
    assert_eq!(of_pglz(&database), 197);
    // Not even a place is known where the last one was.
    let scenario = Scenario::with_database(server, &database).job("scripts", &job.replace("pause = '60s'", ""));
    eventually("the lock of the killed run is free", || scenario.run(&["run-job", "scripts"]).code == Some(0));
    assert_eq!(of_pglz(&database), 200);
    assert_eq!(server.sql(&database, HASHES), hashes);
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 0, "{report:#}");
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
fn a_trigger_that_came_later_and_asks_for_the_text_stops_the_run_until_somebody_has_looked() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    let hashed = "CREATE TRIGGER hashed BEFORE UPDATE ON scripts_stored FOR EACH ROW EXECUTE FUNCTION hashed()";
    // One that was there is looked at when it is installed, and is no news afterwards.
    server.sql(
        &database,
        &format!(
            "ALTER TABLE scripts ADD hash text;
             CREATE FUNCTION hashed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.hash := coalesce(md5(NEW.content), NEW.hash); RETURN NEW; END';
             {}",
            hashed.replace("scripts_stored", "scripts")
        ),
    );
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&["trigger hashed uses the column", "--force"]);
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts", "--dry-run"]).succeeded().prints(&["accepted when it was installed: trigger hashed"]);
    // A function that a view does not take is told of, and the run goes on.
    server.sql(
        &database,
        &format!("INSERT INTO scripts (content) SELECT {BODY} FROM generate_series(1, 1) i;
         CREATE FUNCTION save() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO scripts (id) VALUES (1) ON CONFLICT DO NOTHING; END'"),
    );
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 1, "{report:#}");
    assert!(report["runs"][0]["report"]["warnings"].to_string().contains("function public.save() names it"), "{report:#}");
    // A trigger may do harm, with each body that is compressed.
    server.sql(
        &database,
        &format!(
            "INSERT INTO scripts (content) SELECT {BODY} FROM generate_series(1, 1) i;
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM to_jsonb(NEW); RETURN NULL; END';
         CREATE TRIGGER log AFTER UPDATE ON scripts_stored FOR EACH ROW EXECUTE FUNCTION log()"
        ),
    );
    scenario
        .run(&["run-job", "scripts", "--dry-run"])
        .exited(78)
        .prints(&["look at this (install --force accepts it): trigger log"]);
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["trigger log uses whole rows", "install scripts --force"]);
    assert_eq!(server.sql(&database, "SELECT count(content) FROM scripts_stored"), "1");
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&["trigger log", "--force"]);
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 1, "{report:#}");
    assert_eq!(report["runs"][0]["report"]["warnings"].to_string().matches("names it").count(), 0, "{report:#}");
}

#[test]
fn what_somebody_changes_while_install_waits_for_its_lock_is_not_passed_over() {
    let server = server(18);
    let template = of_5_kb(server, 19);
    server.sql(&template, "CREATE VIEW titles AS SELECT id, title FROM scripts");
    for (number, change) in [
        "ALTER TABLE scripts ADD author text",
        "ALTER TABLE scripts ALTER title SET DEFAULT 'none'",
        "GRANT SELECT ON scripts TO PUBLIC",
        "GRANT SELECT (id) ON scripts TO PUBLIC",
        "REVOKE TRUNCATE ON scripts FROM CURRENT_USER",
        "ALTER VIEW titles OWNER TO pg_monitor",
        "ALTER TABLE scripts ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY all_of_them ON scripts USING (true)",
        "CREATE INDEX by_text ON scripts (md5(content))",
        "ALTER TABLE scripts ADD CHECK (content <> 'x')",
        "CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE PUBLICATION p FOR TABLE scripts",
        "CREATE MATERIALIZED VIEW sizes AS SELECT id, length(content) FROM scripts",
        "CREATE VIEW more AS SELECT content FROM scripts",
        "GRANT SELECT ON titles TO PUBLIC",
        "COMMENT ON COLUMN scripts.title IS 'new'",
        "ALTER TABLE scripts RENAME TO older; CREATE TABLE scripts (LIKE older INCLUDING ALL)",
    ]
    .into_iter()
    .enumerate()
    {
        let database = format!("{template}_meanwhile_{number}");
        server.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE {template}"));
        let scenario = scenario(server, &database, "[limits]\nlock_timeout = '300ms'\nmax_wait = '60s'");
        let mut other = Client::of(server, &database);
        other.ask("BEGIN; SELECT count(*) FROM scripts");
        let running = scenario.start(&["compress", "install", "scripts"]);
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        eventually("install waits", || server.sql(&database, waiting) == "1");
        other.ask(change);
        assert_eq!(other.state(), "00000", "{change}");
        other.ask("COMMIT");
        running.wait().exited(1).says(&["changed or dropped meanwhile"]);
        let left = "SELECT count(*) FROM pg_class WHERE relname = 'scripts_stored' OR relname = 'scripts' AND relkind = 'v'";
        assert_eq!(server.sql(&database, left), "0", "{change}");
    }
}

#[test]
fn a_mark_that_was_lost_with_the_comments_of_a_dump_is_made_anew_by_hand() {
    let server = server(18);
    for not_null in [true, false] {
        let database = of_5_kb(server, 19);
        if !not_null {
            server.sql(&database, "ALTER TABLE scripts ALTER content DROP NOT NULL");
        }
        let first = scenario(server, &database, "");
        let hashes = server.sql(&database, HASHES);
        first.run(&["compress", "install", "scripts"]).succeeded();
        first.run(&["run-job", "scripts"]).succeeded();
        let dump = server.tool("pg_dump", &database).arg("--no-comments").output().unwrap();
        let restored = server.empty_database();
        server.sql(&restored, &String::from_utf8(dump.stdout).unwrap());
        let scenario = scenario(server, &restored, "");
        let said = scenario.run(&["run-job", "scripts"]).exited(78).says(&["has lost its comment"]).stderr;
        let comment = &said[said.find("COMMENT ON CONSTRAINT").unwrap()..];
        let comment = &comment[..comment.rfind('\'').unwrap() + 1];
        server.sql(&restored, comment);
        scenario.run(&["run-job", "scripts"]).succeeded();
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&restored, HASHES), hashes);
        let is_not_null = "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'scripts'::regclass AND attname = 'content'";
        assert_eq!(server.sql(&restored, is_not_null), if not_null { "t" } else { "f" });
    }
}

#[test]
fn guards_that_somebody_dropped_stop_the_run_until_it_is_installed_again() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    for drop in [
        "DROP TRIGGER zz_pgtend_unseen_text ON scripts_stored",
        "ALTER TABLE scripts_stored DISABLE TRIGGER zz_pgtend_one_form",
        "DROP TRIGGER pgtend_write ON scripts",
    ] {
        server.sql(&database, drop);
        scenario.run(&["run-job", "scripts"]).exited(78).says(&["compress install scripts"]);
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
    }
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
fn a_column_that_is_renamed_on_the_table_and_on_the_view_is_one_after_the_next_install() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    let hashes = server.sql(&database, HASHES);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    server.sql(&database, "ALTER TABLE scripts_stored RENAME COLUMN title TO name");
    assert!(server.psql(&database, "UPDATE scripts SET title = 'x'").is_err());
    scenario.run(&["compress", "install", "scripts"]).exited(1).says(&["cannot change name of view column"]);
    server.sql(&database, "ALTER VIEW scripts RENAME COLUMN title TO name");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    assert_eq!(
        server.sql(&database, "UPDATE scripts SET name = 'x' WHERE id = 15 RETURNING name, octet_length(content)"),
        "x|5000"
    );
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}

/// To the application a body that is compressed is the same row: no time of a change moves, no audit gets an entry.
#[test]
fn triggers_do_not_fire_for_what_is_compressed_where_the_role_may_silence_them() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE scripts (id int PRIMARY KEY, content text NOT NULL, updated_at timestamptz NOT NULL DEFAULT '2001-01-01');
             INSERT INTO scripts SELECT i, (SELECT string_agg('Get-Item ' || i * j, E'\\n') FROM generate_series(1, 900) j) FROM generate_series(1, 10) i;
             CREATE TABLE log (at timestamptz);
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
             CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (now()); RETURN NULL; END';
             CREATE TRIGGER touch BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION touch();
             CREATE TRIGGER log AFTER UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION log(); VACUUM ANALYZE scripts",
        );
        let job = "database = 'app'\n[compress]\ntable = 'scripts'\ncolumn = 'content'\nmethod = 'gzip'\n";
        let owner = format!("owner_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner} LOGIN; ALTER TABLE scripts OWNER TO {owner}; ALTER TABLE log OWNER TO {owner};
                 ALTER FUNCTION log() OWNER TO {owner}; GRANT CREATE ON SCHEMA public TO {owner}"
            ),
        );
        let as_owner = Scenario::with_url(server, &server.url_as(&owner, &database)).job("scripts", job);
        let as_superuser = Scenario::with_database(server, &database).job("scripts", job);
        let met = || {
            server.sql(
                &database,
                "SELECT count(*) FILTER (WHERE updated_at > '2001-01-01'), (SELECT count(*) FROM log) FROM scripts",
            )
        };
        as_owner.run(&["compress", "install", "scripts"]).succeeded();
        as_superuser
            .run(&["run-job", "scripts", "--dry-run"])
            .succeeded()
            .prints(&["trigger log does not fire for what is compressed"]);
        let forms = "SELECT count(content_gz) FROM scripts_stored";
        as_superuser.run(&["run-job", "scripts"]).succeeded();
        assert_eq!((met(), server.sql(&database, forms)), ("0|0".to_owned(), "10".to_owned()), "{major}");
        // The application's own writes set them off as ever.
        server.sql(&database, "UPDATE scripts SET content = content || '#' WHERE id = 1");
        assert_eq!(met(), "1|1");
        as_superuser.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(met(), "1|1", "{major}");
        // Who may not silence them is told what would let him.
        as_owner.run(&["compress", "install", "scripts"]).succeeded();
        as_owner.run(&["run-job", "scripts", "--dry-run"]).succeeded().prints(&["fires for each row", "GRANT SET ON PARAMETER"]);
        server.sql(&database, &format!("GRANT SET ON PARAMETER session_replication_role TO {owner}"));
        as_owner.run(&["run-job", "scripts"]).succeeded();
        assert_eq!((met(), server.sql(&database, forms)), ("1|1".to_owned(), "10".to_owned()), "{major}");
        as_owner.run(&["compress", "undo", "scripts"]).succeeded();
        server.sql(&database, &format!("REVOKE SET ON PARAMETER session_replication_role FROM {owner}; REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"));
    }
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
    let job = "database = 'app'\n[compress]\ntable = 'scripts'\ncolumn = 'content'\nmethod = 'gzip'\n";
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
