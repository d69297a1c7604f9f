//! What the owner of a database puts in our way: his functions never run as us, and his settings neither keep us out nor
//! change what data means.

use std::collections::BTreeSet;

use crate::support::postgres::{MAJORS, Server, server};
use crate::support::{Scenario, quoted};

/// The contract itself: its tables beside what servers have.
#[allow(dead_code, reason = "a part of the program, read for its lists")]
#[path = "../../src/pg/contract.rs"]
mod program;

const HOSTILE: &str = include_str!("fixtures/hostile.sql");

/// Versions with something for every task, and the oldest.
const VERSIONS: [u32; 3] = [14, 16, 18];

/// A database of an ordinary role, with something in it for every task.
struct Owned<'a> {
    server: &'a Server,
    database: String,
    owner: String,
}

impl<'a> Owned<'a> {
    fn new(server: &'a Server) -> Self {
        let database = server.trusted_database();
        let owner = format!("owner_of_{database}");
        server.sql("postgres", &format!("CREATE ROLE {owner} LOGIN; ALTER DATABASE {database} OWNER TO {owner}"));
        // Before 15, everybody may.
        server.sql(&database, &format!("GRANT CREATE ON SCHEMA public TO {owner}"));
        let owned = Self { server, database, owner };
        owned.as_owner(
            "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), content text);
             INSERT INTO t SELECT i, now() - make_interval(days => i), repeat(md5(i::text), 1000) FROM generate_series(1, 200) i;
             CREATE INDEX t_at ON t (at);
             CREATE TABLE p (at timestamptz NOT NULL) PARTITION BY RANGE (at);
             CREATE TABLE p_default PARTITION OF p DEFAULT; INSERT INTO p VALUES (now())",
        );
        if owned.has_pgvector() {
            server.sql(&owned.database, "CREATE EXTENSION vector");
            owned.as_owner(
                "CREATE TABLE v (id int PRIMARY KEY, v vector(3));
                 INSERT INTO v SELECT g, ARRAY[g % 7, g % 11, g]::vector FROM generate_series(1, 300) g",
            );
        }
        owned
    }

    fn has_pgvector(&self) -> bool {
        [16, 18].contains(&self.server.major)
    }

    fn as_owner(&self, sql: &str) {
        self.server.sql(&self.database, &format!("SET ROLE {}; {sql}", self.owner));
    }

    /// A job of each kind, and the ledger in the same database; pgtend is a superuser.
    fn scenario(&self, url: &str) -> (Scenario, Vec<&'static str>) {
        let job = |task: &str| format!("database = \"app\"\n{task}\n");
        let scenario = Scenario::with_url(self.server, url)
            .ledger()
            .backup_job("local", "verify = \"restore\"")
            .job(
                "retention",
                &job("[retention]\ntable = \"public.t\"\ncolumn = \"at\"\nolder_than = \"150d\"\narchive = \"local\""),
            )
            .job("partition", &job("[partition]\ntable = \"public.p\"\ncolumn = \"at\"\nevery = \"month\"\npremake = 1"))
            .job(
                "compress",
                &job("[compress]\ntable = \"public.t\"\ncolumn = \"content\"\nlarger_than = \"10KB\"\nmethod = \"toast\""),
            )
            .job("reindex", &job("[reindex]\ntable = \"public.t\"\nlarger_than = \"8KiB\""))
            .job("audit", &job("[audit]\nstore = \"local\"\nfail_on = \"never\""))
            .job("sql", &job("[sql]\nstatements = [\"SELECT 1\"]"));
        let mut names = vec!["nightly", "retention", "partition", "compress", "reindex", "audit", "sql"];
        if !self.has_pgvector() {
            return (scenario, names);
        }
        names.push("vector");
        let vector = "[vector_index]\ntable = \"public.v\"\ncolumn = \"v\"\nmethod = \"hnsw\"\nmetric = \"l2\"";
        (scenario.job("vector", &job(vector)), names)
    }

