//! Tests that measure time, or keep both processors busy: among others they would fail for want of a processor, or make others
//! fail. `make test` runs them after all others, one at a time.

/// How long an audit takes.
mod audit_speed;
/// Several schedulers on one ledger, and very many jobs at once.
mod fleet;
/// Backups of 10,000 databases in one store.
mod fleet_backups;
/// Values of 200 MB, for which a server needs gigabytes of memory.
mod large_values;
/// How many requests are in flight at once.
mod listing;
/// Pages of 200 jobs on 50 databases.
mod pages_speed;
/// Rows that leave a table while others write to them.
mod retention_writers;
/// Recall of large vector indexes, and the comparison of methods.
pub mod vector_index_tuning;
/// pgbench on tables that jobs work on.
mod writers;
