//! The database that a restore makes: its properties, who can connect to it and when, and what is left when it is not
//! made after all.

use crate::support::postgres::{MAJORS, Server, server};
use crate::support::{Output, Scenario};

/// What ALTER DATABASE, GRANT and ALTER ROLE … IN DATABASE said, and a plain dump does not.
pub fn properties(server: &Server, database: &str) -> String {
    server.sql(
        "postgres",
        &format!(
            "SELECT datdba::regrole, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) a), datconnlimit, datistemplate, datallowconn, shobj_description(oid, 'pg_database')
             FROM pg_database WHERE datname = '{database}';
             SELECT setrole::regrole, setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
             WHERE datname = '{database}' ORDER BY setrole::regrole::text"
        ),
    )
}

/// Names of databases that start with `prefix`.
pub fn databases(server: &Server, prefix: &str) -> Vec<String> {
    let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname::text, '{prefix}') ORDER BY 1");
    server.sql("postgres", &sql).lines().map(str::to_owned).collect()
}

/// The digest that the names of a restore into `name` have.
pub fn digest(name: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(name);
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the names begin of copies that are being filled for `name`.
pub fn filling(name: &str) -> String {
    format!("pgtend_restore_{}", digest(name))
}

/// A backup of that database, in a scenario of its own.
pub fn backed_up(server: &Server, database: &str) -> Scenario {
    let scenario = Scenario::with_database(server, database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

pub fn restore(scenario: &Scenario, server: &Server, into: &str) -> Output {
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(into), "--create"])
}

pub fn some_rows(server: &Server) -> String {
    let name = server.new_database();
    server
        .sql(&name, "CREATE TABLE big AS SELECT i, md5(i::text) || md5((i * 7)::text) AS body FROM generate_series(1, 20000) i");
    name
}

#[test]
fn a_read_only_default_does_not_keep_the_other_properties_back() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "CREATE TABLE t (x int);
                 CREATE ROLE prop_owner; CREATE ROLE prop_lender; CREATE ROLE \"prop reader\"; CREATE ROLE prop_app;
                 ALTER DATABASE {database} SET default_transaction_read_only = on;
                 ALTER DATABASE {database} SET search_path = app, \"we ird, really\", \"$user\";
                 ALTER DATABASE {database} SET work_mem = '7MB';
                 ALTER DATABASE {database} SET \"my.setting\" = 'it''s \\ x';
                 ALTER DATABASE {database} SET DateStyle = 'SQL, DMY';
                 ALTER ROLE prop_app IN DATABASE {database} SET search_path = 'tenant1';
                 ALTER ROLE prop_app IN DATABASE {database} SET hnsw.ef_search = '200';
                 ALTER ROLE ALL IN DATABASE {database} SET lock_timeout = '3s';
                 ALTER DATABASE {database} OWNER TO prop_owner;
                 ALTER DATABASE {database} CONNECTION LIMIT 42;
                 COMMENT ON DATABASE {database} IS 'it''s \\ mine';
                 REVOKE ALL ON DATABASE {database} FROM PUBLIC;
                 REVOKE CREATE ON DATABASE {database} FROM prop_owner;
                 GRANT CONNECT, TEMPORARY ON DATABASE {database} TO prop_lender WITH GRANT OPTION;
                 SET ROLE prop_lender;
                 GRANT CONNECT ON DATABASE {database} TO \"prop reader\";
                 RESET ROLE;
                 ALTER DATABASE {database} IS_TEMPLATE true"
            ),
        );
        let scenario = backed_up(server, &database);
        let copy = format!("{database}_copy");
        restore(&scenario, server, &copy).succeeded();
        assert_eq!(properties(server, &copy), properties(server, &database), "{major}");
        let shown = properties(server, &copy);
        for text in
            ["prop_owner", "prop reader", "42", "it's \\ mine", "default_transaction_read_only=on", "tenant1", "ef_search=200"]
        {
            assert!(shown.contains(text), "`{text}` is not in {shown}");
        }
    }
}

