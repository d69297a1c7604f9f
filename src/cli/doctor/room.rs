//! Room on disks: in folders that are stores, and where backups are proved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::asked::Asked;
use super::finding::{Finding, State};
use crate::base::units;
use crate::config::{Config, Store};
use crate::run::job::Job;
use crate::task::backup::{Backup, Verify};

/// A dump is compressed, mostly to less than this share of its database.
const SHARE_OF_DATABASE: f64 = 0.5;

/// What the next backups would write to each folder, beside what is free there.
pub fn of_stores(config: &Config, jobs: &[Job], databases: &BTreeMap<String, Asked>) -> Vec<Finding> {
    let (mut in_stores, mut largest_proof) = (BTreeMap::<&str, u64>::new(), 0);
    for job in jobs {
        let Some(backup) = job.task.as_a::<Backup>() else { continue };
        // All schemas of a database together are as large as it at most.
        let names: BTreeSet<&str> = job.databases.iter().map(|place| config.database_of(place)).collect();
        let of_job: Vec<u64> = names.into_iter().filter_map(|name| Some(databases.get(name)?.size_bytes)).collect();
        for kept in backup.stores() {
            *in_stores.entry(kept.store.as_str()).or_default() += of_job.iter().sum::<u64>();
        }
        if backup.verify == Verify::Restore {
            largest_proof = of_job.into_iter().max().unwrap_or_default().max(largest_proof);
        }
    }
    let mut findings = Vec::new();
    for (name, bytes) in in_stores {
        if let Some(Store::Dir { path, .. }) = config.stores.get(name) {
            findings.extend(judge(
                &format!("room in store {name}"),
                path,
                (bytes as f64 * SHARE_OF_DATABASE) as u64,
                "one more backup of each database",
            ));
        }
    }
    if largest_proof > 0 {
        let parent = config.verify.throwaway_parent();
        findings.extend(judge(
            "room for proofs",
            &parent,
            largest_proof,
            "the restore of the largest database, if it is made in a server of its own",
        ));
    }
    findings
}

/// Compares what is free at a path with what is needed there; nothing where that cannot be read.
fn judge(what: &str, path: &Path, needed_bytes: u64, needed_for: &str) -> Option<Finding> {
    let there = path.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    let (free, needed) = (units::bytes(free_bytes), units::bytes(needed_bytes));
    Some(match free_bytes < needed_bytes {
        true => {
            let said = format!(
                "{free} are free in {}, and {needed_for} may need {needed}: make room, or name a folder on another disk",
                path.display()
            );
            Finding::new(State::Warning, what, said)
        }
        false => {
            Finding::new(State::Fine, what, format!("{free} are free in {}; {needed_for} needs {needed} at most", path.display()))
        }
    })
}
