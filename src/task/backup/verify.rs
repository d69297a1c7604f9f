//! Proves that a set is what its manifest says: by reading it back, or by restoring it.

use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::choices::Choices;
use super::read_back;
use super::restore::{self, Target};
use super::set::{self, Check, Set};
use super::{new_database, scratch as scratch_database};
use crate::client_tools::Tools;
use crate::pg;
use crate::progress::{Phase, Progress};
use crate::store::Store;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Every byte is read back, hashed, decoded and counted.
    #[default]
    Checksum,
    /// That, and a restore into a scratch database with every table counted.
    Restore,
    /// Nothing: `backups verify` is run elsewhere. Sets that nobody verified are never counted by `keep`.
    None,
}

/// Reads the set back and records what was found beside it.
pub async fn by_checksum(store: &Store, set: &mut Set, progress: &Progress) -> Result<()> {
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    let started = Instant::now();
    let mut problems = read_back::read_dump(store, set, &phase, |_| Ok(())).await?.problems;
    problems.extend(read_back::check_globals(store, set).await?);
    record(store, set, "checksum", problems, started, &phase).await
}

/// Where a set is restored for a while.
pub struct Scratch<'a> {
    /// The server; its database is not used.
    pub settings: &'a pg::Settings,
    pub tools: &'a Tools,
    pub name: String,
    pub cancel: &'a CancellationToken,
}

/// Restores the set into a scratch database, which is gone afterwards whatever happens, and records what was found. A
/// scratch database that could not be dropped is returned as a warning, and says nothing of the set.
pub async fn by_restore(store: &Store, set: &mut Set, scratch: &Scratch<'_>, progress: &Progress) -> Result<Option<String>> {
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    let started = Instant::now();
    let mut problems = read_back::check_globals(store, set).await?;
    let mut connection = scratch_database::maintenance_connection(scratch.settings).await.context("for the scratch database")?;
    let choices = Choices::for_scratch();
    new_database::prepare_server(&mut connection, set, &choices, false, Some(&set.manifest.server.database))
        .await
        .context("cannot verify by restoring")?;
    drop(connection);
    let settings = scratch.settings.with_database(&scratch.name);
    let target = Target { settings: &settings, choices: &choices, in_transaction: false };
    let restoring = restore::stream_into(store, set, &target, &phase);
    let like = &set.manifest.server.database;
    let (restored, left) = scratch_database::with_scratch(scratch.settings, &scratch.name, like, scratch.cancel, restoring).await;
    if let Some(left) = &left {
        tracing::warn!("{left}");
    }
    let restored = restored.context("cannot verify by restoring")?;
    problems.extend(restored.problems);
    if let Some(refusal) = restored.refusal
        && problems.is_empty()
    {
        return Err(anyhow::Error::from(refusal).context("cannot verify by restoring"));
    }
    record(store, set, "restore", problems, started, &phase).await?;
    Ok(left)
}

async fn record(store: &Store, set: &mut Set, kind: &str, problems: Vec<String>, started: Instant, phase: &Phase) -> Result<()> {
    let check = Check { checked_at: Utc::now(), problems: problems.clone(), elapsed_seconds: started.elapsed().as_secs_f64() };
    set::record_check(store, set, kind, check).await?;
    anyhow::ensure!(problems.is_empty(), "set {} is damaged: {}", set.name, problems.join("; "));
    let tables = crate::units::count(set.manifest.tables.len() as u64);
    let rows = crate::units::count(set.manifest.rows());
    phase.done(&format!("{} ({kind}): {tables} tables, {rows} rows", set.name));
    Ok(())
}
