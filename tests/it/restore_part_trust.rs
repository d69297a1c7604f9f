//! What others can do to a restore into a database in use: rename its schemas, and put code into what it finds there.

use crate::restore_part::{definitions, restore, with_set};
use crate::support::owners::{LOGS, RETENTION, beside};
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

/// A table whose rows wait, while they are restored, for whoever holds the advisory lock 7.
const WAITS: &str = "CREATE SCHEMA hr; CREATE FUNCTION hr.waits(int) RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(7); RETURN true; END';
     CREATE TABLE hr.big (id int PRIMARY KEY CHECK (hr.waits(id))); INSERT INTO hr.big SELECT generate_series(1, 50);
     CREATE TABLE other (id int)";
const HOLDS: &str = "BEGIN; SELECT pg_advisory_xact_lock(7)";

fn waits(server: &Server, database: &str) {
    let query = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = '{database}')"
    );
    eventually("the restore waits in the midst of its rows", || server.sql("postgres", &query) != "0");
}

fn renamed(server: &Server, database: &str, schema: &str) -> Result<String, String> {
    server.psql(database, &format!("SET lock_timeout = '300ms'; ALTER SCHEMA {schema} RENAME TO elsewhere"))
}

#[test]
fn a_schema_keeps_its_name_until_a_restore_that_goes_by_it_has_ended() {
    for major in [14, 15, 16, 17, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, &format!("{WAITS}; CREATE SCHEMA unrelated"));
        let scenario = with_set(server, &database, "");
        server.sql(&database, "DROP TABLE hr.big");
        let holder = server.session(&database, HOLDS);
        let run = scenario.start(&["backups", "restore", "latest", "--into", "app", "--table", "hr.big"]);
        waits(server, &database);
        assert!(renamed(server, &database, "hr").unwrap_err().contains("lock timeout"), "on {major}");
        server.sql(&database, "SET lock_timeout = '300ms'; GRANT USAGE ON SCHEMA hr TO PUBLIC; CREATE TABLE hr.new (i int)");
        server.sql(&database, "SET lock_timeout = '300ms'; ALTER SCHEMA unrelated RENAME TO hr_2");
        holder.ends_with("COMMIT");
        run.wait().succeeded();
        renamed(server, &database, "hr").unwrap();

        let empty = server.empty_database();
        server.sql(&empty, "CREATE SCHEMA IF NOT EXISTS public");
        let holder = server.session(&empty, HOLDS);
        let run = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&empty)]);
        waits(server, &empty);
        assert!(renamed(server, &empty, "public").unwrap_err().contains("lock timeout"), "on {major}");
        holder.ends_with("COMMIT");
        run.wait().succeeded();
    }
}

#[test]
fn a_restore_by_a_role_that_cannot_hold_names_ends_when_one_of_them_means_another_schema() {
    let server = server(18);
    let database = server.new_database();
    let loader = format!("loader_{database}");
    server.sql(
        &database,
        &format!(
            "{WAITS}; CREATE ROLE {loader} LOGIN; GRANT ALL ON SCHEMA hr TO {loader}; ALTER FUNCTION hr.waits OWNER TO {loader};
             ALTER TABLE hr.big OWNER TO {loader}"
        ),
    );
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE hr.big");
    let holder = server.session(&database, HOLDS);
    let into = server.url_as(&loader, &database);
    let run = scenario.start(&["backups", "restore", "latest", "--into", &into, "--table", "hr.big"]);
    waits(server, &database);
    renamed(server, &database, "hr").unwrap();
    server.sql(&database, &format!("CREATE SCHEMA hr; GRANT ALL ON SCHEMA hr TO {loader}"));
    holder.ends_with("COMMIT");
    run.wait().exited(1).says(&["the schema hr was renamed or dropped", "is unchanged"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_class WHERE relname = 'big'"), "0");
}

#[test]
fn a_restore_does_not_wait_for_long_for_a_schema_that_is_being_renamed() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, WAITS);
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE hr.big");
    let holder = server.session(&database, "BEGIN; ALTER SCHEMA hr RENAME TO x; ALTER SCHEMA x RENAME TO hr");
    restore(&scenario, &["--table", "hr.big"]).exited(75).says(&["another session renames or drops one of the schemas hr"]);
    holder.ends_with("COMMIT");
    restore(&scenario, &["--table", "hr.big"]).succeeded();
}

