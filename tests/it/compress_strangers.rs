//! What roles that do not own the compressed table can do to those who write to it, read it and undo it: nothing.

use crate::support::postgres::{Server, server};
use crate::support::scripts::{self, BODY, Client, HASHES, TABLE, of_5_kb};
use crate::support::{Scenario, eventually};

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
    let scenario = at(server, &database, "app");
    server.sql(&database, "ALTER VIEW app.scripts RENAME COLUMN title TO \"Ti, tle\"");
    scenario.run(&["compress", "undo", "scripts"]).exited(78).says(&["privileges of their own", "\"Ti, tle\"", "RENAME COLUMN"]);
    assert_ne!(server.sql(&database, "SELECT count(content_gz) FROM app.scripts_stored"), "0");
    server.sql(&database, "ALTER VIEW app.scripts RENAME COLUMN \"Ti, tle\" TO title");
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
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

/// What the stranger does once the schema got another name while a superuser's write waits: a table of the old name, with this row in it.
fn trap_with_the_row(stranger: &str) -> String {
    format!(
        "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; {} ALTER TABLE app.scripts_stored DISABLE TRIGGER mine; TRUNCATE app.scripts_stored;
         INSERT INTO app.scripts_stored SELECT id, title, content, runs, updated_at, content_gz, content_sha256 FROM other.scripts_stored WHERE id = 1;
         ALTER TABLE app.scripts_stored ENABLE TRIGGER mine; COMMIT",
        trap("app", stranger)
    )
}

#[test]
fn a_write_that_waits_while_the_schema_is_renamed_goes_to_no_table_of_the_old_name() {
    for major in [15, 18] {
        for (holds, write) in [
            ("LOCK TABLE app.scripts_stored IN SHARE MODE", "INSERT INTO app.scripts (content) VALUES ('new')"),
            ("UPDATE app.scripts_stored SET runs = runs WHERE id = 1", "UPDATE app.scripts SET title = 'new' WHERE id = 1"),
            ("UPDATE app.scripts_stored SET runs = runs WHERE id = 1", "DELETE FROM app.scripts WHERE id = 1"),
        ] {
            let server = server(major);
            let (database, stranger) = in_a_schema_of_its_own(server);
            server.sql(
                &database,
                &format!("GRANT USAGE ON SCHEMA app TO {stranger}; GRANT SELECT, UPDATE ON app.scripts_stored TO {stranger}"),
            );
            let [mut holder, mut writer] = [(); 2].map(|()| Client::of(server, &database));
            holder.ask(&format!("SET ROLE {stranger}; BEGIN; {holds}"));
            assert_eq!(holder.state(), "00000", "{holds}");
            writer.send(write);
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            eventually("the write waits", || server.sql(&database, waiting) == "1");
            server.sql(&database, "ALTER SCHEMA app RENAME TO other");
            holder.ask(&trap_with_the_row(&stranger));
            assert_eq!(holder.state(), "00000", "{write}");
            writer.answer();
            assert_eq!(writer.state(), "55000", "{write}");
            assert_eq!(
                server.sql("postgres", &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{stranger}'")),
                "f",
                "{write}"
            );
            assert_eq!(server.sql(&database, "SELECT count(*) FROM other.scripts WHERE title = 'untitled'"), "20", "{write}");
            server.sql(&database, &format!("DROP OWNED BY {stranger} CASCADE; DROP ROLE {stranger}"));
        }
    }
}

#[test]
fn a_writer_with_privileges_on_columns_alone_adds_no_row_to_a_table_of_the_old_name() {
    for major in [15, 18] {
        let server = server(major);
        let (database, stranger) = in_a_schema_of_its_own(server);
        let columns = "title, content, runs, updated_at, content_gz, content_sha256";
        // Such a writer may not lock the table, so its write alone waits: after the look at the name.
        server.sql(
            &database,
            &format!(
                "CREATE ROLE writer_{database}; GRANT USAGE ON SCHEMA app TO {stranger}, writer_{database};
                 GRANT SELECT, UPDATE ON app.scripts_stored TO {stranger}; GRANT SELECT, INSERT ON app.scripts TO writer_{database};
                 GRANT SELECT, INSERT (id, {columns}) ON app.scripts_stored TO writer_{database}"
            ),
        );
        let as_writer = format!("SET ROLE writer_{database}; INSERT INTO app.scripts (content) VALUES ('new')");
        server.sql(&database, &as_writer);
        let [mut holder, mut writer] = [(); 2].map(|()| Client::of(server, &database));
        holder.ask(&format!("SET ROLE {stranger}; BEGIN; LOCK TABLE app.scripts_stored IN SHARE MODE"));
        assert_eq!(holder.state(), "00000");
        writer.send(&as_writer);
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        eventually("the write waits", || server.sql(&database, waiting) == "1");
        server.sql(&database, "ALTER SCHEMA app RENAME TO other");
        // No trigger refuses the row: the writer is no superuser, and could not make anybody one.
        holder.ask(
            "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; CREATE TABLE app.scripts_stored (id int DEFAULT 0, title text, content text, runs int,
             updated_at timestamptz, content_gz bytea, content_sha256 bytea); GRANT ALL ON app.scripts_stored TO PUBLIC; COMMIT",
        );
        assert_eq!(holder.state(), "00000");
        writer.answer();
        assert_eq!(writer.state(), "55000");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM app.scripts_stored"), "0");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM other.scripts"), "21");
        server.sql(
            &database,
            &format!("DROP OWNED BY {stranger}, writer_{database} CASCADE; DROP ROLE {stranger}, writer_{database}"),
        );
    }
}

