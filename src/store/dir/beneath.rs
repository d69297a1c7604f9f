//! Reaches a file of a store by the handles of its folders. Below the root no symbolic link is followed, whoever made it and
//! whenever: otherwise anyone who may write into a folder of the store could make pgtend write, read or delete elsewhere.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir as Entries, FileType, Mode, OFlags, RenameFlags, Stat, linkat, mkdirat, open, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::durable;

/// Dumps hold all of the database's data, so only their owner may read them.
const FOLDER_MODE: Mode = Mode::RWXU;

/// Opens a folder for its entries.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A place for a file: its folder, which exists, and its name, which need not exist.
#[derive(Debug)]
pub struct Place {
    root: PathBuf,
    /// The folders from the store's root down.
    folders: Vec<File>,
    /// The names of the folders below the root.
    names: Vec<String>,
    pub name: String,
}

impl Place {
    /// Returns `None` when its folder does not exist.
    pub fn find(root: &Path, key: &str) -> io::Result<Option<Self>> {
        match Self::walk(root, key, false) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates missing folders.
    pub fn make(root: &Path, key: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE.bits()).create(root)?;
        Self::walk(root, key, true)
    }

    fn walk(root: &Path, key: &str, makes: bool) -> io::Result<Self> {
        let mut names: Vec<String> = key.split('/').map(str::to_owned).collect();
        if names.iter().any(|name| name.is_empty() || name == "." || name == ".." || name.contains('\0')) {
            return Err(io::Error::new(ErrorKind::InvalidInput, format!("`{}` is not an object name", key.escape_debug())));
        }
        let name = names.pop().unwrap_or_default();
        let mut folders = vec![root_folder(root)?];
        let mut path = root.to_owned();
        for name in &names {
            path.push(name);
            let above = &folders[folders.len() - 1];
            if makes {
                match mkdirat(above, name, FOLDER_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let folder = subfolder(above, name, &path)?;
            folders.push(folder);
        }
        Ok(Self { root: root.to_owned(), folders, names, name })
    }

    fn folder(&self) -> &File {
        // The root always exists.
        &self.folders[self.folders.len() - 1]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.names.iter().fold(self.root.clone(), |path, name| path.join(name)).join(name)
    }

    /// Opens the file for reading. Returns `None` when it does not exist; an error when it is a link, a pipe or a folder.
    pub fn open(&self) -> io::Result<Option<File>> {
        // Without NONBLOCK, opening a pipe would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(self.folder(), &self.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(is_a_link(&self.path(&self.name))),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(is_no_file(&self.path(&self.name)));
        }
        Ok(Some(file))
    }

    /// Returns the file's metadata. Returns `None` when it does not exist; an error when it is a link, a pipe or a folder.
    pub fn stat(&self) -> io::Result<Option<Stat>> {
        let Some(status) = stat(self.folder(), &self.name)? else { return Ok(None) };
        match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => Ok(Some(status)),
            FileType::Symlink => Err(is_a_link(&self.path(&self.name))),
            _ => Err(is_no_file(&self.path(&self.name))),
        }
    }

