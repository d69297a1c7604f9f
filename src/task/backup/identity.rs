//! The identity of sets: a server's system identifier and a database.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::facts::ServerFacts;
use super::stamp::Stamp;

/// A database, independent of its name in configurations. As text: `SYSTEM_IDENTIFIER/DATABASE`. Two are equal without regard to stamps, which are not always
/// known: [`Stamp::is_of_another`] compares these.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The identifier of the cluster, set by initdb: a copy has the same one (pg_basebackup), an upgraded server has another.
    pub system_identifier: String,
    pub database: String,
    /// Of the databases that have had this name on the server, each has another one.
    #[serde(flatten)]
    pub stamp: Stamp,
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
        Some(Self { system_identifier, database: server.database.name.clone(), stamp: server.database.stamp() })
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
        Ok(Self { system_identifier: system_identifier.to_owned(), database: database.to_owned(), stamp: Stamp::default() })
    }
}