#[test]
fn an_install_over_row_security_asks_the_policies_of_the_reader_whatever_the_view_had() {
    let server = server(18);
    for (option, runs_at_once) in [("false", false), ("on", true), ("YES", true), ("1", true), ("f", false)] {
        let (database, reader) = in_a_schema_of_its_own(server);
        server.sql(
            &database,
            &format!(
                "ALTER VIEW app.scripts SET (security_invoker = {option}, security_barrier = true); GRANT USAGE ON SCHEMA app TO {reader};
                 GRANT SELECT ON app.scripts, app.scripts_stored TO {reader}; ALTER TABLE app.scripts_stored ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY even ON app.scripts_stored USING (id % 2 = 0)"
            ),
        );
        let scenario = at(server, &database, "app");
        match runs_at_once {
            true => scenario.run(&["run-job", "scripts"]).succeeded(),
            false => scenario.run(&["run-job", "scripts"]).exited(78).says(&["compress install scripts"]),
        };
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        assert_eq!(
            server.sql(&database, &format!("SET ROLE {reader}; SELECT count(*), min(id) FROM app.scripts")),
            "10|2",
            "{option}"
        );
        let options = server.sql(&database, "SELECT reloptions FROM pg_class WHERE oid = 'app.scripts'::regclass");
        assert!(options.contains("security_invoker=true") && options.contains("security_barrier=true"), "{options}");
        scenario.run(&["run-job", "scripts"]).succeeded();
        server.sql(&database, &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    }
}

#[test]
fn row_security_after_a_dictionary_is_refused_by_run_plan_check_and_install() {
    let server = server(18);
    let (database, scenario, name) = with_a_dictionary(server);
    server.sql(
        &database,
        "ALTER TABLE scripts_stored ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON scripts_stored USING (id % 2 = 0);
         ALTER VIEW scripts SET (security_invoker = true)",
    );
    let says = ["row security", "dictionaries", "undo --drop-dictionaries"];
    // Also where the mark was made anew, and names no dictionary.
    let lost = format!(
        "DO $do$ BEGIN EXECUTE (SELECT format('COMMENT ON CONSTRAINT pgtend_one_form ON scripts_stored IS %L', replace(obj_description(oid, 'pg_constraint'), '\"{name}\"', ''))
         FROM pg_constraint WHERE conname = 'pgtend_one_form'); END $do$"
    );
    for change in ["SELECT 1", &lost] {
        server.sql(&database, change);
        scenario.run(&["run-job", "scripts"]).exited(78).says(&says);
        scenario.run(&["run-job", "scripts", "--dry-run"]).exited(78).prints(&says);
        // It reads no row, and so knows what the mark says.
        let check = scenario.run(&["check", "--connect"]);
        assert_eq!(says.iter().all(|part| format!("{check:?}").contains(part)), change == "SELECT 1", "{check:?}");
        scenario.run(&["compress", "install", "scripts"]).exited(78).says(&says);
    }
    scenario.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded();
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
}

