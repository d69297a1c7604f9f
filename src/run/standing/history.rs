//! What the ledger says of the jobs, of those with patterns in a query each for all of their databases.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::late::Known;
use super::stores::Proofs;
use crate::config::Config;
use crate::ledger::{FailedLast, Gone, Key, Ledger, LeftOut, Untold};
use crate::run::covered::backs_up_all;
use crate::run::fleet;
use crate::run::job::{Broken, Folder, Job};
use crate::run::scheduler::{Stands, stands};

/// What it says of jobs on databases that are looked at each by itself, and of servers. Empty without a ledger.
#[derive(Default)]
pub struct History {
    pub known: Known,
    pub failed: Vec<FailedLast>,
    /// The jobs that cannot run.
    pub stands: Vec<Stands>,
    pub proved: Proofs,
    /// What the servers had when they last answered somebody.
    pub found: fleet::Found,
    pub left_out: Vec<LeftOut>,
    pub gone: Vec<Gone>,
    pub untold: Vec<Untold>,
    pub ledger: Option<Ledger>,
}

impl History {
    pub async fn read(config: &Config, folder: &Folder, jobs: &[Job], now: DateTime<Utc>) -> Result<Self> {
        let Some(ledger) = Ledger::to_read(config).await? else { return Ok(Self::default()) };
        let keys: Vec<Key> =
            jobs.iter().flat_map(|job| one_by_one(config, job).map(|database| (job.name.clone(), database.clone()))).collect();
        // After an edit, `serve` runs a job as before until its next restart.
        let is_there = |broken: &&Broken| jobs.iter().any(|job| job.name == broken.job);
        let broken: Vec<&Broken> = folder.broken.iter().filter(|broken| !is_there(broken)).collect();
        let names: Vec<&str> = broken.iter().map(|broken| broken.job.as_str()).collect();
        let last_known = if names.is_empty() { Vec::new() } else { ledger.last_known(&names).await? };
        let failed = ledger.failed_last(&keys).await?;
        Ok(Self {
            known: Known {
                successes: ledger.last_successes(&keys).await?,
                failed: failed.iter().map(FailedLast::key).collect(),
                since: ledger.known_since().await?,
            },
            failed,
            proved: ledger.proved_sets(&keys, now).await?,
            found: fleet::remembered(&ledger).await,
            left_out: fleet::left_out(config, jobs, &ledger).await?,
            gone: fleet::gone(config, jobs, &ledger).await?,
            stands: stands(&broken, &last_known, config, now),
            untold: ledger.untold_messages(&config.notify.names().collect::<Vec<_>>()).await?,
            ledger: Some(ledger),
        })
    }
}

impl Known {
    /// What it says of all databases of jobs with patterns.
    pub async fn of_fleets(ledger: &Ledger, jobs: &[Job]) -> Result<Self> {
        let keys = keys(jobs.iter().filter(|job| job.chosen.is_some()));
        if keys.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self {
            successes: ledger.last_successes(&keys).await?,
            failed: ledger.failed_last(&keys).await?.iter().map(FailedLast::key).collect(),
            since: ledger.known_since().await?,
        })
    }
}

fn keys<'j>(jobs: impl Iterator<Item = &'j Job>) -> Vec<Key> {
    jobs.flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect()
}

/// What it says of jobs with patterns.
#[derive(Default)]
pub struct OfFleets {
    pub known: Known,
    pub proved: Proofs,
}

impl OfFleets {
    pub async fn read(ledger: Option<&Ledger>, jobs: &[Job], now: DateTime<Utc>) -> Result<Self> {
        let of_backups = keys(jobs.iter().filter(|job| backs_up_all(job)));
        let Some(ledger) = ledger.filter(|_| !jobs.is_empty()) else { return Ok(Self::default()) };
        Ok(Self { known: Known::of_fleets(ledger, jobs).await?, proved: ledger.proved_sets(&of_backups, now).await? })
    }
}

/// Returns the databases of a job that are looked at each by itself; of those that patterns found on servers, it is counted how they stand.
pub fn one_by_one<'j>(config: &'j Config, job: &'j Job) -> impl Iterator<Item = &'j String> {
    job.databases.iter().filter(|name| job.chosen.is_none() || config.databases.contains_key(*name))
}
