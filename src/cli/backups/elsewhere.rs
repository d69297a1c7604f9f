//! What stands beside copies in stores that `backups list --store` does not list: what one copy was refused for holds for all.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::nearness::Nearness;
use crate::config::Config;
use crate::pg::failure;
use crate::store::Store;
use crate::task::backup::copies::known::why_unknown;
use crate::task::backup::copies::place::is_copy_of;
use crate::task::backup::copies::several::{ensure_answers, within};
use crate::task::backup::set::{self, Listing, Set};

/// The copies in the other stores.
#[derive(Default)]
pub(super) struct Elsewhere {
    listings: Vec<(String, Listing)>,
    /// The stores of which it is not known what stands beside a copy there, each with the reason.
    pub(super) unread: Vec<(String, String)>,
}

impl Elsewhere {
    /// Reads, for no longer than a few minutes, the other stores that may have copies of these sets: those of their jobs, or all where a job is not known.
    pub(super) async fn of(config: &Config, listed: &str, sets: &[&Set], nearness: &Nearness) -> Self {
        let jobs: BTreeSet<&str> = sets.iter().map(|set| set.name.job.as_str()).collect();
        let may_have = |store: &str| store != listed && jobs.iter().any(|job| !nearness.is_of_others(job, store));
        let reading = config.stores.iter().filter(|(name, _)| may_have(name)).map(|(name, configured)| async move {
            let of_store = async {
                let store = Store::open(configured).await?;
                ensure_answers(&store).await?;
                let listing = set::list(&store, "").await?;
                Ok((store, listing))
            };
            (name.clone(), within(true, of_store).await)
        });
        let mut elsewhere = Self::default();
        for (name, read) in join_all(reading).await {
            let unknown = match read {
                Ok((store, mut listing)) => {
                    let of_job = sets.iter().filter(|set| !nearness.is_of_others(&set.name.job, &name));
                    let unknown = of_job.filter_map(|set| why_unknown(&store, &listing, &set.name)).next();
                    listing.with_adopted();
                    elsewhere.listings.push((name.clone(), listing));
                    unknown
                }
                Err(error) => Some(failure::in_a_line(&error)),
            };
            elsewhere.unread.extend(unknown.map(|why| (name, why)));
        }
        elsewhere
    }

    /// The copies of each set there, with the names of their stores.
    pub(super) fn copies_of(&self, set: &Set) -> Vec<(String, Set)> {
        let copies = self.listings.iter().flat_map(|(store, listing)| listing.sets.iter().map(move |copy| (store, copy)));
        let own = copies.filter(|(_, copy)| copy.name == set.name && is_copy_of(copy, set));
        own.map(|(store, copy)| (store.clone(), copy.clone())).collect()
    }
}
