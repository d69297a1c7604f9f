//! A batch of rows: its names in the store, its source, and its written object.

use serde::{Deserialize, Serialize};

use crate::live::governor::Steps;
use crate::members::compress::Compression;
use crate::members::decrypt::Coding;
use crate::members::encryption::Encryption;
use crate::store::{Store, key};

pub(super) const OBJECT: &str = ".sql.gz";

pub(super) const ENCRYPTED_OBJECT: &str = ".sql.gz.age";

pub(super) const PENDING: &str = ".pending.json";

pub(super) const RESTORED: &str = ".restored.json";

pub(super) const MANIFEST: &str = ".json";

/// The rows to archive, and the table that they belong to.
#[derive(Clone, Debug)]
pub struct Source {
    pub schema: String,
    pub table: String,
    /// The columns in the order of `query`, without generated ones, which take no values.
    pub columns: Vec<String>,
    /// Queries of these columns, one after another: together they give the rows.
    pub queries: Vec<String>,
    /// The rest between them; `None` when there are no other sessions to be considerate of.
    pub steps: Option<Steps>,
}

/// An object as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub rows: u64,
    pub bytes: u64,
    pub uncompressed_bytes: u64,
    /// The hash of the object.
    pub sha256: String,
    /// None: it is not encrypted. Otherwise `bytes` and `sha256` are of the object as it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl Exported {
    /// How its rows are read.
    pub(super) fn coding(&self, store: &Store) -> Coding {
        Coding::new(Compression::Gzip, self.encryption.as_ref(), store.age_keys())
    }
}

/// A batch's name without endings: its key in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchName(pub(super) String);

impl BatchName {
    /// Returns the name of the batch whose object has this key.
    pub fn of_object(key: &str) -> Option<Self> {
        key.strip_suffix(ENCRYPTED_OBJECT).or_else(|| key.strip_suffix(OBJECT)).map(|name| Self(name.to_owned()))
    }

    /// Returns the key of its object, as its manifest describes that.
    pub fn object(&self, exported: &Exported) -> String {
        self.object_in(exported.encryption.is_some())
    }

    pub(super) fn object_in(&self, is_encrypted: bool) -> String {
        format!("{}{}", self.0, if is_encrypted { ENCRYPTED_OBJECT } else { OBJECT })
    }

    /// Returns the keys that its object may have.
    pub(super) fn objects(&self) -> [String; 2] {
        [self.object_in(false), self.object_in(true)]
    }

    /// Returns whether an object with this key belongs to it: one that counts, or one on the way there.
    pub(super) fn has(&self, key: &str) -> bool {
        key.strip_prefix(&self.0).is_some_and(|end| [OBJECT, ENCRYPTED_OBJECT, PENDING, MANIFEST].contains(&end))
    }

    pub(super) fn pending(&self) -> String {
        format!("{}{PENDING}", self.0)
    }

    /// Returns whether it stands in an archive of that database, of whichever job.
    pub fn is_of_database(&self, database: &str) -> bool {
        let folders: Vec<&str> = self.0.split('/').collect();
        matches!(folders[..], [first, _, "archive", _] if first == key::encode(database))
    }

    /// Returns the number of its transaction, as [`super::Archive::name`] and [`Self::further`] write it.
    pub(super) fn transaction(&self) -> Option<i64> {
        // 2026-11-29T02-00-00Z-0000001234-5f3a09bc, or with -01 after it; without 5f3a09bc by earlier releases.
        self.0.rsplit('/').next()?.split_once("Z-")?.1.split('-').next()?.parse().ok()
    }

    /// Names a batch of further rows of the same transaction; it sorts after this one, and after those with lower numbers.
    pub fn further(&self, number: usize) -> Self {
        Self(format!("{}-{number:02}", self.0))
    }
}

impl std::fmt::Display for BatchName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_release_say_their_transaction_and_sort_by_it() {
        let of = |name: &str| BatchName(format!("a%2Fb/job/archive/2026-11-29T02-00-00Z-{name}"));
        let names = ["0000000009-ff00ff00", "0000000010", "0000000010-01", "0000000011-00ff00ff", "0000000011-00ff00ff-01"];
        let names = names.map(of);
        assert_eq!(names.clone().map(|name| name.transaction()), [9, 10, 10, 11, 11].map(Some));
        assert!(names.is_sorted());
        assert!(names.iter().all(|name| name.is_of_database("a/b")));
        assert!(names[3].has(&names[3].object_in(true)) && !names[3].has(&names[4].object_in(true)));
    }
}
