//! What writers meet at the view and at the table behind it: as with the table, or an error that says what to do; never silence.

use crate::support::eventually;
use crate::support::postgres::{Server, server};
use crate::support::scripts::{Client, HASHES, of_5_kb, scenario};

/// Compressed scripts of 5 kB, whose ids are 1 to 19.
fn compressed(server: &Server) -> String {
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    database
}

/// A role of that database's own, with these statements run; `ROLE` is its name.
fn role(server: &Server, database: &str, sql: &str) -> String {
    let role = format!("writer_{database}");
    server.sql(database, &format!("CREATE ROLE {role}; {}", sql.replace("ROLE", &role)));
    role
}

#[test]
fn who_may_delete_and_not_update_deletes_through_the_view() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 19);
        let role = role(server, &database, "GRANT SELECT, DELETE ON scripts TO ROLE");
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let as_role = |sql: &str| server.psql(&database, &format!("SET ROLE {role}; {sql}"));
        assert_eq!(
            as_role("DELETE FROM scripts WHERE id IN (11, 12, 99) RETURNING id, octet_length(content)").unwrap(),
            "11|5000\n12|5000"
        );
        assert!(as_role("UPDATE scripts SET title = 'x' WHERE id = 13").unwrap_err().contains("permission denied"));
        assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT title) FROM scripts"), "17|1");
    }
}

#[test]
fn each_command_finds_the_rows_that_its_own_policies_allow() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 19);
        let role = role(
            server,
            &database,
            "GRANT SELECT, INSERT, UPDATE, DELETE ON scripts TO ROLE; ALTER TABLE scripts ENABLE ROW LEVEL SECURITY;
             CREATE POLICY seen ON scripts FOR SELECT TO ROLE USING (id > 10);
             CREATE POLICY gone ON scripts FOR DELETE TO ROLE USING (id > 14);
             CREATE POLICY changed ON scripts FOR UPDATE TO ROLE USING (id = 13) WITH CHECK (runs < 5);
             CREATE POLICY new ON scripts FOR INSERT TO ROLE WITH CHECK (id > 10);",
        );
        let tag = |sql: &str| {
            let output = server
                .tool("psql", &database)
                .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", &format!("SET ROLE {role}"), "-c", "\\set QUIET off", "-c", sql])
                .output()
                .unwrap();
            let text = if output.status.success() { output.stdout } else { output.stderr };
            String::from_utf8(text).unwrap().trim().to_owned()
        };
        let statements = [
            ("DELETE FROM scripts WHERE id IN (9, 14)", "DELETE 0"),
            ("DELETE FROM scripts WHERE id IN (9, 15, 16)", "DELETE 2"),
            ("UPDATE scripts SET runs = runs + 1 WHERE id IN (9, 12, 13)", "UPDATE 1"),
            ("UPDATE scripts SET runs = 9 WHERE id = 13", "violates row-level security"),
            ("INSERT INTO scripts (id, content) VALUES (7, 'x')", "violates row-level security"),
        ];
        // As with the table, which is then made what it was.
        let before = server.sql(&database, HASHES);
        for (sql, said) in statements {
            assert!(tag(&format!("BEGIN; {sql}; ROLLBACK")).contains(said), "with the table: {sql}");
        }
        assert_eq!(server.sql(&database, HASHES), before);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        for (sql, said) in statements {
            let found = tag(sql);
            assert!(found.contains(said), "on {major}: {sql}: {found}");
        }
        assert_eq!(server.sql(&database, "SELECT count(*), sum(runs) FROM scripts"), "17|1");
    }
}

