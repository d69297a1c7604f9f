//! What the checks find, what their fixes do, and what they do not fire on.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::support::postgres::{MAJORS, Server, WITH_PGVECTOR, server};
use crate::support::{Scenario, eventually};

pub const FIXTURE: &str = include_str!("fixtures/audit.sql");

/// A database with every defect that is of a database.
fn defects(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, FIXTURE);
    database
}

pub fn audit(scenario: &Scenario) -> Value {
    scenario.json(&["audit", "--database", "app", "--fail-on", "never"])["audit"].clone()
}

pub fn findings(audit: &Value) -> Vec<Value> {
    audit["findings"].as_array().unwrap().clone()
}

pub fn keys(audit: &Value) -> BTreeSet<String> {
    audit["findings"].as_array().unwrap().iter().map(|finding| finding["key"].as_str().unwrap().to_owned()).collect()
}

fn checks_of(audit: &Value) -> Vec<String> {
    let mut checks: Vec<String> = findings(audit).iter().map(|finding| finding["check"].as_str().unwrap().to_owned()).collect();
    checks.sort();
    checks
}

pub fn state<'a>(audit: &'a Value, check: &str) -> &'a str {
    let outcomes = audit["checks"].as_array().unwrap();
    outcomes.iter().find(|outcome| outcome["check"] == check).unwrap()["state"].as_str().unwrap()
}

pub fn in_state(audit: &Value, state: &str) -> Vec<String> {
    let outcomes = audit["checks"].as_array().unwrap().iter().filter(|outcome| outcome["state"] == state);
    outcomes.map(|outcome| outcome["check"].as_str().unwrap().to_owned()).collect()
}

