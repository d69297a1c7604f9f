//! Commands without a server: what is checked, listed and said.

use serde_json::Value;

use crate::support::Scenario;

const DATABASE_AND_STORE: &str = "[databases.app]\nurl = 'postgres://nobody@127.0.0.1:1/app'\n[stores.local]\npath = \"store\"\n";

fn scenario() -> Scenario {
    Scenario::empty().config(DATABASE_AND_STORE)
}

#[test]
fn check_reports_every_mistake_of_every_file_at_once() {
    let scenario = scenario()
        .config("[stores.both]\npath = \"x\"\nbucket = \"y\"\n[stores.neither]\n")
        .job("a", "shedule = \"@daily\"\ndatabase = \"ap\"\n[backup]\nstore = \"locl\"\nkeep = { last = 0 }\nlevel = 99\n")
        .job("b", "schedule = \"0 0 31 2 *\"\ntimezone = \"Europe/Berln\"\ntimeout = \"soon\"\n")
        .job("c", "database = \"app\"\n");
    let checked = scenario.run(&["check"]).exited(78);
    checked.says(&[
        "store `both` has a `path` and a `bucket`",
        "store `neither` has neither",
        "unknown key `shedule`",
        "did you mean `schedule`?",
        "the configuration has no database `ap`",
        "did you mean `app`?",
        "the configuration has no store `locl`",
        "did you mean `local`?",
        "`keep` keeps nothing",
        "level 99 does not exist",
        "never runs",
        "did you mean `Europe/Berlin`?",
        "`soon` is not a length of time",
        "no task",
        "jobs/a.toml:1:1",
    ]);
}

#[test]
fn mistakes_are_given_as_json_with_line_and_column() {
    let output = scenario()
        .job("a", "database = \"app\"\n\n  shedule = 1\n[backup]\nstore = \"local\"\n")
        .run(&["check", "--json"])
        .exited(78);
    let json: Value = serde_json::from_str(&output.stdout).unwrap();
    let problem = &json["problems"][0];
    assert_eq!((problem["line"].as_u64(), problem["column"].as_u64()), (Some(3), Some(3)), "{json}");
    assert_eq!(problem["hint"], "did you mean `schedule`?");
}

#[test]
fn a_run_refuses_what_check_refuses() {
    let scenario = scenario().backup_job("local", "shedule = 1");
    for arguments in [&["check"][..], &["run-job", "nightly"]] {
        scenario.run(arguments).exited(78).says(&["unknown key `shedule`"]);
    }
    // A list is of those that are right, and says which is not.
    scenario.run(&["jobs"]).succeeded().says(&["job `nightly` is skipped", "unknown key `shedule`"]);
}

#[test]
fn a_missing_configuration_or_folder_of_jobs_is_named() {
    Scenario::empty().run(&["jobs"]).exited(78).says(&["config.toml", "--config"]);
    scenario().run(&["jobs", "--jobs", "elsewhere"]).exited(78).says(&["elsewhere", "--jobs"]);
}

#[test]
fn an_unknown_job_gets_a_hint() {
    scenario()
        .backup_job("local", "")
        .run(&["run-job", "nighlty"])
        .exited(78)
        .says(&["no job `nighlty`", "did you mean `nightly`?"]);
}

#[test]
fn a_filter_that_names_no_job_and_no_database_gets_a_hint() {
    let scenario = scenario().backup_job("local", "");
    scenario
        .run(&["backups", "list", "--job", "nighlty"])
        .exited(78)
        .says(&["no set of a job `nighlty`", "did you mean `nightly`?"]);
    scenario.run(&["backups", "list", "--database", "ap"]).exited(78).says(&["no set of a database `ap`", "did you mean `app`?"]);
    scenario.run(&["backups", "list", "--job", "nightly"]).succeeded().prints(&["no sets"]);
    // On a new host there are no jobs.
    let bare = Scenario::empty().config(DATABASE_AND_STORE);
    bare.run(&["backups", "list", "--job", "nightly"]).exited(78).says(&["there is none"]);
}

#[test]
fn a_target_without_a_database_is_refused() {
    let scenario = scenario().backup_job("local", "");
    for url in ["postgres://someone@127.0.0.1:1", "postgres://someone@127.0.0.1:1/?sslmode=disable"] {
        let restore = ["backups", "restore", "latest", "--into", url];
        scenario.run(&restore).exited(78).says(&[
            "--into names no database",
            "postgres://someone@127.0.0.1:1/NAME",
            "would be `someone`",
        ]);
    }
    scenario
        .run(&["backups", "restore", "latest", "--into", "postgres://someone@127.0.0.1:1/x"])
        .exited(78)
        .says(&["no set `latest`"]);
}

#[test]
fn mistakes_are_told_without_the_programs_own_names() {
    let scenario = scenario().backup_job("local", "keep = \"7 days\"\nthreads = \"many\"\nschemas = \"app\"\nlevel = true");
    let output = scenario.run(&["check"]).exited(78).says(&[
        "found the text \"7 days\", expected a table of keys",
        "found the text \"many\", expected a whole number",
        "found the text \"app\", expected a list",
        "found true, expected a whole number",
    ]);
    for word in ["struct", "Keep", "usize", "i32", "sequence"] {
        assert!(!output.stderr.contains(word), "{word}: {}", output.stderr);
    }
}

