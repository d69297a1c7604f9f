//! Schemas as tenants: a job of `[backup]` with `schemas` has a set for each, under any name, and only an answer takes one away.

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, history, reaches, with_ledger};
use crate::support::{Scenario, eventually};

const KEEP_TWO: &str = "[backup]\nstore = \"local\"\nkeep = { last = 2 }\n";

fn job_of(schemas: &str, keys: &str, backup: &str) -> String {
    format!("database = \"app\"\nschemas = {schemas}\n{keys}\n{backup}")
}

/// Makes a schema with a table that has one row: the schema's name.
fn tenant(server: &Server, database: &str, schema: &str) {
    let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
    let literal = format!("'{}'", schema.replace('\'', "''"));
    server.sql(database, &format!("CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.me AS SELECT {literal}::text AS name"));
}

fn places_of(jobs: &Value, name: &str) -> Vec<String> {
    let job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).unwrap();
    job["databases"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The databases of the sets, each as often as it has sets.
fn places_with_sets(scenario: &Scenario) -> Vec<String> {
    let sets = scenario.json(&["backups", "list"]);
    let mut places: Vec<String> =
        sets["sets"].as_array().unwrap().iter().map(|set| set["database"].as_str().unwrap().to_owned()).collect();
    places.sort();
    places
}

#[test]
fn a_schema_that_appears_has_its_set_from_the_next_tick_and_one_that_went_is_said_once() {
    let (scenario, ledger) = with_ledger(server(18));
    tenant(server(18), &ledger, "tenant_1");
    tenant(server(18), &ledger, "other");
    let keys = "schedule = \"*/15 * * * * *\"\ndescription = \"{schema} of {database}\"";
    let scenario = scenario.job("often", &job_of("\"tenant_*\"", keys, KEEP_TWO));
    let serving = Serving::ready(&scenario, "");
    let succeeded = |name: &str| {
        format!("SELECT count(*) FROM pgtend.runs WHERE job = 'often' AND database = '{name}' AND outcome = 'succeeded'")
    };
    reaches(server(18), &ledger, &succeeded("app:tenant_1"), 1);

    tenant(server(18), &ledger, "tenant_2");
    reaches(server(18), &ledger, &succeeded("app:tenant_2"), 1);
    serving.logs("database `app` has 1 new schema");
    assert_eq!(serving.json("/api/jobs")["fleets"][0]["databases"], 2);
    assert!(serving.get("/database?name=app:tenant_2").body.contains("often"));

    server(18).sql(&ledger, "DROP SCHEMA tenant_1 CASCADE");
    serving.logs("1 schema of database `app` went");
    eventually("its job has one schema", || serving.json("/api/jobs")["fleets"][0]["databases"] == 1);
    // What was due before may still wait for its turn, and fails; no later tick begins.
    let went_at = asked(server(18), &ledger, "SELECT clock_timestamp()");
    let since =
        |name: &str| format!("SELECT count(*) FROM pgtend.runs WHERE database = '{name}' AND scheduled_for > '{went_at}'");
    reaches(server(18), &ledger, &format!("{} AND outcome = 'succeeded'", since("app:tenant_2")), 1);
    assert_eq!(asked(server(18), &ledger, &since("app:tenant_1")), "0", "{}", history(server(18), &ledger));
    let log = serving.log();
    assert_eq!(log.matches("went; no job runs there any more").count(), 1, "{log}");
    assert_eq!(asked(server(18), &ledger, "SELECT DISTINCT database FROM pgtend.runs ORDER BY 1"), "app:tenant_1\napp:tenant_2");

    let page = serving.get("/").body;
    assert!(page.contains("1 schema") && page.contains("Gone, with their sets kept") && page.contains("app:tenant_1"), "{page}");
    scenario.run(&["jobs"]).succeeded().prints(&["app:tenant_*: 1 schema", "app:tenant_1 is gone since"]);
    scenario.run(&["jobs", "--all"]).succeeded().prints(&["app:tenant_2", "tenant_2 of app"]);
    // Its sets stay, also those that are above `keep`, as no run of it prunes any more.
    assert!(places_with_sets(&scenario).contains(&"app:tenant_1".to_owned()));
}

#[test]
fn hostile_names_of_schemas_are_backed_up_each_by_itself_in_a_folder_of_its_own() {
    let server = server(18);
    let database = server.empty_database();
    let names = [
        "tenant_1",
        "tenant_10",
        "TENANT_1",
        "tenant*1",
        "tenant?1",
        "*",
        "?",
        "a.b",
        "a",
        "b",
        "a/b",
        "a:b",
        "..",
        "quo\"te'",
        "new\nline",
        "$x",
        "a$",
        "$(id)",
        "über",
        "-n",
        "--schema=a",
        " ",
        "[a-z]",
        "a|b",
        "(a)",
        "\\d",
        "^a",
        "\u{202e}gpj",
        "x::int",
        "\"",
        "\"\"",
        "a\"b\"c",
    ];
    for name in names {
        tenant(server, &database, name);
    }
    let scenario = Scenario::with_database(server, &database).job("nightly", &job_of("\"*\"", "", KEEP_TWO));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let places = places_with_sets(&scenario);
    assert_eq!(places.len(), names.len() + 1, "and `public`: {places:?}");
    for name in names {
        let place = format!("app:{}", plain(name));
        assert!(places.contains(&place), "{place}");
        let shown = scenario.json(&["backups", "show", "latest", "--database", &place]);
        let tables: Vec<&str> =
            shown["tables"].as_array().unwrap().iter().map(|table| table["schema"].as_str().unwrap()).collect();
        assert_eq!(tables, [name], "its own table, and no other");
    }
    // Those that a pattern would take for others come back as themselves.
    for name in ["tenant*1", "?", "a.b", "a\"b\"c", "new\nline", "TENANT_1", "$x"] {
        let target = server.empty_database();
        let place = format!("app:{}", plain(name));
        scenario.run(&["backups", "restore", "latest", "--database", &place, "--into", &server.url(&target)]).succeeded();
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let found = server.sql(&target, &format!("SELECT encode(convert_to(name, 'UTF8'), 'hex') FROM {quoted}.me"));
        assert_eq!(found, hex::encode(name));
    }
    for folder in std::fs::read_dir(scenario.path("store")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("app%3A") || name.starts_with('.'), "{name}");
    }
}

