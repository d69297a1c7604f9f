//! Roles that own nothing of a table and may put code there all the same: by a privilege, by a rule, a type or an event trigger that calls their
//! function, in a database whose dump is restored, or while a run is under way.

use crate::support::owners::{LOGS, Owned, RETENTION, beside, jobs, warnings};
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually};

#[test]
fn a_role_that_may_add_triggers_or_keys_is_named_and_refused_until_revoked() {
    for major in [15, 16, 18] {
        let server = server(major);
        let (database, alice) = beside(server, LOGS);
        let scenario = jobs(Scenario::with_database(server, &database), RETENTION);
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        for (privilege, sql, may) in [
            ("TRIGGER", "TRIGGER ON logs", "may add triggers to public.logs"),
            ("REFERENCES", "REFERENCES (id) ON logs", "may add foreign keys to public.logs"),
        ] {
            server.sql(&database, &format!("GRANT {sql} TO {alice}"));
            let named = format!("\"{alice}\" {may}");
            scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).exited(77).says(&[
                &named,
                "as \"postgres\", a superuser",
                &format!("REVOKE {privilege} ON public.logs FROM \"{alice}\""),
            ]);
            scenario.run(&["run-job", "warned", "--yes", "--dry-run"]).succeeded().prints(&[&format!("WARNING: {named}")]);
            server.sql(&database, &format!("REVOKE {sql} FROM {alice}"));
        }
        server.sql(&database, &format!("GRANT ALL ON logs TO {alice}, PUBLIC; GRANT CREATE ON SCHEMA public TO {alice}"));
        let warned = scenario.run(&["run-job", "warned", "--yes", "--dry-run"]).succeeded().stdout;
        assert_eq!(warned.matches(alice.as_str()).count(), 1, "{warned}");
        assert!(warned.contains("(and 2 more such privileges)") && warned.contains("everyone (PUBLIC) may add"), "{warned}");
        // The owner lends nothing to itself; another role with the same privilege would climb as well.
        server.sql(&database, &format!("REVOKE ALL ON logs FROM PUBLIC, {alice}; ALTER TABLE logs OWNER TO {alice}"));
        let owner = jobs(Scenario::with_url(server, &server.url_as(&alice, &database)), RETENTION);
        owner.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        server.sql(&database, "GRANT TRIGGER ON logs TO PUBLIC");
        owner.run(&["run-job", "refused", "--yes", "--dry-run"]).exited(77).says(&["REVOKE TRIGGER ON public.logs FROM PUBLIC"]);
        assert!(!warnings(&owner, "warned").contains("PUBLIC"), "a login that is no superuser is not warned of privileges");
    }
}

#[test]
fn a_role_that_may_create_in_the_schema_counts_where_the_login_is_a_superuser() {
    for major in [14, 18] {
        let server = server(major);
        let (database, alice) = beside(server, LOGS);
        let scenario = jobs(Scenario::with_database(server, &database), RETENTION);
        for (who, name) in
            [(format!("\"{alice}\""), format!("\"{alice}\"")), ("PUBLIC".to_owned(), "everyone (PUBLIC)".to_owned())]
        {
            server.sql(&database, &format!("GRANT CREATE ON SCHEMA public TO {who}"));
            let named = format!("{name} may create tables in the schema public of public.logs");
            scenario
                .run(&["run-job", "refused", "--yes", "--dry-run"])
                .exited(77)
                .says(&[&named, &format!("REVOKE CREATE ON SCHEMA public FROM {who}")]);
            let warned = scenario.run(&["run-job", "warned", "--yes", "--dry-run"]).succeeded().stdout;
            assert_eq!(warned.matches("WARNING").count(), 1, "{warned}");
            server.sql(&database, &format!("REVOKE CREATE ON SCHEMA public FROM {who}"));
        }
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
    }
}

/// Runs `job` until it waits for the lock of a batch, lets `sql` be committed by the holder of a lock before it, and returns what became of the
/// run.
fn with_code_between(server: &Server, database: &str, scenario: &Scenario, job: &str, sql: &str) -> crate::support::Output {
    let holder = server.session(database, "BEGIN; LOCK TABLE public.logs IN SHARE ROW EXCLUSIVE MODE");
    let run = scenario.start(&["run-job", job, "--yes"]);
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '{database}') AND mode = 'RowExclusiveLock'"
    );
    eventually("a batch waits for the table", || server.sql("postgres", &waits) != "0");
    holder.ends_with(&format!("{sql}; COMMIT"));
    run.wait()
}

