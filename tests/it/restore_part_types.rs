//! `backups restore` of rows into tables whose columns have other types than in the set.

use crate::restore_part::{restore, with_set};
use crate::support::eventually;
use crate::support::postgres::server;

const INSERT_MISSING: [&str; 2] = ["--merge", "insert-missing"];
const REPLACE: [&str; 3] = ["--merge", "replace", "--yes"];

#[test]
fn rows_are_not_read_as_values_of_another_type() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE padded (k char(5) PRIMARY KEY); INSERT INTO padded SELECT 'A' || i FROM generate_series(1, 5) i;
             CREATE TABLE hourly (k timestamp PRIMARY KEY); INSERT INTO hourly SELECT '2026-06-01'::timestamp + i * interval '1 hour' FROM generate_series(1, 5) i;
             CREATE TABLE zoned (id int PRIMARY KEY, v timestamptz); INSERT INTO zoned SELECT i, '2026-06-01 12:00+02' FROM generate_series(1, 5) i;
             CREATE TABLE daily (id int PRIMARY KEY, v timestamp); INSERT INTO daily SELECT i, '2026-06-01 12:30' FROM generate_series(1, 5) i;
             CREATE TABLE wide (id int PRIMARY KEY, v float8); INSERT INTO wide SELECT i, 1.23456789012 FROM generate_series(1, 5) i;
             CREATE TABLE amounts (id int PRIMARY KEY, v numeric(12,4)[]); INSERT INTO amounts SELECT i, '{1.2345}' FROM generate_series(1, 5) i;
             CREATE DOMAIN price AS numeric(12,4);
             CREATE TABLE priced (id int PRIMARY KEY, v price); INSERT INTO priced SELECT i, 1.2345 FROM generate_series(1, 5) i;
             CREATE TABLE parted (id int PRIMARY KEY, v json) PARTITION BY RANGE (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (9);
             INSERT INTO parted SELECT i, '{\"a\": 1, \"a\": 2}' FROM generate_series(1, 5) i;
             CREATE TABLE heir (more date) INHERITS (daily); ALTER TABLE heir ADD PRIMARY KEY (id); INSERT INTO heir SELECT 100 + i, '2026-06-01 12:30' FROM generate_series(1, 5) i",
        );
        let scenario = with_set(server, &database, "");
        server.sql(
            &database,
            "ALTER TABLE padded ALTER k TYPE text; ALTER TABLE hourly ALTER k TYPE timestamptz; ALTER TABLE zoned ALTER v TYPE timestamp;
             ALTER TABLE daily ALTER v TYPE date; ALTER TABLE wide ALTER v TYPE real; ALTER TABLE amounts ALTER v TYPE numeric(12,1)[];
             ALTER TABLE priced ALTER v TYPE numeric; DROP DOMAIN price; CREATE DOMAIN price AS numeric(12,1); ALTER TABLE priced ALTER v TYPE price;
             ALTER TABLE parted ALTER v TYPE jsonb",
        );
        for (table, column, was, is) in [
            ("padded", "k", "character(5)", "text"),
            ("hourly", "k", "timestamp without time zone", "timestamp with time zone"),
            ("zoned", "v", "timestamp with time zone", "timestamp without time zone"),
            ("daily", "v", "timestamp without time zone", "date"),
            ("heir", "v", "timestamp without time zone", "date"),
            ("wide", "v", "double precision", "real"),
            ("amounts", "v", "numeric(12,4)[]", "numeric(12,1)[]"),
            ("priced", "v", "numeric(12,4)", "numeric(12,1)"),
            ("parted", "v", "json", "jsonb"),
        ] {
            let (column, says) = (format!("public.{table}.{column}"), format!("{was} in the set, and {is} here"));
            let says = [column.as_str(), &says, "--as"];
            let before = server.sql(&database, &format!("SELECT string_agg(t::text, ' ' ORDER BY 1) FROM {table} t"));
            for how in [&INSERT_MISSING[..], &REPLACE, &[INSERT_MISSING[0], INSERT_MISSING[1], "--dry-run"]] {
                let refused = restore(&scenario, &[&["--table", table], how].concat()).exited(78);
                if table != "priced" {
                    refused.says(&says);
                }
            }
            assert_eq!(server.sql(&database, &format!("SELECT string_agg(t::text, ' ' ORDER BY 1) FROM {table} t")), before);
            server.sql(&database, &format!("TRUNCATE {table}"));
            restore(&scenario, &["--table", table, "--data-only"]).exited(78).says(&says[1..2]);
            assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "0");
        }
    }
}