/// The name of a schema as part of the place's.
fn plain(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!(".{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

#[test]
fn each_schema_is_proved_by_a_restore_kept_by_its_own_rule_and_restored_alone() {
    let server = server(18);
    let database = server.empty_database();
    tenant(server, &database, "tenant_1");
    tenant(server, &database, "tenant_2");
    let proved = "[backup]\nstore = \"local\"\nkeep = { last = 2 }\nverify = \"restore\"\n";
    let scenario = Scenario::with_database(server, &database).job("nightly", &job_of("\"tenant_*\"", "", proved));
    scenario.run(&["check", "--connect"]).succeeded().prints(&["app:tenant_*: 2 schemas", "privileges for nightly"]);
    scenario
        .run(&["run-job", "nightly", "--dry-run"])
        .succeeded()
        .prints(&["back up schema \"tenant_1\" of", "back up schema \"tenant_2\" of"]);
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded().prints(&["app:tenant_1", "app:tenant_2", "restored in"]);
    }
    scenario.run(&["run-job", "nightly@app:tenant_2"]).succeeded();
    scenario.run(&["run-job", "nightly@tenant_2"]).succeeded();
    assert_eq!(places_with_sets(&scenario), ["app:tenant_1", "app:tenant_1", "app:tenant_2", "app:tenant_2"], "two of each");
    scenario.run(&["run-job", "nightly", "--database", "app", "--unless-within", "1h"]).succeeded().says(&["nothing to do"]);
    assert_eq!(places_with_sets(&scenario).len(), 4, "all of them are recent");
    scenario.run(&["backups", "verify", "latest", "--database", "app:tenant_1"]).succeeded();
    scenario.run(&["backups", "require", "--database", "app:tenant_1", "--within", "1h"]).succeeded();
    scenario
        .run(&["backups", "require", "--database", "app", "--within", "1h"])
        .exited(75)
        .says(&["No job here makes backups of all of it"]);
    scenario.run(&["backups", "prune", "--dry-run"]).succeeded().prints(&["keep"]);

    let target = server.empty_database();
    let restore = ["backups", "restore", "latest", "--database", "app:tenant_2", "--into", &server.url(&target)];
    scenario.run(&restore).succeeded();
    assert_eq!(server.sql(&target, "SELECT name FROM tenant_2.me"), "tenant_2");
    assert_eq!(server.sql(&target, "SELECT count(*) FROM pg_namespace WHERE nspname = 'tenant_1'"), "0");
}

#[test]
fn a_schema_that_was_dropped_or_renamed_meanwhile_fails_the_run_and_never_takes_the_name_of_another() {
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_1", "tenant_2"] {
        tenant(server(18), &ledger, name);
    }
    let scenario = scenario.job("nightly", &job_of("[\"tenant_1\", \"tenant_2\"]", "", KEEP_TWO));
    scenario.run(&["run-job", "nightly"]).succeeded();
    server(18).sql(&ledger, "ALTER SCHEMA tenant_1 RENAME TO \"tenant_1.old\"; ALTER SCHEMA tenant_2 RENAME TO tenant_3");
    // A name that the file has runs whether or not the schema is there.
    let failed = scenario.run(&["run-job", "nightly"]).exited(78);
    for name in ["tenant_1", "tenant_2"] {
        assert!(failed.stderr.contains(&format!("the database has no schema \"{name}\"")), "{}", failed.stderr);
    }
    assert_eq!(places_with_sets(&scenario), ["app:tenant_1", "app:tenant_2"], "the sets from before stay, and there is no other");
    let wide = format!("{KEEP_TWO}sessions = 2\n");
    let scenario = scenario.job("wide", &job_of("[\"tenant_1\"]", "", &wide));
    scenario.run(&["run-job", "wide"]).exited(78).says(&["the database has no schema \"tenant_1\""]);
    assert_eq!(places_with_sets(&scenario).len(), 2);
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&["lacks", "the database has no schema"]);
}

