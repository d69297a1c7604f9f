//! The pages of `serve`: the status page, its data as JSON, metrics, health checks. None of them changes anything.

mod connections;
mod hosts;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use chrono::{DateTime, Utc};
pub use hosts::Hosts;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::ledger::report::Outcome;
use crate::ledger::{self, Filter, Gone, Key};
use crate::run::fleet;
use crate::run::job::{Broken, Job};
use crate::run::scheduler::{Fleet, Scheduler};
use crate::web::page;
use crate::web::status::{self, BrokenStatus, FleetStatus, GoneStatus, Status};

/// A page that many people watch asks the ledger once in this time.
const STATUS_FOR: Duration = Duration::from_secs(2);

/// A scheduler that has not looked at the clock for this long hangs. It looks every second or two.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// The most requests of a kind that wait or are being answered; there are two kinds. This is fewer than the connections, so that
/// some are left for health checks.
const ASKING: usize = 24;

/// The most requests that query the ledger at a time. This is fewer than its connections, so that some are left for the runs.
const LEDGER_TURNS: usize = 2;

/// The most runs under way that the page shows of jobs with patterns.
const UNDER_WAY: i64 = 200;

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

/// The state that handlers share.
pub struct Site {
    pub scheduler: Arc<Scheduler>,
    pub started_at: DateTime<Utc>,
    /// The mistakes for which the last reload was refused.
    pub configuration_error: Mutex<Option<String>>,
    /// The jobs that are skipped.
    pub broken_jobs: Mutex<Vec<Broken>>,
    pub stop: CancellationToken,
    cached: tokio::sync::Mutex<Option<(Instant, Arc<Status>)>>,
}

impl Site {
    pub fn new(scheduler: Arc<Scheduler>, broken_jobs: Vec<Broken>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            scheduler,
            started_at: Utc::now(),
            configuration_error: Mutex::default(),
            broken_jobs: Mutex::new(broken_jobs),
            stop,
            cached: tokio::sync::Mutex::default(),
        })
    }
}

/// Answers requests until `done`.
pub async fn serve(site: Arc<Site>, listener: TcpListener, readers: Readers, done: CancellationToken) {
    let open = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    let asking = Router::new()
        .route("/", get(index))
        .route("/api/jobs", get(api_jobs))
        .route("/api/runs", get(api_runs))
        .route("/api/runs/{id}", get(api_run))
        .layer(middleware::from_fn_with_state(Arc::new(QueryLimits::new(LEDGER_TURNS)), in_turn));
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(Arc::new(QueryLimits::new(METRICS_TURNS)), in_turn));
    let pages = metrics.merge(asking);
    let pages = match readers {
        Readers::WithToken(token) => pages.layer(middleware::from_fn_with_state(Arc::new(token), with_token)),
        Readers::ByName(hosts) => pages.layer(middleware::from_fn_with_state(Arc::new(hosts), by_name)),
    };
    let router = open.merge(pages).layer(middleware::map_response(with_headers)).with_state(site);
    connections::serve(listener, router, done).await;
}

async fn index(State(site): State<Arc<Site>>) -> Html<String> {
    let status = status(&site).await;
    Html(block_in_place(|| page::render(&status)))
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
    let status = status(&site).await;
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

/// Clients that ask while a query is under way share its answer.
async fn status(site: &Site) -> Arc<Status> {
    let mut cached = site.cached.lock().await;
    if let Some((at, status)) = &*cached
        && at.elapsed() < STATUS_FOR
    {
        return Arc::clone(status);
    }
    let status = Arc::new(read_status(site).await);
    *cached = Some((Instant::now(), Arc::clone(&status)));
    status
}

async fn read_status(site: &Site) -> Status {
    let context = site.scheduler.context();
    let ledger = site.scheduler.ledger();
    let fleets = site.scheduler.fleets();
    let read = async {
        // Otherwise, while the ledger is away, every page would wait for its timeout.
        if let Some(error) = site.scheduler.ledger_error() {
            anyhow::bail!("{error}");
        }
        let under_way = if fleets.is_empty() { Vec::new() } else { ledger.under_way(UNDER_WAY).await? };
        let shown = shown(&context.jobs, &fleets, &under_way);
        let keys: Vec<Key> =
            shown.iter().flat_map(|job| job.databases.iter().map(|database| (job.name.clone(), database.clone()))).collect();
        let rows = ledger.last_runs(&keys, status::HISTORY).await?;
        let gone = fleet::gone(&context.config, ledger).await?;
        Ok((rows, ledger.last_successes(&keys).await?, shown, gone))
    };
    let (rows, successes, shown, gone, ledger_error) = match read.await {
        Ok((rows, successes, shown, gone)) => (rows, successes, shown, gone, None),
        Err(error) => {
            let shown = shown(&context.jobs, &fleets, &[]);
            (Vec::new(), Default::default(), shown, Vec::new(), Some(format!("{error:#}")))
        }
    };
    let late = if ledger_error.is_none() { site.scheduler.late().into_iter().collect() } else { Default::default() };
    let now = Utc::now();
    let jobs = status::of_jobs(&shown, rows, &successes, &late, now);
    Status {
        now,
        version: env!("CARGO_PKG_VERSION"),
        host: ledger::host(),
        started_at: site.started_at,
        ledger_error,
        configuration_error: site.configuration_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        broken: site.broken_jobs.lock().unwrap_or_else(PoisonError::into_inner).iter().map(BrokenStatus::from).collect(),
        draining: site.stop.is_cancelled(),
        failures: status::failures(&jobs),
        jobs,
        fleets: fleets.into_iter().map(FleetStatus::from).collect(),
        gone: gone.into_iter().map(|Gone { database, gone_at }| GoneStatus { database, gone_at }).collect(),
    }
}

/// Returns the jobs with the databases that the page shows each by itself: of jobs with patterns, those in trouble and those under way.
fn shown(jobs: &[Job], fleets: &[Fleet], under_way: &[Key]) -> Vec<Job> {
    let of_fleet = |fleet: &Fleet| {
        let running = under_way.iter().filter(|(job, _)| *job == fleet.job.name).map(|(_, database)| database);
        let databases: BTreeSet<&String> = fleet.trouble.iter().chain(running).collect();
        Job { databases: databases.into_iter().cloned().collect(), ..(*fleet.job).clone() }
    };
    jobs.iter().filter(|job| job.chosen.is_none()).cloned().chain(fleets.iter().map(of_fleet)).collect()
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
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
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
