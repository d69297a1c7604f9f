//! What a later run compresses, and what that sets off.

use crate::support::postgres::server;
use crate::support::scripts::{BODY, HASHES, job, of_5_kb, scenario};
use crate::support::{Scenario, eventually};

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
        let job = "database = 'app'\n[compress]\ntable = 'scripts'\ncolumn = 'content'\nmethod = 'gzip'\nminimum_gain = 0\n";
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
