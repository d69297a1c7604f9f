//! What a backup would do, and why: reads the state of server and store, then decides purely.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::facts::ServerFacts;
use super::keep::{self, Candidate, Decision, Proof};
use super::set::{self, Listing, Set, SetName};
use super::verify::Verify;
use super::{Backup, facts, free_name, restore, standby};
use crate::client_tools::Tools;
use crate::store::{Store, Unfinished};
use crate::task::RunContext;
use crate::units;

/// A dump that shrank to less than this share of the last one is worth a warning.
const SHRUNK: f64 = 0.5;

/// All that is read before deciding.
pub struct State {
    pub server: ServerFacts,
    pub tools: Tools,
    pub location: String,
    pub listing: Listing,
    pub unfinished: Vec<Unfinished>,
    pub scratch_leftovers: Vec<String>,
    pub free_bytes: Option<u64>,
    /// Asked for when pg_dump is newer than the server.
    pub known_settings: Option<HashSet<String>>,
}

impl State {
    pub async fn read(backup: &Backup, run: &RunContext<'_>) -> Result<Self> {
        let mut connection = run.settings.connect().await.with_context(|| format!("database `{}`", run.database))?;
        let server = facts::server(&mut connection).await.with_context(|| format!("database `{}`", run.database))?;
        standby::check(backup, &mut connection, false).await.with_context(|| format!("database `{}`", run.database))?;
        let major = server.version_num as u32 / 10_000;
        let tools = super::tools_for(run, major).await?;
        let known_settings = if tools.major > major { Some(facts::setting_names(&mut connection).await?) } else { None };

        let store = super::open_store(run, &backup.store).await?;
        let folder = set::folder(run.database, &run.job.name);
        let listing = set::list(&store, &folder).await.with_context(|| format!("store `{}`", backup.store))?;
        let unfinished = store.unfinished(&folder).await?;

        let scratch_leftovers = if backup.verify == Verify::Restore {
            let settings = backup.scratch_settings(run)?;
            let mut scratch = restore::maintenance_connection(&settings).await.context("for the scratch database")?;
            standby::check(backup, &mut scratch, true).await?;
            restore::scratch_leftovers(&mut scratch, &restore::scratch_prefix(run.database, &run.job.name, &server)).await?
        } else {
            Vec::new()
        };
        Ok(Self {
            server,
            tools,
            location: store.location(&folder),
            listing,
            unfinished,
            scratch_leftovers,
            free_bytes: store.free_bytes(),
            known_settings,
        })
    }
}

#[derive(Debug, Serialize)]
pub struct Plan {
    pub set: String,
    pub location: String,
    pub server: ServerFacts,
    pub pg_dump: String,
    pub compression: String,
    pub verify: Verify,
    pub sweep: Sweep,
    /// As if this run's set were there and verified.
    pub keep: Vec<Decision>,
    pub warnings: Vec<String>,
    pub last_good_age_seconds: Option<i64>,
    #[serde(skip)]
    pub name: SetName,
    #[serde(skip)]
    pub tools: Tools,
    #[serde(skip)]
    pub known_settings: Option<HashSet<String>>,
    #[serde(skip)]
    pub scratch_name: String,
    /// Of the newest set; the new one is measured against it.
    #[serde(skip)]
    pub last_dump_bytes: Option<u64>,
    #[serde(skip)]
    pub unfinished: Vec<Unfinished>,
}

/// What earlier runs left.
#[derive(Debug, Default, Serialize)]
pub struct Sweep {
    pub uploads: Vec<String>,
    pub objects: Vec<String>,
    pub scratch_databases: Vec<String>,
}

impl Sweep {
    fn is_empty(&self) -> bool {
        self.uploads.is_empty() && self.objects.is_empty() && self.scratch_databases.is_empty()
    }
}

/// Pure.
pub fn decide(state: State, backup: &Backup, run: &RunContext<'_>) -> Plan {
    let State { server, tools, location, listing, unfinished, scratch_leftovers, free_bytes, known_settings } = state;
    let incomplete = listing.incomplete.iter().map(|(name, _)| name);
    let unreadable = listing.unreadable.iter().map(|(name, _)| name);
    let taken: Vec<SetName> = listing.sets.iter().map(|set| &set.name).chain(incomplete).chain(unreadable).cloned().collect();
    let name = free_name(run.database, &run.job.name, &taken, run.now);

    let last = listing.sets.last();
    let last_good = listing.sets.iter().rev().find(|set| set.verification.proof() == Proof::Verified);
    let keep = match &backup.keep {
        Some(keep) => {
            let mut candidates: Vec<Candidate> = listing.sets.iter().map(Set::candidate).collect();
            let proof = if backup.verify == Verify::None { Proof::Unknown } else { Proof::Verified };
            candidates.push(Candidate { name: name.to_string(), taken_at: name.taken_at, proof });
            keep::decide(&candidates, keep, run.job.timezone)
        }
        None => Vec::new(),
    };
    let prefix = restore::scratch_prefix(run.database, &run.job.name, &server);
    Plan {
        set: name.to_string(),
        location,
        pg_dump: format!("{} in {}", tools.version, tools.folder.display()),
        compression: format!("{:?} level {} on {} threads", backup.compression, backup.level, backup.threads).to_lowercase(),
        verify: backup.verify,
        sweep: Sweep {
            uploads: unfinished.iter().map(|upload| upload.key.clone()).collect(),
            objects: listing.incomplete.iter().flat_map(|(_, keys)| keys.clone()).collect(),
            scratch_databases: scratch_leftovers,
        },
        keep,
        warnings: warnings(&server, &listing, last, free_bytes, backup),
        last_good_age_seconds: last_good.map(|set| (run.now - set.name.taken_at).num_seconds()),
        scratch_name: format!("{prefix}{}", name.taken_at.timestamp()),
        last_dump_bytes: last.map(|set| set.manifest.dump.bytes),
        name,
        server,
        tools,
        known_settings,
        unfinished,
    }
}

