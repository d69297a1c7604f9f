//! An S3 bucket as a store.

mod archived;
mod checksums;
mod client;
mod conditional;
mod explain;
mod lifecycle;
mod lock;
mod locked;
mod reader;
mod request;
mod tags;
mod upload;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{BucketVersioningStatus, ServerSideEncryption, StorageClass};
use request::{status, time};

pub use self::lifecycle::{Archiving, Expiry};
pub use self::reader::Reader;
pub use self::upload::Upload;
use super::key;
use super::many::Walk;
use super::object::{Listed, Object, Unfinished};
use super::pace::Pace;
use super::parts::{self, Limits};
use super::sign::SignKey;
use crate::base::age_keys::AgeKeys;
use crate::config::{self, Encryption};

/// The most pages of 1,000 keys: a store of ten million objects is not one of backups.
const PAGES: usize = 10_000;

#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    configured: Box<config::S3>,
    /// The server's name for messages: its endpoint, or AWS's for the region.
    at: String,
    pub(super) sign_key: Option<SignKey>,
    pub(super) pace: Option<Arc<Pace>>,
}

impl S3 {
    /// The server's name, see `at`.
    pub fn server(&self) -> &str {
        &self.at
    }

    /// Reads credentials, region and certificates; does not contact the server yet.
    pub async fn open(configured: &config::S3) -> Result<Self> {
        let (client, at) = client::make(configured).await?;
        let sign_key = configured.sign_key.clone().map(SignKey::new);
        let mut s3 = Self { client, configured: Box::new(configured.clone()), at, sign_key, pace: None };
        s3.pace = Pace::of(&s3.identity(), configured.max_upload);
        Ok(s3)
    }

    pub fn age_keys(&self) -> &Arc<AgeKeys> {
        &self.configured.age
    }

    pub fn location(&self, key: &str) -> String {
        format!("s3://{}/{}", self.configured.bucket, self.full_key(key))
    }

    /// Returns an identity that is the same for every process that uses the same store.
    pub fn identity(&self) -> String {
        format!("{} {}", self.at, self.location(""))
    }

    fn full_key(&self, key: &str) -> String {
        key::below(&self.configured.prefix, key)
    }

