//! Sets in several stores: tests that try to lose data, by a store that is away, dies midway, is full or slow, and by copies that are stopped.

use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::backup_faults::{SMALL_PARTS, always, large_database};
use crate::support::postgres::{Server, server};
use crate::support::s3::{Fault, Rule, S3Server};
use crate::support::{Output, Scenario, eventually};

/// A job `nightly` into these stores.
fn job(stores: &[&str], keys: &str, more: &str) -> String {
    format!("database = \"app\"\n{keys}\n[backup]\nstore = {stores:?}\n{more}\n")
}

/// Two folders, `local` and `offsite`.
pub fn two_folders(server: &Server, database: &str, more: &str) -> Scenario {
    Scenario::with_database(server, database)
        .config("[stores.offsite]\npath = \"offsite\"\n")
        .job("nightly", &job(&["local", "offsite"], "", more))
}

/// The folder `local`, and a bucket whose uploads have several parts.
fn folder_and_bucket(server: &Server, database: &str, s3: &S3Server, keys: &str) -> Scenario {
    Scenario::with_database(server, database)
        .s3(s3)
        .config(SMALL_PARTS)
        .job("nightly", &job(&["local", "bucket"], keys, "keep = { last = 5 }"))
}

pub fn small_database(server: &Server) -> String {
    let name = server.new_database();
    server.sql(&name, "CREATE TABLE t AS SELECT i, md5(i::text) AS body FROM generate_series(1, 2000) i");
    name
}

