//! From files to runs: jobs, the runner with its locks, the scheduler, notifications, and where one stands.

pub mod covered;
pub mod fleet;
mod health;
pub mod job;
pub mod notify;
pub mod runner;
pub mod scheduler;
pub mod standing;
pub mod turns;