    fn own_key(&self, full_key: &str) -> Option<String> {
        key::without(&self.configured.prefix, full_key)
    }

    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let request = self.client.list_objects_v2().bucket(&self.configured.bucket).prefix(self.full_key(folder));
            let page = request.set_continuation_token(token.clone()).send().await.map_err(|error| self.explain(error))?;
            objects.extend(self.objects_of(&page));
            match page.next_continuation_token {
                None if page.is_truncated != Some(true) => return Ok(objects),
                // Taken for the whole list, it would mean that existing sets are missing.
                None => anyhow::bail!("{} returned an incomplete list without a token for the rest", self.at),
                next if next == token => anyhow::bail!("{} returned the same page of its list again", self.at),
                next => token = next,
            }
        }
        anyhow::bail!("more than {PAGES} pages of objects")
    }

    /// Lists many folders together. Fails where the server cannot begin a list at a key, or has another order of keys.
    pub async fn list_many(&self, folders: &BTreeSet<String>) -> Result<HashMap<String, Listed>> {
        let Some(mut walk) = Walk::of(folders) else { return Ok(HashMap::new()) };
        for _ in 0..PAGES {
            let request = self.client.list_objects_v2().bucket(&self.configured.bucket).prefix(self.full_key(""));
            let page = request.start_after(self.full_key(walk.after())).send().await.map_err(|error| self.explain(error))?;
            anyhow::ensure!(walk.take(self.objects_of(&page)), "{} does not list objects in the order of their keys", self.at);
            let is_last = page.is_truncated != Some(true) && page.next_continuation_token.is_none();
            if is_last || !walk.go_on() {
                return Ok(walk.found());
            }
            anyhow::ensure!(!page.contents().is_empty(), "{} returned an empty page of a list that goes on", self.at);
        }
        anyhow::bail!("more than {PAGES} pages of objects")
    }

    /// The objects on a page that are below the prefix.
    fn objects_of(&self, page: &ListObjectsV2Output) -> impl Iterator<Item = Object> {
        page.contents().iter().filter_map(|object| {
            let (key, modified_at) = (self.own_key(object.key()?)?, object.last_modified().and_then(time));
            Some(Object { key, bytes: object.size().unwrap_or(0).max(0) as u64, modified_at })
        })
    }

    pub async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Reader>> {
        Reader::open(self, key, range).await
    }

    /// Returns whether an object exists. Only an answer that the object itself does not exist counts as "no".
    pub async fn exists_for_certain(&self, key: &str) -> Result<bool> {
        // HEAD is not used: its answers have no body, which tells a missing object from a missing bucket.
        let request = self.client.get_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) && error.code() == Some("NoSuchKey") => Ok(false),
            Err(error) => Err(self.explain(error)),
        }
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) && error.code() != Some("NoSuchBucket") => Ok(()),
            Err(error) => Err(self.explain_delete(key, error).await),
        }
    }

    pub async fn unfinished(&self, folder: &str) -> Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let mut markers = (None, None);
        for _ in 0..PAGES {
            let request = self.client.list_multipart_uploads().bucket(&self.configured.bucket).prefix(self.full_key(folder));
            let page = match request.set_key_marker(markers.0).set_upload_id_marker(markers.1).send().await {
                Ok(page) => page,
                // Then only the server's own expiry removes unfinished uploads.
                Err(error) if request::has_no_such_operation(&error) => {
                    tracing::debug!("{} cannot list unfinished uploads of {}", self.at, self.location(folder));
                    return Ok(found);
                }
                Err(error) => return Err(self.explain(error)),
            };
            for upload in page.uploads() {
                let key = upload.key().and_then(|key| self.own_key(key)).filter(|key| key.starts_with(folder));
                if let (Some(key), Some(id)) = (key, upload.upload_id()) {
                    let started_at = upload.initiated().and_then(time);
                    found.push(Unfinished { key, id: id.to_owned(), started_at });
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(found);
            }
            anyhow::ensure!(
                page.next_key_marker.is_some(),
                "{} returned an incomplete list of uploads without a token for the rest",
                self.at
            );
            markers = (page.next_key_marker, page.next_upload_id_marker);
        }
        anyhow::bail!("more than {PAGES} pages of unfinished uploads")
    }

    pub async fn abort(&self, key: &str, upload_id: &str) -> Result<()> {
        let request = self.client.abort_multipart_upload().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.upload_id(upload_id).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    pub fn upload(&self, key: &str, expected_bytes: u64) -> Result<Upload> {
        Ok(Upload::new(self, key, self.part_bytes(expected_bytes)?, false))
    }

    /// The same for an object that is locked where the store has `lock`.
    pub fn upload_locked(&self, key: &str, expected_bytes: u64) -> Result<Upload> {
        Ok(Upload::new(self, key, self.part_bytes(expected_bytes)?, true))
    }

    /// S3's limits: Amazon S3 User Guide, "Multipart upload limits".
    fn part_bytes(&self, expected_bytes: u64) -> Result<u64> {
        let config::S3 { max_parts, parts_in_flight, upload_memory_bytes, .. } = *self.configured;
        let limits = Limits { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts, parts_in_flight, upload_memory_bytes };
        parts::part_bytes(expected_bytes, &limits)
    }

    /// Returns a complete object; `None` when there is none.
    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        let request = self.client.head_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.send().await {
            Ok(head) => {
                let bytes = head.content_length().unwrap_or(0).max(0) as u64;
                Ok(Some(Object { key: key.to_owned(), bytes, modified_at: head.last_modified().and_then(time) }))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Returns whether the bucket keeps deleted and replaced objects as older versions; `None` where that may not be asked.
    pub async fn keeps_versions(&self) -> Option<bool> {
        match self.client.get_bucket_versioning().bucket(&self.configured.bucket).send().await {
            Ok(answer) => Some(answer.status == Some(BucketVersioningStatus::Enabled)),
            Err(error) => {
                tracing::debug!("cannot ask whether the bucket keeps versions: {:#}", self.explain(error));
                None
            }
        }
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.configured.server_side_encryption.map(|encryption| match encryption {
            Encryption::S3 => ServerSideEncryption::Aes256,
            Encryption::Kms => ServerSideEncryption::AwsKms,
        })
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.configured.storage_class.as_deref().map(StorageClass::from)
    }
}
