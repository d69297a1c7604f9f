//! What `serve` shows to people, to scrapers and to probes.

use serde_json::Value;

use crate::support::browser::{Reader, keep, look};
use crate::support::postgres::{Server, server};
use crate::support::serve::{Serving, becomes, hours_ago, long_known, reaches, sql_job, with_ledger};
use crate::support::{Scenario, eventually, quoted};

/// Two jobs whose ticks are due at the start: one succeeds, one fails.
fn one_good_one_bad(server: &Server) -> (Scenario, String) {
    let (scenario, database) = with_ledger(server);
    let schedule = hours_ago();
    let keys = format!("schedule = \"{schedule}\"\ndescription = \"what it is for\"");
    let scenario = scenario.job("good", &sql_job(&keys, &["SELECT 1"])).job("bad", &sql_job(&keys, &["SELECT 1/0"]));
    long_known(&scenario, server, &database, &schedule, &["good", "bad"]);
    (scenario, database)
}

const ENDED: &str = "SELECT count(*) FROM pgtend.runs WHERE outcome IS NOT NULL";

#[test]
fn pages_json_and_metrics_say_what_the_ledger_says() {
    let server = server(18);
    let (scenario, database) = one_good_one_bad(server);
    let serving = Serving::ready(&scenario, "");
    becomes(server, &database, ENDED, "2");

    assert_eq!(serving.get("/healthz").body, "ok\n");
    assert_eq!(serving.get("/readyz").body, "ok\n");
    eventually("the page knows both", || serving.get("/").body.contains("1 job needs attention"));
    let page = serving.get("/");
    assert!(page.headers.contains("content-type: text/html; charset=utf-8"), "{}", page.headers);
    for text in ["<b>good</b>", "<b>bad</b>", "division by zero", "what it is for", "pgtend runs show "] {
        assert!(page.body.contains(text), "`{text}` is not in {}", page.body);
    }
    assert!(!page.body.contains("<script"));

    let jobs = serving.json("/api/jobs");
    let names: Vec<&str> = jobs["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap()).collect();
    assert_eq!(names, ["bad", "good"]);
    assert_eq!(jobs["jobs"][1]["history"][0]["outcome"], "succeeded");
    assert_eq!(jobs["failures"][0]["job"], "bad");
    assert!(jobs["jobs"][0]["next_run_at"].is_string() && jobs["jobs"][0]["task"] == "sql", "{jobs}");

    let all = serving.json("/api/runs");
    assert_eq!(all["runs"].as_array().unwrap().len(), 2);
    let failed = serving.json("/api/runs?outcome=failed");
    let failed = failed["runs"].as_array().unwrap();
    assert_eq!((failed.len(), &failed[0]["job"]), (1, &Value::from("bad")));
    assert_eq!(serving.json("/api/runs?job=good&database=app&limit=1")["runs"][0]["outcome"], "succeeded");
    assert_eq!(serving.json("/api/runs?job=nobody")["runs"], Value::Array(Vec::new()));
    let run = serving.json(&format!("/api/runs/{}", failed[0]["id"]));
    assert_eq!((&run["run"]["outcome"], &run["run"]["id"]), (&Value::from("failed"), &failed[0]["id"]));

    assert!(serving.get("/metrics").headers.contains("content-type: application/openmetrics-text; version=1.0.0"));
    let count =
        |job, outcome| serving.metric(&format!("pgtend_job_runs_total{{job=\"{job}\",database=\"app\",outcome=\"{outcome}\"}}"));
    eventually("the runs are counted", || count("good", "succeeded") == Some(1.0) && count("bad", "failed") == Some(1.0));
    assert_eq!(count("good", "failed"), Some(0.0));
    let last_success = serving.metric("pgtend_job_last_success_timestamp_seconds{job=\"good\",database=\"app\"}").unwrap();
    assert!((last_success - chrono::Utc::now().timestamp() as f64).abs() < 300.0, "{last_success}");
    // Its tick has no success, and its hour of grace is over.
    eventually("the bad job is late", || serving.metric("pgtend_job_late{job=\"bad\",database=\"app\"}") == Some(1.0));
}

#[test]
fn what_is_not_there_is_not_found_and_a_bad_question_is_refused() {
    let server = server(18);
    let (scenario, _) = with_ledger(server);
    let serving = Serving::ready(&scenario, "");
    for path in ["/nothing", "/api/runs/999999", "/api", "/../etc/passwd"] {
        assert_eq!(serving.get(path).status, 404, "{path}");
    }
    for path in ["/api/runs?outcome=lost", "/api/runs?what=1", "/api/runs?limit=-1", "/api/runs?limit=x", "/api/runs/x"] {
        assert_eq!(serving.get(path).status, 400, "{path}");
    }
    assert!(
        serving.get("/api/runs?outcome=lost").body.contains("`lost` is not an outcome; the outcomes are: succeeded, skipped")
    );
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/jobs", "/api/runs", "/nothing", "/api/runs?limit=x"] {
        let headers = serving.get(path).headers;
        for header in [
            "content-security-policy: default-src 'none'; ",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(headers.contains(header), "{path} lacks `{header}`: {headers}");
        }
    }
    assert!(serving.get("/").body.contains("No jobs yet"));
}

