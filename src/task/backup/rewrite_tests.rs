use super::super::choices::Without;
use super::*;

fn server() -> Server {
    Server {
        settings: ["lock_timeout", "default_tablespace"].map(str::to_owned).into(),
        tablespaces: ["here".to_owned()].into(),
        is_superuser: true,
        owners: HashSet::new(),
    }
}

/// Returns the statement that runs in place of `text`; `-` if none does.
fn run(text: &str, choices: &Choices) -> String {
    match fate(text, choices, &server()) {
        Fate::Run(sql, _) => sql.into_owned(),
        Fate::Cut(sql, _) => sql,
        Fate::NotValid(sql, _) => format!("try {sql}"),
        Fate::Pass(_) | Fate::LeftOut(_) => "-".to_owned(),
        Fate::BySuperuser(_) => "superuser".to_owned(),
        Fate::Foreign => "foreign".to_owned(),
    }
}

fn without(kind: Object, name: &str) -> Choices {
    Choices { without: vec![Without { kind, name: name.to_owned() }], ..Choices::default() }
}

#[track_caller]
fn check(choices: &Choices, table: &[(&str, &str)]) {
    for (text, expected) in table {
        let expected = if *expected == "=" { text } else { expected };
        assert_eq!(run(text, choices), *expected, "{text}");
    }
}

#[test]
fn by_default_only_unknown_settings_go() {
    check(
        &Choices::default(),
        &[
            ("SET lock_timeout = 0", "="),
            ("SET transaction_timeout = 0", "-"),
            ("SET SESSION AUTHORIZATION bob", "="),
            ("SET default_tablespace = elsewhere", "="),
            ("SELECT pg_catalog.set_config('search_path', '', false)", "="),
            ("CREATE INDEX i ON s.t USING btree (a)", "="),
            ("ALTER TABLE s.t OWNER TO app", "="),
            ("CREATE FUNCTION s.f() RETURNS void LANGUAGE sql AS $$ SET transaction_timeout = 0 $$", "="),
        ],
    );
}

#[test]
fn owners_go_where_asked_and_nothing_that_looks_like_one() {
    let choices = Choices { no_owner: true, ..Choices::default() };
    check(
        &choices,
        &[
            ("ALTER TABLE s.t OWNER TO app", "-"),
            ("ALTER FUNCTION s.f(a text, \"OWNER TO x\" int) OWNER TO \"We ird\"", "-"),
            ("ALTER LARGE OBJECT 16400 OWNER TO app", "-"),
            ("ALTER TABLE ONLY s.t ALTER COLUMN a SET DEFAULT 'OWNER TO app'", "="),
            ("GRANT SELECT ON TABLE s.t TO app", "="),
        ],
    );
}

#[test]
fn roles_get_their_new_names_wherever_pg_dump_writes_them() {
    let choices =
        Choices { role_map: vec![("app".into(), "new \"app\"".into()), ("We ird".into(), "plain".into())], ..Choices::default() };
    let new = "\"new \"\"app\"\"\"";
    let table = [
        ("ALTER TABLE s.app OWNER TO app", format!("ALTER TABLE s.app OWNER TO {new}")),
        ("ALTER SCHEMA x OWNER TO \"We ird\"", "ALTER SCHEMA x OWNER TO \"plain\"".into()),
        (
            "GRANT SELECT(app),UPDATE(\"TO\") ON TABLE s.app TO app",
            format!("GRANT SELECT(app),UPDATE(\"TO\") ON TABLE s.app TO {new}"),
        ),
        (
            "GRANT ALL ON FUNCTION s.f(app text) TO app WITH GRANT OPTION",
            format!("GRANT ALL ON FUNCTION s.f(app text) TO {new} WITH GRANT OPTION"),
        ),
        ("REVOKE ALL ON SCHEMA public FROM PUBLIC", "REVOKE ALL ON SCHEMA public FROM PUBLIC".into()),
        ("REVOKE ALL ON TABLE s.t FROM app", format!("REVOKE ALL ON TABLE s.t FROM {new}")),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES TO \"We ird\"",
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {new} IN SCHEMA s GRANT SELECT ON TABLES TO \"plain\""),
        ),
        (
            "CREATE POLICY app ON s.t TO other, app USING ((a = 'TO app'::text))",
            format!("CREATE POLICY app ON s.t TO other, {new} USING ((a = 'TO app'::text))"),
        ),
        (
            "CREATE USER MAPPING FOR app SERVER app OPTIONS (\"user\" 'app')",
            format!("CREATE USER MAPPING FOR {new} SERVER app OPTIONS (\"user\" 'app')"),
        ),
        ("SET SESSION AUTHORIZATION app", format!("SET SESSION AUTHORIZATION {new}")),
        ("CREATE TABLE s.app (app integer)", "CREATE TABLE s.app (app integer)".into()),
        ("COMMENT ON TABLE s.t IS 'GRANT x TO app'", "COMMENT ON TABLE s.t IS 'GRANT x TO app'".into()),
    ];
    for (text, expected) in table {
        assert_eq!(run(text, &choices), expected, "{text}");
    }
}

