//! Conditional writes: If-None-Match and If-Match of Azure, x-goog-if-generation-match of Google.

use std::time::Duration;

use anyhow::{Context as _, Result};
use object_store::{PutMode, PutOptions, UpdateVersion};

use super::Cloud;
use super::answer::Answer;
use crate::store::conditional::Conditional;
use crate::store::object::{Precondition, Version};

/// A write under a condition is not repeated by object_store when its answer is lost.
const LOST_ANSWERS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

impl Cloud {
    /// After a lost answer, the next attempt may find what the first one wrote: its caller compares the content.
    pub async fn put_if(&self, key: &str, content: Vec<u8>, precondition: Precondition<'_>) -> Result<Conditional> {
        let (path, content) = (self.path(key)?, bytes::Bytes::from(content));
        let mut lost = 0;
        loop {
            let mode = match precondition {
                Precondition::Absent => PutMode::Create,
                // Azure takes the one, Google the other.
                Precondition::Unchanged(Version(version)) => {
                    PutMode::Update(UpdateVersion { e_tag: Some(version.clone()), version: Some(version.clone()) })
                }
            };
            let options = PutOptions { mode, attributes: self.attributes(), ..Default::default() };
            let error = match self.backend.put_opts(&path, content.clone().into(), options).await {
                Ok(written) => {
                    return Ok(match self.version(written.e_tag, written.version) {
                        Some(version) => Conditional::Written(version),
                        None => Conditional::Unsupported("its answers to PUT have no version".to_owned()),
                    });
                }
                Err(error) => error,
            };
            match Answer::of(&error) {
                Some(answer) if answer.denies_the_condition() || answer.lacks_the_object() => return Ok(Conditional::NotSo),
                Some(answer) if answer.status == 501 => {
                    return Ok(Conditional::Unsupported("it refuses conditions of writes (501)".to_owned()));
                }
                None if lost < LOST_ANSWERS => {
                    lost += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return Err(self.explain(&error)).with_context(|| format!("cannot upload {}", self.location(key))),
            }
        }
    }

    /// Returns what a later write compares with.
    pub(super) fn version(&self, e_tag: Option<String>, version: Option<String>) -> Option<Version> {
        match self.provider {
            super::Provider::Azure { .. } => e_tag.map(Version),
            super::Provider::Google { .. } => version.map(Version),
        }
    }
}
