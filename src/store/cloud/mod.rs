//! A container of Azure Blob Storage or a bucket of Google Cloud Storage as a store, by the crate object_store. What differs between the two
//! is in `provider`.

mod answer;
mod attempts;
mod conditional;
mod explain;
mod http_client;
mod list;
mod provider;
mod reader;
mod request;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use object_store::client::HttpClient;
use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, GetResult, ObjectStore};

use self::answer::Answer;
use self::provider::Provider;
pub use self::reader::Reader;
pub use self::upload::Upload;
use super::key;
use super::object::{Object, Unfinished};
use super::pace::Pace;
use super::parts::{self, Limits};
use super::sign::SignKey;
use crate::base::age_keys::AgeKeys;
use crate::config;

/// The most pages of 1,000 keys (Google) or 5,000 (Azure), as for S3.
const PAGES: usize = 10_000;

#[derive(Clone)]
pub struct Cloud {
    backend: Arc<dyn ObjectStore>,
    /// For requests that object_store has none for.
    client: HttpClient,
    provider: Provider,
    configured: Box<config::Cloud>,
    /// The server's URL.
    at: String,
    pub(super) sign_key: Option<SignKey>,
    pub(super) pace: Option<Arc<Pace>>,
}

/// The parts have secrets in them.
impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Cloud({})", self.location(""))
    }
}

impl Cloud {
    /// Reads credentials and certificates; does not contact the server yet.
    pub fn open(configured: &config::Cloud) -> Result<Self> {
        let provider::Opened { backend, client, provider, at } = provider::open(configured)?;
        let sign_key = configured.sign_key.clone().map(SignKey::new);
        let mut cloud = Self { backend, client, provider, configured: Box::new(configured.clone()), at, sign_key, pace: None };
        cloud.pace = Pace::of(&cloud.identity(), configured.max_upload);
        Ok(cloud)
    }

    /// The server's URL, for messages and to tell stores apart.
    pub fn server(&self) -> &str {
        &self.at
    }

    pub fn age_keys(&self) -> &Arc<AgeKeys> {
        &self.configured.age
    }

    /// Returns `gs://bucket/key`, or the URL of a blob, which azcopy takes.
    pub fn location(&self, key: &str) -> String {
        let key = self.full_key(key);
        match &self.configured.provider {
            config::Provider::Google { bucket } => format!("gs://{bucket}/{key}"),
            config::Provider::Azure { container, .. } => format!("{}/{container}/{key}", self.at),
        }
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

    /// Returns the key for object_store. [`Path::parse`] takes it as it is, where `Path::from` would encode `%` once more.
    fn path(&self, key: &str) -> Result<Path> {
        Ok(Path::parse(self.full_key(key))?)
    }

    pub async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Option<Reader>> {
        Reader::open(self, key, range).await
    }

    /// Returns a complete object; `None` when there is none.
    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        let found = self.head(key).await?;
        Ok(found.map(|GetResult { meta, .. }| Object {
            key: key.to_owned(),
            bytes: meta.size,
            modified_at: Some(meta.last_modified),
        }))
    }

    /// Returns what a server says of an object; `None` when there is none.
    async fn head(&self, key: &str) -> Result<Option<GetResult>> {
        let options = GetOptions { head: true, ..Default::default() };
        match self.backend.get_opts(&self.path(key)?, options).await {
            Ok(found) => Ok(Some(found)),
            // Google's answers to HEAD do not say what is missing.
            Err(error) if Answer::of(&error).is_some_and(|answer| answer.status == 404 && !answer.lacks_the_container()) => {
                Ok(None)
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// Returns whether an object exists. Only an answer that the object itself does not exist counts as "no".
    pub async fn exists_for_certain(&self, key: &str) -> Result<bool> {
        // GET, whose answers have a body that tells a missing object from a missing bucket.
        match self.backend.get_opts(&self.path(key)?, GetOptions::default()).await {
            Ok(_) => Ok(true),
            Err(error) if Answer::of(&error).is_some_and(Answer::lacks_the_object) => Ok(false),
            Err(error) => Err(self.explain(&error)),
        }
    }

    pub fn upload(&self, key: &str, expected_bytes: u64) -> Result<Upload> {
        let part_bytes = parts::part_bytes(expected_bytes, &self.limits())?;
        Ok(Upload::new(self, key, self.path(key)?, part_bytes))
    }

    fn limits(&self) -> Limits {
        let (parts_in_flight, upload_memory_bytes) = (self.configured.parts_in_flight, self.configured.upload_memory_bytes);
        match self.configured.provider {
            // Microsoft, "Scalability and performance targets for Blob storage": 50,000 blocks of at most 4,000 MiB.
            config::Provider::Azure { .. } => {
                let (min_part_bytes, max_part_bytes) = (1 << 20, 4000 << 20);
                Limits { min_part_bytes, max_part_bytes, max_parts: 50_000, parts_in_flight, upload_memory_bytes }
            }
            // Google, "XML API multipart uploads", limits.
            config::Provider::Google { .. } => {
                let (min_part_bytes, max_part_bytes) = (5 << 20, 5 << 30);
                Limits { min_part_bytes, max_part_bytes, max_parts: 10_000, parts_in_flight, upload_memory_bytes }
            }
        }
    }

    pub async fn unfinished(&self, folder: &str) -> Result<Vec<Unfinished>> {
        match self.provider {
            // Azure shows no blocks that are not committed, and drops them a week after the last one (REST API, "Put Block").
            Provider::Azure { .. } => Ok(Vec::new()),
            Provider::Google { .. } => self.unfinished_of_google(folder).await,
        }
    }

    /// Access tier or storage class of what is written.
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        if let Some(class) = &self.configured.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }
}
