//! The identity of sets: a server's system identifier and a database.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::facts::ServerFacts;

/// A database, independent of its name in configurations. As text: `SYSTEM_IDENTIFIER/DATABASE`. Two are equal without regard to OIDs, which are not always
/// known: [`Identity::is_another_of_that_name`] compares these.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The identifier of the cluster, set by initdb: a copy has the same one (pg_basebackup), an upgraded server has another.
    pub system_identifier: String,
    pub database: String,
    /// Of the databases that have had this name on the server, each has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<i64>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.system_identifier, &self.database) == (&other.system_identifier, &other.database)
    }
}

impl Eq for Identity {}

impl Identity {
    /// None where the system identifier may not be read.
    pub fn of(server: &ServerFacts) -> Option<Self> {
        let system_identifier = server.system_identifier.clone()?;
        Some(Self { system_identifier, database: server.database.name.clone(), oid: server.database.oid })
    }

    /// Returns whether an OID is that of another database, which has had the same name: what is not known says nothing.
    pub fn is_another_of_that_name(&self, oid: Option<i64>) -> bool {
        self.oid.zip(oid).is_some_and(|(own, other)| own != other)
    }

    /// `text` may be the whole identity, or only the system identifier.
    pub fn is_meant_by(&self, text: &str) -> bool {
        text == self.system_identifier || text == self.to_string()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.system_identifier, self.database)
    }
}

impl FromStr for Identity {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (system_identifier, database) =
            text.split_once('/').with_context(|| format!("`{text}` is not SYSTEM_IDENTIFIER/DATABASE"))?;
        Ok(Self { system_identifier: system_identifier.to_owned(), database: database.to_owned(), oid: None })
    }
}
