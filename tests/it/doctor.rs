//! `doctor` finds what is in the way of a run; `logs` and `runs --follow` show runs.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Stdio;

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::{Scenario, quoted};

fn findings(scenario: &Scenario, code: i32) -> Vec<(String, String, String)> {
    let output = scenario.run(&["doctor", "--json"]).exited(code);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let rows = json["findings"].as_array().unwrap().iter();
    rows.map(|finding| (text(finding, "state"), text(finding, "what"), text(finding, "said"))).collect()
}

#[track_caller]
fn has(findings: &[(String, String, String)], state: &str, what: &str, said: &str) {
    let found = findings.iter().any(|(one, about, text)| one == state && about == what && text.contains(said));
    assert!(found, "{state} {what}: {said} is not in {findings:#?}");
}

#[test]
fn doctor_finds_nothing_where_a_proved_backup_was_made_and_all_is_private() {
    let server = server(18);
    let database = server.trusted_database();
    let job = "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\n";
    let scenario = Scenario::with_database(server, &database).ledger().job("nightly", job);
    scenario.run(&["run-job", "nightly"]).succeeded();
    for file in ["config.toml", "jobs/nightly.toml"] {
        fs::set_permissions(scenario.path(file), Permissions::from_mode(0o644)).unwrap();
    }
    let found = findings(&scenario, 0);
    for (what, said) in [
        ("database app", "PostgreSQL 18"),
        ("versions for PostgreSQL 18", "pg_dump (PostgreSQL) 18"),
        ("room in store local", "are free in"),
        ("files", "nobody else may change what pgtend relies on"),
        ("jobs", "every database has a proved backup"),
        ("ledger", "is in place"),
    ] {
        has(&found, "ok", what, said);
    }
    assert!(found.iter().all(|(state, ..)| state == "ok"), "{found:#?}");
    scenario.run(&["doctor"]).succeeded().prints(&["All is well."]);
}

#[test]
fn doctor_says_what_is_in_the_way_and_puts_it_first() {
    let mut own = Server::start(15);
    own.sql("postgres", "CREATE DATABASE app");
    let scenario = Scenario::with_database(&own, "app").ledger().backup_job("local", "");
    fs::set_permissions(scenario.path("jobs/nightly.toml"), Permissions::from_mode(0o666)).unwrap();
    let found = findings(&scenario, 0);
    has(&found, "warning", "files", "chmod o-w");
    has(&found, "warning", "backup of app", "none yet; its job nightly has no schedule: pgtend run-job nightly");
    scenario.run(&["run-job", "nightly"]).succeeded();
    fs::set_permissions(scenario.path("store"), Permissions::from_mode(0o755)).unwrap();
    let scenario = scenario.sql_job("breaks", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "breaks"]).exited(1);
    let found = findings(&scenario, 0);
    has(&found, "warning", "store local", "chmod 700");
    has(&found, "warning", "job breaks", "division by zero");
    own.crash();
    let found = findings(&scenario, 69);
    assert_eq!(found[0].0, "failed", "{found:#?}");
    has(&found, "failed", "database app", "cannot connect");
    scenario.run(&["doctor"]).exited(69).prints(&["in the way of a run: begin at the top."]);
    // Mistakes in files are those of `check`.
    scenario.job("mistaken", "x = 1").run(&["doctor"]).exited(78).says(&["unknown key `x`"]);
}

#[test]
fn doctor_names_a_password_that_others_may_read_and_not_the_password() {
    let server = server(18);
    let database = server.trusted_database();
    let url = server.url(&database).replace("postgres@", "postgres:hunter2@");
    let scenario = Scenario::with_url(server, &url);
    fs::set_permissions(scenario.path("config.toml"), Permissions::from_mode(0o644)).unwrap();
    let found = findings(&scenario, 0);
    has(&found, "warning", "files", "holds a password and others may read it");
    assert!(!format!("{found:?}").contains("hunter2"));
    fs::set_permissions(scenario.path("config.toml"), Permissions::from_mode(0o600)).unwrap();
    assert!(!findings(&scenario, 0).iter().any(|(_, _, said)| said.contains("holds a password")));
}

/// What `doctor` warns of about files.
fn about_files(scenario: &Scenario) -> Vec<String> {
    let found = findings(scenario, 0);
    found.into_iter().filter(|(state, what, _)| state == "warning" && what == "files").map(|(_, _, said)| said).collect()
}

