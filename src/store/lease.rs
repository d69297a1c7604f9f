//! A lock object in a store: a process that deletes there holds it as a lease. It is JSON that names its holder, is renewed each
//! minute, and is taken over when its holder is gone. Only time separates two holders, so for both to act, one must have ignored
//! [`LIMITS`] for long: a holder doubts itself after 5 minutes, another process waits for 15.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::object::{Precondition, Version};
use super::{Store, sign};
use crate::base::fault::{Fault, Kind};
use crate::base::process_identity::ProcessIdentity;
use crate::base::subtask;

/// The time limits of a lease.
struct LeaseLimits {
    /// The interval at which a holder renews it.
    renew_every: Duration,
    /// The pause after a failed renewal.
    try_again_after: Duration,
    /// A holder that could not renew for this long is no longer sure that it holds the lease.
    doubt_after: Duration,
    /// If the lease stays unchanged during this wait of our own, its holder is gone.
    take_after_waiting: Duration,
    /// If the lease was not renewed for this long by the store's clock, its holder is gone. For processes that never wait; no clock is off by so much.
    take_after_by_store: TimeDelta,
}

const LIMITS: LeaseLimits = LeaseLimits {
    renew_every: Duration::from_secs(60),
    try_again_after: Duration::from_secs(10),
    doubt_after: Duration::from_secs(5 * 60),
    take_after_waiting: Duration::from_secs(15 * 60),
    take_after_by_store: TimeDelta::days(1),
};

/// The suffix of the object beside a lease that is written to see the store's clock.
pub const CLOCK: &str = ".now";

/// Others may take and release the lease meanwhile.
const ATTEMPTS: u32 = 3;

/// A lease, held until it is released, or until it was not renewed for too long. A task renews it each minute; the task ends with
/// the lease.
pub struct Lease {
    held: Arc<Held>,
    renewing: JoinHandle<()>,
}

/// The result of a request for a lease.
pub enum Taken {
    Held(Lease),
    /// Another process holds it; the text says which, and since when.
    HeldByOther(String),
    /// The store cannot hold a lease; the text says why.
    Impossible(String),
}

/// The content of a lease at a moment of this process's own clock: if it is unchanged 15 minutes later, its holder is gone.
#[derive(Clone, Debug)]
pub struct Seen {
    version: Version,
    pub at: Instant,
}

/// The content of the object.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Content {
    holder: ProcessIdentity,
    /// Two leases of one process differ by this.
    nonce: String,
    /// This counts up, so that each renewal has another content.
    renewed: u64,
    taken_at: DateTime<Utc>,
    /// True when it has no holder: this is written where deleting is forbidden.
    #[serde(default)]
    released: bool,
}

/// Asks for the lease `key`. `seen` is the result of an earlier [`look`] of this process. Errors are those of the store.
pub async fn take(store: &Store, key: &str, seen: Option<&Seen>) -> Result<Taken> {
    if !store.can_put_if().await? {
        return Ok(Taken::Impossible(format!(
            "{} ignores conditions of writes (If-None-Match, If-Match), so a lock in it excludes no one: \
             configure a [ledger], which has locks of its own",
            store.location("")
        )));
    }
    let mut holder = String::new();
    for _ in 0..ATTEMPTS {
        let ours = Content {
            holder: ProcessIdentity::own(),
            nonce: Uuid::new_v4().to_string(),
            renewed: 0,
            taken_at: Utc::now(),
            released: false,
        };
        if let Some(version) = store.put_if(key, ours.written(store, key)?, Precondition::Absent).await? {
            return Ok(Taken::Held(Lease::held(store, key, ours, version)));
        }
        let Some((there, version)) = store.get_versioned(key).await? else { continue };
        let there = Content::read(store, key, &there);
        holder = who(there.as_ref());
        let waited = seen.filter(|seen| seen.version == version).map(|seen| seen.at.elapsed());
        let mut reason = may_take(there.as_ref(), waited, None, &LIMITS);
        if reason.is_none() {
            reason = may_take(there.as_ref(), waited, age_by_store(store, key).await?, &LIMITS);
        }
        let Some(reason) = reason else { return Ok(Taken::HeldByOther(holder)) };
        if let Some(version) = store.put_if(key, ours.written(store, key)?, Precondition::Unchanged(&version)).await? {
            if !there.is_some_and(|there| there.released) {
                tracing::warn!("took over {} from {holder}: {reason}", store.location(key));
            }
            return Ok(Taken::Held(Lease::held(store, key, ours, version)));
        }
    }
    Ok(Taken::HeldByOther(if holder.is_empty() { "a process that has just released it".to_owned() } else { holder }))
}

