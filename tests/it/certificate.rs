//! The certificate of a set: what is recorded of its proofs, and no word more.

use serde_json::Value;

use crate::encryption::{age_key, set_keys};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::throwaway;

fn with_rows(server: &Server) -> String {
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i");
    database
}

fn lines(certificate: &Value, list: &str) -> String {
    let all = certificate[list].as_array().unwrap();
    all.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn has(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "`{expected}` is not in: {text}");
    }
}

#[test]
fn a_certificate_says_what_was_proved_when_by_which_release_and_what_was_not() {
    let server = server(18);
    let scenario =
        Scenario::with_database(server, &with_rows(server)).backup_job("local", "verify = \"none\"\nkeep = { last = 3 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let certificate = ["backups", "certificate", &set];

    let unread = scenario.json(&certificate);
    assert_eq!(lines(&unread, "proved"), "");
    has(&lines(&unread, "not_proved"), &["nobody has read it back", "no server has restored it", "the store has no key"]);
    has(&lines(&unread, "kept"), &["last 1 of 3", "is not known"]);

    scenario.run(&["backups", "verify", &set]).succeeded();
    scenario.run(&["backups", "verify", &set, "--restore-on", "app"]).succeeded();
    scenario.run(&["backups", "hold", &set, "--until", "2099-01-01", "--reason", "<b>audit</b>"]).succeeded();
    let proved = scenario.json(&certificate);
    let release = format!("(pgtend {})", env!("CARGO_PKG_VERSION"));
    has(
        &lines(&proved, "proved"),
        &[
            "All stored bytes were read back on ",
            "1 table, 1,000 rows",
            "It was restored on ",
            "in a scratch database on ",
            &release,
        ],
    );
    has(&lines(&proved, "not_proved"), &["no query of `expect`", "amcheck has not read them", "pgtend never runs them"]);
    has(&lines(&proved, "kept"), &["held until 2099-01-02 00:00:00 UTC", "<b>audit</b>"]);
    assert_eq!(proved["facts"]["began_at"], manifest(&scenario, &set)["started_at"]);
    assert_eq!(proved["facts"]["sha256"], manifest(&scenario, &set)["dump"]["sha256"]);

    let text = scenario.run(&certificate).succeeded().stdout;
    has(&text, &["CERTIFICATE", &set, "What was proved:", "What was not proved:", "nothing was read or restored for it"]);
    let html = scenario.run(&["backups", "certificate", &set, "--format", "html"]).succeeded().stdout;
    has(&html, &["<!DOCTYPE html>", "&lt;b&gt;audit", "What was not proved"]);
    assert!(!html.contains("<b>audit") && !html.contains("<script"), "{html}");

    let dump = scenario.path(&format!("store/{set}/dump.sql.gz"));
    let mut bytes = std::fs::read(&dump).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&dump, bytes).unwrap();
    scenario.run(&["backups", "verify", &set]).exited(1);
    let damaged = scenario.json(&["backups", "certificate", "latest"]);
    has(&lines(&damaged, "not_proved"), &["ITS BYTES ARE DAMAGED, as was found on "]);
    assert!(!lines(&damaged, "proved").contains("read back"), "{damaged}");
    has(&lines(&damaged, "proved"), &["It was restored on "]);
}

fn manifest(scenario: &Scenario, set: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scenario.path(&format!("store/{set}/manifest.json"))).unwrap()).unwrap()
}

#[test]
fn a_certificate_names_the_queries_and_checks_of_a_copy_in_a_server_of_its_own() {
    // It has amcheck.
    let server = server(17);
    let query = "SELECT count(*) = 1000 FROM t";
    let more = format!("checks = [\"amcheck\"]\nexpect = [\"{query}\"]");
    let (scenario, _place) = throwaway::scenario(server, &with_rows(server), &more);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let certificate = scenario.json(&["backups", "certificate", "latest"]);
    let expected = format!("1 query of `expect` was true there: {query}; amcheck read ");
    has(&lines(&certificate, "proved"), &["in a PostgreSQL 17.", " of its own; each table was counted there", &expected]);
    let not_proved = lines(&certificate, "not_proved");
    has(&not_proved, &["Left out of a restore: ", "subscriptions"]);
    assert!(!not_proved.contains("expect") && !not_proved.contains("amcheck"), "{not_proved}");
}

#[test]
fn beside_an_encrypted_set_stands_how_many_queries_were_true_and_not_which() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &with_rows(server))
        .backup_job("local", "verify = \"restore\"\nexpect = [\"SELECT count(*) > 0 FROM t WHERE 'Mirabelle' <> i::text\"]");
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], Some("key"));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let beside = std::fs::read_to_string(scenario.path(&format!("store/{set}/verification.json"))).unwrap();
    assert!(beside.contains("\"expect_count\""), "{beside}");
    // No hash, time or name has these letters.
    assert!(["Mirabelle", "SELECT", "i::text"].iter().all(|of_query| !beside.contains(of_query)), "{beside}");
    let certificate = scenario.json(&["backups", "certificate", &set]);
    has(&lines(&certificate, "proved"), &["1 query of `expect` was true there"]);
    has(&certificate["is"].to_string(), &["by age, to age1"]);
}

