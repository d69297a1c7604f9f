//! Where a proof is made: in a server of its own, or in a scratch database where that cannot be had, and what has to be trusted there.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::postgres::{server, server_dir};
use crate::support::{Output, Scenario, quoted};
use crate::throwaway::{RUN_AS, entries, facts, place, scenario};

#[test]
fn a_user_who_runs_other_programs_runs_no_server_unless_a_person_names_that_user() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let (scenario, _place) = scenario(server, &database, "");
    // As another user than root, pgtend would run the server as itself: so it is root in a namespace, where all users but this one are `nobody`,
    // and process 1 belongs to one of them.
    let check = || scenario.in_mount_namespace("$pgtend check --connect");
    check().succeeded();
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    std::fs::write(scenario.path("config.toml"), config.replace(RUN_AS, "")).unwrap();
    // For root, the server of this test is one of these programs.
    check().exited(78).prints(&["the user `nobody`", "runs other programs, too", "run_as"]);
}

#[test]
fn too_little_space_is_refused_before_a_server_is_made() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let (scenario, place) = scenario(server, &database, "");
    let small = |arguments: &str| {
        let mount = format!("mount -t tmpfs -o size=64m none {}", place.path().display());
        scenario.in_mount_namespace(&format!(
            "{mount} && {{ $pgtend {arguments}; code=$?; find {} -mindepth 1; exit $code; }}",
            place.path().display()
        ))
    };
    let says = ["67.1 MB free", "scratch_dir"];
    small("run-job nightly --dry-run").succeeded().prints(&["lacks", says[0], says[1]]);
    let output = small("run-job nightly").exited(78).says(&["was made and its bytes are intact", says[0], says[1]]);
    assert!(!output.stdout.contains("pgtend-throwaway"), "{output:?}");
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact", "the backup is there all the same");
}

#[test]
fn without_server_programs_a_job_that_names_no_place_takes_a_scratch_database_and_says_why() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 1 AS i");
    let job = |scratch: &str| format!("database = \"app\"\n[backup]\nstore = \"local\"\nverify = \"restore\"\n{scratch}");
    let scenario = Scenario::with_database(server, &database).job("nightly", &job(""));
    let missing = "there are no server programs (initdb, postgres) of PostgreSQL 18 on this host";
    without_server_programs(&scenario, "run-job nightly --dry-run").succeeded().prints(&[
        "restored into scratch database",
        missing,
        "postgresql-18",
        "server_bin_dir",
    ]);
    without_server_programs(&scenario, "check --connect").succeeded().prints(&[missing]);
    let ran = |output: Output| serde_json::from_str::<Value>(&output.succeeded().stdout).unwrap();
    let run = ran(without_server_programs(&scenario, "run-job nightly --json"));
    assert!(facts(&run)["restored_in"].as_str().unwrap().starts_with("a scratch database on "), "{run:#}");
    assert_eq!(run["runs"][0]["report"]["warnings"], serde_json::json!([]), "not each night: {run:#}");

    let scenario = scenario.job("nightly", &job("scratch = \"throwaway\"\n"));
    without_server_programs(&scenario, "check --connect").exited(78).prints(&[missing]);
    let says = ["was made and its bytes are intact", missing];
    without_server_programs(&scenario, "run-job nightly").exited(78).says(&says);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][1]["bytes"], "intact");
    // A database of that name is meant, as in the first release.
    let scenario = scenario.config(&format!("[databases.throwaway]\nurl = {}\n", quoted(&server.url("postgres"))));
    let run = ran(without_server_programs(&scenario, "run-job nightly --json"));
    assert!(facts(&run)["restored_in"].as_str().unwrap().starts_with("a scratch database on "), "{run:#}");
}

/// Runs pgtend where each initdb of a package is hidden, whatever this machine has installed. Its client programs stay.
fn without_server_programs(scenario: &Scenario, arguments: &str) -> Output {
    let packages =
        "/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin";
    scenario.in_mount_namespace(&format!(
        "for bin in {packages}; do [ ! -e $bin/initdb ] || mount --bind /dev/null $bin/initdb || exit 99; done; exec $pgtend {arguments}"
    ))
}

#[test]
fn without_its_extension_a_proof_takes_the_scratch_database_and_says_why() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE EXTENSION vector; CREATE TABLE t (e vector(2)); INSERT INTO t VALUES ('[1,2]')");
    let folder = place();
    std::fs::create_dir_all(folder.path().join("bin")).unwrap();
    std::fs::create_dir_all(folder.path().join("share/extension")).unwrap();
    for program in ["initdb", "postgres"] {
        symlink(server_dir(18).join(program), folder.path().join("bin").join(program)).unwrap();
    }
    let (scenario, place) = scenario(server, &database, "");
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let programs = |folder: &Path| format!("server_bin_dir = {}", quoted(&folder.display().to_string()));
    let config = config.replace(&programs(&server_dir(18)), &programs(&folder.path().join("bin")));
    std::fs::write(scenario.path("config.toml"), config).unwrap();
    let missing = "extensions of the dump are not installed for the PostgreSQL 18";
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&[
        "lacks",
        missing,
        "vector; install their packages there",
    ]);
    let scenario = scenario.job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\nverify = \"restore\"\n");
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&[
        "scratch database",
        missing,
        "vector; install their packages there",
    ]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

