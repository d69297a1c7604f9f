//! What is in a store is input: what somebody else put there is not run, or has no right to do harm.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::Scenario;
use crate::support::postgres::{Server, server};

/// A path that the server can write to, and where nothing is.
fn flag(server: &Server, name: &str) -> String {
    let path = server.path(&format!("data/flag_{name}"));
    assert!(!path.exists());
    path.display().to_string()
}

/// Changes the text of a dump in its place. The manifest stays as it was.
fn rewrite(dump: &Path, change: impl Fn(&str) -> String) {
    let plain = Command::new("gzip").arg("-dc").arg(dump).output().unwrap();
    let changed = change(&String::from_utf8(plain.stdout).unwrap());
    let mut gzip = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(changed.as_bytes()).unwrap();
    std::fs::write(dump, gzip.wait_with_output().unwrap().stdout).unwrap();
}

#[test]
fn of_a_dump_that_was_changed_in_the_store_no_statement_is_run() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets()[0].clone();
    let flag = flag(server, &database);
    rewrite(&scenario.path(&format!("store/{set}/dump.sql.gz")), |dump| {
        let code = format!(
            "CREATE FUNCTION public.f(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$BEGIN COPY (SELECT 1) TO '{flag}'; RETURN 1; END$$;
             CREATE INDEX i ON public.t (public.f(x));\n--\n-- PostgreSQL database dump complete"
        );
        dump.replace("--\n-- PostgreSQL database dump complete", &code)
    });
    scenario.also_in_the_second_store("store");
    let copy = server.url(&format!("{database}_copy"));
    let empty = server.empty_database();
    for arguments in [
        &["backups", "restore", "latest", "--into", &copy, "--create"][..],
        &["backups", "restore", "latest", "--into", &server.url(&empty)],
        &["backups", "verify", "latest", "--restore-on", "app"],
    ] {
        scenario.run(arguments).exited(78).says(&["its dump has", "bytes and the manifest says"]);
        assert!(!Path::new(&flag).exists(), "{arguments:?} ran it");
    }
}

/// What a stranger adds to a dump whose manifest is right: whoever can write the one can write the other. And what stops it.
const ADDED: [(&str, &str); 15] = [
    ("ALTER  ROLE climber SUPERUSER;", "pg_dump never writes"),
    ("ALTER /**/\n\tROLE climber SUPERUSER;", "pg_dump never writes"),
    ("GRANT postgres TO climber;", "pg_dump never writes"),
    ("GRANT SET ON PARAMETER archive_command TO climber;", "pg_dump never writes"),
    ("DO 'BEGIN END';", "pg_dump never writes"),
    ("SELECT pg_catalog.setval('public.s', public.t());", "pg_dump never writes"),
    ("COPY public.c FROM PROGRAM 'cat' WHERE stdin IS DISTINCT FROM stdin;\n\\.", "pg_dump never writes"),
    (
        "COPY pg_catalog.pg_auth_members (oid, roleid, member, grantor, admin_option) FROM stdin;\n99999\t10\t1\t10\tt\n\\.",
        "pg_dump never writes",
    ),
    ("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = true);", "pg_dump never writes"),
    // Two in one, as the server reads them.
    (
        "CREATE FUNCTION public.z() RETURNS int LANGUAGE sql RETURN (SELECT begin atomic FROM (SELECT 1 AS begin) q); ALTER ROLE climber SUPERUSER; END;",
        "pg_dump never writes",
    ),
    (
        "CREATE FUNCTION public.z() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 case; END; ALTER ROLE climber SUPERUSER; SELECT 1 end;",
        "multiple commands",
    ),
    // The same, in a statement that goes to the server as bytes and is run by EXECUTE there, for which several are not too many.
    (
        "CREATE FUNCTION public.z() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 case; END; ALTER ROLE climber SUPERUSER; SELECT '\u{10ff41}' end;",
        "pg_dump never writes",
    ),
    // A string that goes on in the next line has the escapes of its first part.
    (
        "COMMENT ON SCHEMA public IS E'\u{10ff41}'\n'\\''; ALTER ROLE climber SUPERUSER; COMMENT ON SCHEMA public IS 'b'; -- ';",
        "pg_dump never writes",
    ),
    // In SJIS the backslash is the second half of a letter, and escapes nothing.
    ("SET client_encoding = 'SJIS';\nCOMMENT ON SCHEMA public IS E'\u{10ff41}';", "pg_dump never writes"),
    (
        "SET standard_conforming_strings = off;\nSET standard_conforming_strings=on;\nCOMMENT ON SCHEMA public IS 'a\\'; ALTER ROLE climber SUPERUSER; COMMENT ON SCHEMA public IS 'b'; -- '\n;",
        "pg_dump never writes",
    ),
];

