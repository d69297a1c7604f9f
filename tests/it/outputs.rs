//! What commands print with `--json` is what `pgtend schema output` says, and a failure is JSON, too.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use clap::CommandFactory as _;
use pgtend::cli::{Arguments, outputs};
use serde_json::Value;

use crate::support::json_schema::is_as_output;
use crate::support::postgres::server;
use crate::support::{Scenario, scripts};

/// Everything that a command may be about: sets in two stores, rows in an archive, tables to convert and to compress.
fn scenario() -> Scenario {
    let server = server(18);
    let database = server.trusted_database();
    server.sql(
        &database,
        &format!(
            "{} INSERT INTO scripts (content) SELECT repeat('x', 5000) FROM generate_series(1, 20);
             CREATE TABLE logs (id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, created_at));
             INSERT INTO logs (created_at) SELECT now() - make_interval(days => i) FROM generate_series(1, 50) i",
            scripts::TABLE
        ),
    );
    Scenario::with_database(server, &database)
        .config("[stores.two]\npath = \"two\"\n")
        .ledger()
        .backup_job("local", "verify = \"restore\"\nkeep = { last = 5 }")
        .job("scripts", &scripts::job(""))
        .job("logs", "database = \"app\"\n[partition]\ntable = \"public.logs\"\ncolumn = \"created_at\"\nevery = \"month\"\n")
        .job("old", "database = \"app\"\n[retention]\ntable = \"public.logs\"\ncolumn = \"created_at\"\nolder_than = \"30d\"\narchive = \"local\"\n")
}

