//! Restored rows are compared by their values: what changes one is seen, and what may rightly read otherwise raises no alarm.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::encryption::{age_key, set_keys};
use crate::round_trip::{VALUES, new_database};
use crate::support::Scenario;
use crate::support::pooler::Pooler;
use crate::support::postgres::{MAJORS, Server, WITH_PGVECTOR, server};
use crate::throwaway::{self, facts};
use crate::wide::{EVERY_KIND, SMALLER};

/// A database in which the last statement of a restore, which fills a materialized view, changes the rows of a table.
fn changing(body: &str) -> String {
    format!(
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, 'value ' || i FROM generate_series(1, 20) i;
         CREATE FUNCTION change() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN 1; END $$;
         CREATE MATERIALIZED VIEW m AS SELECT public.change();"
    )
}

/// Each leaves the number of rows as it is.
const CHANGES: [(&str, &str); 3] = [
    ("one value", "UPDATE public.t SET v = v || '!' WHERE id = 7"),
    (
        "two rows that have each other's value",
        "UPDATE public.t a SET v = b.v FROM public.t b WHERE a.id IN (3, 4) AND b.id = 7 - a.id",
    ),
    (
        "one row that is lost, and another one that comes twice",
        "DELETE FROM public.t WHERE ctid = (SELECT min(ctid) FROM public.t);
         INSERT INTO public.t SELECT * FROM public.t WHERE ctid = (SELECT max(ctid) FROM public.t)",
    ),
];

const SAYS: [&str; 3] = [
    "the restored rows are not those of the set: public.t has 20 rows here and in the set",
    "with other values",
    "backups fetch",
];

#[test]
fn a_proof_sees_rows_that_have_other_values_in_the_copy_and_are_as_many() {
    let server = server(18);
    for (what, body) in CHANGES {
        let database = server.new_database();
        server.sql(&database, &changing(body));
        let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
        scenario.run(&["run-job", "nightly"]).exited(1).says(&SAYS);
        let listed = scenario.json(&["backups", "list"]);
        assert_eq!((&listed["sets"][0]["bytes"], &listed["sets"][0]["restored"]), (&"intact".into(), &false.into()), "{what}");
        let (own, _place) = throwaway::scenario(server, &database, "");
        own.run(&["run-job", "nightly"]).exited(1).says(&SAYS);
        // The number of rows is as it should be.
        let counting = scenario.backup_job("local", "verify = { restore = \"always\", rows = \"count\" }\nscratch = \"same\"");
        counting.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&["every table counted\n"]);
        let run = counting.json(&["run-job", "nightly"]);
        assert_eq!(facts(&run)["rows_hashed"], Value::Null, "{what}");
    }
}

#[test]
fn a_restore_by_hand_compares_values_where_that_is_asked_for() {
    let server = server(16);
    let database = server.new_database();
    server.sql(&database, &changing(CHANGES[0].1));
    let scenario = Scenario::with_database(server, &database).env(SMALLER.0, SMALLER.1).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let restore = |into: &str, more: &[&str]| {
        server.drop_with_test(into);
        scenario.run(&[&["backups", "restore", "latest", "--into", &server.url(into)], more].concat())
    };
    let copy = format!("{database}_copy");
    for sessions in ["1", "3"] {
        restore(&copy, &["--create", "--check-rows", "--sessions", sessions]).exited(1).says(&SAYS).says(&["was not restored"]);
    }
    restore(&copy, &["--create"]).succeeded().prints(&["each table counted"]);
    let empty = server.empty_database();
    restore(&empty, &["--check-rows"]).exited(1).says(&SAYS).says(&["is unchanged"]);
    restore(&empty, &[]).succeeded();
    let other = server.empty_database();
    restore(&other, &["--check-rows", "--on-error", "continue"]).exited(1).prints(&["public.t has 20 rows here"]);
    restore(&database, &["--check-rows", "--table", "public.t"]).exited(78).says(&["--check-rows is for whole sets"]);
    scenario.run(&["backups", "verify", "latest", "--restore-on", "app"]).exited(1).says(&SAYS);
    let verified = scenario.run(&["backups", "verify", "latest", "--restore-on", "app", "--count-rows"]).succeeded();
    verified.prints(&["restored; 1 table"]);
}