#[test]
fn a_cause_is_said_once() {
    let scenario = scenario().backup_job("local", "");
    let output = scenario.run(&["check", "--connect"]).exited(69);
    let line = output.stdout.lines().find(|line| line.contains("database app ")).unwrap();
    assert_eq!(line.matches("onnection refused").count(), 1, "{line}");
}

#[test]
fn credentials_that_nobody_has_are_said_in_words() {
    let scenario = Scenario::empty()
        .config("[stores.bucket]\nbucket = \"backups\"\nregion = \"us-east-1\"\nendpoint = \"http://127.0.0.1:1\"\n")
        .env("AWS_EC2_METADATA_DISABLED", "false")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/");
    let output = scenario.run(&["backups", "list"]);
    assert!(output.code != Some(0) && output.stderr.contains("credentials"), "{output:?}");
    for word in ["DispatchFailure", "FailedToLoadToken", "ConnectorError", "imds"] {
        assert!(!output.stderr.contains(word), "{word}: {}", output.stderr);
    }
}

#[test]
fn wrong_usage_exits_with_64_and_help_with_0() {
    scenario().run(&["run-jb"]).exited(64).says(&["run-job"]);
    scenario().run(&["run-job"]).exited(64);
    scenario().run(&["--help"]).exited(0).prints(&["run-job", "Exit codes"]);
    scenario().run(&["--version"]).exited(0).prints(&["pgtend 0."]);
}

#[test]
fn jobs_lists_schedules_in_the_jobs_zone() {
    let scenario = scenario().job("nightly", "description = \"Nightly dump\"\nschedule = \"30 2 * * *\"\ntimezone = \"Asia/Tokyo\"\ndatabase = \"app\"\n[backup]\nstore = \"local\"\n");
    scenario.run(&["jobs"]).succeeded().prints(&["nightly", "02:30", "JST", "Nightly dump"]);
    let json = scenario.json(&["jobs"]);
    assert_eq!(json["jobs"][0]["timezone"], "Asia/Tokyo");
    assert!(json["jobs"][0]["next_run_at"].as_str().unwrap().contains("T02:30:00+09:00"), "{json}");
}

#[test]
fn a_server_that_is_not_there_exits_with_69_and_is_named() {
    let scenario = scenario().backup_job("local", "");
    scenario.run(&["run-job", "nightly"]).exited(69).says(&["database `app`", "nobody@127.0.0.1:1/app"]);
    scenario.run(&["check", "--connect"]).exited(69).prints(&["FAILED", "nobody@127.0.0.1:1/app"]);
}

#[test]
fn no_secret_reaches_any_output() {
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = 'postgres://someone:hunter2@127.0.0.1:1/app?connect_timeout=1'\n[stores.local]\npath = \"store\"\n")
        .backup_job("local", "");
    for arguments in [
        &["check", "--connect"][..],
        &["run-job", "nightly"],
        &["jobs", "--json"],
        &["run-job", "nightly", "--json", "--log", "trace"],
    ] {
        let output = scenario.run(arguments);
        assert!(!output.stdout.contains("hunter2") && !output.stderr.contains("hunter2"), "{output:?}");
    }
    let broken = Scenario::empty().config("[databases.app]\nurl = 'postgres://someone:hunter2@host:port/app'\nurll = 1\n");
    let output = broken.run(&["check"]).exited(78);
    assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    let output = scenario.run(&["backups", "restore", "latest", "--into", "postgres://a:hunter2@host/x"]).exited(78);
    assert!(output.stderr.contains("PGPASSWORD") && !output.stderr.contains("hunter2"), "{}", output.stderr);
}

#[test]
fn urls_come_from_the_environment_or_a_file_too() {
    let scenario =
        Scenario::empty().config("[databases.a]\nurl_env = \"A_URL\"\n[databases.b]\nurl_file = \"secret\"\n[databases.c]\n");
    scenario.run(&["check"]).exited(78).says(&["no variable `A_URL`", "cannot read"]);
    std::fs::write(scenario.path("secret"), "postgres://b@host/b\n").unwrap();
    scenario.env("A_URL", "postgres://a@host/a").run(&["check"]).succeeded();
}

#[test]
fn schema_completions_and_manual_pages_are_generated() {
    let scenario = Scenario::empty();
    let schema: Value = serde_json::from_str(&scenario.run(&["schema"]).succeeded().stdout).unwrap();
    assert!(
        schema["job"]["properties"]["backup"].is_object() && schema["config"]["properties"]["stores"].is_object(),
        "{schema}"
    );
    // What they offer: command_line.rs.
    scenario.run(&["completions", "bash"]).succeeded().prints(&["complete -o nospace", "PGTEND_COMPLETE=\"bash\""]);
    scenario.run(&["man"]).succeeded().prints(&[".TH", "pgtend"]);
    scenario.run(&["man", "pages"]).succeeded();
    assert!(scenario.files("pages").iter().any(|file| file == "pgtend-run-job.1"), "{:?}", scenario.files("pages"));
}

#[test]
fn an_empty_store_lists_no_sets() {
    scenario().run(&["backups", "list"]).succeeded().prints(&["no sets"]);
    scenario().run(&["backups", "verify", "latest"]).exited(78).says(&["no set `latest`"]);
    scenario().run(&["backups", "list", "--store", "other"]).exited(78).says(&["no store `other`", "local"]);
}