#[test]
fn columns_that_were_widened_take_the_rows_of_the_set() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(5), amount numeric(12,4), at timestamp(0), tags varchar(5)[], g int GENERATED ALWAYS AS (id * 2) STORED);
         INSERT INTO t SELECT i, 'n' || i, i + 0.1234, '2026-06-01 12:00', ARRAY['a', 'b'] FROM generate_series(1, 20) i",
    );
    let scenario = with_set(server, &database, "");
    server.sql(
        &database,
        "DELETE FROM t WHERE id > 15; UPDATE t SET name = 'x' WHERE id = 3;
         ALTER TABLE t DROP g, ALTER id TYPE bigint, ALTER name TYPE text, ALTER amount TYPE numeric(14,6), ALTER at TYPE timestamp, ALTER tags TYPE text[], ADD g text",
    );
    restore(&scenario, &[&["--table", "t"], &REPLACE[..]].concat()).succeeded().prints(&["5 inserted, 1 replaced, 14 left"]);
    let sum = "SELECT count(*), sum(id), sum(amount), count(*) FILTER (WHERE name = 'n' || id AND tags = '{a,b}') FROM t";
    assert_eq!(server.sql(&database, sum), "20|210|212.468000|20");
    server.sql(&database, "TRUNCATE t");
    restore(&scenario, &["--table", "t", "--data-only"]).succeeded();
    assert_eq!(server.sql(&database, sum), "20|210|212.468000|20");
}

#[test]
fn values_of_a_composite_type_do_not_change_places() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TYPE addr AS (street text, zip text, amount numeric(12,4)); CREATE DOMAIN home AS addr;
         CREATE TABLE people (id int PRIMARY KEY, at home[]); INSERT INTO people SELECT i, ARRAY[ROW('Main St', '12345', 1.2345)::addr] FROM generate_series(1, 5) i",
    );
    let scenario = with_set(server, &database, "");
    server.sql(&database, "ALTER TABLE people DROP at; DROP DOMAIN home; ALTER TYPE addr DROP ATTRIBUTE street, DROP ATTRIBUTE amount; ALTER TYPE addr ADD ATTRIBUTE city text, ADD ATTRIBUTE note text;
                            CREATE DOMAIN home AS addr; ALTER TABLE people ADD at home[]; DELETE FROM people WHERE id > 2");
    let says =
        ["public.people.at", "(street text, zip text, amount numeric(12,4)) in the set", "(zip text, city text, note text) here"];
    for how in [&INSERT_MISSING[..], &REPLACE, &["--as", "public.copy"], &["--as", "public.copy", "--dry-run"]] {
        restore(&scenario, &[&["--table", "people"], how].concat()).exited(78).says(&says);
    }
    server.sql(&database, "TRUNCATE people");
    restore(&scenario, &["--table", "people", "--data-only"]).exited(78).says(&says);
    server.sql(&database, "DROP TABLE people");
    restore(&scenario, &["--table", "people"]).exited(78).says(&says);
    assert_eq!(server.sql(&database, "SELECT to_regclass('people') IS NULL AND to_regclass('copy') IS NULL"), "t");
    // As the refusal says.
    restore(&scenario, &["--table", "people"]).exited(78).says(&["RENAME TO"]);
    server.sql(&database, "ALTER TYPE addr RENAME TO addr_now; ALTER DOMAIN home RENAME TO home_now");
    restore(&scenario, &["--table", "people"]).succeeded();
    assert_eq!(
        server.sql(&database, "SELECT (at[1]::addr).street, (at[1]::addr).amount FROM people WHERE id = 4"),
        "Main St|1.2345"
    );
}

#[test]
fn a_column_whose_type_changes_between_the_look_and_the_lock_takes_no_rows() {
    let server = server(18);
    for how in [&["--data-only"][..], &INSERT_MISSING] {
        let database = server.new_database();
        server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY, v timestamp); INSERT INTO t VALUES (1, '2026-06-01 12:00')");
        let scenario = with_set(server, &database, "");
        server.sql(&database, "TRUNCATE t");
        let other = server.session(&database, "BEGIN; LOCK TABLE public.t IN SHARE ROW EXCLUSIVE MODE");
        let run = scenario.start(&[&["backups", "restore", "latest", "--into", "app", "--table", "t"], how].concat());
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '{database}') AND relation IS NOT NULL"
        );
        eventually("the restore waits for the other session", || server.sql("postgres", &waits) != "0");
        other.ends_with("ALTER TABLE t ALTER v TYPE timestamptz; COMMIT");
        run.wait().exited(1).says(&["columns of public.t were changed"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "0");
    }
}
