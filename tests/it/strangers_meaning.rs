//! Texts that do not say the schema of an operator, and functions that change places: what is made again from its text means what it meant, or is not made.

use crate::strangers_overloads::{BACK, CONVERT, Docs, INSTALL, PARTITION};
use crate::support::Scenario;
use crate::support::postgres::server;
use crate::vector_index;

/// A type whose values are equal whatever their case, as those of citext, which these servers do not all have: PostgreSQL's own comparison of text fits it, too.
const CI: &str = "CREATE TYPE public.ci; CREATE FUNCTION ci_in(cstring) RETURNS ci IMMUTABLE STRICT LANGUAGE internal AS 'textin';
    CREATE FUNCTION ci_out(ci) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout';
    CREATE TYPE ci (INPUT = ci_in, OUTPUT = ci_out, LIKE = text, CATEGORY = 'S', COLLATABLE = true); CREATE CAST (ci AS text) WITHOUT FUNCTION AS IMPLICIT;
    CREATE FUNCTION ci_cmp(ci, ci) RETURNS int IMMUTABLE STRICT LANGUAGE sql AS 'SELECT bttextcmp(lower($1::text), lower($2::text))';
    CREATE FUNCTION ci_eq(ci, ci) RETURNS boolean IMMUTABLE STRICT LANGUAGE sql AS 'SELECT lower($1::text) = lower($2::text)';
    CREATE FUNCTION ci_lt(ci, ci) RETURNS boolean IMMUTABLE STRICT LANGUAGE sql AS 'SELECT lower($1::text) < lower($2::text)';
    CREATE OPERATOR = (FUNCTION = ci_eq, LEFTARG = ci, RIGHTARG = ci); CREATE OPERATOR < (FUNCTION = ci_lt, LEFTARG = ci, RIGHTARG = ci);
    CREATE OPERATOR CLASS ci_ops DEFAULT FOR TYPE ci USING btree AS OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 ci_cmp(ci, ci);
    CREATE TABLE app.levels (level ci); INSERT INTO app.levels VALUES ('secret');
    ALTER TABLE app.docs ADD level ci DEFAULT 'Secret'";

const OTHER: [&str; 2] = ["operator public.=(public.ci,public.ci) of postgres", "operator =(text,text)"];

#[test]
fn a_view_whose_text_does_not_say_the_schema_of_its_operator_is_not_made_again_with_another() {
    for major in [14, 18] {
        let docs = Docs::with(major, CI);
        for seen in [
            "SELECT id FROM app.docs WHERE level IS DISTINCT FROM 'SECRET'",
            "SELECT id FROM app.docs WHERE CASE level WHEN 'SECRET' THEN false ELSE true END",
            "SELECT id FROM app.docs WHERE NULLIF(level, 'SECRET') IS NOT NULL",
            "SELECT id FROM app.docs EXCEPT SELECT id FROM app.docs JOIN app.levels USING (level)",
            // Both operators were used before.
            "SELECT id FROM app.docs WHERE level IS DISTINCT FROM 'SECRET' AND level = 'secret' AND body = body",
        ] {
            docs.sql(&format!("CREATE VIEW app.v AS {seen}"));
            let count = "SELECT count(*) FROM app.v";
            assert_eq!(docs.sql(count), "0");
            for command in [&INSTALL[..], &CONVERT[..]] {
                docs.refuses(command, 77, &["view app.v", "nothing was done", "app.v"]);
                assert_eq!(docs.sql(&format!("SELECT relkind, ({count}) FROM pg_class WHERE oid = 'app.docs'::regclass")), "r|0");
            }
            if !seen.contains("body") {
                docs.refuses(&INSTALL, 77, &[&OTHER[..], &["IS DISTINCT FROM", "create it again afterwards"][..]].concat());
            }
            docs.sql("DROP VIEW app.v");
        }
        docs.succeeds(&INSTALL);
    }
}

