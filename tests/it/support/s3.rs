//! A real S3 server over HTTP, in process: s3s-fs with signatures checked, and faults where a test wants them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;

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
    root: TempDir,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    uploads: Arc<Mutex<Vec<MultipartUpload>>>,
    quirks: Arc<Quirks>,
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
    /// Listings leave out objects whose key contains this.
    pub hides: Mutex<Option<String>>,
}

impl S3Server {
    /// With one bucket, `backups`.
    pub fn start() -> Self {
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join("backups")).unwrap();
        let shared = Arc::new(Shared::default());
        let mut builder = S3ServiceBuilder::new(Listed {
            files: FileSystem::new(root.path()).unwrap(),
            uploads: Arc::clone(&shared.uploads),
            quirks: Arc::clone(&shared.quirks),
            writing: tokio::sync::Mutex::new(()),
        });
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let for_server = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, shared) = (service.clone(), Arc::clone(&for_server));
                tokio::spawn(async move {
                    let handler = service_fn(move |request| answer(service.clone(), Arc::clone(&shared), request));
                    // A connection that a fault or a client breaks is what some tests are about.
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), handler)
                        .await;
                });
            }
        });
        Self { address, root, shared, _runtime: runtime }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn break_with(&self, rule: Rule) {
        self.shared.rules.lock().unwrap().push(rule);
    }

    pub fn quirks(&self) -> &Quirks {
        &self.shared.quirks
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
        files.sort();
        files
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(service: S3Service, shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let target = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
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
    let response = service.call(request).await.map_err(std::io::Error::other)?;
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

/// s3s-fs, and ListMultipartUploads, which it does not have. A PUT's condition and its write are one step here; there they
/// are two.
struct Listed {
    files: FileSystem,
    uploads: Arc<Mutex<Vec<MultipartUpload>>>,
    quirks: Arc<Quirks>,
    writing: tokio::sync::Mutex<()>,
}

#[async_trait::async_trait]
impl S3 for Listed {
    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
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
        let _one_step = self.writing.lock().await;
        self.files.put_object(request).await
    }
    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        if self.quirks.refuses_deletes.load(Relaxed) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        self.files.delete_object(request).await
    }
    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let mut response = self.files.list_objects_v2(request).await?;
        let hidden = self.quirks.hides.lock().unwrap().clone();
        if let (Some(hidden), Some(objects)) = (hidden, &mut response.output.contents) {
            objects.retain(|object| !object.key.as_ref().is_some_and(|key| key.contains(&hidden)));
        }
        Ok(response)
    }
    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
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
        let response = self.files.abort_multipart_upload(request).await?;
        self.uploads.lock().unwrap().retain(|upload| upload.upload_id.as_ref() != Some(&id));
        Ok(response)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
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
            is_truncated: Some(false),
            ..Default::default()
        }))
    }
}
