//! `logs` prints what the ledger keeps of a run's words: the lines that it logged, the output of its tools, warnings, the error.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use super::global::Global;
use super::output::{print, print_json};
use super::outputs::runs as printed;
use super::runs;
use super::signals::{cancelled_by_signals, or_cancelled};
use crate::base::story::Line;
use crate::base::terminal::say;
use crate::base::units;
use crate::ledger::report::Outcome;
use crate::ledger::{Ledger, Row};

/// How often a run under way is asked for.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend logs 17              what run 17 logged last, what tools said, and the error
  pgtend logs 17 --follow     wait for its end, and say how far it is meanwhile

All log lines of the process are where its stderr goes: journalctl -u pgtend, kubectl logs.")]
pub struct Arguments {
    /// The run's number, as `pgtend runs` lists it
    #[arg(value_parser = runs::number)]
    id: i64,
    /// Wait until the run has ended
    #[arg(long, short)]
    follow: bool,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let ledger = runs::ledger(global)?;
    let row = match arguments.follow {
        true => or_cancelled(&cancelled_by_signals()?, ended(&ledger, arguments.id)).await?,
        false => read(&ledger, arguments.id).await?,
    };
    match global.json {
        true => print_json(&as_json(&row))?,
        false => print(&in_words(&row))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(ledger: &Ledger, id: i64) -> Result<Row> {
    ledger.run(id).await?.with_context(|| format!("the ledger ({}) has no run {id}", ledger.display()))
}

/// Waits for the end of a run: that of a process that is gone has ended, too.
async fn ended(ledger: &Ledger, id: i64) -> Result<Row> {
    let mut said = String::new();
    loop {
        let row = read(ledger, id).await?;
        if row.outcome.0.is_some() {
            return Ok(row);
        }
        let now = progress(&row);
        if now != said {
            say(&format!("run {id}: {now}"));
            said = now;
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn progress(row: &Row) -> String {
    match &row.progress {
        Some(now) => format!("{}, {}", now.phase, now.detail.clone().unwrap_or_else(|| units::bytes(now.done_bytes))),
        None => "running".to_owned(),
    }
}

fn warnings(row: &Row) -> &[String] {
    row.report.as_ref().map_or(&[], |report| &report.warnings)
}

fn lines(row: &Row) -> &[Line] {
    row.report.as_ref().map_or(&[], |report| &report.story.lines)
}

fn in_words(row: &Row) -> String {
    let how = row.outcome.0.map_or_else(|| progress(row), Outcome::in_words);
    let mut text = format!("run {}: {} on {}: {how}\n", row.id, row.job, row.database);
    let mut part = |heading: &str, lines: String| {
        if !lines.trim().is_empty() {
            text += &format!("\n{heading}:\n{}\n", lines.trim_end());
        }
    };
    let logged = lines(row).iter().map(|Line { at, level, text }| format!("{} {level} {text}", at.format("%H:%M:%S")));
    part("what it logged", logged.collect::<Vec<_>>().join("\n"));
    part("output of its tools", row.stderr.clone().unwrap_or_default());
    part("warnings", warnings(row).join("\n"));
    part("error", row.error.clone().unwrap_or_default());
    if row.outcome.0.is_none() {
        part(
            "it is under way",
            format!(
                "its log lines and its tools' output are kept at its end; until then they are those of pid {} on {}",
                row.pid, row.host
            ),
        );
    }
    text
}

fn as_json(row: &Row) -> printed::Logs<'_> {
    printed::Logs {
        run: row.id,
        job: &row.job,
        database: &row.database,
        outcome: row.outcome,
        lines: lines(row),
        stderr: row.stderr.as_deref(),
        warnings: warnings(row),
        error: row.error.as_deref(),
    }
}
