//! Temporary databases to restore into: how they are created, found again, and dropped.
//!
//! A scratch database is marked by its name, which contains a digest that no other installation has, and from its first moment on also by
//! refusing connections or by its comment. The next run finds what a kill leaves.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::facts::{DatabaseFacts, ServerFacts};
use super::sessions::SESSIONS_MOST;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, failure, identifier, literal};

/// Marks temporary databases of pgtend; only a database with this mark is ever dropped.
const SCRATCH_COMMENT: &str = "made by pgtend, dropped when its restore ends";

/// The time limit for dropping: also after a cancelled run, and while a server restarts.
const DROP_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of our concurrent sessions where we are not superuser, for whom no limit holds: those that restore, and those that watch them.
const OUR_SESSIONS: usize = SESSIONS_MOST + 4;

/// Creates the scratch database `name`, does `work` in it, and drops it, whatever the result of the work; `cancel` ends the work and drops
/// it, too. A database that could not be dropped is not a failure: it is returned as a warning.
pub async fn with_scratch<T>(
    settings: &pg::Settings,
    name: &str,
    like: &DatabaseFacts,
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> (Result<T>, Option<String>) {
    let made = async {
        let mut connection = maintenance_connection(settings).await.context("for the scratch database")?;
        let made = create_scratch(&mut connection, name, like).await?;
        Ok((connection, made))
    };
    match made.await {
        // It is not ours to drop.
        Err(error) if failure::kind_of(&error) == Some(Kind::Busy) => (Err(error), None),
        // It may exist, half made.
        Err(error) => (Err(error), drop_or_warn(settings, name, None).await),
        Ok((connection, made)) => {
            let result = match cancel.run_until_cancelled(work).await {
                Some(result) => result,
                None => Err(Fault::new(Kind::Cancelled, "cancelled").into()),
            };
            // Its lock would keep another connection from dropping it.
            drop(connection);
            (result, drop_or_warn(settings, name, Some(made)).await)
        }
    }
}

/// Creates a database that is dropped when its restore ends, with the source's encoding and locale where it stands in for the source. Only
/// this role and superusers can connect to it. While `connection` lives, it is in use. Returns its oid.
pub async fn create_scratch(connection: &mut PgConnection, name: &str, like: &DatabaseFacts) -> Result<i64> {
    lock(connection, name).await?;
    let (is_superuser, version): (bool, i32) = sqlx::query_as(
        "SELECT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
                pg_catalog.current_setting('server_version_num')::integer",
    )
    .fetch_one(&mut *connection)
    .await?;
    let owner = if is_superuser { String::new() } else { owner_clause(connection, like, version).await? };
    let limit = if is_superuser { 0 } else { OUR_SESSIONS };
    let tablespace = like.tablespace.as_ref().map(|name| format!("TABLESPACE {}", identifier(name))).unwrap_or_default();
    let sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 {} {} {owner} {tablespace} ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}",
        identifier(name),
        encoding(like),
        locale(like, version)
    );
    pg::execute(&mut *connection, sql).await.map_err(|error| explain(error, name, like))?;
    let comment = format!("COMMENT ON DATABASE {} IS {}", identifier(name), literal(SCRATCH_COMMENT));
    pg::execute(&mut *connection, comment).await.with_context(|| format!("cannot mark the database {name}"))?;
    open_to_us(connection, name).await?;
    let oid = sqlx::query_scalar("SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = $1");
    Ok(oid.bind(name).fetch_one(connection).await?)
}

/// Since PostgreSQL 15 the owner of a database may create objects in its schema public, and other owners of tables may not: the restore of a role
/// that is not a superuser needs the source's owner for that. Without the membership the restore shows whether it matters. A superuser needs no such
/// owner, who could let itself in (`ALTER DATABASE … CONNECTION LIMIT`) and put code into `public` that the restore would run as the superuser.
async fn owner_clause(connection: &mut PgConnection, like: &DatabaseFacts, version: i32) -> Result<String> {
    let owner = super::lacks::name_for(connection, &like.owner, &like.encoding).await;
    // A role that may only SET ROLE to the owner could create the database, but then neither mark nor drop it.
    let may_set = if version >= 160_000 { " AND pg_catalog.pg_has_role(oid, 'SET')" } else { "" };
    let acts_as_owner = pg::fetch_text(
        connection,
        format!(
            "SELECT (pg_catalog.pg_has_role(oid, 'USAGE'){may_set})::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname = {}",
            literal(&owner)
        ),
    )
    .await?;
    Ok(if acts_as_owner.as_deref() == Some("true") { format!("OWNER {}", identifier(&owner)) } else { String::new() })
}

/// Lets only this role and superusers connect.
pub async fn open_to_us(connection: &mut PgConnection, name: &str) -> Result<()> {
    let is_superuser: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
        .fetch_one(&mut *connection)
        .await?;
    let limit = if is_superuser { 0 } else { OUR_SESSIONS };
    let database = identifier(name);
    for sql in [
        format!("ALTER DATABASE {database} CONNECTION LIMIT {limit}"),
        format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"),
        format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
    ] {
        pg::execute(&mut *connection, sql).await.with_context(|| format!("cannot make the database {name} ready"))?;
    }
    Ok(())
}