#[test]
fn roles_and_policies_whose_writes_a_view_would_refuse_are_named_with_what_to_grant() {
    let server = server(18);
    for (sql, said) in [
        ("GRANT INSERT ON scripts TO ROLE", "GRANT SELECT ON public.scripts TO ROLE"),
        ("GRANT DELETE, UPDATE ON scripts TO ROLE", "ROLE may DELETE, UPDATE, and not SELECT"),
        ("GRANT INSERT ON scripts TO PUBLIC", "GRANT SELECT ON public.scripts TO PUBLIC"),
        (
            "GRANT SELECT, INSERT ON scripts TO ROLE; ALTER TABLE scripts ENABLE ROW LEVEL SECURITY;
             CREATE POLICY seen ON scripts FOR SELECT TO ROLE USING (id < 10); CREATE POLICY new ON scripts FOR INSERT TO ROLE WITH CHECK (true)",
            "policy new lets rows be inserted",
        ),
    ] {
        let database = of_5_kb(server, 5);
        let role = role(server, &database, sql);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).exited(78).says(&[&said.replace("ROLE", &role), "--force"]);
        assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
        if said.contains("ON public.scripts TO ROLE") {
            server.sql(&database, &said.replace("ROLE", &role));
            scenario.run(&["compress", "install", "scripts"]).succeeded();
        } else {
            scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
        }
        scenario.run(&["run-job", "scripts"]).succeeded();
        // Those that have what they need are nobody's business.
        assert_eq!(server.sql(&database, &format!("SET ROLE {role}; SELECT 1")), "1");
    }
}

#[test]
fn writes_in_savepoints_and_exception_blocks_are_as_with_the_table() {
    for major in [15, 18] {
        let server = server(major);
        let database = compressed(server);
        let twice = "UPDATE scripts s SET runs = runs + 1 FROM (VALUES (15), (15)) v (i) WHERE s.id = v.i";
        let once = "UPDATE scripts SET runs = runs + 1 WHERE id = 15";
        let block =
            |sql: &str| format!("DO $$ BEGIN BEGIN {sql}; EXCEPTION WHEN division_by_zero THEN NULL; END; {once}; END $$");
        let mut runs = 0;
        for (sql, more) in [
            (twice.to_owned(), 1),
            (format!("BEGIN; SAVEPOINT a; {twice}; COMMIT"), 1),
            (format!("BEGIN; {once}; SAVEPOINT a; {twice}; RELEASE a; {once}; COMMIT"), 3),
            (format!("BEGIN; SAVEPOINT a; {once}; SAVEPOINT b; {once}; {twice}; ROLLBACK TO b; {once}; COMMIT"), 2),
            (block(twice), 2),
            (block(&format!("{once}; {once}")), 3),
            (format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a; {twice}; {once}; COMMIT"), 2),
            (
                "BEGIN; SAVEPOINT a; UPDATE scripts s SET id = id + 100 FROM (VALUES (14), (14)) v (i) WHERE s.id = v.i; COMMIT"
                    .to_owned(),
                0,
            ),
            ("BEGIN; SAVEPOINT a; DELETE FROM scripts s USING (VALUES (13), (13)) v (i) WHERE s.id = v.i; COMMIT".to_owned(), 0),
        ] {
            server.sql(&database, &sql);
            runs += more;
            assert_eq!(server.sql(&database, "SELECT runs FROM scripts WHERE id = 15"), runs.to_string(), "on {major}: {sql}");
        }
        assert_eq!(server.sql(&database, "SELECT count(*), count(*) FILTER (WHERE id = 114) FROM scripts"), "18|1");
        // A change of another transaction is no change of one's own, savepoint or not.
        let mut first = Client::of(server, &database);
        let mut second = Client::of(server, &database);
        first.ask("BEGIN; SAVEPOINT a; UPDATE scripts SET runs = 100 WHERE id = 15");
        second.ask("BEGIN; SELECT pg_current_xact_id(); SAVEPOINT b");
        second.send("UPDATE scripts SET runs = runs + 1 WHERE id = 15");
        waits(server, &database, 1);
        first.ask("COMMIT");
        second.answer();
        assert_eq!(second.state(), "40001");
        assert_eq!(server.sql(&database, "SELECT runs FROM scripts WHERE id = 15"), "100");
    }
}

fn waits(server: &Server, database: &str, sessions: u32) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually("somebody waits", || server.sql(database, waiting) == sessions.to_string());
}

