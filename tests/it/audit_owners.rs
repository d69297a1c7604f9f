//! An audit reads tables whose owners, and those around them, may put code there: it must not run with rights that they lack.

use serde_json::Value;

use crate::audit::state;
use crate::support::postgres::{Server, server};
use crate::support::{Running, Scenario, eventually};

/// A table with large text that is not compressed, which the audit looks into.
const DOCS: &str = "CREATE TABLE docs (id int PRIMARY KEY, body text); ALTER TABLE docs ALTER body SET STORAGE EXTERNAL;
    INSERT INTO docs SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 100) i; ANALYZE docs";
const LARGE_TEXT: &str = "large-text-uncompressed";

/// A database with a role that has a schema of its name in it. Its function `spy` leaves a trace in the server's log, even from a
/// transaction that is read-only and rolled back.
struct Spy<'a> {
    server: &'a Server,
    database: String,
    owner: String,
}

impl<'a> Spy<'a> {
    fn on(server: &'a Server) -> Self {
        let database = server.new_database();
        let owner = format!("bob_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner} LOGIN; CREATE SCHEMA {owner} AUTHORIZATION {owner}; SET ROLE {owner};
                 CREATE FUNCTION {owner}.spy() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'spied in {database} as <%>', current_user; RETURN 1; END $$"
            ),
        );
        Self { server, database, owner }
    }

    /// BOB stands for the role.
    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, &sql.replace("BOB", &self.owner))
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.server.log()).unwrap()).into_owned()
    }

    /// Returns the answer of the check, and the roles as which the owner's code ran meanwhile.
    fn looks(&self, scenario: &Scenario, check: &str) -> (Value, Vec<String>) {
        let before = self.log().len();
        let arguments = ["audit", "--database", "app", "--check", check, "--fail-on", "never"];
        let audit = scenario.json(&arguments)["audit"].clone();
        (audit, self.ran(before))
    }

    /// Returns the other roles as which its code ran since the log had this length.
    fn ran(&self, since: usize) -> Vec<String> {
        let mark = format!("spied in {} as <", self.database);
        let mut roles: Vec<String> =
            self.log()[since..].split(&mark).skip(1).map(|rest| rest.split('>').next().unwrap().to_owned()).collect();
        // Autovacuum analyzes a table as its owner.
        roles.retain(|role| *role != self.owner);
        roles.sort();
        roles.dedup();
        roles
    }

    fn as_superuser(&self) -> Scenario {
        Scenario::with_database(self.server, &self.database)
    }

    fn login(&self, name: &str) -> String {
        format!("{name}_{}", self.database)
    }
}

fn reasons(audit: &Value) -> String {
    audit["checks"][0]["reasons"].to_string()
}

/// The check is unknown for these reasons, and no code ran.
fn is_refused((audit, ran): &(Value, Vec<String>), check: &str, why: &[&str]) {
    assert_eq!(ran, &[""; 0], "{audit:#}");
    assert_eq!(state(audit, check), "unknown", "{audit:#}");
    let reasons = reasons(audit);
    assert!(why.iter().all(|why| reasons.contains(why)), "{why:?}: {reasons}");
}

/// The audit that it printed.
fn ended(run: Running) -> Value {
    let output = run.wait();
    let printed: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(printed["audit"].is_object(), "{output:?}");
    printed["audit"].clone()
}

fn waits_for_docs(spy: &Spy<'_>) -> String {
    format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = '{}')",
        spy.database
    )
}

#[test]
fn a_table_swapped_while_an_audit_waits_for_it_runs_no_code_as_the_superuser() {
    let spy = Spy::on(server(18));
    spy.sql(&format!("{DOCS}; ALTER DATABASE {} OWNER TO BOB", spy.database));
    spy.sql("SET ROLE BOB; CREATE SCHEMA evil; CREATE VIEW evil.docs AS SELECT 1 AS id, repeat('x', BOB.spy()) AS body");
    let since = spy.log().len();
    // Since 15 the database's owner owns `public`, and may drop what is in it.
    let holder = spy.server.session(&spy.database, &format!("SET ROLE {}; BEGIN; DROP TABLE public.docs", spy.owner));
    let scenario = spy.as_superuser();
    let mut run = scenario.start(&["audit", "--database", "app", "--check", LARGE_TEXT, "--json"]);
    eventually("the audit has ended, or waits for the table", || {
        !run.is_running() || spy.server.sql("postgres", &waits_for_docs(&spy)) != "0"
    });
    spy.sql("SET ROLE BOB; BEGIN; ALTER SCHEMA public RENAME TO public_old; ALTER SCHEMA evil RENAME TO public; COMMIT");
    drop(holder);
    let audit = ended(run);
    let why = ["public.docs is not read", "the schema public belongs to", "whose code would run as the superuser"];
    is_refused(&(audit, spy.ran(since)), LARGE_TEXT, &why);
}

