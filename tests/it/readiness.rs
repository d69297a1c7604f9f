//! What a backup needs, said before it is made: every lack at once, each with the statement that mends it, and by a dry run the same.

use crate::support::postgres::{Server, WITH_PGVECTOR, server};
use crate::support::{Output, Scenario, eventually};

/// Owned by a role of the application's; `bk` may nothing yet.
const APPLICATION: &str = "CREATE TABLE plain (i int); INSERT INTO plain VALUES (1);
    CREATE TABLE secrets (i int); INSERT INTO secrets VALUES (1), (2); ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
    SELECT lo_from_bytea(0, 'large');";

/// A database with its owner's and a backup role's names.
fn application(server: &Server, more: &str) -> (String, String, String) {
    let database = server.new_database();
    let (owner, role) = (format!("owner_{database}"), format!("bk_{database}"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {role} LOGIN; ALTER DATABASE {database} OWNER TO {owner};
             SET ROLE {owner}; {APPLICATION} RESET ROLE; {more}"
        ),
    );
    (database, owner, role)
}

fn scenario(server: &Server, database: &str, role: &str, more: &str) -> Scenario {
    Scenario::with_url(server, &server.url_as(role, database)).backup_job("local", more)
}

/// The same is said by both.
fn lacks(scenario: &Scenario, code: i32, texts: &[&str]) -> Output {
    let checked = scenario.run(&["check", "--connect"]).exited(code).prints(texts);
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(texts).prints(&["  lacks    "]);
    checked
}

fn every_lack_is_said_with_what_mends_it(major: u32) {
    let server = server(major);
    let (database, owner, role) = application(
        server,
        "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION watch(); CREATE PUBLICATION everything FOR ALL TABLES",
    );
    server.sql(&database, &format!("ALTER FUNCTION watch() OWNER TO {owner}"));
    let scenario = scenario(server, &database, &role, "verify = \"restore\"");
    let mends = [
        format!("GRANT pg_read_all_data TO {role}"),
        format!("ALTER ROLE {role} BYPASSRLS"),
        format!("ALTER ROLE {role} CREATEDB"),
    ];
    let reads_large_objects = format!("ALTER ROLE {role} IN DATABASE {database} SET lo_compat_privileges = on");
    let mut texts: Vec<&str> = vec![
        "cannot read 2 relations (public.plain, public.secrets)",
        "row security hides rows of 1 table (public.secrets)",
        "cannot read 1 large object",
        "since PostgreSQL 19 only",
        "may not create the publication everything for all tables",
        &reads_large_objects,
    ];
    texts.extend(mends.iter().map(String::as_str));
    lacks(&scenario, 77, &texts);
    // It is as it was said: none of it may be left out.
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["cannot read 2 relations"]);
    for mend in &mends[..2] {
        server.sql("postgres", mend);
    }
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["cannot read 1 large object"]);
    server.sql("postgres", &reads_large_objects);
    let left = lacks(&scenario, 77, &["CREATEDB", "publication everything"]);
    assert!(!left.stdout.contains("large object") && !left.stdout.contains("row security"), "{}", left.stdout);
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["its bytes are intact"]);
    for mend in &mends[2..] {
        server.sql("postgres", mend);
    }
    lacks(&scenario, 77, &["publication everything"]);
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["its bytes are intact"]);
    server.sql(&database, "DROP PUBLICATION everything");
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn every_lack_is_said_with_what_mends_it_on_14() {
    every_lack_is_said_with_what_mends_it(14);
}

#[test]
fn every_lack_is_said_with_what_mends_it_on_16() {
    every_lack_is_said_with_what_mends_it(16);
}

#[test]
fn every_lack_is_said_with_what_mends_it_on_18() {
    every_lack_is_said_with_what_mends_it(18);
}

