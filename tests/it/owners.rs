//! Owners of tables put code there: triggers, rules, expressions. It must not run with rights that they have not without a word, and not at all
//! where a job says so.

use crate::support::owners::{LOGS, Owned, RETENTION, warnings};
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

#[test]
fn a_trigger_on_delete_is_named_before_it_runs_as_the_superuser_or_refused() {
    for major in [14, 18] {
        let owned = Owned::with(
            major,
            &format!("{LOGS}; CREATE TRIGGER takes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION on_row()"),
        );
        let scenario = owned.scenario("postgres", RETENTION);
        let named = format!("trigger takes of public.logs calls public.on_row, code of \"{}\"", owned.owner);

        let refusal = [named.as_str(), "trust_owners = false", "connect as a role without more rights"];
        scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&refusal);
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).exited(77).says(&refusal);
        let connected = scenario.run(&["check", "--connect"]).exited(77).stdout;
        assert!(connected.contains("FAILED") && connected.contains("WARNING: trigger takes"), "{connected}");
        scenario
            .run(&["run-job", "warned", "--yes", "--dry-run"])
            .succeeded()
            .prints(&[&format!("WARNING: {named}"), "as \"postgres\", a superuser"]);
        let planned = scenario.run(&["run-job", "warned", "--yes", "--dry-run", "--json"]).succeeded().stdout;
        assert!(planned.contains("foreign_code"), "{planned}");
        assert_eq!(owned.ran(), "", "on {major}");
        assert_eq!(owned.sql("SELECT count(*) FROM logs"), "50");

        let warned = warnings(&scenario, "warned");
        assert!(warned.contains("trigger takes"), "{warned}");
        assert_eq!(owned.ran(), "postgres", "it runs as who connects: that is what the warning says");
        assert_eq!(owned.sql("SELECT count(*) FROM logs"), "0");
    }
}

#[test]
fn whoever_has_no_more_rights_than_the_owner_is_not_warned() {
    let owned =
        Owned::with(16, &format!("{LOGS}; CREATE TRIGGER takes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION on_row()"));
    let Owned { database, owner, .. } = &owned;
    owned.sql(&format!(
        "CREATE ROLE alone_{database} LOGIN; GRANT {owner}, pg_monitor TO alone_{database};
         CREATE ROLE other_{database}; CREATE ROLE many_{database} LOGIN; GRANT {owner}, other_{database} TO many_{database};
         CREATE ROLE granted_{database} LOGIN; GRANT pg_read_all_data TO granted_{database};
         GRANT SELECT, UPDATE, DELETE ON logs TO granted_{database}"
    ));
    for role in [format!("many_{database}"), format!("granted_{database}")] {
        let scenario = owned.scenario(&role, RETENTION);
        scenario
            .run(&["run-job", "refused", "--yes"])
            .exited(77)
            .says(&[&format!("as \"{role}\", with rights that \"{owner}\" lacks")]);
        assert_eq!(owned.ran(), "");
    }
    for role in [owner.clone(), format!("alone_{database}")] {
        let scenario = owned.scenario(&role, RETENTION);
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        assert!(!warnings(&scenario, "refused").contains("code of"), "{role}");
    }
}

