//! What is in a set, and one table out of it: exactly its rows, from the members that hold them, proved or not at all.

use std::path::Path;
use std::process::Command;

use pgtend::task::backup::manifest;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::support::s3::S3Server;

const VALUES: &str = include_str!("fixtures/round_trip/values.sql");

const TABLES: [&str; 9] = ["texts", "one_column", "bytes", "numbers", "times", "composed", "documents", "wide", "many_columns"];

/// Three tables, of which the one in the middle has about 21 MB when it is compressed, and each other one about 2 MB.
pub fn three_tables(server: &Server) -> String {
    let name = server.new_database();
    let random = "md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) || md5((i * 17)::text)";
    for (table, rows) in [("a_first", 30_000), ("big", 310_000), ("z_last", 30_000)] {
        server.sql(&name, &format!("CREATE TABLE {table} AS SELECT i, {random} AS body FROM generate_series(1, {rows}) i"));
    }
    name
}

fn with_set(server: &Server, database: &str) -> Scenario {
    let scenario = Scenario::with_database(server, database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

/// What the server says of all rows of a table, whatever their order.
pub fn sum(server: &Server, database: &str, table: &str) -> String {
    server.sql(database, &format!("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM ONLY {table} t"))
}

/// The server's own CSV, under the settings of a dump.
fn csv_of(server: &Server, database: &str, table: &str) -> Vec<u8> {
    let copy = format!("COPY (SELECT * FROM ONLY {table}) TO STDOUT (FORMAT csv, HEADER)");
    let settings = "SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; SET search_path = ''";
    let output = server.tool("psql", database).args(["-Xq", "-c", settings, "-c", &copy]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn left_behind(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter(|name| name.starts_with(".pgtend-fetch") || name.starts_with("rows")).collect()
}

#[test]
fn every_value_comes_out_of_a_set_as_csv_as_the_server_writes_it_and_as_sql() {
    for major in [14, 15, 18] {
        let server = server(major);
        let (database, copy) = (server.new_database(), server.empty_database());
        server.sql(&database, VALUES);
        let scenario = with_set(server, &database);
        let schema = server.tool("pg_dump", &database).args(["--schema-only", "--no-sync"]).output().unwrap();
        server.sql(&copy, &String::from_utf8(schema.stdout).unwrap());
        for table in TABLES {
            let name = format!("values.{table}");
            let fetch = ["backups", "fetch", "latest", "--table", &name];
            let csv = scenario.command(&[&fetch[..], &["--format", "csv"]].concat()).output().unwrap();
            assert!(csv.status.success(), "{}", String::from_utf8_lossy(&csv.stderr));
            assert!(csv.stdout == csv_of(server, &database, &format!("\"values\".{table}")), "{major}: {table}");

            scenario.run(&[&fetch[..], &["--output", "rows.sql"]].concat()).succeeded().prints(&["rows.sql: "]);
            let psql =
                server.tool("psql", &copy).args(["-Xq1", "-v", "ON_ERROR_STOP=1", "-f"]).arg(scenario.path("rows.sql")).output();
            let psql = psql.unwrap();
            assert!(psql.status.success(), "{table}: {}", String::from_utf8_lossy(&psql.stderr));
            let of = |database: &str| sum(server, database, &format!("\"values\".{table}"));
            assert_eq!(of(&copy), of(&database), "{major}: {table}");
        }
    }
}

#[test]
fn a_set_is_shown_with_its_tables_and_what_holds_them() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (at date, x int) PARTITION BY RANGE (at);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         INSERT INTO logs SELECT '2026-01-05', i FROM generate_series(1, 1234) i;
         CREATE TABLE \"We ird\" (x int); SELECT lo_create(0)",
    );
    let scenario = with_set(server, &database);
    scenario.run(&["backups", "show", "latest"]).succeeded().prints(&[
        "public.logs_1",
        "1,234",
        "public.We ird",
        "large objects   1",
        "extensions      plpgsql 1.0",
        "PostgreSQL 18.",
    ]);
    let shown = scenario.json(&["backups", "show", "latest"]);
    let tables = shown["tables"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["We ird", "logs_1"]);
    assert_eq!((&tables[1]["rows"], &tables[1]["members"]), (&1234.into(), &1.into()));
    assert_eq!((&shown["large_objects"], &shown["members"], &shown["bytes"]), (&1.into(), &1.into(), &"intact".into()));

    let refused = |table: &str| scenario.run(&["backups", "fetch", "latest", "--table", table]).exited(78);
    refused("logs").says(&["is partitioned: its rows are in public.logs_1"]);
    refused("log_1").says(&["no rows of a table `log_1`"]);
    refused("public.log_1").says(&["did you mean `public.logs_1`?"]);
    scenario.run(&["backups", "fetch", "latest", "--table", "logs_1", "--json"]).exited(78).says(&["--output FILE"]);
    for table in ["\"We ird\"", "public.\"We ird\"", "public.We ird"] {
        let fetched = scenario.run(&["backups", "fetch", "latest", "--table", table, "--format", "csv"]).succeeded();
        assert_eq!(fetched.stdout, "x\n", "{table}");
    }
}

#[test]
fn only_the_members_that_hold_a_table_are_read_and_the_blocks_that_prove_them() {
    let (server, s3) = (server(16), S3Server::start());
    let database = three_tables(server);
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let shown = scenario.json(&["backups", "show", "latest", "--store", "bucket"]);
    let reads = |table: &str| -> (u64, u64) {
        let file = format!("{table}.csv");
        let arguments = ["backups", "fetch", "latest", "--store", "bucket", "--format", "csv", "--table", table, "-o", &file];
        let fetched = scenario.json(&arguments);
        assert!(std::fs::read(scenario.path(&file)).unwrap() == csv_of(server, &database, &format!("public.{table}")), "{table}");
        let of_table = shown["tables"].as_array().unwrap().iter().find(|shown| shown["name"] == table).unwrap();
        (fetched["read_bytes"].as_u64().unwrap(), of_table["member_bytes"].as_u64().unwrap())
    };
    let (read, held) = reads("big");
    assert!(held > 18_000_000 && read <= held * 11 / 10, "{read} read of {held}");
    for table in ["a_first", "z_last"] {
        let (read, held) = reads(table);
        assert!(read <= held + (2 << 20), "{table}: {read} read of {held}");
    }
    // A server that answers with all of an object, or with more than was asked for.
    for (ignores_ranges, starts_before) in [(true, 0), (false, 1), (false, 3 << 20)] {
        let quirks = s3.quirks();
        quirks.ignores_ranges.store(ignores_ranges, std::sync::atomic::Ordering::Relaxed);
        quirks.starts_before.store(starts_before, std::sync::atomic::Ordering::Relaxed);
        reads("z_last");
    }
}

#[test]
fn of_bytes_that_were_changed_in_the_store_no_row_is_called_good() {
    let server = server(18);
    let database = three_tables(server);
    let scenario = with_set(server, &database);
    let dump = scenario.path(&format!("store/{}/dump.sql.gz", scenario.sets()[0]));
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&dump, &bytes).unwrap();
    std::fs::write(scenario.path("rows.csv"), "of yesterday").unwrap();
    for format in ["sql", "csv"] {
        let fetch = ["backups", "fetch", "latest", "--table", "big", "--format", format];
        let refused = scenario.run(&[&fetch[..], &["--output", "rows.csv"]].concat()).exited(1);
        refused.says(&["no file was written", "differs from its manifest", "backups verify"]);
        assert_eq!(std::fs::read_to_string(scenario.path("rows.csv")).unwrap(), "of yesterday");
        assert_eq!(left_behind(&scenario.path("")), ["rows.csv"]);
        scenario.run(&fetch).exited(1).says(&["is not all of its rows: do not use it"]);
    }
    for table in ["a_first", "z_last"] {
        scenario.run(&["backups", "fetch", "latest", "--table", table, "--output", "rows.csv"]).succeeded();
    }
}

#[test]
fn a_manifest_that_leads_to_other_statements_gets_none_of_them_out() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 2 AS x");
    let scenario = with_set(server, &database);
    let path = scenario.path(&format!("store/{}/manifest.json", scenario.sets()[0]));
    let written = manifest::from_json(&std::fs::read(&path).unwrap()).unwrap();
    let fetch = |change: &dyn Fn(&mut manifest::Manifest)| {
        let mut manifest = written.clone();
        change(&mut manifest);
        std::fs::write(&path, manifest::to_json(&manifest).unwrap()).unwrap();
        scenario.run(&["backups", "fetch", "latest", "--table", "a"])
    };
    fetch(&|_| ()).succeeded().prints(&["COPY public.a (x) FROM stdin;\n1\n\\."]);
    fetch(&|manifest| manifest.tables.swap(0, 1)).succeeded().prints(&["\n1\n"]);
    fetch(&|manifest| manifest.tables[0].rows = 2).exited(1).says(&["holds 1 row of the table", "says 2"]);
    fetch(&|manifest| manifest.tables[0].bytes -= 3).exited(1).says(&["do not use it"]);
    let other = |manifest: &mut manifest::Manifest| {
        (manifest.tables[0].offset, manifest.tables[0].bytes) = (manifest.tables[1].offset, manifest.tables[1].bytes);
    };
    fetch(&other).exited(1).says(&["the dump holds something else"]);
    let head = |manifest: &mut manifest::Manifest| (manifest.tables[0].offset, manifest.tables[0].bytes) = (0, 400);
    fetch(&head).exited(1).says(&["do not use it"]);
}

