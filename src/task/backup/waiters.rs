//! Who waits behind a dump's locks. pg_dump has one on every table until it ends: a migration that waits for it makes everybody behind it
//! wait, too.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A lock that is waited for so long keeps people waiting.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(sqlx::FromRow)]
struct Waiter {
    pid: i32,
    who: String,
    seconds: f64,
    behind: i64,
}

/// Looks while `dump` works; each who waits for longer than some seconds is a warning, or the end of the dump where it shall give way. A
/// server that does not let us look is no reason to end it.
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
                tracing::warn!("cannot look who waits behind the dump: {error:#}");
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
                    "{} behind the dump since {waited}{behind}: dump at another time, or with give_way = true, by which the dump ends",
                    waiter.who
                );
                tracing::warn!("{message}");
                warnings.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        }
    }
}
