//! Partitions that come and go under tables in use: 15, 16 and 18.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually};

/// A month is covered by the partition of now and made ahead by the job.
const LOGS: &str =
    "CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL, body text) PARTITION BY RANGE (at)";

impl Scenario {
    pub fn partitions(self, table: &str, column: &str, more: &str) -> Self {
        self.job("tend", &format!("database = \"app\"\n[partition]\ntable = '''{table}'''\ncolumn = '''{column}'''\n{more}\n"))
    }

    pub fn logs(server: &Server, database: &str, more: &str) -> Self {
        Self::with_database(server, database).partitions("public.logs", "at", more)
    }

    pub fn tend(&self) -> crate::support::Output {
        self.run(&["run-job", "tend"])
    }
}

/// `logs` with a partition of every month from `months` ago to now, with 100 rows each.
pub fn old_logs(server: &Server, months: u32) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "SET TimeZone = 'UTC';
             {LOGS};
             CREATE INDEX ON logs (at);
             DO $$ DECLARE month timestamptz; BEGIN
               FOR month IN SELECT date_trunc('month', now()) - n * interval '1 month' FROM generate_series({months}, 0, -1) n LOOP
                 EXECUTE format('CREATE TABLE %I PARTITION OF logs FOR VALUES FROM (%L) TO (%L)',
                   'logs_p' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
                 INSERT INTO logs (at, body) SELECT month + n * interval '1 minute', 'old' FROM generate_series(1, 100) n;
               END LOOP;
             END $$"
        ),
    );
    database
}

/// Keys of a job for which exactly the first partition of `old_logs` with five months is over, on whichever day of a month.
pub fn first_is_over() -> String {
    let today = chrono::Utc::now().date_naive();
    let first_that_stays = chrono::Datelike::with_day(&today, 1).unwrap() - chrono::Months::new(3);
    format!("every = \"month\"\nretain = \"{}d\"", (today - first_that_stays).num_days() + 1)
}

pub fn partitions_of(server: &Server, database: &str, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = '{table}'::regclass ORDER BY 1"
    );
    server.sql(database, &sql).lines().map(str::to_owned).collect()
}

/// Statements in a loop by `count` clients until the guard is dropped: none fails, and none takes longer than the limit.
pub struct Clients {
    stop: std::sync::Arc<AtomicBool>,
    done: std::sync::Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Duration>>,
}

