//! A directory as a store: temporary name, fsync, rename, fsync of the folder.

mod conditional;
mod durable;
mod mounted;

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub use self::conditional::version;
use super::{Object, Unfinished};

/// Ends the name of a file that is being written; such a file is not an object.
const TEMPORARY: &str = ".partial";

/// Locked during writes under a condition; in the root, no object.
const GUARD: &str = ".pgtend.guard";

/// Deeper than DATABASE/JOB/SET/object by far; a loop of links ends here.
const DEPTH: usize = 16;

const READ_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct Dir {
    root: PathBuf,
    remembered: Option<mounted::Remembered>,
}

impl Dir {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), remembered: mounted::remembered(root) }
    }

    /// An error when the store is not what it was: its disk is not mounted.
    pub fn check_mounted(&self) -> Result<()> {
        mounted::check(&self.root, self.remembered.as_ref())
    }

    pub fn path_of(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        let files = self.files(folder).await?;
        Ok(files.into_iter().filter(|file| !file.key.ends_with(TEMPORARY)).collect())
    }

    pub async fn unfinished(&self, folder: &str) -> Result<Vec<Unfinished>> {
        let files = self.files(folder).await?;
        let temporary = files.into_iter().filter(|file| file.key.ends_with(TEMPORARY));
        Ok(temporary.map(|file| Unfinished { key: file.key.clone(), id: file.key, started_at: file.modified_at }).collect())
    }

    async fn files(&self, folder: &str) -> Result<Vec<Object>> {
        self.check_mounted()?;
        let mut found = Vec::new();
        let mut folders = vec![(folder.trim_end_matches('/').to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let mut entries = match fs::read_dir(self.path_of(&folder)).await {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| self.path_of(&folder).display().to_string()),
            };
            while let Some(entry) = entries.next_entry().await? {
                let Ok(name) = entry.file_name().into_string() else { continue };
                let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                // An object may be deleted while we look.
                let Ok(metadata) = entry.metadata().await else { continue };
                // A file system's own, at the root of a mount: not ours to read.
                if metadata.is_dir() && key == "lost+found" {
                    continue;
                }
                if metadata.is_dir() && depth < DEPTH {
                    folders.push((key, depth + 1));
                } else if metadata.is_file() && ![GUARD, mounted::MARKER].contains(&key.as_str()) {
                    let modified_at = metadata.modified().ok().map(DateTime::<Utc>::from);
                    found.push(Object { key, bytes: metadata.len(), modified_at });
                }
            }
        }
        Ok(found)
    }

    pub async fn stat(&self, key: &str) -> Result<Option<Object>> {
        self.check_mounted()?;
        match fs::metadata(self.path_of(key)).await {
            Ok(metadata) => {
                let modified_at = metadata.modified().ok().map(DateTime::<Utc>::from);
                Ok(Some(Object { key: key.to_owned(), bytes: metadata.len(), modified_at }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object exists.
    pub async fn exists_for_certain(&self, key: &str) -> Result<bool> {
        anyhow::ensure!(
            self.root.is_dir(),
            "there is no folder {}: whether it held an object of that name cannot be said",
            self.root.display()
        );
        Ok(self.stat(key).await?.is_some())
    }

    pub async fn read(&self, key: &str) -> Result<Option<Reader>> {
        self.check_mounted()?;
        match fs::File::open(self.path_of(key)).await {
            Ok(file) => Ok(Some(Reader { file })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn upload(&self, key: &str) -> Result<Upload> {
        let path = self.path_of(key);
        let (dir, for_file) = (self.clone(), path.clone());
        let (temporary, file) = tokio::task::spawn_blocking(move || dir.temporary_for(&for_file)).await??;
        Ok(Upload { dir: self.clone(), path, temporary: temporary.keep(), file: Some(fs::File::from_std(file)) })
    }

    /// The file that an object is written to, in a store that is known to be there.
    fn temporary_for(&self, path: &Path) -> Result<(Temporary, std::fs::File)> {
        self.check_mounted()?;
        let created = Temporary::create(path).and_then(|created| {
            mounted::mark(&self.root, self.remembered.as_ref())?;
            Ok(created)
        });
        created.map_err(|error| self.explain(error))
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        self.check_mounted()?;
        match fs::remove_file(self.path_of(key)).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(self.explain(error)),
        }
        self.remove_empty_folders(&self.path_of(key)).await;
        Ok(())
    }

    /// Objects have no folders; files do. A folder that still holds something stays: rmdir refuses it.
    async fn remove_empty_folders(&self, path: &Path) {
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.root && folder.starts_with(&self.root)) {
            if fs::remove_dir(folder).await.is_err() {
                break;
            }
        }
    }

    pub fn free_bytes(&self) -> Option<u64> {
        let existing = self.root.ancestors().find(|path| path.exists())?;
        let status = rustix::fs::statvfs(existing).ok()?;
        Some(status.f_bavail * status.f_frsize)
    }

    fn explain(&self, error: std::io::Error) -> anyhow::Error {
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                let free = self.free_bytes().map(crate::units::bytes).unwrap_or_default();
                format!("the disk of {} is full ({free} free): make room, or keep fewer sets", self.root.display())
            }
            ErrorKind::PermissionDenied => {
                let message = format!("no permission to write in {}", self.root.display());
                return anyhow::Error::new(error).context(crate::fault::Fault::new(crate::fault::Kind::Permission, message));
            }
            _ => format!("cannot write in {}", self.root.display()),
        };
        anyhow::Error::new(error).context(hint)
    }
}

/// A file beside the one that it will become. Removed when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    /// With its folders. Dumps hold everything that the database holds: for their owner only.
    fn create(path: &Path) -> std::io::Result<(Self, std::fs::File)> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = folder.join(format!(".{name}.{}{TEMPORARY}", uuid::Uuid::new_v4().simple()));
        let mut attempts = 0..3;
        loop {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            match std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary) {
                Ok(file) => return Ok((Self(temporary), file)),
                // Who deletes the last object of a folder removes the folder.
                Err(error) if error.kind() == ErrorKind::NotFound && attempts.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// It is somebody else's to remove.
    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

pub struct Reader {
    file: fs::File,
}

impl Reader {
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let count = self.file.read_buf(&mut buffer).await?;
        Ok((count > 0).then(|| buffer.freeze()))
    }
}

pub struct Upload {
    dir: Dir,
    path: PathBuf,
    temporary: PathBuf,
    /// None once finished or aborted.
    file: Option<fs::File>,
}

impl Upload {
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().context("the upload has ended")?;
        file.write_all(bytes).await.map_err(|error| self.dir.explain(error))
    }

    pub async fn finish(&mut self) -> Result<()> {
        let file = self.file.as_mut().context("the upload has ended")?;
        let made_durable = async {
            file.flush().await?;
            file.sync_all().await?;
            fs::rename(&self.temporary, &self.path).await?;
            // The rename is durable with its folder, a new folder with the one above it.
            let (path, root) = (self.path.clone(), self.dir.root.clone());
            tokio::task::spawn_blocking(move || durable::sync_folders_of(&path, &root)).await?
        };
        made_durable.await.map_err(|error| self.dir.explain(error))?;
        self.file = None;
        Ok(())
    }

    pub async fn abort(&mut self) -> Result<()> {
        if self.file.take().is_some() {
            match fs::remove_file(&self.temporary).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot remove {}", self.temporary.display())),
            }
            self.dir.remove_empty_folders(&self.temporary).await;
        }
        Ok(())
    }
}
