//! Refreshes from buckets, of encrypted sets, and of jobs with several stores: of which copy, and of which other one when that cannot be used.

use hyper::Method;
use serde_json::Value;

use crate::backup_faults::always;
use crate::copies::in_store;
use crate::copies_used::damage;
use crate::encryption::age_key;
use crate::refresh::{Stage, job};
use crate::support::postgres::{Server, server};
use crate::support::s3::{Fault, S3Server};
use crate::support::{Scenario, quoted};

/// A source with a set in these stores, and a staging database; `stores` adds to the configuration.
fn stage_in(server: &Server, stores: &str, keys: &str, with: impl FnOnce(Scenario) -> Scenario) -> Stage {
    let (source, staging) = (server.new_database(), server.empty_database());
    server.sql(
        &source,
        "CREATE TABLE users AS SELECT i AS id, 'person' || i || '@company.com' AS email FROM generate_series(1, 3000) i",
    );
    server.sql(&staging, "CREATE TABLE of_staging AS SELECT 1 AS x");
    let scenario = with(Scenario::with_database(server, &source))
        .config(&format!("[databases.staging]\nurl = {}\n", quoted(&server.url(&staging))))
        .job("nightly", &format!("database = \"app\"\n[backup]\nstore = {stores}\n"))
        .job("refresh", &job(keys));
    scenario.run(&["run-job", "nightly"]).succeeded();
    Stage { scenario, source, staging }
}

/// The folders `local` and `offsite`.
fn in_two_folders(server: &Server, keys: &str) -> Stage {
    stage_in(server, "[\"local\", \"offsite\"]", keys, |scenario| scenario.config("[stores.offsite]\npath = \"offsite\"\n"))
}

impl Stage {
    #[track_caller]
    fn is_refreshed(&self, server: &Server) {
        assert_eq!(server.sql(&self.staging, "SELECT count(*) FROM users"), "3000");
        assert_eq!(self.copies(server), Vec::<String>::new());
        self.old(server);
    }

    fn only_set(&self) -> String {
        self.scenario.sets().pop().unwrap()
    }
}

fn source(report: &Value) -> &str {
    report["facts"]["source"].as_str().unwrap()
}

#[test]
fn a_set_in_a_bucket_is_restored_and_an_encrypted_one_takes_a_key() {
    let (server, s3) = (server(18), S3Server::start());
    let mut public = String::new();
    let stage = stage_in(server, "\"bucket\"", "", |scenario| {
        public = age_key(&scenario, "key");
        scenario.s3(&s3).config(&format!("encrypt_to = [\"{public}\"]\nidentity_file = \"key\"\n"))
    });
    let path = stage.scenario.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    age_key(&stage.scenario, "other");
    for (identity, why) in
        [("", "no `identity_file` here"), ("identity_file = \"other\"\n", "other belongs to one of its recipients")]
    {
        std::fs::write(&path, config.replace("identity_file = \"key\"\n", identity)).unwrap();
        for more in [&[][..], &["--dry-run"]] {
            let arguments = [&["run-job", "refresh"], more].concat();
            stage.scenario.run(&arguments).exited(78).says(&["is encrypted, and cannot be opened here", why, &public]);
        }
        stage.is_as_it_was(server);
    }
    std::fs::write(&path, &config).unwrap();
    let report = stage.facts("refresh");
    assert!(source(&report).starts_with("bucket:app/nightly"), "{report:#}");
    stage.is_refreshed(server);
}

#[test]
fn where_the_nearest_copy_is_damaged_another_one_is_restored_and_that_is_said_and_recorded() {
    let server = server(18);
    let stage = in_two_folders(server, "expect = [\"SELECT count(*) = 3000 FROM users\"]");
    let set = stage.only_set();
    damage(&stage.scenario.path(&format!("store/{set}/dump.sql.gz")));
    let report = stage.facts("refresh");
    assert!(source(&report).starts_with("offsite:"), "{report:#}");
    let warnings = report["warnings"].to_string();
    for said in [
        &*format!("the copy of {set} in local could not be used, and that in offsite is taken in its place"),
        "backups copy",
        "--to local",
    ] {
        assert!(warnings.contains(said), "{said}: {report:#}");
    }
    stage.is_refreshed(server);
    assert_eq!(in_store(&stage.scenario, "local"), [(set.clone(), "damaged".to_owned())]);
    // It is known by now, and passed over.
    let report = stage.facts("refresh");
    assert!(
        source(&report).starts_with("offsite:") && !report["warnings"].to_string().contains("could not be used"),
        "{report:#}"
    );
    stage.is_refreshed(server);
    // Of one store alone there is no other.
    let scenario = stage.scenario.job("refresh", &job("store = \"local\""));
    scenario.run(&["run-job", "refresh"]).exited(1).says(&["its bytes are damaged"]);
}

