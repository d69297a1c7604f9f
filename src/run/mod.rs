//! From files to runs: jobs, the runner with its locks, the scheduler, and notifications.

pub mod fleet;
pub mod job;
pub mod notify;
pub mod runner;
pub mod scheduler;
pub mod turns;
