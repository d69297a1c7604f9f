//! Settings that all searches of a database share: what others need stays. And filters that tell nothing, which is no success.

use serde_json::Value;

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::vector_index::{items, planned, prefers_indexes, scenario, told};

/// 1,200 wide rows of ten tenants, where a search without its own filter's rows in view loses many.
fn tenants(server: &Server) -> String {
    let database = items(
        server,
        1200,
        8,
        "ALTER TABLE items ADD tenant_id int, ADD metadata jsonb, ADD name text, ADD tags text[], ADD filler text",
    );
    server.sql(
        &database,
        "ALTER TABLE items ALTER filler SET STORAGE PLAIN;
         UPDATE items SET tenant_id = id % 10, metadata = jsonb_build_object('tenant', (id % 10)::text), name = 'Name' || id % 10, tags = ARRAY['a'],
           filler = repeat('x', 3500);
         VACUUM FULL items; CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops); ANALYZE items",
    );
    database
}

fn of_tenants(server: &Server, database: &str, more: &str) -> Scenario {
    let recall = if more.contains("recall =") { "" } else { "recall = { queries = 100, target = 0.9 }\n" };
    scenario(server, database, &format!("exact_below = 100\n{recall}{more}"))
}

/// The settings of the database and its roles.
fn settings(server: &Server, database: &str) -> String {
    server.sql(
        "postgres",
        &format!(
            "SELECT string_agg(coalesce(r.rolname, '') || ':' || one, ' ') FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) one WHERE d.datname = '{database}' AND one ~ '^(hnsw|ivfflat)'"
        ),
    )
}

#[test]
fn a_filter_that_is_not_measured_is_a_failure_that_says_why() {
    let server = server(18);
    let database = tenants(server);
    server.sql(
        &database,
        "CREATE TABLE search_log AS SELECT embedding, CASE WHEN id = 7 THEN 7 END AS tenant_id FROM items LIMIT 100",
    );
    let log = "[vector_index.queries]\ntable = 'search_log'";
    for (more, says) in [
        ("filter = \"metadata->>'tenant' = $1\"".to_owned(), "0 of 100 searches with it found a row, and 20 are needed"),
        ("filter = 'lower(name) = $1'".to_owned(), "0 of 100 searches with it found a row"),
        (format!("filter = 'name = $1'\n{log}"), "none of 100 queries has a value of \"name\""),
        (format!("filter = 'tenant_id = $1'\n{log}"), "1 of 1 search with it found a row"),
    ] {
        let job = of_tenants(server, &database, &format!("ef_search = 1000\n{more}"));
        job.run(&["run-job", "tend"]).exited(1).says(&["could not be measured: ", says]);
        job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["could not be measured: ", says]);
    }
    of_tenants(server, &database, "filter = '(id, tenant_id) = ($1, $2)'").run(&["check"]).exited(78).says(&["compares rows"]);
}

#[test]
fn a_filter_whose_exact_searches_are_slow_is_not_measured_and_says_so() {
    let server = server(18);
    let database = tenants(server);
    let slow = "filter = 'tenant_id = $1 AND pg_catalog.pg_sleep(0.05) IS NOT NULL'\nef_search = 1000\nrecall = { queries = 20, target = 0.8, time = '24s' }";
    let job = of_tenants(server, &database, slow);
    let plan = planned(&job);
    assert!(plan["filters"][0]["unmeasured"].to_string().contains("raise `time`"), "{plan:#}");
    assert!(plan["now"]["recall"].as_f64().is_some(), "the index itself was measured: {plan:#}");
    job.run(&["run-job", "tend"]).exited(1).says(&["could not be measured: only 0 exact searches with it finished in 2.0 s"]);
}

#[test]
fn filters_in_their_documented_forms_are_measured() {
    let server = server(18);
    let database = tenants(server);
    server.sql(&database, "CREATE TABLE search_log AS SELECT embedding, tenant_id FROM items ORDER BY id LIMIT 60");
    let sql = |columns: &str| format!("[vector_index.queries]\nsql = \"SELECT embedding, {columns} FROM search_log\"");
    for more in [
        "filter = 'tenant_id OPERATOR(pg_catalog.=) $1'".to_owned(),
        "filter = 'lower(name) = lower($1)'".to_owned(),
        "filter = 'items.tenant_id = $1'".replace("items.", "t."),
        format!("filter = 'tags @> $1'\n{}", sql("ARRAY['a'] AS tags")),
        format!("filter = \"metadata->>'tenant' = $1\"\n{}", sql("tenant_id::text AS metadata")),
    ] {
        let plan = planned(&of_tenants(server, &database, &more));
        let filter = &plan["filters"][0];
        assert!(filter["unmeasured"].is_null() && filter["today"]["queries"].as_u64() >= Some(20), "{more}: {filter:#}");
    }
}

