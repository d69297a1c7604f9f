//! Reads what a refresh depends on: its target, the databases that earlier runs made beside it, the databases that are backed up, and the sets.
//! It changes nothing.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::mark::{self, Mark};
use super::source::{Source, store_of};
use crate::base::fault::{Fault, Kind};
use crate::pg::{self, identifier};
use crate::store::{Store, key};
use crate::task::backup::facts::{self, ServerFacts};
use crate::task::backup::identity::Identity;
use crate::task::backup::series::Series;
use crate::task::backup::set::{self, Set};
use crate::task::backup::verdict::Bytes;
use crate::work::RunContext;

/// What decides about a refresh.
#[derive(Clone, Debug)]
pub struct State {
    /// The target's server's clock.
    pub clock: DateTime<Utc>,
    pub target: Place,
    pub in_recovery: bool,
    /// The sessions in the target.
    pub sessions: Vec<Session>,
    /// The databases that jobs back up, each with the job's name.
    pub sources: Vec<(String, Place)>,
    pub ledger: Option<Place>,
    /// The databases with a mark of this target.
    pub made: Vec<Made>,
    pub sets: Vec<Candidate>,
}

/// A database, whatever URL leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// None where the role may not read it.
    pub system_identifier: Option<String>,
    pub database: String,
    /// None in sets of the first release.
    pub oid: Option<i64>,
}

impl Place {
    pub fn of(server: &ServerFacts) -> Self {
        let database = &server.database;
        Self { system_identifier: server.system_identifier.clone(), database: database.name.clone(), oid: database.oid }
    }

    /// Returns whether both are one database; None where that cannot be told. A database that was renamed since has its oid.
    pub fn is(&self, other: &Self) -> Option<bool> {
        let (ours, theirs) = (self.system_identifier.as_ref()?, other.system_identifier.as_ref()?);
        let same_oid = self.oid.is_some() && self.oid == other.oid;
        Some(ours == theirs && (self.database == other.database || same_oid))
    }
}

/// A session of someone in the target.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Session {
    pub pid: i32,
    pub role: String,
    pub application: String,
}

impl Session {
    /// Returns whether it belongs to a run of another job.
    pub fn is_of_pgtend(&self) -> bool {
        self.application == "pgtend"
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let application = if self.application.is_empty() { String::new() } else { format!(", {}", self.application) };
        write!(f, "{} ({}{application})", self.pid, self.role)
    }
}

/// A database that a refresh made or replaced.
#[derive(Clone, Debug)]
pub struct Made {
    pub name: String,
    pub oid: i64,
    pub mark: Mark,
    /// Whether this role may act as its owner.
    pub is_ours: bool,
    pub sessions: i64,
    /// Those of pgtend and its client tools among them.
    pub sessions_of_pgtend: i64,
}

/// A set, as far as it matters to the choice.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub taken_at: DateTime<Utc>,
    pub bytes: Bytes,
    pub is_from_the_future: bool,
    /// The database that it was taken from.
    pub from: Place,
    /// The series that it belongs to.
    pub series: Option<Identity>,
}

impl Candidate {
    fn of(set: &Set, series: &Series, clock: DateTime<Utc>) -> Self {
        Self {
            name: set.name.to_string(),
            taken_at: set.name.taken_at,
            bytes: set.verification.verdict(),
            is_from_the_future: set.is_from_the_future(clock),
            from: Place::of(&set.manifest.server),
            series: series.identity_of(set),
        }
    }
}

