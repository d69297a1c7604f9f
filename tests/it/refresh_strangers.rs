//! Other people on the server of a refresh: what they see of the copy, what they change meanwhile, and which marks of theirs are believed.

use crate::refresh::{Stage, held_by, hold, job, release, stage, stage_of};
use crate::restore_database::{digest, properties};
use crate::support::postgres::{Server, server};
use crate::support::{eventually, quoted};

/// A stage whose staging database is refreshed by a role that is no superuser, of a source that belongs to `owner`, as staging does.
struct Roles {
    stage: Stage,
    owner: String,
    tend: String,
}

fn roles(server: &Server, keys: &str) -> Roles {
    let stage = stage_of(server.trusted_database(), server, server, keys);
    let Stage { scenario, source, staging } = &stage;
    let (owner, tend) = (format!("owner_{source}"), format!("tend_{source}"));
    server.sql(
        source,
        &format!(
            "CREATE ROLE {owner} LOGIN; ALTER DATABASE {source} OWNER TO {owner}; ALTER TABLE users OWNER TO {owner};
             CREATE SCHEMA more AUTHORIZATION {owner}; CREATE ROLE {tend} LOGIN CREATEDB; GRANT {owner} TO {tend}"
        ),
    );
    server.sql(staging, &format!("ALTER DATABASE {staging} OWNER TO {owner}; ALTER TABLE of_staging OWNER TO {owner}"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let own = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    std::fs::write(scenario.path("config.toml"), own.replace(&server.url(staging), &server.url_as(&tend, staging))).unwrap();
    Roles { stage, owner, tend }
}

/// Whether that role may run this there.
fn may(server: &Server, role: &str, database: &str, sql: &str) -> bool {
    let mut psql = server.tool("psql", database);
    psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql, &server.url_as(role, database)]).output().unwrap().status.success()
}

fn owner_of(server: &Server, database: &str) -> String {
    server.sql("postgres", &format!("SELECT datdba::regrole FROM pg_database WHERE datname = '{database}'"))
}

#[test]
fn the_owner_of_staging_cannot_look_at_the_copy_before_the_swap() {
    for major in [14, 15, 18] {
        let server = server(major);
        let Roles { mut stage, owner, tend } = roles(server, "");
        let held = held_by(&hold(server, &stage.staging));
        let after = held.replace("after = [", &format!("after = [\"CREATE TABLE also (); ALTER TABLE also OWNER TO {owner}\", "));
        stage.scenario = stage.scenario.job("refresh", &job(&after));
        let said = format!("to which only superusers and {tend} can connect");
        stage.scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded().prints(&[&said]);
        let running = stage.scenario.start(&["run-job", "refresh"]);
        eventually("it is in the user's SQL", || stage.copies(server).iter().any(|copy| server.sleeps(copy)));
        let copy = stage.copies(server).remove(0);
        assert_eq!(owner_of(server, &copy), tend, "{major}");
        // Without the right to grant it is a warning.
        may(server, &owner, "postgres", &format!("GRANT CONNECT ON DATABASE {copy} TO {owner}"));
        assert!(!may(server, &owner, &copy, "SELECT 1"), "{major}");
        assert!(!may(server, &owner, "postgres", &format!("ALTER DATABASE {copy} RENAME TO mine")), "{major}");
        let before = properties(server, &stage.staging);
        release(server, &stage.staging);
        running.wait().succeeded();
        let Stage { source, staging, .. } = &stage;
        assert_eq!(properties(server, staging), before, "{major}");
        // Nothing of it shows in what the source had.
        for sql in [
            "SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace WHERE nspname IN ('public', 'more') ORDER BY 1",
            "SELECT relowner::regrole FROM pg_class WHERE relname = 'users'",
        ] {
            assert_eq!(server.sql(staging, sql), server.sql(source, sql), "{major}");
        }
        assert!(may(server, &owner, staging, "CREATE TABLE mine AS SELECT * FROM users"), "{major}");
        stage.old(server);

        // A copy that failed is not its to open either.
        let Roles { stage, owner, .. } = roles(server, "after = [\"SELECT 1/0\"]\nkeep_failed = true");
        stage.scenario.run(&["run-job", "refresh"]).exited(1).says(&["the copy stays as"]);
        let kept = stage.copies(server).remove(0);
        server.drop_with_test(&kept);
        assert!(!may(server, &owner, "postgres", &format!("ALTER DATABASE {kept} ALLOW_CONNECTIONS true")), "{major}");
        assert_eq!(owner_of(server, &stage.staging), owner, "{major}");
    }
}

