//! Whether each database has a backup that counts, as [`crate::run::standing`] judges. Stores and databases are asked in the background, and only while
//! somebody looks at a page: a page shows what was read last, and waits for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;

use crate::ledger::{Key, Ledger};
use crate::pg::failure;
use crate::run::covered::{backed_up_by_schemas, backs_up_all, is_backed_up_by};
use crate::run::fleet;
use crate::run::job::{Broken, Job};
use crate::run::runner::Context;
pub use crate::run::standing::Safety;
use crate::run::standing::found::{self, OfServers};
use crate::run::standing::late::{self, Known};
use crate::run::standing::stores::{self, SKIPPED};
use crate::run::standing::{OfDatabase, Unasked, read};

/// What was read is asked again after this time, or when the database has had a backup since. Each question lists the sets of a database in all stores.
const READ_FOR: Duration = Duration::from_secs(5 * 60);

/// What is older is no answer to whether something is safe now: nobody has looked at the page meanwhile.
const SHOWN_FOR: Duration = Duration::from_secs(2 * 5 * 60);

/// What was read without the ledger is asked again after this time, once the ledger answers.
const READ_WITHOUT_LEDGER_FOR: Duration = Duration::from_secs(20);

/// So long stores are asked about all databases of servers together, which nobody waits for: while the answer is still one.
const PATIENCE: Duration = Duration::from_secs(9 * 60);

/// So many databases are asked at once, fewer than by a person at a terminal: runs need the stores, too.
const AT_ONCE: usize = 4;

/// What the stores and the database said.
#[derive(Debug)]
pub struct Read {
    pub at: DateTime<Utc>,
    /// The same by a clock that nobody sets.
    pub asked: Instant,
    pub found: OfDatabase,
    /// Its backup jobs whose newest set is too old.
    pub late: Vec<String>,
}

/// A database that should have a backup.
#[derive(Clone, Debug)]
pub struct DatabaseStatus {
    pub name: String,
    /// None: nobody has been asked yet.
    pub read: Option<Arc<Read>>,
    /// Its backup jobs without a success for their last tick.
    pub late: Vec<String>,
    /// The ledger was not asked, when the stores were read or for the page.
    pub unasked: Option<Unasked>,
}

impl DatabaseStatus {
    pub fn safety(&self) -> Safety {
        let Some(read) = &self.read else { return Safety::Unread };
        match read.found.safety(!self.late.is_empty()) {
            Safety::Safe if self.unasked.is_some() => Safety::Unknown,
            safety => safety,
        }
    }
}

/// What was read of all databases of servers, and when.
type OfAll = (Instant, Arc<OfServers>);

