//! Backups that work, on every supported server at hand and in both kinds of store.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::postgres::{MAJORS, Server, bin_dir, server};
use crate::support::s3::S3Server;
use crate::support::{Scenario, quoted};

/// Tables with every value that has broken somebody's dump, and names to match.
const HOSTILE: &str = r#"
CREATE TABLE plain (id int PRIMARY KEY, body text);
INSERT INTO plain SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 5000) i;
CREATE TABLE "we""ird; drop" ("Sp ace" text, "quo""te" int, "Umläut" text);
INSERT INTO "we""ird; drop" VALUES (E'\\.', 1, E'tab\tnewline\n\\.\n'), (NULL, 2, ''), ('COPY x FROM stdin;', 3, '日本 🎉');
CREATE SCHEMA "Ünï code";
CREATE TABLE "Ünï code"."UPPER" (a int GENERATED ALWAYS AS IDENTITY, b int GENERATED ALWAYS AS (1 + 1) STORED, c bytea);
INSERT INTO "Ünï code"."UPPER" (c) SELECT '\x00ff' FROM generate_series(1, 10);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE empty (x int);
CREATE TABLE parted (at date NOT NULL, v int) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO parted SELECT date '2026-01-01' + i, i FROM generate_series(0, 300) i;
CREATE TABLE parent (a int);
CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1, 2), (3, 4);
CREATE FUNCTION tricky() RETURNS text LANGUAGE sql AS $body$
SELECT '
COPY public.plain (id, body) FROM stdin;
' $body$;
COMMENT ON TABLE plain IS 'it''s;
COPY public.empty (x) FROM stdin;
1
-- PostgreSQL database dump complete
';
CREATE VIEW looks AS SELECT E'\\'';\nCOPY public.empty (x) FROM stdin;\n' AS t;
CREATE MATERIALIZED VIEW summed AS SELECT count(*) FROM plain;
SELECT lo_from_bytea(0, decode(repeat('c0ffee', 3000), 'hex')) FROM generate_series(1, 3);
CREATE SEQUENCE counter START 42;
SELECT nextval('counter');
"#;

fn hostile_database(server: &Server) -> String {
    let name = server.new_database();
    server.sql(&name, HOSTILE);
    name
}

