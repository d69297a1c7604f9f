//! How a dump's stream goes into a server: all of it or nothing, with every table counted, whatever is in the dump and
//! however the server is set up.

use std::process::Command;

use crate::support::postgres::{MAJORS, Server, server};
use crate::support::{Scenario, eventually};

/// A set of a database made by this SQL.
fn set_of(server: &Server, sql: &str) -> (Scenario, String) {
    set_in(server, server.new_database(), sql)
}

fn set_in(server: &Server, database: String, sql: &str) -> (Scenario, String) {
    server.sql(&database, sql);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    (scenario, database)
}

fn restore(scenario: &Scenario, url: &str, more: &[&str]) -> crate::support::Output {
    scenario.run(&[&["backups", "restore", "latest", "--into", url], more].concat())
}

/// Everything about a database that a dump carries.
fn fingerprint(server: &Server, database: &str) -> String {
    let output = server.tool("pg_dump", database).arg("--no-sync").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap();
    dump.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

/// Tables and large objects of a database.
fn contents(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace), (SELECT count(*) FROM pg_largeobject_metadata)")
}

/// Large objects come between the tables' rows and their keys, in a transaction of their own.
const WITH_LARGE_OBJECTS: &str = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p);
    INSERT INTO c SELECT NULL FROM generate_series(1, 60000);
    SELECT lo_from_bytea(0, decode(repeat('c0ffee', 30000), 'hex')) FROM generate_series(1, 3);";

#[test]
fn after_a_restore_that_failed_behind_its_large_objects_an_existing_database_is_as_it_was() {
    for major in MAJORS {
        let server = server(major);
        let broken = "SET session_replication_role = replica; INSERT INTO c VALUES (99);";
        let (scenario, _) = set_of(server, &format!("{WITH_LARGE_OBJECTS}{broken}"));
        let scenario = scenario.backup_job("local", "");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let empty = server.empty_database();
        restore(&scenario, &server.url(&empty), &[]).exited(1).says(&["is unchanged", "c_p_fkey"]);
        assert_eq!(contents(server, &empty), "0|0", "{major}");
    }
}

#[test]
pub fn a_damaged_last_member_leaves_no_large_object_behind() {
    let server = server(18);
    let (scenario, database) = set_of(server, WITH_LARGE_OBJECTS);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let dump = scenario.path(&format!("store/{}/{}", scenario.sets()[0], scenario.object("dump.sql.gz")));
    let good = std::fs::read(&dump).unwrap();
    let mut bytes = good.clone();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    scenario.also_in_the_second_store("store");
    let empty = server.empty_database();
    restore(&scenario, &server.url(&empty), &[]).exited(1).says(&["is unchanged"]);
    assert_eq!(contents(server, &empty), "0|0");

    std::fs::write(&dump, good).unwrap();
    scenario.also_in_the_second_store("store");
    restore(&scenario, &server.url(&empty), &[]).succeeded();
    assert_eq!(fingerprint(server, &database), fingerprint(server, &empty));
    assert_eq!(contents(server, &empty), "3|3");
    restore(&scenario, &server.url(&empty), &[]).exited(78).says(&["is not empty"]);
}

