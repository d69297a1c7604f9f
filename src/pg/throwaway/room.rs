//! The private folder of a throwaway server, and a file in it that is locked while this process or the server's supervisor lives. A
//! folder is removed only when its lock is free, never because of its name or its age.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;

use super::folder::Folder;
use super::processes::PREFIX;
use super::user::User;
use crate::base::fault::{Fault, Kind};
use crate::base::process_identity::ProcessIdentity;

/// A folder that gets new files while it is removed is tried so often.
const REMOVE_TRIES: u32 = 50;

const LOCK: &str = "lock";
const SERVER: &str = "server";

/// The path of a socket has at most 107 bytes on Linux, and 103 on macOS.
const SOCKET_PATH_BYTES: usize = 103;

/// The number of names to try: two runs of one process may need a folder at the same time, and a sweep may take a lock just before the
/// process that created its folder does.
const TRIES: u32 = 100;

/// The folder of one server.
pub struct Room {
    parent: Folder,
    name: String,
    folder: Folder,
    lock: File,
}

impl Room {
    /// Creates it for a server that `owner` runs.
    pub fn make(parent: &Path, owner: Option<&User>) -> Result<Self> {
        let parent = Folder::for_servers(parent)?;
        let own = ProcessIdentity::own();
        for number in 0..TRIES {
            let name = format!("{PREFIX}{}-{}-{number}", own.pid, own.start_ticks);
            let made = try_make(&parent, &name);
            let Some((folder, lock)) =
                made.with_context(|| format!("cannot create the folder {}", parent.path().join(&name).display()))?
            else {
                continue;
            };
            let room = Self { parent, name, folder, lock };
            return match room.make_server_folder(owner) {
                Ok(()) => Ok(room),
                Err(error) => {
                    room.remove()?;
                    Err(error)
                }
            };
        }
        anyhow::bail!("{} already has {TRIES} folders of throwaway servers of this process", parent.path().display())
    }

    fn make_server_folder(&self, owner: Option<&User>) -> Result<()> {
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
        let server = self.server();
        self.folder.make(SERVER).with_context(|| format!("cannot create the folder {}", server.display()))?;
        if let Some(user) = owner {
            let given = self.server_folder().and_then(|folder| folder.give(user));
            given.with_context(|| format!("cannot give {} to the user {}", server.display(), user.name))?;
            // The user must be able to enter the server's folder, but nothing else in this one.
            self.folder.set_mode(Mode::RWXU | Mode::XGRP | Mode::XOTH)?;
        }
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the server's own folder, with its data, its log and its socket.
    pub fn server(&self) -> PathBuf {
        self.folder().join(SERVER)
    }

    /// Opens the server's own folder.
    pub fn server_folder(&self) -> io::Result<Folder> {
        self.folder.open(SERVER)
    }

    pub fn socket(&self) -> PathBuf {
        self.server().join(".s.PGSQL.5432")
    }

    /// Returns the end of the server's log.
    pub fn end_of_log(&self, bytes: u64) -> io::Result<Vec<u8>> {
        end_of_file(&self.server_folder()?, "log", bytes)
    }

    /// Returns the same lock for another process: it is free when both processes are gone.
    pub fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// Removes what the supervisor has left of the folder, and of the server if the supervisor was killed.
    pub fn remove(self) -> Result<()> {
        end_and_remove(&self.parent, &self.name, &self.folder)
    }
}

/// Creates a folder and takes its lock; returns None if the name is in use, or if a sweep was faster.
fn try_make(parent: &Folder, name: &str) -> io::Result<Option<(Folder, File)>> {
    match parent.make(name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    }
    let made = parent.open(name).and_then(|folder| Ok((folder.create(LOCK)?, folder)));
    let (lock, folder) = match made {
        Ok(made) => made,
        // A sweep has removed the empty folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if lock.try_lock().is_err() {
        return Ok(None);
    }
    // It may have been removed before it was locked.
    let number = lock.metadata()?.ino();
    let is_there = folder.stat(LOCK)?.is_some_and(|there| there.st_ino == number);
    Ok(is_there.then_some((folder, lock)))
}

/// Lists the folders whose owner is certainly gone.
pub fn leftovers(parent: &Path) -> Vec<PathBuf> {
    // In a folder that others can change, nothing is removed.
    let Ok(parent) = Folder::for_servers(parent) else { return Vec::new() };
    let names = parent.names().unwrap_or_default().into_iter().filter_map(|name| name.into_string().ok());
    let folders = names.filter(|name| name.starts_with(PREFIX)).filter_map(|name| open_ours(&parent, &name));
    folders.filter(|folder| is_empty(folder) || take(folder).is_some()).map(|folder| folder.path().to_owned()).collect()
}

/// Removes a folder of [`leftovers`], under its lock. If the supervisor was killed as well, the server may be running: it is ended first.
pub fn remove_leftover(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return Ok(()) };
    let parent = Folder::for_servers(parent)?;
    let Some(folder) = open_ours(&parent, name) else { return Ok(()) };
    if is_empty(&folder) {
        // Its process was killed before it made the lock, or makes it now: then the folder is not empty any more, or that process takes
        // another name.
        let _ = parent.remove_folder(name);
        return Ok(());
    }
    let Some(_lock) = take(&folder) else { return Ok(()) };
    end_and_remove(&parent, name, &folder)
}

