//! Indexes that are not the plain case: of a part of the rows, on an expression, altered and not rebuilt, found out on a sample, too
//! slow to be measured.

use crate::support::eventually;
use crate::support::postgres::server;
use crate::vector_index::{IVFFLAT, MOST, indexes, items, prefers_indexes, scenario, told, used};

const QUICK: &str = "recall = { target = 1.0, queries = 100 }\napply_setting = 'database'";

#[test]
fn of_a_partial_index_only_its_rows_count() {
    let server = server(18);
    let index = "CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 3) WHERE id % 20 = 0";
    let database = items(server, 6000, 16, index);
    prefers_indexes(server, &database);
    let more = "index = 'items_idx'\nmethod = 'ivfflat'\nexact_below = 100\napply_setting = 'database'";
    let job = scenario(server, &database, more);
    let plan = job.json(&["run-job", "tend", "--dry-run"])["runs"][0]["plan"]["tables"][0].clone();
    assert_eq!(plan["rows"], 300.0, "{plan:#}");
    let told = told(&job);
    assert_eq!((&told["tuning"]["copied_rows"], &told["tuning"]["share"]), (&300.into(), &1.0.into()), "{told:#}");
}

#[test]
fn where_the_whole_is_too_large_lists_are_found_on_a_sample_and_the_report_says_so() {
    let server = server(16);
    let database = items(server, 8000, 16, "");
    prefers_indexes(server, &database);
    let budget = "budget = { sample = '200KB', time = '10min' }";
    let job = scenario(server, &database, &format!("method = 'ivfflat'\n{budget}\n{MOST}\napply_setting = 'database'"));
    let told = told(&job);
    let (tuning, lists) = (&told["tuning"], told["built"]["lists"].as_f64().unwrap());
    let (copied, share) = (tuning["copied_rows"].as_f64().unwrap(), tuning["share"].as_f64().unwrap());
    assert!((2000.0..4000.0).contains(&copied) && (share - copied / 8000.0).abs() < 0.01, "{tuning:#}");
    assert!(tuning["seconds"].as_f64().unwrap() <= tuning["budget_seconds"].as_f64().unwrap(), "{tuning:#}");
    let tried = tuning["candidates"].as_array().unwrap().iter().map(|one| one["lists"].as_f64().unwrap());
    assert!(tried.into_iter().any(|tried| (tried / share.sqrt() - lists).abs() <= 0.5), "{lists}: {tuning:#}");
    assert!(told["decision"]["reasons"].to_string().contains("rows ("), "{told:#}");
    assert!(told["after"]["lower"].as_f64().unwrap() >= 0.8999, "{told:#}");
    assert_eq!(used(server, &database), "items_embedding_idx");
}

#[test]
fn an_index_on_half_of_the_precision_is_tended_as_it_is() {
    let server = server(18);
    let index = "CREATE INDEX half_idx ON items USING ivfflat ((embedding::halfvec(16)) halfvec_cosine_ops) WITH (lists = 30)";
    let database = items(server, 3000, 16, index);
    prefers_indexes(server, &database);
    // In half precision not even all lists find all.
    let job = scenario(server, &database, &format!("lists = 40\n{MOST}\napply_setting = 'database'"));
    job.run(&["run-job", "tend", "--dry-run"])
        .succeeded()
        .prints(&["index half_idx: ivfflat with 30 lists", "::halfvec(16)) <=> $1::halfvec(16)"]);
    assert_eq!(told(&job)["swapped"], true);
    let definition = server.sql(&database, "SELECT pg_get_indexdef('half_idx'::regclass)");
    assert!(definition.contains("halfvec(16)) halfvec_cosine_ops") && definition.contains("lists='40'"), "{definition}");
    // Beside one on the column itself, that one is it.
    server.sql(&database, "CREATE INDEX whole_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 40)");
    job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["index whole_idx: ivfflat with 40 lists"]);
}