impl Clients {
    pub fn start(server: &'static Server, database: &str, statements: &[&str]) -> Self {
        let (stop, done) = (std::sync::Arc::new(AtomicBool::new(false)), std::sync::Arc::new(AtomicU64::new(0)));
        let threads = statements
            .iter()
            .map(|sql| {
                let (stop, done, database, sql) = (stop.clone(), done.clone(), database.to_owned(), (*sql).to_owned());
                std::thread::spawn(move || {
                    let mut longest = Duration::ZERO;
                    while !stop.load(Ordering::Relaxed) {
                        let started = Instant::now();
                        server.sql(&database, &sql);
                        longest = longest.max(started.elapsed());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    longest
                })
            })
            .collect();
        let clients = Self { stop, done, threads };
        eventually("clients are at work", || clients.done.load(Ordering::Relaxed) > 3);
        clients
    }

    /// How many statements they ran, and how long the longest took.
    pub fn stop(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.threads.into_iter().map(|thread| thread.join().expect("no client met an error")).max();
        (self.done.load(Ordering::Relaxed), longest.unwrap_or_default())
    }
}

#[test]
fn a_new_partition_is_like_its_table_in_all_that_it_has() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        // 63 bytes, with a dot, a quote, a capital and an umlaut.
        let (schema, table, column) = (r#""Sch.é""ma""#, format!("\"T.ä\"\"{}\"", "x".repeat(58)), r#""when ""exactly""""#);
        let name = format!("{schema}.{table}");
        server.sql(
            &database,
            &format!(
                r#"DROP ROLE IF EXISTS p_app_{major}, p_owner_{major}; CREATE ROLE p_app_{major}; CREATE ROLE "p_owner_{major}";
                CREATE SCHEMA {schema}; CREATE TABLE {schema}.users (id int PRIMARY KEY); INSERT INTO {schema}.users VALUES (1);
                CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY, gone text, {column} timestamptz NOT NULL,
                  n int DEFAULT 7 CHECK (n > 0), twice int GENERATED ALWAYS AS (n * 2) STORED, user_id int REFERENCES {schema}.users,
                  body text COLLATE "C", PRIMARY KEY (id, {column})) PARTITION BY RANGE ({column});
                ALTER TABLE {name} DROP COLUMN gone;
                ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL;
                CREATE INDEX ON {name} (user_id) WHERE n > 3;
                COMMENT ON TABLE {name} IS 'it''s the \ log'; COMMENT ON COLUMN {name}.n IS 'number';
                ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
                CREATE POLICY "own rows" ON {name} AS RESTRICTIVE FOR SELECT TO p_app_{major} USING (user_id = 1);
                GRANT SELECT, INSERT ON {name} TO p_app_{major}; GRANT UPDATE (body) ON {name} TO p_app_{major} WITH GRANT OPTION;
                CREATE TABLE {schema}.model PARTITION OF {name} FOR VALUES FROM ('2001-01-01+00') TO ('2001-02-01+00')
                  WITH (fillfactor = 77, toast.autovacuum_enabled = false);
                GRANT ALL ON SCHEMA {schema} TO p_owner_{major}; GRANT REFERENCES ON {schema}.users TO p_owner_{major};
                ALTER TABLE {name} OWNER TO p_owner_{major};
                ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT ALL ON TABLES TO p_app_{major};
                DO $$ DECLARE i name; BEGIN SELECT indexrelid::regclass INTO i FROM pg_index WHERE indrelid = '{name}'::regclass AND indisprimary;
                  EXECUTE 'ALTER TABLE {name} REPLICA IDENTITY USING INDEX ' || (SELECT quote_ident(relname) FROM pg_class JOIN pg_index ON indexrelid = oid
                    WHERE indrelid = '{name}'::regclass AND indisprimary); END $$"#
            ),
        );
        let scenario =
            Scenario::with_database(server, &database).partitions(&name, r#"when "exactly""#, "every = \"month\"\npremake = 2");
        scenario.tend().succeeded().prints(&["created 3 partitions", "covered until"]);

        let partitions = server.sql(&database, &format!("SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = '{name}'::regclass AND relname <> 'model' ORDER BY 1"));
        assert_eq!(partitions.lines().count(), 3, "{partitions}");
        assert!(partitions.lines().all(|name| name.len() <= 63), "{partitions}");
        let newest = format!("(SELECT max(inhrelid::oid::bigint)::oid FROM pg_inherits WHERE inhparent = '{name}'::regclass)");
        for (what, sql, expected) in [
            ("owner", format!("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {newest}"), format!("p_owner_{major}")),
            (
                "privileges",
                format!(
                    "SELECT ARRAY(SELECT a::text FROM unnest(p.relacl) a ORDER BY 1) = ARRAY(SELECT a::text FROM unnest(c.relacl) a ORDER BY 1) FROM pg_class p, pg_class c WHERE p.oid = '{name}'::regclass AND c.oid = {newest}"
                ),
                "t".to_owned(),
            ),
            (
                "column privileges",
                format!("SELECT attacl IS NOT NULL FROM pg_attribute WHERE attrelid = {newest} AND attname = 'body'"),
                "t".to_owned(),
            ),
            (
                "policy",
                format!("SELECT polname, polpermissive, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = {newest}"),
                "own rows|f|(user_id = 1)".to_owned(),
            ),
            ("row security", format!("SELECT relrowsecurity FROM pg_class WHERE oid = {newest}"), "t".to_owned()),
            ("comment", format!("SELECT obj_description({newest}, 'pg_class')"), "it's the \\ log".to_owned()),
            ("storage parameters", format!("SELECT reloptions FROM pg_class WHERE oid = {newest}"), "{fillfactor=77}".to_owned()),
            (
                "replica identity",
                format!(
                    "SELECT relreplident, count(*) FROM pg_class JOIN pg_index ON indrelid = pg_class.oid AND indisreplident WHERE pg_class.oid = {newest} GROUP BY 1"
                ),
                "i|1".to_owned(),
            ),
            ("indexes", format!("SELECT count(*) FROM pg_index WHERE indrelid = {newest} AND indisvalid"), "2".to_owned()),
            (
                "column storage",
                format!("SELECT attstorage FROM pg_attribute WHERE attrelid = {newest} AND attname = 'body'"),
                "e".to_owned(),
            ),
            (
                "foreign key",
                format!("SELECT count(*) FROM pg_constraint WHERE conrelid = {newest} AND contype = 'f' AND conparentid <> 0"),
                "1".to_owned(),
            ),
            (
                "invalid names or leftovers",
                format!(
                    "SELECT count(*) FROM pg_class c WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = '{name}'::regclass)"
                ),
                "5".to_owned(),
            ),
        ] {
            assert_eq!(server.sql(&database, &sql), expected, "{what} on {major}");
        }
        server.sql(
            &database,
            &format!(
                "INSERT INTO {name} ({column}, user_id) SELECT now() + n * interval '1 day', 1 FROM generate_series(0, 50) n"
            ),
        );
        // A second time there is nothing to do.
        scenario.tend().succeeded().prints(&["nothing to do"]);
    }
}

