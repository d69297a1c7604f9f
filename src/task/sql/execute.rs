//! The statements one after the other, and the truth about what is kept of them.
//!
//! After each statement the server is asked whether a transaction is open: a BEGIN without its end keeps nothing, and a COMMIT
//! in the list takes "all or nothing" away. Neither can be told from the answers to the statements.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use sqlx::PgConnection;

use super::failed::{after_answer, excerpt, failed, not_committed, with_prepared};
use super::kept::Tally;
use super::keys::Transaction;
use super::plan::Plan;
use super::progress::{Open, Progress};
use super::text;
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg::{self, InTransaction};

/// Gone with the transaction for which it is set.
const MARK: &str = "pgtend.transaction";

/// How a list ended of which no statement failed.
pub enum Ended {
    Kept,
    /// Not all of it is kept: why this is a failure.
    Unfinished(String),
}

pub async fn all(connection: &mut PgConnection, plan: &Plan, progress: &Progress, report: &mut Report) -> Result<Ended> {
    let done = each_in_turn(connection, plan, progress, report).await;
    let prepared = progress.prepared();
    match done {
        Ok(()) if prepared.is_empty() => Ok(Ended::Kept),
        Ok(()) => Ok(Ended::Unfinished(format!(
            "the statements leave a transaction behind{}: end it in the list, or leave PREPARE TRANSACTION out",
            with_prepared(&prepared)
        ))),
        Err(error) if prepared.is_empty() => Err(error),
        Err(error) => {
            let left = with_prepared(&prepared);
            Err(error.context(left.trim_start_matches("; ").to_owned()))
        }
    }
}

async fn each_in_turn(connection: &mut PgConnection, plan: &Plan, progress: &Progress, report: &mut Report) -> Result<()> {
    let count = plan.statements.len();
    let (mut tally, mut statements, mut open) = (Tally::default(), Vec::new(), None);
    if plan.transaction == Transaction::One {
        tally = Tally::of_one_transaction();
        pg::execute(connection, "BEGIN".to_owned()).await?;
        mark(connection).await?;
    }
    for (index, statement) in plan.statements.iter().enumerate() {
        let started = Instant::now();
        progress.sent.store(index + 1, Ordering::Relaxed);
        let kept_before = (tally.kept(), tally.rolled_back());
        let mut rows = Vec::new();
        if let Err(error) = pg::execute_script_into(connection, statement, &mut rows).await {
            // Rows of a transaction that was open count as kept before.
            let kept_before = tally.committed();
            tally.add_failed(statement, &rows);
            progress.now_prepared(&tally);
            return Err(failed(plan, index, open.as_ref(), &rows, tally.committed() - kept_before, error));
        }
        tally.add(statement, &rows);
        progress.now_prepared(&tally);
        let rows: u64 = rows.iter().sum();
        let mut told = json!({
            "statement": excerpt(statement),
            // COMMIT PREPARED has none of its own.
            "rows": tally.kept().saturating_sub(kept_before.0).min(rows),
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
            progress.sent.store(count + 1, Ordering::Relaxed);
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
    if !tally.prepared().is_empty() {
        let rows: u64 = tally.prepared().iter().map(|prepared| prepared.rows).sum();
        report.summary += &format!("; {} in a prepared transaction", units::plural(rows as usize, "row"));
        let prepared = tally.prepared().iter().map(|prepared| json!({ "name": prepared.name, "rows": prepared.rows }));
        report.fact("prepared_transactions", prepared.collect::<Vec<_>>());
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
