//! TODO

pub mod job;
pub mod notify;
pub mod runner;
pub mod scheduler;
