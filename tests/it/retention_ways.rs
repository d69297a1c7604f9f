//! Whole partitions, cascades and foreign keys: the short way does what a DELETE of all old rows would, or is not taken.

use serde_json::Value;

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually, scripts};

fn job(server: &Server, database: &str, table: &str, more: &str) -> Scenario {
    Scenario::with_database(server, database).job(
        "old",
        &format!("database = 'app'\n[retention]\ntable = 'public.{table}'\ncolumn = 'at'\nolder_than = '90d'\n{more}\n"),
    )
}

fn facts(report: &Value) -> &Value {
    &report["runs"][0]["report"]["facts"]
}

/// `logs` by 30 days: logs_0 ends 120 days ago, logs_2 60 days ago, logs_4 holds today. A row for each day.
const PARTITIONS: &str = "
    CREATE TABLE logs (id bigint, at timestamptz NOT NULL, hold boolean DEFAULT false) PARTITION BY RANGE (at);
    SELECT format('CREATE TABLE logs_%s PARTITION OF logs FOR VALUES FROM (%L) TO (%L)', i, d, d + interval '30 days')
    FROM (SELECT i, date_trunc('day', now()) - make_interval(days => 150 - 30 * i) AS d FROM generate_series(0, 5) i) w
    \\gexec
    INSERT INTO logs SELECT i, now() - make_interval(days => i), i % 10 = 0 FROM generate_series(0, 149) i;
    CREATE TABLE noted (id bigint);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.noted VALUES (OLD.id); RETURN NULL; END $$;
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN NOT OLD.hold THEN OLD END; END $$;";

fn partitions(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relname ~ '^logs_\\d$'")
}

#[test]
fn row_triggers_of_whole_partitions_fire_and_what_they_keep_stays() {
    for major in [14, 16, 18] {
        let server = server(major);
        for archive in ["", "archive = 'local'"] {
            let database = server.new_database();
            server.sql(
                &database,
                &format!(
                    "{PARTITIONS} CREATE TRIGGER hold BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION hold();
                     CREATE TRIGGER note AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION note()"
                ),
            );
            let scenario = job(server, &database, "logs", archive);
            scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&[
                "public.logs_0 is emptied row by row and is not dropped: trigger hold fires on DELETE; trigger note fires on DELETE",
            ]);
            let report = scenario.json(&["run-job", "old"]);
            assert_eq!(
                (facts(&report)["rows_deleted"].as_u64(), facts(&report)["rows_left"].as_u64()),
                (Some(54), Some(6)),
                "{major} {archive}: {report:#}"
            );
            assert_eq!(server.sql(&database, "SELECT count(*), count(*) FILTER (WHERE hold) FROM logs"), "96|15");
            assert_eq!(server.sql(&database, "SELECT count(*), count(DISTINCT id) FROM noted"), "54|54");
            assert_eq!(partitions(server, &database), "logs_0,logs_1,logs_2,logs_3,logs_4,logs_5");
        }
    }
}

#[test]
fn a_trigger_or_a_rule_of_one_partition_keeps_that_one_from_being_dropped() {
    for major in SOME_MAJORS {
        let server = server(major);
        for (what, says) in [
            ("CREATE TRIGGER note AFTER DELETE ON logs_0 FOR EACH ROW EXECUTE FUNCTION note()", "trigger note fires on DELETE"),
            ("CREATE RULE note AS ON DELETE TO logs_0 DO ALSO INSERT INTO noted VALUES (OLD.id)", "rule note fires on DELETE"),
        ] {
            let database = server.new_database();
            server.sql(&database, &format!("{PARTITIONS} {what}"));
            let scenario = job(server, &database, "logs", "");
            scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&[
                "public.logs_0 is emptied row by row",
                says,
                "detach public.logs_1",
            ]);
            scenario.run(&["run-job", "old"]).succeeded();
            assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "90|89", "{what} on {major}");
            assert_eq!(server.sql(&database, "SELECT count(DISTINCT id) FROM noted"), "29", "{what} on {major}");
            assert_eq!(partitions(server, &database), "logs_0,logs_2,logs_3,logs_4,logs_5");
            // A disabled one fires in no way.
            if what.contains("TRIGGER") {
                server.sql(&database, "ALTER TABLE logs_0 DISABLE TRIGGER note");
                scenario.run(&["run-job", "old"]).succeeded();
                assert_eq!(partitions(server, &database), "logs_2,logs_3,logs_4,logs_5");
            }
        }
    }
}

