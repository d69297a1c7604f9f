//! What is stopped, crashed or fed at random moments, with clients at work: a quarter as often in `make test` as in `make campaigns`. These tests
//! take long and wait much, and their clients notice when the machine is busy: `make test` runs three at a time, beside nothing else.

/// kill -9 at random moments of backups, checks and restores, in both kinds of store.
mod backup_kills;
/// Compressed bodies, killed and among writers.
mod compress_faults;
/// inflate.sql beside zlib, for as long as one likes.
mod inflate_campaign;
/// kill -9 at random moments of retention and partitions, and servers that crash.
pub mod kills;
/// Vector index builds stopped at random moments, with clients at work, and in the waits that are left.
mod vector_index_kills;
