//! The base, which knows nothing of PostgreSQL or of jobs: units, schedules, files, children, progress, errors.

pub mod accounts;
pub mod age_keys;
pub mod bounds;
pub mod ca_file;
pub mod child;
pub mod descriptors;
pub mod fault;
pub mod html_page;
pub mod network;
pub mod pattern;
pub mod process_identity;
pub mod progress;
pub mod schedule;
pub mod shell;
pub mod state_folder;
pub mod story;
pub mod subtask;
pub mod telemetry;
pub mod terminal;
pub mod thread;
pub mod toml_file;
pub mod tool_output;
pub mod units;