#[test]
fn days_of_a_zone_leave_no_hour_out_through_both_clock_changes_and_a_leap_day() {
    // pgtend computes the bounds: one version stands for all, as 481 partitions take a while.
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, LOGS);
    let more = "every = \"day\"\npremake = 480\ntimezone = \"Europe/Berlin\"";
    Scenario::logs(server, &database, more).tend().succeeded().prints(&["created 481 partitions"]);
    server.sql(&database, "INSERT INTO logs (at) SELECT now() + n * interval '30 minutes' FROM generate_series(0, 480 * 48) n");
    let lengths = server.sql(
        &database,
        "SET TimeZone = 'UTC'; SELECT DISTINCT extract(epoch FROM b[2]::timestamptz - b[1]::timestamptz)::int / 3600 AS hours FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid,
           regexp_matches(pg_get_expr(relpartbound, c.oid), '\\(''(.*)''\\) TO \\(''(.*)''\\)') b ORDER BY 1",
    );
    assert_eq!(lengths.lines().collect::<Vec<_>>(), ["23", "24", "25"]);
    // The leap day of 2028 is 463 days away from the first day these tests ran on; it is in reach until it is over.
    if server.sql(&database, "SELECT now() BETWEEN '2026-11-10' AND '2028-02-28'") == "t" {
        assert!(partitions_of(server, &database, "logs").contains(&"logs_p2028_02_29".to_owned()));
    }
}

#[test]
fn keys_of_every_kind_get_their_partitions() {
    for major in SOME_MAJORS {
        let server = server(major);
        for (kind, more, value) in [
            ("timestamp", "every = \"hour\"\ntimezone = \"Asia/Kolkata\"", "(now() AT TIME ZONE 'Asia/Kolkata')"),
            ("date", "every = \"week\"", "now()::date"),
            ("bigint", "every = \"quarter\"\nepoch = \"milliseconds\"", "(extract(epoch FROM now()) * 1000)::bigint"),
            ("integer", "every = \"year\"\nepoch = \"seconds\"", "extract(epoch FROM now())::int"),
            (
                "uuid",
                "every = \"day\"",
                "(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7abc8000000000000001')::uuid",
            ),
        ] {
            let database = server.new_database();
            server.sql(&database, &format!("CREATE TABLE t (k {kind} NOT NULL) PARTITION BY RANGE (k)"));
            let scenario = Scenario::with_database(server, &database).partitions("public.t", "k", more);
            scenario.tend().succeeded().prints(&["created 4 partitions"]);
            let again = || scenario.json(&["run-job", "tend"])["runs"][0]["report"].clone();
            let has_nothing_to_do = |report: &Value| report["summary"].as_str().unwrap().contains("nothing to do");
            // An hour of that zone may have begun between the two runs, and none does so soon after it.
            let report = Some(again()).filter(has_nothing_to_do).unwrap_or_else(again);
            assert!(has_nothing_to_do(&report), "{report}");
            let until = report["facts"]["covered_until"].as_str().unwrap();
            assert!(until.len() == 20 && until.ends_with('Z'), "{until} is RFC 3339 in UTC");
            server.sql(&database, &format!("INSERT INTO t SELECT {value}"));
        }
    }
}

#[test]
fn numbers_are_made_ahead_of_the_sequence_and_go_behind_it() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n int) PARTITION BY RANGE (id);
             CREATE TABLE t_p0 PARTITION OF t FOR VALUES FROM (0) TO (1000);
             INSERT INTO t (n) SELECT g FROM generate_series(1, 900) g",
        );
        let scenario = Scenario::with_database(server, &database).partitions(
            "public.t",
            "id",
            "every = 1000\npremake = 2\nretain = 1000\ngrace = \"0s\"",
        );
        scenario.tend().succeeded().prints(&["created 2 partitions", "covered until 3000"]);
        assert_eq!(partitions_of(server, &database, "t"), ["t_p0", "t_p1000", "t_p2000"]);
        // A sequence alone makes nothing go: it may have been set wrong.
        server.sql(&database, "SELECT setval(pg_get_serial_sequence('t', 'id'), 2500)");
        scenario.tend().succeeded().prints(&["created 2 partitions; covered until 5000"]);
        server.sql(&database, "INSERT INTO t (n) VALUES (1)");
        scenario.tend().succeeded().prints(&["detached 1 partition, dropped 1 partition"]);
        assert_eq!(partitions_of(server, &database, "t"), ["t_p1000", "t_p2000", "t_p3000", "t_p4000"]);
    }
}

