//! What the copies of a set in several stores say of it together: a doubt about one is a doubt about all of them. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::place::is_copy_of;
use crate::task::backup::restore_check::{RestoreCheck, refusal_of_copies};
use crate::task::backup::set::{Listing, Set};
use crate::task::backup::set_name::SetName;

/// The sets of all stores that were read.
pub struct Together<'a>(BTreeMap<&'a SetName, Vec<&'a Set>>);

impl<'a> Together<'a> {
    pub fn of(listings: impl IntoIterator<Item = &'a Listing>) -> Self {
        let mut by_name: BTreeMap<&SetName, Vec<&Set>> = BTreeMap::new();
        for set in listings.into_iter().flat_map(|listing| &listing.sets) {
            by_name.entry(&set.name).or_default().push(set);
        }
        Self(by_name)
    }

    /// The refusal for the data that stands beside one of its copies, and that no later restore of another one refutes.
    pub fn refused_for_its_data(&self, set: &Set, now: DateTime<Utc>) -> Option<&'a RestoreCheck> {
        let restores: Vec<&[RestoreCheck]> = self.copies(set).map(|copy| &copy.verification.restores[..]).collect();
        refusal_of_copies(&restores, now)
    }

    /// The time of the manifest of the copy that was written before the set began, by its store's clock.
    pub fn written_before_it_began(&self, set: &Set) -> Option<DateTime<Utc>> {
        self.copies(set).filter_map(Set::written_before_it_began).min()
    }

    fn copies(&self, set: &Set) -> impl Iterator<Item = &'a Set> {
        let of_its_name = self.0.get(&set.name).into_iter().flatten().copied();
        of_its_name.filter(|copy| is_copy_of(copy, set))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::task::backup::restore_check::tests::{check, now};

    fn listing(sha256: &str, refused: bool, written_early: bool) -> Listing {
        let mut manifest = crate::task::backup::manifest::tests::manifest();
        manifest.dump.sha256 = sha256.to_owned();
        let mut set = Set {
            name: "app/nightly/2026-11-23T02-00-00Z".parse().unwrap(),
            manifest,
            verification: Default::default(),
            holds: vec![],
            listed: Default::default(),
        };
        set.verification.restores = if refused { vec![check("db", 0, Some(true))] } else { vec![] };
        let minutes = if written_early { -50 } else { 1 };
        set.listed.manifest_at = Some(set.manifest.started_at + TimeDelta::minutes(minutes));
        Listing { sets: vec![set], ..Listing::default() }
    }

    #[test]
    fn a_doubt_about_one_copy_is_a_doubt_about_all_of_the_same_bytes() {
        let (doubted, copy, other) = (listing("00", true, true), listing("00", false, false), listing("11", false, false));
        let together = Together::of([&doubted, &copy, &other]);
        for (listing, expected) in [(&doubted, true), (&copy, true), (&other, false)] {
            let set = &listing.sets[0];
            let found = (together.refused_for_its_data(set, now()).is_some(), together.written_before_it_began(set).is_some());
            assert_eq!(found, (expected, expected), "{}", set.manifest.dump.sha256);
        }
    }
}
