//! What a dump of a hostile server, and other users of pgtend's host, cannot do by a proof in a server of its own.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::throwaway::{builds_an_index, entries, facts, in_the_end, place, scenario};

/// A file that every program can make, in a folder whose other files are safe from it.
fn evidence(place: &TempDir) -> PathBuf {
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    place.path().join("evidence")
}

/// A scenario with a database of PostgreSQL 15, which has contrib.
fn of_15(more: &str) -> (&'static Server, String, Scenario, TempDir) {
    let server = server(15);
    let database = server.new_database();
    let (scenario, place) = scenario(server, &database, more);
    (server, database, scenario, place)
}

/// pg_dump writes such a filter: a server that was told to allow changes of its catalog has one.
#[test]
fn a_filter_of_a_publication_runs_no_code_of_the_dump_as_a_superuser() {
    let (server, database, scenario, place) = of_15("");
    let evidence = evidence(&place);
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA s;
             CREATE FUNCTION s.evil(i int) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF current_database() = 'pgtend_proof' AND current_setting('is_superuser') = 'on' THEN
                     COPY (SELECT 1) TO PROGRAM 'touch {}';
                 END IF;
                 RETURN true;
             END $$;
             CREATE DOMAIN s.d AS int CHECK (s.evil(VALUE));
             CREATE TABLE s.t (i int, a s.d[], CONSTRAINT c CHECK (a = '{{1}}'::s.d[])); INSERT INTO s.t VALUES (1);
             CREATE PUBLICATION p FOR TABLE s.t WHERE (i = 1);
             SET allow_system_table_mods = on;
             UPDATE pg_publication_rel SET prqual = (SELECT conbin FROM pg_constraint WHERE conname = 'c');
             RESET allow_system_table_mods; ALTER TABLE s.t DROP CONSTRAINT c",
            evidence.display()
        ),
    );
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["the verification by restore failed", "publication WHERE expression"]);
    assert!(!evidence.exists());
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
}

