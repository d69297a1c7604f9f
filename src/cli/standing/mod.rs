//! `pgtend` alone: where one stands, and the next step. Each source is asked for some seconds; what does not answer is said, and is no error.

mod json;
mod read;
pub(super) mod say;

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

#[cfg(test)]
pub(super) use self::say::{Backup, Late};
pub(super) use self::say::{Configured, OfDatabase, Standing};
use super::global::Global;
use super::output::{print, print_json};
use crate::base::toml_file::Problems;
use crate::config::Config;
use crate::run::job::Folder;

pub async fn run(global: &Global) -> Result<ExitCode> {
    let now = Utc::now();
    let standing = look(global, now).await;
    match global.json {
        true => print_json(&standing.as_json(now))?,
        false => print(&standing.in_words(now))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at what a configuration that was read leads to.
pub(super) async fn of(config: &Config, folder: &Folder, now: DateTime<Utc>) -> Standing {
    read::all(config.path.display().to_string(), config, folder, now).await
}

/// Looks at everything, and says what does not answer.
pub(super) async fn look(global: &Global, now: DateTime<Utc>) -> Standing {
    let path = global.config_path();
    let file = path.display().to_string();
    if path.symlink_metadata().is_err() {
        return Standing { file, configured: Configured::No, ..Standing::default() };
    }
    match global.read() {
        Ok((config, folder)) => read::all(file, &config, &folder, now).await,
        Err(error) => {
            let mistakes = error.downcast_ref::<Problems>().map_or(1, |problems| problems.0.len());
            Standing { file, configured: Configured::WithMistakes(mistakes), ..Standing::default() }
        }
    }
}
