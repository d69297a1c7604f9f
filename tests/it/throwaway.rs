//! Proofs in a PostgreSQL server of their own: production writes nothing for them, and nothing of them stays.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::postgres::{MAJORS, Server, WITH_PGVECTOR, server, server_dir};
use crate::support::{Running, Scenario, quoted};

/// As root, the tests' own servers run as this user, too: so it must be named.
pub const RUN_AS: &str = "run_as = \"nobody\"\n";

/// A job that proves its sets in a server of its own, in the folder of the second.
pub fn scenario(server: &Server, database: &str, more: &str) -> (Scenario, TempDir) {
    let place = place();
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = {}\n[stores.local]\npath = \"store\"\n", quoted(&server.url(database))))
        .config(&format!("[verify]\nscratch_dir = {}\n", quoted(&place.path().display().to_string())))
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())))
        .config(&format!("server_bin_dir = {}\n{RUN_AS}", quoted(&server_dir(server.major).display().to_string())))
        .backup_job("local", &format!("verify = \"restore\"\nscratch = \"throwaway\"\n{more}"));
    (scenario, place)
}

/// A folder that every user may enter.
pub fn place() -> TempDir {
    let place = tempfile::Builder::new().prefix("pgt").tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    place
}

pub fn entries(place: &TempDir) -> Vec<PathBuf> {
    std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The ids of processes whose working folder is in this one: a server and its supervisor.
fn at_work_in(place: &Path) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|folder| folder.starts_with(place))).collect()
}

/// Those of them that are PostgreSQL. One that is ending has no program any more.
fn servers_in(place: &Path) -> Vec<u32> {
    let is_postgres = |id: &u32| std::fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|program| program.ends_with("postgres"));
    at_work_in(place).into_iter().filter(is_postgres).collect()
}

/// A session of a server in there builds an index.
pub fn builds_an_index(place: &Path) -> bool {
    at_work_in(place).into_iter().any(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("CREATE INDEX")
    })
}

/// As `eventually`, with more patience: a server of its own has a low priority, and a busy machine lets it wait.
#[track_caller]
pub fn in_the_end(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(600), "in ten minutes it did not come to be that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn facts(json: &Value) -> &Value {
    &json["runs"][0]["report"]["facts"]
}

/// Sleeps in the server of its own alone: what the restore of its index waits for.
const SLOW: &str = "CREATE FUNCTION slow(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$
    BEGIN
        IF current_database() = 'pgtend_proof' THEN PERFORM pg_sleep(3600); END IF;
        RETURN i;
    END $$;
    CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i;
    CREATE INDEX ON t (slow(i));";

/// A run that waits in the middle of its restore; the folder of its server.
fn waiting_in_its_restore(scenario: &Scenario, place: &TempDir) -> (Running, PathBuf) {
    let run = scenario.start(&["run-job", "nightly"]);
    in_the_end("the restore waits in its index", || builds_an_index(place.path()));
    (run, entries(place).pop().unwrap())
}

