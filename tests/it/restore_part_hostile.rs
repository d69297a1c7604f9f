//! `backups restore` of a part where objects of several classes have one name, where names are hostile, or the dump is a stranger's.

use crate::restore_part::{definitions, restore, with_set};
use crate::support::Scenario;
use crate::support::postgres::server;

#[test]
fn a_statistics_object_with_the_name_of_a_table_is_another_object() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE items (id int PRIMARY KEY, a int, b int); INSERT INTO items SELECT i, i, i FROM generate_series(1, 9) i;
         CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 1000);
         CREATE STATISTICS orders ON a, b FROM items; COMMENT ON STATISTICS orders IS 'of items'",
    );
    let scenario = with_set(server, &database, "");
    let all = definitions(server, &database, &[]);
    server.sql(&database, "DROP TABLE items, orders");
    restore(&scenario, &["--table", "items"]).succeeded();
    let found = "SELECT to_regclass('orders') IS NULL, (SELECT count(*) FROM pg_statistic_ext WHERE stxname = 'orders' AND obj_description(oid) = 'of items')";
    assert_eq!(server.sql(&database, found), "t|1");
    restore(&scenario, &["--table", "orders"]).succeeded().prints(&["1,000 rows"]);
    assert_eq!(definitions(server, &database, &[]), all);
    server.sql(&database, "DROP TABLE items; CREATE TABLE x (a int, b int); CREATE STATISTICS orders ON a, b FROM x");
    restore(&scenario, &["--table", "items"]).exited(78).says(&["statistics public.orders exists"]);
}

#[test]
fn a_statement_about_what_is_made_beside_changes_no_object_of_another_class() {
    let server = server(18);
    server.sql("postgres", "CREATE ROLE climber_beside");
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); CREATE TABLE orders AS SELECT 1 AS x; CREATE STATISTICS orders ON a, b FROM t;
         CREATE SEQUENCE taken",
    );
    let script = "set -o pipefail; \"$real\" \"$@\" | sed '/^CREATE STATISTICS public.orders/r added.sql'";
    let added = [
        "ALTER TABLE public.orders OWNER TO climber_beside;\nGRANT ALL ON TABLE public.orders TO climber_beside;",
        "COMMENT ON TABLE public.orders IS 'changed';",
        "ALTER SEQUENCE public.taken OWNER TO climber_beside;",
    ];
    for added in added {
        let all = definitions(server, &database, &[]);
        let scenario = Scenario::with_tool(server, &database, "pg_dump", script).backup_job("local", "");
        std::fs::write(scenario.path("added.sql"), format!("{added}\n")).unwrap();
        scenario.run(&["run-job", "nightly"]).succeeded();
        server.sql(&database, "DROP TABLE t");
        restore(&scenario, &["--table", "t"]).exited(1).says(&["where pg_dump writes none", "is unchanged"]);
        server.sql(&database, "CREATE TABLE t (id int PRIMARY KEY, a int, b int); CREATE STATISTICS orders ON a, b FROM t");
        assert_eq!(definitions(server, &database, &[]), all, "{added}");
    }
}

#[test]
fn what_is_there_is_told_by_its_class_and_not_by_its_name_alone() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE t6 (id int PRIMARY KEY); INSERT INTO t6 SELECT generate_series(1, 7);
         CREATE FUNCTION t6(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TABLE audit (t text);
         CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit VALUES (TG_OP); RETURN NEW; END';
         CREATE TABLE inv (id int PRIMARY KEY); INSERT INTO inv VALUES (1);
         CREATE TRIGGER a AFTER INSERT ON inv FOR EACH ROW EXECUTE FUNCTION audit();
         CREATE TABLE slug (t int, CHECK (t6(t) > 0)); CREATE FUNCTION slug(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE INDEX ON slug (slug(t)); INSERT INTO slug VALUES (1);
         CREATE SCHEMA lib; CREATE FUNCTION lib.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION lib.f(text) RETURNS int LANGUAGE sql AS 'SELECT 2';
         CREATE TYPE size AS (w int, h int); COMMENT ON COLUMN size.w IS 'width'; CREATE DOMAIN price AS int CONSTRAINT positive CHECK (VALUE > 0);
         COMMENT ON CONSTRAINT positive ON DOMAIN price IS 'no gifts'; CREATE TABLE box (s size, p price)",
    );
    let all = definitions(server, &database, &[]);
    let scenario = with_set(server, &database, "");
    server.sql(&database, "DROP TABLE t6, box; DROP TYPE size; DROP DOMAIN price");
    restore(&scenario, &["--table", "t6", "--table", "box"]).succeeded().prints(&["7 rows"]);
    restore(&scenario, &["--table", "slug", "--as", "slug2"]).succeeded();
    server.sql(&database, "DROP TABLE slug2, inv");
    restore(&scenario, &["--table", "inv"]).succeeded();
    assert_eq!(definitions(server, &database, &[]), all);

    restore(&scenario, &["--schema", "lib"]).exited(78).says(&["nothing is to be restored", "function lib.f"]);
    // The trigger needs the function, whose name a table has, too.
    server.sql(&database, "DROP TABLE inv; DROP FUNCTION audit");
    let plan = restore(&scenario, &["--table", "inv", "--dry-run"]).succeeded();
    assert!(!plan.stdout.contains("function public.audit()"), "{}", plan.stdout);
    restore(&scenario, &["--table", "inv"]).succeeded().says(&["left out, as function public.audit is not there"]);
    // It needs the function alone.
    server.sql(&database, "DROP TABLE t6");
    server.sql(&database, "DROP TABLE slug");
    restore(&scenario, &["--table", "slug"]).succeeded().prints(&["1 row"]);
}

