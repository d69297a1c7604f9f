//! What `init` has looked at before it proposes jobs.

use super::decide::LeftOut;
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

/// A database that could not be looked at.
pub fn unread(name: &str, error: &anyhow::Error) -> LeftOut {
    let why = format!("it could not be looked at: {}", crate::pg::failure::in_a_line(error));
    LeftOut { what: format!("the tables of {name}"), why }
}
