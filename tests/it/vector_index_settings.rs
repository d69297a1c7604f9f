//! `apply_setting`: one setting is for all indexes of a database or role. It is set with the swap or not at all, and who may not set it
//! is told before hours of building.

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::vector_index::{IVFFLAT, MOST, indexes, items, prefers_indexes, rough, scenario, smooth, told};

const QUICK: &str = "recall = { target = 1.0, queries = 100 }\napply_setting = 'database'";

fn probes(server: &Server, database: &str) -> String {
    server.sql(database, "SELECT '[1]'::vector \\g /dev/null\nSHOW ivfflat.probes")
}

#[test]
fn a_setting_is_no_lower_than_another_index_needs() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    // As another job left it.
    server.sql(
        &database,
        "CREATE TABLE others AS TABLE items; CREATE INDEX others_idx ON others USING ivfflat (embedding vector_cosine_ops) WITH (lists = 40);
         COMMENT ON INDEX others_idx IS 'pgtend: {\"measured_at\":\"2026-11-01T00:00:00Z\",\"rows\":3000,\"setting\":29,\"recall\":0.96,\"tuned\":true}'",
    );
    prefers_indexes(server, &database);
    let job = scenario(server, &database, &format!("lists = 20\n{MOST}\napply_setting = 'database'"));
    let first = told(&job);
    let own = first["after"]["setting"].as_u64().unwrap();
    assert!(first["swapped"] == true && own < 29, "{first:#}");
    assert_eq!(probes(server, &database), "29");
    let second = told(&job);
    assert!(
        second["decision"]["do"] == "nothing" && second["summary"].to_string().contains("another index needs it"),
        "{second:#}"
    );
    job.run(&["run-job", "tend", "--dry-run"]).succeeded().prints(&["other indexes of the database need ivfflat.probes = 29"]);
    // It is gone, and nobody needs so much any more.
    server.sql(&database, "DROP TABLE others");
    assert_eq!(told(&job)["decision"]["do"], "set");
    assert_eq!(probes(server, &database), own.to_string());
}

#[test]
fn a_setting_by_which_the_planner_would_leave_the_index_of_another_table_is_not_set_and_the_table_is_named() {
    let server = server(18);
    let database = server.new_database();
    // `items` needs eight of its lists, and the planner then still uses its index. `others` is so small that it would rather read all of it.
    server.sql(
        &database,
        &format!(
            "CREATE EXTENSION vector; CREATE TABLE items (id int, embedding vector(16), filler text); CREATE TABLE others (id int, embedding vector(16));
             INSERT INTO items SELECT i, v::vector, repeat('x', 1500) FROM ({}) s ORDER BY i; INSERT INTO others SELECT id, embedding FROM items LIMIT 300;
             CREATE INDEX items_idx ON items USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20);
             CREATE INDEX others_idx ON others USING ivfflat (embedding vector_cosine_ops) WITH (lists = 4) WHERE id > 0; VACUUM ANALYZE",
            rough((1, 3000), 16)
        ),
    );
    let job = scenario(server, &database, &format!("lists = 20\n{MOST}\napply_setting = 'database'"));
    let refused = |arguments: &[&str]| {
        let run = job.run(arguments).exited(1);
        let said = format!("{}{}", run.stdout, run.stderr);
        let expected = "is not set: the planner would leave \"others_idx\" of \"public\".\"others\" and read the whole table";
        assert!(said.contains(expected) && said.contains("apply_setting = \"role:NAME\""), "{said}");
        assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=20|t\nothers_idx|ivfflat|lists=4|t");
        assert_eq!(probes(server, &database), "1");
    };
    // A new index that needs so much is not swapped in.
    refused(&["run-job", "tend"]);
    // Where the planner uses no index of others, none is lost.
    server.sql(
        &database,
        "BEGIN; ALTER TABLE others RENAME TO kept; CREATE TABLE others (LIKE kept); DROP INDEX others_idx; COMMIT",
    );
    assert_eq!(told(&job)["swapped"], true);
    assert_ne!(probes(server, &database), "1");
    // Nor is the setting alone raised.
    server.sql(
        &database,
        &format!(
            "ALTER DATABASE {database} RESET ivfflat.probes; DROP TABLE others; ALTER TABLE kept RENAME TO others;
             CREATE INDEX others_idx ON others USING ivfflat (embedding vector_cosine_ops) WITH (lists = 4) WHERE id > 0"
        ),
    );
    refused(&["run-job", "tend", "--dry-run"]);
    refused(&["run-job", "tend"]);
}

#[test]
fn of_partitions_the_one_that_needs_most_decides() {
    let server = server(16);
    let database = server.new_database();
    // All neighbours of all queries: on the surface of the first, those of some are in three lists; the second is a line.
    server.sql(
        &database,
        &format!("CREATE EXTENSION vector; CREATE TABLE items (id int, embedding vector(8)) PARTITION BY RANGE (id);
         CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (8000); CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (8000) TO (16000);
         INSERT INTO items SELECT i, v::vector FROM ({}) s ORDER BY i;
         INSERT INTO items SELECT i, ARRAY(SELECT (sin(d) + cos(2 * d) * mod(i * 0.8191725134, 1)::float8)::real FROM generate_series(1, 8) d)::vector FROM generate_series(8000, 15999) i; ANALYZE",
            smooth((1, 7999), 8)),
    );
    prefers_indexes(server, &database);
    let job = scenario(server, &database, &format!("lists = 20\n{QUICK}"));
    for run in ["first", "second"] {
        let json = job.json(&["run-job", "tend"]);
        let tables = &json["runs"][0]["report"]["facts"]["tables"];
        assert!(probes(server, &database).parse::<u32>().unwrap() > 1, "{run}: {json:#}");
        if run == "first" {
            let settings: Vec<u64> = (0..2).map(|number| tables[number]["after"]["setting"].as_u64().unwrap()).collect();
            assert!(settings[0] > settings[1], "{settings:?}");
            assert_eq!(probes(server, &database), settings[0].to_string());
        } else {
            assert!((0..2).all(|number| tables[number]["decision"]["do"] == "nothing"), "{json:#}");
        }
    }
}