/// Reads the target's facts, in a session that has ended when this returns: no database with a session is renamed. The number is that of the
/// session's server process, which may live for some milliseconds more.
pub async fn target(run: &RunContext<'_>) -> Result<(ServerFacts, i32)> {
    let name = run.settings.database();
    let mut connection = run.settings.connect().await.map_err(|error| match pg::sql_state(&error).as_deref() {
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
    let pid = pg::backend_pid(&mut connection).await?;
    let facts = facts::server(&mut connection, &run.settings).await?;
    connection.close().await.map_err(pg::in_its_own_words)?;
    Ok((facts, pid))
}

/// Reads everything else. `server`: a session in another database of the target's server.
pub async fn read(
    run: &RunContext<'_>,
    server: &mut PgConnection,
    facts: &ServerFacts,
    own_pid: i32,
    listed: &Listed,
) -> Result<State> {
    let name = run.settings.database();
    let clock = clock(server).await?;
    let mut sources = Vec::new();
    for job in run.others {
        let databases: &[String] = if store_of(job).is_some() { &job.databases } else { &[] };
        for database in databases {
            let place = place_of(run, database).await.with_context(|| {
                format!(
                    "cannot tell whether {name} is the database `{database}`, which job `{}` backs up, so it is not replaced",
                    job.name
                )
            })?;
            sources.push((job.name.clone(), place));
        }
    }
    let ledger = match run.ledger {
        Some(ledger) => Some(place(&mut ledger.connect().await?).await?),
        None => None,
    };
    Ok(State {
        clock,
        target: Place::of(facts),
        in_recovery: facts.in_recovery,
        sessions: sessions(server, name, own_pid).await?,
        sources,
        ledger,
        made: made(server, name).await?,
        sets: listed.sets.iter().map(|set| Candidate::of(set, &listed.series, clock)).collect(),
    })
}

/// The sets of the job.
pub struct Listed {
    pub sets: Vec<Set>,
    pub series: Series,
    /// What was seen beside them.
    pub notes: Vec<String>,
}

/// Lists the sets. What cannot be listed may be newer than all that is: then it is an error.
pub async fn list(store: &Store, source: &Source) -> Result<Listed> {
    let listing = set::list(store, &key::folder(&source.database, &source.job)).await?;
    if let Some(doubt) = listing.doubt() {
        anyhow::bail!(doubt);
    }
    let (series, trouble) = Series::read(store, &source.database, &source.job).await?;
    let unreadable = listing.unreadable.iter().map(|(name, reason)| format!("{name} cannot be restored: {reason}"));
    let notes = unreadable.chain(listing.not_ours_in_words()).chain(trouble).collect();
    Ok(Listed { sets: listing.sets, series, notes })
}

async fn place_of(run: &RunContext<'_>, database: &str) -> Result<Place> {
    let configured =
        run.config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    place(&mut configured.settings()?.connect().await?).await
}

async fn place(connection: &mut PgConnection) -> Result<Place> {
    let identifier = sqlx::query_scalar("SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()");
    // An administrator may have revoked it.
    let system_identifier: Option<String> = identifier.fetch_one(&mut *connection).await.ok();
    let (database, oid): (String, i64) = sqlx::query_as(
        "SELECT datname::pg_catalog.text, oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    )
    .fetch_one(connection)
    .await?;
    Ok(Place { system_identifier, database, oid: Some(oid) })
}

/// The oid of the database that has this name now.
pub async fn oid(server: &mut PgConnection, name: &str) -> Result<Option<i64>> {
    let oid = sqlx::query_scalar("SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = $1");
    Ok(oid.bind(name).fetch_optional(server).await?)
}

pub async fn clock(server: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.clock_timestamp()").fetch_one(server).await?)
}

/// The sessions in a database, other than `own_pid`. The server itself ends workers of autovacuum; a role that may not see what kind a session of others
/// is knows them by having no role.
pub async fn sessions(server: &mut PgConnection, database: &str, own_pid: i32) -> Result<Vec<Session>> {
    let found = sqlx::query_as(
        "SELECT pid, coalesce(usename::pg_catalog.text, '') AS role, coalesce(application_name, '') AS application
         FROM pg_catalog.pg_stat_activity
         WHERE datname = $1 AND pid <> $2 AND usesysid IS NOT NULL
           AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')
         ORDER BY pid",
    );
    Ok(found.bind(database).bind(own_pid).fetch_all(server).await?)
}

/// The databases with a mark of this target.
pub async fn made(server: &mut PgConnection, target: &str) -> Result<Vec<Made>> {
    type Row = (String, i64, String, bool, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT d.datname::pg_catalog.text, d.oid::pg_catalog.int8, pg_catalog.shobj_description(d.oid, 'pg_database'),
                pg_catalog.pg_has_role(d.datdba, 'USAGE'), pg_catalog.count(a.pid),
                pg_catalog.count(a.pid) FILTER (WHERE a.application_name = 'pgtend')
         FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_stat_activity a ON a.datid = d.oid
         WHERE pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $1)
         GROUP BY d.datname, d.oid, d.datdba ORDER BY 1",
    )
    .bind(mark::WORDS)
    .fetch_all(server)
    .await?;
    let made = rows.into_iter().filter_map(|(name, oid, comment, is_ours, sessions, sessions_of_pgtend)| {
        let mark = Mark::of_comment(&comment)?;
        Some(Made { name, oid, mark, is_ours, sessions, sessions_of_pgtend })
    });
    Ok(made.filter(|made| made.mark.target == target && mark::fits(&made.name, &made.mark)).collect())
}
