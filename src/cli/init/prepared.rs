//! What `init` has looked at before it proposes jobs.

use super::propose::Target;
use super::shown::Shown;
use super::text::Choices;
use crate::config::Config;
use crate::run::job::Job;

/// What was looked at, whether its configuration is there or not.
pub struct Prepared {
    pub config: Config,
    /// The new configuration; None where one is there.
    pub new_config: Option<String>,
    pub targets: Vec<Target>,
    pub known: Vec<Job>,
    pub choices: Choices,
    pub shown: Shown,
}