#[test]
fn what_becomes_of_a_published_tables_rows_at_subscribers_is_said_by_the_job() {
    let server = server(18);
    for publication in ["FOR TABLE logs", "FOR TABLE logs WITH (publish_via_partition_root)", "FOR ALL TABLES"] {
        let database = server.new_database();
        server.sql(&database, &format!("{PARTITIONS} ALTER TABLE noted REPLICA IDENTITY FULL"));
        for table in ["logs", "logs_0", "logs_1", "logs_2", "logs_3", "logs_4", "logs_5"] {
            server.sql(&database, &format!("ALTER TABLE {table} REPLICA IDENTITY FULL"));
        }
        server.sql(&database, &format!("CREATE PUBLICATION p {publication}"));
        job(server, &database, "logs", "").run(&["run-job", "old"]).exited(78).says(&[
            "is published with its deletes (p)",
            "subscribers = \"delete\"",
            "\"keep\"",
        ]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "150");
        let keep = job(server, &database, "logs", "subscribers = 'keep'");
        keep.run(&["run-job", "old", "--dry-run"])
            .succeeded()
            .prints(&["only whole partitions are dropped", "detach public.logs_0"]);
        keep.run(&["run-job", "old"]).succeeded();
        assert_eq!(partitions(server, &database), "logs_2,logs_3,logs_4,logs_5");
        // The row of the partition at the edge is not deleted there, and so not here.
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "91|90", "{publication}");
        let delete = job(server, &database, "logs", "subscribers = 'delete'");
        delete.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&["so that subscribers of p delete them"]);
        delete.run(&["run-job", "old"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "90|89", "{publication}");
        assert_eq!(partitions(server, &database), "logs_2,logs_3,logs_4,logs_5", "{publication}");
    }
    // Where deletes are not passed on, a partition that is dropped is no news to subscribers.
    let database = server.new_database();
    server.sql(&database, &format!("{PARTITIONS} CREATE PUBLICATION p FOR TABLE logs WITH (publish = 'insert')"));
    job(server, &database, "logs", "").run(&["run-job", "old"]).succeeded();
    assert_eq!(partitions(server, &database), "logs_2,logs_3,logs_4,logs_5");
}

#[test]
fn foreign_keys_at_a_partition_are_read_as_those_at_its_table() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "{PARTITIONS} ALTER TABLE logs_0 ADD PRIMARY KEY (id);
                 CREATE TABLE invoice (log_id bigint REFERENCES logs_0 ON DELETE CASCADE); INSERT INTO invoice SELECT id FROM logs_0"
            ),
        );
        job(server, &database, "logs", "")
            .run(&["run-job", "old"])
            .exited(78)
            .says(&["invoice_log_id_fkey", "references public.logs_0 and has no index"]);
        server.sql(&database, "CREATE INDEX ON invoice (log_id)");
        job(server, &database, "logs", "archive = 'local'")
            .run(&["run-job", "old"])
            .exited(78)
            .says(&["invoice_log_id_fkey", "those rows would not be archived"]);
        // By the name of the partition, too.
        job(server, &database, "logs_0", "archive = 'local'")
            .run(&["run-job", "old", "--yes"])
            .exited(78)
            .says(&["would not be archived"]);
        assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM logs), count(*) FROM invoice"), "150|29");
        // One that keeps rows: they stay, and nothing is dropped.
        server.sql(
            &database,
            "ALTER TABLE invoice DROP CONSTRAINT invoice_log_id_fkey, ADD CONSTRAINT keeps FOREIGN KEY (log_id) REFERENCES logs_0;
             DELETE FROM invoice WHERE log_id <> 130",
        );
        let scenario = job(server, &database, "logs", "archive = 'local'");
        scenario
            .run(&["run-job", "old", "--dry-run"])
            .succeeded()
            .prints(&["one by one", "foreign key keeps of public.invoice refers to public.logs_0"]);
        let report = scenario.json(&["run-job", "old"]);
        assert_eq!(facts(&report)["rows_left_by_foreign_key"]["keeps of public.invoice"].as_u64(), Some(1), "{report:#}");
        assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM logs"), "91|130", "on {major}");
    }
}

