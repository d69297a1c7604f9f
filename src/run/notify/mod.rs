//! Tells people and monitors how runs went: pings of a job's URL, the JSON of `webhook_url`, and messages to each `[notify.NAME]`. A service that
//! is down never fails or delays a job.
//!
//! An event waits in the ledger, where all processes put theirs, until nothing new has come for some seconds: what happens together is one message
//! (`together`), in the form of each service (`body`). Whoever takes it sends it (`delivery`, by `service`); what cannot be sent waits there for a later
//! try. While the ledger is away, it waits in the process (`hub`), and after its end in a file of this host (`left`).

mod answer;
mod body;
mod delivery;
pub mod event;
mod hub;
mod late;
mod left;
mod mail;
pub mod message;
mod ping;
mod request;
mod secrets;
mod service;
mod together;
pub mod untold;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use event::Event;
use hub::Hub;
pub use late::{Late, in_one};
use message::{Message, Severity};
use ping::Pings;
use request::Redirects;
use tokio_util::task::TaskTracker;

use crate::base::fault;
use crate::config::Config;
use crate::config::notify::{Service, WEBHOOK};
use crate::ledger::report::{Ended, Outcome, Run};
use crate::ledger::{self, Ledger};
use crate::pg::failure;
use crate::run::job::{Broken, Job};

/// The process waits this long at its end for messages under way,
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
/// and this long to record which did not arrive.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends notifications in the background. Cheap to clone.
#[derive(Clone)]
pub struct Notifier {
    pings: Pings,
    hub: Option<Arc<Hub>>,
    /// They put events into the queue, which takes no longer than the ledger.
    telling: TaskTracker,
    /// They send.
    tasks: TaskTracker,
}

impl Notifier {
    /// Creates a client only if there is a URL to notify.
    pub fn new(config: &Config, jobs: &[Job], ledger: Option<&Arc<Ledger>>) -> Self {
        let tasks = TaskTracker::new();
        let hub = Hub::new(config, ledger.cloned(), tasks.clone()).map(Arc::new);
        Self { pings: Pings::new(config, jobs), hub, telling: TaskTracker::new(), tasks }
    }

    /// Reports that the run has its locks and starts to work.
    pub fn started(&self, job: &Job, run: &Run) {
        self.pings.started(&self.tasks, job, run);
    }

    /// Reports the end of a run of this task, or of a command on behalf of the job. A busy run is not an end: the run that has the lock reports its own.
    pub fn ended(&self, job: &Job, task: &str, ended: &Ended) {
        let run = &ended.run;
        let start = self.pings.start_of(run);
        let has_succeeded = run.outcome == Outcome::Succeeded;
        let is_busy =
            run.outcome == Outcome::Skipped && ended.error.as_ref().and_then(failure::kind_of) == Some(fault::Kind::Busy);
        // Another attempt follows, and its end is the run's.
        if is_busy || ended.retry_in.is_some() && !has_succeeded {
            return;
        }
        self.pings.ended(&self.tasks, job, run, has_succeeded, start);
        if let Some(hub) = &self.hub {
            let (hub, event) = (Arc::clone(hub), Event::of_run(run));
            // The tasks of manual commands have a space: "partition convert".
            let is_command = task.contains(' ');
            let names = job.notify.clone();
            self.telling.spawn(async move { hub.ended(names.as_deref(), is_command, event).await });
        }
    }

    /// Reports a run whose next attempt does not come: it ended when it did, and was not told. What was told of its job since is not told again.
    pub async fn given_up(&self, job: &Job, run: &Run) {
        self.pings.ended(&self.tasks, job, run, false, None);
        if let Some(hub) = &self.hub {
            hub.given_up(job.notify.as_deref(), Event::of_run(run)).await;
        }
    }

    /// Reports jobs that cannot run, each with the mistakes of its file, and those that can again; each is told once. `known` are the jobs that can.
    pub async fn broken(&self, broken: &[Broken], known: &[Job]) {
        if let Some(hub) = &self.hub {
            let events = broken.iter().map(|broken| {
                let runs_on = known.iter().any(|job| job.name == broken.job);
                let until = if runs_on { "from the next restart on, as until then it runs as before: " } else { "" };
                Event::of_broken_file(&broken.job, &format!("{until}{}", broken.reasons().join("; ")))
            });
            let known: Vec<&str> = known.iter().map(|job| job.name.as_str()).collect();
            hub.broken(events.collect(), &known).await;
        }
    }

    /// Reports jobs whose last success is older than their schedule allows, and those that are not late any more; each is told once. `all` has those
    /// that are late, too.
    pub async fn late(&self, late: Vec<Late>, all: &[Late]) -> Result<()> {
        match &self.hub {
            Some(hub) => hub.late(late, all).await,
            None => Ok(()),
        }
    }

    /// Sends what waits in the ledger, in the background, unless that is under way.
    pub fn deliver_waiting(&self) {
        if let Some(hub) = &self.hub {
            hub.deliver_in_background();
        }
    }

    /// Waits a limited time for messages under way.
    pub async fn drain(&self) {
        let drained = async {
            if let Some(hub) = &self.hub {
                hub.close();
            }
            self.telling.close();
            self.telling.wait().await;
            self.tasks.close();
            let due = async {
                if let Some(hub) = &self.hub {
                    hub.deliver_at_end().await;
                }
            };
            tokio::join!(self.tasks.wait(), due);
        };
        tokio::pin!(drained);
        if tokio::time::timeout(DRAIN_TIMEOUT, &mut drained).await.is_ok() {
            return;
        }
        if let Some(hub) = &self.hub {
            hub.give_up();
        }
        if tokio::time::timeout(RECORD_TIMEOUT, drained).await.is_err() {
            tracing::warn!("gave up on notifications that were still being sent");
        }
    }
}

/// Sends a test message to a place, once. Returns what it answered; the error says why it did not arrive.
pub async fn test(config: &Config, name: &str) -> Result<String> {
    let lines = ["This is a test message: `pgtend notify test` sent it.".to_owned(), format!("host {}", ledger::host())];
    send_now(config, name, &Message::new("test message of pgtend", Severity::Good, lines)).await
}

/// Sends a message to a place, once and now.
pub async fn send_now(config: &Config, name: &str, message: &Message) -> Result<String> {
    let client = request::client(config.notify.ca_file.as_deref(), Redirects::RepeatsAlone);
    let client = client.ok_or_else(|| anyhow::anyhow!("there is no HTTP client"))?;
    let webhook = config.notify.webhook_url.clone().filter(|_| name == WEBHOOK).map(|url| Service::Webhook { url });
    let target = config.notify.targets.iter().find(|target| target.name == name).map(|target| target.service.clone());
    let service = target.or(webhook).ok_or_else(|| anyhow::anyhow!("the configuration has no [notify.{name}]"))?;
    let sent = service::send(&client, config.notify.ca_file.as_deref(), &service, message, &[]).await;
    sent.map_err(|not_sent| anyhow::anyhow!("the message to `{name}` was not delivered: {}", not_sent.why))
}
