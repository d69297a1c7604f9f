//! The databases that batches are of. Two configurations may call two databases the same, and share a store: then the batches of both are in one folder,
//! and a restore takes those of one.

use std::collections::BTreeSet;

use anyhow::Result;

use super::find::Found;
use super::restore::Arguments;
use crate::archive::Identity;
use crate::base::fault::{Fault, Kind};

/// Keeps the batches that `--from` means. Without it, batches of several databases in one folder are an error, unless `--any` takes all of them.
pub(super) fn choose(found: &mut Vec<Found>, arguments: &Arguments) -> Result<()> {
    if let Some(from) = &arguments.from {
        let known = identities(found.iter());
        // Batches of the first release do not say where they are from.
        found.retain(|found| found.batch.1.identity().is_none_or(|identity| identity.is_meant(from)));
        if found.is_empty() {
            let message = format!("no archived batch is of {from}, but of {}", in_words(&known));
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        return Ok(());
    }
    match mixed(found) {
        Some((folder, several)) if !arguments.any => {
            let message = format!(
                "{folder} holds rows of two databases or servers under one name: use {}, or --any to put back those of all",
                several.iter().map(|identity| format!("--from {identity}")).collect::<Vec<_>>().join(" or ")
            );
            Err(Fault::new(Kind::Configuration, message).into())
        }
        _ => Ok(()),
    }
}

/// Warns where batches of several databases are in one folder.
pub(super) fn say_several(found: &[Found]) {
    if let Some((folder, several)) = mixed(found) {
        tracing::warn!("{folder} holds rows of two databases or servers under one name: {}", in_words(&several));
    }
}

/// Returns the first folder with batches of several databases, and these.
fn mixed(found: &[Found]) -> Option<(String, BTreeSet<Identity>)> {
    let folder = |found: &Found| (found.batch.1.database.clone(), found.batch.1.job.clone());
    let folders: BTreeSet<_> = found.iter().map(folder).collect();
    folders.into_iter().find_map(|of| {
        let several = identities(found.iter().filter(|found| folder(found) == of));
        (several.len() > 1).then(|| (format!("{}/{}", of.0, of.1), several))
    })
}

/// Returns the identities of batches, without those that may be one of the others.
fn identities<'a>(found: impl IntoIterator<Item = &'a Found>) -> BTreeSet<Identity> {
    let all: BTreeSet<Identity> = found.into_iter().filter_map(|found| found.batch.1.identity()).collect();
    let full: Vec<Identity> = all.iter().filter(|identity| identity.database.is_some()).cloned().collect();
    all.into_iter().filter(|identity| identity.database.is_some() || !full.iter().any(|other| other.may_be(identity))).collect()
}

fn in_words(identities: &BTreeSet<Identity>) -> String {
    identities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
