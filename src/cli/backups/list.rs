//! `pgtend backups list`.

use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;
use serde_json::json;

use super::{Filter, stores};
use crate::cli::Global;
use crate::cli::output::{self, print};
use crate::store::sign::Signature;
use crate::task::backup::set::{self, Set, SetName};
use crate::task::backup::verdict::Bytes;
use crate::units;

pub async fn run(global: &Global, filter: &Filter, unsigned_ok: bool) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut rows = Vec::new();
    let mut json_rows = Vec::new();
    let mut broken = Vec::new();
    let mut newest_good = None;
    let mut from_the_future = Vec::new();
    let mut failed = Vec::new();
    let mut not_ours = Vec::new();
    let mut unseen = Vec::new();
    let now = Utc::now();
    for (store_name, store) in stores(&config, filter).await? {
        if !store.is_there() {
            tracing::warn!("store `{store_name}`: there is no folder {} (yet, or is a disk not mounted?)", store.location(""));
        }
        let mut listing = match set::list(&store, "").await {
            Ok(listing) => listing,
            // What the others hold is shown all the same.
            Err(error) => {
                failed.push(error.context(format!("store `{store_name}` cannot be read")));
                continue;
            }
        };
        let unsigned: Vec<(SetName, Signature)> =
            listing.not_ours.iter().map(|(set, signature)| (set.name.clone(), *signature)).collect();
        let signature_of = |name: &SetName| unsigned.iter().find(|(of, _)| of == name).map(|(_, signature)| *signature);
        if unsigned_ok {
            listing.accept_unsigned();
        }
        let refused = listing.not_ours.iter().filter(|(set, _)| filter.matches(&set.name));
        not_ours.extend(refused.map(|(set, signature)| (store_name.clone(), set.name.clone(), *signature)));
        unseen.extend(listing.unseen.iter().map(|unread| (store.location(&unread.key), unread.reason.clone())));
        for set in listing.sets.iter().filter(|set| filter.matches(&set.name)) {
            let signature = signature_of(&set.name);
            let manifest = &set.manifest;
            if set.is_from_the_future(now) {
                from_the_future.push(set.name.to_string());
            } else if signature.is_none() && set.verification.verdict() == Bytes::Intact && set.manifest.filters.are_none() {
                newest_good = newest_good.max(Some(set.name.taken_at));
            }
            rows.push(vec![
                set.name.to_string(),
                store_name.clone(),
                units::age(set.name.taken_at, now),
                units::bytes(manifest.dump.bytes),
                units::count(manifest.tables.len() as u64),
                units::count(manifest.rows()),
                set.verification.verdict().name().to_owned(),
                set.verification.restored_in_words(),
                notes(set, signature, now),
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
                "bytes": set.verification.verdict(),
                "restored": set.verification.was_restored(),
                "identity": set.identity().map(|identity| identity.to_string()),
                "filtered": !set.manifest.filters.are_none(),
                "by_hand": set.manifest.by_hand,
                "held": set.held(now).collect::<Vec<_>>(),
                "from_the_future": set.is_from_the_future(now),
                "signature": signature.unwrap_or(if store.has_sign_key() { Signature::Valid } else { Signature::NotAsked }),
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
        let not_ours: Vec<_> = not_ours
            .iter()
            .map(|(store, name, signature)| json!({ "store": store, "set": name.to_string(), "signature": signature }))
            .collect();
        let unseen: Vec<_> = unseen.iter().map(|(location, reason)| json!({ "location": location, "reason": reason })).collect();
        print(&format!(
            "{:#}\n",
            json!({ "sets": json_rows, "unrestorable": broken, "not_ours": not_ours, "not_looked_into": unseen })
        ))?;
        return failed.into_iter().next().map_or(Ok(ExitCode::SUCCESS), Err);
    }
    if rows.is_empty() {
        print("no sets\n")?;
    } else {
        print(&output::table(&["SET", "STORE", "AGE", "SIZE", "TABLES", "ROWS", "BYTES", "RESTORED", ""], rows.into_iter()))?;
        match newest_good {
            Some(at) => print(&format!("\nThe last intact set is {} old.\n", units::age(at, now)))?,
            None => print("\nNo set has been read back: `pgtend backups verify latest`.\n")?,
        }
    }
    for name in from_the_future {
        eprintln!(
            "pgtend: {name} is from after now: a clock was wrong when it was made, or is now; it is never the latest without --any"
        );
    }
    for (store, name, signature) in not_ours {
        eprintln!("pgtend: not listed: {name} in {store} is not ours: {}; --unsigned-ok lists it", signature.in_words());
    }
    for (location, reason) in unseen {
        eprintln!("pgtend: not looked into: {location}: {reason}");
    }
    for (store, name, reason) in broken {
        eprintln!("pgtend: not listed: {name} in {store} cannot be restored: {reason}");
    }
    failed.into_iter().next().map_or(Ok(ExitCode::SUCCESS), Err)
}

/// What is special about a set, for the last column.
fn notes(set: &Set, signature: Option<Signature>, now: chrono::DateTime<Utc>) -> String {
    let mut notes: Vec<String> = signature.map(|signature| signature.in_short().to_owned()).into_iter().collect();
    if !set.manifest.filters.are_none() {
        notes.push("partial".to_owned());
    }
    if set.manifest.by_hand {
        notes.push("by hand".to_owned());
    }
    if let Some(until) = set.held(now).map(|hold| hold.until).max() {
        notes.push(format!("held until {}", until.format("%Y-%m-%d")));
    }
    if set.is_from_the_future(now) {
        notes.push("from after now".to_owned());
    }
    notes.join(", ")
}
