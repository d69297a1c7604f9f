//! `[servers.NAME]` and jobs with patterns: databases that appear and go, under any name, and servers that do not answer.

use chrono::{TimeDelta, Utc};
use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, becomes, history, hours_ago, reaches, with_ledger};
use crate::support::{Scenario, eventually, quoted};

/// `[servers.NAME]` of that server.
fn of_server(server: &Server, name: &str, more: &str) -> String {
    format!("[servers.{name}]\nurl = {}\n{more}\n", quoted(&server.url("postgres")))
}

fn job_on(patterns: &str, keys: &str, statements: &[&str]) -> String {
    format!("databases = {patterns}\n{keys}\n[sql]\nstatements = {}\n", serde_json::to_string(statements).unwrap())
}

/// Drops a database once nobody is in it.
fn drop_database(server: &Server, name: &str) {
    server.sql("postgres", &format!("DROP DATABASE \"{}\" WITH (FORCE)", name.replace('"', "\"\"")));
}

fn databases_of(jobs: &Value, name: &str) -> Vec<String> {
    let jobs = jobs["jobs"].as_array().unwrap();
    let job = jobs.iter().find(|job| job["job"] == name).unwrap();
    job["databases"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_database_that_appears_runs_from_its_next_tick_and_one_that_went_is_said_once() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    fleet.sql("postgres", "CREATE DATABASE tenant_1");
    fleet.sql("postgres", "CREATE DATABASE other");
    let scenario = scenario
        .config(&of_server(&fleet, "main", ""))
        .job("often", &job_on("\"tenant_*\"", "schedule = \"* * * * * *\"\ndescription = \"of {database}\"", &["SELECT 1"]));
    let serving = Serving::ready(&scenario, "");
    let succeeded = |name: &str| {
        format!("SELECT count(*) FROM pgtend.runs WHERE job = 'often' AND database = '{name}' AND outcome = 'succeeded'")
    };
    reaches(server(18), &ledger, &succeeded("main.tenant_1"), 2);

    fleet.sql("postgres", "CREATE DATABASE tenant_2");
    reaches(server(18), &ledger, &succeeded("main.tenant_2"), 2);
    serving.logs("server `main` has 1 new database");
    assert_eq!(serving.json("/api/jobs")["fleets"][0]["databases"], 2);

    drop_database(&fleet, "tenant_1");
    serving.logs("1 database of server `main` went");
    eventually("its job has one database", || serving.json("/api/jobs")["fleets"][0]["databases"] == 1);
    let of_gone = "SELECT count(*) FROM pgtend.runs WHERE database = 'main.tenant_1'";
    // What was due when it went has ended by then.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let before = asked(server(18), &ledger, of_gone);
    reaches(server(18), &ledger, &succeeded("main.tenant_2"), 6);
    assert_eq!(asked(server(18), &ledger, of_gone), before, "{}", history(server(18), &ledger));
    let log = serving.log();
    assert_eq!(log.matches("went; no job runs there any more").count(), 1, "{log}");
    let rows = asked(server(18), &ledger, "SELECT DISTINCT database FROM pgtend.runs ORDER BY 1");
    assert_eq!(rows, "main.tenant_1\nmain.tenant_2", "no other database");

    let page = serving.get("/").body;
    assert!(page.contains("Gone, with their sets kept") && page.contains("main.tenant_1"), "{page}");
    scenario.run(&["jobs"]).succeeded().prints(&["tenant_*: 1 database", "1 of 1 well", "main.tenant_1 is gone since"]);
    scenario.run(&["jobs", "--all"]).succeeded().prints(&["main.tenant_2", "of tenant_2"]);
    scenario.run(&[]).succeeded().prints(&["often on tenant_*: 1 of 1 well", "main.tenant_1 is gone since"]);
    // A database of that name that comes back is another one, and is in again.
    fleet.sql("postgres", "CREATE DATABASE tenant_1");
    eventually("it is in again", || serving.json("/api/jobs")["fleets"][0]["databases"] == 2);
}

#[test]
fn a_run_under_way_hides_neither_that_the_last_one_failed_nor_that_a_database_is_late() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    let scenario = scenario.config(&of_server(&fleet, "main", ""));
    let schedule = hours_ago();
    let keys = format!("databases = \"t_*\"\nschedule = \"{schedule}\"\ncatch_up = \"skip\"\n");
    let scenario = scenario.job("nightly", &format!("{keys}[backup]\nstore = \"local\"\n"));
    let scenario = scenario.sql_job("alone", &format!("schedule = \"{schedule}\"\ncatch_up = \"skip\""), &["SELECT 1"]);
    scenario.run(&["runs"]).succeeded();
    // The runs of each database, the newest last; `running` has no end.
    for (name, runs) in [
        ("t_well", &["succeeded"][..]),
        ("t_again", &["succeeded", "running"]),
        ("t_failed", &["succeeded", "failed", "running"]),
        ("t_skipped", &["failed", "skipped", "cancelled", "running"]),
        ("t_late", &["long ago", "running"]),
        ("t_new", &["running"]),
        ("alone", &["succeeded", "failed", "running"]),
    ] {
        let (job, database) = if name == "alone" { ("alone", "app".to_owned()) } else { ("nightly", format!("main.{name}")) };
        if name != "alone" {
            fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
        }
        let known = "now() - interval '3 days'";
        server(18)
            .sql(&ledger, &format!("INSERT INTO pgtend.schedules VALUES ('{job}', '{database}', '{schedule} UTC', {known})"));
        for run in runs {
            let (at, outcome, beat) = match *run {
                "running" => ("now()", "NULL".to_owned(), "now() + interval '1 h'"),
                "long ago" => ("now() - interval '2 days'", "'succeeded'".to_owned(), "now()"),
                outcome => ("now() - interval '10 min'", format!("'{outcome}'"), "now()"),
            };
            let ended = if *run == "running" { "NULL" } else { at };
            server(18).sql(
                &ledger,
                &format!(
                    "INSERT INTO pgtend.runs (job, database, task, trigger, started_at, locked_at, heartbeat_at, finished_at, outcome, host, pid, version)
                     VALUES ('{job}', '{database}', 'backup', 'schedule', {at}, {at}, {beat}, {ended}, {outcome}, 'db1', 7, '0')"
                ),
            );
        }
    }
    let said = "2 of 6 well, 2 failed, 2 late";
    scenario.run(&["jobs"]).succeeded().prints(&[said, "running; failed before"]);
    scenario.run(&["jobs", "--all"]).succeeded().prints(&["running; failed before"]);
    let jobs = scenario.json(&["jobs"]);
    assert_eq!(
        (&jobs["jobs"][0]["job"], &jobs["jobs"][0]["last"][0]["failed_before"]),
        (&"alone".into(), &true.into()),
        "{jobs:#}"
    );
    let serving = Serving::ready(&scenario, "");
    eventually("the page counts them", || {
        let fleet = serving.json("/api/jobs")["fleets"][0].clone();
        (fleet["well"] == 2 && fleet["failed"] == 2) && fleet["late"] == 2
    });
    eventually("the page says it", || serving.get("/").body.contains(">2 well<"));
    let page = serving.get("/").body;
    assert!(page.contains("2 jobs need attention on 5 databases"), "{page}");
    let alone = scenario.run(&[]).succeeded();
    // No store has a set of those that are well by the ledger.
    let judged = "0 of 6 well, 2 failed, 2 late, 2 without a backup that counts";
    assert!(alone.stdout.contains(judged) && alone.stdout.contains("Failed last:\n  alone on app"), "{}", alone.stdout);
    scenario.run(&["notify", "digest"]).succeeded().prints(&[judged, "alone on app, run"]);
}

