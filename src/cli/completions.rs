//! What a shell offers on TAB: commands and options, and the jobs, databases, stores, checks, sets and runs that one may mean. Files alone are read for
//! that; for sets and runs the ledger is asked, for a bounded time, and no store. What goes wrong offers nothing.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use super::global::{Global, LogFormat};
use super::output::print;
use crate::base::thread;
use crate::config::{self, Config, places, servers};
use crate::ledger::report::Outcome;
use crate::ledger::{Filter, Ledger, Row};
use crate::run::fleet;
use crate::run::job::{self, Folder};
use crate::task::audit::checks::CHECKS;

/// Set by the scripts; not COMPLETE, which may be set for another program.
const VARIABLE: &str = "PGTEND_COMPLETE";

/// What a person waits after TAB.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last runs that are looked through.
const RUNS_LOOKED_AT: i64 = 200;

/// Answers a shell that asks, and ends the process; returns where nobody asks.
pub fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(|| with_candidates(command(), "")).var(VARIABLE).complete();
}

/// Prints what a shell has to know, so that it asks.
pub fn script(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let shell = shells.completer(&shell.to_string()).context("this shell is not supported")?;
    shell.write_registration(VARIABLE, "pgtend", "pgtend", "pgtend", &mut script)?;
    let script = String::from_utf8(script)?;
    print(&if shell.name() == "bash" { with_whole_words(&script) } else { script })?;
    Ok(ExitCode::SUCCESS)
}

/// Bash takes `@` and `:` for ends of words, and names of places have both: what is typed is put together again, and of each candidate the part is left that
/// bash replaces.
const WHOLE_WORDS: &str = r#"
_pgtend() {
    local typed="${COMP_LINE:0:COMP_POINT}" breaks="" begun word
    word="${typed##*[[:space:]]}"
    [[ "$COMP_WORDBREAKS" == *@* ]] && breaks+="@"
    [[ "$COMP_WORDBREAKS" == *:* ]] && breaks+=":"
    if [[ -z "$breaks" || "$word" != *["$breaks"]* ]]; then
        _clap_complete_pgtend "$@"
        return
    fi
    local COMP_WORDS COMP_CWORD
    read -ra COMP_WORDS <<<"$typed"
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    _clap_complete_pgtend "$1" "$word"
    begun="${word%"${word##*["$breaks"]}"}"
    COMPREPLY=( "${COMPREPLY[@]#"$begun"}" )
}
"#;

fn with_whole_words(script: &str) -> String {
    let registered = script.replace("-F _clap_complete_pgtend pgtend", "-F _pgtend pgtend");
    format!("{WHOLE_WORDS}{registered}")
}

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Job,
    /// JOB, or JOB@DATABASE.
    JobOnPlace,
    Database,
    /// The same, or DATABASE:SCHEMA.
    Place,
    Store,
    Check,
    Set,
    Run,
}

impl Names {
    /// Of an argument of a command, which is named without `pgtend`; None where the configuration says nothing about it.
    fn of(command: &str, argument: &str) -> Option<Self> {
        Some(match (command, argument) {
            // They are names on a server, and a place.
            ("init", _) => return None,
            ("run-job", "name") | ("partition convert" | "compress install" | "compress undo", "job") => Self::JobOnPlace,
            (_, "job") => Self::Job,
            ("run-job" | "runs", "database") => Self::Place,
            (command, "database") if command.starts_with("backups ") => Self::Place,
            (_, "database" | "restore_on") | ("backups restore", "into") | ("archives restore", "to") => Self::Database,
            ("backups copy", "from" | "to") | (_, "store") => Self::Store,
            ("audit", "check") | ("audit explain", "id") => Self::Check,
            ("backups diff", "before" | "after") | (_, "set") => Self::Set,
            ("runs show" | "logs", "id") => Self::Run,
            _ => return None,
        })
    }

    /// What a word that begins like this may be.
    fn candidates(self, typed: &OsStr) -> Vec<CompletionCandidate> {
        let typed = typed.to_string_lossy();
        let mut all = self.all(&typed);
        all.retain(|candidate| candidate.get_value().to_string_lossy().starts_with(&*typed));
        all
    }

