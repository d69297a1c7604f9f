//! Backups that break. Each time: a clear error, the right exit code, no set that can't be restored, and nothing
//! left behind after the next run.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use hyper::Method;
use rustix::process::Signal;

use crate::support::postgres::{Server, server};
use crate::support::s3::{Fault, Rule, S3Server};
use crate::support::{Scenario, eventually, quoted};

/// About 25 MB of dump that compresses to about 14: several parts of an upload.
pub fn large_database(server: &Server) -> String {
    let name = server.new_database();
    server.sql(&name, "CREATE TABLE big AS SELECT i, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) AS body FROM generate_series(1, 240000) i");
    name
}

/// Parts of 5 MiB, so that a test's dump has several.
pub const SMALL_PARTS: &str = "parts_in_flight = 1\nupload_memory = \"10MiB\"\n";

impl Scenario {
    /// Client tools in a folder of the scenario: scripts that call the real ones, with `script` in place of `tool`.
    /// In it, `$real` is the real tool.
    pub fn with_tool(server: &Server, database: &str, tool: &str, script: &str) -> Self {
        let scenario = Scenario::empty().config(&format!(
            "[databases.app]\nurl = {}\n[stores.local]\npath = \"store\"\n[tools]\nbin_dir = \"bin\"\n",
            quoted(&server.url(database))
        ));
        let bin = scenario.path("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["pg_dump", "pg_dumpall", "psql"] {
            let real = server.bin_dir.join(name);
            let body = if name == tool { script } else { "exec \"$real\" \"$@\"" };
            let text =
                format!("#!/bin/bash\nreal='{}'\n[ \"$1\" = --version ] && exec \"$real\" \"$@\"\n{body}\n", real.display());
            std::fs::write(bin.join(name), text).unwrap();
            std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        scenario
    }

    /// From now on the real tool.
    fn heal_tool(&self, server: &Server, tool: &str) {
        let real = server.bin_dir.join(tool);
        std::fs::write(self.path(&format!("bin/{tool}")), format!("#!/bin/sh\nexec '{}' \"$@\"\n", real.display())).unwrap();
    }

    /// The next run works, and leaves its set and nothing else.
    #[track_caller]
    fn next_run_is_clean(&self) {
        self.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(self.sets().len(), 1);
        let (dump, globals) = (self.object("dump.sql.gz"), self.object("globals.sql.gz"));
        for store in self.stores_of("store") {
            let files = self.files(store);
            let names: Vec<&str> = files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
            assert_eq!(names, [&*dump, &*globals, "manifest.json", "run.json", "verification.json"], "{store}: {files:?}");
        }
        self.run(&["backups", "verify", "latest"]).succeeded();
    }

    #[track_caller]
    fn has_nothing(&self) {
        assert_eq!(self.sets(), Vec::<String>::new());
        for store in self.stores_of("store") {
            assert_eq!(self.files(store), Vec::<String>::new(), "{store}");
        }
    }
}

/// Writes half of the dump, says so in a file, and goes on after some seconds.
const PAUSES: &str = "set -o pipefail; \"$real\" \"$@\" | { head -c 18000000; touch paused; sleep 20; cat; }";

fn paused(scenario: &Scenario) {
    let flag = scenario.path("paused");
    eventually("the tool pauses", || flag.exists());
}

#[test]
fn a_wrong_password_exits_with_77_and_says_who_was_refused() {
    let server = Server::start(16);
    server.sql("postgres", "CREATE ROLE secretive LOGIN PASSWORD 'right'");
    let hba = server.socket().parent().unwrap().join("data/pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("local all secretive scram-sha-256\n{rules}")).unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()");

    let url = server.url_as("secretive", "postgres");
    let scenario = |password: &str| Scenario::with_url(&server, &url).backup_job("local", "").env("PGPASSWORD", password);
    eventually("the rules are loaded", || scenario("wrong").run(&["run-job", "nightly"]).code == Some(77));
    let refused = scenario("wrong");
    refused.run(&["run-job", "nightly"]).exited(77).says(&["password authentication failed", "secretive"]);
    refused.has_nothing();
    scenario("right").run(&["run-job", "nightly"]).succeeded();

    // A password that nobody gave is not a wrong one.
    let without = Scenario::with_url(&server, &url).backup_job("local", "");
    without.run(&["run-job", "nightly"]).exited(77).says(&["none was given", "PGPASSWORD", "secretive"]);
    let wrong = refused.run(&["run-job", "nightly"]);
    assert!(!wrong.stderr.contains("none was given"), "{}", wrong.stderr);
}

#[test]
fn a_missing_database_exits_with_78() {
    let scenario = Scenario::with_database(server(18), "no_such_database").backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).exited(78).says(&["no_such_database", "does not exist"]);
    scenario.has_nothing();
}

