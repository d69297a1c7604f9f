//! Allows one run of a job on a database at a time: session advisory locks on separate connections. They end with the connection,
//! so nothing has to expire; the loss of a connection is noticed, and ends the run.
//!
//! With a ledger there are two locks: one in the ledger's database, where everyone who reads the history sees it, and one in the
//! target, where a runner with another ledger, or none, sees it too.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::places;
use crate::base::fault::{Fault, Kind};
use crate::base::process_identity::ProcessIdentity;
use crate::base::progress::Progress;
use crate::ledger::{self, Ledger};
use crate::pg;
use crate::work::{self, RunContext};

/// A heartbeat that takes longer means that the connection is gone. This is shorter than the time after which the server gives up
/// on us ([`pg::Settings::connect`]), so that a run stops before another can start.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// A server that does not answer us does not give the lock to others either.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// This is longer than a busy server takes to see that the client of an idle session is gone.
const DEAD_HOLDER_TIMEOUT: Duration = Duration::from_secs(10);
const DEAD_HOLDER_LOOK: Duration = Duration::from_millis(200);

pub struct Locks {
    target: PgConnection,
    ledger: Option<(PgConnection, i64)>,
    identity: String,
    /// Runs of the same job that had the lock before, and were found dead.
    pub crashed: Vec<ledger::Row>,
}

/// Takes the locks of a run, or returns an error that names their holder.
pub async fn take(run: &RunContext<'_>, ledger: Option<(&Ledger, i64)>) -> Result<Locks> {
    let (job, database) = (run.job.name, run.database);
    let identity = identity();
    let ledger = match ledger {
        Some((ledger, id)) => {
            let mut connection = ledger.connect().await?;
            take_one(&mut connection, job, database, &ledger::lock_name(job, database), &identity).await?;
            places::take(&mut connection, run).await?;
            show_identity(&mut connection, &identity).await?;
            Some((connection, id))
        }
        None => None,
    };
    let in_target = async {
        let mut target = run.lasting_settings().connect().await.with_context(|| format!("database `{database}`"))?;
        // Beside the database, others are locked as well: by the names that they really have.
        let (own, in_files) = (run.settings.database(), Some(database).filter(|_| !run.job.renames_database));
        // The name in the configuration is what earlier versions lock; two names may lead to one database, whose own name is the same for all.
        for place in in_files.filter(|in_files| *in_files != own).into_iter().chain([own]) {
            take_one(&mut target, job, database, &work::lock_name(place, job), &identity).await?;
        }
        Ok(target)
    };
    let target = match in_target.await {
        Ok(target) => target,
        Err(error) => {
            if let Some((mut connection, _)) = ledger {
                release_one(&mut connection).await;
            }
            return Err(error);
        }
    };
    let mut locks = Locks { target, ledger, identity, crashed: Vec::new() };
    if let Some((connection, id)) = &mut locks.ledger {
        locks.crashed = ledger::mark_locked(connection, *id).await?;
        show_identity(connection, &locks.identity).await?;
    }
    Ok(locks)
}

async fn take_one(connection: &mut PgConnection, job: &str, database: &str, name: &str, identity: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        if pg::try_lock(connection, name).await? {
            return show_identity(connection, identity).await;
        }
        let holder = pg::lock_holder(connection, name).await?;
        // A killed process holds its lock until the server sees that it is gone.
        let is_passing = match &holder {
            Some(holder) => is_known_dead(&holder.query),
            None => true,
        };
        if is_passing && started.elapsed() < DEAD_HOLDER_TIMEOUT {
            tokio::time::sleep(DEAD_HOLDER_LOOK).await;
            continue;
        }
        let holder = holder.map_or_else(|| "a session that has just ended".to_owned(), |holder| holder.to_string());
        let message = format!("job `{job}` is already running on `{database}`: its lock is held by {holder}");
        return Err(Fault::new(Kind::Busy, message).into());
    }
}

/// This comment follows the queries of a session that holds a lock, so that others of the same role see in pg_stat_activity whose
/// it is.
const WHO: &str = "-- pgtend ";

fn identity() -> String {
    // A comment ends at the end of the line; this JSON has no line breaks.
    let json = serde_json::to_string(&ProcessIdentity::own()).unwrap_or_default();
    pg::comment(&format!("pgtend {json}"))
}

async fn show_identity(connection: &mut PgConnection, identity: &str) -> Result<()> {
    pg::execute(connection, format!("SELECT 1 {identity}")).await
}

/// Returns true only if the holder is certainly dead: a session with any other query counts as alive.
fn is_known_dead(query: &str) -> bool {
    let json = query.rsplit_once(WHO).map(|(_, json)| json);
    json.and_then(|json| serde_json::from_str::<ProcessIdentity>(json).ok()).is_some_and(|holder| holder.is_known_dead())
}

/// The connection of an abandoned heartbeat may be gone: then so is its lock.
async fn release_one(connection: &mut PgConnection) {
    let unlock = sqlx::query("SELECT pg_advisory_unlock_all()").execute(connection);
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, unlock).await;
}

impl Locks {
    /// Releases the locks. Otherwise a lock ends when the server notices the lost connection, which may be after the next run
    /// asks for it.
    pub async fn release(mut self) {
        release_one(&mut self.target).await;
        if let Some((connection, _)) = &mut self.ledger {
            release_one(connection).await;
        }
    }

    /// Sends heartbeats; returns when a connection, and its lock with it, is gone.
    pub async fn lost(&mut self, progress: &Progress) -> anyhow::Error {
        loop {
            tokio::time::sleep(Duration::from_secs(ledger::HEARTBEAT_SECONDS)).await;
            match tokio::time::timeout(HEARTBEAT_TIMEOUT, self.heartbeat(progress)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return anyhow::anyhow!("no answer in {} s", HEARTBEAT_TIMEOUT.as_secs()),
            }
        }
    }

    async fn heartbeat(&mut self, progress: &Progress) -> Result<()> {
        if let Some((connection, id)) = &mut self.ledger {
            let who = &self.identity;
            let beat = async {
                ledger::heartbeat(connection, *id, progress).await?;
                show_identity(connection, who).await
            };
            beat.await.context("the ledger's database")?;
        }
        show_identity(&mut self.target, &self.identity).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_dead_only_when_its_own_words_and_its_process_say_so() {
        let own = format!("SELECT 1 {}", identity());
        assert!(own.len() < 1000, "track_activity_query_size is 1024: {own}");
        assert!(!is_known_dead(&own), "this process runs");
        let mut ended = ProcessIdentity::own();
        ended.start_ticks = "1".to_owned();
        let json = serde_json::to_string(&ended).unwrap();
        assert!(is_known_dead(&format!("SELECT 1 {WHO}{json}")));
        for query in [
            "SELECT pg_advisory_lock(1)",
            "",
            "SELECT 1 -- pgtend",
            "SELECT 1 -- pgtend {\"pid\": \"x\"}",
            "<insufficient privilege>",
        ] {
            assert!(!is_known_dead(query), "{query}");
        }
    }
}
