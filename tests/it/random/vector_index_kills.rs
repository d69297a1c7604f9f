//! Vector index runs that are stopped at random moments, while clients search and insert: the application's index is there at each of
//! them, and the next run leaves that one and nothing else.

use std::time::{Duration, Instant};

use proptest::prelude::RngExt as _;
use rustix::process::Signal;

use super::kills::{finish, seeded};
use crate::support::pgbench::Pgbench;
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, eventually, times};
use crate::vector_index::{IVFFLAT, indexes, items, planned, prefers_indexes, scenario, smooth, usable, used};

const RUN: [&str; 2] = ["run-job", "tend"];
const QUICK: &str = "recall = { queries = 100, target = 0.8 }\napply_setting = 'database'";
// Rows as they are: which index is better is not what is tested here.
const ROWS: &str = "[vector_index.queries]\ntable = 'items'";
// No two alike: hnsw does not find its way through thousands of the same vector.
const SEARCH: &str = "INSERT INTO items (embedding) SELECT array_agg((x + random() - 0.5)::real)::vector FROM unnest((SELECT embedding FROM items WHERE id = 1 + :client_id)::real[]) x;
    SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <=> (SELECT embedding FROM items WHERE id = 7) LIMIT 10) f;\n";

/// A server process of a killed run ends when it notices; until then it goes on with its statement.
fn let_go(server: &Server, database: &str) {
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgtend' AND datname = '{database}'");
    eventually("the server let go of it", || server.sql("postgres", &sessions) == "0");
}

#[test]
fn stopped_at_random_moments_the_applications_index_is_there_and_the_next_run_is_clean() {
    for (major, signal, stops) in [(18, Signal::KILL, times(5)), (16, Signal::TERM, times(3))] {
        let server = server(major);
        let database = items(server, 3000, 16, IVFFLAT);
        prefers_indexes(server, &database);
        let kinds = [
            ("lists = 12", "ivfflat|lists=12"),
            ("ef_construction = 64", "hnsw|m=16 ef_construction=64"),
            ("lists = 40", "ivfflat|lists=40"),
        ];
        let jobs = kinds.map(|(more, _)| scenario(server, &database, &format!("{more}\n{QUICK}\n{ROWS}")));
        let clients = Pgbench::start(server, &database, 2, 60, SEARCH);
        let mut random = seeded();
        let mut undisturbed = [Duration::ZERO; 3];
        for (job, time) in jobs.iter().zip(&mut undisturbed) {
            let started = Instant::now();
            finish(job, &RUN);
            *time = started.elapsed();
        }
        let (mut hits, mut turn) = (0, 0);
        while hits < stops {
            turn += 1;
            assert!(turn <= 4 * stops, "only {hits} of {turn} met a run");
            let which = (turn % 3) as usize;
            let moment = undisturbed[which].mul_f64(random.random_range(0.0..1.0));
            let mut running = jobs[which].start(&RUN);
            std::thread::sleep(moment);
            if running.is_running() {
                hits += 1;
                running.signal(signal);
            }
            running.wait();
            let when = format!("{signal:?} after {moment:?} of {:?}, {}", undisturbed[which], kinds[which].0);
            let there = indexes(server, &database);
            let is_valid = there.lines().any(|line| line.starts_with("items_idx|") && line.ends_with("|t"));
            assert!(is_valid, "{when}: {there}");
            assert!(usable(server, &database).starts_with("items_idx"), "{when}: {}", usable(server, &database));
            let_go(server, &database);
            // Not always the same job as the one that was stopped.
            let next = if random.random_bool(0.7) { which } else { (which + 1) % 3 };
            finish(&jobs[next], &RUN);
            let left = indexes(server, &database);
            // What finds less and is not clearly faster replaces nothing, and that is kept in mind. The next turn begins with the lists of the application again.
            if left != format!("items_idx|{}|t", kinds[next].1) {
                let reasons = planned(&jobs[next])["decision"]["reasons"].to_string();
                assert!(
                    there.lines().any(|line| line == left) && reasons.contains("not built again"),
                    "{when}: {left}, {reasons}"
                );
                server.sql(&database, &format!("DROP INDEX items_idx; {IVFFLAT}"));
            }
            assert_eq!(usable(server, &database), "items_idx", "{when}");
        }
        let met = clients.stop();
        assert!(met.longest < Duration::from_secs(3), "{met:?}");
    }
}

#[test]
fn stopped_while_the_old_index_is_dropped_the_next_run_drops_it() {
    let server = server(18);
    for signal in [Signal::KILL, Signal::TERM] {
        let database = items(server, 3000, 16, IVFFLAT);
        prefers_indexes(server, &database);
        // Without a snapshot: builds do not wait for it, DROP INDEX does.
        let holder = server.session(&database, "BEGIN; SELECT count(*) FROM items");
        // All is found by any lists, at some setting: the new ones do not stay away for what they lose.
        let job = scenario(server, &database, &format!("lists = 12\n{}", QUICK.replace("0.8", "1.0")));
        let running = job.start(&RUN);
        let is_half_dropped =
            || indexes(server, &database).lines().any(|line| line.contains("_pgtend_old_") && line.ends_with("|f"));
        eventually("the old index is half dropped", is_half_dropped);
        running.signal(signal);
        running.wait();
        assert!(indexes(server, &database).contains("items_idx|ivfflat|lists=12|t"), "{}", indexes(server, &database));
        assert_eq!(used(server, &database), "items_idx");
        drop(holder);
        let_go(server, &database);
        finish(&job, &RUN);
        assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=12|t");
    }
}

#[test]
fn stopped_while_the_index_of_a_partition_is_rebuilt_the_next_run_is_clean() {
    let server = server(18);
    for signal in [Signal::KILL, Signal::TERM] {
        let database = server.new_database();
        server.sql(
            &database,
            &format!("CREATE EXTENSION vector; CREATE TABLE other (); CREATE TABLE items (id int, embedding vector(8)) PARTITION BY RANGE (id);
             CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (3000);
             CREATE INDEX whole ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 6);
             INSERT INTO items SELECT i, v::vector FROM ({}) s ORDER BY i; ANALYZE", smooth((1, 2999), 8)),
        );
        let holder = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM other");
        let job: Scenario = scenario(server, &database, &format!("lists = 9\n{QUICK}"));
        let running = job.start(&RUN);
        let phase = "SELECT string_agg(phase, ' ') FROM pg_stat_progress_create_index WHERE datname = current_database()";
        eventually("it waits for the old transaction", || server.sql(&database, phase).contains("waiting for old snapshots"));
        running.signal(signal);
        running.wait();
        assert!(indexes(server, &database).contains("items_1_embedding_idx|ivfflat|lists=9|t"), "{}", indexes(server, &database));
        drop(holder);
        let_go(server, &database);
        finish(&job, &RUN);
        assert_eq!(indexes(server, &database), "items_1_embedding_idx|ivfflat|lists=9|t\nwhole|ivfflat|lists=6|t");
        let told = job.json(&["run-job", "tend", "--dry-run"]);
        assert_eq!(told["runs"][0]["plan"]["tables"][0]["lists_in_fact"], 9, "{told:#}");
    }
}
