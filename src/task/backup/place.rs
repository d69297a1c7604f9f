//! The place where a set is restored for its proof: a PostgreSQL server of its own on this host, or a scratch database.

use crate::base::fault::Kind;
use crate::pg;
use crate::pg::throwaway::Host;
use crate::task::backup::choices::RowCheck;
use crate::work::RestoresOn;

#[derive(Clone, Debug)]
pub enum Place {
    /// The job does not verify by a restore.
    NotAsked,
    /// A server of its own, on this host.
    OwnServer(Host),
    /// A scratch database on the source's server; if the job leaves the choice to pgtend, with the reason against a server of its own.
    Source { why: Option<String> },
    /// A scratch database on that server.
    Elsewhere(pg::Settings),
    /// The job asks for a server of its own, which cannot be created, for this reason.
    Nowhere { kind: Kind, message: String },
}

impl Place {
    /// Returns the server for scratch databases, if any are needed. `source` is the server of the database.
    pub fn scratch_settings(&self, source: &pg::Settings) -> pg::Settings {
        match self {
            Self::Elsewhere(settings) => settings.clone(),
            _ => source.clone(),
        }
    }

    /// Returns the server on which code in the dump would run.
    pub fn restores_on(&self) -> RestoresOn {
        match self {
            Self::NotAsked | Self::OwnServer(_) | Self::Nowhere { .. } => RestoresOn::OwnServer,
            Self::Source { why } => RestoresOn::Source { why: why.clone() },
            Self::Elsewhere(settings) => RestoresOn::Elsewhere(settings.clone()),
        }
    }

    /// Returns, for `check --connect`, the reason why the proof falls back to the source's server.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Source { why: Some(why) } => Some(format!(
                "sets are restored into a scratch database on the source's own server, since a server of its own cannot be created here: {why}"
            )),
            _ => None,
        }
    }

    /// Says in a plan what the run would do. `scratch` is the name of its scratch database.
    pub fn in_words(&self, scratch: &str, rows: RowCheck) -> String {
        let rows = if rows == RowCheck::Hash { "every table counted and its rows hashed" } else { "every table counted" };
        match self {
            Self::NotAsked => "not restored".to_owned(),
            Self::OwnServer(host) => {
                format!("restored in a PostgreSQL {} of its own ({}), {rows}", host.programs.version, host.parent.display())
            }
            Self::Source { why: None } | Self::Elsewhere(_) => {
                format!("restored into scratch database {scratch}, {rows}")
            }
            Self::Source { why: Some(why) } => format!(
                "restored into scratch database {scratch}, {rows} (on the source's server, since a server of its own cannot be created here: {why})"
            ),
            Self::Nowhere { message, .. } => message.clone(),
        }
    }
}
