//! What may be asked for on the pages: only with the token for that, and each time with who asked in the ledger.

use serde_json::Value;

use crate::support::browser;
use crate::support::postgres::server;
use crate::support::serve::Serving;
use crate::support::{Scenario, eventually};

const TOKEN: &str = "a token for those who may act";

/// A database with one set, and a job that runs at no time.
fn with_a_set() -> Scenario {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE notes AS SELECT g AS id FROM generate_series(1, 30) g");
    let scenario = Scenario::with_database(server, &database).ledger().backup_job("local", "").sql_job("ask", "", &["SELECT 1"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

fn serving(scenario: &Scenario) -> Serving {
    std::fs::write(scenario.path("actions"), format!("{TOKEN}\n")).unwrap();
    Serving::ready(scenario, "actions_token_file = \"actions\"")
}

fn of_task(scenario: &Scenario, task: &str) -> Vec<Value> {
    scenario.runs(&[]).into_iter().filter(|run| run["task"] == task).collect()
}

const RUN_NOW: [(&str, &str); 3] = [("job", "ask"), ("database", "app"), ("who", "Ann <b>")];

fn with_token<'a>(fields: &[(&'a str, &'a str)], token: &'a str) -> Vec<(&'a str, &'a str)> {
    fields.iter().copied().chain([("token", token)]).collect()
}

#[test]
fn without_a_token_for_them_the_pages_have_no_forms_and_take_none() {
    let scenario = with_a_set();
    let serving = Serving::ready(&scenario, "");
    for path in ["/actions/run", "/actions/hold", "/actions/verify"] {
        assert_eq!(serving.post(path, &with_token(&RUN_NOW, TOKEN), &[]).status, 404, "{path}");
    }
    let page = serving.get("/job?name=ask&database=app").body;
    assert!(!page.contains("method=\"post\""), "{page}");
    assert_eq!(of_task(&scenario, "sql").len(), 0);
}

#[test]
fn a_job_is_started_with_the_token_alone_and_the_ledger_has_who_asked() {
    let scenario = with_a_set();
    let serving = serving(&scenario);
    let page = serving.get("/job?name=ask&database=app").body;
    assert!(page.contains("action=\"/actions/run\"") && !page.contains(TOKEN), "{page}");
    let right = with_token(&RUN_NOW, TOKEN);
    for (what, fields, headers, status) in [
        ("a wrong token", with_token(&RUN_NOW, "a token for those who may not"), vec![], 403),
        ("no token", RUN_NOW.to_vec(), vec![], 422),
        ("a page of another site", right.clone(), vec![("Origin", "http://evil.example")], 403),
        ("a page in a sandbox", right.clone(), vec![("Origin", "null"), ("Sec-Fetch-Site", "cross-site")], 403),
        ("another site, as browsers say it", right.clone(), vec![("Sec-Fetch-Site", "cross-site")], 403),
        ("the same host by another port", right.clone(), vec![("Sec-Fetch-Site", "same-site")], 403),
        ("nobody", with_token(&[("job", "ask"), ("database", "app"), ("who", " ")], TOKEN), vec![], 400),
        ("no such job", with_token(&[("job", "none"), ("database", "app"), ("who", "Ann")], TOKEN), vec![], 404),
        ("another key", with_token(&[("job", "ask"), ("database", "app"), ("who", "Ann"), ("sql", "DROP")], TOKEN), vec![], 422),
    ] {
        assert_eq!(serving.post("/actions/run", &fields, &headers).status, status, "{what}");
    }
    assert_eq!(serving.get("/actions/run").status, 405);
    assert_eq!(of_task(&scenario, "sql").len(), 0, "nothing of that ran");

    let answer = serving.post("/actions/run", &right, &[("Origin", "null"), ("Sec-Fetch-Site", "same-origin")]);
    assert_eq!(answer.status, 303, "{}", answer.body);
    assert!(answer.headers.contains("location: /runs?job=ask&database=app"), "{}", answer.headers);
    eventually("it has run", || of_task(&scenario, "sql").first().is_some_and(|run| run["outcome"] == "succeeded"));
    let run = of_task(&scenario, "sql").remove(0);
    assert_eq!(
        (&run["trigger"], &run["report"]["story"]["asked_by"]),
        (&Value::from("manual"), &Value::from("Ann <b>")),
        "{run}"
    );
    let page = serving.get(&format!("/runs/{}", run["id"])).body;
    assert!(page.contains("asked for on a page by Ann &lt;b&gt;"), "{page}");
    assert!(!serving.log().contains(TOKEN), "{}", serving.log());
}

#[test]
fn a_browser_sends_the_form() {
    let scenario = with_a_set();
    let serving = serving(&scenario);
    let fill_in = format!(
        "const form = document.querySelector('form[action=\"/actions/run\"]'); form.who.value = 'Ann'; form.token.value = '{TOKEN}'; form.requestSubmit(); return 'sent'"
    );
    let seen = browser::does(&serving, "/job?name=ask&database=app", &scenario.path("page.png"), &fill_in);
    assert_eq!(seen["script"], "sent", "{seen}");
    eventually("it has run", || of_task(&scenario, "sql").first().is_some_and(|run| run["outcome"] == "succeeded"));
    assert_eq!(of_task(&scenario, "sql")[0]["report"]["story"]["asked_by"], "Ann");
}

#[test]
fn a_set_is_held_and_read_back_and_both_are_in_the_ledger() {
    let scenario = with_a_set();
    let serving = serving(&scenario);
    let set = scenario.sets().remove(0);
    let page = serving.get(&format!("/set?name={}", set.replace('/', "%2F"))).body;
    assert!(page.contains("action=\"/actions/hold\"") && page.contains("action=\"/actions/verify\""), "{page}");
    let hold = |days| with_token(&[("set", set.as_str()), ("days", days), ("who", "Ann")], TOKEN);
    for days in ["0", "3651"] {
        assert_eq!(serving.post("/actions/hold", &hold(days), &[]).status, 400, "{days}");
    }
    assert_eq!(serving.post("/actions/hold", &hold("40"), &[]).status, 303);
    eventually("it is held", || of_task(&scenario, "backups hold").first().is_some_and(|run| run["outcome"] == "succeeded"));
    let held = || scenario.json(&["backups", "list"])["sets"][0]["held"].to_string();
    let until = held();
    assert!(until.contains("Ann asked for it on a page"), "{until}");
    assert_eq!(serving.post("/actions/hold", &hold("2"), &[]).status, 303);
    eventually("it was asked again", || {
        of_task(&scenario, "backups hold").iter().filter(|run| run["outcome"] == "succeeded").count() == 2
    });
    assert_eq!(held(), until, "a hold is not made shorter");

    let verify = |store| with_token(&[("set", set.as_str()), ("store", store), ("who", "Ben")], TOKEN);
    assert_eq!(serving.post("/actions/verify", &verify("local"), &[]).status, 303);
    eventually("it is verified", || {
        of_task(&scenario, "backups verify").first().is_some_and(|run| run["outcome"] == "succeeded")
    });
    let run = of_task(&scenario, "backups verify").remove(0);
    assert_eq!(run["report"]["story"]["asked_by"], "Ben", "{run}");
    assert!(run["report"]["summary"].as_str().unwrap().contains("read back"), "{run}");
    assert_eq!(serving.post("/actions/verify", &verify("nowhere"), &[]).status, 303);
    eventually("it cannot be", || of_task(&scenario, "backups verify").iter().any(|run| run["outcome"] == "failed"));
    let other = with_token(&[("set", "other/nightly/2026-11-23T02-00-00Z"), ("store", "local"), ("who", "Ben")], TOKEN);
    assert_eq!(serving.post("/actions/verify", &other, &[]).status, 404);
}

#[test]
fn a_token_that_can_be_guessed_or_that_readers_have_is_refused() {
    for (serve, said) in [
        ("actions_token_file = \"short\"", "the actions_token of [serve] has fewer than 16 characters"),
        ("token_file = \"long\"\nactions_token_file = \"long\"", "the actions_token of [serve] is its token, too"),
    ] {
        let scenario = Scenario::empty().config(&format!("[serve]\n{serve}\n"));
        std::fs::write(scenario.path("short"), "guess me").unwrap();
        std::fs::write(scenario.path("long"), TOKEN).unwrap();
        let output = scenario.run(&["check"]).exited(78).says(&[said]);
        assert!(!output.stderr.contains(TOKEN) && !output.stdout.contains(TOKEN));
    }
}
