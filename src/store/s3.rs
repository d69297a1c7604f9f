//! An S3 bucket as a store. Objects of unknown length go up in parts of equal size, several at once.

mod conditional;

use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass};
use aws_smithy_http_client::tls;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use super::{Object, Unfinished};
use crate::config::{self, Encryption};
use crate::fault::{Fault, Kind};

/// S3's limits (Amazon S3 User Guide, "Multipart upload limits").
const PART_BYTES_LEAST: u64 = 5 << 20;
const PART_BYTES_MOST: u64 = 5 << 30;
/// A few parts of this size keep a fast line busy; smaller ones cost requests.
const PART_BYTES_USUAL: u64 = 8 << 20;

/// Attempts per request, with the SDK's exponential backoff between: about 15 s of a dead server in all.
const ATTEMPTS: u32 = 5;
/// For requests without a body of ours.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Pages of 1,000 keys: a store of ten million objects is not one of backups.
const PAGES: usize = 10_000;

#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    configured: config::S3,
}

impl S3 {
    pub async fn open(configured: &config::S3) -> Result<Self> {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        // A dated behaviour: a new SDK must not change what goes over the wire by itself.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(10))
                    .operation_attempt_timeout(REQUEST_TIMEOUT)
                    .build(),
            )
            // Uploads have a timeout of our own, per part: the SDK's protection takes a slow line for a dead one.
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().upload_enabled(false).build());
        if let Some(region) = &configured.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let shared = loader.load().await;
        let mut builder = aws_sdk_s3::config::Builder::from(&shared).force_path_style(configured.path_style);
        let compatible = configured.endpoint.is_some() || shared.endpoint_url().is_some();
        if let Some(endpoint) = &configured.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        if compatible {
            // Checksums on every request break S3-compatible servers (barman#1064, aws-sdk-rust#1240).
            builder = builder
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        if shared.region().is_none() {
            anyhow::ensure!(
                compatible,
                Fault::new(
                    Kind::Configuration,
                    format!("no region for bucket `{}`: set `region` in its store, or AWS_REGION", configured.bucket)
                )
            );
            builder = builder.region(Region::new("us-east-1"));
        }
        Ok(Self { client: Client::from_conf(builder.build()), configured: configured.clone() })
    }

    pub fn location(&self, key: &str) -> String {
        format!("s3://{}/{}", self.configured.bucket, self.full_key(key))
    }

    fn full_key(&self, key: &str) -> String {
        match self.configured.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// A key as the rest of pgtend knows it; None when it is not below our prefix.
    fn own_key(&self, full_key: &str) -> Option<String> {
        match self.configured.prefix.as_str() {
            "" => Some(full_key.to_owned()),
            prefix => Some(full_key.strip_prefix(prefix)?.strip_prefix('/')?.to_owned()),
        }
    }

    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut token = None;
        for _ in 0..PAGES {
            let request = self.client.list_objects_v2().bucket(&self.configured.bucket).prefix(self.full_key(folder));
            let page = request.set_continuation_token(token).send().await.map_err(|error| self.explain(error))?;
            for object in page.contents() {
                if let Some(key) = object.key().and_then(|key| self.own_key(key)) {
                    let modified_at = object.last_modified().and_then(time);
                    objects.push(Object { key, bytes: object.size().unwrap_or(0).max(0) as u64, modified_at });
                }
            }
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(objects);
            }
        }
        anyhow::bail!("more than {PAGES} pages of objects")
    }

    pub async fn read(&self, key: &str) -> Result<Option<Reader>> {
        let mut reader =
            Reader { s3: self.clone(), key: key.to_owned(), body: ByteStream::default(), etag: None, length: 0, position: 0 };
        Ok(reader.open().await?.then_some(reader))
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) && error.code() != Some("NoSuchBucket") => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    pub async fn unfinished(&self, folder: &str) -> Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let mut markers = (None, None);
        for _ in 0..PAGES {
            let request = self.client.list_multipart_uploads().bucket(&self.configured.bucket).prefix(self.full_key(folder));
            let page = match request.set_key_marker(markers.0).set_upload_id_marker(markers.1).send().await {
                Ok(page) => page,
                // Some S3-compatible servers cannot list uploads; their own expiry is then all there is.
                Err(error) if status(&error) == Some(501) || error.code() == Some("NotImplemented") => {
                    tracing::debug!("{} cannot list unfinished uploads", self.location(folder));
                    return Ok(found);
                }
                Err(error) => return Err(self.explain(error)),
            };
            for upload in page.uploads() {
                let key = upload.key().and_then(|key| self.own_key(key)).filter(|key| key.starts_with(folder));
                if let (Some(key), Some(id)) = (key, upload.upload_id()) {
                    let started_at = upload.initiated().and_then(time);
                    found.push(Unfinished { key, id: id.to_owned(), started_at });
                }
            }
            if page.is_truncated() != Some(true) {
                break;
            }
            markers = (page.next_key_marker, page.next_upload_id_marker);
        }
        Ok(found)
    }

    pub async fn abort(&self, key: &str, upload_id: &str) -> Result<()> {
        let request = self.client.abort_multipart_upload().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.upload_id(upload_id).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    pub fn upload(&self, key: &str, expected_bytes: u64) -> Result<Upload> {
        let part_bytes = part_bytes(expected_bytes, &self.configured)?;
        Ok(Upload {
            s3: self.clone(),
            key: key.to_owned(),
            part_bytes: part_bytes as usize,
            filling: BytesMut::new(),
            upload_id: None,
            in_flight: JoinSet::new(),
            parts: Vec::new(),
            started_parts: 0,
            total_bytes: 0,
        })
    }

    /// An object that is there completely; None when it is not.
    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        let request = self.client.head_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.send().await {
            Ok(head) => {
                let bytes = head.content_length().unwrap_or(0).max(0) as u64;
                Ok(Some(Object { key: key.to_owned(), bytes, modified_at: head.last_modified().and_then(time) }))
            }
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    pub fn identity(&self) -> String {
        format!("{} {}", self.configured.endpoint.as_deref().unwrap_or_default(), self.location(""))
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.configured.server_side_encryption.map(|encryption| match encryption {
            Encryption::S3 => ServerSideEncryption::Aes256,
            Encryption::Kms => ServerSideEncryption::AwsKms,
        })
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.configured.storage_class.as_deref().map(StorageClass::from)
    }

    /// With checksums on each part, their algorithm must be said when the upload starts.
    fn checksum_algorithm(&self) -> Option<ChecksumAlgorithm> {
        let on_every_request =
            self.client.config().request_checksum_calculation() != Some(&RequestChecksumCalculation::WhenRequired);
        on_every_request.then_some(ChecksumAlgorithm::Crc32)
    }

    /// An SDK error with its kind, and what to do.
    fn explain<E, R>(&self, error: SdkError<E, R>) -> anyhow::Error
    where
        SdkError<E, R>: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        E: std::error::Error + 'static,
        R: std::fmt::Debug,
    {
        let bucket = &self.configured.bucket;
        let at = self.configured.endpoint.as_deref().unwrap_or("AWS");
        let detail = DisplayErrorContext(&error).to_string();
        // The context ends with a debug print of the whole response, headers and all.
        let detail = detail.split(" (").next().unwrap_or_default();
        let (kind, message) = match (&error, error.code()) {
            (_, Some("NoSuchBucket")) => (Kind::Configuration, format!("there is no bucket `{bucket}` at {at}")),
            (
                _,
                Some(code @ ("AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "NotSignedUp")),
            ) => (
                Kind::Permission,
                format!(
                    "bucket `{bucket}` at {at} refuses the credentials ({code}: {})",
                    error.message().unwrap_or("no reason given")
                ),
            ),
            (SdkError::TimeoutError(_), _) => (Kind::Unreachable, format!("{at} did not answer in time")),
            (SdkError::DispatchFailure(_), _) if detail.contains("redential") => (
                Kind::Permission,
                format!(
                    "no credentials for bucket `{bucket}`: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role"
                ),
            ),
            (SdkError::DispatchFailure(_) | SdkError::ResponseError(_), _) => {
                (Kind::Unreachable, format!("cannot talk to {at}: {detail}"))
            }
            (_, code) => {
                let said = [code, error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
                let said = if said.is_empty() { detail.to_owned() } else { said };
                (Kind::Unreachable, format!("{at} answered for bucket `{bucket}`: {said}"))
            }
        };
        Fault::new(kind, message).into()
    }
}

fn time(time: &aws_sdk_s3::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::<Utc>::from_timestamp(time.secs(), time.subsec_nanos())
}

fn status<E>(error: &SdkError<E, aws_sdk_s3::config::http::HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// The size of all parts but the last: large enough for the object to fit into the provider's number of parts,
/// with one part being filled while the others are under way, inside the configured memory.
fn part_bytes(expected_bytes: u64, configured: &config::S3) -> Result<u64> {
    // The expectation is a guess from the database's size: leave room for half as much again.
    let needed = (expected_bytes + expected_bytes / 2).div_ceil(u64::from(configured.max_parts));
    // Whole MiB: some clones want part sizes that divide evenly.
    let part = needed.clamp(PART_BYTES_USUAL, PART_BYTES_MOST).next_multiple_of(1 << 20);
    let affordable = configured.upload_memory_bytes / (configured.parts_in_flight as u64 + 1);
    if part <= affordable {
        return Ok(part);
    }
    let least = needed.max(PART_BYTES_LEAST).next_multiple_of(1 << 20);
    anyhow::ensure!(
        least <= affordable,
        Fault::new(
            Kind::Configuration,
            format!(
                "an object of about {} in at most {} parts needs {} × {} of memory, and upload_memory allows {}: raise upload_memory, or lower parts_in_flight",
                crate::units::bytes(expected_bytes),
                configured.max_parts,
                configured.parts_in_flight + 1,
                crate::units::bytes(least),
                crate::units::bytes(configured.upload_memory_bytes)
            )
        )
    );
    Ok(affordable / (1 << 20) * (1 << 20))
}

pub struct Reader {
    s3: S3,
    key: String,
    body: ByteStream,
    etag: Option<String>,
    length: u64,
    position: u64,
}

impl Reader {
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// Asks for the object from `position` on. False when it does not exist.
    async fn open(&mut self) -> Result<bool> {
        let request = self.s3.client.get_object().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        let range = (self.position > 0).then(|| format!("bytes={}-", self.position));
        // The same object as before the break, or an error.
        match request.set_range(range).set_if_match(self.etag.clone()).send().await {
            Ok(object) => {
                if self.position == 0 {
                    self.length = object.content_length().unwrap_or(0).max(0) as u64;
                    self.etag = object.e_tag().map(str::to_owned);
                }
                self.body = object.body;
                Ok(true)
            }
            Err(error)
                if error.code() == Some("NoSuchKey") || (status(&error) == Some(404) && error.code() != Some("NoSuchBucket")) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.s3.explain(error)),
        }
    }

    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        for attempt in 1..=ATTEMPTS {
            let broke = match self.body.next().await {
                Some(Ok(chunk)) => {
                    self.position += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                None if self.position >= self.length => return Ok(None),
                None => "the answer ended early".to_owned(),
                Some(Err(error)) => error.to_string(),
            };
            tracing::debug!("reading {} broke at byte {}: {broke}", self.s3.location(&self.key), self.position);
            tokio::time::sleep(Duration::from_millis(200) * 4_u32.pow(attempt - 1)).await;
            anyhow::ensure!(self.open().await?, "{} vanished while it was read", self.s3.location(&self.key));
        }
        Err(Fault::new(
            Kind::Unreachable,
            format!("{} broke off {ATTEMPTS} times at byte {} of {}", self.s3.location(&self.key), self.position, self.length),
        )
        .into())
    }
}

/// One object going up: a single PutObject when it fits into one part, else a multipart upload.
pub struct Upload {
    s3: S3,
    key: String,
    part_bytes: usize,
    filling: BytesMut,
    /// Set from the first full part until the end.
    upload_id: Option<String>,
    in_flight: JoinSet<Result<CompletedPart>>,
    parts: Vec<CompletedPart>,
    started_parts: u32,
    total_bytes: u64,
}

impl Upload {
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.total_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.filling.len() == self.part_bytes {
                self.send_part().await?;
            }
            // Allocated once, at full size: growing by doubling would hold three parts' worth at times.
            self.filling.reserve(self.part_bytes - self.filling.len());
            let count = bytes.len().min(self.part_bytes - self.filling.len());
            self.filling.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
        }
        Ok(())
    }

    pub async fn finish(&mut self) -> Result<()> {
        let Some(upload_id) = self.upload_id.clone() else {
            return self.put_whole().await;
        };
        if !self.filling.is_empty() {
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
        // A part that arrives after the abort would stay (S3 User Guide): first stop sending.
        self.in_flight.shutdown().await;
        match self.upload_id.take() {
            Some(id) => self.s3.abort(&self.key, &id).await,
            None => Ok(()),
        }
    }

    async fn put_whole(&mut self) -> Result<()> {
        let body = std::mem::take(&mut self.filling).freeze();
        let timeout = self.part_timeout(body.len());
        let request = self.s3.client.put_object().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        request
            .content_length(body.len() as i64)
            .body(ByteStream::from(body))
            .set_server_side_encryption(self.s3.encryption())
            .set_ssekms_key_id(self.s3.configured.kms_key_id.clone())
            .set_storage_class(self.s3.storage_class())
            .customize()
            .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeout))
            .send()
            .await
            .map_err(|error| self.s3.explain(error))
            .with_context(|| format!("cannot upload {}", self.s3.location(&self.key)))?;
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
            crate::units::bytes(self.part_bytes as u64)
        );
        let number = self.started_parts as i32;
        let body = std::mem::take(&mut self.filling).freeze();
        let timeout = self.part_timeout(body.len());
        let request = self
            .s3
            .client
            .upload_part()
            .bucket(&self.s3.configured.bucket)
            .key(self.s3.full_key(&self.key))
            .upload_id(upload_id)
            .part_number(number);
        let sending = request
            .content_length(body.len() as i64)
            .set_checksum_algorithm(self.s3.checksum_algorithm())
            .body(ByteStream::from(body))
            .customize()
            .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeout));
        let (s3, location) = (self.s3.clone(), self.s3.location(&self.key));
        self.in_flight.spawn(async move {
            let sent = sending
                .send()
                .await
                .map_err(|error| s3.explain(error))
                .with_context(|| format!("cannot upload part {number} of {location}"))?;
            let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).set_checksum_crc32(sent.checksum_crc32);
            Ok(part.build())
        });
        Ok(())
    }

    async fn await_part(&mut self) -> Result<()> {
        if let Some(ended) = self.in_flight.join_next().await {
            self.parts.push(ended.context("uploading a part did not end")??);
        }
        Ok(())
    }

    async fn start(&mut self) -> Result<String> {
        let request =
            self.s3.client.create_multipart_upload().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        let started = request
            .set_checksum_algorithm(self.s3.checksum_algorithm())
            .set_server_side_encryption(self.s3.encryption())
            .set_ssekms_key_id(self.s3.configured.kms_key_id.clone())
            .set_storage_class(self.s3.storage_class())
            .send()
            .await
            .map_err(|error| self.s3.explain(error))
            .with_context(|| format!("cannot start the upload of {}", self.s3.location(&self.key)))?;
        let id = started.upload_id.context("the server gave the upload no id")?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    /// S3 may answer 200 and say in the body that it failed (API reference, CompleteMultipartUpload): the SDK reads that
    /// as an error and tries again. An answer may also be lost after the object came to be, and the next attempt then
    /// finds no such upload. So the object itself has the last word.
    async fn complete(&self, upload_id: &str) -> Result<()> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let request =
            self.s3.client.complete_multipart_upload().bucket(&self.s3.configured.bucket).key(self.s3.full_key(&self.key));
        // Putting terabytes together takes S3 minutes.
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
        // The key is this run's alone, so an object of this length is this upload.
        match (self.s3.stat(&self.key).await, answer) {
            (Ok(Some(there)), _) if there.bytes == self.total_bytes => Ok(()),
            (_, Err(error)) => Err(error.context(format!("cannot complete the upload of {location}"))),
            (Err(error), Ok(_)) => Err(error.context(format!("cannot see whether {location} is complete"))),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(max_parts: u32, upload_memory_bytes: u64) -> config::S3 {
        config::S3 {
            bucket: "b".into(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            path_style: false,
            server_side_encryption: None,
            kms_key_id: None,
            storage_class: None,
            max_parts,
            parts_in_flight: 3,
            upload_memory_bytes,
            part_timeout: None,
        }
    }

    #[test]
    fn parts_grow_with_the_object_so_that_their_number_suffices() {
        const GIB: u64 = 1 << 30;
        for (expected, max_parts, part_mib) in [(0, 10_000, 8), (GIB, 10_000, 8), (200 * GIB, 10_000, 31), (20 * GIB, 1_000, 31)]
        {
            let part = part_bytes(expected, &configured(max_parts, 512 << 20)).unwrap();
            assert_eq!(part >> 20, part_mib, "{expected} in {max_parts}");
            assert!(part * u64::from(max_parts) >= expected + expected / 2);
        }
    }

    #[test]
    fn memory_is_a_limit_that_is_refused_and_not_passed() {
        let error = part_bytes(4 << 40, &configured(10_000, 512 << 20)).unwrap_err();
        assert!(error.to_string().contains("raise upload_memory"), "{error}");
        assert_eq!(part_bytes(1 << 30, &configured(10_000, 24 << 20)).unwrap(), 6 << 20, "smaller parts before a refusal");
    }
}
