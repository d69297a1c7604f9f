//! What an owner has, and what a login has more: over foreign keys, in other databases, in a restore, in partitions and in schemas of extensions.

use crate::support::owners::{LOGS, Owned, RETENTION, warnings};
use crate::support::postgres::server;
use crate::support::{Scenario, eventually};

/// What `pgtend grants` makes for a backup reads the rows of all, and the code could change its password, too.
#[test]
fn a_login_made_by_grants_runs_no_check_of_an_owner_when_it_verifies_and_trusts_none() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION loot() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             IF session_user LIKE 'backs%' THEN EXECUTE format('ALTER ROLE %I SET work_mem = %L', session_user, '7MB'); END IF; RETURN 1; END $$;
         CREATE FUNCTION takes(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.loot(); END $$;
         CREATE TABLE t (id int); INSERT INTO t VALUES (1); CREATE INDEX ON t (takes(id))",
    );
    let Owned { server, database, owner } = &owned;
    let login = format!("backs_{database}");
    let job = "database = 'app'\n[backup]\nstore = 'local'\nkeep = { last = 3 }\nverify = 'restore'\nscratch = 'same'\n";
    let jobs = |scenario: Scenario| scenario.job("warned", job).job("refused", &format!("{job}[limits]\ntrust_owners = false\n"));
    let sql = jobs(Scenario::with_database(server, database)).run(&["grants", "--role", &login]).succeeded().stdout;
    server.sql("postgres", &sql);
    let scenario = jobs(Scenario::with_url(server, &server.url_as(&login, database)));
    let named = format!("verify = \"restore\" runs code of {owner}");
    let taken =
        format!("SELECT count(*) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE r.rolname = '{login}'");
    scenario.run(&["run-job", "refused"]).exited(77).says(&[
        &named,
        "with rights that they lack",
        "trust_owners = false refuses that",
    ]);
    scenario.run(&["run-job", "refused", "--dry-run"]).exited(77).says(&[&named]);
    assert!(scenario.run(&["check", "--connect"]).exited(77).stdout.contains(&format!("WARNING: {named}")));
    assert_eq!(owned.sql(&taken), "0");
    let warned = warnings(&scenario, "warned");
    assert!(warned.contains("with rights that they lack"), "{warned}");
    assert_eq!(owned.sql(&taken), "1", "what the warning says is so");
}

#[test]
fn the_owner_of_a_database_gets_no_superuser_on_the_server_that_scratch_names() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE t (id int CHECK (id >= one())); INSERT INTO t VALUES (1)",
    );
    let Owned { server, database, owner } = &owned;
    owned.sql(&format!("ALTER DATABASE {database} OWNER TO {owner}; ALTER TABLE ran OWNER TO {owner}"));
    let job = "database = 'app'\n[backup]\nstore = 'local'\nkeep = { last = 3 }\nverify = 'restore'\nscratch = 'lab'\n";
    let scenario = Scenario::with_url(server, &server.url_as(owner, database))
        .config(&format!("[databases.lab]\nurl = '{}'\n", server.url("postgres")))
        .job("warned", job)
        .job("refused", &format!("{job}[limits]\ntrust_owners = false\n"));
    let named = [&format!("verify = \"restore\" runs code of {owner}"), "a superuser of the server that `scratch` names"];
    scenario.run(&["run-job", "refused"]).exited(77).says(&named).says(&["trust_owners = false refuses that"]);
    let warned = warnings(&scenario, "warned");
    assert!(warned.contains("a superuser of the server that `scratch` names"), "{warned}");

    // The same by hand, of a set that the job wrote.
    let by_hand = ["backups", "verify", "latest", "--job", "warned", "--restore-on", "lab"];
    let named = ["the restore runs code of", owner.as_str(), "a superuser of that server"];
    scenario.run(&by_hand).succeeded().says(&named);
    let scenario = scenario.job("warned", &format!("{job}[limits]\ntrust_owners = false\n"));
    scenario.run(&by_hand).exited(77).says(&named).says(&["trust_owners = false refuses that"]);
    scenario.run(&["backups", "verify", "latest", "--job", "warned"]).succeeded();
}

