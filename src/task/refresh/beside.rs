//! The two kinds of sessions of a refresh: in the target, and beside it, in another database of the target's server.
//!
//! A pooler may lead the one to another server than the other, by the name of the database. What is looked at would then not be what is renamed and
//! dropped. So nothing is made, renamed or dropped before a lock of the one session was seen by the other: system identifiers, names and OIDs can be
//! equal on two servers, and a lock is only where it was taken.

use anyhow::Result;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::state;
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, identifier};
use crate::task::backup::facts::{self, ServerFacts};
use crate::work::RunContext;

/// A session beside the target, on the target's server.
pub async fn connect(run: &RunContext<'_>) -> Result<PgConnection> {
    let mut server = run.lasting_settings().connect().await?;
    target(run, &mut server).await?;
    Ok(server)
}

/// Another session on the server of that one.
pub async fn another(run: &RunContext<'_>, server: &mut PgConnection) -> Result<PgConnection> {
    let mut other = run.lasting_settings().connect().await?;
    if !is_of_one_server(server, &mut other).await? {
        return Err(
            elsewhere(run.settings.database(), "the URL leads to several servers for the database `postgres` beside it").into()
        );
    }
    Ok(other)
}

/// Reads the target's facts, in a session that has ended when this returns: no database with a session is renamed. Fails unless `server` is a session
/// on the same server, which has the target under its name. The number is that of the target's session's server process, which may live for some
/// milliseconds more.
pub async fn target(run: &RunContext<'_>, server: &mut PgConnection) -> Result<(ServerFacts, i32)> {
    let name = run.settings.database();
    let mut inside = run.settings.connect().await.map_err(|error| match pg::sql_state(&error).as_deref() {
        Some("3D000") => error.context(Fault::new(
            Kind::Configuration,
            format!(
                "there is no database {name}: create it once (CREATE DATABASE {} OWNER …), with the owner, the grants and the settings that it \
                 is to have. A refresh keeps these",
                identifier(name)
            ),
        )),
        _ => error,
    })?;
    let pid = pg::backend_pid(&mut inside).await?;
    if !is_of_one_server(&mut inside, server).await? {
        return Err(elsewhere(
            name,
            "the URL leads to one server for it, and to another one for the database `postgres` beside it",
        )
        .into());
    }
    let facts = facts::server(&mut inside, &run.settings).await?;
    if facts.database.oid.is_none() || state::oid(server, name).await? != facts.database.oid {
        let why = format!("the URL leads to the database {} in its place", facts.database.name);
        return Err(elsewhere(name, &why).into());
    }
    inside.close().await.map_err(pg::in_its_own_words)?;
    Ok((facts, pid))
}

fn elsewhere(name: &str, why: &str) -> Fault {
    let message = format!("{name} is not replaced: {why}. A pooler may do that: give a URL without one");
    Fault::new(Kind::Configuration, message)
}

/// Fails if the name belongs to another database by now.
pub fn ensure_same(target: &str, oid: Option<i64>, target_oid: Option<i64>) -> Result<()> {
    anyhow::ensure!(oid.is_some() && oid == target_oid, "{target} is another database than when the run began: run it again");
    Ok(())
}

/// Returns whether both sessions are of one server: a lock of `one`, whose name nobody else has, is seen by `other`. Both may be in different databases.
pub async fn is_of_one_server(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool> {
    let name = format!("pgtend refresh {}", uuid::Uuid::new_v4());
    let pid = pg::backend_pid(one).await?;
    if !pg::try_lock(one, &name).await? {
        return Ok(false);
    }
    let seen = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                        WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = $2
                          AND ((classid::pg_catalog.int8 << 32) | objid::pg_catalog.int8) = pg_catalog.hashtextextended($1, 0))",
    );
    let seen: bool = seen.bind(&name).bind(pid).fetch_one(other).await?;
    pg::unlock(one, &name).await?;
    Ok(seen)
}
