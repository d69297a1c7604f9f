//! What commands print with `--json` is as `pgtend schema output` says also where something is missing, damaged, away or not over yet: keys are null then,
//! or not there.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::json_schema::{is_as_described, is_as_output};
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually, quoted};

const TENANTS: &str = "databases = \"tenant_*\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\nkeep = { last = 3 }\n";
const SCHEMAS: &str = "database = \"app\"\nschemas = \"s*\"\n[backup]\nstore = \"local\"\nkeep = { last = 3 }\n";

/// What a command prints that ends with this exit code, compared with its schema: its own document, or a failure.
#[track_caller]
fn printed(scenario: &Scenario, arguments: &[&str], code: i32) -> Value {
    let output = scenario.run(&[arguments, &["--json"]].concat()).exited(code);
    let printed: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}{}", output.stdout, output.stderr));
    match printed["error"]["kind"] {
        Value::Null => is_as_described(arguments, &printed),
        _ => is_as_output("error", &printed),
    }
    printed
}

#[test]
fn sets_and_batches_that_nobody_has_read_or_can_read_are_as_described() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz NOT NULL);
         INSERT INTO logs (created_at) SELECT now() - make_interval(days => i) FROM generate_series(1, 50) i",
    );
    let scenario = Scenario::with_database(server, &database)
        // No folder can be there.
        .config("[stores.away]\npath = \"a-file/store\"\n")
        .backup_job("local", "verify = \"none\"\nkeep = { last = 5 }")
        .job("old", "database = \"app\"\n[retention]\ntable = \"public.logs\"\ncolumn = \"created_at\"\nolder_than = \"30d\"\narchive = \"local\"\n");
    std::fs::write(scenario.path("a-file"), "").unwrap();
    // Without a ledger, a run has no number.
    let ran = printed(&scenario, &["run-job", "nightly"], 0);
    assert_eq!(ran["runs"][0]["id"], Value::Null, "{ran:#}");
    printed(&scenario, &["run-job", "old", "--yes"], 0);
    for (file, text) in [
        ("archive/killed.pending.json", "{"),
        ("archive/broken.json", "{"),
        ("../nightly/2026-01-01T00-00-00Z/manifest.json", "{"),
    ] {
        let path = scenario.path("store/app/old").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    let listed = printed(&scenario, &["backups", "list"], 1);
    assert_eq!(listed["sets"][0]["verification"]["bytes"], Value::Null, "{listed:#}");
    assert_eq!((&listed["sets"][0]["bytes"], &listed["sets"][0]["job"]), (&"unknown".into(), &"nightly".into()), "{listed:#}");
    assert_eq!(listed["unrestorable"][0]["set"], "app/nightly/2026-01-01T00-00-00Z", "{listed:#}");
    assert_eq!(listed["unread_stores"][0]["store"], "away", "{listed:#}");
    let batches = printed(&scenario, &["archives", "list", "--store", "local"], 0);
    assert_eq!((&batches["pending"][0]["rows"], &batches["pending"][0]["counts"]), (&Value::Null, &false.into()), "{batches:#}");
    assert!(batches["broken"][0]["key"].as_str().unwrap().ends_with("broken.json"), "{batches:#}");

    let shown = printed(&scenario, &["backups", "show", "latest", "--store", "local"], 0);
    assert_eq!((&shown["encryption"], &shown["adopted"]), (&Value::Null, &Value::Null), "{shown:#}");
    printed(&scenario, &["backups", "certificate", "latest", "--store", "local"], 0);
    let pruned = printed(&scenario, &["backups", "prune", "--dry-run"], 0);
    assert_eq!(pruned["sets"][0]["store"], "local", "{pruned:#}");
    let standing = printed(&scenario, &[], 0);
    assert_eq!(standing["databases"][0]["newest"], Value::Null, "{standing:#}");
    let asked = printed(&scenario, &["backups", "require", "--database", "app", "--within", "1d", "--store", "local"], 75);
    assert_eq!((&asked["met"], &asked["newest"]), (&false.into(), &Value::Null), "{asked:#}");
    printed(&scenario, &["check", "--connect"], 1);
    printed(&scenario, &["doctor"], 1);

    printed(&scenario, &["backups", "verify", "latest", "--store", "local"], 0);
    let standing = printed(&scenario, &[], 0);
    let newest = &standing["databases"][0]["newest"];
    assert_eq!((&newest["restored_at"], &newest["refused_by"]), (&Value::Null, &Value::Null), "{standing:#}");
}

