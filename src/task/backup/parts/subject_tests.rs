//! Table of cases for what a statement is about.

use super::*;

#[test]
fn statements_belong_to_the_object_that_they_make_or_are_about() {
    let of = |text: &str| {
        Subject::of(&Statement::whole(text))
            .map(|subject| (subject.of.to_string(), subject.makes.map(|object| object.to_string()), subject.role))
    };
    let name = |text: &str| Name::new("s", text);
    for (text, object, makes, role) in [
        ("CREATE TABLE s.t (a s.x DEFAULT s.f(1))", "s.t", None, Role::Table),
        ("CREATE UNLOGGED TABLE s.\"T t\" (a int)", "s.T t", None, Role::Table),
        ("ALTER TABLE s.t OWNER TO app", "s.t", None, Role::About),
        ("ALTER TABLE ONLY s.t ALTER COLUMN a SET DEFAULT nextval('s.q'::regclass)", "s.t", None, Role::Default),
        (
            "ALTER TABLE s.t ALTER COLUMN a ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME s.q\n    START WITH 1\n)",
            "s.t",
            Some("s.q"),
            Role::Identity,
        ),
        ("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a)", "s.t", Some("s.t_pkey"), Role::Key),
        ("ALTER TABLE s.t\n    ADD CONSTRAINT c CHECK ((s.f(a) > 0)) NOT VALID", "s.t", None, Role::Key),
        (
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES s.p(id)",
            "s.t",
            None,
            Role::ForeignKey { to: name("p") },
        ),
        ("ALTER TABLE ONLY s.t ATTACH PARTITION s.t_1 FOR VALUES IN (1)", "s.t", None, Role::Attach { partition: name("t_1") }),
        ("ALTER TABLE s.t ENABLE ROW LEVEL SECURITY", "s.t", None, Role::RowSecurity),
        ("CREATE UNIQUE INDEX i ON ONLY s.t USING btree (s.f(a))", "s.t", Some("s.i"), Role::Index),
        ("CREATE STATISTICS s.x (ndistinct) ON a, b FROM s.t", "s.t", Some("statistics s.x"), Role::Statistics),
        ("CREATE TRIGGER g BEFORE UPDATE OF a ON s.t FOR EACH ROW EXECUTE FUNCTION s.f()", "s.t", None, Role::Trigger),
        (
            "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON s.t FROM s.u FOR EACH ROW EXECUTE FUNCTION s.f()",
            "s.t",
            None,
            Role::Trigger,
        ),
        ("CREATE RULE r AS\n    ON INSERT TO s.t DO INSTEAD NOTHING", "s.t", None, Role::Rule),
        ("CREATE POLICY p ON s.t TO app USING ((a > 0))", "s.t", None, Role::Policy),
        ("CREATE SEQUENCE s.q START WITH 1", "s.q", None, Role::Sequence),
        ("ALTER SEQUENCE s.q OWNED BY s.t.a", "s.q", None, Role::About),
        ("SELECT pg_catalog.setval('s.\"it''s\"', 7, true)", "s.it's", None, Role::Value),
        ("CREATE OR REPLACE VIEW s.v AS SELECT 1", "s.v", None, Role::View),
        ("CREATE MATERIALIZED VIEW s.v AS SELECT 1 WITH NO DATA", "s.v", None, Role::View),
        ("REFRESH MATERIALIZED VIEW s.v", "s.v", None, Role::Refresh),
        ("CREATE FUNCTION s.f(a s.x) RETURNS int LANGUAGE sql AS $$SELECT 1$$", "s.f", None, Role::Object),
        ("CREATE OPERATOR s.<# (FUNCTION = s.f, LEFTARG = int, RIGHTARG = int)", "s.<#", None, Role::Object),
        ("CREATE SCHEMA s", "schema s", None, Role::Object),
        ("ALTER SCHEMA s OWNER TO app", "schema s", None, Role::About),
        ("GRANT USAGE ON SCHEMA s TO app", "schema s", None, Role::About),
        ("GRANT SELECT(a),UPDATE(b) ON TABLE s.schema TO app", "s.schema", None, Role::About),
        ("COMMENT ON CONSTRAINT c ON s.t IS 'x.y'", "s.t", None, Role::About),
        ("COMMENT ON COLUMN s.t.a IS 'x'", "s.t", None, Role::About),
        ("ALTER PUBLICATION p ADD TABLE ONLY s.t", "s.t", None, Role::Publication),
    ] {
        assert_eq!(of(text), Some((object.to_owned(), makes.map(str::to_owned), role)), "{text}");
    }
    for text in [
        "CREATE EXTENSION IF NOT EXISTS e WITH SCHEMA s",
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION s.f()",
        "CREATE CAST (s.a AS s.b) WITH FUNCTION s.f(s.a)",
        "CREATE OR REPLACE PROCEDURAL LANGUAGE l HANDLER s.h",
        "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC",
        "COMMENT ON EXTENSION e IS 'x'",
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "SELECT pg_catalog.lo_create('1')",
        "GRANT ALL ON TABLE s.t, public.users TO PUBLIC",
        "REVOKE ALL ON SCHEMA s, public FROM app",
        "ALTER TABLE living ADD COLUMN t s.t",
        "CREATE OR REPLACE FUNCTION works() RETURNS s.t LANGUAGE sql AS ''",
        "CREATE TRIGGER g BEFORE UPDATE ON living FOR EACH ROW EXECUTE FUNCTION s.f()",
        "CREATE RULE r AS ON INSERT TO living DO ALSO DELETE FROM s.t",
        "CREATE OR REPLACE VIEW living AS SELECT 1 FROM s.t",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}

#[test]
fn names_are_found_however_deep_and_in_casts_of_strings() {
    let text = "CREATE TABLE s.t (a s.x DEFAULT nextval('s.\"q q\"'::regclass), CONSTRAINT c CHECK ((((s.f(a) OPERATOR(s.<#) 1)))), b pg_catalog.text)";
    let found: Vec<(String, bool)> =
        mentions(&Statement::whole(text)).iter().map(|found| (found.name.to_string(), found.may_be(Class::Relation))).collect();
    let expected = [("s.<#", true), ("s.f", false), ("s.q q", true), ("s.x", true)];
    assert_eq!(found, expected.map(|(name, is)| (name.to_owned(), is)));
}

#[test]
fn the_value_of_a_sequence_is_read() {
    for (text, expected) in [
        ("SELECT pg_catalog.setval('s.q', 42, true)", Some((42, true))),
        ("SELECT pg_catalog.setval('s.q', -5, false)", Some((-5, false))),
        ("SELECT pg_catalog.setval('q', 1, true)", None),
    ] {
        assert_eq!(value(&Statement::whole(text)).map(|(_, number, is_called)| (number, is_called)), expected, "{text}");
    }
}
