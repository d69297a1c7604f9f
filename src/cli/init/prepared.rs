//! What `init` has looked at before it proposes jobs.

use super::propose::Target;
use super::shown::Shown;
use super::text::{Choices, DatabaseEntry, ServerEntry};
use crate::config::Config;
use crate::run::fleet::Found;
use crate::run::job::Job;

/// What was looked at, whether its configuration is there or not.
pub struct Prepared {
    pub config: Config,
    /// The new configuration; None where one is there.
    pub new_config: Option<String>,
    pub targets: Vec<Target>,
    /// What a new entry of a server stands for now.
    pub found: Found,
    pub known: Vec<Job>,
    pub choices: Choices,
    pub shown: Shown,
}

/// The entries of a new configuration.
#[derive(Default)]
pub struct Entries {
    /// One for all databases of the server.
    pub server: Option<ServerEntry>,
    pub databases: Vec<DatabaseEntry>,
    pub targets: Vec<Target>,
    /// The entries of `databases` that are there, each with the name of its database on the server.
    pub leads_to: Vec<(String, String)>,
    /// The entry that keeps the run history.
    pub ledger: Option<String>,
    pub found: Found,
}
