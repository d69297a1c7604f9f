//! The audit as a job: what it stores, compares, waives and fails on; drift, backups; what is of the server and not of a database.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::audit::{audit, decided, keys, state};
use crate::support::postgres::{Server, server};
use crate::support::serve::Serving;
use crate::support::{Scenario, eventually};

const TWO_DEFECTS: &str = "CREATE TABLE a (x int); INSERT INTO a SELECT generate_series(1, 1000); CREATE TABLE b (id int PRIMARY KEY, \"Odd\" int); ANALYZE";

fn scenario(server: &Server, database: &str, keys: &str) -> Scenario {
    Scenario::with_database(server, database).job("quarterly", &format!("database = 'app'\n[audit]\nstore = 'local'\n{keys}\n"))
}

fn facts(scenario: &Scenario) -> Value {
    scenario.json(&["run-job", "quarterly"])["runs"][0]["report"]["facts"].clone()
}

#[test]
fn a_report_is_stored_and_the_next_one_says_what_is_new_and_what_was_resolved() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TWO_DEFECTS);
    let scenario = scenario(server, &database, "keep = 2");
    let dry = scenario.run(&["run-job", "quarterly", "--dry-run"]).succeeded();
    assert!(dry.stdout.contains("READ ONLY") && dry.stdout.contains("there is no earlier audit"), "{}", dry.stdout);
    assert_eq!(scenario.files("store"), [""; 0], "a dry run writes nothing");

    let first = facts(&scenario);
    assert_eq!(
        (&first["counts"]["medium"], &first["counts"]["low"], &first["counts"]["new"]),
        (&1.into(), &1.into(), &0.into()),
        "{first:#}"
    );
    let files = scenario.files("store");
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|file| file.starts_with("app/quarterly/audit/20")), "{files:?}");
    assert_eq!(scenario.sets(), [""; 0], "an audit is no backup set");

    server.sql(&database, "ALTER TABLE b RENAME \"Odd\" TO odd; CREATE TABLE c (y int); INSERT INTO c VALUES (1); ANALYZE");
    let second = facts(&scenario);
    let counts = &second["counts"];
    assert_eq!((&counts["new"], &counts["resolved"], &counts["unchanged"]), (&1.into(), &1.into(), &1.into()), "{second:#}");
    assert_eq!(second["resolved"][0], "identifier-needs-quoting:public.b.\"Odd\"");
    let new: Vec<&Value> = second["findings"].as_array().unwrap().iter().filter(|finding| finding["change"] == "new").collect();
    assert_eq!(new[0]["key"], "no-primary-key:public.c");
    assert_eq!(new.len(), 1);

    // Others' files stay, and so does what is no audit; the oldest of ours goes.
    std::fs::write(scenario.path("store/app/quarterly/audit/notes.txt"), "mine").unwrap();
    std::fs::write(scenario.path("store/app/quarterly/audit/2020-01-01T00-00-00Z.json"), "{\"format\": 99}").unwrap();
    let third = scenario.json(&["run-job", "quarterly"]);
    let report = &third["runs"][0]["report"];
    assert_eq!(report["facts"]["pruned_audits"], 1);
    assert!(report["warnings"][0].as_str().unwrap().contains("format 99"), "{report:#}");
    let left: Vec<String> = scenario.files("store").into_iter().filter(|file| file.ends_with(".json")).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(scenario.path("store/app/quarterly/audit/notes.txt").exists());
    let text = std::fs::read_to_string(scenario.path(&left[1].replacen("app", "store/app", 1).replace(".json", ".md"))).unwrap();
    assert!(text.contains("## Resolved since the last audit") || text.contains("| Medium | 2 |"), "{text}");
}

#[test]
fn what_a_killed_run_left_counts_as_no_audit_and_goes() {
    let server = server(18);
    let database = server.new_database();
    let scenario = scenario(server, &database, "");
    let folder = scenario.path("store/app/quarterly/audit");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("2026-01-01T00-00-00Z.md"), "half").unwrap();
    let first = facts(&scenario);
    assert_eq!(first["previous_audit"], Value::Null);
    assert!(!folder.join("2026-01-01T00-00-00Z.md").exists());
    assert_eq!(scenario.files("store").len(), 3);
}

