//! Sets how many files, pipes and connections this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as this user may: systems start processes with 256 or 1024, and each backup needs several for its
/// tools, its store and its sessions. Tools inherit it.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
}