#[test]
fn a_table_that_may_not_be_read_exits_with_77_and_is_named() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE ROLE half_blind LOGIN; CREATE TABLE open (x int); GRANT SELECT ON open TO half_blind; CREATE TABLE \"clo\"\"sed\" (x int)");
    let scenario = Scenario::with_url(server, &server.url_as("half_blind", &database)).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["permission denied for table clo\"sed", "pg_read_all_data"]);
    scenario.has_nothing();
    scenario.run(&["check", "--connect"]).exited(77).prints(&["clo\"\"sed"]);
    server.sql(&database, "GRANT pg_read_all_data TO half_blind");
    scenario.next_run_is_clean();
}

#[test]
pub fn a_pg_dump_that_dies_midway_makes_no_set() {
    let server = server(18);
    let database = large_database(server);
    let scenario = Scenario::with_tool(server, &database, "pg_dump", "\"$real\" \"$@\" | head -c 9000000; kill -9 $$")
        .backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["pg_dump failed", "signal: 9"]);
    scenario.has_nothing();
    scenario.heal_tool(server, "pg_dump");
    scenario.next_run_is_clean();
}

#[test]
pub fn a_pg_dump_that_is_cut_short_and_claims_success_makes_no_set() {
    let server = server(18);
    let database = large_database(server);
    // As when the exit code is lost in a pipeline; then at the end of a line, and with nothing at all.
    for script in ["\"$real\" \"$@\" | head -c 9000000; exit 0", "\"$real\" \"$@\" | head -n 1000; exit 0", "exit 0"] {
        let scenario = Scenario::with_tool(server, &database, "pg_dump", script).backup_job("local", "");
        scenario.run(&["run-job", "nightly"]).exited(1).says(&["last line of a complete dump is missing"]);
        scenario.has_nothing();
    }
}

#[test]
fn a_pg_dump_that_fails_after_its_last_line_makes_no_set() {
    let server = server(18);
    let database = server.new_database();
    let scenario =
        Scenario::with_tool(server, &database, "pg_dump", "\"$real\" \"$@\"; echo 'pg_dump: error: something' >&2; exit 1")
            .backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["pg_dump: error: something"]);
    scenario.has_nothing();
}

#[test]
pub fn a_server_that_stops_midway_exits_with_69_and_makes_no_set() {
    let mut server = Server::start(18);
    let database = large_database(&server);
    let waits = "for i in $(seq 600); do [ -e go ] && break; sleep 0.1; done";
    let script = format!("set -o pipefail; \"$real\" \"$@\" | {{ head -c 9000000; touch paused; {waits}; cat; }}");
    let scenario = Scenario::with_tool(&server, &database, "pg_dump", &script).backup_job("local", "");
    let running = scenario.start(&["run-job", "nightly"]);
    paused(&scenario);
    server.stop_immediately();
    std::fs::write(scenario.path("go"), "").unwrap();
    // Whoever notices first: pg_dump, or the look at the run's lock.
    let said = running.wait().exited(69).stderr;
    assert!(said.contains("server closed the connection") || said.contains("its lock was lost"), "{said}");
    scenario.has_nothing();
}

#[test]
pub fn pgtend_killed_midway_leaves_no_set_and_the_next_run_cleans_up() {
    let server = server(18);
    let database = large_database(server);
    let scenario = Scenario::with_tool(server, &database, "pg_dump", PAUSES).backup_job("local", "");
    let running = scenario.start(&["run-job", "nightly"]);
    paused(&scenario);
    running.kill();
    assert_eq!(scenario.sets(), Vec::<String>::new());
    let left = scenario.files("store");
    assert!(left.iter().all(|file| file.ends_with(".partial") || file.ends_with("/run.json")), "{left:?}");
    scenario.heal_tool(server, "pg_dump");
    eventually("the lock of the killed run is gone", || {
        scenario.run(&["run-job", "nightly", "--dry-run"]).code == Some(0) && lock_is_free(server, &database)
    });
    scenario.next_run_is_clean();
}

