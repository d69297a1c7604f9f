//! Tables and jobs that compression refuses, each by the name of what is in the way; and what changed since it was installed.

use crate::support::Scenario;
use crate::support::postgres::{Server, server};
use crate::support::scripts::{HASHES, database, job, of_5_kb, scenario};

/// The catalogs' rows of all objects that are not the server's own. It is what a command that changes nothing leaves alone.
fn catalogs(server: &Server, database: &str) -> String {
    let of = |catalog: &str| format!("SELECT '{catalog}', c::text FROM pg_catalog.{catalog} c WHERE c.oid >= 16384");
    let all = ["pg_class", "pg_attrdef", "pg_constraint", "pg_proc", "pg_trigger", "pg_rewrite", "pg_type", "pg_policy"].map(of);
    let columns = "SELECT 'pg_attribute', c::text FROM pg_catalog.pg_attribute c WHERE c.attrelid >= 16384";
    server.sql(database, &format!("{} UNION ALL {columns} ORDER BY 1, 2", all.join(" UNION ALL ")))
}

#[test]
fn what_a_view_cannot_carry_is_found_first_and_named() {
    let server = server(18);
    let cases = [
        (
            "CREATE INDEX by_words ON scripts USING gin (to_tsvector('english', content))",
            "index by_words is built over the column",
        ),
        ("CREATE INDEX partly ON scripts (id) WHERE content <> ''", "index partly is built over the column"),
        ("CREATE UNIQUE INDEX once ON scripts (md5(content))", "index once"),
        ("ALTER TABLE scripts ADD size int GENERATED ALWAYS AS (length(content)) STORED", "generated column size"),
        ("ALTER TABLE scripts ADD EXCLUDE USING hash (content WITH =)", "scripts_content_excl"),
        (
            "ALTER TABLE scripts ADD CONSTRAINT full_ones CHECK (content IS NOT NULL)",
            "constraint \"full_ones\" refuses rows without the text",
        ),
        ("CREATE MATERIALIZED VIEW sizes AS SELECT id, length(content) FROM scripts", "materialized view public.sizes"),
        ("CREATE MATERIALIZED VIEW rows AS SELECT s FROM scripts s", "materialized view public.rows"),
        ("CREATE FUNCTION f() RETURNS SETOF scripts LANGUAGE sql AS 'SELECT * FROM scripts'", "function public.f()"),
        ("CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM scripts; END", "function public.f()"),
        ("CREATE PUBLICATION p FOR TABLE scripts", "published by p"),
        ("CREATE RULE r AS ON DELETE TO scripts DO ALSO SELECT 1", "it has a rule: r"),
        (
            "CREATE TABLE log (id int); CREATE RULE r AS ON INSERT TO log DO ALSO SELECT content FROM scripts WHERE id = NEW.id",
            "rule r of public.log reads it",
        ),
        (
            "CREATE TABLE parted (LIKE scripts) PARTITION BY RANGE (id); ALTER TABLE scripts ALTER id DROP IDENTITY;
             ALTER TABLE parted ATTACH PARTITION scripts DEFAULT",
            "it is a partition of public.parted",
        ),
        (
            "ALTER TABLE scripts ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON scripts USING (content <> 'x')",
            "policy p on table public.scripts",
        ),
        ("CREATE ROLE column_reader; GRANT SELECT (id) ON scripts TO column_reader", "column id has privileges of its own"),
        ("CREATE TABLE scripts_stored (id int)", "already a relation or type public.scripts_stored"),
        ("ALTER TABLE scripts ADD content_gz text", "it already has a column content_gz"),
        ("ALTER TABLE scripts DROP CONSTRAINT scripts_pkey", "no primary key"),
        ("CREATE TABLE more () INHERITS (scripts)", "inherits from it"),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE UPDATE OF title ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "UPDATE OF",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.title := md5(NEW.content); RETURN NEW; END'; CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "--force",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO history VALUES (OLD.*); RETURN OLD; END'; CREATE TRIGGER t AFTER DELETE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "uses whole rows",
        ),
        (
            "ALTER TABLE scripts ADD tsv tsvector; CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger(tsv, 'pg_catalog.english', content)",
            "uses the column",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO history SELECT * FROM gone; RETURN NULL; END'; CREATE TRIGGER t AFTER DELETE ON scripts REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION t()",
            "reads the changed rows as a table",
        ),
        (
            "CREATE FUNCTION t() RETURNS trigger LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'; CREATE TRIGGER t AFTER DELETE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
            "written in c",
        ),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE); SET allow_system_table_mods = on;
             INSERT INTO pg_subscription_rel SELECT oid, 'scripts'::regclass, 'r', NULL FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            "a subscription writes to it",
        ),
        ("CREATE VIEW by_key AS SELECT id, title, count(*) FROM scripts GROUP BY id", "view public.by_key groups by the key alone"),
        (
            "CREATE FUNCTION save(i int) RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO scripts (id) VALUES (i) ON CONFLICT DO NOTHING; END'",
            "ON CONFLICT",
        ),
    ];
    let template = database(server, 3);
    for (number, (sql, said)) in cases.into_iter().enumerate() {
        let database = format!("{template}_{number}");
        server.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE {template}"));
        server.sql(&database, sql);
        let before = catalogs(server, &database);
        let scenario = scenario(server, &database, "");
        let output = scenario.run(&["compress", "install", "scripts"]);
        assert!(output.code == Some(78) && output.stderr.contains(said), "{sql}: {output:?}");
        assert_eq!(catalogs(server, &database), before, "{sql}");
        scenario.run(&["run-job", "scripts", "--dry-run"]).exited(78);
    }
    server.sql("postgres", "SELECT 1");

    let plain = |sql: &str, job: &str, said: &str| {
        let database = server.new_database();
        server.sql(&database, sql);
        Scenario::with_database(server, &database)
            .job("scripts", job)
            .run(&["compress", "install", "scripts"])
            .exited(78)
            .says(&[said]);
    };
    plain("CREATE TABLE scripts (id int, content text) PARTITION BY RANGE (id)", &job(""), "is partitioned");
    plain("CREATE TABLE scripts (id int PRIMARY KEY, content jsonb)", &job(""), "supports text and varchar");
    plain("CREATE TABLE scripts (id int PRIMARY KEY, content varchar(10)[])", &job(""), "supports text and varchar");
    // A name that ends in no letter is a word, too.
    plain(
        "CREATE TABLE scripts (id int PRIMARY KEY, title text, \"body!\" text);
         CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.title := md5(NEW.\"body!\"); RETURN NEW; END';
         CREATE TRIGGER t BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION t()",
        &job("").replace("'content'", "'body!'"),
        "uses the column",
    );
    plain("CREATE TABLE scripts (id int PRIMARY KEY, body text)", &job(""), "no column");
    plain("CREATE VIEW scripts AS SELECT 'x' AS content", &job(""), "not one that");
    plain("CREATE TABLE scripts (id int PRIMARY KEY, content text)", &job(""), "do nothing");
}