#[test]
fn nobody_may_create_in_public_who_could_not_before_on_any_version() {
    for (from, to) in [(14, 14), (14, 18), (18, 14)] {
        let (source, target) = (server(from), server(to));
        for (sql, expected) in
            [("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "f"), ("GRANT CREATE ON SCHEMA public TO PUBLIC", "t")]
        {
            let database = source.new_database();
            source.sql(&database, &format!("CREATE TABLE t AS SELECT 1 AS x; {sql}"));
            let scenario = backed_up(source, &database);
            let empty = target.empty_database();
            scenario.run(&["backups", "restore", "latest", "--into", &target.url(&empty)]).succeeded();
            let copy = format!("{empty}_copy");
            restore(&scenario, target, &copy).succeeded();
            for restored in [empty, copy] {
                let may = "SELECT has_schema_privilege('public', 'public', 'CREATE'), has_schema_privilege('public', 'public', 'USAGE')";
                assert_eq!(target.sql(&restored, may), format!("{expected}|t"), "{from} to {to}");
            }
        }
    }
}

#[test]
fn a_database_comes_back_in_its_own_tablespace_where_that_is_there() {
    let (server, other) = (server(18), server(16));
    server.sql("postgres", "SET allow_in_place_tablespaces = on; CREATE TABLESPACE home_of_one LOCATION ''");
    server.sql("postgres", "CREATE DATABASE in_its_own TABLESPACE home_of_one");
    server.sql("in_its_own", "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, "in_its_own").backup_job("local", "verify = \"restore\"");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let place =
        "SELECT spcname FROM pg_tablespace t JOIN pg_database d ON d.dattablespace = t.oid WHERE datname = current_database()";
    restore(&scenario, server, "in_its_own_copy").succeeded();
    assert_eq!(server.sql("in_its_own_copy", place), "home_of_one");
    restore(&scenario, other, "in_its_own_copy")
        .succeeded()
        .says(&["home_of_one", "does not exist here, or this role may not use it"]);
    assert_eq!(other.sql("in_its_own_copy", place), "pg_default");
    server.sql("postgres", "DROP DATABASE in_its_own");
    server.sql("postgres", "DROP DATABASE in_its_own_copy");
}

#[test]
fn what_nobody_granted_or_revoked_is_as_in_a_new_database() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    restore(&scenario, server, &copy).succeeded();
    server.sql("postgres", "CREATE ROLE anybody LOGIN");
    let url = server.url_as("anybody", &copy);
    let seen = server.tool("psql", &copy).args(["-XqAt", "-c", "SELECT 1", &url]).output().unwrap();
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
    assert_eq!(server.sql("postgres", &format!("SELECT datconnlimit FROM pg_database WHERE datname = '{copy}'")), "-1");
}

#[test]
fn properties_that_this_role_may_not_set_are_listed_and_all_others_are_there() {
    let server = server(18);
    let database = server.empty_database();
    server.sql(
        &database,
        &format!(
            "CREATE ROLE part_maker LOGIN CREATEDB; CREATE TABLE t (x int); ALTER TABLE t OWNER TO part_maker;
             ALTER DATABASE {database} OWNER TO part_maker;
             ALTER DATABASE {database} SET log_statement = 'all'; ALTER DATABASE {database} SET work_mem = '7MB';
             REVOKE CONNECT ON DATABASE {database} FROM PUBLIC; COMMENT ON DATABASE {database} IS 'mine'"
        ),
    );
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let into = server.url_as("part_maker", &copy);
    let output = scenario.run(&["backups", "restore", "latest", "--into", &into, "--create"]).exited(1);
    output
        .prints(&["is restored into"])
        .says(&["is restored, but not all properties", "setting log_statement: permission denied"]);
    let without = properties(server, &database).replace("log_statement=all,", "");
    assert_eq!(properties(server, &copy), without);
}

#[test]
fn roles_that_the_database_itself_names_are_asked_for_before_anything_is_written() {
    let (source, target) = (server(18), server(15));
    let database = source.new_database();
    source.sql(
        &database,
        &format!(
            "CREATE ROLE only_owner18; CREATE ROLE only_grantee18; CREATE ROLE only_setting18;
             ALTER DATABASE {database} OWNER TO only_owner18; GRANT CONNECT ON DATABASE {database} TO only_grantee18;
             ALTER ROLE only_setting18 IN DATABASE {database} SET work_mem = '7MB'"
        ),
    );
    let scenario = backed_up(source, &database);
    restore(&scenario, target, "named_roles").exited(78).says(&["only_grantee18, only_owner18, only_setting18"]);
    assert_eq!(databases(target, &filling("named_roles")), Vec::<String>::new());
    // Into a database that is there, they are of no use.
    let there = target.empty_database();
    scenario.run(&["backups", "restore", "latest", "--into", &target.url(&there)]).succeeded();
}

#[test]
fn a_subscriber_is_verified_night_after_night_and_its_slot_stays() {
    for major in [16, 18] {
        let mut server = Server::start(major);
        server.sql("postgres", "ALTER SYSTEM SET wal_level = logical");
        server.crash();
        server.start_again();
        server.sql("postgres", "CREATE DATABASE pub");
        server.sql("pub", "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t; SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY); CREATE SUBSCRIPTION s CONNECTION 'dbname=pub' PUBLICATION p WITH (connect = false)");
        let scenario =
            Scenario::with_database(&server, &database).backup_job("local", "verify = \"restore\"\nkeep = { last = 2 }");
        for night in 1..=2 {
            let output = scenario.run(&["run-job", "nightly"]).succeeded();
            assert!(!output.stderr.contains("stays"), "night {night}: {}", output.stderr);
        }
        assert_eq!(scenario.sets().len(), 2);
        assert_eq!(databases(&server, "pgtend_"), Vec::<String>::new());
        assert_eq!(server.sql("pub", "SELECT slot_name FROM pg_replication_slots"), "s");
    }
}

#[test]
fn a_scratch_database_that_cannot_be_dropped_is_named_and_stops_no_backup() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let plan = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().stdout;
    let name = plan.split("scratch database ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let leftover = format!("{}_1", name.rsplit_once('_').unwrap().0);
    // PostgreSQL drops no template.
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {leftover} IS_TEMPLATE true; COMMENT ON DATABASE {leftover} IS 'made by pgtend, dropped when its restore ends'"),
    );
    scenario.run(&["run-job", "nightly"]).succeeded().says(&[&format!("DROP DATABASE \"{leftover}\" WITH (FORCE)"), "template"]);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], true);
    server.sql("postgres", &format!("ALTER DATABASE {leftover} IS_TEMPLATE false; DROP DATABASE {leftover}"));
}