/// Tables of which each has another reason to read otherwise, or may be expected to.
const ODD: &str = "
    CREATE TYPE mood AS ENUM ('a', 'b', 'c');
    CREATE TABLE by_mood (id int, m mood, body text) PARTITION BY HASH (m);
    CREATE TABLE by_mood_0 PARTITION OF by_mood FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE by_mood_1 (body text, gone int, m mood, id int); ALTER TABLE by_mood_1 DROP COLUMN gone;
    CREATE TABLE same_order (id int, m mood) PARTITION BY HASH (m);
    CREATE TABLE same_order_0 PARTITION OF same_order FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE same_order_1 PARTITION OF same_order FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    ALTER TABLE by_mood ATTACH PARTITION by_mood_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO by_mood SELECT i, (enum_range(NULL::mood))[1 + i % 3], 'x' FROM generate_series(1, 60) i;
    INSERT INTO same_order SELECT id, m FROM by_mood;
    CREATE TABLE parts (body text, at date) PARTITION BY RANGE (at);
    CREATE TABLE parts_1 (at date, gone int, body text); ALTER TABLE parts_1 DROP COLUMN gone;
    ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO parts SELECT 'x' || i, date '2026-01-01' + i FROM generate_series(1, 30) i;
    CREATE TABLE generated (a int GENERATED ALWAYS AS IDENTITY, gone int, twice int GENERATED ALWAYS AS (b * 2) STORED, b int, at timestamptz DEFAULT now());
    ALTER TABLE generated DROP COLUMN gone; INSERT INTO generated (b) SELECT i FROM generate_series(1, 9) i;
    CREATE TABLE only_generated (a int GENERATED ALWAYS AS (1) STORED); INSERT INTO only_generated DEFAULT VALUES;
    CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
    CREATE TABLE empty (m money); CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
    INSERT INTO parent VALUES (1), (1); INSERT INTO child VALUES (1, 2);
    CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a;
    CREATE TABLE excluded AS SELECT i FROM generate_series(1, 5) i;
    CREATE TABLE prices (id int, price money); INSERT INTO prices VALUES (1, '2.50');
    CREATE DOMAIN cost AS money; CREATE TYPE offer AS (what text, costs cost[]);
    CREATE TABLE offers (id int, o offer); INSERT INTO offers VALUES (1, ROW ('x', '{1}'));
    CREATE TABLE catalog (id int, c regclass, f regprocedure); INSERT INTO catalog VALUES (1, 'prices', 'now()'), (2, '4000000000', NULL);
    CREATE TABLE always (a int, at timestamptz);
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at = clock_timestamp(); RETURN NEW; END';
    CREATE TRIGGER stamp BEFORE INSERT ON always FOR EACH ROW EXECUTE FUNCTION stamp(); ALTER TABLE always ENABLE ALWAYS TRIGGER stamp;
    INSERT INTO always VALUES (1, NULL)";

