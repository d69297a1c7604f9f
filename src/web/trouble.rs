//! The trouble of a job: its last run failed, or it is late.

use crate::ledger::report::Outcome;
use crate::web::status::{JobStatus, RunStatus};

#[derive(Clone, Copy)]
pub enum Trouble<'a> {
    Failed(&'a RunStatus),
    Late,
}

pub fn trouble(job: &JobStatus) -> Option<Trouble<'_>> {
    // After a skipped or cancelled run, and while one is under way, the failure before it still stands.
    let proof = job.history.iter().rev().find(|run| run.outcome.is_some_and(Outcome::proves_something));
    match proof {
        _ if !job.enabled => None,
        Some(run) if run.outcome != Some(Outcome::Succeeded) => Some(Trouble::Failed(run)),
        _ => job.late.then_some(Trouble::Late),
    }
}

/// The order of jobs: failed, late, well, disabled.
pub fn rank(job: &JobStatus) -> u8 {
    match trouble(job) {
        Some(Trouble::Failed(_)) => 0,
        Some(Trouble::Late) => 1,
        None if job.enabled => 2,
        None => 3,
    }
}

pub fn never_ran(job: &JobStatus) -> bool {
    job.history.is_empty() && job.last_success_at.is_none()
}