#[test]
fn rows_that_are_still_referred_to_stay_and_all_others_go() {
    for (major, method) in SOME_MAJORS.into_iter().zip(["index", "blocks", "index"]) {
        let server = server(major);
        for archive in ["", "archive = 'local'"] {
            let database = server.new_database();
            // Most of the referring rows refer to nothing, so that their index is partial.
            server.sql(
                &database,
                "CREATE TABLE run (id bigint PRIMARY KEY, at timestamptz); CREATE INDEX ON run (at);
                 CREATE TABLE invoice (id int, run_id bigint REFERENCES run); CREATE INDEX ON invoice (run_id) WHERE run_id IS NOT NULL;
                 INSERT INTO run SELECT i, now() - interval '100 days' + i * interval '1 minute' FROM generate_series(1, 20000) i;
                 INSERT INTO invoice SELECT i, CASE WHEN i IN (1, 500, 7000) THEN i END FROM generate_series(1, 10000) i; ANALYZE run",
            );
            let scenario = job(server, &database, "run", &format!("method = '{method}'\n{archive}"));
            for deleted in [14_397, 0] {
                let report = scenario.json(&["run-job", "old"]);
                let rows = facts(&report)["rows_deleted"].as_u64().unwrap();
                assert!(rows.abs_diff(deleted) < 20, "{method} {archive} on {major}: {report:#}");
                assert_eq!(
                    (
                        facts(&report)["rows_left"].as_u64(),
                        facts(&report)["rows_left_by_foreign_key"]["invoice_run_id_fkey of public.invoice"].as_u64()
                    ),
                    (Some(3), Some(3)),
                    "{report:#}"
                );
                assert!(
                    report["runs"][0]["report"]["warnings"]
                        .to_string()
                        .contains("3 rows by invoice_run_id_fkey of public.invoice"),
                    "{report:#}"
                );
            }
            assert_eq!(
                server.sql(&database, "SELECT string_agg(id::text, ',' ORDER BY id) FROM run WHERE id < 14000"),
                "1,500,7000",
                "{method} {archive} on {major}"
            );
        }
    }
}

