//! Jobs with patterns: by the ledger, and by what the stores said when they were last asked.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::run::scheduler::Fleet;
use crate::run::standing;

#[derive(Clone, Debug, Serialize)]
pub struct FleetStatus {
    pub job: String,
    /// As they stand in the job's file.
    pub patterns: String,
    pub task: &'static str,
    pub description: Option<String>,
    pub enabled: bool,
    pub schedule: Option<String>,
    pub schedule_in_words: Option<String>,
    pub timezone: String,
    /// The soonest on any of its databases, in the job's zone.
    pub next_run_at: Option<DateTime<Tz>>,
    /// Of a job with `schemas`, how many schemas.
    pub databases: usize,
    /// "database" or "schema".
    #[serde(skip)]
    pub has_runs_for: &'static str,
    pub well: usize,
    pub failed: usize,
    /// Late, and not failed.
    pub late: usize,
    /// Without a success yet, and neither failed nor late.
    pub waiting: usize,
    /// Why nothing may be known of its databases: a server that never said which it has.
    #[serde(skip)]
    pub unknown: Option<String>,
    /// Of a backup job: not backed up for all that the stores say, as of the last few minutes; and how they stand by the stores, in words, where some are not or wait for
    /// their first backup.
    pub without_proof: usize,
    /// Those of them of which no store could be asked.
    #[serde(skip)]
    pub by_ledger: usize,
    pub by_stores: Option<String>,
    /// The first of those that are not well by the stores.
    #[serde(skip)]
    pub not_well: Vec<String>,
    /// When the stores were asked for that. None: not yet, and the ledger alone says how they stand; or it is no backup of all of them.
    pub stores_asked_at: Option<DateTime<Utc>>,
    /// The oldest of the last successes, and the database that it is of.
    pub oldest_success_at: Option<DateTime<Utc>>,
    pub oldest_success_on: Option<String>,
}

impl From<Fleet> for FleetStatus {
    fn from(fleet: Fleet) -> Self {
        let job = &fleet.job;
        let (oldest_success_at, oldest_success_on) = fleet.oldest_success.unzip();
        let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
        Self {
            job: job.name.clone(),
            task: job.task.kind(),
            description: job.description_for(&patterns),
            patterns,
            enabled: job.enabled,
            schedule: job.schedule.as_ref().map(ToString::to_string),
            schedule_in_words: job.schedule.as_ref().map(|schedule| schedule.in_words()),
            timezone: job.timezone.name().to_owned(),
            next_run_at: fleet.next_due_at.map(|at| at.with_timezone(&job.timezone)),
            databases: fleet.databases,
            has_runs_for: job.has_runs_for(),
            well: fleet.well,
            failed: fleet.failed,
            late: fleet.late,
            waiting: fleet.waiting,
            unknown: None,
            without_proof: 0,
            by_ledger: 0,
            by_stores: None,
            not_well: Vec::new(),
            stores_asked_at: None,
            oldest_success_at,
            oldest_success_on,
        }
    }
}

impl FleetStatus {
    /// Returns how many are not backed up, by the stores.
    pub fn not_safe(&self) -> usize {
        self.without_proof - self.by_ledger + if self.by_stores.is_some() { self.waiting } else { 0 }
    }

    /// Returns whether it should have run on something, and nothing is there.
    pub fn is_empty(&self) -> bool {
        self.enabled && self.databases == 0
    }

    /// Takes over what the stores said when they were asked: also that sets are too old, of which a ledger that is new knows nothing.
    pub fn judge(&mut self, judged: &standing::fleets::Fleet, at: DateTime<Utc>) {
        self.stores_asked_at = Some(at);
        (self.without_proof, self.by_ledger) = (judged.without_proof(), judged.by_ledger);
        let late_by_sets = judged.late.saturating_sub(self.late);
        self.late += late_by_sets;
        self.waiting = self.waiting.saturating_sub(late_by_sets);
        self.well = self.well.min(self.databases.saturating_sub(self.failed + self.late + self.waiting + self.without_proof));
        self.by_stores = (judged.without_proof() + judged.waiting + late_by_sets > 0).then(|| judged.in_words());
        self.not_well.clone_from(&judged.named);
    }
}