#[test]
fn doctor_names_each_file_and_folder_that_others_may_change_or_read() {
    let server = server(18);
    let database = server.trusted_database();
    let mode = |path: &std::path::Path, mode: u32| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl_file = \"secrets/url\"\n[databases.other]\nurl = \"postgres://?service=other\"\n")
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())))
        .config("[stores.local]\npath = \"store\"\nsign_key_file = \"secrets/key\"\n");
    let services = scenario.path("services");
    let scenario = scenario.env("PGSERVICEFILE", &services.display().to_string()).backup_job("local", "");
    fs::create_dir(scenario.path("secrets")).unwrap();
    fs::write(scenario.path("secrets/url"), server.url(&database)).unwrap();
    fs::write(scenario.path("secrets/key"), "k".repeat(40)).unwrap();
    fs::write(scenario.path(".pgpass"), "nowhere:1:a:b:c\n").unwrap();
    let port = server.sql("postgres", "SHOW port");
    let service = |more: &str| {
        let text = format!("[other]\nhost={}\nport={port}\nuser=postgres\ndbname={database}\n{more}", server.socket().display());
        fs::write(&services, text).unwrap();
    };
    service("");
    let usual = [
        ("config.toml", 0o644),
        ("jobs", 0o755),
        ("jobs/nightly.toml", 0o644),
        ("secrets", 0o755),
        ("secrets/url", 0o600),
        ("secrets/key", 0o600),
        (".pgpass", 0o600),
        ("services", 0o644),
        ("", 0o755),
    ];
    let set_usual = || usual.iter().for_each(|(path, usual)| mode(&scenario.path(path), *usual));
    set_usual();
    assert_eq!(about_files(&scenario), Vec::<String>::new());
    let said = findings(&scenario, 0).into_iter().find(|(state, what, _)| state == "ok" && what == "files").unwrap().2;
    assert!(said.contains("(7 files") && said.contains("(3 of them)") && said.contains("Access lists"), "{said}");
    let root = scenario.path("");
    let root = root.to_str().unwrap().trim_end_matches('/');
    for (path, open, says) in [
        ("config.toml", 0o646, &["others may write to it: chmod o-w", "config.toml"][..]),
        ("jobs", 0o757, &["pgtend relies on jobs, and others may write to it: chmod o-w jobs"]),
        // Nobody else's file can be replaced there, and another job can be added.
        ("jobs", 0o1757, &["relies on jobs, and others may write to it: chmod o-w jobs"]),
        ("secrets", 0o757, &["/secrets: others may write to it, and so replace", "secrets/url and 1 more: chmod o-w"]),
        ("secrets/url", 0o604, &["secrets/url (`url_file` of database `app`) holds a secret, and others may read it: chmod 600"]),
        ("secrets/key", 0o606, &["`sign_key_file` of store `local`", "others may read and write it: chmod 600"]),
        (".pgpass", 0o640, &[".pgpass is not used for passwords", "may read it: chmod 600"]),
        ("services", 0o646, &["services (libpq's servicefile), and others may write to it: chmod o-w"]),
        ("", 0o757, &["others may write to it, and so replace", &format!("chmod o-w {root}")]),
    ] {
        mode(&scenario.path(path), open);
        let said = about_files(&scenario);
        assert!(said.iter().any(|said| says.iter().all(|part| said.contains(part))), "{path} {open:o}: {said:#?}");
        set_usual();
    }
    // One with a password is a secret.
    service("password=hunter2\n");
    let said = about_files(&scenario);
    assert!(
        said.len() == 1 && said[0].contains("services (libpq's servicefile) holds a secret, and others may read it"),
        "{said:#?}"
    );
    mode(&services, 0o600);
    assert_eq!(about_files(&scenario), Vec::<String>::new());
}

#[test]
fn doctor_takes_a_group_for_what_it_may_do() {
    // Only root gives files away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = server(18);
    let database = server.trusted_database();
    let url = server.url(&database).replace("postgres@", "postgres:hunter2@");
    let scenario = Scenario::with_url(server, &url).backup_job("local", "");
    // Who is in a group that this system does not know, nobody knows.
    const UNKNOWN_GROUP: u32 = 54_321;
    let config = scenario.path("config.toml");
    chown(&config, None, Some(UNKNOWN_GROUP)).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o660)).unwrap();
    let said = about_files(&scenario);
    let parts = ["config.toml holds a password and its group 54321 may write to it", "or chmod 640 config.toml"];
    assert!(said.len() == 1 && parts.iter().all(|part| said[0].contains(part)), "{said:#?}");
    // As packages have it: of root, and readable for the group of the service.
    fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(about_files(&scenario), Vec::<String>::new());
    // One that the user's own group may write is no finding: with a umask of 002, all are so.
    chown(&config, None, Some(0)).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o660)).unwrap();
    assert_eq!(about_files(&scenario), Vec::<String>::new());
}

/// Takes connections and says nothing, until so many are open at once; then it ends them all, and every later one.
fn silent_until(count: usize) -> (u16, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (all_came, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        for connection in listener.incoming() {
            open.push(connection.unwrap());
            open.retain_mut(is_open);
            if open.len() == count {
                open.clear();
                let _ = all_came.send(());
                drop(listener);
                return;
            }
        }
    });
    (port, came)
}

