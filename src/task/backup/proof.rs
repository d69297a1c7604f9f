//! Decides what a deletion may rely on, in a store with a key. A `verification.json` is signed, but whoever can write to the store may put
//! back an old one with a valid signature: "intact" for a set that was found damaged since. So a prune relies only on what this process has
//! read itself, and reads the sets that its deletions rest on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::keep::Decision;
use super::rules::{Pruned, Rules};
use super::set::{Listing, Set};
use super::set_name::SetName;
use super::verdict::{Bytes, BytesCheck};
use super::{read_back, rules, set};
use crate::base::progress::Progress;
use crate::store::Store;

type Known = BTreeMap<(String, SetName), (Bytes, DateTime<Utc>)>;

/// The verdicts of this process, by store and set.
static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());

/// Remembers a verdict that this process has just reached. A read without a verdict is ignored.
pub fn remember(store: &Store, name: &SetName, check: &BytesCheck) {
    if check.verdict != Bytes::Unknown {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((store.identity(), name.clone()), (check.verdict, check.checked_at));
    }
}

/// Whether this process reached the recorded verdict at the recorded time.
fn is_known(store: &Store, set: &Set) -> bool {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.get(&(store.identity(), set.name.clone()));
    found.zip(set.verification.bytes.as_ref()).is_some_and(|(known, bytes)| *known == (bytes.verdict, bytes.checked_at))
}

/// Decides as [`prune::decide`] does. In a store with a key, sets are read before another set is deleted because of them: newest first, and
/// only as many as are needed to show that the rules allow it. A set for which that cannot be shown stays.
pub async fn decide(
    store: &Store,
    listing: &mut Listing,
    rules: &Rules<'_>,
    progress: &Progress,
    pruned: &mut Pruned,
) -> Result<Vec<Decision>> {
    let mut decisions = rules::decide(listing, rules, None);
    if !store.has_sign_key() {
        return Ok(decisions);
    }
    let mut tried: BTreeSet<String> = BTreeSet::new();
    let mut stay: BTreeSet<String> = BTreeSet::new();
    while let Some(doubted) = decisions
        .iter()
        .filter(|decision| goes(decision) && !stay.contains(&decision.name))
        .find(|decision| !goes_by_what_is_known(store, listing, rules, &decision.name))
        .map(|decision| decision.name.clone())
    {
        let Some(next) = next_to_read(store, listing, &decisions, &doubted, &tried) else {
            stay.insert(doubted);
            continue;
        };
        if let Some(set) = listing.sets.iter_mut().find(|set| set.name.to_string() == next) {
            check_one(store, set, progress, pruned).await;
        }
        tried.insert(next);
        decisions = rules::decide(listing, rules, None);
    }
    for decision in decisions.iter_mut().filter(|decision| goes(decision) && stay.contains(&decision.name)) {
        decision.keep = true;
        decision.reasons = vec!["the sets that would replace it could not be read".to_owned()];
    }
    Ok(decisions)
}

fn goes(decision: &Decision) -> bool {
    !decision.keep && !decision.check_first
}

/// Whether the set goes if, of all others, only those count as intact that this process has read. Damage must also be read, not taken from
/// a record.
fn goes_by_what_is_known(store: &Store, listing: &Listing, rules: &Rules<'_>, name: &str) -> bool {
    let is_it = |set: &Set| set.name.to_string() == name;
    if listing.sets.iter().any(|set| is_it(set) && set.verification.verdict() == Bytes::Damaged && !is_known(store, set)) {
        return false;
    }
    let decisions = rules::decide_by(listing, rules, None, &|set| is_it(set) || is_known(store, set));
    decisions.iter().any(|decision| decision.name == name && goes(decision))
}

/// The next set whose reading may show that `doubted` goes: itself if it is recorded as damaged, otherwise the newest of its kind that
/// stays.
fn next_to_read(
    store: &Store,
    listing: &Listing,
    decisions: &[Decision],
    doubted: &str,
    tried: &BTreeSet<String>,
) -> Option<String> {
    let set_of = |name: &str| listing.sets.iter().find(|set| set.name.to_string() == name);
    let itself = set_of(doubted)?;
    let may_help = |set: &Set| !tried.contains(&set.name.to_string()) && !is_known(store, set);
    if itself.verification.verdict() == Bytes::Damaged && may_help(itself) {
        return Some(doubted.to_owned());
    }
    decisions
        .iter()
        .filter(|decision| decision.keep)
        .filter_map(|decision| set_of(&decision.name))
        .find(|set| {
            set.verification.verdict() == Bytes::Intact && set.manifest.filters == itself.manifest.filters && may_help(set)
        })
        .map(|set| set.name.to_string())
}

/// Reads a set back and records the verdict. A read without a result is a warning.
pub(super) async fn check_one(store: &Store, set: &mut Set, progress: &Progress, pruned: &mut Pruned) {
    let name = set.name.to_string();
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    match read_back::check(store, set, &phase).await {
        Ok(check) => {
            phase.done(&format!("{name}: {}", check.verdict.name()));
            remember(store, &set.name, &check);
            set.verification.record_bytes(check);
            if let Err(error) = set::write_verification(store, set).await {
                pruned.warnings.push(format!("the verdict on set {name} could not be recorded: {error:#}"));
            }
            if set.verification.verdict() == Bytes::Damaged {
                pruned.warnings.push(format!("set {name} is damaged"));
            }
        }
        Err(error) => pruned.warnings.push(format!("set {name} could not be read and stays: {error:#}")),
    }
}
