//! Nobody is told that all is well while nobody knows it: a server that never answered, a job without databases, stores that were not asked yet, a `postgres` that is excluded.

use crate::messages::told_to;
use crate::support::http::{Manners, Recorder};
use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, with_ledger};
use crate::support::{Scenario, eventually, quoted};

fn of_server(server: &Server, more: &str) -> String {
    format!("[servers.main]\nurl = {}\n{more}\n", quoted(&server.url("postgres")))
}

fn nightly(patterns: &str, more: &str) -> String {
    format!("databases = {patterns}\nschedule = \"0 2 * * *\"\n{more}\n[backup]\nstore = \"local\"\n")
}

/// Two databases of a server, backed up, and that of the ledger.
fn backed_up(fleet: &Server, exclude: &str) -> Scenario {
    for name in ["eu_1", "eu_2"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
        fleet.sql(name, "CREATE TABLE t AS SELECT 1 AS i");
    }
    let (scenario, _) = with_ledger(server(18));
    let scenario = scenario
        .config(&of_server(fleet, &format!("exclude = {exclude}")))
        .job("nightly", &nightly("\"main.*\"", ""))
        .job("own", "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["run-job", "own"]).succeeded();
    scenario
}

#[test]
fn a_postgres_that_is_excluded_while_it_is_empty_is_uncovered_once_it_has_something() {
    let fleet = Server::start(18);
    let scenario = backed_up(&fleet, "[\"postgres\"]");
    scenario.run(&["doctor"]).prints(&["every database has a proved backup"]);
    fleet.sql("postgres", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let said = scenario.run(&["doctor"]).prints(&["main.postgres: no backup, and no job makes one"]);
    assert!(!said.stdout.contains("every database has") && !said.stdout.contains("All is well"), "{}", said.stdout);
    scenario.run(&[]).succeeded().prints(&["main.postgres: no backup, and no job makes one"]);
    scenario.run(&["notify", "digest"]).succeeded().prints(&["NOT safe"]);
}

#[test]
fn databases_that_a_person_excludes_are_not_among_those_that_have_a_backup() {
    let fleet = Server::start(18);
    fleet.sql("postgres", "CREATE DATABASE old_1");
    let scenario = backed_up(&fleet, "[\"postgres\", \"old_*\"]");
    let said = scenario.run(&["doctor"]).prints(&["every database but those that [servers] exclude (1) has a proved backup"]);
    assert!(!said.stdout.contains("every database has"), "{}", said.stdout);
}

#[test]
fn a_server_that_never_answered_is_said_on_the_page_by_metrics_and_in_a_message() {
    let mut fleet = Server::start(18);
    fleet.sql("postgres", "CREATE DATABASE eu_1");
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, _) = told_to(&recorder, server(18), "on = [\"late\", \"recovery\"]");
    let job = "databases = \"main.eu_*\"\nschedule = \"* * * * * *\"\nlate_after = \"1s\"\n[sql]\nstatements = [\"SELECT 1\"]\n";
    let scenario = scenario.config(&of_server(&fleet, "")).job("often", job).sql_job("well", "", &["SELECT 1"]);
    // Nobody ever asks it while it is there.
    fleet.crash();
    scenario.run(&["run-job", "well"]).succeeded();
    let serving = Serving::ready(&scenario, "");
    eventually("the page says it", || serving.get("/").body.contains("Job often has no database to run on</h1>"));
    let page = serving.get("/").body;
    for text in ["Without an answer", "server `main` does not answer since", "nothing is known of its databases"] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    assert!(!page.contains("nothing matches") && !page.contains("healthy"), "{page}");
    assert!(serving.json("/api/jobs")["silent"][0].as_str().unwrap().starts_with("server `main` does not answer since"));
    assert_eq!(serving.metric("pgtend_server_up{server=\"main\"}"), Some(0.0));
    eventually("it is late", || serving.metric("pgtend_job_late{job=\"often\",database=\"main.eu_*\"}") == Some(1.0));
    eventually("it is told", || !recorder.posted().is_empty());
    let told = recorder.posted()[0].clone();
    assert_eq!(told["title"], "often on main.eu_* is late");
    assert!(told.to_string().contains("it has no database to run on: server `main` does not answer since"), "{told:#}");

    fleet.start_again();
    eventually("it is told that it is well", || recorder.posted().len() > 1);
    assert_eq!(recorder.posted()[1]["title"], "often on main.eu_* is well again");
    assert_eq!(serving.metric("pgtend_server_up{server=\"main\"}"), Some(1.0));
    assert_eq!(serving.metric("pgtend_job_late{job=\"often\",database=\"main.eu_*\"}"), Some(0.0));
    eventually("the page says it no more", || !serving.get("/").body.contains("Without an answer"));
}

#[test]
fn the_first_look_at_the_page_is_not_green_and_a_found_database_says_whether_it_is_safe() {
    let fleet = Server::start(18);
    let scenario = backed_up(&fleet, "[\"postgres\"]");
    for name in ["main.eu_1", "main.eu_2", "app"] {
        std::fs::remove_dir_all(scenario.path(&format!("store/{name}"))).unwrap();
    }
    let serving = Serving::ready(&scenario, "");
    let first = serving.get("/").body;
    assert!(!first.contains("healthy") && !first.contains("section class=\"verdict good"), "{first}");
    eventually("the page says it", || serving.get("/").body.contains("<h1>3 databases are not safe</h1>"));
    let page = serving.get("/").body;
    assert!(page.contains("not well: ") && page.contains("main.eu_1") && page.contains("main.eu_2"), "{page}");
    let database = serving.get("/database?name=main.eu_1").body;
    assert!(database.contains("Is it safe?") && database.contains(">not safe<"), "{database}");
    let job = serving.get("/job?name=nightly&database=main.eu_1").body;
    assert!(job.contains("the database is not safe"), "{job}");
}

#[test]
fn a_fleet_database_that_failed_since_it_was_made_has_no_proof_by_the_metrics() {
    let fleet = Server::start(18);
    let scenario = backed_up(&fleet, "[\"postgres\"]");
    let proved = "pgtend_backup_proved_timestamp_seconds{job=\"nightly\",database=\"main.*\"}";
    let serving = Serving::ready(&scenario, "");
    eventually("those that are well have one", || serving.metric(proved).is_some_and(|at| at > 0.0));
    drop(serving);
    fleet.sql("postgres", "CREATE DATABASE eu_3");
    fleet.sql("eu_3", "CREATE TABLE t AS SELECT 1 AS i");
    // Its file is not there.
    fleet.sql("eu_3", "UPDATE pg_catalog.pg_class SET relfilenode = 999999 WHERE relname = 't'");
    scenario.run(&["run-job", "nightly@eu_3"]).exited(1);
    let serving = Serving::ready(&scenario, "");
    eventually("it has none", || serving.metric(proved) == Some(0.0));
    assert_eq!(serving.metric("pgtend_fleet_databases{job=\"nightly\",state=\"failed\"}"), Some(1.0));
}
