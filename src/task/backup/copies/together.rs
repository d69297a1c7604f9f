//! What the copies of a set in several stores say of it together: a doubt about one is a doubt about all of them. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use super::place::is_copy_of;
use crate::task::backup::restore_check::{Beside, RestoreCheck, refusal_of_copies};
use crate::task::backup::set::{Listing, Set};
use crate::task::backup::set_name::SetName;

/// The sets of all stores that were read, each copy with the name of its store.
pub struct Together<'a>(BTreeMap<&'a SetName, Vec<(&'a str, &'a Set)>>);

/// A restore that was refused for the data, which are the same in all copies of the set.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    pub check: &'a RestoreCheck,
    /// The store whose copy was restored.
    pub copy_in: &'a str,
}

impl<'a> Together<'a> {
    /// By the listings of stores, each with the store's name.
    pub fn of(listings: impl IntoIterator<Item = (&'a str, &'a Listing)>) -> Self {
        Self::of_copies(listings.into_iter().flat_map(|(store, listing)| listing.sets.iter().map(move |set| (store, set))))
    }

    /// By sets, each with the name of its store.
    pub fn of_copies(copies: impl IntoIterator<Item = (&'a str, &'a Set)>) -> Self {
        let mut by_name: BTreeMap<&SetName, Vec<(&str, &Set)>> = BTreeMap::new();
        for (store, set) in copies {
            by_name.entry(&set.name).or_default().push((store, set));
        }
        Self(by_name)
    }

    /// The refusal for the data that stands beside one of its copies, and that no restore refutes which was recorded after it.
    pub fn refused_for_its_data(&self, set: &Set, now: DateTime<Utc>) -> Option<Refused<'a>> {
        let copies: Vec<(&str, &Set)> = self.copies(set).collect();
        let beside =
            |(_, copy): &(&str, &'a Set)| Beside { restores: &copy.verification.restores, is_signed: copy.listed.is_signed };
        let beside: Vec<Beside<'a>> = copies.iter().map(beside).collect();
        let (number, check) = refusal_of_copies(&beside, now)?;
        let (store, _) = copies.get(number)?;
        Some(Refused { check, copy_in: check.copy_in.as_deref().unwrap_or(store) })
    }

    /// The time of the manifest of the copy that was written before the set began, by its store's clock.
    pub fn written_before_it_began(&self, set: &Set) -> Option<DateTime<Utc>> {
        self.copies(set).filter_map(|(_, copy)| copy.written_before_it_began()).min()
    }

    fn copies(&self, set: &Set) -> impl Iterator<Item = (&'a str, &'a Set)> {
        let of_its_name = self.0.get(&set.name).into_iter().flatten().copied();
        of_its_name.filter(|(_, copy)| is_copy_of(copy, set))
    }
}

impl<'a> Refused<'a> {
    /// " as the copy in offsite", of a set in a store that is not that one.
    pub fn as_the_copy(&self, store: &str) -> String {
        if self.copy_in == store { String::new() } else { format!(" as the copy in {}", self.copy_in) }
    }

    /// What it was refused for, in the words that stand beside this copy of it. Beside an encrypted one there are none of the server: they may show rows.
    pub fn words_beside(&self, set: &'a Set) -> Cow<'a, str> {
        let own = set.verification.restores.iter().find(|own| own.is_one_with(self.check));
        match own.and_then(|own| own.refusal.as_deref()) {
            Some(words) => words.into(),
            None if set.is_encrypted() => format!("what the server said stands beside the copy in {}", self.copy_in).into(),
            None => self.check.refusal.as_deref().unwrap_or_default().into(),
        }
    }

    /// Returns it as JSON has it beside this copy.
    pub fn beside(&self, set: &'a Set) -> RefusedBeside<'a> {
        let RestoreCheck { server, version, checked_at, sql_state, .. } = self.check;
        let (copy_in, refusal, checked_at) = (self.copy_in, self.words_beside(set), *checked_at);
        RefusedBeside { copy_in, server, version, checked_at, refusal, sql_state: sql_state.as_deref() }
    }
}

/// The restore of a copy that was refused for what all copies hold.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RefusedBeside<'a> {
    copy_in: &'a str,
    server: &'a str,
    version: &'a str,
    checked_at: DateTime<Utc>,
    refusal: Cow<'a, str>,
    sql_state: Option<&'a str>,
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
        let together = Together::of([("one", &doubted), ("two", &copy), ("three", &other)]);
        for (listing, expected) in [(&doubted, true), (&copy, true), (&other, false)] {
            let set = &listing.sets[0];
            let found = (together.refused_for_its_data(set, now()).is_some(), together.written_before_it_began(set).is_some());
            assert_eq!(found, (expected, expected), "{}", set.manifest.dump.sha256);
            let copy_in = together.refused_for_its_data(set, now()).map(|refused| refused.copy_in);
            assert_eq!(copy_in, expected.then_some("one"));
        }
    }
}
