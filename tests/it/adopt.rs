//! Dumps that pgtend did not make: taken in, proved and restored like its own, and counted as none of them.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::encryption::{age_key, set_keys};
use crate::support::postgres::{Server, server};
use crate::support::{Scenario, ends_with_tests, eventually};

/// A database with rows, a large object, a view and an owner.
fn with_rows(server: &Server) -> (String, String) {
    let database = server.new_database();
    let owner = format!("{database}_owner");
    server.sql(
        &database,
        &format!(
            "CREATE ROLE {owner}; CREATE TABLE t (i int PRIMARY KEY, body text); ALTER TABLE t OWNER TO {owner};
             INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 5000) i;
             CREATE VIEW v AS SELECT count(*) FROM t; SELECT lo_from_bytea(0, 'large');"
        ),
    );
    (database, owner)
}

fn pg_dump(server: &Server, database: &str, options: &[&str]) -> Vec<u8> {
    let dumped = server.tool("pg_dump", database).args(options).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    dumped.stdout
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut member = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut member).unwrap();
    member.truncate(length);
    member
}

fn gunzipped(path: PathBuf) -> Vec<u8> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut text).unwrap();
    text
}

fn adopt<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["backups", "adopt", file, "--database", "app"], more].concat()
}

fn put(scenario: &Scenario, file: &str, bytes: &[u8]) {
    std::fs::write(scenario.path(file), bytes).unwrap();
}

/// A login that may create databases, and nothing else.
fn restorer(server: &Server, database: &str) -> String {
    let name = format!("{database}_restorer");
    server.sql("postgres", &format!("CREATE ROLE {name} LOGIN CREATEDB"));
    name
}

#[test]
fn a_dump_of_another_program_is_adopted_proved_and_restored_whatever_its_form() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let restorer = restorer(server, &database);
    let scenario = Scenario::with_database(server, &database);
    let plain = pg_dump(server, &database, &[]);
    let custom = pg_dump(server, &database, &["--format=custom"]);
    for (number, (form, bytes)) in [
        ("plain", plain.clone()),
        ("gzip", gzipped(&plain)),
        ("zstd", zstd::encode_all(&plain[..], 3).unwrap()),
        ("custom", custom.clone()),
        ("custom", gzipped(&custom)),
    ]
    .into_iter()
    .enumerate()
    {
        put(&scenario, "found.dump", &bytes);
        let said = scenario.json(&adopt("found.dump", &[]));
        let set = said["set"].as_str().unwrap().to_owned();
        assert!(set.starts_with("app/adopted/"), "{said}");
        let adopted = &said["adopted"];
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let expected = (&Value::from(form), &Value::from("found.dump"), &Value::from(sha256), &Value::from(bytes.len()));
        assert_eq!((&adopted["form"], &adopted["name"], &adopted["sha256"], &adopted["bytes"]), expected);
        assert_eq!((&said["tables"], &said["rows"]), (&1.into(), &5000.into()), "{said}");
        assert!(said["server_version"].as_str().unwrap().starts_with("18."), "{said}");
        if form != "custom" {
            assert!(gunzipped(scenario.path(&format!("store/{set}/dump.sql.gz"))) == plain, "its text is unchanged");
        }
        let listed = scenario.json(&["backups", "list"])["sets"][number].clone();
        assert_eq!((&listed["bytes"], &listed["adopted"]), (&"unknown".into(), adopted), "{listed}");
        scenario.run(&["backups", "list"]).succeeded().prints(&["adopted", "unknown"]);

        scenario.run(&["backups", "verify", &set]).succeeded().prints(&["1 table and 5,000 rows match the manifest"]);
        let on = server.url_as(&restorer, "postgres");
        let verified = scenario.run(&["backups", "verify", &set, "--restore-on", &on]).succeeded();
        verified.says(&["nobody knows who wrote what is in it"]).prints(&["restored; 1 table and 5,000 rows"]);
        let copy = format!("{database}_copy{number}");
        server.drop_with_test(&copy);
        let into = server.url_as(&restorer, &copy);
        scenario.run(&["backups", "restore", &set, "--into", &into, "--create", "--no-owner"]).succeeded();
        let same = "SELECT md5(string_agg(body, ',' ORDER BY i)), (SELECT count FROM v) FROM t";
        assert_eq!(server.sql(&copy, same), server.sql(&database, same));
        let of = "SELECT relowner::regrole || ' ' || (SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata) FROM pg_class WHERE relname = 't'";
        assert_eq!(server.sql(&copy, of), format!("{restorer} large"));
    }
}

