//! What roles that may create objects in the schema of a partitioned table can do to its retired partitions, and to whoever writes to them: nothing.

use crate::partition::{first_is_over, old_logs};
use crate::support::Scenario;
use crate::support::postgres::{SOME_MAJORS, Server, server};

/// The trigger's function of each retired table, and its owner.
const GUARDS: &str =
    "SELECT count(*), count(*) FILTER (WHERE p.proowner = c.relowner) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                      JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgname = 'pgtend_retired'";

/// `old_logs`, and a role that may create objects in its schema and owns functions with the names that the guards of all its partitions have.
fn made_before(server: &Server) -> (String, String) {
    let database = old_logs(server, 5);
    let stranger = format!("stranger_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {stranger} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {stranger}; SET ROLE {stranger};
             DO $$ DECLARE made record; BEGIN FOR made IN SELECT oid FROM pg_class WHERE relname LIKE 'logs%' AND relkind = 'r' LOOP
               EXECUTE format('CREATE FUNCTION public.pgtend_retired_%s() RETURNS trigger LANGUAGE plpgsql AS %L', made.oid, 'BEGIN RETURN NULL; END');
             END LOOP; END $$"
        ),
    );
    (database, stranger)
}

fn gone(server: &Server, database: &str, stranger: &str) {
    server.sql(database, &format!("DROP OWNED BY {stranger} CASCADE; DROP ROLE {stranger}"));
}

fn retired(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT objoid::regclass FROM pg_description WHERE description LIKE 'Retired from%' LIMIT 1")
}

#[test]
fn the_guard_s_function_is_not_the_one_that_somebody_made_beforehand() {
    for major in SOME_MAJORS {
        let server = server(major);
        let (database, stranger) = made_before(server);
        let scenario = Scenario::logs(server, &database, &first_is_over());
        scenario.tend().succeeded().prints(&["detached 1 partition"]);
        assert_eq!(server.sql(&database, GUARDS), "1|1");
        let table = retired(server, &database);
        // What is theirs changes nothing.
        server.sql(
            &database,
            &format!(
                "SET ROLE {stranger}; DO $$ DECLARE made regprocedure; BEGIN
                   FOR made IN SELECT oid FROM pg_proc WHERE proname LIKE 'pgtend%' AND proowner = current_user::regrole LOOP
                     EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql AS %L', made, 'BEGIN RETURN NEW; END');
                   END LOOP; END $$"
            ),
        );
        let error = server.psql(&database, &format!("DELETE FROM {table} WHERE false")).unwrap_err();
        assert!(error.contains("was retired from public.logs by pgtend and takes no changes"), "{error}");
        let over = Scenario::logs(server, &database, &(first_is_over() + "\ngrace = \"0s\""));
        over.tend().succeeded().prints(&["dropped 1 partition"]);
        let left = format!("SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgtend%' AND proowner <> '{stranger}'::regrole");
        assert_eq!(server.sql(&database, &left), "0");
        gone(server, &database, &stranger);
    }
}

