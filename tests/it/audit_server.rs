//! Faults of the server, and of how tables are read and written: each is planted, found, and gone with its fix; its healthy twin is not found.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::audit::{keys, state};
use crate::support::postgres::{Different, Server, server};
use crate::support::serve::free_port;
use crate::support::{Scenario, eventually};

/// The answer of one check.
fn look(scenario: &Scenario, check: &str) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone()
}

fn found(scenario: &Scenario, check: &str) -> BTreeSet<String> {
    keys(&look(scenario, check))
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn fix(audit: &Value) -> String {
    audit["findings"][0]["fix"]["sql"].as_str().unwrap_or_else(|| panic!("it has no SQL: {audit:#}")).to_owned()
}

#[test]
fn a_btree_of_arrays_is_found_unless_queries_use_it() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE posts (id int PRIMARY KEY, tags text[], body jsonb, words tsvector, key text[], title text);
             CREATE INDEX posts_tags ON posts (tags); CREATE INDEX posts_body ON posts (body); CREATE INDEX posts_words ON posts (words);
             CREATE UNIQUE INDEX posts_key ON posts (key); CREATE INDEX posts_title ON posts (title); CREATE INDEX posts_gin ON posts USING gin (tags);
             CREATE TABLE used (id int PRIMARY KEY, tags text[]); CREATE INDEX used_tags ON used (tags);
             INSERT INTO used SELECT i, ARRAY[i::text] FROM generate_series(1, 2000) i; ANALYZE used;",
        );
        server.sql(&database, "SET enable_seqscan = off; SELECT count(*) FROM used WHERE tags = ARRAY['7']");
        let scenario = Scenario::with_database(server, &database);
        let planted =
            set(&["btree-on-array:public.posts_body", "btree-on-array:public.posts_tags", "btree-on-array:public.posts_words"]);
        eventually("the use of an index is counted", || found(&scenario, "btree-on-array") == planted);
        for finding in look(&scenario, "btree-on-array")["findings"].as_array().unwrap() {
            for statement in finding["fix"]["sql"].as_str().unwrap().split(';') {
                server.psql(&database, statement).unwrap();
            }
        }
        assert_eq!(found(&scenario, "btree-on-array"), set(&[]), "on {major}");
    }
}

#[test]
fn a_large_table_that_is_read_whole_often_is_found_and_one_that_is_read_by_its_index_is_not() {
    let server = server(17);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE read (id int PRIMARY KEY, filler text); INSERT INTO read SELECT i, repeat('x', 8000) FROM generate_series(1, 2500) i;
         CREATE TABLE looked_up (id int PRIMARY KEY, filler text); INSERT INTO looked_up SELECT * FROM read;
         CREATE TABLE begun (id int PRIMARY KEY, filler text); INSERT INTO begun SELECT * FROM read;
         ALTER TABLE read ALTER filler SET STORAGE PLAIN; ALTER TABLE looked_up ALTER filler SET STORAGE PLAIN; ALTER TABLE begun ALTER filler SET STORAGE PLAIN;
         UPDATE read SET filler = filler || ''; UPDATE looked_up SET filler = filler || ''; UPDATE begun SET filler = filler || '';",
    );
    server.sql(&database, "VACUUM ANALYZE");
    let scenario = Scenario::with_database(server, &database);
    assert_eq!(found(&scenario, "sequential-scans"), set(&[]));
    server.sql(
        &database,
        "DO $$ BEGIN FOR i IN 1..250 LOOP PERFORM count(*) FROM read WHERE filler = 'y'; PERFORM filler FROM looked_up WHERE id = i; PERFORM FROM begun LIMIT 1; END LOOP; END $$",
    );
    eventually("the scans are counted", || found(&scenario, "sequential-scans") == set(&["sequential-scans:public.read"]));
    let finding = look(&scenario, "sequential-scans")["findings"][0].clone();
    assert!(finding["evidence"]["scans"].as_i64().unwrap() >= 240, "{finding:#}");
    assert!(
        finding["fix"]["sql"].is_null() && finding["fix"]["decide"].as_str().unwrap().contains("which statements"),
        "{finding:#}"
    );
}