/// Any query of the table runs it, when it is planned.
#[test]
fn a_constant_in_an_index_runs_in_no_task_that_trusts_no_owner() {
    let table = "CREATE TABLE parts (id int, created_at timestamptz NOT NULL, content text) PARTITION BY RANGE (created_at);
        CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
        CREATE INDEX parts_idx ON parts ((id + hidden()));
        CREATE TABLE scripts (id int PRIMARY KEY, content text, CONSTRAINT checked CHECK (id >= note()));
        INSERT INTO scripts SELECT i, repeat('Get-Item ' || i, 4000) FROM generate_series(1, 20) i;
        CREATE INDEX scripts_idx ON scripts (id) WHERE id > hidden();
        CREATE STATISTICS scripts_st ON (id + hidden()), id FROM scripts";
    let owned = Owned::with(18, table);
    let cases: [(&str, &[&str]); 4] = [
        (
            "[partition]\ntable = 'public.parts'\ncolumn = 'created_at'\nevery = 'month'\n",
            &["index parts_idx of public.parts calls public.hidden"],
        ),
        (
            "[retention]\ntable = 'public.parts'\ncolumn = 'created_at'\nolder_than = '30d'\n",
            &["index parts_idx of public.parts calls public.hidden"],
        ),
        (
            "[compress]\ntable = 'public.scripts'\ncolumn = 'content'\nmethod = 'toast'\n",
            &["index scripts_idx of", "statistics scripts_st of", "CHECK checked of public.scripts calls public.note"],
        ),
        ("[vector_index]\ntable = 'public.scripts'\ncolumn = 'content'\n", &["index scripts_idx of", "statistics scripts_st of"]),
    ];
    for (job, names) in cases {
        let scenario = owned.scenario("postgres", job);
        // Another job would look at the table, as its owner is trusted.
        std::fs::remove_file(scenario.path("jobs/warned.toml")).unwrap();
        let output = scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(names);
        assert_eq!(owned.ran(), "", "{job}: {}", output.stderr);
        scenario.run(&["check", "--connect"]).exited(77);
        assert_eq!(owned.ran(), "", "{job}");
    }
    let scenario = owned.scenario("postgres", "[compress]\ntable = 'public.scripts'\ncolumn = 'content'\nmethod = 'toast'\n");
    let warned = warnings(&scenario, "warned");
    assert!(warned.contains("CHECK checked"), "{warned}");
    assert!(owned.ran().contains("postgres"), "the test's code can run at all");
}

#[test]
fn a_table_behind_the_view_of_a_compress_job_is_looked_at_even_without_the_view() {
    let owned = Owned::with(
        18,
        "CREATE TABLE scripts (id int PRIMARY KEY, content text);
         INSERT INTO scripts SELECT i, repeat(md5(i::text), 1000) FROM generate_series(1, 20) i",
    );
    let job = "[compress]\ntable = 'public.scripts'\ncolumn = 'content'\nmethod = 'gzip'\n";
    let scenario = owned.scenario("postgres", job);
    scenario.run(&["compress", "install", "refused", "--force"]).exited(77).says(&["public.scripts belongs to"]);
    scenario.run(&["compress", "install", "warned", "--force"]).succeeded();
    // What install made is the owner's to change; a superuser's session silences it, others' do not.
    let Owned { database, owner, .. } = &owned;
    let many = format!("many_{database}");
    owned.sql(&format!("CREATE ROLE other_{database}; CREATE ROLE {many} LOGIN; GRANT {owner}, other_{database} TO {many}"));
    let by_many = owned.scenario(&many, job);
    by_many.run(&["run-job", "refused", "--yes"]).exited(77).says(&["trigger zz_pgtend_one_form of public.scripts_stored"]);
    assert!(!warnings(&by_many, "warned").contains("code of"));
    let stored = owned.sql("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'scripts%stored'");
    owned.sql(&format!("SET ROLE {}; CREATE INDEX bad ON {stored} ((id + hidden())); RESET ROLE; TRUNCATE ran", owned.owner));
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&["index bad of public.scripts_stored calls public.hidden"]);
    owned.sql("DROP VIEW scripts");
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&["index bad of"]);
    scenario.run(&["compress", "install", "refused"]).exited(77).says(&["index bad of"]);
    assert_eq!(owned.ran(), "");
}

#[test]
fn what_postgres_itself_computes_is_nobody_elses_code_unless_it_takes_sql() {
    let table = "CREATE TABLE logs (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz DEFAULT now() CHECK (created_at > '2000-01-01'),
            content text CHECK (length(content) > 0), half int GENERATED ALWAYS AS (length(content) / 2) STORED);
        CREATE INDEX logs_idx ON logs (lower(content)) WHERE half > 1; CREATE STATISTICS logs_st ON lower(content), id FROM logs;
        INSERT INTO logs (content) SELECT repeat('x' || i, 3000) FROM generate_series(1, 20) i";
    let owned = Owned::with(18, table);
    // A function of the superuser's.
    owned.sql(
        "CREATE FUNCTION ours() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$;
         CREATE TRIGGER ours BEFORE DELETE OR UPDATE ON logs FOR EACH ROW EXECUTE FUNCTION ours()",
    );
    let compress = "[compress]\ntable = 'public.logs'\ncolumn = 'content'\nmethod = 'toast'\n";
    for job in [RETENTION, compress] {
        let scenario = owned.scenario("postgres", job);
        scenario.run(&["run-job", "refused"]).exited(77).says(&["public.logs belongs to"]);
        let warned = warnings(&scenario, "warned");
        assert!(!warned.contains("code of") && warned.contains("public.logs belongs to"), "{warned}");
    }
    owned.sql("ALTER TABLE logs ADD CONSTRAINT asks CHECK (query_to_xml('SELECT public.note()', true, true, '') IS NOT NULL) NOT VALID; TRUNCATE ran");
    owned
        .scenario("postgres", compress)
        .run(&["run-job", "refused", "--yes"])
        .exited(77)
        .says(&["CHECK asks of public.logs calls pg_catalog.query_to_xml"]);
    assert_eq!(owned.ran(), "");
}

