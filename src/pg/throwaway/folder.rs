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
use rustix::process::geteuid;

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
            let message = format!("there is no folder {} for throwaway servers: set scratch_dir of [verify]", path.display());
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
        } else if others_may_write(&status, &self.path) && !Mode::from_raw_mode(status.st_mode).contains(Mode::SVTX) {
            format!(
                "other users can write into {path}, which has no sticky bit, and could put another folder in the place of a server's: chmod \
                 go-w {path} (and setfacl -b {path}, where it has an ACL), or chmod +t {path}"
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

    /// Removes a folder of this one with all that is in it. A folder in there that belongs neither to the owner of the removed one nor to
    /// this process's user stays, and is an error.
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

/// Returns whether the mode or an ACL lets others write. A group may have other members, this process's own as well.
fn others_may_write(status: &Stat, path: &Path) -> bool {
    Mode::from_raw_mode(status.st_mode).intersects(Mode::WOTH | Mode::WGRP) || acl_lets_others_write(path)
}

/// With an ACL, the mode shows the mask of its entries in the place of the group.
fn acl_lets_others_write(path: &Path) -> bool {
    let mut acl = [0; 8192];
    match rustix::fs::getxattr(path, "system.posix_acl_access", &mut acl[..]) {
        Ok(length) => lets_others_write(&acl[..length]),
        // Longer than any that a person writes.
        Err(Errno::RANGE) => true,
        Err(_) => false,
    }
}

/// Looks for a named user or group that may write. A header of 4 bytes is followed by 8 for each entry: tag, permissions and id
/// (linux/posix_acl_xattr.h).
fn lets_others_write(acl: &[u8]) -> bool {
    const NAMED_USER: u16 = 2;
    const NAMED_GROUP: u16 = 8;
    const WRITE: u16 = 2;
    acl.get(4..).unwrap_or_default().chunks_exact(8).any(|entry| {
        let (tag, permissions) = (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        matches!(tag, NAMED_USER | NAMED_GROUP) && permissions & WRITE != 0
    })
}

/// Takes the absence of a file for its removal.
fn removed(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_lets_others_write_if_a_named_user_or_group_may() {
        // user::rwx, user:1000:r-x, group::---, mask::rwx, other::---
        let acl = |named: u8, permissions: u8| {
            [
                &[2, 0, 0, 0][..],
                &[1, 0, 7, 0, 255, 255, 255, 255],
                &[named, 0, permissions, 0, 0xe8, 3, 0, 0],
                &[4, 0, 0, 0, 255, 255, 255, 255],
                &[0x10, 0, 7, 0, 255, 255, 255, 255],
                &[0x20, 0, 0, 0, 255, 255, 255, 255],
            ]
            .concat()
        };
        for (named, permissions, expected) in [(2, 5, false), (2, 7, true), (8, 2, true), (8, 0, false)] {
            assert_eq!(lets_others_write(&acl(named, permissions)), expected, "{named} {permissions}");
        }
        assert!(!lets_others_write(&[]) && !lets_others_write(&[2, 0, 0]));
    }
}
