//! Stores with a key: what a stranger wrote is not ours.

use std::path::PathBuf;

use crate::retention;
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

pub const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// With or without `sign_key_file`, from then on.
pub fn set_key(scenario: &Scenario, key: Option<&str>) {
    let path = scenario.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let without: String = text.lines().filter(|line| !line.starts_with("sign_key")).map(|line| format!("{line}\n")).collect();
    let text = match key {
        None => without,
        Some(key) => {
            std::fs::write(scenario.path("key"), key).unwrap();
            without.replace("path = \"store\"\n", "path = \"store\"\nsign_key_file = \"key\"\n")
        }
    };
    std::fs::write(path, text).unwrap();
}

pub fn with_job(server: &Server, keys: &str) -> Scenario {
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 10) i");
    Scenario::with_database(server, &database).backup_job("local", keys)
}

pub fn in_set(scenario: &Scenario, set: &str, object: &str) -> PathBuf {
    let object = if object.ends_with(".gz") { scenario.object(object) } else { object.to_owned() };
    scenario.path(&format!("store/{set}/{object}"))
}

fn not_ours(scenario: &Scenario) -> Vec<(String, String)> {
    let listed = scenario.json(&["backups", "list"]);
    let sets = listed["not_ours"].as_array().unwrap();
    sets.iter().map(|set| (set["set"].as_str().unwrap().to_owned(), set["signature"].as_str().unwrap().to_owned())).collect()
}

pub fn bytes_of(scenario: &Scenario, set: &str) -> String {
    let listed = scenario.json(&["backups", "list"]);
    let sets = listed["sets"].as_array().unwrap();
    sets.iter().find(|listed| listed["set"] == set).unwrap()["bytes"].as_str().unwrap().to_owned()
}

