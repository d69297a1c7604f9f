//! Tests a store for `check --connect`: writes, reads back, lists and deletes a small object.

use anyhow::Result;
use chrono::Utc;
use uuid::Uuid;

use super::object::Locked;
use super::{PROBE_FOLDER, Store};
use crate::base::fault::Kind;
use crate::base::units;
use crate::pg::failure;

/// The test results of a store that can hold backups.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Things that do not work, or work unexpectedly, each with advice.
    pub warnings: Vec<String>,
    pub can_delete: bool,
}

impl Store {
    /// Writes, reads back, lists and deletes a small object. An error here is one that backups would meet.
    pub async fn probe(&self) -> Result<Probed> {
        let key = format!("{PROBE_FOLDER}{}", Uuid::new_v4());
        // This comes before anything is written: some S3-compatible servers create a bucket that does not exist.
        self.list(PROBE_FOLDER).await?;
        let content = b"pgtend was here for a moment".to_vec();
        let started = Utc::now();
        self.put(&key, content.clone()).await?;
        let ended = Utc::now();
        let read_back = self.get(&key).await?;
        let there = self.list(PROBE_FOLDER).await?.into_iter().find(|object| object.key == key);
        let deleted = self.delete(&key).await;
        anyhow::ensure!(read_back == Some(content), "{} did not read back as it was written", self.location(&key));
        anyhow::ensure!(there.is_some(), "{} was written and is not listed", self.location(&key));

        let mut warnings = Vec::new();
        let can_delete = deleted.is_ok();
        if let Err(error) = deleted {
            if error.downcast_ref::<Locked>().is_none() && failure::kind_of(&error) != Some(Kind::Permission) {
                return Err(error);
            }
            warnings.push(format!(
                "cannot delete, so `keep` and the sweep will not work here, and {} stays: {error:#}",
                self.location(&key)
            ));
        }
        warnings.extend(
            there.and_then(|object| object.modified_at).and_then(|at| units::clocks_differ("the store", at, started, ended)),
        );
        if let Self::S3(s3) = self
            && s3.keeps_versions().await == Some(true)
        {
            warnings.push(
                "the bucket keeps versions: pruned objects stay, and are billed, as older versions, until a lifecycle rule \
                 (NoncurrentVersionExpiration) removes them"
                    .to_owned(),
            );
        }
        if can_delete && !self.can_put_if().await? {
            warnings.push(
                "it ignores conditions of writes (If-None-Match), and so cannot hold a lock: without a [ledger], prune \
                 and sweep will not work here"
                    .to_owned(),
            );
        }
        Ok(Probed { warnings, can_delete })
    }
}
