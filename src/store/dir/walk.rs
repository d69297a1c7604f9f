//! Lists the files of a directory store. An unreadable folder is named, and hides nothing else.

use std::fs::File;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use rustix::fs::{FileType, Stat};

use super::beneath::{self, Entry};
use super::mounted;
use crate::store::object::{Object, Unread};

/// Locked during conditional writes; it is in the root, and not an object.
pub(super) const GUARD: &str = ".pgtend.guard";

/// This is far deeper than DATABASE/JOB/SET/object; a loop of mounts ends here.
const DEPTH: usize = 16;

#[derive(Debug, Default)]
pub struct Walked {
    pub files: Vec<Object>,
    pub unread: Vec<Unread>,
}

/// Returns all files below `folder`, which is empty or a key. An error is that of `folder` itself.
pub fn walk(root: &Path, folder: &str) -> io::Result<Walked> {
    let folder = folder.trim_end_matches('/');
    let mut walked = Walked::default();
    if let Some(handle) = beneath::folder(root, folder)? {
        visit(root, &handle, folder, 0, &mut walked)?;
    }
    Ok(walked)
}

fn visit(root: &Path, folder: &File, key: &str, depth: usize, walked: &mut Walked) -> io::Result<()> {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}/{name}") };
    let mut folders = Vec::new();
    beneath::entries(folder, |name, entry| {
        let key = below(&name);
        match entry {
            Ok(Entry { status, kind: FileType::RegularFile, .. }) if ![GUARD, mounted::MARKER].contains(&key.as_str()) => {
                walked.files.push(object(key, &status));
            }
            // This is the file system's own, at the root of a mount: not ours to read.
            Ok(Entry { kind: FileType::Directory, .. }) if key == "lost+found" => {}
            Ok(Entry { kind: FileType::Directory, name, .. }) if depth < DEPTH => folders.push(name),
            Ok(Entry { kind: FileType::Symlink, name, .. }) => {
                let hides_folder = !beneath::leads_to_a_file(folder, &name);
                walked.unread.push(Unread { key, reason: format!("it is {}", beneath::LINK), hides_folder });
            }
            Ok(_) => {}
            Err(error) => walked.unread.push(Unread { key, reason: error.to_string(), hides_folder: true }),
        }
    })?;
    for name in folders {
        let key = below(&name);
        let visited = beneath::child(folder, &name, &root.join(&key))
            .and_then(|child| child.map_or(Ok(()), |child| visit(root, &child, &key, depth + 1, walked)));
        if let Err(error) = visited {
            walked.unread.push(Unread { key, reason: format!("it cannot be read: {error}"), hides_folder: true });
        }
    }
    Ok(())
}

pub fn object(key: String, status: &Stat) -> Object {
    Object { key, bytes: u64::try_from(status.st_size).unwrap_or(0), modified_at: modified_at(status) }
}

fn modified_at(status: &Stat) -> Option<DateTime<Utc>> {
    let nanoseconds = u32::try_from(status.st_mtime_nsec).ok()?;
    DateTime::from_timestamp(status.st_mtime, nanoseconds)
}
