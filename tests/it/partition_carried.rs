//! What `partition convert` and `--undo` carry along, and what they name because it cannot follow: 15, 16 and 18.

use crate::partition_convert::unpartitioned;
use crate::support::postgres::{SOME_MAJORS, Server, server};
use crate::support::{Scenario, eventually};

fn monthly(server: &Server, database: &str) -> Scenario {
    Scenario::with_database(server, database).partitions("public.events", "at", "every = \"month\"")
}

#[test]
fn what_was_made_on_the_table_since_its_conversion_is_kept_when_that_is_taken_back() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        // Roles are of the whole server, which other tests use as well.
        let (app, reader) = (format!("{database}_app"), format!("{database}_reader"));
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {app}; CREATE ROLE {reader}; GRANT SELECT, DELETE ON events TO {app}; GRANT UPDATE (n) ON events TO {app};
                 CREATE POLICY \"reads itself\" ON events FOR DELETE USING (user_id = (SELECT min(e.n) FROM events e));
                 CREATE STATISTICS known (dependencies) ON n, user_id FROM events; COMMENT ON COLUMN events.n IS 'a number'; COMMENT ON COLUMN events.legacy IS 'of old'"
            ),
        );
        let scenario = monthly(server, &database);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        scenario.tend().succeeded();
        let reads_itself = "SELECT count(*) FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid WHERE d.classid = 'pg_policy'::regclass AND d.deptype = 'n'
            AND d.refobjid = 'events'::regclass AND d.refobjsubid = (SELECT attnum FROM pg_attribute WHERE attrelid = d.refobjid AND attname = 'n')
            AND p.polrelid = d.refobjid AND polname = 'reads itself'";
        assert_ne!(server.sql(&database, reads_itself), "0", "the policy reads the whole table");
        server.sql(
            &database,
            &format!(
                "DROP POLICY mine ON events; CREATE POLICY theirs ON events FOR SELECT TO {reader} USING (user_id = 2); ALTER TABLE events FORCE ROW LEVEL SECURITY;
                 REVOKE DELETE, UPDATE (n) ON events FROM {app}; GRANT INSERT ON events TO {app}; GRANT SELECT (id, at) ON events TO {reader} WITH GRANT OPTION;
                 COMMENT ON TABLE events IS 'of all shops'; COMMENT ON COLUMN events.body IS 'a text'; COMMENT ON COLUMN events.n IS NULL;
                 COMMENT ON INDEX events_at IS 'by time'; COMMENT ON CONSTRAINT events_n_check ON events IS 'no debts'; COMMENT ON CONSTRAINT events_pkey ON events IS 'both';
                 CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
                 CREATE TRIGGER late BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION late(); COMMENT ON TRIGGER late ON events IS 'too late';
                 CREATE TRIGGER whole AFTER DELETE ON events FOR EACH STATEMENT EXECUTE FUNCTION late();
                 CREATE STATISTICS made_since (ndistinct) ON n, legacy FROM events; COMMENT ON STATISTICS made_since IS 'guessed';
                 ALTER TABLE events REPLICA IDENTITY FULL; ALTER TABLE ONLY events ALTER body SET DEFAULT 'empty'; ALTER TABLE events ALTER n SET (n_distinct = 10);
                 CREATE VIEW since AS SELECT id, at FROM events; COMMENT ON SEQUENCE events_id_seq IS 'numbers'"
            ),
        );
        scenario.run(&["partition", "convert", "tend", "--undo"]).succeeded();
        for (what, sql, expected) in [
            ("a plain table", "SELECT relkind FROM pg_class WHERE oid = 'events'::regclass".to_owned(), "r"),
            (
                "row security",
                "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'events'::regclass".to_owned(),
                "t|t",
            ),
            (
                "policies",
                format!(
                    "SELECT polname, polcmd, polroles = ARRAY['{reader}'::regrole::oid], pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'events'::regclass AND polname <> 'reads itself'"
                ),
                "theirs|r|t|(user_id = 2)",
            ),
            (
                "privileges of the table",
                format!(
                    "SELECT string_agg(p, ' ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p WHERE has_table_privilege('{app}', 'events', p)"
                ),
                "SELECT INSERT",
            ),
            (
                "privileges of columns",
                format!(
                    "SELECT has_column_privilege('{app}', 'events', 'n', 'UPDATE'), has_column_privilege('{reader}', 'events', 'at', 'SELECT WITH GRANT OPTION'),
                            has_column_privilege('{reader}', 'events', 'n', 'SELECT')"
                ),
                "f|t|f",
            ),
            (
                "comments",
                "SELECT obj_description('events'::regclass, 'pg_class'), col_description('events'::regclass, 11), obj_description('events_at'::regclass, 'pg_class'),
                        obj_description('events_id_seq'::regclass, 'pg_class')"
                    .replace("11", "(SELECT attnum FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'body')"),
                "of all shops|a text|by time|numbers",
            ),
            (
                "comments that were taken away, and those that were not",
                "SELECT string_agg(a.attname || ': ' || coalesce(col_description(a.attrelid, a.attnum), '-'), ', ' ORDER BY attname) FROM pg_attribute a
                 WHERE attrelid = 'events'::regclass AND attname IN ('n', 'legacy')"
                    .to_owned(),
                "legacy: of old, n: -",
            ),
            (
                "comments of constraints",
                "SELECT string_agg(obj_description(oid, 'pg_constraint'), ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 'events'::regclass".to_owned(),
                "no debts both",
            ),
            (
                "triggers",
                "SELECT string_agg(tgname || coalesce(': ' || obj_description(oid, 'pg_trigger'), ''), ', ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 'events'::regclass AND NOT tgisinternal".to_owned(),
                "late: too late, seen, whole",
            ),
            (
                "extended statistics",
                "SELECT string_agg(stxname || coalesce(': ' || obj_description(oid, 'pg_statistic_ext'), ''), ', ' ORDER BY stxname) FROM pg_statistic_ext".to_owned(),
                "known, made_since: guessed",
            ),
            ("replica identity", "SELECT relreplident FROM pg_class WHERE oid = 'events'::regclass".to_owned(), "f"),
            (
                "a default",
                "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = adrelid AND a.attnum = adnum
                 WHERE adrelid = 'events'::regclass AND attname = 'body'"
                    .to_owned(),
                "'empty'::text",
            ),
            (
                "options of columns",
                "SELECT attoptions FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'n'".to_owned(),
                "{n_distinct=10}",
            ),
            ("a policy that reads its table", format!("SELECT ({reads_itself}) > 0"), "t"),
            ("a view made since", "SELECT count(*) FROM since".to_owned(), "20000"),
            ("no row is lost", "SELECT count(*) FROM events".to_owned(), "20000"),
        ] {
            assert_eq!(server.sql(&database, &sql), expected, "{what} on {major}");
        }
        server.sql(&database, &format!("DROP OWNED BY {app}, {reader}; DROP ROLE {app}, {reader}"));
    }
}