#[test]
fn fail_on_decides_the_outcome_and_a_waiver_takes_a_finding_out_until_its_day() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TWO_DEFECTS);
    let run = |keys: &str| scenario(server, &database, keys).ledger().run(&["run-job", "quarterly"]);
    run("").succeeded();
    run("fail_on = 'low'").exited(1).says(&["2 findings low or more urgent", "no-primary-key:public.a"]);
    run("fail_on = 'medium'").exited(1).says(&["1 finding medium"]);
    run("fail_on = 'never'").succeeded();
    let waive = "waive = [{ key = 'no-primary-key:public.a', reason = 'a scratch pad', until = 2999-12-31 }]";
    let waived = scenario(server, &database, &format!("fail_on = 'medium'\n{waive}"));
    let report = waived.json(&["run-job", "quarterly"]);
    let counts = &report["runs"][0]["report"]["facts"]["counts"];
    assert_eq!((&counts["waived"], &counts["medium"], &counts["low"]), (&1.into(), &0.into(), &1.into()), "{report:#}");
    run(&format!("fail_on = 'medium'\n{}", waive.replace("2999-12-31", "2026-01-31"))).exited(1).says(&["1 finding medium"]);
    let report = scenario(server, &database, &waive.replace("2999-12-31", "2026-01-31")).json(&["run-job", "quarterly"]);
    let warning = report["runs"][0]["report"]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("ended on 2026-01-31") && warning.contains("a scratch pad"), "{warning}");
}

#[test]
fn mistakes_in_an_audit_job_are_found_at_their_place() {
    let mistakes = "fail_on = 'urgent'\nkeep = 0\nwaive = [{ key = 'no-primry-key:x', reason = '', until = 2027-01-31 }, { key = 'fk-unindexed', reason = '', until = 2027-01-31 }]\nstore = 'lokal'";
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = 'postgres://localhost/app'\n[stores.local]\npath = 'store'\n")
        .job("quarterly", &format!("database = 'app'\n[audit]\n{mistakes}\n"));
    scenario.run(&["check"]).exited(78).says(&[
        "unknown value `urgent`",
        "`keep = 0`",
        "there is no check `no-primry-key`",
        "did you mean `no-primary-key`?",
        "this waiver can match no finding",
        "did you mean `local`?",
        "quarterly.toml",
    ]);
    let scenario = scenario
        .job("quarterly", "database = 'app'\n[audit]\nwaive = [{ key = 'fk-unindexed:x', reason = '', until = '2027-01-31' }]\n");
    scenario.run(&["check"]).exited(78).says(&["expected a date without quotation marks"]);
    let scenario = scenario.job(
        "quarterly",
        "database = 'app'\n[audit]\nwaive = [{ key = 'fk-unindexed:x', reason = '', until = 2027-01-31T10:00:00Z }]\n",
    );
    scenario.run(&["check"]).exited(78).says(&["`until` is not a date", "until = 2027-01-31"]);
}

#[test]
fn without_a_store_the_ledger_remembers_what_was_found() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TWO_DEFECTS);
    let scenario =
        Scenario::with_database(server, &database).ledger().job("quarterly", "database = 'app'\n[audit]\nfail_on = 'never'\n");
    assert_eq!(facts(&scenario)["previous_audit"], Value::Null);
    server.sql(&database, "DROP TABLE a; CREATE TABLE \"B\" (id int PRIMARY KEY)");
    let second = facts(&scenario);
    let counts = &second["counts"];
    assert_eq!((&counts["new"], &counts["resolved"], &counts["unchanged"]), (&1.into(), &1.into(), &1.into()), "{second:#}");
    assert!(second["previous_audit"].is_string());
}

const SCHEMA: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
CREATE TABLE kept (id int PRIMARY KEY, mood mood);
CREATE TABLE scripts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL, file_hash text DEFAULT 'none');
CREATE INDEX scripts_file_hash ON scripts (file_hash);
CREATE TABLE only_in_file (id serial PRIMARY KEY, script_id int REFERENCES scripts ON DELETE CASCADE);
CREATE INDEX ON only_in_file (script_id);
CREATE VIEW titles AS SELECT title FROM scripts;
";