/// The encoding clause. Where it is not known, the database gets that of template0.
fn encoding(like: &DatabaseFacts) -> String {
    if like.encoding.is_empty() { String::new() } else { format!("ENCODING {}", literal(&like.encoding)) }
}

/// The locale clause for the server's version: providers exist since 15, rules since 16. Where it is not known, there is none.
fn locale(like: &DatabaseFacts, version: i32) -> String {
    let libc = format!("LC_COLLATE {} LC_CTYPE {}", literal(&like.collate), literal(&like.ctype));
    let named = |otherwise: &str| literal(like.locale.as_deref().unwrap_or(otherwise));
    match like.locale_provider.as_str() {
        "" if like.collate.is_empty() => String::new(),
        "i" => {
            let rules = like.icu_rules.as_ref().map(|rules| format!(" ICU_RULES {}", literal(rules))).unwrap_or_default();
            format!("{libc} LOCALE_PROVIDER icu ICU_LOCALE {}{rules}", named("und"))
        }
        "b" => format!("{libc} LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", named("C")),
        // template0 may have another provider.
        _ if version >= 150_000 => format!("{libc} LOCALE_PROVIDER libc"),
        _ => libc,
    }
}

fn explain(error: anyhow::Error, name: &str, like: &DatabaseFacts) -> anyhow::Error {
    // 42809 and 22023: the locale does not exist, or not with this encoding; 42601 and 0A000: the provider is newer than the server.
    let about_locale = matches!(pg::sql_state(&error).as_deref(), Some("42809" | "22023" | "42601" | "0A000"));
    if about_locale {
        let locale = like.locale.as_deref().unwrap_or(&like.collate);
        let message = format!(
            "cannot make the database {name} with the encoding {} and the locale {locale} (provider {})",
            like.encoding, like.locale_provider
        );
        return error.context(LocaleRefused(message));
    }
    error.context(format!("cannot create the database {name}"))
}

/// The server lacks the encoding or the locale, or does not support the combination. The advice depends on who chose them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LocaleRefused(String);

/// Takes a lock that tells others on this server, while `connection` lives, that a process works with that database.
pub async fn lock(connection: &mut PgConnection, name: &str) -> Result<()> {
    let locked = pg::try_lock(connection, &lock_name(name)).await?;
    anyhow::ensure!(locked, Fault::new(Kind::Busy, format!("another pgtend process is working with the database {name}")));
    Ok(())
}

fn lock_name(database: &str) -> String {
    format!("pgtend scratch {database}")
}

/// Drops it within 30 seconds, also across a server's restart. Otherwise returns what stays, why, and how to drop it. A lock on it is
/// waited for as long: our own session may be about to end. `made`: the oid of the database that the caller itself created.
pub async fn drop_or_warn(settings: &pg::Settings, name: &str, made: Option<i64>) -> Option<String> {
    let mut last = String::new();
    let dropping = async {
        loop {
            let tried = async {
                let mut connection = maintenance_connection(settings).await?;
                drop_scratch(&mut connection, settings, name, made).await
            };
            match tried.await {
                Err(error) if matches!(failure::kind_of(&error), Some(Kind::Unreachable | Kind::Busy)) => {
                    tracing::debug!("the scratch database {name} is not dropped yet: {error:#}");
                    last = failure::in_a_line(&error);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                ended => return ended,
            }
        }
    };
    let dropped = tokio::time::timeout(DROP_TIMEOUT, dropping).await;
    let why = match dropped {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => failure::in_a_line(&error),
        Err(_) if last.is_empty() => format!("the server did not do it in {} s", DROP_TIMEOUT.as_secs()),
        Err(_) => format!("for {} s: {last}", DROP_TIMEOUT.as_secs()),
    };
    Some(format!(
        "the scratch database {name} on {} stays: {why}; the next run, or the same command again, drops it; to drop it now: DROP DATABASE {} WITH (FORCE)",
        settings.server(),
        identifier(name)
    ))
}

/// Drops a database that [`create_scratch`] made, under its lock: after an hour's stall of this process, another one may have made it
/// again. Any other database of that name is refused. Sessions in it are terminated: a restore that was just killed may still have a server
/// process. The restored dump may have removed the mark: the caller's own database is known by its oid in `made`.
pub async fn drop_scratch(connection: &mut PgConnection, settings: &pg::Settings, name: &str, made: Option<i64>) -> Result<()> {
    lock(connection, name).await?;
    let found: Option<(bool, bool, Vec<String>)> = sqlx::query_as(
        "SELECT coalesce(oid::pg_catalog.int8 = $3, false)
                OR coalesce(pg_catalog.shobj_description(oid, 'pg_database') = $2, NOT datallowconn),
                pg_catalog.pg_has_role(datdba, 'USAGE'),
                ARRAY(SELECT subname::text FROM pg_catalog.pg_subscription WHERE subdbid = d.oid)
         FROM pg_catalog.pg_database d WHERE datname = $1",
    )
    .bind(name)
    .bind(SCRATCH_COMMENT)
    .bind(made)
    .fetch_optional(&mut *connection)
    .await?;
    let subscriptions = match found {
        None => return Ok(()),
        Some((true, true, subscriptions)) => subscriptions,
        Some(_) => anyhow::bail!("database {name} does not carry pgtend's mark, or belongs to another role: it is left alone"),
    };
    if !subscriptions.is_empty() {
        pg::execute(connection, format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", identifier(name))).await?;
        drop_subscriptions(settings, name, &subscriptions).await?;
    }
    pg::execute(connection, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name)))
        .await
        .with_context(|| format!("cannot drop the scratch database {name}"))
}

