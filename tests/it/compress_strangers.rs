//! What roles that do not own the compressed table can do to those who write to it, read it and undo it: nothing.

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::support::scripts::{self, BODY, HASHES, TABLE, of_5_kb};

/// Twenty scripts in a schema `app`, compressed.
fn in_a_schema_of_its_own(server: &Server) -> (String, String) {
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "{TABLE} INSERT INTO scripts (content) SELECT {BODY} FROM generate_series(1, 20) i; CREATE SCHEMA app; ALTER TABLE scripts SET SCHEMA app;
             CREATE ROLE stranger_{database}; GRANT CREATE ON DATABASE {database} TO stranger_{database}"
        ),
    );
    let scenario = at(server, &database, "app");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let stranger = format!("stranger_{database}");
    (database, stranger)
}

fn at(server: &Server, database: &str, schema: &str) -> Scenario {
    Scenario::with_database(server, database)
        .job("scripts", &scripts::job("").replace("public.scripts", &format!("{schema}.scripts")))
}

/// A table behind a view, as anybody may make one: whoever writes to it runs the maker's code.
fn trap(schema: &str, stranger: &str) -> String {
    format!(
        "CREATE TABLE {schema}.scripts_stored (id int, title text, content text, runs int, updated_at timestamptz, content_gz bytea, content_sha256 bytea);
         INSERT INTO {schema}.scripts_stored SELECT i, 'trap', 'trap' FROM generate_series(1, 20) i; GRANT ALL ON {schema}.scripts_stored TO PUBLIC;
         CREATE FUNCTION {schema}.mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {stranger} SUPERUSER'; RETURN NEW; END $$;
         CREATE TRIGGER mine BEFORE INSERT OR UPDATE OR DELETE ON {schema}.scripts_stored FOR EACH ROW EXECUTE FUNCTION {schema}.mine();"
    )
}

