//! `pgtend` alone: where one stands, and the next step. Each source is asked for some seconds; what does not answer is said, and is no error.

mod json;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::global::Global;
use super::output::{print, print_json};
use crate::base::toml_file::Problems;
use crate::run::standing::{self, Configured, Standing};

pub async fn run(global: &Global) -> Result<ExitCode> {
    let now = Utc::now();
    let standing = look(global, now).await;
    match global.json {
        true => print_json(&standing.as_json(now))?,
        false => print(&standing.in_words(now))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at everything, and says what does not answer.
pub(super) async fn look(global: &Global, now: DateTime<Utc>) -> Standing {
    let path = global.config_path();
    let file = path.display().to_string();
    if path.symlink_metadata().is_err() {
        return Standing { file, configured: Configured::No, ..Standing::default() };
    }
    match global.read() {
        Ok((config, folder)) => standing::of(&config, &folder, now).await,
        Err(error) => {
            let mistakes = error.downcast_ref::<Problems>().map_or(1, |problems| problems.0.len());
            Standing { file, configured: Configured::WithMistakes(mistakes), ..Standing::default() }
        }
    }
}