#[test]
fn with_a_token_only_health_is_open() {
    let server = server(18);
    let (scenario, _) = with_ledger(server);
    std::fs::write(scenario.path("token"), "s3cret token\n").unwrap();
    let serving = Serving::ready(&scenario, "token_file = \"token\"");

    for path in ["/healthz", "/readyz"] {
        assert_eq!(serving.get(path).status, 200, "{path}");
    }
    let basic = |text: &str| format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text));
    for path in ["/", "/metrics", "/api/jobs", "/api/runs", "/api/runs/1"] {
        let refused = serving.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.headers.contains("www-authenticate: basic realm=\"pgtend\""), "{}", refused.headers);
        assert!(!refused.body.contains("s3cret"));
        for wrong in
            ["Bearer s3cret".to_owned(), "Bearer ".to_owned(), "s3cret token".to_owned(), basic("s3cret token:"), basic("x:y")]
        {
            assert_eq!(serving.get_with(path, &[("Authorization", &wrong)]).status, 401, "{path} by {wrong}");
        }
        for right in ["Bearer s3cret token".to_owned(), basic(":s3cret token"), basic("anybody:s3cret token")] {
            let status = if path == "/api/runs/1" { 404 } else { 200 };
            assert_eq!(serving.get_with(path, &[("Authorization", &right)]).status, status, "{path} by {right}");
        }
    }
    assert_eq!(serving.get_with("/", &[("Authorization", "Bearer s3cret token")]).status, 200);
    assert!(!serving.log().contains("s3cret"), "{}", serving.log());
}

