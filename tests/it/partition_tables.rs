//! Partitioned tables as people have them: below lists and ranges, referred to, published, seen by views, with odd rows, and with
//! somebody else at work. On 15, 16 and 18.

use crate::partition::{first_is_over, old_logs, partitions_of};
use crate::support::postgres::{MAJORS, SOME_MAJORS, Server, WITH_PGVECTOR, server};
use crate::support::{Scenario, eventually};

#[test]
fn a_job_tends_each_table_below_a_list_and_a_new_tenant_too() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (tenant text, at timestamptz, n int) PARTITION BY LIST (tenant);
             CREATE TABLE logs_a PARTITION OF logs FOR VALUES IN ('a') PARTITION BY RANGE (at);
             CREATE TABLE \"logs B\" PARTITION OF logs FOR VALUES IN ('b') PARTITION BY RANGE (at);
             CREATE TABLE logs_rest PARTITION OF logs DEFAULT;
             CREATE TABLE logs_a_old PARTITION OF logs_a FOR VALUES FROM ('2001-01-01') TO ('2001-02-01'); INSERT INTO logs VALUES ('a', '2001-01-05', 1)",
        );
        let more = "every = \"month\"\nretain = \"90d\"\ngrace = \"0s\"\narchive = \"local\"\npremake = 2";
        let scenario = Scenario::logs(server, &database, more);
        scenario
            .run(&["run-job", "tend", "--dry-run"])
            .succeeded()
            .prints(&["public.logs_a, partitioned", "public.\"logs B\", partitioned"]);
        let run = scenario.json(&["run-job", "tend"]);
        let facts = &run["runs"][0]["report"]["facts"];
        assert_eq!(facts["created"].as_array().unwrap().len(), 6, "{run:#}");
        assert_eq!(facts["tables"], 2);
        assert_eq!(facts["dropped"][0], "public.logs_a_old");
        assert!(facts["covered_until"].is_string(), "{run:#}");
        server.sql(
            &database,
            "INSERT INTO logs SELECT t, now() + g * interval '1 month', g FROM generate_series(0, 1) g, unnest(ARRAY['a', 'b']) t;
             CREATE TABLE logs_c PARTITION OF logs FOR VALUES IN ('c') PARTITION BY RANGE (at)",
        );
        scenario.tend().succeeded().prints(&["public.logs_c: created 3 partitions"]);
        // The rows that went are in the archive under the name of their tenant's table.
        server.sql(&database, "CREATE TABLE back (LIKE logs)");
        scenario.run(&["archives", "restore", "--into", "public.back"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT tenant, n FROM back"), "a|1");
    }
}

#[test]
fn a_job_tends_each_table_below_ranges_of_another_column() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (shop int, at timestamptz) PARTITION BY RANGE (shop);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (at);
         CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (at)",
    );
    let scenario = Scenario::logs(server, &database, "every = \"month\"");
    scenario.tend().succeeded().prints(&["public.logs_1: created 4", "public.logs_2: created 4"]);
    scenario.run(&["check", "--connect"]).succeeded();
    server.sql(&database, "INSERT INTO logs SELECT g, now() FROM generate_series(0, 199) g");
    // One that runs out is a failure of the whole, and the others are made all the same.
    server.sql(
        &database,
        "DROP TABLE logs_1; CREATE TABLE logs_0 PARTITION OF logs FOR VALUES FROM (0) TO (50) PARTITION BY RANGE (shop)",
    );
    scenario.tend().succeeded();
    assert!(partitions_of(server, &database, "logs_0").is_empty(), "not by the job's column");
}

