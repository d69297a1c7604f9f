//! Views and triggers that other roles have made over a job's table: commands that make them again from their texts run none of their code.

use crate::support::owners::beside;
use crate::support::postgres::{Server, server};
use crate::support::scripts::Client;
use crate::support::{Scenario, eventually};

/// A table of large texts, which is also one that can become partitioned; and ALICE, who owns a schema of her name and a domain whose CHECK notes as whom it ran.
const DOCS: &str = "CREATE TABLE docs (id bigint, at timestamptz NOT NULL, body text, PRIMARY KEY (id, at));
    INSERT INTO docs SELECT i, now() - i * interval '1 hour', repeat(md5(i::text) || ' lorem ipsum dolor sit amet ', 200) FROM generate_series(1, 100) i; ANALYZE docs;
    SET ROLE ALICE; CREATE FUNCTION ALICE.f(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM ALICE.note(); RETURN true; END $$;
    CREATE DOMAIN ALICE.d AS int CHECK (ALICE.f(VALUE)); CREATE TYPE ALICE.c AS (a ALICE.d); CREATE TYPE ALICE.r AS RANGE (subtype = ALICE.d);
    CREATE TYPE ALICE.e AS ENUM ('open'); CREATE TABLE ALICE.t (x ALICE.c); RESET ROLE";

const VIEW: &str = "SET ROLE ALICE; CREATE VIEW ALICE.v AS SELECT id, '(5)'::ALICE.c AS x FROM public.docs; RESET ROLE";

const COMPRESS: &str = "database = 'app'\n[compress]\ntable = 'public.docs'\ncolumn = 'body'\nlarger_than = '2KB'\nmethod = 'gzip'\nminimum_gain = 0\n[limits]\nlock_timeout = '1s'\nmax_wait = '30s'\n";
const PARTITION: &str = "database = 'app'\n[partition]\ntable = 'public.docs'\ncolumn = 'at'\nevery = 'week'\npremake = 2\nlock_timeout = '1s'\ngive_up_after = '30s'\n[limits]\n";

struct Docs {
    server: &'static Server,
    database: String,
    alice: String,
}

impl Docs {
    fn with(major: u32, sql: &str) -> Self {
        let server = server(major);
        let (database, alice) = beside(server, &format!("{DOCS}; {sql}"));
        Self { server, database, alice }
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, &sql.replace("ALICE", &self.alice))
    }

    fn scenario(&self) -> Scenario {
        let strict = "trust_owners = false\n";
        Scenario::with_database(self.server, &self.database)
            .job("c", COMPRESS)
            .job("c-strict", &format!("{COMPRESS}{strict}"))
            .job("p", PARTITION)
            .job("p-strict", &format!("{PARTITION}{strict}"))
    }

    /// Runs a command, with and without `trust_owners`, which changes nothing, names the view, its owner and what to do, and runs nobody's code.
    fn refuses(&self, command: &[&str], job: &str, named: &[&str]) {
        self.sql("TRUNCATE public.ran");
        let scenario = self.scenario();
        for (job, dry_run) in [(job.to_owned(), "--dry-run"), (job.to_owned(), ""), (format!("{job}-strict"), "")] {
            let mut arguments = vec![command[0], command[1], job.as_str()];
            arguments.extend(&command[2..]);
            arguments.extend((!dry_run.is_empty()).then_some(dry_run));
            let named: Vec<String> = named.iter().map(|name| name.replace("ALICE", &self.alice)).collect();
            let named: Vec<&str> = named.iter().map(String::as_str).collect();
            scenario.run(&arguments).exited(77).says(&named).says(&["make it again", "DROP ", &self.alice]);
            assert_eq!(self.ran(), "", "{arguments:?}");
        }
    }

    fn ran(&self) -> String {
        self.sql("SELECT string_agg(DISTINCT as_role, ',') FROM public.ran")
    }

    fn succeeds(&self, arguments: &[&str]) {
        self.scenario().run(arguments).succeeded();
    }
}

const INSTALL: [&str; 3] = ["compress", "install", "--force"];
const NAMED: [&str; 3] = ["view ALICE.v of ALICE", "ALICE.c", "DROP VIEW ALICE.v"];

