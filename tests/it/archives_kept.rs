//! What an archive says of rows that left and came back is what the database has: whoever is killed, restarted or set back in time.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use pgtend::archive::{Archive, Manifest, Source, transaction};
use pgtend::base::progress::Progress;
use pgtend::{config, store};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::retention::{logs, scenario};
use crate::support::postgres::{Server, server};
use crate::support::proxy::Proxy;
use crate::support::s3::{Fault, Rule, S3Server};
use crate::support::{Scenario, eventually, quoted, set_own_environment};

const ALL: &str = "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l";

/// Files of the archive with this ending.
fn ending(scenario: &Scenario, end: &str) -> Vec<String> {
    scenario.files("store").into_iter().filter(|file| file.ends_with(end)).collect()
}

/// The store of a scenario, as the program opens it.
async fn store_of(scenario: &Scenario) -> Result<store::Store> {
    set_own_environment(&[("XDG_STATE_HOME", "/dev/null/state")]);
    store::Store::open(&config::Store::Dir {
        path: scenario.path("store"),
        sign_key: None,
        age: Arc::default(),
        max_upload: None,
    })
    .await
}

/// Deletes and archives 100 rows, while another session holds the advisory lock 7 not before that is free. `completes`: whether it lives on after its
/// commit.
async fn archive_100(store: store::Store, url: String, completes: bool) -> Result<()> {
    let mut connection = PgConnection::connect(&url).await?;
    let archive = Archive::new(store, "app", "old-logs");
    let columns = ["id", "created_at", "status", "parameters"].map(str::to_owned).to_vec();
    let query = "DELETE FROM public.logs WHERE id <= 100 AND (SELECT count(*) FROM (SELECT pg_advisory_xact_lock(7)) s) = 1 \
                 RETURNING id, created_at, status, parameters";
    let source =
        Source { schema: "public".to_owned(), table: "logs".to_owned(), columns, queries: vec![query.to_owned()], steps: None };
    connection.execute("BEGIN").await?;
    let name = archive.name(chrono::Utc::now(), transaction(&mut connection).await?);
    let manifest = Manifest::new("old-logs", "app", &source, "test");
    let phase = Progress::logged().phase("archive", None);
    let manifest = archive.export(&mut connection, &source, &name, manifest, &phase).await?;
    connection.execute("COMMIT").await?;
    if completes {
        archive.complete(&name, &manifest).await?;
    }
    Ok(())
}

