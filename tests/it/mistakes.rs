//! What people who write their first files are told of their mistakes: what is wrong, what is allowed, and what to write.

use std::fs;
use std::path::{Path, PathBuf};

use pgtend::base::toml_file::Problem;
use pgtend::config;
use pgtend::run::job;
use serde_json::{Value, json};

use crate::support::Scenario;
use crate::support::json_schema::Validator;

#[path = "fixtures/mistakes.rs"]
mod table;

use table::MISTAKES;

/// The file that has the mistake.
#[derive(Clone, Copy, PartialEq)]
pub enum File {
    Config,
    Job,
}

const DATABASE: &str = "[databases.app]\nurl = \"postgres://pgtend@localhost/app\"\n";
const STORE: &str = "[stores.local]\npath = \"/nowhere/store\"\n";
const LEDGER: &str = "[ledger]\ndatabase = \"app\"\n";
const JOB: &str = "database = \"app\"\nschedule = \"0 2 * * *\"\n[backup]\nstore = \"local\"\nkeep = { last = 3 }\n";

/// Mistakes that are none of the file's form: names that do not exist, other files, the calendar, and what goes together.
const NOT_OF_THE_FORM: &[&str] = &[
    "limits in backup",
    "unknown db",
    "unknown store",
    "cron feb 31",
    "tz abbreviation",
    "tz city",
    "timeout huge",
    "after self",
    "after unknown",
    "retention archive unknown",
    "vector mem",
    "audit check",
    "ping file missing",
    "env ref",
    "db sslmode",
    "db port",
    "db pw at",
    "db pw hash",
    "db env unset",
    "db file missing",
    "ledger unknown",
    "serve port large",
    "notify url in place of file",
    "notify password in place of file",
    "notify url in place of variable",
    "notify file missing",
    "notify digest never",
    "notify tls none",
    "notify webhook named twice",
    "override unknown",
    "keep in",
    "retain number",
    "waive until text",
    "tz EST-like",
    "store lock short",
    "verify memory",
];

/// Words of Rust, serde, the TOML parser and the cron parser.
const WORDS_OF_THE_PROGRAM: &[&str] = &[
    "field `",
    "fields `",
    "untagged",
    "enum",
    "struct",
    "u32",
    "u64",
    "i64",
    "f64",
    "usize",
    "Component error",
    "CronPattern",
    "illegal character",
    "`nan`",
    "sequence",
    "variant",
    "a map",
    "invalid type",
    "invalid value",
    "missing field",
    "unknown field",
    "expected one of",
    "literal string",
    "basic string",
    "Some(",
    "None,",
    "os error",
    "panicked",
    "Spanned",
    "unicode value",
];

/// Returns the text of config.toml and of the job, of which one has the mistake.
fn files(file: File, text: &str) -> (String, String) {
    if file == File::Job {
        return (format!("{DATABASE}{STORE}{LEDGER}"), text.to_owned());
    }
    let mut rest = String::new();
    if !text.contains("databases") {
        rest += DATABASE;
    }
    if !text.contains("[stores.local]") {
        rest += STORE;
    }
    // Keys without a table come first.
    let config = if text.starts_with('[') { format!("{rest}{text}") } else { format!("{text}{rest}") };
    (config, JOB.to_owned())
}

fn folder_of(scenario: &Scenario) -> PathBuf {
    scenario.path("config.toml").parent().unwrap().to_owned()
}

/// Reads both files as every command does.
fn problems(folder: &Path, config: &str, job: &str) -> Vec<Problem> {
    fs::create_dir_all(folder.join("jobs")).unwrap();
    fs::write(folder.join("config.toml"), config).unwrap();
    fs::write(folder.join("jobs/j.toml"), job).unwrap();
    let mut problems = Vec::new();
    if let Some(config) = config::load(&folder.join("config.toml"), &mut problems) {
        problems
            .extend(job::load_dir(&folder.join("jobs"), &config).unwrap_or_else(|_| panic!("the folder is there")).problems());
    }
    problems
}