/// Everything about a database that a dump carries: two databases with the same one are the same.
fn fingerprint(server: &Server, database: &str) -> String {
    let output = server.tool("pg_dump", database).arg("--no-sync").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap();
    // A random token in newer minor releases.
    dump.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn manifest(scenario: &Scenario) -> Value {
    let set = scenario.sets().pop().unwrap();
    serde_json::from_slice(&std::fs::read(scenario.path(&format!("store/{set}/manifest.json"))).unwrap()).unwrap()
}

#[test]
fn a_backup_is_made_verified_listed_and_restored_on_every_version() {
    for major in MAJORS {
        let server = server(major);
        let database = hostile_database(server);
        let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");

        scenario.run(&["run-job", "nightly"]).succeeded().prints(&["nightly on app: succeeded"]);

        let listed = scenario.json(&["backups", "list"]);
        assert_eq!(listed["sets"][0]["bytes"], "intact", "{major}: {listed}");
        let copy = format!("{database}_copy");
        scenario
            .run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"])
            .succeeded()
            .prints(&["is restored into", "each table counted"]);
        assert_eq!(fingerprint(server, &database), fingerprint(server, &copy), "{major}");
        assert_eq!(scratch_databases(&scenario, server), "", "no scratch database stays");
    }
}

/// Of this scenario's job: other tests have theirs.
fn scratch_databases(scenario: &Scenario, server: &Server) -> String {
    let plan = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().stdout;
    let name = plan.split("scratch database ").nth(1).unwrap().split(',').next().unwrap();
    let prefix = name.rsplit_once('_').unwrap().0;
    server.sql("postgres", &format!("SELECT datname FROM pg_database WHERE starts_with(datname::text, '{prefix}')"))
}

#[test]
fn rows_are_counted_under_the_dumps_snapshot() {
    let server = server(18);
    let database = hostile_database(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();

    let manifest = manifest(&scenario);
    let rows = |schema: &str, name: &str| {
        let tables = manifest["tables"].as_array().unwrap();
        let table = tables.iter().find(|table| table["schema"] == schema && table["name"] == name);
        table.unwrap_or_else(|| panic!("{schema}.{name} is not in {tables:?}"))["rows"].as_u64().unwrap()
    };
    assert_eq!(rows("public", "plain"), 5000);
    assert_eq!(rows("public", "we\"ird; drop"), 3);
    assert_eq!(rows("Ünï code", "UPPER"), 10);
    assert_eq!(rows("public", "no_columns"), 2);
    assert_eq!(rows("public", "empty"), 0);
    assert_eq!(rows("public", "parted_1") + rows("public", "parted_2"), 301);
    assert_eq!((rows("public", "parent"), rows("public", "child")), (1, 2));
    assert_eq!(manifest["tables"].as_array().unwrap().len(), 9);
    assert_eq!(manifest["large_objects"], 3);
}

#[test]
fn stock_tools_alone_restore_a_set() {
    for (compression, object, decompressor) in [("gzip", "dump.sql.gz", "gunzip"), ("zstd", "dump.sql.zst", "unzstd")] {
        let server = server(18);
        let database = hostile_database(server);
        let scenario =
            Scenario::with_database(server, &database).backup_job("local", &format!("compression = {}", quoted(compression)));
        scenario.run(&["run-job", "nightly"]).succeeded();
        let file = scenario.path(&format!("store/{}/{object}", scenario.sets()[0]));

        let copy = server.empty_database();
        let mut decompress =
            Command::new(decompressor).arg("-c").arg(file).stdout(Stdio::piped()).spawn().expect("gzip and zstd are installed");
        let psql = server
            .tool("psql", &copy)
            .args(["-Xq", "-v", "ON_ERROR_STOP=1"])
            .stdin(decompress.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
        assert!(decompress.wait().unwrap().success());
        assert_eq!(fingerprint(server, &database), fingerprint(server, &copy));
    }
}

#[test]
fn s3_holds_the_same_and_restores_the_same() {
    let (server, s3) = (server(16), S3Server::start());
    let database = hostile_database(server);
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "verify = \"restore\"");
    scenario.run(&["check", "--connect"]).succeeded().prints(&["store bucket", "wrote, read, listed and deleted a probe"]);
    scenario.run(&["run-job", "nightly"]).succeeded();

    let objects = s3.objects();
    let names: Vec<&str> = objects.iter().map(|key| key.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["dump.sql.gz", "globals.sql.gz", "manifest.json", "run.json", "verification.json"]);
    assert!(objects.iter().all(|key| key.starts_with("test/app/nightly/20")), "{objects:?}");
    let copy = format!("{database}_copy");
    scenario.run(&["backups", "restore", "latest", "--store", "bucket", "--into", &server.url(&copy), "--create"]).succeeded();
    assert_eq!(fingerprint(server, &database), fingerprint(server, &copy));
}

#[test]
fn a_database_with_a_hostile_name_is_backed_up_and_restored() {
    let server = server(18);
    for name in ["we\"ird; drop ä", "dbname=postgres", "UPPER case", "postgres://x", "-o"] {
        server.sql("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")));
        server.sql(name, "CREATE TABLE t AS SELECT generate_series(1, 7) x");
        let scenario = Scenario::with_database(server, name).backup_job("local", "verify = \"restore\"");
        scenario.run(&["run-job", "nightly"]).succeeded().prints(&["1 table, 7 rows"]);
        let copy = format!("{name} copy");
        scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
        assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "7");
    }
}

#[test]
fn a_newer_pg_dump_leaves_out_settings_that_the_server_does_not_know() {
    let server = server(15);
    let database = hostile_database(server);
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = {}\n[stores.local]\npath = \"store\"\n", quoted(&server.url(&database))))
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&bin_dir(18).display().to_string())))
        .backup_job("local", "verify = \"restore\"");
    // The server's own version would win: out of sight with it.
    let without_15 = |arguments: &str| {
        scenario.in_mount_namespace(&format!("mount -t tmpfs none /usr/lib/postgresql && exec $pgtend {arguments}"))
    };
    without_15("run-job nightly --dry-run").succeeded().prints(&["pg_dump (PostgreSQL) 18"]);
    without_15("run-job nightly").succeeded();

    let file = scenario.path(&format!("store/{}/dump.sql.gz", scenario.sets()[0]));
    let output = Command::new("gunzip").arg("-c").arg(file).output().unwrap();
    let dump = String::from_utf8(output.stdout).unwrap();
    assert!(dump.contains("-- this server does not know it: SET transaction_timeout = 0;"));
    assert!(dump.contains("\nSET lock_timeout = 0;"));
}