#[test]
fn what_cannot_go_back_is_named_and_the_conversion_stays() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let scenario = monthly(server, &database);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        server.sql(
            &database,
            "CREATE RULE quiet AS ON UPDATE TO events WHERE old.n = 3 DO INSTEAD NOTHING; CREATE RULE copies AS ON INSERT TO seen DO ALSO UPDATE events SET n = 0 WHERE id = new.id;
             CREATE PUBLICATION by_leaves FOR TABLE events; CREATE FUNCTION body_of(events) RETURNS text LANGUAGE sql AS 'SELECT $1.body';
             CREATE TABLE known (t regclass DEFAULT 'events'::regclass); ALTER TABLE events ALTER id SET NOT NULL, REPLICA IDENTITY USING INDEX events_pkey;
             CREATE MATERIALIZED VIEW daily AS SELECT count(*) FROM events",
        );
        scenario.run(&["partition", "convert", "tend", "--undo"]).exited(78).says(&[
            "rule quiet",
            "rule copies on table public.seen",
            "publication by_leaves",
            "function public.body_of",
            "public.known",
            "replica identity",
            "materialized view public.daily",
        ]);
        assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE oid = 'events'::regclass"), "p");
        server.sql(
            &database,
            "DROP RULE quiet ON events; DROP RULE copies ON seen; DROP PUBLICATION by_leaves; DROP FUNCTION body_of; DROP TABLE known;
             ALTER TABLE events REPLICA IDENTITY DEFAULT; DROP MATERIALIZED VIEW daily",
        );
        scenario.run(&["partition", "convert", "tend", "--undo"]).succeeded();
    }
}