#[test]
fn rows_leave_the_default_partition_and_are_seen_by_everybody_throughout() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "{LOGS}; CREATE TABLE logs_default PARTITION OF logs DEFAULT;
                 CREATE TABLE deleted (n int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO deleted VALUES (1); RETURN old; END $$;
                 CREATE TRIGGER note AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION note();
                 INSERT INTO logs (at, body) SELECT now() - n * interval '1 hour', 'stray' FROM generate_series(1, 2400) n"
            ),
        );
        let scenario = Scenario::logs(server, &database, "every = \"month\"\nlock_timeout = \"1s\"");
        let clients = Clients::start(
            server,
            &database,
            &[
                "INSERT INTO logs (at, body) VALUES (now() - random() * interval '90 days', 'new')",
                "SELECT 1 / (count(*) / 2400) FROM logs WHERE body = 'stray'",
                "UPDATE logs SET body = body WHERE id = (SELECT id FROM logs WHERE body = 'stray' ORDER BY random() LIMIT 1)",
            ],
        );
        // A client may be faster than the plan: the next run takes what came in between.
        let first = scenario.tend();
        assert!([Some(0), Some(75)].contains(&first.code), "{first:?}");
        let second = scenario.tend();
        assert!([Some(0), Some(75)].contains(&second.code), "{second:?}");
        let (_, longest) = clients.stop();
        assert!(longest < Duration::from_millis(2500), "a client took {longest:?}");
        scenario.tend().succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ONLY logs_default"), "0");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE body = 'stray'"), "2400");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM deleted"), "0", "the application's triggers saw nothing");
        assert_eq!(server.sql(&database, "SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'logs_default'::regclass"), "O");
    }
}

#[test]
fn more_rows_than_one_transaction_moves_leave_the_default_partition_piece_by_piece() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "{LOGS}; CREATE TABLE logs_default PARTITION OF logs DEFAULT; CREATE INDEX ON logs (at);
             INSERT INTO logs (at, body) SELECT '2026-01-05Z'::timestamptz + n * interval '1 second', 'stray' FROM generate_series(1, 120000) n"
        ),
    );
    let scenario = Scenario::logs(server, &database, "every = \"month\"\nlock_timeout = \"1s\"");
    let clients = Clients::start(
        server,
        &database,
        &["SELECT 1 / (count(*) / 120000) FROM logs WHERE body = 'stray'", "INSERT INTO logs (at, body) VALUES (now(), 'new')"],
    );
    for _ in 0..4 {
        let run = scenario.tend();
        assert!([Some(0), Some(75)].contains(&run.code), "{run:?}");
    }
    let (_, longest) = clients.stop();
    assert!(longest < Duration::from_millis(3500), "a client took {longest:?}");
    scenario.tend().succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ONLY logs_default"), "0");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE body = 'stray'"), "120000");
    let january: Vec<_> = partitions_of(server, &database, "logs").into_iter().filter(|name| name.contains("p2026_01")).collect();
    assert_eq!(january, ["logs_p2026_01", "logs_p2026_01_2", "logs_p2026_01_3"]);
}

#[test]
fn numbers_leave_the_default_partition_in_their_order() {
    let server = server(16);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (k int PRIMARY KEY) PARTITION BY RANGE (k); CREATE TABLE t_default PARTITION OF t DEFAULT;
         INSERT INTO t VALUES (5), (900), (2501), (10000), (-7)",
    );
    let scenario = Scenario::with_database(server, &database).partitions("public.t", "k", "every = 1000");
    scenario.tend().succeeded().prints(&["created 7 partitions, moved 5 rows out of the default partition; covered until 14000"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t_default"), "0");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t_pm1000"), "1");
}

#[test]
fn a_default_partition_is_made_only_when_asked_for() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, LOGS);
    Scenario::logs(server, &database, "every = \"month\"").tend().succeeded();
    assert!(!partitions_of(server, &database, "logs").contains(&"logs_default".to_owned()));
    Scenario::logs(server, &database, "every = \"month\"\ndefault = true").tend().succeeded();
    assert!(partitions_of(server, &database, "logs").contains(&"logs_default".to_owned()));
}

