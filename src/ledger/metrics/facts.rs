//! What the reports of the last runs say, as metrics: sizes of backups, their proofs, restore times, findings, archived rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
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

    /// Sets the values that stay from one report to the next.
    pub fn set(&self, labels: &JobLabels, report: &Report) {
        let number = |fact: &str| report.facts.get(fact).and_then(Value::as_i64);
        if let Some(until) = report.covered_until() {
            self.covered_until.get_or_create(labels).set(until.timestamp() as f64);
        }
        if let Some(seconds) = report.restore_seconds() {
            self.restored_in(labels, seconds);
        }
        if let Some(sets) = number("intact_sets") {
            self.proved_sets.get_or_create(labels).set(sets);
        }
        for (stage, fact) in [("uncompressed", "uncompressed_bytes"), ("stored", "dump_bytes")] {
            if let Some(bytes) = number(fact) {
                self.backup_size.get_or_create(&staged(labels, stage)).set(bytes);
            }
        }
        for level in LEVELS {
            let count = report.facts.get("counts").and_then(|counts| counts.get(level)).and_then(Value::as_i64);
            if let Some(count) = count {
                self.audit_findings.get_or_create(&of_level(labels, level)).set(count);
            }
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

    pub fn restored_in(&self, labels: &JobLabels, seconds: f64) {
        self.restore_seconds.get_or_create(labels).set(seconds);
    }

    /// Sets when the newest proved set of a backup job began; `None`: there is none.
    pub fn proved(&self, labels: &JobLabels, began_at: Option<DateTime<Utc>>) {
        let at = began_at.map_or(0.0, |at| at.timestamp_millis() as f64 / 1000.0);
        self.proved_timestamp.get_or_create(labels).set(at);
        self.backup_age.get_or_create(labels).set(age(at, Utc::now()));
        self.proved.lock().unwrap_or_else(PoisonError::into_inner).insert(labels.clone(), at);
    }

    /// Brings ages up to date, for a page.
    pub fn grow_older(&self, now: DateTime<Utc>) {
        for (labels, at) in self.proved.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(seconds) = self.backup_age.get(labels) {
                seconds.set(age(*at, now));
            }
        }
    }
}

/// The seconds since a time in seconds since 1970; infinite for 0.
fn age(at: f64, now: DateTime<Utc>) -> f64 {
    if at > 0.0 { (now.timestamp_millis() as f64 / 1000.0 - at).max(0.0) } else { f64::INFINITY }
}

fn staged(labels: &JobLabels, stage: &'static str) -> StageLabels {
    StageLabels { job: labels.job.clone(), database: labels.database.clone(), stage }
}

fn of_level(labels: &JobLabels, level: &'static str) -> LevelLabels {
    LevelLabels { job: labels.job.clone(), database: labels.database.clone(), level }
}