#[test]
fn triggers_that_a_cascade_sets_off_are_named_where_they_run_as_the_superuser() {
    let tables = format!(
        "{LOGS}; CREATE TABLE lines (log int REFERENCES logs ON DELETE CASCADE); CREATE INDEX ON lines (log); INSERT INTO lines SELECT id FROM logs;
         CREATE TRIGGER before BEFORE DELETE ON lines FOR EACH ROW EXECUTE FUNCTION on_row();
         CREATE TRIGGER after AFTER DELETE ON lines FOR EACH ROW EXECUTE FUNCTION on_row()"
    );
    for (major, as_the_superuser) in [(14, true), (18, false)] {
        let owned = Owned::with(major, &tables);
        let scenario = owned.scenario("postgres", RETENTION);
        // Also those that run as the owner: what they leave behind does not.
        scenario
            .run(&["run-job", "refused", "--yes"])
            .exited(77)
            .says(&["trigger after of public.lines", "trigger before of public.lines"]);
        assert_eq!(owned.ran(), "");
        scenario.run(&["run-job", "warned", "--yes"]).succeeded();
        assert_eq!(owned.ran().contains("postgres"), as_the_superuser, "on {major}: {}", owned.ran());
    }
}

#[test]
fn with_owner_url_the_owners_code_runs_as_the_owner_and_a_backup_still_as_the_login() {
    let owned =
        Owned::with(18, &format!("{LOGS}; CREATE TRIGGER takes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION on_row()"));
    let owner_url = owned.server.url_as(&owned.owner, &owned.database);
    let superuser = owned.server.url(&owned.database);
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl_env = \"URL\"\nowner_url_env = \"OWNER_URL\"\n")
        .env("URL", &superuser)
        .env("OWNER_URL", &owner_url)
        .job("refused", &format!("database = 'app'\n{RETENTION}[limits]\ntrust_owners = false\n"))
        .sql_job("login", "", &["INSERT INTO public.ran VALUES ('sql as ' || current_user)"]);
    let checked = scenario.run(&["check", "--connect"]);
    assert!(checked.stdout.contains(&format!("by owner_url: {}", owned.owner)), "{}", checked.stdout);
    scenario.run(&["run-job", "refused", "--yes"]).succeeded();
    assert_eq!(owned.ran(), owned.owner);
    assert_eq!(owned.sql("SELECT count(*) FROM logs"), "0");
    owned.sql("TRUNCATE ran");
    scenario.run(&["run-job", "login"]).succeeded();
    let superuser = owned.sql("SELECT current_user");
    assert_eq!(owned.ran(), format!("sql as {superuser}"));
    let grants = scenario.run(&["grants", "--role", "pgtend"]).succeeded();
    assert!(grants.stdout.contains("-- runs as the login of owner_url"), "{}", grants.stdout);
}

/// Code that no catalog names as ours: it runs as its owner, and leaves a cursor that the commit computes as the session's user.
#[test]
fn a_cursor_held_open_by_a_function_of_the_owners_gets_no_rights_where_no_owner_is_trusted() {
    for major in [14, 18] {
        let owned = Owned::with(
            major,
            &format!(
                "{LOGS};
                 CREATE FUNCTION hold() RETURNS int LANGUAGE sql AS 'DECLARE c CURSOR WITH HOLD FOR SELECT public.note(); SELECT 1';
                 CREATE FUNCTION aud() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN PERFORM hold(); RETURN NULL; END $$;
                 CREATE TRIGGER aud AFTER DELETE ON logs FOR EACH STATEMENT EXECUTE FUNCTION aud()"
            ),
        );
        let scenario = owned.scenario("postgres", RETENTION);
        let named = format!("public.logs belongs to \"{}\"", owned.owner);
        scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named, "owner_url"]);
        assert_eq!(owned.ran(), "");
        let warned = warnings(&scenario, "warned");
        assert!(warned.contains("belongs to") && warned.contains("a superuser"), "{warned}");
        assert_eq!(owned.ran(), "postgres", "what the warning says is so, on {major}");
    }
}