#[test]
fn a_set_of_the_first_release_is_read_as_a_whole_and_proved_at_its_end() {
    let server = server(18);
    let database = three_tables(server);
    let scenario = with_set(server, &database);
    let folder = scenario.path(&format!("store/{}", scenario.sets()[0]));
    let mut first: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    first["format"] = 1.into();
    first.as_object_mut().unwrap().remove("sha256");
    first["dump"].as_object_mut().unwrap().remove("blocks");
    first["dump"]["members"].as_object_mut().unwrap().remove("crc32");
    std::fs::write(folder.join("manifest.json"), first.to_string()).unwrap();
    let fetched = scenario.json(&["backups", "fetch", "latest", "--table", "z_last", "--format", "csv", "-o", "rows.csv"]);
    assert_eq!(fetched["read_bytes"], first["dump"]["bytes"]);
    assert!(std::fs::read(scenario.path("rows.csv")).unwrap() == csv_of(server, &database, "public.z_last"));

    let dump = folder.join("dump.sql.gz");
    let mut bytes = std::fs::read(&dump).unwrap();
    // The time in the head of the first member, which no checksum of gzip covers.
    bytes[5] ^= 1;
    std::fs::write(&dump, &bytes).unwrap();
    assert!(Command::new("gunzip").arg("-t").arg(&dump).status().unwrap().success());
    let fetch = ["backups", "fetch", "latest", "--table", "z_last", "--output", "other.csv"];
    scenario.run(&fetch).exited(1).says(&["differs from its manifest"]);
    assert!(!scenario.path("other.csv").exists());
}

