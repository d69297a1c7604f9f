//! What compression is worth, and what it costs those who read: said before it begins.

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::support::scripts::{HASHES, job, of_5_kb, scenario};

#[test]
fn what_saves_too_little_of_the_whole_table_is_refused_and_says_what_to_do() {
    let server = server(18);
    let database = of_5_kb(server, 60);
    // The values are the smaller part of the table.
    server.sql(
        &database,
        "ALTER TABLE scripts ADD notes text; UPDATE scripts SET notes = (SELECT string_agg(md5(id || ' ' || j), '') FROM generate_series(1, 250) j);
         VACUUM FULL ANALYZE scripts",
    );
    let hashes = server.sql(&database, HASHES);
    let first_release = job("").replace("minimum_gain = 0\n", "");
    let scenario = Scenario::with_database(server, &database).job("scripts", &first_release);
    scenario.run(&["compress", "install", "scripts", "--dry-run"]).exited(78).prints(&[
        "saves too little of the whole table",
        "of the whole table (with its TOAST table and indexes",
        "a search over all values (ILIKE '%…%'): about",
        "a list of 20 rows with the column:",
        "who reads the values is unknown",
        "an ORM meets that, too",
        "\"public\".\"scripts_stored\"",
    ]);
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&[
        "not installed",
        "below minimum_gain = 0.3",
        "set a lower `minimum_gain`",
        "--force installs it anyway",
    ]);
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
    // A lower share is enough, or a person's word; then the job of the first release goes on by itself.
    let lower = Scenario::with_database(server, &database)
        .job("scripts", &job("").replace("minimum_gain = 0\n", "minimum_gain = 0.01\n"));
    lower.run(&["compress", "install", "scripts", "--dry-run"]).succeeded();
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    let plan = scenario.run(&["run-job", "scripts", "--dry-run"]).succeeded().stdout;
    assert!(!plan.contains("do nothing"), "what was begun goes on: {plan}");
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(report["runs"][0]["report"]["facts"]["rows_compressed"], 60, "{report:#}");
    assert_eq!(server.sql(&database, HASHES), hashes);
    for wrong in ["1.0", "-0.1"] {
        let scenario = Scenario::with_database(server, &database)
            .job("scripts", &job("").replace("minimum_gain = 0\n", &format!("minimum_gain = {wrong}\n")));
        scenario.run(&["check"]).exited(78).says(&["0.3 is 30 %"]);
    }
}

#[test]
fn the_plan_names_the_statements_that_would_pay_and_does_not_recommend_it() {
    let server = Server::start_with(15, &["shared_preload_libraries=pg_stat_statements"]);
    let database = of_5_kb(&server, 900);
    server.sql(&database, "CREATE EXTENSION pg_stat_statements");
    for _ in 0..3 {
        server.sql(&database, "SELECT count(*) FROM scripts WHERE content ILIKE '%ticket%'");
        server.sql(&database, "SELECT * FROM scripts ORDER BY id LIMIT 300");
        server.sql(&database, "SELECT id, title FROM scripts WHERE title ILIKE '%x%'");
    }
    let scenario = scenario(&server, &database, "");
    let plan = scenario.run(&["run-job", "scripts", "--dry-run"]).exited(78).stdout;
    for said in [
        "pg_stat_statements: 3 calls of 1 statement search the column",
        "not recommended: 3 calls search the column, and a search over all values would take",
        "content ILIKE $1",
        "pg_stat_statements: 3 calls of 1 statement return it, most often (300 rows",
        "not recommended: 3 calls of a statement that returns 300 rows with the column would take",
    ] {
        assert!(plan.contains(said), "{said}: {plan}");
    }
    assert!(!plan.contains("title ILIKE"), "{plan}");
    // It is a recommendation: who installs it all the same is told once more.
    scenario.run(&["compress", "install", "scripts"]).succeeded().says(&["not recommended: 3 calls search the column"]);
}
