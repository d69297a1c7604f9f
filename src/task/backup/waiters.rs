//! Watches for sessions that wait behind a dump's locks. pg_dump holds a lock on every table until it ends: a migration that waits for it
//! blocks everyone queued behind it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A session that waits for a lock longer than this is reported.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(sqlx::FromRow)]
struct Waiter {
    pid: i32,
    who: String,
    seconds: f64,
    behind: i64,
}

/// Checks for waiters while `dump` works; each that waits for longer than some seconds is a warning, or ends the dump where it should give
/// way. A server that does not let us check does not end it.
pub async fn watch<T>(
    settings: &pg::Settings,
    gives_way: bool,
    warnings: &Mutex<Vec<String>>,
    dump: impl Future<Output = Result<T>>,
) -> Result<T> {
    let looking = async {
        match look(settings, gives_way, warnings).await {
            Ok(given) => given,
            Err(error) => {
                tracing::warn!("cannot check for sessions that wait behind the dump: {error:#}");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        biased;
        dumped = dump => dumped,
        given = looking => Err(given.into()),
    }
}

async fn look(settings: &pg::Settings, gives_way: bool, warnings: &Mutex<Vec<String>>) -> Result<Fault> {
    let mut connection = settings.connect().await?;
    let mut told: HashSet<i32> = HashSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let waiters: Vec<Waiter> = sqlx::query_as(include_str!("waiters.sql")).fetch_all(&mut connection).await?;
        for waiter in waiters.into_iter().filter(|waiter| waiter.seconds >= PATIENCE.as_secs_f64()) {
            let waited = units::duration(Duration::from_secs(waiter.seconds as u64));
            let behind = match waiter.behind {
                0 => String::new(),
                count => format!(", and {} behind it", units::plural(count as usize, "session")),
            };
            if gives_way {
                let message = format!("gave way after {waited}: {} behind the dump{behind}", waiter.who);
                return Ok(Fault::new(Kind::Deferred, message));
            }
            if told.insert(waiter.pid) {
                let message = format!(
                    "{} behind the dump since {waited}{behind}: dump at another time, or set give_way = true, which ends the dump",
                    waiter.who
                );
                tracing::warn!("{message}");
                warnings.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        }
    }
}
