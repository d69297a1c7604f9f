//! A set in a store: `DATABASE/JOB/2026-11-23T02-00-00Z/{dump.sql.gz, globals.sql.gz, manifest.json}`; encrypted, the names of the first two end
//! with `.age`. The manifest is written last, and only a manifest makes a set. `verification.json` beside it records the verdicts; markers.rs describes what else may be there.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use super::identity::Identity;
use super::manifest::{self, Globals, Manifest};
use super::markers::{self, Hold, RunMarker};
use super::restore_check::CLOCKS_DIFFER;
use super::sealed;
use super::verdict::Verification;
use crate::base::units;
use crate::members::compress::Compression;
use crate::members::encryption::ENDING;
use crate::store::sign::Signature;
use crate::store::{Listed, Object, SMALL_OBJECT_BYTES, Store, Unread};
use crate::task::backup::set_name::SetName;

pub const MANIFEST: &str = "manifest.json";
pub const VERIFICATION: &str = "verification.json";
pub const GLOBALS: &str = "globals.sql.gz";
pub const ENCRYPTED_GLOBALS: &str = "globals.sql.gz.age";

/// The possible names of a set's globals.
pub const ALL_GLOBALS: [&str; 2] = [GLOBALS, ENCRYPTED_GLOBALS];

/// Sets whose small objects are read concurrently. One after the other, 400 sets took 14 s.
const READ_AT_ONCE: usize = 32;

/// The MiB of manifests that are read concurrently: the largest possible ones are read one after the other.
const READ_MIB: usize = 64;

/// The possible names of a set's dump.
pub const DUMPS: [&str; 4] = [
    Compression::Gzip.dump_object(),
    Compression::Zstd.dump_object(),
    Compression::Gzip.encrypted_dump_object(),
    Compression::Zstd.encrypted_dump_object(),
];

/// A set is encrypted as a whole: the globals hold the hashes of passwords.
pub fn globals_object(is_encrypted: bool) -> &'static str {
    if is_encrypted { ENCRYPTED_GLOBALS } else { GLOBALS }
}

/// A set in a store.
#[derive(Clone, Debug)]
pub struct Set {
    pub name: SetName,
    pub manifest: Manifest,
    pub verification: Verification,
    /// Holds by a person, and after a loss.
    pub holds: Vec<Hold>,
    pub listed: AsListed,
}

/// What the listing of a set's folder says besides what is in its objects.
#[derive(Clone, Debug, Default)]
pub struct AsListed {
    /// When the manifest was written, by the store's clock.
    pub manifest_at: Option<DateTime<Utc>>,
    /// Why the globals are not those of the manifest, though the dump is.
    pub globals_problem: Option<String>,
    /// Why what is recorded beside it is not known: there is no record, or one that does not count.
    pub record_problem: Option<String>,
    /// A key of its store has signed it, and what is recorded beside it.
    pub is_signed: bool,
    /// Beside an encrypted set, the objects of a dump that are not encrypted: whoever reads the store reads them.
    pub in_the_clear: Vec<&'static str>,
}

impl Set {
    /// The server and database that it was taken from; None where that could not be read.
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(&self.manifest.server)
    }

    /// Returns whether it is dated in the future: after now, or after the database server's clock when it was made. A wrong clock named it, and
    /// time does not cure that.
    pub fn is_from_the_future(&self, now: DateTime<Utc>) -> bool {
        let (taken_at, started_at) = (self.name.taken_at, self.manifest.started_at);
        // Its dump may begin some time after the database's server was asked.
        self.manifest.server.clock.is_some_and(|clock| taken_at - clock > CLOCKS_DIFFER)
            || taken_at.max(started_at) - now > CLOCKS_DIFFER
    }

    /// The time of its manifest by the clock of its store, or of the one that it was copied from, where the set began after that. One of the two clocks is
    /// wrong, and nobody knows which: it opens no gate, and stays and is restored like any other.
    pub fn written_before_it_began(&self) -> Option<DateTime<Utc>> {
        let began_at = self.name.taken_at.max(self.manifest.started_at);
        let written_at = [self.listed.manifest_at, self.verification.written_at].into_iter().flatten().min()?;
        (began_at - written_at > CLOCKS_DIFFER).then_some(written_at)
    }

    /// Returns whether pgtend did not make its dump.
    pub fn is_adopted(&self) -> bool {
        self.manifest.adopted.is_some()
    }

    pub fn is_encrypted(&self) -> bool {
        self.manifest.dump.encryption.is_some()
    }

    /// The name of its globals, whether it has some or not.
    pub fn globals_object(&self) -> &'static str {
        globals_object(self.is_encrypted())
    }

    /// The holds that are in force.
    pub fn held(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |hold| hold.until > now)
    }
}

