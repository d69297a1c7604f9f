//! What each database is asked once, for all findings that need it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;

use crate::config::{Config, Database};
use crate::pg::Server;

/// So many databases are asked at once.
const AT_ONCE: usize = 16;

/// The longest wait for one database: its connection may take 20 s for each of its hosts.
const LONGEST: Duration = Duration::from_secs(60);

/// The answer of a database.
pub struct Asked {
    pub server: Server,
    pub size_bytes: u64,
}

/// Asks all databases, and returns the answers by names in the configuration. What does not answer was said before, and is left out: those whose connection
/// has `failed`, as "database NAME", are not waited for again.
pub async fn databases<'c>(config: &'c Config, failed: &BTreeSet<&str>) -> BTreeMap<&'c str, Asked> {
    let to_ask = config.databases.iter().filter(|(name, _)| !failed.contains(format!("database {name}").as_str()));
    let asking = futures_util::stream::iter(to_ask).map(|(name, database)| async move {
        let answered = tokio::time::timeout(LONGEST, ask(database)).await.ok()?.ok()?;
        Some((name.as_str(), answered))
    });
    asking.buffer_unordered(AT_ONCE).filter_map(async |answered| answered).collect().await
}

async fn ask(database: &Database) -> Result<Asked> {
    let mut connection = database.settings()?.connect().await?;
    let server = Server::of(&mut connection).await?;
    let size: i64 = sqlx::query_scalar("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
        .fetch_one(&mut connection)
        .await?;
    Ok(Asked { server, size_bytes: size.max(0).unsigned_abs() })
}
