//! Errors of a run that ended early. They say what is committed, what is rolled back, and what is not known.

use std::sync::atomic::Ordering;

use super::keys::Transaction;
use super::plan::Plan;
use super::progress::{Open, Progress, State};
use super::text;
use crate::base::fault::{Fault, Kind, Sent};
use crate::base::units;
use crate::pg::{self, failure};

/// Makes the error of the statement at `index`, which failed after the server had answered `answered` of its commands.
pub fn failed(plan: &Plan, index: usize, answered: usize, state: &State, error: anyhow::Error) -> anyhow::Error {
    let (statement, number, count) = (&plan.statements[index], index + 1, plan.statements.len());
    let is_lost = is_lost(&error);
    let stays = what_stays(plan, index, answered, state, !is_lost);
    let may_be_kept = text::ends_transaction(statement) || (plan.transaction == Transaction::Each && state.open.is_none());
    if may_be_kept && is_silence(&error) && !plan.repeatable {
        let message = format!(
            "statement {number} of {count} was sent, and {}: whether it was committed is not known, and it is not tried again. Check that, then run \
             the job again; set `repeatable = true` only for statements that may run twice{stays}: {}",
            no_answer(&error),
            excerpt(statement)
        );
        return error.context(Fault::new(Kind::Unknown, message));
    }
    let commands = text::commands(statement);
    let at = match commands.get(answered) {
        Some((command, _)) if !is_lost && answered > 0 => {
            format!(" at its command {} of {} ({})", answered + 1, commands.len(), excerpt(command))
        }
        _ => String::new(),
    };
    let message = format!("statement {number} of {count} failed{at}{stays}: {}", excerpt(statement));
    if is_lost { as_sent(plan, error, message) } else { error.context(message) }
}

/// Says what is committed of a run that ended with the statement at `index`, and what is rolled back; empty where there is nothing
/// to say.
///
/// All commands of one text are one transaction, or belong to the open one, unless some of them end it: PostgreSQL keeps what a
/// COMMIT in the text committed, although a later command fails. `is_known` says that the server answered the statement with its
/// error: otherwise commands after the `answered` ones may have run.
fn what_stays(plan: &Plan, index: usize, answered: usize, state: &State, is_known: bool) -> String {
    let commands = text::commands(&plan.statements[index]);
    let (answered, unanswered) = commands.split_at(answered.min(commands.len()));
    let may_end = !is_known && unanswered.iter().any(|(_, ends)| ends.is_end());
    if answered.iter().any(|(_, ends)| ends.is_end()) {
        let itself = if plan.transaction == Transaction::One { "; it ended the transaction of the job itself" } else { "" };
        // The commands after an end are committed at the latest with the end of the text.
        if !is_known && state.tally.last_commit().is_none() {
            return itself.to_owned() + "; whether anything of it is committed is not known";
        }
        return itself.to_owned() + &committed(plan, state, index, index) + rest(state, is_known);
    }
    // The first statement of the transaction that failed.
    let start = match (plan.transaction, &state.open) {
        (Transaction::One, _) => 0,
        (Transaction::Each, Some(open)) => open.by,
        (Transaction::Each, None) => index,
    };
    let itself = match (plan.transaction, &state.open) {
        // The missing answer may be the one to its own COMMIT.
        (Transaction::One, _) | (Transaction::Each, Some(_)) if may_end => {
            "; it ends the transaction itself, so that what came before it may be committed".to_owned()
        }
        (Transaction::Each, None) if may_end => {
            "; it ends its transaction itself, so that a part of it may be committed".to_owned()
        }
        (Transaction::One, _) if index > 0 => "; everything before it is rolled back".to_owned(),
        (Transaction::One, _) => String::new(),
        (Transaction::Each, Some(open)) => format!("; the transaction that statement {} began is rolled back", open.by + 1),
        (Transaction::Each, None) if text::commits_within(&plan.statements[index]) => {
            "; it commits while it runs, so that a part of its work may be committed".to_owned()
        }
        (Transaction::Each, None) if is_known && !answered.is_empty() => "; its commands before that are rolled back".to_owned(),
        (Transaction::Each, None) => String::new(),
    };
    let is_block = plan.transaction == Transaction::One || state.open.is_some();
    let is_rolled_back = match is_block {
        true => !may_end,
        false => is_known && !text::commits_within(&plan.statements[index]),
    };
    itself + &before(plan, state, start, index, is_rolled_back)
}

