//! Restores that are stopped, killed or met by others on the way: a database has its name when it is whole, and nothing else stays.

use rustix::process::Signal;

use crate::restore_database::{backed_up, databases, digest, filling, properties, restore, some_rows};
use crate::support::postgres::{Server, server};
use crate::support::{Running, Scenario, eventually};

/// A database whose restore waits for six seconds near its end, wherever pgtend has it under another name.
fn waits_when_restored(server: &Server) -> String {
    let name = some_rows(server);
    server.sql(
        &name,
        r"CREATE FUNCTION wait() RETURNS int LANGUAGE plpgsql AS $$BEGIN
              IF current_database() LIKE 'pgtend\_%' THEN PERFORM pg_sleep(6); END IF; RETURN 1;
          END$$;
          CREATE MATERIALIZED VIEW waiting AS SELECT wait()",
    );
    name
}

/// Waits for that wait in a database whose name starts so. Returns the name.
fn waiting(server: &Server, prefix: &str) -> String {
    let sql =
        format!("SELECT datname FROM pg_stat_activity WHERE starts_with(datname::text, '{prefix}') AND wait_event = 'PgSleep'");
    eventually("the restore waits", || !server.sql("postgres", &sql).is_empty());
    server.sql("postgres", &sql)
}

/// A restore that waits near its end.
struct Midway {
    scenario: Scenario,
    /// The name that the database gets.
    copy: String,
    /// Its name until then.
    half: String,
    running: Running,
}

/// Backs up a database of [`waits_when_restored`], and restores it under another name.
fn midway(server: &Server, database: &str) -> Midway {
    let scenario = Scenario::with_database(server, database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let half = waiting(server, &filling(&copy));
    Midway { scenario, copy, half, running }
}

#[test]
fn nobody_connects_to_a_database_that_is_half_restored() {
    let server = server(18);
    let database = waits_when_restored(server);
    server.sql(
        &database,
        &format!("CREATE ROLE half_owner LOGIN; ALTER DATABASE {database} OWNER TO half_owner; CREATE ROLE half_app LOGIN"),
    );
    let Midway { scenario, copy, half, running } = midway(server, &database);
    for role in ["half_owner", "half_app"] {
        let url = server.url_as(role, &half);
        let tried = server.tool("psql", &copy).args(["-Xq", "-c", "SELECT 1", &url]).output().unwrap();
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(said.contains("permission denied") || said.contains("too many connections"), "{role}: {said}");
    }
    // Meanwhile the same restore again is busy, and leaves the first alone.
    scenario
        .run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"])
        .exited(75)
        .says(&["another pgtend process is working"]);
    running.wait().succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
}

#[test]
fn a_signal_to_a_restore_or_a_verification_leaves_no_database() {
    let server = server(18);
    let database = waits_when_restored(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    for (prefix, signal, arguments) in [
        (filling(&copy), Signal::INT, vec!["backups", "restore", "latest", "--into", into.as_str(), "--create"]),
        ("pgtend_verify_".to_owned(), Signal::TERM, vec!["backups", "verify", "latest", "--restore-on", "app"]),
    ] {
        let running = scenario.start(&arguments);
        let name = waiting(server, &prefix);
        running.signal(signal);
        running.wait().exited(143).says(&["cancelled"]);
        assert_eq!(databases(server, &name), Vec::<String>::new());
    }
}

#[test]
fn a_server_that_starts_anew_midway_is_waited_for_and_nothing_stays() {
    let mut server = Server::start(18);
    let database = waits_when_restored(&server);
    let scenario = Scenario::with_database(&server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url("copy"), "--create"]);
    waiting(&server, &filling("copy"));
    server.crash();
    server.start_again();
    running.wait().exited_with_one_of(&[1, 69]);
    assert_eq!(databases(&server, "pgtend_"), Vec::<String>::new());
    assert_eq!(databases(&server, "copy"), Vec::<String>::new());
}

#[test]
fn a_kill_between_create_database_and_its_mark_leaves_what_the_next_restore_drops() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    // What CREATE DATABASE has made, and nothing after it.
    server.sql("postgres", &format!("CREATE DATABASE {} ALLOW_CONNECTIONS false CONNECTION LIMIT 0", filling(&copy)));
    restore(&scenario, server, &copy).succeeded();
    assert_eq!(databases(server, &filling(&copy)), Vec::<String>::new());
}

