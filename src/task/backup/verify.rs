//! Verifies a set: by reading its bytes back, or by restoring it, which reads them as well. The two verdicts are recorded separately: a
//! server that refuses a set says nothing about its bytes.

use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::choices::Choices;
use super::facts::DatabaseFacts;
use super::load::Target;
use super::restore::{self, Refusal};
use super::set::{self, Set};
use super::verdict::{Bytes, BytesCheck, RestoreCheck};
use super::{new_database, proof, read_back, scratch as scratch_database};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::{Phase, Progress};
use crate::base::units;
use crate::pg::{self, Server, failure};
use crate::store::Store;

/// Reads the set back and records the verdict beside it.
pub async fn by_checksum(store: &Store, set: &mut Set, progress: &Progress) -> Result<()> {
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    let check = read_back::check(store, set, &phase).await?;
    proof::remember(store, &set.name, &check);
    set::record(store, set, |verification| verification.record_bytes(check.clone())).await?;
    ensure_intact(set, &check)?;
    done(set, "read back", &phase);
    Ok(())
}

/// The place where a set is restored temporarily.
pub struct Scratch<'a> {
    /// The server; its database is not used.
    pub settings: &'a pg::Settings,
    pub name: String,
    pub cancel: &'a CancellationToken,
}

/// The result of a restore into a scratch database. The bytes are intact, or it is an error.
#[derive(Debug, Default)]
pub struct Verified {
    /// The reason why the server refused it.
    pub refusal: Option<Refusal>,
    pub warnings: Vec<String>,
}

/// Restores the set into a scratch database, which is dropped afterwards, and records both verdicts.
pub async fn by_restore(store: &Store, set: &mut Set, scratch: &Scratch<'_>, progress: &Progress) -> Result<Verified> {
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    let started = Instant::now();
    let mut verified = Verified::default();
    let mut version = String::new();
    let bytes_are_as_written = match try_restore(store, set, scratch, &phase, &mut version, &mut verified).await? {
        // The restore included its first read.
        Tried::ReadAll { problems } => problems.is_empty() && read_back::globals_differences(store, set).await?.is_empty(),
        Tried::NotBegun(refusal) => {
            verified.refusal = Some(refusal);
            false
        }
    };
    let check = match bytes_are_as_written {
        true => BytesCheck {
            verdict: Bytes::Intact,
            checked_at: Utc::now(),
            problems: Vec::new(),
            elapsed_seconds: started.elapsed().as_secs_f64(),
        },
        // The second, independent read, and a third where this one differs as well.
        false => {
            let reading = read_back::check(store, set, &phase);
            let cancelled = || Fault::new(Kind::Cancelled, "cancelled");
            scratch.cancel.run_until_cancelled(reading).await.ok_or_else(cancelled)??
        }
    };
    proof::remember(store, &set.name, &check);
    let restore = RestoreCheck {
        server: scratch.settings.server(),
        version,
        checked_at: Utc::now(),
        refusal: verified.refusal.as_ref().map(|refusal| refusal.message.clone()),
        sql_state: verified.refusal.as_ref().and_then(|refusal| refusal.sql_state.clone()),
        elapsed_seconds: started.elapsed().as_secs_f64(),
    };
    let recorded = set::record(store, set, |verification| {
        verification.record_bytes(check.clone());
        if check.verdict == Bytes::Intact {
            verification.record_restore(restore.clone());
        }
    });
    recorded.await?;
    ensure_intact(set, &check)?;
    if verified.refusal.is_none() {
        done(set, "restored", &phase);
    }
    Ok(verified)
}

enum Tried {
    /// All bytes were read; the differences from the manifest.
    ReadAll { problems: Vec<String> },
    /// The server does not meet the requirements.
    NotBegun(Refusal),
}

async fn try_restore(
    store: &Store,
    set: &Set,
    scratch: &Scratch<'_>,
    phase: &Phase,
    version: &mut String,
    verified: &mut Verified,
) -> Result<Tried> {
    let choices = Choices::for_scratch();
    let prepared = async {
        let mut connection =
            scratch_database::maintenance_connection(scratch.settings).await.context("for the scratch database")?;
        *version = Server::of(&mut connection).await?.version;
        let in_recovery: bool = sqlx::query_scalar("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(&mut connection).await?;
        anyhow::ensure!(
            !in_recovery,
            Fault::new(
                Kind::Configuration,
                format!(
                    "the server for scratch databases, {}, is a standby: set `scratch` to a database on a primary",
                    scratch.settings.server()
                )
            )
        );
        new_database::prepare_server(&mut connection, set, &choices, false, Some(&set.manifest.server.database)).await
    };
    if let Err(error) = prepared.await {
        return Ok(Tried::NotBegun(refusal_of(&error)));
    }
    let settings = scratch.settings.with_database(&scratch.name);
    let target = Target { settings: &settings, choices: &choices, in_transaction: false };
    let mut began = false;
    let restoring = async {
        began = true;
        restore::stream_into(store, set, &target, phase, scratch.cancel).await
    };
    // The location of its files does not matter.
    let like = DatabaseFacts { tablespace: None, ..set.manifest.server.database.clone() };
    let (restored, left) =
        scratch_database::with_scratch(scratch.settings, &scratch.name, &like, scratch.cancel, restoring).await;
    // A scratch database that cannot be dropped does not make this backup fail, nor prevent the next one.
    if let Some(left) = left {
        tracing::warn!("{left}");
        verified.warnings.push(left);
    }
    let restored = match restored {
        Ok(restored) => restored,
        Err(error) if !began && failure::kind_of(&error) != Some(Kind::Cancelled) => {
            return Ok(Tried::NotBegun(refusal_of(&error)));
        }
        Err(error) => return Err(error),
    };
    verified.warnings.extend(restored.notes);
    verified.refusal = restored.refusal;
    Ok(Tried::ReadAll { problems: restored.problems })
}

fn refusal_of(error: &anyhow::Error) -> Refusal {
    Refusal { kind: failure::kind_of(error), sql_state: pg::sql_state(error), message: failure::in_a_line(error) }
}

/// Fails when the bytes differ from what was written, or when that could not be determined.
fn ensure_intact(set: &Set, check: &BytesCheck) -> Result<()> {
    match check.verdict {
        Bytes::Intact => Ok(()),
        Bytes::Damaged => anyhow::bail!("set {} is damaged, confirmed by two reads: {}", set.name, check.problems.join("; ")),
        Bytes::Unknown => anyhow::bail!("set {} could not be verified: {}", set.name, check.problems.join("; ")),
    }
}

fn done(set: &Set, how: &str, phase: &Phase) {
    let tables = units::plural(set.manifest.tables.len(), "table");
    let rows = units::plural(set.manifest.rows(), "row");
    phase.done(&format!("{} {how}: {tables}, {rows}", set.name));
}
