//! What a refresh refuses or fails at, and that the database is then as it was.

use crate::refresh::{Stage, held_by, hold, job, release, stage};
use crate::restore_database::{databases, digest};
use crate::support::postgres::server;
use crate::support::{Scenario, eventually, quoted};

#[test]
fn a_database_that_is_backed_up_is_never_replaced_whatever_leads_to_it() {
    let server = server(18);
    let Stage { scenario, source, staging } = stage(server, server, "");
    // Another URL, and a configuration that knows no job of it.
    let alias = format!("postgres://postgres@/{source}?host={}", server.socket().display());
    let scenario = scenario.config(&format!("[databases.alias]\nurl = {}\n", quoted(&alias)));
    let of = |database: &str| {
        format!("database = \"{database}\"\n[refresh]\nfrom = \"nightly\"\nfrom_database = \"app\"\nstore = \"local\"\n")
    };
    let scenario = scenario.job("itself", &of("app")).job("alias", &of("alias"));
    for arguments in [&["run-job"][..], &["run-job", "--dry-run"]] {
        for name in ["itself", "alias"] {
            scenario.run(&[arguments, &[name]].concat()).exited(78).says(&["is not replaced: job `nightly` backs it up"]);
        }
    }
    std::fs::remove_file(scenario.path("jobs/nightly.toml")).unwrap();
    for name in ["itself", "alias"] {
        scenario.run(&["run-job", name]).exited(78).says(&["was taken from it"]);
    }
    // Another name does not help.
    server.sql("postgres", &format!("ALTER DATABASE {source} RENAME TO {source}_renamed"));
    server.drop_with_test(&format!("{source}_renamed"));
    let renamed = Scenario::empty()
        .config(&format!("[databases.alias]\nurl = {}\n", quoted(&server.url(&format!("{source}_renamed")))))
        .config(&format!("[stores.local]\npath = {}\n", quoted(&scenario.path("store").display().to_string())))
        .job("alias", &of("alias"));
    renamed.run(&["run-job", "alias"]).exited(78).says(&["was taken from it"]);
    assert_eq!(server.sql(&format!("{source}_renamed"), "SELECT count(*) FROM users"), "3");
    assert_eq!(databases(server, &format!("{source}_before")), Vec::<String>::new());
    assert_eq!(server.sql(&staging, "SELECT x FROM of_staging"), "1");
}

#[test]
fn a_database_that_a_job_with_patterns_backs_up_is_never_replaced() {
    let server = server(18);
    let Stage { scenario, staging, .. } = stage(server, server, "");
    // The server has another address here than in the entry: names do not show that it is the same database.
    let socket = format!("postgres://postgres@/postgres?host={}", server.socket().display());
    let scenario = scenario
        .config(&format!("[servers.main]\nurl = {}\ndatabases = [{}]\n", quoted(&socket), quoted(&staging)))
        .job("fleet", "databases = \"main.*\"\n[backup]\nstore = \"local\"\nkeep = { last = 1 }\n");
    scenario.run(&["run-job", "refresh"]).exited(78).says(&["is not replaced: job `fleet` backs it up"]);
    assert_eq!(server.sql(&staging, "SELECT x FROM of_staging"), "1");
}

#[test]
fn a_database_whose_schemas_are_backed_up_is_not_replaced_and_keeps_no_other_from_it() {
    let server = server(18);
    let Stage { scenario, staging, .. } = stage(server, server, "");
    let tenants = server.empty_database();
    server.sql(&tenants, "CREATE SCHEMA tenant_1; CREATE TABLE tenant_1.t AS SELECT 1 AS x");
    let of_schemas = |database: &str| {
        format!(
            "database = \"{database}\"\nschemas = [\"*\", \"tenant_1\"]\n[backup]\nstore = \"local\"\nkeep = {{ last = 1 }}\n"
        )
    };
    let scenario = scenario
        .config(&format!("[databases.multi]\nurl = {}\n", quoted(&server.url(&tenants))))
        .job("tenants", &of_schemas("multi"));
    scenario.run(&["run-job", "refresh"]).succeeded();
    server.sql(&staging, "CREATE TABLE of_staging AS SELECT 1 AS x");
    let scenario = scenario.job("tenants", &of_schemas("staging"));
    scenario.run(&["run-job", "refresh"]).exited(78).says(&["is not replaced: job `tenants` backs it up"]);
    assert_eq!(server.sql(&staging, "SELECT x FROM of_staging"), "1");
}

