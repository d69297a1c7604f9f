//! Sets whose dump pgtend did not make: `backups adopt` has taken it in. They stand in a folder of their own, count as no backup of a job, and no `keep`
//! deletes them.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::base::bounds::{self, Bounded};

/// The folder of adopted sets, in the place of a job's name.
pub const JOB: &str = "adopted";

/// What is not known, where a text must stand.
pub const UNKNOWN: &str = "unknown";

/// What is known of where an adopted dump comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The file's name, or the object's key.
    pub name: String,
    pub bytes: u64,
    /// Of the file or the object, as it was read; None beside an encrypted set, where a hash of rows could confirm a guess.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    pub form: Form,
    /// The encoding of the dump's text, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_encoding: Option<String>,
}

/// The form that the dump came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// SQL, as pg_dump writes it.
    Plain,
    /// The same in gzip.
    Gzip,
    /// The same in zstd.
    Zstd,
    /// pg_dump's custom format, compressed once more or not.
    Custom,
}

impl Adopted {
    /// The end of a line about the original.
    pub fn sha256_in_words(&self) -> String {
        self.sha256
            .as_ref()
            .map_or("SHA-256 not recorded beside an encrypted set".to_owned(), |sha256| format!("SHA-256 {sha256}"))
    }
}

impl Form {
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Plain => "SQL",
            Self::Gzip => "SQL in gzip",
            Self::Zstd => "SQL in zstd",
            Self::Custom => "pg_dump's custom format",
        }
    }
}

impl Bounded for Adopted {
    fn check(&self) -> Result<()> {
        bounds::count("adopted.bytes", self.bytes)?;
        self.sha256.iter().try_for_each(|sha256| bounds::sha256("adopted.sha256", sha256))
    }
}
