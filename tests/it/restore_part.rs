//! `backups restore` of a part of a set: tables with what they need, only their rows, under another name, and rows that a wrong DELETE
//! took. Nothing that lives is changed unless that was asked for.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

use crate::fetch::{sum, three_tables};
use crate::support::postgres::{Server, server};
use crate::support::s3::S3Server;
use crate::support::{Output, Scenario};

/// A table that needs something of every kind, and others that live beside it; `@` is a suffix for names of roles.
const SHOP: &str = r#"
CREATE ROLE "Keeper@"; CREATE ROLE reader@;
CREATE SCHEMA shop AUTHORIZATION "Keeper@";
COMMENT ON SCHEMA shop IS 'what is sold';
CREATE TYPE shop.state AS ENUM ('new', 'old');
CREATE DOMAIN shop.price AS numeric(10, 2) CHECK (VALUE >= 0);
CREATE TYPE shop.size AS (w int, h int);
CREATE COLLATION shop.plain (provider = libc, locale = 'C');
CREATE FUNCTION shop.slug(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION shop.is_fine(numeric) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 < 1000000';
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE public.users (id int PRIMARY KEY, name text);
INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 50) i;
CREATE TABLE shop."It ems" (
    id serial PRIMARY KEY, twin int GENERATED ALWAYS AS IDENTITY, user_id int REFERENCES public.users,
    title text COLLATE shop.plain NOT NULL, price shop.price DEFAULT 1, state shop.state DEFAULT 'new', size shop.size,
    slug text GENERATED ALWAYS AS (shop.slug(title)) STORED, body text,
    CONSTRAINT fine CHECK (((price IS NULL) OR (shop.is_fine((price)::numeric)))), UNIQUE (twin)
);
INSERT INTO shop."It ems" (user_id, title, size, body)
    SELECT 1 + i % 50, 'Title ' || i, ROW(i, 2)::shop.size, CASE WHEN i % 5 = 0 THEN NULL ELSE md5(i::text) || md5((i * 7)::text) END FROM generate_series(1, ROWS) i;
CREATE INDEX by_title ON shop."It ems" (shop.slug(title), state);
CREATE STATISTICS shop.of_items ON user_id, state FROM shop."It ems";
CREATE TRIGGER touched BEFORE UPDATE ON shop."It ems" FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE POLICY own ON shop."It ems" FOR SELECT TO reader@ USING (id > 0);
ALTER TABLE shop."It ems" ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE shop."It ems" IS 'it''s; -- a comment';
COMMENT ON COLUMN shop."It ems".title IS 'how it is called';
COMMENT ON INDEX shop.by_title IS 'an index';
COMMENT ON CONSTRAINT fine ON shop."It ems" IS 'a check';
GRANT SELECT, UPDATE (title) ON shop."It ems" TO reader@;
ALTER TABLE shop."It ems" OWNER TO "Keeper@";
ALTER TABLE shop."It ems" ALTER body SET STORAGE EXTERNAL, ALTER user_id SET STATISTICS 300;
CREATE TABLE shop.parts (id int PRIMARY KEY, item int REFERENCES shop."It ems" ON DELETE CASCADE);
INSERT INTO shop.parts SELECT i, i FROM generate_series(1, 100) i;
CREATE VIEW shop.titles AS SELECT id, title FROM shop."It ems";
CREATE TABLE public.zz_other AS SELECT 1 AS x;
"#;

const ITEMS: &str = "shop.\"It ems\"";

fn shop(server: &Server, rows: u32) -> String {
    let database = server.new_database();
    server.sql(&database, &SHOP.replace('@', &format!("_{database}")).replace("ROWS", &rows.to_string()));
    database
}