#[test]
fn a_stranger_s_dump_runs_as_nobody_with_rights_over_others_unless_a_person_says_so() {
    let server = server(17);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    put(&scenario, "found.sql", &pg_dump(server, &database, &["--no-owner"]));
    let set = scenario.json(&adopt("found.sql", &[]))["set"].as_str().unwrap().to_owned();
    let copy = format!("{database}_copy");
    server.drop_with_test(&copy);
    let url = server.url(&copy);
    let refused = ["nobody knows who wrote what is in it", "which is a superuser", "--trust-owners"];
    let (whole, part) = (server.url(&server.empty_database()), server.url(&server.empty_database()));
    for command in [
        &["backups", "verify", &set, "--restore-on", "app"][..],
        &["backups", "restore", &set, "--into", &url, "--create"],
        &["backups", "restore", &set, "--into", &whole],
        &["backups", "restore", &set, "--into", &part, "--table", "public.t"],
        &["backups", "restore", &set, "--into", "app", "--table", "public.t", "--merge", "insert-missing"],
    ] {
        scenario.run(command).exited(77).says(&refused);
        scenario.run(&[command, &["--trust-owners"]].concat()).succeeded();
    }
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "5000");
}

#[test]
fn what_is_no_whole_dump_of_pg_dump_is_refused_with_its_reason_and_leaves_nothing() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    let plain = pg_dump(server, &database, &[]);
    let text = String::from_utf8(plain.clone()).unwrap();
    let with = |statement: &str| text.replacen("CREATE TABLE", &format!("{statement}\nCREATE TABLE"), 1).into_bytes();
    let custom = pg_dump(server, &database, &["--format=custom"]);
    let mut flipped = gzipped(&plain);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut trailing = gzipped(&plain);
    trailing.extend_from_slice(b"more");
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let evidence = scenario.path("evidence").display().to_string();
    for (bytes, says) in [
        (plain[..plain.len() - 100].to_vec(), "is missing. It was cut off"),
        (gzipped(&plain)[..middle].to_vec(), "is not adopted"),
        (flipped, "is not adopted"),
        (trailing, "is not adopted"),
        (custom[..custom.len() / 2].to_vec(), "pg_restore ("),
        (vec![], "is missing. It was cut off"),
        (b"hello\n".to_vec(), "is missing. It was cut off"),
        (utf16, "a shell has stored it as UTF-16"),
        (with(&format!("\\! touch {evidence}")), "a psql command that pg_dump does not write"),
        (with(&format!("COPY public.t FROM PROGRAM 'touch {evidence}';")), "a statement that is not run from a dump: COPY"),
        (with("ALTER ROLE postgres PASSWORD 'hunter2';"), "not run from a dump: ALTER ROLE postgres PASSWORD '…'"),
        (with("DO $$ BEGIN PERFORM 1; END $$;"), "a statement that is not run from a dump: DO"),
        (with(&format!("CREATE EXTENSION {};", "x".repeat(64))), "it has a name of 64 bytes"),
        (with(&format!("COPY public.{} FROM stdin;\n\\.", "x".repeat(64))), "it has a name of 64 bytes"),
        (pg_dump(server, &database, &["--inserts"]), "without --inserts"),
        (pg_dump(server, &database, &["--create"]), "--create"),
        (pg_dump(server, &database, &["--clean"]), "--clean"),
        (pg_dump(server, &database, &["--format=tar"]), "is not adopted"),
    ] {
        put(&scenario, "found.sql", &bytes);
        let refused = scenario.run(&adopt("found.sql", &[])).exited(1);
        assert!(refused.stderr.contains("found.sql is not adopted"), "{}", refused.stderr);
        let refused = refused.says(&[says]);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
        assert_eq!(scenario.files("store"), Vec::<String>::new(), "{says}");
    }
    assert!(!scenario.path("evidence").exists());
    scenario.run(&adopt("nothing.sql", &[])).exited(78).says(&["cannot read nothing.sql"]);
    scenario.run(&adopt("jobs", &[])).exited(78).says(&["jobs is a folder"]);
    scenario.run(&["backups", "adopt", "found.sql", "--database", "ap"]).exited(78).says(&["did you mean `app`?"]);
    scenario.run(&adopt("found.sql", &["--store", "elsewhere"])).exited(78).says(&["no store `elsewhere`"]);
}