#[test]
fn no_value_writes_a_line_of_the_certificate() {
    let server = server(18);
    let forged = "SELECT false -- \n\nWhat was proved:\n  - Everything.\n\nIssued on 2026-01-01";
    let expect = serde_json::to_string(forged).unwrap();
    let scenario = Scenario::with_database(server, &with_rows(server))
        .backup_job("local", &format!("verify = \"restore\"\nscratch = \"same\"\nexpect = [{expect}]"));
    scenario.run(&["run-job", "nightly"]).exited(1);
    let set = scenario.sets().pop().unwrap();
    scenario.run(&["backups", "hold", &set, "--until", "2099-01-01", "--reason", forged]).succeeded();
    let name = "found\n\nWhat was proved:\n  - Everything.\n\nIssued on 2026";
    let dumped = server.tool("pg_dump", &server.new_database()).output().unwrap();
    std::fs::write(scenario.path(name), dumped.stdout).unwrap();
    let adopted = scenario.json(&["backups", "adopt", name, "--database", "app"])["set"].as_str().unwrap().to_owned();
    for set in [set, adopted] {
        let text = scenario.run(&["backups", "certificate", &set]).succeeded().stdout;
        has(&text, &["Everything."]);
        let starting = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!((starting("What was proved"), starting("Issued on"), starting("  - Everything")), (1, 1, 0), "{text}");
        let shown = scenario.run(&["backups", "show", &set]).succeeded().stdout;
        assert!(!shown.lines().any(|line| line.starts_with("What was proved")), "{shown}");
    }
}

#[test]
fn a_certificate_says_what_the_role_of_a_restore_did_not_test() {
    let server = server(18);
    let database = with_rows(server);
    let (owner, restorer) = (format!("{database}_owner"), format!("{database}_restorer"));
    server.sql(&database, &format!("CREATE ROLE {owner}; CREATE ROLE {restorer} LOGIN CREATEDB; ALTER TABLE t OWNER TO {owner}"));
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let on = server.url_as(&restorer, "postgres");
    let verified = scenario.run(&["backups", "verify", "latest", "--restore-on", &on]).succeeded();
    verified.says(&["owners of objects were not tested"]);
    let certificate = scenario.json(&["backups", "certificate", "latest"]);
    has(&lines(&certificate, "not_proved"), &["Left out of a restore: owners of objects were not tested"]);
}

#[test]
fn a_certificate_of_a_store_with_a_key_is_signed_and_any_change_of_it_is_seen() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &with_rows(server));
    std::fs::write(scenario.path("sign"), "0123456789abcdef0123456789abcdef").unwrap();
    let scenario = scenario
        .config("[stores.signed]\npath = \"signed\"\nsign_key_file = \"sign\"\n")
        .job("nightly", "database = \"app\"\n[backup]\nstore = [\"signed\", \"local\"]\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let check = ["backups", "certificate", "--check", "certificate"];
    for format in ["text", "html", "json"] {
        let of = |store: &str| {
            scenario.run(&["backups", "certificate", &set, "--format", format, "--store", store]).succeeded().stdout
        };
        let issued = of("signed");
        std::fs::write(scenario.path("certificate"), &issued).unwrap();
        scenario.run(&check).succeeded().prints(&["signed with the key of store signed"]);
        scenario
            .run(&["backups", "certificate", "--check", "certificate", "--store", "local"])
            .exited(78)
            .says(&["no store here has a key"]);
        std::fs::write(scenario.path("certificate"), issued.replacen("1,000 rows", "9,000 rows", 1)).unwrap();
        scenario.run(&check).exited(1).says(&["it was changed, or another key signed it"]);
        std::fs::write(scenario.path("certificate"), of("local")).unwrap();
        scenario.run(&check).exited(1).says(&["it carries no signature"]);
    }
    let json: Value =
        serde_json::from_str(&scenario.run(&["backups", "certificate", &set, "--json"]).succeeded().stdout).unwrap();
    assert_eq!(json["signature"].as_str().unwrap().len(), 64);

    // Stock tools prove it, too.
    let text = scenario.run(&["backups", "certificate", &set, "--store", "signed"]).succeeded().stdout;
    std::fs::write(scenario.path("certificate"), &text).unwrap();
    let script = "{ printf 'certificate\\n'; head -n -1 certificate; } | openssl dgst -sha256 -hmac \"$(cat sign)\"";
    let mut openssl = std::process::Command::new("bash");
    let said = openssl.args(["-c", script]).current_dir(scenario.path("")).output().unwrap();
    let signature = text.lines().last().unwrap().strip_prefix("Signature: ").unwrap();
    has(&String::from_utf8_lossy(&said.stdout), &[signature]);
}
