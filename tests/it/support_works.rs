//! The servers that other tests stand on are what they are said to be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::moto::Moto;
use crate::support::postgres::{MAJORS, Server, server, taken_over};
use crate::support::tls::TlsServer;
use crate::support::{Scenario, ends_with_tests, eventually, stores};

#[test]
fn every_supported_version_is_there() {
    for major in MAJORS {
        let version: u32 = server(major).sql("postgres", "SHOW server_version_num").parse().unwrap();
        assert_eq!(version / 10_000, major);
    }
}

#[test]
fn a_backup_over_tls_with_a_client_certificate_is_made_verified_and_restored() {
    let tls = TlsServer::start();
    let server = &tls.server;
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 7) x");
    let scenario = Scenario::with_url(server, &tls.verified_url(&database)).backup_job("local", "verify = \"restore\"");
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded().prints(&["1 table, 7 rows"]);
    let into = tls.verified_url(&format!("{database}_copy"));
    scenario.run(&["backups", "restore", "latest", "--into", &into, "--create"]).succeeded();
    assert_eq!(server.sql(&format!("{database}_copy"), "SELECT count(*) FROM t"), "7");

    let without_certificate = format!("sslmode=verify-full&sslrootcert={}", tls.file("ca.crt").display());
    for (refused, code, says) in [
        (tls.verified_url(&database).replace("@localhost:", "@[::1]:"), 78, "not valid for name"),
        (tls.verified_url(&database).replace("/ca.crt", "/other_ca.crt"), 78, "certificate"),
        (tls.url("by_certificate", "localhost", &database, &without_certificate), 77, "certificate"),
        (tls.url("postgres", "localhost", &database, "sslmode=disable"), 77, "no encryption"),
    ] {
        Scenario::with_url(server, &refused).backup_job("local", "").run(&["run-job", "nightly"]).exited(code).says(&[says]);
    }
}

#[test]
fn a_standby_follows_its_primary_over_a_restart_and_is_a_server_when_promoted() {
    let primary = Server::start_with(18, &["wal_level=logical"]);
    primary.sql("postgres", "CREATE TABLE t AS SELECT 1 x");
    let mut standby = primary.standby();
    standby.catches_up(&primary);
    assert_eq!(standby.sql("postgres", "SELECT count(*) FROM t"), "1");
    assert_eq!(primary.sql("postgres", "SHOW wal_level"), "logical");
    assert!(standby.psql("postgres", "INSERT INTO t VALUES (2)").unwrap_err().contains("read-only"));
    standby.crash();
    primary.sql("postgres", "INSERT INTO t VALUES (2)");
    standby.start_again();
    standby.catches_up(&primary);
    assert_eq!(standby.sql("postgres", "SELECT count(*) FROM t"), "2");
    standby.promote();
    standby.sql("postgres", "INSERT INTO t VALUES (3)");
}

#[test]
fn a_backup_in_moto_is_restored_and_a_locked_bucket_keeps_what_is_deleted() {
    let (server, moto) = (server(17), Moto::start());
    moto.create_bucket("plain");
    moto.create_versioned_bucket("versioned");
    moto.create_locked_bucket("locked", 1);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 7) x");
    for bucket in ["plain", "versioned"] {
        let scenario = Scenario::with_database(server, &database).moto(&moto, bucket).backup_job("bucket", "keep = { last = 1 }");
        scenario.run(&["run-job", "nightly"]).succeeded();
        scenario.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(moto.unfinished_uploads(bucket), [""; 0]);
        assert_eq!(moto.objects(bucket).iter().filter(|key| key.ends_with("manifest.json")).count(), 1);
        let copy = format!("{database}_{bucket}");
        scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
        assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "7");
    }
    let manifests = |bucket| moto.versions(bucket).matches("manifest.json</Key>").count();
    assert_eq!(manifests("plain"), 1);
    assert!(manifests("versioned") > 1);
    // It wants a checksum, and deletes no version.
    let (status, _) = moto.try_ask("PUT", "locked/x", "", "kept");
    assert_eq!(status, 400);
    moto.ask("PUT", "locked/x", "Content-MD5: TYtghPPRZ7dsrGaiKpG+Ag==\r\n", "kept");
    let version = moto.versions("locked").split("<VersionId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let (status, _) = moto.try_ask("DELETE", &format!("locked/x?versionId={version}"), "", "");
    assert_eq!(status, 403);
    assert!(moto.versions("locked").contains(&version));
}

