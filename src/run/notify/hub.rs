//! Decides who is told of an event, and keeps what waits: in the ledger, or here while that is away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::Answerer;
use super::delivery::{Batch, Delivery, asked};
use super::event::Event;
use super::late::{Late, in_one};
use super::left::Left;
use super::request::{self, Redirects};
use super::secrets::Secrets;
use crate::config::Config;
use crate::config::notify::WEBHOOK;
use crate::ledger::report::Outcome;
use crate::ledger::{self, Key, Ledger};

/// What comes together is one message: it is sent when nothing new has come for this long.
const QUIET: Duration = Duration::from_secs(5);
/// A process that ends waits this long for others that end with it: timers start many at once.
const QUIET_AT_END: Duration = Duration::from_secs(2);
/// A process remembers so many of its own messages, and keeps so many that the ledger did not take.
const OWN_MOST: usize = 1000;
const POLL: Duration = Duration::from_millis(250);
/// What the ledger did not take is tried this often: with these pauses, for most of a day.
const KEPT_TRIES: u32 = 100;
const KEPT_FIRST_PAUSE: Duration = Duration::from_secs(15);
const KEPT_LONGEST_PAUSE: Duration = Duration::from_secs(600);

pub struct Hub {
    /// The receiver of `webhook_url`, which gets a document for each event at once.
    webhook: Option<SecretString>,
    delivery: Delivery,
    tasks: TaskTracker,
    /// What this process put into the ledger.
    put: Mutex<Vec<i64>>,
    kept: Mutex<Kept>,
    /// What processes left that ended while the ledger was away; None without one.
    left: Option<Left>,
    /// The jobs whose failure was told while the ledger was away.
    told_here: Mutex<HashSet<Key>>,
    /// A process that ended no run has nothing to do with what others left.
    has_ended_a_run: AtomicBool,
    is_delivering: AtomicBool,
    /// Cancelled at the end of the process.
    closing: CancellationToken,
}

/// What waits here, each for the named place, since the ledger did not take it.
#[derive(Default)]
struct Kept {
    waiting: Vec<(String, Event)>,
    is_tended: bool,
}

impl Hub {
    pub fn new(config: &Config, ledger: Option<Arc<Ledger>>, tasks: TaskTracker) -> Option<Self> {
        let notify = &config.notify;
        if notify.webhook_url.is_none() && notify.targets.is_empty() {
            return None;
        }
        Some(Self {
            webhook: notify.webhook_url.clone(),
            left: ledger.is_some().then(|| Left::of(&config.path)).flatten(),
            delivery: Delivery {
                targets: notify.targets.clone(),
                client: request::client(notify.ca_file.as_deref(), Redirects::RepeatsAlone)?,
                ca_file: notify.ca_file.clone(),
                ledger,
                giving_up: CancellationToken::new(),
            },
            tasks,
            put: Mutex::default(),
            kept: Mutex::default(),
            told_here: Mutex::default(),
            has_ended_a_run: AtomicBool::new(false),
            is_delivering: AtomicBool::new(false),
            closing: CancellationToken::new(),
        })
    }

    /// Tells the end of a run, or of a command on behalf of a job: that is no success of the job.
    pub async fn ended(self: &Arc<Self>, names: Option<&[String]>, is_command: bool, mut event: Event) {
        self.has_ended_a_run.store(true, Ordering::Relaxed);
        self.put_left().await;
        let has_succeeded = event.outcome == Some(Outcome::Succeeded);
        if is_command && has_succeeded {
            return;
        }
        let failed_before = has_succeeded && self.webhook.is_some() && self.failed_before(&event).await;
        event.is_recovery = !is_command && self.stands_well(&event.key(), has_succeeded).await;
        self.tell(names, &event).await;
        // This receiver also hears that a later attempt succeeded.
        event.is_recovery |= failed_before;
        if !has_succeeded || event.is_recovery {
            self.post_document(names, &event);
        }
    }

    /// Tells the end of a run whose next attempt does not come, unless that was told.
    pub async fn given_up(self: &Arc<Self>, names: Option<&[String]>, event: Event) {
        let is_news = match (self.ledger(), event.run) {
            (Some(ledger), Some(run)) => {
                let is_first = asked(ledger.told_failed(&event.job, &event.database)).await.unwrap_or(true);
                // Of documents alone, nothing is in the queue.
                if self.delivery.targets.is_empty() { is_first } else { asked(ledger.has_message_of(run)).await != Some(true) }
            }
            _ => true,
        };
        if is_news {
            self.tell(names, &event).await;
            self.post_document(names, &event);
        }
    }

