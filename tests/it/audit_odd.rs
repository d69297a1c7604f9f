//! The audit of databases that somebody made odd, on purpose or not: nothing that hurts is hidden, no fix takes away what it should mend.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::audit::{findings, keys, state};
use crate::support::Scenario;
use crate::support::postgres::{MAJORS, Server, server};

fn look(scenario: &Scenario, check: &str) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", check, "--fail-on", "never"])["audit"].clone()
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn reasons(audit: &Value) -> String {
    audit["checks"][0]["reasons"].to_string()
}

fn finding(audit: &Value, key: &str) -> Value {
    let found = findings(audit).into_iter().find(|finding| finding["key"] == key);
    found.unwrap_or_else(|| panic!("no {key} in {audit:#}"))
}

fn fix(finding: &Value) -> &str {
    finding["fix"]["sql"].as_str().unwrap_or_else(|| panic!("it has no SQL: {finding:#}"))
}

fn with_schema(server: &Server, database: &str, schema: &str) -> Scenario {
    let scenario =
        Scenario::with_database(server, database).job("quarterly", "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n");
    std::fs::write(scenario.path("schema.sql"), schema).unwrap();
    scenario
}

#[test]
fn rows_of_a_key_are_compared_by_the_operators_of_the_key() {
    for major in [15, 17] {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            "CREATE EXTENSION citext;
             CREATE TABLE users (email citext PRIMARY KEY); INSERT INTO users SELECT 'u' || i FROM generate_series(1, 100) i;
             CREATE TABLE orders (id int PRIMARY KEY, email citext REFERENCES users ON DELETE CASCADE); CREATE INDEX ON orders (email);
             INSERT INTO orders SELECT i, 'U' || i FROM generate_series(1, 100) i;
             ALTER TABLE orders DISABLE TRIGGER ALL; INSERT INTO orders VALUES (101, 'nobody'); ALTER TABLE orders ENABLE TRIGGER ALL; ANALYZE",
        );
        let found = look(&Scenario::with_database(server, &database), "fk-orphans");
        let orphans = finding(&found, "fk-orphans:public.orders orders_email_fkey");
        assert_eq!(orphans["evidence"]["measured"], "1 of 101 sampled rows", "on {major}");
        let whole = orphans["evidence"]["whole"].as_str().unwrap();
        assert_eq!(server.sql(&database, &format!("SET search_path = pg_catalog; {whole}")), "101|nobody");
    }
}

#[test]
fn one_odd_key_hides_no_orphans_of_others() {
    for major in MAJORS {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            "CREATE TABLE codes (code text COLLATE \"C\" PRIMARY KEY); INSERT INTO codes VALUES ('a');
             CREATE TABLE coded (id int PRIMARY KEY, code text COLLATE \"POSIX\" REFERENCES codes ON DELETE CASCADE); INSERT INTO coded VALUES (1, 'a');
             CREATE TABLE parents (id int PRIMARY KEY);
             CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
             SET session_replication_role = replica; INSERT INTO children VALUES (1, 7); ANALYZE",
        );
        // An operator of nobody's: it is not called.
        server.sql(
            &database,
            "CREATE FUNCTION pairs(int, bigint) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''called''; END';
             CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = bigint, FUNCTION = pairs);
             CREATE TABLE strange (id int PRIMARY KEY, parent bigint REFERENCES parents ON DELETE CASCADE);
             SET session_replication_role = replica; INSERT INTO strange VALUES (1, 7);
             UPDATE pg_constraint SET conpfeqop = ARRAY['public.===(int, bigint)'::regoperator::oid] WHERE conname = 'strange_parent_fkey'; ANALYZE",
        );
        let found = look(&Scenario::with_database(server, &database), "fk-orphans");
        assert_eq!(keys(&found), set(&["fk-orphans:public.children children_parent_fkey"]), "on {major}: {found:#}");
        assert!(reasons(&found).contains("public.strange compares keys by an operator"), "{found:#}");
        assert!(!reasons(&found).contains("coded"), "{found:#}");
    }
}

