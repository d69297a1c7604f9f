//! Searches with a filter: what they find, the rows that they get, and the settings by which they get enough. And what applications' statements show.

use serde_json::Value;

use crate::support::postgres::{Server, server};
use crate::vector_index::{WITH_PGVECTOR, indexes, items, planned, scenario, told};

const HNSW: &str = "ALTER TABLE items ADD tenant_id int, ADD lang text; UPDATE items SET tenant_id = id * 7919 % 1009 % 9, lang = CASE WHEN id * 7919 % 1009 % 3 = 0 THEN 'o''de' ELSE 'en' END;
    CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops)";

/// Each tenant's rows are everywhere: of the forty nearest rows some four are its own.
fn of_tenants(server: &Server, rows: u32) -> String {
    let database = items(server, rows, 16, "");
    server.sql(&database, &format!("{HNSW}; VACUUM FULL items; ANALYZE items"));
    database
}

fn iterative_scan(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT '[1]'::vector \\g /dev/null\nSHOW hnsw.iterative_scan")
}

/// Recall and the number of rows, as a share, of searches of a tenant's rows for other neighbours among its own, by the server's own exact searches.
fn filtered_truth(server: &Server, database: &str, settings: &str) -> (f64, f64) {
    let each = "items q, LATERAL (SELECT f.id FROM items f WHERE f.tenant_id = q.tenant_id AND f.id <> q.id ORDER BY f.embedding <=> q.embedding LIMIT 10) f WHERE q.id % 100 = 7";
    // The values are constants in a statement of an application: each is a statement of its own.
    let by_index =
        "CREATE TEMP TABLE t (id int, item int); DO $$ DECLARE q record; BEGIN FOR q IN SELECT * FROM items WHERE id % 100 = 7 LOOP
           EXECUTE format('INSERT INTO t SELECT %s, id FROM items WHERE tenant_id = %s ORDER BY embedding <=> %L LIMIT 11', q.id, q.tenant_id, q.embedding); END LOOP; END $$";
    let said = server.sql(
        database,
        &format!(
            "SELECT '[1]'::vector \\g /dev/null\nSET enable_indexscan = off; CREATE TEMP TABLE exact AS SELECT q.id, f.id AS item FROM {each}; RESET enable_indexscan;
             {settings} {by_index};
             SELECT count(*) FILTER (WHERE t.id IS NOT NULL)::float8 / count(*), (SELECT count(*) FROM t WHERE id <> item)::float8 / count(*) FROM exact LEFT JOIN t USING (id, item)"
        ),
    );
    let (recall, rows) = said.lines().last().unwrap().split_once('|').unwrap();
    (recall.parse().unwrap(), rows.parse().unwrap())
}

#[test]
fn what_a_filter_loses_is_measured_and_an_iterative_scan_is_set_that_finds_it() {
    for major in WITH_PGVECTOR {
        let server = server(major);
        let database = of_tenants(server, 20_000);
        let quiet = scenario(server, &database, "filter = 'tenant_id = $1'");
        let plan = planned(&quiet);
        let today = &plan["filters"][0]["today"];
        let (recall, short) = (today["recall"].as_f64().unwrap(), today["short"].as_u64().unwrap());
        assert_eq!(today["scans"][0], "items_idx", "the planner searches the index: {plan:#}");
        quiet.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["not measured (runs measure it, dry runs do not)"]);
        let (true_recall, rows) = filtered_truth(server, &database, "");
        assert!(
            recall < 0.8 && (recall - true_recall).abs() < 0.15 && short > 20 && rows < 0.9,
            "{recall} {true_recall} {rows}: {plan:#}"
        );
        // Without a place for the setting it says what to set, and is no success.
        quiet.run(&["run-job", "tend"]).exited(1).says(&["tenant_id = $1", "hnsw.iterative_scan = ", "set apply_setting"]);
        assert_eq!(iterative_scan(server, &database), "off");

        let loud = scenario(
            server,
            &database,
            "filter = ['tenant_id = $1', 'lang = $1 AND NOT (tenant_id = $2)']\napply_setting = 'database'\nrecall = { target = 0.9, queries = 400 }",
        );
        let report = told(&loud);
        let filter = &report["filters"][0];
        assert_eq!((&filter["partial"]["values"], &filter["partial"]["reached"]), (&9.into(), &true.into()), "{report:#}");
        let summary = report["summary"].as_str().unwrap();
        assert!(
            summary.contains("a partial hnsw index WHERE tenant_id = E'") && summary.contains("the fastest that reaches 0.9: "),
            "{summary}"
        );
        assert_eq!(
            server.sql(&database, "SELECT count(*) FROM pg_index WHERE indpred IS NOT NULL"),
            "0",
            "it was measured on a copy"
        );
        assert!(report["iterative_scan_applied"].to_string().contains("hnsw.iterative_scan"), "{report:#}");
        assert_ne!(iterative_scan(server, &database), "off");
        assert_eq!(report["filters"].as_array().unwrap().len(), 2, "{report:#}");
        let (recall, rows) = filtered_truth(server, &database, "");
        assert!(recall >= 0.95 && rows > 0.999, "{recall} {rows}: {report:#}");
        // The next run finds nothing to do.
        let second = told(&loud);
        assert!(second["iterative_scan_applied"].is_null() && second["filters"][0]["reached"] == true, "{second:#}");
    }
}

