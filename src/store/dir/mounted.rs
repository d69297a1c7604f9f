//! Checks that a directory is still the store that it was: a mount point without its disk is an empty folder, or one with files
//! that were written while the disk was away. The store's root holds a marker, and this host remembers that.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::base::fault::{Fault, Kind};
use crate::base::state_folder;

/// The marker is in the store's root; it is written with the first object, and is not an object itself.
pub const MARKER: &str = ".pgtend-store.json";

/// The facts that this host remembers of a store, in a file of its state folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    root: PathBuf,
    /// True when the root was on another file system than its parent folder.
    is_mount_point: bool,
}

/// Returns the facts about the store at `root`. An unreadable record counts as none.
pub fn remembered(root: &Path) -> Option<Remembered> {
    let text = fs::read(record_of(root)?).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Returns an error of [`Kind::Unreachable`] when the store that was at `root` is gone.
pub fn check(root: &Path, remembered: Option<&Remembered>) -> Result<()> {
    let Some(remembered) = remembered else { return Ok(()) };
    let refused = |what: &str, remedy: String| {
        let message = format!("{} {what}: check whether its disk is mounted. {remedy}", root.display());
        Err(Fault::new(Kind::Unreachable, message).into())
    };
    if !root.join(MARKER).exists() {
        let remedy = format!("If an empty store is intended, create the file {MARKER} in it");
        return refused(&format!("was a store and holds no {MARKER} now"), remedy);
    }
    if remembered.is_mount_point && !is_mount_point(root) {
        let record = record_of(root).unwrap_or_default();
        let remedy = format!("If the store is to be on this disk from now on, delete {}", record.display());
        return refused("was a mount point and no longer is one", remedy);
    }
    Ok(())
}

/// Puts the marker into the store's existing root, and remembers it. Failure to remember is tolerated: a container has no place
/// for it, and gets its folders afresh each time.
pub fn mark(root: &Path, known: Option<&Remembered>) -> std::io::Result<()> {
    match fs::File::options().write(true).create_new(true).mode(0o600).open(root.join(MARKER)) {
        Ok(mut file) => {
            file.write_all(&marker())?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let now = Remembered { root: root.to_owned(), is_mount_point: is_mount_point(root) };
    if known != Some(&now)
        && let Err(error) = remember(&now)
    {
        tracing::debug!("cannot remember that {} is a store: {error}", root.display());
    }
    Ok(())
}

/// What a new marker holds: an id that no other store has.
pub fn marker() -> Vec<u8> {
    let marker =
        json!({ "id": Uuid::new_v4().to_string(), "made_at": Utc::now(), "by": concat!("pgtend ", env!("CARGO_PKG_VERSION")) });
    format!("{marker:#}\n").into_bytes()
}

/// Returns whether two paths lead to one folder: by a symbolic link, or a bind mount.
pub fn is_one_folder(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    folder(one).is_some() && folder(one) == folder(other)
}

fn remember(store: &Remembered) -> std::io::Result<()> {
    let record = record_of(&store.root).ok_or_else(|| std::io::Error::other("neither STATE_DIRECTORY nor HOME is set"))?;
    let folder = record.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = folder.join(format!("{}.partial", Uuid::new_v4()));
    fs::write(&temporary, serde_json::to_vec_pretty(store)?)?;
    fs::rename(&temporary, &record)
}

/// Returns the path `stores/HASH.json` in the state folder.
fn record_of(root: &Path) -> Option<PathBuf> {
    let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, root.as_os_str().as_encoded_bytes());
    Some(state_folder::find()?.join("stores").join(format!("{name}.json")))
}

/// Returns false for a bind mount of the same file system.
fn is_mount_point(root: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = root.parent().and_then(device);
    parent.is_some() && device(root) != parent
}
