//! Nothing is claimed of a backup that is not so: not that every database has one, that all is well or safe, that a set is lost, that none is there, or that no job makes one.

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, with_ledger};
use crate::support::{Scenario, eventually, quoted};

/// A backup job that runs by itself.
fn nightly(databases: &str, stores: &str, more: &str) -> String {
    format!("{databases}\nschedule = \"0 2 * * *\"\n[backup]\nstore = {stores}\n{more}\n")
}

/// Two databases on a server of their own, for which there is a job that never ran, and that of the ledger, which is backed up.
fn two_tenants(fleet: &Server) -> Scenario {
    let (scenario, _) = with_ledger(server(18));
    for name in ["tenant_a", "tenant_b"] {
        new_tenant(fleet, name);
    }
    let servers = format!("[servers.main]\nurl = {}\ndatabases = \"tenant_*\"\n", quoted(&fleet.url("postgres")));
    let scenario = scenario
        .config(&format!("{servers}[stores.offsite]\npath = \"offsite\"\n"))
        .job("nightly", &nightly("databases = \"tenant_*\"", "[\"local\", \"offsite\"]", ""))
        .job("own", &nightly("database = \"app\"", "\"local\"", ""));
    scenario.run(&["run-job", "own"]).succeeded();
    scenario
}

fn new_tenant(fleet: &Server, name: &str) {
    fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    fleet.sql(name, "CREATE TABLE t AS SELECT 1 AS i");
}

/// A database that a job backs up, beside that of the ledger, which is another one.
fn beside_its_ledger(job: &str) -> (Scenario, String, String) {
    let (app, ledger) = (server(18).trusted_database(), server(18).trusted_database());
    let ledgers = format!("[databases.ledger]\nurl = {}\n[ledger]\ndatabase = \"ledger\"\n", quoted(&server(18).url(&ledger)));
    let scenario = Scenario::with_database(server(18), &app).config(&ledgers).job("nightly", job);
    server(18).sql(&app, "CREATE TABLE t AS SELECT 1 AS i");
    (scenario, app, ledger)
}

#[test]
fn a_database_of_a_fleet_that_was_never_backed_up_has_no_proved_backup() {
    let fleet = Server::start(18);
    let scenario = two_tenants(&fleet);
    let doctor = |waiting: &str| {
        let said = scenario.run(&["doctor"]).prints(&["backup of tenant_*", &format!("{waiting}: pgtend run-job nightly")]);
        assert!(!said.stdout.contains("every database has") && !said.stdout.contains("All is well"), "{}", said.stdout);
        scenario.run(&[]).succeeded().prints(&[waiting, "Next: pgtend run-job nightly "]);
    };
    doctor("2 without a success yet");
    let serving = Serving::ready(&scenario, "");
    eventually("the page says it", || serving.get("/").body.contains("<h1>2 databases are not safe</h1>"));
    drop(serving);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["doctor"]).prints(&["every database has a proved backup"]);
    // Another one appears.
    new_tenant(&fleet, "tenant_c");
    doctor("1 without a success yet");
}

#[test]
fn a_store_that_lost_the_sets_of_a_fleet_or_is_away_is_said_and_the_fleet_is_not_called_well() {
    let fleet = Server::start(18);
    let scenario = two_tenants(&fleet);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["notify", "digest"]).succeeded().prints(&["digest: all 3 databases are safe"]);
    std::fs::remove_dir_all(scenario.path("offsite/main.tenant_a")).unwrap();
    let lost = "1 of 2 well, 1 with a backup in doubt (main.tenant_a: no copy that counts in offsite)";
    scenario.run(&[]).succeeded().prints(&[lost, "Next: pgtend backups list "]);
    scenario.run(&["doctor"]).prints(&["backup of tenant_*", lost]);
    scenario.run(&["notify", "digest"]).succeeded().prints(&["digest: 1 of 3 databases NOT safe", lost]);
    std::fs::rename(scenario.path("offsite"), scenario.path("away")).unwrap();
    scenario
        .run(&[])
        .succeeded()
        .prints(&["0 of 2 well, 2 with a backup in doubt", "offsite was not read, and may have a newer one"]);
}

#[test]
fn databases_of_a_server_whose_job_is_skipped_or_gone_have_sets_and_are_on_the_page() {
    let fleet = Server::start(18);
    let scenario = two_tenants(&fleet);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let says = |why: &str, next: &str| {
        let line = format!(
            "main.tenant_a, main.tenant_b: no job makes another backup, as job nightly {why}; the oldest of their newest sets is "
        );
        let said = scenario.run(&[]).succeeded().prints(&[&line, next]);
        assert!(!said.stdout.contains("no backup,"), "{}", said.stdout);
        scenario.run(&["notify", "digest"]).succeeded().prints(&["digest: 2 of 3 databases NOT safe", &format!("🔴 {line}")]);
    };
    let file = scenario.path("jobs/nightly.toml");
    std::fs::write(&file, "databases = \"tenant_*\"\nshedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n").unwrap();
    says("is skipped: there are mistakes in its file", "Next: pgtend check ");
    std::fs::remove_file(&file).unwrap();
    says("is gone", "Next: pgtend jobs --all ");
    // No job has patterns.
    let serving = Serving::ready(&scenario, "");
    eventually("the page says it", || serving.get("/").body.contains("<h1>2 databases are not safe</h1>"));
    assert!(serving.get("/").body.contains("<b>main.tenant_a, main.tenant_b</b>"), "{}", serving.get("/").body);
    assert_eq!(serving.json("/api/jobs")["uncovered"], serde_json::json!(["main.tenant_a", "main.tenant_b"]));
}

