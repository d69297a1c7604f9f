//! The options of every command: where the configuration and the jobs are, and how to print.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::base::toml_file::{Problems, did_you_mean};
use crate::config::{self, Config};
use crate::ledger::Ledger;
use crate::run::fleet::{self, Memory};
use crate::run::job::{self, Folder, Job};

#[derive(Debug, Args)]
pub struct Global {
    /// The configuration file [default: config.toml, then /etc/pgtend/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "PGTEND_CONFIG")]
    pub config: Option<PathBuf>,
    /// The folder of job files [default: `jobs` beside the configuration]
    #[arg(long, global = true, value_name = "DIR", env = "PGTEND_JOBS")]
    pub jobs: Option<PathBuf>,
    /// Print data as JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// The format of the logs on stderr
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", env = "PGTEND_LOG_FORMAT")]
    pub log_format: LogFormat,
    /// The log level: error, warn, info, debug, or a tracing filter [default: warn on a terminal, info elsewhere]
    #[arg(long, global = true, value_name = "LEVEL", env = "PGTEND_LOG")]
    pub log: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

impl Global {
    pub(super) fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| {
            let here = PathBuf::from("config.toml");
            let system = PathBuf::from("/etc/pgtend/config.toml");
            if !here.exists() && system.exists() { system } else { here }
        })
    }

    pub(super) fn jobs_dir(&self) -> PathBuf {
        self.jobs.clone().unwrap_or_else(|| self.config_path().parent().unwrap_or(std::path::Path::new("")).join("jobs"))
    }

    /// Loads the configuration alone: a store can be read without any job.
    pub(super) fn load_config(&self) -> Result<Config> {
        let mut problems = Vec::new();
        match config::load(&self.config_path(), &mut problems) {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Problems(problems).into()),
        }
    }

    /// Loads the configuration and its jobs. A job's file with mistakes is logged as an error and stops no other job; mistakes in
    /// the configuration itself are returned together with those of the jobs.
    pub(super) fn load(&self) -> Result<(Config, Folder)> {
        let (config, folder) = self.read()?;
        for broken in &folder.broken {
            let reasons = broken.reasons().join(" | ");
            tracing::error!("job `{}` is skipped, and the other jobs go on (`pgtend check` says more): {reasons}", broken.job);
        }
        for misnamed in &folder.misnamed {
            tracing::warn!("{misnamed}");
        }
        Ok((config, folder))
    }

    /// Loads the same, and asks servers for the databases of jobs with patterns. Only a run writes to the ledger what servers have.
    pub(super) async fn load_found(&self, is_for_runs: bool) -> Result<(Config, Folder)> {
        let (config, mut folder) = self.load()?;
        folder.jobs = found_for(&config, folder.jobs, is_for_runs).await?;
        Ok((config, folder))
    }

    /// Loads the configuration and all jobs, or returns every mistake in any of them.
    pub(super) fn load_all(&self) -> Result<(Config, Folder)> {
        let (config, folder) = self.read()?;
        if folder.broken.is_empty() { Ok((config, folder)) } else { Err(Problems(folder.problems()).into()) }
    }

    pub(super) fn read(&self) -> Result<(Config, Folder)> {
        let mut problems = Vec::new();
        let config = config::load(&self.config_path(), &mut problems);
        let folder = config.as_ref().map(|config| job::load_dir(&self.jobs_dir(), config));
        match (config, folder) {
            (Some(config), Some(Ok(folder))) if problems.is_empty() => return Ok((config, folder)),
            (_, Some(Ok(folder))) => problems.extend(folder.problems()),
            (_, Some(Err(problem))) => problems.push(*problem),
            (_, None) => {}
        }
        Err(Problems(problems).into())
    }

    /// Finds a job by its name among the loaded ones.
    pub(super) fn find_job<'a>(&self, folder: &'a Folder, name: &str) -> Result<&'a Job> {
        if let Some(job) = folder.jobs.iter().find(|job| job.name == name) {
            return Ok(job);
        }
        match folder.broken.iter().find(|broken| broken.job == name) {
            Some(broken) if !broken.problems.is_empty() => return Err(Problems(broken.problems.clone()).into()),
            Some(broken) => return Err(Fault::new(Kind::Configuration, broken.reasons().join("; ")).into()),
            None => {}
        }
        let names = folder.jobs.iter().map(|job| job.name.as_str());
        let hint =
            did_you_mean(name, names.clone()).unwrap_or_else(|| format!("there are: {}", names.collect::<Vec<_>>().join(", ")));
        Err(Fault::new(Kind::Configuration, format!("no job `{name}` in {}; {hint}", self.jobs_dir().display())).into())
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::detect(self.log_format == LogFormat::Json)
    }
}

/// Gives jobs with patterns the databases that servers have. A ledger that does not answer remembers none.
pub(super) async fn found_for(config: &Config, jobs: Vec<Job>, is_for_runs: bool) -> Result<Vec<Job>> {
    if !fleet::is_needed(&jobs) {
        return Ok(jobs);
    }
    if is_for_runs {
        let ledger = Ledger::new(config)?;
        return Ok(fleet::found_for(config, ledger.as_ref().map_or(Memory::None, Memory::Write), jobs).await);
    }
    let ledger = Ledger::to_read(config).await.unwrap_or_default();
    Ok(fleet::found_for(config, ledger.as_ref().map_or(Memory::None, Memory::Read), jobs).await)
}
