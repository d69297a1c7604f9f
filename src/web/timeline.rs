//! What ran in the last 24 hours, and what will in the next 24, in parts of half an hour. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::ledger::Began;
use crate::ledger::report::Outcome;
use crate::run::job::Job;
use crate::web::status::{FleetStatus, JobStatus, group};
use crate::web::trouble::rank;

/// The seconds of a part.
pub const SLOT_SECONDS: i32 = 1800;

/// The parts of 24 hours; now is between the two halves.
pub const SLOTS: i32 = 48;

/// More groups of jobs than this share the last lane.
const LANES: usize = 12;

/// The schedules of one group whose ticks are drawn; of others, the next ones.
const SCHEDULES: usize = 16;

/// The name of the lane of all others.
pub const OTHERS: &str = "all other jobs";

#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub now: DateTime<Utc>,
    pub lanes: Vec<Lane>,
}

/// What is drawn of the jobs of a group.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    pub name: String,
    pub is_others: bool,
    /// The outcomes in each part of the past, from 0; None: not finished.
    pub past: BTreeMap<i32, BTreeSet<Mark>>,
    pub counts: BTreeMap<Mark, i64>,
    /// The parts of the future with a tick, from 0.
    pub planned: BTreeSet<i32>,
    pub next_at: Option<DateTime<Utc>>,
}

/// A kind of mark: each has a place and a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Succeeded,
    Failed,
    Skipped,
    Running,
}

impl Mark {
    fn of(outcome: Option<Outcome>) -> Self {
        match outcome {
            None => Self::Running,
            Some(Outcome::Succeeded) => Self::Succeeded,
            Some(Outcome::Skipped | Outcome::Cancelled) => Self::Skipped,
            Some(Outcome::Failed | Outcome::TimedOut | Outcome::Crashed) => Self::Failed,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Running => "running",
        }
    }
}

/// Since when runs are counted.
pub fn since(now: DateTime<Utc>) -> DateTime<Utc> {
    now - TimeDelta::seconds(i64::from(SLOTS) * i64::from(SLOT_SECONDS))
}

/// Draws those in trouble first, then those that are due next.
pub fn of(jobs: &[Job], statuses: &[JobStatus], fleets: &[FleetStatus], began: &[Began], now: DateTime<Utc>) -> Timeline {
    let mut groups: HashMap<&str, (u8, Option<DateTime<Utc>>)> = HashMap::new();
    for status in statuses {
        let entry = groups.entry(group(&status.job)).or_insert((u8::MAX, None));
        let next = status.next_run_at.as_ref().map(|next| next.to_utc());
        *entry = (entry.0.min(rank(status)), entry.1.into_iter().chain(next).min());
    }
    for fleet in fleets {
        let entry = groups.entry(group(&fleet.job)).or_insert((u8::MAX, None));
        let rank = match fleet {
            FleetStatus { enabled: false, .. } => 3,
            FleetStatus { failed: 1.., .. } => 0,
            FleetStatus { late: 1.., .. } => 1,
            _ => 2,
        };
        *entry = (entry.0.min(rank), entry.1.into_iter().chain(fleet.next_run_at.map(|next| next.to_utc())).min());
    }
    let mut order: Vec<&str> = groups.keys().copied().collect();
    order.sort_by_key(|name| {
        let (rank, next) = groups[name];
        (rank, next.is_none(), next, *name)
    });
    let shown = if order.len() > LANES { LANES - 1 } else { order.len() };
    let mut lanes: Vec<Lane> =
        order[..shown].iter().map(|name| Lane { name: (*name).to_owned(), next_at: groups[name].1, ..Lane::default() }).collect();
    if order.len() > shown {
        let next_at = order[shown..].iter().filter_map(|name| groups[name].1).min();
        lanes.push(Lane { name: OTHERS.to_owned(), is_others: true, next_at, ..Lane::default() });
    }
    let places: HashMap<&str, usize> = order.iter().enumerate().map(|(at, name)| (*name, at.min(shown))).collect();
    let lane_of = |job: &str| places.get(group(job)).copied();
    for began in began.iter().filter(|began| (0..SLOTS).contains(&began.slot)) {
        if let Some(lane) = lane_of(&began.job).and_then(|at| lanes.get_mut(at)) {
            let mark = Mark::of(began.outcome.0);
            lane.past.entry(began.slot).or_default().insert(mark);
            *lane.counts.entry(mark).or_default() += began.runs;
        }
    }
    for status in statuses {
        let next = status.next_run_at.as_ref().and_then(|next| slot(next.to_utc(), now));
        if let (Some(slot), Some(lane)) = (next, lane_of(&status.job).and_then(|at| lanes.get_mut(at))) {
            lane.planned.insert(slot);
        }
    }
    let mut drawn: HashSet<(usize, String, &str)> = HashSet::new();
    for job in jobs.iter().filter(|job| job.enabled) {
        let (Some(at), Some(schedule)) = (lane_of(&job.name).filter(|at| *at < shown), &job.schedule) else { continue };
        let of_lane = drawn.iter().filter(|(lane, ..)| *lane == at).count();
        if of_lane < SCHEDULES && drawn.insert((at, schedule.to_string(), job.timezone.name())) {
            lanes[at].planned.extend(planned(job, now));
        }
    }
    Timeline { now, lanes }
}

/// The parts of the next 24 hours that have a tick: at most one look for each.
fn planned(job: &Job, now: DateTime<Utc>) -> Vec<i32> {
    let mut slots = Vec::new();
    let mut after = now;
    for _ in 0..SLOTS {
        let Some(slot) = job.next_tick(after).and_then(|tick| slot(tick.to_utc(), now)) else { break };
        slots.push(slot);
        after = now + TimeDelta::seconds(i64::from(slot + 1) * i64::from(SLOT_SECONDS) - 1);
    }
    slots
}

fn slot(at: DateTime<Utc>, now: DateTime<Utc>) -> Option<i32> {
    let slot = i32::try_from((at - now).num_seconds().div_euclid(i64::from(SLOT_SECONDS))).ok()?;
    (0..SLOTS).contains(&slot).then_some(slot)
}