#[test]
fn a_batch_that_commits_while_another_run_asks_about_it_keeps_its_rows() {
    for completes in [true, false] {
        let server = server(18);
        let database = logs(server, 1000);
        // The connection of the test itself would have a poisoned run's settings.
        server.sql("postgres", &format!("ALTER DATABASE {database} RESET ALL"));
        let before = server.sql(&database, ALL);
        let scenario = scenario(server, &database, "archive = 'local'");
        let proxy = Arc::new(Proxy::start_holding(server, "pg_xact_status"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = runtime.block_on(store_of(&scenario)).unwrap();
        let locked = server.session(&database, "SELECT pg_advisory_lock(7)");
        let first = runtime.spawn(archive_100(store.clone(), server.url(&database), completes));
        eventually("the batch is announced", || !ending(&scenario, ".pending.json").is_empty());
        // The first run lost its lock, and another one starts.
        let url = proxy.url(&database);
        let second = runtime.spawn(async move {
            let mut connection = PgConnection::connect(&url).await?;
            Archive::new(store, "app", "old-logs").recover(&mut connection).await
        });
        eventually("the second run asks", || proxy.holds());
        drop(locked);
        runtime.block_on(first).unwrap().unwrap();
        proxy.let_pass();
        let recovered = runtime.block_on(second).unwrap().unwrap();
        assert_eq!((recovered.discarded, recovered.left.as_slice()), (0, &[][..]), "{recovered:?}");
        assert_eq!(ending(&scenario, ".sql.gz").len(), 1, "the only copy of the rows");
        assert!(ending(&scenario, ".pending.json").is_empty());
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "901");
        scenario.run(&["archives", "restore"]).succeeded().prints(&["100 rows put back from 1 "]);
        assert_eq!(server.sql(&database, ALL), before);
    }
}

/// A batch of more than a few pieces: 8 MB that do not compress well.
fn large(server: &Server) -> (String, Scenario) {
    let database = logs(server, 10);
    server.sql(
        &database,
        "ALTER TABLE logs ADD COLUMN note text; INSERT INTO logs (created_at, status, note)
         SELECT now() - interval '200 d', 'ok', (SELECT string_agg(md5(g::text || i::text), ' ') FROM generate_series(1, 60) i) FROM generate_series(1, 4000) g",
    );
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs", "--yes"]).succeeded();
    (database, scenario)
}

#[test]
fn a_restore_that_the_server_refuses_at_its_start_ends_with_the_reason() {
    let server = server(18);
    let (database, scenario) = large(server);
    for (spoiled, mended, says) in [
        ("ALTER TABLE logs RENAME COLUMN note TO remark", "ALTER TABLE logs RENAME COLUMN remark TO note", "\"note\""),
        ("ALTER TABLE logs ADD CONSTRAINT none CHECK (false) NOT VALID", "ALTER TABLE logs DROP CONSTRAINT none", "none"),
    ] {
        server.sql(&database, spoiled);
        for arguments in [&["archives", "restore"][..], &["archives", "restore", "--time", "..now"]] {
            let mut restoring = scenario.start(arguments);
            eventually("the restore ends", || !restoring.is_running());
            restoring.wait().exited(1).says(&[says, "nothing was put back"]);
        }
        server.sql(&database, mended);
    }
    scenario.run(&["archives", "restore"]).succeeded().prints(&["rows put back from 1 "]);
}

#[test]
fn rows_that_are_said_to_be_back_outlive_a_crash_of_the_server() {
    let mut server = Server::start_with(18, &["wal_writer_delay=10s"]);
    let database = logs(&server, 1000);
    let before = server.sql(&database, ALL);
    let scenario = scenario(&server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    server.sql("postgres", &format!("ALTER DATABASE {database} SET synchronous_commit = off"));
    server.sql("postgres", "CHECKPOINT");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    server.crash();
    server.start_again();
    assert_eq!(server.sql(&database, ALL), before);
}

#[test]
fn rows_that_leave_again_in_a_run_that_is_killed_come_back_again() {
    for some in [false, true] {
        let server = server(18);
        let database = logs(server, 1000);
        let s3 = S3Server::start();
        let scenario = scenario(server, &database, "archive = 'bucket'").s3(&s3);
        scenario.run(&["run-job", "old-logs"]).succeeded();
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
        if some {
            server.sql(&database, "UPDATE logs SET status = 'changed' WHERE id = 7");
        }
        let before = server.sql(&database, ALL);
        let fault = Fault::Slow(Duration::from_secs(600));
        s3.break_with(Rule { method: Method::PUT, contains: ".restored.json", skip: 0, times: 9, fault });
        let running = scenario.start(&["run-job", "old-logs"]);
        eventually("the rows left", || server.sql(&database, "SELECT count(*) FROM logs") == "241");
        std::thread::sleep(Duration::from_secs(1));
        running.kill();
        s3.heal();
        let put = if some { "760 rows put back from 2 " } else { "760 rows put back from 1 " };
        scenario.run(&["archives", "restore"]).succeeded().prints(&[put]);
        assert_eq!(server.sql(&database, ALL), before);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back"]);
    }
}

/// The server's folder as it is now, for [`set_back`].
fn keep_state(server: &mut Server) {
    server.crash();
    copy(&server.path("data"), &server.path("kept"));
    server.start_again();
}

/// The server goes back to the state that was kept, as from a snapshot of its disk.
fn set_back(server: &mut Server) {
    server.crash();
    std::fs::remove_dir_all(server.path("data")).unwrap();
    copy(&server.path("kept"), &server.path("data"));
    server.start_again();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn rows_that_a_server_lost_when_it_was_set_back_are_not_said_to_be_back() {
    for has_key in [true, false] {
        let mut server = Server::start(18);
        let database = logs(&server, 1000);
        if !has_key {
            server.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
        }
        let scenario = scenario(&server, &database, "archive = 'local'");
        scenario.run(&["run-job", "old-logs"]).succeeded();
        keep_state(&mut server);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
        set_back(&mut server);
        // The number of the lost transaction is free again.
        scenario.run(&["archives", "restore", "--dry-run"]).succeeded().prints(&["would put 760 rows"]);
        // Another transaction gets it.
        let more = "DO $$ BEGIN FOR i IN 1..60 LOOP INSERT INTO logs (status) VALUES ('ok'); COMMIT; END LOOP; END $$";
        server.sql(&database, more);
        server.sql(&database, "DELETE FROM logs WHERE created_at IS NULL AND id > 1001");
        for more in [&["--dry-run"][..], &[]] {
            let said = scenario.run(&[&["archives", "restore"], more].concat()).exited(75);
            said.says(&["none of them", "set back", "--again"]);
        }
        scenario.run(&["archives", "restore", "--again"]).succeeded().prints(&["760 rows put back"]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["1 batch already back"]);
        server.crash();
        server.start_again();
        scenario.run(&["archives", "restore"]).succeeded().prints(&["1 batch already back"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE id <= 1001"), "1001", "with a key: {has_key}");
    }
}

#[test]
fn rows_of_a_batch_that_never_left_do_not_come_back_twice() {
    let mut server = Server::start(18);
    let database = logs(&server, 1000);
    server.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    let before = server.sql(&database, ALL);
    let scenario = scenario(&server, &database, "archive = 'local'");
    keep_state(&mut server);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    set_back(&mut server);
    assert_eq!(server.sql(&database, ALL), before);
    let never_left = ["never left", "set back"];
    scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back"]).says(&never_left);
    assert_eq!(server.sql(&database, ALL), before, "they are there");
    // The next run archives them as they are.
    let run = scenario.json(&["run-job", "old-logs"]);
    assert!(run["runs"][0]["report"]["warnings"].to_string().contains("never left"), "{run:#}");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 "]).says(&never_left);
    assert_eq!(server.sql(&database, ALL), before);
}

#[test]
fn rows_of_a_batch_that_never_left_do_not_come_back_twice_on_another_server() {
    let mut server = Server::start(18);
    let database = logs(&server, 1000);
    server.sql(&database, "ALTER TABLE logs DROP CONSTRAINT logs_pkey");
    let new = crate::support::postgres::server(18);
    let elsewhere = logs(new, 10);
    new.sql(&elsewhere, "ALTER TABLE logs DROP CONSTRAINT logs_pkey; DELETE FROM logs");
    let scenario = scenario(&server, &database, "archive = 'local'")
        .config(&format!("[databases.new]\nurl = {}\n", crate::support::quoted(&new.url(&elsewhere))));
    keep_state(&mut server);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    set_back(&mut server);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(ending(&scenario, ".restored.json").len(), 1, "that the rows never left is noted");
    drop(server);
    let restore = ["archives", "restore", "--to", "new"];
    scenario.run(&[&restore[..], &["--dry-run"]].concat()).succeeded().prints(&["never left", "would not put them back"]);
    scenario.run(&restore).exited(1).says(&["never left", "--again --batch"]);
    assert_eq!(new.sql(&elsewhere, "SELECT count(*), count(DISTINCT id) FROM logs"), "760|760");
}

/// A batch that is replaced by one of a history that the server no longer has.
#[test]
fn a_partition_is_not_dropped_on_the_word_of_a_batch_that_another_one_replaces() {
    for by_hand in [false, true] {
        let mut server = Server::start(18);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE ev (id bigint, at timestamptz NOT NULL, what text) PARTITION BY RANGE (at);
             DO $$ DECLARE old date := date_trunc('month', now()) - interval '5 months'; BEGIN
                EXECUTE format('CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM (%L) TO (%L)', old, old + interval '1 month');
                INSERT INTO ev SELECT i, old + interval '1 day', 'row ' || i FROM generate_series(1, 100) i;
             END $$",
        );
        let keys = "every = \"month\"\nretain = \"60d\"\ngrace = \"4s\"\npremake = 1\narchive = \"local\"";
        let scenario = Scenario::with_url(&server, &server.url(&database)).partitions("public.ev", "at", keys);
        scenario.tend().succeeded().prints(&["detached"]);
        keep_state(&mut server);
        std::thread::sleep(Duration::from_secs(4));
        server
            .sql(&database, "DROP TRIGGER pgtend_retired ON ev_old; INSERT INTO ev_old SELECT 101, min(at), 'added' FROM ev_old");
        scenario.tend().succeeded();
        assert_eq!(ending(&scenario, ".sql.gz").len(), 2, "it was archived again");
        set_back(&mut server);
        if by_hand {
            server.sql(&database, "DROP TABLE ev_old");
        } else {
            scenario.tend().succeeded().says(&["they are archived again"]).prints(&["dropped"]);
            assert_eq!(ending(&scenario, ".sql.gz").len(), 3);
        }
        server.sql(&database, "CREATE TABLE ev_all PARTITION OF ev DEFAULT");
        scenario.run(&["archives", "restore", "--dry-run"]).succeeded().prints(&["would put 100 rows", "never left"]);
        scenario.run(&["archives", "restore"]).succeeded().prints(&["100 rows put back from 1 "]);
        assert_eq!(
            server.sql(&database, "SELECT count(*), count(DISTINCT id), max(id) FROM ev"),
            "100|100|100",
            "by hand: {by_hand}"
        );
        scenario.run(&["archives", "restore"]).succeeded().prints(&["0 rows put back"]);
    }
}

/// A physical copy of the server that went its own way, with a configuration of the same store and jobs, and numbers that the original has given out.
fn copied(server: &Server, database: &str, scenario: &Scenario) -> Server {
    let copy = server.standby();
    copy.catches_up(server);
    copy.promote();
    copy.sql(database, "DELETE FROM logs WHERE created_at < now() - interval '10 days'");
    server.sql(database, "DO $$ BEGIN FOR i IN 1..300 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    configured_alike(scenario, &copy.url(database));
    copy
}

const ON_THE_COPY: [&str; 5] = ["--config", "staging.toml", "--jobs", "jobs", "run-job"];

#[test]
fn a_copy_of_the_server_deletes_no_batch_that_the_original_has_not_recorded_yet() {
    let server = Server::start(18);
    let database = logs(&server, 1000);
    let scenario = scenario(&server, &database, "archive = 'local'");
    let copy = copied(&server, &database, &scenario);
    let (url, on_the_copy) = (server.url(&database), [&ON_THE_COPY[..], &["old-logs"]].concat());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        archive_100(store_of(&scenario).await.unwrap(), url, false).await.unwrap();
    });
    let run = scenario.run(&on_the_copy).succeeded();
    run.says(&["stays", "copy of the server that archived the rows"]);
    assert_eq!(ending(&scenario, ".pending.json").len(), 1);
    // The original's next run finds that it had committed.
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(ending(&scenario, ".pending.json"), Vec::<String>::new());
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001");
    drop(copy);
}

#[test]
fn a_copy_of_the_server_does_not_say_for_the_original_that_rows_never_left() {
    for restarts in [false, true] {
        let mut server = Server::start(18);
        let database = logs(&server, 1000);
        let scenario = scenario(&server, &database, "archive = 'local'");
        let copy = copied(&server, &database, &scenario);
        let before = server.sql(&database, ALL);
        scenario.run(&["run-job", "old-logs"]).succeeded();
        scenario.run(&[&ON_THE_COPY[..], &["old-logs"]].concat()).succeeded();
        if restarts {
            // From here on the original does not know it for certain, and says so.
            server.crash();
            server.start_again();
            scenario.run(&["archives", "restore"]).exited(75).says(&["physical copy", "None of them was found", "--again"]);
            scenario.run(&["archives", "restore", "--again"]).succeeded().prints(&["760 rows put back"]);
        } else {
            scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
        }
        assert_eq!(server.sql(&database, ALL), before, "restarts: {restarts}");
        drop(copy);
    }
}

#[test]
fn a_copy_of_the_server_does_not_end_a_restore_that_the_original_has_not_recorded_yet() {
    let server = Server::start(18);
    let database = logs(&server, 1000);
    let scenario = scenario(&server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let copy = copied(&server, &database, &scenario);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    // As if it was killed after its commit, and before it recorded that.
    let record = scenario.path("store").join(ending(&scenario, ".restored.json").remove(0));
    let read = || serde_json::from_slice::<Value>(&std::fs::read(&record).unwrap()).unwrap();
    let mut unfinished = read();
    assert_eq!(unfinished["times"][0]["is_committed"], true, "{unfinished:#}");
    unfinished["times"][0]["is_committed"] = false.into();
    std::fs::write(&record, unfinished.to_string()).unwrap();

    let on_the_copy = ["--config", "staging.toml", "--jobs", "jobs", "archives", "restore"];
    scenario.run(&on_the_copy).exited(75).says(&["may not have committed", "--again"]);
    assert_eq!(copy.sql(&database, "SELECT count(*) FROM logs"), "241");
    assert_eq!(read()["times"], unfinished["times"], "its entry stays");
    // The original knows, and its rows are back once.
    scenario.run(&["archives", "restore"]).succeeded().prints(&["1 batch already back"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "1001");
    drop(copy);
}

#[test]
fn unfinished_uploads_of_other_hosts_outlive_a_run_until_they_are_a_day_old() {
    let server = server(18);
    let database = logs(server, 10);
    server.sql(
        &database,
        "ALTER TABLE logs ADD COLUMN note text; INSERT INTO logs (created_at, status, note)
         SELECT now() - interval '200 d', 'ok', (SELECT string_agg(md5(g::text || i::text), ' ') FROM generate_series(1, 60) i) FROM generate_series(1, 4000) g",
    );
    let fast = scenario(server, &database, "archive = 'local'");
    let path = fast.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let scenario = fast.config("max_upload = \"100KB/s\"\n");
    let running = scenario.start(&["run-job", "old-logs", "--yes"]);
    eventually("the rows are on their way", || !ending(&scenario, ".partial").is_empty());
    running.kill();
    let left = ending(&scenario, ".partial");
    std::fs::write(&path, config).unwrap();
    // Nothing but its name says whose it is.
    for pending in ending(&scenario, ".pending.json") {
        std::fs::remove_file(scenario.path(&format!("store/{pending}"))).unwrap();
    }
    let of_others = ["0", "f"].map(|digit| {
        let name = format!("store/app/old-logs/archive/.2026-11-30T02-00-00Z-0000000001.sql.gz.{}.partial", digit.repeat(32));
        std::fs::write(scenario.path(&name), "rows").unwrap();
        name
    });
    let yesterday = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    std::fs::File::options().write(true).open(scenario.path(&of_others[0])).unwrap().set_modified(yesterday).unwrap();
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = current_database()";
    eventually("the server let go of it", || server.sql(&database, backends) == "0");
    scenario.run(&["run-job", "old-logs", "--yes"]).succeeded();
    let stays = of_others[1].strip_prefix("store/").unwrap();
    assert_eq!(ending(&scenario, ".partial"), [stays], "there were also {left:?}");
}

/// A second configuration that calls another database the same, with the same store and jobs.
fn configured_alike(scenario: &Scenario, url: &str) {
    let text = format!(
        "[databases.app]\nurl = {}\n[stores.local]\npath = {}\n",
        quoted(url),
        quoted(&scenario.path("store").display().to_string())
    );
    std::fs::write(scenario.path("staging.toml"), text).unwrap();
}

#[test]
fn what_a_killed_run_on_another_server_left_stops_no_run_and_waits_for_that_one() {
    let (server, other) = (server(18), Server::start(18));
    let database = logs(server, 1000);
    let elsewhere = logs(&other, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    configured_alike(&scenario, &other.url(&elsewhere));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        archive_100(store_of(&scenario).await.unwrap(), server.url(&database), false).await.unwrap();
    });
    let run = scenario.run(&[&ON_THE_COPY[..], &["old-logs"]].concat()).succeeded();
    run.says(&["a run on another server", "the next run of the job there ends it"]);
    assert_eq!(other.sql(&elsewhere, "SELECT count(*) FROM logs"), "241");
    assert_eq!(ending(&scenario, ".pending.json").len(), 1);
    scenario.run(&["run-job", "old-logs"]).succeeded();
    assert_eq!(ending(&scenario, ".pending.json"), Vec::<String>::new());
    assert_eq!(ending(&scenario, ".sql.gz").len(), 3, "100 and 660 rows of the one, 760 of the other");
}

#[test]
fn batches_of_two_databases_in_one_folder_are_told_apart() {
    let server = server(18);
    let other = Server::start(18);
    for on in [server, &other] {
        let database = logs(server, 1000);
        let staging = logs(on, 1000);
        on.sql(&staging, "ALTER TABLE logs ALTER id DROP IDENTITY; UPDATE logs SET id = id + 100000, status = 'staging'");
        let before = server.sql(&database, ALL);
        let scenario = scenario(server, &database, "archive = 'local'");
        configured_alike(&scenario, &on.url(&staging));
        scenario.run(&["run-job", "old-logs"]).succeeded();
        scenario.run(&["--config", "staging.toml", "--jobs", "jobs", "run-job", "old-logs"]).succeeded();
        let listed = scenario.json(&["archives", "list"]);
        let identities: Vec<String> =
            listed["batches"].as_array().unwrap().iter().map(|batch| batch["identity"].as_str().unwrap().to_owned()).collect();
        assert!(identities.iter().any(|identity| identity.ends_with(&format!("/{database}"))), "{identities:?}");
        let own = identities.iter().find(|identity| identity.ends_with(&format!("/{database}"))).unwrap();
        for more in [&["--dry-run"][..], &[]] {
            let said = scenario.run(&[&["archives", "restore"], more].concat()).exited(78);
            said.says(&["two databases or servers", &format!("--from {own}"), "--any"]);
        }
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
        scenario.run(&["archives", "restore", "--from", own]).succeeded().prints(&["760 rows put back from 1 "]);
        assert_eq!(server.sql(&database, ALL), before);
        scenario
            .run(&["archives", "restore", "--any"])
            .succeeded()
            .prints(&["760 rows put back from 1 ", "1 batch already back"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE status = 'staging'"), "760");
    }
}

#[test]
fn a_batch_whose_run_was_killed_after_its_commit_is_named_and_comes_back() {
    let server = server(18);
    let database = logs(server, 1000);
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    // What a kill between the commit and the manifest leaves.
    let manifest =
        scenario.files("store").into_iter().find(|file| file.contains("/archive/") && file.ends_with(".json")).unwrap();
    let at = |end: &str| scenario.path("store").join(manifest.replace(".json", end));
    std::fs::rename(at(".json"), at(".pending.json")).unwrap();
    scenario.run(&["archives", "list"]).succeeded().says(&[".pending.json", "archives restore", "760 rows"]);
    let listed = scenario.json(&["archives", "list"]);
    assert_eq!(listed["pending"][0]["rows"], Value::from(760), "{listed:#}");
    scenario.run(&["archives", "restore", "--dry-run"]).says(&[".pending.json"]);
    assert!(at(".pending.json").exists(), "a dry run writes nothing");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back from 1 "]);
    assert_eq!(server.sql(&database, ALL), before);
    assert!(!at(".pending.json").exists());
}

#[test]
fn a_dry_run_says_how_many_rows_go_back_beside_those_that_are_there() {
    let server = server(18);
    let database = logs(server, 1000);
    let scenario = scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["archives", "restore", "--key", "id=1,2,3"]).succeeded().prints(&["3 rows put back"]);
    scenario.run(&["archives", "restore", "--dry-run"]).succeeded().prints(&["would put 757 of the 760 rows"]);
    scenario.run(&["archives", "restore"]).succeeded().prints(&["757 rows put back"]);
}

#[test]
fn rows_that_left_while_they_were_compressed_come_back_by_the_way_that_the_error_names() {
    let server = server(18);
    let database = logs(server, 1000);
    // Of rows that leave and of rows that stay.
    let notes = "ALTER TABLE logs ADD COLUMN note text;
                 UPDATE logs SET note = (SELECT string_agg(md5(logs.id::text || i::text), ' ') FROM generate_series(1, 100) i) WHERE id % 20 = 0";
    server.sql(&database, notes);
    let before = server.sql(&database, ALL);
    let scenario = scenario(server, &database, "archive = 'local'").job(
        "comp",
        "database = 'app'\nenabled = false\n[compress]\ntable = 'public.logs'\ncolumn = 'note'\nlarger_than = '2KB'\nmethod = 'gzip'\n",
    );
    scenario.run(&["compress", "install", "comp", "--force"]).succeeded();
    scenario.run(&["run-job", "comp"]).succeeded();
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["compress", "undo", "comp"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "241");
    for (more, code) in [(&[][..], 78), (&["--dry-run"], 78), (&["--into", "public.logs"], 1)] {
        scenario.run(&[&["archives", "restore"], more].concat()).exited(code).says(&["pgtend compress install JOB"]);
    }
    scenario.run(&["compress", "install", "comp", "--force"]).succeeded();
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    scenario.run(&["compress", "undo", "comp"]).succeeded();
    assert_eq!(server.sql(&database, ALL), before);
}

/// Two keys that a user of the application chose: the one has the text that stood for the filter, the other ends the literal in which the filter lands.
#[test]
fn a_user_who_names_rows_like_parts_of_our_sql_runs_none_of_it_when_they_are_looked_for() {
    const RUNS: &str = " || pg_catalog.nextval($$public.ran$$)::text || ";
    let mut server = Server::start(15);
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE SEQUENCE ran; CREATE TABLE logs (id text PRIMARY KEY, created_at timestamptz NOT NULL);
             INSERT INTO logs SELECT 'r' || i, now() - interval '200 days' FROM generate_series(1, 5) i;
             INSERT INTO logs VALUES ('/* filter */', now() - interval '200 days'), ('{RUNS}', now() - interval '200 days')"
        ),
    );
    let job = "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '90d'\narchive = 'local'\n[limits]\ntrust_owners = false\n";
    let scenario = Scenario::with_database(&server, &database).job("old", job);
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    scenario.run(&["archives", "restore", "--key", &format!("id={RUNS}")]).succeeded().prints(&["1 row put back"]);
    server.crash();
    server.start_again();
    scenario.run(&["archives", "restore", "--dry-run"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT is_called FROM ran"), "f");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["6 rows put back"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "7");
}
