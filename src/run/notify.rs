//! Reports runs to monitors: pings of a job's URL in the style of healthchecks, and a JSON webhook on failure, on recovery and
//! when a job is late. A monitor that is down never fails or delays a job.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::redirect::{Action, Attempt, Policy};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::base::{ca_file, fault, network, units};
use crate::config::Config;
use crate::ledger::report::{Ended, Outcome, Run};
use crate::ledger::{self, Ledger};
use crate::pg::failure;
use crate::run::job::Job;

/// The time for one try, in total.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses between tries: there are three tries.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// A run's end waits this long for its /start, which would read as a new run if it came later.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of redirects that are followed.
const REDIRECTS: usize = 3;
/// The process waits this long at its end for messages under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);

/// Sends notifications in the background.
#[derive(Clone, Default)]
pub struct Notifier {
    pings: Option<reqwest::Client>,
    webhook: Option<(reqwest::Client, Arc<SecretString>)>,
    tasks: TaskTracker,
    /// Pings about the start of a run, until the run ends.
    starts: Arc<Mutex<HashMap<Uuid, JoinHandle<()>>>>,
}

impl Notifier {
    /// Creates a client only if there is a URL to notify.
    pub fn new(config: &Config, jobs: &[Job]) -> Self {
        let pings = jobs.iter().any(|job| job.ping_url.is_some());
        let webhook = config.notify.webhook_url.clone();
        Self {
            pings: pings.then(|| client(config, Redirects::All)).flatten(),
            webhook: webhook.and_then(|url| Some((client(config, Redirects::RepeatsAlone)?, Arc::new(url)))),
            tasks: TaskTracker::new(),
            starts: Arc::default(),
        }
    }

    /// Reports that the run has its locks and starts to work.
    pub fn started(&self, job: &Job, run: &Run) {
        if let Some(ping) = self.ping(job, "/start", run, None) {
            self.starts.lock().unwrap_or_else(PoisonError::into_inner).insert(run_id(run), ping);
        }
    }

    /// Reports the end of a run. A busy run is not an end: the run that has the lock reports its own.
    pub async fn ended(&self, ledger: Option<&Ledger>, job: &Job, ended: &Ended) {
        let run = &ended.run;
        let start = self.starts.lock().unwrap_or_else(PoisonError::into_inner).remove(&run_id(run));
        match run.outcome {
            Outcome::Succeeded => drop(self.ping(job, "", run, start)),
            Outcome::Skipped if ended.error.as_ref().and_then(failure::kind_of) == Some(fault::Kind::Busy) => return,
            // Another attempt follows, and its end is the run's.
            _ if ended.retry_in.is_some() => return,
            _ => drop(self.ping(job, "/fail", run, start)),
        }
        if self.webhook.is_none() {
            return;
        }
        let event = match run.outcome {
            Outcome::Succeeded if failed_before(ledger, run).await => "recovery",
            Outcome::Succeeded => return,
            Outcome::Skipped => "skipped",
            _ => "failure",
        };
        let error = run.error.as_deref().map(fault::without_values);
        let said = error.clone().or_else(|| run.report.as_ref().map(|report| report.summary.clone())).unwrap_or_default();
        let text = format!("pgtend: {} on {}: {}: {said}", run.job, run.database, run.outcome.in_words());
        self.post(json!({
            "event": event,
            "text": text,
            "job": run.job,
            "database": run.database,
            "run": run.id,
            "outcome": run.outcome,
            "error": error,
            "attempt": run.attempt,
            "scheduled_for": run.scheduled_for,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "host": ledger::host(),
            "version": env!("CARGO_PKG_VERSION"),
        }));
    }

    /// Reports that the job's last success is older than its schedule allows.
    pub fn late(&self, job: &Job, database: &str, due_at: DateTime<Utc>, last_success_at: Option<DateTime<Utc>>) {
        let since =
            last_success_at.map_or("it has none".to_owned(), |at| format!("the last one was {} ago", units::age(at, Utc::now())));
        let text = format!("pgtend: {} on {database}: late: no success for its tick of {due_at}; {since}", job.name);
        self.post(json!({
            "event": "late",
            "text": text,
            "job": job.name,
            "database": database,
            "due_at": due_at,
            "last_success_at": last_success_at,
            "host": ledger::host(),
            "version": env!("CARGO_PKG_VERSION"),
        }));
    }

