//! What makes a gate doubt: refusals that are forgotten or stay behind in another store, clocks, another database under the same name, lost sets.

use std::time::{Duration, SystemTime};

use crate::encryption::age_key;
use crate::gates::{REQUIRE, by_clock, ended, require, scenario, with_rows};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

const REFUSED: &str = "verify = \"restore\"\nexpect = [\"SELECT count(*) > 5000 FROM t\"]";
const RUN: [&str; 2] = ["run-job", "nightly"];

/// A login that may not create a database.
fn without_rights(server: &Server) -> String {
    let role = format!("{}_none", server.new_database());
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    server.url_as(&role, "postgres")
}

fn with_two(scenario: Scenario) -> Scenario {
    scenario.config("[stores.two]\npath = \"two\"\n")
}

fn copy(scenario: &Scenario, set: &str) {
    scenario.run(&["backups", "copy", set, "--from", "local", "--to", "two"]).succeeded();
}

/// Dates the manifest as a store would whose clock differs by so many minutes.
fn date_manifest(scenario: &Scenario, set: &str, minutes_ago: u64) {
    let manifest = scenario.path(&format!("store/{set}/manifest.json"));
    let at = SystemTime::now() - Duration::from_secs(60 * minutes_ago);
    std::fs::File::options().write(true).open(manifest).unwrap().set_modified(at).unwrap();
}

#[test]
fn a_refusal_for_rights_does_not_make_the_gate_forget_one_for_the_data() {
    let server = server(18);
    let scenario = scenario(server, REFUSED);
    scenario.run(&RUN).exited(1);
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "verify", &set, "--restore-on", &without_rights(server)]).exited_with_one_of(&[1, 77]);
    scenario.run(&REQUIRE).exited(75).says(&["refused it when it was last restored, on ", "are not true there"]);
    let certificate = scenario.run(&["backups", "certificate", &set]).succeeded();
    certificate.prints(&["are not true there", "permission denied to create database"]);
    scenario.run(&["backups", "verify", &set, "--restore-on", "app"]).succeeded();
    scenario.run(&REQUIRE).succeeded();
}

#[test]
fn a_copy_of_a_set_that_was_refused_for_its_data_opens_no_gate() {
    let server = server(18);
    let scenario = with_two(scenario(server, REFUSED));
    scenario.run(&RUN).exited(1);
    let set = scenario.sets().pop().unwrap();
    copy(&scenario, &set);
    let two = format!("{set} in two");
    scenario.run(&REQUIRE).exited(75).says(&[&two, "are not true there"]);
    // By itself it says whose refusal it is.
    let alone = require(&["--store", "two"]);
    scenario.run(&alone).exited(75).says(&["refused it as the copy in local when it was last restored", "are not true there"]);
    // Restored from one store, it is good in both.
    scenario.run(&["backups", "verify", &set, "--store", "two", "--restore-on", "app"]).succeeded();
    scenario.run(&REQUIRE).succeeded();
}

#[test]
fn a_refusal_goes_along_with_an_encrypted_copy_without_the_words_of_the_server() {
    let scenario = scenario(server(18), REFUSED);
    scenario.run(&RUN).exited(1);
    let set = scenario.sets().pop().unwrap();
    let key = age_key(&scenario, "key");
    let scenario = scenario.config(&format!("[stores.two]\npath = \"two\"\nencrypt_to = [\"{key}\"]\n"));
    copy(&scenario, &set);
    let said = "what the server said stands beside the copy in local";
    scenario.run(&require(&["--store", "two"])).exited(75).says(&["as the copy in local", said]);
    let verdict = std::fs::read_to_string(scenario.path(&format!("two/{set}/verification.json"))).unwrap();
    assert!(verdict.contains(said) && !verdict.contains("5000"), "{verdict}");
}

#[test]
fn a_refusal_that_was_found_after_copying_holds_for_the_copy() {
    let server = server(18);
    let database = with_rows(server);
    // What the rows are worth is up to a setting, as it is up to time elsewhere.
    let login = format!("{database}_login");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {login} SUPERUSER LOGIN;
             CREATE FUNCTION fits(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN IF current_setting('test.refuses', true) = 'yes' THEN RAISE EXCEPTION 'odd rows'; END IF; RETURN true; END $$;
             CREATE TABLE c (i int CHECK (fits(i))); INSERT INTO c VALUES (1)"
        ),
    );
    let scenario = with_two(Scenario::with_database(server, &database).backup_job("local", ""));
    scenario.run(&RUN).succeeded();
    let set = scenario.sets().pop().unwrap();
    copy(&scenario, &set);
    scenario.run(&REQUIRE).succeeded();
    server.sql("postgres", &format!("ALTER ROLE {login} SET test.refuses = 'yes'"));
    let on = server.url_as(&login, "postgres");
    let verify = ["backups", "verify", &set, "--store", "local", "--restore-on", &on];
    scenario.run(&verify).exited(1).says(&["odd rows"]);
    scenario.run(&REQUIRE).exited(75).says(&[&format!("{set} in local"), &format!("{set} in two"), "odd rows"]);
    // A proof by a host whose clock is ahead hides no later refusal, and proves nothing before its time has come.
    server.sql("postgres", &format!("ALTER ROLE {login} RESET test.refuses"));
    ended(&by_clock(&scenario, "+1d", &[&verify[..], &["--any"]].concat()), 0, "");
    scenario.run(&REQUIRE).exited(75).says(&["odd rows"]);
    scenario.run(&verify).succeeded();
    scenario.run(&REQUIRE).succeeded();
}

