//! Stores with a key: a stranger has no key, and may leave the signature out, or put back what was signed once.

use anyhow::{Context as _, Result};
use pgtend::archive::{Archive, Manifest};
use pgtend::base::process_identity::ProcessIdentity;
use pgtend::base::progress::Progress;
use pgtend::config;
use pgtend::store::Store;
use pgtend::store::lease::{self, Taken};
use serde_json::Value;

use crate::retention;
use crate::store_signed::{KEY, bytes_of, in_set, set_key, with_job};
use crate::support::postgres::server;
use crate::support::{Scenario, set_own_environment};

/// Works with the scenario's store as a program that has its key, or not.
fn with_store(scenario: &Scenario, has_key: bool, work: impl AsyncFn(&Store) -> Result<()>) {
    // What a host remembers of its stores is not to be that of this one.
    set_own_environment(&[("XDG_STATE_HOME", "/dev/null/state")]);
    let sign_key = has_key.then(|| KEY.trim().to_owned().into());
    let configured =
        config::Store::Dir { path: scenario.path("store"), sign_key, age: std::sync::Arc::default(), max_upload: None };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { work(&Store::open(&configured).await?).await }).unwrap_or_else(|error| panic!("{error:#}"));
}

fn report(scenario: &Scenario, job: &str) -> Value {
    scenario.json(&["run-job", job])["runs"][0]["report"].clone()
}

#[test]
fn a_hold_without_a_signature_ends_no_hold_of_a_person() {
    let scenario = with_job(server(18), "keep = { last = 1 }");
    set_key(&scenario, Some(KEY));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let held = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "hold", &held, "--until", "2099-01-01", "--reason", "for a lawyer"]).succeeded();
    let over = r#"{"until":"2020-01-01T00:00:00Z","reason":"over","because_of":null}"#;
    std::fs::write(in_set(&scenario, &held, "hold.json"), over).unwrap();
    let warnings = report(&scenario, "nightly")["warnings"].to_string();
    for said in [&*held, "held until a person checks", "hold.json", "it is not signed"] {
        assert!(warnings.contains(said), "{said}: {warnings}");
    }
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["backups", "prune"]).succeeded().prints(&["held until a person checks"]);
    assert_eq!(scenario.sets().len(), 2, "{:?}", scenario.sets());
    assert!(scenario.sets().contains(&held));
    // A person looks.
    scenario.run(&["backups", "release", &held]).succeeded();
    scenario.run(&["backups", "prune"]).succeeded();
    assert!(!scenario.sets().contains(&held));

    // The same of a hold after a loss.
    let held = scenario.sets().pop().unwrap();
    std::fs::write(in_set(&scenario, &held, "hold-after-loss.json"), over).unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(scenario.sets().contains(&held));
    std::fs::remove_file(in_set(&scenario, &held, "hold-after-loss.json")).unwrap();
    scenario.run(&["backups", "prune"]).succeeded();
    assert!(!scenario.sets().contains(&held));
}

#[test]
fn a_strangers_word_releases_no_lock_and_a_lock_that_is_put_back_is_not_ours() {
    let scenario = with_job(server(18), "");
    set_key(&scenario, Some(KEY));
    with_store(&scenario, true, async |store| {
        let key = "app/nightly/lock.json";
        let take = async |seen: Option<&lease::Seen>| match lease::take(store, key, seen).await? {
            Taken::Held(lease) => anyhow::Ok(Ok(lease)),
            Taken::HeldByOther(who) => Ok(Err(who)),
            Taken::Impossible(why) => anyhow::bail!(why),
        };
        let Ok(ours) = take(None).await? else { anyhow::bail!("it is free") };
        ours.prove().await?;
        let first = String::from_utf8(store.get(key).await?.context("it is held")?)?;
        assert!(first.contains("\"signature\""), "{first}");
        ours.prove().await?;

        let released = first.replace("\"released\": false", "\"released\": true");
        assert_ne!(released, first);
        let (unsigned, _) = released.split_once(",\n  \"signature\"").context("it is signed")?;
        let dead = ProcessIdentity { start_ticks: "1".into(), ..ProcessIdentity::own() };
        let dead = serde_json::json!({ "holder": dead, "nonce": "n", "renewed": 1, "taken_at": "2026-11-28T01:00:00Z" });
        for forged in [released.clone(), format!("{unsigned}\n}}"), dead.to_string()] {
            store.put(key, forged.clone().into_bytes()).await?;
            let Err(who) = take(None).await? else { anyhow::bail!("taken: {forged}") };
            assert!(who.contains("an unknown process"), "{who}");
        }
        // It is held until it has not changed for 15 minutes of our own waiting.
        let mut seen = lease::look(store, key).await?.context("it is held")?;
        if let Some(long_ago) = std::time::Instant::now().checked_sub(std::time::Duration::from_secs(15 * 60)) {
            seen.at = long_ago;
            let Ok(theirs) = take(Some(&seen)).await? else { anyhow::bail!("not taken over") };
            theirs.release().await?;
        }

        // One of our own that was signed, put back.
        store.delete(key).await?;
        let Ok(ours) = take(None).await? else { anyhow::bail!("it is free") };
        ours.prove().await?;
        store.put(key, first.clone().into_bytes()).await?;
        assert!(ours.prove().await.is_err(), "before the next deletion it is seen");
        Ok(())
    });
}

