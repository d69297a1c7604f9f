//! Partitions on their way out: detached, archived, dropped, and killed at every moment of it.

use std::time::Duration;

use crate::partition::{Clients, first_is_over, old_logs, partitions_of};
use crate::support::postgres::{SOME_MAJORS, server};
use crate::support::{Scenario, eventually};

/// Rows of the archive of job `tend`, by stock tools.
fn archived_rows(scenario: &Scenario) -> usize {
    let objects = scenario.files("store").into_iter().filter(|file| file.ends_with(".sql.gz"));
    let rows = |file: String| {
        let manifest = scenario.path(&format!("store/{}", file.replace(".sql.gz", ".json")));
        if !manifest.exists() {
            return 0;
        }
        let text =
            std::process::Command::new("gunzip").arg("-c").arg(scenario.path(&format!("store/{file}"))).output().unwrap().stdout;
        let text = String::from_utf8(text).unwrap();
        text.lines().skip_while(|line| !line.starts_with("COPY")).skip(1).take_while(|line| *line != "\\.").count()
    };
    objects.map(rows).sum()
}

#[test]
fn what_is_over_is_detached_then_dropped_when_its_grace_is_over() {
    for major in SOME_MAJORS {
        let server = server(major);
        // On the first days of a month, 92 days leave one month more.
        let database = old_logs(server, 7);
        server.sql(&database, "COMMENT ON TABLE logs IS 'ours'");
        let scenario = Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"");
        scenario.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["detach public.logs_p", "and everything before"]);
        let clients = Clients::start(
            server,
            &database,
            &["INSERT INTO logs (at, body) VALUES (now(), 'new')", "SELECT count(*) FROM logs", "DELETE FROM logs WHERE id = 0"],
        );
        scenario.tend().succeeded().prints(&["created 3 partitions, detached"]);
        let (_, longest) = clients.stop();
        assert!(longest < Duration::from_secs(3), "a client took {longest:?}");
        let attached: u32 = partitions_of(server, &database, "logs").len() as u32;
        let marked = "SELECT count(*) FROM pg_description WHERE description LIKE 'Retired from public.logs by pgtend%'";
        let gone: u32 = server.sql(&database, marked).parse().unwrap();
        assert_eq!(attached + gone, 11);
        assert!(gone >= 3, "{gone}");
        // Within its grace everything is there.
        scenario.tend().succeeded().prints(&["nothing to do"]);
        assert_eq!(server.sql(&database, marked), gone.to_string());
        // A table that looks like one of ours but is a copy of its comment stays for good.
        server.sql(&database, "CREATE TABLE theirs (n int); DO $$ BEGIN EXECUTE format('COMMENT ON TABLE theirs IS %L', (SELECT description FROM pg_description WHERE description LIKE 'Retired from%' LIMIT 1)); END $$");
        Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"\ngrace = \"0s\"")
            .tend()
            .succeeded()
            .prints(&["dropped"]);
        assert_eq!(server.sql(&database, marked), "1");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM theirs"), "0");
    }
}

#[test]
fn a_long_reader_makes_a_detach_wait_and_nobody_else() {
    for (major, with_default) in [(15, false), (18, false), (16, true)] {
        let server = server(major);
        let database = old_logs(server, 6);
        if with_default {
            server.sql(&database, "CREATE TABLE logs_default PARTITION OF logs DEFAULT");
        }
        let more = "every = \"month\"\nretain = \"92d\"\nlock_timeout = \"500ms\"\ngive_up_after = \"3s\"";
        Scenario::logs(server, &database, "every = \"month\"").tend().succeeded();
        let scenario = Scenario::logs(server, &database, more);
        let mut reader = server.tool("psql", &database);
        reader.args(["-Xq", "-c", "BEGIN", "-c", "SELECT count(*) FROM logs", "-c", "SELECT pg_sleep(60)"]);
        let mut reader = reader.stdout(std::process::Stdio::null()).spawn().unwrap();
        eventually("the reader sleeps", || {
            server.sql(
                &database,
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()",
            ) == "1"
        });
        let clients = Clients::start(
            server,
            &database,
            &[
                "INSERT INTO logs (at, body) VALUES (now(), 'new')",
                "SELECT count(*) FROM logs WHERE at > now() - interval '1 day'",
            ],
        );
        scenario.tend().exited(75).says(&["left for the next run", "server process", "covered until"]);
        let (_, longest) = clients.stop();
        assert!(longest < Duration::from_millis(2000), "a client took {longest:?}");
        reader.kill().unwrap();
        reader.wait().unwrap();
        server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()");
        scenario.tend().succeeded();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), "0");
        let marked = "SELECT count(*) FROM pg_description WHERE description LIKE 'Retired from public.logs by pgtend%'";
        assert!(server.sql(&database, marked).parse::<u32>().unwrap() >= 2);
    }
}

