//! Help, manual pages, completions and what a terminal shows.

use std::path::Path;
use std::process::{Command, Stdio};

use clap::{CommandFactory as _, Parser as _};
use pgtend::cli::Arguments;

use crate::support::postgres::server;
use crate::support::{Scenario, ends_with_tests};

/// Each command with its path, `pgtend` itself among them.
fn each(command: &clap::Command, path: &str, look: &mut dyn FnMut(&str, &clap::Command)) {
    look(path, command);
    command.get_subcommands().for_each(|sub| each(sub, &format!("{path} {}", sub.get_name()), look));
}

/// The command of an example: without what is said of it, and without what a shell does with its output.
fn words(example: &str) -> Option<Vec<String>> {
    let command = example.trim().split("   ").next()?;
    let command = [" | ", " >", " && "].iter().fold(command, |command, end| command.split(end).next().unwrap_or(command));
    shlex::split(command)
}

#[test]
fn every_command_has_examples_in_its_help_that_make_sense() {
    let mut examples = 0;
    each(&Arguments::command(), "pgtend", &mut |path, command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let after = help.split_once("Examples:\n").unwrap_or_else(|| panic!("`{path} --help` has no examples")).1;
        let lines: Vec<&str> = after.split("\n\n").next().unwrap().lines().collect();
        assert!(!lines.is_empty(), "{path}");
        for line in lines {
            assert!(line.starts_with("  pgtend") && line.trim().starts_with(path), "{path}: {line}");
            assert!(line.chars().count() <= 100, "clap would wrap it: {line}");
            let words = words(line).unwrap_or_else(|| panic!("{path}: {line}"));
            if let Err(error) = Arguments::try_parse_from(&words) {
                panic!("{path}: {line}\n{words:?}: {error}");
            }
            examples += 1;
        }
    });
    assert!(examples > 60, "{examples}");
    // They are printed as they stand.
    Scenario::empty().run(&["backups", "list", "--help"]).exited(0).prints(&["Examples:\n  pgtend backups list "]);
}

#[test]
fn manual_pages_have_examples_files_and_variables_and_are_read_without_a_complaint() {
    let scenario = Scenario::empty();
    scenario.run(&["man", "pages"]).succeeded();
    let pages = scenario.files("pages");
    assert!(pages.len() > 30 && pages.contains(&"pgtend-backups-list.1".to_owned()), "{pages:?}");
    for page in &pages {
        let text = std::fs::read_to_string(scenario.path("pages").join(page)).unwrap();
        for section in ["EXAMPLES", "FILES", "ENVIRONMENT"] {
            assert!(text.contains(&format!(".SH {section}\n")), "{page} has no {section}: {text}");
        }
    }
    let text = std::fs::read_to_string(scenario.path("pages/pgtend-run-job.1")).unwrap();
    assert!(text.contains("pgtend run\\-job backup\\-nightly \\-\\-dry\\-run"), "{text}");
    assert_eq!(scenario.run(&["man"]).succeeded().stdout, std::fs::read_to_string(scenario.path("pages/pgtend.1")).unwrap());
}

