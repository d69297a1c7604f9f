//! Changes a small JSON object that several processes write, so that none of their changes is lost.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Store;
use super::conditional::Conditional;
use super::object::Precondition;
use super::sign::{MARKER_BYTES, Signature, without_end};
use crate::base::bounds::Bounded;
use crate::base::fault::{Fault, Kind};
use crate::base::units;

/// Each failed attempt means that another process has written in the meantime.
const ATTEMPTS: u32 = 20;

impl Store {
    /// Writes the object that `change` makes of the present one, and returns it. It is written only if nobody else has written since it was
    /// read; else it is read and changed once more. A store that cannot do that replaces what another process writes in the same moment:
    /// between this read and this write.
    pub async fn change_json<T: Serialize + DeserializeOwned + Bounded>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Result<(T, Signature)>>) -> Result<T>,
    ) -> Result<T> {
        for attempt in 0..ATTEMPTS {
            let there = self.get_versioned(key).await?;
            let (bytes, version) = there.unzip();
            let changed = change(bytes.map(|bytes| self.read_json(key, &bytes)))?;
            let content = self.to_json(key, &changed)?;
            let precondition = version.as_ref().map_or(Precondition::Absent, Precondition::Unchanged);
            match self.try_put_if(key, content.clone(), precondition).await? {
                Conditional::Written(_) => return Ok(changed),
                Conditional::Unsupported(why) => {
                    tracing::debug!("{} is written without a condition: {why}", self.location(key));
                    self.put(key, content).await?;
                    return Ok(changed);
                }
                // The answer to a write of ours may have been lost.
                Conditional::NotSo if self.get(key).await?.as_deref() == Some(&content) => return Ok(changed),
                Conditional::NotSo => tokio::time::sleep(Duration::from_millis(20 + 30 * u64::from(attempt))).await,
            }
        }
        let message = format!("other processes wrote {} each of {ATTEMPTS} times that it was to be changed", self.location(key));
        Err(Fault::new(Kind::Busy, message).into())
    }

    pub(super) fn read_json<T: DeserializeOwned + Bounded>(&self, key: &str, bytes: &[u8]) -> Result<(T, Signature)> {
        let read = || {
            anyhow::ensure!(bytes.len() as u64 <= MARKER_BYTES, "it has {}", units::bytes(bytes.len() as u64));
            let value: T = serde_json::from_slice(bytes)?;
            value.check()?;
            anyhow::Ok((value, self.signature(key, without_end(bytes))?))
        };
        read().with_context(|| format!("cannot read {}", self.location(key)))
    }
}