#[test]
fn the_databases_of_the_ledger_and_of_the_server_are_not_replaced_either() {
    let server = server(18);
    let stage = stage(server, server, "");
    let scenario = stage
        .scenario
        .config("[ledger]\ndatabase = \"staging\"\n")
        .config(&format!("[databases.everyones]\nurl = {}\n", quoted(&server.url("postgres"))));
    scenario.run(&["run-job", "refresh"]).exited(78).says(&["the ledger is in it"]);
    let scenario = scenario.job("everyones", "database = \"everyones\"\n[refresh]\nfrom = \"nightly\"\n");
    scenario.run(&["run-job", "everyones"]).exited(78).says(&["it is a database of the server itself"]);
    assert_eq!(server.sql(&stage.staging, "SELECT x FROM of_staging"), "1");
}

#[test]
fn what_fails_leaves_the_database_as_it_was_and_no_copy() {
    let server = server(18);
    for (keys, code, said) in [
        (
            "after = [\"UPDATE users SET email = 'hunter2'\", \"UPDATE users SET email = 'hunter2' WHERE nosuch\"]",
            1,
            "statement 2 of 2 of `after` failed: UPDATE users SET email = '…' WHERE nosuch",
        ),
        (
            "after = [\"BEGIN\", \"UPDATE users SET email = 'hunter2'\"]",
            1,
            "a transaction is still open after the last statement",
        ),
        (
            "expect = [\"SELECT count(*) = 4 FROM users\"]",
            1,
            "these queries of `expect` are not true: SELECT count(*) = 4 FROM users: returned false",
        ),
        ("expect = [\"DELETE FROM users RETURNING true\"]", 1, "not true"),
        (
            "after = [\"ALTER TABLE users ADD domain text; UPDATE users SET domain = split_part(email, '@', 2); CREATE UNIQUE INDEX ON users (domain)\"]",
            1,
            "could not create unique index",
        ),
        ("expect = [\"SELECT max(email)::int > 0 FROM users\"]", 1, "invalid input syntax for type …: \"…\" (SQLSTATE 22P02)"),
        ("max_age = \"1ms\"", 1, "and max_age is 1ms"),
        ("from_database = \"nosuch\"", 1, "no set of `nightly` can be restored: there is none"),
        ("after_file = \"nosuch.sql\"", 78, "after_file"),
    ] {
        let stage = stage(server, server, keys);
        let output = stage.scenario.run(&["run-job", "refresh"]).exited(code).says(&[said]);
        for value in ["hunter2", "company.com", "person1"] {
            assert!(!output.stdout.contains(value) && !output.stderr.contains(value), "{}", output.stderr);
        }
        stage.is_as_it_was(server);
    }
}

#[test]
fn sessions_in_the_database_put_the_run_off_unless_they_may_be_terminated() {
    let server = server(18);
    let stage = stage(server, server, "");
    let session = server.session(&stage.staging, "SET application_name = 'the app'");
    for arguments in [&["run-job", "refresh"][..], &["run-job", "refresh", "--dry-run"]] {
        stage.scenario.run(arguments).exited(75).says(&["is in use and is not replaced: 1 session in it", "(postgres, the app)"]);
    }
    stage.is_as_it_was(server);
    let Stage { scenario, staging, .. } = stage;
    let scenario = scenario.job("refresh", &job("terminate = true\nwait = \"1s\""));
    scenario.run(&["run-job", "refresh"]).succeeded();
    assert_eq!(server.sql(&staging, "SELECT count(*) FROM users"), "3");
    drop(session);
    databases(server, &format!("{staging}_before_")).iter().for_each(|name| server.drop_with_test(name));
}

