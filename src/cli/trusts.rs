//! Says whether the job that wrote a batch or a set trusts the owners of tables, for commands that put it back.

use super::global::Global;
use crate::config::Config;
use crate::run::job::{self, Job};

/// The jobs, for their `trust_owners = false`.
pub struct Trusts(Vec<Job>);

impl Trusts {
    /// Unreadable jobs are only warned of: they are no reason to withhold rows in an emergency.
    pub fn read(global: &Global, config: &Config) -> Self {
        let jobs = match job::load_dir(&global.jobs_dir(), config) {
            Ok(folder) if folder.broken.is_empty() => folder.jobs,
            read => {
                tracing::warn!(
                    "not all jobs can be read (`pgtend check` says why), so a `trust_owners = false` in one of them is unknown"
                );
                read.map(|folder| folder.jobs).unwrap_or_default()
            }
        };
        Self(jobs)
    }

    /// Returns whether the owners are trusted; true also for a job that is unknown.
    pub fn owners_of(&self, job: &str) -> bool {
        self.0.iter().filter(|known| known.name == job).all(|known| known.limits.trust_owners)
    }
}
