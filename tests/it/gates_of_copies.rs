//! What one copy of a set was refused for, where another one is asked: by a gate, a certificate, a list. Clocks, stores that are left out or away, lost
//! manifests; and records of earlier releases, which told no other copy.

use std::fs;

use serde_json::Value;

use crate::gates::{REQUIRE, by_clock, ended, require, with_rows};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

/// A set in `local` and `two` that was restored, and a login whose restores of it are refused for the data.
struct Restored {
    scenario: Scenario,
    set: String,
    refuses: String,
}

impl Restored {
    fn new(server: &Server) -> Self {
        Self::with(server, "")
    }

    /// With more keys of `local`.
    fn with(server: &Server, keys: &str) -> Self {
        let database = with_rows(server);
        // What the rows are worth is up to a setting, as it is up to time elsewhere.
        let login = format!("{database}_login");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {login} SUPERUSER LOGIN; ALTER ROLE {login} SET test.refuses = 'yes';
                 CREATE FUNCTION fits(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
                 $$ BEGIN IF current_setting('test.refuses', true) = 'yes' THEN RAISE EXCEPTION 'odd rows'; END IF; RETURN true; END $$;
                 CREATE TABLE c (i int CHECK (fits(i))); INSERT INTO c VALUES (1)"
            ),
        );
        let job = "database = \"app\"\n[backup]\nstore = [\"local\", \"two\"]\nverify = \"restore\"\nscratch = \"same\"\n";
        let scenario = Scenario::with_database(server, &database);
        fs::write(scenario.path("sign"), "0123456789abcdef0123456789abcdef").unwrap();
        let scenario = scenario.config(&format!("{keys}[stores.two]\npath = \"two\"\n")).job("nightly", job);
        scenario.run(&["run-job", "nightly"]).succeeded();
        let set = scenario.sets().pop().unwrap();
        Self { scenario, set, refuses: server.url_as(&login, "postgres") }
    }

    fn verify<'a>(&'a self, store: &'a str, on: &'a str) -> [&'a str; 8] {
        ["backups", "verify", &self.set, "--any", "--store", store, "--restore-on", on]
    }

    fn verdicts(&self, folder: &str) -> String {
        self.scenario.path(&format!("{folder}/{}/verification.json", self.set)).display().to_string()
    }

    /// Has the copy in one store refused, and leaves the record beside the other one as earlier releases did, or a store that was away.
    fn refused_only_beside(&self, store: &str) {
        let other = self.verdicts(if store == "two" { "store" } else { "two" });
        let before = fs::read(&other).unwrap();
        self.scenario.run(&self.verify(store, &self.refuses)).exited(1).says(&["odd rows"]);
        fs::write(&other, before).unwrap();
    }
}

fn rename(scenario: &Scenario, from: &str, to: &str) {
    fs::rename(scenario.path(from), scenario.path(to)).unwrap();
}

#[test]
fn a_refusal_that_is_dated_before_an_earlier_proof_of_another_copy_closes_the_gate() {
    let restored = Restored::new(server(18));
    let (scenario, other) = (&restored.scenario, restored.verdicts("store"));
    let before = fs::read(&other).unwrap();
    ended(&by_clock(scenario, "-2h", &restored.verify("two", &restored.refuses)), 1, "odd rows");
    for told in [true, false] {
        if !told {
            fs::write(&other, &before).unwrap();
        }
        scenario.run(&REQUIRE).exited(75).says(&["refused it", "odd rows"]);
        scenario.run(&require(&["--restored"])).exited(75).says(&["odd rows"]);
    }
    // A copy command brings the proof along, which is older than the refusal, whatever their times are.
    scenario.run(&["backups", "copy", &restored.set, "--from", "local", "--to", "two"]).succeeded();
    scenario.run(&REQUIRE).exited(75).says(&["odd rows"]);
    scenario.run(&restored.verify("local", "app")).succeeded();
    scenario.run(&require(&["--restored"])).succeeded();
    scenario.run(&require(&["--restored", "--store", "two"])).succeeded();
}