#[test]
fn runs_that_are_not_over_and_jobs_that_do_not_run_are_as_described() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .config(&format!("[databases.gone]\nurl = {}\n", quoted("postgres://nobody@127.0.0.1:1/gone")))
        .ledger()
        .sql_job("slow", "", &["SELECT pg_sleep(600)"])
        .sql_job("idle", "schedule = \"@yearly\"\nenabled = false\ndescription = \"by hand\"", &["SELECT 1"])
        .job("both", "databases = [\"gone\", \"app\"]\n[sql]\nstatements = [\"SELECT 1/0\"]\n");
    let before = printed(&scenario, &["jobs"], 0);
    assert_eq!(before["jobs"][0]["last"], Value::Array(Vec::new()), "{before:#}");
    let slow = scenario.start(&["run-job", "slow"]);
    eventually("it is under way", || scenario.runs(&[]).len() == 1);

    let run = printed(&scenario, &["runs", "show", "1"], 0)["run"].take();
    assert_eq!((&run["outcome"], &run["finished_at"], &run["report"]), (&Value::Null, &Value::Null, &Value::Null), "{run:#}");
    let logs = printed(&scenario, &["logs", "1"], 0);
    assert_eq!((&logs["outcome"], &logs["stderr"]), (&Value::Null, &Value::Null), "{logs:#}");
    let jobs = printed(&scenario, &["jobs"], 0);
    let of_job = |name: &str| jobs["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).unwrap();
    assert_eq!((&of_job("slow")["schedule"], &of_job("slow")["last"][0]["outcome"]), (&Value::Null, &Value::Null), "{jobs:#}");
    assert_eq!(of_job("slow")["last"][0]["last_success_at"], Value::Null, "{jobs:#}");
    assert_eq!((&of_job("idle")["next_run_at"], &of_job("idle")["enabled"]), (&Value::Null, &false.into()), "{jobs:#}");
    let mut follow = scenario.command(&["runs", "--follow", "--json"]);
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    is_as_output("runs --follow", &serde_json::from_str(&line).unwrap());

    let busy = printed(&scenario, &["run-job", "slow"], 75);
    assert_eq!((&busy["runs"][0]["outcome"], &busy["runs"][0]["report"]), (&"skipped".into(), &Value::Null), "{busy:#}");
    let failed = printed(&scenario, &["run-job", "both"], 1);
    let runs = failed["runs"].as_array().unwrap();
    let on_app = runs.iter().find(|run| run["database"] == "app").unwrap();
    assert!(runs.len() == 2 && on_app["error"].as_str().unwrap().contains("division by zero"), "{failed:#}");
    // A timer calls a job that is not enabled: nothing is due, and that is a document, too.
    let none = printed(&scenario, &["run-job", "idle", "--scheduled"], 0);
    assert_eq!(none["runs"], Value::Array(Vec::new()), "{none:#}");
    slow.kill();
    eventually("its end is known", || printed(&scenario, &["runs", "show", "1"], 0)["run"]["outcome"] == "crashed");
    printed(&scenario, &["logs", "1"], 0);

    let standing = printed(&scenario, &[], 0);
    assert_eq!(standing["databases"][0]["job"], Value::Null, "{standing:#}");
    assert!(!standing["failed"].as_array().unwrap().is_empty(), "{standing:#}");
    let scenario = scenario.job("wrong", "schedule = 7\n");
    let jobs = printed(&scenario, &["jobs"], 0);
    assert_eq!(jobs["broken"][0]["job"], "wrong", "{jobs:#}");
    let standing = printed(&scenario, &[], 0);
    assert_eq!((&standing["configured"], &standing["broken"][0]), (&true.into(), &"wrong".into()), "{standing:#}");
    let scenario = scenario.config("[databases.app]\n");
    let standing = printed(&scenario, &[], 0);
    assert_eq!((&standing["configured"], &standing["jobs"]), (&false.into(), &0.into()), "{standing:#}");
    let failed = printed(&scenario, &["jobs"], 78);
    assert!(failed["problems"][0]["line"].is_u64(), "{failed:#}");
    std::fs::remove_file(scenario.path("config.toml")).unwrap();
    let standing = printed(&scenario, &[], 0);
    assert_eq!(standing["next"]["command"], "pgtend init", "{standing:#}");
}

