//! Downloads an object, and resumes a broken download.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::{GetOptions, GetRange, GetResult};
use tokio::time::timeout;

use super::Cloud;
use super::answer::Answer;
use super::attempts::{ATTEMPTS, REQUEST_TIMEOUT};
use crate::base::fault::{Fault, Kind};
use crate::store::object::Version;

pub struct Reader {
    cloud: Cloud,
    key: String,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    etag: Option<String>,
    version: Option<Version>,
    /// The end of the part that was asked for.
    end: u64,
    position: u64,
}

impl Reader {
    /// Returns `None` when there is no such object. Without a range, all of it is read.
    pub async fn open(cloud: &Cloud, key: &str, range: Option<Range<u64>>) -> Result<Option<Self>> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(cloud.stat(key).await?.map(|_| Self::empty(cloud, key)));
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..Default::default() };
        match cloud.backend.get_opts(&cloud.path(key)?, options).await {
            Ok(found) => Ok(Some(Self::of(cloud, key, found))),
            Err(error) if Answer::of(&error).is_some_and(Answer::lacks_the_object) => Ok(None),
            Err(error) => Err(cloud.explain(&error)),
        }
    }

    fn of(cloud: &Cloud, key: &str, found: GetResult) -> Self {
        let (etag, Range { start, end }) = (found.meta.e_tag.clone(), found.range.clone());
        let version = cloud.version(etag.clone(), found.meta.version.clone());
        Self { cloud: cloud.clone(), key: key.to_owned(), body: found.into_stream(), etag, version, end, position: start }
    }

    /// No server has an answer for no bytes.
    fn empty(cloud: &Cloud, key: &str) -> Self {
        let body = futures_util::stream::empty().boxed();
        Self { cloud: cloud.clone(), key: key.to_owned(), body, etag: None, version: None, end: 0, position: 0 }
    }

    pub fn version(&self) -> Result<Version> {
        self.version.clone().with_context(|| format!("the server gave {} no version", self.cloud.location(&self.key)))
    }

    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let mut attempt = 0;
        loop {
            let broke = match timeout(REQUEST_TIMEOUT, self.body.next()).await {
                Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                Ok(Some(Ok(chunk))) => {
                    self.position += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.position >= self.end => return Ok(None),
                Ok(None) => "the answer ended early".to_owned(),
                Ok(Some(Err(error))) => error.to_string(),
                Err(_) => "nothing came any more".to_owned(),
            };
            tracing::debug!("reading {} broke off at byte {}: {broke}", self.cloud.location(&self.key), self.position);
            attempt += 1;
            if attempt > ATTEMPTS {
                return Err(self.broke(&format!("broke off {ATTEMPTS} times")));
            }
            tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(attempt - 1)).await;
            self.take_up().await?;
        }
    }

    /// Requests the rest of the same object. object_store does that, too, but not any more after ten minutes of one download.
    async fn take_up(&mut self) -> Result<()> {
        let location = self.cloud.location(&self.key);
        // A weak ETag says that two contents mean the same, not that they are the same bytes (RFC 9110, 8.8.1).
        let Some(etag) = self.etag.clone().filter(|etag| !etag.starts_with("W/")) else {
            return Err(self.broke(
                "broke off, and the server gives it no strong ETag with which the rest of the same object could be requested",
            ));
        };
        let rest = GetRange::Bounded(self.position..self.end);
        let options = GetOptions { range: Some(rest), if_match: Some(etag.clone()), ..Default::default() };
        match self.cloud.backend.get_opts(&self.cloud.path(&self.key)?, options).await {
            Ok(found) => {
                let is_same = found.meta.e_tag == Some(etag) && found.range.start == self.position;
                anyhow::ensure!(is_same, "{location} was replaced while it was being read");
                self.body = found.into_stream();
                Ok(())
            }
            Err(error) if Answer::of(&error).is_some_and(|answer| matches!(answer.status, 404 | 412)) => {
                anyhow::bail!("{location} was replaced or deleted while it was being read")
            }
            Err(error) => Err(self.cloud.explain(&error)),
        }
    }

    fn broke(&self, how: &str) -> anyhow::Error {
        let message = format!("{} {how}, at byte {} of {}", self.cloud.location(&self.key), self.position, self.end);
        Fault::new(Kind::Unreachable, message).into()
    }
}