#[test]
fn a_subscription_never_comes_alive() {
    let create = "CREATE SUBSCRIPTION \"S 1\" CONNECTION 'host=x slot_name=y' PUBLICATION p WITH (connect = false, slot_name = 's;1', streaming = on)";
    let Fate::Run(sql, Some(note)) = fate(create, &Choices::default(), &server()) else { panic!("it runs") };
    assert_eq!(sql, create.replace("'s;1'", "NONE"));
    assert!(note.contains("SET (slot_name = 's;1')") && note.contains("ALTER SUBSCRIPTION \"S 1\" ENABLE"), "{note}");
    check(
        &Choices::for_scratch(),
        &[
            (create, "-"),
            ("ALTER SUBSCRIPTION s OWNER TO postgres", "-"),
            ("COMMENT ON SUBSCRIPTION s IS 'x'", "-"),
            ("SECURITY LABEL FOR dummy ON SUBSCRIPTION s IS 'x'", "-"),
            ("COMMENT ON TABLE s.t IS 'CREATE SUBSCRIPTION'", "="),
        ],
    );
}

#[test]
fn tablespaces_go_where_asked_and_in_a_scratch_database_where_they_are_not() {
    let asked = Choices { no_tablespaces: true, ..Choices::default() };
    check(
        &asked,
        &[
            ("SET default_tablespace = here", "-"),
            ("SET default_tablespace = ''", "="),
            ("SET default_tablespace = \"El Se\"", "-"),
        ],
    );
    check(
        &Choices::for_scratch(),
        &[
            ("SET default_tablespace = here", "="),
            ("SET default_tablespace = elsewhere", "-"),
            ("SET default_tablespace = ''", "="),
        ],
    );
}

#[test]
fn the_search_path_is_the_asked_one() {
    let choices = Choices { search_path: Some("public, \"a'b\"".into()), ..Choices::default() };
    check(
        &choices,
        &[(
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "SELECT pg_catalog.set_config('search_path', E'public, \"a''b\"', false)",
        )],
    );
}

#[test]
fn an_index_goes_with_all_that_belongs_to_it() {
    for name in ["i", "s.i", "t.i", "s.t.i"] {
        check(&without(Object::Index, name), &[("CREATE UNIQUE INDEX i ON ONLY s.t USING btree (lower(a))", "-")]);
    }
    check(
        &without(Object::Index, "s.i"),
        &[
            ("CREATE INDEX i ON s.t USING btree (a)", "-"),
            ("CREATE INDEX i ON other.t USING btree (a)", "="),
            ("COMMENT ON INDEX s.i IS 'x'", "-"),
            ("ALTER TABLE s.t CLUSTER ON i", "-"),
            ("ALTER TABLE ONLY s.t REPLICA IDENTITY USING INDEX i", "-"),
            ("ALTER INDEX s.root ATTACH PARTITION s.i", "-"),
            ("ALTER INDEX s.i ALTER COLUMN 1 SET STATISTICS 400", "-"),
            ("CREATE TABLE s.i (i integer)", "="),
            ("ALTER TABLE ONLY s.t ADD CONSTRAINT i PRIMARY KEY (a)", "="),
        ],
    );
    check(
        &without(Object::Index, "I.x"),
        &[("CREATE INDEX \"I.x\" ON s.t USING btree (a)", "-"), ("CREATE INDEX x ON s.t (a)", "=")],
    );
}