#[test]
fn a_set_is_proved_in_a_server_of_its_own_on_every_version() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        let owner = format!("{database}_owner");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner}; CREATE SCHEMA app AUTHORIZATION {owner}; CREATE EXTENSION IF NOT EXISTS plpgsql;
                 CREATE TYPE app.kind AS ENUM ('a', 'b');
                 CREATE TABLE app.t (id int PRIMARY KEY, kind app.kind, body text); ALTER TABLE app.t OWNER TO {owner};
                 INSERT INTO app.t SELECT i, 'a', md5(i::text) FROM generate_series(1, 1000) i;
                 CREATE MATERIALIZED VIEW app.m AS SELECT count(*) FROM app.t; ALTER MATERIALIZED VIEW app.m OWNER TO {owner};
                 GRANT SELECT ON app.t TO {owner}; CREATE TABLE plain (i int); INSERT INTO plain VALUES (1);
                 COMMENT ON SCHEMA public IS 'ours'; SELECT lo_from_bytea(0, 'x');"
            ),
        );
        if WITH_PGVECTOR.contains(&major) {
            server.sql(
                &database,
                "CREATE SCHEMA extensions; CREATE EXTENSION vector WITH SCHEMA extensions; COMMENT ON EXTENSION vector IS 'ours';
                 CREATE TABLE v (e extensions.vector(3)); INSERT INTO v VALUES ('[1,2,3]'), ('[3,2,1]');
                 CREATE INDEX ON v USING hnsw (e extensions.vector_l2_ops);",
            );
        }
        let (scenario, place) = scenario(server, &database, "");
        let scenario = scenario.config(&format!("[metrics]\ntextfile_dir = {}\n", quoted(&place.path().display().to_string())));
        scenario.run(&["check", "--connect"]).succeeded();
        scenario
            .run(&["run-job", "nightly", "--dry-run"])
            .succeeded()
            .prints(&[&format!("restored in a PostgreSQL {major}."), "of its own"]);
        assert_eq!(entries(&place), Vec::<PathBuf>::new(), "a dry run makes none");

        let run = scenario.json(&["run-job", "nightly"]);
        let restored_in = facts(&run)["restored_in"].as_str().unwrap_or_else(|| panic!("{run:#}"));
        assert!(restored_in.starts_with(&format!("a PostgreSQL {major}.")) && restored_in.ends_with(" of its own"), "{run:#}");
        assert!(facts(&run)["restore_seconds"].as_f64().unwrap() > 0.0, "{run:#}");
        assert!(run["runs"][0]["report"]["summary"].as_str().unwrap().contains("of its own in "), "{run:#}");
        let warnings = run["runs"][0]["report"]["warnings"].to_string();
        assert!(!warnings.contains("not tested"), "not each night: {run:#}");
        assert!(facts(&run)["not_tried"].to_string().contains("owners of event triggers"), "{run:#}");
        assert!(facts(&run)["by_superuser"]["owners"].as_u64().unwrap() >= 3, "{run:#}");
        let left: Vec<PathBuf> = entries(&place).into_iter().filter(|path| path.is_dir()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        assert_eq!(at_work_in(place.path()), Vec::<u32>::new());
        let metrics = std::fs::read_to_string(place.path().join("pgtend_nightly.prom")).unwrap();
        assert!(metrics.contains("pgtend_restore_seconds{job=\"nightly\",database=\"app\"}"), "{metrics}");

        let listed = scenario.json(&["backups", "list"]);
        assert_eq!(listed["sets"][0]["bytes"], "intact", "{listed:#}");
        assert_eq!(listed["sets"][0]["restored"], true, "{listed:#}");
        let restore = &listed["sets"][0]["verification"]["restores"][0];
        assert_eq!(restore["server"], "a server of its own");
        assert!(restore["restore_seconds"].as_f64().is_some(), "{restore:#}");
    }
}