#[test]
fn a_refusal_is_recorded_beside_every_copy_that_can_be_reached() {
    let restored = Restored::new(server(18));
    let (scenario, set) = (&restored.scenario, &restored.set);
    scenario.run(&restored.verify("local", &restored.refuses)).exited(1);
    let there: Value = serde_json::from_slice(&fs::read(restored.verdicts("two")).unwrap()).unwrap();
    let last = there["restores"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["copy_in"], &last["refused_for_its_data"]), (&"local".into(), &true.into()), "{there:#}");
    scenario.run(&require(&["--store", "two"])).exited(75).says(&["refused it as the copy in local", "odd rows"]);

    rename(scenario, "store", "away");
    scenario.run(&require(&["--restored", "--store", "two"])).exited(75).says(&["odd rows"]);
    scenario.run(&require(&["--restored"])).exited(69).says(&["store `local` cannot be read"]);
    rename(scenario, "away", "store");
    fs::remove_file(scenario.path(&format!("store/{set}/manifest.json"))).unwrap();
    scenario.run(&require(&["--restored"])).exited(75).says(&["odd rows"]);

    // A copy that cannot be told is named.
    scenario.run(&restored.verify("two", &restored.refuses)).exited(1).says(&["could not be recorded beside a copy", "in local"]);
    // A good one ends the doubt.
    scenario.run(&restored.verify("two", "app")).succeeded();
    scenario.run(&require(&["--restored"])).succeeded();
}

#[test]
fn a_gate_that_asks_one_store_knows_what_the_copy_in_another_was_refused_for() {
    let restored = Restored::new(server(18));
    restored.refused_only_beside("local");
    for more in [&["--store", "two"][..], &["--store", "two", "--restored"]] {
        let said = restored.scenario.run(&require(more)).exited(75);
        said.says(&[
            &format!("{} in two", restored.set),
            "refused it as the copy in local when it was last restored",
            "odd rows",
        ]);
    }
}

#[test]
fn a_gate_names_the_stores_of_the_job_that_it_could_not_ask() {
    let restored = Restored::new(server(18));
    restored.refused_only_beside("local");
    let (scenario, set) = (&restored.scenario, &restored.set);
    let not_known = "whether a copy of it in local was refused for its data is not known: ";
    let scenario_says = |more: &[&str], why: &str| {
        scenario.run(&require(more)).succeeded().prints(&[&format!("{set} in two"), not_known, why]);
        let json = scenario.json(&require(more));
        assert_eq!(json["unread_stores"][0]["store"], "local", "{json:#}");
    };
    rename(scenario, "store", "away");
    scenario_says(&["--store", "two"], "check whether its disk is mounted");
    scenario_says(&["--restored"], "check whether its disk is mounted");
    fs::write(scenario.path("store"), "").unwrap();
    scenario_says(&["--restored"], "");
    fs::remove_file(scenario.path("store")).unwrap();
    rename(scenario, "away", "store");
    fs::remove_file(scenario.path(&format!("store/{set}/manifest.json"))).unwrap();
    scenario_says(&["--restored"], "that copy cannot be read");
    // A store that is none of the job's is not named.
    let scenario = restored.scenario.config("[stores.third]\npath = \"third\"\n");
    let said = scenario.run(&REQUIRE).succeeded();
    assert!(!said.stdout.contains("third"), "{}", said.stdout);
}

