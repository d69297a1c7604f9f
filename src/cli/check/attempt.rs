//! One thing that was tried, its result, and the warnings that follow a success.

use std::time::Duration;

use anyhow::Result;

use crate::pg::failure;

/// So many databases are tried at once.
pub(super) const AT_ONCE: usize = 16;

/// Nothing that is tried takes longer: a connection may take 20 s for each of its hosts.
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// A server may have thousands of databases with something to say.
pub(super) const WARNINGS_OF_A_SERVER: usize = 20;

const WARNING: &str = "; WARNING: ";

pub struct Attempt {
    pub what: String,
    pub result: Result<String>,
}

impl Attempt {
    pub fn new(what: impl Into<String>, result: Result<String>) -> Self {
        Self { what: what.into(), result }
    }

    /// What it says of itself, or why it failed.
    pub fn detail(&self) -> String {
        match &self.result {
            Ok(detail) => detail.clone(),
            Err(error) => failure::in_a_line(error),
        }
    }
}

/// Formats warnings that follow a success.
pub(super) fn warnings(of: impl IntoIterator<Item = String>) -> String {
    of.into_iter().map(|warning| format!("{WARNING}{warning}")).collect()
}

/// Takes a detail apart: the success, and the warnings that follow it.
pub fn parts(detail: &str) -> (&str, impl Iterator<Item = &str>) {
    let mut parts = detail.split(WARNING);
    (parts.next().unwrap_or_default(), parts)
}
