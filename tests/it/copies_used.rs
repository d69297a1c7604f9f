//! Copies that are used: restored, fetched, verified, listed, pruned, proved, signed and encrypted, with one of them damaged, forged or away.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use hyper::Method;

use crate::backup_faults::always;
use crate::copies::{in_store, listed, run, small_database, two_folders};
use crate::encryption::age_key;
use crate::support::postgres::server;
use crate::support::s3::{Fault, S3Server};
use crate::support::{Scenario, quoted};

/// Flips a bit in the middle of a file.
pub fn damage(file: &Path) {
    let at = std::fs::metadata(file).unwrap().len() / 2;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn a_damaged_copy_is_neither_restored_nor_fetched_nor_copied_and_another_mends_it() {
    let server = server(18);
    let database = small_database(server);
    let scenario = two_folders(server, &database, "").config("[stores.third]\npath = \"third\"\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    damage(&scenario.path(&format!("store/{set}/dump.sql.gz")));

    let into = format!("{database}_restored");
    let restore = ["backups", "restore", "latest", "--create", "--into", &server.url(&into)];
    scenario.run(&restore).succeeded().says(&[
        "2 copies",
        "taking that in local",
        "the copy in local cannot be used, and that in offsite is taken",
    ]);
    assert_eq!(server.sql(&into, "SELECT count(*) FROM t"), "2000");
    scenario
        .run(&["backups", "fetch", &set, "--table", "t", "--format", "csv", "--output", "rows.csv"])
        .succeeded()
        .says(&["offsite is taken"]);
    assert_eq!(std::fs::read_to_string(scenario.path("rows.csv")).unwrap().lines().count(), 2001);
    // Of one store alone, nobody hides it.
    scenario
        .run(&["backups", "restore", &set, "--store", "local", "--create", "--into", &server.url(&format!("{into}2"))])
        .exited(1);

    scenario.run(&["backups", "copy", &set, "--from", "local", "--to", "third"]).exited(1).says(&["differs from its manifest"]);
    assert_eq!(in_store(&scenario, "third"), []);
    let verified = scenario.run(&["backups", "verify", &set]).exited(1);
    verified
        .says(&["in offsite is good, and that in local is not", &format!("pgtend backups copy {set} --from offsite --to local")]);
    scenario.run(&["backups", "list"]).succeeded().prints(&["offsite, local", "damaged in local"]);
    // It is known to be damaged, so the other comes first; by itself, it goes to the third store, too.
    scenario.run(&["backups", "copy", &set, "--to", "third"]).succeeded().prints(&["is copied from offsite to third"]);

    scenario.run(&["backups", "copy", &set, "--from", "offsite", "--to", "local"]).succeeded().prints(&["intact"]);
    scenario.run(&["backups", "verify", &set, "--store", "local"]).succeeded();
    assert_eq!(in_store(&scenario, "local"), [(set, "intact".to_owned())]);
}

#[test]
fn a_store_that_cannot_be_reached_does_not_stop_a_restore_from_the_other() {
    let server = server(18);
    let database = small_database(server);
    let s3 = S3Server::start();
    let scenario = Scenario::with_database(server, &database)
        .s3(&s3)
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"bucket\", \"local\"]\n");
    run(&scenario).succeeded();
    s3.break_with(always(Method::GET, "", Fault::InternalError));
    let into = format!("{database}_restored");
    let restored = scenario.run(&["backups", "restore", "latest", "--create", "--into", &server.url(&into)]).succeeded();
    restored.says(&["store `bucket` cannot be read, so a newer set may be there; another copy is taken"]);
    assert_eq!(server.sql(&into, "SELECT count(*) FROM t"), "2000");
    // Without the job, nobody knows that the other store has copies.
    std::fs::remove_file(scenario.path("jobs/nightly.toml")).unwrap();
    let refused = scenario.run(&["backups", "show", "latest"]);
    assert_ne!(refused.code, Some(0));
    refused.says(&["store `bucket` cannot be read"]);
}

#[test]
fn two_sets_of_one_name_are_never_taken_for_copies_of_each_other() {
    let server = server(18);
    let database = small_database(server);
    let scenario = two_folders(server, &database, "").job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    // Whoever can write to the other store puts a set of theirs there, under that name.
    let forged = Scenario::with_database(server, &small_database(server)).backup_job("local", "");
    forged.run(&["run-job", "nightly"]).succeeded();
    let theirs = forged.path(&format!("store/{}", forged.sets()[0]));
    let there = scenario.path(&format!("offsite/{set}"));
    std::fs::create_dir_all(&there).unwrap();
    for file in std::fs::read_dir(theirs).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), there.join(file.file_name())).unwrap();
    }
    let before = std::fs::read(there.join("dump.sql.gz")).unwrap();
    scenario
        .run(&["backups", "restore", &set, "--create", "--into", &server.url(&format!("{database}_f"))])
        .exited(78)
        .says(&["two different sets", "choose one with --store"]);
    scenario
        .run(&["backups", "copy", &set, "--from", "local", "--to", "offsite"])
        .exited(78)
        .says(&["another set has that name there"]);
    assert!(before == std::fs::read(there.join("dump.sql.gz")).unwrap());
    assert_eq!(listed(&scenario).len(), 2, "they are listed apart");
    // No run spreads one of them, and no copy is made of either in silence.
    let scenario = scenario
        .config("[stores.third]\npath = \"third\"\n")
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"third\", \"offsite\", \"local\"]\n");
    run(&scenario).succeeded();
    assert!(!scenario.path(&format!("third/{set}")).exists());
    scenario.run(&["backups", "copy", &set, "--to", "third"]).exited(78).says(&["two different sets"]);
    scenario.run(&["backups", "show", &set, "--store", "local"]).succeeded();
}

