//! `runs --follow`: a line when a run starts, and one when it ends.

use std::collections::HashMap;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::signals::cancelled_by_signals;
use crate::base::terminal::{in_one_line, say, visible};
use crate::base::units;
use crate::ledger::report::Outcome;
use crate::ledger::{Filter, Ledger, Row};
use crate::pg::failure;

const EVERY: Duration = Duration::from_secs(1);

/// Of the past, so many are shown.
const BEFORE: usize = 10;

/// More runs do not start in a second.
const AT_ONCE: i64 = 500;

/// Goes on until a signal comes, or until nobody reads.
pub async fn runs(ledger: &Ledger, filter: &Filter<'_>, is_json: bool) -> Result<ExitCode> {
    let cancel = cancelled_by_signals()?;
    let filter = Filter { limit: AT_ONCE, job: filter.job, database: filter.database, outcome: None };
    let mut seen: HashMap<i64, bool> = HashMap::new();
    let (mut is_first, mut is_away) = (true, false);
    while !cancel.is_cancelled() {
        match looked_at(ledger, &filter, &seen).await {
            Ok(rows) => {
                is_away = false;
                let new: Vec<&Row> =
                    rows.iter().rev().filter(|row| seen.get(&row.id) != Some(&row.outcome.0.is_some())).collect();
                let skipped = if is_first { new.len().saturating_sub(BEFORE) } else { 0 };
                if new.into_iter().skip(skipped).any(|row| !is_read(row, is_json)) {
                    return Ok(ExitCode::SUCCESS);
                }
                seen = rows.iter().map(|row| (row.id, row.outcome.0.is_some())).collect();
                is_first = false;
            }
            // It may be back in a moment.
            Err(error) if !is_first => {
                if !is_away {
                    say(&format!("pgtend: the ledger does not answer, and is asked again: {}", failure::in_a_line(&error)));
                }
                is_away = true;
            }
            Err(error) => return Err(error),
        }
        let _ = cancel.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the newest runs, and those of before that had not ended when they were seen and are no longer among these.
async fn looked_at(ledger: &Ledger, filter: &Filter<'_>, seen: &HashMap<i64, bool>) -> Result<Vec<Row>> {
    let mut rows = ledger.runs(filter).await?;
    let mut left: Vec<i64> = seen.iter().filter(|(_, has_ended)| !**has_ended).map(|(id, _)| *id).collect();
    left.retain(|id| rows.iter().all(|row| row.id != *id));
    for id in left {
        rows.extend(ledger.run(id).await?);
    }
    Ok(rows)
}

/// Writes what became of a run. Returns whether anybody reads it.
fn is_read(row: &Row, is_json: bool) -> bool {
    let line = if is_json { serde_json::to_string(row).unwrap_or_default() } else { in_words(row) };
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(format!("{}\n", visible(&line)).as_bytes()).and_then(|()| stdout.flush());
    !written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn in_words(row: &Row) -> String {
    let what = format!("run {}: {} on {}", row.id, row.job, row.database);
    let (at, how) = match (row.outcome.0, row.finished_at) {
        (Some(outcome), Some(finished_at)) => {
            let said = row.error.as_deref().or(row.report.as_ref().map(|report| report.summary.as_str())).unwrap_or_default();
            let took = units::age(row.started_at, finished_at);
            (finished_at, format!("{} after {took}: {}", Outcome::in_words(outcome), said.lines().next().unwrap_or_default()))
        }
        _ => (row.started_at, format!("started ({})", row.trigger)),
    };
    in_one_line(&format!("{}  {what}: {how}", at.format("%Y-%m-%d %H:%M:%S UTC"))).into_owned()
}
