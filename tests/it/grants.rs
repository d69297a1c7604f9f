//! The SQL of `grants`, run by a superuser, gives a role what every shipped job needs, and no more.

use std::path::Path;

use crate::support::Scenario;
use crate::support::postgres::{Server, server};

/// As an application makes it, owned by its own role.
const APPLICATION: &str = r#"
CREATE TABLE scripts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, content text);
INSERT INTO scripts (content) SELECT (SELECT string_agg('Get-Item ' || md5((i * j)::text), ' ') FROM generate_series(1, 400) j) FROM generate_series(1, 50) i;
CREATE TABLE execution_logs (id bigserial, script_id int REFERENCES scripts, created_at timestamptz DEFAULT now());
CREATE TABLE audit_events (occurred_at timestamptz NOT NULL) PARTITION BY RANGE (occurred_at);
INSERT INTO execution_logs (script_id) SELECT id FROM scripts;
CREATE SCHEMA "Re ports";
CREATE MATERIALIZED VIEW "Re ports".sums AS SELECT count(*) FROM scripts;
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i';
CREATE TYPE mood AS ENUM ('well');
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
SELECT lo_from_bytea(0, 'large');
"#;

/// A database that belongs to a role of the same name with `app_` before it.
fn application(server: &Server, more: &str) -> String {
    let database = server.trusted_database();
    let owner = format!("app_{database}");
    server.sql(
        &database,
        &format!("CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner}; SET ROLE {owner}; {APPLICATION} {more}"),
    );
    database
}

/// The shipped jobs, with the ledger in the same database. Which role connects is said by `URL`.
fn shipped(server: &Server) -> (Scenario, Vec<String>) {
    let mut scenario = Scenario::empty()
        .config("[databases.psscript]\nurl_env = \"URL\"\n[ledger]\ndatabase = \"psscript\"\n")
        .config(&format!("[tools]\nbin_dir = '{}'\n", server.bin_dir.display()))
        .config("[stores.local]\npath = \"local\"\n[stores.offsite]\npath = \"offsite\"\n");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        // It needs pgvector, which Debian's 15 lacks, and whose dump only a superuser restores: a test of its own.
        if name == "script-embeddings-index" {
            continue;
        }
        // It needs another database: a test of its own, in refresh.rs.
        if name == "staging-refresh" {
            continue;
        }
        scenario = scenario.job(name, &std::fs::read_to_string(&path).unwrap());
        names.push(name.to_owned());
    }
    names.sort();
    (scenario, names)
}

/// What a superuser is told to run for that role; run twice, as it is by those who add a job later.
fn granted(scenario: Scenario, server: &Server, database: &str, role: &str) -> (Scenario, String) {
    let scenario = scenario.env("URL", &server.url(database));
    let sql = scenario.run(&["grants", "--role", role]).succeeded().stdout;
    for _ in 0..2 {
        // psql -v ON_ERROR_STOP=1, connected elsewhere.
        server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    }
    let identifier = role.replace('"', "\"\"");
    let (role, literal) = (format!("\"{identifier}\""), role.replace('\'', "''"));
    let is_super = server.sql(
        "postgres",
        &format!("SELECT rolsuper OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = '{literal}'"),
    );
    assert_eq!(is_super, "f", "{role}: {sql}");
    (scenario, sql)
}

fn every_shipped_job_runs_as_the_role_of_grants(major: u32) {
    let server = server(major);
    let database = application(server, "");
    let (scenario, jobs) = shipped(server);
    let (scenario, sql) = granted(scenario, server, &database, "pgtend");
    assert!(!sql.contains("SUPERUSER") && !sql.contains("is a superuser") && !sql.contains("BYPASSRLS"), "{sql}");

    let scenario = scenario.env("URL", &server.url_as("pgtend", &database));
    let mut runs = 0;
    for job in &jobs {
        if job == "scripts-compress" {
            scenario.run(&["compress", "install", job]).succeeded();
        }
        let output = scenario.run(&["run-job", job, "--json"]).succeeded();
        let json: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let ended = json["runs"].as_array().unwrap();
        assert!(!ended.is_empty(), "{job} on {major}");
        runs += ended.len();
        for run in ended {
            assert_eq!(run["outcome"], "succeeded", "{job} on {major}: {json}");
            // A statement that may not is skipped with a warning by some servers. The role reads what no owner may, and says so where it runs their code. Not
            // each of the schemas has a table.
            let warnings = run["report"]["warnings"].as_array().unwrap();
            let of_schemas = if job == "tenants-schemas" { "the dump holds no table data" } else { "code of app_" };
            let known = ["verify = \"restore\" runs code of app_", "code of app_", of_schemas];
            let others =
                warnings.iter().filter(|warning| !known.iter().any(|known| warning.as_str().unwrap().starts_with(known)));
            assert_eq!(others.count(), 0, "{job} on {major}: {json}");
        }
    }
    let succeeded = scenario.runs(&["--outcome", "succeeded"]);
    assert_eq!(succeeded.iter().filter(|run| run["task"] != "compress install").count(), runs);
    let proofs = scenario.json(&["backups", "list"]);
    assert!(proofs["sets"].as_array().unwrap().iter().all(|set| set["bytes"] == "intact"), "{proofs}");
    scenario.run(&["check", "--connect"]).succeeded();
}