/// Returns the present content of the lease; `None` when it has no holder.
pub async fn look(store: &Store, key: &str) -> Result<Option<Seen>> {
    let at = Instant::now();
    let there = store.get_versioned(key).await?;
    let held = there.filter(|(content, _)| !Content::read(store, key, content).is_some_and(|content| content.released));
    Ok(held.map(|(_, version)| Seen { version, at }))
}

/// Returns why a lease may be taken from its holder; `None` when it may not. `there` is `None` for a content that is not a lease.
fn may_take(
    there: Option<&Content>,
    unchanged_while_we_waited: Option<Duration>,
    age_by_store: Option<TimeDelta>,
    limits: &LeaseLimits,
) -> Option<&'static str> {
    if there.is_some_and(|there| there.released) {
        return Some("it was released");
    }
    if there.is_some_and(|there| there.holder.is_known_dead()) {
        return Some("its process has ended");
    }
    if unchanged_while_we_waited.is_some_and(|waited| waited >= limits.take_after_waiting) {
        return Some("it was not renewed for 15 minutes");
    }
    if age_by_store.is_some_and(|age| age > limits.take_after_by_store) {
        return Some("it was not renewed for a day, by the store's clock");
    }
    None
}

/// Returns how long ago the object was written. Both times are the store's: an object written just now shows its clock.
async fn age_by_store(store: &Store, key: &str) -> Result<Option<TimeDelta>> {
    let clock = format!("{key}{CLOCK}");
    store.put(&clock, Vec::new()).await?;
    let now = store.stat(&clock).await?.and_then(|now| now.modified_at);
    if let Err(error) = store.delete(&clock).await {
        tracing::debug!("cannot delete an empty object: {error:#}");
    }
    let written = store.stat(key).await?.and_then(|lease| lease.modified_at);
    Ok(now.zip(written).map(|(now, written)| now - written))
}

fn who(content: Option<&Content>) -> String {
    match content {
        Some(content) => format!("{} since {}", content.holder, content.taken_at.format("%Y-%m-%d %H:%M UTC")),
        None => "an unknown process: the object is not a lease of this program, or not signed with the store's key".to_owned(),
    }
}

impl Content {
    fn written(&self, store: &Store, key: &str) -> Result<Vec<u8>> {
        store.to_json(key, self)
    }

    /// Returns `None` for a content that is not a lease, or not signed with the store's key: it could claim that it has no
    /// holder, or that its process has ended, so only its not changing counts.
    fn read(store: &Store, key: &str, content: &[u8]) -> Option<Self> {
        let read = serde_json::from_slice(content).ok()?;
        let signature = store.signature(key, sign::without_end(content)).ok()?;
        signature.is_ours().then_some(read)
    }
}

/// The state that the lease and its renewing task share.
struct Held {
    store: Store,
    key: String,
    /// Locked for a renewal's whole length, so that there is one at a time.
    current: tokio::sync::Mutex<(Content, Version)>,
    state: Mutex<State>,
}

struct State {
    renewed: Moment,
    /// The reason why it is no longer ours, for good.
    lost: Option<String>,
    /// The error of the last failed renewal.
    trouble: Option<String>,
}

impl Lease {
    fn held(store: &Store, key: &str, content: Content, version: Version) -> Self {
        let held = Arc::new(Held {
            store: store.clone(),
            key: key.to_owned(),
            current: tokio::sync::Mutex::new((content, version)),
            state: Mutex::new(State { renewed: Moment::now(), lost: None, trouble: None }),
        });
        let renewed = Arc::clone(&held);
        let renewing = subtask::spawn_in_span(async move {
            loop {
                let is_well = renewed.lock().trouble.is_none();
                tokio::time::sleep(if is_well { LIMITS.renew_every } else { LIMITS.try_again_after }).await;
                renewed.renew().await;
            }
        });
        Self { held, renewing }
    }

    /// Returns an error of [`Kind::Busy`] when it is no longer certain that it is ours. It must be called before each action that
    /// is only for the holder.
    pub fn check(&self) -> Result<()> {
        let state = self.held.lock();
        let location = self.held.store.location(&self.held.key);
        if let Some(lost) = &state.lost {
            return Err(Fault::new(Kind::Busy, format!("the lock {location} is no longer ours: {lost}")).into());
        }
        if state.renewed.elapsed() >= LIMITS.doubt_after {
            let trouble = state.trouble.as_deref().unwrap_or("this process was stopped, or its clock was set");
            let message = format!("the lock {location} could not be renewed for 5 minutes: {trouble}");
            return Err(Fault::new(Kind::Busy, message).into());
        }
        Ok(())
    }

    /// Does the same as [`Lease::check`], after the store has confirmed that the object is still the one that we wrote: anyone who can
    /// write there may put an old one of ours in its place, with a valid signature, and so let another process take it.
    pub async fn prove(&self) -> Result<()> {
        if self.held.store.has_sign_key() {
            self.held.renew().await;
        }
        self.check()
    }

