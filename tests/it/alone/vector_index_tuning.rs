//! Recall of large vector indexes against a brute force of the test's own, within a budget of time; and the comparison of methods,
//! which the clock decides.

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::support::vectors::Vectors;
use crate::vector_index::{IVFFLAT, indexes, items, planned, prefers_indexes, rough, scenario, told, used};
use crate::vector_index_stays::ASKED;

/// The questions of the job: every so many rows, which find themselves, too.
fn questions(server: &Server, database: &str, every: u32) -> String {
    server.sql(database, &format!("CREATE TABLE asked AS SELECT id, embedding FROM items WHERE id % {every} = 0"));
    "\n[vector_index.queries]\ntable = 'asked'".to_owned()
}

/// Recall of searches with the index, as the test computes it: in its own memory, over vectors of its own making.
fn brute_force(server: &Server, database: &str, vectors: &Vectors, probes: u64) -> f64 {
    let found = server.sql(
        database,
        &format!(
            "SET ivfflat.probes = {probes}; SET enable_seqscan = off;
             SELECT q.id, (SELECT string_agg(f.id::text, ',') FROM (SELECT id FROM items ORDER BY embedding <=> q.embedding LIMIT 10) f) FROM asked q"
        ),
    );
    let found: Vec<(usize, Vec<usize>)> = found
        .lines()
        .map(|line| {
            let (id, near) = line.split_once('|').unwrap();
            (id.parse::<usize>().unwrap() - 1, near.split(',').map(|id| id.parse::<usize>().unwrap() - 1).collect())
        })
        .collect();
    assert!(found.len() >= 30, "{}", found.len());
    let queries: Vec<usize> = found.iter().map(|(query, _)| *query).collect();
    // The row itself is the first of the ten.
    let truth = vectors.nearest(&queries, 9);
    let recalls = found.iter().zip(&truth).map(|((query, near), truth)| {
        let is_near = |row: &usize| row == query || vectors.cosine_distance(*query, *row) <= truth[8] + 1e-6;
        near.iter().filter(|row| is_near(row)).count() as f64 / 10.0
    });
    recalls.sum::<f64>() / found.len() as f64
}

#[track_caller]
fn is_near(reported: &Value, computed: f64) {
    let reported = reported.as_f64().unwrap();
    assert!((reported - computed).abs() <= 0.02, "reported {reported}, computed {computed}");
}

fn built_on_an_empty_table(server: &Server, vectors: &Vectors) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE EXTENSION vector; CREATE TABLE items (id bigint, embedding vector({}));
             CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100)",
            vectors.dimensions
        ),
    );
    vectors.load(server, &database);
    server.sql(&database, "VACUUM ANALYZE items");
    database
}

#[test]
fn nothing_slower_and_less_complete_is_swapped_in() {
    crate::vector_index_stays::nothing_slower_and_less_complete_is_swapped_in([&ASKED[2..], &ASKED[1..2], &ASKED[..1]]);
}

#[test]
fn recall_is_what_a_brute_force_outside_says_and_the_target_is_reached_for_20_000_by_128() {
    recall_is_what_a_brute_force_outside_says_and_the_target_is_reached(20_000);
}

/// For so many rows by 128.
pub fn recall_is_what_a_brute_force_outside_says_and_the_target_is_reached(rows: u32) {
    let server = server(18);
    let vectors = Vectors::new(rows as usize, 128, 300);
    let database = built_on_an_empty_table(server, &vectors);
    let asked = questions(server, &database, rows / 100);
    let more = "method = 'ivfflat'\nrecall = { target = 0.95, queries = 100, time = '10min' }\nbudget = { time = '5min', queries = 20000 }\nmaintenance_work_mem = '512MiB'\napply_setting = 'database'\nprobes = 10";
    let scenario = scenario(server, &database, &format!("{more}{asked}"));
    let plan = planned(&scenario);
    assert_eq!((plan["lists_in_fact"].as_u64(), plan["now"]["setting"].as_u64()), (Some(100), Some(10)), "{plan:#}");
    is_near(&plan["now"]["recall"], brute_force(server, &database, &vectors, 10));

    let told = told(&scenario);
    let (setting, recall) = (told["after"]["setting"].as_u64().unwrap(), &told["after"]["recall"]);
    assert!(recall.as_f64().unwrap() >= 0.95 && told["swapped"] == true, "{told:#}");
    is_near(recall, brute_force(server, &database, &vectors, setting));
    let tuning = &told["tuning"];
    // The number of searches ends it, long before the time does.
    assert!(tuning["seconds"].as_f64().unwrap() <= 300.0 && tuning["budget_seconds"] == 300.0, "{tuning:#}");
    assert!(tuning["searches"].as_u64().unwrap() <= 20_100, "{tuning:#}");
    assert_eq!(used(server, &database), "items_idx");
    assert_eq!(server.sql(&database, "SHOW ivfflat.probes"), setting.to_string());
}

