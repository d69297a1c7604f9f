//! What may be asked for on a page: run a job now, hold a set, verify a set. Only where `[serve]` has an `actions_token`, and only with that token: each form
//! asks for it, and no browser sends it by itself, so that no page of another site can ask in somebody's name. Each is a run in the ledger before it acts, with
//! who asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Form, Router};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::pages::{PATIENCE, found, frame};
use super::site::Site;
use super::stored;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::config::Config;
use crate::ledger::report::Report;
use crate::pg::failure;
use crate::run::runner::Context;
use crate::run::runner::claim::{self, Subject};
use crate::store::Store;
use crate::task::backup::copies::holds;
use crate::task::backup::markers::Hold;
use crate::task::backup::set_name::SetName;
use crate::task::backup::{guard, verify};
use crate::web::page::{self, links};

/// A form of more bytes is refused.
const MAX_FORM_BYTES: usize = 16 << 10;

/// A browser sends a form at once.
const FORM_TIMEOUT: Duration = Duration::from_secs(5);

/// A wrong token costs this time.
const PAUSE_AFTER_A_WRONG_TOKEN: Duration = Duration::from_secs(1);

const MAX_NAME_CHARS: usize = 100;

/// Ten years.
const MAX_HOLD_DAYS: u16 = 3650;

pub fn router() -> Router<Arc<Site>> {
    Router::new().route("/actions/run", post(run_now)).route("/actions/hold", post(hold)).route("/actions/verify", post(verify))
}

/// Reads the form before its request waits for a turn: a client that sends nothing holds up nobody.
pub async fn read_whole(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(FORM_TIMEOUT, to_bytes(body, MAX_FORM_BYTES)).await {
        Ok(Ok(form)) => next.run(Request::from_parts(head, Body::from(form))).await,
        Ok(Err(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "the form is too long, or its client left\n").into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the form did not come in time\n").into_response(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunNow {
    job: String,
    database: String,
    who: String,
    token: String,
}

async fn run_now(State(site): State<Arc<Site>>, headers: HeaderMap, Form(asked): Form<RunNow>) -> Result<Response, Refusal> {
    let who = admitted(&site, &headers, &asked.who, &asked.token).await?;
    let Some(job) = found(&site, &asked.job, &asked.database) else {
        return Err(Refusal::of(&site, StatusCode::NOT_FOUND, &format!("There is no job {} on {}", asked.job, asked.database)));
    };
    tracing::info!(job = job.name, database = asked.database, who, "asked for on a page: run it now");
    let runs = links::runs(&job.name, &asked.database, "", None);
    site.scheduler.run_now(job, asked.database, who);
    Ok(Redirect::to(&runs).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldSet {
    set: String,
    days: u16,
    who: String,
    token: String,
}

async fn hold(State(site): State<Arc<Site>>, headers: HeaderMap, Form(asked): Form<HoldSet>) -> Result<Response, Refusal> {
    let who = admitted(&site, &headers, &asked.who, &asked.token).await?;
    if !(1..=MAX_HOLD_DAYS).contains(&asked.days) {
        return Err(Refusal::of(&site, StatusCode::BAD_REQUEST, &format!("A set is held for 1 to {MAX_HOLD_DAYS} days")));
    }
    let until = Utc::now() + TimeDelta::days(asked.days.into());
    let hold = Hold { until, reason: format!("{who} asked for it on a page"), because_of: None, for_copy: false };
    let held = move |context: Context, name, _| async move { hold_copies(&context.config, &name, &hold).await };
    on_a_set(&site, &asked.set, "backups hold", who, held).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifySet {
    set: String,
    store: String,
    who: String,
    token: String,
}

async fn verify(State(site): State<Arc<Site>>, headers: HeaderMap, Form(asked): Form<VerifySet>) -> Result<Response, Refusal> {
    let who = admitted(&site, &headers, &asked.who, &asked.token).await?;
    let store = asked.store;
    let verified =
        move |context: Context, name, progress| async move { read_back(&context.config, &store, &name, &progress).await };
    on_a_set(&site, &asked.set, "backups verify", who, verified).await
}

/// Returns who asks, or why nothing is done.
async fn admitted(site: &Site, headers: &HeaderMap, who: &str, token: &str) -> Result<String, Refusal> {
    let Some(expected) = &site.actions_token else {
        return Err(Refusal::of(site, StatusCode::NOT_FOUND, "Nothing can be done on the pages"));
    };
    if !is_from_a_page_of_ours(headers) {
        return Err(Refusal::of(site, StatusCode::FORBIDDEN, "A page of another site asked for this"));
    }
    // Digests are compared, so that the time it takes says nothing about the token.
    if Sha256::digest(token.trim()) != Sha256::digest(expected.expose_secret()) {
        tracing::warn!("an action that was asked for on a page was refused: its token is wrong");
        tokio::time::sleep(PAUSE_AFTER_A_WRONG_TOKEN).await;
        return Err(Refusal::of(site, StatusCode::FORBIDDEN, "The token is wrong"));
    }
    let who = who.trim();
    let is_name = !who.is_empty() && who.chars().count() <= MAX_NAME_CHARS && !who.chars().any(char::is_control);
    if !is_name {
        return Err(Refusal::of(site, StatusCode::BAD_REQUEST, "Say who you are: the ledger keeps it"));
    }
    if let Some(error) = site.scheduler.ledger_error() {
        let why = format!("The ledger cannot be written, so nothing is done: {error}");
        return Err(Refusal::of(site, StatusCode::SERVICE_UNAVAILABLE, &why));
    }
    Ok(who.to_owned())
}

/// The token decides; besides, a browser says which site asks, and another one has no business here. Where it sends no `Sec-Fetch-Site` (without TLS, to other hosts),
/// it sends `Origin`, which is `null` from our own pages, since they send no referrer. A client that says nothing is no browser.
fn is_from_a_page_of_ours(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, None | Some("null")) => true,
        (None, Some(origin)) => origin.split_once("://").map(|(_, name)| name) == text(header::HOST.as_str()),
    }
}

/// A page that says why nothing was done.
struct Refusal(StatusCode, String);

impl Refusal {
    fn of(site: &Site, status: StatusCode, why: &str) -> Self {
        Self(status, page::sorry(&frame(site), "Nothing was done", why))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Html(self.1)).into_response()
    }
}

/// Does something with a set that a store has, of a database of the configuration or of one that went from a server of it, when there is a slot for it, and leads
/// to the runs. The ledger has no row of what does not exist.
async fn on_a_set<F: Future<Output = Result<Report>> + Send + 'static>(
    site: &Arc<Site>,
    set: &str,
    command: &'static str,
    who: String,
    work: impl FnOnce(Context, SetName, Progress) -> F + Send + 'static,
) -> Result<Response, Refusal> {
    let context = site.scheduler.context();
    let name = set.parse::<SetName>().ok().filter(|name| context.config.database(&name.database).is_some());
    let Some(name) = name else {
        return Err(Refusal::of(
            site,
            StatusCode::NOT_FOUND,
            &format!("There is no set {set} of a database of the configuration"),
        ));
    };
    let seen = stored::set(&context.config, name.clone(), PATIENCE).await;
    if seen.copies.is_empty() {
        let unread: Vec<String> = seen.unread.iter().map(|(store, why)| format!("store {store}: {why}")).collect();
        let refusal = match unread.as_slice() {
            [] => Refusal::of(site, StatusCode::NOT_FOUND, &format!("No store has a set {set}")),
            _ => Refusal::of(
                site,
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("No store is known to have {set}: {}", unread.join("; ")),
            ),
        };
        return Err(refusal);
    }
    tracing::info!(set, who, "asked for on a page: {command}");
    let runs = links::runs(&name.job, &name.database, "", None);
    site.scheduler.spawn(async move {
        let (subject_name, progress) = (name.clone(), context.progress.for_a_run());
        let work = work(context.clone(), name, progress.clone());
        recorded(&context, &subject_name, command, &who, &progress, work).await;
    });
    Ok(Redirect::to(&runs).into_response())
}

/// Works as a command does: with a row in the ledger, without which nothing is done.
async fn recorded(
    context: &Context,
    name: &SetName,
    command: &'static str,
    who: &str,
    progress: &Progress,
    work: impl Future<Output = Result<Report>>,
) {
    let subject = Subject { job: &name.job, database: &name.database, command, asked_by: Some(who) };
    let lock = guard::readers_lock(&name.database, &name.job);
    let reading = claim::share(context.ledger.as_ref(), &subject, &lock, progress).await;
    if !reading.is_in_the_ledger() {
        tracing::error!("{command} of {name}, asked for on a page by {who}, is not done: it could not be written to the ledger");
        return;
    }
    let result = tokio::select! {
        result = work => result,
        () = context.cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "the process was stopped").into()),
    };
    if let Err(error) = &result {
        tracing::error!("{command} of {name}, asked for on a page by {who}: {}", failure::in_a_line(error));
    }
    reading.end(result.as_ref()).await;
}

