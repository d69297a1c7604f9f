//! Threads beside tokio's, and the end of tokio's own.

use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use super::subtask;

/// The handles of threads that may still run. One that is dropped detaches its thread, and glibc's `pthread_detach` (seen with 2.36) reads
/// the memory of a thread that ends just then: the process dies of SIGSEGV.
static STARTED: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// The threads of a runtime that wait for the system, for a host's name say, end with the process.
const PATIENCE: Duration = Duration::from_millis(500);

/// Starts a thread of our own instead of using tokio's blocking pool: the program's end waits for that pool, and a read from a
/// pipe may take as long as the server likes. It logs as the task that starts it.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let work = subtask::on_thread(work);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    let thread = thread.with_context(|| format!("cannot start the thread {name}"))?;
    let mut started = STARTED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for ended in started.extract_if(.., |thread| thread.is_finished()) {
        // What it panicked with, if it did, is said.
        let _ = ended.join();
    }
    started.push(thread);
    Ok(())
}

/// Ends a runtime. `shutdown_background` detaches its threads while they end, of which a command died in 1 of some 50,000 after it had done all of its work.
pub fn end(runtime: Runtime) {
    runtime.shutdown_timeout(PATIENCE);
}
