//! Threads beside tokio's.

use anyhow::{Context as _, Result};

/// A thread of our own in place of tokio's blocking pool: that one is waited for when the program ends, and a
/// read from a pipe may take as long as the server likes.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("cannot start the thread {name}"))?;
    Ok(())
}
