//! Object Lock: what nobody deletes before a date.

use anyhow::Result;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use chrono::{TimeDelta, Utc};

use super::S3;
use super::request::{date, has_no_such_operation, time};
use crate::config::LockMode;

/// No store has it: the answer that it is not there says what time it is.
const ABSENT: &str = ".pgtend-clock";

/// Until when an object stays that is written now.
#[derive(Clone, Debug)]
pub struct Retention {
    pub mode: ObjectLockMode,
    pub until: DateTime,
}

impl S3 {
    /// None where the store has no `lock`. The time is the server's: it ends the lock by its own clock.
    pub(super) async fn retention(&self) -> Result<Option<Retention>> {
        let (Some(lock), Some(span)) = (self.configured.lock, self.lock_span()) else { return Ok(None) };
        let until = self.now().await? + span;
        let mode = match lock.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        };
        Ok(Some(Retention { mode, until: DateTime::from_secs(until.timestamp()) }))
    }

    /// For how long it locks what is written to it; None: it locks nothing.
    pub fn lock_span(&self) -> Option<TimeDelta> {
        self.configured.lock.map(|lock| TimeDelta::from_std(lock.span.0).unwrap_or_default())
    }

    /// The time by the server's clock, or by this host's where its answers have no Date.
    pub async fn now(&self) -> Result<chrono::DateTime<Utc>> {
        let request = self.client.head_object().bucket(&self.configured.bucket).key(self.full_key(ABSENT));
        match request.send().await {
            Ok(_) => Ok(Utc::now()),
            Err(error) if error.raw_response().is_some() => Ok(date(&error).unwrap_or_else(Utc::now)),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Locks an object until that time, unless it is locked for as long. Returns whether its lock was changed.
    pub async fn lock_until(&self, key: &str, until: chrono::DateTime<Utc>) -> Result<bool> {
        let (mode, locked_until) = self.lock_of(key).await?;
        if locked_until.is_some_and(|locked_until| locked_until >= until) {
            return Ok(false);
        }
        // What nobody may shorten stays so.
        let mode = match (mode, self.configured.lock.map(|lock| lock.mode)) {
            (Some(ObjectLockMode::Compliance), _) | (_, Some(LockMode::Compliance)) => ObjectLockRetentionMode::Compliance,
            _ => ObjectLockRetentionMode::Governance,
        };
        let retention =
            ObjectLockRetention::builder().mode(mode).retain_until_date(DateTime::from_secs(until.timestamp())).build();
        let request = self.client.put_object_retention().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.retention(retention).send().await {
            Ok(_) => Ok(true),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The time until which an object is locked; None where it is not.
    pub async fn locked_until(&self, key: &str) -> Result<Option<chrono::DateTime<Utc>>> {
        Ok(self.lock_of(key).await?.1)
    }

    async fn lock_of(&self, key: &str) -> Result<(Option<ObjectLockMode>, Option<chrono::DateTime<Utc>>)> {
        let request = self.client.head_object().bucket(&self.configured.bucket).key(self.full_key(key));
        match request.send().await {
            Ok(head) => Ok((head.object_lock_mode, head.object_lock_retain_until_date.as_ref().and_then(time))),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Says why a store with `lock` cannot have locked objects, if so.
    pub async fn lacks_lock(&self) -> Option<String> {
        let lock = self.configured.lock?;
        let request = self.client.get_object_lock_configuration().bucket(&self.configured.bucket);
        let is_enabled = match request.send().await {
            Ok(answer) => {
                answer.object_lock_configuration.and_then(|lock| lock.object_lock_enabled) == Some(ObjectLockEnabled::Enabled)
            }
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => false,
            Err(error) if has_no_such_operation(&error) => {
                return Some(format!("lock = \"{}\", and {} does not say whether it has Object Lock", lock.span, self.at));
            }
            Err(error) => {
                let error = self.explain(error);
                return Some(format!(
                    "cannot ask whether the bucket has Object Lock, which lock = \"{}\" needs: {error:#}",
                    lock.span
                ));
            }
        };
        (!is_enabled).then(|| {
            format!(
                "lock = \"{}\", and the bucket has no Object Lock, so every backup will fail: make a bucket with it, or switch it on for this one",
                lock.span
            )
        })
    }
}