/// A set whose dump has a line more than pg_dump wrote.
fn set_with_line(server: &Server, line: &str) -> Scenario {
    use std::os::unix::fs::PermissionsExt as _;
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x; CREATE INDEX i ON t (x)");
    let scenario = Scenario::empty().config(&format!(
        "[databases.app]\nurl = '{}'\n[stores.local]\npath = \"store\"\n[tools]\nbin_dir = \"bin\"\n",
        server.url(&database)
    ));
    std::fs::create_dir(scenario.path("bin")).unwrap();
    for tool in ["pg_dump", "pg_dumpall"] {
        let real = server.bin_dir.join(tool);
        let filter = format!("sed 's|^CREATE INDEX|{line}\\n&|'");
        let text = format!("#!/bin/bash\n[ \"$1\" = --version ] && exec '{0}' \"$@\"\n'{0}' \"$@\" | {filter}\n", real.display());
        std::fs::write(scenario.path(&format!("bin/{tool}")), text).unwrap();
        std::fs::set_permissions(scenario.path(&format!("bin/{tool}")), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

#[test]
fn statements_that_commit_by_themselves_leave_nothing_of_a_restore_that_failed() {
    let server = server(18);
    for (line, says) in [
        ("COMMIT; ALTER TABLE nowhere.nothing ADD a int;", "nowhere"),
        ("end;", "ends transactions"),
        ("ROLLBACK;", "ends transactions"),
        ("PREPARE TRANSACTION 'x';", "ends transactions"),
        ("CALL pg_temp.nothing();", "is unchanged"),
        ("DO $$BEGIN COMMIT; END$$;", "never writes"),
        ("\\\\! touch pwned", "psql command"),
    ] {
        let scenario = set_with_line(server, &line.replace('\'', "'\\''"));
        let empty = server.empty_database();
        restore(&scenario, &server.url(&empty), &[]).exited(1).says(&[says, "is unchanged"]);
        assert_eq!(contents(server, &empty), "0|0", "{line}");
        assert!(!scenario.path("pwned").exists());
    }
}

#[test]
fn a_database_of_large_objects_alone_is_not_empty() {
    let server = server(18);
    let (scenario, _) = set_of(server, "CREATE TABLE t (x int)");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let full = server.empty_database();
    server.sql(&full, "SELECT lo_from_bytea(0, 'mine')");
    restore(&scenario, &server.url(&full), &[]).exited(78).says(&["is not empty (1 objects)"]);
}

#[test]
fn bodies_and_rules_of_several_statements_come_back_as_they_were() {
    for major in MAJORS {
        let server = server(major);
        let (scenario, database) = set_of(
            server,
            "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, E'\\\\.\\n\\\\.'), (2, 'COMMIT;');
             CREATE TABLE log (a int);
             CREATE FUNCTION f(x int) RETURNS int LANGUAGE sql BEGIN ATOMIC
                 INSERT INTO log VALUES (CASE WHEN x > 1 THEN 1 ELSE 2 END); SELECT x; END;
             CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (1); COMMIT; END $$;
             CREATE RULE r AS ON DELETE TO t DO ALSO (INSERT INTO log VALUES (1); INSERT INTO log VALUES (2));
             CREATE VIEW v AS SELECT E'it''s \\\\; ''' AS s, '$$;' AS d;
             COMMENT ON TABLE t IS 'COMMIT;
ROLLBACK;
\\! false
';
             CREATE FUNCTION \"we;ird$1\"() RETURNS text LANGUAGE sql AS $a$ SELECT $$ ; $b$ $$ $a$;",
        );
        scenario.run(&["run-job", "nightly"]).succeeded();
        for create in [&["--create"][..], &[]] {
            let copy = if create.is_empty() { server.empty_database() } else { format!("{database}_copy") };
            restore(&scenario, &server.url(&copy), create).succeeded();
            assert_eq!(fingerprint(server, &database), fingerprint(server, &copy), "{major}");
        }
    }
}

#[test]
fn a_subscriber_is_backed_up_each_night_and_its_copy_takes_no_slot() {
    for major in [16, 18] {
        let server = server(major);
        let (scenario, database) = set_of(
            server,
            "CREATE TABLE t (id int PRIMARY KEY); \
             CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'of_s'); \
             COMMENT ON SUBSCRIPTION s IS 'x'",
        );
        for night in 1..=2 {
            scenario.run(&["run-job", "nightly"]).succeeded();
            let proofs = scenario.json(&["backups", "list"]);
            assert_eq!(proofs["sets"].as_array().unwrap().len(), night, "{proofs}");
            assert!(proofs["sets"].as_array().unwrap().iter().all(|set| set["restored"] == true), "{proofs}");
        }
        let subscriptions = |database: &str| {
            server.sql(database, "SELECT subname, subslotname, subenabled FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database()")
        };
        assert_eq!(subscriptions(&database), "s|of_s|f");
        for create in [&["--create"][..], &[]] {
            let copy = if create.is_empty() { server.empty_database() } else { format!("{database}_copy") };
            restore(&scenario, &server.url(&copy), create).succeeded().says(&[
                "the subscription s was restored without its replication slot",
                "ALTER SUBSCRIPTION \"s\" SET (slot_name = 'of_s')",
            ]);
            assert_eq!(subscriptions(&copy), "s||f");
        }
    }
}

#[test]
fn partitions_by_the_hash_of_an_enum_are_counted_by_their_root() {
    for major in MAJORS {
        let server = server(major);
        let (scenario, database) = set_of(
            server,
            "CREATE TYPE mood AS ENUM ('a', 'b', 'c');
             CREATE TABLE ev (id int, m mood) PARTITION BY HASH (m);
             CREATE TABLE ev0 PARTITION OF ev FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE ev1 PARTITION OF ev FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY LIST (m);
             CREATE TABLE ev1a PARTITION OF ev1 DEFAULT;
             CREATE TABLE by_day (at date, m mood) PARTITION BY RANGE (at);
             CREATE TABLE by_day_1 PARTITION OF by_day FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY HASH (m);
             CREATE TABLE by_day_1a PARTITION OF by_day_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE by_day_2 PARTITION OF by_day DEFAULT;
             INSERT INTO ev SELECT g, (ARRAY['a','b','c'])[1 + g % 3]::mood FROM generate_series(1, 1000) g;
             INSERT INTO by_day SELECT date '2026-06-01' + g, 'a' FROM generate_series(1, 500) g;",
        );
        scenario.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], true, "{major}");
        let copy = format!("{database}_copy");
        restore(&scenario, &server.url(&copy), &["--create"]).succeeded();
        assert_eq!(server.sql(&copy, "SELECT (SELECT count(*) FROM ev), (SELECT count(*) FROM by_day)"), "1000|500");
    }
}

#[test]
fn a_log_of_ddl_is_restored_row_by_row_and_not_written_to() {
    for major in MAJORS {
        let server = server(major);
        let (scenario, database) = set_of(
            server,
            "CREATE TABLE ddl_log (at timestamptz DEFAULT now(), tag text);
             CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END$$;
             CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION log_ddl();
             CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM ddl_log;
             CREATE MATERIALIZED VIEW mv2 AS SELECT count(*) FROM mv;",
        );
        scenario.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], true, "{major}");
        let copy = format!("{database}_copy");
        restore(&scenario, &server.url(&copy), &["--create"]).succeeded();
        let rows = |database: &str| server.sql(database, "SELECT tag, count(*) FROM ddl_log GROUP BY tag ORDER BY tag");
        assert_eq!(rows(&database), rows(&copy), "{major}");
        server.sql(&copy, "CREATE TABLE more (x int)");
        assert_ne!(rows(&database), rows(&copy), "the trigger is there, and fires for others");
    }
}