#[test]
fn a_scratch_server_that_is_away_hinders_the_verification_and_not_the_dump() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = Scenario::with_database(server, &database)
        .config("[databases.scratch]\nurl = 'postgres://postgres@%2Fnonexistent/postgres'\n")
        .backup_job("local", "verify = \"restore\"\nscratch = \"scratch\"");
    scenario.run(&["run-job", "nightly"]).exited(69).says(&["its bytes are intact", "cannot connect to"]);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], false);
}

pub fn manifest(scenario: &Scenario) -> serde_json::Value {
    let set = scenario.sets().pop().unwrap();
    serde_json::from_slice(&std::fs::read(scenario.path(&format!("store/{set}/manifest.json"))).unwrap()).unwrap()
}

#[test]
fn large_objects_that_the_role_may_not_read_are_said_with_what_helps() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE ROLE lo_backup LOGIN; GRANT pg_read_all_data TO lo_backup; CREATE TABLE t (x int); SELECT lo_from_bytea(0, '\\x00')",
    );
    let scenario = Scenario::with_url(server, &server.url_as("lo_backup", &database)).backup_job("local", "");
    let hint = ["1 large object", "lo_compat_privileges", "lo_backup"];
    scenario.run(&["check", "--connect"]).exited(77).prints(&hint);
    let output = scenario.run(&["run-job", "nightly"]).exited(77).says(&hint);
    assert!(!output.stderr.contains("grant the role pg_read_all_data"), "{}", output.stderr);
    let oid = server.sql(&database, "SELECT oid FROM pg_largeobject_metadata");
    server.sql(&database, &format!("GRANT SELECT ON LARGE OBJECT {oid} TO lo_backup"));
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn a_lock_table_that_is_too_small_is_said_with_the_value_to_set() {
    let mut server = Server::start(18);
    for setting in [
        "max_connections = 10",
        "max_locks_per_transaction = 10",
        "max_wal_senders = 0",
        "max_worker_processes = 2",
        "autovacuum_worker_slots = 1",
        "shared_buffers = '16MB'",
    ] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    }
    server.sql("postgres", "ALTER SYSTEM SET superuser_reserved_connections = 1");
    server.crash();
    server.start_again();
    let database = server.new_database();
    server.sql(
        &database,
        "DO $$BEGIN FOR i IN 1..6000 LOOP EXECUTE format('CREATE TABLE t_%s (x int)', i); COMMIT; END LOOP; END$$",
    );
    let scenario = Scenario::with_database(&server, &database).backup_job("local", "");
    let hint = ["the server's lock table holds", "a dump needs 6,000", "set max_locks_per_transaction = "];
    scenario.run(&["check", "--connect"]).exited(78).prints(&hint);
    let output = scenario.run(&["run-job", "nightly"]).exited(1).says(&hint);
    assert!(!output.stderr.contains("--create"), "{}", output.stderr);
}