/// Returns whether the other end of a connection has not gone, whatever it has said.
fn is_open(connection: &mut TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    loop {
        match connection.read(&mut [0; 1024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn databases_that_never_answer_are_waited_for_side_by_side_and_said_in_order() {
    for command in [&["check", "--connect"][..], &["doctor"]] {
        const DATABASES: usize = 5;
        let (port, all_came) = silent_until(DATABASES);
        let databases: String = (0..DATABASES)
            .map(|number| {
                format!("[databases.d{number}]\nurl = 'postgres://nobody@127.0.0.1:{port}/d{number}?sslmode=disable'\n")
            })
            .collect();
        let scenario = Scenario::empty().config(&format!("{databases}[stores.local]\npath = 'store'\n"));
        let output = scenario.run(&[command, &["--json"]].concat()).exited(69);
        all_came.try_recv().expect("they were not asked side by side");
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        let rows = json["connections"].as_array().or(json["findings"].as_array()).unwrap();
        let named =
            rows.iter().filter_map(|row| row["what"].as_str()?.strip_prefix("database ")).filter(|name| !name.contains(':'));
        assert_eq!(named.collect::<Vec<_>>(), ["d0", "d1", "d2", "d3", "d4"], "{json:#}");
    }
}

#[test]
fn logs_print_what_a_run_said_and_follow_waits_for_its_end() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database).ledger().sql_job("breaks", "", &["SELECT 1/0"]).sql_job(
        "waits",
        "",
        &["SELECT pg_advisory_xact_lock(7)"],
    );
    scenario.run(&["run-job", "breaks"]).exited(1);
    let run = scenario.runs(&[])[0]["id"].to_string();
    scenario.run(&["logs", &run]).succeeded().prints(&["breaks on app: failed", "error:", "division by zero"]);
    assert!(scenario.json(&["logs", &run])["error"].as_str().unwrap().contains("division by zero"));
    scenario.run(&["logs", "abc"]).exited(64).says(&["a run has a number"]);
    scenario.run(&["runs", "--limit", "abc"]).exited(64).says(&["from 1 to 10000"]);
    scenario.run(&["logs", "4711"]).exited(1).says(&["has no run 4711"]);
    // One under way ends, and so does the wait for it.
    let holder = server.session(&database, "SELECT pg_advisory_lock(7)");
    let under_way = scenario.start(&["run-job", "waits"]);
    crate::support::eventually("the run is there", || scenario.runs(&[]).len() == 2);
    let run = scenario.runs(&[])[1]["id"].to_string();
    scenario.run(&["logs", &run]).succeeded().prints(&["it is under way"]);
    let waiting = scenario.start(&["logs", &run, "--follow"]);
    holder.ends_with("SELECT pg_advisory_unlock(7)");
    waiting.wait().succeeded().prints(&["waits on app: succeeded"]);
    under_way.wait().succeeded();
}

#[test]
fn logs_print_what_a_thread_of_the_run_logged() {
    let server = server(18);
    let database = server.trusted_database();
    // The thread that reads the dump logs how far it is, 15 s after the step began.
    let scenario = Scenario::with_tool(server, &database, "pg_dump", "sleep 16; exec \"$real\" \"$@\"").ledger();
    let scenario = scenario.backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded().says(&["running: "]);
    let run = scenario.runs(&[])[0]["id"].to_string();
    scenario.run(&["logs", &run]).succeeded().prints(&["what it logged:", " INFO started phase=dump", " INFO running: "]);
    let lines = scenario.json(&["logs", &run])["lines"].clone();
    let of_the_thread = |line: &&Value| {
        let text = line["text"].as_str().unwrap();
        text.starts_with("running: ") && text.contains(" phase=dump ")
    };
    assert!(lines.as_array().unwrap().iter().any(|line| of_the_thread(&line)), "{lines:#}");
}

#[test]
fn runs_that_are_followed_are_told_as_they_start_and_end() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("stats", "", &["SELECT 1"])
        .sql_job("breaks", "", &["SELECT 1/0"])
        .sql_job("waits", "", &["SELECT pg_advisory_xact_lock(8)"]);
    scenario.run(&["run-job", "stats"]).succeeded();
    let mut follow = scenario.command(&["runs", "--follow"]);
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("stats on app: succeeded after"));
    scenario.run(&["run-job", "breaks"]).exited(1);
    // It may have started and ended between two looks.
    let told = lines.find(|line| !line.contains(": started (")).unwrap();
    assert!(told.contains("breaks on app: failed after") && told.contains("division by zero"), "{told}");
    // One that is not among the newest any more when it ends.
    let holder = server.session(&database, "SELECT pg_advisory_lock(8)");
    let under_way = scenario.start(&["run-job", "waits"]);
    lines.find(|line| line.contains("waits on app: started (")).unwrap();
    server.sql(
        &database,
        "INSERT INTO pgtend.runs (job, database, task, trigger, started_at, heartbeat_at, finished_at, outcome, host, pid, version)
         SELECT 'many', 'app', 'sql', 'manual', now(), now(), now(), 'succeeded', 'elsewhere', 1, '1' FROM generate_series(1, 501)",
    );
    lines.find(|line| line.contains("many on app: succeeded")).unwrap();
    holder.ends_with("SELECT pg_advisory_unlock(8)");
    under_way.wait().succeeded();
    lines.find(|line| line.contains("waits on app: succeeded after")).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}
