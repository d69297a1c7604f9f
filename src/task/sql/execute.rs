//! Runs the statements one after the other, and reports what is kept of them.
//!
//! After each statement the server is asked whether a transaction is open: a BEGIN without its end keeps nothing, and a COMMIT
//! in the list takes "all or nothing" away. Neither can be told from the answers to the statements.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use sqlx::PgConnection;

use super::failed::{after_answer, excerpt, failed, not_committed, not_the_same, still_open};
use super::kept::{Tally, quoted};
use super::keys::Transaction;
use super::plan::Plan;
use super::progress::{Open, Progress};
use super::text;
use crate::base::progress::Phase;
use crate::base::units;
use crate::ledger::report::Report;
use crate::pg::{self, InTransaction};

/// A setting that ends with the transaction for which it is set.
const MARK: &str = "pgtend.transaction";

pub async fn all(
    connection: &mut PgConnection,
    plan: &Plan,
    progress: &Progress,
    phase: &Phase,
    report: &mut Report,
) -> Result<()> {
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
        phase.say(&format!("statement {} of {count}: {}", index + 1, excerpt(statement)));
        let kept_before = (tally.kept(), tally.rolled_back());
        let mut rows = Vec::new();
        if let Err(error) = pg::execute_script_into(connection, statement, &mut rows).await {
            tally.add_failed(statement, &rows);
            progress.set(&tally, open.as_ref());
            return Err(failed(plan, index, rows.len(), &progress.state(), error));
        }
        tally.add(statement, &rows);
        progress.set(&tally, open.as_ref());
        let rows: u64 = rows.iter().sum();
        let mut told = json!({
            "statement": excerpt(statement),
            // The answer to COMMIT PREPARED counts no rows.
            "rows": tally.kept().saturating_sub(kept_before.0).min(rows),
            "elapsed_seconds": started.elapsed().as_secs_f64(),
        });
        if tally.rolled_back() > kept_before.1 {
            told["rows_rolled_back"] = (tally.rolled_back() - kept_before.1).into();
        }
        statements.push(told);
        tracing::info!(rows, "statement {} of {count} done: {}", index + 1, excerpt(statement));
        let look = match plan.transaction {
            Transaction::One => still_the_same(connection, plan, index, progress).await.map(|()| None),
            Transaction::Each => open_now(connection, plan, index, open).await,
        };
        open = look.map_err(|error| after_answer(plan, index, &progress.state(), error))?;
        progress.set(&tally, open.as_ref());
    }
    if let Some(open) = &open {
        return Err(still_open(plan, &progress.state(), open));
    }
    if plan.transaction == Transaction::One {
        progress.sent.store(count + 1, Ordering::Relaxed);
        pg::execute(connection, "COMMIT".to_owned()).await.map_err(|error| not_committed(plan, error))?;
    }
    report.fact("statements", statements);
    summarize(report, &tally, count);
    Ok(())
}

fn summarize(report: &mut Report, tally: &Tally, count: usize) {
    report.summary = format!("{}, {}", units::plural(count, "statement"), units::plural(tally.kept() as usize, "row"));
    if tally.has_rollback() {
        let rolled_back = units::plural(tally.rolled_back() as usize, "row");
        report.summary += &format!("; {rolled_back} rolled back by the statements themselves");
        report.warnings.push(format!("the statements rolled back what they did ({rolled_back}): nothing of that is kept"));
        report.fact("rows_rolled_back", tally.rolled_back());
    }
    for name in tally.empty_prepares() {
        let name = quoted(name);
        report
            .warnings
            .push(format!("PREPARE TRANSACTION {name} prepared nothing, because no transaction was open: begin one with BEGIN"));
    }
    if !tally.prepared().is_empty() {
        let rows: u64 = tally.prepared().iter().filter_map(|prepared| prepared.rows).sum();
        report.summary += &format!("; {} in a prepared transaction", units::plural(rows as usize, "row"));
        let prepared = tally.prepared().iter().map(|prepared| json!({ "name": prepared.name, "rows": prepared.rows }));
        report.fact("prepared_transactions", prepared.collect::<Vec<_>>());
    }
    report.fact("rows", tally.kept());
}

/// Marks the transaction of the job. Here and in [`still_the_same`] that is done by utility statements: a query would take a snapshot,
/// after which the server refuses SET TRANSACTION.
async fn mark(connection: &mut PgConnection) -> Result<()> {
    pg::execute(connection, format!("SET LOCAL {MARK} = 'open'")).await
}

/// Fails unless the open transaction is the one that the job began.
async fn still_the_same(connection: &mut PgConnection, plan: &Plan, index: usize, progress: &Progress) -> Result<()> {
    if pg::fetch_text(connection, format!("SHOW {MARK}")).await?.as_deref() == Some("open") {
        return Ok(());
    }
    // RESET ALL removes the mark, too.
    if !text::ends_transaction(&plan.statements[index])
        && matches!(pg::in_transaction(connection).await?, InTransaction::Since(_))
    {
        return mark(connection).await;
    }
    Err(not_the_same(plan, index, &progress.state()))
}

/// Returns the transaction that is open after the statement at `index`.
async fn open_now(connection: &mut PgConnection, plan: &Plan, index: usize, before: Option<Open>) -> Result<Option<Open>> {
    let starts = text::starts(&plan.statements[index]);
    if starts.only && index + 1 < plan.statements.len() {
        // The server is not asked: the question would be a query, after which it refuses a SET TRANSACTION that may come next.
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