#[test]
fn what_may_rightly_read_otherwise_is_only_counted_and_named_with_the_reason() {
    for major in MAJORS {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, ODD);
        let (scenario, _place) = throwaway::scenario(server, &database, "exclude_table_data = [\"public.excluded\"]");
        let run = scenario.json(&["run-job", "nightly"]);
        let hashed = &facts(&run)["rows_hashed"];
        let only_counted: Vec<&str> = hashed["only_counted"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let mut named: Vec<&str> = only_counted.iter().filter_map(|said| said.split(':').next()).collect();
        named.sort_unstable();
        assert_eq!(named, ["public.by_mood", "public.catalog", "public.offers", "public.prices"], "{major}: {only_counted:?}");
        for says in [
            "by_mood: its rows are in the dump with columns in several orders",
            "offers: column o has values of type money",
            "catalog: column c",
        ] {
            assert!(only_counted.iter().any(|said| said.contains(says)), "{major}: {says} in {only_counted:?}");
        }
        let tables = facts(&run)["tables"].as_u64().unwrap();
        assert_eq!(hashed["tables"].as_u64().unwrap() + named.len() as u64, tables, "{major}: {hashed}");
        let summary = run["runs"][0]["report"]["summary"].as_str().unwrap();
        assert!(
            summary.ends_with(&format!("rows of {tables} tables counted, and those of {} hashed", hashed["tables"])),
            "{summary}"
        );
        let certificate = scenario.run(&["backups", "certificate", "latest"]).succeeded();
        certificate.prints(&[
            "were hashed there, and are those of the dump",
            "not compared by its values: public.prices: column price has values of type money",
        ]);
        scenario.run(&["backups", "show", "latest"]).succeeded().prints(&[&format!("and those of {} hashed", hashed["tables"])]);
    }
}

#[test]
fn settings_of_the_database_and_of_the_role_do_not_change_the_text_of_rows() {
    let server = server(17);
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE TABLE t AS SELECT i AS id, now() + i * interval '1 hour' AS at, i * interval '25 hours' AS during, 1.0::float8 / i AS f, 1.0::float4 / i AS f4,
                    decode(md5(i::text), 'hex') AS bytes, ARRAY['x', NULL, 'NULL'] AS words FROM generate_series(1, 500) i;
             ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'; ALTER DATABASE {database} SET datestyle = 'German';
             ALTER DATABASE {database} SET intervalstyle = 'iso_8601'; ALTER DATABASE {database} SET bytea_output = 'escape';
             ALTER DATABASE {database} SET extra_float_digits = 0; ALTER DATABASE {database} SET array_nulls = off"
        ),
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let run = scenario.json(&["run-job", "nightly"]);
    assert_eq!(facts(&run)["rows_hashed"], serde_json::json!({ "tables": 1, "rows": 500 }));
    let into = |name: &str, more: &[&str]| {
        let url = server.url(name);
        let all = [&["backups", "restore", "latest", "--check-rows", "--into", &url], more].concat();
        scenario.run(&all).succeeded().prints(&["rows of 1 table counted and hashed"]);
    };
    let copy = format!("{database}_copy");
    server.drop_with_test(&copy);
    into(&copy, &["--create"]);
    // In the transaction of the restore, the settings are those of the source.
    let empty = server.empty_database();
    server.sql("postgres", &format!("ALTER DATABASE {empty} SET timezone = 'America/Lima'"));
    into(&empty, &[]);
}

#[test]
fn rows_read_the_same_on_a_newer_server_or_are_only_counted() {
    let (old, new) = (server(14), server(18));
    let database = new_database(old, "from 14");
    old.sql(&database, VALUES);
    let scenario = Scenario::with_database(old, &database)
        .config(&format!("[databases.newer]\nurl = '{}'\n", new.url("postgres")))
        .backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let verified = scenario.run(&["backups", "verify", "latest", "--restore-on", "newer"]).succeeded();
    verified.prints(&["counted, and those of"]);
    let shown = scenario.json(&["backups", "show", "latest"]);
    let hashed = &shown["verification"]["restores"][0]["how"]["hashed"];
    let only_counted = hashed["only_counted"].to_string();
    assert_eq!(hashed["only_counted"].as_array().map(Vec::len), Some(2), "{hashed}");
    assert!(only_counted.contains("values.numbers: column m") && only_counted.contains("values.documents: column"), "{hashed}");
    old.sql("postgres", &format!("DROP DATABASE \"{database}\""));
}

