//! Reads what a digest says: where one stands, by the stores, and the week's history, by the ledger.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::say::{Facts, Week};
use crate::cli::standing;
use crate::config::Config;
use crate::ledger::report::{self, Report};
use crate::ledger::{Key, Ledger};
use crate::run::job::{Folder, Job};

pub async fn facts(config: &Config, folder: &Folder, ledger: Option<&Ledger>, now: DateTime<Utc>) -> Result<Facts> {
    let mut facts = Facts { standing: standing::of(config, folder, now).await, ..Facts::default() };
    let Some(ledger) = ledger else { return Ok(facts) };
    let mut keys = keys(folder.jobs.iter().filter(|job| job.task.makes_dumps()));
    // Of those that were found on servers, it is counted how they stand.
    keys.retain(|(_, database)| facts.standing.databases.iter().any(|shown| shown.name == *database));
    let (soon, week_ago) = (now + TimeDelta::days(1), now - TimeDelta::days(7));
    let restored = ("restore_seconds", None);
    let newest = Newest {
        proved: ledger.last_with_fact(&keys, report::PROVED, soon).await?,
        proved_before: ledger.last_with_fact(&keys, report::PROVED, week_ago).await?,
        restored: ledger.last_with_fact(&keys, restored, soon).await?,
        restored_before: ledger.last_with_fact(&keys, restored, week_ago).await?,
    };
    facts.weeks = keys.iter().fold(HashMap::new(), |mut weeks, key| {
        let week = newest.week(key);
        let known: &mut Week = weeks.entry(key.1.clone()).or_default();
        // Of several jobs of a database, the one that made the newest set.
        if week.proved_at > known.proved_at {
            *known = week;
        }
        weeks
    });
    facts.ended = Some(ledger.ended_since(week_ago).await?);
    let audits = self::keys(folder.jobs.iter().filter(|job| job.task.kind() == "audit"));
    let counted = ledger.last_with_fact(&audits, ("counts", None), soon).await?;
    facts.findings = audits.iter().filter_map(|key| findings(&key.1, &counted.get(key)?.1)).collect();
    Ok(facts)
}

fn keys<'j>(jobs: impl Iterator<Item = &'j Job>) -> Vec<Key> {
    jobs.flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect()
}

type Reports = HashMap<Key, (DateTime<Utc>, Report)>;

struct Newest {
    proved: Reports,
    proved_before: Reports,
    restored: Reports,
    restored_before: Reports,
}

impl Newest {
    fn week(&self, key: &Key) -> Week {
        let bytes = |reports: &Reports| reports.get(key)?.1.facts.get("dump_bytes")?.as_u64();
        let seconds = |reports: &Reports| reports.get(key)?.1.restore_seconds();
        Week {
            proved_at: self.proved.get(key).map(|(at, _)| *at),
            dump_bytes: bytes(&self.proved),
            dump_bytes_before: bytes(&self.proved_before),
            restore_seconds: seconds(&self.restored),
            restore_seconds_before: seconds(&self.restored_before),
        }
    }
}

fn findings(database: &str, report: &Report) -> Option<(String, u64, u64)> {
    let count = |level: &str| report.facts.get("counts")?.get(level).and_then(Value::as_u64);
    let (critical, high) = (count("critical")?, count("high")?);
    (critical + high > 0).then(|| (database.to_owned(), critical, high))
}