#[test]
fn a_constraint_goes_wherever_it_stands_and_a_foreign_key_becomes_not_valid() {
    let fk = "ALTER TABLE ONLY s.c\n    ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES s.p(id) DEFERRABLE INITIALLY DEFERRED";
    check(
        &without(Object::Constraint, "k"),
        &[
            (fk, &format!("try {fk} NOT VALID")),
            ("ALTER TABLE s.c\n    ADD CONSTRAINT k CHECK ((a > 0)) NOT VALID", "-"),
            ("ALTER TABLE ONLY s.c ADD CONSTRAINT k UNIQUE (a)", "-"),
            ("COMMENT ON CONSTRAINT k ON s.c IS 'x'", "-"),
            ("COMMENT ON CONSTRAINT k ON DOMAIN s.d IS 'x'", "-"),
            ("ALTER DOMAIN s.d ADD CONSTRAINT k CHECK ((VALUE > 0)) NOT VALID", "-"),
            ("ALTER TABLE ONLY s.c ADD CONSTRAINT kk UNIQUE (k)", "="),
            ("CREATE TABLE s.c (\n    a integer,\n    CONSTRAINT k CHECK ((a > 0))\n)", "CREATE TABLE s.c (\n    a integer\n)"),
            (
                "CREATE TABLE s.c (\n    a integer,\n    CONSTRAINT k CHECK ((f(a, ')') > 0)) NO INHERIT,\n    CONSTRAINT l CHECK ((a > 1))\n)",
                "CREATE TABLE s.c (\n    a integer,\n    CONSTRAINT l CHECK ((a > 1))\n)",
            ),
            (
                "CREATE TABLE s.c (CONSTRAINT k CHECK ((a > 0)), b text)\nINHERITS (s.p)",
                "CREATE TABLE s.c ( b text)\nINHERITS (s.p)",
            ),
            (
                "CREATE UNLOGGED TABLE s.c (\n    a integer CONSTRAINT k NOT NULL,\n    k text\n)",
                "CREATE UNLOGGED TABLE s.c (\n    a integer ,\n    k text\n)",
            ),
            ("CREATE DOMAIN s.d AS text\n\tCONSTRAINT k CHECK ((VALUE <> 'k'::text))", "CREATE DOMAIN s.d AS text\n\t"),
        ],
    );
}

#[test]
fn an_extension_goes_with_its_comment() {
    check(
        &without(Object::Extension, "uuid-ossp"),
        &[
            ("CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA public", "-"),
            ("COMMENT ON EXTENSION \"uuid-ossp\" IS 'x'", "-"),
            ("CREATE EXTENSION IF NOT EXISTS unaccent WITH SCHEMA public", "="),
        ],
    );
}

#[test]
fn several_constraints_of_one_table_are_cut_out_and_the_commas_are_those_of_what_is_left() {
    let mut choices = without(Object::Constraint, "k");
    choices.without.extend(without(Object::Constraint, "l").without);
    let (k, l) = ("CONSTRAINT k CHECK ((a > 0))", "CONSTRAINT l NOT NULL a NO INHERIT");
    let table = [
        (format!("CREATE TABLE s.c (a int, {k}, {l}, b int)"), "CREATE TABLE s.c (a int, b int)"),
        (format!("CREATE TABLE s.c ({k}, {l}, b int)"), "CREATE TABLE s.c (  b int)"),
        (format!("CREATE TABLE s.c (a int, {k}, b int, {l})"), "CREATE TABLE s.c (a int, b int)"),
        (format!("CREATE TABLE s.c (a int CONSTRAINT l NOT NULL, {k})"), "CREATE TABLE s.c (a int )"),
        (format!("CREATE TABLE s.c ({k}, {l})\nINHERITS (s.p)"), "CREATE TABLE s.c ( )\nINHERITS (s.p)"),
    ];
    for (text, expected) in &table {
        assert_eq!(run(text, &choices), *expected, "{text}");
        let Fate::Cut(_, which) = fate(text, &choices, &server()) else { panic!("{text}") };
        assert_eq!(which.len(), 2, "{text}");
    }
}

#[test]
fn the_roles_of_a_statement_are_those_that_it_grants_to_or_revokes_from() {
    for (text, roles) in [
        ("GRANT ALL ON FUNCTION s.f() TO app, \"We ird\"", &["app", "We ird"][..]),
        ("REVOKE ALL ON TABLE s.t FROM PUBLIC", &[]),
        ("COMMENT ON TABLE s.t IS 'TO app'", &[]),
    ] {
        assert_eq!(role_names(text), roles, "{text}");
    }
}