/// SQL as a person would write it who has decided what the finding asks.
pub fn decided(finding: &Value) -> Option<String> {
    let (object, decide) = (finding["object"].as_str().unwrap(), finding["fix"]["decide"].as_str()?);
    if let Some(draft) = finding["fix"]["draft"].as_str() {
        let holes = [
            ("<ACTION>", "RESTRICT"),
            ("<ZONE>", "'UTC'"),
            ("<WHAT A ROW OF IT IS>", "'a thing'"),
            ("<WHAT IT MEANS>", "'a part'"),
            ("<COMMIT OR ROLLBACK>", "ROLLBACK"),
            ("<VALUE>", "true"),
        ];
        return Some(holes.iter().fold(draft.to_owned(), |sql, (hole, text)| sql.replace(hole, text)));
    }
    Some(match finding["check"].as_str().unwrap() {
        "no-primary-key" if decide.contains("at of the partition key") => {
            format!("ALTER TABLE {object} ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(), ADD PRIMARY KEY (id, at)")
        }
        "no-primary-key" => format!("ALTER TABLE {object} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
        "soft-delete-half-applied" => {
            format!("ALTER TABLE {object} ADD COLUMN deleted_at timestamptz; COMMENT ON COLUMN {object}.deleted_at IS 'when'")
        }
        other => panic!("what is to be decided of {other}? {decide}"),
    })
}

/// What a person would do: run its SQL, add its job, or decide. A draft does not run as it stands.
fn apply(server: &Server, database: &str, scenario: Scenario, finding: &Value, number: usize) -> Scenario {
    if let Some(draft) = finding["fix"]["draft"].as_str() {
        assert!(server.psql(database, draft).is_err(), "{draft}");
    }
    let sql = finding["fix"]["sql"].as_str().map(str::to_owned);
    if let Some(sql) = sql.or_else(|| decided(finding)) {
        server.psql(database, &sql).unwrap_or_else(|error| panic!("{}: {error}\n{sql}", finding["key"]));
        return scenario;
    }
    let job = finding["fix"]["job"].as_str().unwrap_or_else(|| panic!("nothing to apply: {finding:#}"));
    let name = format!("fix-{number}");
    let scenario = scenario.job(&name, &format!("database = \"app\"\n{job}"));
    scenario.run(&["run-job", &name]).succeeded();
    scenario
}

/// Each check that fires on the fixture.
const FOUND: [&str; 24] = [
    "append-only-unbounded",
    "autovacuum-behind",
    "comments-missing",
    "constraint-not-validated",
    "default-partition-rows",
    "duplicate-index",
    "fk-no-on-delete",
    "fk-unindexed",
    "identifier-needs-quoting",
    "invalid-index",
    "large-text-uncompressed",
    "lookup-unindexed",
    "no-primary-key",
    "one-to-one-not-unique",
    "overlapping-index",
    "partition-runway",
    "public-can-write",
    "security-definer-search-path",
    "sequence-near-end",
    "soft-delete-half-applied",
    "timestamp-names-mixed",
    "timestamp-without-zone",
    "updated-at-no-trigger",
    "varchar-near-limit",
];
const FOUND_WITH_PGVECTOR: [&str; 3] = ["extension-cve", "ivfflat-lists", "vector-unindexed"];

/// How many fixes are applied between two audits.
#[derive(Clone, Copy, PartialEq)]
pub enum AtOnce {
    /// One, so that it is known which fix began a finding.
    One,
    /// One of each check; a fix that renames something by itself.
    OneOfEachCheck,
}

/// The findings whose fixes are applied before the next audit.
fn fixed_together(audit: &Value, at_once: AtOnce) -> Vec<Value> {
    let (renamed, others): (Vec<Value>, Vec<Value>) = findings(audit).into_iter().partition(is_renamed);
    let mut fixed: Vec<Value> = match at_once {
        AtOnce::One => return findings(audit).into_iter().take(1).collect(),
        AtOnce::OneOfEachCheck if others.is_empty() => return renamed.into_iter().take(1).collect(),
        AtOnce::OneOfEachCheck => others,
    };
    // Of two equal indexes that overlap a third one, either may go.
    let has_duplicates = fixed.iter().any(|finding| finding["check"] == "duplicate-index");
    fixed.retain(|finding| finding["check"] != "overlapping-index" || !has_duplicates);
    let mut checks = BTreeSet::new();
    fixed.retain(|finding| checks.insert(finding["check"].to_string()));
    fixed
}

fn is_renamed(finding: &Value) -> bool {
    matches!(finding["check"].as_str().unwrap(), "identifier-needs-quoting" | "timestamp-names-mixed")
}

/// What is wrong with every new database of that version.
pub fn by_default(major: u32) -> BTreeSet<String> {
    if major < 15 { BTreeSet::from(["public-can-create:public".to_owned()]) } else { BTreeSet::new() }
}

fn key(finding: &Value) -> &str {
    finding["key"].as_str().unwrap()
}

pub fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(major: u32, at_once: AtOnce) {
    let server = server(major);
    let database = defects(server);
    let mut scenario = Scenario::with_database(server, &database);
    let mut now = audit(&scenario);
    assert_eq!(in_state(&now, "failed"), [""; 0], "{now:#}");
    let found: BTreeSet<String> = checks_of(&now).into_iter().collect();
    let mut expected: BTreeSet<String> = FOUND.map(str::to_owned).into();
    if WITH_PGVECTOR.contains(&major) {
        expected.extend(FOUND_WITH_PGVECTOR.map(str::to_owned));
    }
    expected.extend(by_default(major).iter().map(|key| key.split(':').next().unwrap().to_owned()));
    assert_eq!(found, expected, "on {major}");

    // The partial index covers neither the key nor the lookup, and the partitioned table stands for its partitions.
    let keys_now = keys(&now);
    for key in [
        "fk-unindexed:public.comments(user_id)",
        "lookup-unindexed:public.scripts(file_hash)",
        "fk-unindexed:public.audit_events(user_id)",
    ] {
        assert!(keys_now.contains(key), "{key} is not in {keys_now:#?}");
    }
    assert!(!keys_now.iter().any(|key| key.contains("audit_events_20")), "{keys_now:#?}");

    for round in 0..100 {
        let fixed = fixed_together(&now, at_once);
        if fixed.is_empty() {
            break;
        }
        for (number, finding) in fixed.iter().enumerate() {
            scenario = apply(server, &database, scenario, finding, 100 * round + number);
        }
        let after = audit(&scenario);
        let keys_after = keys(&after);
        for finding in &fixed {
            assert!(!keys_after.contains(key(finding)), "{} is still there after {:#}", key(finding), finding["fix"]);
        }
        if fixed.iter().any(is_renamed) {
            // A new name is a new key for what else is wrong with the object.
            assert!(checks_of(&after).len() < checks_of(&now).len(), "{fixed:#?}: {:#?} became {keys_after:#?}", keys(&now));
        } else {
            let new: Vec<String> = keys_after.difference(&keys(&now)).cloned().collect();
            assert_eq!(new, [""; 0], "{:?} began them", fixed.iter().map(key).collect::<Vec<_>>());
        }
        now = after;
    }
    assert_eq!(keys(&now), BTreeSet::new(), "the fixed database is clean");
    assert_eq!(in_state(&now, "failed"), [""; 0]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts"), "2000", "no fix lost a row");
}

#[test]
fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other_on_14() {
    every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(14, AtOnce::OneOfEachCheck);
}

#[test]
fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other_on_16() {
    every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(16, AtOnce::OneOfEachCheck);
}

#[test]
fn every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other_on_18() {
    every_defect_is_found_and_every_fix_ends_its_finding_and_begins_no_other(18, AtOnce::One);
}

#[test]
fn nothing_fires_on_an_empty_database_on_pgbench_and_on_its_own_ledger() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        let scenario = Scenario::with_database(server, &database).ledger().sql_job("once", "", &["SELECT 1"]);
        let empty = audit(&scenario);
        assert_eq!(keys(&empty), by_default(major), "empty, on {major}");
        assert_eq!(in_state(&empty, "failed"), [""; 0]);
        for _ in 0..3 {
            scenario.run(&["run-job", "once"]).succeeded();
        }
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pgtend.runs"), "3");
        assert_eq!(keys(&audit(&scenario)), by_default(major), "with a ledger, on {major}");
        let pgbench = server.tool("pgbench", &database).args(["-i", "-q"]).output().unwrap();
        assert!(pgbench.status.success(), "{}", String::from_utf8_lossy(&pgbench.stderr));
        assert_eq!(keys(&audit(&scenario)), by_default(major), "pgbench -i, on {major}");
    }
}

