//! pgtend tends PostgreSQL databases: it runs declared jobs and proves that they worked.
//!
//! Eight hops from file to effect, in reading order (docs/architecture.md has the map):
//! `cli` → `config` → `job` → `runner` → `task::drive` (plan, decide, apply) → `pg`, `client_tools`,
//! `store` → `report` → exit code.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod job;
pub mod schedule;
pub mod toml_file;
pub mod units;

pub mod bounds;
pub mod ca_file;
pub mod captured;
pub mod cleartext;
pub mod descriptors;
pub mod fault;
pub mod ledger;
pub mod metrics;
pub mod network;
pub mod notify;
pub mod process_identity;
pub mod progress;
pub mod report;
pub mod runner;
pub mod scheduler;
pub mod task;
pub mod terminal;

pub mod archive;
pub mod child;
pub mod client_tools;
pub mod concurrently;
pub mod governor;
pub mod pg;
pub mod store;

pub mod http;
pub mod page;
pub mod render;
pub mod status;
pub mod telemetry;