#[test]
fn a_view_of_a_stranger_over_the_table_runs_none_of_its_code_as_the_login() {
    for major in [14, 18] {
        let docs = Docs::with(major, VIEW);
        docs.refuses(&INSTALL, "c", &NAMED);
        docs.refuses(&["partition", "convert"], "p", &NAMED);
        assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE relname = 'docs'"), "r");

        docs.sql("DROP VIEW ALICE.v");
        docs.succeeds(&["partition", "convert", "p"]);
        docs.sql(VIEW);
        docs.refuses(&["partition", "convert", "--undo"], "p", &NAMED);
        docs.sql("DROP VIEW ALICE.v");
        docs.succeeds(&["partition", "convert", "p", "--undo"]);

        docs.succeeds(&["compress", "install", "c", "--force"]);
        docs.succeeds(&["run-job", "c"]);
        docs.sql(VIEW);
        docs.refuses(&["compress", "undo"], "c", &NAMED);
        docs.sql("DROP VIEW ALICE.v");
        docs.succeeds(&["compress", "undo", "c"]);
        assert_eq!(docs.sql("SELECT count(*) FROM docs WHERE body LIKE '% lorem %'"), "100");
    }
}

#[test]
fn a_literal_of_any_type_that_reaches_a_strangers_code_is_named() {
    let docs = Docs::with(
        18,
        "CREATE TYPE ofroot AS (a ALICE.d); CREATE DOMAIN checked AS int CHECK (ALICE.f(VALUE)); CREATE TYPE viacheck AS (a checked)",
    );
    for (maker, literal, named) in [
        ("ALICE", "'{5}'::ALICE.d[]", "ALICE.d"),
        ("ALICE", "'[4,5]'::ALICE.r", "ALICE.r"),
        ("ALICE", "'{[4,5]}'::ALICE.r_multirange", "ALICE.r"),
        ("ALICE", "'(\"(5)\")'::ALICE.t", "ALICE.c"),
        ("ALICE", "'open'::ALICE.e", "ALICE.e"),
        ("ALICE", "(SELECT y.x FROM (VALUES ('(5)'::ALICE.c)) y (x))", "ALICE.c"),
        ("postgres", "'(5)'::public.ofroot", "ALICE.d"),
        ("postgres", "'(5)'::public.viacheck", "ALICE.f"),
    ] {
        docs.sql(&format!("SET ROLE {maker}; CREATE VIEW ALICE.v AS SELECT id, {literal} AS x FROM public.docs"));
        docs.refuses(&INSTALL, "c", &["view ALICE.v", named]);
        docs.sql("DROP VIEW ALICE.v");
    }
}

#[test]
fn a_view_of_a_stranger_that_names_no_literal_of_its_types_follows_the_table() {
    let view = "SET ROLE ALICE; CREATE VIEW ALICE.v AS SELECT id, 5::ALICE.d AS x, 'open'::text AS t, ALICE.f(1) AS f FROM public.docs WHERE at > '2000-01-01'; RESET ROLE;
        CREATE TYPE kind AS ENUM ('open'); CREATE VIEW open AS SELECT id, body, 'open'::kind AS kind FROM docs; GRANT SELECT ON docs TO ALICE";
    for major in [15, 18] {
        let docs = Docs::with(major, view);
        docs.succeeds(&["compress", "install", "c", "--force"]);
        docs.succeeds(&["run-job", "c"]);
        assert_eq!(docs.sql("SELECT count(*) FROM open WHERE body LIKE '% lorem %' AND kind = 'open'"), "100");
        docs.succeeds(&["compress", "undo", "c"]);
        docs.succeeds(&["partition", "convert", "p"]);
        docs.sql("CREATE TABLE docs_far PARTITION OF docs FOR VALUES FROM ('2127-01-01') TO ('2128-01-01'); INSERT INTO docs VALUES (0, '2127-05-05', 'x lorem x')");
        assert_eq!(docs.sql("SELECT count(*) FROM open WHERE body LIKE '% lorem %'"), "101");
        assert_eq!(docs.ran(), "", "parsing runs no function that a view calls");
        assert_eq!(docs.sql("SET ROLE ALICE; SELECT count(x) FROM ALICE.v"), "101");
        docs.sql("DELETE FROM docs WHERE id = 0");
        docs.succeeds(&["partition", "convert", "p", "--undo"]);
    }
}