#[test]
fn a_certificate_and_a_list_name_what_another_copy_was_refused_for() {
    let restored = Restored::new(server(18));
    let (scenario, set) = (&restored.scenario, &restored.set);
    scenario.run(&["backups", "list"]).succeeded().prints(&["The last intact set is "]);
    restored.refused_only_beside("two");
    let certificate = ["backups", "certificate", "latest"];
    for store in [&[][..], &["--store", "local"]] {
        let certified = scenario.run(&[&certificate[..], store].concat()).succeeded();
        let certified = certified.prints(&["(store local)", "refused them in the copy in two on ", "odd rows"]);
        let (proved, not_proved) = certified.stdout.split_once("What was not proved").unwrap();
        assert!(!proved.contains("refused") && not_proved.matches("odd rows").count() == 1, "{}", certified.stdout);
    }
    let json = scenario.json(&["backups", "certificate", set, "--format", "json"]);
    assert_eq!(json["facts"]["refused_for_its_data"]["copy_in"], "two", "{json:#}");

    let listed = scenario.run(&["backups", "list"]).succeeded();
    listed.prints(&["refused for its data on ", "as the copy in two", "No intact set is left whose data no restore refused."]);
    let json = scenario.json(&["backups", "list"]);
    assert_eq!(json["sets"][0]["refused_for_its_data"]["copy_in"], "two", "{json:#}");

    rename(scenario, "two", "away");
    scenario.run(&certificate).succeeded().prints(&["That no copy of it in two was refused for its data: ", "disk is mounted"]);
    rename(scenario, "away", "two");
    scenario.run(&restored.verify("local", "app")).succeeded();
    assert!(!scenario.run(&certificate).succeeded().stdout.contains("in the copy in two"));
    scenario.run(&["backups", "list"]).succeeded().prints(&["The last intact set is "]);
}

#[test]
fn a_list_of_one_store_and_show_know_what_a_copy_in_another_was_refused_for() {
    let restored = Restored::new(server(18));
    let (scenario, set) = (&restored.scenario, &restored.set);
    restored.refused_only_beside("two");
    let (list, show) = (["backups", "list", "--store", "local"], ["backups", "show", set, "--store", "local"]);
    let listed = scenario.run(&list).succeeded();
    listed.prints(&["refused for its data on ", "as the copy in two", "No intact set is left whose data no restore refused."]);
    let shown = scenario.run(&show).succeeded().prints(&["refused", "for its data on ", "as the copy in two: ", "odd rows"]);
    assert!(!shown.stdout.contains("not known"), "{}", shown.stdout);
    for command in [&list[..], &show[..]] {
        let json = scenario.json(command);
        let found = if command[1] == "list" { &json["sets"][0] } else { &json };
        assert_eq!(found["refused_for_its_data"]["copy_in"], "two", "{json:#}");
        assert_eq!(json["unread_stores"], serde_json::json!([]), "{json:#}");
    }

    // One that cannot be read is named, and the list of the other goes on.
    rename(scenario, "two", "away");
    scenario
        .run(&list)
        .succeeded()
        .says(&["whether copies in two were refused for their data is not known: ", "disk is mounted"]);
    scenario.run(&show).succeeded().prints(&["not known", "whether a copy in two was refused for its data: ", "disk is mounted"]);
    for command in [&list[..], &show[..]] {
        assert_eq!(scenario.json(command)["unread_stores"][0]["store"], "two");
    }
    rename(scenario, "away", "two");
    fs::remove_file(scenario.path(&format!("two/{set}/manifest.json"))).unwrap();
    scenario
        .run(&list)
        .succeeded()
        .says(&["whether copies in two were refused for their data is not known: that copy cannot be read"]);
    // A store that is none of the job's is not asked.
    fs::write(scenario.path("third"), "").unwrap();
    let scenario = restored.scenario.config("[stores.third]\npath = \"third\"\n");
    let said = scenario.run(&list).succeeded();
    assert!(!said.stderr.contains("third"), "{}", said.stderr);
}

