//! Sets that are encrypted with age: who opens them, what is said where nobody can, and what stock tools do with them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use pgtend::members::blocks;
use pgtend::task::backup::manifest;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::fetch::{sum, three_tables};
use crate::support::postgres::{Server, server};
use crate::support::s3::S3Server;
use crate::support::{Scenario, eventually};

/// A value that stands in no other place.
const MARKER: &str = "Zwetschgenknoedel-4711";

/// A pair of keys of age, made by its own tool: the file of the secret key is in the scenario.
pub fn age_key(scenario: &Scenario, name: &str) -> String {
    let file = scenario.path(name);
    let made = Command::new("age-keygen").arg("-o").arg(&file).output().expect("no age: run `scripts/setup` (`make test` does)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = Command::new("age-keygen").arg("-y").arg(&file).output().unwrap();
    String::from_utf8(public.stdout).unwrap().trim().to_owned()
}

/// The same by ssh-keygen.
fn ssh_key(scenario: &Scenario, name: &str, kind: &[&str], passphrase: &str) -> String {
    let file = scenario.path(name);
    let made =
        Command::new("ssh-keygen").args(["-q", "-N", passphrase, "-C", "ops@db1", "-t"]).args(kind).arg("-f").arg(&file).output();
    assert!(made.unwrap().status.success());
    std::fs::read_to_string(file.with_extension("pub")).unwrap().trim().to_owned()
}

/// The keys of the only store, from then on.
pub fn set_keys(scenario: &Scenario, encrypt_to: &[&str], identity_file: Option<&str>) {
    let path = scenario.path("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let is_key = |line: &&str| line.starts_with("encrypt_to") || line.starts_with("identity_file");
    let mut lines: Vec<String> = text.lines().filter(|line| !is_key(line)).map(str::to_owned).collect();
    let store = lines.iter().position(|line| line.starts_with("path = ") || line.starts_with("bucket = ")).unwrap();
    if let Some(file) = identity_file {
        lines.insert(store + 1, format!("identity_file = {file:?}"));
    }
    if !encrypt_to.is_empty() {
        lines.insert(store + 1, format!("encrypt_to = {encrypt_to:?}"));
    }
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn rows(server: &Server) -> String {
    let database = server.new_database();
    server.sql(
        &database,
        &format!("CREATE TABLE t AS SELECT i, '{MARKER} ' || md5(i::text) AS body FROM generate_series(1, 20000) i"),
    );
    database
}

/// A job whose store encrypts to one key of age, which is at hand.
fn encrypting(server: &Server, database: &str, keys: &str) -> (Scenario, String) {
    let scenario = Scenario::with_database(server, database).backup_job("local", keys);
    let public = age_key(&scenario, "key");
    set_keys(&scenario, &[&public], Some("key"));
    (scenario, public)
}

fn set_file(scenario: &Scenario, set: &str, object: &str) -> PathBuf {
    scenario.path(&format!("store/{set}/{object}"))
}

/// Restores the latest set into a new database; its name.
#[track_caller]
fn restored(scenario: &Scenario, server: &Server, set: &str) -> String {
    let name = format!("{}_back", server.new_database());
    server.drop_with_test(&name);
    scenario.run(&["backups", "restore", set, "--into", &server.url(&name), "--create"]).succeeded();
    name
}

#[track_caller]
fn is_refused(scenario: &Scenario, server: &Server, set: &str, code: i32, says: &[&str]) {
    let into = server.empty_database();
    scenario.run(&["backups", "restore", set, "--into", &server.url(&into)]).exited(code).says(says);
    assert_eq!(server.sql(&into, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
}

/// `age -d -i KEY FILE | gunzip`, or zstd's.
fn opened_by_age(key: &Path, file: &Path) -> Vec<u8> {
    let unpack = if file.to_string_lossy().contains(".zst") { "zstd -dc" } else { "gunzip -c" };
    let script = format!("set -o pipefail; age -d -i '{}' '{}' | {unpack}", key.display(), file.display());
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn each_recipient_opens_a_set_and_so_do_age_and_psql_alone() {
    let server = server(18);
    let database = rows(server);
    server.sql(&database, "SELECT lo_from_bytea(0, 'large')");
    for compression in ["gzip", "zstd"] {
        let scenario =
            Scenario::with_database(server, &database).backup_job("local", &format!("compression = \"{compression}\""));
        let first = age_key(&scenario, "first");
        let ed25519 = ssh_key(&scenario, "ed25519", &["ed25519"], "");
        let rsa = ssh_key(&scenario, "rsa", &["rsa", "-b", "2048"], "");
        std::fs::write(scenario.path("recipients"), format!("# break glass\n\n{}\n{rsa}\n", age_key(&scenario, "second")))
            .unwrap();
        set_keys(&scenario, &[&first, &ed25519], None);
        let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
        std::fs::write(scenario.path("config.toml"), config + "encrypt_to_file = \"recipients\"\n").unwrap();
        scenario.run(&["run-job", "nightly"]).succeeded();

        let set = scenario.sets().pop().unwrap();
        let dump = set_file(&scenario, &set, if compression == "gzip" { "dump.sql.gz.age" } else { "dump.sql.zst.age" });
        for key in ["first", "second", "ed25519", "rsa"] {
            set_keys(&scenario, &[&first], Some(key));
            let back = restored(&scenario, server, "latest");
            assert_eq!(sum(server, &back, "t"), sum(server, &database, "t"), "{key}");
            scenario.run(&["backups", "verify", "latest"]).succeeded().prints(&["read back; 1 table and 20,000 rows"]);

            let by_psql = server.empty_database();
            server.sql(&by_psql, &String::from_utf8(opened_by_age(&scenario.path(key), &dump)).unwrap());
            assert_eq!(sum(server, &by_psql, "t"), sum(server, &database, "t"), "{key}");
            let globals = opened_by_age(&scenario.path(key), &set_file(&scenario, &set, "globals.sql.gz.age"));
            assert!(String::from_utf8(globals).unwrap().contains("CREATE ROLE postgres"), "{key}");
        }
        scenario.run(&["backups", "show", "latest"]).succeeded().prints(&[
            "encryption      age, to ",
            &first,
            "ops@db1",
            "ssh-rsa …",
        ]);
    }
}

#[test]
fn nothing_of_a_row_or_a_password_is_in_the_store() {
    let server = Server::start(17);
    server.sql("postgres", "CREATE ROLE secretive LOGIN PASSWORD 'x'");
    let hash = server.sql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'secretive'");
    let database = rows(&server);
    let (scenario, _) = encrypting(&server, &database, "level = 1");
    let scenario = scenario.job(
        "old",
        "database = 'app'\n[retention]\ntable = 'public.old'\ncolumn = 'at'\nolder_than = '10d'\narchive = 'local'\n",
    );
    server.sql(
        &database,
        &format!(
            "CREATE TABLE old AS SELECT now() - i * interval '1 day' AS at, '{MARKER}' AS body FROM generate_series(1, 50) i"
        ),
    );
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    let files = scenario.files("store");
    let mut encrypted = 0;
    for file in &files {
        let bytes = std::fs::read(scenario.path("store").join(file)).unwrap();
        for secret in [MARKER, hash.as_str(), "AGE-SECRET-KEY"] {
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{secret} is in {file}");
        }
        if file.ends_with(".age") {
            encrypted += 1;
            assert!(bytes.starts_with(b"age-encryption.org/v1\n-> X25519 "), "{file}");
        } else {
            assert!(file.ends_with(".json"), "{file} is not encrypted");
        }
        // Neither gzip nor zstd begins anywhere in them but by chance: what begins there does not decode.
        for at in memchr::memmem::find_iter(&bytes, b"\x1f\x8b\x08") {
            let mut decoded = Vec::new();
            let read = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[at..]), &mut decoded);
            assert!(read.is_err(), "{file} has a member at {at}");
        }
    }
    assert_eq!(encrypted, 3, "{files:?}");
    // Small tables could be guessed by a checksum of their rows.
    let set = scenario.sets().pop().unwrap();
    let manifest = manifest::from_json(&std::fs::read(set_file(&scenario, &set, "manifest.json")).unwrap()).unwrap();
    assert_eq!((manifest.format, manifest.dump.members.crc32.len()), (4, 0));
}

#[test]
fn of_an_encrypted_set_only_the_chunks_that_hold_a_table_are_read() {
    let (server, s3) = (server(16), S3Server::start());
    let database = three_tables(server);
    let scenario = Scenario::with_database(server, &database).s3(&s3).backup_job("bucket", "");
    let public = age_key(&scenario, "key");
    let path = scenario.path("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}encrypt_to = [{public:?}]\nidentity_file = \"key\"\n")).unwrap();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let shown = scenario.json(&["backups", "show", "latest", "--store", "bucket"]);
    let header = shown["encryption"]["header_bytes"].as_u64().unwrap();
    let csv = |name: &str| std::fs::read(scenario.path(name)).unwrap();
    let reads = |table: &str| -> (u64, u64) {
        let file = format!("{table}.csv");
        let arguments = ["backups", "fetch", "latest", "--store", "bucket", "--format", "csv", "--table", table, "-o", &file];
        let fetched = scenario.json(&arguments);
        let expected = server.sql(&database, &format!("SELECT count(*) + 1 FROM {table}"));
        assert_eq!(memchr::memchr_iter(b'\n', &csv(&file)).count().to_string(), expected, "{table}");
        let of_table = shown["tables"].as_array().unwrap().iter().find(|shown| shown["name"] == table).unwrap();
        (fetched["read_bytes"].as_u64().unwrap(), of_table["member_bytes"].as_u64().unwrap())
    };
    let (read, held) = reads("big");
    assert!(held > 18_000_000 && read <= held * 11 / 10 + header, "{read} read of {held}");
    for table in ["a_first", "z_last"] {
        let (read, held) = reads(table);
        assert!(read <= held + (2 << 20) + header + 65_552, "{table}: {read} read of {held}");
    }
    for (ignores_ranges, starts_before) in [(true, 0), (false, 1), (false, 3 << 20)] {
        s3.quirks().ignores_ranges.store(ignores_ranges, Relaxed);
        s3.quirks().starts_before.store(starts_before, Relaxed);
        reads("z_last");
    }
    // A part goes into a living database in the same way.
    let before = sum(server, &database, "big");
    server.sql(&database, "DELETE FROM big WHERE i % 3 = 0");
    let aside = ["--table", "big", "--as", "public.big_back"];
    scenario.run(&[&["backups", "restore", "latest", "--store", "bucket", "--into", "app"], &aside[..]].concat()).succeeded();
    assert_eq!(sum(server, &database, "big_back"), before);
    // And all of it, by several sessions.
    let back = format!("{database}_back");
    server.drop_with_test(&back);
    let whole =
        ["backups", "restore", "latest", "--store", "bucket", "--into", &server.url(&back), "--create", "--sessions", "2"];
    scenario.run(&whole).succeeded();
    assert_eq!(sum(server, &back, "big"), before);
}

fn reads_and_opens_nothing(scenario: &Scenario, identity: Option<&str>, why: &str) {
    let verified = scenario.run(&["backups", "verify", "latest"]).prints(&["SHA-256 match the manifest; not decoded here", why]);
    match identity {
        None => verified.succeeded(),
        Some(_) => verified.exited(78).says(&["the keys of this host do not open it", why]),
    };
    let json = scenario.run(&["backups", "verify", "latest", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(json["not_decoded"].as_str().unwrap().contains(why), "{json:#}");
}

#[test]
fn without_a_key_the_bytes_are_proved_and_more_is_not_said() {
    let server = server(18);
    let (scenario, public) = encrypting(server, &rows(server), "keep = { last = 2 }");
    let ours = public.as_str();
    age_key(&scenario, "other");
    set_keys(&scenario, &[ours], None);
    let summary = |run: &Value| run["runs"][0]["report"]["summary"].as_str().unwrap().to_owned();
    let run = scenario.json(&["run-job", "nightly"]);
    assert!(summary(&run).contains("not decoded: the store has no `identity_file` here"), "{run:#}");
    assert_eq!(run["runs"][0]["report"]["facts"]["verified"], "intact, not decoded");
    let listed = scenario.json(&["backups", "list"]);
    let bytes = &listed["sets"][0]["verification"]["bytes"];
    assert_eq!((&bytes["verdict"], bytes["not_decoded"].is_string()), (&"intact".into(), true), "{listed:#}");
    scenario.run(&["backups", "list"]).succeeded().prints(&["encrypted, not decoded"]);

    let recipients = format!("Its recipients are: {ours}");
    let fetch = ["backups", "fetch", "latest", "--table", "t"];
    let proof = ["backups", "verify", "latest", "--restore-on", "app"];
    for (identity, why) in [(None, "no `identity_file` here"), (Some("other"), "other belongs to one of its recipients")] {
        set_keys(&scenario, &[ours], identity);
        reads_and_opens_nothing(&scenario, identity, why);
        is_refused(&scenario, server, "latest", 78, &["cannot be opened here", why, &recipients]);
        scenario.run(&fetch).exited(78).says(&[why, &recipients]);
        scenario.run(&proof).exited(78).says(&[why, &recipients]);
        let part = ["backups", "restore", "latest", "--into", "app", "--table", "t", "--as", "public.u"];
        scenario.run(&part).exited(78).says(&[why, &recipients]);
    }
    assert_eq!(scenario.json(&["backups", "list"])["sets"][0]["restored"], false);

    set_keys(&scenario, &[ours], Some("key"));
    scenario.run(&["backups", "verify", "latest"]).succeeded().prints(&["read back; 1 table and 20,000 rows match"]);
    scenario.run(&proof).succeeded();
    // What was decoded once is not forgotten by a host that cannot; but that host says what it has done itself: a key in a safe is tried so.
    for (identity, why) in [(Some("other"), "other belongs to one of its recipients"), (None, "no `identity_file` here")] {
        set_keys(&scenario, &[ours], identity);
        reads_and_opens_nothing(&scenario, identity, why);
    }
    let listed = scenario.json(&["backups", "list"]);
    assert!(listed["sets"][0]["verification"]["bytes"]["not_decoded"].is_null(), "{listed:#}");
    assert_eq!(listed["sets"][0]["restored"], true);
    // Such sets fill the places of `keep` as any other, and go as a whole.
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    let names = scenario.sets();
    // The newest restored one stays besides.
    assert_eq!(names.len(), 3);
    assert_eq!(scenario.files("store").len(), 3 * 5, "{:?}", scenario.files("store"));
}

#[test]
fn a_proof_by_restore_without_a_key_is_refused_beforehand_and_never_called_done() {
    let server = server(18);
    let (scenario, public) = encrypting(server, &rows(server), "verify = \"restore\"");
    let why = [
        "verify = \"restore\": sets in store `local` are encrypted, and this host cannot open them",
        "backups verify latest --restore-on",
    ];
    set_keys(&scenario, &[&public], None);
    scenario.run(&["check"]).succeeded().prints(&why);
    scenario.run(&["check", "--connect"]).exited(78).prints(&why);
    scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded().prints(&why).prints(&[&format!("encrypted to {public}")]);
    scenario
        .run(&["run-job", "nightly"])
        .exited(78)
        .says(&["its bytes are intact, but the verification by restore failed", why[0]]);
    let listed = scenario.json(&["backups", "list"]);
    assert_eq!((&listed["sets"][0]["bytes"], &listed["sets"][0]["restored"]), (&"intact".into(), &false.into()), "{listed:#}");

    set_keys(&scenario, &[&public], Some("key"));
    scenario.run(&["check", "--connect"]).succeeded().prints(&[
        "store local: encryption",
        &public,
        "this host opens what it writes",
    ]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let listed = scenario.json(&["backups", "list"]);
    let restored = |set: &Value| set["restored"].as_bool().unwrap();
    assert_eq!(listed["sets"].as_array().unwrap().iter().filter(|set| restored(set)).count(), 1, "{listed:#}");
}

#[test]
fn a_job_that_verifies_by_checksum_needs_no_key_and_is_not_warned() {
    let server = server(18);
    let database = rows(server);
    let (scenario, public) = encrypting(server, &database, "verify = \"checksum\"");
    set_keys(&scenario, &[&public], None);
    let checked = scenario.run(&["check"]).succeeded();
    assert!(!format!("{}{}", checked.stdout, checked.stderr).contains("cannot open"), "{}", checked.stdout);
}

#[test]
fn values_of_settings_and_the_comment_are_readable_and_that_is_said() {
    let server = server(18);
    let database = rows(server);
    server.sql(&database, &format!("ALTER DATABASE {database} SET app.token = '{MARKER}'"));
    server.sql(&database, &format!("ALTER DATABASE {database} SET work_mem = '8MB'; COMMENT ON DATABASE {database} IS 'x'"));
    let (scenario, _) = encrypting(server, &database, "");
    for command in [&["check", "--connect"][..], &["run-job", "nightly", "--dry-run"]] {
        let ran = scenario.run(command).succeeded().prints(&["the setting app.token, the comment on the database"]);
        assert!(!ran.stdout.contains("work_mem"), "{}", ran.stdout);
    }
    set_keys(&scenario, &[], None);
    let ran = scenario.run(&["run-job", "nightly", "--dry-run"]).succeeded();
    assert!(!ran.stdout.contains("app.token"), "{}", ran.stdout);
}

#[test]
fn a_refused_proof_shows_its_rows_to_the_host_and_not_to_the_store() {
    let server = server(17);
    let database = server.new_database();
    server.sql(
        &database,
        &format!(
            "CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
             CREATE TABLE people (name text CONSTRAINT sound CHECK (public.ok(name))); INSERT INTO people VALUES ('{MARKER}');
             CREATE OR REPLACE FUNCTION ok(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';"
        ),
    );
    let (scenario, _) = encrypting(server, &database, "verify = \"restore\"\nscratch = \"same\"");
    let run = scenario.run(&["run-job", "nightly"]).says(&["Failing row contains", MARKER]);
    assert_ne!(run.code, Some(0));
    for file in scenario.files("store") {
        let bytes = std::fs::read(scenario.path("store").join(&file)).unwrap();
        assert!(memchr::memmem::find(&bytes, MARKER.as_bytes()).is_none(), "{file}: {}", String::from_utf8_lossy(&bytes));
    }
    let set = scenario.sets().pop().unwrap();
    let told = std::fs::read_to_string(set_file(&scenario, &set, "verification.json")).unwrap();
    for part in ["SQLSTATE 23514, at TABLE DATA people", "constraint sound", "The source's rows violate this constraint"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn who_is_no_recipient_any_more_opens_the_sets_of_that_time() {
    let server = server(18);
    let database = rows(server);
    let scenario = Scenario::with_database(server, &database).backup_job("local", "keep = { last = 3 }");
    let (old, new) = (age_key(&scenario, "old"), age_key(&scenario, "new"));
    let set = |encrypt_to: &[&str]| {
        set_keys(&scenario, encrypt_to, None);
        scenario.json(&["run-job", "nightly"])["runs"][0]["report"]["facts"]["set"].as_str().unwrap().to_owned()
    };
    let (plain, both, without_old) = (set(&[]), set(&[&old, &new]), set(&[&new]));
    assert!(set_file(&scenario, &plain, "dump.sql.gz").exists() && set_file(&scenario, &both, "dump.sql.gz.age").exists());
    for (identity, opens, refused) in [("old", &[&both][..], Some(&without_old)), ("new", &[&both, &without_old], None)] {
        set_keys(&scenario, &[&new], Some(identity));
        for set in opens {
            assert_eq!(sum(server, &restored(&scenario, server, set), "t"), sum(server, &database, "t"));
        }
        if let Some(set) = refused {
            is_refused(&scenario, server, set, 78, &["belongs to one of its recipients", &new]);
        }
    }
    // A plain one is restored by any host, and that is said.
    let into = server.url(&server.empty_database());
    let said = "is not encrypted, although the store has `encrypt_to`";
    scenario.run(&["backups", "restore", &plain, "--into", &into]).succeeded().says(&[said]);
    // Each kind goes as a whole when its time has come.
    for _ in 0..3 {
        set(&[&new]);
    }
    let files = scenario.files("store");
    assert!(
        !files.iter().any(|file| [&plain, &both, &without_old].iter().any(|set| file.starts_with(set.as_str()))),
        "{files:?}"
    );
    set_keys(&scenario, &[], None);
    for _ in 0..3 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    assert!(!scenario.files("store").iter().any(|file| file.ends_with(".age")), "{:?}", scenario.files("store"));
}

#[test]
fn an_encrypted_object_that_was_changed_is_damaged_and_nothing_of_it_runs() {
    let server = server(18);
    let (scenario, _) = encrypting(server, &rows(server), "");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&["run-job", "nightly"]).succeeded();
    let sets = scenario.sets();
    let (first, last) = (sets[0].as_str(), sets[1].as_str());
    let path = set_file(&scenario, last, "dump.sql.gz.age");
    let whole = std::fs::read(&path).unwrap();
    let written = manifest::from_json(&std::fs::read(set_file(&scenario, last, "manifest.json")).unwrap()).unwrap();
    let payload = written.dump.encryption.as_ref().unwrap().head().end as usize;
    assert!(whole.len() > payload + 2 * 65_552);
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut swapped = whole.clone();
    swapped.copy_within(payload + 65_552..payload + 2 * 65_552, payload);
    let mut of_another = std::fs::read(set_file(&scenario, first, "dump.sql.gz.age")).unwrap();
    of_another.resize(whole.len(), 0);
    let (stanza, mac) = (60, payload - 20);
    for (what, bytes) in [
        ("the version", flipped(3)),
        ("a recipient", flipped(stanza)),
        ("the header's end", flipped(mac)),
        ("the first chunk", flipped(payload + 9)),
        ("a later chunk", flipped(payload + 70_000)),
        ("the last byte", flipped(whole.len() - 1)),
        ("chunks", swapped),
        ("all", of_another),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let into = server.empty_database();
        let restored = scenario.run(&["backups", "restore", last, "--into", &server.url(&into)]).exited(1);
        assert!(!restored.stderr.contains("identity_file"), "{what}: {}", restored.stderr);
        assert_eq!(server.sql(&into, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0", "{what}");
        scenario.run(&["backups", "fetch", last, "--table", "t", "-o", "rows.sql"]).exited(1);
        assert!(!scenario.path("rows.sql").exists(), "{what}");
        scenario.run(&["backups", "verify", last]).exited(1).says(&["is damaged", "SHA-256"]);

        // Whoever may write to the store can make the hashes fit, but not the contents.
        let mut forged = written.clone();
        let mut hasher = blocks::Hasher::default();
        hasher.push(&bytes);
        (forged.dump.sha256, forged.dump.blocks) = (hex::encode(Sha256::digest(&bytes)), Some(hasher.finish()));
        let kept = std::fs::read(set_file(&scenario, last, "manifest.json")).unwrap();
        std::fs::write(set_file(&scenario, last, "manifest.json"), manifest::to_json(&forged).unwrap()).unwrap();
        let into = server.empty_database();
        scenario.run(&["backups", "restore", last, "--into", &server.url(&into)]).exited(1);
        assert_eq!(server.sql(&into, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0", "{what}");
        std::fs::write(set_file(&scenario, last, "manifest.json"), kept).unwrap();
    }
    // One that was cut is no set.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    is_refused(&scenario, server, last, 78, &["cannot be restored: its dump has"]);
    std::fs::write(&path, &whole).unwrap();
    scenario.run(&["backups", "verify", last]).succeeded();
    restored(&scenario, server, last);
}

#[test]
fn killed_while_it_encrypts_a_run_leaves_nothing_that_the_next_one_does_not_know() {
    let (server, s3) = (server(18), S3Server::start());
    let database = server.new_database();
    server.sql(
        &database,
        "CREATE TABLE big AS SELECT i, md5(i::text) || md5((i * 7)::text) AS body FROM generate_series(1, 300000) i",
    );
    let pauses = "set -o pipefail; \"$real\" \"$@\" | { head -c 16000000; touch paused; sleep 20; cat; }";
    for store in ["local", "bucket"] {
        let scenario = Scenario::with_tool(server, &database, "pg_dump", pauses).s3(&s3);
        let scenario = scenario.config("parts_in_flight = 1\nupload_memory = \"10MiB\"\n").backup_job(store, "");
        let public = age_key(&scenario, "key");
        let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
        let keys = format!("encrypt_to = [{public:?}]\nidentity_file = \"key\"\n");
        let config = config.replace("path = \"store\"\n", &format!("path = \"store\"\n{keys}")) + &keys;
        std::fs::write(scenario.path("config.toml"), config).unwrap();
        let running = scenario.start(&["run-job", "nightly"]);
        eventually("the tool pauses", || scenario.path("paused").exists());
        running.kill();
        std::fs::write(
            scenario.path("bin/pg_dump"),
            format!("#!/bin/sh\nexec '{}' \"$@\"\n", server.bin_dir.join("pg_dump").display()),
        )
        .unwrap();
        eventually("the lock of the killed run is gone", || scenario.run(&["run-job", "nightly"]).code == Some(0));
        let files = if store == "local" { scenario.files("store") } else { s3.objects() };
        let mut names: Vec<&str> =
            files.iter().filter_map(|file| file.rsplit('/').next()).filter(|name| !name.starts_with("lock.json")).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["dump.sql.gz.age", "globals.sql.gz.age", "manifest.json", "run.json", "verification.json"],
            "{files:?}"
        );
        assert_eq!(s3.unfinished_uploads(), Vec::<String>::new());
        scenario.run(&["backups", "verify", "latest", "--store", store]).succeeded();
    }
}

#[test]
fn the_configuration_of_the_guide_has_no_mistakes() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/howto/encrypt-backups.md")).unwrap();
    let block = guide
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap()
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n");
    let scenario = Scenario::empty().config(&block);
    let checked = scenario.run(&["check"]).succeeded().prints(&["1 store", "no mistakes"]);
    assert!(!checked.stdout.contains("WARNING"), "{}", checked.stdout);
}

#[test]
fn mistakes_about_keys_are_named_and_show_no_secret_key() {
    let scenario = Scenario::empty();
    let public = age_key(&scenario, "key");
    let secret = std::fs::read_to_string(scenario.path("key")).unwrap();
    let secret = secret.lines().last().unwrap();
    ssh_key(&scenario, "locked", &["ed25519"], "pass phrase");
    std::fs::write(scenario.path("nothing"), "# nobody\n").unwrap();
    std::fs::write(scenario.path("wrong"), format!("{public}\nage1oops\n")).unwrap();
    std::fs::write(scenario.path("open"), secret).unwrap();
    std::fs::set_permissions(scenario.path("open"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(scenario.path("group"), secret).unwrap();
    std::fs::set_permissions(scenario.path("group"), std::fs::Permissions::from_mode(0o660)).unwrap();
    std::fs::write(scenario.path("others"), &public).unwrap();
    std::fs::set_permissions(scenario.path("others"), std::fs::Permissions::from_mode(0o666)).unwrap();
    for file in ["locked", "nothing", "wrong"] {
        std::fs::set_permissions(scenario.path(file), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let scenario = scenario.config("");
    for (keys, says) in [
        ("encrypt_to = []".to_owned(), "`encrypt_to` of store `local` is empty"),
        ("encrypt_to = [\"age1oops\"]".to_owned(), "a text in `encrypt_to` is not a public key"),
        ("encrypt_to = [\"ssh-ed25519 AAAA\"]".to_owned(), "is not a public key of OpenSSH"),
        ("encrypt_to = [\"age1yubikey1q\"]".to_owned(), "is a key of a plugin"),
        (format!("encrypt_to = [{secret:?}]"), "is a secret key"),
        (format!("encrypt_to = {secret:?}"), "a list"),
        (format!("encrypt_to = [{secret}]"), "not valid TOML"),
        (format!("encrypt_to_file = {secret:?}"), "is a secret key itself"),
        (format!("identity_file = {secret:?}"), "is a secret key itself"),
        (format!("identity_file = [{secret:?}]"), "a list"),
        (format!("identity_fil = {:?}", secret.to_lowercase()), "unknown key"),
        ("encrypt_to_file = \"others\"".to_owned(), "others may write"),
        ("encrypt_to_file = \"nowhere\"".to_owned(), "cannot read"),
        ("encrypt_to_file = \"nothing\"".to_owned(), "has no public key"),
        ("encrypt_to_file = \"wrong\"".to_owned(), "its line 2 is not a public key"),
        ("encrypt_to_file = \"key\"".to_owned(), "its line 3 is a secret key"),
        ("identity_file = \"nowhere\"".to_owned(), "cannot read"),
        ("identity_file = \"nothing\"".to_owned(), "has no secret key"),
        ("identity_file = \"wrong\"".to_owned(), "something else than a secret key of age"),
        ("identity_file = \"locked\"".to_owned(), "has a passphrase"),
        ("identity_file = \"open\"".to_owned(), "everyone on this host may read"),
        ("identity_file = \"group\"".to_owned(), "may write it"),
        ("encrypt_to_file = \"/dev/null\"".to_owned(), "it is not a regular file"),
    ] {
        std::fs::write(scenario.path("config.toml"), format!("[stores.local]\npath = \"store\"\n{keys}\n")).unwrap();
        scenario.run(&["check"]).exited(78).says(&[says]);
        for mode in [&["check"][..], &["check", "--json"]] {
            let checked = scenario.run(mode).exited(78);
            let said = format!("{}{}", checked.stdout, checked.stderr).to_uppercase().replace(['\n', ' ', '│'], "");
            assert!(!said.contains(&secret[15..]) && !said.contains("AGE-SECRET-KEY-1"), "{said}");
        }
    }
    // The group may read it: systemd gives credentials so.
    std::fs::set_permissions(scenario.path("key"), std::fs::Permissions::from_mode(0o440)).unwrap();
    let keys = format!("[stores.local]\npath = \"store\"\nencrypt_to = [{public:?}, {public:?}]\nidentity_file = \"key\"\n");
    std::fs::write(scenario.path("config.toml"), keys).unwrap();
    scenario.run(&["check"]).succeeded().prints(&["encrypts to one key alone", &public]);
}

#[test]
fn a_drill_with_a_wrong_key_fails_also_where_a_plain_copy_is_nearer_or_the_latest_set_is_plain() {
    let server = server(18);
    let database = rows(server);
    let scenario = Scenario::with_database(server, &database);
    let (safe, _) = (age_key(&scenario, "safe"), age_key(&scenario, "wrong"));
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let offsite = |keys: &str| {
        std::fs::write(scenario.path("config.toml"), format!("{config}[stores.offsite]\npath = \"offsite\"\n{keys}\n")).unwrap();
    };
    let job = |stores: &str| format!("database = \"app\"\n[backup]\nstore = {stores}\n");
    std::fs::write(scenario.path("jobs/nightly.toml"), job("[\"local\", \"offsite\"]")).unwrap();
    let (to, verify) = (format!("encrypt_to = [{safe:?}]\n"), ["backups", "verify", "latest"]);
    offsite(&to);
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario.run(&verify).succeeded();

    // The plain copy is the nearer one, and is read.
    offsite(&format!("{to}identity_file = \"wrong\""));
    scenario.run(&verify).exited(78).says(&["cannot be opened here", "in local was verified, and not that in offsite"]);
    offsite(&format!("{to}identity_file = \"safe\""));
    scenario.run(&verify).succeeded();

    // A host without `encrypt_to` has made the latest set.
    std::fs::write(scenario.path("jobs/nightly.toml"), job("\"offsite\"")).unwrap();
    offsite("");
    scenario.run(&["run-job", "nightly"]).succeeded();
    offsite(&format!("{to}identity_file = \"wrong\""));
    scenario.run(&verify).exited(78).says(&["is not encrypted, although the store has `encrypt_to`, so no key was tried"]);
    let listed = scenario.json(&["backups", "list", "--store", "offsite"]);
    let plain = listed["sets"].as_array().unwrap().iter().find(|set| set["encrypted"] == false).unwrap()["set"].as_str().unwrap();
    scenario.run(&["backups", "verify", plain]).succeeded().says(&["so no key was tried"]);
}

#[test]
fn a_list_of_keys_that_others_could_replace_is_refused_where_root_runs() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scenario = Scenario::empty();
    let public = age_key(&scenario, "key");
    std::fs::create_dir(scenario.path("keys")).unwrap();
    std::fs::write(scenario.path("keys/list"), &public).unwrap();
    let mode = |path: &str, mode| std::fs::set_permissions(scenario.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    mode("keys/list", 0o644);
    let config = "[stores.local]\npath = \"store\"\nencrypt_to_file = \"keys/list\"\n";
    std::fs::write(scenario.path("config.toml"), config).unwrap();
    for (folder, is_refused) in [(0o755, false), (0o777, true), (0o775, true), (0o1777, false)] {
        mode("keys", folder);
        match is_refused {
            true => drop(
                scenario.run(&["check"]).exited(78).says(&["may write to its folder", "give the file and its folder to root"]),
            ),
            false => drop(scenario.run(&["check"]).succeeded()),
        }
    }
    mode("keys", 0o755);
    std::os::unix::fs::chown(scenario.path("keys/list"), Some(65534), None).unwrap();
    scenario.run(&["check"]).exited(78).says(&["its owner, the user with the ID 65534, may write"]);
}
