//! Sets that were damaged, what prune may delete, and what warns.

use std::path::{Path, PathBuf};

use crate::support::Scenario;
use crate::support::postgres::{Server, server};

fn database(server: &Server) -> String {
    let name = server.new_database();
    server.sql(&name, "CREATE TABLE t AS SELECT i, md5(i::text) || md5((i * 3)::text) AS body FROM generate_series(1, 60000) i");
    name
}

/// A scenario with one set, and the path of its dump.
fn with_set(server: &Server) -> (Scenario, PathBuf) {
    let database = database(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "keep = { last = 2 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let dump = scenario.path(&format!("store/{}/{}", scenario.sets()[0], scenario.object("dump.sql.gz")));
    (scenario, dump)
}

/// Where the members of the dump start.
fn member_offsets(dump: &std::path::Path) -> Vec<usize> {
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dump.with_file_name("manifest.json")).unwrap()).unwrap();
    let points = manifest["dump"]["members"]["points"].as_array().unwrap();
    points.iter().map(|point| point[0].as_u64().unwrap() as usize).collect()
}

/// Neither as the latest nor by its name, whether it is known to be damaged or only found out on the way; and a database that is restored into is
/// there completely or not at all.
fn nothing_is_restored(scenario: &Scenario, server: &Server, dump: &Path, name: &str) {
    let set = scenario.sets().pop().unwrap();
    let restore = |set: &str, into: &str, more: &[&str]| {
        scenario.run(&[&["backups", "restore", set, "--into", &server.url(into)], more].concat())
    };
    restore("latest", name, &["--create"]).exited(78).says(&["its bytes are damaged"]);
    std::fs::remove_file(dump.with_file_name("verification.json")).unwrap();
    scenario.also_in_the_second_store("store");
    restore(&set, name, &["--create"]).exited(1).says(&["was not restored", "SHA-256"]);
    let left = server
        .sql("postgres", &format!("SELECT datname FROM pg_database WHERE datname = '{name}' OR starts_with(datname::text, 'pgtend_restore_' || left(encode(sha256('{name}'), 'hex'), 12))"));
    assert_eq!(left, "");
    let empty = server.empty_database();
    restore(&set, &empty, &[]).exited(1).says(&["was not restored", "SHA-256"]);
    assert_eq!(server.sql(&empty, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
}

#[test]
pub fn a_set_with_a_flipped_byte_is_found_out_and_never_restored() {
    let server = server(18);
    let (scenario, dump) = with_set(server);
    let good = std::fs::read(&dump).unwrap();
    for at in [20, good.len() / 2, good.len() - 3] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&dump, bytes).unwrap();
        scenario.also_in_the_second_store("store");
        let name = scenario.sets().pop().unwrap();
        // What is encrypted has no checksums of what is in it.
        let where_it_differs = if scenario.stores.encrypted { "SHA-256" } else { "CRC-32" };
        scenario.run(&["backups", "verify", &name]).exited(1).says(&["is damaged", where_it_differs, "written"]);
        assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "damaged");
        nothing_is_restored(&scenario, server, &dump, "flipped");
    }
    std::fs::write(&dump, good).unwrap();
    scenario.also_in_the_second_store("store");
    let name = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "verify", &name]).succeeded();
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
}

#[test]
pub fn a_dump_cut_at_a_member_boundary_is_not_restored() {
    let server = server(18);
    let (scenario, dump) = with_set(server);
    let good = std::fs::read(&dump).unwrap();
    let boundary = *member_offsets(&dump).last().unwrap();
    assert!(boundary > 0, "several members");
    for length in [boundary, boundary + 10, 0] {
        std::fs::write(&dump, &good[..length]).unwrap();
        scenario.also_in_the_second_store("store");
        assert_eq!(scenario.sets(), Vec::<String>::new(), "cut to {length}");
        scenario.run(&["backups", "list"]).succeeded().says(&["cannot be restored"]);
        scenario.run(&["backups", "verify", "latest"]).exited(78).says(&["cannot be restored"]);
    }
    // The same, where even the length fits: the members' count, the hash and the trailer still tell.
    let mut filled = good[..boundary].to_vec();
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut member = vec![0; 64];
    let bytes = compressor.gzip_compress(b"", &mut member).unwrap();
    while good.len() - filled.len() >= bytes {
        filled.extend_from_slice(&member[..bytes]);
    }
    filled.resize(good.len(), 0);
    std::fs::write(&dump, filled).unwrap();
    scenario.also_in_the_second_store("store");
    scenario.run(&["backups", "verify", "latest"]).exited(1).says(&["is damaged"]);
    nothing_is_restored(&scenario, server, &dump, "cut");
}