#[test]
fn an_index_that_is_mostly_empty_is_found_and_rebuilt() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int, word text) WITH (autovacuum_enabled = off); INSERT INTO t SELECT i, repeat('w', 90) || i FROM generate_series(1, 600000) i;
         CREATE INDEX t_word ON t (word); DELETE FROM t WHERE id % 30 <> 0;
         CREATE TABLE dense (id int, word text); INSERT INTO dense SELECT i, repeat('w', 90) || i FROM generate_series(1, 400000) i; CREATE INDEX dense_word ON dense (word)",
    );
    server.sql(&database, "VACUUM ANALYZE");
    let scenario = Scenario::with_database(server, &database);
    let audit = look(&scenario, "index-bloat");
    assert_eq!(keys(&audit), set(&["index-bloat:public.t_word"]), "{audit:#}");
    server.sql(&database, &fix(&audit));
    assert_eq!(found(&scenario, "index-bloat"), set(&[]));
}

#[test]
fn a_partitioned_table_that_was_never_analyzed_is_found_until_it_is() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        let make = |name: &str| {
            format!(
                "CREATE TABLE {name} (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (0) TO (1000000);
                 INSERT INTO {name} SELECT generate_series(1, 20000); ANALYZE {name}_1;"
            )
        };
        server.sql(
            &database,
            &format!("{}{}{} ANALYZE known; TRUNCATE few; ANALYZE few_1", make("events"), make("known"), make("few")),
        );
        let scenario = Scenario::with_database(server, &database);
        let audit = look(&scenario, "statistics-missing");
        assert_eq!(keys(&audit), set(&["statistics-missing:public.events"]), "on {major}: {audit:#}");
        server.sql(&database, &fix(&audit));
        assert_eq!(found(&scenario, "statistics-missing"), set(&[]), "on {major}");
    }
}

#[test]
fn a_policy_that_lets_everybody_change_all_is_found_where_somebody_may() {
    let server = server(16);
    let database = server.new_database();
    let writer = format!("writer_{database}");
    let table = |name: &str, policy: &str| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, owner name); ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {name} {policy}; GRANT SELECT, UPDATE ON {name} TO {writer};"
        )
    };
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {writer}; {}{}{}{}{}{} CREATE POLICY q ON open USING (owner = current_user); CREATE POLICY r ON restricted AS RESTRICTIVE USING (owner = current_user)",
            table("open", "USING (true)"),
            table("conditional", "USING (owner = current_user)"),
            table("read_only", "FOR SELECT USING (true)"),
            table("of_a_role", &format!("TO {writer} USING (true)")),
            table("insert_only", "FOR INSERT WITH CHECK (true)"),
            table("restricted", "USING (true)"),
        ),
    );
    let scenario = Scenario::with_database(server, &database);
    let audit = look(&scenario, "policy-always-true");
    assert_eq!(keys(&audit), set(&["policy-always-true:public.open p"]), "{audit:#}");
    assert_eq!(audit["findings"][0]["evidence"]["others"], 1);
    server.sql(&database, "ALTER POLICY p ON open USING (id > 0)");
    assert_eq!(found(&scenario, "policy-always-true"), set(&[]));
}

