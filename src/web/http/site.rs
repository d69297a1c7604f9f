//! The state that handlers share, with what was read last.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::run::scheduler::Scheduler;
use crate::web::safety::Safe;
use crate::web::status::Status;
use crate::web::timeline::Timeline;

/// A page that many people watch asks the ledger once in this time.
const READ_FOR: Duration = Duration::from_secs(2);

/// The last answer, and when it was read.
pub struct Cache<T>(tokio::sync::Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(tokio::sync::Mutex::default())
    }
}

impl<T> Cache<T> {
    /// Clients that ask while a query is under way share its answer.
    pub(super) async fn get(&self, read: impl Future<Output = T>) -> Arc<T> {
        let mut cached = self.0.lock().await;
        if let Some((at, answer)) = &*cached
            && at.elapsed() < READ_FOR
        {
            return Arc::clone(answer);
        }
        let answer = Arc::new(read.await);
        *cached = Some((Instant::now(), Arc::clone(&answer)));
        answer
    }
}

/// What the pages show of all jobs: their last runs.
pub struct Seen {
    pub status: Status,
    pub timeline: Timeline,
}

/// The state that handlers share.
pub struct Site {
    pub scheduler: Arc<Scheduler>,
    pub started_at: DateTime<Utc>,
    /// The mistakes for which the last reload was refused.
    pub configuration_error: Mutex<Option<String>>,
    pub stop: CancellationToken,
    /// Who has it may act on the pages; without it nobody may.
    pub(super) actions_token: Option<SecretString>,
    pub(super) status: Cache<Status>,
    pub(super) seen: Cache<Seen>,
    pub(super) safe: Arc<Safe>,
}

impl Site {
    pub fn new(scheduler: Arc<Scheduler>, stop: CancellationToken, actions_token: Option<SecretString>) -> Arc<Self> {
        Arc::new(Self {
            scheduler,
            started_at: Utc::now(),
            configuration_error: Mutex::default(),
            stop,
            actions_token,
            status: Cache::default(),
            seen: Cache::default(),
            safe: Arc::default(),
        })
    }
}
