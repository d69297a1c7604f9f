//! Whether a backup is recent enough: `backups require`, and `run-job --unless-within`. In doubt, the answer is no.

use std::process::Output as Ended;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, faketime, quoted};

pub fn with_rows(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    database
}

pub fn scenario(server: &Server, more: &str) -> Scenario {
    Scenario::with_database(server, &with_rows(server)).backup_job("local", more)
}

pub const REQUIRE: [&str; 6] = ["backups", "require", "--database", "app", "--within", "1h"];

pub fn require<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&REQUIRE[..], more].concat()
}

/// Runs a command on a host whose clock is off by this.
pub fn by_clock(scenario: &Scenario, off: &str, arguments: &[&str]) -> Ended {
    let mut command = scenario.command(arguments);
    command.env("LD_PRELOAD", faketime()).env("FAKETIME", off).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").output().unwrap()
}

#[track_caller]
pub fn ended(ended: &Ended, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(code) && stderr.contains(says), "{:?}, not `{says}`: {stderr}", ended.status);
}

#[test]
fn a_deployment_goes_on_only_with_an_intact_set_that_began_in_time() {
    let scenario = scenario(server(18), "");
    let none = scenario.run(&REQUIRE).exited(75);
    none.says(&["there is no backup of `app`", "`pgtend run-job nightly --database app`"]);
    let said = scenario.run(&require(&["--json"])).exited(75).stdout;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["met"], &said["newest"]), (&false.into(), &serde_json::Value::Null), "{said}");

    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    scenario.run(&REQUIRE).succeeded().prints(&[&set, "in local", "within 1h"]);
    let said = scenario.json(&REQUIRE);
    let manifest = std::fs::read(scenario.path(&format!("store/{set}/manifest.json"))).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((&said["met"], &said["newest"]["set"]), (&true.into(), &set.as_str().into()), "{said}");
    assert_eq!(said["newest"]["began_at"], manifest["started_at"], "the moment before the snapshot, not the end of the dump");

    scenario.run(&require(&["--restored"])).exited(75).says(&["no server has restored it", "backups verify", "--restore-on"]);
    scenario.run(&["backups", "verify", &set, "--restore-on", "app"]).succeeded();
    scenario.run(&require(&["--restored"])).succeeded().prints(&["restored on"]);
}

