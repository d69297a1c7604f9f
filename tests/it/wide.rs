//! Dumps by several sessions: one snapshot, one file that stock tools restore, and what breaks them leaves nothing.

use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::fetch::sum;
use crate::support::postgres::{Server, server};
use crate::support::s3::{Fault, Rule, S3Server};
use crate::support::{Output, Scenario, eventually, quoted};

/// Makes every size by which a dump decides a 64th: a table is large above 128 KiB.
pub const SMALLER: (&str, &str) = ("PGTEND_TEST_SMALLER", "64");

/// Tables of every kind that several sessions read, or must not; those that are called large have more than 128 KiB, where
/// [`SMALLER`] is set.
pub const EVERY_KIND: &str = r#"
CREATE SCHEMA "We ""ird";
CREATE TABLE "We ""ird"."large; drop" ("Sp ace" int GENERATED ALWAYS AS IDENTITY, gone int, "quo""te" text, at timestamptz DEFAULT now());
ALTER TABLE "We ""ird"."large; drop" DROP COLUMN gone;
INSERT INTO "We ""ird"."large; drop" ("quo""te") SELECT CASE WHEN i % 9 = 0 THEN NULL WHEN i % 9 = 1 THEN '' WHEN i % 9 = 2 THEN E'\\.\n\t' || i ELSE md5(i::text) || E'\\' END FROM generate_series(1, 3000) i;
DELETE FROM "We ""ird"."large; drop" WHERE "Sp ace" % 7 = 0;
UPDATE "We ""ird"."large; drop" SET at = at - interval '1 day' WHERE "Sp ace" % 5 = 0;
CREATE TABLE large_toast (id int PRIMARY KEY, doc text);
ALTER TABLE large_toast ALTER doc SET STORAGE EXTERNAL;
INSERT INTO large_toast SELECT i, repeat(md5(i::text), 320) FROM generate_series(1, 40) i;
INSERT INTO large_toast VALUES (41, repeat('x', 320000));
CREATE TABLE large_parts (at date NOT NULL, id int, body text) PARTITION BY RANGE (at);
CREATE TABLE large_part_1 PARTITION OF large_parts FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE large_part_2 PARTITION OF large_parts FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO large_parts SELECT date '2026-01-01' + i % 360, i, md5(i::text) || md5((i * 3)::text) FROM generate_series(1, 4000) i;
CREATE INDEX ON large_parts (at, id);
CREATE TYPE shade AS ENUM ('red', 'green', 'blue');
CREATE TABLE by_shade (s shade, body text) PARTITION BY HASH (s);
CREATE TABLE by_shade_0 PARTITION OF by_shade FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE by_shade_1 PARTITION OF by_shade FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO by_shade SELECT (enum_range(NULL::shade))[1 + i % 3], md5(i::text) FROM generate_series(1, 5000) i;
CREATE TABLE large_generated (i int, twice int GENERATED ALWAYS AS (i * 2) STORED, body text);
INSERT INTO large_generated (i, body) SELECT i, md5(i::text) FROM generate_series(1, 2500) i;
CREATE TABLE large_emptied AS SELECT i, md5(i::text) AS body FROM generate_series(1, 3000) i;
ALTER TABLE large_emptied SET (autovacuum_enabled = false);
DELETE FROM large_emptied;
CREATE TABLE large_parent (id int PRIMARY KEY, body text);
CREATE TABLE large_child (more int) INHERITS (large_parent);
INSERT INTO large_parent SELECT i, md5(i::text) FROM generate_series(1, 2500) i;
INSERT INTO large_child SELECT i, md5(i::text), i FROM generate_series(10000, 12500) i;
CREATE TABLE zz_large_known (id int PRIMARY KEY, body text);
INSERT INTO zz_large_known SELECT i, md5(i::text) FROM generate_series(1, 2500) i;
CREATE FUNCTION is_known(wanted int) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.zz_large_known WHERE id = wanted)';
CREATE TABLE zzz_checked (id int CHECK (public.is_known(id)));
INSERT INTO zzz_checked SELECT i FROM generate_series(1, 100) i;
CREATE TABLE large_refers (id int REFERENCES large_toast, parent int REFERENCES large_parent, body text);
INSERT INTO large_refers SELECT 1 + i % 40, 1 + i % 2500, md5(i::text) FROM generate_series(1, 2500) i;
CREATE TABLE noticed (what text);
CREATE FUNCTION notice() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.noticed VALUES (TG_TABLE_NAME); RETURN NEW; END';
CREATE TRIGGER always AFTER INSERT ON large_refers FOR EACH ROW EXECUTE FUNCTION notice();
ALTER TABLE large_refers ENABLE ALWAYS TRIGGER always;
CREATE TABLE large_secured (i int, body text);
INSERT INTO large_secured SELECT i, md5(i::text) FROM generate_series(1, 2500) i;
ALTER TABLE large_secured ENABLE ROW LEVEL SECURITY;
CREATE TABLE small (x int);
INSERT INTO small SELECT generate_series(1, 10);
CREATE SEQUENCE counter START 42;
SELECT nextval('counter');
CREATE MATERIALIZED VIEW summed AS SELECT count(*), sum(id) FROM large_parts;
SELECT lo_from_bytea(0, decode(repeat('c0ffee', 3000), 'hex')) FROM generate_series(1, 3);
"#;