#[test]
fn a_trigger_that_is_added_between_the_look_and_a_batch_runs_as_nobody_and_stops_the_run() {
    for (major, archive) in [(15, ""), (18, ""), (18, "archive = 'local'\n")] {
        let server = server(major);
        let (database, alice) = beside(server, LOGS);
        server.sql(&database, &format!("GRANT ALL ON logs TO {alice}"));
        let task = format!("{RETENTION}{archive}[limits]\nmax_wait = '10min'\n");
        let scenario = Scenario::with_database(server, &database).job("old", &format!("database = 'app'\n{task}"));
        let trigger =
            format!("SET ROLE {alice}; CREATE TRIGGER zz BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION {alice}.on_row()");
        let output = with_code_between(server, &database, &scenario, "old", &trigger);
        output.exited(1).says(&["was added to", "public\".\"logs", "since this run checked its code"]);
        assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM ran), (SELECT count(*) FROM logs)"), "0|50");
        // The next run knows it, and says so.
        let warned = warnings(&scenario, "old");
        assert!(warned.contains("trigger zz of public.logs"), "{warned}");
        assert_eq!(server.sql(&database, "SELECT DISTINCT as_role FROM ran"), "postgres");
    }
}

#[test]
fn a_foreign_key_with_a_cascade_that_is_added_between_the_look_and_a_batch_stops_the_run() {
    for major in [16, 17, 18] {
        let server = server(major);
        let (database, alice) = beside(server, LOGS);
        server.sql(
            &database,
            &format!(
                "GRANT REFERENCES ON logs TO {alice}; GRANT USAGE ON SCHEMA public TO {alice}; SET ROLE {alice};
                 CREATE TABLE {alice}.r (ref int); INSERT INTO {alice}.r SELECT generate_series(1, 50);
                 CREATE CONSTRAINT TRIGGER late AFTER DELETE ON {alice}.r DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {alice}.on_row()"
            ),
        );
        let task = format!("{RETENTION}[limits]\nmax_wait = '10min'\n");
        let scenario = Scenario::with_database(server, &database).job("old", &format!("database = 'app'\n{task}"));
        let key =
            format!("SET ROLE {alice}; ALTER TABLE {alice}.r ADD FOREIGN KEY (ref) REFERENCES logs ON DELETE CASCADE NOT VALID");
        let output = with_code_between(server, &database, &scenario, "old", &key);
        output.exited(1).says(&["a foreign key was added to"]);
        assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM ran), (SELECT count(*) FROM logs)"), "0|50", "on {major}");
    }
}

#[test]
fn what_is_no_new_code_stops_no_run() {
    let server = server(18);
    let (database, alice) = beside(server, LOGS);
    server.sql(
        &database,
        &format!(
            "CREATE FUNCTION ours() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
             CREATE TRIGGER a BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION ours();
             CREATE TRIGGER b BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION ours(); GRANT SELECT ON logs TO {alice}"
        ),
    );
    let task = format!("{RETENTION}[limits]\nmax_wait = '10min'\n");
    let scenario = Scenario::with_database(server, &database).job("old", &format!("database = 'app'\n{task}"));
    let sql = "DROP TRIGGER a ON logs; ALTER TABLE logs DISABLE TRIGGER b; ALTER TABLE logs ENABLE TRIGGER b; CREATE INDEX ON logs (created_at)";
    let output = with_code_between(server, &database, &scenario, "old", sql);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs"), "0");
}

