//! One job that tends the tables of many tenants; jobs that meet on one table; a server under strain.

use crate::partition::{old_logs, partitions_of};
use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually};

/// `logs`, by tenant and then by time: a, b and c, each with a default partition.
fn tenants(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (tenant text, at timestamptz NOT NULL, n int) PARTITION BY LIST (tenant);
         SELECT format('CREATE TABLE logs_%1$s PARTITION OF logs FOR VALUES IN (%1$L) PARTITION BY RANGE (at); CREATE TABLE logs_%1$s_default PARTITION OF logs_%1$s DEFAULT', t)
         FROM unnest(ARRAY['a', 'b', 'c']) t \\gexec",
    );
    database
}

fn number_of_partitions(server: &Server, database: &str) -> [usize; 3] {
    ["logs_a", "logs_b", "logs_c"].map(|tenant| partitions_of(server, database, tenant).len())
}

#[test]
fn a_lock_on_the_table_of_one_tenant_stops_no_other() {
    for major in SOME_MAJORS {
        let server = server(major);
        let more = "every = \"month\"\npremake = 2\nlock_timeout = \"300ms\"\ngive_up_after = \"1s\"";
        // What it cannot even look at, and what it looks at and cannot change: its rows have no partition now, which is more than a lock.
        let locks = [
            "LOCK TABLE ONLY logs_a IN SHARE UPDATE EXCLUSIVE MODE",
            "LOCK TABLE logs_a_default IN ACCESS EXCLUSIVE MODE",
            "LOCK TABLE logs_a IN ACCESS EXCLUSIVE MODE",
        ];
        // Each on the newest, and one of them on the others, where locks are the same.
        for lock in &locks[..if major == 18 { 3 } else { 1 }] {
            let database = tenants(server);
            let scenario = Scenario::logs(server, &database, more);
            let holder = server.session(&database, &format!("BEGIN; {lock}"));
            let said =
                scenario.tend().exited(1).says(&["public.logs_a", "server process", "public.logs_b: created 3 partitions"]);
            assert!(!said.stderr.contains("is not a table name"), "{lock} on {major}: {said:?}");
            let said =
                said.stderr.split_once("no partition covers new rows; partitions cover less than one period (month) ahead");
            let (before, after) = said.unwrap_or_else(|| panic!("{lock} on {major}"));
            assert!(!before.contains("public.logs_b: created") && after.contains("public.logs_b: created"), "{lock} on {major}");
            assert_eq!(number_of_partitions(server, &database), [1, 4, 4], "{lock} on {major}");
            // The same as a job of its own.
            let alone = Scenario::with_database(server, &database).partitions("public.logs_a", "at", more);
            alone.tend().exited(1).says(&["no partition covers new rows", "server process"]);
            drop(holder);
            eventually("the lock is gone", || {
                server.psql(&database, "SET lock_timeout = '1s'; BEGIN; LOCK TABLE logs_a").is_ok()
            });
            scenario.tend().succeeded();
            assert_eq!(number_of_partitions(server, &database), [4, 4, 4]);
            // With a runway, a lock is a lock.
            let holder = server.session(&database, "BEGIN; LOCK TABLE logs_a_default IN ACCESS EXCLUSIVE MODE");
            scenario.tend().exited(75).says(&["public.logs_a is locked: server process"]);
            alone.tend().exited(75).says(&["public.logs_a is locked: server process"]);
            drop(holder);
        }
        // Another job has one of them.
        let database = tenants(server);
        let scenario = Scenario::logs(server, &database, more);
        let holder =
            server.session(&database, "SELECT pg_advisory_lock(hashtextextended('pgtend table ' || 'logs_b'::regclass::oid, 0))");
        // Whatever it does there, rows of now have no partition.
        scenario
            .tend()
            .exited(1)
            .says(&["public.logs_b: no partition covers new rows", "another job of pgtend works on public.logs_b"]);
        assert_eq!(number_of_partitions(server, &database), [4, 1, 4]);
        drop(holder);
    }
}