#[test]
fn recall_is_what_a_brute_force_outside_says_for_20_000_by_1536() {
    let server = server(16);
    let vectors = Vectors::new(20_000, 1536, 100);
    let database = built_on_an_empty_table(server, &vectors);
    let asked = questions(server, &database, 500);
    let scenario = scenario(server, &database, &format!("recall = {{ queries = 100, time = '10min' }}\nprobes = 5{asked}"));
    let plan = planned(&scenario);
    is_near(&plan["now"]["recall"], brute_force(server, &database, &vectors, 5));
    let least = &plan["least"]["found"];
    is_near(&least["recall"], brute_force(server, &database, &vectors, least["setting"].as_u64().unwrap()));
}

#[test]
fn with_auto_hnsw_is_compared_and_what_was_measured_decides() {
    with_auto_hnsw_is_compared_and_what_was_measured_decides_of(&[(18, "", true), (16, IVFFLAT, true)]);
}

/// Each case: a version, an index that is there, and whether the vectors are in clusters.
pub fn with_auto_hnsw_is_compared_and_what_was_measured_decides_of(cases: &[(u32, &str, bool)]) {
    // In clusters, a few lists have all that is near. Of random vectors half of all lists have to be read, however many there are. Which
    // of the two is faster is the clock's to say, and not this test's.
    let rough =
        &format!("TRUNCATE items; INSERT INTO items (embedding) SELECT v::vector FROM ({}) s ORDER BY i", rough((1, 8000), 32));
    for (major, index, in_clusters) in cases {
        let data = if *in_clusters { rough.as_str() } else { "" };
        let server = server(*major);
        let database = items(server, 8000, 32, &format!("{index}; {data}"));
        prefers_indexes(server, &database);
        let job = scenario(
            server,
            &database,
            "method = 'auto'\nbudget = { time = '20min', queries = 60000 }\nrecall = { target = 0.9, queries = 100 }\napply_setting = 'database'",
        );
        job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["try numbers of lists and hnsw on a copy"]);
        let told = told(&job);
        let hnsw = &told["tuning"]["hnsw"];
        assert!(hnsw["method"] == "hnsw" && hnsw["reached"] == true, "{told:#}");
        let reasons = told["decision"]["reasons"].to_string();
        assert!(reasons.contains("hnsw takes"), "{told:#}");
        let method = if reasons.contains("a change has to save 15 %") { "ivfflat" } else { "hnsw" };
        if told["built"].is_null() {
            // The present one is as good, or no index is.
            let is_kept = reasons.contains("within 15 % of it") && !index.is_empty();
            assert!(is_kept || reasons.contains("not built: "), "{told:#}");
            continue;
        }
        assert_eq!((&told["built"]["method"], &told["swapped"]), (&method.into(), &true.into()), "{told:#}");
        let name = if index.is_empty() { "items_embedding_idx" } else { "items_idx" };
        assert!(indexes(server, &database).starts_with(&format!("{name}|{method}|")), "{}", indexes(server, &database));
        assert_eq!(used(server, &database), name);
        let setting = if method == "hnsw" { "hnsw.ef_search" } else { "ivfflat.probes" };
        let is_set = server.sql(&database, &format!("SELECT '[1]'::vector \\g /dev/null\nSHOW {setting}"));
        assert_eq!(is_set, told["after"]["setting"].to_string());
    }
}