#[test]
fn a_table_that_lost_rows_meanwhile_is_named_with_both_counts() {
    let server = server(18);
    let (scenario, database) = set_of(
        server,
        "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN IF current_database() LIKE 'pgtend_restore%' THEN PERFORM pg_sleep(5); END IF; RETURN $1; END$$;
         CREATE TABLE loses AS SELECT i FROM generate_series(1, 1200) i; CREATE TABLE z AS SELECT 1 AS i; CREATE INDEX ON z (slow(i))",
    );
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let waiting = || {
        server.sql("postgres", "SELECT datname FROM pg_stat_activity WHERE datname LIKE 'pgtend_restore%' AND query LIKE '%slow(i)%' AND wait_event = 'PgSleep'")
    };
    eventually("the restore waits", || !waiting().is_empty());
    server.sql(&waiting(), "DELETE FROM loses WHERE i <= 3");
    running.wait().exited(1).says(&["public.loses has 1,197 rows and the manifest says 1,200", "was not restored"]);
    assert_eq!(server.sql("postgres", &format!("SELECT count(*) FROM pg_database WHERE datname = '{copy}'")), "0");
}

/// A role of a server whose messages are German: it may not choose another language for itself.
fn german_role(server: &Server, name: &str) {
    let locales = String::from_utf8(Command::new("locale").arg("-a").output().unwrap().stdout).unwrap();
    assert!(locales.to_lowercase().contains("de_de.utf8"), "no German locale: run scripts/setup");
    server.sql("postgres", &format!("CREATE ROLE {name} LOGIN CREATEDB; ALTER ROLE {name} SET lc_messages = 'de_DE.UTF-8'"));
    let said = server.tool("psql", "postgres").args(["-Xc", "SELECT nonsense"]).env("PGUSER", name).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("FEHLER"), "{said:?}");
}