#[test]
fn production_writes_no_wal_for_a_proof_in_a_server_of_its_own() {
    let server = Server::start_with(18, &["autovacuum=off", "checkpoint_timeout=1h", "bgwriter_lru_maxpages=0"]);
    server.sql("postgres", "CREATE DATABASE app");
    server.sql(
        "app",
        "CREATE TABLE big AS SELECT i, md5(i::text) || md5((i * 7)::text) || md5((i * 13)::text) AS body FROM generate_series(1, 100000) i",
    );
    server.sql("app", "VACUUM (ANALYZE)");
    server.sql("app", "CHECKPOINT");
    let written_by = |scenario: &Scenario| {
        let before = server.sql("postgres", "SELECT pg_current_wal_lsn()");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let written = server.sql("postgres", &format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')"));
        written.parse::<u64>().unwrap()
    };
    // What PostgreSQL itself writes from time to time, of its running transactions, is a few hundred bytes.
    let (own, _place) = scenario(&server, "app", "");
    // The first to read a page may write what it found out of its rows.
    own.run(&["run-job", "nightly"]).succeeded();
    let of_own = written_by(&own);
    assert!(of_own < 64 << 10, "{of_own} bytes of WAL");
    let (same, _place) = scenario(&server, "app", "");
    let of_scratch = written_by(&same.backup_job("local", "verify = \"restore\"\nscratch = \"same\""));
    assert!(of_scratch > 10 << 20, "{of_scratch} bytes of WAL");
}

#[test]
fn a_killed_run_leaves_no_server_and_the_next_run_removes_its_folder() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, SLOW);
    let (scenario, place) = scenario(server, &database, "");

    // pgtend alone: the supervisor ends the server, and takes its files away.
    let (run, folder) = waiting_in_its_restore(&scenario, &place);
    let data = folder.join("server/data");
    assert!(data.exists());
    run.kill();
    in_the_end("no process of the server is left", || at_work_in(&folder).is_empty());
    assert!(!data.join("PG_VERSION").exists(), "its files are gone");

    // pgtend and the supervisor: the next run ends the server, and then removes its folder.
    let (run, folder) = waiting_in_its_restore(&scenario, &place);
    let supervisor = supervisor_in(&folder);
    // The supervisor first: it would end the server when pgtend is gone.
    kill(supervisor);
    run.kill();
    in_the_end("the supervisor is gone", || !at_work_in(&folder).contains(&supervisor));
    assert!(builds_an_index(&folder), "the server goes on");
    let second = scenario.start(&["run-job", "nightly"]);
    in_the_end("another restore waits in its index", || !folder.exists() && builds_an_index(place.path()));
    assert_eq!(at_work_in(&folder), Vec::<u32>::new());
    second.signal(Signal::TERM);
    second.wait();

    // All of them: the folder is found by its lock.
    let (run, folder) = waiting_in_its_restore(&scenario, &place);
    let all = at_work_in(&folder);
    assert!(all.len() > 2, "{all:?}");
    run.kill();
    all.into_iter().for_each(kill);
    in_the_end("all are gone", || at_work_in(&folder).is_empty());
    assert!(folder.join("server/data/PG_VERSION").exists());
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&["of throwaway servers"]);
    assert!(folder.exists(), "a dry run removes nothing");

    server.sql(&database, "DROP INDEX t_slow_idx");
    // One that is at work is left alone.
    server.sql(&database, "CREATE TABLE other (i int); INSERT INTO other VALUES (1)");
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

/// The shell that creates the server, and ends it.
fn supervisor_in(folder: &Path) -> u32 {
    let found = at_work_in(folder).into_iter().find(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("trap ''")
    });
    found.expect("a supervisor")
}

fn kill(id: u32) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(id as i32).unwrap(), Signal::KILL);
}

#[test]
fn a_supervisor_that_was_killed_leaves_no_server_when_the_run_ends() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, SLOW);
    let (scenario, place) = scenario(server, &database, "");
    let (run, folder) = waiting_in_its_restore(&scenario, &place);
    let supervisor = supervisor_in(&folder);
    kill(supervisor);
    in_the_end("the supervisor is gone", || !at_work_in(&folder).contains(&supervisor));
    assert!(builds_an_index(&folder), "the server goes on");
    run.signal(Signal::TERM);
    run.wait();
    assert_eq!(servers_in(&folder), Vec::<u32>::new());
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
    in_the_end("the shell around the server has ended, too", || at_work_in(&folder).is_empty());
}

