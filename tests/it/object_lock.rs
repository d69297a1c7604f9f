//! Sets that nobody can delete before a date: what an attacker with the credentials of the backup host can do, and what is there afterwards.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::support::moto::Moto;
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, faketime};

pub fn with_rows(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    database
}

/// moto looks whether there is a signature, and not which.
pub const SIGNED: &str = "Authorization: AWS attacker:signature\r\n";

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split(start).nth(1).unwrap_or_else(|| panic!("no {start} in {text}")).split(end).next().unwrap()
}

/// Key and id of each version and each delete marker.
pub fn versions(moto: &Moto, bucket: &str) -> Vec<(String, String)> {
    let listed = moto.versions(bucket);
    let each = listed.split("<Version>").skip(1).chain(listed.split("<DeleteMarker>").skip(1));
    each.map(|entry| (between(entry, "<Key>", "<").to_owned(), between(entry, "<VersionId>", "<").to_owned())).collect()
}

/// When the lock of an object ends, and its headers.
fn locked_until(moto: &Moto, object: &str) -> (DateTime<Utc>, String) {
    let headers = moto.headers_of(&format!("locked/test/{object}"), SIGNED).to_ascii_lowercase();
    let until = between(&headers, "x-amz-object-lock-retain-until-date: ", "\r\n").to_ascii_uppercase();
    (until.parse().unwrap(), headers)
}

fn days_from_now(at: DateTime<Utc>) -> f64 {
    (at - Utc::now()).num_minutes() as f64 / 1440.0
}

const LOCKED: [&str; 3] = ["dump.sql.gz", "globals.sql.gz", "manifest.json"];

/// All that the credentials of the backup host allow for a day: to hide, delete and overwrite objects and versions, to change the bucket, and to use pgtend itself.
fn attack(moto: &Moto, scenario: &Scenario, sets: &[String]) {
    scenario.run(&["backups", "prune"]);
    let bypass = format!("{SIGNED}x-amz-bypass-governance-retention: true\r\n");
    for object in moto.objects("locked") {
        moto.try_ask("DELETE", &format!("locked/{object}"), SIGNED, "");
    }
    assert_eq!(scenario.sets(), Vec::<String>::new(), "nothing is to be seen of them");
    for (key, id) in versions(moto, "locked") {
        for headers in [SIGNED, &bypass] {
            moto.try_ask("DELETE", &format!("locked/{key}?versionId={id}"), headers, "");
        }
        let all = format!("<Delete><Object><Key>{key}</Key><VersionId>{id}</VersionId></Object></Delete>");
        moto.try_ask("POST", "locked?delete", &bypass, &all);
    }
    for set in sets {
        // What says that it may be deleted, that it is damaged, or that it is another one.
        for object in LOCKED.into_iter().chain(["verification.json", "run.json", "deleting.json", "hold.json", "dump.sql.gz.age"])
        {
            moto.try_ask("PUT", &format!("locked/test/{set}/{object}"), SIGNED, "nothing");
        }
    }
    moto.try_ask("PUT", "locked/test/app/nightly/series.json", SIGNED, "{}");
    moto.expire("locked", 1);
    // AWS refuses to suspend versions of a bucket with Object Lock, or to switch that off; moto would do it.
    moto.try_ask("DELETE", "locked", SIGNED, "");
}

