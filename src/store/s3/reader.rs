//! Downloads an object, and resumes a broken download.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf as _, Bytes};

use super::S3;
use super::request::{ATTEMPTS, status};
use crate::base::fault::{Fault, Kind};

pub struct Reader {
    s3: S3,
    key: String,
    body: ByteStream,
    etag: Option<String>,
    /// The length of the whole object.
    length: u64,
    /// The end of the part that was asked for.
    end: u64,
    position: u64,
    /// Bytes of the answer before `position`, which were read already.
    skip: u64,
}

impl Reader {
    /// Returns `None` when there is no such object. Without a range, all of it is read.
    pub async fn open(s3: &S3, key: &str, range: Option<Range<u64>>) -> Result<Option<Self>> {
        let request = s3.client.get_object().bucket(&s3.configured.bucket).key(s3.full_key(key));
        let header = range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        match request.set_range(header).send().await {
            Ok(object) => Self::of(s3, key, object, range).map(Some),
            Err(error)
                if error.code() == Some("NoSuchKey") || (status(&error) == Some(404) && error.code() != Some("NoSuchBucket")) =>
            {
                Ok(None)
            }
            Err(error) => Err(s3.explain(error)),
        }
    }

    fn of(s3: &S3, key: &str, object: GetObjectOutput, range: Option<Range<u64>>) -> Result<Self> {
        let content_length = object.content_length().unwrap_or(0).max(0) as u64;
        let (length, end, position, start) = match range {
            None => (content_length, content_length, 0, 0),
            Some(range) => {
                let said = object.content_range().unwrap_or_default();
                let length = said.rsplit_once('/').map_or(Some(content_length), |(_, whole)| whole.parse().ok());
                let length = length.unwrap_or(range.end);
                let Some(start) = start_of(&object, length).filter(|start| *start <= range.start) else {
                    anyhow::bail!("{}: the server answered with another part than was asked for ({said})", s3.location(key));
                };
                (length, range.end.min(length), range.start, start)
            }
        };
        let etag = object.e_tag().map(str::to_owned);
        let skip = position - start;
        Ok(Self { s3: s3.clone(), key: key.to_owned(), body: object.body, etag, length, end, position, skip })
    }

    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let mut attempt = 0;
        loop {
            // A whole object is read on to the end of the answer, where the client compares checksums.
            if self.position >= self.end && self.end < self.length {
                return Ok(None);
            }
            let broke = match self.body.next().await {
                Some(Ok(mut chunk)) => {
                    let known = self.skip.min(chunk.len() as u64);
                    self.skip -= known;
                    chunk.advance(known as usize);
                    if self.end < self.length {
                        chunk.truncate((self.end - self.position).min(chunk.len() as u64) as usize);
                    }
                    if chunk.is_empty() {
                        continue;
                    }
                    self.position += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                None if self.position >= self.end => return Ok(None),
                None => "the answer ended early".to_owned(),
                Some(Err(error)) => error.to_string(),
            };
            tracing::debug!("reading {} broke off at byte {}: {broke}", self.s3.location(&self.key), self.position);
            attempt += 1;
            if attempt > ATTEMPTS {
                return Err(self.broke(&format!("broke off {ATTEMPTS} times")));
            }
            tokio::time::sleep(Duration::from_millis(200) * 4_u32.pow(attempt - 1)).await;
            self.take_up().await?;
        }
    }

    /// Requests the rest of the same object. Some servers and proxies ignore Range, or If-Match: their answers are corrected, or
    /// refused.
    async fn take_up(&mut self) -> Result<()> {
        let location = self.s3.location(&self.key);
        // A weak ETag says that two contents mean the same, not that they are the same bytes (RFC 9110, 8.8.1).
        let Some(etag) = self.etag.clone().filter(|etag| !etag.starts_with("W/")) else {
            return Err(self.broke(
                "broke off, and the server gives it no strong ETag with which the rest of the same object could be requested",
            ));
        };
        let request = self.s3.client.get_object().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        let range = match self.end == self.length {
            true => (self.position > 0).then(|| format!("bytes={}-", self.position)),
            false => Some(format!("bytes={}-{}", self.position, self.end - 1)),
        };
        let object = match request.set_range(range).if_match(&etag).send().await {
            Ok(object) => object,
            Err(error) if matches!(status(&error), Some(404 | 412)) => {
                anyhow::bail!("{location} was replaced or deleted while it was being read")
            }
            Err(error) => return Err(self.s3.explain(error)),
        };
        anyhow::ensure!(object.e_tag() == Some(etag.as_str()), "{location} was replaced while it was being read");
        let Some(start) = start_of(&object, self.length).filter(|start| *start <= self.position) else {
            let said = object.content_range().unwrap_or_default();
            return Err(
                self.broke(&format!("broke off, and when asked for the rest, the server answered with another part ({said})"))
            );
        };
        self.skip = self.position - start;
        self.body = object.body;
        Ok(())
    }

    fn broke(&self, how: &str) -> anyhow::Error {
        let message = format!("{} {how}, at byte {} of {}", self.s3.location(&self.key), self.position, self.length);
        Fault::new(Kind::Unreachable, message).into()
    }
}

/// Returns the byte of the object that an answer starts at. Returns `None` when that is uncertain, or the object has another
/// length.
fn start_of(object: &GetObjectOutput, length: u64) -> Option<u64> {
    match object.content_range() {
        Some(range) => {
            let (part, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
            let start = part.split_once('-')?.0.parse().ok()?;
            (whole == "*" || whole.parse() == Ok(length)).then_some(start)
        }
        // A server that ignores Range answers with the whole object.
        None => (object.content_length().and_then(|bytes| u64::try_from(bytes).ok()) == Some(length)).then_some(0),
    }
}
