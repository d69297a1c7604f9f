//! A standby gives its rows to a dump, and takes no scratch database.

use anyhow::Result;
use sqlx::PgConnection;

use super::{Backup, Verify};
use crate::fault::{Fault, Kind};

/// Refuses, before anything is dumped, to verify by a restore on a standby. `connection` is to the source, or to the
/// server that `scratch` names.
pub async fn check(backup: &Backup, connection: &mut PgConnection, is_scratch: bool) -> Result<()> {
    if backup.verify != Verify::Restore || backup.scratch.is_some() != is_scratch {
        return Ok(());
    }
    let in_recovery: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await?;
    match in_recovery {
        false => Ok(()),
        true => Err(Fault::new(Kind::Configuration, needed(backup.scratch.as_deref())).into()),
    }
}

/// Pure.
fn needed(scratch: Option<&str>) -> String {
    match scratch {
        None => {
            "verify = \"restore\" needs `scratch` here: the server is a standby, where no scratch database can be made. Name \
                 a database of the configuration on another server with scratch = \"NAME\", or use verify = \"checksum\""
                .to_owned()
        }
        Some(name) => {
            format!("scratch = \"{name}\": its server is a standby, where no scratch database can be made; name one on a primary")
        }
    }
}
