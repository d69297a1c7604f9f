//! What a transaction has come to: until it ends, it holds a lock on each relation that it has read.

use anyhow::Result;
use sqlx::PgConnection;

/// Returns the oid of a relation of a user, other than these tables, that this transaction has read, whatever a name led to in between (seen on 14 to 18, for
/// COPY of a table and of a query). Indexes, whose tables a query locks with them, and TOAST do not count.
pub async fn beside(session: &mut PgConnection, tables: &[i64]) -> Result<Option<i64>> {
    // pg_index_has_property knows an index that was created after the snapshot.
    sqlx::query_scalar(
        "SELECT l.relation::pg_catalog.int8 FROM pg_catalog.pg_locks l
         WHERE l.locktype = 'relation' AND l.pid = pg_catalog.pg_backend_pid() AND l.relation >= 16384
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
           AND l.relation::pg_catalog.int8 <> ALL ($1) AND pg_catalog.pg_index_has_property(l.relation, 'clusterable') IS NULL
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_class t WHERE t.reltoastrelid = l.relation)
         LIMIT 1",
    )
    .bind(tables)
    .fetch_optional(session)
    .await
    .map_err(super::in_its_own_words)
}
