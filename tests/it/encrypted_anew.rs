//! Copies that are encrypted for others than the set: who opens them, what it takes, and what is left when it stops midway.

use std::path::Path;

use serde_json::Value;

use crate::copies::{in_store, listed, run, small_database, two_folders};
use crate::copies_used::damage;
use crate::encryption::age_key;
use crate::fetch::sum;
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

struct Anew {
    scenario: Scenario,
    database: String,
    set: String,
    old: String,
    new: String,
}

/// One set in `local`, for `old`; both secret keys are at hand, and `offsite` is empty.
fn anew(server: &Server, keys: &str) -> Anew {
    let database = small_database(server);
    let scenario = Scenario::with_database(server, &database);
    let (old, new) = (age_key(&scenario, "old"), age_key(&scenario, "new"));
    let scenario = scenario
        .config(&format!("encrypt_to = [\"{old}\"]\nidentity_file = \"old\"\n{keys}"))
        .config(&format!("[stores.offsite]\npath = \"offsite\"\nencrypt_to = [\"{new}\"]\nidentity_file = \"new\"\n{keys}"))
        .backup_job("local", "keep = { last = 3 }");
    run(&scenario).succeeded();
    let set = scenario.sets().pop().unwrap();
    Anew { scenario, database, set, old, new }
}

impl Anew {
    fn copies(&self, more: &[&'static str]) -> crate::support::Output {
        self.scenario.run(&[&["backups", "copy", &self.set, "--from", "local", "--to", "offsite"], more].concat())
    }

    fn recipients(&self, store: &str) -> Value {
        let shown = self.scenario.json(&["backups", "show", &self.set, "--store", store]);
        shown["encryption"]["recipients"].clone()
    }

    /// The rows that a restore of the copy in a store has.
    fn restored(&self, server: &Server, store: &str) -> String {
        let name = format!("{}_{store}", server.new_database());
        server.drop_with_test(&name);
        let into = server.url(&name);
        self.scenario.run(&["backups", "restore", &self.set, "--store", store, "--create", "--into", &into]).succeeded();
        sum(server, &name, "t")
    }
}

fn has_nothing_in_the_clear(folder: &Path) {
    for file in std::fs::read_dir(folder).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap();
        assert!(name.ends_with(".age") || name.ends_with(".json"), "{name}");
    }
}

#[test]
fn a_copy_for_others_is_opened_by_them_alone_and_is_the_same_set() {
    let server = server(18);
    let anew = anew(server, "");
    let Anew { scenario, database, set, old, new } = &anew;
    anew.copies(&["--encrypt-to", "store", "--dry-run"]).succeeded().prints(&["encrypted to ", new, "is encrypted and sent"]);
    assert_eq!(in_store(scenario, "offsite"), []);
    let copied = anew.copies(&["--encrypt-to", "store", "--json"]).succeeded();
    let copied: Value = serde_json::from_str(&copied.stdout).unwrap();
    assert_eq!(copied["recipients"], serde_json::json!([new]), "{copied:#}");
    assert_eq!((anew.recipients("local"), anew.recipients("offsite")), (serde_json::json!([old]), serde_json::json!([new])));
    assert_eq!(listed(scenario), [(set.clone(), vec!["local".to_owned(), "offsite".to_owned()])], "it is one set");
    has_nothing_in_the_clear(&scenario.path(&format!("offsite/{set}")));
    for store in ["local", "offsite"] {
        scenario.run(&["backups", "verify", set, "--store", store]).succeeded().prints(&["read back; 1 table and 2,000 rows"]);
        assert_eq!(anew.restored(server, store), sum(server, database, "t"), "{store}");
    }
    // Both objects open with the new key, and with no other.
    for object in ["dump.sql.gz.age", "globals.sql.gz.age"] {
        let opens = |key: &str| {
            let (key, file) = (scenario.path(key), scenario.path(&format!("offsite/{set}/{object}")));
            let opened = std::process::Command::new("age").arg("-d").arg("-i").arg(key).arg(file).output().unwrap();
            opened.status.success() && opened.stdout.starts_with(b"\x1f\x8b")
        };
        assert!(opens("new") && !opens("old"), "{object}");
    }
    // The members are the same, so that parts are found as before.
    let rows = ["backups", "fetch", set, "--store", "offsite", "--table", "t", "--format", "csv", "-o", "rows.csv"];
    scenario.run(&rows).succeeded();
    assert_eq!(std::fs::read_to_string(scenario.path("rows.csv")).unwrap().lines().count(), 2001);
    // Once more is nothing to do; and one copy mends the other as it is.
    anew.copies(&["--encrypt-to", "store"]).succeeded().prints(&["is in offsite already: intact"]);
    damage(&scenario.path(&format!("offsite/{set}/dump.sql.gz.age")));
    scenario.run(&["backups", "verify", set, "--store", "offsite"]).exited(1);
    anew.copies(&["--encrypt-to", "store"]).succeeded().prints(&["is copied from local to offsite"]);
    assert_eq!(anew.recipients("offsite"), serde_json::json!([new]));
    run(scenario).succeeded();
    assert_eq!(listed(scenario).len(), 2);
}

