//! What `check --connect` finds out of a store, by writing, reading back, listing and deleting a small object.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Locked, PROBE_FOLDER, Store};
use crate::fault::{self, Kind};

/// Times of objects are whole seconds, and writing takes a moment.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(30);

/// A store that backups can be made into.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What does not work, or works otherwise than one may expect, and what to do.
    pub warnings: Vec<String>,
    pub can_delete: bool,
}

impl Store {
    /// Writes, reads back, lists and deletes a small object. An error is what backups would fail of.
    pub async fn probe(&self) -> Result<Probed> {
        let key = format!("{PROBE_FOLDER}{}", Uuid::new_v4());
        // Before anything is written: some S3-compatible servers make a bucket that does not exist.
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
            if error.downcast_ref::<Locked>().is_none() && fault::kind_of(&error) != Some(Kind::Permission) {
                return Err(error);
            }
            warnings.push(format!(
                "cannot delete, so that `keep` and the sweep will not work here, and {} stays: {error:#}",
                self.location(&key)
            ));
        }
        warnings.extend(there.and_then(|object| object.modified_at).and_then(|at| clocks(at, started, ended)));
        if let Self::S3(s3) = self
            && s3.keeps_versions().await == Some(true)
        {
            warnings.push(
                "the bucket keeps versions: what is pruned stays, and is paid for, as older versions, until a lifecycle rule \
                 (NoncurrentVersionExpiration) removes them"
                    .to_owned(),
            );
        }
        if can_delete && !self.can_put_if().await? {
            warnings.push(
                "it does not keep to the condition of a write (If-None-Match), and cannot hold a lock: without a [ledger], prune \
                 and sweep will not work here"
                    .to_owned(),
            );
        }
        Ok(Probed { warnings, can_delete })
    }
}

/// What to say when an object that was written between two moments of this host has another time by the store.
fn clocks(modified_at: DateTime<Utc>, started: DateTime<Utc>, ended: DateTime<Utc>) -> Option<String> {
    let (off, how) = if modified_at < started { (started - modified_at, "behind") } else { (modified_at - ended, "ahead of") };
    (off > CLOCK_TOLERANCE).then(|| {
        let off = crate::units::Span(Duration::from_secs(off.num_seconds().max(0) as u64));
        format!("the store's clock is {off} {how} this host's: set the one that is wrong, and let NTP keep both")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_and_a_slow_write_is_none() {
        let at = |seconds: i64| DateTime::<Utc>::from_timestamp(1_000_000 + seconds, 0).unwrap();
        for (modified, started, ended, said) in [
            (0, 0, 0, None),
            (-1, 0, 1, None),
            (59, 0, 60, None),
            (-1200, 0, 1, Some("20m behind")),
            (1201, 0, 1, Some("20m ahead of")),
        ] {
            let warning = clocks(at(modified), at(started), at(ended));
            assert_eq!(warning.is_some(), said.is_some(), "{warning:?}");
            assert!(warning.unwrap_or_default().contains(said.unwrap_or_default()));
        }
    }
}
