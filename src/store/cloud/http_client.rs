//! The HTTP client under object_store: timeouts by the size of what is sent, and refusals as errors that can be told apart.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService};
use reqwest::Certificate;
use reqwest::redirect::Policy;

use super::answer::Answer;
use super::attempts::REQUEST_TIMEOUT;

/// A provider takes minutes to assemble terabytes.
const ASSEMBLY_TIMEOUT: Duration = Duration::from_secs(600);

/// Servers that give tokens are near, or not there at all.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the clients for the store, and for those who give tokens for it.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The store's host: requests to others are for tokens.
    pub host: String,
    pub part_timeout: Option<Duration>,
    /// Private CAs, beside the system's (or those of SSL_CERT_FILE).
    pub certificates: Vec<Certificate>,
}

impl Connector {
    pub fn client(&self) -> reqwest::Result<HttpClient> {
        let agent = concat!("pgtend/", env!("CARGO_PKG_VERSION"));
        let builder = reqwest::Client::builder().user_agent(agent).connect_timeout(CONNECT_TIMEOUT).http1_only();
        // What is signed for one server is for no other.
        let client = builder.redirect(Policy::none()).tls_certs_merge(self.certificates.clone()).build()?;
        Ok(HttpClient::new(Guarded { client, connector: self.clone() }))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.client().map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })
    }
}

#[derive(Debug)]
struct Guarded {
    client: reqwest::Client,
    connector: Connector,
}

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let may_hold_an_error = request.method() == Method::POST;
        let answered = answered_in(self.timeout_of(&request, &host), self.client.call(request)).await;
        if host == self.connector.host {
            return if may_hold_an_error { without_error(answered?).await } else { answered };
        }
        // A machine without an identity has no such server: further attempts would take a minute to find that out.
        answered.map_err(|error| {
            let kind = if is_of_this_machine(&host) { HttpErrorKind::Unknown } else { error.kind() };
            let answer = Answer::of(&error).map(ToString::to_string);
            HttpError::new(kind, NoToken { host, answer, error })
        })
    }
}

impl Guarded {
    fn timeout_of(&self, request: &HttpRequest, host: &str) -> Duration {
        if host != self.connector.host {
            return TOKEN_TIMEOUT;
        }
        let query = request.uri().query().unwrap_or_default();
        if request.method() == Method::POST || query.contains("comp=blocklist") {
            return ASSEMBLY_TIMEOUT;
        }
        match request.body().content_length() as u64 {
            0 => REQUEST_TIMEOUT,
            bytes => self.connector.part_timeout.unwrap_or(REQUEST_TIMEOUT + Duration::from_secs(bytes / (256 << 10))),
        }
    }
}

/// Returns an answer of 2xx; every other is an error with an [`Answer`] in it.
async fn answered_in(
    timeout: Duration,
    answer: impl Future<Output = Result<HttpResponse, HttpError>>,
) -> Result<HttpResponse, HttpError> {
    let Ok(answered) = tokio::time::timeout(timeout, answer).await else {
        return Err(HttpError::new(HttpErrorKind::Timeout, Silent(timeout)));
    };
    let answer = answered?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let answer = Answer::read(answer).await;
    // object_store repeats the one and not the other, whatever the request.
    let kind = if answer.is_passing() { HttpErrorKind::Request } else { HttpErrorKind::Unknown };
    Err(HttpError::new(kind, answer))
}

/// Reads an answer to the end of an upload: as with S3, it may begin as a success before the object is put together, and then tell a failure.
async fn without_error(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let text = body.bytes().await?;
    match Answer::inside(&text) {
        Some(answer) => Err(HttpError::new(HttpErrorKind::Request, answer)),
        None => Ok(HttpResponse::from_parts(parts, text.into())),
    }
}

/// The metadata services of Azure and Google.
fn is_of_this_machine(host: &str) -> bool {
    host.starts_with("169.254.") || host == "metadata.google.internal"
}

/// There was no answer.
#[derive(Debug)]
pub struct Silent(Duration);

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "it did not answer in time ({} s)", self.0.as_secs_f32())
    }
}

impl Error for Silent {}

/// There are no credentials for the store, because the server that gives them did not.
#[derive(Debug)]
pub struct NoToken {
    pub host: String,
    /// What it answered. As a text: its 404 says nothing of an object.
    pub answer: Option<String>,
    error: HttpError,
}

impl std::fmt::Display for NoToken {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} gave no token", self.host)
    }
}

impl Error for NoToken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.answer.is_none().then_some(&self.error as _)
    }
}
