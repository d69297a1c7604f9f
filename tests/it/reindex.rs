//! Indexes that are built anew: why, and what stays when it is stopped.

use rustix::process::Signal;

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually};

/// `logs` with an index that is nine tenths empty, one that is well, and an exclusion constraint.
fn logs(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id bigint PRIMARY KEY, at timestamptz, span int4range, text text, EXCLUDE USING gist (span WITH &&));
         INSERT INTO logs SELECT i, now() - make_interval(secs => i), NULL, md5(i::text) FROM generate_series(1, 60000) i;
         CREATE INDEX logs_text ON logs (text); CREATE INDEX logs_lower ON logs (lower(text)) WHERE id % 10 <> 3;
         DELETE FROM logs WHERE id % 10 <> 3; VACUUM ANALYZE logs; CREATE INDEX logs_at ON logs (at); ANALYZE logs",
    );
    database
}

fn scenario(server: &Server, database: &str, more: &str) -> Scenario {
    Scenario::with_database(server, database)
        .job("tidy", &format!("database = 'app'\n[reindex]\ntable = 'logs'\nlarger_than = '100KiB'\n{more}\n"))
}

fn size(server: &Server, database: &str, index: &str) -> u64 {
    server.sql(database, &format!("SELECT pg_relation_size('{index}')")).parse().unwrap()
}

#[test]
fn bloated_indexes_are_rebuilt_and_others_left_with_a_reason() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = logs(server);
        let scenario = scenario(server, &database, "").ledger();
        let before = ["logs_text", "logs_pkey", "logs_at"].map(|index| size(server, &database, index));
        scenario.run(&["run-job", "tidy", "--dry-run"]).succeeded().prints(&[
            "rebuild \"public\".\"logs_text\" (btree): an estimated 9",
            "rebuild \"public\".\"logs_lower\" (btree): ",
            "leave \"public\".\"logs_at\"",
            "index of an exclusion constraint concurrently",
        ]);
        assert_eq!(size(server, &database, "logs_text"), before[0]);
        let json = scenario.json(&["run-job", "tidy"]);
        let rebuilt = json["runs"][0]["report"]["facts"]["rebuilt"].as_array().unwrap().clone();
        assert!(rebuilt.len() >= 2, "{json:#}");
        assert!(size(server, &database, "logs_text") * 3 < before[0] && size(server, &database, "logs_pkey") * 3 < before[1]);
        assert_eq!(size(server, &database, "logs_at"), before[2]);
        scenario.run(&["run-job", "tidy"]).succeeded().prints(&["no index of logs needs to be rebuilt"]);
    }
}

#[test]
fn an_invalid_index_is_rebuilt_and_what_a_stopped_reindex_left_is_dropped() {
    let server = server(16);
    let database = logs(server);
    let holder = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM logs");
    for sql in ["CREATE INDEX CONCURRENTLY \"lo\"\"gs x\" ON logs (at, id)", "REINDEX INDEX CONCURRENTLY logs_at"] {
        assert!(server.psql(&database, &format!("SET statement_timeout = '1s'; {sql}")).is_err());
    }
    drop(holder);
    let invalid = "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY 1) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(server.sql(&database, invalid), "\"lo\"\"gs x\" logs_at_ccnew");
    scenario(server, &database, "indexes = ['lo\"gs x']").run(&["run-job", "tidy"]).succeeded();
    assert_eq!(server.sql(&database, invalid), "");
    assert_eq!(server.sql(&database, "SELECT to_regclass('logs_at_ccnew')"), "");
    scenario(server, &database, "indexes = ['none']").run(&["run-job", "tidy"]).exited(78).says(&["has no index none"]);
}

#[test]
fn nothing_is_dropped_nor_rebuilt_while_somebody_builds_there() {
    let server = server(18);
    let database = logs(server);
    // What a REINDEX is making at the moment looks as what a stopped one left.
    let holder = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM logs");
    let invalid = "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE NOT indisvalid";
    std::thread::scope(|scope| {
        let build = "SET application_name = 'the administrator'; REINDEX INDEX CONCURRENTLY logs_at";
        let builder = scope.spawn(|| server.psql(&database, build));
        eventually("somebody builds", || server.sql(&database, invalid) == "logs_at_ccnew");
        let job = scenario(server, &database, "[limits]\nmax_wait = '1s'\nlock_timeout = '200ms'");
        job.run(&["run-job", "tidy"]).exited(75).says(&["the administrator", "was left alone"]);
        assert_eq!(server.sql(&database, invalid), "logs_at_ccnew");
        drop(holder);
        assert!(builder.join().unwrap().is_ok());
    });
    assert_eq!(server.sql(&database, invalid), "");
    scenario(server, &database, "").run(&["run-job", "tidy"]).succeeded();
}