/// The table is a superuser's, and its trigger calls another role's function.
#[test]
fn a_function_that_runs_as_its_owner_is_named_on_a_table_of_the_superusers() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION hold() RETURNS int LANGUAGE sql AS 'DECLARE c CURSOR WITH HOLD FOR SELECT public.note(); SELECT 1';
         CREATE FUNCTION aud() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN PERFORM hold(); RETURN NULL; END $$",
    );
    owned.sql(&format!("{LOGS}; CREATE TRIGGER aud AFTER DELETE ON logs FOR EACH STATEMENT EXECUTE FUNCTION aud()"));
    let scenario = owned.scenario("postgres", RETENTION);
    let named = format!("trigger aud of public.logs calls public.aud, code of \"{}\"", owned.owner);
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
    assert_eq!(owned.ran(), "");
    assert!(warnings(&scenario, "warned").contains("trigger aud of public.logs"));
    assert_eq!(owned.ran(), "postgres", "what the warning says is so");
}

#[test]
fn an_owner_two_foreign_keys_away_is_named_with_the_trigger_that_a_cascade_sets_off() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION hold() RETURNS int LANGUAGE sql AS 'DECLARE c CURSOR WITH HOLD FOR SELECT public.note(); SELECT 1';
         CREATE FUNCTION aud() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN IF NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'c') THEN PERFORM hold(); END IF; RETURN OLD; END $$",
    );
    owned.sql(&format!(
        "{LOGS}; CREATE TABLE items (id int PRIMARY KEY, log int REFERENCES logs ON DELETE CASCADE); CREATE INDEX ON items (log);
         INSERT INTO items SELECT id, id FROM logs; GRANT REFERENCES ON items TO {owner}; SET ROLE {owner};
         CREATE TABLE notes (item int REFERENCES items ON DELETE CASCADE); CREATE INDEX ON notes (item); INSERT INTO notes SELECT generate_series(1, 50);
         CREATE TRIGGER aud BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION aud(); RESET ROLE",
        owner = owned.owner
    ));
    let scenario = owned.scenario("postgres", RETENTION);
    let named = [&format!("public.notes belongs to \"{}\"", owned.owner), "trigger aud of public.notes calls public.aud"];
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&named);
    assert_eq!(owned.ran(), "");
    let warned = warnings(&scenario, "warned");
    assert!(warned.contains("trigger aud of public.notes"), "{warned}");
    assert!(owned.ran().contains("postgres"), "what the warning says is so: {}", owned.ran());
}

/// A cast to a domain is no call of a function in the expression.
#[test]
fn a_domain_that_only_an_expression_names_is_looked_at() {
    let owned = Owned::with(18, "CREATE DOMAIN code AS text CHECK (public.note() IS NOT NULL)");
    owned.sql(
        "CREATE TABLE dm (id int, at timestamptz NOT NULL, s text, CHECK ((s::code) IS NOT NULL), CHECK ((ARRAY[s]::code[]) IS NOT NULL)) PARTITION BY RANGE (at);
         CREATE TABLE dm_default PARTITION OF dm DEFAULT; INSERT INTO dm VALUES (1, now(), 'x'); TRUNCATE ran",
    );
    let job = "[partition]\ntable = 'public.dm'\ncolumn = 'at'\nevery = 'month'\npremake = 1\ndefault = true\n";
    let scenario = owned.scenario("postgres", job);
    let named = [
        &format!("has the type public.code, which belongs to \"{}\"", owned.owner),
        "domain CHECK code_check of public.dm calls public.note",
    ];
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&named);
    assert_eq!(owned.ran(), "");
}