/// Drops subscriptions first, because PostgreSQL drops no database with a subscription in it. A copied one names the original's slot at the
/// publisher: without SET (slot_name = NONE), DROP SUBSCRIPTION would drop that slot, and the original would stop.
async fn drop_subscriptions(settings: &pg::Settings, name: &str, subscriptions: &[String]) -> Result<()> {
    let mut connection = settings.with_database(name).connect().await?;
    pg::set(&mut connection, "default_transaction_read_only", "off").await?;
    for subscription in subscriptions {
        let quoted = identifier(subscription);
        for sql in [
            format!("ALTER SUBSCRIPTION {quoted} DISABLE"),
            format!("ALTER SUBSCRIPTION {quoted} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {quoted}"),
        ] {
            pg::execute(&mut connection, sql).await.with_context(|| format!("subscription {subscription} in it"))?;
        }
    }
    Ok(())
}

/// Scratch databases with this prefix that a killed run left: ours, without a pgtend or one of its client tools connected. Other sessions
/// only look on, and are terminated when it is dropped.
pub async fn scratch_leftovers(connection: &mut PgConnection, prefix: &str) -> Result<Vec<String>> {
    let names = sqlx::query_scalar(
        "SELECT datname::text FROM pg_catalog.pg_database d
         WHERE pg_catalog.starts_with(datname::text, $1) AND pg_catalog.pg_has_role(datdba, 'USAGE')
           AND coalesce(pg_catalog.shobj_description(oid, 'pg_database') = $2, NOT datallowconn)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.application_name = 'pgtend')
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_locks l
               WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_catalog.pg_backend_pid()
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                 AND ((l.classid::bigint << 32) | l.objid::bigint) = pg_catalog.hashtextextended($3 || datname, 0))",
    )
    .bind(prefix)
    .bind(SCRATCH_COMMENT)
    .bind(lock_name(""))
    .fetch_all(connection)
    .await?;
    Ok(names)
}

/// The prefix of a job's scratch databases. It includes what the job's lock covers, the source's server and database, so that a process
/// with another lock has another prefix.
pub fn scratch_prefix(database: &str, job: &str, server: &ServerFacts) -> String {
    let identifier = server.system_identifier.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{database}/{job}/{identifier}/{}", server.database.name));
    format!("pgtend_verify_{}_", &hex::encode(digest)[..12])
}

/// A connection for CREATE and DROP DATABASE, which must not be to the database itself.
pub async fn maintenance_connection(settings: &pg::Settings) -> Result<PgConnection> {
    let mut connection = match settings.with_database("postgres").connect().await {
        Ok(connection) => connection,
        // Some servers have no `postgres`; template1 always exists.
        Err(first) => settings.with_database("template1").connect().await.map_err(|_| first)?,
    };
    // A server, a role or a database may set this default.
    pg::set(&mut connection, "default_transaction_read_only", "off").await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_asked_for_in_words_that_the_server_knows() {
        let facts = |provider: &str, locale: Option<&str>, rules: Option<&str>| DatabaseFacts {
            collate: "C".into(),
            ctype: "de_DE".into(),
            locale_provider: provider.into(),
            locale: locale.map(str::to_owned),
            icu_rules: rules.map(str::to_owned),
            ..DatabaseFacts::default()
        };
        for (facts, version, expected) in [
            (facts("c", None, None), 140_000, "LC_COLLATE E'C' LC_CTYPE E'de_DE'"),
            (facts("c", None, None), 150_000, "LC_COLLATE E'C' LC_CTYPE E'de_DE' LOCALE_PROVIDER libc"),
            (
                facts("i", Some("de"), Some("&a < b")),
                160_000,
                "LC_COLLATE E'C' LC_CTYPE E'de_DE' LOCALE_PROVIDER icu ICU_LOCALE E'de' ICU_RULES E'&a < b'",
            ),
            (
                facts("b", Some("C.UTF-8"), None),
                180_000,
                "LC_COLLATE E'C' LC_CTYPE E'de_DE' LOCALE_PROVIDER builtin BUILTIN_LOCALE E'C.UTF-8'",
            ),
        ] {
            assert_eq!(locale(&facts, version), expected);
        }
    }
}