#[test]
fn values_of_extensions_that_pgtend_knows_are_compared() {
    let contrib = "CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext;
        CREATE TABLE t AS SELECT i AS id, hstore('b' || i, 'x, \"y\"') || hstore('a', NULL) AS h, ('Ü ' || i)::citext AS c, ('a.b_' || i)::ltree AS l
        FROM generate_series(1, 300) i;
        CREATE EXTENSION cube SCHEMA ext; CREATE TABLE cubes AS SELECT cube(i) AS c FROM generate_series(1, 5) i";
    let vector = "CREATE EXTENSION vector SCHEMA ext;
        CREATE TABLE t AS SELECT i AS id, ARRAY[ARRAY[sin(i), cos(i), 1e-30 * i]::vector] AS v FROM generate_series(1, 300) i";
    let cubes = "public.cubes: column c has values of type ext.cube, whose text may be another one for the same value";
    let of_vector = WITH_PGVECTOR.map(|major| (major, vector, None));
    for (major, sql, only_counted) in [(14, contrib, Some(cubes)), (17, contrib, Some(cubes))].into_iter().chain(of_vector) {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, &format!("CREATE SCHEMA ext; SET search_path = public, ext; {sql}"));
        let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
        let run = scenario.json(&["run-job", "nightly"]);
        let hashed = &facts(&run)["rows_hashed"];
        assert_eq!((&hashed["tables"], &hashed["rows"]), (&1.into(), &300.into()), "{major}: {hashed}");
        assert_eq!(hashed["only_counted"][0].as_str(), only_counted, "{major}");
    }
}

/// The sums of all entries of each table in the newest manifest.
fn sums(scenario: &Scenario) -> BTreeMap<String, u128> {
    let manifest = std::fs::read(scenario.path(&format!("store/{}/manifest.json", scenario.sets().last().unwrap()))).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let mut sums: BTreeMap<String, u128> = BTreeMap::new();
    for table in manifest["tables"].as_array().unwrap() {
        let sum = sums.entry(format!("{}.{}", table["schema"], table["name"])).or_default();
        *sum = sum.wrapping_add(u128::from_str_radix(table["rows_hash"].as_str().unwrap(), 16).unwrap());
    }
    sums
}

#[test]
fn a_dump_by_several_sessions_has_the_hashes_of_one_by_pg_dump_alone() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, EVERY_KIND);
    let scenario = |sessions| {
        let job = format!("verify = \"restore\"\nsessions = {sessions}");
        let scenario = Scenario::with_database(server, &database).env(SMALLER.0, SMALLER.1).backup_job("local", &job);
        let run = scenario.json(&["run-job", "nightly"]);
        assert!(facts(&run)["rows_hashed"]["tables"].as_u64().unwrap() > 10, "{run:#}");
        scenario
    };
    assert_eq!(sums(&scenario(1)), sums(&scenario(3)));
}

#[test]
fn rows_of_an_encrypted_set_are_compared_and_its_manifest_shows_no_hash_of_them() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT 'one secret' AS s, 1::money AS m; CREATE TABLE u AS SELECT 'another' AS s");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let public = age_key(&scenario, "key.txt");
    set_keys(&scenario, &[&public], Some("key.txt"));
    let run = scenario.json(&["run-job", "nightly"]);
    let hashed = &facts(&run)["rows_hashed"];
    assert_eq!((&hashed["tables"], hashed["only_counted"].as_array().map(Vec::len)), (&1.into(), Some(1)), "{hashed}");
    for file in ["manifest.json", "verification.json"] {
        let text = std::fs::read_to_string(scenario.path(&format!("store/{}/{file}", scenario.sets()[0]))).unwrap();
        assert!(!text.contains("rows_hash") && !text.contains("money"), "{text}");
    }
}