#[test]
fn without_a_key_that_opens_the_set_nothing_is_written_and_the_message_says_what_it_takes() {
    let server = server(18);
    let anew = anew(server, "");
    let Anew { scenario, set, old, new, .. } = &anew;
    let path = scenario.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    for (identity, why) in
        [("", "no `identity_file` here"), ("identity_file = \"new\"\n", "new belongs to one of its recipients")]
    {
        std::fs::write(&path, config.replace("identity_file = \"old\"\n", identity)).unwrap();
        for more in [&["--encrypt-to", "store"][..], &["--encrypt-to", "store", "--dry-run"]] {
            let says = ["is encrypted, and cannot be opened here", why, &format!("Its recipients are: {old}")];
            anew.copies(more).exited(78).says(&says);
        }
        assert!(!scenario.path(&format!("offsite/{set}")).exists());
    }
    std::fs::write(&path, &config).unwrap();
    let secret = std::fs::read_to_string(scenario.path("new")).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    for (key, says) in [(secret, "is a secret key"), ("age1nonsense", "is not a public key"), (&new[..30], "is not a public key")]
    {
        let refused = scenario.run(&["backups", "copy", set, "--to", "offsite", "--encrypt-to", key]).exited(78).says(&[says]);
        assert!(!refused.stderr.contains("SECRET-KEY-1"), "{}", refused.stderr);
    }
    let plain = std::fs::read_to_string(&path).unwrap().replace(&format!("encrypt_to = [\"{new}\"]\n"), "");
    std::fs::write(&path, plain).unwrap();
    anew.copies(&["--encrypt-to", "store"]).exited(78).says(&["store `offsite` has no `encrypt_to`"]);
    assert!(!scenario.path(&format!("offsite/{set}")).exists());
}

#[test]
fn a_copy_for_old_recipients_gives_way_only_when_that_is_said_and_the_other_one_is_good() {
    let server = server(18);
    let anew = anew(server, "");
    let Anew { scenario, database, set, old, new } = &anew;
    anew.copies(&[]).succeeded().says(&["the copy stays encrypted as it is in local", "--encrypt-to encrypts it anew"]);
    let stays = || assert_eq!(anew.recipients("offsite"), serde_json::json!([old]));
    anew.copies(&["--encrypt-to", "store"]).exited(78).says(&["is in offsite already, encrypted to ", old, "With --replace"]);
    stays();
    // What it would be made of is damaged, and nobody has noticed.
    let dump = scenario.path(&format!("store/{set}/dump.sql.gz.age"));
    let good = std::fs::read(&dump).unwrap();
    damage(&dump);
    assert_ne!(anew.copies(&["--encrypt-to", "store", "--replace"]).code, Some(0));
    stays();
    std::fs::write(&dump, good).unwrap();
    scenario.run(&["backups", "verify", set, "--store", "local"]).succeeded();
    anew.copies(&["--encrypt-to", "store", "--replace", "--dry-run"])
        .succeeded()
        .prints(&["gives way when all of this one was sent"]);
    stays();
    anew.copies(&["--encrypt-to", "store", "--replace"]).succeeded().prints(&["is copied from local to offsite", "intact"]);
    assert_eq!(anew.recipients("offsite"), serde_json::json!([new]));
    assert_eq!(listed(scenario).len(), 1);
    assert_eq!(anew.restored(server, "offsite"), sum(server, database, "t"));
    // The way back for the near one.
    scenario.run(&["backups", "copy", set, "--from", "offsite", "--to", "local", "--encrypt-to", new, "--replace"]).succeeded();
    assert_eq!(anew.recipients("local"), serde_json::json!([new]));
}

