//! `pgtend backups verify`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{Filter, find, settings_of, tools_for};
use crate::cli::Global;
use crate::cli::output::print;
use crate::task::backup::{scratch, verify};
use crate::units;

pub async fn run(global: &Global, wanted: &str, filter: &Filter, restore_on: Option<&str>) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut found = find(&config, wanted, filter, false).await?;
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
                scratch::drop_scratch(&mut connection, &leftover).await?;
            }
            let target = verify::Scratch { settings: &settings, tools: &tools, name: format!("{prefix}{}", std::process::id()) };
            verify::by_restore(&found.store, &mut found.set, &target, &global.progress()).await?;
        }
    }
    let set = &found.set;
    if global.json {
        print(&format!(
            "{:#}\n",
            json!({ "set": set.name.to_string(), "store": found.store_name, "verification": set.verification, "proof": set.verification.proof() })
        ))?;
    } else {
        let how = if restore_on.is_some() { "restored" } else { "read back" };
        print(&format!(
            "{}: {how}, {} tables and {} rows are as the manifest says\n",
            set.name,
            units::count(set.manifest.tables.len() as u64),
            units::count(set.manifest.rows())
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
