//! Text in another form: who reads and writes it notices nothing, and there is a way back.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::postgres::{Server, server};
use crate::support::scripts::{HASHES, Scripts, TABLE, database, job, load, of_5_kb, scenario};
use crate::support::{Scenario, eventually};

/// What psql would recreate the database from.
fn schema(server: &Server, database: &str) -> String {
    let output = server.tool("pg_dump", database).args(["--schema-only"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Newer versions put a random key around it.
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

pub fn facts(report: &serde_json::Value) -> &serde_json::Value {
    &report["runs"][0]["report"]["facts"]
}

pub fn bytes(report: &serde_json::Value, fact: &str) -> u64 {
    facts(report)[fact].as_u64().unwrap_or_else(|| panic!("no {fact}: {report:#}"))
}

#[test]
fn readers_see_the_same_text_before_during_and_after_on_15_and_18() {
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 50);
        server.sql(
            &database,
            "CREATE TABLE comments (script_id int REFERENCES scripts ON DELETE CASCADE, said text);
             INSERT INTO comments SELECT id, 'good' FROM scripts;
             CREATE VIEW long_ones AS SELECT id, title, length(content) AS size FROM scripts WHERE length(content) > 3000;
             CREATE ROLE reader_of_nothing; GRANT SELECT ON scripts TO PUBLIC; COMMENT ON TABLE scripts IS 'It''s the table';
             COMMENT ON COLUMN scripts.content IS 'The body''s text';",
        );
        let (before, hashes) = (schema(server, &database), server.sql(&database, HASHES));
        let long_ones = server.sql(&database, "SELECT count(*), sum(size) FROM long_ones");
        server.sql(&database, "DROP ROLE reader_of_nothing");
        let scenario = scenario(server, &database, "");

        scenario.run(&["run-job", "scripts"]).exited(78).says(&["pgtend compress install scripts"]);
        scenario.run(&["run-job", "scripts", "--dry-run"]).exited(78).prints(&["gzip", "pglz", "forecast", "stored now"]);
        scenario.run(&["compress", "install", "scripts", "--dry-run"]).succeeded().prints(&["ACCESS EXCLUSIVE", "CREATE VIEW"]);
        assert_eq!(schema(server, &database), before, "a dry run writes nothing");

        scenario.run(&["compress", "install", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        let comments = "SELECT obj_description('scripts'::regclass, 'pg_class'), col_description('scripts'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'scripts'::regclass AND attname = 'content'";
        assert_eq!(server.sql(&database, comments), "It's the table|The body's text");
        let report = scenario.json(&["run-job", "scripts"]);
        assert!(facts(&report)["rows_compressed"].as_u64() > Some(40), "{report:#}");
        assert!(bytes(&report, "bytes_after") < bytes(&report, "bytes_before") * 4 / 5, "{report:#}");
        assert_eq!(server.sql(&database, HASHES), hashes);
        assert_eq!(server.sql(&database, "SELECT count(*), sum(size) FROM long_ones"), long_ones);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts_stored WHERE pg_column_size(content) > 2000"), "0");

        // New and changed bodies are for the next run; one that has nothing to do says so.
        server.sql(&database, "UPDATE scripts SET content = content || ' changed' WHERE id IN (20, 21)");
        load(server, &database, &[Scripts::new().script(5_000)]);
        let hashes = server.sql(&database, HASHES);
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 3, "{report:#}");
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 0, "{report:#}");
        assert!(report["runs"][0]["report"]["summary"].as_str().unwrap().contains("nothing compressed"), "{report:#}");
        assert_eq!(server.sql(&database, HASHES), hashes);

        scenario.run(&["compress", "undo", "scripts", "--keep-view"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(content_gz) FROM scripts_stored"), "0");
        assert_eq!(server.sql(&database, HASHES), hashes);
        scenario.run(&["run-job", "scripts"]).succeeded();
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        assert_eq!(schema(server, &database), before, "all is as it was");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM comments"), "59");
        server.sql(&database, "DELETE FROM scripts WHERE id = 1");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM comments"), "58", "its foreign keys are its own");
    }
}

#[test]
fn a_dump_of_it_restores_with_stock_tools_and_reads_the_same() {
    let server = server(18);
    let database = database(server, 30);
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let dump = server.tool("pg_dump", &database).output().unwrap();
    let restored = server.empty_database();
    server.sql(&restored, &String::from_utf8(dump.stdout).unwrap());
    assert_eq!(server.sql(&restored, HASHES), hashes);
    assert_ne!(server.sql(&restored, "SELECT count(content_gz) FROM scripts_stored"), "0");
}

#[test]
fn a_body_of_4_mb_comes_back_when_it_is_asked_for_and_stays_plain_when_not() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TABLE);
    load(server, &database, &[Scripts::new().script(20_000).repeat(200), Scripts::new().script(9_000)]);
    let hashes = server.sql(&database, HASHES);
    let small = scenario(server, &database, "");
    small.run(&["compress", "install", "scripts"]).succeeded();
    let report = small.json(&["run-job", "scripts"]);
    assert_eq!(
        (facts(&report)["rows_compressed"].as_u64(), facts(&report)["rows_too_large"].as_u64()),
        (Some(1), Some(1)),
        "{report:#}"
    );
    let report = scenario(server, &database, "smaller_than = '5MB'").json(&["run-job", "scripts"]);
    assert_eq!(facts(&report)["rows_compressed"], 1, "{report:#}");
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn writers_through_the_view_and_on_the_table_keep_what_they_had_with_the_table() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 29);
        server.sql(
            &database,
            "ALTER TABLE scripts ALTER content DROP NOT NULL, ADD slug text GENERATED ALWAYS AS (lower(title)) STORED",
        );
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let sql = |sql: &str| server.sql(&database, sql);
        let is_compressed = |id: u32| sql(&format!("SELECT content_gz IS NOT NULL FROM scripts_stored WHERE id = {id}"));

        let long = "SELECT string_agg(md5(i::text), E'\\n') FROM generate_series(1, 200) i";
        assert_eq!(
            sql(&format!("INSERT INTO scripts (content) VALUES (({long})) RETURNING id, title, runs, slug, length(content)")),
            "30|untitled|0|untitled|6599"
        );
        assert_eq!(
            sql("INSERT INTO scripts (id, title, content) VALUES (100, 'Mine', NULL) RETURNING slug, content IS NULL"),
            "mine|t"
        );
        assert_eq!(sql("UPDATE scripts SET title = 'New' WHERE id = 20 RETURNING slug, length(content) > 0"), "new|t");
        assert_eq!(is_compressed(20), "t", "a body that is not written keeps its form");
        assert_eq!(sql("UPDATE scripts SET content = 'short' WHERE id = 20 RETURNING content"), "short");
        assert_eq!((is_compressed(20), sql("SELECT content FROM scripts WHERE id = 20")), ("f".to_owned(), "short".to_owned()));
        assert_eq!(sql("UPDATE scripts SET content = NULL WHERE id = 21 RETURNING content IS NULL"), "t");
        assert_eq!(
            (is_compressed(21), sql("SELECT content IS NULL FROM scripts WHERE id = 21")),
            ("f".to_owned(), "t".to_owned())
        );
        assert_eq!(sql("DELETE FROM scripts WHERE id IN (22, 23, 9999) RETURNING id"), "22\n23");
        assert_eq!(sql("UPDATE scripts SET id = 200 WHERE id = 24 RETURNING id, length(content) > 0"), "200|t");
        assert_eq!(
            sql("UPDATE scripts s SET runs = runs + 1 FROM (VALUES (25), (25)) v (i) WHERE s.id = v.i RETURNING runs"),
            "1",
            "once, as with a table"
        );
        assert_eq!(
            sql(
                "BEGIN; UPDATE scripts SET runs = 5 WHERE id = 25; UPDATE scripts SET runs = runs + 1 WHERE id = 25 RETURNING runs; COMMIT"
            ),
            "6"
        );

        // On the table behind: text that is written takes the place of the compressed form.
        assert_eq!(is_compressed(26), "t");
        sql("UPDATE scripts_stored SET content = 'direct' WHERE id = 26");
        assert_eq!(sql("SELECT content FROM scripts WHERE id = 26"), "direct");
        sql("SET session_replication_role = replica; UPDATE scripts_stored SET content = 'as a replica' WHERE id = 27");
        assert_eq!(sql("SELECT content FROM scripts WHERE id = 27"), "as a replica");
        sql(
            "INSERT INTO scripts_stored (id, content) VALUES (28, 'upsert') ON CONFLICT (id) DO UPDATE SET content = excluded.content",
        );
        assert_eq!(sql("SELECT content FROM scripts WHERE id = 28"), "upsert");
        assert_eq!(is_compressed(29), "t");
        // A form that contradicts is refused.
        let error =
            server.psql(&database, "UPDATE scripts_stored SET content = 'x', content_gz = 'y' WHERE id = 29").unwrap_err();
        assert!(error.contains("pgtend_one_form"), "{error}");

        // What a view does not take fails, and says so.
        for refused in [
            "INSERT INTO scripts (id, content) VALUES (1, 'x') ON CONFLICT (id) DO NOTHING",
            "TRUNCATE scripts",
            "COPY scripts TO stdout",
            "CREATE INDEX ON scripts (title)",
        ] {
            server.psql(&database, refused).unwrap_err();
        }
        // A view cannot know that the statement has ON CONFLICT: without a duplicate it is an insert like others.
        let ignored = "INSERT INTO scripts (id, content) VALUES (1, 'x') ON CONFLICT DO NOTHING";
        let error = server.psql(&database, ignored).unwrap_err();
        assert!(error.contains("duplicate key value"), "{error}");
        if major >= 17 {
            sql(
                "MERGE INTO scripts s USING (VALUES (29, 'merged'), (400, 'new')) v (id, content) ON s.id = v.id
                 WHEN MATCHED THEN UPDATE SET content = v.content WHEN NOT MATCHED THEN INSERT (id, content) VALUES (v.id, v.content)",
            );
            assert_eq!(sql("SELECT string_agg(content, ',' ORDER BY id) FROM scripts WHERE id IN (29, 400)"), "merged,new");
        }
        let copied = "COPY scripts (id, content) FROM stdin;\n300\tcopied\n\\.\n";
        sql(copied);
        assert_eq!(sql("SELECT content, title FROM scripts WHERE id = 300"), "copied|untitled");
        let hashes = sql(HASHES);
        scenario.run(&["run-job", "scripts"]).succeeded();
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(sql(HASHES), hashes);
    }
}