#[test]
fn constraint_exclusion_of_the_database_runs_no_check_of_an_owner_in_planning() {
    let owned = Owned::with(18, &format!("{LOGS}; ALTER TABLE logs ADD CHECK (hidden() = 1 OR id > 0)"));
    owned.sql(&format!("ALTER DATABASE {} SET constraint_exclusion = on; TRUNCATE ran", owned.database));
    let scenario = owned.scenario("postgres", RETENTION);
    scenario.run(&["run-job", "warned", "--yes", "--dry-run"]).succeeded();
    assert_eq!(owned.ran(), "");
}

/// Whoever may make a table may write any comment on it.
#[test]
fn a_mark_of_a_partition_on_a_strangers_table_is_not_believed() {
    let owned = Owned::with(
        18,
        "CREATE TABLE logs (id int, created_at timestamptz NOT NULL) PARTITION BY RANGE (created_at);
         CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
    );
    let Owned { database, .. } = &owned;
    let mark = "x\npgtend-partition: {\"parent\":%s,\"table\":%s,\"stage\":\"retired\",\"at\":\"2020-01-01T00:00:00Z\",\"from\":\"a\",\"to\":\"b\",\"comment\":null,\"archive\":{\"key\":\"k\",\"rows\":0}}";
    owned.sql(&format!(
        "CREATE ROLE bob_{database}; GRANT CREATE ON SCHEMA public TO bob_{database}; SET ROLE bob_{database};
         CREATE TABLE mine (id int, created_at timestamptz); INSERT INTO mine VALUES (1, '2020-01-15');
         DO $$ BEGIN EXECUTE format('COMMENT ON TABLE mine IS %L', format('{mark}', 'public.logs'::regclass::oid::bigint, 'public.mine'::regclass::oid::bigint)); END $$; RESET ROLE"
    ));
    let job = "[partition]\ntable = 'public.logs'\ncolumn = 'created_at'\nevery = 'month'\nretain = '30d'\n";
    let scenario = owned.scenario("postgres", job);
    let planned = scenario.run(&["run-job", "warned", "--yes", "--dry-run"]).succeeded();
    assert!(!planned.stdout.contains("mine"), "{}", planned.stdout);
    scenario.run(&["run-job", "warned"]).succeeded();
    assert_eq!(owned.sql("SELECT count(*) FROM mine"), "1");
}

/// `COPY … TO PROGRAM` in a cast's function would be a shell.
#[test]
fn an_audit_by_a_superuser_runs_no_cast_of_the_owners() {
    let owned = Owned::with(
        18,
        r#"CREATE TYPE public."text" AS ENUM ('a', 'b');
           CREATE FUNCTION etext(public."text") RETURNS pg_catalog.text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note(); RETURN 'a'; END $$;
           CREATE CAST (public."text" AS pg_catalog.text) WITH FUNCTION etext(public."text");
           CREATE TABLE docs (id int PRIMARY KEY, body public."text", real pg_catalog.text);
           ALTER TABLE docs ALTER real SET STORAGE EXTERNAL;
           INSERT INTO docs SELECT i, 'a', repeat(md5(i::pg_catalog.text), 300) FROM generate_series(1, 100) i; ANALYZE docs"#,
    );
    let scenario = owned.scenario("postgres", RETENTION);
    let output = scenario.run(&["audit", "--database", "app", "--json"]);
    assert_eq!(owned.ran(), "");
    assert!(output.stdout.contains("whose code would run as the superuser"), "{}", output.stdout);
}

/// A table of a superuser's in a database of `owner`, who owns the schema with it since PostgreSQL 15.
fn in_a_database_of(server: &'static Server) -> (String, String) {
    let database = server.new_database();
    let owner = format!("owner_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner};
             CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz); INSERT INTO logs SELECT i, now() - interval '1 year' FROM generate_series(1, 50) i"
        ),
    );
    (database, owner)
}