#[test]
fn a_plain_set_is_encrypted_for_whoever_is_named() {
    let server = server(18);
    let database = small_database(server);
    let scenario =
        Scenario::with_database(server, &database).config("[stores.offsite]\npath = \"offsite\"\n").backup_job("local", "");
    let (one, two) = (age_key(&scenario, "one"), age_key(&scenario, "two"));
    run(&scenario).succeeded();
    let set = scenario.sets().pop().unwrap();
    let copied = scenario.run(&[
        "backups",
        "copy",
        &set,
        "--to",
        "offsite",
        "--encrypt-to",
        &one,
        "--encrypt-to",
        &two,
        "--encrypt-to",
        &one,
    ]);
    copied.succeeded().prints(&["not decoded"]);
    let shown = scenario.json(&["backups", "show", &set, "--store", "offsite"]);
    assert_eq!(shown["encryption"]["recipients"], serde_json::json!([one, two]));
    has_nothing_in_the_clear(&scenario.path(&format!("offsite/{set}")));
    assert_eq!(listed(&scenario).len(), 1);
}

#[test]
fn what_is_sealed_is_sealed_for_the_new_recipients() {
    let server = server(18);
    let anew = anew(server, "seal_manifest = true\n");
    let Anew { scenario, set, new, .. } = &anew;
    let third = age_key(scenario, "third");
    let to_third = ["backups", "copy", set, "--to", "offsite", "--encrypt-to", &third, "--encrypt-to", new];
    scenario.run(&to_third).succeeded();
    let manifest = std::fs::read_to_string(scenario.path(&format!("offsite/{set}/manifest.json"))).unwrap();
    let outer: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(outer["tables"], serde_json::json!([]), "{manifest}");
    assert_eq!(outer["sealed"]["encryption"]["recipients"], serde_json::json!([third, new]));
    let shown = scenario.json(&["backups", "show", set, "--store", "offsite"]);
    assert_eq!(shown["tables"][0]["name"], "t", "{shown:#}");
    scenario.run(&["backups", "verify", set, "--store", "offsite"]).succeeded().prints(&["2,000 rows"]);
    assert_eq!(listed(scenario).len(), 1);
}

