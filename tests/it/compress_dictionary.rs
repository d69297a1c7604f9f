//! Dictionaries: values are compressed with what they have in common, and read by everybody as before.

use std::fmt::Write as _;

use crate::compress::facts;
use crate::support::postgres::{Server, server};
use crate::support::scripts::{self, BODY, HASHES, Scripts, TABLE, load, of_5_kb};
use crate::support::{Scenario, eventually};

fn job(more: &str) -> String {
    scripts::job(&format!("dictionary = true\n{more}"))
}

fn scenario(server: &Server, database: &str, more: &str) -> Scenario {
    Scenario::with_database(server, database).job("scripts", &job(more))
}

/// How many values have which form: gzip, and with a dictionary.
const FORMS: &str = "SELECT count(*) FILTER (WHERE get_byte(content_gz, 0) = 31), count(*) FILTER (WHERE get_byte(content_gz, 0) = 1) FROM scripts_stored";
/// The functions with dictionaries.
const DICTIONARIES: &str = "SELECT proname FROM pg_proc WHERE proname LIKE 'pgtend\\_dictionary%' ORDER BY proname";

fn dictionary_of(report: &serde_json::Value) -> &str {
    facts(report)["dictionary"].as_str().unwrap_or_else(|| panic!("{report:#}"))
}

/// Prose about this noun, in values of some 4 kB: other words than those of scripts.
fn prose(noun: &str, count: usize) -> Vec<String> {
    prose_from(noun, 0, count)
}

/// The same, without the first ones.
fn prose_from(noun: &str, first: usize, count: usize) -> Vec<String> {
    let value = |value: usize| {
        let mut text = String::new();
        for line in 0..45 {
            let number = (value * 7_919 + line * 104_729) % 99_991;
            writeln!(
                text,
                "The {noun} with number {number} was delivered to the customer in district {}, who did not complain.",
                number % 613
            )
            .unwrap();
        }
        text
    };
    (first..first + count).map(value).collect()
}

#[test]
fn values_share_a_dictionary_and_everybody_reads_them_as_before_on_15_and_18() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 300);
        let reader = format!("reader_{database}");
        server.sql(&database, &format!("CREATE ROLE {reader}; GRANT SELECT ON scripts TO {reader}"));
        let hashes = server.sql(&database, HASHES);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!((dictionary_of(&report), facts(&report)["rows_compressed"].as_u64()), ("new", Some(300)), "{report:#}");
        assert_eq!(server.sql(&database, FORMS), "0|300");
        let name = server.sql(&database, DICTIONARIES);
        assert_eq!(name.lines().count(), 1, "{name}");
        assert_eq!(server.sql(&database, HASHES), hashes);
        // Readers have a right to the view only.
        server.sql(&database, &format!("REVOKE ALL ON scripts_stored FROM {reader}"));
        assert_eq!(
            server.sql(&database, &format!("SET ROLE {reader}; {HASHES}")),
            format!("SET\n{hashes}").trim_start_matches("SET\n")
        );

        // It is text of the table, and not in the catalog, which everybody reads, nor in a dump of the schema.
        let dump = server.tool("pg_dump", &database).arg("--schema-only").output().unwrap();
        let dump = String::from_utf8(dump.stdout).unwrap();
        assert!(dump.contains(&name) && !dump.contains("ErrorAction"), "{dump}");
        let key = "substring(content_gz FROM octet_length(content_gz) - 19 FOR 16)";
        let shows = |key: &str| {
            let text = format!("encode({name}({key}), 'escape')");
            server.sql(&database, &format!("SELECT strpos({text}, 'ErrorAction Stop') > 0 FROM scripts_stored WHERE id = 1"))
        };
        assert_eq!((shows(key).as_str(), shows(&format!("substring({key} FROM 2) || 'x'")).as_str()), ("t", "f"));

        // The next run goes on with it.
        load(server, &database, &prose("first", 3));
        let hashes = server.sql(&database, HASHES);
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!((dictionary_of(&report), facts(&report)["rows_compressed"].as_u64()), ("present", Some(3)), "{report:#}");
        assert_eq!((server.sql(&database, DICTIONARIES), server.sql(&database, FORMS)), (name, "0|303".to_owned()));
        assert_eq!(server.sql(&database, HASHES), hashes);
        scenario.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        assert_eq!(server.sql(&database, "SELECT count(*) FROM pg_proc WHERE proname LIKE '%pgtend%'"), "0");
        server.sql(&database, &format!("DROP OWNED BY {reader}; DROP ROLE {reader}"));
    }
}