fn warnings(
    server: &ServerFacts,
    listing: &Listing,
    last: Option<&Set>,
    free_bytes: Option<u64>,
    backup: &Backup,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, reason) in &listing.unreadable {
        warnings.push(format!("set {name} cannot be restored: {reason}"));
    }
    if let Some(last) = last {
        let before = &last.manifest.server;
        if before.system_identifier.is_some()
            && server.system_identifier.is_some()
            && before.system_identifier != server.system_identifier
        {
            warnings.push(format!("the newest set here came from another server (system identifier {}): do two installations share this store and these names?", before.system_identifier.as_deref().unwrap_or("unknown")));
        }
        if let Some(free) = free_bytes.filter(|free| *free < last.manifest.dump.bytes) {
            warnings.push(format!(
                "the store has {} free, and the last dump had {}",
                units::bytes(free),
                units::bytes(last.manifest.dump.bytes)
            ));
        }
    }
    if backup.keep.is_some()
        && backup.verify == Verify::None
        && !listing.sets.iter().any(|set| set.verification.proof() == Proof::Verified)
    {
        warnings.push("no set is verified, so `keep` deletes none: run `pgtend backups verify`".to_owned());
    }
    if server.in_recovery {
        warnings.push(
            "the server is a standby: it may cancel the dump (max_standby_streaming_delay), and unlogged tables are not there"
                .to_owned(),
        );
    }
    warnings
}

/// Said of a finished dump, before it becomes a set.
pub fn shrank(bytes: u64, last_bytes: Option<u64>) -> Option<String> {
    let last = last_bytes.filter(|last| (bytes as f64) < *last as f64 * SHRUNK)?;
    Some(format!("the dump shrank to {} from {} last time: is anything missing?", units::bytes(bytes), units::bytes(last)))
}

/// Removes what killed runs of this job left. The job's lock is held, so nobody else is at it.
pub async fn sweep(store: &Store, plan: &Plan, backup: &Backup, run: &RunContext<'_>) -> Result<()> {
    for upload in &plan.unfinished {
        tracing::info!("removing an upload that never ended: {}", store.location(&upload.key));
        store.discard(upload).await?;
    }
    for key in &plan.sweep.objects {
        tracing::info!("removing what a run without an end left: {}", store.location(key));
        store.delete(key).await?;
    }
    if !plan.sweep.scratch_databases.is_empty() {
        let mut connection = restore::maintenance_connection(&backup.scratch_settings(run)?).await?;
        for database in &plan.sweep.scratch_databases {
            tracing::info!("dropping the scratch database of a run without an end: {database}");
            restore::drop_scratch(&mut connection, database).await?;
        }
    }
    Ok(())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let database = &self.server.database;
        writeln!(
            f,
            "back up {} ({}, PostgreSQL {}) as {}",
            database.name,
            units::bytes(database.size_bytes.max(0) as u64),
            self.server.version,
            self.set
        )?;
        writeln!(f, "  to       {}", self.location)?;
        writeln!(f, "  with     {}, {}", self.pg_dump, self.compression)?;
        let verify = match self.verify {
            Verify::Checksum => "read back, hashed, decoded and counted".to_owned(),
            Verify::Restore => format!("restored into scratch database {}, every table counted", self.scratch_name),
            Verify::None => "not now (verify = \"none\")".to_owned(),
        };
        writeln!(f, "  verify   {verify}")?;
        match self.last_good_age_seconds {
            Some(age) => writeln!(
                f,
                "  before   the last verified set is {} old",
                units::duration(std::time::Duration::from_secs(age.max(0) as u64))
            )?,
            None => writeln!(f, "  before   there is no verified set yet")?,
        }
        if !self.sweep.is_empty() {
            let Sweep { uploads, objects, scratch_databases } = &self.sweep;
            writeln!(
                f,
                "  sweep    {} unfinished uploads, {} objects without a manifest, {} scratch databases",
                uploads.len(),
                objects.len(),
                scratch_databases.len()
            )?;
        }
        for decision in &self.keep {
            let verb = if decision.keep { "keep" } else { "delete" };
            writeln!(f, "  {verb:<8} {} ({})", decision.name, decision.reasons.join(", "))?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning  {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_that_lost_more_than_half_is_worth_a_warning() {
        assert!(shrank(49, Some(100)).is_some());
        assert!(shrank(51, Some(100)).is_none());
        assert!(shrank(1, None).is_none());
    }
}
