//! Objects in storage classes that are read only after a thaw, which takes hours: GLACIER, DEEP_ARCHIVE, and the archive tiers of
//! INTELLIGENT_TIERING. Lifecycle rules of the bucket move objects there.

use anyhow::{Context as _, Result};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{
    ArchiveStatus, GlacierJobParameters, Object, ObjectStorageClass, OptionalObjectAttributes, RestoreRequest, StorageClass, Tier,
};
use chrono::{DateTime, Utc};

use super::request::time;
use super::{PAGES, S3};
use crate::store::archived::{Archived, Class, Thaw};

impl S3 {
    /// Lists those below a folder. A listing does not tell what an archive tier holds.
    pub async fn archived(&self, folder: &str) -> Result<Vec<Archived>> {
        Ok(self.list_with_classes(folder).await?.iter().filter_map(|object| self.as_archived(object)).collect())
    }

    /// Does the same with a question for each that may be archived.
    pub async fn archived_exactly(&self, folder: &str) -> Result<Vec<Archived>> {
        let mut archived = Vec::new();
        for object in self.list_with_classes(folder).await? {
            let may_be =
                object.storage_class() == Some(&ObjectStorageClass::IntelligentTiering) || self.as_archived(&object).is_some();
            if let (true, Some(key)) = (may_be, object.key().and_then(|key| self.own_key(key))) {
                archived.extend(self.archived_object(&key).await?);
            }
        }
        Ok(archived)
    }

    async fn list_with_classes(&self, folder: &str) -> Result<Vec<Object>> {
        let (mut objects, mut token) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = self.client.list_objects_v2().bucket(&self.configured.bucket).prefix(self.full_key(folder));
            let request = request.optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
            let page = request.set_continuation_token(token).send().await.map_err(|error| self.explain(error))?;
            objects.extend(page.contents.unwrap_or_default());
            token = page.next_continuation_token;
            if token.is_none() {
                break;
            }
        }
        Ok(objects)
    }

    fn as_archived(&self, object: &Object) -> Option<Archived> {
        let class = Class::of(object.storage_class()?.as_str())?;
        let thaw = match object.restore_status() {
            Some(status) if status.is_restore_in_progress() == Some(true) => Thaw::UnderWay,
            Some(status) => status.restore_expiry_date().map_or(Thaw::None, |until| Thaw::Done { until: time(until) }),
            None => Thaw::None,
        };
        Some(Archived { key: self.own_key(object.key()?)?, class, thaw })
    }

    /// Asks about one object; None where it is read at once.
    async fn archived_object(&self, key: &str) -> Result<Option<Archived>> {
        let request = self.client.head_object().bucket(&self.configured.bucket).key(self.full_key(key));
        let head = request.send().await.map_err(|error| self.explain(error))?;
        let class = match (head.storage_class(), head.archive_status()) {
            (Some(StorageClass::IntelligentTiering), Some(ArchiveStatus::DeepArchiveAccess)) => Some(Class::DeepArchiveTier),
            (Some(StorageClass::IntelligentTiering), Some(_)) => Some(Class::ArchiveTier),
            (Some(class), _) => Class::of(class.as_str()),
            (None, _) => None,
        };
        let thaw = head.restore().map_or(Thaw::None, thaw_of);
        Ok(class.map(|class| Archived { key: key.to_owned(), class, thaw }))
    }

    /// Starts the thaw of an object, so that it can be read for so many days; nothing where it is under way.
    pub async fn thaw(&self, archived: &Archived, days: u32) -> Result<()> {
        let tier = GlacierJobParameters::builder().tier(Tier::Standard).build().context("a request to thaw")?;
        let asked = RestoreRequest::builder().glacier_job_parameters(tier);
        // From its tiers an object goes back to be read at once, and stays there.
        let asked = match archived.class {
            Class::Glacier | Class::DeepArchive => asked.days(i32::try_from(days).unwrap_or(i32::MAX)),
            Class::ArchiveTier | Class::DeepArchiveTier => asked,
        };
        let request = self.client.restore_object().bucket(&self.configured.bucket).key(self.full_key(&archived.key));
        match request.restore_request(asked.build()).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("RestoreAlreadyInProgress") => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }
}

/// Reads x-amz-restore: `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
fn thaw_of(header: &str) -> Thaw {
    if header.contains("ongoing-request=\"true\"") {
        return Thaw::UnderWay;
    }
    let until = header.split("expiry-date=\"").nth(1).and_then(|rest| rest.split('"').next());
    let until = until.and_then(|until| DateTime::parse_from_rfc2822(until).ok());
    Thaw::Done { until: until.map(|until| until.with_timezone(&Utc)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_how_far_a_thaw_is() {
        let until = Some("2026-12-21T00:00:00Z".parse().unwrap());
        for (header, expected) in [
            ("ongoing-request=\"true\"", Thaw::UnderWay),
            ("ongoing-request=\"false\", expiry-date=\"Mon, 21 Dec 2026 00:00:00 GMT\"", Thaw::Done { until }),
            ("ongoing-request=\"false\"", Thaw::Done { until: None }),
        ] {
            assert_eq!(thaw_of(header), expected);
        }
    }
}
