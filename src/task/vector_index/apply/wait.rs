//! Waits for prepared transactions before a build: it would wait for them at its end, and what it had built could not be dropped before they end.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Worker;
use crate::live::indexes;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Worker<'_> {
    /// Waits until no prepared transaction has a lock on the table, for `max_wait` at most. Returns the one that is still there.
    pub(super) async fn wait_for_prepared(&self) -> Result<Option<String>> {
        let mut connection = self.run.or_cancelled(indexes::connect(self.run)).await?;
        let began = Instant::now();
        loop {
            let found: Option<String> = sqlx::query_scalar(
                "SELECT format('prepared transaction %L (%s, since %s): COMMIT PREPARED or ROLLBACK PREPARED ends it', p.gid, p.owner,
                               to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || 'Z')
                 FROM pg_locks h JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = h.virtualtransaction
                 JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
                 WHERE h.pid IS NULL AND h.granted AND h.locktype = 'relation' AND h.relation::bigint = $1
                   AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 ORDER BY p.prepared LIMIT 1",
            )
            .bind(self.part.table.facts.oid)
            .fetch_optional(&mut connection)
            .await?;
            if found.is_none() || began.elapsed() >= self.limits.max_wait.0 {
                return Ok(found);
            }
            self.run
                .or_cancelled(async {
                    tokio::time::sleep(LOOK_EVERY).await;
                    Ok(())
                })
                .await?;
        }
    }
}
