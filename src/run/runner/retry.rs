//! Decides whether a run that did not succeed is retried, and when.

use std::time::Duration;

use super::context::Context;
use super::end;
use crate::base::fault::{Kind, Sent};
use crate::ledger::report::{Outcome, Run, Unfinished};
use crate::ledger::{Ledger, Trigger};
use crate::pg::failure;
use crate::run::job::Job;

/// Retries of a run that found its database unreachable, if the job sets none: a server that restarts, or fails over, is back
/// within half an hour.
const RETRIES_OF_UNREACHABLE: u32 = 5;
const RETRY_DELAY_LIMIT: Duration = Duration::from_secs(3600);

/// Returns when a further attempt is worthwhile: not for an error that will be the same next time (privileges, configuration),
/// for a run that used up its time, or for one that was only busy.
pub fn retry_delay(
    job: &Job,
    trigger: &Trigger,
    outcome: Outcome,
    error: Option<&anyhow::Error>,
    stopping: bool,
) -> Option<Duration> {
    let kind = error.and_then(failure::kind_of);
    let was_sent = error.is_some_and(|error| error.downcast_ref::<Sent>().is_some());
    let has_result = error.and_then(|error| error.downcast_ref::<Unfinished>()).is_some_and(|unfinished| unfinished.has_result);
    let retries = match (outcome, kind) {
        // A backup that one of its stores has, and another has not: each attempt would make a set more, and push an older one out.
        _ if has_result => 0,
        (Outcome::Failed, Some(Kind::Configuration | Kind::Permission | Kind::Unknown)) => 0,
        // A person waits for a manual run, and sees at once that the server is unreachable.
        (Outcome::Failed, Some(Kind::Unreachable)) if !trigger.is_manual() && !was_sent => {
            job.retries.unwrap_or(RETRIES_OF_UNREACHABLE)
        }
        (Outcome::Failed, _) => job.retries.unwrap_or(0),
        // The process was stopped: the next process that runs the job continues it.
        (Outcome::Cancelled, _) if stopping && !trigger.is_manual() && !was_sent => job.retries.unwrap_or(0),
        _ => 0,
    };
    let attempt = trigger.attempt();
    (attempt <= retries).then(|| pause_after(job, attempt))
}

/// Gives up attempts of earlier runs: a tick takes the place of all, a run by hand of those that nobody started in time.
pub async fn give_up_earlier(context: &Context, ledger: &Ledger, job: &Job, run: &Run) {
    // A retry is an attempt itself.
    let Some(id) = run.id.filter(|_| run.attempt == 1) else { return };
    match ledger.give_up_retries(&job.name, &run.database, id, run.scheduled_for.is_some()).await {
        Ok(rows) => end::given_up(context, job, rows).await,
        Err(error) => tracing::warn!(job = job.name, "cannot look for earlier attempts: {error:#}"),
    }
}

/// Returns the most retries of a run that was not started by hand.
pub fn max_retries(job: &Job) -> u32 {
    job.retries.unwrap_or(RETRIES_OF_UNREACHABLE)
}

/// Returns the pause before the attempt after this one.
pub fn pause_after(job: &Job, attempt: u32) -> Duration {
    let doubled = job.retry_delay.saturating_mul(1 << (attempt - 1).min(20));
    doubled.min(RETRY_DELAY_LIMIT.max(job.retry_delay))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::base::fault::Fault;
    use crate::ledger::report::{self, Report};
    use crate::task::sql::Sql;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let tick = Trigger::Schedule { tick: Utc::now() };
        let delay = |retries: Option<u32>, trigger: &Trigger, outcome, kind: Option<Kind>| {
            let job = Job { retries, ..Job::for_tests("job", Sql::default().into()) };
            let error = kind.map(|kind| Fault::new(kind, "").into()).unwrap_or_else(|| anyhow::anyhow!("plain"));
            retry_delay(&job, trigger, outcome, Some(&error), false).map(|delay| delay.as_secs())
        };
        let sent = |retries: Option<u32>, outcome, kind: Kind| {
            let job = Job { retries, ..Job::for_tests("job", Sql::default().into()) };
            let error = anyhow::Error::from(Fault::new(kind, "")).context(Sent { message: String::new() }).context("job");
            retry_delay(&job, &tick, outcome, Some(&error), true).map(|delay| delay.as_secs())
        };
        assert_eq!(sent(None, Outcome::Failed, Kind::Unreachable), None, "something was sent");
        assert_eq!(sent(Some(1), Outcome::Failed, Kind::Unreachable), Some(60), "something was sent, and the job says so");
        assert_eq!(sent(Some(1), Outcome::Cancelled, Kind::Cancelled), None, "what was sent may have been done");
        let job = Job { retries: Some(3), ..Job::for_tests("job", Sql::default().into()) };
        let error = report::with_result(Unfinished::error(Some(Kind::Unreachable), "a store lacks it".into(), Report::default()));
        assert_eq!(retry_delay(&job, &tick, Outcome::Failed, Some(&error), false), None, "the set is there");
        let retry = |attempt| Trigger::Retry { first: 1, attempt };
        for (retries, trigger, outcome, kind, expected, why) in [
            (Some(3), &tick, Outcome::Failed, None, Some(60), "a plain failure"),
            (Some(3), &retry(2), Outcome::Failed, None, Some(120), "doubled"),
            (Some(3), &retry(4), Outcome::Failed, None, None, "the last attempt"),
            (Some(20), &retry(20), Outcome::Failed, None, Some(3600), "an hour at the most"),
            (None, &tick, Outcome::Failed, None, None, "not asked for"),
            (None, &tick, Outcome::Failed, Some(Kind::Unreachable), Some(60), "the server will be back"),
            (None, &Trigger::Manual, Outcome::Failed, Some(Kind::Unreachable), None, "a person waits"),
            (Some(3), &Trigger::Manual, Outcome::Failed, Some(Kind::Unreachable), Some(60), "asked for"),
            (Some(3), &tick, Outcome::Failed, Some(Kind::Permission), None, "the same next time"),
            (Some(3), &tick, Outcome::Failed, Some(Kind::Configuration), None, "the same next time"),
            (Some(3), &tick, Outcome::Failed, Some(Kind::Unknown), None, "it may have been done"),
            (Some(3), &tick, Outcome::TimedOut, Some(Kind::TimedOut), None, "it had its time"),
            (Some(3), &tick, Outcome::Skipped, Some(Kind::Busy), None, "another is at it"),
            (Some(3), &tick, Outcome::Cancelled, Some(Kind::Cancelled), None, "not by a stop"),
        ] {
            assert_eq!(delay(retries, trigger, outcome, kind), expected, "{why}");
        }
    }
}
