//! Who waits for whom on a server: what one database does, or does not do, stops the runs of no other.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, asked, becomes, history, reaches, with_ledger};
use crate::support::{Scenario, eventually, quoted};

const TOKEN: &str = "a token for those who may act";

fn job_on(patterns: &str, keys: &str, statement: &str) -> String {
    format!("databases = {patterns}\n{keys}\n[sql]\nstatements = [{}]\n", quoted(statement))
}

/// `[servers.main]`, reached by a role that limits of connections are for.
fn limited(fleet: &Server, more: &str) -> String {
    fleet.sql("postgres", "CREATE ROLE tender LOGIN");
    format!("[servers.main]\nurl = {}\ndatabases = \"tenant_*\"\n{more}\n", quoted(&fleet.url_as("tender", "postgres")))
}

#[test]
fn a_database_that_nobody_can_reach_gives_its_turn_back_while_it_waits_for_its_next_attempt() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_a", "tenant_b", "tenant_z"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    fleet.sql("postgres", "ALTER DATABASE tenant_a CONNECTION LIMIT 0; ALTER DATABASE tenant_b CONNECTION LIMIT 0");
    let scenario = scenario
        .config(&limited(&fleet, "max_concurrent = 2"))
        .job("nightly", &job_on("\"tenant_*\"", "schedule = \"* * * * *\"\nretries = 3\nretry_delay = \"1h\"", "SELECT 1"));
    let running = scenario.start(&["run-job", "nightly", "--scheduled"]);
    let done = "SELECT count(*) FROM pgtend.runs WHERE database = 'main.tenant_z' AND outcome = 'succeeded'";
    becomes(server(18), &ledger, done, "1");
    reaches(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'failed' AND retry_at > now()", 2);
    running.kill();
}

#[test]
fn a_retry_comes_behind_all_first_attempts() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_a", "tenant_x", "tenant_y", "tenant_z"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    fleet.sql("postgres", "ALTER DATABASE tenant_a CONNECTION LIMIT 0");
    let scenario = scenario
        .config(&limited(&fleet, "max_concurrent = 1"))
        .job("nightly", &job_on("\"tenant_*\"", "retries = 1\nretry_delay = \"1s\"", "SELECT pg_sleep(1.5)"));
    scenario.run(&["run-job", "nightly"]).exited(69);
    let order = asked(server(18), &ledger, "SELECT string_agg(database || ' ' || attempt, ', ' ORDER BY id) FROM pgtend.runs");
    let expected = "main.tenant_a 1, main.tenant_x 1, main.tenant_y 1, main.tenant_z 1, main.tenant_a 2";
    assert_eq!(order, expected, "{}", history(server(18), &ledger));
}