/// What the owner of a schema does while a run waits for a lock.
fn swap(owner: &str) -> String {
    format!(
        "SET ROLE {owner}; ALTER SCHEMA public RENAME TO public_old; CREATE SCHEMA public; CREATE TABLE public.logs (id int PRIMARY KEY, created_at timestamptz);
         CREATE FUNCTION public.climb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF current_user <> '{owner}' THEN EXECUTE 'ALTER ROLE {owner} SUPERUSER'; END IF; RETURN NULL; END $$;
         CREATE TRIGGER climb BEFORE DELETE ON public.logs FOR EACH STATEMENT EXECUTE FUNCTION public.climb()"
    )
}

#[test]
fn the_owner_of_a_schema_who_swaps_the_table_under_a_running_job_gets_no_rights() {
    let server = server(18);
    for more in ["", "archive = 'local'\n"] {
        let (database, owner) = in_a_database_of(server);
        let scenario = Scenario::with_database(server, &database)
            .job("old", &format!("database = 'app'\n{RETENTION}{more}[limits]\nmax_wait = '10min'\n"));
        // SHARE lets the plan read, and keeps every DELETE waiting.
        let holder = server.session(&database, "BEGIN; LOCK TABLE logs IN SHARE MODE");
        let run = scenario.start(&["run-job", "old", "--yes"]);
        let waits = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '{database}') AND mode = 'RowExclusiveLock'"
        );
        eventually("a batch waits for the table", || server.sql("postgres", &waits) != "0");
        server.sql(&database, &swap(&owner));
        drop(holder);
        run.wait().exited(1).says(&["public.logs", "is another table than the one that this run checked"]);
        assert_eq!(server.sql(&database, &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{owner}'")), "f");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM public_old.logs"), "50");
    }
}

#[test]
fn the_owner_of_a_schema_is_named_and_refused_as_the_owner_of_the_table_is() {
    let server = server(18);
    let (database, owner) = in_a_database_of(server);
    let scenario = Scenario::with_database(server, &database)
        .job("warned", &format!("database = 'app'\n{RETENTION}"))
        .job("refused", &format!("database = 'app'\n{RETENTION}[limits]\ntrust_owners = false\n"));
    let named = format!("the schema public of public.logs belongs to \"{owner}\", who can put another table in its place");
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named, "trust_owners = false"]);
    let warned = warnings(&scenario, "warned");
    assert!(warned.contains("who can put another table in its place"), "{warned}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "0");
}

#[test]
fn a_login_that_grants_made_for_two_owners_is_said_to_have_rights_that_neither_has() {
    let server = server(18);
    let database = server.new_database();
    let (alice, bob, login) = (format!("alice_{database}"), format!("bob_{database}"), format!("login_{database}"));
    for (owner, more) in
        [(&alice, "CREATE TRIGGER peeks BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION peek()"), (&bob, "SELECT 1")]
    {
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner} LOGIN; CREATE SCHEMA {owner} AUTHORIZATION {owner}; SET ROLE {owner}; SET search_path = {owner};
                 CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz); INSERT INTO logs SELECT i, now() - interval '1 year' FROM generate_series(1, 50) i;
                 CREATE FUNCTION peek() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$; {more}"
            ),
        );
    }
    let job = |owner: &str, more: &str| {
        format!("database = 'app'\n[retention]\ntable = '{owner}.logs'\ncolumn = 'created_at'\nolder_than = '30d'\n{more}")
    };
    let jobs = |scenario: Scenario| scenario.job("of-alice", &job(&alice, "")).job("of-bob", &job(&bob, ""));
    let sql = jobs(Scenario::with_database(server, &database)).run(&["grants", "--role", &login]).succeeded().stdout;
    server.sql("postgres", &sql);
    let scenario = jobs(Scenario::with_url(server, &server.url_as(&login, &database)));
    scenario.run(&["check", "--connect"]).succeeded();
    let warned = warnings(&scenario, "of-alice");
    assert!(warned.contains("trigger peeks of") && warned.contains("with rights that"), "{warned}");
    let scenario = scenario.job("of-bob", &job(&bob, "[limits]\ntrust_owners = false\n"));
    scenario.run(&["run-job", "of-bob", "--yes"]).exited(77).says(&[&format!("{bob}.logs belongs to"), "with rights that"]);
}

