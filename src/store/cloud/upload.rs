//! Uploads objects of unknown length in parts of equal size, several at once.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Attribute, GetResult, MultipartUpload, PutMultipartOptions, PutOptions, PutPayload};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Cloud;
use crate::base::subtask::in_span;
use crate::store::parts::Part;

/// The metadata of an object that was uploaded in parts: by which upload.
const MARK: &str = "pgtend_upload";

/// The upload of one object: a single request when it fits into one part, else an upload of parts.
pub struct Upload {
    cloud: Cloud,
    key: String,
    path: Path,
    part_bytes: usize,
    filling: Part,
    /// Set from the first full part until the end.
    started: Option<Box<dyn MultipartUpload>>,
    in_flight: JoinSet<object_store::Result<()>>,
    started_parts: u32,
    total_bytes: u64,
    /// A name that no other upload has.
    id: String,
}

impl Upload {
    pub fn new(cloud: &Cloud, key: &str, path: Path, part_bytes: u64) -> Self {
        Self {
            cloud: cloud.clone(),
            key: key.to_owned(),
            path,
            part_bytes: part_bytes as usize,
            filling: Part::default(),
            started: None,
            in_flight: JoinSet::new(),
            started_parts: 0,
            total_bytes: 0,
            id: Uuid::new_v4().simple().to_string(),
        }
    }

    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.total_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.filling.filled() == self.part_bytes {
                self.send_part().await?;
            }
            let added = self.filling.add(bytes, self.part_bytes)?;
            bytes = &bytes[added..];
        }
        Ok(())
    }

    pub async fn finish(&mut self) -> Result<()> {
        if self.started.is_none() {
            return self.put_whole().await;
        }
        if self.filling.filled() > 0 {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.await_part().await?;
        }
        self.complete().await?;
        self.started = None;
        Ok(())
    }

    pub async fn abort(&mut self) -> Result<()> {
        // A part that arrives after the abort would stay, so sending stops first.
        self.in_flight.shutdown().await;
        match self.started.take() {
            Some(mut started) => started.abort().await.map_err(|error| self.cloud.explain(&error)),
            None => Ok(()),
        }
    }

    async fn put_whole(&mut self) -> Result<()> {
        let body = PutPayload::from(Bytes::from_owner(std::mem::take(&mut self.filling)));
        let options = PutOptions { attributes: self.cloud.attributes(), ..Default::default() };
        let put = self.cloud.backend.put_opts(&self.path, body, options).await;
        put.map_err(|error| self.cloud.explain(&error))
            .with_context(|| format!("cannot upload {}", self.cloud.location(&self.key)))?;
        Ok(())
    }

    async fn send_part(&mut self) -> Result<()> {
        if self.started.is_none() {
            self.start().await?;
        }
        while self.in_flight.len() >= self.cloud.configured.parts_in_flight {
            self.await_part().await?;
        }
        self.started_parts += 1;
        let max_parts = self.cloud.limits().max_parts;
        anyhow::ensure!(
            self.started_parts <= max_parts,
            "{} grew beyond {max_parts} parts of {}: the dump is far larger than its database; raise upload_memory for larger parts",
            self.cloud.location(&self.key),
            crate::base::units::bytes(self.part_bytes as u64)
        );
        let body = PutPayload::from(Bytes::from_owner(std::mem::take(&mut self.filling)));
        let started = self.started.as_mut().context("the upload has ended")?;
        self.in_flight.spawn(in_span(started.put_part(body)));
        Ok(())
    }

    async fn await_part(&mut self) -> Result<()> {
        if let Some(ended) = self.in_flight.join_next().await {
            let sent = ended.context("the upload of a part was interrupted")?;
            sent.map_err(|error| self.cloud.explain(&error))
                .with_context(|| format!("cannot upload a part of {}", self.cloud.location(&self.key)))?;
        }
        Ok(())
    }

    async fn start(&mut self) -> Result<()> {
        let mut attributes = self.cloud.attributes();
        attributes.insert(Attribute::Metadata(MARK.into()), self.id.clone().into());
        let options = PutMultipartOptions { attributes, ..Default::default() };
        let started = self.cloud.backend.put_multipart_opts(&self.path, options).await;
        let started = started
            .map_err(|error| self.cloud.explain(&error))
            .with_context(|| format!("cannot start the upload of {}", self.cloud.location(&self.key)))?;
        self.started = Some(started);
        Ok(())
    }

    /// An answer may be lost after the object was created, and the next attempt then finds no such upload. So the object itself decides: it
    /// has the mark of this upload. Its length would not do: of two uploads of one blob, Azure drops the blocks of the later one.
    async fn complete(&mut self) -> Result<()> {
        let started = self.started.as_mut().context("the upload has ended")?;
        let answer = started.complete().await.map_err(|error| self.cloud.explain(&error));
        let location = self.cloud.location(&self.key);
        let there = self.cloud.head(&self.key).await.map(|there| there.filter(|there| self.is_ours(there)));
        match (there, answer) {
            (Ok(Some(there)), _) if there.meta.size == self.total_bytes => Ok(()),
            (_, Err(error)) => Err(error.context(format!("cannot complete the upload of {location}"))),
            (Err(error), Ok(_)) => Err(error.context(format!("cannot tell whether {location} is complete"))),
            (Ok(there), Ok(_)) => {
                let bytes = there.map_or(0, |there| there.meta.size);
                anyhow::bail!("{location} was completed with {bytes} bytes of {}", self.total_bytes)
            }
        }
    }

    fn is_ours(&self, there: &GetResult) -> bool {
        there.attributes.get(&Attribute::Metadata(MARK.into())).is_some_and(|mark| mark.as_ref() == self.id)
    }
}