/// The sets that are listed, each with its stores.
pub fn listed(scenario: &Scenario) -> Vec<(String, Vec<String>)> {
    let listed = scenario.json(&["backups", "list"]);
    let stores = |set: &Value| {
        let copies = set["copies"].as_array().unwrap().iter();
        copies.map(|copy| copy["store"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    listed["sets"].as_array().unwrap().iter().map(|set| (set["set"].as_str().unwrap().to_owned(), stores(set))).collect()
}

/// What is in one store: the names of sets, each with the verdict on its bytes.
pub fn in_store(scenario: &Scenario, store: &str) -> Vec<(String, String)> {
    let listed = scenario.json(&["backups", "list", "--store", store]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    listed["sets"].as_array().unwrap().iter().map(|set| (text(&set["set"]), text(&set["bytes"]))).collect()
}

/// Runs the job until the second has changed: each set has a name of its own anyway, and the times are in order.
pub fn run(scenario: &Scenario) -> Output {
    scenario.run(&["run-job", "nightly"])
}

#[test]
fn one_dump_is_written_to_every_store_of_its_job() {
    let server = server(18);
    let database = large_database(server);
    let counts = "echo run >> dumps; exec \"$real\" \"$@\"";
    let s3 = S3Server::start();
    let scenario = Scenario::with_tool(server, &database, "pg_dump", counts)
        .config("[stores.offsite]\npath = \"offsite\"\n")
        .s3(&s3)
        .config(SMALL_PARTS)
        .job("nightly", &job(&["local", "offsite", "bucket"], "", "keep = { last = 2 }"));
    run(&scenario).succeeded();
    assert_eq!(std::fs::read_to_string(scenario.path("dumps")).unwrap(), "run\n", "the database is read once");

    let sets = listed(&scenario);
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].1, ["local", "offsite", "bucket"], "the nearest first, as the job has them");
    for store in ["local", "offsite", "bucket"] {
        assert_eq!(in_store(&scenario, store), [(sets[0].0.clone(), "intact".to_owned())]);
    }
    assert_eq!(scenario.files("store"), scenario.files("offsite"));
    let dump = format!("{}/dump.sql.gz", sets[0].0);
    let bytes = std::fs::read(scenario.path(&format!("store/{dump}"))).unwrap();
    assert!(bytes == std::fs::read(scenario.path(&format!("offsite/{dump}"))).unwrap());
    assert!(bytes == std::fs::read(s3.file_of(&format!("test/{dump}"))).unwrap());
    scenario.run(&["backups", "list"]).succeeded().prints(&["local, offsite, bucket"]);

    let restored = server.empty_database();
    let mut psql = server.tool("psql", &restored);
    let dump = Command::new("gunzip").arg("-c").arg(scenario.path(&format!("offsite/{dump}"))).stdout(Stdio::piped()).spawn();
    let mut dump = dump.unwrap();
    let output = psql.args(["-Xq", "-v", "ON_ERROR_STOP=1"]).stdin(dump.stdout.take().unwrap()).output().unwrap();
    assert!(output.status.success() && dump.wait().unwrap().success(), "{output:?}");
    let rows = "SELECT count(*) FROM big";
    assert_eq!(server.sql(&restored, rows), server.sql(&database, rows));
}

#[test]
fn a_store_that_is_away_leaves_a_good_set_in_the_other_and_a_failed_run_that_names_both() {
    let server = server(18);
    let database = small_database(server);
    let s3 = S3Server::start();
    for stores in [["local", "bucket"], ["bucket", "local"]] {
        let scenario = Scenario::with_database(server, &database).s3(&s3).job("nightly", &job(&stores, "", ""));
        s3.break_with(always(Method::GET, "", Fault::InternalError));
        s3.break_with(always(Method::PUT, "", Fault::InternalError));
        let output = run(&scenario).says(&["is in local, and not in bucket", "pgtend backups copy app/nightly/", "--to bucket"]);
        assert_ne!(output.code, Some(0));
        assert_eq!(in_store(&scenario, "local").len(), 1);
        assert_eq!(in_store(&scenario, "local")[0].1, "intact");
        s3.heal();
        assert_eq!(in_store(&scenario, "bucket"), []);

        // The next run makes its own set, and copies the one that is missing.
        run(&scenario).succeeded().prints(&["copied 1 set that bucket lacked"]);
        let sets = listed(&scenario);
        assert_eq!(sets.len(), 2);
        for (set, mut of_set) in sets {
            of_set.sort();
            assert_eq!(of_set, ["bucket", "local"], "{set}");
        }
        run(&scenario).succeeded();
        assert_eq!(in_store(&scenario, "bucket").len(), 3);
        for object in s3.objects() {
            std::fs::remove_file(s3.file_of(&object)).unwrap();
        }
    }
}

#[test]
fn a_store_that_dies_in_mid_stream_does_not_take_the_good_set_with_it() {
    let server = server(18);
    let database = large_database(server);
    let s3 = S3Server::start();
    let scenario = folder_and_bucket(server, &database, &s3, "");
    s3.break_with(Rule { method: Method::PUT, contains: "partNumber", skip: 1, times: u32::MAX, fault: Fault::Reset });
    let output = run(&scenario).says(&["is in local, and not in bucket", "--to bucket"]);
    assert_ne!(output.code, Some(0));
    let set = in_store(&scenario, "local")[0].clone();
    assert_eq!(set.1, "intact");
    s3.heal();
    assert_eq!(in_store(&scenario, "bucket"), []);
    assert_eq!(s3.unfinished_uploads(), Vec::<String>::new());
    assert!(!s3.objects().iter().any(|object| object.contains("dump") || object.contains("manifest")), "{:?}", s3.objects());

    // By hand, as the message says.
    scenario.run(&["backups", "copy", &set.0, "--to", "bucket", "--dry-run"]).succeeded().prints(&["dump.sql.gz", "is sent"]);
    assert_eq!(in_store(&scenario, "bucket"), [], "a dry run copies nothing");
    scenario
        .run(&["backups", "copy", &set.0, "--to", "bucket"])
        .succeeded()
        .prints(&["is copied from local to bucket", "intact"]);
    assert_eq!(in_store(&scenario, "bucket"), std::slice::from_ref(&set));
    let again = scenario.json(&["backups", "copy", &set.0, "--to", "bucket"]);
    assert_eq!((&again["was_there"], &again["sent_bytes"]), (&Value::Bool(true), &Value::from(0)));
    scenario.run(&["backups", "verify", &set.0, "--store", "bucket"]).succeeded();
}

#[test]
fn the_nearest_store_may_be_the_one_that_dies_in_mid_stream() {
    let server = server(18);
    let database = large_database(server);
    let s3 = S3Server::start();
    let scenario = folder_and_bucket(server, &database, &s3, "").job("nightly", &job(&["bucket", "local"], "", ""));
    s3.break_with(Rule { method: Method::PUT, contains: "partNumber", skip: 1, times: u32::MAX, fault: Fault::InternalError });
    assert_ne!(run(&scenario).says(&["is in local, and not in bucket"]).code, Some(0));
    s3.heal();
    assert_eq!(in_store(&scenario, "local")[0].1, "intact");
    scenario.run(&["backups", "restore", "latest", "--create", "--into", &server.url(&format!("{database}_r"))]).succeeded();
}

#[test]
fn a_store_that_is_slow_is_left_out_before_the_jobs_timeout_takes_the_good_set() {
    let server = server(18);
    let database = large_database(server);
    let s3 = S3Server::start();
    let scenario = folder_and_bucket(server, &database, &s3, "timeout = \"24s\"");
    s3.break_with(always(Method::PUT, "partNumber", Fault::Slow(Duration::from_secs(100))));
    let output = run(&scenario).says(&["is in local, and not in bucket", "the other stores had to wait"]);
    assert_ne!(output.code, Some(0));
    assert_eq!(in_store(&scenario, "local")[0].1, "intact");
    s3.heal();
    assert_eq!(in_store(&scenario, "bucket"), []);
}

#[test]
fn a_full_store_leaves_the_set_in_the_other() {
    let server = server(18);
    let database = large_database(server);
    let scenario = two_folders(server, &database, "");
    std::fs::create_dir(scenario.path("offsite")).unwrap();
    let output = scenario.in_mount_namespace(
        "mount -t tmpfs -o size=4m none offsite && { $pgtend run-job nightly; code=$?; find offsite -type f -not -name '.pgtend*'; exit $code; }",
    );
    let output = output.exited(1).says(&["is in local, and not in offsite", "is full"]);
    assert!(!output.stdout.contains("offsite/app"), "nothing is left on the full disk: {}", output.stdout);
    assert_eq!(in_store(&scenario, "local")[0].1, "intact");
}

#[test]
fn no_store_that_takes_the_dump_is_an_error_and_leaves_nothing() {
    let server = server(18);
    let database = large_database(server);
    let (s3, other) = (S3Server::start(), S3Server::start());
    let scenario = Scenario::with_database(server, &database)
        .s3(&s3)
        .config(SMALL_PARTS)
        .config(&format!(
            "[stores.other]\nbucket = \"backups\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\n{SMALL_PARTS}",
            other.endpoint()
        ))
        .job("nightly", &job(&["bucket", "other"], "", ""));
    for server in [&s3, &other] {
        server.break_with(Rule {
            method: Method::PUT,
            contains: "partNumber",
            skip: 1,
            times: u32::MAX,
            fault: Fault::InternalError,
        });
    }
    assert_ne!(run(&scenario).says(&["no store took the set"]).code, Some(0));
    for server in [&s3, &other] {
        server.heal();
        assert_eq!(server.unfinished_uploads(), Vec::<String>::new());
    }
    assert_eq!(listed(&scenario), []);
}

#[test]
fn a_copy_that_is_killed_makes_no_set_and_the_next_one_sends_only_what_is_missing() {
    let server = server(18);
    let database = large_database(server);
    let s3 = S3Server::start();
    let scenario = folder_and_bucket(server, &database, &s3, "").job("nightly", &job(&["local"], "", ""));
    run(&scenario).succeeded();
    let set = in_store(&scenario, "local")[0].0.clone();
    let is_there = |object: &str| s3.objects().iter().any(|key| key.ends_with(object));

    // In the middle of the dump.
    s3.break_with(Rule {
        method: Method::PUT,
        contains: "partNumber",
        skip: 1,
        times: u32::MAX,
        fault: Fault::Slow(Duration::from_secs(60)),
    });
    let copying = scenario.start(&["backups", "copy", &set, "--to", "bucket"]);
    eventually("the upload has begun", || !s3.unfinished_uploads().is_empty());
    copying.kill();
    s3.heal();
    assert_eq!(in_store(&scenario, "bucket"), []);

    // Between the dump and the manifest.
    s3.break_with(always(Method::PUT, "globals", Fault::Slow(Duration::from_secs(60))));
    let copying = scenario.start(&["backups", "copy", &set, "--to", "bucket"]);
    eventually("the dump is there", || is_there("dump.sql.gz"));
    copying.kill();
    s3.heal();
    assert_eq!(in_store(&scenario, "bucket"), []);
    scenario.run(&["backups", "copy", &set, "--to", "bucket", "--dry-run"]).succeeded().prints(&["dump.sql.gz", "is there"]);
    let copied = scenario.json(&["backups", "copy", &set, "--to", "bucket"]);
    assert_eq!(copied["kept_objects"], serde_json::json!(["dump.sql.gz"]));
    assert!(copied["sent_bytes"].as_u64().unwrap() < 100_000, "{copied}");
    assert_eq!(in_store(&scenario, "bucket"), [(set, "intact".to_owned())]);
}

#[test]
fn bytes_that_somebody_else_left_under_a_copys_name_are_not_taken_for_it() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "").job("nightly", &job(&["local"], "", ""));
    run(&scenario).succeeded();
    let set = in_store(&scenario, "local")[0].0.clone();
    let length = std::fs::metadata(scenario.path(&format!("store/{set}/dump.sql.gz"))).unwrap().len();
    let theirs = scenario.path(&format!("offsite/{set}"));
    std::fs::create_dir_all(&theirs).unwrap();
    std::fs::write(theirs.join("dump.sql.gz"), vec![7; length as usize]).unwrap();
    scenario.run(&["backups", "copy", &set, "--to", "offsite"]).exited(78).says(&["is not copied to offsite", "stays as it is"]);
    assert_eq!(std::fs::read(theirs.join("dump.sql.gz")).unwrap(), vec![7; length as usize]);

    // With the marker of that run, they are what an interrupted copy left: of the right length, and wrong.
    std::fs::copy(scenario.path(&format!("store/{set}/run.json")), theirs.join("run.json")).unwrap();
    let copied = scenario.json(&["backups", "copy", &set, "--to", "offsite"]);
    assert_eq!(copied["kept_objects"], serde_json::json!([]));
    assert_eq!(in_store(&scenario, "offsite"), [(set, "intact".to_owned())]);
}