#[test]
fn a_value_that_is_cut_or_changed_is_an_error_and_never_another_text_on_15_and_18() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 300);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        let found = server.sql(
            &database,
            "CREATE FUNCTION tried(gz bytea, hash bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 RETURN CASE WHEN sha256(convert_to(scripts_pgtend_gunzip(gz, hash, 'UTF8'), 'UTF8')) = hash THEN 'same' ELSE 'wrong' END;
             EXCEPTION WHEN data_corrupted OR undefined_function THEN RETURN 'refused'; WHEN OTHERS THEN RETURN 'refused: ' || SQLSTATE || SQLERRM; END $$;
             SELECT what, result FROM (
                 SELECT 'cut' AS what, tried(substring(content_gz FOR n * length(content_gz) / 20), content_sha256) AS result
                 FROM scripts_stored, generate_series(0, 19) n WHERE id <= 5
                 UNION ALL SELECT 'longer', tried(content_gz || 'x', content_sha256) FROM scripts_stored WHERE id <= 5
                 UNION ALL SELECT 'whole', tried(content_gz, content_sha256) FROM scripts_stored WHERE id <= 5
                 UNION ALL SELECT 'flipped', tried(set_bit(content_gz, bit, 1 - get_bit(content_gz, bit)), content_sha256)
                 FROM (SELECT *, (n::bigint * 7919 % (length(content_gz) * 8)) AS bit FROM scripts_stored, generate_series(1, 40) n WHERE id <= 5) s) t
             GROUP BY 1, 2 ORDER BY 1, 2",
        );
        assert_eq!(found, "cut|refused\nflipped|refused\nlonger|refused\nwhole|same", "on {major}");
    }
}

/// A reader chooses which function is called in the owner's name.
#[test]
fn a_function_of_another_role_is_never_called_as_a_dictionary() {
    let server = server(18);
    let database = of_5_kb(server, 19);
    let stranger = format!("stranger_{database}");
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    let key = "decode('00112233445566778899aabbccddeeff', 'hex')";
    let name = server.sql(&database, &format!("SELECT 'pgtend_dictionary_' || left(encode(sha256({key}), 'hex'), 16)"));
    server.sql(
        &database,
        &format!(
            "CREATE TABLE called (by name); CREATE ROLE {stranger}; GRANT CREATE ON SCHEMA public TO {stranger}; SET ROLE {stranger};
             CREATE FUNCTION {name}(bytea) RETURNS bytea LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''called by %'', current_user; END'"
        ),
    );
    let forged = format!("decode('01', 'hex') || decode('030000000000', 'hex') || {key} || decode('00000000', 'hex')");
    let error = server
        .psql(&database, &format!("SET ROLE {stranger}; SELECT scripts_pgtend_gunzip({forged}, sha256(''), 'UTF8')"))
        .unwrap_err();
    assert!(error.contains("the dictionary of this text is missing") && !error.contains("called by"), "{error}");
    server.sql(&database, &format!("DROP OWNED BY {stranger}; DROP ROLE {stranger}"));
}

#[test]
fn a_dump_with_an_index_and_a_materialized_view_over_such_values_restores_with_stock_tools() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 300);
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        scenario.run(&["run-job", "scripts"]).succeeded();
        server.sql(
            &database,
            "CREATE INDEX by_text ON scripts_stored (md5(coalesce(content, scripts_pgtend_gunzip(content_gz, content_sha256, 'UTF8'))));
             CREATE MATERIALIZED VIEW sizes AS SELECT id, md5(content) AS hash FROM scripts",
        );
        let dump = server.tool("pg_dump", &database).output().unwrap();
        let restored = server.empty_database();
        server.sql(&restored, &String::from_utf8(dump.stdout).unwrap());
        assert_eq!(server.sql(&restored, HASHES), server.sql(&database, HASHES));
        assert_eq!(server.sql(&restored, FORMS), "0|300");
        let found = "SET enable_seqscan = off; SELECT count(*) FROM sizes m WHERE EXISTS (SELECT FROM scripts_stored s
            WHERE md5(coalesce(s.content, scripts_pgtend_gunzip(s.content_gz, s.content_sha256, 'UTF8'))) = m.hash)";
        assert!(server.sql(&restored, found).ends_with("300"));
        // It is as good as the source: a run goes on with the same dictionary, and undo finds the way back.
        let of_restored = Scenario::with_database(server, &restored).job("scripts", &job(""));
        server.sql(
            &restored,
            "DROP INDEX by_text; DROP MATERIALIZED VIEW sizes; UPDATE scripts SET content = content || ' changed' WHERE id < 9",
        );
        let hashes = server.sql(&restored, HASHES);
        assert_eq!(dictionary_of(&of_restored.json(&["run-job", "scripts"])), "present");
        of_restored.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded();
        assert_eq!(server.sql(&restored, HASHES), hashes);
        assert_eq!(server.sql(&restored, DICTIONARIES), "");
    }
}

