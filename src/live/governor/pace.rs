//! Sizes batches to fit in their time, and limits waits for locks so that no other session must wait for us.

use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::pg;
use crate::pg::failure;
use crate::pg::table::with_schema;
use crate::work::RunContext;

/// Returns how long to wait for a lock while holding others: at most half of deadlock_timeout. A client that waits for one of our
/// locks while we wait for one of its own looks for a deadlock after that time, finds it, and fails. We let go first.
pub async fn lock_timeout_for(connection: &mut PgConnection, lock_timeout: Duration) -> Result<Duration> {
    let milliseconds: i64 = sqlx::query_scalar("SELECT setting::bigint FROM pg_settings WHERE name = 'deadlock_timeout'")
        .fetch_one(connection)
        .await?;
    Ok(lock_timeout.min(Duration::from_millis((milliseconds / 2).max(1) as u64)))
}

/// Recognizes lock_not_available and deadlock_detected.
pub fn is_lock_trouble(error: &anyhow::Error) -> bool {
    pg::sql_state(error).is_some_and(|state| matches!(state.as_str(), "55P03" | "40P01"))
}

/// Adds the lock's holder to an error about a lock.
pub async fn with_lock_holders(run: &RunContext<'_>, table: &str, error: anyhow::Error) -> anyhow::Error {
    if !is_lock_trouble(&error) {
        return error;
    }
    let holders = async {
        let mut connection = run.settings.connect().await?;
        let oid: Option<i64> =
            sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint").bind(with_schema(table)).fetch_one(&mut connection).await?;
        pg::lock_holders(&mut connection, &[oid.unwrap_or_default()]).await
    };
    let who = holders.await.ok().filter(|who| !who.is_empty()).unwrap_or_else(|| failure::in_a_line(&error));
    Fault::new(Kind::Deferred, format!("{table} is locked: {who}")).into()
}

/// A batch's size, fitted to a time: it is halved when the batch took twice as long, or when another session waited for it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    size: f64,
    min: f64,
    max: f64,
    /// Smaller batches take hardly less time: their begin and end, and the wait for a processor, stay. A batch only becomes this
    /// small if it took longer than one may, or if a session waited for it.
    enough: f64,
}

impl Pace {
    pub fn new(start: u64, min: u64, max: u64) -> Self {
        Self { size: start as f64, min: min as f64, max: max as f64, enough: min as f64 }
    }

    /// Keeps the size at or above `enough` when only other sessions' load, and no lock of theirs, asks for less.
    pub fn with_enough(self, enough: u64) -> Self {
        Self { enough: (enough as f64).max(self.min), ..self }
    }

    /// Works like [`Pace::took`] when `target` is less than `whole`, the time that a batch may take, to burden others less.
    pub fn took_beside_others(&mut self, elapsed: Duration, target: Duration, whole: Duration, blocked: u64) {
        let before = self.size;
        self.took(elapsed, target, blocked);
        if blocked == 0 && elapsed <= whole {
            self.size = self.size.max(self.enough.min(before * 1.5));
        }
    }

    pub fn size(&self) -> u64 {
        self.size as u64
    }

    pub fn took(&mut self, elapsed: Duration, target: Duration, blocked: u64) {
        let factor = target.as_secs_f64() / elapsed.as_secs_f64().max(0.001);
        let factor = if blocked > 0 { factor.min(0.5) } else { factor };
        self.size = (self.size * factor.clamp(0.25, 1.5)).clamp(self.min, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_others_batches_shrink_to_what_is_enough_and_for_their_locks_and_their_time_to_the_least() {
        let ms = Duration::from_millis;
        let (target, whole) = (ms(2), ms(20));
        let mut pace = Pace::new(64, 1, 1000).with_enough(8);
        for _ in 0..20 {
            pace.took_beside_others(ms(15), target, whole, 0);
        }
        assert_eq!(pace.size(), 8, "a busy machine");
        for _ in 0..20 {
            pace.took_beside_others(ms(30), target, whole, 0);
        }
        assert_eq!(pace.size(), 1, "its own work takes that long");
        for _ in 0..20 {
            pace.took_beside_others(ms(15), target, whole, 0);
        }
        assert_eq!(pace.size(), 8, "no longer");
        pace.took_beside_others(ms(1), target, whole, 2);
        assert_eq!(pace.size(), 4, "another session waited for its locks");
    }

    #[test]
    fn batches_grow_and_shrink_towards_their_time() {
        let target = Duration::from_millis(200);
        let mut pace = Pace::new(1000, 10, 2000);
        pace.took(Duration::from_millis(100), target, 0);
        assert_eq!(pace.size(), 1500);
        pace.took(Duration::from_millis(1), target, 0);
        assert_eq!(pace.size(), 2000, "no more than the most");
        pace.took(Duration::from_millis(400), target, 0);
        assert_eq!(pace.size(), 1000);
        pace.took(Duration::from_millis(200), target, 3);
        assert_eq!(pace.size(), 500, "another session waited");
        for _ in 0..20 {
            pace.took(Duration::from_secs(10), target, 0);
        }
        assert_eq!(pace.size(), 10, "no less than the least");
    }
}
