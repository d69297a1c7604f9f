//! Sets that nobody can delete before a date: what an attacker with the credentials of the backup host can do, and what is there afterwards.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::support::Scenario;
use crate::support::moto::Moto;
use crate::support::postgres::{Server, server};

fn with_rows(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    database
}

/// moto looks whether there is a signature, and not which.
const SIGNED: &str = "Authorization: AWS attacker:signature\r\n";

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split(start).nth(1).unwrap_or_else(|| panic!("no {start} in {text}")).split(end).next().unwrap()
}

/// Key and id of each version and each delete marker.
fn versions(moto: &Moto, bucket: &str) -> Vec<(String, String)> {
    let listed = moto.versions(bucket);
    let each = listed.split("<Version>").skip(1).chain(listed.split("<DeleteMarker>").skip(1));
    each.map(|entry| (between(entry, "<Key>", "<").to_owned(), between(entry, "<VersionId>", "<").to_owned())).collect()
}

#[test]
fn a_set_outlives_a_day_of_an_attacker_with_the_credentials_of_the_backup_host() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_lockable_bucket("locked");
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "locked")
        .config("lock = \"30d\"\n")
        .backup_job("bucket", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    for object in ["dump.sql.gz", "globals.sql.gz", "manifest.json"] {
        let headers = moto.headers_of(&format!("locked/test/{set}/{object}"), SIGNED).to_ascii_lowercase();
        let until = between(&headers, "x-amz-object-lock-retain-until-date: ", "\r\n").to_ascii_uppercase();
        let until: DateTime<Utc> = until.parse().unwrap();
        let days = (until - Utc::now()).num_hours() as f64 / 24.0;
        assert!(headers.contains("lock-mode: governance") && (29.9..=30.0).contains(&days), "{object}: {headers}");
    }
    let kept = versions(&moto, "locked");

    // He deletes all objects, then all versions, and writes over them.
    for object in moto.objects("locked") {
        moto.try_ask("DELETE", &format!("locked/{object}"), SIGNED, "");
    }
    assert_eq!(scenario.sets(), Vec::<String>::new());
    for (key, id) in &kept {
        moto.try_ask("DELETE", &format!("locked/{key}?versionId={id}"), SIGNED, "");
    }
    let there = versions(&moto, "locked");
    let left: BTreeSet<&str> = kept.iter().filter(|version| there.contains(version)).map(|(key, _)| key.as_str()).collect();
    let left: Vec<&str> = left.into_iter().map(|key| key.rsplit('/').next().unwrap()).collect();
    assert_eq!(left, ["dump.sql.gz", "globals.sql.gz", "manifest.json"], "what is not locked is gone");
    for object in ["dump.sql.gz", "manifest.json"] {
        moto.ask("PUT", &format!("locked/test/{set}/{object}"), SIGNED, "nothing");
    }
    // With other credentials, what he added goes: delete markers, and newer versions.
    for (key, id) in versions(&moto, "locked").iter().filter(|version| !kept.contains(version)) {
        moto.try_ask("DELETE", &format!("locked/{key}?versionId={id}"), SIGNED, "");
    }
    assert_eq!(scenario.sets(), std::slice::from_ref(&set));
    scenario.run(&["backups", "verify", &set]).succeeded();
    let copy = format!("locked_{}", server.empty_database());
    server.drop_with_test(&copy);
    scenario.run(&["backups", "restore", &set, "--into", &server.url(&copy), "--create"]).succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "1000");
}

#[test]
fn a_prune_in_a_locked_bucket_goes_on_and_loses_nothing() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_lockable_bucket("locked");
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "locked")
        .config("lock = \"1d\"\nlock_mode = \"compliance\"\n")
        .backup_job("bucket", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let first = scenario.sets().pop().unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!scenario.sets().contains(&first), "it is hidden");
    let dump = format!("test/{first}/dump.sql.gz");
    let (_, id) = versions(&moto, "locked").into_iter().find(|(key, _)| *key == dump).unwrap();
    let (status, _) = moto.try_ask(
        "DELETE",
        &format!("locked/{dump}?versionId={id}"),
        &format!("{SIGNED}x-amz-bypass-governance-retention: true\r\n"),
        "",
    );
    assert!(status == 403 && versions(&moto, "locked").contains(&(dump, id)), "its version stays, whoever asks: {status}");
}

#[test]
fn a_check_names_a_bucket_whose_lock_or_lifecycle_does_not_fit() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_bucket("plain");
    moto.create_lockable_bucket("locked");
    moto.expire("locked", 20);
    let database = with_rows(server);
    let scenario = |bucket: &str| {
        Scenario::with_database(server, &database)
            .moto(&moto, bucket)
            .config("lock = \"30d\"\n")
            .backup_job("bucket", "keep = { daily = 25 }")
    };
    let said = scenario("plain").run(&["check", "--connect"]).stdout;
    assert!(said.contains("the bucket has no Object Lock, so every backup will fail"), "{said}");
    scenario("plain").run(&["run-job", "nightly"]).exited_with_one_of(&[1, 78]);
    let said = scenario("locked").run(&["check", "--connect"]).stdout;
    for expected in [
        "rule `tidy` deletes objects here after 20 days, and job `nightly` keeps sets for 25",
        "`lock` is 30 days, and `keep` of job",
    ] {
        assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("has no Object Lock"), "{said}");
}

#[test]
fn a_lock_that_no_store_can_have_is_a_mistake_in_the_configuration() {
    for (keys, says) in [
        ("path = \"store\"\nlock = \"30d\"", "is a folder, which has no `lock`"),
        ("bucket = \"b\"\nlock = \"1h\"", "Object Lock takes 1 day to 100 years"),
        ("bucket = \"b\"\nlock_mode = \"compliance\"", "`lock_mode` without `lock`"),
    ] {
        let scenario = Scenario::empty().config(&format!("[stores.s]\n{keys}\n"));
        scenario.run(&["check"]).exited(78).says(&[says]);
    }
}
