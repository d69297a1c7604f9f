//! Large text that is written anew by TOAST, without a view.

use super::compress::{bytes, facts};
use crate::support::Scenario;
use crate::support::postgres::server;
use crate::support::scripts::{Client, HASHES, database, job, of_5_kb, scenario};

#[test]
fn toast_writes_anew_what_is_stored_otherwise_and_nothing_that_would_become_larger() {
    for major in [15, 18] {
        let server = server(major);
        let database = database(server, 100);
        server.sql(&database, "ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; UPDATE scripts SET content = content || ''; VACUUM ANALYZE scripts");
        let hashes = server.sql(&database, HASHES);
        let text =
            "database = 'app'\n[compress]\ntable = 'public.scripts'\ncolumn = 'content'\nmethod = 'toast'\nlarger_than = '2KB'\n";
        let scenario = Scenario::with_database(server, &database).job("scripts", text);
        scenario.run(&["run-job", "scripts", "--dry-run"]).succeeded().prints(&["pglz: ", "SET STORAGE EXTENDED"]);
        let report = scenario.json(&["run-job", "scripts"]);
        assert!(facts(&report)["rows_compressed"].as_u64() > Some(70), "{report:#}");
        assert!(facts(&report)["rows_not_smaller"].as_u64() >= Some(1), "base64 is no smaller by pglz: {report:#}");
        assert!(bytes(&report, "bytes_after") < bytes(&report, "bytes_before") / 2, "{report:#}");
        assert_eq!(server.sql(&database, HASHES), hashes);
        let kinds =
            "SELECT pg_column_compression(content), count(*) > 0 FROM scripts WHERE length(content) > 2500 GROUP BY 1 ORDER BY 1";
        assert_eq!(server.sql(&database, kinds), "pglz|t\n|t");
        // What is no smaller was not written, and is not by the next run: an update that was taken back would have left its mark.
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 0, "{report:#}");
        let touched = "SELECT count(*) FROM scripts WHERE pg_column_compression(content) IS NULL AND length(content) > 2500 AND xmax <> '0'";
        assert_eq!(server.sql(&database, touched), "0");
        let lz4 = scenario.job("scripts", &format!("{text}compression = 'lz4'\n"));
        let said = lz4.run(&["run-job", "scripts", "--dry-run"]).succeeded().stdout;
        match major {
            15 => assert!(said.contains("lz4 saves too little"), "{said}"),
            _ => assert!(said.contains("no lz4") || said.contains("lz4 saves too little"), "{said}"),
        }
        if major == 15 {
            // The other way round: what lz4 stores is larger than what pglz would.
            server.sql(
                &database,
                "ALTER TABLE scripts ALTER content SET COMPRESSION lz4; UPDATE scripts SET content = content || ''",
            );
            let scenario = lz4.job("scripts", text);
            scenario.run(&["run-job", "scripts"]).succeeded();
            assert_eq!(server.sql(&database, HASHES), hashes);
        }
    }
}

#[test]
fn a_partition_is_written_anew_by_toast_and_its_siblings_are_not() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE all_scripts (id int PRIMARY KEY, content text) PARTITION BY RANGE (id);
             CREATE TABLE scripts PARTITION OF all_scripts FOR VALUES FROM (0) TO (100);
             CREATE TABLE others PARTITION OF all_scripts FOR VALUES FROM (100) TO (200);
             ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL; ALTER TABLE others ALTER content SET STORAGE EXTERNAL;
             INSERT INTO all_scripts SELECT i, repeat('Write-Host ' || i || E'\\r\\n', 500) FROM generate_series(1, 150) i; ANALYZE",
        );
        let hashes = "SELECT md5(string_agg(id || content, ',' ORDER BY id)) FROM all_scripts";
        let before = server.sql(&database, hashes);
        let scenario = scenario(server, &database, "").job("scripts", &job("").replace("'gzip'", "'toast'"));
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(facts(&report)["rows_compressed"], 99, "{report:#}");
        let forms = "SELECT count(pg_column_compression(content)) FROM";
        assert_eq!(server.sql(&database, &format!("{forms} scripts")), "99");
        assert_eq!(server.sql(&database, &format!("{forms} others")), "0");
        assert_eq!(server.sql(&database, hashes), before);
        // A parent has rows of its own, and those of its children: which of them are meant?
        server.sql(&database, "CREATE TABLE parent (id int PRIMARY KEY, content text); CREATE TABLE child () INHERITS (parent)");
        let scenario = scenario.job("scripts", &job("").replace("'gzip'", "'toast'").replace("public.scripts", "public.parent"));
        scenario.run(&["run-job", "scripts"]).exited(78).says(&["public.child inherits from it"]);
    }
}