#[test]
fn dictionaries_stay_for_rows_in_columns_of_domains_and_arrays() {
    let server = server(18);
    let (database, scenario, name) = with_a_dictionary(server);
    let undo = ["compress", "undo", "scripts", "--drop-dictionaries", "--dry-run"];
    server.sql(&database, "CREATE DOMAIN gz AS bytea; CREATE DOMAIN gzs AS gz[]");
    for (kind, value) in
        [("gz", "content_gz"), ("bytea[]", "ARRAY['x', content_gz]"), ("gz[]", "ARRAY[content_gz]"), ("gzs", "ARRAY[content_gz]")]
    {
        server.sql(&database, &format!("CREATE TABLE copied (id int, gz {kind})"));
        scenario.run(&undo).succeeded().prints(&[&format!("DROP FUNCTION IF EXISTS \"public\".\"{name}\"(bytea)")]);
        server.sql(
            &database,
            &format!(
                "INSERT INTO copied VALUES (0, NULL); INSERT INTO copied SELECT id, {value} FROM scripts_stored WHERE id < 5"
            ),
        );
        scenario.run(&undo).succeeded().prints(&["values of public.copied.gz need one", &name]);
        server.sql(&database, "DROP TABLE copied");
    }
    scenario.run(&undo[..4]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_proc WHERE proname LIKE '%pgtend%'"), "0");
}

#[test]
fn a_function_that_somebodys_view_keeps_after_an_undo_is_no_hindrance_to_the_next_install() {
    let server = server(18);
    let (database, stranger) = in_a_schema_of_its_own(server);
    server.sql(
        &database,
        &format!(
            "GRANT USAGE ON SCHEMA app TO {stranger}; SET ROLE {stranger}; CREATE SCHEMA m; CREATE VIEW m.v AS SELECT app.scripts_pgtend_gunzip('x', 'y', 'UTF8');
             CREATE TABLE m.t (id int); CREATE TRIGGER t BEFORE UPDATE ON m.t FOR EACH ROW EXECUTE FUNCTION app.scripts_pgtend_guard()"
        ),
    );
    let scenario = at(server, &database, "app");
    scenario.run(&["compress", "undo", "scripts"]).succeeded().says(&["view m.v", "m.t"]);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    // But one that belongs to another view of this owner, or to another role, is.
    server.sql(
        &database,
        "CREATE TABLE app.other (id int); CREATE TRIGGER t BEFORE UPDATE ON app.other FOR EACH ROW EXECUTE FUNCTION app.scripts_pgtend_guard()",
    );
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&["there is already a function", "scripts_pgtend_guard"]);
    server.sql(&database, &format!("DROP TABLE app.other; ALTER FUNCTION app.scripts_pgtend_gunzip OWNER TO {stranger}"));
    scenario.run(&["compress", "install", "scripts"]).exited(78).says(&["there is already a function", "scripts_pgtend_gunzip"]);
    server.sql(&database, &format!("DROP OWNED BY {stranger} CASCADE; DROP ROLE {stranger}"));
}