    /// Tells of jobs whose files have mistakes, and of those of `known` that have none any more, each once for each host: hosts may have other files.
    pub async fn broken(self: &Arc<Self>, broken: Vec<Event>, known: &[&str]) {
        let Some(ledger) = self.ledger() else { return };
        // No database has such a name.
        let here = format!("@{}", ledger::host());
        let Some(told) = asked(ledger.told_on(&here)).await else { return };
        for event in broken.iter().filter(|event| !told.contains(&event.job)) {
            if asked(ledger.told_failed(&event.job, &here)).await == Some(true) {
                self.tell(None, event).await;
                self.post_document(None, event);
            }
        }
        let is_mended = |job: &&String| known.contains(&job.as_str()) && broken.iter().all(|event| event.job != **job);
        for job in told.iter().filter(is_mended) {
            if asked(ledger.told_well(&[(job.clone(), here.clone())])).await.is_some_and(|told| !told.is_empty()) {
                let event = Event::of_mended_file(job);
                self.tell(None, &event).await;
                self.post_document(None, &event);
            }
        }
    }

    /// Notes how a job stands by what is told. Returns whether something else was told before that is over now.
    async fn stands_well(&self, key: &Key, has_succeeded: bool) -> bool {
        let Some(ledger) = self.ledger() else { return false };
        if has_succeeded {
            let was_told_here = lock(&self.told_here).remove(key);
            let told = asked(ledger.told_well(std::slice::from_ref(key))).await.unwrap_or_default();
            return was_told_here || !told.is_empty();
        }
        if asked(ledger.told_failed(&key.0, &key.1)).await.is_none() {
            lock(&self.told_here).insert(key.clone());
        }
        false
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.delivery.ledger.as_ref()
    }

    /// Tells which jobs are late, and which are not any more, each once.
    pub async fn late(self: &Arc<Self>, late: Vec<Late>, all: &[Late]) -> Result<()> {
        let Some(ledger) = self.ledger() else { return Ok(()) };
        let keys: Vec<(Key, DateTime<Utc>)> = late.iter().filter_map(|late| Some((late.key.clone(), late.due_at?))).collect();
        let news: HashSet<Key> =
            if keys.is_empty() { HashSet::new() } else { ledger.told_late(&keys).await?.into_iter().collect() };
        let new = late.into_iter().filter(|late| news.contains(&late.key)).collect();
        for late in in_one(new) {
            let Some(due_at) = late.due_at else { continue };
            let event = Event::late(&late.key.0, &late.key.1, due_at, late.last_success_at, late.why.as_deref());
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
        let named = self.delivery.targets.iter().filter(|target| names.is_none_or(|names| names.contains(&target.name)));
        let wanted = named.filter(|target| event.is_for(&target.on));
        let names: Vec<&str> = wanted.map(|target| target.name.as_str()).collect();
        if names.is_empty() {
            return;
        }
        if let (Some(ledger), Ok(value)) = (self.ledger(), serde_json::to_value(event))
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

    /// Keeps an event in this process, until the ledger or its place takes it.
    fn keep(self: &Arc<Self>, names: &[&str], event: &Event) {
        let mut kept = lock(&self.kept);
        kept.waiting.extend(names.iter().map(|name| ((*name).to_owned(), event.clone())));
        let too_many = kept.waiting.len().saturating_sub(OWN_MOST);
        for (target, event) in kept.waiting.drain(..too_many) {
            say_untold(&target, &event);
        }
        if !std::mem::replace(&mut kept.is_tended, true) {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.tend_kept().await });
        }
    }

    /// Tries to get rid of what is kept, a bounded number of times. At the end of the process there is one more try.
    async fn tend_kept(&self) {
        for tries in 0..KEPT_TRIES {
            let pause = if tries == 0 { QUIET } else { KEPT_FIRST_PAUSE * (1 << (tries - 1).min(10)) };
            tokio::select! {
                () = tokio::time::sleep(pause.min(KEPT_LONGEST_PAUSE)) => {}
                () = self.closing.cancelled() => {}
            }
            let is_last = self.closing.is_cancelled();
            let waiting = std::mem::take(&mut lock(&self.kept).waiting);
            let left = self.deliver_kept(waiting, tries > 0).await;
            let mut kept = lock(&self.kept);
            kept.waiting.splice(0..0, left);
            if kept.waiting.is_empty() {
                kept.is_tended = false;
                return;
            }
            if is_last {
                break;
            }
        }
        let mut kept = lock(&self.kept);
        kept.is_tended = false;
        self.leave(&std::mem::take(&mut kept.waiting));
    }

    /// Says of events that nobody was told, and leaves them for a later process.
    fn leave(&self, events: &[(String, Event)]) {
        for (target, event) in events {
            say_untold(target, event);
        }
        let left = self.left.as_ref().filter(|_| !events.is_empty()).map(|left| left.leave(events));
        match left {
            Some(Ok(file)) => tracing::warn!("the next run that reaches the ledger passes it on, from {}", file.display()),
            Some(Err(error)) => tracing::warn!("it is not kept for later: {error:#}"),
            None => {}
        }
    }

