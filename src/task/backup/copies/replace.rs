//! A copy that takes the place of one for others. All of it is sent before that one gives way, so that the set is there until then. Where its objects have
//! the same names, there is a moment without a set: for that the source is held, as it may be the only one if this process ends there.

use anyhow::Result;
use chrono::{TimeDelta, Utc};

use super::copy::{Copy, sources};
use super::holds;
use super::place::{self, Place};
use crate::base::fault::{Fault, Kind};
use crate::pg::failure;
use crate::store::Upload;
use crate::task::backup::manifest::Manifest;
use crate::task::backup::markers::{self, COPY_HOLD, Hold, RUN, RunMarker};
use crate::task::backup::set::{self, MANIFEST, Set, VERIFICATION};

/// The source is held for so long if this process ends before the copy is whole; the next one that makes it ends the hold.
const HELD_FOR: TimeDelta = TimeDelta::days(30);

/// A hold that others have put on the source lasts for a replacement if it lasts for so long.
const LONG_ENOUGH: TimeDelta = TimeDelta::days(1);

impl Copy<'_> {
    /// Makes visible what was sent; the manifest is still to be written.
    pub(super) async fn take_the_place_of(
        &self,
        old: &Set,
        new: &Manifest,
        sent: &mut [Upload],
        marker: &RunMarker,
        held: &mut Option<Hold>,
    ) -> Result<()> {
        let (to_name, to) = self.to;
        let is_the_same = |there: &Set| there.manifest.dump.sha256 == old.manifest.dump.sha256;
        match place::look(to, to_name, self.set, &marker.nonce).await? {
            Place::Complete(there) if is_the_same(&there) => {}
            Place::Complete(_) | Place::Begun(_) | Place::Free => {
                let message = format!("{} in {to_name} was deleted or replaced meanwhile, so nothing was written", self.set.name);
                return Err(Fault::new(Kind::Busy, message).into());
            }
        }
        // Until the new copy has its manifest, the dump that is there is that of a set: no sweep takes it.
        to.put_json(&self.set.name.key(RUN), &RunMarker { completed_at: Some(Utc::now()), ..marker.clone() }).await?;
        // The names of the dump and of the globals.
        let names = |manifest: &Manifest| (manifest.dump.object.clone(), manifest.dump.encryption.is_some());
        let ((dump, encrypted), (new_dump, new_encrypted)) = (names(&old.manifest), names(new));
        if dump == new_dump || encrypted == new_encrypted {
            self.hold_source(held).await?;
            self.ensure_nobody_copies_from_there().await?;
            // From here on a failure may leave no set there.
            *held = None;
            // Without a manifest it is no set: what is written in its place would not fit. Its verdict goes first, as one without a manifest says that a set
            // was lost.
            for object in [VERIFICATION, MANIFEST] {
                to.delete(&self.set.name.key(object)).await?;
            }
        }
        for upload in sent {
            upload.finish().await?;
        }
        Ok(())
    }

    /// Keeps every prune from deleting the set where it comes from. A prune that came first has written its marker, and one that comes later reads the hold.
    /// `held` becomes the hold, where there was none of another copy.
    pub(super) async fn hold_source(&self, held: &mut Option<Hold>) -> Result<()> {
        let ((from_name, from), name, now) = (self.from, &self.set.name, Utc::now());
        let reason = format!(
            "a copy of it is made in {}, in place of another one: until that is whole, this may be the only one",
            self.to.0
        );
        let hold = Hold { until: now + HELD_FOR, reason, because_of: None, for_copy: true };
        let there = markers::read::<Hold>(from, name, COPY_HOLD).await;
        if matches!(&there, Ok(there) if there.as_ref().is_none_or(|there| there.until <= now)) {
            *held = Some(hold.clone());
        }
        if let Err(error) = markers::write(from, name, COPY_HOLD, &hold).await {
            let is_held = set::read_holds(from, name).await.iter().any(|hold| hold.until - now > LONG_ENOUGH);
            let message = || {
                format!(
                    "{name} could not be held in {from_name}, where a prune might delete it while it is the only copy, so that in {} stays. Hold it with \
                     credentials that may write there (`pgtend backups hold`), then copy it",
                    self.to.0
                )
            };
            if !is_held {
                return Err(error.context(Fault::new(Kind::Permission, message())));
            }
        }
        holds::ensure_counts(from, from_name, self.set).await
    }

    /// Fails where the copy that would give way is the source of another replacement. Each holds its source before it looks here: of two in opposite directions,
    /// one at least sees the other.
    async fn ensure_nobody_copies_from_there(&self) -> Result<()> {
        let (to_name, to) = self.to;
        let now = Utc::now();
        let held = set::read_holds(to, &self.set.name).await;
        if held.iter().any(|hold| hold.for_copy && hold.until > now) {
            let message = format!(
                "a copy in another store is being made of {} in {to_name}, or was interrupted: finish that one first (`pgtend backups copy`), or end its hold \
                 (`pgtend backups release`) when a good copy is elsewhere",
                self.set.name
            );
            return Err(Fault::new(Kind::Busy, message).into());
        }
        Ok(())
    }

    /// Removes objects that the manifest of the copy before named, and that of the new copy does not.
    pub(super) async fn remove_objects_before(&self, manifest: &Manifest) {
        let named = sources(manifest);
        for object in
            set::DUMPS.into_iter().chain(set::ALL_GLOBALS).filter(|object| !named.iter().any(|source| source.object == *object))
        {
            if let Err(error) = self.to.1.delete(&self.set.name.key(object)).await {
                tracing::warn!("{object} of the copy before stays: {}", failure::in_a_line(&error));
            }
        }
    }

    /// Ends the hold of a copy that failed, if it is this copy's own: that of another one may be all that keeps the only copy.
    pub(super) async fn release(&self, own: &Hold) {
        match markers::read::<Hold>(self.from.1, &self.set.name, COPY_HOLD).await {
            Ok(Some(there)) if there == *own => self.release_source().await,
            Ok(_) => {}
            Err(error) => tracing::warn!("{} may stay held in {}: {}", self.set.name, self.from.0, failure::in_a_line(&error)),
        }
    }

    /// Ends that hold: the copy is whole, and was read back. A copy that was killed may have left it.
    pub(super) async fn release_source(&self) {
        let (from_name, from) = self.from;
        if !set::read_holds(from, &self.set.name).await.iter().any(|hold| hold.for_copy) {
            return;
        }
        if let Err(error) = from.delete(&self.set.name.key(COPY_HOLD)).await {
            tracing::warn!(
                "{} stays held in {from_name} for {} days: {}",
                self.set.name,
                HELD_FOR.num_days(),
                failure::in_a_line(&error)
            );
        }
    }
}