#[test]
fn stopped_in_its_waits_it_leaves_the_index_as_it_was_and_the_next_run_is_clean() {
    let server = server(18);
    let indexes = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname LIKE 'logs%' AND relkind = 'i'";
    for signal in [Some(Signal::KILL), Some(Signal::TERM), None] {
        let database = logs(server);
        let names = server.sql(&database, indexes);
        let holder = server.session(
            &database,
            "SET application_name = 'the report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class",
        );
        let job = scenario(server, &database, "[limits]\nmax_wait = '2s'");
        let patient = scenario(server, &database, "");
        match signal {
            Some(signal) => {
                let running = patient.start(&["run-job", "tidy"]);
                eventually("it waits for the old transaction", || {
                    server
                        .sql(
                            &database,
                            "SELECT string_agg(phase, ' ') FROM pg_stat_progress_create_index WHERE datname = current_database()",
                        )
                        .contains("waiting")
                });
                running.signal(signal);
                running.wait();
            }
            None => {
                job.run(&["run-job", "tidy"]).exited(75).says(&["the report"]);
            }
        }
        drop(holder);
        eventually("the next run succeeds", || patient.run(&["run-job", "tidy"]).code == Some(0));
        assert_eq!(server.sql(&database, indexes), names);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
    }
}

#[test]
fn of_a_partitioned_table_the_indexes_of_its_partitions_are_rebuilt() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id int, text text) PARTITION BY RANGE (id); CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (100000);
         CREATE INDEX logs_text ON logs (text); INSERT INTO logs SELECT i, md5(i::text) FROM generate_series(1, 30000) i;
         DELETE FROM logs WHERE id % 10 <> 3; VACUUM ANALYZE logs",
    );
    let before = size(server, &database, "logs_1_text_idx");
    scenario(server, &database, "").run(&["run-job", "tidy"]).succeeded();
    assert!(size(server, &database, "logs_1_text_idx") * 3 < before);
}

#[test]
fn an_index_that_is_not_there_is_found_before_anything_runs_and_one_that_must_stay_is_said() {
    let server = server(16);
    let database = logs(server);
    let job = scenario(server, &database, "indexes = ['nowhere']");
    for command in [&["run-job", "tidy", "--dry-run"][..], &["run-job", "tidy"]] {
        job.run(command).exited(78).says(&["has no index nowhere"]);
    }
    job.run(&["check", "--connect"]).exited(78).prints(&["has no index nowhere"]);
    let output = scenario(server, &database, "indexes = ['logs_span_excl']").run(&["run-job", "tidy"]).succeeded();
    output.says(&["logs_span_excl", "stays", "exclusion constraint"]);
}

/// A collation whose version the library is said to have changed, with indexes in its order.
fn other_version(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        &format!("CREATE COLLATION german ({});
         CREATE TABLE people (id int PRIMARY KEY, name text COLLATE german, town text); INSERT INTO people SELECT i, 'n' || i, 't' || i FROM generate_series(1, 500) i;
         CREATE UNIQUE INDEX people_name ON people (name); CREATE INDEX people_some ON people (id) WHERE name > 'm' COLLATE german; CREATE INDEX people_town ON people (town);
         CREATE TABLE parts (id int, name text COLLATE german) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9); CREATE INDEX parts_name ON parts (name);
         UPDATE pg_collation SET collversion = '0' WHERE collname = 'german'", if server.major == 15 { "provider = icu, locale = 'de'" } else { "provider = builtin, locale = 'C.UTF-8'" }),
    );
    database
}

const OLD: &str = "SELECT count(*) FROM pg_collation WHERE collname = 'german' AND collversion = '0'";
const FILES: &str = "SELECT string_agg(relname || ' ' || relfilenode, ', ' ORDER BY relname) FROM pg_class WHERE relname IN ('people_name', 'people_some', 'parts_1_name_idx')";