pub fn with_set(server: &Server, database: &str, more: &str) -> Scenario {
    let scenario = Scenario::with_database(server, database).backup_job("local", more);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

pub fn restore(scenario: &Scenario, more: &[&str]) -> Output {
    scenario.run(&[&["backups", "restore", "latest", "--into", "app"], more].concat())
}

/// What pg_dump says of the definitions, without the tokens of its head.
pub fn definitions(server: &Server, database: &str, more: &[&str]) -> String {
    let output = server.tool("pg_dump", database).args(["--schema-only"]).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut entries: Vec<&str> = text.split("\n--\n").filter(|entry| !entry.contains("restrict ")).collect();
    entries.sort_unstable();
    entries.join("\n--\n")
}

#[test]
fn a_table_that_is_gone_comes_back_with_all_that_it_needs() {
    for (major, rows, sessions) in
        [(18, 200_000, "sessions = 3"), (15, 3000, "sessions = 1"), (14, 3000, "compression = \"zstd\"")]
    {
        let server = server(major);
        let database = shop(server, rows);
        let scenario = with_set(server, &database, sessions);
        let shape = || definitions(server, &database, &["--table", ITEMS]);
        let (before, all, rows_before) = (shape(), definitions(server, &database, &[]), sum(server, &database, ITEMS));
        server.sql(
            &database,
            "DROP TABLE shop.parts; DROP VIEW shop.titles; DROP TABLE shop.\"It ems\"; DROP TYPE shop.state, shop.size; DROP DOMAIN shop.price;
             DROP FUNCTION shop.is_fine; DROP FUNCTION shop.slug; DROP COLLATION shop.plain",
        );
        let others = sum(server, &database, "users");
        let plan = restore(&scenario, &["--table", ITEMS, "--dry-run"]).succeeded();
        plan.prints(&["shop.It ems", "rows", "shop.state", "shop.slug", "shop.price", "nothing was changed"]);
        assert_eq!(server.sql(&database, "SELECT to_regclass('shop.\"It ems\"') IS NULL"), "t");
        let restored = restore(&scenario, &["--table", ITEMS]).succeeded();
        restored.prints(&["shop.It ems", "each table counted"]);
        assert_eq!(shape(), before, "on {major}");
        assert_eq!(sum(server, &database, ITEMS), rows_before);
        assert_eq!(sum(server, &database, "users"), others);
        let next = format!("SELECT nextval('shop.\"It ems_id_seq\"') = {}", rows + 1);
        assert_eq!(server.sql(&database, &next), "t", "the sequence goes on");
        let twin = "SELECT setval(pg_get_serial_sequence('shop.\"It ems\"', 'twin'), nextval(pg_get_serial_sequence('shop.\"It ems\"', 'twin')) - 1)";
        assert_eq!(server.sql(&database, twin), rows.to_string());
        // The rest of the schema: what is there already stays.
        let refused = restore(&scenario, &["--schema", "shop"]).exited(78);
        refused.says(&["shop.It ems exists", "--as", "--merge"]);
        restore(&scenario, &["--table", "shop.parts", "--table", "shop.titles"]).succeeded();
        assert_eq!(definitions(server, &database, &[]), all);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM shop.parts"), "100");
    }
}

#[test]
fn a_schema_comes_back_as_a_whole() {
    let server = server(18);
    let database = shop(server, 1000);
    let scenario = with_set(server, &database, "");
    let (all, rows) = (definitions(server, &database, &[]), sum(server, &database, ITEMS));
    server.sql(&database, "DROP SCHEMA shop CASCADE");
    restore(&scenario, &["--schema", "shap"]).exited(78).says(&["no schema `shap`", "did you mean"]);
    restore(&scenario, &["--schema", "shop"]).succeeded().prints(&["shop.It ems", "shop.parts"]);
    assert_eq!(definitions(server, &database, &[]), all);
    assert_eq!(sum(server, &database, ITEMS), rows);
}

#[test]
fn what_lives_is_neither_dropped_nor_written_over() {
    let server = server(18);
    let database = shop(server, 100);
    let scenario = with_set(server, &database, "");
    server.sql(&database, "UPDATE shop.parts SET item = 2");
    let (all, rows) = (definitions(server, &database, &[]), sum(server, &database, "shop.parts"));
    let ways = ["shop.parts exists", "--as", "--merge insert-missing", "--data-only"];
    restore(&scenario, &["--table", "shop.parts"]).exited(78).says(&ways);
    restore(&scenario, &["--table", "shop.parts", "--data-only"]).exited(78).says(&["shop.parts has rows", "--merge", "--as"]);
    restore(&scenario, &["--table", "shop.parts", "--as", "public.users"]).exited(78).says(&["public.users exists"]);
    restore(&scenario, &["--table", "shop.nothing"]).exited(78).says(&["no table `shop.nothing`"]);
    restore(&scenario, &["--table", "shop.parts", "--merge", "replace"]).exited(78).says(&["--yes"]);
    for more in [&["--table", "*.*", "--as", "shop.x"][..], &["--table", "shop.parts", "--where", "true"], &["--data-only"]] {
        assert_ne!(restore(&scenario, more).code, Some(0), "{more:?}");
    }
    assert_eq!(definitions(server, &database, &[]), all);
    assert_eq!(sum(server, &database, "shop.parts"), rows);
}

#[test]
fn a_table_needs_another_that_is_gone_and_the_refusal_names_it() {
    let server = server(16);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (more int) INHERITS (parent); INSERT INTO child VALUES (1, 2);
         CREATE TABLE refers (id int REFERENCES parent); INSERT INTO parent VALUES (1); INSERT INTO refers VALUES (1)",
    );
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE refers; DROP TABLE parent CASCADE");
    restore(&scenario, &["--table", "child"]).exited(78).says(&["needs public.parent", "--table public.parent"]);
    // A key to a table that is not there is left out, and said.
    restore(&scenario, &["--table", "refers"]).succeeded().says(&["left out", "refers_id_fkey", "public.parent"]);
    restore(&scenario, &["--table", "public.parent", "--table", "child"]).succeeded().says(&["public.refers", "refers_id_fkey"]);
    assert_eq!(
        server.sql(&database, "SELECT count(*), (SELECT count(*) FROM ONLY parent), (SELECT count(*) FROM refers) FROM parent"),
        "2|1|1"
    );
}