const TABLES: [&str; 17] = [
    "\"We \"\"ird\".\"large; drop\"",
    "large_toast",
    "large_part_1",
    "large_part_2",
    "by_shade",
    "by_shade_0",
    "large_generated",
    "large_emptied",
    "large_parent",
    "large_child",
    "zz_large_known",
    "zzz_checked",
    "large_refers",
    "noticed",
    "large_secured",
    "small",
    "summed",
];

/// Rows of two tables that are larger together than what a dump and its upload hold in memory: about 50 MB in the dump.
const MANY_ROWS: u32 = 180_000;

/// Rows of a table that is large where [`SMALLER`] is set.
const FEW_ROWS: u32 = 3000;

/// Two tables, `first` and `second`, of so many rows each.
fn two_tables(server: &Server, rows: u32) -> String {
    let name = server.new_database();
    let body = "encode(sha512(int4send(i)), 'hex') AS body";
    server.sql(
        &name,
        &format!("CREATE TABLE first AS SELECT i, {body} FROM generate_series(1, {rows}) i; CREATE TABLE second AS TABLE first"),
    );
    name
}

/// With a job `nightly` into a folder; a table is large above 128 KiB.
fn scenario(server: &Server, database: &str, job: &str) -> Scenario {
    let (name, value) = SMALLER;
    Scenario::with_database(server, database).env(name, value).backup_job("local", job)
}

fn manifest(scenario: &Scenario) -> Value {
    let set = scenario.sets().pop().unwrap();
    serde_json::from_slice(&std::fs::read(scenario.path(&format!("store/{set}/manifest.json"))).unwrap()).unwrap()
}

/// Definitions, comments and grants, as pg_dump says them.
fn definitions(server: &Server, database: &str) -> String {
    let output = server.tool("pg_dump", database).args(["--schema-only", "--no-sync"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap();
    let lines = dump.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
pub fn is_the_same(server: &Server, before: &str, after: &str) {
    assert_eq!(definitions(server, after), definitions(server, before));
    for table in TABLES {
        // Which partition a row is in depends on the OIDs of the enum's values.
        let from = |database: &str| match table {
            "by_shade" | "by_shade_0" => {
                server.sql(database, "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM by_shade t")
            }
            table => sum(server, database, table),
        };
        assert_eq!(from(after), from(before), "{table}");
    }
    assert_eq!(server.sql(after, "SELECT last_value FROM counter"), "42");
    let large_objects = "SELECT count(*), sum(hashtextextended(encode(lo_get(oid), 'hex'), 0)) FROM pg_largeobject_metadata";
    assert_eq!(server.sql(after, large_objects), server.sql(before, large_objects));
}

fn restored_by_psql(server: &Server, scenario: &Scenario) -> String {
    let file = scenario.path(&format!("store/{}/dump.sql.gz", scenario.sets()[0]));
    let copy = server.empty_database();
    let mut gunzip = Command::new("gunzip").arg("-c").arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let mut psql = server.tool("psql", &copy);
    let psql = psql.args(["-Xq", "-v", "ON_ERROR_STOP=1"]).stdin(gunzip.stdout.take().unwrap()).output().unwrap();
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    assert!(gunzip.wait().unwrap().success());
    copy
}

#[test]
fn a_dump_by_several_sessions_comes_back_with_stock_tools_and_with_pgtend() {
    for major in [14, 15, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, EVERY_KIND);
        let scenario = scenario(server, &database, "sessions = 3\nverify = \"restore\"\nthreads = 2");
        scenario.run(&["run-job", "nightly"]).succeeded().says(&["3 sessions read the rows of 9 tables"]);
        let set = scenario.sets().pop().unwrap();
        scenario.run(&["backups", "verify", &set]).succeeded();
        let manifest = manifest(&scenario);
        assert_eq!(manifest["format"], 3);
        let blocks = |name: &str| -> Vec<(u64, u64)> {
            let of_table = manifest["tables"].as_array().unwrap().iter().filter(|table| table["name"] == name);
            of_table.map(|table| (table["rows"].as_u64().unwrap(), table["copies"].as_u64().unwrap_or(1))).collect()
        };
        assert!(blocks("large_toast").iter().map(|(_, copies)| copies).sum::<u64>() > 5, "{:?}", blocks("large_toast"));
        assert_eq!(blocks("large_emptied"), [(0, 1)]);
        assert_eq!(blocks("zzz_checked"), [(100, 1)]);

        let by_psql = restored_by_psql(server, &scenario);
        is_the_same(server, &database, &by_psql);
        let created = format!("{database}_created");
        scenario.run(&["backups", "restore", "latest", "--into", &server.url(&created), "--create"]).succeeded();
        server.drop_with_test(&created);
        is_the_same(server, &database, &created);
        let empty = server.empty_database();
        scenario.run(&["backups", "restore", "latest", "--into", &server.url(&empty)]).succeeded();
        is_the_same(server, &database, &empty);

        for table in ["public.large_toast", "\"We \"\"ird\".\"large; drop\"", "public.large_child"] {
            server.sql(&by_psql, &format!("TRUNCATE {table} CASCADE"));
            let file = scenario.path("rows.sql");
            scenario.run(&["backups", "fetch", "latest", "--table", table, "-o", "rows.sql"]).succeeded();
            let psql = server.tool("psql", &by_psql).args(["-Xq1", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file).output().unwrap();
            assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
            assert_eq!(sum(server, &by_psql, table), sum(server, &database, table), "{major}: {table}");
        }
    }
}

#[test]
fn a_proof_in_a_server_of_its_own_takes_a_dump_by_several_sessions() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, EVERY_KIND);
    let (scenario, _place) = crate::throwaway::scenario(server, &database, "sessions = 2");
    let scenario = scenario.env(SMALLER.0, SMALLER.1);
    scenario.run(&["run-job", "nightly"]).succeeded().prints(&["restored in"]);
    assert_eq!(manifest(&scenario)["format"], 3);
}

#[test]
fn rows_that_move_between_tables_meanwhile_are_in_the_dump_once() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE a AS SELECT i AS id, 100 AS amount, md5(i::text) || md5((i * 3)::text) AS body FROM generate_series(1, 150000) i;
         CREATE TABLE b AS TABLE a; CREATE TABLE small AS SELECT 0 AS amount;
         CREATE INDEX ON a (id); CREATE INDEX ON b (id);
         CREATE PROCEDURE move() LANGUAGE plpgsql AS $$ DECLARE n int; BEGIN LOOP
             n := 1 + floor(random() * 149999);
             UPDATE a SET amount = amount - 1 WHERE id = n; UPDATE b SET amount = amount + 2 WHERE id = 150000 - n;
             UPDATE small SET amount = amount - 1; COMMIT; END LOOP; END $$",
    );
    let mut moving = server.tool("psql", &database).args(["-Xq", "-c", "CALL move()"]).spawn().unwrap();
    let total = "SELECT (SELECT sum(amount) FROM a) + (SELECT sum(amount) FROM b) + (SELECT sum(amount) FROM small)";
    for sessions in [2, 4] {
        let scenario = Scenario::with_database(server, &database).backup_job("local", &format!("sessions = {sessions}"));
        scenario.run(&["run-job", "nightly"]).succeeded();
        let copy = restored_by_psql(server, &scenario);
        assert_eq!(server.sql(&copy, total), "30000000");
        assert_ne!(server.sql(&copy, "SELECT amount FROM small"), "0", "it was at work");
        assert_eq!(server.sql(&copy, "SELECT count(*), count(DISTINCT id) FROM a"), "150000|150000");
    }
    moving.kill().unwrap();
    moving.wait().unwrap();
}