    fn all(self, typed: &str) -> Vec<CompletionCandidate> {
        let plain = |names: Vec<String>| names.into_iter().filter(|name| is_plain(name)).map(CompletionCandidate::new).collect();
        match self {
            Self::Job => plain(jobs()),
            Self::JobOnPlace => plain(typed.split_once('@').map_or_else(jobs, |(job, place)| on_places(job, place))),
            Self::Database => plain(databases().filter(|name| !name.contains(':')).collect()),
            Self::Place => plain(databases().collect()),
            Self::Store => plain(keys_of("stores")),
            Self::Check => CHECKS.iter().map(|check| CompletionCandidate::new(check.id).help(Some(check.title.into()))).collect(),
            Self::Set => plain(runs().iter().filter_map(set).chain(["latest".to_owned()]).collect()),
            Self::Run => runs().iter().map(of_run).collect(),
        }
    }
}

fn with_candidates(command: Command, path: &str) -> Command {
    let own = path.to_owned();
    let command = command.mut_args(|argument| match Names::of(&own, argument.get_id().as_str()) {
        Some(names) => argument.add(ArgValueCompleter::new(move |typed: &OsStr| names.candidates(typed))),
        None => argument,
    });
    command.mut_subcommands(|sub| {
        let below = format!("{path} {}", sub.get_name());
        with_candidates(sub, below.trim_start())
    })
}

/// A word that a shell leaves as it is: others would have to be quoted, in the way of that shell.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "-_./@:".contains(letter))
}

/// The files that the command line, as far as it is typed, and the environment name.
fn global() -> Global {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let named = |option: &str, variable: &str| {
        let is_it = |word: &OsString| word.to_str().is_some_and(|word| word == option);
        let after = typed.iter().position(is_it).and_then(|at| typed.get(at + 1)).cloned();
        let joined = || typed.iter().find_map(|word| word.to_str()?.strip_prefix(option)?.strip_prefix('=').map(OsString::from));
        after.or_else(joined).or_else(|| std::env::var_os(variable)).map(PathBuf::from)
    };
    Global {
        config: named("--config", "PGTEND_CONFIG"),
        jobs: named("--jobs", "PGTEND_JOBS"),
        json: false,
        log_format: LogFormat::Text,
        log: None,
    }
}

