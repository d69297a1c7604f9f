//! Tests that measure time, or keep both processors busy: among others they would fail for want of a processor, or make others
//! fail. `make test` runs them after all others, one at a time.

/// How long an audit takes.
mod audit_speed;
/// kill -9 at random moments of backups, checks and restores, in both kinds of store.
mod backup_kills;
/// Compressed bodies, killed and among writers.
mod compress_faults;
/// Several schedulers on one ledger, and very many jobs at once.
mod fleet;
/// inflate.sql beside zlib, for as long as one likes.
mod inflate_campaign;
/// kill -9 at random moments of retention and partitions, and servers that crash.
mod kills;
/// Values of 200 MB, for which a server needs gigabytes of memory.
mod large_values;
/// How many requests are in flight at once.
mod listing;
/// Rows that leave a table while others write to them.
mod retention_writers;
/// Vector index builds stopped at random moments, with clients at work, and in the waits that are left.
mod vector_index_kills;
/// Recall of large vector indexes, and the comparison of methods.
mod vector_index_tuning;
/// pgbench on tables that jobs work on.
mod writers;
