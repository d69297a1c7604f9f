//! Tests a store for `check --connect`: writes, reads back, lists and deletes a small object. Removes what killed tests left.

use anyhow::Result;
use chrono::{TimeDelta, Utc};
use uuid::Uuid;

use super::object::{Locked, Object};
use super::{Expiry, PROBE_FOLDER, Store};
use crate::base::fault::Kind;
use crate::base::units;
use crate::pg::failure;

/// The beginning of the name of a probe of conditional writes.
pub(super) const CONDITION: &str = "condition-";

/// The leftovers that one test removes: more wait for the next one.
const MAX_SWEPT: usize = 100;

/// The test results of a store that can hold backups.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Things that do not work, or work unexpectedly, each with advice.
    pub warnings: Vec<String>,
    pub can_delete: bool,
    /// The bucket's rule by which objects go first.
    pub expiry: Option<Expiry>,
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
        let probes = self.list(PROBE_FOLDER).await?;
        let there = probes.iter().find(|object| object.key == key).cloned();
        let deleted = self.delete(&key).await;
        self.sweep_probes(&key, &probes).await;
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
        let mut expiry = None;
        if let Self::S3(s3) = self {
            warnings.extend(s3.lacks_lock().await);
            expiry = s3.expiry().await;
        }
        Ok(Probed { warnings, can_delete, expiry })
    }

    /// Deletes the probes that killed programs left a day ago or longer, by the store's clock: the time of `own`, which was just written.
    /// They are a few bytes each: where one cannot be deleted, they stay.
    pub(super) async fn sweep_probes(&self, own: &str, probes: &[Object]) {
        for probe in abandoned(own, probes).take(MAX_SWEPT) {
            if let Err(error) = self.delete(&probe.key).await {
                tracing::debug!("cannot delete a probe that an interrupted program left: {error:#}");
                return;
            }
        }
    }
}

/// Returns the probes of pgtend's own names that are a day older than `own`.
fn abandoned<'a>(own: &str, probes: &'a [Object]) -> impl Iterator<Item = &'a Object> {
    let now = probes.iter().find(|probe| probe.key == own).and_then(|probe| probe.modified_at);
    probes.iter().filter(move |probe| {
        let name = probe.key.strip_prefix(PROBE_FOLDER).unwrap_or_default();
        let is_ours = Uuid::try_parse(name.strip_prefix(CONDITION).unwrap_or(name)).is_ok();
        is_ours && now.zip(probe.modified_at).is_some_and(|(now, at)| now - at > TimeDelta::days(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_a_killed_program_left_is_deleted_after_a_day() {
        let own = format!("{PROBE_FOLDER}{}", Uuid::new_v4());
        let object = |key: String, at: Option<&str>| Object { key, bytes: 5, modified_at: at.map(|at| at.parse().unwrap()) };
        let left = |name: &str, at| {
            let probes = [object(format!("{PROBE_FOLDER}{name}"), at), object(own.clone(), Some("2026-11-24T03:00:00Z"))];
            abandoned(&own, &probes).map(|probe| probe.key.clone()).collect::<Vec<_>>().len() == 1
        };
        let name = Uuid::new_v4().to_string();
        assert!(left(&name, Some("2026-11-23T02:00:00Z")));
        assert!(left(&format!("{CONDITION}{name}"), Some("2026-11-23T02:00:00Z")));
        assert!(!left(&name, Some("2026-11-24T02:00:00Z")), "its program may live");
        assert!(!left(&name, None), "its age is unknown");
        assert!(!left("notes", Some("2026-11-01T00:00:00Z")), "a file of the user's");
        let unlisted = [object(format!("{PROBE_FOLDER}{name}"), Some("2026-11-01T00:00:00Z"))];
        assert_eq!(abandoned(&own, &unlisted).count(), 0, "the store's time is unknown");
    }
}