#[test]
fn no_other_user_gets_into_a_server_of_its_own_and_no_one_without_a_password() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, SLOW);
    let (scenario, place) = scenario(server, &database, "");
    let (run, folder) = waiting_in_its_restore(&scenario, &place);
    let inside = folder.join("server");
    assert_eq!(std::fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(inside.join("data")).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!inside.join("password").exists(), "it is not kept");
    let postmaster = std::fs::read_to_string(inside.join("data/postmaster.pid")).unwrap();
    assert_eq!(postmaster.lines().nth(5), Some(""), "it listens to no address: {postmaster}");
    // This process is the user who runs it, or root.
    let line = String::from_utf8(std::fs::read(inside.join("settings.conf")).unwrap()).unwrap();
    assert!(line.contains("listen_addresses = ''"), "{line}");
    let ask = |role: &str| {
        let output = std::process::Command::new(server.bin_dir.join("psql"))
            .args(["-w", "-X", "-c", "SELECT 1", "-h"])
            .arg(&inside)
            .args(["-U", role, "-d", "postgres"])
            .env_clear()
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for role in ["postgres", "nobody", "root"] {
        let said = ask(role);
        assert!(said.contains("no password supplied"), "{said}");
    }
    run.signal(Signal::TERM);
    run.wait();
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

#[test]
fn a_restore_that_fills_the_disk_ends_before_the_disk_is_full() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE junk (text text);
         CREATE FUNCTION fill(i int) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
         BEGIN
             IF current_database() = 'pgtend_proof' THEN
                 FOR n IN 1 .. 1000000 LOOP
                     INSERT INTO public.junk SELECT repeat(md5((n * 1000 + j)::text), 30) FROM generate_series(1, 250) j;
                     PERFORM pg_sleep(0.01);
                 END LOOP;
             END IF;
             RETURN true;
         END $$;
         CREATE TABLE t (i int CHECK (public.fill(i))); INSERT INTO t VALUES (1);",
    );
    let (scenario, place) = scenario(server, &database, "");
    let place = place.path().display();
    // Where others than root mount, they are root, and there is no second user to run the server: so pgtend gets its user back.
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let as_this_user = match uid.is_root() {
        true => String::new(),
        false => format!("unshare -U --map-user={} --map-group={} ", uid.as_raw(), gid.as_raw()),
    };
    let output = scenario
        .in_mount_namespace(&format!(
            "mount -t tmpfs -o size=700m none {place} && {{ {as_this_user}$pgtend run-job nightly; code=$?; find {place} -mindepth 1; exit $code; }}"
        ))
        .exited(78)
        .says(&["was made and its bytes are intact", "the restore was stopped", "scratch_dir"]);
    assert!(!output.stdout.contains("pgtend-throwaway"), "{output:?}");
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
}

#[test]
fn a_server_at_work_is_left_alone_by_other_runs() {
    let server = server(18);
    let (slow, quick) = (server.new_database(), server.new_database());
    server.sql(&slow, SLOW);
    server.sql(&quick, "CREATE TABLE t AS SELECT 1 AS i");
    let (first, place) = scenario(server, &slow, "");
    let (second, own) = scenario(server, &quick, "");
    let config = std::fs::read_to_string(second.path("config.toml")).unwrap();
    let config = config.replace(&own.path().display().to_string(), &place.path().display().to_string());
    std::fs::write(second.path("config.toml"), config).unwrap();
    let (run, folder) = waiting_in_its_restore(&first, &place);
    second.run(&["run-job", "nightly"]).succeeded();
    assert!(folder.join("server/data/PG_VERSION").exists());
    assert!(builds_an_index(place.path()));
    // Cancelled, it leaves nothing.
    run.signal(Signal::TERM);
    let output = run.wait();
    assert_eq!(output.code, Some(143), "{output:?}");
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
    assert_eq!(at_work_in(place.path()), Vec::<u32>::new());
}

#[test]
fn code_in_a_dump_starts_no_program_there() {
    let server = server(18);
    let database = server.new_database();
    let (scenario, place) = scenario(server, &database, "");
    let evidence = place.path().join("evidence");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    server.sql(
        &database,
        &format!(
            "CREATE FUNCTION hostile(i int) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF current_database() = 'pgtend_proof' THEN COPY (SELECT 1) TO PROGRAM 'touch {}'; END IF;
                 RETURN true;
             END $$;
             CREATE TABLE t (i int CHECK (public.hostile(i))); INSERT INTO t VALUES (1);",
            evidence.display()
        ),
    );
    scenario
        .run(&["run-job", "nightly"])
        .says(&["the verification by restore failed", "permission denied to COPY to or from an external program"]);
    assert!(!evidence.exists());
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
}