#[test]
fn every_series_is_there_from_zero() {
    let server = server(18);
    let (scenario, _) = with_ledger(server);
    let other = quoted(&server.url(&server.new_database()));
    let scenario = scenario
        .config(&format!("[databases.other]\nurl = {other}\n"))
        .job("both", "schedule = \"@yearly\"\ndatabases = [\"app\", \"other\"]\n[sql]\nstatements = [\"SELECT 1\"]\n")
        .job("by-hand", &sql_job("", &["SELECT 1"]))
        .job("nightly", "schedule = \"@yearly\"\ndatabase = \"app\"\n[backup]\nstore = \"local\"\n");
    let serving = Serving::ready(&scenario, "");

    for (job, database) in [("both", "app"), ("both", "other"), ("by-hand", "app"), ("nightly", "app")] {
        let of = format!("job=\"{job}\",database=\"{database}\"");
        for outcome in ["succeeded", "skipped", "failed", "timed_out", "cancelled", "crashed"] {
            assert_eq!(
                serving.metric(&format!("pgtend_job_runs_total{{{of},outcome=\"{outcome}\"}}")),
                Some(0.0),
                "{of} {outcome}"
            );
        }
        let zero = [
            "pgtend_job_running",
            "pgtend_job_phase_progress_ratio",
            "pgtend_job_late",
            "pgtend_job_last_success_timestamp_seconds",
            "pgtend_job_run_duration_seconds_count",
        ];
        for name in zero {
            assert_eq!(serving.metric(&format!("{name}{{{of}}}")), Some(0.0), "{name} {of}");
        }
        let next = serving.metric(&format!("pgtend_job_next_run_timestamp_seconds{{{of}}}")).unwrap();
        assert_eq!(next > chrono::Utc::now().timestamp() as f64, job != "by-hand", "{of}: {next}");
    }
    for stage in ["uncompressed", "stored"] {
        let series = format!("pgtend_backup_size_bytes{{job=\"nightly\",database=\"app\",stage=\"{stage}\"}}");
        assert_eq!(serving.metric(&series), Some(0.0));
    }
    for kind in ["configuration", "unreachable", "permission", "busy", "not_now", "unknown", "timed_out", "cancelled", "other"] {
        assert_eq!(serving.metric(&format!("pgtend_errors_total{{kind=\"{kind}\"}}")), Some(0.0), "{kind}");
    }
    assert_eq!(serving.metric("pgtend_ledger_up"), Some(1.0));
    assert_eq!(serving.metric("pgtend_config_last_reload_successful"), Some(1.0));
    // The health of its own connections: how many of the pool are open and in use, and how long queries take.
    let connections = |state: &str| serving.metric(&format!("pgtend_ledger_pool_connections{{state=\"{state}\"}}")).unwrap();
    eventually("the pool is counted", || (1.0..=4.0).contains(&(connections("used") + connections("idle"))));
    assert!(serving.metric("pgtend_ledger_query_duration_seconds_count").unwrap() > 0.0);
    let page = serving.get("/metrics").body;
    assert!(page.contains("pgtend_build_info{version=\"") && page.ends_with("# EOF\n"), "{page}");
    assert!(page.contains("pgtend_ledger_query_duration_seconds_bucket"), "{page}");
}

/// Would run if it were taken for anything but text.
const HOSTILE: &str = r#""><script>alert(1)</script><img src=x onerror="alert(2)"> & 'q'"#;

#[test]
fn hostile_texts_stay_texts() {
    let server = server(18);
    let url = quoted(&server.url(&server.new_database()));
    let name = serde_json::to_string(HOSTILE).unwrap();
    let raise = format!("DO $body$ BEGIN RAISE EXCEPTION USING MESSAGE = $text${HOSTILE}$text$; END $body$");
    let scenario = Scenario::empty().config(&format!("[databases.{name}]\nurl = {url}\n[ledger]\ndatabase = {name}\n")).job(
        "bad",
        &format!("database = {name}\ndescription = {name}\n[sql]\nstatements = [{}]\n", serde_json::to_string(&raise).unwrap()),
    );
    let serving = Serving::ready(&scenario, "");
    scenario.run(&["run-job", "bad"]).exited(1).says(&[HOSTILE]);
    eventually("the failure is on the page", || serving.get("/").body.contains("1 job needs attention"));

    let page = serving.get("/").body;
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert_eq!(serving.json("/api/jobs")["jobs"][0]["description"], HOSTILE);
    assert!(serving.json("/api/runs")["runs"][0]["error"].as_str().unwrap().contains(HOSTILE));
    let metrics = serving.get("/metrics").body;
    let label = HOSTILE.replace('"', "\\\"");
    assert!(metrics.contains(&format!("pgtend_job_running{{job=\"bad\",database=\"{label}\"}} 0")), "{metrics}");
    let seen = look(&serving, "/", &scenario.path("page.png"), &Reader::WIDE);
    assert_eq!((&seen["consoleErrors"], &seen["headline"]), (&Value::from(0), &Value::from("1 job needs attention")), "{seen}");
}