#[test]
fn every_shipped_job_runs_as_the_role_of_grants_on_15() {
    every_shipped_job_runs_as_the_role_of_grants(15);
}

#[test]
fn every_shipped_job_runs_as_the_role_of_grants_on_16() {
    every_shipped_job_runs_as_the_role_of_grants(16);
}

#[test]
fn every_shipped_job_runs_as_the_role_of_grants_on_18() {
    every_shipped_job_runs_as_the_role_of_grants(18);
}

#[test]
fn the_shipped_vector_index_job_runs_as_the_role_of_grants() {
    for major in [16, 18] {
        let server = server(major);
        let database = server.trusted_database();
        let owner = format!("app_{database}");
        server.sql(
            &database,
            &format!(
                "CREATE EXTENSION vector; CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner}; SET ROLE {owner};
                 CREATE TABLE script_embeddings (embedding vector(8));
                 INSERT INTO script_embeddings SELECT ARRAY(SELECT random() FROM generate_series(1, 8 + i * 0))::vector FROM generate_series(1, 1500) i;
                 CREATE INDEX script_embeddings_idx ON script_embeddings USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100)"
            ),
        );
        let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/script-embeddings-index.toml");
        let scenario = Scenario::empty()
            .config("[databases.psscript]\nurl_env = \"URL\"\n")
            .job("script-embeddings-index", &std::fs::read_to_string(job).unwrap());
        let role = format!("tend_{database}");
        let (scenario, sql) = granted(scenario, server, &database, &role);
        assert!(sql.contains(&format!("GRANT \"{owner}\" TO")) && !sql.contains("superuser:"), "{sql}");
        let scenario = scenario.env("URL", &server.url_as(&role, &database));
        scenario.run(&["run-job", "script-embeddings-index"]).succeeded();
        assert_ne!(server.sql(&database, "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"), "");
        scenario.run(&["check", "--connect"]).prints(&["may build indexes on it"]);
    }
}

#[test]
fn a_role_with_a_hostile_name_dumps_tables_with_row_security_in_full() {
    let server = server(18);
    let database = application(
        server,
        "CREATE TABLE secrets AS SELECT 1 AS i; ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; ALTER TABLE secrets FORCE ROW LEVEL SECURITY;",
    );
    let role = format!("te'nd \"{database}\" ü\\");
    let (scenario, _) = shipped(server);
    let (scenario, sql) = granted(scenario, server, &database, &role);
    assert!(sql.contains("BYPASSRLS"), "{sql}");
    let scenario = scenario.env("URL", &server.url_as(&role, &database));
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let manifest = std::fs::read_to_string(scenario.path(&format!("local/{set}/manifest.json"))).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let secrets = manifest["tables"].as_array().unwrap().iter().find(|table| table["name"] == "secrets").unwrap();
    assert_eq!(secrets["rows"], 1);
}

#[test]
fn an_extension_that_only_a_superuser_makes_is_named_and_restored_elsewhere() {
    let server = server(18);
    let database = application(server, "RESET ROLE; CREATE EXTENSION vector; ALTER TABLE scripts ADD embedding vector(3)");
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl_env = \"URL\"\n[stores.local]\npath = \"store\"\n")
        .config(&format!("[tools]\nbin_dir = '{}'\n", server.bin_dir.display()))
        .config(&format!("[databases.admin]\nurl = '{}'\n", server.url("postgres")))
        .backup_job("local", "verify = \"restore\"");
    let role = format!("tend_{database}");
    let (scenario, sql) = granted(scenario, server, &database, &role);
    // Whoever restores owns what the extension makes.
    assert!(sql.contains("\"vector\" is not trusted") && sql.contains("`scratch`"), "{sql}");
    assert!(!sql.contains("is a superuser"), "{sql}");
    let scenario = scenario.env("URL", &server.url_as(&role, &database));
    scenario.run(&["run-job", "nightly"]).exited(77).says(&["extension \"vector\""]);
    let scenario = scenario.backup_job("local", "verify = \"restore\"\nscratch = \"admin\"");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let listed = scenario.json(&["backups", "list"]);
    let proofs: Vec<_> = listed["sets"].as_array().unwrap().iter().map(|set| (&set["bytes"], &set["restored"])).collect();
    let intact = &serde_json::json!("intact");
    assert_eq!(proofs, [(intact, &false.into()), (intact, &true.into())], "{listed}");
}

