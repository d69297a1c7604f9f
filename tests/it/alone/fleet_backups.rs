//! Whether each of 10,000 databases has a backup that counts: a store is asked for many of them at once, and what it has lost is found all the same.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgtend::task::backup::manifest::{self, Manifest};
use serde_json::Value;

use super::fleet::processor_seconds;
use crate::support::Scenario;
use crate::support::postgres::Server;
use crate::support::quoted;
use crate::support::s3::S3Server;
use crate::support::serve::{Serving, with_ledger};

/// The stores are judged behind the page, in nine minutes at most.
const PATIENCE: Duration = Duration::from_secs(600);

/// The time of a set that is older.
const OLDER: &str = "2026-01-01T02-00-00Z";

/// Entries of databases that are like `tenant_1`, and have no files: whoever lists them sees them, and nobody connects to them.
const ENTRIES: &str = "SET allow_system_table_mods = on;
    INSERT INTO pg_database
    SELECT (jsonb_populate_record(NULL::pg_database, to_jsonb(d) || jsonb_build_object('oid', 200000 + n, 'datname', 'tenant_' || n))).*
    FROM pg_database d, generate_series(2, COUNT) n WHERE datname = 'tenant_1'";

/// What the ledger would know of runs that made their sets.
const RUNS: &str = "INSERT INTO pgtend.runs
    (job, database, task, trigger, scheduled_for, started_at, locked_at, finished_at, outcome, report, host, pid, version)
    SELECT job, 'main.tenant_' || n, task, trigger, scheduled_for, started_at, locked_at, finished_at, outcome,
           replace(report::text, 'main.tenant_1/', 'main.tenant_' || n || '/')::jsonb, host, pid, version
    FROM pgtend.runs, generate_series(2, COUNT) n WHERE database = 'main.tenant_1' AND outcome = 'succeeded';
    ANALYZE pgtend.runs";

/// So many databases, of whose sets the first one alone is real: each has a newest one, and those of `with_older` one of January, too. Returns the time of the
/// newest ones.
fn tenants(
    fleet: &Server,
    (count, with_older): (u32, std::ops::RangeInclusive<u32>),
    store: &str,
    with_store: impl FnOnce(Scenario) -> Scenario,
    file_of: impl Fn(&Scenario, &str) -> PathBuf,
) -> (Scenario, String) {
    let (scenario, ledger) = with_ledger(fleet);
    fleet.sql("postgres", "CREATE DATABASE tenant_1");
    fleet.sql("tenant_1", "CREATE TABLE t AS SELECT 1 AS i");
    let server = format!("[servers.main]\nurl = {}\ndatabases = \"tenant_*\"\n", quoted(&fleet.url("postgres")));
    let nightly =
        format!("databases = \"tenant_*\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"{store}\"\nverify = \"checksum\"\n");
    let scenario = with_store(scenario.config(&server)).job("nightly", &nightly);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let time = set.rsplit('/').next().unwrap().to_owned();
    let from = file_of(&scenario, &set);
    let mut manifest = manifest::from_json(&std::fs::read(from.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.server.database.name, "tenant_1");
    // Their entries are made after their sets: as in sets of earlier releases, the OID tells whose they are.
    manifest.server.database.marks.clear();
    let newest = manifest.started_at;
    for number in 2..=count {
        manifest.server.database.name = format!("tenant_{number}");
        manifest.server.database.oid = Some(200_000 + i64::from(number));
        let folder = |time: &str| file_of(&scenario, &format!("main.tenant_{number}/nightly/{time}"));
        copy(&from, &folder(&time), &manifest);
        if with_older.contains(&number) {
            manifest.started_at = OLDER.replace("-00-00Z", ":00:00Z").parse().unwrap();
            copy(&from, &folder(OLDER), &manifest);
            manifest.started_at = newest;
        }
    }
    fleet.sql("postgres", &ENTRIES.replace("COUNT", &count.to_string()));
    fleet.sql(&ledger, &RUNS.replace("COUNT", &count.to_string()));
    (scenario, time)
}

/// The same set with another manifest. The bytes of its other objects are there once.
fn copy(from: &Path, to: &Path, manifest: &Manifest) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["dump.sql.gz", "globals.sql.gz", "verification.json"] {
        std::fs::hard_link(from.join(file), to.join(file)).unwrap();
    }
    std::fs::write(to.join("manifest.json"), manifest::to_json(manifest).unwrap()).unwrap();
}

/// How many of them are of each kind.
fn counts(fleet: &Value) -> [u64; 4] {
    ["well", "by_ledger", "without_backup", "in_doubt"].map(|state| fleet[state].as_u64().unwrap_or_else(|| panic!("{fleet}")))
}