#[test]
fn a_role_that_may_see_little_is_told_what_is_unknown_and_fails_at_nothing() {
    for major in MAJORS {
        let server = server(major);
        let database = defects(server);
        let (nobody, monitor) = (format!("none_{database}"), format!("monitor_{database}"));
        server.sql(&database, &format!("CREATE ROLE {nobody} LOGIN; CREATE ROLE {monitor} LOGIN; GRANT pg_monitor TO {monitor}"));
        let everything = audit(&Scenario::with_database(server, &database));
        for role in [&nobody, &monitor] {
            let seen = audit(&Scenario::with_url(server, &server.url_as(role, &database)));
            assert_eq!(in_state(&seen, "failed"), [""; 0], "{role} on {major}: {seen:#}");
            // Neither ok nor found, where a privilege is lacking.
            for check in [
                "password-not-scram",
                "default-partition-rows",
                "large-text-uncompressed",
                "one-to-one-not-unique",
                "varchar-near-limit",
            ] {
                assert_eq!(state(&seen, check), "unknown", "{check} as {role} on {major}");
            }
            // What it cannot see is never ok when there is something.
            let ok: BTreeSet<String> = in_state(&seen, "ok").into_iter().collect();
            for check in in_state(&everything, "findings") {
                assert!(!ok.contains(&check), "{check} is called ok for {role} on {major}");
            }
            let hidden: Vec<String> = keys(&everything).difference(&keys(&seen)).cloned().collect();
            for key in hidden {
                assert_eq!(state(&seen, key.split(':').next().unwrap()), "unknown", "{key} is hidden from {role} on {major}");
            }
        }
    }
}

