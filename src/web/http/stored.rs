//! Reads what pages show from stores.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::join_all;

use crate::archive;
use crate::config::Config;
use crate::pg::{self, failure};
use crate::store::{Store, key};
use crate::task::audit::AuditStore;
use crate::task::audit::document::Document;
use crate::task::backup::set::{self, MANIFEST, Set};
use crate::task::backup::set_name::SetName;
use crate::web::page::Batch;
use crate::web::page::set::SetSeen;

/// Looks for a set in all stores at once; what does not answer within `patience` is said.
pub async fn set(config: &Config, name: SetName, patience: Duration) -> SetSeen {
    let asking = config.stores.iter().map(|(store, configured)| {
        let name = &name;
        async move {
            let found = tokio::time::timeout(patience, async { in_store(&Store::open(configured).await?, name).await });
            (store.clone(), found.await.context("it did not answer in time").flatten())
        }
    });
    let mut seen = SetSeen { name: name.clone(), copies: Vec::new(), before: None, unread: Vec::new() };
    for (store, found) in join_all(asking).await {
        match found {
            Ok(Some((copy, before))) => {
                seen.before = seen.before.or(before);
                seen.copies.push((store, copy));
            }
            Ok(None) => {}
            Err(error) => seen.unread.push((store, failure::in_a_line(&error))),
        }
    }
    seen
}

/// The set, and the one before it: two manifests, however many sets there are.
async fn in_store(store: &Store, name: &SetName) -> Result<Option<(Set, Option<Set>)>> {
    let Some(found) = one(store, name).await? else { return Ok(None) };
    let listed = store.list_readable(&key::folder(&name.database, &name.job)).await?;
    let names =
        listed.objects.iter().filter_map(|object| object.key.strip_suffix(&format!("/{MANIFEST}"))?.parse::<SetName>().ok());
    let before = names.filter(|other| (&other.database, &other.job) == (&name.database, &name.job) && other < name).max();
    let before = match before {
        Some(before) => one(store, &before).await?,
        None => None,
    };
    Ok(Some((found, before)))
}

/// The set of that name in a store.
pub(super) async fn one(store: &Store, name: &SetName) -> Result<Option<Set>> {
    let mut listing = set::list(store, &name.key("")).await?;
    listing.with_adopted();
    if let Some((_, why)) = listing.unreadable.pop() {
        anyhow::bail!("{name}: {why}");
    }
    if let Some((_, signature)) = listing.not_ours.pop() {
        anyhow::bail!("{name}: {}", signature.in_words());
    }
    Ok(listing.sets.pop())
}

/// The last audit of a job on a database that can be read.
pub async fn audit(config: &Config, store: &str, database: &str, job: &str) -> Result<Option<Document>> {
    let store = Store::named(config, store).await?;
    let (document, unread) = AuditStore::new(store, database, job).last().await?;
    match (document, unread.into_iter().next()) {
        (None, Some(why)) => anyhow::bail!("{why}"),
        (document, _) => Ok(document),
    }
}

/// The batches of rows that a job has archived, and what is wrong in their folder.
pub async fn archive(config: &Config, store_name: &str, database: &str, job: &str) -> Result<(Vec<Batch>, Vec<String>)> {
    let store = Store::named(config, store_name).await?;
    let listing = archive::list(&store, &format!("{}archive/", key::folder(database, job))).await?;
    let batches = listing.batches.into_iter().map(|(name, manifest)| Batch {
        store: store_name.to_owned(),
        name: name.to_string(),
        table: (!manifest.names_are_sealed()).then(|| pg::qualified(&manifest.schema, &manifest.table)),
        rows: manifest.exported.rows,
        bytes: manifest.exported.bytes,
        at: manifest.archived_at,
        why: manifest.reason,
    });
    let broken = listing.broken.iter().map(|broken| format!("{}: {}", broken.key, broken.reason));
    let not_ours = listing.not_ours.iter().map(|(name, _, signature)| format!("{name}: {}", signature.in_words()));
    let pending = listing.pending.iter().map(|pending| format!("{}: a run is making it, or was killed", pending.name));
    let troubles = broken.chain(not_ours).chain(pending).collect();
    Ok((batches.collect(), troubles))
}