#[test]
fn an_address_of_this_machine_with_a_mask_of_none_is_every_address() {
    for major in [14, 18] {
        let server = Server::start(major);
        let database = server.trusted_database();
        let scenario = Scenario::with_database(&server, &database);
        let rules = server.sql("postgres", "SHOW hba_file");
        let before = std::fs::read_to_string(&rules).unwrap();
        let mut expected = BTreeSet::new();
        for (rule, is_trusting) in [
            ("host all all 127.0.0.1/32 trust", None),
            ("host all all ::1/128 trust", None),
            ("host all all samehost trust", None),
            ("host all all 127.0.0.0/0 trust", Some("host all all 127.0.0.0")),
            ("host all all ::1/0 trust", Some("host all all ::1")),
            ("host all all 127.0.0.1 0.0.0.0 trust", Some("host all all 127.0.0.1")),
        ] {
            std::fs::write(&rules, format!("{before}\n{rule}\n")).unwrap();
            expected.clear();
            expected.extend(is_trusting.map(|name| format!("hba-trust:{name}")));
            assert_eq!(keys(&look(&scenario, "hba-trust")), expected, "{rule}, on {major}");
        }
    }
}

#[test]
fn a_fix_of_drift_that_fails_leaves_what_was_there() {
    let server = Server::start(18);
    let database = server.trusted_database();
    let schema = "CREATE SCHEMA sx; CREATE FUNCTION sx.ok(text) RETURNS bool LANGUAGE sql STABLE AS 'SELECT $1 = current_user';
        CREATE TABLE acct (id int PRIMARY KEY, tenant text); ALTER TABLE acct ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everyone ON acct USING (true);
        CREATE POLICY only_own ON acct AS RESTRICTIVE USING (sx.ok(tenant));
        ALTER TABLE acct ADD CONSTRAINT large CHECK (id > 50);
        CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER acts BEFORE INSERT ON acct FOR EACH ROW EXECUTE FUNCTION other();
        CREATE UNIQUE INDEX of_tenant ON acct (tenant);";
    server.sql(&database, schema);
    server.sql(
        &database,
        "DROP POLICY only_own ON acct; DROP FUNCTION sx.ok(text); CREATE POLICY only_own ON acct AS RESTRICTIVE USING (tenant = current_user);
         ALTER TABLE acct DROP CONSTRAINT large, ADD CONSTRAINT large CHECK (id > 0);
         DROP TRIGGER acts ON acct; DROP FUNCTION other(); CREATE TRIGGER acts BEFORE INSERT ON acct FOR EACH ROW EXECUTE FUNCTION act();
         DROP INDEX of_tenant; CREATE INDEX of_tenant ON acct (tenant);
         INSERT INTO acct SELECT i, 't' FROM generate_series(1, 100) i",
    );
    let facts = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'large' UNION ALL SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polname = 'only_own'
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'acts' UNION ALL SELECT pg_get_indexdef('of_tenant'::regclass)";
    let before = server.sql(&database, facts);
    let found = look(&with_schema(&server, &database, schema), "schema-drift");
    for key in
        ["policy public.acct only_own", "constraint public.acct large", "trigger public.acct acts", "index public.of_tenant"]
    {
        let finding = finding(&found, &format!("schema-drift:{key}"));
        server.psql(&database, fix(&finding)).expect_err("what it needs is not there, or a row breaks it");
        assert_eq!(server.sql(&database, facts), before, "{key}: {}", fix(&finding));
    }
}

