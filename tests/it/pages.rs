//! The pages behind the status page: whether the data are safe, runs, jobs, databases, sets, audits, archives.

use std::collections::BTreeMap;

use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, becomes};
use crate::support::{Scenario, eventually, quoted};

/// A database of 30 rows with a backup job that has run, restored as proof.
fn backed_up(server: &Server) -> (Scenario, String) {
    let database = server.trusted_database();
    server.sql(&database, "CREATE TABLE notes AS SELECT g AS id FROM generate_series(1, 30) g");
    let job = "description = 'every night'\ndatabase = \"app\"\nschedule = \"@yearly\"\n[backup]\nstore = \"local\"\nverify = \"restore\"\nscratch = \"same\"\n";
    let scenario = Scenario::with_database(server, &database).ledger().job("nightly", job);
    scenario.run(&["run-job", "nightly"]).succeeded();
    (scenario, database)
}

fn encoded(set: &str) -> String {
    set.replace('%', "%25").replace('/', "%2F")
}

#[test]
fn whether_the_data_are_safe_is_answered_first_and_as_pgtend_alone_says() {
    let server = server(18);
    let (scenario, _) = backed_up(server);
    let serving = Serving::ready(&scenario, "");
    let newest = |scenario: &Scenario| scenario.json(&[])["databases"][0]["newest"]["set"].as_str().unwrap().to_owned();
    let first = newest(&scenario);
    eventually("the stores were asked", || serving.get("/").body.contains("1 of 1 database is safe"));
    let page = serving.get("/").body;
    for text in [&first, "measured ", "restored on 20", ">local<", "id=\"safe\""] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
    assert!(page.find("id=\"safe\"").unwrap() < page.find("id=\"jobs\"").unwrap(), "{page}");
    // A new backup is known at once, whatever was read a moment ago.
    scenario.run(&["run-job", "nightly"]).succeeded();
    let second = newest(&scenario);
    assert_ne!(first, second);
    eventually("the new set is shown", || serving.get("/").body.contains(&second));
}

#[test]
fn a_database_without_a_backup_is_the_headline() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).ledger().backup_job("local", "");
    let serving = Serving::ready(&scenario, "");
    eventually("it is said", || serving.get("/").body.contains("<h1>1 database is not safe</h1>"));
    let page = serving.get("/").body;
    assert!(page.contains("there is no backup that counts; job nightly makes one"), "{page}");
}

#[test]
fn runs_jobs_databases_and_sets_have_pages_that_say_what_is_known() {
    let server = server(18);
    let (scenario, database) = backed_up(server);
    server.sql(&database, "INSERT INTO notes VALUES (31), (32); CREATE TABLE new (id int)");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let scenario = scenario.sql_job("breaks", "", &["SELECT 1/0"]);
    scenario.run(&["run-job", "breaks"]).exited(1);
    let serving = Serving::ready(&scenario, "");
    let says = |path: &str, texts: &[&str]| {
        let answer = serving.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.headers.contains("content-type: text/html; charset=utf-8"), "{}", answer.headers);
        for text in texts {
            assert!(answer.body.contains(text), "`{text}` is not in {path}: {}", answer.body);
        }
    };
    let runs = scenario.runs(&[]);
    let failed = runs.iter().find(|run| run["job"] == "breaks").unwrap()["id"].as_i64().unwrap();
    says(
        &format!("/runs/{failed}"),
        &[
            "division by zero",
            "<dt>Outcome</dt>",
            ">failed<",
            "pgtend runs show ",
            "<h2 id=\"steps\">",
            "statement 1 of 1: SELECT 1/0",
        ],
    );
    let set = scenario.sets().pop().unwrap();
    let made = runs.iter().find(|run| run["report"]["facts"]["set"] == set.as_str()).unwrap()["id"].as_i64().unwrap();
    says(
        &format!("/runs/{made}"),
        &[
            "What it did",
            "<dt>dump_bytes</dt>",
            "<th scope=\"row\">dump</th>",
            "<h2 id=\"plan\">",
            &format!("/set?name={}", encoded(&set)),
        ],
    );
    says("/job?name=nightly&database=app", &["every night", "@yearly", "Last runs", &format!("href=\"/runs/{made}\"")]);
    says("/database?name=app", &["Sets that were made", &set, "breaks"]);
    let command = format!("pgtend backups restore {set} --into postgres://localhost/");
    let page = format!("/set?name={}", encoded(&set));
    says(&page, &[&command, "--create", "public.notes", "<td class=\"num\">32</td>", "more rows", "intact", ">local<"]);
    says("/runs", &["breaks", "nightly"]);
    says("/runs?job=breaks&outcome=failed", &["division by zero"]);
    assert!(!serving.get("/runs?job=breaks").body.contains("/set?"));
    says("/?q=BREAK", &["1 found", "/job?name=breaks"]);
    // The command does what the page says.
    let into = server.url(&format!("{database}_restored"));
    scenario.run(&["backups", "restore", &set, "--into", &into, "--create"]).succeeded();
    assert_eq!(server.sql(&format!("{database}_restored"), "SELECT count(*) FROM notes"), "32");
    server.sql("postgres", &format!("DROP DATABASE {database}_restored"));
}

