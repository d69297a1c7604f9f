//! Errors of a run that did not come to its end. They say what stays, what was rolled back, and what nobody knows.

use std::sync::atomic::Ordering;

use super::kept::Prepared;
use super::keys::Transaction;
use super::plan::Plan;
use super::progress::{Open, Progress};
use super::text::{self, Ends};
use crate::base::fault::{Fault, Kind, Sent};
use crate::base::units;
use crate::pg::{self, failure};

/// The statement at `index` failed, after the server had answered `rows.len()` of its commands.
pub fn failed(plan: &Plan, index: usize, open: Option<&Open>, rows: &[u64], kept: u64, error: anyhow::Error) -> anyhow::Error {
    let (statement, number, count) = (&plan.statements[index], index + 1, plan.statements.len());
    let is_lost = is_lost(&error);
    let stays = what_stays(plan, index, open, rows, kept, is_lost);
    let may_be_kept = text::ends_transaction(statement) || (plan.transaction == Transaction::Each && open.is_none());
    if may_be_kept && is_silence(&error) && !plan.repeatable {
        let message = format!(
            "statement {number} of {count} was sent, and the connection ended without an answer: whether it was kept is not known, and it \
             is not tried again. Look, then run the job again; `repeatable = true` is for statements that may run twice{stays}: {}",
            excerpt(statement)
        );
        return error.context(Fault::new(Kind::Unknown, message));
    }
    let commands = text::commands(statement);
    let at = match commands.get(rows.len()) {
        Some((command, _)) if !is_lost && !rows.is_empty() => {
            format!(" at its command {} of {} ({})", rows.len() + 1, commands.len(), excerpt(command))
        }
        _ => String::new(),
    };
    let message = format!("statement {number} of {count} failed{at}{stays}: {}", excerpt(statement));
    if is_lost { as_sent(plan, error, message) } else { error.context(message) }
}

/// All commands of one text are one transaction, or belong to the one that is open, unless some of them end it: PostgreSQL keeps what came
/// before a COMMIT in the text, though a later command fails.
fn what_stays(plan: &Plan, index: usize, open: Option<&Open>, rows: &[u64], kept: u64, is_lost: bool) -> String {
    let statement = &plan.statements[index];
    let commands = text::commands(statement);
    let (answered, unanswered) = commands.split_at(rows.len().min(commands.len()));
    let ended = answered
        .iter()
        .rposition(|(_, ends)| ends.is_end() && !matches!(ends, Ends::Rollback { .. }))
        .or_else(|| answered.iter().rposition(|(_, ends)| ends.is_end()));
    let itself = match (plan.transaction, open) {
        (Transaction::One, _) => "; it ends the transaction by itself",
        (Transaction::Each, Some(_)) => "; it ends the transaction that was open by itself",
        (Transaction::Each, None) => "",
    };
    // Statements before the transaction that is open.
    let before = match (plan.transaction, open) {
        (Transaction::One, _) => String::new(),
        (Transaction::Each, Some(open)) => stays(open.by),
        (Transaction::Each, None) => stays(index),
    };
    let ends_later = unanswered.iter().any(|(_, ends)| ends.is_end());
    if let Some(at) = ended {
        let (command, ends) = &commands[at];
        let did = match ends {
            Ends::Prepare(_) => "prepared what came before it".to_owned(),
            Ends::Rollback { .. } => "rolled back what came before it".to_owned(),
            _ if kept > 0 => format!("committed what came before it, which stays ({})", units::plural(kept as usize, "row")),
            _ => "committed what came before it, which stays".to_owned(),
        };
        let after = if is_lost { "whether what came after it was kept is not known" } else { "nothing that came after it stays" };
        let which = format!("its command {} of {} ({})", at + 1, commands.len(), excerpt(command));
        return format!("{itself}; {which} {did}; {after}{before}");
    }
    match (plan.transaction, open) {
        // It may have been its own COMMIT whose answer is missing.
        (Transaction::One, _) | (Transaction::Each, Some(_)) if is_lost && ends_later => {
            format!("{itself}, so that what came before may have been kept{before}")
        }
        (Transaction::One, _) if index == 0 => String::new(),
        (Transaction::One, _) => "; all before it was rolled back".to_owned(),
        (Transaction::Each, Some(open)) => {
            format!("; what was done since statement {} began a transaction is rolled back{before}", open.by + 1)
        }
        (Transaction::Each, None) if text::commits_within(statement) => {
            format!("; it commits while it runs, so that a part of what it did may have stayed{before}")
        }
        (Transaction::Each, None) => before,
    }
}