#[test]
fn an_update_through_the_view_never_writes_over_one_that_came_meanwhile() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    // A plain table would look again; a trigger cannot, and must not lose the first one.
    for first in ["UPDATE scripts SET runs = runs + 1 WHERE id = 15", "UPDATE scripts_stored SET content = 'mine' WHERE id = 15"]
    {
        for second in [
            "UPDATE scripts SET runs = runs + 1 WHERE id = 15",
            "DELETE FROM scripts WHERE id = 15 AND runs = 0",
            "UPDATE scripts SET content = 'theirs' WHERE id = 15",
        ] {
            server.sql(&database, "UPDATE scripts SET runs = 0, content = repeat('x', 5000) WHERE id = 15");
            let mut holder = server.tool("psql", &database).args(["-Xq"]).stdin(Stdio::piped()).spawn().unwrap();
            let mut input = holder.stdin.take().unwrap();
            input.write_all(format!("BEGIN; {first};\n").as_bytes()).unwrap();
            let idle =
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()";
            eventually("the first has written", || server.sql(&database, idle) == "1");
            let waiting = {
                let (database, second) = (database.clone(), second.to_owned());
                std::thread::spawn(move || super::support::postgres::server(18).psql(&database, &second))
            };
            // An autovacuum may wait, too.
            let blocked = "SELECT count(*) FROM pg_stat_activity
                           WHERE wait_event_type = 'Lock' AND datname = current_database() AND backend_type = 'client backend'";
            eventually("the second waits", || server.sql(&database, blocked) == "1");
            input.write_all(b"COMMIT;\n").unwrap();
            drop(input);
            holder.wait().unwrap();
            let error = waiting.join().unwrap().unwrap_err();
            assert!(error.contains("could not serialize access"), "{first}, {second}: {error}");
        }
    }
}

