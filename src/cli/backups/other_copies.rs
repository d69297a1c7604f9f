//! The copies of a set in other stores than that of a command. They have the same data, so what one of them was refused for holds for all: a restore for a
//! proof is recorded beside each, and a certificate asks each.

use anyhow::Result;
use chrono::Utc;

use super::find::Filter;
use super::found::Found;
use super::nearness::Nearness;
use crate::cli::global::Global;
use crate::config::Config;
use crate::pg::failure;
use crate::store::Store;
use crate::task::backup::copies::known::why_unknown;
use crate::task::backup::copies::place::is_copy_of;
use crate::task::backup::copies::proof::record_proof;
use crate::task::backup::copies::several::within;
use crate::task::backup::set::{self, Listing, Set};

#[derive(Default)]
pub(super) struct OtherCopies {
    pub(super) found: Vec<Found>,
    /// The stores of the set's job that may have a copy, and could not be read, each with the reason. Where the job is not known, all such stores.
    pub(super) unread: Vec<(String, String)>,
}

impl OtherCopies {
    /// Looks into all stores of the configuration, whichever of them the command is about.
    pub(super) async fn of(global: &Global, config: &Config, found: &Found) -> Result<Self> {
        let (mut others, nearness) = (Self::default(), Nearness::of(global));
        let folder = found.set.name.key("");
        let listing = async |store: &Store| set::list(store, &folder).await;
        for (store_name, read) in Filter::everything().read_stores(config, listing).await? {
            if store_name == found.store_name {
                continue;
            }
            let why = match read {
                Ok((store, listing)) => others.add(&store_name, store, listing, &found.set),
                Err(error) => Some(failure::in_a_line(&error)),
            };
            let why = why.filter(|_| !nearness.is_of_others(&found.set.name.job, &store_name));
            others.unread.extend(why.map(|why| (store_name, why)));
        }
        Ok(others)
    }

    /// Returns why it is not known whether a copy is there.
    fn add(&mut self, store_name: &str, store: Store, mut listing: Listing, of: &Set) -> Option<String> {
        let why = why_unknown(&store, &listing, &of.name);
        listing.with_adopted();
        let copy = listing.sets.into_iter().find(|set| set.name == of.name && is_copy_of(set, of));
        self.found.extend(copy.map(|set| Found { store_name: store_name.to_owned(), store, set }));
        why
    }

    /// Records beside `found` what the others were refused for, before it is restored: a good restore then stands after that.
    pub(super) async fn tell_of_refusals(&self, found: &mut Found) {
        let now = Utc::now();
        for other in &self.found {
            let refused = other.set.verification.refused_for_its_data(now);
            if refused.is_some_and(|refusal| !found.set.verification.knows(refusal)) {
                record(other, found).await;
            }
        }
    }

    /// Records beside each of them what a restore of `found` has shown.
    pub(super) async fn tell(&mut self, found: &Found, is_data_refused: bool) {
        for other in &mut self.found {
            record(found, other).await;
        }
        for (store, why) in self.unread.iter().filter(|_| is_data_refused) {
            tracing::warn!("the refusal could not be recorded beside a copy of {} in {store}: {why}", found.set.name);
        }
    }
}

/// A store that cannot be written to changes nothing of what was found.
async fn record(from: &Found, beside: &mut Found) {
    let Found { store_name, store, set } = beside;
    let (verification, manifest) = (&from.set.verification, &from.set.manifest);
    let recording = record_proof(verification, (&from.store_name, &from.store), store, manifest, set);
    if let Err(error) = within(true, recording).await {
        tracing::warn!(
            "what restores of {} in {} have shown could not be recorded beside the copy in {store_name}: {}",
            from.set.name,
            from.store_name,
            failure::in_a_line(&error)
        );
    }
}