#[test]
fn odd_rows_stay_in_the_default_partition_and_all_others_move() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE ev (at timestamptz, x int) PARTITION BY RANGE (at); CREATE TABLE ev_default PARTITION OF ev DEFAULT;
             INSERT INTO ev VALUES ('-infinity', 1), ('0044-03-15 BC', 2), ('infinity', 3), (NULL, 4), ('0001-01-01 00:00+00', 5), ('1970-01-01 00:00:01+00', 6);
             INSERT INTO ev SELECT now() - g * interval '1 hour', 7 FROM generate_series(1, 2000) g",
        );
        let scenario = Scenario::with_database(server, &database).partitions(
            "public.ev",
            "at",
            "every = \"day\"\npremake = 3\ndefault = true\nretain = \"200d\"",
        );
        scenario.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&[
            "5 rows of public.ev_default stay there",
            "-infinity",
            "1 row of them without a key",
        ]);
        scenario.tend().succeeded().prints(&["moved 2,000 rows"]);
        assert_eq!(
            server.sql(&database, "SELECT string_agg(x::text, ' ' ORDER BY x) FROM ev_default"),
            "1 2 3 4 5 6",
            "on {major}"
        );
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ev"), "2006");
        let until = server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'ev'::regclass");
        assert!(until.parse::<u32>().unwrap() > 80, "{until}");
        scenario.tend().succeeded().prints(&["nothing to do"]);
    }
}

#[test]
fn odd_rows_of_every_type_of_key_stay() {
    let server = server(18);
    for (kind, more, odd) in [
        ("timestamp", "every = \"month\"", "('-infinity'), ('0001-01-01'), ('1970-01-01')"),
        ("date", "every = \"month\"", "('-infinity'), ('0044-01-01 BC'), ('1970-01-01')"),
        ("bigint", "every = \"month\"\nepoch = \"milliseconds\"", "(0), (-62135596800000), (-9223372036854775808)"),
        ("int", "every = \"month\"\nepoch = \"seconds\"", "(0), (1), (-1)"),
        (
            "uuid",
            "every = \"month\"",
            "('00000000-0000-0000-0000-000000000000'), ('ffffffff-ffff-ffff-ffff-ffffffffffff'), ('00000000-0001-7000-8000-000000000000')",
        ),
        ("numeric", "every = 1000", "('-Infinity'), ('NaN'), (NULL)"),
    ] {
        let database = server.new_database();
        server.sql(
            &database,
            &format!("CREATE TABLE t (k {kind}) PARTITION BY RANGE (k); CREATE TABLE t_default PARTITION OF t DEFAULT; INSERT INTO t VALUES {odd}"),
        );
        let good = match kind {
            "bigint" => "1704067200000".to_owned(),
            "int" => "1704067200".to_owned(),
            "uuid" => "'018cc251-f400-7000-8000-000000000000'".to_owned(),
            "numeric" => "2500".to_owned(),
            _ => "'2024-01-01'".to_owned(),
        };
        server.sql(&database, &format!("INSERT INTO t VALUES ({good})"));
        let scenario = Scenario::with_database(server, &database).partitions("public.t", "k", more);
        scenario.tend().succeeded().prints(&["moved 1 row"]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM t_default"), "3", "{kind}");
    }
}

#[test]
fn a_partition_that_nobody_refers_to_any_more_retires_and_one_that_is_referred_to_stays() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (id bigint, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
             CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z');
             CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2001-02-01Z') TO ('2001-03-01Z');
             INSERT INTO logs VALUES (1, '2001-01-05Z'), (2, '2001-02-05Z'), (3, '2001-02-06Z');
             CREATE TABLE line (log bigint, log_at timestamptz, CONSTRAINT of_log FOREIGN KEY (log, log_at) REFERENCES logs);
             CREATE INDEX ON line (log, log_at); INSERT INTO line VALUES (2, '2001-02-05Z'), (2, '2001-02-05Z')",
        );
        let scenario =
            Scenario::logs(server, &database, "every = \"month\"\nretain = \"30d\"\ngrace = \"0s\"\narchive = \"local\"");
        let run = scenario.json(&["run-job", "tend"]);
        assert_eq!(run["runs"][0]["outcome"], "succeeded", "{run:#}");
        assert_eq!(run["runs"][0]["report"]["facts"]["dropped"].to_string(), "[\"public.logs_1\"]", "{run:#}");
        let warnings = run["runs"][0]["report"]["warnings"].to_string();
        assert!(
            warnings.contains("public.logs_2 is past its retention but is kept")
                && warnings.contains("2 rows of public.line (of_log)"),
            "{warnings}"
        );
        assert_eq!(server.sql(&database, "SELECT count(*) FROM line"), "2");
        server.sql(&database, "DELETE FROM line");
        scenario.tend().succeeded().prints(&["dropped 1 partition"]);
        let error = server.psql(&database, "INSERT INTO line VALUES (9, now())").unwrap_err();
        assert!(error.contains("violates foreign key"), "the key to the table is there: {error}");
    }
}