#[test]
fn a_foreign_database_of_a_scratch_name_is_left_alone() {
    let server = server(18);
    let database = waits_when_restored(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let running = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
    let name = waiting(server, &filling(&copy));
    running.signal(Signal::INT);
    running.wait().exited(143);
    server.sql("postgres", &format!("CREATE DATABASE {name}"));
    restore(&scenario, server, &copy).exited(1).says(&["already exists"]);
    assert_eq!(databases(server, &filling(&copy)), [name]);
}

#[test]
fn a_pgtend_that_stood_still_drops_nothing_that_another_one_fills() {
    // All sessions of pgtend on this server are ended: it is this test's own.
    let server = Server::start(18);
    let database = waits_when_restored(&server);
    let scenario = backed_up(&server, &database);
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let arguments = ["backups", "restore", "latest", "--into", &into, "--create"];
    let stopped = scenario.start(&arguments);
    let name = waiting(&server, &filling(&copy));
    stopped.signal(Signal::STOP);
    let sessions = "FROM pg_stat_activity WHERE application_name = 'pgtend'";
    server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {sessions}"));
    eventually("the first one's sessions are gone", || server.sql("postgres", &format!("SELECT count(*) {sessions}")) == "0");
    let second = scenario.start(&arguments);
    assert_eq!(waiting(&server, &filling(&copy)), name);
    stopped.signal(Signal::CONT);
    second.wait().succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
    stopped.wait().exited_with_one_of(&[1, 69]);
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
}

#[test]
fn a_whole_copy_of_one_set_does_not_stand_in_the_way_of_another_set() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    // As a call leaves it that could not rename even once.
    let name = format!("{}_000000000000", filling(&copy));
    let comment = format!("made by pgtend, a whole copy of app/nightly/2026-01-01T00-00-00Z for {copy}");
    server.sql("postgres", &format!("CREATE DATABASE {name} ALLOW_CONNECTIONS false; COMMENT ON DATABASE {name} IS '{comment}'"));
    restore(&scenario, server, &copy).succeeded().says(&[&name, "a whole copy of another set"]);
    assert_eq!(databases(server, &filling(&copy)), [name]);
}

#[test]
fn what_failed_is_said_though_the_copy_cannot_get_its_name() {
    let server = server(18);
    let database = waits_when_restored(server);
    server.sql(
        &database,
        "CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$BEGIN IF current_database() LIKE 'pgtend%' THEN RAISE 'not here'; END IF; RETURN $1; END$$;
         CREATE INDEX failing ON big (fails(i))",
    );
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let into = server.url(&copy);
    let arguments = ["backups", "restore", "latest", "--into", &into, "--create", "--on-error", "continue"];
    let running = scenario.start(&arguments);
    waiting(server, &filling(&copy));
    server.sql("postgres", &format!("CREATE DATABASE {copy}"));
    running.wait().exited(1).says(&["1 statement failed", "INDEX failing", "run the same command again to continue"]);
    server.sql("postgres", &format!("DROP DATABASE {copy}"));
    let taken = scenario.run(&arguments).exited(1).prints(&["an earlier call had restored the set", "statements failed"]);
    assert!(!taken.stdout.contains("each table counted"), "{}", taken.stdout);
    assert_eq!(server.sql(&copy, "SELECT count(*), to_regclass('failing') FROM big"), "20000|");
}

#[test]
fn an_exporter_that_looks_into_a_leftover_does_not_keep_it() {
    let server = server(18);
    let database = some_rows(server);
    let scenario = backed_up(server, &database);
    let copy = format!("{database}_copy");
    let leftover = filling(&copy);
    server.sql(
        "postgres",
        &format!("CREATE DATABASE {leftover}; COMMENT ON DATABASE {leftover} IS 'made by pgtend, dropped when its restore ends'"),
    );
    let _exporter = server.session(&leftover, "SET application_name = 'exporter'");
    restore(&scenario, server, &copy).succeeded();
    assert_eq!(databases(server, &leftover), Vec::<String>::new());
}

#[test]
fn a_whole_copy_whose_name_was_taken_meanwhile_is_renamed_by_the_next_call() {
    let server = server(18);
    let database = waits_when_restored(server);
    server.sql(
        &database,
        &format!("ALTER DATABASE {database} SET work_mem = '7MB'; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"),
    );
    let Midway { scenario, copy, running, .. } = midway(server, &database);
    let whole = format!("pgtend_restored_{}", digest(&copy));
    server.sql("postgres", &format!("CREATE DATABASE {copy}"));
    running
        .wait()
        .exited(1)
        .says(&["is restored and counted in the database pgtend_restored_", "run the same command again to continue"]);
    assert_eq!(databases(server, &whole).len(), 1);

    restore(&scenario, server, &copy).exited(78).says(&["already exists"]);
    server.sql("postgres", &format!("DROP DATABASE {copy}"));
    let started = std::time::Instant::now();
    restore(&scenario, server, &copy).succeeded().says(&["counted again and renamed"]);
    assert!(started.elapsed().as_secs() < 6, "it was restored once more");
    assert_eq!(databases(server, &whole), Vec::<String>::new());
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
    assert_eq!(properties(server, &copy), properties(server, &database));
}

#[test]
fn a_whole_copy_that_somebody_has_changed_is_not_used() {
    let server = server(18);
    let database = waits_when_restored(server);
    let Midway { scenario, copy, running, .. } = midway(server, &database);
    server.sql("postgres", &format!("CREATE DATABASE {copy}"));
    running.wait().exited(1);
    let whole = databases(server, &format!("pgtend_restored_{}", digest(&copy))).pop().unwrap();
    server.sql("postgres", &format!("DROP DATABASE {copy}; ALTER DATABASE {whole} ALLOW_CONNECTIONS true"));
    server.sql(&whole, "DELETE FROM big WHERE i = 7");
    restore(&scenario, server, &copy).exited(1).says(&["has 19,999 rows", &format!("DROP DATABASE \"{whole}\"")]);
    assert_eq!(databases(server, &whole), std::slice::from_ref(&whole));
}

#[test]
fn sessions_on_a_whole_copy_are_ended_before_it_gets_its_name() {
    let server = server(18);
    let database = waits_when_restored(server);
    let Midway { scenario: _scenario, copy, half, running } = midway(server, &database);
    let _exporter = server.session(&half, "SET application_name = 'exporter'");
    running.wait().succeeded();
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM big"), "20000");
}
