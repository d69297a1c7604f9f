//! A set's name in a store: DATABASE/JOB/TIME.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use chrono::{DateTime, SubsecRound as _, Utc};

use crate::store::key::{TIME, decode, encode, folder, parse_time};

/// The location of a set. Its text form is `DATABASE/JOB/TIME`, as in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName {
    pub database: String,
    pub job: String,
    /// Whole seconds.
    pub taken_at: DateTime<Utc>,
}

impl SetName {
    pub fn new(database: &str, job: &str, taken_at: DateTime<Utc>) -> Self {
        Self { database: database.to_owned(), job: job.to_owned(), taken_at: taken_at.trunc_subsecs(0) }
    }

    /// The key of one of its objects.
    pub fn key(&self, object: &str) -> String {
        format!("{}{}/{object}", folder(&self.database, &self.job), self.taken_at.format(TIME))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}/{}", encode(&self.database), encode(&self.job), self.taken_at.format(TIME))
    }
}

impl FromStr for SetName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [database, job, time] = parts[..] else { anyhow::bail!("`{text}` is not DATABASE/JOB/TIME") };
        let taken_at = parse_time(time).with_context(|| format!("`{time}` is not a set's time, like 2026-11-23T02-00-00Z"))?;
        Ok(Self { database: decode(database)?, job: decode(job)?, taken_at })
    }
}