#[test]
fn a_missing_dictionary_is_named_to_readers_runs_and_undo_and_holds_up_no_other_value() {
    let server = server(18);
    let database = of_5_kb(server, 300);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    server.sql(&database, &format!("UPDATE scripts SET content = {} WHERE id IN (10, 20)", BODY.replace("i *", "id *")));
    let hashes = server.sql(&database, HASHES);
    let name = server.sql(&database, DICTIONARIES);
    let made = server.sql(&database, &format!("SELECT pg_get_functiondef('{name}'::regproc)"));
    server.sql(&database, &format!("DROP FUNCTION {name}(bytea)"));
    let error = server.psql(&database, "SELECT content FROM scripts WHERE id = 1").unwrap_err();
    assert!(error.contains("the dictionary of this text is missing") && error.contains(&name), "{error}");
    assert_eq!(server.sql(&database, "SELECT length(content) > 0 FROM scripts WHERE id = 10"), "t");
    scenario.run(&["run-job", "scripts"]).exited(1).says(&["cannot be read", &name]);
    scenario.run(&["compress", "undo", "scripts"]).exited(1).says(&[
        "298 cannot become text",
        "its dictionary is missing",
        &name,
    ]);
    assert_eq!(server.sql(&database, "SELECT count(content) FROM scripts_stored"), "2");
    // One of that name with other contents is none.
    server.sql(&database, &made.replace("decode('", "decode('AAAA"));
    let error = server.psql(&database, "SELECT content FROM scripts WHERE id = 1").unwrap_err();
    assert!(!error.contains("missing"), "{error}");
    scenario.run(&["compress", "undo", "scripts"]).exited(1).says(&["its dictionary is missing"]);
    server.sql(&database, &made);
    assert_eq!(server.sql(&database, HASHES), hashes);
    scenario.run(&["run-job", "scripts"]).succeeded();
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
}

/// Puts the functions of the first release in the place of those that are installed: they knew no dictionaries.
fn with_functions_of_the_first_release(server: &Server, database: &str) {
    let define = "DO $do$ BEGIN EXECUTE replace(pg_get_functiondef('scripts_pgtend_gunzip'::regproc), 'get_byte(input, 0) = 1', 'false'); END $do$";
    server.sql(database, define);
}

