//! Jobs with patterns, counted: how many of their databases are well, failed or late, by the ledger.

use anyhow::Result;
use chrono::{DateTime, Utc};

use crate::base::units;
use crate::ledger::{Gone, Key, Ledger};
use crate::run::covered::backs_up_all;
use crate::run::job::Job;
use crate::run::scheduler::planner::{self, Ticks};

/// How a job with patterns stands.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub job: String,
    pub patterns: String,
    /// It backs up all of each database.
    pub is_backup: bool,
    pub databases: usize,
    pub well: usize,
    pub failed: usize,
    /// Late, and not failed.
    pub late: usize,
    /// Without a success yet, and neither failed nor late.
    pub waiting: usize,
    /// The oldest of the last successes, and of which database.
    pub oldest_success: Option<(DateTime<Utc>, String)>,
}

/// Counts the databases of each job with patterns. Without a ledger, all of them wait.
pub async fn count(ledger: Option<&Ledger>, jobs: &[Job], now: DateTime<Utc>) -> Result<Vec<Fleet>> {
    let chosen = || jobs.iter().filter(|job| job.chosen.is_some());
    let keys: Vec<Key> =
        chosen().flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect();
    let (successes, failed, known_since) = match ledger {
        Some(ledger) if !keys.is_empty() => {
            (ledger.last_successes(&keys).await?, ledger.failed_last(&keys).await?, ledger.known_since().await?)
        }
        _ => Default::default(),
    };
    let fleets = chosen().map(|job| {
        let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
        let (name, is_backup, databases) = (job.name.clone(), backs_up_all(job), job.databases.len());
        let mut fleet = Fleet { job: name, patterns, is_backup, databases, ..Fleet::default() };
        let mut ticks = Ticks::of(job);
        for database in &job.databases {
            let key = (job.name.clone(), database.clone());
            let success = successes.get(&key).copied();
            let since = known_since.get(&key);
            let late = since.and_then(|since| ticks.late_since(planner::jitter(job, database), *since, success, now));
            *match (failed.contains(&key), late, success) {
                (true, ..) => &mut fleet.failed,
                (false, Some(_), _) => &mut fleet.late,
                (false, None, Some(_)) => &mut fleet.well,
                (false, None, None) => &mut fleet.waiting,
            } += 1;
            let is_oldest = |at: &DateTime<Utc>| fleet.oldest_success.as_ref().is_none_or(|(oldest, _)| at < oldest);
            if let Some(at) = success.filter(is_oldest) {
                fleet.oldest_success = Some((at, database.clone()));
            }
        }
        fleet
    });
    Ok(fleets.collect())
}

/// The lines about jobs with patterns, and about databases that went.
pub fn lines(fleets: &[Fleet], gone: &[Gone], now: DateTime<Utc>) -> Vec<String> {
    let of_gone =
        |gone: &Gone| format!("{} is gone since {}; its sets are kept", gone.database, gone.gone_at.format("%Y-%m-%d %H:%M UTC"));
    fleets.iter().map(|fleet| fleet.line(now)).chain(gone.iter().map(of_gone)).collect()
}

impl Fleet {
    /// Returns whether a person should look at it.
    pub fn needs_attention(&self) -> bool {
        self.failed + self.late > 0 || self.databases == 0
    }

    /// Returns what a person should look at, with what it is about.
    pub fn attention(&self) -> (String, String) {
        let about = if self.is_backup { format!("backup of {}", self.patterns) } else { format!("job {}", self.job) };
        (about, format!("{} on {}: {}: pgtend jobs --all", self.job, self.patterns, self.in_words()))
    }

    /// Returns how many of its databases have no success that counts.
    pub fn not_well(&self) -> usize {
        self.failed + self.late + self.waiting
    }

    pub fn line(&self, now: DateTime<Utc>) -> String {
        let oldest = self.oldest_success.as_ref();
        let oldest = oldest.map(|(at, database)| format!("; the oldest success is {} old, on {database}", units::age(*at, now)));
        format!("{} on {}: {}{}", self.job, self.patterns, self.in_words(), oldest.unwrap_or_default())
    }

    /// Returns `9,998 of 10,000 well, 1 failed, 1 late`.
    pub fn in_words(&self) -> String {
        let number = |count: usize| units::count(count as u64);
        let mut parts = vec![format!("{} of {} well", number(self.well), number(self.databases))];
        for (count, what) in [(self.failed, "failed"), (self.late, "late"), (self.waiting, "without a success yet")] {
            if count > 0 {
                parts.push(format!("{} {what}", number(count)));
            }
        }
        parts.join(", ")
    }
}
