//! Lists of objects, page by page. object_store refuses a whole list for one name that is no path to it (`exports//report.csv`), and whoever may write one
//! object could hide all sets so: names are taken as the server gives them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDateTime, Utc};
use http::Method;
use quick_xml::events::Event;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::Cloud;
use super::PAGES;
use super::provider::Provider;
use crate::store::object::Object;

/// Some objects, and the token of the next page.
#[derive(Debug, PartialEq)]
struct Page {
    objects: Vec<Object>,
    next: Option<String>,
}

impl Cloud {
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let prefix = self.full_key(folder);
        let (mut objects, mut token, mut seen) = (Vec::new(), None, BTreeSet::new());
        for _ in 0..PAGES {
            let url = self.url_of_a_page(&prefix, token.as_deref())?;
            let answer = self.send(Method::GET, url, None).await.map_err(|error| self.explain(&*error))?;
            let text = answer.into_body().bytes().await.map_err(|error| self.explain(&error))?;
            let page = match self.provider {
                Provider::Azure { .. } => page_of_azure(&text),
                Provider::Google { .. } => page_of_google(&text),
            };
            let page =
                page.with_context(|| format!("{} answered a list of objects in a way that pgtend does not know", self.at))?;
            let own = page.objects.into_iter().filter_map(|object| Some(Object { key: self.own_key(&object.key)?, ..object }));
            objects.extend(own.filter(|object| object.key.starts_with(folder)));
            match page.next {
                None => return Ok(objects),
                // Whatever their period: no page comes twice.
                Some(next) if !seen.insert(next.clone()) => anyhow::bail!("{} returned the same page of its list again", self.at),
                next => token = next,
            }
        }
        anyhow::bail!("more than {PAGES} pages of objects")
    }

    /// Microsoft, "List Blobs"; Google, "List objects" of the XML API.
    fn url_of_a_page(&self, prefix: &str, token: Option<&str>) -> Result<Url> {
        let mut url = self.container_url()?;
        let (kind, name_of_token) = match self.provider {
            Provider::Azure { .. } => ([("restype", "container"), ("comp", "list")].as_slice(), "marker"),
            Provider::Google { .. } => ([("list-type", "2")].as_slice(), "continuation-token"),
        };
        let prefix = (!prefix.is_empty()).then_some(("prefix", prefix));
        let token = token.map(|token| (name_of_token, token));
        url.query_pairs_mut().extend_pairs(kind.iter().copied().chain(prefix).chain(token));
        Ok(url)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blobs {
    blobs: BlobsOfPage,
    next_marker: Option<String>,
}

#[derive(Deserialize)]
struct BlobsOfPage {
    #[serde(default, rename = "Blob")]
    blobs: Vec<Blob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Blob {
    name: String,
    properties: BlobProperties,
}

#[derive(Deserialize)]
struct BlobProperties {
    #[serde(rename = "Last-Modified", deserialize_with = "rfc1123")]
    last_modified: DateTime<Utc>,
    #[serde(rename = "Content-Length")]
    content_length: u64,
    /// `directory` in accounts with a hierarchical namespace.
    #[serde(rename = "ResourceType")]
    resource_type: Option<String>,
}

fn page_of_azure(text: &[u8]) -> Result<Page> {
    ensure_root(text, "EnumerationResults")?;
    let page: Blobs = quick_xml::de::from_reader(text)?;
    let blobs = page.blobs.blobs.into_iter().filter(|blob| blob.properties.resource_type.as_deref() != Some("directory"));
    let objects = blobs.map(|Blob { name, properties }| Object {
        key: name,
        bytes: properties.content_length,
        modified_at: Some(properties.last_modified),
    });
    Ok(Page { objects: objects.collect(), next: page.next_marker.filter(|marker| !marker.is_empty()) })
}

/// Fails unless that is the name of the document: a proxy's page, or an error, has no objects either, and is no empty list.
pub(super) fn ensure_root(text: &[u8], expected: &str) -> Result<()> {
    let (mut reader, mut buffer) = (quick_xml::Reader::from_reader(text), Vec::new());
    loop {
        match reader.read_event_into(&mut buffer)? {
            Event::Start(root) | Event::Empty(root) => {
                let root = root.local_name();
                let found = String::from_utf8_lossy(root.as_ref());
                anyhow::ensure!(found == expected, "it is a document `{found}`, and not `{expected}`");
                return Ok(());
            }
            Event::Eof => anyhow::bail!("it is empty"),
            _ => buffer.clear(),
        }
    }
}

fn rfc1123<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = NaiveDateTime::parse_from_str(&text, "%a, %d %b %Y %T GMT").map_err(serde::de::Error::custom)?;
    Ok(time.and_utc())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    #[serde(default)]
    contents: Vec<Content>,
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    key: String,
    size: u64,
    last_modified: DateTime<Utc>,
}

fn page_of_google(text: &[u8]) -> Result<Page> {
    ensure_root(text, "ListBucketResult")?;
    let page: Contents = quick_xml::de::from_reader(text)?;
    let next = page.next_continuation_token.filter(|token| !token.is_empty());
    anyhow::ensure!(next.is_some() || !page.is_truncated, "it is incomplete, without a token for the rest");
    let objects = page.contents.into_iter().map(|Content { key, size, last_modified }| Object {
        key,
        bytes: size,
        modified_at: Some(last_modified),
    });
    Ok(Page { objects: objects.collect(), next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_paths_hide_no_other_object() {
        let blob = |name: &str, more: &str| {
            format!(
                "<Blob><Name>{name}</Name><Properties><Creation-Time>x</Creation-Time><Last-Modified>Mon, 23 Nov 2026 18:11:03 GMT</Last-Modified>\
                 <Etag>e</Etag><Content-Length>5</Content-Length><Content-Type>a/b</Content-Type>{more}</Properties></Blob>"
            )
        };
        let blobs = ["exports//report.csv", "../x", "a/./b", "/"].map(|name| blob(name, "")).join("");
        let text = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"s\" ContainerName=\"c\"><Prefix/><Blobs>{blobs}{}</Blobs><NextMarker/></EnumerationResults>",
            blob("folder", "<ResourceType>directory</ResourceType>")
        );
        let page = page_of_azure(text.as_bytes()).unwrap();
        let keys: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!((keys, page.next), (vec!["exports//report.csv", "../x", "a/./b", "/"], None));
        assert_eq!((page.objects[0].bytes, page.objects[0].modified_at), (5, Some("2026-11-23T18:11:03Z".parse().unwrap())));

        let contents = ["exports//report.csv", "a b"].map(|name| {
            format!("<Contents><Key>{name}</Key><Generation>1</Generation><LastModified>2026-11-23T18:11:03.490Z</LastModified><ETag>e</ETag><Size>5</Size></Contents>")
        });
        let text = format!(
            "<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'><Name>b</Name><Prefix></Prefix><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>t</NextContinuationToken>{}</ListBucketResult>",
            contents.join("")
        );
        let page = page_of_google(text.as_bytes()).unwrap();
        let keys: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!((keys, page.next.as_deref()), (vec!["exports//report.csv", "a b"], Some("t")));
        // With the status 200.
        for other in [
            "<html><head/><body>Sign in</body></html>",
            "<?xml version='1.0'?><Error><Code>ServerBusy</Code></Error>",
            "<EnumerationResults><Blobs/></EnumerationResults>",
            "",
        ] {
            assert!(page_of_google(other.as_bytes()).is_err(), "{other}");
        }
        let cut = text.replace("<NextContinuationToken>t</NextContinuationToken>", "");
        assert!(page_of_google(cut.as_bytes()).is_err(), "a list that is cut is no list");
        let empty = "<ListBucketResult><Name>b</Name></ListBucketResult>";
        assert_eq!(page_of_google(empty.as_bytes()).unwrap(), Page { objects: Vec::new(), next: None });
        let empty = "<EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
        assert_eq!(page_of_azure(empty.as_bytes()).unwrap(), Page { objects: Vec::new(), next: None });
    }
}