#[test]
fn fleets_and_schemas_as_tenants_are_as_described_also_of_a_server_that_closes_drops_or_is_away() {
    let mut fleet = Server::start(18);
    for name in ["app", "tenant_a", "tenant_b", "tenant_c"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
        fleet.sql(name, "CREATE SCHEMA s1; CREATE TABLE s1.t AS SELECT 1 AS i");
    }
    let scenario = Scenario::with_database(&fleet, "app")
        .config(&format!("[servers.main]\nurl = {}\ndatabases = \"tenant_*\"\n", quoted(&fleet.url("postgres"))))
        .ledger()
        .job("nightly", TENANTS)
        .job("schemas", SCHEMAS)
        .job("look", "databases = \"tenant_?\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    let before = printed(&scenario, &["jobs"], 0);
    assert_eq!(before["jobs"][1]["fleet"]["oldest_success_at"], Value::Null, "{before:#}");
    printed(&scenario, &["run-job", "nightly", "--dry-run"], 0);
    for job in ["nightly", "schemas", "look"] {
        printed(&scenario, &["run-job", job], 0);
    }
    for arguments in [
        &["check", "--connect"][..],
        &["jobs", "--all"],
        &["runs"],
        &["backups", "list"],
        &["backups", "prune", "--dry-run"],
        &["backups", "require", "--database", "app:s1", "--within", "1d"],
        &["backups", "require", "--database", "main.tenant_a", "--within", "1d"],
        &["notify", "digest"],
    ] {
        printed(&scenario, arguments, 0);
    }
    let standing = printed(&scenario, &[], 0);
    let of = |name: &str| standing["fleets"].as_array().unwrap().iter().find(|fleet| fleet["job"] == name).unwrap();
    assert_eq!((&of("nightly")["well"], &of("schemas")["databases"]), (&3.into(), &1.into()), "{standing:#}");

    fleet.sql("postgres", "ALTER DATABASE tenant_b WITH ALLOW_CONNECTIONS false");
    fleet.sql("postgres", "DROP DATABASE tenant_c");
    printed(&scenario, &["run-job", "nightly"], 0);
    let jobs = printed(&scenario, &["jobs"], 0);
    assert_eq!(
        (&jobs["left_out"][0]["database"], &jobs["gone"][0]["database"]),
        (&"main.tenant_b".into(), &"main.tenant_c".into())
    );
    let standing = printed(&scenario, &[], 0);
    assert_eq!(standing["left_out"][0]["why"], "it takes no connections", "{standing:#}");

    // The ledger is there, too: only the stores say how it stands.
    fleet.crash();
    let standing = printed(&scenario, &[], 0);
    assert!(
        standing["databases"][0]["unasked"].is_string() && !standing["unread"].as_array().unwrap().is_empty(),
        "{standing:#}"
    );
    printed(&scenario, &["doctor"], 69);
    printed(&scenario, &["check", "--connect"], 69);
    printed(&scenario, &["run-job", "nightly"], 69);
}