#[test]
fn two_jobs_on_one_table_exclude_each_other() {
    let server = server(18);
    let database = old_logs(server, 5);
    let scenario = Scenario::logs(server, &database, "every = \"month\"\nretain = \"92d\"\nlock_timeout = \"500ms\"")
        .job("other", "database = \"app\"\n[partition]\ntable = \"public.logs\"\ncolumn = \"at\"\nevery = \"month\"\n");
    // The first one waits for a reader.
    let reader = server.session(&database, "BEGIN; LOCK TABLE logs IN SHARE MODE");
    let running = scenario.start(&["run-job", "tend"]);
    let is_held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.relname = 'logs'
        WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('pgtend table ' || c.oid, 0)";
    eventually("it has the table", || server.sql(&database, is_held) == "1");
    scenario.run(&["run-job", "other"]).exited(75).says(&["another job of pgtend works on public.logs", "server process"]);
    drop(reader);
    running.wait().succeeded();
    scenario.run(&["run-job", "other"]).succeeded();
}

#[test]
fn a_view_is_named_when_its_partition_is_detached() {
    let server = server(18);
    let database = old_logs(server, 5);
    let oldest = partitions_of(server, &database, "logs")[0].clone();
    server.sql(
        &database,
        &format!(
            "CREATE VIEW v AS SELECT * FROM {oldest}; CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM {oldest};
             CREATE FUNCTION f({oldest}) RETURNS int LANGUAGE sql AS 'SELECT 1'"
        ),
    );
    let named = [
        "materialized view public.m",
        "view public.v",
        "function public.f",
        "cannot be dropped while other objects depend on it",
    ];
    let scenario = Scenario::logs(server, &database, &first_is_over());
    scenario.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&named);
    let warnings = scenario.json(&["run-job", "tend"])["runs"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("cannot be dropped while other objects depend on it"), "{warnings}");
    let over = scenario.partitions("public.logs", "at", &(first_is_over() + "\ngrace = \"0s\""));
    over.tend().exited(1).says(&["would be dropped, but other objects depend on it"]);
    server.sql(&database, "DROP VIEW v; DROP MATERIALIZED VIEW m; DROP FUNCTION f");
    over.tend().succeeded().prints(&["dropped 1 partition"]);
}