#[test]
fn a_set_without_a_signature_is_neither_restored_nor_counted_nor_deleted() {
    let server = server(18);
    let scenario = with_job(server, "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let unsigned = scenario.sets().pop().unwrap();
    set_key(&scenario, Some(KEY));
    assert_eq!(scenario.sets(), Vec::<String>::new());
    assert_eq!(not_ours(&scenario), [(unsigned.clone(), "missing".to_owned())]);
    scenario.run(&["backups", "list"]).succeeded().says(&[&unsigned, "in local: it is not signed"]);
    scenario.run(&["backups", "list", "--unsigned-ok"]).succeeded().prints(&[&unsigned, "not signed"]);
    let into = server.url(&server.empty_database());
    for set in ["latest", unsigned.as_str()] {
        scenario.run(&["backups", "restore", set, "--into", &into]).exited(78).says(&["is not accepted", "--unsigned-ok"]);
        scenario.run(&["backups", "verify", set]).exited(78).says(&["is not accepted", "--unsigned-ok"]);
    }
    scenario.run(&["backups", "verify", "latest", "--unsigned-ok"]).succeeded();
    scenario.run(&["backups", "restore", "latest", "--into", &into, "--unsigned-ok"]).succeeded();

    // It fills no place, and goes for none.
    let report = scenario.json(&["run-job", "nightly"]);
    let warnings = report["runs"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("1 set here are ignored") || warnings.contains(&unsigned), "{warnings}");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let signed = scenario.sets();
    assert_eq!((signed.len(), not_ours(&scenario).len()), (1, 1), "the first signed one was pruned, and the unsigned one stays");
    scenario.run(&["backups", "prune"]).succeeded().says(&[&unsigned]);
    assert!(in_set(&scenario, &unsigned, "dump.sql.gz").exists());
    let into = server.url(&server.empty_database());
    scenario.run(&["backups", "restore", "latest", "--into", &into]).succeeded();

    // Whoever has no key reads them all.
    set_key(&scenario, None);
    assert_eq!(scenario.sets().len(), 2);
    assert_eq!(bytes_of(&scenario, &signed[0]), "intact");
}

#[test]
fn a_set_that_a_stranger_changed_moved_or_proved_is_not_ours() {
    let server = server(18);
    let scenario = with_job(server, "");
    set_key(&scenario, Some(KEY));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    assert_eq!(bytes_of(&scenario, &set), "intact");
    let manifest = std::fs::read_to_string(in_set(&scenario, &set, "manifest.json")).unwrap();

    // An old set under a new name.
    let moved = "app/nightly/2026-01-01T02-00-00Z";
    std::fs::create_dir_all(scenario.path(&format!("store/{moved}"))).unwrap();
    for object in ["dump.sql.gz", "globals.sql.gz", "manifest.json", "verification.json"] {
        std::fs::copy(in_set(&scenario, &set, object), in_set(&scenario, moved, object)).unwrap();
    }
    assert_eq!(not_ours(&scenario), [(moved.to_owned(), "wrong".to_owned())]);
    std::fs::remove_dir_all(scenario.path(&format!("store/{moved}"))).unwrap();

    // Another key.
    set_key(&scenario, Some("another key of thirty-two bytes or more"));
    assert_eq!(not_ours(&scenario), [(set.clone(), "wrong".to_owned())]);
    set_key(&scenario, Some(KEY));

    // A manifest with a checksum that fits and other content.
    let forged = {
        let mut value: pgtend::task::backup::manifest::Manifest =
            pgtend::task::backup::manifest::from_json(manifest.as_bytes()).unwrap();
        value.by_hand = !value.by_hand;
        pgtend::task::backup::manifest::to_json(&value).unwrap()
    };
    std::fs::write(in_set(&scenario, &set, "manifest.json"), forged).unwrap();
    assert_eq!(not_ours(&scenario), [(set.clone(), "missing".to_owned())]);
    std::fs::write(in_set(&scenario, &set, "manifest.json"), manifest).unwrap();

    // "intact", says somebody: nobody has read it.
    let proof = std::fs::read_to_string(in_set(&scenario, &set, "verification.json")).unwrap();
    let start = proof.find(",\n  \"signature\"").unwrap();
    std::fs::write(in_set(&scenario, &set, "verification.json"), format!("{}\n}}", &proof[..start])).unwrap();
    assert_eq!(bytes_of(&scenario, &set), "unknown");
    scenario.run(&["backups", "list"]).succeeded().says(&["verification.json is ignored"]);
    scenario.run(&["backups", "verify", "latest"]).succeeded();
    assert_eq!(bytes_of(&scenario, &set), "intact");
}

#[test]
fn leftovers_and_acceptances_without_a_signature_move_nothing() {
    let scenario = with_job(server(18), "keep = { last = 1 }");
    set_key(&scenario, Some(KEY));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    // A folder that somebody wants swept: a mark of a process that is gone, and no manifest.
    let folder = scenario.path("store/app/nightly/2026-01-01T02-00-00Z");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(in_set(&scenario, &set, "dump.sql.gz"), folder.join(scenario.object("dump.sql.gz"))).unwrap();
    let marker = std::fs::read_to_string(in_set(&scenario, &set, "run.json")).unwrap();
    std::fs::write(folder.join("run.json"), marker.replacen("\"pid\": ", "\"pid\": 9", 1)).unwrap();
    std::fs::write(scenario.path("store/app/nightly/series.json"), "{ \"accepted\": [] }").unwrap();
    let report = scenario.json(&["run-job", "nightly"])["runs"][0]["report"].clone();
    let warnings = report["warnings"].to_string();
    for said in ["2026-01-01T02-00-00Z has objects but no manifest", "series.json: it is not signed"] {
        assert!(warnings.contains(said), "{said}: {warnings}");
    }
    assert!(folder.join(scenario.object("dump.sql.gz")).exists());
    assert_eq!(scenario.sets().len(), 2, "as long as it is not known whose sets are whose, none goes");
    std::fs::remove_file(scenario.path("store/app/nightly/series.json")).unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
    assert!(folder.join(scenario.object("dump.sql.gz")).exists());
}

#[test]
fn archived_rows_without_a_signature_are_not_put_back() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    set_key(&scenario, Some(KEY));
    let listed = scenario.json(&["archives", "list"]);
    assert_eq!(listed["batches"].as_array().unwrap().len(), 0, "{listed:#}");
    assert_eq!(listed["not_ours"][0]["signature"], "missing", "{listed:#}");
    scenario.run(&["archives", "list", "--unsigned-ok"]).succeeded().prints(&["(not signed)"]);
    scenario.run(&["archives", "restore"]).exited(1).says(&["it is not signed", "--unsigned-ok"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    scenario.run(&["archives", "restore", "--unsigned-ok"]).succeeded().prints(&["760 rows put back"]);

    // With a key they are signed; a signed one whose manifest somebody changed is not ours.
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let listed = scenario.json(&["archives", "list"]);
    assert_eq!(listed["batches"][0]["signature"], "valid", "{listed:#}");
    let batch = listed["batches"][0]["batch"].as_str().unwrap();
    let manifest = scenario.path(&format!("store/{batch}.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("\"logs\"", "\"users\"", 1)).unwrap();
    scenario.run(&["archives", "restore"]).exited(1).says(&[batch, "its signature is not that of the store's key"]);
    std::fs::write(&manifest, text).unwrap();
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    // Without the key they are readable.
    set_key(&scenario, None);
    assert_eq!(scenario.json(&["archives", "list"])["batches"].as_array().unwrap().len(), 2);
}

#[test]
fn mistakes_of_a_sign_key_are_named() {
    for (keys, says) in [
        ("sign_key_file = \"key\"\nsign_key_env = \"HOME\"", "both `sign_key_env` and `sign_key_file` are set"),
        ("sign_key_file = \"nowhere\"", "it must contain the `sign_key` of store `local`"),
        ("sign_key_env = \"NOT_SET_ANYWHERE\"", "the environment has no variable `NOT_SET_ANYWHERE`"),
        ("sign_key_file = \"short\"", "the `sign_key` of store `local` has 31 bytes; it needs at least 32"),
        ("sign_key = \"literal\"", "sign_key"),
    ] {
        let scenario = Scenario::empty().config(&format!("[stores.local]\npath = \"store\"\n{keys}\n"));
        std::fs::write(scenario.path("key"), KEY).unwrap();
        std::fs::write(scenario.path("short"), format!("{}\n", "x".repeat(31))).unwrap();
        // As JSON, whose lines are not wrapped.
        scenario.run(&["check", "--json"]).exited(78).prints(&[says]);
    }
    let bucket = Scenario::empty().config("[stores.b]\nbucket = \"b\"\nsign_key_env = \"KEY\"\n").env("KEY", KEY.trim());
    bucket.run(&["check"]).succeeded();
}
