//! The pages of `serve`: health checks, metrics, the status page.

pub mod http;
pub mod page;
pub mod status;