    /// Puts into the ledger what earlier processes left. What is put when this process is killed is told twice, and nothing never.
    async fn put_left(&self) {
        let Some(taking) = self.left.as_ref().and_then(Left::take) else { return };
        for (file, events) in taking.all() {
            for (target, event) in &events {
                if !self.is_put(target, event).await {
                    return;
                }
                if event.outcome.is_some_and(Outcome::needs_attention) {
                    self.stands_well(&event.key(), false).await;
                }
            }
            if let Err(error) = std::fs::remove_file(&file) {
                return tracing::warn!("{} is passed on, and cannot be deleted: {error}", file.display());
            }
        }
    }

    /// Sends what was kept, or puts it into the ledger if that is back. Returns the rest.
    async fn deliver_kept(&self, waiting: Vec<(String, Event)>, asks_ledger: bool) -> Vec<(String, Event)> {
        let mut by_target: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for (target, event) in waiting {
            by_target.entry(target).or_default().push(event);
        }
        let each = by_target.into_iter().map(|(target, events)| self.deliver_kept_of(target, events, asks_ledger));
        join_all(each).await.into_iter().flatten().collect()
    }

    async fn deliver_kept_of(&self, target: String, events: Vec<Event>, asks_ledger: bool) -> Vec<(String, Event)> {
        let mut left = Vec::new();
        for event in events {
            if !(asks_ledger && self.is_put(&target, &event).await) {
                left.push(event);
            }
        }
        let batch = Batch { target, events: left, rows: Vec::new() };
        if batch.events.is_empty() || self.delivery.send(&batch).await.is_none() {
            return Vec::new();
        }
        batch.events.into_iter().map(|event| (batch.target.clone(), event)).collect()
    }

    /// Puts an event that was kept into the ledger. Returns whether it is there now.
    async fn is_put(&self, target: &str, event: &Event) -> bool {
        let (Some(ledger), Ok(value)) = (self.ledger(), serde_json::to_value(event)) else { return false };
        let ids = asked(ledger.put_message(&[target], &value)).await;
        let is_put = ids.is_some();
        lock(&self.put).extend(ids.unwrap_or_default());
        is_put
    }

    /// The process ends: what waits for more waits no longer.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// The process waits no longer: what is under way has not arrived.
    pub fn give_up(&self) {
        self.delivery.giving_up.cancel();
    }

    pub fn deliver_in_background(self: &Arc<Self>) {
        if self.delivery.targets.is_empty() || self.is_delivering.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            this.delivery.deliver(QUIET).await;
            this.is_delivering.store(false, Ordering::SeqCst);
        });
    }

    /// Sends what is due in the ledger, also of processes that ended before, and what this process has put there, or waits until another process has
    /// taken that.
    pub async fn deliver_at_end(&self) {
        let own = lock(&self.put).clone();
        let is_needed = !own.is_empty() || self.has_ended_a_run.load(Ordering::Relaxed);
        let Some(ledger) = self.ledger().filter(|_| is_needed && !self.delivery.targets.is_empty()) else { return };
        loop {
            self.delivery.deliver(QUIET_AT_END).await;
            let is_over = own.is_empty() || self.delivery.giving_up.is_cancelled();
            if is_over || asked(ledger.is_untried(&own)).await != Some(true) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Posts the document of an event to `webhook_url`, in the background.
    fn post_document(self: &Arc<Self>, names: Option<&[String]>, event: &Event) {
        let is_named = names.is_none_or(|names| names.iter().any(|name| name == WEBHOOK));
        let Some(url) = self.webhook.clone().filter(|_| is_named) else { return };
        let (this, document) = (Arc::clone(self), event.document());
        self.tasks.spawn(async move {
            let secrets = Secrets::of_url(&url);
            let post =
                || request::once(this.delivery.client.post(url.expose_secret()).json(&document), Answerer::Webhook, &secrets);
            if let Err(not_sent) = request::deliver(post).await {
                tracing::warn!("webhook was not delivered: {}", not_sent.why);
            }
        });
    }

    async fn failed_before(&self, event: &Event) -> bool {
        let (Some(ledger), Some(id)) = (self.ledger(), event.run) else { return false };
        let previous = asked(ledger.previous(id)).await.flatten();
        previous.and_then(|row| row.outcome.0).is_some_and(Outcome::needs_attention)
    }
}

/// Says that nobody was told.
fn say_untold(target: &str, event: &Event) {
    tracing::error!("nobody was told: neither `{target}` nor the ledger took the message: {}", event.in_words());
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