/// The contents of a folder of sets.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Oldest first.
    pub sets: Vec<Set>,
    /// Sets whose dump pgtend did not make, oldest first. They are apart, so that nothing takes them for a backup.
    pub adopted: Vec<Set>,
    /// Folders without a set: of an active run, of a killed one, or of an interrupted deletion.
    pub incomplete: Vec<(SetName, Vec<Object>)>,
    /// Manifests that cannot be read, or are gone, with the reason. These are left alone.
    pub unreadable: Vec<(SetName, String)>,
    /// Sets whose manifest lacks a valid signature although the store has a key: they are not counted, restored or deleted.
    pub not_ours: Vec<(Set, Signature)>,
    /// Folders that could not be listed and may hold sets: this listing may be incomplete.
    pub unseen: Vec<Unread>,
    /// The newest object's time, by the store's clock in a bucket: now is later.
    pub newest_object_at: Option<DateTime<Utc>>,
}

impl Listing {
    /// Every name that is in use.
    pub fn names(&self) -> impl Iterator<Item = &SetName> {
        let incomplete = self.incomplete.iter().map(|(name, _)| name);
        let unreadable = self.unreadable.iter().map(|(name, _)| name);
        let not_ours = self.not_ours.iter().map(|(set, _)| &set.name);
        self.sets.iter().chain(&self.adopted).map(|set| &set.name).chain(incomplete).chain(unreadable).chain(not_ours)
    }