    /// Waits a limited time for messages under way.
    pub async fn drain(&self) {
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("gave up on notifications that were still being sent");
        }
    }

    /// Sends a ping after `before`, as soon as that is delivered.
    fn ping(&self, job: &Job, path: &str, run: &Run, before: Option<JoinHandle<()>>) -> Option<JoinHandle<()>> {
        let (client, url) = (self.pings.clone()?, job.ping_url.as_ref()?);
        let mut url = url::Url::parse(url.expose_secret()).ok()?;
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url.query_pairs_mut().append_pair("rid", &run_id(run).to_string());
        let job = job.name.clone();
        Some(self.tasks.spawn(async move {
            if let Some(mut before) = before
                && tokio::time::timeout(START_TIMEOUT, &mut before).await.is_err()
            {
                before.abort();
            }
            deliver(&format!("ping of job `{job}`"), || client.get(url.clone())).await;
        }))
    }

    fn post(&self, body: Value) {
        let Some((client, url)) = self.webhook.clone() else { return };
        self.tasks.spawn(async move {
            deliver("webhook", || client.post(url.expose_secret()).json(&body)).await;
        });
    }
}

fn client(config: &Config, redirects: Redirects) -> Option<reqwest::Client> {
    // reqwest takes the process's provider, and chooses none itself (feature rustls-no-provider).
    let _ = rustls::crypto::ring::default_provider().install_default();
    match build(config.notify.ca_file.as_deref(), redirects) {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::error!("cannot create an HTTP client, so no pings and no webhook are sent: {error:#}");
            None
        }
    }
}

/// Trusts the system's CAs (or those of SSL_CERT_FILE) and those of the file.
fn build(ca_file: Option<&Path>, redirects: Redirects) -> Result<reqwest::Client> {
    let agent = concat!("pgtend/", env!("CARGO_PKG_VERSION"));
    let mut builder = reqwest::Client::builder().user_agent(agent).timeout(TIMEOUT);
    builder = builder.redirect(Policy::custom(move |attempt| redirected(attempt, redirects)));
    if let Some(path) = ca_file {
        let pem = ca_file::read(path).map_err(|why| anyhow::anyhow!("`ca_file` of [notify]: {why}"))?;
        let certificates: Result<Vec<_>, _> = pem.certificates.iter().map(|der| reqwest::Certificate::from_der(der)).collect();
        builder = builder.tls_certs_merge(certificates?);
    }
    Ok(builder.build()?)
}

/// The redirects that are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Redirects {
    /// Every redirect: pings are GETs, and stay GETs.
    All,
    /// Only 307 and 308, which repeat a POST with its message. The others would turn it into a GET, which reports nothing but
    /// looks delivered.
    RepeatsAlone,
}

/// Follows a redirect on one server, at most from `http` to `https`: the URL is a secret of that server, and the posted message
/// is for it alone.
fn redirected(attempt: Attempt<'_>, redirects: Redirects) -> Action {
    let to = attempt.url();
    let is_same_server = attempt.previous().first().is_some_and(|asked| {
        let is_same_port = asked.scheme() == to.scheme() && asked.port_or_known_default() == to.port_or_known_default();
        let is_upgrade = asked.scheme() == "http" && to.scheme() == "https";
        asked.host() == to.host() && (is_same_port || is_upgrade)
    });
    let repeats = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let is_allowed = is_same_server && (repeats || redirects == Redirects::All) && attempt.previous().len() <= REDIRECTS;
    if is_allowed { attempt.follow() } else { attempt.stop() }
}

async fn deliver(what: &str, request: impl Fn() -> reqwest::RequestBuilder) {
    let mut pauses = PAUSES.into_iter();
    loop {
        let why = match request().send().await.and_then(reqwest::Response::error_for_status) {
            Ok(response) if response.status().is_redirection() => redirected_in_words(&response),
            Ok(_) => return,
            // The URL is a secret: anyone who knows it can report a success.
            Err(error) => why(&error.without_url()),
        };
        match pauses.next() {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return tracing::warn!("{what} was not delivered: {why}"),
        }
    }
}

fn why(error: &reqwest::Error) -> String {
    match error.status() {
        Some(status) => format!("HTTP {status}"),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => network::cause_of(error, "`ca_file` of [notify], or in SSL_CERT_FILE"),
    }
}

/// Describes the redirect without its path, which may be a secret.
fn redirected_in_words(response: &reqwest::Response) -> String {
    let location = response.headers().get(reqwest::header::LOCATION).and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| response.url().join(location).ok()).map(|to| to.origin().ascii_serialization());
    let to = to.unwrap_or_else(|| "nowhere".to_owned());
    format!("HTTP {}: it redirects to {to}, which is not followed: configure the final URL", response.status().as_u16())
}

async fn failed_before(ledger: Option<&Ledger>, run: &Run) -> bool {
    let (Some(ledger), Some(id)) = (ledger, run.id) else { return false };
    match ledger.previous(id).await {
        Ok(previous) => previous.and_then(|row| row.outcome.0).is_some_and(Outcome::needs_attention),
        Err(error) => {
            tracing::warn!("cannot tell whether this is a recovery: {error:#}");
            false
        }
    }
}

/// Returns the same ID for the start and the end of a run.
fn run_id(run: &Run) -> Uuid {
    let name = format!("{}/{}/{}/{:?}/{}", run.job, run.database, run.started_at, run.id, std::process::id());
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}
