//! Objects of a store that must be thawed before they can be read.

use std::fmt;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::Store;

/// Such an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    pub key: String,
    pub class: Class,
    pub thaw: Thaw,
}

/// A storage class, or a tier of INTELLIGENT_TIERING, whose objects are not read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Glacier,
    DeepArchive,
    ArchiveTier,
    DeepArchiveTier,
}

/// How far an object is on its way to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thaw {
    None,
    UnderWay,
    /// It can be read until then; None: until it is archived again.
    Done {
        until: Option<DateTime<Utc>>,
    },
}

impl Class {
    /// By the name that S3 gives it; None for a class whose objects are read at once, such as GLACIER_IR.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "GLACIER" => Some(Self::Glacier),
            "DEEP_ARCHIVE" => Some(Self::DeepArchive),
            _ => None,
        }
    }

    /// How many hours a thaw takes at most, by AWS's user guide ("Understanding archive retrieval options"), in the tier Standard.
    pub fn thaws_in_hours(self) -> u8 {
        match self {
            Self::Glacier | Self::ArchiveTier => 5,
            Self::DeepArchive | Self::DeepArchiveTier => 12,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Glacier => "GLACIER",
            Self::DeepArchive => "DEEP_ARCHIVE",
            Self::ArchiveTier => "INTELLIGENT_TIERING (Archive Access)",
            Self::DeepArchiveTier => "INTELLIGENT_TIERING (Deep Archive Access)",
        })
    }
}

impl Archived {
    pub fn is_readable(&self) -> bool {
        matches!(self.thaw, Thaw::Done { .. })
    }

    /// "GLACIER, thawed until 2026-12-21"
    pub fn in_words(&self) -> String {
        let class = self.class;
        match self.thaw {
            Thaw::None => class.to_string(),
            Thaw::UnderWay => format!("{class}, being thawed"),
            Thaw::Done { until: Some(until) } => format!("{class}, thawed until {}", until.format("%Y-%m-%d")),
            Thaw::Done { until: None } => format!("{class}, thawed"),
        }
    }
}

impl Store {
    /// Lists such objects below a folder, by one more listing, which tells nothing of archive tiers. None in other stores than S3.
    pub async fn archived(&self, folder: &str) -> Result<Vec<Archived>> {
        match self {
            Self::S3(s3) => s3.archived(folder).await.with_context(|| format!("cannot list {}", self.location(folder))),
            _ => Ok(Vec::new()),
        }
    }

    /// Does the same for a small folder, archive tiers included: each object that may be archived is asked about.
    pub async fn archived_exactly(&self, folder: &str) -> Result<Vec<Archived>> {
        match self {
            Self::S3(s3) => s3.archived_exactly(folder).await.with_context(|| format!("cannot list {}", self.location(folder))),
            _ => Ok(Vec::new()),
        }
    }

    /// Starts the thaw of an object, so that it can be read for so many days.
    pub async fn thaw(&self, archived: &Archived, days: u32) -> Result<()> {
        match self {
            Self::S3(s3) => {
                s3.thaw(archived, days).await.with_context(|| format!("cannot thaw {}", self.location(&archived.key)))
            }
            _ => Ok(()),
        }
    }
}
