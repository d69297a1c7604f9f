//! Reads what would be written as every command reads it, and asks the databases whether the jobs may run there.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::decide::Proposal;
use super::text::{self, Choices};
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::Problems;
use crate::config::{self, Config};
use crate::pg::failure;
use crate::run::fleet::Found;
use crate::run::job::{self, Job};

/// A job that may not run on one of its databases, and why.
pub struct Lack {
    pub job: String,
    pub database: String,
    pub why: String,
    /// Nobody could ask: it may well run there.
    pub is_unreachable: bool,
}

impl Lack {
    pub fn in_words(&self) -> String {
        format!("{} on {}: {}", self.job, self.database, self.why)
    }
}

/// Reads a configuration that is not there yet.
pub fn config(text: &str) -> Result<Config> {
    let folder = scratch()?;
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text)?;
    let mut problems = Vec::new();
    match config::load(&path, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems).into()),
    }
}

/// Reads the jobs as they would be written.
pub fn jobs(config: &Config, proposals: &[Proposal], choices: &Choices) -> Result<Vec<Job>> {
    let folder = scratch()?;
    for proposal in proposals {
        let path = folder.path().join(format!("{}.toml", proposal.name));
        std::fs::write(&path, text::job(proposal, choices, "job.json")).with_context(|| format!("the job {}", proposal.name))?;
    }
    let loaded = job::load_dir(folder.path(), config).map_err(|problem| Problems(vec![*problem]))?;
    if loaded.broken.is_empty() { Ok(loaded.jobs) } else { Err(Problems(loaded.problems()).into()) }
}

/// Asks each entry of the configuration whether it leads to the database that it is for. What does not answer was told before.
pub async fn entries_lead_to(config: &Config, entries: &[(String, String)]) -> Result<()> {
    for (name, database) in entries {
        let settings = config.database(name).context("the database is configured")?.settings()?;
        let Ok(mut connection) = settings.connect().await else { continue };
        let found: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await?;
        if found != *database {
            let message = format!(
                "the entry [databases.{name}] would lead to the database `{found}` and not to `{database}`; nothing was written. A pooler may rename \
                 databases, or PGDATABASE is set: give a URL that names the database"
            );
            return Err(Fault::new(Kind::Configuration, message).into());
        }
    }
    Ok(())
}

/// So many databases of a fleet are asked for all of them.
const EXAMPLES: usize = 3;

/// Jobs with patterns with a few of the databases that were found, the others as they are.
pub fn on_examples(jobs: &[Job], found: &Found, config: &Config) -> Vec<Job> {
    let mut jobs = found.given_to(jobs, config);
    for job in jobs.iter_mut().filter(|job| job.chosen.is_some()) {
        job.databases.truncate(EXAMPLES);
    }
    jobs
}

/// Asks each database whether its jobs may run: as `check --connect` does.
pub async fn lacks(config: &Config, jobs: &[Job]) -> Vec<Lack> {
    let mut lacks = Vec::new();
    for job in jobs {
        for database in &job.databases {
            if let Err(error) = may_run(config, job, database).await {
                let is_unreachable = failure::kind_of(&error) == Some(Kind::Unreachable);
                let why = failure::in_a_line(&error);
                lacks.push(Lack { job: job.name.clone(), database: database.clone(), why, is_unreachable });
            }
        }
    }
    lacks
}

async fn may_run(config: &Config, job: &Job, database: &str) -> Result<()> {
    let configured = config.database(database).context("the database is configured")?;
    let settings = job.task.settings(&configured)?;
    let mut connection = settings.connect().await?;
    job.task.check(&mut connection, &settings, config).await.map(drop)
}

fn scratch() -> Result<tempfile::TempDir> {
    let folder = std::env::temp_dir();
    tempfile::tempdir().with_context(|| format!("cannot create a folder in {}", Path::new(&folder).display()))
}
