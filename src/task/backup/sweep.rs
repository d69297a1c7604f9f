//! Removes what killed runs leave in a store: objects without a manifest, unfinished uploads, interrupted deletions.
//!
//! It sweeps only folders that pgtend has marked, and only when their run or deletion is known to be over. A missing manifest in a listing
//! is not a proof: a listing may be incomplete, a store may be slow. A GET must confirm it.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::guard::{Guard, LOCK};
use super::identity::Identity;
use super::markers::{self, DELETING, DeletingMarker, RUN, RunMarker};
use super::series::SERIES;
use super::set::{self, DUMPS, Listing, MANIFEST, VERIFICATION};
use super::set_name::SetName;
use crate::base::bounds::Bounded;
use crate::pg::failure;
use crate::store::lease::CLOCK;
use crate::store::{Object, Store, Unfinished};

/// No run takes longer than this between two objects, or parts, that it writes.
const ABANDONED_AFTER: TimeDelta = TimeDelta::days(1);

/// A folder without a manifest, and all that is known about it.
#[derive(Clone, Debug)]
pub struct Leftover {
    pub name: SetName,
    pub objects: Vec<Object>,
    pub uploads: Vec<Unfinished>,
    pub run: Option<RunMarker>,
    pub deleting: Option<DeletingMarker>,
    /// True if the store, asked for the exact keys, said that there is no manifest, or for a deletion that there is no dump.
    pub is_no_set: bool,
    /// True if the run is known to be over: by its process, or by the ledger.
    pub is_known_dead: bool,
}

impl Leftover {
    /// Returns whether it was a complete set, and its dump is still there although nothing says that pgtend deletes it.
    fn has_lost_its_manifest(&self) -> bool {
        let was_complete = self.run.as_ref().is_some_and(|run| run.completed_at.is_some());
        was_complete && self.deleting.is_none() && DUMPS.iter().any(|dump| self.has(dump))
    }

