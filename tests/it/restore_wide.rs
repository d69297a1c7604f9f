//! Restores by several sessions: the copy is what one session makes of the set, order is kept where it matters, and one session that ends ends all.

use rustix::process::Signal;

use crate::restore_database::{databases, filling};
use crate::round_trip::{KINDS, PSSCRIPT, VALUES, dumped, new_database};
use crate::support::postgres::{Server, server};
use crate::support::{Output, Scenario, eventually};
use crate::wide::{EVERY_KIND, SMALLER};
use crate::{round_trip, wide};

/// A set of that database; a chunk of rows has 64 KiB, and a dump is small below 128 KiB.
fn backed_up(server: &Server, database: &str, job: &str) -> Scenario {
    let scenario = Scenario::with_database(server, database).env(SMALLER.0, SMALLER.1).backup_job("local", job);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

fn restore(scenario: &Scenario, server: &Server, into: &str, more: &[&str]) -> Output {
    server.drop_with_test(into);
    scenario.run(&[&["backups", "restore", "latest", "--into", &server.url(into), "--create"], more].concat())
}

/// Restores by one session and by four, and returns the names of both.
fn both(scenario: &Scenario, server: &Server, database: &str) -> [String; 2] {
    ["1", "4"].map(|sessions| {
        let copy = format!("{database}_{sessions}");
        let restored = restore(scenario, server, &copy, &["--sessions", sessions]).succeeded();
        assert_eq!(restored.stdout.contains("by 4 sessions"), sessions == "4", "{}", restored.stdout);
        copy
    })
}

#[test]
fn several_sessions_restore_what_one_restores() {
    for (major, job) in [(14, "sessions = 3"), (18, "sessions = 1"), (18, "sessions = 3")] {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, EVERY_KIND);
        let scenario = backed_up(server, &database, job);
        for copy in both(&scenario, server, &database) {
            wide::is_the_same(server, &database, &copy);
        }
    }
}

#[test]
fn several_sessions_restore_every_kind_of_object_and_every_value() {
    for (major, fixtures, unordered) in
        [(18, &[VALUES, KINDS][..], &["--create", "--exclude-table-data=kinds.by_hash_*"][..]), (16, &[PSSCRIPT], &["--create"])]
    {
        let server = server(major);
        let database = new_database(server, &format!("wide {major}"));
        fixtures.iter().for_each(|sql| {
            server.sql(&database, sql);
        });
        let scenario = backed_up(server, &database, "");
        let [one, four] = both(&scenario, server, &database);
        let before = dumped(server, &database, unordered);
        round_trip::is_the_same(&before, &dumped(server, &one, unordered), &one);
        round_trip::is_the_same(&before, &dumped(server, &four, unordered), &four);
    }
}

#[test]
fn settings_of_the_source_do_not_change_what_its_rows_mean() {
    // Debian's alone is built with libxml.
    for (major, xml) in [(15, "'no <b>document</b>'::xml"), (18, "1")] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "CREATE TYPE mood AS ENUM ('well');
                 CREATE TABLE a AS SELECT i AS id, ARRAY['x', NULL, 'NULL'] AS words, ARRAY['well', NULL]::mood[] AS moods, {xml} AS x, repeat(md5(i::text), 8) AS pad
                 FROM generate_series(1, 1000) i;
                 ALTER DATABASE {database} SET array_nulls = off; ALTER DATABASE {database} SET xmloption = document"
            ),
        );
        let scenario = backed_up(server, &database, "verify = 'restore'");
        let rows =
            "SET xmloption = content; SELECT md5(string_agg(a::text, ',' ORDER BY id)), count(words[2]), count(moods[2]) FROM a";
        let before = server.sql(&database, rows);
        assert!(before.ends_with("|0|0"), "{before}");
        for copy in both(&scenario, server, &database) {
            assert_eq!(server.sql(&copy, rows), before, "{major}");
            assert_eq!(server.sql(&copy, "SHOW array_nulls"), "off");
        }
    }
}