#[test]
fn a_policy_a_condition_and_statistics_mean_the_same_after_a_conversion_or_it_is_not_done() {
    let trigger = "CREATE TRIGGER t BEFORE UPDATE ON app.docs FOR EACH ROW WHEN (NEW.level IS DISTINCT FROM OLD.level) EXECUTE FUNCTION app.on_row()";
    for major in [14, 18] {
        for (object, name) in [
            ("CREATE POLICY p ON app.docs USING (level IS DISTINCT FROM 'SECRET')", "policy p"),
            (trigger, "trigger t"),
            ("CREATE STATISTICS app.s ON (NULLIF(level, 'SECRET')), id FROM app.docs", "statistics app.s"),
        ] {
            let docs = Docs::with(major, &format!("{CI}; {object}"));
            docs.refuses(&CONVERT, 77, &[&[name][..], &OTHER[..]].concat());
            assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE oid = 'app.docs'::regclass"), "r", "nothing was done");
        }
        // A new partition gets the policies of its table, and with `like` the CHECKs of another.
        let docs = Docs::with(major, CI);
        docs.succeeds(&CONVERT);
        docs.succeeds(&["run-job", "p"]);
        docs.sql("REVOKE CREATE ON SCHEMA public FROM ALICE");
        let newest = docs.sql("SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'app.docs'::regclass AND inhrelid::regclass::text !~ 'before'");
        docs.sql(&format!("ALTER TABLE {newest} ADD CONSTRAINT seen CHECK (level IS DISTINCT FROM 'SECRET')"));
        let ahead = PARTITION.replace("premake = 2", "premake = 4\nlike = 'newest'");
        let partitions = docs.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'app.docs'::regclass");
        for (object, name) in
            [("SELECT 1", "constraint seen"), ("CREATE POLICY p ON app.docs USING (NULLIF(level, 'SECRET') IS NULL)", "policy p")]
        {
            docs.sql(object);
            Scenario::with_database(docs.server, &docs.database)
                .job("p", &ahead)
                .run(&["run-job", "p"])
                .exited(1)
                .says(&[name])
                .says(&OTHER);
            assert_eq!(docs.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'app.docs'::regclass"), partitions);
        }
    }
}

#[test]
fn a_function_that_an_object_already_uses_comes_to_no_other_place_in_it() {
    for major in [14, 18] {
        let docs = Docs::with(
            major,
            "SET ROLE ALICE; CREATE FUNCTION ALICE.label(n bigint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.trace'); RETURN '#'; END $$; RESET ROLE;
             CREATE VIEW app.v AS SELECT public.label(id) AS a, ALICE.label(id) AS b, public.label(body) AS c FROM app.docs;
             SET ROLE ALICE; ALTER FUNCTION ALICE.label(bigint) SET SCHEMA public; RESET ROLE",
        );
        for command in [&INSTALL[..], &CONVERT[..]] {
            docs.scenario()
                .run(command)
                .exited(77)
                .says(&["view app.v would use what it uses in other places of its text", "create it again afterwards"]);
        }
        assert_eq!((docs.sql("SELECT min(a) FROM app.v"), docs.ran()), ("1".to_owned(), "f".to_owned()));
        assert_eq!(docs.sql("SELECT relkind FROM pg_class WHERE oid = 'app.docs'::regclass"), "r");
    }
}

#[test]
fn a_text_that_postgresql_writes_in_another_way_than_it_was_given_is_the_same() {
    let kinds = "ALTER TABLE app.docs ADD kind varchar(20) DEFAULT 'a', ADD price numeric(10, 2) DEFAULT 1, ADD short char(3) DEFAULT 'x';
        CREATE VIEW app.v AS SELECT id, CASE kind WHEN 'a' THEN 1 ELSE 2.5 END AS rank, NULLIF(kind, 'b') AS other, -1 AS minus, '1.5'::numeric(5, 2) AS n, body || price AS shown
          FROM app.docs WHERE kind IN ('a', 'b') AND price = ANY (ARRAY[1, 2]) AND short NOT IN ('a', 'b') AND kind IS DISTINCT FROM 'z' AND at BETWEEN '2000-01-01' AND now() + interval '1 day'
            AND (id, price) IN (SELECT id, price FROM app.docs) AND docs IS NOT NULL GROUP BY id, at, kind, price, body ORDER BY lower(kind), id DESC;
        CREATE VIEW app.w AS SELECT kind, count(*) AS n, string_agg(body, ',' ORDER BY id) AS bodies, rank() OVER (PARTITION BY kind ORDER BY max(price)) AS r
          FROM app.docs JOIN (SELECT DISTINCT kind, id FROM app.v JOIN app.docs d USING (id)) x USING (kind, id) GROUP BY kind HAVING count(*) > 1 UNION SELECT 'lit', 1, NULL, 2;
        CREATE TRIGGER t BEFORE UPDATE ON app.docs FOR EACH ROW WHEN (NEW.* IS DISTINCT FROM OLD.* AND NEW.kind IN ('a', 'b')) EXECUTE FUNCTION app.on_row();
        CREATE POLICY p ON app.docs USING (kind IN ('a', 'b') AND EXISTS (SELECT FROM app.docs d WHERE d.kind NOT IN ('x', 'y')));
        CREATE STATISTICS app.s ON (kind || 'x'), (price * 2) FROM app.docs";
    for major in [14, 18] {
        let docs = Docs::with(major, kinds);
        docs.succeeds(&CONVERT);
        docs.succeeds(&["run-job", "p"]);
        docs.succeeds(&BACK);
        docs.sql("DROP TRIGGER t ON app.docs; DROP POLICY p ON app.docs");
        docs.succeeds(&INSTALL);
        docs.succeeds(&["run-job", "c"]);
        docs.succeeds(&["compress", "undo", "c"]);
        assert_eq!(docs.sql("SELECT count(*) FROM app.v"), "100");
    }
}

#[test]
fn a_partial_index_whose_condition_means_other_rows_as_text_is_not_searched() {
    for major in vector_index::WITH_PGVECTOR {
        let server = server(major);
        let database = vector_index::items(server, 2000, 8, "");
        server.sql(
            &database,
            &format!("CREATE SCHEMA app; CREATE TABLE app.docs (); {CI}; ALTER TABLE items ADD level ci DEFAULT 'Secret'"),
        );
        let scenario = vector_index::scenario(server, &database, "index = 'items_idx'");
        for condition in
            ["level IS DISTINCT FROM 'x'", "NULLIF(level, 'x') IS NOT NULL", "CASE level WHEN 'x' THEN false ELSE true END"]
        {
            server.sql(
                &database,
                &format!("CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops) WHERE {condition}"),
            );
            scenario
                .run(&["run-job", "tend", "--dry-run"])
                .exited(78)
                .says(&["items_idx", "an operator that its text does not name"]);
            server.sql(&database, "DROP INDEX items_idx");
        }
        server.sql(&database, "CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops) WHERE level = 'Secret'");
        scenario.run(&["run-job", "tend", "--dry-run"]).prints(&["it holds only the rows WHERE "]);
    }
}