    /// Every task once, as it would be run and as a dry run, and what people ask by hand.
    #[track_caller]
    fn all_works(&self, url: &str) {
        let (scenario, names) = self.scenario(url);
        for name in names {
            scenario.run(&["run-job", name, "--yes", "--dry-run"]).succeeded();
            scenario.run(&["run-job", name, "--yes"]).succeeded();
        }
        scenario.run(&["check", "--connect"]).succeeded();
        scenario.run(&["runs"]).succeeded();
        scenario.run(&["grants"]).succeeded();
        scenario.run(&["backups", "list"]).succeeded();
        scenario.run(&["archives", "restore", "--job", "retention"]).succeeded();
        let (set, url) = (scenario.sets().remove(0), self.server.url(&format!("{}_restored", self.database)));
        scenario.run(&["backups", "restore", &set, "--into", &url, "--create"]).succeeded();
    }

    /// Nothing of the owner's ran as anybody, and he is what he was.
    #[track_caller]
    fn nobody_was_taken_over(&self) {
        let log = self.server.logged();
        let marks: BTreeSet<&str> =
            log.lines().filter(|line| line.contains(&format!("TAKEN OVER in {}:", self.database))).collect();
        assert!(marks.is_empty(), "{marks:#?}");
        let sql = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{}'", self.owner);
        assert_eq!(self.server.sql("postgres", &sql), "f");
    }
}

/// With which his functions are met by everybody who has no path of his own.
const FIRST: &str = "SET search_path = hostile, public, pg_catalog";

#[test]
fn a_stranger_who_puts_an_exact_match_of_hashtextextended_into_public_is_not_run() {
    for major in VERSIONS {
        let server = server(major);
        let owned = Owned::new(server);
        // pg_catalog comes first here, and has a bigint where a literal is an integer: the exact match wins all the same.
        owned.as_owner(
            "CREATE FUNCTION public.hashtextextended(text, integer) RETURNS bigint LANGUAGE plpgsql AS $$
             BEGIN RAISE LOG 'TAKEN OVER in %: hashtextextended', current_database(); RETURN 1; END $$",
        );
        server.sql(&owned.database, "SELECT hashtextextended('the trap works', 0)");
        assert!(server.logged().contains(&format!("TAKEN OVER in {}:", owned.database)));
        let marks = || server.logged().matches(&format!("TAKEN OVER in {}:", owned.database)).count();
        let before = marks();
        owned.all_works(&server.url(&owned.database));
        assert_eq!(marks(), before, "{major}");
    }
}

#[test]
fn a_stranger_who_sets_a_search_path_with_functions_and_operators_of_his_own_is_not_run() {
    for major in VERSIONS {
        let owned = Owned::new(server(major));
        owned.as_owner(&format!("{HOSTILE}; ALTER DATABASE {} {FIRST}", owned.database));
        owned.all_works(&owned.server.url(&owned.database));
        owned.nobody_was_taken_over();
        // The same traps, met by somebody without the contract.
        owned.server.sql(&owned.database, &format!("{FIRST}; SELECT set_config('a.b', 'c', false)"));
        let log = owned.server.logged();
        assert!(log.contains(&format!("TAKEN OVER in {}: set_config ran as postgres", owned.database)));
    }
}

#[test]
fn a_stranger_behind_a_pooler_that_drops_options_is_not_run() {
    use crate::support::pooler::Pooler;
    let owned = Owned::new(server(18));
    owned.as_owner(&format!("{HOSTILE}; ALTER DATABASE {} {FIRST}", owned.database));
    for ignored in ["", "ignore_startup_parameters = extra_float_digits,options"] {
        let pooler = Pooler::start(owned.server, "session", 20, ignored);
        let (scenario, names) = owned.scenario(&pooler.url(&owned.database));
        for name in names {
            scenario.run(&["run-job", name, "--yes"]).succeeded();
        }
        owned.nobody_was_taken_over();
    }
}