#[test]
fn rules_and_views_that_would_follow_the_first_partition_are_named() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let owner = format!("{database}_owner");
        server.sql(
            &database,
            &format!(
                "CREATE RULE copies AS ON INSERT TO seen DO ALSO UPDATE events SET n = 0 WHERE id = new.id;
                 CREATE VIEW door AS SELECT 1 AS n; CREATE RULE \"way in\" AS ON INSERT TO door DO INSTEAD INSERT INTO events (user_id, n) VALUES (1, new.n);
                 CREATE TABLE known (t regclass DEFAULT 'events'::regclass); CREATE TABLE checked (t regclass CHECK (t <> 'events'::regclass));
                 CREATE VIEW of_rows AS SELECT e FROM events e; CREATE VIEW above AS SELECT count(*) AS rows FROM recent; CREATE VIEW joined AS SELECT e.id, u.id AS by FROM users u JOIN events e ON e.user_id = u.id;
                 CREATE ROLE {owner} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; GRANT ALL ON users TO {owner}"
            ),
        );
        let scenario = monthly(server, &database);
        scenario.run(&["partition", "convert", "tend"]).exited(78).says(&[
            "rule copies on table public.seen",
            "rule \"way in\" on view public.door",
            "public.known",
            "public.checked",
            "public.of_rows",
        ]);
        server.sql(&database, "DROP RULE copies ON seen; DROP VIEW door, of_rows; DROP TABLE known, checked");

        // Only its owner makes a view again.
        server.sql(&database, &format!("ALTER TABLE events OWNER TO {owner}"));
        let as_owner =
            Scenario::with_url(server, &server.url_as(&owner, &database)).partitions("public.events", "at", "every = \"month\"");
        as_owner.run(&["partition", "convert", "tend"]).exited(78).says(&["view public.recent", "its owner postgres"]);
        server.sql(&database, &format!("ALTER VIEW recent OWNER TO {owner}; ALTER VIEW joined OWNER TO {owner}"));
        as_owner.run(&["partition", "convert", "tend"]).succeeded();
        as_owner.tend().succeeded();
        server.sql(&database, "INSERT INTO events (user_id, n, body, at) VALUES (1, 1, 'later', now() + interval '65 days')");
        for view in ["recent", "joined", "above"] {
            let after = server.sql(&database, &format!("SELECT max(x::text) IS NOT NULL FROM {view} x"));
            assert_eq!(after, "t", "{view}");
        }
        let reads = "SELECT count(*) FROM recent WHERE body = 'later'";
        assert_eq!(server.sql(&database, reads), "1", "the view reads the second partition, too");
        server.sql(&database, &format!("REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"));
    }
}

#[test]
fn a_right_that_is_revoked_while_the_index_is_built_does_not_come_back() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let reader = format!("{database}_reader");
        server.sql(&database, &format!("CREATE ROLE {reader}; GRANT SELECT ON events TO {reader}"));
        // An index that is built CONCURRENTLY waits for it.
        let old_snapshot = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        let scenario = monthly(server, &database);
        let running = scenario.start(&["partition", "convert", "tend"]);
        eventually("the index is being built", || {
            server.sql("postgres", &format!("SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = '{database}'"))
                != "0"
        });
        server.sql(&database, &format!("REVOKE SELECT ON events FROM {reader}"));
        drop(old_snapshot);
        running.wait().exited(1).says(&[
            "public.events has changed since this run read it",
            "the swap was not done",
            "run the command again",
        ]);
        let state = format!(
            "SELECT relkind, has_table_privilege('{reader}', oid, 'SELECT') FROM pg_class WHERE oid = 'events'::regclass"
        );
        assert_eq!(server.sql(&database, &state), "r|f", "on {major}");
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        assert_eq!(server.sql(&database, &state), "p|f", "on {major}");
    }
}