#[test]
fn large_objects_of_a_role_that_is_granted_only_reading_are_read_by_what_grants_prints() {
    for major in [14, 15, 16, 17, 18] {
        let server = server(major);
        let (database, _, role) = application(server, "");
        let admin = Scenario::with_database(server, &database).backup_job("local", "");
        let sql = admin.run(&["grants", "--role", &role]).succeeded().stdout;
        assert!(sql.contains("lo_compat_privileges") && !sql.contains("ON LARGE OBJECT"), "{sql}");
        let scenario = scenario(server, &database, &role, "");
        scenario.run(&["run-job", "nightly"]).exited(77);
        server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        scenario.run(&["check", "--connect"]).succeeded();
        scenario.run(&["run-job", "nightly"]).succeeded();
        // One that comes later is read, too.
        server.sql(&database, "SELECT lo_from_bytea(0, 'later')");
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
}

#[test]
fn a_job_with_filters_needs_what_it_dumps_and_no_more() {
    let server = server(18);
    let (database, _, role) = application(
        server,
        "CREATE SCHEMA app_one; CREATE TABLE app_one.mine (i int); CREATE TABLE app_one.\"Not mine\" (i int);
         CREATE TABLE app_one.policed (i int); ALTER TABLE app_one.policed ENABLE ROW LEVEL SECURITY;",
    );
    server.sql(
        &database,
        &format!("GRANT USAGE ON SCHEMA app_one TO {role}; GRANT SELECT ON app_one.mine, app_one.policed TO {role}"),
    );
    let filters = "schemas = [\"app_*\"]\nexclude_tables = ['app_*.\"Not mine\"']\nexclude_table_data = [\"*.policed\"]";
    let filtered = scenario(server, &database, &role, filters);
    filtered.run(&["check", "--connect"]).succeeded();
    filtered.run(&["run-job", "nightly"]).succeeded();

    // A name without a schema means what the login's own search_path finds.
    server.sql(&database, &format!("ALTER ROLE {role} IN DATABASE {database} SET search_path = app_one"));
    let by_name = filters.replace("app_*.\"Not mine\"", "\"Not mine\"").replace("*.policed", "policed");
    let by_name = scenario(server, &database, &role, &by_name);
    by_name.run(&["check", "--connect"]).succeeded();
    by_name.run(&["run-job", "nightly"]).succeeded();
    server.sql(&database, &format!("ALTER ROLE {role} IN DATABASE {database} RESET search_path"));

    let with_rows = scenario(server, &database, &role, "schemas = [\"app_*\"]\nexclude_tables = ['app_*.\"Not mine\"']");
    lacks(&with_rows, 77, &["row security hides rows of 1 table (app_one.policed)"]);
    with_rows.run(&["run-job", "nightly"]).exited(77).says(&["BYPASSRLS"]);
    let with_all = scenario(server, &database, &role, "schemas = [\"app_*\"]\nexclude_table_data = [\"*.policed\"]");
    lacks(&with_all, 77, &["cannot read 1 relation (app_one.\"Not mine\")"]);
    with_all.run(&["run-job", "nightly"]).exited(77).says(&["app_one.\"Not mine\""]);
    let without_match =
        scenario(server, &database, &role, &format!("{filters}\n").replace("[\"app_*\"]", "[\"app_*\", \"none_*\"]"));
    lacks(&without_match, 78, &["has patterns without a matching schema: none_*"]);
    without_match.run(&["run-job", "nightly"]).exited(78).says(&["correct `schemas`"]);
}

#[test]
fn an_extension_that_only_a_superuser_makes_is_said_before_the_run() {
    for major in WITH_PGVECTOR {
        let server = server(major);
        let (database, owner, role) = application(server, "CREATE EXTENSION vector");
        server.sql("postgres", &format!("GRANT pg_read_all_data, {owner} TO {role}; ALTER ROLE {role} CREATEDB BYPASSRLS"));
        let restoring = scenario(server, &database, &role, "verify = \"restore\"");
        lacks(&restoring, 77, &["may not create \"vector\", as only a superuser may", "`scratch`"]);
        let refused =
            restoring.run(&["run-job", "nightly"]).exited(77).says(&["only a superuser can create an extension", "`scratch`"]);
        assert!(!refused.stderr.contains("--without") && !refused.stderr.contains("cron"), "{}", refused.stderr);
        let elsewhere = scenario(server, &database, &role, "verify = \"restore\"\nscratch = \"admin\"")
            .config(&format!("[databases.admin]\nurl = '{}'\n", server.url("postgres")));
        elsewhere.run(&["check", "--connect"]).succeeded();
        elsewhere.run(&["run-job", "nightly"]).succeeded();
    }
}

#[test]
fn what_the_server_for_scratch_databases_lacks_is_said_before_the_run() {
    let (first, second) = (server(18), server(15));
    let (database, owner, role) = application(first, "CREATE EXTENSION vector");
    second.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let scenario = Scenario::with_database(first, &database)
        .backup_job("local", "verify = \"restore\"\nscratch = \"other\"")
        .config(&format!("[databases.other]\nurl = '{}'\n", second.url_as(&role, "postgres")));
    let create_role = format!("CREATE ROLE \"{owner}\" NOLOGIN");
    lacks(
        &scenario,
        78,
        &["extensions of the dump are missing on the server for scratch databases: vector", &create_role, "CREATEDB"],
    );
}

#[test]
fn functions_that_psql_misreads_are_named_and_pgtend_restores_them() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE t (\"begin\" int, \"end\" int); INSERT INTO t VALUES (1, 2), (3, 4);
             CREATE FUNCTION first() RETURNS int BEGIN ATOMIC SELECT min(\"begin\") FROM t; END;
             CREATE FUNCTION second() RETURNS int BEGIN ATOMIC SELECT t.\"begin\" FROM t; END;
             CREATE FUNCTION third() RETURNS int BEGIN ATOMIC SELECT CASE WHEN t.\"end\" = 1 THEN 1 ELSE 2 END FROM t; END;
             CREATE FUNCTION \"begin\"() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        );
        let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
        let said = "psql misreads 2 functions of a dump of this database (public.begin(), public.second())";
        scenario.run(&["check", "--connect"]).succeeded().prints(&[said, "`pgtend backups restore` does"]);
        scenario.run(&["run-job", "nightly"]).succeeded().says(&[said]);
        assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], true);
    }
}