#[test]
fn a_stranger_who_made_the_ledger_s_schema_with_a_trigger_on_runs_is_refused_and_named() {
    for major in VERSIONS {
        let server = server(major);
        // Made by pgtend, then taken over by him: the schema his, or only a trigger.
        let owned = Owned::new(server);
        owned.as_owner(
            "CREATE SCHEMA pgtend; CREATE TABLE pgtend.runs (id int);
             CREATE FUNCTION pgtend.trap() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE LOG 'TAKEN OVER in %: a trigger', current_database(); RETURN new; END $$;
             CREATE TRIGGER trap BEFORE INSERT ON pgtend.runs FOR EACH ROW EXECUTE FUNCTION pgtend.trap()",
        );
        let (scenario, _) = owned.scenario(&server.url(&owned.database));
        let whose = format!("schema pgtend is not pgtend's own (it belongs to {})", owned.owner);
        scenario.run(&["run-job", "sql"]).exited(78).says(&[&whose]);
        scenario.run(&["runs"]).exited(78).says(&[&whose]);
        server.sql(&owned.database, "ALTER SCHEMA pgtend OWNER TO postgres");
        scenario.run(&["run-job", "sql"]).exited(78).says(&["table pgtend.runs", &owned.owner, "OWNER TO postgres"]);
        server.sql(&owned.database, "ALTER TABLE pgtend.runs OWNER TO postgres");
        scenario.run(&["run-job", "sql"]).exited(78).says(&["function pgtend.trap()", &owned.owner]);
        server.sql(&owned.database, "DROP SCHEMA pgtend CASCADE");

        scenario.run(&["run-job", "sql"]).succeeded();
        for (made, says) in [
            (
                "CREATE TRIGGER trap BEFORE UPDATE ON pgtend.runs FOR EACH ROW EXECUTE FUNCTION public.trap()",
                "trigger trap on pgtend.runs",
            ),
            ("CREATE RULE trap AS ON DELETE TO pgtend.schedules DO ALSO SELECT public.trap()", "rule trap on pgtend.schedules"),
            ("CREATE POLICY trap ON pgtend.runs USING (public.trap() IS NULL)", "policy trap on pgtend.runs"),
            ("ALTER TABLE pgtend.runs ADD CONSTRAINT trap CHECK (public.trap() IS NULL) NOT VALID", "CHECK trap of pgtend.runs"),
            (
                "ALTER TABLE pgtend.runs ALTER COLUMN retries SET DEFAULT public.trap()",
                "default of column retries of pgtend.runs",
            ),
        ] {
            let function = if made.contains("TRIGGER") { "trigger" } else { "int" };
            owned.as_owner(&format!(
                "CREATE FUNCTION public.trap() RETURNS {function} LANGUAGE plpgsql AS
                 $$ BEGIN RAISE LOG 'TAKEN OVER in %: trap', current_database(); RETURN NULL; END $$"
            ));
            server.sql(&owned.database, made);
            scenario.run(&["run-job", "sql"]).exited(78).says(&[says, "is not pgtend's own"]);
            server.sql(
                &owned.database,
                "DROP FUNCTION public.trap() CASCADE;
                 ALTER TABLE pgtend.runs ALTER COLUMN retries SET DEFAULT 0",
            );
        }
        for (made, says, unmade) in [
            (
                "ALTER TABLE pgtend.runs ADD CONSTRAINT trap CHECK (query_to_xml(job, true, true, '') IS NOT NULL) NOT VALID",
                "CHECK trap of pgtend.runs",
                "ALTER TABLE pgtend.runs DROP CONSTRAINT trap",
            ),
            (
                "CREATE TABLE public.child (id bigint REFERENCES pgtend.runs ON DELETE CASCADE)",
                "foreign key child_id_fkey of public.child",
                "DROP TABLE public.child",
            ),
            ("CREATE TABLE public.child () INHERITS (pgtend.runs)", "table public.child", "DROP TABLE public.child"),
        ] {
            server.sql(&owned.database, made);
            scenario.run(&["run-job", "sql"]).exited(78).says(&[says, "is not pgtend's own"]);
            server.sql(&owned.database, unmade);
        }
        scenario.run(&["run-job", "sql"]).succeeded();
        // Who logs in as somebody else meets a ledger that is neither his nor a superuser's.
        server.sql(&owned.database, &format!("ALTER TABLE pgtend.runs OWNER TO {}", owned.owner));
        scenario.run(&["run-job", "sql"]).exited(78).says(&["table pgtend.runs", &owned.owner]);
        owned.nobody_was_taken_over();
    }
}