#[test]
fn what_is_expected_of_a_restored_copy_is_asked_there_as_a_role_without_rights() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA app; CREATE TABLE app.t AS SELECT i FROM generate_series(1, 10) i; CREATE TABLE app.empty (i int);
             ALTER DATABASE {database} SET search_path = app, public;"
        ),
    );
    let job = |expect: &str| format!("verify = \"restore\"\nscratch = \"throwaway\"\nexpect = [{expect}]\n");
    let (scenario, place) = scenario(server, &database, "");
    let scenario = scenario.backup_job(
        "local",
        &job("\"SELECT count(*) = 10 FROM t;\", \"SELECT NOT rolsuper FROM pg_roles WHERE rolname = current_user\""),
    );
    scenario.run(&["run-job", "nightly"]).succeeded();
    for scratch in ["throwaway", "same"] {
        let expect = "\"SELECT count(*) > 10 FROM t\", \"SELECT max(i) > 1 FROM empty\", \"SELECT nonsense FROM t\", \"SELECT 5\", \
                      \"SELECT i > 0 FROM t\", \"DELETE FROM t RETURNING true\", \"SELECT true\"";
        let scenario = scenario_with(&scenario, &job(expect).replace("throwaway", scratch));
        let output = scenario.run(&["run-job", "nightly"]).exited(1).says(&[
            "was made and its bytes are intact, but the check of the restored copy failed: these queries of `expect` are not true there",
            "SELECT count(*) > 10 FROM t: returned false",
            "SELECT max(i) > 1 FROM empty: returned NULL, or no row",
            "SELECT nonsense FROM t: failed: ",
            "SELECT 5: failed: ",
            "SELECT i > 0 FROM t: failed: ",
            "DELETE FROM t RETURNING true: failed: ",
        ]);
        assert!(!output.stderr.contains("SELECT true"), "{output:?}");
        let newest = scenario.json(&["backups", "list"])["sets"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&newest["bytes"], &newest["restored"]), (&Value::from("intact"), &Value::from(false)), "{newest:#}");
    }
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
    assert_eq!(server.sql(&database, "SELECT count(*) FROM app.t"), "10");
}

/// The same scenario with another job.
fn scenario_with<'s>(scenario: &'s Scenario, backup: &str) -> &'s Scenario {
    let job = format!("database = \"app\"\n[backup]\nstore = \"local\"\n{backup}");
    std::fs::write(scenario.path("jobs/nightly.toml"), job).unwrap();
    scenario
}

#[test]
fn a_restore_may_be_rarer_than_a_checksum() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let job = |often: &str| format!("verify = {{ restore = \"{often}\" }}\nscratch = \"same\"\nkeep = {{ last = 1 }}\n");
    let scenario = Scenario::with_database(server, &database).backup_job("local", &job("every 3rd"));
    let verified = |expected: &str| {
        let plan = scenario.json(&["run-job", "nightly", "--dry-run"]);
        assert_eq!(plan["runs"][0]["plan"]["verify"], expected, "{plan:#}");
        let run = scenario.json(&["run-job", "nightly"]);
        assert_eq!(facts(&run)["restored_in"].is_string(), expected == "restore", "{run:#}");
    };
    // `keep` prunes those in between, and they count all the same.
    for expected in ["restore", "checksum", "checksum", "restore", "checksum"] {
        verified(expected);
    }
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&["read back", "restored every 3rd set; last on 2"]);
    scenario.run(&["backups", "list"]).succeeded().prints(&["on 18."]);
    scenario_with(&scenario, &job("weekly"));
    verified("checksum");
    scenario_with(&scenario, &job("always"));
    verified("restore");
    scenario_with(&scenario, "verify = { checksum = \"never\", restore = \"monthly\" }\nscratch = \"same\"\n");
    verified("none");
    for (mistake, says) in [
        ("verify = { restore = \"sometimes\" }", "\"every 7th\""),
        ("verify = \"often\"", "\"checksum\", \"restore\", \"none\""),
        ("verify = { checksum = \"weekly\" }", "possible here: \"always\" or \"never\""),
        ("expect = [\"SELECT true\"]", "`expect` without verify = \"restore\""),
        ("verify = \"restore\"\nexpect = [\" ; \"]", "an empty statement"),
    ] {
        scenario_with(&scenario, &format!("{mistake}\n"));
        scenario.run(&["check"]).exited(78).says(&[says]);
    }
}
