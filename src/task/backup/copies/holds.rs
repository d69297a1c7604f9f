//! A hold is on a set, wherever its copies are: every copy is held for as long as any of them, and no store deletes what another one holds.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::place::is_copy_of;
use crate::base::fault::{Fault, Kind};
use crate::pg::failure;
use crate::store::Store;
use crate::task::backup::loss;
use crate::task::backup::markers::{self, COPY_HOLD, DELETING, DeletingMarker, HOLD, HOLDS, Hold, LOSS_HOLD};
use crate::task::backup::set::{self, Listing, MANIFEST, Set};
use crate::task::backup::set_name::SetName;

/// A hold of a copy in another store that lasts longer than those of the copy here.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    pub set: SetName,
    pub hold: Hold,
    /// The store that has it.
    pub store: String,
}

/// Returns what copies in other stores are held for longer than those here: of each kind of hold the longest. Pure.
pub fn elsewhere(into: &Listing, others: &[(&str, &Listing)], now: DateTime<Utc>) -> Vec<Elsewhere> {
    let mut all = Vec::new();
    for set in &into.sets {
        let copies: Vec<(&str, &Set)> = others
            .iter()
            .flat_map(|(store, listing)| listing.sets.iter().map(move |copy| (*store, copy)))
            .filter(|(_, copy)| copy.name == set.name && is_copy_of(copy, set))
            .collect();
        for object in HOLDS {
            let held = copies.iter().filter_map(|(store, copy)| Some((*store, longest(&copy.holds, object, now)?)));
            let Some((store, hold)) = held.max_by_key(|(_, hold)| hold.until) else { continue };
            if longest(&set.holds, object, now).is_none_or(|here| here.until < hold.until) {
                all.push(Elsewhere { set: set.name.clone(), hold: hold.clone(), store: store.to_owned() });
            }
        }
    }
    all
}

/// Adds them to a listing, so that no rule lets these sets go.
pub fn add(listing: &mut Listing, elsewhere: &[Elsewhere]) {
    for held in elsewhere {
        if let Some(set) = listing.sets.iter_mut().find(|set| set.name == held.set) {
            set.holds.push(held.hold.clone());
        }
    }
}

/// Gives all copies of one set the longest holds of any. A store without a key says nothing to one with a key. Returns warnings.
pub async fn unite(name: &SetName, copies: &[(&str, &Store)]) -> Vec<String> {
    let now = Utc::now();
    let mut held = Vec::new();
    for (from, store) in copies {
        held.extend(set::read_holds(store, name).await.into_iter().map(|hold| (*from, store.has_sign_key(), hold)));
    }
    let mut warnings = Vec::new();
    for (to, store) in copies {
        let said = held.iter().filter(|(from, signs, _)| from != to && (*signs || !store.has_sign_key()));
        let holds: Vec<Hold> = said.map(|(_, _, hold)| hold.clone()).collect();
        for hold in HOLDS.iter().filter_map(|object| longest(&holds, object, now)) {
            if let Err(error) = write_longer(store, name, hold).await {
                warnings.push(format!("{name} could not be held in {to}, as another copy is: {}", failure::in_a_line(&error)));
            }
        }
    }
    warnings
}

/// Holds a copy of a set, as a person asked. An error leaves no hold.
pub async fn hold(store: &Store, store_name: &str, set: &Set, hold: &Hold) -> Result<()> {
    markers::write(store, &set.name, HOLD, hold).await?;
    if let Err(error) = ensure_counts(store, store_name, set).await {
        store.delete(&set.name.key(HOLD)).await?;
        return Err(error);
    }
    Ok(())
}

/// Fails where a hold that was just written came too late. Whoever deletes a set writes its marker, then looks for holds: a deletion that began before has
/// its marker by now, and one that begins later finds the hold.
pub async fn ensure_counts(store: &Store, store_name: &str, set: &Set) -> Result<()> {
    let name = &set.name;
    let mut is_going = match markers::read::<DeletingMarker>(store, name, DELETING).await {
        // Of a deletion whose process has died, only the marker may be there: with its manifest and its dump it is still a set.
        Ok(deleting) => deleting.is_some_and(|deleting| !deleting.process.is_known_dead()),
        Err(_) => true,
    };
    for object in [MANIFEST, &set.manifest.dump.object] {
        is_going |= !store.exists_for_certain(&name.key(object)).await?;
    }
    if is_going {
        return Err(Fault::new(
            Kind::Deferred,
            format!("{name} is being deleted in {store_name}, so a hold of it there is too late"),
        )
        .into());
    }
    Ok(())
}

