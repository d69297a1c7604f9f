//! What a store holds, and what it answers.

use chrono::{DateTime, Utc};

/// Manifests and the like: larger ones are not ours. A manifest of 100,000 tables has about 25 MiB.
pub const SMALL_OBJECT_BYTES: u64 = 64 << 20;

/// A complete object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified_at: Option<DateTime<Utc>>,
}

/// What a look into a folder has shown.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// In key order.
    pub objects: Vec<Object>,
    /// What could not be looked into: of a directory, folders of other users and symbolic links.
    pub unread: Vec<Unread>,
}

/// A part of a store that could not be looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub key: String,
    /// "it cannot be read: Permission denied"
    pub reason: String,
    /// There may be objects below it. False of a link to a file.
    pub hides_folder: bool,
}

/// Which content of an object is meant: S3's ETag; of a file, a hash of what is in it. To be compared, not to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// What must be so for a write to happen.
#[derive(Clone, Copy, Debug)]
pub enum Precondition<'a> {
    /// There is no object of that key (If-None-Match: *).
    Absent,
    /// It is still this one (If-Match).
    Unchanged(&'a Version),
}

/// Why an object cannot be deleted yet: Object Lock. Found in an error of [`Store::delete`] by `downcast_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// None where the server does not say: a legal hold has no end.
    pub until: Option<DateTime<Utc>>,
}

impl std::fmt::Display for Locked {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.until {
            Some(until) => write!(f, "locked until {}", until.format("%Y-%m-%d %H:%M UTC")),
            None => f.write_str("locked without a known end"),
        }
    }
}

impl std::error::Error for Locked {}

/// What an upload that never ended has left: parts that are billed, a temporary file.
#[derive(Clone, Debug)]
pub struct Unfinished {
    pub key: String,
    /// Upload id, or the temporary file's key.
    pub id: String,
    pub started_at: Option<DateTime<Utc>>,
}
