//! The pages of `serve`: the status page and those behind it, their data as JSON, metrics, health checks. None of them changes
//! anything, but `actions` where a token for them is configured.

mod actions;
mod connections;
mod hosts;
mod pages;
mod read;
mod site;
mod stored;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
pub use hosts::Hosts;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

pub use self::site::Site;
use crate::ledger::Filter;
use crate::ledger::report::Outcome;

/// A scheduler that has not looked at the clock for this long hangs. It looks every second or two.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// The most requests of a kind that wait or are being answered. This is fewer than the connections, so that
/// some are left for health checks.
const ASKING: usize = 16;

/// The most requests that query the ledger at a time. This is fewer than its connections, so that some are left for the runs.
const LEDGER_TURNS: usize = 2;

/// The most requests that read stores at a time.
const STORE_TURNS: usize = 2;

/// The most requests that act at a time: wrong tokens are tried one after another.
const ACTION_TURNS: usize = 1;

/// The most requests that read metrics at a time. With very many jobs, a page of them costs a moment of a core.
const METRICS_TURNS: usize = 1;

/// An answer that takes longer is abandoned. This is more than a query of the ledger may take, whose error is an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The clients that may read the pages.
pub enum Readers {
    /// Clients that know the token.
    WithToken(SecretString),
    /// Clients that use one of the host's names.
    ByName(Hosts),
}

/// Answers requests until `done`.
pub async fn serve(site: Arc<Site>, listener: TcpListener, readers: Readers, done: CancellationToken) {
    let open = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    let asking = Router::new()
        .route("/", get(pages::index))
        .route("/job", get(pages::job))
        .route("/database", get(pages::database))
        .route("/runs", get(pages::runs))
        .route("/runs/{id}", get(pages::run))
        .route("/api/jobs", get(api_jobs))
        .route("/api/runs", get(api_runs))
        .route("/api/runs/{id}", get(api_run))
        .layer(middleware::from_fn_with_state(Arc::new(QueryLimits::new(LEDGER_TURNS)), in_turn));
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(Arc::new(QueryLimits::new(METRICS_TURNS)), in_turn));
    let stored = Router::new()
        .route("/set", get(pages::set))
        .route("/audit", get(pages::audit))
        .route("/archive", get(pages::archive))
        .layer(middleware::from_fn_with_state(Arc::new(QueryLimits::new(STORE_TURNS)), in_turn));
    let mut pages = metrics.merge(asking).merge(stored);
    if site.actions_token.is_some() {
        pages = pages
            .merge(actions::router().layer(middleware::from_fn_with_state(Arc::new(QueryLimits::new(ACTION_TURNS)), in_turn)))
            .layer(middleware::from_fn(actions::read_whole));
    }
    let pages = match readers {
        Readers::WithToken(token) => pages.layer(middleware::from_fn_with_state(Arc::new(token), with_token)),
        Readers::ByName(hosts) => pages.layer(middleware::from_fn_with_state(Arc::new(hosts), by_name)),
    };
    let router = open.merge(pages).layer(middleware::map_response(with_headers)).with_state(site);
    connections::serve(listener, router, done).await;
}