#[test]
fn a_new_partition_is_like_the_newest_one_where_that_is_asked_for() {
    for major in SOME_MAJORS {
        let server = server(major);
        for like in ["parent", "newest"] {
            let database = server.new_database();
            // As pg_partman's templates make them.
            server.sql(
                &database,
                "CREATE TABLE logs (id bigint, at timestamptz NOT NULL, mail text) PARTITION BY RANGE (at);
                 CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z');
                 ALTER TABLE logs_1 ADD PRIMARY KEY (id); CREATE UNIQUE INDEX \"odd \"\"name\" ON logs_1 (lower(mail)) WHERE mail <> '';
                 ALTER TABLE logs_1 ADD CONSTRAINT positive CHECK (id > 0)",
            );
            let scenario = Scenario::logs(server, &database, &format!("every = \"month\"\npremake = 1\nlike = \"{like}\""));
            let run = scenario.json(&["run-job", "tend"]);
            let warnings = run["runs"][0]["report"]["warnings"].to_string();
            let alike = "SELECT count(*) FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid WHERE h.inhparent = 'logs'::regclass AND relname <> 'logs_1'
                AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p')
                AND EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND conname = 'positive')
                AND EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisunique AND indpred IS NOT NULL)";
            match like {
                "newest" => assert_eq!(server.sql(&database, alike), "2", "on {major}: {run:#}"),
                _ => {
                    assert_eq!(server.sql(&database, alike), "0");
                    assert!(
                        warnings.contains("PRIMARY KEY (id)") && warnings.contains("UNIQUE INDEX USING btree (lower(mail))"),
                        "{warnings}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_new_partition_has_the_statistics_targets_that_the_job_asks_for() {
    for major in MAJORS {
        let server = server(major);
        for like in ["parent", "newest"] {
            let database = server.new_database();
            server.sql(
                &database,
                "CREATE TABLE logs (id bigint, at timestamptz NOT NULL, n int, mail text) PARTITION BY RANGE (at);
                 CREATE TABLE logs_1 (mail text, n int, at timestamptz NOT NULL, id bigint); ALTER TABLE logs ATTACH PARTITION logs_1 FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z');
                 ALTER TABLE logs ALTER n SET STATISTICS 555; ALTER TABLE logs_1 ALTER mail SET STATISTICS 777, ALTER id SET (n_distinct = -0.5)",
            );
            let scenario = Scenario::logs(server, &database, &format!("every = \"month\"\npremake = 1\nlike = \"{like}\""));
            let warnings = scenario.json(&["run-job", "tend"])["runs"][0]["report"]["warnings"].to_string();
            let told = server.sql(
                &database,
                "SELECT DISTINCT (SELECT string_agg(format('%s %s %s', attname, coalesce(nullif(attstattarget::int, -1)::text, '-'), coalesce(attoptions::text, '-')), ', ' ORDER BY attname)
                    FROM pg_attribute WHERE attrelid = inhrelid AND attnum > 0) FROM pg_inherits WHERE inhparent = 'logs'::regclass AND inhrelid <> 'logs_1'::regclass",
            );
            let (expected, is_said) = match like {
                "newest" => ("at - -, id - {n_distinct=-0.5}, mail 777 -, n 555 -", false),
                _ => ("at - -, id - -, mail - -, n 555 -", true),
            };
            assert_eq!(told, expected, "like {like} on {major}");
            assert_eq!(warnings.contains("SET STATISTICS 777") && warnings.contains("n_distinct"), is_said, "{warnings}");
        }
    }
}

#[test]
fn a_right_that_is_revoked_while_a_partition_waits_for_its_lock_does_not_come_back() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = old_logs(server, 2);
        let reader = format!("{database}_reader");
        server.sql(
            &database,
            &format!("CREATE ROLE {reader}; GRANT SELECT ON logs TO {reader}; GRANT UPDATE (body) ON logs TO {reader}"),
        );
        for default in [false, true] {
            if default {
                server.sql(&database, &format!("CREATE TABLE rest PARTITION OF logs DEFAULT; GRANT SELECT ON logs TO {reader}; GRANT UPDATE (body) ON logs TO {reader}"));
            }
            let before = partitions_of(server, &database, "logs");
            let premake = if default { 4 } else { 2 };
            let more = format!("every = \"month\"\npremake = {premake}\nlock_timeout = \"500ms\"\ngive_up_after = \"60s\"");
            let scenario = Scenario::logs(server, &database, &more);
            let holder = server.session(&database, "BEGIN; LOCK TABLE logs IN SHARE MODE");
            let running = scenario.start(&["run-job", "tend"]);
            eventually("it waits for the table", || {
                let waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()";
                server.sql(&database, waits) != "0"
            });
            server.sql(&database, &format!("REVOKE ALL ON logs FROM {reader}"));
            drop(holder);
            running.wait().succeeded();
            nothing_was_granted_on_new_partitions(server, &database, &before, 2, &reader);
        }
        server.sql(&database, &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    }
}

/// `logs` has so many partitions more than `before`, and the role may neither read nor change them.
#[track_caller]
fn nothing_was_granted_on_new_partitions(server: &Server, database: &str, before: &[String], count: usize, reader: &str) {
    let new: Vec<String> = partitions_of(server, database, "logs").into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new.len(), count, "{new:?}");
    for partition in new {
        let may = format!(
            "SELECT has_table_privilege('{reader}', '{partition}', 'SELECT'), has_column_privilege('{reader}', '{partition}', 'body', 'UPDATE')"
        );
        assert_eq!(server.sql(database, &may), "f|f", "{partition} on {}", server.major);
    }
}

