//! Archived rows and dumps that a stranger put in the place of ours, in stores without a key.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use pgtend::archive::{Exported, Manifest, Source, head};
use pgtend::task::backup::manifest;
use sha2::{Digest as _, Sha256};

use crate::store_signed::{KEY, set_key, with_job};
use crate::support::Scenario;
use crate::support::postgres::server;
use crate::{partition, retention};

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// A batch in the folder of `app/JOB`, whose manifest fits its object, and says that it is of `database`.
fn forge(scenario: &Scenario, job: &str, database: &str, (schema, table): (&str, &str), columns: &[&str], rows: &str) {
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let source = Source { schema: schema.into(), table: table.into(), columns, queries: Vec::new(), steps: None };
    let mut manifest = Manifest::new(job, database, &source, "forged");
    let text = format!("{}{rows}\\.\n", head(&manifest));
    let object = gzip(&text);
    manifest.exported = Exported {
        rows: rows.lines().count() as u64,
        bytes: object.len() as u64,
        uncompressed_bytes: text.len() as u64,
        sha256: Sha256::digest(&object).iter().map(|byte| format!("{byte:02x}")).collect(),
        encryption: None,
    };
    let folder = scenario.path(&format!("store/app/{job}/archive"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("2026-11-28T12-00-00Z-0000000001.sql.gz"), object).unwrap();
    let manifest = serde_json::to_string_pretty(&manifest).unwrap();
    std::fs::write(folder.join("2026-11-28T12-00-00Z-0000000001.json"), manifest).unwrap();
}

#[test]
fn archived_rows_that_a_stranger_made_go_into_no_catalog() {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE ROLE climber_by_archive; CREATE TABLE public.t (x int)");
    let scenario = Scenario::with_database(server, &database);
    let columns = ["oid", "roleid", "member", "grantor", "admin_option", "inherit_option", "set_option"];
    let member = server.sql(&database, "SELECT 'climber_by_archive'::regrole::oid");
    let row = format!("987654\t10\t{member}\t10\tt\tt\tt\n");
    forge(&scenario, "logs", "app", ("pg_catalog", "pg_auth_members"), &columns, &row);
    scenario.run(&["archives", "restore"]).exited(77).says(&["pg_auth_members", "a schema of PostgreSQL's own"]);
    for table in ["pg_auth_members", "pg_catalog.pg_auth_members", "information_schema.sql_features", "pg_toast.pg_toast_1255"] {
        scenario.run(&["archives", "restore", "--into", table]).exited(77).says(&["a schema of PostgreSQL's own"]);
    }
    let gained = "SELECT pg_has_role('climber_by_archive', 'postgres', 'MEMBER')";
    assert_eq!(server.sql("postgres", gained), "f");
    scenario.run(&["archives", "restore", "--into", "nowhere"]).exited(78).says(&["there is no table nowhere"]);

    // A manifest that sends its rows to another database than its folder's.
    forge(&scenario, "logs", "other", ("public", "t"), &["x"], "1\n");
    scenario.run(&["archives", "list"]).succeeded().says(&["it is in the folder of another"]);
    scenario.run(&["archives", "restore"]).exited(1).says(&["it is in the folder of another"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "0");
    forge(&scenario, "logs", "app", ("public", "t"), &["x"], "1\n");
    scenario.run(&["archives", "restore"]).succeeded().prints(&["1 row put back"]);
}

#[test]
fn rows_go_back_where_an_owner_has_code_with_a_word_and_not_where_a_job_does_not_trust_it() {
    let server = server(18);
    let database = server.new_database();
    let owner = format!("owner_{database}");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}; CREATE TABLE t (x int);
             CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER climb BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION on_row()"
        ),
    );
    let retention = "database = 'app'\n[retention]\ntable = 'public.t'\ncolumn = 'x'\nolder_than = '10d'\n";
    let scenario = Scenario::with_database(server, &database).job("logs", retention);
    forge(&scenario, "logs", "app", ("public", "t"), &["x"], "1\n");
    scenario.run(&["archives", "restore"]).succeeded().says(&["trigger climb of public.t calls public.on_row", "a superuser"]);
    let scenario = scenario.job("logs", &format!("{retention}[limits]\ntrust_owners = false\n"));
    scenario.run(&["archives", "restore"]).exited(77).says(&["trigger climb of public.t", "trust_owners = false refuses that"]);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM t"), "1");
}

#[test]
fn of_an_archive_object_that_was_replaced_no_row_reaches_the_server() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    // A sequence remembers what was rolled back.
    server.sql(
        &database,
        "CREATE SEQUENCE seen;
         CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.seen'); RETURN NEW; END $$;
         CREATE TRIGGER seen BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION seen()",
    );
    let batch = scenario.json(&["archives", "list"])["batches"][0]["batch"].as_str().unwrap().to_owned();
    let object = scenario.path(&format!("store/{batch}.sql.gz"));
    let written = std::fs::read(&object).unwrap();
    let text = {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(&written[..]), &mut text).unwrap();
        text
    };
    for forged in
        [text.replacen("failed", "forged", 1), text.replace("\\.\n", &format!("{}\\.\n", "1\t\\N\tx\t\\N\n".repeat(1000)))]
    {
        std::fs::write(&object, gzip(&forged)).unwrap();
        scenario.run(&["archives", "restore"]).exited(1).says(&["differs from what was written"]);
        assert_eq!(server.sql(&database, "SELECT is_called FROM seen"), "f");
    }
    std::fs::write(&object, &written).unwrap();
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    assert_eq!(server.sql(&database, "SELECT last_value FROM seen"), "760");
    // A manifest of fewer rows than there are.
    let manifest = scenario.path(&format!("store/{batch}.json"));
    let counts = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, counts.replacen("\"rows\": 760", "\"rows\": 3", 1)).unwrap();
    scenario.run(&["archives", "restore", "--again"]).exited(1);
    assert_eq!(server.sql(&database, "SELECT count(*) FROM logs WHERE status <> 'without a time'"), "1000");
}

