//! Is it the server itself that answers, or a pooler, and of which mode?
//!
//! A startup parameter that no pooler knows says the first: the server has it at once, and a pooler drops it or
//! refuses it, also with PgBouncer's `ignore_startup_parameters = options`. It costs nothing. Only where it is
//! missing a second connection tells the modes apart.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};

use super::in_its_own_words;
use crate::fault::{Fault, Kind};

/// A placeholder, as any role may set it.
const PARAMETER: &str = "pgtend.session";

/// A pooler with a free server process answers in milliseconds.
const SECOND_ANSWER: Duration = Duration::from_secs(2);
/// What a pooler whose pool is used up may take.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// All of it.
const VERDICT: Duration = Duration::from_secs(60);
/// By how much answers that were sent in order may come out of order.
const OUT_OF_ORDER: Duration = Duration::from_millis(200);

/// What a server says of itself before anything is set.
pub struct Answer {
    pub token: Option<String>,
    pub in_recovery: bool,
    pub read_only: bool,
}

/// A word that no other session has.
pub fn token() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = chrono::Utc::now().timestamp_micros();
    format!("{}-{now}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub fn with_token(options: PgConnectOptions, token: &str) -> PgConnectOptions {
    options.options([(PARAMETER, token)])
}

/// PgBouncer answers "unsupported startup parameter" with 08P01, Amazon's RDS Proxy with 0A000.
pub fn takes_no_options(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(said) if matches!(said.code().as_deref(), Some("08P01" | "0A000")))
}

/// By the simple protocol: a prepared statement would stay behind in a server process that is others', too.
pub async fn ask(connection: &mut PgConnection) -> sqlx::Result<Answer> {
    let row = connection
        .fetch_one(
            "SELECT current_setting('pgtend.session', true), pg_is_in_recovery()::text, current_setting('default_transaction_read_only')",
        )
        .await?;
    let text = |column: usize| row.try_get::<Option<String>, _>(column);
    Ok(Answer { token: text(0)?, in_recovery: text(1)?.as_deref() == Some("true"), read_only: text(2)?.as_deref() == Some("on") })
}

/// Whether statements of different connections come to one server process. In session mode `first` has a process of
/// its own as long as it lives: a second connection gets another, or none. In transaction mode the process of `first`
/// is free as soon as it has answered, and the second gets it; or, with several that take turns, `first` itself gets
/// another one.
pub async fn shares_sessions(first: &mut PgConnection, options: &PgConnectOptions) -> Result<bool> {
    match tokio::time::timeout(VERDICT, compare(first, options)).await {
        Ok(verdict) => verdict,
        Err(_) => Err(cannot_tell(anyhow::anyhow!("no answer in {} s", VERDICT.as_secs()))),
    }
}

async fn compare(first: &mut PgConnection, options: &PgConnectOptions) -> Result<bool> {
    let mine = process(first).await.map_err(in_its_own_words)?;
    let mut second = match tokio::time::timeout(FIRST_ANSWER, options.connect()).await {
        Ok(Ok(second)) => second,
        Ok(Err(error)) => return Err(cannot_tell(in_its_own_words(error))),
        Err(_) => return Err(cannot_tell(anyhow::anyhow!("no answer in {} s", FIRST_ANSWER.as_secs()))),
    };
    // Others may take a process in between: it is tried more than once.
    for _ in 0..3 {
        let mut asked = pin!(process(&mut second));
        let other = match tokio::time::timeout(SECOND_ANSWER, &mut asked).await {
            Ok(other) => other,
            // It waits for a process. Whoever waits comes in turn, so an answer to `first` before it is one of a
            // process that `first` has for itself.
            Err(_) => tokio::select! {
                biased;
                other = &mut asked => other,
                answered = process(first) => {
                    answered.map_err(in_its_own_words)?;
                    match tokio::time::timeout(OUT_OF_ORDER, &mut asked).await {
                        Ok(other) => other,
                        Err(_) => return Ok(false),
                    }
                }
                () = tokio::time::sleep(FIRST_ANSWER) => {
                    return Err(cannot_tell(anyhow::anyhow!("its server processes are all in use")));
                }
            },
        };
        if other.map_err(in_its_own_words)? == mine {
            return Ok(true);
        }
        // Twice: with two processes that take turns, every second question comes to the same.
        for _ in 0..2 {
            if process(first).await.map_err(in_its_own_words)? != mine {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn cannot_tell(error: anyhow::Error) -> anyhow::Error {
    error.context(Fault::new(
        Kind::Unreachable,
        "there is a connection pooler in between, and a second connection, which would tell its mode, was not to be had",
    ))
}

/// A server process, and of which server: a pooler may have several behind it.
async fn process(connection: &mut PgConnection) -> sqlx::Result<(String, String)> {
    let row = connection.fetch_one("SELECT pg_backend_pid()::text, pg_postmaster_start_time()::text").await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
