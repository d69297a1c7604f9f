//! Operators and functions of operator classes: a role that may create an operator beside those of an extension, or that owns a function which an
//! operator class, an aggregate, a cast or a key calls, gets none of the session's rights.

use crate::support::Scenario;
use crate::support::owners::{LOGS, RETENTION, beside, jobs, warnings};
use crate::support::postgres::{Server, server};

const OF_KEYS: &str = "[retention]\ntable = 'app.users'\ncolumn = 'at'\nolder_than = '90d'\n";

/// A database of a superuser's, whose key is a domain over citext, and a role that may create objects in the schema of citext, and nothing else.
fn beside_citext(server: &'static Server) -> (String, String) {
    let database = server.new_database();
    let mallory = format!("mallory_{database}");
    server.sql(
        &database,
        &format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {mallory} LOGIN; CREATE TABLE ran (as_role text); GRANT INSERT ON ran TO PUBLIC;
             CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; GRANT CREATE, USAGE ON SCHEMA ext TO {mallory};
             CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE DOMAIN app.email AS ext.citext;
             CREATE TABLE app.users (mail app.email PRIMARY KEY, at timestamptz NOT NULL, by app.email REFERENCES app.users);
             CREATE INDEX ON app.users (by);
             INSERT INTO app.users SELECT 'u' || i, now() - interval '200 days' FROM generate_series(1, 10) i;
             INSERT INTO app.users SELECT 'new' || i, now() FROM generate_series(1, 5) i"
        ),
    );
    (database, mallory)
}

/// She creates an operator that fits the domain better than that of citext.
fn takes_the_operator(server: &Server, database: &str, mallory: &str) {
    server.sql(
        database,
        &format!(
            "SET ROLE {mallory};
             CREATE FUNCTION ext.takes(a app.email, b app.email) RETURNS boolean LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN a::ext.citext OPERATOR(ext.=) b::ext.citext; END $$;
             CREATE OPERATOR ext.= (FUNCTION = ext.takes, LEFTARG = app.email, RIGHTARG = app.email)"
        ),
    );
}

fn ran(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT count(*) FROM ran")
}

#[test]
fn a_foreign_key_is_compared_by_its_own_operator_whatever_fits_its_type_better() {
    // The others of these servers have no citext.
    for major in [14, 17] {
        let server = server(major);
        let (database, mallory) = beside_citext(server);
        server.sql(
            &database,
            "CREATE TABLE app.orders (id int, mail app.email REFERENCES app.users); CREATE INDEX ON app.orders (mail);
             INSERT INTO app.orders VALUES (1, 'U1');
             UPDATE app.users SET by = 'U2' WHERE mail = 'new1'; UPDATE app.users SET by = 'U3' WHERE mail = 'u4'",
        );
        takes_the_operator(server, &database, &mallory);
        let job = format!("database = 'app'\n{OF_KEYS}[limits]\ntrust_owners = false\n");
        let scenario = Scenario::with_database(server, &database).job("old", &job);
        scenario.run(&["run-job", "old", "--yes", "--dry-run"]).succeeded();
        scenario.run(&["run-job", "old", "--yes"]).succeeded();
        assert_eq!(ran(server, &database), "0", "on {major}");
        // As citext compares: an order references one, a young user the other.
        let left = "SELECT string_agg(mail, ',' ORDER BY mail) FROM app.users WHERE mail LIKE 'u%'";
        assert_eq!(server.sql(&database, &left.replace("mail", "mail::text")), "u1,u2", "on {major}");
    }
}

#[test]
fn rows_that_left_again_are_told_by_the_operator_of_the_primary_key() {
    // The others of these servers have no citext.
    for major in [14, 17] {
        let server = server(major);
        let (database, mallory) = beside_citext(server);
        let job = format!("database = 'app'\n{OF_KEYS}archive = 'local'\n[limits]\ntrust_owners = false\n");
        let scenario = Scenario::with_database(server, &database).job("old", &job);
        scenario.run(&["run-job", "old", "--yes"]).succeeded();
        scenario.run(&["archives", "restore"]).succeeded();
        server.sql(&database, "UPDATE app.users SET at = now(), mail = upper(mail::text) WHERE mail IN ('u1', 'u2', 'u3')");
        scenario.run(&["run-job", "old", "--yes"]).succeeded();
        takes_the_operator(server, &database, &mallory);
        scenario.run(&["archives", "restore"]).succeeded();
        assert_eq!(ran(server, &database), "0", "on {major}");
        // The other seven came back, and none of the three a second time.
        let back =
            "SELECT count(*) FILTER (WHERE mail::text LIKE 'U%'), count(*) FILTER (WHERE mail::text LIKE 'u%') FROM app.users";
        assert_eq!(server.sql(&database, back), "3|7", "on {major}");
    }
}

