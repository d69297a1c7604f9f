//! `pgtend check` loads everything as a real run does, and with `--connect` tries everything that a run will need.

mod attempt;
mod databases;
mod ledger;
mod notes;
mod one_server;
mod servers;
mod stores;

use std::process::ExitCode;

use anyhow::{Error, Result};
pub(super) use attempt::{Attempt, parts};
pub(super) use notes::notes;
pub(super) use stores::one_place;

use self::databases::try_databases;
use self::ledger::try_ledger;
use self::servers::try_servers;
use self::stores::{try_apart, try_stores};
use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::before_runs as printed;
use crate::base::units;
use crate::config::Config;
use crate::pg::failure;
use crate::run::job::Job;

pub async fn run(global: &Global, connect: bool) -> Result<ExitCode> {
    let (config, folder) = global.load_all()?;
    let notes = notes(&config, &folder);
    let jobs = folder.jobs;
    let problems = one_place(&config, &jobs).await;
    let tried = if connect { Some(try_all(&config, &jobs).await) } else { None };
    let found = Found { jobs: jobs.len(), problems, notes, tried };
    match global.json {
        true => print_json(&as_json(&found))?,
        false => print(&in_words(&config, &found))?,
    }
    // The first failure gives the exit code: the rest may follow from it.
    let of_files = found.problems.into_iter().map(|(_, error)| error).next();
    Ok(match of_files.or_else(|| found.tried.into_iter().flatten().find_map(|tried| tried.result.err())) {
        Some(error) => failure::exit_code(&error),
        None => ExitCode::SUCCESS,
    })
}

struct Found {
    /// How many there are.
    jobs: usize,
    /// The jobs that have mistakes, each with one.
    problems: Vec<(String, Error)>,
    notes: Vec<String>,
    /// With `--connect`.
    tried: Option<Vec<Attempt>>,
}

/// Tries everything that runs will need: databases, the ledger and stores side by side. Returns it in the order of the configuration.
pub(super) async fn try_all(config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let (mut tried, jobs, servers) = try_servers(config, jobs).await;
    let databases = try_databases(config, &jobs, &servers);
    let (databases, ledger, stores) = tokio::join!(databases, try_ledger(config), try_stores(config, &jobs));
    tried.extend(databases);
    tried.extend(ledger);
    tried.extend(stores);
    tried.extend(try_apart(config, &jobs).await);
    tried
}

fn as_json(found: &Found) -> printed::Check<'_> {
    let problem = |(job, error): &(String, Error)| format!("{job}: {}", failure::in_a_line(error));
    let of = |tried: &Attempt| printed::Tried { what: tried.what.clone(), ok: tried.result.is_ok(), detail: tried.detail() };
    printed::Check {
        jobs: found.jobs,
        problems: found.problems.iter().map(problem).collect(),
        warnings: &found.notes,
        connections: found.tried.iter().flatten().map(of).collect(),
    }
}

fn in_words(config: &Config, found: &Found) -> String {
    let servers = match config.servers.len() {
        0 => String::new(),
        count => units::plural(count, "server") + ", ",
    };
    let mistakes = match found.problems.len() {
        0 => "no mistakes".to_owned(),
        count => units::plural(count, "mistake"),
    };
    let mut text = format!(
        "{}: {servers}{}, {}, {}, {mistakes}\n",
        config.path.display(),
        units::plural(config.databases.len(), "database"),
        units::plural(config.stores.len(), "store"),
        units::plural(found.jobs, "job"),
    );
    text.extend(found.problems.iter().map(|(job, error)| format!("MISTAKE: {job}: {}\n", failure::in_a_line(error))));
    text.extend(found.notes.iter().map(|note| format!("WARNING: {note}\n")));
    if let Some(tried) = &found.tried {
        let rows = tried
            .iter()
            .map(|tried| vec![if tried.result.is_ok() { "ok" } else { "FAILED" }.to_owned(), tried.what.clone(), tried.detail()]);
        text += &output::table(&["", "", ""], rows);
    }
    text
}
