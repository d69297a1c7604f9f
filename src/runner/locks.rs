//! One run of a job on a database at a time: session advisory locks on connections of their own. They end with
//! the connection, so nothing has to expire; a connection that is lost is noticed, and ends the run.
//!
//! With a ledger there are two: one in the ledger's database, where everybody who looks at the history sees it,
//! and one in the target, where a runner with another ledger, or none, sees it too.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::fault::{Fault, Kind};
use crate::ledger::{self, Ledger};
use crate::pg;
use crate::progress::Progress;
use crate::task::RunContext;

/// A heartbeat that takes longer is a connection that is gone. Shorter than the server's own patience with us
/// ([`pg::Settings::connect`]), so that a run stops before another can start.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);

/// A server that does not answer has nobody else asking it for the lock either.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

pub struct Locks {
    target: PgConnection,
    ledger: Option<(PgConnection, i64)>,
    /// Runs of the same job that had the lock before, and were found dead.
    pub crashed: Vec<ledger::Row>,
}

/// Takes the locks of a run, or says who holds them.
pub async fn take(run: &RunContext<'_>, ledger: Option<(&Ledger, i64)>) -> Result<Locks> {
    let (job, database) = (run.job.name.as_str(), run.database);
    let ledger = match ledger {
        Some((ledger, id)) => {
            let mut connection = ledger.connect().await?;
            take_one(&mut connection, job, database, &ledger::lock_name(job, database)).await?;
            Some((connection, id))
        }
        None => None,
    };
    let in_target = async {
        let mut target = run.settings.connect().await.with_context(|| format!("database `{database}`"))?;
        take_one(&mut target, job, database, &format!("pgtend job {database}/{job}")).await?;
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
    let mut locks = Locks { target, ledger, crashed: Vec::new() };
    if let Some((connection, id)) = &mut locks.ledger {
        locks.crashed = ledger::mark_locked(connection, *id).await?;
    }
    Ok(locks)
}

async fn take_one(connection: &mut PgConnection, job: &str, database: &str, name: &str) -> Result<()> {
    if pg::try_lock(connection, name).await? {
        return Ok(());
    }
    let holder = pg::lock_holder(connection, name).await?.unwrap_or_else(|| "somebody who has just ended".to_owned());
    let message = format!("job `{job}` is already running on `{database}`: its lock is held by {holder}");
    Err(Fault::new(Kind::Busy, message).into())
}

/// The connection of a heartbeat that was given up may be gone: then so is its lock.
async fn release_one(connection: &mut PgConnection) {
    let unlock = sqlx::query("SELECT pg_advisory_unlock_all()").execute(connection);
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, unlock).await;
}

impl Locks {
    /// A lock that goes with its connection goes when the server notices, which may be after the next run asked for it.
    pub async fn release(mut self) {
        release_one(&mut self.target).await;
        if let Some((connection, _)) = &mut self.ledger {
            release_one(connection).await;
        }
    }

    /// Shows a sign of life now and then; comes back when a connection, and its lock with it, is gone.
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
            ledger::heartbeat(connection, *id, progress).await.context("the ledger's database")?;
        }
        sqlx::query("SELECT 1").execute(&mut self.target).await?;
        Ok(())
    }
}