#[test]
fn a_dump_that_decodes_to_a_thousand_times_as_much_is_not_decoded_to_its_end() {
    let scenario = with_job(server(18), "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    let at = |object: &str| scenario.path(&format!("store/{set}/{object}"));
    let bomb = gzip(&"COPY a.b FROM stdin;\n\\.\n".repeat(1 << 20));
    std::fs::write(at("dump.sql.gz"), &bomb).unwrap();
    let written = manifest::from_json(&std::fs::read(at("manifest.json")).unwrap()).unwrap();
    // Lengths and tables fit, its hashes do not; and the same of the first release, without hashes of its parts.
    for (has_blocks, says) in [(true, "the first difference is in bytes 0 to "), (false, "it decodes to more than the")] {
        let mut manifest = written.clone();
        manifest.dump.bytes = bomb.len() as u64;
        let blocks = manifest.dump.blocks.as_ref().map(|blocks| blocks.block_bytes).unwrap();
        assert!(bomb.len() as u64 <= blocks, "one block: {}", bomb.len());
        manifest.dump.blocks = manifest.dump.blocks.filter(|_| has_blocks);
        std::fs::write(at("manifest.json"), manifest::to_json(&manifest).unwrap()).unwrap();
        let verified = scenario.run(&["backups", "verify", &set]).exited(1).says(&["is damaged", says]);
        assert!(!verified.stderr.contains("there are more tables than"), "{}", verified.stderr);
        scenario.run(&["backups", "restore", &set, "--into", &server(18).url(&server(18).empty_database())]).exited(1);
    }
}

/// A partition's owner writes its comment, and with it the mark that names where its rows are archived.
#[test]
fn a_mark_of_another_databases_archive_neither_hides_rows_nor_counts() {
    let server = server(18);
    let bank = retention::logs(server, 1000);
    let mallory = partition::old_logs(server, 6);
    let partitions = |more: &str| {
        format!(
            "database = 'mallory'\n[partition]\ntable = 'public.logs'\ncolumn = 'at'\nevery = 'month'\nretain = '92d'\n{more}\n"
        )
    };
    let scenario = retention::scenario(server, &bank, "archive = 'local'")
        .config(&format!("[databases.mallory]\nurl = '{}'\n", server.url(&mallory)))
        .job("parts", &partitions(""));
    set_key(&scenario, Some(KEY));
    scenario.run(&["run-job", "old-logs"]).succeeded();
    scenario.run(&["run-job", "parts"]).succeeded().prints(&["detached"]);
    let listed = |scenario: &Scenario| scenario.json(&["archives", "list", "--database", "app"])["batches"].clone();
    let key = format!("{}.sql.gz", listed(&scenario)[0]["batch"].as_str().unwrap());
    let marked = "FROM pg_description d WHERE d.description LIKE 'Retired from%'";
    let count: usize = server.sql(&mallory, &format!("SELECT count(*) {marked}")).parse().unwrap();
    assert!(count > 0);
    server.sql(
        &mallory,
        &format!(
            "DO $$ DECLARE r record; BEGIN FOR r IN SELECT d.objoid::regclass AS name, d.description {marked} LOOP
               EXECUTE format('COMMENT ON TABLE %s IS %L', r.name,
                 regexp_replace(r.description, '}}$', ',\"archive\":{{\"key\":\"{key}\",\"rows\":100,\"contents\":\"x\"}}}}'));
             END LOOP; END $$"
        ),
    );
    assert_eq!(server.sql(&mallory, &format!("SELECT count(*) {marked} AND d.description LIKE '%{key}%'")), count.to_string());
    let scenario = scenario.job("parts", &partitions("archive = 'local'\ngrace = '0s'"));
    scenario.run(&["run-job", "parts"]).succeeded().says(&["does not count"]);
    let own = scenario.json(&["archives", "list", "--database", "mallory"]);
    assert_eq!(own["batches"].as_array().unwrap().len(), count, "each was archived: {own:#}");
    for file in scenario.files("store").into_iter().filter(|file| file.starts_with("mallory/") && file.ends_with(".json")) {
        let manifest = std::fs::read_to_string(scenario.path(&format!("store/{file}"))).unwrap();
        assert!(!manifest.contains("replaces"), "{file}: {manifest}");
    }
    assert_eq!(listed(&scenario).as_array().unwrap().len(), 1);
    scenario.run(&["archives", "restore", "--database", "app"]).succeeded().prints(&["760 rows put back"]);
}
