//! Prepared transactions that a run leaves behind. They hold their locks without a session, across restarts, until a person or a
//! transaction manager ends them, so that every run that does not succeed names its own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use super::kept::{Prepared, quoted};
use super::plan::Plan;
use super::progress::Progress;
use super::text::{self, Ends};
use crate::pg;

/// The longest time to ask the server for prepared transactions after a failure.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The prepared transactions that a run leaves.
#[derive(Debug, Default)]
pub struct PreparedLeft {
    pub there: Vec<Prepared>,
    /// Names of which pgtend cannot tell whether the server has them: the connection was lost.
    doubtful: Vec<String>,
}

impl PreparedLeft {
    /// Takes them from the answers of a run that succeeded, which all arrived.
    pub fn by_answers(progress: &Progress) -> Self {
        Self { there: progress.state().tally.prepared().to_vec(), doubtful: Vec::new() }
    }

    /// Returns one sentence for all of them; None where nothing is left.
    pub fn sentence(&self) -> Option<String> {
        let mut parts: Vec<String> = self.there.iter().map(ToString::to_string).collect();
        if !parts.is_empty() {
            parts
                .push("until then it keeps its locks, and VACUUM cannot remove rows that were deleted since it began".to_owned());
        }
        parts.extend(self.doubtful.iter().map(|name| {
            format!(
                "prepared transaction {name} may be left behind: look for it in pg_prepared_xacts, and end it with COMMIT PREPARED {name} \
                 or ROLLBACK PREPARED {name}",
                name = quoted(name)
            )
        }));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Returns the server's time in seconds, which tells the run's own prepared transactions from older ones of the same name. None
/// where no statement prepares any.
pub async fn server_time(connection: &mut PgConnection, plan: &Plan) -> Result<Option<f64>> {
    if names(&plan.statements).is_empty() {
        return Ok(None);
    }
    let sql = "SELECT EXTRACT(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8";
    Ok(Some(sqlx::query_scalar(sql).fetch_one(connection).await?))
}

/// Finds out what a run that failed or was cancelled leaves. Its answers do not tell: those of several commands in one text arrive
/// together, when the last of them is done.
///
/// `pid` is the run's server process, and `is_idle` says that its last statement is over.
pub async fn after_failure(
    settings: &pg::Settings,
    plan: &Plan,
    progress: &Progress,
    since: Option<f64>,
    pid: i32,
    is_idle: bool,
) -> PreparedLeft {
    let sent = progress.sent.load(Ordering::Relaxed).min(plan.statements.len());
    let Some(since) = since.filter(|_| sent > 0) else { return PreparedLeft::default() };
    let candidates = names(&plan.statements[..sent]);
    if candidates.is_empty() {
        return PreparedLeft::default();
    }
    let answered = progress.state().tally.prepared().to_vec();
    // All before the last statement were answered.
    let unanswered =
        || names(&plan.statements[sent - 1..sent]).into_iter().filter(|name| !answered.iter().any(|one| one.name == *name));
    match tokio::time::timeout(ASK_TIMEOUT, ask(settings, &candidates, since, pid)).await {
        Ok(Ok((found, is_running))) => {
            let rows = |name: &str| answered.iter().find(|one| one.name == name).and_then(|one| one.rows);
            let doubtful = unanswered().filter(|name| !is_idle && is_running && !found.contains(name)).collect();
            PreparedLeft { there: found.iter().map(|name| Prepared { name: name.clone(), rows: rows(name) }).collect(), doubtful }
        }
        Ok(Err(_)) | Err(_) => PreparedLeft { there: answered.clone(), doubtful: unanswered().collect() },
    }
}

/// Returns which of the names the server has, and whether the server process still runs.
async fn ask(settings: &pg::Settings, names: &[String], since: f64, pid: i32) -> Result<(Vec<String>, bool)> {
    let mut connection = settings.connect().await?;
    // This comes first: a process that is gone prepares nothing more.
    let is_running = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1)";
    let is_running: bool = sqlx::query_scalar(is_running).bind(pid).fetch_one(&mut connection).await?;
    let sql = "SELECT gid FROM pg_catalog.pg_prepared_xacts
               WHERE database = pg_catalog.current_database() AND gid = ANY ($1)
                 AND EXTRACT(epoch FROM prepared)::pg_catalog.float8 >= $2
               ORDER BY prepared";
    let found: Vec<String> = sqlx::query_scalar(sql).bind(names).bind(since).fetch_all(&mut connection).await?;
    Ok((found, is_running))
}

/// The names that PREPARE TRANSACTION gives in these texts.
fn names(texts: &[String]) -> Vec<String> {
    let prepares = |command| match command {
        Ends::Prepare(name) => Some(name),
        _ => None,
    };
    texts.iter().flat_map(|text| text::ends(text)).filter_map(prepares).collect()
}
