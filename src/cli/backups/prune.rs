//! `pgtend backups prune`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::print;
use crate::store::Store;
use crate::task::Task;
use crate::task::backup::set::{self, Set};
use crate::task::backup::{self, keep};

pub async fn run(global: &Global, only: Option<&str>, dry_run: bool) -> Result<ExitCode> {
    let (config, jobs) = global.load()?;
    if let Some(name) = only {
        global.find_job(&jobs, name)?;
    }
    let mut json_rows = Vec::new();
    let mut text = String::new();
    for job in jobs.iter().filter(|job| only.is_none_or(|name| name == job.name)) {
        let Task::Backup(backup) = &job.task else { continue };
        let Some(keep) = &backup.keep else { continue };
        let store = Store::open(config.stores.get(&backup.store).context("the store is known: the job was checked")?).await?;
        for database in &job.databases {
            let listing = set::list(&store, &set::folder(database, &job.name)).await?;
            let candidates: Vec<_> = listing.sets.iter().map(Set::candidate).collect();
            for decision in keep::decide(&candidates, keep, job.timezone) {
                text += &format!(
                    "{:<8} {}  ({})\n",
                    if decision.keep { "keep" } else { "delete" },
                    decision.name,
                    decision.reasons.join(", ")
                );
                json_rows.push(json!(decision));
            }
            if !dry_run {
                backup::prune(&store, database, &job.name, keep, job.timezone).await?;
            }
        }
    }
    if global.json {
        print(&format!("{:#}\n", json!({ "dry_run": dry_run, "sets": json_rows })))?;
    } else {
        print(if text.is_empty() { "no sets\n" } else { &text })?;
    }
    Ok(ExitCode::SUCCESS)
}
