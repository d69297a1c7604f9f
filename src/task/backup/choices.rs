//! The choices of a person for a restore.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::facts::{Extension, ServerFacts};
use crate::pg::schemas::Schema;

/// By default all of the dump is restored as it is, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    pub on_error: OnError,
    /// What of each table's rows is compared with the set when they are in.
    pub rows: RowCheck,
    pub without: Vec<Without>,
    /// The search_path to use instead of pg_dump's empty one.
    pub search_path: Option<String>,
    /// All objects are owned by the restoring role.
    pub no_owner: bool,
    /// A role with the rights of a superuser may become the owner of what others wrote.
    pub trust_owners: bool,
    /// All objects are put into the database's own tablespace.
    pub no_tablespaces: bool,
    /// The source's name, and the target's.
    pub role_map: Vec<(String, String)>,
    /// The database is dropped afterwards: nothing in it may reach out, and what only the target lacks does not matter.
    pub for_scratch: bool,
    /// It is done for `[refresh]`, whose keys are not all of these.
    pub for_refresh: bool,
    /// Only a part of a set is restored, into a database with other objects: the schemas there by whose names it goes.
    pub of_part: Option<Vec<Schema>>,
    /// The restore is in a server of its own: its role is a member of no other, and the parts that it cannot test are known beforehand.
    pub in_own_server: bool,
    /// Vector indexes (hnsw, ivfflat) are made over no row.
    pub no_vector_indexes: bool,
    /// The restoring role is a superuser, as its session has found.
    pub by_superuser: bool,
    /// The extensions that a superuser has already created there, with their schemas.
    pub made_before: Vec<Extension>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// The restore stops at the first statement that fails, and nothing is restored.
    #[default]
    Stop,
    /// Each statement is independent; those that failed are listed.
    Continue,
}

/// How the rows of a restored table are compared with the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowCheck {
    /// They are counted.
    #[default]
    Count,
    /// They are read back, counted and hashed: their values are compared as well.
    Hash,
}

/// An object of the dump that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Without {
    pub kind: Object,
    /// The name as in the catalog, optionally prefixed with its schema or table and a dot.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Constraint,
    Index,
    Extension,
}

impl Object {
    pub fn name(self) -> &'static str {
        match self {
            Self::Constraint => "CONSTRAINT",
            Self::Index => "INDEX",
            Self::Extension => "EXTENSION",
        }
    }
}

impl FromStr for Object {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Constraint, Self::Index, Self::Extension]
            .into_iter()
            .find(|object| object.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("`{text}` cannot be left out: use CONSTRAINT, INDEX or EXTENSION"))
    }
}

impl Choices {
    /// The choices for a database that is dropped when its restore was proved.
    pub fn for_scratch() -> Self {
        Self { for_scratch: true, ..Self::default() }
    }

    /// The same in a server of its own, where a superuser has already created these extensions.
    pub fn for_own_server(made_before: Vec<Extension>) -> Self {
        Self { in_own_server: true, made_before, ..Self::for_scratch() }
    }

    pub fn leaves_out_extension(&self, name: &str) -> bool {
        self.without.iter().any(|without| without.kind == Object::Extension && without.name == name)
    }

    /// The name that a role of the source has on the target.
    pub fn role<'a>(&'a self, name: &'a str) -> &'a str {
        self.role_map.iter().find(|(old, _)| old == name).map_or(name, |(_, new)| new)
    }

    /// The source as the target will see it: without extensions that are left out, with roles by their new names. With `no_owner` owners do
    /// not matter; a missing role that has grants is noticed during the restore.
    pub fn needed_of(&self, source: &ServerFacts) -> ServerFacts {
        let mut needed = source.clone();
        needed.extensions.retain(|extension| !self.leaves_out_extension(&extension.name));
        needed.roles = match self.no_owner {
            true => Vec::new(),
            false => source.roles.iter().map(|role| self.role(role).to_owned()).collect(),
        };
        needed.roles.sort();
        needed.roles.dedup();
        needed
    }
}