#[test]
fn rows_that_row_security_hides_at_the_end_are_only_counted() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE hidden AS SELECT i FROM generate_series(1, 10) i; CREATE TABLE seen AS SELECT i FROM generate_series(1, 10) i;
         CREATE POLICY p ON hidden USING (i < 3); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY",
    );
    let (scenario, _place) = throwaway::scenario(server, &database, "");
    let run = scenario.json(&["run-job", "nightly"]);
    let hashed = &facts(&run)["rows_hashed"];
    assert_eq!(hashed["tables"], 1, "{hashed}");
    assert!(hashed["only_counted"][0].as_str().unwrap().starts_with("public.hidden: row security hides"), "{hashed}");
}

#[test]
fn what_another_session_changes_in_the_copy_before_it_is_read_back_is_seen() {
    let server: &'static Server = server(18);
    let database = server.new_database();
    // The restore waits in the view for as long as nobody has changed a row.
    let made = format!(
        "CREATE TABLE t AS SELECT i AS id, 'as it was' AS v FROM generate_series(1, 100) i;
         CREATE FUNCTION waits() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
             FOR i IN 1..3000 LOOP
                 EXIT WHEN current_database() = '{database}' OR EXISTS (SELECT FROM public.t WHERE v <> 'as it was');
                 PERFORM pg_catalog.pg_sleep(0.1);
             END LOOP; RETURN 1; END $$;
         CREATE MATERIALIZED VIEW m_{database} AS SELECT public.waits()"
    );
    server.sql(&database, &made);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"restore\"");
    let running = scenario.start(&["run-job", "nightly"]);
    let waits = format!("SELECT datname FROM pg_stat_activity WHERE query LIKE 'REFRESH MATERIALIZED VIEW public.m_{database}%'");
    let mut copy = String::new();
    crate::support::eventually("the restore waits in its last statement", || {
        copy = server.sql("postgres", &waits);
        !copy.is_empty()
    });
    server.sql(&copy, "UPDATE t SET v = 'as it was not' WHERE id = 50");
    running.wait().exited(1).says(&["public.t has 100 rows here and in the set, with other values"]);
}

#[test]
fn rows_that_were_dumped_through_a_pooler_that_drops_settings_are_only_counted() {
    let server = server(18);
    let database = server.new_database();
    server
        .sql(&database, &format!("CREATE TABLE t AS SELECT now() AS at; ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'"));
    // Whether it refuses settings or drops them, pg_dump has none of them.
    for ignored in ["", "ignore_startup_parameters = extra_float_digits,options"] {
        let pooler = Pooler::start(server, "session", 20, ignored);
        let scenario = Scenario::with_url(server, &pooler.url(&database)).backup_job("local", "verify = \"restore\"");
        let run = scenario.json(&["run-job", "nightly"]);
        let hashed = &facts(&run)["rows_hashed"];
        assert_eq!(hashed["tables"], 0, "{ignored}: {hashed}");
        assert!(hashed["only_counted"][0].as_str().unwrap().contains("pg_dump ran through a pooler"), "{ignored}: {hashed}");
    }
}

#[test]
fn values_whose_quotes_another_locale_may_put_elsewhere_are_only_counted() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE plain AS SELECT 1 AS i; CREATE TYPE pair AS (a text, b int); CREATE TABLE pairs (v pair); INSERT INTO pairs VALUES (('a', 1))",
    );
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    for locale in ["C", "POSIX"] {
        let into = format!("{database}_{}", locale.to_lowercase());
        server.drop_with_test(&into);
        let ctype = server.sql(&database, "SELECT datctype FROM pg_database WHERE datname = current_database()");
        let expected = if ctype == locale { 2 } else { 1 };
        let url = server.url(&into);
        let restored =
            scenario.json(&["backups", "restore", "latest", "--create", "--into", &url, "--check-rows", "--locale", locale]);
        assert_eq!(restored["rows_hashed"]["tables"], expected, "{locale}: {restored:#}");
        if expected == 1 {
            let said = restored["rows_hashed"]["only_counted"][0].as_str().unwrap();
            assert!(said.starts_with("public.pairs: column v has values of type public.pair"), "{said}");
        }
    }
}
