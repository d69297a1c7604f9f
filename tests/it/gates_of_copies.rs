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
        let scenario = Scenario::with_database(server, &database).config("[stores.two]\npath = \"two\"\n").job("nightly", job);
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
