//! Threads beside tokio's.

use anyhow::{Context as _, Result};

/// Starts a thread of our own instead of using tokio's blocking pool: the program's end waits for that pool, and a read from a
/// pipe may take as long as the server likes.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("cannot start the thread {name}"))?;
    Ok(())
}
