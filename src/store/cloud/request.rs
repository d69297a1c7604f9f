//! Requests that object_store has none for: deletes under a condition, and uploads that never ended.

use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{Method, Request};
use object_store::azure::AzureAuthorizer;
use object_store::client::{HttpErrorKind, HttpRequestBody, HttpResponse};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::Url;

use super::Cloud;
use super::PAGES;
use super::answer::Answer;
use super::attempts::ATTEMPTS;
use super::list::ensure_root;
use super::provider::Provider;
use crate::config;
use crate::store::object::{Unfinished, Version};

/// Google's answer to "List Multipart Uploads" of its XML API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default, rename = "Upload")]
    uploads: Vec<UploadOfList>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadOfList {
    key: String,
    upload_id: String,
    initiated: Option<DateTime<Utc>>,
}

impl Cloud {
    /// Deletes an object; a missing one is not an error.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.send(Method::DELETE, self.url(key)?, None).await {
            Ok(_) => Ok(()),
            Err(error) if Answer::of(&*error).is_some_and(Answer::lacks_the_object) => Ok(()),
            Err(error) => Err(self.explain_delete(key, &*error)),
        }
    }

    /// Deletes an object that still is `expected`; returns false when it is not.
    pub async fn delete_if(&self, key: &str, expected: &Version) -> Result<bool> {
        let condition = match self.provider {
            Provider::Azure { .. } => http::header::IF_MATCH,
            Provider::Google { .. } => HeaderName::from_static("x-goog-if-generation-match"),
        };
        match self.send(Method::DELETE, self.url(key)?, Some((condition, &expected.0))).await {
            Ok(_) => Ok(true),
            Err(error)
                if Answer::of(&*error).is_some_and(|answer| answer.denies_the_condition() || answer.lacks_the_object()) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.explain_delete(key, &*error)),
        }
    }

    pub(super) async fn unfinished_of_google(&self, folder: &str) -> Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let mut markers = (String::new(), String::new());
        for _ in 0..PAGES {
            let mut url = self.container_url()?;
            url.query_pairs_mut().append_pair("uploads", "").append_pair("prefix", &self.full_key(folder));
            if !markers.0.is_empty() {
                url.query_pairs_mut().append_pair("key-marker", &markers.0).append_pair("upload-id-marker", &markers.1);
            }
            let answer = self.send(Method::GET, url, None).await.map_err(|error| self.explain(&*error))?;
            let text = answer.into_body().bytes().await.map_err(|error| self.explain(&error))?;
            ensure_root(&text, "ListMultipartUploadsResult")
                .with_context(|| format!("{} answered a list of uploads unlike Google Cloud Storage", self.at))?;
            let page: Uploads = quick_xml::de::from_reader(&text[..])
                .with_context(|| format!("{} answered a list of uploads unlike Google Cloud Storage", self.at))?;
            for upload in page.uploads {
                let key = self.own_key(&upload.key).filter(|key| key.starts_with(folder));
                found.extend(key.map(|key| Unfinished { key, id: upload.upload_id, started_at: upload.initiated }));
            }
            match page.next_key_marker.filter(|marker| !marker.is_empty()) {
                _ if !page.is_truncated => return Ok(found),
                Some(marker) => markers = (marker, page.next_upload_id_marker.unwrap_or_default()),
                None => anyhow::bail!("{} returned an incomplete list of uploads without a token for the rest", self.at),
            }
        }
        anyhow::bail!("more than {PAGES} pages of unfinished uploads")
    }

    /// Aborts an upload that [`Cloud::unfinished`] found.
    pub async fn abort(&self, key: &str, upload_id: &str) -> Result<()> {
        let mut url = self.url(key)?;
        url.query_pairs_mut().append_pair("uploadId", upload_id);
        match self.send(Method::DELETE, url, None).await {
            Ok(_) => Ok(()),
            Err(error) if Answer::of(&*error).is_some_and(|answer| answer.status == 404 && answer.code == "NoSuchUpload") => {
                Ok(())
            }
            Err(error) => Err(self.explain(&*error)),
        }
    }

    /// Sends a request without a body, up to [`ATTEMPTS`] times.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        condition: Option<(HeaderName, &str)>,
    ) -> Result<HttpResponse, Box<dyn std::error::Error + Send + Sync>> {
        let mut attempt = 0;
        loop {
            let mut request = Request::builder().method(method.clone()).uri(url.as_str()).header(CONTENT_LENGTH, 0);
            if let Some((name, value)) = &condition {
                request = request.header(name, *value);
            }
            let mut request = request.body(HttpRequestBody::empty())?;
            match &self.provider {
                Provider::Azure { account, credentials } => {
                    let credential = credentials.get_credential().await?;
                    AzureAuthorizer::new(&credential, account).try_authorize(&mut request)?;
                }
                Provider::Google { credentials } => {
                    let bearer = format!("Bearer {}", credentials.get_credential().await?.bearer);
                    request.headers_mut().insert(http::header::AUTHORIZATION, bearer.try_into()?);
                }
            }
            match self.client.execute(request).await {
                Err(error) if attempt < ATTEMPTS && may_be_repeated(error.kind()) => {
                    tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(attempt)).await;
                    attempt += 1;
                }
                answered => return Ok(answered?),
            }
        }
    }

    /// The URL of an object, as object_store forms it.
    fn url(&self, key: &str) -> Result<Url> {
        let (mut url, key) = (self.container_url()?, self.full_key(key));
        match self.provider {
            Provider::Azure { .. } => {
                url.path_segments_mut().map_err(|()| anyhow::anyhow!("{} is no server", self.at))?.extend(key.split('/'));
            }
            Provider::Google { .. } => {
                let encoded = utf8_percent_encode(&key, NON_ALPHANUMERIC);
                url = Url::parse(&format!("{url}/{encoded}"))?;
            }
        }
        Ok(url)
    }

    pub(super) fn container_url(&self) -> Result<Url> {
        let container = match &self.configured.provider {
            config::Provider::Azure { container, .. } => container.clone(),
            config::Provider::Google { bucket } => utf8_percent_encode(bucket, NON_ALPHANUMERIC).to_string(),
        };
        Ok(Url::parse(&format!("{}/{container}", self.at))?)
    }
}

