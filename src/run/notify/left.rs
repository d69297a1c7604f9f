//! What nobody took when a process ended, neither the ledger nor the service: it lies in this host's state folder until a later process finds the ledger back.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::event::Event;
use crate::base::state_folder;

/// The messages of so many processes lie there at most.
const FILES_MOST: usize = 100;

/// The files of one configuration: what a place is called means something there alone.
pub struct Left {
    folder: PathBuf,
}

/// The files while no other process takes any.
pub struct Taking<'l> {
    left: &'l Left,
    _lock: File,
}

impl Left {
    /// None where the system gives no place: in a container without a volume, each process begins anew.
    pub fn of(config: &Path) -> Option<Self> {
        let config = fs::canonicalize(config).ok()?;
        let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, config.as_os_str().as_encoded_bytes());
        Some(Self { folder: state_folder::find()?.join("untold").join(name.to_string()) })
    }

    /// Writes events, each with its place: all of them or none. Returns the file.
    pub fn leave(&self, events: &[(String, Event)]) -> Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if self.files().len() >= FILES_MOST {
            bail!("{} has {FILES_MOST} files", self.folder.display());
        }
        let file = self.folder.join(format!("{}.json", Uuid::new_v4()));
        let partial = file.with_extension("partial");
        let mut writing = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        writing.write_all(&serde_json::to_vec(events)?)?;
        writing.sync_all()?;
        fs::rename(&partial, &file)?;
        Ok(file)
    }

    /// Begins to take what lies there, unless there is nothing, or another process does.
    pub fn take(&self) -> Option<Taking<'_>> {
        if self.files().is_empty() {
            return None;
        }
        let lock = File::open(&self.folder).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Taking { left: self, _lock: lock })
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
    }
}

impl Taking<'_> {
    /// The files with their events. One that cannot be read has none.
    pub fn all(&self) -> Vec<(PathBuf, Vec<(String, Event)>)> {
        let mut all = Vec::new();
        for file in self.left.files() {
            let events = read(&file).unwrap_or_else(|error| {
                tracing::error!("nobody was told: {error:#}");
                Vec::new()
            });
            all.push((file, events));
        }
        all
    }
}

fn read(file: &Path) -> Result<Vec<(String, Event)>> {
    serde_json::from_slice(&fs::read(file)?).with_context(|| format!("{} cannot be read", file.display()))
}
