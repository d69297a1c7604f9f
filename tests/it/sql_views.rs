//! `[sql]` refreshes materialized views, each after those that it reads.

use crate::support::Scenario;
use crate::support::postgres::{SOME_MAJORS, Server, server};

/// Names that sort against the order in which they must be refreshed, with a view between two of them.
fn with_views(server: &Server) -> String {
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE TABLE t (i int); INSERT INTO t VALUES (1);
         CREATE SCHEMA \"Odd \"\"s\";
         CREATE MATERIALIZED VIEW \"Odd \"\"s\".z AS SELECT i FROM t; CREATE UNIQUE INDEX ON \"Odd \"\"s\".z (i);
         CREATE VIEW between AS SELECT i FROM \"Odd \"\"s\".z;
         CREATE MATERIALIZED VIEW m AS SELECT sum(i) AS s FROM between;
         CREATE MATERIALIZED VIEW a AS SELECT m.s, z.i FROM m, \"Odd \"\"s\".z; CREATE UNIQUE INDEX ON a (i) WHERE i > 0;
         CREATE MATERIALIZED VIEW alone AS SELECT count(*) AS c FROM t WITH NO DATA",
    );
    database
}

fn refreshing(server: &Server, database: &str, refresh: &str) -> Scenario {
    Scenario::with_database(server, database).job("views", &format!("database = \"app\"\n[sql]\nrefresh = {refresh}\n"))
}

fn statements(scenario: &Scenario) -> Vec<String> {
    let planned = scenario.json(&["run-job", "views", "--dry-run"]);
    let statements = planned["runs"][0]["plan"]["statements"].as_array().unwrap().iter();
    statements.map(|statement| statement.as_str().unwrap().replace("REFRESH MATERIALIZED VIEW ", "")).collect()
}

#[test]
fn all_materialized_views_are_refreshed_each_after_those_that_it_reads() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = with_views(server);
        let scenario = refreshing(server, &database, "\"all\"\nconcurrently = true");
        let expected = [
            "CONCURRENTLY \"Odd \"\"s\".\"z\"",
            "\"public\".\"alone\"",
            "\"public\".\"m\"",
            // Its unique index leaves rows out.
            "\"public\".\"a\"",
        ];
        let mut planned = statements(&scenario);
        // Those that read nothing come in any order among themselves.
        planned[..2].sort_by_key(|statement| !statement.starts_with("CONC"));
        assert_eq!(planned, expected, "{major}");
        server.sql(&database, "INSERT INTO t VALUES (41)");
        scenario.run(&["run-job", "views"]).succeeded().prints(&["4 statements"]);
        assert_eq!(server.sql(&database, "SELECT max(s), count(*) FROM a"), "42|2", "{major}");
        assert_eq!(server.sql(&database, "SELECT c FROM alone"), "2", "{major}");
        scenario.run(&["check", "--connect"]).succeeded().prints(&["refreshes 4 materialized views"]);
    }
}

#[test]
fn named_views_bring_those_along_that_they_read_and_no_other() {
    let server = server(18);
    let database = with_views(server);
    let scenario = refreshing(server, &database, "[\"m\"]");
    assert_eq!(statements(&scenario), ["\"Odd \"\"s\".\"z\"", "\"public\".\"m\""]);
    server.sql(&database, "INSERT INTO t VALUES (41)");
    scenario.run(&["run-job", "views"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT s FROM m"), "42");
    assert_eq!(server.sql(&database, "SELECT s FROM a"), "1");
    for (refresh, says) in
        [("[\"missing\"]", "there is no materialized view public.missing"), ("[\"t\"]", "is no materialized view")]
    {
        let scenario = refreshing(server, &database, refresh);
        scenario.run(&["run-job", "views"]).exited(78).says(&[says]);
        scenario.run(&["check", "--connect"]).exited(78).prints(&[says]);
    }
}

#[test]
fn a_job_has_either_statements_or_views() {
    let server = server(18);
    let database = server.trusted_database();
    for (keys, says) in [
        ("", "[sql] has no `statements`"),
        ("statements = [\"ANALYZE\"]\nrefresh = \"all\"", "`refresh` and `statements` stand together"),
        ("statements = [\"ANALYZE\"]\nconcurrently = true", "`concurrently` belongs to `refresh`"),
        ("refresh = []", "`refresh` is empty"),
        ("refresh = \"every\"", "refresh"),
    ] {
        let scenario = Scenario::with_database(server, &database).job("views", &format!("database = \"app\"\n[sql]\n{keys}\n"));
        scenario.run(&["check"]).exited(78).says(&[says]);
    }
}