#[test]
fn a_standby_is_dumped_by_several_sessions() {
    let primary = Server::start(15);
    // More than the 32 MiB of a slice each: the real sizes, for once.
    let database = two_tables(&primary, 300_000);
    primary.sql(&database, "CREATE UNLOGGED TABLE unlogged AS SELECT i, md5(i::text) FROM generate_series(1, 200000) i");
    let standby = primary.standby();
    standby.catches_up(&primary);
    let scenario = Scenario::with_database(&standby, &database).backup_job("local", "sessions = 2");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["2 sessions read the rows of 2 tables"]);
    let copy = restored_by_psql(&primary, &scenario);
    for table in ["first", "second"] {
        assert_eq!(sum(&primary, &copy, table), sum(&primary, &database, table));
    }
}

#[test]
fn filters_leave_out_the_same_with_several_sessions() {
    let server = server(16);
    let database = two_tables(server, FEW_ROWS);
    server
        .sql(&database, "CREATE SCHEMA other; CREATE TABLE other.third AS TABLE first; CREATE TABLE other.fourth AS TABLE first");
    let tables = |job: &str| -> Vec<(String, u64)> {
        let scenario = scenario(server, &database, job);
        let ran = scenario.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(ran.stderr.contains("2 sessions read the rows of"), job.contains("sessions = 2"), "{}", ran.stderr);
        let shown = scenario.json(&["backups", "show", "latest"]);
        let named = |table: &Value| {
            (
                format!("{}.{}", table["schema"].as_str().unwrap(), table["name"].as_str().unwrap()),
                table["rows"].as_u64().unwrap(),
            )
        };
        shown["tables"].as_array().unwrap().iter().map(named).collect()
    };
    for filters in [
        "schemas = [\"other\"]",
        "exclude_tables = [\"first\", \"other.f*\"]",
        "exclude_table_data = [\"*.third\", \"second\"]",
        "schemas = [\"o*\"]\nexclude_table_data = ['\"other\".\"third\"']",
    ] {
        assert_eq!(tables(&format!("{filters}\nsessions = 2")), tables(filters), "{filters}");
    }
}