/// Tables that must wait for others, foreign keys that cross, keys and indexes of partitions, and rows that look like ends.
const ORDERED: &str = r#"
CREATE TABLE a_known (id int PRIMARY KEY, body text);
INSERT INTO a_known SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 1000) i;
CREATE FUNCTION is_known(int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.a_known WHERE id = $1)';
CREATE TABLE b_checked (id int CHECK (is_known(id)), body text);
-- PostgreSQL's own function reads it, too.
CREATE TABLE b_rewritten (id int, body text, CHECK (ts_rewrite('a', 'SELECT ''a''::tsquery, ''b''::tsquery FROM public.a_known WHERE id = ' || id) = 'b'::tsquery));
CREATE TABLE b_other (id oid);
CREATE DOMAIN known AS int CHECK (is_known(VALUE));
CREATE TYPE pair AS (a known, b int);
CREATE TABLE c_checked (ids known[], body text);
CREATE TABLE d_checked (id pair, body text);
CREATE TABLE e_checked (id int, body text, CONSTRAINT e CHECK (id::known > 0));
CREATE FUNCTION name_of(int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT left(body, 8) FROM public.a_known WHERE id = $1';
CREATE TABLE f_generated (id int, name text NOT NULL GENERATED ALWAYS AS (name_of(id)) STORED);
CREATE TABLE g_parts (id int NOT NULL, body text) PARTITION BY RANGE (id);
CREATE TABLE g_part_1 PARTITION OF g_parts FOR VALUES FROM (0) TO (500);
CREATE TABLE g_part_2 PARTITION OF g_parts FOR VALUES FROM (500) TO (9000);
ALTER TABLE g_part_2 ADD CHECK (is_known(id));
INSERT INTO b_checked SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
INSERT INTO b_rewritten SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
INSERT INTO b_other SELECT i FROM generate_series(1, 10) i;
INSERT INTO c_checked SELECT ARRAY[i, i + 1], md5(i::text) FROM generate_series(1, 900) i;
INSERT INTO d_checked SELECT (i, i)::pair, md5(i::text) FROM generate_series(1, 900) i;
INSERT INTO e_checked SELECT i, md5(i::text) FROM generate_series(1, 900) i;
INSERT INTO f_generated SELECT i FROM generate_series(1, 900) i;
INSERT INTO g_parts SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
CREATE TABLE h_ends (id int, body text);
INSERT INTO h_ends SELECT i, repeat(CASE i % 6 WHEN 0 THEN E'\\\n' WHEN 1 THEN E'\\' WHEN 2 THEN E'\n\\.\n' WHEN 3 THEN E'\\\\\n\\' WHEN 4 THEN E'\r\n' ELSE '\N' END, 1 + i % 50)
    FROM generate_series(1, 6000) i;
INSERT INTO h_ends VALUES (0, repeat(E'\\\n', 200000)), (-1, repeat('x', 500000)), (-2, NULL), (-3, '');
CREATE TABLE i_none ();
INSERT INTO i_none SELECT FROM generate_series(1, 5);
ALTER TABLE g_parts ADD PRIMARY KEY (id);
CREATE INDEX g_body ON g_parts (body);
CREATE INDEX g_upper ON g_parts (upper(body)) WHERE id > 10;
CREATE INDEX z_ends ON h_ends (md5(body));
CREATE INDEX a_other ON b_other (id) WHERE id <> ('public.z_ends'::regclass)::oid;
CREATE INDEX e_name ON e_checked (name_of(id));
CREATE UNIQUE INDEX b_unique ON b_checked (id) INCLUDE (body);
CREATE INDEX b_body ON b_checked (body COLLATE "C");
ALTER TABLE b_checked CLUSTER ON b_body;
ALTER TABLE e_checked ADD CONSTRAINT e_none EXCLUDE USING hash (body WITH =);
ALTER TABLE e_checked ADD CONSTRAINT e_unique UNIQUE (id) DEFERRABLE;
ALTER TABLE b_checked ADD FOREIGN KEY (id) REFERENCES a_known, ADD FOREIGN KEY (id) REFERENCES g_parts;
ALTER TABLE a_known ADD CONSTRAINT ab FOREIGN KEY (id) REFERENCES b_checked (id);
ALTER TABLE a_known ADD CONSTRAINT aa FOREIGN KEY (id) REFERENCES a_known;
ALTER TABLE g_parts ADD FOREIGN KEY (id) REFERENCES b_checked (id);
ALTER TABLE g_part_1 ADD FOREIGN KEY (id) REFERENCES a_known;
ALTER TABLE a_known ADD CONSTRAINT ag FOREIGN KEY (id) REFERENCES g_parts;
COMMENT ON INDEX b_body IS 'CREATE INDEX x ON public.b_checked USING btree (body)';
CREATE MATERIALIZED VIEW m_first AS SELECT count(*) AS n FROM b_checked;
CREATE MATERIALIZED VIEW l_second AS SELECT n + 1 AS n FROM m_first;
CREATE INDEX m_n ON m_first (n);
SET allow_in_place_tablespaces = on;
"#;

#[test]
fn rows_keys_and_partitions_wait_for_what_they_need() {
    for (major, job) in [(15, ""), (18, "sessions = 2")] {
        let server = Server::start(major);
        let database = server.new_database();
        server.sql(&database, ORDERED);
        server.sql("postgres", "SET allow_in_place_tablespaces = on; CREATE TABLESPACE fast LOCATION ''");
        server.sql(&database, "CREATE INDEX a_body ON a_known (body) TABLESPACE fast; CREATE INDEX h_id ON h_ends (id)");
        let scenario = backed_up(&server, &database, job);
        let before = dumped(&server, &database, &["--create"]);
        for copy in both(&scenario, &server, &database) {
            round_trip::is_the_same(&before, &dumped(&server, &copy, &["--create"]), &copy);
        }
        // It does not hang on luck.
        let again = format!("{database}_again");
        restore(&scenario, &server, &again, &["--sessions", "16"]).succeeded().prints(&["by 16 sessions"]);
        round_trip::is_the_same(&before, &dumped(&server, &again, &["--create"]), &again);
    }
}

#[test]
fn a_small_dump_and_choices_that_need_an_order_are_of_one_session() {
    let server = server(18);
    let database = server.new_database();
    server
        .sql(&database, "CREATE TABLE t AS SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i; CREATE INDEX i ON t (i)");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let mut number = 0;
    let mut restored = |more: &[&str]| {
        number += 1;
        restore(&scenario, server, &format!("{database}_{number}"), more).succeeded()
    };
    assert!(!restored(&[]).stdout.contains("sessions"));
    restored(&["--sessions", "2"]).prints(&["by 2 sessions"]);
    for more in [["--on-error", "continue"].as_slice(), &["--without", "INDEX", "i"]] {
        let one = restored(&[&["--sessions", "2"], more].concat()).says(&["--sessions has no effect"]);
        assert!(!one.stdout.contains("sessions"), "{more:?}");
    }
    let into = server.url(&database);
    for (arguments, says) in [
        (&["--create", "--sessions", "0"][..], "1..=16"),
        (&["--create", "--sessions", "17"], "1..=16"),
        (&["--sessions", "2"], "--create"),
    ] {
        let all = [&["backups", "restore", "latest", "--into", &into], arguments].concat();
        scenario.run(&all).exited(64).says(&[says]);
    }
}

#[test]
fn what_a_session_refuses_is_named_as_one_session_names_it_and_no_database_stays() {
    let server = server(18);
    for (sql, says) in [
        // It holds in the source.
        (
            "CREATE TABLE odd (i int, body text, CONSTRAINT here CHECK (i <> 4321 OR current_database() NOT LIKE 'pgtend%'));
             INSERT INTO odd SELECT i, md5(i::text) FROM generate_series(1, 6000) i;",
            &["here", "SQLSTATE 23514", "TABLE DATA odd in schema public", "COPY odd, line 4321", "source's rows violate"][..],
        ),
        (
            "CREATE TABLE twice (i int CONSTRAINT once PRIMARY KEY, body text);
             INSERT INTO twice SELECT i, md5(i::text) FROM generate_series(1, 6000) i;
             UPDATE pg_index SET indisready = false WHERE indexrelid = 'once'::regclass;
             INSERT INTO twice VALUES (77, 'again');
             UPDATE pg_index SET indisready = true WHERE indexrelid = 'once'::regclass;",
            &["once", "SQLSTATE 23505", "CONSTRAINT twice once in schema public", "(77)", "--without CONSTRAINT once"],
        ),
        (
            "CREATE TABLE p (i int PRIMARY KEY); CREATE TABLE c (i int, body text); ALTER TABLE c ADD CONSTRAINT of_p FOREIGN KEY (i) REFERENCES p;
             SET session_replication_role = replica;
             INSERT INTO c SELECT i, md5(i::text) FROM generate_series(1, 6000) i; INSERT INTO p SELECT generate_series(3, 6000);",
            &["of_p", "SQLSTATE 23503", "FK CONSTRAINT c of_p in schema public", "2 rows of public.c reference no row of public.p"],
        ),
    ] {
        let database = server.new_database();
        server.sql(&database, sql);
        let scenario = backed_up(server, &database, "");
        let said = ["1", "4"].map(|sessions| {
            let copy = format!("{database}_copy");
            let refused = restore(&scenario, server, &copy, &["--sessions", sessions]).exited(1).says(says);
            assert_eq!(databases(server, &copy), Vec::<String>::new());
            assert_eq!(databases(server, &filling(&copy)), Vec::<String>::new());
            refused.stderr.split_once("pgtend: ").unwrap().1.to_owned()
        });
        assert_eq!(said[1], said[0]);
    }
}

/// A database whose rows need some seconds in a database of pgtend.
fn slow(server: &Server) -> String {
    let name = server.new_database();
    server.sql(
        &name,
        "CREATE TABLE slow (i int, body text,
             CHECK (CASE WHEN current_database() LIKE 'pgtend%' AND i % 100 = 0 THEN pg_sleep(0.4)::text = '' ELSE true END));
         INSERT INTO slow SELECT i, repeat(md5(i::text), 40) FROM generate_series(1, 1000) i",
    );
    name
}

