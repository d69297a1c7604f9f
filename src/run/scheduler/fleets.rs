//! How jobs with patterns stand, as of the last look for late jobs: for the page, which cannot ask the ledger for tens of thousands of runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Entry, Scheduler, lock};
use crate::run::health::Health;
use crate::run::job::Job;

/// The most databases of a job that are named as failed or late.
const NAMED: usize = 50;

/// How a job with patterns stands on its databases.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub job: Arc<Job>,
    pub databases: usize,
    pub well: usize,
    pub failed: usize,
    /// Late, and not failed.
    pub late: usize,
    /// Without a success yet, and neither failed nor late.
    pub waiting: usize,
    /// The oldest of the last successes, and of which database.
    pub oldest_success: Option<(DateTime<Utc>, String)>,
    pub next_due_at: Option<DateTime<Utc>>,
    /// Those that failed or are late, at most 50.
    pub trouble: Vec<String>,
}

impl Scheduler {
    /// Returns all jobs with patterns in the order of the configuration, also those that have no database.
    pub fn fleets(&self) -> Vec<Fleet> {
        let jobs = self.context().jobs;
        let mut fleets: BTreeMap<&str, Fleet> =
            jobs.iter().filter(|job| job.chosen.is_some()).map(|job| (job.name.as_str(), Fleet::none_of(job))).collect();
        for entry in lock(&self.entries).iter() {
            if let Some(fleet) = fleets.get_mut(entry.job.name.as_str()) {
                fleet.add(entry);
            }
        }
        jobs.iter().filter_map(|job| fleets.remove(job.name.as_str())).collect()
    }
}

impl Fleet {
    fn none_of(job: &Job) -> Self {
        Self {
            // Its databases are counted here, and named nowhere.
            job: Arc::new(Job { databases: Vec::new(), ..job.clone() }),
            databases: 0,
            well: 0,
            failed: 0,
            late: 0,
            waiting: 0,
            oldest_success: None,
            next_due_at: None,
            trouble: Vec::new(),
        }
    }

    fn add(&mut self, entry: &Entry) {
        self.databases += 1;
        *match Health::of(entry.has_failed, entry.is_late, entry.last_success_at.is_some()) {
            Health::Failed => &mut self.failed,
            Health::Late => &mut self.late,
            Health::Well => &mut self.well,
            Health::Waiting => &mut self.waiting,
        } += 1;
        if (entry.has_failed || entry.is_late) && self.trouble.len() < NAMED {
            self.trouble.push(entry.database.clone());
        }
        let is_oldest = |at: &DateTime<Utc>| self.oldest_success.as_ref().is_none_or(|(oldest, _)| at < oldest);
        if let Some(at) = entry.last_success_at.filter(is_oldest) {
            self.oldest_success = Some((at, entry.database.clone()));
        }
        self.next_due_at = [self.next_due_at, entry.next_due_at].into_iter().flatten().min();
    }
}
