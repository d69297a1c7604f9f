//! Where a set is restored for its proof: in a PostgreSQL server of its own on this host, or in a scratch database.

use crate::base::fault::Kind;
use crate::pg;
use crate::pg::throwaway::Host;

#[derive(Clone, Debug)]
pub enum Place {
    /// The job does not prove by a restore.
    NotAsked,
    /// A server of its own, on this host.
    OwnServer(Host),
    /// A scratch database on the source's server; where the job leaves the choice to pgtend, with why not in a server of its own.
    Source { why: Option<String> },
    /// A scratch database on that server.
    Elsewhere(pg::Settings),
    /// The job asks for a server of its own, which cannot be made: why.
    Nowhere { kind: Kind, message: String },
}

impl Place {
    /// The server on which scratch databases are made, where some are. `source`: the database's own.
    pub fn scratch_settings(&self, source: &pg::Settings) -> pg::Settings {
        match self {
            Self::Elsewhere(settings) => settings.clone(),
            _ => source.clone(),
        }
    }

    /// For `check --connect`: why the proof falls back to the source's server.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Source { why: Some(why) } => Some(format!(
                "sets are proved in a scratch database on the source's own server, since a server of its own cannot be made here: {why}"
            )),
            _ => None,
        }
    }

    /// What a run would do, for its plan. `scratch`: the name of its scratch database.
    pub fn in_words(&self, scratch: &str) -> String {
        match self {
            Self::NotAsked => "not restored".to_owned(),
            Self::OwnServer(host) => format!(
                "restored in a PostgreSQL {} of its own ({}), every table counted",
                host.programs.version,
                host.parent.display()
            ),
            Self::Source { why: None } | Self::Elsewhere(_) => {
                format!("restored into scratch database {scratch}, every table counted")
            }
            Self::Source { why: Some(why) } => format!(
                "restored into scratch database {scratch}, every table counted (on the source's server, since a server of its own cannot be made here: {why})"
            ),
            Self::Nowhere { message, .. } => message.clone(),
        }
    }
}