#[test]
fn a_name_that_another_table_takes_while_an_audit_waits_for_it_is_not_read() {
    let spy = Spy::on(server(18));
    spy.sql(&format!("{DOCS}; GRANT CREATE ON SCHEMA public TO BOB"));
    let since = spy.log().len();
    let holder = spy.server.session(&spy.database, "BEGIN; DROP TABLE public.docs");
    let scenario = spy.as_superuser();
    let mut run = scenario.start(&["audit", "--database", "app", "--check", LARGE_TEXT, "--json"]);
    eventually("the audit has ended, or waits for the table", || {
        !run.is_running() || spy.server.sql("postgres", &waits_for_docs(&spy)) != "0"
    });
    holder.ends_with(&format!(
        "SET ROLE {0}; CREATE VIEW public.docs AS SELECT 1 AS id, repeat('x', {0}.spy()) AS body; COMMIT",
        spy.owner
    ));
    let audit = ended(run);
    assert_eq!(spy.ran(since), [""; 0], "{audit:#}");
    assert_ne!(state(&audit, LARGE_TEXT), "findings", "{audit:#}");
    assert_ne!(state(&audit, LARGE_TEXT), "failed", "{audit:#}");
}

#[test]
fn statistics_of_statements_in_a_schema_of_somebody_else_are_not_read_as_the_superuser() {
    let server = Server::start_with(15, &["shared_preload_libraries=pg_stat_statements"]);
    let spy = Spy::on(&server);
    spy.sql("CREATE SCHEMA ext AUTHORIZATION BOB; CREATE EXTENSION pg_stat_statements SCHEMA ext");
    for check in ["top-queries", "partial-index-candidate"] {
        is_refused(&spy.looks(&spy.as_superuser(), check), check, &["the schema ext belongs to", "would run as the superuser"]);
    }
    spy.sql("ALTER SCHEMA ext OWNER TO postgres");
    for check in ["top-queries", "partial-index-candidate"] {
        let (audit, _) = spy.looks(&spy.as_superuser(), check);
        assert_ne!(state(&audit, check), "unknown", "{audit:#}");
    }
}

#[test]
fn a_login_that_acts_as_a_superuser_or_can_become_one_is_taken_for_one() {
    let spy = Spy::on(server(18));
    spy.sql(&format!("{DOCS}; ALTER TABLE docs OWNER TO BOB"));
    spy.sql("GRANT CREATE ON SCHEMA public TO BOB; SET ROLE BOB; CREATE INDEX ON public.docs (id) WHERE BOB.spy() = 1");
    let (member, stored, shell) = (spy.login("member"), spy.login("stored"), spy.login("shell"));
    spy.sql(&format!(
        "CREATE ROLE {member} LOGIN; GRANT postgres TO {member}; CREATE ROLE {stored} LOGIN; GRANT postgres TO {stored}; ALTER ROLE {stored} SET role = 'postgres';
         CREATE ROLE {shell} LOGIN; GRANT pg_read_all_data, pg_execute_server_program TO {shell}"
    ));
    let url = |login: &str| spy.server.url_as(login, &spy.database);
    let acts = Scenario::empty().config(&format!("[databases.app]\nurl = '{}'\nrole = \"postgres\"\n", url(&member)));
    let becomes = "which can become the superuser";
    is_refused(&spy.looks(&acts, LARGE_TEXT), LARGE_TEXT, &["public.docs belongs to", becomes]);
    is_refused(&spy.looks(&Scenario::with_url(spy.server, &url(&stored)), LARGE_TEXT), LARGE_TEXT, &[becomes]);
    let shell = Scenario::with_url(spy.server, &url(&shell));
    is_refused(&spy.looks(&shell, LARGE_TEXT), LARGE_TEXT, &["a member of pg_execute_server_program"]);
}

#[test]
fn a_child_of_another_owner_is_not_read_with_its_parent_as_the_superuser() {
    let spy = Spy::on(server(18));
    spy.sql(&format!("{DOCS}; CREATE TABLE child (more int) INHERITS (docs); ALTER TABLE child OWNER TO BOB"));
    spy.sql("GRANT CREATE ON SCHEMA public TO BOB; SET ROLE BOB; CREATE INDEX ON public.child (id) WHERE BOB.spy() = 1");
    is_refused(&spy.looks(&spy.as_superuser(), LARGE_TEXT), LARGE_TEXT, &["public.docs", "public.child belongs to"]);
}

