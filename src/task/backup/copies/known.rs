//! Whether it is known what stands beside a copy of a set in another store. What one copy was refused for holds for all, so those who say how good a set is
//! name the stores that they could not ask.

use crate::store::Store;
use crate::task::backup::set::Listing;
use crate::task::backup::set_name::SetName;

/// Says why it is not known what stands beside a copy of the set there, or whether there is one. None: there is none, or it is in the listing with its
/// record: each copy is read back when it is made, and has one.
pub fn why_unknown(store: &Store, listing: &Listing, name: &SetName) -> Option<String> {
    if !store.is_there() {
        return Some(format!("there is no folder {} (yet, or is a disk not mounted?)", store.location("")));
    }
    if listing.names().next().is_none() && !store.is_marked() {
        return Some(format!("{} was never written to (yet, or is a disk not mounted?)", store.location("")));
    }
    let unreadable =
        listing.unreadable.iter().find(|(of, _)| of == name).map(|(_, why)| format!("that copy cannot be read: {why}"));
    let not_ours = listing.not_ours.iter().find(|(set, _)| set.name == *name);
    let not_ours = not_ours.map(|(_, signature)| format!("that copy does not count: {}", signature.in_words()));
    let copy = listing.sets.iter().chain(&listing.adopted).find(|set| set.name == *name);
    let lost = copy.and_then(|set| set.listed.record_problem.as_ref());
    let lost = lost.map(|problem| format!("what is recorded beside that copy is not known: {problem}"));
    unreadable.or(not_ours).or(lost).or_else(|| listing.doubt())
}
