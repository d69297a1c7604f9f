//! Functions of a role that may CREATE in the schema of one that a superuser's objects call, and fit better: no command binds the objects to them, and none runs
//! them as the login.

use crate::support::Scenario;
use crate::support::owners::beside;
use crate::support::postgres::{Server, server};
use crate::vector_index;

/// A superuser's table, also one that can become partitioned, with a function that takes any type; and ALICE, who owns nothing of these, may create functions in
/// that function's schema, as everybody may in `public` before 15, and counts with a sequence how often hers ran: no rollback takes that back.
const DOCS: &str = "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO ALICE; CREATE SEQUENCE trace; GRANT USAGE ON SEQUENCE trace TO PUBLIC; GRANT CREATE ON SCHEMA public TO ALICE;
    CREATE FUNCTION label(n anyelement) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT n::text';
    CREATE FUNCTION holds(n anyelement) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n IS NOT NULL';
    CREATE FUNCTION app.on_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TABLE app.docs (id bigint, at timestamptz NOT NULL, body text, PRIMARY KEY (id, at));
    INSERT INTO app.docs SELECT i, now() - i * interval '1 hour', repeat(md5(i::text) || ' lorem ipsum dolor sit amet ', 200) FROM generate_series(1, 100) i; ANALYZE app.docs";

