//! `pgtend backups hold` and `release`.

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::find::{Filter, find_copies};
use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::{self, HOLD, HOLDS, Hold};

/// Holds all copies of a set.
pub async fn hold(global: &Global, wanted: &str, filter: &Filter, until: DateTime<Utc>, reason: &str) -> Result<ExitCode> {
    let config = global.load_config()?;
    let hold = Hold { until, reason: reason.to_owned(), because_of: None };
    for found in find_copies(global, &config, wanted, filter, &Choice::default()).await? {
        markers::write(&found.store, &found.set.name, HOLD, &hold).await?;
        // A concurrent prune may have deleted it in between: then there is nothing to hold.
        if !found.store.exists_for_certain(&found.set.name.key(crate::task::backup::set::MANIFEST)).await? {
            found.store.delete(&found.set.name.key(HOLD)).await?;
            return Err(Fault::new(Kind::Configuration, format!("{} was deleted meanwhile", found.set.name)).into());
        }
        print(&format!("{} in {} is held until {}\n", found.set.name, found.store_name, until.format("%Y-%m-%d %H:%M UTC")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the holds of all copies.
pub async fn release(global: &Global, wanted: &str, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let copies = find_copies(global, &config, wanted, filter, &Choice::default()).await?;
    let are_several = copies.len() > 1;
    for found in copies {
        for object in HOLDS {
            found.store.delete(&found.set.name.key(object)).await?;
        }
        let in_store = if are_several { format!(" in {}", found.store_name) } else { String::new() };
        let reasons: Vec<&str> = found.set.holds.iter().map(|hold| hold.reason.as_str()).collect();
        print(&match reasons.is_empty() {
            false => format!("{}{in_store} is no longer held ({})\n", found.set.name, reasons.join("; ")),
            true => format!("{}{in_store} was not held\n", found.set.name),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