#[test]
fn sessions_of_pgtend_itself_are_not_terminated() {
    let server = server(18);
    let stage = stage(server, server, "terminate = true\nwait = \"1s\"");
    let session = server.session(&stage.staging, "SET application_name = 'pgtend'");
    stage.scenario.run(&["run-job", "refresh"]).exited(75).says(&["pgtend itself is at work in it"]);
    drop(session);
    stage.is_as_it_was(server);
}

#[test]
fn a_copy_that_failed_is_kept_for_a_look_where_that_is_asked_for() {
    let server = server(18);
    let stage = stage(server, server, "expect = [\"SELECT false\"]\nkeep_failed = true\nkeep_old = \"3s\"");
    let copy = {
        let output = stage.scenario.run(&["run-job", "refresh"]).exited(1).says(&["the copy stays as", "closed to all"]);
        let copies = stage.copies(server);
        assert!(copies.len() == 1 && output.stderr.contains(&copies[0]), "{copies:?}");
        copies[0].clone()
    };
    assert_eq!(server.sql("postgres", &format!("SELECT datallowconn FROM pg_database WHERE datname = '{copy}'")), "f");
    // Its time is not over.
    let Stage { scenario, staging, .. } = stage;
    let stage = Stage { scenario: scenario.job("refresh", &job("keep_old = \"3s\"")), staging, source: String::new() };
    stage.facts("refresh");
    std::thread::sleep(std::time::Duration::from_millis(3200));
    stage.facts("refresh");
    assert_eq!(stage.copies(server), Vec::<String>::new());
    stage.old(server);
}

