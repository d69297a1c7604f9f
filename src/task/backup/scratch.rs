//! Databases that are made for a moment, to be restored into: how they are made, found again, and dropped.

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;

use super::facts::{DatabaseFacts, ServerFacts};
use super::stream::hex;
use crate::pg::{self, identifier, literal};

/// Marks databases that pgtend makes for a moment; only such a one is ever dropped.
const SCRATCH_COMMENT: &str = "made by pgtend, dropped when its restore ends";

/// A new database that is dropped when its restore ends; where it stands in for the source, with the source's
/// encoding and locale.
pub async fn create_scratch(connection: &mut PgConnection, name: &str, like: &DatabaseFacts) -> Result<()> {
    let provider = match like.locale_provider.as_str() {
        "i" => format!("LOCALE_PROVIDER icu ICU_LOCALE {}", literal(like.locale.as_deref().unwrap_or("und"))),
        "b" => format!("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(like.locale.as_deref().unwrap_or("C"))),
        _ => String::new(),
    };
    // Since 15 the owner of a database may create in its schema public, and so may its tables' owners only if they are
    // that owner. Without the membership the restore shows whether it matters.
    let member: Option<bool> = sqlx::query_scalar("SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = $1")
        .bind(&like.owner)
        .fetch_optional(&mut *connection)
        .await?;
    let owner = if member == Some(true) { format!("OWNER {}", identifier(&like.owner)) } else { String::new() };
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {} {provider} {owner}",
        identifier(name),
        literal(&like.encoding),
        literal(&like.collate),
        literal(&like.ctype)
    );
    pg::execute(&mut *connection, sql).await.with_context(|| format!("cannot create the database {name}"))?;
    let comment = format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(SCRATCH_COMMENT));
    pg::execute(connection, comment).await.with_context(|| format!("cannot mark the database {name} as scratch"))
}

/// Drops a database that [`create_scratch`] made and that nobody uses. Anything else of that name is refused.
pub async fn drop_scratch(connection: &mut PgConnection, name: &str) -> Result<()> {
    let found: Option<(Option<String>, bool)> = sqlx::query_as(
        "SELECT shobj_description(oid, 'pg_database'), pg_has_role(datdba, 'MEMBER') FROM pg_database WHERE datname = $1",
    )
    .bind(name)
    .fetch_optional(&mut *connection)
    .await?;
    match found {
        None => Ok(()),
        Some((Some(comment), true)) if comment == SCRATCH_COMMENT => {
            // A psql that was killed a moment ago may still have its server process: FORCE ends that one.
            pg::execute(connection, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name)))
                .await
                .with_context(|| format!("cannot drop the scratch database {name}"))
        }
        Some(_) => anyhow::bail!("database {name} does not carry pgtend's mark, or is not ours: it is left alone"),
    }
}

/// Scratch databases of this prefix that a killed run left. None of them has a session: one that has is in use.
pub async fn scratch_leftovers(connection: &mut PgConnection, prefix: &str) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database d
         WHERE starts_with(datname::text, $1) AND shobj_description(oid, 'pg_database') = $2 AND pg_has_role(datdba, 'MEMBER')
           AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid AND coalesce(a.backend_type, 'client backend') = 'client backend')",
    )
    .bind(prefix)
    .bind(SCRATCH_COMMENT)
    .fetch_all(connection)
    .await?;
    Ok(names)
}

/// The prefix of a job's scratch databases. It takes in what the job's lock is on, the source's server and database, so
/// that nobody who has another lock has the same prefix.
pub fn scratch_prefix(database: &str, job: &str, server: &ServerFacts) -> String {
    let identifier = server.system_identifier.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{database}/{job}/{identifier}/{}", server.database.name));
    format!("pgtend_verify_{}_", &hex(&digest)[..12])
}

/// A connection for CREATE and DROP DATABASE, which must not be to the database itself.
pub async fn maintenance_connection(settings: &pg::Settings) -> Result<PgConnection> {
    match settings.with_database("postgres").connect().await {
        Ok(connection) => Ok(connection),
        // Some servers have no `postgres`; template1 is always there.
        Err(first) => settings.with_database("template1").connect().await.map_err(|_| first),
    }
}