#[test]
fn what_a_process_that_was_killed_while_it_wrote_its_lock_left_is_swept_after_a_day() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &server.new_database()).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let random = "0123456789abcdef0123456789abcdef";
    let of_yesterday = [
        format!(".lock.json.{random}.partial"),
        format!(".lock.json.now.{random}.partial"),
        ".lock.json.mine.partial".to_owned(),
    ];
    let of_now = format!(".lock.json.{}.partial", random.replace('0', "f"));
    for file in of_yesterday.iter().chain([&of_now]) {
        std::fs::write(scenario.path(&format!("store/app/nightly/{file}")), "{").unwrap();
    }
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    for file in &of_yesterday {
        let file = std::fs::File::options().write(true).open(scenario.path(&format!("store/app/nightly/{file}"))).unwrap();
        file.set_modified(yesterday).unwrap();
    }
    scenario.run(&["run-job", "nightly"]).succeeded();
    let left: Vec<_> = scenario.files("store").into_iter().filter(|file| file.ends_with(".partial")).collect();
    assert_eq!(
        left,
        [format!("app/nightly/{of_now}"), "app/nightly/.lock.json.mine.partial".to_owned()],
        "a young one, and a user's file"
    );
}

#[test]
fn a_file_that_is_dated_ahead_makes_nothing_of_another_host_old_enough_to_be_swept() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &server.new_database()).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let (dump, globals) = (scenario.object("dump.sql.gz"), scenario.object("globals.sql.gz"));
    let file = |name: &str| scenario.path(&format!("store/{set}/{name}"));
    let other = scenario.path("store/app/nightly/2026-11-01T01-00-00Z");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(file(&dump), other.join(&dump)).unwrap();
    let mut marker: serde_json::Value = serde_json::from_slice(&std::fs::read(file("run.json")).unwrap()).unwrap();
    marker["process"]["host"] = "another".into();
    marker.as_object_mut().unwrap().remove("completed_at");
    std::fs::write(other.join("run.json"), marker.to_string()).unwrap();
    let ahead = SystemTime::now() + Duration::from_secs(3 * 24 * 3600);
    std::fs::File::options().write(true).open(file(&globals)).unwrap().set_modified(ahead).unwrap();

    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(other.join(&dump).exists() && other.join("run.json").exists(), "it may be at work");
    // What is old in fact is swept although that file is there.
    for name in [&*dump, "run.json"] {
        let file = std::fs::File::options().write(true).open(other.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(25 * 3600)).unwrap();
    }
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!other.join(&dump).exists());
}

#[test]
pub fn pgtend_killed_midway_leaves_an_upload_that_the_next_run_aborts() {
    let (server, s3) = (server(18), S3Server::start());
    let database = large_database(server);
    let scenario = Scenario::with_tool(server, &database, "pg_dump", PAUSES).s3(&s3).config(SMALL_PARTS).backup_job("bucket", "");
    let running = scenario.start(&["run-job", "nightly"]);
    paused(&scenario);
    eventually("an upload has started", || !s3.unfinished_uploads().is_empty());
    running.kill();
    assert_eq!((scenario.sets().len(), s3.objects().len()), (0, 1), "it said that it was at work there");
    scenario.heal_tool(server, "pg_dump");
    eventually("the lock of the killed run is gone", || lock_is_free(server, &database));
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(s3.unfinished_uploads(), Vec::<String>::new());
    assert_eq!((scenario.sets().len(), s3.objects().len()), (1, 5));
}

