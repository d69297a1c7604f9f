//! The statements one after the other, and the truth about what is kept of them.
//!
//! After each statement the server is asked whether a transaction is open: a BEGIN without its end keeps nothing, and a COMMIT
//! in the list takes "all or nothing" away. Neither can be told from the answers to the statements.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use sqlx::PgConnection;

use super::kept::Tally;
use super::keys::Transaction;
use super::plan::Plan;
use super::text;
use crate::base::fault::{Fault, Kind, Sent};
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg::{self, InTransaction, failure};

/// The number of the statement that was sent last; 0: none was. One more than there are is the COMMIT at the end.
#[derive(Debug, Default)]
pub struct SentLast(AtomicUsize);

/// A transaction that statements of the list have begun.
#[derive(Clone)]
struct Open {
    /// The index of the statement.
    by: usize,
    /// None: its own BEGIN is all that was sent so far.
    began: Option<String>,
}

/// Gone with the transaction for which it is set.
const MARK: &str = "pgtend.transaction";

pub async fn all(connection: &mut PgConnection, plan: &Plan, sent: &SentLast, report: &mut Report) -> Result<()> {
    let count = plan.statements.len();
    let (mut tally, mut statements, mut open) = (Tally::default(), Vec::new(), None);
    if plan.transaction == Transaction::One {
        tally = Tally::of_one_transaction();
        pg::execute(connection, "BEGIN".to_owned()).await?;
        mark(connection).await?;
    }
    for (index, statement) in plan.statements.iter().enumerate() {
        let started = Instant::now();
        sent.0.store(index + 1, Ordering::Relaxed);
        let rows = pg::execute_script(connection, statement).await.map_err(|error| failed(plan, index, open.as_ref(), error))?;
        let kept_before = (tally.kept(), tally.rolled_back());
        tally.add(statement, &rows);
        let rows: u64 = rows.iter().sum();
        let mut told = json!({
            "statement": excerpt(statement),
            "rows": tally.kept().saturating_sub(kept_before.0),
            "elapsed_seconds": started.elapsed().as_secs_f64(),
        });
        if tally.rolled_back() > kept_before.1 {
            told["rows_rolled_back"] = (tally.rolled_back() - kept_before.1).into();
        }
        statements.push(told);
        tracing::info!(rows, "statement {} of {count} done: {}", index + 1, excerpt(statement));
        let look = async {
            match plan.transaction {
                Transaction::One => still_the_same(connection, plan, index).await,
                Transaction::Each => {
                    open = open_now(connection, plan, index, open.take()).await?;
                    Ok(())
                }
            }
        };
        look.await.map_err(|error| after_answer(plan, index, error))?;
    }
    match (plan.transaction, open) {
        (Transaction::One, _) => {
            sent.0.store(count + 1, Ordering::Relaxed);
            pg::execute(connection, "COMMIT".to_owned()).await.map_err(|error| not_committed(plan, error))?;
        }
        (Transaction::Each, Some(open)) => anyhow::bail!(
            "the transaction that statement {} of {count} began is still open at the end, so that nothing of it is kept: end it with COMMIT, \
             or leave BEGIN out and say transaction = \"one\": {}",
            open.by + 1,
            excerpt(&plan.statements[open.by])
        ),
        (Transaction::Each, None) => {}
    }
    report.summary = format!("{}, {}", units::plural(count, "statement"), units::plural(tally.kept() as usize, "row"));
    if tally.has_rollback() {
        let rolled_back = units::plural(tally.rolled_back() as usize, "row");
        report.summary += &format!("; {rolled_back} rolled back by the statements themselves");
        report.warnings.push(format!("the statements rolled back what they did ({rolled_back}): nothing of that is kept"));
        report.fact("rows_rolled_back", tally.rolled_back());
    }
    report.fact("rows", tally.kept());
    report.fact("statements", statements);
    Ok(())
}

/// By utility statements, here and in [`still_the_same`]: a query would take a snapshot, after which SET TRANSACTION is refused.
async fn mark(connection: &mut PgConnection) -> Result<()> {
    pg::execute(connection, format!("SET LOCAL {MARK} = 'open'")).await
}

/// The transaction of the job is the one that it began.
async fn still_the_same(connection: &mut PgConnection, plan: &Plan, index: usize) -> Result<()> {
    let statement = &plan.statements[index];
    if pg::fetch_text(connection, format!("SHOW {MARK}")).await?.as_deref() == Some("open") {
        return Ok(());
    }
    // RESET ALL takes the mark, too.
    if !text::ends_transaction(statement) && matches!(pg::in_transaction(connection).await?, InTransaction::Since(_)) {
        return mark(connection).await;
    }
    anyhow::bail!(
        "statement {} of {} ended the transaction of the job (COMMIT, ROLLBACK or the like), so that transaction = \"one\" does not hold: what \
         came before it is kept if that was a COMMIT, and the statements after it did not run. Leave it out, or say transaction = \"each\": {}",
        index + 1,
        plan.statements.len(),
        excerpt(statement)
    )
}