#[test]
fn a_history_within_the_owners_reach_is_named_wherever_the_login_keeps_it() {
    let owned =
        Owned::with(18, &format!("{LOGS}; CREATE TRIGGER takes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION on_row()"));
    let Owned { database, owner, server } = &owned;
    let login = format!("alone_{database}");
    let elsewhere = server.empty_database();
    owned.sql(&format!("CREATE ROLE {login} LOGIN; GRANT {owner} TO {login}; CREATE SCHEMA pgtend AUTHORIZATION {login}"));
    let here = owned.scenario(&login, RETENTION).ledger();
    here.run(&["run-job", "refused", "--yes"]).exited(77).says(&["the run history (schema pgtend)", "set `owner_url`"]);
    assert_eq!(owned.ran(), "");
    let warned = warnings(&here, "warned");
    assert_eq!(warned.matches("the run history (schema pgtend)").count(), 1, "{warned}");
    owned.sql("DROP SCHEMA pgtend CASCADE; INSERT INTO logs VALUES (1, '2020-01-01')");
    // The trigger could change the login's password, and connect to the other database as the login.
    server.sql(&elsewhere, &format!("CREATE SCHEMA pgtend AUTHORIZATION {login}"));
    let there = owned.scenario(&login, RETENTION).config(&format!(
        "[databases.history]\nurl = '{}'\n[ledger]\ndatabase = \"history\"\n",
        server.url_as(&login, &elsewhere)
    ));
    let named = format!("which has rights in other databases that \"{owner}\" lacks");
    there.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named, &format!("That is \"{owner}\" itself")]);
    assert_eq!(owned.sql("SELECT count(*) FROM logs"), "1");
    assert_eq!(warnings(&there, "warned").matches("which has rights in other databases").count(), 1);
    // The way out that the refusal names: the history is written by the login, and the rows are deleted by the owner.
    owned.sql("INSERT INTO logs VALUES (1, '2020-01-01')");
    let way_out = Scenario::empty()
        .config(&format!(
            "[databases.app]\nurl = '{}'\nowner_url = '{}'\n[databases.history]\nurl = '{}'\n[ledger]\ndatabase = \"history\"\n",
            server.url_as(&login, database),
            server.url_as(owner, database),
            server.url_as(&login, &elsewhere)
        ))
        .job("refused", &format!("database = 'app'\n{RETENTION}[limits]\ntrust_owners = false\n"));
    way_out.run(&["run-job", "refused", "--yes"]).succeeded();
    assert_eq!(owned.sql("SELECT count(*) FROM logs"), "0");
    // An object of the login's own that is not the history is a right more.
    owned.sql(&format!("CREATE TABLE salaries (of text); ALTER TABLE salaries OWNER TO {login}"));
    there.run(&["run-job", "refused", "--yes"]).exited(77).says(&["with rights that"]);
}

#[test]
fn a_check_that_would_run_as_the_superuser_who_verifies_a_backup_is_named_and_refused() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE t (id int CHECK (id >= one())); INSERT INTO t VALUES (1)",
    );
    // A server of its own needs no trust in owners: throwaway.rs.
    let job = "database = 'app'\n[backup]\nstore = 'local'\nverify = 'restore'\nscratch = 'same'\n";
    let scenario = Scenario::with_database(owned.server, &owned.database)
        .job("warned", job)
        .job("refused", &format!("{job}[limits]\ntrust_owners = false\n"));
    let named = format!("verify = \"restore\" runs code of {}", owned.owner);
    scenario.run(&["run-job", "refused"]).exited(77).says(&[&named, "trust_owners = false refuses that"]);
    scenario.run(&["run-job", "refused", "--dry-run"]).exited(77).says(&[&named]);
    scenario.run(&["run-job", "warned", "--dry-run"]).succeeded().prints(&[&format!("WARNING: {named}")]);
    assert!(scenario.run(&["check", "--connect"]).exited(77).stdout.contains(&format!("WARNING: {named}")));
    let warned = warnings(&scenario, "warned");
    assert!(warned.contains("may run as"), "{warned}");
    let wrong = scenario.job("refused", &format!("{job}[limits]\nbatch_time = '1s'\n"));
    wrong.run(&["check"]).exited(78).says(&["[limits] does not apply to this task"]);
}

