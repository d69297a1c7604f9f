//! Tables whose owners, or roles beside them, put code there: it notes as whom it ran.

use serde_json::Value;

use super::Scenario;
use super::postgres::{Server, server};

/// A database with a role that owns tables in it, and code that notes as whom it ran.
pub struct Owned {
    pub server: &'static Server,
    pub database: String,
    pub owner: String,
}

impl Owned {
    /// `sql` is run as the owner.
    pub fn with(major: u32, sql: &str) -> Self {
        let server = server(major);
        let database = server.new_database();
        let owner = format!("owner_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner} LOGIN; GRANT CREATE ON SCHEMA public TO {owner};
                 CREATE TABLE ran (as_role text); GRANT INSERT ON ran TO PUBLIC;
                 SET ROLE {owner};
                 CREATE FUNCTION note() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN 1; END $$;
                 CREATE FUNCTION hidden() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.note(); END $$;
                 CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.note(); RETURN coalesce(NEW, OLD); END $$;
                 {sql};
                 RESET ROLE; TRUNCATE ran"
            ),
        );
        Self { server, database, owner }
    }

    pub fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    /// As whom its code ran.
    pub fn ran(&self) -> String {
        self.sql("SELECT string_agg(DISTINCT as_role, ',') FROM ran")
    }

    pub fn scenario(&self, role: &str, job: &str) -> Scenario {
        let database = self.server.url_as(role, &self.database);
        jobs(Scenario::with_url(self.server, &database), job)
    }
}

/// A database whose objects are a superuser's, and a role that owns nothing but a schema of its name, with code that notes as whom it ran; then
/// `sql`, as the superuser, in which that role is ALICE.
pub fn beside(server: &'static Server, sql: &str) -> (String, String) {
    let database = server.new_database();
    let alice = format!("alice_{database}");
    server.sql(
        &database,
        &format!(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE TABLE ran (as_role text); GRANT INSERT ON ran TO PUBLIC;
             CREATE ROLE {alice} LOGIN; CREATE SCHEMA {alice} AUTHORIZATION {alice}; SET ROLE {alice}; SET search_path = {alice}, public;
             CREATE FUNCTION note() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN 1; END $$;
             CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {alice}.note(); RETURN coalesce(NEW, OLD); END $$;
             CREATE FUNCTION compare(timestamptz, timestamptz) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM {alice}.note(); RETURN timestamptz_cmp($1, $2); END $$;
             CREATE FUNCTION hidden() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
             RESET ROLE; RESET search_path; {}; TRUNCATE public.ran",
            sql.replace("ALICE", &alice)
        ),
    );
    (database, alice)
}

/// The job `warned`, and `refused`, which trusts no owner.
pub fn jobs(scenario: Scenario, task: &str) -> Scenario {
    scenario
        .job("warned", &format!("database = 'app'\n{task}"))
        .job("refused", &format!("database = 'app'\n{task}[limits]\ntrust_owners = false\n"))
}

pub const LOGS: &str = "CREATE TABLE logs (id int PRIMARY KEY, created_at timestamptz);
    INSERT INTO logs SELECT i, now() - interval '1 year' FROM generate_series(1, 50) i";
pub const RETENTION: &str = "[retention]\ntable = 'public.logs'\ncolumn = 'created_at'\nolder_than = '30d'\n";

pub fn warnings(scenario: &Scenario, job: &str) -> String {
    let output = scenario.run(&["run-job", job, "--yes", "--json"]).succeeded();
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    json["runs"][0]["report"]["warnings"].to_string()
}
