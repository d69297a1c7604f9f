//! Tests whether a store honours the condition of a write. Some S3-compatible servers answer 200 and replace the object anyway: a
//! lock on such a store excludes no one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use uuid::Uuid;

use super::object::{Precondition, Version};
use super::probe::CONDITION;
use super::{PROBE_FOLDER, Store};
use crate::base::fault::{Fault, Kind};

/// The result of a conditional write.
pub enum Conditional {
    Written(Version),
    /// The condition does not hold.
    NotSo,
    /// The store does not support conditions; the text says why.
    Unsupported(String),
}

/// The test results of this process, by store.
static KNOWN: Mutex<Option<HashMap<String, bool>>> = Mutex::new(None);

impl Store {
    /// Writes a small object if `precondition` holds, in one step that no other writer can interrupt. Returns `None` when it does
    /// not hold. The content must be unique to this writer (a nonce in it): when the answer to a write is lost, the next attempt
    /// finds its own content, and only thereby knows that it succeeded. A store that cannot do this is an error of
    /// [`Kind::Configuration`]; [`Store::can_put_if`] recognizes a store that only claims to.
    pub async fn put_if(&self, key: &str, content: Vec<u8>, precondition: Precondition<'_>) -> Result<Option<Version>> {
        match self.try_put_if(key, content.clone(), precondition).await? {
            Conditional::Written(version) => Ok(Some(version)),
            Conditional::NotSo => Ok(self.get_versioned(key).await?.filter(|(there, _)| *there == content).map(|(_, is)| is)),
            Conditional::Unsupported(why) => {
                let message = format!("{} cannot be written conditionally: {why}", self.location(key));
                Err(Fault::new(Kind::Configuration, message).into())
            }
        }
    }

    pub(super) async fn try_put_if(&self, key: &str, content: Vec<u8>, precondition: Precondition<'_>) -> Result<Conditional> {
        match (self, precondition) {
            (Self::S3(s3), precondition) => s3.put_if(key, content, precondition).await,
            (Self::Cloud(cloud), precondition) => cloud.put_if(key, content, precondition).await,
            (Self::Dir(dir), Precondition::Absent) => dir.put_if(key, content, None).await,
            (Self::Dir(dir), Precondition::Unchanged(version)) => dir.put_if(key, content, Some(version.clone())).await,
        }
        .with_context(|| format!("cannot write {}", self.location(key)))
    }

    /// Writes a small object under a key that has none; false where it has one. The content must be unique to this writer. A store that knows no
    /// conditions is asked first, and of two writers in the same moment the last one wins there: the caller has a key that nobody else takes.
    pub async fn put_new(&self, key: &str, content: Vec<u8>) -> Result<bool> {
        match self.try_put_if(key, content.clone(), Precondition::Absent).await? {
            Conditional::Written(_) => Ok(true),
            // The answer to a write of ours may have been lost.
            Conditional::NotSo => Ok(self.get(key).await?.as_ref() == Some(&content)),
            Conditional::Unsupported(why) => {
                tracing::debug!("{} is written without a condition: {why}", self.location(key));
                if self.exists_for_certain(key).await? {
                    return Ok(false);
                }
                self.put(key, content).await.map(|()| true)
            }
        }
    }

    /// Replaces a small object that still has the content `before`; false where it has another one, or is gone.
    pub async fn put_over(&self, key: &str, before: &[u8], content: Vec<u8>) -> Result<bool> {
        let Some((there, version)) = self.get_versioned(key).await? else { return Ok(false) };
        if there != before {
            return Ok(false);
        }
        match self.try_put_if(key, content.clone(), Precondition::Unchanged(&version)).await? {
            Conditional::Written(_) => Ok(true),
            Conditional::NotSo => Ok(self.get(key).await?.as_ref() == Some(&content)),
            Conditional::Unsupported(_) => self.put(key, content).await.map(|()| true),
        }
    }

    /// Deletes an object that still is `expected`; returns false when it has changed.
    pub async fn delete_if(&self, key: &str, expected: &Version) -> Result<bool> {
        match self {
            Self::Dir(dir) => dir.delete_if(key, expected).await,
            Self::S3(s3) => s3.delete_if(key, expected).await,
            Self::Cloud(cloud) => cloud.delete_if(key, expected).await,
        }
        .with_context(|| format!("cannot delete {}", self.location(key)))
    }

    /// Returns whether conditional writes work: it tests them with an object of its own, once per process and store.
    pub async fn can_put_if(&self) -> Result<bool> {
        let store = self.identity();
        if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&store) {
            return Ok(*known);
        }
        let key = format!("{PROBE_FOLDER}{CONDITION}{}", Uuid::new_v4());
        let kept = self.keeps_conditions(&key).await;
        // A login that may not list this folder can use the store.
        let probes = self.list(PROBE_FOLDER).await.unwrap_or_default();
        // Where deleting is forbidden, a few bytes stay.
        if let Err(error) = self.delete(&key).await {
            tracing::debug!("cannot delete the probe of conditional writes: {error:#}");
        }
        self.sweep_probes(&key, &probes).await;
        let kept = kept?;
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(store, kept);
        Ok(kept)
    }

    async fn keeps_conditions(&self, key: &str) -> Result<bool> {
        let put = async |content: &[u8], precondition| self.try_put_if(key, content.to_vec(), precondition).await;
        let Conditional::Written(first) = put(b"first", Precondition::Absent).await? else { return Ok(false) };
        let Conditional::NotSo = put(b"second", Precondition::Absent).await? else { return Ok(false) };
        let Conditional::Written(_) = put(b"third", Precondition::Unchanged(&first)).await? else { return Ok(false) };
        Ok(matches!(put(b"fourth", Precondition::Unchanged(&first)).await?, Conditional::NotSo))
    }
}