fn toast_of(table: &str, column: &str, more: &str) -> String {
    format!(
        "database = 'app'\n[compress]\ntable = '{table}'\ncolumn = '{column}'\nmethod = 'toast'\nlarger_than = '2KB'\n{more}\n"
    )
}

#[test]
fn documents_bytes_and_arrays_are_rewritten_and_every_one_stays_what_it_was() {
    for major in [14, 18] {
        let server = server(major);
        let text = "(SELECT string_agg(md5(i % 7 || ' ' || j % 50), ' ') FROM generate_series(1, 200) j)";
        let has_xml = server.psql("postgres", "SELECT '<a/>'::xml").is_ok();
        for (data_type, value, same) in [
            ("jsonb", format!("jsonb_build_object('b', {text}, 'a', ARRAY[1.50, i])"), "content::text"),
            ("jsonb", format!("jsonb_build_array({text}, NULL)"), "content::text"),
            ("json", format!("('  {{\"b\": 1, \"b\":   ' || to_json({text})::text || '}}  ')::json"), "content::text"),
            ("bytea", format!("convert_to({text}, 'UTF8') || '\\x00ff'"), "encode(content, 'hex')"),
            (
                "text[]",
                format!("('[3:5]={{' || {text} || ',NULL,\"x y\"}}')::text[]"),
                "content::text || array_lower(content, 1)",
            ),
            ("varchar(9000)[]", format!("ARRAY[[{text}, 'a'], ['b', 'c']]"), "content::text"),
            ("bigint[]", "ARRAY(SELECT j % 3 + i FROM generate_series(1, 900) j)".to_owned(), "content::text"),
            ("varchar(90000)", text.to_owned(), "content::text"),
            ("xml", format!("('<?xml version=\"1.0\"?>  <a x=\"1\">' || {text} || '</a>')::xml"), "content::text"),
        ] {
            if data_type == "xml" && !has_xml {
                continue;
            }
            let database = server.new_database();
            server.sql(
                &database,
                &format!(
                    "CREATE TABLE items (id int PRIMARY KEY, content {data_type}); ALTER TABLE items ALTER content SET STORAGE EXTERNAL;
                     INSERT INTO items SELECT i, {value} FROM generate_series(1, 30) i; INSERT INTO items VALUES (31, NULL); ANALYZE items"
                ),
            );
            let hashes = format!("SELECT md5(string_agg(id || coalesce({same}, '-'), ',' ORDER BY id)) FROM items");
            let before = server.sql(&database, &hashes);
            let scenario =
                Scenario::with_database(server, &database).job("items", &toast_of("items", "content", "compression = 'pglz'"));
            scenario.run(&["run-job", "items", "--dry-run"]).succeeded().prints(&["30 above larger_than", "pglz: "]);
            let report = scenario.json(&["run-job", "items"]);
            assert_eq!(facts(&report)["rows_compressed"], 30, "{major} {data_type}: {report:#}");
            assert!(bytes(&report, "bytes_after") < bytes(&report, "bytes_before") * 4 / 5, "{report:#}");
            assert_eq!(server.sql(&database, &hashes), before, "{major} {data_type}");
            let forms = "SELECT count(*) FROM items WHERE pg_column_compression(content) IS NOT NULL";
            assert_eq!(server.sql(&database, forms), "30", "{major} {data_type}");
            let report = scenario.json(&["run-job", "items"]);
            assert_eq!(facts(&report)["rows_compressed"], 0, "{report:#}");
        }
    }
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE items (id int PRIMARY KEY, content tsvector)");
    let scenario = Scenario::with_database(server, &database).job("items", &toast_of("items", "content", ""));
    scenario
        .run(&["run-job", "items"])
        .exited(78)
        .says(&["has type tsvector", "text, varchar, bytea, jsonb, json, xml and arrays"]);
}

#[test]
fn values_that_are_all_of_the_form_already_are_counted_and_named() {
    let server = server(18);
    let database = of_5_kb(server, 50);
    let scenario =
        Scenario::with_database(server, &database).job("scripts", &toast_of("scripts", "content", "compression = 'pglz'"));
    scenario
        .run(&["run-job", "scripts", "--dry-run"])
        .succeeded()
        .prints(&["50 above larger_than; 0 to compress", "do nothing: all 50 values above larger_than are pglz already"]);
}