#[test]
fn without_large_tables_or_with_one_session_pg_dump_alone_dumps() {
    let server = server(18);
    let database = two_tables(server, FEW_ROWS);
    for job in ["", "sessions = 1", "sessions = 4\nexclude_tables = [\"first\", \"second\"]"] {
        let scenario = scenario(server, &database, job);
        let ran = scenario.run(&["run-job", "nightly"]).succeeded();
        assert!(!ran.stderr.contains("sessions read the rows"), "{}", ran.stderr);
        assert_eq!(manifest(&scenario)["format"], 2, "{job}");
    }
    let ascii = format!("{database}_ascii");
    server.sql("postgres", &format!("CREATE DATABASE {ascii} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"));
    server.drop_with_test(&ascii);
    server.sql(&ascii, "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 4000) i");
    let scenario = scenario(server, &ascii, "sessions = 2");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["`sessions` has no effect", "SQL_ASCII"]);
    assert_eq!(manifest(&scenario)["format"], 2);
    Scenario::with_database(server, &database)
        .backup_job("local", "sessions = 17")
        .run(&["check"])
        .exited(78)
        .says(&["sessions = 17", "set 1 to 16"]);
}

/// A run whose upload waits before its second part, so that its sessions wait, too.
fn slow_upload(s3: &S3Server, seconds: u64) {
    let fault = Fault::Slow(Duration::from_secs(seconds));
    s3.break_with(Rule { method: Method::PUT, contains: "partNumber=2", skip: 0, times: 1, fault });
}

fn with_slow_bucket(server: &Server, database: &str, s3: &S3Server, job: &str) -> Scenario {
    Scenario::with_database(server, database)
        .s3(s3)
        .config("parts_in_flight = 1\nupload_memory = \"10MiB\"\n")
        .backup_job("bucket", &format!("sessions = 2\n{job}"))
}