/// Each of these is a right of the login's that the owner has not.
#[test]
fn policies_grant_options_and_admin_options_of_the_login_are_rights_that_the_owner_lacks() {
    for major in [14, 16, 18] {
        let owned = Owned::with(major, LOGS);
        let Owned { database, owner, server } = &owned;
        let login = format!("login_{database}");
        owned.sql(&format!(
            "CREATE ROLE {login} LOGIN; GRANT {owner} TO {login}; CREATE ROLE group_{database};
             CREATE TABLE salaries (of text); GRANT SELECT ON salaries TO {owner}; ALTER TABLE salaries ENABLE ROW LEVEL SECURITY"
        ));
        let scenario = owned.scenario(&login, RETENTION);
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        for (more, less) in [
            (
                format!("CREATE POLICY all_of_it ON salaries TO {login} USING (true)"),
                "DROP POLICY all_of_it ON salaries".to_owned(),
            ),
            (format!("GRANT SELECT ON salaries TO {login} WITH GRANT OPTION"), format!("REVOKE ALL ON salaries FROM {login}")),
            (
                format!("GRANT group_{database} TO {owner}; GRANT group_{database} TO {login} WITH ADMIN OPTION"),
                format!("REVOKE group_{database} FROM {login}; REVOKE group_{database} FROM {owner}"),
            ),
        ] {
            owned.sql(&more);
            let named = format!("with rights that \"{owner}\" lacks");
            scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
            owned.sql(&less);
            scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
        }
        // The same privileges in both hands are none that the owner lacks.
        owned.sql(&format!("GRANT SELECT ON salaries TO {login}"));
        scenario.run(&["run-job", "refused", "--yes"]).succeeded();
        assert_eq!(server.sql(database, "SELECT count(*) FROM logs"), "0");
    }
}

#[test]
fn a_member_of_a_superuser_who_cannot_become_it_does_not_count_as_one() {
    for major in [16, 18] {
        let owned = Owned::with(
            major,
            &format!("{LOGS}; CREATE TRIGGER takes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION on_row()"),
        );
        let Owned { database, owner, .. } = &owned;
        owned.sql(&format!("CREATE ROLE boss_{database} SUPERUSER; GRANT boss_{database} TO {owner} WITH SET FALSE"));
        let scenario = owned.scenario("postgres", RETENTION);
        scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&["trigger takes of public.logs"]);
        assert_eq!(owned.ran(), "");
        // One that can is a superuser already.
        owned.sql(&format!("GRANT boss_{database} TO {owner} WITH SET TRUE"));
        scenario.run(&["run-job", "refused", "--yes", "--dry-run"]).succeeded();
    }
}

/// Its partitions may belong to others than the table does. An audit's transaction is READ ONLY: what code does in it leaves no row, and so the
/// code tells the server's log.
#[test]
fn an_audit_by_a_superuser_reads_no_partition_of_another_owner() {
    let owned = Owned::with(
        18,
        "CREATE FUNCTION logged() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
             RAISE LOG 'code in % ran as %', current_database(), current_user; RETURN 1; END $$",
    );
    owned.sql(&format!(
        "CREATE TABLE ev (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at); CREATE TABLE ev_default PARTITION OF ev DEFAULT WITH (autovacuum_enabled = off);
         INSERT INTO ev SELECT i, now() FROM generate_series(1, 100) i; ALTER TABLE ev_default OWNER TO {}; SET ROLE {0};
         CREATE INDEX ON ev_default (id) WHERE id > logged(); RESET ROLE; ANALYZE",
        owned.owner
    ));
    let ran = format!("code in {} ran as postgres", owned.database);
    let scenario = owned.scenario("postgres", RETENTION);
    let audited = scenario.run(&["audit", "--database", "app", "--fail-on", "never", "--json"]).succeeded();
    audited.prints(&[&format!("public.ev_default belongs to {}, whose code would run as the superuser", owned.owner)]);
    assert!(!owned.server.logged().contains(&ran));
    owned.sql("BEGIN READ ONLY; SELECT count(*) FROM ev_default");
    assert!(owned.server.logged().contains(&ran), "the log tells of it when it runs");
}