#[test]
fn lists_of_texts_are_no_drift_against_the_dump_of_the_database() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            "CREATE TABLE t (id bigint PRIMARY KEY, st varchar(10) CHECK (st IN ('a', 'b')), twice bool GENERATED ALWAYS AS (st IN ('a', 'c')) STORED);
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (st IN ('a', 'b'));
             CREATE INDEX t_some ON t (id) WHERE st IN ('a', 'b'); CREATE VIEW v AS SELECT * FROM t WHERE st IN ('a', 'b');
             CREATE MATERIALIZED VIEW m AS SELECT * FROM t WHERE st NOT IN ('a', 'b');
             CREATE DOMAIN d AS varchar(10) CHECK (VALUE IN ('a', 'b'));
             CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER acts BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.st IN ('a', 'b')) EXECUTE FUNCTION act()",
        );
        let dump = server.tool("pg_dump", &database).arg("--schema-only").output().unwrap();
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let dump = String::from_utf8(dump.stdout).unwrap();
        let found = look(&with_schema(server, &database, &dump), "schema-drift");
        assert_eq!((state(&found, "schema-drift"), keys(&found)), ("ok", set(&[])), "on {major}: {found:#}");
        // Another list is drift.
        server.sql(&database, "DROP POLICY p ON t; CREATE POLICY p ON t USING (st IN ('a', 'b', 'c'))");
        let found = look(&with_schema(server, &database, &dump), "schema-drift");
        assert_eq!(keys(&found), set(&["schema-drift:policy public.t p"]), "on {major}");
    }
}

#[test]
fn an_index_that_excludes_is_rebuilt_before_the_version_is_refreshed() {
    for (major, provider) in [(15, "provider = icu, locale = 'de'"), (17, "provider = builtin, locale = 'C.UTF-8'")] {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            &format!(
                "CREATE COLLATION german ({provider});
                 CREATE TABLE ex (id int PRIMARY KEY, n text COLLATE german, EXCLUDE USING btree (n WITH =)); INSERT INTO ex VALUES (1, 'a');
                 UPDATE pg_collation SET collversion = '0' WHERE collname = 'german'"
            ),
        );
        let scenario = Scenario::with_database(server, &database);
        let found = look(&scenario, "collation-version");
        let file = "SELECT pg_relation_filenode('ex_n_excl')";
        let before = server.sql(&database, file);
        server.sql(&database, fix(&finding(&found, "collation-version:collation public.german")));
        assert_ne!(server.sql(&database, file), before, "it was not rebuilt on {major}");
        assert_eq!(state(&look(&scenario, "collation-version"), "collation-version"), "ok");
    }
}

#[test]
fn a_view_that_asks_for_its_reader_does_so_however_that_is_written() {
    for major in [15, 18] {
        let server = Server::start(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            "CREATE ROLE reader; CREATE TABLE sec (id int PRIMARY KEY, tenant text); ALTER TABLE sec ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON sec USING (tenant = current_user);
             CREATE VIEW v1 WITH (security_invoker = 'TRUE') AS SELECT * FROM sec; CREATE VIEW v2 WITH (security_invoker = 'y') AS SELECT * FROM sec;
             CREATE VIEW v3 WITH (security_invoker) AS SELECT * FROM sec; CREATE VIEW v4 WITH (security_barrier = 'On') AS SELECT * FROM sec;
             CREATE VIEW v5 WITH (security_invoker = 'OFF') AS SELECT * FROM sec;
             GRANT SELECT ON v1, v2, v3, v4, v5 TO reader",
        );
        let found = look(&Scenario::with_database(&server, &database), "row-security-by-view");
        assert_eq!(keys(&found), set(&["row-security-by-view:public.v5"]), "on {major}");
    }
}