#[test]
fn all_indexes_of_a_collation_are_rebuilt_before_its_version_is_refreshed() {
    for major in [15, 17] {
        let server = server(major);
        let database = other_version(server);
        let scenario =
            Scenario::with_database(server, &database).job("tidy", "database = 'app'\n[reindex]\ncollations = true\n").ledger();
        scenario.run(&["check", "--connect"]).succeeded().prints(&["may rebuild 3 indexes"]);
        scenario.run(&["run-job", "tidy", "--dry-run"]).succeeded().prints(&[
            "rebuild \"public\".\"people_name\" (btree): was built with version 0 of collation public.german",
            "rebuild \"public\".\"people_some\"",
            "rebuild \"public\".\"parts_1_name_idx\"",
            "refresh collation public.german: version 0 to ",
        ]);
        let before = server.sql(&database, FILES);
        assert_eq!(server.sql(&database, OLD), "1", "a dry run changes nothing");
        let town = server.sql(&database, "SELECT relfilenode FROM pg_class WHERE relname = 'people_town'");
        scenario.run(&["run-job", "tidy"]).succeeded().prints(&["refreshed: collation public.german from 0 to "]);
        assert_eq!(server.sql(&database, OLD), "0");
        let after = server.sql(&database, FILES);
        assert!(before.split(", ").zip(after.split(", ")).all(|(before, after)| before != after), "{before}\n{after}");
        assert_eq!(
            server.sql(&database, "SELECT relfilenode FROM pg_class WHERE relname = 'people_town'"),
            town,
            "it has another order"
        );
        scenario.run(&["run-job", "tidy"]).succeeded().prints(&["no index of all tables needs to be rebuilt"]);
        // One of the same name for another encoding: no statement here can mean it.
        server.sql(
            &database,
            "CREATE TEMP TABLE twin AS SELECT * FROM pg_collation WHERE collname = 'german'; UPDATE twin SET oid = 4000000000, collencoding = 8, collversion = '0';
             INSERT INTO pg_collation SELECT * FROM twin",
        );
        let report = scenario.json(&["run-job", "tidy"]).to_string();
        assert!(!report.contains("german"), "{report}");
    }
}

#[test]
fn a_version_is_not_refreshed_while_an_index_is_old() {
    let server = server(15);
    let database = other_version(server);
    server.sql(&database, "CREATE TABLE rooms (name text COLLATE german, EXCLUDE USING btree (name WITH =))");
    let scenario =
        Scenario::with_database(server, &database).job("tidy", "database = 'app'\n[reindex]\ncollations = true\n").ledger();
    scenario
        .run(&["run-job", "tidy"])
        .succeeded()
        .says(&["the version of collation public.german was not refreshed: \"public\".\"rooms_name_excl\" is not rebuilt"]);
    assert_eq!(server.sql(&database, OLD), "1");
    // What was rebuilt is not rebuilt again; a person ends it.
    let before = server.sql(&database, FILES);
    scenario.run(&["run-job", "tidy"]).succeeded().prints(&["no index of all tables needs to be rebuilt; refreshed: nothing"]);
    assert_eq!(server.sql(&database, FILES), before);
    server.sql(&database, "REINDEX TABLE rooms; DROP TABLE rooms");
    scenario.run(&["run-job", "tidy"]).succeeded().prints(&["refreshed: collation public.german"]);
    assert_eq!(server.sql(&database, OLD), "0");
}

#[test]
fn collations_are_of_the_whole_database() {
    let server = server(15);
    let database = server.new_database();
    for (keys, hint) in [
        ("collations = true\ntable = 'logs'", "leave out one of the two"),
        ("collations = true\nindexes = ['a']", "leave out indexes"),
        ("parallel_workers = 1", "collations = true"),
        ("collations = false", "collations = true"),
    ] {
        let scenario = Scenario::with_database(server, &database).job("tidy", &format!("database = 'app'\n[reindex]\n{keys}\n"));
        scenario.run(&["check"]).exited(78).says(&[hint]);
    }
}

/// Returns the indexes of a database with the files that they have.
fn files(server: &Server, database: &str) -> Vec<String> {
    let sql = "SELECT relname || ' ' || oid FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace ORDER BY relname";
    server.sql(database, sql).lines().map(str::to_owned).collect()
}