#[test]
fn a_full_disk_is_one_in_german_too() {
    let server = Server::start_with_a_small_disk(15, 20);
    german_role(&server, "deutsch");
    server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", server.path("small").display()));
    server.sql("postgres", "CREATE DATABASE tiny OWNER deutsch TABLESPACE small");
    let (scenario, _) = set_in(
        &server,
        server.empty_database(),
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) AS body FROM generate_series(1, 80000) i; ALTER TABLE t OWNER TO deutsch",
    );
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    restore(&scenario, &server.url_as("deutsch", "tiny"), &[]).exited(1).says(&[
        "SQLSTATE 53100",
        "The target's disk is full",
        "is unchanged",
        "TABLE DATA t in schema public",
    ]);
    assert_eq!(contents(&server, "tiny"), "0|0");
}

#[test]
fn a_refusal_of_rights_is_one_in_german_too() {
    let server = server(15);
    german_role(server, "deutsch_ohne_rechte");
    let (scenario, database) = set_in(
        server,
        server.empty_database(),
        "CREATE ROLE somebody15; CREATE TABLE t (x int); ALTER TABLE t OWNER TO somebody15; GRANT SELECT ON t TO deutsch_ohne_rechte",
    );
    let scenario =
        scenario.config(&format!("[databases.scratch]\nurl = '{}'\n", server.url_as("deutsch_ohne_rechte", &database)));
    let scenario = scenario.backup_job("local", "verify = \"restore\"\nscratch = \"scratch\"");
    // Owners do not matter for a proof; what only a superuser makes does.
    server.sql(&database, "CREATE PUBLICATION all_of_it FOR ALL TABLES");
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["SQLSTATE 42501", "all_of_it"]);
    let output = scenario.run(&["run-job", "nightly"]);
    assert!(!output.stderr.contains("--no-owner") && !output.stderr.contains("--on-error"), "{}", output.stderr);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], false);
    server.sql(&database, "DROP PUBLICATION all_of_it");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let url = server.url_as("deutsch_ohne_rechte", &copy);
    restore(&scenario, &url, &["--create"]).exited(77).says(&["SQLSTATE 42501", "somebody15", "--no-owner"]);
    restore(&scenario, &url, &["--create", "--no-owner"]).succeeded();
}

#[test]
fn a_role_that_only_reads_by_default_restores_all_the_same() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        let role = format!("careful{major}");
        server.sql(
            &database,
            &format!("CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET default_transaction_read_only = on; CREATE TABLE t AS SELECT 1 AS x"),
        );
        let scenario = Scenario::with_database(server, &database).backup_job("local", "");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let empty = server.empty_database();
        restore(&scenario, &server.url_as(&role, &empty), &[]).succeeded();
        assert_eq!(server.sql(&empty, "SELECT count(*) FROM t"), "1");
    }
}

#[test]
fn an_owner_under_forced_row_security_restores_and_counts_his_rows() {
    for major in MAJORS {
        let server = server(major);
        let role = format!("tenants{major}");
        server.sql("postgres", &format!("CREATE ROLE {role} LOGIN CREATEDB"));
        let (scenario, database) = set_of(
            server,
            &format!(
                "CREATE TABLE t (tenant text); INSERT INTO t SELECT 'a' FROM generate_series(1, 7); ALTER TABLE t OWNER TO {role};
                 ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
                 CREATE POLICY own ON t USING (tenant = current_setting('app.tenant', true));"
            ),
        );
        scenario.run(&["run-job", "nightly"]).succeeded();
        let copy = format!("{database}_copy");
        server.sql("postgres", &format!("CREATE DATABASE {copy} OWNER {role}"));
        restore(&scenario, &server.url_as(&role, &copy), &["--no-owner"]).succeeded();
        assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "7", "{major}");
    }
}

#[test]
fn a_cut_connection_says_nothing_of_the_set() {
    let server = server(18);
    let (scenario, database) = set_of(
        server,
        "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         $$BEGIN IF current_database() LIKE 'pgtend_%' THEN PERFORM pg_sleep(20); END IF; RETURN $1; END$$;
         CREATE TABLE z AS SELECT 1 AS i; CREATE INDEX ON z (slow(i))",
    );
    let running = scenario.start(&["run-job", "nightly"]);
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname LIKE 'pgtend_verify%' AND wait_event = 'PgSleep' AND query LIKE '%z%slow(i)%'";
    eventually("the restore's session is cut", || server.sql("postgres", cut) != "0");
    running.wait().exited(69).says(&["57P01"]);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], false, "{database}");
}