#[test]
fn what_is_revoked_or_set_while_the_swap_waits_is_not_undone() {
    let server = server(18);
    let stage = stage(server, server, "terminate = true\nwait = \"60s\"");
    let Stage { staging, .. } = &stage;
    let intern = format!("intern_{staging}");
    server.sql("postgres", &format!("CREATE ROLE {intern} LOGIN; GRANT CONNECT ON DATABASE {staging} TO {intern}"));
    let session = server.session(staging, "SET application_name = 'it'");
    let running = stage.scenario.start(&["run-job", "refresh"]);
    eventually("it waits", || is_waiting(server, staging));
    server.sql("postgres", &format!("REVOKE CONNECT ON DATABASE {staging} FROM PUBLIC, {intern}"));
    server
        .sql("postgres", &format!("ALTER DATABASE {staging} SET work_mem = '9MB'; ALTER DATABASE {staging} CONNECTION LIMIT 9"));
    let before = properties(server, staging);
    drop(session);
    running.wait().succeeded();
    assert_eq!(properties(server, staging), before);
    assert!(!may(server, &intern, staging, "SELECT 1"));
    stage.old(server);
}

/// Its copy is closed, and has its mark: so it waits for sessions, or is further.
pub fn is_waiting(server: &Server, staging: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_database WHERE starts_with(datname::text, 'pgtend_refresh_{}_') AND NOT datallowconn
           AND starts_with(shobj_description(oid, 'pg_database'), 'made by pgtend refresh')",
        digest(staging)
    );
    server.sql("postgres", &sql) != "0"
}

#[test]
fn what_one_job_keeps_for_long_another_one_does_not_drop() {
    let server = server(18);
    let Stage { scenario, staging, source } = stage(server, server, "");
    let scenario = scenario
        .job("long", &job("keep_old = \"365d\"\nkeep_failed = true"))
        .job("failing", &job("keep_old = \"365d\"\nkeep_failed = true\nafter = [\"SELECT 1/0\"]"))
        .job("refresh", &job("keep_old = \"1s\""));
    scenario.run(&["run-job", "long"]).succeeded();
    scenario.run(&["run-job", "failing"]).exited(1);
    let stage = Stage { scenario, staging, source };
    let (old, copies) = (stage.old(server), stage.copies(server));
    server.drop_with_test(&copies[0]);
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(1200));
        stage.facts("refresh");
    }
    assert!(stage.old(server).contains(&old[0]), "{old:?}");
    // Of the two that the other job replaced, the first is gone.
    assert_eq!(stage.old(server).len(), 2);
    assert_eq!(stage.copies(server), copies);
}

#[test]
fn a_mark_on_a_database_of_a_stranger_is_not_believed() {
    let server = server(18);
    let stage = stage(server, server, "keep_old = \"1s\"");
    let Stage { staging, .. } = &stage;
    stage.facts("refresh");
    let real = stage.old(server);
    // Staging is made anew by hand: nothing says any more that the old ones are not needed.
    server.sql("postgres", &format!("DROP DATABASE {staging}"));
    server.sql("postgres", &format!("CREATE DATABASE {staging}"));
    let (mallory, forged) = (format!("mallory_{staging}"), format!("{staging}_before_20200101_000000"));
    let oid = server.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{staging}'"));
    server.sql("postgres", &format!("CREATE ROLE {mallory} LOGIN CREATEDB; CREATE DATABASE {forged}"));
    server.sql(
        "postgres",
        &format!(
            "ALTER DATABASE {forged} OWNER TO {mallory};
             COMMENT ON DATABASE {forged} IS 'made by pgtend refresh: {{\"what\":\"old\",\"target\":\"{staging}\",\"job\":\"x\",\"run\":null,\"at\":\"2020-01-01T00:00:00Z\",\"replaced_by\":{oid}}}'"
        ),
    );
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let plan = stage.scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded();
    plan.prints(&["its mark is not believed", "did not come by a refresh"]);
    stage.facts("refresh");
    let old = stage.old(server);
    assert!(real.iter().chain([&forged]).all(|name| old.contains(name)), "{old:?}");
}