#[test]
fn an_index_that_is_being_built_is_not_invalid_and_one_that_was_given_up_is() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT i, i FROM generate_series(1, 10) i",
        );
        let role = format!("builder_{database}");
        server.sql(&database, &format!("CREATE ROLE {role} LOGIN"));
        let scenario = Scenario::with_database(server, &database);
        let psql = |sql: &str| {
            server.tool("psql", &database).args(["-Xqc", sql]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut writer = psql("BEGIN; INSERT INTO t VALUES (11, 11); SELECT pg_sleep(120)");
        eventually("the writer sleeps", || server.sleeps(&database));
        let mut builder = psql("CREATE INDEX CONCURRENTLY t_a ON t (a)");
        eventually("the index is there", || server.sql(&database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == "1");
        assert_eq!(state(&audit(&scenario), "invalid-index"), "ok", "on {major}");
        let unprivileged = audit(&Scenario::with_url(server, &server.url_as(&role, &database)));
        assert_ne!(state(&unprivileged, "invalid-index"), "findings", "on {major}: {unprivileged:#}");

        server.sql(&database, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND datname = current_database()");
        builder.wait().unwrap();
        server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; INSERT%' AND datname = current_database()");
        writer.wait().unwrap();
        let now = audit(&scenario);
        assert_eq!(state(&now, "invalid-index"), "findings");
        let found = findings(&now).into_iter().find(|finding| finding["check"] == "invalid-index").unwrap();
        server.sql(&database, found["fix"]["sql"].as_str().unwrap());
        assert_eq!(state(&audit(&scenario), "invalid-index"), "ok");
    }
}

#[test]
fn an_index_is_unused_only_by_statistics_that_are_old_enough() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t SELECT i, i, i FROM generate_series(1, 2000) i; CREATE INDEX t_a ON t (a); CREATE INDEX t_b ON t (b); ANALYZE t",
    );
    server.sql(&database, "SET enable_seqscan = off; SELECT FROM t WHERE b = 7; SELECT pg_stat_force_next_flush()");
    let scenario = Scenario::with_database(server, &database);
    assert_eq!(state(&audit(&scenario), "unused-index"), "unknown");
    // With a job on the database, its keys hold by hand as well.
    let scenario = scenario.job("audit", "database = 'app'\n[audit]\nstatistics_age = '1ms'\n");
    let now = audit(&scenario);
    assert_eq!(keys(&now), BTreeSet::from(["unused-index:public.t_a".to_owned()]));
    server.sql(&database, findings(&now)[0]["fix"]["sql"].as_str().unwrap());
    assert_eq!(state(&audit(&scenario), "unused-index"), "ok");
}

#[test]
fn soft_deletion_that_most_entities_have_is_missed_in_the_others() {
    let server = server(18);
    let database = server.new_database();
    for (name, mark) in [("a", ", deleted_at timestamptz"), ("b", ", deleted_at timestamptz"), ("c", "")] {
        server.sql(&database, &format!("CREATE TABLE {name} (id int PRIMARY KEY{mark}, updated_at timestamptz); CREATE FUNCTION touch_{name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END'; CREATE TRIGGER touch BEFORE UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION touch_{name}()"));
    }
    let scenario = Scenario::with_database(server, &database);
    let now = audit(&scenario);
    assert_eq!(keys(&now), BTreeSet::from(["soft-delete-half-applied:public.c".to_owned()]));
    server.sql(&database, &decided(&findings(&now)[0]).unwrap());
    assert_eq!(checks_of(&audit(&scenario)).iter().filter(|check| *check == "soft-delete-half-applied").count(), 0);
}

#[test]
fn a_pending_detach_and_a_bloated_table_are_found_and_ended() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE events (id bigint, day date, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
         CREATE TABLE events_1 PARTITION OF events FOR VALUES IN ('2026-01-01');
         UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'events_1'::regclass;
         CREATE TABLE wide (id int PRIMARY KEY, filler text);
         INSERT INTO wide SELECT i, repeat('x', 400) FROM generate_series(1, 120000) i;
         DELETE FROM wide WHERE id % 10 <> 0 AND id < 119990;",
    );
    server.sql(&database, "VACUUM ANALYZE wide");
    let scenario = Scenario::with_database(server, &database);
    for expected in ["detach-pending:public.events_1", "table-bloat:public.wide"] {
        let now = audit(&scenario);
        let finding = findings(&now).into_iter().next().unwrap();
        assert_eq!(finding["key"], expected, "{now:#}");
        server.sql(&database, finding["fix"]["sql"].as_str().unwrap());
    }
    assert_eq!(keys(&audit(&scenario)), BTreeSet::new());
    assert_eq!(server.sql(&database, "SELECT count(*) FROM wide"), "12009");
}

