//! What happens to a compressed table after its installation, by others.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::postgres::server;
use crate::support::scripts::{BODY, Client, HASHES, job, of_5_kb, scenario};
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

#[test]
fn a_column_that_the_application_added_is_shown_by_the_view_after_the_next_run() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 19);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        server.sql(&database, "ALTER TABLE scripts_stored ADD author text DEFAULT 'nobody'");
        let hashes = server.sql(&database, HASHES);
        scenario
            .run(&["run-job", "scripts", "--dry-run"])
            .succeeded()
            .prints(&["the view lacks \"author\": the run brings it up to date"]);
        scenario.run(&["run-job", "scripts"]).succeeded().says(&["lacked \"author\", and was brought up to date"]);
        assert_eq!(
            server.sql(&database, "UPDATE scripts SET author = 'Ada' WHERE id = 15 RETURNING author, octet_length(content)"),
            "Ada|5000"
        );
        assert_eq!(server.sql(&database, "INSERT INTO scripts (content) VALUES ('x') RETURNING author"), "nobody");
        server.sql(&database, "DELETE FROM scripts WHERE content = 'x'");
        assert_eq!(server.sql(&database, HASHES), hashes);
        let said = scenario.run(&["run-job", "scripts"]).succeeded();
        assert!(!said.stderr.contains("author"), "once: {said:?}");
        // A column that got another name is a person's decision.
        server.sql(&database, "ALTER TABLE scripts_stored RENAME COLUMN title TO name");
        scenario
            .run(&["run-job", "scripts"])
            .succeeded()
            .says(&["\"title\", which the table has no longer under that name", "RENAME COLUMN"]);
        server.sql(&database, "ALTER VIEW scripts RENAME COLUMN title TO name");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        // Who does not own the table compresses, and says who has to do the rest.
        let writer = format!("writer_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {writer} LOGIN; GRANT SELECT, UPDATE ON scripts_stored, scripts TO {writer}; ALTER TABLE scripts_stored ADD place text;
                 INSERT INTO scripts (content) SELECT {BODY} FROM generate_series(1, 1) i"
            ),
        );
        let of_writer = Scenario::with_url(server, &server.url_as(&writer, &database)).job("scripts", &job("vacuum = false"));
        let report = of_writer.json(&["run-job", "scripts"]);
        assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 1, "{report:#}");
        assert!(
            report["runs"][0]["report"]["warnings"].to_string().contains("run `pgtend compress install scripts`"),
            "{report:#}"
        );
        server.sql(&database, &format!("DROP OWNED BY {writer}; DROP ROLE {writer}"));
    }
}

#[test]
fn jobs_that_name_the_view_go_to_the_table_behind_it_or_say_its_name() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    server.sql(
        &database,
        "CREATE EXTENSION vector; ALTER TABLE scripts ADD embedding vector(3); UPDATE scripts SET embedding = ARRAY[id, 1, id % 3]::vector;
         CREATE INDEX by_title ON scripts (title)",
    );
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let of = |task: &str| Scenario::with_database(server, &database).job("other", &format!("database = 'app'\n{task}\n"));
    let reindex = of("[reindex]\ntable = 'scripts'\nbloat_above = 0.0\nlarger_than = '1KB'");
    reindex.run(&["check", "--connect"]).succeeded();
    reindex
        .run(&["run-job", "other", "--dry-run"])
        .succeeded()
        .prints(&["\"public\".\"by_title\"", "\"public\".\"scripts_pkey\""]);
    reindex.run(&["run-job", "other"]).succeeded();
    let vector =
        of("[vector_index]\ntable = 'scripts'\ncolumn = 'embedding'\nmetric = 'cosine'\nmethod = 'hnsw'\nexact_below = 0");
    vector.run(&["run-job", "other", "--dry-run"]).succeeded().prints(&["scripts_stored"]);
    for (command, task) in [
        (&["run-job", "other"][..], "[partition]\ntable = 'scripts'\ncolumn = 'updated_at'\nevery = 'month'"),
        (
            &["partition", "convert", "other", "--dry-run"],
            "[partition]\ntable = 'scripts'\ncolumn = 'updated_at'\nevery = 'month'",
        ),
    ] {
        of(task).run(command).exited(78).says(&["[compress] job has put in the place of public.scripts_stored"]);
    }
    // Any other view is none of these.
    server.sql(&database, "CREATE VIEW titles AS SELECT title FROM scripts");
    of("[reindex]\ntable = 'titles'").run(&["run-job", "other"]).exited(78).says(&["titles is not a table"]);
}
