//! Conditional writes: If-None-Match and If-Match of PutObject.

use anyhow::{Context as _, Result};
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::error::ProvideErrorMetadata as _;

use super::S3;
use super::request::{REQUEST_TIMEOUT, status};
use crate::store::conditional::Conditional;
use crate::store::object::{Precondition, Version};

impl S3 {
    pub async fn put_if(&self, key: &str, content: Vec<u8>, precondition: Precondition<'_>) -> Result<Conditional> {
        let timeout = TimeoutConfig::builder().operation_attempt_timeout(REQUEST_TIMEOUT).build();
        let error = match self.put_object(key, content.into(), (Some(precondition), None), timeout).await {
            Ok(written) => {
                return Ok(match written.e_tag {
                    Some(etag) => Conditional::Written(Version(etag)),
                    None => Conditional::Unsupported("its answers to PUT have no ETag".to_owned()),
                });
            }
            Err(error) => error,
        };
        Ok(match (status(&error), error.code()) {
            // 409: another write to this key was in progress, and that one counts (User Guide, "conditional writes").
            (Some(412), _) | (_, Some("PreconditionFailed" | "ConditionalRequestConflict")) => Conditional::NotSo,
            // The object that should be unchanged is gone.
            (Some(404), Some("NoSuchKey")) => Conditional::NotSo,
            (Some(501), _) | (_, Some("NotImplemented")) => {
                Conditional::Unsupported("it refuses If-None-Match and If-Match (501)".to_owned())
            }
            _ => return Err(self.explain(error)).with_context(|| format!("cannot upload {}", self.location(key))),
        })
    }

    /// Deletes an object that still is `expected`, on servers that honour If-Match of DELETE; others delete any version.
    pub async fn delete_if(&self, key: &str, expected: &Version) -> Result<bool> {
        let request = self.client.delete_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.if_match(&expected.0).send().await {
            Ok(_) => Ok(true),
            Err(error) if matches!(status(&error), Some(404 | 412)) && error.code() != Some("NoSuchBucket") => Ok(false),
            Err(error) => Err(self.explain_delete(key, error).await),
        }
    }
}