#[test]
fn a_filter_that_nothing_reaches_is_a_failure_that_says_what_helps() {
    let server = server(18);
    let database = of_tenants(server, 20_000);
    // So few rows that hnsw gives up before it has found them; the planner is kept from reading the table.
    server.sql(&database, "UPDATE items SET tenant_id = 1000 + id % 4000; ALTER TABLE items ALTER tenant_id SET STATISTICS 0; DELETE FROM pg_statistic WHERE starelid = 'items'::regclass AND staattnum = 3");
    let job = scenario(server, &database, "filter = 'tenant_id <= $1 AND tenant_id >= $1'\napply_setting = 'database'");
    let ran = job.run(&["run-job", "tend", "--json"]);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let table = &json["runs"][0]["report"]["facts"]["tables"][0];
    match ran.code {
        // The planner found a way of its own, or the scan went far enough.
        Some(0) => assert_eq!(table["filters"][0]["reached"], true, "{table:#}"),
        code => {
            assert_eq!(code, Some(1), "{ran:?}");
            assert!(
                ran.stderr.contains("partial hnsw index") && ran.stderr.contains("An index on the filter's columns"),
                "{}",
                ran.stderr
            );
        }
    }
}

#[test]
fn values_of_a_filter_come_from_the_log_where_it_has_them() {
    let server = server(18);
    let database = of_tenants(server, 5000);
    server.sql(
        &database,
        "CREATE TABLE search_log AS SELECT embedding, tenant_id FROM items ORDER BY id LIMIT 200; UPDATE search_log SET tenant_id = 4; UPDATE items SET tenant_id = 4 WHERE id % 2 = 0; ANALYZE items",
    );
    let log = "[vector_index.queries]\ntable = 'search_log'";
    let plan = planned(&scenario(server, &database, &format!("filter = 'tenant_id = $1'\n{log}")));
    assert_eq!(plan["filters"][0]["filter"], "tenant_id = $1", "{plan:#}");
    // A column that the log does not have gives no value to search with: that is no success.
    let plan = planned(&scenario(server, &database, &format!("filter = 'lang = $1'\n{log}")));
    let unmeasured = plan["filters"][0]["unmeasured"].to_string();
    assert!(unmeasured.contains("none of 100 queries has a value of \\\"lang\\\""), "{plan:#}");
    let wrong = scenario(server, &database, "filter = 'tenant_id = $1) OR (true'");
    wrong.run(&["run-job", "tend", "--dry-run"]).succeeded();
    let unknown = scenario(server, &database, "filter = 'owner_id = $1'");
    unknown.run(&["run-job", "tend", "--dry-run"]).exited_with_one_of(&[1, 78]).says(&["owner_id"]);
    assert!(indexes(server, &database).contains("items_idx|hnsw"));
}

