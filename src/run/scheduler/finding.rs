//! Looks which databases servers have, and which schemas these, so that jobs with patterns run on those that appeared, and no longer on those that went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Scheduler, lock, make_series};
use crate::base::units;
use crate::pg::failure;
use crate::run::fleet::asked::Asked;
use crate::run::fleet::{self, Memory, Silent};
use crate::run::job::Job;

/// A database that appears this long before a tick is part of it.
pub const FIND_EVERY: Duration = Duration::from_secs(10);

/// Databases are asked for their schemas no faster than this: each time with a session of its own.
const FOR_EACH_DATABASE: Duration = Duration::from_millis(50);

/// A server that does not say which databases it has, or a database that does not say which schemas.
#[derive(Clone, Debug)]
pub struct NotAnswering {
    pub asked: Asked,
    pub why: String,
    /// Since when this process knows it so.
    pub since: DateTime<Utc>,
    /// How many databases or schemas it had, which count meanwhile. None: it never said that.
    pub had: Option<usize>,
}

impl NotAnswering {
    pub fn in_words(&self) -> String {
        let Self { asked, why, since, had } = self;
        let since = since.format("%Y-%m-%d %H:%M UTC");
        match had {
            Some(had) => {
                let had = units::plural(*had, asked.has());
                format!("{asked} does not answer since {since}; the {had} that it had count: {why}")
            }
            None => format!("{asked} does not answer since {since}, and nothing is known of its {}s: {why}", asked.has()),
        }
    }

    /// Returns whether a job would run on something that this has, if it had it.
    pub fn may_have_some_of(&self, job: &Job) -> bool {
        job.chosen.as_ref().is_some_and(|chosen| match &self.asked {
            Asked::Server(server) => chosen.may_be_of(server),
            Asked::Database(_) => chosen.has_patterns_of_schemas(),
        })
    }
}

impl Scheduler {
    pub(super) async fn finding(self: Arc<Self>) {
        loop {
            let databases = u32::try_from(lock(&self.found).databases_asked()).unwrap_or(u32::MAX);
            tokio::time::sleep(FIND_EVERY.max(FOR_EACH_DATABASE.saturating_mul(databases))).await;
            self.find_databases().await;
        }
    }

    /// Returns the servers and databases that do not say what they have, as of the last look.
    pub fn silent(&self) -> Vec<NotAnswering> {
        lock(&self.silent).values().cloned().collect()
    }

    /// Asks all servers once, and databases for their schemas, and gives the jobs what they have.
    pub(super) async fn find_databases(&self) {
        let context = self.context();
        let names: Vec<&str> = context.config.servers.keys().map(String::as_str).collect();
        if names.is_empty() && !fleet::is_needed(&context.jobs) {
            context.metrics.left_out(0);
            context.metrics.servers(&names, |_| true);
            return lock(&self.silent).clear();
        }
        let known = lock(&self.found).clone();
        let (found, not_answered) = fleet::find(&context.config, &context.jobs, Memory::Write(&self.ledger), &known).await;
        let before = lock(&self.silent).clone();
        let mut silent = BTreeMap::new();
        for Silent { asked, error, listed_at } in not_answered {
            let why = failure::in_a_line(&error);
            let old = before.get(&asked);
            if old.is_none() {
                let at = listed_at.map(|at| format!(" at {}", at.format("%Y-%m-%d %H:%M:%S UTC"))).unwrap_or_default();
                tracing::error!("{asked} does not answer, and keeps the {}s that it had{at}: {why}", asked.has());
            }
            let since = old.map_or_else(Utc::now, |old| old.since);
            let had = found.had(&asked, &context.config);
            silent.insert(asked.clone(), NotAnswering { asked, why, since, had });
        }
        for asked in before.keys().filter(|asked| !silent.contains_key(asked)) {
            tracing::info!("{asked} answers");
        }
        context.metrics.servers(&names, |name| !silent.contains_key(&Asked::Server(name.to_owned())));
        *lock(&self.silent) = silent;
        if found != known {
            self.take(found);
        }
        // By the ledger, which has what other processes were told, too. One that does not answer says nothing new.
        if let Ok(left_out) = fleet::left_out(&context.config, &context.jobs, &self.ledger).await {
            context.metrics.left_out(left_out.len());
        }
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