#[test]
fn rows_with_only_some_columns_of_a_key_are_found_where_two_may_be_null() {
    let server = server(15);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE shelves (room int, number int, PRIMARY KEY (room, number)); INSERT INTO shelves VALUES (1, 1);
         CREATE TABLE books (id int PRIMARY KEY, room int, shelf int, CONSTRAINT on_shelf FOREIGN KEY (room, shelf) REFERENCES shelves);
         CREATE TABLE whole (id int PRIMARY KEY, room int, shelf int, FOREIGN KEY (room, shelf) REFERENCES shelves);
         CREATE TABLE of_tenants (tenant int NOT NULL, shelf int, FOREIGN KEY (tenant, shelf) REFERENCES shelves);
         INSERT INTO books VALUES (1, 1, 1), (2, 7, NULL), (3, NULL, NULL); INSERT INTO whole VALUES (1, 1, 1), (2, NULL, NULL); INSERT INTO of_tenants VALUES (7, NULL); ANALYZE",
    );
    let scenario = Scenario::with_database(server, &database);
    let audit = look(&scenario, "fk-partly-null");
    assert_eq!(keys(&audit), set(&["fk-partly-null:public.books on_shelf"]), "{audit:#}");
    let evidence = &audit["findings"][0]["evidence"];
    assert_eq!(evidence["measured"], "1 of 3 sampled rows");
    assert_eq!(server.sql(&database, evidence["whole"].as_str().unwrap()), "2|7|");
    server.sql(&database, "UPDATE books SET room = NULL WHERE id = 2");
    assert_eq!(found(&scenario, "fk-partly-null"), set(&[]));
}

#[test]
fn an_archiver_that_fails_is_found_until_it_works_or_is_off() {
    let server = Server::start_with(18, &["archive_mode=on"]);
    let database = server.trusted_database();
    server.sql(&database, "ALTER SYSTEM SET archive_command = 'false'");
    server.sql(&database, "SELECT pg_reload_conf()");
    let scenario = Scenario::with_database(&server, &database);
    server.sql(&database, "SELECT pg_logical_emit_message(false, 'x', 'y'); SELECT pg_switch_wal()");
    eventually("an attempt has failed", || found(&scenario, "archiving-fails") == set(&["archiving-fails:archiver"]));
    server.sql(&database, "ALTER SYSTEM SET archive_command = 'true'");
    server.sql(&database, "SELECT pg_reload_conf()");
    eventually("it is archived", || found(&scenario, "archiving-fails") == set(&[]));
}

#[test]
fn a_slot_without_a_consumer_is_found_and_one_that_is_read_is_not() {
    for major in [16, 18] {
        let server = Server::start_with(major, &["wal_level=logical"]);
        let database = server.trusted_database();
        server.sql(&database, "SELECT pg_create_physical_replication_slot('forgotten', true); SELECT pg_create_physical_replication_slot('reserves_nothing')");
        let scenario =
            Scenario::with_database(&server, &database).job("quarterly", "database = 'app'\n[audit]\nidle_after = '1s'\n");
        eventually("a second is over", || found(&scenario, "slot-inactive") == set(&["slot-inactive:forgotten"]));
        let finding = look(&scenario, "slot-inactive")["findings"][0].clone();
        assert_eq!(finding["level"], if major == 16 { "low" } else { "medium" });
        assert!(
            finding["fix"]["sql"].is_null()
                && finding["fix"]["decide"].as_str().unwrap().contains("pg_drop_replication_slot('forgotten')")
        );
        server.sql(&database, "SELECT pg_drop_replication_slot('forgotten')");
        assert_eq!(found(&scenario, "slot-inactive"), set(&[]), "on {major}");
    }
}