#[test]
fn a_table_is_restored_beside_the_living_one_under_another_name() {
    for major in [14, 18] {
        let server = server(major);
        let database = shop(server, 2000);
        let scenario = with_set(server, &database, "");
        let (all, rows) = (definitions(server, &database, &[]), sum(server, &database, ITEMS));
        server.sql(&database, "DELETE FROM shop.\"It ems\" WHERE id > 10");
        let arguments = ["--table", ITEMS, "--as", "shop.restored"];
        let plan = restore(&scenario, &[&arguments[..], &["--dry-run"]].concat()).succeeded();
        plan.prints(&["shop.restored", "without foreign keys"]);
        assert_eq!(definitions(server, &database, &[]), all);
        restore(&scenario, &arguments).succeeded().prints(&["shop.restored", "2,000 rows"]);
        assert_eq!(sum(server, &database, "shop.restored"), rows, "on {major}");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM shop.\"It ems\""), "10");
        let keys = "SELECT string_agg(contype::text, '' ORDER BY contype) FROM pg_constraint WHERE conrelid = 'shop.restored'::regclass AND contype <> 'n'";
        assert_eq!(server.sql(&database, keys), "cpu");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_index WHERE indrelid = 'shop.restored'::regclass"), "3");
        let grants =
            "SELECT count(*) FROM information_schema.role_table_grants WHERE table_name = 'restored' AND grantee LIKE 'reader%'";
        assert_eq!(server.sql(&database, grants), "0", "rows that a policy hid are not shown");
        restore(&scenario, &arguments).exited(78).says(&["shop.restored exists"]);
        // It leaves no trace in the living table.
        server.sql(&database, "DROP TABLE shop.restored");
        assert_eq!(definitions(server, &database, &[]), all);
    }
}

#[test]
fn only_rows_go_into_tables_that_are_empty_and_sequences_move_forward_only() {
    let server = server(18);
    let database = shop(server, 500);
    let scenario = with_set(server, &database, "");
    let (items, parts) = (sum(server, &database, ITEMS), sum(server, &database, "shop.parts"));
    server.sql(&database, "TRUNCATE shop.parts, shop.\"It ems\" RESTART IDENTITY; SELECT setval(pg_get_serial_sequence('shop.\"It ems\"', 'twin'), 7000)");
    restore(&scenario, &["--table", "shop.*", "--data-only"]).succeeded().prints(&["shop.parts", "500 rows"]);
    assert_eq!((sum(server, &database, ITEMS), sum(server, &database, "shop.parts")), (items, parts));
    assert_eq!(
        server.sql(&database, "SELECT nextval('shop.\"It ems_id_seq\"'), nextval('shop.\"It ems_twin_seq\"')"),
        "501|7001"
    );
}