fn copies(server: &Server, database: &str) -> String {
    server.sql(
        "postgres",
        &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active' AND query LIKE 'COPY (SELECT %ctid%'"),
    )
}

#[track_caller]
fn leaves_nothing(ran: &Output, s3: &S3Server) {
    assert_eq!((s3.objects(), s3.unfinished_uploads()), (vec![], vec![]), "{ran:?}");
}

#[test]
fn a_session_that_is_ended_ends_the_dump_and_names_the_table() {
    let (server, s3) = (server(18), S3Server::start());
    let database = two_tables(server, MANY_ROWS);
    let scenario = with_slow_bucket(server, &database, &s3, "");
    slow_upload(&s3, 60);
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("two sessions copy", || copies(server, &database) == "2");
    server.sql(
        "postgres",
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE 'COPY (SELECT %ctid%' LIMIT 1"),
    );
    s3.heal();
    let ran = running.wait();
    assert!(matches!(ran.code, Some(1 | 69)), "{ran:?}");
    let ran = ran.says(&["cannot read the rows of \"public\"."]);
    leaves_nothing(&ran, &s3);
    eventually("no session is left", || copies(server, &database) == "0");
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn a_server_that_stops_while_several_sessions_dump_makes_no_set() {
    let (mut server, s3) = (Server::start(15), S3Server::start());
    let database = two_tables(&server, MANY_ROWS);
    let scenario = with_slow_bucket(&server, &database, &s3, "");
    slow_upload(&s3, 10);
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("two sessions copy", || copies(&server, &database) == "2");
    server.crash();
    let ran = running.wait().exited(69);
    leaves_nothing(&ran, &s3);
    server.start_again();
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn pgtend_killed_while_several_sessions_dump_leaves_nothing_that_is_a_set() {
    let (server, s3) = (server(18), S3Server::start());
    let database = two_tables(server, MANY_ROWS);
    let scenario = with_slow_bucket(server, &database, &s3, "");
    slow_upload(&s3, 60);
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("two sessions copy", || copies(server, &database) == "2");
    running.kill();
    assert_eq!((scenario.sets().len(), s3.objects().len()), (0, 1), "only that it was at work there");
    eventually("no session is left", || copies(server, &database) == "0");
    s3.heal();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!((scenario.sets().len(), s3.unfinished_uploads()), (1, vec![]));
}

#[test]
fn a_lock_that_somebody_waits_for_ends_the_start_of_a_dump_and_is_named() {
    let server = server(18);
    let database = two_tables(server, FEW_ROWS);
    let scenario = scenario(server, &database, "sessions = 2\nlock_wait_timeout = \"1s\"");
    let reader = server.session(&database, "BEGIN; SELECT count(*) FROM second");
    let alter = ["-Xq", "-c", "ALTER TABLE second ADD COLUMN more int"];
    let mut waiting = server.tool("psql", &database).args(alter).spawn().unwrap();
    eventually("the migration waits", || {
        server.sql(&database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
    });
    let said = scenario.run(&["run-job", "nightly"]).exited(1);
    said.says(&["cannot be locked for the dump", "public.second is asked for a lock by server process", "psql"]);
    assert_eq!(scenario.files("store"), Vec::<String>::new());
    drop(reader);
    assert!(waiting.wait().unwrap().success());
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn a_migration_that_comes_while_several_sessions_dump_waits_and_does_not_stop_them() {
    let (server, s3) = (server(16), S3Server::start());
    let database = two_tables(server, MANY_ROWS);
    let scenario = with_slow_bucket(server, &database, &s3, "");
    slow_upload(&s3, 12);
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("two sessions copy", || copies(server, &database) == "2");
    let drop = ["-Xq", "-c", "DROP TABLE second"];
    let mut waiting = server.tool("psql", &database).args(drop).spawn().unwrap();
    running.wait().succeeded().says(&["waits for AccessExclusiveLock on public.second"]);
    assert!(waiting.wait().unwrap().success());
    let shown = scenario.json(&["backups", "show", "latest"]);
    let rows: Vec<u64> = shown["tables"].as_array().unwrap().iter().map(|table| table["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [u64::from(MANY_ROWS); 2]);
}

#[test]
fn a_table_that_is_dropped_while_the_sessions_start_is_not_in_the_dump() {
    let server = server(18);
    let database = two_tables(server, FEW_ROWS);
    let scenario = scenario(server, &database, "sessions = 2");
    let dropping = server.session(&database, "BEGIN; DROP TABLE second");
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("the dump waits for the lock", || {
        server.sql(
            "postgres",
            &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"),
        ) != "0"
    });
    dropping.ends_with("COMMIT");
    running.wait().succeeded();
    let shown = scenario.json(&["backups", "show", "latest"]);
    assert_eq!(shown["tables"].as_array().unwrap().len(), 1, "{shown:#}");
}

/// The COPY statements of the newest set, in the order of their letters, each once.
fn copy_statements(scenario: &Scenario) -> Vec<String> {
    let file = scenario.path(&format!("store/{}/dump.sql.gz", scenario.sets().pop().unwrap()));
    let dump = Command::new("gunzip").arg("-c").arg(file).output().unwrap();
    let lines = String::from_utf8(dump.stdout).unwrap();
    let mut heads: Vec<String> = lines.lines().filter(|line| line.starts_with("COPY ")).map(str::to_owned).collect();
    heads.sort();
    heads.dedup();
    heads
}

#[test]
fn copy_statements_of_several_sessions_are_spelled_as_those_of_pg_dump() {
    let server = server(18);
    let database = server.new_database();
    let rows = "repeat(md5(i::text), 250) AS body FROM generate_series(1, 60) i";
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA \"Mixed\"; CREATE SCHEMA \"user\";
             SET default_toast_compression = pglz;
             CREATE TABLE scripts (id int, body text STORAGE EXTERNAL, \"select\" int, \"Camel\" int, name int, \"a b\" int, \"ä\" int, \"1st\" int, between_ int, \"between\" int, _x int);
             INSERT INTO scripts (id, body) SELECT i, {rows};
             CREATE TABLE \"Mixed\".\"order\" (body text STORAGE EXTERNAL); INSERT INTO \"Mixed\".\"order\" SELECT {rows};
             CREATE TABLE \"user\".\"we\"\"ird\" (body text STORAGE EXTERNAL); INSERT INTO \"user\".\"we\"\"ird\" SELECT {rows};
             ALTER DATABASE {database} SET quote_all_identifiers = on"
        ),
    );
    let copies = [1, 3].map(|sessions| {
        let scenario = scenario(server, &database, &format!("sessions = {sessions}"));
        let ran = scenario.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(ran.stderr.contains("3 sessions read the rows of 3 tables"), sessions == 3, "{}", ran.stderr);
        copy_statements(&scenario)
    });
    assert_eq!(copies[1], copies[0]);
    assert!(copies[0].iter().any(|copy| copy.starts_with("COPY public.scripts (id, body, \"select\", ")), "{copies:?}");
}

#[test]
fn tables_with_a_check_that_reads_another_table_come_after_that_one_however_the_check_is_reached() {
    let server = server(18);
    let database = server.new_database();
    let rows = "repeat(md5(i::text), 250) FROM generate_series(1, 60) i";
    server.sql(
        &database,
        "CREATE TABLE aa_known AS SELECT generate_series(1, 100) AS id;
         CREATE FUNCTION is_known(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT EXISTS (SELECT FROM public.aa_known WHERE id = $1)';
         CREATE FUNCTION are_known(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.is_known($1)';
         CREATE OPERATOR ~~~ (FUNCTION = are_known, LEFTARG = int, RIGHTARG = int);
         CREATE DOMAIN known AS int CHECK (is_known(value));
         CREATE DOMAIN over_known AS known;
         CREATE DOMAIN cast_to_known AS int CHECK (value::over_known > 0);
         CREATE DOMAIN plain AS int CHECK (value > 0);
         CREATE TYPE pair AS (x int, y over_known);
         CREATE TYPE knowns AS RANGE (subtype = known, multirange_type_name = knownsmultirange);
         CREATE TABLE one_pair (p pair[]);
         CREATE TABLE parts (id int, body text) PARTITION BY LIST ((is_known(id)));
         CREATE TABLE parts_known PARTITION OF parts FOR VALUES IN (true) PARTITION BY LIST ((id > 0));
         CREATE TABLE casts (id int, body text) PARTITION BY LIST ((id::known > 0));
         CREATE EXTENSION vector",
    );
    let checked = [
        ("own", "int CHECK (is_known(id))", "1 + i % 100"),
        ("by_operator", "int CHECK (id ~~~ 1)", "1 + i % 100"),
        (
            "by_postgres",
            "int CHECK (ts_rewrite('a', 'SELECT ''a''::tsquery, ''b''::tsquery FROM public.aa_known WHERE id = ' || id) = 'b'::tsquery)",
            "1 + i % 100",
        ),
        ("domain", "known", "1 + i % 100"),
        ("domain_over_domain", "over_known", "1 + i % 100"),
        ("domain_that_casts", "cast_to_known", "1 + i % 100"),
        ("array", "known[]", "ARRAY[1 + i % 100]"),
        ("composite", "pair", "ROW(1, 1 + i % 100)::pair"),
        ("row_of_a_table", "one_pair", "ROW(ARRAY[ROW(1, 1 + i % 100)::pair])::one_pair"),
        ("range", "knowns", "knowns((1 + i % 50)::known, (51 + i % 50)::known)"),
        ("multirange", "knownsmultirange", "knownsmultirange(knowns(1::known, (2 + i % 50)::known))"),
        ("cast", "int CHECK (id::over_known > 0)", "1 + i % 100"),
    ];
    let others = [
        ("plain_check", "int CHECK (id > 0)", "1 + i % 100"),
        ("plain_array", "plain[]", "ARRAY[1 + i % 100]"),
        ("of_an_extension", "vector(2) CHECK (vector_dims(id) = 2)", "'[1, 2]'::vector"),
    ];
    for (name, kind, value) in checked.iter().chain(&others) {
        server.sql(
            &database,
            &format!(
                "CREATE TABLE zz_{name} (id {kind}, body text STORAGE EXTERNAL); INSERT INTO zz_{name} SELECT {value}, {rows}"
            ),
        );
    }
    server.sql(
        &database,
        &format!(
            "CREATE TABLE zz_part PARTITION OF parts_known FOR VALUES IN (true); ALTER TABLE zz_part ALTER body SET STORAGE EXTERNAL;
             INSERT INTO parts SELECT 1 + i % 100, {rows};
             CREATE TABLE zz_cast_part PARTITION OF casts FOR VALUES IN (true); ALTER TABLE zz_cast_part ALTER body SET STORAGE EXTERNAL;
             INSERT INTO casts SELECT 1 + i % 100, {rows}"
        ),
    );
    let scenario = scenario(server, &database, "sessions = 2");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["2 sessions read the rows of 3 tables"]);
    let copy = restored_by_psql(server, &scenario);
    let names = checked.iter().chain(&others).map(|(name, ..)| format!("zz_{name}"));
    for table in names.chain(["zz_part".to_owned(), "zz_cast_part".to_owned()]) {
        assert_eq!(sum(server, &copy, &table), sum(server, &database, &table), "{table}");
        assert_eq!(server.sql(&copy, &format!("SELECT count(*) FROM {table}")), "60");
    }
}

/// A scenario whose pg_dumps begin when there is a file `go`.
fn with_waiting_pg_dumps(server: &Server, database: &str, job: &str) -> Scenario {
    let script = "while [ ! -e \"$(dirname \"$0\")/go\" ]; do sleep 0.02; done; exec \"$real\" \"$@\"";
    let (name, value) = SMALLER;
    Scenario::with_tool(server, database, "pg_dump", script).env(name, value).backup_job("local", job)
}

/// Waits until as many sessions have locked the table `first` as a dump by two sessions has, beside its pg_dumps.
fn sessions_have_their_locks(server: &Server, database: &str) {
    eventually("the sessions have their locks", || {
        let locks = "SELECT count(*) FROM pg_locks WHERE granted AND mode = 'AccessShareLock' AND relation = 'first'::regclass";
        server.sql(database, locks) == "3"
    });
}

fn waits_for_a_lock(server: &Server, database: &str, query: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock' AND query LIKE '{query}%'"
    );
    eventually("it waits", || server.sql("postgres", &waiting) == "1");
}

#[test]
fn a_migration_that_comes_between_the_sessions_and_the_pg_dumps_does_not_wait_nor_do_readers() {
    let server = server(18);
    let database = two_tables(server, FEW_ROWS);
    let scenario = with_waiting_pg_dumps(server, &database, "sessions = 2");
    let running = scenario.start(&["run-job", "nightly"]);
    sessions_have_their_locks(server, &database);
    let mut altering =
        server.tool("psql", &database).args(["-Xq", "-c", "ALTER TABLE second ADD COLUMN more int"]).spawn().unwrap();
    waits_for_a_lock(server, &database, "ALTER TABLE second");
    std::fs::write(scenario.path("bin/go"), "").unwrap();
    let asked = std::time::Instant::now();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM second WHERE i = 1"), "1");
    assert!(asked.elapsed() < Duration::from_secs(20), "a reader waited for {:?}", asked.elapsed());
    assert!(altering.wait().unwrap().success());
    running.wait().succeeded().says(&["starts anew", "public.second is asked for a lock by server process", "psql"]);
    assert_eq!(
        copy_statements(&scenario),
        ["COPY public.first (i, body) FROM stdin;", "COPY public.second (i, body, more) FROM stdin;"]
    );
}

#[test]
fn a_migration_that_comes_again_and_again_between_the_sessions_ends_the_dump_and_is_named() {
    let server = server(17);
    let database = two_tables(server, FEW_ROWS);
    let scenario = with_waiting_pg_dumps(server, &database, "sessions = 2");
    let running = scenario.start(&["run-job", "nightly"]);
    // One waits behind the locks of each attempt.
    let alters: Vec<_> = (0..3)
        .map(|number| {
            sessions_have_their_locks(server, &database);
            let alter = format!("ALTER TABLE second ADD COLUMN more_{number} int");
            let altering = server.tool("psql", &database).args(["-Xq", "-c", &alter]).spawn().unwrap();
            waits_for_a_lock(server, &database, &alter);
            std::fs::write(scenario.path("bin/go"), "").unwrap();
            eventually("the dump has given way", || {
                server.sql(&database, &format!("SELECT count(*) FROM pg_attribute WHERE attname = 'more_{number}'")) == "1"
            });
            let _ = std::fs::remove_file(scenario.path("bin/go"));
            altering
        })
        .collect();
    running.wait().exited(1).says(&["cannot be locked for the dump: public.second is asked for a lock by server process"]);
    assert!(alters.into_iter().all(|mut alter| alter.wait().unwrap().success()));
    assert_eq!(scenario.files("store"), Vec::<String>::new());
}

#[test]
fn a_small_table_that_is_emptied_and_filled_again_while_the_pg_dumps_start_is_in_the_dump() {
    let server = server(16);
    let database = two_tables(server, FEW_ROWS);
    server.sql(&database, "CREATE TABLE small AS SELECT generate_series(1, 100) AS x");
    let scenario = with_waiting_pg_dumps(server, &database, "sessions = 2");
    let running = scenario.start(&["run-job", "nightly"]);
    sessions_have_their_locks(server, &database);
    let refill = "TRUNCATE small; INSERT INTO small SELECT generate_series(1, 100)";
    let mut refilling = server.tool("psql", &database).args(["-Xq1", "-c", refill]).spawn().unwrap();
    waits_for_a_lock(server, &database, "TRUNCATE small");
    std::fs::write(scenario.path("bin/go"), "").unwrap();
    assert!(refilling.wait().unwrap().success());
    running.wait().succeeded();
    let shown = scenario.json(&["backups", "show", "latest"]);
    let small = shown["tables"].as_array().unwrap().iter().find(|table| table["name"] == "small").unwrap();
    assert_eq!(small["rows"], 100);
}

#[test]
fn where_the_lock_table_has_no_room_for_all_tables_only_the_large_ones_are_locked_beforehand() {
    let server = Server::start_with(18, &["max_connections=20", "max_locks_per_transaction=10"]);
    let database = two_tables(&server, FEW_ROWS);
    let tables: String = (0..60).map(|number| format!("CREATE TABLE small_{number} (x int);")).collect();
    server.sql(&database, &tables);
    let scenario = with_waiting_pg_dumps(&server, &database, "sessions = 2");
    let running = scenario.start(&["run-job", "nightly"]);
    sessions_have_their_locks(&server, &database);
    server.sql(&database, "TRUNCATE small_1");
    std::fs::write(scenario.path("bin/go"), "").unwrap();
    running.wait().succeeded();
}

#[test]
fn a_second_pg_dump_whose_session_is_ended_ends_the_dump_while_the_sessions_copy() {
    let (server, s3) = (server(18), S3Server::start());
    let database = two_tables(server, MANY_ROWS);
    server.sql(&database, "CREATE TABLE medium AS SELECT i, md5(i::text) AS body FROM generate_series(1, 80000) i");
    let scenario = with_slow_bucket(server, &database, &s3, "");
    slow_upload(&s3, 120);
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("two sessions copy", || copies(server, &database) == "2");
    let pg_dump = format!("FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE 'COPY public.medium %'");
    eventually("pg_dump waits", || server.sql("postgres", &format!("SELECT count(*) {pg_dump}")) == "1");
    let ended = std::time::Instant::now();
    server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {pg_dump}"));
    let ran = running.wait().exited(1).says(&["the session of the second pg_dump ended on the server"]);
    assert!(ended.elapsed() < Duration::from_secs(60), "it took {:?}", ended.elapsed());
    s3.heal();
    leaves_nothing(&ran, &s3);
    eventually("no session is left", || copies(server, &database) == "0");
}

/// With `max_sessions`, and a ledger in the same database where one is wanted.
fn limited(server: &Server, url: &str, most: u32, with_ledger: bool) -> Scenario {
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = {}\nmax_sessions = {most}\n[stores.local]\npath = \"store\"\n", quoted(url)))
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())))
        .env(SMALLER.0, SMALLER.1)
        .backup_job("local", "sessions = 8");
    if with_ledger { scenario.ledger() } else { scenario }
}

/// Runs beside a work until no session of the role is left for a second, and returns the most that there were at once.
fn most_sessions(server: &Server, role: &str, work: impl FnOnce()) -> u32 {
    let count = format!(
        "DO $$ DECLARE most int := 0; seen int; idle int := 0; BEGIN
             FOR i IN 1..200000 LOOP
                 PERFORM pg_stat_clear_snapshot();
                 SELECT count(*) INTO seen FROM pg_stat_activity WHERE usename = '{role}';
                 most := greatest(most, seen);
                 idle := CASE WHEN seen = 0 AND most > 0 THEN idle + 1 ELSE 0 END;
                 EXIT WHEN idle > 500;
                 PERFORM pg_sleep(0.002);
             END LOOP;
             RAISE NOTICE 'most %.', most;
         END $$"
    );
    let counting = server.tool("psql", "postgres").args(["-Xq", "-c", &count]).stderr(Stdio::piped()).spawn().unwrap();
    work();
    let said = String::from_utf8(counting.wait_with_output().unwrap().stderr).unwrap();
    let most = said.split_once("most ").unwrap_or_else(|| panic!("{said}")).1;
    most.split('.').next().unwrap().parse().unwrap()
}

#[test]
fn a_dump_never_has_more_sessions_on_the_server_than_it_may() {
    let server = server(18);
    let database = two_tables(server, 20 * FEW_ROWS);
    let role = format!("{database}_few");
    for (most, with_ledger, sessions) in [(9, false, 3), (11, true, 3), (7, false, 1)] {
        // The server itself refuses one more.
        server.sql("postgres", &format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT {most}; GRANT pg_read_all_data TO {role}"));
        server.sql(&database, &format!("GRANT CREATE ON DATABASE {database} TO {role}"));
        let scenario = limited(server, &server.url_as(&role, &database), most, with_ledger);
        let planned = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded();
        let why = format!("max_sessions = {most} leaves ");
        match sessions {
            1 => planned.prints(&["pg_dump alone reads all rows", &why]),
            _ => planned.prints(&["rows of large tables by 3 sessions (the job has sessions = 8; ", &why]),
        };
        let seen = most_sessions(server, &role, || {
            let ran = scenario.run(&["run-job", "nightly"]).succeeded();
            assert_eq!(ran.stderr.contains("3 sessions read the rows of 2 tables"), sessions == 3, "{}", ran.stderr);
        });
        assert!(seen <= most && (sessions == 1 || seen > 5), "{seen} of {most}");
        server.sql(&database, &format!("DROP SCHEMA IF EXISTS pgtend CASCADE; DROP OWNED BY {role}; DROP ROLE {role}"));
    }
    for (most, with_ledger, says) in
        [(1, false, "4 to 262143"), (3, false, "one session for its lock, one for pg_dump"), (5, true, "2 for the ledger")]
    {
        let scenario = limited(server, &server.url(&database), most, with_ledger);
        scenario.run(&["check"]).exited(78).says(&[&format!("`max_sessions = {most}`"), says]);
    }
    limited(server, &server.url(&database), 4, false).run(&["check"]).succeeded();
}

#[test]
fn a_dump_has_as_many_sessions_as_connection_limits_leave() {
    for major in [15, 18] {
        let server = server(major);
        let database = two_tables(server, FEW_ROWS);
        let role = format!("{database}_few");
        server.sql("postgres", &format!("CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}"));
        for (limit, of_database, sessions, says) in [
            (9, -1, 3, "by 3 sessions (the job has sessions = 4; CONNECTION LIMIT 9 of the role leaves 3"),
            (20, 8, 2, "by 2 sessions (the job has sessions = 4; CONNECTION LIMIT 8 of the database leaves 2"),
            (5, -1, 1, "pg_dump alone reads all rows, as CONNECTION LIMIT 5 of the role leaves too few"),
            // The limit is that of the login, whatever role its settings SET.
            (-5, -1, 1, "pg_dump alone reads all rows, as CONNECTION LIMIT 5 of the role leaves too few"),
            (20, 20, 4, "by 4 sessions\n"),
        ] {
            let sets = if limit < 0 { "SET role = 'pg_read_all_data'" } else { "RESET role" };
            let limit = i32::abs(limit);
            server.sql("postgres", &format!("ALTER ROLE {role} {sets}"));
            server.sql(
                "postgres",
                &format!("ALTER ROLE {role} CONNECTION LIMIT {limit}; ALTER DATABASE {database} CONNECTION LIMIT {of_database}"),
            );
            let scenario = Scenario::with_url(server, &server.url_as(&role, &database))
                .env(SMALLER.0, SMALLER.1)
                .backup_job("local", "sessions = 4\nverify = 'checksum'");
            scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&[says]);
            let ran = scenario.run(&["run-job", "nightly"]).succeeded();
            assert_eq!(
                ran.stderr.contains(&format!("{sessions} sessions read the rows of 2 tables")),
                sessions > 1,
                "{}",
                ran.stderr
            );
        }
        server.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}