#[test]
fn publications_and_their_slots_are_named_when_a_published_table_gets_a_partition() {
    let server = Server::start_with(18, &["wal_level=logical"]);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z');
         CREATE PUBLICATION by_partitions FOR TABLE logs; CREATE PUBLICATION by_root FOR TABLE logs WITH (publish_via_partition_root = true);
         SELECT pg_create_logical_replication_slot('warehouse', 'pgoutput')",
    );
    let scenario = Scenario::logs(&server, &database, "every = \"month\"");
    let warnings = scenario.json(&["run-job", "tend"])["runs"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("publication by_partitions publishes") && warnings.contains("warehouse (inactive)"), "{warnings}");
    assert!(!warnings.contains("publication by_root"), "{warnings}");
}

/// What holds locks without a process.
#[test]
fn a_prepared_transaction_is_named_wherever_it_stands_in_the_way() {
    let server = Server::start_with(WITH_PGVECTOR[1], &["max_prepared_transactions=10"]);
    let database = old_logs(&server, 5);
    server.sql(&database, "CREATE TABLE plain (id int PRIMARY KEY, at timestamptz NOT NULL); INSERT INTO plain SELECT g, now() - interval '90 days' FROM generate_series(1, 100) g");
    server.sql(
        &database,
        "BEGIN; INSERT INTO logs (at) VALUES (now()); LOCK TABLE plain IN ROW EXCLUSIVE MODE; INSERT INTO plain VALUES (0, now());
         SELECT count(*) FROM logs; PREPARE TRANSACTION 'xa''1'",
    );
    let named = "prepared transaction 'xa''1' (postgres, since";
    let end = "COMMIT PREPARED or ROLLBACK PREPARED";
    let more = "every = \"month\"\nretain = \"92d\"\ndefault = true\nlock_timeout = \"200ms\"\ngive_up_after = \"1s\"";
    let scenario = Scenario::logs(&server, &database, more).job("convert", "database = \"app\"\n[partition]\ntable = \"public.plain\"\ncolumn = \"at\"\nevery = \"month\"\nlock_timeout = \"200ms\"\ngive_up_after = \"1s\"\n");
    scenario.tend().exited(75).says(&[named, end]);
    scenario.run(&["partition", "convert", "convert"]).exited(75).says(&[named, end]);

    server.sql(
        &database,
        "CREATE TABLE old (at timestamptz); INSERT INTO old SELECT now() - interval '90 days';
         BEGIN; LOCK TABLE old IN SHARE MODE; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'share'",
    );
    let retention = Scenario::with_database(&server, &database).job(
        "old",
        "database = \"app\"\n[retention]\ntable = \"public.old\"\ncolumn = \"at\"\nolder_than = \"30d\"\n[limits]\nlock_timeout = \"20ms\"\n",
    );
    retention.run(&["run-job", "old", "--yes"]).exited(75).says(&["prepared transaction 'share'", end]);

    // The build of an index waits for its end, which may never come.
    server.sql(
        &database,
        "CREATE EXTENSION vector; CREATE TABLE items (id int, embedding vector(3)); INSERT INTO items SELECT g, ARRAY[g, 1, 1]::real[]::vector FROM generate_series(1, 500) g;
         CREATE INDEX items_idx ON items USING hnsw (embedding vector_l2_ops); CREATE INDEX items_id ON items (id);
         BEGIN; INSERT INTO items VALUES (0, '[1,2,3]'); PREPARE TRANSACTION 'xa2'",
    );
    let reindex = Scenario::with_database(&server, &database).job(
        "again",
        "database = \"app\"\n[reindex]\ntable = \"public.items\"\n[limits]\nmax_wait = \"2s\"\nlock_timeout = \"1s\"\n",
    );
    server.sql(&database, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'items_id'::regclass");
    let ended = reindex.run(&["run-job", "again"]).exited(75);
    assert!(ended.stderr.contains("prepared transaction 'xa2'") && ended.stderr.contains(end), "{ended:?}");
    server.sql(&database, "ROLLBACK PREPARED 'xa2'");
    server.sql(&database, "ROLLBACK PREPARED 'xa''1'");
    server.sql(&database, "ROLLBACK PREPARED 'share'");
    reindex.run(&["run-job", "again"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0", "what was begun is gone");
    scenario.tend().succeeded();
}

#[test]
fn a_large_default_partition_is_not_read_while_everybody_waits() {
    let server = Server::start_with(18, &["log_min_messages=debug1"]);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (at timestamptz, n int) PARTITION BY RANGE (at); CREATE TABLE logs_default PARTITION OF logs DEFAULT;
         INSERT INTO logs SELECT NULL, g FROM generate_series(1, 1000000) g",
    );
    let scenario = Scenario::logs(&server, &database, "every = \"month\"\npremake = 1");
    let run = scenario.json(&["run-job", "tend"]);
    let facts = &run["runs"][0]["report"]["facts"];
    assert_eq!(
        (facts["default_rows_is_capped"].as_bool(), facts["created"].as_array().unwrap().len()),
        (Some(true), 2),
        "{run:#}"
    );
    let log = server.logged();
    assert!(
        log.contains("updated partition constraint for default partition \"logs_default\" is implied by existing constraints")
    );
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_constraint WHERE conname LIKE 'pgtend%'"), "0");
}

#[test]
fn stray_rows_wait_for_a_quiet_server_and_new_partitions_do_not() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE logs (at timestamptz NOT NULL, n int) PARTITION BY RANGE (at); CREATE TABLE logs_default PARTITION OF logs DEFAULT;
         INSERT INTO logs SELECT date_trunc('month', now()) - interval '70 days', n FROM generate_series(1, 100) n",
    );
    let keys = "every = \"month\"\npremake = 2\n[limits]\nmax_snapshot_age = \"1ms\"\nmax_wait = \"1s\"";
    let scenario = Scenario::logs(server, &database, keys);
    let reader = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    scenario.tend().exited(75).says(&["waited 1.0 s for a transaction has been open", "left for the next run"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs_default"), "100");
    assert_eq!(partitions_of(server, &database, "logs").len(), 4, "now, two ahead, and the default partition");
    drop(reader);
    // Others work on this server, too: their transactions are open for moments.
    let scenario = Scenario::logs(server, &database, "every = \"month\"\npremake = 2");
    scenario.tend().succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs_default"), "0");
}

/// DETACH … CONCURRENTLY leaves the bounds of a partition as a CHECK on it, and people add one before they attach a table.
#[test]
fn a_check_of_the_newest_partition_on_its_own_bounds_is_not_copied() {
    for major in SOME_MAJORS {
        let server = server(major);
        for below in ["", "_a"] {
            let database = server.new_database();
            let columns = "id bigint, at timestamptz NOT NULL, tenant text, ended timestamptz";
            server.sql(
                &database,
                &match below {
                    "" => format!("CREATE TABLE logs ({columns}) PARTITION BY RANGE (at)"),
                    _ => format!(
                        "CREATE TABLE logs ({columns}) PARTITION BY LIST (tenant); CREATE TABLE logs_a PARTITION OF logs FOR VALUES IN ('a') PARTITION BY RANGE (at)"
                    ),
                },
            );
            // Its columns have other numbers than those of the table.
            server.sql(
                &database,
                &format!(
                    "CREATE TABLE newest (gone int, ended timestamptz, tenant text, at timestamptz NOT NULL, id bigint, CONSTRAINT positive CHECK (id > 0)); ALTER TABLE newest DROP COLUMN gone;
                     ALTER TABLE logs{below} ATTACH PARTITION newest FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z')"
                ),
            );
            server.sql(&database, &format!("ALTER TABLE logs{below} DETACH PARTITION newest CONCURRENTLY"));
            server.sql(
                &database,
                &format!(
                    "ALTER TABLE logs{below} ATTACH PARTITION newest FOR VALUES FROM ('2001-01-01Z') TO ('2001-02-01Z');
                     ALTER TABLE newest ADD CONSTRAINT by_hand CHECK (at >= '2001-01-01Z' AND at < '2001-02-01Z' AND id > 0)"
                ),
            );
            let bounds = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'newest'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%2001%'";
            assert_eq!(server.sql(&database, bounds), "2", "on {major}");
            let scenario = Scenario::logs(server, &database, "every = \"month\"\npremake = 1\nlike = \"newest\"");
            let warnings = scenario.json(&["run-job", "tend"])["runs"][0]["report"]["warnings"].to_string();
            server.sql(&database, "INSERT INTO logs (id, at, tenant) VALUES (1, now(), 'a')");
            let error = server.psql(&database, "INSERT INTO logs (id, at, tenant) VALUES (0, now(), 'a')").unwrap_err();
            assert!(error.contains("positive"), "other CHECKs are copied: {error}");
            assert!(warnings.contains("by_hand") && warnings.contains("names the partition key"), "{warnings}");
            assert!(!warnings.contains("IS NOT NULL"), "the server's own is not worth a word: {warnings}");
        }
    }
}

/// The second lock of a new partition is that on a table to which its foreign key refers.
#[test]
fn a_right_that_is_revoked_while_a_partition_waits_for_its_second_lock_does_not_come_back() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = old_logs(server, 2);
        let reader = format!("{database}_reader");
        server.sql(
            &database,
            &format!(
                "CREATE TABLE users (id int PRIMARY KEY); ALTER TABLE logs ADD COLUMN user_id int REFERENCES users;
                 CREATE ROLE {reader}; GRANT SELECT ON logs TO {reader}; GRANT UPDATE (body) ON logs TO {reader}"
            ),
        );
        let before = partitions_of(server, &database, "logs");
        let more = "every = \"month\"\npremake = 1\nlock_timeout = \"30s\"\ngive_up_after = \"90s\"";
        let scenario = Scenario::logs(server, &database, more);
        // Half of that is how long a second lock is waited for: one attempt reads the rights before, and goes on after.
        server.sql(&database, &format!("ALTER DATABASE {database} SET deadlock_timeout = '60s'"));
        let revoke = format!("REVOKE ALL ON logs FROM {reader}; REVOKE UPDATE (body) ON logs FROM {reader}");
        let holder = server.session(&database, &format!("BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE; {revoke}"));
        let running = scenario.start(&["run-job", "tend"]);
        eventually("it waits for the second table", || {
            server.sql(&database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass") != "0"
        });
        holder.ends_with("COMMIT");
        running.wait().succeeded();
        nothing_was_granted_on_new_partitions(server, &database, &before, 1, &reader);
        server.sql(&database, &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    }
}

#[test]
fn a_partition_that_is_partitioned_itself_and_has_none_covers_nothing() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "SET TimeZone = 'UTC'; CREATE TABLE logs (at timestamptz NOT NULL, shop int) PARTITION BY RANGE (at);
             DO $$ DECLARE month timestamptz; BEGIN
               FOR month IN SELECT date_trunc('month', now()) + n * interval '1 month' FROM generate_series(0, 3) n LOOP
                 EXECUTE format('CREATE TABLE %I PARTITION OF logs FOR VALUES FROM (%L) TO (%L) %s', 'logs_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month',
                   CASE WHEN month = date_trunc('month', now()) + interval '1 month' THEN 'PARTITION BY LIST (shop)' END);
               END LOOP;
             END $$",
        );
        let next = server.sql(&database, "SELECT oid::regclass FROM pg_class WHERE relkind = 'p' AND relispartition");
        let scenario = Scenario::logs(server, &database, "every = \"month\"");
        scenario
            .tend()
            .exited(1)
            .says(&["less than one period", &format!("public.{next} is partitioned itself and has no partition")]);
        server.sql(&database, &format!("CREATE TABLE below PARTITION OF {next} DEFAULT"));
        scenario.tend().succeeded().prints(&["nothing to do"]);
    }
}