#[test]
fn keys_and_names_of_every_kind() {
    let server = server(18);
    for (columns, value) in [
        ("a int, \"B b\" text, PRIMARY KEY (\"B b\", a)", "i, 'it''s \"' || i % 7"),
        ("a uuid PRIMARY KEY", "md5(i::text)::uuid"),
        ("a text COLLATE \"C\" PRIMARY KEY", "chr(i + 64) || i || E'\\\\ \\n'"),
        (
            "a char(9) NOT NULL, b numeric(9, 3) NOT NULL, c timestamptz NOT NULL, UNIQUE (a, b, c)",
            "'k' || i % 3, i / 3.0, now() + make_interval(secs => i)",
        ),
        ("a bytea PRIMARY KEY", "sha256(i::text::bytea)"),
        ("a date NOT NULL, b bigint NOT NULL, PRIMARY KEY (b, a)", "current_date + i, 9e15::bigint + i"),
    ] {
        let database = server.new_database();
        let table = "\"Sc; \"\"x\"\" $pgtend$ ü\".\"T 'a\\ ble\n--\"";
        server.sql(
            &database,
            &format!(
                "CREATE SCHEMA \"Sc; \"\"x\"\" $pgtend$ ü\"; CREATE TABLE {table} ({columns}, \"the 'body\" varchar(90000) COLLATE \"C\");
                 INSERT INTO {table} SELECT {value}, CASE WHEN i < 22 THEN (SELECT string_agg(md5((i * 999 + j)::text), E'\r\n') FROM generate_series(1, 110) j) END
                 FROM generate_series(1, 22) i;"
            ),
        );
        let hashes = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)), count(\"the 'body\") FROM {table} t");
        let before = server.sql(&database, &hashes);
        let scenario = Scenario::with_database(server, &database).job(
            "odd",
            &format!(
                "database = 'app'\n[compress]\ntable = {}\ncolumn = \"the 'body\"\nmethod = 'gzip'\nminimum_gain = 0\nlarger_than = '3KB'\n",
                serde_json::to_string(table).unwrap()
            ),
        );
        scenario.run(&["compress", "install", "odd"]).succeeded();
        let report = scenario.json(&["run-job", "odd"]);
        assert_eq!(facts(&report)["rows_compressed"], 21, "{columns}: {report:#}");
        assert_eq!(server.sql(&database, &hashes), before, "{columns}");
        scenario.run(&["compress", "undo", "odd"]).succeeded();
        assert_eq!(server.sql(&database, &hashes), before, "{columns}");
    }
}

