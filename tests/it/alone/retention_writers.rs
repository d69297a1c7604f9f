//! Writers on the rows that retention deletes meet no error, and wait for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::retention::{logs, nothing_is_lost_or_twice, scenario};
use crate::support::postgres::server;

#[test]
fn writers_on_the_same_rows_see_no_error_and_wait_for_nobody() {
    let server = server(18);
    let database = logs(server, 40_000);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|number: u64| {
            let (stop, database) = (Arc::clone(&stop), database.clone());
            std::thread::spawn(move || {
                let (mut slowest, mut turns) = (Duration::ZERO, 0);
                while !stop.load(Ordering::Relaxed) {
                    // Two old rows in either order, so that a circle of locks is possible; and a new one.
                    let (first, second) = ((turns * 37 + number * 991) % 30_000, (turns * 53 + number * 577) % 30_000);
                    let sql = format!(
                        "BEGIN; SELECT id FROM logs WHERE id = {first} FOR UPDATE SKIP LOCKED; UPDATE logs SET status = 'seen' WHERE id = {second};
                         INSERT INTO logs (created_at, status) VALUES (now(), 'new'); COMMIT;"
                    );
                    let started = Instant::now();
                    crate::support::postgres::server(18).sql(&database, &sql);
                    slowest = slowest.max(started.elapsed());
                    turns += 1;
                }
                (slowest, turns)
            })
        })
        .collect();
    let scenario = scenario(server, &database, "archive = 'local'\nmethod = 'blocks'\n[limits]\nbatch_time = '20ms'");
    for _ in 0..3 {
        scenario.run(&["run-job", "old-logs", "--yes"]).succeeded();
    }
    stop.store(true, Ordering::Relaxed);
    let mut inserted = 40_001;
    for writer in writers {
        let (slowest, turns) = writer.join().unwrap();
        inserted += turns;
        assert!(slowest < Duration::from_secs(3), "somebody waited {slowest:?}");
    }
    nothing_is_lost_or_twice(server, &database, &scenario, inserted);
}