#[test]
fn an_adopted_set_is_no_backup_pushes_none_out_and_no_keep_deletes_it() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "keep = { last = 1 }");
    put(&scenario, "found.sql", &pg_dump(server, &database, &[]));
    let adopted = scenario.json(&adopt("found.sql", &[]))["set"].as_str().unwrap().to_owned();
    scenario.run(&["backups", "verify", &adopted, "--restore-on", "app", "--trust-owners"]).succeeded();
    let require = ["backups", "require", "--database", "app", "--within", "1h"];
    scenario.run(&require).exited(75).says(&["it was adopted: nobody knows when it was dumped"]);
    // Alone it is the latest.
    scenario.run(&["backups", "show", "latest"]).succeeded().prints(&["adopted from", "found.sql, SQL, SHA-256 "]);

    // A job of that name writes into the same folder.
    let scenario = scenario.job("adopted", "database = \"app\"\n[backup]\nstore = \"local\"\nkeep = { last = 1 }\n");
    for job in ["nightly", "adopted", "nightly", "adopted"] {
        scenario.run(&["run-job", job]).succeeded();
    }
    scenario.run(&["backups", "prune"]).succeeded();
    let sets = scenario.sets();
    assert_eq!(sets.len(), 3, "one of each job, and the adopted one: {sets:?}");
    assert!(sets.contains(&adopted), "{sets:?}");
    scenario.run(&require).succeeded();
    scenario.run(&["backups", "show", "latest", "--job", "nightly"]).succeeded();
    let certificate = scenario.run(&["backups", "certificate", &adopted]).succeeded();
    certificate.prints(&[
        "Who made the dump, when, from which server",
        "found.sql (SQL)",
        "No job of this configuration deletes it.",
    ]);

    std::fs::remove_file(scenario.path("jobs/adopted.toml")).unwrap();
    let of_job = sets.iter().find(|set| set.starts_with("app/adopted/") && **set != adopted).unwrap();
    std::fs::remove_dir_all(scenario.path(&format!("store/{of_job}"))).unwrap();
    let latest = scenario.json(&["backups", "show", "latest"]);
    assert!(latest["set"].as_str().unwrap().starts_with("app/nightly/"), "`latest` is still the job's: {latest}");
}

#[test]
fn an_object_of_the_store_is_adopted_by_its_key_also_where_the_store_encrypts() {
    let server = server(16);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    std::fs::create_dir_all(scenario.path("store/old")).unwrap();
    put(&scenario, "store/old/app.dump", &pg_dump(server, &database, &["--format=custom"]));
    let said = scenario.json(&adopt("old/app.dump", &["--key", "--store", "local"]));
    assert_eq!((&said["adopted"]["name"], &said["rows"]), (&"old/app.dump".into(), &5000.into()), "{said}");
    put(&scenario, "secret.sql", b"no dump");
    for (key, says) in
        [("../secret.sql", "is not the key of an object"), ("/etc/passwd", "is not the key"), ("old/no.sql", "there is no ")]
    {
        scenario.run(&adopt(key, &["--key"])).exited(78).says(&[says]);
    }
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], Some("key"));
    let said = scenario.json(&adopt("old/app.dump", &["--key"]));
    let (set, sha256) = (said["set"].as_str().unwrap().to_owned(), said["sha256"].as_str().unwrap());
    let manifest = std::fs::read_to_string(scenario.path(&format!("store/{set}/manifest.json"))).unwrap();
    assert!(sha256.len() == 64 && !manifest.contains(sha256), "nobody confirms a guess of the rows by it: {manifest}");
    scenario.run(&["backups", "show", &set]).succeeded().prints(&["SHA-256 not recorded beside an encrypted set"]);
    assert!(scenario.path(&format!("store/{set}/dump.sql.gz.age")).exists());
    scenario.run(&["backups", "verify", &set]).succeeded().prints(&["5,000 rows match the manifest"]);
    assert!(scenario.path("store/old/app.dump").exists(), "the original stays");
}

