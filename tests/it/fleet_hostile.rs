//! What tenants of a server can do to others: by the names that they give their databases, and by what they leave undone.

use pgtend::task::backup::manifest;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, with_ledger};
use crate::support::{Scenario, quoted};

const TOKEN: &str = "a token for those who may act";

fn of_server(server: &Server, name: &str, more: &str) -> String {
    format!("[servers.{name}]\nurl = {}\n{more}\n", quoted(&server.url("postgres")))
}

fn job_on(patterns: &str, statement: &str) -> String {
    format!("databases = {patterns}\n[sql]\nstatements = [{}]\n", quoted(statement))
}

const BACKUP: &str = "databases = \"main.*\"\n[backup]\nstore = \"local\"\nkeep = { last = 2 }\n";

#[test]
fn a_database_whose_own_name_begins_with_that_of_another_server_is_none_of_its_jobs() {
    let (prod, shared) = (Server::start(18), Server::start(18));
    prod.sql("postgres", "CREATE DATABASE app");
    for name in ["prod.x", "prod.app", "prod", "prod_2"] {
        shared.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
    }
    let scenario = Scenario::with_database(&prod, "postgres")
        .config(&of_server(&prod, "prod", "exclude = \"postgres\""))
        .config(&of_server(&shared, "shared", "exclude = \"postgres\""));
    let mut scenario = scenario;
    for (name, patterns, expected) in [
        ("literal", "\"prod.*\"", &["prod.app"][..]),
        ("first", "\"pr*.*\"", &["prod.app"]),
        ("letters", "\"pr?d.x\"", &[]),
        ("any", "\"*.app\"", &["prod.app"]),
        // Without a dot, a pattern is compared with databases' own names, and no server's name counts.
        ("own", "\"prod*\"", &["shared.prod", "shared.prod.2Eapp", "shared.prod.2Ex", "shared.prod_2"]),
        ("both", "[\"prod.*\", \"shared.prod_?\"]", &["prod.app", "shared.prod_2"]),
        ("spelt", "\"shared.prod.2E*\"", &["shared.prod.2Eapp", "shared.prod.2Ex"]),
    ] {
        scenario = scenario.job(name, &job_on(patterns, "SELECT 1"));
        let jobs = scenario.json(&["jobs"]);
        let job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).unwrap();
        assert_eq!(job["databases"], serde_json::json!(expected), "{patterns}");
    }
    scenario.run(&["run-job", "literal"]).succeeded().prints(&["literal on prod.app: succeeded"]);
    scenario.run(&["check"]).succeeded();
    // A server that was renamed takes its jobs' patterns nowhere else, and that is said.
    let scenario = scenario.job("renamed", &job_on("\"production.*\"", "SELECT 1"));
    scenario.run(&["check"]).succeeded().prints(&["renamed: the pattern \"production.*\" stands for nothing"]);
}

#[test]
fn a_job_is_never_run_by_hand_on_another_database_than_the_named_one() {
    let fleet = Server::start(18);
    for name in ["shop", "main.gone"] {
        fleet.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
    }
    let scenario = Scenario::with_database(&fleet, "postgres")
        .config(&of_server(&fleet, "main", "exclude = \"postgres\""))
        .job("look", &job_on("\"main.*\"", "SELECT 1"));
    for gone in [&["run-job", "look@main.gone"][..], &["run-job", "look", "--database", "main.gone"], &["run-job", "look@gone"]] {
        scenario.run(gone).exited(78).says(&["does not run on"]);
    }
    scenario.run(&["run-job", "look@shop"]).succeeded().prints(&["look on main.shop: succeeded"]);
    scenario.run(&["run-job", "look@main.main.2Egone"]).succeeded();
}

