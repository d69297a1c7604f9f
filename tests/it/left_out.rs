//! One bad file among the jobs: the others go on, and everybody who looks is told.

use crate::support::postgres::server;
use crate::support::serve::{Serving, asked, reaches, sql_job, with_ledger};
use crate::support::{Scenario, eventually};

const EVERY_SECOND: &str = "schedule = \"* * * * * *\"";
const BAD: &str = "schedul = \"* * * * *\"\ndatabase = \"app\"\n[sql]\nstatements = [\"SELECT 1\"]\n";

#[test]
fn a_bad_job_file_stops_neither_serve_nor_other_runs_and_everybody_is_told() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario
        .job("good", &sql_job(EVERY_SECOND, &["SELECT 1"]))
        .job("bad", BAD)
        .job("next", &sql_job("after = [\"bad\"]", &["SELECT 1"]));
    let serving = Serving::ready(&scenario, "");
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'good' AND outcome = 'succeeded'", 2);
    serving.logs("job `bad` is skipped, and the other jobs go on");
    serving.logs("jobs/bad.toml:1:1: unknown key `schedul`; did you mean `schedule`?");
    serving.logs("job `next` is skipped");
    assert_eq!(serving.metric("pgtend_config_broken_jobs"), Some(2.0));
    let ready = serving.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ok\n2 jobs are skipped: their files have mistakes\n"));
    let page = serving.get("/").body;
    for text in ["2 jobs are skipped", "unknown key `schedul`", "it runs after job `bad`, which is skipped"] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let status = serving.json("/api/jobs");
    assert_eq!(status["broken"][0]["job"], "bad");
    assert_eq!(status["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(asked(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job <> 'good'"), "0");

    let by_hand = scenario.job("by-hand", &sql_job("", &["SELECT 1"]));
    by_hand.run(&["run-job", "by-hand"]).succeeded().says(&["job `bad` is skipped", "unknown key `schedul`"]);
    by_hand.run(&["run-job", "bad"]).exited(78).says(&["unknown key `schedul`", "did you mean `schedule`?"]);
    by_hand.run(&["run-job", "next"]).exited(78).says(&["it runs after job `bad`, which is skipped"]);
    by_hand.run(&["check"]).exited(78).says(&["unknown key `schedul`", "1 mistake"]);
    by_hand.run(&["render", "systemd"]).exited(78).says(&["unknown key `schedul`"]);
    by_hand.run(&["jobs"]).succeeded().prints(&["good", "by-hand"]).says(&["job `bad` is skipped"]);
    assert_eq!(by_hand.json(&["jobs"])["broken"][0]["file"], "jobs/bad.toml");
}

#[test]
fn a_job_whose_file_an_edit_broke_goes_on_as_it_was_until_a_restart() {
    let server = server(18);
    let (scenario, database) = with_ledger(server);
    let scenario = scenario.job("edited", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    let mut serving = Serving::ready(&scenario, "");
    let count = "SELECT count(*) FROM pgtend.runs WHERE job = 'edited' AND outcome = 'succeeded'";
    reaches(server, &database, count, 1);
    let scenario = scenario.job("edited", BAD).job("new", &sql_job(EVERY_SECOND, &["SELECT 1"]));
    serving.reload();
    serving.logs("job `edited` keeps running as before its file was changed");
    let before: u64 = asked(server, &database, count).parse().unwrap();
    reaches(server, &database, count, before + 3);
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'new' AND outcome = 'succeeded'", 1);
    assert_eq!(serving.metric("pgtend_config_last_reload_successful"), Some(0.0));
    assert_eq!(serving.metric("pgtend_config_broken_jobs"), Some(1.0));

    assert_eq!(serving.terminate(), Some(0));
    let serving = serving.again(&scenario);
    serving.is_ready();
    eventually("it is left out", || serving.metric("pgtend_config_broken_jobs") == Some(1.0));
    assert_eq!(serving.json("/api/jobs")["jobs"].as_array().unwrap().len(), 1);
}

#[test]
fn files_that_were_meant_as_jobs_are_named_as_not_read() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).sql_job("good", "", &["SELECT 1"]);
    for name in ["weekly.yml", "Nightly.TOML", "schema.sql"] {
        std::fs::write(scenario.path(&format!("jobs/{name}")), BAD).unwrap();
    }
    let said =
        scenario.run(&["check"]).succeeded().prints(&["jobs/weekly.yml is not read", "jobs/Nightly.TOML is not read", ".toml"]);
    assert!(!said.stdout.contains("schema.sql"), "{}", said.stdout);
    scenario.run(&["run-job", "good"]).succeeded().says(&["jobs/weekly.yml is not read"]);
}

#[test]
fn a_schedule_whose_meaning_changed_is_named_until_it_says_what_it_means() {
    let server = server(18);
    let scenario = Scenario::with_database(server, "postgres")
        .sql_job("first", "schedule = \"0 0 1-7 * */7\"", &["SELECT 1"])
        .sql_job("second", "schedule = \"0 0 1-7 * */7\"", &["SELECT 1"]);
    let said = scenario.run(&["check"]).succeeded();
    assert_eq!(said.stdout.matches("WARNING").count(), 1, "{}", said.stdout);
    said.prints(&["first, second: schedule `0 0 1-7 * */7`: a day must match both", "Write `+*/7`"]);
    scenario.run(&["jobs"]).succeeded().prints(&["day 1-7 (if it is also Sunday)"]);
    scenario.run(&["render", "systemd"]).succeeded().prints(&["OnCalendar=Sun *-*-01..07 00:00:00 UTC"]);
    scenario.run(&["render", "kubernetes"]).exited(78).says(&["Kubernetes cannot require both a day and a weekday"]);
    let scenario = Scenario::with_database(server, "postgres").sql_job("first", "schedule = \"0 0 1-7 * +*/7\"", &["SELECT 1"]);
    let said = scenario.run(&["check"]).succeeded();
    assert!(!said.stdout.contains("WARNING"), "{}", said.stdout);
    for (schedule, cure) in [
        ("*/90 * * * *", "comes once in 60 minutes"),
        ("0 22-4 * * *", "write `22-23,0-4`"),
        ("0 0 * * fri-mon", "write `fri,sat,sun,mon`"),
        ("@reboot", "a restart of the host is not a time"),
    ] {
        let scenario =
            Scenario::with_database(server, "postgres").sql_job("odd", &format!("schedule = \"{schedule}\""), &["SELECT 1"]);
        scenario.run(&["check"]).exited(78).says(&[cure]);
    }
}

#[test]
fn a_pipe_among_the_jobs_is_not_waited_for() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).sql_job("good", "", &["SELECT 1"]);
    let made = std::process::Command::new("mkfifo").arg(scenario.path("jobs/pipe.toml")).status().unwrap();
    assert!(made.success());
    scenario.run(&["run-job", "good"]).succeeded().says(&["job `pipe` is skipped"]);
    scenario.run(&["check"]).exited(78).says(&["is a pipe, a socket or a device"]);
}
