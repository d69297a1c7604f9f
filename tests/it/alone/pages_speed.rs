//! The pages answer within half a second of work at 200 jobs on 50 databases, and hold up no job.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::support::postgres::server;
use crate::support::serve::{Serving, becomes, reaches};
use crate::support::{Scenario, eventually, quoted};

const JOBS: usize = 200;
const DATABASES: usize = 50;

/// What the process of `serve` works for one answer: the time until the answer would be that of everything that runs on the machine. Tests have a build
/// without optimization.
const BOUND: Duration = Duration::from_millis(500);

/// What else the process does meanwhile counts, too: one of so many answers must be within the bound.
const TRIES: usize = 6;

/// Ten runs of each job on each database, an hour apart; every 997th failed.
const HISTORY: &str = r#"
INSERT INTO pgtend.runs (job, database, task, trigger, scheduled_for, started_at, locked_at, heartbeat_at, finished_at, outcome, report, error, host, pid, version)
SELECT 'job_' || j, 'tenant_' || d, 'sql', 'schedule', t, t, t, t, t + interval '5 s',
       CASE WHEN (j * 50 + d + n) % 997 = 0 THEN 'failed' ELSE 'succeeded' END,
       CASE WHEN (j * 50 + d + n) % 997 <> 0 THEN '{"summary": "1 statement, 1 row", "warnings": [], "facts": {"statements": 1, "rows": 1, "dump_bytes": 1000000}}'::jsonb END,
       CASE WHEN (j * 50 + d + n) % 997 = 0 THEN 'statement 1 of 1 failed: ' || repeat('x', 300) END, 'db1', 1, '0'
FROM generate_series(0, 9) n, generate_series(0, 199) j, generate_series(0, 49) d, LATERAL (SELECT now() - (10 - n) * interval '1 h' + j * interval '1 s' AS t) x;
ANALYZE pgtend.runs"#;

#[test]
fn the_pages_of_200_jobs_on_50_databases_answer_within_half_a_second() {
    let server = server(18);
    let database = server.new_database();
    let url = quoted(&server.url(&database));
    let mut config = String::new();
    let mut names = Vec::new();
    for number in 0..DATABASES {
        write!(config, "[databases.tenant_{number}]\nurl = {url}\n").unwrap();
        names.push(format!("tenant_{number}"));
    }
    config += "[ledger]\ndatabase = \"tenant_0\"\n[stores.local]\npath = \"store\"\n";
    let mut scenario = Scenario::empty().config(&config);
    for number in 0..JOBS {
        let job = format!(
            "description = \"of all tenants\"\nschedule = \"{} 3 1 1 *\"\ndatabases = {names:?}\n[sql]\nstatements = [\"SELECT 1\"]\n",
            number % 60
        );
        scenario = scenario.job(&format!("job_{number}"), &job);
    }
    scenario = scenario.job("ticks", "database = \"tenant_0\"\nschedule = \"* * * * * *\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    scenario.run(&["runs"]).succeeded();
    server.sql(&database, HISTORY);
    let serving = Serving::ready(&scenario, "");
    becomes(server, &database, "SELECT count(*) FROM pgtend.runs WHERE host = 'db1'", &(JOBS * DATABASES * 10).to_string());
    eventually("all are shown", || serving.try_get("/").is_some_and(|answer| answer.body.contains("of 50 databases well")));
    let failed = server.sql(&database, "SELECT max(id) FROM pgtend.runs WHERE outcome = 'failed' AND host = 'db1'");
    let count = "SELECT count(*) FROM pgtend.runs WHERE job = 'ticks' AND outcome = 'succeeded'";
    let before: u64 = server.sql(&database, count).parse().unwrap();

    let mut slow = Vec::new();
    for path in [
        "/?q=tenant_17",
        "/?state=trouble",
        "/?group=job_7",
        "/?task=sql&page=100",
        "/job?name=job_7&database=tenant_3",
        "/database?name=tenant_3",
        "/runs",
        "/runs?job=job_7&outcome=failed",
        &format!("/runs/{failed}"),
        "/",
    ] {
        // What was read is asked anew after two seconds.
        let mut took = Vec::new();
        for _ in 0..TRIES {
            std::thread::sleep(Duration::from_millis(2100));
            let (started, before) = (Instant::now(), worked(serving.pid()));
            let answer = serving.get(path);
            took.push(worked(serving.pid()).saturating_sub(before));
            eprintln!("{path}: {:?} until the answer, {:?} of work", started.elapsed(), took.last());
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.body.len() < 400_000, "{path}: {} bytes", answer.body.len());
            if took.last() <= Some(&BOUND) {
                break;
            }
        }
        if took.last() > Some(&BOUND) {
            slow.push((path.to_owned(), took));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
    // Meanwhile the job of every second went on.
    reaches(server, &database, count, before + 20);
}

/// The processor time of a process up to now, in ticks of 10 ms.
fn worked(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