#[test]
fn an_older_pg_dump_is_refused_with_the_package_to_install() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = {}\n[stores.local]\npath = \"store\"\n", quoted(&server.url(&database))))
        .backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).exited(78).says(&["the server is PostgreSQL 18", "postgresql-client-18"]);
    assert_eq!(scenario.files("store"), Vec::<String>::new());
}

#[test]
fn a_dry_run_says_what_it_would_do_and_writes_nothing() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"\nkeep = { last = 1 }");
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&[
        "back up",
        "with     pg_dump (PostgreSQL) 18",
        "restored into scratch database",
        "(last 1 of 1, made by this run)",
    ]);
    assert_eq!(scenario.files("store"), Vec::<String>::new());
    assert!(!scenario.path("store").exists());
    assert_eq!(scratch_databases(&scenario, server), "");
    let json = scenario.json(&["run-job", "nightly", "--dry-run"]);
    assert_eq!(json["runs"][0]["plan"]["verify"], "restore");
}

#[test]
fn what_the_job_excludes_is_left_out_and_said() {
    let server = server(18);
    let database = hostile_database(server);
    let scenario = Scenario::with_database(server, &database).backup_job(
        "local",
        "schemas = [\"public\"]\nexclude_tables = [\"public.child\"]\nexclude_table_data = [\"public.plain\"]",
    );
    scenario.run(&["run-job", "nightly"]).succeeded();
    let manifest = manifest(&scenario);
    let names: Vec<&str> = manifest["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert!(
        !names.contains(&"child") && !names.contains(&"plain") && !names.contains(&"UPPER") && names.contains(&"parent"),
        "{names:?}"
    );
    assert_eq!(manifest["filters"]["exclude_tables"][0], "public.child");
}

/// As pg_dump finds it: by the search_path of the login.
#[test]
fn a_table_that_is_excluded_without_its_schema_is_left_out() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!(
                "CREATE SCHEMA \"we ird\"; CREATE SCHEMA other; CREATE TABLE \"we ird\".logs AS SELECT 1 AS x; CREATE TABLE other.logs AS SELECT 2 AS x;
                 CREATE TABLE big AS SELECT 3 AS x; ALTER DATABASE {database} SET search_path = \"we ird\", public"
            ),
        );
        let scenario = Scenario::with_database(server, &database)
            .backup_job("local", "exclude_tables = [\"logs\"]\nexclude_table_data = [\"bi*\"]");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let manifest = manifest(&scenario);
        let tables: Vec<String> = (manifest["tables"].as_array().unwrap().iter())
            .map(|table| format!("{}.{}", table["schema"].as_str().unwrap(), table["name"].as_str().unwrap()))
            .collect();
        assert_eq!(tables, ["other.logs"], "{major}");
    }
}

#[test]
fn database_settings_and_locale_come_back_with_create() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, &format!("CREATE TABLE t (x int); ALTER DATABASE {database} SET search_path = app, \"we ird\", public; ALTER DATABASE {database} SET work_mem = '7MB'; ALTER DATABASE {database} SET my.setting = 'it''s'"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE \"con nect\"; REVOKE ALL ON DATABASE {database} FROM PUBLIC; \
             GRANT CONNECT ON DATABASE {database} TO \"con nect\"; COMMENT ON DATABASE {database} IS 'it''s \\ mine'"
        ),
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
    let settings = |database: &str| {
        server.sql("postgres", &format!("SELECT unnest(setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE datname = '{database}' ORDER BY 1"))
    };
    assert_eq!(settings(&database), settings(&copy));
    let properties = |database: &str| {
        server.sql(
            "postgres",
            &format!("SELECT datacl, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{database}'"),
        )
    };
    assert_eq!(properties(&database), properties(&copy));
    assert!(properties(&copy).contains("con nect") && properties(&copy).contains("it's \\ mine"));
    assert!(settings(&copy).contains("work_mem=7MB"));
}

#[test]
fn restoring_into_an_existing_database_wants_it_empty_and_is_all_or_nothing() {
    let server = server(18);
    let database = hostile_database(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();

    let full = server.new_database();
    server.sql(&full, "CREATE TABLE precious (x int)");
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&full)]).exited(78).says(&["is not empty", "--create"]);

    let empty = server.empty_database();
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&empty)]).succeeded();
    assert_eq!(fingerprint(server, &database), fingerprint(server, &empty));

    scenario
        .run(&["backups", "restore", "latest", "--into", &server.url(&full), "--create"])
        .exited(78)
        .says(&["already exists"]);
    assert_eq!(server.sql(&full, "SELECT count(*) FROM precious"), "0");
}