#[test]
fn what_is_not_there_has_no_page_and_an_unknown_filter_is_refused() {
    let server = server(18);
    let (scenario, _) = backed_up(server);
    let serving = Serving::ready(&scenario, "");
    for path in [
        "/runs/999999",
        "/job?name=nobody&database=app",
        "/job?name=nightly&database=nowhere",
        "/database?name=nowhere",
        "/set?name=app%2Fnightly%2F2020-01-01T00-00-00Z",
        "/set?name=..%2F..%2Fetc",
        "/audit?job=nightly&database=app",
        "/archive?job=nightly&database=app",
    ] {
        let answer = serving.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.headers.contains("content-security-policy: default-src 'none'; "), "{}", answer.headers);
    }
    for path in
        ["/?what=1", "/?page=x", "/runs?outcome=lost", "/runs?before=x", "/runs?limit=1", "/job?name=nightly", "/database"]
    {
        assert_eq!(serving.get(path).status, 400, "{path}");
    }
    let long = "x".repeat(20_000);
    assert!(serving.get(&format!("/?q={long}")).status < 500);
}

/// Follows every link from the status page on. Returns the pages by their addresses.
fn all_pages(serving: &Serving) -> BTreeMap<String, String> {
    let (mut pages, mut to_visit) = (BTreeMap::new(), vec!["/".to_owned()]);
    while let Some(path) = to_visit.pop().filter(|_| pages.len() < 200) {
        if pages.contains_key(&path) {
            continue;
        }
        let answer = serving.get(&path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        for link in answer.body.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(link.starts_with(['/', '#']) || link.starts_with("data:image/svg+xml"), "{link} on {path}");
            if let Some(address) = link.starts_with('/').then(|| link.split('#').next().unwrap()) {
                to_visit.push(address.replace("&amp;", "&"));
            }
        }
        pages.insert(path, answer.body);
    }
    pages
}

#[test]
fn every_link_leads_to_a_page_and_hostile_names_are_text_on_each_and_no_password_is_on_any() {
    let hostile = r#"../"><script>alert(1)</script><img src=x onerror="alert(2)"> & 'q' %2F"#;
    let (server, name) = (server(18), serde_json::to_string(hostile).unwrap());
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE SCHEMA \"<img src=x>\"; CREATE TABLE \"<img src=x>\".\"<script>alert(3)</script>\" (\"<b>\" int); CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz);
         INSERT INTO logs (at) SELECT now() - make_interval(days => g) FROM generate_series(1, 40) g; CREATE INDEX ON logs (at)",
    );
    let url = server.url(&database).replace("postgres://postgres@", "postgres://postgres:the-password@");
    let of = |task: &str| format!("database = {name}\ndescription = {name}\n{task}\n");
    let scenario = Scenario::empty()
        .config(&format!(
            "[databases.{name}]\nurl = {}\n[ledger]\ndatabase = {name}\n[stores.local]\npath = \"store\"\n",
            quoted(&url)
        ))
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())))
        .job("nightly", &of("schedule = \"@yearly\"\n[backup]\nstore = \"local\""))
        .job("look", &of("[audit]\nstore = \"local\"\nfail_on = \"never\""))
        .job("old-logs", &of("[retention]\ntable = \"public.logs\"\ncolumn = \"at\"\nolder_than = \"30d\"\narchive = \"local\""))
        .job("breaks", &of("[sql]\nstatements = [\"DO $$ BEGIN RAISE EXCEPTION '<script>alert(4)</script>'; END $$\"]"));
    for job in ["nightly", "look", "old-logs"] {
        scenario.run(&["run-job", job]).succeeded();
    }
    scenario.run(&["run-job", "breaks"]).exited(1);
    let serving = Serving::ready(&scenario, "");
    eventually("the stores were asked", || serving.get("/").body.contains("1 of 1 database is safe"));

    let pages = all_pages(&serving);
    for kind in ["/job?", "/database?", "/runs/", "/set?", "/audit?", "/archive?"] {
        assert!(pages.keys().any(|path| path.starts_with(kind)), "{kind} in {:?}", pages.keys());
    }
    for (path, page) in &pages {
        for forbidden in ["<script", "<img", " onerror=\"", "the-password"] {
            assert!(!page.contains(forbidden), "{forbidden} on {path}: {page}");
        }
        assert!(!path.contains("/runs/") || page.contains("&lt;script&gt;"), "{path}: {page}");
    }
}

