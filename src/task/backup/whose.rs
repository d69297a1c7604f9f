//! Whose sets count before a deployment, and why those of others do not.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::facts::{DatabaseFacts, ServerFacts};
use super::newest;
use super::series::{Belongs, Series};
use super::set::Set;
use super::stamp::{self, Stamp};
use crate::config::Config;
use crate::pg;
use crate::pg::databases::{self, Listed};

/// The server whose sets count.
pub enum Whose {
    /// The database's own, which is asked who it is. `by_name`: where that or a set's server is unknown, the database's name is enough.
    Own { by_name: bool },
    /// The one that a person names, as SYSTEM_IDENTIFIER/DATABASE, or by the first part alone: then the database is that of its `url`.
    Named(String),
}

/// The same after the database was asked.
#[derive(Clone)]
pub enum Theirs {
    Own {
        server: Box<ServerFacts>,
        by_name: bool,
    },
    Named {
        identity: String,
        database: Option<String>,
    },
    /// The database does not answer: nobody knows whose the sets of its name are.
    Unasked,
}

/// Another database than the one that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Another {
    /// SYSTEM_IDENTIFIER/DATABASE, where that is known.
    pub identity: Option<String>,
    /// It had the name on this server, and was dropped or renamed since; else it is of another server, or was called otherwise.
    pub is_of_an_earlier_one: bool,
}

/// What a server says of all of its databases at once, so that not each of them is asked.
#[derive(Clone, Debug, Default)]
pub struct OfServer {
    pub listed: Listed,
    clock: Option<DateTime<Utc>>,
    /// None where the role may not read it.
    system_identifier: Option<String>,
    /// By the databases' own names.
    stamps: HashMap<String, Stamp>,
}

impl OfServer {
    pub async fn ask(settings: &pg::Settings) -> Result<Self> {
        let listed = databases::list(settings).await?;
        let mut connection = settings.connect().await?;
        let (clock, oids): (DateTime<Utc>, Json<HashMap<String, i64>>) = sqlx::query_as(
            "SELECT pg_catalog.clock_timestamp(), coalesce(pg_catalog.jsonb_object_agg(d.datname, d.oid::bigint), '{}') FROM pg_catalog.pg_database d
             WHERE d.datname OPERATOR(pg_catalog.=) ANY ($1)",
        )
        .bind(&listed.names)
        .fetch_one(&mut connection)
        .await
        .map_err(pg::in_its_own_words)?;
        let identifier = "SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() s";
        let system_identifier = sqlx::query_scalar(identifier).fetch_one(&mut connection).await.ok();
        let numbers: Vec<i64> = oids.values().copied().collect();
        let mut marks = stamp::marks(&mut connection, &numbers).await?;
        let mut stamp = |oid: i64| {
            let stamp::Marks { recorded, younger } = marks.remove(&oid).unwrap_or_default();
            Stamp { oid: Some(oid), marks: recorded, younger, schema_oid: None }
        };
        let stamps = oids.0.into_iter().map(|(name, oid)| (name, stamp(oid))).collect();
        Ok(Self { listed, clock: Some(clock), system_identifier, stamps })
    }
}

impl Theirs {
    /// The same of a database that was found on a server, by its own name there.
    pub fn of_found(server: &OfServer, own: &str) -> Self {
        let Stamp { oid, marks, younger: younger_marks, .. } = server.stamps.get(own).cloned().unwrap_or_default();
        let database = DatabaseFacts { name: own.to_owned(), oid, marks, younger_marks, ..DatabaseFacts::default() };
        let (clock, system_identifier) = (server.clock, server.system_identifier.clone());
        let server = Box::new(ServerFacts { clock, system_identifier, database, ..ServerFacts::default() });
        Self::Own { server, by_name: false }
    }

    /// `database`: its name in the configuration.
    pub async fn of(config: &Config, database: &str, whose: &Whose) -> Result<Self> {
        Ok(match whose {
            Whose::Own { by_name } => {
                Self::Own { server: Box::new(newest::server_of(config, database).await?), by_name: *by_name }
            }
            Whose::Named(identity) => {
                let settings = config.place(database).and_then(|database| database.settings().ok());
                Self::Named { identity: identity.clone(), database: settings.map(|settings| settings.database().to_owned()) }
            }
        })
    }

    /// Takes sets from now on whose server, or the database's own, is unknown: the name is enough.
    pub fn take_names(&mut self) {
        if let Self::Own { by_name, .. } = self {
            *by_name = true;
        }
    }

    /// Returns the other database that a set is of, where that is sure.
    pub fn another(&self, series: &Series, set: &Set) -> Option<Another> {
        let Self::Own { server, .. } = self else { return None };
        let is_of_an_earlier_one = match series.belongs(server, set) {
            Belongs::OfAnEarlierOne => true,
            Belongs::Not => false,
            Belongs::Surely | Belongs::ByName { .. } => return None,
        };
        let identity = series.identity_of(set).map(|identity| identity.to_string());
        Some(Another { identity, is_of_an_earlier_one })
    }

    /// Says why a set is not theirs, or may not be.
    pub fn why_not(&self, series: &Series, set: &Set) -> Option<String> {
        match self {
            Self::Own { server, by_name } => not_its_own(series.belongs(server, set), server, *by_name, set),
            Self::Named { identity, database } => not_the_named(identity, database.as_deref(), series, set),
            Self::Unasked => None,
        }
    }
}

fn not_its_own(belongs: Belongs, server: &ServerFacts, by_name: bool, set: &Set) -> Option<String> {
    Some(match (belongs, set.identity()) {
        (Belongs::Surely, _) => return None,
        (Belongs::ByName { .. }, _) if by_name => return None,
        (Belongs::ByName { unknown }, _) => format!(
            "{unknown} is not known, so it may be of another one: GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() to the roles of both, or \
             trust the database's name: --by-name"
        ),
        (Belongs::OfAnEarlierOne, identity) => {
            let (own, theirs) = (server.database.stamp(), set.manifest.server.database.stamp());
            let (kind, difference) = (own.kind(), own.difference(&[&theirs], 1));
            let identity = identity.map_or("SYSTEM_IDENTIFIER".to_owned(), |identity| identity.to_string());
            let (is, was) = match own.is_told_by_marks(&[&theirs]) {
                true => ("may be", "that one may have been dropped or renamed since, or altered"),
                false => ("is", "that one was dropped or renamed since"),
            };
            format!(
                "it {is} of another {kind}, which had this name on this server before, {difference}: {was}. If the present one was restored from it, \
                 or is the same, accept its sets: --from {identity}"
            )
        }
        (Belongs::Not, Some(identity)) => format!("it is of another server or database, {identity}"),
        (Belongs::Not, None) => format!("it is of another database, {}", set.manifest.server.database.name),
    })
}

fn not_the_named(named: &str, database: Option<&str>, series: &Series, set: &Set) -> Option<String> {
    let Some(theirs) = series.identity_of(set) else {
        return Some("its manifest does not say of which server it is".to_owned());
    };
    if theirs.to_string() == named {
        return None;
    }
    match database {
        _ if theirs.system_identifier != named => Some(format!("it is of another server or database, {theirs}")),
        Some(database) if theirs.database == database => None,
        Some(database) => Some(format!(
            "it is of the database {} of that server, and the `url` names {database}; --from {theirs} means that one",
            theirs.database
        )),
        None => Some(format!("the `url` does not tell which database of that server is meant; --from {theirs} means this one")),
    }
}
