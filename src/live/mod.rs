//! Tools for tables that others use: the governor, sessions with lock_timeout, CONCURRENTLY.

pub mod concurrently;
pub mod governor;
pub mod indexes;
pub mod session;