#[test]
fn what_an_owner_takes_over_is_found_in_the_log_of_the_server() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(&database, include_str!("fixtures/hostile.sql"));
    assert_eq!(taken_over(&server.logged(), &database, "one"), "");
    server.sql(&database, "SET search_path = hostile, pg_catalog; SELECT quote_ident('x'::text)");
    let said = taken_over(&server.logged(), &database, "one");
    assert!(said.starts_with("one: ") && said.contains("quote_ident ran as postgres"), "{said}");
    assert_eq!(taken_over(&server.logged(), &database[..database.len() - 1], "another"), "");
}

/// Set in a process of tests that another one kills: the file into which it writes what it has started.
const STARTED: &str = "PGTEND_TEST_STARTED";

#[test]
fn what_a_killed_test_process_has_started_ends_with_it() {
    if let Some(file) = std::env::var_os(STARTED) {
        return start_and_wait(Path::new(&file));
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("started");
    let name = "support_works::what_a_killed_test_process_has_started_ends_with_it";
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(STARTED, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the other process has started them", || file.exists());
    let started = std::fs::read_to_string(&file).unwrap();
    tests.kill().unwrap();
    tests.wait().unwrap();
    let mut started: Vec<PathBuf> = started.lines().map(PathBuf::from).collect();
    assert_eq!(started.len(), 6);
    eventually("all of it has ended", || {
        started.retain(|path| path.exists());
        started.is_empty()
    });
}

/// Starts a server, a run, a session and a program, and writes down their processes and folders.
fn start_and_wait(file: &Path) {
    let server = Server::start(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(&server, &database).sql_job("sleeps", "", &["SELECT pg_sleep(600)"]);
    let running = scenario.start(&["run-job", "sleeps"]);
    eventually("the run sleeps", || server.sleeps(&database));
    let psql = server.tool("psql", &database).args(["-Xqc", "SELECT pg_sleep(600)"]).spawn().unwrap();
    let pid_file = std::fs::read_to_string(server.path("data/postmaster.pid")).unwrap();
    // This one does not end with the server.
    let sleep = ends_with_tests(Command::new("sleep").arg("600")).spawn().unwrap();
    let processes =
        [running.pid().to_string(), psql.id().to_string(), sleep.id().to_string(), pid_file.lines().next().unwrap().to_owned()];
    let processes = processes.map(|pid| format!("/proc/{pid}"));
    let folders = [scenario.path(""), server.path("")].map(|path| path.display().to_string());
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, [&processes[..], &folders[..]].concat().join("\n")).unwrap();
    std::fs::rename(unfinished, file).unwrap();
    for mut child in [psql, sleep] {
        child.wait().unwrap();
    }
}

#[test]
fn tests_that_are_left_out_on_other_stores_exist_and_have_a_reason() {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stores-skipped.txt");
    for line in std::fs::read_to_string(list).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (mode, test, reason) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        assert!(["encrypted", "twice"].contains(&mode) && reason.len() > 10, "{line}");
        let (module, name) = test.rsplit_once("::").unwrap();
        let file = format!("{}/tests/it/{}.rs", env!("CARGO_MANIFEST_DIR"), module.replace("::", "/"));
        assert!(std::fs::read_to_string(file).unwrap().contains(&format!("fn {name}()")), "there is no test {test}");
    }
}

#[test]
fn a_scenario_on_two_encrypted_stores_has_keys_and_a_second_store_with_rules_of_its_own() {
    stores::on_two_encrypted_stores(|| {
        let scenario = Scenario::empty()
            .config("[databases.app]\nurl = 'postgres://localhost/x'\n[stores.local]\npath = \"store\"\n")
            .backup_job("local", "keep = { last = 2 }");
        scenario.run(&["check"]).succeeded();
        let text = |file: &str| std::fs::read_to_string(scenario.path(file)).unwrap();
        assert_eq!(text("config.toml").matches("encrypt_to = [\"age1").count(), 2);
        let job = text("jobs/nightly.toml");
        assert!(job.contains("store = [\"local\", \"second\"]") && job.contains("keep_in.second = { last = 2 }"), "{job}");
    });
    let text = "[stores.local]\n";
    assert_eq!(stores::Stores::default().config(Path::new("/"), text), text);
}