#[test]
fn values_and_functions_of_the_first_release_are_read_and_the_next_run_brings_the_functions_up_to_date() {
    for major in [15, 18] {
        let server = server(major);
        let database = of_5_kb(server, 20);
        let writer = format!("writer_{database}");
        let scenario = scenario(server, &database, "");
        scenario.run(&["compress", "install", "scripts"]).succeeded();
        assert_eq!(dictionary_of(&scenario.json(&["run-job", "scripts"])), "none", "so few values have no dictionary");
        assert_eq!(server.sql(&database, FORMS), "20|0");
        load(server, &database, &prose("second", 600));
        let hashes = server.sql(&database, HASHES);
        // A role that may only write the rows leaves the functions as they are, and says so.
        with_functions_of_the_first_release(server, &database);
        server.sql(&database, &format!("CREATE ROLE {writer} LOGIN; GRANT ALL ON scripts, scripts_stored TO {writer}; UPDATE scripts_stored SET content = content || ' ' WHERE id > 500"));
        let as_writer = Scenario::with_url(server, &server.url_as(&writer, &database))
            .job("scripts", &job("larger_than = '4KB'").replace("larger_than = '2KB'\n", ""));
        as_writer.run(&["run-job", "scripts"]).succeeded().says(&["without a dictionary", "pgtend compress install scripts"]);
        assert!(server.sql(&database, FORMS).ends_with("|0"));
        let hashes_now = server.sql(&database, HASHES);
        assert_ne!(hashes_now, hashes);
        let mut scripts = Scripts::new();
        load(server, &database, &(0..300).map(|_| scripts.script(5_000)).collect::<Vec<_>>());
        let hashes = server.sql(&database, HASHES);
        let report = scenario.json(&["run-job", "scripts"]);
        assert_eq!(dictionary_of(&report), "new", "{report:#}");
        assert!(!server.sql(&database, FORMS).starts_with("0|") && !server.sql(&database, FORMS).ends_with("|0"));
        assert_eq!(server.sql(&database, HASHES), hashes, "both forms");
        assert_eq!(server.sql(&database, "SELECT prosecdef FROM pg_proc WHERE proname = 'scripts_pgtend_gunzip'"), "t");
        scenario.run(&["compress", "undo", "scripts"]).succeeded();
        assert_eq!(server.sql(&database, HASHES), hashes);
        server.sql(&database, &format!("DROP OWNED BY {writer}; DROP ROLE {writer}"));
    }
}

#[test]
fn other_values_get_another_dictionary_and_the_first_one_stays_as_long_as_it_is_named() {
    let server = server(18);
    let database = of_5_kb(server, 300);
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let first = server.sql(&database, DICTIONARIES);
    load(server, &database, &prose("parcel", 800));
    let hashes = server.sql(&database, HASHES);
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(dictionary_of(&report), "new", "{report:#}");
    let both = server.sql(&database, DICTIONARIES);
    assert!(both.lines().count() == 2 && both.contains(&first), "{both}");
    assert_eq!(server.sql(&database, HASHES), hashes);
    // As before: none is learned again. Another noun would be another text: a dictionary with it would save 47 to 50 kB more (as the rows
    // lie), and one takes 50 kB.
    load(server, &database, &prose_from("parcel", 800, 800));
    let report = scenario.json(&["run-job", "scripts"]);
    assert_eq!(dictionary_of(&report), "present", "{report:#}");
    assert_eq!(server.sql(&database, DICTIONARIES), both);
    let hashes = server.sql(&database, HASHES);
    scenario.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
    assert_eq!(server.sql(&database, DICTIONARIES), "");
}

#[test]
fn a_run_that_is_killed_leaves_no_dictionary_that_no_value_names() {
    let server = server(18);
    let database = of_5_kb(server, 300);
    let hashes = server.sql(&database, HASHES);
    let scenario = scenario(server, &database, "[limits]\nbatch_time = '20ms'\npause = '60s'");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    // Once before the first batch is committed, once after it.
    server.sql(
        &database,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(600); RETURN NULL; END';
         CREATE TRIGGER waits AFTER UPDATE ON scripts_stored FOR EACH ROW EXECUTE FUNCTION wait(); ALTER TABLE scripts_stored ENABLE ALWAYS TRIGGER waits",
    );
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    let running = scenario.start(&["run-job", "scripts"]);
    eventually("it writes", || {
        server
            .sql(&database, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
            == "1"
    });
    running.kill();
    server.sql(
        &database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
    );
    eventually("its session is gone", || {
        server
            .sql(&database, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
            == "0"
    });
    assert_eq!(server.sql(&database, DICTIONARIES), "");
    server.sql(&database, "DROP TRIGGER waits ON scripts_stored");
    let mut running = scenario.start(&["run-job", "scripts"]);
    eventually("a batch is written", || {
        if !running.is_running() {
            running = scenario.start(&["run-job", "scripts"]);
        }
        server.sql(&database, "SELECT count(content_gz) > 0 FROM scripts_stored") == "t"
    });
    running.kill();
    let name = server.sql(&database, DICTIONARIES);
    assert_eq!(name.lines().count(), 1, "{name}");
    let scenario = scenario.job("scripts", &job(""));
    eventually("the lock of the killed run is free", || scenario.run(&["run-job", "scripts"]).code == Some(0));
    assert_eq!((server.sql(&database, DICTIONARIES), server.sql(&database, FORMS)), (name, "0|300".to_owned()));
    assert_eq!(server.sql(&database, HASHES), hashes);
    scenario.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded();
    assert_eq!(server.sql(&database, HASHES), hashes);
    assert_eq!(server.sql(&database, DICTIONARIES), "");
}

#[test]
fn dictionaries_stay_after_an_undo_where_archived_rows_may_need_them() {
    let server = server(18);
    let database = of_5_kb(server, 300);
    // The job names the database by another entry.
    let same = format!("[databases.same]\nurl = \"{}\"\n", server.url(&database));
    let scenario = scenario(server, &database, "").config(&same).job(
        "old",
        "database = 'same'\nenabled = false\n[retention]\ntable = 'scripts'\ncolumn = 'updated_at'\nolder_than = '900d'\n",
    );
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let name = server.sql(&database, DICTIONARIES);
    server.sql(&database, "CREATE TABLE archived AS SELECT * FROM scripts_stored WHERE id < 9; DELETE FROM scripts WHERE id < 9");
    scenario
        .run(&["compress", "undo", "scripts", "--drop-dictionaries", "--dry-run"])
        .succeeded()
        .prints(&["stay", "job old", &name]);
    scenario.run(&["compress", "undo", "scripts", "--drop-dictionaries"]).succeeded().says(&["stay", &name]);
    assert_eq!(server.sql(&database, DICTIONARIES), name);
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    server.sql(&database, "INSERT INTO scripts_stored (id, title, content, runs, updated_at, content_gz, content_sha256) SELECT id, title, content, runs, updated_at, content_gz, content_sha256 FROM archived");
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE length(content) > 4000 AND id < 9"), "8");
    scenario.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, "SELECT count(*) FROM scripts WHERE id < 9"), "8");
}

