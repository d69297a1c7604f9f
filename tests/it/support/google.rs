//! The XML API of Google Cloud Storage, on the S3 server of these tests: the two have their requests in common, but for tokens in place of signatures,
//! and generations. No emulator has that API with conditions, lists and uploads of parts: fake-gcs-server 1.54 has neither uploads of parts nor
//! conditions there, googleapis/storage-testbench neither lists nor uploads of parts, gcp-storage-emulator only PUT.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use s3s::service::S3Service;

const ACCOUNT: &str = "pgtend@tests.iam.gserviceaccount.com";

/// The JSON of a service account's key, as Google's console gives it. Its tokens are signed, not asked for.
pub fn service_account() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| {
        let made =
            Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = String::from_utf8(made.stdout).unwrap();
        let json =
            serde_json::json!({ "type": "service_account", "private_key_id": "1", "private_key": key, "client_email": ACCOUNT });
        json.to_string()
    })
}

#[derive(Default)]
pub struct Google {
    generations: tokio::sync::Mutex<Generations>,
}

/// Of each object that was written, the number of its last write.
#[derive(Default)]
struct Generations {
    last: u64,
    of: BTreeMap<String, u64>,
}

enum Access {
    Reads,
    Writes,
    Deletes,
    /// Lists, and parts of an upload.
    Other,
}

impl Google {
    pub async fn call(&self, service: &S3Service, mut request: Request<s3s::Body>) -> std::io::Result<Response<s3s::Body>> {
        if !has_token(&request) {
            return Ok(refused(StatusCode::UNAUTHORIZED, "AuthenticationRequired"));
        }
        request.headers_mut().remove("authorization");
        let condition = request.headers_mut().remove("x-goog-if-generation-match");
        let condition: Option<u64> = condition.map(|condition| condition.to_str().unwrap().parse().unwrap());
        renamed(request.headers_mut(), "x-goog-meta-", "x-amz-meta-");
        let object = request.uri().path().to_owned();
        let access = access(&request);
        if let Access::Other = access {
            return service.call(request).await.map_err(std::io::Error::other);
        }
        // A condition and its write are one step, as there.
        let mut generations = self.generations.lock().await;
        let present = generations.of.get(&object).copied();
        if condition.is_some_and(|condition| condition != present.unwrap_or(0)) {
            return Ok(refused(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
        }
        if let (Access::Deletes, None) = (&access, present) {
            return Ok(refused(StatusCode::NOT_FOUND, "NoSuchKey"));
        }
        let mut response = service.call(request).await.map_err(std::io::Error::other)?;
        renamed(response.headers_mut(), "x-amz-meta-", "x-goog-meta-");
        if response.status().is_success() {
            match access {
                Access::Writes => {
                    generations.last += 1;
                    let last = generations.last;
                    generations.of.insert(object.clone(), last);
                }
                Access::Deletes => _ = generations.of.remove(&object),
                Access::Reads | Access::Other => {}
            }
            if let Some(generation) = generations.of.get(&object) {
                response.headers_mut().insert("x-goog-generation", (*generation).into());
            }
        }
        Ok(response)
    }
}

/// Metadata of objects have other names there.
fn renamed(headers: &mut HeaderMap, from: &str, to: &str) {
    let is_meant = |name: &HeaderName| name.as_str().starts_with(from);
    let named: Vec<_> =
        headers.iter().filter(|(name, _)| is_meant(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in named {
        headers.insert(HeaderName::try_from(name.as_str().replacen(from, to, 1)).unwrap(), value);
        headers.remove(name);
    }
}

fn access(request: &Request<s3s::Body>) -> Access {
    let query = request.uri().query().unwrap_or_default();
    let is_of_upload = query.contains("uploadId=");
    match *request.method() {
        Method::PUT if !is_of_upload => Access::Writes,
        Method::POST if is_of_upload => Access::Writes,
        Method::DELETE if !is_of_upload => Access::Deletes,
        Method::GET | Method::HEAD if request.uri().path().trim_matches('/').contains('/') => Access::Reads,
        _ => Access::Other,
    }
}

/// Whether there is a token of the service account; its signature is not looked at.
fn has_token(request: &Request<s3s::Body>) -> bool {
    let claims = || {
        let token = request.headers().get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice::<serde_json::Value>(&claims).ok()
    };
    claims().is_some_and(|claims| claims["iss"] == ACCOUNT)
}

fn refused(status: StatusCode, code: &str) -> Response<s3s::Body> {
    let xml = format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>Refused by the test's server.</Message></Error>"
    );
    Response::builder().status(status).header("content-type", "application/xml").body(s3s::Body::from(xml)).unwrap()
}