#[test]
fn owners_who_are_not_trusted_get_no_code_of_theirs_run() {
    let server = server(18);
    let stage = stage(server, server, "[limits]\ntrust_owners = false");
    let owner = format!("owner_{}", stage.source);
    server.sql(&stage.source, &format!("CREATE ROLE {owner}; ALTER TABLE users OWNER TO {owner}"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    stage.scenario.run(&["run-job", "nightly"]).succeeded();
    for arguments in [&["run-job", "refresh"][..], &["run-job", "refresh", "--dry-run"]] {
        stage.scenario.run(arguments).exited(77).says(&[&owner, "trust_owners = false refuses that"]);
    }
    stage.is_as_it_was(server);
    let Stage { scenario, .. } = stage;
    scenario.job("refresh", &job("")).run(&["run-job", "refresh", "--dry-run"]).succeeded().prints(&["WARNING", &owner]);
    server.sql(&stage.source, &format!("ALTER TABLE users OWNER TO postgres; DROP ROLE {owner}"));
}

#[test]
fn who_comes_while_the_set_is_restored_puts_the_run_off_as_well() {
    let server = server(18);
    let mut stage = stage(server, server, "");
    let held = held_by(&hold(server, &stage.staging));
    stage.scenario = stage.scenario.job("refresh", &job(&format!("{held}\nwait = \"1ms\"")));
    let running = stage.scenario.start(&["run-job", "refresh"]);
    eventually("it is in the user's SQL", || stage.copies(server).iter().any(|copy| server.sleeps(copy)));
    let session = server.session(&stage.staging, "SELECT 1");
    release(server, &stage.staging);
    running.wait().exited(75).says(&["is in use and is not replaced: 1 session in it"]);
    drop(session);
    stage.is_as_it_was(server);
}

#[test]
fn a_database_that_was_replaced_by_somebody_meanwhile_is_left_alone() {
    let server = server(18);
    let mut stage = stage(server, server, "");
    let held = held_by(&hold(server, &stage.staging));
    stage.scenario = stage.scenario.job("refresh", &job(&held));
    let Stage { staging, .. } = &stage;
    let running = stage.scenario.start(&["run-job", "refresh"]);
    eventually("it is in the user's SQL", || stage.copies(server).iter().any(|copy| server.sleeps(copy)));
    server.sql("postgres", &format!("DROP DATABASE {staging} WITH (FORCE)"));
    server.sql("postgres", &format!("CREATE DATABASE {staging}"));
    server.sql(staging, "CREATE TABLE of_staging AS SELECT 1 AS x");
    release(server, staging);
    running.wait().exited(1).says(&["is another database than when the run began"]);
    stage.is_as_it_was(server);
}

#[test]
fn two_jobs_never_refresh_one_database_at_once() {
    let server = server(18);
    let Stage { scenario, staging, .. } = stage(server, server, "");
    let held = held_by(&hold(server, &staging));
    let scenario = scenario.job("refresh", &job(&held)).job("other", &job("swap = false"));
    let running = scenario.start(&["run-job", "refresh"]);
    let prefix = format!("pgtend_refresh_{}_", digest(&staging));
    eventually("it is in the user's SQL", || databases(server, &prefix).iter().any(|copy| server.sleeps(copy)));
    scenario.run(&["run-job", "other"]).exited(75).says(&["cannot refresh", "another pgtend process is working"]);
    release(server, &staging);
    running.wait().succeeded();
    databases(server, &format!("{staging}_before_")).iter().for_each(|name| server.drop_with_test(name));
}

#[test]
fn what_the_files_alone_show_is_a_warning_of_check() {
    let server = server(18);
    let Stage { scenario, .. } = stage(server, server, "");
    let scenario = scenario
        .job("typo", "database = \"staging\"\n[refresh]\nfrom = \"nightli\"\n")
        .job("itself", "database = \"app\"\n[refresh]\nfrom = \"nightly\"\n");
    scenario.run(&["check"]).succeeded().prints(&[
        "WARNING: typo: this configuration has no [backup] job `nightli`",
        "WARNING: itself: `app` is backed up by a job, and no refresh replaces such a database",
    ]);
}

#[test]
fn mistakes_in_the_file_are_said_at_their_places() {
    let server = server(18);
    let stage = stage(server, server, "");
    for (keys, said) in [
        ("after = [\"\\\\i mask.sql\"]", "a command of psql"),
        ("after = [\" ; \"]", "an empty statement in `after`"),
        ("expect = [\"\"]", "an empty statement in `expect`"),
        ("store = \"nosuch\"", "no store `nosuch`"),
        ("sets = \"newest\"", "newest"),
        ("sessions = 99", "`sessions = 99`"),
        ("swap = false\nterminate = true", "`terminate` with swap = false"),
        ("swap = false\nkeep_old = \"1d\"", "`keep_old` with swap = false"),
    ] {
        std::fs::write(stage.scenario.path("jobs/refresh.toml"), job(keys)).unwrap();
        stage.scenario.run(&["check"]).exited(78).says(&[said, "jobs/refresh.toml"]);
    }
    std::fs::write(stage.scenario.path("jobs/refresh.toml"), "database = 'staging'\n[refresh]\n").unwrap();
    stage.scenario.run(&["check"]).exited(78).says(&["[refresh] has no `from`"]);
}

#[test]
fn a_mask_that_would_not_mask_everything_is_refused() {
    let server = server(18);
    let stage = stage(server, server, "after_file = \"mask.sql\"");
    for (mask, code, says) in [
        ("", 78, "it holds no statement"),
        ("-- UPDATE users SET email = ''\n;\n", 78, "it holds no statement"),
        ("UPDATE users SET id = id; /* later\nUPDATE users SET email = ''", 78, "ends within a comment"),
        ("UPDATE users SET id = id; UPDATE users SET email = 'nobody", 78, "ends within a comment, a string"),
        ("SET search_path = other; UPDATE users SET email = ''", 78, "statement 1 of 2 of `after` changed search_path"),
        ("BEGIN; SET LOCAL search_path = other; UPDATE users SET email = ''; COMMIT", 78, "statement 2 of 4 of `after` changed"),
        ("SELECT set_config('search_path', 'other', false) IS NULL; UPDATE users SET email = ''", 78, "changed search_path"),
        ("UPDATE users SET email = ''; RESET ALL", 78, "changed search_path"),
    ] {
        std::fs::write(stage.scenario.path("jobs/mask.sql"), mask).unwrap();
        stage.scenario.run(&["run-job", "refresh"]).exited(code).says(&[says]);
        stage.is_as_it_was(server);
    }
    std::fs::write(stage.scenario.path("jobs/refresh.toml"), job("after = [\"-- todo\"]")).unwrap();
    stage.scenario.run(&["check"]).exited(78).says(&["an empty statement in `after`"]);
}

#[test]
fn no_value_of_a_row_is_in_the_error_of_a_mask() {
    let server = server(18);
    for mask in [
        "DO $$ DECLARE e text; BEGIN SELECT email INTO e FROM users LIMIT 1; RAISE EXCEPTION 'bad row %', e; END $$",
        "DO $$ DECLARE e text; BEGIN SELECT email INTO e FROM users LIMIT 1; EXECUTE format('CREATE TABLE %I.t ()', e); END $$",
        "SELECT set_config(email, 'x', false) FROM users",
        "SELECT email::int FROM users",
    ] {
        let stage = stage(server, server, &format!("after = [{mask:?}]"));
        let failed = stage.scenario.run(&["run-job", "refresh"]).exited(1).says(&["statement 1 of 1", "SQLSTATE"]);
        assert!(!failed.stderr.contains("person1") && !failed.stdout.contains("person1"), "{}", failed.stderr);
        stage.is_as_it_was(server);
    }
}

#[test]
fn what_code_of_the_source_says_of_a_row_is_in_no_error() {
    let server = server(18);
    let stage = stage(server, server, "after = [\"UPDATE users SET email = id::text\"]");
    server.sql(
        &stage.source,
        "CREATE FUNCTION deny() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE insufficient_privilege USING MESSAGE = 'account ' || OLD.email || ' may not be changed'; END $$;
         CREATE TRIGGER deny BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION deny();
         CREATE FUNCTION says(e text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'relation \"%\" does not exist', e USING ERRCODE = 'undefined_table', CONSTRAINT = e; END $$",
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    stage.scenario.run(&["run-job", "nightly"]).succeeded();
    let failed = stage.scenario.run(&["run-job", "refresh", "--json"]).exited(77).says(&["statement 1 of 1", "SQLSTATE 42501"]);
    for text in [&failed.stderr, &failed.stdout] {
        assert!(!text.contains("company") && !text.contains("may not be changed"), "{text}");
    }
    for keys in ["after = [\"SELECT says(email) FROM users\"]", "expect = [\"SELECT says(email) FROM users LIMIT 1\"]"] {
        std::fs::write(stage.scenario.path("jobs/refresh.toml"), job(keys)).unwrap();
        let failed =
            stage.scenario.run(&["run-job", "refresh"]).exited(1).says(&["relation \"…\" does not exist (SQLSTATE 42P01)"]);
        assert!(!failed.stderr.contains("company") && !failed.stdout.contains("company"), "{}", failed.stderr);
    }
    stage.is_as_it_was(server);
}

#[test]
fn the_advice_of_a_restore_that_fails_names_keys_and_no_options() {
    let server = server(18);
    let Stage { scenario, source, staging } = stage(server, server, "");
    // A refresh restores into another database than a proof: this one has no such extension.
    server.sql(
        &source,
        "CREATE FUNCTION broken() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; CREATE INDEX ON users ((broken()))",
    );
    server.sql(
        &source,
        "CREATE OR REPLACE FUNCTION broken() RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           $$ BEGIN IF current_database() LIKE 'pgtend_refresh_%' THEN PERFORM nothing_of_that_name(); END IF; RETURN 1; END $$",
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let failed = scenario.run(&["run-job", "refresh"]).says(&["was not restored"]);
    assert_ne!(failed.code, Some(0));
    for option in ["--without", "--on-error", "--search-path", "--no-owner"] {
        assert!(!failed.stderr.contains(option), "{option}: {}", failed.stderr);
    }
    Stage { scenario, source, staging }.is_as_it_was(server);
}

#[test]
fn a_plan_warns_of_large_objects() {
    let server = server(18);
    let stage = stage(server, server, "");
    server.sql(&stage.source, "SELECT lo_from_bytea(0, 'person1@company.com')");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    stage.scenario.run(&["run-job", "nightly"]).succeeded();
    stage.scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded().prints(&["1 large object", "not masked"]);
}