#[test]
fn keys_of_single_partitions_and_of_partitions_of_partitions_are_seen() {
    for major in MAJORS {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            "CREATE TABLE ref (id bigint PRIMARY KEY); INSERT INTO ref SELECT generate_series(1, 3000);
             CREATE TABLE ev (id bigint, a int, b int, ref_id bigint CONSTRAINT of_ref REFERENCES ref ON DELETE CASCADE, PRIMARY KEY (id, a, b)) PARTITION BY LIST (a);
             CREATE TABLE ev1 PARTITION OF ev FOR VALUES IN (1) PARTITION BY LIST (b); CREATE TABLE ev11 PARTITION OF ev1 FOR VALUES IN (1);
             CREATE INDEX ON ev (ref_id); INSERT INTO ev SELECT i, 1, 1, i FROM generate_series(1, 2000) i;
             ALTER TABLE ev11 DISABLE TRIGGER ALL; INSERT INTO ev VALUES (99999, 1, 1, 777777);
             CREATE TABLE pp (id bigint, a int, ref_id bigint, PRIMARY KEY (id, a)) PARTITION BY LIST (a);
             CREATE TABLE pp1 PARTITION OF pp FOR VALUES IN (1) PARTITION BY LIST (a); CREATE TABLE pp11 PARTITION OF pp1 FOR VALUES IN (1);
             ALTER TABLE pp1 ADD CONSTRAINT own FOREIGN KEY (ref_id) REFERENCES ref ON DELETE CASCADE;
             ALTER TABLE pp11 DISABLE TRIGGER ALL; INSERT INTO pp SELECT i, 1, i + 100000 FROM generate_series(1, 2000) i;
             CREATE TABLE low (id bigint PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE low1 PARTITION OF low FOR VALUES FROM (0) TO (5000); INSERT INTO low SELECT generate_series(1, 2000);
             CREATE TABLE to_part (id bigint PRIMARY KEY, low_id bigint CONSTRAINT to_low REFERENCES low1 ON DELETE CASCADE);
             INSERT INTO to_part SELECT i, i FROM generate_series(1, 2000) i; CREATE INDEX ON to_part (low_id);
             ALTER TABLE to_part DISABLE TRIGGER ALL; INSERT INTO to_part VALUES (5000, 9999); ALTER TABLE to_part ENABLE TRIGGER ALL; ANALYZE",
        );
        let scenario = Scenario::with_database(server, &database);
        let disabled = look(&scenario, "trigger-disabled");
        assert_eq!(
            keys(&disabled),
            set(&["trigger-disabled:public.ev of_ref", "trigger-disabled:public.pp1 own"]),
            "on {major}: {disabled:#}"
        );
        for found in findings(&disabled) {
            assert_eq!(found["level"], "critical", "{found:#}");
            server.sql(&database, fix(&found));
        }
        assert_eq!(
            finding(&disabled, "trigger-disabled:public.ev of_ref")["evidence"]["tables"],
            serde_json::json!(["public.ev11"])
        );
        assert_eq!(state(&look(&scenario, "trigger-disabled"), "trigger-disabled"), "ok", "on {major}");
        let orphans = look(&scenario, "fk-orphans");
        let expected = ["fk-orphans:public.ev of_ref", "fk-orphans:public.pp1 own", "fk-orphans:public.to_part to_low"];
        assert_eq!(keys(&orphans), set(&expected), "on {major}: {orphans:#}");
        let unindexed = look(&scenario, "fk-unindexed");
        assert_eq!(keys(&unindexed), set(&["fk-unindexed:public.pp1(ref_id)"]), "on {major}: {unindexed:#}");
        assert_eq!(findings(&unindexed)[0]["level"], "high", "{unindexed:#}");
        server.sql(&database, fix(&findings(&unindexed)[0]));
        assert_eq!(state(&look(&scenario, "fk-unindexed"), "fk-unindexed"), "ok", "on {major}");
        // Each value occurs once, and nothing enforces it: the key of a table that refers to a partition.
        server.sql(&database, "DELETE FROM to_part WHERE id = 5000; ANALYZE to_part");
        let once = look(&scenario, "one-to-one-not-unique");
        assert!(keys(&once).contains("one-to-one-not-unique:public.to_part(low_id)"), "on {major}: {once:#}");
    }
}