/// Holds all copies that are not held for as long already.
async fn hold_copies(config: &Config, name: &SetName, hold: &Hold) -> Result<Report> {
    let (mut held, mut unread) = (Vec::new(), Vec::new());
    for (store_name, configured) in &config.stores {
        let holding = async {
            let store = Store::open(configured).await?;
            let Some(set) = stored::one(&store, name).await? else { return Ok(false) };
            if !is_held_as_long(&set.holds, hold.until) {
                holds::hold(&store, store_name, &set, hold).await?;
            }
            anyhow::Ok(true)
        };
        match holding.await {
            Ok(true) => held.push(store_name.clone()),
            Ok(false) => {}
            Err(error) => unread.push(format!("store `{store_name}`: {}", failure::in_a_line(&error))),
        }
    }
    let held_in = if held.is_empty() { "no store".to_owned() } else { held.join(" and ") };
    ensure!(unread.is_empty() && !held.is_empty(), "{name} is held in {held_in}; {}", unread.join("; "));
    let until = hold.until.format("%Y-%m-%d %H:%M UTC");
    Ok(Report { summary: format!("{name} in {held_in} is held at least until {until}"), ..Report::default() })
}

/// A person's hold is never made shorter here.
fn is_held_as_long(holds: &[Hold], until: DateTime<Utc>) -> bool {
    holds.iter().any(|held| held.because_of.is_none() && !held.for_copy && held.until >= until)
}

async fn read_back(config: &Config, store_name: &str, name: &SetName, progress: &Progress) -> Result<Report> {
    let store = Store::named(config, store_name).await?;
    let mut set = stored::one(&store, name).await?.with_context(|| format!("store `{store_name}` has no set {name}"))?;
    let not_decoded = verify::by_checksum(&store, &mut set, progress).await?;
    let decoded = not_decoded.map(|why| format!("; not decoded here: {why}")).unwrap_or_default();
    Ok(Report { summary: format!("{name} in {store_name}: read back, and its bytes match{decoded}"), ..Report::default() })
}
