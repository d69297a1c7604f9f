//! What a person asks of a restore.

use std::str::FromStr;

use super::facts::{Extension, ServerFacts};

/// The default is: all of the dump as it stands, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    pub on_error: OnError,
    pub without: Vec<Without>,
    /// In the place of pg_dump's empty one.
    pub search_path: Option<String>,
    /// Everything belongs to the role that restores.
    pub no_owner: bool,
    /// Everything goes to the database's own tablespace.
    pub no_tablespaces: bool,
    /// The source's name, and the target's.
    pub role_map: Vec<(String, String)>,
    /// The database is dropped afterwards: nothing in it may reach out, and what only the target lacks does not matter.
    pub for_scratch: bool,
    /// In a server of its own: its role is nobody's member, and what is not tried for that is known beforehand.
    pub in_own_server: bool,
    /// Extensions that a superuser has made there before; with their schemas.
    pub made_before: Vec<Extension>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnError {
    /// At the first statement that fails, and nothing is restored.
    #[default]
    Stop,
    /// Each statement stands by itself; those that failed are listed.
    Continue,
}

/// An object of the dump that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Without {
    pub kind: Object,
    /// As the catalog has it; its schema or its table may stand before it, with a dot.
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
            .ok_or_else(|| format!("`{text}` cannot be left out: CONSTRAINT, INDEX or EXTENSION"))
    }
}

impl Choices {
    /// For a database that is dropped when its restore was proved.
    pub fn for_scratch() -> Self {
        Self { for_scratch: true, ..Self::default() }
    }

    /// The same, where a superuser has made these extensions before.
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

    /// The source as the target will see it: without extensions that are left out, with roles by their new names. Whose
    /// things are, does not matter with `no_owner`; a missing role that has grants is then met midway.
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
