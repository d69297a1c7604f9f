//! Stores for objects: a directory, an S3 bucket, a container of Azure or a bucket of Google. An object exists completely or not at all.
//!
//! Keys are relative, `/`-separated and made by pgtend. One contract test suite (tests/it/store.rs) runs over all kinds.

pub mod archived;
mod change;
mod cloud;
mod conditional;
pub mod dir;
mod id;
pub mod key;
pub mod lease;
mod locks;
mod many;
mod object;
mod pace;
mod parts;
mod probe;
pub mod s3;
pub mod sign;
mod signed;
pub mod tags;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
pub use object::{Listed, Locked, Object, Precondition, SMALL_OBJECT_BYTES, Unfinished, Unread, Version};

pub use self::conditional::Conditional;
pub use self::probe::Probed;
pub use self::s3::Expiry;
use crate::base::age_keys::AgeKeys;
use crate::config::{self, Config};

/// The folder for probe objects; leftovers in it are of no use.
const PROBE_FOLDER: &str = ".pgtend-probe/";

#[derive(Clone, Debug)]
pub enum Store {
    Dir(dir::Dir),
    S3(s3::S3),
    Cloud(cloud::Cloud),
}

impl Store {
    /// Opens the store that the configuration calls `name`.
    pub async fn named(config: &Config, name: &str) -> Result<Self> {
        let configured = config.stores.get(name).with_context(|| format!("the configuration has no store `{name}`"))?;
        Self::open(configured).await.with_context(|| format!("store `{name}`"))
    }

    /// Reads credentials and region; does not contact the server yet.
    pub async fn open(configured: &config::Store) -> Result<Self> {
        Ok(match configured {
            config::Store::Dir { path, sign_key, age, max_upload } => {
                let dir = dir::Dir::new(path).signed(sign_key.clone().map(sign::SignKey::new)).with_age(Arc::clone(age));
                Self::Dir(dir.paced(*max_upload))
            }
            config::Store::S3(s3) => Self::S3(s3::S3::open(s3).await?),
            config::Store::Cloud(cloud) => Self::Cloud(cloud::Cloud::open(cloud)?),
        })
    }

    /// Returns what its objects are encrypted to, and what opens them here. Stores take and return bytes as they are stored: whoever writes and
    /// reads rows encrypts and opens them.
    pub fn age_keys(&self) -> &Arc<AgeKeys> {
        match self {
            Self::Dir(dir) => &dir.age,
            Self::S3(s3) => s3.age_keys(),
            Self::Cloud(cloud) => cloud.age_keys(),
        }
    }

    /// Returns whether rows that are written to it are encrypted.
    pub fn encrypts(&self) -> bool {
        !self.age_keys().recipients.is_empty()
    }

    /// Returns `s3://bucket/prefix/key`, `gs://bucket/prefix/key`, the URL of an Azure blob or the file's path, for people and for stock tools.
    pub fn location(&self, key: &str) -> String {
        match self {
            Self::Dir(dir) => dir.path_of(key).display().to_string(),
            Self::S3(s3) => s3.location(key),
            Self::Cloud(cloud) => cloud.location(key),
        }
    }

    /// Returns the server (empty for a folder of this host) and the folder of its objects there. Two providers may have a bucket of one name.
    pub fn place(&self) -> (String, String) {
        let location = self.location("");
        let (server, folder) = match self {
            Self::Dir(_) => (String::new(), std::fs::canonicalize(&location).map_or(location, |path| path.display().to_string())),
            Self::S3(s3) => (s3.server().to_owned(), location),
            Self::Cloud(cloud) => (cloud.server().to_owned(), location),
        };
        (server, format!("{}/", folder.trim_end_matches('/')))
    }

