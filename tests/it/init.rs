//! The first minutes: `init` looks at a server, and what it writes works.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::postgres::{Different, Server, WITH_PGVECTOR, server};
use crate::support::s3::S3Server;
use crate::support::{Output, Scenario, ends_with_tests};

/// A folder with nothing in it.
fn empty_folder() -> Scenario {
    let scenario = Scenario::empty();
    fs::remove_dir(scenario.path("jobs")).unwrap();
    scenario
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `init` for one database of this server, without questions.
fn init(scenario: &Scenario, server: &Server, database: &str, more: &[&str]) -> Output {
    let (url, bin_dir) = (server.url(database), server.bin_dir.display().to_string());
    scenario.run(&[&["init", &url, "--bin-dir", &bin_dir, "--yes"], more].concat())
}

/// The files that it may write, with their text.
fn contents(scenario: &Scenario) -> BTreeMap<String, String> {
    let is_written = |file: &String| ["config.toml", "jobs/", "schema/"].iter().any(|place| file.starts_with(place));
    let files = scenario.files("").into_iter().filter(is_written);
    files.map(|file| (file.clone(), fs::read_to_string(scenario.path(&file)).unwrap())).collect()
}

fn names(scenario: &Scenario) -> Vec<String> {
    contents(scenario).into_keys().collect()
}

/// Logs, partitions, large text and vectors, each table and column with such a name.
fn fill(server: &Server, database: &str, odd: &str) {
    let (logs, at, parts) =
        (identifier(&format!("{odd} log")), identifier(&format!("{odd} time")), identifier(&format!("parts {odd}")));
    let (large, body) = (identifier(&format!("large {odd}")), identifier(&format!("body {odd}")));
    server.sql(
        database,
        &format!(
            "CREATE SCHEMA {odd};
             CREATE TABLE {odd}.{logs} (id int PRIMARY KEY, {at} timestamptz);
             INSERT INTO {odd}.{logs} SELECT i, now() - make_interval(days => i) FROM generate_series(1, 200) i;
             CREATE TABLE {odd}.{parts} (id int, {at} date NOT NULL) PARTITION BY RANGE ({at});
             CREATE TABLE {odd}.one PARTITION OF {odd}.{parts} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
             CREATE TABLE {odd}.{large} (id int PRIMARY KEY, {body} text);
             INSERT INTO {odd}.{large} SELECT i, (SELECT string_agg(md5((i * j)::text), ' ') FROM generate_series(1, 300) j) FROM generate_series(1, 20) i;
             ANALYZE;
             UPDATE pg_class SET relpages = 100000 WHERE oid = (SELECT reltoastrelid FROM pg_class WHERE relname = 'large {name}');",
            odd = identifier(odd),
            name = odd.replace('\'', "''"),
        ),
    );
    if WITH_PGVECTOR.contains(&server.major) {
        let (table, column) = (identifier(&format!("vectors {odd}")), identifier(&format!("embedding {odd}")));
        server.sql(
            database,
            &format!(
                "CREATE EXTENSION vector; CREATE TABLE {table} (id int PRIMARY KEY, {column} vector(3));
                 INSERT INTO {table} SELECT i, ARRAY[i, i % 7, i % 11]::vector FROM generate_series(1, 50) i;
                 CREATE INDEX ON {table} USING hnsw ({column} vector_l2_ops)"
            ),
        );
    }
}

#[test]
fn what_init_writes_passes_check_and_its_first_run_works_whatever_the_names_are() {
    const ODD: [&str; 3] = ["it's \"odd\" \\ = %s", "two\nlines\r\t✓ größe", "#:schema x]]\u{1b}[31m\u{202e}"];
    for (major, odd_names) in [(14, &ODD[..1]), (15, &ODD[1..2]), (16, &ODD[2..]), (18, &ODD[..])] {
        let server = server(major);
        let own = server.trusted_database();
        for odd in odd_names {
            let database = format!("{own} {odd}");
            server.sql("postgres", &format!("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0", identifier(&database)));
            server.drop_with_test(&database.replace('"', "\"\""));
            fill(server, &database, odd);
            let scenario = empty_folder();
            let said = init(&scenario, server, &database, &[]).succeeded();
            assert!(!said.stdout.contains(['\u{1b}', '\u{202e}']), "{}", said.stdout);
            let kinds = if WITH_PGVECTOR.contains(&major) { 6 } else { 5 };
            let jobs = names(&scenario).iter().filter(|name| name.starts_with("jobs/")).count();
            assert_eq!(jobs, kinds, "{major}: {}", said.stdout);
            scenario.run(&["check"]).succeeded().prints(&["no mistakes"]);
            scenario.run(&["check", "--connect"]).succeeded();
            scenario.run(&["run-job", "backup-nightly"]).succeeded().prints(&["succeeded"]);
            for (file, text) in contents(&scenario).iter().filter(|(file, _)| file.starts_with("jobs/")) {
                assert!(text.starts_with("#:schema ../schema/job.json\n"), "{text}");
                let is_enabled = !text.contains("\nenabled = false\n");
                assert_eq!(is_enabled, text.contains("\n[backup]\n") || text.contains("\n[audit]\n"), "{file}: {text}");
                // The plan that its comment names, and nothing else happens.
                let name = file.trim_start_matches("jobs/").trim_end_matches(".toml");
                let install = ["compress", "install", name, "--dry-run", "--force"];
                let plan = if text.contains("\n[compress]\n") { &install[..] } else { &["run-job", name, "--dry-run"] };
                scenario.run(plan).succeeded();
            }
        }
    }
}

#[test]
fn init_changes_no_file_and_adds_jobs_for_what_is_new() {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(&database, "CREATE TABLE audit_log (id int PRIMARY KEY, created_at timestamptz)");
    let scenario = empty_folder();
    init(&scenario, server, &database, &["--at", "23:10", "--timezone", "Europe/Berlin"]).succeeded();
    let first = contents(&scenario);
    assert!(first["jobs/backup-nightly.toml"].contains("schedule = \"10 23 * * *\""), "{first:#?}");
    assert!(first["jobs/audit_log-retention.toml"].contains("timezone = \"Europe/Berlin\""), "{first:#?}");
    // As it is: nothing is left to do.
    scenario.run(&["init", "--yes"]).succeeded().prints(&["There is nothing to write"]);
    assert_eq!(contents(&scenario), first);
    // A person's own changes stay, and a table that is new gets its job.
    let own = first["jobs/audit_log-retention.toml"].replace("90d", "30d");
    fs::rename(scenario.path("jobs/audit_log-retention.toml"), scenario.path("jobs/logs.toml")).unwrap();
    fs::write(scenario.path("jobs/logs.toml"), &own).unwrap();
    server.sql(&database, "CREATE TABLE web_events (id int PRIMARY KEY, created_at timestamptz)");
    scenario.run(&["init", "--yes"]).succeeded().prints(&["jobs/web_events-retention.toml"]);
    let second = contents(&scenario);
    assert_eq!(second.len(), first.len() + 1, "{:?}", second.keys());
    assert_eq!(second["jobs/logs.toml"], own);
    assert_eq!(second["config.toml"], first["config.toml"]);
    scenario.run(&["check", "--connect"]).succeeded();
    // A database that the configuration does not have: its lines are printed.
    let other = server.trusted_database();
    let entry = format!("[databases.{other}]");
    scenario.run(&["init", &server.url(&other), "--yes"]).succeeded().prints(&[&entry, "does not have this database"]);
    assert_eq!(contents(&scenario), second);
}

#[test]
fn init_leaves_files_alone_that_are_no_jobs_of_its_own() {
    let server = server(18);
    let database = server.trusted_database();
    // Without a configuration, beside files that have its names.
    let scenario = Scenario::empty();
    fs::write(scenario.path("jobs/backup-nightly.toml"), "mine").unwrap();
    fs::create_dir(scenario.path("schema")).unwrap();
    fs::write(scenario.path("schema/job.json"), "mine").unwrap();
    init(&scenario, server, &database, &[]).succeeded().prints(&["jobs/backup-nightly-2.toml"]);
    let found = contents(&scenario);
    assert_eq!((found["jobs/backup-nightly.toml"].as_str(), found["schema/job.json"].as_str()), ("mine", "mine"));
    // With a job that cannot be read, nobody knows what it does.
    scenario.run(&["init", "--yes"]).exited(78).says(&["backup-nightly.toml"]);
    assert_eq!(contents(&scenario), found);
    // A link that leads nowhere is not written through.
    let linked = empty_folder();
    std::os::unix::fs::symlink(linked.path("elsewhere.toml"), linked.path("config.toml")).unwrap();
    init(&linked, server, &database, &[]).exited(78);
    assert!(!linked.path("elsewhere.toml").exists() && !linked.path("jobs").exists());
}

#[test]
fn init_writes_no_password_and_says_where_it_goes() {
    let server = server(18);
    let database = server.trusted_database();
    let url = server.url(&database).replace("postgres@", "postgres:hunter2@");
    let bin_dir = server.bin_dir.display().to_string();
    let scenario = empty_folder();
    let said = scenario.run(&["init", &url, "--bin-dir", &bin_dir]).succeeded();
    let said = said.prints(&[&format!("*:5432:{database}:postgres:PASSWORD"), "~/.pgpass", "chmod 600"]);
    let json = scenario.run(&["init", &url, "--json", "--dry-run"]).succeeded();
    for text in contents(&scenario).into_values().chain([said.stdout, said.stderr, json.stdout, json.stderr]) {
        assert!(!text.contains("hunter2"), "{text}");
    }
    // A URL in the environment or in a file stays there.
    let scenario = empty_folder().env("APP_URL", &url);
    scenario.run(&["init", "--url-env", "APP_URL", "--bin-dir", &bin_dir]).succeeded();
    assert!(contents(&scenario)["config.toml"].contains("url_env = \"APP_URL\""));
    scenario.run(&["check", "--connect"]).succeeded();
    let scenario = empty_folder();
    fs::write(scenario.path("secret"), &url).unwrap();
    scenario.run(&["init", "--url-file", "secret", "--bin-dir", &bin_dir]).succeeded();
    let config = contents(&scenario)["config.toml"].clone();
    assert!(config.contains("url_file = \"/") && !config.contains("hunter2"), "{config}");
    scenario.run(&["check", "--connect"]).succeeded();
}

#[test]
fn a_url_that_stays_where_it_is_makes_no_entry_for_another_database() {
    let server = server(18);
    let (own, other) = (server.trusted_database(), server.trusted_database());
    let bin_dir = server.bin_dir.display().to_string();
    let scenario = empty_folder().env("APP_URL", &server.url(&own));
    fs::write(scenario.path("secret"), server.url(&own)).unwrap();
    let init = |more: &[&str]| scenario.run(&[&["init", "--yes", "--bin-dir", &bin_dir], more].concat());
    let would = format!("an entry for `{other}` would lead to `{own}`");
    for more in [
        &["--url-env", "APP_URL", "--database", &other][..],
        &["--url-env", "APP_URL", "--database", &own, "--database", &other],
        &["--url-file", "secret", "--database", &other],
    ] {
        init(more).exited(78).says(&[&would, "of its own"]);
        assert_eq!(names(&scenario), Vec::<String>::new());
    }
    // The URL in the place of the variable's name is not repeated.
    let said = init(&["--url-env", "postgres://u:hunter2@h/x"]).exited(78);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    init(&["--url-env", "APP_URL", "--database", &own]).succeeded();
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
}

#[test]
fn a_named_database_is_found_among_however_many_and_one_without_files_ends_nothing() {
    let own = Server::start(18);
    own.sql("postgres", "CREATE DATABASE named");
    // Rows alone, without files: as of databases that are being dropped.
    own.sql(
        "postgres",
        "SET allow_system_table_mods = on;
         INSERT INTO pg_database
         SELECT (900000 + i)::oid, 'aa' || i, datdba, encoding, datlocprovider, false, true, dathasloginevt, -1, datfrozenxid, datminmxid, dattablespace,
                datcollate, datctype, datlocale, daticurules, datcollversion, NULL
         FROM pg_database, generate_series(1, 501) i WHERE datname = 'named'",
    );
    let scenario = empty_folder();
    let bin_dir = own.bin_dir.display().to_string();
    let server_url = own.url("x").trim_end_matches("/x").to_owned();
    let all = |more: &[&str]| scenario.run(&[&["init", &server_url, "--yes", "--bin-dir", &bin_dir], more].concat());
    all(&[]).exited(78).says(&["more than 500 databases", "--database NAME"]);
    let said = all(&["--database", "missing-one-here"]).exited(78).says(&["no database `missing-one-here`", ", …"]);
    assert!(said.stderr.len() < 1000, "{}", said.stderr);
    assert_eq!(names(&scenario), Vec::<String>::new());
    all(&["--database", "named", "--dry-run"]).succeeded().prints(&["[databases.named]"]);
    init(&scenario, &own, "named", &[]).succeeded();
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
}

#[test]
fn the_environment_of_psql_is_written_into_the_url_but_its_password() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = empty_folder()
        .env("PGHOST", &server.socket().display().to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", &database)
        .env("PGPASSWORD", "hunter2");
    scenario.run(&["init", "--bin-dir", &server.bin_dir.display().to_string()]).succeeded();
    let config = contents(&scenario)["config.toml"].clone();
    assert!(!config.contains("hunter2"), "{config}");
    // Without that environment it means the same.
    let mut check = scenario.command(&["check", "--connect"]);
    for variable in ["PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD"] {
        check.env_remove(variable);
    }
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn a_dry_run_of_init_prints_the_files_and_writes_none() {
    let server = server(15);
    let database = server.trusted_database();
    let scenario = empty_folder();
    init(&scenario, server, &database, &["--dry-run"]).succeeded().prints(&[
        "==> config.toml <==",
        "==> jobs/backup-nightly.toml <==",
        "verify = \"restore\"",
        "Nothing was written",
        "pgtend run-job backup-nightly",
    ]);
    assert_eq!(names(&scenario), Vec::<String>::new());
    let said = init(&scenario, server, &database, &["--dry-run", "--json"]).succeeded();
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((json["written"].as_bool(), json["next"].as_array().unwrap().len()), (Some(false), 3), "{json:#}");
    assert_eq!(json["databases"][0]["name"], Value::from(database));
    assert!(json["files"].as_array().unwrap().iter().any(|file| file["path"] == "jobs/audit-monthly.toml"), "{json:#}");
    assert_eq!(names(&scenario), Vec::<String>::new());
}

#[test]
fn a_role_with_few_rights_gets_the_jobs_that_it_can_run() {
    let server = server(18);
    let database = server.trusted_database();
    let role = format!("few_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role};
             CREATE TABLE app_logs (id int PRIMARY KEY, created_at timestamptz); INSERT INTO app_logs VALUES (1, now())"
        ),
    );
    let scenario = empty_folder().env("PATH", "/usr/bin:/bin");
    let bin_dir = server.bin_dir.display().to_string();
    let said = scenario.run(&["init", &server.url_as(&role, &database), "--bin-dir", &bin_dir]).succeeded();
    said.prints(&[
        "Left out:",
        "[retention] of public.app_logs",
        "GRANT SELECT, UPDATE, DELETE",
        "no [ledger]",
        "GRANT CREATE ON DATABASE",
    ]);
    let found = contents(&scenario);
    assert!(found["config.toml"].contains("# [ledger]"), "{}", found["config.toml"]);
    assert!(!found.contains_key("jobs/app_logs-retention.toml"));
    // Whether it is proved by a restore depends on the server programs of this host.
    let job = &found["jobs/backup-nightly.toml"];
    assert!(
        job.contains("verify = \"restore\"")
            || job.contains("# A dump of each database, as one set. verify = \"restore\" is not possible yet"),
        "{job}"
    );
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
    server.sql(&database, &format!("DROP OWNED BY {role}"));
    server.sql("postgres", &format!("DROP ROLE {role}"));
}

#[test]
fn several_databases_share_one_backup_job_and_a_database_for_connections_is_left_out() {
    let own = Server::start(18);
    for name in ["app", "Shop Ü", "pgtend_verify_x"] {
        own.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
    }
    own.sql("app", "CREATE TABLE app_log (id int PRIMARY KEY, created_at timestamptz)");
    let scenario = empty_folder();
    let url = own.url("x").trim_end_matches("/x").to_owned();
    let bin_dir = own.bin_dir.display().to_string();
    scenario.run(&["init", &url, "--bin-dir", &bin_dir]).succeeded();
    let found = contents(&scenario);
    assert!(
        found["jobs/backup-nightly.toml"].contains("databases = [\"Shop-Ü\", \"app\"]"),
        "{}",
        found["jobs/backup-nightly.toml"]
    );
    assert!(found.contains_key("jobs/app-app_log-retention.toml"), "{:?}", found.keys());
    scenario.run(&["check", "--connect"]).succeeded();
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
    // One of them alone; a name that is not there is said.
    let scenario = empty_folder();
    scenario.run(&["init", &url, "--bin-dir", &bin_dir, "--database", "Shop Ü"]).succeeded();
    assert!(contents(&scenario)["jobs/backup-nightly.toml"].contains("database = \"Shop-Ü\""));
    let scenario = empty_folder();
    scenario.run(&["init", &url, "--database", "shop"]).exited(78).says(&["no database `shop`"]);
    assert_eq!(names(&scenario), Vec::<String>::new());
}

#[test]
fn databases_that_init_cannot_back_up_are_named_with_the_reason() {
    let own = Server::start(18);
    for sql in [
        "CREATE ROLE poor LOGIN CREATEDB; GRANT pg_read_all_data TO poor",
        "CREATE DATABASE app OWNER poor",
        "CREATE DATABASE shop",
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
        "CREATE DATABASE tmpl IS_TEMPLATE true",
        "CREATE DATABASE closed ALLOW_CONNECTIONS false",
    ] {
        own.sql("postgres", sql);
    }
    let poor = own.url_as("poor", "x");
    let url = poor.trim_end_matches("/x");
    let bin_dir = own.bin_dir.display().to_string();
    for form in ["--entries", "--fleet"] {
        let scenario = empty_folder();
        scenario.run(&["init", url, "--bin-dir", &bin_dir, form]).succeeded().prints(&[
            "no job backs up database shop: the role may not connect to it",
            "no job backs up database tmpl: it is a template",
            "no job backs up database closed: it takes no connections",
        ]);
        // One that was named is alone, and nothing is said of the others.
        if form == "--entries" {
            let named = empty_folder().run(&["init", url, "--bin-dir", &bin_dir, "--database", "app"]);
            assert!(!named.succeeded().stdout.contains("shop"));
        }
    }
}

#[test]
fn a_server_with_many_databases_gets_one_entry_and_jobs_for_all_that_it_has_and_will_have() {
    let own = Server::start(18);
    for number in 1..=5 {
        own.sql("postgres", &format!("CREATE DATABASE tenant_{number}"));
    }
    let url = own.url("x").trim_end_matches("/x").to_owned();
    let bin_dir = own.bin_dir.display().to_string();
    let init = |scenario: &Scenario, more: &[&str]| scenario.run(&[&["init", &url, "--bin-dir", &bin_dir], more].concat());
    let scenario = empty_folder();
    let all = "every day at 02:00 UTC: a backup of all databases, restored and counted";
    init(&scenario, &[]).succeeded().prints(&[all, "main.tenant_5", "the run history will be in the database postgres"]);
    let found = contents(&scenario);
    let config = &found["config.toml"];
    assert!(config.contains("[servers.main]") && config.contains("[databases.postgres]"), "{config}");
    assert!(!config.contains("[databases.tenant_1]"), "{config}");
    assert!(found["jobs/backup-nightly.toml"].contains("\ndatabases = \"*\" "), "{}", found["jobs/backup-nightly.toml"]);
    scenario.run(&["check"]).succeeded();
    scenario.run(&["check", "--connect"]).succeeded().prints(&["6 of 6 databases count"]);
    own.sql("postgres", "CREATE DATABASE later");
    own.sql("later", "CREATE TABLE t AS SELECT 1 AS i");
    scenario.run(&["run-job", "backup-nightly@later"]).succeeded();
    assert!(scenario.sets().iter().all(|set| set.starts_with("main.later/backup-nightly/")), "{:?}", scenario.sets());
    // Again, nothing is new.
    scenario.run(&["init", "--yes"]).succeeded().prints(&["There is nothing to write"]);

    // A person may want it otherwise, in either way, and is asked on a terminal.
    let scenario = empty_folder();
    init(&scenario, &["--entries"]).succeeded();
    let config = &contents(&scenario)["config.toml"];
    assert!(config.contains("[databases.tenant_5]") && !config.contains("[servers."), "{config}");
    for number in 3..=5 {
        own.sql("postgres", &format!("DROP DATABASE tenant_{number}"));
    }
    own.sql("postgres", "CREATE DATABASE pgtend");
    let scenario = empty_folder();
    init(&scenario, &["--fleet"]).succeeded();
    let config = &contents(&scenario)["config.toml"];
    assert!(config.contains("[databases.pgtend]") && config.contains("exclude = [\"postgres\"]"), "{config}");
    scenario.run(&["check", "--connect"]).succeeded().prints(&["4 of 5 databases count"]);
    init(&empty_folder(), &["--fleet", "--database", "later"]).exited(64);
    let command = format!("'{}' init '{url}' --bin-dir '{bin_dir}'", env!("CARGO_BIN_EXE_pgtend"));
    for (answers, expected) in
        [(["yes", "", "", ""].as_slice(), "[servers.main]"), (&["", "all", "", "", ""], "[databases.later]")]
    {
        let scenario = empty_folder();
        on_a_terminal(&scenario, &command, answers)
            .succeeded()
            .prints(&["The server has 5 databases. Shall jobs run on all of them"]);
        assert!(contents(&scenario)["config.toml"].contains(expected), "{}", contents(&scenario)["config.toml"]);
    }
}

#[test]
fn a_standby_gets_no_ledger_and_its_first_run_works_all_the_same() {
    let primary = Server::start(18);
    primary.sql("postgres", "CREATE TABLE app_log (created_at timestamptz)");
    let settings = ["archive_mode=on", "archive_command=pgbackrest --stanza=secret archive-push %p || true"].map(str::to_owned);
    let standby =
        Server::start_different(18, Different { primary: Some(&primary), settings: settings.into(), ..Different::default() });
    standby.catches_up(&primary);
    let scenario = empty_folder();
    let said = init(&scenario, &standby, "postgres", &[]).succeeded();
    assert!(!said.stdout.contains("secret"), "{}", said.stdout);
    let said = said.prints(&["a standby, which takes no rows"]);
    said.prints(&["archives its WAL with pgBackRest"]);
    scenario.run(&["check"]).succeeded();
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
}

#[test]
fn what_pg_cron_and_pg_partman_do_already_is_said_and_gets_no_job() {
    let prepare = |folder: &Path| {
        let folder = folder.join("share/extension");
        fs::create_dir_all(&folder).unwrap();
        for (name, sql) in [
            (
                "pg_cron",
                "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint, schedule text, command text);\nSELECT pg_catalog.pg_extension_config_dump('cron.job', '');",
            ),
            ("pg_partman", "CREATE TABLE @extschema@.part_config (parent_table text, control text);"),
        ] {
            fs::write(folder.join(format!("{name}.control")), "default_version = '1.0'\nrelocatable = false\n").unwrap();
            fs::write(folder.join(format!("{name}--1.0.sql")), sql).unwrap();
        }
    };
    // Their tables as they make them: neither is to be had here.
    let own = Server::start_different(18, Different { prepare: Some(&prepare), ..Different::default() });
    let path = own.path("share").display().to_string();
    own.sql(
        "postgres",
        &format!(
            "ALTER SYSTEM SET extension_control_path = '$system:{path}'; SELECT pg_reload_conf(); SELECT pg_sleep(1);
             SET extension_control_path = '$system:{path}';
             CREATE EXTENSION pg_cron; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
             INSERT INTO cron.job VALUES (1, '0 3 * * *', E'DELETE FROM logs\\nWHERE old');
             CREATE TABLE kept (at date NOT NULL) PARTITION BY RANGE (at);
             CREATE TABLE free (at date NOT NULL) PARTITION BY RANGE (at);
             INSERT INTO partman.part_config VALUES ('public.kept', 'at')"
        ),
    );
    let scenario = empty_folder();
    let said = init(&scenario, &own, "postgres", &["--dry-run"]).succeeded();
    said.prints(&[
        "pg_cron in postgres: 0 3 * * *: DELETE FROM logs WHERE old",
        "pg_partman in postgres: partitions of public.kept",
        "[partition] of public.kept in postgres: pg_partman keeps its partitions",
        "==> jobs/free-partitions.toml <==",
    ]);
    // A table in its place whose owner could run code of his.
    own.sql("postgres", "CREATE ROLE other; ALTER TABLE cron.job OWNER TO other; ALTER TABLE partman.part_config OWNER TO other");
    let said = init(&scenario, &own, "postgres", &["--dry-run"]).succeeded();
    said.prints(&[
        "pg_cron in postgres, whose jobs this role may not read",
        "[partition] of public.free in postgres: pg_partman is installed",
    ]);
}

#[test]
fn the_first_run_into_a_bucket_works() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.trusted_database();
    let store = format!("s3://backups/first?region=us-east-1&endpoint={}", s3.endpoint());
    let scenario = empty_folder()
        .env("AWS_ACCESS_KEY_ID", crate::support::s3::ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", crate::support::s3::SECRET_KEY);
    init(&scenario, server, &database, &["--store", &store]).succeeded();
    scenario.run(&["run-job", "backup-nightly"]).succeeded();
    assert_eq!(scenario.sets().len(), 1);
    let wrong = empty_folder();
    init(&wrong, server, &database, &["--store", "gs://backups"]).exited(78).says(&["azure-and-google"]);
    assert_eq!(names(&wrong), Vec::<String>::new());
}

/// Runs a command on a terminal of its own, and types each answer after its question was read. Its input stays open: script(1) types an EOF two seconds
/// after the end of that, which a slow command would take for an answer.
fn on_a_terminal(scenario: &Scenario, command: &str, answers: &[&str]) -> Output {
    let mut script = Command::new("script");
    script.args(["-qec", command, "/dev/null"]).current_dir(scenario.path("")).env("HOME", scenario.path(""));
    for inherited in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"] {
        script.env_remove(inherited);
    }
    let mut child =
        ends_with_tests(&mut script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut said, mut answered, mut chunk) = (Vec::new(), 0, [0; 4096]);
    loop {
        let read = stdout.read(&mut chunk).unwrap();
        if read == 0 {
            break;
        }
        said.extend_from_slice(&chunk[..read]);
        let asked = String::from_utf8_lossy(&said).matches("]: ").count().min(answers.len());
        for answer in &answers[answered.min(asked)..asked] {
            stdin.write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
        answered = asked.max(answered);
    }
    let ended = child.wait_with_output().unwrap();
    drop(stdin);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { code: ended.status.code(), stdout: text(said), stderr: text(ended.stderr) }
}

#[test]
fn on_a_terminal_init_asks_and_enter_takes_the_default() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = empty_folder();
    let command =
        format!("'{}' init '{}' --bin-dir '{}'", env!("CARGO_BIN_EXE_pgtend"), server.url(&database), server.bin_dir.display());
    // No to the last question: nothing is written.
    on_a_terminal(&scenario, &command, &["", "", "no"]).exited(78).prints(&["nothing was written"]);
    assert_eq!(names(&scenario), Vec::<String>::new());
    // An answer that makes no sense is asked again.
    let said = on_a_terminal(&scenario, &command, &["elsewhere", "25:99", "23:30", ""]).succeeded();
    said.prints(&[
        "Where do backups go",
        "[store]",
        "When do backups begin (UTC)?",
        "write it like 02:00",
        "All of these files are written",
    ]);
    let found = contents(&scenario);
    assert!(found["config.toml"].contains("path = \"elsewhere\""), "{}", found["config.toml"]);
    assert!(found["jobs/backup-nightly.toml"].contains("30 23 * * *"));
}