/// A month of a site's history: healthy, failed, late, running and disabled jobs.
fn month(server: &Server) -> (Scenario, String) {
    let database = server.trusted_database();
    let mut scenario = Scenario::empty()
        .config(&format!("[databases.psscript]\nurl = {}\n[stores.offsite]\npath = \"store\"\n", quoted(&server.url(&database))))
        .config("[ledger]\ndatabase = \"psscript\"\n")
        .config(&format!("[tools]\nbin_dir = {}\n", quoted(&server.bin_dir.display().to_string())));
    let backup = "[backup]\nstore = \"offsite\"\nverify = \"restore\"\nscratch = \"same\"";
    let sql = |statement: &str| format!("[sql]\nstatements = [{statement:?}]");
    // Not due while the test looks.
    let quarter = (chrono::Timelike::minute(&chrono::Utc::now()) + 30) % 60;
    let jobs = [
        ("backup-nightly", "0 2 * * *", "Nightly compressed dump, restored as proof", backup.to_owned()),
        ("backup-hourly", &format!("{quarter} * * * *"), "Between the nights", backup.to_owned()),
        ("refresh-stats", "30 5 * * *", "Planner statistics of the busy tables", sql("ANALYZE")),
        (
            "reindex-embeddings",
            "0 4 * * *",
            "Rebuilds the ivfflat index",
            sql("REINDEX INDEX CONCURRENTLY script_embeddings_idx"),
        ),
        (
            "purge-sessions",
            "15 3 * * *",
            "Sessions that ended a week ago",
            sql("DELETE FROM sessions WHERE ended_at < now() - interval '7 days'"),
        ),
        (
            "refresh-tag-counts",
            "45 4 * * *",
            "The materialized view behind the tag cloud",
            sql("REFRESH MATERIALIZED VIEW tag_counts"),
        ),
        ("vacuum-chat-history", "0 6 * * *", "Off until the move to PostgreSQL 18", sql("VACUUM chat_history") + "\n"),
    ];
    for (name, schedule, description, task) in &jobs {
        let enabled = if *name == "vacuum-chat-history" { "enabled = false\n" } else { "" };
        let text =
            format!("description = \"{description}\"\nschedule = \"{schedule}\"\ndatabase = \"psscript\"\n{enabled}{task}\n");
        scenario = scenario.job(name, &text);
    }
    server.sql(
        &database,
        "CREATE TABLE scripts AS SELECT g AS id, md5(g::text) AS content FROM generate_series(1, 20000) g;
         CREATE TABLE users AS SELECT g AS id FROM generate_series(1, 300) g; CREATE TABLE tags (name text)",
    );
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
    server.sql(&database, "INSERT INTO tags VALUES ('a'); DELETE FROM users WHERE id > 200");
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
    server.sql(&database, "DELETE FROM pgtend.runs");
    for (name, schedule, ..) in &jobs {
        let known = "now() - interval '60 days'";
        server.sql(&database, &format!("INSERT INTO pgtend.schedules VALUES ('{name}', 'psscript', '{schedule} UTC', {known})"));
    }
    server.sql(&database, &MONTH.replace("QUARTER", &quarter.to_string()));
    (scenario, database)
}

/// Number 0 of each job is its latest tick.
const MONTH: &str = r#"
CREATE FUNCTION pg_temp.last(at interval, every interval) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT CASE WHEN t > now() THEN t - every ELSE t END
    FROM (SELECT date_trunc(CASE every WHEN '1 h' THEN 'hour' ELSE 'day' END, now(), 'UTC') + at AS t) x $$;
CREATE TEMP TABLE month AS
SELECT job, task, number, tick, number AS n, took, NULL::text AS outcome, NULL::text AS error, NULL::text AS stderr, summary, bytes
FROM (VALUES
    ('backup-nightly', 'backup', '2 h', '1 d', 184.0, 'dump of 96 tables, restored and counted', 442e6),
    ('backup-hourly', 'backup', 'QUARTER min', '1 h', 61.0, 'dump of 96 tables', 441e6),
    ('refresh-stats', 'sql', '5 h 30 min', '1 d', 21.0, '1 statement, 0 rows', NULL),
    ('reindex-embeddings', 'sql', '4 h', '1 d', 410.0, '1 statement, 0 rows', NULL),
    ('purge-sessions', 'sql', '3 h 15 min', '1 d', 4.0, '1 statement, 1,284 rows', NULL),
    ('refresh-tag-counts', 'sql', '4 h 45 min', '1 d', 9.0, '1 statement, 0 rows', NULL),
    ('vacuum-chat-history', 'sql', '6 h', '1 d', 33.0, '1 statement, 0 rows', NULL)) AS v (job, task, at, every, seconds, summary, size),
    generate_series(0, 29) AS number,
    LATERAL (SELECT pg_temp.last(at::interval, every::interval) - number * every::interval AS tick,
                    seconds * (1 + 0.12 * sin(number * 1.7) - number * 0.006) * interval '1 s' AS took,
                    (size * (1 - number * 0.004))::bigint AS bytes) AS x
