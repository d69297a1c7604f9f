//! Finds out whether the rows of a pending batch have left their table.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::manifest::Manifest;
use super::session::{Fate, fate, system_identifier};

/// The result of cleaning up after a kill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Batches whose transaction had committed: the rows are archived.
    pub completed: u64,
    /// Batches whose transaction had not committed: the rows are in the table.
    pub discarded: u64,
    /// Files that are not batches of ours, and stay as they are.
    pub left: Vec<String>,
}

/// Advice for a person when a batch is in doubt.
const ADVICE: &str = "check whether the rows are in the table; if not, rename its .pending.json to .json, otherwise delete it and the object of that name beside it";

/// Says what became of a batch's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Left,
    Stayed,
    /// The server does not know. But nothing had been written, so that the transaction cannot have committed, unless the manifest is an
    /// old one that was copied back.
    NothingWritten,
    /// They are in the table if this server was set back. They left if it is a copy of the server where they were: the object is then all that there is.
    LeftElsewhere,
}

/// Returns the end of the transaction of a pending batch. It is an error when it has none yet, or is one of another server.
pub(super) async fn fate_of(connection: &mut PgConnection, manifest: &Manifest) -> Result<Fate> {
    let transaction = manifest.transaction.context("its manifest names no transaction")?;
    let here = system_identifier(connection).await?;
    anyhow::ensure!(
        manifest.system_identifier.as_ref() == Some(&here),
        "left by a run on another server ({:?}, this is {here}): {ADVICE}",
        manifest.system_identifier
    );
    let fate = fate(connection, transaction, manifest.server_started_at.as_deref()).await?;
    if fate == Fate::InProgress {
        anyhow::bail!("the transaction {transaction} of another run is still in progress: try again later");
    }
    Ok(fate)
}

/// Returns what the end of its transaction means for the rows of a batch, by its pending manifest as it was read after that end. It is an error
/// in case of doubt.
pub(super) fn rows_after(fate: Fate, manifest: &Manifest) -> Result<Rows> {
    let transaction = manifest.transaction.unwrap_or_default();
    match fate {
        Fate::Committed => Ok(Rows::Left),
        Fate::Aborted | Fate::InProgress => Ok(Rows::Stayed),
        Fate::MaybeCommitted | Fate::Forgotten | Fate::Undone if manifest.exported.bytes == 0 => Ok(Rows::NothingWritten),
        Fate::Undone => Ok(Rows::LeftElsewhere),
        Fate::MaybeCommitted => anyhow::bail!(
            "transaction {transaction} of a killed run committed, but the server was restarted since, and may have given \
             the number to another after a crash: {ADVICE}"
        ),
        Fate::Forgotten => {
            anyhow::bail!("the server no longer knows whether transaction {transaction} of a killed run committed: {ADVICE}")
        }
    }
}
