//! Lists the batches of a store. A file that is not a batch, or cannot be read, is named and hides no other.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::{StreamExt as _, stream};

use super::batch::{BatchName, ENCRYPTED_OBJECT, MANIFEST, OBJECT, PENDING, RESTORED};
use super::manifest::{Manifest, SameTable};
use super::sealed;
use crate::store::Store;
use crate::store::sign::Signature;

/// The number of manifests that are read at once.
const READ_AT_ONCE: usize = 16;

#[derive(Debug, Default)]
pub struct Listing {
    /// The batches, the oldest first in each series.
    pub batches: Vec<(BatchName, Manifest)>,
    /// Batches without a signature of the store's key: they are not put back.
    pub not_ours: Vec<(BatchName, Manifest, Signature)>,
    pub broken: Vec<Broken>,
    pub pending: Vec<Pending>,
    /// They are put back where none of the batches that replace them left the server that asks.
    pub replaced: Vec<Replaced>,
}

/// A batch whose rows are in another batch of ours, as they were when they left.
#[derive(Debug)]
pub struct Replaced {
    pub batch: (BatchName, Manifest),
    /// Several, where one of them is of a history that its server no longer has, or of a copy of the server.
    pub by: Vec<(BatchName, Manifest)>,
    /// None of them is known to be of the same database: the batch is among those that count, too.
    pub is_doubted: bool,
}

/// A batch that a run is making, or that a killed run left: its transaction decides whether its rows have left their table.
#[derive(Clone, Debug)]
pub struct Pending {
    pub name: BatchName,
    /// Its rows, as far as they were written; `None` when its file cannot be read.
    pub rows: Option<u64>,
    /// True if it counts already, and only its end is to be recorded.
    pub counts: bool,
}

impl Pending {
    pub fn key(&self) -> String {
        self.name.pending()
    }
}

/// A file in an archive that is not a valid batch.
#[derive(Clone, Debug)]
pub struct Broken {
    pub key: String,
    pub reason: String,
    /// True when rows belong to it, or may: it is not just a foreign file.
    pub may_have_rows: bool,
}

impl Listing {
    /// Leaves out what was replaced. `without_object`: batches whose manifest was read, and whose object is gone.
    fn pass_by_what_was_replaced(&mut self, without_object: &[(BatchName, Manifest)]) {
        let mut by: BTreeMap<String, Vec<(BatchName, Manifest)>> = BTreeMap::new();
        for batch in &self.batches {
            let replaces = batch.1.replaces.clone().filter(|name| BatchName(name.clone()).is_of_database(&batch.1.database));
            by.entry(replaces.unwrap_or_default()).or_default().push(batch.clone());
        }
        by.remove("");
        // A copy of a database on the same server has the original's marks, and so may earlier releases have written its batches.
        let may_replace = |(name, manifest): &(BatchName, Manifest)| {
            let by = by.get(&name.to_string()).into_iter().flatten();
            by.filter(|by| by.1.same_table(manifest) != SameTable::No).cloned().collect::<Vec<_>>()
        };
        for batch in std::mem::take(&mut self.batches) {
            let by = may_replace(&batch);
            if by.is_empty() {
                self.batches.push(batch);
                continue;
            }
            let is_doubted = by.iter().all(|by| by.1.same_table(&batch.1) != SameTable::Yes);
            if is_doubted {
                self.batches.push(batch.clone());
            }
            self.replaced.push(Replaced { batch, by, is_doubted });
        }
        // Its object may be gone: that is why it was replaced.
        self.broken.retain(|broken| {
            let of = |name: &str| broken.key.strip_prefix(name).is_some_and(|end| end.starts_with('.'));
            match without_object.iter().find(|(name, _)| of(&name.0)) {
                Some(batch) => may_replace(batch).is_empty(),
                None => !by.keys().any(|name| of(name)),
            }
        });
    }
}

/// The parts of a batch that exist.
#[derive(Default)]
struct Parts {
    object: bool,
    encrypted_object: bool,
    manifest: bool,
    pending: bool,
}

impl Parts {
    fn has_object(&self, is_encrypted: bool) -> bool {
        if is_encrypted { self.encrypted_object } else { self.object }
    }
}