#[test]
fn an_audit_and_an_archive_are_shown_as_they_are_in_the_store() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE \"no <key>\" (id int); INSERT INTO \"no <key>\" VALUES (1);
         CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at timestamptz);
         INSERT INTO logs (created_at) SELECT now() - make_interval(days => g) FROM generate_series(1, 40) g;
         CREATE INDEX ON logs (created_at); ANALYZE",
    );
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .job("look", "database = 'app'\n[audit]\nstore = 'local'\nfail_on = 'never'\n")
        .job(
            "old-logs",
            "database = 'app'\n[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '30d'\narchive = 'local'\n",
        );
    let serving = Serving::ready(&scenario, "");
    assert_eq!(serving.get("/audit?job=look&database=app").status, 404, "there is none yet");
    scenario.run(&["run-job", "look"]).succeeded();
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let report = serving.get("/audit?job=look&database=app");
    assert_eq!(report.status, 200, "{}", report.body);
    assert!(report.body.contains("Audit of app") && report.body.contains("no &lt;key&gt;"), "{}", report.body);
    eventually("the job links to it", || {
        serving.get("/job?name=look&database=app").body.contains("/audit?job=look&amp;database=app")
    });
    let archive = serving.get("/archive?job=old-logs&database=app").body;
    for text in ["1 batch, 11 rows", "public", "created_at", "pgtend archives restore --job old-logs --database app --dry-run"] {
        assert!(archive.contains(text), "`{text}` is not in {archive}");
    }
    assert!(serving.get("/job?name=old-logs&database=app").body.contains("Archived rows"));
}

#[test]
fn a_store_or_a_ledger_that_is_away_keeps_no_page_waiting() {
    // It accepts connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let mut own = Server::start(18);
    own.sql("postgres", "CREATE DATABASE app");
    let store = format!("[stores.away]\nbucket = 'b'\nregion = 'eu-central-1'\nendpoint = '{endpoint}'\n");
    let scenario = Scenario::with_database(&own, "app")
        .ledger()
        .config(&store)
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "y")
        .job("nightly", "database = 'app'\n[backup]\nstore = 'away'\n");
    let serving = Serving::ready(&scenario, "");
    let started = std::time::Instant::now();
    assert!(serving.get("/").body.contains("being asked"));
    // The store would take longer than this; a busy machine has ten times as long as a page needs.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    eventually("it is said that nobody knows", || serving.get("/").body.contains("nobody knows: "));
    own.crash();
    eventually("the ledger is known to be away", || serving.get("/").body.contains("The ledger cannot be read"));
    assert_eq!(serving.get("/runs").status, 503);
    assert_eq!(serving.get("/runs/1").status, 503);
    assert_eq!(serving.get("/job?name=nightly&database=app").status, 200);
}