#[test]
fn a_job_keeps_the_name_of_its_tables_schema_while_a_transaction_changes_rows() {
    let server = server(18);
    let (database, _) = beside(server, &format!("{WAITS}; {LOGS}; ALTER TABLE logs SET SCHEMA hr"));
    server.sql(
        &database,
        "CREATE FUNCTION hr.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM hr.waits(1); RETURN OLD; END';
         CREATE TRIGGER slow BEFORE DELETE ON hr.logs FOR EACH ROW EXECUTE FUNCTION hr.slow()",
    );
    // A batch that gives up its wait lets the schema go until it tries again.
    let job = format!("database = 'app'\n{}\n[limits]\nlock_timeout = '10m'\n", RETENTION.replace("public.logs", "hr.logs"));
    let scenario = Scenario::with_database(server, &database).job("old", &job);
    let holder = server.session(&database, HOLDS);
    let run = scenario.start(&["run-job", "old", "--yes"]);
    waits(server, &database);
    assert!(renamed(server, &database, "hr").unwrap_err().contains("lock timeout"));
    holder.ends_with("COMMIT");
    run.wait().succeeded();
}

/// The set's job trusts no owners from here on.
fn distrusting(scenario: Scenario) -> Scenario {
    scenario.backup_job("local", "verify = \"restore\"\n[limits]\ntrust_owners = false")
}