/// Tries every way to write, as a superuser.
fn nothing_is_written(server: &Server, database: &str, schema: &str, stranger: &str) {
    for write in [
        format!("INSERT INTO {schema}.scripts (content) VALUES ('new')"),
        format!("UPDATE {schema}.scripts SET content = 'new' WHERE id = 1"),
        format!("UPDATE {schema}.scripts SET title = 'new' WHERE id = 1"),
        format!("DELETE FROM {schema}.scripts WHERE id = 1"),
    ] {
        let error = server.psql(database, &write).unwrap_err();
        assert!(error.contains("nothing was written: the table that view"), "{write}: {error}");
    }
    assert_eq!(server.sql("postgres", &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{stranger}'")), "f");
}

#[test]
fn a_table_that_has_only_the_name_is_not_written_through_the_view() {
    for major in [15, 18] {
        let server = server(major);
        let (database, stranger) = in_a_schema_of_its_own(server);
        let reads = |schema: &str| server.sql(&database, &format!("SET search_path = {schema}; {HASHES}"));
        let hashes = reads("app");
        // A schema of the old name, with the function that an earlier release called, too.
        server.sql(
            &database,
            &format!(
                "ALTER SCHEMA app RENAME TO other; SET ROLE {stranger}; CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; {}
                 CREATE FUNCTION app.scripts_pgtend_own(seen xid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {stranger} SUPERUSER'; RETURN true; END $$",
                trap("app", &stranger)
            ),
        );
        nothing_is_written(server, &database, "other", &stranger);
        // A run, or an installation, brings the view up to date.
        let scenario = at(server, &database, "other");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        assert_eq!(reads("other"), hashes);
        server.sql(&database, "UPDATE other.scripts SET content = content || ' changed' WHERE id < 9");

        // A table of the old name in the same schema.
        server.sql(
            &database,
            &format!(
                "ALTER TABLE other.scripts_stored RENAME TO bodies; GRANT CREATE, USAGE ON SCHEMA other TO {stranger}; SET ROLE {stranger}; {}",
                trap("other", &stranger)
            ),
        );
        nothing_is_written(server, &database, "other", &stranger);
        server.sql(&database, "DROP TABLE other.scripts_stored; ALTER TABLE other.bodies RENAME TO scripts_stored");
        server.sql(&database, "UPDATE other.scripts SET title = 'again' WHERE id < 9");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM other.scripts WHERE title = 'again'"), "8");
        server.sql(&database, &format!("DROP OWNED BY {stranger} CASCADE; DROP ROLE {stranger}"));
    }
}

#[test]
fn a_view_of_another_owner_than_the_table_is_written_as_before() {
    let server = server(18);
    let (database, stranger) = in_a_schema_of_its_own(server);
    server.sql(
        &database,
        &format!("GRANT USAGE ON SCHEMA app TO {stranger}; GRANT ALL ON app.scripts_stored TO {stranger}; ALTER VIEW app.scripts OWNER TO {stranger}"),
    );
    for role in ["postgres", stranger.as_str()] {
        server.sql(&database, &format!("SET ROLE {role}; UPDATE app.scripts SET content = content || ' {role}'; DELETE FROM app.scripts WHERE id = (SELECT max(id) FROM app.scripts)"));
        assert_eq!(server.sql(&database, &format!("SELECT bool_and(content LIKE '% {role}') FROM app.scripts")), "t", "{role}");
    }
    server.sql(&database, &format!("ALTER VIEW app.scripts OWNER TO postgres; DROP OWNED BY {stranger}; DROP ROLE {stranger}"));
}

#[test]
fn a_trigger_function_of_an_earlier_release_is_replaced_by_the_next_run() {
    let server = server(18);
    let (database, stranger) = in_a_schema_of_its_own(server);
    let source = "SELECT md5(prosrc) FROM pg_proc WHERE proname = 'scripts_pgtend_write'";
    let before = server.sql(&database, source);
    server.sql(
        &database,
        "DO $do$ BEGIN EXECUTE replace(pg_get_functiondef('app.scripts_pgtend_write'::regproc), 'IF NOT FOUND THEN', 'IF false THEN'); END $do$",
    );
    assert_ne!(server.sql(&database, source), before);
    let scenario = at(server, &database, "app");
    scenario.run(&["run-job", "scripts", "--dry-run"]).succeeded().prints(&["the trigger function of the view is not the one"]);
    assert_ne!(server.sql(&database, source), before);
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, source), before);
    server.sql(&database, &format!("DROP OWNED BY {stranger}; DROP ROLE {stranger}"));
}

/// The job with dictionaries, and a table that has one.
fn with_a_dictionary(server: &Server) -> (String, Scenario, String) {
    let database = of_5_kb(server, 300);
    let scenario = Scenario::with_database(server, &database).job("scripts", &scripts::job("dictionary = true"));
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let name = server.sql(&database, "SELECT proname FROM pg_proc WHERE proname LIKE 'pgtend\\_dictionary%'");
    assert!(name.starts_with("pgtend_dictionary_"), "{name}");
    (database, scenario, name)
}

#[test]
fn views_of_others_over_the_functions_keep_no_undo_from_ending() {
    let server = server(18);
    let (database, scenario, name) = with_a_dictionary(server);
    let hashes = server.sql(&database, HASHES);
    let stranger = format!("stranger_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {stranger}; CREATE SCHEMA m AUTHORIZATION {stranger}; SET ROLE {stranger}; CREATE VIEW m.v AS SELECT public.{name}('x');
             CREATE VIEW m.w AS SELECT public.scripts_pgtend_gunzip('x', 'y', 'UTF8')"
        ),
    );
    let undo = ["compress", "undo", "scripts", "--drop-dictionaries"];
    let says = [&name, "view m.v", "scripts_pgtend_gunzip", "view m.w", "stays"];
    scenario.run(&[&undo[..], &["--dry-run"]].concat()).succeeded().prints(&says);
    scenario.run(&undo).succeeded().says(&says);
    assert_eq!(server.sql(&database, HASHES), hashes);
    assert_eq!(server.sql(&database, "SELECT relkind FROM pg_class WHERE relname = 'scripts'"), "r");
    let left = "SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE proname LIKE '%pgtend%'";
    assert_eq!(server.sql(&database, left), format!("{name} scripts_pgtend_gunzip"));
    server.sql(&database, &format!("DROP OWNED BY {stranger} CASCADE; DROP ROLE {stranger}"));
}