#[test]
fn a_proof_that_is_dated_ahead_proves_nothing_and_hides_no_refusal() {
    let server = server(18);
    let scenario = scenario(server, "");
    scenario.run(&RUN).succeeded();
    let set = scenario.sets().pop().unwrap();
    let verify = ["backups", "verify", &set, "--any", "--restore-on", "app"];
    ended(&by_clock(&scenario, "+1d", &verify), 0, "");
    scenario.run(&REQUIRE).succeeded();
    scenario.run(&require(&["--restored"])).exited(75).says(&["its restore is dated in the future"]);
    scenario.run(&verify).succeeded();
    scenario.run(&require(&["--restored"])).succeeded();
}

#[test]
fn a_set_that_began_after_its_manifest_by_its_store_s_clock_opens_no_gate_as_a_copy_either() {
    let scenario = with_two(scenario(server(18), ""));
    scenario.run(&RUN).succeeded();
    let set = scenario.sets().pop().unwrap();
    date_manifest(&scenario, &set, 51);
    copy(&scenario, &set);
    for question in [require(&[]), require(&["--store", "two"])] {
        scenario.run(&question).exited(75).says(&["it is dated in the future by its store's clock: it began on ", "50 min"]);
    }
}

#[test]
fn a_store_whose_clock_is_behind_keeps_deletes_and_restores_as_any_other_and_opens_no_gate() {
    let server = server(18);
    let database = with_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "keep = { last = 2 }");
    for sets in [1, 2, 2, 2] {
        let ran = scenario.run(&RUN).succeeded();
        assert_eq!(scenario.sets().len(), sets, "{}", ran.stderr);
        scenario.sets().iter().for_each(|set| date_manifest(&scenario, set, 6));
    }
    scenario.run(&RUN).succeeded().says(&["the store's clock is behind"]);
    scenario.sets().iter().for_each(|set| date_manifest(&scenario, set, 6));
    scenario.run(&["backups", "list"]).succeeded().prints(&["The last intact set is "]);
    let into = format!("{database}_back");
    server.drop_with_test(&into);
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&into), "--create"]).succeeded();
    let said =
        scenario.run(&REQUIRE).exited(75).says(&["it began on ", "its manifest was written on ", "or the store's is behind"]);
    assert!(!said.stderr.contains("--any"), "{}", said.stderr);
}

#[test]
fn a_set_that_even_a_superuser_cannot_restore_is_no_backup() {
    let server = server(18);
    let database = with_rows(server);
    let owner = format!("{database}_owner");
    // Indexes are built as the table's owner, before the dump grants what their functions need.
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; CREATE SCHEMA s; CREATE FUNCTION s.g(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
             CREATE FUNCTION public.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN s.g($1); END';
             GRANT USAGE ON SCHEMA s TO {owner}; ALTER TABLE t OWNER TO {owner}; CREATE INDEX ON t (public.f(i))"
        ),
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let failed = scenario.run(&RUN).exited(1).says(&["42501", "No right of the restoring role is missing"]);
    assert!(!failed.stderr.contains("pgtend grants"), "{}", failed.stderr);
    scenario.run(&REQUIRE).exited(75).says(&["refused it when it was last restored", "42501"]);
}

#[test]
fn code_of_the_dump_that_speaks_of_a_full_disk_opens_no_gate() {
    let server = server(18);
    let database = with_rows(server);
    let login = format!("{database}_login");
    // A full disk, a limit, too deep a stack, somebody who cancels, a server that stops: each said by a function.
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {login} SUPERUSER LOGIN;
             CREATE FUNCTION deep(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.deep($1 + 1); END';
             CREATE FUNCTION fits(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
             $$ DECLARE says text := current_setting('test.says', true); BEGIN
                 CASE WHEN says IS NULL THEN RETURN true;
                      WHEN says = 'deep' THEN RETURN public.deep(1);
                      ELSE RAISE EXCEPTION 'says so' USING ERRCODE = says;
                 END CASE;
             END $$;
             CREATE TABLE c (i int CHECK (fits(i))); INSERT INTO c VALUES (1)"
        ),
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&RUN).succeeded();
    let set = scenario.sets().pop().unwrap();
    let on = server.url_as(&login, "postgres");
    let verify = ["backups", "verify", &set, "--restore-on", &on];
    for (says, code) in [("53100", "53100"), ("54000", "54000"), ("57014", "57014"), ("57P01", "57P01"), ("deep", "54001")] {
        server.sql("postgres", &format!("ALTER ROLE {login} SET test.says = '{says}'"));
        scenario.run(&verify).exited_with_one_of(&[1, 69]).says(&[code]);
        scenario.run(&REQUIRE).exited(75).says(&["refused it when it was last restored", code]);
        server.sql("postgres", &format!("ALTER ROLE {login} RESET test.says"));
        // What succeeds later ends the doubt.
        scenario.run(&verify).succeeded();
        scenario.run(&REQUIRE).succeeded();
    }
}

