//! A real S3 server over HTTP, in process: s3s-fs with signatures checked, and faults where a test wants them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::google::Google;

pub const ACCESS_KEY: &str = "test-access-key";
pub const SECRET_KEY: &str = "test-secret-key";

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// 500 InternalError.
    InternalError,
    /// The connection is closed without an answer.
    Reset,
    /// The answer comes after this long.
    Slow(Duration),
    /// 200, and an error in the body.
    ErrorInside200,
    /// The request is carried out, and its answer lost.
    LostAnswer,
    /// The answer's body breaks off after so many bytes.
    CutBody(usize),
    /// In the answer's body, the last bit of this byte is the other one.
    FlippedBit(usize),
}

/// A fault for some of the requests that match.
#[derive(Clone, Debug)]
pub struct Rule {
    pub method: Method,
    /// In the path and query.
    pub contains: &'static str,
    pub skip: u32,
    pub times: u32,
    pub fault: Fault,
}

pub struct S3Server {
    address: SocketAddr,
    has_tls: bool,
    root: TempDir,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    uploads: Arc<Mutex<Vec<MultipartUpload>>>,
    quirks: Arc<Quirks>,
    /// It speaks Google's API.
    google: Option<Google>,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
    lists: AtomicU64,
    requests: AtomicU64,
}

/// A request that is being answered.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn of(shared: &Arc<Shared>) -> Self {
        let now = shared.at_once.fetch_add(1, Relaxed) + 1;
        shared.most_at_once.fetch_max(now, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Relaxed);
    }
}

/// What this server does otherwise than AWS, from when a test says so.
#[derive(Default)]
pub struct Quirks {
    /// If-None-Match and If-Match of a PUT are not looked at.
    pub ignores_conditions: AtomicBool,
    /// A PUT with If-None-Match or If-Match is answered 501 NotImplemented.
    pub refuses_conditions: AtomicBool,
    /// DELETE is answered 403 AccessDenied.
    pub refuses_deletes: AtomicBool,
    /// The same, of objects whose key contains this: a legal hold on some.
    pub keeps: Mutex<Option<String>>,
    /// Listings leave out objects whose key contains this.
    pub hides: Mutex<Option<String>>,
    /// GET answers with the whole object, whatever Range asks for.
    pub ignores_ranges: AtomicBool,
    /// GET answers with a part that starts so many bytes before the one that Range asks for.
    pub starts_before: AtomicU64,
    /// GET gives no ETag, or a weak one.
    pub has_no_etags: AtomicBool,
    pub has_weak_etags: AtomicBool,
    /// Objects on a page of a list; 0: as many as there are.
    pub page: AtomicI32,
    /// A page of a list that is not the last says so, and not where the next one is.
    pub loses_tokens: AtomicBool,
    /// A list begins at the first key, whatever StartAfter asks for.
    pub ignores_start_after: AtomicBool,
    /// PUT of an object or part without a checksum is answered 400 InvalidRequest, as buckets with Object Lock do.
    pub wants_checksums: AtomicBool,
    /// DELETE is answered 403, and GetObjectRetention with this time (seconds since 1970).
    pub locked_until: AtomicI64,
    /// What GET answers: 0: nothing out of the ordinary; 403, 500, …; 404: NoSuchBucket.
    pub get_answers: AtomicU32,
    /// What ListMultipartUploads answers.
    pub uploads_answer: AtomicU32,
    /// The bucket keeps versions.
    pub keeps_versions: AtomicBool,
}

impl Quirks {
    /// Reads the body before it refuses: a server that closes the connection on a client that still sends makes the
    /// kernel throw away the answer (RFC 9112, 9.6).
    async fn refuse_without_checksum(&self, has_one: bool, body: &mut Option<StreamingBlob>) -> S3Result<()> {
        if self.wants_checksums.load(Relaxed) && !has_one {
            while let Some(Ok(_)) = futures_util::StreamExt::next(body.as_mut().unwrap()).await {}
            return Err(s3_error!(
                InvalidRequest,
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
            ));
        }
        Ok(())
    }
}