#[test]
fn what_the_target_lacks_is_said_before_anything_is_written() {
    let (source, target) = (server(18), server(15));
    let database = source.trusted_database();
    source.sql(&database, "CREATE ROLE only_here_role; CREATE TABLE t (x int); ALTER TABLE t OWNER TO only_here_role");
    let scenario = Scenario::with_database(source, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let into = target.url("lacking");
    scenario
        .run(&["backups", "restore", "latest", "--into", &into, "--create"])
        .exited(78)
        .says(&["only_here_role", "--create-roles"]);
    assert_eq!(
        target.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'lacking' OR starts_with(datname::text, 'pgtend_restore_' || left(encode(sha256('lacking'), 'hex'), 12))"),
        "0"
    );
    scenario
        .run(&["backups", "restore", "latest", "--into", &into, "--create", "--create-roles"])
        .succeeded()
        .says(&["PostgreSQL 15", "created without LOGIN: only_here_role"]);
    assert_eq!(target.sql("lacking", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "only_here_role");

    source.sql(&database, "CREATE EXTENSION vector");
    let scenario = Scenario::with_database(source, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
        .run(&["backups", "restore", "latest", "--into", &target.url("lacking2"), "--create"])
        .exited(78)
        .says(&["extensions", "vector"]);
}

#[test]
fn verifying_by_restore_on_another_server_works_and_cleans_up() {
    let (source, scratch) = (server(16), server(18));
    let database = hostile_database(source);
    let scenario = Scenario::with_database(source, &database)
        .config(&format!("[databases.scratch]\nurl = {}\n", quoted(&scratch.url("postgres"))))
        .backup_job("local", "verify = \"restore\"\nscratch = \"scratch\"");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
    scenario.run(&["backups", "verify", "latest", "--restore-on", "scratch"]).succeeded();
}

#[test]
fn two_runs_of_one_job_at_once_are_one_run_and_one_busy() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    // The session that a run would hold.
    let mut holder = server
        .tool("psql", &database)
        .args(["-Xq", "-f", "-"])
        .env("PGAPPNAME", "the other one")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"SELECT pg_advisory_lock(hashtextextended('pgtend job app/nightly', 0));\n").unwrap();
    crate::support::eventually("the lock is held", || {
        server.sql(&database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
    });
    scenario.run(&["run-job", "nightly"]).exited(75).says(&["already running", "the other one", "skipped"]);
    assert_eq!(scenario.files("store"), Vec::<String>::new());
    drop(stdin);
    holder.wait().unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn a_role_that_may_only_read_makes_a_set_without_role_passwords() {
    let server = server(16);
    let database = server.new_database();
    // Not pg_read_all_data: that one may read pg_authid.
    server.sql(&database, "CREATE ROLE reader16 LOGIN; CREATE TABLE t (x int); GRANT SELECT ON t TO reader16");
    let scenario = Scenario::with_url(server, &server.url_as("reader16", &database)).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(manifest(&scenario)["globals"]["object"]["role_passwords"], false);
}

#[test]
fn a_role_that_may_not_restore_leaves_an_unverified_set_and_not_a_damaged_one() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        &format!("CREATE ROLE owner18; ALTER DATABASE {database} OWNER TO owner18; CREATE TABLE t (x int); ALTER TABLE t OWNER TO owner18; \
         CREATE ROLE reader18 LOGIN CREATEDB; GRANT pg_read_all_data TO reader18"),
    );
    let scenario = Scenario::with_url(server, &server.url_as("reader18", &database)).backup_job("local", "verify = \"restore\"");
    // Whose things are does not matter for a proof.
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["owners of objects were not tested"]);
    server.sql(&database, "CREATE PUBLICATION all_of_it FOR ALL TABLES");
    scenario.run(&["run-job", "nightly"]).exited(77).says(&[
        "its bytes are intact",
        "the verification by restore failed",
        "all_of_it",
    ]);
    let listed = scenario.json(&["backups", "list"]);
    let newest = listed["sets"].as_array().unwrap().last().unwrap();
    assert_eq!((&newest["bytes"], &newest["restored"]), (&"intact".into(), &false.into()), "{listed}");
    assert_eq!(scratch_databases(&scenario, server), "");
    server.sql(&database, "DROP PUBLICATION all_of_it");
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn the_sets_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    for file in scenario.files("store") {
        let mode = std::fs::metadata(scenario.path(&format!("store/{file}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
}
