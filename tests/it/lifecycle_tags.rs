//! Older sets that were proved have tags, by which a lifecycle rule of the bucket moves them to a cheaper storage class (`tag_proved`).

use std::collections::BTreeMap;

use crate::object_lock::{SIGNED, on_another_day, versions, with_rows};
use crate::support::Scenario;
use crate::support::moto::Moto;
use crate::support::postgres::server;

/// The tags of an object of a set, as `key=value`.
fn tags(moto: &Moto, set: &str, object: &str) -> Vec<String> {
    let answer = moto.ask("GET", &format!("locked/test/{set}/{object}?tagging"), SIGNED, "");
    let part = |text: &str, name: &str| {
        let start = format!("<{name}>");
        text.split(&start).nth(1).unwrap().split(&format!("</{name}>")).next().unwrap().to_owned()
    };
    let mut tags: Vec<String> =
        answer.split("<Tag>").skip(1).map(|tag| format!("{}={}", part(tag, "Key"), part(tag, "Value"))).collect();
    tags.sort();
    tags
}

/// Moves what has the tag, and nothing else.
const RULE: &str = "<Rule><ID>cold</ID><Filter><And><Prefix>test/</Prefix><Tag><Key>pgtend-proved</Key><Value>restore</Value></Tag></And></Filter>\
<Status>Enabled</Status><Transition><Days>30</Days><StorageClass>DEEP_ARCHIVE</StorageClass></Transition></Rule>";

fn with_rule(moto: &Moto, rule: &str) {
    moto.ask(
        "PUT",
        "locked?lifecycle",
        "",
        &format!("<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rule}</LifecycleConfiguration>"),
    );
}

const PROVED: [&str; 2] = ["pgtend-keep=monthly", "pgtend-proved=restore"];

#[test]
fn an_older_set_is_tagged_once_it_was_proved_and_nothing_of_it_is_written_anew() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_lockable_bucket("locked");
    let job = |verify: &str| {
        format!("database = \"app\"\n[backup]\nstore = \"bucket\"\nkeep = {{ last = 1, monthly = 12 }}\n{verify}\n")
    };
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "locked")
        .config("lock = \"7d\"\ntag_proved = true\n")
        .job("nightly", &job("verify = \"none\""));
    let none: [&str; 0] = [];
    for off in ["-110d", "-75d"] {
        on_another_day(&scenario, off);
    }
    let sets = scenario.sets();
    scenario.run(&["backups", "verify", &sets[0], "--restore-on", "app"]).succeeded();
    scenario.run(&["backups", "verify", &sets[1]]).succeeded();
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(tags(&moto, &sets[0], "dump.sql.gz"), none, "the newest that was restored");

    scenario.run(&["run-job", "nightly"]).succeeded();
    let newest = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "verify", &newest, "--restore-on", "app"]).succeeded();
    let other = "<Tagging><TagSet><Tag><Key>team</Key><Value>a</Value></Tag></TagSet></Tagging>";
    moto.ask("PUT", &format!("locked/test/{}/dump.sql.gz?tagging", sets[0]), SIGNED, other);
    let versions_of = |set: &str| versions(&moto, "locked").into_iter().filter(|(key, _)| key.contains(set)).collect::<Vec<_>>();
    let before = versions_of(&sets[0]);
    let until = moto.headers_of(&format!("locked/test/{}/dump.sql.gz", sets[0]), SIGNED);
    scenario.run(&["backups", "prune"]).succeeded();
    let with_other = [&PROVED[..], &["team=a"]].concat();
    let expected: BTreeMap<&str, Vec<&str>> = [
        ("dump.sql.gz", with_other),
        ("globals.sql.gz", PROVED.to_vec()),
        ("manifest.json", vec![]),
        ("verification.json", vec![]),
    ]
    .into();
    for (object, expected) in &expected {
        assert_eq!(tags(&moto, &sets[0], object), *expected, "{object}");
        assert_eq!(tags(&moto, &sets[1], object), none, "{object}: its bytes were read, and the job asks for no checksum");
        assert_eq!(tags(&moto, &newest, object), none, "{object}");
    }
    assert_eq!(versions_of(&sets[0]), before, "a tag is no new version");
    let lock = |headers: &str| {
        let lines = headers.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-amz-object-lock"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lock(&moto.headers_of(&format!("locked/test/{}/dump.sql.gz", sets[0]), SIGNED)), lock(&until));

    // Where the job proves by checksum alone, that is what the tag says; a hold, as any doubt, takes the tags away.
    let scenario = scenario.job("nightly", &job("verify = \"checksum\""));
    scenario.run(&["backups", "hold", &sets[0], "--until", "2099-01-01", "--reason", "asked for"]).succeeded();
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(tags(&moto, &sets[1], "dump.sql.gz"), ["pgtend-keep=monthly", "pgtend-proved=checksum"]);
    assert_eq!(tags(&moto, &sets[0], "dump.sql.gz"), ["team=a"]);
    assert_eq!(tags(&moto, &sets[0], "globals.sql.gz"), none);
}

#[test]
fn a_check_says_whether_the_buckets_rules_go_by_the_tags() {
    let (server, moto) = (server(18), Moto::start());
    moto.create_lockable_bucket("locked");
    let scenario = Scenario::with_database(server, &with_rows(server))
        .moto(&moto, "locked")
        .config("tag_proved = true\n")
        .backup_job("bucket", "keep = { last = 3, monthly = 12 }");
    let says = || {
        let said = scenario.run(&["check", "--connect"]).stdout;
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let moves_none = "no lifecycle rule of the bucket moves what has the tag pgtend-proved";
    assert!(says().contains(moves_none), "{}", says());
    with_rule(&moto, RULE);
    let said = says();
    assert!(!said.contains(moves_none) && !said.contains("lifecycle rule `cold`"), "{said}");
    // One that takes all, and one that deletes what has a tag.
    let all =
        RULE.replace("<Tag><Key>pgtend-proved</Key><Value>restore</Value></Tag>", "").replace("<And>", "").replace("</And>", "");
    let expires = RULE.replace(
        "<Transition><Days>30</Days><StorageClass>DEEP_ARCHIVE</StorageClass></Transition>",
        "<Expiration><Days>90</Days></Expiration>",
    );
    for (rule, expected) in [
        (all, "rule `cold` also moves sets that are not proved, and all manifests"),
        (expires, "rule `cold` deletes objects here after 90 days, and job `nightly` keeps sets for 372 days"),
    ] {
        with_rule(&moto, &rule);
        assert!(says().contains(expected), "{expected}: {}", says());
        assert!(says().contains(moves_none), "{}", says());
    }
}

#[test]
fn tags_are_of_s3_alone() {
    let scenario = Scenario::empty().config("[stores.s]\npath = \"store\"\ntag_proved = true\n");
    scenario.run(&["check"]).exited(78).says(&["is a folder, which has no `tag_proved`"]);
}