#[test]
fn a_domain_that_its_owner_changed_runs_nothing_when_rows_come_back() {
    let server = server(18);
    let database = server.new_database();
    let dave = format!("dave_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {dave} LOGIN; CREATE SCHEMA {dave} AUTHORIZATION {dave}; CREATE TABLE ran (as_role text); GRANT INSERT ON ran TO PUBLIC;
             CREATE DOMAIN {dave}.pos AS int; ALTER DOMAIN {dave}.pos OWNER TO {dave};
             CREATE TABLE logs (id {dave}.pos[], created_at timestamptz); INSERT INTO logs SELECT ARRAY[i]::{dave}.pos[], now() - interval '1 year' FROM generate_series(1, 50) i"
        ),
    );
    let scenario = Scenario::with_database(server, &database)
        .job("old", &format!("database = 'app'\n{RETENTION}archive = 'local'\n[limits]\ntrust_owners = false\n"));
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    let named = format!("has the type {dave}.pos, which belongs to \"{dave}\"");
    scenario.run(&["archives", "restore"]).exited(77).says(&[&named, "trust_owners = false refuses that"]);
    server.sql(
        &database,
        &format!(
            "SET ROLE {dave}; CREATE FUNCTION {dave}.dom(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN true; END $$;
             ALTER DOMAIN {dave}.pos ADD CONSTRAINT looks CHECK ({dave}.dom(VALUE)) NOT VALID"
        ),
    );
    scenario
        .run(&["archives", "restore"])
        .exited(77)
        .says(&["domain CHECK looks of public.logs calls", &format!("{dave}.dom, code of")]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0");
    let warned = scenario.job("old", &format!("database = 'app'\n{RETENTION}archive = 'local'\n"));
    warned.run(&["archives", "restore"]).succeeded().says(&["domain CHECK looks"]);
    assert_eq!(
        server.sql(&database, "SELECT DISTINCT as_role FROM ran"),
        server.sql(&database, "SELECT current_user"),
        "it is what the warning says"
    );
}

/// pg_dump's message names a table as its owner wrote it, and may be taken for that of another table.
#[test]
fn a_table_named_like_a_failed_copy_has_no_view_read_by_the_superuser() {
    for major in [14, 18] {
        let owned = Owned::with(
            major,
            "CREATE VIEW evil AS SELECT '(0,1)'::tid AS ctid, public.note() AS a;
             CREATE TABLE \"x 1073741824 was: COPY public.evil (a) TO stdout\" (i int)",
        );
        let table = "\"x 1073741824 was: COPY public.evil (a) TO stdout\"";
        let _held = owned.server.session(&owned.database, &format!("BEGIN; LOCK TABLE {table}"));
        let locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        eventually("it is locked", || owned.sql(locks) == "1");
        let scenario = Scenario::with_database(owned.server, &owned.database)
            .backup_job("local", "verify = \"checksum\"\nlock_wait_timeout = \"500ms\"");
        scenario.run(&["run-job", "nightly"]).exited(1).says(&["lock_wait_timeout"]);
        assert_eq!(owned.ran(), "", "{major}");
    }
}

/// It is the owner of the source, and of the new database when the restore has ended.
#[test]
fn the_owner_of_a_database_cannot_enter_the_one_that_a_superuser_restores() {
    for major in [15, 18] {
        let owned = Owned::with(major, "CREATE TABLE t (i int)");
        let Owned { server, database, owner } = &owned;
        // The restore waits in a CHECK, and meanwhile the owner tries.
        server.sql(
            database,
            &format!(
                "ALTER DATABASE {database} OWNER TO {owner};
                 CREATE FUNCTION waits(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(CASE WHEN current_database() = '{database}' THEN 0 ELSE 3 END); RETURN true; END $$;
                 CREATE TABLE waiting (i int CHECK (waits(i))); INSERT INTO waiting VALUES (1)"
            ),
        );
        let scenario = Scenario::with_database(server, database).backup_job("local", "verify = \"checksum\"");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let copy = format!("{database}_entered");
        let restoring = scenario.start(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]);
        let filling = "SELECT datname FROM pg_database WHERE datname LIKE 'pgtend\\_restore\\_%' AND datallowconn
                       AND EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = pg_database.datname AND a.query LIKE 'COPY%waiting%')";
        let mut filled = String::new();
        eventually("the restore waits", || {
            filled = server.sql("postgres", filling);
            !filled.is_empty()
        });
        let enters = format!("SET ROLE {owner}; ALTER DATABASE {filled} CONNECTION LIMIT -1");
        let refused = server.psql("postgres", &enters).unwrap_err();
        assert!(refused.contains("must be owner of database"), "{refused}");
        restoring.wait().succeeded();
        let is_owner = format!("SELECT pg_get_userbyid(datdba) = '{owner}' FROM pg_database WHERE datname = '{copy}'");
        assert_eq!(server.sql("postgres", &is_owner), "t");
        server.drop_with_test(&copy);
    }
}