#[test]
fn a_lock_or_a_slow_check_makes_that_check_unknown_and_stops_no_other() {
    let server = server(18);
    let database = defects(server);
    let scenario = Scenario::with_database(server, &database);
    let everything = keys(&audit(&scenario));
    let mut locker = server
        .tool("psql", &database)
        .args(["-Xqc", "BEGIN; LOCK TABLE measurements_default IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(120)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the table is locked", || server.sleeps(&database));
    let locked = audit(&scenario);
    server.sql(
        &database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND datname = current_database()",
    );
    locker.wait().unwrap();
    assert_eq!(state(&locked, "default-partition-rows"), "unknown");
    let missing: Vec<String> = everything.difference(&keys(&locked)).cloned().collect();
    assert_eq!(missing, ["default-partition-rows:public.measurements_default"]);

    let hurried = scenario.job("audit", "database = 'app'\n[audit]\ncheck_timeout = '1ms'\n");
    let hurried = audit(&hurried);
    assert_eq!(in_state(&hurried, "failed"), [""; 0]);
    assert!(in_state(&hurried, "unknown").len() > 10, "{hurried:#}");
}

#[test]
fn an_audit_writes_nothing_to_the_server() {
    let server = Server::start_with(18, &["autovacuum=off"]);
    let database = defects(&server);
    let scenario = Scenario::with_database(&server, &database);
    let next = || server.sql("postgres", "SELECT pg_snapshot_xmax(pg_current_snapshot())");
    let before = next();
    scenario.run(&["audit", "--database", "app", "--fail-on", "never"]).succeeded();
    assert_eq!(next(), before, "a write would have taken a transaction number");
}

#[test]
fn hostile_names_are_text_in_every_form_of_the_report() {
    let server = server(18);
    let database = defects(server);
    let scenario = Scenario::with_database(server, &database);
    let report =
        |format: &str| scenario.run(&["audit", "--database", "app", "--fail-on", "never", "--format", format]).succeeded().stdout;
    let html = report("html");
    assert!(html.contains("&lt;script&gt;alert"), "{html}");
    assert!(!html.contains("<script"), "{html}");
    for text in
        ["Summary", "Priority", "Issue", "Impact", "Fix", "Lock", "CREATE INDEX CONCURRENTLY ON public.comments (user_id);"]
    {
        assert!(html.contains(text), "`{text}` is not in {html}");
    }
    let markdown = report("markdown");
    // Outside of code, which shows it as it is.
    let mut in_code = false;
    let mut columns = 0;
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        let text: String = line.split('`').step_by(2).collect();
        assert!(line.contains("**Key**") || !text.contains("<script"), "{line}");
        if line.starts_with('|') {
            let bars = line.replace("\\|", "").matches('|').count();
            assert!(columns == 0 || bars == columns, "{line}");
            columns = bars;
        } else {
            columns = 0;
        }
    }
    assert!(!in_code, "a fence is open");
    let table = report("table");
    assert!(table.contains("fk-unindexed") && !table.contains('\u{1b}'), "{table}");
}

#[test]
fn explain_says_what_a_check_is_about_and_a_wrong_name_gets_a_hint() {
    let scenario = Scenario::empty();
    scenario.run(&["audit", "explain", "fk-unindexed"]).succeeded().prints(&[
        "impact",
        "lock",
        "unseen",
        "WHERE column IS NOT NULL",
    ]);
    scenario.run(&["audit", "explain"]).succeeded().prints(&["vector-unindexed", "password-not-scram"]);
    scenario.run(&["audit", "explain", "fk-unindxed"]).exited(78).says(&["did you mean `fk-unindexed`?"]);
    let server = server(18);
    let database = defects(server);
    let scenario = Scenario::with_database(server, &database);
    let one = scenario.json(&["audit", "--database", "app", "--check", "no-primary-key"]);
    assert_eq!(one["audit"]["checks"].as_array().unwrap().len(), 1);
    assert_eq!(
        keys(&one["audit"]),
        BTreeSet::from(["no-primary-key:public.legacy_events", "no-primary-key:public.readings"].map(str::to_owned))
    );
    scenario.run(&["audit", "--database", "ap"]).exited(78).says(&["did you mean `app`?"]);
    scenario
        .run(&["audit", "--database", "app", "--fail-on", "low", "--check", "no-primary-key"])
        .exited(1)
        .says(&["no-primary-key:public.legacy_events"]);
}