#[test]
fn a_key_column_named_key_hides_no_row_from_a_page() {
    let server = server(18);
    let database = server.new_database();
    // A page has 2,000 rows; as text, 10 comes before 2.
    server.sql(
        &database,
        "CREATE TABLE t (key int PRIMARY KEY, number int, body text);
         INSERT INTO t SELECT i, i, CASE WHEN i % 500 = 499 THEN (SELECT string_agg(md5((i * 999 + j)::text), ' ') FROM generate_series(1, 110) j) END
         FROM generate_series(1, 4600) i",
    );
    let keys = "database = 'app'\n[compress]\ntable = 'public.t'\ncolumn = 'body'\nmethod = 'gzip'\nminimum_gain = 0\nlarger_than = '3KB'\n";
    let scenario = Scenario::with_database(server, &database).job("t", keys);
    scenario.run(&["compress", "install", "t"]).succeeded();
    let report = scenario.json(&["run-job", "t"]);
    assert_eq!(facts(&report)["rows_compressed"], 9, "{report:#}");
    scenario.run(&["compress", "undo", "t"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(body) FROM t"), "9");
}

#[test]
fn databases_of_other_encodings_and_sessions_with_odd_settings_read_the_same() {
    let server = server(18);
    for (encoding, text) in
        [("LATIN1", "E'gr\\xf6\\xdfer '"), ("SQL_ASCII", "E'\\xff\\xfe not UTF-8 '"), ("EUC_JP", "E'\\xa4\\xa2 '")]
    {
        let database = format!("enc_{}_{}", encoding.to_lowercase(), server.new_database());
        server.sql(
            "postgres",
            &format!("CREATE DATABASE {database} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        );
        let own = format!("SET client_encoding = {encoding};");
        server.sql(&database, &format!("{own} {TABLE} INSERT INTO scripts (content) SELECT (SELECT string_agg({text} || md5((i * 999 + j)::text), '') FROM generate_series(1, 80) j) FROM generate_series(1, 20) i"));
        let hashes = format!("{own} SELECT md5(string_agg(md5(content), ',' ORDER BY id)) FROM scripts");
        let before = server.sql(&database, &hashes);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 20, "{encoding}: {report:#}");
        assert_eq!(server.sql(&database, &hashes), before, "{encoding}");
        for settings in [
            "SET standard_conforming_strings = off; SET escape_string_warning = off;",
            "SET search_path = evil, pg_catalog, public;",
            "SET bytea_output = escape; SET default_transaction_read_only = on;",
        ] {
            assert_eq!(
                server.sql(&database, &format!("{settings} {hashes}").replace("FROM scripts", "FROM public.scripts")),
                before,
                "{encoding} {settings}"
            );
        }
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, &hashes), before, "{encoding}");
    }
}

#[test]
fn functions_of_a_hostile_search_path_are_not_called() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    let evil = "CREATE SCHEMA evil;
        CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
        CREATE FUNCTION evil.convert_to(text, name) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
        CREATE FUNCTION evil.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE FUNCTION evil.never(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.never);
        CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
        CREATE TABLE evil.scripts_stored (id int, content text);";
    server.sql(&database, evil);
    let set = "SET search_path = evil, pg_catalog, public;";
    server.sql(&database, &format!("{set} UPDATE public.scripts SET title = 'x'; UPDATE public.scripts SET content = 'y' WHERE id OPERATOR(pg_catalog.=) 14; DELETE FROM public.scripts WHERE id OPERATOR(pg_catalog.=) 15;"));
    assert_eq!(server.sql(&database, "SELECT content FROM scripts WHERE id = 14"), "y");
    assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT title) FROM scripts"), "18|1");
    server.sql(&database, "CREATE ROLE path_setter");
    server.sql(&database, "DROP ROLE path_setter");
    server.sql("postgres", &format!("ALTER DATABASE {database} SET search_path = evil, pg_catalog, public"));
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    let after = server.sql(&database, "SET search_path = public; SELECT md5(string_agg(id || encode(sha256(convert_to(content, 'UTF8')), 'hex'), ',' ORDER BY id)) FROM scripts WHERE id NOT IN (14, 15)");
    assert_ne!(after, hashes);
    assert_eq!(server.sql(&database, "SET search_path = public; SELECT count(*) FROM scripts WHERE content <> ''"), "18");
}

