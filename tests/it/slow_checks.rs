//! CHECKs of a table's owner that sleep: what only looks runs none of them, and what writes rows is ended by a limit, which it names.

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, quoted};

/// A table for each task, with a CHECK that is true at once.
fn tables(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE EXTENSION vector; CREATE SCHEMA own;
         CREATE FUNCTION own.holds(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
         CREATE DOMAIN own.word AS text CHECK (own.holds(VALUE));
         CREATE TABLE logs (id bigint PRIMARY KEY, at timestamptz, said own.word, CHECK (own.holds(id::text)));
         CREATE TABLE plain (id bigint PRIMARY KEY, at timestamptz NOT NULL, said own.word, CHECK (own.holds(id::text)));
         INSERT INTO logs SELECT i, now() - make_interval(days => i), 'word' FROM generate_series(1, 200) i;
         INSERT INTO plain SELECT i, now() - make_interval(days => i), 'word' FROM generate_series(1, 200) i;
         CREATE TABLE events (id bigint, at timestamptz NOT NULL, said own.word, CHECK (own.holds(id::text))) PARTITION BY RANGE (at);
         CREATE TABLE events_default PARTITION OF events DEFAULT; INSERT INTO events SELECT i, now(), 'word' FROM generate_series(1, 9) i;
         CREATE TABLE scripts (id int PRIMARY KEY, content text NOT NULL CHECK (own.holds(content)), kind own.word);
         INSERT INTO scripts SELECT i, (SELECT string_agg(md5((i * 999 + j)::text) || 'Get-ChildItem', E'\\n') FROM generate_series(1, 200) j), 'word'
           FROM generate_series(1, 20) i;
         CREATE TABLE items (id int PRIMARY KEY, embedding vector(4), CHECK (own.holds(id::text)));
         INSERT INTO items SELECT i, ARRAY[sin(i), cos(i), sin(2 * i), cos(3 * i)]::real[]::vector FROM generate_series(1, 500) i;
         CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops); ANALYZE",
    );
    database
}

/// From now on each of these CHECKs takes longer than any test.
fn fall_asleep(server: &Server, database: &str) {
    server.sql(
        database,
        "CREATE OR REPLACE FUNCTION own.holds(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_catalog.pg_sleep(36000); RETURN true; END'",
    );
    for sql in ["INSERT INTO logs (id) VALUES (0)", "SELECT 'word'::own.word"] {
        let ran = server.psql(database, &format!("SET statement_timeout = '200ms'; {sql}"));
        assert!(ran.unwrap_err().contains("statement timeout"), "{sql} runs the CHECK");
    }
}

const JOBS: [(&str, &str); 8] = [
    ("logs", "[retention]\ntable = \"public.logs\"\ncolumn = \"at\"\nolder_than = \"90d\""),
    ("events", "[partition]\ntable = \"public.events\"\ncolumn = \"at\"\nevery = \"month\"\npremake = 1\ngive_up_after = \"2s\""),
    ("plain", "[partition]\ntable = \"public.plain\"\ncolumn = \"at\"\nevery = \"month\"\npremake = 1"),
    ("toasted", "[compress]\ntable = \"public.scripts\"\ncolumn = \"content\"\nlarger_than = \"2KB\"\nmethod = \"toast\""),
    (
        "gzipped",
        "[compress]\ntable = \"public.scripts\"\ncolumn = \"content\"\nlarger_than = \"2KB\"\nmethod = \"gzip\"\n[limits]\nstatement_timeout = \"1s\"",
    ),
    ("items", "[vector_index]\ntable = \"public.items\"\ncolumn = \"embedding\""),
    ("audit", "[audit]\nstore = \"local\""),
    ("tidy", "[reindex]\ntable = \"public.logs\""),
];

fn scenario(server: &Server, database: &str) -> Scenario {
    let staging = server.empty_database();
    let scenario = Scenario::with_database(server, database)
        .config(&format!("[databases.staging]\nurl = {}\n", quoted(&server.url(&staging))))
        .backup_job("local", "verify = \"restore\"")
        .sql_job("plain-sql", "", &["ANALYZE public.logs"])
        .job("refresh", "database = \"staging\"\n[refresh]\nfrom = \"nightly\"\n");
    JOBS.iter().fold(scenario, |scenario, (name, task)| scenario.job(name, &format!("database = \"app\"\n{task}\n")))
}

#[test]
fn what_only_looks_runs_no_check_of_a_table() {
    let server = server(18);
    let database = tables(server);
    let scenario = scenario(server, &database);
    scenario.run(&["run-job", "nightly"]).succeeded();
    fall_asleep(server, &database);

    // None of these ends before the sleep of one CHECK, which no test waits for.
    scenario.run(&["check", "--connect"]).exited_with_one_of(&[0, 77, 78]).prints(&["privileges for toasted"]);
    scenario.run(&["doctor"]).exited_with_one_of(&[0, 77, 78]);
    scenario.run(&["grants"]).succeeded();
    for job in ["nightly", "plain-sql", "refresh", "logs", "events", "toasted", "items", "audit", "tidy"] {
        scenario.run(&["run-job", job, "--dry-run"]).succeeded();
    }
    for job in ["plain", "gzipped"] {
        scenario.run(&["run-job", job, "--dry-run"]).exited(78);
    }
    scenario.run(&["partition", "convert", "plain", "--dry-run"]).succeeded();
    scenario.run(&["compress", "install", "gzipped", "--dry-run"]).exited(78).says(&["CHECK (own.holds(content))", "--force"]);
    scenario.run(&["run-job", "audit"]).succeeded();
}

#[test]
fn what_writes_rows_is_ended_by_a_limit_that_it_says() {
    let server = server(18);
    let database = tables(server);
    let scenario = scenario(server, &database);
    scenario.run(&["compress", "install", "gzipped", "--force"]).succeeded();
    fall_asleep(server, &database);

    let ended = "canceling statement due to statement timeout";
    // Rows leave the default partition for one of their own.
    scenario.run(&["run-job", "events"]).exited(1).says(&["create events_p", ended]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ONLY events_default"), "9");
    // A row gets its compressed form.
    scenario.run(&["run-job", "gzipped"]).exited(1).says(&["after 0 rows", ended]);
    assert_eq!(server.sql(&database, "SELECT count(content), count(content_gz) FROM scripts_stored"), "20|0");
    // These write no row of these tables.
    scenario.run(&["run-job", "logs"]).succeeded();
    scenario.run(&["partition", "convert", "plain"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM plain"), "200");
}
