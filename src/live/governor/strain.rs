//! Reads the server's signals that a batch may worsen, and decides the first reason to wait.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::base::units;
use crate::config::limits::Limits;
use crate::pg;

/// Autovacuum on the table may take hours, and continues beside the run: it gets a head start.
const AUTOVACUUM_WAIT: Duration = Duration::from_secs(60);

/// The server's signals. `None` means that the role may not see one, or that there is nothing of the kind.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct Signals {
    pub replica_lag_bytes: Option<i64>,
    pub slot_lag_bytes: Option<i64>,
    pub slot: Option<String>,
    #[sqlx(skip)]
    pub archive_backlog: Option<i64>,
    pub autovacuum: bool,
    pub snapshot_age_seconds: Option<f64>,
    pub active_sessions: i64,
    /// Other sessions that are active, or may be: those that the role cannot see count as active.
    pub others: i64,
    pub hidden: bool,
}

pub const AUTOVACUUM: &str = "autovacuum";

/// Returns the first reason to wait. This is pure.
pub fn strain(signals: &Signals, limits: &Limits, autovacuum_waited: Duration) -> Option<(&'static str, String)> {
    let over = |value: Option<i64>, limit: u64| value.filter(|value| *value > 0 && *value as u64 > limit);
    if let Some(lag) = over(signals.replica_lag_bytes, limits.max_replica_lag.0) {
        return Some((
            "replica_lag",
            format!("a replica is {} behind (max_replica_lag {})", units::bytes(lag as u64), limits.max_replica_lag),
        ));
    }
    if let Some(lag) = over(signals.slot_lag_bytes, limits.max_slot_lag.0) {
        let slot = signals.slot.as_deref().unwrap_or_default();
        return Some((
            "slot_lag",
            format!("replication slot {slot} retains {} of WAL (max_slot_lag {})", units::bytes(lag as u64), limits.max_slot_lag),
        ));
    }
    if let Some(files) = over(signals.archive_backlog, limits.max_archive_backlog.into()) {
        return Some((
            "archive_backlog",
            format!("{files} WAL files wait to be archived (max_archive_backlog {})", limits.max_archive_backlog),
        ));
    }
    if let (Some(age), Some(limit)) = (signals.snapshot_age_seconds, limits.max_snapshot_age)
        && age > limit.0.as_secs_f64()
    {
        let age = units::duration(Duration::from_secs_f64(age));
        return Some(("snapshot", format!("a transaction has been open for {age} (max_snapshot_age {limit})")));
    }
    if let Some(limit) = limits.max_active_sessions.filter(|limit| signals.active_sessions > i64::from(*limit)) {
        return Some((
            "active_sessions",
            format!("{} sessions are active (max_active_sessions {limit})", signals.active_sessions),
        ));
    }
    if signals.autovacuum && autovacuum_waited < AUTOVACUUM_WAIT {
        return Some((AUTOVACUUM, "autovacuum is working on the table".to_owned()));
    }
    None
}

pub async fn signals(connection: &mut PgConnection, table: Option<i64>) -> Result<Signals> {
    sqlx::query_as(include_str!("governor.sql"))
        .bind(table)
        .fetch_one(connection)
        .await
        .map_err(pg::in_its_own_words)
        .context("cannot read the server's state")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Span;
    use crate::config::limits::Written;

    #[test]
    fn each_signal_over_its_limit_is_a_reason_to_wait() {
        let limits = Limits {
            max_snapshot_age: Some(Span(Duration::from_secs(60))),
            max_active_sessions: Some(10),
            ..Limits::from(Written::default())
        };
        let reason = |signals: Signals| strain(&signals, &limits, Duration::ZERO).map(|(what, _)| what);
        assert_eq!(reason(Signals::default()), None);
        assert_eq!(reason(Signals { replica_lag_bytes: Some(1 << 30), ..Signals::default() }), Some("replica_lag"));
        assert_eq!(reason(Signals { replica_lag_bytes: Some(1 << 20), ..Signals::default() }), None);
        assert_eq!(reason(Signals { slot_lag_bytes: Some(1 << 40), ..Signals::default() }), Some("slot_lag"));
        assert_eq!(reason(Signals { archive_backlog: Some(65), ..Signals::default() }), Some("archive_backlog"));
        assert_eq!(reason(Signals { snapshot_age_seconds: Some(61.0), ..Signals::default() }), Some("snapshot"));
        assert_eq!(reason(Signals { active_sessions: 11, ..Signals::default() }), Some("active_sessions"));
        let vacuum = Signals { autovacuum: true, ..Signals::default() };
        assert_eq!(reason(vacuum.clone()), Some(AUTOVACUUM));
        assert_eq!(strain(&vacuum, &limits, AUTOVACUUM_WAIT), None, "it had its start");
    }
}
