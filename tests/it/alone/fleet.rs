//! Several schedulers on one ledger, and many jobs at once: every tick has one run, whoever is killed.

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