/// What was read of each database.
#[derive(Default)]
pub struct Safe {
    read: Mutex<BTreeMap<String, Arc<Read>>>,
    of_servers: Mutex<Option<OfAll>>,
    /// Held while somebody reads those.
    reading_servers: Arc<tokio::sync::Mutex<()>>,
    /// Held while somebody reads.
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl Safe {
    /// Returns what is known of each database that should have a backup, and begins to read anew what is old. `backed_up` says when each database had
    /// its last backup, `has_succeeded` whether a job ever succeeded on a database. Nothing is returned where there is no store: then pgtend has no part in backups. While the ledger is `away`,
    /// no database is safe.
    pub fn look(
        self: &Arc<Self>,
        context: &Context,
        backed_up: &BTreeMap<String, DateTime<Utc>>,
        has_succeeded: impl Fn(&str, &str) -> bool,
        broken: Vec<Broken>,
        away: Option<&Unasked>,
    ) -> Vec<DatabaseStatus> {
        let names = read::to_back_up(&context.config, &context.jobs, has_succeeded);
        let names: BTreeSet<String> = names.into_iter().cloned().collect();
        let (mut statuses, mut old) = (Vec::new(), Vec::new());
        if context.config.stores.is_empty() {
            return statuses;
        }
        {
            let mut known = self.known();
            known.retain(|name, _| names.contains(name));
            for name in names {
                let read = known.get(&name).filter(|read| read.asked.elapsed() <= SHOWN_FOR).cloned();
                let is_old = |read: &Arc<Read>| {
                    let is_half = read.found.unasked.is_some() && away.is_none();
                    let good_for = if is_half { READ_WITHOUT_LEDGER_FOR } else { READ_FOR };
                    let is_mended = read.found.idle == Some(SKIPPED)
                        && broken.iter().all(|broken| Some(&broken.job) != read.found.job.as_ref());
                    read.asked.elapsed() > good_for || is_mended || backed_up.get(&name).is_some_and(|at| *at > read.at)
                };
                if read.as_ref().is_none_or(is_old) {
                    old.push(name.clone());
                }
                if !read.as_ref().is_some_and(|read| read.found.needs_none) {
                    let late = read.as_ref().map(|read| read.late.clone()).unwrap_or_default();
                    let unasked = away.or_else(|| read.as_ref()?.found.unasked.as_ref()).cloned();
                    statuses.push(DatabaseStatus { name, read, late, unasked });
                }
            }
        }
        if !old.is_empty()
            && let Ok(reading) = Arc::clone(&self.reading).try_lock_owned()
        {
            let (this, context) = (Arc::clone(self), context.clone());
            tokio::spawn(async move {
                this.read(&context, &broken, old).await;
                drop(reading);
            });
        }
        statuses
    }

    async fn read(&self, context: &Context, broken: &[Broken], names: Vec<String>) {
        let opened = &stores::opened(&context.config).await;
        let keys: Vec<Key> = names
            .iter()
            .flat_map(|name| {
                context.jobs.iter().filter(|job| is_backed_up_by(job, name)).map(|job| (job.name.clone(), name.clone()))
            })
            .collect();
        let asked_at = Utc::now();
        // Without a ledger, the stores alone say what there is.
        let ((proofs, known), unasked) = match &context.ledger {
            Some(ledger) => match of_ledger(ledger, &keys).await {
                Ok(known) => (known, None),
                Err(error) => {
                    let unasked = Unasked { since: Some(asked_at), why: failure::in_a_line(&error) };
                    (Default::default(), Some(unasked))
                }
            },
            None => (Default::default(), None),
        };
        let (proofs, known, unasked) = (&proofs, &known, &unasked);
        let by_schemas = &backed_up_by_schemas(&context.jobs, &context.config);
        let asking = names.into_iter().map(|name| async move {
            // A backup that ends meanwhile makes it old.
            let (at, asked) = (Utc::now(), Instant::now());
            let (mut found, _) = stores::of_database(&context.config, &context.jobs, opened, &name).await;
            stores::lose(&mut found, &context.jobs, proofs);
            stores::skip(&mut found, broken);
            found.by_schemas = by_schemas.contains(name.as_str());
            found.unasked.clone_from(unasked);
            let late = late::all_by_sets(&context.jobs, std::slice::from_ref(&found), known, at);
            let late = late.into_iter().map(|late| late.job).collect();
            (name, Read { at, asked, found, late })
        });
        let mut asking = futures_util::stream::iter(asking).buffer_unordered(AT_ONCE);
        while let Some((name, read)) = asking.next().await {
            self.known().insert(name, Arc::new(read));
        }
    }

    /// Returns how the databases of servers stand, whether a job backs them up or not, and the schemas that jobs back up, as far as that was read; what is old is
    /// read anew. Nothing where there is no store, as of the databases with entries.
    pub fn of_servers(self: &Arc<Self>, context: &Context) -> Option<Arc<OfServers>> {
        if !has_servers(context) {
            return None;
        }
        let known = self.of_servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.as_ref().is_none_or(|(asked, _)| asked.elapsed() > READ_FOR)
            && let Ok(reading) = Arc::clone(&self.reading_servers).try_lock_owned()
        {
            let (this, context) = (Arc::clone(self), context.clone());
            tokio::spawn(async move {
                this.read_servers(&context).await;
                drop(reading);
            });
        }
        known.filter(|(asked, _)| asked.elapsed() <= SHOWN_FOR).map(|(_, read)| read)
    }

    /// Returns how a database of a server, or a schema, stands that a job backs up, as far as that was read. `late`: its backup jobs that are late.
    pub fn of_found(
        self: &Arc<Self>,
        context: &Context,
        name: &str,
        late: Vec<String>,
        unasked: Option<&Unasked>,
    ) -> Option<DatabaseStatus> {
        let is_covered = context.jobs.iter().any(|job| is_backed_up_by(job, name));
        if !is_covered || !has_servers(context) || context.config.databases.contains_key(name) {
            return None;
        }
        let known = self.of_servers(context);
        let read = known.and_then(|of_all| {
            let found = of_all.databases.get(name)?.clone();
            let asked = Instant::now();
            Some(Arc::new(Read { at: of_all.at, asked, found, late: Vec::new() }))
        });
        Some(DatabaseStatus { name: name.to_owned(), read, late, unasked: unasked.cloned() })
    }

    /// Returns whether there is something to say of databases of servers that was not read yet.
    pub fn is_asking(self: &Arc<Self>, context: &Context) -> bool {
        has_servers(context) && self.of_servers(context).is_none()
    }

    async fn read_servers(&self, context: &Context) {
        let (asked, config) = (Instant::now(), &context.config);
        let jobs: Vec<Job> = context.jobs.iter().map(|job| found::as_written(config, job)).collect();
        let (stores, answers) = tokio::join!(stores::opened(config), found::asked(config));
        let before = match &context.ledger {
            Some(ledger) => (fleet::remembered(ledger).await, fleet::left_out(config, &jobs, ledger).await.unwrap_or_default()),
            None => Default::default(),
        };
        let ledger = context.ledger.as_deref();
        let read = found::of_servers((config, &jobs), &stores, answers, before, (ledger, Utc::now()), PATIENCE).await;
        *self.of_servers.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, Arc::new(read)));
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Read>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether stores say something of databases of servers, or of schemas that jobs back up.
fn has_servers(context: &Context) -> bool {
    let is_of_schemas = |job: &Job| job.chosen.is_some() && backs_up_all(job) && job.has_schemas();
    let is_asked = !context.config.servers.is_empty() || context.jobs.iter().any(is_of_schemas);
    !context.config.stores.is_empty() && is_asked
}

/// What the ledger says of backup jobs on databases.
async fn of_ledger(ledger: &Ledger, keys: &[Key]) -> anyhow::Result<(stores::Proofs, Known)> {
    let known = Known { successes: ledger.last_successes(keys).await?, since: ledger.known_since().await?, ..Known::default() };
    Ok((ledger.proved_sets(keys, Utc::now()).await?, known))
}