#[test]
fn a_page_runs_jobs_on_the_databases_that_they_have_and_on_no_other() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_1", "tenant_vault", "tenant_entry", "other"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}; "));
        fleet.sql(name, "CREATE TABLE events AS SELECT generate_series(1, 10) i");
    }
    let scenario = scenario
        .config(&of_server(&fleet, "main", "databases = \"tenant_*\"\nexclude = \"*_vault\""))
        .config(&format!("[databases.entry]\nurl = {}\n", quoted(&fleet.url("tenant_entry"))))
        .job("expire", &job_on("\"*\"", "DELETE FROM events"))
        .job("nightly", BACKUP);
    scenario.run(&["run-job", "nightly@tenant_1"]).succeeded();
    let set = scenario.sets().remove(0);
    std::fs::write(scenario.path("actions"), format!("{TOKEN}\n")).unwrap();
    let serving = Serving::ready(&scenario, "actions_token_file = \"actions\"");
    crate::support::eventually("its databases are found", || serving.json("/api/jobs")["fleets"][0]["databases"] == 3);
    let run = |job, database| {
        let fields = [("job", job), ("database", database), ("who", "Ann"), ("token", TOKEN)];
        serving.post("/actions/run", &fields, &[]).status
    };
    for database in ["main.tenant_vault", "main.other", "main.tenant_entry", "main.tenant_none", "main.postgres", "none"] {
        assert_eq!(run("expire", database), 404, "{database}");
    }
    let before = asked(server(18), &ledger, "SELECT count(*) FROM pgtend.runs");
    for name in [
        "main.nothere/whatever/2026-11-23T02-00-00Z",
        "main.tenant_1/whatever/2026-11-23T02-00-00Z",
        "main.tenant_1/nightly/2026-11-23T02-00-00Z",
        "main.nothere/nightly/2026-11-23T02-00-00Z",
    ] {
        let hold = [("set", name), ("days", "3"), ("who", "Ann"), ("token", TOKEN)];
        assert_eq!(serving.post("/actions/hold", &hold, &[]).status, 404, "{name}");
        let verify = [("set", name), ("store", "local"), ("who", "Ann"), ("token", TOKEN)];
        assert_eq!(serving.post("/actions/verify", &verify, &[]).status, 404, "{name}");
    }
    assert_eq!(asked(server(18), &ledger, "SELECT count(*) FROM pgtend.runs"), before, "no row of what does not exist");
    assert_eq!(run("expire", "main.tenant_1"), 303);
    let done = "SELECT count(*) FROM pgtend.runs WHERE job = 'expire' AND outcome = 'succeeded'";
    crate::support::serve::becomes(server(18), &ledger, done, "1");
    for (name, left) in [("tenant_1", "0"), ("tenant_vault", "10"), ("tenant_entry", "10"), ("other", "10")] {
        assert_eq!(fleet.sql(name, "SELECT count(*) FROM events"), left, "{name}");
    }
    // The sets of a database that went are held as any other.
    fleet.sql("postgres", "DROP DATABASE tenant_1 WITH (FORCE)");
    crate::support::eventually("it went", || serving.json("/api/jobs")["fleets"][0]["databases"] == 2);
    assert_eq!(run("expire", "main.tenant_1"), 404);
    let hold = [("set", set.as_str()), ("days", "3"), ("who", "Ann"), ("token", TOKEN)];
    assert_eq!(serving.post("/actions/hold", &hold, &[]).status, 303);
}