impl S3Server {
    /// With one bucket, `backups`.
    pub fn start() -> Self {
        Self::start_with(None, None)
    }

    /// The same for Google's API.
    pub fn start_google() -> Self {
        Self::start_with(None, Some(Google::default()))
    }

    /// Over TLS, with this certificate and its key as PEM files.
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(Some(Self::acceptor(certificate, key)), None)
    }

    pub fn start_google_with_tls(certificate: &Path, key: &Path) -> Self {
        Self::start_with(Some(Self::acceptor(certificate, key)), Some(Google::default()))
    }

    fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
        let certificates = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn start_with(tls: Option<TlsAcceptor>, google: Option<Google>) -> Self {
        let has_tls = tls.is_some();
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join("backups")).unwrap();
        let is_google = google.is_some();
        let shared = Arc::new(Shared { google, ..Default::default() });
        let mut builder = S3ServiceBuilder::new(Listed {
            files: FileSystem::new(root.path()).unwrap(),
            uploads: Arc::clone(&shared.uploads),
            quirks: Arc::clone(&shared.quirks),
            one_step: tokio::sync::RwLock::new(()),
        });
        if !is_google {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        }
        let service = builder.build();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let for_server = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, shared, tls) = (service.clone(), Arc::clone(&for_server), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, service, shared).await,
                        // Who does not trust the certificate hangs up.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, service, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, has_tls, root, shared, _runtime: runtime }
    }

    pub fn endpoint(&self) -> String {
        match self.has_tls {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    pub fn break_with(&self, rule: Rule) {
        self.shared.rules.lock().unwrap().push(rule);
    }

    pub fn quirks(&self) -> &Quirks {
        &self.shared.quirks
    }

    /// How many requests were answered at one moment, at the most.
    pub fn most_at_once(&self) -> u32 {
        self.shared.most_at_once.load(Relaxed)
    }

    /// How many pages of lists were asked for, and how many requests there were in all.
    pub fn lists_and_requests(&self) -> (u64, u64) {
        (self.shared.lists.load(Relaxed), self.shared.requests.load(Relaxed))
    }

    pub fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// Keys of multipart uploads that were neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> Vec<String> {
        self.shared.uploads.lock().unwrap().iter().filter_map(|upload| upload.key.clone()).collect()
    }

    /// Where the server keeps an object's bytes, for a test that damages them.
    pub fn file_of(&self, key: &str) -> PathBuf {
        self.root.path().join("backups").join(key)
    }

    /// Keys of all objects.
    pub fn objects(&self) -> Vec<String> {
        let bucket = self.root.path().join("backups");
        let mut files = Vec::new();
        super::collect_files(&bucket, &bucket, &mut files);
        files.retain(|file| !file.ends_with("/.pgtend-store.json"));
        files.sort();
        files
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    service: S3Service,
    shared: Arc<Shared>,
) {
    let handler = service_fn(move |request| answer(service.clone(), Arc::clone(&shared), request));
    // A connection that a fault or a client breaks is what some tests are about.
    let _ =
        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), handler).await;
}

async fn answer(service: S3Service, shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let _in_flight = InFlight::of(&shared);
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    shared.requests.fetch_add(1, Relaxed);
    shared.lists.fetch_add(u64::from(target.contains("list-type=2")), Relaxed);
    let fault = take_fault(&shared, request.method(), &target);
    match fault {
        Some(Fault::InternalError) => {
            drain(request).await;
            return Ok(error_body(StatusCode::INTERNAL_SERVER_ERROR));
        }
        Some(Fault::ErrorInside200) => {
            drain(request).await;
            return Ok(error_body(StatusCode::OK));
        }
        Some(Fault::Reset) => return Err(std::io::Error::other("reset")),
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::LostAnswer | Fault::CutBody(_) | Fault::FlippedBit(_)) | None => {}
    }
    let request = request.map(s3s::Body::from);
    let response = match &shared.google {
        None => service.call(request).await.map_err(std::io::Error::other)?,
        Some(google) => google.call(&service, request).await?,
    };
    match fault {
        Some(Fault::LostAnswer) => Err(std::io::Error::other("the answer is lost")),
        Some(Fault::CutBody(bytes)) => Ok(cut(response, bytes).await),
        Some(Fault::FlippedBit(at)) => Ok(flipped(response, at).await),
        _ => Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync())),
    }
}

