//! Jobs that cannot run, as their files have mistakes: nothing calls them well, and a restart does not end being late.

use crate::messages::told_to;
use crate::support::eventually;
use crate::support::http::{Manners, Recorder};
use crate::support::postgres::server;
use crate::support::serve::{Serving, hours_ago, long_known, sql_job};

fn titles(recorder: &Recorder) -> Vec<String> {
    recorder.posted().iter().map(|body| body["title"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_job_whose_file_is_broken_is_late_also_after_a_restart_and_told_once() {
    let server = server(18);
    let recorder = Recorder::start(Manners::Answers);
    let (scenario, database) = told_to(&recorder, server, "on = [\"late\"]");
    let schedule = hours_ago();
    let good = sql_job(&format!("schedule = \"{schedule}\"\ncatch_up = \"skip\""), &["SELECT 1"]);
    let scenario = scenario.job("nightly", &good).job("timed", &sql_job("", &["SELECT 1"]));
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["run-job", "timed"]).succeeded();
    long_known(&scenario, server, &database, &schedule, &["nightly"]);
    server
        .sql(&database, "UPDATE pgtend.runs SET started_at = now() - interval '2 days', finished_at = now() - interval '2 days'");
    // Its task cannot be read; of the others, the ledger has no schedule.
    let scenario = scenario.job("nightly", &good.replace("[sql]", "[sequel]"));
    let scenario = scenario.job("timed", "database = \"app\"\nthis is no TOML").job("new", "x = 1");

    let mut serving = Serving::ready(&scenario, "");
    let is_late = "pgtend_job_late{job=\"nightly\",database=\"app\"}";
    let said = "it is late on app: no success for its tick of";
    eventually("it is late", || serving.metric(is_late) == Some(1.0));
    eventually("it is told", || titles(&recorder) == ["nightly on app is late"]);
    eventually("the page says it", || serving.get("/").body.contains(said));
    let page = serving.get("/").body;
    for text in [
        "3 jobs are skipped",
        "its last success was 2 d",
        "whether it is late on app is not known since 20",
        "whether it is late is not known",
    ] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    let broken = serving.json("/api/jobs")["broken"].clone();
    assert!(broken[1]["stands"][0].as_str().unwrap().starts_with(said), "{broken}");
    let alone = scenario.run(&[]).succeeded();
    assert_eq!(scenario.json(&[])["late"][0]["job"], "nightly");
    alone.prints(&[
        "Late:",
        "nightly on app: no success for its tick of",
        "timed: whether it is late on app is not known since 20",
        "Next: pgtend check",
    ]);
    serving.kill();
    let serving = serving.again(&scenario);
    serving.is_ready();
    eventually("the restarted one knows", || serving.get("/").body.contains(said) && serving.metric(is_late) == Some(1.0));

    // Mended, it is late until it succeeds.
    let scenario = scenario.job("nightly", &good);
    serving.reload();
    eventually("it is a job again", || !serving.get("/").body.contains(said));
    eventually("it is late as before", || serving.metric(is_late) == Some(1.0));
    scenario.run(&["run-job", "nightly"]).succeeded();
    eventually("it is well", || serving.metric(is_late) == Some(0.0));
    assert_eq!(titles(&recorder), ["nightly on app is late"], "a restart tells nothing again");
}