#[test]
fn the_sets_of_a_database_that_went_stay_when_another_one_takes_its_name() {
    let fleet = Server::start(18);
    fleet.sql("postgres", "CREATE ROLE cust_b LOGIN CREATEDB; CREATE DATABASE shop; CREATE DATABASE theirs OWNER cust_b");
    fleet.sql("shop", "CREATE TABLE orders AS SELECT generate_series(1, 100) AS a");
    fleet.sql("theirs", "CREATE TABLE orders AS SELECT generate_series(1, 200) AS b");
    let scenario = Scenario::with_database(&fleet, "postgres")
        .config(&of_server(&fleet, "main", "exclude = \"postgres\""))
        .job("nightly", BACKUP);
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly@shop"]).succeeded();
    }
    let of_shop =
        |scenario: &Scenario| scenario.sets().into_iter().filter(|set| set.starts_with("main.shop/")).collect::<Vec<String>>();
    let good = of_shop(&scenario);
    assert_eq!(good.len(), 2);
    let oid = fleet.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'shop'");
    fleet.sql("postgres", "DROP DATABASE shop");
    fleet.psql("postgres", "SET ROLE cust_b; ALTER DATABASE theirs RENAME TO shop").unwrap();
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly@shop"]).succeeded().says(&[
            "2 sets here, the newest of them",
            good[1].as_str(),
            &format!("with another OID ({oid}; this one has"),
            "pgtend backups accept --identity",
        ]);
    }
    scenario.run(&["backups", "prune"]).succeeded().says(&["2 sets here, the newest of them"]);
    let now = of_shop(&scenario);
    assert!(good.iter().all(|set| now.contains(set)), "{now:?}");
    assert_eq!(now.len(), 4, "its own are pruned by its own rule: {now:?}");

    let latest = ["backups", "verify", "latest", "--database", "main.shop"];
    scenario.run(&latest).succeeded().says(&["is of the database that has this name now. 2 sets here are of another", &good[1]]);
    // The list tells them apart, and says what a person can do.
    let oid_now = fleet.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'shop'");
    let list = scenario.run(&["backups", "list", "--database", "main.shop"]).succeeded().says(&[
        "main.shop/nightly: 2 sets here, the newest of them",
        good[1].as_str(),
        "pgtend backups accept --identity",
        "--by-name",
    ]);
    for oid in [&oid, &oid_now] {
        let of_oid = format!("/shop, OID {oid}");
        let is_of_it = |line: &&str| line.trim_start().starts_with("main.shop/") && line.contains(&of_oid);
        assert_eq!(list.stdout.lines().filter(is_of_it).count(), 2, "{}", list.stdout);
        assert!(list.stdout.contains(&format!("{of_oid}) is ")), "a series does not make up for another: {}", list.stdout);
    }
    let shown = scenario.json(&["backups", "show", &good[1]]);
    assert_eq!(shown["oid"].as_i64().map(|oid| oid.to_string()), Some(oid.clone()));
    scenario.run(&["backups", "show", &good[1]]).succeeded().prints(&["identity ", &format!("/shop, OID {oid}")]);
    // A database that was restored under its name has another OID, too: a person says that it is still the same.
    let set = scenario.json(&["backups", "list", "--database", "main.shop"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    scenario
        .run(&["backups", "accept", "--identity", &set, "--database", "main.shop", "--job", "nightly"])
        .succeeded()
        .prints(&["2 sets of a database that had the name of", "now belong to the series of the present one"]);
    let list = scenario.run(&["backups", "list", "--database", "main.shop"]).succeeded();
    assert!(!list.stderr.contains("another OID"), "{}", list.stderr);
    let run = scenario.run(&["run-job", "nightly@shop"]).succeeded();
    assert!(!run.stderr.contains("another OID"), "{}", run.stderr);
    let left = of_shop(&scenario);
    assert!(left.len() == 2 && good.iter().all(|set| !left.contains(set)), "{left:?}");
    let anew = || {
        fleet.sql("postgres", "DROP DATABASE shop WITH (FORCE); CREATE DATABASE shop");
        fleet.sql("shop", "CREATE TABLE orders AS SELECT generate_series(1, 200) AS b");
    };
    // What was accepted is of that database alone: the next one of the name gets none of it.
    anew();
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly@shop"]).succeeded().says(&["2 sets here, the newest of them"]);
    }
    let now = of_shop(&scenario);
    assert!(left.iter().all(|set| now.contains(set)), "{now:?}");
    // Where it is made anew again and again, its name may be enough.
    scenario
        .run(&["backups", "accept", "--identity", &set, "--by-name", "--database", "main.shop", "--job", "nightly"])
        .succeeded()
        .prints(&["are one series, whatever database has that name"]);
    anew();
    let run = scenario.run(&["run-job", "nightly@shop"]).succeeded();
    assert!(!run.stderr.contains("another OID"), "{}", run.stderr);
    assert_eq!(of_shop(&scenario).len(), 2);
}