const OF_ALICE: &str = "SET ROLE ALICE;
    CREATE FUNCTION public.label(n bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN '#'; END $$;
    CREATE FUNCTION public.holds(n bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN true; END $$;
    CREATE FUNCTION public.holds(n text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN true; END $$; RESET ROLE";
const WITHOUT_ALICE: &str = "DROP FUNCTION label(bigint); DROP FUNCTION holds(bigint); DROP FUNCTION holds(text)";

/// The superuser's object, and what its message names.
const VIEW: (&str, &str) = ("CREATE VIEW app.v AS SELECT id, public.label(id) AS label FROM app.docs", "view app.v");
const DEFAULT: (&str, &str) =
    ("ALTER TABLE app.docs ADD title text DEFAULT public.label(7::bigint)", "the default of column title");
const TRIGGER: (&str, &str) = (
    "CREATE TRIGGER t BEFORE INSERT ON app.docs FOR EACH ROW WHEN (public.holds(NEW.id)) EXECUTE FUNCTION app.on_row()",
    "trigger t",
);
const POLICY: (&str, &str) = ("CREATE POLICY p ON app.docs USING (public.holds(id))", "policy p");
const STATISTICS: (&str, &str) =
    ("CREATE STATISTICS app.s ON (public.label(id)), (public.holds(id)) FROM app.docs", "statistics app.s");

const COMPRESS: &str = "database = 'app'\n[compress]\ntable = 'app.docs'\ncolumn = 'body'\nlarger_than = '2KB'\nmethod = 'gzip'\nminimum_gain = 0\n[limits]\nlock_timeout = '10s'\nmax_wait = '60s'\ntrust_owners = false\n";
pub const PARTITION: &str = "database = 'app'\n[partition]\ntable = 'app.docs'\ncolumn = 'at'\nevery = 'week'\npremake = 2\nlock_timeout = '10s'\ngive_up_after = '60s'\n[limits]\ntrust_owners = false\n";

pub struct Docs {
    pub server: &'static Server,
    pub database: String,
    pub alice: String,
}

impl Docs {
    pub fn with(major: u32, sql: &str) -> Self {
        let server = server(major);
        let (database, alice) = beside(server, &format!("{DOCS}; {sql}"));
        Self { server, database, alice }
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, &sql.replace("ALICE", &self.alice))
    }

    pub fn scenario(&self) -> Scenario {
        Scenario::with_database(self.server, &self.database).job("c", COMPRESS).job("p", PARTITION)
    }

    /// Runs a command that fails with this code and says this, and after which no function of ALICE has ever run and no object is bound to one.
    pub fn refuses(&self, command: &[&str], code: i32, named: &[&str]) {
        let named: Vec<String> = named.iter().map(|name| name.replace("ALICE", &self.alice)).collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        self.scenario().run(command).exited(code).says(&named);
        assert_eq!((self.ran(), self.bound_to_alice()), ("f".to_owned(), String::new()), "{command:?}");
    }

    pub fn succeeds(&self, arguments: &[&str]) {
        self.scenario().run(arguments).succeeded();
        assert_eq!((self.ran(), self.bound_to_alice()), ("f".to_owned(), String::new()), "{arguments:?}");
    }

    pub fn ran(&self) -> String {
        self.sql("SELECT is_called FROM trace")
    }

    fn bound_to_alice(&self) -> String {
        self.sql(
            "SELECT string_agg(pg_describe_object(classid, objid, 0), ', ') FROM pg_depend JOIN pg_proc p ON p.oid = refobjid
             WHERE refclassid = 'pg_proc'::regclass AND pronamespace = 'public'::regnamespace AND proowner = 'ALICE'::regrole AND deptype = 'n'",
        )
    }
}

pub const INSTALL: [&str; 4] = ["compress", "install", "c", "--force"];
pub const CONVERT: [&str; 3] = ["partition", "convert", "p"];
pub const BACK: [&str; 4] = ["partition", "convert", "p", "--undo"];

#[test]
fn a_view_and_a_default_keep_the_functions_that_they_had_when_a_view_takes_the_tables_place() {
    for major in [14, 18] {
        for (object, name) in [VIEW, DEFAULT] {
            let docs = Docs::with(major, &format!("{object}; {OF_ALICE}"));
            let remedy =
                ["function public.label(anyelement) of postgres", "function public.label(bigint) of ALICE", "REVOKE CREATE"];
            docs.refuses(&INSTALL, 77, &[&[name][..], &remedy[..]].concat());
            assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE relname = 'docs'"), "r", "nothing was done");
            docs.sql(WITHOUT_ALICE);
            docs.succeeds(&INSTALL);
            docs.succeeds(&["run-job", "c"]);
            docs.sql(OF_ALICE);
            if name == VIEW.1 {
                docs.refuses(&["compress", "undo", "c"], 77, &[&[name][..], &remedy[..]].concat());
                assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE relname = 'docs'"), "v", "the view stays");
                docs.sql(WITHOUT_ALICE);
            }
            docs.succeeds(&["compress", "undo", "c"]);
            assert_eq!(docs.sql("SELECT count(*) FROM app.docs WHERE body LIKE '% lorem %'"), "100");
        }
    }
}

#[test]
fn what_a_conversion_makes_again_keeps_the_functions_that_it_had_and_so_does_its_undo() {
    for major in [14, 18] {
        for (object, name) in [VIEW, TRIGGER, POLICY, STATISTICS] {
            let docs = Docs::with(major, &format!("{object}; {OF_ALICE}"));
            docs.refuses(&CONVERT, 77, &[name, "(anyelement) of postgres", "(bigint) of ALICE", "REVOKE CREATE"]);
            assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE relname = 'docs'"), "r", "nothing was done");
            docs.sql(WITHOUT_ALICE);
            docs.succeeds(&CONVERT);
            docs.sql(OF_ALICE);
            // Statistics get their names back, and are not made again.
            if name != STATISTICS.1 {
                docs.refuses(&BACK, 77, &[name, "(bigint) of ALICE"]);
                docs.sql(WITHOUT_ALICE);
            }
            docs.succeeds(&BACK);
        }
        // LIKE takes these as the catalog has them.
        let docs = Docs::with(major, &format!("{}; ALTER TABLE app.docs ADD CHECK (public.holds(id)); {OF_ALICE}", DEFAULT.0));
        docs.succeeds(&CONVERT);
    }
}

#[test]
fn a_new_partition_gets_the_policies_of_its_table_or_none_is_made() {
    for major in [14, 18] {
        let docs = Docs::with(major, &format!("{}; ALTER TABLE app.docs ENABLE ROW LEVEL SECURITY", POLICY.0));
        docs.succeeds(&CONVERT);
        docs.sql(OF_ALICE);
        let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'app.docs'::regclass";
        docs.refuses(
            &["run-job", "p"],
            1,
            &["policy p", "public.holds(anyelement) of postgres", "public.holds(bigint) of ALICE"],
        );
        assert_eq!(docs.sql(partitions), "1");
        docs.sql(WITHOUT_ALICE);
        docs.succeeds(&["run-job", "p"]);
        assert_ne!(docs.sql(partitions), "1");
    }
}

#[test]
fn a_check_or_an_index_of_the_newest_partition_is_not_copied_where_others_could_be_called_in_it() {
    for major in [14, 18] {
        let docs = Docs::with(major, "");
        docs.succeeds(&CONVERT);
        docs.succeeds(&["run-job", "p"]);
        let newest = docs.sql("SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'app.docs'::regclass AND inhrelid::regclass::text !~ 'before'");
        docs.sql(&format!("ALTER TABLE {newest} ADD CONSTRAINT held CHECK (public.holds(id)); CREATE INDEX ON {newest} (id) WHERE public.holds(5::bigint); {OF_ALICE}"));
        let ahead = PARTITION.replace("premake = 2", "premake = 4\nlike = 'newest'");
        let scenario = || Scenario::with_database(docs.server, &docs.database).job("p", &ahead);
        let with = "SELECT count(*) FROM pg_constraint WHERE conname = 'held'";
        scenario().run(&["run-job", "p"]).exited_with_one_of(&[0, 1]).says(&[
            "not copied",
            "held",
            "REVOKE CREATE ON SCHEMA public",
            &docs.alice,
        ]);
        assert_eq!((docs.sql(with), docs.ran(), docs.bound_to_alice()), ("1".to_owned(), "f".to_owned(), String::new()));
    }
}

#[test]
fn a_check_is_judged_without_running_it_or_anything_of_its_name() {
    let strict = "CREATE FUNCTION app.fits(text) RETURNS boolean IMMUTABLE STRICT LANGUAGE sql AS 'SELECT true'; ALTER TABLE app.docs ADD CHECK (app.fits(body) AND length(body) > 1)";
    for major in [14, 18] {
        let docs = Docs::with(
            major,
            &format!("{strict}; ALTER TABLE app.docs ADD CONSTRAINT held CHECK (public.holds(body)); {OF_ALICE}"),
        );
        let check = |job: &str| Scenario::with_database(docs.server, &docs.database).job("c", job).run(&["check", "--connect"]);
        check(COMPRESS).succeeded();
        docs.refuses(&["compress", "install", "c"], 78, &["constraint \"held\" may refuse rows without the text", "--force"]);
        docs.refuses(&["compress", "install", "c", "--dry-run"], 78, &["held"]);
        // It stands where it is, bound as it was.
        docs.succeeds(&[&INSTALL[..], &["--dry-run"][..]].concat());
        docs.succeeds(&INSTALL);
        // Of the owner's own.
        let own = "CREATE TABLE ALICE.docs (id bigint PRIMARY KEY, body text CHECK (ALICE.f(body))); INSERT INTO ALICE.docs VALUES (1, repeat('x', 9000)); ANALYZE ALICE.docs";
        docs.sql(&format!(
            "SET ROLE ALICE; CREATE FUNCTION ALICE.f(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM ALICE.note(); RETURN true; END $$; {own}; RESET ROLE; TRUNCATE ran"
        ));
        let job = COMPRESS.replace("app.docs", &format!("{}.docs", docs.alice)).replace("trust_owners = false", "");
        check(&job).exited_with_one_of(&[0, 77, 78]);
        assert_eq!(docs.sql("SELECT count(*) FROM ran"), "0");
    }
}

#[test]
fn a_literal_without_a_type_becomes_none_of_a_strangers_types() {
    for major in [14, 18] {
        let docs = Docs::with(
            major,
            "CREATE FUNCTION concat_all(VARIADIC \"any\") RETURNS text LANGUAGE internal STABLE AS 'text_concat'; SET ROLE ALICE;
             CREATE VIEW ALICE.v AS SELECT id, public.concat_all('(5)', id) AS x FROM app.docs; RESET ROLE",
        );
        let refuses = |named: &[&str]| {
            let named = [&["view ALICE.v of ALICE"][..], named].concat();
            docs.refuses(&INSTALL, 77, &named);
            docs.refuses(&CONVERT, 77, &named);
        };
        let overload = "SET ROLE ALICE; CREATE FUNCTION ALICE.f(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN true; END $$;
            CREATE DOMAIN ALICE.d AS int CHECK (ALICE.f(VALUE)); CREATE TYPE ALICE.c AS (a ALICE.d); CREATE FUNCTION public.concat_all(ALICE.c, bigint) RETURNS text LANGUAGE sql AS 'SELECT $2::text'; RESET ROLE";
        refuses(&["concat_all", "REVOKE CREATE ON SCHEMA public FROM ALICE"]);
        docs.sql(overload);
        refuses(&["concat_all", "REVOKE CREATE ON SCHEMA public FROM ALICE"]);
        docs.sql("REVOKE CREATE ON SCHEMA public FROM ALICE");
        refuses(&["function public.concat_all(ALICE.c,bigint) of ALICE"]);
        docs.sql("DROP FUNCTION public.concat_all(ALICE.c, bigint)");
        docs.succeeds(&CONVERT);
        // Whoever made an extension may move its types elsewhere, and make others of their names. The wheel of 18 has no trusted one.
        if docs.sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'") == "0" {
            assert_ne!(major, 14);
            continue;
        }
        docs.sql("DROP VIEW ALICE.v; GRANT CREATE ON DATABASE DATABASE TO ALICE; SET ROLE ALICE; CREATE EXTENSION citext SCHEMA public".replace("DATABASE DATABASE", &format!("DATABASE {}", docs.database)).as_str());
        docs.sql("SET ROLE ALICE; CREATE VIEW ALICE.v AS SELECT id, '{abc}'::public.citext[]::text AS x FROM app.docs");
        docs.refuses(&BACK, 77, &["view ALICE.v", "extension citext of ALICE"]);
    }
}

#[test]
fn a_function_that_makes_a_call_ambiguous_is_named() {
    for major in [14, 18] {
        let docs = Docs::with(
            major,
            "CREATE FUNCTION label2(bigint, text DEFAULT 'a') RETURNS text LANGUAGE sql STABLE AS 'SELECT $1::text'; CREATE VIEW app.v AS SELECT id, public.label2(id) AS label FROM app.docs;
             SET ROLE ALICE; CREATE FUNCTION public.label2(bigint, int DEFAULT 1) RETURNS text LANGUAGE sql AS 'SELECT $2::text'; RESET ROLE",
        );
        docs.refuses(&INSTALL, 1, &["label2", "function public.label2(bigint,integer) of ALICE", "REVOKE CREATE"]);
        docs.refuses(&CONVERT, 1, &["label2", "function public.label2(bigint,integer) of ALICE", "REVOKE CREATE"]);
    }
}

#[test]
fn the_condition_of_a_partial_index_calls_nothing_that_others_can_replace() {
    for major in vector_index::WITH_PGVECTOR {
        let server = server(major);
        let database = vector_index::items(server, 2000, 8, "");
        let stranger = format!("stranger_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {stranger}; CREATE SEQUENCE trace; GRANT USAGE ON SEQUENCE trace TO PUBLIC; GRANT CREATE ON SCHEMA public TO {stranger};
                 CREATE FUNCTION holds(n anyelement) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n IS NOT NULL';
                 CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops) WHERE public.holds(id)"
            ),
        );
        let scenario = vector_index::scenario(server, &database, "index = 'items_idx'");
        let refuses = |named: &[&str]| {
            for dry_run in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"][..]] {
                scenario.run(dry_run).exited(77).says(named);
            }
            assert_eq!(server.sql(&database, "SELECT is_called FROM trace"), "f");
        };
        refuses(&["items_idx", "public.holds(anyelement)", &format!("REVOKE CREATE ON SCHEMA public FROM {stranger}")]);
        server.sql(
            &database,
            &format!(
                "SET ROLE {stranger}; CREATE FUNCTION public.holds(n int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN true; END $$;
                 CREATE FUNCTION public.holds(n bigint) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN true; END $$; RESET ROLE;
                 REVOKE CREATE ON SCHEMA public FROM {stranger}"
            ),
        );
        refuses(&[&format!("function public.holds(integer) of {stranger}")]);
        server.sql(&database, "DROP FUNCTION holds(int); DROP FUNCTION holds(bigint)");
        let planned = scenario.run(&["run-job", "tend", "--dry-run"]);
        assert!(planned.stdout.contains("it holds only the rows WHERE public.holds(id)"), "{planned:?}");
    }
}
