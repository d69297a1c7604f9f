//! Whether each database has a backup that counts, as [`crate::run::standing`] judges. Stores and databases are asked in the background, and only while
//! somebody looks at a page: a page shows what was read last, and waits for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use crate::ledger::Key;
use crate::run::covered::is_backed_up_by;
use crate::run::runner::Context;
use crate::run::standing::{OfDatabase, read};

/// What was read is asked again after this time, or when the database has had a backup since. Each question lists the sets of a database in all stores.
const READ_FOR: Duration = Duration::from_secs(5 * 60);

/// What is older is no answer to whether something is safe now: nobody has looked at the page meanwhile.
const SHOWN_FOR: Duration = Duration::from_secs(2 * 5 * 60);

/// So many databases are asked at once, fewer than by a person at a terminal: runs need the stores, too.
const AT_ONCE: usize = 4;

/// What the stores and the database said.
#[derive(Debug)]
pub struct Read {
    pub at: DateTime<Utc>,
    /// The same by a clock that nobody sets.
    pub asked: Instant,
    pub found: OfDatabase,
}

/// A database that should have a backup.
#[derive(Clone, Debug)]
pub struct DatabaseStatus {
    pub name: String,
    /// None: nobody has been asked yet.
    pub read: Option<Arc<Read>>,
    /// Its backup jobs without a success for their last tick.
    pub late: Vec<String>,
}

/// How safe a database is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// It has no backup that counts.
    Unsafe,
    /// It has one, and something is wrong.
    AtRisk,
    /// Nothing answers.
    Unknown,
    /// It is being asked for the first time.
    Unread,
    Safe,
}

impl DatabaseStatus {
    pub fn safety(&self) -> Safety {
        match self.read.as_ref().map(|read| &read.found) {
            None => Safety::Unread,
            Some(OfDatabase { backup: Err(_), .. }) => Safety::Unknown,
            Some(OfDatabase { backup: Ok(None), .. }) => Safety::Unsafe,
            Some(found) if found.is_well() && self.late.is_empty() => Safety::Safe,
            Some(_) => Safety::AtRisk,
        }
    }
}

/// What was read of each database.
#[derive(Default)]
pub struct Safe {
    read: Mutex<BTreeMap<String, Arc<Read>>>,
    /// Held while somebody reads.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Safe {
    /// Returns what is known of each database that should have a backup, and begins to read anew what is old. `backed_up` says when each database had
    /// its last backup. Nothing is returned where there is no store: then pgtend has no part in backups.
    pub fn look(self: &Arc<Self>, context: &Context, backed_up: &BTreeMap<String, DateTime<Utc>>) -> Vec<DatabaseStatus> {
        let names: BTreeSet<String> = read::to_back_up(&context.config, &context.jobs).into_iter().cloned().collect();
        let (mut statuses, mut old) = (Vec::new(), Vec::new());
        if context.config.stores.is_empty() {
            return statuses;
        }
        {
            let mut known = self.known();
            known.retain(|name, _| names.contains(name));
            for name in names {
                let read = known.get(&name).filter(|read| read.asked.elapsed() <= SHOWN_FOR).cloned();
                let is_old =
                    |read: &Arc<Read>| read.asked.elapsed() > READ_FOR || backed_up.get(&name).is_some_and(|at| *at > read.at);
                if read.as_ref().is_none_or(is_old) {
                    old.push(name.clone());
                }
                if !read.as_ref().is_some_and(|read| read.found.needs_none) {
                    statuses.push(DatabaseStatus { name, read, late: Vec::new() });
                }
            }
        }
        if !old.is_empty()
            && let Ok(reading) = Arc::clone(&self.reading).try_lock_owned()
        {
            let (this, context) = (Arc::clone(self), context.clone());
            tokio::spawn(async move {
                this.read(&context, old).await;
                drop(reading);
            });
        }
        statuses
    }

    async fn read(&self, context: &Context, names: Vec<String>) {
        let stores = &read::opened(&context.config).await;
        let keys: Vec<Key> = names
            .iter()
            .flat_map(|name| {
                context.jobs.iter().filter(|job| is_backed_up_by(job, name)).map(|job| (job.name.clone(), name.clone()))
            })
            .collect();
        let proofs = &match &context.ledger {
            // Without it, the stores alone say what there is.
            Some(ledger) => read::proofs(ledger, &keys, Utc::now()).await.unwrap_or_default(),
            None => read::Proofs::default(),
        };
        let asking = names.into_iter().map(|name| async move {
            // A backup that ends meanwhile makes it old.
            let (at, asked) = (Utc::now(), Instant::now());
            let (mut found, _) = read::of_database(&context.config, &context.jobs, stores, &name).await;
            read::lose(&mut found, &context.jobs, proofs);
            (name, Read { at, asked, found })
        });
        let mut asking = futures_util::stream::iter(asking).buffer_unordered(AT_ONCE);
        while let Some((name, read)) = asking.next().await {
            self.known().insert(name, Arc::new(read));
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Read>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