#[test]
fn somebody_elses_pending_detach_is_finished_and_its_table_stays() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = old_logs(server, 3);
        let oldest = partitions_of(server, &database, "logs")[0].clone();
        let mut reader = server.tool("psql", &database);
        reader.args(["-Xq", "-c", "BEGIN", "-c", "SELECT count(*) FROM logs", "-c", "SELECT pg_sleep(60)"]);
        let mut reader = reader.stdout(std::process::Stdio::null()).spawn().unwrap();
        eventually("the reader sleeps", || {
            server.sql(
                &database,
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()",
            ) == "1"
        });
        server
            .psql(&database, &format!("SET lock_timeout = '500ms'; ALTER TABLE logs DETACH PARTITION {oldest} CONCURRENTLY"))
            .unwrap_err();
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), "1");
        server.sql(&database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()");
        reader.wait().unwrap();
        let scenario = Scenario::logs(server, &database, "every = \"month\"");
        scenario.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["finish the detach of public.logs_p", "is pending"]);
        scenario.tend().succeeded().prints(&["finished the detach of 1 partition"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), "0");
        assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {oldest}")), "100");
    }
}

#[test]
fn foreign_keys_whose_rows_refer_to_a_partition_are_named_and_it_stays() {
    let server = server(16);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM ('2001-01-01') TO ('2001-02-01'); INSERT INTO logs VALUES (1, '2001-01-05');
         CREATE TABLE notes (log int, log_at timestamptz, CONSTRAINT \"of log\" FOREIGN KEY (log, log_at) REFERENCES logs); INSERT INTO notes VALUES (1, '2001-01-05')",
    );
    let scenario = Scenario::logs(server, &database, "every = \"month\"\nretain = \"30d\"");
    scenario
        .tend()
        .succeeded()
        .prints(&["created 4 partitions"])
        .says(&["rows of other tables refer to it", "public.notes (of log)"]);
    assert_eq!(partitions_of(server, &database, "logs").len(), 5);
    server.sql(&database, "DELETE FROM notes");
    scenario.tend().succeeded().prints(&["detached 1 partition"]);
}

#[test]
fn killed_at_any_moment_the_next_run_repairs() {
    for major in [15, 18] {
        let server = server(major);
        let database = old_logs(server, 12);
        let scenario = Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"\npremake = 3");
        let rows = || {
            let left = "SELECT objoid::regclass FROM pg_description WHERE classoid = 'pg_class'::regclass AND description LIKE '%pgtend-partition: {%'
                AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = objoid AND NOT inhdetachpending)";
            let tables = server.sql(&database, left);
            let count = |table: &str| server.sql(&database, &format!("SELECT count(*) FROM {table}")).parse::<u32>().unwrap();
            count("logs") + tables.lines().map(count).sum::<u32>()
        };
        for moment in 0..12_u64 {
            let running = scenario.start(&["run-job", "tend"]);
            std::thread::sleep(Duration::from_millis(40 + moment * 17));
            running.kill();
            eventually("the server let go of it", || {
                server.sql(
                    &database,
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = current_database()",
                ) == "0"
            });
            assert_eq!(rows(), 1300, "after {moment}");
        }
        scenario.tend().succeeded();
        assert_eq!(rows(), 1300);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"), "0");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_description WHERE description LIKE 'Being retired%'"), "0");
        Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"\ngrace = \"0s\"").tend().succeeded();
        assert_eq!(
            server.sql(
                &database,
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'logs\\_p%' AND relkind = 'r' AND NOT relispartition"
            ),
            "0"
        );
    }
}

#[test]
fn rows_are_in_the_archive_before_their_partition_goes_whenever_it_is_killed() {
    for major in [16, 18] {
        let server = server(major);
        let database = old_logs(server, 12);
        let more = "every = \"month\"\nretain = \"92d\"\narchive = \"local\"\ngrace = \"0s\"";
        let scenario = Scenario::logs(server, &database, more);
        for moment in 0..14_u64 {
            let running = scenario.start(&["run-job", "tend"]);
            std::thread::sleep(Duration::from_millis(60 + moment * 23));
            running.kill();
            eventually("the server let go of it", || {
                server.sql(
                    &database,
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = current_database()",
                ) == "0"
            });
        }
        scenario.tend().succeeded();
        let left: usize = server.sql(&database, "SELECT count(*) FROM logs").parse().unwrap();
        assert_eq!(left + archived_rows(&scenario), 1300, "on {major}");
        assert_eq!(
            server.sql(
                &database,
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'logs\\_p%' AND relkind = 'r' AND NOT relispartition"
            ),
            "0"
        );
        assert!(!scenario.files("store").iter().any(|file| file.ends_with(".pending.json") || file.ends_with(".partial")));
    }
}

