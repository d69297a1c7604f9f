//! A staging database that is made anew from the newest proved set: masked, checked, swapped in, or left as it was.

use std::process::Stdio;

use serde_json::Value;

use crate::restore_database::{databases, digest, properties};
use crate::support::postgres::{MAJORS, Server, server};
use crate::support::{Scenario, eventually, quoted};

/// A source with a backup, and a database that a job `refresh` makes anew.
pub struct Stage {
    pub scenario: Scenario,
    pub source: String,
    pub staging: String,
}

/// Three users with addresses of people, and a table that only staging had.
pub fn stage(source: &Server, target: &Server, keys: &str) -> Stage {
    stage_of(source.new_database(), source, target, keys)
}

pub fn stage_of(from: String, source: &Server, target: &Server, keys: &str) -> Stage {
    let staging = target.empty_database();
    source.sql(
        &from,
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL);
         INSERT INTO users SELECT i, 'person' || i || '@company.com' FROM generate_series(1, 3) i",
    );
    target.sql(&staging, "CREATE TABLE of_staging AS SELECT 1 AS x");
    let scenario = Scenario::with_database(source, &from)
        .config(&format!("[databases.staging]\nurl = {}\n", quoted(&target.url(&staging))))
        .backup_job("local", "")
        .job("refresh", &job(keys));
    scenario.run(&["run-job", "nightly"]).succeeded();
    Stage { scenario, source: from, staging }
}

pub fn job(keys: &str) -> String {
    format!("database = \"staging\"\n[refresh]\nfrom = \"nightly\"\n{keys}\n")
}

impl Stage {
    /// Copies for the staging database, whatever they are at.
    pub fn copies(&self, server: &Server) -> Vec<String> {
        databases(server, &format!("pgtend_refresh_{}_", digest(&self.staging)))
    }

    /// Databases that had its name before; they go with the test.
    pub fn old(&self, server: &Server) -> Vec<String> {
        let old = databases(server, &format!("{}_before_", self.staging));
        old.iter().for_each(|name| server.drop_with_test(name));
        old
    }

    /// Nothing has happened to staging, and nothing is left.
    #[track_caller]
    pub fn is_as_it_was(&self, server: &Server) {
        assert_eq!(server.sql(&self.staging, "SELECT x FROM of_staging"), "1");
        assert_eq!(self.copies(server), Vec::<String>::new());
        assert_eq!(self.old(server), Vec::<String>::new());
    }

    pub fn facts(&self, job: &str) -> Value {
        let output = self.scenario.run(&["run-job", job, "--json"]).succeeded();
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        json["runs"][0]["report"].clone()
    }
}

/// A statement that waits while a role of this name exists.
pub fn held_by(role: &str) -> String {
    format!(
        "after = [\"DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') LOOP PERFORM pg_catalog.pg_sleep(0.2); END LOOP; END $$\"]"
    )
}

/// The role that holds refreshes of this database, until it is dropped.
pub fn hold(server: &Server, staging: &str) -> String {
    let role = format!("hold_{staging}");
    server.sql("postgres", &format!("CREATE ROLE {role}"));
    role
}

pub fn release(server: &Server, staging: &str) {
    server.sql("postgres", &format!("DROP ROLE hold_{staging}"));
}

const MASKS: &str =
    "after = [\"UPDATE users SET email = 'user' || id || '@example.org'\", \"CREATE INDEX ON users (email); ANALYZE users\"]