#[test]
fn a_tenants_table_of_another_owner_is_named_and_the_others_are_tended() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = tenants(server);
        let role = format!("{database}_tender");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role};
                 SELECT format('ALTER TABLE %I OWNER TO {role}', relname) FROM pg_class WHERE relname ~ '^logs(_[bc])?(_default)?$' \\gexec"
            ),
        );
        let more = "every = \"month\"\npremake = 2";
        let scenario = Scenario::with_url(server, &server.url_as(&role, &database)).partitions("public.logs", "at", more);
        let named = "only its owner \"postgres\" may change public.logs_a";
        scenario.run(&["run-job", "tend", "--dry-run"]).exited(77).prints(&[named, "public.logs_b, partitioned"]);
        let check = scenario.run(&["check", "--connect"]);
        assert!(check.code != Some(0) && (check.stdout + &check.stderr).contains(named));
        scenario.tend().exited(77).says(&[
            "public.logs_a: no partition covers new rows",
            named,
            "public.logs_b: created 3 partitions",
        ]);
        assert_eq!(number_of_partitions(server, &database), [1, 4, 4], "on {major}");
        let shown = scenario.run(&["--json", "run-job", "tend"]).exited(77).stdout;
        let run = serde_json::from_str::<serde_json::Value>(&shown).unwrap()["runs"][0].clone();
        assert_eq!((&run["outcome"], &run["report"]["facts"]["tables"]), (&"failed".into(), &3.into()), "{run:#}");
        // A busy table beside it is the smaller trouble.
        let holder = server.session(&database, "BEGIN; LOCK TABLE logs_b_default IN ACCESS EXCLUSIVE MODE");
        scenario.tend().exited(77).says(&[named, "public.logs_b is locked: server process"]);
        drop(holder);
        server.sql(&database, &format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

/// A row-by-row [retention] of `public.logs`.
fn rows_too(scenario: Scenario, limits: &str) -> Scenario {
    scenario.job(
        "rows",
        &format!(
            "database = \"app\"\n[retention]\ntable = \"public.logs\"\ncolumn = \"at\"\nolder_than = \"40d\"\nwhere = \"body <> 'keep'\"\nmethod = \"blocks\"\n[limits]\n{limits}\n"
        ),
    )
}

#[test]
fn a_partition_job_and_a_retention_job_on_one_table_exclude_each_other() {
    let server = server(18);
    let database = old_logs(server, 5);
    let scenario = rows_too(
        Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"\nlock_timeout = \"500ms\""),
        "pause = \"1s\"\nbatch_time = \"1ms\"",
    );
    let is_held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.relname = 'logs'
        WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('pgtend table ' || c.oid, 0)";
    // The one that makes and detaches partitions waits for a reader.
    let reader = server.session(&database, "BEGIN; LOCK TABLE logs IN SHARE MODE");
    let running = scenario.start(&["run-job", "tend"]);
    eventually("it has the table", || server.sql(&database, is_held) == "1");
    scenario
        .run(&["run-job", "rows", "--yes"])
        .exited(75)
        .says(&["another job of pgtend works on public.logs", "server process"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "600", "no row went");
    drop(reader);
    running.wait().succeeded();

    // The other way round; two that delete rows only go side by side.
    let mut running = scenario.start(&["run-job", "rows", "--yes"]);
    eventually("it has the table", || server.sql(&database, is_held) == "1");
    scenario.tend().exited(75).says(&["another job of pgtend works on public.logs", "server process"]);
    let scenario = scenario.job("others", "database = \"app\"\n[retention]\ntable = \"public.logs\"\ncolumn = \"at\"\nolder_than = \"50d\"\nwhere = \"body = 'keep'\"\n");
    scenario.run(&["run-job", "others", "--yes"]).succeeded();
    assert!(running.is_running(), "the first one was still at work");
    running.kill();
    eventually("its lock is gone", || server.sql(&database, is_held) == "0");
    scenario.tend().succeeded();
}

#[test]
fn steps_that_make_partitions_ahead_go_on_under_strain_and_what_goes_waits() {
    let server = Server::start(18);
    let database = old_logs(&server, 5);
    let before = partitions_of(&server, &database, "logs").len();
    let limits = "[limits]\nmax_active_sessions = 0\nmax_wait = \"1s\"";
    let scenario = Scenario::logs(&server, &database, &format!("every = \"month\"\nretain = \"92d\"\npremake = 2\n{limits}"));
    let at_work = server.session(&database, "SELECT 1");
    let mut at_work_still = server
        .tool("psql", &database)
        .args(["-Xqc", "SELECT pg_sleep(600)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("a session is at work", || server.sleeps(&database));
    let ended = scenario.tend().exited(75).says(&["left for the next run: detach public.", "created 2 partitions"]);
    assert!(ended.stderr.contains("waited") || ended.stdout.contains("waited"), "the strain is named: {ended:?}");
    assert_eq!(partitions_of(&server, &database, "logs").len(), before + 2, "all that is ahead was made, and nothing went");
    at_work_still.kill().unwrap();
    at_work_still.wait().unwrap();
    drop(at_work);
    eventually("it is gone", || !server.sleeps(&database));
    scenario.tend().succeeded().prints(&["detached"]);
}