#[test]
fn drift_is_found_in_both_directions_and_its_fixes_end_it() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            "CREATE TYPE mood AS ENUM ('sad', 'glad');
             CREATE TABLE kept (id int PRIMARY KEY, mood mood);
             CREATE TABLE scripts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, \"only in db\" int);
             CREATE TABLE only_in_db (id int PRIMARY KEY);
             CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i';",
        );
        let scenario = Scenario::with_database(server, &database)
            .job("quarterly", "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n");
        std::fs::write(scenario.path("schema.sql"), SCHEMA).unwrap();
        let look =
            || scenario.json(&["audit", "--database", "app", "--check", "schema-drift", "--fail-on", "never"])["audit"].clone();
        let now = look();
        let expected = [
            "schema-drift:column public.scripts.\"only in db\"",
            "schema-drift:column public.scripts.file_hash",
            "schema-drift:column public.scripts.title",
            "schema-drift:function public.twice(i integer)",
            "schema-drift:index public.scripts_file_hash",
            "schema-drift:table public.only_in_db",
            "schema-drift:table public.only_in_file",
            "schema-drift:type public.mood",
            "schema-drift:view public.titles",
        ];
        assert_eq!(keys(&now), BTreeSet::from(expected.map(str::to_owned)), "on {major}");
        let (mut schema, mut sql) = (SCHEMA.to_owned(), Vec::new());
        let findings = now["findings"].as_array().unwrap();
        // In the order in which they can be made.
        for kind in ["type", "column", "table", "index", "function", "view"] {
            for finding in
                findings.iter().filter(|finding| finding["key"].as_str().unwrap().starts_with(&format!("schema-drift:{kind} ")))
            {
                match (finding["fix"]["sql"].as_str(), finding["fix"]["file"].as_str()) {
                    (Some(text), None) => sql.push(text.to_owned()),
                    (None, Some(text)) => schema += &format!("{text}\n"),
                    _ => panic!("{finding:#}"),
                }
            }
        }
        server.sql(&database, &sql.join("\n"));
        std::fs::write(scenario.path("schema.sql"), &schema).unwrap();
        // Each side has added the other's column at its end.
        let left = look();
        assert_eq!(keys(&left), BTreeSet::from(["schema-drift:table public.scripts".to_owned()]), "on {major}:\n{schema}");
        let differs: Vec<&str> =
            left["findings"][0]["evidence"]["differs"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((differs, left["findings"][0]["level"].as_str()), (vec!["order of columns"], Some("low")), "{left:#}");
        scenario.run(&["run-job", "quarterly"]).succeeded();
    }
}

#[test]
fn a_schema_file_that_does_not_load_or_may_not_be_loaded_is_unknown() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("plain_{database}");
    server.sql(&database, &format!("CREATE ROLE {role} LOGIN"));
    let job = "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n";
    let scenario = Scenario::with_database(server, &database).job("quarterly", job);
    let look = |scenario: &Scenario| {
        scenario.json(&["audit", "--database", "app", "--check", "schema-drift"])["audit"]["checks"][0].clone()
    };
    assert!(look(&scenario)["reasons"][0].as_str().unwrap().contains("does not exist"));
    std::fs::write(scenario.path("schema.sql"), "CREATE TABLE t (id int);\nCREATE TABLE t (id int);\n").unwrap();
    let broken = look(&scenario);
    assert_eq!(broken["state"], "unknown");
    assert!(broken["reasons"][0].as_str().unwrap().contains("already exists"), "{broken}");
    let plain = Scenario::with_url(server, &server.url_as(&role, &database)).job("quarterly", job);
    std::fs::write(plain.path("schema.sql"), "").unwrap();
    let refused = look(&plain);
    assert_eq!(refused["state"], "unknown", "{refused}");
    plain.run(&["check", "--connect"]).exited(77).says(&[]);
}

#[test]
fn a_scratch_database_is_gone_after_a_stop_and_after_a_kill_with_the_next_run() {
    let server = server(18);
    let database = server.new_database();
    let scenario =
        Scenario::with_database(server, &database).job("quarterly", "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n");
    // Other tests make scratch databases, too: this one's sleeps.
    let loading = "SELECT datname FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname LIKE 'pgtend_audit%'";
    let is_there = |name: &str| server.sql("postgres", &format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"));
    for killed in [false, true] {
        std::fs::write(scenario.path("schema.sql"), "SELECT pg_sleep(120);").unwrap();
        let running = scenario.start(&["run-job", "quarterly"]);
        eventually("the file is being loaded", || !server.sql("postgres", loading).is_empty());
        let name = server.sql("postgres", loading);
        if killed {
            running.kill();
            assert_eq!(is_there(&name), "1");
            // psql outlives kill -9 until its sleep is over, and its session would keep the database.
            server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
            eventually("its psql is gone", || server.sql("postgres", loading).is_empty());
            std::fs::write(scenario.path("schema.sql"), "").unwrap();
            scenario.run(&["run-job", "quarterly"]).succeeded();
        } else {
            running.signal(rustix::process::Signal::TERM);
            running.wait().exited(143);
        }
        assert_eq!(is_there(&name), "0", "killed: {killed}");
    }
}

#[test]
fn an_audit_that_cannot_be_read_is_said_and_stops_no_other() {
    let server = server(18);
    let database = server.new_database();
    let scenario = scenario(server, &database, "");
    facts(&scenario);
    let json = scenario.files("store").into_iter().find(|file| file.ends_with(".json")).unwrap();
    std::fs::write(scenario.path(&format!("store/{json}")), "{").unwrap();
    let run = scenario.json(&["run-job", "quarterly"]);
    let warning = run["runs"][0]["report"]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("cannot be read") && warning.contains("is not an audit"), "{warning}");
    assert!(facts(&scenario)["previous_audit"].is_string(), "the next one has one again");
}

