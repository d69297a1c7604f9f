//! Owners of a schema, to whom nobody granted anything, and owners of tables with which a job has nothing to do: none of their code runs as the login.

use crate::strangers_overloads::{CONVERT, Docs, PARTITION};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::vector_index::{self, MOST, rough};

#[test]
fn the_owner_of_a_schema_can_put_nothing_beside_what_a_check_of_the_newest_partition_calls() {
    for (major, revoked) in
        [(14, "SELECT 1"), (18, "SELECT 1"), (18, "SET ROLE ALICE; REVOKE CREATE ON SCHEMA util FROM ALICE; RESET ROLE")]
    {
        let docs = Docs::with(
            major,
            "CREATE SCHEMA util AUTHORIZATION ALICE; CREATE TYPE util.level AS ENUM ('low');
             CREATE FUNCTION util.holds(n anyelement) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n IS NOT NULL'",
        );
        docs.sql(revoked);
        docs.succeeds(&CONVERT);
        docs.succeeds(&["run-job", "p"]);
        let newest = docs.sql("SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'app.docs'::regclass AND inhrelid::regclass::text !~ 'before'");
        docs.sql(&format!(
            "ALTER TABLE {newest} ADD CONSTRAINT held CHECK (util.holds(5)); ALTER TABLE {newest} ADD CONSTRAINT ranked CHECK ('low'::util.level IS NOT NULL);
             ALTER TABLE {newest} ADD CONSTRAINT plain CHECK (id > -5); CREATE INDEX ON {newest} (id) WHERE util.holds(5)"
        ));
        let ahead = PARTITION.replace("premake = 2", "premake = 4\nlike = 'newest'");
        let run = Scenario::with_database(docs.server, &docs.database).job("p", &ahead).run(&["run-job", "p"]);
        let of_schema = format!("schema util of {}", docs.alice);
        run.exited_with_one_of(&[0, 1]).says(&[
            "not copied: constraint held may call",
            "constraint ranked may call",
            "_idx may call",
            &of_schema,
        ]);
        let made = |name: &str| docs.sql(&format!("SELECT count(*) FROM pg_constraint WHERE conname = '{name}'"));
        assert_eq!((made("held"), made("ranked")), ("1".to_owned(), "1".to_owned()));
        assert_ne!(made("plain"), "1");
    }
}

#[test]
fn the_owner_of_a_schema_can_put_nothing_beside_what_the_condition_of_a_partial_index_calls() {
    for major in vector_index::WITH_PGVECTOR {
        let server = server(major);
        let database = vector_index::items(server, 2000, 8, "");
        vector_index::prefers_indexes(server, &database);
        let stranger = format!("stranger_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {stranger}; CREATE SCHEMA util AUTHORIZATION {stranger}; CREATE FUNCTION util.holds(n anyelement) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n IS NOT NULL';
                 CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops) WHERE util.holds(id)"
            ),
        );
        let scenario = vector_index::scenario(server, &database, "index = 'items_idx'");
        let of_schema = format!("schema util of {stranger}");
        let named = ["items_idx", "with the rights of postgres", of_schema.as_str()];
        for dry_run in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"][..]] {
            scenario.run(dry_run).exited(77).says(&named);
        }
        server.sql(&database, "ALTER SCHEMA util OWNER TO postgres");
        scenario.run(&["run-job", "tend", "--dry-run"]).prints(&["it holds only the rows WHERE util.holds(id)"]);
    }
}

#[test]
fn no_search_of_a_table_of_others_is_planned_to_see_what_a_setting_does_to_it() {
    for major in vector_index::WITH_PGVECTOR {
        let server = server(major);
        let database = server.new_database();
        let app = format!("app_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {app}; CREATE SEQUENCE trace; GRANT USAGE ON SEQUENCE trace TO PUBLIC; CREATE SCHEMA core; CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext; GRANT USAGE ON SCHEMA ext TO {app};
                 CREATE TABLE core.items (id int, embedding ext.vector(16), filler text);
                 INSERT INTO core.items SELECT i, v::ext.vector, repeat('x', 1500) FROM ({}) s ORDER BY i; CREATE INDEX items_idx ON core.items USING ivfflat (embedding ext.vector_cosine_ops) WITH (lists = 20);
                 ALTER DATABASE {database} OWNER TO {app}; CREATE SCHEMA mine AUTHORIZATION {app}; SET ROLE {app};
                 CREATE FUNCTION mine.five() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                     IF current_user <> '{app}' THEN PERFORM nextval('public.trace'); END IF; RETURN 5; END $$;
                 CREATE TABLE mine.bait (id int, embedding ext.vector(16)); RESET ROLE; INSERT INTO mine.bait SELECT id, embedding FROM core.items LIMIT 300; SET ROLE {app};
                 CREATE INDEX bait_idx ON mine.bait USING ivfflat (embedding ext.vector_cosine_ops) WITH (lists = 4); CREATE INDEX ON mine.bait ((id + mine.five())); RESET ROLE; VACUUM ANALYZE",
                rough((1, 3000), 16)
            ),
        );
        let job = format!(
            "database = 'app'\n[limits]\ntrust_owners = false\n[vector_index]\ntable = 'core.items'\ncolumn = 'embedding'\nlists = 20\n{MOST}\napply_setting = 'database'\n"
        );
        let scenario = Scenario::with_database(server, &database).job("tend", &job);
        let ran = || server.sql(&database, "SELECT is_called FROM public.trace");
        assert_eq!(ran(), "f");
        for arguments in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"][..]] {
            scenario.run(arguments).succeeded();
            assert_eq!(ran(), "f", "{arguments:?}");
        }
        // What made it ask is done.
        let set = format!(
            "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = '{database}' AND s.setconfig::text LIKE '%ivfflat.probes%'"
        );
        assert_eq!(server.sql("postgres", &set), "1");
        server.sql(&database, "EXPLAIN SELECT 1 FROM mine.bait WHERE id > 5");
        assert_eq!(ran(), "t", "the code would have run");
    }
}

