//! The pages of `serve`: health checks, metrics, the status page and those behind it.

pub mod choice;
pub mod http;
pub mod page;
pub mod safety;
pub mod status;
pub mod timeline;
mod trouble;
