//! Lets only one process delete in a folder of sets. Writers need no lock, since names are unique; a sweep and a prune do.

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use crate::ledger::{self, Ledger};
use crate::pg;
use crate::store::Store;
use crate::store::key::folder;
use crate::store::lease::{self, Lease, Seen, Taken};

/// The lock object of a folder that no ledger guards.
const LOCK: &str = "lock.json";

fn lock_key(database: &str, job: &str) -> String {
    format!("{}{LOCK}", folder(database, job))
}

pub enum Guard {
    /// The job's lock in the ledger, which the runner holds: a run that loses it is cancelled.
    Ledger,
    /// The same lock, taken by a command: it ends with this connection.
    LedgerManual(Box<PgConnection>),
    Lease(Lease),
}

/// A guard, or the reason why there is none this time.
pub enum Asked {
    Granted(Guard),
    Refused(String),
}

/// Takes the guard. `seen` is the lease when this process first looked: one that has not changed since is abandoned.
pub async fn ask(store: &Store, database: &str, job: &str, has_ledger: bool, seen: Option<&Seen>) -> Asked {
    if has_ledger {
        return Asked::Granted(Guard::Ledger);
    }
    match lease::take(store, &lock_key(database, job), seen).await {
        Ok(Taken::Held(lease)) => Asked::Granted(Guard::Lease(lease)),
        Ok(Taken::HeldByOther(who)) => Asked::Refused(format!("another process deletes there: {who}")),
        Ok(Taken::Impossible(why)) => Asked::Refused(why),
        Err(error) => Asked::Refused(format!("its lock object cannot be written: {error:#}")),
    }
}

/// The same for a command, which holds no lock of a run.
pub async fn ask_manual(store: &Store, ledger: Option<&Ledger>, database: &str, job: &str) -> Asked {
    let Some(ledger) = ledger else { return ask(store, database, job, false, None).await };
    let locked = async {
        let mut connection = ledger.connect().await?;
        let is_locked = pg::try_lock(&mut connection, &ledger::lock_name(job, database)).await?;
        anyhow::Ok(is_locked.then_some(connection))
    };
    match locked.await {
        Ok(Some(connection)) => Asked::Granted(Guard::LedgerManual(Box::new(connection))),
        Ok(None) => Asked::Refused("a run of the job is under way, and holds its lock in the ledger".to_owned()),
        Err(error) => Asked::Refused(format!("the job's lock in the ledger cannot be taken: {error:#}")),
    }
}

/// The current lease, for a later [`ask`].
pub async fn look(store: &Store, database: &str, job: &str, has_ledger: bool) -> Option<Seen> {
    if has_ledger {
        return None;
    }
    lease::look(store, &lock_key(database, job)).await.unwrap_or_else(|error| {
        tracing::debug!("{error:#}");
        None
    })
}

impl Guard {
    /// Fails when another process may delete there, too. Call it before each deletion.
    pub async fn check(&mut self) -> Result<()> {
        match self {
            Self::Ledger => Ok(()),
            Self::LedgerManual(connection) => {
                sqlx::query("SELECT 1").execute(&mut **connection).await.context("the lock in the ledger was lost")?;
                Ok(())
            }
            Self::Lease(lease) => lease.prove().await,
        }
    }

    pub async fn release(self) {
        if let Self::Lease(lease) = self
            && let Err(error) = lease.release().await
        {
            tracing::warn!("the lock object stays until it is old enough to be taken over: {error:#}");
        }
    }
}
