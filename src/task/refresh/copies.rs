//! The sets of the job in all its stores. Of each, the copy that is used first is the nearest intact one; where that is damaged, or its store does not answer,
//! it is another one.

use std::collections::BTreeMap;

use anyhow::Result;

use super::source::Source;
use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::pg::failure;
use crate::store::{Store, key};
use crate::task::backup::copies::place::is_copy_of;
use crate::task::backup::copies::several::ensure_answers;
use crate::task::backup::locked;
use crate::task::backup::series::Series;
use crate::task::backup::set::{self, Set};
use crate::task::backup::set_name::SetName;
use crate::task::backup::verdict::Bytes;

/// A set in one store.
#[derive(Clone, Debug)]
pub struct SetCopy {
    pub store_name: String,
    pub store: Store,
    pub set: Set,
}

/// The sets of the job.
pub struct Listed {
    pub sets: Vec<Copies>,
    pub series: Series,
    /// What was seen beside them.
    pub notes: Vec<String>,
}

/// The copies of one set, in the order of their use: one at least.
pub struct Copies {
    pub first: SetCopy,
    pub others: Vec<SetCopy>,
}

/// Lists the sets. What cannot be listed may be newer than all that is: then it is an error, unless another store is there with copies.
pub async fn list(config: &Config, source: &Source) -> Result<Listed> {
    let are_several = source.stores.len() > 1;
    let (mut read, mut failed) = (Vec::new(), Vec::new());
    for name in &source.stores {
        match listed_in(config, name, source, are_several).await {
            Ok(listed) => read.push((name, listed)),
            Err(error) => failed.push((name, error)),
        }
    }
    let Some((_, InStore { store: nearest, .. })) = read.first() else {
        let first = failed.into_iter().next().map(|(name, error)| error.context(format!("store `{name}`")));
        return Err(first.unwrap_or_else(|| anyhow::anyhow!("the job has no store")));
    };
    let (series, trouble) = Series::read(nearest, &source.database, &source.job).await?;
    let mut notes: Vec<String> = trouble.into_iter().collect();
    notes.extend(failed.iter().map(|(name, error)| {
        let why = failure::in_a_line(error);
        format!("store `{name}` cannot be read, so a newer set may be there; a copy in another one is taken: {why}")
    }));
    // Its disk may not be mounted.
    let away = read.iter().filter(|(_, found)| are_several && found.sets.is_empty() && !found.store.is_marked());
    notes.extend(away.map(|(name, found)| {
        let folder = found.store.location("");
        format!(
            "store `{name}`: {folder} was never written to (yet, or is a disk not mounted?), so a newer set may be there; a copy in another one is taken"
        )
    }));
    let mut by_name: BTreeMap<SetName, Vec<SetCopy>> = BTreeMap::new();
    for (name, InStore { store, sets, notes: of_store }) in read {
        notes.extend(of_store);
        for set in sets {
            let copy = SetCopy { store_name: name.clone(), store: store.clone(), set };
            by_name.entry(copy.set.name.clone()).or_default().push(copy);
        }
    }
    by_name.values().try_for_each(|copies| are_of_one_set(copies))?;
    let sets = by_name.into_values().filter_map(Copies::in_order).collect();
    Ok(Listed { sets, series, notes })
}

/// Fails where one name has sets of two dumps: somebody else wrote one of them.
fn are_of_one_set(copies: &[SetCopy]) -> Result<()> {
    let Some((first, others)) = copies.split_first() else { return Ok(()) };
    let Some(other) = others.iter().find(|other| !is_copy_of(&other.set, &first.set)) else { return Ok(()) };
    let message = format!(
        "{} in {} and in {} are two different sets, of which one was not written by the run of that name: compare them (`pgtend backups show`), and choose a \
         store with the key `store`",
        first.set.name, first.store_name, other.store_name
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

struct InStore {
    store: Store,
    sets: Vec<Set>,
    notes: Vec<String>,
}

async fn listed_in(config: &Config, name: &str, source: &Source, are_several: bool) -> Result<InStore> {
    let store = Store::named(config, name).await?;
    if are_several {
        ensure_answers(&store).await?;
    }
    let listing = set::list(&store, &key::folder(&source.database, &source.job)).await?;
    if let Some(doubt) = listing.doubt() {
        anyhow::bail!(doubt);
    }
    let unreadable = listing.unreadable.iter().map(|(set, reason)| format!("{set} in {name} cannot be restored: {reason}"));
    let notes = unreadable.chain(listing.not_ours_in_words()).collect();
    Ok(InStore { store, sets: listing.sets, notes })
}

impl Copies {
    /// Of equals, the nearest comes first.
    fn in_order(mut copies: Vec<SetCopy>) -> Option<Self> {
        copies.sort_by_key(rank);
        let mut copies = copies.into_iter();
        Some(Self { first: copies.next()?, others: copies.collect() })
    }

    /// Leaves those that this host can open, with a note of each other one. An error if there is none.
    pub async fn that_open(self) -> Result<(Vec<SetCopy>, Vec<String>)> {
        let (mut open, mut notes, mut refused) = (Vec::new(), Vec::new(), None);
        for copy in [self.first].into_iter().chain(self.others) {
            let opens = match copy.set.manifest.names_are_sealed() {
                true => Err(locked::refusal(&copy.store, &copy.set, "its manifest is sealed")),
                false => locked::ensure_opens(&copy.store, &copy.set).await,
            };
            match opens {
                Ok(()) => open.push(copy),
                Err(error) => {
                    notes.push(format!("the copy in {} cannot be used here: {}", copy.store_name, failure::in_a_line(&error)));
                    refused = refused.or(Some(error));
                }
            }
        }
        match refused {
            Some(error) if open.is_empty() => Err(error),
            _ => Ok((open, notes)),
        }
    }
}

/// An intact copy comes before one that nobody has read, and that before a damaged one.
fn rank(copy: &SetCopy) -> u8 {
    match copy.set.verification.verdict() {
        Bytes::Intact => 0,
        Bytes::Unknown => 1,
        Bytes::Damaged => 2,
    }
}
