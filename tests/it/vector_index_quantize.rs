//! Indexes in half precision and on bits, which are smaller; and the function by which applications search by bits: it finds what is reported.

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::vector_index::{WITH_PGVECTOR, indexes, items, planned, prefers_indexes, scenario, smooth, told};

const BITS: &str = "quantize = 'bit'\nm = 16";

/// The share of the ten nearest rows that a search finds, of rows as queries, by the server's own exact searches. `found`: SQL of a search for `q.embedding`.
fn recall(server: &Server, database: &str, found: &str) -> f64 {
    let queries = "(SELECT id, embedding FROM items WHERE id % 200 = 7) q";
    let said = server.sql(
        database,
        &format!(
            "SET enable_indexscan = off; CREATE TEMP TABLE exact AS SELECT q.id, f.id AS item FROM {queries}, LATERAL (SELECT id FROM items ORDER BY embedding <=> q.embedding LIMIT 10) f;
             RESET enable_indexscan; CREATE TEMP TABLE found AS SELECT q.id, f.id AS item FROM {queries}, LATERAL ({found}) f;
             SELECT count(*)::float8 / (SELECT count(*) FROM exact) FROM found JOIN exact USING (id, item)"
        ),
    );
    said.lines().last().unwrap().parse().unwrap()
}

fn function(server: &Server, database: &str) -> String {
    server.sql(
        database,
        "SELECT p.oid::regprocedure, pg_get_userbyid(p.proowner), prosecdef, provolatile, array_to_string(proconfig, ' ') FROM pg_proc p WHERE proname LIKE 'pgtend_search_%'",
    )
}