#[test]
fn a_trigger_of_a_role_with_that_privilege_alone_runs_none_of_its_code_as_the_login() {
    for major in [14, 18] {
        let trigger = "SET ROLE ALICE; CREATE TRIGGER hers BEFORE DELETE ON public.docs FOR EACH ROW WHEN ('(5)'::ALICE.c IS NOT NULL) EXECUTE FUNCTION ALICE.on_row(); RESET ROLE";
        let docs = Docs::with(major, &format!("GRANT TRIGGER ON docs TO ALICE; {trigger}"));
        let named = ["trigger hers", "ALICE.c", "DROP TRIGGER hers ON public.docs"];
        docs.refuses(&["partition", "convert"], "p", &named);
        docs.sql("DROP TRIGGER hers ON docs");
        docs.succeeds(&["partition", "convert", "p"]);
        docs.sql(trigger);
        docs.refuses(&["partition", "convert", "--undo"], "p", &named);
    }
}

#[test]
fn a_type_that_gets_a_strangers_check_while_the_lock_is_awaited_runs_nothing() {
    let types =
        "CREATE DOMAIN late AS int; CREATE TYPE of_late AS (a late); CREATE VIEW w AS SELECT id, '(5)'::of_late AS x FROM docs";
    let docs = Docs::with(18, types);
    for (arguments, before) in [
        (&["compress", "install", "c", "--force"][..], ""),
        (&["partition", "convert", "p"], ""),
        (&["partition", "convert", "p", "--undo"], "partition convert p"),
        (&["compress", "undo", "c"], "compress install c --force"),
    ] {
        if before.starts_with("compress") {
            docs.succeeds(&["partition", "convert", "p", "--undo"]);
        }
        if !before.is_empty() {
            docs.succeeds(&before.split(' ').collect::<Vec<_>>());
        }
        let mut reader = Client::of(docs.server, &docs.database);
        reader.ask("BEGIN; SELECT count(*) FROM docs; SELECT count(*) FROM w");
        let scenario = docs.scenario();
        let mut running = scenario.start(arguments);
        eventually("it waits", || {
            let waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()";
            !running.is_running() || docs.sql(waits) != "0"
        });
        docs.sql("ALTER DOMAIN late ADD CONSTRAINT later CHECK (ALICE.f(VALUE)); TRUNCATE ran");
        reader.ask("COMMIT");
        running.wait().exited(77).says(&["view public.w", &docs.alice]);
        assert_eq!(docs.ran(), "", "{arguments:?}");
        docs.sql("ALTER DOMAIN late DROP CONSTRAINT later");
    }
}

#[test]
fn a_temporary_view_of_another_session_is_named_with_the_session_before_anything_is_done() {
    for major in [14, 18] {
        let docs = Docs::with(major, "GRANT SELECT ON docs TO ALICE");
        let refuses = |arguments: &[&str]| {
            let mut other = Client::of(docs.server, &docs.database);
            other.ask(&format!("SET ROLE {}; CREATE TEMPORARY VIEW mine AS SELECT id FROM public.docs", docs.alice));
            let pid = other.ask("SELECT pg_backend_pid()");
            let refused = docs.scenario().run(arguments).exited(75).says(&["temporary view", &docs.alice, "end that session"]);
            // Before 16, PostgreSQL does not say whose temporary schema it is.
            if major >= 16 {
                refused.says(&[&format!("pg_terminate_backend({pid})")]);
            }
            other.ask("DROP VIEW mine");
            drop(other);
        };
        refuses(&["compress", "install", "c", "--force"]);
        refuses(&["partition", "convert", "p"]);
        docs.succeeds(&["partition", "convert", "p"]);
        refuses(&["partition", "convert", "p", "--undo"]);
        docs.succeeds(&["partition", "convert", "p", "--undo"]);
        docs.succeeds(&["compress", "install", "c", "--force"]);
        refuses(&["compress", "undo", "c"]);
    }
}