/// Holds a set, unless it is held for as long already. Returns whether it wrote. A hold that is in doubt is not passed on, and
/// none is replaced: what it says is not known.
pub async fn write_longer(store: &Store, name: &SetName, hold: &Hold) -> Result<bool> {
    let object = object_of(hold);
    if hold.is_doubted() {
        return Ok(false);
    }
    let is_longer = match markers::read::<Hold>(store, name, object).await {
        Ok(there) => there.is_none_or(|there| there.until < hold.until),
        Err(error) => {
            tracing::debug!("{error:#}");
            false
        }
    };
    if !is_longer {
        return Ok(false);
    }
    let mut hold = hold.clone();
    // After a loss it names tables.
    if hold.because_of.is_some() && store.age_keys().seals_manifests {
        loss::HIDDEN.clone_into(&mut hold.reason);
    }
    markers::write(store, name, object, &hold).await?;
    Ok(true)
}

/// The longest hold of a kind that is in force.
fn longest<'h>(holds: &'h [Hold], object: &str, now: DateTime<Utc>) -> Option<&'h Hold> {
    holds.iter().filter(|hold| hold.until > now && object_of(hold) == object).max_by_key(|hold| hold.until)
}

fn object_of(hold: &Hold) -> &'static str {
    match hold {
        Hold { for_copy: true, .. } => COPY_HOLD,
        Hold { because_of: Some(_), .. } => LOSS_HOLD,
        Hold { .. } => HOLD,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::task::backup::manifest::tests::manifest;

    fn listing(holds: &[(i64, bool)], now: DateTime<Utc>) -> Listing {
        let hold = |(days, after_loss): &(i64, bool)| Hold {
            until: now + TimeDelta::days(*days),
            reason: "it".to_owned(),
            because_of: after_loss.then(|| "app/nightly/2026-11-29T02-00-00Z".to_owned()),
            for_copy: false,
        };
        let set = Set {
            name: "app/nightly/2026-11-28T02-00-00Z".parse().unwrap(),
            manifest: manifest(),
            verification: Default::default(),
            holds: holds.iter().map(hold).collect(),
            listed: Default::default(),
        };
        Listing { sets: vec![set], ..Listing::default() }
    }

    #[test]
    fn a_copy_is_held_for_as_long_as_any_other_by_each_kind_of_hold() {
        let now: DateTime<Utc> = "2026-11-30T00:00:00Z".parse().unwrap();
        type Holds<'a> = &'a [(i64, bool)];
        let cases: [(Holds<'_>, Holds<'_>, Holds<'_>, Holds<'_>); 6] = [
            (&[], &[(30, true)], &[], &[(30, true)]),
            (&[(30, true)], &[(29, true)], &[], &[]),
            (&[(10, true)], &[(20, true)], &[(30, true)], &[(30, true)]),
            (&[(10, false)], &[(5, true)], &[(20, false)], &[(20, false), (5, true)]),
            (&[], &[(-1, true)], &[], &[]),
            (&[], &[], &[], &[]),
        ];
        for (here, b, c, expected) in cases {
            let (here, b, c) = (listing(here, now), listing(b, now), listing(c, now));
            let found = elsewhere(&here, &[("b", &b), ("c", &c)], now);
            let found: Vec<(i64, bool)> =
                found.iter().map(|held| ((held.hold.until - now).num_days(), held.hold.because_of.is_some())).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_has_only_the_name_of_a_set_holds_nothing() {
        let now = Utc::now();
        let (here, mut other) = (listing(&[], now), listing(&[(30, true)], now));
        other.sets[0].manifest.dump.sha256 = "0".repeat(64);
        assert!(elsewhere(&here, &[("b", &other)], now).is_empty());
    }
}
