//! Which databases have a job that backs up all of them, and which need none.

use crate::run::job::Job;
use crate::task::backup::{Backup, Scratch};

/// Returns whether a job backs up all of a database: one with filters leaves something out.
pub fn is_backed_up_by(job: &Job, database: &str) -> bool {
    job.runs_on(database) && backs_up_all(job)
}

/// Returns whether a job backs up all of its databases.
pub fn backs_up_all(job: &Job) -> bool {
    job.task.as_a::<Backup>().is_some_and(|backup| backup.filters.are_none())
}

/// Returns whether a database is a copy that [refresh] makes anew, or only the place of scratch databases: nobody backs that up.
pub fn is_made_from_backups(jobs: &[Job], name: &str) -> bool {
    let mut of_it = jobs.iter().filter(|job| job.runs_on(name));
    let is_scratch = |job: &Job| {
        let scratch = job.task.as_a::<Backup>().map(|backup| &backup.scratch);
        matches!(scratch, Some(Scratch::Database(database)) if database == name)
    };
    let has_jobs = of_it.clone().next().is_some();
    of_it.any(|job| job.task.renames_database()) || (!has_jobs && jobs.iter().any(is_scratch))
}