#[test]
fn a_dump_in_another_encoding_is_restored_as_its_text_says() {
    let server = server(18);
    let database = format!("{}_latin", server.empty_database());
    server.sql("postgres", &format!("CREATE DATABASE {database} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"));
    server.drop_with_test(&database);
    server.sql(
        &database,
        "SET client_encoding = 'UTF8'; CREATE TABLE t (x text DEFAULT 'ä'); INSERT INTO t VALUES ('café'), (DEFAULT)",
    );
    let scenario = Scenario::with_database(server, &database);
    put(&scenario, "found.sql", &pg_dump(server, &database, &[]));
    let said = scenario.json(&adopt("found.sql", &[]));
    assert_eq!(said["adopted"]["client_encoding"], "LATIN1", "{said}");
    let copy = format!("{database}_copy");
    server.drop_with_test(&copy);
    let into = server.url(&copy);
    scenario.run(&["backups", "restore", "latest", "--into", &into, "--create", "--trust-owners"]).succeeded();
    let all = "INSERT INTO t VALUES (DEFAULT); SELECT string_agg(x, ',' ORDER BY x COLLATE \"C\"), current_setting('server_encoding') FROM t";
    assert_eq!(server.sql(&copy, all), "café,ä,ä|UTF8");
    let rows = scenario.command(&["backups", "fetch", "latest", "--table", "public.t"]).output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&rows).contains("SET client_encoding = 'LATIN1'"), "{}", String::from_utf8_lossy(&rows));
}

#[test]
fn an_adoption_that_is_stopped_or_killed_makes_no_set_and_the_next_one_cleans_up() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    let plain = pg_dump(server, &database, &[]);
    let half = &plain[..plain.len() / 2];
    for kills in [false, true] {
        let pipe = scenario.path(&format!("pipe-{kills}"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let name = pipe.file_name().unwrap().to_str().unwrap().to_owned();
        let running = scenario.start(&adopt(&name, &[]));
        let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        writer.write_all(half).unwrap();
        eventually("the folder of the set is there", || scenario.files("store").iter().any(|file| file.ends_with("run.json")));
        match kills {
            false => {
                running.signal(rustix::process::Signal::TERM);
                running.wait().exited(143).says(&["nothing was adopted"]);
                assert_eq!(scenario.files("store"), Vec::<String>::new());
            }
            true => {
                running.kill();
                assert_eq!(scenario.sets(), Vec::<String>::new());
                put(&scenario, "found.sql", &plain);
                scenario.run(&adopt("found.sql", &[])).succeeded();
                let set = scenario.sets().pop().unwrap();
                let others: Vec<String> = scenario.files("store").into_iter().filter(|file| !file.contains(&set)).collect();
                assert_eq!(others, Vec::<String>::new(), "what the killed one left is removed");
            }
        }
        drop(writer);
    }
}

#[test]
fn the_text_of_an_adopted_dump_goes_through_stock_tools_alone() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    put(&scenario, "found.dump", &pg_dump(server, &database, &["--format=custom"]));
    let set = scenario.json(&adopt("found.dump", &[]))["set"].as_str().unwrap().to_owned();
    let copy = server.empty_database();
    let dump = scenario.path(&format!("store/{set}/dump.sql.gz")).display().to_string();
    let mut shell = Command::new("sh");
    let psql = server.tool("psql", &copy);
    let environment: Vec<_> = psql.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    shell
        .args(["-c", "gunzip -c \"$1\" | \"$2\" -XqAt -v ON_ERROR_STOP=1", "sh", &dump])
        .arg(psql.get_program())
        .envs(environment);
    let restored = ends_with_tests(&mut shell).output().unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(server.sql(&copy, "SELECT count(*) FROM t"), "5000");
}

#[test]
fn a_signal_ends_the_wait_for_a_pipe_s_writer() {
    let server = server(18);
    let scenario = Scenario::with_database(server, &server.empty_database());
    assert!(Command::new("mkfifo").arg(scenario.path("pipe")).status().unwrap().success());
    let mut running = scenario.start(&adopt("pipe", &[]));
    let opens = || {
        std::fs::read_dir(format!("/proc/{}/task", running.pid()))
            .unwrap()
            .flatten()
            .any(|thread| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "adopt"))
    };
    eventually("a thread waits for the writer", opens);
    assert!(running.is_running());
    running.signal(rustix::process::Signal::TERM);
    running.wait().exited(143).says(&["nothing was adopted"]);
    assert_eq!(scenario.files("store"), Vec::<String>::new());
}

#[test]
fn a_damaged_adopted_set_does_not_keep_latest_from_a_good_backup() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    put(&scenario, "found.sql", &pg_dump(server, &database, &[]));
    let adopted = scenario.json(&adopt("found.sql", &[]))["set"].as_str().unwrap().to_owned();
    let dump = std::fs::File::options().write(true).open(scenario.path(&format!("store/{adopted}/dump.sql.gz"))).unwrap();
    dump.set_len(100).unwrap();
    let copy = format!("{database}_copy");
    server.drop_with_test(&copy);
    scenario.run(&["backups", "restore", "latest", "--into", &server.url(&copy), "--create"]).succeeded();
    scenario.run(&["backups", "restore", "latest", "--into", "app", "--create", "--job", "adopted"]).exited(78);
}