#[test]
fn privileges_are_those_of_the_table_through_views_of_others_too() {
    let of_others = "CREATE SCHEMA reports; CREATE VIEW reports.all_of_them AS SELECT id, content FROM scripts;
        ALTER SCHEMA reports OWNER TO OWNER; ALTER VIEW reports.all_of_them OWNER TO OWNER;
        GRANT USAGE ON SCHEMA reports TO OTHER; GRANT SELECT ON reports.all_of_them TO OTHER;";
    privileges(of_others, |as_role, reader, other| {
        assert_eq!(as_role(reader, "SELECT count(*), min(id), count(content) FROM public.scripts").unwrap(), "19|1|19");
        assert_eq!(as_role(reader, "UPDATE public.scripts SET title = 'x' WHERE id IN (11, 12) RETURNING id").unwrap(), "11\n12");
        // Without a right on the table, nor on its schema.
        assert_eq!(as_role(other, "SELECT count(*), count(md5(content)) FROM reports.all_of_them").unwrap(), "19|19");
    });
}

#[test]
fn row_security_is_that_of_the_table() {
    let policy = "ALTER TABLE scripts ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON scripts TO READER USING (id % 2 = 0);";
    privileges(policy, |as_role, reader, _| {
        assert_eq!(as_role(reader, "SELECT count(*), min(id), count(content) FROM public.scripts").unwrap(), "9|2|9");
        assert_eq!(as_role(reader, "UPDATE public.scripts SET title = 'x' WHERE id IN (11, 12) RETURNING id").unwrap(), "12");
    });
}

