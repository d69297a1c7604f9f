//! Folders by their handles. Only the folder that a person has configured is reached by its path, and only if no other user can put another one in
//! its place. Below it no link is followed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::fchown;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::user::User;
use crate::base::fault::{Fault, Kind};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A folder on the way to another need not be readable.
#[cfg(target_os = "linux")]
const ON_THE_WAY: OFlags = FOLDER.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const ON_THE_WAY: OFlags = FOLDER;

/// The files of a server are in no deeper folder.
const DEEPEST: usize = 32;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    handle: File,
    /// For messages, and for what takes only a path.
    path: PathBuf,
}

impl Folder {
    /// Opens the folder in which servers are created. It is refused if another user could exchange it or what is in it.
    pub fn for_servers(path: &Path) -> Result<Self> {
        let is_there = path.canonicalize().ok().filter(|path| path.is_dir());
        let path = is_there.with_context(|| {
            let message = format!("there is no folder {} for a server of its own: set scratch_dir of [verify]", path.display());
            Fault::new(Kind::Configuration, message)
        })?;
        let mut folder = Self { handle: openat(CWD, "/", ON_THE_WAY, Mode::empty())?.into(), path: PathBuf::from("/") };
        let root = fstat(&folder.handle)?;
        for component in path.components().filter(|component| matches!(component, Component::Normal(_))) {
            let path = folder.path.join(component);
            let handle = openat(&folder.handle, component.as_os_str(), ON_THE_WAY, Mode::empty())
                .with_context(|| format!("cannot open the folder {}", path.display()))?;
            folder = Self { handle: handle.into(), path };
            folder.check(&root)?;
        }
        Ok(folder)
    }

    /// Refuses a folder that belongs to another user, or into which others can write, unless its sticky bit keeps them from renaming what is
    /// not theirs. In a user namespace, root is whom `/` belongs to.
    fn check(&self, root: &Stat) -> Result<()> {
        let status = fstat(&self.handle)?;
        let path = self.path.display();
        let why = if ![0, root.st_uid, geteuid().as_raw()].contains(&status.st_uid) {
            format!(
                "{path} belongs to another user (uid {}), who could put another folder in the place of a server's: chown root {path} && chmod 711 \
                 {path} (the user of run_as only has to enter it)",
                status.st_uid
            )
        } else if others_may_write(&status) && !Mode::from_raw_mode(status.st_mode).contains(Mode::SVTX) {
            format!(
                "other users can write into {path}, which has no sticky bit, and could put another folder in the place of a server's: chmod \
                 go-w {path}, or chmod +t {path}"
            )
        } else {
            return Ok(());
        };
        let message = format!("{why}; or set scratch_dir of [verify] to another folder");
        Err(Fault::new(Kind::Configuration, message).into())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn owner(&self) -> io::Result<u32> {
        Ok(fstat(&self.handle)?.st_uid)
    }

    /// Returns whether that path leads to this very folder.
    pub fn is_same(&self, path: &Path) -> bool {
        let (Ok(own), Ok(found)) = (fstat(&self.handle), rustix::fs::stat(path)) else { return false };
        (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)
    }

    /// Creates a folder that only this process's user can enter.
    pub fn make(&self, name: &str) -> io::Result<()> {
        Ok(mkdirat(&self.handle, name, Mode::RWXU)?)
    }

    /// Opens a folder in this one; a link is an error.
    pub fn open(&self, name: &str) -> io::Result<Self> {
        let handle = openat(&self.handle, name, FOLDER, Mode::empty())?;
        Ok(Self { handle: handle.into(), path: self.path.join(name) })
    }

    /// Creates a file for its owner alone. It must not exist, not even as a link.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Opens a file for reading, or for writing, too. Opening a pipe does not wait.
    pub fn open_file(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::empty())?.into())
    }

    /// Returns None if there is nothing of that name.
    pub fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn give(&self, user: &User) -> io::Result<()> {
        give(&self.handle, user)
    }

    pub fn set_mode(&self, mode: Mode) -> io::Result<()> {
        Ok(fchmod(&self.handle, mode)?)
    }

    /// Lists the names in it.
    pub fn names(&self) -> io::Result<Vec<CString>> {
        let entries = Dir::new(openat(&self.handle, ".", FOLDER, Mode::empty())?)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_owned();
            if !matches!(name.as_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(names)
    }

    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        removed(unlinkat(&self.handle, name, AtFlags::empty()))
    }

    pub fn remove_folder(&self, name: &str) -> io::Result<()> {
        removed(unlinkat(&self.handle, name, AtFlags::REMOVEDIR))
    }

    /// Removes a folder of this one with all that is in it. A folder in there that belongs to somebody else than that one, or to this process's
    /// user, stays, and is an error.
    pub fn remove_all(&self, name: &str) -> io::Result<()> {
        let Some(status) = self.stat(name)? else { return Ok(()) };
        let name = CString::new(name)?;
        self.remove_tree(&name, &[status.st_uid, geteuid().as_raw()], DEEPEST)
    }

    fn remove_tree(&self, name: &CString, owners: &[u32], deepest: usize) -> io::Result<()> {
        let status = match statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
            return removed(unlinkat(&self.handle, name, AtFlags::empty()));
        }
        let path = self.path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let folder = Self { handle: openat(&self.handle, name, FOLDER, Mode::empty())?.into(), path };
        if deepest == 0 || !owners.contains(&folder.owner()?) {
            let path = folder.path.display();
            return Err(io::Error::other(format!("{path} is too deep for a folder of a server, or belongs to another user")));
        }
        for name in folder.names()? {
            folder.remove_tree(&name, owners, deepest - 1)?;
        }
        removed(unlinkat(&self.handle, name, AtFlags::REMOVEDIR))
    }
}

/// Gives an open file to a user.
pub fn give(file: &File, user: &User) -> io::Result<()> {
    fchown(file, Some(user.uid), Some(user.gid))
}

/// The members of this process's own group, and of root's, count as its user.
fn others_may_write(status: &Stat) -> bool {
    let mode = Mode::from_raw_mode(status.st_mode);
    let is_own_group = [0, getegid().as_raw()].contains(&status.st_gid);
    mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && !is_own_group)
}

/// What is gone need not be removed.
fn removed(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
