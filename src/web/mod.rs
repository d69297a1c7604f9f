//! TODO

pub mod http;
pub mod page;
pub mod status;