#[test]
fn a_standby_that_does_not_replay_is_found_from_both_sides() {
    let primary = Server::start_with(18, &["max_wal_size=32MB", "wal_keep_size=512MB"]);
    let database = primary.trusted_database();
    let standby = primary.standby();
    primary.sql(&database, "CREATE TABLE t (id int)");
    standby.catches_up(&primary);
    let job = "database = 'app'\n[audit]\nidle_after = '2s'\n";
    let from_primary = Scenario::with_database(&primary, &database).job("quarterly", job);
    let from_standby = Scenario::with_database(&standby, &database).job("quarterly", job);
    assert_eq!(found(&from_standby, "standby-behind"), set(&[]));
    standby.sql("postgres", "SELECT pg_wal_replay_pause()");
    primary.sql(
        &database,
        "INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(false, 'x', repeat('x', 5000000)) FROM generate_series(1, 8)",
    );
    eventually("both say that it is behind", || {
        found(&from_primary, "standby-behind").len() == 1
            && found(&from_standby, "standby-behind") == set(&["standby-behind:this standby"])
    });
    standby.sql("postgres", "SELECT pg_wal_replay_resume()");
    standby.catches_up(&primary);
    eventually("neither says it any more", || {
        found(&from_standby, "standby-behind").is_empty() && found(&from_primary, "standby-behind").is_empty()
    });
}

fn busy(server: &Server, database: &str, application: &str, statement: &str) -> Child {
    let mut psql = server.tool("psql", database);
    psql.env("PGAPPNAME", application).args(["-Xqc", statement]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    psql.spawn().unwrap()
}

#[test]
fn a_statement_that_runs_for_long_is_found_and_cancelled_and_a_dump_is_not() {
    let server = Server::start_with(18, &[]);
    let database = server.trusted_database();
    let scenario =
        Scenario::with_database(&server, &database).job("quarterly", "database = 'app'\n[audit]\nidle_after = '100ms'\n");
    let mut report = busy(&server, &database, "report 3", "SELECT pg_sleep(600)");
    let mut dump = busy(&server, &database, "pg_dump", "SELECT pg_sleep(600)");
    eventually("it has run for long", || found(&scenario, "transaction-long") == set(&["transaction-long:postgres report N"]));
    server.sql(&database, &fix(&look(&scenario, "transaction-long")));
    report.wait().unwrap();
    assert_eq!(found(&scenario, "transaction-long"), set(&[]));
    dump.kill().unwrap();
    dump.wait().unwrap();
}

#[test]
fn new_passwords_that_would_be_stored_as_md5_are_found_wherever_that_is_set() {
    let server = Server::start_with(18, &[]);
    let database = server.trusted_database();
    server.sql("postgres", "CREATE ROLE clerk; ALTER ROLE clerk SET password_encryption = 'scram-sha-256'");
    let scenario = Scenario::with_database(&server, &database);
    assert_eq!(found(&scenario, "password-encryption"), set(&[]));
    server.sql("postgres", "ALTER SYSTEM SET password_encryption = 'md5'");
    server.sql("postgres", "SELECT pg_reload_conf(); ALTER ROLE clerk SET password_encryption = 'md5'");
    let planted = set(&["password-encryption:ROLE clerk", "password-encryption:password_encryption"]);
    eventually("the server has read its settings", || found(&scenario, "password-encryption") == planted);
    for finding in look(&scenario, "password-encryption")["findings"].as_array().unwrap() {
        for statement in finding["fix"]["sql"].as_str().unwrap().split('\n') {
            server.sql(&database, statement);
        }
    }
    eventually("the server has read its settings", || found(&scenario, "password-encryption").is_empty());
}

#[test]
fn ssl_off_is_found_where_the_server_listens_to_the_network() {
    let listening = |addresses: &str| {
        let different = Different {
            settings: vec![format!("listen_addresses={addresses}")],
            port: Some(free_port()),
            ..Different::default()
        };
        Server::start_different(18, different)
    };
    let local = listening("127.0.0.1,localhost");
    let database = local.trusted_database();
    assert_eq!(state(&look(&Scenario::with_database(&local, &database), "ssl-off"), "ssl-off"), "ok");
    let open = listening("0.0.0.0");
    let database = open.trusted_database();
    let audit = look(&Scenario::with_database(&open, &database), "ssl-off");
    assert_eq!(keys(&audit), set(&["ssl-off:ssl"]), "{audit:#}");
    assert_eq!(audit["findings"][0]["level"], "medium", "nobody is connected from elsewhere");
}