#[test]
fn a_partition_that_was_written_to_after_its_archive_is_archived_again_and_not_dropped() {
    let server = server(18);
    let database = old_logs(server, 5);
    let scenario = Scenario::logs(server, &database, &(first_is_over() + "\narchive = \"local\""));
    scenario.tend().succeeded().prints(&["archived"]);
    let table =
        server.sql(&database, "SELECT objoid::regclass FROM pg_description WHERE description LIKE 'Retired from%' LIMIT 1");
    let insert = format!("INSERT INTO {table} (id, at) SELECT 0, min(at) FROM {table}");
    assert!(server.psql(&database, &insert).unwrap_err().contains("takes no changes"));
    server.sql(&database, &format!("ALTER TABLE {table} DISABLE TRIGGER pgtend_retired; {insert}"));
    let scenario = scenario.partitions("public.logs", "at", &(first_is_over() + "\narchive = \"local\"\ngrace = \"0s\""));
    scenario.tend().succeeded().says(&["was written to after it was archived"]);
    assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "101");
}

#[test]
fn a_partition_whose_archive_is_not_there_any_more_is_archived_again_before_it_goes() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = old_logs(server, 5);
        let more = "every = \"month\"\nretain = \"92d\"\narchive = \"local\"";
        let scenario = Scenario::logs(server, &database, more);
        scenario.tend().succeeded().prints(&["archived"]);
        // As somebody does it who ends a batch by hand, or empties the store.
        let manifests = || scenario.files("store").into_iter().filter(|file| file.ends_with(".json")).collect::<Vec<_>>();
        std::fs::remove_file(scenario.path(&format!("store/{}", manifests()[0]))).unwrap();
        let before = manifests().len();
        let scenario = scenario.partitions("public.logs", "at", &format!("{more}\ngrace = \"0s\""));
        scenario.tend().succeeded().prints(&["archived 1 partition", "dropped"]);
        assert_eq!(scenario.files("store").into_iter().filter(|file| file.ends_with(".json")).count(), before + 1);
        let left: usize = server.sql(&database, "SELECT count(*) FROM logs").parse().unwrap();
        assert_eq!(left + archived_rows(&scenario), 600, "on {major}");
    }
}

#[test]
fn a_store_that_fails_keeps_every_row() {
    let server = server(15);
    let database = old_logs(server, 5);
    let scenario = Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"\narchive = \"local\"\ngrace = \"0s\"");
    // A file where the folder is to be.
    std::fs::create_dir_all(scenario.path("store/app/tend")).unwrap();
    std::fs::write(scenario.path("store/app/tend/archive"), "").unwrap();
    scenario.tend().exited(1).says(&["archive", "created 3 partitions"]);
    let rows = "SELECT sum(n) FROM (SELECT count(*) n FROM logs) x";
    assert!(
        server
            .sql(&database, "SELECT count(*) FROM pg_class WHERE relname LIKE 'logs\\_p%' AND relkind = 'r'")
            .parse::<u32>()
            .unwrap()
            >= 6
    );
    std::fs::remove_file(scenario.path("store/app/tend/archive")).unwrap();
    scenario.tend().succeeded();
    let left: usize = server.sql(&database, rows).parse().unwrap();
    assert_eq!(left + archived_rows(&scenario), 600);
}

/// Its time is a chance: between 1970 and the year 10889.
#[test]
fn a_random_uuid_makes_no_partition_and_goes_with_none() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        let of_time = "lpad(to_hex((extract(epoch FROM now() - interval '100 days') * 1000)::bigint), 12, '0')";
        server.sql(
            &database,
            &format!(
                "CREATE TABLE ids (id uuid PRIMARY KEY, words text) PARTITION BY RANGE (id);
                 CREATE TABLE ids_default PARTITION OF ids DEFAULT;
                 INSERT INTO ids SELECT gen_random_uuid(), 'random' FROM generate_series(1, 200);
                 INSERT INTO ids SELECT ({of_time} || '4000800000000000' || lpad(i::text, 4, '0'))::uuid, 'random' FROM generate_series(1, 7) i"
            ),
        );
        let tending = |more: &str| {
            let keys = format!("every = \"month\"\ndefault = true\n{more}");
            Scenario::with_database(server, &database).partitions("public.ids", "id", &keys)
        };
        tending("").tend().succeeded();
        let partitions = partitions_of(server, &database, "ids");
        assert!(partitions.len() < 10, "{major}: {partitions:?}");
        // A row of version 7 of the same month makes a partition, which then has both.
        server.sql(&database, &format!("INSERT INTO ids VALUES (({of_time} || '70008000000000000000')::uuid, 'time')"));
        let kept = tending("retain = \"60d\"\ngrace = \"0s\"");
        kept.tend().succeeded().prints(&["moved 8 rows"]);
        kept.tend().succeeded().says(&["whose uuid is not of version 7"]);
        let left =
            "SELECT string_agg(words || ' ' || count, ',' ORDER BY words) FROM (SELECT words, count(*) FROM ids GROUP BY 1) w";
        assert_eq!(server.sql(&database, left), "random 207,time 1", "{major}");
        server.sql(&database, "DELETE FROM ids WHERE words = 'random'");
        kept.tend().succeeded().prints(&["dropped 1 partition"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ids"), "0", "{major}");
    }
}