#[test]
fn user_mappings_that_the_role_may_not_read_are_in_manifest_plan_and_warnings() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE ROLE um_backup LOGIN; GRANT pg_read_all_data TO um_backup; CREATE ROLE um_app; CREATE TABLE t (x int);
         CREATE FOREIGN DATA WRAPPER plain; CREATE SERVER s FOREIGN DATA WRAPPER plain;
         CREATE USER MAPPING FOR um_app SERVER s OPTIONS (password 'secret-of-s')",
    );
    let scenario = Scenario::with_url(server, &server.url_as("um_backup", &database)).backup_job("local", "");
    let said = "the user mapping of um_app for server s";
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&[said]);
    scenario.run(&["run-job", "nightly"]).succeeded().says(&[said]);
    let unreadable = manifest(&scenario)["server"]["unreadable"].to_string();
    assert!(unreadable.contains(said) && !unreadable.contains("secret-of-s"), "{unreadable}");
    // Whoever may read them has nothing to say.
    let scenario = backed_up(server, &database);
    assert_eq!(manifest(&scenario)["server"]["unreadable"].as_array().unwrap().len(), 0);
}

#[test]
fn a_manifest_says_where_and_when_its_source_was() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE p (at date) PARTITION BY RANGE (at); CREATE TABLE p_2026 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY RANGE (at);
         CREATE TABLE p_2026_01 PARTITION OF p_2026 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$; CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION nothing()",
    );
    let scenario = backed_up(server, &database);
    let facts = &manifest(&scenario)["server"];
    let oid = server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{database}'"));
    assert_eq!(facts["database"]["oid"].to_string(), oid);
    assert_eq!(facts["timeline"], 1);
    assert!(facts["lsn"].as_str().unwrap().contains('/') && facts["clock"].as_str().unwrap().contains('T'), "{facts}");
    assert_eq!(facts["event_triggers"][0], "et");
    assert_eq!(
        facts["partitions"],
        serde_json::json!([{ "schema": "public", "name": "p_2026_01", "root_schema": "public", "root_name": "p" }])
    );
}

#[test]
fn an_empty_database_is_verified_and_said_to_be_empty() {
    let server = server(18);
    for extension in ["", "CREATE EXTENSION vector"] {
        let database = server.new_database();
        server.sql(&database, extension);
        let scenario =
            Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"\nkeep = { last = 1 }");
        for _ in 1..=2 {
            scenario.run(&["run-job", "nightly"]).succeeded().prints(&["0 tables, 0 rows"]);
        }
        assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], true);
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_a_mistake() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "schemas = [\"public\", \"nosuch\"]");
    scenario.run(&["run-job", "nightly"]).exited(78).says(&["nosuch", "correct `schemas`"]);
    assert_eq!(scenario.sets(), Vec::<String>::new());
}

#[test]
fn an_extension_of_one_database_only_cannot_be_verified_by_restore() {
    let server = server(18);
    let database = server.new_database();
    // By its name; the real one is in no package of the tests.
    server.sql(
        &database,
        "CREATE EXTENSION vector; SET allow_system_table_mods = on; UPDATE pg_extension SET extname = 'pg_cron' WHERE extname = 'vector'",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    scenario.run(&["check", "--connect"]).exited(78).prints(&["pg_cron", "verify = \"checksum\""]);
}
