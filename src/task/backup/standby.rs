//! A standby can be dumped, but cannot hold a scratch database.

use anyhow::Result;
use sqlx::PgConnection;

use super::keys::{Backup, Verify};
use crate::base::fault::{Fault, Kind};

/// Refuses, before anything is dumped, to verify by a restore beside a source that is a standby.
pub async fn check(backup: &Backup, source: &mut PgConnection) -> Result<()> {
    if backup.verify != Verify::Restore || backup.scratch.is_some() {
        return Ok(());
    }
    let in_recovery: bool = sqlx::query_scalar("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(source).await?;
    let message = "verify = \"restore\" needs `scratch` here: the server is a standby, where no scratch database can be created. Name a \
                   database of the configuration on another server with scratch = \"NAME\", or use verify = \"checksum\"";
    anyhow::ensure!(!in_recovery, Fault::new(Kind::Configuration, message));
    Ok(())
}

/// The number of statements in this database that this standby has cancelled because they held back recovery; 0 on a primary.
pub async fn recovery_conflicts(connection: &mut PgConnection) -> Result<i64> {
    let count: Option<i64> = sqlx::query_scalar(
        "SELECT confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin + confl_deadlock
         FROM pg_catalog.pg_stat_database_conflicts WHERE datname = pg_catalog.current_database()",
    )
    .fetch_optional(connection)
    .await?;
    Ok(count.unwrap_or_default())
}