fn lock_is_free(server: &Server, database: &str) -> bool {
    server.sql(database, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "0"
}

#[test]
pub fn a_signal_stops_a_run_cleanly_with_143() {
    for signal in [Signal::TERM, Signal::INT] {
        let (server, s3) = (server(18), S3Server::start());
        let database = large_database(server);
        let scenario =
            Scenario::with_tool(server, &database, "pg_dump", PAUSES).s3(&s3).config(SMALL_PARTS).backup_job("bucket", "");
        let running = scenario.start(&["run-job", "nightly"]);
        paused(&scenario);
        eventually("an upload has started", || !s3.unfinished_uploads().is_empty());
        running.signal(signal);
        running.wait().exited(143).says(&["cancelled"]);
        assert_eq!((s3.unfinished_uploads().len(), s3.objects().len()), (0, 0));
        eventually("pg_dump is gone", || {
            server.sql(
                &database,
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            ) == "0"
        });
    }
}

#[test]
fn a_run_over_its_timeout_is_stopped_and_says_so() {
    let server = server(18);
    let database = large_database(server);
    let scenario = Scenario::with_tool(server, &database, "pg_dump", PAUSES)
        .job("nightly", "database = \"app\"\ntimeout = \"2s\"\n[backup]\nstore = \"local\"\n");
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["timed out", "the job's timeout of 2s passed"]);
    scenario.has_nothing();
}

#[test]
fn a_locked_table_fails_after_lock_wait_timeout_with_a_hint() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (x int)");
    let mut holder = server
        .tool("psql", &database)
        .args(["-Xq", "-c", "BEGIN; LOCK TABLE t; SELECT pg_sleep(20)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the table is locked", || {
        server.sql(
            &database,
            "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 't'::regclass AND granted",
        ) == "1"
    });
    let scenario = Scenario::with_database(server, &database).backup_job("local", "lock_wait_timeout = \"500ms\"");
    scenario.run(&["run-job", "nightly"]).exited(1).says(&[
        "LOCK TABLE public.t",
        "public.t is locked by server process",
        "postgres, psql, active, since",
        "raise lock_wait_timeout (500ms)",
    ]);
    scenario.has_nothing();
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_full_disk_makes_no_set_and_leaves_nothing_on_it() {
    let server = server(18);
    let database = large_database(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    std::fs::create_dir(scenario.path("store")).unwrap();
    let output = scenario.in_mount_namespace(
        "mount -t tmpfs -o size=4m none store && { $pgtend run-job nightly; code=$?; find store -type f -not -name '.pgtend*'; exit $code; }",
    );
    let output = output.exited(1).says(&["the disk of", "is full"]);
    assert_eq!(output.stdout, "", "no file is left but for the store's marker");
}

#[test]
fn a_missing_bucket_exits_with_78_before_the_dump() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    std::fs::remove_dir(s3.file_of("")).unwrap();
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).exited(78).says(&["there is no bucket `backups`"]);
    scenario.run(&["check", "--connect"]).exited(78).prints(&["there is no bucket `backups`"]);
}

#[test]
fn wrong_s3_credentials_exit_with_77() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    let scenario = scenario.env("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-the-tests");
    let output = scenario.run(&["run-job", "nightly"]).exited(77).says(&["refuses the credentials", "SignatureDoesNotMatch"]);
    assert!(!output.stderr.contains("not-the-secret"));
}

pub fn always(method: Method, contains: &'static str, fault: Fault) -> Rule {
    Rule { method, contains, skip: 0, times: u32::MAX, fault }
}

