//! What `serve` shows: health, metrics, the status page.

pub mod http;
pub mod page;
pub mod status;