/// What the page says of the job once the stores were asked.
fn judged(serving: &Serving) -> Value {
    let started = Instant::now();
    loop {
        let fleet = serving.json("/api/jobs")["fleets"][0].clone();
        if !fleet["stores_asked_at"].is_null() {
            println!(
                "judged behind the page after {:?}, {} s of a processor",
                started.elapsed(),
                processor_seconds(serving.pid())
            );
            return fleet;
        }
        assert!(started.elapsed() < PATIENCE, "{fleet}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn the_backups_of_ten_thousand_databases_in_a_folder_are_judged_and_none_that_is_lost_is_called_safe() {
    const DATABASES: u32 = 10_000;
    let fleet = Server::start_with(18, &["autovacuum=off"]);
    let in_store = |scenario: &Scenario, key: &str| scenario.path(&format!("store/{key}"));
    let (scenario, time) = tenants(&fleet, (DATABASES, 2..=DATABASES), "local", |scenario| scenario, in_store);
    let asked_at = Instant::now();
    let before = counts(&scenario.json(&[])["fleets"][0]);
    println!("`pgtend` after {:?}: {before:?}", asked_at.elapsed());
    // A person is answered after half a minute, on a busy machine before all were asked.
    assert_eq!(before[0] + before[1], u64::from(DATABASES), "{before:?}");
    let asked_at = Instant::now();
    scenario.run(&["jobs"]).succeeded().prints(&["10,000 of 10,000 well"]);
    println!("`pgtend jobs` after {:?}", asked_at.elapsed());

    // The sets of one are gone, the manifest of another's newest one, and a third one's newest was found damaged.
    let of = |number: u32, object: &str| scenario.path(&format!("store/main.tenant_{number}/nightly/{time}/{object}"));
    std::fs::remove_dir_all(scenario.path("store/main.tenant_17")).unwrap();
    std::fs::remove_file(of(18, "manifest.json")).unwrap();
    let intact = std::fs::read_to_string(of(19, "verification.json")).unwrap();
    assert!(intact.contains("\"intact\""), "{intact}");
    std::fs::remove_file(of(19, "verification.json")).unwrap();
    std::fs::write(of(19, "verification.json"), intact.replace("\"intact\"", "\"damaged\"")).unwrap();
    let mut serving = Serving::ready(&scenario, "");
    let fleet = judged(&serving);
    let by_stores = fleet["by_stores"].as_str().unwrap_or_default();
    assert!(by_stores.starts_with("9,997 of 10,000 well, 1 without a backup that counts, 2 with a backup in doubt"), "{fleet}");
    assert_eq!((&fleet["well"], &fleet["without_proof"]), (&Value::from(9997), &Value::from(3)), "{fleet}");

    // What a page shows is read again after two seconds.
    std::thread::sleep(Duration::from_millis(2100));
    let (asked_at, before) = (Instant::now(), processor_seconds(serving.pid()));
    let page = serving.get("/").body;
    let took = processor_seconds(serving.pid()) - before;
    println!("page of {} bytes in {:?}, {took} s of a processor", page.len(), asked_at.elapsed());
    for text in ["9,997 well", "3 not safe", "stores asked"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(took < 0.5, "{took} s of a processor");
    assert_eq!(serving.terminate(), Some(0));
}

#[test]
fn a_bucket_is_asked_for_many_databases_at_once_and_for_one_where_it_lost_something() {
    const DATABASES: u32 = 1000;
    let (fleet, s3) = (Server::start_with(18, &["autovacuum=off"]), S3Server::start());
    let in_bucket = |_: &Scenario, key: &str| s3.file_of(&format!("test/{key}"));
    let (scenario, time) = tenants(&fleet, (DATABASES, 500..=500), "bucket", |scenario| scenario.s3(&s3), in_bucket);
    let since = |before: (u64, u64)| {
        let now = s3.lists_and_requests();
        (now.0 - before.0, now.1 - before.1)
    };
    let (asked_at, before) = (Instant::now(), s3.lists_and_requests());
    let said = counts(&scenario.json(&[])["fleets"][0]);
    println!("`pgtend` after {:?}: {said:?}, (pages of lists, requests): {:?}", asked_at.elapsed(), since(before));
    assert_eq!(said[0] + said[1], u64::from(DATABASES), "{said:?}");

    // Without its newest set the older one counts, and the ledger knows of the other.
    std::fs::remove_dir_all(s3.file_of(&format!("test/main.tenant_500/nightly/{time}"))).unwrap();
    let before = s3.lists_and_requests();
    let mut serving = Serving::ready(&scenario, "");
    let fleet = judged(&serving);
    let (lists, requests) = since(before);
    println!("{lists} pages of lists of {requests} requests");
    let by_stores = fleet["by_stores"].as_str().unwrap_or_default();
    assert!(by_stores.starts_with("999 of 1,000 well, 1 with a backup in doubt (main.tenant_500: a newer one, "), "{fleet}");
    assert!(lists < 40, "{lists} pages of lists");
    assert!(requests < 100 + 2 * u64::from(DATABASES), "{requests} requests");
    assert_eq!(serving.terminate(), Some(0));
}
