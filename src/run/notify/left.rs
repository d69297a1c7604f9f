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

/// What ends the name of a file that could not be read.
const UNREAD: &str = "unread";

/// The files of one configuration: what a place is called means something there alone.
pub struct Left {
    /// Where messages are left: that of the path as it was given, which stays when a link on the way leads elsewhere; then that of the file itself, if it is another.
    folders: Vec<PathBuf>,
}

/// The files while no other process takes any.
pub struct Taking<'l> {
    left: &'l Left,
    _locks: Vec<File>,
}

impl Left {
    /// None where the system gives no place: in a container without a volume, each process begins anew.
    pub fn of(config: &Path) -> Option<Self> {
        let as_given = std::path::absolute(config).ok()?;
        let of = |config: &Path| Uuid::new_v5(&Uuid::NAMESPACE_URL, config.as_os_str().as_encoded_bytes()).to_string();
        let mut names = vec![of(&as_given)];
        names.extend(fs::canonicalize(config).ok().map(|itself| of(&itself)).filter(|name| *name != names[0]));
        let untold = state_folder::find()?.join("untold");
        Some(Self { folders: names.into_iter().map(|name| untold.join(name)).collect() })
    }

    /// Writes events, each with its place: all of them or none. Returns the file.
    pub fn leave(&self, events: &[(String, Event)]) -> Result<PathBuf> {
        let folder = self.folders.first().context("there is a folder")?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        if self.files("json").len() >= FILES_MOST {
            bail!("{} has {FILES_MOST} files", folder.display());
        }
        let file = folder.join(format!("{}.json", Uuid::new_v4()));
        let partial = file.with_extension("partial");
        let mut writing = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        writing.write_all(&serde_json::to_vec(events)?)?;
        writing.sync_all()?;
        fs::rename(&partial, &file)?;
        Ok(file)
    }

    /// Begins to take what lies there, unless there is nothing, or another process does.
    pub fn take(&self) -> Option<Taking<'_>> {
        if self.files("json").is_empty() {
            return None;
        }
        let mut locks = Vec::new();
        for folder in self.folders.iter().filter(|folder| folder.is_dir()) {
            let lock = File::open(folder).ok()?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
            locks.push(lock);
        }
        Some(Taking { left: self, _locks: locks })
    }

    fn files(&self, wanted: &str) -> Vec<PathBuf> {
        let entries = self.folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let paths = entries.map(|entry| entry.path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == wanted)).collect()
    }
}

impl Taking<'_> {
    /// The files with their events. One that cannot be read is said once and kept, as a later version or a person may read it.
    pub fn all(&self) -> Vec<(PathBuf, Vec<(String, Event)>)> {
        let mut all = Vec::new();
        for file in self.left.files("json") {
            match read(&file) {
                Ok(events) => all.push((file, events)),
                Err(error) => self.set_aside(&file, &error),
            }
        }
        all
    }

    fn set_aside(&self, file: &Path, error: &anyhow::Error) {
        let aside = file.with_extension(UNREAD);
        // Where too many lie there, or it cannot be renamed, it stays as it is, and is said again.
        let is_aside = self.left.files(UNREAD).len() < FILES_MOST && fs::rename(file, &aside).is_ok();
        let path = if is_aside { aside.as_path() } else { file };
        tracing::error!("nobody was told what is in {}, which is kept: {error:#}", path.display());
    }
}

fn read(file: &Path) -> Result<Vec<(String, Event)>> {
    serde_json::from_slice(&fs::read(file)?).with_context(|| format!("{} cannot be read", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_kept_and_said_once_and_what_lies_under_either_name_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let left = Left { folders: vec![place.path().join("as given"), place.path().join("itself")] };
        let event = Event { job: "nightly".to_owned(), ..Event::default() };
        let good = left.leave(&[("ops".to_owned(), event.clone())]).unwrap();
        std::fs::create_dir(&left.folders[1]).unwrap();
        let of_before = left.folders[1].join("a.json");
        std::fs::copy(&good, &of_before).unwrap();
        let odd = left.folders[0].join("b.json");
        std::fs::write(&odd, "[[\"ops\",{\"outcome\":\"of a later version\"}]]").unwrap();
        let taken = left.take().unwrap().all();
        let files: Vec<&PathBuf> = taken.iter().map(|(file, _)| file).collect();
        assert_eq!(files, [&good, &of_before]);
        assert!(taken.iter().all(|(_, events)| events[0].1 == event));
        assert!(!odd.exists() && odd.with_extension("unread").exists());
        assert_eq!(left.take().unwrap().all().len(), 2, "it is said once");
    }
}
