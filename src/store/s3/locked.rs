//! Explains refused deletes: the object is locked until some time, or the credentials do not suffice.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::ObjectLockLegalHoldStatus;
use chrono::{DateTime, Utc};

use super::S3;
use super::request::{status, time};
use crate::base::fault::{Fault, Kind};
use crate::store::object::Locked;

impl S3 {
    /// Returns an error that is a [`Locked`] when the object is locked.
    pub(super) async fn explain_delete<E>(&self, key: &str, error: SdkError<E, HttpResponse>) -> anyhow::Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if !may_be_a_lock(status(&error), error.code().unwrap_or_default(), error.message().unwrap_or_default()) {
            return self.explain(error);
        }
        let bucket = &self.configured.bucket;
        let said = format!("{} {}", error.code().unwrap_or_default(), error.message().unwrap_or_default());
        let says_locked = ["worm", "locked", "retention", "object lock", "legal hold"];
        let says_locked = says_locked.iter().any(|word| said.to_ascii_lowercase().contains(word));
        if let Some(until) = self.retained_until(key).await.filter(|until| *until > Utc::now()) {
            let message = format!("{} is locked until {} (Object Lock)", self.location(key), until.format("%Y-%m-%d %H:%M UTC"));
            return anyhow::Error::new(Locked { until: Some(until) }).context(Fault::new(Kind::Permission, message));
        }
        if says_locked || self.has_legal_hold(key).await {
            let message = format!("{} is locked (Object Lock), until an unknown time: {said}", self.location(key));
            return anyhow::Error::new(Locked { until: None }).context(Fault::new(Kind::Permission, message));
        }
        let message = format!(
            "the credentials for bucket `{bucket}` at {} may not delete {}: allow s3:DeleteObject on arn:aws:s3:::{bucket}/{}, or \
             let another host prune (docs/operations.md, \"What the bucket's policy must allow\")",
            self.at,
            self.location(key),
            self.full_key("*"),
        );
        self.explain(error).context(Fault::new(Kind::Permission, message))
    }

    async fn retained_until(&self, key: &str) -> Option<DateTime<Utc>> {
        let request = self.client.get_object_retention().bucket(&self.configured.bucket).key(self.full_key(key));
        request.send().await.ok()?.retention()?.retain_until_date().and_then(time)
    }

    async fn has_legal_hold(&self, key: &str) -> bool {
        let request = self.client.get_object_legal_hold().bucket(&self.configured.bucket).key(self.full_key(key));
        let answer = request.send().await.ok();
        answer.is_some_and(|answer| answer.legal_hold.and_then(|hold| hold.status) == Some(ObjectLockLegalHoldStatus::On))
    }
}

/// AWS answers 403 AccessDenied for a locked version, MinIO 400 InvalidRequest or ObjectLocked, others 409.
fn may_be_a_lock(status: Option<u16>, code: &str, message: &str) -> bool {
    let by_the_bucket = !matches!(code, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "RequestTimeTooSkewed");
    (status == Some(403) && by_the_bucket)
        || (matches!(status, Some(400 | 409)) && (code == "ObjectLocked" || message.contains("WORM")))
}