#[test]
fn a_row_whose_cascade_would_meet_a_kept_row_stays() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE run (id int, tenant int, at timestamptz, PRIMARY KEY (tenant, id));
         CREATE TABLE step (id int PRIMARY KEY, tenant int, run int, FOREIGN KEY (tenant, run) REFERENCES run ON DELETE CASCADE); CREATE INDEX ON step (run, tenant);
         CREATE TABLE bill (step int REFERENCES step ON DELETE RESTRICT); CREATE INDEX ON bill (step);
         INSERT INTO run SELECT i, 7, now() - make_interval(days => i) FROM generate_series(1, 200) i;
         INSERT INTO step SELECT i, 7, i FROM generate_series(1, 200) i; INSERT INTO bill VALUES (150), (10)",
    );
    let report = job(server, &database, "run", "").json(&["run-job", "old"]);
    assert_eq!(facts(&report)["rows_left_by_foreign_key"]["bill_step_fkey of public.bill"].as_u64(), Some(1), "{report:#}");
    assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM run), count(*), max(id) FROM step"), "90|90|150");
    // Who refers to the rows must be seen.
    let role = format!("retains_{database}");
    server.sql(&database, &format!("CREATE ROLE {role} LOGIN; GRANT SELECT, UPDATE, DELETE ON run, step TO {role}; INSERT INTO run VALUES (300, 7, now() - interval '300 days')"));
    let text = "database = 'app'\n[retention]\ntable = 'public.run'\ncolumn = 'at'\nolder_than = '90d'\n";
    let as_role = Scenario::with_url(server, &server.url_as(&role, &database)).job("old", text);
    as_role.run(&["run-job", "old"]).exited(77).says(&["still referenced", "GRANT SELECT ON public.bill TO the role"]);
    server.sql(&database, &format!("GRANT SELECT ON bill TO {role}"));
    as_role.run(&["run-job", "old"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*), max(id) FROM run"), "90|150");
    server.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn of_a_table_that_refers_to_itself_children_go_before_their_parents() {
    for (major, archive) in SOME_MAJORS.into_iter().zip(["", "archive = 'local'", ""]) {
        let server = server(major);
        let database = server.new_database();
        // Parents are older than their children; a tenth of the children are young.
        server.sql(
            &database,
            "CREATE TABLE job (id bigint PRIMARY KEY, parent bigint REFERENCES job, at timestamptz); CREATE INDEX ON job (parent); CREATE INDEX ON job (at);
             INSERT INTO job SELECT i, CASE WHEN i > 10000 THEN i - 10000 END, now() - interval '200 days' + i * interval '1 second' FROM generate_series(1, 20000) i;
             UPDATE job SET at = now() WHERE id > 10000 AND id % 10 = 0;
             INSERT INTO job VALUES (30001, 30001, now() - interval '100 days'), (30002, NULL, now() - interval '100 days'), (30003, 30002, now() - interval '100 days');
             UPDATE job SET parent = 30003 WHERE id = 30002;
             -- A chain over all blocks, the wrong way round.
             INSERT INTO job SELECT 40000 + i, CASE WHEN i > 1 THEN 40000 + i - 1 END, now() - interval '150 days' FROM generate_series(1, 3000) i;
             ANALYZE job",
        );
        let scenario = job(server, &database, "job", archive);
        scenario
            .run(&["run-job", "old", "--dry-run", "--yes"])
            .succeeded()
            .prints(&["it references itself (job_parent_fkey), and children go before"]);
        let report = scenario.json(&["run-job", "old", "--yes"]);
        assert_eq!(
            (
                facts(&report)["rows_left"].as_u64(),
                facts(&report)["rows_left_by_foreign_key"]["job_parent_fkey of public.job"].as_u64()
            ),
            (Some(1000), Some(1000)),
            "on {major}: {report:#}"
        );
        assert_eq!(
            server.sql(&database, "SELECT count(*), count(*) FILTER (WHERE parent IS NULL) FROM job"),
            "2000|1000",
            "on {major}"
        );
        scenario.run(&["run-job", "old"]).succeeded();
        server.sql(
            &database,
            "UPDATE job SET at = at - interval '1 year' WHERE parent IS NOT NULL; INSERT INTO job VALUES (50000, NULL, now())",
        );
        scenario.run(&["run-job", "old", "--yes"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT string_agg(id::text, ',') FROM job"), "50000", "on {major}");
    }
}

#[test]
fn an_audit_takes_an_index_of_all_rows_that_refer_to_something() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz);
         CREATE TABLE c (id bigint PRIMARY KEY, log_id bigint REFERENCES log, other bigint REFERENCES log, done boolean);
         CREATE INDEX ON c (log_id) WHERE log_id IS NOT NULL; CREATE INDEX ON c (other) WHERE done",
    );
    let found = Scenario::with_database(server, &database).run(&["audit", "--database", "app", "--check", "fk-unindexed"]);
    assert!(found.stdout.contains("(other)") && !found.stdout.contains("(log_id)"), "{found:?}");
}

