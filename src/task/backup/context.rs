//! Functions that several steps of a backup need.

use anyhow::{Context as _, Result};
use chrono::Utc;

use super::set_name::SetName;
use crate::pg::client_tools::Tools;
use crate::work::RunContext;

/// A name that no set has yet: two runs may start within one second.
pub(super) fn free_name(database: &str, job: &str, taken: &[SetName], now: chrono::DateTime<Utc>) -> SetName {
    let mut name = SetName::new(database, job, now);
    // It is not older than a set that had to take a later second: the newest set must be the one that was made last.
    while taken.iter().any(|other| (0..=60).contains(&(other.taken_at - name.taken_at).num_seconds())) {
        name.taken_at += chrono::Duration::seconds(1);
    }
    name
}

/// The client tools for a server of that major version.
pub async fn tools_for(run: &RunContext<'_>, major: u32) -> Result<Tools> {
    crate::pg::client_tools::find(run.config.tools.bin_dir.as_deref(), major)
        .await
        .with_context(|| format!("database `{}`", run.database))
}