/// The exit code of psql with one statement, as this role.
fn psql_code(server: &Server, database: &str, role: &str) -> Option<i32> {
    server.tool_without_options("psql", database).args(["-U", role, "-Xc", "SELECT 1"]).output().unwrap().status.code()
}

#[test]
fn a_stranger_who_asks_for_a_library_that_does_not_exist_keeps_nobody_out() {
    for major in VERSIONS {
        let owned = Owned::new(server(major));
        owned.as_owner(&format!("ALTER DATABASE {} SET local_preload_libraries = 'nosuch'", owned.database));
        assert_eq!(psql_code(owned.server, &owned.database, "postgres"), Some(2), "others are kept out");
        owned.all_works(&owned.server.url(&owned.database));
    }
}

#[test]
fn a_trigger_that_leaves_a_search_path_behind_runs_nothing_in_what_comes_after_it() {
    for major in VERSIONS {
        let owned = Owned::new(server(major));
        owned.as_owner(&format!(
            "{HOSTILE};
             CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_catalog.set_config('search_path', 'hostile, public, pg_catalog', false); RETURN coalesce(new, old); END $$;
             CREATE TRIGGER leave BEFORE DELETE OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION leave();
             CREATE TRIGGER leave BEFORE DELETE ON p_default FOR EACH ROW EXECUTE FUNCTION leave()"
        ));
        owned.all_works(&owned.server.url(&owned.database));
        owned.nobody_was_taken_over();
    }
}