#[test]
fn each_store_is_pruned_by_its_own_rule_and_never_while_it_is_away() {
    let server = server(18);
    let database = small_database(server);
    let s3 = S3Server::start();
    let job =
        "database = \"app\"\n[backup]\nstore = [\"local\", \"bucket\"]\nkeep = { last = 1 }\nkeep_in.bucket = { last = 3 }\n";
    let scenario = Scenario::with_database(server, &database).s3(&s3).job("nightly", job);
    for _ in 0..4 {
        run(&scenario).succeeded();
    }
    assert_eq!(in_store(&scenario, "local").len(), 1);
    let kept = in_store(&scenario, "bucket");
    assert_eq!(kept.len(), 3);

    for method in [Method::GET, Method::PUT, Method::DELETE, Method::POST] {
        s3.break_with(always(method, "", Fault::InternalError));
    }
    assert_ne!(run(&scenario).code, Some(0));
    let local = in_store(&scenario, "local");
    assert_eq!(local.len(), 2, "what the bucket keeps is not known to be there");
    assert_eq!(local[0], kept[2]);
    let newest = &local[1..];
    assert_ne!(scenario.run(&["backups", "prune"]).says(&["in bucket"]).code, Some(0));
    s3.heal();
    assert_eq!(in_store(&scenario, "bucket"), kept);

    // What `keep` of the bucket keeps is copied there; what it has deleted does not come back.
    run(&scenario).succeeded().prints(&["copied 1 set that bucket lacked"]);
    let names: Vec<String> = in_store(&scenario, "bucket").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 3);
    assert_eq!((&names[0], &names[1]), (&kept[2].0, &newest[0].0));
    assert_eq!(in_store(&scenario, "local").len(), 1, "now it is, and the rule of this store goes on");
    scenario.run(&["backups", "prune", "--dry-run"]).succeeded().prints(&["in local", "in bucket"]);
}

#[test]
fn a_proof_of_the_same_bytes_counts_for_the_copy_and_says_where_it_was_made() {
    let server = server(18);
    let scenario =
        two_folders(server, &small_database(server), "verify = \"restore\"\nscratch = \"same\"\nkeep = { last = 1 }\n");
    run(&scenario).succeeded();
    let of_store = |store: &str| scenario.json(&["backups", "list", "--store", store])["sets"][0].clone();
    assert_eq!(of_store("local")["verification"]["restores"][0].get("copy_in"), None);
    assert_eq!(of_store("offsite")["verification"]["restores"][0]["copy_in"], "local");
    scenario.run(&["backups", "list", "--store", "offsite"]).succeeded().prints(&["as the copy in local"]);

    // A run that restores nothing: the proved set stays in both stores.
    let scenario =
        scenario.job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"offsite\"]\nkeep = { last = 1 }\n");
    let proved = listed(&scenario)[0].0.clone();
    run(&scenario).succeeded();
    run(&scenario).succeeded();
    for store in ["local", "offsite"] {
        let sets = in_store(&scenario, store);
        assert_eq!((sets.len(), &sets[0].0), (2, &proved), "{store}");
    }
}