#[test]
fn a_view_that_reads_another_view_is_looked_through_and_columns_count() {
    let server = Server::start(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE ROLE reader; CREATE ROLE other; CREATE TABLE sec (id int PRIMARY KEY, tenant text); INSERT INTO sec VALUES (1, 'a');
         ALTER TABLE sec ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON sec USING (tenant = current_user);
         CREATE VIEW inner_v AS SELECT * FROM sec; CREATE VIEW outer_v AS SELECT id FROM inner_v; GRANT SELECT ON outer_v TO reader;
         CREATE VIEW col_v AS SELECT * FROM sec; GRANT SELECT (id) ON col_v TO reader;
         CREATE VIEW safe_inner WITH (security_invoker) AS SELECT * FROM sec; CREATE VIEW safe_outer AS SELECT * FROM safe_inner; GRANT SELECT ON safe_outer TO reader;
         CREATE MATERIALIZED VIEW kept AS SELECT * FROM safe_inner; GRANT SELECT ON kept TO reader;
         CREATE VIEW filtered WITH (security_barrier) AS SELECT * FROM sec WHERE tenant = current_user; CREATE VIEW of_filtered AS SELECT * FROM filtered; GRANT SELECT ON of_filtered TO reader",
    );
    let scenario = Scenario::with_database(&server, &database);
    let found = look(&scenario, "row-security-by-view");
    let expected = ["col_v", "kept", "outer_v"].map(|view| format!("row-security-by-view:public.{view}"));
    assert_eq!(keys(&found), BTreeSet::from(expected), "{found:#}");
    let as_reader = |sql: &str| server.psql(&database, &format!("SET ROLE reader; {sql}"));
    // The reader has no right on the table: with security_invoker the view would fail for him. So a person decides.
    let outer = finding(&found, "row-security-by-view:public.outer_v");
    assert!(
        outer["fix"]["sql"].is_null() && outer["fix"]["decide"].as_str().unwrap().contains("reader may not SELECT"),
        "{outer:#}"
    );
    let draft = outer["fix"]["draft"].as_str().unwrap();
    server.psql(&database, draft).expect_err("it has a hole");
    assert_eq!(as_reader("SELECT count(*) FROM outer_v").unwrap(), "1", "nothing is changed");
    server.sql(&database, &draft.replace("<READERS>", "reader"));
    assert_eq!(as_reader("SELECT count(*) FROM outer_v").unwrap(), "0");
    assert!(keys(&look(&scenario, "row-security-by-view")).contains("row-security-by-view:public.col_v"));
    // Now he may read the table, and the fix is ready.
    let found = look(&scenario, "row-security-by-view");
    server.sql(&database, fix(&finding(&found, "row-security-by-view:public.col_v")));
    assert_eq!(as_reader("SELECT count(id) FROM col_v").unwrap(), "0");
    let found = look(&scenario, "row-security-by-view");
    assert_eq!(keys(&found), set(&["row-security-by-view:public.kept"]), "{found:#}");
    // A reader of another view that reads it counts, too.
    server.sql(&database, "CREATE VIEW base_v AS SELECT * FROM sec; GRANT SELECT ON base_v TO reader; CREATE VIEW on_top AS SELECT * FROM base_v; GRANT SELECT ON on_top TO other");
    let found = look(&scenario, "row-security-by-view");
    let base = finding(&found, "row-security-by-view:public.base_v");
    assert!(base["fix"]["decide"].as_str().unwrap().contains("other may not SELECT"), "{base:#}");
}

#[test]
fn a_domain_over_a_domain_is_the_type_below_and_one_fix_changes_all_columns() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE TABLE ref (id bigint PRIMARY KEY); INSERT INTO ref VALUES (1);
         CREATE DOMAIN d1 AS bigint; CREATE DOMAIN d2 AS d1; CREATE DOMAIN small AS int CHECK (VALUE > 0);
         CREATE TABLE c3 (id bigint PRIMARY KEY, r d2 REFERENCES ref ON DELETE CASCADE); CREATE TABLE c4 (id bigint PRIMARY KEY, r small REFERENCES ref ON DELETE CASCADE);
         CREATE TABLE r2 (a bigint, b bigint, PRIMARY KEY (a, b)); INSERT INTO r2 VALUES (1, 1);
         CREATE TABLE c2 (id bigint PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES r2 ON DELETE CASCADE); INSERT INTO c2 VALUES (1, 1, 1)",
    );
    let scenario = Scenario::with_database(server, &database);
    let found = look(&scenario, "fk-type-mismatch");
    assert_eq!(
        keys(&found),
        set(&["fk-type-mismatch:public.c2 c2_a_b_fkey", "fk-type-mismatch:public.c4 c4_r_fkey"]),
        "{found:#}"
    );
    let of_domain = finding(&found, "fk-type-mismatch:public.c4 c4_r_fkey");
    assert!(of_domain["fix"]["sql"].is_null() && of_domain["fix"]["decide"].as_str().unwrap().contains("small"), "{of_domain:#}");
    server.sql(&database, fix(&finding(&found, "fk-type-mismatch:public.c2 c2_a_b_fkey")));
    assert_eq!(keys(&look(&scenario, "fk-type-mismatch")), set(&["fk-type-mismatch:public.c4 c4_r_fkey"]));
}

