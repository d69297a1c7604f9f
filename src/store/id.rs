//! The id of a store, by which one place is known under two names: a symbolic link, a bind mount, two addresses of one server. It is an object of its own in
//! the store's root, written once; in a folder it is the marker that says that its disk is mounted.

use anyhow::Result;
use uuid::Uuid;

use super::conditional::Conditional;
use super::dir::mounted;
use super::object::Precondition;
use super::{PROBE_FOLDER, Store};

/// Larger ones are not ours.
const MAX_BYTES: u64 = 64 << 10;

impl Store {
    /// Returns the id; None where there is none, or it cannot be read.
    pub async fn id(&self) -> Option<Uuid> {
        let read = self.get_at_most(mounted::MARKER, MAX_BYTES).await;
        let read = read.unwrap_or_else(|error| {
            tracing::debug!("the id of {} cannot be read: {error:#}", self.location(""));
            None
        });
        let marker: serde_json::Value = serde_json::from_slice(&read?).ok()?;
        marker.get("id")?.as_str()?.parse().ok()
    }

    /// Gives the store an id if it has none. A store that cannot be written to stays without one.
    pub async fn ensure_id(&self) {
        if let Err(error) = self.write_id().await {
            tracing::debug!("{} gets no id: {error:#}", self.location(""));
        }
    }

    async fn write_id(&self) -> Result<()> {
        // A folder that is not there may be an unmounted disk, and its first object makes it.
        if !self.is_there() {
            return Ok(());
        }
        let there = self.get_versioned(mounted::MARKER).await?;
        let precondition = match &there {
            None => Precondition::Absent,
            // A person makes an empty one where a disk is to be a store from now on.
            Some((content, version)) if content.is_empty() => Precondition::Unchanged(version),
            Some(_) => return Ok(()),
        };
        let marker = mounted::marker();
        match self.try_put_if(mounted::MARKER, marker.clone(), precondition).await? {
            Conditional::Written(_) | Conditional::NotSo => Ok(()),
            Conditional::Unsupported(_) => self.put(mounted::MARKER, marker).await,
        }
    }

    /// Returns whether both are folders of this host, and one folder.
    pub fn is_one_folder_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dir(one), Self::Dir(other)) => mounted::is_one_folder(&one.path_of(""), &other.path_of("")),
            _ => false,
        }
    }

    /// Returns whether what is written to one is in the other. Asked where both have one id: somebody may have copied a store with its id.
    pub async fn is_one_with(&self, other: &Self) -> Result<bool> {
        match self.shows_in(other).await {
            Ok(is_seen) => Ok(is_seen),
            // One of the two may be read only.
            Err(error) => {
                tracing::debug!("{error:#}");
                other.shows_in(self).await
            }
        }
    }

    async fn shows_in(&self, other: &Self) -> Result<bool> {
        let key = format!("{PROBE_FOLDER}{}", Uuid::new_v4());
        self.put(&key, b"pgtend\n".to_vec()).await?;
        let seen = other.exists_for_certain(&key).await;
        if let Err(error) = self.delete(&key).await {
            tracing::debug!("cannot delete the probe of two stores: {error:#}");
        }
        seen
    }
}