#[test]
fn stores_with_other_recipients_get_one_dump_each_for_its_own() {
    let server = server(18);
    let database = small_database(server);
    let scenario = Scenario::with_database(server, &database);
    let public = age_key(&scenario, "key");
    let sealed =
        |name: &str| format!("[stores.{name}]\npath = \"{name}\"\nencrypt_to = [{}]\nidentity_file = \"key\"\n", quoted(&public));
    let scenario = scenario
        .config(&sealed("offsite"))
        .config(&sealed("third"))
        .config(&sealed("fourth"))
        .config(&sealed("fifth"))
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"offsite\", \"fifth\"]\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].clone();
    assert_eq!(set.1, ["local", "offsite", "fifth"], "one set, although the bytes differ");
    assert!(scenario.path(&format!("store/{}/dump.sql.gz", set.0)).exists());
    assert!(scenario.path(&format!("offsite/{}/dump.sql.gz.age", set.0)).exists());
    for store in ["local", "offsite", "fifth"] {
        scenario.run(&["backups", "verify", &set.0, "--store", store]).succeeded().prints(&["2,000 rows"]);
    }

    // A plain set is encrypted on its way, without a secret key; an encrypted one stays as it is.
    scenario.run(&["backups", "copy", &set.0, "--from", "local", "--to", "third"]).succeeded();
    assert!(scenario.path(&format!("third/{}/globals.sql.gz.age", set.0)).exists());
    assert!(!scenario.path(&format!("third/{}/dump.sql.gz", set.0)).exists());
    let into = format!("{database}_restored");
    scenario.run(&["backups", "restore", &set.0, "--store", "third", "--create", "--into", &server.url(&into)]).succeeded();
    assert_eq!(server.sql(&into, "SELECT count(*) FROM t"), "2000");
    assert_eq!(listed(&scenario)[0].1.len(), 4);
    scenario.run(&["backups", "copy", &set.0, "--from", "offsite", "--to", "fourth"]).succeeded();
    let bytes = |store: &str| std::fs::read(scenario.path(&format!("{store}/{}/dump.sql.gz.age", set.0))).unwrap();
    assert!(bytes("offsite") == bytes("fourth") && bytes("offsite") != bytes("third"));
    assert!(bytes("offsite") == bytes("fifth"), "what has the same recipients is encrypted once");
}

#[test]
fn a_store_with_a_key_does_not_vouch_for_what_one_without_a_key_holds() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &small_database(server));
    std::fs::write(scenario.path("sign"), "0123456789abcdef0123456789abcdef").unwrap();
    let scenario = scenario
        .config("[stores.offsite]\npath = \"offsite\"\nsign_key_file = \"sign\"\n")
        .job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    scenario
        .run(&["backups", "copy", &set, "--to", "offsite"])
        .exited(78)
        .says(&["offsite signs what it holds, and local has no key"]);
    assert_eq!(in_store(&scenario, "offsite"), []);
    // Nor does the next run, which writes its own set to both.
    let scenario = scenario.job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"offsite\"]\n");
    run(&scenario).succeeded();
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (2, 1));
    scenario.run(&["backups", "copy", &set, "--to", "offsite", "--unsigned-ok"]).succeeded();
    assert_eq!(in_store(&scenario, "offsite").len(), 2);
}

#[test]
fn a_hold_is_put_on_all_copies_and_goes_with_a_copy() {
    let server = server(18);
    let scenario =
        two_folders(server, &small_database(server), "keep = { last = 1 }").config("[stores.third]\npath = \"third\"\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    scenario
        .run(&["backups", "hold", &set, "--until", "2999-01-01"])
        .succeeded()
        .prints(&["in local is held", "in offsite is held"]);
    scenario.run(&["backups", "copy", &set, "--to", "third"]).succeeded();
    let of_third = scenario.json(&["backups", "list", "--store", "third"]);
    assert_eq!(of_third["sets"][0]["held"].as_array().unwrap().len(), 1);
    run(&scenario).succeeded();
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (2, 2));
    scenario.run(&["backups", "release", &set]).succeeded();
    run(&scenario).succeeded();
    assert_eq!((in_store(&scenario, "local").len(), in_store(&scenario, "offsite").len()), (1, 1));
}

#[test]
fn an_audit_says_which_store_has_no_fresh_copy() {
    let server = server(18);
    let database = small_database(server);
    let s3 = S3Server::start();
    let scenario = Scenario::with_database(server, &database)
        .s3(&s3)
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"bucket\"]\n")
        .job("careful", "database = \"app\"\nrequire_backup_within = \"1h\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    s3.break_with(always(Method::PUT, "", Fault::InternalError));
    assert_ne!(run(&scenario).code, Some(0));
    let audit = scenario.run(&["audit", "--database", "app"]);
    assert!(audit.stdout.contains("There is no verified copy in store `bucket`"), "{}", audit.stdout);
    assert!(!audit.stdout.contains("There is no verified backup"), "{}", audit.stdout);
    // One good copy is a backup.
    scenario.run(&["run-job", "careful"]).succeeded();
    s3.break_with(always(Method::GET, "", Fault::InternalError));
    scenario.run(&["run-job", "careful"]).succeeded();
}