async fn metrics(State(site): State<Arc<Site>>) -> Result<Response, Failure> {
    let page = block_in_place(|| site.scheduler.context().metrics.render())?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

/// Answers whether the process is alive, which it is while its scheduler looks at the clock. An unreachable database is not a reason to restart it.
async fn healthz(State(site): State<Arc<Site>>) -> Response {
    let looked = site.scheduler.looked();
    if looked > HANGS_AFTER && !site.stop.is_cancelled() {
        let text = format!("the scheduler has not looked at the clock for {} s\n", looked.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "ok\n".into_response()
}

/// Answers whether due jobs will run: the ledger is reachable, and the schedules are known.
async fn readyz(State(site): State<Arc<Site>>) -> Response {
    let reason = match site.scheduler.ledger_error() {
        _ if site.stop.is_cancelled() => "stopping".to_owned(),
        Some(_) => "the ledger is unreachable".to_owned(),
        None if !site.scheduler.is_planning() => "the schedules are not known yet".to_owned(),
        None => return ready(&site).into_response(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response()
}

/// A job that is skipped does not keep others from running. Its name is for clients with the token, which this page does not
/// require.
fn ready(site: &Site) -> String {
    match site.broken_jobs.lock().unwrap_or_else(PoisonError::into_inner).len() {
        0 => "ok\n".to_owned(),
        1 => "ok\n1 job is skipped: its file has mistakes\n".to_owned(),
        count => format!("ok\n{count} jobs are skipped: their files have mistakes\n"),
    }
}

async fn api_jobs(State(site): State<Arc<Site>>) -> Response {
    let status = read::status(&site).await;
    block_in_place(|| Json(&*status).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunsQuery {
    job: Option<String>,
    database: Option<String>,
    outcome: Option<String>,
    limit: Option<u16>,
}

async fn api_runs(State(site): State<Arc<Site>>, Query(query): Query<RunsQuery>) -> Result<Response, Failure> {
    let outcome = match query.outcome.as_deref().map(str::parse::<Outcome>).transpose() {
        Ok(outcome) => outcome,
        Err(problem) => return Ok((StatusCode::BAD_REQUEST, Json(json!({ "error": problem }))).into_response()),
    };
    let filter = Filter {
        job: query.job.as_deref(),
        database: query.database.as_deref(),
        outcome,
        limit: query.limit.unwrap_or(100).clamp(1, 1000).into(),
    };
    let runs = site.scheduler.ledger().runs_in_brief(&filter).await?;
    Ok(Json(json!({ "runs": runs })).into_response())
}

async fn api_run(State(site): State<Arc<Site>>, Path(id): Path<i64>) -> Result<Response, Failure> {
    Ok(match site.scheduler.ledger().run(id).await? {
        Some(run) => Json(json!({ "run": run })).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": format!("no run {id}") }))).into_response(),
    })
}

/// Requests that cost more than a moment, with their limits.
struct QueryLimits {
    all: Semaphore,
    turns: Semaphore,
}

impl QueryLimits {
    fn new(turns: usize) -> Self {
        Self { all: Semaphore::new(ASKING), turns: Semaphore::new(turns) }
    }
}

/// Answers few requests at a time, and none for long.
async fn in_turn(State(askers): State<Arc<QueryLimits>>, request: Request, next: Next) -> Response {
    let busy = |text: String| (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], text).into_response();
    let Ok(_asker) = askers.all.try_acquire() else {
        return busy(format!("{ASKING} other requests for this are waiting: try again\n"));
    };
    let answer = async {
        let _turn = askers.turns.acquire().await;
        next.run(request).await
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(response) => response,
        Err(_) => busy(format!("no answer within {} s\n", ANSWER_TIMEOUT.as_secs())),
    }
}

/// Answers only under a name of ours, so that no other site can read the pages through a browser.
async fn by_name(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let Err(name) = hosts.check(request.uri(), request.headers()) else { return next.run(request).await };
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(100).collect();
    let text = format!(
        "pgtend answers to localhost and to the address that it listens on; `{name}` is neither.\n\
         If it is a name of this host, set hosts = [\"NAME\"] in [serve], or token_file, which needs no names.\n"
    );
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Checks `Authorization: Bearer TOKEN`; browsers, which cannot send that, ask for a password, and accept any user name.
async fn with_token(State(token): State<Arc<SecretString>>, request: Request, next: Next) -> Response {
    // Digests are compared, so that the time it takes says nothing about the token.
    let expected = Sha256::digest(token.expose_secret());
    if given(request.headers()).is_some_and(|given| Sha256::digest(given) == expected) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"pgtend\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, challenge, "this page needs a token: Authorization: Bearer TOKEN\n").into_response()
}

fn given(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = text.strip_prefix("Bearer ") {
        return Some(token.trim().to_owned());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.strip_prefix("Basic ")?.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

/// Allows no script, no foreign resources and no frames: names of jobs and errors are other people's text.
async fn with_headers(mut response: Response) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A handler's error, as JSON.
struct Failure(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": format!("{:#}", self.0) }))).into_response()
    }
}

/// Listens on the address, or names it in the error.
pub async fn listen(address: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ([serve] listen)"))
}