/// The error of a cancelled run, with what it leaves.
pub fn cancelled(plan: &Plan, progress: &Progress, error: anyhow::Error) -> anyhow::Error {
    let (number, count) = (progress.sent.load(Ordering::Relaxed), plan.statements.len());
    let prepared = with_prepared(&progress.prepared());
    let ends_by_itself = (1..=count).contains(&number) && text::ends_transaction(&plan.statements[number - 1]);
    match (number, plan.transaction) {
        (0, _) => error,
        (number, Transaction::One) if ends_by_itself => {
            let message = format!(
                "statement {number} of {count} ends the transaction by itself, so that what came before may have been kept"
            );
            as_sent(plan, error, message + &prepared)
        }
        (number, Transaction::One) if number <= count => error.context("nothing of its transaction is kept"),
        (_, Transaction::One) => as_sent(plan, error, "COMMIT was under way, so that it may have been kept".to_owned()),
        (number, Transaction::Each) => {
            let statement = &plan.statements[number - 1];
            let begins = plan.statements[..number].iter().any(|statement| text::starts(statement).transaction);
            let message = format!(
                "statement {number} of {count} was asked to stop{}{}{prepared}: {}",
                match begins || ends_by_itself {
                    true => "; of what came before it, what was committed stays".to_owned(),
                    false => stays(number - 1),
                },
                match (ends_by_itself, text::commits_within(statement)) {
                    (true, _) => "; a part of it may have been kept by its own COMMIT",
                    (_, true) if !begins => "; it commits while it runs, so that a part of what it did may have stayed",
                    _ => "",
                },
                excerpt(statement)
            );
            as_sent(plan, error, message)
        }
    }
}

/// The statement was answered; what is lost came after.
pub fn after_answer(plan: &Plan, index: usize, error: anyhow::Error) -> anyhow::Error {
    if !is_lost(&error) {
        return error;
    }
    let message = format!("after statement {} of {}, which was done", index + 1, plan.statements.len());
    as_sent(plan, error, message)
}

pub fn not_committed(plan: &Plan, error: anyhow::Error) -> anyhow::Error {
    // Also where the server said that it ended the session: that may have come behind the commit.
    if is_lost(&error) && !plan.repeatable {
        let message = "COMMIT was sent, and the connection ended without an answer: whether any of the statements was kept, or all of them, is \
                       not known, and they are not tried again. Look, then run the job again; `repeatable = true` is for statements that \
                       may run twice";
        return error.context(Fault::new(Kind::Unknown, message));
    }
    error.context("cannot commit")
}

/// Ends the message of a run that leaves prepared transactions; empty where there are none.
pub fn with_prepared(prepared: &[Prepared]) -> String {
    let all: String = prepared.iter().map(|prepared| format!("; {prepared}")).collect();
    if all.is_empty() { all } else { all + "; until then its locks stay, and VACUUM removes no row that went since" }
}

/// Without the job's word that it may be done twice, what was sent is not tried again by itself.
fn as_sent(plan: &Plan, error: anyhow::Error, message: String) -> anyhow::Error {
    if plan.repeatable { error.context(message) } else { error.context(Sent { message }) }
}

fn is_lost(error: &anyhow::Error) -> bool {
    failure::kind_of(error) == Some(Kind::Unreachable)
}

/// Lost, and the server did not say why.
fn is_silence(error: &anyhow::Error) -> bool {
    is_lost(error) && pg::sql_state(error).is_none()
}

fn stays(count: usize) -> String {
    if count == 0 { String::new() } else { format!("; what the {} before it did stays", units::plural(count, "statement")) }
}

/// One line that shows which statement it is.
pub fn excerpt(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