/// Killed on its way, the set is whole in the store that it comes from, what it would replace is where it was, and the next call ends it.
#[test]
fn killed_midway_nothing_is_lost_and_the_next_call_goes_on() {
    let server = server(18);
    let database = crate::backup_faults::large_database(server);
    let scenario = Scenario::with_database(server, &database);
    let (old, new) = (age_key(&scenario, "old"), age_key(&scenario, "new"));
    let slow = "[stores.offsite]\npath = \"offsite\"\nidentity_file = \"new\"\nmax_upload = \"1MB/s\"\n";
    let scenario =
        scenario.config(&format!("encrypt_to = [\"{old}\"]\nidentity_file = \"old\"\n")).config(slow).backup_job("local", "");
    run(&scenario).succeeded();
    let set = scenario.sets().pop().unwrap();
    let copy = ["backups", "copy", &set, "--from", "local", "--to", "offsite"];
    let path = scenario.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let fast = || std::fs::write(&path, config.replace("max_upload = \"1MB/s\"\n", "")).unwrap();
    let there = |object: &str| scenario.path(&format!("offsite/{set}/{object}"));
    let is_begun = || {
        let files = std::fs::read_dir(scenario.path(&format!("offsite/{set}"))).into_iter().flatten().flatten();
        let is_partial = |name: std::ffi::OsString| {
            name.to_string_lossy().contains("dump.sql.gz.age") && name.to_string_lossy().ends_with(".partial")
        };
        files.into_iter().any(|file| is_partial(file.file_name()))
    };
    let intact = || vec![(set.clone(), "intact".to_owned())];
    let is_whole_in_local = || {
        assert_eq!(in_store(&scenario, "local"), intact());
        scenario.run(&["backups", "verify", &set, "--store", "local"]).succeeded();
    };
    for replaces in [false, true] {
        let anew: &[&str] = if replaces { &["--encrypt-to", &new, "--replace"] } else { &["--encrypt-to", &new] };
        let arguments = [&copy[..], anew].concat();
        if replaces {
            std::fs::remove_dir_all(scenario.path("offsite/app")).unwrap();
            fast();
            scenario.run(&copy).succeeded();
            std::fs::write(&path, &config).unwrap();
        }
        let running = scenario.start(&arguments);
        eventually("the dump is on its way", is_begun);
        running.kill();
        is_whole_in_local();
        // What it would replace is there until all of it was sent.
        assert_eq!(there("manifest.json").exists(), replaces);
        assert_eq!(in_store(&scenario, "offsite"), if replaces { intact() } else { vec![] });
        fast();
        scenario.run(&arguments).succeeded().prints(&["is copied from local to offsite"]);
        assert_eq!(in_store(&scenario, "offsite"), [(set.clone(), "intact".to_owned())]);
        assert_eq!(listed(&scenario).len(), 1);
        std::fs::write(&path, &config).unwrap();
    }
}

/// A large set and a newer one in `local`, of which its rule keeps the newest alone, and in `offsite`, which keeps both.
fn replacing(server: &Server, speed: &str) -> (Scenario, String, String) {
    let database = crate::backup_faults::large_database(server);
    let scenario = Scenario::with_database(server, &database);
    let (old, new) = (age_key(&scenario, "old"), age_key(&scenario, "new"));
    let keys = format!("encrypt_to = [\"{old}\"]\nidentity_file = \"old\"\n");
    let job = |keep: &str| format!("database = \"app\"\n[backup]\nstore = [\"local\", \"offsite\"]\n{keep}\n");
    let scenario =
        scenario.config(&keys).config(&format!("[stores.offsite]\npath = \"offsite\"\n{keys}")).job("nightly", &job(""));
    run(&scenario).succeeded();
    run(&scenario).succeeded();
    let set = scenario.sets().swap_remove(0);
    let scenario = scenario.config(speed).job("nightly", &job("keep = { last = 1 }\nkeep_in.offsite = { last = 50 }"));
    (scenario, set, new)
}

/// A prune by a host that knows of `local` alone.
fn prune_local(scenario: &Scenario) -> crate::support::Output {
    let path = scenario.path("jobs/nightly.toml");
    let job = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "database = \"app\"\n[backup]\nstore = \"local\"\nkeep = { last = 1 }\n").unwrap();
    let pruned = scenario.run(&["backups", "prune"]);
    std::fs::write(&path, job).unwrap();
    pruned
}

fn has(scenario: &Scenario, store: &str, set: &str) -> bool {
    in_store(scenario, store).contains(&(set.to_owned(), "intact".to_owned()))
}

