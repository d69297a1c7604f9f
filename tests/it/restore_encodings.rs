//! Databases in other encodings and locales, and names in them.

use crate::restore_database::{backed_up, properties, restore, some_rows};
use crate::support::Scenario;
use crate::support::postgres::{MAJORS, Server, server};

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
