//! Looks which databases servers have, so that jobs with patterns run on those that appeared, and no longer on those that went.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Scheduler, lock, make_series};
use crate::pg::failure;
use crate::run::fleet::{self, Memory, Silent};

/// A database that appears this long before a tick is part of it.
pub const FIND_EVERY: Duration = Duration::from_secs(10);

impl Scheduler {
    pub(super) async fn finding(self: Arc<Self>, mut silent: BTreeSet<String>) {
        loop {
            tokio::time::sleep(FIND_EVERY).await;
            silent = self.find_databases(&silent).await;
        }
    }

    /// Asks all servers once, and gives the jobs what they have. Returns those that do not answer, of which those in `silent` were told before.
    pub(super) async fn find_databases(&self, silent: &BTreeSet<String>) -> BTreeSet<String> {
        let context = self.context();
        if context.config.servers.is_empty() {
            return BTreeSet::new();
        }
        let known = lock(&self.found).clone();
        let (found, not_answered) = fleet::find(&context.config, Memory::Write(&self.ledger), &known).await;
        for Silent { server, error, listed_at } in not_answered.iter().filter(|now| !silent.contains(&now.server)) {
            let at = listed_at.map(|at| format!(" at {}", at.format("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default();
            tracing::error!(
                "server `{server}` does not answer, and keeps the databases that it had{at}: {}",
                failure::in_a_line(error)
            );
        }
        let now: BTreeSet<String> = not_answered.into_iter().map(|silent| silent.server).collect();
        for server in silent.difference(&now) {
            tracing::info!("server `{server}` answers");
        }
        if found != known {
            self.take(found);
        }
        now
    }

    /// The configuration may have been replaced meanwhile: that of now gets what was found.
    fn take(&self, found: fleet::Found) {
        let mut context = self.context.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *context = context.with_found(&found);
        *lock(&self.found) = found;
        make_series(&context);
        self.next_generation();
    }
}