#[test]
fn who_may_not_set_it_is_told_before_anything_is_built() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    let role = format!("owner_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; CREATE ROLE app_{database}; ALTER TABLE items OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
        ),
    );
    let unknown = "\"no such; role".to_owned();
    for (place, code, says) in [
        ("database".to_owned(), 77, "needs the owner of the database".to_owned()),
        (format!("role:app_{database}"), 77, format!("ADMIN OPTION on \"app_{database}\"")),
        ("role:postgres".to_owned(), 77, "needs that role itself".to_owned()),
        (format!("role:{unknown}"), 78, "there is no such role".to_owned()),
    ] {
        let job = Scenario::with_url(server, &server.url_as(&role, &database)).job(
            "tend",
            &format!(
                "database = 'app'\n[vector_index]\ntable = 'items'\ncolumn = 'embedding'\nlists = 10\napply_setting = '{place}'\n"
            ),
        );
        job.run(&["run-job", "tend"]).exited(code).says(&[&says]);
        job.run(&["run-job", "tend", "--dry-run"]).exited(code).says(&[&says]);
        let checked = job.run(&["check", "--connect"]);
        assert!(format!("{}{}", checked.stdout, checked.stderr).contains(&says), "{place}: {}{}", checked.stdout, checked.stderr);
        assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=30|t", "{place}");
    }
    server.sql(
        &database,
        &format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}; DROP ROLE app_{database}"),
    );
}

#[test]
fn a_swap_that_does_not_happen_leaves_the_setting_as_it_was() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    prefers_indexes(server, &database);
    // A lock on the index alone, without a snapshot: the build goes through, the rename does not.
    let holder =
        server.session(&database, "SET application_name = 'a migration'; BEGIN; COMMENT ON INDEX items_idx IS 'for the search'");
    let job = scenario(server, &database, &format!("lists = 60\n{QUICK}\n[limits]\nlock_timeout = '300ms'\nmax_wait = '2s'"));
    job.run(&["run-job", "tend"]).exited(75).says(&["it could not be renamed", "a migration"]);
    assert_eq!(probes(server, &database), "1");
    drop(holder);
    let told = told(&job);
    assert_eq!((&told["built"], &told["swapped"]), (&serde_json::Value::Null, &true.into()), "{told:#}");
    assert_eq!(indexes(server, &database), "items_idx|ivfflat|lists=60|t");
    assert_eq!(probes(server, &database), told["after"]["setting"].to_string());
}

#[test]
fn before_another_method_the_present_one_is_measured_as_applications_search_with_it() {
    let server = server(18);
    let database = items(server, 3000, 16, IVFFLAT);
    server.sql(&database, &format!("ALTER DATABASE {database} SET ivfflat.probes = 7"));
    let json = scenario(server, &database, "method = 'hnsw'\nef_search = 100").json(&["run-job", "tend", "--dry-run"]);
    let plan = &json["runs"][0]["plan"]["tables"][0];
    assert_eq!((plan["now"]["setting"].as_u64(), plan["setting"].as_u64()), (Some(7), Some(100)), "{plan:#}");
}

#[test]
fn hnsw_is_never_set_so_low_that_a_search_gets_fewer_rows_than_it_asks_for() {
    let server = server(18);
    let database = items(server, 8000, 16, "");
    prefers_indexes(server, &database);
    let ef_search = || server.sql(&database, "SELECT '[1]'::vector \\g /dev/null\nSHOW hnsw.ef_search").parse::<u32>().unwrap();
    let job = |k: u32| {
        let recall = format!("recall = {{ k = {k}, target = 0.5, queries = 100 }}");
        scenario(server, &database, &format!("method = 'hnsw'\n{recall}\napply_setting = 'database'"))
    };
    // Less would reach such a target; but other searches may ask for more than ten.
    told(&job(10));
    assert_eq!(ef_search(), 40);
    server.sql("postgres", &format!("ALTER DATABASE {database} SET hnsw.ef_search = 400"));
    let report = told(&job(100));
    assert!(report["summary"].to_string().contains("ALTER DATABASE"), "{report:#}");
    assert!(ef_search() >= 100, "{report:#}");
    let rows =
        "SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <=> (SELECT embedding FROM items LIMIT 1) LIMIT 100) f";
    assert_eq!(server.sql(&database, &format!("SET enable_seqscan = off; {rows}")), "100");
    // At a setting of no more than k, the row that asks takes nobody's place.
    server.sql("postgres", &format!("ALTER DATABASE {database} SET hnsw.ef_search = 10"));
    let json = scenario(server, &database, "method = 'hnsw'\nrecall = { queries = 100 }").json(&["run-job", "tend", "--dry-run"]);
    let now = &json["runs"][0]["plan"]["tables"][0]["now"];
    assert!(now["setting"] == 10 && now["recall"].as_f64().unwrap() > 0.9, "{now:#}");
}
