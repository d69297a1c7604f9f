//! Finds out whether the rows of a pending batch have left their table.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::manifest::Manifest;
use super::session::{Fate, fate, system_identifier};

/// Advice for a person when a batch is in doubt.
const ADVICE: &str = "check whether the rows are in the table; if not, rename its .pending.json to .json, else delete it";

/// Returns whether the rows of a pending batch have left their table, or may have while nothing was written. It refuses in case of doubt.
pub(super) async fn committed(connection: &mut PgConnection, manifest: &Manifest) -> Result<bool> {
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
    match fate {
        Fate::Committed => Ok(true),
        Fate::Aborted | Fate::InProgress => Ok(false),
        // Its own manifest says that nothing had been written yet, so it cannot have committed: an old manifest that was copied back would
        // say the same.
        Fate::MaybeCommitted | Fate::Forgotten if manifest.exported.bytes == 0 => Ok(true),
        Fate::MaybeCommitted => anyhow::bail!(
            "transaction {transaction} of a killed run committed, but the server was restarted since, and may have given \
             the number to another after a crash: {ADVICE}"
        ),
        Fate::Forgotten => {
            anyhow::bail!("the server no longer knows whether transaction {transaction} of a killed run committed: {ADVICE}")
        }
    }
}