/// A superuser's tables, each with an index on vectors, and a stranger's function, which says by a sequence whether it ran as another; then `sql`, in which the
/// stranger is APP. The job sets what all searches share, so that it asks about `core.bait`.
fn beside_bait(major: u32, sql: &str) -> (&'static Server, String) {
    let server = server(major);
    let database = server.new_database();
    let app = format!("app_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {app}; CREATE SEQUENCE trace; GRANT USAGE ON SEQUENCE trace TO PUBLIC; CREATE SCHEMA core; GRANT USAGE ON SCHEMA core TO {app}; CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext;
             CREATE TABLE core.items (id int PRIMARY KEY, embedding ext.vector(16), filler text);
             INSERT INTO core.items SELECT i, v::ext.vector, repeat('x', 1500) FROM ({}) s ORDER BY i; CREATE INDEX items_idx ON core.items USING ivfflat (embedding ext.vector_cosine_ops) WITH (lists = 20);
             CREATE SCHEMA mine AUTHORIZATION {app}; SET ROLE {app};
             CREATE FUNCTION mine.five() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user <> '{app}' THEN PERFORM nextval('public.trace'); END IF; RETURN 5; END $$; RESET ROLE;
             CREATE TABLE core.bait (id int, embedding ext.vector(16)); INSERT INTO core.bait SELECT id, embedding FROM core.items LIMIT 300;
             CREATE INDEX bait_idx ON core.bait USING ivfflat (embedding ext.vector_cosine_ops) WITH (lists = 4);
             {}; VACUUM ANALYZE; SELECT setval('trace', 1, false)",
            rough((1, 3000), 16),
            sql.replace("APP", &app)
        ),
    );
    (server, database)
}

fn shares_a_setting(server: &Server, database: &str, trusts: bool) -> Scenario {
    let job = format!(
        "database = 'app'\n[limits]\ntrust_owners = {trusts}\n[vector_index]\ntable = 'core.items'\ncolumn = 'embedding'\nlists = 20\n{MOST}\napply_setting = 'database'\n"
    );
    Scenario::with_database(server, database).job("tend", &job)
}

#[test]
fn no_search_of_another_table_is_planned_that_would_compute_a_strangers_check_or_index() {
    let index = "CREATE INDEX ON core.bait ((id + mine.five()))";
    for (trusts, sql) in [
        // The planner looks at the CHECKs of tables that inherit.
        (false, "CREATE TABLE core.heir (CHECK (id > mine.five())) INHERITS (core.bait)".to_owned()),
        // These run none of their code in a query of the job's own table: whoever refers to it, and whoever may create beside it.
        (
            true,
            format!(
                "GRANT REFERENCES ON core.items TO APP; SET ROLE APP; CREATE TABLE mine.ref (id int REFERENCES core.items); RESET ROLE; {index}"
            ),
        ),
        (true, format!("GRANT CREATE ON SCHEMA core TO APP; {index}")),
    ] {
        for major in vector_index::WITH_PGVECTOR {
            let (server, database) = beside_bait(major, &sql);
            let ran = || server.sql(&database, "SELECT is_called FROM public.trace");
            for arguments in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"][..]] {
                shares_a_setting(server, &database, trusts).run(arguments).succeeded();
                assert_eq!(ran(), "f", "{sql} {arguments:?}");
            }
            server.sql(&database, "EXPLAIN SELECT 1 FROM core.bait WHERE id > 5");
            assert_eq!(ran(), "t", "the code would have run: {sql}");
        }
    }
}

#[test]
fn a_strangers_check_of_a_table_that_inherits_is_named_and_an_index_of_the_parent_is_refused() {
    for major in vector_index::WITH_PGVECTOR {
        let (server, database) =
            beside_bait(major, "CREATE TABLE core.heir (CONSTRAINT held CHECK (id > mine.five())) INHERITS (core.items)");
        let named = ["CHECK held of core.heir calls mine.five", &format!("app_{database}")];
        for dry_run in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"][..]] {
            shares_a_setting(server, &database, false).run(dry_run).exited(77).says(&named);
            shares_a_setting(server, &database, true).run(dry_run).exited(78).says(&["is inherited by core.heir", "partitioned"]);
        }
        assert_eq!(server.sql(&database, "SELECT is_called FROM public.trace"), "f");
        // The table that inherits is one of its own.
        server.sql(&database, "ALTER TABLE core.heir DROP CONSTRAINT held");
        let scenario = Scenario::with_database(server, &database).job(
            "tend",
            &format!("database = 'app'\n[vector_index]\ntable = 'core.heir'\ncolumn = 'embedding'\nlists = 20\n{MOST}\n"),
        );
        scenario.run(&["run-job", "tend"]).succeeded();
    }
}