#[test]
fn where_both_copies_are_damaged_nothing_is_replaced_and_nothing_is_left() {
    let server = server(18);
    let stage = in_two_folders(server, "keep_failed = true");
    let set = stage.only_set();
    for store in ["store", "offsite"] {
        damage(&stage.scenario.path(&format!("{store}/{set}/dump.sql.gz")));
    }
    let failed = stage.scenario.run(&["run-job", "refresh", "--json"]).exited(1).says(&["differs from what was written"]);
    let json: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert!(json["runs"][0]["report"]["warnings"].to_string().contains("that in offsite is taken in its place"), "{json:#}");
    stage.is_as_it_was(server);
}

#[test]
fn a_store_that_is_away_hides_no_set_of_the_other_and_its_newer_ones_are_not_denied() {
    let (server, s3) = (server(18), S3Server::start());
    let stage = stage_in(server, "[\"bucket\", \"local\"]", "", |scenario| scenario.s3(&s3));
    s3.break_with(always(Method::GET, "", Fault::InternalError));
    let report = stage.facts("refresh");
    assert!(source(&report).starts_with("local:"), "{report:#}");
    assert!(report["warnings"].to_string().contains("store `bucket` cannot be read, so a newer set may be there"), "{report:#}");
    stage.is_refreshed(server);
    let scenario = stage.scenario.job("refresh", &job("store = \"bucket\""));
    assert_ne!(scenario.run(&["run-job", "refresh"]).says(&["store `bucket`"]).code, Some(0));
}

#[test]
fn a_nearest_store_that_is_not_mounted_is_named_before_an_older_set_is_taken() {
    let stage = in_two_folders(server(18), "");
    // A host that has not written there does not know that it was a store.
    let scenario = stage.scenario.env("STATE_DIRECTORY", "of-another-host");
    std::fs::rename(scenario.path("store"), scenario.path("away")).unwrap();
    for is_mount_point in [false, true] {
        if is_mount_point {
            std::fs::create_dir(scenario.path("store")).unwrap();
        }
        let planned = scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded();
        let says = ["store `local`", "is a disk not mounted?), so a newer set may be there"];
        planned.prints(&says);
        scenario.run(&["backups", "show", "latest"]).succeeded().says(&says);
    }
}

#[test]
fn a_copy_that_this_host_cannot_open_gives_way_to_one_that_it_can() {
    let server = server(18);
    let stage = stage_in(server, "[\"local\", \"offsite\"]", "", |scenario| {
        let public = age_key(&scenario, "key");
        scenario.config(&format!("encrypt_to = [\"{public}\"]\n")).config("[stores.offsite]\npath = \"offsite\"\n")
    });
    let report = stage.facts("refresh");
    assert!(source(&report).starts_with("offsite:"), "{report:#}");
    assert!(report["warnings"].to_string().contains("the copy in local cannot be used here"), "{report:#}");
    stage.is_refreshed(server);
}

#[test]
fn two_sets_of_one_name_are_no_copies_and_neither_is_restored() {
    let server = server(18);
    let stage = in_two_folders(server, "");
    let set = stage.only_set();
    let forged = in_two_folders(server, "");
    let theirs = forged.scenario.path(&format!("offsite/{}", forged.only_set()));
    for file in std::fs::read_dir(theirs).unwrap().flatten() {
        std::fs::copy(file.path(), stage.scenario.path(&format!("offsite/{set}")).join(file.file_name())).unwrap();
    }
    stage
        .scenario
        .run(&["run-job", "refresh"])
        .exited(78)
        .says(&["are two different sets", "choose a store with the key `store`"]);
    stage.is_as_it_was(server);
}