#[test]
fn the_owner_of_the_schema_of_a_keys_operators_is_named_and_refused() {
    for major in [14, 17] {
        let server = server(major);
        let (database, mallory) = beside_citext(server);
        let job = |more: &str| format!("database = 'app'\n{OF_KEYS}{more}");
        let scenario = Scenario::with_database(server, &database)
            .job("old", &job(""))
            .job("refused", &job("[limits]\ntrust_owners = false\n"));
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        // She can rename it while a run is at work, and create another one of its name.
        server.sql(&database, &format!("ALTER SCHEMA ext OWNER TO {mallory}"));
        let said = format!("the schema ext of operators that compare keys of app.users belongs to \"{mallory}\"");
        scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&said]);
        // As in JSON.
        assert!(warnings(&scenario, "old").contains(&said.replace('"', "\\\"")), "{}", warnings(&scenario, "old"));
    }
}

const BY_ODD: &str = "CREATE OPERATOR CLASS public.odd FOR TYPE timestamptz USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
     FUNCTION 1 ALICE.compare(timestamptz, timestamptz)";

#[test]
fn a_function_of_a_partition_keys_operator_class_is_searched_for_others_code() {
    for major in [14, 18] {
        let server = server(major);
        let parts = format!(
            "{BY_ODD}; CREATE TABLE public.logs (id bigint, created_at timestamptz NOT NULL) PARTITION BY RANGE (created_at public.odd);
             CREATE TABLE public.logs_2019 PARTITION OF public.logs FOR VALUES FROM ('2019-01-01') TO ('2020-01-01');
             CREATE TABLE public.logs_2020 PARTITION OF public.logs FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
             INSERT INTO public.logs SELECT i, '2020-02-01' FROM generate_series(1, 10) i"
        );
        let (database, alice) = beside(server, &parts);
        let scenario = jobs(Scenario::with_database(server, &database), RETENTION);
        let named = format!("partition key of public.logs calls {alice}.compare, code of \"{alice}\"");
        scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
        scenario.run(&["check", "--connect"]).exited(77);
        assert_eq!(ran(server, &database), "0", "on {major}");
        assert!(warnings(&scenario, "warned").contains("partition key of public.logs"), "on {major}");
        assert_ne!(ran(server, &database), "0", "what the warning says is so, on {major}");
    }
}

