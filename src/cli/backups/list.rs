//! `pgtend backups list`.

use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;
use serde_json::json;

use super::{Filter, stores};
use crate::cli::Global;
use crate::cli::output::{self, print};
use crate::task::backup::keep::Proof;
use crate::task::backup::set;
use crate::units;

pub async fn run(global: &Global, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut rows = Vec::new();
    let mut json_rows = Vec::new();
    let mut broken = Vec::new();
    let mut newest_good = None;
    let now = Utc::now();
    for (store_name, store) in stores(&config, filter).await? {
        if !store.is_there() {
            tracing::warn!("store `{store_name}`: there is no folder {} (yet, or is a disk not mounted?)", store.location(""));
        }
        let listing = set::list(&store, "").await?;
        for set in listing.sets.iter().filter(|set| filter.matches(&set.name)) {
            let manifest = &set.manifest;
            if set.verification.proof() == Proof::Verified {
                newest_good = newest_good.max(Some(set.name.taken_at));
            }
            rows.push(vec![
                set.name.to_string(),
                store_name.clone(),
                units::age(set.name.taken_at, now),
                units::bytes(manifest.dump.bytes),
                units::count(manifest.tables.len() as u64),
                units::count(manifest.rows()),
                set.verification.in_words(),
            ]);
            json_rows.push(json!({
                "set": set.name.to_string(),
                "store": store_name,
                "database": set.name.database,
                "job": set.name.job,
                "taken_at": set.name.taken_at,
                "location": store.location(&set.name.key(&manifest.dump.object)),
                "dump_bytes": manifest.dump.bytes,
                "uncompressed_bytes": manifest.dump.uncompressed_bytes,
                "sha256": manifest.dump.sha256,
                "tables": manifest.tables.len(),
                "rows": manifest.rows(),
                "server_version": manifest.server.version,
                "verification": set.verification,
                "proof": set.verification.proof(),
                "warnings": manifest.warnings,
            }));
        }
        broken.extend(
            listing
                .unreadable
                .into_iter()
                .filter(|(name, _)| filter.matches(name))
                .map(|(name, reason)| (store_name.clone(), name, reason)),
        );
    }
    if global.json {
        let broken: Vec<_> = broken
            .iter()
            .map(|(store, name, reason)| json!({ "store": store, "set": name.to_string(), "reason": reason }))
            .collect();
        print(&format!("{:#}\n", json!({ "sets": json_rows, "unrestorable": broken })))?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        print("no sets\n")?;
    } else {
        print(&output::table(&["SET", "STORE", "AGE", "SIZE", "TABLES", "ROWS", "VERIFIED"], rows.into_iter()))?;
        match newest_good {
            Some(at) => print(&format!("\nThe last verified set is {} old.\n", units::age(at, now)))?,
            None => print("\nNo set is verified: `pgtend backups verify latest`.\n")?,
        }
    }
    for (store, name, reason) in broken {
        eprintln!("pgtend: not listed: {name} in {store} cannot be restored: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}