/// Says what is committed of the statements before the one at `start`, with which the failed transaction began; `index` is the one
/// that failed. `is_rolled_back` says that the failed transaction is certainly rolled back.
fn before(plan: &Plan, state: &State, start: usize, index: usize, is_rolled_back: bool) -> String {
    match state.tally.last_commit() {
        None if start == 0 => String::new(),
        None if !is_rolled_back => "; nothing before it is committed".to_owned(),
        Some(commit) if commit.command.is_none() && commit.text + 1 == start => committed(plan, state, start, index),
        _ => committed(plan, state, start, index) + rest(state, is_rolled_back),
    }
}

/// Says up to which point everything is committed, where "it" is the statement at `index`, or a transaction that began with the one
/// at `start`.
fn committed(plan: &Plan, state: &State, start: usize, index: usize) -> String {
    let Some(commit) = state.tally.last_commit() else { return "; nothing is committed".to_owned() };
    let up_to = match commit.command {
        None if commit.text + 1 == start && start == 1 => "the statement before it remains committed".to_owned(),
        None if commit.text + 1 == start => format!("the {start} statements before it remain committed"),
        None if commit.text == index => "everything up to its end remains committed".to_owned(),
        None if commit.text == 0 => "statement 1 remains committed".to_owned(),
        None => format!("everything up to statement {} remains committed", commit.text + 1),
        Some(at) => {
            let commands = text::commands(&plan.statements[commit.text]);
            let command = commands.get(at).map(|(command, _)| excerpt(command)).unwrap_or_default();
            match commit.text == index {
                true => format!("everything up to its command {} of {} ({command}) remains committed", at + 1, commands.len()),
                false => {
                    let statement = commit.text + 1;
                    format!("everything up to command {} of statement {statement} ({command}) remains committed", at + 1)
                }
            }
        }
    };
    let rows = if commit.rows > 0 { format!(" ({})", units::plural(commit.rows as usize, "row")) } else { String::new() };
    let exceptions = if commit.has_exceptions { ", except for what was rolled back or prepared" } else { "" };
    format!("; {up_to}{rows}{exceptions}")
}

/// Says what became of the work after the last commit. `is_rolled_back` says that what was open then is certainly rolled back.
fn rest(state: &State, is_rolled_back: bool) -> &'static str {
    match (is_rolled_back, state.tally.last_commit().is_some()) {
        (false, _) => "; whether anything after that is committed is not known",
        (true, true) if !state.tally.prepared().is_empty() => "; everything after that is rolled back or prepared",
        (true, true) => "; everything after that is rolled back",
        (true, false) => "",
    }
}

/// Makes the error of a cancelled run.
pub fn cancelled(plan: &Plan, progress: &Progress, error: anyhow::Error) -> anyhow::Error {
    let (number, count) = (progress.sent.load(Ordering::Relaxed), plan.statements.len());
    let Some(index) = number.checked_sub(1) else { return error };
    match plan.transaction {
        Transaction::One if index == count => {
            as_sent(plan, error, "its COMMIT was under way: the transaction may be committed".to_owned())
        }
        Transaction::One if !text::ends_transaction(&plan.statements[index]) => {
            error.context("nothing of its transaction is committed")
        }
        Transaction::One | Transaction::Each => {
            let stays = what_stays(plan, index, 0, &progress.state(), false);
            let statement = excerpt(&plan.statements[index]);
            as_sent(plan, error, format!("statement {number} of {count} was asked to stop{stays}: {statement}"))
        }
    }
}

