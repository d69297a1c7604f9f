//! Whether it is known what stands beside a copy of a set in another store. What one copy was refused for holds for all, so those who say how good a set is
//! name the stores that they could not ask.

use crate::store::Store;
use crate::task::backup::set::Listing;
use crate::task::backup::set_name::SetName;

/// Says why a copy of the set may be there of which nothing can be read. None: there is none, or it is in the listing.
pub fn why_unknown(store: &Store, listing: &Listing, name: &SetName) -> Option<String> {
    if !store.is_there() {
        return Some(format!("there is no folder {} (yet, or is a disk not mounted?)", store.location("")));
    }
    let unreadable =
        listing.unreadable.iter().find(|(of, _)| of == name).map(|(_, why)| format!("that copy cannot be read: {why}"));
    let not_ours = listing.not_ours.iter().find(|(set, _)| set.name == *name);
    let not_ours = not_ours.map(|(_, signature)| format!("that copy does not count: {}", signature.in_words()));
    unreadable.or(not_ours).or_else(|| listing.doubt())
}