expect = [\"SELECT count(*) = 3 FROM users\", \"SELECT NOT EXISTS (SELECT FROM users WHERE email LIKE '%@company.com')\"]";

#[test]
fn the_newest_set_is_restored_masked_checked_and_takes_the_name() {
    let pairs = MAJORS.map(|major| (major, major)).into_iter().chain([(15, 18), (18, 16)]);
    for (from, to) in pairs {
        let (source, target) = (server(from), server(to));
        let stage = stage(source, target, MASKS);
        let Stage { staging, .. } = &stage;
        let app = format!("app_{staging}");
        target.sql(
            staging,
            &format!(
                "CREATE ROLE {app} LOGIN; ALTER DATABASE {staging} OWNER TO {app}; REVOKE CONNECT ON DATABASE {staging} FROM PUBLIC;
                 GRANT CONNECT ON DATABASE {staging} TO pg_monitor; ALTER DATABASE {staging} CONNECTION LIMIT 17;
                 ALTER DATABASE {staging} SET work_mem = '7MB'; COMMENT ON DATABASE {staging} IS 'it''s staging';
                 ALTER ROLE {app} IN DATABASE {staging} SET lock_timeout = '3s'"
            ),
        );
        let before = properties(target, staging);
        let report = stage.facts("refresh");
        let facts = &report["facts"];
        assert_eq!(
            target.sql(staging, "SELECT string_agg(email, ' ' ORDER BY id) FROM users"),
            "user1@example.org user2@example.org user3@example.org"
        );
        assert_eq!(properties(target, staging), before, "{from} to {to}");
        assert_eq!(stage.copies(target), Vec::<String>::new());
        // As the application connects.
        let seen =
            target.tool("psql", staging).args(["-XqAt", "-c", "SHOW work_mem", &target.url_as(&app, staging)]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "7MB", "{}", String::from_utf8_lossy(&seen.stderr));

        let old = stage.old(target);
        assert_eq!(old.len(), 1, "{old:?}");
        assert_eq!(target.sql(&old[0], "SELECT x FROM of_staging"), "1");
        assert_eq!(facts["old_database"], old[0].as_str(), "{report:#}");
        assert_eq!((&facts["swapped"], &facts["rows"], &facts["tables"]), (&true.into(), &3.into(), &1.into()));
        assert_eq!(facts["after"].as_array().unwrap().len(), 3, "{facts:#}");
        assert_eq!(facts["after"][0]["rows"], 3);
        assert_eq!(facts["after"][0]["statement"], "UPDATE users SET email = '…' || id || '…'");
        assert!(facts["expectations"].as_array().unwrap().iter().all(|one| one["is_true"] == true), "{facts:#}");
        assert!(
            facts["restore_seconds"].as_f64().unwrap() > 0.0 && facts["set_sha256"].as_str().unwrap().len() == 64,
            "{facts:#}"
        );
        if (from, to) == (18, 16) {
            // It is done again, from the same set.
            stage.facts("refresh");
            assert_eq!(stage.old(target).len(), 2);
            assert_eq!(properties(target, staging), before, "{from} to {to}");
        }
    }
}

#[test]
fn a_set_that_nobody_has_read_back_is_passed_over_unless_that_is_enough() {
    let server = server(18);
    let stage = stage(server, server, "");
    let scenario = stage.scenario.backup_job("local", "verify = \"none\"");
    server.sql(&stage.source, "DELETE FROM users WHERE id = 3");
    // Names of sets have whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["run-job", "refresh"]).succeeded().says(&["passed over", "nobody has read it back"]);
    assert_eq!(server.sql(&stage.staging, "SELECT count(*) FROM users"), "3");
    let scenario = scenario.job("refresh", &job("sets = \"complete\""));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scenario.run(&["run-job", "refresh"]).succeeded();
    assert_eq!(server.sql(&stage.staging, "SELECT count(*) FROM users"), "2");
    databases(server, &format!("{}_before_", stage.staging)).iter().for_each(|name| server.drop_with_test(name));
}

#[test]
fn a_drill_says_how_long_the_restore_took_and_leaves_nothing() {
    let server = server(18);
    let stage = stage(server, server, &format!("swap = false\n{MASKS}"));
    let session = server.session(&stage.staging, "SELECT 1");
    let plan = stage.scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded();
    plan.prints(&["Would drill the restore of", "removes it again", "expects that this is true then: SELECT count(*) = 3"]);
    let report = stage.facts("refresh");
    let facts = &report["facts"];
    assert_eq!((&facts["swapped"], &facts["rows"]), (&false.into(), &3.into()), "{report:#}");
    assert!(facts["restore_seconds"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(facts["set_taken_at"].is_string() && facts["pgtend_version"].is_string(), "{report:#}");
    assert!(report["summary"].as_str().unwrap().starts_with("drill with app/nightly/"), "{report:#}");
    drop(session);
    stage.is_as_it_was(server);
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be_done() {
    let server = server(18);
    let stage = stage(server, server, MASKS);
    let output = stage.scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded();
    output.prints(&["Would refresh", "runs 1 of 3 in it: UPDATE users SET email = '…'", "which is kept for 7d", "intact"]);
    stage.is_as_it_was(server);
}

#[test]
fn applications_that_connect_all_the_time_find_one_database_or_the_other() {
    let server = server(18);
    let stage = stage(server, server, "terminate = true\nwait = \"1ms\"");
    let staging = &stage.staging;
    let done = std::sync::atomic::AtomicBool::new(false);
    let (old, new, failed) = std::thread::scope(|scope| {
        let connects = scope.spawn(|| {
            let (mut old, mut new, mut failed) = (0, 0, Vec::new());
            while !done.load(std::sync::atomic::Ordering::Relaxed) || new == 0 {
                match server.psql(staging, "SELECT to_regclass('of_staging') IS NOT NULL") {
                    Ok(found) if found == "t" => old += 1,
                    Ok(_) => new += 1,
                    Err(error) => failed.push(error),
                }
            }
            (old, new, failed)
        });
        stage.scenario.run(&["run-job", "refresh"]).succeeded();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        connects.join().unwrap()
    });
    assert!(old > 0 && new > 0, "{old} {new}");
    // Who waits behind the rename is sent away once; who was in the old one is terminated.
    let is_expected = |error: &String| error.contains("just been dropped or renamed") || error.contains("terminat");
    assert!(failed.iter().all(is_expected), "{failed:?}");
    stage.old(server);
}

#[test]
fn the_replaced_database_goes_when_its_time_is_over_and_only_on_a_positive_answer() {
    let server = server(18);
    let stage = stage(server, server, "keep_old = \"2s\"");
    let again = || {
        std::thread::sleep(std::time::Duration::from_millis(2200));
        stage.facts("refresh")
    };
    stage.facts("refresh");
    let first = stage.old(server);
    let report = again();
    assert_eq!(report["facts"]["dropped_databases"][0], first[0].as_str(), "{report:#}");
    let second = stage.old(server);
    assert!(second.len() == 1 && second != first, "{second:?}");
    // Somebody looks something up in it.
    let session = server.session(&second[0], "SELECT 1");
    let report = again();
    assert!(report["warnings"].to_string().contains("someone is connected to it"), "{report:#}");
    drop(session);
    // Somebody has put another database in the place of staging.
    let Stage { staging, .. } = &stage;
    server.sql("postgres", &format!("DROP DATABASE {staging}"));
    server.sql("postgres", &format!("CREATE DATABASE {staging}"));
    let there = stage.old(server);
    let report = again();
    assert!(report["warnings"].to_string().contains("did not come by a refresh"), "{report:#}");
    assert!(there.iter().all(|name| stage.old(server).contains(name)), "{there:?}");
    // A mark alone is none.
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {staging}_precious; COMMENT ON DATABASE {staging}_precious IS 'made by pgtend refresh: {{\"what\":\"copy\",\"target\":\"{staging}\",\"job\":\"refresh\",\"run\":null,\"at\":\"2026-01-01T00:00:00Z\"}}'"),
    );
    server.drop_with_test(&format!("{staging}_precious"));
    again();
    assert_eq!(databases(server, &format!("{staging}_precious")).len(), 1);
    stage.old(server);
}

#[test]
fn statements_of_a_file_run_one_by_one_and_find_tables_by_the_path_that_is_said() {
    let server = server(18);
    let stage = stage(
        server,
        server,
        "after_file = \"mask.sql\"\nsearch_path = \"masks, public\"\nexpect = [\"SELECT bool_and(email = mask()) FROM users\"]",
    );
    std::fs::write(
        stage.scenario.path("jobs/mask.sql"),
        "-- comments; and quotes '\nCREATE SCHEMA masks;\nCREATE FUNCTION mask() RETURNS text LANGUAGE sql AS $$ SELECT 'a;b' $$;\n\
         BEGIN;\nSET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nUPDATE users SET email = mask();\nCOMMIT;\nVACUUM FULL users;\n",
    )
    .unwrap();
    let report = stage.facts("refresh");
    assert_eq!(report["facts"]["after"].as_array().unwrap().len(), 7, "{report:#}");
    assert_eq!(server.sql(&stage.staging, "SELECT DISTINCT email FROM users"), "a;b");
    std::fs::write(stage.scenario.path("jobs/mask.sql"), "\\i other.sql\n").unwrap();
    stage.scenario.run(&["run-job", "refresh"]).exited(78).says(&["after_file", "a command of psql"]);
    stage.old(server);
}

#[test]
fn sets_of_another_host_are_found_by_store_and_name() {
    let (source, target) = (server(16), server(18));
    let stage = stage(source, target, "");
    let there = Scenario::empty()
        .config(&format!("[databases.staging]\nurl = {}\n", quoted(&target.url(&stage.staging))))
        .config(&format!("[stores.backups]\npath = {}\n", quoted(&stage.scenario.path("store").display().to_string())))
        .job("refresh", &job(""))
        .job("whole", &job("store = \"backups\"\nfrom_database = \"app\""));
    there.run(&["run-job", "refresh"]).exited(78).says(&["no [backup] job `nightly`", "say `store`, too"]);
    there.run(&["run-job", "whole"]).succeeded();
    assert_eq!(target.sql(&stage.staging, "SELECT count(*) FROM users"), "3");
    stage.old(target);
}

#[test]
fn roles_that_the_server_lacks_are_named_mapped_or_made() {
    let (source, target) = (server(16), Server::start(18));
    let stage = stage(source, &target, "");
    let owner = format!("owner_{}", stage.source);
    source.sql(&stage.source, &format!("CREATE ROLE {owner}; ALTER TABLE users OWNER TO {owner}"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    stage.scenario.run(&["run-job", "nightly"]).succeeded();
    stage.scenario.run(&["run-job", "refresh"]).exited(78).says(&[&owner, "create_roles, role_map, no_owner"]);
    stage.is_as_it_was(&target);
    target.sql("postgres", "CREATE ROLE other");
    let owner_of = "SELECT relowner::regrole FROM pg_class WHERE relname = 'users'";
    let Stage { mut scenario, staging, .. } = stage;
    for (keys, expected) in
        [(format!("role_map = {{ {owner} = \"other\" }}"), "other".to_owned()), ("create_roles = true".to_owned(), owner.clone())]
    {
        scenario = scenario.job("refresh", &job(&keys));
        scenario.run(&["run-job", "refresh"]).succeeded();
        assert_eq!(target.sql(&staging, owner_of), expected, "{keys}");
    }
    scenario
        .job("refresh", &job("no_owner = true"))
        .run(&["run-job", "refresh"])
        .exited(77)
        .says(&["`no_owner` and `role_map` are refused here"]);
    source.sql(&stage.source, &format!("ALTER TABLE users OWNER TO postgres; DROP ROLE {owner}"));
}

#[test]
fn the_ledger_has_the_document_of_a_drill_and_marks_have_its_number() {
    let server = server(18);
    let Stage { scenario, source, staging } = stage(server, server, "");
    let held = held_by(&hold(server, &staging));
    let scenario = scenario
        .ledger()
        .backup_job("local", "keep = { last = 1 }")
        .job("drill", &job("swap = false\nexpect = [\"SELECT count(*) = 3 FROM users\", \"SELECT false\"]"))
        .job("refresh", &job(&held));
    scenario.run(&["run-job", "drill"]).exited(1).says(&["not true: SELECT false: returned false"]);
    let shown = scenario.json(&["runs", "show", "1"]);
    let facts = &shown["run"]["report"]["facts"];
    assert_eq!(
        (&facts["expectations"][0]["is_true"], &facts["expectations"][1]["is_true"]),
        (&true.into(), &false.into()),
        "{shown:#}"
    );
    assert!(
        facts["restore_seconds"].as_f64().unwrap() > 0.0 && facts["set"].as_str().unwrap().starts_with("app/nightly/"),
        "{shown:#}"
    );

    let html = scenario.run(&["runs", "show", "1", "--format", "html"]).succeeded().stdout;
    for expected in [
        "<!DOCTYPE html>",
        "Drill of a restore",
        "app/nightly/",
        "SELECT count(*) = 3 FROM users",
        "NOT TRUE",
        "Restored in",
        "failed",
    ] {
        assert!(html.contains(expected), "{expected}: {html}");
    }
    assert!(!html.contains("<script"));

    let running = scenario.start(&["run-job", "refresh"]);
    let prefix = format!("pgtend_refresh_{}_", digest(&staging));
    eventually("it is in the user's SQL", || databases(server, &prefix).iter().any(|copy| server.sleeps(copy)));
    let comment = |name: &str| {
        server.sql("postgres", &format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'"))
    };
    assert!(comment(&databases(server, &prefix)[0]).contains("\"what\":\"copy\""));
    // No prune deletes the set meanwhile.
    scenario.run(&["backups", "prune", "--job", "nightly"]).exited(75).says(&["a restore reads sets of app/nightly"]);
    release(server, &staging);
    running.wait().succeeded();
    let old = databases(server, &format!("{staging}_before_"));
    old.iter().for_each(|name| server.drop_with_test(name));
    assert!(comment(&old[0]).contains("\"run\":2,") && comment(&old[0]).contains("\"what\":\"old\""), "{}", comment(&old[0]));
    assert_eq!(comment(&staging), "");
    assert_eq!(server.sql(&source, "SELECT count(*) FROM users"), "3");
}

#[test]
fn a_locale_that_the_server_lacks_is_said_with_the_key_that_helps() {
    let server = server(18);
    let Stage { scenario, staging, .. } = stage(server, server, "locale = \"nosuch\"");
    scenario.run(&["run-job", "refresh"]).exited(1).says(&["locale nosuch", "`encoding` and `locale` of the job choose others"]);
    scenario.job("refresh", &job("locale = \"C\"")).run(&["run-job", "refresh"]).succeeded();
    let locale = format!("SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{staging}'");
    assert_eq!(server.sql("postgres", &locale), "C|UTF8");
    databases(server, &format!("{staging}_before_")).iter().for_each(|name| server.drop_with_test(name));
}

#[test]
fn the_role_of_grants_refreshes_a_database_and_ends_sessions_in_it() {
    for major in [15, 16, 18] {
        let server = server(major);
        // In a poisoned one are objects of superusers.
        let keys = format!("terminate = true\nwait = \"1s\"\n{MASKS}");
        let stage = stage_of(server.trusted_database(), server, server, &keys);
        let Stage { scenario, source, staging } = &stage;
        let (owner, tend) = (format!("owner_{source}"), format!("tend_{source}"));
        server.sql(
            source,
            &format!("CREATE ROLE {owner} LOGIN; ALTER DATABASE {source} OWNER TO {owner}; ALTER TABLE users OWNER TO {owner}"),
        );
        server.sql(staging, &format!("ALTER DATABASE {staging} OWNER TO {owner}; ALTER TABLE of_staging OWNER TO {owner}"));
        std::thread::sleep(std::time::Duration::from_millis(1100));
        scenario.run(&["run-job", "nightly"]).succeeded();
        let own = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
        std::fs::write(scenario.path("config.toml"), own.replace(&server.url(staging), &server.url_as(&tend, staging))).unwrap();
        std::fs::write(scenario.path("superuser.toml"), own).unwrap();
        server.sql("postgres", &format!("CREATE ROLE {tend} LOGIN"));
        let missing = scenario.run(&["check", "--connect"]).exited(77).stdout;
        assert!(missing.contains("CREATEDB") && missing.contains(&format!("GRANT \"{owner}\" TO \"{tend}\"")), "{missing}");
        let sql = scenario.run(&["grants", "--config", "superuser.toml", "--jobs", "jobs", "--role", &tend]).succeeded().stdout;
        for _ in 0..2 {
            server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        }
        scenario.run(&["check", "--connect"]).succeeded().prints(&["may replace"]);
        let mut psql = server.tool("psql", staging);
        psql.args(["-XqAt", "-c", "SELECT pg_sleep(120)", &server.url_as(&owner, staging)]);
        let mut session = psql.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the application is connected", || server.sleeps(staging));
        let report = stage.facts("refresh");
        assert_eq!(report["facts"]["terminated_sessions"], 1, "{major}: {report:#}");
        session.wait().unwrap();
        assert_eq!(server.sql(staging, "SELECT count(*) FROM users WHERE email LIKE '%@example.org'"), "3");
        assert_eq!(server.sql(staging, "SELECT relowner::regrole FROM pg_class WHERE relname = 'users'"), owner);
        stage.old(server);
    }
}
