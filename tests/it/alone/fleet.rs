//! Several schedulers on one ledger, many jobs at once, and jobs on very many databases: every tick has one run, whoever is killed.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};

use crate::support::eventually;
use crate::support::postgres::Server;
use crate::support::serve::{Serving, asked, becomes, history, reaches, sql_job, with_ledger};

/// Marsaglia's xorshift, so that each run of the test kills at the same moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn four_schedulers_of_which_one_is_always_being_killed_run_every_tick_once() {
    const JOBS: usize = 10;
    const TICKS: u64 = 20;
    let server = Server::start(18);
    let (mut scenario, database) = with_ledger(&server);
    server.sql(&database, "CREATE TABLE spans (job text, pid int, began timestamptz, ended timestamptz)");
    for number in 0..JOBS {
        let job = format!("j{number}");
        let begin = format!("INSERT INTO spans VALUES ('{job}', pg_backend_pid(), clock_timestamp())");
        // Who was killed in between never gets here.
        let end = format!(
            "UPDATE spans SET ended = clock_timestamp() WHERE job = '{job}' AND pid = pg_backend_pid() AND ended IS NULL"
        );
        scenario = scenario.job(&job, &sql_job("schedule = \"* * * * * *\"", &[&begin, "SELECT pg_sleep(0.05)", &end]));
    }
    let mut fleet: Vec<Serving> = (0..4).map(|_| Serving::start(&scenario, "")).collect();
    for serving in &fleet {
        serving.is_ready();
    }

    let mut random = Random(20_261_123);
    let (started, mut kills) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(TICKS + 2) {
        std::thread::sleep(Duration::from_millis(300 + random.below(900)));
        let mut victim = fleet.swap_remove(random.below(4) as usize);
        victim.kill();
        kills += 1;
        let victim = victim.again(&scenario);
        eventually("it is back", || victim.try_get("/healthz").is_some());
        fleet.push(victim);
    }
    for serving in &mut fleet {
        serving.signal(rustix::process::Signal::TERM);
    }
    for serving in &mut fleet {
        assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    }

    assert!(kills >= 10, "{kills} kills");
    let window = "SELECT count(*) FROM (SELECT job FROM pgtend.runs GROUP BY job
                  HAVING count(*) = count(DISTINCT scheduled_for)
                     AND count(*) = extract(epoch FROM max(scheduled_for) - min(scheduled_for)) + 1 AND count(*) >= 20) j";
    assert_eq!(asked(&server, &database, window), JOBS.to_string(), "{}", gaps(&server, &database));
    let twice = "SELECT count(*) FROM spans a JOIN spans b ON a.job = b.job AND a.ctid <> b.ctid
                 AND tstzrange(a.began, a.ended, '[)') && tstzrange(b.began, b.ended, '[)') WHERE a.ended IS NOT NULL AND b.ended IS NOT NULL";
    assert_eq!(asked(&server, &database, twice), "0");

    // The last look: rows of the killed are as old as they would be in some minutes.
    server.sql(&database, "UPDATE pgtend.runs SET heartbeat_at = heartbeat_at - interval '5 min' WHERE outcome IS NULL");
    for number in 0..JOBS {
        std::fs::write(scenario.path(&format!("jobs/j{number}.toml")), sql_job("", &["SELECT 1"])).unwrap();
    }
    let _serving = Serving::start(&scenario, "");
    becomes(&server, &database, "SELECT count(*) FROM pgtend.runs WHERE outcome IS NULL", "0");
    let odd = "SELECT count(*) FROM pgtend.runs WHERE trigger <> 'schedule' OR outcome NOT IN ('succeeded', 'skipped', 'crashed')
               OR finished_at IS NULL OR (outcome = 'succeeded') <> (error IS NULL) OR outcome = 'succeeded' AND locked_at IS NULL";
    assert_eq!(asked(&server, &database, odd), "0", "{}", history(&server, &database));
    let succeeded = "SELECT count(*) FROM pgtend.runs WHERE outcome = 'succeeded'";
    reaches(&server, &database, succeeded, 100);
}

/// Ticks without a run, for a failing test's message.
fn gaps(server: &Server, database: &str) -> String {
    asked(
        server,
        database,
        "SELECT j.job, t FROM (SELECT job, min(scheduled_for) a, max(scheduled_for) b FROM pgtend.runs GROUP BY job) j,
         LATERAL generate_series(a, b, interval '1 s') AS t
         WHERE NOT EXISTS (SELECT FROM pgtend.runs r WHERE r.job = j.job AND r.scheduled_for = t)",
    )
}