#[test]
fn a_table_locked_by_somebody_else_is_left_for_the_next_run() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, LOGS);
    let scenario = Scenario::logs(server, &database, "every = \"month\"\nlock_timeout = \"200ms\"\ngive_up_after = \"1s\"");
    scenario.tend().succeeded();
    let scenario = scenario.partitions(
        "public.logs",
        "at",
        "every = \"month\"\npremake = 5\nlock_timeout = \"200ms\"\ngive_up_after = \"1s\"",
    );
    let mut holder = server.tool("psql", &database);
    holder.args(["-Xq", "-c", "BEGIN", "-c", "LOCK TABLE logs IN SHARE MODE", "-c", "SELECT pg_sleep(60)"]);
    let mut holder = holder.stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("it is locked", || {
        server.sql(&database, "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND relation = 'logs'::regclass") == "1"
    });
    scenario.tend().exited(75).says(&["create logs_p", "ShareLock on public.logs"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()");
    eventually("the lock is gone", || {
        server.sql(&database, "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND relation = 'logs'::regclass") == "0"
    });
    scenario.tend().succeeded().prints(&["created 2 partitions"]);
}

#[test]
fn a_table_that_runs_out_of_partitions_is_a_failure() {
    let server = server(15);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (k smallint NOT NULL) PARTITION BY RANGE (k); CREATE TABLE t_0 PARTITION OF t FOR VALUES FROM (0) TO (32000); INSERT INTO t VALUES (31990)");
    let scenario = Scenario::with_database(server, &database).partitions("public.t", "k", "every = 32000");
    scenario.tend().exited(1).says(&["less than one period", "covered until 32000", "does not fit in the key's type"]);
}

#[test]
fn a_dry_run_writes_nothing() {
    let server = server(18);
    let database = old_logs(server, 6);
    let scenario = Scenario::logs(server, &database, "every = \"month\"\nretain = \"30d\"\ndefault = true");
    let dump = || String::from_utf8(server.tool("pg_dump", &database).output().unwrap().stdout).unwrap();
    let without_key = |text: String| text.lines().filter(|line| !line.contains("restrict")).collect::<Vec<_>>().join("\n");
    let before = without_key(dump());
    scenario.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&[
        "create logs_p",
        "create logs_default",
        "detach public.logs_p",
    ]);
    assert_eq!(without_key(dump()), before);
}

#[test]
fn what_cannot_be_tended_is_said_clearly() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE plain (at timestamptz); CREATE TABLE listed (at timestamptz) PARTITION BY LIST (at);
         CREATE TABLE two (at timestamptz, n int) PARTITION BY RANGE (at, n); CREATE TABLE words (at text) PARTITION BY RANGE (at);
         CREATE TABLE expression (at timestamptz) PARTITION BY RANGE (date_trunc('day', at, 'UTC'));
         CREATE TABLE numbers (at bigint) PARTITION BY RANGE (at); CREATE VIEW seen AS SELECT now() AS at;
         DROP ROLE IF EXISTS p_nobody; CREATE ROLE p_nobody LOGIN; CREATE TABLE fine (at timestamptz) PARTITION BY RANGE (at)",
    );
    for (table, column, code, texts) in [
        ("public.plain", "at", 78, vec!["is not partitioned", "partition convert"]),
        ("public.listed", "at", 78, vec!["LIST", "only RANGE partitioning is supported"]),
        ("public.two", "at", 78, vec!["several columns"]),
        ("public.words", "at", 78, vec!["at is text"]),
        ("public.expression", "at", 78, vec!["expression"]),
        ("public.numbers", "at", 78, vec!["epoch"]),
        ("public.seen", "at", 78, vec!["is not a table"]),
        ("public.nope", "at", 78, vec!["there is no table public.nope"]),
        ("nope.a.b.c.d", "at", 78, vec!["nope.a.b.c.d"]),
        ("fine", "when", 78, vec!["by column at, not by"]),
    ] {
        let scenario = Scenario::with_database(server, &database).partitions(table, column, "every = \"day\"");
        scenario.tend().exited(code).says(&texts);
    }
    let scenario = Scenario::with_url(server, &server.url_as("p_nobody", &database)).partitions("fine", "at", "every = \"day\"");
    scenario.tend().exited(77).says(&["GRANT \"postgres\" TO \"p_nobody\""]);
    let scenario =
        Scenario::with_database(server, &database).partitions("fine", "at", "every = \"day\"\nretain = 5\npremake = 0");
    scenario.run(&["check"]).exited(78).says(&["`retain` is a number", "premake = 0"]);
}