#[test]
fn a_setting_is_not_lowered_while_nobody_knows_what_another_index_needs() {
    let server = server(18);
    let database = items(server, 3000, 16, "CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops)");
    server.sql(
        &database,
        &format!("CREATE TABLE other AS TABLE items; CREATE INDEX other_idx ON other USING hnsw (embedding vector_l2_ops); ALTER DATABASE {database} SET hnsw.ef_search = 200"),
    );
    prefers_indexes(server, &database);
    let job = scenario(server, &database, "apply_setting = 'database'");
    let says =
        "hnsw.ef_search = 200 stays, because pgtend does not know what other indexes need: public.other_idx of public.other";
    job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&[says]);
    let report = told(&job);
    assert!(report["summary"].to_string().contains(says), "{report:#}");
    assert_eq!(settings(server, &database), ":hnsw.ef_search=200");
    // Nor by a build.
    let report = told(&scenario(server, &database, "m = 24\nef_construction = 64\napply_setting = 'database'"));
    assert!(report["swapped"] == true && report["summary"].to_string().contains(says), "{report:#}");
    assert_eq!(settings(server, &database), ":hnsw.ef_search=200");
    // Without it the setting is this index's alone.
    server.sql(&database, "DROP TABLE other");
    told(&job);
    assert_ne!(settings(server, &database), ":hnsw.ef_search=200");
}

#[test]
fn what_comments_of_temporary_tables_and_other_owners_say_raises_nothing() {
    let server = server(18);
    let database = items(server, 8000, 16, "");
    prefers_indexes(server, &database);
    let role = format!("mallory_{database}");
    server.sql(&database, &format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA theirs AUTHORIZATION {role}"));
    let comment =
        "'pgtend: {\"measured_at\":\"2026-01-01T00:00:00Z\",\"rows\":1,\"setting\":1000,\"recall\":0.5,\"tuned\":true}'";
    let session = server.session(&database, &format!(
        "SET ROLE {role}; CREATE TEMP TABLE evil (v public.vector(3)); CREATE INDEX evil_idx ON evil USING hnsw (v public.vector_l2_ops); COMMENT ON INDEX evil_idx IS {comment};
         CREATE TABLE theirs.evil (v public.vector(3)); CREATE INDEX evil_idx ON theirs.evil USING hnsw (v public.vector_l2_ops); COMMENT ON INDEX theirs.evil_idx IS {comment}"
    ));
    let job = scenario(server, &database, "m = 16\nef_construction = 64\napply_setting = 'database'");
    let report = told(&job);
    assert!(report["swapped"] == true && !report.to_string().contains("= 1000"), "{report:#}");
    assert!(!settings(server, &database).contains("1000"));
    drop(session);
    server.sql(&database, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn scans_that_others_set_are_neither_shortened_nor_put_out_of_order() {
    let server = server(18);
    let database = tenants(server);
    let role = format!("app_{database}");
    server.sql(
        "postgres",
        &format!(
            "CREATE ROLE {role}; ALTER DATABASE {database} SET hnsw.max_scan_tuples = 500000; ALTER ROLE {role} IN DATABASE {database} SET hnsw.iterative_scan = 'strict_order'"
        ),
    );
    let job = |place: &str| of_tenants(server, &database, &format!("filter = 'tenant_id = $1'\napply_setting = '{place}'"));
    // The role has its order already, and reads as far as the database's setting lets it.
    let report = told(&job(&format!("role:{role}")));
    assert!(report["filters"][0]["reached"] == true && report["iterative_scan_applied"].is_null(), "{report:#}");
    job("database")
        .run(&["run-job", "tend", "--dry-run"])
        .succeeded()
        .prints(&["with hnsw.iterative_scan = ", "the run sets it (apply_setting)"]);
    let report = told(&job("database"));
    let applied = report["iterative_scan_applied"].to_string();
    assert!(applied.contains("hnsw.iterative_scan = ") && !applied.contains("max_scan_tuples"), "{report:#}");
    let now = settings(server, &database);
    assert!(
        now.contains(":hnsw.max_scan_tuples=500000") && now.contains(&format!("{role}:hnsw.iterative_scan=strict_order")),
        "{now}"
    );
    // Another job of the same place finds what it needs.
    assert!(told(&job("database"))["iterative_scan_applied"].is_null());
    server.sql("postgres", &format!("ALTER ROLE {role} IN DATABASE {database} RESET ALL; DROP ROLE {role}"));
}

#[test]
fn searches_of_today_are_those_of_applications_and_not_of_pgtends_own_role() {
    let server = server(18);
    let database = tenants(server);
    server.sql("postgres", &format!("ALTER ROLE postgres IN DATABASE {database} SET hnsw.iterative_scan = 'strict_order'"));
    let job = of_tenants(server, &database, "filter = 'tenant_id = $1'");
    let plan: Value = planned(&job);
    let today = &plan["filters"][0]["today"];
    assert!(today["recall"].as_f64() < Some(0.9) && today["short"].as_u64() > Some(20), "{plan:#}");
    job.run(&["run-job", "tend"]).exited(1).says(&["and reach it with hnsw.iterative_scan = "]);
    server.sql("postgres", &format!("ALTER ROLE postgres IN DATABASE {database} RESET ALL"));
}