#[test]
fn a_server_that_does_not_answer_keeps_its_databases() {
    let mut fleet = Server::start(18);
    let (scenario, _) = with_ledger(server(18));
    for number in 1..=3 {
        fleet.sql("postgres", &format!("CREATE DATABASE tenant_{number}"));
    }
    let scenario = scenario
        .config(&of_server(&fleet, "main", "exclude = [\"postgres\"]"))
        .job("yearly", &job_on("[\"tenant_*\"]", "schedule = \"0 0 1 1 *\"", &["SELECT 1"]));
    let mut serving = Serving::ready(&scenario, "");
    let count = |serving: &Serving| serving.json("/api/jobs")["fleets"][0]["databases"].as_u64().unwrap();
    eventually("all are found", || count(&serving) == 3);

    fleet.crash();
    serving.logs("server `main` does not answer, and keeps the databases that it had");
    assert_eq!(count(&serving), 3);
    // Also in a process that never had an answer.
    assert_eq!(serving.terminate(), Some(0));
    let serving = Serving::ready(&scenario, "");
    serving.logs("keeps the databases that it had at 2");
    assert_eq!(count(&serving), 3);
    let listed = scenario.run(&["jobs"]).succeeded().prints(&["tenant_*: 3 databases"]);
    assert!(listed.stderr.contains("the 3 databases that it had at 2"), "{}", listed.stderr);
    scenario.run(&["run-job", "yearly@tenant_2"]).exited(69).says(&["yearly on main.tenant_2"]);
    assert!(!serving.log().contains("went"), "{}", serving.log());

    fleet.start_again();
    serving.logs("server `main` answers");
    assert_eq!(count(&serving), 3);
}

