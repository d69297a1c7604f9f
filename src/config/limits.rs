//! `[limits]`: how much a task that touches live tables may demand from the server.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::base::units::{Size, Span};

const MAX_SLOWDOWN: f64 = 2.0;

/// The resolved `[limits]` of a job.
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
    /// How much longer commits of others may take while the run works, as a factor; 0 turns the measurement off.
    pub max_slowdown: f64,
    /// True when code that an owner put into the table may run with more rights than the owner has (task/foreign_code/).
    pub trust_owners: bool,
}

/// `[limits]` as it is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Longest wait for a lock on a table; default 2 s. Sessions queued behind that request wait as long.
    pub lock_timeout: Option<Span>,
    /// Longest time for one batch; default 30 s.
    pub statement_timeout: Option<Span>,
    /// Batches are made as large as fits in this time; default 20 ms.
    pub batch_time: Option<Span>,
    /// Pause between batches; default: a quarter of the time that the last one took.
    pub pause: Option<Span>,
    /// The run stops for now after this time, and the next run continues where it stopped. No limit by default.
    pub run_for: Option<Span>,
    /// The run stops for now when it has waited this long for one condition; default 10 min.
    pub max_wait: Option<Span>,
    /// Waits while a replica has more WAL than this left to replay; default 256 MiB.
    pub max_replica_lag: Option<Size>,
    /// Waits while a replication slot retains more WAL than this; default 16 GiB.
    pub max_slot_lag: Option<Size>,
    /// Waits while more WAL files than this have yet to be archived; default 64.
    pub max_archive_backlog: Option<u32>,
    /// Waits while a transaction is older than this; by default, it is only reported.
    pub max_snapshot_age: Option<Span>,
    /// Waits while more sessions than this are active; no limit by default.
    pub max_active_sessions: Option<u32>,
    /// How much longer commits of other sessions may take while the run works, as a factor, or 5 ms more if that is more; default
    /// 2. Above it, batches get smaller and pauses longer. Measured with commits of its own while others are active. 0 turns it
    /// off.
    #[schemars(with = "Option<f64>", extend("anyOf" = [{ "const": 0 }, { "minimum": 1, "maximum": 1000 }]), example = 2)]
    pub max_slowdown: Option<Spanned<f64>>,
    /// false refuses a table with code of an owner (triggers, rules, CHECKs, index expressions) that would run with more rights
    /// than that owner has; default true: a warning names the code.
    pub trust_owners: Option<bool>,
}

impl Written {
    /// Returns whether it sets nothing but `trust_owners`.
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
            // While a batch's WAL is being flushed to disk, the application's commits wait. On a disk that takes 150 MB/s, the
            // slowest hundredth of them waited 195 ms with batches of 200 ms, and 84 ms with 20 ms (benches/retention.py
            // --write-limit).
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
            "batches of about {}, lock_timeout {}, statement_timeout {}; waits above {} of replica lag, {} of WAL retained by a slot, {} WAL files to archive",
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
                write!(f, "; slows down when others' commits take more than {most} times as long as without it (or 5 ms more)")
            }
        }
    }
}