WHERE (job, number) <> ('backup-hourly', 0);
UPDATE month SET tick = tick - interval '8 d' WHERE job = 'vacuum-chat-history';
UPDATE month SET outcome = 'skipped', error = 'it runs after job `backup-nightly` on `psscript`, which did not start in 1 h 0 min', took = '0 s'
WHERE job = 'purge-sessions' AND number IN (0, 1);
UPDATE month SET outcome = 'failed', took = '5 s',
    error = 'statement 1 of 1 failed: REINDEX INDEX CONCURRENTLY script_embeddings_idx: canceling statement due to lock timeout'
WHERE job = 'reindex-embeddings' AND number IN (0, 9);
UPDATE month SET outcome = 'crashed', error = 'the process died without reporting a result: pid 812 on db1, last seen at 2026-11-12 02:01:40 UTC', took = '100 s'
WHERE job = 'backup-nightly' AND number = 11;
UPDATE month SET outcome = 'timed_out', error = 'the job''s timeout of 10m passed', took = '600 s' WHERE job = 'refresh-tag-counts' AND number = 4;
UPDATE month SET outcome = 'failed', error = 'pg_dump exited with 1', took = '12 s',
    stderr = E'pg_dump: error: connection to server at "10.0.0.7", port 5432 failed: FATAL:  the database system is shutting down'
WHERE job = 'backup-hourly' AND number = 6;
UPDATE month SET outcome = 'skipped', error = 'busy', took = '0 s' WHERE job = 'backup-hourly' AND number IN (13, 20);
INSERT INTO pgtend.runs (job, database, task, trigger, scheduled_for, started_at, locked_at, heartbeat_at, finished_at, outcome,
                         report, error, stderr, host, pid, version)
SELECT job, 'psscript', task, 'schedule', tick, tick, tick, tick + took, tick + took, coalesce(outcome, 'succeeded'),
       CASE WHEN outcome IS NULL THEN jsonb_build_object('summary', summary, 'warnings', '[]'::jsonb,
            'facts', CASE WHEN bytes IS NULL THEN '{}' ELSE jsonb_build_object('dump_bytes', bytes) END) END,
       error, stderr, 'db1', 812, '0.1.0' FROM month ORDER BY tick;
INSERT INTO pgtend.runs (job, database, task, trigger, scheduled_for, started_at, locked_at, heartbeat_at, progress, host, pid, version)
SELECT 'backup-hourly', 'psscript', 'backup', 'schedule', pg_temp.last('QUARTER min', '1 h'), now() - interval '41 s', now(), now() + interval '1 h',
       '{"phase": "dump", "done_bytes": 968000000, "total_bytes": 1490000000}', 'db1', 812, '0.1.0';
"#;