#[test]
fn code_of_others_in_living_objects_that_a_part_uses_is_named_or_refused() {
    for (major, table, since, says) in [
        (14, "fk", "CREATE INDEX ON ALICE.people ((id + ALICE.hidden()))", "ALICE.people belongs to \"ALICE\""),
        (18, "fk", "CREATE INDEX ON ALICE.people ((id + ALICE.hidden()))", "calls ALICE.hidden, code of \"ALICE\""),
        (14, "checked", "", "function ALICE.is_ok(integer), which is there already and belongs to \"ALICE\""),
        (18, "typed", "ALTER DOMAIN ALICE.dom ADD CHECK (ALICE.note() = 1)", "type ALICE.dom, which is there already"),
        (
            18,
            "child",
            "ALTER TABLE ALICE.parent ADD CHECK (ALICE.note() = 1)",
            "CHECK parent_check of ALICE.parent calls ALICE.note",
        ),
        (18, "indexed", "", "function ALICE.is_ok(integer), which is there already"),
        (18, "outer", "", "function ALICE.is_ok(integer), which is there already"),
        (
            18,
            "used",
            "CREATE FUNCTION lib.norm(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM ALICE.note(); RETURN true; END'",
            "function lib.norm(integer), which is there already and belongs to \"ALICE\"",
        ),
        (18, "near", "", "\"ALICE\" may create objects in the schema lib"),
    ] {
        let server = server(major);
        let (database, alice) = beside(
            server,
            "SET ROLE ALICE; CREATE FUNCTION ALICE.is_ok(int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT true'; CREATE DOMAIN ALICE.dom AS int;
             CREATE TABLE ALICE.parent (id int); CREATE TABLE ALICE.people (id int PRIMARY KEY); INSERT INTO ALICE.people VALUES (1); RESET ROLE;
             CREATE SCHEMA hr; CREATE SCHEMA lib; GRANT USAGE ON SCHEMA hr TO ALICE; GRANT CREATE, USAGE ON SCHEMA lib TO ALICE;
             CREATE TABLE hr.fk (id int PRIMARY KEY REFERENCES ALICE.people); INSERT INTO hr.fk VALUES (1);
             CREATE TABLE hr.checked (id int CHECK (ALICE.is_ok(id))); INSERT INTO hr.checked VALUES (1);
             CREATE TABLE hr.typed (id ALICE.dom); INSERT INTO hr.typed VALUES (1);
             CREATE TABLE hr.child (x int) INHERITS (ALICE.parent); INSERT INTO hr.child VALUES (1);
             CREATE TABLE hr.indexed (id int); CREATE INDEX ON hr.indexed (ALICE.is_ok(id));
             CREATE DOMAIN lib.mine AS int CHECK (ALICE.is_ok(VALUE)); CREATE TABLE hr.\"outer\" (id lib.mine);
             CREATE FUNCTION lib.norm(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE TABLE hr.used (id int CHECK (lib.norm(id))); INSERT INTO hr.used VALUES (1);
             CREATE FUNCTION lib.other(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE TABLE hr.near (id int CHECK (lib.other(id)))",
        );
        let scenario = with_set(server, &database, "");
        server.sql(
            &database,
            &format!(
                "DROP TABLE hr.\"{table}\"; DROP FUNCTION IF EXISTS lib.norm {}",
                if table == "used" { "" } else { "CASCADE" }
            ),
        );
        server.sql(&database, &format!("SET ROLE {alice}; {}", since.replace("ALICE", &alice)));
        server.sql(&database, "TRUNCATE public.ran");
        let says = says.replace("ALICE", &alice);
        let part = ["--table", &format!("hr.{table}")];
        restore(&scenario, &[&part[..], &["--dry-run"]].concat()).succeeded().prints(&[&says, "\"postgres\", a superuser"]);
        let scenario = distrusting(scenario);
        for more in [&["--dry-run"][..], &[]] {
            restore(&scenario, &[&part[..], more].concat()).exited(77).says(&[
                &says,
                "trust_owners = false refuses that",
                "is unchanged",
            ]);
        }
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0", "{table}");
        assert_eq!(server.sql(&database, &format!("SELECT to_regclass('hr.\"{table}\"') IS NULL")), "t");
    }
}

#[test]
fn where_owners_are_not_trusted_no_part_comes_into_a_database_in_which_others_live() {
    // What they have put behind living objects of the superuser, where no search finds it.
    for (major, living, since) in [
        (
            18,
            "CREATE TYPE hr.rec AS (x ALICE.dom); CREATE TABLE hr.part (r hr.rec); INSERT INTO hr.part VALUES (ROW(1))",
            "ALTER DOMAIN ALICE.dom ADD CHECK (ALICE.note() = 1)",
        ),
        (
            14,
            "CREATE VIEW hr.living AS SELECT id FROM ALICE.people WHERE ALICE.is_ok(id); CREATE MATERIALIZED VIEW hr.part AS SELECT * FROM hr.living",
            "CREATE OR REPLACE FUNCTION ALICE.is_ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM ALICE.note(); RETURN true; END'",
        ),
        (
            18,
            "CREATE FUNCTION hr.ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN lib.norm($1); END'; CREATE TABLE hr.part (id int CHECK (hr.ok(id))); INSERT INTO hr.part VALUES (1); DROP FUNCTION lib.norm",
            "CREATE FUNCTION lib.norm(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM ALICE.note(); RETURN true; END'",
        ),
        (
            15,
            "CREATE TABLE hr.part (id int); CREATE FUNCTION hr.at_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM ALICE.is_ok(1); END'; CREATE EVENT TRIGGER at_ddl ON ddl_command_end EXECUTE FUNCTION hr.at_ddl(); ALTER EVENT TRIGGER at_ddl ENABLE ALWAYS",
            "CREATE OR REPLACE FUNCTION ALICE.is_ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM ALICE.note(); RETURN true; END'",
        ),
    ] {
        let server = server(major);
        let (database, alice) = beside(
            server,
            &format!(
                "SET ROLE ALICE; CREATE FUNCTION ALICE.is_ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'; CREATE DOMAIN ALICE.dom AS int;
                 CREATE TABLE ALICE.people (id int); INSERT INTO ALICE.people VALUES (1); RESET ROLE;
                 CREATE SCHEMA hr; CREATE SCHEMA lib; GRANT CREATE, USAGE ON SCHEMA lib TO ALICE;
                 CREATE FUNCTION lib.norm(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'; {living}"
            ),
        );
        let scenario = distrusting(with_set(server, &database, ""));
        let kind = if living.contains("MATERIALIZED VIEW hr.part") { "MATERIALIZED VIEW" } else { "TABLE" };
        server.sql(&database, &format!("DROP {kind} hr.part; SET ROLE {alice}; {}", since.replace("ALICE", &alice)));
        server.sql(&database, "TRUNCATE public.ran");
        for more in [&["--dry-run"][..], &[]] {
            let refused = restore(&scenario, &[&["--table", "hr.part"][..], more].concat()).exited(77);
            refused.says(&[&alice, "trust_owners = false refuses that", "is unchanged"]);
        }
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0", "{living}");
    }
}

#[test]
fn a_living_object_that_belongs_to_another_than_in_the_set_is_named() {
    let server = server(18);
    let (database, alice) = beside(
        server,
        "CREATE SCHEMA lib; GRANT ALL ON SCHEMA lib TO ALICE; CREATE FUNCTION lib.norm(int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
         CREATE TABLE used (id int CHECK (lib.norm(id)))",
    );
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE used; DROP FUNCTION lib.norm");
    server.sql(
        &database,
        &format!("SET ROLE {alice}; CREATE FUNCTION lib.norm(int) RETURNS boolean LANGUAGE sql AS 'SELECT true'"),
    );
    let note = format!("function lib.norm belongs to {alice} here, and to postgres in the set");
    for more in [&["--dry-run"][..], &["--as", "copy", "--dry-run"]] {
        restore(&scenario, &[&["--table", "used"], more].concat()).succeeded().prints(&[&note]);
    }
    restore(&scenario, &["--table", "used"]).succeeded().says(&[&note]);
}

#[test]
fn nobody_else_shapes_where_sessions_for_rows_find_names() {
    let server = server(18);
    let (database, alice) = beside(server, "CREATE SCHEMA hr; CREATE TABLE hr.logs (id int PRIMARY KEY, created_at timestamptz);
        INSERT INTO hr.logs SELECT i, now() - interval '1 year' FROM generate_series(1, 50) i;
        CREATE FUNCTION hr.fold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF lower(TG_OP) = ''never'' THEN RAISE ''no''; END IF; RETURN coalesce(NEW, OLD); END';
        CREATE TRIGGER fold BEFORE INSERT OR DELETE ON hr.logs FOR EACH ROW EXECUTE FUNCTION hr.fold();
        SET ROLE ALICE; CREATE FUNCTION ALICE.lower(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM ALICE.note(); RETURN $1; END'; RESET ROLE");
    let retention = RETENTION.replace("public.logs", "hr.logs");
    let job = |limits: &str| format!("database = 'app'\n{retention}archive = 'local'\n{limits}");
    let with = |scenario: Scenario, limits: &str| scenario.job("old", &job(limits));
    let no_trust = "[limits]\ntrust_owners = false\n";
    let scenario = with_set(server, &database, "");
    let scenario = with(distrusting(scenario), no_trust);
    let trusted = with(with_set(server, &database, ""), "");
    let commands: [&[&str]; 4] = [
        &["run-job", "old", "--yes"],
        &["archives", "restore", "--table", "hr.logs"],
        &["backups", "restore", "latest", "--into", "app", "--table", "hr.logs", "--merge", "insert-missing"],
        &[
            "backups",
            "restore",
            "latest",
            "--into",
            "app",
            "--table",
            "hr.logs",
            "--merge",
            "insert-missing",
            "--where",
            "id = 2",
            "--dry-run",
        ],
    ];
    // Where nobody else shapes it, everything runs: also there are archived rows then.
    for command in commands {
        scenario.run(command).succeeded();
    }
    let by_owner = format!("search_path that \"{alice}\" sets, the owner of the database");
    for (given, says, taken) in [
        (
            format!(
                "ALTER DATABASE {database} OWNER TO {alice}; ALTER DATABASE {database} SET search_path = {alice}, public, pg_catalog"
            ),
            by_owner.as_str(),
            format!("ALTER DATABASE {database} OWNER TO postgres; ALTER DATABASE {database} RESET search_path"),
        ),
        (
            format!("ALTER DATABASE {database} SET search_path = {alice}, public"),
            &format!("in the schema {alice} of the search_path, which belongs to \"{alice}\""),
            format!("ALTER DATABASE {database} RESET search_path"),
        ),
        (
            format!("GRANT CREATE ON DATABASE {database} TO {alice}"),
            &format!("\"{alice}\" may create schemas of the search_path in the database {database}"),
            format!("REVOKE CREATE ON DATABASE {database} FROM {alice}"),
        ),
        (
            format!("GRANT CREATE ON SCHEMA public TO {alice}"),
            &format!("\"{alice}\" may create objects in the schema public"),
            format!("REVOKE CREATE ON SCHEMA public FROM {alice}"),
        ),
    ] {
        server.sql(&database, &given);
        for command in commands {
            scenario.run(command).exited_with_one_of(&[77]).says(&[says]);
        }
        let checked = scenario.run(&["check", "--connect"]);
        assert!((checked.stdout + &checked.stderr).contains(says));
        trusted.run(&["check", "--connect"]).succeeded().prints(&[says]);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0");
        server.sql(&database, &taken);
    }
    for command in commands {
        scenario.run(command).succeeded();
    }
}

#[test]
fn a_copy_under_another_name_makes_functions_and_types_with_the_rights_that_they_had() {
    for major in [14, 18] {
        let server = server(major);
        let (database, _) = beside(
            server,
            "CREATE SCHEMA hr; CREATE FUNCTION hr.peek(int) RETURNS text STABLE SECURITY DEFINER LANGUAGE sql AS 'SELECT ''x''';
             REVOKE ALL ON FUNCTION hr.peek(int) FROM PUBLIC; CREATE DOMAIN hr.d AS int; REVOKE ALL ON DOMAIN hr.d FROM PUBLIC;
             CREATE FUNCTION hr.pay() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION hr.pay() FROM PUBLIC; GRANT EXECUTE ON FUNCTION hr.pay() TO ALICE;
             CREATE TABLE hr.pay (id hr.d PRIMARY KEY DEFAULT hr.pay(), k text DEFAULT hr.peek(1)); INSERT INTO hr.pay VALUES (1); GRANT SELECT ON hr.pay TO PUBLIC",
        );
        let scenario = with_set(server, &database, "");
        let all = definitions(server, &database, &["--exclude-table=hr.*"]);
        server.sql(&database, "DROP TABLE hr.pay; DROP FUNCTION hr.peek, hr.pay; DROP DOMAIN hr.d");
        restore(&scenario, &["--table", "hr.pay", "--as", "hr.copy"]).succeeded();
        assert_eq!(definitions(server, &database, &["--exclude-table=hr.*"]), all, "on {major}");
        assert_eq!(server.sql(&database, "SELECT relacl IS NULL FROM pg_class WHERE oid = 'hr.copy'::regclass"), "t");
    }
}

#[test]
fn names_that_a_trigger_or_a_policy_defines_are_no_schemas() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE SCHEMA hr; CREATE FUNCTION hr.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not allowed''; END';
         CREATE TABLE hr.people (id int); CREATE TABLE hr.log (id int, status text); INSERT INTO hr.log VALUES (1, 'x');
         CREATE TRIGGER guard BEFORE UPDATE ON hr.log FOR EACH ROW WHEN (old.status IS DISTINCT FROM new.status) EXECUTE FUNCTION hr.guard();
         CREATE RULE r AS ON DELETE TO hr.log WHERE old.id = 7 DO ALSO INSERT INTO hr.people SELECT old.id;
         CREATE POLICY p ON hr.log USING (EXISTS (SELECT FROM hr.people p WHERE p.id = log.id));
         CREATE SCHEMA new; CREATE TABLE new.status (); CREATE SCHEMA old; CREATE TABLE old.id (); CREATE SCHEMA p; CREATE TABLE p.id (); CREATE SCHEMA log; CREATE TABLE log.id ()",
    );
    let all = definitions(server, &database, &["--schema=hr"]);
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE hr.log; DROP SCHEMA new, old, p, log CASCADE");
    let restored = restore(&scenario, &["--table", "hr.log"]).succeeded();
    assert!(!restored.stderr.contains("left out"), "{}", restored.stderr);
    assert_eq!(definitions(server, &database, &["--schema=hr"]), all);
}