#[test]
fn a_partition_that_is_made_while_an_undo_waits_is_not_dropped() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let scenario = Scenario::with_database(server, &database).partitions(
            "public.events",
            "at",
            "every = \"month\"\nlock_timeout = \"500ms\"\ngive_up_after = \"60s\"",
        );
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        let rows = server.sql(&database, "SELECT count(*) FROM events");
        let reader = server.session(&database, "BEGIN; SELECT count(*) FROM events");
        let running = scenario.start(&["partition", "convert", "tend", "--undo"]);
        eventually("the undo waits for the reader", || {
            let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()";
            server.sql(&database, waits) != "0"
        });
        server.sql(
            &database,
            "CREATE TABLE events_far (LIKE events INCLUDING GENERATED INCLUDING CONSTRAINTS);
             INSERT INTO events_far (id, at, user_id, legacy) SELECT -1, '2127-06-01', min(user_id), 0 FROM events;
             ALTER TABLE events ATTACH PARTITION events_far FOR VALUES FROM ('2127-01-01') TO ('2128-01-01')",
        );
        drop(reader);
        running.wait().exited(1).says(&["public.events has changed since this run read it"]);
        assert_eq!(server.sql(&database, "SELECT count(*) - 1 FROM events"), rows, "on {major}");
    }
}

#[test]
fn default_privileges_give_nobody_the_sequence_of_an_identity_column() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let reader = format!("{database}_reader");
        server.sql(
            &database,
            &format!("CREATE ROLE {reader}; ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {reader}, PUBLIC"),
        );
        let may = format!("SELECT has_sequence_privilege('{reader}', pg_get_serial_sequence('events', 'id'), 'USAGE')");
        let scenario = monthly(server, &database);
        for arguments in [&["partition", "convert", "tend"][..], &["partition", "convert", "tend", "--undo"]] {
            assert_eq!(server.sql(&database, &may), "f", "on {major}");
            scenario.run(arguments).succeeded();
        }
        assert_eq!(server.sql(&database, &may), "f", "on {major}");
    }
}

