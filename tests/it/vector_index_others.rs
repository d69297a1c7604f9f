//! Indexes on expressions and of a part of the rows: those that are understood are tended, and beside the others none is built.

use crate::support::Scenario;
use crate::support::postgres::server;
use crate::vector_index::{MOST, WITH_PGVECTOR, indexes, items, planned, prefers_indexes, scenario, smooth, told};

#[test]
fn a_column_of_several_models_is_tended_by_its_casts() {
    for major in WITH_PGVECTOR {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            &format!("CREATE EXTENSION vector; CREATE TABLE items (id int, model_id int, embedding vector);
             INSERT INTO items SELECT i, 1 + i % 2, v[1:CASE i % 2 WHEN 0 THEN 8 ELSE 12 END]::vector FROM ({}) s ORDER BY i;
             CREATE INDEX ix1 ON items USING hnsw ((embedding::vector(8)) vector_cosine_ops) WHERE model_id = 1;
             CREATE INDEX ix2 ON items USING ivfflat ((embedding::halfvec(12)) halfvec_cosine_ops) WITH (lists = 10) WHERE model_id = 2; VACUUM ANALYZE items", smooth((1, 6000), 12)),
        );
        prefers_indexes(server, &database);
        let job = |index: &str, more: &str| {
            scenario(server, &database, &format!("{index}\nexact_below = 100\napply_setting = 'database'\n{more}"))
        };
        job("", "").run(&["run-job", "tend"]).exited(78).says(&["several indexes on casts of it: ix1, ix2", "index = \"NAME\""]);
        let plan = planned(&job("index = 'ix1'", ""));
        assert_eq!((&plan["dimensions"], &plan["rows"]), (&8.into(), &3000.0.into()), "{plan:#}");
        assert!(plan["now"]["recall"].as_f64().unwrap() > 0.9, "{plan:#}");
        job("index = 'ix1'", "")
            .run(&["run-job", "tend", "--dry-run"])
            .succeeded()
            .prints(&["ORDER BY (\"embedding\"::vector(8)) <=> $1::vector(8)"]);
        let tended = told(&job("index = 'ix1'", "m = 24"));
        assert_eq!(tended["swapped"], true, "{tended:#}");
        let tended = told(&job("index = 'ix2'", "lists = 20"));
        assert_eq!(tended["swapped"], true, "{tended:#}");
        let definitions = server.sql(
            &database,
            "SELECT string_agg(pg_get_indexdef(indexrelid), E'\\n' ORDER BY 1) FROM pg_index WHERE indrelid = 'items'::regclass",
        );
        for part in [
            "ix1 ON public.items USING hnsw (((embedding)::vector(8)) vector_cosine_ops) WITH (m='24'",
            "WHERE (model_id = 1)",
            "ix2 ON public.items USING ivfflat (((embedding)::halfvec(12)) halfvec_cosine_ops) WITH (lists='20') WHERE (model_id = 2)",
        ] {
            assert!(definitions.contains(part), "{part}: {definitions}");
        }
    }
}

