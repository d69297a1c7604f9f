//! What is shipped is right: the configuration parses, every job runs, and the editors' schema accepts it.

use std::path::{Path, PathBuf};

use crate::restore_database::databases;
use crate::support::postgres::server;
use crate::support::{Scenario, quoted};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example_jobs() -> Vec<PathBuf> {
    let mut jobs: Vec<PathBuf> =
        std::fs::read_dir(repository().join("jobs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    jobs.sort();
    assert!(!jobs.is_empty());
    jobs
}

#[test]
fn the_shipped_configuration_and_jobs_have_no_mistakes() {
    let config = repository().join("config.toml");
    Scenario::empty().run(&["check", "--config", config.to_str().unwrap()]).succeeded().prints(&["no mistakes"]);
}

#[test]
fn every_shipped_job_runs() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE execution_logs (id bigserial, created_at timestamptz); INSERT INTO execution_logs (created_at) SELECT now() - make_interval(days => i) FROM generate_series(1, 200) i");
    server.sql(&database, "CREATE TABLE audit_events (occurred_at timestamptz NOT NULL) PARTITION BY RANGE (occurred_at)");
    server.sql(&database, "CREATE TABLE scripts (id int PRIMARY KEY, content text); INSERT INTO scripts SELECT i, (SELECT string_agg('Get-Item ' || md5((i * j)::text), ' ') FROM generate_series(1, 300) j) FROM generate_series(1, 20) i");
    server.sql(&database, "CREATE EXTENSION vector; CREATE TABLE script_embeddings (id int, embedding vector(8)); INSERT INTO script_embeddings SELECT i, ARRAY[random(), random(), random(), random(), random(), random(), random(), random()]::vector FROM generate_series(1, 1200) i");
    let staging = server.empty_database();
    for path in example_jobs() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let mut scenario = Scenario::empty()
            .config(&format!("[databases.psscript]\nurl = {}\n", quoted(&server.url(&database))))
            .config(&format!("[databases.staging]\nurl = {}\n", quoted(&server.url(&staging))))
            .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())))
            .job(name, &std::fs::read_to_string(&path).unwrap());
        for store in ["local", "offsite"] {
            scenario = scenario.config(&format!("[stores.{store}]\npath = \"{store}\"\n"));
        }
        if name == "scripts-compress" {
            scenario.run(&["compress", "install", name, "--force"]).succeeded();
        }
        if name == "staging-refresh" {
            let nightly = std::fs::read_to_string(repository().join("jobs/backup-nightly.toml")).unwrap();
            scenario = scenario.job("backup-nightly", &nightly);
            scenario.run(&["run-job", "backup-nightly"]).succeeded();
        }
        scenario.run(&["run-job", name]).succeeded();
    }
    databases(server, &format!("{staging}_before_")).iter().for_each(|old| server.drop_with_test(old));
}