/// As a view and a function with the rights of its owner.
#[test]
fn a_restore_without_owners_gives_a_function_of_an_ordinary_role_no_superusers_rights() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION takes() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT pg_read_file(''PG_VERSION'')'",
    );
    let Owned { server, database, owner } = &owned;
    let scenario = Scenario::with_database(server, database).backup_job("local", "verify = \"checksum\"");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let copy = format!("{database}_taken");
    let url = server.url(&copy);
    let mapped = format!("{owner}=postgres");
    for option in [&["--no-owner"][..], &["--role-map", &mapped]] {
        let restore = [&["backups", "restore", "latest", "--into", &url, "--create"], option].concat();
        scenario.run(&restore).exited(77).says(&[owner, "(to postgres, which is a superuser)", "--trust-owners"]);
        let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{copy}'");
        assert_eq!(server.sql("postgres", &exists), "0");
    }
    scenario.run(&["backups", "restore", "latest", "--into", &url, "--create", "--no-owner", "--trust-owners"]).succeeded();
    server.drop_with_test(&copy);
}

/// Neither does it give them a superuser's rights by way of a role that may become one, or that reaches the server's host.
#[test]
fn a_restore_gives_ordinary_roles_no_rights_of_a_member_of_a_superuser() {
    for major in [15, 18] {
        let owned = Owned::with(
            major,
            "CREATE FUNCTION becomes() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT pg_catalog.current_setting(''is_superuser'')'",
        );
        let Owned { server, database, owner } = &owned;
        let scenario = Scenario::with_database(server, database).backup_job("local", "verify = \"checksum\"");
        scenario.run(&["run-job", "nightly"]).succeeded();
        let (copy, dba) = (format!("{database}_taken"), format!("dba_{database}"));
        let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{copy}'");
        let with = |right: &str| format!("DROP ROLE IF EXISTS {dba}; CREATE ROLE {dba} LOGIN CREATEDB {right}");
        let as_dba = server.url_as(&dba, &copy);
        let as_superuser = server.url(&copy);
        let mapped = format!("{owner}={dba}");
        // Since 16, CREATEROLE grants only what its role administers.
        let creates_roles = [("CREATEROLE", "has CREATEROLE")];
        let rights = [
            ("BYPASSRLS", "has BYPASSRLS"),
            ("REPLICATION", "has REPLICATION"),
            ("IN ROLE pg_read_all_data", "is a member of pg_read_all_data"),
            ("IN ROLE postgres", "is a member of \"postgres\", which is a superuser"),
            ("IN ROLE pg_execute_server_program", "is a member of \"pg_execute_server_program\""),
        ];
        let creates_roles = creates_roles.iter().filter(|_| major < 16);
        for (right, why) in creates_roles.chain(&rights) {
            owned.sql(&with(right));
            for (url, option) in [(&as_superuser, &["--role-map", &mapped][..]), (&as_dba, &["--no-owner"])] {
                let restore = [&["backups", "restore", "latest", "--into", url, "--create"], option].concat();
                scenario.run(&restore).exited(77).says(&[owner, &format!("(to {dba}, which {why})"), "--trust-owners"]);
                assert_eq!(server.sql("postgres", &exists), "0");
            }
        }
        owned.sql(&format!("REVOKE pg_execute_server_program FROM {dba}"));
        scenario.run(&["backups", "restore", "latest", "--into", &as_superuser, "--create", "--role-map", &mapped]).succeeded();
        server.drop_with_test(&copy);
    }
}
