//! `runs` prints the history, or one run in full.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};

use super::follow;
use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::runs as printed;
use crate::base::fault::{Fault, Kind};
use crate::base::terminal::say;
use crate::base::units;
use crate::ledger::report::Outcome;
use crate::ledger::{Filter, Ledger, Row};
use crate::task::{refresh, vector_index};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend runs                              the last runs
  pgtend runs backup-nightly --outcome failed
  pgtend runs --follow                     what starts and ends from now on
  pgtend runs show 17                      one run in full")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only runs of this job; JOB@DATABASE is the job on one of its databases
    job: Option<String>,
    /// Only runs on this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Only runs with this outcome: succeeded, skipped, failed, timed_out, cancelled, crashed
    #[arg(long)]
    outcome: Option<Outcome>,
    /// Show at most this many
    #[arg(long, default_value_t = 20, value_parser = limit)]
    limit: u16,
    /// Print a line for each run that starts or ends, until Ctrl-C; with --json one document in a line
    #[arg(long, short, conflicts_with_all = ["outcome", "limit"])]
    follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Html,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show one run: its report, its error, and the output of its tools
    #[command(after_help = "Examples:
  pgtend runs show 17                             its report, its error, the output of its tools
  pgtend runs show 17 --format html >drill.html   of a [refresh], for auditors")]
    Show {
        /// The run's number, as `pgtend runs` lists it
        #[arg(value_parser = number)]
        id: i64,
        /// The output format; `html` for a run of [refresh], which is a drill for auditors, or of [vector_index], with its curves
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: Format,
    },
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let ledger = ledger(global)?;
    match &arguments.command {
        Some(Command::Show { id, format }) => show(global, &ledger, *id, *format).await,
        None if arguments.follow => follow::runs(&ledger, &filter(arguments), global.json).await,
        None => list(global, &ledger, arguments).await,
    }
}

/// Opens the ledger. Runs whose process is gone are shown as crashed, and are not marked: whoever does that tells people.
pub(super) fn ledger(global: &Global) -> Result<Ledger> {
    let config = global.load_config()?;
    Ledger::new(&config)?.with_context(|| {
        let message = format!("{} has no [ledger], so there is no history", config.path.display());
        Fault::new(Kind::Configuration, format!("{message}; add: [ledger] database = \"NAME\""))
    })
}

fn filter(arguments: &Arguments) -> Filter<'_> {
    // JOB@DATABASE: no job's name has an `@`.
    let (job, in_name) = match arguments.job.as_deref() {
        Some(name) => name.split_once('@').map_or((Some(name), None), |(job, database)| (Some(job), Some(database))),
        None => (None, None),
    };
    Filter { job, database: arguments.database.as_deref().or(in_name), outcome: arguments.outcome, limit: arguments.limit.into() }
}

async fn list(global: &Global, ledger: &Ledger, arguments: &Arguments) -> Result<ExitCode> {
    let rows = ledger.runs(&filter(arguments)).await?;
    if global.json {
        print_json(&printed::Runs { runs: rows })?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        say(&format!("no matching runs in the ledger ({})", ledger.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let lines = rows.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.job.clone(),
            row.database.clone(),
            row.task.clone(),
            row.started_at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            elapsed(row),
            trigger(row),
            row.outcome.0.map_or("running".to_owned(), Outcome::in_words),
            in_a_line(row),
        ]
    });
    print(&output::table(&["RUN", "JOB", "DATABASE", "TASK", "STARTED", "TOOK", "TRIGGER", "OUTCOME", "WHAT"], lines))?;
    Ok(ExitCode::SUCCESS)
}

fn limit(text: &str) -> Result<u16, String> {
    let limit = text.parse().ok().filter(|limit| (1..=10_000).contains(limit));
    limit.ok_or_else(|| "write a number from 1 to 10000".to_owned())
}

/// Reads the number of a run.
pub fn number(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| "a run has a number: `pgtend runs` lists them".to_owned())
}

async fn show(global: &Global, ledger: &Ledger, id: i64, format: Format) -> Result<ExitCode> {
    let row = ledger.run(id).await?.with_context(|| format!("the ledger ({}) has no run {id}", ledger.display()))?;
    if format == Format::Html {
        let message = || format!("run {id} is of [{}]; runs of [refresh] and [vector_index] have an HTML document", row.task);
        let document = refresh::document::render(&row).or_else(|| vector_index::document::render(&row));
        print(&document.ok_or_else(|| Fault::new(Kind::Configuration, message()))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if global.json {
        print_json(&printed::Shown { run: row })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("run {}: {} on {}\n", row.id, row.job, row.database);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("  {name:<10} {}\n", value.trim_end().replace('\n', &format!("\n{:13}", "")));
        }
    };
    line("outcome", row.outcome.0.map_or("running".to_owned(), Outcome::in_words));
    line("task", row.task.clone());
    line("trigger", trigger(&row));
    line("tick", row.scheduled_for.map(|tick| tick.to_string()).unwrap_or_default());
    line("started", row.started_at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    line("took", elapsed(&row));
    line("by", format!("pgtend {}, pid {} on {}", row.version, row.pid, row.host));
    line("retry", row.retry_at.map(|at| format!("due at {}", at.format("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default());
    if let Some(now) = &row.progress {
        line("progress", format!("{}, {}", now.phase, now.detail.clone().unwrap_or_else(|| units::bytes(now.done_bytes))));
    }
    line("error", row.error.clone().unwrap_or_default());
    line("stderr", row.stderr.clone().unwrap_or_default());
    if let Some(report) = &row.report {
        line("summary", report.summary.clone());
        for warning in &report.warnings {
            line("warning", warning.clone());
        }
        line("facts", serde_json::to_string_pretty(&report.facts)?);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn trigger(row: &Row) -> String {
    match row.retry_of {
        Some(first) => format!("{} {} of run {first}", row.trigger, row.attempt - 1),
        None => row.trigger.clone(),
    }
}

fn elapsed(row: &Row) -> String {
    units::age(row.started_at, row.finished_at.unwrap_or_else(Utc::now))
}

fn in_a_line(row: &Row) -> String {
    let said = row.error.clone().or_else(|| row.report.as_ref().map(|report| report.summary.clone())).unwrap_or_default();
    said.lines().next().unwrap_or_default().to_owned()
}
