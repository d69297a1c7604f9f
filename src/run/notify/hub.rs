//! Decides who is told of an event, keeps what waits, and sends it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::Event;
use super::late::{Late, in_one};
use super::request::{self, NotSent, Redirects};
use super::service;
use super::together::of_events;
use crate::config::notify::{Notify, On, Target, WEBHOOK};
use crate::ledger::report::Outcome;
use crate::ledger::{Key, Ledger, Waiting};

/// What comes together is one message: it is sent when nothing new has come for this long,
const QUIET: Duration = Duration::from_secs(5);
/// or when the first has waited this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// A process that ends waits this long for others that end with it: timers start many at once.
const QUIET_AT_END: Duration = Duration::from_secs(2);
/// The ledger has this long for each question.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(3);
/// A process remembers so many of its own messages.
const OWN_MOST: usize = 1000;
const POLL: Duration = Duration::from_millis(250);
/// The pause before the second try; it doubles for each further one, up to an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

pub struct Hub {
    /// The receiver of `webhook_url`, which gets a document for each event at once.
    webhook: Option<SecretString>,
    targets: Vec<Target>,
    client: reqwest::Client,
    ca_file: Option<PathBuf>,
    ledger: Option<Arc<Ledger>>,
    tasks: TaskTracker,
    /// What this process put into the ledger.
    put: Mutex<Vec<i64>>,
    /// What waits here, each for the named place, since the ledger did not take it.
    kept: Mutex<Vec<(String, Event)>>,
    is_delivering: AtomicBool,
    /// Cancelled at the end of the process.
    closing: CancellationToken,
}

/// A message of a place: what it says, and the rows of the ledger that it is made of.
struct Batch {
    target: String,
    events: Vec<Event>,
    ids: Vec<i64>,
    attempts: i32,
}

impl Hub {
    pub fn new(notify: &Notify, ledger: Option<Arc<Ledger>>, tasks: TaskTracker) -> Option<Self> {
        if notify.webhook_url.is_none() && notify.targets.is_empty() {
            return None;
        }
        Some(Self {
            webhook: notify.webhook_url.clone(),
            targets: notify.targets.clone(),
            client: request::client(notify.ca_file.as_deref(), Redirects::RepeatsAlone)?,
            ca_file: notify.ca_file.clone(),
            ledger,
            tasks,
            put: Mutex::default(),
            kept: Mutex::default(),
            is_delivering: AtomicBool::new(false),
            closing: CancellationToken::new(),
        })
    }

    /// Tells the end of a run, or of a command on behalf of a job: that is no success of the job.
    pub async fn ended(self: &Arc<Self>, names: Option<&[String]>, is_command: bool, mut event: Event) {
        let has_succeeded = event.outcome == Some(Outcome::Succeeded);
        if is_command && has_succeeded {
            return;
        }
        let failed_before = has_succeeded && self.webhook.is_some() && self.failed_before(&event).await;
        event.is_recovery = match (&self.ledger, has_succeeded) {
            _ if is_command => false,
            (Some(ledger), true) => asked(ledger.told_well(&[event.key()])).await.is_some_and(|was_told| !was_told.is_empty()),
            (Some(ledger), false) => {
                asked(ledger.told_failed(&event.job, &event.database)).await;
                false
            }
            (None, _) => false,
        };
        self.tell(names, &event).await;
        // This receiver also hears that a later attempt succeeded.
        event.is_recovery |= failed_before;
        if !has_succeeded || event.is_recovery {
            self.post_document(names, &event);
        }
    }