/// Those that fire although the run silences the ordinary ones; they fire as well where the role may not.
#[test]
fn triggers_that_would_change_other_columns_are_found_in_the_act_and_nothing_is_compressed() {
    let server = server(18);
    let database = database(server, 10);
    server.sql(
        &database,
        "CREATE FUNCTION count_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.runs := OLD.runs + 1; RETURN NEW; END';
         CREATE TRIGGER changes BEFORE UPDATE ON scripts FOR EACH ROW EXECUTE FUNCTION count_changes();
         ALTER TABLE scripts ENABLE ALWAYS TRIGGER changes",
    );
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).exited(1).says(&["changes other columns"]);
    assert_eq!(server.sql(&database, "SELECT count(content_gz), sum(runs) FROM scripts_stored"), "0|0");
    // One that comes after the row is written, at once or at the end of the transaction.
    server.sql(
        &database,
        "DROP TRIGGER changes ON scripts_stored;
         CREATE FUNCTION count_later() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF pg_trigger_depth() = 1 THEN UPDATE public.scripts_stored SET runs = runs + 1 WHERE id = OLD.id; END IF; RETURN NULL; END';",
    );
    for when in ["TRIGGER", "CONSTRAINT TRIGGER"] {
        let deferred = if when == "TRIGGER" { "" } else { "DEFERRABLE INITIALLY DEFERRED" };
        server.sql(
            &database,
            &format!("CREATE {when} later AFTER UPDATE ON scripts_stored {deferred} FOR EACH ROW EXECUTE FUNCTION count_later(); ALTER TABLE scripts_stored ENABLE ALWAYS TRIGGER later"),
        );
        scenario.run(&["run-job", "scripts"]).exited(1).says(&["changes or deletes rows that were just written"]);
        assert_eq!(server.sql(&database, "SELECT count(content_gz), sum(runs) FROM scripts_stored"), "0|0");
        server.sql(&database, "DROP TRIGGER later ON scripts_stored");
    }
    server.sql(
        &database,
        "CREATE TRIGGER changes BEFORE UPDATE ON scripts_stored FOR EACH ROW EXECUTE FUNCTION count_changes();
         ALTER TABLE scripts_stored ENABLE ALWAYS TRIGGER changes",
    );
    // A time of the last change may change: the dry run says so.
    server.sql(
        &database,
        "CREATE OR REPLACE FUNCTION count_changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END'",
    );
    scenario
        .run(&["run-job", "scripts", "--dry-run"])
        .succeeded()
        .prints(&["trigger changes fires for each row that is compressed, as it is ENABLE ALWAYS"]);
    scenario.run(&["run-job", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn a_table_that_changed_since_is_brought_up_to_date_by_another_install() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    server.sql(&database, "ALTER TABLE scripts_stored ADD author text DEFAULT 'me', ALTER title SET DEFAULT 'no title'");
    scenario.run(&["compress", "install", "scripts"]).succeeded().prints(&["brought up to date"]);
    assert_eq!(server.sql(&database, "INSERT INTO scripts (content) VALUES ('x') RETURNING author, title"), "me|no title");
    server.sql(&database, "DELETE FROM scripts WHERE content = 'x'");
    assert_eq!(server.sql(&database, HASHES), hashes);
    // Something that would lose the text came later.
    server.sql(&database, "CREATE INDEX late ON scripts_stored (md5(content))");
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["index late"]);
}