#[test]
fn names_that_look_like_the_comments_of_pg_dump_decide_nothing() {
    let server = server(18);
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE SCHEMA \"z; Type: INDEX; Schema: q\"; CREATE TYPE \"z; Type: INDEX; Schema: q\".ty AS ENUM ('a');
         CREATE SCHEMA \"z; Type: COMMENT; Schema: q; Owner: x\"; CREATE DOMAIN \"z; Type: COMMENT; Schema: q; Owner: x\".d AS int;
         CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 20) i; CREATE INDEX ON t (v)",
    );
    let all = definitions(server, &database, &[]);
    let scenario = with_set(server, &database, "");
    restore(&scenario, &["--table", "t", "--as", "t2"]).succeeded();
    server.sql(&database, "DROP TABLE t, t2");
    restore(&scenario, &["--table", "t"]).succeeded().prints(&["20 rows"]);
    assert_eq!(definitions(server, &database, &[]), all);
}

#[test]
fn default_privileges_of_the_target_give_no_rights_on_what_is_restored() {
    for major in [14, 18] {
        let server = server(major);
        let database = server.new_database();
        let sql = "CREATE ROLE reader@; CREATE ROLE keeper@; CREATE SCHEMA hr; GRANT USAGE ON SCHEMA hr TO reader@;
             ALTER DEFAULT PRIVILEGES IN SCHEMA hr GRANT SELECT ON TABLES TO reader@; ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO PUBLIC;
             ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE DELETE ON TABLES FROM CURRENT_USER;
             ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO reader@;
             CREATE TYPE hr.state AS ENUM ('a'); REVOKE ALL ON TYPE hr.state FROM reader@;
             CREATE FUNCTION hr.f(int, VARIADIC hr.state[]) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; GRANT EXECUTE ON FUNCTION hr.f TO PUBLIC;
             CREATE FUNCTION hr.f() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
             CREATE TABLE hr.salaries (id serial PRIMARY KEY, eur int DEFAULT hr.f(1, 'a'), s hr.state); INSERT INTO hr.salaries VALUES (1, 100000, 'a');
             REVOKE ALL ON hr.salaries FROM reader@; GRANT DELETE ON hr.salaries TO CURRENT_USER; REVOKE ALL ON SEQUENCE hr.salaries_id_seq FROM PUBLIC;
             ALTER TABLE hr.salaries OWNER TO keeper@;
             CREATE TABLE hr.\"a'b\\\nSELECT 'x'\" (id int); CREATE TABLE hr.hidden (id int PRIMARY KEY); INSERT INTO hr.hidden VALUES (1); ALTER TABLE hr.hidden ENABLE ROW LEVEL SECURITY";
        server.sql(&database, &sql.replace('@', &format!("_{database}")));
        let all = definitions(server, &database, &[]);
        let scenario = with_set(server, &database, "");
        restore(&scenario, &["--table", "hr.hidden", "--as", "hr.copy"]).succeeded();
        let rights = |table: &str| {
            let query = "SELECT has_table_privilege('reader_@', 'hr.TABLE', 'SELECT')";
            server.sql(&database, &query.replace('@', &database).replace("TABLE", table))
        };
        assert_eq!(rights("copy"), "f", "on {major}");
        server.sql(&database, "DROP TABLE hr.copy, hr.salaries; DROP FUNCTION hr.f(), hr.f(int, hr.state[]); DROP TYPE hr.state");
        server.sql(&database, "DROP TABLE hr.\"a'b\\\nSELECT 'x'\"");
        restore(&scenario, &["--table", "hr.salaries", "--table", "hr.a'b*"]).succeeded();
        assert_eq!(rights("salaries"), "f", "on {major}");
        assert_eq!(definitions(server, &database, &[]), all, "on {major}");
    }
}

#[test]
fn a_sequence_that_moved_while_rows_were_loaded_is_not_moved_back() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t (id serial PRIMARY KEY, v int); INSERT INTO t (v) SELECT generate_series(1, 500)");
    let scenario = with_set(server, &database, "");
    server.sql(
        &database,
        "TRUNCATE t RESTART IDENTITY; CREATE FUNCTION takes() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN PERFORM nextval(''public.t_id_seq'') FROM generate_series(1, 1000); RETURN NULL; END';
         CREATE TRIGGER takes AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION takes()",
    );
    restore(&scenario, &["--table", "t", "--data-only"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*), (SELECT last_value FROM t_id_seq) FROM t"), "500|1000");
    server.sql(&database, "DROP TRIGGER takes ON t; TRUNCATE t RESTART IDENTITY");
    restore(&scenario, &["--table", "t", "--data-only"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT nextval('t_id_seq')"), "501");
}

#[test]
fn whether_a_table_is_empty_is_not_asked_before_the_code_of_its_owner_is_looked_at() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("owner_of_{database}");
    // A query of the table is planned, and that evaluates what is constant in expressions of its indexes.
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner};
             CREATE TABLE t (id int); INSERT INTO t VALUES (1);
             CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
                 'BEGIN RAISE LOG ''{database} runs as %'', current_user; RETURN $1; END';
             CREATE INDEX ON t ((id + public.f(1)))"
        ),
    );
    let scenario = with_set(server, &database, "");
    let scenario = scenario.backup_job("local", "verify = \"restore\"\n[limits]\ntrust_owners = false");
    server.sql(&database, "TRUNCATE t");
    let ran = || server.logged().matches(&format!("{database} runs as postgres")).count();
    let before = ran();
    for more in [&["--dry-run"][..], &[]] {
        restore(&scenario, &[&["--table", "t", "--data-only"], more].concat()).exited(77).says(&["public.f"]);
    }
    assert_eq!(ran(), before);
}