    /// Lists every complete object whose key starts with `folder`, which is empty or ends with `/`; in key order. An unreadable
    /// part is an error: a caller that deletes by the list, or reports what is missing, needs all of it.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let Listed { objects, unread } = self.list_readable(folder).await?;
        if let Some(Unread { key, reason, .. }) = unread.first() {
            anyhow::bail!("cannot list all of {}: {}: {reason}", self.location(folder), self.location(key));
        }
        Ok(objects)
    }

    /// Lists the readable objects, and names the unreadable parts beside them: for callers that only show the list.
    pub async fn list_readable(&self, folder: &str) -> Result<Listed> {
        let mut listed = match self {
            Self::Dir(dir) => dir.list(folder).await,
            Self::S3(s3) => s3.list(folder).await.map(|objects| Listed { objects, unread: Vec::new() }),
            Self::Cloud(cloud) => cloud.list(folder).await.map(|objects| Listed { objects, unread: Vec::new() }),
        }
        .with_context(|| format!("cannot list {}", self.location(folder)))?;
        listed.sort();
        Ok(listed)
    }

    /// Lists many folders, each as [`Store::list_readable`] does, with fewer requests. Each ends with `/`, and none is within another. One that could not be
    /// listed so is not in the answer, and has to be listed by itself: nothing is known of it.
    pub async fn list_many(&self, folders: &BTreeSet<String>) -> HashMap<String, Listed> {
        let listed = match self {
            Self::Dir(dir) => dir.list_many(folders).await,
            Self::S3(s3) => s3.list_many(folders).await,
            // Their lists cannot begin at a key.
            Self::Cloud(_) => Ok(HashMap::new()),
        };
        let mut listed = listed.unwrap_or_else(|error| {
            tracing::debug!("{} folders of {} are listed one by one: {error:#}", folders.len(), self.location(""));
            HashMap::new()
        });
        listed.values_mut().for_each(Listed::sort);
        listed
    }

    /// Returns a small object as a whole; `None` when it does not exist. An object of more than 64 MiB is an error.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.get_at_most(key, SMALL_OBJECT_BYTES).await
    }

    /// Does the same with its own limit: a larger object is not the expected one, and is not read any further.
    pub async fn get_at_most(&self, key: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut reader) = self.read(key).await? else { return Ok(None) };
        Ok(Some(self.whole(key, &mut reader, max_bytes).await?))
    }

    /// Returns an object as a stream; `None` when it does not exist. A connection that breaks midway is resumed where it broke.
    pub async fn read(&self, key: &str) -> Result<Option<Reader>> {
        self.read_part(key, None).await
    }

    /// Does the same for a part of an object; the stream ends early where the object does.
    pub async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Option<Reader>> {
        self.read_part(key, Some(range)).await
    }

    async fn read_part(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Reader>> {
        let reader = match self {
            Self::Dir(dir) => dir.read(key, range).await.map(|reader| reader.map(Reader::Dir)),
            Self::S3(s3) => s3.read(key, range).await.map(|reader| reader.map(|reader| Reader::S3(Box::new(reader)))),
            Self::Cloud(cloud) => cloud.read(key, range).await.map(|reader| reader.map(|reader| Reader::Cloud(Box::new(reader)))),
        };
        reader.with_context(|| format!("cannot read {}", self.location(key)))
    }

    /// Writes a small object; it replaces one with the same key.
    pub async fn put(&self, key: &str, content: Vec<u8>) -> Result<()> {
        Self::put_by(self.upload(key, content.len() as u64).await?, content).await
    }

    /// Writes a small object that stays as it is: locked where the store has `lock`.
    pub async fn put_locked(&self, key: &str, content: Vec<u8>) -> Result<()> {
        Self::put_by(self.upload_locked(key, content.len() as u64).await?, content).await
    }

    async fn put_by(mut upload: Upload, content: Vec<u8>) -> Result<()> {
        let written = async {
            if let Some(pace) = &upload.pace {
                pace.wait_with_whole(content.len()).await;
            }
            upload.write_at_once(content.into()).await?;
            upload.finish().await
        };
        match written.await {
            Ok(()) => Ok(()),
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// Returns a small object and its version; `None` when it does not exist.
    pub async fn get_versioned(&self, key: &str) -> Result<Option<(Vec<u8>, Version)>> {
        let Some(mut reader) = self.read(key).await? else { return Ok(None) };
        let content = self.whole(key, &mut reader, SMALL_OBJECT_BYTES).await?;
        let version = match &reader {
            Reader::Dir(_) => dir::version(&content),
            Reader::S3(reader) => {
                Version(reader.etag().with_context(|| format!("the server gave {} no ETag", self.location(key)))?.to_owned())
            }
            Reader::Cloud(reader) => reader.version()?,
        };
        Ok(Some((content, version)))
    }

    async fn whole(&self, key: &str, reader: &mut Reader, max_bytes: u64) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(chunk) = reader.chunk().await? {
            let fits = whole.len() as u64 + chunk.len() as u64 <= max_bytes;
            anyhow::ensure!(
                fits,
                "{} is larger than {}, and was not read",
                self.location(key),
                crate::base::units::bytes(max_bytes)
            );
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Returns an object without its content; `None` when it does not exist.
    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        match self {
            Self::Dir(dir) => dir.stat(key).await,
            Self::S3(s3) => s3.stat(key).await,
            Self::Cloud(cloud) => cloud.stat(key).await,
        }
        .with_context(|| format!("cannot look at {}", self.location(key)))
    }

    /// Returns an identity that is the same for every process that uses the same store.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Dir(dir) => dir.path_of("").display().to_string(),
            Self::S3(s3) => s3.identity(),
            Self::Cloud(cloud) => cloud.identity(),
        }
    }

    /// Starts an object of about `expected_bytes`. It exists only after [`Upload::finish`].
    pub async fn upload(&self, key: &str, expected_bytes: u64) -> Result<Upload> {
        let to = match self {
            Self::Dir(dir) => dir.upload(key).await.map(|upload| To::Dir(Box::new(upload))),
            Self::S3(s3) => s3.upload(key, expected_bytes).map(|upload| To::S3(Box::new(upload))),
            Self::Cloud(cloud) => cloud.upload(key, expected_bytes).map(|upload| To::Cloud(Box::new(upload))),
        };
        Ok(Upload { to: to.with_context(|| format!("cannot write {}", self.location(key)))?, pace: self.pace() })
    }

    /// The same for an object that stays as it is: locked where the store has `lock`.
    pub async fn upload_locked(&self, key: &str, expected_bytes: u64) -> Result<Upload> {
        let Self::S3(s3) = self else { return self.upload(key, expected_bytes).await };
        let to = s3.upload_locked(key, expected_bytes).map(|upload| To::S3(Box::new(upload)));
        Ok(Upload { to: to.with_context(|| format!("cannot write {}", self.location(key)))?, pace: self.pace() })
    }

    /// Returns whether `max_upload` limits what is written to it.
    pub fn is_paced(&self) -> bool {
        self.pace().is_some()
    }

    fn pace(&self) -> Option<Arc<pace::Pace>> {
        match self {
            Self::Dir(dir) => dir.pace.clone(),
            Self::S3(s3) => s3.pace.clone(),
            Self::Cloud(cloud) => cloud.pace.clone(),
        }
    }

    /// Removes an object; a missing one is not an error. A locked one is an error with a [`Locked`] in it; one that the
    /// credentials may not delete is of [`Kind::Permission`](crate::base::fault::Kind::Permission).
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self {
            Self::Dir(dir) => dir.delete(key).await,
            Self::S3(s3) => s3.delete(key).await,
            Self::Cloud(cloud) => cloud.delete(key).await,
        }
        .with_context(|| format!("cannot delete {}", self.location(key)))
    }

    /// Lists uploads under `folder` that were started and neither finished nor aborted.
    pub async fn unfinished(&self, folder: &str) -> Result<Vec<Unfinished>> {
        match self {
            Self::Dir(dir) => dir.unfinished(folder).await,
            Self::S3(s3) => s3.unfinished(folder).await,
            Self::Cloud(cloud) => cloud.unfinished(folder).await,
        }
        .with_context(|| format!("cannot list unfinished uploads in {}", self.location(folder)))
    }

    /// Returns whether whoever began one of those is known to have ended: a process of this host. Of a bucket's uploads nobody knows that.
    pub fn is_of_the_dead(&self, unfinished: &Unfinished) -> bool {
        matches!(self, Self::Dir(_)) && dir::Dir::is_of_the_dead(&unfinished.id)
    }

    /// Aborts one of those.
    pub async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        match self {
            Self::Dir(dir) => dir.delete(&unfinished.id).await,
            Self::S3(s3) => s3.abort(&unfinished.key, &unfinished.id).await,
            Self::Cloud(cloud) => cloud.abort(&unfinished.key, &unfinished.id).await,
        }
        .with_context(|| format!("cannot remove the unfinished upload of {}", self.location(&unfinished.key)))
    }

    /// Returns whether an object exists, where a wrong "no" would cost data: only an answer that this very object does not exist
    /// counts as "no". Everything else (no permission, no bucket, a failing server, an unmounted disk) is an error.
    pub async fn exists_for_certain(&self, key: &str) -> Result<bool> {
        match self {
            Self::Dir(dir) => dir.exists_for_certain(key).await,
            Self::S3(s3) => s3.exists_for_certain(key).await,
            Self::Cloud(cloud) => cloud.exists_for_certain(key).await,
        }
        .with_context(|| format!("cannot tell whether {} exists", self.location(key)))
    }

    /// Returns false for a directory that does not exist: it has no objects, and another one may have been intended.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Dir(dir) => dir.path_of("").is_dir(),
            Self::S3(_) | Self::Cloud(_) => true,
        }
    }

    /// Returns false for a directory that pgtend has never written to: it may be the empty mount point of another one.
    pub fn is_marked(&self) -> bool {
        match self {
            Self::Dir(dir) => dir.path_of(dir::mounted::MARKER).exists(),
            Self::S3(_) | Self::Cloud(_) => true,
        }
    }

    /// Returns the bytes free for new objects, if the store has such a limit.
    pub fn free_bytes(&self) -> Option<u64> {
        match self {
            Self::Dir(dir) => dir.free_bytes(),
            Self::S3(_) | Self::Cloud(_) => None,
        }
    }
}

