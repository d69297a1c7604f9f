//! Locks of single objects, which keep everybody from deleting them before a date: Object Lock of S3. Other stores have none.

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};

use super::Store;

impl Store {
    /// For how long it locks what is written to stay; None: it locks nothing.
    pub fn lock_span(&self) -> Option<TimeDelta> {
        match self {
            Self::S3(s3) => s3.lock_span(),
            _ => None,
        }
    }

    /// The time by the clock that ends its locks.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        match self {
            Self::S3(s3) => s3.now().await,
            _ => Ok(Utc::now()),
        }
    }

    /// The time until which an object is locked; None where it is not, or where that may not be read.
    pub async fn locked_until(&self, key: &str) -> Result<Option<DateTime<Utc>>> {
        match self {
            Self::S3(s3) => s3.locked_until(key).await.with_context(|| format!("cannot read the lock of {}", self.location(key))),
            _ => Ok(None),
        }
    }

    /// Locks an object until that time; a longer lock stays. Returns whether it was changed.
    pub async fn lock_until(&self, key: &str, until: DateTime<Utc>) -> Result<bool> {
        match self {
            Self::S3(s3) => s3.lock_until(key, until).await.with_context(|| format!("cannot lock {}", self.location(key))),
            _ => Ok(false),
        }
    }
}
