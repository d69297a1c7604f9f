//! What each database is asked once, for all findings that need it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;

use crate::config::{self, Config, Database, servers};
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

/// Asks all databases and servers, and returns the answers by names in the configuration. What does not answer was said before, and is left out.
pub async fn databases(config: &Config) -> BTreeMap<String, Asked> {
    let asking = futures_util::stream::iter(&config.databases).map(|(name, database)| async move {
        let answered = tokio::time::timeout(LONGEST, ask(database)).await.ok()?.ok()?;
        Some((name.clone(), answered))
    });
    let of_entries = asking.buffer_unordered(AT_ONCE).filter_map(async |answered| answered);
    let asking = futures_util::stream::iter(&config.servers)
        .map(|(name, server)| async move { tokio::time::timeout(LONGEST, ask_server(name, server)).await.ok()?.ok() });
    let of_servers = asking.buffer_unordered(AT_ONCE).filter_map(async |answered| answered);
    let of_servers = of_servers.flat_map(futures_util::stream::iter);
    of_entries.chain(of_servers).collect().await
}

async fn ask(database: &Database) -> Result<Asked> {
    let mut connection = database.settings()?.connect().await?;
    let server = Server::of(&mut connection).await?;
    let size: i64 = sqlx::query_scalar("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())")
        .fetch_one(&mut connection)
        .await?;
    Ok(Asked { server, size_bytes: size.max(0).unsigned_abs() })
}

/// Asks a server once for all of its databases: they may be thousands.
async fn ask_server(name: &str, server: &config::Server) -> Result<Vec<(String, Asked)>> {
    let mut connection = server.login.settings()?.connect().await?;
    let facts = Server::of(&mut connection).await?;
    let sizes: Vec<(Vec<u8>, i64)> = sqlx::query_as(
        "SELECT pg_catalog.namesend(datname), pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database
         WHERE datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT')",
    )
    .fetch_all(&mut connection)
    .await?;
    let asked = sizes.into_iter().filter_map(|(own, size)| {
        let own = String::from_utf8(own).ok().filter(|own| server.takes(own))?;
        Some((servers::name_of(name, &own), Asked { server: facts.clone(), size_bytes: size.max(0).unsigned_abs() }))
    });
    Ok(asked.collect())
}
