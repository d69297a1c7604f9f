//! What happens to a compressed table after its installation, by others.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::postgres::server;
use crate::support::scripts::{HASHES, TABLE, job, of_5_kb, scenario};
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
            scenario.run(command).exited(78).says(&["is gone", "compress install scripts"]);
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
fn restored_in_a_database_of_another_encoding_it_reads_the_same_and_is_undone_before_more_is_compressed() {
    let server = server(18);
    let (source, restored) = (format!("latin_{}", server.new_database()), server.new_database());
    server.sql("postgres", &format!("CREATE DATABASE {source} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"));
    // Its bytes are good UTF-8, too, and another text.
    let text = "INSERT INTO scripts (content) SELECT (SELECT string_agg('Ã¼ber ' || md5((i * 999 + j)::text), '') FROM generate_series(1, 200) j) FROM generate_series(1, 20) i";
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
fn row_security_that_came_later_and_an_undo_that_was_begun_stop_the_run_until_it_is_installed_again() {
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
    server.sql(&database, "ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; INSERT INTO scripts (content) SELECT repeat(chr(64 + i), 999999) FROM generate_series(1, 40) i; ANALYZE scripts");
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 40, "{report:#}");
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