/// Lists all batches of a store whose keys start with `folder`.
pub async fn list(store: &Store, folder: &str) -> Result<Listing> {
    let listed = store.list_readable(folder).await?;
    let mut listing = Listing::default();
    for unread in listed.unread {
        let may_have_rows = unread.hides_folder || BatchName::of_object(&unread.key).is_some() || unread.key.ends_with(MANIFEST);
        listing.broken.push(Broken { key: unread.key, reason: unread.reason, may_have_rows });
    }
    let mut found: BTreeMap<BatchName, Parts> = BTreeMap::new();
    for object in &listed.objects {
        // `.pending.json` and `.restored.json` also end with `.json`.
        if object.key.ends_with(RESTORED) {
            continue;
        }
        let Some((name, end)) =
            [PENDING, OBJECT, ENCRYPTED_OBJECT, MANIFEST].into_iter().find_map(|end| Some((object.key.strip_suffix(end)?, end)))
        else {
            continue;
        };
        if name.split('/').nth(2) == Some("archive") && name.split('/').count() == 4 {
            let parts = found.entry(BatchName(name.to_owned())).or_default();
            match end {
                PENDING => parts.pending = true,
                OBJECT => parts.object = true,
                ENCRYPTED_OBJECT => parts.encrypted_object = true,
                _ => parts.manifest = true,
            }
        }
    }
    for (name, parts) in found.iter().filter(|(_, parts)| parts.pending) {
        let read = sealed::read(store, &name.pending()).await?;
        let rows = read.and_then(Result::ok).map(|(manifest, _)| manifest.exported.rows + manifest.came_back);
        listing.pending.push(Pending { name: name.clone(), rows, counts: parts.manifest });
    }
    let reading = found.into_iter().filter(|(_, parts)| parts.manifest || !parts.pending).map(|(name, parts)| async move {
        let read = read(store, &name).await;
        (name, parts, read)
    });
    let mut without_object = Vec::new();
    for (name, parts, read) in stream::iter(reading).buffered(READ_AT_ONCE).collect::<Vec<_>>().await {
        listing.broken.extend(beside(&name, &parts, read.as_ref().ok()));
        let reason = match read {
            Ok(Some((manifest, _))) if !parts.has_object(manifest.exported.encryption.is_some()) => {
                let object = name.object(&manifest.exported);
                without_object.push((name.clone(), manifest));
                format!("its {} is gone", if object.ends_with(ENCRYPTED_OBJECT) { ENCRYPTED_OBJECT } else { OBJECT })
            }
            Ok(Some((manifest, _))) if !manifest.is_of(&name) => format!(
                "its manifest is of job {} on database {}, but it is in the folder of another",
                manifest.job, manifest.database
            ),
            Ok(Some((manifest, signature))) if signature.is_ours() => {
                listing.batches.push((name, manifest));
                continue;
            }
            Ok(Some((manifest, signature))) => {
                listing.not_ours.push((name, manifest, signature));
                continue;
            }
            Ok(None) => format!("its {MANIFEST} is gone"),
            Err(error) => format!("{error:#}"),
        };
        let key = match parts {
            Parts { object: true, .. } => name.object_in(false),
            Parts { encrypted_object: true, .. } => name.object_in(true),
            _ => format!("{name}{MANIFEST}"),
        };
        listing.broken.push(Broken { key, reason, may_have_rows: parts.object || parts.encrypted_object });
    }
    listing.pass_by_what_was_replaced(&without_object);
    Ok(listing)
}

/// Returns the object that a batch has besides that of its manifest: a run writes one.
fn beside(name: &BatchName, parts: &Parts, read: Option<&Option<(Manifest, Signature)>>) -> Option<Broken> {
    let (manifest, _) = read?.as_ref().filter(|_| parts.object && parts.encrypted_object)?;
    let is_encrypted = manifest.exported.encryption.is_some();
    let reason = format!(
        "its manifest is of {}, which lies beside it: one of the two is somebody else's, and so may the manifest be",
        name.object_in(is_encrypted)
    );
    Some(Broken { key: name.object_in(!is_encrypted), reason, may_have_rows: true })
}

/// Returns the manifest of a batch that counts; `None` when there is none.
pub async fn read(store: &Store, name: &BatchName) -> Result<Option<(Manifest, Signature)>> {
    sealed::read(store, &format!("{name}{MANIFEST}")).await?.transpose()
}