#[test]
fn a_stranger_who_takes_the_places_of_a_server_in_the_ledgers_database_stops_no_run() {
    let fleet = Server::start(18);
    for name in ["ledger", "tenant_1", "tenant_2"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    fleet.sql("postgres", "CREATE ROLE mallory LOGIN; CREATE ROLE runner LOGIN");
    let scenario = Scenario::with_database(&fleet, "ledger")
        .ledger()
        .config(&limited(&fleet, "max_concurrent = 2"))
        .job("nightly", &job_on("\"tenant_*\"", "", "SELECT 1"));
    scenario.run(&["run-job", "nightly"]).succeeded();
    let locks =
        "SELECT pg_advisory_lock(hashtextextended('pgtend place group server main/' || n, 0)) FROM generate_series(1, 2) n";
    let holding = |role: &str| {
        let mut psql = fleet.tool("psql", "ledger");
        let mut psql = psql.env("PGUSER", role).args(["-XqAt"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        psql.stdin.as_mut().unwrap().write_all(format!("{locks};\n").as_bytes()).unwrap();
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
        eventually("both are taken", || fleet.sql("ledger", held) == "2");
        psql
    };
    let mut mallory = holding("mallory");
    let run = scenario.run(&["run-job", "nightly"]).succeeded();
    run.says(&["does not wait for a place", "of role mallory"]).prints(&["nightly on main.tenant_1: succeeded", "main.tenant_2"]);
    scenario
        .run(&["check", "--connect"])
        .succeeded()
        .prints(&["mallory and", "may connect to its database without being runners"]);
    drop(mallory.stdin.take());
    mallory.wait().unwrap();
    // A runner with another login is one that may write runs: its places count.
    fleet.sql("ledger", "GRANT USAGE ON SCHEMA pgtend TO runner; GRANT INSERT ON pgtend.runs TO runner");
    let free = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    eventually("the places are free", || fleet.sql("ledger", free) == "0");
    let mut other = holding("runner");
    let waiting = scenario.start(&["run-job", "nightly@tenant_1"]);
    // What it asks when all places are taken, and before it says that it waits.
    let asks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%a prepared transaction%' AND pid <> pg_backend_pid()";
    eventually("it waits", || fleet.sql("ledger", asks) == "1");
    drop(other.stdin.take());
    other.wait().unwrap();
    waiting.wait().succeeded().says(&["waits until fewer than 2 run"]);
    fleet.sql("postgres", "REVOKE CONNECT ON DATABASE ledger FROM PUBLIC");
    let checked = scenario.run(&["check", "--connect"]).succeeded();
    assert!(!checked.stdout.contains("without being runners"), "{}", checked.stdout);
}

#[test]
fn one_server_under_two_names_is_a_mistake_and_one_database_never_has_two_runs_of_a_job() {
    let fleet = Server::start(18);
    fleet.sql("postgres", "CREATE DATABASE tenant_1");
    let url = fleet.url("postgres");
    let servers = |second: &str| format!("[servers.main]\nurl = {}\n[servers.other]\nurl = {}\n", quoted(&url), quoted(second));
    let look = job_on("\"tenant_*\"", "", "SELECT 1");
    let scenario = Scenario::with_database(&fleet, "postgres").config(&servers(&url)).job("look", &look);
    scenario.run(&["check"]).exited(78).says(&["[servers.main] and [servers.other] are one server"]);
    // By another address, only the server tells.
    let link = scenario.path("link");
    std::os::unix::fs::symlink(fleet.socket(), &link).unwrap();
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let by_link = |database: &str| {
        fleet.url(database).replace(&encode(&fleet.socket().display().to_string()), &encode(&link.display().to_string()))
    };
    let scenario = Scenario::with_database(&fleet, "postgres").config(&servers(&by_link("postgres"))).job("look", &look);
    scenario.run(&["check"]).succeeded();
    scenario.run(&["check", "--connect"]).exited(78).prints(&["are one server under two addresses"]);
    let scenario = Scenario::with_url(&fleet, &by_link("tenant_1"))
        .config(&format!("[servers.main]\nurl = {}\n", quoted(&url)))
        .job("look", &look);
    scenario.run(&["check", "--connect"]).succeeded().prints(&["it is also main.tenant_1", "under both names"]);

    let slow = |entry: &str| {
        let entry = format!("[databases.{entry}]\nurl = {}\n", quoted(&fleet.url("tenant_1")));
        let job = "database = \"ENTRY\"\n[sql]\nstatements = [\"SELECT pg_advisory_lock(42)\"]\n";
        (entry, job.to_owned())
    };
    let with = |name: &str| {
        let (entry, job) = slow(name);
        Scenario::with_database(&fleet, "postgres").config(&entry).job("slow", &job.replace("ENTRY", name))
    };
    let (one, two) = (with("one"), with("two"));
    let held = fleet.session("tenant_1", "SELECT pg_advisory_lock(42)");
    let first = one.start(&["run-job", "slow"]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'tenant_1' AND wait_event = 'advisory'";
    eventually("the first is at work", || fleet.sql("postgres", waits) == "1");
    two.run(&["run-job", "slow"]).exited(75).says(&["job `slow` is already running on `two`"]);
    drop(held);
    first.wait().succeeded();
    two.run(&["run-job", "slow"]).succeeded();
}

#[test]
fn a_run_that_waits_for_its_turn_takes_no_slot_from_other_servers() {
    let fleet = Server::start(18);
    let (scenario, ledger) = with_ledger(server(18));
    for name in ["tenant_1", "tenant_2"] {
        fleet.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    let scenario = scenario
        .config(&format!(
            "[servers.main]\nurl = {}\ndatabases = \"tenant_*\"\nmax_concurrent = 1\n",
            quoted(&fleet.url("postgres"))
        ))
        .job("slow", &job_on("\"main.*\"", "", "SELECT pg_advisory_lock(42)"))
        .sql_job("ask", "", &["SELECT 1"]);
    std::fs::write(scenario.path("actions"), format!("{TOKEN}\n")).unwrap();
    let serving = Serving::ready(&scenario, "max_concurrent = 2\nactions_token_file = \"actions\"");
    eventually("its databases are found", || serving.json("/api/jobs")["fleets"][0]["databases"] == 2);
    let run = |job, database| {
        let fields = [("job", job), ("database", database), ("who", "Ann"), ("token", TOKEN)];
        assert_eq!(serving.post("/actions/run", &fields, &[]).status, 303, "{job} on {database}");
    };
    let held = fleet.session("tenant_1", "SELECT pg_advisory_lock(42)");
    run("slow", "main.tenant_1");
    becomes(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE job = 'slow' AND locked_at IS NOT NULL", "1");
    run("slow", "main.tenant_2");
    run("ask", "app");
    becomes(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE job = 'ask' AND outcome = 'succeeded'", "1");
    assert_eq!(asked(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE job = 'slow'"), "1", "the other waits");
    drop(held);
    becomes(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE job = 'slow' AND outcome = 'succeeded'", "2");
}

#[test]
fn clients_that_send_no_form_hold_up_nobody_who_does() {
    let (scenario, ledger) = with_ledger(server(18));
    let scenario = scenario.sql_job("ask", "", &["SELECT 1"]);
    std::fs::write(scenario.path("actions"), format!("{TOKEN}\n")).unwrap();
    let serving = Serving::ready(&scenario, "actions_token_file = \"actions\"");
    let slow = || {
        let mut stream = TcpStream::connect(("127.0.0.1", serving.port)).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(120))).unwrap();
        let head = "POST /actions/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\njob=a";
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut clients: Vec<TcpStream> = (0..20).map(|_| slow()).collect();
    let fields = [("job", "ask"), ("database", "app"), ("who", "Ann"), ("token", TOKEN)];
    assert_eq!(serving.post("/actions/run", &fields, &[]).status, 303);
    becomes(server(18), &ledger, "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'", "1");
    let mut answer = [0; 12];
    clients[0].read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"HTTP/1.1 408", "{}", String::from_utf8_lossy(&answer));
    let long = "x".repeat(20_000);
    assert_eq!(serving.post("/actions/run", &[("job", &long)], &[]).status, 413);
}

#[test]
fn a_job_that_matches_nothing_says_so_and_a_named_database_that_is_not_there_is_a_mistake() {
    let fleet = Server::start(18);
    let scenario = Scenario::with_database(&fleet, "postgres")
        .config(&format!("[servers.main]\nurl = {}\n", quoted(&fleet.url("postgres"))))
        .job("nightly", &job_on("\"tenant_*\"", "schedule = \"* * * * *\"", "SELECT 1"));
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["no database matches tenant_*: nothing to do"]);
    scenario
        .run(&["run-job", "nightly", "--scheduled"])
        .succeeded()
        .says(&["WARN", "no database matches tenant_*: nothing to do"]);
    for named in [&["run-job", "nightly@tenant_1"][..], &["run-job", "nightly", "--database", "main.tenant_1", "--scheduled"]] {
        scenario.run(named).exited(78).says(&["does not run on", "no database matches tenant_*"]);
    }
}

#[test]
fn a_run_on_a_database_that_a_pattern_chose_has_a_timeout_where_its_job_has_none() {
    let scenario = Scenario::empty()
        .config("[servers.main]\nurl = \"postgres://nobody@127.0.0.1:1/postgres\"\n[databases.app]\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n")
        .job("chosen", &job_on("\"main.*\"", "schedule = \"0 2 * * *\"", "SELECT 1"))
        .job("longer", &job_on("\"main.*\"", "timeout = \"9h\"", "SELECT 1"))
        .job("named", &job_on("[\"app\"]", "", "SELECT 1"));
    let jobs = scenario.json(&["jobs"]);
    let timeout = |name: &str| {
        let job = jobs["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).unwrap();
        job["timeout_seconds"].clone()
    };
    assert_eq!((timeout("chosen"), timeout("longer"), timeout("named")), (21600.into(), 32400.into(), serde_json::Value::Null));
    let rendered = scenario.run(&["render", "kubernetes", "--image", "example.org/pgtend:1"]).succeeded();
    assert!(rendered.stdout.contains("chosen") && !rendered.stdout.contains("activeDeadlineSeconds"), "{}", rendered.stdout);
}
