//! What the reports of the last runs say, as metrics: sizes of backups, their proofs, restore times, findings, archived rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::labels::{JobLabels, Seconds};
use crate::ledger::report::Report;

/// The levels of findings, as reports of audits count them.
const LEVELS: [&str; 4] = ["critical", "high", "medium", "low"];
const STAGES: [&str; 2] = ["uncompressed", "stored"];

/// Clocks of hosts differ by less (`task::backup::restore_check`).
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    job: String,
    database: String,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabels {
    job: String,
    database: String,
    level: &'static str,
}

/// What is known of a job on a database by its reports. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    pub uncompressed_bytes: Option<i64>,
    pub stored_bytes: Option<i64>,
    pub restore_seconds: Option<f64>,
    /// When the newest proved set began; 0: there is none.
    pub proved_at: Option<f64>,
    pub proved_sets: Option<i64>,
    pub covered_until: Option<f64>,
    /// In the order of `LEVELS`.
    pub findings: [Option<i64>; LEVELS.len()],
}

impl Known {
    pub fn by(report: &Report) -> Self {
        let number = |fact: &str| report.facts.get(fact).and_then(Value::as_i64);
        let of_level = |level: &str| report.facts.get("counts")?.get(level)?.as_i64();
        Self {
            uncompressed_bytes: number("uncompressed_bytes"),
            stored_bytes: number("dump_bytes"),
            restore_seconds: report.restore_seconds(),
            proved_at: None,
            proved_sets: number("intact_sets"),
            covered_until: report.covered_until().map(|until| until.timestamp() as f64),
            findings: LEVELS.map(of_level),
        }
    }

    pub fn proved(began_at: Option<DateTime<Utc>>) -> Self {
        Self { proved_at: Some(began_at.map_or(0.0, |at| at.timestamp_millis() as f64 / 1000.0)), ..Self::default() }
    }

    /// Takes over what a later report says.
    pub fn update(&mut self, new: &Self) {
        self.uncompressed_bytes = new.uncompressed_bytes.or(self.uncompressed_bytes);
        self.stored_bytes = new.stored_bytes.or(self.stored_bytes);
        self.restore_seconds = new.restore_seconds.or(self.restore_seconds);
        self.proved_at = new.proved_at.or(self.proved_at);
        self.proved_sets = new.proved_sets.or(self.proved_sets);
        self.covered_until = new.covered_until.or(self.covered_until);
        for (old, new) in self.findings.iter_mut().zip(new.findings) {
            *old = new.or(*old);
        }
    }

    /// Returns what is shown of a job on many databases: sums of sizes and findings, and the worst of all else.
    /// With each: whether it failed or is late, so that having no proof is no matter of its being new.
    pub fn together<'k>(judged: impl Iterator<Item = (&'k Self, bool)> + Clone) -> Self {
        let all = judged.clone().map(|(known, _)| known);
        let sum = |of: &dyn Fn(&Self) -> Option<i64>| all.clone().filter_map(of).reduce(i64::saturating_add);
        let least = |of: &dyn Fn(&Self) -> Option<f64>| all.clone().filter_map(of).min_by(f64::total_cmp);
        // A database that is new has no proved set yet; one that failed or is late should have one.
        let should_have = judged.filter(|(_, is_in_trouble)| *is_in_trouble).any(|(known, _)| known.proved_at == Some(0.0));
        let proved_at = if should_have { Some(0.0) } else { least(&|known| known.proved_at.filter(|at| *at > 0.0)) };
        Self {
            uncompressed_bytes: sum(&|known| known.uncompressed_bytes),
            stored_bytes: sum(&|known| known.stored_bytes),
            restore_seconds: all.clone().filter_map(|known| known.restore_seconds).max_by(f64::total_cmp),
            proved_at: proved_at.or_else(|| least(&|known| known.proved_at)),
            proved_sets: all.clone().filter_map(|known| known.proved_sets).min(),
            covered_until: least(&|known| known.covered_until),
            findings: std::array::from_fn(|level| sum(&|known| known.findings[level])),
        }
    }
}

#[derive(Clone, Default)]
pub struct Facts {
    backup_size: Family<StageLabels, Gauge>,
    restore_seconds: Family<JobLabels, Seconds>,
    proved_timestamp: Family<JobLabels, Seconds>,
    backup_age: Family<JobLabels, Seconds>,
    proved_sets: Family<JobLabels, Gauge>,
    covered_until: Family<JobLabels, Seconds>,
    archived_rows: Family<JobLabels, Counter>,
    audit_findings: Family<LevelLabels, Gauge>,
    /// When the newest proved set of each backup job began, in seconds since 1970; 0: there is none. Ages are made of it for each page.
    proved: Arc<Mutex<HashMap<JobLabels, f64>>>,
}