#[test]
fn the_newest_proved_set_outlives_a_day_of_an_attacker_with_the_credentials_of_the_backup_host() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_lockable_bucket("locked");
    let job = |keep: u32| {
        format!(
            "database = \"app\"\n[backup]\nstore = \"bucket\"\nverify = \"restore\"\nscratch = \"same\"\nkeep = {{ last = {keep}, daily = {keep} }}\n"
        )
    };
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "locked")
        .config("lock = \"30d\"\nlock_mode = \"compliance\"\n")
        .job("nightly", &job(3));
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let sets = scenario.sets();
    for (set, object) in sets.iter().flat_map(|set| LOCKED.map(|object| (set, object))) {
        let (until, headers) = locked_until(&moto, &format!("{set}/{object}"));
        assert!(
            headers.contains("lock-mode: compliance") && (29.9..=30.0).contains(&days_from_now(until)),
            "{object}: {headers}"
        );
    }
    let kept = versions(&moto, "locked");

    let scenario = scenario.job("nightly", &job(1));
    attack(&moto, &scenario, &sets);
    let there = versions(&moto, "locked");
    let left: BTreeSet<&str> = kept.iter().filter(|version| there.contains(version)).map(|(key, _)| key.as_str()).collect();
    let expected: Vec<String> = sets.iter().flat_map(|set| LOCKED.map(|object| format!("test/{set}/{object}"))).collect();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), expected, "what is not locked is gone");
    let after = scenario.run(&["backups", "restore", "latest", "--into", &server.url(&server.empty_database())]);
    assert_ne!(after.code, Some(0), "nothing that he wrote is restored: {}", after.stdout);

    // With other credentials, what he added goes: delete markers, and newer versions.
    for (key, id) in versions(&moto, "locked").iter().filter(|version| !kept.contains(version)) {
        moto.try_ask("DELETE", &format!("locked/{key}?versionId={id}"), SIGNED, "");
    }
    assert_eq!(scenario.sets(), sets);
    let newest = sets.last().unwrap();
    scenario.run(&["backups", "verify", newest]).succeeded();
    let copy = format!("locked_{}", server.empty_database());
    server.drop_with_test(&copy);
    let restored = scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
    assert!(restored.stdout.contains(newest.as_str()), "{}", restored.stdout);
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "1000");
    // The rule that he left is found.
    let said = scenario.job("nightly", &job(3)).run(&["check", "--connect"]).stdout;
    assert!(
        said.split_whitespace().collect::<Vec<_>>().join(" ").contains("rule `tidy` deletes objects here after 1 days"),
        "{said}"
    );
}

/// Ends the locks of a set in an hour, as if its time were almost over.
fn almost_end_its_locks(moto: &Moto, set: &str) {
    almost_end_locks(moto, set, &LOCKED);
}

fn almost_end_locks(moto: &Moto, set: &str, objects: &[&str]) {
    lock_for(moto, set, objects, 1);
}

fn lock_for(moto: &Moto, set: &str, objects: &[&str], hours: i64) {
    let until = (Utc::now() + chrono::TimeDelta::hours(hours)).format("%Y-%m-%dT%H:%M:%SZ");
    let retention = format!(
        "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    );
    for object in objects {
        moto.ask("PUT", &format!("locked/test/{set}/{object}?retention"), SIGNED, &retention);
    }
}

pub fn on_another_day(scenario: &Scenario, off: &str) {
    let mut command = scenario.command(&["run-job", "nightly"]);
    let run =
        command.env("LD_PRELOAD", faketime()).env("FAKETIME", off).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn prune_extends_the_lock_of_a_set_that_a_longer_rule_keeps_and_shortens_none() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_lockable_bucket("locked");
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "locked")
        .config("lock = \"7d\"\n")
        .backup_job("bucket", "keep = { last = 1, monthly = 3 }");
    // The locks of a host whose clock is behind count from the store's.
    on_another_day(&scenario, "-40d");
    let old = scenario.sets().pop().unwrap();
    let until = |set: &str| LOCKED.map(|object| days_from_now(locked_until(&moto, &format!("{set}/{object}")).0));
    assert!(until(&old).iter().all(|days| (6.9..=7.0).contains(days)), "{:?}", until(&old));
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(until(&old).iter().all(|days| (6.9..=7.0).contains(days)), "there is time: {:?}", until(&old));

    almost_end_its_locks(&moto, &old);
    scenario.run(&["run-job", "nightly"]).succeeded();
    // Three months of 31 days after it was made: the newest of its month, for which there will be no other.
    assert!(until(&old).iter().all(|days| (52.8..=53.0).contains(days)), "{:?}", until(&old));
    let newest = scenario.sets().pop().unwrap();
    assert!(until(&newest).iter().all(|days| (6.9..=7.0).contains(days)), "a newer one may replace it: {:?}", until(&newest));
    // A dump that was there before its set was mended has an older lock than the manifest.
    almost_end_locks(&moto, &newest, &LOCKED[..1]);
    let scenario = scenario.backup_job("bucket", "keep = { last = 5 }");
    scenario.run(&["backups", "prune"]).succeeded();
    assert!(until(&newest).iter().all(|days| (6.9..=7.0).contains(days)), "as long as it stays: {:?}", until(&newest));
    assert!(until(&old).iter().all(|days| (52.8..=53.0).contains(days)), "none is shortened: {:?}", until(&old));
}