#[test]
fn names_that_differ_in_a_control_character_have_keys_of_their_own() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         DO $$ DECLARE name text; BEGIN FOREACH name IN ARRAY ARRAY['x y', E'x\ny', E'x\ty', 'x␛0Ay'] LOOP
             EXECUTE format('CREATE TABLE %1$I (id int PRIMARY KEY)', name);
             EXECUTE format('CREATE TRIGGER t BEFORE INSERT ON %I FOR EACH ROW EXECUTE FUNCTION act()', name);
             EXECUTE format('ALTER TABLE %I DISABLE TRIGGER t', name);
         END LOOP; END $$",
    );
    let waiver =
        "waive = [{ key = 'trigger-disabled:public.\"x y\" t', reason = 'known', until = 2999-01-01 }]".replace('\\', "");
    let scenario = Scenario::with_database(server, &database).job("quarterly", &format!("database = 'app'\n[audit]\n{waiver}\n"));
    let found = look(&scenario, "trigger-disabled");
    let names = ["x y", "x␛0Ay", "x␛09y", "x␛␛0Ay"].map(|name| format!("trigger-disabled:public.\"{name}\" t"));
    assert_eq!(keys(&found), BTreeSet::from(names), "{found:#}");
    let waived = findings(&found).iter().filter(|finding| !finding["waiver"].is_null()).count();
    assert_eq!(waived, 1, "{found:#}");
}

#[test]
fn waivers_of_nine_schemas_hold_when_a_tenth_comes() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(&database, "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'");
    let add = |schema: usize| {
        server.sql(
            &database,
            &format!(
                "CREATE SCHEMA t{schema}; CREATE TABLE t{schema}.o (id int PRIMARY KEY); INSERT INTO t{schema}.o SELECT generate_series(1, 1500);
                 CREATE TRIGGER x BEFORE INSERT ON t{schema}.o FOR EACH ROW EXECUTE FUNCTION public.act(); ALTER TABLE t{schema}.o DISABLE TRIGGER x; ANALYZE t{schema}.o"
            ),
        );
    };
    (0..9).for_each(add);
    let waivers: Vec<String> = (0..9)
        .map(|schema| format!("{{ key = 'trigger-disabled:t{schema}.o x', reason = 'known', until = 2999-01-01 }}"))
        .collect();
    let scenario = Scenario::with_database(server, &database)
        .job("quarterly", &format!("database = 'app'\n[audit]\nfail_on = 'high'\nwaive = [{}]\n", waivers.join(", ")));
    let arguments = ["audit", "--database", "app", "--check", "trigger-disabled"];
    scenario.run(&arguments).succeeded();
    add(9);
    scenario.run(&arguments).exited(1).says(&["1 finding high", "trigger-disabled:t9.o x"]);
    (10..19).for_each(add);
    let found = look(&scenario, "trigger-disabled");
    let expected: BTreeSet<String> =
        (0..9).map(|schema| format!("trigger-disabled:t{schema}.o x")).chain(["trigger-disabled:*.o x".to_owned()]).collect();
    assert_eq!(keys(&found), expected);
    assert_eq!(finding(&found, "trigger-disabled:*.o x")["evidence"]["in"].as_array().unwrap().len(), 10, "{found:#}");
}