fn is_empty(folder: &Folder) -> bool {
    folder.names().is_ok_and(|names| names.is_empty())
}

/// Opens a folder of this process's user.
fn open_ours(parent: &Folder, name: &str) -> Option<Folder> {
    parent.open(name).ok().filter(|folder| folder.owner().is_ok_and(|owner| owner == geteuid().as_raw()))
}

/// Takes the lock of a folder of ours; returns None while another process holds it, and if there is no lock.
fn take(folder: &Folder) -> Option<File> {
    let lock = folder.open_file(LOCK, OFlags::RDWR).ok()?;
    lock.try_lock().ok()?;
    Some(lock)
}

/// The lock goes last but for the empty folder: without it, nothing else would ever be removed after a kill in between.
fn end_and_remove(parent: &Folder, name: &str, folder: &Folder) -> Result<()> {
    match folder.open(SERVER) {
        Ok(server) => end_server(&server)?,
        Err(error) => tracing::debug!("no folder of a server in {}: {error}", folder.path().display()),
    }
    let removed = remove_server(folder).and_then(|()| folder.remove_file(LOCK)).and_then(|()| parent.remove_folder(name));
    removed.with_context(|| format!("cannot remove the folder {} of a throwaway server", folder.path().display()))
}

/// Removes it with all that is in it. The shell around a server that was just ended may still write its last file there.
fn remove_server(folder: &Folder) -> io::Result<()> {
    for _ in 1..REMOVE_TRIES {
        match folder.remove_all(SERVER) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => std::thread::sleep(Duration::from_millis(100)),
            ended => return ended,
        }
    }
    folder.remove_all(SERVER)
}

/// Ends every process of the server whose folder this is: its data are in `data` there. On other systems than Linux, the server ends by itself
/// within a minute after its folder is gone, since it looks for its postmaster.pid.
#[cfg(not(target_os = "linux"))]
fn end_server(_server: &Folder) -> Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn end_server(server: &Folder) -> Result<()> {
    super::linux::end(server)
}

/// Reads the end of a file that another user writes: a link, or something else than a file, is an error.
fn end_of_file(folder: &Folder, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = folder.open_file(name, OFlags::RDONLY)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    file.seek(io::SeekFrom::Start(found.len().saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    Ok(end)
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
    fn a_folder_of_a_process_that_was_killed_before_it_made_the_lock_is_removed_while_it_is_empty() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(format!("{PREFIX}1-1-0"));
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(leftovers(parent.path()), vec![folder.clone()]);
        remove_leftover(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_removal_that_was_interrupted_is_continued() {
        let parent = tempfile::tempdir().unwrap();
        let room = Room::make(parent.path(), None).unwrap();
        let folder = room.folder().to_owned();
        std::fs::create_dir(room.server().join("data")).unwrap();
        // What cannot be removed keeps the lock.
        let data = room.server().join("data");
        std::fs::write(data.join("file"), "").unwrap();
        drop(room);
        let immutable = std::process::Command::new("chattr").arg("+i").arg(data.join("file")).status();
        if immutable.is_ok_and(|status| status.success()) {
            assert!(remove_leftover(&folder).is_err());
            assert!(folder.join(LOCK).exists(), "the lock goes last");
            assert!(std::process::Command::new("chattr").arg("-i").arg(data.join("file")).status().unwrap().success());
        }
        remove_leftover(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_name_alone_lets_nothing_be_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join(format!("{PREFIX}1-1-0"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("data"), "another user's").unwrap();
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
