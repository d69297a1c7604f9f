//! `render`: jobs in the language of systemd and Kubernetes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::Scenario;

fn scenario() -> Scenario {
    Scenario::empty()
        .config("[databases.app]\nurl = 'postgres://nobody@localhost/app'\n[databases.\"we\\\"ird: é\"]\nurl = 'postgres://nobody@localhost/other'\n[stores.local]\npath = 'store'\n")
        .job("nightly", "schedule = '30 2 * * *'\ntimezone = 'Europe/Berlin'\ntimeout = '2h'\njitter = '10m'\ndatabase = 'app'\n[backup]\nstore = 'local'\n")
        .job("weekly", "schedule = '0 0 4 1 * mon'\ndatabases = ['app', \"we\\\"ird: é\"]\n[sql]\nstatements = ['ANALYZE']\n")
        .job("by-hand", "database = 'app'\n[sql]\nstatements = ['ANALYZE']\n")
}

#[test]
fn timers_are_printed_or_written_one_for_each_scheduled_job() {
    let scenario = scenario();
    scenario.run(&["render", "systemd"]).succeeded().prints(&[
        "# pgtend-run-job@nightly.timer",
        "OnCalendar=*-*-* 02:30:00 Europe/Berlin",
        "RandomizedDelaySec=600s",
        // A day or a weekday: two expressions, as systemd wants both where cron wants either.
        "OnCalendar=*-*-01 04:00:00 UTC",
        "OnCalendar=Mon *-*-* 04:00:00 UTC",
    ]);
    scenario.run(&["render", "systemd", "units"]).succeeded();
    assert_eq!(scenario.files("units"), ["pgtend-run-job@nightly.timer", "pgtend-run-job@weekly.timer"]);
}

#[test]
fn cron_jobs_are_valid_whatever_the_databases_are_called() {
    let rendered = scenario().run(&["render", "kubernetes", "--image", "registry.example/pgtend:1"]).succeeded();
    assert_eq!(rendered.stdout.matches("kind: CronJob").count(), 3);
    valid(&rendered.stdout);
    let rendered = rendered.prints(&[
        "name: pgtend-nightly\n",
        "timeZone: \"Europe/Berlin\"",
        "concurrencyPolicy: Forbid",
        "registry.example/pgtend:1",
        "--scheduled",
    ]);
    // A pod makes its retries itself: its deadline is that of all of them.
    assert!(rendered.stdout.contains("activeDeadlineSeconds: 9150"), "{}", rendered.stdout);
}

#[test]
fn a_schedule_that_kubernetes_does_not_know_is_refused_with_its_job() {
    let scenario = scenario().job("seconds", "schedule = '*/5 * * * * *'\ndatabase = 'app'\n[sql]\nstatements = ['ANALYZE']\n");
    scenario.run(&["render", "kubernetes"]).exited(78).says(&["job seconds", "full minutes"]);
}

#[test]
fn five_hundred_databases_with_five_jobs_are_2500_valid_cron_jobs() {
    let mut config = String::from("[stores.local]\npath = 'store'\n");
    let names: Vec<String> = (0..500).map(|number| format!("tenant_{number:03}")).collect();
    for name in &names {
        config += &format!("[databases.{name}]\nurl = 'postgres://pgtend@db.example/{name}'\n");
    }
    let databases = format!("databases = [{}]\n", names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", "));
    let mut scenario = Scenario::empty().config(&config);
    for (job, minute) in [("backup", 0), ("analyze", 10), ("vacuum", 20), ("reindex", 30), ("refresh", 40)] {
        let task = if job == "backup" { "[backup]\nstore = 'local'\n" } else { "[sql]\nstatements = ['ANALYZE']\n" };
        scenario = scenario.job(job, &format!("schedule = '{minute} 2 * * *'\n{databases}{task}"));
    }
    let started = Instant::now();
    let rendered = scenario.run(&["render", "kubernetes"]).succeeded().stdout;
    println!("rendered in {:?}", started.elapsed());
    assert_eq!(rendered.matches("kind: CronJob").count(), 2500);
    valid(&rendered);
}

#[test]
fn a_real_helm_renders_the_chart_with_each_example_and_refuses_wrong_values() {
    passes("tests/kubernetes/chart");
}

#[test]
fn what_the_compose_file_starts_makes_and_proves_a_set() {
    passes("tests/compose/run");
}

fn passes(script: &str) {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .env("PGTEND", env!("CARGO_BIN_EXE_pgtend"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Against the Kubernetes schema, by PyPI's kubernetes-validate.
fn valid(manifests: &str) {
    let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kubernetes/validate"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