#[test]
fn no_database_is_called_safe_while_the_ledger_is_not_asked() {
    let server = server(18);
    let (mut ledger, database) = (Server::start(18), server.trusted_database());
    ledger.sql("postgres", "CREATE DATABASE led");
    let led = format!("[databases.led]\nurl = {}\n[ledger]\ndatabase = \"led\"\n", quoted(&ledger.url("led")));
    let scenario = Scenario::with_database(server, &database).config(&led);
    let scenario = scenario.job("nightly", "database = 'app'\nschedule = '@yearly'\n[backup]\nstore = 'local'\n");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let mut serving = Serving::ready(&scenario, "");
    // Nothing backs up the ledger's own database.
    eventually("the stores were asked", || serving.get("/").body.contains("1 of 2 databases are safe"));
    ledger.crash();
    let said = "the ledger was not asked since 20";
    for path in ["/", "/database?name=app"] {
        eventually("it is said in the verdict", || serving.get(path).body.contains(said));
        let page = serving.get(path).body;
        assert!(
            page.contains(" warning\">unknown<") && page.contains("may know of a newer backup that is lost"),
            "{path}: {page}"
        );
    }
    assert!(serving.get("/").body.contains("0 of 2 databases are safe"));
    scenario.run(&[]).succeeded().prints(&["the ledger was not asked, and may know of a newer backup that is lost"]);
    assert!(scenario.json(&[])["databases"][0]["unasked"].is_string());

    // What is read without it counts no longer than the ledger is away.
    serving.kill();
    let serving = Serving::start(&scenario, "");
    eventually("the stores were asked without it", || serving.get("/").body.contains(said));
    ledger.start_again();
    eventually("it is safe again", || serving.get("/").body.contains("1 of 2 databases are safe"));
    // The other database is read after it, or before.
    eventually("nothing is said any more", || !serving.get("/").body.contains(said));
}

#[test]
fn a_backup_that_no_job_renews_is_not_called_safe_and_a_broken_file_is_named() {
    let server = server(18);
    let (scenario, _) = backed_up(server);
    let scenario = scenario.job("nightly", "database = 'app'\nschedule = '@yearly'\n[backup]\nstor = 'local'\n");
    let serving = Serving::ready(&scenario, "");
    let said = "its job nightly is skipped: there are mistakes in its file";
    eventually("the broken file is named", || serving.get("/").body.contains(said));
    assert!(serving.get("/").body.contains("0 of 1 database is safe"), "{}", serving.get("/").body);
    scenario.run(&[]).succeeded().prints(&[said, "Next: pgtend check"]);
    drop(serving);
    std::fs::remove_file(scenario.path("jobs/nightly.toml")).unwrap();
    let serving = Serving::ready(&scenario, "");
    eventually("it is said", || serving.get("/").body.contains("no job makes another one"));
    assert!(serving.get("/").body.contains("0 of 1 database is safe"));
    scenario.run(&["doctor"]).prints(&["backup of app", "no job makes another one"]);
}

#[test]
fn a_retry_is_on_the_page_of_its_run() {
    let server = server(18);
    let (scenario, database) = backed_up(server);
    let scenario = scenario.sql_job("again", "schedule = '@yearly'", &["SELECT 1"]);
    let serving = Serving::ready(&scenario, "");
    server.sql(
        &database,
        "INSERT INTO pgtend.runs (job, database, task, trigger, started_at, finished_at, outcome, error, retry_of, attempt, host, pid, version)
         VALUES ('again', 'app', 'sql', 'manual', now() - interval '1 h', now() - interval '59 min', 'failed', 'away <b>', NULL, 1, 'h', 1, '0');
         INSERT INTO pgtend.runs (job, database, task, trigger, started_at, finished_at, outcome, retry_of, attempt, host, pid, version)
         SELECT job, database, task, 'retry', now(), now(), 'succeeded', id, 2, host, pid, version FROM pgtend.runs WHERE job = 'again'",
    );
    becomes(server, &database, "SELECT count(*) FROM pgtend.runs WHERE job = 'again'", "2");
    let id = server.sql(&database, "SELECT max(id) FROM pgtend.runs WHERE job = 'again'");
    let first = server.sql(&database, "SELECT min(id) FROM pgtend.runs WHERE job = 'again'");
    let page = serving.get(&format!("/runs/{id}")).body;
    for text in [&format!("href=\"/runs/{first}\""), "Attempts", "attempt 2", "away &lt;b&gt;"] {
        assert!(page.contains(text), "`{text}` is not in {page}");
    }
}