/// The transaction that is open after the statement at `index`.
async fn open_now(connection: &mut PgConnection, plan: &Plan, index: usize, before: Option<Open>) -> Result<Option<Open>> {
    let starts = text::starts(&plan.statements[index]);
    if starts.only && index + 1 < plan.statements.len() {
        // Not asked, as the question would be a query, and the next may be SET TRANSACTION.
        return Ok(before.or(starts.transaction.then_some(Open { by: index, began: None })));
    }
    let began = match pg::in_transaction(connection).await? {
        InTransaction::No => return Ok(None),
        InTransaction::Since(began) => Some(began),
        InTransaction::Failed => None,
    };
    let is_the_same = |before: &Open| before.began.is_none() || before.began == began;
    let by = before.filter(is_the_same).map_or(index, |before| before.by);
    Ok(Some(Open { by, began }))
}

/// What a run that is cancelled leaves, as its error says it.
pub fn cancelled(plan: &Plan, sent: &SentLast, error: anyhow::Error) -> anyhow::Error {
    let (number, count) = (sent.0.load(Ordering::Relaxed), plan.statements.len());
    match (number, plan.transaction) {
        (0, _) => error,
        (number, Transaction::One) if number <= count => error.context("nothing of its transaction is kept"),
        (_, Transaction::One) => as_sent(plan, error, "COMMIT was under way, so that it may have been kept".to_owned()),
        (number, Transaction::Each) => {
            let message = format!(
                "statement {number} of {count} was asked to stop{}: {}",
                match plan.statements[..number].iter().any(|statement| text::starts(statement).transaction) {
                    true => "; of what came before it, what was committed stays".to_owned(),
                    false => stays(number - 1),
                },
                excerpt(&plan.statements[number - 1])
            );
            as_sent(plan, error, message)
        }
    }
}

fn failed(plan: &Plan, index: usize, open: Option<&Open>, error: anyhow::Error) -> anyhow::Error {
    let (statement, number, count) = (&plan.statements[index], index + 1, plan.statements.len());
    let ends_transaction = text::ends_transaction(statement);
    let before = match (plan.transaction, open) {
        (Transaction::One, _) if ends_transaction => {
            "; it ends the transaction by itself, so that what came before may have been kept".to_owned()
        }
        (Transaction::One, _) if index == 0 => String::new(),
        (Transaction::One, _) => "; all before it was rolled back".to_owned(),
        (Transaction::Each, Some(_)) if ends_transaction => {
            "; it ends the transaction that was open by itself, so that what came before may have been kept".to_owned()
        }
        (Transaction::Each, Some(open)) => {
            let kept = if open.by == 0 { String::new() } else { stays(open.by) };
            format!("; what was done since statement {} began a transaction is rolled back{kept}", open.by + 1)
        }
        (Transaction::Each, None) => stays(index),
    };
    let may_be_kept = ends_transaction || (plan.transaction == Transaction::Each && open.is_none());
    if may_be_kept && is_silence(&error) && !plan.repeatable {
        let message = format!(
            "statement {number} of {count} was sent, and the connection ended without an answer: whether it was kept is not known, and it \
             is not tried again. Look, then run the job again; `repeatable = true` is for statements that may run twice{before}: {}",
            excerpt(statement)
        );
        return error.context(Fault::new(Kind::Unknown, message));
    }
    let message = format!("statement {number} of {count} failed{before}: {}", excerpt(statement));
    if is_lost(&error) { as_sent(plan, error, message) } else { error.context(message) }
}

/// The statement was answered; what is lost came after.
fn after_answer(plan: &Plan, index: usize, error: anyhow::Error) -> anyhow::Error {
    if !is_lost(&error) {
        return error;
    }
    let message = format!("after statement {} of {}, which was done", index + 1, plan.statements.len());
    as_sent(plan, error, message)
}

fn not_committed(plan: &Plan, error: anyhow::Error) -> anyhow::Error {
    // Also where the server said that it ended the session: that may have come behind the commit.
    if is_lost(&error) && !plan.repeatable {
        let message = "COMMIT was sent, and the connection ended without an answer: whether any of the statements was kept, or all of them, is \
                       not known, and they are not tried again. Look, then run the job again; `repeatable = true` is for statements that \
                       may run twice";
        return error.context(Fault::new(Kind::Unknown, message));
    }
    error.context("cannot commit")
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
fn excerpt(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
