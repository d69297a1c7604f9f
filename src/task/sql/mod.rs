//! `[sql]` runs the user's own statements, or refreshes materialized views, with limits of time, and reports what that did.

mod constant;
mod entry;
mod execute;
mod failed;
mod kept;
mod keys;
mod plan;
mod prepared;
mod progress;
mod text;
mod views;

use std::time::Instant;

use anyhow::Result;
pub use keys::{Refresh, Sql, Transaction, Written, resolve};
pub use plan::Plan;
use prepared::PreparedLeft;
use sqlx::PgConnection;
pub use text::{commands, refusal};

use crate::base::fault::{Fault, Kind};
use crate::base::tool_output::{self, Notice};
use crate::ledger::report::{Report, Unfinished};
use crate::pg;
use crate::work::{Entry as _, RunContext, Work};

/// The longest wait for the end of a statement that was cancelled.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

impl Work for Sql {
    type Plan = Plan;

    const PLAN_IS_KEPT: bool = false;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut connection = run.settings.connect().await?;
        let server = pg::Server::of(&mut connection).await?;
        let statements = match &self.refresh {
            Some(refresh) => views::statements(&mut connection, refresh, self.concurrently).await?,
            None => self.statements.clone(),
        };
        Ok(Plan {
            server: format!("{} (PostgreSQL {})", run.settings.display(), server.version),
            statements,
            transaction: self.transaction,
            statement_timeout: self.statement_timeout,
            lock_timeout: self.lock_timeout,
            repeatable: self.is_repeatable(),
        })
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        // A session of its own: names are found through the role's own search_path, as without pgtend. Settings, temporary tables
        // and prepared statements end with it.
        let mut connection = run.or_cancelled(run.settings.connect_for(pg::Purpose::Application)).await?;
        pg::set(&mut connection, "statement_timeout", &plan.statement_timeout.0.as_millis().to_string()).await?;
        pg::set(&mut connection, "lock_timeout", &plan.lock_timeout.0.as_millis().to_string()).await?;
        run.or_cancelled(wait_for_orphan(run, &mut connection)).await?;
        let pid = pg::backend_pid(&mut connection).await?;
        let since = prepared::server_time(&mut connection, &plan).await?;
        let mut report = Report::default();
        let progress = progress::Progress::default();
        let phase = run.progress.phase("statements", None);
        // Only a cancellation is an error of the outer result.
        let work = run
            .or_cancelled(async {
                Ok(tool_output::notices(execute::all(&mut connection, &plan, &progress, &phase, &mut report)).await)
            })
            .await;
        let failure = match work {
            Ok((Ok(()), notices)) => {
                keep_notices(&mut report, &notices);
                return match PreparedLeft::by_answers(&progress).sentence() {
                    None => Ok(report),
                    Some(left) => {
                        let why = format!("the statements leave a transaction behind: {left}. End it in the list");
                        Err(Unfinished::error(None, why, report))
                    }
                };
            }
            Ok((Err(error), _)) => error,
            Err(cancelled) => {
                // The server rolls its transaction back.
                run.stop_if_cancelled(pid).await;
                failed::cancelled(&plan, &progress, cancelled)
            }
        };
        // A ping waits for the answer of a cancelled statement: the next run must not get the lock before it has ended.
        let is_idle = matches!(tokio::time::timeout(STOP_TIMEOUT, sqlx::Connection::ping(&mut connection)).await, Ok(Ok(())));
        let left = prepared::after_failure(&run.settings, &plan, &progress, since, pid, is_idle).await;
        Err(match left.sentence() {
            None => failure,
            Some(left) => failure.context(left),
        })
    }
}

/// This is longer than a server takes to see that a client is gone.
const ORPHAN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Waits for a statement of an earlier run whose process was killed: its locks as a run are gone, but the statement goes on until
/// the server sees that its client is gone (`client_connection_check_interval`). This lock belongs to the connection that works.
async fn wait_for_orphan(run: &RunContext<'_>, connection: &mut PgConnection) -> Result<()> {
    let lock = format!("pgtend sql {}/{}", run.database, run.job.name);
    let started = Instant::now();
    while !pg::try_lock(connection, &lock).await? {
        if started.elapsed() > ORPHAN_TIMEOUT {
            let holder = pg::lock_holder(&mut run.settings.connect().await?, &lock)
                .await?
                .map_or_else(|| "a session that has just ended".to_owned(), |holder| holder.to_string());
            let message = format!("a statement of an earlier run, whose process is gone, is still running: {holder}");
            return Err(Fault::new(Kind::Busy, message).into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    Ok(())
}

fn keep_notices(report: &mut Report, notices: &[Notice]) {
    report.warnings.extend(notices.iter().filter(|notice| notice.is_warning).map(|notice| notice.message.clone()));
    let others: Vec<&str> = notices.iter().filter(|notice| !notice.is_warning).map(|notice| notice.message.as_str()).collect();
    if !others.is_empty() {
        report.fact("notices", others);
    }
}