#[test]
fn all_partitions_are_rewritten_in_one_job_and_new_ones_get_the_form() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        let text = "repeat('Write-Host ' || i || E'\r\n', 500)";
        server.sql(
            &database,
            &format!(
                "CREATE TABLE logs (at date, id int, content text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
                 ALTER TABLE logs ALTER content SET STORAGE EXTERNAL;
                 CREATE TABLE logs_z PARTITION OF logs FOR VALUES FROM ('2025-11-01') TO ('2025-12-01');
                 CREATE TABLE logs_a PARTITION OF logs FOR VALUES FROM ('2025-12-01') TO ('2026-01-01') PARTITION BY LIST (id);
                 CREATE TABLE logs_a_1 PARTITION OF logs_a DEFAULT;
                 CREATE TABLE logs_rest PARTITION OF logs DEFAULT;
                 CREATE TABLE logs_empty PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
                 INSERT INTO logs SELECT '2025-11-03', i, {text} FROM generate_series(1, 20) i;
                 INSERT INTO logs SELECT '2025-12-03', i, {text} FROM generate_series(1, 30) i;
                 INSERT INTO logs SELECT '2030-12-03', i, {text} FROM generate_series(1, 10) i; ANALYZE logs"
            ),
        );
        let hashes = "SELECT md5(string_agg(at || '/' || id || content, ',' ORDER BY at, id)) FROM logs";
        let before = server.sql(&database, hashes);
        let scenario = Scenario::with_database(server, &database).ledger().job("logs", &toast_of("logs", "content", ""));
        scenario.run(&["check", "--connect"]).succeeded();
        let plan = scenario.run(&["run-job", "logs", "--dry-run"]).succeeded().stdout;
        let place = |name: &str| plan.find(&format!("\"public\".\"{name}\":")).unwrap_or_else(|| panic!("{name}: {plan}"));
        let order = ["logs_empty", "logs_z", "logs_a_1", "logs_rest"].map(place);
        assert!(order.is_sorted(), "closed ones first, the default last: {plan}");
        assert!(plan.contains("for new partitions: ALTER TABLE ONLY \"public\".\"logs_a\""), "{plan}");
        let report = scenario.json(&["run-job", "logs"]);
        assert_eq!(facts(&report)["rows_compressed"], 60, "{report:#}");
        assert_eq!(facts(&report)["partitions"].as_array().unwrap().len(), 3, "{report:#}");
        assert_eq!(server.sql(&database, hashes), before);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE pg_column_compression(content) IS NULL"), "0");
        // A partition of tomorrow compresses by itself.
        server.sql(
            &database,
            &format!(
                "CREATE TABLE logs_new PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
                 INSERT INTO logs SELECT '2026-01-03', i, {text} FROM generate_series(1, 5) i"
            ),
        );
        let forms = "SELECT count(*), count(DISTINCT pg_column_compression(content)) FROM logs";
        assert_eq!(server.sql(&database, forms), "65|1");
        let report = scenario.json(&["run-job", "logs"]);
        assert_eq!(facts(&report)["rows_compressed"], 0, "{report:#}");
        assert!(
            report["runs"][0]["report"]["summary"].as_str().unwrap().contains("nothing compressed in the 5 partitions"),
            "{report:#}"
        );
        // A partition that cannot be done is named, and the run that could not do all of them acts on none.
        server.sql(&database, "CREATE TABLE keyless (at date, content text) PARTITION BY RANGE (at); CREATE TABLE keyless_1 PARTITION OF keyless DEFAULT");
        let keyless = Scenario::with_database(server, &database).job("logs", &toast_of("keyless", "content", ""));
        keyless.run(&["run-job", "logs"]).exited(78).says(&["keyless_1", "no primary key"]);
    }
}

#[test]
fn a_run_stops_and_names_the_transaction_that_keeps_vacuum_from_freeing_old_values() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE scripts (id int PRIMARY KEY, content text); ALTER TABLE scripts ALTER content SET STORAGE EXTERNAL;
         INSERT INTO scripts SELECT i, repeat('Write-Host ' || i || E'\r\n', 70000) FROM generate_series(1, 110) i; ANALYZE scripts",
    );
    let mut reader = Client::of(server, &database);
    reader.ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    let limits = "[limits]\nmax_wait = '1s'\nstatement_timeout = '60s'";
    let scenario = Scenario::with_database(server, &database).ledger().job("scripts", &toast_of("scripts", "content", limits));
    let report = scenario.json(&["run-job", "scripts"]);
    let done = bytes(&report, "rows_compressed");
    assert!(done > 40 && done < 110, "{report:#}");
    let summary = report["runs"][0]["report"]["summary"].as_str().unwrap();
    assert!(
        summary.contains("stopped for now: VACUUM cannot free") && summary.contains("in its transaction since"),
        "{report:#}"
    );
    // Less than is worth a VACUUM in between: it is done, and said.
    let report = scenario.json(&["run-job", "scripts"]);
    assert!(facts(&report)["not_freed"].as_str().unwrap().contains("because of server process"), "{report:#}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE pg_column_compression(content) IS NULL"), "0");
    reader.ask("COMMIT");
}