#[test]
fn a_thousand_jobs_of_the_same_second_all_run_once() {
    const JOBS: u64 = 1000;
    let server = Server::start(18);
    let (mut scenario, database) = with_ledger(&server);
    let tick = Utc::now() + TimeDelta::seconds(12);
    let schedule = tick.format("%-S %-M %-H %-d %-m *");
    for number in 0..JOBS {
        let insert = format!("INSERT INTO done VALUES ({number})");
        scenario = scenario.job(&format!("j{number}"), &sql_job(&format!("schedule = \"{schedule}\""), &[&insert]));
    }
    server.sql(&database, "CREATE TABLE done (job int PRIMARY KEY)");
    let mut serving = Serving::ready(&scenario, "max_concurrent = 8");
    assert!(Utc::now() < tick, "this machine is too slow for this test");

    // Each part in its own time: beside other tests all of them took more than a minute.
    for part in 1..=4 {
        let succeeded = format!("SELECT count(*) >= {} FROM pgtend.runs WHERE outcome = 'succeeded'", JOBS * part / 4);
        becomes(&server, &database, &succeeded, "t");
    }

    let runs = "SELECT count(*), count(DISTINCT job), count(DISTINCT scheduled_for), count(DISTINCT trigger) FROM pgtend.runs";
    assert_eq!(asked(&server, &database, runs), "1000|1000|1|1");
    assert_eq!(asked(&server, &database, "SELECT count(*) FROM done"), "1000");
    let at_once =
        "SELECT max((SELECT count(*) FROM pgtend.runs b WHERE b.started_at <= a.started_at AND b.finished_at > a.started_at))
                   FROM pgtend.runs a";
    assert!(asked(&server, &database, at_once).parse::<u64>().unwrap() <= 8);
    assert_eq!(serving.json("/api/jobs")["jobs"].as_array().unwrap().len(), 1000);
    assert_eq!(serving.terminate(), Some(0));
}

/// A server that does not answer keeps the databases that the ledger knows: so 10,000 of them need no server.
#[test]
fn ten_thousand_databases_of_three_jobs_are_planned_and_shown_in_two_seconds_and_pruned() {
    const DATABASES: u32 = 10_000;
    let server = Server::start(18);
    let (scenario, database) = with_ledger(&server);
    let mut scenario = scenario.config("[servers.main]\nurl = \"postgres://nobody@127.0.0.1:1/postgres\"\n");
    // None of them is due while the test runs.
    let hour = (Utc::now() + TimeDelta::hours(12)).format("%-H");
    for job in ["audit", "nightly", "tidy"] {
        let keys = format!("databases = \"tenant_*\"\nschedule = \"0 {hour} * * *\"\njitter = \"2h\"");
        scenario = scenario.job(job, &format!("{keys}\n[sql]\nstatements = [\"SELECT 1\"]\n"));
    }
    scenario.run(&["runs"]).succeeded();
    server.sql(
        &database,
        &format!(
            "INSERT INTO pgtend.servers VALUES ('main');
             INSERT INTO pgtend.databases SELECT 'main', 'main.tenant_' || n FROM generate_series(1, {DATABASES}) n;
             INSERT INTO pgtend.runs (job, database, task, trigger, scheduled_for, started_at, locked_at, finished_at, outcome, report, host, pid, version)
             SELECT job, 'main.tenant_' || n, 'sql', 'schedule', at, at, at, at + interval '3 s',
                    CASE WHEN day = 0 AND n % 1000 = 0 THEN 'failed' ELSE 'succeeded' END,
                    '{{\"summary\": \"1 statement\", \"facts\": {{}}, \"warnings\": []}}', 'db1', 1, '0.1.0'
             FROM generate_series(9, 0, -1) day, unnest(ARRAY['audit', 'nightly', 'tidy']) job, generate_series(1, {DATABASES}) n,
                  LATERAL (SELECT date_trunc('hour', now()) - interval '1 h' - make_interval(days => 5 * day) AS at) t;
             ANALYZE pgtend.runs"
        ),
    );
    assert_eq!(asked(&server, &database, "SELECT count(*) FROM pgtend.runs"), "300000");

    // The time of a processor that `serve` itself takes, which other programs on the machine do not lengthen. What the ledger does for it is printed with the rest.
    let started = Instant::now();
    let mut serving = Serving::ready(&scenario, "");
    let (ready, planned) = (started.elapsed(), processor_seconds(serving.pid()));
    let count = |state: &str| serving.json("/api/jobs")["fleets"][1][state].as_u64().unwrap();
    eventually("all are planned and judged", || count("well") == u64::from(DATABASES - 10) && count("failed") == 10);
    let timed = |path: &str| {
        // The page shows what it read for two seconds: after them it reads anew.
        std::thread::sleep(Duration::from_millis(2100));
        let (asked_at, before) = (Instant::now(), processor_seconds(serving.pid()));
        let body = serving.get(path).body;
        (body, processor_seconds(serving.pid()) - before, asked_at.elapsed())
    };
    let (page, page_took, page_waited) = timed("/");
    let (metrics, metrics_took, metrics_waited) = timed("/metrics");
    let asked_at = Instant::now();
    scenario.run(&["jobs"]).succeeded().prints(&["tenant_*: 10,000 databases", "9,990 of 10,000 well, 10 failed"]);
    println!(
        "ready after {ready:?}, {planned} s of a processor; page of {} bytes in {page_waited:?}, {page_took} s; metrics of {} bytes in {metrics_waited:?}, \
         {metrics_took} s; `jobs` in {:?}",
        page.len(),
        metrics.len(),
        asked_at.elapsed()
    );
    assert!(page.contains("9,990 well") && page.contains("10 failed") && page.contains("main.tenant_1000"), "{page}");
    assert!(page.len() < 500_000 && metrics.len() < 50_000);
    assert!(planned < 2.0, "{planned} s of a processor");
    assert!(page_took < 0.5, "{page_took} s of a processor");
    assert!(metrics_took < 0.5, "{metrics_took} s of a processor");

    // `serve` prunes at its start: 30 days are left, of which rows of 0, 5, … 25 days ago.
    let old = "SELECT count(*) FROM pgtend.runs WHERE started_at < now() - interval '30 days'";
    becomes(&server, &database, old, "0");
    assert_eq!(asked(&server, &database, "SELECT count(*) FROM pgtend.runs"), "180000");
    assert_eq!(serving.terminate(), Some(0));
}