/// Waits until more than one session has rows. Returns their number and the process of one.
fn several_copy(server: &Server, into: &str) -> String {
    let among = format!(
        "FROM pg_stat_activity WHERE starts_with(datname::text, '{}') AND query LIKE 'COPY%' AND state = 'active'",
        filling(into)
    );
    let count = format!("SELECT count(*) > 1 {among}");
    eventually("several sessions have rows", || server.sql("postgres", &count) == "t");
    server.sql("postgres", &format!("SELECT min(pid) {among}"))
}

#[test]
fn sessions_that_had_nothing_to_do_for_long_are_opened_again_within_the_limit_of_the_role() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE FUNCTION slow(int) RETURNS boolean LANGUAGE sql AS
             $$ SELECT CASE WHEN current_database() LIKE 'pgtend%' THEN pg_sleep(2)::text = '' ELSE true END $$;
         CREATE TABLE a AS SELECT i, repeat(md5(i::text), 20) AS body FROM generate_series(1, 1000) i;
         CREATE TABLE b (id int CHECK (slow(id)));
         INSERT INTO b VALUES (1);
         CREATE TABLE c AS TABLE a",
    );
    let scenario = backed_up(server, &database, "");
    let copy = format!("{database}_copy");
    // Three of rows, the main one, and the one that makes the database.
    server.sql("postgres", "CREATE ROLE five_sessions LOGIN CREATEDB CONNECTION LIMIT 5");
    server.drop_with_test(&copy);
    let into = server.url_as("five_sessions", &copy);
    let options = ["--create", "--no-owner", "--trust-owners", "--sessions", "3"];
    scenario.run(&[&["backups", "restore", "latest", "--into", &into], &options[..]].concat()).succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM c"), "1000");
}

