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
    let copy = server.url(&format!("{database}_copy"));
    let empty = server.new_database();
    for arguments in [
        &["backups", "restore", "latest", "--into", &copy, "--create"][..],
        &["backups", "restore", "latest", "--into", &server.url(&empty)],
        &["backups", "verify", "latest", "--restore-on", "app"],
    ] {
        let output = scenario.run(arguments);
        assert_ne!(output.code, Some(0), "{arguments:?}: {output:?}");
        assert!(!Path::new(&flag).exists(), "{arguments:?} ran it");
    }
}

#[test]
fn a_statement_that_pg_dump_never_writes_is_not_run_whatever_the_hashes_say() {
    let server = server(18);
    for (number, statement) in
        ["ALTER ROLE climber SUPERUSER;", "GRANT postgres TO climber;", "COPY (SELECT 1) TO PROGRAM 'cat';", "DO 'BEGIN END';"]
            .into_iter()
            .enumerate()
    {
        if number == 0 {
            server.sql("postgres", "CREATE ROLE climber");
        }
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
        // Whoever can write the dump can write its manifest.
        let script =
            format!("set -o pipefail; \"$real\" \"$@\" | sed \"s/^SET lock_timeout.*/&\\n{}/\"", statement.replace('\'', "'"));
        let scenario = Scenario::with_tool(server, &database, "pg_dump", &script).backup_job("local", "verify = \"none\"");
        scenario.run(&["run-job", "nightly"]).succeeded();
        for more in [&["--create"][..], &["--create", "--on-error", "continue"]] {
            let into = server.url(&format!("{database}_copy"));
            scenario
                .run(&[&["backups", "restore", "latest", "--into", &into], more].concat())
                .exited(1)
                .says(&["a statement that pg_dump never writes", statement.trim_end_matches(';')]);
        }
        let gained = "SELECT rolsuper OR pg_has_role('climber', 'postgres', 'MEMBER') FROM pg_roles WHERE rolname = 'climber'";
        assert_eq!(server.sql("postgres", gained), "f");
    }
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
                 CREATE MATERIALIZED VIEW s.m AS SELECT count(*) FROM s.t"
            ),
        );
        let scenario = Scenario::with_database(server, &database)
            .config(&format!("[databases.proof]\nurl = '{}'\n", server.url_as(&role, "postgres")))
            .backup_job("local", "verify = \"restore\"\nscratch = \"proof\"");
        scenario
            .run(&["run-job", "nightly"])
            .succeeded()
            .says(&["the owners of objects were not tried", "event triggers were not tried"]);
        let listed = scenario.json(&["backups", "list"]);
        assert_eq!(listed["sets"][0]["restored"], true, "{listed:#}");
    }
}