#[test]
fn a_verdict_that_is_put_back_makes_no_intact_set_go() {
    let scenario = with_job(server(18), "keep = { last = 2 }");
    set_key(&scenario, Some(KEY));
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let [good, damaged] = &scenario.sets()[..] else { panic!("two sets") };
    let proof = in_set(&scenario, damaged, "verification.json");
    let intact = std::fs::read(&proof).unwrap();
    let dump = in_set(&scenario, damaged, "dump.sql.gz");
    let mut bytes = std::fs::read(&dump).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    scenario.run(&["backups", "verify", damaged]).exited(1).says(&["is damaged"]);
    assert_eq!(bytes_of(&scenario, damaged), "damaged");
    std::fs::write(&proof, &intact).unwrap();
    assert_eq!(bytes_of(&scenario, damaged), "intact", "says a signature of ours");

    let scenario = scenario.backup_job("local", "keep = { last = 1 }");
    scenario.run(&["backups", "prune"]).succeeded().says(&[&format!("set {damaged} is damaged")]);
    assert_eq!(bytes_of(&scenario, damaged), "damaged", "it was read");
    assert!(scenario.sets().contains(good), "{:?}", scenario.sets());

    // A run has read its own set, and the good one goes for that.
    std::fs::write(&proof, &intact).unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let sets = scenario.sets();
    assert!(!sets.contains(good) && sets.len() <= 2, "{sets:?}");
}

#[test]
fn a_set_that_is_damaged_by_an_old_verdict_alone_does_not_go() {
    let scenario = with_job(server(18), "keep = { last = 2 }");
    set_key(&scenario, Some(KEY));
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let first = scenario.sets().remove(0);
    with_store(&scenario, true, async |store| {
        let condemned = serde_json::json!({
            "bytes": { "verdict": "damaged", "checked_at": "2026-01-01T00:00:00Z", "problems": ["SHA-256"], "elapsed_seconds": 1.0 },
            "restores": [],
        });
        store.put_json(&format!("{first}/verification.json"), &condemned).await
    });
    assert_eq!(bytes_of(&scenario, &first), "damaged");
    scenario.run(&["backups", "prune"]).succeeded();
    assert_eq!(bytes_of(&scenario, &first), "intact", "it was read before it could go");
}

#[test]
fn a_pending_manifest_that_is_put_back_fails_no_run_and_costs_no_object() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'");
    set_key(&scenario, Some(KEY));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let listed = scenario.json(&["archives", "list"]);
    let batch = listed["batches"][0]["batch"].as_str().unwrap().to_owned();
    let at = |end: &str| scenario.path(&format!("store/{batch}{end}"));
    let counts = std::fs::read(at(".json")).unwrap();
    let write_pending = |is_before_its_object: bool| {
        with_store(&scenario, true, async |store| {
            let mut manifest: Manifest = serde_json::from_slice(&counts)?;
            if is_before_its_object {
                manifest.exported = Default::default();
            }
            store.put_json(&format!("{batch}.pending.json"), &manifest).await
        });
    };

    // Beside a batch that counts it is just removed.
    write_pending(true);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert!(!at(".pending.json").exists());
    assert_eq!(std::fs::read(at(".json")).unwrap(), counts, "nothing is written over it");

    // Without one, PostgreSQL says that the rows are nowhere else.
    std::fs::remove_file(at(".json")).unwrap();
    write_pending(true);
    for _ in 0..2 {
        let warnings = report(&scenario, "old-logs")["warnings"].to_string();
        assert!(warnings.contains(".pending.json stays: PostgreSQL says that its transaction"), "{warnings}");
        assert!(at(".sql.gz").exists() && at(".pending.json").exists());
    }

    // The true one is completed.
    write_pending(false);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert!(at(".json").exists() && !at(".pending.json").exists());
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);

    // With its object gone it is named, and fails no run.
    std::fs::remove_file(at(".json")).unwrap();
    std::fs::rename(at(".sql.gz"), at(".away")).unwrap();
    write_pending(false);
    let warnings = report(&scenario, "old-logs")["warnings"].to_string();
    assert!(warnings.contains("which does not exist"), "{warnings}");
}

#[test]
fn an_object_of_the_same_length_with_other_bytes_is_no_reason_to_drop_anything() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let listed = scenario.json(&["archives", "list"]);
    let key = format!("{}.sql.gz", listed["batches"][0]["batch"].as_str().unwrap());
    let path = scenario.path(&format!("store/{key}"));
    let counts = |expected: bool| {
        with_store(&scenario, false, async |store| {
            let archive = Archive::new(store.clone(), "app", "old-logs");
            let phase = Progress::logged().phase("prove", None);
            let batch = archive.batch(&key).await?.context("its manifest counts")?;
            anyhow::ensure!(batch.table() == Some(("public", "logs")), "it holds rows of another table");
            anyhow::ensure!(archive.is_whole(&batch, &phase).await? == expected, "it is not {expected} that it is whole");
            Ok(())
        });
    };
    counts(true);
    let written = std::fs::read(&path).unwrap();
    let mut other = written.clone();
    let at = other.len() / 2;
    other[at] ^= 1;
    std::fs::write(&path, &other).unwrap();
    counts(false);
    std::fs::write(&path, [&written[..], b"x"].concat()).unwrap();
    counts(false);
    std::fs::remove_file(&path).unwrap();
    counts(false);
}