/// Scripts as PSScript has them, with all that can be in the way of a row that comes back.
const SCRIPTS: &str = r"
CREATE TABLE scripts (
    script_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent int REFERENCES scripts, title text NOT NULL UNIQUE, data json,
    length int GENERATED ALWAYS AS (length(title)) STORED
);
INSERT INTO scripts (parent, title, data) SELECT nullif(i - 1, 0), 'title ' || i, json_build_object('n', i) FROM generate_series(1, 1000) i;
CREATE TABLE seen (what text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (TG_OP); RETURN NULL; END';
CREATE TRIGGER sees AFTER INSERT OR UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER sleeps AFTER INSERT ON scripts FOR EACH ROW EXECUTE FUNCTION see();
ALTER TABLE scripts DISABLE TRIGGER sleeps;
";

#[test]
fn rows_that_a_wrong_delete_took_come_back_and_the_others_stay_as_they_are() {
    for major in [14, 15, 18] {
        let server = server(major);
        let database = server.new_database();
        server.sql(&database, SCRIPTS);
        let scenario = with_set(server, &database, "");
        server.sql(
            &database,
            "TRUNCATE seen; UPDATE scripts SET parent = NULL; DELETE FROM scripts WHERE script_id BETWEEN 41 AND 60; TRUNCATE seen;
             UPDATE scripts SET title = 'changed' WHERE script_id = 7; TRUNCATE seen",
        );
        let merge =
            ["--table", "public.scripts", "--where", "script_id IN (7, 41, 42) OR length < 8", "--merge", "insert-missing"];
        let plan = restore(&scenario, &[&merge[..], &["--dry-run"]].concat()).succeeded();
        plan.prints(&["public.scripts", "script_id", "sees", "nothing was changed"]);
        assert!(!restore(&scenario, &[&merge[..], &["--dry-run"]].concat()).stdout.contains("sleeps"));
        assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts"), "980");
        restore(&scenario, &merge).succeeded().prints(&["2 inserted", "0 replaced", "9 left"]);
        let found = "SELECT string_agg(script_id || ' ' || title, ', ' ORDER BY script_id) FROM scripts WHERE script_id IN (7, 41, 42, 43)";
        assert_eq!(server.sql(&database, found), "7 changed, 41 title 41, 42 title 42", "on {major}");
        assert_eq!(server.sql(&database, "SELECT count(*), min(what) FROM seen"), "2|INSERT", "triggers fire for the rows alone");

        server.sql(&database, "UPDATE scripts s SET parent = s.script_id - 1 WHERE script_id <> 1 AND EXISTS (SELECT FROM scripts p WHERE p.script_id = s.script_id - 1); TRUNCATE seen");
        let replace = ["--table", "scripts", "--merge", "replace", "--yes"];
        let merged = scenario.json(&[&["backups", "restore", "latest", "--into", "app"], &replace[..]].concat());
        let of = |key: &str| merged[key].as_u64().unwrap();
        // One lost its parent, and one its title.
        let found = [of("rows"), of("chosen"), of("inserted"), of("replaced"), of("left")];
        assert_eq!(found, [1000, 1000, 18, 2, 980], "{merged:#}");
        let all = "SELECT count(*), count(*) FILTER (WHERE parent IS NOT DISTINCT FROM nullif(script_id - 1, 0) AND title = 'title ' || script_id AND data->>'n' = script_id::text) FROM scripts";
        assert_eq!(server.sql(&database, all), "1000|1000");
        restore(&scenario, &replace).succeeded().prints(&["0 inserted", "0 replaced", "1,000 left"]);
    }
}

#[test]
fn a_merge_that_cannot_be_right_changes_nothing() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE keyless (a int); INSERT INTO keyless VALUES (1);
         CREATE TABLE later (id int PRIMARY KEY DEFERRABLE, b int); INSERT INTO later VALUES (1, 1);
         CREATE TABLE ruled (id int PRIMARY KEY); INSERT INTO ruled VALUES (1); CREATE RULE nothing AS ON INSERT TO ruled DO INSTEAD NOTHING;
         CREATE TABLE guarded (id int PRIMARY KEY); INSERT INTO guarded VALUES (1);
         CREATE TABLE narrow (id int PRIMARY KEY, b int); INSERT INTO narrow VALUES (1, 2);
         CREATE TABLE taken (id int PRIMARY KEY, name text UNIQUE); INSERT INTO taken VALUES (1, 'a')",
    );
    let scenario = with_set(server, &database, "");
    server.sql(
        &database,
        "DELETE FROM guarded; CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER no BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION no(); ALTER TABLE narrow DROP COLUMN b;
         DELETE FROM narrow; UPDATE taken SET id = 2",
    );
    let merge =
        |table: &str, more: &[&str]| restore(&scenario, &[&["--table", table, "--merge", "insert-missing"], more].concat());
    merge("keyless", &[]).exited(78).says(&["public.keyless has no primary key", "--as"]);
    merge("later", &[]).exited(78).says(&["public.later has no primary key", "deferrable"]);
    merge("ruled", &[]).exited(78).says(&["rule", "nothing"]);
    merge("guarded", &[]).exited(1).says(&["a trigger", "nothing was changed"]);
    merge("narrow", &[]).exited(78).says(&["has no column b", "--as"]);
    merge("taken", &[]).exited(1).says(&["taken_name_key", "nothing was changed"]);
    merge("taken", &["--where", "id = 1; DROP TABLE taken"]).exited(1).says(&["--where"]);
    merge("taken", &["--where", "id = 1) OR (true"]).exited(78).says(&["--where"]);
    merge("taken", &["--where", "no_such > 1"]).exited(78).says(&["no_such"]);
    let counts =
        "SELECT (SELECT count(*) FROM guarded), (SELECT count(*) FROM narrow), (SELECT string_agg(id || name, ',') FROM taken)";
    assert_eq!(server.sql(&database, counts), "0|0|2a");
    let temporary = "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'";
    crate::support::eventually("nothing is left", || server.sql(&database, temporary) == "0");
}