#[test]
fn an_old_backup_is_not_called_safe_while_the_store_that_may_have_the_newest_is_away() {
    let (scenario, _) = with_ledger(server(18));
    let scenario = scenario
        .config("[stores.offsite]\npath = \"offsite\"\n")
        .job("nightly", &nightly("database = \"app\"", "[\"local\", \"offsite\"]", ""));
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let newest = scenario.sets().pop().unwrap();
    std::fs::remove_dir_all(scenario.path(&format!("store/{newest}"))).unwrap();
    std::fs::rename(scenario.path("offsite"), scenario.path("away")).unwrap();
    scenario.run(&["notify", "digest"]).succeeded().prints(&[
        "🔴 digest: 1 of 1 database not known to be safe",
        "🔴 app: ",
        "offsite was not read, and may have a newer one",
    ]);
    let serving = Serving::ready(&scenario, "");
    eventually("the page says it", || serving.get("/").body.contains("<h1>1 database is not known to be safe</h1>"));
    assert!(serving.get("/").body.contains(" warning\">unknown<"), "{}", serving.get("/").body);
    drop(serving);
    // Both have lost it.
    std::fs::rename(scenario.path("away"), scenario.path("offsite")).unwrap();
    std::fs::remove_dir_all(scenario.path(&format!("offsite/{newest}"))).unwrap();
    scenario.run(&["notify", "digest"]).succeeded().prints(&["digest: 1 of 1 database NOT safe"]);
    let serving = Serving::ready(&scenario, "");
    eventually("the page says it", || serving.get("/").body.contains("<h1>1 database is at risk</h1>"));
}

#[test]
fn the_backup_of_a_database_that_was_restored_under_its_name_is_there_and_not_lost() {
    let (scenario, app, _) = beside_its_ledger(&nightly("database = \"app\"", "\"local\"", ""));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    server(18).sql("postgres", &format!("DROP DATABASE {app} WITH (FORCE)"));
    scenario.run(&["backups", "restore", "latest", "--into", "app", "--create"]).succeeded();
    let earlier = "none of this database: the sets of its name are of one that was dropped or renamed; if this one was restored from that one, \
                   or has replaced it: pgtend backups accept --identity ";
    let said = scenario.run(&[]).succeeded().prints(&[earlier]).stdout;
    assert!(!said.contains("does not count"), "{said}");
    let said = scenario.run(&["doctor"]).prints(&["backup of app", earlier]).stdout;
    assert!(!said.contains("does not count"), "{said}");
    // What it says is what helps.
    let command = said.split_once("pgtend backups accept ").unwrap().1.lines().next().unwrap();
    let arguments: Vec<&str> = ["backups", "accept"].into_iter().chain(command.split_whitespace()).collect();
    scenario.run(&arguments).succeeded();
    assert_eq!(scenario.json(&[])["databases"][0]["newest"]["set"], set.as_str());
}

#[test]
fn a_job_that_backs_up_a_part_is_named_and_its_sets_were_read_back() {
    let more = "exclude_table_data = [\"public.t\"]";
    let (scenario, ..) = beside_its_ledger(&nightly("database = \"app\"", "\"local\"", more));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let scenario = scenario.job("own", &nightly("database = \"ledger\"", "\"local\"", ""));
    let part = "none of all of it: job nightly backs up a part, as it has filters";
    let said = scenario.run(&[]).succeeded().prints(&[part, "Next: pgtend jobs "]);
    assert!(!said.stdout.contains("no job makes one"), "{}", said.stdout);
    scenario.run(&["doctor"]).prints(&["backup of app", part]);
    scenario.run(&["notify", "digest"]).succeeded().prints(&[&format!("app: {part}")]);
    let listed = scenario.run(&["backups", "list"]).succeeded().prints(&["The last intact partial set is "]);
    assert!(!listed.stdout.contains("has been read back"), "{}", listed.stdout);
}

#[test]
fn a_ledger_of_days_ago_makes_no_fresh_backup_late_and_one_of_a_wrong_clock_hides_no_late_job() {
    let (scenario, _, ledger) = beside_its_ledger(&nightly("database = \"app\"", "\"local\"", ""));
    let scenario = scenario.sql_job("stats", "schedule = '0 0 * * *'\nlate_after = '1m'", &["SELECT 1"]);
    for job in ["nightly", "stats"] {
        scenario.run(&["run-job", job]).succeeded();
    }
    let moved = |job: &str, by: &str| {
        let sql = "UPDATE pgtend.runs SET started_at = started_at + i, finished_at = finished_at + i, heartbeat_at = heartbeat_at + i FROM (SELECT interval";
        server(18).sql(&ledger, &format!("{sql} '{by}' AS i) x WHERE job = '{job}'"));
    };
    moved("nightly", "-5 days");
    let said = scenario.run(&[]).succeeded();
    assert!(!said.stdout.contains("Late:"), "{}", said.stdout);
    server(18).sql(
        &ledger,
        "INSERT INTO pgtend.schedules (job, database, schedule, known_since) VALUES ('stats', 'app', '0 0 * * * UTC', now() - interval '2 years')",
    );
    moved("stats", "40 days");
    scenario.run(&[]).succeeded().prints(&["Late:", "stats on app: no success for its tick of "]);
}