/// Asserts that a run rebuilds all indexes but those whose names begin with `not_`.
fn is_rebuilt_but_for_not(server: &Server, database: &str, scenario: &Scenario, refreshed: &str) {
    let before = files(server, database);
    scenario.run(&["run-job", "tidy"]).succeeded().prints(&[refreshed]);
    let after = files(server, database);
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before == after, before.starts_with("not_"), "{before}, {after}");
    }
}

const TIDY: &str = "database = 'app'\n[reindex]\ncollations = true\n";

#[test]
fn an_index_whose_type_has_the_collation_inside_is_rebuilt_before_its_refresh() {
    for (major, provider) in [(15, "provider = icu, locale = 'de'"), (17, "provider = builtin, locale = 'C.UTF-8'")] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "CREATE COLLATION german ({provider});
                 CREATE TYPE address AS (street text COLLATE german, number int); CREATE DOMAIN home AS address; CREATE TYPE person AS (id int, homes home[]);
                 CREATE DOMAIN word AS text COLLATE german; CREATE TYPE words AS RANGE (subtype = word, collation = german); CREATE TYPE plain AS (a text COLLATE \"C\", b int);
                 CREATE FUNCTION is_late(text) RETURNS bool IMMUTABLE LANGUAGE sql AS $$ SELECT $1 > 'm' COLLATE public.german $$;
                 CREATE TABLE t (id int, a address, h home, s address[], p person, r words, m words_multirange, doc jsonb, plain plain);
                 CREATE INDEX i_composite ON t (a); CREATE INDEX i_domain ON t (h); CREATE INDEX i_array ON t (s); CREATE INDEX i_nested ON t (p);
                 CREATE INDEX i_range ON t (id, r); CREATE INDEX i_gist ON t USING gist (r); CREATE INDEX i_multirange ON t (m);
                 CREATE INDEX i_expression ON t ((coalesce(a, h::address))); CREATE INDEX i_condition ON t (id) WHERE a > h::address;
                 CREATE INDEX i_function ON t (id) WHERE is_late(id::text);
                 CREATE INDEX not_int ON t (id); CREATE INDEX not_jsonb ON t (doc); CREATE INDEX not_plain ON t (plain); CREATE INDEX not_condition ON t (id) WHERE id > 3;
                 UPDATE pg_collation SET collversion = '0' WHERE collname = 'german'"
            ),
        );
        let scenario = Scenario::with_database(server, &database).job("tidy", TIDY).ledger();
        is_rebuilt_but_for_not(server, &database, &scenario, "refreshed: collation public.german from 0 to ");
    }
}

#[test]
fn an_index_that_compares_rows_is_rebuilt_before_its_refresh() {
    for (major, provider) in [(15, "provider = icu, locale = 'de'"), (17, "provider = builtin, locale = 'C.UTF-8'")] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "CREATE COLLATION german ({provider}); CREATE DOMAIN word AS text COLLATE german;
                 CREATE TABLE t (id int, a text COLLATE german, b text COLLATE german, c text COLLATE \"C\"); CREATE TABLE w (id int, a text COLLATE german);
                 CREATE INDEX i_condition ON t (id) WHERE (a, b) < ('a5', 'b'); CREATE INDEX i_expression ON t (((a, b) < ('a5', 'b')));
                 CREATE INDEX i_second ON t (id) WHERE (numrange(1, 2), a) >= (numrange(1, 2), 'a5');
                 CREATE INDEX i_array ON t (id) WHERE ARRAY[ROW(id, a)] > ARRAY[ROW(5, 'a5'::text)]; CREATE INDEX i_called ON t (id) WHERE record_lt(ROW(id, a), ROW(5, 'a5'::text));
                 CREATE INDEX i_domain ON t (id) WHERE ARRAY[ROW(id, c::word)] > ARRAY[ROW(5, 'a5'::word)];
                 CREATE INDEX i_collate ON t (id) WHERE ARRAY[ROW(id, c COLLATE german)] > ARRAY[ROW(5, 'a5'::text)];
                 CREATE INDEX i_whole ON w (id) WHERE record_gt(w.*, ROW(5, 'a5'::text)); CREATE INDEX i_row ON w (id) WHERE w.* > ROW(5, 'a5')::w;
                 CREATE INDEX not_c ON t (id) WHERE (c, c) < ('a5', 'b'); CREATE INDEX not_int ON t (id) WHERE (id, id) < (5, 6);
                 UPDATE pg_collation SET collversion = '0' WHERE collname = 'german'"
            ),
        );
        let scenario = Scenario::with_database(server, &database).job("tidy", TIDY).ledger();
        is_rebuilt_but_for_not(server, &database, &scenario, "refreshed: collation public.german from 0 to ");
    }
}

