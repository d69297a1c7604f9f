//! `max_concurrent` of a database limits the runs at once on it, of all jobs and by all runners that share the ledger. Each place
//! is an advisory lock in the ledger's database. The connection that holds the run's own lock holds it as well, so it ends with
//! the run, however that ends.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use crate::config::places::{Limit, Shared};
use crate::pg;
use crate::work::RunContext;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns when the run has a place, or needs none. No timeout counts this wait.
pub async fn take(connection: &mut PgConnection, run: &RunContext<'_>) -> Result<()> {
    let Some(Limit { most: places, with }) = run.config.limit(run.database) else { return Ok(()) };
    let name = |place: u32| match &with {
        Shared::Group(group) => format!("pgtend place group {group}/{place}"),
        Shared::Database(database) => format!("pgtend place {database}/{place}"),
    };
    let mut is_told = false;
    loop {
        for place in 1..=places {
            if pg::try_lock(connection, &name(place)).await? {
                return Ok(());
            }
        }
        if !is_told {
            is_told = true;
            let holder =
                pg::lock_holder(connection, &name(1)).await?.map(|holder| format!(", as {holder} does")).unwrap_or_default();
            let of = match &with {
                Shared::Group(group) => format!("group `{group}`"),
                Shared::Database(database) => format!("database `{database}`"),
            };
            tracing::warn!(
                job = run.job.name,
                database = run.database,
                "waits until fewer than {places} run on {of} (max_concurrent){holder}"
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