#[test]
fn a_prune_of_the_source_takes_no_set_whose_other_copy_is_being_replaced() {
    let (scenario, set, new) = replacing(server(18), "max_upload = \"1MB/s\"\n");
    let running =
        scenario.start(&["backups", "copy", &set, "--from", "local", "--to", "offsite", "--encrypt-to", &new, "--replace"]);
    let folder = scenario.path(&format!("offsite/{set}"));
    eventually("the dump is on its way", || {
        let mut files = std::fs::read_dir(&folder).unwrap().flatten();
        files.any(|file| file.file_name().to_string_lossy().ends_with(".partial"))
    });
    running.signal(rustix::process::Signal::STOP);
    prune_local(&scenario).succeeded();
    assert!(!has(&scenario, "local", &set) && has(&scenario, "offsite", &set), "offsite has it as it was");
    running.signal(rustix::process::Signal::CONT);
    assert_ne!(running.wait().code, Some(0));
    assert!(has(&scenario, "offsite", &set), "what it would replace stays");
    scenario.run(&["backups", "verify", &set, "--store", "offsite"]).succeeded();
}

#[test]
fn a_copy_that_fails_while_it_takes_the_place_of_another_one_leaves_the_source_held() {
    let (scenario, set, new) = replacing(server(18), "");
    let replace = ["backups", "copy", &*set, "--from", "local", "--to", "offsite", "--encrypt-to", &new, "--replace"];
    let hold = scenario.path(&format!("store/{set}/hold-for-copy.json"));
    // The dump is put in its place, and the globals cannot be.
    let globals = scenario.path(&format!("offsite/{set}/globals.sql.gz.age"));
    std::fs::remove_file(&globals).unwrap();
    std::fs::create_dir_all(globals.join("in-the-way")).unwrap();
    assert_ne!(scenario.run(&replace).code, Some(0));
    assert!(hold.exists() && !has(&scenario, "offsite", &set));
    prune_local(&scenario).succeeded().prints(&["this may be the only one"]);
    assert!(has(&scenario, "local", &set));
    // The run cannot copy it either: without a hold, too, it deletes no set that the other store is to have.
    std::fs::remove_file(&hold).unwrap();
    run(&scenario).succeeded().says(&["could not be copied there"]);
    assert!(has(&scenario, "local", &set), "offsite keeps it by its rules, and lacks it");
    std::fs::remove_dir_all(&globals).unwrap();
    run(&scenario).succeeded().prints(&["copied 1 set that offsite lacked"]);
    assert!(has(&scenario, "offsite", &set) && !hold.exists());
    assert!(!has(&scenario, "local", &set), "now its rule lets it go");
    // One that succeeds leaves no hold.
    let newest = in_store(&scenario, "local").pop().unwrap().0;
    let replace = replace.map(|argument| if argument == set { &newest } else { argument });
    scenario.run(&replace).succeeded();
    assert!(has(&scenario, "offsite", &newest) && !scenario.path(&format!("store/{newest}/hold-for-copy.json")).exists());
}

#[test]
fn a_copy_that_fails_and_took_nothing_away_leaves_no_hold_of_its_own() {
    let server = server(18);
    let scenario = two_folders(server, &small_database(server), "keep = { last = 5 }");
    run(&scenario).succeeded();
    let set = in_store(&scenario, "local")[0].0.clone();
    let there = |object: &str| scenario.path(&format!("offsite/{set}/{object}"));
    // A copy that was begun there, and cannot be finished.
    for object in ["manifest.json", "verification.json", "globals.sql.gz"] {
        std::fs::remove_file(there(object)).unwrap();
    }
    std::fs::create_dir_all(there("globals.sql.gz/in-the-way")).unwrap();
    let copy = ["backups", "copy", &*set, "--from", "local", "--to", "offsite"];
    assert_ne!(scenario.run(&copy).code, Some(0));
    let hold = scenario.path(&format!("store/{set}/hold-for-copy.json"));
    assert!(!hold.exists(), "{}", std::fs::read_to_string(&hold).unwrap());
    // That of a copy that was killed in the place of another one stays: this may be the only one.
    let of_another =
        serde_json::json!({"until": "2999-01-01T00:00:00Z", "reason": "a copy of it is made in third", "for_copy": true});
    std::fs::write(&hold, of_another.to_string()).unwrap();
    assert_ne!(scenario.run(&copy).code, Some(0));
    assert!(hold.exists());
    std::fs::remove_dir_all(there("globals.sql.gz")).unwrap();
    scenario.run(&copy).succeeded();
    assert!(!hold.exists() && has(&scenario, "offsite", &set));
}

