//! Sets in storage classes whose objects must be thawed before they can be read.

use crate::support::Scenario;
use crate::support::moto::Moto;
use crate::support::postgres::{Server, server};

/// moto looks whether there is a signature, and not which.
const SIGNED: &str = "Authorization: AWS somebody:signature\r\n";

fn with_rows(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    database
}

/// What a lifecycle rule does after some days.
fn archive(moto: &Moto, set: &str, objects: &[&str], class: &str) {
    for object in objects {
        let path = format!("cold/test/{set}/{object}");
        let headers = format!("{SIGNED}x-amz-copy-source: /{path}\r\nx-amz-storage-class: {class}\r\n");
        moto.ask("PUT", &path, &headers, "");
    }
}

#[test]
fn an_archived_set_is_restored_after_a_thaw_that_somebody_has_asked_for() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_bucket("cold");
    let scenario = Scenario::with_database(server, &with_rows(server)).moto(&moto, "cold").backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    archive(&moto, &set, &["dump.sql.gz", "globals.sql.gz"], "GLACIER");
    scenario.run(&["backups", "list"]).succeeded().prints(&["GLACIER"]);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["copies"][0]["archived"], "GLACIER");
    scenario.run(&["backups", "show", &set]).succeeded().prints(&["storage class", "in bucket: GLACIER"]);
    let into = server.url(&server.empty_database());
    let restore = ["backups", "restore", &set, "--into", &into];
    for command in [&restore[..], &["backups", "verify", &set], &["backups", "fetch", &set, "--table", "t"]] {
        let refused = scenario.run(command).exited(75);
        refused.says(&["is in storage class GLACIER", "a thaw, which takes up to 5 hours and is billed", "add --thaw"]);
    }
    // A dry run starts nothing.
    scenario.run(&[&restore[..], &["--table", "t", "--dry-run", "--thaw"]].concat()).exited(75).says(&["add --thaw"]);

    let started = scenario.run(&[&restore[..], &["--thaw=3"]].concat()).exited(75);
    started.says(&["the thaw of", "was started, from storage class GLACIER", "for 3 days", "backups show"]);
    // That of moto is over at once.
    scenario.run(&["backups", "show", &set]).succeeded().prints(&["GLACIER, thawed until"]);
    scenario.run(&["backups", "verify", &set]).succeeded();
    scenario.run(&restore).succeeded().prints(&["1,000 rows"]);
}

#[test]
fn an_archived_manifest_is_thawed_by_the_name_of_its_set() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_bucket("cold");
    let scenario = Scenario::with_database(server, &with_rows(server)).moto(&moto, "cold").backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    archive(&moto, &set, &["dump.sql.gz", "globals.sql.gz", "manifest.json"], "DEEP_ARCHIVE");
    scenario.run(&["backups", "list"]).succeeded().says(&["must be thawed before they can be read"]);
    scenario.run(&["backups", "verify", &set]).exited(75).says(&["is in storage class DEEP_ARCHIVE", "up to 12 hours"]);
    scenario.run(&["backups", "verify", &set, "--thaw"]).exited(75).says(&["was started", "for 7 days"]);
    scenario.run(&["backups", "verify", &set]).succeeded().prints(&["1,000 rows"]);
}

#[test]
fn a_copy_that_can_be_read_now_is_taken_before_one_that_is_archived() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_bucket("cold");
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "cold")
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"bucket\", \"local\"]\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    archive(&moto, &set, &["dump.sql.gz"], "GLACIER");
    let into = server.url(&server.empty_database());
    let restored = scenario.run(&["backups", "restore", "latest", "--thaw", "--into", &into]).succeeded();
    restored.says(&["the copy in bucket is passed over: it is in storage class GLACIER"]);
    scenario.run(&["backups", "show", &set, "--store", "bucket"]).succeeded().prints(&["in bucket: GLACIER\n"]);
}

#[test]
fn rules_and_stores_that_archive_too_early_are_named() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_bucket("cold");
    let rule = "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Rule><ID>cold</ID><Filter><Prefix></Prefix></Filter>\
                <Status>Enabled</Status><Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition></Rule></LifecycleConfiguration>";
    moto.ask("PUT", "cold?lifecycle", SIGNED, rule);
    let scenario =
        Scenario::with_database(server, &with_rows(server)).moto(&moto, "cold").backup_job("bucket", "keep = { daily = 90 }");
    let said = scenario.run(&["check", "--connect"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("rule `cold` moves objects here to GLACIER after 30 days, and job `nightly` keeps sets for 90 days"),
        "{said}"
    );
    let scenario = Scenario::empty().config("[stores.s]\nbucket = \"b\"\nstorage_class = \"DEEP_ARCHIVE\"\n");
    let output = scenario.run(&["check"]).exited(78);
    assert!((output.stdout + &output.stderr).contains("DEEP_ARCHIVE are read only after a thaw"));
}