#[test]
fn the_next_tenant_that_gets_the_name_of_a_schema_that_went_pushes_none_of_its_sets_out() {
    let server = server(18);
    let database = server.empty_database();
    tenant(server, &database, "tenant_1");
    tenant(server, &database, "tenant_2");
    let scenario = Scenario::with_database(server, &database).job("nightly", &job_of("\"tenant_*\"", "", KEEP_TWO));
    let of_tenant_1 = || -> Vec<String> {
        let sets = scenario.json(&["backups", "list", "--database", "app:tenant_1"]);
        sets["sets"].as_array().unwrap().iter().map(|set| set["set"].as_str().unwrap().to_owned()).collect()
    };
    for _ in 0..2 {
        let run = scenario.run(&["run-job", "nightly"]).succeeded();
        assert!(!run.stderr.contains("had this name before"), "{}", run.stderr);
    }
    let good = of_tenant_1();
    let list = scenario.run(&["backups", "list"]).succeeded();
    assert!(!list.stdout.contains("OID"), "each tenant has one schema: {}", list.stdout);

    server.sql(&database, "DROP SCHEMA tenant_1 CASCADE");
    tenant(server, &database, "tenant_1");
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly@app:tenant_1"]).succeeded().says(&[
            "2 sets here, the newest of them",
            "of a schema that had this name before, with another OID",
            "pgtend backups accept --identity",
        ]);
    }
    let now = of_tenant_1();
    assert!(now.len() == 4 && good.iter().all(|set| now.contains(set)), "{good:?} {now:?}");
    scenario.run(&["backups", "prune"]).succeeded().says(&["2 sets here, the newest of them"]);
    assert_eq!(of_tenant_1().len(), 4);
    scenario.run(&["backups", "list", "--database", "app:tenant_1"]).succeeded().prints(&[", schema OID "]);
    // Nobody is told to deploy on the word of the earlier tenant's set.
    server.sql(&database, "DROP SCHEMA tenant_1 CASCADE");
    tenant(server, &database, "tenant_1");
    let require = ["backups", "require", "--database", "app:tenant_1", "--within", "1h"];
    scenario.run(&require).exited(75).says(&["of another schema, which had this name on this server before"]);

    // Restored under its name, it is the same: a person says so.
    let identity = scenario.json(&["backups", "show", &good[0]])["identity"].as_str().unwrap().to_owned();
    let accept = ["backups", "accept", "--identity", &identity, "--database", "app:tenant_1", "--of", &good[0]];
    scenario.run(&accept).succeeded().prints(&["2 sets of a schema that had the name of"]);
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly@app:tenant_1"]).succeeded();
    }
    let left = of_tenant_1();
    assert!(left.len() == 4 && good.iter().all(|set| !left.contains(set)), "those of the one between stay: {left:?}");
}