/// A bash that has sourced the script, and what it offers for this line after TAB: in place of what is typed after the last end of a word, which are `@` and
/// `:`, too.
fn offered(scenario: &Scenario, line: &str) -> Vec<String> {
    let bin = Path::new(env!("CARGO_BIN_EXE_pgtend")).parent().unwrap();
    let script = "source <(pgtend completions bash); COMP_LINE=\"$1\"; COMP_POINT=${#1}; spaced=${1//@/ @ }; read -ra COMP_WORDS <<<\"${spaced//:/ : }\"; \
        [[ $1 == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMP_TYPE=9; by=$(complete -p pgtend); by=${by##*-F }; \
        ${by% pgtend} pgtend \"${COMP_WORDS[COMP_CWORD]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", line]).current_dir(scenario.path("")).env("HOME", scenario.path(""));
    bash.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).stdin(Stdio::null());
    let ended = ends_with_tests(&mut bash).output().unwrap();
    assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap().lines().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn bash_completes_jobs_databases_stores_checks_sets_and_runs() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database)
        .config("[databases.other]\nurl = 'postgres://nobody@127.0.0.1:1/x'\n[stores.offsite]\npath = \"two\"\n")
        .ledger()
        .backup_job("local", "")
        .sql_job("stats", "", &["SELECT 1"]);
    scenario.run(&["run-job", "nightly"]).succeeded();
    let set = scenario.sets().remove(0);
    let run = scenario.runs(&[])[0]["id"].to_string();
    for (line, expected) in [
        ("pgtend run-", vec!["run-job"]),
        ("pgtend run-job ", vec!["nightly", "stats"]),
        ("pgtend run-job ni", vec!["nightly"]),
        ("pgtend runs show ", vec![run.as_str()]),
        ("pgtend run-job nightly --database ", vec!["app", "other"]),
        ("pgtend audit --database o", vec!["other"]),
        ("pgtend audit explain fk-unin", vec!["fk-unindexed"]),
        ("pgtend backups copy latest --to ", vec!["local", "offsite"]),
        ("pgtend backups show ", vec![set.as_str(), "latest"]),
        ("pgtend backups restore app/", vec![set.as_str()]),
    ] {
        let offered = offered(&scenario, line);
        let offered: Vec<&str> = offered.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
        assert_eq!(offered, expected, "{line}");
    }
    // What is named on the line counts.
    std::fs::create_dir(scenario.path("elsewhere")).unwrap();
    std::fs::write(scenario.path("elsewhere/mine.toml"), "").unwrap();
    assert_eq!(offered(&scenario, "pgtend --jobs elsewhere run-job m"), ["mine"]);
    // The ledger knows databases that were found on servers.
    let scenario = scenario.config("[servers.main]\nurl = 'postgres://nobody@127.0.0.1:1/postgres'\n");
    let found = "INSERT INTO pgtend.servers VALUES ('main'); INSERT INTO pgtend.databases VALUES ('main', 'main.tenant_7')";
    server.sql(&database, found);
    assert_eq!(offered(&scenario, "pgtend audit --database main."), ["main.tenant_7"]);
    // Job and place in one word: the place by its own name, and by the whole one.
    let more = "INSERT INTO pgtend.servers VALUES ('app:*'); INSERT INTO pgtend.databases VALUES ('app:*', 'app:shop_1'), ('app:*', 'app:shop_2')";
    server.sql(&database, more);
    let scenario = scenario
        .job("tenants", "databases = \"tenant_*\"\n[sql]\nstatements = [\"SELECT 1\"]\n")
        .job("shops", "database = \"app\"\nschemas = \"shop_*\"\n[backup]\nstore = \"local\"\n");
    for (line, expected) in [
        ("pgtend run-job tenants@", vec!["tenant_7"]),
        ("pgtend run-job tenants@ten", vec!["tenant_7"]),
        ("pgtend run-job tenants@main.t", vec!["main.tenant_7"]),
        ("pgtend run-job nightly@", vec!["app"]),
        ("pgtend run-job shops@shop_", vec!["shop_1", "shop_2"]),
        ("pgtend run-job shops@app:", vec!["shop_1", "shop_2"]),
        ("pgtend run-job shops --database app:shop_2", vec!["shop_2"]),
        ("pgtend backups list --database app:s", vec!["shop_1", "shop_2"]),
        ("pgtend compress install tenants@t", vec!["tenant_7"]),
    ] {
        assert_eq!(offered(&scenario, line), expected, "{line}");
    }
    // And without anything there, nothing is offered and nothing is said.
    assert_eq!(offered(&Scenario::empty(), "pgtend run-job x"), Vec::<String>::new());
}

#[test]
fn completion_asks_no_server_for_jobs_and_gives_up_on_a_silent_ledger() {
    // It accepts connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@127.0.0.1:{}/app?sslmode=disable", silent.local_addr().unwrap().port());
    let scenario = Scenario::empty()
        .config(&format!("[databases.app]\nurl = '{url}'\n[stores.local]\npath = 'store'\n"))
        .ledger()
        .backup_job("local", "");
    for line in ["pgtend run-job n", "pgtend audit --database a", "pgtend audit explain fk-unin", "pgtend backups list --store l"]
    {
        assert_eq!(offered(&scenario, line).len(), 1, "{line}");
    }
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "nobody has connected");
    silent.set_nonblocking(false).unwrap();
    let started = std::time::Instant::now();
    let offered = offered(&scenario, "pgtend backups show ");
    assert!(offered.contains(&"latest".to_owned()) && !offered.iter().any(|word| word.contains('/')), "{offered:?}");
    // It waits 2 s, and a busy machine has ten times as long.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// What a command prints on a terminal of 80 columns.
fn on_a_terminal(scenario: &Scenario, command: &str, variables: &[(&str, &str)]) -> String {
    let mut script = Command::new("script");
    let typed = format!("stty cols 80; '{}' {command}", env!("CARGO_BIN_EXE_pgtend"));
    script.args(["-qec", &typed, "/dev/null"]).current_dir(scenario.path("")).env("HOME", scenario.path("")).stdin(Stdio::null());
    script.env_remove("NO_COLOR").envs(variables.iter().copied());
    let ended = ends_with_tests(&mut script).output().unwrap();
    String::from_utf8(ended.stdout).unwrap().replace('\r', "")
}

#[test]
fn on_a_terminal_words_have_colours_and_tables_fit_into_80_columns() {
    let server = server(18);
    let database = server.trusted_database();
    let scenario = Scenario::with_database(server, &database)
        .ledger()
        .sql_job("a-job-with-quite-a-long-name", "", &["SELECT 1"])
        .sql_job("breaks", "", &["SELECT 'a statement with a long text in it' / 0"]);
    scenario.run(&["run-job", "a-job-with-quite-a-long-name"]).succeeded();
    scenario.run(&["run-job", "breaks"]).exited(1);
    let plain = on_a_terminal(&scenario, "runs", &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    for command in ["runs", "jobs", "audit explain"] {
        let plain = on_a_terminal(&scenario, command, &[("NO_COLOR", "1")]);
        assert!(plain.lines().count() > 1 && plain.lines().all(|line| line.chars().count() <= 80), "{command}:\n{plain}");
    }
    let coloured = on_a_terminal(&scenario, "runs", &[]);
    assert!(coloured.contains("\u{1b}[31mfailed\u{1b}[0m") && coloured.contains("\u{1b}[32msucceeded\u{1b}[0m"), "{coloured}");
    // Not where a program reads.
    assert!(!scenario.run(&["runs"]).succeeded().stdout.contains('\u{1b}'));
}