#[test]
fn an_index_of_another_column_is_never_replaced_or_dropped() {
    let server = server(18);
    let database = items(server, 8000, 16, "ALTER TABLE items ADD mycol vector(16), ADD \"my col\" vector(16)");
    prefers_indexes(server, &database);
    // The same name to whoever does not look at quotes and spaces; and an operator class of the name, but not pgvector's.
    server.sql(
        &database,
        "UPDATE items SET mycol = embedding, \"my col\" = embedding;
         CREATE INDEX of_another ON items USING ivfflat ((\"my col\"::halfvec(16)) halfvec_cosine_ops) WITH (lists = 4);
         CREATE SCHEMA foreign_ops; CREATE OPERATOR CLASS foreign_ops.vector_cosine_ops FOR TYPE vector USING hnsw AS
           OPERATOR 1 <=> (vector, vector) FOR ORDER BY float_ops, FUNCTION 1 vector_negative_inner_product(vector, vector), FUNCTION 2 vector_norm(vector);
         VACUUM ANALYZE items",
    );
    let oid = |name: &str| server.sql(&database, &format!("SELECT '{name}'::regclass::oid"));
    let before = oid("of_another");
    let job = Scenario::with_database(server, &database).job(
        "tend",
        &format!("database = 'app'\n[vector_index]\ntable = 'public.items'\ncolumn = 'mycol'\nmethod = 'hnsw'\nm = 8\nef_construction = 32\napply_setting = 'database'\n{MOST}\n"),
    );
    assert_eq!(told(&job)["swapped"], true);
    assert_eq!(oid("of_another"), before);
    assert_eq!(indexes(server, &database), "items_mycol_idx|hnsw|m=8 ef_construction=32|t\nof_another|ivfflat|lists=4|t");
    server.sql(
        &database,
        "DROP INDEX items_mycol_idx; CREATE INDEX foreign_idx ON items USING hnsw (mycol foreign_ops.vector_cosine_ops)",
    );
    job.run(&["run-job", "tend"]).exited(78).says(&["foreign_idx", "none is built beside it"]);
    assert!(indexes(server, &database).contains("foreign_idx|hnsw||t"));
}

#[test]
fn of_a_partial_index_plan_and_report_say_which_rows_it_holds_and_one_of_all_rows_comes_first() {
    let server = server(18);
    let database = items(server, 6000, 16, "ALTER TABLE items ADD tenant_id int; UPDATE items SET tenant_id = id % 2");
    server.sql(
        &database,
        "CREATE INDEX part ON items USING hnsw (embedding vector_cosine_ops) WHERE tenant_id = 1; VACUUM ANALYZE items",
    );
    let job = |more: &str| scenario(server, &database, &format!("exact_below = 100\n{more}"));
    // The first release took it without a name.
    for more in ["", "index = 'part'"] {
        job(more).run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["it holds only the rows WHERE (tenant_id = 1)"]);
    }
    let told_of_it = told(&job(""));
    assert!(told_of_it["predicate"] == "(tenant_id = 1)", "{told_of_it:#}");
    let by_filter = job("filter = 'tenant_id = 1'\napply_setting = 'database'");
    assert_eq!(planned(&by_filter)["predicate"], "(tenant_id = 1)");
    assert!(told(&by_filter)["predicate"] == "(tenant_id = 1)");
    server.sql(&database, "CREATE INDEX whole ON items USING hnsw (embedding vector_cosine_ops)");
    assert_eq!(planned(&job(""))["index"], "whole");
}

#[test]
fn beside_an_index_that_is_not_understood_none_is_built() {
    let server = server(18);
    for (on, class) in [
        ("(binary_quantize(embedding)::bit(64))", "bit_hamming_ops"),
        ("(subvector(embedding, 1, 16)::vector(16))", "vector_cosine_ops"),
    ] {
        let database = items(server, 8000, 64, &format!("CREATE INDEX quantized ON items USING hnsw ({on} {class})"));
        prefers_indexes(server, &database);
        let there = indexes(server, &database);
        let job = scenario(server, &database, "apply_setting = 'database'");
        for command in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"]] {
            job.run(command).exited(78).says(&["has no index on \"embedding\" itself, but quantized", "none is built beside it"]);
        }
        job.run(&["check", "--connect"]).exited(78).prints(&["quantized"]);
        scenario(server, &database, "index = 'quantized'")
            .run(&["run-job", "tend"])
            .exited(78)
            .says(&["can neither measure nor tend it"]);
        assert_eq!(indexes(server, &database), there);
        // Whoever wants another one says its name; and then the first one is left alone.
        let named = scenario(server, &database, "index = 'whole'\nlists = 20\napply_setting = 'database'");
        assert_eq!(told(&named)["swapped"], true);
        named.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["index quantized, which is hnsw (", "is left alone"]);
        assert_eq!(indexes(server, &database), format!("{there}\nwhole|ivfflat|lists=20|t"));
    }
}

