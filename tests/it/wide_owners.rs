//! Dumps by several sessions, of tables and schemas whose owners have fewer rights than the login: nothing of theirs runs in these sessions, and what
//! they read is what they have locked.

use std::time::Duration;

use hyper::Method;

use crate::fetch::sum;
use crate::support::postgres::{MAJORS, Server, server};
use crate::support::s3::{Fault, Rule, S3Server};
use crate::support::{Scenario, eventually};
use crate::wide::SMALLER;

/// A function that PostgreSQL takes for a constant, and that says in the server's log when a superuser computes it.
const EVIL: &str = "CREATE FUNCTION app.act() RETURNS int VOLATILE LANGUAGE plpgsql AS $$ BEGIN
        IF pg_catalog.current_setting('is_superuser') = 'on' AND current_user = 'postgres' THEN
            RAISE LOG 'code of an owner ran as a superuser in %', pg_catalog.current_database(); END IF;
        RETURN 0; END $$;
    CREATE FUNCTION app.evil() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN app.act(); END $$;";

const LARGE: &str = "(id int, pad text)";
/// Rows that gzip makes little smaller.
const RANDOM_ROWS: &str = "SELECT i AS id, encode(sha512(int4send(i)), 'hex') AS pad FROM generate_series(1, 180000) i";
/// Enough for a large table where [`SMALLER`] is set.
const ROWS: &str = "SELECT i, repeat('x', 500) FROM generate_series(1, 400) i";

/// A database with a schema of an ordinary role's.
fn owned(server: &Server) -> (String, String) {
    let database = server.new_database();
    let owner = format!("app_{database}");
    server.sql(&database, &format!("CREATE ROLE {owner} LOGIN; CREATE SCHEMA app AUTHORIZATION {owner}"));
    (database, owner)
}

#[track_caller]
fn nothing_ran(server: &Server, database: &str) {
    let said = format!("code of an owner ran as a superuser in {database}");
    assert!(!server.logged().contains(&said), "{}", server.logged().lines().rfind(|line| line.contains(&said)).unwrap());
}

#[test]
fn the_owner_of_a_large_table_runs_no_code_as_the_login_by_an_index_or_by_statistics() {
    for major in MAJORS {
        let server = server(major);
        let (database, owner) = owned(server);
        server.sql(
            &database,
            &format!(
                "SET ROLE {owner}; {EVIL}
                 CREATE TABLE app.big {LARGE}; INSERT INTO app.big {ROWS}; CREATE INDEX i ON app.big ((id + app.evil()));
                 CREATE TABLE app.counted {LARGE}; INSERT INTO app.counted {ROWS}; CREATE STATISTICS app.s ON (id + app.evil()), pad FROM app.counted;
                 CREATE TABLE app.partial {LARGE}; INSERT INTO app.partial {ROWS}; CREATE INDEX p ON app.partial (id) WHERE id > app.evil()"
            ),
        );
        let job = "sessions = 2\nverify = \"checksum\"";
        let scenario = Scenario::with_database(server, &database).env(SMALLER.0, SMALLER.1).backup_job("local", job);
        let plan = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().stdout;
        let whole = format!("\"app\".\"big\" as a whole, as \"{owner}\" owns it and has fewer rights than the login");
        assert!(plan.contains(&whole), "{plan}");
        scenario.run(&["run-job", "nightly"]).succeeded().says(&["2 sessions read the rows of 3 tables"]);
        nothing_ran(server, &database);
        let copy = server.empty_database();
        scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy)]).succeeded();
        for table in ["app.big", "app.counted", "app.partial"] {
            assert_eq!(sum(server, &copy, table), sum(server, &database, table), "{table} on {major}");
        }
    }
}

