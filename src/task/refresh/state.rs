//! Reads what a refresh depends on: its target, the databases that earlier runs made beside it, the databases that are backed up, and the sets.
//! It changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;

use super::copies::Listed;
use super::mark::{self, Mark, What};
use super::source::stores_of;
use crate::config::servers;
use crate::task::backup::facts::ServerFacts;
use crate::task::backup::identity::Identity;
use crate::task::backup::series::Series;
use crate::task::backup::set::Set;
use crate::task::backup::verdict::Bytes;
use crate::work::{self, RunContext};

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
    /// Whether it belongs to a run of another job, as far as that can be seen: by its name, which a URL may change, by the lock of a run, or by what
    /// a session with such a lock says of itself.
    pub is_of_pgtend: bool,
    /// Whether this role may read what it runs. Otherwise it may be of another job of pgtend.
    pub is_readable: bool,
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
    /// Whether its owner may say what it is: this role, a superuser, or for an old one the owner of the target, who had it.
    pub is_believed: bool,
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

/// Reads everything but the target itself. `server`: a session in another database of the target's server.
pub async fn read(
    run: &RunContext<'_>,
    server: &mut PgConnection,
    facts: &ServerFacts,
    own_pid: i32,
    listed: &Listed,
) -> Result<State> {
    let name = run.settings.database();
    let clock = clock(server).await?;
    let (mut sources, mut identifiers) = (Vec::new(), HashMap::new());
    for job in run.others {
        let places: &[String] = if stores_of(job).is_some() { &job.databases } else { &[] };
        // What has a schema that is backed up alone is not replaced either.
        let databases: BTreeSet<&str> = places.iter().map(|place| run.config.database_of(place)).collect();
        for database in databases {
            let place = place_of(run, database, &mut identifiers).await.with_context(|| {
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
        sessions: sessions(server, run, own_pid).await?,
        sources,
        ledger,
        made: made(server, name).await?,
        sets: listed.sets.iter().map(|copies| Candidate::of(&copies.first.set, &listed.series, clock)).collect(),
    })
}

/// Databases that were found on a server are thousands: each is known by its name and its server's identifier, for which that is asked once.
async fn place_of(run: &RunContext<'_>, name: &str, identifiers: &mut HashMap<String, Option<String>>) -> Result<Place> {
    let configured = run.config.database(name).with_context(|| format!("the configuration has no database `{name}`"))?;
    let found = if run.config.databases.contains_key(name) { None } else { servers::parts(name) };
    let Some((server, database)) = found else {
        return place(&mut configured.settings()?.connect().await?).await;
    };
    let system_identifier = match identifiers.get(server) {
        Some(identifier) => identifier.clone(),
        None => {
            let login =
                &run.config.servers.get(server).with_context(|| format!("the configuration has no server `{server}`"))?.login;
            let identifier = place(&mut login.settings()?.connect().await?).await?.system_identifier;
            identifiers.insert(server.to_owned(), identifier.clone());
            identifier
        }
    };
    Ok(Place { system_identifier, database, oid: None })
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

/// The sessions in the target, other than `own_pid`. The server itself ends workers of autovacuum; a role that may not see what kind a session of others
/// is knows them by having no role.
pub async fn sessions(server: &mut PgConnection, run: &RunContext<'_>, own_pid: i32) -> Result<Vec<Session>> {
    let locks: Vec<String> =
        run.others.iter().flat_map(|job| job.databases.iter().map(|database| work::lock_name(database, &job.name))).collect();
    let found = sqlx::query_as(
        "SELECT a.pid, coalesce(a.usename::pg_catalog.text, '') AS role, coalesce(a.application_name, '') AS application,
                coalesce(a.application_name = 'pgtend', false) OR coalesce(pg_catalog.strpos(a.query, '-- pgtend {') > 0, false)
                OR EXISTS (SELECT FROM pg_catalog.pg_locks l
                           WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                             AND ((l.classid::pg_catalog.int8 << 32) | l.objid::pg_catalog.int8)
                                 IN (SELECT pg_catalog.hashtextextended(name, 0) FROM pg_catalog.unnest($3::pg_catalog.text[]) name)) AS is_of_pgtend,
                coalesce(a.query <> '<insufficient privilege>', false) AND coalesce(a.state, '') <> 'disabled' AS is_readable
         FROM pg_catalog.pg_stat_activity a
         WHERE a.datname = $1 AND a.pid <> $2 AND a.usesysid IS NOT NULL
           AND coalesce(a.backend_type, 'client backend') IN ('client backend', 'walsender')
         ORDER BY a.pid",
    );
    Ok(found.bind(run.settings.database()).bind(own_pid).bind(locks).fetch_all(server).await?)
}

/// The databases with a mark of this target.
pub async fn made(server: &mut PgConnection, target: &str) -> Result<Vec<Made>> {
    type Row = (String, i64, String, bool, bool, bool, i64, i64);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT d.datname::pg_catalog.text, d.oid::pg_catalog.int8, pg_catalog.shobj_description(d.oid, 'pg_database'),
                pg_catalog.pg_has_role(d.datdba, 'USAGE'),
                EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = d.datdba AND (r.rolsuper OR r.rolname = current_user)),
                EXISTS (SELECT FROM pg_catalog.pg_database t WHERE t.datname = $2 AND t.datdba = d.datdba),
                pg_catalog.count(a.pid),
                pg_catalog.count(a.pid) FILTER (WHERE a.application_name IN ('pgtend', pg_catalog.current_setting('application_name')))
         FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_stat_activity a ON a.datid = d.oid
         WHERE pg_catalog.starts_with(pg_catalog.shobj_description(d.oid, 'pg_database'), $1)
         GROUP BY d.datname, d.oid, d.datdba ORDER BY 1",
    )
    .bind(mark::WORDS)
    .bind(target)
    .fetch_all(server)
    .await?;
    let made = rows.into_iter().filter_map(|(name, oid, comment, is_ours, by_us, by_target, sessions, sessions_of_pgtend)| {
        let mark = Mark::of_comment(&comment)?;
        let is_believed = by_us || by_target && mark.what == What::Old;
        Some(Made { name, oid, mark, is_ours, is_believed, sessions, sessions_of_pgtend })
    });
    Ok(made.filter(|made| made.mark.target == target && mark::fits(&made.name, &made.mark)).collect())
}

/// Who can connect to a copy, in words: it has no grant, and a superuser's accepts superusers alone. A member can let itself in.
pub async fn who_connects(server: &mut PgConnection) -> Result<String> {
    let (role, is_superuser, members): (String, bool, Option<String>) = sqlx::query_as(
        "SELECT me.rolname::pg_catalog.text, me.rolsuper,
                (SELECT pg_catalog.string_agg(m.rolname, ', ' ORDER BY m.rolname) FROM pg_catalog.pg_roles m
                 WHERE NOT m.rolsuper AND m.oid <> me.oid AND pg_catalog.pg_has_role(m.oid, me.oid, 'MEMBER'))
         FROM pg_catalog.pg_roles me WHERE me.rolname = current_user",
    )
    .fetch_one(server)
    .await?;
    Ok(match (is_superuser, members) {
        (true, _) => "superusers".to_owned(),
        (false, None) => format!("superusers and {role}"),
        (false, Some(members)) => format!("superusers, {role} and its members ({members})"),
    })
}