#[test]
fn a_table_that_calls_another_owners_function_is_not_read_as_the_superuser() {
    let ways = [
        "CREATE INDEX ON docs (id) WHERE id > BOB.spy()",
        "CREATE INDEX ON docs ((id + BOB.spy()))",
        "CREATE STATISTICS of_docs ON (id + BOB.spy()), body FROM docs",
        "CREATE OPERATOR public.<<<< (FUNCTION = BOB.less, LEFTARG = int, RIGHTARG = int); CREATE INDEX ON docs (id) WHERE id OPERATOR(public.<<<<) 7",
        "CREATE DOMAIN watched AS int CHECK (value >= BOB.spy()); CREATE INDEX ON docs (id) WHERE id > 7::watched",
        "CREATE FUNCTION through() RETURNS int IMMUTABLE BEGIN ATOMIC SELECT BOB.spy(); END; CREATE INDEX ON docs (id) WHERE id > through()",
    ];
    for way in ways {
        let spy = Spy::on(server(18));
        spy.sql(
            "CREATE FUNCTION BOB.less(int, int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 < $2'; ALTER FUNCTION BOB.less OWNER TO BOB",
        );
        spy.sql(&format!("{DOCS}; {way}"));
        let found = spy.looks(&spy.as_superuser(), LARGE_TEXT);
        is_refused(&found, LARGE_TEXT, &["public.docs is not read", &format!("function {}.", spy.owner), "belongs to"]);
    }
    // Nothing of the owner's: it is read.
    let spy = Spy::on(server(18));
    spy.sql(&format!("{DOCS}; CREATE INDEX ON docs (id) WHERE id > 7; CREATE INDEX ON docs (lower(body))"));
    let (audit, _) = spy.looks(&spy.as_superuser(), LARGE_TEXT);
    assert_eq!(state(&audit, LARGE_TEXT), "findings", "{audit:#}");
}

#[test]
fn a_default_partition_on_another_owners_server_is_not_read_as_the_superuser() {
    // The build of 18 has no postgres_fdw.
    let server = server(15);
    let spy = Spy::on(server);
    let check = "default-partition-rows";
    spy.sql(
        "CREATE EXTENSION postgres_fdw; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO BOB; CREATE VIEW BOB.rows AS SELECT BOB.spy() AS id; ALTER VIEW BOB.rows OWNER TO BOB",
    );
    spy.sql(&format!(
        "SET ROLE BOB; CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', dbname '{}');
         RESET ROLE; CREATE USER MAPPING FOR postgres SERVER there OPTIONS (user 'postgres');
         CREATE TABLE logs (id int) PARTITION BY RANGE (id); CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (1) TO (10);
         CREATE FOREIGN TABLE logs_d PARTITION OF logs DEFAULT SERVER there OPTIONS (schema_name 'BOB', table_name 'rows')",
        server.socket().display(),
        spy.database
    ));
    is_refused(&spy.looks(&spy.as_superuser(), check), check, &["public.logs_d is not read", "foreign table"]);
}

/// A login as `grants` makes it for an audit alone.
fn granted(spy: &Spy<'_>, job: &str) -> Scenario {
    let login = spy.login("audits");
    let asked = spy.as_superuser().job("quarterly", job).run(&["grants", "--role", &login]).succeeded().stdout;
    assert!(asked.contains("reads all rows of all owners"), "{asked}");
    spy.server.sql("postgres", &asked);
    Scenario::with_url(spy.server, &spy.server.url_as(&login, &spy.database)).job("quarterly", job)
}