#[test]
fn a_trigger_that_is_added_to_a_partition_stops_the_run_and_a_new_partition_does_not() {
    let server = server(18);
    let (database, alice) = beside(server, LOGS);
    server.sql(
        &database,
        &format!(
            "DROP TABLE logs; CREATE TABLE pt (id int, created_at timestamptz NOT NULL) PARTITION BY LIST (id);
             CREATE TABLE logs PARTITION OF pt FOR VALUES IN (1); INSERT INTO pt SELECT 1, now() - interval '1 year' FROM generate_series(1, 50);
             GRANT ALL ON logs TO {alice}"
        ),
    );
    let job = "database = 'app'\n[retention]\ntable = 'public.pt'\ncolumn = 'created_at'\nolder_than = '30d'\n[limits]\nmax_wait = '10min'\n";
    let scenario = Scenario::with_database(server, &database).job("old", job);
    let trigger =
        format!("SET ROLE {alice}; CREATE TRIGGER zz BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION {alice}.on_row()");
    let output = with_code_between(server, &database, &scenario, "old", &trigger);
    output.says(&["was added to", "since this run checked its code"]);
    assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM ran), (SELECT count(*) FROM pt)"), "0|50");
    server.sql(&database, "DROP TRIGGER zz ON logs");
    let output = with_code_between(server, &database, &scenario, "old", "CREATE TABLE pt_2 PARTITION OF pt FOR VALUES IN (2)");
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[test]
fn a_partition_job_goes_on_beside_keys_of_the_table_to_itself() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE ev (id int, at timestamptz NOT NULL, before_id int, before_at timestamptz, PRIMARY KEY (id, at),
             FOREIGN KEY (before_id, before_at) REFERENCES ev) PARTITION BY RANGE (at);
         CREATE TABLE ev_old PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2020-02-01'); INSERT INTO ev VALUES (1, '2020-01-05', NULL, NULL)",
    );
    let job = "database = 'app'\n[partition]\ntable = 'public.ev'\ncolumn = 'at'\nevery = 'month'\npremake = 3\nretain = '60d'\ngrace = '100d'\n[limits]\ntrust_owners = false\n";
    let scenario = Scenario::with_database(server, &database).job("ev", job);
    // Superusers own all of it; in a cluster that was upgraded from 14 everyone might create tables.
    scenario.run(&["run-job", "ev", "--yes"]).succeeded();
    assert_ne!(server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'ev'::regclass"), "1");
}

#[test]
fn the_action_of_a_rule_on_a_superusers_table_is_searched_for_others_code() {
    for major in [14, 18] {
        let server = server(major);
        for (action, named) in [
            ("DO ALSO SELECT OWNER.note()", "rule rr of public.logs calls OWNER.note"),
            ("DO ALSO INSERT INTO OWNER.sink VALUES (OLD.id)", "trigger takes of OWNER.sink calls OWNER.on_row"),
            ("DO ALSO SELECT * FROM OWNER.looks", "rule \"_RETURN\" of OWNER.looks calls OWNER.note"),
            ("WHERE OWNER.note() = 2 DO ALSO SELECT 1", "rule rr of public.logs calls OWNER.note"),
        ] {
            let (database, alice) = beside(server, LOGS);
            server.sql(
                &database,
                &format!(
                    "SET ROLE {alice}; CREATE TABLE {alice}.sink (id int); CREATE VIEW {alice}.looks AS SELECT {alice}.note();
                     CREATE TRIGGER takes BEFORE INSERT ON {alice}.sink FOR EACH ROW EXECUTE FUNCTION {alice}.on_row(); RESET ROLE;
                     CREATE RULE rr AS ON DELETE TO logs {}",
                    action.replace("OWNER", &alice)
                ),
            );
            let scenario = jobs(Scenario::with_database(server, &database), RETENTION);
            scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named.replace("OWNER", &alice)]);
            assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0", "on {major}: {action}");
            scenario.run(&["run-job", "warned", "--yes"]).succeeded();
            assert_eq!(
                server.sql(&database, "SELECT DISTINCT as_role FROM ran"),
                "postgres",
                "the rule runs, on {major}: {action}"
            );
        }
    }
}

#[test]
fn the_functions_of_a_superusers_range_are_searched_for_others_code() {
    let server = server(18);
    let (database, alice) = beside(server, LOGS);
    server.sql(
        &database,
        &format!(
            "SET ROLE {alice}; CREATE FUNCTION {alice}.diff(int, int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM {alice}.note(); RETURN $1 - $2; END $$; RESET ROLE;
             CREATE TYPE span AS RANGE (subtype = int, subtype_diff = {alice}.diff);
             CREATE TABLE docs (id int PRIMARY KEY, body text, at span); INSERT INTO docs SELECT i, repeat(md5(i::text), 1000), span(i, i + 2) FROM generate_series(1, 50) i;
             CREATE INDEX ON docs USING gist (at); TRUNCATE ran"
        ),
    );
    let task = "[compress]\ntable = 'public.docs'\ncolumn = 'body'\nmethod = 'toast'\n";
    let scenario = jobs(Scenario::with_database(server, &database), task);
    let named = format!("type public.span of public.docs calls {alice}.diff, code of \"{alice}\"");
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0");
    assert!(warnings(&scenario, "warned").contains("type public.span"));
}

#[test]
fn a_function_of_an_operator_class_is_searched_for_others_code() {
    let server = server(18);
    let (database, alice) = beside(server, LOGS);
    server.sql(
        &database,
        &format!(
            "SET ROLE {alice}; CREATE FUNCTION {alice}.compare(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM {alice}.note(); RETURN btint4cmp($1, $2); END $$; RESET ROLE;
             CREATE OPERATOR CLASS odd FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 {alice}.compare(int, int);
             CREATE INDEX by_odd ON logs (id odd)"
        ),
    );
    let scenario = jobs(Scenario::with_database(server, &database), RETENTION);
    let named = format!("index by_odd of public.logs calls {alice}.compare, code of \"{alice}\"");
    scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).exited(77).says(&[&named]);
}