#[test]
fn a_table_that_is_moved_to_another_schema_keeps_its_dictionaries() {
    let server = server(18);
    let database = of_5_kb(server, 300);
    let hashes = server.sql(&database, HASHES);
    let first = scenario(server, &database, "");
    first.run(&["compress", "install", "scripts"]).succeeded();
    first.run(&["run-job", "scripts"]).succeeded();
    server.sql(
        &database,
        "CREATE SCHEMA \"Else\"; ALTER VIEW scripts SET SCHEMA \"Else\"; ALTER TABLE scripts_stored SET SCHEMA \"Else\"",
    );
    let hashes_there = format!("SET search_path = \"Else\"; {HASHES}");
    let moved =
        Scenario::with_database(server, &database).job("scripts", &job("").replace("'public.scripts'", "'\"Else\".scripts'"));
    moved.run(&["compress", "install", "scripts"]).succeeded();
    assert!(server.sql(&database, &hashes_there).ends_with(&hashes));
    server.sql(&database, "UPDATE \"Else\".scripts SET content = content || ' changed' WHERE id < 9");
    let hashes = server.sql(&database, &hashes_there);
    assert_eq!(dictionary_of(&moved.json(&["run-job", "scripts"])), "present");
    assert_eq!(server.sql(&database, &hashes_there), hashes);
    moved.run(&["compress", "undo", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, &hashes_there), hashes);
}

#[test]
fn rows_that_not_all_readers_may_see_have_no_dictionary_in_common() {
    let server = server(18);
    let database = of_5_kb(server, 300);
    server.sql(&database, "ALTER TABLE scripts ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON scripts USING (id % 2 = 0)");
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts", "--force"]).succeeded();
    assert_eq!(dictionary_of(&scenario.json(&["run-job", "scripts"])), "none");
    assert_eq!((server.sql(&database, FORMS), server.sql(&database, DICTIONARIES)), ("300|0".to_owned(), String::new()));
}

#[test]
fn a_dry_run_measures_what_a_dictionary_saves() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, TABLE);
    load(server, &database, &prose("parcel", 1200));
    let plan = scenario(server, &database, "").json(&["compress", "install", "scripts", "--dry-run"]);
    let text = plan.to_string();
    assert!(text.contains("gzip"), "{plan:#}");
    let few = server.new_database();
    server.sql(&few, TABLE);
    load(server, &few, &prose("parcel", 30));
    let of_few = scenario(server, &few, "").json(&["compress", "install", "scripts", "--dry-run"]);
    let bytes = |plan: &serde_json::Value| {
        plan["runs"][0]["plan"]["measured"]["gzip"]["bytes"].as_f64().unwrap()
            / plan["runs"][0]["plan"]["measured"]["bodies"].as_f64().unwrap()
    };
    assert!(bytes(&plan) < 0.9 * bytes(&of_few), "{plan:#} {of_few:#}");
}