#[test]
fn a_backup_that_is_missing_or_too_old_is_found_and_the_proposed_command_ends_it() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = 'checksum'");
    let look = |scenario: &Scenario| {
        scenario.json(&["audit", "--database", "app", "--check", "no-verified-backup", "--fail-on", "never"])["audit"].clone()
    };
    let missing = look(&scenario);
    assert_eq!((missing["findings"][0]["level"].as_str(), state(&missing, "no-verified-backup")), (Some("high"), "findings"));
    let command = missing["findings"][0]["fix"]["command"].as_str().unwrap().to_owned();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    scenario.run(&words).succeeded();
    assert_eq!(state(&look(&scenario), "no-verified-backup"), "ok");
    let scenario = scenario.job("quarterly", "database = 'app'\n[audit]\nbackup_within = '1s'\n");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(look(&scenario)["findings"][0]["level"], "critical");
    let none = Scenario::with_database(server, &database);
    assert_eq!(state(&look(&none), "no-verified-backup"), "unknown", "others may make backups");
}

#[test]
fn the_status_page_shows_the_last_audit() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TWO_DEFECTS);
    let scenario = scenario(server, &database, "").ledger();
    scenario.run(&["run-job", "quarterly"]).succeeded();
    let serving = Serving::ready(&scenario, "");
    let page = serving.get("/").body;
    for text in ["Audits", "1 medium", "1 low", "public.a", ".html"] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let jobs = serving.json("/api/jobs");
    assert_eq!(jobs["jobs"][0]["audit"]["counts"]["medium"], 1, "{jobs:#}");
}

/// A session that lasts until it is killed.
fn session(server: &Server, database: &str, application: &str, sql: &str) -> Child {
    let mut psql = server.tool("psql", database);
    psql.env("PGAPPNAME", application).args(["-Xqc", sql]).stdout(Stdio::null()).stderr(Stdio::null());
    psql.spawn().unwrap()
}

fn end(server: &Server, mut sessions: Vec<Child>) {
    server.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'web%'");
    for session in &mut sessions {
        session.wait().unwrap();
    }
    eventually("they are gone", || {
        server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'web%'") == "0"
    });
}

