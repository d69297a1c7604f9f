//! Decides what is due: a pure function of a schedule, of the ticks that were handled, and of the time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use sha2::{Digest as _, Sha256};

use crate::base::schedule::Schedule;
use crate::base::units;
use crate::ledger::Trigger;
use crate::run::job::{CatchUp, Job};

/// A tick that the scheduler, which looks every second, sees later than this was missed: the process, the host or the ledger was down.
const ON_TIME: TimeDelta = TimeDelta::seconds(30);
/// A tick of a timer (systemd, Kubernetes), which starts a process first, was missed when it is seen later than this.
pub const ON_TIME_BY_TIMER: TimeDelta = TimeDelta::minutes(2);

/// The scheduler looks every second. Ticks of a longer break are not made up for one by one.
const BREAK: TimeDelta = TimeDelta::seconds(5);
const TICKS_AT_ONCE: usize = 8;

/// The decision about a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Run(Trigger),
    /// It was missed, and is skipped for this reason.
    Leave(Trigger, String),
}

/// Returns what is due of a job at `now`, when all its ticks until `done_until` are handled. Every tick runs while the scheduler
/// looks without a break; of those in a break, only the latest runs.
pub fn due(job: &Job, jitter: Duration, done_until: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Due> {
    let now = now - jitter;
    let Some(schedule) = &job.schedule else { return Vec::new() };
    if now <= done_until {
        return Vec::new();
    }
    if now - done_until <= BREAK {
        let mut due = Vec::new();
        let mut after = done_until;
        for _ in 0..TICKS_AT_ONCE {
            let Some(tick) = schedule.next_after(after, job.timezone).map(|tick| tick.with_timezone(&Utc)) else { break };
            if tick > now {
                break;
            }
            due.push(Due::Run(Trigger::Schedule { tick }));
            after = tick;
        }
        return due;
    }
    let Some(tick) = schedule.last_until(now, job.timezone).filter(|tick| *tick > done_until) else { return Vec::new() };
    if now - tick <= ON_TIME {
        return vec![Due::Run(Trigger::Schedule { tick })];
    }
    let late = (now - tick).to_std().unwrap_or_default();
    let trigger = Trigger::CatchUp { tick };
    vec![match job.catch_up {
        CatchUp::Skip => Due::Leave(trigger, format!("missed {} ago, and catch_up = \"skip\"", units::duration(late))),
        CatchUp::Once if late <= job.catch_up_within => Due::Run(trigger),
        CatchUp::Once => {
            let limit = units::duration(job.catch_up_within);
            Due::Leave(trigger, format!("missed {} ago, which is more than catch_up_within ({limit})", units::duration(late)))
        }
    }]
}

/// Returns the job's own share of its `jitter`: the same on every host and every day.
pub fn jitter(job: &Job, database: &str) -> Duration {
    let Some(jitter) = job.jitter else { return Duration::ZERO };
    let hash = Sha256::digest(format!("{}/{database}", job.name));
    let share = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    jitter.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

/// Returns the tick for which a success is overdue, if there is one: it was known when it came, its grace period is over, and the
/// last success is older.
pub fn late_since(
    job: &Job,
    jitter: Duration,
    known_since: DateTime<Utc>,
    last_success_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    Ticks::of(job).late_since(jitter, known_since, last_success_at, now)
}

/// The same for a schedule alone, whose ticks have so long to succeed.
pub fn overdue(
    schedule: &Schedule,
    timezone: Tz,
    grace: Duration,
    known_since: DateTime<Utc>,
    last_success_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    schedule.last_until(now - grace, timezone).filter(|tick| is_overdue(*tick, known_since, last_success_at))
}

fn is_overdue(tick: DateTime<Utc>, known_since: DateTime<Utc>, last_success_at: Option<DateTime<Utc>>) -> bool {
    tick > known_since && last_success_at.is_none_or(|at| at < tick)
}

/// The ticks of a job on many databases. What was computed for one moment holds for all moments between two ticks, so that thousands of databases
/// cost little more than one.
pub struct Ticks<'j> {
    job: &'j Job,
    /// From the first moment on, the second is the next tick.
    next: Option<(DateTime<Utc>, Option<DateTime<Tz>>)>,
    /// From the first moment, a tick, to the second, it is the last.
    last: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl<'j> Ticks<'j> {
    pub fn of(job: &'j Job) -> Self {
        Self { job, next: None, last: None }
    }

    /// The same as [`Job::next_tick`].
    pub fn next_after(&mut self, after: DateTime<Utc>) -> Option<DateTime<Tz>> {
        if let Some((from, tick)) = self.next
            && from <= after
            && tick.is_none_or(|tick| after < tick)
        {
            return tick;
        }
        let tick = self.job.next_tick(after);
        self.next = Some((after, tick));
        tick
    }

    /// When a run on the database starts next, in the job's zone; none for a job that is not enabled.
    pub fn next_start(&mut self, database: &str, now: DateTime<Utc>) -> Option<DateTime<Tz>> {
        let jitter = jitter(self.job, database);
        self.next_after(now - jitter).filter(|_| self.job.enabled).map(|tick| tick + jitter)
    }

    /// The same as [`late_since`].
    pub fn late_since(
        &mut self,
        jitter: Duration,
        known_since: DateTime<Utc>,
        last_success_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let schedule = self.job.schedule.as_ref().filter(|_| self.job.enabled)?;
        let until = now - jitter - self.job.late_after;
        let tick = match self.last {
            Some((tick, to)) if tick <= until && until <= to => tick,
            _ => {
                let tick = schedule.last_until(until, self.job.timezone)?;
                self.last = Some((tick, until));
                tick
            }
        };
        is_overdue(tick, known_since, last_success_at).then_some(tick)
    }

    /// Returns the tick for which something newer than `last_at` is overdue, whoever runs the job. `known_since`: of the schedule, by the ledger, where that
    /// knows it. A schedule that has only just become known, as the ledger is new or the file was changed, may have a tick that the one before had not: then
    /// the tick before that one counts.
    pub fn overdue_since(
        &mut self,
        jitter: Duration,
        known_since: Option<DateTime<Utc>>,
        last_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let tick = self.late_since(jitter, DateTime::<Utc>::MIN_UTC, Some(last_at), now)?;
        if known_since.is_none_or(|since| since < tick) {
            return Some(tick);
        }
        let before = self.job.schedule.as_ref()?.last_until(tick - TimeDelta::seconds(1), self.job.timezone)?;
        (last_at < before).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    fn job(schedule: &str) -> Job {
        Job {
            schedule: Some(Schedule::try_from(schedule.to_owned()).unwrap()),
            ..Job::for_tests("job", crate::task::sql::Sql::default().into())
        }
    }

    fn ticks(due: &[Due]) -> Vec<String> {
        due.iter()
            .map(|due| match due {
                Due::Run(trigger) => format!("{} {}", trigger.name(), trigger.tick().unwrap().format("%d %H:%M:%S")),
                Due::Leave(_, reason) => reason.clone(),
            })
            .collect()
    }

    #[test]
    fn a_tick_runs_when_it_comes_and_not_before() {
        let job = job("0 2 * * *");
        let done = at("23T12:00:00");
        assert_eq!(due(&job, Duration::ZERO, done, at("24T01:59:59")), []);
        assert_eq!(ticks(&due(&job, Duration::ZERO, done, at("24T02:00:00"))), ["schedule 24 02:00:00"]);
        assert_eq!(due(&job, Duration::ZERO, at("24T02:00:00"), at("24T02:00:01")), [], "once");
    }

    #[test]
    fn every_tick_of_a_busy_process_runs() {
        let due = due(&job("* * * * * *"), Duration::ZERO, at("23T12:00:00"), at("23T12:00:03"));
        assert_eq!(ticks(&due), ["schedule 23 12:00:01", "schedule 23 12:00:02", "schedule 23 12:00:03"]);
    }

    #[test]
    fn of_missed_ticks_the_latest_runs_once() {
        let job = job("0 * * * *");
        let due = due(&job, Duration::ZERO, at("23T02:00:00"), at("23T07:30:00"));
        assert_eq!(ticks(&due), ["catch-up 23 07:00:00"]);
    }

    #[test]
    fn of_the_ticks_in_a_short_break_the_latest_runs() {
        let due = due(&job("* * * * * *"), Duration::ZERO, at("23T12:00:00"), at("23T12:00:20"));
        assert_eq!(ticks(&due), ["schedule 23 12:00:20"]);
    }

    #[test]
    fn missed_ticks_make_way_for_one_that_is_on_time() {
        let due = due(&job("0 * * * *"), Duration::ZERO, at("23T02:00:00"), at("23T07:00:02"));
        assert_eq!(ticks(&due), ["schedule 23 07:00:00"]);
    }

    #[test]
    fn what_was_missed_too_long_ago_is_left_with_its_reason() {
        let monthly = job("0 2 1 * *");
        let left = due(&monthly, Duration::ZERO, at("01T00:00:00"), at("20T00:00:00"));
        assert!(matches!(&left[..], [Due::Leave(_, reason)] if reason.contains("catch_up_within")), "{left:?}");
        let skipping = Job { catch_up: CatchUp::Skip, ..job("0 2 * * *") };
        let left = due(&skipping, Duration::ZERO, at("23T00:00:00"), at("23T03:00:00"));
        assert!(matches!(&left[..], [Due::Leave(_, reason)] if reason.contains("skip")), "{left:?}");
    }

    #[test]
    fn ticks_that_were_computed_for_other_moments_are_the_same_as_new_ones() {
        for (schedule, jitter) in [("0 2 * * *", 7200), ("*/7 * * * *", 7200), ("* * * * * *", 5), ("0 0 29 2 *", 600)] {
            let job = Job { jitter: Some(Duration::from_secs(jitter)), ..job(schedule) };
            let mut ticks = Ticks::of(&job);
            let now = at("23T02:30:00");
            for number in 0..500 {
                let name = format!("tenant_{number}");
                let jitter = super::jitter(&job, &name);
                assert_eq!(ticks.next_after(now - jitter), job.next_tick(now - jitter), "{schedule} {name}");
                let (known, success) = (at("01T00:00:00"), Some(at("22T03:00:00")));
                let late = late_since(&job, jitter, known, success, now);
                assert_eq!(ticks.late_since(jitter, known, success, now), late, "{schedule} {name}");
            }
        }
    }

    #[test]
    fn jitter_delays_a_tick_and_keeps_its_name() {
        let job = Job { jitter: Some(Duration::from_secs(600)), ..job("0 2 * * *") };
        let delay = jitter(&job, "app");
        assert!(delay <= Duration::from_secs(600) && delay == jitter(&job, "app") && delay != jitter(&job, "other"));
        let delay = Duration::from_secs(300);
        assert_eq!(due(&job, delay, at("23T12:00:00"), at("24T02:04:59")), []);
        assert_eq!(ticks(&due(&job, delay, at("23T12:00:00"), at("24T02:05:00"))), ["schedule 24 02:00:00"]);
    }

    #[test]
    fn a_job_is_late_when_its_grace_is_over_without_a_success() {
        let job = Job { late_after: Duration::from_secs(3600), ..job("0 2 * * *") };
        let known = at("20T00:00:00");
        let late = |success: Option<&str>, now: &str| late_since(&job, Duration::ZERO, known, success.map(at), at(now));
        assert_eq!(late(Some("23T02:10:00"), "24T02:30:00"), None, "still in its grace");
        assert_eq!(late(Some("23T02:10:00"), "24T03:30:00"), Some(at("24T02:00:00")));
        assert_eq!(late(Some("24T02:10:00"), "24T03:30:00"), None);
        assert_eq!(late(None, "20T03:30:00"), Some(at("20T02:00:00")), "never a success");
        assert_eq!(late(None, "20T01:00:00"), None, "no tick since it is known");
        let disabled = Job { enabled: false, ..job.clone() };
        assert_eq!(late_since(&disabled, Duration::ZERO, known, None, at("24T03:30:00")), None);
    }

    #[test]
    fn what_is_old_is_overdue_however_new_the_ledger_or_the_schedule_is() {
        let job = Job { late_after: Duration::from_secs(3600), ..job("5 2 * * *") };
        let overdue = |known: Option<&str>, last: &str| {
            Ticks::of(&job).overdue_since(Duration::ZERO, known.map(at), at(last), at("24T10:00:00"))
        };
        assert_eq!(overdue(None, "24T02:05:01"), None);
        assert_eq!(overdue(None, "24T02:00:03"), Some(at("24T02:05:00")), "nobody knows the schedule: its ticks count");
        assert_eq!(overdue(Some("20T00:00:00"), "23T02:05:03"), Some(at("24T02:05:00")));
        // It was 02:00 until just now.
        assert_eq!(overdue(Some("24T09:00:00"), "24T02:00:03"), None);
        assert_eq!(overdue(Some("24T09:00:00"), "23T02:06:00"), None, "one tick may be none of the former schedule");
        assert_eq!(overdue(Some("24T09:00:00"), "03T02:00:03"), Some(at("23T02:05:00")));
    }
}