#[test]
fn a_session_that_is_terminated_ends_the_restore_and_nothing_stays() {
    let server = server(18);
    let database = slow(server);
    let scenario = backed_up(server, &database, "");
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let running = scenario.start(&["backups", "restore", "latest", "--into", &into, "--create", "--sessions", "3"]);
    let pid = several_copy(server, &copy);
    server.sql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
    running.wait().exited(69).says(&["the connection to the target failed at TABLE DATA slow in schema public", "is unchanged"]);
    assert_eq!(databases(server, &copy), Vec::<String>::new());
    assert_eq!(databases(server, &filling(&copy)), Vec::<String>::new());
}

#[test]
fn a_signal_stops_all_sessions_and_a_kill_leaves_what_the_next_restore_drops() {
    let server = server(18);
    let database = slow(server);
    let scenario = backed_up(server, &database, "");
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let arguments = ["backups", "restore", "latest", "--into", &into, "--create", "--sessions", "3"];
    let running = scenario.start(&arguments);
    several_copy(server, &copy);
    running.signal(Signal::TERM);
    running.wait().exited(143).says(&["cancelled"]);
    assert_eq!(databases(server, &filling(&copy)), Vec::<String>::new());

    let running = scenario.start(&arguments);
    several_copy(server, &copy);
    running.kill();
    assert_eq!(databases(server, &copy), Vec::<String>::new());
    // A server notices that its client is gone when the statement ends.
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname::text, '{}')", filling(&copy));
    eventually("the killed one's sessions end", || server.sql("postgres", &left) == "0");
    restore(&scenario, server, &copy, &["--sessions", "3"]).succeeded();
    assert_eq!(databases(server, &filling(&copy)), Vec::<String>::new());
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM slow"), "1000");
}

#[test]
fn a_proof_restores_by_the_sessions_of_the_job() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, ORDERED);
    let (scenario, _place) = crate::throwaway::scenario(server, &database, "sessions = 3");
    let scenario = scenario.env(SMALLER.0, SMALLER.1);
    scenario.run(&["run-job", "nightly"]).succeeded().prints(&["by 3 sessions"]);
    let in_scratch = backed_up(server, &database, "sessions = 3\nverify = \"restore\"\nscratch = \"same\"");
    let ran = in_scratch.run(&["run-job", "nightly"]).succeeded();
    assert!(ran.stdout.contains("by 3 sessions"), "{}", ran.stdout);
    let alone = backed_up(server, &database, "sessions = 1\nverify = \"restore\"\nscratch = \"same\"");
    let ran = alone.run(&["run-job", "nightly"]).succeeded();
    assert!(!ran.stdout.contains("sessions"), "{}", ran.stdout);
}