#[test]
fn the_login_of_grants_lends_owners_its_rights_only_where_the_job_trusts_them() {
    let spy = Spy::on(server(18));
    spy.sql(&format!("{DOCS}; ALTER TABLE docs OWNER TO BOB"));
    spy.sql("GRANT CREATE ON SCHEMA public TO BOB; SET ROLE BOB; CREATE INDEX ON public.docs (id) WHERE BOB.spy() = 1");
    let trusting = granted(&spy, "database = 'app'\n[audit]\n");
    let said = format!("code of {} may run as {}", spy.owner, spy.login("audits"));
    trusting.run(&["check", "--connect"]).succeeded().prints(&["WARNING", &said, "trust_owners = false"]);
    let (audit, ran) = spy.looks(&trusting, LARGE_TEXT);
    assert_eq!(ran, [spy.login("audits")], "what the warning says is so");
    assert_eq!(state(&audit, LARGE_TEXT), "findings");
    assert!(audit["notes"].to_string().contains(&said), "{audit:#}");
    let report = trusting.json(&["run-job", "quarterly"])["runs"][0]["report"].clone();
    assert_eq!(report["warnings"].to_string().matches(&said).count(), 1, "{report:#}");

    let wary = granted(&spy, "database = 'app'\n[audit]\n[limits]\ntrust_owners = false\n");
    let why = ["public.docs belongs to", "with rights that", "trust_owners = false"];
    is_refused(&spy.looks(&wary, LARGE_TEXT), LARGE_TEXT, &why);
    let since = spy.log().len();
    let report = wary.json(&["run-job", "quarterly"])["runs"][0]["report"].clone();
    assert!(report["facts"]["unknown"].to_string().contains("public.docs is not read"), "{report:#}");
    assert!(!report["warnings"].to_string().contains("may run as"), "{report:#}");
    assert_eq!(spy.ran(since), [""; 0]);
    // The owner itself has no rights that it lacks.
    let url = spy.server.url_as(&spy.owner, &spy.database);
    let own =
        Scenario::with_url(spy.server, &url).job("quarterly", "database = 'app'\n[audit]\n[limits]\ntrust_owners = false\n");
    let (audit, _) = spy.looks(&own, LARGE_TEXT);
    assert_eq!(state(&audit, LARGE_TEXT), "findings", "{audit:#}");
    assert!(!own.run(&["check", "--connect"]).stdout.contains("WARNING"), "it lends no rights");
}

#[test]
fn an_audit_job_has_no_limits_but_trust_in_owners() {
    let spy = Spy::on(server(18));
    let job = "database = 'app'\n[audit]\n[limits]\nbatch_time = '1s'\ntrust_owners = false\n";
    spy.as_superuser().job("quarterly", job).run(&["check"]).exited(78).says(&["[limits] does not apply", "[audit]"]);
}

#[test]
fn tables_of_a_strangers_schema_are_one_reason_and_not_one_for_each_table() {
    let spy = Spy::on(server(18));
    spy.sql(&format!(
        "{DOCS}; DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE TABLE docs_%s (LIKE docs INCLUDING ALL)', i); EXECUTE format('INSERT INTO docs_%s SELECT * FROM docs', i); END LOOP; END $$;
         ANALYZE; ALTER DATABASE {} OWNER TO BOB",
        spy.database
    ));
    let (audit, _) = spy.looks(&spy.as_superuser(), LARGE_TEXT);
    assert_eq!(audit["checks"][0]["reasons"].as_array().unwrap().len(), 1, "{audit:#}");
    assert!(reasons(&audit).contains("and 18 more are not read") && reasons(&audit).contains("pgtend grants"), "{audit:#}");
}

#[test]
fn the_planner_is_not_asked_about_a_table_with_another_owners_code_as_the_superuser() {
    let spy = Spy::on(server(18));
    let check = "fk-unindexed";
    spy.sql(
        "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE docs (id int, user_id int REFERENCES users);
         CREATE INDEX in_part ON docs (user_id) WHERE id > BOB.spy()",
    );
    let (audit, ran) = spy.looks(&spy.as_superuser(), check);
    assert_eq!(ran, [""; 0], "{audit:#}");
    let issue = audit["findings"][0]["issue"].as_str().unwrap();
    assert!(issue.contains("The catalog alone says so"), "{audit:#}");
    assert!(reasons(&audit).contains("public.docs is not read"), "{audit:#}");
}

/// The owner of a database may let itself in, and put functions where the file's SQL finds them.
#[test]
fn the_scratch_database_of_a_schema_file_belongs_to_the_login() {
    let spy = Spy::on(server(18));
    spy.sql(&format!("ALTER DATABASE {} OWNER TO BOB", spy.database));
    let scenario = spy.as_superuser().job("quarterly", "database = 'app'\n[audit]\nschema_file = '../schema.sql'\n");
    let file = "DO $$ BEGIN IF (SELECT pg_get_userbyid(datdba) <> session_user FROM pg_database WHERE datname = current_database()) THEN RAISE EXCEPTION 'it belongs to another'; END IF; END $$;";
    std::fs::write(scenario.path("schema.sql"), file).unwrap();
    let (audit, _) = spy.looks(&scenario, "schema-drift");
    assert_ne!(state(&audit, "schema-drift"), "unknown", "{audit:#}");
}