#[test]
fn whoever_owns_the_schema_runs_nothing_as_the_owner_of_the_table() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("owner_{database}");
    server.sql(&database, TABLE);
    load(server, &database, &prose("first", 60));
    let scenario = Scenario::with_database(server, &database).job("scripts", &scripts::job(""));
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let hashes = server.sql(&database, HASHES);
    server.sql(&database, &format!("CREATE ROLE {owner}; ALTER SCHEMA public OWNER TO {owner}"));
    // The functions that an earlier release called by their names: nobody calls them now.
    let trap = |name: &str, arguments: &str, returns: &str| {
        format!(
            "CREATE FUNCTION public.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {owner} SUPERUSER'; RETURN NULL; END $$;"
        )
    };
    let traps = [("inflate", "gz bytea", "bytea"), ("huffman", "lengths int[]", "int[]"), ("own", "seen xid", "boolean")];
    let traps = traps.map(|(what, arguments, returns)| trap(&format!("scripts_pgtend_{what}"), arguments, returns));
    server.sql(&database, &format!("SET ROLE {owner}; {}", traps.concat()));
    assert_eq!(server.sql(&database, HASHES), hashes);
    server.sql(&database, "UPDATE scripts SET content = content || ' changed'");
    assert_eq!(server.sql("postgres", &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{owner}'")), "f");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    // Nor does an installation elsewhere leave to somebody a function that he made there before.
    let gunzip = trap("scripts_pgtend_gunzip", "gz bytea, hash bytea, encoding text", "text").replace("public.", "app.");
    server.sql(
        &database,
        &format!(
            "CREATE SCHEMA app; GRANT USAGE, CREATE ON SCHEMA app TO {owner}; SET ROLE {owner}; {gunzip} RESET ROLE;
             ALTER TABLE scripts_stored SET SCHEMA app; ALTER VIEW scripts SET SCHEMA app"
        ),
    );
    let moved =
        Scenario::with_database(server, &database).job("scripts", &scripts::job("").replace("public.scripts", "app.scripts"));
    moved.run(&["compress", "install", "scripts"]).exited(77).says(&["scripts_pgtend_gunzip", "belongs to another role"]);
    server.sql(&database, &format!("ALTER SCHEMA public OWNER TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"));
}

#[test]
fn an_installation_takes_no_dictionary_of_another_role_and_none_with_row_security() {
    let server = server(18);
    let database = server.new_database();
    let role = format!("other_{database}");
    server.sql(&database, TABLE);
    let mut texts = Scripts::new();
    load(server, &database, &(0..300).map(|_| texts.script(5_000)).collect::<Vec<_>>());
    let scenario = scenario(server, &database, "");
    scenario.run(&["compress", "install", "scripts"]).succeeded();
    scenario.run(&["run-job", "scripts"]).succeeded();
    let (hashes, name) = (server.sql(&database, HASHES), server.sql(&database, DICTIONARIES));
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {role}; CREATE SCHEMA aaa AUTHORIZATION {role}; SET ROLE {role};
             CREATE FUNCTION aaa.{name}(key bytea) RETURNS bytea LANGUAGE sql AS 'SELECT decode(''AAAA'', ''base64'')'; RESET ROLE;
             CREATE SCHEMA app; ALTER TABLE scripts_stored SET SCHEMA app; ALTER VIEW scripts SET SCHEMA app"
        ),
    );
    let moved = Scenario::with_database(server, &database).job("scripts", &job("").replace("public.scripts", "app.scripts"));
    moved.run(&["compress", "install", "scripts"]).succeeded();
    assert_eq!(server.sql(&database, &format!("SET search_path = app; {HASHES}")), hashes);
    server.sql(&database, "ALTER TABLE app.scripts_stored ENABLE ROW LEVEL SECURITY");
    moved.run(&["compress", "install", "scripts"]).exited(78).says(&["row security", "undo"]);
    server.sql(&database, &format!("DROP SCHEMA aaa CASCADE; DROP ROLE {role}"));
}