/// The servers with pgvector have no pg_stat_statements: this is the smallest stand-in, an extension with a view of that name.
fn with_statements(server: &Server, database: &str) {
    let folder = server.path("statements/extension");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("pg_stat_statements.control"), "default_version = '1.0'\n").unwrap();
    let script = "CREATE TABLE seen (dbid oid, query text, calls bigint); CREATE VIEW pg_stat_statements AS SELECT * FROM seen;";
    std::fs::write(folder.join("pg_stat_statements--1.0.sql"), script).unwrap();
    // The server's own user removes them.
    for folder in [server.path("statements"), folder] {
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let path = server.path("statements").display().to_string();
    server.sql(database, &format!("SET extension_control_path = '{path}:$system'; CREATE EXTENSION pg_stat_statements"));
}

#[test]
fn statements_whose_order_no_index_serves_are_named_and_an_index_that_nobody_uses() {
    let server = Server::start(18);
    let database = items(&server, 3000, 16, "CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops)");
    let job = scenario(&server, &database, "");
    assert_eq!(planned(&job)["warnings"], serde_json::json!([]));
    with_statements(&server, &database);
    let seen = |query: &str| {
        server.sql(
            &database,
            &format!("INSERT INTO seen SELECT oid, $q${query}$q$, 3 FROM pg_database WHERE datname = current_database()"),
        );
    };
    for query in [
        "SELECT id FROM items ORDER BY $1 - (embedding <=> $2) DESC LIMIT $3",
        "SELECT id FROM items ORDER BY embedding <-> $1 LIMIT $2",
        "SELECT id FROM others ORDER BY embedding <-> $1 LIMIT $2",
        "SELECT id FROM other_items ORDER BY embedding <-> $1 LIMIT $2",
        "SELECT id FROM archive.items ORDER BY embedding <-> $1 LIMIT $2",
        "SELECT t.id FROM items t ORDER BY t.embedding OPERATOR(public.<->) $1 LIMIT $2",
        "CREATE INDEX ON items USING hnsw (embedding vector_l2_ops) -- order by <->",
    ] {
        seen(query);
    }
    let plan = planned(&job);
    let warnings = plan["warnings"].to_string();
    assert!(warnings.contains("3 calls of a statement that no index serves, because it orders DESC"), "{warnings}");
    assert!(
        warnings.contains("it orders by <->, and the index is for <=> (cosine): SELECT id FROM items ORDER BY"),
        "{warnings}"
    );
    assert_eq!(plan["warnings"].as_array().unwrap().len(), 2, "{warnings}");
    job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["WARNING: 3 calls of a statement that no index serves"]);
    // An index of another metric serves its own statements.
    server.sql(&database, "CREATE INDEX items_l2 ON items USING hnsw (embedding vector_l2_ops)");
    assert_eq!(planned(&job)["warnings"].as_array().unwrap().len(), 1, "{:#}", planned(&job));
    server.sql(&database, "DROP INDEX items_l2");
    // Its scans are the same as at the end of the last run, although such a statement ran. Statistics of a run may come late.
    let noted = scenario(&server, &database, "").ledger();
    crate::support::eventually("the index is said to be unused", || {
        noted.run(&["run-job", "tend"]).succeeded();
        seen("SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2");
        planned(&noted)["warnings"].to_string().contains("has not been used since the last run of this job (idx_scan is still")
    });
    noted.run(&["run-job", "tend"]).succeeded();
    seen("SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2");
    server.sql(
        &database,
        "SET enable_seqscan = off; SELECT id FROM items ORDER BY embedding <=> (SELECT embedding FROM items LIMIT 1) LIMIT 1",
    );
    assert!(!planned(&noted)["warnings"].to_string().contains("since the last run"), "{:#}", planned(&noted));
    server.sql(&database, "DELETE FROM seen WHERE query LIKE '%<=> $1%'");
    // An index that a statement could use, and none has used.
    server.sql(&database, "DROP INDEX items_idx; CREATE INDEX items_idx ON items USING hnsw (embedding vector_cosine_ops)");
    seen("SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2");
    let warnings = planned(&job)["warnings"].to_string();
    assert!(
        warnings.contains(
            "items_idx has not been used since its statistics began, although statements that it could serve ran 3 times"
        ),
        "{warnings}"
    );
}
