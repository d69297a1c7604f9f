//! Uploads objects of unknown length in parts of equal size, several at once.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::S3;
use super::checksums::{algorithm, content_md5};
use super::lock::Retention;
use super::request::REQUEST_TIMEOUT;
use crate::base::subtask::in_span;
use crate::config::Checksums;
use crate::store::parts::Part;

/// The upload of one object: a single PutObject when it fits into one part, else a multipart upload.
pub struct Upload {
    s3: S3,
    key: String,
    part_bytes: usize,
    filling: Part,
    /// Set from the first full part until the end.
    upload_id: Option<String>,
    in_flight: JoinSet<Result<CompletedPart>>,
    parts: Vec<CompletedPart>,
    started_parts: u32,
    total_bytes: u64,
    /// The checksums announced at the start of the upload: the same for all parts.
    checksums: Checksums,
    /// It is locked where the store has `lock`.
    is_locked: bool,
}

impl Upload {
    pub fn new(s3: &S3, key: &str, part_bytes: u64, is_locked: bool) -> Self {
        Self {
            s3: s3.clone(),
            key: key.to_owned(),
            part_bytes: part_bytes as usize,
            filling: Part::default(),
            upload_id: None,
            in_flight: JoinSet::new(),
            parts: Vec::new(),
            started_parts: 0,
            total_bytes: 0,
            checksums: s3.checksums(),
            is_locked,
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
        let Some(upload_id) = self.upload_id.clone() else {
            return self.put_whole().await;
        };
        if self.filling.filled() > 0 {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.await_part().await?;
        }
        self.parts.sort_by_key(CompletedPart::part_number);
        self.complete(&upload_id).await?;
        self.upload_id = None;
        Ok(())
    }

    pub async fn abort(&mut self) -> Result<()> {
        // A part that arrives after the abort would stay (S3 User Guide), so sending stops first.
        self.in_flight.shutdown().await;
        match self.upload_id.take() {
            Some(id) => self.s3.abort(&self.key, &id).await,
            None => Ok(()),
        }
    }

    async fn put_whole(&mut self) -> Result<()> {
        let body = Bytes::from_owner(std::mem::take(&mut self.filling));
        let timeout = self.part_timeout(body.len());
        let retention = self.retention().await?;
        let put = self.s3.put_object(&self.key, body, (None, retention.as_ref()), timeout).await;
        put.map_err(|error| self.s3.explain(error)).with_context(|| format!("cannot upload {}", self.s3.location(&self.key)))?;
        Ok(())
    }

    async fn send_part(&mut self) -> Result<()> {
        let upload_id = match &self.upload_id {
            Some(id) => id.clone(),
            None => self.start().await?,
        };
        while self.in_flight.len() >= self.s3.configured.parts_in_flight {
            self.await_part().await?;
        }
        self.started_parts += 1;
        let max_parts = self.s3.configured.max_parts;
        anyhow::ensure!(
            self.started_parts <= max_parts,
            "{} grew beyond {max_parts} parts of {}: the dump is far larger than its database; raise upload_memory for larger parts",
            self.s3.location(&self.key),
            crate::base::units::bytes(self.part_bytes as u64)
        );
        let number = self.started_parts as i32;
        let body = Bytes::from_owner(std::mem::take(&mut self.filling));
        let timeout = self.part_timeout(body.len());
        let (s3, key, checksums) = (self.s3.clone(), self.key.clone(), self.checksums);
        let part = async move { upload_part(&s3, &key, &upload_id, number, body, checksums, timeout).await };
        self.in_flight.spawn(in_span(part));
        Ok(())
    }

    async fn await_part(&mut self) -> Result<()> {
        if let Some(ended) = self.in_flight.join_next().await {
            self.parts.push(ended.context("the upload of a part was interrupted")??);
        }
        Ok(())
    }

    /// Until when the object is locked that is made now.
    async fn retention(&self) -> Result<Option<Retention>> {
        if self.is_locked { self.s3.retention().await } else { Ok(None) }
    }

    async fn start(&mut self) -> Result<String> {
        let retention = self.retention().await?;
        let request =
            self.s3.client.create_multipart_upload().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        let started = request
            .set_checksum_algorithm(algorithm(self.checksums))
            .set_server_side_encryption(self.s3.encryption())
            .set_ssekms_key_id(self.s3.configured.kms_key_id.clone())
            .set_storage_class(self.s3.storage_class())
            .set_object_lock_mode(retention.as_ref().map(|retention| retention.mode.clone()))
            .set_object_lock_retain_until_date(retention.as_ref().map(|retention| retention.until))
            .send()
            .await
            .map_err(|error| self.s3.explain(error))
            .with_context(|| format!("cannot start the upload of {}", self.s3.location(&self.key)))?;
        let id = started.upload_id.context("the server returned no upload id")?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    /// S3 may answer 200 and report a failure in the body (API reference, CompleteMultipartUpload): the SDK reads that as an
    /// error and retries. An answer may also be lost after the object was created, and the next attempt then finds no such
    /// upload. So the object itself decides.
    async fn complete(&self, upload_id: &str) -> Result<()> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let request =
            self.s3.client.complete_multipart_upload().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        // S3 takes minutes to assemble terabytes.
        let timeout = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(600)).build();
        let answer = request
            .upload_id(upload_id)
            .multipart_upload(parts)
            .customize()
            .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeout))
            .send()
            .await
            .map_err(|error| self.s3.explain(error));
        let location = self.s3.location(&self.key);
        // The key belongs to this run alone, so an object of this length is this upload.
        match (self.s3.stat(&self.key).await, answer) {
            (Ok(Some(there)), _) if there.bytes == self.total_bytes => Ok(()),
            (_, Err(error)) => Err(error.context(format!("cannot complete the upload of {location}"))),
            (Err(error), Ok(_)) => Err(error.context(format!("cannot tell whether {location} is complete"))),
            (Ok(there), Ok(_)) => {
                let bytes = there.map_or(0, |there| there.bytes);
                anyhow::bail!("{location} was completed with {bytes} bytes of {}", self.total_bytes)
            }
        }
    }

    fn part_timeout(&self, part_bytes: usize) -> TimeoutConfig {
        let default = REQUEST_TIMEOUT + Duration::from_secs(part_bytes as u64 / (256 << 10));
        let timeout = self.s3.configured.part_timeout.map_or(default, |timeout| timeout.0);
        TimeoutConfig::builder().operation_attempt_timeout(timeout).build()
    }
}

/// Repeats the part with a checksum when the server asks for one.
async fn upload_part(
    s3: &S3,
    key: &str,
    upload_id: &str,
    number: i32,
    body: Bytes,
    mut checksums: Checksums,
    timeout: TimeoutConfig,
) -> Result<CompletedPart> {
    loop {
        let request = s3.client.upload_part().bucket(&s3.configured.bucket).key(s3.full_key(key));
        let answer = request
            .upload_id(upload_id)
            .part_number(number)
            .content_length(body.len() as i64)
            .set_checksum_algorithm(algorithm(checksums))
            .set_content_md5(content_md5(checksums, &body))
            .body(ByteStream::from(body.clone()))
            .customize()
            .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeout.clone()))
            .send()
            .await;
        return match answer {
            Ok(sent) => {
                let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
                Ok(part.set_checksum_crc32(sent.checksum_crc32).build())
            }
            Err(error) if s3.is_asked_for(&error, &mut checksums) => continue,
            Err(error) => Err(s3.explain(error)).with_context(|| format!("cannot upload part {number} of {}", s3.location(key))),
        };
    }
}
