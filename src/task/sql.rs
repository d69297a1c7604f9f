//! `[sql]`: the user's own statements, bounded in time, with what they did in the report.

mod execute;
mod kept;
mod text;

use std::fmt;
use std::time::Instant;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use toml::Spanned;

use crate::captured::{self, Notice};
use crate::fault::{Fault, Kind};
use crate::job::Checker;
use crate::pg;
use crate::report::Report;
use crate::task::{RunContext, Work};
use crate::units::Span;

/// Long enough for a VACUUM of a large table; a statement that hangs for good is found out.
const STATEMENT_TIMEOUT: Span = Span(std::time::Duration::from_secs(3600));
/// For a statement that was cancelled to come to its end.
const STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
/// Who waits for a lock makes everybody behind him wait.
const LOCK_TIMEOUT: Span = Span(std::time::Duration::from_secs(5));

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Default))]
pub struct Sql {
    statements: Vec<String>,
    transaction: Transaction,
    statement_timeout: Span,
    lock_timeout: Span,
    repeatable: bool,
}

impl Sql {
    /// Its statements may run twice: a run whose end nobody knows is tried again.
    pub fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    pub fn statements(&self) -> &[String] {
        &self.statements
    }
}

/// `[sql]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Run in this order; the first that fails ends the run.
    #[schemars(with = "Vec<String>")]
    pub statements: Spanned<Vec<Spanned<String>>>,
    /// "each" (default): every statement by itself, as VACUUM and CONCURRENTLY need it; "one": all or nothing.
    #[serde(default)]
    pub transaction: Transaction,
    /// Longest time for one statement; default 1 h.
    pub statement_timeout: Option<Span>,
    /// Longest wait for one lock; default 5 s.
    pub lock_timeout: Option<Span>,
    /// The statements may run twice: a run whose connection or process was lost after one was sent is tried again, as `retries` say.
    /// Default false: it is not, as nobody knows what was kept.
    #[serde(default)]
    pub repeatable: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transaction {
    #[default]
    Each,
    One,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Sql> {
    if written.statements.get_ref().is_empty() {
        checker.problem(&written.statements, "`statements` is empty", "write at least one: \"ANALYZE\"".to_owned());
    }
    for statement in written.statements.get_ref() {
        if written.transaction == Transaction::One && is_for_itself(statement.get_ref()) {
            let hint = "transaction = \"each\", or a job of its own".to_owned();
            checker.problem(statement, "this statement cannot run inside a transaction", hint);
        }
        if statement.get_ref().trim().trim_matches(';').is_empty() {
            checker.problem(statement, "an empty statement", None);
        }
        if let Some((message, hint)) = text::refusal(statement.get_ref()) {
            checker.problem(statement, message, hint);
        }
    }
    Some(Sql {
        statements: written.statements.into_inner().into_iter().map(Spanned::into_inner).collect(),
        transaction: written.transaction,
        statement_timeout: written.statement_timeout.unwrap_or(STATEMENT_TIMEOUT),
        lock_timeout: written.lock_timeout.unwrap_or(LOCK_TIMEOUT),
        repeatable: written.repeatable,
    })
}

/// PreventInTransactionBlock in PostgreSQL's source, for what people schedule.
fn is_for_itself(statement: &str) -> bool {
    let words: Vec<String> = statement.split_whitespace().take(6).map(str::to_ascii_uppercase).collect();
    let first = words.first().map(|word| word.trim_end_matches(['(', ';'])).unwrap_or_default();
    first == "VACUUM" || matches!(first, "CREATE" | "DROP" | "REINDEX") && words.iter().any(|word| word == "CONCURRENTLY")
}

#[derive(Debug, Serialize)]
pub struct Plan {
    server: String,
    statements: Vec<String>,
    transaction: Transaction,
    statement_timeout: Span,
    lock_timeout: Span,
    repeatable: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let how = match self.transaction {
            Transaction::Each => "each by itself: what an earlier one did stays when a later one fails",
            Transaction::One => "in one transaction: all or nothing",
        };
        writeln!(f, "Would run on {}, {how}", self.server)?;
        for (index, statement) in self.statements.iter().enumerate() {
            writeln!(f, "  {}. {}", index + 1, statement.trim().replace('\n', "\n     "))?;
        }
        writeln!(
            f,
            "  statement_timeout {}, lock_timeout {}: a statement that takes longer, or waits longer for a lock, fails",
            self.statement_timeout, self.lock_timeout
        )?;
        match self.repeatable {
            true => writeln!(f, "  repeatable: a run that was lost midway is tried again from the first statement"),
            false => Ok(()),
        }
    }
}

impl Work for Sql {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut connection = run.settings.connect().await?;
        let server = pg::Server::of(&mut connection).await?;
        Ok(Plan {
            server: format!("{} (PostgreSQL {})", run.settings.display(), server.version),
            statements: self.statements.clone(),
            transaction: self.transaction,
            statement_timeout: self.statement_timeout,
            lock_timeout: self.lock_timeout,
            repeatable: self.repeatable,
        })
    }

    async fn apply(&self, run: &RunContext<'_>, plan: Plan) -> Result<Report> {
        // Its own session: names are found through the role's own search_path, as everywhere else where this SQL runs. What it
        // leaves there (settings, temporary tables, prepared statements) ends with it.
        let mut connection = run.or_cancelled(run.settings.connect_for(pg::Purpose::Application)).await?;
        pg::set(&mut connection, "statement_timeout", &plan.statement_timeout.0.as_millis().to_string()).await?;
        pg::set(&mut connection, "lock_timeout", &plan.lock_timeout.0.as_millis().to_string()).await?;
        run.or_cancelled(wait_for_orphan(run, &mut connection)).await?;
        let pid = pg::backend_pid(&mut connection).await?;
        let mut report = Report::default();
        let sent = execute::SentLast::default();
        // Only a cancellation is an error of the outer result.
        let work = run
            .or_cancelled(async { Ok(captured::notices(execute::all(&mut connection, &plan, &sent, &mut report)).await) })
            .await;
        match work {
            Ok((result, notices)) => {
                keep_notices(&mut report, &notices);
                result.map(|()| report)
            }
            Err(cancelled) => {
                // Dropping the connection does not stop the statement; asking does. Its transaction rolls back.
                if let Err(error) = pg::cancel_backend(&run.settings, pid).await {
                    tracing::warn!("cannot cancel the statement of server process {pid}: {error:#}");
                }
                // Until it has stopped (a ping waits for its answer), the next run must not get the lock.
                let _ = tokio::time::timeout(STOP_TIMEOUT, sqlx::Connection::ping(&mut connection)).await;
                Err(execute::cancelled(&plan, &sent, cancelled))
            }
        }
    }
}

/// Longer than a server takes to see that a client is gone.
const ORPHAN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A killed process lets its run's locks go while its statement runs on, until the server sees that its client is
/// gone (`client_connection_check_interval`). This lock is of the connection that works.
async fn wait_for_orphan(run: &RunContext<'_>, connection: &mut PgConnection) -> Result<()> {
    let lock = format!("pgtend sql {}/{}", run.database, run.job.name);
    let started = Instant::now();
    while !pg::try_lock(connection, &lock).await? {
        if started.elapsed() > ORPHAN_TIMEOUT {
            let holder = pg::lock_holder(&mut run.settings.connect().await?, &lock)
                .await?
                .map_or_else(|| "one that has just ended".to_owned(), |holder| holder.to_string());
            let message = format!("a statement of an earlier run, whose process is gone, still runs: {holder}");
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