fn take_fault(shared: &Shared, method: &Method, target: &str) -> Option<Fault> {
    let mut rules = shared.rules.lock().unwrap();
    let rule = rules
        .iter_mut()
        .find(|rule| rule.method == *method && target.contains(rule.contains) && (rule.skip > 0 || rule.times > 0))?;
    if rule.skip > 0 {
        rule.skip -= 1;
        return None;
    }
    rule.times -= 1;
    Some(rule.fault)
}

async fn drain(request: Request<Incoming>) {
    let _ = request.into_body().collect().await;
}

fn error_body(status: StatusCode) -> Response<Body> {
    let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>";
    let body = Full::new(Bytes::from(xml)).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/xml").body(body).unwrap()
}

async fn cut(response: Response<s3s::Body>, bytes: usize) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let whole = body.collect().await.unwrap().to_bytes();
    let start = whole.slice(..bytes.min(whole.len()));
    let frames = [Ok(Frame::data(start)), Err(std::io::Error::other("cut"))];
    Response::from_parts(parts, StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
}

async fn flipped(response: Response<s3s::Body>, at: usize) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut whole = body.collect().await.unwrap().to_bytes().to_vec();
    if let Some(byte) = whole.get_mut(at) {
        *byte ^= 1;
    }
    Response::from_parts(parts, Full::new(Bytes::from(whole)).map_err(|never: Infallible| match never {}).boxed_unsync())
}

/// s3s-fs, and ListMultipartUploads, which it does not have. A PUT's condition and its write are one step here, and so are
/// what a GET reads and its ETag; there they are two: a GET beside a PUT has the old content and the new ETag.
struct Listed {
    files: FileSystem,
    uploads: Arc<Mutex<Vec<MultipartUpload>>>,
    quirks: Arc<Quirks>,
    one_step: tokio::sync::RwLock<()>,
}