/// A job that leaves the place to pgtend.
const ANYWHERE: &str = "database = \"app\"\n[backup]\nstore = \"local\"\nverify = \"restore\"\n";

#[test]
fn what_only_a_superuser_may_make_is_known_before_a_server_is_made() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t AS SELECT 1 AS i; CREATE FUNCTION sum(float8) RETURNS float8 IMMUTABLE LEAKPROOF LANGUAGE sql AS 'SELECT $1';
         CREATE TEXT SEARCH TEMPLATE words (LEXIZE = dsimple_lexize); CREATE CAST (xid AS int) WITHOUT FUNCTION;",
    );
    let (scenario, place) = scenario(server, &database, "");
    let named = [
        "the function public.sum (leakproof)",
        "the text search template words",
        "the cast WITHOUT FUNCTION from xid to integer",
    ];
    let refused = scenario.run(&["run-job", "nightly"]).exited(78).says(&["was made and its bytes are intact"]);
    refused.says(&named);
    let scenario = scenario.job("nightly", ANYWHERE);
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&["scratch database"]).prints(&named);
    let run = scenario.json(&["run-job", "nightly"]);
    assert!(facts(&run)["restored_in"].as_str().unwrap().starts_with("a scratch database on "), "{run:#}");
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

#[test]
fn what_its_server_refused_is_not_restored_with_more_rights() {
    let server = server(18);
    let database = server.new_database();
    let (scenario, place) = scenario(server, &database, "");
    let evidence = scenario.path("evidence");
    server.sql(
        &database,
        &format!(
            "CREATE FUNCTION hostile(i int) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 IF current_database() = 'pgtend_proof' THEN RAISE EXCEPTION 'not here'; END IF;
                 IF current_database() LIKE 'pgtend%' THEN COPY (SELECT 1) TO PROGRAM 'touch {}'; END IF;
                 RETURN true;
             END $$;
             CREATE TABLE t (i int CHECK (public.hostile(i))); INSERT INTO t VALUES (1);",
            evidence.display()
        ),
    );
    let scenario = scenario.job("nightly", ANYWHERE);
    scenario.run(&["run-job", "nightly"]).exited(1).says(&["the verification by restore failed", "not here"]);
    assert!(!evidence.exists());
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
}

#[test]
fn a_job_without_a_place_falls_back_and_asks_again_whom_it_trusts() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("{database}_owner");
    server.sql(&database, &format!("CREATE ROLE {owner}; CREATE TABLE t AS SELECT 1 AS i; ALTER TABLE t OWNER TO {owner}"));
    let (scenario, place) = scenario(server, &database, "");
    let folder = self::place();
    let postgres = server_dir(18).join("postgres");
    symlink(postgres, folder.path().join("postgres")).unwrap();
    std::fs::write(folder.path().join("initdb"), "#!/bin/sh\necho no initdb today\nexit 1\n").unwrap();
    std::fs::set_permissions(folder.path().join("initdb"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let programs = |folder: &Path| format!("server_bin_dir = {}", quoted(&folder.display().to_string()));
    std::fs::write(scenario.path("config.toml"), config.replace(&programs(&server_dir(18)), &programs(folder.path()))).unwrap();
    let scenario = scenario.job("nightly", &format!("{ANYWHERE}[limits]\ntrust_owners = false\n"));
    scenario.run(&["run-job", "nightly"]).exited(77).says(&[
        "was made and its bytes are intact",
        &format!("runs code of {owner}"),
        "trust_owners = false refuses that",
        "no initdb today",
    ]);
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["bytes"], "intact");
    let scenario = scenario.job("nightly", ANYWHERE);
    let run = scenario.json(&["run-job", "nightly"]);
    assert!(facts(&run)["restored_in"].as_str().unwrap().starts_with("a scratch database on "), "{run:#}");
    let warnings = run["runs"][0]["report"]["warnings"].to_string();
    for text in [
        "no PostgreSQL server of its own could be prepared",
        "scratch = \\\"same\\\"",
        "no initdb today",
        &format!("runs code of {owner}"),
    ] {
        assert!(warnings.contains(text), "{text}: {warnings}");
    }
    assert_eq!(entries(&place), Vec::<PathBuf>::new());
}

#[test]
fn a_server_of_its_own_needs_no_trust_in_owners_though_pgtend_is_a_superuser() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("{database}_owner");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE TABLE t (id int CHECK (id >= one())); INSERT INTO t VALUES (1);
             ALTER TABLE t OWNER TO {owner}; ALTER FUNCTION one() OWNER TO {owner}"
        ),
    );
    let (scenario, _place) = scenario(server, &database, "[limits]\ntrust_owners = false\n");
    scenario.run(&["check", "--connect"]).succeeded();
    let run = scenario.json(&["run-job", "nightly"]);
    assert!(facts(&run)["restored_in"].as_str().unwrap().ends_with(" of its own"), "{run:#}");
    assert_eq!(run["runs"][0]["report"]["warnings"], serde_json::json!([]), "{run:#}");
    let same = scenario.backup_job("local", "verify = \"restore\"\nscratch = \"same\"\n[limits]\ntrust_owners = false\n");
    same.run(&["run-job", "nightly"]).exited(77).says(&["trust_owners = false refuses that", "scratch = \"throwaway\""]);
}