#[test]
fn partitions_come_back_with_their_table_and_rows_go_into_the_right_ones() {
    for (major, sessions) in [(15, "sessions = 1"), (18, "sessions = 2")] {
        let server = server(major);
        let database = server.new_database();
        server.sql(
            &database,
            "CREATE TABLE logs (id bigint, at date NOT NULL, body text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
             CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
             CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
             CREATE TABLE logs_empty PARTITION OF logs FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
             CREATE INDEX by_body ON logs (body);
             INSERT INTO logs SELECT i, date '2026-01-01' + i % 59, repeat(md5(i::text), 4) FROM generate_series(1, 100000) i;
             CREATE TYPE shade AS ENUM ('red', 'green');
             CREATE TABLE by_shade (s shade PRIMARY KEY) PARTITION BY HASH (s);
             CREATE TABLE by_shade_0 PARTITION OF by_shade FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE by_shade_1 PARTITION OF by_shade FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO by_shade VALUES ('red'), ('green')",
        );
        let scenario = with_set(server, &database, sessions);
        let (all, rows) = (
            definitions(server, &database, &[]),
            server.sql(&database, "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l"),
        );
        server.sql(&database, "DELETE FROM logs WHERE id % 100 = 0");
        restore(&scenario, &["--table", "logs", "--merge", "insert-missing"])
            .succeeded()
            .prints(&["1,000 inserted", "99,000 left"]);
        assert_eq!(server.sql(&database, "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l"), rows);
        server.sql(&database, "DROP TABLE logs, by_shade");
        restore(&scenario, &["--table", "public.logs", "--table", "by_shade"]).succeeded();
        assert_eq!(definitions(server, &database, &[]), all);
        assert_eq!(server.sql(&database, "SELECT count(*), sum(hashtext(l::text)::bigint) FROM logs l"), rows);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM by_shade"), "2");
        // A partition alone is not attached: its rows would appear in the living table.
        server.sql(&database, "DROP TABLE logs_1");
        restore(&scenario, &["--table", "logs_1"]).succeeded().says(&["ATTACH PARTITION"]);
        assert_eq!(
            server.sql(&database, "SELECT count(*) > 40000, (SELECT count(*) FROM logs) + count(*) FROM logs_1"),
            "t|100000"
        );
        server.sql(&database, "TRUNCATE logs");
        restore(&scenario, &["--table", "logs_2", "--as", "logs_2_beside"]).succeeded();
        restore(&scenario, &["--table", "logs", "--as", "x"]).exited(78).says(&["partitioned"]);
        restore(&scenario, &["--table", "logs_2", "--data-only"]).succeeded();
        assert_eq!(server.sql(&database, "SELECT (SELECT count(*) FROM logs) = (SELECT count(*) FROM logs_2_beside)"), "t");
    }
}