    fn has(&self, object: &str) -> bool {
        let key = self.name.key(object);
        self.objects.iter().any(|there| there.key == key)
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    pub uploads: Vec<String>,
    pub objects: Vec<String>,
    /// Objects that stay, each with the reason.
    pub left: Vec<Left>,
    #[serde(skip)]
    discard: Vec<Unfinished>,
    /// The folders that are swept, each with the run that made it.
    #[serde(skip)]
    folders: Vec<(SetName, Option<RunMarker>)>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Left {
    pub name: String,
    pub reason: String,
    /// True if no sweep will ever remove it, so that a person has to look.
    pub for_ever: bool,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.uploads.is_empty() && self.objects.is_empty()
    }
}

/// Reads the leftovers before the run creates a folder of its own.
pub async fn read(store: &Store, folder: &str, listing: &Listing) -> Result<(Vec<Leftover>, Vec<Unfinished>)> {
    let mut uploads = store.unfinished(folder).await?;
    let mut leftovers = Vec::new();
    for (name, objects) in &listing.incomplete {
        let has = |object: &str| objects.iter().any(|there| there.key == name.key(object));
        let prefix = name.key("");
        let own_uploads: Vec<_> = uploads.extract_if(.., |upload| upload.key.starts_with(&prefix)).collect();
        let run = if has(RUN) { read_marker::<RunMarker>(store, name, RUN).await } else { None };
        let deleting = if has(DELETING) { read_marker::<DeletingMarker>(store, name, DELETING).await } else { None };
        let is_known_dead = match (&deleting, &run) {
            (Some(deleting), _) => deleting.process.is_known_dead(),
            (None, Some(run)) => run.process.is_known_dead(),
            (None, None) => false,
        };
        // This is checked only where it matters: it costs requests.
        let is_marked = run.is_some() || deleting.is_some();
        let is_no_set = is_marked
            && (!store.exists_for_certain(&name.key(MANIFEST)).await?
                || (deleting.is_some() && has_no_dump(store, name).await?));
        leftovers.push(Leftover {
            name: name.clone(),
            objects: objects.clone(),
            uploads: own_uploads,
            run,
            deleting,
            is_no_set,
            is_known_dead,
        });
    }
    // The remaining uploads are in folders that have no object, or that have a set.
    Ok((leftovers, uploads))
}

async fn has_no_dump(store: &Store, name: &SetName) -> Result<bool> {
    for dump in DUMPS {
        if store.exists_for_certain(&name.key(dump)).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A marker that cannot be read counts as missing: its folder is left alone.
async fn read_marker<T: serde::de::DeserializeOwned + Bounded>(store: &Store, name: &SetName, object: &str) -> Option<T> {
    markers::read(store, name, object).await.unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    })
}

/// Decides what is swept. `store_now` is a time of the store's clock that is not after now. Pure.
pub fn decide(
    leftovers: Vec<Leftover>,
    other_uploads: Vec<Unfinished>,
    own: Option<&Identity>,
    store_now: Option<DateTime<Utc>>,
) -> Plan {
    let is_old = |at: Option<DateTime<Utc>>| at.zip(store_now).is_some_and(|(at, now)| now - at > ABANDONED_AFTER);
    let mut plan = Plan::default();
    for leftover in leftovers {
        let identity = match (&leftover.deleting, &leftover.run) {
            (Some(deleting), _) => deleting.identity.as_ref(),
            (None, Some(run)) => run.identity.as_ref(),
            (None, None) => None,
        };
        let objects = leftover.objects.iter().map(|object| object.modified_at);
        let newest = objects.chain(leftover.uploads.iter().map(|upload| upload.started_at)).reduce(newer).flatten();
        let left = match () {
            () if leftover.run.is_none() && leftover.deleting.is_none() => Some((
                "it has no run.json, so pgtend does not know which program made it: inspect it and delete it manually",
                true,
            )),
            () if leftover.deleting.is_none() && leftover.has(VERIFICATION) => Some((
                "it was a set, as it has a verification.json, but its manifest is gone; stock tools can still restore the dump",
                true,
            )),
            () if leftover.has_lost_its_manifest() && leftover.is_no_set => Some((
                "its run.json says that it was a complete set, and its manifest is gone: pgtend did not delete it, so somebody or another program did. \
                 Stock tools can still restore the dump; delete the folder when you know what happened",
                true,
            )),
            () if !leftover.is_no_set => Some(("it is a set, although a listing did not show all of it", false)),
            () if own.zip(identity).is_some_and(|(own, other)| own != other) => Some(("it belongs to another server", false)),
            () if leftover.is_known_dead || is_old(newest) => None,
            () => Some(("its run may still be active; it is swept when nothing in it is younger than a day", false)),
        };
        match left {
            Some((reason, for_ever)) => {
                plan.left.push(Left { name: leftover.name.to_string(), reason: reason.to_owned(), for_ever });
            }
            None => {
                plan.uploads.extend(leftover.uploads.iter().map(|upload| upload.key.clone()));
                plan.discard.extend(leftover.uploads);
                plan.objects.extend(in_order_of_deletion(&leftover.name, &leftover.objects));
                plan.folders.push((leftover.name, leftover.run));
            }
        }
    }
    // An upload of a small object beside a set or beside all sets, or of a run that was killed before its first object existed.
    let is_of_a_set =
        |upload: &Unfinished| upload.key.rsplit_once('/').is_some_and(|(folder, _)| folder.parse::<SetName>().is_ok());
    let is_ours = |upload: &Unfinished| is_of_a_set(upload) || is_of_the_series(&upload.key);
    for upload in other_uploads.into_iter().filter(is_ours).filter(|upload| is_old(upload.started_at)) {
        plan.uploads.push(upload.key.clone());
        plan.discard.push(upload);
    }
    plan
}

/// Returns whether a key is that of an object which a series has besides its sets: its lock, with the object that shows the store's clock, or
/// the decisions about its identities.
fn is_of_the_series(key: &str) -> bool {
    let object = key.rsplit_once('/').map_or(key, |(_, object)| object);
    [LOCK, SERIES].contains(&object.strip_suffix(CLOCK).unwrap_or(object))
}

/// An unknown time counts as newer than any other: in case of doubt the object is young.
fn newer(a: Option<DateTime<Utc>>, b: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    a.zip(b).map(|(a, b)| a.max(b))
}

/// The markers are deleted last, so that an interrupted sweep leaves a folder that can be swept again.
fn in_order_of_deletion(name: &SetName, objects: &[Object]) -> Vec<String> {
    let markers = [name.key(RUN), name.key(DELETING)];
    let (markers, data): (Vec<String>, Vec<String>) =
        objects.iter().map(|object| object.key.clone()).partition(|key| markers.contains(key));
    data.into_iter().chain(markers).collect()
}

/// Sweeps what [`decide`] finds now. If an object cannot be deleted, the rest of its folder stays with its markers, while other folders are
/// swept; it is returned as a warning.
pub async fn apply(store: &Store, folder: &str, own: Option<&Identity>, guard: &mut Guard) -> Result<Vec<String>> {
    let listing = set::list(store, folder).await?;
    if let Some(doubt) = listing.doubt() {
        anyhow::bail!(doubt);
    }
    let (leftovers, uploads) = read(store, folder, &listing).await?;
    let plan = decide(leftovers, uploads, own, listing.not_after_now());
    let mut warnings = Vec::new();
    for upload in &plan.discard {
        guard.check().await?;
        tracing::info!("removing an unfinished upload: {}", store.location(&upload.key));
        if let Err(error) = store.discard(upload).await {
            warnings.push(undeletable(store, &upload.key, &error));
        }
    }
    for (name, run) in &plan.folders {
        if !is_still_of(store, name, run.as_ref()).await {
            continue;
        }
        for key in plan.objects.iter().filter(|key| key.starts_with(&name.key(""))) {
            guard.check().await?;
            tracing::info!("removing an object that an interrupted run left: {}", store.location(key));
            if let Err(error) = store.delete(key).await {
                warnings.push(undeletable(store, key, &error));
                break;
            }
        }
    }
    Ok(warnings)
}

/// Returns whether the folder is marked as it was when that was decided: a copy may have begun in it since.
async fn is_still_of(store: &Store, name: &SetName, run: Option<&RunMarker>) -> bool {
    match (run, markers::read::<RunMarker>(store, name, RUN).await) {
        (Some(then), Ok(Some(now))) => now.is_of(then),
        // One that cannot be read was decided on by its `deleting.json`.
        (None, Ok(None) | Err(_)) => true,
        (Some(_), Ok(None) | Err(_)) | (None, Ok(Some(_))) => false,
    }
}

fn undeletable(store: &Store, key: &str, error: &anyhow::Error) -> String {
    format!("{}, left by an earlier run, cannot be deleted: {}", store.location(key), failure::in_a_line(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::process_identity::ProcessIdentity;

    fn at(text: &str) -> Option<DateTime<Utc>> {
        Some(format!("{text}Z").parse().unwrap())
    }

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    fn leftover() -> Leftover {
        let name: SetName = "app/nightly/2026-11-23T02-00-00Z".parse().unwrap();
        let object = |object: &str| Object { key: name.key(object), bytes: 1, modified_at: at("2026-11-23T02:00:00") };
        Leftover {
            objects: vec![object("dump.sql.gz"), object(RUN)],
            uploads: vec![],
            run: Some(RunMarker {
                process: ProcessIdentity::default(),
                nonce: String::new(),
                run: None,
                identity: Some(identity("7/app")),
                started_at: at("2026-11-23T02:00:00").unwrap(),
                completed_at: None,
            }),
            deleting: None,
            is_no_set: true,
            is_known_dead: false,
            name,
        }
    }

    fn with_verification(mut leftover: Leftover) -> Leftover {
        leftover.objects.push(Object { key: leftover.name.key(VERIFICATION), bytes: 1, modified_at: at("2026-11-23T02:00:00") });
        leftover
    }

    fn completed(mut leftover: Leftover) -> Leftover {
        leftover.run.as_mut().unwrap().completed_at = at("2026-11-23T02:10:00");
        leftover
    }

    fn swept(leftover: Leftover, store_now: Option<DateTime<Utc>>) -> Vec<String> {
        decide(vec![leftover], vec![], Some(&identity("7/app")), store_now).objects
    }

    #[test]
    fn a_folder_is_swept_only_on_positive_signs() {
        let (young, old) = (at("2026-11-23T20:00:00"), at("2026-11-24T03:00:00"));
        let dead = Leftover { is_known_dead: true, ..leftover() };
        let name = leftover().name;
        assert_eq!(swept(dead.clone(), young), [name.key("dump.sql.gz"), name.key(RUN)], "the marker goes last");
        assert_eq!(swept(leftover(), old).len(), 2);
        let mut rest = completed(dead.clone());
        rest.objects.remove(0);
        assert_eq!(swept(rest, old), [name.key(RUN)], "nothing is lost with it");
        for (kept, now, why) in [
            (leftover(), young, "it may still be written"),
            (leftover(), None, "its age is unknown"),
            (with_verification(dead.clone()), old, "it was a set"),
            (Leftover { run: None, ..dead.clone() }, old, "no marker"),
            (completed(dead.clone()), old, "it was complete"),
            (Leftover { is_no_set: false, ..dead.clone() }, old, "the listing was short"),
            (
                Leftover {
                    run: dead.run.clone().map(|run| RunMarker { identity: Some(identity("8/app")), ..run }),
                    ..dead.clone()
                },
                old,
                "another server",
            ),
            (
                Leftover {
                    uploads: vec![Unfinished { key: name.key("dump.sql.gz"), id: "1".into(), started_at: None }],
                    ..leftover()
                },
                old,
                "a part of unknown age",
            ),
        ] {
            assert_eq!(swept(kept, now), Vec::<String>::new(), "{why}");
        }
    }

    #[test]
    fn an_upload_beside_a_set_is_discarded_when_it_is_a_day_old() {
        let upload = |started_at| Unfinished { key: "app/nightly/2026-11-23T02-00-00Z/y".into(), id: "1".into(), started_at };
        let discarded = |started_at| decide(vec![], vec![upload(started_at)], None, at("2026-11-24T03:00:00")).uploads.len();
        let of_somebody =
            Unfinished { key: "app/nightly/mine/x.partial".into(), id: "1".into(), started_at: at("2026-11-01T00:00:00") };
        assert!(decide(vec![], vec![of_somebody], None, at("2026-11-24T03:00:00")).is_empty(), "a file of the user's");
        assert_eq!((discarded(at("2026-11-23T02:00:00")), discarded(at("2026-11-24T02:00:00")), discarded(None)), (1, 0, 0));
    }

    #[test]
    fn an_unfinished_write_of_a_series_own_object_is_discarded_when_it_is_a_day_old() {
        let discarded = |object: &str, started_at| {
            let upload = Unfinished { key: format!("app/nightly/{object}"), id: "1".into(), started_at: at(started_at) };
            decide(vec![], vec![upload], None, at("2026-11-24T03:00:00")).uploads.len()
        };
        for object in ["lock.json", "lock.json.now", "series.json"] {
            assert_eq!(discarded(object, "2026-11-23T02:00:00"), 1, "{object}");
            assert_eq!(discarded(object, "2026-11-24T02:00:00"), 0, "{object}: its process may live");
        }
        assert_eq!(discarded("notes.json", "2026-11-01T00:00:00"), 0, "a file of the user's");
    }
}