#[test]
fn tablespace_clustering_and_comments_on_policies_stay_with_a_conversion() {
    for major in SOME_MAJORS {
        // Of its own: tablespaces are of the whole server, and this one has no place in a dump of it.
        let server = Server::start(major);
        let database = server.new_database();
        server.sql(
            &database,
            "SET allow_in_place_tablespaces = on; CREATE TABLESPACE fast LOCATION ''; CREATE ROLE analyst;
             CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
             CREATE TABLE events (id bigint PRIMARY KEY WITH (fillfactor = 71) USING INDEX TABLESPACE fast, at timestamptz NOT NULL, n int) USING heap2 TABLESPACE fast;
             INSERT INTO events SELECT g, now(), g FROM generate_series(1, 100) g;
             CREATE INDEX by_n ON events (n) TABLESPACE fast; ALTER INDEX by_n DEPENDS ON EXTENSION plpgsql; ALTER TABLE events CLUSTER ON events_pkey;
             CREATE POLICY mine ON events USING (n > 0); COMMENT ON POLICY mine ON events IS 'it''s mine'; COMMENT ON TYPE events IS 'a row';
             CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nothing();
             COMMENT ON TRIGGER late ON events IS 'a trigger'; COMMENT ON CONSTRAINT late ON events IS 'a constraint'; ALTER TRIGGER late ON events DEPENDS ON EXTENSION plpgsql;
             CREATE STATISTICS known (dependencies) ON n, at FROM events; ALTER STATISTICS known OWNER TO analyst",
        );
        let scenario = monthly(&server, &database);
        let shown = scenario.run(&["partition", "convert", "tend", "--dry-run"]).succeeded();
        shown.prints(&["it is clustered on events_pkey: only its first partition keeps that", "TABLESPACE fast", "ANALYZE it"]);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        scenario.tend().succeeded();
        let newest = "(SELECT max(inhrelid::bigint)::oid FROM pg_inherits WHERE inhparent = 'events'::regclass)";
        let first = "(SELECT min(inhrelid::bigint)::oid FROM pg_inherits WHERE inhparent = 'events'::regclass)";
        let space = |of: &str| {
            format!("SELECT spcname FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = reltablespace WHERE c.oid = {of}")
        };
        let key = |of: &str| format!("(SELECT indexrelid FROM pg_index WHERE indrelid = {of} AND indisprimary)");
        let depends = "SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = refobjid AND refclassid = 'pg_extension'::regclass AND extname = 'plpgsql'
            WHERE deptype = 'x' AND (classid, objid) IN";
        for (what, sql, expected) in [
            ("the table's place", space("'events'::regclass"), "fast"),
            ("a new partition's place", space(newest), "fast"),
            ("the place of the key", space(&key("'events'::regclass")), "fast"),
            ("the place of the first partition's key", space(&key(first)), "fast"),
            ("the place of a new partition's key", space(&key(newest)), "fast"),
            ("options of the key", format!("SELECT reloptions FROM pg_class WHERE oid = {}", key(newest)), "{fillfactor=71}"),
            ("a new partition's access method", format!("SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = relam WHERE c.oid = {newest}"), "heap2"),
            ("the clustering of the first", format!("SELECT indisclustered FROM pg_index WHERE indexrelid = {}", key(first)), "t"),
            (
                "a policy's comment",
                "SELECT obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = 'events'::regclass".to_owned(),
                "it's mine",
            ),
            (
                "that of a new partition's policy",
                format!("SELECT obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = {newest}"),
                "it's mine",
            ),
            ("the type's comment", "SELECT obj_description(reltype, 'pg_type') FROM pg_class WHERE oid = 'events'::regclass".to_owned(), "a row"),
            (
                "comments of a constraint trigger",
                "SELECT obj_description(oid, 'pg_trigger'), obj_description(tgconstraint, 'pg_constraint') FROM pg_trigger WHERE tgrelid = 'events'::regclass AND NOT tgisinternal".to_owned(),
                "a trigger|a constraint",
            ),
            (
                "a trigger that depends on an extension",
                format!("{depends} (SELECT 'pg_trigger'::regclass::oid, oid FROM pg_trigger WHERE tgrelid = 'events'::regclass)"),
                "1",
            ),
            ("an index that does", format!("{depends} (SELECT 'pg_class'::regclass::oid, 'by_n'::regclass::oid)"), "1"),
            ("the owner of statistics", "SELECT stxowner::regrole FROM pg_statistic_ext WHERE stxname = 'known'".to_owned(), "analyst"),
        ] {
            assert_eq!(server.sql(&database, &sql), expected, "{what} on {major}");
        }
        scenario.run(&["partition", "convert", "tend", "--undo"]).succeeded();
        let comment = "SELECT obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = 'events'::regclass";
        assert_eq!(server.sql(&database, comment), "it's mine", "on {major}");
        let place =
            "SELECT spcname FROM pg_class c JOIN pg_tablespace s ON s.oid = reltablespace WHERE c.oid = 'events'::regclass";
        assert_eq!(server.sql(&database, place), "fast", "on {major}");
    }
}

#[test]
fn tables_that_cannot_become_a_partition_are_named_before_anything_is_built() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TYPE ty AS (id int, at timestamptz); CREATE TABLE typed OF ty; ALTER TABLE typed ALTER at SET NOT NULL;
         CREATE TABLE ours (id int, at timestamptz NOT NULL); ALTER EXTENSION plpgsql ADD TABLE ours;
         CREATE TABLE quiet (id int, at timestamptz CONSTRAINT never NOT NULL NO INHERIT, CONSTRAINT loose CHECK (id > 0) NOT ENFORCED);
         CREATE TABLE temporal (k int4range, valid tstzrange, at timestamptz NOT NULL, CONSTRAINT once PRIMARY KEY (k, valid WITHOUT OVERLAPS))",
    );
    for (table, said) in [
        ("typed", &["typed table (OF public.ty)", "NOT OF"][..]),
        ("ours", &["belongs to extension plpgsql"]),
        ("quiet", &["NOT NULL never is NO INHERIT", "CHECK loose is NOT ENFORCED"]),
        ("temporal", &["primary key once is WITHOUT OVERLAPS"]),
    ] {
        let name = format!("public.{table}");
        let scenario = Scenario::with_database(server, &database).partitions(&name, "at", "every = \"month\"");
        scenario.run(&["partition", "convert", "tend"]).exited(78).says(said);
    }
}

