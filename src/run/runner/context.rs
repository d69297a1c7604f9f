//! What runs share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::base::progress::Progress;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::ledger::metrics::Metrics;
use crate::run::job::Job;
use crate::run::notify::Notifier;
use crate::work::Other;

/// The state that runs share.
#[derive(Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub jobs: Arc<Vec<Job>>,
    /// The jobs as tasks see them.
    pub others: Arc<Vec<Other>>,
    pub ledger: Option<Arc<Ledger>>,
    pub progress: Progress,
    pub metrics: Metrics,
    pub notifier: Notifier,
    /// SIGTERM and SIGINT cancel it.
    pub cancel: CancellationToken,
}