fn privileges(more: &str, check: impl Fn(&dyn Fn(&str, &str) -> Result<String, String>, &str, &str)) {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let (owner, reader, other) = (format!("own_{database}"), format!("read_{database}"), format!("none_{database}"));
    let more = more.replace("OTHER", &other).replace("READER", &reader).replace("OWNER TO OWNER", &format!("OWNER TO {owner}"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {reader} LOGIN; CREATE ROLE {other} LOGIN; ALTER DATABASE {database} OWNER TO {owner};
             GRANT CREATE ON SCHEMA public TO {owner}; ALTER TABLE scripts OWNER TO {owner};
             GRANT SELECT, INSERT, UPDATE, DELETE ON scripts TO {reader};
             {more}
             REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {reader};"
        ),
    );
    let hashes = server.sql(&database, HASHES);
    let before = schema(server, &database);
    let scenario = Scenario::with_url(server, &server.url_as(&owner, &database)).job("scripts", &job(""));
    Scenario::with_url(server, &server.url_as(&reader, &database))
        .job("scripts", &job(""))
        .run(&["compress", "install", "scripts"])
        .exited(77);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["check", "--connect"]).succeeded();
    let as_role = |role: &str, sql: &str| server.psql(&database, &format!("SET ROLE {role}; {sql}"));
    assert!(as_role(&other, "SELECT 1 FROM public.scripts").unwrap_err().contains("permission denied"));
    check(&as_role, &reader, &other);
    assert_eq!(server.sql(&database, HASHES), hashes);
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(schema(server, &database), before);
    server.sql("postgres", "SELECT 1");
}

#[test]
fn install_and_undo_are_runs_by_hand_with_rows_of_their_own_under_the_jobs_lock() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "").ledger();
    server.sql(&database, "CREATE INDEX in_the_way ON scripts (md5(content))");
    scenario.run(&["compress", "install", "scripts", "--dry-run"]).exited(78).prints(&["stored now"]).says(&["index in_the_way"]);
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&["index in_the_way"]);
    server.sql(&database, "DROP INDEX in_the_way");

    let shown = scenario.json(&["compress", "install", "scripts"]);
    assert_eq!(shown["runs"][0]["report"]["facts"]["table"], r#""public"."scripts_stored""#, "{shown:#}");
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["compress", "undo", "scripts", "--dry-run"]).succeeded().prints(&["Turns back into text"]);
    let shown = scenario.json(&["compress", "undo", "scripts"]);
    assert_eq!(shown["runs"][0]["report"]["facts"]["rows"], 19, "{shown:#}");
    let runs = scenario.runs(&[]);
    let told: Vec<_> =
        runs.iter().map(|run| [&run["task"], &run["trigger"], &run["outcome"]].map(|value| value.as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ["compress install", "manual", "failed"],
            ["compress install", "manual", "succeeded"],
            ["compress", "manual", "succeeded"],
            ["compress undo", "manual", "succeeded"],
        ]
    );
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pgtend.runs WHERE locked_at IS NULL"), "0");
}
