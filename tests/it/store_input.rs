//! What is in a store is input: foreign and broken files beside ours, folders that cannot be read, and children that know nothing
//! which is not theirs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::retention;
use crate::support::postgres::server;
use crate::support::{Output, Scenario};

/// With a set, and a second database's folder that has none.
fn with_set() -> Scenario {
    let server = server(18);
    let database = server.new_database();
    server.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 10) i");
    let scenario = Scenario::with_database(server, &database).backup_job("local", "keep = { last = 1 }");
    scenario.run(&["run-job", "nightly"]).succeeded();
    scenario
}

/// As a user to whom the modes of files say something: root's right to read all is given up.
fn run_without_rights(scenario: &Scenario, arguments: &[&str]) -> Output {
    let plain = scenario.command(arguments);
    let mut command = match rustix::process::geteuid().is_root() {
        false => scenario.command(arguments),
        true => {
            let mut command = Command::new("setpriv");
            command.arg("--bounding-set=-dac_override,-dac_read_search").arg(plain.get_program()).args(arguments);
            command.current_dir(scenario.path(""));
            for (name, value) in plain.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            command
        }
    };
    let output = command.output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn lock(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o000)).unwrap();
}

fn unlock(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn folders_of_others_and_links_in_a_store_are_named_and_hide_nothing_else() {
    let scenario = with_set();
    let set = scenario.sets().pop().unwrap();
    let theirs = scenario.path("store/theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::symlink("/var", scenario.path("store/linked")).unwrap();
    lock(&theirs);
    let listed = run_without_rights(&scenario, &["backups", "list"]).succeeded();
    let listed = listed
        .prints(&[&set])
        .says(&["store/theirs: it cannot be read: Permission denied", "store/linked: it is a symbolic link"]);
    assert!(!listed.stderr.contains("not listed"), "{}", listed.stderr);
    run_without_rights(&scenario, &["backups", "verify", "latest"]).succeeded().says(&["could not read the folder theirs"]);
    run_without_rights(&scenario, &["run-job", "nightly"]).succeeded();

    // What is the latest of a database whose folder cannot be seen whole, nobody can say.
    unlock(&theirs);
    let (job, hidden) = (scenario.path("store/app"), scenario.path("store/app/nightly"));
    std::fs::rename(&hidden, scenario.path("store/app/other")).unwrap();
    std::fs::create_dir(&hidden).unwrap();
    lock(&hidden);
    run_without_rights(&scenario, &["backups", "verify", "latest", "--job", "nightly"]).exited(78).says(&["Permission denied"]);
    run_without_rights(&scenario, &["backups", "verify", "latest", "--job", "other"]).succeeded();
    unlock(&hidden);
    lock(&job);
    run_without_rights(&scenario, &["run-job", "nightly"]).exited(1).says(&["Permission denied"]);
    unlock(&job);
}

#[test]
fn a_set_whose_folder_cannot_be_read_is_named_and_neither_swept_nor_pruned() {
    let scenario = with_set();
    let first = scenario.sets().pop().unwrap();
    let folder = scenario.path(&format!("store/{first}"));
    lock(&folder);
    let run = run_without_rights(&scenario, &["run-job", "nightly"]).succeeded();
    assert!(run.stdout.contains(&first) || run.stderr.contains(&first), "{run:?}");
    run_without_rights(&scenario, &["backups", "prune"]).succeeded();
    run_without_rights(&scenario, &["backups", "list"]).succeeded().says(&[&first, "Permission denied"]);
    unlock(&folder);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 5, "nothing of it is gone");
    // It is a set again.
    assert_eq!(scenario.sets().len(), 2);
}

#[test]
fn broken_files_beside_a_set_are_named_and_hide_no_set() {
    let scenario = with_set();
    let set = scenario.sets().pop().unwrap();
    let write = |name: &str, text: &str| {
        let path = scenario.path(&format!("store/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let manifest = std::fs::read_to_string(scenario.path(&format!("store/{set}/manifest.json"))).unwrap();
    write("app/nightly/2026-01-01T02-00-00Z/manifest.json", "{ \"format\": 2");
    write("app/nightly/2026-01-02T02-00-00Z/manifest.json", &manifest.replace("dump.sql.gz", "../../../../etc/passwd"));
    write("app/nightly/+262142-12-31T23-59-59Z/manifest.json", &manifest);
    write("app/nightly/2026-01-03T02-00-00Z/run.json", "no JSON");
    write("app/nightly/notes.json", "[]");
    write("README/x/y/z", "");
    write("app/nightly/series.json", "{ \"accepted\": 7 }");
    write(&format!("{set}/hold-after-loss.json"), "{}");
    write(
        &format!("{set}/verification.json"),
        r#"{"bytes":{"verdict":"intact","checked_at":"+262142-12-31T23:59:59Z","problems":[],"elapsed_seconds":1.0},"restores":[]}"#,
    );
    let listed = scenario.run(&["backups", "list"]).succeeded().prints(&[&set, "unknown", "held"]);
    listed.says(&["2026-01-01T02-00-00Z in local cannot be restored", "2026-01-02T02-00-00Z in local", "verification.json"]);
    // What cannot be read is no reason to delete, and none not to make a backup.
    let report = scenario.json(&["run-job", "nightly"])["runs"][0]["report"].clone();
    let warnings = report["warnings"].to_string();
    for named in ["2026-01-01T02-00-00Z cannot be restored", "series.json", "2026-01-03T02-00-00Z has objects but no manifest"] {
        assert!(warnings.contains(named), "{named}: {warnings}");
    }
    for left in ["2026-01-01T02-00-00Z/manifest.json", "2026-01-02T02-00-00Z/manifest.json", "2026-01-03T02-00-00Z/run.json"] {
        assert!(scenario.path(&format!("store/app/nightly/{left}")).exists(), "{left}");
    }
    assert_eq!(scenario.sets().len(), 2);
}

#[test]
fn a_stray_file_in_an_archive_hides_no_batch_and_a_broken_batch_is_named() {
    let server = server(18);
    let database = retention::logs(server, 1000);
    let scenario = retention::scenario(server, &database, "archive = 'local'");
    scenario.run(&["run-job", "old-logs"]).succeeded();
    let folder = scenario.path("store/app/old-logs/archive");
    for stray in ["notes.json", "notes.pending.json", "2026.txt"] {
        std::fs::write(folder.join(stray), "{ \"remember\": true }").unwrap();
    }
    let listed = scenario.json(&["archives", "list"]);
    assert_eq!(listed["batches"].as_array().unwrap().len(), 1, "{listed:#}");
    assert_eq!(listed["broken"][0]["key"], "app/old-logs/archive/notes.json", "{listed:#}");
    scenario.run(&["archives", "list"]).succeeded().says(&["skipped app/old-logs/archive/notes.json in local"]);
    // Those rows are all that was archived: put back, all is done.
    scenario.run(&["archives", "restore"]).succeeded().prints(&["760 rows put back"]);
    // A pending one that is none stops no run, and is named; what it may stand for stays.
    let report = scenario.json(&["run-job", "old-logs"])["runs"][0]["report"].clone();
    assert_eq!(report["facts"]["rows_deleted"], 760);
    assert!(report["warnings"].to_string().contains("notes.pending.json"), "{report:#}");
    assert!(folder.join("notes.pending.json").exists());

    // One with rows that can no longer be read: the others come back, and nobody takes that for all.
    let listed = scenario.json(&["archives", "list"]);
    let batch = listed["batches"][0]["batch"].as_str().unwrap();
    let manifest = scenario.path(&format!("store/{batch}.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    for (broken, says) in [
        (text.replacen("\"rows\": 760", "\"rows\": -760", 1), "-760"),
        (text.replacen("\"rows\": 760", "\"rows\": 99999999999", 1), "99999999999 rows"),
        (text.replacen("\"logs\"", "\"lo\\u0000gs\"", 1), "which cannot be a name in PostgreSQL"),
        (text[..100].to_owned(), "EOF"),
    ] {
        std::fs::write(&manifest, broken).unwrap();
        scenario.run(&["archives", "restore"]).exited(1).says(&[batch, says]);
        server.sql(&database, "DELETE FROM logs WHERE created_at < now() - interval '10 days'");
    }
    std::fs::remove_file(&manifest).unwrap();
    scenario.run(&["archives", "list"]).succeeded().says(&[batch, "its .json is gone"]);
}

#[test]
fn client_tools_know_no_keys_tokens_or_passwords_that_are_not_theirs() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database).backup_job("local", "");
    // A folder of tools of which each writes down what it knows.
    let folder = scenario.path("tools");
    std::fs::create_dir(&folder).unwrap();
    for tool in ["pg_dump", "pg_dumpall", "psql"] {
        let real = server.bin_dir.join(tool);
        let script = format!("#!/bin/sh\nenv >> {}\nexec {} \"$@\"\n", scenario.path("known").display(), real.display());
        std::fs::write(folder.join(tool), script).unwrap();
        std::fs::set_permissions(folder.join(tool), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = std::fs::read_to_string(scenario.path("config.toml")).unwrap();
    let config = config.replace(&server.bin_dir.display().to_string(), &folder.display().to_string());
    std::fs::write(scenario.path("config.toml"), config).unwrap();
    let secrets =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGTEND_TOKEN", "WEBHOOK_URL", "OTHER_DATABASE_URL"];
    for arguments in [["run-job", "nightly"], ["check", "--connect"]] {
        let mut command = scenario.command(&arguments);
        command.envs(secrets.map(|name| (name, "a-secret")));
        command.env("KRB5_CONFIG", "/etc/krb5.other").env("LC_TIME", "C").env("LD_PRELOAD", "").env("PGSERVICEFILE", "/nowhere");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let known = std::fs::read_to_string(scenario.path("known")).unwrap();
    assert!(!known.contains("a-secret"), "{known}");
    for needed in ["PATH=", "HOME=", "PGHOST=", "PGDATABASE=", "KRB5_CONFIG=/etc/krb5.other", "LC_TIME=C", "LC_MESSAGES=C"] {
        assert!(known.lines().any(|line| line.starts_with(needed)), "{needed}: {known}");
    }
    let expected = [
        "PATH",
        "HOME",
        "LANG",
        "TZ",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "KRB5_CONFIG",
        "USER",
        "LOGNAME",
    ];
    for line in known.lines() {
        let name = line.split('=').next().unwrap();
        let is_known = expected.contains(&name)
            || name.starts_with("PG")
            || name.starts_with("LC_")
            || name == "TMPDIR"
            || name == "LD_LIBRARY_PATH";
        assert!(is_known, "{line}");
    }
}