#[test]
fn by_bits_the_function_finds_what_is_reported_with_an_index_of_a_fraction_of_the_size() {
    for major in WITH_PGVECTOR {
        let server = server(major);
        let database = items(server, 8000, 128, "CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops)");
        prefers_indexes(server, &database);
        let job = scenario(server, &database, BITS);
        job.run(&["check"]).succeeded();
        job.run(&["run-job", "tend", "--dry-run"])
            .succeeded()
            .prints(&[r#"SELECT * FROM "public"."pgtend_search_items"($1, 10)"#]);
        assert_eq!(function(server, &database), "", "a dry run makes nothing");
        let first = told(&job);
        assert!(first["swapped"] == true && first["after"]["lower"].as_f64().unwrap() >= 0.8999, "{first:#}");
        let candidates = first["function"]["candidates"].as_u64().unwrap();
        assert!(
            first["function"]["ms"].as_f64().unwrap() > 0.0 && first["in_turns"]["queries"].as_u64().unwrap() > 0,
            "{first:#}"
        );
        assert!(first["summary"].to_string().contains("applications search with SELECT * FROM"), "{first:#}");
        assert_eq!(
            function(server, &database),
            format!(
                "pgtend_search_items(vector,integer)|postgres|f|s|search_path=pg_catalog, pg_temp hnsw.ef_search={candidates}"
            )
        );
        // The index on the vectors themselves stays, until applications search by the function.
        assert_eq!(indexes(server, &database), "items_embedding_bit_idx|hnsw|m=16 ef_construction=64|t\nitems_idx|hnsw||t");
        let sizes =
            server.sql(&database, "SELECT pg_relation_size('items_embedding_bit_idx')::float8 / pg_relation_size('items_idx')");
        assert!(sizes.parse::<f64>().unwrap() < 0.6, "{sizes}");
        let scans = "SELECT pg_stat_force_next_flush(); SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelname = 'items_embedding_bit_idx'";
        let before: u64 = server.sql(&database, scans).trim().parse().unwrap();
        let found = recall(server, &database, "SELECT id FROM pgtend_search_items(q.embedding, 10)");
        assert!(found >= first["after"]["recall"].as_f64().unwrap() - 0.03, "{found}: {first:#}");
        // A session that has ended tells its scans within moments.
        crate::support::eventually("the function has searched the index", || {
            server.sql(&database, scans).trim().parse::<u64>().unwrap() >= before + 40
        });
        // The function has its own: what it needs is no need of searches by the other index, and nothing unknown, either.
        let of_other = scenario(server, &database, "index = 'items_idx'\napply_setting = 'database'");
        let said = of_other.run(&["run-job", "tend", "--dry-run"]).succeeded().stdout;
        assert!(!said.contains("other indexes"), "{said}");
        let second = told(&job);
        assert!(second["decision"]["do"] == "nothing" && second["function"]["candidates"] == candidates, "{second:#}");
    }
}

#[test]
fn a_function_with_too_few_candidates_gets_as_many_as_the_target_needs() {
    let server = server(18);
    let database = items(server, 8000, 64, "");
    prefers_indexes(server, &database);
    let job = |target: f64| scenario(server, &database, &format!("{BITS}\nrecall = {{ target = {target}, queries = 100 }}"));
    let low = told(&job(0.5));
    let high = told(&job(0.95));
    let candidates = |told: &serde_json::Value| told["function"]["candidates"].as_u64().unwrap();
    assert!(candidates(&low) >= 40 && candidates(&high) >= candidates(&low), "{low:#} {high:#}");
    assert!(high["built"].is_null(), "{high:#}");
    let found = recall(server, &database, "SELECT id FROM pgtend_search_items(q.embedding, 10)");
    assert!(found >= 0.9, "{found}");
}

#[test]
fn the_functions_names_are_its_own_whoever_calls_it() {
    let server = server(18);
    let database = server.new_database();
    let table = r#""Ö d.d"."it""ems; --""#;
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA \"Ö d.d\"; CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext;
             CREATE TABLE {table} (id int, \"em.b't\" ext.vector(64), note text DEFAULT 'it''s');
             INSERT INTO {table} SELECT i, v::ext.vector FROM ({}) s ORDER BY i; ANALYZE",
            smooth((1, 8000), 64)
        ),
    );
    prefers_indexes(server, &database);
    let role = format!("owner_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; ALTER TABLE {table} OWNER TO {role}; GRANT CREATE, USAGE ON SCHEMA \"Ö d.d\" TO {role}; GRANT USAGE ON SCHEMA ext TO {role}"
        ),
    );
    let job = Scenario::with_url(server, &server.url_as(&role, &database)).job(
        "tend",
        "database = 'app'\n[vector_index]\ntable = '''\"Ö d.d\".\"it\"\"ems; --\"'''\ncolumn = '''em.b't'''\nmetric = 'l2'\nquantize = 'bit'\nm = 16\nrecall = { queries = 100, target = 0.8 }\n",
    );
    let told = told(&job);
    assert!(told["swapped"] == true && told["function"]["name"] == r#""Ö d.d"."pgtend_search_it""ems; --""#, "{told:#}");
    assert!(function(server, &database).contains(&format!("|{role}|f|s|")), "{}", function(server, &database));
    // Names of the caller's schemas are nothing to it.
    server.sql(&database, "CREATE SCHEMA evil; CREATE FUNCTION evil.binary_quantize(ext.vector) RETURNS bit LANGUAGE sql AS 'SELECT B''1'' WHERE 1 / 0 = 1'");
    let found = server.sql(
        &database,
        &format!(
            "SET search_path = evil, ext; SET hnsw.ef_search = 1; SELECT count(*), count(note), max(t.id) FROM (SELECT \"em.b't\" AS v FROM {table} WHERE id = 7) q, \"Ö d.d\".\"pgtend_search_it\"\"ems; --\"(q.v, 5) t;
             SELECT t.id FROM (SELECT \"em.b't\" AS v FROM {table} WHERE id = 7) q, \"Ö d.d\".\"pgtend_search_it\"\"ems; --\"(q.v, 1) t"
        ),
    );
    let lines: Vec<&str> = found.lines().collect();
    assert!(lines[0].starts_with("5|5|") && lines[1] == "7", "{found}");
    server.sql(&database, &format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn a_function_of_that_name_that_is_not_pgtends_is_refused_before_anything_is_built() {
    let server = server(18);
    let database = items(server, 3000, 32, "");
    let role = format!("other_{database}");
    let made =
        "CREATE FUNCTION pgtend_search_items(v vector, n int) RETURNS SETOF items LANGUAGE sql AS 'SELECT * FROM items LIMIT 0'";
    server.sql(&database, &format!("CREATE ROLE {role}; {made}"));
    let job = scenario(server, &database, BITS);
    job.run(&["run-job", "tend"]).exited(78).says(&["pgtend_search_items", "is not pgtend's"]);
    server.sql(
        &database,
        &format!("COMMENT ON FUNCTION pgtend_search_items IS 'pgtend: finds'; GRANT CREATE ON SCHEMA public TO {role}; ALTER FUNCTION pgtend_search_items OWNER TO {role}"),
    );
    for command in [&["run-job", "tend", "--dry-run"][..], &["run-job", "tend"]] {
        job.run(command).exited(78).says(&["belongs to a role that does not own the table"]);
    }
    assert_eq!(indexes(server, &database), "");
    server.sql(&database, &format!("DROP FUNCTION pgtend_search_items; DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn in_half_precision_an_index_is_built_beside_and_the_report_says_how_to_ask() {
    let server = server(18);
    let database = items(server, 8000, 64, "CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops)");
    prefers_indexes(server, &database);
    let job = scenario(server, &database, "quantize = 'halfvec'\nmethod = 'hnsw'\nm = 16\napply_setting = 'database'");
    let first = told(&job);
    let asks = r#"ORDER BY (\"embedding\"::halfvec(64)) <=> $1::halfvec(64)"#;
    assert!(first["swapped"] == true && first["summary"].to_string().contains(asks), "{first:#}");
    assert_eq!(indexes(server, &database), "items_embedding_halfvec_idx|hnsw|m=16 ef_construction=64|t\nitems_idx|hnsw||t");
    let sizes =
        server.sql(&database, "SELECT pg_relation_size('items_embedding_halfvec_idx')::float8 / pg_relation_size('items_idx')");
    assert!(sizes.parse::<f64>().unwrap() < 0.85, "{sizes}");
    assert_eq!(told(&job)["decision"]["do"], "nothing");
    assert_eq!(function(server, &database), "");
}

#[test]
fn what_cannot_be_quantized_is_told_before_anything_runs() {
    let server = server(18);
    let database = items(server, 10, 4, "ALTER TABLE items ADD bits bit(4), ADD half halfvec(4), ADD free vector");
    for (more, says) in [
        ("quantize = 'bits'", "did you mean `bit`"),
        ("quantize = 'bit'\nmethod = 'ivfflat'", "another method than hnsw"),
        ("quantize = 'bit'\nmetric = 'l1'", "this `metric`"),
        ("quantize = 'bit'\nfilter = 'id = $1'", "`filter`"),
        ("quantize = 'bit'\napply_setting = 'database'", "the function has the setting that it needs"),
    ] {
        scenario(server, &database, more).run(&["check"]).exited(78).says(&[says]);
    }
    for (column, more, says) in [
        ("bits", "quantize = 'halfvec'", "is of type bit"),
        ("half", "quantize = 'halfvec'", "is of type halfvec"),
        ("free", "quantize = 'bit'", "with a number of dimensions"),
    ] {
        let job = scenario(server, &database, more);
        let text = format!("database = 'app'\n[vector_index]\ntable = 'items'\ncolumn = '{column}'\n{more}\n");
        job.job("other", &text).run(&["run-job", "other"]).exited(78).says(&[says]);
    }
    assert_eq!(planned(&scenario(server, &database, "quantize = 'bit'"))["decision"]["do"], "nothing");
}
