//! The tasks. Each is a folder, and one line in `list.rs`.

pub mod audit;
pub mod backup;
mod bound;
pub mod compress;
mod consent;
pub mod foreign_code;
mod list;
pub mod partition;
pub mod refresh;
pub mod reindex;
mod remade;
pub mod retention;
pub mod sql;
pub mod vector_index;

pub(crate) use list::each_task;
pub use list::{Drive, Manual, Task, Written};