impl Facts {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "backup_size_bytes",
            "Size of the last dump: as pg_dump wrote it, and as stored",
            self.backup_size.clone(),
        );
        registry.register(
            "restore_seconds",
            "Duration of the last restore that proved a set, with its counts; absent without one",
            self.restore_seconds.clone(),
        );
        registry.register(
            "backup_proved_timestamp_seconds",
            "When the newest set began that was read back or restored; 0: there is none",
            self.proved_timestamp.clone(),
        );
        registry.register(
            "backup_age_seconds",
            "Age of the newest set that was read back or restored; infinite: there is none",
            self.backup_age.clone(),
        );
        registry.register(
            "backup_proved_sets",
            "Sets in the store of the last run that were read back or restored, and are intact",
            self.proved_sets.clone(),
        );
        registry.register(
            "partition_covered_until_timestamp_seconds",
            "Partitions exist for rows up to this time",
            self.covered_until.clone(),
        );
        registry.register("archived_rows", "Rows that were written to an archive", self.archived_rows.clone());
        registry.register("audit_findings", "Open findings of the last audit, by level", self.audit_findings.clone());
    }

    /// Creates the series of a backup job that have a value before its first run.
    pub fn backup(&self, labels: &JobLabels) {
        for stage in STAGES {
            drop(self.backup_size.get_or_create(&staged(labels, stage)));
        }
    }

    pub fn forget(&self, labels: &JobLabels) {
        for family in [&self.restore_seconds, &self.proved_timestamp, &self.backup_age, &self.covered_until] {
            family.remove(labels);
        }
        self.proved_sets.remove(labels);
        self.archived_rows.remove(labels);
        for stage in STAGES {
            self.backup_size.remove(&staged(labels, stage));
        }
        for level in LEVELS {
            self.audit_findings.remove(&of_level(labels, level));
        }
        self.proved.lock().unwrap_or_else(PoisonError::into_inner).remove(labels);
    }

    /// Sets the values that are known.
    pub fn show(&self, labels: &JobLabels, known: &Known) {
        if let Some(until) = known.covered_until {
            self.covered_until.get_or_create(labels).set(until);
        }
        if let Some(seconds) = known.restore_seconds {
            self.restore_seconds.get_or_create(labels).set(seconds);
        }
        if let Some(sets) = known.proved_sets {
            self.proved_sets.get_or_create(labels).set(sets);
        }
        for (stage, bytes) in STAGES.into_iter().zip([known.uncompressed_bytes, known.stored_bytes]) {
            if let Some(bytes) = bytes {
                self.backup_size.get_or_create(&staged(labels, stage)).set(bytes);
            }
        }
        for (level, count) in LEVELS.into_iter().zip(known.findings) {
            if let Some(count) = count {
                self.audit_findings.get_or_create(&of_level(labels, level)).set(count);
            }
        }
        if let Some(at) = known.proved_at {
            let now = Utc::now();
            self.proved_timestamp.get_or_create(labels).set(if is_proof(at, now) { at } else { 0.0 });
            self.backup_age.get_or_create(labels).set(age(at, now));
            self.proved.lock().unwrap_or_else(PoisonError::into_inner).insert(labels.clone(), at);
        }
    }

    /// Adds what a run of this process has done.
    pub fn add(&self, labels: &JobLabels, report: &Report) {
        if let Some(rows) = report.facts.get("archived_rows").and_then(Value::as_u64) {
            self.archived(labels, rows);
        }
    }

    pub fn archived(&self, labels: &JobLabels, rows: u64) {
        self.archived_rows.get_or_create(labels).inc_by(rows);
    }

    /// Brings ages up to date, for a page.
    pub fn grow_older(&self, now: DateTime<Utc>) {
        for (labels, at) in self.proved.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(seconds) = self.backup_age.get(labels) {
                seconds.set(age(*at, now));
            }
            if let Some(timestamp) = self.proved_timestamp.get(labels) {
                timestamp.set(if is_proof(*at, now) { *at } else { 0.0 });
            }
        }
    }
}

/// Returns whether a time in seconds since 1970 may be that of a proof: 0 is none, and one in the future is that of a wrong clock.
fn is_proof(at: f64, now: DateTime<Utc>) -> bool {
    at > 0.0 && at <= (now + CLOCKS_DIFFER).timestamp() as f64
}

/// The seconds since a proof; infinite where there is none.
fn age(at: f64, now: DateTime<Utc>) -> f64 {
    if is_proof(at, now) { (now.timestamp_millis() as f64 / 1000.0 - at).max(0.0) } else { f64::INFINITY }
}

fn staged(labels: &JobLabels, stage: &'static str) -> StageLabels {
    StageLabels { job: labels.job.clone(), database: labels.database.clone(), stage }
}

fn of_level(labels: &JobLabels, level: &'static str) -> LevelLabels {
    LevelLabels { job: labels.job.clone(), database: labels.database.clone(), level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_is_dated_in_the_future_is_none() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for (at, expected) in [
            (0.0, f64::INFINITY),
            (1_799_999_990.0, 10.0),
            (1_800_000_060.0, 0.0),
            (1_800_000_000.0 + 31_536_000.0, f64::INFINITY),
        ] {
            assert_eq!(age(at, now), expected, "{at}");
        }
    }
}