#[test]
fn a_server_of_which_nothing_is_known_is_no_server_without_databases() {
    let (scenario, _) = with_ledger(server(18));
    let scenario = scenario
        .config("[servers.away]\nurl = \"postgres://nobody@127.0.0.1:1/postgres\"\n")
        .job("nightly", &job_on("\"*_of_nobody\"", "", &["SELECT 1"]));
    scenario.run(&["run-job", "nightly"]).exited(69).says(&["which databases server `away` has is not known"]);
    // What is known runs, and the exit code tells that this is not all.
    let scenario = scenario.job("all", &job_on("\"*\"", "", &["SELECT 1"]));
    let all = scenario.run(&["run-job", "all"]).exited(69).says(&["which databases server `away` has is not known"]);
    all.prints(&["all on app: succeeded"]);
    scenario.run(&["check", "--connect"]).exited(69).prints(&["FAILED", "server away"]);
    scenario.run(&["check"]).succeeded();
}

#[test]
fn hostile_names_of_databases_are_backed_up_each_in_a_folder_of_its_own() {
    let fleet = Server::start(18);
    let names = [
        "a/b",
        "a%2Fb",
        "a.2Fb",
        "..",
        ".",
        "quo\"te'",
        "new\nline",
        "a@b",
        "über",
        "-o",
        "dbname=postgres host=x",
        "postgres://h/d",
        " ",
        "$(id)",
        "\u{202e}gpj",
        "UPPER",
        "upper",
        "€€€€€€€€€€€€€€€€€€€€€",
    ];
    for name in names {
        fleet.sql("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")));
        fleet.sql(name, "CREATE TABLE me AS SELECT current_database()::text AS name");
    }
    let scenario = Scenario::with_database(&fleet, "postgres")
        .config(&of_server(&fleet, "main", "exclude = \"postgres\""))
        .job("nightly", "databases = \"main.*\"\n[backup]\nstore = \"local\"\nkeep = { last = 2 }\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let sets = scenario.json(&["backups", "list"]);
    let sets = sets["sets"].as_array().unwrap();
    assert_eq!(sets.len(), names.len(), "{sets:?}");
    for folder in std::fs::read_dir(scenario.path("store")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("main.") || name.starts_with('.'), "{name}");
    }
    // Each set is of its own database, and one instance is addressed by its name.
    for name in ["a/b", "a%2Fb", "..", "new\nline", "upper", "€€€€€€€€€€€€€€€€€€€€€"] {
        let known = format!("main.{}", plain(name));
        scenario.run(&["run-job", &format!("nightly@{known}")]).succeeded().prints(&[&known]);
        let target = fleet.empty_database();
        let restore = ["backups", "restore", "latest", "--database", &known, "--into", &fleet.url(&target)];
        scenario.run(&restore).succeeded();
        let found = fleet.sql(&target, "SELECT encode(convert_to(name, 'UTF8'), 'hex') FROM me");
        assert_eq!(found, hex::encode(name), "{known}");
    }
}

