//! Lets only one process delete in a folder of sets. Writers need no lock, since names are unique; a sweep and a prune do.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::ledger::Ledger;
use crate::pg;
use crate::store::Store;
use crate::store::key::folder;
use crate::store::lease::{self, Lease, Seen, Taken};

/// The lock object of a folder that no ledger guards.
pub(super) const LOCK: &str = "lock.json";

pub(super) fn lock_key(database: &str, job: &str) -> String {
    format!("{}{LOCK}", folder(database, job))
}

pub enum Guard {
    /// The job's lock in the ledger, which the runner holds: a run that loses it is cancelled.
    Ledger,
    Lease(Lease),
}

/// The answer to a request for a guard.
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

/// The lock in the ledger's database that a restore shares for as long as it reads sets of a series.
pub fn readers_lock(database: &str, job: &str) -> String {
    format!("pgtend sets {database}/{job}")
}

/// Looks for restores that read sets of a series. Without a ledger no process knows of another's restore.
pub struct Readers {
    connection: Option<PgConnection>,
    lock: String,
    series: String,
}

impl Readers {
    pub async fn of(ledger: Option<&Ledger>, database: &str, job: &str) -> Result<Self> {
        let connection = match ledger {
            Some(ledger) => Some(ledger.connect().await?),
            None => None,
        };
        Ok(Self { connection, lock: readers_lock(database, job), series: format!("{database}/{job}") })
    }

    /// Keeps restores waiting until [`Readers::let_in`]; an error where one is reading.
    pub async fn keep_out(&mut self) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if pg::try_lock(connection, &self.lock).await? {
            return Ok(());
        }
        let holder = pg::lock_holder(connection, &self.lock).await?;
        let holder = holder.map_or_else(String::new, |holder| format!(": {holder}"));
        Err(Fault::new(Kind::Deferred, format!("a restore reads sets of {}{holder}", self.series)).into())
    }

    /// Lets those in that wait.
    pub async fn let_in(&mut self) -> Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        pg::unlock(connection, &self.lock).await
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
