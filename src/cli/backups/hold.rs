//! `pgtend backups hold` and `release`.

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::{Filter, find};
use crate::cli::Global;
use crate::cli::output::print;
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::{self, HOLD, Hold};

pub async fn hold(global: &Global, wanted: &str, filter: &Filter, until: DateTime<Utc>, reason: &str) -> Result<ExitCode> {
    let config = global.load_config()?;
    let found = find(&config, wanted, filter, &Choice::default()).await?;
    let hold = Hold { until, reason: reason.to_owned(), because_of: None };
    markers::write(&found.store, &found.set.name, HOLD, &hold).await?;
    print(&format!("{} is held until {}\n", found.set.name, until.format("%Y-%m-%d %H:%M UTC")))?;
    Ok(ExitCode::SUCCESS)
}

pub async fn release(global: &Global, wanted: &str, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let found = find(&config, wanted, filter, &Choice::default()).await?;
    found.store.delete(&found.set.name.key(HOLD)).await?;
    print(&match &found.set.hold {
        Some(hold) => format!("{} is no longer held ({})\n", found.set.name, hold.reason),
        None => format!("{} was not held\n", found.set.name),
    })?;
    Ok(ExitCode::SUCCESS)
}