#[test]
fn an_event_trigger_that_calls_anothers_function_is_silenced_or_named() {
    for major in [16, 17, 18] {
        let server = server(major);
        let (database, alice) = beside(server, LOGS);
        let made =
            |event: &str| format!("CREATE EVENT TRIGGER sees ON {event} EXECUTE FUNCTION {alice}.on_event(); TRUNCATE ran");
        server.sql(
            &database,
            &format!(
                "CREATE TABLE ev (at timestamptz NOT NULL) PARTITION BY RANGE (at); SET ROLE {alice};
                 CREATE FUNCTION {alice}.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {alice}.note(); END $$; RESET ROLE; {}",
                made("ddl_command_end")
            ),
        );
        let task = "[partition]\ntable = 'public.ev'\ncolumn = 'at'\nevery = 'month'\npremake = 2\n";
        let scenario = jobs(Scenario::with_database(server, &database), task);
        let named =
            format!("event trigger sees calls {alice}.on_event, code of \"{alice}\", which may run as \"postgres\", a superuser");
        if major == 16 {
            scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
            assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0");
            assert!(warnings(&scenario, "warned").contains("event trigger sees"));
            continue;
        }
        // 17 and newer can be told not to run them.
        scenario.run(&["run-job", "refused", "--yes"]).succeeded();
        assert_ne!(server.sql(&database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'ev'::regclass"), "0");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0", "on {major}");
        // But for those of the login, which have run before anything can be said.
        server.sql(&database, &format!("DROP EVENT TRIGGER sees; {}", made("login")));
        scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
        server.sql(&database, "ALTER EVENT TRIGGER sees DISABLE");
        scenario.run(&["run-job", "refused", "--yes"]).succeeded();
    }
}

#[test]
fn only_the_users_own_sql_sets_off_event_triggers() {
    let server = server(18);
    let (database, alice) = beside(server, LOGS);
    let login = format!("login_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE TABLE ev (at timestamptz NOT NULL) PARTITION BY RANGE (at); CREATE ROLE {login} LOGIN; GRANT postgres TO {login};
             CREATE FUNCTION ours() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (session_user); END $$;
             CREATE EVENT TRIGGER sees ON ddl_command_end EXECUTE FUNCTION ours(); TRUNCATE ran"
        ),
    );
    let task = "database = 'app'\n[partition]\ntable = 'public.ev'\ncolumn = 'at'\nevery = 'month'\npremake = 2\n";
    let by = |url: &str, more: &str| {
        Scenario::empty().config(&format!("[databases.app]\nurl = '{url}'\n{more}")).job("ev", task).sql_job(
            "own",
            "",
            &["CREATE TABLE public.mine ()"],
        )
    };
    by(&server.url_as(&login, &database), "role = 'postgres'\n").run(&["run-job", "ev", "--yes"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0", "role = in the configuration");
    server.sql(&database, &format!("DROP TABLE ev; CREATE TABLE ev (at timestamptz NOT NULL) PARTITION BY RANGE (at); ALTER ROLE {login} SET role = postgres; TRUNCATE ran"));
    let scenario = by(&server.url_as(&login, &database), "");
    scenario.run(&["run-job", "ev", "--yes"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM ran"), "0", "ALTER ROLE … SET role");
    scenario.run(&["run-job", "own"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT DISTINCT as_role FROM ran"), login, "[sql] is what the user wrote ({alice})");
}

#[test]
fn a_login_that_acts_as_a_superuser_is_told_of_owners_as_one() {
    for major in [15, 16, 18] {
        let owned = Owned::with(major, LOGS);
        let Owned { database, owner, server } = &owned;
        let login = format!("login_{database}");
        owned.sql(&format!("CREATE ROLE {login} LOGIN; GRANT postgres TO {login}; REVOKE CREATE ON SCHEMA public FROM PUBLIC"));
        let job = format!("database = 'app'\n{RETENTION}");
        let named = format!("public.logs belongs to \"{owner}\"");
        let configured = |more: &str| {
            Scenario::empty()
                .config(&format!("[databases.app]\nurl = '{}'\n{more}", server.url_as(&login, database)))
                .job("warned", &job)
                .job("refused", &format!("{job}[limits]\ntrust_owners = false\n"))
        };
        let dry = ["run-job", "warned", "--yes", "--dry-run"];
        let says = [named.as_str(), "which may become a superuser"];
        configured("role = 'postgres'\n").run(&dry).succeeded().prints(&says);
        configured("").run(&["run-job", "refused", "--yes"]).exited(77).says(&says);
        owned.sql(&format!("ALTER ROLE {login} SET role = postgres"));
        configured("").run(&dry).succeeded().prints(&says);
        if major >= 16 {
            // Without SET, it may still replace the superuser's functions.
            owned.sql(&format!("ALTER ROLE {login} RESET role; REVOKE postgres FROM {login}; GRANT postgres TO {login} WITH INHERIT TRUE, SET FALSE; GRANT SELECT, UPDATE, DELETE ON logs TO {login}"));
            configured("").run(&dry).succeeded().prints(&says);
        }
    }
}

#[test]
fn a_role_that_may_create_tables_counts_for_a_restore_in_a_scratch_database() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        let carl = format!("carl_{database}");
        // Carl owns nothing, and need not when anyone looks.
        server.sql(&database, &format!("CREATE ROLE {carl} LOGIN; CREATE TABLE t (id int); INSERT INTO t VALUES (1)"));
        let task = "[backup]\nstore = 'local'\nkeep = { last = 3 }\nverify = 'restore'\nscratch = 'same'\n";
        let scenario = jobs(Scenario::with_database(server, &database), task);
        scenario.run(&["run-job", "refused"]).succeeded();
        for (place, who, name) in [
            ("SCHEMA public".to_owned(), carl.clone(), carl.clone()),
            (format!("DATABASE {database}"), carl.clone(), carl.clone()),
            ("SCHEMA public".to_owned(), "PUBLIC".to_owned(), "everyone (PUBLIC)".to_owned()),
        ] {
            server.sql(&database, &format!("GRANT CREATE ON {place} TO {who}"));
            let named = format!("verify = \"restore\" runs code of {name}, who may create objects in this database");
            scenario.run(&["run-job", "refused"]).exited(77).says(&[
                &named,
                &format!("REVOKE CREATE ON {place} FROM {who}"),
                "restore in a server of its own",
            ]);
            let warned = scenario.run(&["run-job", "warned", "--dry-run"]).succeeded().stdout;
            assert_eq!(warned.matches("runs code of").count(), 1, "{warned}");
            assert!(warned.contains(&format!("WARNING: {named}")), "{warned}");
            server.sql(&database, &format!("REVOKE CREATE ON {place} FROM {who}"));
        }
        // On another server nobody is known, and whoever may create counts there, too.
        server.sql(&database, &format!("GRANT CREATE ON SCHEMA public TO {carl}"));
        let elsewhere = jobs(
            Scenario::with_database(server, &database).config(&format!("[databases.lab]\nurl = '{}'\n", server.url("postgres"))),
            &task.replace("'same'", "'lab'"),
        );
        elsewhere.run(&["run-job", "refused"]).exited(77).says(&[&carl, "who may create objects in this database"]);
    }
}

#[test]
fn check_connect_runs_no_code_of_the_owner_whom_it_names() {
    let owned = Owned::with(
        18,
        "CREATE TABLE v (id int PRIMARY KEY); CREATE FUNCTION cut() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.note(); END $$",
    );
    owned.sql("CREATE EXTENSION vector; GRANT USAGE ON SCHEMA public TO PUBLIC");
    owned.sql(&format!(
        "SET ROLE {}; ALTER TABLE v ADD e vector(3); INSERT INTO v SELECT i, ARRAY[i, 1, 2]::vector FROM generate_series(1, 100) i;
         CREATE INDEX ve ON v USING hnsw (e vector_l2_ops) WHERE id > cut(); RESET ROLE; TRUNCATE ran",
        owned.owner
    ));
    let task = "[vector_index]\ntable = 'public.v'\ncolumn = 'e'\nmethod = 'hnsw'\nmetric = 'l2'\n";
    let scenario = owned.scenario("postgres", task);
    std::fs::remove_file(scenario.path("jobs/refused.toml")).unwrap();
    scenario.run(&["check", "--connect"]).succeeded().prints(&["WARNING: index ve of public.v calls public.cut"]);
    assert_eq!(owned.ran(), "");
    // A run queries the table, whatever it then thinks of the index.
    scenario.run(&["run-job", "warned", "--yes", "--dry-run"]);
    assert_eq!(owned.ran(), "postgres", "the test's code can run at all");
}