#[test]
fn a_setting_that_others_need_is_told_with_whose_it_is() {
    let server = server(18);
    let database =
        items(server, 3000, 16, "CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 30)");
    server.sql(
        &database,
        "CREATE TABLE others AS TABLE items; CREATE INDEX others_idx ON others USING ivfflat (embedding vector_cosine_ops) WITH (lists = 40);
         COMMENT ON INDEX others_idx IS 'pgtend: {\"measured_at\":\"2026-11-01T00:00:00Z\",\"rows\":3000,\"setting\":29,\"recall\":0.96,\"tuned\":true}'",
    );
    let job = scenario(server, &database, "lists = 30\napply_setting = 'database'");
    job.run(&["run-job", "tend", "--dry-run"])
        .succeeded()
        .prints(&["ivfflat.probes = 29", "(public.others_idx of public.others)"]);
}

#[test]
fn too_little_memory_is_told_before_anything_is_measured() {
    let server = server(18);
    let database = items(
        server,
        20_000,
        32,
        "CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 30)",
    );
    let job = scenario(server, &database, "lists = 1000\nmaintenance_work_mem = '8MiB'").ledger();
    job.run(&["run-job", "tend"]).exited(78).says(&["maintenance_work_mem is 8.4 MB", "in the job"]);
    let progress = server.sql(&database, "SELECT coalesce(progress::text, '') FROM pgtend.runs ORDER BY id DESC LIMIT 1");
    assert!(!progress.contains("measure"), "{progress}");
}

#[test]
fn a_full_shared_memory_makes_a_serial_build_and_no_failure() {
    let port = crate::support::serve::free_port();
    let settings = vec!["listen_addresses=127.0.0.1".to_owned()];
    let different = crate::support::postgres::Different { settings, port: Some(port), ..Default::default() };
    let server = crate::support::postgres::Server::start_different(18, different);
    let database = items(&server, 20_000, 16, "ALTER TABLE items SET (parallel_workers = 2)");
    prefers_indexes(&server, &database);
    // More than /dev/shm has, whatever that is; over TCP pgtend cannot look.
    let url = format!("postgres://postgres@127.0.0.1:{port}/{database}");
    let job = Scenario::with_url(&server, &url).job(
        "tend",
        "database = 'app'\n[vector_index]\ntable = 'public.items'\ncolumn = 'embedding'\nmethod = 'hnsw'\nm = 8\nrecall = { target = 0.9, queries = 100 }\nmaintenance_work_mem = '1TiB'\nparallel_workers = 2\napply_setting = 'database'\n",
    );
    let json = job.json(&["run-job", "tend"]);
    let report = &json["runs"][0]["report"];
    assert_eq!(report["facts"]["tables"][0]["swapped"], true, "{report:#}");
    assert!(report["warnings"].to_string().contains("built by one process"), "{report:#}");
    assert_eq!(indexes(&server, &database), "items_embedding_idx|hnsw|m=8 ef_construction=64|t");
}

#[test]
fn a_prepared_transaction_is_named_and_waited_for_no_longer_than_max_wait() {
    let server = crate::support::postgres::Server::start_with(18, &["max_prepared_transactions=5"]);
    let database =
        items(&server, 3000, 16, "CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 30)");
    for (begun, is_locked) in [
        ("INSERT INTO items (embedding) SELECT embedding FROM items LIMIT 1", false),
        ("LOCK TABLE items IN ACCESS EXCLUSIVE MODE", true),
    ] {
        server.sql(&database, &format!("BEGIN; {begun}; PREPARE TRANSACTION 'xa1'"));
        let job = scenario(
            &server,
            &database,
            "lists = 20\napply_setting = 'database'\n[limits]\nlock_timeout = '300ms'\nmax_wait = '2s'",
        );
        job.run(&["run-job", "tend"]).exited(75).says(&["prepared transaction 'xa1'"]);
        assert_eq!(indexes(&server, &database), "items_idx|ivfflat|lists=30|t", "{is_locked}");
        server.sql(&database, "ROLLBACK PREPARED 'xa1'");
    }
}
