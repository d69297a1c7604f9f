//! Rows that leave a table and are encrypted with age: as safe as others, and back with a key.

use std::process::Command;
use std::time::Duration;

use crate::archives::{ALL, batches};
use crate::encryption::{age_key, set_keys};
use crate::retention::{logs, nothing_is_lost_or_twice, scenario};
use crate::support::postgres::server;
use crate::support::{Scenario, eventually};

#[test]
fn encrypted_rows_come_back_with_a_key_once_and_are_archived_once() {
    let server = server(18);
    let database = logs(server, 1000);
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    let (public, other) = (age_key(&scenario, "key"), age_key(&scenario, "other"));
    // The host that archives has no key.
    set_keys(&scenario, &[&public], None);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let files = scenario.files("store");
    let object = files.iter().find(|file| file.ends_with(".sql.gz.age")).unwrap_or_else(|| panic!("{files:?}"));
    assert!(!files.iter().any(|file| file.ends_with(".gz") || file.ends_with(".pending.json")), "{files:?}");
    assert_eq!(batches(&scenario).len(), 1);

    for (identity, why) in [(None, "no `identity_file` here"), (Some("other"), "belongs to one of its recipients")] {
        set_keys(&scenario, &[&public], identity);
        for mode in [&["archives", "restore", "--dry-run"][..], &["archives", "restore"]] {
            scenario.run(mode).exited(78).says(&["is encrypted, and cannot be opened here", why, &public]);
        }
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    }
    // By stock tools.
    server.sql(&database, "CREATE TABLE kept AS SELECT * FROM logs");
    let script = format!(
        "set -o pipefail; age -d -i key 'store/{object}' | gunzip -c | {} -Xq -v ON_ERROR_STOP=1 -o /dev/null '{}'",
        server.bin_dir.join("psql").display(),
        server.url(&database)
    );
    let psql = server.tool("psql", &database);
    let settings = psql.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let piped = Command::new("bash").args(["-c", &script]).envs(settings).current_dir(scenario.path("")).output().unwrap();
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    assert_eq!(server.sql(&database, ALL), before);
    server.sql(&database, "DELETE FROM logs WHERE id NOT IN (SELECT id FROM kept)");

    // The archive is there whoever is a recipient now, and whether there is one.
    for encrypt_to in [&[public.as_str()][..], &[&other], &[]] {
        set_keys(&scenario, encrypt_to, Some("key"));
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 archive object"]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back", "1 batch already back"]);
        assert_eq!(server.sql(&database, ALL), before);
        scenario.run(&["run-job", "old-logs"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
        assert_eq!(batches(&scenario).len(), 1, "archived once");
    }
    // Without a key nobody knows which rows came back: they are archived again, and none is lost.
    scenario.run(&["archives", "restore"]).succeeded();
    set_keys(&scenario, &[&public], None);
    scenario.run(&["run-job", "old-logs"]).succeeded().says(&["are archived again", "is encrypted, and cannot be opened here"]);
    assert_eq!(batches(&scenario).len(), 2);
}

#[test]
fn a_damaged_encrypted_object_puts_nothing_back() {
    let server = server(18);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], Some("key"));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let object = scenario.files("store").into_iter().find(|file| file.ends_with(".sql.gz.age")).unwrap();
    let path = scenario.path("store").join(object);
    let whole = std::fs::read(&path).unwrap();
    for at in [3, 60, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        scenario.run(&["archives", "restore"]).exited(1).says(&["nothing was put back", "differs from what was written"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    }
}

#[test]
fn partitions_go_after_their_encrypted_archive_is_proved() {
    partitions_go_and_come_back(
        |_| (),
        |scenario| {
            assert!(scenario.files("store").iter().any(|file| file.ends_with(".sql.gz.age")));
        },
    );
}

/// Archives a partition into a store that encrypts, and restores it. `prepare`: what else the store is to have; `look` is called when the partition is gone.
pub fn partitions_go_and_come_back(prepare: impl Fn(&Scenario), look: impl Fn(&Scenario)) {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE parts (id int, at timestamptz, x text) PARTITION BY RANGE (at);
         CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');
         INSERT INTO parts VALUES (1, '2001-01-05', 'one'), (2, '2001-01-06', NULL);",
    );
    let scenario = Scenario::with_database(server, &database).partitions(
        "public.parts",
        "at",
        "every = \"month\"\nretain = \"90d\"\ngrace = \"0s\"\narchive = \"local\"",
    );
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], None);
    prepare(&scenario);
    scenario.tend().succeeded().prints(&["archived 1 partition, dropped 1 partition"]);
    look(&scenario);
    set_keys(&scenario, &[&public], Some("key"));
    server.sql(&database, "CREATE TABLE back (LIKE parts)");
    scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded().prints(&["2 rows put back"]);
    assert_eq!(server.sql(&database, "SELECT string_agg(id || coalesce(x, '-'), ',' ORDER BY id) FROM back"), "1one,2-");
}

#[test]
fn a_plain_batch_in_a_store_that_encrypts_is_warned_of_and_a_second_object_named() {
    let server = server(16);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    let public = age_key(&scenario, "key");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    set_keys(&scenario, &[&public], Some("key"));
    let object = scenario.files("store").into_iter().find(|file| file.ends_with(".sql.gz")).unwrap();
    std::fs::write(scenario.path(&format!("store/{object}.age")), "age-encryption.org/v1\n").unwrap();
    scenario.run(&["archives", "restore"]).exited(1).says(&[
        "is not encrypted, although the store has `encrypt_to`",
        &format!("{object}.age"),
        "one of the two is somebody else's",
    ]);
}

#[test]
fn killed_at_any_moment_of_encrypted_archiving_no_row_is_lost() {
    kills_of_archiving_lose_no_row(|_| (), |_| ());
}

/// Kills runs that archive into a store that encrypts. `prepare`: what else the store is to have; `look` is called after each of them.
pub fn kills_of_archiving_lose_no_row(prepare: impl Fn(&Scenario), look: impl Fn(&Scenario)) {
    let server = server(17);
    let database = logs(server, 20_000);
    let scenario = scenario(server, &database, "archive = 'local'\n[limits]\npause = '10ms'");
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], None);
    prepare(&scenario);
    for moment in [30, 90, 150, 210, 300, 420, 550] {
        let running = scenario.start(&["run-job", "old-logs", "--yes"]);
        std::thread::sleep(Duration::from_millis(moment));
        running.kill();
        look(&scenario);
    }
    eventually("the rest is archived", || scenario.run(&["run-job", "old-logs", "--yes"]).code == Some(0));
    look(&scenario);
    set_keys(&scenario, &[&public], Some("key"));
    nothing_is_lost_or_twice(server, &database, &scenario, 20_001);
    assert!(!scenario.files("store").iter().any(|file| file.ends_with(".pending.json")));
}