#[test]
fn only_what_the_configured_jobs_need_is_granted() {
    let server = server(18);
    let database = application(server, "");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "verify = \"checksum\"").sql_job(
        "stats",
        "",
        &["ANALYZE scripts"],
    );
    let sql = scenario.run(&["grants"]).succeeded().stdout;
    assert!(sql.contains("pg_read_all_data") && sql.contains("pg_maintain"), "{sql}");
    assert!(!sql.contains("CREATEDB") && !sql.contains("SCHEMA") && !sql.contains(&format!("app_{database}")), "{sql}");
    scenario.run(&["grants", "--database", "other"]).succeeded();
}

/// Jobs of all kinds that ask for membership in an owner, and the others.
fn of_all_kinds(scenario: Scenario, role: &str) -> Scenario {
    scenario
        .backup_job("local", "verify = \"restore\"")
        .sql_job("stats", "", &["VACUUM"])
        .job("audit", "database = 'app'\n[audit]\nstore = 'local'\n")
        .job("compress", "database = 'app'\n[compress]\ntable = 'scripts'\ncolumn = 'content'\nmethod = 'toast'\n")
        .job("partition", "database = 'app'\n[partition]\ntable = 'audit_events'\ncolumn = 'occurred_at'\nevery = 'month'\n")
        .job("reindex", "database = 'app'\n[reindex]\ntable = 'scripts'\n")
        .job("retention", "database = 'app'\n[retention]\ntable = 'execution_logs'\ncolumn = 'created_at'\nolder_than = '30d'\n")
        .job("database", "database = 'app'\n[vector_index]\ntable = 'scripts'\ncolumn = 'e'\napply_setting = 'database'\n")
        .job(
            "role",
            &format!("database = 'app'\n[vector_index]\ntable = 'scripts'\ncolumn = 'e'\napply_setting = 'role:{role}'\n"),
        )
}

#[test]
fn no_job_of_a_superusers_tables_makes_the_role_a_member_of_a_superuser() {
    for major in [15, 18] {
        let server = server(major);
        // Its owner is a superuser; or one that is a member of a superuser, which is the same.
        for (number, more) in ["SUPERUSER", "IN ROLE postgres"].into_iter().enumerate() {
            let database = server.trusted_database();
            let owner = format!("dba_{number}_{database}");
            server.sql(
                &database,
                &format!(
                    "CREATE ROLE {owner} {more}; ALTER DATABASE {database} OWNER TO {owner}; SET ROLE {owner}; {APPLICATION}"
                ),
            );
            let role = format!("tend_{database}");
            let scenario = of_all_kinds(Scenario::with_database(server, &database), &owner);
            let sql = scenario.run(&["grants", "--role", &role]).succeeded().stdout;
            server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
            let superusers =
                format!("SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper AND pg_has_role('{role}', oid, 'MEMBER')");
            assert_eq!(server.sql("postgres", &superusers), "", "on {major}: {sql}");
            let why = if number == 0 {
                "and is a superuser: give it to another owner first"
            } else {
                "and is a member of \"postgres\", which is a superuser"
            };
            assert_eq!(sql.matches(why).count(), if major == 15 { 7 } else { 6 }, "{sql}");
            assert!(
                sql.contains("(ALTER TABLE \"public\".\"scripts\" OWNER TO …)") && !sql.contains("is a member of \"dba"),
                "{sql}"
            );
        }
    }
}