#[test]
fn hints_are_the_same_on_a_server_that_speaks_german() {
    let server = server(15);
    let (database, _, role) = application(server, "");
    server.sql("postgres", &format!("ALTER ROLE {role} SET lc_messages = 'de_DE.UTF-8'"));
    let speaks = server.tool("psql", &database).args(["-Xc", "SELECT nonsense"]).env("PGUSER", &role).output().unwrap();
    assert!(String::from_utf8_lossy(&speaks.stderr).contains("FEHLER"), "no German: run scripts/setup: {speaks:?}");
    let scenario = scenario(server, &database, &role, "lock_wait_timeout = \"500ms\"");
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["FEHLER", "GRANT pg_read_all_data TO"]);
    server.sql("postgres", &format!("GRANT pg_read_all_data TO {role}"));
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["FEHLER", "BYPASSRLS"]);
    server.sql("postgres", &format!("ALTER ROLE {role} BYPASSRLS"));
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["FEHLER", "cannot read 1 large object"]);
    server.sql(&database, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata");

    let mut holder = server
        .tool("psql", &database)
        .args(["-Xq", "-c", "BEGIN; LOCK TABLE plain; SELECT pg_sleep(60)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the table is locked", || {
        server.sql(
            &database,
            "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'plain'::regclass AND granted",
        ) == "1"
    });
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["FEHLER", "public.plain is locked by server process"]);
    // The server would finish its sleep without its client.
    let ends = "SELECT pg_terminate_backend(pid, 30000) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'plain'::regclass";
    assert_eq!(server.sql(&database, ends), "t");
    holder.wait().unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn a_lock_on_one_of_very_many_tables_is_told_in_a_few_words() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "DO $$ BEGIN FOR i IN 1 .. 1500 LOOP EXECUTE format('CREATE TABLE a_table_with_a_rather_long_name_%s ()', i); END LOOP; END $$");
    let mut holder = server
        .tool("psql", &database)
        .args(["-Xq", "-c", "BEGIN; LOCK TABLE a_table_with_a_rather_long_name_777; SELECT pg_sleep(60)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the table is locked", || {
        server
            .sql(&database, "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation >= 16384 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")
            == "1"
    });
    let scenario = Scenario::with_database(server, &database).backup_job("local", "lock_wait_timeout = \"500ms\"");
    let output = scenario
        .run(&["run-job", "nightly"])
        .exited(1)
        .says(&["canceling statement due to", "public.a_table_with_a_rather_long_name_777 is locked by server process"]);
    assert!(output.stderr.len() < 2000, "{}", output.stderr.len());
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_tick_without_a_ledger_is_warned_of() {
    let server = server(18);
    let database = server.new_database();
    let job = "schedule = \"* * * * *\"";
    let scenario = Scenario::with_database(server, &database).sql_job("often", job, &["SELECT 1"]);
    let output = scenario.run(&["run-job", "often", "--scheduled"]).succeeded().says(&["--scheduled without a [ledger]"]);
    assert!(output.stderr.matches("WARN").count() == 1 && !output.stderr.contains("leaves no history"), "{}", output.stderr);
    let by_hand = scenario.run(&["run-job", "often"]).succeeded();
    assert!(!by_hand.stderr.contains("--scheduled"), "{}", by_hand.stderr);
    let with_ledger = scenario.ledger();
    let output = with_ledger.run(&["run-job", "often", "--scheduled"]).succeeded();
    assert!(!output.stderr.contains("--scheduled"), "{}", output.stderr);
}
