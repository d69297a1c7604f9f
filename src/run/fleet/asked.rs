//! Who is asked what there is: a server for its databases, or a database for its schemas.

use std::fmt;

use anyhow::{Context as _, Result};

use crate::config::{Config, places, servers};
use crate::pg::databases::{self, Listed};
use crate::pg::tenants;
use crate::store::key;

/// A folder of a store has at most this many bytes in its name.
const FOLDER_LONGEST: usize = 255;

/// What ends the name of a database in the ledger, where its schemas are meant: no server is called so.
const SCHEMAS: &str = ":*";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Server(String),
    /// A database, by its name in the configuration.
    Database(String),
}

impl Asked {
    /// Returns who is meant by the name of a list in the ledger.
    pub fn in_ledger(name: &str) -> Self {
        match name.strip_suffix(SCHEMAS) {
            Some(database) => Self::Database(database.to_owned()),
            None => Self::Server(name.to_owned()),
        }
    }

    /// Returns the name of its list in the ledger.
    pub fn ledger_name(&self) -> String {
        match self {
            Self::Server(server) => server.clone(),
            Self::Database(database) => format!("{database}{SCHEMAS}"),
        }
    }

    /// Returns what it has.
    pub fn has(&self) -> &'static str {
        match self {
            Self::Server(_) => "database",
            Self::Database(_) => "schema",
        }
    }

    /// Returns the name in the configuration of what it has under this name of its own.
    pub fn name_of(&self, own: &str) -> String {
        match self {
            Self::Server(server) => servers::name_of(server, own),
            Self::Database(database) => places::name_of(database, own),
        }
    }

    /// Returns the own name of what is known so.
    pub fn own_name(&self, name: &str) -> Option<String> {
        match self {
            Self::Server(_) => servers::parts(name).map(|(_, own)| own),
            Self::Database(_) => places::parts(name).map(|(_, own)| own),
        }
    }

    /// Asks it, for a bounded time.
    pub async fn ask(&self, config: &Config) -> Result<Listed> {
        let listed = match self {
            Self::Server(server) => {
                let server = config.servers.get(server).context("the server is configured")?;
                databases::list(&server.login.settings()?).await?
            }
            Self::Database(database) => {
                let database = config.database(database).context("the database is configured")?;
                tenants::list(&database.settings()?).await?
            }
        };
        Ok(self.without_long_names(listed))
    }
}

impl Asked {
    /// What has a name that no folder can have would have no sets.
    fn without_long_names(&self, mut listed: Listed) -> Listed {
        let is_short = |own: &String| key::encode(&self.name_of(own)).len() <= FOLDER_LONGEST;
        let (short, long): (Vec<_>, Vec<_>) = listed.names.into_iter().partition(is_short);
        listed.names = short;
        listed.left_out.extend(long.into_iter().map(|own| (own, "its name is too long for a folder of a store")));
        listed
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(name) => write!(f, "server `{name}`"),
            Self::Database(name) => write!(f, "database `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_a_server_and_of_a_database_of_one_name_are_two_in_the_ledger() {
        let (server, database) = (Asked::Server("app".to_owned()), Asked::Database("app".to_owned()));
        assert_ne!(server.ledger_name(), database.ledger_name());
        for asked in [server, database, Asked::Database("main.a.2Fb".to_owned()), Asked::Database("odd:*".to_owned())] {
            assert_eq!(Asked::in_ledger(&asked.ledger_name()), asked);
            assert_eq!(asked.own_name(&asked.name_of("T*/x")).as_deref(), Some("T*/x"), "{asked}");
        }
        assert!(!servers::is_a_name("app:*"));
    }
}
