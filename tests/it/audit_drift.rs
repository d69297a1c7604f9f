//! The drift check sees every fact of a schema that can change. `zoo.sql` has one object of each kind; the facts are asked of the check's own queries, so
//! that a new one without a change below fails.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::audit::{findings, keys};
use crate::support::Scenario;
use crate::support::postgres::{Server, server};

const ZOO: &str = concat!(include_str!("fixtures/zoo.sql"), include_str!("fixtures/zoo_news.sql"));
/// A copy of a database has no subscription.
const NEWS: &str = include_str!("fixtures/zoo_news.sql");
/// The subscription of this database: all databases have theirs in one catalog.
const IS_NEWS: &str = "subname = 'zoo_news' AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
const QUERY: &str = concat!(
    include_str!("../../src/task/audit/drift/begin.sql"),
    include_str!("../../src/task/audit/drift/types.sql"),
    include_str!("../../src/task/audit/drift/tables.sql"),
    include_str!("../../src/task/audit/drift/others.sql"),
    include_str!("../../src/task/audit/drift/end.sql"),
);

/// (kind, fact, object, change). Comments, owners and rights are changed by themselves, for each kind.
const CHANGES: &[(&str, &str, &str, &str)] = &[
    ("extension", "schema", "NAME", "ALTER EXTENSION NAME SET SCHEMA annex"),
    ("collation", "provider", "zoo.german", "UPDATE pg_collation SET collprovider = 'i' WHERE collname = 'german'"),
    ("collation", "locale", "zoo.german", "UPDATE pg_collation SET collcollate = 'POSIX' WHERE collname = 'german'"),
    ("collation", "deterministic", "zoo.german", "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'german'"),
    ("collation", "rules", "zoo.german", "UPDATE pg_collation SET collicurules = '&a < b' WHERE collname = 'german'"),
    ("type", "sort", "zoo.pair", "DROP TABLE zoo.pairs; DROP TYPE zoo.pair; CREATE TYPE zoo.pair AS ENUM ()"),
    ("type", "labels", "zoo.mood", "ALTER TYPE zoo.mood ADD VALUE 'calm'"),
    ("type", "base type", "zoo.positive", "UPDATE pg_type SET typbasetype = 'int8'::regtype WHERE typname = 'positive'"),
    ("type", "collation", "zoo.word", "UPDATE pg_type SET typcollation = 100 WHERE typname = 'word'"),
    ("type", "default", "zoo.positive", "ALTER DOMAIN zoo.positive SET DEFAULT 2"),
    ("type", "not null", "zoo.positive", "ALTER DOMAIN zoo.positive SET NOT NULL"),
    ("type", "checks", "zoo.positive", "ALTER DOMAIN zoo.positive DROP CONSTRAINT is_positive"),
    ("type", "attributes", "zoo.pair", "DROP TABLE zoo.pairs; ALTER TYPE zoo.pair ADD ATTRIBUTE third int"),
    (
        "type",
        "definition",
        "zoo.span",
        "UPDATE pg_range SET rngsubdiff = 'float8mi'::regproc WHERE rngtypid = 'zoo.span'::regtype",
    ),
    ("type", "definition", "zoo.whole", "UPDATE pg_type SET typcategory = 'X' WHERE typname = 'whole'"),
    (
        "sequence",
        "type",
        "zoo.numbers",
        "UPDATE pg_sequence SET seqtypid = 'int4'::regtype WHERE seqrelid = 'zoo.numbers'::regclass",
    ),
    ("sequence", "start", "zoo.numbers", "ALTER SEQUENCE zoo.numbers START 5"),
    ("sequence", "increment", "zoo.numbers", "ALTER SEQUENCE zoo.numbers INCREMENT 5"),
    ("sequence", "minimum", "zoo.numbers", "ALTER SEQUENCE zoo.numbers MINVALUE 0"),
    ("sequence", "maximum", "zoo.numbers", "ALTER SEQUENCE zoo.numbers MAXVALUE 1000"),
    ("sequence", "cache", "zoo.animals_id_seq", "ALTER SEQUENCE zoo.animals_id_seq CACHE 5"),
    ("sequence", "cycle", "zoo.numbers", "ALTER SEQUENCE zoo.numbers CYCLE"),
    ("sequence", "unlogged", "zoo.of_nothing", "ALTER SEQUENCE zoo.of_nothing SET UNLOGGED"),
    ("sequence", "owned by", "zoo.visits_id_seq", "ALTER SEQUENCE zoo.visits_id_seq OWNED BY NONE"),
    (
        "table",
        "partition key",
        "zoo.logs",
        "DROP TABLE zoo.logs_1; DROP TABLE zoo.logs; CREATE TABLE zoo.logs (id int, at timestamptz) PARTITION BY LIST (id)",
    ),
    ("table", "unlogged", "zoo.empty", "ALTER TABLE zoo.empty SET UNLOGGED"),
    ("table", "access method", "zoo.empty", "ALTER TABLE zoo.empty SET ACCESS METHOD zoo_heap"),
    ("table", "tablespace", "zoo.empty", "UPDATE pg_class SET reltablespace = 1663 WHERE oid = 'zoo.empty'::regclass"),
    ("table", "options", "zoo.parent", "ALTER TABLE zoo.parent SET (fillfactor = 70)"),
    ("table", "TOAST options", "zoo.animals", "ALTER TABLE zoo.animals SET (toast.autovacuum_enabled = off)"),
    ("table", "row security", "zoo.animals", "ALTER TABLE zoo.animals DISABLE ROW LEVEL SECURITY"),
    ("table", "forced row security", "zoo.animals", "ALTER TABLE zoo.animals FORCE ROW LEVEL SECURITY"),
    ("table", "replica identity", "zoo.animals", "ALTER TABLE zoo.animals REPLICA IDENTITY USING INDEX animals_name"),
    ("table", "parents", "zoo.child", "ALTER TABLE zoo.child INHERIT zoo.parent"),
    (
        "table",
        "bound",
        "zoo.logs_1",
        "ALTER TABLE zoo.logs DETACH PARTITION zoo.logs_1; ALTER TABLE zoo.logs ATTACH PARTITION zoo.logs_1 FOR VALUES FROM (0) TO (5)",
    ),
    ("table", "of type", "zoo.pairs", "ALTER TABLE zoo.pairs NOT OF"),
    (
        "table",
        "server",
        "zoo.far",
        "UPDATE pg_foreign_table SET ftserver = (SELECT oid FROM pg_foreign_server WHERE srvname = 'zoo_other_server')",
    ),
    ("table", "server options", "zoo.far", "ALTER FOREIGN TABLE zoo.far OPTIONS (SET name 'y')"),
    ("column", "type", "zoo.visits.animal_id", "ALTER TABLE zoo.visits ALTER animal_id TYPE bigint"),
    ("column", "collation", "zoo.animals.kind", "ALTER TABLE zoo.animals ALTER kind TYPE text COLLATE \"default\""),
    ("column", "default", "zoo.animals.name", "ALTER TABLE zoo.animals ALTER name SET DEFAULT 'some'"),
    ("column", "generated", "zoo.animals.twice", "ALTER TABLE zoo.animals ALTER twice DROP EXPRESSION"),
    ("column", "identity", "zoo.animals.id", "ALTER TABLE zoo.animals ALTER id SET GENERATED BY DEFAULT"),
    ("column", "not null", "zoo.animals.name", "ALTER TABLE zoo.animals ALTER name DROP NOT NULL"),
    ("column", "storage", "zoo.animals.name", "ALTER TABLE zoo.animals ALTER name SET STORAGE EXTERNAL"),
    ("column", "compression", "zoo.animals.name", "ALTER TABLE zoo.animals ALTER name SET COMPRESSION pglz"),
    ("column", "statistics", "zoo.animals.name", "ALTER TABLE zoo.animals ALTER name SET STATISTICS 500"),
    ("column", "options", "zoo.animals.name", "ALTER TABLE zoo.animals ALTER name SET (n_distinct = 5)"),
    ("column", "server options", "zoo.far.id", "ALTER FOREIGN TABLE zoo.far ALTER id OPTIONS (SET name 'j')"),
    (
        "constraint",
        "definition",
        "zoo.visits of_animal",
        "ALTER TABLE zoo.visits DROP CONSTRAINT of_animal, ADD CONSTRAINT of_animal FOREIGN KEY (animal_id) REFERENCES zoo.animals ON DELETE CASCADE",
    ),
    (
        "constraint",
        "triggers",
        "zoo.visits of_animal",
        "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgisinternal AND tgconstraint = (SELECT oid FROM pg_constraint WHERE conname = 'of_animal')",
    ),
    ("constraint", "index options", "zoo.visits visits_pkey", "ALTER INDEX zoo.visits_pkey SET (fillfactor = 70)"),
    (
        "constraint",
        "index tablespace",
        "zoo.visits visits_pkey",
        "UPDATE pg_class SET reltablespace = 1663 WHERE oid = 'zoo.visits_pkey'::regclass",
    ),
    ("constraint", "clustered", "zoo.visits visits_pkey", "ALTER TABLE zoo.visits CLUSTER ON visits_pkey"),
    ("index", "definition", "zoo.visits_at", "DROP INDEX zoo.visits_at; CREATE INDEX visits_at ON zoo.visits (at DESC)"),
    ("index", "tablespace", "zoo.visits_at", "UPDATE pg_class SET reltablespace = 1663 WHERE oid = 'zoo.visits_at'::regclass"),
    ("index", "clustered", "zoo.visits_at", "ALTER TABLE zoo.visits CLUSTER ON visits_at"),
    ("index", "statistics", "zoo.visits_day", "ALTER INDEX zoo.visits_day ALTER COLUMN 1 SET STATISTICS 50"),
    (
        "view",
        "definition",
        "zoo.all_animals",
        "CREATE OR REPLACE VIEW zoo.all_animals AS SELECT id, name FROM zoo.animals WHERE id > 0",
    ),
    ("view", "options", "zoo.all_animals", "ALTER VIEW zoo.all_animals SET (security_invoker = true)"),
    ("view", "access method", "zoo.counted", "ALTER MATERIALIZED VIEW zoo.counted SET ACCESS METHOD zoo_heap"),
    ("view", "tablespace", "zoo.counted", "UPDATE pg_class SET reltablespace = 1663 WHERE oid = 'zoo.counted'::regclass"),
    (
        "trigger",
        "definition",
        "zoo.animals touch",
        "DROP TRIGGER touch ON zoo.animals; CREATE TRIGGER touch BEFORE INSERT ON zoo.animals FOR EACH ROW EXECUTE FUNCTION zoo.touch()",
    ),
    ("trigger", "enabled", "zoo.animals touch", "ALTER TABLE zoo.animals DISABLE TRIGGER touch"),
    ("trigger", "enabled", "zoo.logs_1 touch", "ALTER TABLE zoo.logs_1 DISABLE TRIGGER touch"),
    (
        "rule",
        "definition",
        "zoo.parent kept",
        "DROP RULE kept ON zoo.parent; CREATE RULE kept AS ON UPDATE TO zoo.parent DO INSTEAD NOTHING",
    ),
    ("rule", "enabled", "zoo.parent kept", "ALTER TABLE zoo.parent DISABLE RULE kept"),
    ("policy", "kind", "zoo.animals own", "UPDATE pg_policy SET polpermissive = false"),
    ("policy", "command", "zoo.animals own", "UPDATE pg_policy SET polcmd = '*'"),
    ("policy", "roles", "zoo.animals own", "ALTER POLICY own ON zoo.animals TO PUBLIC"),
    ("policy", "USING", "zoo.animals own", "ALTER POLICY own ON zoo.animals USING (true)"),
    ("policy", "WITH CHECK", "zoo.animals own", "ALTER POLICY own ON zoo.animals WITH CHECK (true)"),
    (
        "statistics",
        "definition",
        "zoo.of_legs",
        "DROP STATISTICS zoo.of_legs; CREATE STATISTICS zoo.of_legs (ndistinct) ON legs, eyes FROM zoo.animals",
    ),
    ("statistics", "target", "zoo.of_legs", "ALTER STATISTICS zoo.of_legs SET STATISTICS 5"),
    ("function", "definition", "zoo.twice(i integer)", "ALTER FUNCTION zoo.twice(int) SECURITY DEFINER"),
    (
        "aggregate",
        "definition",
        "zoo.total(integer)",
        "UPDATE pg_aggregate SET agginitval = '1' WHERE aggfnoid = 'zoo.total'::regproc",
    ),
    (
        "operator",
        "definition",
        "zoo.<< (zoo.whole, zoo.whole)",
        "ALTER OPERATOR zoo.<< (zoo.whole, zoo.whole) SET (RESTRICT = scalarltsel)",
    ),
    (
        "operator family",
        "operators",
        "zoo.order_of_wholes USING btree",
        "UPDATE pg_amop SET amopstrategy = 2 WHERE amopopr = 'zoo.<<(zoo.whole, zoo.whole)'::regoperator",
    ),
    (
        "operator family",
        "functions",
        "zoo.order_of_wholes USING btree",
        "UPDATE pg_amproc SET amprocnum = 4 WHERE amproc = 'zoo.compared'::regproc",
    ),
    (
        "operator class",
        "definition",
        "zoo.order_of_whole USING btree",
        "UPDATE pg_opclass SET opcdefault = true WHERE opcname = 'order_of_whole'",
    ),
    (
        "cast",
        "definition",
        "(zoo.whole AS integer)",
        "UPDATE pg_cast SET castcontext = 'i' WHERE castsource = 'zoo.whole'::regtype",
    ),
    ("conversion", "definition", "zoo.latin", "UPDATE pg_conversion SET condefault = true WHERE conname = 'latin'"),
    ("language", "definition", "zoo_lang", "UPDATE pg_language SET lanpltrusted = false WHERE lanname = 'zoo_lang'"),
    ("access method", "definition", "zoo_heap", "UPDATE pg_am SET amtype = 'i' WHERE amname = 'zoo_heap'"),
    (
        "transform",
        "definition",
        "FOR integer LANGUAGE zoo_lang",
        "UPDATE pg_transform SET trffromsql = 0, trftosql = 'int4recv'::regproc",
    ),
    (
        "text search parser",
        "definition",
        "zoo.parser",
        "UPDATE pg_ts_parser SET prsheadline = 'prsd_headline'::regproc WHERE prsname = 'parser'",
    ),
    ("text search template", "definition", "zoo.template", "UPDATE pg_ts_template SET tmplinit = 0 WHERE tmplname = 'template'"),
    (
        "text search dictionary",
        "template",
        "zoo.dictionary",
        "UPDATE pg_ts_dict SET dicttemplate = (SELECT oid FROM pg_ts_template WHERE tmplname = 'simple') WHERE dictname = 'dictionary'",
    ),
    ("text search dictionary", "options", "zoo.dictionary", "ALTER TEXT SEARCH DICTIONARY zoo.dictionary (ACCEPT = false)"),
    (
        "text search configuration",
        "parser",
        "zoo.configuration",
        "UPDATE pg_ts_config SET cfgparser = (SELECT oid FROM pg_ts_parser WHERE prsname = 'default') WHERE cfgname = 'configuration'",
    ),
    (
        "text search configuration",
        "mapping",
        "zoo.configuration",
        "ALTER TEXT SEARCH CONFIGURATION zoo.configuration ADD MAPPING FOR word WITH zoo.dictionary",
    ),
    (
        "foreign data wrapper",
        "handler",
        "zoo_wrapper",
        "UPDATE pg_foreign_data_wrapper SET fdwhandler = 'int4in'::regproc WHERE fdwname = 'zoo_wrapper'",
    ),
    (
        "foreign data wrapper",
        "validator",
        "zoo_wrapper",
        "ALTER FOREIGN DATA WRAPPER zoo_wrapper VALIDATOR postgresql_fdw_validator",
    ),
    ("foreign data wrapper", "options", "zoo_wrapper", "ALTER FOREIGN DATA WRAPPER zoo_wrapper OPTIONS (SET speed '2')"),
    (
        "server",
        "wrapper",
        "zoo_server",
        "UPDATE pg_foreign_server SET srvfdw = (SELECT oid FROM pg_foreign_data_wrapper WHERE fdwname = 'zoo_other_wrapper') WHERE srvname = 'zoo_server'",
    ),
    ("server", "type", "zoo_server", "UPDATE pg_foreign_server SET srvtype = 'b' WHERE srvname = 'zoo_server'"),
    ("server", "version", "zoo_server", "ALTER SERVER zoo_server VERSION '2'"),
    ("server", "options", "zoo_server", "ALTER SERVER zoo_server OPTIONS (SET host 'there')"),
    ("publication", "all tables", "zoo_some", "UPDATE pg_publication SET puballtables = true WHERE pubname = 'zoo_some'"),
    ("publication", "operations", "zoo_some", "ALTER PUBLICATION zoo_some SET (publish = 'insert, delete')"),
    ("publication", "via root", "zoo_some", "ALTER PUBLICATION zoo_some SET (publish_via_partition_root = true)"),
    ("publication", "generated columns", "zoo_some", "ALTER PUBLICATION zoo_some SET (publish_generated_columns = stored)"),
    ("publication", "tables", "zoo_some", "ALTER PUBLICATION zoo_some SET TABLE zoo.animals, zoo.visits (id, at) WHERE (id > 6)"),
    ("publication", "tables", "zoo_some", "ALTER PUBLICATION zoo_some SET TABLE zoo.animals, zoo.visits (id) WHERE (id > 5)"),
    ("publication", "schemas", "zoo_schema", "ALTER PUBLICATION zoo_schema SET TABLES IN SCHEMA annex, zoo"),
    ("type", "comments of checks", "zoo.positive", "COMMENT ON CONSTRAINT is_positive ON DOMAIN zoo.positive IS 'changed'"),
    ("table", "order of columns", "zoo.unordered", "ALTER TABLE zoo.unordered DROP a, ADD a int"),
    ("subscription", "publications", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET PUBLICATION one, two WITH (refresh = false)"),
    ("subscription", "slot", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (slot_name = 'other')"),
    ("subscription", "binary", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (binary = true)"),
    ("subscription", "streaming", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (streaming = on)"),
    ("subscription", "synchronous commit", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (synchronous_commit = local)"),
    ("subscription", "two phase", "zoo_news", "UPDATE pg_subscription SET subtwophasestate = 'e' WHERE NEWS"),
    ("subscription", "disable on error", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (disable_on_error = true)"),
    ("subscription", "password required", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (password_required = false)"),
    ("subscription", "run as owner", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (run_as_owner = true)"),
    ("subscription", "origin", "zoo_news", "ALTER SUBSCRIPTION zoo_news SET (origin = none)"),
    ("subscription", "failover", "zoo_news", "UPDATE pg_subscription SET subfailover = true WHERE NEWS"),
    ("event trigger", "event", "zoo_notice", "UPDATE pg_event_trigger SET evtevent = 'ddl_command_end'"),
    ("event trigger", "tags", "zoo_notice", "UPDATE pg_event_trigger SET evttags = '{CREATE CAST}'"),
    ("event trigger", "function", "zoo_notice", "UPDATE pg_event_trigger SET evtfoid = 'zoo.notice_other'::regproc"),
    ("event trigger", "enabled", "zoo_notice", "ALTER EVENT TRIGGER zoo_notice DISABLE"),
    (
        "default privileges",
        "grants",
        "of zoo_keeper in schema zoo on tables",
        "ALTER DEFAULT PRIVILEGES FOR ROLE zoo_keeper IN SCHEMA zoo GRANT INSERT ON TABLES TO zoo_guest",
    ),
];

/// Facts that a version does not have.
fn exists_on(major: u32, kind: &str, fact: &str) -> bool {
    match (kind, fact) {
        ("collation", "rules") => major >= 16,
        ("publication", "generated columns") => major >= 18,
        ("subscription", "password required" | "run as owner" | "origin") => major >= 16,
        ("subscription", "failover") => major >= 17,
        // In a file that pg_dump wrote, none is enabled: audit_against.rs has it.
        ("subscription", "enabled") => false,
        _ => true,
    }
}

/// Kinds that are one list of facts.
fn list_of(kind: &str) -> &str {
    match kind {
        "partition" | "foreign table" => "table",
        "materialized view" => "view",
        kind => kind,
    }
}

struct Change {
    kind: String,
    fact: String,
    object: String,
    sql: String,
}

struct Zoo {
    server: Server,
    database: String,
    objects: Vec<Value>,
}

impl Zoo {
    fn open(major: u32) -> Self {
        let server = Server::start(major);
        server.sql("postgres", "CREATE ROLE zoo_keeper; CREATE ROLE zoo_guest; CREATE ROLE zoo_other SUPERUSER");
        let database = server.trusted_database();
        server.sql(&database, ZOO);
        let lines = server.sql(
            &database,
            &format!(
                "BEGIN READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; SELECT to_jsonb(o) FROM ({QUERY}) o; ROLLBACK"
            ),
        );
        let mut objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        objects.sort_by_key(|object| (object["rank"].as_u64(), object["name"].to_string()));
        Self { server, database, objects }
    }

    fn copy(&self) -> String {
        let database = self.server.copy_of(&self.database);
        self.server.sql(&database, NEWS);
        database
    }

    /// No database with a subscription can be dropped.
    fn without_news(&self, database: &str) {
        self.server.sql(database, "ALTER SUBSCRIPTION zoo_news SET (slot_name = NONE); DROP SUBSCRIPTION zoo_news");
    }

    /// Every fact of the check's queries.
    fn facts(&self) -> BTreeSet<(String, String)> {
        let of = |object: &Value| -> Vec<(String, String)> {
            let kind = list_of(object["kind"].as_str().unwrap()).to_owned();
            object["facts"].as_object().unwrap().keys().map(|fact| (kind.clone(), fact.clone())).collect()
        };
        self.objects.iter().flat_map(of).collect()
    }

    /// The changes of comments, owners and rights are of the first object of each kind.
    fn changes(&self) -> Vec<Change> {
        let extension = self.server.sql(&self.database, "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'");
        let here = CHANGES.iter().filter(|(kind, fact, ..)| exists_on(self.server.major, kind, fact));
        let mut changes: Vec<Change> = here
            .map(|(kind, fact, object, sql)| Change {
                kind: (*kind).to_owned(),
                fact: (*fact).to_owned(),
                object: object.replace("NAME", &extension),
                sql: sql.replace("NAME", &extension).replace("WHERE NEWS", &format!("WHERE {IS_NEWS}")),
            })
            .collect();
        let mut seen = BTreeSet::new();
        for object in &self.objects {
            let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            let kind = list_of(&text("kind")).to_owned();
            for (fact, sql) in [
                ("comment", format!("COMMENT ON {} IS 'changed'", text("address"))),
                ("owner", format!("ALTER {} OWNER TO zoo_other", text("address"))),
                ("grants", format!("GRANT ALL {} TO zoo_other", text("granted"))),
            ] {
                let is_its_own = kind != "default privileges" && object["facts"].as_object().unwrap().contains_key(fact);
                if is_its_own && text("name").contains("zoo") && seen.insert((kind.clone(), fact)) {
                    changes.push(Change { kind: kind.clone(), fact: fact.to_owned(), object: text("name"), sql });
                }
            }
        }
        changes
    }
}

fn scenario(server: &Server, database: &str, schema: &str) -> Scenario {
    let scenario =
        Scenario::with_database(server, database).job("quarterly", "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n");
    std::fs::write(scenario.path("schema.sql"), schema).unwrap();
    scenario
}

fn drift(scenario: &Scenario) -> Value {
    scenario.json(&["audit", "--database", "app", "--check", "schema-drift", "--fail-on", "never"])["audit"].clone()
}

/// Changes in rounds: of no two in a round, one names an object of the other, so that each finding is due to one change.
fn rounds(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut rounds: Vec<(BTreeSet<String>, Vec<Change>)> = Vec::new();
    for change in changes {
        let text = format!("{} {}", change.object, change.sql);
        let words = text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_' || letter == '.'));
        let mut named: BTreeSet<String> = words
            .filter(|word| word.starts_with("zoo"))
            .map(|word| word.split('.').take(2).collect::<Vec<_>>().join("."))
            .collect();
        named.insert(change.object.clone());
        match rounds.iter_mut().find(|(taken, _)| taken.is_disjoint(&named)) {
            Some((taken, round)) => {
                taken.extend(named);
                round.push(change);
            }
            None => rounds.push((named, vec![change])),
        }
    }
    rounds.into_iter().map(|(_, round)| round).collect()
}

fn reports<'a>(audit: &'a [Value], change: &Change) -> Option<&'a Value> {
    audit.iter().find(|finding| {
        finding["key"].as_str().unwrap().ends_with(&format!(" {}", change.object))
            && finding["evidence"]["differs"].get(&change.fact).is_some()
    })
}

pub fn every_changed_fact_is_reported_and_ended_by_its_fix(major: u32) {
    let zoo = Zoo::open(major);
    no_drift(&scenario(&zoo.server, &zoo.database, ZOO));
    let changes = zoo.changes();
    let changed: BTreeSet<(String, String)> = changes.iter().map(|change| (change.kind.clone(), change.fact.clone())).collect();
    let facts: BTreeSet<(String, String)> = zoo.facts().into_iter().filter(|(kind, fact)| exists_on(major, kind, fact)).collect();
    let without: Vec<&(String, String)> = facts.difference(&changed).collect();
    assert!(without.is_empty(), "facts without a change: {without:?}");
    let (mut silent, mut stayed, mut fixed) = (Vec::new(), Vec::new(), 0);
    for round in rounds(changes) {
        let database = zoo.copy();
        for change in &round {
            zoo.server.psql(&database, &change.sql).unwrap_or_else(|error| panic!("{}: {error}", change.sql));
        }
        let scenario = scenario(&zoo.server, &database, ZOO);
        let now = drift(&scenario);
        let found = findings(&now);
        silent.extend(
            round.iter().filter(|change| reports(&found, change).is_none()).map(|change| format!("{}: {now:#}", change.sql)),
        );
        // What a write to the catalog did is not always a thing that SQL can undo.
        let by_sql: Vec<&Change> = round.iter().filter(|change| !change.sql.contains("UPDATE pg_")).collect();
        let fixes: Vec<(&&Change, &str)> =
            by_sql.iter().filter_map(|change| Some((change, reports(&found, change)?["fix"]["sql"].as_str()?))).collect();
        for (change, fix) in &fixes {
            if let Err(error) = zoo.server.psql(&database, fix) {
                stayed.push(format!("{}: {fix}: {error}", change.sql));
            }
        }
        let after = findings(&drift(&scenario));
        fixed += fixes.len();
        stayed.extend(
            fixes
                .iter()
                .filter_map(|(change, fix)| Some(format!("{}: {fix}: {}", change.sql, reports(&after, change)?["issue"]))),
        );
        zoo.without_news(&database);
        zoo.server.sql("postgres", &format!("DROP DATABASE {database}"));
    }
    zoo.without_news(&zoo.database);
    assert!(silent.is_empty(), "{} changes on {major} are silent: {silent:#?}", silent.len());
    assert!(stayed.is_empty(), "fixes on {major} did not end their findings: {stayed:#?}");
    assert!(fixed >= 60, "{fixed} fixes are SQL");
}

fn no_drift(scenario: &Scenario) {
    let now = drift(scenario);
    assert_eq!((keys(&now), now["checks"][0]["state"].as_str()), (BTreeSet::new(), Some("ok")), "{now:#}");
}

#[test]
fn every_changed_fact_is_reported_and_ended_by_its_fix_on_15() {
    every_changed_fact_is_reported_and_ended_by_its_fix(15);
}

#[test]
fn every_changed_fact_is_reported_and_ended_by_its_fix_on_18() {
    every_changed_fact_is_reported_and_ended_by_its_fix(18);
}

/// The key of an object whose absence is reported, or None where that of its table explains it.
fn key_of(object: &Value, all: &BTreeMap<&str, &Value>) -> Option<String> {
    let is_explained = object["parent"].as_str().is_some_and(|parent| all.contains_key(parent));
    let is_inner = object["is_inner"] == true;
    let there = object["kind"] == "schema" && object["name"] == "public";
    (!is_explained && !is_inner && !there)
        .then(|| format!("schema-drift:{} {}", object["kind"].as_str().unwrap(), object["name"].as_str().unwrap()))
}

#[test]
fn every_kind_of_object_is_missed_on_either_side() {
    let zoo = Zoo::open(18);
    let named: BTreeMap<&str, &Value> = zoo.objects.iter().map(|object| (object["name"].as_str().unwrap(), object)).collect();
    let expected: BTreeSet<String> = zoo.objects.iter().filter_map(|object| key_of(object, &named)).collect();
    assert!(expected.len() > 45, "{expected:#?}");
    // A file that names owners is one that compares rights.
    let nothing = "ALTER SCHEMA public OWNER TO pg_database_owner;";
    let only_here = drift(&scenario(&zoo.server, &zoo.database, nothing));
    assert_eq!(keys(&only_here), expected);
    let empty = zoo.server.trusted_database();
    let only_in_file = drift(&scenario(&zoo.server, &empty, ZOO));
    assert_eq!(keys(&only_in_file), expected);
    for secret in ["hidden-in-reports", "never-in-reports"] {
        assert!(!only_here.to_string().contains(secret) && !only_in_file.to_string().contains(secret), "{secret}");
    }
    // What pg_dump writes is a schema file, and has no drift.
    let dump = zoo.server.tool("pg_dump", &zoo.database).arg("--schema-only").output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    no_drift(&scenario(&zoo.server, &zoo.database, &String::from_utf8(dump.stdout).unwrap()));
}

#[test]
fn a_file_without_owners_and_rights_is_compared_in_all_else() {
    let zoo = Zoo::open(18);
    let arguments = ["--schema-only", "--no-owner", "--no-privileges"];
    let dump = zoo.server.tool("pg_dump", &zoo.database).args(arguments).output().unwrap();
    let file = String::from_utf8(dump.stdout).unwrap();
    no_drift(&scenario(&zoo.server, &zoo.database, &file));
    zoo.server.sql(&zoo.database, "ALTER TABLE zoo.animals DISABLE ROW LEVEL SECURITY; GRANT ALL ON zoo.animals TO PUBLIC");
    let now = drift(&scenario(&zoo.server, &zoo.database, &file));
    assert_eq!(keys(&now), BTreeSet::from(["schema-drift:table zoo.animals".to_owned()]));
    assert_eq!(now["findings"][0]["level"], "high");
    let fix = now["findings"][0]["fix"]["sql"].as_str().unwrap();
    assert_eq!(fix, "ALTER TABLE zoo.animals ENABLE ROW LEVEL SECURITY;");
    zoo.server.sql(&zoo.database, fix);
    no_drift(&scenario(&zoo.server, &zoo.database, &file));
}

#[test]
fn a_file_whose_subscription_would_take_a_slot_at_its_publisher_is_not_loaded() {
    let server = server(18);
    let database = server.trusted_database();
    let file = "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (slot_name = 'x');";
    let now = drift(&scenario(server, &database, file));
    assert_eq!(now["checks"][0]["state"], "unknown", "{now:#}");
    assert!(now["checks"][0]["reasons"][0].as_str().unwrap().contains("write connect = false"), "{now:#}");
    let now = drift(&scenario(server, &database, &file.replace("slot_name = 'x'", "connect = false, slot_name = 'x'")));
    assert_eq!(keys(&now), BTreeSet::from(["schema-drift:subscription s".to_owned()]), "{now:#}");
    assert_eq!(
        server.sql("postgres", "SELECT count(*) FROM pg_subscription WHERE subname = 's'"),
        "0",
        "the scratch database is gone"
    );
}

#[test]
fn columns_in_another_order_are_a_finding_that_a_person_decides_and_new_ones_are_none() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(&database, "CREATE TABLE t (a int, b int, c int); ALTER TABLE t DROP b, ADD b int");
    let now = drift(&scenario(server, &database, "CREATE TABLE t (a int, b int, c int);"));
    assert_eq!(keys(&now), BTreeSet::from(["schema-drift:table public.t".to_owned()]), "{now:#}");
    let finding = &now["findings"][0];
    assert_eq!((finding["level"].as_str(), finding["fix"]["sql"].is_null()), (Some("low"), true), "{finding:#}");
    assert!(finding["fix"]["decide"].as_str().unwrap().contains("No statement changes their order"), "{finding:#}");
    let now = drift(&scenario(server, &database, "CREATE TABLE t (a int, new int, c int, b int);"));
    assert_eq!(keys(&now), BTreeSet::from(["schema-drift:column public.t.new".to_owned()]), "{now:#}");
}

/// As the first release wrote it.
const FIRST_RELEASE: &str = r#"{
  "format": 1, "pgtend_version": "0.1.0", "job": "quarterly", "database": "app", "server": "postgres@localhost:5432/app", "server_version": "18.0",
  "in_recovery": false, "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z", "statistics_since": null,
  "checks": [{ "check": "schema-drift", "state": "findings", "findings": 2, "elapsed_seconds": 0.1 }],
  "findings": [
    { "key": "schema-drift:column public.t.a", "check": "schema-drift", "level": "medium", "title": "The database differs from its schema file", "object": "public.t",
      "issue": "The column public.t.a is different: bigint in schema.sql, integer in the database.", "impact": "", "evidence": { "kind": "column", "definition": "bigint" },
      "fix": { "words": "", "sql": "ALTER TABLE public.t ALTER COLUMN a TYPE bigint;", "lock": "" }, "change": null, "since": "2026-01-01T00:00:00Z", "waiver": null },
    { "key": "schema-drift:table public.gone", "check": "schema-drift", "level": "high", "title": "", "object": "public.gone",
      "issue": "", "impact": "", "evidence": { "kind": "table", "definition": "" }, "fix": { "words": "", "lock": "" }, "change": null, "since": "2026-01-01T00:00:00Z", "waiver": null }
  ],
  "not_seen": [], "resolved": [], "previous": null, "notes": [], "top_queries": []
}"#;

#[test]
fn an_audit_of_the_first_release_is_compared_with_by_the_same_keys() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(&database, "CREATE TABLE t (a int, b int)");
    let scenario = Scenario::with_database(server, &database)
        .job("quarterly", "database = 'app'\n[audit]\nstore = 'local'\nschema_file = '../schema.sql'\n");
    std::fs::write(scenario.path("schema.sql"), "CREATE TABLE t (a bigint, b bigint);").unwrap();
    let folder = scenario.path("store/app/quarterly/audit");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("2026-01-01T00-00-00Z.json"), FIRST_RELEASE).unwrap();
    let now = drift(&scenario);
    let changes: Vec<(String, String)> =
        findings(&now).iter().map(|finding| (finding["key"].to_string(), finding["change"].to_string())).collect();
    let expected = [("\"schema-drift:column public.t.a\"", "\"unchanged\""), ("\"schema-drift:column public.t.b\"", "\"new\"")];
    assert_eq!(changes, expected.map(|(key, change)| (key.to_owned(), change.to_owned())), "{now:#}");
    assert_eq!(now["resolved"][0]["key"], "schema-drift:table public.gone");
}