#[test]
fn a_view_that_names_the_guard_s_function_keeps_the_function_and_not_the_table() {
    let server = server(18);
    let database = old_logs(server, 5);
    let stranger = format!("stranger_{database}");
    Scenario::logs(server, &database, &first_is_over()).tend().succeeded().prints(&["detached 1 partition"]);
    let function = server.sql(&database, "SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'pgtend_retired%'");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {stranger} LOGIN; CREATE SCHEMA {stranger} AUTHORIZATION {stranger}; SET ROLE {stranger};
             CREATE VIEW {stranger}.v AS SELECT 1 AS x WHERE public.{function} IS NULL;
             SET check_function_bodies = off;
             DO $$ BEGIN EXECUTE format('CREATE FUNCTION {stranger}.{} RETURNS trigger LANGUAGE plpgsql AS %L', repeat(' ', 1000000)); END $$",
            function.replace("()", "_long()")
        ),
    );
    let over = Scenario::logs(server, &database, &(first_is_over() + "\ngrace = \"0s\""));
    over.tend().succeeded().prints(&["dropped 1 partition"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgtend_retired%'"), "2");
    gone(server, &database, &stranger);
}

#[test]
fn the_guard_s_function_belongs_to_the_table_s_owner_or_to_the_login_that_is_its_member() {
    let server = server(18);
    let (database, stranger) = made_before(server);
    let owner = format!("owner_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {owner}; GRANT CREATE ON DATABASE {database} TO {owner};
             DO $$ DECLARE made regclass; BEGIN FOR made IN SELECT oid FROM pg_class WHERE relname LIKE 'logs%' AND relkind IN ('r', 'p') LOOP
               EXECUTE format('ALTER TABLE %s OWNER TO {owner}', made);
             END LOOP; END $$"
        ),
    );
    let keys = first_is_over();
    let by_owner = Scenario::with_url(server, &server.url_as(&owner, &database)).partitions(
        "public.logs",
        "at",
        &format!("{keys}\n[limits]\ntrust_owners = false"),
    );
    by_owner.tend().succeeded().prints(&["detached 1 partition"]);
    assert_eq!(server.sql(&database, GUARDS), "1|1");
    // By a superuser, one more.
    let days: u32 = keys.split("retain = \"").nth(1).unwrap().split('d').next().unwrap().parse().unwrap();
    let shorter = format!("every = \"month\"\nretain = \"{}d\"", days - 31);
    Scenario::logs(server, &database, &shorter).tend().succeeded().prints(&["detached "]);
    let guards = server.sql(&database, GUARDS);
    let (all, of_the_owner) = guards.split_once('|').unwrap();
    assert!(all == of_the_owner && all != "1", "{guards}");
    server.sql(&database, &format!("DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}"));
    gone(server, &database, &stranger);
}

/// As an earlier release left it: the function that was there, and with its owner.
fn given_away(server: &Server, database: &str, stranger: &str, table: &str, body: &str) {
    let function = format!("public.pgtend_retired_' || '{table}'::regclass::oid || '()");
    server.sql(
        database,
        &format!(
            "CREATE FUNCTION public.code() RETURNS text LANGUAGE sql AS $$ SELECT 'P0001' $$; ALTER FUNCTION public.code() OWNER TO {stranger};
             DO $do$ BEGIN
               EXECUTE 'CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$';
               EXECUTE 'ALTER FUNCTION {function} OWNER TO {stranger}';
             END $do$"
        ),
    );
}

#[test]
fn a_guard_that_was_given_to_somebody_else_is_noticed_and_nothing_that_it_let_through_is_dropped() {
    let server = server(16);
    for (with_archive, body) in [
        (false, "BEGIN RAISE EXCEPTION USING ERRCODE = public.code(); END"),
        (true, "BEGIN RAISE EXCEPTION USING ERRCODE = public.code(); END"),
        (true, "BEGIN RETURN NULL; END"),
    ] {
        let database = old_logs(server, 5);
        let stranger = format!("stranger_{database}");
        server.sql(&database, &format!("CREATE ROLE {stranger}; GRANT CREATE, USAGE ON SCHEMA public TO {stranger}"));
        let keys = first_is_over() + if with_archive { "\narchive = \"local\"" } else { "" };
        let scenario = Scenario::logs(server, &database, &keys);
        scenario.tend().succeeded().prints(&["detached 1 partition"]);
        let table = retired(server, &database);
        given_away(server, &database, &stranger, &table, body);
        if with_archive {
            if body.contains("RETURN NULL") {
                server.sql(&database, &format!("INSERT INTO {table} SELECT 0, at, 'let through' FROM {table} LIMIT 1"));
            }
            scenario.tend().succeeded();
            assert_eq!(server.sql(&database, GUARDS), "1|1");
            let error = server.psql(&database, &format!("DELETE FROM {table} WHERE false")).unwrap_err();
            assert!(error.contains("takes no changes"), "{error}");
            let over = scenario.partitions("public.logs", "at", &(keys + "\ngrace = \"0s\""));
            if body.contains("RETURN NULL") {
                over.tend().succeeded().says(&["was written to after it was archived"]);
                assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "101");
            }
            over.tend().succeeded().prints(&["dropped 1 partition"]);
        } else {
            scenario.tend().exited(1).says(&[&table, "is kept: the function of its guard is public.pgtend_retired_", &stranger]);
            let over = Scenario::logs(server, &database, &(keys + "\ngrace = \"0s\""));
            over.tend().exited(1).says(&["DROP TRIGGER pgtend_retired"]);
            assert_eq!(server.sql(&database, &format!("SELECT count(*) FROM {table}")), "100");
        }
        server.sql(&database, "DROP FUNCTION public.code()");
        gone(server, &database, &stranger);
    }
}