#[test]
fn whoever_chooses_the_oid_of_a_database_that_went_gets_nothing_of_its_series() {
    for user in ["postgres", "tender"] {
        let fleet = Server::start(18);
        fleet.sql(
            "postgres",
            "CREATE ROLE owner; CREATE ROLE cust_b LOGIN CREATEDB; CREATE ROLE tender LOGIN IN ROLE pg_read_all_data",
        );
        fleet.sql("postgres", "CREATE DATABASE shop OWNER owner");
        fleet.sql("shop", "CREATE TABLE orders AS SELECT generate_series(1, 100) AS a");
        let scenario = Scenario::with_url(&fleet, &fleet.url_as(user, "shop"))
            .job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\nkeep = { last = 2 }\n");
        scenario.run(&["run-job", "nightly"]).succeeded();
        // Its row in pg_database is another one by now; the database is the same.
        fleet.sql("postgres", "GRANT CONNECT ON DATABASE shop TO cust_b; ALTER DATABASE shop CONNECTION LIMIT 50");
        fleet.sql("postgres", "VACUUM FULL pg_database; VACUUM FULL pg_shdepend; SELECT pg_sleep(1.1)");
        let run = scenario.run(&["run-job", "nightly"]).succeeded();
        assert!(!run.stderr.contains("had this name before"), "{}", run.stderr);
        let good = scenario.sets();
        let oid = fleet.sql("postgres", "SELECT oid FROM pg_database WHERE datname = 'shop'");
        fleet.sql("postgres", "DROP DATABASE shop");
        fleet.psql("postgres", &format!("SET ROLE cust_b; CREATE DATABASE shop OID = {oid}")).unwrap();
        fleet.sql("shop", "CREATE TABLE orders AS SELECT random() AS a FROM generate_series(1, 100)");
        let said = ["2 sets here, the newest of them", good[1].as_str(), "with the same OID", "which CREATE DATABASE can choose"];
        for _ in 0..3 {
            scenario.run(&["run-job", "nightly"]).succeeded().says(&said);
        }
        let now = scenario.sets();
        assert!(now.len() == 4 && good.iter().all(|set| now.contains(set)), "{user}: {now:?}");
        // Sets of earlier releases have no marks: there the OID alone tells.
        for set in scenario.sets() {
            let path = scenario.path(&format!("store/{set}/manifest.json"));
            let mut read = manifest::from_json(&std::fs::read(&path).unwrap()).unwrap();
            assert!(!std::mem::take(&mut read.server.database.marks).is_empty(), "{user}");
            std::fs::write(&path, manifest::to_json(&read).unwrap()).unwrap();
        }
        scenario.run(&["run-job", "nightly"]).succeeded();
        assert_eq!(scenario.sets().len(), 2, "{user}");
    }
}

#[test]
fn without_system_identifiers_nothing_goes_where_an_oid_is_another_one() {
    let fleet = Server::start(18);
    fleet.sql("template1", "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    fleet.sql("postgres", "CREATE ROLE tender LOGIN IN ROLE pg_read_all_data; CREATE DATABASE shop");
    let orders = "CREATE TABLE orders AS SELECT generate_series(1, 100) AS a";
    fleet.sql("shop", orders);
    let scenario = Scenario::with_url(&fleet, &fleet.url_as("tender", "shop"))
        .job("nightly", "database = \"app\"\n[backup]\nstore = \"local\"\nkeep = { last = 1 }\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let good = scenario.sets().remove(0);
    fleet.sql("postgres", "DROP DATABASE shop; CREATE DATABASE shop");
    fleet.sql("shop", orders);
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded().says(&["nothing in the store is swept or pruned", "another OID"]);
    }
    scenario.run(&["backups", "prune"]).exited(75).says(&["another OID"]);
    assert!(scenario.sets().contains(&good));
    // Sets of before OIDs were written are as they were.
    for set in scenario.sets() {
        let path = scenario.path(&format!("store/{set}/manifest.json"));
        let mut read = manifest::from_json(&std::fs::read(&path).unwrap()).unwrap();
        read.server.database.oid = None;
        std::fs::write(&path, manifest::to_json(&read).unwrap()).unwrap();
    }
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
}
