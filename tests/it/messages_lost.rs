//! Messages that nobody got: `pgtend` alone, `doctor` and the page say them with what to do, until they are over.

use crate::messages::told_to;
use crate::support::http::{Manners, Recorder};
use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, becomes, reaches, with_ledger};
use crate::support::smtp::Smtp;
use crate::support::{Scenario, eventually};

const LOST: &str = "Messages that nobody got";

/// It fails once, and what it tells is given up: a day and enough tries later.
fn given_up(scenario: Scenario, server: &Server, database: &str) -> Scenario {
    let scenario = scenario.sql_job("broken", "", &["SELECT 1/0"]).sql_job("good", "", &["SELECT 1"]);
    scenario.run(&["run-job", "broken"]).exited(1);
    server.sql(database, "UPDATE pgtend.messages SET at = now() - interval '25 hours', attempts = 29, next_at = now()");
    scenario.run(&["run-job", "good"]).succeeded().says(&["was given up after 29 tries"]);
    scenario
}

/// The three that say where one stands.
#[track_caller]
fn says_everywhere(scenario: &Scenario, serving: &Serving, about: &str, said: &[&str]) {
    let alone = scenario.run(&[]).succeeded().stdout;
    assert!(alone.contains(LOST) && alone.contains(about), "{alone}");
    let doctor = scenario.json(&["doctor"]);
    let finding = doctor["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == about);
    let finding = finding.unwrap_or_else(|| panic!("{doctor:#}"));
    assert_eq!(finding["state"], "warning", "{finding}");
    eventually("the page says it", || serving.get("/").body.contains(LOST));
    let page = serving.get("/").body.replace("&amp;", "&");
    for text in said {
        assert!(alone.contains(text), "`{text}` is not in {alone}");
        assert!(finding["said"].as_str().unwrap().contains(text), "`{text}` is not in {finding}");
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
}

#[test]
fn what_a_service_did_not_take_for_a_day_is_said_everywhere_until_a_later_message_arrives() {
    let server = server(18);
    let gone = Recorder::start(Manners::Says("404 Not Found", "gone c0ffee"));
    let (scenario, database) = told_to(&gone, server, "");
    let scenario = given_up(scenario, server, &database);
    let serving = Serving::ready(&scenario, "");
    let why = "was given up: HTTP 404 Not Found: gone …: `pgtend notify test ops` says whether the service takes messages now";
    says_everywhere(&scenario, &serving, "messages to ops", &["1 message since 20", why, "what nobody was told"]);
    let untold = scenario.json(&[])["untold"].clone();
    assert_eq!((&untold[0]["place"], &untold[0]["given_up"], &untold[0]["messages"]), (&"ops".into(), &true.into(), &1.into()));
    assert_eq!(serving.json("/api/jobs")["untold"][0]["place"], "ops");
    assert!(!scenario.run(&["doctor"]).stdout.contains("c0ffee"));
    drop(serving);

    let there = Recorder::start(Manners::Answers);
    let scenario = scenario.env("OPS_URL", &there.url("/"));
    scenario.run(&["run-job", "broken"]).exited(1);
    becomes(server, &database, "SELECT count(*) FROM pgtend.messages WHERE sent_at IS NOT NULL", "1");
    assert!(!scenario.run(&[]).succeeded().stdout.contains(LOST));
    assert_eq!(scenario.json(&[])["untold"], serde_json::json!([]));
}

#[test]
fn a_mail_that_its_server_refuses_is_given_up_and_said_with_its_reason() {
    let server = server(18);
    let smtp = Smtp::start(None);
    let (scenario, database) = with_ledger(server);
    let place = "[notify.post]\nkind = \"mail\"\nhost = \"localhost\"\ntls = \"none\"\nfrom = \"a@example.com\"\nto = [\"nobody@example.com\"]\n";
    let scenario = given_up(scenario.config(&format!("{place}port = {}\n", smtp.port)), server, &database);
    let serving = Serving::ready(&scenario, "");
    says_everywhere(&scenario, &serving, "messages to post", &["no such user here", "`pgtend notify test post`"]);
    assert!(smtp.mails().is_empty());
}

#[test]
fn messages_for_a_place_that_was_renamed_are_said_while_they_wait_and_when_they_are_given_up() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Fails);
    let (scenario, database) = told_to(&recorder, server, "");
    let scenario = scenario.sql_job("broken", "", &["SELECT 1/0"]).sql_job("good", "", &["SELECT 1"]);
    scenario.run(&["run-job", "broken"]).exited(1);
    let there = Recorder::start(Manners::Answers);
    let url = there.url("/");
    let text = std::fs::read_to_string(scenario.path("config.toml")).unwrap().replace("[notify.ops]", "[notify.chat]");
    let renamed = Scenario::empty().config(&text).env("OPS_URL", &url);
    let renamed = renamed.sql_job("broken", "", &["SELECT 1/0"]).sql_job("good", "", &["SELECT 1"]);
    // At first, another host with its own configuration may still send it.
    assert!(!renamed.run(&[]).succeeded().stdout.contains(LOST));
    server.sql(&database, "UPDATE pgtend.messages SET next_at = now() - interval '2 hours', at = now() - interval '3 hours'");
    let serving = Serving::ready(&renamed, "");
    let waits = "waits, and the configuration has no [notify.ops]: HTTP 500";
    says_everywhere(&renamed, &serving, "messages to ops", &[waits, "write it once more under the old one"]);
    server.sql(&database, "UPDATE pgtend.messages SET at = now() - interval '8 days'");
    renamed.run(&["run-job", "good"]).succeeded();
    reaches(server, &database, "SELECT count(*) FROM pgtend.messages WHERE next_at = 'infinity'", 1);
    eventually("the page says it", || serving.get("/").body.contains("was given up, as the configuration has no [notify.ops]"));
    says_everywhere(
        &renamed,
        &serving,
        "messages to ops",
        &["was given up, as the configuration has no [notify.ops]", "`pgtend runs`"],
    );
    // It is told to nobody, and after two weeks everybody knows.
    server.sql(&database, "UPDATE pgtend.messages SET at = now() - interval '15 days'");
    assert!(!renamed.run(&[]).succeeded().stdout.contains(LOST));
    assert!(there.asked().is_empty());
}