#[test]
fn a_run_of_another_job_is_not_terminated_whatever_its_url_calls_it() {
    let server = server(18);
    // A superuser reads of the other session whose it is; another role sees its lock alone.
    let mine = stage(server, server, "");
    let Roles { stage: others, .. } = roles(server, "");
    for Stage { scenario, staging, source } in [mine, others] {
        let url = format!("{}?application_name=ops", server.url(&staging));
        let scenario = scenario
            .config(&format!("[databases.by_ops]\nurl = {}\n", quoted(&url)))
            .job("other", "database = \"by_ops\"\n[sql]\nstatements = [\"SELECT pg_sleep(600)\"]\n")
            .job("refresh", &job("terminate = true\nwait = \"1ms\""));
        let stage = Stage { scenario, staging, source };
        let other = stage.scenario.start(&["run-job", "other"]);
        eventually("the other job is at work", || server.sleeps(&stage.staging));
        stage.scenario.run(&["run-job", "refresh"]).exited(75).says(&["pgtend itself is at work in it"]);
        assert!(server.sleeps(&stage.staging));
        other.kill();
        let ended = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{}'", stage.staging);
        eventually("it is gone", || server.sql("postgres", &ended) == "0");
        stage.is_as_it_was(server);
    }
}

#[test]
fn a_dry_run_says_what_the_role_lacks() {
    let (source, target) = (server(18), Server::start(18));
    let Stage { scenario, source: from, staging } = stage(source, &target, "");
    let tend = "tend";
    target.sql("postgres", &format!("CREATE ROLE {tend} LOGIN; CREATE ROLE app"));
    let own = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    std::fs::write(scenario.path("config.toml"), own.replace(&target.url(&staging), &target.url_as(tend, &staging))).unwrap();
    let lacks = |scenario: &crate::support::Scenario, said: &[&str]| {
        for arguments in [&["run-job", "refresh", "--dry-run"][..], &["run-job", "refresh"]] {
            scenario.run(arguments).exited(77).says(said);
        }
    };
    lacks(&scenario, &["ALTER ROLE \"tend\" CREATEDB", "GRANT \"postgres\" TO \"tend\""]);
    target.sql("postgres", &format!("ALTER ROLE {tend} CREATEDB; ALTER DATABASE {staging} OWNER TO app"));
    lacks(&scenario, &["it may not act as the owner", "GRANT \"app\" TO \"tend\""]);
    target.sql("postgres", &format!("GRANT app TO {tend}"));
    let nowhere = format!("nowhere_{from}");
    source.sql(&from, &format!("CREATE ROLE {nowhere}; GRANT SELECT ON users TO {nowhere}"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let scenario = scenario.job("refresh", &job("create_roles = true"));
    lacks(&scenario, &["may not create the roles that the server lacks", &nowhere, "CREATEROLE"]);
    source.sql(&from, &format!("DROP OWNED BY {nowhere}; DROP ROLE {nowhere}"));
    Stage { scenario, source: from, staging }.is_as_it_was(&target);
}

#[test]
fn a_session_that_cannot_be_read_is_not_terminated_as_it_may_be_of_pgtend() {
    let server = server(18);
    let Roles { stage, tend, .. } = roles(server, "terminate = true\nwait = \"1ms\"");
    let Stage { scenario, staging, .. } = &stage;
    let other = format!("other_{staging}");
    server.sql("postgres", &format!("CREATE ROLE {other} LOGIN; GRANT pg_signal_backend TO {tend}"));
    // The configuration of another host.
    let url = server.url_as(&other, staging);
    let url = format!("{url}{}application_name=ops", if url.contains('?') { "&" } else { "?" });
    std::fs::create_dir(scenario.path("elsewhere")).unwrap();
    std::fs::write(scenario.path("elsewhere.toml"), format!("[databases.d]\nurl = {}\n", quoted(&url))).unwrap();
    std::fs::write(scenario.path("elsewhere/other.toml"), "database = \"d\"\n[sql]\nstatements = [\"SELECT pg_sleep(600)\"]\n")
        .unwrap();
    let at_work = scenario.start(&["run-job", "other", "--config", "elsewhere.toml", "--jobs", "elsewhere"]);
    eventually("the other job is at work", || server.sleeps(staging));
    let refused =
        scenario.run(&["run-job", "refresh"]).exited(75).says(&["may not read what they run", &other, "pg_read_all_stats"]);
    assert!(refused.stderr.contains("nobody is terminated"), "{}", refused.stderr);
    assert!(server.sleeps(staging));
    server.sql("postgres", &format!("GRANT pg_read_all_stats TO {tend}"));
    scenario.run(&["run-job", "refresh"]).exited(75).says(&["pgtend itself is at work in it"]);
    assert!(server.sleeps(staging));
    at_work.kill();
    let ended = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{staging}'");
    eventually("it is gone", || server.sql("postgres", &ended) == "0");
    stage.is_as_it_was(server);
}

#[test]
fn a_dry_run_says_which_properties_the_role_may_not_give() {
    for major in [14, 18] {
        let server = server(major);
        let Roles { stage, owner, tend } = roles(server, "");
        let Stage { scenario, staging, .. } = &stage;
        let (intern, guest) = (format!("intern_{staging}"), format!("guest_{staging}"));
        server.sql(
            staging,
            &format!(
                "CREATE ROLE {intern}; CREATE ROLE {guest}; ALTER DATABASE {staging} SET work_mem = '7MB'; ALTER ROLE {tend} IN DATABASE {staging} SET work_mem = '8MB'"
            ),
        );
        scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded();
        server.sql(
            staging,
            &format!(
                "ALTER DATABASE {staging} SET log_statement = 'ddl'; ALTER ROLE {intern} IN DATABASE {staging} SET work_mem = '9MB';
                 SET ROLE {owner}; GRANT CONNECT ON DATABASE {staging} TO {intern} WITH GRANT OPTION;
                 RESET ROLE; SET ROLE {intern}; GRANT CONNECT ON DATABASE {staging} TO {guest}"
            ),
        );
        for arguments in [&["run-job", "refresh", "--dry-run"][..], &["run-job", "refresh"], &["check", "--connect"]] {
            let refused = scenario.run(arguments).exited(77);
            for said in ["it may not set log_statement", "it may not set what intern_", "it may not grant what intern_"] {
                assert!(
                    refused.stderr.contains(said) || refused.stdout.contains(said),
                    "{major}: {said}: {}{}",
                    refused.stdout,
                    refused.stderr
                );
            }
            assert!(!(refused.stderr + &refused.stdout).contains("set work_mem"), "{major}");
        }
        stage.is_as_it_was(server);
        let (set, admin) = match major {
            14 => (format!("ALTER DATABASE {staging} RESET log_statement"), String::new()),
            _ => (format!("GRANT SET ON PARAMETER log_statement TO {tend}"), " WITH ADMIN OPTION".to_owned()),
        };
        server.sql(staging, &format!("{set}; ALTER ROLE {tend} CREATEROLE; GRANT {intern} TO {tend}{admin}"));
        scenario.run(&["run-job", "refresh", "--dry-run"]).succeeded();
        let before = properties(server, staging);
        scenario.run(&["run-job", "refresh"]).succeeded();
        assert_eq!(properties(server, staging), before, "{major}");
        stage.old(server);
        if major > 14 {
            server.sql(staging, &format!("REVOKE SET ON PARAMETER log_statement FROM {tend}"));
        }
    }
}

#[test]
fn who_went_back_to_an_old_database_gets_no_mark_as_its_comment() {
    let server = server(18);
    let stage = stage(server, server, "keep_old = \"1s\"");
    let Stage { scenario, staging, .. } = &stage;
    server.sql("postgres", &format!("COMMENT ON DATABASE {staging} IS 'of team A'"));
    scenario.run(&["run-job", "refresh"]).succeeded();
    let old = stage.old(server).remove(0);
    server.sql("postgres", &format!("ALTER DATABASE {staging} RENAME TO {staging}_refreshed"));
    server.drop_with_test(&format!("{staging}_refreshed"));
    server.sql("postgres", &format!("ALTER DATABASE {old} RENAME TO {staging}"));
    let comment = format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{staging}'");
    assert!(server.sql("postgres", &comment).starts_with("made by pgtend refresh"));
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        scenario.run(&["run-job", "refresh"]).succeeded();
        assert_eq!(server.sql("postgres", &comment), "of team A");
    }
    stage.old(server);
}
