//! How long the stores of a run wait for one of them. A store that keeps to its `max_upload` takes all that it may take: the time in which it waits for that
//! is not counted, until the job's timeout comes near.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::work::RunContext;

/// Others wait for a store no longer than this at once.
const STALLED: Duration = Duration::from_secs(120);

/// Nor longer than this when three quarters of the job's timeout have passed: a store that is slow must not take the good one's time.
const HURRIED: Duration = Duration::from_secs(1);

/// A wait is looked at again no sooner than this.
const SHORTEST: Duration = Duration::from_millis(50);

/// How long the others wait for a store.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    stalled: Duration,
    hurried_from: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { stalled: STALLED, hurried_from: None }
    }
}

impl Patience {
    pub fn of(run: &RunContext<'_>) -> Self {
        let passed = (chrono::Utc::now() - run.now).to_std().unwrap_or_default();
        let left = run.job.timeout.map(|timeout| (timeout / 4 * 3).saturating_sub(passed));
        Self { hurried_from: left.and_then(|left| Instant::now().checked_add(left)), ..Self::default() }
    }

    /// Waits for work of these stores, of each its time of waiting for `max_upload`. None: they have made the others wait for too long.
    pub async fn wait<T>(self, stores: &[&Paced], work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        let (began, before) = (Instant::now(), stores.iter().map(|paced| paced.total()).collect::<Vec<_>>());
        loop {
            let in_pace = stores.iter().zip(&before).map(|(paced, before)| paced.total().saturating_sub(*before)).max();
            let left = self.left(began.elapsed(), in_pace.unwrap_or_default(), Instant::now())?;
            if let Ok(done) = timeout(left.max(SHORTEST), &mut work).await {
                return Some(done);
            }
        }
    }

    /// How much longer the others wait after this time, part of which went to the pace; None: no longer. Pure.
    fn left(self, waited: Duration, in_pace: Duration, now: Instant) -> Option<Duration> {
        let until_hurried = self.hurried_from.map(|from| from.saturating_duration_since(now));
        let left = match until_hurried {
            Some(Duration::ZERO) => HURRIED.checked_sub(waited),
            Some(until) => self.stalled.checked_sub(waited.saturating_sub(in_pace)).map(|left| left.min(until)),
            None => self.stalled.checked_sub(waited.saturating_sub(in_pace)),
        };
        left.filter(|left| !left.is_zero())
    }
}

/// The time in which an upload has waited for `max_upload` of its store.
#[derive(Clone, Debug, Default)]
pub struct Paced(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    before: Duration,
    since: Option<Instant>,
}

impl Paced {
    /// Counts the time that `waiting` takes.
    pub async fn count(&self, waiting: impl Future<Output = ()>) {
        let _ends = Ends(self);
        self.change(|times| times.since = Some(Instant::now()));
        waiting.await;
    }

    fn total(&self) -> Duration {
        self.change(|times| times.before + times.since.map(|since| since.elapsed()).unwrap_or_default())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Times) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A wait may also be given up.
struct Ends<'a>(&'a Paced);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.change(|times| times.before += times.since.take().map(|since| since.elapsed()).unwrap_or_default());
    }
}

impl Patience {
    /// For tests, which cannot wait for minutes.
    #[cfg(test)]
    pub fn short(stalled: Duration) -> Self {
        Self { stalled, hurried_from: None }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn the_time_of_the_pace_is_not_counted_before_the_timeout_is_near() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let patience = |hurried_in: Option<u64>| Patience {
            hurried_from: hurried_in.map(|left| now + seconds(left)),
            ..Patience::default()
        };
        for (hurried_in, waited, in_pace, expected) in [
            (None, 0, 0, Some(120)),
            (None, 100, 0, Some(20)),
            (None, 120, 0, None),
            (None, 4000, 3900, Some(20)),
            (None, 4000, 4000, Some(120)),
            (None, 4000, 3880, None),
            (Some(600), 4000, 4000, Some(120)),
            (Some(30), 4000, 4000, Some(30)),
            (Some(0), 0, 0, Some(1)),
            (Some(0), 10, 10, None),
        ] {
            let left = patience(hurried_in).left(seconds(waited), seconds(in_pace), now);
            assert_eq!(left, expected.map(seconds), "{hurried_in:?} {waited} {in_pace}");
        }
    }

    #[tokio::test]
    async fn a_store_in_its_pace_is_waited_for_and_one_that_does_nothing_is_not() {
        let patience = Patience::short(Duration::from_millis(20));
        let paced = Paced::default();
        let in_pace = paced.count(tokio::time::sleep(Duration::from_millis(400)));
        assert_eq!(patience.wait(&[&paced], in_pace).await, Some(()));
        assert_eq!(patience.wait(&[&paced], pending::<()>()).await, None);
    }
}
