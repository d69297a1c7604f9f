//! What is told of late jobs: each alone, but the databases of a job with patterns together, as hundreds become late at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::base::units;
use crate::run::job::Job;

/// More names in one message would hide what it says.
const NAMED: usize = 5;

/// A job that became late.
pub struct Late {
    pub job: Arc<Job>,
    /// The database's name, or in words how many they are.
    pub database: String,
    pub tick: DateTime<Utc>,
    pub last_success: Option<DateTime<Utc>>,
}

/// Returns one for each job with patterns, however many of its databases are late. Pure.
pub fn in_one(all: Vec<Late>) -> Vec<Late> {
    let (of_fleets, mut told): (Vec<Late>, Vec<Late>) = all.into_iter().partition(|late| late.job.chosen.is_some());
    let mut by_job: BTreeMap<String, Vec<Late>> = BTreeMap::new();
    for late in of_fleets {
        by_job.entry(late.job.name.clone()).or_default().push(late);
    }
    told.extend(by_job.into_values().filter_map(together));
    told
}

fn together(of_job: Vec<Late>) -> Option<Late> {
    let names: Vec<&str> = of_job.iter().take(NAMED).map(|late| late.database.as_str()).collect();
    let (count, more) = (of_job.len(), of_job.len() - names.len());
    let names = names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
    // The one that waits longest for a success; one without any waits longer than all.
    let oldest = of_job.iter().min_by_key(|late| late.last_success)?;
    let database = if count == 1 { names } else { format!("{}: {names}", units::plural(count, "database")) };
    Some(Late { job: Arc::clone(&oldest.job), database, tick: oldest.tick, last_success: oldest.last_success })
}