/// The lock is by name, and the name of a schema can change while it is waited for.
#[test]
fn the_owner_of_a_schema_who_swaps_a_detached_partition_has_no_row_of_his_archived_for_it() {
    let server = server(18);
    let database = server.new_database();
    let bob = format!("bob_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {bob} LOGIN; GRANT CREATE ON DATABASE {database} TO {bob}; CREATE SCHEMA bs AUTHORIZATION {bob};
             CREATE TABLE sx (at timestamptz NOT NULL, s text) PARTITION BY RANGE (at);
             CREATE TABLE bs.sw_old PARTITION OF sx FOR VALUES FROM ('2020-01-01') TO ('2020-02-01'); INSERT INTO sx VALUES ('2020-01-06', 'ours')"
        ),
    );
    let job = "database = 'app'\n[partition]\ntable = 'public.sx'\ncolumn = 'at'\nevery = 'month'\npremake = 1\nretain = '60d'\ngrace = '100d'\n";
    let scenario = Scenario::with_database(server, &database).job("old", job);
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT relispartition FROM pg_class WHERE oid = 'bs.sw_old'::regclass"), "f");
    let scenario = scenario.job("old", &format!("{job}archive = 'local'\n[limits]\nlock_timeout = '5min'\nmax_wait = '10min'\n"));
    let holder = server.session(&database, "BEGIN; LOCK TABLE bs.sw_old IN ROW EXCLUSIVE MODE");
    let run = scenario.start(&["run-job", "old", "--yes"]);
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '{database}') AND mode = 'ShareLock'"
    );
    eventually("the archive waits for the table", || server.sql("postgres", &waits) != "0");
    server.sql(
        &database,
        &format!(
            "SET ROLE {bob}; BEGIN; ALTER SCHEMA bs RENAME TO bs2; CREATE SCHEMA bs; CREATE TABLE bs.sw_old (at timestamptz NOT NULL, s text);
             INSERT INTO bs.sw_old VALUES ('2020-01-06', 'bobs'); COMMIT"
        ),
    );
    drop(holder);
    run.wait().exited(1).says(&["bs\".\"sw_old", "is another table than the one that this run checked"]);
    assert!(!scenario.files("store").iter().any(|file| file.ends_with(".sql.gz")), "{:?}", scenario.files("store"));
    assert_eq!(server.sql(&database, "SELECT obj_description('bs.sw_old'::regclass) IS NULL"), "t");
    assert_eq!(server.sql(&database, "SELECT s FROM bs2.sw_old"), "ours");
}

#[test]
fn the_owner_of_pgvectors_schema_who_swaps_it_under_a_build_gets_no_rights() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("owner_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE EXTENSION vector; CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner};
             CREATE SCHEMA vx; CREATE TABLE vx.docs (id int PRIMARY KEY, e public.vector(8));
             INSERT INTO vx.docs SELECT i, array_agg(random())::public.vector FROM generate_series(1, 2000) i, generate_series(1, 8) GROUP BY i; ANALYZE vx.docs"
        ),
    );
    let job = "database = 'app'\n[vector_index]\ntable = 'vx.docs'\ncolumn = 'e'\nexact_below = 100\nmethod = 'hnsw'\nm = 8\nef_construction = 32\n[limits]\nmax_wait = '10min'\n";
    let scenario =
        Scenario::with_database(server, &database).job("build", job).job("refused", &format!("{job}trust_owners = false\n"));
    let named = format!("the schema of the extension vector (schema public) belongs to \"{owner}\"");
    scenario.run(&["run-job", "refused", "--yes"]).exited(77).says(&[&named]);
    // The build waits for this transaction, and so do the searches behind it.
    let holder = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM vx.docs");
    let run = scenario.start(&["run-job", "build", "--yes"]);
    eventually("the build waits", || {
        server.sql(&database, "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname LIKE '%pgtend_new%' AND i.indisready") != "0"
    });
    server.sql(
        &database,
        &format!(
            "SET ROLE {owner}; BEGIN; ALTER SCHEMA public RENAME TO public_old; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;
             CREATE FUNCTION public.climb(public_old.vector, public_old.vector) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN
                 IF (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN EXECUTE 'ALTER ROLE {owner} SUPERUSER'; END IF; RETURN 0; END $$;
             CREATE DOMAIN public.vector AS public_old.vector;
             CREATE OPERATOR public.<-> (leftarg = public_old.vector, rightarg = public_old.vector, function = public.climb);
             CREATE OPERATOR public.<=> (leftarg = public_old.vector, rightarg = public_old.vector, function = public.climb);
             CREATE OPERATOR public.<#> (leftarg = public_old.vector, rightarg = public_old.vector, function = public.climb); COMMIT"
        ),
    );
    drop(holder);
    let output = run.wait();
    assert_eq!(server.sql(&database, &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{owner}'")), "f");
    output.exited(1).says(&["pgvector is not in the schema \"public\" any more"]);
}
