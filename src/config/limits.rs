//! `[limits]`: what a task that touches live tables may ask of the server.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::base::units::{Size, Span};

const MAX_SLOWDOWN: f64 = 2.0;

/// `[limits]` of a job, resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    pub lock_timeout: Span,
    pub statement_timeout: Span,
    pub batch_time: Span,
    pub pause: Option<Span>,
    pub run_for: Option<Span>,
    pub max_wait: Span,
    pub max_replica_lag: Size,
    pub max_slot_lag: Size,
    pub max_archive_backlog: u32,
    pub max_snapshot_age: Option<Span>,
    pub max_active_sessions: Option<u32>,
    /// By how much commits of others may take longer while the run works; 0: that is not looked at.
    pub max_slowdown: f64,
    /// Code that an owner put into the table may run with more rights than the owner has (task/foreign_code.rs).
    pub trust_owners: bool,
}

/// `[limits]` as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Longest wait for a lock on a table; default 2 s. Whoever comes after us in the queue waits as long.
    pub lock_timeout: Option<Span>,
    /// Longest time for one batch; default 30 s.
    pub statement_timeout: Option<Span>,
    /// Batches are made as large as fits in this time; default 20 ms.
    pub batch_time: Option<Span>,
    /// Between batches; default: a quarter of what the last one took.
    pub pause: Option<Span>,
    /// The run stops for now after this time; the next goes on where it stopped. Default none.
    pub run_for: Option<Span>,
    /// It stops for now when it had to wait this long for one thing; default 10 min.
    pub max_wait: Option<Span>,
    /// WAL that a replica has yet to replay; default 256 MiB.
    pub max_replica_lag: Option<Size>,
    /// WAL that a replication slot keeps; default 16 GiB.
    pub max_slot_lag: Option<Size>,
    /// WAL files that wait to be archived; default 64.
    pub max_archive_backlog: Option<u32>,
    /// Waits while a transaction is older than this; default none: it is only reported.
    pub max_snapshot_age: Option<Span>,
    /// Waits while more sessions than these are at work; default none.
    pub max_active_sessions: Option<u32>,
    /// How many times as long as without the run commits of other sessions may take, or 5 ms more where that is more; default 2. Above it,
    /// batches get smaller and rests longer. Measured by commits of its own, while others are at work. 0 turns it off.
    #[schemars(with = "Option<f64>")]
    pub max_slowdown: Option<Spanned<f64>>,
    /// false refuses a table with code of an owner (triggers, rules, CHECKs, expressions of indexes) that would run with more rights than that owner
    /// has; default true: a warning names it.
    pub trust_owners: Option<bool>,
}

impl Written {
    /// Nothing but whether owners are trusted.
    pub fn is_about_trust_alone(&self) -> bool {
        let Self {
            lock_timeout,
            statement_timeout,
            batch_time,
            pause,
            run_for,
            max_wait,
            max_replica_lag,
            max_slot_lag,
            max_archive_backlog,
            max_snapshot_age,
            max_active_sessions,
            max_slowdown,
            trust_owners: _,
        } = self;
        let spans = [lock_timeout, statement_timeout, batch_time, pause, run_for, max_wait, max_snapshot_age];
        spans.iter().all(|span| span.is_none())
            && max_replica_lag.is_none()
            && max_slot_lag.is_none()
            && max_archive_backlog.is_none()
            && max_active_sessions.is_none()
            && max_slowdown.is_none()
    }
}

impl From<Written> for Limits {
    fn from(written: Written) -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            lock_timeout: written.lock_timeout.unwrap_or(seconds(2)),
            statement_timeout: written.statement_timeout.unwrap_or(seconds(30)),
            // While a batch's WAL is on its way to the disk, the application's commits wait. On a disk that takes 150 MB/s,
            // the slowest hundredth of them waited 195 ms with batches of 200 ms, 84 with 20 (benches/retention.py --write-limit).
            batch_time: written.batch_time.unwrap_or(Span(Duration::from_millis(20))),
            pause: written.pause,
            run_for: written.run_for,
            max_wait: written.max_wait.unwrap_or(seconds(600)),
            max_replica_lag: written.max_replica_lag.unwrap_or(Size(256 << 20)),
            max_slot_lag: written.max_slot_lag.unwrap_or(Size(16 << 30)),
            max_archive_backlog: written.max_archive_backlog.unwrap_or(64),
            max_snapshot_age: written.max_snapshot_age,
            max_active_sessions: written.max_active_sessions,
            max_slowdown: written.max_slowdown.map_or(MAX_SLOWDOWN, Spanned::into_inner),
            trust_owners: written.trust_owners.unwrap_or(true),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "batches of about {}, lock_timeout {}, statement_timeout {}; waits above {} of replica lag, {} kept by a slot, {} WAL files to archive",
            self.batch_time,
            self.lock_timeout,
            self.statement_timeout,
            self.max_replica_lag,
            self.max_slot_lag,
            self.max_archive_backlog
        )?;
        match self.max_slowdown {
            ..=0.0 => Ok(()),
            most => {
                write!(f, "; slows down where others' commits take more than {most} times as long as without it (or 5 ms more)")
            }
        }
    }
}
