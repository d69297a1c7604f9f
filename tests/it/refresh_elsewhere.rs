//! A URL that leads to one server for staging, and to another one for the databases beside it.

use crate::refresh::{Stage, held_by, hold, job, release, stage};
use crate::restore_database::databases;
use crate::support::pooler::Pooler;
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually, quoted};

#[test]
fn a_pooler_that_leads_elsewhere_for_the_database_beside_gets_nothing_replaced_or_dropped() {
    let (production, staging) = (Server::start(18), server(18));
    // Of two servers that one script set up, the names and the OIDs are equal.
    let name = staging.empty_database();
    let oid = staging.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"));
    production.sql("postgres", &format!("CREATE DATABASE {name} OID = {oid}"));
    production.sql(&name, "CREATE TABLE of_production AS SELECT 1 AS x");
    // An earlier run on the wrong server left this: by its mark it could be dropped.
    let old = format!("{name}_before_20200101_000000");
    production.sql("postgres", &format!("CREATE DATABASE {old}"));
    let mark = format!(
        "made by pgtend refresh: {{\"what\":\"old\",\"target\":\"{name}\",\"job\":\"refresh\",\"run\":null,\"at\":\"2020-01-01T00:00:00Z\",\"replaced_by\":{oid}}}"
    );
    production.sql("postgres", &format!("COMMENT ON DATABASE {old} IS '{mark}'"));
    let routes = format!("[databases]\n{name} = host={}\n", staging.socket().display());
    let pooler = Pooler::start(&production, "session", 20, &routes);
    assert_eq!(pooler.psql(&name, "SELECT to_regclass('of_production') IS NULL").trim(), "t");

    let scenario = Scenario::with_database(&production, &name)
        .config(&format!("[databases.staging]\nurl = {}\n", quoted(&pooler.url(&name))))
        .backup_job("local", "")
        .job("refresh", &job("terminate = true\nwait = \"1ms\""));
    scenario.run(&["run-job", "nightly"]).succeeded();
    for arguments in [&["run-job", "refresh", "--dry-run"][..], &["run-job", "refresh"]] {
        scenario.run(arguments).exited(78).says(&["is not replaced", "leads to one server for it, and to another one"]);
    }
    assert_eq!(databases(&production, &name), [name.clone(), old]);
    assert_eq!(production.sql(&name, "SELECT x FROM of_production"), "1");
    assert_eq!(databases(staging, &name).len(), 1);
    assert_eq!(databases(&production, "pgtend_refresh_"), Vec::<String>::new());

    // A name that leads to another database of the same server.
    let other = staging.empty_database();
    let routes = format!("[databases]\n{other} = host={} dbname={name}\n", staging.socket().display());
    let pooler = Pooler::start(staging, "session", 20, &routes);
    let own = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let url = own.lines().find(|line| line.contains("127.0.0.1")).unwrap().to_owned();
    std::fs::write(scenario.path("config.toml"), own.replace(&url, &format!("url = {}", quoted(&pooler.url(&other))))).unwrap();
    scenario.run(&["run-job", "refresh"]).exited(78).says(&[&format!("leads to the database {name} in its place")]);
    assert_eq!(databases(staging, &other), [other]);
}

#[test]
fn a_pooler_that_leads_elsewhere_during_the_run_gets_nothing_replaced() {
    let (production, staging) = (Server::start(18), server(18));
    let Stage { scenario, source, staging: name } = stage(staging, staging, "");
    let oid = staging.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{name}'"));
    production.sql("postgres", &format!("CREATE DATABASE {name} OID = {oid}"));
    let pooler = Pooler::start(staging, "session", 20, "");
    let own = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    std::fs::write(scenario.path("config.toml"), own.replace(&staging.url(&name), &pooler.url(&name))).unwrap();
    let held = held_by(&hold(staging, &name));
    let scenario = scenario.job("refresh", &job(&format!("{held}\nterminate = true\nwait = \"1ms\"")));
    let stage = Stage { scenario, source, staging: name };
    let Stage { staging: name, .. } = &stage;
    let running = stage.scenario.start(&["run-job", "refresh"]);
    eventually("it is in the user's SQL", || stage.copies(staging).iter().any(|copy| staging.sleeps(copy)));
    pooler.leads(&format!("{name} = host={}", production.socket().display()));
    eventually("the pooler leads elsewhere", || pooler.psql(name, "SELECT to_regclass('of_staging') IS NULL").trim() == "t");
    release(staging, name);
    running.wait().exited(78).says(&["is not replaced", "leads to one server for it, and to another one"]);
    stage.is_as_it_was(staging);
    assert_eq!(databases(&production, name).len(), 1);
}