#[test]
fn mistakes_in_the_stores_of_a_job_are_named() {
    for (keys, says) in [
        ("store = []", "`store` is empty"),
        ("store = [\"local\", \"local\"]", "store `local` is named twice"),
        ("store = [\"local\", \"offsit\"]", "did you mean `offsite`?"),
        ("store = [\"local\"]\nkeep_in.offsite = { last = 1 }", "`keep_in` names `offsite`, which is no store of this job"),
        ("store = [\"local\", \"offsite\"]\nkeep_in.offsite = {}", "`keep` keeps nothing"),
        ("store = 7", "found 7, expected a text in quotation marks or a list of texts"),
    ] {
        let scenario = Scenario::empty()
            .config("[databases.app]\nurl = \"postgres://localhost/x\"\n[stores.local]\npath = \"store\"\n[stores.offsite]\npath = \"offsite\"\n")
            .job("nightly", &format!("database = \"app\"\n[backup]\n{keys}\n"));
        let output = scenario.run(&["check"]).exited(78);
        assert!((output.stdout.clone() + &output.stderr).contains(says), "{keys}: {}{}", output.stdout, output.stderr);
    }
}

#[test]
fn what_is_there_is_read_before_it_is_called_a_copy() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    let copy = ["backups", "copy", &set, "--from", "offsite", "--to", "local"];
    scenario.run(&copy).succeeded().prints(&["is in local already: intact"]);
    // Nobody has read it since it rotted.
    damage(&scenario.path(&format!("store/{set}/dump.sql.gz")));
    scenario.run(&copy).succeeded().prints(&["is copied from offsite to local"]).says(&["is made anew"]);
    std::fs::remove_file(scenario.path(&format!("store/{set}/globals.sql.gz"))).unwrap();
    scenario.run(&copy).succeeded().prints(&["is copied from offsite to local"]);
    scenario.run(&["backups", "verify", &set, "--store", "local"]).succeeded();
}

#[test]
fn a_plain_copy_that_is_mended_from_an_encrypted_one_is_good_again() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &small_database(server));
    let public = age_key(&scenario, "key");
    let scenario = scenario
        .config(&format!("[stores.offsite]\npath = \"offsite\"\nencrypt_to = [{}]\n", quoted(&public)))
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"offsite\"]\nkeep = { last = 1 }\n");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    damage(&scenario.path(&format!("store/{set}/dump.sql.gz")));
    scenario.run(&["backups", "verify", &set, "--store", "local"]).exited(1);
    scenario
        .run(&["backups", "copy", &set, "--from", "offsite", "--to", "local"])
        .succeeded()
        .says(&["the copy stays encrypted", "local itself encrypts nothing"]);
    assert_eq!(in_store(&scenario, "local"), [(set.clone(), "intact".to_owned())]);
    assert!(!scenario.path(&format!("store/{set}/dump.sql.gz")).exists(), "nothing of the damaged copy is left");
    assert!(!scenario.path(&format!("store/{set}/globals.sql.gz")).exists());
}

#[test]
fn a_copy_keeps_the_longer_of_two_holds_and_no_copy_is_left_out_of_one_in_silence() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "");
    run(&scenario).succeeded();
    let set = listed(&scenario)[0].0.clone();
    let hold = |until: &str, store: &str| scenario.run(&["backups", "hold", &set, "--until", until, "--store", store]);
    hold("2998-01-01", "local").succeeded();
    hold("2999-01-01", "offsite").succeeded();
    damage(&scenario.path(&format!("offsite/{set}/dump.sql.gz")));
    scenario.run(&["backups", "copy", &set, "--from", "local", "--to", "offsite"]).succeeded().prints(&["is copied"]);
    let held = scenario.json(&["backups", "list", "--store", "offsite"]);
    assert!(held["sets"][0]["held"].to_string().contains("2999"), "{held:#}");
    std::fs::rename(scenario.path("offsite"), scenario.path("away")).unwrap();
    scenario
        .run(&["backups", "hold", &set, "--until", "2999-06-01"])
        .exited(69)
        .prints(&["in local is held"])
        .says(&["store `offsite` could not be read", "--store offsite"]);
}

#[test]
fn one_place_under_two_names_is_no_second_copy() {
    let server = server(18);
    let database = small_database(server);
    for other in ["store", "./store", "store/app"] {
        let scenario = Scenario::with_database(server, &database)
            .config(&format!("[stores.other]\npath = {}\n", quoted(other)))
            .job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"other\"]\n");
        std::fs::create_dir_all(scenario.path("store/app")).unwrap();
        scenario.run(&["run-job", "nightly"]).exited(78).says(&["are one place, or one is within the other"]);
    }
}
