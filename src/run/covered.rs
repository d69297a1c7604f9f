//! Which databases have a job that backs up all of them, and which need none.

use std::collections::HashSet;

use crate::run::job::Job;
use crate::task::backup::{Backup, Scratch};

/// Returns whether a job backs up all of a database: one with filters leaves something out.
pub fn is_backed_up_by(job: &Job, database: &str) -> bool {
    runs_on(job, database) && job.task.as_a::<Backup>().is_some_and(|backup| backup.filters.are_none())
}

/// The databases that nobody backs up: copies that [refresh] makes anew, and those that are only the place of scratch databases.
pub fn made_from_backups(jobs: &[Job]) -> HashSet<&str> {
    let with_jobs: HashSet<&str> = jobs.iter().flat_map(|job| &job.databases).map(String::as_str).collect();
    let scratch = jobs.iter().filter_map(|job| match &job.task.as_a::<Backup>()?.scratch {
        Scratch::Database(database) if !with_jobs.contains(database.as_str()) => Some(database.as_str()),
        _ => None,
    });
    let copies = jobs.iter().filter(|job| job.task.renames_database()).flat_map(|job| &job.databases).map(String::as_str);
    copies.chain(scratch).collect()
}

fn runs_on(job: &Job, database: &str) -> bool {
    job.databases.iter().any(|name| name == database)
}