/// Each is a superuser's object that calls alice's function, seldom or never by a name in an expression of the table.
#[test]
fn functions_of_families_aggregates_bodies_casts_and_keys_are_searched_for_others_code() {
    let server = server(18);
    let mut missed = Vec::new();
    for (sql, named) in [
        (
            // A foreign key of another type than its target's.
            "CREATE FUNCTION ALICE.same(int, numeric) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = $2'; ALTER FUNCTION ALICE.same(int, numeric) OWNER TO ALICE;
             CREATE OPERATOR === (FUNCTION = ALICE.same, LEFTARG = int, RIGHTARG = numeric);
             ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 3 === (int, numeric), OPERATOR 3 = (numeric, numeric);
             CREATE TABLE lines (log numeric REFERENCES logs); CREATE INDEX ON lines (log)",
            "index logs_pkey of public.logs calls ALICE.same",
        ),
        (
            "CREATE FUNCTION ALICE.step(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1'; ALTER FUNCTION ALICE.step(int, int) OWNER TO ALICE;
             CREATE AGGREGATE total(int) (SFUNC = ALICE.step, STYPE = int, INITCOND = '0');
             CREATE RULE counts AS ON DELETE TO logs DO ALSO SELECT total(id) FROM logs",
            "rule counts of public.logs calls ALICE.step",
        ),
        (
            "CREATE FUNCTION wrap(int) RETURNS int IMMUTABLE BEGIN ATOMIC SELECT ALICE.note(); END; CREATE INDEX by_wrap ON logs (wrap(id))",
            "index by_wrap of public.logs calls ALICE.note",
        ),
        (
            "CREATE TYPE stamp AS ENUM ('a'); CREATE FUNCTION ALICE.in_words(stamp) RETURNS text LANGUAGE sql AS 'SELECT NULL'; ALTER FUNCTION ALICE.in_words(stamp) OWNER TO ALICE;
             CREATE CAST (stamp AS text) WITH FUNCTION ALICE.in_words AS IMPLICIT; ALTER TABLE logs ADD at stamp",
            "type public.stamp of public.logs calls ALICE.in_words",
        ),
        (
            "CREATE TYPE pair AS (a int); CREATE FUNCTION ALICE.of_pair(pair) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION ALICE.of_pair(pair) OWNER TO ALICE;
             CREATE FUNCTION same(pair, pair) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR == (FUNCTION = same, LEFTARG = pair, RIGHTARG = pair);
             CREATE OPERATOR CLASS pairs DEFAULT FOR TYPE pair USING hash AS OPERATOR 1 ==, FUNCTION 1 ALICE.of_pair(pair); ALTER TABLE logs ADD two pair",
            "type public.pair of public.logs calls ALICE.of_pair",
        ),
        (
            // Whose rows keep those of the job, so that its queries name the table.
            "CREATE TABLE lines (log int REFERENCES logs); CREATE INDEX ON lines (log); CREATE INDEX by_note ON lines ((log + ALICE.hidden()))",
            "index by_note of public.lines calls ALICE.hidden",
        ),
        (
            // And what inherits from it.
            "CREATE TABLE lines (log int REFERENCES logs); CREATE INDEX ON lines (log); CREATE TABLE heirs () INHERITS (lines); CREATE INDEX by_note ON heirs ((log + ALICE.hidden()))",
            "index by_note of public.heirs calls ALICE.hidden",
        ),
    ] {
        let (database, alice) = beside(server, LOGS);
        let scenario = jobs(Scenario::with_database(server, &database), RETENTION);
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        server.sql(&database, &sql.replace("ALICE", &alice));
        let named = format!("{}, code of \"{alice}\"", named.replace("ALICE", &alice));
        let output = scenario.run(&["run-job", "refused", "--yes", "--dry-run"]);
        if output.code != Some(77) || !output.stderr.contains(&named) {
            missed.push(format!("{named}: {}", output.stderr));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// As with a version of pgvector that does not have it yet.
#[test]
fn an_operator_that_pgvector_lacks_is_not_taken_from_another_role() {
    let server = server(18);
    let (database, alice) = beside(server, "SELECT 1");
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext; GRANT CREATE, USAGE ON SCHEMA ext TO {alice}; SET search_path = ext, public;
             ALTER EXTENSION vector DROP OPERATOR CLASS bit_hamming_ops USING ivfflat; DROP OPERATOR CLASS bit_hamming_ops USING ivfflat;
             ALTER EXTENSION vector DROP OPERATOR CLASS bit_hamming_ops USING hnsw; DROP OPERATOR CLASS bit_hamming_ops USING hnsw;
             ALTER EXTENSION vector DROP OPERATOR <~> (bit, bit); DROP OPERATOR <~> (bit, bit);
             CREATE TABLE public.v (id int PRIMARY KEY, e bit(16)); INSERT INTO v SELECT i, i::bit(16) FROM generate_series(1, 500) i; ANALYZE v;
             SET ROLE {alice}; CREATE FUNCTION ext.takes(bit, bit) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN PERFORM {alice}.note(); RETURN 1; END $$;
             CREATE OPERATOR ext.<~> (FUNCTION = ext.takes, LEFTARG = bit, RIGHTARG = bit)"
        ),
    );
    let task = "[vector_index]\ntable = 'public.v'\ncolumn = 'e'\nmethod = 'ivfflat'\nmetric = 'hamming'\n";
    let scenario = jobs(Scenario::with_database(server, &database), task);
    let output = scenario.run(&["run-job", "refused"]);
    assert_eq!(ran(server, &database), "0", "{output:?}");
    output.exited(78).says(&["this version of pgvector has no operator <~> for bit"]);
}