#[test]
pub fn a_set_without_its_manifest_is_no_set() {
    let server = server(18);
    let (scenario, dump) = with_set(server);
    std::fs::remove_file(dump.with_file_name("manifest.json")).unwrap();
    scenario.also_in_the_second_store("store");
    assert_eq!(scenario.sets(), Vec::<String>::new());
    scenario
        .run(&["backups", "restore", "latest", "--into", &server.url("nothing"), "--create"])
        .exited(78)
        .says(&["no set `latest`"]);
    // Its run is over, and it has no manifest; but it was a set once, and stock tools still restore it.
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["its manifest is gone"]);
    assert!(dump.exists(), "nothing is deleted on an absence");
    std::fs::remove_file(dump.with_file_name("verification.json")).unwrap();
    scenario.also_in_the_second_store("store");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["it was a complete set, and its manifest is gone"]);
    assert!(dump.exists(), "its run was complete");
    let marker = dump.with_file_name("run.json");
    let mut of_run: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    of_run.as_object_mut().unwrap().remove("completed_at").unwrap();
    std::fs::write(&marker, of_run.to_string()).unwrap();
    scenario.also_in_the_second_store("store");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert!(!dump.exists(), "what never was a set, and whose run is over, is swept");
}

#[test]
fn a_manifest_from_the_future_or_in_ruins_is_left_alone() {
    let server = server(18);
    let (scenario, dump) = with_set(server);
    let manifest = dump.with_file_name("manifest.json");
    for (text, says) in [("{\"format\": 99}", "use a newer pgtend"), ("{ not json", "is not a manifest")] {
        std::fs::write(&manifest, text).unwrap();
        scenario.also_in_the_second_store("store");
        scenario.run(&["backups", "list"]).succeeded().says(&[says]);
        scenario.run(&["backups", "prune"]).succeeded();
        scenario.run(&["run-job", "nightly"]).succeeded();
        assert!(dump.exists() && manifest.exists());
    }
}

/// Copies of the set at other times, as if made then. Their `verification.json` says `proof`.
fn copy_set(scenario: &Scenario, job: &str, time: &str, proof: &str) {
    let from = scenario.path(&format!("store/{}", scenario.sets().last().unwrap()));
    let to = scenario.path(&format!("store/app/{job}/{time}"));
    std::fs::create_dir_all(&to).unwrap();
    for file in [&*scenario.object("dump.sql.gz"), &*scenario.object("globals.sql.gz"), "manifest.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let check = |problems: &str| {
        format!(
            "{{\"checks\":{{\"checksum\":{{\"checked_at\":\"2026-01-01T00:00:00Z\",\"problems\":[{problems}],\"elapsed_seconds\":1.0}}}}}}"
        )
    };
    match proof {
        "verified" => std::fs::write(to.join("verification.json"), check("")).unwrap(),
        "damaged" => std::fs::write(to.join("verification.json"), check("\"flipped\"")).unwrap(),
        _ => {}
    }
    scenario.also_in_the_second_store("store");
}

fn times(scenario: &Scenario, job: &str) -> Vec<String> {
    scenario
        .sets()
        .iter()
        .filter(|set| set.starts_with(&format!("app/{job}/")))
        .map(|set| set.rsplit('/').next().unwrap()[..10].to_owned())
        .collect()
}

#[test]
pub fn prune_keeps_the_configured_number_of_verified_sets_and_stays_in_its_prefix() {
    let server = server(18);
    let (scenario, _) = with_set(server);
    for day in 1..=4 {
        copy_set(&scenario, "nightly", &format!("2025-01-0{day}T02-00-00Z"), "verified");
        copy_set(&scenario, "nightly-too", &format!("2025-01-0{day}T02-00-00Z"), "verified");
    }
    for day in 5..=9 {
        copy_set(&scenario, "nightly", &format!("2025-01-0{day}T02-00-00Z"), "damaged");
    }
    std::fs::write(scenario.path("store/app/nightly/notes.txt"), "mine").unwrap();
    std::fs::write(scenario.path("store/app/nightly/2025-01-01T02-00-00Z/notes.txt"), "mine").unwrap();
    let before = scenario.files("store");

    scenario.run(&["backups", "prune", "--dry-run"]).succeeded().prints(&["delete", "keep", "last 1 of 2"]);
    assert_eq!(scenario.files("store"), before);

    scenario.run(&["backups", "prune"]).succeeded();
    // What the first release called damaged was read again, and is intact: so the newest of all fills the second place.
    let today = times(&scenario, "nightly").pop().unwrap();
    assert_eq!(times(&scenario, "nightly"), ["2025-01-09", today.as_str()]);
    assert_eq!(times(&scenario, "nightly-too").len(), 4);
    assert!(
        scenario.path("store/app/nightly/notes.txt").exists()
            && scenario.path("store/app/nightly/2025-01-01T02-00-00Z/notes.txt").exists()
    );
}