#[test]
fn what_a_stranger_adds_to_a_dump_is_not_run_whatever_the_hashes_say() {
    let server = server(18);
    server.sql("postgres", "CREATE ROLE climber");
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
    let script = "set -o pipefail; \"$real\" \"$@\" | sed '/^SET client_min_messages/r added.sql'";
    for (number, (added, says)) in ADDED.into_iter().enumerate() {
        let scenario = Scenario::with_tool(server, &database, "pg_dump", script).backup_job("local", "verify = \"none\"");
        std::fs::write(scenario.path("added.sql"), format!("{added}\n")).unwrap();
        scenario.run(&["run-job", "nightly"]).succeeded();
        let into = server.url(&format!("{database}_copy{number}"));
        scenario.run(&["backups", "restore", "latest", "--into", &into, "--create"]).exited(1).says(&[says]);
        if says != "multiple commands" {
            let goes_on = ["backups", "restore", "latest", "--into", &into, "--create", "--on-error", "continue"];
            scenario.run(&goes_on).exited(1).says(&[says, "is unchanged"]);
        }
        let gained = "SELECT rolsuper OR pg_has_role('climber', 'postgres', 'MEMBER') FROM pg_roles WHERE rolname = 'climber'";
        assert_eq!(server.sql("postgres", gained), "f", "{added}");
    }
}

#[test]
fn a_scratch_database_whose_mark_the_dump_takes_away_is_dropped_all_the_same() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE FUNCTION unmark() RETURNS int LANGUAGE plpgsql AS
             $$BEGIN EXECUTE 'COMMENT ON DATABASE ' || quote_ident(current_database()) || $c$ IS 'mine'$c$; RETURN 1; END$$;
         CREATE TABLE t (x int DEFAULT unmark()); CREATE MATERIALIZED VIEW m AS SELECT unmark()",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!run.stderr.replace("What stays readable", "").contains("stays"), "{}", run.stderr);
    let left = "SELECT count(*) FROM pg_database d WHERE datname LIKE 'pgtend_verify_%' AND shobj_description(oid, 'pg_database') = 'mine'";
    assert_eq!(server.sql("postgres", left), "0");
}

#[test]
fn a_set_is_proved_by_a_role_without_rights() {
    for major in [14, 15, 18] {
        let server = server(major);
        let role = format!("prover_{major}");
        server.sql("postgres", &format!("CREATE ROLE {role} LOGIN CREATEDB; CREATE ROLE owner_{major}"));
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "CREATE SCHEMA s AUTHORIZATION owner_{major}; CREATE TABLE s.t AS SELECT generate_series(1, 1000) AS x;
                 ALTER TABLE s.t OWNER TO owner_{major}; GRANT SELECT ON s.t TO {role};
                 ALTER DEFAULT PRIVILEGES FOR ROLE owner_{major} GRANT SELECT ON TABLES TO PUBLIC;
                 CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
                 CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e();
                 CREATE MATERIALIZED VIEW s.m AS SELECT count(*) FROM s.t;
                 GRANT SELECT ON s.t TO owner_{major} WITH GRANT OPTION; SET ROLE owner_{major}; GRANT SELECT ON s.t TO {role}; RESET ROLE"
            ),
        );
        let scenario = Scenario::with_database(server, &database)
            .config(&format!("[databases.proof]\nurl = '{}'\n", server.url_as(&role, "postgres")))
            .backup_job("local", "verify = \"restore\"\nscratch = \"proof\"");
        scenario.run(&["run-job", "nightly"]).succeeded().says(&[
            "owners of objects were not tested",
            "event triggers were not tested",
            "ALTER DEFAULT PRIVILEGES of other roles was not tested",
        ]);
        let listed = scenario.json(&["backups", "list"]);
        assert_eq!(listed["sets"][0]["restored"], true, "{listed:#}");
    }
}