#[test]
fn dictionaries_stay_as_long_as_copied_rows_need_them_and_until_it_is_asked_for() {
    let server = server(18);
    let (database, scenario, name) = with_a_dictionary(server);
    server.sql(&database, "CREATE TABLE \"Old\" AS SELECT * FROM scripts_stored WHERE id < 5");
    scenario
        .run(&["compress", "undo", "scripts", "--drop-dictionaries", "--dry-run"])
        .succeeded()
        .prints(&["values of public.\"Old\".content_gz need one", &name]);
    server.sql(&database, "DELETE FROM \"Old\"; INSERT INTO \"Old\" (content_gz) VALUES ('\\x01'), (repeat('x', 99)::bytea)");
    scenario.run(&["compress", "undo", "scripts", "--dry-run"]).succeeded().prints(&[
        "dictionaries stay",
        "--drop-dictionaries",
        &name,
    ]);
    scenario.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_proc WHERE proname LIKE '%pgtend%'"), "0");
}

#[test]
fn privileges_on_columns_of_the_view_are_kept_by_an_undo() {
    let server = server(18);
    let (database, reader) = in_a_schema_of_its_own(server);
    server.sql(
        &database,
        &format!(
            "GRANT USAGE ON SCHEMA app TO {reader}; GRANT SELECT (id, content) ON app.scripts TO {reader}; GRANT UPDATE (title) ON app.scripts TO {reader} WITH GRANT OPTION"
        ),
    );
    at(server, &database, "app").run(&["compress", "undo", "scripts"]).succeeded();
    let may = |what: &str| server.psql(&database, &format!("SET ROLE {reader}; {what}"));
    assert!(may("SELECT count(content) FROM app.scripts").unwrap().ends_with("20"));
    assert!(may("SELECT title FROM app.scripts").is_err());
    assert!(may("UPDATE app.scripts SET title = 'mine'").is_ok() && may("UPDATE app.scripts SET runs = 1").is_err());
    assert_eq!(
        server.sql(&database, "SELECT string_agg(attname || attacl::text, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'app.scripts'::regclass AND attacl IS NOT NULL"),
        format!("id{{{reader}=r/postgres}} title{{{reader}=w*/postgres}} content{{{reader}=r/postgres}}")
    );
    server.sql(&database, &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
}

#[test]
fn a_run_that_shows_a_new_column_leaves_the_options_of_the_view() {
    let server = server(18);
    let (database, reader) = in_a_schema_of_its_own(server);
    server.sql(
        &database,
        &format!(
            "GRANT USAGE ON SCHEMA app TO {reader}; GRANT SELECT ON app.scripts TO {reader}; ALTER VIEW app.scripts SET (security_invoker = true, security_barrier = true);
             ALTER TABLE app.scripts_stored ADD COLUMN salary int DEFAULT 4711"
        ),
    );
    let reads = || server.psql(&database, &format!("SET ROLE {reader}; SELECT count(*) FROM app.scripts"));
    assert!(reads().unwrap_err().contains("permission denied"));
    let scenario = at(server, &database, "app");
    for command in [&["run-job", "scripts"][..], &["compress", "install", "scripts"]] {
        scenario.run(command).succeeded();
        assert_eq!(server.sql(&database, "SELECT max(salary) FROM app.scripts"), "4711");
        assert_eq!(
            server.sql(&database, "SELECT reloptions FROM pg_class WHERE oid = 'app.scripts'::regclass"),
            "{security_invoker=true,security_barrier=true}"
        );
        assert!(reads().unwrap_err().contains("permission denied"));
    }
    server.sql(&database, &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
}

#[test]
fn dictionaries_follow_a_table_whose_mark_was_lost_and_made_anew() {
    let server = server(18);
    let (database, scenario, name) = with_a_dictionary(server);
    let hashes = server.sql(&database, HASHES);
    server.sql(&database, "COMMENT ON CONSTRAINT pgtend_one_form ON scripts_stored IS NULL");
    let run = scenario.run(&["run-job", "scripts"]).exited(78);
    let comment =
        run.stderr.lines().find_map(|line| Some(&line[line.find("COMMENT ON CONSTRAINT")?..])).expect("it says what to run");
    server.sql(&database, comment);
    server.sql(&database, "CREATE SCHEMA app; ALTER TABLE scripts_stored SET SCHEMA app; ALTER VIEW scripts SET SCHEMA app");
    let moved =
        Scenario::with_database(server, &database).job("scripts", &scripts::job("dictionary = true").replace("public.", "app."));
    moved.run(&["compress", "install", "scripts"]).succeeded();
    server.sql(&database, &format!("DROP FUNCTION public.{name}(bytea)"));
    assert_eq!(server.sql(&database, &format!("SET search_path = app; {HASHES}")), hashes);
    moved.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, &format!("SET search_path = app; {HASHES}")), hashes);
}