/// `3: message / hint`, without the folder of the test.
fn told(folder: &Path, problems: &[Problem]) -> Vec<String> {
    let rows = json!(pgtend::base::toml_file::Problems(problems.to_vec()).mistakes());
    let text = |row: &Value| {
        let line = row["line"].as_u64().map(|line| format!("{line}: ")).unwrap_or_default();
        let hint = row["hint"].as_str().map(|hint| format!(" / {hint}")).unwrap_or_default();
        let told = format!("{line}{}{hint}", row["message"].as_str().unwrap());
        told.replace(&format!("{}/", folder.display()), "")
    };
    rows.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn each_typical_mistake_is_told_once_with_what_to_write() {
    assert!(MISTAKES.len() >= 150, "{}", MISTAKES.len());
    let scenario = Scenario::empty();
    let folder = folder_of(&scenario);
    let mut wrong = Vec::new();
    for (name, file, text, expected) in MISTAKES {
        let (config, job) = files(*file, text);
        let told = told(&folder, &problems(&folder, &config, &job));
        if told != *expected {
            wrong.push(format!("{name}\n     told: {told:#?}\n expected: {expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_mistake_is_told_in_words_of_the_program() {
    let scenario = Scenario::empty();
    for (name, file, text, _) in MISTAKES {
        let (config, job) = files(*file, text);
        let found = problems(&folder_of(&scenario), &config, &job);
        let drawn = pgtend::base::toml_file::Problems(found).render(false);
        // What the user wrote is drawn as well, and may be anything.
        for word in WORDS_OF_THE_PROGRAM.iter().filter(|word| !text.contains(**word)) {
            assert!(!drawn.contains(word), "{name}: `{word}` in\n{drawn}");
        }
        assert!(!drawn.contains("hunter2"), "{name}: a password in\n{drawn}");
    }
}

/// Where people put a secret: `%s` is it.
const WITH_SECRETS: &[(File, &str)] = &[
    (File::Config, "[databases.app]\npassword = %s\n"),
    (File::Config, "[databases.app]\npass = %s!\n"),
    (File::Config, "[databases.app]\nurl = [\"u:%s@db/app\"]\n"),
    (File::Config, "[databases.app]\nurl_env = \"host=x password=%s\"\n"),
    (File::Config, "[databases.app]\nurl_env = \"%s\"\n"),
    (File::Config, "[databases]\na = \"u:%s@h/db\"\n"),
    (File::Config, "[stores.local]\nkey_id = %s/x\n"),
    (File::Config, "[stores.local]\npath = \"x\"\nsign_key_env = \"%s\"\n"),
    (File::Config, "[stores.local]\ncontainer = \"c\"\naccount = \"aaaa\"\ncredentials_env = \"%s\"\n"),
    (File::Config, "[stores.local]\nbucket = \"c\"\nendpoint = \"k:%s@h\"\n"),
    (File::Config, "[serve]\ntoken_file = [\"%s\"]\n"),
    (File::Config, "[serve]\ntoken_env = \"the-%s\"\n"),
    (File::Config, "[ledger]\ndatabase = \"postgres://u:%s@h/x\"\n"),
    (File::Config, "[databases.app]\nurl_file = \"%s\"\n"),
    (File::Config, "[notify]\nslack = \"https://hooks.slack.example/%s\"\n"),
    (File::Config, "[notify]\nwebhook_url = \"hooks.example/%s\"\n"),
    (File::Config, "[notify]\nwebhook_url_file = \"%s\"\n"),
    (File::Config, "[notify.ops]\nkind = \"slack\"\nurl = \"https://hooks.slack.example/%s\"\n"),
    (File::Config, "[notify.ops]\nkind = \"slack\"\nurl_file = \"https://hooks.slack.example/%s\"\n"),
    (File::Config, "[notify.ops]\nkind = \"slack\"\nurl_file = \"hooks.slack.example/%s\"\n"),
    (File::Config, "[notify.ops]\nkind = \"slack\"\nurl_env = \"https://hooks.slack.example/%s\"\n"),
    (File::Config, "[notify.ops]\nkind = \"slack\"\nurl_file = [\"https://hooks.slack.example/%s\"]\n"),
    (File::Config, "[notify.ops]\nkind = \"telegram\"\ntoken_file = \"123456:%s\"\nchat = \"1\"\n"),
    (File::Config, "[notify.ops]\nkind = \"telegram\"\ntoken = \"123456:%s\"\nchat = \"1\"\n"),
    (
        File::Config,
        "[notify.ops]\nkind = \"mail\"\nhost = \"h.example\"\nuser = \"u\"\npassword_file = \"%s\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\n",
    ),
    (
        File::Config,
        "[notify.ops]\nkind = \"mail\"\nhost = \"smtp://u:%s@h.example\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\n",
    ),
    (File::Job, "notify = [\"https://hooks.slack.example/%s\"]\ndatabase = \"app\"\n[backup]\nstore = \"local\"\n"),
    (File::Config, "[ledger]\ndatabase = \"u:%s@h/x\"\n"),
    (File::Job, "database = \"postgres://u:%s@h/x\"\n[backup]\nstore = \"local\"\n"),
    (File::Job, "database = \"u:%s@h/x\"\n[backup]\nstore = \"local\"\n"),
    (File::Job, "databases = [\"app\", \"u:%s@h/x\"]\n[backup]\nstore = \"local\"\n"),
    (File::Job, "database = \"app\"\n[backup]\nstore = \"s3://KEY:%s@b\"\n"),
    (File::Job, "database = \"app\"\n[backup]\nstore = \"k:%s@b\"\n"),
    (File::Job, "database = \"app\"\nping_url = [\"hc-ping.com/%s\"]\n[backup]\nstore = \"local\"\n"),
    (File::Job, "database = \"app\"\nping_url_env = \"hc/%s\"\n[backup]\nstore = \"local\"\n"),
    (File::Job, "database = \"app\"\n[sql]\nstatements = \"ALTER ROLE x PASSWORD '%s'\"\n"),
];

#[test]
fn no_mistake_shows_a_secret_wherever_it_was_put() {
    let scenario = Scenario::empty();
    let mut shown = Vec::new();
    for (file, text) in WITH_SECRETS {
        let (config, job) = files(*file, &text.replace("%s", "hunter2Secret"));
        let folder = folder_of(&scenario);
        let found = problems(&folder, &config, &job);
        assert!(!found.is_empty(), "{text} is a mistake");
        let mut said = told(&folder, &found);
        said.extend(found.iter().map(Problem::in_a_line));
        said.push(pgtend::base::toml_file::Problems(found).render(false));
        shown.extend(said.into_iter().filter(|said| said.contains("hunter2")).map(|said| format!("{text}\n  {said}")));
    }
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

#[test]
fn a_word_for_true_or_false_is_never_guessed() {
    let scenario = Scenario::empty();
    for (word, expected) in [
        ("disabled", "enabled = false"),
        ("Inactive", "enabled = false"),
        ("n", "enabled = false"),
        ("yes", "enabled = true"),
        ("maybe", "enabled = true, or enabled = false"),
        ("nein", "enabled = true, or enabled = false"),
    ] {
        let (config, job) = files(File::Job, &format!("enabled = \"{word}\"\n{JOB}"));
        let found = problems(&folder_of(&scenario), &config, &job);
        assert_eq!(found[0].hint.as_deref(), Some(format!("without quotation marks: {expected}").as_str()), "{word}");
    }
}

#[test]
fn every_mistake_says_what_to_do() {
    let scenario = Scenario::empty();
    for (name, file, text, _) in MISTAKES {
        let (config, job) = files(*file, text);
        for problem in problems(&folder_of(&scenario), &config, &job) {
            let says = |words: &[&str]| words.iter().any(|word| problem.message.contains(word));
            let is_enough = says(&[
                "write",
                "did you mean",
                " is 0 to ",
                " is 1 to ",
                "as in ",
                "@daily",
                "every day at",
                "WantedBy",
                "name a place",
                "is L:",
                "leave it out",
            ]);
            assert!(problem.hint.is_some() || is_enough, "{name}: {}", problem.message);
        }
    }
}

fn schema(which: &str) -> Value {
    let output = Scenario::empty().run(&["schema", which]).succeeded();
    serde_json::from_str(&output.stdout).unwrap()
}

/// TOML as JSON; dates as texts, as editors see them.
fn as_json(text: &str) -> Option<Value> {
    fn value(of: toml::Value) -> Value {
        match of {
            toml::Value::String(text) => json!(text),
            toml::Value::Integer(number) => json!(number),
            toml::Value::Float(number) => json!(number),
            toml::Value::Boolean(is) => json!(is),
            toml::Value::Datetime(date) => json!(date.to_string()),
            toml::Value::Array(values) => values.into_iter().map(value).collect(),
            toml::Value::Table(keys) => keys.into_iter().map(|(key, inner)| (key, value(inner))).collect(),
        }
    }
    text.parse::<toml::Table>().ok().map(|table| value(toml::Value::Table(table)))
}

#[test]
fn the_schema_refuses_what_check_refuses_and_nothing_that_is_shipped() {
    let (of_config, of_job) = (schema("config"), schema("job"));
    let (config, job) = (Validator::new(&of_config), Validator::new(&of_job));
    let mut passed = Vec::new();
    for (name, file, text, _) in MISTAKES {
        let validator = if *file == File::Job { &job } else { &config };
        let (of_config, of_job) = files(*file, text);
        // What is no TOML reaches no schema.
        let Some(value) = as_json(if *file == File::Job { &of_job } else { &of_config }) else { continue };
        if validator.mistake(&value).is_none() {
            passed.push(*name);
        }
    }
    assert_eq!(passed, NOT_OF_THE_FORM);
    assert_eq!(config.mistake(&as_json(&format!("{DATABASE}{STORE}{LEDGER}")).unwrap()), None);
    assert_eq!(job.mistake(&as_json(JOB).unwrap()), None);
    assert_eq!(config.mistake(&as_json(&fs::read_to_string("config.toml").unwrap()).unwrap()), None);
    for entry in fs::read_dir("jobs").unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(job.mistake(&as_json(&fs::read_to_string(&path).unwrap()).unwrap()), None, "{}", path.display());
    }
}

#[test]
fn the_schema_takes_every_way_to_write_a_schedule_or_a_length_of_time() {
    let of_job = schema("job");
    let validator = Validator::new(&of_job);
    let with = |key: &str, value: &str| json!({ "database": "app", "sql": { "statements": ["ANALYZE"] }, key: value });
    for schedule in [
        "0 2 * * *",
        "30 0 2 * * *",
        "@daily",
        "@Hourly",
        "*/5 * * * mon-fri",
        "0 0 1-7 * +*/7",
        "0 0 LW * *",
        "0 0 * * 5#2",
        "0 0 * * 5L",
        "0 0 15W * *",
        "0 22-23,0-4 * JAN-mar sun",
        "05 09 * * 7",
        "0 0 ? * 1",
    ] {
        assert_eq!(validator.mistake(&with("schedule", schedule)), None, "{schedule}");
    }
    for schedule in ["0 25 * * *", "60 2 * * *", "0 2 32 * *", "0 2 * 13 *", "0 2 * * 8", "0 2 * *", "@reboot", "02:00"] {
        assert!(validator.mistake(&with("schedule", schedule)).is_some(), "{schedule}");
    }
    for timeout in ["30s", "1h 30m", "1h30m", "2 hours", "90 days", "3months", "1.5h", "500ms", "10y"] {
        assert_eq!(validator.mistake(&with("timeout", timeout)), None, "{timeout}");
    }
    for timeout in ["30", "0s", "0h 0m", "-1h", "3 fortnights", "", "h"] {
        assert!(validator.mistake(&with("timeout", timeout)).is_some(), "{timeout}");
    }
}

#[test]
fn the_schema_describes_every_key() {
    fn undescribed(schema: &Value, place: &str, found: &mut Vec<String>) {
        for (key, inner) in schema.as_object().into_iter().flatten() {
            if key == "properties" && !place.ends_with("not") {
                for (name, property) in inner.as_object().unwrap() {
                    if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                        found.push(format!("{place}/{name}"));
                    }
                }
            }
            undescribed(inner, &format!("{place}/{key}"), found);
        }
        schema.as_array().into_iter().flatten().for_each(|inner| undescribed(inner, place, found));
    }
    for which in ["config", "job"] {
        let mut found = Vec::new();
        undescribed(&schema(which), which, &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_a_note() {
    let scenario = Scenario::empty().config(&format!("{DATABASE}{STORE}")).job("j", &format!("timeout = \"2M\"\n{JOB}"));
    let jobs = folder_of(&scenario).join("jobs");
    fs::create_dir(jobs.join("sub")).unwrap();
    for name in ["sub/x.toml", "x.yml", "x.toml~", "x.toml.bak", "job.txt", ".hidden.toml~", "README.md"] {
        fs::write(jobs.join(name), "").unwrap();
    }
    let output = scenario.run(&["check"]).succeeded().prints(&[
        "timeout = \"2M\": `M` means months; write `m` for minutes",
        "jobs/x.yml is not read",
        "jobs/x.toml~ is not read: a job's name ends in .toml",
        "jobs/x.toml.bak is not read",
        "jobs/job.txt is not read",
        "jobs/sub is a folder, and is not read: it has 1 file in TOML",
    ]);
    assert!(!output.stdout.contains("hidden") && !output.stdout.contains("README"), "{}", output.stdout);
}

#[test]
fn pages_that_everybody_may_read_and_a_time_of_day_with_a_star_too_many_are_notes() {
    const STARS: &str = "j: schedule `0 2 * * * *`: it has six fields, so that the first is the second: it runs each hour, at minute 2. For 02:00 each day write `0 2 * * *`";
    let checked = |serve: &str, schedule: &str| {
        let config = format!("{DATABASE}{STORE}{serve}");
        let scenario = Scenario::empty().config(&config).job("j", &JOB.replace("0 2 * * *", schedule));
        fs::write(folder_of(&scenario).join("token"), "0123456789abcdef").unwrap();
        fs::write(folder_of(&scenario).join("url"), "https://hooks.slack.com/services/T0/B0/x").unwrap();
        let output = scenario.run(&["check"]).succeeded();
        output.stdout.lines().filter_map(|line| Some(line.strip_prefix("WARNING: ")?.to_owned())).collect::<Vec<_>>()
    };
    for address in ["0.0.0.0:9187", "[::]:9187", "192.0.2.1:9187"] {
        let notes = checked(&format!("[serve]\nlisten = \"{address}\"\n"), "0 2 * * *");
        let says = format!("[serve]: listen = \"{address}\" without a token: whoever reaches this address can read");
        assert!(notes.len() == 1 && notes[0].starts_with(&says), "{notes:?}");
        assert!(
            notes[0].contains("Write token_file = \"/path\"") && notes[0].ends_with("listen = \"127.0.0.1:9187\""),
            "{notes:?}"
        );
    }
    for serve in ["", "[serve]\nlisten = \"[::1]:9187\"\n", "[serve]\nlisten = \"0.0.0.0:9187\"\ntoken_file = \"token\"\n"] {
        assert_eq!(checked(serve, "2 * * * *"), [""; 0], "{serve}");
    }
    let notes = checked("", "0 2 * * * *");
    assert!(notes.len() == 1 && notes[0].starts_with(STARS), "{notes:?}");
    let notes = checked("[notify.ops]\nkind = \"slack\"\nurl_file = \"url\"\ndigest = \"0 8 * * * 1\"\n", "@daily");
    assert!(
        notes.len() == 1 && notes[0].starts_with("[notify.ops] digest: schedule `0 8 * * * 1`: it has six fields"),
        "{notes:?}"
    );
}
