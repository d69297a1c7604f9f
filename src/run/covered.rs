//! Which databases have a job that backs up all of them, and which need none.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::run::job::Job;
use crate::task::backup::{Backup, Scratch};
use crate::task::refresh::Refresh;

/// Returns whether a job backs up all of a place: one with filters leaves something out. A job with `schemas` runs on these and on no database, and so backs up
/// none.
pub fn is_backed_up_by(job: &Job, place: &str) -> bool {
    job.runs_on(place) && backs_up_all(job)
}

/// The jobs that back up a part of a place: their filters leave something out.
pub fn backed_up_in_part_by(jobs: &[Job], place: &str) -> Vec<String> {
    let is_of_it = |job: &&Job| job.runs_on(place) && job.task.as_a::<Backup>().is_some() && !backs_up_all(job);
    jobs.iter().filter(is_of_it).map(|job| job.name.clone()).collect()
}

/// Returns whether a job backs up all of each of its places.
pub fn backs_up_all(job: &Job) -> bool {
    job.task.as_a::<Backup>().is_some_and(|backup| backup.filters.are_none())
}

/// The databases whose schemas jobs back up one by one: without extensions, large objects, and what is in no schema or in another one.
pub fn backed_up_by_schemas<'j>(jobs: &'j [Job], config: &Config) -> BTreeSet<&'j str> {
    let of_schemas = jobs.iter().filter(|job| job.has_schemas() && job.task.makes_dumps());
    of_schemas.flat_map(|job| &job.databases).map(|place| config.database_of(place)).collect()
}

/// Returns whether a database is a copy that [refresh] makes anew, and that nobody backs up: an enabled job replaces it, did so before, and no job backs it up.
/// A drill replaces nothing. `has_succeeded`: by the name of the job.
pub fn is_made_from_backups(jobs: &[Job], name: &str, has_succeeded: impl Fn(&str) -> bool) -> bool {
    let replaces = |job: &Job| job.enabled && job.runs_on(name) && job.task.as_a::<Refresh>().is_some_and(|refresh| refresh.swap);
    jobs.iter().any(|job| replaces(job) && has_succeeded(&job.name)) && !jobs.iter().any(|job| is_backed_up_by(job, name))
}

/// Returns whether jobs only restore beside a database (`scratch`), and none runs on it. Where it has nothing of its own, nobody backs it up.
pub fn is_only_scratch(jobs: &[Job], name: &str) -> bool {
    let is_scratch = |job: &Job| {
        let scratch = job.task.as_a::<Backup>().map(|backup| &backup.scratch);
        matches!(scratch, Some(Scratch::Database(database)) if database == name)
    };
    jobs.iter().any(is_scratch) && !jobs.iter().any(|job| job.runs_on(name))
}
