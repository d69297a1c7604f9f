//! Threads beside tokio's.

use anyhow::{Context as _, Result};

use super::subtask;

/// Starts a thread of our own instead of using tokio's blocking pool: the program's end waits for that pool, and a read from a
/// pipe may take as long as the server likes. It logs as the task that starts it.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let work = subtask::on_thread(work);
    std::thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("cannot start the thread {name}"))?;
    Ok(())
}