pub enum Reader {
    Dir(dir::Reader),
    S3(Box<s3::Reader>),
    Cloud(Box<cloud::Reader>),
}

impl Reader {
    /// Returns the next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Dir(reader) => reader.chunk().await,
            Self::S3(reader) => reader.chunk().await,
            Self::Cloud(reader) => reader.chunk().await,
        }
    }
}

/// An object being written. Its creator must finish or abort it.
pub struct Upload {
    to: To,
    pace: Option<Arc<pace::Pace>>,
}

enum To {
    Dir(Box<dir::Upload>),
    S3(Box<s3::Upload>),
    Cloud(Box<cloud::Upload>),
}

impl Upload {
    /// Writes the next bytes, no faster than the store's `max_upload`.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.keep_pace(bytes.len()).await;
        self.write_at_once(bytes).await
    }

    /// Waits until the store's `max_upload` lets so many bytes be written.
    pub async fn keep_pace(&mut self, bytes: usize) {
        if let Some(pace) = &self.pace {
            pace.wait(bytes).await;
        }
    }

    /// Writes the next bytes, for which the pace was kept.
    pub async fn write_at_once(&mut self, bytes: Bytes) -> Result<()> {
        match &mut self.to {
            To::Dir(upload) => upload.write(&bytes).await,
            To::S3(upload) => upload.write(&bytes).await,
            To::Cloud(upload) => upload.write(&bytes).await,
        }
    }

    /// Makes the object visible, durable and complete.
    pub async fn finish(&mut self) -> Result<()> {
        match &mut self.to {
            To::Dir(upload) => upload.finish().await,
            To::S3(upload) => upload.finish().await,
            To::Cloud(upload) => upload.finish().await,
        }
    }

    /// Leaves nothing behind, as far as the store is reachable; the next run's sweep does the rest. It does nothing after a
    /// finish.
    pub async fn abort(&mut self) {
        let aborted = match &mut self.to {
            To::Dir(upload) => upload.abort().await,
            To::S3(upload) => upload.abort().await,
            To::Cloud(upload) => upload.abort().await,
        };
        if let Err(error) = aborted {
            tracing::warn!("could not abort an upload, which stays until the next run: {error:#}");
        }
    }
}