#[async_trait::async_trait]
impl S3 for Listed {
    async fn get_object(&self, mut request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        match self.quirks.get_answers.load(Relaxed) {
            403 => return Err(s3_error!(AccessDenied, "Access Denied")),
            404 => return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist")),
            500 => return Err(s3_error!(InternalError, "We encountered an internal error")),
            _ => {}
        }
        if self.quirks.ignores_ranges.load(Relaxed) {
            request.input.range = None;
        }
        if let Some(Range::Int { first, .. }) = &mut request.input.range {
            *first = first.saturating_sub(self.quirks.starts_before.load(Relaxed));
        }
        let mut response = {
            let _one_step = self.one_step.read().await;
            self.files.get_object(request).await?
        };
        if self.quirks.has_no_etags.load(Relaxed) {
            response.output.e_tag = None;
        }
        if self.quirks.has_weak_etags.load(Relaxed) {
            response.output.e_tag = Some(ETag::Weak("weak".to_owned()));
        }
        Ok(response)
    }
    async fn get_object_retention(
        &self,
        _request: S3Request<GetObjectRetentionInput>,
    ) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        match self.quirks.locked_until.load(Relaxed) {
            0 => Err(s3_error!(NoSuchObjectLockConfiguration, "The specified object does not have a ObjectLock configuration")),
            seconds => {
                let until = std::time::UNIX_EPOCH + Duration::from_secs(seconds as u64);
                let retention = ObjectLockRetention {
                    mode: Some(ObjectLockRetentionMode::from_static("COMPLIANCE")),
                    retain_until_date: Some(until.into()),
                };
                Ok(S3Response::new(GetObjectRetentionOutput { retention: Some(retention) }))
            }
        }
    }
    async fn get_bucket_versioning(
        &self,
        _request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let keeps = self.quirks.keeps_versions.load(Relaxed);
        let status = keeps.then(|| BucketVersioningStatus::from_static("Enabled"));
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }
    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }
    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let has_condition = request.input.if_none_match.is_some() || request.input.if_match.is_some();
        if has_condition && self.quirks.refuses_conditions.load(Relaxed) {
            return Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented"));
        }
        if self.quirks.ignores_conditions.load(Relaxed) {
            (request.input.if_none_match, request.input.if_match) = (None, None);
        }
        let input = &mut request.input;
        let has_one = input.content_md5.is_some() || input.checksum_crc32.is_some();
        self.quirks.refuse_without_checksum(has_one, &mut input.body).await?;
        // Not of a large upload, which may take as long as a test likes.
        let _one_step = if has_condition { Some(self.one_step.write().await) } else { None };
        self.files.put_object(request).await
    }
    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let keeps = self.quirks.keeps.lock().unwrap().as_ref().is_some_and(|part| request.input.key.contains(part));
        if keeps || self.quirks.refuses_deletes.load(Relaxed) || self.quirks.locked_until.load(Relaxed) > 0 {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        self.files.delete_object(request).await
    }
    async fn list_objects_v2(&self, mut request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        match self.quirks.page.load(Relaxed) {
            0 => {}
            page => request.input.max_keys = Some(page),
        }
        if self.quirks.ignores_start_after.load(Relaxed) {
            request.input.start_after = None;
        }
        let mut response = self.files.list_objects_v2(request).await?;
        if self.quirks.loses_tokens.load(Relaxed) {
            response.output.next_continuation_token = None;
        }
        let hidden = self.quirks.hides.lock().unwrap().clone();
        if let (Some(hidden), Some(objects)) = (hidden, &mut response.output.contents) {
            objects.retain(|object| !object.key.as_ref().is_some_and(|key| key.contains(&hidden)));
        }
        Ok(response)
    }
    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = &mut request.input;
        let has_one = input.content_md5.is_some() || input.checksum_crc32.is_some();
        self.quirks.refuse_without_checksum(has_one, &mut input.body).await?;
        self.files.upload_part(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let response = self.files.create_multipart_upload(request).await?;
        let (key, upload_id) = (response.output.key.clone(), response.output.upload_id.clone());
        let initiated = Some(std::time::SystemTime::now().into());
        self.uploads.lock().unwrap().push(MultipartUpload { key, upload_id, initiated, ..Default::default() });
        Ok(response)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let id = request.input.upload_id.clone();
        let response = self.files.complete_multipart_upload(request).await?;
        self.uploads.lock().unwrap().retain(|upload| upload.upload_id.as_ref() != Some(&id));
        Ok(response)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let id = request.input.upload_id.clone();
        let response = self.files.abort_multipart_upload(request).await;
        // Also when it is not there: a client that was killed takes with it what was done for it, between the object and this list.
        self.uploads.lock().unwrap().retain(|upload| upload.upload_id.as_ref() != Some(&id));
        response
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        match self.quirks.uploads_answer.load(Relaxed) {
            400 => return Err(s3_error!(InvalidRequest, "The parameter uploads is unknown")),
            405 => return Err(s3_error!(MethodNotAllowed, "The specified method is not allowed against this resource.")),
            501 => return Err(s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")),
            403 => return Err(s3_error!(AccessDenied, "Access Denied")),
            _ => {}
        }
        let prefix = request.input.prefix.unwrap_or_default();
        let uploads = self
            .uploads
            .lock()
            .unwrap()
            .iter()
            .filter(|upload| upload.key.as_ref().is_some_and(|key| key.starts_with(&prefix)))
            .cloned()
            .collect();
        Ok(S3Response::new(ListMultipartUploadsOutput {
            uploads: Some(uploads),
            is_truncated: Some(self.quirks.loses_tokens.load(Relaxed)),
            ..Default::default()
        }))
    }
}
