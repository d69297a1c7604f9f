//! pgtend tends PostgreSQL databases: it runs declared jobs and proves that they worked.
//!
//! Eight hops from file to effect, in reading order (docs/architecture.md has the map):
//! `cli` → `config` → `run::job` → `run::runner` → `task::list` (plan, decide, apply) → `pg`, `pg::client_tools`,
//! `store` → `ledger::report` → exit code.
//!
//! `scripts/layers` prints the rooms and what each imports: downwards only.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

pub mod archive;
pub mod base;
pub mod cli;
pub mod config;
pub mod ledger;
pub mod live;
pub mod members;
pub mod pg;
pub mod run;
pub mod store;
pub mod task;
pub mod web;
pub mod work;