#[test]
fn a_set_whose_manifest_somebody_has_deleted_is_named_and_never_swept() {
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().pop().unwrap();
    put(&scenario, "found.sql", &pg_dump(server, &database, &[]));
    let adopted = scenario.json(&adopt("found.sql", &[]))["set"].as_str().unwrap().to_owned();
    for name in ["manifest.json", "verification.json"] {
        std::fs::remove_file(scenario.path(&format!("store/{set}/{name}"))).unwrap();
    }
    std::fs::remove_file(scenario.path(&format!("store/{adopted}/manifest.json"))).unwrap();
    let left = [format!("{set}/dump.sql.gz"), format!("{adopted}/dump.sql.gz")];
    let says = "its run.json says that it was a complete set, and its manifest is gone";
    scenario.run(&["run-job", "nightly"]).succeeded().says(&[&set, says]);
    scenario.run(&adopt("found.sql", &[])).succeeded().says(&[&adopted, says]);
    for dump in left {
        assert!(scenario.path(&format!("store/{dump}")).exists(), "{dump}");
    }
}

#[test]
fn a_file_whose_name_is_not_utf_8_is_adopted() {
    use std::os::unix::ffi::OsStrExt as _;
    let server = server(18);
    let (database, _) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    let name = std::ffi::OsStr::from_bytes(b"d\xfcmp.sql");
    std::fs::write(scenario.path("").join(name), pg_dump(server, &database, &[])).unwrap();
    let mut command = scenario.command(&["backups", "adopt", "--database", "app"]);
    let adopted = command.arg(name).output().unwrap();
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    assert_eq!(scenario.sets().len(), 1);
    let mut command = scenario.command(&["backups", "adopt", "--key", "--database", "app"]);
    let refused = command.arg(name).output().unwrap();
    assert_eq!(refused.status.code(), Some(78), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn a_dump_in_another_encoding_than_utf_8_is_adopted_with_its_longest_names() {
    let server = server(18);
    let database = server.new_database();
    // 30 letters: 60 bytes here, 30 in the dump.
    let name = "\u{fc}".repeat(30);
    server.sql(&database, &format!("CREATE TABLE \"{name}\" (i int); INSERT INTO \"{name}\" VALUES (1)"));
    let scenario = Scenario::with_database(server, &database);
    for format in ["--format=plain", "--format=custom"] {
        put(&scenario, "latin1", &pg_dump(server, &database, &["--encoding=LATIN1", format]));
        scenario.run(&adopt("latin1", &[])).succeeded().prints(&["1 table, 1 row"]);
    }
}

#[test]
fn a_file_s_name_and_an_owner_s_name_with_line_ends_write_no_lines_of_their_own() {
    let server = server(18);
    let (database, owner) = with_rows(server);
    let scenario = Scenario::with_database(server, &database);
    let forged = "WARN all rows were proved";
    let dump = String::from_utf8(pg_dump(server, &database, &[])).unwrap();
    let dump = dump.replace(&format!("OWNER TO {owner}"), &format!("OWNER TO \"own\n{forged}\n\""));
    let file = format!("x.sql\n{forged}\n");
    put(&scenario, &file, dump.as_bytes());
    let ends = |said: &str| assert!(!said.lines().any(|line| line.starts_with(forged)), "{said}");
    let adopted = scenario.run(&adopt(&file, &[])).succeeded();
    ends(&adopted.stdout);
    ends(&adopted.stderr);
    let set = scenario.json(&["backups", "list"])["sets"][0]["set"].as_str().unwrap().to_owned();
    let on = server.url_as(&restorer(server, &database), "postgres");
    let verified = scenario.run(&["backups", "verify", &set, "--restore-on", &on]);
    assert!(verified.stderr.contains(forged), "{}", verified.stderr);
    ends(&verified.stderr);

    let scenario = scenario.backup_job("local", "keep = { last = 9 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    let reason = format!("x)\n{forged}");
    scenario.run(&["backups", "hold", "latest", "--until", "2099-01-01", "--reason", &reason]).succeeded();
    for command in
        [&["backups", "prune", "--dry-run"][..], &["run-job", "nightly", "--dry-run"], &["backups", "release", "latest"]]
    {
        let said = scenario.run(command).succeeded().prints(&[forged]);
        ends(&said.stdout);
    }
}