/// Scripts with versions, of which some have notes, and comments that answer each other; bills keep every 50th script's version.
const TREE: &str = "
    CREATE TABLE scripts (id int PRIMARY KEY, at timestamptz); CREATE INDEX ON scripts (at);
    CREATE TABLE versions (id int PRIMARY KEY, script int REFERENCES scripts ON DELETE CASCADE, body text); CREATE INDEX ON versions (script);
    CREATE TABLE notes (id int PRIMARY KEY, version int REFERENCES versions, script int REFERENCES scripts); CREATE INDEX ON notes (version); CREATE INDEX ON notes (script);
    CREATE TABLE comments (id int PRIMARY KEY, script int REFERENCES scripts ON DELETE SET NULL, answers int REFERENCES comments);
    CREATE INDEX ON comments (script); CREATE INDEX ON comments (answers);
    CREATE TABLE bills (version int REFERENCES versions); CREATE INDEX ON bills (version);
    INSERT INTO scripts SELECT i, now() - make_interval(hours => i) FROM generate_series(1, :scripts) i;
    INSERT INTO versions SELECT i, (i - 1) / 3 + 1, 'body ' || i FROM generate_series(1, 3 * :scripts) i;
    INSERT INTO notes SELECT i, i * 2, CASE WHEN i % 5 = 0 THEN (i * 2 - 1) / 3 + 1 END FROM generate_series(1, :scripts) i;
    INSERT INTO comments SELECT i, (i - 1) / 2 + 1, CASE WHEN i % 2 = 0 THEN i - 1 END FROM generate_series(1, 2 * :scripts) i;
    INSERT INTO bills SELECT 3 * i FROM generate_series(50, :scripts, 50) i;";
const TREE_ROWS: &str = "SELECT string_agg(n || ' ' || h, ', ' ORDER BY t) FROM (
    SELECT 1, count(*), sum(hashtext(r::text)::bigint) FROM scripts r UNION ALL SELECT 2, count(*), sum(hashtext(r::text)::bigint) FROM versions r
    UNION ALL SELECT 3, count(*), sum(hashtext(r::text)::bigint) FROM notes r UNION ALL SELECT 4, count(*), sum(hashtext(r::text)::bigint) FROM comments r) u (t, n, h)";
/// Of trees: those of which a part is there, and a part is not.
const HALVES: &str = "SELECT count(*) FROM generate_series(1, :scripts) i
    WHERE (SELECT count(*) FROM scripts WHERE id = i) * 3 <> (SELECT count(*) FROM versions WHERE (id - 1) / 3 + 1 = i)
       OR (SELECT count(*) FROM scripts WHERE id = i) * 2 <> (SELECT count(*) FROM comments WHERE (id - 1) / 2 + 1 = i)";

fn with_tree(server: &Server, scripts: u32) -> String {
    let database = server.new_database();
    server.sql(&database, &format!("{}; ANALYZE", TREE.replace(":scripts", &scripts.to_string())));
    database
}

const CASCADE: &str = "cascade = ['public.versions', 'notes', 'public.comments']";

#[test]
fn rows_of_other_tables_go_with_those_that_they_refer_to_and_come_back_with_them() {
    for (major, method) in SOME_MAJORS.into_iter().zip(["index", "blocks", "index"]) {
        let server = server(major);
        for archive in ["", "archive = 'local'"] {
            let database = with_tree(server, 3000);
            let before = server.sql(&database, TREE_ROWS);
            let more = format!("method = '{method}'\n{CASCADE}\n{archive}");
            let scenario = job(server, &database, "scripts", &more);
            scenario.run(&["run-job", "old", "--dry-run"]).succeeded().prints(&[
                "rows that go in the same transaction as the rows that they reference",
                "foreign key versions_script_fkey of public.versions: its rows that reference these go first (cascade)",
            ]);
            let report = scenario.json(&["run-job", "old"]);
            // 90 days are 2160 hours; of the 841 scripts beyond, 17 have a bill.
            let (rows, left) = (facts(&report)["rows_deleted"].as_u64().unwrap(), facts(&report)["rows_left"].as_u64());
            assert_eq!((rows, left), (824, Some(17)), "{method} {archive} on {major}: {report:#}");
            assert_eq!(
                facts(&report)["rows_left_by_foreign_key"]["bills_version_fkey of public.bills"].as_u64(),
                Some(17),
                "{report:#}"
            );
            assert_eq!(server.sql(&database, &HALVES.replace(":scripts", "3000")), "0", "{method} {archive} on {major}");
            assert_eq!(
                server.sql(
                    &database,
                    "SELECT (SELECT count(*) FROM scripts), (SELECT count(*) FROM versions), count(*) FROM comments"
                ),
                "2176|6528|4352"
            );
            if !archive.is_empty() {
                scenario.run(&["archives", "restore"]).succeeded();
                assert_eq!(server.sql(&database, TREE_ROWS), before, "{method} on {major}");
            }
        }
    }
}