#[test]
fn a_gate_that_opens_names_a_restore_that_failed_for_rights() {
    let server = server(18);
    let scenario = scenario(server, "");
    scenario.run(&RUN).succeeded();
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "verify", &set, "--restore-on", &without_rights(server)]).exited_with_one_of(&[1, 77]);
    scenario
        .run(&REQUIRE)
        .succeeded()
        .prints(&["(intact; the last restore of it failed, by ", "permission denied to create database"]);
}

#[test]
fn a_set_of_a_database_that_was_replaced_under_its_name_is_no_backup_of_the_new_one() {
    let server = server(18);
    let (old, new) = (with_rows(server), server.new_database());
    server.sql(&new, "CREATE TABLE precious AS SELECT 1 AS i");
    let scenario = Scenario::with_database(server, &old).backup_job("local", "");
    scenario.run(&RUN).succeeded();
    scenario.run(&REQUIRE).succeeded();
    let away = format!("{old}_away");
    server.drop_with_test(&away);
    server.sql("postgres", &format!("ALTER DATABASE {old} RENAME TO {away}"));
    server.sql("postgres", &format!("ALTER DATABASE {new} RENAME TO {old}"));
    let identity = scenario.json(&["backups", "list"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    let accept = format!("--from {identity}");
    scenario.run(&REQUIRE).exited(75).says(&["it is of another database, which had this name on this server", "OID", &accept]);
    scenario.run(&require(&["--from", &identity])).succeeded();
    scenario.run(&["run-job", "nightly", "--unless-within", "1h"]).succeeded().prints(&["succeeded in"]);
    scenario.run(&REQUIRE).succeeded();
}

#[test]
fn the_server_s_identifier_alone_means_the_database_that_the_url_names() {
    let server = server(18);
    let scenario = scenario(server, "");
    scenario.run(&RUN).succeeded();
    let identity = scenario.json(&["backups", "list"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    let (of_server, database) = identity.split_once('/').unwrap();
    scenario.run(&require(&["--from", of_server])).succeeded();
    let store = scenario.path("store").display().to_string();
    let config = format!("[databases.app]\nurl = \"{}\"\n[stores.local]\npath = \"{store}\"\n", server.url("postgres"));
    let other = Scenario::empty().config(&config);
    other.run(&require(&["--from", of_server])).exited(75).says(&[&format!("it is of the database {database} of that server")]);
    other.run(&require(&["--from", &identity])).succeeded();
}

#[test]
fn a_newest_set_that_lost_its_manifest_and_its_verdict_is_named_and_not_passed_over() {
    let server = server(18);
    let database = with_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&RUN).succeeded();
    let older = scenario.sets().pop().unwrap();
    scenario.run(&RUN).succeeded();
    let lost = scenario.sets().into_iter().find(|set| *set != older).unwrap();
    for object in ["manifest.json", "verification.json"] {
        std::fs::remove_file(scenario.path(&format!("store/{lost}/{object}"))).unwrap();
    }
    let says = [lost.as_str(), "its manifest.json is gone"];
    scenario.run(&["backups", "list"]).succeeded().says(&says);
    scenario.run(&REQUIRE).succeeded().prints(&[&older, "newer ones are lost: ", &lost]);
    let into = format!("{database}_back");
    server.drop_with_test(&into);
    let into = server.url(&into);
    let restore = ["backups", "restore", "latest", "--into", &into, "--create"];
    scenario.run(&restore).exited(78).says(&says);
    scenario.run(&[&restore[..], &["--older-ok"]].concat()).succeeded();
}

#[test]
fn a_store_that_lost_a_set_s_manifest_and_verdict_gets_it_again_from_the_other() {
    let server = server(18);
    let scenario = with_two(scenario(server, "")).job("nightly", "database = \"app\"\n[backup]\nstore = [\"local\", \"two\"]\n");
    scenario.run(&RUN).succeeded();
    let set = scenario.sets().pop().unwrap();
    for object in ["manifest.json", "verification.json"] {
        std::fs::remove_file(scenario.path(&format!("store/{set}/{object}"))).unwrap();
    }
    scenario.run(&RUN).succeeded().prints(&["copied 1 set that local lacked"]);
    scenario.run(&["backups", "verify", &set, "--store", "local"]).succeeded();
}