    /// Also takes adopted sets, for a person who lists, verifies or restores.
    pub fn with_adopted(&mut self) {
        self.sets.append(&mut self.adopted);
        self.sets.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Also takes sets without a signature, because a person said so.
    pub fn accept_unsigned(&mut self) {
        let (adopted, own) = self.not_ours.drain(..).map(|(set, _)| set).partition::<Vec<_>, _>(Set::is_adopted);
        self.sets.extend(own);
        self.sets.sort_by(|a, b| a.name.cmp(&b.name));
        self.adopted.extend(adopted);
        self.adopted.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// The reason why the listing may be incomplete; None when it is complete.
    pub fn doubt(&self) -> Option<String> {
        let Unread { key, reason, .. } = self.unseen.first()?;
        Some(format!("it is unknown whether the folder {key} holds sets: {reason}"))
    }

    /// A time that is not after now: in a folder, a file may be dated ahead by whoever wrote it, and this host's clock bounds it. None in an empty store.
    pub fn not_after_now(&self) -> Option<DateTime<Utc>> {
        self.newest_object_at.map(|newest| newest.min(Utc::now()))
    }

    /// A sentence about the sets that are not ours; None when there are none.
    pub fn not_ours_in_words(&self) -> Option<String> {
        let (set, signature) = self.not_ours.last()?;
        let count = units::plural(self.not_ours.len(), "set");
        Some(format!("{count} here are ignored and stay, the newest of them {}: {}", set.name, signature.in_words()))
    }
}

/// Reads all sets whose keys start with `folder` (empty: the whole store).
pub async fn list(store: &Store, folder: &str) -> Result<Listing> {
    Ok(read_newest(store, store.list_readable(folder).await?, usize::MAX).await)
}

/// Reads so many of the newest sets that were listed, of each job on each database: older ones are not in the listing.
pub async fn read_newest(store: &Store, listed: Listed, sets_of_a_job: usize) -> Listing {
    let mut folders: BTreeMap<SetName, Vec<Object>> = BTreeMap::new();
    let mut listing = Listing::default();
    for object in listed.objects {
        listing.newest_object_at = listing.newest_object_at.max(object.modified_at);
        // Other objects in the bucket are not ours.
        let Some((path, _)) = object.key.rsplit_once('/') else { continue };
        if let Some(name) = name_of(path) {
            folders.entry(name).or_default().push(object);
        }
    }
    for unread in listed.unread {
        let mut parts = unread.key.splitn(4, '/');
        let path: Vec<&str> = parts.by_ref().take(3).collect();
        match name_of(&path.join("/")) {
            // It is neither a set nor a leftover: its content is unknown.
            Some(name) => {
                folders.remove(&name);
                listing.unreadable.push((name, format!("{}: {}", store.location(&unread.key), unread.reason)));
            }
            None if path.len() < 3 && unread.hides_folder => listing.unseen.push(unread),
            None => {}
        }
    }
    listing.unreadable.dedup_by(|a, b| a.0 == b.0);
    // A deletion removes the dump before the manifest.
    let is_going = |name: &SetName, objects: &[Object]| {
        has(objects, name, markers::DELETING) && !DUMPS.iter().any(|dump| has(objects, name, dump))
    };
    let (with_manifest, without): (Vec<_>, Vec<_>) =
        folders.into_iter().partition(|(name, objects)| has(objects, name, MANIFEST) && !is_going(name, objects));
    // It was a set once, so the listing must show that a newer one existed.
    for (name, objects) in &without {
        listing.unreadable.extend(why_lost(store, name, objects).await.map(|why| (name.clone(), why)));
    }
    listing.incomplete = without;
    let with_manifest = newest_of_each(with_manifest, sets_of_a_job);
    let in_memory = Semaphore::new(READ_MIB);
    let reading = with_manifest.into_iter().map(|(name, objects)| {
        let in_memory = &in_memory;
        async move {
            let set = read_listed(store, &name, &objects, in_memory).await;
            (name, set)
        }
    });
    let sets: Vec<_> = stream::iter(reading).buffered(READ_AT_ONCE).collect().await;
    for (name, set) in sets {
        match set {
            Ok((set, signature)) if signature.is_ours() && set.is_adopted() => listing.adopted.push(set),
            Ok((set, signature)) if signature.is_ours() => listing.sets.push(set),
            Ok(not_ours) => listing.not_ours.push(not_ours),
            Err(error) => listing.unreadable.push((name, format!("{error:#}"))),
        }
    }
    listing
}

/// Of sets in the order of their names, so many of the newest of each job on each database.
fn newest_of_each(sets: Vec<(SetName, Vec<Object>)>, most: usize) -> Vec<(SetName, Vec<Object>)> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut kept: Vec<_> = sets
        .into_iter()
        .rev()
        .filter(|(name, _)| {
            let count = counts.entry((name.database.clone(), name.job.clone())).or_default();
            *count += 1;
            *count <= most
        })
        .collect();
    kept.reverse();
    kept
}

/// The set whose folder this is. A path that parses as a name but is not written like it belongs to another program.
fn name_of(path: &str) -> Option<SetName> {
    path.parse::<SetName>().ok().filter(|name| name.to_string() == path)
}

fn has(objects: &[Object], name: &SetName, object: &str) -> bool {
    let key = name.key(object);
    objects.iter().any(|object| object.key == key)
}

/// Says that a folder without a manifest was a set, where what pgtend wrote beside it says so and no deletion of its own began.
async fn why_lost(store: &Store, name: &SetName, objects: &[Object]) -> Option<String> {
    if has(objects, name, markers::DELETING) {
        return None;
    }
    if has(objects, name, VERIFICATION) {
        return Some(format!("its {MANIFEST} is gone"));
    }
    if !has(objects, name, markers::RUN) || !DUMPS.iter().any(|dump| has(objects, name, dump)) {
        return None;
    }
    // One that cannot be read says nothing; a sweep leaves its folder alone and names it.
    let run = markers::read::<RunMarker>(store, name, markers::RUN).await.ok().flatten()?;
    let completed_at = run.completed_at?.format("%Y-%m-%d %H:%MZ");
    // A listing may be older than the manifest of a run that has just ended.
    match store.exists_for_certain(&name.key(MANIFEST)).await {
        Ok(true) => None,
        Ok(false) | Err(_) => {
            Some(format!("its {MANIFEST} is gone, and it was complete on {completed_at}, as its {} says", markers::RUN))
        }
    }
}

async fn read_listed(store: &Store, name: &SetName, objects: &[Object], in_memory: &Semaphore) -> Result<(Set, Signature)> {
    let key = name.key(MANIFEST);
    let listed = objects.iter().find(|object| object.key == key);
    let (bytes, manifest_at) = listed.map_or((0, None), |object| (object.bytes, object.modified_at));
    anyhow::ensure!(bytes <= SMALL_OBJECT_BYTES, "its {MANIFEST} has {}, more than pgtend ever writes", units::bytes(bytes));
    let mib = u32::try_from(bytes >> 20)?.saturating_add(1).min(READ_MIB as u32);
    let (manifest, signature) = {
        let _held = in_memory.acquire_many(mib).await?;
        read_manifest(store, name).await?
    };
    let (verification, record_problem) = match has(objects, name, VERIFICATION) {
        true => read_verification(store, name).await?,
        false => Err(format!("it has no {VERIFICATION}")),
    }
    .map_or_else(|problem| (Verification::default(), Some(problem)), |verification| (verification, None));
    let mut holds = Vec::new();
    for object in markers::ALL_HOLDS {
        if has(objects, name, object) {
            holds.extend(read_hold(store, name, object).await);
        }
    }
    let key = name.key(&manifest.dump.object);
    let dump =
        objects.iter().find(|object| object.key == key).with_context(|| format!("its {} is gone", manifest.dump.object))?;
    anyhow::ensure!(
        dump.bytes == manifest.dump.bytes,
        "its dump has {} bytes and the manifest says {}",
        dump.bytes,
        manifest.dump.bytes
    );
    let globals_problem = globals_problem(name, objects, &manifest);
    let plain = DUMPS.into_iter().chain(ALL_GLOBALS).filter(|object| !object.ends_with(ENDING));
    let in_the_clear = plain.filter(|object| manifest.dump.encryption.is_some() && has(objects, name, object)).collect();
    let listed =
        AsListed { manifest_at, globals_problem, record_problem, is_signed: signature == Signature::Valid, in_the_clear };
    Ok((Set { name: name.clone(), manifest, verification, holds, listed }, signature))
}

/// Compares the length of the globals. Without them the dump can be restored all the same, so the set stays readable.
fn globals_problem(name: &SetName, objects: &[Object], manifest: &Manifest) -> Option<String> {
    let Globals::Object { bytes, .. } = &manifest.globals else { return None };
    let object = globals_object(manifest.dump.encryption.is_some());
    let key = name.key(object);
    match objects.iter().find(|object| object.key == key) {
        None => Some(format!("its {object} is gone")),
        Some(there) if there.bytes != *bytes => {
            Some(format!("its {object} has {} bytes and the manifest says {bytes}", there.bytes))
        }
        Some(_) => None,
    }
}

/// A manifest that differs from what was written is read once more: the error may be in transit.
async fn read_manifest(store: &Store, name: &SetName) -> Result<(Manifest, Signature)> {
    let key = name.key(MANIFEST);
    let mut last = None;
    for _ in 0..2 {
        let bytes = store.get(&key).await?.with_context(|| format!("there is no {}", store.location(&key)))?;
        match manifest::from_json(&bytes) {
            Ok(manifest) => {
                let signature = store.signature(&key, manifest::without_checksum(&bytes))?;
                return Ok((sealed::opened(manifest, store.age_keys())?, signature));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("it cannot be read")).context(store.location(&key)))
}

/// A verification that cannot be read, or that lacks a valid signature where the store has a key, is ignored; a store that cannot be read
/// is an error. The inner error says why it is not known what is recorded.
async fn read_verification(store: &Store, name: &SetName) -> Result<Result<Verification, String>> {
    let key = name.key(VERIFICATION);
    Ok(match store.get_json(&key).await? {
        None => Err(format!("its {VERIFICATION} is gone")),
        Some(Ok((verification, signature))) if signature.is_ours() => Ok(verification),
        Some(Ok((_, signature))) => {
            tracing::warn!("{} is ignored: {}", store.location(&key), signature.in_words());
            Err(format!("its {VERIFICATION} does not count: {}", signature.in_words()))
        }
        Some(Err(error)) => {
            tracing::warn!("{error:#}; it is ignored");
            Err(format!("its {VERIFICATION} cannot be read: {error:#}"))
        }
    })
}

/// In case of doubt the set is held. A hold without a valid signature may replace a person's, and its end is unknown.
async fn read_hold(store: &Store, name: &SetName, object: &str) -> Option<Hold> {
    let key = name.key(object);
    let reason = match store.get_json::<Hold>(&key).await.and_then(Option::transpose) {
        Ok(None) => return None,
        Ok(Some((hold, signature))) if signature.is_ours() => return Some(hold),
        Ok(Some((_, signature))) => format!("held until a person checks {}: {}", store.location(&key), signature.in_words()),
        Err(error) => format!("its hold cannot be read: {error:#}"),
    };
    tracing::warn!("set {name}: {reason}");
    Some(Hold { until: DateTime::<Utc>::MAX_UTC, reason, because_of: None, for_copy: false })
}

/// The holds beside it now, whatever a listing said before.
pub async fn read_holds(store: &Store, name: &SetName) -> Vec<Hold> {
    let mut holds = Vec::new();
    for object in markers::ALL_HOLDS {
        holds.extend(read_hold(store, name, object).await);
    }
    holds
}

/// Fails where the manifest would be larger than one that is read: nobody could restore the set.
pub async fn write_manifest(store: &Store, name: &SetName, manifest: &Manifest) -> Result<()> {
    let key = name.key(MANIFEST);
    let written = sealed::as_written(manifest, store.age_keys())?;
    let json = manifest::to_signed_json(&written, |open| store.sign(&key, open))?;
    anyhow::ensure!(
        json.len() as u64 <= SMALL_OBJECT_BYTES,
        "the {MANIFEST} of {name} would have {}, and none above {} is read: the database has {}, too many for one set. Make several sets, each of some \
         schemas (`schemas`, `exclude_tables`)",
        units::bytes(json.len() as u64),
        units::bytes(SMALL_OBJECT_BYTES),
        units::plural(manifest.table_count(), "table")
    );
    store.put_locked(&key, json).await?;
    markers::say_complete(store, name).await;
    Ok(())
}

/// Removes what a run without a set has written, while the folder is still that of its `marker`: a copy may have made the set whole since. The manifest goes
/// first: a lost answer does not mean that it was not written. The marker goes last, and only when nothing is left that it stands for.
pub(super) async fn clean_up(store: &Store, name: &SetName, marker: &RunMarker) {
    let cleaned = async {
        let there = markers::read::<RunMarker>(store, name, markers::RUN).await?;
        let is_ours = there.is_some_and(|there| there.is_of(marker));
        anyhow::ensure!(is_ours, "{} does not name it any more", store.location(&name.key(markers::RUN)));
        for object in [MANIFEST, VERIFICATION].into_iter().chain(DUMPS).chain(ALL_GLOBALS) {
            store.delete(&name.key(object)).await?;
        }
        let uploads = store.unfinished(&name.key("")).await?;
        anyhow::ensure!(uploads.is_empty(), "an upload could not be aborted");
        store.delete(&name.key(markers::RUN)).await
    };
    if let Err(error) = cleaned.await {
        tracing::warn!("the objects that this run wrote stay until the next run: {error:#}");
    }
}

/// Adds to the verdicts on a set, as they are now in the store: another process may have added to them since the set was listed. Writes nothing
/// beside a set that was deleted in the meantime: it would be a leftover.
pub async fn record(store: &Store, set: &mut Set, change: impl Fn(&mut Verification)) -> Result<()> {
    // Where it cannot be written, the caller goes on with its own verdict.
    change(&mut set.verification);
    anyhow::ensure!(store.exists_for_certain(&set.name.key(MANIFEST)).await?, "set {} was deleted in the meantime", set.name);
    let key = set.name.key(VERIFICATION);
    let changed = store.change_json(&key, |there| {
        // A verification that does not count is replaced; the listing has warned about it.
        let counts = there.and_then(Result::ok).filter(|(_, signature)| signature.is_ours());
        let mut verification: Verification = counts.map(|(verification, _)| verification).unwrap_or_default();
        change(&mut verification);
        Ok(verification)
    });
    set.verification = changed.await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let taken_at = "2026-11-23T02:00:00.7Z".parse().unwrap();
        for (database, job) in [("psscript", "backup-nightly"), ("we\"ird; drop/ä", ".."), (".", "a b")] {
            let name = SetName::new(database, job, taken_at);
            assert_eq!(name.to_string().parse::<SetName>().unwrap(), name);
            assert_eq!(name.key("x").matches('/').count(), 3);
            assert!(!name.key("x").split('/').any(|part| part == ".." || part == "."), "{}", name.key("x"));
        }
        assert_eq!(SetName::new("a", "b", taken_at).key(MANIFEST), "a/b/2026-11-23T02-00-00Z/manifest.json");
    }

    #[test]
    fn other_keys_are_not_sets() {
        for text in ["a/b", "a/b/c", "a/b/2026-11-23", "a/b/2026-11-23T02-00-00Z/x", "a/b/+262142-12-31T23-59-59Z"] {
            assert!(text.parse::<SetName>().is_err(), "{text}");
        }
        for text in [
            "%61/b/2026-11-23T02-00-00Z",
            "a/../2026-11-23T02-00-00Z",
            "a/%2e%2E/2026-11-23T02-00-00Z",
            "a/b c/2026-11-23T02-00-00Z",
        ] {
            assert!(name_of(text).is_none(), "{text}");
        }
    }
}