#[test]
fn what_a_member_of_many_owners_may_do_is_said() {
    let server = server(15);
    let database = application(server, "");
    let other = format!("other_{database}");
    server.sql(
        &database,
        &format!("CREATE ROLE {other}; ALTER TABLE audit_events OWNER TO {other}; CREATE ROLE app_role_{database}"),
    );
    let role = format!("tend_{database}");
    let scenario = of_all_kinds(Scenario::with_database(server, &database), &format!("app_role_{database}"));
    let sql = scenario.run(&["grants", "--role", &role]).succeeded().stdout;
    server.psql("postgres", &sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    assert!(sql.contains(&format!("-- This makes \"{role}\" a member of 2 owners: \"app_{database}\", \"{other}\".")), "{sql}");
    assert!(sql.contains("CREATEROLE may alter every role but superusers"), "{sql}");
    // The owner itself needs no membership in itself.
    let itself = scenario.run(&["grants", "--role", &format!("app_{database}")]).succeeded().stdout;
    assert!(!itself.contains(&format!("GRANT \"app_{database}\" TO")), "{itself}");
}

#[test]
fn a_login_without_any_right_can_ask_what_it_needs() {
    let server = server(18);
    let database = application(server, "");
    let role = format!("tend_{database}");
    server.sql("postgres", &format!("CREATE ROLE {role} LOGIN"));
    let asked_by = |url: &str| {
        let scenario = of_all_kinds(Scenario::with_url(server, url), &format!("app_{database}"));
        let sql = scenario.run(&["grants", "--role", &role]).succeeded().stdout;
        // Their folders and logins differ.
        sql.lines().skip(1).filter(|line| !line.starts_with("-- database")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(asked_by(&server.url_as(&role, &database)), asked_by(&server.url(&database)));
}

#[test]
fn an_owner_that_reaches_the_host_is_named_and_its_group_is_not_granted() {
    let server = server(18);
    let database = server.trusted_database();
    let (owner, reaching) = (format!("app_{database}"), format!("shell_{database}"));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; ALTER DATABASE {database} OWNER TO {owner}; CREATE ROLE {reaching}; GRANT pg_execute_server_program TO {reaching};
             CREATE TABLE of_group (at timestamptz) PARTITION BY RANGE (at); ALTER TABLE of_group OWNER TO pg_database_owner;
             CREATE TABLE of_shell (at timestamptz) PARTITION BY RANGE (at); GRANT CREATE ON SCHEMA public TO {reaching}; ALTER TABLE of_shell OWNER TO {reaching}"
        ),
    );
    let job = |table: &str| format!("database = 'app'\n[partition]\ntable = 'public.{table}'\ncolumn = 'at'\nevery = 'month'\n");
    let scenario = Scenario::with_database(server, &database).job("group", &job("of_group")).job("shell", &job("of_shell"));
    let role = format!("login_{database}");
    let sql = scenario.run(&["grants", "--role", &role]).succeeded().stdout;
    assert!(!sql.contains("GRANT \"pg_database_owner\""), "{sql}");
    assert!(
        sql.contains("belongs to pg_database_owner, whose only member") && sql.contains(&format!("GRANT \"{owner}\" TO")),
        "{sql}"
    );
    assert!(
        sql.contains(&format!("\"{reaching}\" is a member of \"pg_execute_server_program\"")) && sql.contains("run programs"),
        "{sql}"
    );
    server.sql("postgres", &sql);
}

#[test]
fn an_owner_that_may_make_itself_a_member_of_others_is_named_before_its_membership_is_granted() {
    for major in [15, 18] {
        let server = server(major);
        let database = server.new_database();
        let (boss, other) = (format!("boss_{database}"), format!("other_{database}"));
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {other}; CREATE ROLE {boss} CREATEROLE REPLICATION IN ROLE {other}, pg_read_all_data; CREATE SCHEMA boss AUTHORIZATION {boss};
                 SET ROLE {boss}; CREATE TABLE boss.t (id int PRIMARY KEY)"
            ),
        );
        let scenario = Scenario::with_database(server, &database).job("boss", "database = 'app'\n[reindex]\ntable = 'boss.t'\n");
        let role = format!("login_{database}");
        let output = scenario.run(&["grants", "--role", &role]).succeeded();
        let attribute = if major < 16 { "has CREATEROLE" } else { "has REPLICATION" };
        let groups = format!("is a member of \"{other}\", \"pg_read_all_data\"");
        for said in [format!("-- \"{boss}\" {attribute}"), format!("-- \"{boss}\" {groups}")] {
            let (warning, grant) = (output.stdout.find(&said), output.stdout.find(&format!("GRANT \"{boss}\" TO")));
            assert!(warning.is_some() && warning < grant, "{said}: {}", output.stdout);
        }
        output.says(&[attribute, &groups]);
    }
}
