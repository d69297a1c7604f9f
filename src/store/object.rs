//! The objects and answers of a store.

use chrono::{DateTime, Utc};

/// Manifests and the like: larger ones are not ours. A manifest of 100,000 tables has about 25 MiB.
pub const SMALL_OBJECT_BYTES: u64 = 64 << 20;

/// A complete object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    pub bytes: u64,
    /// The time of its last write, by the store's clock.
    pub modified_at: Option<DateTime<Utc>>,
}

/// The result of listing a folder.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The objects in key order.
    pub objects: Vec<Object>,
    /// The parts that could not be read: in a directory, folders of other users and symbolic links.
    pub unread: Vec<Unread>,
}

impl Listed {
    pub(super) fn sort(&mut self) {
        self.objects.sort_by(|a, b| a.key.cmp(&b.key));
    }
}

/// A part of a store that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub key: String,
    /// The reason: "it cannot be read: Permission denied".
    pub reason: String,
    /// True when there may be objects below it; false for a link to a file.
    pub hides_folder: bool,
}

/// Identifies the content of an object: its ETag, Google's generation, or a hash of a file's content. It is for comparison only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub String);

/// The condition for a write.
#[derive(Clone, Copy, Debug)]
pub enum Precondition<'a> {
    /// There is no object with that key (If-None-Match: *).
    Absent,
    /// It is still this version (If-Match).
    Unchanged(&'a Version),
}

/// Says why an object cannot be deleted yet: Object Lock. `downcast_ref` finds it in an error of [`Store::delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// `None` when the server does not say: a legal hold has no end.
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

/// The remains of an upload that never ended: parts that are billed, or a temporary file.
#[derive(Clone, Debug)]
pub struct Unfinished {
    pub key: String,
    /// The upload id, or the temporary file's key.
    pub id: String,
    pub started_at: Option<DateTime<Utc>>,
}