#[test]
fn a_set_that_is_unread_damaged_partial_or_of_another_server_is_no_backup_before_a_deployment() {
    let (here, there) = (server(18), server(17));
    let unread = scenario(here, "verify = \"none\"");
    unread.run(&["run-job", "nightly"]).succeeded();
    let set = unread.sets().pop().unwrap();
    let refused = unread.run(&REQUIRE).exited(75);
    refused.says(&[
        "nobody has read it back",
        &format!("`pgtend backups verify {set}`"),
        "Make one, have it read back, then ask again",
        "`pgtend backups verify latest --database app --job nightly`",
    ]);
    unread.run(&["backups", "verify", &set]).succeeded();
    unread.run(&REQUIRE).succeeded();

    let dump = unread.path(&format!("store/{set}/dump.sql.gz"));
    let mut bytes = std::fs::read(&dump).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    unread.run(&["backups", "verify", &set]).exited(1);
    unread.run(&REQUIRE).exited(75).says(&[&set, "its bytes are damaged"]);

    let partial = scenario(here, "schemas = [\"public\"]");
    partial.run(&["run-job", "nightly"]).succeeded();
    let refused = partial.run(&REQUIRE).exited(75);
    refused.says(&["it holds a part of the database", "No job here makes backups of all of it"]);

    // The configuration was copied for another server, which writes into the same store.
    let good = scenario(here, "");
    good.run(&["run-job", "nightly"]).succeeded();
    let store = good.path("store").display().to_string();
    let url = there.url(&with_rows(there));
    let copied = Scenario::empty().config(&format!(
        "[databases.app]\nurl = {}\n[stores.local]\npath = {}\n",
        quoted(&url),
        quoted(&store)
    ));
    copied.run(&REQUIRE).exited(75).says(&["it is of another server or database"]);
    let identity = good.json(&["backups", "list"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    copied.run(&require(&["--from", &identity])).succeeded();
}

#[test]
fn no_wrong_clock_makes_a_set_young_enough() {
    let scenario = scenario(server(18), "");
    ended(&by_clock(&scenario, "-2h", &["run-job", "nightly"]), 0, "");
    scenario.run(&REQUIRE).exited(75).says(&["began within 1h; the newest is app/nightly/", " ago (intact)"]);
    let longer = ["backups", "require", "--database", "app", "--within", "3h"];
    scenario.run(&longer).succeeded();
    // A host that is behind asks the database's server, and the store, what time it is.
    ended(&by_clock(&scenario, "-100m", &REQUIRE), 75, " 2 h ");
    ended(&by_clock(&scenario, "-100m", &REQUIRE), 75, "which is 1h 40m");
    let identity = scenario.json(&["backups", "list"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    ended(&by_clock(&scenario, "-100m", &require(&["--from", &identity])), 75, " 2 h ");

    ended(&by_clock(&scenario, "+2h", &["run-job", "nightly"]), 0, "");
    scenario.run(&REQUIRE).exited(75).says(&["it is dated in the future"]);
    // By that clock it is young; the server's clock, which is in its manifest, says otherwise.
    ended(&by_clock(&scenario, "+2h", &REQUIRE), 75, "it is dated in the future");
}

#[test]
fn a_store_or_a_server_that_does_not_answer_is_no_yes_and_no_missing_backup() {
    let server = server(18);
    let scenario = scenario(server, "")
        .config("[stores.bucket]\nbucket = \"backups\"\nregion = \"us-east-1\"\nendpoint = \"http://127.0.0.1:1\"\n")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "secret");
    // Without an answer from the bucket, there may be one there.
    scenario.run(&REQUIRE).exited(69).says(&["cannot tell whether `app` has a backup", "store `bucket` cannot be read"]);
    scenario.run(&require(&["--store", "local"])).exited(75);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&REQUIRE).succeeded();
    scenario.run(&require(&["--store", "bucket"])).exited(69);

    scenario.run(&["backups", "require", "--database", "ap", "--within", "1h"]).exited(78).says(&["did you mean `app`?"]);
    scenario.run(&require(&["--store", "loca"])).exited(78).says(&["no store `loca`"]);
    scenario.run(&["backups", "require", "--database", "app", "--within", "soon"]).exited(64);
    let store = scenario.path("store").display().to_string();
    let away = Scenario::empty().config(&format!(
        "[databases.app]\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n[stores.local]\npath = {}\n",
        quoted(&store)
    ));
    away.run(&REQUIRE).exited(69).says(&["cannot tell whether `app` has a backup", "127.0.0.1:1"]);
    let identity = scenario.json(&["backups", "list", "--store", "local"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    away.run(&require(&["--from", &identity])).succeeded();
}

#[test]
fn a_run_that_a_recent_set_makes_needless_leaves_no_row_and_says_so() {
    let scenario = scenario(server(18), "").ledger().sql_job("stats", "", &["ANALYZE"]);
    let unless = ["run-job", "nightly", "--unless-within", "1h"];
    scenario.run(&unless).succeeded().prints(&["succeeded in"]);
    let set = scenario.sets().pop().unwrap();
    scenario.run(&unless).succeeded().says(&[&set, "within 1h: nothing to do"]);
    assert_eq!(scenario.json(&unless), serde_json::json!({ "runs": [] }));
    assert_eq!((scenario.sets().len(), scenario.runs(&["nightly"]).len()), (1, 1), "no row for what did not run");
    // Another job's set is no reason.
    let other = scenario.job("hourly", "database = \"app\"\n[backup]\nstore = \"local\"\nschemas = [\"public\"]\n");
    for sets in [2, 2] {
        other.run(&["run-job", "hourly", "--unless-within", "1h"]).succeeded();
        assert_eq!(other.sets().len(), sets, "a job with filters asks about its own sets");
    }
    other.run(&["run-job", "stats", "--unless-within", "1h"]).exited(78).says(&["it has no [backup]"]);
    other.run(&["run-job", "nightly", "--unless-within", "1ms"]).succeeded().prints(&["succeeded in"]);
}

#[test]
fn a_job_that_restores_each_set_runs_again_where_the_last_was_not_restored() {
    let server = server(18);
    let scenario = scenario(server, "verify = \"restore\"\nexpect = [\"SELECT count(*) > 5000 FROM t\"]");
    let unless = ["run-job", "nightly", "--unless-within", "1h"];
    scenario.run(&unless).exited(1).says(&["are not true there"]);
    scenario.run(&unless).exited(1);
    assert_eq!(scenario.sets().len(), 2, "the first set is intact, and proves less than the job does");
    let scenario = scenario.backup_job("local", "verify = \"restore\"");
    scenario.run(&unless).succeeded().prints(&["succeeded in"]);
    scenario.run(&unless).succeeded().says(&["nothing to do"]);
    assert_eq!(scenario.sets().len(), 3);
}

/// Asks about another database's sets in the store of a scenario.
fn asks(scenario: &Scenario, url: &str) -> Scenario {
    let store = scenario.path("store").display().to_string();
    let config = format!("[databases.app]\nurl = {}\n[stores.local]\npath = {}\n", quoted(url), quoted(&store));
    Scenario::empty().config(&config)
}

#[test]
fn a_set_counts_only_where_it_is_known_of_which_server_and_database_it_is() {
    let server = server(18);
    let (own, other) = (with_rows(server), with_rows(server));
    let reader = format!("{own}_reader");
    server.sql("postgres", &format!("CREATE ROLE {reader} LOGIN; GRANT pg_read_all_data TO {reader}"));
    for database in [&own, &other] {
        server.sql(database, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    }
    let by_reader = |database: &str| server.url_as(&reader, database);
    let unknown = "is not known, so it may be of another one";
    let run = ["run-job", "nightly"];

    // Neither name nor clock tells that it is of another database, as its manifest says.
    for made_by in [by_reader(&other), server.url(&other)] {
        let scenario = Scenario::with_url(server, &made_by).backup_job("local", "");
        scenario.run(&run).succeeded();
        for asked_by in [by_reader(&own), server.url(&own)] {
            let asking = asks(&scenario, &asked_by);
            asking.run(&REQUIRE).exited(75).says(&["it is of another "]);
            asking.run(&require(&["--by-name"])).exited(75).says(&["it is of another "]);
        }
    }
    for (made_by, asked_by) in
        [(by_reader(&own), by_reader(&own)), (by_reader(&own), server.url(&own)), (server.url(&own), by_reader(&own))]
    {
        let scenario = Scenario::with_url(server, &made_by).backup_job("local", "");
        scenario.run(&run).succeeded();
        let asking = asks(&scenario, &asked_by);
        asking.run(&REQUIRE).exited(75).says(&[unknown, "GRANT EXECUTE", "--by-name"]);
        asking.run(&require(&["--by-name"])).succeeded();
    }
    let scenario = Scenario::with_url(server, &by_reader(&own)).backup_job("local", "");
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly", "--unless-within", "1h"]).succeeded().prints(&["succeeded in"]);
    }
}

#[test]
fn a_set_that_a_server_has_refused_for_its_data_is_no_backup_until_one_restores_it() {
    let server = server(18);
    let scenario = scenario(server, "verify = \"restore\"\nexpect = [\"SELECT count(*) > 5000 FROM t\"]");
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["are not true there"]);
    scenario.run(&REQUIRE).exited(75).says(&["refused it when it was last restored, on ", "are not true there"]);
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "verify", &set, "--restore-on", "app"]).succeeded();
    scenario.run(&REQUIRE).succeeded();
    // Rights say nothing about the data.
    let role = format!("{}_none", server.new_database());
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let on = server.url_as(&role, "postgres");
    scenario.run(&["backups", "verify", &set, "--restore-on", &on]).exited_with_one_of(&[1, 77]);
    scenario.run(&REQUIRE).succeeded();
}

#[test]
fn a_set_without_its_globals_is_no_backup_and_everybody_is_told() {
    for cut in [false, true] {
        let scenario = scenario(server(18), "");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let set = scenario.sets().pop().unwrap();
        let globals = scenario.path(&format!("store/{set}/globals.sql.gz"));
        match cut {
            true => std::fs::write(&globals, b"").unwrap(),
            false => std::fs::remove_file(&globals).unwrap(),
        }
        let says = if cut { "globals.sql.gz has 0 bytes and the manifest says " } else { "its globals.sql.gz is gone" };
        scenario.run(&REQUIRE).exited(75).says(&[says]);
        scenario.run(&["backups", "list"]).succeeded().prints(&["without its globals"]);
        scenario.run(&["backups", "certificate", &set]).succeeded().prints(&[says]);
        // Its dump is as good as before.
        scenario.run(&["backups", "fetch", &set, "--table", "public.t"]).succeeded();
    }
}

#[test]
fn a_set_from_a_clock_ahead_of_its_store_s_is_dated_in_the_future() {
    let scenario = scenario(server(18), "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let manifest = std::fs::File::options().write(true).open(scenario.path(&format!("store/{set}/manifest.json"))).unwrap();
    let minutes_ago = |minutes: u64| std::time::SystemTime::now() - std::time::Duration::from_secs(60 * minutes);
    manifest.set_modified(minutes_ago(4)).unwrap();
    scenario.run(&REQUIRE).succeeded();
    // The host and the database's server were 50 minutes ahead then; now their clocks are right.
    manifest.set_modified(minutes_ago(50)).unwrap();
    scenario.run(&REQUIRE).exited(75).says(&["it is dated in the future"]);
    scenario.run(&["run-job", "nightly", "--unless-within", "1h"]).succeeded().prints(&["succeeded in"]);
}

#[test]
fn a_restore_without_the_vector_indexes_that_its_job_wants_is_not_one_of_all_of_it() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE EXTENSION vector; CREATE TABLE v AS SELECT i, ARRAY[i, 1, 2]::vector(3) AS e FROM generate_series(1, 100) i;
         CREATE INDEX ON v USING hnsw (e vector_l2_ops)",
    );
    let without = "verify = { restore = \"always\", vector_indexes = false }\nscratch = \"same\"";
    let scenario = Scenario::with_database(server, &database).backup_job("local", without);
    scenario.run(&["run-job", "nightly"]).succeeded().prints(&["without vector indexes"]);
    scenario.run(&require(&["--restored"])).succeeded();
    let unless = ["run-job", "nightly", "--unless-within", "1h"];
    scenario.run(&unless).succeeded().says(&["nothing to do"]);

    let scenario = scenario.backup_job("local", "verify = \"restore\"");
    scenario
        .run(&require(&["--restored"]))
        .exited(75)
        .says(&["it was restored without its vector indexes, and its job wants them"]);
    scenario.run(&REQUIRE).succeeded();
    scenario.run(&unless).succeeded().prints(&["succeeded in"]);
    scenario.run(&require(&["--restored"])).succeeded();
}