#[test]
fn an_object_that_somebody_has_hidden_keeps_the_locks_of_the_others_from_nothing() {
    let moto = Moto::start();
    let (scenario, set) = folder_and_locked_bucket(&moto);
    almost_end_its_locks(&moto, &set);
    moto.ask("DELETE", &format!("locked/test/{set}/globals.sql.gz"), SIGNED, "");
    let pruned = scenario.run(&["backups", "prune"]).succeeded();
    pruned.says(&[&set, "could not all be extended", "globals.sql.gz is gone"]);
    for object in ["dump.sql.gz", "manifest.json"] {
        let days = days_from_now(locked_until(&moto, &format!("{set}/{object}")).0);
        assert!(days > 6.9, "{object}: {days}");
    }
}

/// A folder and a bucket with `lock`, in which a set was made.
fn folder_and_locked_bucket(moto: &Moto) -> (Scenario, String) {
    let server = server(18);
    moto.create_lockable_bucket("locked");
    let job = "database = \"app\"\n[backup]\nstore = [\"local\", \"bucket\"]\nkeep = { last = 5 }\nkeep_in.bucket = { last = 5, monthly = 12 }\n";
    let scenario =
        Scenario::with_database(server, &with_rows(server)).moto(moto, "locked").config("lock = \"7d\"\n").job("nightly", job);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    (scenario, set)
}

#[test]
fn a_copy_locks_the_objects_that_it_keeps_as_it_locks_new_ones() {
    let moto = Moto::start();
    let (scenario, set) = folder_and_locked_bucket(&moto);
    let until = || LOCKED.map(|object| days_from_now(locked_until(&moto, &format!("{set}/{object}")).0));
    let is_seven = |days: f64| (6.9..=7.0).contains(&days);
    almost_end_locks(&moto, &set, &LOCKED[..1]);
    lock_for(&moto, &set, &LOCKED[1..2], 30 * 24);
    moto.ask("DELETE", &format!("locked/test/{set}/manifest.json"), SIGNED, "");
    let copied = scenario.run(&["backups", "copy", &set, "--from", "local", "--to", "bucket"]).succeeded();
    assert!(copied.stdout.contains("dump.sql.gz, globals.sql.gz"), "they were there: {}", copied.stdout);
    let [dump, globals, manifest] = until();
    assert!(is_seven(dump) && is_seven(manifest), "{dump} {manifest}");
    assert!((29.9..=30.0).contains(&globals), "none is shortened: {globals}");
    // A copy that is there as a whole is kept as well.
    almost_end_locks(&moto, &set, &LOCKED[..1]);
    scenario.run(&["backups", "copy", &set, "--from", "local", "--to", "bucket"]).succeeded();
    let [dump, globals, manifest] = until();
    assert!(is_seven(dump) && is_seven(manifest) && (29.9..=30.0).contains(&globals), "{dump} {globals} {manifest}");
}

#[test]
fn what_a_run_mends_in_a_locked_bucket_is_locked_as_a_whole() {
    let moto = Moto::start();
    let (scenario, set) = folder_and_locked_bucket(&moto);
    almost_end_its_locks(&moto, &set);
    moto.ask("DELETE", &format!("locked/test/{set}/manifest.json"), SIGNED, "");
    moto.ask("DELETE", &format!("locked/test/{set}/verification.json"), SIGNED, "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let until = LOCKED.map(|object| days_from_now(locked_until(&moto, &format!("{set}/{object}")).0));
    assert!(until.iter().all(|days| (6.9..=7.0).contains(days)), "{until:?}");
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