#[test]
fn what_would_tear_a_tree_apart_is_refused() {
    let server = server(18);
    let database = with_tree(server, 3000);
    let run = |more: &str| job(server, &database, "scripts", more).run(&["run-job", "old"]);
    run("archive = 'local'").exited(78).says(&["those rows would not be archived", "to `cascade`"]);
    run("archive = 'local'\ncascade = ['versions', 'notes']").exited(78).says(&["comments_script_fkey", "would not be archived"]);
    run("cascade = ['nothing']").exited(78).says(&["there is no table nothing"]);
    run("cascade = ['versions', 'bills', 'scripts']").exited(78).says(&["references neither"]);
    server.sql(&database, "DROP INDEX notes_version_idx");
    run(CASCADE).exited(78).says(&["notes_version_fkey", "has no index"]);
    server.sql(&database, "CREATE INDEX ON notes (version)");
    server.sql(&database, "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER hold BEFORE DELETE ON scripts FOR EACH ROW WHEN (OLD.id = 2901) EXECUTE FUNCTION hold()");
    for archive in ["", "archive = 'local'"] {
        run(&format!("{CASCADE}\n{archive}")).exited(1).says(&["a trigger keeps some"]);
        assert_eq!(server.sql(&database, &HALVES.replace(":scripts", "3000")), "0");
    }
}

#[test]
fn killed_at_any_moment_no_tree_is_half_there_and_none_is_lost() {
    let server = server(16);
    let database = with_tree(server, 12_000);
    let before = server.sql(&database, TREE_ROWS);
    let scenario = job(server, &database, "scripts", &format!("archive = 'local'\n{CASCADE}\n[limits]\npause = '20ms'"));
    for round in 0..12 {
        let running = scenario.start(&["run-job", "old"]);
        std::thread::sleep(std::time::Duration::from_millis(60 + 70 * round));
        running.kill();
    }
    eventually("what a killed run left is ended", || scenario.run(&["run-job", "old"]).code == Some(0));
    assert_eq!(server.sql(&database, &HALVES.replace(":scripts", "12000")), "0");
    scenario.run(&["archives", "restore"]).succeeded();
    assert_eq!(server.sql(&database, TREE_ROWS), before);
}

