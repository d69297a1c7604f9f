//! Writes under a condition in a directory. Whoever makes one holds a lock on a guard file in the store's root meanwhile, so that
//! looking and writing are one step among all processes that do so.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Dir, GUARD, durable};
use crate::fault::{Fault, Kind};
use crate::store::{Conditional, Version};

/// The guard is held for a few system calls: longer, and its holder hangs.
const GUARD_TIMEOUT: Duration = Duration::from_secs(30);

impl Dir {
    /// Writes when there is no such object (`expected` is None), or when it still is `expected`.
    pub async fn put_if(&self, key: &str, content: Vec<u8>, expected: Option<Version>) -> Result<Conditional> {
        let (dir, path) = (self.clone(), self.path_of(key));
        let for_writer = path.clone();
        let written = tokio::task::spawn_blocking(move || dir.put_if_blocking(&for_writer, &content, expected.as_ref())).await?;
        if !matches!(written, Ok(Conditional::Written(_))) {
            self.remove_empty_folders(&path).await;
        }
        written
    }

    fn put_if_blocking(&self, path: &Path, content: &[u8], expected: Option<&Version>) -> Result<Conditional> {
        let (temporary, mut file) = self.temporary_for(path)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| self.explain(error))?;
        let _guard = self.guard()?;
        match expected {
            None => match place(temporary.path(), path) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Ok(Conditional::NotSo),
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    return Ok(Conditional::Unsupported(
                        "its file system can neither link nor rename without replacing".to_owned(),
                    ));
                }
                Err(error) => return Err(self.explain(error.into())),
            },
            Some(expected) => {
                if version_of(path)?.as_ref() != Some(expected) {
                    return Ok(Conditional::NotSo);
                }
                fs::rename(temporary.path(), path).map_err(|error| self.explain(error))?;
            }
        }
        durable::sync_folders_of(path, &self.root).map_err(|error| self.explain(error))?;
        Ok(Conditional::Written(version(content)))
    }

    /// Deletes what still is `expected`; false when it is not.
    pub async fn delete_if(&self, key: &str, expected: &Version) -> Result<bool> {
        let (dir, path, expected) = (self.clone(), self.path_of(key), expected.clone());
        let for_deletion = path.clone();
        let deleted = tokio::task::spawn_blocking(move || {
            dir.check_mounted()?;
            let _guard = dir.guard()?;
            let is_same = version_of(&for_deletion)?.as_ref() == Some(&expected);
            if is_same {
                fs::remove_file(&for_deletion)?;
            }
            anyhow::Ok(is_same)
        });
        let deleted = deleted.await??;
        self.remove_empty_folders(&path).await;
        Ok(deleted)
    }

    /// Held until it is dropped, or its process ends.
    fn guard(&self) -> Result<File> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.root.join(GUARD);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| self.explain(error))?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK) if started.elapsed() < GUARD_TIMEOUT => std::thread::sleep(Duration::from_millis(20)),
                Err(Errno::WOULDBLOCK) => {
                    let message = format!("another process has held the lock of {} for 30 s: it hangs, end it", path.display());
                    return Err(Fault::new(Kind::Busy, message).into());
                }
                Err(error) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
            }
        }
    }
}

pub fn version(content: &[u8]) -> Version {
    Version(Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn version_of(path: &Path) -> Result<Option<Version>> {
    let mut content = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut content)) {
        Ok(_) => Ok(Some(version(&content))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Gives a complete file its name unless the name is taken. Some network shares have no hard links, older kernels no
/// RENAME_NOREPLACE there: one of them is enough.
fn place(temporary: &Path, path: &Path) -> Result<(), Errno> {
    match rustix::fs::link(temporary, path) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE)
        }
        answer => answer,
    }
}