#[test]
fn a_writer_that_meets_a_batch_goes_on_with_the_same_text_in_its_new_form() {
    for major in [15, 18] {
        let server = server(major);
        let database = compressed(server);
        server.sql(&database, "CREATE TABLE packed AS SELECT * FROM scripts_stored");
        let to_text = "UPDATE scripts_stored b SET content = v.content FROM scripts v WHERE v.id = b.id AND b.id IN (15, 16)";
        let to_gzip = "UPDATE scripts_stored b SET content = NULL, content_gz = p.content_gz, content_sha256 = p.content_sha256
                       FROM packed p WHERE p.id = b.id AND b.id IN (15, 16)";
        let hash = server.sql(&database, "SELECT md5(content) FROM scripts WHERE id = 15");
        for change in [to_text, to_gzip] {
            let mut batch = Client::of(server, &database);
            let mut writer = Client::of(server, &database);
            batch.ask(&format!("BEGIN; {change}"));
            writer.send("UPDATE scripts SET runs = runs + 1 WHERE id = 15 RETURNING md5(content)");
            waits(server, &database, 1);
            batch.ask("COMMIT");
            assert_eq!(writer.answer(), hash, "on {major}");
            assert_eq!(writer.state(), "00000");
        }
        assert_eq!(server.sql(&database, "SELECT runs, md5(content) FROM scripts WHERE id = 15"), format!("2|{hash}"));
        let mut batch = Client::of(server, &database);
        let mut writer = Client::of(server, &database);
        batch.ask(&format!("BEGIN; {to_text}"));
        writer.send("DELETE FROM scripts WHERE id = 16 RETURNING id");
        waits(server, &database, 1);
        batch.ask("COMMIT");
        assert_eq!(writer.answer(), "16");
    }
}

#[test]
fn a_row_that_goes_or_gets_another_key_while_its_writer_waits() {
    let server = server(18);
    let database = compressed(server);
    for (id, first, second, expected) in [
        (11, "UPDATE scripts_stored SET id = id + 100 WHERE id = 11", "UPDATE scripts SET title = 'x' WHERE id = 11", "40001"),
        (12, "DELETE FROM scripts WHERE id = 12", "UPDATE scripts SET title = 'x' WHERE id = 12", "40001"),
        // Gone is gone.
        (13, "DELETE FROM scripts WHERE id = 13", "DELETE FROM scripts WHERE id = 13", "00000"),
        (14, "SELECT 1 FROM scripts_stored WHERE id = 14 FOR UPDATE", "DELETE FROM scripts WHERE id = 14", "00000"),
    ] {
        let (mut one, mut other) = (Client::of(server, &database), Client::of(server, &database));
        one.ask(&format!("BEGIN; {first}"));
        other.send(second);
        waits(server, &database, 1);
        one.ask("COMMIT");
        other.answer();
        assert_eq!(other.state(), expected, "{first}, then {second}");
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM scripts WHERE id = {id}")), "0");
    }
    assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT title) FROM scripts"), "16|1");
}

#[test]
fn a_trigger_of_the_table_that_says_no_says_it_once_and_without_an_error() {
    let server = server(18);
    let database = compressed(server);
    server.sql(
        &database,
        "CREATE TABLE asked (what text);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO asked VALUES (TG_OP); RETURN NULL; END';
         CREATE TRIGGER no BEFORE UPDATE OR DELETE OR INSERT ON scripts_stored FOR EACH ROW EXECUTE FUNCTION no();
         UPDATE scripts SET title = 'x' WHERE id = 15; UPDATE scripts SET content = 'x' WHERE id = 15; DELETE FROM scripts WHERE id = 15;
         INSERT INTO scripts (content) VALUES ('x')",
    );
    assert_eq!(server.sql(&database, "SELECT string_agg(what, ' ') FROM asked"), "UPDATE UPDATE DELETE INSERT");
    assert_eq!(server.sql(&database, "SELECT title, octet_length(content) FROM scripts WHERE id = 15"), "untitled|5000");
}

