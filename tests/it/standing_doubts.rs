//! What hides that a database is not safe, or that a job failed: later runs that prove nothing, a process that died, copies that are gone, jobs that only seem to do something.

use crate::copies::two_folders;
use crate::support::postgres::server;
use crate::support::{Scenario, eventually, quoted};

const NIGHTLY: &str = "schedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n";

#[test]
fn no_later_run_that_proves_nothing_hides_a_failure_and_a_process_that_died_is_one() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("purge", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "purge"]).exited(1);
    let insert = |task: &str, outcome: &str, seen: &str| {
        server.sql(
            &database,
            &format!(
                "INSERT INTO pgtend.runs (job, database, task, trigger, started_at, locked_at, heartbeat_at, finished_at, outcome, host, pid, version)
                 SELECT 'purge', 'app', '{task}', 'manual', at, at, at, CASE WHEN {outcome} IS NOT NULL THEN at END, {outcome}, 'db1', 7, '1' FROM (SELECT {seen} AS at) t"
            ),
        );
    };
    let now = "clock_timestamp()";
    for (task, outcome) in [("sql", "'skipped'"), ("sql", "'cancelled'"), ("partition convert", "'succeeded'"), ("sql", "NULL")] {
        insert(task, outcome, now);
        scenario.run(&[]).succeeded().prints(&["Failed last:", "division by zero"]);
        scenario.run(&["notify", "digest"]).succeeded().prints(&["division by zero"]);
    }
    // Its process was killed three days ago, and nobody has run the job since.
    server.sql(&database, "DELETE FROM pgtend.runs WHERE outcome IS NULL");
    insert("sql", "NULL", "clock_timestamp() - interval '3 days'");
    let died = "crashed 3 d 0 h ago: the process died without reporting a result: pid 7 on db1, last seen at ";
    scenario.run(&[]).succeeded().prints(&["Failed last:", died]);
    scenario.run(&["doctor"]).prints(&["job purge", died]);
    scenario.run(&["jobs"]).succeeded().prints(&["crashed"]);
    // It is what a list says, too: the manual command is no run of the job.
    server.sql(&database, "DELETE FROM pgtend.runs WHERE task = 'sql'");
    let listed = scenario.json(&["jobs"]);
    assert_eq!(listed["jobs"][0]["last"], serde_json::json!([]), "{listed:#}");
}

#[test]
fn the_newest_set_is_late_although_the_ledger_has_only_just_come_to_know_the_schedule() {
    let server = server(18);
    let database = server.trusted_database();
    let often = "database = \"app\"\nschedule = \"* * * * * *\"\nlate_after = \"1s\"\n[backup]\nstore = \"local\"\n";
    let scenario = Scenario::with_database(server, &database).ledger().job("nightly", often);
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(
        &database,
        "INSERT INTO pgtend.schedules (job, database, schedule, known_since) VALUES ('nightly', 'app', '* * * * * * UTC', now() + interval '1 day')",
    );
    eventually("the set is late", || scenario.json(&[])["late"][0]["job"] == "nightly");
    scenario.run(&["notify", "digest"]).succeeded().prints(&["NOT safe"]);
}

#[test]
fn a_refresh_that_never_ran_is_disabled_or_is_a_drill_hides_no_database() {
    let server = server(18);
    let (app, other) = (server.trusted_database(), server.trusted_database());
    let scenario = Scenario::with_database(server, &app)
        .config(&format!("[databases.other]\nurl = {}\n", quoted(&server.url(&other))))
        .ledger()
        .job("nightly", &format!("database = \"app\"\n{NIGHTLY}"));
    server.sql(&other, "CREATE TABLE t AS SELECT 1 AS i");
    let none = "none, and no job makes one";
    for (above, more) in [("enabled = false\n", ""), ("", ""), ("", "swap = false\n")] {
        let job = format!("{above}database = \"other\"\n[refresh]\nfrom = \"nightly\"\n{more}");
        std::fs::write(scenario.path("jobs/staging.toml"), job).unwrap();
        scenario.run(&[]).succeeded().prints(&["other", none]);
        scenario.run(&["notify", "digest"]).succeeded().prints(&["other: none, and no job makes one"]);
    }
    // One that replaced it is why it needs none; a drill of that name is not.
    let succeeded = "INSERT INTO pgtend.runs (job, database, task, trigger, finished_at, outcome, host, pid, version)
                     VALUES ('staging', 'other', 'refresh', 'manual', now(), 'succeeded', 'h', 1, '1')";
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql(&app, succeeded);
    scenario.run(&[]).succeeded().prints(&[none]);
    let job = "database = \"other\"\n[refresh]\nfrom = \"nightly\"\n";
    let scenario = scenario.job("staging", job);
    let said = scenario.run(&[]).succeeded();
    assert!(!said.stdout.contains("other"), "{}", said.stdout);
    // A backup job that is there counts first.
    let scenario = scenario.job("other", &format!("enabled = false\ndatabase = \"other\"\n{NIGHTLY}"));
    scenario.run(&[]).succeeded().prints(&["other", "its job other is disabled"]);
    scenario.run(&["check"]).succeeded().prints(&["`other` is backed up by a job, and no refresh replaces such a database"]);
    let scenario = scenario.job("staging", &format!("{job}swap = false\n"));
    scenario.run(&["check"]).succeeded().prints(&["`other` is backed up by a job, and a drill there is refused, too"]);
}

#[test]
fn a_second_copy_that_is_gone_is_said() {
    let server = server(18);
    let scenario = two_folders(server, &server.trusted_database(), "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let said = scenario.run(&[]).succeeded();
    assert!(!said.stdout.contains("no copy"), "{}", said.stdout);
    std::fs::remove_dir_all(scenario.path("offsite/app")).unwrap();
    scenario.run(&[]).succeeded().prints(&[&set, "no copy that counts in offsite"]);
    let missing = format!("no copy of {set} that counts is in offsite: pgtend backups copy {set} --to offsite");
    scenario.run(&["doctor"]).prints(&["store offsite", &missing]);
    scenario.run(&["notify", "digest"]).succeeded().prints(&[&missing]);
    assert_eq!(scenario.json(&[])["databases"][0]["missing_in"], serde_json::json!(["offsite"]));
    scenario.run(&["backups", "copy", &set, "--to", "offsite"]).succeeded();
    let said = scenario.run(&[]).succeeded();
    assert!(!said.stdout.contains("no copy"), "{}", said.stdout);
}

#[test]
fn sets_of_a_dropped_database_are_not_called_none_yet() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database).job("nightly", &format!("database = \"app\"\n{NIGHTLY}"));
    scenario.run(&["run-job", "nightly"]).succeeded();
    server.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    server.sql("postgres", &format!("CREATE DATABASE {database}"));
    let said = scenario
        .run(&[])
        .succeeded()
        .prints(&["none of this database: the sets of its name are of one that was dropped or renamed"]);
    assert!(!said.stdout.contains("none yet"), "{}", said.stdout);
}