#[test]
fn rows_are_copied_into_the_table_that_is_named_and_not_into_the_one_of_the_set() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE scripts AS SELECT i AS \"order\", md5(i::text) AS body FROM generate_series(1, 100) i");
    let scenario = with_set(server, &database);
    server.sql(&database, "DELETE FROM scripts; CREATE SCHEMA \"Old\"; CREATE TABLE \"Old\".\"of yesterday\" (LIKE scripts)");
    server.sql(&database, "CREATE TABLE scripts_of_yesterday (LIKE scripts)");
    let fetch = ["backups", "fetch", "latest", "--table", "scripts", "--output", "rows.sql", "--as"];
    for (name, table) in [
        ("public.scripts_of_yesterday", "scripts_of_yesterday"),
        ("scripts_of_yesterday", "scripts_of_yesterday"),
        ("\"Old\".\"of yesterday\"", "\"Old\".\"of yesterday\""),
    ] {
        scenario.run(&[&fetch[..], &[name]].concat()).succeeded().prints(&["100 rows of public.scripts"]);
        server.sql(&database, &format!("TRUNCATE {table}"));
        let mut psql = server.tool("psql", &database);
        let psql = psql.args(["-Xq1", "-v", "ON_ERROR_STOP=1", "-f"]).arg(scenario.path("rows.sql")).status();
        assert!(psql.unwrap().success(), "{name}");
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "100");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts"), "0", "{name}");
    }
    for name in ["a.b.c", "a b", "x FROM stdin; DROP TABLE scripts --", "", "a."] {
        scenario.run(&[&fetch[..], &[name]].concat()).exited(78).says(&["no table's name as in SQL"]);
    }
    scenario.run(&[&fetch[..], &["x", "--format", "csv"]].concat()).exited(78).says(&["CSV has none"]);
}

