//! Checksums of uploads. Buckets with Object Lock require one on each write (Content-MD5 or x-amz-checksum-…), other servers know
//! none of them: the key `checksums` decides, or the server's own refusal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use base64::Engine as _;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::S3;
use super::lock::Retention;
use super::request::status;
use crate::config::Checksums;
use crate::store::object::Precondition;

/// The stores that refused a write without a checksum, for this process.
static ASKED_FOR: Mutex<BTreeMap<String, Checksums>> = Mutex::new(BTreeMap::new());

impl S3 {
    /// Calls PutObject; repeats it with a checksum when the server asks for one.
    pub(super) async fn put_object(
        &self,
        key: &str,
        body: Bytes,
        (precondition, retention): (Option<Precondition<'_>>, Option<&Retention>),
        timeout: TimeoutConfig,
    ) -> Result<PutObjectOutput, SdkError<PutObjectError, HttpResponse>> {
        let mut checksums = self.checksums();
        loop {
            let request = self.client.put_object().bucket(&self.configured.bucket).key(self.full_key(key));
            let request = match precondition {
                None => request,
                Some(Precondition::Absent) => request.if_none_match("*"),
                Some(Precondition::Unchanged(version)) => request.if_match(&version.0),
            };
            let answer = request
                .content_length(body.len() as i64)
                .set_checksum_algorithm(algorithm(checksums))
                .set_content_md5(content_md5(checksums, &body))
                .body(ByteStream::from(body.clone()))
                .set_server_side_encryption(self.encryption())
                .set_ssekms_key_id(self.configured.kms_key_id.clone())
                .set_storage_class(self.storage_class())
                .set_object_lock_mode(retention.map(|retention| retention.mode.clone()))
                .set_object_lock_retain_until_date(retention.map(|retention| retention.until))
                .customize()
                .config_override(aws_sdk_s3::config::Config::builder().timeout_config(timeout.clone()))
                .send()
                .await;
            match answer {
                Err(error) if self.is_asked_for(&error, &mut checksums) => {}
                answer => return answer,
            }
        }
    }

    /// Returns which checksum to send with a write.
    pub(super) fn checksums(&self) -> Checksums {
        let asked_for = ASKED_FOR.lock().unwrap_or_else(PoisonError::into_inner).get(&self.identity()).copied();
        asked_for.or(self.configured.checksums).unwrap_or_else(|| {
            let usual = self.client.config().request_checksum_calculation();
            if usual == Some(&RequestChecksumCalculation::WhenRequired) { Checksums::WhenRequired } else { Checksums::Always }
        })
    }

    /// Returns true when a write was refused for want of a checksum: `sent` then becomes the one to send.
    pub(super) fn is_asked_for<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>, sent: &mut Checksums) -> bool {
        let (Checksums::WhenRequired, Some(400)) = (*sent, status(error)) else { return false };
        let Some(wanted) = wanted_by(error.code().unwrap_or_default(), error.message().unwrap_or_default()) else { return false };
        tracing::debug!("{} wants checksums: {}", self.at, error.message().unwrap_or_default());
        ASKED_FOR.lock().unwrap_or_else(PoisonError::into_inner).insert(self.identity(), wanted);
        *sent = wanted;
        true
    }
}

/// Returns MD5 when the message names both: it need not be announced when an upload starts, so one under way can continue.
fn wanted_by(code: &str, message: &str) -> Option<Checksums> {
    let said = format!("{code} {message}").to_ascii_lowercase();
    if said.contains("content-md5") || said.contains("missingcontentmd5") {
        return Some(Checksums::Md5);
    }
    said.contains("x-amz-checksum").then_some(Checksums::Always)
}

/// Returns the algorithm to announce when an upload of parts starts.
pub fn algorithm(checksums: Checksums) -> Option<ChecksumAlgorithm> {
    (checksums == Checksums::Always).then_some(ChecksumAlgorithm::Crc32)
}

pub fn content_md5(checksums: Checksums, body: &[u8]) -> Option<String> {
    (checksums == Checksums::Md5).then(|| base64::engine::general_purpose::STANDARD.encode(Md5::digest(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_sent_after_the_refusal_that_names_one() {
        for (code, message, wanted) in [
            (
                "InvalidRequest",
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
                Some(Checksums::Md5),
            ),
            ("MissingContentMD5", "", Some(Checksums::Md5)),
            ("InvalidRequest", "An x-amz-checksum- header is required", Some(Checksums::Always)),
            ("InvalidRequest", "The storage class is unknown", None),
            ("AccessDenied", "Access Denied", None),
        ] {
            assert_eq!(wanted_by(code, message), wanted, "{code} {message}");
        }
    }
}