/// The processor time that a process has used: other work on the machine does not count.
pub fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name in parentheses, the 12th and the 13th: of the program, and of the kernel for it (proc_pid_stat(5)).
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[test]
fn two_hundred_real_databases_are_found_run_and_counted() {
    const DATABASES: u32 = 200;
    let fleet = Server::start(18);
    let (scenario, database) = with_ledger(&fleet);
    for number in 1..=DATABASES {
        fleet.sql("postgres", &format!("CREATE DATABASE tenant_{number} STRATEGY file_copy"));
    }
    let url = serde_json::to_string(&fleet.url("postgres")).unwrap();
    let tick = Utc::now() + TimeDelta::seconds(25);
    let schedule = tick.format("%-S %-M %-H %-d %-m *");
    let mut scenario = scenario.config(&format!("[servers.main]\nurl = {url}\nmax_concurrent = 4\n"));
    for job in ["audit", "nightly", "tidy"] {
        let text = format!("databases = \"tenant_*\"\nschedule = \"{schedule}\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
        scenario = scenario.job(job, &text);
    }
    let mut serving = Serving::ready(&scenario, "max_concurrent = 8");
    assert_eq!(serving.json("/api/jobs")["fleets"][0]["databases"], DATABASES);
    assert!(Utc::now() < tick, "this machine is too slow for this test");
    for part in 1..=4 {
        let succeeded = format!("SELECT count(*) >= {} FROM pgtend.runs WHERE outcome = 'succeeded'", 3 * DATABASES * part / 4);
        becomes(&fleet, &database, &succeeded, "t");
    }
    let runs = "SELECT count(*), count(DISTINCT (job, database)), count(DISTINCT scheduled_for) FROM pgtend.runs";
    assert_eq!(asked(&fleet, &database, runs), "600|600|1");
    let at_once =
        "SELECT max((SELECT count(*) FROM pgtend.runs b WHERE b.locked_at <= a.locked_at AND b.finished_at > a.locked_at))
                   FROM pgtend.runs a";
    assert!(asked(&fleet, &database, at_once).parse::<u64>().unwrap() <= 4);
    eventually("all are well", || serving.json("/api/jobs")["fleets"][2]["well"] == DATABASES);
    let asked_at = Instant::now();
    let page = serving.get("/").body;
    println!("page of {} bytes in {:?}", page.len(), asked_at.elapsed());
    assert!(page.contains("200 well") && !page.contains("main.tenant_17<"));
    assert_eq!(serving.terminate(), Some(0));
}
