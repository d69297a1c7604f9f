//! Looks which databases servers have, and which schemas these, so that jobs with patterns run on those that appeared, and no longer on those that went.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Scheduler, lock, make_series};
use crate::pg::failure;
use crate::run::fleet::asked::Asked;
use crate::run::fleet::{self, Memory, Silent};

/// A database that appears this long before a tick is part of it.
pub const FIND_EVERY: Duration = Duration::from_secs(10);

/// Databases are asked for their schemas no faster than this: each time with a session of its own.
const FOR_EACH_DATABASE: Duration = Duration::from_millis(50);

impl Scheduler {
    pub(super) async fn finding(self: Arc<Self>, mut silent: BTreeSet<Asked>) {
        loop {
            let databases = u32::try_from(lock(&self.found).databases_asked()).unwrap_or(u32::MAX);
            tokio::time::sleep(FIND_EVERY.max(FOR_EACH_DATABASE.saturating_mul(databases))).await;
            silent = self.find_databases(&silent).await;
        }
    }

    /// Asks all servers once, and databases for their schemas, and gives the jobs what they have. Returns those that do not answer, of which those in `silent` were told before.
    pub(super) async fn find_databases(&self, silent: &BTreeSet<Asked>) -> BTreeSet<Asked> {
        let context = self.context();
        if context.config.servers.is_empty() && !fleet::is_needed(&context.jobs) {
            context.metrics.left_out(0);
            return BTreeSet::new();
        }
        let known = lock(&self.found).clone();
        let (found, not_answered) = fleet::find(&context.config, &context.jobs, Memory::Write(&self.ledger), &known).await;
        for Silent { asked, error, listed_at } in not_answered.iter().filter(|now| !silent.contains(&now.asked)) {
            let at = listed_at.map(|at| format!(" at {}", at.format("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default();
            tracing::error!(
                "{asked} does not answer, and keeps the {}s that it had{at}: {}",
                asked.has(),
                failure::in_a_line(error)
            );
        }
        let now: BTreeSet<Asked> = not_answered.into_iter().map(|silent| silent.asked).collect();
        for asked in silent.difference(&now) {
            tracing::info!("{asked} answers");
        }
        if found != known {
            self.take(found);
        }
        // By the ledger, which has what other processes were told, too. One that does not answer says nothing new.
        if let Ok(left_out) = fleet::left_out(&context.config, &context.jobs, &self.ledger).await {
            context.metrics.left_out(left_out.len());
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