/// What is of the server: found, and ended by its fix.
#[test]
fn defects_of_the_server_are_found_and_ended() {
    let mut server = Server::start(18);
    // The tests' servers have 200 connections; 180 of them are for superusers, which psql's are.
    server.sql("postgres", "ALTER SYSTEM SET superuser_reserved_connections = 180");
    server.crash();
    server.start_again();
    let database = server.new_database();
    let scenario = Scenario::with_database(&server, &database).job("quarterly", "database = 'app'\n[audit]\nidle_after = '1s'\n");
    let look =
        |check: &str| scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone();
    let fix = |audit: &Value| server.sql(&database, audit["findings"][0]["fix"]["sql"].as_str().unwrap());

    server.sql(&database, "SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'x'; SET password_encryption = 'scram-sha-256'; CREATE ROLE fresh LOGIN PASSWORD 'x'");
    let found = look("password-not-scram");
    assert_eq!(keys(&found), BTreeSet::from(["password-not-scram:old".to_owned()]));
    assert!(!found.to_string().contains("md5e"), "no hash is in a report");
    assert!(found["findings"][0]["fix"]["decide"].as_str().unwrap().contains("\\password old"), "{found:#}");
    server.sql(&database, "ALTER ROLE old PASSWORD NULL");
    assert_eq!(state(&look("password-not-scram"), "password-not-scram"), "ok");

    server.sql(&database, "SELECT pg_create_physical_replication_slot('forgotten', true)");
    assert_eq!(state(&look("slot-holds-wal"), "slot-holds-wal"), "ok", "it holds nothing yet");
    for _ in 0..18 {
        server.sql(&database, "SELECT pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()");
    }
    let found = look("slot-holds-wal");
    assert_eq!(keys(&found), BTreeSet::from(["slot-holds-wal:forgotten".to_owned()]));
    // A slot is somebody's replica, where queries may use what is not used here.
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY, a int); CREATE INDEX t_a ON t (a); INSERT INTO t SELECT i, i FROM generate_series(1, 2000) i; ANALYZE t");
    let unused = look("unused-index");
    assert!(unused["checks"][0]["reasons"][0].as_str().unwrap().contains("replicas"), "{unused:#}");
    let drop = "SELECT pg_catalog.pg_drop_replication_slot('forgotten')";
    assert!(found["findings"][0]["fix"]["decide"].as_str().unwrap().contains(drop), "{found:#}");
    server.sql(&database, drop);
    assert_eq!(state(&look("slot-holds-wal"), "slot-holds-wal"), "ok");

    server.sql(&database, "CREATE ROLE boss SUPERUSER LOGIN");
    let web = session(&server, &database, "web", "SET ROLE boss; SELECT pg_sleep(120)");
    eventually("it works", || server.sleeps(&database));
    let found = look("superuser-application");
    assert_eq!(found["findings"][0]["object"], "role postgres", "{found:#}");
    fix(&found);
    assert_eq!(server.sql(&database, &format!("SELECT has_table_privilege('{database}_app', 't', 'INSERT')")), "t");
    end(&server, vec![web]);
    assert_eq!(state(&look("superuser-application"), "superuser-application"), "ok");

    let crowd: Vec<Child> = (0..16).map(|_| session(&server, &database, "web pool", "SELECT pg_sleep(120)")).collect();
    eventually("they are there", || {
        server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'web pool'") == "16"
    });
    let found = look("connection-saturation");
    assert_eq!(keys(&found), BTreeSet::from(["connection-saturation:max_connections".to_owned()]));
    end(&server, crowd);
    assert_eq!(state(&look("connection-saturation"), "connection-saturation"), "ok");
    assert!(found["findings"][0]["fix"]["decide"].as_str().unwrap().contains("max_connections"), "{found:#}");

    server.sql(&database, "CREATE ROLE pooled LOGIN");
    let idle: Vec<Child> = (0..10)
        .map(|_| {
            let mut psql = server.tool("psql", &database);
            psql.env("PGAPPNAME", "web idle").env("PGUSER", "pooled").args(["-Xq"]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut psql = psql.spawn().unwrap();
            use std::io::Write as _;
            psql.stdin.as_mut().unwrap().write_all(b"SELECT 1;\n").unwrap();
            psql
        })
        .collect();
    eventually("they idle", || state(&look("pool-sizes"), "pool-sizes") == "findings");
    let found = look("pool-sizes");
    assert_eq!(keys(&found), BTreeSet::from(["pool-sizes:pooled web idle".to_owned()]));
    fix(&found);
    assert_eq!(state(&look("pool-sizes"), "pool-sizes"), "ok");
    for mut psql in idle {
        psql.kill().unwrap();
        psql.wait().unwrap();
    }
}

#[test]
fn old_transactions_that_hold_up_freezing_are_found_and_vacuum_ends_it() {
    let mut server = Server::start(18);
    server.sql("postgres", "ALTER SYSTEM SET autovacuum_freeze_max_age = 100000");
    server.crash();
    server.start_again();
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY)");
    let holder = session(&server, &database, "web", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT pg_sleep(300)");
    eventually("it holds a snapshot", || server.sleeps(&database));
    server.sql(
        &database,
        "DO $$ BEGIN FOR i IN 1..170 LOOP FOR j IN 1..1000 LOOP BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; COMMIT; END LOOP; END $$",
    );
    let scenario = Scenario::with_database(&server, &database);
    let look = || scenario.json(&["audit", "--database", "app", "--check", "wraparound", "--fail-on", "never"])["audit"].clone();
    let found = look();
    assert_eq!(keys(&found), BTreeSet::from(["wraparound:transaction".to_owned()]), "{found:#}");
    end(&server, vec![holder]);
    server.sql(&database, found["findings"][0]["fix"]["sql"].as_str().unwrap());
    assert_eq!(state(&look(), "wraparound"), "ok");
}