#[test]
fn every_command_prints_json_as_its_schema_says() {
    let scenario = scenario();
    for _ in 0..2 {
        scenario.run(&["run-job", "nightly"]).succeeded();
    }
    scenario.run(&["run-job", "old", "--yes"]).succeeded();
    let sets = scenario.sets();
    let listed = scenario.json(&["backups", "list"]);
    let identity = listed["sets"][0]["identity"].as_str().unwrap();
    let dump = scenario.path("old.sql").display().to_string();
    std::fs::write(&dump, stock_dump(&scenario, &sets[0])).unwrap();
    let rows = scenario.path("rows.sql").display().to_string();
    let server = server(18);
    let new = format!("{}_restored", server.new_database());
    server.drop_with_test(&new);
    let into = server.url(&new);
    let commands: &[(&str, &[&str])] = &[
        ("", &[]),
        ("init", &["--dry-run"]),
        ("check", &["--connect"]),
        ("doctor", &[]),
        ("jobs", &[]),
        ("run-job", &["scripts", "--dry-run"]),
        ("runs", &[]),
        ("runs show", &["1"]),
        ("logs", &["1"]),
        ("partition convert", &["logs", "--dry-run"]),
        ("compress install", &["scripts", "--dry-run"]),
        ("compress undo", &["scripts", "--dry-run"]),
        ("backups list", &[]),
        ("backups show", &["latest"]),
        ("backups verify", &["latest"]),
        ("backups copy", &["latest", "--to", "two", "--dry-run"]),
        ("backups copy", &["latest", "--to", "two"]),
        ("backups diff", &[&sets[0], &sets[1]]),
        ("backups certificate", &["latest"]),
        ("backups fetch", &["latest", "--table", "public.scripts", "--output", &rows]),
        ("backups restore", &["latest", "--into", &into, "--create", "--check-rows"]),
        ("backups restore", &["latest", "--into", &into, "--table", "public.scripts", "--as", "public.other"]),
        ("backups restore", &["latest", "--into", &into, "--table", "public.scripts", "--merge", "insert-missing", "--dry-run"]),
        ("backups prune", &["--dry-run"]),
        ("backups require", &["--database", "app", "--within", "1d"]),
        ("backups hold", &["latest", "--until", "2099-12-31", "--reason", "before the migration"]),
        ("backups release", &["latest"]),
        ("backups accept", &["--identity", identity]),
        ("backups adopt", &[&dump, "--database", "app", "--store", "local"]),
        ("archives list", &[]),
        ("archives restore", &["--dry-run"]),
        ("archives restore", &[]),
        ("audit", &["--database", "app", "--fail-on", "never"]),
        ("audit explain", &[]),
        ("audit explain", &["fk-unindexed"]),
        ("notify digest", &[]),
        ("schema", &["output", "jobs"]),
    ];
    // `notify test` needs somebody who answers: messages.rs reads it.
    let mut seen = BTreeSet::from(["runs --follow", "notify test", "error"]);
    for (command, arguments) in commands {
        let words: Vec<&str> = command.split_whitespace().chain(arguments.iter().copied()).chain(["--json"]).collect();
        let output = scenario.run(&words);
        let printed: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {}{}", output.stdout, output.stderr));
        assert!(printed.get("error").is_none_or(Value::is_null), "{words:?}: {printed:#}");
        is_as_output(command, &printed);
        seen.insert(command);
    }
    assert_eq!(seen, outputs::commands().collect::<BTreeSet<_>>());
    // Each run that is followed is a line.
    let mut follow = scenario.command(&["runs", "--follow", "--json"]);
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let line = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    is_as_output("runs --follow", &serde_json::from_str(&line).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The dump of a set, as gunzip reads it.
fn stock_dump(scenario: &Scenario, set: &str) -> Vec<u8> {
    let dump = scenario.path(&format!("store/{set}/dump.sql.gz"));
    let mut gunzip = std::process::Command::new("gunzip");
    gunzip.arg("-c").arg(dump).output().unwrap().stdout
}

#[test]
fn a_schema_names_its_command_or_those_that_there_are() {
    let scenario = Scenario::empty();
    for command in outputs::commands().filter(|command| !command.contains("--")) {
        let words: Vec<&str> = ["schema", "output"].into_iter().chain(command.split_whitespace()).collect();
        let schema: Value = serde_json::from_str(&scenario.run(&words).succeeded().stdout).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{command}");
    }
    scenario.run(&["schema", "output", "backups", "lits"]).exited(78).says(&["did you mean `backups list`?"]);
    scenario.run(&["schema", "output", "serve"]).exited(78).says(&["these print JSON: init, check"]);
    scenario.run(&["schema", "config", "x"]).exited(78).says(&["only after `output`"]);
}

/// Each command that does something, with the arguments that it needs.
fn leaves(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
    for sub in command.get_subcommands() {
        let words = [path, &[sub.get_name().to_owned()]].concat();
        leaves(sub, &words, found);
        if !sub.is_subcommand_required_set() {
            // Either that or another one is needed.
            let needed = sub.get_arguments().filter(|argument| argument.is_required_set() || argument.get_id() == "set");
            let values = needed.flat_map(|argument| {
                let value = match argument.get_id().as_str() {
                    "id" => "1",
                    "within" => "1h",
                    "until" => "2099-12-31",
                    "shell" => "bash",
                    _ => "x",
                };
                argument.get_long().map(|long| format!("--{long}")).into_iter().chain([value.to_owned()])
            });
            found.push(words.iter().cloned().chain(values).collect());
        }
    }
}

#[test]
fn with_json_a_command_that_fails_prints_one_document_that_says_why() {
    // Nothing is there: no configuration, and no server.
    let scenario = Scenario::empty().env("PGHOST", "127.0.0.1").env("PGPORT", "1");
    let mut commands = Vec::new();
    leaves(&Arguments::command(), &[], &mut commands);
    assert!(commands.len() > 30, "{commands:?}");
    let need_nothing = ["schema", "completions", "man"];
    for words in commands.iter().filter(|words| !need_nothing.contains(&words[0].as_str())) {
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--json"]).collect();
        if arguments.starts_with(&["audit", "explain"]) {
            continue;
        }
        let output = scenario.run(&arguments);
        let code = output.code.unwrap();
        let failed: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}{}", output.stdout, output.stderr));
        is_as_output("error", &failed);
        assert_eq!(failed["error"]["exit_code"], Value::from(code), "{arguments:?}: {failed:#}");
        let expected = if words[0] == "init" { (69, "unreachable") } else { (78, "configuration") };
        assert_eq!((code, failed["error"]["kind"].as_str().unwrap()), expected, "{arguments:?}: {failed:#}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        // A command line that makes no sense.
        let wrong: Vec<&str> = arguments.iter().copied().chain(["--no-such-option"]).collect();
        let output = scenario.run(&wrong).exited(64);
        let failed: Value = serde_json::from_str(&output.stdout).unwrap();
        is_as_output("error", &failed);
        assert_eq!((&failed["error"]["kind"], &failed["error"]["exit_code"]), (&"usage".into(), &64.into()), "{failed:#}");
    }
}

#[test]
fn with_json_what_is_not_there_or_does_not_answer_is_told_in_one_document() {
    let server = server(18);
    let database = server.new_database();
    let scenario = Scenario::with_database(server, &database)
        .config("[servers.away]\nurl = 'postgres://nobody@127.0.0.1:1/postgres'\n[notify.ops]\nkind = \"webhook\"\nurl_env = \"HOOK\"\n")
        .env("HOOK", "http://127.0.0.1:1/")
        .ledger()
        .backup_job("local", "")
        .job("tenants", "databases = \"tenant_*\"\n[sql]\nstatements = [\"SELECT 1\"]\n");
    let file = scenario.path("config.toml/man").display().to_string();
    let commands: &[(&[&str], i32, &str)] = &[
        (&["logs", "99"], 1, "failed"),
        (&["runs", "show", "99"], 1, "failed"),
        (&["notify", "test", "nobody"], 78, "configuration"),
        (&["notify", "test", "ops"], 1, "failed"),
        (&["notify", "digest", "nobody"], 78, "configuration"),
        (&["notify", "digest", "ops"], 1, "failed"),
        (&["run-job", "tenants"], 69, "unreachable"),
        (&["run-job", "nightly", "--database", "nobody"], 78, "configuration"),
        (&["run-job", "nobody"], 78, "configuration"),
        (&["backups", "show", "latest"], 78, "configuration"),
        (&["audit", "explain", "nothing"], 78, "configuration"),
        (&["schema", "output", "backups", "lits"], 78, "configuration"),
        (&["schema", "config", "x"], 78, "configuration"),
        (&["schema", "nothing"], 64, "usage"),
        (&["completions", "nothing"], 64, "usage"),
        (&["man", &file], 1, "failed"),
    ];
    for (arguments, code, kind) in commands {
        let output = scenario.run(&[arguments, &["--json"][..]].concat());
        let failed: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}{}", output.stdout, output.stderr));
        is_as_output("error", &failed);
        let error = &failed["error"];
        assert_eq!(
            (output.code, &error["kind"], &error["exit_code"]),
            (Some(*code), &(*kind).into(), &(*code).into()),
            "{arguments:?}: {failed:#}"
        );
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{failed:#}");
    }
    // A server that does not answer is a finding of `doctor`, whose document is no failure.
    let output = scenario.run(&["doctor", "--json"]).exited(69);
    is_as_output("doctor", &serde_json::from_str(&output.stdout).unwrap());
}

#[test]
fn a_document_that_was_printed_is_followed_by_no_other_and_mistakes_keep_their_places() {
    let scenario = Scenario::empty()
        .config("[databases.app]\nurl = 'postgres://nobody@127.0.0.1:1/app'\n[stores.local]\npath = \"store\"\n")
        .backup_job("local", "");
    let output = scenario.run(&["check", "--connect", "--json"]).exited(69);
    is_as_output("check", &serde_json::from_str(&output.stdout).unwrap());
    let output = scenario.run(&["doctor", "--json"]).exited(69);
    is_as_output("doctor", &serde_json::from_str(&output.stdout).unwrap());
    let scenario = scenario.job("wrong", "shedule = 1\n");
    let output = scenario.run(&["check", "--json"]).exited(78);
    let failed: Value = serde_json::from_str(&output.stdout).unwrap();
    is_as_output("error", &failed);
    assert_eq!((&failed["error"]["kind"], &failed["problems"][0]["line"]), (&"configuration".into(), &1.into()), "{failed:#}");
    // Without --json, stdout has nothing.
    assert_eq!(scenario.run(&["check"]).exited(78).stdout, "");
}