#[test]
fn text_that_a_writer_did_not_see_is_not_written_over_on_the_table_behind() {
    for major in [15, 18] {
        let server = server(major);
        let database = compressed(server);
        let hashes = server.sql(&database, HASHES);
        for sql in [
            "UPDATE scripts_stored SET content = content || 'more' WHERE id = 15",
            "UPDATE scripts_stored SET content = upper(content)",
            "UPDATE scripts_stored SET content = NULL, title = 'saved' WHERE id = 15",
            // As an ORM writes a row back that it has read there.
            "UPDATE scripts_stored SET content = NULL, content_gz = content_gz, content_sha256 = content_sha256, title = 'x' WHERE id = 15",
            "INSERT INTO scripts_stored (id, content) VALUES (15, 'x') ON CONFLICT (id) DO UPDATE SET content = scripts_stored.content || excluded.content",
            "SET session_replication_role = replica; UPDATE scripts_stored SET content = content || 'more' WHERE id = 15",
        ] {
            let error = server.psql(&database, sql).unwrap_err();
            assert!(
                error.contains("as its text is compressed") && error.contains("public\".\"scripts"),
                "on {major}: {sql}: {error}"
            );
            assert_eq!(server.sql(&database, HASHES), hashes, "{sql}");
        }
        assert_eq!(server.sql(&database, "SELECT DISTINCT title FROM scripts"), "untitled");
        // What says what it means is written: another column, another text, no text.
        server.sql(
            &database,
            "UPDATE scripts_stored SET title = 'x' WHERE id = 15; UPDATE scripts_stored SET content = 'new' WHERE id = 16;
             UPDATE scripts_stored SET content = content || 'er' WHERE id = 16; ALTER TABLE scripts_stored ALTER content DROP NOT NULL;",
        );
        assert_eq!(server.sql(&database, "SELECT content FROM scripts WHERE id = 16"), "newer");
        // The column was NOT NULL, and the constraint still holds that.
        let gone = "UPDATE scripts_stored SET content = NULL, content_gz = NULL, content_sha256 = NULL WHERE id = 17";
        assert!(server.psql(&database, gone).unwrap_err().contains("pgtend_one_form"));
        // A table whose every column is its key, but for the text: an update of nothing else names no text either.
        server.sql(&database, "CREATE TABLE notes (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, content text); INSERT INTO notes (content) SELECT content FROM scripts WHERE id > 10");
        let notes = scenario(server, &database, "");
        let notes = notes.job("notes", &crate::support::scripts::job("").replace("public.scripts", "public.notes"));
        notes.run(&["compress", "install", "notes"]).succeeded();
        notes.run(&["run-job", "notes"]).succeeded();
        server.sql(&database, "UPDATE notes SET content = content; UPDATE notes_stored SET content = 'x', content_gz = NULL, content_sha256 = NULL WHERE id = 1;
                               UPDATE notes_stored SET content = NULL, content_gz = NULL, content_sha256 = NULL WHERE id = 2");
        assert_eq!(server.sql(&database, "SELECT content FROM notes WHERE id < 3 ORDER BY id"), "x");
    }
}

#[test]
fn merge_goes_through_the_view_since_17_and_is_refused_before() {
    let merge = "MERGE INTO scripts s USING (VALUES (15, 'merged'), (50, 'new')) v (i, c) ON s.id = v.i
                 WHEN MATCHED THEN UPDATE SET content = v.c WHEN NOT MATCHED THEN INSERT (id, content) VALUES (v.i, v.c)";
    for major in [15, 18] {
        let server = server(major);
        let database = compressed(server);
        match server.psql(&database, merge) {
            Ok(_) => {
                assert_eq!(major, 18);
                assert_eq!(server.sql(&database, "SELECT content FROM scripts WHERE id IN (15, 50) ORDER BY id"), "merged\nnew");
            }
            Err(error) => assert!(major == 15 && error.contains("MERGE"), "{error}"),
        }
        // A function that does is to be looked at, where it would fail.
        let database = of_5_kb(server, 5);
        server.sql(&database, &format!("CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {merge}; END $$"));
        let output = scenario(server, &database, "").run(&["compress", "install", "scripts"]);
        assert_eq!((output.code, output.stderr.contains("MERGE")), if major == 15 { (Some(78), true) } else { (Some(0), false) });
    }
}