/// The name of a database as part of the one by which it is known.
fn plain(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!(".{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

#[test]
fn what_nobody_can_work_on_is_left_out_with_its_reason_and_an_entry_counts_for_its_database() {
    let fleet = Server::start(18);
    for name in ["tenant_1", "tenant_2", "tenant_closed", "tenant_mould", "tenant_secret"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    fleet.sql("postgres", "ALTER DATABASE tenant_closed WITH ALLOW_CONNECTIONS false");
    fleet.sql("postgres", "ALTER DATABASE tenant_mould WITH IS_TEMPLATE true");
    fleet.sql("postgres", "REVOKE CONNECT ON DATABASE tenant_secret FROM PUBLIC; CREATE ROLE tender LOGIN");
    let scenario = Scenario::with_url(&fleet, &fleet.url_as("tender", "tenant_2"))
        .config(&format!("[servers.main]\nurl = {}\n", quoted(&fleet.url_as("tender", "postgres"))))
        .job("look", &job_on("\"tenant_*\"", "", &["SELECT 1"]));
    scenario.run(&["check", "--connect"]).succeeded().prints(&[
        "3 of 3 databases count",
        "tenant_closed is left out: it takes no connections",
        "tenant_mould is left out: it is a template",
        "tenant_secret is left out: the role may not connect to it",
        "main.tenant_2 is [databases.app]",
        "tenant_*: 2 databases",
    ]);
    assert_eq!(databases_of(&scenario.json(&["jobs"]), "look"), ["app", "main.tenant_1"]);
    let runs = scenario.json(&["run-job", "look"]);
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2, "{runs}");
}

#[test]
fn a_job_runs_on_all_of_its_databases_or_on_one_and_one_that_fails_gives_the_exit_code() {
    let fleet = Server::start(18);
    for name in ["tenant_1", "tenant_2", "tenant_3"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    fleet.sql("tenant_2", "CREATE TABLE taken ()");
    let twin = Server::start(18);
    twin.sql("postgres", "CREATE DATABASE tenant_1");
    let scenario = Scenario::with_database(&fleet, "postgres")
        .config(&of_server(&fleet, "main", "databases = \"tenant_*\""))
        .config(&of_server(&twin, "twin", "include = [\"tenant_1\"]"))
        .job("make", &job_on("[\"main.*\"]", "", &["CREATE TABLE taken ()"]))
        .job("twice", &job_on("[\"*.tenant_?\"]", "", &["SELECT 1"]));
    let all = scenario.run(&["run-job", "make"]).exited(1);
    assert!(all.stderr.contains("make on main.tenant_2: failed"), "{}", all.stderr);
    all.prints(&["make on main.tenant_1: succeeded", "make on main.tenant_3: succeeded"]);
    fleet.sql("tenant_3", "DROP TABLE taken");
    scenario.run(&["run-job", "make@tenant_3"]).succeeded().prints(&["make on main.tenant_3"]);
    scenario.run(&["run-job", "make", "--database", "main.tenant_2"]).exited(1);
    scenario.run(&["run-job", "twice@tenant_1"]).exited(78).says(&["several servers", "main.tenant_1, twin.tenant_1"]);
    scenario.run(&["run-job", "twice@twin.tenant_1"]).succeeded();
    scenario.run(&["run-job", "make@nobody"]).exited(78).says(&["does not run on `nobody`", "main.tenant_1, main.tenant_2"]);
    scenario.run(&["run-job", "make@tenant_1", "--database", "x"]).exited(78).says(&["named twice"]);
    // A name that only a restore needs is resolved without any list.
    scenario.run(&["backups", "list", "--database", "main.tenant_1"]);
}

#[test]
fn metrics_and_page_have_one_line_for_a_job_however_many_databases_it_has() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for number in 1..=30 {
        fleet.sql("postgres", &format!("CREATE DATABASE tenant_{number}"));
    }
    fleet.sql("tenant_7", "CREATE TABLE broken ()");
    let statement = "DO $$ BEGIN IF to_regclass('broken') IS NOT NULL THEN RAISE 'it is broken'; END IF; END $$";
    let tick = (Utc::now() + TimeDelta::seconds(12)).format("%-S %-M %-H %-d %-m *");
    let keys = format!("schedule = \"{tick}\"");
    let scenario = scenario
        .config(&of_server(&fleet, "main", "max_concurrent = 3"))
        .job("once", &job_on("\"tenant_*\"", &keys, &[statement, "SELECT pg_sleep(0.2)"]));
    let serving = Serving::ready(&scenario, "max_concurrent = 20");
    reaches(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", 29);
    becomes(server(18), &ledger, "SELECT count(*) >= 1 FROM pgtend.runs WHERE outcome = 'failed'", "t");
    let metric = |state: &str| serving.metric(&format!("pgtend_fleet_databases{{job=\"once\",state=\"{state}\"}}"));
    eventually("the metrics know all of them", || metric("well") == Some(29.0) && metric("failed") == Some(1.0));
    let metrics = serving.get("/metrics").body;
    assert!(!metrics.contains("tenant_7"), "one set of series for all: {metrics}");
    assert!(serving.metric("pgtend_job_runs_total{job=\"once\",database=\"tenant_*\",outcome=\"succeeded\"}") >= Some(29.0));
    eventually("the page knows all of them", || serving.json("/api/jobs")["fleets"][0]["failed"] == 1);
    let page = serving.get("/").body;
    assert!(page.contains("29 well") && page.contains("1 failed") && page.contains("main.tenant_7"), "{page}");
    assert!(!page.contains("main.tenant_8"), "those that are well are counted alone");
    // Never more at once than the server allows, though the process could run 20.
    assert!(at_once(&ledger) <= 3, "{}", history(server(18), &ledger));
}

/// The most runs that were under way in one moment.
fn at_once(ledger: &str) -> u64 {
    let most = "SELECT max((SELECT count(*) FROM pgtend.runs b WHERE b.locked_at <= a.locked_at AND b.finished_at > a.locked_at))
                FROM pgtend.runs a";
    asked(server(18), ledger, most).parse().unwrap()
}

#[test]
fn run_job_works_on_as_many_databases_at_once_as_their_server_allows() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for number in 1..=9 {
        fleet.sql("postgres", &format!("CREATE DATABASE tenant_{number}"));
    }
    let scenario = scenario
        .config(&of_server(&fleet, "main", "max_concurrent = 3"))
        .job("slow", &job_on("\"tenant_*\"", "", &["SELECT pg_sleep(1.5)"]));
    scenario.run(&["run-job", "slow"]).succeeded();
    assert_eq!(asked(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'"), "9");
    let most = at_once(&ledger);
    assert!((2..=3).contains(&most), "{most}: {}", history(server(18), &ledger));
}

#[test]
fn the_example_of_the_guide_has_no_mistakes_and_runs() {
    let fleet = Server::start(18);
    for name in ["pgtend", "tenant_7", "tenant_8_test", "other"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/howto/fleet.md")).unwrap();
    let blocks: Vec<&str> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [config, job, of_schemas] = blocks[..] else { panic!("{blocks:?}") };
    let mut config = config.to_owned();
    for database in ["postgres", "pgtend"] {
        config = config.replace(&format!("postgres://pgtend@db1.example.com/{database}"), &fleet.url(database));
    }
    let tools = format!("[tools]\nbin_dir = {}\n", quoted(&fleet.bin_dir.display().to_string()));
    let scenario = Scenario::empty()
        .config(&config)
        .config(&tools)
        .config("[stores.offsite]\npath = \"store\"\n")
        .config(&format!("[databases.app]\nurl = {}\n", quoted(&fleet.url("other"))))
        .job("tenants-nightly", job);
    fleet.sql("other", "CREATE SCHEMA tenant_a; CREATE TABLE tenant_a.t AS SELECT 1; CREATE SCHEMA more");
    scenario.run(&["check"]).succeeded().prints(&["no mistakes"]);
    scenario.run(&["check", "--connect"]).succeeded().prints(&["1 of 5 databases count", "tenant_*: 1 database"]);
    scenario.run(&["run-job", "tenants-nightly"]).succeeded().prints(&["tenants-nightly on main.tenant_7: succeeded"]);
    scenario.run(&["run-job", "tenants-nightly@tenant_7"]).succeeded();
    assert_eq!(scenario.sets().len(), 2);
    scenario.run(&["backups", "list", "--database", "main.tenant_7"]).succeeded().prints(&["tenants-nightly"]);
    let scenario = scenario.job("tenants-schemas", of_schemas);
    scenario.run(&["run-job", "tenants-schemas"]).succeeded().prints(&["tenants-schemas on app:tenant_a: succeeded"]);
    scenario.run(&["backups", "require", "--database", "app:tenant_a", "--within", "1d"]).succeeded();
    // No database stays away from an overview because it has no entry.
    scenario.run(&[]).succeeded().prints(&["1 server", "tenants-nightly on tenant_*: 1 of 1 well"]);
    scenario
        .run(&["notify", "digest"])
        .succeeded()
        .prints(&["2 of 4 databases and schemas NOT safe", "tenants-nightly on tenant_*: 1 of 1 well"]);
}

#[test]
fn patterns_that_can_match_nothing_and_names_that_would_be_ambiguous_are_told() {
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n")
        .job("nightly", &job_on("\"tenant_*\"", "", &["SELECT 1"]));
    scenario.run(&["check"]).succeeded().prints(&["nightly: databases = \"tenant_*\" matches no [databases.NAME]"]);
    let scenario = scenario.config("[servers.main]\nurl = \"postgres://nobody@127.0.0.1:1/postgres\"\n");
    let checked = scenario.run(&["check"]).succeeded();
    assert!(!checked.stdout.contains("matches no"), "{}", checked.stdout);
    let scenario = scenario.config("[databases.\"main.app\"]\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n");
    scenario.run(&["check"]).exited(78).says(&["has a name that a database of its server may have"]);
    for (wrong, said) in [
        ("[servers.\"a.b\"]\nurl = \"postgres://h/d\"\n", "cannot be a server's name"),
        ("[servers.a]\nurl = \"postgres://h/d\"\nmax_concurrent = 0\n", "`max_concurrent = 0` is out of range"),
        ("[servers.a]\nurl = \"postgres://h/d\"\nmax_sessions = 3\n", "`max_sessions = 3` is out of range"),
        ("[servers.a]\nurl = \"postgres://h/d\"\ninclude = []\n", "a list of patterns is empty"),
        ("[servers.a]\nurl = \"postgres://h/d\"\nowner_url = \"postgres://o@h/d\"\n", "give that an entry of its own"),
        ("[servers.a]\nhost = \"h\"\n", "is a part of the URL"),
    ] {
        Scenario::empty().config(wrong).run(&["check"]).exited(78).says(&[said]);
    }
}
