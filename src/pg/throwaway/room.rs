//! The private folder of a throwaway server, and a file in it that is locked while this process or the server's supervisor lives. A
//! folder is removed only when its lock is free, never because of its name or its age.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::user::User;
use crate::base::fault::{Fault, Kind};
use crate::base::process_identity::ProcessIdentity;

/// The start of a folder's name; the process that created it, and the start time of that process, follow.
const PREFIX: &str = "pgtend-throwaway-";

const LOCK: &str = "lock";

/// The path of a socket has at most 107 bytes on Linux, and 103 on macOS.
const SOCKET_PATH_BYTES: usize = 103;

/// The number of names to try: two runs of one process may need a folder at the same time, and a sweep may take a lock just before the
/// process that created its folder does.
const TRIES: u32 = 100;

/// The folder of one server.
pub struct Room {
    folder: PathBuf,
    lock: File,
}

impl Room {
    /// Creates it for a server that `owner` runs.
    pub fn make(parent: &Path, owner: Option<&User>) -> Result<Self> {
        let own = ProcessIdentity::own();
        for number in 0..TRIES {
            let folder = parent.join(format!("{PREFIX}{}-{}-{number}", own.pid, own.start_ticks));
            let Some(lock) = try_make(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))? else {
                continue;
            };
            let room = Self { folder, lock };
            return match room.make_server_folder(owner) {
                Ok(()) => Ok(room),
                Err(error) => {
                    room.remove()?;
                    Err(error)
                }
            };
        }
        anyhow::bail!("{} already has {TRIES} folders of throwaway servers of this process", parent.display())
    }

    fn make_server_folder(&self, owner: Option<&User>) -> Result<()> {
        let server = self.server();
        let length = self.socket().as_os_str().len();
        anyhow::ensure!(
            length <= SOCKET_PATH_BYTES,
            Fault::new(
                Kind::Configuration,
                format!(
                    "{} is too long for the path of a socket ({length} bytes, at most {SOCKET_PATH_BYTES}): set scratch_dir of [verify] to a shorter path",
                    self.socket().display()
                )
            )
        );
        DirBuilder::new()
            .mode(0o700)
            .create(&server)
            .with_context(|| format!("cannot create the folder {}", server.display()))?;
        if let Some(user) = owner {
            chown(&server, Some(user.uid), Some(user.gid))
                .with_context(|| format!("cannot give {} to the user {}", server.display(), user.name))?;
            // The user must be able to enter the server's folder, but nothing else in this one.
            std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the server's own folder, with its data, its log and its socket.
    pub fn server(&self) -> PathBuf {
        self.folder.join("server")
    }

    pub fn socket(&self) -> PathBuf {
        self.server().join(".s.PGSQL.5432")
    }

    /// Returns the same lock for another process: it is free when both processes are gone.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Removes what the supervisor has left of the folder.
    pub fn remove(self) -> Result<()> {
        remove_all(&self.folder)
    }
}

/// Creates a folder and takes its lock; returns None if the name is in use, or if a sweep was faster.
fn try_make(folder: &Path) -> io::Result<Option<File>> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    }
    let path = folder.join(LOCK);
    let lock = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
        Ok(lock) => lock,
        // A sweep has removed the empty folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    // It may have been removed before it was locked.
    let is_there = std::fs::metadata(&path).is_ok_and(|there| lock.metadata().is_ok_and(|own| own.ino() == there.ino()));
    Ok(is_there.then_some(lock))
}

/// Lists the folders whose owner is certainly gone.
pub fn leftovers(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let ours = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| entry.path()).filter(|folder| take(folder).is_some()).collect()
}

/// Removes a folder of [`leftovers`], under its lock. If the supervisor was killed as well, the server ends within a minute after its
/// folder is gone, since it checks its lock file (postmaster.pid).
pub fn remove_leftover(folder: &Path) -> Result<()> {
    let Some(_lock) = take(folder) else { return Ok(()) };
    remove_all(folder)
}

/// Takes the lock of a folder of ours; returns None while another process holds it, and if there is no lock.
fn take(folder: &Path) -> Option<File> {
    let found = std::fs::symlink_metadata(folder).ok()?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let lock = OpenOptions::new().read(true).write(true).custom_flags(nofollow()).open(folder.join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

fn nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

fn remove_all(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context(format!("cannot remove the folder {} of a throwaway server", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Refuses a parent that is not a folder.
pub fn check(parent: &Path) -> Result<()> {
    let message = || format!("there is no folder {} for a server of its own: set scratch_dir of [verify]", parent.display());
    anyhow::ensure!(parent.is_dir(), Fault::new(Kind::Configuration, message()));
    Ok(())
}

pub fn free_bytes(parent: &Path) -> Result<u64> {
    let status = rustix::fs::statvfs(parent).with_context(|| format!("cannot read the free space of {}", parent.display()))?;
    Ok(status.f_bavail * status.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_left_over_only_when_its_lock_is_free() {
        let parent = tempfile::tempdir().unwrap();
        let room = Room::make(parent.path(), None).unwrap();
        let second = Room::make(parent.path(), None).unwrap();
        let held = room.lock().unwrap();
        let folder = room.folder().to_owned();
        drop(room);
        assert_eq!(leftovers(parent.path()), Vec::<PathBuf>::new(), "the supervisor has the lock still");
        remove_leftover(&folder).unwrap();
        assert!(folder.exists());
        drop(held);
        assert_eq!(leftovers(parent.path()), vec![folder.clone()]);
        remove_leftover(&folder).unwrap();
        assert!(!folder.exists() && second.folder().exists());
    }

    #[test]
    fn a_name_alone_lets_nothing_be_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(format!("{PREFIX}1-1-0"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("data"), "somebody's").unwrap();
        let elsewhere = parent.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join(LOCK), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, parent.path().join(format!("{PREFIX}2-1-0"))).unwrap();
        assert_eq!(leftovers(parent.path()), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let deep = parent.path().join("x".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let error = format!("{:#}", Room::make(&deep, None).err().unwrap());
        assert!(error.contains("too long for the path of a socket") && error.contains("scratch_dir"), "{error}");
    }
}