#[test]
fn triggers_conditions_and_statements_of_the_user_find_names_as_without_us() {
    for major in VERSIONS {
        let server = server(major);
        let database = server.trusted_database();
        server.sql(
            &database,
            &format!(
                "CREATE SCHEMA app; ALTER DATABASE {database} SET search_path = app; SET search_path = app;
                 CREATE TABLE t (id int, at timestamptz DEFAULT now() - interval '1 year'); INSERT INTO t SELECT generate_series(1, 10);
                 CREATE TABLE gone (id int);
                 CREATE FUNCTION is_even(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 % 2 = 0';
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO gone VALUES (old.id); RETURN old; END $$;
                 CREATE TRIGGER note BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()"
            ),
        );
        let retention = "database = \"app\"\n[retention]\ntable = \"app.t\"\ncolumn = \"at\"\nolder_than = \"90d\"\nwhere = \"is_even(id)\"\n";
        let scenario = Scenario::with_database(server, &database)
            .job("plain", retention)
            .job("archived", &format!("{retention}archive = \"local\"\n").replace("is_even(id)", "NOT is_even(id)"))
            .sql_job(
                "sql",
                "",
                &["INSERT INTO gone VALUES (100)", "DO $$ BEGIN ASSERT current_setting('search_path') = 'app'; END $$"],
            );
        for job in ["plain", "archived", "sql"] {
            scenario.run(&["run-job", job, "--dry-run", "--yes"]).succeeded();
            scenario.run(&["run-job", job, "--yes"]).succeeded();
        }
        assert_eq!(server.sql(&database, "SELECT count(*), sum(id) FROM app.gone"), "11|155");
        assert_eq!(server.sql(&database, "SELECT count(*) FROM app.t"), "0");
    }
}

#[test]
fn the_role_that_the_configuration_names_is_taken_and_an_owner_chooses_none() {
    for major in VERSIONS {
        let server = server(major);
        let database = server.trusted_database();
        let (login, owner) = (format!("{database}_login"), format!("{database}_owner"));
        server.sql(
            &database,
            &format!(
                "CREATE ROLE {owner}; CREATE ROLE \"{login} of\\ us\" LOGIN SUPERUSER; CREATE TABLE who (name text);
                 GRANT INSERT ON who TO PUBLIC; ALTER DATABASE {database} SET role = {owner}"
            ),
        );
        let url = server.url_as(&format!("{login} of\\ us"), &database);
        let statement = "INSERT INTO public.who SELECT CURRENT_USER";
        let scenario = || Scenario::empty().sql_job("who", "", &[statement]);
        let who = || server.sql(&database, "SET ROLE none; SELECT string_agg(name, ',') FROM who; TRUNCATE who");
        let plain = format!("[databases.app]\nurl = {}\n", quoted(&url));
        scenario().config(&plain).run(&["run-job", "who"]).succeeded();
        assert_eq!(who(), format!("{login} of\\ us"));
        scenario().config(&format!("{plain}role = '{owner}'\n")).run(&["run-job", "who"]).succeeded();
        assert_eq!(who(), owner);
        // His own, or an administrator's: people rely on it.
        server.sql("postgres", &format!("ALTER ROLE \"{login} of\\ us\" SET role = {owner}"));
        scenario()
            .config(&plain)
            .run(&["run-job", "who"])
            .succeeded()
            .says(&[&format!("sessions run as {owner}, by ALTER ROLE")]);
        assert_eq!(who(), owner);
        scenario().config(&format!("{plain}role = 'nosuch'\n")).run(&["run-job", "who"]).exited(1).says(&["nosuch"]);
    }
}

#[test]
fn what_a_url_has_for_options_is_kept_but_for_what_the_contract_says() {
    let server = server(18);
    let database = server.trusted_database();
    let options = "options=-c%20work_mem%3D7MB%20-c%20statement_timeout%3D1%20-c%20search_path%3Dhostile";
    let url = format!("{}?{options}", server.url(&database));
    let asks = "DO $$ BEGIN ASSERT current_setting('work_mem') = '7MB' AND current_setting('search_path') = 'hostile'; PERFORM pg_sleep(0.1); END $$";
    Scenario::with_url(server, &url).sql_job("sql", "", &[asks]).ledger().run(&["run-job", "sql"]).succeeded();
    let url = format!("{}?options=-c%20a.b%3D{}", server.url(&database), "x".repeat(5000));
    Scenario::with_url(server, &url).sql_job("sql", "", &[asks]).run(&["check"]).exited(78).says(&["more than 4096 bytes"]);
}

/// Settings of context `user` that a session of ours takes as it finds them, each with the reason.
const HARMLESS: &[(&str, &str)] = &[
    ("application_name", "a name; the startup packet has one"),
    ("client_encoding", "the startup packet has UTF8"),
    ("client_connection_check_interval", "set by a statement of its own, which may fail"),
    ("transaction_isolation", "of one transaction: default_transaction_isolation begins each"),
    ("transaction_read_only", "of one transaction: default_transaction_read_only begins each"),
    ("transaction_deferrable", "of one transaction: default_transaction_deferrable begins each"),
    ("synchronous_commit", "what deletes does not go without; else the server's wish"),
    ("default_text_search_config", "no statement of ours searches text; a restore takes the source's"),
    ("lc_monetary", "money in dumps and archives reads as the database's own tools expect it, or stock tools would misread it"),
    (
        "lc_numeric",
        "only of to_char and to_number with a locale's signs, which no statement of ours has; a restore takes the source's",
    ),
    ("lc_time", "only of to_char with translated names, which no statement of ours has; a restore takes the source's"),
    ("backslash_quote", "no literal of ours has a backslash before a quote"),
    ("escape_string_warning", "a warning about literals that we do not write"),
    ("password_encryption", "no statement of ours sets a password"),
    ("scram_iterations", "no statement of ours sets a password"),
    ("md5_password_warnings", "no statement of ours sets a password"),
    ("synchronize_seqscans", "no statement of ours relies on an order that it does not ask for"),
    ("stats_fetch_consistency", "how numbers of activity are cached within a transaction"),
    ("log_parameter_max_length_on_error", "a message's CONTEXT, which is shown to nobody"),
    ("debug_pretty_print", "the server's log"),
    ("debug_print_parse", "the server's log"),
    ("debug_print_plan", "the server's log"),
    ("debug_print_rewritten", "the server's log"),
    ("trace_notify", "the server's log"),
    ("trace_sort", "the server's log"),
    ("wal_sender_timeout", "of replication"),
    ("logical_decoding_work_mem", "of replication"),
    ("debug_logical_replication_streaming", "of replication"),
    ("backend_flush_after", "when written pages go to disk"),
    ("commit_siblings", "when commits wait for each other"),
    ("wal_skip_threshold", "how a new file gets to disk"),
    ("file_copy_method", "how a new database's files are copied"),
    ("effective_io_concurrency", "how much is read ahead"),
    ("maintenance_io_concurrency", "how much is read ahead"),
    ("io_combine_limit", "how much is read at once"),
    ("work_mem", "memory, which a role may have for itself on purpose"),
    ("hash_mem_multiplier", "memory, the same"),
    ("maintenance_work_mem", "memory, the same; tasks that build say how much"),
    ("temp_buffers", "memory, the same"),
    ("gin_pending_list_limit", "memory, the same"),
    ("vacuum_buffer_usage_limit", "memory, the same"),
    ("max_parallel_maintenance_workers", "processes, which a role may have for itself on purpose"),
    ("max_parallel_workers", "processes, the same"),
    ("max_parallel_workers_per_gather", "processes, the same"),
    ("default_statistics_target", "how exact ANALYZE is"),
    ("vacuum_cost_delay", "how fast VACUUM is; tasks say their own"),
    ("vacuum_cost_limit", "how fast VACUUM is"),
    ("vacuum_cost_page_dirty", "how fast VACUUM is"),
    ("vacuum_cost_page_hit", "how fast VACUUM is"),
    ("vacuum_cost_page_miss", "how fast VACUUM is"),
    ("vacuum_failsafe_age", "what VACUUM does beside"),
    ("vacuum_freeze_min_age", "what VACUUM does beside"),
    ("vacuum_freeze_table_age", "what VACUUM does beside"),
    ("vacuum_max_eager_freeze_failure_rate", "what VACUUM does beside"),
    ("vacuum_multixact_failsafe_age", "what VACUUM does beside"),
    ("vacuum_multixact_freeze_min_age", "what VACUUM does beside"),
    ("vacuum_multixact_freeze_table_age", "what VACUUM does beside"),
    ("vacuum_truncate", "what VACUUM does beside"),
    ("cpu_index_tuple_cost", "plans"),
    ("cpu_operator_cost", "plans"),
    ("cpu_tuple_cost", "plans"),
    ("cursor_tuple_fraction", "plans"),
    ("effective_cache_size", "plans"),
    ("from_collapse_limit", "plans"),
    ("join_collapse_limit", "plans"),
    ("geqo", "plans"),
    ("geqo_effort", "plans"),
    ("geqo_generations", "plans"),
    ("geqo_pool_size", "plans"),
    ("geqo_seed", "plans"),
    ("geqo_selection_bias", "plans"),
    ("geqo_threshold", "plans"),
    ("jit_above_cost", "plans"),
    ("jit_expressions", "plans"),
    ("jit_inline_above_cost", "plans"),
    ("jit_optimize_above_cost", "plans"),
    ("jit_tuple_deforming", "plans"),
    ("min_parallel_index_scan_size", "plans"),
    ("min_parallel_table_scan_size", "plans"),
    ("parallel_leader_participation", "plans"),
    ("parallel_setup_cost", "plans"),
    ("parallel_tuple_cost", "plans"),
    ("random_page_cost", "plans"),
    ("seq_page_cost", "plans"),
    ("recursive_worktable_factor", "plans"),
];

#[test]
fn every_setting_that_a_user_may_choose_is_pinned_or_harmless_with_a_reason() {
    let rights = program::Rights { messages: true, replication_role: true, event_triggers: true };
    for major in MAJORS {
        let server = server(major);
        let version_num = server.sql("postgres", "SELECT current_setting('server_version_num')").parse().unwrap();
        let statements = program::statements(program::Purpose::Own, false, true, version_num, rights);
        let pinned: BTreeSet<String> =
            statements.split("; ").map(|set| set.split(' ').nth(1).unwrap().to_ascii_lowercase()).collect();
        let harmless: BTreeSet<String> = HARMLESS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let both: Vec<_> = pinned.intersection(&harmless).collect();
        assert!(both.is_empty(), "both: {both:?}");
        let listed = server.sql("postgres", "SELECT lower(name) FROM pg_settings WHERE context = 'user' AND name NOT LIKE '%.%'");
        let unknown: Vec<&str> = listed.lines().filter(|name| !pinned.contains(*name) && !harmless.contains(*name)).collect();
        assert!(unknown.is_empty(), "PostgreSQL {major} has settings that nobody thought of: {unknown:?}");
        // The server takes all of them, as the contract writes them.
        server.sql("postgres", &statements);
    }
}

/// A value for each setting of context `user` that is as different from the default as it may be.
fn poison(server: &Server) -> Vec<(String, String)> {
    let rows = server.sql(
        "postgres",
        "SELECT name, vartype, boot_val, min_val, max_val, array_to_string(enumvals, ',') FROM pg_settings
         WHERE context = 'user' AND name NOT LIKE '%.%' AND name !~ '^(transaction_|debug_print|trace_|application_name)' ORDER BY 1",
    );
    let mut poison = Vec::new();
    for row in rows.lines() {
        let [name, kind, boot, least, most, choices] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let value = match (name, kind) {
            ("search_path", _) => "hostile, public, pg_catalog",
            ("DateStyle", _) => "'SQL, DMY'",
            ("TimeZone", _) => "'Asia/Kathmandu'",
            ("client_encoding", _) => "'LATIN1'",
            ("local_preload_libraries" | "default_tablespace" | "temp_tablespaces", _) => "'nosuch'",
            ("default_text_search_config", _) => "'pg_catalog.german'",
            ("restrict_nonsystem_relation_kind", _) => "'view, foreign-table'",
            ("createrole_self_grant", _) => "'set, inherit'",
            ("lc_monetary" | "lc_numeric" | "lc_time", _) => "'C.UTF-8'",
            (_, "string") => continue,
            (_, "bool") => ["on", "off"][usize::from(boot == "on")],
            (_, "enum") => choices.split(',').find(|choice| *choice != boot).unwrap_or(boot),
            _ if name.ends_with("_timeout") => "1",
            _ if boot == least => most,
            _ => least,
        };
        poison.push((name.to_owned(), value.to_owned()));
    }
    poison
}

#[test]
fn with_every_setting_of_database_and_role_against_us_every_task_works() {
    // Each level on the newest, and one of them on the others: a minute each.
    for (major, levels) in [(14, &["database"][..]), (16, &["role"][..]), (18, &["database", "role", "role in database"][..])] {
        let server = server(major);
        for &level in levels {
            let owned = Owned::new(server);
            owned.as_owner(HOSTILE);
            let login = format!("login_{}", owned.database);
            let mut sql = format!("CREATE ROLE {login} LOGIN SUPERUSER");
            let target = match level {
                "database" => format!("DATABASE {}", owned.database),
                "role" => format!("ROLE {login}"),
                _ => format!("ROLE {login} IN DATABASE {}", owned.database),
            };
            for (name, value) in poison(server) {
                sql += &format!(";\nALTER {target} SET {name} = {value}");
            }
            server.sql("postgres", &sql);
            assert_ne!(psql_code(server, &owned.database, &login), Some(0), "{level} on {major}");
            eprintln!("PostgreSQL {major}, by {level}");
            owned.all_works(&server.url_as(&login, &owned.database));
            owned.nobody_was_taken_over();
        }
    }
}
