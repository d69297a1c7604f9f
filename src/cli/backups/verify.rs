//! `pgtend backups verify`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{Filter, Which, find, settings_of, tools_for};
use crate::cli::Global;
use crate::cli::output::print;
use crate::task::backup::{scratch, verify};
use crate::units;

pub async fn run(global: &Global, wanted: &str, filter: &Filter, which: &Which, restore_on: Option<&str>) -> Result<ExitCode> {
    let config = global.load_config()?;
    // What is passed by as a source of a restore may well be looked at.
    let choice = crate::task::backup::latest::Choice { older_ok: true, ..which.choice() };
    let mut found = find(&config, wanted, filter, &choice).await?;
    let mut refusal = None;
    match restore_on {
        None => verify::by_checksum(&found.store, &mut found.set, &global.progress()).await?,
        Some(target) => {
            let settings = settings_of(&config, target)?;
            let mut connection = scratch::maintenance_connection(&settings).await?;
            let tools = tools_for(&config, &mut connection).await?;
            // Not the job's own prefix: its run may be going on.
            let prefix = scratch::scratch_prefix(
                &found.set.name.database,
                &format!("{} by hand", found.set.name.job),
                &found.set.manifest.server,
            );
            for leftover in scratch::scratch_leftovers(&mut connection, &prefix).await? {
                if let Err(error) = scratch::drop_scratch(&mut connection, &leftover).await {
                    tracing::warn!("{error:#}");
                }
            }
            let scratch = verify::Scratch { settings: &settings, tools: &tools, name: format!("{prefix}{}", std::process::id()) };
            let verified = verify::by_restore(&found.store, &mut found.set, &scratch, &global.progress()).await?;
            verified.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            refusal = verified.refusal;
        }
    }
    let set = &found.set;
    if global.json {
        print(&format!(
            "{:#}\n",
            json!({ "set": set.name.to_string(), "store": found.store_name, "verification": set.verification, "bytes": set.verification.verdict() })
        ))?;
    } else if refusal.is_none() {
        let how = if restore_on.is_some() { "restored" } else { "read back" };
        print(&format!(
            "{}: {how}, {} tables and {} rows are as the manifest says\n",
            set.name,
            units::count(set.manifest.tables.len() as u64),
            units::count(set.manifest.rows())
        ))?;
    }
    match refusal {
        None => Ok(ExitCode::SUCCESS),
        Some(refusal) => Err(anyhow::Error::from(refusal)
            .context(format!("the bytes of {} are intact, and this server did not take them", set.name))),
    }
}
