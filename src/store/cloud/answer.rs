//! The answer of a server that refused a request.

use std::error::Error;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt as _;
use object_store::client::HttpResponse;
use tokio::time::timeout;

use super::attempts::REQUEST_TIMEOUT;

/// What is read of a refusal: they have some hundred bytes.
const MAX_BYTES: usize = 64 << 10;

/// An answer other than 2xx. It is at the end of the chain of an error of object_store.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Azure's or Google's code, such as `BlobNotFound`; empty when the answer has none.
    pub code: String,
    pub message: String,
    /// The host's clock minus the server's.
    pub clock_is_ahead: Option<TimeDelta>,
}

impl Answer {
    pub async fn read(answer: HttpResponse) -> Self {
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, code, date) = (answer.status().as_u16(), header("x-ms-error-code"), header("date"));
        let mut body = answer.into_body().bytes_stream();
        let mut text = Vec::new();
        while text.len() < MAX_BYTES
            && let Ok(Some(Ok(bytes))) = timeout(REQUEST_TIMEOUT, body.next()).await
        {
            text.extend_from_slice(&bytes);
        }
        let text = String::from_utf8_lossy(&text);
        let clock_is_ahead =
            date.and_then(|date| DateTime::parse_from_rfc2822(&date).ok()).map(|date| Utc::now() - date.with_timezone(&Utc));
        Self { status, code: code.or_else(|| tag(&text, "Code")).unwrap_or_default(), message: message(&text), clock_is_ahead }
    }

    /// Returns the failure that the body of a success tells.
    pub fn inside(body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let (_, error) = text.split_once("<Error>")?;
        Some(Self { status: 200, code: tag(error, "Code").unwrap_or_default(), message: message(error), clock_is_ahead: None })
    }

    /// Finds the answer that an error came of.
    pub fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        for _ in 0..32 {
            let error = next?;
            if let Some(answer) = error.downcast_ref::<Self>() {
                return Some(answer);
            }
            next = error.source();
        }
        None
    }

    /// Whether the server is there and says that the object is not.
    pub fn lacks_the_object(&self) -> bool {
        self.status == 404 && matches!(self.code.as_str(), "BlobNotFound" | "NoSuchKey")
    }

    pub fn lacks_the_container(&self) -> bool {
        self.status == 404 && matches!(self.code.as_str(), "ContainerNotFound" | "NoSuchBucket" | "ResourceNotFound")
    }

    /// Whether the condition of a write does not hold. Azure answers 412 for a blob with a lease of its own kind, too.
    pub fn denies_the_condition(&self) -> bool {
        (self.status == 412 && !self.code.starts_with("Lease")) || (self.status == 409 && self.code == "BlobAlreadyExists")
    }

    /// Whether another attempt may succeed.
    pub fn is_passing(&self) -> bool {
        self.status >= 500 || matches!(self.status, 408 | 429)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let words: Vec<&str> = [self.code.as_str(), &self.message].into_iter().filter(|said| !said.is_empty()).collect();
        write!(f, "{}", format!("HTTP {} {}", self.status, words.join(": ")).trim_end())
    }
}

impl Error for Answer {}

/// Returns the first line of what the server says, without the ids that Azure appends.
fn message(text: &str) -> String {
    let said =
        tag(text, "Message").unwrap_or_else(|| if text.trim_start().starts_with('<') { String::new() } else { text.to_owned() });
    said.lines().next().unwrap_or_default().trim().chars().take(300).collect()
}

/// Returns the text of an element without others in it. Refusals are too simple, and too often broken off, for a parser.
fn tag(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once("</")?;
    Some(inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_found_in_its_xml() {
        let azure = "\u{feff}<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>The specified blob does not exist.\nRequestId:1\nTime:2</Message></Error>";
        assert_eq!(tag(azure, "Code").as_deref(), Some("BlobNotFound"));
        assert_eq!(message(azure), "The specified blob does not exist.");
        assert_eq!(message("{\"error\":\"invalid_grant\"}"), "{\"error\":\"invalid_grant\"}");
        assert_eq!(message("<html>"), "");
        assert_eq!(tag("<Code>", "Code"), None);
        assert!(Answer::inside(b"<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>").is_none());
        assert_eq!(Answer::inside(azure.as_bytes()).unwrap().code, "BlobNotFound");
    }
}