/// Adds to an error which statement was answered before it, and what stays.
pub fn after_answer(plan: &Plan, index: usize, state: &State, error: anyhow::Error) -> anyhow::Error {
    if !is_lost(&error) {
        return error;
    }
    let stays = match state.tally.last_commit() {
        Some(commit) if commit.command.is_none() && commit.text == index => committed(plan, state, 0, index),
        _ => committed(plan, state, 0, index) + rest(state, true),
    };
    let message =
        format!("statement {} of {} succeeded, and then the connection was lost{stays}", index + 1, plan.statements.len());
    as_sent(plan, error, message)
}

/// Makes the error of a list at whose end a transaction is open.
pub fn still_open(plan: &Plan, state: &State, open: &Open) -> anyhow::Error {
    anyhow::anyhow!(
        "the transaction that statement {} of {} began is still open at the end, and is rolled back{}. End it with COMMIT, or leave out \
         BEGIN and set transaction = \"one\": {}",
        open.by + 1,
        plan.statements.len(),
        before(plan, state, open.by, plan.statements.len(), true),
        excerpt(&plan.statements[open.by])
    )
}

/// Makes the error of a statement that ended the transaction of the job.
pub fn not_the_same(plan: &Plan, index: usize, state: &State) -> anyhow::Error {
    let stays = match state.tally.last_commit() {
        None if !text::ends_transaction(&plan.statements[index]) => {
            "; what came before it remains committed if it was ended by a COMMIT".to_owned()
        }
        Some(commit) if commit.command.is_none() => committed(plan, state, 0, index),
        _ => committed(plan, state, 0, index) + rest(state, true),
    };
    anyhow::anyhow!(
        "statement {} of {} ended the transaction of the job (COMMIT, ROLLBACK or the like), so that transaction = \"one\" does not \
         hold{stays}. The statements after it did not run. Leave it out, or set transaction = \"each\": {}",
        index + 1,
        plan.statements.len(),
        excerpt(&plan.statements[index])
    )
}

/// Makes the error of the COMMIT at the end.
pub fn not_committed(plan: &Plan, error: anyhow::Error) -> anyhow::Error {
    // This also holds where the server said that it ended the session: that may have come after the commit.
    if is_lost(&error) && !plan.repeatable {
        let message = format!(
            "COMMIT was sent, and {}: whether the transaction was committed is not known, and it is not tried again. Check that, then run the job \
             again; set `repeatable = true` only for statements that may run twice",
            no_answer(&error)
        );
        return error.context(Fault::new(Kind::Unknown, message));
    }
    let message = match is_lost(&error) {
        true => format!("COMMIT was sent, and {}", no_answer(&error)),
        false => "cannot commit; everything is rolled back".to_owned(),
    };
    error.context(message)
}

/// Adds a context after which the error is not retried by default, unless the statements may run twice.
fn as_sent(plan: &Plan, error: anyhow::Error, message: String) -> anyhow::Error {
    if plan.repeatable { error.context(message) } else { error.context(Sent { message }) }
}

/// There is no answer of the server to go by: the connection is lost, or the client did not understand what came.
fn is_lost(error: &anyhow::Error) -> bool {
    failure::kind_of(error) == Some(Kind::Unreachable) || is_not_understood(error)
}

/// A session that listens (LISTEN) may get a notification where the client expects the answer to a COMMIT.
fn is_not_understood(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| matches!(cause.downcast_ref::<sqlx::Error>(), Some(sqlx::Error::Protocol(_) | sqlx::Error::Decode(_))))
}

fn no_answer(error: &anyhow::Error) -> &'static str {
    if is_not_understood(error) { "its answer was not understood" } else { "the connection ended without an answer" }
}

/// Returns whether the connection is lost and the server did not say why.
fn is_silence(error: &anyhow::Error) -> bool {
    is_lost(error) && pg::sql_state(error).is_none()
}

/// Returns one line, of at most 100 characters, that shows which statement it is.
pub fn excerpt(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
