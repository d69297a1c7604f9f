//! Finds the batches that a command names.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::archive::{self, BatchName, Broken, Manifest};
use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::store::sign::Signature;
use crate::store::{Store, key};

#[derive(Debug, Args)]
pub struct Filter {
    /// Only batches in this store
    #[arg(long, value_name = "NAME")]
    pub(super) store: Option<String>,
    /// Only batches from this database
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
    /// Only batches of this job
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<String>,
}

pub(super) struct Found {
    pub(super) store_name: String,
    pub(super) store: Store,
    pub(super) batch: (BatchName, Manifest),
    /// `None` when the batch is signed with the store's key, or the store has none.
    pub(super) signature: Option<Signature>,
}

/// The result of a search through the stores.
#[derive(Default)]
pub(super) struct All {
    pub(super) found: Vec<Found>,
    pub(super) not_ours: Vec<Found>,
    /// Each comes with the name of its store.
    pub(super) broken: Vec<(String, Broken)>,
    /// Batches whose rows are in a later batch.
    pub(super) replaced: Vec<String>,
}

impl All {
    /// Counts the batches that exist, or may exist, beside those that were found. A folder that cannot be read may hold some when
    /// other batches of its series were found; whose the other folders are is unknown.
    pub(super) fn lacks(&self) -> usize {
        let is_of_a_series = |key: &str| {
            let folder = format!("{key}/");
            key.split('/').count() > 2 || self.found.iter().any(|found| found.batch.0.object().starts_with(&folder))
        };
        self.broken.iter().filter(|(_, broken)| broken.may_have_rows && is_of_a_series(&broken.key)).count()
    }

    /// Logs what was found but is not listed.
    pub(super) fn say_the_rest(&self) {
        for Found { store_name, batch, signature, .. } in &self.not_ours {
            let why = signature.map(Signature::in_words).unwrap_or_default();
            tracing::warn!("skipped {} in {store_name}: {why}; --unsigned-ok includes it", batch.0);
        }
        for name in &self.replaced {
            tracing::info!("skipped {name}: a later batch has its rows, as they were when they left the table");
        }
        for (store_name, Broken { key, reason, .. }) in &self.broken {
            tracing::warn!("skipped {key} in {store_name}: {reason}");
        }
    }
}

pub(super) async fn find(config: &Config, filter: &Filter, unsigned_ok: bool) -> Result<All> {
    if let Some(name) = filter.store.as_ref().filter(|name| !config.stores.contains_key(*name)) {
        return Err(Fault::new(Kind::Configuration, format!("the configuration has no store `{name}`")).into());
    }
    let mut all = All::default();
    for (store_name, configured) in
        config.stores.iter().filter(|(name, _)| filter.store.as_ref().is_none_or(|only| only == *name))
    {
        let store = Store::open(configured).await?;
        if !store.is_there() {
            continue;
        }
        let listing = archive::list(&store, "").await.with_context(|| format!("store `{store_name}`"))?;
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let ours = listing.batches.into_iter().map(|batch| (batch, None));
        let not_ours = listing.not_ours.into_iter().map(|(name, manifest, signature)| ((name, manifest), Some(signature)));
        for (batch, signature) in ours.chain(not_ours) {
            if is(&filter.database, &batch.1.database) && is(&filter.job, &batch.1.job) {
                let found = Found { store_name: store_name.clone(), store: store.clone(), batch, signature };
                let list = if signature.is_none() || unsigned_ok { &mut all.found } else { &mut all.not_ours };
                list.push(found);
            }
        }
        all.replaced.extend(listing.replaced.iter().map(ToString::to_string));
        // Only the place of an unreadable batch is known.
        let broken = listing.broken.into_iter().filter(|broken| {
            let mut parts = broken.key.split('/').map(key::decode);
            let mut fits = |wanted: &Option<String>| match parts.next() {
                Some(Ok(name)) => is(wanted, &name),
                Some(Err(_)) => wanted.is_none(),
                None => true,
            };
            fits(&filter.database) && fits(&filter.job)
        });
        all.broken.extend(broken.map(|broken| (store_name.clone(), broken)));
    }
    all.found.sort_by(|a, b| (&a.store_name, &a.batch.0).cmp(&(&b.store_name, &b.batch.0)));
    Ok(all)
}