#[test]
fn what_was_found_out_by_measurement_is_no_finding_of_an_audit() {
    let server = server(18);
    let index = "CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 60)";
    let database = items(server, 3000, 16, index);
    prefers_indexes(server, &database);
    let job = scenario(server, &database, &format!("method = 'ivfflat'\n{MOST}\napply_setting = 'database'"));
    let lists = || crate::audit::state(&crate::audit::audit(&job), "ivfflat-lists").to_owned();
    assert_eq!(lists(), "findings", "six times what the rule says");
    job.run(&["run-job", "tend"]).succeeded();
    assert_eq!(lists(), "ok", "{}", indexes(server, &database));
}

#[test]
fn a_graph_that_was_altered_and_not_rebuilt_is_known_for_what_it_is() {
    const THIN: &str = "recall = { queries = 200, target = 0.8 }\napply_setting = 'database'";
    let server = server(16);
    let database = items(server, 8000, 16, "");
    prefers_indexes(server, &database);
    scenario(server, &database, &format!("method = 'hnsw'\nm = 8\nef_construction = 32\n{THIN}"))
        .run(&["run-job", "tend"])
        .succeeded();
    server.sql(&database, "ALTER INDEX items_embedding_idx SET (m = 12, ef_construction = 48)");
    let job = scenario(server, &database, &format!("m = 12\nef_construction = 48\n{THIN}"));
    job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["m = 8, ef_construction = 32 (12 and 48 in the catalog)"]);
    assert_eq!(told(&job)["swapped"], true);
    assert_eq!(told(&job)["decision"]["do"], "nothing");
}

#[test]
fn nothing_is_built_that_could_not_be_measured() {
    let server = server(18);
    let database = items(server, 20_000, 64, "");
    let job = scenario(server, &database, "method = 'ivfflat'\nlists = 20\nrecall = { time = '20ms' }");
    job.run(&["run-job", "tend"]).exited(1).says(&["an exact search takes", "set `time` of `recall` above"]);
    assert_eq!(indexes(server, &database), "");
}

#[test]
fn an_invalid_index_that_somebody_is_building_is_nobodys_wreck() {
    let server = server(18);
    let database = items(server, 3000, 16, "");
    let reader = server.session(&database, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM items");
    let url = database.clone();
    let job = scenario(server, &database, &format!("method = 'ivfflat'\nlists = 20\n{QUICK}"));
    std::thread::scope(|scope| {
        let builder = scope.spawn(move || {
            server.psql(
                &url,
                "CREATE INDEX CONCURRENTLY items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 30)",
            )
        });
        eventually("it waits for the reader", || indexes(server, &database) == "items_idx|ivfflat|lists=30|f");
        job.run(&["run-job", "tend"]).exited(75).says(&["is building an index or vacuuming on the table"]);
        drop(reader);
        assert_eq!(builder.join().unwrap(), Ok(String::new()));
    });
    assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=30|t");
}

#[test]
fn the_old_index_is_dropped_although_a_transaction_ends_later_than_any_lock_is_waited_for() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    // Without a snapshot: the build does not wait for it, DROP INDEX does.
    prefers_indexes(server, &database);
    let holder = server.session(&database, "BEGIN; SELECT count(*) FROM items");
    let job = scenario(server, &database, &format!("lists = 40\n{QUICK}\n[limits]\nlock_timeout = '300ms'"));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| told(&job));
        eventually("the old index is half dropped", || indexes(server, &database).contains("_pgtend_old_"));
        // Some times as long, through which nothing is cancelled and begun again.
        let pid = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DROP INDEX%' AND wait_event = 'virtualxid'";
        eventually("it waits", || !server.sql(&database, pid).is_empty());
        let waiting = server.sql(&database, pid);
        std::thread::sleep(std::time::Duration::from_secs(2));
        assert_eq!(server.sql(&database, pid), waiting);
        drop(holder);
        let told = running.join().unwrap();
        assert!(!told["dropped"].as_array().unwrap().is_empty(), "{told:#}");
    });
    assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=40|t");
}