#[test]
fn links_are_followed_modes_kept_and_devices_and_pipes_stay_what_they_are() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 3) AS x");
    let scenario = with_set(server, &database);
    let rows = "x\n1\n2\n3\n";
    let fetch = |file: &str| scenario.run(&["backups", "fetch", "latest", "--table", "t", "--format", "csv", "--output", file]);
    let is_link = |name: &str| scenario.path(name).symlink_metadata().unwrap().is_symlink();

    std::fs::create_dir(scenario.path("elsewhere")).unwrap();
    std::fs::write(scenario.path("elsewhere/target"), "old").unwrap();
    std::fs::set_permissions(scenario.path("elsewhere/target"), std::fs::Permissions::from_mode(0o644)).unwrap();
    for (link, named) in [("link", "elsewhere/target"), ("link_to_link", "link"), ("dangling", "elsewhere/new")] {
        symlink(named, scenario.path(link)).unwrap();
        fetch(link).succeeded().prints(&["3 rows of public.t"]);
        assert!(is_link(link), "{link}");
        assert_eq!(std::fs::read_to_string(scenario.path(link)).unwrap(), rows, "{link}");
    }
    let mode = |name: &str| scenario.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("elsewhere/target"), mode("elsewhere/new")), (0o644, 0o600));
    assert_eq!(left_behind(&scenario.path("elsewhere")), Vec::<String>::new());

    symlink("/dev/null", scenario.path("null")).unwrap();
    fetch("null").succeeded();
    assert!(is_link("null") && Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
    symlink("/dev/full", scenario.path("full")).unwrap();
    fetch("full").exited(1).says(&["is not all of its rows: do not use it"]);

    assert!(Command::new("mkfifo").arg(scenario.path("fifo")).status().unwrap().success());
    let reader = Command::new("cat").arg(scenario.path("fifo")).stdout(std::process::Stdio::piped()).spawn().unwrap();
    fetch("fifo").succeeded();
    assert_eq!(String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap(), rows);
    assert!(scenario.path("fifo").metadata().unwrap().file_type().is_fifo());

    for name in ["-", "/dev/stdout"] {
        assert_eq!(fetch(name).succeeded().stdout, rows, "{name}");
        scenario.run(&["backups", "fetch", "latest", "--table", "t", "-o", name, "--json"]).exited(78).says(&["--output FILE"]);
    }
    assert!(!scenario.path("-").exists());
    fetch("elsewhere").exited(78).says(&["is a folder"]);
    symlink("loop", scenario.path("loop")).unwrap();
    fetch("loop").exited(1);
}

/// psql reads lines as C does: a row that begins with a zero byte is an empty line to it, and the rest of its buffer begins a new one.
#[test]
fn rows_that_psql_would_read_otherwise_do_not_come_out_of_a_set() {
    let server = server(15);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (a text); INSERT INTO t VALUES ('1')");
    let scenario = with_set(server, &database);
    let folder = scenario.path(&format!("store/{}", scenario.sets()[0]));
    let path = folder.join("manifest.json");
    let written = manifest::from_json(&std::fs::read(&path).unwrap()).unwrap();
    // After the row `1`, fgets reads 8189 bytes.
    let long: String = "\0".to_owned() + &"x".repeat(8192 - 4);
    let hostile = [
        format!("1\n{long}\\.\n\\! touch {}\n", scenario.path("ran").display()),
        "a\0b\n".to_owned(),
        "a\rb\n".to_owned(),
        "a\r\n".to_owned(),
        "a\\.\n".to_owned(),
        "\\.x\n".to_owned(),
        "a\\x41\n".to_owned(),
        "a\u{b}b\n".to_owned(),
        "a\u{8}\u{c}b\n".to_owned(),
    ];
    for (columns, rows) in hostile.iter().map(|rows| ("a", rows.as_str())).chain([("\"a\0\"", "1\n")]) {
        let block = format!("COPY public.t ({columns}) FROM stdin;\n{rows}\\.\n");
        let head = "--\n-- PostgreSQL database dump\n--\n\n";
        let dump = format!("{head}{block}\n--\n-- PostgreSQL database dump complete\n--\n\n");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, dump.as_bytes()).unwrap();
        let object = gzip.finish().unwrap();
        let mut forged = written.clone();
        (forged.format, forged.dump.blocks) = (1, None);
        (forged.dump.bytes, forged.dump.uncompressed_bytes) = (object.len() as u64, dump.len() as u64);
        forged.dump.sha256 = Sha256::digest(&object).iter().map(|byte| format!("{byte:02x}")).collect();
        (forged.dump.members.count, forged.dump.members.points) = (1, vec![[0, 0]]);
        let table = &mut forged.tables[0];
        (table.rows, table.offset, table.bytes) = (rows.matches('\n').count() as u64, head.len() as u64, block.len() as u64);
        std::fs::write(folder.join(&forged.dump.object), object).unwrap();
        std::fs::write(&path, manifest::to_json(&forged).unwrap()).unwrap();
        for format in ["sql", "csv"] {
            let fetch = ["backups", "fetch", "latest", "--table", "t", "--format", format, "--output", "rows"];
            scenario.run(&fetch).exited(1).says(&["that PostgreSQL does not write"]);
            assert!(!scenario.path("rows").exists(), "{rows:?} as {format}");
        }
    }
    // A whole restore and a check of the bytes refuse the zero byte, too.
    let copy = server.empty_database();
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy)]).exited(1).says(&["zero byte"]);
    scenario.run(&["backups", "verify", "latest"]).exited(1).says(&["zero byte"]);
}