/// An index of the table's owner, who is trusted, may call a function that another role can replace.
#[test]
fn the_owner_of_a_function_that_an_index_of_a_superusers_table_calls_runs_none_as_the_login() {
    for major in [14, 18] {
        let server = server(major);
        let (database, owner) = owned(server);
        server.sql(
            &database,
            &format!(
                "SET ROLE {owner}; CREATE FUNCTION app.evil() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 0'; RESET ROLE;
                 CREATE SCHEMA ours; CREATE TABLE ours.big {LARGE}; INSERT INTO ours.big {ROWS}; CREATE INDEX i ON ours.big ((id + app.evil()));
                 SET ROLE {owner}; {}",
                EVIL.replace("FUNCTION app.evil", "OR REPLACE FUNCTION app.evil")
            ),
        );
        let scenario = Scenario::with_database(server, &database)
            .env(SMALLER.0, SMALLER.1)
            .backup_job("local", "sessions = 2\nverify = \"checksum\"");
        scenario.run(&["run-job", "nightly"]).succeeded().says(&["2 sessions read the rows of 1 table"]);
        nothing_ran(server, &database);
    }
}

/// The tables belong to a superuser, and only their schema to another role, who puts a view (CVE-2024-7348) or a table of its own in the place of one.
#[test]
fn the_owner_of_a_schema_who_puts_another_relation_in_the_place_of_a_locked_table_ends_the_dump() {
    let instead = [
        "CREATE VIEW app.third AS SELECT app.act() AS id, ''::text AS pad, '(0,1)'::tid AS ctid",
        "CREATE TABLE app.third AS SELECT 1 AS id, 'another'::text AS pad; CREATE INDEX i ON app.third ((id + app.evil()))",
    ];
    for major in MAJORS {
        let server = server(major);
        let (original, owner) = owned(server);
        // Larger together than what a dump and its upload hold in memory, and third after the two that its sessions take first.
        server.sql(&original, &format!("CREATE TABLE app.first AS {RANDOM_ROWS}; CREATE TABLE app.second AS TABLE app.first; CREATE TABLE app.third AS SELECT * FROM app.first WHERE id <= 80000"));
        for instead in instead {
            let (s3, database) = (S3Server::start(), server.copy_of(&original));
            server.sql(&database, &format!("GRANT CREATE ON DATABASE {database} TO {owner}"));
            let scenario = Scenario::with_database(server, &database)
                .s3(&s3)
                .config("parts_in_flight = 1\nupload_memory = \"10MiB\"\n")
                .backup_job("bucket", "sessions = 2");
            s3.break_with(Rule {
                method: Method::PUT,
                contains: "partNumber=2",
                skip: 0,
                times: 1,
                fault: Fault::Slow(Duration::from_secs(60)),
            });
            let running = scenario.start(&["run-job", "nightly"]);
            let copying = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active' AND query LIKE 'COPY %TO STDOUT'"
            );
            eventually("two sessions copy", || server.sql("postgres", &copying) == "2");
            server.sql(
                &database,
                &format!(
                    "SET ROLE {owner}; BEGIN; ALTER SCHEMA app RENAME TO before; CREATE SCHEMA app; {EVIL} {instead}; COMMIT"
                ),
            );
            s3.heal();
            running.wait().exited(1).says(&["\"app\".\"third\"", "is not the table that this dump has locked"]);
            nothing_ran(server, &database);
            assert_eq!((s3.objects(), s3.unfinished_uploads()), (vec![], vec![]), "on {major}");
        }
    }
}

/// Slices need a plan; whose code none of it can be, is read in slices.
#[test]
fn tables_of_the_login_and_of_superusers_are_read_in_slices() {
    let server = server(18);
    let (database, owner) = owned(server);
    server.sql(&database, &format!("SET ROLE {owner}; CREATE TABLE app.big {LARGE}; INSERT INTO app.big {ROWS}; CREATE INDEX ON app.big (lower(pad), (id + 1))"));
    let url = server.url_as(&owner, &database);
    let scenario = Scenario::with_url(server, &url).env(SMALLER.0, SMALLER.1).backup_job("local", "sessions = 2");
    let plan = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().stdout;
    assert!(plan.contains("rows of large tables by 2 sessions") && !plan.contains("as a whole"), "{plan}");
}
