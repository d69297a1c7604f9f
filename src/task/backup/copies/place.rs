//! What stands where a set is to be copied to. The folder is written to only if it is empty, or if its `run.json` says that it is of this very set:
//! begun by the run that made it, or by an earlier copy.

use anyhow::Result;

use crate::base::fault::{Fault, Kind};
use crate::store::Store;
use crate::task::backup::manifest::Globals;
use crate::task::backup::markers::{self, DELETING, DeletingMarker, RUN, RunMarker};
use crate::task::backup::set::{self, DUMPS, MANIFEST, Set, VERIFICATION};
use crate::task::backup::set_name::SetName;
use crate::task::backup::verdict::Bytes;

pub enum Place {
    /// There is nothing.
    Free,
    /// Parts of this set, or a copy of it that is damaged.
    Begun(Box<RunMarker>),
    /// All of the set.
    Complete(Box<Set>),
}

/// The value that is the same in all copies of a set, and in no other set: that of its run, or its hash where its run has recorded none.
pub async fn nonce_of(store: &Store, set: &Set) -> Result<(String, Option<i64>)> {
    let marker = markers::read::<RunMarker>(store, &set.name, RUN).await.unwrap_or_else(|error| {
        tracing::debug!("{error:#}");
        None
    });
    Ok(match marker {
        Some(marker) if !marker.nonce.is_empty() => (marker.nonce, marker.run),
        _ => (format!("sha256:{}", set.manifest.dump.sha256), None),
    })
}

/// Looks where `set` would be copied to. Anything of another set there is an error, and stays.
pub async fn look(store: &Store, store_name: &str, set: &Set, nonce: &str) -> Result<Place> {
    let refuse = |why: String| {
        let message = format!("{} is not copied to {store_name}: {why}; what is there stays as it is", set.name);
        anyhow::Error::from(Fault::new(Kind::Configuration, message))
    };
    let mut listing = set::list(store, &set.name.key("")).await?;
    listing.with_adopted();
    if let Some((_, signature)) = listing.not_ours.first() {
        return Err(refuse(format!("a set of that name is there which is not accepted: {}", signature.in_words())));
    }
    let marker = markers::read::<RunMarker>(store, &set.name, RUN).await.map_err(|error| refuse(format!("{error:#}")))?;
    let is_ours = marker.as_ref().is_some_and(|marker| marker.nonce == nonce);
    if let Some(there) = listing.sets.into_iter().next() {
        // Of other bytes, the marker alone would prove too little: both must have come of one dump.
        let is_this = has_same_bytes(&there, set) || (is_ours && is_copy_of(&there, set));
        return match marker {
            _ if !is_this => Err(refuse("another set has that name there".to_owned())),
            Some(marker) if there.verification.verdict() == Bytes::Damaged && is_ours => Ok(Place::Begun(Box::new(marker))),
            _ if there.verification.verdict() == Bytes::Damaged => Err(refuse(format!(
                "the copy there is damaged, and has no {RUN} that says whose it is: delete its folder, then copy"
            ))),
            _ => Ok(Place::Complete(Box::new(there))),
        };
    }
    if let Some(marker) = marker.filter(|_| is_ours) {
        return Ok(Place::Begun(Box::new(marker)));
    }
    let is_empty = listing.incomplete.is_empty() && listing.unreadable.is_empty() && listing.unseen.is_empty();
    match is_empty {
        true => Ok(Place::Free),
        false => Err(refuse(format!(
            "objects that are not of it have that name there ({})",
            listing.unreadable.first().map_or_else(|| format!("no {RUN} says that they are"), |(_, why)| why.clone())
        ))),
    }
}

/// A deletion of the set that was interrupted where a copy of it is to be made.
pub struct InterruptedDeletion {
    name: SetName,
    /// It had not begun with the dump, which goes first: a set is there still.
    has_dump: bool,
}

/// Looks for one. An error if its process may still be deleting; `are_over`: no run is active that could.
pub async fn interrupted_deletion(
    store: &Store,
    store_name: &str,
    set: &Set,
    are_over: bool,
) -> Result<Option<InterruptedDeletion>> {
    let Some(deleting) = markers::read::<DeletingMarker>(store, &set.name, DELETING).await? else { return Ok(None) };
    if !are_over && !deleting.process.is_known_dead() {
        let message = format!(
            "{} may be being deleted from {store_name} by {}: copy it when that has ended, on the same host, or let the next run do it",
            set.name, deleting.process
        );
        return Err(Fault::new(Kind::Deferred, message).into());
    }
    let mut has_dump = false;
    for dump in DUMPS {
        has_dump |= store.stat(&set.name.key(dump)).await?.is_some();
    }
    Ok(Some(InterruptedDeletion { name: set.name.clone(), has_dump }))
}

impl InterruptedDeletion {
    /// Ends it before anything is written: a sweep would take what stands beside `deleting.json` for the rest of the deletion, and delete the copy. Without
    /// its dump the set is lost there, and its manifest goes first.
    pub async fn finish(self, store: &Store) -> Result<()> {
        let rest: &[&str] = if self.has_dump { &[] } else { &[MANIFEST, VERIFICATION] };
        for object in rest.iter().chain([&DELETING]) {
            store.delete(&self.name.key(object)).await?;
        }
        Ok(())
    }
}

/// Returns whether two sets of one name are copies of each other.
pub fn is_copy_of(a: &Set, b: &Set) -> bool {
    has_same_bytes(a, b) || ((a.is_encrypted() || b.is_encrypted()) && is_of_one_dump(a, b))
}

fn has_same_bytes(a: &Set, b: &Set) -> bool {
    let of_globals = |set: &Set| match &set.manifest.globals {
        Globals::Object { sha256, .. } => Some(sha256.clone()),
        Globals::Absent { .. } => None,
    };
    a.manifest.dump.sha256 == b.manifest.dump.sha256 && of_globals(a) == of_globals(b)
}

/// Returns whether two sets came of one dump, encrypted for different recipients.
fn is_of_one_dump(a: &Set, b: &Set) -> bool {
    let (a, b) = (&a.manifest, &b.manifest);
    // An encrypted one has no hashes of rows.
    let has_same_tables =
        || a.tables.len() == b.tables.len() && a.tables.iter().zip(&b.tables).all(|(a, b)| a.has_the_rows_of(b));
    (a.started_at, a.dump.uncompressed_bytes, a.dump.members.count)
        == (b.started_at, b.dump.uncompressed_bytes, b.dump.members.count)
        && (a.names_are_sealed() || b.names_are_sealed() || has_same_tables())
}