#[test]
fn the_newest_rows_of_each_key_stay_whatever_their_age() {
    for (major, archive) in SOME_MAJORS.into_iter().zip(["", "archive = 'local'", ""]) {
        let server = server(major);
        let database = server.new_database();
        // Script 1 has 40 rows, 2 has 3, NULL has 50; two of 1 are of the same moment.
        server.sql(
            &database,
            "CREATE TABLE logs (id int, script_id int, at timestamptz); CREATE INDEX ON logs (script_id, at);
             INSERT INTO logs SELECT i, 1, now() - make_interval(days => 5 * i) FROM generate_series(1, 40) i;
             UPDATE logs SET at = (SELECT at FROM logs WHERE id = 10) WHERE id = 11;
             INSERT INTO logs SELECT 100 + i, 2, now() - make_interval(days => 300 + i) FROM generate_series(1, 3) i;
             INSERT INTO logs SELECT 200 + i, NULL, now() - make_interval(days => 300 + i) FROM generate_series(1, 50) i",
        );
        let text = |keys: &str| {
            Scenario::with_database(server, &database)
                .job("old", &format!("database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'at'\n{keys}\n{archive}\n"))
        };
        // Old, and not among the newest.
        let both = text("older_than = '90d'\nkeep_newest = 10\nper = 'script_id'");
        both.run(&["run-job", "old", "--dry-run"])
            .succeeded()
            .prints(&["older than 90d and beyond the newest 10 of each script_id"]);
        both.run(&["run-job", "old"]).succeeded();
        assert_eq!(
            server.sql(
                &database,
                "SELECT count(*) FILTER (WHERE script_id = 1), count(*) FILTER (WHERE script_id = 2), count(*) FROM logs"
            ),
            "17|3|70"
        );
        let newest = text("keep_newest = 10\nper = 'script_id'");
        newest.run(&["run-job", "old"]).succeeded().prints(&["7 rows"]);
        assert_eq!(server.sql(&database, "SELECT count(*), min(id) FROM logs WHERE script_id = 1"), "10|1", "on {major}");
        newest.run(&["run-job", "old"]).succeeded().prints(&["0 rows"]);
        text("keep_newest = 10\nper = 'id'").run(&["run-job", "old"]).exited(78).says(&["no index of", "begins with \"id\""]);
        text("keep_newest = 10").run(&["check"]).exited(78).says(&["`keep_newest` without `per`"]);
        text("").run(&["check"]).exited(78).says(&["does not say which rows to keep"]);
    }
}

#[test]
fn a_job_follows_the_view_that_a_compress_job_has_put_in_its_tables_place() {
    let server = server(18);
    let database = scripts::database(server, 150);
    server.sql(
        &database,
        "ALTER TABLE scripts ADD at timestamptz DEFAULT now(); UPDATE scripts SET at = now() - interval '1 year' WHERE id % 3 = 0",
    );
    let scenario = scripts::scenario(server, &database, "").job(
        "old",
        "database = 'app'\n[retention]\ntable = 'public.scripts'\ncolumn = 'at'\nolder_than = '90d'\narchive = 'local'\n",
    );
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, scripts::HASHES);
    scenario.run(&["run-job", "old"]).succeeded().prints(&["scripts_stored"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE id % 3 = 0"), "0");
    scenario.run(&["archives", "restore"]).succeeded();
    assert_eq!(server.sql(&database, scripts::HASHES), hashes);
    server.sql(&database, "CREATE VIEW seen AS SELECT * FROM scripts");
    job(server, &database, "seen", "").run(&["run-job", "old"]).exited(78).says(&["is not a table"]);
}

/// They would take the places of all real ones, and these would go.
#[test]
fn of_the_newest_that_stay_values_that_are_no_time_take_no_place() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE ids (at uuid PRIMARY KEY, k int NOT NULL, v text); CREATE INDEX ON ids (k, at);
         INSERT INTO ids SELECT ('ffffffff-ffff-4fff-8fff-ffffffffff' || lpad(g::text, 2, '0'))::uuid, 1, 'random' FROM generate_series(1, 5) g;
         INSERT INTO ids SELECT ('019a0000-0000-7000-8000-0000000000' || lpad(g::text, 2, '0'))::uuid, 1, 'time' FROM generate_series(1, 5) g;
         CREATE TABLE times (at timestamptz NOT NULL, k int NOT NULL, v text); CREATE INDEX ON times (k, at);
         INSERT INTO times SELECT 'infinity', 1, 'never' FROM generate_series(1, 3);
         INSERT INTO times SELECT now() - make_interval(days => g), 1, 'time' FROM generate_series(1, 5) g",
    );
    for (table, others) in [("ids", "5"), ("times", "3")] {
        let text =
            format!("database = 'app'\n[retention]\ntable = 'public.{table}'\ncolumn = 'at'\nkeep_newest = 2\nper = 'k'\n");
        Scenario::with_database(server, &database).job("old", &text).run(&["run-job", "old", "--yes"]).succeeded();
        let left = server.sql(
            &database,
            &format!("SELECT count(*) FILTER (WHERE v = 'time'), count(*) FILTER (WHERE v <> 'time') FROM {table}"),
        );
        assert_eq!(left, format!("2|{others}"), "{table}");
    }
}