#[test]
fn while_backups_fail_their_verification_nothing_good_is_pruned() {
    let server = server(18);
    let (scenario, _) = with_set(server);
    for day in 1..=3 {
        copy_set(&scenario, "nightly", &format!("2025-01-0{day}T02-00-00Z"), "verified");
    }
    for day in 1..=9 {
        copy_set(&scenario, "nightly", &format!("2027-01-0{day}T02-00-00Z"), "damaged");
        copy_set(&scenario, "nightly", &format!("2027-02-0{day}T02-00-00Z"), "unknown");
    }
    scenario.run(&["backups", "prune"]).succeeded();
    let kept = times(&scenario, "nightly");
    assert!(kept.contains(&"2025-01-03".to_owned()), "{kept:?}");
    assert_eq!(kept.iter().filter(|time| time.starts_with("2027")).count(), 18, "newer than the newest verified one: {kept:?}");
}

#[test]
fn a_dump_that_lost_more_than_half_is_a_set_with_a_warning() {
    let server = server(18);
    let database = database(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(&database, "DELETE FROM t WHERE i > 10");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["the dump shrank to"]);
    assert_eq!(scenario.sets().len(), 2);
}

#[test]
fn tables_that_were_emptied_or_halved_are_named_and_two_sets_can_be_compared() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE emptied AS SELECT generate_series(1, 5) i; CREATE TABLE halved AS SELECT generate_series(1, 200) i;
         CREATE TABLE gone AS SELECT generate_series(1, 7) i; CREATE TABLE grew AS SELECT 1 AS i; CREATE TABLE same AS SELECT 1 AS i;
         CREATE TABLE logs (i int) PARTITION BY LIST (i); CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES IN (2);
         INSERT INTO logs SELECT 1 FROM generate_series(1, 300); INSERT INTO logs SELECT 2 FROM generate_series(1, 300);",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(
        &database,
        "DELETE FROM emptied; DELETE FROM halved WHERE i > 90; DROP TABLE gone; INSERT INTO grew VALUES (2); CREATE TABLE new (i int);
         UPDATE logs SET i = 1;",
    );
    let run = scenario.json(&["run-job", "nightly"]);
    let warnings = run["runs"][0]["report"]["warnings"].to_string();
    for text in [
        "public.emptied is empty, and had 5 rows in the set before; public.halved has 90 rows, and had 200 rows in the set before",
        "lacks 1 table that the last one had: public.gone",
    ] {
        assert!(warnings.contains(text), "{warnings}");
    }
    assert!(!warnings.contains("logs"), "{warnings}");
    let sets = scenario.json(&["backups", "list"]);
    let first = sets["sets"][0]["set"].as_str().unwrap();
    scenario.run(&["backups", "diff", first, "latest"]).succeeded().prints(&["TABLE", "public.halved", "200", "90", "halved"]);
    let diff = scenario.json(&["backups", "diff", first, "latest"]);
    let table = |name: &str, before: Option<u64>, after: Option<u64>, change: &str| serde_json::json!({ "table": format!("public.{name}"), "before": before, "after": after, "change": change });
    let expected = serde_json::json!([
        table("emptied", Some(5), Some(0), "emptied"),
        table("gone", Some(7), None, "gone"),
        table("grew", Some(1), Some(2), "more rows"),
        table("halved", Some(200), Some(90), "halved"),
        table("new", None, Some(0), "new"),
    ]);
    assert_eq!(diff["tables"], expected, "{diff:#}");
    scenario.run(&["backups", "diff", first, first]).succeeded().prints(&["as many rows"]);
}

#[test]
fn sets_are_found_by_full_name_by_time_and_as_latest() {
    let server = server(18);
    let (scenario, _) = with_set(server);
    copy_set(&scenario, "nightly", "2025-01-01T02-00-00Z", "verified");
    for name in ["app/nightly/2025-01-01T02-00-00Z", "2025-01-01T02-00-00Z"] {
        scenario.run(&["backups", "verify", name]).succeeded().prints(&["app/nightly/2025-01-01T02-00-00Z", ": read back"]);
    }
    copy_set(&scenario, "weekly", "2025-01-01T02-00-00Z", "verified");
    scenario.run(&["backups", "verify", "latest"]).exited(78).says(&["could be a set of app/nightly, app/weekly", "--job"]);
    scenario.run(&["backups", "verify", "latest", "--job", "weekly"]).succeeded();
    scenario.run(&["backups", "verify", "2030-01-01T02-00-00Z"]).exited(78).says(&["no set `2030-01-01T02-00-00Z`"]);
}