#[test]
fn an_object_store_that_fails_for_good_makes_no_set_and_leaves_no_parts() {
    let server = server(18);
    let database = large_database(server);
    let s3 = S3Server::start();
    let scenario = Scenario::with_database(server, &database).s3(&s3).config(SMALL_PARTS).backup_job("bucket", "");
    for (rule, says) in [
        (always(Method::PUT, "partNumber=2", Fault::InternalError), "cannot upload part 2"),
        (always(Method::PUT, "partNumber=1", Fault::Reset), "cannot upload part 1"),
        (always(Method::POST, "uploadId", Fault::ErrorInside200), "cannot complete the upload"),
        (always(Method::PUT, "manifest.json", Fault::InternalError), "manifest.json"),
    ] {
        s3.heal();
        s3.break_with(rule);
        scenario.run(&["run-job", "nightly"]).exited(69).says(&[says]);
        s3.heal();
        assert_eq!(scenario.sets(), Vec::<String>::new(), "{says}");
        assert_eq!((s3.unfinished_uploads().len(), s3.objects()), (0, vec![]), "{says}");
    }
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn an_abort_that_fails_with_the_network_is_made_up_for_by_the_next_run() {
    let (server, s3) = (server(18), S3Server::start());
    let database = large_database(server);
    let scenario = Scenario::with_database(server, &database).s3(&s3).config(SMALL_PARTS).backup_job("bucket", "");
    s3.break_with(always(Method::PUT, "partNumber=2", Fault::InternalError));
    s3.break_with(always(Method::DELETE, "uploadId", Fault::InternalError));
    scenario.run(&["run-job", "nightly"]).exited(69).says(&["stays until the next run"]);
    assert_eq!(s3.unfinished_uploads().len(), 1);
    s3.heal();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!((s3.unfinished_uploads().len(), scenario.sets().len()), (0, 1));
}

#[test]
fn slow_answers_within_the_timeout_are_waited_for() {
    let (server, s3) = (server(18), S3Server::start());
    let database = large_database(server);
    let scenario = Scenario::with_database(server, &database).s3(&s3).config(SMALL_PARTS).backup_job("bucket", "");
    s3.break_with(Rule {
        method: Method::PUT,
        contains: "partNumber",
        skip: 0,
        times: 2,
        fault: Fault::Slow(Duration::from_millis(700)),
    });
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}

#[test]
fn a_scratch_database_of_a_killed_verification_is_dropped_by_the_next_run() {
    let server = server(18);
    let database = server.new_database();
    // Its restore waits in an index: the killed verification is under way.
    server.sql(
        &database,
        "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
         $$BEGIN IF current_database() LIKE 'pgtend_verify%' THEN PERFORM pg_sleep(20); END IF; RETURN $1; END$$; \
         CREATE TABLE t AS SELECT 1 AS i; CREATE INDEX waits ON t (slow(i))",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    // Not the scratch database of another test.
    let scratch = |server: &Server| -> Vec<String> {
        let tables = "SELECT datname FROM pg_database WHERE datname LIKE 'pgtend_verify_%'";
        server.sql("postgres", tables).lines().map(str::to_owned).collect()
    };
    let before = scratch(server);
    let running = scenario.start(&["run-job", "nightly"]);
    let ours = || -> Vec<String> { scratch(server).into_iter().filter(|name| !before.contains(name)).collect() };
    eventually("the restore waits", || ours().iter().any(|name| server.sleeps(name)));
    let ours = ours();
    running.kill();
    let planned = |scenario: &Scenario| scenario.run(&["run-job", "nightly", "--dry-run"]).stdout;
    server.sql(&database, "DROP INDEX waits");
    eventually("its sessions have ended", || {
        planned(&scenario).contains("1 scratch database") && lock_is_free(server, &database)
    });
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "unknown");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!planned(&scenario).contains("1 scratch database"));
    assert!(ours.iter().any(|name| !scratch(server).contains(name)));
}

#[test]
fn a_database_that_only_looks_like_scratch_is_left_alone() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let plan = scenario.json(&["run-job", "nightly", "--dry-run"]);
    assert_eq!(plan["runs"][0]["plan"]["sweep"]["scratch_databases"].as_array().unwrap().len(), 0);
    let text = scenario.run(&["run-job", "nightly", "--dry-run"]).stdout;
    let name = text.split("scratch database ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    // Not a number that a second of today has: the run's own database would be refused.
    let lookalike = format!("{}_1", name.rsplit_once('_').unwrap().0);
    server.sql("postgres", &format!("CREATE DATABASE {lookalike}"));
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(server.sql("postgres", &format!("SELECT count(*) FROM pg_database WHERE datname = '{lookalike}'")), "1");
}

#[test]
fn a_pg_dump_that_runs_code_of_owners_is_named_with_its_update() {
    let server = server(15);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (x int)");
    let scenario = Scenario::with_tool(server, &database, "psql", "exec \"$real\" \"$@\"").backup_job("local", "");
    assert!(!scenario.run(&["run-job", "nightly"]).succeeded().stderr.contains("CVE"));
    let pg_dump = std::fs::read_to_string(scenario.path("bin/pg_dump")).unwrap();
    let older = "[ \"$1\" = --version ] && echo 'pg_dump (PostgreSQL) 15.7 (Debian 15.7-0+deb12u1)' && exit";
    std::fs::write(scenario.path("bin/pg_dump"), pg_dump.replacen('\n', &format!("\n{older}\n"), 1)).unwrap();
    let says = "pg_dump (PostgreSQL) 15.7 (Debian 15.7-0+deb12u1) lets an owner";
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&[says, "CVE-2024-7348", "update to 15.8 or newer"]);
}