#[test]
fn only_the_members_of_the_part_and_the_definitions_are_read() {
    let (server, s3) = (server(18), S3Server::start());
    let database = three_tables(server);
    server.sql(&database, "ALTER TABLE big ADD PRIMARY KEY (i); CREATE INDEX ON z_last (i)");
    for more in ["sessions = 1", "sessions = 2"] {
        let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", more);
        scenario.run(&["run-job", "nightly"]).succeeded();
        let shown = scenario.json(&["backups", "show", "latest"]);
        let held = |table: &str| -> u64 {
            let tables = shown["tables"].as_array().unwrap();
            tables.iter().find(|shown| shown["name"] == table).unwrap()["member_bytes"].as_u64().unwrap()
        };
        let before = sum(server, &database, "big");
        server.sql(&database, "ALTER TABLE big RENAME TO gone; ALTER TABLE gone RENAME CONSTRAINT big_pkey TO gone_pkey");
        let arguments =
            |table: &'static str| ["backups", "restore", "latest", "--into", "app", "--store", "bucket", "--table", table];
        let restored = scenario.json(&arguments("big"));
        let read = restored["read_bytes"].as_u64().unwrap();
        // Definitions are in the first and the last member, which are proved by blocks of 1 MiB.
        assert!(read <= held("big") * 11 / 10 + (3 << 20), "{read} read of {}", held("big"));
        assert_eq!(sum(server, &database, "big"), before);
        server.sql(&database, "DROP TABLE gone; DELETE FROM z_last WHERE i % 7 = 0; ALTER TABLE z_last ADD PRIMARY KEY (i)");
        let merged = scenario.json(&[&arguments("z_last")[..], &["--merge", "insert-missing", "--where", "i < 100"]].concat());
        let read = merged["read_bytes"].as_u64().unwrap();
        // The types of its columns are compared with the definitions.
        assert!(read <= held("z_last") + (5 << 20), "{read} read of {}", held("z_last"));
        assert_eq!(merged["inserted"], 14);
        server.sql(&database, "DELETE FROM z_last; INSERT INTO z_last SELECT i, md5(i::text) FROM generate_series(1, 30000) i; ALTER TABLE z_last DROP CONSTRAINT z_last_pkey");
    }
}

#[test]
fn parts_of_sets_of_the_first_releases_are_restored_too() {
    let server = server(18);
    let database = shop(server, 3000);
    let scenario = with_set(server, &database, "");
    let folder = scenario.path(&format!("store/{}", scenario.sets()[0]));
    let written: Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let mut first = written.clone();
    first["format"] = 1.into();
    first.as_object_mut().unwrap().remove("sha256");
    first["dump"].as_object_mut().unwrap().remove("blocks");
    first["dump"]["members"].as_object_mut().unwrap().remove("crc32");
    std::fs::write(folder.join("manifest.json"), first.to_string()).unwrap();
    let (all, rows) = (definitions(server, &database, &[]), sum(server, &database, ITEMS));
    server.sql(&database, "DELETE FROM shop.\"It ems\" WHERE id > 2000");
    restore(&scenario, &["--table", ITEMS, "--merge", "insert-missing"]).succeeded().prints(&["1,000 inserted"]);
    server.sql(&database, "DROP SCHEMA shop CASCADE");
    restore(&scenario, &["--schema", "shop"]).succeeded();
    assert_eq!(definitions(server, &database, &[]), all);
    assert_eq!(sum(server, &database, ITEMS), rows);
}

#[test]
fn of_a_part_that_is_damaged_or_forged_nothing_is_restored() {
    let server = server(18);
    let database = three_tables(server);
    server.sql(&database, "ALTER TABLE big ADD PRIMARY KEY (i); CREATE TABLE a_small (x int)");
    let scenario = with_set(server, &database, "");
    let dump = scenario.path(&format!("store/{}/dump.sql.gz", scenario.sets()[0]));
    let whole = std::fs::read(&dump).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&dump, &bytes).unwrap();
    server.sql(
        &database,
        "ALTER TABLE big RENAME TO kept; ALTER TABLE kept RENAME CONSTRAINT big_pkey TO kept_pkey; DROP TABLE a_first",
    );
    restore(&scenario, &["--table", "big"]).exited(1).says(&["differs from its manifest", "is unchanged"]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('big') IS NULL"), "t");
    restore(&scenario, &["--table", "a_first"]).succeeded();
    server.sql(&database, "ALTER TABLE kept RENAME TO big; DELETE FROM big WHERE i < 10");
    restore(&scenario, &["--table", "big", "--merge", "insert-missing"]).exited(1).says(&["differs from its manifest"]);
    assert_eq!(server.sql(&database, "SELECT min(i) FROM big"), "10");
    // The last block holds the definitions that come after rows.
    let mut bytes = whole;
    let last = bytes.len() - 100;
    bytes[last] ^= 4;
    std::fs::write(&dump, &bytes).unwrap();
    server.sql(&database, "DROP TABLE a_first");
    restore(&scenario, &["--table", "a_first"]).exited(1).says(&["differs from its manifest"]);
    assert_eq!(server.sql(&database, "SELECT to_regclass('a_first') IS NULL"), "t");
}