/// Operator classes and families whose functions an index would call without asking whether the role may, or with values of other types.
#[test]
fn an_operator_class_reaches_no_function_that_the_restoring_role_may_not_call() {
    for (class, named) in [
        (
            "CREATE OPERATOR FAMILY s.f USING btree;
             ALTER OPERATOR FAMILY s.f USING btree ADD FUNCTION 1 (oid, text) pg_catalog.lo_export(oid, text)",
            "lo_export",
        ),
        (
            "CREATE OPERATOR CLASS s.c FOR TYPE bigint USING btree AS
                 OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 (bigint, bigint) s.cmp(text, text)",
            "s.cmp(text,text)",
        ),
        (
            "CREATE OPERATOR CLASS s.c FOR TYPE text USING btree AS
                 OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 s.cmp(text, text), FUNCTION 2 (text, text) btint8sortsupport(internal)",
            "btint8sortsupport(internal)",
        ),
        (
            "CREATE OPERATOR CLASS s.c FOR TYPE bigint USING hash AS OPERATOR 1 =, FUNCTION 1 (bigint, bigint) hashtext(text)",
            "hashtext(text)",
        ),
        (
            "CREATE OPERATOR CLASS s.c FOR TYPE int[] USING gin AS
                 OPERATOR 1 &&(anyarray, anyarray), FUNCTION 1 (int[], int[]) btint4cmp(int, int),
                 FUNCTION 2 (int[], int[]) pg_catalog.ginarrayextract(anyarray, internal, internal),
                 FUNCTION 3 (int[], int[]) ginqueryarrayextract(anyarray, internal, int2, internal, internal, internal, internal),
                 FUNCTION 4 (int[], int[]) ginarrayconsistent(internal, int2, anyarray, int4, internal, internal, internal, internal), STORAGE int",
            "gin",
        ),
    ] {
        // With `schemas`, no extensions are dumped, and nothing is looked for beforehand.
        for filter in ["", "schemas = [\"s\"]\n"] {
            let (server, database, scenario, place) = of_15(filter);
            let function = "CREATE FUNCTION s.cmp(text, text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN length($1); END'";
            server.sql(&database, &format!("CREATE SCHEMA s; {function}; CREATE TABLE s.t AS SELECT 1 AS i; {class}"));
            let output = scenario.run(&["run-job", "nightly"]).says(&[named]);
            let code = if filter.is_empty() { 78 } else { 77 };
            assert_eq!(output.code, Some(code), "{class}: {output:?}");
            assert_eq!(entries(&place), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn operator_classes_that_people_make_are_proved() {
    let (server, database, scenario, _place) = of_15("");
    server.sql(
        &database,
        "CREATE SCHEMA s; CREATE TYPE s.pair AS (a int, b int); CREATE EXTENSION citext SCHEMA s;
         CREATE FUNCTION s.cmp(s.pair, s.pair) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT btint4cmp($1.a, $2.a)';
         CREATE FUNCTION s.eq(s.pair, s.pair) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1.a = $2.a';
         CREATE FUNCTION s.lt(s.pair, s.pair) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1.a < $2.a';
         CREATE FUNCTION s.hash(s.pair) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT hashint4($1.a)';
         CREATE FUNCTION s.hash(s.pair, bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT hashint4extended($1.a, $2)';
         CREATE OPERATOR s.=== (FUNCTION = s.eq, LEFTARG = s.pair, RIGHTARG = s.pair, MERGES, HASHES, COMMUTATOR = OPERATOR(s.===));
         CREATE OPERATOR s.<<< (FUNCTION = s.lt, LEFTARG = s.pair, RIGHTARG = s.pair);
         CREATE OPERATOR CLASS s.pair_ops FOR TYPE s.pair USING btree AS OPERATOR 1 s.<<<, OPERATOR 3 s.===, FUNCTION 1 s.cmp(s.pair, s.pair);
         CREATE OPERATOR CLASS s.pair_hash FOR TYPE s.pair USING hash AS
             OPERATOR 1 s.===, FUNCTION 1 s.hash(s.pair), FUNCTION 2 s.hash(s.pair, bigint);
         CREATE OPERATOR CLASS s.backwards FOR TYPE text USING btree AS
             OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <,
             FUNCTION 1 bttextcmp(text, text), FUNCTION 2 bttextsortsupport(internal), FUNCTION 4 btvarstrequalimage(oid);
         CREATE OPERATOR FAMILY s.integers USING btree;
         ALTER OPERATOR FAMILY s.integers USING btree ADD FUNCTION 1 (int, bigint) btint48cmp(int, bigint),
             FUNCTION 3 (int, bigint) in_range(int, int, bigint, boolean, boolean);
         CREATE OPERATOR CLASS s.folded FOR TYPE s.citext USING btree AS
             OPERATOR 1 s.<, OPERATOR 3 s.=, FUNCTION 1 s.citext_cmp(s.citext, s.citext);
         CREATE TABLE s.t (p s.pair, w text, c s.citext); INSERT INTO s.t SELECT ROW(i, i)::s.pair, i, i FROM generate_series(1, 100) i;
         CREATE INDEX ON s.t (p s.pair_ops); CREATE INDEX ON s.t USING hash (p s.pair_hash);
         CREATE INDEX ON s.t (w s.backwards); CREATE INDEX ON s.t (c s.folded)",
    );
    let run = scenario.json(&["run-job", "nightly"]);
    assert_eq!(facts(&run)["by_superuser"]["operator classes"], 4, "{run:#}");
}

/// An option of a user mapping that only a superuser may set.
#[test]
fn a_password_in_a_dump_is_in_no_message_and_a_superusers_mapping_is_left_out() {
    let (server, database, scenario, _place) = of_15("");
    server.sql(
        &database,
        "CREATE EXTENSION postgres_fdw; CREATE TABLE t AS SELECT 1 AS i;
         CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'h', dbname 'x');
         CREATE USER MAPPING FOR postgres SERVER other OPTIONS (user 'u', password 'hunter2-secret', password_required 'false');
         CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (user 'u', password 'hunter2-secret')",
    );
    let scenario = scenario.config(&format!(
        "[databases.runs]\nurl = {}\n[ledger]\ndatabase = \"runs\"\n",
        crate::support::quoted(&server.url(&server.new_database()))
    ));
    let run = scenario.json(&["run-job", "nightly"]);
    let not_tried = facts(&run)["not_tried"].to_string();
    assert!(not_tried.contains("user mapping"), "{run:#}");
    assert!(!run.to_string().contains("hunter2"), "{run:#}");

    // A server that refuses it, too: all that is said of a restore and kept of it.
    let target = server.empty_database();
    server.sql("postgres", &format!("CREATE ROLE {target}_plain LOGIN CREATEDB"));
    let scenario = scenario.config(&format!(
        "[databases.scratch]\nurl = {}\n",
        crate::support::quoted(&server.url_as(&format!("{target}_plain"), "postgres"))
    ));
    let scenario = scenario.backup_job("local", "verify = \"restore\"\nscratch = \"scratch\"\n");
    let output = scenario.run(&["run-job", "nightly"]);
    let said = format!("{output:?}{:?}", scenario.run(&["runs", "--json"]));
    assert!(said.contains("verification by restore failed") || output.code == Some(0), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    for file in scenario.files("store").iter().filter(|file| file.ends_with(".json")) {
        let text = std::fs::read_to_string(scenario.path("store").join(file)).unwrap();
        assert!(!text.contains("hunter2"), "{file}: {text}");
    }
    let into = server.url_as(&format!("{target}_plain"), &format!("{target}_new"));
    let output = scenario.run(&["backups", "restore", "latest", "--database", "app", "--create", "--into", &into]);
    assert!(output.code != Some(0) && !format!("{output:?}").contains("hunter2"), "{output:?}");
}

/// A session of the dump's own, which waits until the superuser has granted what the source's superuser once granted.
#[test]
fn no_session_of_the_dumps_outlives_the_restore() {
    let (server, database, scenario, place) = of_15("");
    let evidence = evidence(&place);
    let owner = format!("{database}_owner");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; CREATE EXTENSION dblink; GRANT EXECUTE ON FUNCTION pg_catalog.lo_export(oid, text) TO PUBLIC;
             CREATE SCHEMA s AUTHORIZATION {owner}; SET ROLE {owner};
             CREATE PROCEDURE s.wait() LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM pg_catalog.lo_from_bytea(4711, 'written after the grants');
                 COMMIT;
                 LOOP
                     IF pg_catalog.has_function_privilege('pg_catalog.lo_export(oid,text)', 'EXECUTE') THEN
                         PERFORM pg_catalog.lo_export(4711, '{}');
                         RETURN;
                     END IF;
                     COMMIT;
                 END LOOP;
             END $$;
             CREATE FUNCTION s.has_a_password(i int) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF pg_catalog.current_database() = 'pgtend_proof' THEN
                     EXECUTE pg_catalog.format('ALTER ROLE %I PASSWORD %L', current_user, 'mine');
                 END IF;
                 RETURN true;
             END $$;
             CREATE FUNCTION s.connects(i int) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF pg_catalog.current_database() = 'pgtend_proof' THEN
                     PERFORM public.dblink_connect('c', pg_catalog.format(
                         'host=/proc/self/cwd/.. port=5432 dbname=pgtend_proof user=%s password=mine', current_user));
                     PERFORM public.dblink_send_query('c', 'CALL s.wait()');
                     PERFORM pg_catalog.pg_sleep(1);
                 END IF;
                 RETURN true;
             END $$;
             CREATE TABLE s.a (i int CHECK (s.has_a_password(i))); INSERT INTO s.a VALUES (1);
             CREATE TABLE s.b (i int CHECK (s.connects(i))); INSERT INTO s.b VALUES (1);",
            evidence.display()
        ),
    );
    // As many grants after that one as it needs time for.
    server.sql(
        &database,
        &format!(
            "DO $$ BEGIN FOR i IN 1 .. 300 LOOP EXECUTE format('CREATE TABLE public.z%s (i int); GRANT SELECT ON public.z%s TO {owner}', i, i);
             END LOOP; END $$"
        ),
    );
    let run = scenario.json(&["run-job", "nightly"]);
    assert!(facts(&run)["by_superuser"]["grants"].as_u64().unwrap() > 300, "{run:#}");
    assert!(!evidence.exists(), "{}", std::fs::read_to_string(&evidence).unwrap_or_default());
}

#[test]
fn a_folder_that_another_user_could_exchange_holds_no_server() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let (scenario, place) = scenario(server, &database, "");
    let with_mode = |mode: u32| {
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        scenario.run(&["check", "--connect"])
    };
    for mode in [0o777, 0o772, 0o770] {
        with_mode(mode).exited(78).prints(&["scratch_dir", "other users can write", "chmod"]);
    }
    scenario.run(&["run-job", "nightly"]).exited(78).says(&["was made and its bytes are intact", "other users can write"]);
    with_mode(0o1777).succeeded();
    with_mode(0o711).succeeded();
    // The members of any group are other users, also of root's and of this process's own.
    if rustix::process::geteuid().is_root() {
        for group in [nobody(), 0] {
            chown(place.path(), None, Some(group)).unwrap();
            with_mode(0o771).exited(78).prints(&["other users can write"]);
        }
        with_mode(0o711).succeeded();
    }
    // Above it, too.
    let above = place.path().join("above");
    std::fs::create_dir_all(above.join("proofs")).unwrap();
    std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o777)).unwrap();
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let deep = config.replace(&place.path().display().to_string(), &above.join("proofs").display().to_string());
    std::fs::write(scenario.path("config.toml"), deep).unwrap();
    scenario.run(&["check", "--connect"]).exited(78).prints(&["other users can write", &above.display().to_string()]);
    std::fs::write(scenario.path("config.toml"), config).unwrap();
    // The owner of a folder may write into it at any time, whoever runs the server.
    if rustix::process::geteuid().is_root() {
        chown(place.path(), Some(nobody()), None).unwrap();
        with_mode(0o700).exited(78).prints(&["scratch_dir", "belongs to", "chown"]);
        chown(place.path(), Some(0), None).unwrap();
    }
}