#[test]
fn a_crash_of_which_somebody_read_first_is_told_by_the_next_run_all_the_same() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = told_to(&recorder, server, "");
    let scenario = scenario.sql_job("slow", "", &["SELECT pg_sleep(600)"]);
    let running = scenario.start(&["run-job", "slow"]);
    eventually("it sleeps", || server.sleeps(&database));
    running.kill();
    // Its heartbeat is stale, as it is after 15 s.
    server.sql(&database, "UPDATE pgtend.runs SET heartbeat_at = heartbeat_at - interval '1 minute'");
    eventually("it is shown as crashed", || scenario.runs(&["--outcome", "crashed"]).len() == 1);
    let crashed = scenario.runs(&[]).remove(0);
    assert!(crashed["error"].as_str().unwrap().starts_with("the process died without reporting a result: pid "), "{crashed:#}");
    assert_eq!(crashed["finished_at"], crashed["heartbeat_at"], "{crashed:#}");
    scenario.run(&["runs", "show", "1"]).succeeded().prints(&["crashed", "the process died"]);
    scenario.run(&["logs", "1", "--follow"]).succeeded().prints(&["crashed", "the process died"]);
    assert_eq!(server.sql(&database, "SELECT outcome IS NULL FROM pgtend.runs"), "t", "who reads writes nothing");
    let scenario = scenario.sql_job("slow", "", &["SELECT 1"]);
    scenario.run(&["run-job", "slow"]).succeeded();
    let events: Vec<_> = recorder.posted().iter().flat_map(|body| body["events"].as_array().unwrap().clone()).collect();
    let told: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told, ["failure", "recovery"], "{events:?}");
    assert!(events[0]["error"].as_str().unwrap().contains("the process died"), "{events:?}");
    assert_eq!(server.sql(&database, "SELECT outcome FROM pgtend.runs ORDER BY id LIMIT 1"), "crashed");
}