fn jobs() -> Vec<String> {
    let files = std::fs::read_dir(global().jobs_dir()).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_jobs = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> = of_jobs.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// A job with each of its databases or schemas: by its own name where that is typed and only one has it, else by the whole one.
fn on_places(job: &str, typed: &str) -> Vec<String> {
    let Some(config) = config::load(&global().config_path(), &mut Vec::new()) else { return Vec::new() };
    let Ok(Folder { jobs, .. }) = job::load_dir(&global().jobs_dir(), &config) else { return Vec::new() };
    let Some(found) = jobs.into_iter().find(|found| found.name == job) else { return Vec::new() };
    let has_schemas = found.has_schemas();
    let places = match found.chosen.is_some() {
        false => found.databases,
        true => of_ledger(async move |config, ledger| {
            let given = fleet::remembered(ledger).await.given_to(&[found], config);
            Some(given.into_iter().flat_map(|job| job.databases).collect())
        }),
    };
    let own = |place: &str| if has_schemas { places::parts(place) } else { servers::parts(place) }.map(|(_, own)| own);
    let mut times: HashMap<String, usize> = HashMap::new();
    places.iter().filter_map(|place| own(place)).for_each(|own| *times.entry(own).or_default() += 1);
    let named = |place: String| own(&place).filter(|own| own.starts_with(typed) && times.get(own) == Some(&1)).unwrap_or(place);
    places.into_iter().map(|place| format!("{job}@{}", named(place))).collect()
}

/// The names in a table of the configuration, also where other parts of it have mistakes.
fn keys_of(table: &str) -> Vec<String> {
    let text = std::fs::read_to_string(global().config_path()).unwrap_or_default();
    let config: toml::Table = text.parse().unwrap_or_default();
    let named = config.get(table).and_then(toml::Value::as_table);
    named.into_iter().flat_map(|named| named.keys().cloned()).collect()
}

/// The databases of the configuration, and the databases and schemas that there were when servers and databases were last asked.
fn databases() -> impl Iterator<Item = String> {
    let found = match keys_of("servers").is_empty() && !has_schemas() {
        true => Vec::new(),
        false => of_ledger(async |config, ledger| Some(fleet::remembered(ledger).await.names(config))),
    };
    keys_of("databases").into_iter().chain(found)
}

/// Returns whether any job has `schemas`, also where other jobs have mistakes.
fn has_schemas() -> bool {
    let folder = global().jobs_dir();
    let text = |job: &String| std::fs::read_to_string(folder.join(format!("{job}.toml"))).ok()?.parse::<toml::Table>().ok();
    jobs().iter().filter_map(text).any(|job| job.contains_key("schemas"))
}

/// The last runs in the ledger, the newest first.
fn runs() -> Vec<Row> {
    of_ledger(async |_, ledger| {
        let filter = Filter { job: None, database: None, outcome: None, limit: RUNS_LOOKED_AT };
        ledger.runs(&filter).await.ok()
    })
}

/// Asks the ledger; nothing where it does not answer in time.
fn of_ledger<T>(asking: impl AsyncFnOnce(&Config, &Ledger) -> Option<Vec<T>>) -> Vec<T> {
    let asked = async {
        let config = config::load(&global().config_path(), &mut Vec::new())?;
        let ledger = Ledger::to_read(&config).await.ok()??;
        asking(&config, &ledger).await
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let answered = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await.ok().flatten() });
    // Looking up a host's name may go on in a thread.
    thread::end(runtime);
    answered.unwrap_or_default()
}

/// The set that a run made.
fn set(row: &Row) -> Option<String> {
    Some(row.report.as_ref()?.facts.get("set")?.as_str()?.to_owned())
}

fn of_run(row: &Row) -> CompletionCandidate {
    let how = row.outcome.0.map_or_else(|| "running".to_owned(), Outcome::in_words);
    let help = format!("{} on {}: {how}", row.job, row.database);
    CompletionCandidate::new(row.id.to_string()).help(Some(crate::base::terminal::visible(&help).into_owned().into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Arguments;

    /// Each argument of each command that is completed, as "command argument".
    fn completed(command: &Command, path: &str, found: &mut Vec<(String, Names)>) {
        let own = command.get_arguments().map(|argument| argument.get_id().as_str());
        found.extend(own.filter_map(|name| Some((format!("{path} {name}"), Names::of(path, name)?))));
        for sub in command.get_subcommands() {
            completed(sub, format!("{path} {}", sub.get_name()).trim_start(), found);
        }
    }

    #[test]
    fn every_argument_that_is_named_here_is_there() {
        let mut found = Vec::new();
        completed(&Arguments::command(), "", &mut found);
        for (argument, names) in [
            ("run-job name", Names::JobOnPlace),
            ("run-job database", Names::Place),
            ("runs database", Names::Place),
            ("backups list database", Names::Place),
            ("audit database", Names::Database),
            ("runs job", Names::Job),
            ("runs show id", Names::Run),
            ("logs id", Names::Run),
            ("audit check", Names::Check),
            ("audit explain id", Names::Check),
            ("backups diff before", Names::Set),
            ("backups diff after", Names::Set),
            ("backups show set", Names::Set),
            ("backups copy from", Names::Store),
            ("backups copy to", Names::Store),
            ("backups list store", Names::Store),
            ("backups verify restore_on", Names::Database),
            ("backups restore into", Names::Database),
            ("archives restore to", Names::Database),
            ("partition convert job", Names::JobOnPlace),
            ("compress install job", Names::JobOnPlace),
            ("compress undo job", Names::JobOnPlace),
        ] {
            assert!(found.contains(&(argument.to_owned(), names)), "{argument}: {found:#?}");
        }
        assert!(!found.iter().any(|(argument, _)| argument.starts_with("init ")));
    }
}
