//! Finds out whether the server itself answers, or a pooler, and in which mode.
//!
//! A startup parameter that no pooler knows answers the first question: the server has it at once, and a pooler drops or refuses
//! it, even with PgBouncer's `ignore_startup_parameters = options`. It costs nothing. Only if it is missing, a second connection
//! tells the modes apart.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use super::contract::Rights;
use super::failure::in_its_own_words;
use crate::base::fault::{Fault, Kind};

/// The message of a refused pooler in transaction mode.
pub const TRANSACTION_POOLER: &str = "it is a connection pooler in transaction mode";

/// The parameter is a placeholder, which any role may set.
const PARAMETER: &str = "pgtend.session";

/// A pooler with a free server process answers in milliseconds.
const SECOND_ANSWER: Duration = Duration::from_secs(2);
/// The longest wait for a pooler whose pool is exhausted.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// The time limit of the whole test.
const VERDICT: Duration = Duration::from_secs(60);
/// Others may take a process in between, so that a round tells nothing: with three rounds, one of some hundred poolers was not found.
const ROUNDS: usize = 8;
/// Answers that were sent in order may arrive out of order by this much.
const OUT_OF_ORDER: Duration = Duration::from_millis(200);

/// A server's facts about itself, and about our role there, before anything is set.
pub struct Answer {
    pub token: Option<String>,
    pub in_recovery: bool,
    pub read_only: bool,
    pub search_path: Option<String>,
    /// "none" is the login's own role.
    pub role: Option<String>,
    /// The role that ALTER ROLE … SET role names, for this database or for all.
    pub stored_role: Option<String>,
    pub may_set_messages: bool,
    pub may_set_replication_role: bool,
    pub may_set_event_triggers: bool,
}

impl Answer {
    pub fn rights(&self) -> Rights {
        Rights {
            messages: self.may_set_messages,
            replication_role: self.may_set_replication_role,
            event_triggers: self.may_set_event_triggers,
        }
    }
}

/// Returns a word that no other session has.
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

/// Asks by the simple protocol: a prepared statement would stay in a server process that others share. All names, types and
/// operators are qualified, since the search_path is still unknown.
pub async fn ask(connection: &mut PgConnection) -> sqlx::Result<Answer> {
    // has_parameter_privilege came with PostgreSQL 15.
    let has_right = |name: &str| match connection.server_version_num() {
        Some(150_000..) => format!("pg_catalog.has_parameter_privilege('{name}', 'SET')"),
        _ => "false".to_owned(),
    };
    let sql = format!(
        "SELECT pg_catalog.current_setting('{PARAMETER}', true),
                pg_catalog.pg_is_in_recovery()::pg_catalog.text,
                pg_catalog.current_setting('default_transaction_read_only'),
                pg_catalog.current_setting('search_path'),
                pg_catalog.current_setting('role'),
                pg_catalog.current_setting('is_superuser'),
                {}::pg_catalog.text,
                {}::pg_catalog.text,
                (SELECT pg_catalog.substr(o.setting, 6)
                 FROM pg_catalog.pg_roles r, pg_catalog.pg_database d, pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS o (setting)
                 WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER AND s.setrole OPERATOR(pg_catalog.=) r.oid
                   AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                   AND s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0, d.oid]::pg_catalog.oid[])
                   AND pg_catalog.starts_with(o.setting, 'role=')
                 ORDER BY s.setdatabase DESC LIMIT 1),
                {}::pg_catalog.text",
        has_right("lc_messages"),
        has_right("session_replication_role"),
        has_right("event_triggers"),
    );
    let row = connection.fetch_one(AssertSqlSafe(sql)).await?;
    let text = |column: usize| row.try_get::<Option<String>, _>(column);
    let is = |column: usize, word: &str| text(column).map(|text| text.as_deref() == Some(word));
    let is_superuser = is(5, "on")?;
    Ok(Answer {
        token: text(0)?,
        in_recovery: is(1, "true")?,
        read_only: is(2, "on")?,
        search_path: text(3)?,
        role: text(4)?,
        may_set_messages: is_superuser || is(6, "true")?,
        may_set_replication_role: is_superuser || is(7, "true")?,
        stored_role: text(8)?,
        may_set_event_triggers: is_superuser || is(9, "true")?,
    })
}

/// Returns whether statements of different connections reach one server process. In session mode `first` has a process of its own
/// as long as it lives: a second connection gets another, or none. In transaction mode the process of `first` is free as soon as
/// it has answered, and the second connection gets it; or, with several that take turns, `first` itself gets another one.
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
    for _ in 0..ROUNDS {
        let mut asked = pin!(process(&mut second));
        let other = match tokio::time::timeout(SECOND_ANSWER, &mut asked).await {
            Ok(other) => other,
            // The second connection waits for a process. Waiters are served in turn, so an answer to `first` before it comes from
            // a process that `first` has for itself.
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
        // It asks twice: with two processes that take turns, every second question reaches the same one.
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
        "there is a connection pooler in between, and a second connection, which would show its mode, could not be opened",
    ))
}

/// Identifies a server process and its server: a pooler may have several servers behind it.
async fn process(connection: &mut PgConnection) -> sqlx::Result<(String, String)> {
    let row = connection
        .fetch_one("SELECT pg_catalog.pg_backend_pid()::pg_catalog.text, pg_catalog.pg_postmaster_start_time()::pg_catalog.text")
        .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
