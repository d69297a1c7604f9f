//! The session that keeps the tables of a dump as they are until all others have locked them, and then watches the pg_dumps.
//!
//! What is rewritten or truncated between the snapshot and a lock would be empty in the dump: so all is locked before the snapshot. A session that
//! asks for ACCESS EXCLUSIVE after that waits for us, and whoever then asks for a lock waits behind it; no server sees that this has no end, if
//! that one is a pg_dump for which we wait.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnection;

use super::tables::Table;
use crate::pg::{self, qualified};
use crate::task::backup::keys::Backup;
use crate::task::backup::patterns::Patterns;
use crate::task::backup::why;

/// At most so many tables are named in one statement.
const TABLES_MOST: i64 = 50_000;

/// Readers of a table wait for as long as this, and as the start of the dump anew takes.
const LOOK_FOR_WAITERS_EVERY: Duration = Duration::from_millis(100);

const LOOK_FOR_SESSIONS_EVERY: Duration = Duration::from_secs(1);

/// A pg_dump that has closed its session ends in less.
const EXIT_TAKES_AT_MOST: Duration = Duration::from_secs(5);

/// Somebody asks for a lock that excludes the dump's, at a moment when the dump has not all of its own.
#[derive(Debug)]
pub struct InTheWay(String);

impl std::error::Error for InTheWay {}

impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a table cannot be locked for the dump{}", self.0)
    }
}

impl InTheWay {
    pub async fn now(settings: &pg::Settings) -> Self {
        Self(why::who_locks(settings).await.unwrap_or_default())
    }
}

pub struct Keeper {
    connection: PgConnection,
    /// Its process and those of the sessions that read rows.
    pids: Vec<i32>,
    /// The processes of the pg_dumps; empty where they cannot be told from others.
    pg_dumps: Vec<i32>,
}

impl Keeper {
    pub async fn new(mut connection: PgConnection, sessions: &mut [PgConnection]) -> Result<Self> {
        let mut pids = vec![pid(&mut connection).await?];
        for session in sessions {
            pids.push(pid(session).await?);
        }
        Ok(Self { connection, pids, pg_dumps: Vec::new() })
    }

    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Locks these tables, and with `all` every other one that the pg_dumps will lock, where the server has room for that. Waits as long as a
    /// pg_dump would.
    pub async fn lock(&mut self, tables: &[Table], all: bool, backup: &Backup, found_by_name: &[String]) -> Result<()> {
        let mut names: Vec<String> = tables.iter().map(Table::sql).collect();
        if all {
            let Patterns { schemas, without, .. } = Patterns::of(&backup.filters);
            let found: Vec<(String, String)> = sqlx::query_as(include_str!("locks.sql"))
                .bind(schemas)
                .bind(without.schemas)
                .bind(without.names)
                .bind(found_by_name)
                .bind(TABLES_MOST)
                .fetch_all(&mut self.connection)
                .await?;
            names.extend(found.iter().map(|(schema, name)| qualified(schema, name)));
        }
        pg::execute(&mut self.connection, "BEGIN READ ONLY".to_owned()).await?;
        pg::execute(&mut self.connection, lock(&names)).await
    }

    /// Ends when a pg_dump waits for somebody who waits for this dump.
    pub async fn sees_somebody_between(&mut self, settings: &pg::Settings) -> Result<InTheWay> {
        loop {
            tokio::time::sleep(LOOK_FOR_WAITERS_EVERY).await;
            let query = sqlx::query_scalar(include_str!("behind_us.sql")).bind(&self.pids);
            clear_statistics(&mut self.connection).await?;
            if query.fetch_one(&mut self.connection).await.map_err(pg::in_its_own_words)? {
                return Ok(InTheWay::now(settings).await);
            }
        }
    }

    /// Leaves the tables to the others, who have them all. The pg_dumps hold a lock on `table`.
    pub async fn release(&mut self, table: &Table) -> Result<()> {
        pg::execute(&mut self.connection, "ROLLBACK".to_owned()).await?;
        let query = sqlx::query_scalar(include_str!("pg_dumps.sql")).bind(&self.pids).bind(table.oid);
        let found: Vec<i32> = query.fetch_all(&mut self.connection).await.map_err(pg::in_its_own_words)?;
        // The first of them may have ended. Another dump of this database may begin in the same second.
        if matches!(found.len(), 1 | 2) {
            self.pg_dumps = found;
        }
        Ok(())
    }

    /// Ends when no pg_dump has a session any more, and should have ended since.
    pub async fn sees_no_pg_dump(&mut self) {
        let gone = async {
            loop {
                tokio::time::sleep(LOOK_FOR_SESSIONS_EVERY).await;
                let query =
                    sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = ANY ($1))");
                if query.bind(&self.pg_dumps).fetch_one(&mut self.connection).await? {
                    return anyhow::Ok(());
                }
            }
        };
        let seen = if self.pg_dumps.is_empty() { std::future::pending().await } else { gone.await };
        if let Err(error) = seen {
            tracing::warn!("cannot look whether pg_dump still has its session: {error:#}");
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(EXIT_TAKES_AT_MOST).await;
    }
}

/// The statement that locks tables, named as in SQL, as pg_dump does it.
pub fn lock(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("ONLY {name}")).collect();
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))
}

async fn pid(connection: &mut PgConnection) -> Result<i32> {
    sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(connection).await.context("cannot read a session's number")
}

/// In a transaction, pg_stat_activity stays as it was read first.
async fn clear_statistics(connection: &mut PgConnection) -> Result<()> {
    pg::execute(connection, "SELECT pg_catalog.pg_stat_clear_snapshot()".to_owned()).await
}