/// A delete and a list do the same when they are done again.
fn may_be_repeated(kind: HttpErrorKind) -> bool {
    !matches!(kind, HttpErrorKind::Unknown | HttpErrorKind::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_uploads_is_read() {
        let text = "<?xml version='1.0' encoding='UTF-8'?><ListMultipartUploadsResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>\
            <Bucket>b</Bucket><KeyMarker></KeyMarker><NextKeyMarker>k2</NextKeyMarker><NextUploadIdMarker>i2</NextUploadIdMarker>\
            <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>\
            <Upload><Key>k1</Key><UploadId>i1</UploadId><StorageClass>STANDARD</StorageClass><Initiated>2026-11-23T18:11:03.490Z</Initiated></Upload>\
            <Upload><Key>k2</Key><UploadId>i2</UploadId><Initiated>2026-11-23T18:11:03.490Z</Initiated></Upload>\
            </ListMultipartUploadsResult>";
        let page: Uploads = quick_xml::de::from_str(text).unwrap();
        let keys: Vec<&str> = page.uploads.iter().map(|upload| upload.key.as_str()).collect();
        assert_eq!((keys, page.is_truncated, page.next_key_marker.as_deref()), (vec!["k1", "k2"], true, Some("k2")));
        assert!(page.uploads[0].initiated.is_some());
        let empty: Uploads =
            quick_xml::de::from_str("<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>").unwrap();
        assert!(empty.uploads.is_empty() && !empty.is_truncated);
    }
}