    /// Creates a file beside it, which must not exist yet, not even as a dangling link.
    pub fn create_new(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(self.folder(), name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Gives a file beside it its name. A link of that name is replaced, and its target is untouched.
    pub fn rename_from(&self, temporary: &str) -> io::Result<()> {
        Ok(renameat(self.folder(), temporary, self.folder(), &self.name)?)
    }

    /// Does the same unless the name is taken. Some network shares have no hard links, and older kernels have no RENAME_NOREPLACE
    /// there: one of them suffices.
    pub fn place_from(&self, temporary: &str) -> Result<(), Errno> {
        let folder = self.folder();
        match linkat(folder, temporary, folder, &self.name, AtFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                renameat_with(folder, temporary, folder, &self.name, RenameFlags::NOREPLACE)
            }
            answer => answer,
        }
    }

    /// Removes a file of its folder; a missing file is not an error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(self.folder(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes empty folders, since objects have no folders, but files do. rmdir refuses a folder that still holds something.
    pub fn remove_empty_folders(&self) {
        for (above, name) in self.folders.iter().zip(&self.names).rev() {
            if unlinkat(above, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
    }

    /// Makes its name durable, and those of its folders up to the store's root, since some may be new.
    pub fn sync_folders(&self) -> io::Result<()> {
        self.folders.iter().rev().try_for_each(durable::sync_folder)
    }
}

/// Opens the store's own folder. Links may lead to it: the configured path means their target.
fn root_folder(root: &Path) -> io::Result<File> {
    Ok(open(root, FOLDER, Mode::empty())?.into())
}

/// Opens a folder in a folder; `path` is for messages.
fn subfolder(above: &File, name: &str, path: &Path) -> io::Result<File> {
    match openat(above, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(folder) => Ok(folder.into()),
        // For a link in place of a folder, Linux answers NOTDIR, other systems LOOP.
        Err(error @ (Errno::NOTDIR | Errno::LOOP)) => match stat(above, name)? {
            Some(status) if FileType::from_raw_mode(status.st_mode) == FileType::Symlink => Err(is_a_link(path)),
            _ => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn stat(folder: &File, name: &str) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Explains why a link is not followed.
pub const LINK: &str = "a symbolic link, and a store follows no links below its root";

fn is_a_link(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is {LINK}: mount its target there (mount --bind), or configure the target as a store",
        path.display()
    ))
}

fn is_no_file(path: &Path) -> io::Error {
    io::Error::other(format!("{} is not a regular file", path.display()))
}

/// An entry of a folder of the store, by handle.
pub struct Entry {
    pub name: String,
    pub status: Stat,
    pub kind: FileType,
}

/// Opens a folder of the store, for [`entries`]. Returns `None` when it does not exist. `folder` is "" or a key without a `/` at
/// its end.
pub fn folder(root: &Path, folder: &str) -> io::Result<Option<File>> {
    if folder.is_empty() {
        return match root_folder(root) {
            Ok(root) => Ok(Some(root)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
    }
    let Some(place) = Place::find(root, folder)? else { return Ok(None) };
    child(place.folder(), &place.name, &root.join(folder))
}

/// Returns `None` when it was deleted meanwhile.
pub fn child(above: &File, name: &str, path: &Path) -> io::Result<Option<File>> {
    match subfolder(above, name, path) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Shows the entries of a folder to `see`, each with its kind, or with the error that hides it. Names that are not UTF-8 are not
/// ours.
pub fn entries(folder: &File, mut see: impl FnMut(String, io::Result<Entry>)) -> io::Result<()> {
    for entry in Entries::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        match stat(folder, name) {
            // It may be deleted meanwhile.
            Ok(None) => {}
            Ok(Some(status)) => {
                let kind = FileType::from_raw_mode(status.st_mode);
                see(name.to_owned(), Ok(Entry { name: name.to_owned(), status, kind }));
            }
            Err(error) => see(name.to_owned(), Err(error)),
        }
    }
    Ok(())
}

/// Returns whether a link leads to a file: then it hides no folder.
pub fn leads_to_a_file(folder: &File, name: &str) -> bool {
    statat(folder, name, AtFlags::empty()).is_ok_and(|to| FileType::from_raw_mode(to.st_mode) == FileType::RegularFile)
}

/// Opens a file in the store's root that is locked and never read.
pub fn open_guard(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match openat(CWD, path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        Err(Errno::LOOP) => Err(is_a_link(path)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_at_the_temporary_name_is_not_written_through() {
        let (store, elsewhere) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let place = Place::make(store.path(), "a/object").unwrap();
        for (name, target) in [("nowhere", "new"), ("somewhere", "there")] {
            fs::write(elsewhere.path().join("there"), "untouched").unwrap();
            symlink(elsewhere.path().join(target), store.path().join("a").join(name)).unwrap();
            assert_eq!(place.create_new(name).unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        assert!(!elsewhere.path().join("new").exists());
        assert_eq!(fs::read_to_string(elsewhere.path().join("there")).unwrap(), "untouched");
    }

    #[test]
    fn a_folder_that_is_replaced_by_a_link_while_we_write_leads_nowhere_else() {
        let (store, elsewhere) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let place = Place::make(store.path(), "a/b/object").unwrap();
        place.create_new("temporary").unwrap();
        fs::rename(store.path().join("a"), store.path().join("moved")).unwrap();
        symlink(elsewhere.path(), store.path().join("a")).unwrap();
        place.rename_from("temporary").unwrap();
        assert!(store.path().join("moved/b/object").exists());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        let again = Place::make(store.path(), "a/b/object").unwrap_err().to_string();
        assert!(again.contains("/a is a symbolic link"), "{again}");
    }

    #[test]
    fn no_key_leads_out_of_the_store() {
        let store = tempfile::TempDir::new().unwrap();
        for key in ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", "a\0b"] {
            assert_eq!(Place::find(store.path(), key).unwrap_err().kind(), ErrorKind::InvalidInput, "{key:?}");
        }
    }
}