#[test]
fn another_column_of_the_same_table_and_a_changed_job_are_refused() {
    let server = server(18);
    let database = database(server, 10);
    server.sql(&database, "ALTER TABLE scripts ADD notes text; UPDATE scripts SET notes = repeat(md5(id::text), 500)");
    let scenario = scenario(server, &database, "").job("notes", &job("").replace("'content'", "'notes'"));
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    for command in [&["compress", "install", "notes"][..], &["run-job", "notes"], &["compress", "undo", "notes"]] {
        scenario.run(command).exited(78).says(&["one such column"]);
    }
    let scenario = scenario.job("scripts", &job("").replace("public.scripts", "public.scripts_stored"));
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["name the view"]);
    let scenario = scenario.job("scripts", &job("").replace("'gzip'", "'toast'"));
    scenario.run(&["run-job", "scripts"]).exited(78).says(&["undo"]);
    assert_eq!(server.sql(&database, HASHES), hashes);
}

#[test]
fn mistakes_in_the_file_are_named_with_their_place() {
    for (more, said) in [
        ("smaller_than = '1KB'", "leaves no value between"),
        ("smaller_than = '65MB'", "too large"),
        ("compression = 'lz4'", "has no meaning"),
        ("level = 9", "level"),
    ] {
        let server = server(18);
        scenario(server, "postgres", more).run(&["check"]).exited(78).says(&[said, "scripts.toml"]);
    }
}
