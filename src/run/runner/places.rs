//! `max_concurrent` of a database limits the runs at once on it, of all jobs and by all runners that share the ledger. Each place
//! is an advisory lock in the ledger's database. The connection that holds the run's own lock holds it as well, so it ends with
//! the run, however that ends.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg;
use crate::work::RunContext;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Returns when the run has a place, or needs none. No timeout counts this wait.
pub async fn take(connection: &mut PgConnection, run: &RunContext<'_>) -> Result<()> {
    let Some(configured) = run.config.database(run.database) else { return Ok(()) };
    let Some(places) = configured.max_concurrent else { return Ok(()) };
    let group = configured.group.as_deref();
    let name = |place: u32| match group {
        Some(group) => format!("pgtend place group {group}/{place}"),
        None => format!("pgtend place {}/{place}", run.database),
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
            let of = group.map_or_else(|| format!("database `{}`", run.database), |group| format!("group `{group}`"));
            tracing::warn!(
                job = run.job.name,
                database = run.database,
                "waits until fewer than {places} run on {of} (max_concurrent){holder}"
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