#[test]
fn statistics_that_a_superuser_makes_for_a_table_belong_to_its_owner() {
    let server = server(18);
    let database = unpartitioned(server);
    let app = format!("{database}_app");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {app}; GRANT CREATE ON SCHEMA public TO {app}; CREATE STATISTICS known (dependencies) ON n, user_id FROM events;
             ALTER TABLE events OWNER TO {app}; ALTER STATISTICS known OWNER TO {app}"
        ),
    );
    let scenario = monthly(server, &database);
    let others = format!("SELECT string_agg(stxname, ',') FROM pg_statistic_ext WHERE pg_get_userbyid(stxowner) <> '{app}'");
    for arguments in [&["partition", "convert", "tend"][..], &["run-job", "tend"], &["partition", "convert", "tend", "--undo"]] {
        scenario.run(arguments).succeeded();
        assert_eq!(server.sql(&database, &others), "", "{arguments:?}");
        let all = "SELECT string_agg(relname || ' ' || pg_get_userbyid(relowner), ',') FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname LIKE 'events%' AND relkind IN ('r', 'p', 'i', 'I', 'S')";
        let all = server.sql(&database, all);
        assert_eq!(all.split(',').filter(|one| !one.ends_with(&app)).count(), 0, "{arguments:?}: {all}");
    }
}

#[test]
fn an_index_of_the_partitioned_table_alone_is_named_before_an_undo_would_lose_it() {
    for major in SOME_MAJORS {
        let server = server(major);
        let database = unpartitioned(server);
        let scenario = monthly(server, &database);
        scenario.run(&["partition", "convert", "tend"]).succeeded();
        scenario.tend().succeeded();
        server.sql(&database, "CREATE INDEX \"not yet\" ON ONLY events (n)");
        scenario.run(&["partition", "convert", "tend", "--undo"]).exited(78).says(&["not yet", "ON ONLY"]);
        server.sql(
            &database,
            "CREATE INDEX events_n ON events_before_NEXT (n)".replace("events_before_NEXT", &first(server, &database)).as_str(),
        );
        server.sql(&database, "ALTER INDEX \"not yet\" ATTACH PARTITION events_n");
        scenario.run(&["partition", "convert", "tend", "--undo"]).succeeded();
        let there = "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'events'::regclass AND relname = 'not yet' AND indisvalid";
        assert_eq!(server.sql(&database, there), "1", "on {major}");
    }
}

fn first(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'events'::regclass AND relname LIKE '%before%'")
}

#[test]
fn comments_of_not_null_constraints_are_kept_both_ways() {
    let server = server(18);
    let database = unpartitioned(server);
    server.sql(
        &database,
        "ALTER TABLE events ALTER body SET NOT NULL; COMMENT ON CONSTRAINT events_user_id_not_null ON events IS 'of the law'; COMMENT ON CONSTRAINT events_body_not_null ON events IS 'of old'",
    );
    let comments = "SELECT string_agg(conname || ': ' || obj_description(oid, 'pg_constraint'), ', ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype = 'n'";
    let scenario = monthly(server, &database);
    scenario.run(&["partition", "convert", "tend"]).succeeded();
    assert_eq!(server.sql(&database, comments), "events_body_not_null: of old, events_user_id_not_null: of the law");
    server.sql(
        &database,
        "COMMENT ON CONSTRAINT events_user_id_not_null ON events IS 'of the shop'; COMMENT ON CONSTRAINT events_body_not_null ON events IS NULL",
    );
    scenario.run(&["partition", "convert", "tend", "--undo"]).succeeded();
    assert_eq!(server.sql(&database, comments), "events_user_id_not_null: of the shop");
}