#[test]
fn the_dump_of_a_replacement_that_was_killed_outlives_the_store_that_it_was_copied_from() {
    let (scenario, set, new) = replacing(server(18), "");
    let globals = scenario.path(&format!("offsite/{set}/globals.sql.gz.age"));
    std::fs::remove_file(&globals).unwrap();
    std::fs::create_dir_all(globals.join("in-the-way")).unwrap();
    let replace = ["backups", "copy", &*set, "--from", "local", "--to", "offsite", "--encrypt-to", &new, "--replace"];
    assert_ne!(scenario.run(&replace).code, Some(0));
    std::fs::remove_dir_all(&globals).unwrap();
    std::fs::rename(scenario.path("store"), scenario.path("dead")).unwrap();
    // The process is known to be dead, so that this run sweeps what it left.
    assert_ne!(run(&scenario).code, None);
    assert!(scenario.path(&format!("offsite/{set}/dump.sql.gz.age")).exists(), "it is the only dump of that set");
}

#[test]
fn of_two_replacements_in_opposite_directions_neither_takes_the_others_source() {
    let (scenario, set, new) = replacing(server(18), "");
    // The other one has held what it copies from, and comes to the moment without a set.
    let hold = serde_json::json!({"until": "2999-01-01T00:00:00Z", "reason": "a copy of it is made in local", "for_copy": true});
    std::fs::write(scenario.path(&format!("offsite/{set}/hold-for-copy.json")), hold.to_string()).unwrap();
    let replace = ["backups", "copy", &*set, "--from", "local", "--to", "offsite", "--encrypt-to", &new, "--replace"];
    scenario.run(&replace).exited(75).says(&["a copy in another store is being made of", "release"]);
    assert!(has(&scenario, "offsite", &set) && has(&scenario, "local", &set));
    assert!(!scenario.path(&format!("store/{set}/hold-for-copy.json")).exists(), "it holds nothing that it does not copy");
}

#[test]
fn what_a_killed_encryption_left_in_the_clear_goes_with_the_next_copy_or_with_the_set() {
    for again in [true, false] {
        let server = server(18);
        let scenario = two_folders(server, &small_database(server), "keep = { last = 1 }");
        let new = age_key(&scenario, "new");
        run(&scenario).succeeded();
        let set = in_store(&scenario, "offsite")[0].0.clone();
        let folder = scenario.path(&format!("offsite/{set}"));
        let plain =
            ["dump.sql.gz", "globals.sql.gz"].map(|object| (folder.join(object), std::fs::read(folder.join(object)).unwrap()));
        let copy = ["backups", "copy", &*set, "--from", "local", "--to", "offsite", "--encrypt-to", &new, "--replace"];
        scenario.run(&copy).succeeded();
        // Killed after the manifest and before the plain objects went.
        for (path, bytes) in &plain {
            std::fs::write(path, bytes).unwrap();
        }
        let said = "in the clear in offsite: dump.sql.gz, globals.sql.gz";
        scenario.run(&["backups", "list"]).succeeded().prints(&[said]);
        let listed = scenario.json(&["backups", "list", "--store", "offsite"]);
        assert_eq!(listed["sets"][0]["in_the_clear"], serde_json::json!(["dump.sql.gz", "globals.sql.gz"]), "{listed:#}");
        let said = "is encrypted, and dump.sql.gz, globals.sql.gz beside it is not: `pgtend backups copy";
        scenario.run(&["doctor"]).succeeded().prints(&["store offsite", said]);
        if again {
            scenario.run(&copy).succeeded();
        } else {
            run(&scenario).succeeded();
            assert!(!in_store(&scenario, "offsite").iter().any(|(name, _)| *name == set), "pruned");
        }
        assert!(plain.iter().all(|(path, _)| !path.exists()), "again: {again}");
        let said = scenario.run(&["backups", "list"]).succeeded();
        assert!(!said.stdout.contains("in the clear"), "{}", said.stdout);
    }
}