/// What a stranger adds to the definition of one table, about others.
const ADDED: [&str; 6] = [
    "ALTER TABLE public.living OWNER TO climber_part;",
    "GRANT ALL ON TABLE public.t, public.living TO climber_part;",
    "CREATE OR REPLACE FUNCTION public.works() RETURNS int LANGUAGE sql AS 'SELECT 2';",
    "ALTER TABLE living ADD COLUMN t public.t;",
    "COMMENT ON TABLE public.living IS 'changed';",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO climber_part;",
];

#[test]
fn what_a_stranger_adds_to_a_tables_definition_changes_no_other_table() {
    let server = server(18);
    server.sql("postgres", "CREATE ROLE climber_part");
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t AS SELECT 1 AS x; CREATE TABLE living AS SELECT 1 AS x; CREATE FUNCTION works() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    let all = definitions(server, &database, &[]);
    let script = "set -o pipefail; \"$real\" \"$@\" | sed '/^ALTER TABLE public.t OWNER/r added.sql'";
    for added in ADDED {
        let scenario = Scenario::with_tool(server, &database, "pg_dump", script).backup_job("local", "");
        std::fs::write(scenario.path("added.sql"), format!("{added}\n")).unwrap();
        scenario.run(&["run-job", "nightly"]).succeeded();
        server.sql(&database, "DROP TABLE t");
        for more in [&["--table", "t"][..], &["--table", "t", "--search-path", "public"], &["--table", "t", "--as", "x"]] {
            restore(&scenario, more).exited(1).says(&["where pg_dump writes none", "is unchanged"]);
        }
        server.sql(&database, "CREATE TABLE t AS SELECT 1 AS x");
        assert_eq!(definitions(server, &database, &[]), all, "{added}");
    }
}

#[test]
fn a_role_without_rights_restores_and_merges_its_own_tables() {
    let server = server(16);
    let database = server.new_database();
    let role = format!("own_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role}; SET ROLE {role};
             CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE mine (id serial PRIMARY KEY, m mood); INSERT INTO mine (m) SELECT 'a' FROM generate_series(1, 20)"
        ),
    );
    let scenario = with_set(server, &database, "");
    let url = server.url_as(&role, &database);
    let restore = |more: &[&str]| scenario.run(&[&["backups", "restore", "latest", "--into", &url], more].concat());
    server.sql(&database, "DELETE FROM mine WHERE id > 15; ALTER SEQUENCE mine_id_seq RESTART WITH 3");
    restore(&["--table", "mine", "--merge", "insert-missing", "--where", "id > 17"]).succeeded().prints(&["3 inserted"]);
    assert_eq!(
        server.sql(&database, "SELECT count(*), nextval('mine_id_seq') FROM mine"),
        "18|21",
        "the sequence is past the rows"
    );
    server.sql(&database, "DROP TABLE mine; DROP TYPE mood");
    restore(&["--table", "mine"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM mine"), "20");
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'mine'";
    assert_eq!(server.sql(&database, owner), role);
}

#[test]
fn a_server_that_answers_with_too_much_changes_nothing_about_a_part() {
    let (server, s3) = (server(18), S3Server::start());
    let database = three_tables(server);
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let rows = sum(server, &database, "z_last");
    s3.quirks().ignores_ranges.store(true, Relaxed);
    server.sql(&database, "DROP TABLE z_last");
    restore(&scenario, &["--table", "z_last", "--store", "bucket"]).succeeded();
    assert_eq!(sum(server, &database, "z_last"), rows);
}
