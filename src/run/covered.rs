//! Which databases have a job that backs up all of them, and which need none.

use crate::run::job::{Chosen, Job};
use crate::task::backup::{Backup, Scratch};

/// Returns whether a job backs up all of a database: one with filters leaves something out.
pub fn is_backed_up_by(job: &Job, database: &str) -> bool {
    job.runs_on(database) && backs_up_all(job)
}

/// Returns whether a job backs up all of its databases. Its sets of their schemas would leave out extensions, large objects, and what is in no schema.
pub fn backs_up_all(job: &Job) -> bool {
    let is_of_schemas = job.chosen.as_ref().is_some_and(Chosen::has_schemas);
    !is_of_schemas && job.task.as_a::<Backup>().is_some_and(|backup| backup.filters.are_none())
}

/// Returns whether a database is a copy that [refresh] makes anew: nobody backs that up.
pub fn is_made_from_backups(jobs: &[Job], name: &str) -> bool {
    jobs.iter().any(|job| job.runs_on(name) && job.task.renames_database())
}

/// Returns whether jobs only restore beside a database (`scratch`), and none runs on it. Where it has nothing of its own, nobody backs it up.
pub fn is_only_scratch(jobs: &[Job], name: &str) -> bool {
    let is_scratch = |job: &Job| {
        let scratch = job.task.as_a::<Backup>().map(|backup| &backup.scratch);
        matches!(scratch, Some(Scratch::Database(database)) if database == name)
    };
    jobs.iter().any(is_scratch) && !jobs.iter().any(|job| job.runs_on(name))
}
