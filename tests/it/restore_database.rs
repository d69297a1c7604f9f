//! The database that a restore makes: its properties, who can connect to it and when, and what is left when it is not
//! made after all.

use rustix::process::Signal;

use crate::support::postgres::{MAJORS, Server, server};
use crate::support::{Output, Scenario, eventually};

/// What ALTER DATABASE, GRANT and ALTER ROLE … IN DATABASE said, and a plain dump does not.
fn properties(server: &Server, database: &str) -> String {
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
fn databases(server: &Server, prefix: &str) -> Vec<String> {
    let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname::text, '{prefix}') ORDER BY 1");
    server.sql("postgres", &sql).lines().map(str::to_owned).collect()
}

/// The digest that the names of a restore into `name` have.
fn digest(name: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(name);
    digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How the names begin of copies that are being filled for `name`.
fn filling(name: &str) -> String {
    format!("pgtend_restore_{}", digest(name))
}

/// A backup of that database, in a scenario of its own.
fn backed_up(server: &Server, database: &str) -> Scenario {
    let scenario = Scenario::with_database(server, database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

fn restore(scenario: &Scenario, server: &Server, into: &str) -> Output {
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(into), "--create"])
}

/// A database whose restore waits for six seconds near its end, wherever pgtend has it under another name.
fn waits_when_restored(server: &Server) -> String {
    let name = some_rows(server);
    server.sql(
        &name,
        r"CREATE FUNCTION wait() RETURNS int LANGUAGE plpgsql AS $$BEGIN
              IF current_database() LIKE 'pgtend\_%' THEN PERFORM pg_sleep(6); END IF; RETURN 1;
          END$$;
          CREATE MATERIALIZED VIEW waiting AS SELECT wait()",
    );
    name
}

/// Waits for that wait in a database whose name starts so. Returns the name.
fn waiting(server: &Server, prefix: &str) -> String {
    let sql =
        format!("SELECT datname FROM pg_stat_activity WHERE starts_with(datname::text, '{prefix}') AND wait_event = 'PgSleep'");
    eventually("the restore waits", || !server.sql("postgres", &sql).is_empty());
    server.sql("postgres", &sql)
}

fn some_rows(server: &Server) -> String {
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
    let database = server.new_database();
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
fn nobody_connects_to_a_database_that_is_half_restored() {
    let server = server(18);
    let database = waits_when_restored(server);
    server.sql(
        &database,
        &format!("CREATE ROLE half_owner LOGIN; ALTER DATABASE {database} OWNER TO half_owner; CREATE ROLE half_app LOGIN"),
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let half = waiting(server, &filling(&copy));
    for role in ["half_owner", "half_app"] {
        let url = server.url_as(role, &half);
        let tried = server.tool("psql", &copy).args(["-Xq", "-c", "SELECT 1", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(said.contains("permission denied") || said.contains("too many connections"), "{role}: {said}");
    }
    // Meanwhile the same restore again is busy, and leaves the first alone.
    scenario
        .run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"])
        .exited(75)
        .says(&["another pgtend process is working"]);
    running.wait().succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
}

#[test]
fn a_signal_to_a_restore_or_a_verification_leaves_no_database() {
    let server = server(18);
    let database = waits_when_restored(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    for (prefix, signal, arguments) in [
        (filling(&copy), Signal::INT, vec!["backups", "restore", "latest", "--into", into.as_str(), "--create"]),
        ("pgtend_verify_".to_owned(), Signal::TERM, vec!["backups", "verify", "latest", "--restore-on", "app"]),
    ] {
        let running = scenario.start(&arguments);
        let name = waiting(server, &prefix);
        running.signal(signal);
        running.wait().exited(143).says(&["cancelled"]);
        assert_eq!(databases(server, &name), Vec::<String>::new());
    }
}

#[test]
fn a_server_that_starts_anew_midway_is_waited_for_and_nothing_stays() {
    let mut server = Server::start(18);
    let database = waits_when_restored(&server);
    let scenario = Scenario::with_database(&server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url("copy"), "--create"]);
    waiting(&server, &filling("copy"));
    server.crash();
    server.start_again();
    running.wait().exited_with_one_of(&[1, 69]);
    assert_eq!(databases(&server, "pgtend_"), Vec::<String>::new());
    assert_eq!(databases(&server, "copy"), Vec::<String>::new());
}

#[test]
fn a_kill_between_create_database_and_its_mark_leaves_what_the_next_restore_drops() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    // What CREATE DATABASE has made, and nothing after it.
    server.sql("postgres", &format!("CREATE DATABASE {} ALLOW_CONNECTIONS false CONNECTION LIMIT 0", filling(&copy)));
    restore(&scenario, server, &copy).succeeded();
    assert_eq!(databases(server, &filling(&copy)), Vec::<String>::new());
}

#[test]
fn a_foreign_database_of_a_scratch_name_is_left_alone() {
    let server = server(18);
    let database = waits_when_restored(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let name = waiting(server, &filling(&copy));
    running.signal(Signal::INT);
    running.wait().exited(143);
    server.sql("postgres", &format!("CREATE DATABASE {name}"));
    restore(&scenario, server, &copy).exited(1).says(&["already exists"]);
    assert_eq!(databases(server, &filling(&copy)), [name]);
}

#[test]
fn a_pgtend_that_stood_still_drops_nothing_that_another_one_fills() {
    // All sessions of pgtend on this server are ended: it is this test's own.
    let server = Server::start(18);
    let database = waits_when_restored(&server);
    let scenario = backed_up(&server, &database);
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let arguments = ["backups", "restore", "latest", "--into", &into, "--create"];
    let stopped = scenario.start(&arguments);
    let name = waiting(&server, &filling(&copy));
    stopped.signal(Signal::STOP);
    let sessions = "FROM pg_stat_activity WHERE application_name = 'pgtend'";
    server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {sessions}"));
    eventually("the first one's sessions are gone", || server.sql("postgres", &format!("SELECT count(*) {sessions}")) == "0");
    let second = scenario.start(&arguments);
    assert_eq!(waiting(&server, &filling(&copy)), name);
    stopped.signal(Signal::CONT);
    second.wait().succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
    stopped.wait().exited_with_one_of(&[1, 69]);
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
}

#[test]
fn a_whole_copy_of_one_set_does_not_stand_in_the_way_of_another_set() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    // As a call leaves it that could not rename even once.
    let name = format!("{}_000000000000", filling(&copy));
    let comment = format!("made by pgtend, a whole copy of app/nightly/2026-01-01T00-00-00Z for {copy}");
    server.sql("postgres", &format!("CREATE DATABASE {name} ALLOW_CONNECTIONS false; COMMENT ON DATABASE {name} IS '{comment}'"));
    restore(&scenario, server, &copy).succeeded().says(&[&name, "a whole copy of another set"]);
    assert_eq!(databases(server, &filling(&copy)), [name]);
}

#[test]
fn what_failed_is_said_though_the_copy_cannot_get_its_name_and_by_the_call_that_takes_it_up() {
    let server = server(18);
    let database = waits_when_restored(server);
    server.sql(
        &database,
        "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$BEGIN IF current_database() LIKE 'pgtend%' THEN RAISE 'not here'; END IF; RETURN $1; END$$;
         CREATE INDEX failing ON big (fails(i))",
    );
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let arguments = ["backups", "restore", "latest", "--into", &into, "--create", "--on-error", "continue"];
    let running = scenario.start(&arguments);
    waiting(server, &filling(&copy));
    server.sql("postgres", &format!("CREATE DATABASE {copy}"));
    running.wait().exited(1).says(&["1 statement failed", "INDEX failing", "run the same command again to continue"]);
    server.sql("postgres", &format!("DROP DATABASE {copy}"));
    let taken = scenario.run(&arguments).exited(1).prints(&["an earlier call had restored the set", "statements failed"]);
    assert!(!taken.stdout.contains("each table counted"), "{}", taken.stdout);
    assert_eq!(server.sql(&copy, "SELECT count(*), to_regclass('failing') FROM big"), "20000|");
}

#[test]
fn an_exporter_that_looks_into_a_leftover_does_not_keep_it() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let leftover = filling(&copy);
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {leftover}; COMMENT ON DATABASE {leftover} IS 'made by pgtend, dropped when its restore ends'"),
    );
    let _exporter = server.session(&leftover, "SET application_name = 'exporter'");
    restore(&scenario, server, &copy).succeeded();
    assert_eq!(databases(server, &leftover), Vec::<String>::new());
}

#[test]
fn a_whole_copy_whose_name_was_taken_meanwhile_is_renamed_by_the_next_call() {
    let server = server(18);
    let database = waits_when_restored(server);
    server.sql(
        &database,
        &format!("ALTER DATABASE {database} SET work_mem = '7MB'; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"),
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let whole = format!("pgtend_restored_{}", digest(&copy));
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    waiting(server, &filling(&copy));
    server.sql("postgres", &format!("CREATE DATABASE {copy}"));
    running
        .wait()
        .exited(1)
        .says(&["is restored and counted in the database pgtend_restored_", "run the same command again to continue"]);
    assert_eq!(databases(server, &whole).len(), 1);

    restore(&scenario, server, &copy).exited(78).says(&["already exists"]);
    server.sql("postgres", &format!("DROP DATABASE {copy}"));
    let started = std::time::Instant::now();
    restore(&scenario, server, &copy).succeeded().says(&["counted again and renamed"]);
    assert!(started.elapsed().as_secs() < 6, "it was restored once more");
    assert_eq!(databases(server, &whole), Vec::<String>::new());
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
    assert_eq!(properties(server, &copy), properties(server, &database));
}

#[test]
fn a_whole_copy_that_somebody_has_changed_is_not_used() {
    let server = server(18);
    let database = waits_when_restored(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    waiting(server, &filling(&copy));
    server.sql("postgres", &format!("CREATE DATABASE {copy}"));
    running.wait().exited(1);
    let whole = databases(server, &format!("pgtend_restored_{}", digest(&copy))).pop().unwrap();
    server.sql("postgres", &format!("DROP DATABASE {copy}; ALTER DATABASE {whole} ALLOW_CONNECTIONS true"));
    server.sql(&whole, "DELETE FROM big WHERE i = 7");
    restore(&scenario, server, &copy).exited(1).says(&["has 19,999 rows", &format!("DROP DATABASE \"{whole}\"")]);
    assert_eq!(databases(server, &whole), std::slice::from_ref(&whole));
}

#[test]
fn sessions_on_a_whole_copy_are_ended_before_it_gets_its_name() {
    let server = server(18);
    let database = waits_when_restored(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let half = waiting(server, &filling(&copy));
    let _exporter = server.session(&half, "SET application_name = 'exporter'");
    running.wait().succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
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

fn manifest(scenario: &Scenario) -> serde_json::Value {
    let set = scenario.sets().pop().unwrap();
    serde_json::from_slice(&std::fs::read(scenario.path(&format!("store/{set}/manifest.json"))).unwrap()).unwrap()
}

#[test]
fn a_database_of_sql_ascii_comes_back_byte_for_byte() {
    for major in MAJORS {
        let server = server(major);
        let database = format!("ascii{major}");
        server.sql(
            "postgres",
            &format!("CREATE DATABASE {database} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        );
        server.sql(
            &database,
            "SET client_encoding = 'SQL_ASCII'; CREATE TABLE t (x text); INSERT INTO t VALUES (E'caf\\xe9'), (E'\\xc3\\xa9'), ('plain');
             DO $$BEGIN EXECUTE E'COMMENT ON TABLE t IS ''na\\xefve'''; END$$",
        );
        let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let copy = format!("{database}_copy");
        restore(&scenario, server, &copy).succeeded();
        let bytes = |database: &str| {
            server.sql(
                database,
                "SET client_encoding = 'SQL_ASCII'; SELECT encode(textsend(string_agg(x, ',' ORDER BY x)), 'hex'),
                        encode(textsend(obj_description('t'::regclass)), 'hex'), current_setting('server_encoding') FROM t",
            )
        };
        assert_eq!(bytes(&copy), bytes(&database), "{major}");
        assert!(bytes(&copy).contains("636166e9") && bytes(&copy).contains("SQL_ASCII"), "{}", bytes(&copy));
    }
}

#[test]
fn statements_that_are_not_utf_8_go_by_the_same_rules_as_all_others() {
    let server = server(16);
    server.sql("postgres", "CREATE ROLE ascii_owner; CREATE ROLE ascii_reader");
    server.sql("postgres", "CREATE DATABASE ascii_rules ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    server.sql("postgres", "ALTER DATABASE ascii_rules SET standard_conforming_strings = off");
    server.sql(
        "ascii_rules",
        "SET client_encoding = 'SQL_ASCII';
         DO $$BEGIN
             EXECUTE E'CREATE FUNCTION f_caf\\xe9() RETURNS int LANGUAGE sql AS ''SELECT 1''';
             EXECUTE E'ALTER FUNCTION f_caf\\xe9() OWNER TO ascii_owner';
             EXECUTE E'GRANT EXECUTE ON FUNCTION f_caf\\xe9() TO ascii_reader';
             EXECUTE E'CREATE SUBSCRIPTION s_caf\\xe9 CONNECTION ''host=127.0.0.1 port=1'' PUBLICATION p WITH (connect = false, slot_name = ''precious'')';
         END$$",
    );
    let scenario = Scenario::with_database(server, "ascii_rules").backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let into = |copy: &str, more: &[&str]| {
        let url = server.url(copy);
        scenario.run(&[&["backups", "restore", "latest", "--into", &url, "--create"], more].concat()).succeeded();
    };
    let owner = "SELECT proowner::regrole || ' ' || coalesce(proacl::text, '') FROM pg_proc WHERE proname LIKE 'f\\_caf%'";
    into("ascii_own", &["--no-owner", "--trust-owners"]);
    assert!(server.sql("ascii_own", owner).starts_with("postgres "), "{}", server.sql("ascii_own", owner));
    into("ascii_map", &["--role-map", "ascii_reader=ascii_owner"]);
    assert!(!server.sql("ascii_map", owner).contains("reader"), "{}", server.sql("ascii_map", owner));
    let of_this_database =
        "FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for copy in ["ascii_own", "ascii_map"] {
        assert_eq!(server.sql(copy, &format!("SELECT coalesce(subslotname::text, 'none') {of_this_database}")), "none");
    }
    // A database with a subscription cannot be dropped at the end.
    for database in ["ascii_rules", "ascii_own", "ascii_map"] {
        server.sql(
            database,
            &format!(
                "SET client_encoding = 'SQL_ASCII';
                 DO $$DECLARE s text; BEGIN FOR s IN SELECT subname {of_this_database} LOOP
                     EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', s); EXECUTE format('DROP SUBSCRIPTION %I', s);
                 END LOOP; END$$"
            ),
        );
    }
}

#[test]
fn roles_with_other_letters_are_found_from_a_latin1_database() {
    let server = &Server::start(18);
    let database = "latin18";
    server.sql(
        "postgres",
        "CREATE DATABASE latin18 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0; CREATE ROLE \"jürgen\"",
    );
    // One whose name no UTF-8 session can read, made in the LATIN1 database.
    server.sql(database, "SET client_encoding = 'UTF8'; CREATE ROLE \"bjørn\"");
    // As this database reads the name that was made in UTF-8.
    server.sql(database, "SET client_encoding = 'UTF8'; CREATE TABLE t (x text); ALTER TABLE t OWNER TO \"jÃ¼rgen\"; INSERT INTO t VALUES ('é'); ALTER DATABASE latin18 OWNER TO \"jÃ¼rgen\"");
    let scenario = Scenario::with_database(server, database).backup_job("local", "verify = \"restore\"");
    scenario.run(&["run-job", "nightly"]).succeeded();
    restore(&scenario, server, "latin18_copy").succeeded();
    assert_eq!(properties(server, "latin18_copy"), properties(server, database));
    let owner = "SELECT relowner::regrole::text = 'x' OR relowner = (SELECT datdba FROM pg_database WHERE datname = 'latin18') FROM pg_class WHERE relname = 't'";
    assert_eq!(server.sql("latin18_copy", owner), "t");
}

#[test]
fn a_locale_that_the_target_lacks_is_named_with_the_option_for_another() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let file = scenario.path(&format!("store/{}/manifest.json", scenario.sets()[0]));
    let mut manifest = pgtend::task::backup::manifest::from_json(&std::fs::read(&file).unwrap()).unwrap();
    for locale in [&mut manifest.server.database.collate, &mut manifest.server.database.ctype] {
        *locale = "xx_XX.UTF-8".to_owned();
    }
    std::fs::write(&file, pgtend::task::backup::manifest::to_json(&manifest).unwrap()).unwrap();
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let arguments = ["backups", "restore", "latest", "--into", into.as_str(), "--create"];
    let refused = scenario.run(&arguments);
    refused.exited(1).says(&["locale xx_XX.UTF-8", "--locale"]);
    // Nobody is told to give what he gave.
    let refused =
        scenario.run(&[&arguments[..], &["--encoding", "SQL_ASCII"]].concat()).exited(1).says(&["does not fit --encoding"]);
    assert!(!refused.stderr.contains("or --encoding"), "{}", refused.stderr);
    let both = scenario.run(&[&arguments[..], &["--encoding", "LATIN1", "--locale", "C.UTF-8"]].concat()).exited(1);
    assert!(both.stderr.contains("or their combination") && !both.stderr.contains("--"), "{}", both.stderr);
    scenario.run(&[&arguments[..], &["--locale", "C", "--encoding", "SQL_ASCII"]].concat()).succeeded();
    let sql = format!("SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{copy}'");
    assert_eq!(server.sql("postgres", &sql), "C|SQL_ASCII");
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