#[test]
fn the_page_reads_well_in_a_browser_wide_and_narrow_light_and_dark() {
    let server = server(18);
    let (scenario, database) = month(server);
    std::fs::write(scenario.path("actions"), "with it there are forms, too").unwrap();
    let serving = Serving::ready(&scenario, "actions_token_file = \"actions\"");
    eventually("the late job is known", || {
        serving.metric("pgtend_job_late{job=\"purge-sessions\",database=\"psscript\"}") == Some(1.0)
    });
    reaches(server, &database, "SELECT count(*) FROM pgtend.runs", 210);
    eventually("the page is not the first look's", || {
        let page = serving.get("/").body;
        page.contains("2 jobs need attention") && page.contains("1 of 1 database is safe")
    });

    for reader in Reader::ALL {
        let picture = scenario.path(&format!("{reader:?}.png"));
        let seen = look(&serving, "/", &picture, &reader);
        assert_eq!(seen["headline"], "2 jobs need attention", "{seen}");
        assert!(seen["title"].as_str().unwrap().starts_with("2 jobs need attention – pgtend on "), "{seen}");
        seen_well(&seen, &reader);
        has_a_short_way(&seen);
        match reader {
            Reader::WIDE => keep(&picture, "status-page.png"),
            Reader::PHONE_IN_THE_DARK => keep(&picture, "status-page-phone.png"),
            _ => {}
        }
    }
    let set = scenario.sets().remove(0).replace('/', "%2F");
    let run = server.sql(&database, "SELECT max(id) FROM pgtend.runs WHERE stderr IS NOT NULL");
    for (path, name) in [
        (format!("/runs/{run}"), "run-page.png"),
        ("/job?name=backup-nightly&database=psscript".to_owned(), "job-page.png"),
        ("/database?name=psscript".to_owned(), "database-page.png"),
        (format!("/set?name={set}"), "set-page.png"),
        ("/runs".to_owned(), "runs-page.png"),
        ("/?q=backup&task=backup".to_owned(), "search-page.png"),
    ] {
        for reader in [Reader::WIDE, Reader::PHONE_IN_THE_DARK, Reader::PRINT] {
            let picture = scenario.path(&format!("{reader:?}-{name}"));
            let seen = look(&serving, &path, &picture, &reader);
            seen_well(&seen, &reader);
            has_a_short_way(&seen);
            if reader == Reader::WIDE && name == "run-page.png" {
                keep(&picture, name);
            }
        }
    }
    assert_eq!(serving.json("/api/jobs")["jobs"].as_array().unwrap().len(), 7);
}

#[test]
fn the_pages_of_an_audit_and_of_an_archive_read_well_to_everybody() {
    let server = server(18);
    let database = server.new_database();
    // Findings of each level, with long names and statements, and two batches of rows.
    server.sql(
        &database,
        "CREATE TABLE parent (id int PRIMARY KEY, note text); INSERT INTO parent VALUES (1);
         CREATE TABLE child_with_a_name_as_long_as_names_may_be_in_a_catalog_of_pos (id int, parent int REFERENCES parent, parent_as_well int);
         CREATE INDEX one ON child_with_a_name_as_long_as_names_may_be_in_a_catalog_of_pos (parent_as_well);
         CREATE INDEX other ON child_with_a_name_as_long_as_names_may_be_in_a_catalog_of_pos (parent_as_well);
         INSERT INTO child_with_a_name_as_long_as_names_may_be_in_a_catalog_of_pos SELECT 1, 1, 1 FROM generate_series(1, 20000);
         CREATE TABLE filling (id serial PRIMARY KEY); SELECT setval('filling_id_seq', 2100000000); INSERT INTO filling DEFAULT VALUES;
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
    scenario.run(&["run-job", "look"]).succeeded();
    scenario.run(&["run-job", "look"]).succeeded();
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let serving = Serving::ready(&scenario, "");
    let report = serving.get("/audit?job=look&database=app").body;
    for level in ["critical", "high", "medium"] {
        assert!(report.contains(&format!("<span class=\"level {level}\">")), "no finding is {level}: {report}");
    }
    for (path, headline) in
        [("/audit?job=look&database=app", "Audit of app"), ("/archive?job=old-logs&database=app", "Archive old-logs")]
    {
        for reader in Reader::ALL {
            let picture = scenario.path(&format!("{reader:?}.png"));
            let seen = look(&serving, path, &picture, &reader);
            assert_eq!(seen["headline"], headline, "{seen}");
            seen_well(&seen, &reader);
            // A report is a document of its own, which begins with its content.
            if path.starts_with("/archive") {
                has_a_short_way(&seen);
            }
        }
    }
}

/// No script was stopped, nothing is cut off, and axe-core finds nothing.
#[track_caller]
fn seen_well(seen: &Value, reader: &Reader) {
    assert_eq!(seen["consoleErrors"], 0, "{seen}");
    assert_eq!(seen["horizontalScroll"], false, "{reader:?}: {seen}");
    assert_eq!(seen["dark"], reader.is_dark, "{seen}");
    assert_eq!(seen["violations"], Value::Array(Vec::new()), "{reader:?}: {seen:#}");
}

#[track_caller]
fn has_a_short_way(seen: &Value) {
    assert_eq!(seen["script"], "Skip to the content", "the keyboard comes to the content at once: {seen}");
}
