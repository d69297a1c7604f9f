//! Decides which sets a store lacks that others of the job have: pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::place::is_copy_of;
use crate::task::backup::found::Found;
use crate::task::backup::keep::{Candidate, Keep};
use crate::task::backup::manifest::Filters;
use crate::task::backup::rules::{self, Rules};
use crate::task::backup::set::{Listing, Set};
use crate::task::backup::set_name::SetName;
use crate::task::backup::verdict::Bytes;

/// A run copies no more than this into a store; the next one continues, and no store deletes the rest meanwhile.
pub const COPIES_IN_A_RUN: usize = 3;

/// A set to be copied into a store.
#[derive(Clone, Debug, Serialize)]
pub struct Lacking {
    pub set: String,
    /// The store that has it.
    pub from: String,
    #[serde(skip)]
    pub copied: Set,
}

/// Returns the newest intact sets of others that this store lacks and that its own rules would keep, newest first. What the rules have deleted
/// here is not brought back: they would delete it again. `own` is the set of this run.
pub fn decide(
    into: &Found,
    others: &[&Found],
    rules: Option<&Rules<'_>>,
    all: &Rules<'_>,
    own: (Candidate, &Filters),
) -> Vec<Lacking> {
    // What could not be listed may be there.
    if into.listing.doubt().is_some() {
        return Vec::new();
    }
    let mut lacking = Vec::new();
    let mut known: BTreeSet<&SetName> = names(&into.listing).collect();
    for other in others.iter().filter(|other| other.signs || !into.signs) {
        for set in &other.listing.sets {
            let is_whole = set.verification.verdict() == Bytes::Intact && set.listed.globals_problem.is_none();
            // Where two stores have different sets of one name, a person chooses.
            let is_one_set =
                others.iter().flat_map(|other| &other.listing.sets).all(|there| there.name != set.name || is_copy_of(there, set));
            let is_good = is_whole && is_one_set && !set.is_from_the_future(all.now);
            if is_good && other.series.unites(all.identity, set) && known.insert(&set.name) {
                lacking.push((set, other.kept.store.as_str()));
            }
        }
    }
    if let Some(rules) = rules {
        let sets = into.listing.sets.iter().chain(lacking.iter().map(|(set, _)| *set)).cloned().collect();
        let with_them = Listing { sets, ..Listing::default() };
        let decisions = rules::decide(&with_them, rules, Some(own));
        let kept: BTreeSet<&str> =
            decisions.iter().filter(|decision| decision.keep && !decision.check_first).map(|decision| &*decision.name).collect();
        lacking.retain(|(set, _)| kept.contains(set.name.to_string().as_str()));
    }
    lacking.sort_by_key(|(set, _)| std::cmp::Reverse(set.name.taken_at));
    lacking
        .into_iter()
        .map(|(set, from)| Lacking { set: set.name.to_string(), from: from.to_owned(), copied: set.clone() })
        .collect()
}

/// The names under which there is a set, or may be one. No run replaces what is there. The rest of a set is none: what an interrupted run has left, and one
/// that has lost its manifest; a copy makes it whole.
fn names(listing: &Listing) -> impl Iterator<Item = &SetName> {
    let is_rest = move |name: &SetName| listing.incomplete.iter().any(|(incomplete, _)| incomplete == name);
    let unreadable = listing.unreadable.iter().map(|(name, _)| name).filter(move |name| !is_rest(name));
    let not_ours = listing.not_ours.iter().map(|(set, _)| &set.name);
    listing.sets.iter().chain(&listing.adopted).map(|set| &set.name).chain(unreadable).chain(not_ours)
}

/// Rules that keep everything, for a store without `keep`.
pub const KEEP_ALL: Keep = Keep { last: u32::MAX, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
