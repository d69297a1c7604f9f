//! Large text that is written anew by TOAST, without a view.

use super::compress::{bytes, facts};
use crate::support::Scenario;
use crate::support::postgres::server;
use crate::support::scripts::{HASHES, database, job, scenario};

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
