//! `max_upload`: how many bytes a second are written to a store, by all uploads of this process together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::base::units::Rate;

/// Time that was not used counts for later, up to this: a writer that hesitates is not slowed for it.
const CREDIT: Duration = Duration::from_millis(100);

/// An object that is not longer than this is small: markers, verdicts, the manifest of a hundred tables.
const SMALL_BYTES: usize = 32 << 10;

/// The paces of this process, by store and rate: each upload opens its store anew.
static PACES: Mutex<BTreeMap<OfStore, Arc<Pace>>> = Mutex::new(BTreeMap::new());

/// A store's identity, and its bytes per second.
type OfStore = (String, u64);

/// The time at which what was written so far is paid for.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    paid_at: Mutex<Instant>,
}

impl Pace {
    /// Returns the pace of a store; `None` without a limit. `identity` is that of the store.
    pub fn of(identity: &str, max_upload: Option<Rate>) -> Option<Arc<Self>> {
        let Rate(bytes_per_second) = max_upload?;
        let mut paces = PACES.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.entry((identity.to_owned(), bytes_per_second));
        let pace = pace
            .or_insert_with(|| Arc::new(Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::new(Instant::now()) }));
        Some(Arc::clone(pace))
    }

    /// Waits until what was written before is paid for, and books these bytes.
    pub async fn wait(&self, bytes: usize) {
        tokio::time::sleep_until(self.book(bytes, Instant::now())).await;
    }

    /// Books a whole object, which waits only if it is not small: a marker or a verdict would wait for the dump of another run, and its store would seem not
    /// to answer.
    pub async fn wait_with_whole(&self, bytes: usize) {
        let may_be_written_at = self.book(bytes, Instant::now());
        if bytes > SMALL_BYTES {
            tokio::time::sleep_until(may_be_written_at).await;
        }
    }

    /// Books bytes, and returns when they may be written.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let starts_at = (*paid_at).max(now.checked_sub(CREDIT).unwrap_or(now));
        *paid_at = starts_at + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        starts_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(bytes_per_second: u64, now: Instant) -> Pace {
        Pace { bytes_per_second, paid_at: Mutex::new(now) }
    }

    #[test]
    fn what_several_write_together_keeps_to_the_rate() {
        let start = Instant::now();
        let pace = pace(1_000_000, start);
        let mut last = start;
        for _ in 0..100 {
            last = pace.book(100_000, start);
        }
        assert_eq!((last - start).as_secs_f64().round(), 10.0, "10 MB at 1 MB/s, of which the last 100 kB are not waited for");
    }

    #[test]
    fn time_that_passes_unused_makes_no_burst() {
        let start = Instant::now();
        let pace = pace(1_000_000, start);
        let later = start + Duration::from_secs(3600);
        let written = (0..100).take_while(|_| pace.book(10_000, later) <= later).count();
        assert_eq!(written, 11, "a tenth of a second's worth, and the one that is booked then");
    }

    #[tokio::test]
    async fn a_small_object_is_booked_and_does_not_wait() {
        let pace = pace(1, Instant::now());
        pace.wait(1_000_000).await;
        pace.wait_with_whole(1000).await;
        assert!(pace.book(1, Instant::now()) > Instant::now() + Duration::from_secs(1_000_900), "what follows waits for it");
    }
}