#[test]
fn frequent_statements_suggest_a_partial_index_and_are_compared_with_the_last_audit() {
    let mut server = Server::start(15);
    server.sql("postgres", "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    let database = server.new_database();
    server.sql(&database, "CREATE EXTENSION pg_stat_statements");
    let scenario = scenario(&server, &database, "fail_on = 'never'");
    let unloaded = audit(&scenario);
    assert_eq!((state(&unloaded, "top-queries"), state(&unloaded, "partial-index-candidate")), ("unknown", "unknown"));
    server.crash();
    server.start_again();
    server.sql(&database, "CREATE TABLE queue (id int PRIMARY KEY, done_at timestamptz); INSERT INTO queue SELECT i, CASE WHEN i % 50 > 0 THEN now() END FROM generate_series(1, 3000) i; ANALYZE queue");
    server.sql(&database, &"SELECT id FROM queue WHERE done_at IS NULL ORDER BY id LIMIT 1;\n".repeat(120));
    server.sql(&database, &"SELECT pg_sleep(0.001);\n".repeat(30));
    server.sql(&database, "CREATE ROLE secret LOGIN PASSWORD 'hunter2-in-a-statement'");
    let first = facts(&scenario);
    let keys_of = |facts: &Value| -> Vec<String> {
        facts["findings"].as_array().unwrap().iter().map(|finding| finding["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys_of(&first), ["partial-index-candidate:public.queue(done_at) IS NULL"], "{first:#}");
    let json = scenario.files("store").into_iter().find(|file| file.ends_with(".json")).unwrap();
    let stored = std::fs::read_to_string(scenario.path(&format!("store/{json}"))).unwrap();
    assert!(stored.contains("pg_sleep($1)") && !stored.contains("hunter2"), "{stored}");

    let document: Value = serde_json::from_str(&stored).unwrap();
    server.sql(&database, document["findings"][0]["fix"]["sql"].as_str().unwrap());
    server.sql(&database, &"SELECT pg_sleep(0.03);\n".repeat(30));
    let second = facts(&scenario);
    let keys = keys_of(&second);
    assert_eq!(keys.len(), 1, "{second:#}");
    assert!(keys[0].starts_with("top-queries:"), "{keys:?}");
    assert_eq!(second["counts"]["resolved"], 1);
}

#[test]
fn an_old_prepared_transaction_is_found_with_what_it_holds_and_ended_by_its_fix() {
    for major in [14, 18] {
        let server = Server::start_with(major, &["max_prepared_transactions=5"]);
        let database = server.new_database();
        let (soon, later) = ("1s", "1h");
        let job = |after: &str| format!("database = 'app'\n[audit]\nidle_after = '{after}'\n");
        let look = |after: &str| {
            let scenario = Scenario::with_database(&server, &database).job("quarterly", &job(after));
            let check = ["audit", "--database", "app", "--check", "prepared-transaction-old", "--fail-on", "never"];
            scenario.json(&check)["audit"].clone()
        };
        assert_eq!(state(&look(soon), "prepared-transaction-old"), "ok");
        server.sql(
            &database,
            "CREATE TABLE paid (id int); CREATE TABLE \"Or'der\" (id int); BEGIN; INSERT INTO paid VALUES (1); INSERT INTO \"Or'der\" VALUES (1); PREPARE TRANSACTION 'xa''1'",
        );
        assert_eq!(state(&look(later), "prepared-transaction-old"), "ok", "it is new");
        // Somebody else's, in another database, is not this one's.
        server.sql("postgres", "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'elsewhere'");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let found = look(soon);
        assert_eq!(keys(&found), BTreeSet::from(["prepared-transaction-old:xa'1".to_owned()]), "{found:#}");
        let finding = &found["findings"][0];
        let issue = finding["issue"].as_str().unwrap();
        assert!(issue.contains("'xa''1'") && issue.contains("public.paid") && issue.contains("postgres"), "{issue}");
        assert_eq!(finding["fix"]["draft"], "<COMMIT OR ROLLBACK> PREPARED 'xa''1';");
        server.sql(&database, &decided(finding).unwrap());
        assert_eq!(state(&look(soon), "prepared-transaction-old"), "ok", "on {major}");
        // Whoever may log in chooses the name.
        server.sql(
            &database,
            "CREATE ROLE climber LOGIN; BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'x\nALTER ROLE climber SUPERUSER; --'",
        );
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let found = look(soon);
        server.sql(&database, &decided(&found["findings"][0]).unwrap());
        assert_eq!(server.sql(&database, "SELECT rolsuper FROM pg_roles WHERE rolname = 'climber'"), "f");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"), "0");
    }
}
