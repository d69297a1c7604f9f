//! Pings of a job's URL in the style of healthchecks: start, success, failure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::answer::Answerer;
use super::request::{self, Redirects};
use super::secrets::Secrets;
use crate::config::Config;
use crate::ledger::report::Run;
use crate::run::job::Job;

/// A run's end waits this long for its /start, which would read as a new run if it came later.
const START_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub struct Pings {
    client: Option<reqwest::Client>,
    /// Pings about the start of a run, until the run ends.
    starts: Arc<Mutex<HashMap<Uuid, JoinHandle<()>>>>,
}

impl Pings {
    /// Creates a client only if a job has a URL.
    pub fn new(config: &Config, jobs: &[Job]) -> Self {
        let is_needed = jobs.iter().any(|job| job.ping_url.is_some());
        let client = is_needed.then(|| request::client(config.notify.ca_file.as_deref(), Redirects::All)).flatten();
        Self { client, starts: Arc::default() }
    }

    pub fn started(&self, tasks: &TaskTracker, job: &Job, run: &Run) {
        if let Some(ping) = self.ping(tasks, job, "/start", run, None) {
            self.starts.lock().unwrap_or_else(PoisonError::into_inner).insert(run_id(run), ping);
        }
    }

    /// Forgets the start of a run, for [`Pings::ended`].
    pub fn start_of(&self, run: &Run) -> Option<JoinHandle<()>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).remove(&run_id(run))
    }

    pub fn ended(&self, tasks: &TaskTracker, job: &Job, run: &Run, has_succeeded: bool, start: Option<JoinHandle<()>>) {
        drop(self.ping(tasks, job, if has_succeeded { "" } else { "/fail" }, run, start));
    }

    /// Sends a ping after `before`, as soon as that is delivered.
    fn ping(
        &self,
        tasks: &TaskTracker,
        job: &Job,
        path: &str,
        run: &Run,
        before: Option<JoinHandle<()>>,
    ) -> Option<JoinHandle<()>> {
        let (client, url) = (self.client.clone()?, job.ping_url.as_ref()?);
        let mut url = url::Url::parse(url.expose_secret()).ok()?;
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url.query_pairs_mut().append_pair("rid", &run_id(run).to_string());
        let secrets = Secrets::of_url(&SecretString::from(url.to_string()));
        let job = job.name.clone();
        Some(tasks.spawn(async move {
            if let Some(mut before) = before
                && tokio::time::timeout(START_TIMEOUT, &mut before).await.is_err()
            {
                before.abort();
            }
            if let Err(not_sent) = request::deliver(|| request::once(client.get(url.clone()), Answerer::Monitor, &secrets)).await
            {
                tracing::warn!("ping of job `{job}` was not delivered: {}", not_sent.why);
            }
        }))
    }
}

/// Returns the same ID for the start and the end of a run.
fn run_id(run: &Run) -> Uuid {
    let name = format!("{}/{}/{}/{:?}/{}", run.job, run.database, run.started_at, run.id, std::process::id());
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}