fn nobody() -> u32 {
    let output = std::process::Command::new("id").args(["-u", "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Another folder takes the place of the server's while that is at work.
#[test]
fn a_link_in_the_place_of_a_servers_folder_is_not_followed() {
    let victim = place();
    std::fs::create_dir(victim.path().join("server")).unwrap();
    std::fs::write(victim.path().join("server/data.txt"), "precious").unwrap();
    std::fs::write(victim.path().join("lock"), "precious").unwrap();
    let before = std::fs::metadata(victim.path().join("server")).unwrap().uid();
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE FUNCTION slow(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET search_path = pg_catalog AS $$
         BEGIN IF current_database() = 'pgtend_proof' THEN PERFORM pg_sleep(5); END IF; RETURN i; END $$;
         CREATE TABLE t AS SELECT 1 AS i; CREATE INDEX ON t (slow(i))",
    );
    let (scenario, place) = scenario(server, &database, "");
    let run = scenario.start(&["run-job", "nightly"]);
    in_the_end("the restore waits in its index", || builds_an_index(place.path()));
    let folder = entries(&place).pop().unwrap();
    std::fs::rename(&folder, place.path().join("away")).unwrap();
    std::os::unix::fs::symlink(victim.path(), &folder).unwrap();
    run.wait();
    assert_eq!(std::fs::read_to_string(victim.path().join("server/data.txt")).unwrap(), "precious");
    assert!(victim.path().join("lock").exists());
    assert_eq!(std::fs::metadata(victim.path().join("server")).unwrap().uid(), before);
    assert!(Path::new(&folder).is_symlink());
}
