//! What is wrong with a job, and how badly.

use crate::ledger::report::Outcome;
use crate::web::status::{JobStatus, RunStatus};

#[derive(Clone, Copy)]
pub(super) enum Trouble<'a> {
    Failed(&'a RunStatus),
    Late,
}

pub(super) fn trouble(job: &JobStatus) -> Option<Trouble<'_>> {
    // A skipped or cancelled run proves nothing: the failure before it still stands.
    let proof = job.history.iter().rev().find(|run| !matches!(run.outcome, None | Some(Outcome::Skipped | Outcome::Cancelled)));
    match proof {
        _ if !job.enabled => None,
        Some(run) if run.outcome != Some(Outcome::Succeeded) => Some(Trouble::Failed(run)),
        _ => job.late.then_some(Trouble::Late),
    }
}

pub(super) fn rank(job: &JobStatus) -> u8 {
    match trouble(job) {
        Some(Trouble::Failed(_)) => 0,
        Some(Trouble::Late) => 1,
        None if job.enabled => 2,
        None => 3,
    }
}

pub(super) fn never_ran(job: &JobStatus) -> bool {
    job.history.is_empty() && job.last_success_at.is_none()
}