    /// Renews it now; the task does that each minute anyway. [`Lease::check`] tells the result.
    pub async fn renew(&self) {
        self.held.renew().await;
    }

    /// Releases it. A lease that is no longer ours is left alone.
    pub async fn release(self) -> Result<()> {
        self.renewing.abort();
        // A server that ignores If-Match of DELETE would delete another process's lease, so it is not deleted when there may be
        // another.
        if self.check().is_err() {
            return Ok(());
        }
        let (mut content, version) = self.held.current.lock().await.clone();
        let (store, key) = (&self.held.store, &self.held.key);
        match store.delete_if(key, &version).await {
            Ok(_) => Ok(()),
            Err(refused) => {
                tracing::debug!("cannot delete the lock object: {refused:#}");
                content.released = true;
                let put = store.put_if(key, content.written(store, key)?, Precondition::Unchanged(&version)).await;
                put.with_context(|| format!("cannot release {}", store.location(key))).map(drop)
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Held {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self) {
        if self.lock().lost.is_some() {
            return;
        }
        let mut current = self.current.lock().await;
        // The time is taken before the request: the object is not older than that.
        let started = Moment::now();
        let mut content = current.0.clone();
        content.renewed += 1;
        let written = || content.written(&self.store, &self.key);
        let renewed = async { self.store.put_if(&self.key, written()?, Precondition::Unchanged(&current.1)).await };
        match renewed.await {
            Ok(Some(version)) => {
                *current = (content, version);
                let mut state = self.lock();
                (state.renewed, state.trouble) = (started, None);
            }
            Ok(None) => {
                let there = self.store.get_versioned(&self.key).await;
                let lost = match there {
                    Ok(Some((there, _))) => {
                        format!("it is held by {}", who(Content::read(&self.store, &self.key, &there).as_ref()))
                    }
                    Ok(None) => "it was deleted".to_owned(),
                    Err(_) => "another process wrote it".to_owned(),
                };
                tracing::warn!("{} is no longer ours: {lost}", self.store.location(&self.key));
                self.lock().lost = Some(lost);
            }
            Err(error) => {
                tracing::warn!("cannot renew {}: {error:#}", self.store.location(&self.key));
                self.lock().trouble = Some(format!("{error:#}"));
            }
        }
    }
}

/// A moment by two clocks. One keeps running while the machine sleeps; in a virtual machine that was paused, perhaps only the
/// other shows the lost time, once it is set.
struct Moment {
    boot: Duration,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { boot: boot_time(), wall: SystemTime::now() }
    }

    /// Returns the longer time of the two clocks.
    fn elapsed(&self) -> Duration {
        boot_time().saturating_sub(self.boot).max(self.wall.elapsed().unwrap_or_default())
    }
}

fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_from_who_is_dead_or_was_silent_for_long_enough() {
        let elsewhere = ProcessIdentity { host: "elsewhere".into(), ..ProcessIdentity::default() };
        let dead = ProcessIdentity { start_ticks: "1".into(), ..ProcessIdentity::own() };
        let content = |holder: &ProcessIdentity, released| Content {
            holder: holder.clone(),
            nonce: String::new(),
            renewed: 0,
            taken_at: Utc::now(),
            released,
        };
        let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        let hours = |hours| Some(TimeDelta::hours(hours));
        for (there, waited, age, reason) in [
            (Some(content(&elsewhere, false)), None, None, None),
            (Some(content(&elsewhere, false)), minutes(14), hours(24), None),
            (Some(content(&elsewhere, false)), None, hours(-400), None),
            (Some(content(&ProcessIdentity::own(), false)), minutes(1), hours(1), None),
            (Some(content(&ProcessIdentity::own(), true)), None, None, Some("released")),
            (Some(content(&dead, false)), None, None, Some("ended")),
            (Some(content(&elsewhere, false)), minutes(15), None, Some("15 minutes")),
            (Some(content(&elsewhere, false)), None, hours(25), Some("a day")),
            (None, minutes(14), hours(24), None),
            (None, minutes(15), None, Some("15 minutes")),
        ] {
            let said = may_take(there.as_ref(), waited, age, &LIMITS);
            assert_eq!(said.is_some(), reason.is_some(), "{there:?} {waited:?} {age:?}");
            assert!(said.unwrap_or_default().contains(reason.unwrap_or_default()), "{said:?}");
        }
    }

    #[test]
    fn a_holder_doubts_itself_long_before_another_may_take_over() {
        // The last successful renewal, the requests tried since, and a release: all of it before another process may come.
        assert!(LIMITS.renew_every * 3 < LIMITS.doubt_after);
        assert!(LIMITS.doubt_after * 2 < LIMITS.take_after_waiting);
    }
}