#[test]
fn children_that_a_trigger_keeps_from_us_do_not_go_by_the_databases_own_cascade() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE ord (id int PRIMARY KEY, at timestamptz NOT NULL); CREATE INDEX ON ord (at);
         CREATE TABLE line (id int PRIMARY KEY, ord_id int NOT NULL REFERENCES ord ON DELETE CASCADE); CREATE INDEX ON line (ord_id);
         INSERT INTO ord SELECT g, now() - interval '100 days' + g * interval '1 minute' FROM generate_series(1, 50) g;
         INSERT INTO ord SELECT g, now() FROM generate_series(51, 100) g;
         INSERT INTO line SELECT g, (g - 1) / 3 + 1 FROM generate_series(1, 300) g;
         CREATE FUNCTION with_their_order() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF pg_trigger_depth() = 1 THEN RETURN NULL; END IF; RETURN OLD; END $$;
         CREATE TRIGGER t BEFORE DELETE ON line FOR EACH ROW EXECUTE FUNCTION with_their_order()",
    );
    for archive in ["archive = 'local'", ""] {
        let scenario = job(server, &database, "ord", &format!("{archive}\ncascade = ['public.line']"));
        scenario.run(&["run-job", "old", "--yes"]).exited(1).says(&["a trigger or a rule keeps them"]);
        assert_eq!(
            server.sql(&database, "SELECT (SELECT count(*) FROM ord), (SELECT count(*) FROM line)"),
            "100|300",
            "{archive}"
        );
    }
}

#[test]
fn a_rule_that_does_something_instead_of_a_delete_is_refused() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE soft (id int PRIMARY KEY, at timestamptz NOT NULL, deleted bool DEFAULT false); CREATE INDEX ON soft (at);
         INSERT INTO soft SELECT g, now() - interval '100 days' FROM generate_series(1, 10) g; INSERT INTO soft SELECT g, now() FROM generate_series(11, 20) g;
         CREATE RULE soft AS ON DELETE TO soft DO INSTEAD UPDATE soft SET deleted = true WHERE id = OLD.id RETURNING OLD.*",
    );
    let scenario = job(server, &database, "soft", "archive = 'local'");
    scenario.run(&["run-job", "old"]).exited(78).says(&["rule soft", "INSTEAD of a DELETE"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM soft WHERE deleted"), "0");
}

/// They came while the detach waited: after the plan had looked.
#[test]
fn a_partition_that_gets_rows_without_a_time_while_it_is_detached_is_attached_again() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at); CREATE INDEX ON logs (at);
             CREATE TABLE logs_first PARTITION OF logs FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
             CREATE TABLE logs_rest PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
             INSERT INTO logs SELECT i, '2019-06-01' FROM generate_series(1, 20) i; INSERT INTO logs SELECT i, now() FROM generate_series(1, 200) i",
        );
        let scenario = job(server, &database, "logs", "");
        let held = server.session(&database, "BEGIN; LOCK TABLE logs_first IN SHARE UPDATE EXCLUSIVE MODE");
        let run = scenario.start(&["run-job", "old"]);
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the job waits for the partition", || server.sql(&database, waits) != "0");
        held.ends_with("INSERT INTO logs SELECT i, '0001-01-01' FROM generate_series(1, 5) i; COMMIT");
        run.wait().succeeded().says(&["logs_first was attached again"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE at < '0002-01-01'"), "5", "{major}");
        // It is no half-retired table.
        server.sql(&database, "DELETE FROM logs WHERE at < '0002-01-01'");
        scenario.run(&["run-job", "old"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "200", "{major}");
    }
}