    /// Tells which jobs are late, and which are not any more, each once.
    pub async fn late(self: &Arc<Self>, late: Vec<Late>, all: &[Late]) -> Result<()> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let keys: Vec<(Key, DateTime<Utc>)> = late.iter().filter_map(|late| Some((late.key.clone(), late.due_at?))).collect();
        let news: HashSet<Key> =
            if keys.is_empty() { HashSet::new() } else { ledger.told_late(&keys).await?.into_iter().collect() };
        let new = late.into_iter().filter(|late| news.contains(&late.key)).collect();
        for late in in_one(new) {
            let Some(due_at) = late.due_at else { continue };
            let event = Event::late(&late.key.0, &late.key.1, due_at, late.last_success_at);
            self.tell(late.notify.as_deref(), &event).await;
            self.post_document(late.notify.as_deref(), &event);
        }
        for late in in_one(not_late_any_more(ledger, all).await?) {
            let Some(at) = late.last_success_at else { continue };
            let event = Event::in_time_again(&late.key.0, &late.key.1, at);
            self.tell(late.notify.as_deref(), &event).await;
            self.post_document(late.notify.as_deref(), &event);
        }
        Ok(())
    }

    /// Puts the event into the queue of each place that wants it.
    async fn tell(self: &Arc<Self>, names: Option<&[String]>, event: &Event) {
        let is_named = |target: &&Target| names.is_none_or(|names| names.contains(&target.name));
        let wanted = self.targets.iter().filter(is_named).filter(|target| event.is_for(&target.on));
        let names: Vec<&str> = wanted.map(|target| target.name.as_str()).collect();
        if names.is_empty() {
            return;
        }
        if let (Some(ledger), Ok(value)) = (&self.ledger, serde_json::to_value(event))
            && let Some(ids) = asked(ledger.put_message(&names, &value)).await
        {
            let mut put = lock(&self.put);
            put.extend(ids);
            // Those before were sent long ago.
            let old = put.len().saturating_sub(OWN_MOST);
            put.drain(..old);
            return;
        }
        self.keep(&names, event);
    }

    /// Keeps an event in this process. The first one starts the wait for more.
    fn keep(self: &Arc<Self>, names: &[&str], event: &Event) {
        let mut kept = lock(&self.kept);
        let is_first = kept.is_empty();
        kept.extend(names.iter().map(|name| ((*name).to_owned(), event.clone())));
        drop(kept);
        if is_first {
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(QUIET) => {}
                    () = this.closing.cancelled() => {}
                }
                this.deliver_kept().await;
            });
        }
    }

    async fn deliver_kept(&self) {
        let mut by_target: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for (target, event) in lock(&self.kept).drain(..) {
            by_target.entry(target).or_default().push(event);
        }
        let batches = by_target.into_iter().map(|(target, events)| Batch { target, events, ids: Vec::new(), attempts: 1 });
        join_all(batches.map(|batch| self.send(batch))).await;
    }

    pub fn close(&self) {
        self.closing.cancel();
    }

    pub fn deliver_in_background(self: &Arc<Self>) {
        if self.targets.is_empty() || self.is_delivering.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            this.deliver(QUIET).await;
            this.is_delivering.store(false, Ordering::SeqCst);
        });
    }

    /// Sends what this process has put into the ledger, or waits until another process has taken it.
    pub async fn deliver_own(&self) {
        let own = lock(&self.put).clone();
        let Some(ledger) = self.ledger.as_ref().filter(|_| !own.is_empty()) else { return };
        loop {
            if asked(ledger.is_untried(&own)).await != Some(true) {
                return;
            }
            self.deliver(QUIET_AT_END).await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends what waits in the ledger.
    async fn deliver(&self, quiet: Duration) {
        let Some(ledger) = &self.ledger else { return };
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        let Some(taken) = asked(ledger.take_messages(&names, quiet, PATIENCE)).await else { return };
        join_all(batches(taken).into_iter().map(|batch| self.send(batch))).await;
    }

    async fn send(&self, batch: Batch) {
        let Some(target) = self.targets.iter().find(|target| target.name == batch.target) else { return };
        let message = match batch.events.as_slice() {
            [Event { digest: Some(digest), .. }] => digest.clone(),
            events => of_events(events),
        };
        let ca_file = self.ca_file.as_deref();
        let sent = request::deliver(|| service::send(&self.client, ca_file, &target.service, &message, &batch.events)).await;
        match sent {
            Ok(answer) => {
                tracing::debug!("message to `{}`: {answer}", target.name);
                if let Some(ledger) = self.ledger.as_ref().filter(|_| !batch.ids.is_empty()) {
                    asked(ledger.messages_sent(&batch.ids)).await;
                }
            }
            Err(not_sent) => self.failed(&batch, &not_sent).await,
        }
    }

    /// Says that a message has not arrived: in the log, in the ledger, and as a warning of the runs that it is about.
    async fn failed(&self, batch: &Batch, not_sent: &NotSent) {
        let warning = format!("the message to `{}` was not delivered: {}", batch.target, not_sent.why);
        let Some(ledger) = self.ledger.as_ref().filter(|_| !batch.ids.is_empty()) else {
            return tracing::warn!("{warning}");
        };
        let pause = pause_after(batch.attempts).max(not_sent.not_before.unwrap_or_default());
        tracing::warn!("{warning}; it waits in the ledger for the next try");
        let is_first = batch.attempts <= 1;
        let runs: Vec<i64> = batch.events.iter().filter(|_| is_first).filter_map(|event| event.run).collect();
        asked(ledger.messages_failed(&batch.ids, &runs, &not_sent.why, pause, &warning)).await;
    }

    /// Posts the document of an event to `webhook_url`, in the background.
    fn post_document(self: &Arc<Self>, names: Option<&[String]>, event: &Event) {
        let is_named = names.is_none_or(|names| names.iter().any(|name| name == WEBHOOK));
        let Some(url) = self.webhook.clone().filter(|_| is_named) else { return };
        let (this, document) = (Arc::clone(self), event.document());
        self.tasks.spawn(async move {
            let secrets = url::Url::parse(url.expose_secret()).map(|url| service::secrets_of(&url)).unwrap_or_default();
            let post = || request::once(this.client.post(url.expose_secret()).json(&document), &secrets);
            if let Err(not_sent) = request::deliver(post).await {
                tracing::warn!("webhook was not delivered: {}", not_sent.why);
            }
        });
    }

    async fn failed_before(&self, event: &Event) -> bool {
        let (Some(ledger), Some(id)) = (&self.ledger, event.run) else { return false };
        let previous = asked(ledger.previous(id)).await.flatten();
        previous.and_then(|row| row.outcome.0).is_some_and(Outcome::needs_attention)
    }
}

/// Returns those of which was told that they are late, and that have succeeded since; no other process will say that of them.
async fn not_late_any_more(ledger: &Ledger, all: &[Late]) -> Result<Vec<Late>> {
    let of_all: HashMap<&Key, &Late> = all.iter().map(|late| (&late.key, late)).collect();
    let told = ledger.all_told_late().await?.into_iter().map(|(job, database, _)| (job, database));
    let well: Vec<Key> = told.filter(|key| of_all.get(key).is_some_and(|now| now.due_at.is_none())).collect();
    if well.is_empty() {
        return Ok(Vec::new());
    }
    // A job that was disabled or has another schedule is not late any more, and has not recovered.
    let has_recovered = |(job, database, since): (String, String, Option<DateTime<Utc>>)| {
        let now = *of_all.get(&(job, database))?;
        (now.last_success_at? >= since?).then(|| now.clone())
    };
    Ok(ledger.told_well(&well).await?.into_iter().filter_map(has_recovered).collect())
}

/// Makes one batch for each place, and one for each digest.
fn batches(taken: Vec<Waiting>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for Waiting { id, target, event, attempts } in taken {
        // A row that another program wrote must not hold up the others.
        let event: Event = serde_json::from_value(event.0).unwrap_or_default();
        let is_digest = event.on() == On::Digest;
        let of_target = |batch: &&mut Batch| batch.target == target && batch.events.iter().all(|event| event.on() != On::Digest);
        match batches.iter_mut().find(of_target).filter(|_| !is_digest) {
            Some(batch) => {
                batch.events.push(event);
                batch.ids.push(id);
                // The newest decides: what failed before waits no longer for it than a minute.
                batch.attempts = batch.attempts.min(attempts);
            }
            None => batches.push(Batch { target, events: vec![event], ids: vec![id], attempts }),
        }
    }
    batches
}

fn pause_after(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or_default().min(10);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// Waits a short time for the ledger: telling holds nobody up, and what fails here is only said.
async fn asked<T>(asking: impl Future<Output = Result<T>>) -> Option<T> {
    let answered = tokio::time::timeout(LEDGER_TIMEOUT, asking).await;
    let answered = answered.unwrap_or_else(|_| Err(anyhow::anyhow!("the ledger did not answer in time")));
    answered.inspect_err(|error| tracing::warn!("messages: {error:#}")).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use sqlx::types::Json;

    use super::*;
    use crate::run::notify::message::Message;

    #[test]
    fn each_place_gets_one_message_and_each_digest_is_one() {
        let waiting = |id, target: &str, event: &Event| Waiting {
            id,
            target: target.to_owned(),
            event: Json(serde_json::to_value(event).unwrap()),
            attempts: 1,
        };
        let failed = Event { outcome: Some(Outcome::Failed), ..Event::default() };
        let digest = Event::of_digest(Message::default());
        let taken = vec![
            waiting(1, "ops", &failed),
            waiting(2, "dba", &failed),
            waiting(3, "ops", &digest),
            waiting(4, "ops", &failed),
            Waiting { event: Json(serde_json::json!(7)), ..waiting(5, "dba", &failed) },
        ];
        let made: Vec<(String, Vec<i64>)> = batches(taken).into_iter().map(|batch| (batch.target, batch.ids)).collect();
        let expected = [("ops", vec![1, 4]), ("dba", vec![2, 5]), ("ops", vec![3])];
        assert_eq!(made, expected.map(|(target, ids)| (target.to_owned(), ids)));
    }

    #[test]
    fn pauses_double_up_to_an_hour() {
        let pauses = [0, 1, 2, 3, 7, 30, i32::MAX].map(|attempts| pause_after(attempts).as_secs());
        assert_eq!(pauses, [60, 60, 120, 240, 3600, 3600, 3600]);
    }
}
