//! A standby can be dumped, but cannot hold a scratch database.

use anyhow::Result;
use sqlx::PgConnection;

use super::place::Place;
use crate::base::fault::{Fault, Kind};

/// Refuses, before anything is dumped, to verify by a restore beside a source that is a standby.
pub async fn check(place: &Place, source: &mut PgConnection) -> Result<()> {
    let Place::Source { why } = place else { return Ok(()) };
    let in_recovery: bool = sqlx::query_scalar("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(source).await?;
    let why = why.as_ref().map(|why| format!(". A server of its own cannot be created here: {why}")).unwrap_or_default();
    let message = format!(
        "verify = \"restore\" needs `scratch` here: the server is a standby, where no scratch database can be created. Name a database of \
         the configuration on another server with scratch = \"NAME\", or use verify = \"checksum\"{why}"
    );
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