#[test]
fn a_role_without_rights_proves_a_dump_and_says_what_it_did_not_try() {
    let server = Server { is_superuser: false, owners: ["me".to_owned()].into(), ..server() };
    let choices = Choices::for_scratch();
    for (text, runs) in [
        ("ALTER TABLE s.t OWNER TO me", true),
        ("ALTER TABLE s.t OWNER TO app", false),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO PUBLIC", false),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE me GRANT SELECT ON TABLES TO PUBLIC", true),
        ("CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()", false),
        ("CREATE TABLE s.t (a int)", true),
    ] {
        match fate(text, &choices, &server) {
            Fate::Run(..) => assert!(runs, "{text}"),
            Fate::Pass(Some(note)) => assert!(!runs && note.contains("not tested"), "{text}: {note}"),
            other => panic!("{text}: {other:?}"),
        }
        assert!(matches!(fate(text, &Choices::default(), &server), Fate::Run(..)), "{text} into a database that stays");
    }
}

#[test]
fn what_a_superuser_has_made_before_is_not_made_again() {
    let extension = super::super::facts::Extension { name: "vector".into(), version: "0.8".into(), schema: Some("ext".into()) };
    check(
        &Choices::for_own_server(vec![extension]),
        &[
            ("CREATE SCHEMA ext", "-"),
            ("CREATE SCHEMA app", "="),
            ("COMMENT ON EXTENSION vector IS 'ours'", "-"),
            ("COMMENT ON EXTENSION other IS 'ours'", "="),
            ("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA ext", "="),
            ("GRANT USAGE ON SCHEMA ext TO app", "superuser"),
            ("ALTER SUBSCRIPTION s OWNER TO app", "-"),
        ],
    );
    let unprivileged = Server { is_superuser: false, ..server() };
    let owner = "ALTER TABLE s.t OWNER TO app";
    let own_server = Choices::for_own_server(Vec::new());
    assert!(matches!(fate(owner, &own_server, &unprivileged), Fate::BySuperuser(_)));
    for owner in ["EVENT TRIGGER e", "FOREIGN DATA WRAPPER w", "SUBSCRIPTION s"] {
        let text = format!("ALTER {owner} OWNER TO app");
        assert_eq!(fate(&text, &own_server, &unprivileged), Fate::Pass(None), "{text}: `not_tried` in the report names it");
    }
    assert!(matches!(fate(owner, &Choices::for_scratch(), &unprivileged), Fate::Pass(Some(_))));
    check(&Choices::default(), &[("CREATE SCHEMA ext", "="), ("COMMENT ON EXTENSION vector IS 'ours'", "=")]);
}

#[test]
fn public_is_made_where_it_is_not_there_and_no_other_schema_is_taken_for_one_of_the_dump() {
    check(
        &Choices::default(),
        &[
            ("CREATE SCHEMA public", "CREATE SCHEMA IF NOT EXISTS public"),
            ("CREATE SCHEMA app", "="),
            ("CREATE SCHEMA \"public \"", "="),
            ("ALTER SCHEMA public OWNER TO app", "="),
        ],
    );
}

#[test]
fn a_vector_index_that_is_not_built_has_no_row_and_all_else_of_its_definition() {
    let choices = Choices { no_vector_indexes: true, ..Choices::for_scratch() };
    check(
        &choices,
        &[
            (
                "CREATE INDEX i ON s.t USING hnsw (e public.vector_cosine_ops) WITH (m='8')",
                "CREATE INDEX i ON s.t USING hnsw (e public.vector_cosine_ops) WITH (m='8') WHERE false",
            ),
            (
                "CREATE INDEX \"WHERE\" ON ONLY s.t USING ivfflat (e) WHERE (e IS NOT NULL)",
                "CREATE INDEX \"WHERE\" ON ONLY s.t USING ivfflat (e) WHERE (e IS NOT NULL) AND false",
            ),
            ("CREATE INDEX hnsw ON s.ivfflat USING btree (a)", "="),
            ("CREATE INDEX \"i USING hnsw\" ON s.t USING gin (a)", "="),
            ("CREATE UNIQUE INDEX i ON s.t USING btree (a)", "="),
            ("COMMENT ON INDEX s.i IS 'USING hnsw'", "="),
            ("ALTER INDEX s.i ATTACH PARTITION s.i_1", "="),
        ],
    );
    check(&Choices::for_scratch(), &[("CREATE INDEX i ON s.t USING hnsw (e)", "=")]);
}
