//! `init` beside what is there: jobs that cover a part, databases that are down, jobs without a configuration, service files.

use std::fs;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, quoted};

fn text(scenario: &Scenario, file: &str) -> String {
    fs::read_to_string(scenario.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// `init` for one database of this server, without questions.
fn init(scenario: &Scenario, server: &Server, url: &str) -> crate::support::Output {
    scenario.run(&["init", url, "--bin-dir", &server.bin_dir.display().to_string(), "--yes"])
}

#[test]
fn a_job_that_backs_up_a_part_leaves_the_rest_to_init() {
    let server = server(18);
    let database = server.trusted_database();
    let part = "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\nschemas = [\"public\"]\n";
    let scenario = Scenario::with_database(server, &database).ledger().job("part", part);
    scenario.run(&[]).succeeded().prints(&["none of all of it: job part backs up a part", "Next: pgtend jobs "]);
    scenario.run(&["init", "--yes"]).succeeded().prints(&["jobs/backup-nightly.toml"]);
    scenario.run(&[]).succeeded().prints(&["none yet", "Next: pgtend run-job backup-nightly "]);
    scenario.run(&["init", "--yes"]).succeeded().prints(&["every job that fits is there"]);
}

#[test]
fn a_copy_that_a_refresh_makes_anew_gets_no_backup_job() {
    let server = server(18);
    let (source, copy) = (server.trusted_database(), server.trusted_database());
    let refresh = "database = \"copy\"\nschedule = \"0 4 * * *\"\n[refresh]\nfrom = \"nightly\"\n";
    let scenario = Scenario::with_database(server, &source)
        .config(&format!("[databases.copy]\nurl = {}\n", quoted(&server.url(&copy))))
        .ledger()
        .backup_job("local", "")
        .job("copy", refresh);
    scenario.run(&["init", "--yes"]).succeeded().prints(&["jobs/audit-monthly.toml"]);
    assert!(!scenario.path("jobs/backup-nightly.toml").exists());
}

#[test]
fn a_database_that_is_down_gets_the_jobs_for_every_database_and_that_is_said() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database)
        .config("[databases.down]\nurl = 'postgres://nobody@127.0.0.1:1/down'\n")
        .ledger();
    let said = scenario.run(&["init", "--yes"]).succeeded();
    said.prints(&[
        "jobs for tables of down: it could not be looked at",
        "backup-nightly on down: cannot connect",
        "All of these files are written",
    ]);
    let job = text(&scenario, "jobs/backup-nightly.toml");
    assert!(job.contains("databases = [\"app\", \"down\"]\n") && job.contains("verify = \"restore\""), "{job}");
    assert!(text(&scenario, "jobs/audit-monthly.toml").contains("\"down\""));
    scenario.run(&["check"]).succeeded();
    let said = scenario.run(&["init", "--yes"]).succeeded();
    let said = said.prints(&["There is nothing to write; down could not be looked at"]);
    assert!(!said.stdout.contains("every job that fits is there"), "{}", said.stdout);
}

#[test]
fn jobs_without_a_configuration_are_read_with_the_new_one_or_said() {
    let server = server(18);
    let database = server.trusted_database();
    let mine = format!("database = \"{database}\"\nschedule = \"0 1 * * *\"\n[backup]\nstore = \"local\"\n");
    let scenario = Scenario::empty().job("mine", &mine).job("other", &mine.replace("local", "offsite"));
    let said = init(&scenario, server, &server.url(&database)).succeeded();
    said.prints(&[
        "job `mine` in jobs: [backup]",
        "job `other` is there, and is not right with the new configuration",
        "no store `offsite`",
        "pgtend run-job mine",
    ]);
    assert!(!scenario.path("jobs/backup-nightly.toml").exists());
    assert!(scenario.path("jobs/audit-monthly.toml").exists());
    assert_eq!(text(&scenario, "jobs/mine.toml"), mine);
}

#[test]
fn a_service_of_the_environment_is_named_with_its_file_and_that_is_said() {
    let server = server(18);
    let (database, other) = (server.trusted_database(), server.trusted_database());
    let scenario = Scenario::empty().env("PGSERVICE", "prod").env("PGSERVICEFILE", "services.conf");
    let service = format!("[prod]\nhost={}\nuser=postgres\ndbname={database}\n[other]\n", server.socket().display());
    fs::write(scenario.path("services.conf"), service).unwrap();
    let said = scenario.run(&["init", "--bin-dir", &server.bin_dir.display().to_string()]).succeeded();
    let file = scenario.path("services.conf").display().to_string();
    said.prints(&[&format!("the configuration names the service `prod` of {file}"), "must find and be able to read it"]);
    let config = text(&scenario, "config.toml");
    // It names a database, which is meant: no other of its server.
    assert!(config.contains(&format!("[databases.{database}]")) && !config.contains(&other), "{config}");
    assert!(config.contains("service=prod&servicefile="), "{config}");
    // Without that environment, and from elsewhere, it means the same.
    let mut check = scenario.command(&["check", "--connect", "--config"]);
    check.arg(scenario.path("config.toml")).current_dir("/").env_remove("PGSERVICE").env_remove("PGSERVICEFILE");
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
}