#[test]
fn a_version_is_not_refreshed_while_its_order_divides_the_rows_of_a_table() {
    for major in [15, 17] {
        let server = server(major);
        let database = other_version(server);
        server.sql(
            &database,
            "CREATE TABLE towns (name text COLLATE german) PARTITION BY LIST (name);
             CREATE TABLE \"Streets\" (id int, name text COLLATE german) PARTITION BY RANGE (id, name);
             CREATE TABLE houses (name text COLLATE \"C\") PARTITION BY RANGE ((lower(name COLLATE german)))",
        );
        let scenario = Scenario::with_database(server, &database).job("tidy", TIDY).ledger();
        let says = [
            "was not refreshed: its order divides the rows of public.\"Streets\", public.houses,",
            "ALTER COLLATION public.german REFRESH VERSION",
        ];
        scenario
            .run(&["run-job", "tidy"])
            .succeeded()
            .says(&says)
            .prints(&["3 indexes of all tables rebuilt", "refreshed: nothing"]);
        assert_eq!(server.sql(&database, OLD), "1");
        let audit = scenario.run(&["audit", "--database", "app", "--json"]).stdout;
        assert!(audit.contains("public.houses: some may be in a wrong partition now"), "{audit}");
        server.sql(&database, "DROP TABLE \"Streets\", houses");
        scenario.run(&["run-job", "tidy"]).succeeded().prints(&["refreshed: collation public.german"]);
    }
}

#[test]
fn an_index_of_jsonb_has_the_order_of_the_database() {
    for (major, provider) in [(15, "icu ICU_LOCALE 'de'"), (17, "builtin BUILTIN_LOCALE 'C.UTF-8'")] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            "postgres",
            &format!("DROP DATABASE {database}; CREATE DATABASE {database} TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8' LOCALE_PROVIDER {provider}"),
        );
        server.sql(
            &database,
            "CREATE TYPE address AS (street text, number int); CREATE TYPE words AS RANGE (subtype = text); CREATE TYPE doc AS (id int, docs jsonb[]);
             CREATE TABLE t (doc jsonb, a address, r words, d doc, c text COLLATE \"C\", id int);
             CREATE UNIQUE INDEX i_doc ON t (doc); CREATE INDEX i_composite ON t (a); CREATE INDEX i_range ON t (r); CREATE INDEX i_docs ON t (d);
             CREATE INDEX not_gin ON t USING gin (doc); CREATE INDEX not_hash ON t USING hash (doc); CREATE INDEX not_c ON t (c) INCLUDE (doc)",
        );
        server.sql("postgres", &format!("UPDATE pg_database SET datcollversion = '0' WHERE datname = '{database}'"));
        let scenario = Scenario::with_database(server, &database).job("tidy", TIDY).ledger();
        is_rebuilt_but_for_not(server, &database, &scenario, &format!("refreshed: database {database} from 0 to "));
    }
}

#[test]
fn what_an_earlier_run_rebuilt_is_known_by_its_oid_in_its_database() {
    let server = server(15);
    let database = other_version(server);
    server.sql(&database, "CREATE TABLE rooms (name text COLLATE german, EXCLUDE USING btree (name WITH =))");
    let before = server.copy_of(&database);
    let scenario = Scenario::with_database(server, &database).job("tidy", TIDY).ledger();
    scenario.run(&["run-job", "tidy"]).succeeded().prints(&["3 indexes of all tables rebuilt", "refreshed: nothing"]);
    // Another index may have the name by now.
    server.sql(&database, "DROP INDEX people_some; CREATE INDEX people_some ON people (id) WHERE name > 'n' COLLATE german");
    scenario.run(&["run-job", "tidy"]).succeeded().prints(&["1 index of all tables rebuilt", "refreshed: nothing"]);
    // The database is set back to before.
    server.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE); ALTER DATABASE {before} RENAME TO {database}"));
    server.sql(&database, "DROP TABLE rooms");
    scenario
        .run(&["run-job", "tidy"])
        .succeeded()
        .prints(&["3 indexes of all tables rebuilt", "refreshed: collation public.german"]);
}