#[test]
fn a_proof_in_a_store_without_a_key_refutes_no_refusal_in_one_with_a_key() {
    let restored = Restored::with(server(18), "sign_key_file = \"sign\"\n");
    let (scenario, set) = (&restored.scenario, &restored.set);
    scenario.run(&restored.verify("local", &restored.refuses)).exited(1);
    // Whoever may write to `two` writes a good one after it.
    let path = restored.verdicts("two");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let restores = record["restores"].as_array_mut().unwrap();
    let mut good = restores.last().unwrap().clone();
    good["refusal"] = Value::Null;
    good.as_object_mut().unwrap().remove("refused_for_its_data");
    restores.push(good);
    fs::write(&path, record.to_string()).unwrap();
    for more in [&["--store", "local"][..], &["--store", "local", "--restored"], &["--store", "two"], &["--restored"]] {
        scenario.run(&require(more)).exited(75).says(&["refused it"]);
    }
    let certified = scenario.run(&["backups", "certificate", set, "--store", "local"]).succeeded();
    certified.prints(&["no restore that succeeded was recorded after that"]);
}

#[test]
fn a_refusal_that_cannot_be_recorded_beside_its_copy_is_said_and_told_to_the_others() {
    let restored = Restored::new(server(18));
    let (scenario, set) = (&restored.scenario, &restored.set);
    // Nothing can be written in its place.
    let record = restored.verdicts("store");
    fs::remove_file(&record).unwrap();
    fs::create_dir_all(format!("{record}/in-the-way")).unwrap();
    let said = scenario.run(&restored.verify("local", &restored.refuses));
    assert_ne!(said.code, Some(0));
    said.says(&["odd rows", "could not be recorded beside the copy in local"]);
    let there: Value = serde_json::from_slice(&fs::read(restored.verdicts("two")).unwrap()).unwrap();
    assert_eq!(there["restores"].as_array().unwrap().last().unwrap()["copy_in"], "local", "{set}: {there:#}");
    scenario.run(&require(&["--restored"])).exited(75).says(&["odd rows"]);
}

#[test]
fn a_restore_that_is_dated_in_the_future_is_certified_and_listed_by_nobody() {
    let restored = Restored::new(server(18));
    let (scenario, set) = (&restored.scenario, &restored.set);
    for store in ["store", "two"] {
        let path = restored.verdicts(store);
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["restores"][0]["checked_at"] = "2999-01-01T00:00:00Z".into();
        fs::write(&path, record.to_string()).unwrap();
    }
    let certified = scenario.run(&["backups", "certificate", set]).succeeded();
    let (proved, not_proved) = certified.stdout.split_once("What was not proved").unwrap();
    assert!(!proved.contains("was restored on"), "{}", certified.stdout);
    assert!(not_proved.contains("no server has restored it"), "{}", certified.stdout);
    assert!(not_proved.contains("is dated in the future, on 2999-01-01"), "{}", certified.stdout);
    let listed = scenario.run(&["backups", "list"]).succeeded();
    assert!(listed.stdout.contains("dated in the future, 2999-01-01") && !listed.stdout.contains("on 18."), "{}", listed.stdout);
}

#[test]
fn a_copy_whose_record_is_lost_is_named_by_a_gate_and_a_certificate() {
    let restored = Restored::new(server(18));
    restored.refused_only_beside("local");
    let (scenario, set) = (&restored.scenario, &restored.set);
    let record = restored.verdicts("store");
    for (lost, why) in [(Some("{"), "verification.json cannot be read"), (None, "it has no verification.json")] {
        match lost {
            Some(text) => fs::write(&record, text).unwrap(),
            None => fs::remove_file(&record).unwrap(),
        }
        let not_known = "whether a copy of it in local was refused for its data is not known: ";
        let asked = require(&["--restored"]);
        scenario.run(&asked).succeeded().prints(&[&format!("{set} in two"), not_known, why]);
        assert_eq!(scenario.json(&asked)["unread_stores"][0]["store"], "local");
        let certificate = ["backups", "certificate", set, "--store", "two"];
        scenario.run(&certificate).succeeded().prints(&["That no copy of it in local was refused for its data: ", why]);
    }
}
