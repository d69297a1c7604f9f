//! Tags of objects in S3, by which lifecycle rules of the bucket choose. Those of pgtend begin with `pgtend-`; others stay as they are.

use std::fmt;

use anyhow::{Context as _, Result};

use super::Store;

/// What every tag of pgtend begins with.
pub const OWN: &str = "pgtend-";

/// How a set was proved, and the longest rule that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// `restore` or `checksum`.
    pub proved: &'static str,
    /// `weekly`, `monthly` or `yearly`.
    pub keep: &'static str,
}

impl Tags {
    pub(super) fn pairs(&self) -> [(String, String); 2] {
        [("proved", self.proved), ("keep", self.keep)].map(|(name, value)| (format!("{OWN}{name}"), value.to_owned()))
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{OWN}proved={}, {OWN}keep={}", self.proved, self.keep)
    }
}

impl Store {
    /// Returns whether older sets in it are tagged for lifecycle rules.
    pub fn tags_proved(&self) -> bool {
        matches!(self, Self::S3(s3) if s3.tags_proved())
    }

    /// Gives an object these tags of pgtend, and no others of pgtend. Returns whether it was changed.
    pub async fn tag(&self, key: &str, tags: Option<&Tags>) -> Result<bool> {
        let Self::S3(s3) = self else { return Ok(false) };
        let own = tags.map(Tags::pairs).into_iter().flatten().collect();
        s3.tag(key, own).await.with_context(|| format!("cannot tag {}", self.location(key)))
    }
}