#[test]
fn while_a_schema_is_not_there_its_sets_are_neither_accepted_nor_pruned() {
    let server = server(18);
    let database = server.empty_database();
    let scenario = Scenario::with_database(server, &database).job("nightly", &job_of("[\"tenant_1\"]", "", KEEP_TWO));
    for _ in 0..2 {
        tenant(server, &database, "tenant_1");
        for _ in 0..2 {
            scenario.run(&["run-job", "nightly"]).succeeded();
        }
        server.sql(&database, "DROP SCHEMA tenant_1 CASCADE");
    }
    assert_eq!(places_with_sets(&scenario).len(), 4);
    let identity = scenario.json(&["backups", "list"])["sets"][0]["identity"].as_str().unwrap().to_owned();
    let said = ["the database has no schema \"tenant_1\", so nothing tells whose sets these are"];
    for arguments in [&["backups", "accept", "--identity", &identity][..], &["backups", "prune"]] {
        let refused = scenario.run(arguments).says(&said);
        assert_ne!(refused.code, Some(0), "{arguments:?}");
    }
    tenant(server, &database, "tenant_1");
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert_eq!(places_with_sets(&scenario).len(), 6, "four of those before, and two of its own");
}

#[test]
fn a_schema_whose_name_another_one_gets_while_it_is_dumped_has_no_set() {
    let server = server(18);
    let database = server.empty_database();
    tenant(server, &database, "tenant_1");
    let scenario = Scenario::with_database(server, &database).job("nightly", &job_of("[\"tenant_1\"]", "", KEEP_TWO));
    let holder = server.session(&database, "BEGIN; LOCK TABLE tenant_1.me");
    let running = scenario.start(&["run-job", "nightly"]);
    eventually("pg_dump waits for the table", || {
        server.sql(&database, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'tenant_1.me'::regclass") == "1"
    });
    server.sql(&database, "ALTER SCHEMA tenant_1 RENAME TO before");
    tenant(server, &database, "tenant_1");
    holder.ends_with("ROLLBACK");
    let failed = running.wait().exited(75).says(&["schema \"tenant_1\" was dropped or renamed while it was dumped"]);
    assert!(!failed.stdout.contains("succeeded"), "{}", failed.stdout);
    assert_eq!(places_with_sets(&scenario), Vec::<String>::new());
    scenario.run(&["run-job", "nightly"]).succeeded();
}

#[test]
fn a_schema_that_the_role_may_not_use_is_left_out_and_named_and_so_are_those_of_nobody() {
    let server = server(18);
    let database = server.new_database();
    for name in ["tenant_1", "tenant_secret", "pgtend"] {
        tenant(server, &database, name);
    }
    server.sql(&database, "CREATE SCHEMA of_extension; ALTER EXTENSION plpgsql ADD SCHEMA of_extension");
    let role = format!("{database}_tender");
    server.sql(
        &database,
        &format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA tenant_1 TO {role}; GRANT SELECT ON tenant_1.me TO {role}"),
    );
    let scenario = Scenario::with_url(server, &server.url_as(&role, &database))
        .job("nightly", &job_of("[\"tenant_*\", \"pgtend*\", \"of_*\"]", "", KEEP_TWO));
    scenario.run(&["check", "--connect"]).succeeded().prints(&[
        "tenant_secret is left out: the role may not use it",
        ": 1 schema",
        "privileges for nightly",
    ]);
    assert_eq!(places_of(&scenario.json(&["jobs"]), "nightly"), ["app:tenant_1"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(places_with_sets(&scenario), ["app:tenant_1"]);
    server.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn the_schemas_of_found_databases_are_places_of_their_own_and_a_server_that_is_away_keeps_them() {
    let mut fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for database in ["shop_1", "shop_2", "other"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {database}"));
        tenant(&fleet, database, "tenant_1");
    }
    tenant(&fleet, "shop_2", "tenant_2");
    let job = format!("databases = \"shop_*\"\nschemas = \"tenant_*\"\nschedule = \"0 0 1 1 *\"\n{KEEP_TWO}");
    let scenario = scenario
        .config(&format!("[servers.main]\nurl = {}\n", crate::support::quoted(&fleet.url("postgres"))))
        .job("yearly", &job);
    let all = ["main.shop_1:tenant_1", "main.shop_2:tenant_1", "main.shop_2:tenant_2"];
    scenario.run(&["run-job", "yearly"]).succeeded();
    assert_eq!(places_with_sets(&scenario), all);
    scenario.run(&["run-job", "yearly@tenant_1"]).exited(78).says(&["several databases have a schema `tenant_1`"]);
    scenario.run(&["run-job", "yearly@main.shop_2"]).succeeded().prints(&["main.shop_2:tenant_1", "main.shop_2:tenant_2"]);
    scenario.run(&[]).succeeded().prints(&[
        "yearly on shop_*:tenant_*: 3 of 3 well",
        "main.other: no backup, and no job makes one",
        "main.shop_1, main.shop_2: no backup of all of it, and no job makes one: its schemas are backed up one by one",
    ]);
    let memory = "SELECT string_agg(DISTINCT server, ' ' ORDER BY server) FROM pgtend.databases";
    assert_eq!(asked(server(18), &ledger, memory), "main main.shop_1:* main.shop_2:*");

    let mut serving = Serving::ready(&scenario, "");
    let count = |serving: &Serving| serving.json("/api/jobs")["fleets"][0]["databases"].as_u64().unwrap();
    eventually("all are found", || count(&serving) == 3);
    fleet.crash();
    serving.logs("server `main` does not answer, and keeps the databases that it had");
    assert_eq!(count(&serving), 3);
    // Also in a process that never had an answer.
    assert_eq!(serving.terminate(), Some(0));
    let serving = Serving::ready(&scenario, "");
    eventually("the ledger remembers them", || count(&serving) == 3);
    assert_eq!(places_of(&scenario.json(&["jobs", "--all"]), "yearly"), all);
    scenario.run(&["run-job", "yearly@main.shop_2:tenant_2"]).exited(69);
    assert!(!serving.log().contains("went"), "{}", serving.log());
    fleet.start_again();
    serving.logs("server `main` answers");
    assert_eq!(count(&serving), 3);
}

#[test]
fn a_database_of_which_nothing_is_known_is_no_database_without_schemas() {
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n[stores.local]\npath = \"store\"\n")
        .job("nightly", &job_of("\"tenant_*\"", "", KEEP_TWO));
    scenario.run(&["run-job", "nightly"]).exited(69).says(&["which schemas database `app` has is not known"]);
    scenario.run(&["check", "--connect"]).exited(69).prints(&["schemas of database app", "FAILED"]);
    scenario.run(&["check"]).succeeded();
}

#[test]
fn the_schemas_of_a_database_are_backed_up_one_after_another_or_as_its_limit_says() {
    let (scenario, ledger) = with_ledger(server(18));
    for number in 1..=5 {
        tenant(server(18), &ledger, &format!("tenant_{number}"));
    }
    let scenario = scenario.job("nightly", &job_of("\"tenant_*\"", "", KEEP_TWO));
    scenario.run(&["run-job", "nightly"]).succeeded();
    assert_eq!(asked(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'"), "5");
    let most = "SELECT max((SELECT count(*) FROM pgtend.runs b WHERE b.locked_at <= a.locked_at AND b.finished_at > a.locked_at))
                FROM pgtend.runs a";
    assert_eq!(asked(server(18), &ledger, most), "1");
}

#[test]
fn a_schema_is_safe_by_its_own_sets_alone_and_no_set_of_a_schema_makes_its_database_safe() {
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_1", "tenant_2"] {
        tenant(server(18), &ledger, name);
    }
    let daily = "schedule = \"0 2 * * *\"";
    let checked = format!("{KEEP_TWO}verify = \"checksum\"\n");
    let scenario = scenario.job("nightly", &job_of("\"tenant_*\"", daily, &checked));
    let well = |scenario: &Scenario| scenario.json(&[])["fleets"][0]["well"].clone();
    assert_eq!(well(&scenario), 0, "there is no set yet");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let in_part = "none of all of it, and no job makes one: its schemas are backed up one by one";
    scenario.run(&[]).succeeded().prints(&["nightly on app:tenant_*: 2 of 2 well", in_part, "Next: pgtend init"]);
    let digest = ["notify", "digest"];
    scenario.run(&digest).succeeded().prints(&["digest: 1 of 3 databases and schemas NOT safe", &format!("🔴 app: {in_part}")]);

    let whole = "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n";
    let scenario = scenario.job("whole", whole);
    scenario.run(&["run-job", "whole"]).succeeded();
    scenario.run(&digest).succeeded().prints(&["digest: all 3 databases and schemas are safe"]);
    std::fs::rename(scenario.path("store/app%3Atenant_1"), scenario.path("away")).unwrap();
    let gone = "1 of 2 well, 1 without a backup that counts (app:tenant_1: the newest, ";
    scenario.run(&[]).succeeded().prints(&[gone]);
    scenario.run(&digest).succeeded().prints(&["digest: 1 of 3 databases and schemas NOT safe", gone]);
    std::fs::rename(scenario.path("away"), scenario.path("store/app%3Atenant_1")).unwrap();
    tenant(server(18), &ledger, "tenant_3");
    scenario.run(&[]).succeeded().prints(&["2 of 3 well, 1 without a success yet"]);
}

#[test]
fn what_schemas_cannot_mean_is_told_with_what_to_write() {
    let base = || {
        Scenario::empty()
            .config("[databases.app]\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n[stores.local]\npath = \"store\"\n")
    };
    for (job, said) in [
        (
            "database = \"app\"\nschemas = \"*\"\n[sql]\nstatements = [\"SELECT 1\"]\n".to_owned(),
            "`schemas` is of [backup] alone",
        ),
        (
            job_of("\"*\"", "", "[backup]\nstore = \"local\"\nschemas = [\"public\"]\n"),
            "`schemas` stands above [backup] and in it",
        ),
        (job_of("[]", "", KEEP_TWO), "`schemas` is empty"),
        (job_of("[\"pg_toast\"]", "", KEEP_TWO), "`pg_toast` is a schema of the system"),
        ("database = \"app:tenant_1\"\n[backup]\nstore = \"local\"\n".to_owned(), "schemas = [\"tenant_1\"]"),
        (
            "database = \"app\"\n[backup]\nstore = \"local\"\nschemas = \"*\"\n".to_owned(),
            "write it above [backup]: schemas = \"tenant_*\"",
        ),
        ("database = \"app\"\n[sql]\nstatements = [\"SELECT 1\"]\nschemas = \"*\"\n".to_owned(), "`schemas` is of backups"),
    ] {
        base().job("nightly", &job).run(&["check"]).exited(78).says(&[said]);
    }
    let ambiguous = base().config("[databases.\"app:x\"]\nurl = \"postgres://nobody@127.0.0.1:1/x\"\n");
    ambiguous.run(&["check"]).succeeded();
    let ambiguous = ambiguous.job("nightly", &job_of("\"*\"", "", KEEP_TWO));
    ambiguous.run(&["check"]).exited(78).says(&["[databases.\"app:x\"] has a name that a schema of a database may have"]);
    base().run(&["audit", "--database", "app:x"]).exited(78).says(&["the configuration has no database `app:x`"]);
}

#[test]
fn a_schemas_set_restores_by_the_documented_commands_and_says_what_it_lacks() {
    let server = server(18);
    let database = server.empty_database();
    server.sql(
        &database,
        "CREATE TYPE public.mood AS ENUM ('calm'); CREATE TABLE public.country AS SELECT 'de' AS code;
         CREATE SCHEMA alone; CREATE TABLE alone.t AS SELECT 7 AS a;
         CREATE SCHEMA needs; CREATE TABLE needs.t (m public.mood); INSERT INTO needs.t VALUES ('calm')",
    );
    let scenario = Scenario::with_database(server, &database);
    let proved = "[backup]\nstore = \"local\"\nverify = \"restore\"\n";
    let scenario = scenario.job("nightly", &job_of("\"*\"", "", proved));
    scenario.run(&["run-job", "nightly@public"]).succeeded();
    scenario.run(&["run-job", "nightly@alone"]).succeeded();
    let lacks = "This set holds a part of its database, and this refers to what is not in that part.";
    scenario.run(&["run-job", "nightly@needs"]).exited(1).says(&[
        "type \"public.mood\" does not exist",
        lacks,
        "without filters",
    ]);

    let restored = |place: &str, more: &[&str]| {
        let mut arguments = vec!["backups", "restore", "latest", "--database", place];
        arguments.extend(more);
        scenario.run(&arguments)
    };
    // Into a new database, whose public is there already, and into one that is empty.
    let new = format!("{database}_new");
    restored("app:public", &["--into", &server.url(&new), "--create"]).succeeded();
    assert_eq!(server.sql(&new, "SELECT code FROM public.country"), "de");
    let empty = server.empty_database();
    restored("app:public", &["--into", &server.url(&empty)]).succeeded();
    // A tenant whose types are not there, and back into a database that lives.
    let other = format!("{database}_other");
    let said = ["type \"public.mood\" does not exist", lacks, "--schema NAME or --table NAME, with --into"];
    restored("app:needs", &["--into", &server.url(&other), "--create"]).exited(1).says(&said);
    server.sql(&database, "DROP SCHEMA needs CASCADE");
    restored("app:needs", &["--into", "app"]).exited(78).says(&["is not empty", "--schema or --table"]);
    restored("app:needs", &["--schema", "needs", "--into", "app"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT m FROM needs.t"), "calm");
}
